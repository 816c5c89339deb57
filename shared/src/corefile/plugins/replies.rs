//! Plugins about replies that need no name: sizes, order, flags.
//!
//! Core.

use super::super::parser::{Directive, Line};
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

/// Flags of messages that a block sets or clears. `None` leaves them as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// AA of replies.
    pub authoritative: Option<bool>,
    /// RA of replies.
    pub recursion_available: Option<bool>,
    /// RD of replies.
    pub recursion_desired: Option<bool>,
    /// RD of queries to upstreams.
    pub query_recursion: Option<bool>,
}

/// `header { [query|response] set|clear FLAG... }`
pub fn header(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    if server.header.is_some() {
        settle(line, Ok(Fate::BuiltIn("the first header of a block counts")), rows);
        return;
    }
    let has_options = if directive.options.is_empty() {
        Err("expected response set or clear and flags, such as response set ra".to_owned())
    } else {
        Ok(Fate::Kept)
    };
    settle(line, none(line).and(has_options), rows);
    let mut header = Header::default();
    for option in &directive.options {
        match flags(option, &mut header) {
            Ok(text) => rows.rule(option.index, text),
            Err(reason) => rows.refuse(option.index, reason),
        }
    }
    server.header = Some(header);
}

/// Returns the meaning of a line of `header`. The last line about a flag counts.
fn flags(line: &Line, header: &mut Header) -> Result<&'static str, String> {
    let words = std::iter::once(&line.name).chain(&line.arguments);
    let words: Vec<String> = words.map(|token| token.text.to_ascii_lowercase()).collect();
    let mut words: &[String] = &words;
    let is_query = words.first().is_some_and(|word| word == "query");
    if is_query || words.first().is_some_and(|word| word == "response") {
        words = &words[1..];
    }
    let (is_set, names) = match words {
        [action, names @ ..] if action == "set" && !names.is_empty() => (true, names),
        [action, names @ ..] if action == "clear" && !names.is_empty() => (false, names),
        _ => return Err("expected [query|response] set|clear and flags: aa, ra, rd".to_owned()),
    };
    for name in names {
        let flag = match (name.as_str(), is_query) {
            ("rd", true) => &mut header.query_recursion,
            ("aa" | "ra", true) => continue,
            ("aa", false) => &mut header.authoritative,
            ("ra", false) => &mut header.recursion_available,
            ("rd", false) => &mut header.recursion_desired,
            _ => return Err(format!("{name:?} is not allowed; expected aa, ra or rd")),
        };
        *flag = Some(is_set);
    }
    Ok(if is_query { "flags of queries to upstreams" } else { "flags of replies" })
}
