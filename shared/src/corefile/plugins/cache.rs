//! The plugin `cache`.
//!
//! Core.

use std::time::Duration;

use super::super::keys::Zone;
use super::super::parser::{Directive, Line};
use super::arguments::{duration, none, number, one, zones};
use super::{Fate, Said, Server, settle, unknown_option};
use crate::corefile::plan::Rows;

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
    /// How expired answers are served, and the line that sets it.
    pub stale: Option<(usize, Stale)>,
    /// The line `serve_stale_policy`.
    pub stale_over_denials: Option<usize>,
    /// The line `keepttl`.
    pub keep_ttl: Option<usize>,
}

/// How expired answers are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// For how long after their end.
    pub kept: Duration,
    /// How long a client waits for the upstream before, if the line sets it.
    pub after: Option<Duration>,
    /// The TTL that they have.
    pub ttl: Duration,
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
        stale: None,
        stale_over_denials: None,
        keep_ttl: None,
    };
    let has_stale = directive.options.iter().any(|option| option.name.text == "serve_stale");
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "success" => capacity(option, &mut cache, false),
            "denial" => capacity(option, &mut cache, true),
            "prefetch" => prefetch(option),
            "serve_stale" => serve_stale(option).map(|(stale, has_recheck)| {
                cache.stale = Some((option.index, stale));
                match has_recheck {
                    true => Fate::BuiltIn("a renewal that failed is tried again after 1 s to 5 s"),
                    false => Fate::Kept,
                }
            }),
            "serve_stale_policy" if !has_stale => Err("expected serve_stale beside it".to_owned()),
            "serve_stale_policy" => one(option, "prefer_positive").and_then(|policy| {
                cache.stale_over_denials = Some(option.index);
                match policy {
                    "prefer_positive" => Ok(Fate::Kept),
                    other => Err(format!("{other:?} is not allowed; expected prefer_positive")),
                }
            }),
            "servfail" => servfail(option),
            "disable" => disable(option, &mut cache),
            "keepttl" => none(option).map(|()| {
                cache.keep_ttl = Some(option.index);
                Fate::Kept
            }),
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

/// `serve_stale [DURATION] [immediate [TTL [RECHECK]] | verify [TIMEOUT [TTL [RECHECK]]]]`. Also
/// returns whether RECHECK is set.
fn serve_stale(line: &Line) -> Result<(Stale, bool), String> {
    let mut words = line.arguments.iter().map(|token| token.text.as_str()).peekable();
    let is_mode = |word: &&str| matches!(*word, "immediate" | "verify");
    let kept = words.next_if(|word| !is_mode(word)).map_or(Ok(STALE), duration)?;
    let time = |words: &mut dyn Iterator<Item = &str>| words.next().map(duration).transpose();
    let after = match words.next() {
        None | Some("immediate") => Some(Duration::ZERO),
        // Without a timeout, that of the upstreams counts.
        Some("verify") => time(&mut words)?.filter(|timeout| !timeout.is_zero()),
        Some(word) => {
            return Err(format!("{word:?} is not allowed; expected immediate or verify"));
        }
    };
    let ttl = time(&mut words)?.unwrap_or_default();
    let recheck = time(&mut words)?;
    match words.next() {
        Some(word) => Err(format!("{word:?} is too much")),
        None if after.is_some_and(|after| after > STALE_AFTER_MAX) => {
            Err("the timeout is too long; expected at most 30s".to_owned())
        }
        None if ttl > STALE_TTL_MAX => Err("the TTL is too long; expected at most 1h".to_owned()),
        None => Ok((Stale { kept: kept.min(STALE_MAX), after, ttl }, recheck.is_some())),
    }
}

/// `servfail DURATION`
fn servfail(line: &Line) -> Said {
    let text = one(line, "a duration from 0 to 5m")?;
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

const OPTIONS: &str =
    "success, denial, prefetch, serve_stale, serve_stale_policy, servfail, disable, keepttl";
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
const STALE_MAX: Duration = Duration::from_secs(604_800);
/// The maximum of `--stale-after`.
const STALE_AFTER_MAX: Duration = Duration::from_secs(30);
/// The maximum of `--stale-ttl`.
const STALE_TTL_MAX: Duration = Duration::from_secs(3_600);
