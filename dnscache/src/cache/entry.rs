//! One reply as the cache keeps it: its records in wire form, where their TTLs stand, and what its
//! header says.
//!
//! Core. An entry fits every client: id, case of the question, flags, size and transport are the
//! query's. Record owners point to offset 12 or into the records, and both stand where they stood
//! as long as the question is as long.

mod turns;

use shared::wire::{ErrorCode, HEADER_LEN, Query, Reply, name_end, rcode};

use turns::{Body, Finder, Turns};

/// A reply without header, question and OPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The records, then the offsets of their TTLs in the records, two bytes each, then the sets
    /// of records that take turns.
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
    /// Bytes of the sets of records that take turns; 0 if no RRset has several records.
    turns_len: u16,
    /// Where the next reply begins each set, as a part of 65,536. Each reply adds [`TURN_STEP`].
    turn: u16,
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
    /// Returns the records of `message`, which has one question with an uncompressed name, no OPT
    /// and `rcode` as its code.
    ///
    /// RRsets of several records take turns in replies. Only owner names may point into the data of
    /// such records, and their data must not point at one another: otherwise call
    /// [`Entry::in_fixed_order`].
    ///
    /// `None` if a record runs over the end, or if there are more bytes than any message has.
    pub fn new(message: &[u8], rcode: u16) -> Option<Self> {
        let body_start = name_end(message, HEADER_LEN)? + 4;
        let body = message.get(body_start..)?;
        let body_len = u16::try_from(body.len()).ok()?;
        let count = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        let counts = [count(6), count(8), count(10)];
        let mut head = Head { body_len, counts, rcode, ..Head::default() };
        let mut ttls = Vec::new();
        let mut finder = Finder::default();
        let mut at = 0;
        for index in 0..head.records() {
            let span = record(body, at)?;
            ttls.extend((span.fixed as u16 + 4).to_le_bytes());
            finder.add(index, head.section(index), &span, Body { bytes: body, base: body_start });
            at = span.end;
        }
        if at != body.len() {
            return None;
        }
        let turns = finder.finish(&ttls, Body { bytes: body, base: body_start });
        head.turns_len = u16::try_from(turns.len()).ok()?;
        let data = [body, &ttls, &turns].concat().into();
        Some(Self { data, head, names: Vec::new() })
    }

    /// An answer without records: a failure.
    pub fn failure(rcode: u16) -> Self {
        let head = Head { rcode, flags: NEGATIVE | FAILURE, ..Head::default() };
        Self { data: Box::default(), head, names: Vec::new() }
    }

    /// An answer without records that policy keeps from clients.
    pub fn blocked() -> Self {
        let head = Head { rcode: rcode::REFUSED, flags: NEGATIVE | BLOCKED, ..Head::default() };
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

    /// Lowers every TTL above `secs` seconds to it.
    pub fn with_ttl_max(mut self, secs: u32) -> Self {
        let (body, tail) = self.data.split_at_mut(usize::from(self.head.body_len));
        for offset in tail[..2 * self.head.records()].chunks_exact(2) {
            let at = usize::from(u16::from_le_bytes([offset[0], offset[1]]));
            Ages { age: 0, ttl_max: secs }.apply(&mut body[at..at + 4]);
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

    /// Sets where the first reply begins RRsets of several records, as a part of 65,536: a number
    /// that differs from answer to answer, so that clients that always send the same ID see other
    /// records after each renewal too.
    pub fn starting_at(mut self, turn: u16) -> Self {
        self.head.turn = turn;
        self
    }

    /// Keeps all records in the order of the message.
    pub fn in_fixed_order(mut self) -> Self {
        self.head.turns_len = 0;
        self.data = self.data[..self.head.data_len()].into();
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

    /// The type and the data of each record.
    pub fn each_record(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let body = &self.data[..self.len()];
        let mut at = 0;
        std::iter::from_fn(move || {
            let span = record(body, at)?;
            at = span.end;
            Some((span.rtype, &body[span.fixed + 10..span.end]))
        })
    }

    /// Writes the reply to `query`, which asks what this entry answers. `age` lowers each TTL, in
    /// seconds; `ttl_max` then caps it: how stale answers get theirs (RFC 8767 section 4).
    ///
    /// What does not fit over UDP is left out whole record by whole record, additional ones first,
    /// and TC set where an answer is missing. Which record of an RRset is first depends on the
    /// query's ID.
    pub fn emit(&self, query: &Query<'_>, age: u32, ttl_max: u32, reply: &mut Reply<'_>) {
        let mut head = self.head;
        head.emit(&self.data, query, Ages { age, ttl_max }, reply);
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

    /// Whether it may be void before its time: it follows names, or is a failure.
    pub fn ends_early(&self) -> bool {
        self.flags & (FOLLOWS | FAILURE) != 0
    }

    pub fn records(&self) -> usize {
        self.counts.iter().map(|&count| usize::from(count)).sum()
    }

    /// Bytes of the records, the offsets of their TTLs and the sets that take turns.
    pub fn data_len(&self) -> usize {
        usize::from(self.body_len) + 2 * self.records() + usize::from(self.turns_len)
    }

    /// The section of record `index`.
    fn section(&self, index: usize) -> usize {
        let [answers, authorities, _] = self.counts.map(usize::from);
        usize::from(index >= answers) + usize::from(index >= answers + authorities)
    }

    /// [`Entry::emit`] of `data`, an entry's. The next call begins RRsets at another record even
    /// if the query has the same ID.
    pub fn emit(&mut self, data: &[u8], query: &Query<'_>, ages: Ages, reply: &mut Reply<'_>) {
        reply.set_rcode(self.rcode);
        reply.set_recursion_available(true);
        reply.set_authoritative(self.flags & AUTHORITATIVE != 0);
        let wants_ad = query.authentic_data() || query.dnssec_ok();
        reply.set_authentic_data(self.flags & AUTHENTIC != 0 && wants_ad);
        if self.flags & (TRUNCATED | FAILURE | BLOCKED) != 0 {
            self.emit_reason(reply);
        }
        let (body, tail) = data.split_at(usize::from(self.body_len));
        let (ttls, sets) = tail.split_at(2 * self.records());
        let sets = &sets[..usize::from(self.turns_len)];
        let Some(place) = reply.push_wire(self.counts, body) else {
            let turns = self.turns(ttls, sets, query);
            return self.emit_part(body, &turns, ages, reply);
        };
        for offset in ttls.chunks_exact(2) {
            let at = usize::from(u16::from_le_bytes([offset[0], offset[1]]));
            ages.apply(&mut place[at..at + 4]);
        }
        if !sets.is_empty() {
            self.turns(ttls, sets, query).apply(place);
        }
    }

    /// Says in `reply` what is unusual about this entry.
    #[cold]
    fn emit_reason(&self, reply: &mut Reply<'_>) {
        if self.flags & TRUNCATED != 0 {
            reply.set_truncated();
        }
        if self.is_failure() {
            reply.set_error(ErrorCode::CachedError, "failed a moment ago, asked again shortly");
        }
        if self.flags & BLOCKED != 0 {
            reply.set_error(ErrorCode::Blocked, "an answer from outside has an address inside");
        }
    }

    /// The turn of the reply to `query`, and a step on for the next one.
    ///
    /// The counter alone would give clients that ask in a fixed order, such as twice for each
    /// connection, always the same records; the ID alone would depend on the client.
    fn turns<'a>(&mut self, ttls: &'a [u8], sets: &'a [u8], query: &Query<'_>) -> Turns<'a> {
        let turn = self.turn.wrapping_add(query.id().wrapping_mul(ID_STEP));
        self.turn = self.turn.wrapping_add(TURN_STEP);
        Turns { ttls, sets, base: HEADER_LEN + query.question().len(), turn }
    }

    /// Writes as many whole records as fit; of sections that nobody asked for all or none, so that
    /// no RRset there is a part of itself (RFC 2181 section 9).
    fn emit_part(&self, body: &[u8], turns: &Turns<'_>, ages: Ages, reply: &mut Reply<'_>) {
        let mut at = 0;
        let mut begin = (0, reply.mark());
        for index in 0..self.records() {
            let Some(span) = record(body, at) else { return };
            at = span.end;
            let section = self.section(index);
            let mut counts = [0; 3];
            counts[section] = 1;
            let mark = reply.mark();
            if section != begin.0 {
                begin = (section, mark);
            }
            let Some(data) = turns.push(index, &span, body, counts, reply) else {
                if section == 0 || (section == 1 && self.is_negative()) {
                    reply.rewind(mark);
                    reply.set_truncated();
                } else {
                    reply.rewind(begin.1);
                }
                return;
            };
            ages.apply(&mut data[TTL]);
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

/// The TTL behind type and class.
const TTL: std::ops::Range<usize> = 4..8;
/// What a reply adds to the turn: the golden ratio of 65,536. However many records there are and
/// every how many replies a client looks at, the first ones are spread evenly.
const TURN_STEP: u16 = 0x9e37;
/// What the next ID adds to the turn: another irrational part, so that IDs that count up do not
/// meet the counter.
const ID_STEP: u16 = 0xb505;
const AUTHORITATIVE: u8 = 1;
const AUTHENTIC: u8 = 2;
const NEGATIVE: u8 = 4;
const FAILURE: u8 = 8;
const FOLLOWS: u8 = 16;
const TRUNCATED: u8 = 32;
const BLOCKED: u8 = 64;
