//! Queries of our own to servers: does it answer, how fast, and does it send our queries back to
//! us?
//!
//! Core. Probes are flights without waiters, not found by their question.

use std::sync::Arc;
use std::time::Duration;

use shared::clock::Moment;
use shared::wire::{class, rtype};

use super::flights::{Act, FLIGHTS_MAX, Flights, Question};
use super::message::write_key;
use super::servers::Server;
use super::table::Purpose;

impl<W> Flights<W> {
    /// Whether `question` is one of ours come back: the index of the server that it was sent to.
    /// That server is not asked again until the routes change.
    pub fn comes_back(&mut self, question: &Question<'_>) -> Option<u16> {
        let number = sounding_number(question)?;
        let sent = |&(_, server): &(u16, &Server)| server.sounded() == Some(number);
        let (index, _) = self.servers.iter().find(sent)?;
        self.servers.get_mut(index).is_looping();
        Some(index)
    }

    /// Sends probes to the servers that are down and have been left alone for a second.
    pub(super) fn probe_those_down(&mut self, now: Moment, acts: &mut Vec<Act>) {
        while let Some(server) = self.servers.probe_next(now) {
            self.probe(server, &ROOT_SERVERS, now, acts);
        }
    }

    /// Sends a probe to a server of the flight's group that has not been heard of for a while.
    pub(super) fn measure(&mut self, slot: u16, now: Moment, acts: &mut Vec<Act>) {
        let candidates = &self.table.get(slot).candidates;
        if candidates.len() < 2 {
            return;
        }
        if let Some(index) = self.servers.forgotten(candidates, now) {
            self.probe(index, &ROOT_SERVERS, now, acts);
        }
    }

    /// Sends a query to `server` under a name that nobody else asks for, to see whether it comes
    /// back.
    pub(super) fn sound(&mut self, server: u16, now: Moment, acts: &mut Vec<Act>) {
        let number = (self.draw)();
        self.servers.get_mut(server).sounded_with(number);
        let name = sounding_name(number);
        let question = Question { name: &name, qtype: HINFO, ..ROOT_SERVERS };
        self.probe(server, &question, now, acts);
    }

    /// Asks `server` something to see whether it answers. With every place taken, it is left for
    /// later.
    fn probe(&mut self, server: u16, question: &Question<'_>, now: Moment, acts: &mut Vec<Act>) {
        self.servers.get_mut(server).probed(now);
        write_key(question, &mut self.key);
        let Some(slot) = self.table.insert(&self.key, Purpose::Probe, FLIGHTS_MAX) else { return };
        let id = self.pool_id(slot);
        let flight = self.table.get_mut(slot);
        flight.candidates = Arc::new([server]);
        flight.deadline = now + PROBE_MAX;
        flight.id = id;
        self.send(slot, 0, now, acts);
        self.arm(slot, now + PROBE_MAX);
    }
}

/// The name of a query that is to come back, if anything does: 16 hexadecimal digits and a label of
/// ours.
fn sounding_name(number: u64) -> Vec<u8> {
    let mut name = vec![16];
    name.extend_from_slice(format!("{number:016x}").as_bytes());
    name.extend_from_slice(SOUNDING);
    name
}

/// The number in such a name.
fn sounding_number(question: &Question<'_>) -> Option<u64> {
    let digits = question.name.strip_suffix(SOUNDING)?.strip_prefix(&[16])?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// How long a probe waits.
const PROBE_MAX: Duration = Duration::from_millis(900);
/// A question that every resolver can answer from memory.
const ROOT_SERVERS: Question<'static> = Question {
    name: &[0],
    qtype: rtype::NS,
    qclass: class::IN,
    dnssec_ok: false,
    checking_disabled: false,
};
/// The type of a sounding query: nobody asks for it in earnest.
const HINFO: u16 = 13;
/// What follows the number in a sounding name.
const SOUNDING: &[u8] = b"\x0ddnscache-loop\0";
