//! The plugin `hosts`.
//!
//! Core.

use std::net::IpAddr;
use std::time::Duration;

use super::super::keys::Zone;
use super::super::parser::{Directive, Line};
use super::arguments::{duration, none, number, one, zones};
use super::{Fate, Said, Server, file, settle};
use crate::corefile::plan::Rows;

/// A table of hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// The file.
    pub file: String,
    /// The zones for which it answers; those of the block if empty.
    pub zones: Vec<Zone>,
    /// Lines after those of the file.
    pub lines: Vec<String>,
    /// The TTL in seconds.
    pub ttl: u32,
    /// Whether addresses have PTR records.
    pub reverse: bool,
    /// Whether the file is read only once.
    pub is_fixed: bool,
    /// The zones in which unknown names are passed to the next plugin; the root means all zones.
    pub fallthrough: Vec<Zone>,
}

/// `hosts [FILE [ZONES...]] { ADDRESS NAME...; ... }`
pub fn read(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let (path, names) = match line.arguments.split_first() {
        Some((path, names)) => (file(&path.text, server), names),
        None => (FILE.to_owned(), &line.arguments[..]),
    };
    let zones = match zones(names) {
        Ok(zones) => zones,
        Err(reason) => return rows.refuse(line.index, reason),
    };
    let (lines, fallthrough) = (Vec::new(), Vec::new());
    let mut hosts = Hosts {
        file: path,
        zones,
        lines,
        ttl: TTL_SECS,
        reverse: true,
        is_fixed: false,
        fallthrough,
    };
    for option in &directive.options {
        match read_option(option, &mut hosts) {
            Ok(Fate::Kept) => rows.rule(option.index, "a rule of the hosts table"),
            said => settle(option, said, rows),
        }
    }
    rows.rule(line.index, format!("hosts table of {}", hosts.file));
    server.hosts = Some(hosts);
}

fn read_option(option: &Line, hosts: &mut Hosts) -> Said {
    match option.name.text.as_str() {
        "fallthrough" => {
            let mut zones = zones(&option.arguments)?;
            if zones.is_empty() {
                zones.push(Zone::root());
            }
            hosts.fallthrough.extend(zones);
        }
        "fallthrough_unsupported" => {
            none(option)?;
            return Err("a name of the table has no records of other types; remove it".to_owned());
        }
        "no_reverse" => {
            none(option)?;
            hosts.reverse = false;
        }
        "ttl" => hosts.ttl = number(one(option, "1 to 65535 seconds")?, 1..=65_535)?,
        "reload" => {
            let every = duration(one(option, "a duration, or 0")?)?;
            hosts.is_fixed = every == Duration::ZERO;
            return Ok(Fate::BuiltIn("the file is watched, unless this is 0"));
        }
        text => {
            if text.parse::<IpAddr>().is_err() {
                return Err(format!("{text:?} is neither an address nor one of: {OPTIONS}"));
            }
            if !hosts.fallthrough.is_empty() {
                return Err("addresses must be above fallthrough; move the line up".to_owned());
            }
            if option.arguments.is_empty() {
                return Err("an address without a name; expected one or more names".to_owned());
            }
            let words = std::iter::once(&option.name).chain(&option.arguments);
            let words: Vec<&str> = words.map(|token| token.text.as_str()).collect();
            hosts.lines.push(words.join(" "));
        }
    }
    Ok(Fate::Kept)
}

/// CoreDNS's default.
const FILE: &str = "/etc/hosts";
/// CoreDNS's default.
const TTL_SECS: u32 = 3_600;
const OPTIONS: &str = "fallthrough, no_reverse, ttl, reload";
