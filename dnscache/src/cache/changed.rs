//! When the records of which names last changed, in a table of fixed size.
//!
//! Core. An entry notes how many changes there had been when its answer was made, and the places of
//! the names it depends on, each with all names above it; it is void once one of them has changed
//! since. So a change costs one store, reaches every type of a name, everything below it and every
//! alias that leads there, and needs no index of entries. Names whose hashes meet share a place,
//! which may void an entry too many and never one too few.

use std::sync::atomic::{AtomicU64, Ordering};

/// The table.
#[derive(Debug)]
pub(super) struct Changed {
    /// Counts the changes.
    latest: AtomicU64,
    /// The number of the last change of the names of each place.
    places: Box<[AtomicU64]>,
}

impl Changed {
    /// No changes yet.
    pub fn new() -> Self {
        let places = (0..=ANY).map(|_| AtomicU64::new(0)).collect();
        Self { latest: AtomicU64::new(0), places }
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.places)
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
