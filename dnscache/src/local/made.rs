//! An answer that rules have made or changed.
//!
//! Core.

use std::borrow::Cow;

use shared::wire::{ErrorCode, rcode, rtype};

use crate::lifetime::Limits;
use crate::normalise::{Answer, Rows};

/// An answer, and its sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The answer.
    pub rows: Rows,
    /// How long it can be cached, in seconds; `None` if its own TTLs decide.
    pub lifetime_secs: Option<u32>,
    /// The names, in wire form, of the other questions that were asked.
    pub names: Vec<Box<[u8]>>,
    /// Answers to other questions that are cached with it: name, type and answer.
    pub also: Vec<(Box<[u8]>, u16, Rows)>,
    /// The Extended DNS Error that clients get with it. Such an answer is not cached.
    pub error: Option<(ErrorCode, Cow<'static, str>)>,
}

impl Made {
    /// Returns an answer of these records alone.
    pub fn new(rows: Rows) -> Self {
        Self { rows, lifetime_secs: None, names: Vec::new(), also: Vec::new(), error: None }
    }

    /// Returns SERVFAIL for `reason`.
    pub fn failed(reason: &'static str) -> Self {
        let rows = Rows { rcode: rcode::SERVFAIL, ..Rows::default() };
        Self { error: Some((ErrorCode::Other, reason.into())), ..Self::new(rows) }
    }

    /// Returns the target of the alias that this answer to a question for addresses ends in.
    pub fn alias(&self, qtype: u16) -> Option<Box<[u8]>> {
        if !matches!(qtype, rtype::A | rtype::AAAA) || self.rows.rcode != rcode::NOERROR {
            return None;
        }
        let last = self.rows.records.last()?;
        let is_alias = last.section == 0 && last.rtype == rtype::CNAME;
        is_alias.then(|| last.data.names.first().cloned()).flatten()
    }

    /// Returns this answer, which ends in an alias, followed by the answer about its target. The
    /// response code is that of the target (RFC 6604 section 3).
    pub fn followed_by(mut self, rest: Self) -> Self {
        let alias_ttl = self.rows.ttl().unwrap_or(0);
        self.rows.records.retain(|row| row.section == 0);
        self.rows.records.extend(rest.rows.records);
        self.rows.rcode = rest.rows.rcode;
        self.rows.truncated = rest.rows.truncated;
        self.lifetime_secs = rest.lifetime_secs.map(|secs| secs.min(alias_ttl));
        self.names.extend(rest.names);
        self.error = rest.error.or(self.error);
        self
    }

    /// Returns the answer to the question for `qtype` at `name`, in lower-case wire form, for the
    /// cache. It depends on `name`, on the names that were asked for it, and on all names in it.
    ///
    /// The TTLs of an answer that was made here are kept within `limits`. `None` if it does not fit
    /// a message.
    pub fn into_answer(mut self, name: &[u8], qtype: u16, limits: &Limits) -> Option<Answer> {
        if self.lifetime_secs.is_none() {
            for row in &mut self.rows.records {
                row.ttl = limits.ttl(row.ttl);
            }
        }
        let is_answer = matches!(self.rows.rcode, rcode::NOERROR | rcode::NXDOMAIN);
        let max = if self.rows.is_negative() { limits.negative_max } else { u32::MAX };
        let lifetime_secs = match (is_answer && self.error.is_none(), self.lifetime_secs) {
            (false, _) => 0,
            (true, Some(secs)) => secs.min(self.rows.ttl().unwrap_or(secs)),
            // A denial without an SOA ends only with a change of the rules or of a file.
            (true, None) => self.rows.ttl().unwrap_or(max).min(max),
        };
        let entry = self.rows.entry(name, qtype)?;
        let mut names = self.names;
        names.push(name.into());
        // The serial of an SOA changes with every other name.
        for row in self.rows.records.iter().filter(|row| row.rtype != rtype::SOA) {
            names.push(row.owner.clone());
            names.extend(row.data.names.iter().cloned());
        }
        for name in &mut names {
            name.make_ascii_lowercase(); // a length byte is at most 63, below every letter
        }
        names.sort_unstable();
        names.dedup();
        Some(Answer { entry: entry.following(names), lifetime_secs, dangling: None })
    }
}
