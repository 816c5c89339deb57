//! Which records of an entry take turns, and how a reply puts another one first.
//!
//! Core. Works on bytes and offsets; RRSIG is the only record type that it distinguishes. The sets
//! are found once, at insertion; a reply rotates the bytes of each set:
//!
//! ```text
//! owner │data 0│ptr│data 1│ptr│data 2│      the set as stored
//! owner │data 1│ptr│data 2│ptr│data 0│      turned by one: the first owner stays in place
//! ```
//!
//! The two bytes before the first data belong to record 0. After the rotation they are swapped with
//! the pointer that is now in front, so that the set can begin with an owner name that is written
//! out.

use shared::wire::Reply;

use super::{Span, record};

/// The records of a message.
#[derive(Clone, Copy)]
pub(super) struct Body<'a> {
    pub bytes: &'a [u8],
    /// Bytes of the message in front of the records.
    pub base: usize,
}

/// Finds the RRsets of several records while the records of a body are read one after the other.
#[derive(Default)]
pub(super) struct Finder {
    sets: Vec<Run>,
    run: Option<Run>,
}

/// Records of one RRset, one after the other.
#[derive(Clone, Copy)]
struct Run {
    section: usize,
    rtype: u16,
    /// The offsets at which the owner of the first record begins and ends.
    owner: usize,
    fixed: usize,
    /// The owner of all other records: a pointer.
    pointer: [u8; 2],
    /// The index of the first record.
    first: usize,
    count: usize,
    end: usize,
}

impl Finder {
    /// Adds record `index`, `span` of `body`.
    pub fn add(&mut self, index: usize, section: usize, span: &Span, body: Body<'_>) {
        if let Some(run) = &mut self.run
            && run.section == section
            && run.rtype == span.rtype
            && let Some(pointer) = run.pointer_of(span, body)
        {
            (run.pointer, run.count, run.end) = (pointer, run.count + 1, span.end);
            return;
        }
        self.close();
        self.run = Some(Run {
            section,
            rtype: span.rtype,
            owner: span.start,
            fixed: span.fixed,
            pointer: [0; 2],
            first: index,
            count: 1,
            end: span.end,
        });
    }

    fn close(&mut self) {
        let run = self.run.take();
        let takes_turns = |run: &Run| run.count > 1 && run.rtype != RRSIG && run.fixed >= 2;
        if self.sets.len() < SETS_MAX {
            self.sets.extend(run.filter(takes_turns));
        }
    }

    /// Returns the sets as [`Turns`] reads them; empty if no RRset has several records.
    ///
    /// Owner names behind a set may point into its data: those pointers follow the data. A set is
    /// left out if a pointer into it cannot follow.
    pub fn finish(mut self, ttls: &[u8], body: Body<'_>) -> Vec<u8> {
        self.close();
        let mut bytes = Vec::new();
        for set in &self.sets {
            let Some(pointers) = set.pointers(ttls, body) else { continue };
            let head = [set.first, set.count, set.end, pointers.len()];
            bytes.extend(head.iter().chain(&pointers).flat_map(|&n| (n as u16).to_le_bytes()));
        }
        bytes
    }
}

impl Run {
    /// The owner of `span`, if that is a pointer to the owner of this run.
    fn pointer_of(&self, span: &Span, body: Body<'_>) -> Option<[u8; 2]> {
        let pointer = <[u8; 2]>::try_from(&body.bytes[span.start..span.fixed]).ok()?;
        let same = if self.count > 1 {
            pointer == self.pointer
        } else {
            let owner = &body.bytes[self.owner..self.fixed];
            *owner == pointer || target(pointer) == body.base + self.owner
        };
        (pointer[0] >= POINTER && same).then_some(pointer)
    }

    /// The offsets in `body` of the pointers of later owners into the data of this set; `None` if
    /// one of them points elsewhere into the set, or would be too far away after a turn.
    fn pointers(&self, ttls: &[u8], Body { bytes, base }: Body<'_>) -> Option<Vec<usize>> {
        let mut pointers = Vec::new();
        let mut at = self.end;
        while let Some(span) = record(bytes, at) {
            at = span.end;
            let Some(pointer) = owner_pointer(bytes, &span) else { continue };
            let to = target(pointer).wrapping_sub(base);
            if !(self.fixed..self.end).contains(&to) {
                continue;
            }
            let mut records = (self.first..self.first + self.count).rev();
            let holder = records.find(|&index| fixed(ttls, index) <= to)?;
            if to < fixed(ttls, holder) + FIXED_LEN || base + self.end > TARGET_MAX {
                return None;
            }
            pointers.push(span.fixed - 2);
        }
        Some(pointers)
    }
}

/// The sets of an entry, and by how much they are turned.
#[derive(Clone, Copy)]
pub(super) struct Turns<'a> {
    /// The offsets of TTLs, two bytes for each record.
    pub ttls: &'a [u8],
    /// What [`Finder::finish`] returned.
    pub sets: &'a [u8],
    /// Bytes of the message in front of the body.
    pub base: usize,
    /// As a part of 65,536: 0 leaves the order as stored, 32,768 begins in the middle.
    pub turn: u16,
}

/// One set, and its turn.
struct Set<'a> {
    first: usize,
    count: usize,
    /// The offsets at which it begins, two bytes in front of the first data, and ends.
    start: usize,
    end: usize,
    /// The index of the record that is first after the turn.
    shift: usize,
    /// The first `offset` bytes go to the end.
    offset: usize,
    /// Offsets of pointers into it.
    pointers: &'a [u8],
}

impl<'a> Turns<'a> {
    /// Turns every set of `body`, whose records are in the order stored.
    pub fn apply(&self, body: &mut [u8]) {
        for set in self.sets().filter(|set| set.offset > 0) {
            let region = &mut body[set.start..set.end];
            region.rotate_left(set.offset);
            let stored_first = region.len() - set.offset;
            let (front, back) = region.split_at_mut(stored_first);
            front[..2].swap_with_slice(&mut back[..2]);
            for at in set.pointers.chunks_exact(2).map(number) {
                let pointer = self.moved([body[at], body[at + 1]], &set);
                body[at..at + 2].copy_from_slice(&pointer);
            }
        }
    }

    /// Appends to `reply` the record that is in place of record `index`, `span` of `body`, after
    /// the turn. Returns the written bytes from its type on.
    ///
    /// `None` if it does not fit; the reply may then end in an owner name.
    pub fn push<'r>(
        &self,
        index: usize,
        span: &Span,
        body: &[u8],
        counts: [u16; 3],
        reply: &'r mut Reply<'_>,
    ) -> Option<&'r mut [u8]> {
        let owner = reply.push_wire([0; 3], &body[span.start..span.fixed])?;
        if let Some(pointer) = owner_pointer(body, span)
            && let Some(place) = owner.last_chunk_mut()
        {
            *place = self.follow(pointer);
        }
        let at = fixed(self.ttls, self.source(index));
        let len = usize::from(u16::from_be_bytes([body[at + 8], body[at + 9]]));
        reply.push_wire(counts, &body[at..at + FIXED_LEN + len])
    }

    /// The index of the record whose data is at the place of record `index` after the turn.
    fn source(&self, index: usize) -> usize {
        let set = self.sets().find(|set| (set.first..set.first + set.count).contains(&index));
        set.map_or(index, |set| set.first + (index - set.first + set.shift) % set.count)
    }

    /// The pointer that `pointer` is after the turn.
    fn follow(&self, pointer: [u8; 2]) -> [u8; 2] {
        let to = target(pointer).wrapping_sub(self.base);
        let set = self.sets().find(|set| (set.start + 2..set.end).contains(&to));
        set.map_or(pointer, |set| self.moved(pointer, &set))
    }

    fn moved(&self, pointer: [u8; 2], set: &Set<'_>) -> [u8; 2] {
        let to = target(pointer) - self.base;
        let moved = match to < set.start + set.offset {
            true => to + (set.end - set.start) - set.offset,
            false => to - set.offset,
        };
        (u16::from(POINTER) << 8 | (self.base + moved) as u16).to_be_bytes()
    }

    fn sets(&self) -> impl Iterator<Item = Set<'a>> + use<'a> {
        let Self { ttls, sets: mut rest, turn, .. } = *self;
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_at_checked(8)?;
            let [first, count, end, pointers] = [0, 2, 4, 6].map(|at| number(&head[at..]));
            let (pointers, tail) = tail.split_at(2 * pointers);
            rest = tail;
            let shift = (usize::from(turn) * count) >> 16;
            let start = fixed(ttls, first) - 2;
            let offset = fixed(ttls, first + shift) - 2 - start;
            Some(Set { first, count, start, end, shift, offset, pointers })
        })
    }
}

/// The pointer at the end of the owner of `span`, if it ends in one.
fn owner_pointer(body: &[u8], span: &Span) -> Option<[u8; 2]> {
    let mut at = span.start;
    while body[at] < POINTER {
        if body[at] == 0 {
            return None;
        }
        at += 1 + usize::from(body[at]);
    }
    Some([body[at], body[at + 1]])
}

/// Returns the offset of the type of record `index`, four bytes in front of its TTL.
fn fixed(ttls: &[u8], index: usize) -> usize {
    number(&ttls[2 * index..]) - 4
}

/// The offset in the message to which `pointer` points.
fn target(pointer: [u8; 2]) -> usize {
    usize::from(u16::from_be_bytes(pointer)) & TARGET_MAX
}

fn number(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// The two bits that mark a compression pointer (RFC 1035 section 4.1.4).
pub(super) const POINTER: u8 = 0xc0;
/// The furthest offset a pointer reaches.
const TARGET_MAX: usize = 0x3fff;
/// Bytes of type, class, TTL and length.
const FIXED_LEN: usize = 10;
/// Signatures: a client needs all of them, so their order does not matter.
const RRSIG: u16 = 46;
/// Sets that take turns in one reply: an answer has one, its glue a few. Bounds the work for a
/// reply.
const SETS_MAX: usize = 16;
