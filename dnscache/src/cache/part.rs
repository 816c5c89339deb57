//! A part of a shard: entries on probation, and entries that have shown that they are asked again.
//!
//! Core. Knows recency, not DNS: which part an entry belongs to and how large a part may grow is
//! the shard's business.
//!
//! ```text
//! new ──▶ probation ─ oldest: asked meanwhile ──▶ protected ─ too many: the oldest goes
//!             └────── oldest: not asked ──▶ goes, leaves a ghost; back soon? ──▶ protected
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

/// What is known of an entry beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub head: Head,
    /// Changes of names there had been when it was stored.
    pub seen: u64,
    pub stored: Moment,
    /// No other try to renew it before this.
    pub retry: Moment,
    /// Seconds from `stored` to its expiry.
    pub lifetime: u32,
    /// Failures in a row to renew it.
    pub failures: u8,
    /// The server that caused the last of them.
    pub blame: Blame,
    /// How often it was asked for since it came where it is, as far as that matters.
    pub hits: u8,
    /// Its renewal has been asked for.
    pub renewing: bool,
}

impl Meta {
    /// Seconds since it was stored.
    pub fn age(&self, now: Moment) -> u32 {
        u32::try_from(now.since(self.stored).as_secs()).unwrap_or(u32::MAX)
    }

    pub fn is_expired(&self, now: Moment) -> bool {
        self.age(now) >= self.lifetime
    }
}

type Segment = LruCache<Stored, Meta, Identity>;

/// The part.
#[derive(Debug)]
pub(super) struct Part {
    probation: Segment,
    protected: Segment,
    /// What its entries cost.
    pub bytes: usize,
    /// What each of them costs beside its bytes.
    overhead: usize,
}

impl Part {
    /// Bytes of a part without entries: each segment has a node at either end.
    pub const EMPTY_BYTES: usize = size_of::<Self>() + 4 * NODE_BYTES;

    /// An empty part of a shard that holds `entries` when it is full.
    pub fn new(entries: usize) -> Self {
        let segment = || LruCache::unbounded_with_hasher(Identity);
        let overhead = NODE_BYTES + table_bytes(entries) / entries.max(1);
        Self { probation: segment(), protected: segment(), bytes: 0, overhead }
    }

    pub fn len(&self) -> usize {
        self.probation.len() + self.protected.len()
    }

    /// Shows `look` the entry at `key`, from now on the most recently asked for.
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

    /// What is known of the entry at `key`, as if nobody had looked.
    pub fn peek_mut(&mut self, key: &[u8]) -> Option<&mut Meta> {
        if self.protected.contains(key) {
            return self.protected.peek_mut(key);
        }
        self.probation.peek_mut(key)
    }

    /// Takes out the entry at `key`; whether it was protected.
    pub fn remove(&mut self, key: &[u8]) -> Option<(Meta, bool)> {
        let is_protected = self.protected.contains(key);
        let segment = if is_protected { &mut self.protected } else { &mut self.probation };
        let (stored, meta) = segment.pop_entry(key)?;
        self.bytes -= cost(&stored, self.overhead);
        Some((meta, is_protected))
    }

    /// Puts in an entry whose key is not in it.
    pub fn insert(&mut self, stored: Stored, meta: Meta, is_protected: bool) {
        self.bytes += cost(&stored, self.overhead);
        let segment = if is_protected { &mut self.protected } else { &mut self.probation };
        segment.put(stored, meta);
    }

    /// Makes one entry give way: one that has expired where one is at an end, else the one that is
    /// the least likely to be asked for. Yields whether it was still fresh.
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

    /// Drops what `keep` does not keep.
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

/// Hashes of entries that were dropped without ever having been asked for again, the later one
/// where two meet.
#[derive(Debug)]
pub(super) struct Ghosts(Box<[u32]>);

impl Ghosts {
    /// Room for about `entries`.
    pub fn new(entries: usize) -> Self {
        Self(vec![0; entries.next_power_of_two()].into())
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }

    fn add(&mut self, hash: u64) {
        let (at, mark) = self.place(hash);
        self.0[at] = mark;
    }

    /// Whether `hash` was dropped of late; it is forgotten then.
    pub fn take(&mut self, hash: u64) -> bool {
        let (at, mark) = self.place(hash);
        let found = self.0[at] == mark;
        if found {
            self.0[at] = 0;
        }
        found
    }

    fn place(&self, hash: u64) -> (usize, u32) {
        // The low bits say where, the high ones who; 0 is nobody.
        (hash as usize & (self.0.len() - 1), (hash >> 32) as u32 | 1)
    }
}

/// Bytes that an entry takes: its own, as allocated, and what each costs beside them.
fn cost(stored: &Stored, overhead: usize) -> usize {
    allocated(stored.0.len()) + overhead
}

/// What the allocator hands out for `len` bytes: eight of its own, in steps of sixteen.
const fn allocated(len: usize) -> usize {
    let bytes = (len + 8).next_multiple_of(16);
    if bytes < 32 { 32 } else { bytes }
}

/// A list node of `lru`: key, value and two links.
const NODE_BYTES: usize =
    allocated(size_of::<Stored>() + size_of::<Meta>() + 2 * size_of::<usize>());
/// Bytes of the table of a segment through which `entries` pass: a pointer to the key, one to the
/// node and a control byte for each bucket. Where more than six tenths of the buckets are taken,
/// what is deleted leaves marks behind, and the table doubles.
fn table_bytes(entries: usize) -> usize {
    let buckets = (entries * 5 / 3).next_power_of_two();
    buckets * (2 * size_of::<usize>() + 1)
}

/// How many entries may change segments to make room for one: bounds the time that takes.
const CHANCES: usize = 8;
