//! Makes IPv6 addresses from IPv4 addresses, for clients behind a NAT64 (RFC 6147).
//!
//! Core.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use shared::prefix;
use shared::wire::{rcode, rtype};

use super::made::Made;
use super::pending::{Came, Next, Pending};
use super::{Local, Outcome};
use crate::normalise::{Row, Rows};

/// The prefix of a NAT64: 32, 40, 48, 56, 64 or 96 bits long (RFC 6052 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns64 {
    prefix: Ipv6Addr,
    len: u8,
    /// Whether names that have IPv6 addresses get translated ones instead.
    pub translate_all: bool,
}

/// Why a prefix cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, such as 64:ff9b::/96")]
pub struct PrefixError;

impl FromStr for Dns64 {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        // The rest of the address must be zero.
        prefix::parse(text).map_err(|_| PrefixError)?;
        let (address, len) = text.split_once('/').ok_or(PrefixError)?;
        let prefix: Ipv6Addr = address.parse().map_err(|_| PrefixError)?;
        let len: u8 = len.parse().map_err(|_| PrefixError)?;
        let is_valid = matches!(len, 32 | 40 | 48 | 56 | 64 | 96) && prefix.octets()[8] == 0;
        if is_valid { Ok(Self { prefix, len, translate_all: false }) } else { Err(PrefixError) }
    }
}

impl Dns64 {
    /// Returns the IPv6 address for `address`.
    pub fn translated(&self, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.prefix.octets();
        let mut at = usize::from(self.len / 8);
        for octet in address.octets() {
            // Bits 64 to 71 are zero.
            at += usize::from(at == 8);
            octets[at] = octet;
            at += 1;
        }
        octets.into()
    }

    /// Returns the outcome of a question for AAAA at `name` whose outcome without translation is
    /// `plain`.
    pub fn outcome(self, plain: Outcome, name: &[u8], rules: &Local) -> Outcome {
        let state = Translation { rule: self, name: name.into(), first: None };
        match plain {
            Outcome::Answer(made) => match state.take(made, rules) {
                Next::Done(made) => Outcome::Answer(made),
                Next::Ask(pending) => Outcome::Ask(pending),
                Next::Failed => Outcome::Pass,
            },
            other => {
                let inner = other.pending(name.into(), rtype::AAAA);
                Outcome::Ask(Box::new(Pending::Translated { inner, state: Box::new(state) }))
            }
        }
    }
}

/// A question for AAAA under way.
#[derive(Clone, Debug)]
pub struct Translation {
    rule: Dns64,
    name: Box<[u8]>,
    /// The answer for AAAA, after which A is asked for.
    first: Option<Box<Made>>,
}

impl Translation {
    /// Continues with the end of the question `inner`.
    pub fn advance(self, inner: Pending, came: Came, rules: &Local) -> Next {
        match inner.take(came, rules) {
            Next::Done(made) => self.take(made, rules),
            Next::Ask(inner) => {
                Next::Ask(Box::new(Pending::Translated { inner, state: Box::new(self) }))
            }
            // If A fails as well, the client gets the answer for AAAA.
            Next::Failed => self.first.map_or(Next::Failed, Next::Done),
        }
    }

    fn take(mut self, made: Box<Made>, rules: &Local) -> Next {
        let Some(first) = self.first else {
            let has_own = made.rows.answers().any(is_own);
            if made.rows.rcode != rcode::NOERROR || has_own && !self.rule.translate_all {
                return Next::Done(made);
            }
            self.first = Some(made);
            let name = self.name.clone();
            return match rules.resolve_untranslated(&name, rtype::A) {
                Outcome::Answer(made) => self.take(made, rules),
                other => {
                    let inner = other.pending(name, rtype::A);
                    Next::Ask(Box::new(Pending::Translated { inner, state: Box::new(self) }))
                }
            };
        };
        if !made.rows.answers().any(|row| row.rtype == rtype::A) {
            return Next::Done(first);
        }
        Next::Done(Box::new(translate(&self.rule, &first, *made)))
    }
}

/// Returns the answer for AAAA, made of `made`, the answer for A.
fn translate(rule: &Dns64, first: &Made, mut made: Made) -> Made {
    // RFC 6147 section 5.1.7.
    let soa = first.rows.records.iter().find(|row| row.rtype == rtype::SOA);
    let ttl_max = soa.map_or(TTL_WITHOUT_SOA, |soa| soa.ttl);
    let is_kept = |row: &Row| row.section == 0 && row.rtype != rtype::AAAA;
    let mut rows = Rows { authentic: false, ..made.rows };
    rows.strip_dnssec();
    rows.records.retain(is_kept);
    for row in &mut rows.records {
        if let (rtype::A, Ok(octets)) = (row.rtype, <[u8; 4]>::try_from(row.data.tail())) {
            let address = rule.translated(octets.into());
            *row = Row::new(&row.owner, rtype::AAAA, row.ttl.min(ttl_max), &address.octets());
        }
    }
    made.names.extend_from_slice(&first.names);
    made.lifetime_secs = match (made.lifetime_secs, first.lifetime_secs) {
        (None, None) => None,
        (one, _) => Some(one.unwrap_or(u32::MAX).min(ttl_max)),
    };
    Made { rows, ..made }
}

/// Returns whether `row` is an address that the client can reach without translation.
fn is_own(row: &Row) -> bool {
    let octets = <[u8; 16]>::try_from(row.data.tail());
    // RFC 6147 section 5.1.4.
    row.rtype == rtype::AAAA && octets.is_ok_and(|it| Ipv6Addr::from(it).to_ipv4_mapped().is_none())
}

/// The TTL, in seconds, if the denial of AAAA has no SOA.
const TTL_WITHOUT_SOA: u32 = 600;

#[cfg(test)]
mod tests;
