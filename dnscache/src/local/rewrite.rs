//! Rules that ask another question in place of the client's, and change its answer back.
//!
//! Core. Each rule is applied at most once, in order, so rules cannot loop. Rules about answers run
//! in the opposite order.

use shared::rules::name;
use shared::rules::rewrite::{Act, Matches, fill};
use shared::wire::rtype;

use super::made::Made;
use crate::normalise::{Row, Rows};

pub use shared::rules::rewrite::{Change, Rewrite, RuleError};

/// A question after the rules.
#[derive(Clone, Debug)]
pub enum Rewritten {
    /// No rule applies.
    Same,
    /// This question is asked instead, and the changes are made to its answer.
    Changed {
        /// The name in lower-case wire form.
        name: Box<[u8]>,
        /// QTYPE.
        qtype: u16,
        /// The changes, in the order of the rules.
        changes: Vec<Change>,
    },
    /// The rules make a name that is not valid.
    Invalid,
}

/// The rules of a block. For most names none applies, which costs little for any number of rules
/// about exact names and suffixes.
#[derive(Clone, Debug, Default)]
pub struct Rewrites {
    rules: Vec<Rewrite>,
    /// The exact names and the suffixes of rules, written backwards and sorted. None begins with
    /// another one.
    endings: Vec<Box<[u8]>>,
    /// The rules of other kinds.
    others: Vec<Rewrite>,
}

impl Rewrites {
    /// Returns `rules`, which are tried in this order.
    pub fn new(rules: Vec<Rewrite>) -> Self {
        let (mut endings, mut others) = (Vec::new(), Vec::new());
        for rule in &rules {
            match &rule.act {
                Act::Name { matches: Matches::Exact(text) | Matches::Suffix(text), .. }
                | Act::Answer { matches: Matches::Exact(text) | Matches::Suffix(text), .. } => {
                    endings.push(text.bytes().rev().collect::<Box<[u8]>>());
                }
                _ => others.push(rule.clone()),
            }
        }
        endings.sort_unstable();
        endings.dedup_by(|longer, ending| longer.starts_with(ending));
        Self { rules, endings, others }
    }

    /// Returns the rules.
    pub fn rules(&self) -> &[Rewrite] {
        &self.rules
    }

    /// Returns whether a rule can apply to the question for `qtype` at the name `text`.
    fn may_apply(&self, text: &str, qtype: u16) -> bool {
        let backwards = || text.bytes().rev();
        // Only the last ending that is not above the name can be the beginning of it.
        let end = self.endings.partition_point(|it| it.iter().copied().le(backwards()));
        let ending = end.checked_sub(1).map(|last| &self.endings[last]);
        ending.is_some_and(|it| it.iter().copied().eq(backwards().take(it.len())))
            || self.others.iter().any(|rule| match &rule.act {
                Act::Name { matches, .. } | Act::Answer { matches, .. } => matches.hold(text),
                Act::Type { from, .. } => *from == qtype,
            })
    }

    /// Applies the rules to the question for `qtype` at `name`, in lower-case wire form.
    pub fn apply(&self, name: &[u8], qtype: u16) -> Rewritten {
        if self.rules.is_empty() {
            return Rewritten::Same;
        }
        let text = name::text(name);
        match self.may_apply(&text, qtype) {
            true => apply(&self.rules, text, qtype),
            false => Rewritten::Same,
        }
    }
}

/// Applies `rules` to the question for `qtype` at the name `text`.
fn apply(rules: &[Rewrite], mut text: String, mut qtype: u16) -> Rewritten {
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
            Act::Answer { matches, change } => {
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
        apply_to(change, &mut made.rows);
    }
    made
}

/// Makes `change` to `rows`.
fn apply_to(change: &Change, rows: &mut Rows) {
    match change {
        Change::Below { from, to } => rename(rows, true, true, |name| {
            let rest = name.strip_suffix(&**from)?;
            (rest.is_empty() || rest.ends_with('.')).then(|| format!("{rest}{to}"))
        }),
        Change::End { from, to } => rename(rows, true, true, |name| {
            name.strip_suffix(&**from).map(|rest| format!("{rest}{to}"))
        }),
        Change::Owner(regex, to) => rename(rows, true, false, |name| {
            regex.captures(name.as_bytes()).map(|groups| fill(to, &groups))
        }),
        Change::Target(regex, to) => rename(rows, false, true, |name| {
            regex.captures(name.as_bytes()).map(|groups| fill(to, &groups))
        }),
        Change::Ttl(min, max) => {
            for row in &mut rows.records {
                row.ttl = row.ttl.clamp(*min, *max);
            }
        }
        Change::Rcode(from, to) if rows.rcode == *from => rows.rcode = *to,
        Change::Rcode(..) => {}
    }
}

/// Returns the response code that `changes` make from `rcode`.
pub fn restored_rcode(changes: &[Change], rcode: u16) -> u16 {
    changes.iter().rev().fold(rcode, |rcode, change| match change {
        Change::Rcode(from, to) if *from == rcode => *to,
        _ => rcode,
    })
}

/// Replaces names in `rows` by the result of `replaced` for their texts: owners, targets, or both.
/// If a result is not a valid name, the name is not changed.
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

/// Returns whether rules about targets change the first name in the data of `row`.
fn has_target(row: &Row) -> bool {
    const MX: u16 = 15;
    const NAPTR: u16 = 35;
    use rtype::{CNAME, DNAME, NS, PTR, SOA, SRV};
    matches!(row.rtype, CNAME | DNAME | SOA | SRV | MX | NAPTR | NS | PTR)
}

#[cfg(test)]
mod tests;
