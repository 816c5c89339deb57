//! Which flights there are: one per question, the clients that wait for each, and how many there
//! may be.
//!
//! Core. Knows neither servers nor time: what a flight does is `flights`'s business.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use shared::clock::Moment;

use super::message::{Failure, read_key};
use crate::cache::Question;
use shared::wire::ErrorCode;

/// One question on its way.
#[derive(Debug)]
pub(super) struct Flight<W> {
    /// Counts the flights that had this slot, so that late news of an earlier one is known for what
    /// it is.
    pub generation: u32,
    pub state: State,
    pub purpose: Purpose,
    /// The question, as [`write_key`](super::message::write_key) writes it; empty in a free slot.
    pub key: Vec<u8>,
    hash: u64,
    next: u16,
    /// The servers that may be asked: those of its route, or beyond it.
    pub candidates: Arc<[u16]>,
    /// The servers of its route have sent it away.
    pub is_beyond: bool,
    /// How often each was asked; [`SPENT`] where it is not asked again.
    pub tries: [u8; CANDIDATES_MAX],
    pub sends: u8,
    /// The query as last sent.
    pub query: Vec<u8>,
    pub id: u16,
    pub deadline: Moment,
    /// Asks without OPT.
    pub plain: bool,
    /// Has a socket of its own open.
    pub own_socket: bool,
    /// The candidate asked over TCP, while it is.
    pub stream: Option<u8>,
    /// An odd datagram came.
    pub suspected: bool,
    /// A reply came that did not keep the case of the question's letters.
    pub other_case: bool,
    /// What the client gets when nobody answers.
    pub failure: Option<Failure>,
    /// Upstreams that answered with a failure.
    pub refusals: u8,
    /// An answer that ends in an alias of another route, and the flight that asks for the rest.
    pub partial: Vec<u8>,
    pub waits_for: Option<Ticket>,
    /// How many aliases led here.
    pub links: u8,
    waiters: Vec<(W, u16)>,
}

/// What a flight waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing: the slot is free.
    Free,
    /// A reply of candidate `at`; `silent` once it has been counted as unanswered.
    Reply { at: u8, sent: Moment, silent: bool },
    /// A reply over TCP only.
    Stream,
    /// The flight that completes the answer.
    Rest,
    /// Nothing yet, or nothing any more: about to be sent, or to fail.
    Ready,
    /// To be landed with its failure.
    Failed,
}

/// Why a flight was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody asked, or will.
    Question,
    /// To learn whether and how fast a server answers.
    Probe,
}

/// A flight by its slot, told from those that had the slot before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Index of the slot.
    pub slot: u16,
    /// Which of the slot's flights.
    pub generation: u32,
}

/// The flights by question, and who waits for them.
#[derive(Debug)]
pub(super) struct Table<W> {
    slots: Vec<Flight<W>>,
    free: Vec<u16>,
    /// The first flight of each hash bucket; the others follow by `next`.
    heads: Box<[u16]>,
    hasher: RandomState,
    /// Waiting queries by client, several clients to one place where their hashes meet.
    clients: Box<[u16]>,
    waiting: usize,
    used: usize,
}

impl<W> Table<W> {
    pub fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            heads: vec![NONE; BUCKETS].into(),
            hasher: RandomState::new(),
            clients: vec![0; CLIENT_PLACES].into(),
            waiting: 0,
            used: 0,
        }
    }

    /// Flights in the air.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether anybody waits for any flight.
    pub fn is_waited_for(&self) -> bool {
        self.waiting > 0
    }

    /// Slots ever used: the indices below this are valid.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    pub fn get(&self, slot: u16) -> &Flight<W> {
        &self.slots[usize::from(slot)]
    }

    pub fn get_mut(&mut self, slot: u16) -> &mut Flight<W> {
        &mut self.slots[usize::from(slot)]
    }

    /// The slot of `ticket`'s flight, while it is in the air.
    pub fn slot(&self, ticket: Ticket) -> Option<u16> {
        let flight = self.slots.get(usize::from(ticket.slot))?;
        let same = flight.generation == ticket.generation && flight.state != State::Free;
        same.then_some(ticket.slot)
    }

    pub fn ticket(&self, slot: u16) -> Ticket {
        Ticket { slot, generation: self.get(slot).generation }
    }

    /// The flight for the question `key`.
    pub fn find(&self, key: &[u8]) -> Option<u16> {
        let hash = self.hasher.hash_one(key);
        let mut at = self.heads[bucket(hash)];
        while at != NONE {
            let flight = self.get(at);
            if flight.hash == hash && flight.key == key {
                return Some(at);
            }
            at = flight.next;
        }
        None
    }

    /// Takes a slot for `key`; nothing where `max` flights are in the air. Probes are not found by
    /// their question.
    pub fn insert(&mut self, key: &[u8], purpose: Purpose, max: usize) -> Option<u16> {
        if self.used >= max.min(FLIGHTS_MAX) {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Flight::free());
            (self.slots.len() - 1) as u16
        });
        self.used += 1;
        let hash = self.hasher.hash_one(key);
        let head = self.heads[bucket(hash)];
        let flight = self.get_mut(slot);
        flight.begin(key, purpose);
        flight.hash = hash;
        if purpose == Purpose::Question {
            flight.next = head;
            self.heads[bucket(hash)] = slot;
        }
        Some(slot)
    }

    /// Lets `waiter` wait for the flight in `slot`; gives it back with the reason where too many
    /// do.
    pub fn attach(
        &mut self,
        slot: u16,
        client: Option<IpAddr>,
        waiter: W,
    ) -> Result<(), (W, Failure)> {
        let flight = &self.slots[usize::from(slot)];
        if flight.waiters.len() >= WAITERS_MAX || self.waiting >= WAITING_MAX {
            return Err((waiter, CROWDED));
        }
        if let Some(Err(failure)) = client.map(|address| self.admit(address)) {
            return Err((waiter, failure));
        }
        let place = client.map(|address| self.place(address));
        if let Some(place) = place {
            self.clients[usize::from(place)] += 1;
        }
        self.waiting += 1;
        self.get_mut(slot).waiters.push((waiter, place.unwrap_or(NONE)));
        Ok(())
    }

    /// Whether one more query of `client` may wait, if any may; else why not.
    pub fn admit(&self, client: IpAddr) -> Result<(), Failure> {
        let waiting = self.clients[usize::from(self.place(client))];
        if waiting < self.client_max() { Ok(()) } else { Err(GREEDY) }
    }

    /// How many queries of one client may wait: a quarter of the room that is left, so that one
    /// alone may ask much, and many never take what the others need.
    fn client_max(&self) -> u16 {
        CLIENT_MIN.max(((FLIGHTS_MAX - self.used) / 4) as u16)
    }

    /// Ends the flight in `slot` and hands its waiters over.
    pub fn remove(&mut self, slot: u16, mut hand: impl FnMut(W)) {
        self.unlink(slot);
        let flight = &mut self.slots[usize::from(slot)];
        self.waiting -= flight.waiters.len();
        for (waiter, place) in flight.waiters.drain(..) {
            if place != NONE {
                self.clients[usize::from(place)] -= 1;
            }
            hand(waiter);
        }
        flight.end();
        self.free.push(slot);
        self.used -= 1;
    }

    fn unlink(&mut self, slot: u16) {
        let flight = self.get(slot);
        if flight.purpose != Purpose::Question {
            return;
        }
        let (bucket, next) = (bucket(flight.hash), flight.next);
        if self.heads[bucket] == slot {
            self.heads[bucket] = next;
            return;
        }
        let mut at = self.heads[bucket];
        while self.get(at).next != slot {
            at = self.get(at).next;
        }
        self.get_mut(at).next = next;
    }

    fn place(&self, client: IpAddr) -> u16 {
        let hash = match client {
            IpAddr::V4(address) => self.hasher.hash_one(address),
            // One IPv6 client has a /64.
            IpAddr::V6(address) => self.hasher.hash_one(&address.segments()[..4]),
        };
        (hash as usize % CLIENT_PLACES) as u16
    }
}

impl<W> Flight<W> {
    fn free() -> Self {
        Self {
            generation: 0,
            state: State::Free,
            purpose: Purpose::Question,
            key: Vec::new(),
            hash: 0,
            next: NONE,
            candidates: Arc::new([]),
            is_beyond: false,
            tries: [0; CANDIDATES_MAX],
            sends: 0,
            query: Vec::new(),
            id: 0,
            deadline: Moment::default(),
            plain: false,
            own_socket: false,
            stream: None,
            suspected: false,
            other_case: false,
            failure: None,
            refusals: 0,
            partial: Vec::new(),
            waits_for: None,
            links: 0,
            waiters: Vec::new(),
        }
    }

    fn begin(&mut self, key: &[u8], purpose: Purpose) {
        self.generation = self.generation.wrapping_add(1);
        self.state = State::Ready;
        self.purpose = purpose;
        self.key.extend_from_slice(key);
        self.next = NONE;
        self.is_beyond = false;
        self.tries = [0; CANDIDATES_MAX];
        self.sends = 0;
        self.plain = false;
        self.own_socket = false;
        self.stream = None;
        self.suspected = false;
        self.other_case = false;
        self.failure = None;
        self.refusals = 0;
        self.waits_for = None;
        self.links = 0;
    }

    /// Asks `candidates` from now on, none of which was asked yet.
    pub fn start_over(&mut self, candidates: Arc<[u16]>) {
        self.state = State::Ready;
        self.candidates = candidates;
        self.is_beyond = true;
        self.tries = [0; CANDIDATES_MAX];
        self.sends = 0;
        self.failure = None;
        self.refusals = 0;
    }

    fn end(&mut self) {
        self.state = State::Free;
        self.key.clear();
        self.partial = Vec::new();
        if self.waiters.capacity() > WAITERS_KEPT {
            self.waiters = Vec::new();
        }
    }

    /// What is asked.
    pub fn question(&self) -> Question<'_> {
        read_key(&self.key)
    }

    /// Where the question ends in the query.
    pub fn question_end(&self) -> usize {
        shared::wire::HEADER_LEN + self.key.len() - 1
    }
}

fn bucket(hash: u64) -> usize {
    hash as usize % BUCKETS
}

/// A candidate that is not asked again.
pub(super) const SPENT: u8 = u8::MAX;
/// Servers of one group that a flight considers.
pub const CANDIDATES_MAX: usize = 16;
/// Flights in the air; a power of two, because the lower bits of an ID name the slot.
pub const FLIGHTS_MAX: usize = 4_096;
/// Waiters of one question: what a slow answer can set free at once is bounded (DNSBomb).
const WAITERS_MAX: usize = 1_024;
/// Waiters in all: about 16 MiB of queries.
const WAITING_MAX: usize = 65_536;
/// Queries of one client address that may wait however many others do.
const CLIENT_MIN: u16 = 256;
/// Places among which client addresses are spread.
const CLIENT_PLACES: usize = 8_192;
/// Room for waiters that a free slot keeps.
const WAITERS_KEPT: usize = 8;
const BUCKETS: usize = 2 * FLIGHTS_MAX;
const NONE: u16 = u16::MAX;
const CROWDED: Failure =
    Failure::servfail(ErrorCode::Other, "too many clients wait for this question");
const GREEDY: Failure = Failure::servfail(ErrorCode::Other, "too many queries of this client wait");

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many questions each of `clients` waits, who ask in turn until all are refused.
    fn shares(clients: u8) -> Vec<usize> {
        let mut table = Table::new();
        let mut shares = vec![0; usize::from(clients)];
        for number in 0_u32.. {
            let mut refused = 0;
            for client in 0..clients {
                let key = [&number.to_be_bytes()[..], &[client]].concat();
                let address = IpAddr::from([10, 0, 0, client]);
                if table.admit(address).is_err() {
                    refused += 1;
                    continue;
                }
                let Some(slot) = table.insert(&key, Purpose::Question, FLIGHTS_MAX) else {
                    return shares;
                };
                assert!(table.attach(slot, Some(address), ()).is_ok(), "it was admitted");
                shares[usize::from(client)] += 1;
            }
            if refused == clients {
                break;
            }
        }
        shares
    }

    #[test]
    fn a_client_alone_may_ask_much_and_many_leave_room() {
        let check = |clients: u8, each: usize| {
            let shares = shares(clients);
            let near = |&share: &usize| share.abs_diff(each) <= 1;
            assert!(shares.iter().all(near), "{clients} clients: {shares:?}");
        };
        check(1, FLIGHTS_MAX / 5);
        check(4, FLIGHTS_MAX / 8);
        check(12, 256);
    }
}
