//! Plugins about replies that need no name: sizes, order, flags.
//!
//! Core.

use super::super::parser::Directive;
use super::arguments::{none, number, one, optional};
use super::{Fate, Server, refuse_options, settle, unknown_option};
use crate::corefile::plan::{Program, Rows};

/// `bufsize [BYTES]`
pub fn bufsize(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let size = optional(line, "512 to 4096 bytes");
    match size.and_then(|text| text.map_or(Ok(1_232), |text| number(text, 512..=4_096))) {
        Ok(bytes) => rows.set(line.index, (Program::Dnscache, "udp-size"), bytes),
        Err(reason) => rows.refuse(line.index, reason),
    }
    refuse_options(directive, rows);
}

/// `loadbalance [round_robin | weighted FILE] { ... }`
pub fn loadbalance(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let policy = line.arguments.first().map(|token| token.text.as_str());
    let said = match policy {
        None | Some("round_robin") if line.arguments.len() <= 1 => {
            Ok(Fate::BuiltIn("each record is first in an equal share of replies"))
        }
        Some("weighted") => Err("weights are not read; write loadbalance round_robin".to_owned()),
        _ => Err("expected round_robin or nothing".to_owned()),
    };
    settle(line, said, rows);
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "prefer" => Err("no prefix is preferred; remove the line".to_owned()),
            _ => Err("round_robin has no options; remove the line".to_owned()),
        };
        settle(option, said, rows);
    }
}

/// `local { localhost_prefix on|off }`
pub fn local(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    settle(&directive.line, none(&directive.line).map(|()| Fate::Kept), rows);
    server.local = Some(directive.line.index);
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "localhost_prefix" => match one(option, "on or off") {
                Ok("off") => Ok(Fate::BuiltIn("only localhost itself and names below it")),
                Ok(_) => Err("localhost.DOMAIN is not answered; write off".to_owned()),
                Err(reason) => Err(reason),
            },
            _ => Err(unknown_option(option, "localhost_prefix")),
        };
        settle(option, said, rows);
    }
}

/// `any`
pub fn any(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let built_in = "ANY is answered with one HINFO record (RFC 8482)";
    settle(&directive.line, none(&directive.line).map(|()| Fate::BuiltIn(built_in)), rows);
    refuse_options(directive, rows);
}

/// `chaos [VERSION] [AUTHORS...]`
pub fn chaos(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let said = match directive.line.arguments.is_empty() {
        true => Ok(Fate::BuiltIn("version.bind and the figures of the cache are answered")),
        false => Err("the version is dnscache's own; write chaos without arguments".to_owned()),
    };
    settle(&directive.line, said, rows);
    refuse_options(directive, rows);
}

/// `header { query|response set|clear FLAG... }`
pub fn header(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    settle(&directive.line, none(&directive.line).map(|()| Fate::Kept), rows);
    for option in &directive.options {
        let words: Vec<&str> = std::iter::once(&option.name)
            .chain(&option.arguments)
            .map(|token| token.text.as_str())
            .collect();
        let said = match &words[..] {
            ["response", "set", "ra"] | ["set", "ra"] => {
                Ok(Fate::BuiltIn("RA is set in every reply to a query that may recurse"))
            }
            _ => {
                Err("flags of messages are set as RFC 1035 wants them; remove the line".to_owned())
            }
        };
        settle(option, said, rows);
    }
}
