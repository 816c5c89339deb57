//! The names and addresses behind the keys of summaries: each of them once, as long as a summary
//! has a place for it, in bounded memory.
//!
//! Core.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

/// Names in wire form and addresses as bytes, by hash.
#[derive(Debug)]
pub struct Keys {
    seed: RandomState,
    named: HashMap<u64, Named, RandomState>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Named {
    bytes: Box<[u8]>,
    /// How many summaries have a place for it.
    users: u32,
}

impl Keys {
    /// No keys yet, and room for `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        let (seed, named) = (RandomState::default(), HashMap::default());
        Self { seed, named, bytes: 0, bytes_max }
    }

    /// Returns the key of `bytes`.
    pub fn key(&self, bytes: &[u8]) -> u64 {
        self.seed.hash_one(bytes)
    }

    /// Returns whether any summary has a place for `bytes`.
    pub fn has(&self, bytes: &[u8]) -> bool {
        self.named.contains_key(&self.key(bytes))
    }

    /// Returns the bytes behind `key`.
    pub fn get(&self, key: u64) -> Option<&[u8]> {
        self.named.get(&key).map(|named| &*named.bytes)
    }

    /// Returns whether there is room for `bytes`.
    pub fn has_room(&self, key: u64, bytes: &[u8]) -> bool {
        self.named.contains_key(&key) || self.bytes + cost(bytes) <= self.bytes_max
    }

    /// Notes that one more summary has a place for `key`, the key of `bytes`.
    pub fn hold(&mut self, key: u64, bytes: &[u8]) {
        let named = self.named.entry(key).or_insert_with(|| {
            self.bytes += cost(bytes);
            Named { bytes: bytes.into(), users: 0 }
        });
        named.users += 1;
    }

    /// Notes that one summary less has a place for `key`.
    pub fn release(&mut self, key: u64) {
        let Some(named) = self.named.get_mut(&key) else { return };
        named.users -= 1;
        if named.users == 0 {
            self.bytes -= cost(&named.bytes);
            self.named.remove(&key);
        }
    }

    /// Returns the bytes that they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a key costs: its bytes as the allocator hands them out, and its entry in a table that is
/// half full.
fn cost(bytes: &[u8]) -> usize {
    (bytes.len() + 8).next_multiple_of(16).max(32) + 2 * (size_of::<(u64, Named)>() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_as_long_as_a_summary_has_it() {
        let mut keys = Keys::new(1_000);
        let key = keys.key(b"\x01a\0");
        assert!(!keys.has(b"\x01a\0") && keys.has_room(key, b"\x01a\0"));
        keys.hold(key, b"\x01a\0");
        keys.hold(key, b"\x01a\0");
        keys.release(key);
        assert_eq!(keys.get(key), Some(&b"\x01a\0"[..]));
        let long = [1; 255];
        assert!(keys.has_room(keys.key(&long), &long) && keys.has(b"\x01a\0"));
        keys.hold(keys.key(&long), &long);
        let other = [2; 255];
        keys.hold(keys.key(&other), &other);
        assert!(!keys.has_room(keys.key(&[3; 255]), &[3; 255]));
        assert!(keys.has_room(keys.key(&other), &other), "it is there already");
        for bytes in [&other[..], &long, b"\x01a\0"] {
            keys.release(keys.key(bytes));
        }
        assert_eq!((keys.bytes(), keys.get(key)), (0, None));
    }
}
