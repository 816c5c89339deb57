//! One reply as the cache keeps it: its records in wire form, where their TTLs stand, and what its
//! header says.
//!
//! Core. An entry fits every client: id, case of the question, flags, size and transport are the
//! query's. Record owners point to offset 12 or into the records, and both stand where they stood
//! as long as the question is as long.

use shared::wire::{HEADER_LEN, Query, Reply, name_end, rtype};

/// A reply without header, question and OPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The records, and behind them the offsets of their TTLs in the records, two bytes each.
    data: Box<[u8]>,
    body_len: u32,
    counts: [u16; 3],
    rcode: u16,
    flags: u8,
    rotation: Rotation,
}

/// The last address RRset of the answer: `count` records of `stride` bytes each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rotation {
    start: u16,
    stride: u8,
    count: u16,
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
    /// Nothing where a record runs over the end, or there are more bytes than a TTL's offset can
    /// say.
    pub fn new(message: &[u8], rcode: u16) -> Option<Self> {
        let body_start = name_end(message, HEADER_LEN)? + 4;
        let body = message.get(body_start..)?;
        let count = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        let counts = [count(6), count(8), count(10)];
        let mut ttls = Vec::new();
        let mut rotation = Rotation::default();
        let mut at = 0;
        for index in 0..counts.iter().map(|&count| usize::from(count)).sum() {
            let span = record(body, at)?;
            ttls.extend(u16::try_from(span.fixed + 4).ok()?.to_le_bytes());
            if index < usize::from(counts[0]) {
                rotation.extend(&span, &body[at..span.end], body);
            }
            at = span.end;
        }
        if at != body.len() {
            return None;
        }
        let data = [body, &ttls].concat().into();
        let body_len = body.len() as u32;
        Some(Self { data, body_len, counts, rcode, flags: 0, rotation })
    }

    /// An answer without records: a failure.
    pub fn failure(rcode: u16) -> Self {
        Self {
            data: Box::default(),
            body_len: 0,
            counts: [0; 3],
            rcode,
            flags: NEGATIVE,
            rotation: Rotation::default(),
        }
    }

    /// Sets what its header says: AA, AD; and whether it denies what was asked.
    pub fn with_flags(mut self, authoritative: bool, authentic: bool, negative: bool) -> Self {
        let flags = [(authoritative, AUTHORITATIVE), (authentic, AUTHENTIC), (negative, NEGATIVE)];
        self.flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum();
        self
    }

    /// Whether it denies what was asked: NXDOMAIN, NODATA or a failure.
    pub fn is_negative(&self) -> bool {
        self.flags & NEGATIVE != 0
    }

    /// The response code.
    pub fn rcode(&self) -> u16 {
        self.rcode
    }

    /// Bytes it takes outside itself.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.body_len == 0
    }

    /// Records in all sections.
    pub fn records(&self) -> usize {
        self.counts.iter().map(|&count| usize::from(count)).sum()
    }

    /// Writes the reply to `query`, which asks what this entry answers. `age` lowers each TTL, in
    /// seconds; `ttl_max` then caps it: how stale answers get theirs (RFC 8767 section 4).
    ///
    /// What does not fit over UDP is left out whole record by whole record, additional ones first,
    /// and TC set where an answer is missing. Addresses are rotated by the query's ID.
    pub fn emit(&self, query: &Query<'_>, age: u32, ttl_max: u32, reply: &mut Reply<'_>) {
        reply.set_rcode(self.rcode);
        reply.set_recursion_available(true);
        reply.set_authoritative(self.flags & AUTHORITATIVE != 0);
        let wants_ad = query.authentic_data() || query.dnssec_ok();
        reply.set_authentic_data(self.flags & AUTHENTIC != 0 && wants_ad);
        let (body, ttls) = self.data.split_at(self.body_len as usize);
        match reply.push_wire(self.counts, body) {
            Some(place) => {
                for offset in ttls.chunks_exact(2) {
                    let at = usize::from(u16::from_le_bytes([offset[0], offset[1]]));
                    lower(&mut place[at..at + 4], age, ttl_max);
                }
                self.rotation.turn(place, usize::from(query.id()));
            }
            None => self.emit_part(query, age, ttl_max, reply),
        }
    }

    /// Writes as many whole records as fit.
    fn emit_part(&self, query: &Query<'_>, age: u32, ttl_max: u32, reply: &mut Reply<'_>) {
        let mut body = self.data[..self.body_len as usize].to_vec();
        self.rotation.turn(&mut body, usize::from(query.id()));
        let (mut at, mut index) = (0, 0);
        let [answers, authorities, _] = self.counts.map(usize::from);
        while let Some(span) = record(&body, at).filter(|_| index < self.records()) {
            let section =
                usize::from(index >= answers) + usize::from(index >= answers + authorities);
            let mut counts = [0; 3];
            counts[section] = 1;
            let Some(place) = reply.push_wire(counts, &body[at..span.end]) else {
                if section < 2 && (section == 0 || self.is_negative()) {
                    reply.set_truncated();
                }
                return;
            };
            lower(&mut place[span.fixed - at + 4..span.fixed - at + 8], age, ttl_max);
            (at, index) = (span.end, index + 1);
        }
    }
}

impl Rotation {
    /// Adds the answer record `span` where it is an address like those before it; else starts anew.
    fn extend(&mut self, span: &Span, bytes: &[u8], body: &[u8]) {
        let is_address = matches!(span.rtype, rtype::A | rtype::AAAA);
        let stride = span.end - span.start;
        let follows = self.count > 0
            && usize::from(self.stride) == stride
            && body[usize::from(self.start)..][..span.fixed - span.start + 2]
                == bytes[..span.fixed - span.start + 2];
        if is_address && follows {
            self.count += 1;
        } else if is_address && stride <= 255 {
            // Offsets fit 16 bits: their TTLs' did.
            *self = Self { start: span.start as u16, stride: stride as u8, count: 1 };
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
}

/// Lowers a TTL by `age`, down to 0, and caps it.
fn lower(ttl: &mut [u8], age: u32, ttl_max: u32) {
    let bytes: &mut [u8; 4] = ttl.try_into().expect("a TTL is four bytes");
    *bytes = u32::from_be_bytes(*bytes).saturating_sub(age).min(ttl_max).to_be_bytes();
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
