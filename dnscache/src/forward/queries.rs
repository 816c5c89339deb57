//! All upstream queries: by question, by slot and by time.
//!
//! Core. No socket, clock or random source: datagrams and `now` are passed in, [`Act`]s are
//! returned, and random numbers are drawn from a function that is given at the start.
//!
//! ```text
//! find ─ no ▶ start ─▶ Send, Dial ─▶ datagram, stream, unreachable ─▶ Act::End: take_end
//!   └─ yes ─▶ attach                  tick: overdue, parked, probes
//! ```
//!
//! Bounds: [`QUERIES_MAX`] queries, of which outside servers can use three quarters; three
//! datagrams and one TCP exchange per server, six datagrams in all unless the group has more
//! servers.

use std::sync::Arc;
use std::time::Duration;

use shared::clock::Moment;
use shared::endpoint::Endpoint;
use shared::wire::ErrorCode;

pub use super::act::{Act, Datagram, TryId, Via};
pub use super::message::Failure;
use super::message::{Form, write_key, write_query};
use super::probes::ROOT_SERVERS;
use super::query::{Asking, Step, Turn};
pub use super::servers::{Health, Server, Servers};
pub use super::table::{End, Origin, QUERIES_MAX, Query, Ticket};
use super::table::{Phase, Table};
use crate::cache::Blame;
pub use crate::cache::Question;

/// A group of servers that answer for the same names.
#[derive(Clone, Debug)]
struct Group {
    servers: Arc<[u16]>,
    /// Whether all of them run in this pod.
    is_local: bool,
}

/// Every query, the servers, and what is due.
pub struct Queries<W> {
    pub(super) table: Table<W>,
    pub(super) servers: Servers,
    groups: Vec<Group>,
    /// When each slot must be looked at next; [`NEVER`] for a free one.
    due: Vec<Moment>,
    /// Not later than the earliest of `due`.
    due_next: Moment,
    pub(super) draw: Box<dyn FnMut() -> u64 + Send>,
    /// How long a question waits for its servers.
    pub(super) patience: Duration,
    /// How long clients wait for an answer if they can get an expired one.
    stale_after: Duration,
    pub(super) key: Vec<u8>,
    pub(super) scratch: Vec<u8>,
    pub(super) acts: Vec<Act>,
    pub(super) recovered: Vec<Blame>,
}

impl<W> Queries<W> {
    /// Returns a table without queries and servers. `draw` returns unpredictable numbers, from
    /// which message IDs and letter cases are made. A question fails after `patience`. Its clients
    /// get an expired answer, if there is one, after `stale_after`.
    pub fn new(
        draw: Box<dyn FnMut() -> u64 + Send>,
        patience: Duration,
        stale_after: Duration,
    ) -> Self {
        Self {
            table: Table::new(),
            servers: Servers::default(),
            groups: Vec::new(),
            due: Vec::new(),
            due_next: NEVER,
            draw,
            patience,
            stale_after,
            key: Vec::new(),
            scratch: Vec::new(),
            acts: Vec::new(),
            recovered: Vec::new(),
        }
    }

    /// Replaces the groups. Index `n` of `groups` is group `n` for [`Queries::start`] from now on.
    /// Queries under way continue with their servers. New servers are sounded for loops.
    ///
    /// Only the first [`SERVERS_MAX`] servers of each group count.
    pub fn set_groups(&mut self, groups: &[Vec<Endpoint>], now: Moment) {
        self.servers.retire_all(now);
        let mut new = Vec::new();
        self.groups.clear();
        for endpoints in groups {
            let mut servers = Vec::new();
            for endpoint in endpoints.iter().take(SERVERS_MAX) {
                let (index, is_new) = self.servers.index(endpoint, now);
                if is_new {
                    new.push(index);
                }
                if !servers.contains(&index) {
                    servers.push(index);
                }
            }
            let is_local = servers.iter().all(|&index| self.servers.get(index).is_local());
            self.groups.push(Group { servers: servers.into(), is_local });
        }
        for index in new {
            self.sound(index, now);
        }
    }

    /// Moves the actions for the edge into `acts`, which must be empty.
    pub fn swap_acts(&mut self, acts: &mut Vec<Act>) {
        std::mem::swap(&mut self.acts, acts);
    }

    /// Returns the servers.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Notes that the cache holds a failure of `server`. Returns where the cache should note it.
    pub fn blame(&mut self, server: u16) -> Blame {
        self.servers.get_mut(server).is_blamed = true;
        self.servers.blame(server)
    }

    /// Returns the servers whose failures in the cache have ended since the last call.
    pub fn recovered(&mut self) -> Vec<Blame> {
        std::mem::take(&mut self.recovered)
    }

    /// Returns how many queries are under way.
    pub fn in_flight(&self) -> usize {
        self.table.used()
    }

    /// Returns the query for `question`, if there is one.
    pub fn find(&mut self, question: &Question<'_>) -> Option<u16> {
        write_key(question, &mut self.key);
        self.table.find(&self.key)
    }

    /// Hides the query in `slot`: a question that arrives from now on gets its own query.
    pub fn hide(&mut self, slot: u16) {
        self.table.hide(slot);
    }

    /// Starts a query for `question` to the servers of `origin.group`. No other query must ask it.
    ///
    /// Fails if too many are under way. A part of the places is reserved for groups inside the pod,
    /// so that slow upstreams cannot stop the cluster's own names.
    pub fn start(&mut self, question: &Question<'_>, origin: Origin) -> Result<u16, Failure> {
        let is_local = self.groups.get(origin.group).ok_or(NO_GROUP)?.is_local;
        let max = if is_local { QUERIES_MAX } else { QUERIES_MAX - QUERIES_KEPT };
        write_key(question, &mut self.key);
        let slot = self.table.insert(&self.key, true, max).ok_or(FULL)?;
        self.table.get_mut(slot).stale_due = origin.started + self.stale_after;
        self.ask(slot, origin, origin.started);
        Ok(slot)
    }

    /// Makes the query in `slot`, whose end was taken, ask the servers of `group` in the time that
    /// is left.
    ///
    /// Fails if too many queries are under way.
    pub fn ask_next(&mut self, slot: u16, group: usize, now: Moment) -> Result<(), Failure> {
        let is_local = self.groups.get(group).ok_or(NO_GROUP)?.is_local;
        if !is_local && self.table.used() > QUERIES_MAX - QUERIES_KEPT {
            return Err(FULL);
        }
        let origin = Origin { group, ..self.table.get(slot).origin };
        self.ask(slot, origin, now);
        Ok(())
    }

    fn ask(&mut self, slot: u16, origin: Origin, now: Moment) {
        let servers = Arc::clone(&self.groups[origin.group].servers);
        let pool_id = self.pool_id(slot);
        let query = self.table.get_mut(slot);
        query.origin = origin;
        query.pool_id = pool_id;
        query.phase = Phase::Asking(Asking::new(&servers));
        self.drive(slot, now, |asking, turn| Some(asking.next(turn)));
        if servers.len() > 1
            && let Some(server) = self.servers.forgotten(servers.iter().copied(), now)
        {
            self.probe(server, &ROOT_SERVERS, now);
        }
    }

    /// Returns when the query in `slot` fails at the latest.
    pub fn deadline(&self, slot: u16) -> Moment {
        self.table.get(slot).origin.started + self.patience
    }

    /// Returns the query in `slot`.
    pub fn get(&self, slot: u16) -> &Query<W> {
        self.table.get(slot)
    }

    /// Returns the query in `slot`, to change its waiters or its origin.
    pub fn get_mut(&mut self, slot: u16) -> &mut Query<W> {
        self.table.get_mut(slot)
    }

    /// Returns a ticket for the query in `slot`, which stays unique after the query has ended.
    pub fn ticket(&self, slot: u16) -> Ticket {
        self.table.ticket(slot)
    }

    /// Returns the slot of `ticket`'s query while it is under way.
    pub fn slot(&self, ticket: Ticket) -> Option<u16> {
        self.table.slot(ticket)
    }

    /// Returns the server to which [`Act::Send`] and [`Act::Dial`] send a message, and the message;
    /// `None` if the query has ended meanwhile.
    pub fn message(&mut self, one: TryId) -> Option<(&Server, &[u8])> {
        let query = self.table.get(self.table.slot(one.ticket)?);
        let form = query.asking()?.tries.get(usize::from(one.at))?.form;
        let form = Form { without_recursion: query.origin.without_recursion, ..form };
        write_query(&query.question(), form, &mut self.scratch);
        Some((self.servers.get(one.server), &self.scratch))
    }

    /// Runs everything that is due: further tries, failures, probes.
    pub fn tick(&mut self, now: Moment) {
        while let Some(server) = self.servers.probe_next(now) {
            match self.servers.get(server).health() {
                Health::Looping(_) => self.sound(server, now),
                _ => drop(self.probe(server, &ROOT_SERVERS, now)),
            }
        }
        if now < self.due_next {
            return;
        }
        self.due_next = NEVER;
        for slot in 0..self.due.len() {
            if self.due[slot] <= now {
                self.overdue(slot as u16, now);
            }
            self.due_next = self.due_next.min(self.due[slot]);
        }
    }

    /// Returns when [`Queries::tick`] must be called next.
    pub fn next_due(&self) -> Option<Moment> {
        let probe = self.servers.probe_due().unwrap_or(NEVER);
        Some(self.due_next.min(probe)).filter(|&due| due != NEVER)
    }

    /// Advances the query in `slot`, which is due.
    pub(super) fn overdue(&mut self, slot: u16, now: Moment) {
        let deadline = self.deadline(slot);
        let query = self.table.get_mut(slot);
        if now >= query.stale_due {
            query.stale_due = NEVER;
            query.is_late = true;
            self.acts.push(Act::Stale { slot });
        }
        match &query.phase {
            Phase::Asking(_) => self.drive(slot, now, |asking, turn| Some(asking.next(turn))),
            Phase::Probing(asking) => {
                let server = asking.tries[0].server;
                if self.servers.get_mut(server).was_silent(now) {
                    self.fell(server, now);
                }
                self.end_probe(slot, now);
            }
            Phase::Completing { .. } if now >= deadline => {
                self.fail(slot, NO_REST);
            }
            Phase::Completing { .. } => {
                let due = deadline.min(query.stale_due);
                self.arm(slot, due);
            }
            Phase::Free | Phase::Ended(_) | Phase::Taken => self.arm(slot, NEVER),
        }
    }

    /// Makes the query in `slot` take a step and every step that follows from it.
    pub(super) fn drive(
        &mut self,
        slot: u16,
        now: Moment,
        event: impl FnOnce(&mut Asking, &mut Turn<'_>) -> Option<Step>,
    ) {
        let ticket = self.table.ticket(slot);
        let query = self.table.get_mut(slot);
        let (Phase::Asking(asking) | Phase::Probing(asking)) = &mut query.phase else { return };
        let mut fallen = Vec::new();
        let mut turn = Turn {
            now,
            deadline: query.origin.started + self.patience,
            patience: self.patience,
            servers: &mut self.servers,
            draw: &mut *self.draw,
            pool_id: query.pool_id,
            fallen: &mut fallen,
        };
        let Some(mut step) = event(asking, &mut turn) else { return };
        loop {
            let (at, act): (usize, fn(TryId) -> Act) = match step {
                Step::Send(at) => (at, Act::Send),
                Step::Dial(at) => (at, Act::Dial),
                _ => break,
            };
            let server = asking.tries[at].server;
            self.acts.push(act(TryId { ticket, at: at as u8, server }));
            step = asking.next(&mut turn);
        }
        let cut = asking.cut.take();
        match step {
            Step::Answer(server, answer) => {
                query.answered_by = Some(server);
                let message = std::mem::take(&mut self.scratch);
                self.end(slot, End::Answered { answer, message });
            }
            Step::Fail(failure) => {
                self.end(slot, End::Failed { failure, cut: cut.map(Box::new) });
            }
            Step::Wait(due) => {
                asking.cut = cut;
                if asking.is_parked() && !std::mem::replace(&mut query.is_late, true) {
                    query.stale_due = NEVER;
                    self.acts.push(Act::Stale { slot });
                }
                let due = due.min(query.stale_due);
                self.arm(slot, due);
            }
            Step::Send(_) | Step::Dial(_) => unreachable!("the loop ends after these"),
        }
        for server in fallen {
            self.fell(server, now);
        }
    }

    /// Notes that `server` has gone down. It may wait for itself, so it is sounded for a loop.
    fn fell(&mut self, server: u16, now: Moment) {
        self.acts.push(Act::Health { server });
        self.sound(server, now);
    }

    /// Makes every query look again, because `server` has come up.
    pub(super) fn wake(&mut self, server: u16, now: Moment) {
        for slot in 0..self.table.len() as u16 {
            if matches!(self.table.get(slot).phase, Phase::Asking(_)) {
                self.drive(slot, now, |asking, turn| Some(asking.on_recovered(server, turn)));
            }
        }
    }

    /// Ends the query in `slot` with `failure`.
    pub fn fail(&mut self, slot: u16, failure: Failure) {
        self.end(slot, End::Failed { failure, cut: None });
    }

    fn end(&mut self, slot: u16, end: End) {
        self.close(slot);
        let query = self.table.get_mut(slot);
        query.phase = Phase::Ended(end);
        query.stale_due = NEVER;
        self.acts.push(Act::End { slot });
        self.arm(slot, NEVER);
    }

    /// Closes the own sockets of the query in `slot`.
    pub(super) fn close(&mut self, slot: u16) {
        let ticket = self.table.ticket(slot);
        let Some(asking) = self.table.get(slot).asking() else { return };
        for (at, one) in (0..).zip(&asking.tries) {
            if one.was_sent() && !self.servers.get(one.server).is_local() {
                self.acts.push(Act::Close(TryId { ticket, at, server: one.server }));
            }
        }
    }

    /// Takes the end of the query in `slot`, if it has ended. The caller must then either continue
    /// the query ([`Queries::ask_next`], [`Queries::complete`]) or remove it ([`Queries::remove`]).
    pub fn take_end(&mut self, slot: u16) -> Option<End> {
        let query = self.table.get_mut(slot);
        match std::mem::replace(&mut query.phase, Phase::Taken) {
            Phase::Ended(end) => Some(end),
            other => {
                query.phase = other;
                None
            }
        }
    }

    /// Takes back the memory of a message that [`Queries::take_end`] returned.
    pub fn reuse(&mut self, message: Vec<u8>) {
        self.scratch = message;
    }

    /// Frees `slot`. Returns the query's waiters.
    pub fn remove(&mut self, slot: u16) -> Vec<W> {
        self.arm(slot, NEVER);
        self.table.remove(slot)
    }

    /// Stores the `answer` of the query in `slot`, which ends in an alias of another route. It must
    /// then be completed ([`Queries::take_partial`]) or failed.
    pub fn complete(&mut self, slot: u16, answer: &[u8]) {
        let deadline = self.deadline(slot);
        let query = self.table.get_mut(slot);
        query.phase = Phase::Completing { answer: answer.to_vec(), rest: None };
        let due = deadline.min(query.stale_due);
        self.arm(slot, due);
    }

    /// Makes the query in `slot`, whose answer ends in an alias, wait for the query in `next`.
    ///
    /// Fails if that query already waits for this one, or if more than `LINKS_MAX` aliases led
    /// here.
    pub fn follow(&mut self, slot: u16, next: u16) -> Result<(), Failure> {
        let links = self.table.get(slot).links + 1;
        let after = |&at: &u16| match self.table.get(at).phase {
            Phase::Completing { rest, .. } => self.table.slot(rest?),
            _ => None,
        };
        let is_circle = |(count, at): (usize, u16)| at == slot || count == usize::from(LINKS_MAX);
        let mut nexts = std::iter::successors(Some(next), after).enumerate();
        if links > LINKS_MAX || nexts.any(is_circle) {
            return Err(ALIAS_LOOP);
        }
        let ticket = self.table.ticket(next);
        let child = self.table.get_mut(next);
        child.links = child.links.max(links);
        if let Phase::Completing { rest, .. } = &mut self.table.get_mut(slot).phase {
            *rest = Some(ticket);
        }
        Ok(())
    }

    /// Returns the answer that [`Queries::complete`] stored. The query then counts as taken.
    pub fn take_partial(&mut self, ticket: Ticket) -> Option<(u16, Vec<u8>)> {
        let slot = self.table.slot(ticket)?;
        let query = self.table.get_mut(slot);
        match std::mem::replace(&mut query.phase, Phase::Taken) {
            Phase::Completing { answer, .. } => Some((slot, answer)),
            other => {
                query.phase = other;
                None
            }
        }
    }

    /// Returns an ID for queries that share a server's socket: its lower bits are the slot.
    pub(super) fn pool_id(&mut self, slot: u16) -> u16 {
        slot | (self.draw)() as u16 & !(QUERIES_MAX as u16 - 1)
    }

    /// Sets when `slot` is due.
    pub(super) fn arm(&mut self, slot: u16, due: Moment) {
        let slot = usize::from(slot);
        if slot >= self.due.len() {
            self.due.resize(slot + 1, NEVER);
        }
        self.due[slot] = due;
        self.due_next = self.due_next.min(due);
    }
}

/// The due time of a slot that is not waiting.
pub(super) const NEVER: Moment = Moment::from_nanos(u64::MAX);
/// How many servers of one group are asked.
pub const SERVERS_MAX: usize = 16;
/// Aliases between routes that one answer can have.
const LINKS_MAX: u8 = 11;
/// Places reserved for groups inside the pod.
const QUERIES_KEPT: usize = QUERIES_MAX / 4;

const NO_GROUP: Failure =
    Failure::servfail(ErrorCode::NoReachableAuthority, "no upstream for this name");
const NO_REST: Failure =
    Failure::servfail(ErrorCode::NetworkError, "no upstream answered for the alias in time");
pub(super) const FULL: Failure =
    Failure::servfail(ErrorCode::Other, "too many questions wait for their upstreams");
const ALIAS_LOOP: Failure = Failure::servfail(ErrorCode::Other, "aliases lead in a circle");
