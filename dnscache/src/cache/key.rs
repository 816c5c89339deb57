//! The key of an entry: name, type, class, DO and CD, hashed once.
//!
//! Core. A key is one string of bytes that begins with its own hash, so that the choice of a shard
//! and the look-ups in its tables share the work. The hash is seeded, so an attacker cannot choose
//! names that collide.

use std::hash::{BuildHasher, Hasher};

use arrayvec::ArrayVec;
use foldhash::quality::RandomState;
use shared::wire::{NAME_MAX, Query};

/// What distinguishes one answer from another. Without CD or DO, the cache would serve the wrong
/// answer (CVE-2024-0874).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// The owner name in wire form, lower case.
    pub name: &'a [u8],
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
    /// DO: the answer includes DNSSEC records.
    pub dnssec_ok: bool,
    /// CD: the upstream should also answer with data that it could not validate.
    pub checking_disabled: bool,
}

impl<'a> Question<'a> {
    /// Returns the question of `query`.
    pub fn of(query: &Query<'a>) -> Self {
        Self {
            name: query.name(),
            qtype: query.qtype,
            qclass: query.qclass,
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.checking_disabled(),
        }
    }
}

/// A key written for a look-up: hash, length of the name, flags, type, class, and the name.
pub(super) struct KeyBuffer {
    bytes: ArrayVec<u8, KEY_MAX>,
    /// The hash of everything in it.
    pub hash: u64,
}

impl KeyBuffer {
    /// Returns an empty buffer with room for any key. It is not zeroed first, which would cost as
    /// much as to write the key.
    pub fn new() -> Self {
        Self { bytes: ArrayVec::new(), hash: 0 }
    }

    /// Writes the key of `question` in place, because a returned buffer would be copied whole.
    pub fn write(&mut self, question: &Question<'_>, seed: &RandomState) {
        let name_hash = seed.hash_one(question.name);
        let flags = u8::from(question.dnssec_ok) | u8::from(question.checking_disabled) << 1;
        let [t1, t0] = question.qtype.to_be_bytes();
        let [c1, c0] = question.qclass.to_be_bytes();
        let rest = u64::from_be_bytes([0, 0, 0, flags, t1, t0, c1, c0]);
        // A multiplication by an odd number is a bijection: other types of a name have other
        // hashes.
        self.hash = name_hash ^ rest.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let [h0, h1, h2, h3, h4, h5, h6, h7] = self.hash.to_ne_bytes();
        // A name has 1 to 255 bytes.
        let len = question.name.len() as u8;
        let fixed = [h0, h1, h2, h3, h4, h5, h6, h7, len, flags, t1, t0, c1, c0];
        self.bytes.clear();
        for part in [&fixed[..], question.name] {
            self.bytes.try_extend_from_slice(part).expect("a name has at most 255 bytes");
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns the key at the beginning of `bytes`.
pub(super) fn key_of(bytes: &[u8]) -> &[u8] {
    &bytes[..FIXED_LEN + usize::from(bytes[8])]
}

/// Returns the hash that `key` begins with.
pub(super) fn hash_of(key: &[u8]) -> u64 {
    u64::from_ne_bytes(key[..8].try_into().expect("a key begins with its hash"))
}

/// Returns the owner name in `key`.
pub(super) fn name_of(key: &[u8]) -> &[u8] {
    &key[FIXED_LEN..]
}

/// Returns the question of `key`.
pub(super) fn question_of(key: &[u8]) -> Question<'_> {
    let number = |at: usize| u16::from_be_bytes([key[at], key[at + 1]]);
    Question {
        name: name_of(key),
        qtype: number(10),
        qclass: number(12),
        dnssec_ok: key[9] & 1 != 0,
        checking_disabled: key[9] & 2 != 0,
    }
}

/// Uses the hash at the beginning of a key instead of computing one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identity;

/// The hasher of [`Identity`].
#[derive(Debug, Default)]
pub(super) struct Carried(u64);

impl BuildHasher for Identity {
    type Hasher = Carried;

    fn build_hasher(&self) -> Carried {
        Carried::default()
    }
}

impl Hasher for Carried {
    fn write(&mut self, key: &[u8]) {
        self.0 = hash_of(key);
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Bytes before the name.
const FIXED_LEN: usize = 14;
/// Bytes of the longest key.
const KEY_MAX: usize = FIXED_LEN + NAME_MAX;
