//! dnscache's own queries to servers: does a server answer, how fast, and does it send queries
//! back?
//!
//! Core. A probe is a query without waiters. It cannot be found by its question.

use shared::clock::Moment;
use shared::wire::{class, rtype};

use super::act::Act;
use super::message::write_key;
use super::queries::{NEVER, Queries, Question};
use super::query::Asking;
use super::servers::Server;
use super::table::{Origin, Phase, QUERIES_MAX};

impl<W> Queries<W> {
    /// Returns whether `question` is a sounding query of dnscache that a server sent back. Only the
    /// number of a sounding that is under way matches, so no client can guess it.
    pub fn comes_back(&mut self, question: &Question<'_>, now: Moment) -> bool {
        let Some(number) = sounding_number(question) else { return false };
        let is_target = |(_, server): &(u16, &Server)| server.sounding == Some(number);
        let Some((index, _)) = self.servers.iter().find(is_target) else { return false };
        self.servers.get_mut(index).loops(now);
        self.acts.push(Act::Health { server: index });
        true
    }

    /// Sends a query to `server` under a unique name, to detect whether the query is sent back.
    pub(super) fn sound(&mut self, server: u16, now: Moment) {
        let number = (self.draw)();
        let name = sounding_name(number);
        let question = Question { name: &name, qtype: HINFO, ..ROOT_SERVERS };
        if self.probe(server, &question, now) {
            self.servers.get_mut(server).sounding = Some(number);
        }
    }

    /// Asks `server` a question to detect whether it answers. Returns `false` if every place is
    /// taken; the probe must then be retried later.
    pub(super) fn probe(&mut self, server: u16, question: &Question<'_>, now: Moment) -> bool {
        self.servers.get_mut(server).probed = now;
        write_key(question, &mut self.key);
        let Some(slot) = self.table.insert(&self.key, false, QUERIES_MAX) else { return false };
        let pool_id = self.pool_id(slot);
        let query = self.table.get_mut(slot);
        query.origin = Origin { started: now, ..Origin::default() };
        query.pool_id = pool_id;
        query.stale_due = NEVER;
        query.phase = Phase::Probing(Asking::new(&[server]));
        self.drive(slot, now, |asking, turn| Some(asking.probe(turn)));
        // A server that takes as long as clients wait must be found to be up as well.
        self.arm(slot, self.deadline(slot));
        true
    }

    /// Ends the probe in `slot`.
    pub(super) fn end_probe(&mut self, slot: u16, now: Moment) {
        let query = self.table.get(slot);
        let number = sounding_number(&query.question());
        if let Some(one) = query.asking().and_then(|asking| asking.tries.first()) {
            let server = self.servers.get_mut(one.server);
            if number.is_some() && server.sounding == number {
                server.end_sounding(now);
            }
        }
        self.close(slot);
        self.remove(slot);
    }

    /// Returns whether the query in `slot` is a probe.
    pub(super) fn is_probe(&self, slot: u16) -> bool {
        matches!(self.table.get(slot).phase, Phase::Probing(_))
    }
}

/// Returns the name of a sounding query: 16 hexadecimal digits and a fixed label.
fn sounding_name(number: u64) -> Vec<u8> {
    let mut name = vec![16];
    name.extend_from_slice(format!("{number:016x}").as_bytes());
    name.extend_from_slice(SOUNDING);
    name
}

/// Returns the number in such a name.
fn sounding_number(question: &Question<'_>) -> Option<u64> {
    let digits = question.name.strip_suffix(SOUNDING)?.strip_prefix(&[16])?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A question that every resolver can answer from memory.
pub(super) const ROOT_SERVERS: Question<'static> = Question {
    name: &[0],
    qtype: rtype::NS,
    qclass: class::IN,
    dnssec_ok: false,
    checking_disabled: false,
};
/// The type of a sounding query, for which clients hardly ever ask.
const HINFO: u16 = 13;
/// The label after the number in a sounding name.
const SOUNDING: &[u8] = b"\x0ddnscache-loop\0";
