//! The questions under way: one query per question, found by question and by slot.
//!
//! Core. Independent of servers and time.

use std::hash::{BuildHasher, RandomState};

use shared::clock::Moment;

use super::message::{Failure, read_key};
use super::query::Asking;
use super::zones::Places;
use crate::cache::Question;
use crate::normalise::Answer;

/// A question under way, with the phase of its query.
#[derive(Debug)]
pub struct Query<W> {
    /// Counts the queries that had this slot, so that a late event of an earlier one is recognised.
    generation: u32,
    pub(super) phase: Phase,
    /// The question, as [`write_key`](super::message::write_key) writes it; empty in a free slot.
    pub(super) key: Vec<u8>,
    hash: u64,
    next: u16,
    is_found: bool,
    /// Where it comes from.
    pub origin: Origin,
    /// The message ID for servers that share a socket: its lower bits are the slot.
    pub(super) pool_id: u16,
    /// When it is late.
    pub(super) stale_due: Moment,
    /// Whether clients should get an expired answer, if there is one.
    pub is_late: bool,
    /// How many aliases led to this question.
    pub(super) links: u8,
    /// The server whose answer ended the query.
    pub answered_by: Option<u16>,
    /// Who waits for its end.
    pub waiters: Vec<W>,
}

/// What a query is doing.
#[derive(Debug)]
pub(super) enum Phase {
    /// The slot is free.
    Free,
    /// It asks the servers of a group.
    Asking(Asking),
    /// Its `answer` ends in an alias of another route, which the query `rest` follows.
    Completing { answer: Vec<u8>, rest: Option<Ticket> },
    /// It measures or sounds a server. It has no waiters and no answer.
    Probing(Asking),
    /// It has ended; its waiters must be answered.
    Ended(End),
    /// Its end was taken.
    Taken,
}

/// How a query ended.
#[derive(Debug)]
pub enum End {
    /// With an answer. `message` is the reply, the letters of its question in lower case.
    Answered {
        /// The answer.
        answer: Box<Answer>,
        /// The reply.
        message: Vec<u8>,
    },
    /// Without one.
    Failed {
        /// The reason.
        failure: Failure,
        /// The records of a truncated reply, which a UDP client gets instead of the failure.
        cut: Option<Box<Answer>>,
    },
}

/// The origin of a question, set when it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// When it was first asked.
    pub started: Moment,
    /// [`Cache::version`](crate::cache::Cache::version) before the first query was sent.
    pub seen: u64,
    /// The edition of the routes that it follows.
    pub edition: u64,
    /// The group that is asked.
    pub group: usize,
    /// The place of the client that asked first.
    pub client: Option<u16>,
    /// The places of the zones whose tokens it took.
    pub zone: Option<Places>,
    /// Whether the rules answer clients that ask the question, so that the reply is not stored.
    pub has_rules: bool,
    /// Whether the query is sent without RD.
    pub without_recursion: bool,
}

/// A query by its slot, distinct from the queries that had the slot before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    /// Index of the slot.
    pub slot: u16,
    /// Which of the slot's queries.
    pub generation: u32,
}

/// The queries by question.
#[derive(Debug)]
pub(super) struct Table<W> {
    slots: Vec<Query<W>>,
    free: Vec<u16>,
    /// The first query of each hash bucket; the others follow by `next`.
    heads: Box<[u16]>,
    hasher: RandomState,
    used: usize,
}

impl<W> Table<W> {
    pub fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            heads: vec![NONE; BUCKETS].into(),
            hasher: RandomState::new(),
            used: 0,
        }
    }

    /// Returns how many queries are under way.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Returns the number of slots ever used: the indices below it are valid.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn get(&self, slot: u16) -> &Query<W> {
        &self.slots[usize::from(slot)]
    }

    pub fn get_mut(&mut self, slot: u16) -> &mut Query<W> {
        &mut self.slots[usize::from(slot)]
    }

    /// Returns the slot of `ticket`'s query while it is under way.
    pub fn slot(&self, ticket: Ticket) -> Option<u16> {
        let slot = self.slots.get(usize::from(ticket.slot))?;
        let is_same = slot.generation == ticket.generation && !matches!(slot.phase, Phase::Free);
        is_same.then_some(ticket.slot)
    }

    pub fn ticket(&self, slot: u16) -> Ticket {
        Ticket { slot, generation: self.get(slot).generation }
    }

    /// Returns the query for the question `key`.
    pub fn find(&self, key: &[u8]) -> Option<u16> {
        let hash = self.hasher.hash_one(key);
        let mut at = self.heads[bucket(hash)];
        while at != NONE {
            let slot = self.get(at);
            if slot.hash == hash && slot.key == key {
                return Some(at);
            }
            at = slot.next;
        }
        None
    }

    /// Takes a slot for `key`; `None` if `max` queries are under way. The query can be found by its
    /// question only if `is_found`.
    pub fn insert(&mut self, key: &[u8], is_found: bool, max: usize) -> Option<u16> {
        if self.used >= max.min(QUERIES_MAX) {
            return None;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Query::free());
            (self.slots.len() - 1) as u16
        });
        self.used += 1;
        let hash = self.hasher.hash_one(key);
        let head = self.heads[bucket(hash)];
        let slot = self.get_mut(at);
        slot.generation = slot.generation.wrapping_add(1);
        slot.key.extend_from_slice(key);
        slot.hash = hash;
        slot.is_found = is_found;
        slot.next = NONE;
        slot.links = 0;
        slot.answered_by = None;
        slot.is_late = false;
        slot.phase = Phase::Asking(Asking::default());
        if is_found {
            slot.next = head;
            self.heads[bucket(hash)] = at;
        }
        Some(at)
    }

    /// Frees `slot`. Returns its waiters.
    pub fn remove(&mut self, slot: u16) -> Vec<W> {
        self.hide(slot);
        let freed = self.get_mut(slot);
        freed.phase = Phase::Free;
        freed.key.clear();
        let waiters = std::mem::take(&mut freed.waiters);
        self.free.push(slot);
        self.used -= 1;
        waiters
    }

    /// Hides the query in `slot`, so that it cannot be found by its question: new clients must not
    /// wait for it.
    pub fn hide(&mut self, slot: u16) {
        let hidden = self.get_mut(slot);
        if !std::mem::take(&mut hidden.is_found) {
            return;
        }
        let (bucket, next) = (bucket(hidden.hash), hidden.next);
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
}

impl<W> Query<W> {
    fn free() -> Self {
        Self {
            generation: 0,
            phase: Phase::Free,
            key: Vec::new(),
            hash: 0,
            next: NONE,
            is_found: false,
            origin: Origin::default(),
            pool_id: 0,
            stale_due: Moment::default(),
            is_late: false,
            links: 0,
            answered_by: None,
            waiters: Vec::new(),
        }
    }

    /// Returns the question.
    pub fn question(&self) -> Question<'_> {
        read_key(&self.key)
    }

    /// Returns whether it still waits for an answer.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Asking(_) | Phase::Completing { .. })
    }

    /// Returns the tries while servers are asked, otherwise `None`.
    pub(super) fn asking(&self) -> Option<&Asking> {
        match &self.phase {
            Phase::Asking(asking) | Phase::Probing(asking) => Some(asking),
            _ => None,
        }
    }
}

fn bucket(hash: u64) -> usize {
    hash as usize % BUCKETS
}

/// The maximum of queries under way. Must be a power of two, because the lower bits of an ID are
/// the slot.
pub const QUERIES_MAX: usize = 4_096;
const BUCKETS: usize = 2 * QUERIES_MAX;
const NONE: u16 = u16::MAX;
