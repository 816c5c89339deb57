//! The cache: a bounded, segmented LRU of replies in wire form, in shards of their own mutex each.
//!
//! Core, except for the mutex of each shard, which is the program's one seam: to read an LRU moves
//! the entry, so a hit must lock. `now` is passed in. A hit does not allocate or decode.
//!
//! ```text
//! question ─ hashed once ─▶ shard ─┬─ positive ─┬─ probation   new
//!                                  │            └─ protected   asked for again
//!                                  └─ negative ─── the same; at most a quarter if answers
//!                                                  need the room
//! name changed ──▶ table of changes: entries that depend on the name are void
//! ```

mod changed;
mod entry;
mod key;
mod part;
mod saved;
mod shard;

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use shared::clock::Moment;
use shared::wire::{Query, Reply, with_ancestors};

pub use changed::Blame;
use changed::Changed;
pub use entry::Entry;
use key::KeyBuffer;
pub use key::Question;
pub use saved::{Again, Saved};
use shard::{Asked, Shard};

/// The bounds of the cache's size, and how long expired entries can still be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Entries; 0 turns the cache off.
    pub entries: usize,
    /// Bytes, as [`Cache::bytes`] counts them.
    pub bytes: usize,
    /// Seconds after expiry for which an entry is kept (RFC 8767).
    pub stale_secs: u32,
}

/// How entries are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether replies have the TTLs with which the entry was stored, and not what is left of them.
    pub keeps_ttl: bool,
    /// The TTL of expired answers in seconds. For names of the cluster it is at most 5.
    pub stale_ttl: u32,
    /// Whether expired answers are served before their renewal ends, except for names of the
    /// cluster.
    pub stale_first: bool,
    /// Whether an expired answer with records is kept if its renewal is a denial.
    pub prefers_positive: bool,
}

impl Default for Policy {
    /// Returns the policy of RFC 8767.
    fn default() -> Self {
        Self { keeps_ttl: false, stale_ttl: 30, stale_first: false, prefers_positive: false }
    }
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The reply is written.
    Hit,
    /// The reply is written. The entry is often asked for and in the last tenth of its lifetime, so
    /// the caller should ask the upstream again. Returned once per stored entry.
    Due,
    /// The reply is written from an expired entry. A renewal failed a moment ago and must not be
    /// tried again yet.
    Stale,
    /// The same, and the caller must ask the upstream again.
    StaleDue,
    /// No reply is written. The entry expired less than [`Bounds::stale_secs`] ago, so
    /// [`Cache::get_stale`] can write it.
    Expired,
    /// The cache has no entry for the question.
    Miss,
}

/// The state of one entry, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// Seconds since it was stored.
    pub age_secs: u32,
    /// Seconds until it expires; negative if it has expired.
    pub remaining_secs: i64,
    /// Its response code.
    pub rcode: u16,
    /// Records in it.
    pub records: usize,
    /// Whether it is a denial or a failure.
    pub is_negative: bool,
}

/// How long an answer is stored, and which changes it takes into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Seconds until it expires; 0 means that it must not be stored.
    pub lifetime_secs: u32,
    /// [`Cache::version`] when the question was first asked. Later changes void the answer.
    pub seen: u64,
    /// When it is stored.
    pub now: Moment,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    /// The response code.
    pub code: u16,
    /// The server that caused it. The failure ends as soon as that server answers.
    pub blame: Blame,
    /// Names in lower-case wire form. The failure ends if records of one of them change.
    pub names: &'a [Box<[u8]>],
}

/// Counters of the cache since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries stored, replacements included.
    pub insertions: u64,
    /// Entries that were evicted before they expired.
    pub evictions: u64,
}

/// The cache, shared by reference. The lock of a shard is held while one reply is copied.
#[derive(Debug)]
pub struct Cache {
    shards: Box<[Slot]>,
    changed: Changed,
    seed: RandomState,
    bounds: Bounds,
    policy: Policy,
    too_large: AtomicU64,
}

/// A shard on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Slot(Mutex<Shard>);

impl Cache {
    /// Returns an empty cache with the default policy.
    pub fn new(bounds: Bounds) -> Self {
        Self::with_policy(bounds, Policy::default())
    }

    /// Returns an empty cache.
    pub fn with_policy(bounds: Bounds, policy: Policy) -> Self {
        let shards = (bounds.entries / SHARD_ENTRIES_MIN).min(bounds.bytes / SHARD_BYTES_MIN);
        let shards = 1 << shards.clamp(1, SHARDS_MAX).ilog2();
        let changed = Changed::new();
        let room = bounds.bytes.saturating_sub(changed.bytes());
        let shard = |index: usize| {
            let share = |whole: usize| whole / shards + usize::from(index < whole % shards);
            let (entries, bytes) = (share(bounds.entries), share(room));
            Slot(Mutex::new(Shard::new(Bounds { entries, bytes, ..bounds })))
        };
        let shards = (0..shards).map(shard).collect();
        let seed = RandomState::default();
        Self { shards, changed, seed, bounds, policy, too_large: AtomicU64::new(0) }
    }

    /// Returns its bounds.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Returns how it serves entries.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Answers `query` from a fresh entry, or from an expired one that must not be renewed yet.
    pub fn get(&self, query: &Query<'_>, now: Moment, reply: &mut Reply<'_>) -> Lookup {
        let mut key = KeyBuffer::new();
        key.write(&Question::of(query), &self.seed);
        let asked = Asked { key: &key, query, now, changed: &self.changed, policy: self.policy };
        self.shard(key.hash).lock().get(&asked, reply)
    }

    /// Answers `query` from the cache, even from an expired entry, whose TTLs are then at most
    /// [`Policy::stale_ttl`]. Returns the response code; `None` if the cache has no entry.
    pub fn get_stale(&self, query: &Query<'_>, now: Moment, reply: &mut Reply<'_>) -> Option<u16> {
        let mut key = KeyBuffer::new();
        key.write(&Question::of(query), &self.seed);
        let asked = Asked { key: &key, query, now, changed: &self.changed, policy: self.policy };
        self.shard(key.hash).lock().get_stale(&asked, reply)
    }

    /// Stores `entry` as the answer to `question` for `lifetime_secs` seconds from `now`, as
    /// [`Cache::insert_as_of`] does with the current version.
    pub fn insert(&self, question: &Question<'_>, entry: &Entry, lifetime_secs: u32, now: Moment) {
        self.insert_as_of(question, entry, Kept { lifetime_secs, seen: self.version(), now });
    }

    /// Stores `entry` as the answer to `question` and replaces any earlier answer. If the answer
    /// must not be stored, because its lifetime is zero or it is too large, the earlier one is only
    /// removed (RFC 8767 section 4: a newer answer replaces the stored one).
    ///
    /// An answer is dropped if the stored one follows changes and was asked for later.
    pub fn insert_as_of(&self, question: &Question<'_>, entry: &Entry, kept: Kept) {
        if self.bounds.entries == 0 {
            return;
        }
        let mut key = KeyBuffer::new();
        key.write(question, &self.seed);
        let mut shard = self.shard(key.hash).lock();
        if self.policy.prefers_positive
            && entry.is_negative()
            && shard.keep_positive(&key, &self.changed, kept)
        {
            return;
        }
        let too_large = entry.len() > shard.room() / SHARD_PART;
        self.too_large.fetch_add(u64::from(too_large), Ordering::Relaxed);
        if too_large || kept.lifetime_secs == 0 {
            shard.supersede(&key, kept.seen);
        } else {
            let places = self.places(&entry.names);
            shard.insert(&key, entry, &places, kept);
        }
    }

    /// Notes that `question` could not be answered. If an expired answer can still be served, it is
    /// not renewed for a while; otherwise the failure itself is stored for that while
    /// ([`crate::lifetime::failure`]).
    pub fn fail(&self, question: &Question<'_>, failed: &Failed<'_>, now: Moment) {
        if self.bounds.entries == 0 {
            return;
        }
        let mut key = KeyBuffer::new();
        key.write(question, &self.seed);
        let places = self.places(failed.names);
        self.shard(key.hash).lock().fail(&key, failed, &places, (&self.changed, now));
    }

    /// Lets the expired answer to `question` be served without a renewal until `until`.
    pub fn postpone(&self, question: &Question<'_>, until: Moment) {
        let mut key = KeyBuffer::new();
        key.write(question, &self.seed);
        self.shard(key.hash).lock().postpone(&key, until);
    }

    /// Ends every failure that was blamed on `server`, because the server answers again.
    pub fn recover(&self, server: Blame, now: Moment) {
        self.changed.recover(server, now);
    }

    /// Returns how many changes of names there have been. An answer that is asked for now takes all
    /// of them into account.
    pub fn version(&self) -> u64 {
        self.changed.latest()
    }

    /// Returns whether `name` or a name above it has changed since [`Cache::version`] was `seen`.
    pub fn has_changed(&self, name: &[u8], seen: u64) -> bool {
        let place = |name: &[u8]| changed::place(self.seed.hash_one(name));
        self.changed.latest() != seen
            && (self.changed.flushed_since(seen)
                || with_ancestors(name).any(|name| self.changed.since(seen, place(name))))
    }

    /// Makes every entry that follows changes expire, because any name may have changed. Until they
    /// are renewed, the entries can be served as expired answers.
    pub fn flush(&self) {
        self.changed.flush();
    }

    /// Returns how many answers were passed on and not stored because they are too large.
    pub fn too_large(&self) -> u64 {
        self.too_large.load(Ordering::Relaxed)
    }

    /// Removes the entry for `question`.
    pub fn remove(&self, question: &Question<'_>) {
        let mut key = KeyBuffer::new();
        key.write(question, &self.seed);
        self.shard(key.hash).lock().remove(key.bytes());
    }

    /// Voids every entry that follows one of `names`, or a name below one of them: all types, and
    /// aliases that lead to it. `names` are in lower-case wire form. Costs one store per name.
    pub fn invalidate(&self, names: &[impl AsRef<[u8]>]) {
        for name in names {
            self.changed.note(changed::place(self.seed.hash_one(name.as_ref())));
        }
    }

    /// Removes every entry whose owner name is `suffix` or a subdomain of it, even if the entry
    /// does not follow changes. `suffix` is in lower-case wire form; the root removes all entries.
    pub fn remove_below(&self, suffix: &[u8]) {
        self.remove_below_any(&[suffix]);
    }

    /// Removes the entries below any of `suffixes`, as [`Cache::remove_below`] does, in one pass.
    pub fn remove_below_any(&self, suffixes: &[impl AsRef<[u8]>]) {
        self.invalidate(suffixes);
        let known: HashSet<&[u8], RandomState> = suffixes.iter().map(AsRef::as_ref).collect();
        for shard in &self.shards {
            shard.0.lock().retain(|name| !with_ancestors(name).any(|name| known.contains(name)));
        }
    }

    /// Returns the state of the entry for `question`, or `None` if it is missing or not valid.
    pub fn state(&self, question: &Question<'_>, now: Moment) -> Option<EntryState> {
        let mut key = KeyBuffer::new();
        key.write(question, &self.seed);
        let meta = self.shard(key.hash).lock().state(&key, &self.changed)?;
        let age_secs = meta.age(now);
        let is_flushed = meta.head.follows() && self.changed.flushed_since(meta.seen);
        let lifetime = if is_flushed { meta.lifetime.min(age_secs) } else { meta.lifetime };
        Some(EntryState {
            age_secs,
            remaining_secs: i64::from(lifetime) - i64::from(age_secs),
            rcode: meta.head.rcode,
            records: meta.head.records(),
            is_negative: meta.head.is_negative(),
        })
    }

    /// Returns the number of entries, including expired and void ones that are not evicted yet.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().len()).sum()
    }

    /// Returns whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes taken, as the allocator counts them: keys, records, list nodes and tables.
    /// From 20,000 entries on this is within a tenth of the growth of the process.
    pub fn bytes(&self) -> usize {
        let shards = self.shards.iter().map(|shard| shard.0.lock().bytes()).sum::<usize>();
        shards + self.changed.bytes()
    }

    /// Returns the counters so far.
    pub fn changes(&self) -> Changes {
        self.shards.iter().fold(Changes::default(), |sum, shard| {
            let shard = shard.0.lock().changes;
            Changes {
                insertions: sum.insertions + shard.insertions,
                evictions: sum.evictions + shard.evictions,
            }
        })
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The tables use the lowest and the topmost bits.
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)].0
    }

    /// Returns the places of `names`, and of all names above them, in the table of changes.
    fn places(&self, names: &[Box<[u8]>]) -> Vec<u16> {
        let names = names.iter().flat_map(|name| with_ancestors(name));
        let mut places: Vec<u16> =
            names.map(|name| changed::place(self.seed.hash_one(name))).collect();
        places.sort_unstable();
        places.dedup();
        if places.len() > PLACES_MAX { vec![changed::ANY] } else { places }
    }
}

/// With fewer entries per shard, the bound of a shard would be too coarse.
const SHARD_ENTRIES_MIN: usize = 128;
/// The same for bytes: a large answer must be a small part of its shard.
const SHARD_BYTES_MIN: usize = 256 << 10;
/// More shards than threads, so that threads rarely wait for one another, and many shards for many
/// entries, so that a table that grows is small.
const SHARDS_MAX: usize = 1_024;
/// An answer may take at most this fraction of its shard. A larger one is not worth the entries
/// that would have to be evicted for it.
const SHARD_PART: usize = 3;
/// An entry that follows names at more places follows every change instead.
const PLACES_MAX: usize = 64;

#[cfg(test)]
mod tests;
