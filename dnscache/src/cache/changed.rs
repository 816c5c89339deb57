//! When the records of each name last changed and when each server last recovered, in tables of
//! fixed size.
//!
//! Core. An entry notes how many changes there had been when its answer was made, and the places of
//! the names that it depends on and of all names above them. It is void if one of them has changed
//! since. So a change costs one store, reaches every type of a name, everything below it and every
//! alias that leads there, and needs no index of entries. Names whose hashes collide share a place,
//! which can void an entry too many but never one too few.

use std::sync::atomic::{AtomicU64, Ordering};

use shared::clock::Moment;

/// The tables of changes and recoveries.
#[derive(Debug)]
pub(super) struct Changed {
    /// The number of changes so far.
    latest: AtomicU64,
    /// The number of the last change of the names of each place.
    places: Box<[AtomicU64]>,
    /// The number of the last flush, at which any name may have changed.
    flushed: AtomicU64,
    /// When the servers of each [`Blame`] last recovered, in nanoseconds since boot.
    recovered: Box<[AtomicU64]>,
}

/// The place of a server that failures are blamed on. Several servers can share a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blame(u8);

impl Blame {
    /// A failure that no server caused. It ends only when its time is over.
    pub const NONE: Self = Self(0);

    /// Returns the place of the server with this hash.
    pub fn new(hash: u64) -> Self {
        Self(1 + (hash % 255) as u8)
    }
}

impl Changed {
    /// Returns tables without changes.
    pub fn new() -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            latest: AtomicU64::new(0),
            places: zeros(usize::from(ANY) + 1),
            flushed: AtomicU64::new(0),
            recovered: zeros(256),
        }
    }

    /// Returns the bytes of the tables.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.places) + size_of_val(&*self.recovered)
    }

    /// Returns how many changes there were.
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

    /// Returns whether any name may have changed after there were `seen` changes.
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

    /// Returns whether a name at `place` has changed after there were `seen` changes.
    pub fn since(&self, seen: u64, place: u16) -> bool {
        self.places[usize::from(place)].load(Ordering::Acquire) > seen
    }
}

/// Returns the place of the name with hash `name_hash`.
pub(super) fn place(name_hash: u64) -> u16 {
    // These bits are used least by the choice of a shard and by the tables.
    (name_hash >> 40) as u16 % PLACES
}

/// The place that notes every change, for entries that depend on too many names to list.
pub(super) const ANY: u16 = PLACES;
/// A quarter of a mebibyte. On average one change in this many voids an unrelated entry.
const PLACES: u16 = 1 << 15;
