//! Rules that ask another question in place of the client's, and turn its answer back.
//!
//! Core. The rules are those of CoreDNS's plugin `rewrite`: they work on the text of a name, in
//! lower case with a final dot. Each rule is looked at once, in order, so rules cannot loop. Rules
//! about answers run in the opposite order.

mod parse;

use regex::bytes::{Captures, Regex};
use shared::wire::rtype;

use super::made::Made;
use super::name;
use crate::normalise::{Row, Rows};

pub(super) use parse::regex;
pub use parse::{RuleError, words};

/// A rule.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// Rules behind it are looked at as well after it was applied.
    goes_on: bool,
    act: Act,
}

/// What a rule does.
#[derive(Clone, Debug)]
enum Act {
    Name { matches: Matches, to: Box<str>, auto: bool, answers: Box<[Change]> },
    Type { from: u16, to: u16 },
    Ttl { matches: Matches, change: Change },
    Rcode { matches: Matches, change: Change },
}

/// Which names a rule is about.
#[derive(Clone, Debug)]
enum Matches {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Substring(Box<str>),
    Regex(Regex),
}

/// What is changed in an answer.
#[derive(Clone, Debug)]
pub enum Change {
    /// The name `from` and names below it become `to` and names below that, as owners and targets.
    Below {
        /// As text.
        from: Box<str>,
        /// As text.
        to: Box<str>,
    },
    /// The end `from` of owners and targets becomes `to`.
    End {
        /// As text.
        from: Box<str>,
        /// As text.
        to: Box<str>,
    },
    /// Owners that match become `to`.
    Owner(Regex, Box<str>),
    /// Targets that match become `to`.
    Target(Regex, Box<str>),
    /// TTLs are kept within these bounds, in seconds.
    Ttl(u32, u32),
    /// The first response code becomes the second.
    Rcode(u16, u16),
}

/// A question after the rules.
#[derive(Clone, Debug)]
pub enum Rewritten {
    /// No rule applies.
    Same,
    /// This is asked, and the changes are made to its answer.
    Changed {
        /// In wire form and lower case.
        name: Box<[u8]>,
        /// QTYPE.
        qtype: u16,
        /// In the order of the rules.
        changes: Vec<Change>,
    },
    /// The rules make a name that is not valid.
    Invalid,
}

/// Applies `rules` to the question for `qtype` at `name`, in wire form and lower case.
pub fn apply(rules: &[Rewrite], name: &[u8], qtype: u16) -> Rewritten {
    if rules.is_empty() {
        return Rewritten::Same;
    }
    let (mut text, mut qtype) = (name::text(name), qtype);
    let mut changes = Vec::new();
    let mut is_applied = false;
    for rule in rules {
        let applies = match &rule.act {
            Act::Name { matches, to, auto, answers } => {
                let Some(new) = matches.replaced(&text, to) else { continue };
                if name::parse(&new).is_none() {
                    return Rewritten::Invalid;
                }
                if *auto {
                    changes.push(matches.reversal(&text, &new, to));
                }
                changes.extend_from_slice(answers);
                text = new;
                true
            }
            Act::Type { from, to } => {
                *from == qtype && {
                    qtype = *to;
                    true
                }
            }
            Act::Ttl { matches, change } | Act::Rcode { matches, change } => {
                matches.hold(&text) && {
                    changes.push(change.clone());
                    true
                }
            }
        };
        is_applied |= applies;
        if applies && !rule.goes_on {
            break;
        }
    }
    match name::parse(&text) {
        _ if !is_applied => Rewritten::Same,
        Some(name) => Rewritten::Changed { name, qtype, changes },
        None => Rewritten::Invalid,
    }
}

/// Makes `changes`, in the order of their rules, to the answer `made`.
pub fn restore(changes: &[Change], mut made: Made) -> Made {
    for change in changes.iter().rev() {
        change.apply(&mut made.rows);
    }
    made
}

impl Matches {
    fn hold(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => name == &**text,
            Self::Prefix(text) => name.starts_with(&**text),
            Self::Suffix(text) => name.ends_with(&**text),
            Self::Substring(text) => name.contains(&**text),
            Self::Regex(regex) => regex.is_match(name.as_bytes()),
        }
    }

    /// Returns `name` with what matches replaced by `to`; `None` if it does not match.
    fn replaced(&self, name: &str, to: &str) -> Option<String> {
        match self {
            Self::Exact(text) => (name == &**text).then(|| to.to_owned()),
            Self::Prefix(text) => name.strip_prefix(&**text).map(|rest| format!("{to}{rest}")),
            Self::Suffix(text) => name.strip_suffix(&**text).map(|rest| format!("{rest}{to}")),
            Self::Substring(text) => name.contains(&**text).then(|| name.replace(&**text, to)),
            Self::Regex(regex) => regex.captures(name.as_bytes()).map(|groups| fill(to, &groups)),
        }
    }

    /// What turns answers about `after` back to `before`.
    fn reversal(&self, before: &str, after: &str, to: &str) -> Change {
        match self {
            Self::Suffix(text) => Change::End { from: to.into(), to: text.clone() },
            _ => Change::Below { from: after.into(), to: before.into() },
        }
    }
}

impl Change {
    fn apply(&self, rows: &mut Rows) {
        match self {
            Self::Below { from, to } => rename(rows, true, true, |name| {
                let rest = name.strip_suffix(&**from)?;
                (rest.is_empty() || rest.ends_with('.')).then(|| format!("{rest}{to}"))
            }),
            Self::End { from, to } => rename(rows, true, true, |name| {
                name.strip_suffix(&**from).map(|rest| format!("{rest}{to}"))
            }),
            Self::Owner(regex, to) => rename(rows, true, false, |name| {
                regex.captures(name.as_bytes()).map(|groups| fill(to, &groups))
            }),
            Self::Target(regex, to) => rename(rows, false, true, |name| {
                regex.captures(name.as_bytes()).map(|groups| fill(to, &groups))
            }),
            Self::Ttl(min, max) => {
                for row in &mut rows.records {
                    row.ttl = row.ttl.clamp(*min, *max);
                }
            }
            Self::Rcode(from, to) if rows.rcode == *from => rows.rcode = *to,
            Self::Rcode(..) => {}
        }
    }
}

/// Returns the response code that `changes` make of `rcode`.
pub fn restored_rcode(changes: &[Change], rcode: u16) -> u16 {
    changes.iter().rev().fold(rcode, |rcode, change| match change {
        Change::Rcode(from, to) if *from == rcode => *to,
        _ => rcode,
    })
}

/// Replaces names in `rows` by what `replaced` makes of their texts: owners, targets, or both. What
/// is not a valid name is left as it is.
fn rename(rows: &mut Rows, owners: bool, targets: bool, replaced: impl Fn(&str) -> Option<String>) {
    let mut is_renamed = false;
    let mut change = |name: &mut Box<[u8]>| {
        if let Some(new) = replaced(&name::text(name)).and_then(|text| name::parse(&text)) {
            *name = new;
            is_renamed = true;
        }
    };
    for row in &mut rows.records {
        if owners {
            change(&mut row.owner);
        }
        if targets && has_target(row) {
            row.data.names.first_mut().into_iter().for_each(&mut change);
        }
    }
    if is_renamed {
        rows.strip_dnssec();
    }
}

/// Whether the first name in the data of `row` is one that rules about targets change.
fn has_target(row: &Row) -> bool {
    const MX: u16 = 15;
    const NAPTR: u16 = 35;
    use rtype::{CNAME, DNAME, NS, PTR, SOA, SRV};
    matches!(row.rtype, CNAME | DNAME | SOA | SRV | MX | NAPTR | NS | PTR)
}

/// Returns `template` with `{N}` replaced by group N; a group that did not take part is empty.
fn fill(template: &str, groups: &Captures<'_>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        let (before, tail) = rest.split_at(start);
        filled.push_str(before);
        let group = tail[1..].split_once('}').and_then(|(number, after)| {
            let group: usize = number.parse().ok()?;
            (group < groups.len()).then(|| (groups.get(group), after))
        });
        match group {
            Some((group, after)) => {
                let group = group.map(|group| group.as_bytes()).unwrap_or_default();
                filled.push_str(&String::from_utf8_lossy(group));
                rest = after;
            }
            None => {
                filled.push('{');
                rest = &tail[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests;
