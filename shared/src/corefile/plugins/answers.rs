//! Plugins that make answers from other answers: `autopath` and `dns64`.
//!
//! Core.

use std::net::IpAddr;

use super::super::keys::Zone;
use super::super::parser::Directive;
use super::arguments::{none, one, zones};
use super::{Fate, Server, file, refuse_options, settle, unknown_option};
use crate::corefile::plan::Rows;
use crate::prefix;

/// The walk along the search lists of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autopath {
    /// The index of the line.
    pub index: usize,
    /// The zones in which it applies; those of the block if empty.
    pub zones: Vec<Zone>,
    /// The resolv.conf with the search domains after those of the cluster; `None` for the one with
    /// the upstreams.
    pub file: Option<String>,
}

/// The translation of IPv4 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns64 {
    /// The prefix of the NAT64.
    pub prefix: String,
    /// Whether names that have IPv6 addresses get translated ones instead.
    pub translate_all: bool,
}

/// `autopath [ZONES...] @kubernetes|FILE`
pub fn autopath(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    refuse_options(directive, rows);
    let Some((last, names)) = line.arguments.split_last() else {
        return rows.refuse(line.index, "no argument; expected @kubernetes, or a resolv.conf");
    };
    let path = match last.text.as_str() {
        "@kubernetes" => None,
        plugin if plugin.starts_with('@') => {
            let reason = format!("{plugin:?} has no search list; write @kubernetes");
            return rows.refuse(line.index, reason);
        }
        path => Some(file(path, server)),
    };
    match zones(names) {
        Ok(zones) => {
            rows.rule(line.index, "walk along the search list of pods, as with --autopath");
            let autopath = Autopath { index: line.index, zones, file: path };
            if let Some(before) = server.autopath.replace(autopath) {
                rows.build_in(before.index, "the last line of autopath counts");
            }
        }
        Err(reason) => rows.refuse(line.index, reason),
    }
}

/// `dns64 [PREFIX] { prefix PREFIX; translate_all; allow_ipv4 }`
pub fn dns64(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let mut prefix = match &line.arguments[..] {
        [] => DNS64_PREFIX.to_owned(),
        [prefix] => prefix.text.clone(),
        [_, second, ..] => {
            return rows.refuse(line.index, format!("{:?} is too much", second.text));
        }
    };
    let mut translate_all = false;
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "prefix" => one(option, "a prefix, such as 64:ff9b::/96").map(|text| {
                prefix = text.to_owned();
                Fate::BuiltIn("see the line above")
            }),
            "allow_ipv4" => none(option).map(|()| Fate::BuiltIn(EVERY_CLIENT)),
            "translate_all" => none(option).map(|()| {
                translate_all = true;
                Fate::BuiltIn("see the line above")
            }),
            _ => Err(unknown_option(option, "prefix, allow_ipv4, translate_all")),
        };
        settle(option, said, rows);
    }
    if !is_nat64(&prefix) {
        let reason = format!("{prefix:?} is not allowed; expected {DNS64_ALLOWED}");
        return rows.refuse(line.index, reason);
    }
    rows.rule(line.index, format!("translation to {prefix}, as with --dns64"));
    rows.build_in(line.index, EVERY_CLIENT);
    server.dns64 = Some(Dns64 { prefix, translate_all });
}

/// Returns whether `text` is a prefix that RFC 6052 section 2.2 allows.
fn is_nat64(text: &str) -> bool {
    let prefix = prefix::parse(text).ok().filter(|it| DNS64_BITS.contains(&it.bits()));
    match prefix.map(|prefix| prefix.first()) {
        Some(IpAddr::V6(first)) => text.contains('/') && first.octets()[8] == 0,
        _ => false,
    }
}

const EVERY_CLIENT: &str = "clients over IPv4 get translated addresses as well";
/// The well-known prefix (RFC 6052 section 2.1), which is CoreDNS's default.
const DNS64_PREFIX: &str = "64:ff9b::/96";
/// The allowed lengths (RFC 6052 section 2.2).
const DNS64_BITS: [u8; 6] = [32, 40, 48, 56, 64, 96];
const DNS64_ALLOWED: &str = "an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, such as 64:ff9b::/96";
