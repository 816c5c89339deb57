//! One shard of the cache: look-ups, insertions and evictions.
//!
//! Core. The caller passes the time and holds the lock.

use std::time::Duration;

use shared::clock::Moment;
use shared::wire::{ErrorCode, Query, Reply, rcode};

use super::changed::{Blame, Changed};
use super::entry::{Ages, Entry};
use super::key::{KeyBuffer, name_of};
use super::part::{Ghosts, Meta, Part, Stored};
use super::saved;
use super::{Bounds, Changes, Failed, Kept, Lookup, Policy};
use crate::lifetime;

/// A shard of the cache.
#[derive(Debug)]
pub(super) struct Shard {
    positive: Part,
    /// Denials and failures.
    negative: Part,
    ghosts: Ghosts,
    bounds: Bounds,
    pub changes: Changes,
}

/// A look-up: the key, the query, the time and the table of changes.
pub(super) struct Asked<'a, 'q> {
    pub key: &'a KeyBuffer,
    pub query: &'a Query<'q>,
    pub now: Moment,
    pub changed: &'a Changed,
    pub policy: Policy,
}

impl Shard {
    /// Returns an empty shard within `bounds`.
    pub fn new(bounds: Bounds) -> Self {
        let entries = bounds.entries.min(bounds.bytes / ENTRY_BYTES_TYPICAL);
        let ghosts = Ghosts::new(entries);
        let (positive, negative) = (Part::new(entries), Part::new(entries));
        Self { positive, negative, ghosts, bounds, changes: Changes::default() }
    }

    /// Returns how many bytes its entries can take.
    pub fn room(&self) -> usize {
        self.bounds.bytes
    }

    pub fn len(&self) -> usize {
        self.positive.len() + self.negative.len()
    }

    /// Returns the bytes of its entries and of its ghosts.
    pub fn bytes(&self) -> usize {
        self.positive.bytes + self.negative.bytes + 2 * Part::EMPTY_BYTES + self.ghosts.bytes()
    }

    /// Answers from the entry for the question, if that is possible now.
    pub fn get(&mut self, asked: &Asked<'_, '_>, reply: &mut Reply<'_>) -> Lookup {
        let stale_secs = self.bounds.stale_secs;
        let found = self.touch(asked.key.bytes(), |stored, meta| {
            answer(asked, stored, meta, stale_secs, reply)
        });
        match found {
            Some(Some(lookup)) => lookup,
            Some(None) => {
                self.remove(asked.key.bytes());
                Lookup::Miss
            }
            None => Lookup::Miss,
        }
    }

    /// Answers from the entry for the question even if it has expired. Returns the response code.
    pub fn get_stale(&mut self, asked: &Asked<'_, '_>, reply: &mut Reply<'_>) -> Option<u16> {
        let stale_secs = self.bounds.stale_secs;
        self.touch(asked.key.bytes(), |stored, meta| {
            let age = meta.age(asked.now);
            if is_void(stored, meta, asked.changed) || is_spent(meta, age, stale_secs) {
                return None;
            }
            let expired = age >= meta.lifetime || is_flushed(meta, asked.changed);
            let policy = asked.policy;
            let ages = if expired { Ages::stale(meta, policy) } else { Ages::fresh(age, policy) };
            meta.head.emit(data(stored), asked.query, ages, reply);
            Some(meta.head.rcode)
        })?
    }

    /// Returns the state of the entry at `key`, unless it is void.
    pub fn state(&mut self, key: &KeyBuffer, changed: &Changed) -> Option<Meta> {
        self.touch(key.bytes(), |stored, meta| (!is_void(stored, meta, changed)).then_some(*meta))?
    }

    /// Stores `entry`, whose names have `places`, unless the stored answer was asked for later.
    pub fn insert(&mut self, key: &KeyBuffer, entry: &Entry, places: &[u16], kept: Kept) {
        if self.is_newer(key, kept.seen) {
            return;
        }
        let meta = Meta {
            head: entry.head,
            seen: kept.seen,
            stored: kept.now,
            retry: kept.now,
            lifetime: kept.lifetime_secs,
            failures: 0,
            blame: Blame::NONE,
            hits: 0,
            renewing: false,
        };
        self.put(key, entry, places, meta);
    }

    /// Removes the entry at `key`, unless it was asked for after there were `seen` changes.
    pub fn supersede(&mut self, key: &KeyBuffer, seen: u64) {
        if !self.is_newer(key, seen) {
            self.remove(key.bytes());
        }
    }

    /// Returns whether the entry at `key` follows changes and has seen more of them than `seen`.
    fn is_newer(&mut self, key: &KeyBuffer, seen: u64) -> bool {
        let is_newer =
            |meta: &mut Meta| meta.head.follows() && !meta.head.is_failure() && meta.seen > seen;
        self.peek_mut(key.bytes()).is_some_and(is_newer)
    }

    /// Notes that the question could not be answered. If there is an expired answer that can still
    /// be served, it is kept and not renewed for a while; otherwise the failure is stored for that
    /// while.
    pub fn fail(
        &mut self,
        key: &KeyBuffer,
        failed: &Failed<'_>,
        places: &[u16],
        (changed, now): (&Changed, Moment),
    ) {
        let stale_secs = self.bounds.stale_secs;
        let void = self.touch(key.bytes(), |stored, meta| is_void(stored, meta, changed));
        let before = self.peek_mut(key.bytes()).filter(|_| void == Some(false));
        let failures = before.as_ref().map_or(0, |meta| meta.failures).saturating_add(1);
        let pause = lifetime::failure(failures.into());
        if let Some(meta) = before
            && !meta.head.is_failure()
            && !is_spent(meta, meta.age(now), stale_secs)
        {
            meta.failures = failures;
            meta.blame = failed.blame;
            meta.retry = now + pause;
            meta.renewing = false;
            return;
        }
        let mut entry = Entry::failure(failed.code);
        if !failed.names.is_empty() {
            entry = entry.following(Vec::new());
        }
        let meta = Meta {
            head: entry.head,
            seen: changed.latest(),
            stored: now,
            retry: now,
            lifetime: pause.as_secs() as u32,
            failures,
            blame: failed.blame,
            hits: 0,
            renewing: false,
        };
        self.put(key, &entry, places, meta);
    }

    /// Returns the entries that can be used, as bytes.
    pub fn save(&self, changed: &Changed, now: Moment) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (stored, meta) in self.negative.entries().chain(self.positive.entries()) {
            let is_spent = is_spent(meta, meta.age(now), self.bounds.stale_secs);
            if !is_spent && !meta.head.is_failure() && !is_void(stored, meta, changed) {
                let lifetime = match is_flushed(meta, changed) {
                    true => meta.lifetime.min(meta.age(now)),
                    false => meta.lifetime,
                };
                saved::put(&mut bytes, stored, &Meta { lifetime, ..*meta }, now);
            }
        }
        bytes
    }

    /// Stores `entry`, whose names have `places`, unless there is a fresh one.
    pub fn restore(
        &mut self,
        key: &KeyBuffer,
        entry: &Entry,
        places: &[u16],
        (meta, now): (Meta, Moment),
    ) {
        if self.peek_mut(key.bytes()).is_none_or(|before| before.is_expired(now)) {
            self.put(key, entry, places, meta);
        }
    }

    /// Keeps the answer with records at `key`, if there is one that can still be served, instead
    /// of a denial with the lifetime of `kept`. Returns whether it does.
    pub fn keep_positive(&mut self, key: &KeyBuffer, changed: &Changed, kept: Kept) -> bool {
        let stale_secs = self.bounds.stale_secs;
        let void = self.touch(key.bytes(), |stored, meta| is_void(stored, meta, changed));
        let meta = self.peek_mut(key.bytes()).filter(|_| void == Some(false));
        let is_kept = |meta: &&mut Meta| {
            !meta.head.is_negative() && !is_spent(meta, meta.age(kept.now), stale_secs)
        };
        let Some(meta) = meta.filter(is_kept) else { return false };
        meta.blame = Blame::NONE;
        meta.retry = kept.now + Duration::from_secs(kept.lifetime_secs.into());
        meta.renewing = false;
        true
    }

    /// Lets the expired answer at `key` be served without renewal until `until`.
    pub fn postpone(&mut self, key: &KeyBuffer, until: Moment) {
        if let Some(meta) = self.peek_mut(key.bytes()) {
            meta.blame = Blame::NONE;
            meta.retry = meta.retry.max(until);
        }
    }

    fn put(&mut self, key: &KeyBuffer, entry: &Entry, places: &[u16], mut meta: Meta) {
        let now = meta.stored;
        let is_protected = match self.remove(key.bytes()) {
            Some((before, is_protected)) => {
                meta.hits = before.hits.min(RENEWAL_HITS);
                is_protected
            }
            None => self.ghosts.take(key.hash),
        };
        let part = if entry.is_negative() { &mut self.negative } else { &mut self.positive };
        part.insert(store(key, entry, places), meta, is_protected);
        self.changes.insertions += 1;
        while self.len() > self.bounds.entries || self.bytes() > self.bounds.bytes {
            self.evict(now);
        }
    }

    /// Removes the entries for whose names `keep` returns `false`.
    pub fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        self.positive.retain(|key| keep(name_of(key)));
        self.negative.retain(|key| keep(name_of(key)));
    }

    fn touch<R>(&mut self, key: &[u8], mut look: impl FnMut(&Stored, &mut Meta) -> R) -> Option<R> {
        self.positive.touch(key, &mut look).or_else(|| self.negative.touch(key, &mut look))
    }

    fn peek_mut(&mut self, key: &[u8]) -> Option<&mut Meta> {
        self.positive.peek_mut(key).or_else(|| self.negative.peek_mut(key))
    }

    /// Removes the entry at `key`. Returns its state and whether it was protected.
    pub fn remove(&mut self, key: &[u8]) -> Option<(Meta, bool)> {
        self.positive.remove(key).or_else(|| self.negative.remove(key))
    }

    /// Evicts one entry: a denial if denials exceed their share, otherwise an answer.
    fn evict(&mut self, now: Moment) {
        let Self { positive, negative, ghosts, bounds, .. } = self;
        let share = (bounds.entries / NEGATIVE_PART).max(1);
        let is_over = negative.len() > share || negative.bytes > bounds.bytes / NEGATIVE_PART;
        let evicted = if is_over || positive.len() == 0 {
            negative.evict(share * PROTECTED_TENTHS / 10, ghosts, now)
        } else {
            let room = bounds.entries - negative.len().min(bounds.entries);
            let room = room.min(positive.len());
            positive.evict(room * PROTECTED_TENTHS / 10, ghosts, now)
        };
        self.changes.evictions += u64::from(evicted == Some(true));
    }
}

/// Answers from an entry that was found; `None` if the entry can no longer be used.
fn answer(
    asked: &Asked<'_, '_>,
    stored: &Stored,
    meta: &mut Meta,
    stale_secs: u32,
    reply: &mut Reply<'_>,
) -> Option<Lookup> {
    let age = meta.age(asked.now);
    if is_void(stored, meta, asked.changed) {
        return None;
    }
    if age < meta.lifetime && !is_flushed(meta, asked.changed) {
        let ages = Ages::fresh(age, asked.policy);
        meta.head.emit(data(stored), asked.query, ages, reply);
        meta.hits = meta.hits.saturating_add(1);
        let is_due = meta.hits > RENEWAL_HITS
            && !meta.renewing
            && meta.lifetime - age <= (meta.lifetime / 10).max(1)
            && !meta.head.is_failure()
            && !is_postponed(meta, asked);
        meta.renewing |= is_due;
        return Some(if is_due { Lookup::Due } else { Lookup::Hit });
    }
    if is_spent(meta, age, stale_secs) {
        return None;
    }
    let is_postponed = is_postponed(meta, asked);
    if !is_postponed && meta.head.is_failure() {
        return Some(Lookup::Miss);
    }
    if !is_postponed && (!asked.policy.stale_first || meta.head.follows()) {
        return Some(Lookup::Expired);
    }
    meta.head.emit(data(stored), asked.query, Ages::stale(meta, asked.policy), reply);
    let reason = match meta.head.rcode {
        rcode::NXDOMAIN => ErrorCode::StaleNxdomainAnswer,
        _ => ErrorCode::StaleAnswer,
    };
    if is_postponed {
        reply.set_error(reason, "expired, and could not be renewed a moment ago");
        return Some(Lookup::Stale);
    }
    reply.set_error(reason, "expired, and is renewed now");
    meta.blame = Blame::NONE;
    meta.retry = asked.now + RENEWAL_PAUSE;
    Some(Lookup::StaleDue)
}

/// Returns whether the entry must not be used any more: a name that it depends on has changed after
/// its answer was made, or it is a failure of a server that answers again.
#[inline]
fn is_void(stored: &Stored, meta: &Meta, changed: &Changed) -> bool {
    meta.head.ends_early()
        && (meta.head.follows()
            && places(stored, meta).any(|place| changed.since(meta.seen, place))
            || meta.head.is_failure() && changed.recovered_since(meta.blame, meta.stored))
}

/// Returns whether any name may have changed after the answer was made. The entry then counts as
/// expired.
fn is_flushed(meta: &Meta, changed: &Changed) -> bool {
    meta.head.follows() && changed.flushed_since(meta.seen)
}

/// Returns whether it is too early to ask for the entry anew.
fn is_postponed(meta: &Meta, asked: &Asked<'_, '_>) -> bool {
    let failed = meta.retry - lifetime::failure(meta.failures.into());
    asked.now < meta.retry && !asked.changed.recovered_since(meta.blame, failed)
}

/// Returns whether the entry can no longer be used, not even as an expired answer. A failure is
/// remembered for twice its lifetime, so that the next failure is stored for longer.
fn is_spent(meta: &Meta, age: u32, stale_secs: u32) -> bool {
    let more = if meta.head.is_failure() { meta.lifetime } else { stale_secs };
    age >= meta.lifetime.saturating_add(more)
}

/// Returns key, records, offsets of TTLs and places as one string of bytes.
fn store(key: &KeyBuffer, entry: &Entry, places: &[u16]) -> Stored {
    let mut bytes = Vec::with_capacity(key.bytes().len() + entry.data.len() + 2 * places.len());
    bytes.extend_from_slice(key.bytes());
    bytes.extend_from_slice(&entry.data);
    bytes.extend(places.iter().flat_map(|place| place.to_le_bytes()));
    Stored(bytes.into())
}

/// Returns the entry's records and the offsets of their TTLs.
fn data(stored: &Stored) -> &[u8] {
    &stored.0[stored.key().len()..]
}

/// Returns the places of the names that the entry depends on.
fn places<'a>(stored: &'a Stored, meta: &Meta) -> impl Iterator<Item = u16> + use<'a> {
    let bytes = &data(stored)[meta.head.data_len()..];
    bytes.chunks_exact(2).map(|place| u16::from_le_bytes([place[0], place[1]]))
}

impl Ages {
    fn fresh(age: u32, policy: Policy) -> Self {
        Self { age: if policy.keeps_ttl { 0 } else { age }, ttl_max: u32::MAX }
    }

    /// All records of an expired answer have the same TTL (RFC 8767 section 4).
    fn stale(meta: &Meta, policy: Policy) -> Self {
        let ttl = policy.stale_ttl;
        Self { age: 0, ttl_max: if meta.head.follows() { ttl.min(STALE_TTL_MAX) } else { ttl } }
    }
}

/// Denials can take one entry in this many if positive answers need the room.
const NEGATIVE_PART: usize = 4;
/// How many tenths of its part the protected segment can take.
const PROTECTED_TENTHS: usize = 8;
/// An entry is renewed before it expires if it was asked for more often than this.
const RENEWAL_HITS: u8 = 1;
/// Bytes of a typical entry, for the size of fixed tables.
const ENTRY_BYTES_TYPICAL: usize = 256;
/// The longest TTL of expired answers about the cluster, in seconds.
const STALE_TTL_MAX: u32 = 5;
/// The time between two renewals of an answer that is served meanwhile. Usually the first one ends
/// within it.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
