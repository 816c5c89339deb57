//! The plugin `forward`, and `proxy`, which it replaced.
//!
//! Core.

use std::net::{IpAddr, SocketAddr};

use super::super::keys::Zone;
use super::super::lexer::Token;
use super::super::parser::{Directive, Line};
use super::arguments::{duration, none, number, one, zones};
use super::{Fate, Said, Server, file, settle, unknown_option};
use crate::corefile::plan::Rows;
use crate::peer::{AddressError, host_address, server_address};

/// A line `forward`.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The index of the line.
    pub index: usize,
    /// The zone of the names to which it applies.
    pub from: Zone,
    /// The servers to ask.
    pub to: Vec<To>,
    /// Zones to which it does not apply.
    pub except: Vec<Zone>,
    /// Whether all queries are sent over TCP.
    pub is_tcp: bool,
    /// The address from which queries are sent.
    pub source: Option<IpAddr>,
    /// The file with the certificates that verify servers over TLS, and its line.
    pub tls_ca: Option<(usize, String)>,
    /// The files with the certificate that is shown to servers over TLS and its key, and the line.
    pub tls_client: Option<(usize, [String; 2])>,
    /// The answers after which the line below is asked, as `--next` has them, and the line that
    /// says so.
    pub next: Option<(usize, String)>,
    /// The answers after which the next server is asked, beside SERVFAIL and REFUSED.
    pub failover: Option<(usize, String)>,
}

/// A server, or a file with servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// A server.
    Server {
        /// Its address.
        address: SocketAddr,
        /// `Some` for TLS, with the name in the server's certificate if it is given.
        tls: Option<Option<String>>,
    },
    /// The servers of a file such as `/etc/resolv.conf`.
    File(String),
}

/// `forward FROM TO... { ... }`
pub fn read(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let Some(mut forward) = begin(directive, server, rows) else { return };
    let mut name = None;
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "tls_servername" => one(option, "a host name").and_then(|text| {
                name = Some(text.to_owned());
                is_host(text).map(|()| Fate::BuiltIn("see the servers in the line above"))
            }),
            _ => read_option(option, &mut forward, server),
        };
        settle(option, said, rows);
    }
    if let Some(name) = name {
        for to in &mut forward.to {
            if let To::Server { tls: Some(own), .. } = to {
                match own {
                    None => *own = Some(name.clone()),
                    Some(_) => rows.refuse(
                        forward.index,
                        "a server name stands behind % and in tls_servername; write one of them",
                    ),
                }
            }
        }
    }
    server.forwards.push(forward);
}

/// `proxy FROM TO...`
pub fn proxy(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    for option in &directive.options {
        rows.refuse(option.index, "proxy was replaced by forward; write forward with its options");
    }
    if let Some(forward) = begin(directive, server, rows) {
        server.forwards.push(forward);
    }
}

/// Parses the line without its options; `None` if it is refused.
fn begin(directive: &Directive, server: &Server, rows: &mut Rows) -> Option<Forward> {
    let line = &directive.line;
    let Some((from, to)) = line.arguments.split_first().filter(|(_, to)| !to.is_empty()) else {
        rows.refuse(line.index, "expected a zone and at least one server, such as . 10.0.0.1");
        return None;
    };
    let mut found = Vec::new();
    let mut is_right = true;
    for token in to {
        match target(token, server) {
            Ok(to) if found.contains(&to) => {}
            Ok(to) => found.push(to),
            Err(reason) => {
                rows.refuse(line.index, reason);
                is_right = false;
            }
        }
    }
    if found.len() > SERVERS_MAX {
        rows.refuse(line.index, format!("more than {SERVERS_MAX} servers; expected fewer"));
    }
    let zones = match zones([from]) {
        Ok(zones) => zones,
        Err(reason) => {
            rows.refuse(line.index, reason);
            return None;
        }
    };
    if zones.len() > 1 {
        let reason = format!("{:?} stands for several zones; write a line for each", from.text);
        rows.refuse(line.index, reason);
    }
    let from = zones.into_iter().next()?;
    let forward = Forward {
        index: line.index,
        from,
        to: found,
        except: Vec::new(),
        is_tcp: false,
        source: None,
        tls_ca: None,
        tls_client: None,
        next: None,
        failover: None,
    };
    is_right.then_some(forward)
}

/// Parses a server or a file.
fn target(token: &Token, server: &Server) -> Result<To, String> {
    let text = token.text.as_str();
    let error = |error: AddressError| match error {
        AddressError::Server => format!(
            "{text:?} is neither an address nor the path of a file; expected an address, such as \
             10.0.0.1, tls://9.9.9.9 or /etc/resolv.conf"
        ),
        error => format!("{text:?}: {error}"),
    };
    let interface = |_: &str| Some(1); // the running program looks it up
    if let Some(rest) = text.strip_prefix("tls://") {
        let (address, tls) = match rest.split_once('%') {
            None => (server_address(rest, TLS_PORT, &interface), None),
            Some((host, name)) => {
                let host = host.trim_matches(['[', ']']);
                let (name, port) = match name.rsplit_once(':') {
                    Some((name, port)) => (name, port.parse().unwrap_or(0)),
                    None => (name, TLS_PORT),
                };
                is_host(name)?;
                (host_address(host, port, &interface), Some(name.to_owned()))
            }
        };
        return Ok(To::Server { address: address.map_err(error)?, tls: Some(tls) });
    }
    if let Some(scheme) =
        ["https://", "quic://", "grpc://"].iter().find(|it| text.starts_with(**it))
    {
        return Err(format!(
            "servers over {scheme} are not asked; use tls:// or the plain address"
        ));
    }
    let plain = text.strip_prefix("dns://").unwrap_or(text);
    match server_address(plain, PORT, &interface) {
        Ok(address) => Ok(To::Server { address, tls: None }),
        Err(AddressError::Server) if text.contains('/') && plain == text => {
            Ok(To::File(file(text, server)))
        }
        Err(reason) => Err(error(reason)),
    }
}

fn read_option(option: &Line, forward: &mut Forward, server: &Server) -> Said {
    let one_number = |text: &str| number(text, 0..=u32::MAX).map(drop);
    match option.name.text.as_str() {
        "except" => {
            let except = zones(&option.arguments)?;
            if except.is_empty() {
                return Err("no argument; expected zones".to_owned());
            }
            forward.except.extend(except);
            Ok(Fate::BuiltIn("these names are left to the lines below"))
        }
        "force_tcp" => none(option).map(|()| {
            forward.is_tcp = true;
            Fate::BuiltIn("see the servers in the line above")
        }),
        "prefer_udp" => none(option).map(|()| Fate::BuiltIn(UDP)),
        "policy" => match one(option, "random, round_robin or sequential")? {
            "random" | "round_robin" | "sequential" => Ok(Fate::BuiltIn(POLICY)),
            other => Err(format!("{other:?}: expected random, round_robin or sequential")),
        },
        "max_fails" => one(option, "a number").and_then(one_number).map(|()| Fate::BuiltIn(HEALTH)),
        "failfast_all_unhealthy_upstreams" => none(option).map(|()| Fate::BuiltIn(HEALTH)),
        "health_check" => health_check(option),
        "expire" | "max_age" | "read_timeout" => {
            one(option, "a duration").and_then(duration).map(|_| Fate::BuiltIn(TIMES))
        }
        "max_idle_conns" | "max_connect_attempts" => {
            one(option, "a number").and_then(one_number).map(|()| Fate::BuiltIn(TIMES))
        }
        "max_concurrent" => {
            one(option, "a number").and_then(one_number).map(|()| Fate::BuiltIn(CONCURRENT))
        }
        "tls" => match &option.arguments[..] {
            [] => Ok(Fate::BuiltIn("the certificates of the system verify servers")),
            [ca] => {
                forward.tls_ca = Some((option.index, file(&ca.text, server)));
                Ok(Fate::Kept)
            }
            [certificate, key, rest @ ..] if rest.len() < 2 => {
                let files = [certificate, key].map(|token| file(&token.text, server));
                forward.tls_client = Some((option.index, files));
                forward.tls_ca = rest.first().map(|ca| (option.index, file(&ca.text, server)));
                Ok(Fate::Kept)
            }
            _ => Err("expected tls [CERTIFICATE KEY] [CA]".to_owned()),
        },
        "source_address" => {
            let text = one(option, "an address")?;
            let source = text.parse().map_err(|_| format!("{text:?} is not an address"))?;
            forward.source = Some(source);
            Ok(Fate::BuiltIn("see the servers in the line above"))
        }
        "failover" => failover(option, forward),
        "next" => {
            let kinds = rcodes(option)?;
            if kinds.contains(&"NOERROR".to_owned()) {
                return Err("NOERROR is an answer; write next_on_nodata".to_owned());
            }
            add_kinds(&mut forward.next, option.index, &kinds.join(","));
            Ok(Fate::BuiltIn("the line below is asked after these answers"))
        }
        "next_on_nodata" => none(option).map(|()| {
            add_kinds(&mut forward.next, option.index, "NODATA");
            Fate::BuiltIn("the line below is asked after an answer without records")
        }),
        "doh_method" => Err("servers over https:// are not asked; remove the line".to_owned()),
        "resolver" => Err("servers are given by address; remove the line".to_owned()),
        _ => Err(unknown_option(option, OPTIONS)),
    }
}

/// `health_check INTERVAL [no_rec] [domain NAME]`
fn health_check(line: &Line) -> Said {
    let words: Vec<&str> = line.arguments.iter().map(|token| token.text.as_str()).collect();
    let [interval, rest @ ..] = &words[..] else { return Err("expected a duration".to_owned()) };
    duration(interval)?;
    match rest {
        [] | ["no_rec"] | ["domain", _] | ["no_rec", "domain", _] | ["domain", _, "no_rec"] => {
            Ok(Fate::BuiltIn(HEALTH))
        }
        _ => Err("expected INTERVAL [no_rec] [domain NAME]".to_owned()),
    }
}

/// `failover RCODE...`
fn failover(line: &Line, forward: &mut Forward) -> Said {
    let kinds = rcodes(line)?;
    if kinds.contains(&"NOERROR".to_owned()) {
        return Err("NOERROR is an answer; remove it".to_owned());
    }
    let built_in = |kind: &String| ["SERVFAIL", "REFUSED"].contains(&kind.as_str());
    let others: Vec<String> = kinds.iter().filter(|kind| !built_in(kind)).cloned().collect();
    if !others.is_empty() && forward.to.len() > 1 {
        add_kinds(&mut forward.failover, line.index, &others.join(","));
    }
    Ok(Fate::BuiltIn("another server is asked after SERVFAIL and REFUSED"))
}

/// The response codes of a line.
fn rcodes(line: &Line) -> Result<Vec<String>, String> {
    if line.arguments.is_empty() {
        return Err("no argument; expected response codes".to_owned());
    }
    let code = |token: &Token| {
        let text = token.text.to_ascii_uppercase();
        let is_code =
            text.parse::<u16>().is_err() && crate::mnemonics::rcode_number(&text).is_some();
        let reason = || format!("{:?} is not a response code, such as NXDOMAIN", token.text);
        if is_code { Ok(text) } else { Err(reason()) }
    };
    line.arguments.iter().map(code).collect()
}

fn add_kinds(kinds: &mut Option<(usize, String)>, index: usize, more: &str) {
    match kinds {
        Some((_, kinds)) => *kinds = format!("{kinds},{more}"),
        None => *kinds = Some((index, more.to_owned())),
    }
}

fn is_host(text: &str) -> Result<(), String> {
    let is_name = crate::name::domain(text).is_some() && text.parse::<IpAddr>().is_err();
    if is_name { Ok(()) } else { Err(format!("{text:?} is not the name of a host")) }
}

const PORT: u16 = 53;
const TLS_PORT: u16 = 853;
/// The same as in CoreDNS.
const SERVERS_MAX: usize = 15;
const UDP: &str = "UDP is used unless a reply is truncated";
const POLICY: &str = "the fastest server that answers is asked, the others if it is slow or fails";
const HEALTH: &str = "servers that fail are avoided and probed until they answer";
const TIMES: &str = "connections and tries have limits of their own, and --upstream-timeout in all";
const CONCURRENT: &str = "questions that wait are bounded in all, and for each client and zone";
const OPTIONS: &str = "except, force_tcp, prefer_udp, policy, max_fails, health_check, expire, \
    max_age, max_idle_conns, read_timeout, max_connect_attempts, max_concurrent, tls, \
    tls_servername, source_address, next, next_on_nodata, failover, \
    failfast_all_unhealthy_upstreams";
