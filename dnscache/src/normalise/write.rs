//! Writes the records of an answer as one message whose RRsets can take turns.
//!
//! Core. Compresses names (RFC 1035 section 4.1.4) so that each record of an RRset can be moved
//! within its set: only owner names after the set point at data in the set, and all owners in it
//! are the same bytes. The meaning of a record does not matter here.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use hickory_proto::rr::Name;
use shared::wire::{HEADER_LEN, MESSAGE_MAX, class};

use super::RRSIG;
use super::message::Record;

/// A record to be written.
pub(super) struct Placed<'r, 'm> {
    pub record: &'r Record<'m>,
    /// Index of its section.
    pub section: usize,
    /// The TTL to write.
    pub ttl: u32,
}

/// A written reply.
pub(super) struct Written {
    /// The message. Its header is zero except for the counts.
    pub bytes: Vec<u8>,
    /// Whether its RRsets can take turns.
    pub takes_turns: bool,
}

/// Returns a reply to the question `name` and `qtype` with `records`, their names compressed.
///
/// If it would be too long with RRsets that can take turns, it is written as short as possible
/// instead. `None` if that is too long as well.
pub(super) fn write(name: &Name, qtype: u16, records: &[Placed<'_, '_>]) -> Option<Written> {
    [true, false].into_iter().find_map(|takes_turns| {
        let writer = Writer::new(name, qtype, takes_turns);
        Some(Written { bytes: writer.write(records)?, takes_turns })
    })
}

/// A reply being written.
struct Writer<'r> {
    bytes: Vec<u8>,
    takes_turns: bool,
    question: &'r Name,
    /// Ends of names to which later names can point.
    suffixes: Vec<Suffix<'r>>,
    /// Names in the data of RRsets of several records. An owner name can point only at a whole one.
    targets: HashMap<&'r Name, usize, RandomState>,
    /// The last owner, and the offset to which later records point.
    last: (&'r Name, usize),
}

/// `name` without its first `skipped` labels.
struct Suffix<'r> {
    name: &'r Name,
    skipped: usize,
    at: usize,
}

/// How a name is written.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Style {
    /// Whether it can end in a pointer.
    compressed: bool,
    /// Whether later names can point at it.
    lasting: bool,
}

impl<'r> Writer<'r> {
    fn new(question: &'r Name, qtype: u16, takes_turns: bool) -> Self {
        let mut writer = Self {
            bytes: Vec::with_capacity(LEN_TYPICAL),
            takes_turns,
            question,
            suffixes: Vec::with_capacity(SUFFIXES_TYPICAL),
            targets: HashMap::default(),
            last: (question, HEADER_LEN),
        };
        writer.bytes.extend([0; HEADER_LEN]);
        writer.name(question, Style { compressed: false, lasting: true });
        writer.bytes.extend(qtype.to_be_bytes());
        writer.bytes.extend(class::IN.to_be_bytes());
        writer
    }

    /// Writes the records and the counts; `None` if the message would be too long.
    fn write(mut self, records: &'r [Placed<'r, '_>]) -> Option<Vec<u8>> {
        let mut counts = [0_u16; 3];
        for (index, placed) in records.iter().enumerate() {
            let Placed { record, section, ttl } = placed;
            counts[*section] = counts[*section].checked_add(1)?;
            self.owner(&record.owner);
            self.bytes.extend(record.rtype.to_be_bytes());
            self.bytes.extend(class::IN.to_be_bytes());
            self.bytes.extend(ttl.to_be_bytes());
            let neighbours = [index.checked_sub(1), Some(index + 1)];
            let neighbours = neighbours.into_iter().flatten().filter_map(|at| records.get(at));
            let in_set = self.takes_turns && neighbours.into_iter().any(|it| is_one(it, placed));
            self.data(record, in_set);
            if self.bytes.len() > MESSAGE_MAX {
                return None;
            }
        }
        for (place, count) in self.bytes[6..HEADER_LEN].chunks_exact_mut(2).zip(counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        Some(self.bytes)
    }

    fn owner(&mut self, owner: &'r Name) {
        let known = if *owner == *self.question {
            return self.pointer(HEADER_LEN);
        } else if *owner == *self.last.0 {
            Some(self.last.1)
        } else if self.targets.is_empty() {
            None
        } else {
            self.targets.get(owner).copied()
        };
        let at = match known.filter(|&at| at <= POINTER_MAX) {
            Some(at) => {
                self.pointer(at);
                at
            }
            None => self.name(owner, Style { compressed: true, lasting: true }),
        };
        self.last = (owner, at);
    }

    /// Writes the length and the data of `record`. `in_set` is set if its RRset has several
    /// records.
    fn data(&mut self, record: &'r Record<'_>, in_set: bool) {
        let start = self.bytes.len();
        let data = &record.data;
        self.bytes.extend([0; 2]);
        self.bytes.extend(data.head);
        for name in &data.names {
            let style = Style { compressed: data.compressible, lasting: !in_set };
            let at = self.name(name, style);
            if in_set {
                self.targets.entry(name).or_insert(at);
            }
        }
        self.bytes.extend(data.tail);
        let len = (self.bytes.len() - start - 2) as u16; // a reply that is too long is dropped
        self.bytes[start..start + 2].copy_from_slice(&len.to_be_bytes());
    }

    /// Writes `name`. Returns its offset, for later pointers.
    fn name(&mut self, name: &'r Name, style: Style) -> usize {
        let start = self.bytes.len();
        for (skipped, label) in name.iter().enumerate() {
            if style.compressed
                && let Some(at) = self.find(name, skipped)
            {
                self.pointer(at);
                return if skipped == 0 { at } else { start };
            }
            let at = self.bytes.len();
            if style.lasting && at <= POINTER_MAX && self.suffixes.len() < SUFFIXES_MAX {
                self.suffixes.push(Suffix { name, skipped, at });
            }
            self.bytes.push(label.len() as u8); // a label has at most 63 bytes
            self.bytes.extend(label);
        }
        self.bytes.push(0);
        start
    }

    /// Returns the offset at which `name` without its first `skipped` labels is written, in the
    /// same case.
    fn find(&self, name: &Name, skipped: usize) -> Option<usize> {
        let labels = |name: &'r Name, skipped: usize| name.iter().len() - skipped;
        let len = name.iter().len() - skipped;
        let found = self.suffixes.iter().find(|suffix| {
            labels(suffix.name, suffix.skipped) == len
                && suffix.name.iter().skip(suffix.skipped).eq(name.iter().skip(skipped))
        });
        found.map(|suffix| suffix.at)
    }

    fn pointer(&mut self, at: usize) {
        self.bytes.extend((POINTER | at as u16).to_be_bytes());
    }
}

/// Returns whether both belong to one RRset whose records take turns.
fn is_one(one: &Placed<'_, '_>, other: &Placed<'_, '_>) -> bool {
    one.section == other.section
        && one.record.rtype == other.record.rtype
        && one.record.rtype != RRSIG
        && one.record.owner == other.record.owner
}

/// The two bits that mark a compression pointer (RFC 1035 section 4.1.4).
const POINTER: u16 = 0xc000;
/// The furthest offset a pointer reaches.
const POINTER_MAX: usize = 0x3fff;
/// Ends of names that are remembered. Bounds the time for a name.
const SUFFIXES_MAX: usize = 64;
/// Ends of names in an answer of a few records.
const SUFFIXES_TYPICAL: usize = 12;
/// Bytes of such an answer.
const LEN_TYPICAL: usize = 256;

#[cfg(test)]
mod tests;
