//! Plugins that do not change answers: logs, reloads, limits.
//!
//! Core.

use std::time::Duration;

use super::super::keys::Zone;
use super::super::lexer::Token;
use super::super::parser::{Directive, Line};
use super::arguments::{duration, none, number, one, optional, zones};
use super::{Fate, Server, refuse_options, settle, unknown_option};
use crate::corefile::plan::Rows;

/// A plugin that has no arguments, and no effect here.
pub fn without_effect(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let said = none(&directive.line).map(|()| Fate::BuiltIn("makes no difference to answers"));
    settle(&directive.line, said, rows);
    refuse_options(directive, rows);
}

/// `loop`
pub fn without_loops(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let text = "forwarding loops end with SERVFAIL and a log line; the program goes on";
    let said = none(&directive.line).map(|()| Fate::BuiltIn(text));
    settle(&directive.line, said, rows);
    refuse_options(directive, rows);
}

/// `errors [stdout] { stacktrace; consolidate DURATION REGEX [LEVEL] [show_first] }`
pub fn errors(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let built_in = "errors are logged, with a limit for those that repeat";
    let said = optional(&directive.line, "stdout or nothing").and_then(|target| match target {
        None | Some("stdout") => Ok(Fate::BuiltIn(built_in)),
        Some(other) => Err(format!("{other:?} is not allowed; expected stdout")),
    });
    settle(&directive.line, said, rows);
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "stacktrace" => none(option),
            "consolidate" => consolidate(option),
            _ => Err(unknown_option(option, "stacktrace, consolidate")),
        };
        let text = "an upstream that fails is one line, and another one when it answers again";
        settle(option, said.map(|()| Fate::BuiltIn(text)), rows);
    }
}

fn consolidate(line: &Line) -> Result<(), String> {
    let words: Vec<&str> = line.arguments.iter().map(|token| token.text.as_str()).collect();
    let [every, _pattern, rest @ ..] = &words[..] else {
        return Err("expected a duration and a pattern, such as 5m \".*\"".to_owned());
    };
    duration(every)?;
    let known = ["warning", "error", "info", "debug", "show_first"];
    match rest.iter().find(|word| !known.contains(word)) {
        None => Ok(()),
        Some(word) => Err(format!("{word:?} is not allowed; expected one of {}", known.join(", "))),
    }
}

/// A line `log`.
#[derive(Clone, Debug)]
pub struct Log {
    /// The index of the line.
    pub index: usize,
    /// The zones of the names; those of the block if empty.
    pub zones: Vec<Zone>,
    /// The classes of replies; all if empty.
    pub classes: Vec<&'static str>,
}

/// `log [NAMES...] [FORMAT] { class CLASS... }`
pub fn log(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    // A single argument is always a name, and the last of several can be a format.
    let names = match &line.arguments[..] {
        [names @ .., format] if !names.is_empty() && format.text.contains('{') => {
            rows.build_in(line.index, "each query is logged with its fields, in place of FORMAT");
            names
        }
        [format] if format.text.contains('{') => {
            let text = "no query has this name, so none is logged; write log . FORMAT";
            return rows.build_in(line.index, text);
        }
        names => names,
    };
    let mut log = Log { index: line.index, zones: Vec::new(), classes: Vec::new() };
    match zones(names) {
        Ok(zones) => log.zones = zones,
        Err(reason) => rows.refuse(line.index, reason),
    }
    for option in &directive.options {
        match classes(option) {
            Ok(classes) => log.classes.extend(classes),
            Err(reason) => rows.refuse(option.index, reason),
        }
        rows.build_in(option.index, "see the line above");
    }
    if log.classes.contains(&"all") {
        log.classes.clear();
    }
    server.logs.push(log);
}

/// `class CLASS...`
fn classes(line: &Line) -> Result<Vec<&'static str>, String> {
    const KNOWN: [&str; 4] = ["success", "denial", "error", "all"];
    if line.name.text != "class" {
        return Err(unknown_option(line, "class"));
    }
    if line.arguments.is_empty() {
        return Err(format!("no argument; expected one or more of {}", KNOWN.join(", ")));
    }
    let class = |token: &Token| {
        let known = KNOWN.into_iter().find(|class| *class == token.text);
        let error = || format!("{:?} is not allowed; expected {}", token.text, KNOWN.join(", "));
        known.ok_or_else(error)
    };
    line.arguments.iter().map(class).collect()
}

/// `reload [off | INTERVAL [JITTER]]`
pub fn reload(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let built_in =
        Fate::BuiltIn("the file and its imports are watched, changes are applied at once");
    let words: Vec<&str> =
        directive.line.arguments.iter().map(|token| token.text.as_str()).collect();
    let interval = |text| match duration(text)? {
        every if every >= Duration::from_secs(2) => Ok(()),
        _ => Err(format!("{text:?} is not allowed; expected 2s or more")),
    };
    let jitter = |text| match duration(text)? {
        jitter if jitter.is_zero() || jitter >= Duration::from_secs(1) => Ok(()),
        _ => Err(format!("{text:?} is not allowed; expected 0 or 1s and more")),
    };
    let said = match &words[..] {
        [] | ["off"] => Ok(()),
        [every] => interval(every),
        [every, spread] => interval(every).and_then(|()| jitter(spread)),
        [_, _, third, ..] => Err(format!("{third:?} is too much; expected INTERVAL JITTER")),
    };
    settle(&directive.line, said.map(|()| built_in), rows);
    refuse_options(directive, rows);
}

/// `cancel [TIMEOUT]`
pub fn cancel(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let said = optional(&directive.line, "a duration").and_then(|text| {
        text.map_or(Ok(Duration::ZERO), duration)?;
        Ok(Fate::BuiltIn("each query ends after --upstream-timeout"))
    });
    settle(&directive.line, said, rows);
    refuse_options(directive, rows);
}

/// `timeouts { read|write|idle DURATION }`
pub fn timeouts(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let built_in = "connections over TCP have limits of their own";
    settle(&directive.line, none(&directive.line).map(|()| Fate::BuiltIn(built_in)), rows);
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "read" | "write" | "idle" => one(option, "a duration").and_then(duration),
            _ => Err(unknown_option(option, "read, write, idle")),
        };
        settle(option, said.map(|_| Fate::BuiltIn(built_in)), rows);
    }
}

/// `multisocket [COUNT]`
pub fn multisocket(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let said = optional(&directive.line, "a number of sockets").and_then(|text| {
        text.map_or(Ok(1), |text| number(text, 1..=1_024))?;
        Ok(Fate::BuiltIn("each core has a socket of its own"))
    });
    settle(&directive.line, said, rows);
    refuse_options(directive, rows);
}

/// `pprof [ADDRESS] { block [RATE] }`
pub fn pprof(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let built_in = "there are no profiles; makes no difference to answers";
    let said = optional(&directive.line, "an address").map(|_| Fate::BuiltIn(built_in));
    settle(&directive.line, said, rows);
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "block" => optional(option, "a rate").map(|_| Fate::BuiltIn(built_in)),
            _ => Err(unknown_option(option, "block")),
        };
        settle(option, said, rows);
    }
}
