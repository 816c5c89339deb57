//! The heavy hitters of one stream of keys, in bounded memory.
//!
//! Core. Space-Saving (Metwally, Agrawal and El Abbadi, 2005) with weights: if a new key comes and
//! all places are taken, it takes the place of the key with the lowest count, and inherits that
//! count as its error. A count is never too low, and too high by at most its error. No key that
//! represents more than a `max`-th of all queries is missing.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// A summary. Keys are hashes; [`super::keys`] has the names and addresses behind them.
#[derive(Clone, Debug)]
pub struct Summary {
    max: usize,
    /// A binary heap, the lowest count first.
    heap: Vec<Cell>,
    places: HashMap<u64, u32, RandomState>,
    /// The highest count that a key without a place can have.
    floor: u64,
    /// All queries, and the samples that represent them.
    pub total: u64,
    /// See above.
    pub samples: u64,
}

/// A key and its count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The key.
    pub key: u64,
    /// At least as often it occurred.
    pub count: u64,
    /// How much too high the count may be.
    pub error: u64,
}

/// What adding a key did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The key had a place.
    Known,
    /// It took a free place.
    New,
    /// It took the place of this key.
    Replaced(u64),
}

impl Summary {
    /// An empty summary with at most `max` places, at least 1.
    pub fn new(max: usize) -> Self {
        let places = HashMap::default();
        Self { max: max.max(1), heap: Vec::new(), places, floor: 0, total: 0, samples: 0 }
    }

    /// Adds a sample of `key` that represents `weight` queries.
    pub fn add(&mut self, key: u64, weight: u32) -> Added {
        let weight = u64::from(weight);
        self.total += weight;
        self.samples += 1;
        if let Some(&place) = self.places.get(&key) {
            self.heap[place as usize].count += weight;
            self.sink(place as usize);
            return Added::Known;
        }
        let replaced = if self.heap.len() >= self.max { self.pop() } else { None };
        let count = self.floor + weight;
        self.heap.push(Cell { key, count, error: self.floor });
        self.places.insert(key, self.heap.len() as u32 - 1);
        self.rise(self.heap.len() - 1);
        replaced.map_or(Added::New, Added::Replaced)
    }

    /// Counts a sample whose key gets no place.
    pub fn add_unnamed(&mut self, weight: u32) {
        self.total += u64::from(weight);
        self.samples += 1;
        self.floor += u64::from(weight);
    }

    /// Returns whether `key` has a place.
    pub fn has(&self, key: u64) -> bool {
        self.places.contains_key(&key)
    }

    /// Takes the place of the key with the lowest count away. Returns the key.
    pub fn pop(&mut self) -> Option<u64> {
        let last = self.heap.len().checked_sub(1)?;
        self.swap(0, last);
        let lowest = self.heap.pop()?;
        self.places.remove(&lowest.key);
        self.floor = self.floor.max(lowest.count);
        self.sink(0);
        Some(lowest.key)
    }

    /// Returns the count of `key`; if it has no place, the count that it may have at most, all of
    /// which may be error.
    pub fn get(&self, key: u64) -> Cell {
        match self.places.get(&key) {
            Some(&place) => self.heap[place as usize],
            None => Cell { key, count: 0, error: self.floor },
        }
    }

    /// Returns how many places there are.
    pub fn places(&self) -> usize {
        self.max
    }

    /// Returns every key, in no order.
    pub fn cells(&self) -> &[Cell] {
        &self.heap
    }

    /// Returns the bytes that it takes, as large as its tables are.
    pub fn bytes(&self) -> usize {
        let entry = size_of::<(u64, u32)>() + 1;
        let buckets = (self.places.capacity() * 8).div_ceil(7).next_power_of_two();
        self.heap.capacity() * size_of::<Cell>() + buckets * entry
    }

    /// Moves the cell at `place` down until both below it are higher.
    fn sink(&mut self, mut place: usize) {
        loop {
            let below = [2 * place + 1, 2 * place + 2];
            let lowest = below.into_iter().filter(|&at| at < self.heap.len());
            let Some(lowest) = lowest.min_by_key(|&at| self.heap[at].count) else { return };
            if self.heap[place].count <= self.heap[lowest].count {
                return;
            }
            self.swap(place, lowest);
            place = lowest;
        }
    }

    /// Moves the cell at `place` up until the one above it is lower.
    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let above = (place - 1) / 2;
            if self.heap[above].count <= self.heap[place].count {
                return;
            }
            self.swap(place, above);
            place = above;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        for place in [one, other] {
            if let Some(known) = self.places.get_mut(&self.heap[place].key) {
                *known = place as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::trace::Zipf;
    use super::*;

    /// The keys of `exact`, the most frequent ones first.
    fn ranked(exact: &HashMap<u64, u64>) -> Vec<(u64, u64)> {
        let mut ranked: Vec<(u64, u64)> = exact.iter().map(|(&key, &count)| (key, count)).collect();
        ranked.sort_unstable_by_key(|&(key, count)| (std::cmp::Reverse(count), key));
        ranked
    }

    #[test]
    fn the_hundred_most_frequent_of_a_trace_are_counted_within_one_percent() {
        for (seed, exponent, max) in [(1, 1.0, 1_792), (2, 1.1, 896)] {
            let mut summary = Summary::new(max);
            let mut exact: HashMap<u64, u64> = HashMap::new();
            for key in Zipf::new(100_000, exponent, seed).take(500_000) {
                summary.add(key, 1);
                *exact.entry(key).or_default() += 1;
            }
            assert_eq!(summary.total, 500_000);
            assert_eq!(summary.cells().len(), max);
            for (key, count) in &ranked(&exact)[..100] {
                let cell = summary.get(*key);
                let off = cell.count.abs_diff(*count) as f64 / *count as f64;
                assert!(off <= 0.01, "seed {seed}: key {key}: {cell:?}, not {count}");
            }
        }
    }

    #[test]
    fn a_count_is_never_too_low_and_its_error_is_its_bound() {
        let mut summary = Summary::new(64);
        let mut exact: HashMap<u64, u64> = HashMap::new();
        for (at, key) in Zipf::new(5_000, 1.2, 9).take(50_000).enumerate() {
            let weight = 1 + at as u32 % 7;
            summary.add(key, weight);
            *exact.entry(key).or_default() += u64::from(weight);
            if at % 1_000 == 500 {
                summary.pop();
            }
        }
        for (&key, &count) in &exact {
            let cell = summary.get(key);
            match summary.has(key) {
                true => {
                    assert!(cell.count >= count && cell.count - cell.error <= count, "{cell:?}")
                }
                false => assert!(count <= cell.error, "{key}: {count}, {cell:?}"),
            }
        }
        let share = summary.total / 64;
        let heavy = exact.iter().filter(|&(_, &count)| count > share * 2);
        assert!(heavy.clone().count() > 3);
        assert!(heavy.into_iter().all(|(&key, _)| summary.has(key)));
    }

    #[test]
    fn a_key_takes_the_place_of_the_lowest() {
        let mut summary = Summary::new(2);
        assert_eq!(summary.add(1, 5), Added::New);
        assert_eq!(summary.add(2, 3), Added::New);
        assert_eq!(summary.add(1, 1), Added::Known);
        assert_eq!(summary.add(3, 2), Added::Replaced(2));
        assert_eq!(summary.get(3), Cell { key: 3, count: 5, error: 3 });
        assert_eq!(summary.get(2), Cell { key: 2, count: 0, error: 3 });
        summary.add_unnamed(4);
        assert_eq!((summary.total, summary.samples), (15, 5));
        assert_eq!(summary.get(2).error, 7);
    }
}
