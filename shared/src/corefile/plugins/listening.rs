//! Listening addresses: `bind`, `tls`, `health`, `ready`, `prometheus`; and `root`, the directory
//! of relative file names.
//!
//! Core.

use std::net::{IpAddr, SocketAddr};

use super::super::parser::{Directive, Line};
use super::arguments::{duration, listen, none, one, optional};
use super::{Fate, Server, file, refuse_options, settle, unknown_option};
use crate::corefile::plan::{Program, Rows};

/// The addresses of a block, each with the index of its line.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// Addresses of `bind`.
    pub bind: Vec<(usize, IpAddr)>,
    /// Addresses of `prometheus`.
    pub metrics: Vec<(usize, SocketAddr)>,
    /// The certificate and the key of `tls`.
    pub tls: Option<(usize, [String; 2])>,
}

/// `root DIRECTORY`
pub fn root(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let said = one(&directive.line, "a directory").map(|path| {
        server.root = Some(path.to_owned());
        Fate::BuiltIn("relative names of files in this block begin here")
    });
    settle(&directive.line, said, rows);
    refuse_options(directive, rows);
}

/// `bind ADDRESS...`
pub fn bind(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    if line.arguments.is_empty() {
        rows.refuse(line.index, "no argument; expected one or more addresses");
    }
    for token in &line.arguments {
        match token.text.parse() {
            Ok(address) => server.listening.bind.push((line.index, address)),
            Err(_) => rows.refuse(
                line.index,
                format!("{:?} is not an address; write the address of the interface", token.text),
            ),
        }
    }
    for option in &directive.options {
        rows.refuse(option.index, "addresses cannot be excepted; list those to listen on");
    }
}

/// `health [ADDRESS] { lameduck DURATION }`
pub fn health(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    page(line, ":8080", "health-listen", rows);
    for option in &directive.options {
        let seconds = match option.name.text.as_str() {
            "lameduck" => one(option, "a duration").and_then(lameduck),
            _ => Err(unknown_option(option, "lameduck")),
        };
        match seconds {
            Ok(seconds) => {
                for program in [Program::Kubedns, Program::Dnscache] {
                    rows.set(option.index, (program, "lameduck"), seconds);
                }
            }
            Err(reason) => rows.refuse(option.index, reason),
        }
    }
}

/// Parses a duration into whole seconds, rounded up.
fn lameduck(text: &str) -> Result<u64, String> {
    let duration = duration(text)?;
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    if seconds <= LAMEDUCK_SECS_MAX {
        return Ok(seconds);
    }
    Err(format!("{text:?} is not allowed; expected at most {LAMEDUCK_SECS_MAX}s"))
}

/// `ready [ADDRESS] { monitor until-ready|continuously }`
pub fn ready(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    page(&directive.line, ":8181", "ready-listen", rows);
    for option in &directive.options {
        let text = "dnscache is ready as long as it serves, and kubedns once everything is listed";
        let said = match option.name.text.as_str() {
            "monitor" => match one(option, "until-ready or continuously") {
                Ok("until-ready" | "continuously") => Ok(Fate::BuiltIn(text)),
                Ok(other) => Err(format!("{other:?}: expected until-ready or continuously")),
                Err(reason) => Err(reason),
            },
            _ => Err(unknown_option(option, "monitor")),
        };
        settle(option, said, rows);
    }
}

/// Maps a line with the address of a page of dnscache.
fn page(line: &Line, default: &str, flag: &'static str, rows: &mut Rows) {
    match optional(line, "one address").and_then(|text| listen(text.unwrap_or(default))) {
        Ok(address) => rows.set(line.index, (Program::Dnscache, flag), address),
        Err(reason) => rows.refuse(line.index, reason),
    }
}

/// `prometheus [ADDRESS] { runtime_metrics; tls FILE }`
pub fn prometheus(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let text = optional(line, "one address");
    match text.and_then(|text| listen(text.unwrap_or("localhost:9153"))) {
        Ok(address) => server.listening.metrics.push((line.index, address)),
        Err(reason) => rows.refuse(line.index, reason),
    }
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "runtime_metrics" => {
                none(option).map(|()| Fate::BuiltIn("there is no Go runtime to measure"))
            }
            "tls" => Err("metrics are not served over TLS; remove the line".to_owned()),
            _ => Err(unknown_option(option, "runtime_metrics")),
        };
        settle(option, said, rows);
    }
}

/// `tls CERT KEY [CA] { client_auth MODE; keylog FILE }`
pub fn tls(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    match &line.arguments[..] {
        // The authority is for the certificates of clients, which are not asked for.
        [certificate, key] | [certificate, key, _] => {
            let files = [certificate, key].map(|token| file(&token.text, server));
            server.listening.tls = Some((line.index, files));
        }
        _ => rows.refuse(line.index, "expected the files CERT KEY [CA]"),
    }
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "client_auth" => match one(option, "nocert") {
                Ok("nocert") => Ok(Fate::BuiltIn("clients are not asked for certificates")),
                Ok(_) => Err("clients are not asked for certificates; write nocert".to_owned()),
                Err(reason) => Err(reason),
            },
            "keylog" => Err("secrets of TLS are not written; remove the line".to_owned()),
            _ => Err(unknown_option(option, "client_auth, keylog")),
        };
        settle(option, said, rows);
    }
}

/// The maximum of `--lameduck`.
const LAMEDUCK_SECS_MAX: u64 = 120;
