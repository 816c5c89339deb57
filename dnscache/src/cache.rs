//! The cache: a bounded, segmented LRU of replies in wire form, in shards of their own mutex each.
//!
//! Core, but for the mutex of a shard, which is the program's one seam: reading an LRU moves the entry. `now` is passed
//! in. A hit allocates nothing and decodes nothing.
//!
//! ```text
//! shard (by a seeded hash of the name)
//!   probation  asked once so far        ─ asked again before it is the oldest ─▶ protected
//!   protected  asked at least twice     ─ the oldest goes back on probation
//!   negative   denials and failures: at most a quarter while positive answers want the room
//! ```

mod entry;
mod key;

use std::collections::HashSet;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use lru::LruCache;
use parking_lot::Mutex;
use shared::clock::Moment;
use shared::wire::rcode::{NOERROR, NXDOMAIN};
use shared::wire::{Query, Reply};

pub use entry::Entry;
pub use key::Question;
use key::{Identity, Key, KeyBuffer, Probe, name_hash};

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
    /// There is an entry, expired for less than [`Bounds::stale_secs`]: [`Cache::get_stale`] writes it.
    Stale,
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

/// The cache. Shared by reference; each shard has a lock held for the time of a copy.
#[derive(Debug)]
pub struct Cache {
    shards: Box<[Mutex<Shard>]>,
    seed: RandomState,
    bounds: Bounds,
}

/// How the cache has changed, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries stored, replacements included.
    pub insertions: u64,
    /// Entries that gave way before they expired.
    pub evictions: u64,
}

impl Cache {
    /// An empty cache.
    pub fn new(bounds: Bounds) -> Self {
        let shards = (bounds.entries / ENTRIES_PER_SHARD_MIN).clamp(1, SHARDS_MAX);
        let shards = 1 << shards.ilog2();
        let shard = |index: usize| {
            let part = |whole: usize| whole / shards + usize::from(index < whole % shards);
            Mutex::new(Shard::new(part(bounds.entries), part(bounds.bytes), bounds.stale_secs))
        };
        Self { shards: (0..shards).map(shard).collect(), seed: RandomState::default(), bounds }
    }

    /// Its bounds.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Answers `query` from the cache where a fresh entry does.
    pub fn get(&self, query: &Query<'_>, now: Moment, reply: &mut Reply<'_>) -> Lookup {
        if self.bounds.entries == 0 {
            return Lookup::Miss;
        }
        let mut buffer = KeyBuffer::new();
        let key = buffer.write(&Question::of(query), &self.seed);
        let mut shard = self.shard(name_hash(key)).lock();
        let Some(slot) = shard.find(key) else { return Lookup::Miss };
        let age = slot.age(now);
        if age < slot.lifetime {
            slot.entry.emit(query, age, u32::MAX, reply);
            Lookup::Hit
        } else if age < slot.lifetime.saturating_add(self.bounds.stale_secs) {
            Lookup::Stale
        } else {
            Lookup::Miss
        }
    }

    /// Answers `query` from the cache with what has expired, its TTLs `ttl` seconds at most (RFC 8767 section 4): the
    /// response code, or nothing where there is nothing.
    pub fn get_stale(
        &self,
        query: &Query<'_>,
        now: Moment,
        ttl: u32,
        reply: &mut Reply<'_>,
    ) -> Option<u16> {
        let mut buffer = KeyBuffer::new();
        let key = buffer.write(&Question::of(query), &self.seed);
        let mut shard = self.shard(name_hash(key)).lock();
        let slot = shard.find(key)?;
        let age = slot.age(now);
        if age >= slot.lifetime.saturating_add(self.bounds.stale_secs) {
            return None;
        }
        let fresh = age < slot.lifetime;
        // Past its time every record has the same TTL: short, and not zero.
        let (age, ttl_max) = if fresh { (age, u32::MAX) } else { (0, ttl) };
        slot.entry.emit(query, age, ttl_max, reply);
        Some(slot.entry.rcode())
    }

    /// Keeps `entry` as the answer to `question` for `lifetime_secs` seconds from `now`; zero keeps nothing.
    ///
    /// A failure never takes the place of an answer that may still be served stale.
    pub fn insert(&self, question: &Question<'_>, entry: Entry, lifetime_secs: u32, now: Moment) {
        let too_large = entry.len() > ENTRY_LEN_MAX || entry.records() > ENTRY_RECORDS_MAX;
        if lifetime_secs == 0 || self.bounds.entries == 0 || too_large {
            return;
        }
        let mut buffer = KeyBuffer::new();
        let key = buffer.write(question, &self.seed);
        let slot = Slot { entry, stored: secs(now), lifetime: lifetime_secs, asked: false };
        self.shard(name_hash(key)).lock().insert(key, slot, now);
    }

    /// Drops every entry for the owner name `name`, in wire form and lower case, whatever type was asked.
    pub fn remove_name(&self, name: &[u8]) {
        let mut buffer = KeyBuffer::new();
        let mut shard = self.shard(self.seed.hash_one(name)).lock();
        if shard.is_empty() {
            return;
        }
        for qtype in KNOWN_TYPES {
            for flags in 0..4 {
                let question = Question {
                    name,
                    qtype,
                    qclass: shared::wire::class::IN,
                    dnssec_ok: flags & 1 != 0,
                    checking_disabled: flags & 2 != 0,
                };
                shard.remove(buffer.write(&question, &self.seed));
            }
        }
    }

    /// Drops every entry whose owner name `suffix`, in wire form and lower case, is or is above; the root drops all.
    pub fn remove_below(&self, suffix: &[u8]) {
        self.remove_below_any(&[suffix]);
    }

    /// The same for several suffixes at the cost of little more than one.
    pub fn remove_below_any(&self, suffixes: &[impl AsRef<[u8]>]) {
        let known: HashSet<&[u8], RandomState> = suffixes.iter().map(AsRef::as_ref).collect();
        for shard in &self.shards {
            shard.lock().remove_if(|name| match suffixes {
                [one] => is_below(name, one.as_ref()),
                _ => ancestors(name).any(|suffix| known.contains(suffix)),
            });
        }
    }

    /// What is known of the entry for `question`.
    pub fn state(&self, question: &Question<'_>, now: Moment) -> Option<State> {
        let mut buffer = KeyBuffer::new();
        let key = buffer.write(question, &self.seed);
        let mut shard = self.shard(name_hash(key)).lock();
        let slot = shard.peek(key)?;
        let age_secs = slot.age(now);
        Some(State {
            age_secs,
            remaining_secs: i64::from(slot.lifetime) - i64::from(age_secs),
            rcode: slot.entry.rcode(),
            records: slot.entry.records(),
        })
    }

    /// Entries in it, expired ones that have not given way included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes taken by the entries: keys, records, list nodes and their places in the tables.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }

    /// How it has changed so far.
    pub fn changes(&self) -> Changes {
        self.shards.iter().fold(Changes::default(), |sum, shard| {
            let shard = shard.lock().changes;
            Changes {
                insertions: sum.insertions + shard.insertions,
                evictions: sum.evictions + shard.evictions,
            }
        })
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The tables use the lower and the topmost bits.
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }
}

/// An entry with its times, in seconds since boot.
#[derive(Debug)]
struct Slot {
    entry: Entry,
    stored: u32,
    lifetime: u32,
    /// It has been asked for since it came where it is.
    asked: bool,
}

impl Slot {
    fn age(&self, now: Moment) -> u32 {
        secs(now).saturating_sub(self.stored)
    }

    fn is_spent(&self, now: Moment, stale_secs: u32) -> bool {
        self.age(now) >= self.lifetime.saturating_add(stale_secs)
    }
}

fn secs(now: Moment) -> u32 {
    u32::try_from(now.secs()).unwrap_or(u32::MAX)
}

type Part = LruCache<Key, Slot, Identity>;

#[derive(Debug)]
struct Shard {
    probation: Part,
    protected: Part,
    negative: Part,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    stale_secs: u32,
    changes: Changes,
}

impl Shard {
    fn new(entries_max: usize, bytes_max: usize, stale_secs: u32) -> Self {
        let part = || LruCache::unbounded_with_hasher(Identity);
        Self {
            probation: part(),
            protected: part(),
            negative: part(),
            bytes: 0,
            entries_max,
            bytes_max,
            stale_secs,
            changes: Changes::default(),
        }
    }

    fn len(&self) -> usize {
        self.probation.len() + self.protected.len() + self.negative.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry at `key`, now the most recently asked for.
    fn find(&mut self, key: &Probe) -> Option<&mut Slot> {
        let slot = self.part_of(key)?.get_mut(key)?;
        slot.asked = true;
        Some(slot)
    }

    /// The entry at `key`, as if nobody had looked.
    fn peek(&mut self, key: &Probe) -> Option<&Slot> {
        self.part_of(key)?.peek(key)
    }

    fn part_of(&mut self, key: &Probe) -> Option<&mut Part> {
        [&mut self.protected, &mut self.probation, &mut self.negative]
            .into_iter()
            .find(|part| part.contains(key))
    }

    fn remove(&mut self, key: &Probe) -> Option<Slot> {
        let (key, slot) = self.part_of(key)?.pop_entry(key)?;
        self.bytes -= cost(&key, &slot.entry);
        Some(slot)
    }

    fn insert(&mut self, key: &Probe, mut slot: Slot, now: Moment) {
        let before = self.remove(key);
        if let Some(before) = before {
            let keeps = !before.entry.is_negative() || before.entry.rcode() == NXDOMAIN;
            let fails = !matches!(slot.entry.rcode(), NOERROR | NXDOMAIN);
            if fails && keeps && !before.is_spent(now, self.stale_secs) {
                slot = before;
            } else {
                slot.asked = before.asked;
            }
        }
        let key = Key::from(key);
        self.bytes += cost(&key, &slot.entry);
        self.changes.insertions += 1;
        match slot.entry.is_negative() {
            true => self.negative.put(key, slot),
            false => self.probation.put(key, slot),
        };
        while self.len() > self.entries_max || self.bytes > self.bytes_max {
            self.evict(now);
        }
    }

    /// Makes one entry give way: what has expired first, then a denial where they have more than their share, then what
    /// was asked for once only.
    fn evict(&mut self, now: Moment) {
        for part in [&mut self.negative, &mut self.probation, &mut self.protected] {
            if part.peek_lru().is_some_and(|(_, slot)| slot.is_spent(now, 0)) {
                let (key, slot) = part.pop_lru().expect("it was just seen");
                self.bytes -= cost(&key, &slot.entry);
                return;
            }
        }
        let share = (self.entries_max / NEGATIVE_PART).max(1);
        let positive = self.probation.len() + self.protected.len();
        let victim = if self.negative.len() > share || positive == 0 {
            self.negative.pop_lru()
        } else {
            self.second_chances();
            self.probation.pop_lru().or_else(|| self.protected.pop_lru())
        };
        if let Some((key, slot)) = victim {
            self.bytes -= cost(&key, &slot.entry);
            self.changes.evictions += 1;
        }
    }

    /// Moves what was asked for again out of the way of eviction: from the end of probation to protected, and what
    /// protected has no room for back. Each move clears a mark, so this ends.
    fn second_chances(&mut self) {
        let protected_max = (self.entries_max - self.negative.len().min(self.entries_max)) / 5 * 4;
        while self.probation.peek_lru().is_some_and(|(_, slot)| slot.asked) {
            let (key, mut slot) = self.probation.pop_lru().expect("it was just seen");
            slot.asked = false;
            self.protected.put(key, slot);
            if self.protected.len() > protected_max {
                let (key, mut slot) = self.protected.pop_lru().expect("it was just filled");
                slot.asked = false;
                self.probation.put(key, slot);
            }
        }
    }

    fn remove_if(&mut self, goes: impl Fn(&[u8]) -> bool) {
        let Self { probation, protected, negative, bytes, .. } = self;
        for part in [probation, protected, negative] {
            part.retain(|key, slot| {
                let keep = !goes(key.name());
                if !keep {
                    *bytes -= cost(key, &slot.entry);
                }
                keep
            });
        }
    }
}

/// `name` and every name above it, the root last, all in wire form.
fn ancestors(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(name), |name| {
        let (&length, rest) = name.split_first()?;
        if length == 0 { None } else { rest.get(usize::from(length)..) }
    })
}

/// Whether `name` is `suffix` or below it, both in wire form and lower case.
pub fn is_below(name: &[u8], suffix: &[u8]) -> bool {
    let Some(at) = name.len().checked_sub(suffix.len()) else { return false };
    let mut start = 0;
    while start < at {
        start += 1 + usize::from(name[start]);
    }
    start == at && name[at..] == *suffix
}

/// Bytes an entry takes: its two allocations, the list node, and its place in a table filled to seven eighths at most
/// and half of that after it has grown.
fn cost(key: &Key, entry: &Entry) -> usize {
    let allocated = |len: usize| (len + 8).next_multiple_of(16).max(32);
    let node = size_of::<Key>() + size_of::<Slot>() + 2 * size_of::<usize>();
    let place = (2 * size_of::<usize>() + 1) * 3 / 2;
    allocated(key.len()) + allocated(entry.len()) + allocated(node) + place
}

/// Below this many entries a shard the bound would be too coarse.
const ENTRIES_PER_SHARD_MIN: usize = 128;
/// More shards than threads, so that two rarely meet.
const SHARDS_MAX: usize = 64;
/// Denials get one entry in so many where positive answers want the room.
const NEGATIVE_PART: usize = 4;
/// Larger answers are passed on and not kept: one of them is worth a hundred others.
const ENTRY_LEN_MAX: usize = 16 << 10;
/// Answers with more records likewise.
const ENTRY_RECORDS_MAX: usize = 100;
/// The types that a change of an owner name's records can concern.
const KNOWN_TYPES: [u16; 14] = [1, 28, 33, 12, 5, 16, 6, 2, 15, 65, 64, 255, 99, 35];

#[cfg(test)]
mod tests;
