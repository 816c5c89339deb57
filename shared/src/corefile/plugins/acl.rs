//! The plugin `acl`: which clients may ask what.
//!
//! Core. A list of prefixes before `block` for all others, in the block of all names, is `--allow`;
//! every other form is a rule of dnscache.

use super::super::keys::Zone;
use super::super::parser::{Directive, Line};
use super::arguments::{prefix, zones};
use super::{Server, unknown_option};
use crate::corefile::plan::{Program, Rows};
use crate::mnemonics::type_number;
use crate::prefix::Prefix;

/// A line `acl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// The zones that it is about.
    pub zones: Vec<Zone>,
    /// Its lines; the first that fits decides.
    pub policies: Vec<Policy>,
}

/// What becomes of queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of them.
    pub action: Action,
    /// Their types; all if there is none.
    pub types: Vec<u16>,
    /// The clients that send them; all if there is none.
    pub networks: Vec<Prefix>,
}

/// What becomes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is answered.
    Allow,
    /// It is refused.
    Block,
    /// It is answered without records.
    Filter,
    /// It is not answered.
    Drop,
}

/// `acl [ZONES...] { allow|block|filter|drop [type TYPE...] [net SOURCE...] }`
pub fn acl(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let own = match zones(&line.arguments) {
        Ok(zones) if zones.is_empty() => server.zones().cloned().collect(),
        Ok(zones) => zones,
        Err(reason) => return rows.refuse(line.index, reason),
    };
    let mut acl = Acl { zones: own, policies: Vec::new() };
    for option in &directive.options {
        match policy(option) {
            Ok(policy) => acl.policies.push(policy),
            Err(reason) => rows.refuse(option.index, reason),
        }
    }
    if acl.policies.len() < directive.options.len() {
        return;
    }
    let is_only = server.acls.is_empty() && acl.zones.iter().all(Zone::is_root);
    match acl.policies.split_last() {
        None => rows.build_in(line.index, "without rules every client is answered"),
        Some((last, allowed)) if is_only && is_list(last, allowed) => {
            for (option, policy) in directive.options.iter().zip(allowed) {
                for network in &policy.networks {
                    rows.set(option.index, (Program::Dnscache, "allow"), network);
                }
            }
            let last = directive.options.len() - 1;
            let text = "clients that are not allowed get REFUSED";
            rows.build_in(directive.options[last].index, text);
        }
        Some(_) => {
            rows.rule(line.index, "rules about clients, in the order of the file");
            for option in &directive.options {
                rows.rule(option.index, "a rule about clients");
            }
            server.acls.push(acl);
        }
    }
}

/// Whether the policies are `allow net PREFIX...`, and `block` for all others at last.
fn is_list(last: &Policy, allowed: &[Policy]) -> bool {
    let is_plain = |policy: &Policy| policy.types.is_empty();
    let is_block = last.action == Action::Block && is_plain(last) && last.networks.is_empty();
    let is_allow = |policy: &Policy| {
        policy.action == Action::Allow && is_plain(policy) && !policy.networks.is_empty()
    };
    is_block && !allowed.is_empty() && allowed.iter().all(is_allow)
}

fn policy(line: &Line) -> Result<Policy, String> {
    let action = match line.name.text.as_str() {
        "allow" => Action::Allow,
        "block" => Action::Block,
        "filter" => Action::Filter,
        "drop" => Action::Drop,
        _ => return Err(unknown_option(line, "allow, block, filter, drop")),
    };
    let mut policy = Policy { action, types: Vec::new(), networks: Vec::new() };
    let (mut any_type, mut any_network, mut section) = (false, false, "");
    for token in &line.arguments {
        match (section, token.text.as_str()) {
            (_, word @ ("type" | "net")) => section = word,
            ("type", "*") => any_type = true,
            ("type", word) if word.eq_ignore_ascii_case("ANY") => any_type = true,
            ("type", word) => policy.types.push(
                type_number(word).ok_or_else(|| format!("{word:?} is not a type, such as A"))?,
            ),
            ("net", "*") => any_network = true,
            ("net", word) => policy.networks.push(prefix(word)?),
            (_, word) => {
                return Err(format!("{word:?} is not allowed; expected type TYPE or net PREFIX"));
            }
        }
    }
    if any_type {
        policy.types.clear();
    }
    if any_network {
        policy.networks.clear();
    }
    match line.arguments.last().map(|token| token.text.as_str()) {
        Some(word @ ("type" | "net")) => Err(format!("nothing is behind {word:?}")),
        _ => Ok(policy),
    }
}
