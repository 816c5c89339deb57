//! Zones beside the cluster: `file`, `k8s_external`, and `transfer`.
//!
//! Core.

use std::time::Duration;

use super::super::keys::Zone;
use super::super::parser::{Directive, Line};
use super::arguments::{duration, none, number, one, prefix, zones};
use super::{Fate, Said, Server, file as path_of, settle, unknown_option};
use crate::corefile::plan::{Program, Rows};

/// A line `file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFile {
    /// The index of the line.
    pub index: usize,
    /// The master file.
    pub file: String,
    /// The zones in the file.
    pub zones: Vec<Zone>,
    /// Whether the file is read only once.
    pub is_fixed: bool,
    /// The zones in which unknown names are passed to the next plugin; the root means all zones.
    pub fallthrough: Vec<Zone>,
}

/// The line `k8s_external`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// The index of the line.
    pub index: usize,
    /// The zones.
    pub zones: Vec<Zone>,
    /// The zones in which missing names are left to the next plugin, with the line that says so;
    /// the root stands for all.
    pub fallthrough: Vec<(usize, Vec<Zone>)>,
}

/// `k8s_external [ZONES...] { apex LABEL; ttl SECONDS; headless; fallthrough [ZONES...] }`
pub fn external(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let own = match zones(&line.arguments) {
        Ok(zones) if zones.is_empty() => server.zones().cloned().collect(),
        Ok(zones) => zones,
        Err(reason) => return rows.refuse(line.index, reason),
    };
    let mut external = External { index: line.index, zones: own, fallthrough: Vec::new() };
    for option in &directive.options {
        let said = external_option(option, &mut external, rows);
        settle(option, said, rows);
    }
    if let Some(before) = server.external.replace(external) {
        rows.build_in(before.index, "the last line of k8s_external counts");
    }
}

fn external_option(option: &Line, external: &mut External, rows: &mut Rows) -> Said {
    match option.name.text.as_str() {
        "apex" => {
            let label = one(option, "a label, such as dns")?;
            if Zone::parse(label).is_none_or(|zone| zone.depth() != 1) {
                return Err(format!("{label:?} is not allowed; expected one label, such as dns"));
            }
            rows.set(option.index, (Program::Kubedns, "external-apex"), label);
        }
        "ttl" => {
            let seconds = number(one(option, "0 to 3600 seconds")?, 0..=3_600)?;
            rows.set(option.index, (Program::Kubedns, "external-ttl"), seconds);
        }
        "headless" => {
            none(option)?;
            rows.map(option.index, (Program::Kubedns, "external-headless"), None);
        }
        "fallthrough" => {
            let mut zones = zones(&option.arguments)?;
            if zones.is_empty() {
                zones.push(Zone::root());
            }
            external.fallthrough.push((option.index, zones));
        }
        "upstream" => return Ok(Fate::BuiltIn("targets of aliases are always looked up")),
        _ => return Err(unknown_option(option, "apex, ttl, headless, fallthrough")),
    }
    Ok(Fate::Kept)
}

/// `file FILE [ZONES...] { reload DURATION; reload_by_mtime; fallthrough [ZONES...]; upstream }`
pub fn file(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let Some((path, names)) = line.arguments.split_first() else {
        return rows.refuse(line.index, "no argument; expected a master file, and zones");
    };
    let own = match zones(names) {
        Ok(zones) if zones.is_empty() => server.zones().cloned().collect(),
        Ok(zones) => zones,
        Err(reason) => return rows.refuse(line.index, reason),
    };
    let mut zone = ZoneFile {
        index: line.index,
        file: path_of(&path.text, server),
        zones: own,
        is_fixed: false,
        fallthrough: Vec::new(),
    };
    for option in &directive.options {
        match file_option(option, &mut zone) {
            Ok(Fate::Kept) => rows.rule(option.index, "a rule of the zone file"),
            said => settle(option, said, rows),
        }
    }
    let names: Vec<&str> = zone.zones.iter().map(Zone::as_str).collect();
    rows.rule(line.index, format!("zone file {} for {}", zone.file, names.join(" ")));
    server.files.push(zone);
}

fn file_option(option: &Line, zone: &mut ZoneFile) -> Said {
    match option.name.text.as_str() {
        "reload" => {
            zone.is_fixed = duration(one(option, "a duration, or 0")?)? == Duration::ZERO;
            Ok(Fate::BuiltIn("the file is watched, unless this is 0"))
        }
        "reload_by_mtime" => {
            none(option).map(|()| Fate::BuiltIn("a file is read again if its contents change"))
        }
        "upstream" => Ok(Fate::BuiltIn("targets of aliases are always looked up")),
        "fallthrough" => {
            let mut zones = zones(&option.arguments)?;
            if zones.is_empty() {
                zones.push(Zone::root());
            }
            zone.fallthrough.extend(zones);
            Ok(Fate::Kept)
        }
        _ => Err(unknown_option(option, "reload, reload_by_mtime, fallthrough, upstream")),
    }
}

/// `transfer [ZONES...] { to ADDRESS...|* }`
pub fn transfer(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    match zones(&line.arguments) {
        Ok(_) => rows.build_in(line.index, "NOTIFY is not sent, secondaries ask when they refresh"),
        Err(reason) => rows.refuse(line.index, reason),
    }
    if !directive.options.iter().any(|option| option.name.text == "to") {
        rows.refuse(line.index, "no line `to`; expected to with addresses, or *");
    }
    for option in &directive.options {
        match option.name.text.as_str() {
            "to" if option.arguments.is_empty() => {
                rows.refuse(option.index, "no argument; expected addresses, or *");
            }
            "to" => {
                for token in &option.arguments {
                    let values = match token.text.as_str() {
                        "*" => Ok(vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()]),
                        text => prefix(
                            text.rsplit_once(':')
                                .filter(|_| text.contains('.'))
                                .map_or(text, |(host, _)| host),
                        )
                        .map(|prefix| vec![prefix.to_string()]),
                    };
                    match values {
                        Ok(values) => {
                            for value in values {
                                rows.set(option.index, (Program::Kubedns, "transfer"), value);
                            }
                        }
                        Err(reason) => rows.refuse(option.index, reason),
                    }
                }
            }
            "source" => rows.refuse(option.index, "NOTIFY is not sent; remove the line"),
            _ => rows.refuse(option.index, unknown_option(option, "to")),
        }
    }
}
