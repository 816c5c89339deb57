//! The plugin `etcd`, whose zones kubedns answers.
//!
//! Core.

use super::super::keys::Zone;
use super::super::parser::{Directive, Line};
use super::arguments::{duration, number, one, zones};
use super::{Fate, Said, Server, file, settle, unknown_option};
use crate::corefile::plan::{Program, Rows};

/// The first line `etcd` of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// The index of the line.
    pub index: usize,
    /// The zones.
    pub zones: Vec<Zone>,
    /// The zones in which missing names are left to the next plugin, with the line; the root stands
    /// for all.
    pub fallthrough: Vec<(usize, Vec<Zone>)>,
}

/// `etcd [ZONES...] { path PATH; endpoint URL...; credentials USER PASSWORD; tls [CERT KEY] [CA];
/// fallthrough [ZONES...]; min-lease-ttl DURATION; max-lease-ttl DURATION }`
pub fn read(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    if server.etcd.is_some() {
        rows.build_in(line.index, "the first line of etcd counts");
        for option in &directive.options {
            rows.build_in(option.index, "the first line of etcd counts");
        }
        return;
    }
    let own = match zones(&line.arguments) {
        Ok(zones) if zones.is_empty() => server.zones().cloned().collect(),
        Ok(zones) => zones,
        Err(reason) => return rows.refuse(line.index, reason),
    };
    if own.iter().any(Zone::is_root) {
        rows.refuse(line.index, "etcd cannot have all names; write a zone: etcd skydns.local");
    }
    let mut etcd = Etcd { index: line.index, zones: own, fallthrough: Vec::new() };
    for zone in etcd.zones.iter().filter(|zone| !zone.is_root()) {
        rows.set(line.index, (Program::Kubedns, "etcd-zone"), zone);
    }
    let has = |name: &str| directive.options.iter().any(|option| option.name.text == name);
    if !has("endpoint") {
        rows.set(line.index, (Program::Kubedns, "etcd"), ENDPOINT);
    }
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "endpoint" => endpoint(option, has("tls"), rows),
            "tls" => tls(option, server, rows),
            _ => read_option(option, &mut etcd, rows),
        };
        settle(option, said, rows);
    }
    server.etcd = Some(etcd);
}

fn endpoint(option: &Line, has_tls: bool, rows: &mut Rows) -> Said {
    if option.arguments.is_empty() {
        return Err(format!("no argument; expected URLs, such as {ENDPOINT}"));
    }
    let scheme = if has_tls { "https" } else { "http" };
    for token in &option.arguments {
        let url = match token.text.contains("://") {
            true => token.text.clone(),
            false => format!("{scheme}://{}", token.text),
        };
        rows.set(option.index, (Program::Kubedns, "etcd"), url);
    }
    Ok(Fate::Kept)
}

fn tls(option: &Line, server: &Server, rows: &mut Rows) -> Said {
    let files: Vec<String> =
        option.arguments.iter().map(|token| file(&token.text, server)).collect();
    let (pair, authority) = match &files[..] {
        [] => return Ok(Fate::BuiltIn("the certificates of the system verify https://")),
        [authority] => (None, Some(authority)),
        [certificate, key] => (Some((certificate, key)), None),
        [certificate, key, authority] => (Some((certificate, key)), Some(authority)),
        _ => return Err("too many files; expected tls [CERT KEY] [CA]".to_owned()),
    };
    if let Some((certificate, key)) = pair {
        rows.set(option.index, (Program::Kubedns, "etcd-cert"), certificate);
        rows.set(option.index, (Program::Kubedns, "etcd-key"), key);
    }
    if let Some(authority) = authority {
        rows.set(option.index, (Program::Kubedns, "etcd-cacert"), authority);
    }
    Ok(Fate::Kept)
}

fn read_option(option: &Line, etcd: &mut Etcd, rows: &mut Rows) -> Said {
    match option.name.text.as_str() {
        "path" => {
            let path = one(option, "a path, such as /skydns")?;
            rows.set(option.index, (Program::Kubedns, "etcd-prefix"), path);
        }
        "credentials" => match &option.arguments[..] {
            [user, password] => {
                rows.set(option.index, (Program::Kubedns, "etcd-user"), &user.text);
                rows.set(option.index, (Program::Kubedns, "etcd-password"), &password.text);
            }
            _ => return Err("expected two arguments, a user and a password".to_owned()),
        },
        "min-lease-ttl" => {
            rows.set(option.index, (Program::Kubedns, "etcd-min-lease-ttl"), lease_secs(option)?);
        }
        "max-lease-ttl" => {
            rows.set(option.index, (Program::Kubedns, "etcd-max-lease-ttl"), lease_secs(option)?);
        }
        "fallthrough" => {
            let mut zones = zones(&option.arguments)?;
            if zones.is_empty() {
                zones.push(Zone::root());
            }
            etcd.fallthrough.push((option.index, zones));
        }
        "stubzones" => {
            return Err("zones are not delegated by keys below dns/stub; use forward".to_owned());
        }
        "upstream" => return Ok(Fate::BuiltIn("targets of aliases are always looked up")),
        "debug" => return Ok(Fate::BuiltIn("/explain shows the key of each record")),
        _ => {
            let allowed = "path, endpoint, credentials, tls, fallthrough, min-lease-ttl, \
                max-lease-ttl";
            return Err(unknown_option(option, allowed));
        }
    }
    Ok(Fate::Kept)
}

/// Returns a number of seconds, which can be written as a duration.
fn lease_secs(option: &Line) -> Result<u32, String> {
    let text = one(option, "seconds or a duration, such as 30s")?;
    let secs = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.to_owned(),
        false => duration(text)?.as_secs().to_string(),
    };
    number(&secs, 0..=86_400)
}

/// CoreDNS's default.
const ENDPOINT: &str = "http://localhost:2379";
