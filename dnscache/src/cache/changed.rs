//! When the records of which names last changed and when which servers recovered, in tables of
//! fixed size.
//!
//! Core. An entry notes how many changes there had been when its answer was made, and the places of
//! the names it depends on, each with all names above it; it is void once one of them has changed
//! since. So a change costs one store, reaches every type of a name, everything below it and every
//! alias that leads there, and needs no index of entries. Names whose hashes meet share a place,
//! which may void an entry too many and never one too few.

use std::sync::atomic::{AtomicU64, Ordering};

use shared::clock::Moment;

/// The tables.
#[derive(Debug)]
pub(super) struct Changed {
    /// Counts the changes.
    latest: AtomicU64,
    /// The number of the last change of the names of each place.
    places: Box<[AtomicU64]>,
    /// The number of the last flush: from then on any name may have changed.
    flushed: AtomicU64,
    /// When the servers of each [`Blame`] last recovered, in nanoseconds since boot.
    recovered: Box<[AtomicU64]>,
}

/// The place of a server that failures are blamed on; several servers may share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blame(u8);

impl Blame {
    /// A failure that no server caused. It ends with its time.
    pub const NONE: Self = Self(0);

    /// The place of the server whose hash is `hash`.
    pub fn new(hash: u64) -> Self {
        Self(1 + (hash % 255) as u8)
    }
}

impl Changed {
    /// No changes yet.
    pub fn new() -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            latest: AtomicU64::new(0),
            places: zeros(usize::from(ANY) + 1),
            flushed: AtomicU64::new(0),
            recovered: zeros(256),
        }
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.places) + size_of_val(&*self.recovered)
    }

    /// How many changes there were.
    pub fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// Notes a change of the names at `place`.
    pub fn note(&self, place: u16) {
        let number = self.latest.fetch_add(1, Ordering::AcqRel) + 1;
        self.places[usize::from(place)].fetch_max(number, Ordering::AcqRel);
        self.places[usize::from(ANY)].fetch_max(number, Ordering::AcqRel);
    }

    /// Notes that any name may have changed.
    pub fn flush(&self) {
        let number = self.latest.fetch_add(1, Ordering::AcqRel) + 1;
        self.flushed.fetch_max(number, Ordering::AcqRel);
    }

    /// Returns whether any name may have changed since there were `seen` changes.
    pub fn flushed_since(&self, seen: u64) -> bool {
        self.flushed.load(Ordering::Acquire) > seen
    }

    /// Notes that the server at `blame` answers again.
    pub fn recover(&self, blame: Blame, now: Moment) {
        self.recovered[usize::from(blame.0)].fetch_max(now.nanos(), Ordering::AcqRel);
    }

    /// Returns whether the server at `blame` has recovered at or after `failed`.
    pub fn recovered_since(&self, blame: Blame, failed: Moment) -> bool {
        let recovered = self.recovered[usize::from(blame.0)].load(Ordering::Acquire);
        blame != Blame::NONE && recovered >= failed.nanos()
    }

    /// Whether the names at `place` have changed since there were `seen` changes.
    pub fn since(&self, seen: u64, place: u16) -> bool {
        self.places[usize::from(place)].load(Ordering::Acquire) > seen
    }
}

/// The place of the name that `name_hash` is of.
pub(super) fn place(name_hash: u64) -> u16 {
    // The bits that neither the choice of a shard nor the tables use most.
    (name_hash >> 40) as u16 % PLACES
}

/// The place of every change: for entries that depend on too many names to list.
pub(super) const ANY: u16 = PLACES;
/// A quarter of a mebibyte; an entry is voided in vain by one change in so many.
const PLACES: u16 = 1 << 15;
