//! The cache: a bounded, segmented LRU of replies in wire form, in shards of their own mutex each.
//!
//! Core, but for the mutex of a shard, which is the program's one seam: reading an LRU moves the
//! entry. `now` is passed in. A hit allocates nothing and decodes nothing.
//!
//! ```text
//! question ─ hashed once ─▶ shard ─┬─ positive ─┬─ probation   new
//!                                  │            └─ protected   asked for again
//!                                  └─ negative ─── the same; a quarter at most where answers
//!                                                  want the room
//! name changed ──▶ table of changes: entries that depend on the name are void
//! ```

mod changed;
mod entry;
mod key;
mod part;
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
use shard::{Asked, Shard};

/// How large the cache may grow, and how long what has expired may still be of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Entries; 0 turns the cache off.
    pub entries: usize,
    /// Bytes, as [`Cache::bytes`] counts them.
    pub bytes: usize,
    /// Seconds after expiry for which an entry is kept (RFC 8767).
    pub stale_secs: u32,
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The reply is written.
    Hit,
    /// The reply is written, and the entry, often asked for, is in the last tenth of its time: ask
    /// for it anew. Said once for each time it is stored.
    Due,
    /// The reply is written from an expired entry: to renew it failed a moment ago, and is not to
    /// be tried again yet.
    Stale,
    /// Nothing is written. There is an entry, expired for less than [`Bounds::stale_secs`]:
    /// [`Cache::get_stale`] writes it.
    Expired,
    /// Nothing.
    Miss,
}

/// What is known of one entry, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Seconds since it was stored.
    pub age_secs: u32,
    /// Seconds until it expires; negative when it has.
    pub remaining_secs: i64,
    /// Its response code.
    pub rcode: u16,
    /// Records in it.
    pub records: usize,
}

/// How long an answer is stored and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Seconds until it expires; 0 means that it must not be stored.
    pub lifetime_secs: u32,
    /// [`Cache::version`] when it was first asked for: later changes void it.
    pub seen: u64,
    /// The time it is stored.
    pub now: Moment,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    /// The response code.
    pub code: u16,
    /// The server that caused it: the failure ends as soon as that server answers.
    pub blame: Blame,
    /// The names, in lower-case wire form, with whose records the failure ends.
    pub names: &'a [Box<[u8]>],
}

/// How the cache has changed, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries stored, replacements included.
    pub insertions: u64,
    /// Entries that gave way before they expired.
    pub evictions: u64,
}

/// The cache. Shared by reference; each shard has a lock held for the time of a copy.
#[derive(Debug)]
pub struct Cache {
    shards: Box<[Slot]>,
    changed: Changed,
    seed: RandomState,
    bounds: Bounds,
    too_large: AtomicU64,
}

/// A shard on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Slot(Mutex<Shard>);

impl Cache {
    /// An empty cache.
    pub fn new(bounds: Bounds) -> Self {
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
        Self { shards, changed, seed, bounds, too_large: AtomicU64::new(0) }
    }

    /// Its bounds.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Answers `query` from the cache where a fresh entry does, or one that cannot be renewed now.
    pub fn get(&self, query: &Query<'_>, now: Moment, reply: &mut Reply<'_>) -> Lookup {
        let mut key = KeyBuffer::new();
        key.write(&Question::of(query), &self.seed);
        let asked = Asked { key: &key, query, now, changed: &self.changed };
        self.shard(key.hash).lock().get(&asked, reply)
    }

    /// Answers `query` from the cache even with what has expired, its TTLs `ttl` seconds at most
    /// then (RFC 8767 section 4): the response code, or nothing where there is nothing.
    pub fn get_stale(
        &self,
        query: &Query<'_>,
        now: Moment,
        ttl: u32,
        reply: &mut Reply<'_>,
    ) -> Option<u16> {
        let mut key = KeyBuffer::new();
        key.write(&Question::of(query), &self.seed);
        let asked = Asked { key: &key, query, now, changed: &self.changed };
        self.shard(key.hash).lock().get_stale(&asked, ttl, reply)
    }

    /// Stores `entry` as the answer to `question` for `lifetime_secs` seconds from `now`, as
    /// [`Cache::insert_as_of`] does with what is known now.
    pub fn insert(&self, question: &Question<'_>, entry: &Entry, lifetime_secs: u32, now: Moment) {
        self.insert_as_of(question, entry, Kept { lifetime_secs, seen: self.version(), now });
    }

    /// Stores `entry` as the answer to `question`, in place of every earlier answer. An answer that
    /// must not be stored, because its lifetime is zero or because it is too large, only removes
    /// the earlier one (RFC 8767 section 4: a newer answer replaces what is stored).
    ///
    /// An answer that was asked for before the stored one and that follows changes is dropped.
    pub fn insert_as_of(&self, question: &Question<'_>, entry: &Entry, kept: Kept) {
        if self.bounds.entries == 0 {
            return;
        }
        let mut key = KeyBuffer::new();
        key.write(question, &self.seed);
        let mut shard = self.shard(key.hash).lock();
        let too_large = entry.len() > shard.room() / SHARD_PART;
        self.too_large.fetch_add(u64::from(too_large), Ordering::Relaxed);
        if too_large || kept.lifetime_secs == 0 {
            shard.supersede(&key, kept.seen);
        } else {
            let places = self.places(&entry.names);
            shard.insert(&key, entry, &places, kept);
        }
    }

    /// Notes that `question` could not be answered. An expired answer that may still be served is
    /// not renewed for a while. Without one the failure itself is stored for that while:
    /// [`crate::lifetime::failure`].
    pub fn fail(&self, question: &Question<'_>, failed: &Failed<'_>, now: Moment) {
        if self.bounds.entries == 0 {
            return;
        }
        let mut key = KeyBuffer::new();
        key.write(question, &self.seed);
        let places = self.places(failed.names);
        self.shard(key.hash).lock().fail(&key, failed, &places, (&self.changed, now));
    }

    /// Has the expired answer to `question` served without asking for it anew until `until`.
    pub fn postpone(&self, question: &Question<'_>, until: Moment) {
        let mut key = KeyBuffer::new();
        key.write(question, &self.seed);
        self.shard(key.hash).lock().postpone(&key, until);
    }

    /// Ends every failure that was blamed on `server`: it answers again.
    pub fn recover(&self, server: Blame, now: Moment) {
        self.changed.recover(server, now);
    }

    /// Returns how many changes of names there have been: what an answer that is asked for now is
    /// made of.
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

    /// Makes every entry that follows changes expire: each name may have changed. Until they are
    /// renewed they are of use as expired answers.
    pub fn flush(&self) {
        self.changed.flush();
    }

    /// Returns how many answers were passed on and not stored because they are too large.
    pub fn too_large(&self) -> u64 {
        self.too_large.load(Ordering::Relaxed)
    }

    /// Drops the entry for `question`.
    pub fn remove(&self, question: &Question<'_>) {
        let mut key = KeyBuffer::new();
        key.write(question, &self.seed);
        self.shard(key.hash).lock().remove(key.bytes());
    }

    /// Voids every entry that follows one of `names`, in wire form and lower case, or a name below
    /// one: all types asked of it, and aliases that lead to it. Costs a store for each name.
    pub fn invalidate(&self, names: &[impl AsRef<[u8]>]) {
        for name in names {
            self.changed.note(changed::place(self.seed.hash_one(name.as_ref())));
        }
    }

    /// Drops every entry whose owner name `suffix`, in wire form and lower case, is or is above,
    /// whether it follows changes or not; the root drops all.
    pub fn remove_below(&self, suffix: &[u8]) {
        self.remove_below_any(&[suffix]);
    }

    /// The same for several suffixes, looking at each entry once.
    pub fn remove_below_any(&self, suffixes: &[impl AsRef<[u8]>]) {
        self.invalidate(suffixes);
        let known: HashSet<&[u8], RandomState> = suffixes.iter().map(AsRef::as_ref).collect();
        for shard in &self.shards {
            shard.0.lock().retain(|name| !with_ancestors(name).any(|name| known.contains(name)));
        }
    }

    /// What is known of the entry for `question`.
    pub fn state(&self, question: &Question<'_>, now: Moment) -> Option<State> {
        let mut key = KeyBuffer::new();
        key.write(question, &self.seed);
        let meta = self.shard(key.hash).lock().state(&key, &self.changed)?;
        let age_secs = meta.age(now);
        let is_flushed = meta.head.follows() && self.changed.flushed_since(meta.seen);
        let lifetime = if is_flushed { meta.lifetime.min(age_secs) } else { meta.lifetime };
        Some(State {
            age_secs,
            remaining_secs: i64::from(lifetime) - i64::from(age_secs),
            rcode: meta.head.rcode,
            records: meta.head.records(),
        })
    }

    /// Entries in it, those included that are of no use any more and have not given way yet.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().len()).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes taken, as the allocator hands them out: keys, records, list nodes and tables. Agrees
    /// with what the process grows by within a tenth, from 20,000 entries on.
    pub fn bytes(&self) -> usize {
        let shards = self.shards.iter().map(|shard| shard.0.lock().bytes()).sum::<usize>();
        shards + self.changed.bytes()
    }

    /// How it has changed so far.
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

    /// The places in the table of changes of `names` and all names above them.
    fn places(&self, names: &[Box<[u8]>]) -> Vec<u16> {
        let names = names.iter().flat_map(|name| with_ancestors(name));
        let mut places: Vec<u16> =
            names.map(|name| changed::place(self.seed.hash_one(name))).collect();
        places.sort_unstable();
        places.dedup();
        if places.len() > PLACES_MAX { vec![changed::ANY] } else { places }
    }
}

/// Below this many entries a shard's bound would be too coarse.
const SHARD_ENTRIES_MIN: usize = 128;
/// Below this many bytes likewise: a large answer is to be a small part of its shard.
const SHARD_BYTES_MIN: usize = 256 << 10;
/// More shards than threads, so that two rarely meet; many for many entries, so that a table that
/// grows is small.
const SHARDS_MAX: usize = 1_024;
/// An answer may take one part in so many of its shard: one that is larger is not worth what would
/// have to give way.
const SHARD_PART: usize = 3;
/// An entry that follows names at more places follows every change instead.
const PLACES_MAX: usize = 64;

#[cfg(test)]
mod tests;
