//! A part of a shard: entries on probation, and protected entries, which were asked for again.
//!
//! Core. Depends on recency, not on DNS. The shard decides which part an entry belongs to and how
//! large a part can be.
//!
//! ```text
//! new ──▶ probation ─ oldest: asked meanwhile ──▶ protected ─ too many: the oldest is removed
//!             └────── oldest: not asked ──▶ removed, leaves a ghost; back soon? ──▶ protected
//! ```

use std::borrow::Borrow;

use lru::LruCache;
use shared::clock::Moment;

use super::changed::Blame;
use super::entry::Head;
use super::key::{Identity, hash_of, key_of};

/// The bytes of an entry in one allocation: key, records, offsets of TTLs, places of other names.
#[derive(Debug)]
pub(super) struct Stored(pub Box<[u8]>);

impl Stored {
    pub fn key(&self) -> &[u8] {
        key_of(&self.0)
    }
}

impl std::hash::Hash for Stored {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Stored {}

impl Borrow<[u8]> for Stored {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

/// The state of an entry beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub head: Head,
    /// The number of changes of names when it was stored.
    pub seen: u64,
    pub stored: Moment,
    /// When it can be renewed again at the earliest.
    pub retry: Moment,
    /// Seconds from `stored` to its expiry.
    pub lifetime: u32,
    /// Failed renewals in a row.
    pub failures: u8,
    /// The server that caused the last failure.
    pub blame: Blame,
    /// How often it was asked for in its segment; stops at 255.
    pub hits: u8,
    /// A renewal has been requested.
    pub renewing: bool,
}

impl Meta {
    /// Returns the seconds since it was stored.
    pub fn age(&self, now: Moment) -> u32 {
        u32::try_from(now.since(self.stored).as_secs()).unwrap_or(u32::MAX)
    }

    pub fn is_expired(&self, now: Moment) -> bool {
        self.age(now) >= self.lifetime
    }
}

type Segment = LruCache<Stored, Meta, Identity>;

/// A part of a shard.
#[derive(Debug)]
pub(super) struct Part {
    probation: Segment,
    protected: Segment,
    /// Bytes that its entries take.
    pub bytes: usize,
    /// Bytes that each entry takes beside its own.
    overhead: usize,
}

impl Part {
    /// Bytes of a part without entries: each segment has a node at both ends.
    pub const EMPTY_BYTES: usize = size_of::<Self>() + 4 * NODE_BYTES;

    /// Returns an empty part of a shard that holds at most `entries`.
    pub fn new(entries: usize) -> Self {
        let segment = || LruCache::unbounded_with_hasher(Identity);
        let overhead = NODE_BYTES + table_bytes(entries) / entries.max(1);
        Self { probation: segment(), protected: segment(), bytes: 0, overhead }
    }

    pub fn len(&self) -> usize {
        self.probation.len() + self.protected.len()
    }

    /// Passes the entry at `key` to `look`, and makes it the most recently used.
    pub fn touch<R>(
        &mut self,
        key: &[u8],
        look: &mut impl FnMut(&Stored, &mut Meta) -> R,
    ) -> Option<R> {
        for segment in [&mut self.protected, &mut self.probation] {
            if let Some((stored, meta)) = segment.get_key_value_mut(key) {
                return Some(look(stored, meta));
            }
        }
        None
    }

    /// Returns the state of the entry at `key` without making it the most recently used.
    pub fn peek_mut(&mut self, key: &[u8]) -> Option<&mut Meta> {
        if self.protected.contains(key) {
            return self.protected.peek_mut(key);
        }
        self.probation.peek_mut(key)
    }

    /// Returns the entries, the most recently used last.
    pub fn entries(&self) -> impl Iterator<Item = (&Stored, &Meta)> {
        self.probation.iter().rev().chain(self.protected.iter().rev())
    }

    /// Removes the entry at `key`. Returns its state and whether it was protected.
    pub fn remove(&mut self, key: &[u8]) -> Option<(Meta, bool)> {
        let is_protected = self.protected.contains(key);
        let segment = if is_protected { &mut self.protected } else { &mut self.probation };
        let (stored, meta) = segment.pop_entry(key)?;
        self.bytes -= cost(&stored, self.overhead);
        Some((meta, is_protected))
    }

    /// Adds an entry whose key is not in the part.
    pub fn insert(&mut self, stored: Stored, meta: Meta, is_protected: bool) {
        self.bytes += cost(&stored, self.overhead);
        let segment = if is_protected { &mut self.protected } else { &mut self.probation };
        segment.put(stored, meta);
    }

    /// Evicts one entry: an expired one if it is the oldest of a segment, otherwise the one that is
    /// the least likely to be asked for again. Returns whether it was still fresh.
    pub fn evict(
        &mut self,
        protected_max: usize,
        ghosts: &mut Ghosts,
        now: Moment,
    ) -> Option<bool> {
        for segment in [&mut self.probation, &mut self.protected] {
            if segment.peek_lru().is_some_and(|(_, meta)| meta.is_expired(now)) {
                let (stored, _) = segment.pop_lru()?;
                self.bytes -= cost(&stored, self.overhead);
                return Some(false);
            }
        }
        for _ in 0..CHANCES {
            if self.protected.len() > protected_max
                || self.probation.peek_lru().is_none_or(|(_, meta)| meta.hits == 0)
            {
                break;
            }
            let (stored, mut meta) = self.probation.pop_lru()?;
            meta.hits = 0;
            self.protected.put(stored, meta);
        }
        let (stored, _) = if self.protected.len() > protected_max || self.probation.is_empty() {
            self.protected.pop_lru()?
        } else {
            let victim = self.probation.pop_lru()?;
            ghosts.add(hash_of(victim.0.key()));
            victim
        };
        self.bytes -= cost(&stored, self.overhead);
        Some(true)
    }

    /// Removes the entries for which `keep` returns `false`.
    pub fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let (mut dropped, overhead) = (0, self.overhead);
        for segment in [&mut self.probation, &mut self.protected] {
            segment.retain(|stored, _| {
                let keeps = keep(stored.key());
                dropped += if keeps { 0 } else { cost(stored, overhead) };
                keeps
            });
        }
        self.bytes -= dropped;
    }
}

/// Hashes of entries that were evicted before they were asked for again. If two hashes collide, the
/// later one is kept.
#[derive(Debug)]
pub(super) struct Ghosts(Box<[u32]>);

impl Ghosts {
    /// Returns a table for about `entries` hashes.
    pub fn new(entries: usize) -> Self {
        Self(vec![0; entries.next_power_of_two()].into())
    }

    /// Returns the bytes of the table.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }

    fn add(&mut self, hash: u64) {
        let (at, mark) = self.place(hash);
        self.0[at] = mark;
    }

    /// Returns whether the entry with `hash` was evicted lately, and forgets it.
    pub fn take(&mut self, hash: u64) -> bool {
        let (at, mark) = self.place(hash);
        let found = self.0[at] == mark;
        if found {
            self.0[at] = 0;
        }
        found
    }

    fn place(&self, hash: u64) -> (usize, u32) {
        // The low bits select the place, the high bits identify the entry; 0 marks a free place.
        (hash as usize & (self.0.len() - 1), (hash >> 32) as u32 | 1)
    }
}

/// Returns the bytes that an entry takes: its own, as allocated, and its overhead.
fn cost(stored: &Stored, overhead: usize) -> usize {
    allocated(stored.0.len()) + overhead
}

/// Returns the bytes that the allocator uses for `len` bytes: eight of its own, in steps of
/// sixteen.
const fn allocated(len: usize) -> usize {
    let bytes = (len + 8).next_multiple_of(16);
    if bytes < 32 { 32 } else { bytes }
}

/// A list node of `lru`: key, value and two links.
const NODE_BYTES: usize =
    allocated(size_of::<Stored>() + size_of::<Meta>() + 2 * size_of::<usize>());
/// Returns the bytes of a segment's table for `entries`: a pointer to the key, one to the node and
/// a control byte per bucket. If more than six tenths of the buckets are taken, deleted entries
/// leave marks, and the table doubles.
fn table_bytes(entries: usize) -> usize {
    let buckets = (entries * 5 / 3).next_power_of_two();
    buckets * (2 * size_of::<usize>() + 1)
}

/// How many entries can be moved to the other segment to make room for one; bounds the time.
const CHANCES: usize = 8;
