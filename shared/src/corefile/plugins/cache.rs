//! The plugin `cache`.
//!
//! Core.

use std::time::Duration;

use super::super::keys::Zone;
use super::super::parser::{Directive, Line};
use super::arguments::{duration, none, number, zones};
use super::{Fate, Said, Server, settle, unknown_option};
use crate::corefile::plan::{Program, Rows};

/// The lifetimes of a block.
#[derive(Clone, Debug)]
pub struct Cache {
    /// The index of its line.
    pub index: usize,
    /// The zones that are cached; those of the block if empty.
    pub zones: Vec<Zone>,
    /// The longest lifetime of an answer, in seconds, and the line that sets it.
    pub success: (usize, u32),
    /// The longest lifetime of a denial, and the line that sets it.
    pub denial: (usize, u32),
    /// How many answers it can hold, if a line sets that.
    pub answers: Option<(usize, u32)>,
    /// How many denials it can hold, if a line sets that.
    pub denials: Option<(usize, u32)>,
    /// Zones whose answers or denials are not cached, with the line that disables them.
    pub disabled: Vec<Disabled>,
}

/// A line `disable`.
#[derive(Clone, Debug)]
pub struct Disabled {
    /// The index of the line.
    pub index: usize,
    /// Whether it applies to denials; otherwise it applies to answers.
    pub denials: bool,
    /// The zones.
    pub zones: Vec<Zone>,
}

/// `cache [TTL] [ZONES...] { ... }`
pub fn read(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let (ttl, names) = match line.arguments.split_first() {
        Some((first, rest)) if first.text.parse::<i64>().is_ok() => (Some(first), rest),
        _ => (None, &line.arguments[..]),
    };
    let ttl = match ttl.map(|token| number(&token.text, 1..=TTL_MAX)).transpose() {
        Ok(ttl) => ttl,
        Err(reason) => return rows.refuse(line.index, reason),
    };
    let names = match zones(names) {
        Ok(names) => names,
        Err(reason) => return rows.refuse(line.index, reason),
    };
    let mut cache = Cache {
        index: line.index,
        zones: names,
        success: (line.index, ttl.unwrap_or(SUCCESS_SECS)),
        denial: (line.index, ttl.unwrap_or(DENIAL_SECS)),
        answers: None,
        denials: None,
        disabled: Vec::new(),
    };
    let has_stale = directive.options.iter().any(|option| option.name.text == "serve_stale");
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "success" => capacity(option, &mut cache, false),
            "denial" => capacity(option, &mut cache, true),
            "prefetch" => prefetch(option),
            "serve_stale" => match serve_stale(option) {
                Ok(stale) => {
                    let seconds = stale.as_secs().min(STALE_SECS_MAX);
                    rows.set(option.index, (Program::Dnscache, "serve-stale"), seconds);
                    Ok(Fate::Kept)
                }
                Err(reason) => Err(reason),
            },
            "serve_stale_policy" if !has_stale => Err("expected serve_stale beside it".to_owned()),
            "serve_stale_policy" => {
                Err("an expired denial is a denial; remove the line".to_owned())
            }
            "servfail" => servfail(option),
            "disable" => disable(option, &mut cache),
            "keepttl" => none(option).and_then(|()| Err(KEEPTTL.to_owned())),
            _ => Err(unknown_option(option, OPTIONS)),
        };
        settle(option, said, rows);
    }
    server.cache = Some(cache);
}

/// `success|denial CAPACITY [TTL] [MINTTL]`
fn capacity(line: &Line, cache: &mut Cache, denials: bool) -> Said {
    let words: Vec<&str> = line.arguments.iter().map(|token| token.text.as_str()).collect();
    let (entries, rest) = match &words[..] {
        [entries, rest @ ..] if rest.len() <= 2 => (number(entries, 1..=ENTRIES_MAX)?, rest),
        _ => return Err("expected CAPACITY [TTL] [MINTTL]".to_owned()),
    };
    let capacity = if denials { &mut cache.denials } else { &mut cache.answers };
    *capacity = Some((line.index, entries));
    if let Some(ttl) = rest.first() {
        let ttl = number(ttl, 1..=TTL_MAX)?;
        *if denials { &mut cache.denial } else { &mut cache.success } = (line.index, ttl);
    }
    if let Some(floor) = rest.get(1) {
        number(floor, 0..=TTL_MAX)?;
    }
    Ok(Fate::Kept)
}

/// `prefetch AMOUNT [DURATION [PERCENT%]]`
fn prefetch(line: &Line) -> Said {
    let words: Vec<&str> = line.arguments.iter().map(|token| token.text.as_str()).collect();
    let [amount, rest @ ..] = &words[..] else {
        return Err("expected AMOUNT [DURATION [PERCENT%]]".to_owned());
    };
    number(amount, 0..=u32::MAX)?;
    if let Some(text) = rest.first() {
        duration(text)?;
    }
    if let Some(text) = rest.get(1) {
        let percent = text.strip_suffix('%').ok_or("expected a percentage, such as 10%")?;
        number(percent, 10..=90)?;
    }
    match rest.get(2) {
        None => Ok(Fate::BuiltIn("names that are asked for often are renewed before they expire")),
        Some(word) => Err(format!("{word:?} is too much")),
    }
}

/// `serve_stale [DURATION] [immediate|verify ...]`
fn serve_stale(line: &Line) -> Result<Duration, String> {
    let words: Vec<&str> = line.arguments.iter().map(|token| token.text.as_str()).collect();
    let Some((first, rest)) = words.split_first() else { return Ok(STALE) };
    let (stale, mode) = match *first {
        "immediate" | "verify" => (STALE, &words[..]),
        text => (duration(text)?, rest),
    };
    match mode {
        [] => Ok(stale),
        ["immediate" | "verify", times @ ..] if times.len() <= 3 => {
            for time in times {
                duration(time)?;
            }
            Ok(stale)
        }
        [word, ..] => Err(format!("{word:?} is not allowed; expected immediate or verify")),
    }
}

/// `servfail DURATION`
fn servfail(line: &Line) -> Said {
    let text = super::arguments::one(line, "a duration from 0 to 5m")?;
    match duration(text)? {
        kept if kept > Duration::from_secs(300) => {
            Err(format!("{text:?} is not allowed; expected 0 to 5m"))
        }
        _ => Ok(Fate::BuiltIn("failures are kept for at most 5s (RFC 9520)")),
    }
}

/// `disable success|denial [ZONES...]`
fn disable(line: &Line, cache: &mut Cache) -> Said {
    let Some((first, names)) = line.arguments.split_first() else {
        return Err("expected success or denial, and zones".to_owned());
    };
    let denials = match first.text.as_str() {
        "success" => false,
        "denial" => true,
        other => return Err(format!("{other:?} is not allowed; expected success or denial")),
    };
    let mut zones = zones(names)?;
    if zones.is_empty() {
        zones.push(Zone::root());
    }
    cache.disabled.push(Disabled { index: line.index, denials, zones });
    Ok(Fate::Kept)
}

const OPTIONS: &str = "success, denial, prefetch, serve_stale, servfail, disable";
const KEEPTTL: &str = "a cached answer shows the time that is left of its TTL; remove the line";
/// The longest lifetime that a flag allows: seven days.
const TTL_MAX: u32 = 604_800;
/// The maximum of entries of one kind.
const ENTRIES_MAX: u32 = 50_000_000;
/// CoreDNS's default for answers.
const SUCCESS_SECS: u32 = 3_600;
/// CoreDNS's default for denials.
const DENIAL_SECS: u32 = 1_800;
/// CoreDNS's default.
const STALE: Duration = Duration::from_secs(3_600);
/// The maximum of `--serve-stale`.
const STALE_SECS_MAX: u64 = 604_800;
