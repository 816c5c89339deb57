//! One reply as the cache keeps it: its records in wire form, where their TTLs stand, and what its
//! header says.
//!
//! Core. An entry fits every client: id, case of the question, flags, size and transport are the
//! query's. Record owners point to offset 12 or into the records, and both stand where they stood
//! as long as the question is as long.

use shared::wire::{ErrorCode, HEADER_LEN, Query, Reply, name_end, rtype};

/// A reply without header, question and OPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The records, and behind them the offsets of their TTLs in the records, two bytes each.
    pub(super) data: Box<[u8]>,
    pub(super) head: Head,
    /// The names, in wire form and lower case, on whose records the answer depends, as far as
    /// somebody tells when they change.
    pub(super) names: Vec<Box<[u8]>>,
}

/// What is known of an entry's records and header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    body_len: u16,
    counts: [u16; 3],
    pub rcode: u16,
    flags: u8,
    rotation: Rotation,
}

/// The last address RRset of the answer: `count` records of `stride` bytes each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rotation {
    start: u16,
    count: u16,
    stride: u8,
}

/// A record in a message.
struct Span {
    start: usize,
    /// Where type, class, TTL and length stand.
    fixed: usize,
    end: usize,
    rtype: u16,
}

impl Entry {
    /// The records of `message`, which has one question with an uncompressed name, no OPT and
    /// `rcode` as its code.
    ///
    /// Nothing where a record runs over the end, or there are more bytes than any message has.
    pub fn new(message: &[u8], rcode: u16) -> Option<Self> {
        let body_start = name_end(message, HEADER_LEN)? + 4;
        let body = message.get(body_start..)?;
        let body_len = u16::try_from(body.len()).ok()?;
        let count = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        let counts = [count(6), count(8), count(10)];
        let mut ttls = Vec::new();
        let mut rotation = Rotation::default();
        let mut at = 0;
        for index in 0..counts.iter().map(|&count| usize::from(count)).sum() {
            let span = record(body, at)?;
            ttls.extend((span.fixed as u16 + 4).to_le_bytes());
            if index < usize::from(counts[0]) {
                rotation.extend(&span, body);
            }
            at = span.end;
        }
        if at != body.len() {
            return None;
        }
        let data = [body, &ttls].concat().into();
        let head = Head { body_len, counts, rcode, flags: 0, rotation };
        Some(Self { data, head, names: Vec::new() })
    }

    /// An answer without records: a failure.
    pub fn failure(rcode: u16) -> Self {
        let head = Head { rcode, flags: NEGATIVE | FAILURE, ..Head::default() };
        Self { data: Box::default(), head, names: Vec::new() }
    }

    /// Sets what its header says: AA, AD; and whether it denies what was asked.
    pub fn with_flags(mut self, authoritative: bool, authentic: bool, negative: bool) -> Self {
        let flags = [(authoritative, AUTHORITATIVE), (authentic, AUTHENTIC), (negative, NEGATIVE)];
        for (_, flag) in flags.iter().filter(|(is_set, _)| *is_set) {
            self.head.flags |= flag;
        }
        self
    }

    /// Says that there is more than it holds, and than any message can hold.
    pub fn truncated(mut self) -> Self {
        self.head.flags |= TRUNCATED;
        self
    }

    /// Makes the entry go when the records of one of `names`, in wire form and lower case, or of a
    /// name above it are said to have changed: [`super::Cache::invalidate`]. Such an entry tells of
    /// the cluster, and may have more records than others.
    pub fn following(mut self, names: Vec<Box<[u8]>>) -> Self {
        self.head.flags |= FOLLOWS;
        self.names = names;
        self
    }

    /// Whether it denies what was asked: NXDOMAIN, NODATA or a failure.
    pub fn is_negative(&self) -> bool {
        self.head.is_negative()
    }

    /// The response code.
    pub fn rcode(&self) -> u16 {
        self.head.rcode
    }

    /// Bytes of its records.
    pub fn len(&self) -> usize {
        usize::from(self.head.body_len)
    }

    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.head.body_len == 0
    }

    /// Records in all sections.
    pub fn records(&self) -> usize {
        self.head.records()
    }

    /// Writes the reply to `query`, which asks what this entry answers. `age` lowers each TTL, in
    /// seconds; `ttl_max` then caps it: how stale answers get theirs (RFC 8767 section 4).
    ///
    /// What does not fit over UDP is left out whole record by whole record, additional ones first,
    /// and TC set where an answer is missing. Addresses are rotated by the query's ID.
    pub fn emit(&self, query: &Query<'_>, age: u32, ttl_max: u32, reply: &mut Reply<'_>) {
        self.head.emit(&self.data, query, Ages { age, ttl_max }, reply);
    }
}

/// What becomes of TTLs on the way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    /// Seconds taken off.
    pub age: u32,
    /// What is left at most.
    pub ttl_max: u32,
}

impl Head {
    pub fn is_negative(&self) -> bool {
        self.flags & NEGATIVE != 0
    }

    pub fn is_failure(&self) -> bool {
        self.flags & FAILURE != 0
    }

    /// Whether it goes when names are said to have changed.
    pub fn follows(&self) -> bool {
        self.flags & FOLLOWS != 0
    }

    pub fn records(&self) -> usize {
        self.counts.iter().map(|&count| usize::from(count)).sum()
    }

    /// Bytes of the records and the offsets of their TTLs.
    pub fn data_len(&self) -> usize {
        usize::from(self.body_len) + 2 * self.records()
    }

    /// [`Entry::emit`] of `data`, an entry's.
    pub fn emit(&self, data: &[u8], query: &Query<'_>, ages: Ages, reply: &mut Reply<'_>) {
        reply.set_rcode(self.rcode);
        reply.set_recursion_available(true);
        reply.set_authoritative(self.flags & AUTHORITATIVE != 0);
        let wants_ad = query.authentic_data() || query.dnssec_ok();
        reply.set_authentic_data(self.flags & AUTHENTIC != 0 && wants_ad);
        if self.flags & TRUNCATED != 0 {
            reply.set_truncated();
        }
        if self.is_failure() {
            reply.set_error(ErrorCode::CachedError, "failed a moment ago, asked again shortly");
        }
        let (body, ttls) = data[..self.data_len()].split_at(usize::from(self.body_len));
        let turn = usize::from(query.id());
        match reply.push_wire(self.counts, body) {
            Some(place) => {
                for offset in ttls.chunks_exact(2) {
                    let at = usize::from(u16::from_le_bytes([offset[0], offset[1]]));
                    ages.apply(&mut place[at..at + 4]);
                }
                self.rotation.turn(place, turn);
            }
            None => self.emit_part(body, turn, ages, reply),
        }
    }

    /// Writes as many whole records as fit; of sections that nobody asked for all or none, so that
    /// no RRset there is a part of itself (RFC 2181 section 9).
    fn emit_part(&self, body: &[u8], turn: usize, ages: Ages, reply: &mut Reply<'_>) {
        let (mut at, mut index) = (0, 0);
        let [answers, authorities, _] = self.counts.map(usize::from);
        let mut begin = (0, reply.mark());
        while let Some(span) = record(body, at).filter(|_| index < self.records()) {
            let section =
                usize::from(index >= answers) + usize::from(index >= answers + authorities);
            let mut counts = [0; 3];
            counts[section] = 1;
            let source = self.rotation.source(at, turn);
            let bytes = &body[source..source + span.end - span.start];
            if section != begin.0 {
                begin = (section, reply.mark());
            }
            let Some(place) = reply.push_wire(counts, bytes) else {
                if section == 0 || (section == 1 && self.is_negative()) {
                    reply.set_truncated();
                } else {
                    reply.rewind(begin.1);
                }
                return;
            };
            ages.apply(&mut place[span.fixed - at + 4..span.fixed - at + 8]);
            (at, index) = (span.end, index + 1);
        }
    }
}

impl Ages {
    /// Lowers a TTL, down to 0, and caps it.
    fn apply(self, ttl: &mut [u8]) {
        let bytes: &mut [u8; 4] = ttl.try_into().expect("a TTL is four bytes");
        let left = u32::from_be_bytes(*bytes).saturating_sub(self.age).min(self.ttl_max);
        *bytes = left.to_be_bytes();
    }
}

impl Rotation {
    /// Adds the answer record `span` of `body` where it is an address like those before it; else
    /// starts anew.
    fn extend(&mut self, span: &Span, body: &[u8]) {
        // A pointer as the owner: no other record points into these.
        let is_address = matches!(span.rtype, rtype::A | rtype::AAAA) && body[span.start] >= 0xc0;
        if !is_address {
            return;
        }
        let stride = span.end - span.start;
        // Owner pointer and type.
        let head = |at: usize| &body[at..at + 4];
        let follows = self.count > 0
            && usize::from(self.stride) == stride
            && usize::from(self.start) + usize::from(self.count) * stride == span.start
            && head(usize::from(self.start)) == head(span.start);
        if follows {
            self.count += 1;
        } else if stride <= 255 {
            *self = Self { start: span.start as u16, count: 1, stride: stride as u8 };
        }
    }

    /// Turns the records by `by`.
    fn turn(self, body: &mut [u8], by: usize) {
        if self.count > 1 {
            let (start, stride) = (usize::from(self.start), usize::from(self.stride));
            let count = usize::from(self.count);
            body[start..start + count * stride].rotate_left(by % count * stride);
        }
    }

    /// Where the record that goes to `at` stands when the records are turned by `by`.
    fn source(self, at: usize, by: usize) -> usize {
        let (start, stride) = (usize::from(self.start), usize::from(self.stride));
        let count = usize::from(self.count);
        if count < 2 || at < start || at >= start + count * stride {
            return at;
        }
        start + ((at - start) / stride + by) % count * stride
    }
}

/// The record at `start` of `body`.
fn record(body: &[u8], start: usize) -> Option<Span> {
    let mut fixed = start;
    loop {
        match *body.get(fixed)? {
            0 => {
                fixed += 1;
                break;
            }
            length if length < 64 => fixed += 1 + usize::from(length),
            _ => {
                fixed += 2;
                break;
            }
        }
    }
    let header = body.get(fixed..fixed + 10)?;
    let end = fixed + 10 + usize::from(u16::from_be_bytes([header[8], header[9]]));
    let rtype = u16::from_be_bytes([header[0], header[1]]);
    (end <= body.len()).then_some(Span { start, fixed, end, rtype })
}

const AUTHORITATIVE: u8 = 1;
const AUTHENTIC: u8 = 2;
const NEGATIVE: u8 = 4;
const FAILURE: u8 = 8;
const FOLLOWS: u8 = 16;
const TRUNCATED: u8 = 32;
