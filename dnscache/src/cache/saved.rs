//! Entries as bytes, for a file that the next process reads.
//!
//! Core. Entries are written as they would be sent, so that reading them checks them like a reply.
//! Void entries and failures are left out.
//!
//! ```text
//! name:u8+bytes type:u16 class:u16 bits:u8 │ lifetime:u32 age:u32 hits:u8
//! rcode:u16 flags:u8 turns:u8 turn:u16     │ counts:3*u16 records:u16+bytes
//! ```

use std::time::Duration;

use shared::clock::Moment;
use shared::saved::bytes::Cursor;
use shared::wire::name_end;

use super::changed::{self, Blame};
use super::entry::{Ages, Entry, Whole};
use super::key::{KeyBuffer, question_of};
use super::part::{Meta, Stored};
use super::{Cache, Question, SHARD_PART};

/// An entry of a file.
#[derive(Debug)]
pub struct Saved<'a> {
    /// The question.
    pub question: Question<'a>,
    entry: Entry,
    lifetime: u32,
    age: u32,
    hits: u8,
}

/// When and how entries of a file are stored again.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    /// The time since they were written.
    pub elapsed: Duration,
    /// [`Cache::version`] at a moment at which no name of the cluster had changed since then. If
    /// `None`, the cluster's names are stored as expired answers.
    pub confirmed: Option<u64>,
    /// The current time.
    pub now: Moment,
}

impl<'a> Saved<'a> {
    /// Reads the next entry. Returns `None` if the bytes are not an entry.
    pub fn take(cursor: &mut Cursor<'a>) -> Option<Self> {
        let len = cursor.take_u8()?;
        let name = cursor.take(len.into())?;
        if name_end(name, 0)? != name.len() {
            return None;
        }
        let (qtype, qclass, bits) = (cursor.take_u16()?, cursor.take_u16()?, cursor.take_u8()?);
        let (dnssec_ok, checking_disabled) = (bits & 1 != 0, bits & 2 != 0);
        let question = Question { name, qtype, qclass, dnssec_ok, checking_disabled };
        let (lifetime, age, hits) = (cursor.take_u32()?, cursor.take_u32()?, cursor.take_u8()?);
        let whole = Whole {
            rcode: cursor.take_u16()?,
            flags: cursor.take_u8()?,
            takes_turns: cursor.take_bool()?,
            turn: cursor.take_u16()?,
            counts: [cursor.take_u16()?, cursor.take_u16()?, cursor.take_u16()?],
            records: {
                let len = cursor.take_u16()?;
                cursor.take(len.into())?
            },
        };
        Some(Self { question, entry: Entry::again(name, &whole)?, lifetime, age, hits })
    }

    /// Returns whether the answer depends on names of the cluster.
    pub fn follows(&self) -> bool {
        self.entry.head.follows()
    }
}

/// Appends an entry.
pub(super) fn put(out: &mut Vec<u8>, stored: &Stored, meta: &Meta, now: Moment) {
    let Question { name, qtype, qclass, dnssec_ok, checking_disabled } = question_of(stored.key());
    out.push(name.len() as u8); // at most 255
    out.extend_from_slice(name);
    out.extend(qtype.to_be_bytes());
    out.extend(qclass.to_be_bytes());
    out.push(u8::from(dnssec_ok) | u8::from(checking_disabled) << 1);
    out.extend(meta.lifetime.to_be_bytes());
    out.extend(meta.age(now).to_be_bytes());
    out.push(meta.hits);
    let whole = meta.head.whole(&stored.0[stored.key().len()..]);
    out.extend(whole.rcode.to_be_bytes());
    out.extend([whole.flags, u8::from(whole.takes_turns)]);
    out.extend(whole.turn.to_be_bytes());
    out.extend(whole.counts.iter().flat_map(|count| count.to_be_bytes()));
    out.extend((whole.records.len() as u16).to_be_bytes()); // as the head has it
    out.extend_from_slice(whole.records);
}

impl Cache {
    /// Returns the entries that can be used, shard by shard, for [`Saved::take`]. Those that were
    /// used last come last.
    pub fn save(&self, now: Moment) -> impl Iterator<Item = Vec<u8>> {
        self.shards.iter().map(move |shard| shard.0.lock().save(&self.changed, now))
    }

    /// Stores an entry of a file again, unless there is a fresh one, or its time is over.
    pub fn restore(&self, saved: Saved<'_>, again: Again) {
        let Saved { question, mut entry, mut lifetime, age, hits } = saved;
        let elapsed = u32::try_from(again.elapsed.as_secs()).unwrap_or(u32::MAX);
        let mut age = age.saturating_add(elapsed);
        let follows = entry.head.follows();
        if follows && again.confirmed.is_none() {
            lifetime = lifetime.min(age);
        }
        // An entry cannot be older than the clock. What it is older has to be lowered in it.
        let before = u64::from(age).saturating_sub(again.now.secs()) as u32;
        if before > 0 {
            if lifetime <= before {
                return;
            }
            (age, lifetime) = (age - before, lifetime - before);
            entry = entry.lowered(Ages { age: before, ttl_max: u32::MAX });
        }
        let is_spent = age >= lifetime.saturating_add(self.bounds.stale_secs);
        if is_spent || self.bounds.entries == 0 {
            return;
        }
        let mut key = KeyBuffer::new();
        key.write(&question, &self.seed);
        let mut shard = self.shard(key.hash).lock();
        if entry.len() > shard.room() / SHARD_PART {
            return;
        }
        let stored = again.now - Duration::from_secs(age.into());
        let meta = Meta {
            head: entry.head,
            seen: again.confirmed.unwrap_or_else(|| self.version()),
            stored,
            retry: stored,
            lifetime,
            failures: 0,
            blame: Blame::NONE,
            hits,
            renewing: false,
        };
        // The names on which it depends are not in the file. So it is void after any change.
        let places: &[u16] = if follows { &[changed::ANY] } else { &[] };
        shard.restore(&key, &entry, places, (meta, again.now));
    }
}
