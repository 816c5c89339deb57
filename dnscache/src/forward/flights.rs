//! Questions on their way to upstreams: one flight per question, tries, timeouts, the next server,
//! the next transport.
//!
//! Core. No socket, no clock, no random source: datagrams and `now` come in, [`Act`]s come out,
//! random numbers come from a function given at the start.
//!
//! ```text
//! find ─ no ▶ start ─▶ Send ─▶ datagram ─▶ an answer: land, the waiters get it
//!   └─ yes ─▶ attach    ▲        ├─ TC, or a forgery is about ─▶ Dial ─▶ stream ─▶ an answer
//!                       └────────┴─ SERVFAIL, REFUSED, tick: too late ─▶ next try, or Fail
//! ```
//!
//! Bounds: three tries per server and six in all, one at a time; every flight lands within
//! [`FLIGHT_MAX`] (RFC 9520 section 3.1, RFC 8767 section 5).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use shared::clock::Moment;
use shared::wire::ErrorCode;

pub use super::message::Failure;
use super::message::{Reading, read_reply, read_stream, write_key};
pub use super::servers::{Health, Server, Servers};
pub use super::table::{CANDIDATES_MAX, FLIGHTS_MAX, Ticket};
use super::table::{Purpose, SPENT, State, Table};
pub use crate::cache::Question;

/// What the edge is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Send the flight's [`Flights::message`] to `server`, if it is still in the air: from the
    /// server's pool where it is local, else from a new socket with a random port, which replaces
    /// the flight's last.
    Send {
        /// The flight.
        ticket: Ticket,
        /// Index of the server.
        server: u16,
    },
    /// Ask `server` the same over TCP, and hand the outcome to [`Flights::stream`].
    Dial {
        /// The flight.
        ticket: Ticket,
        /// Index of the server.
        server: u16,
        /// When the outcome is of no use any more.
        deadline: Moment,
    },
    /// Close the flight's own socket.
    Close {
        /// The flight's slot.
        slot: u16,
    },
    /// Land the flight with its [`Flights::failure`].
    Fail {
        /// The flight's slot.
        slot: u16,
    },
}

/// Which socket something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The one kept for this local server.
    Pool(u16),
    /// The one opened for the flight in this slot.
    Own(u16),
}

/// A group of servers that answer for the same names.
#[derive(Clone, Debug)]
struct Group {
    candidates: Arc<[u16]>,
    /// All of them run in this pod.
    local: bool,
}

/// Every flight, the servers, and what is due.
pub struct Flights<W> {
    pub(super) table: Table<W>,
    pub(super) servers: Servers,
    groups: Vec<Group>,
    /// When each slot wants [`Flights::tick`]; [`NEVER`] where it is free.
    pub(super) due: Vec<Moment>,
    /// Not later than the earliest of `due`.
    pub(super) due_next: Moment,
    pub(super) draw: Box<dyn FnMut() -> u64 + Send>,
    pub(super) key: Vec<u8>,
}

impl<W> Flights<W> {
    /// No flights and no servers. `draw` yields unpredictable numbers: message IDs and letter cases
    /// come from it.
    pub fn new(draw: Box<dyn FnMut() -> u64 + Send>) -> Self {
        Self {
            table: Table::new(),
            servers: Servers::default(),
            groups: Vec::new(),
            due: Vec::new(),
            due_next: NEVER,
            draw,
            key: Vec::new(),
        }
    }

    /// Replaces the groups: group `n` is what [`Flights::start`] calls `n` from now on. Flights in
    /// the air go on with the servers they started with. New servers are sounded for loops.
    ///
    /// Of each group the first [`CANDIDATES_MAX`] servers count.
    pub fn set_groups(&mut self, groups: &[Vec<SocketAddr>], now: Moment, acts: &mut Vec<Act>) {
        self.servers.retire_all(now);
        let mut new = Vec::new();
        self.groups.clear();
        for addresses in groups {
            let mut candidates = Vec::new();
            for &address in addresses.iter().take(CANDIDATES_MAX) {
                let (index, is_new) = self.servers.index(address, now);
                if is_new {
                    new.push(index);
                }
                if !candidates.contains(&index) {
                    candidates.push(index);
                }
            }
            let local = candidates.iter().all(|&index| self.servers.get(index).is_local());
            self.groups.push(Group { candidates: candidates.into(), local });
        }
        for index in new {
            self.sound(index, now, acts);
        }
    }

    /// The servers.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Flights in the air.
    pub fn in_flight(&self) -> usize {
        self.table.used()
    }

    /// The flight that asks `question`, if one does.
    pub fn find(&mut self, question: &Question<'_>) -> Option<u16> {
        write_key(question, &mut self.key);
        self.table.find(&self.key)
    }

    /// Whether one more query of `client` may wait; fails with the reason where too many do.
    ///
    /// To be asked before a flight is started for it: else a client whom nobody waits for any more
    /// could still fill every place.
    pub fn admit(&self, client: IpAddr) -> Result<(), Failure> {
        self.table.admit(client)
    }

    /// Starts a flight for `question`, which none asks yet, to the servers of `group`.
    ///
    /// Fails where too many are in the air; a part of the places is kept for groups inside the pod,
    /// so that slow upstreams do not stop the cluster's own names.
    pub fn start(
        &mut self,
        question: &Question<'_>,
        group: usize,
        now: Moment,
        acts: &mut Vec<Act>,
    ) -> Result<u16, Failure> {
        let Some(Group { candidates, local }) = self.groups.get(group).cloned() else {
            return Err(NO_UPSTREAM);
        };
        let max = if local { FLIGHTS_MAX } else { FLIGHTS_MAX - FLIGHTS_KEPT };
        write_key(question, &mut self.key);
        let slot = self.table.insert(&self.key, Purpose::Question, max).ok_or(FULL)?;
        let id = self.pool_id(slot);
        let flight = self.table.get_mut(slot);
        flight.candidates = candidates;
        flight.deadline = now + FLIGHT_MAX;
        flight.id = id;
        self.advance(slot, now, acts);
        self.measure(slot, now, acts);
        Ok(slot)
    }

    /// Has the flight in `slot`, whose servers refuse to answer, ask those of `group` in the time
    /// that is left.
    ///
    /// Fails where that has happened to it before, and where [`Flights::start`] would.
    pub fn go_beyond(
        &mut self,
        slot: u16,
        group: usize,
        now: Moment,
        acts: &mut Vec<Act>,
    ) -> Result<(), Failure> {
        let flight = self.table.get(slot);
        if flight.is_beyond {
            return Err(self.failure(slot));
        }
        let Some(Group { candidates, local }) = self.groups.get(group).cloned() else {
            return Err(NO_UPSTREAM);
        };
        if !local && self.table.used() > FLIGHTS_MAX - FLIGHTS_KEPT {
            return Err(FULL);
        }
        self.table.get_mut(slot).start_over(candidates);
        self.advance(slot, now, acts);
        self.measure(slot, now, acts);
        Ok(())
    }

    /// Whether the flight in `slot` asks servers beyond its route.
    pub fn is_beyond(&self, slot: u16) -> bool {
        self.table.get(slot).is_beyond
    }

    /// Lets `waiter` wait for the flight in `slot`, on behalf of `client` where a client asked.
    ///
    /// Gives it back with the reason where too many wait for this flight, for this client or in
    /// all.
    pub fn attach(
        &mut self,
        slot: u16,
        client: Option<IpAddr>,
        waiter: W,
    ) -> Result<(), (W, Failure)> {
        self.table.attach(slot, client, waiter)
    }

    /// The query that [`Act::Send`] and [`Act::Dial`] send.
    pub fn message(&self, slot: u16) -> &[u8] {
        &self.table.get(slot).query
    }

    /// Whether anybody waits for anything.
    pub fn is_waited_for(&self) -> bool {
        self.table.is_waited_for()
    }

    /// What the flight in `slot` asks.
    pub fn question(&self, slot: u16) -> Question<'_> {
        self.table.get(slot).question()
    }

    /// The flight in `slot`, as a name that outlives it.
    pub fn ticket(&self, slot: u16) -> Ticket {
        self.table.ticket(slot)
    }

    /// The slot of `ticket`'s flight, while it is in the air.
    pub fn slot(&self, ticket: Ticket) -> Option<u16> {
        self.table.slot(ticket)
    }

    /// Takes a datagram in. Yields the slot of the flight that it answers: land it.
    pub fn datagram(
        &mut self,
        via: Via,
        message: &[u8],
        now: Moment,
        acts: &mut Vec<Act>,
    ) -> Option<u16> {
        let slot = match via {
            Via::Own(slot) => slot,
            Via::Pool(_) => {
                let id = u16::from_be_bytes([*message.first()?, *message.get(1)?]);
                id % FLIGHTS_MAX as u16
            }
        };
        if usize::from(slot) >= self.table.slots() {
            return None;
        }
        let flight = self.table.get(slot);
        let State::Reply { at: last, sent, .. } = flight.state else { return None };
        let at = match via {
            Via::Own(_) => usize::from(last),
            // A reply to an earlier try at this or another local server is as good.
            Via::Pool(server) => flight.candidates.iter().position(|&index| index == server)?,
        };
        if matches!(flight.tries[at], 0 | SPENT) {
            return None;
        }
        let reading = read_reply(message, &flight.query, flight.question_end());
        if matches!(reading, Reading::Stray | Reading::OtherCase) {
            if matches!(via, Via::Own(_)) {
                self.suspect(slot, at, reading == Reading::OtherCase, acts);
            }
            return None;
        }
        let first_try = usize::from(last) == at && (flight.tries[at] == 1 || flight.own_socket);
        let server = self.servers.get_mut(flight.candidates[at]);
        let was_down = server.health() == Health::Down;
        server.replied(first_try.then(|| now.since(sent)), now);
        if was_down {
            let index = flight.candidates[at];
            self.sound(index, now, acts);
        }
        self.read(slot, at, reading, now, acts)
    }

    /// Takes the outcome of [`Act::Dial`] in: a whole message, or nothing where the exchange
    /// failed. Yields the slot of the flight that it answers: land it.
    pub fn stream(
        &mut self,
        ticket: Ticket,
        message: Option<&[u8]>,
        now: Moment,
        acts: &mut Vec<Act>,
    ) -> Option<u16> {
        let slot = self.table.slot(ticket)?;
        let flight = self.table.get_mut(slot);
        let at = usize::from(flight.stream.take()?);
        if !matches!(flight.state, State::Reply { .. } | State::Stream) {
            return None;
        }
        let (reading, keeps_case) = match message {
            Some(message) => read_stream(message, &flight.query, flight.question_end()),
            None => (Reading::Stray, true),
        };
        let index = flight.candidates[at];
        match reading {
            Reading::Stray | Reading::OtherCase | Reading::Truncated => {
                if flight.state == State::Stream {
                    flight.tries[at] = SPENT;
                    flight.failure = Some(STREAM_FAILED);
                    self.advance(slot, now, acts);
                }
                None
            }
            genuine => {
                let server = self.servers.get_mut(index);
                server.keeps_case &= keeps_case;
                server.replied(None, now);
                self.read(slot, at, genuine, now, acts)
            }
        }
    }

    /// Notes that nothing listens at the other end of a socket. For a server in this pod the
    /// kernel's word is good for every flight; from elsewhere it may be forged and only ends this
    /// try.
    pub fn unreachable(&mut self, via: Via, now: Moment, acts: &mut Vec<Act>) {
        match via {
            Via::Own(slot) => {
                let flight = self.table.get(slot);
                if let State::Reply { at, .. } = flight.state {
                    let server = flight.candidates[usize::from(at)];
                    self.servers.get_mut(server).was_silent(now);
                    self.give_up_try(slot, now, acts);
                }
            }
            Via::Pool(server) => {
                if self.servers.get(server).health() != Health::Up {
                    return;
                }
                self.servers.get_mut(server).is_closed(now);
                for slot in 0..self.table.slots() as u16 {
                    let flight = self.table.get(slot);
                    if matches!(flight.state, State::Reply { at, .. }
                        if flight.candidates[usize::from(at)] == server)
                    {
                        self.give_up_try(slot, now, acts);
                    }
                }
            }
        }
    }

    /// Does what has become due: further tries, failures, probes.
    pub fn tick(&mut self, now: Moment, acts: &mut Vec<Act>) {
        self.probe_those_down(now, acts);
        if now < self.due_next {
            return;
        }
        self.due_next = NEVER;
        for slot in 0..self.due.len() {
            if self.due[slot] <= now {
                self.overdue(slot as u16, now, acts);
            }
            self.due_next = self.due_next.min(self.due[slot]);
        }
    }

    /// When [`Flights::tick`] is next of use.
    pub fn next_due(&self) -> Option<Moment> {
        let probe = self.servers.probe_due().unwrap_or(NEVER);
        Some(self.due_next.min(probe)).filter(|&due| due != NEVER)
    }

    /// Why the flight in `slot` failed.
    pub fn failure(&self, slot: u16) -> Failure {
        self.table.get(slot).failure.unwrap_or(SILENCE)
    }

    /// Makes a flight fail that is in the air; a probe just ends.
    pub fn fail(&mut self, slot: u16, failure: Failure, acts: &mut Vec<Act>) {
        let flight = self.table.get_mut(slot);
        if flight.purpose == Purpose::Probe {
            self.land(slot, acts, |_| {});
        } else if !matches!(flight.state, State::Free | State::Failed) {
            flight.failure = Some(failure);
            flight.state = State::Failed;
            acts.push(Act::Fail { slot });
            self.arm(slot, NEVER);
        }
    }

    /// Ends the flight in `slot`: `hand` gets each of its waiters.
    pub fn land(&mut self, slot: u16, acts: &mut Vec<Act>, hand: impl FnMut(W)) {
        if self.table.get(slot).own_socket {
            acts.push(Act::Close { slot });
        }
        self.due[usize::from(slot)] = NEVER;
        self.table.remove(slot, hand);
    }

    /// Lets the flight in `slot`, whose `answer` ends in an alias of another route, wait for the
    /// flight in `rest`.
    ///
    /// Fails where that flight waits for this one already, or where more than eleven aliases led
    /// here.
    pub fn follow(&mut self, slot: u16, answer: &[u8], rest: u16) -> Result<(), Failure> {
        let links = self.table.get(slot).links + 1;
        let mut next = Some(rest);
        for _ in 0..LINKS_MAX {
            match next {
                Some(at) if at == slot => return Err(ALIAS_LOOP),
                Some(at) => {
                    let waits_for = self.table.get(at).waits_for;
                    next = waits_for.and_then(|ticket| self.table.slot(ticket));
                }
                None => break,
            }
        }
        if links > LINKS_MAX || next.is_some() {
            return Err(ALIAS_LOOP);
        }
        let ticket = self.table.ticket(rest);
        let child = self.table.get_mut(rest);
        child.links = child.links.max(links);
        let flight = self.table.get_mut(slot);
        flight.partial = answer.to_vec();
        flight.waits_for = Some(ticket);
        flight.state = State::Rest;
        let deadline = flight.deadline;
        self.arm(slot, deadline);
        Ok(())
    }

    /// The answer that [`Flights::follow`] put aside.
    pub fn partial(&self, slot: u16) -> &[u8] {
        &self.table.get(slot).partial
    }

    /// An ID for queries that share a server's socket: its lower bits name the slot.
    pub(super) fn pool_id(&mut self, slot: u16) -> u16 {
        slot | (self.draw)() as u16 & !(FLIGHTS_MAX as u16 - 1)
    }
}

/// A slot that waits for nothing.
pub(super) const NEVER: Moment = Moment::from_nanos(u64::MAX);
/// Every flight lands within this: a client has its answer, fresh, stale or SERVFAIL, within two
/// seconds (RFC 8767 section 5: 1.8 seconds).
pub const FLIGHT_MAX: Duration = Duration::from_millis(1_800);
/// Aliases between routes that one answer may have.
const LINKS_MAX: u8 = 11;
/// Places kept for groups inside the pod.
const FLIGHTS_KEPT: usize = FLIGHTS_MAX / 4;

pub(super) const NO_UPSTREAM: Failure =
    Failure::servfail(ErrorCode::NoReachableAuthority, "no upstream for this name");
pub(super) const ALL_DOWN: Failure =
    Failure::servfail(ErrorCode::NoReachableAuthority, "every upstream is down");
pub(super) const SILENCE: Failure =
    Failure::servfail(ErrorCode::NetworkError, "no upstream answered in time");
const STREAM_FAILED: Failure =
    Failure::servfail(ErrorCode::NetworkError, "the exchange over TCP failed");
const FULL: Failure =
    Failure::servfail(ErrorCode::Other, "too many questions wait for their upstreams");
const ALIAS_LOOP: Failure = Failure::servfail(ErrorCode::Other, "aliases lead in a circle");
