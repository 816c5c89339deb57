//! One reply as the cache stores it: its records in wire form, the offsets of their TTLs, and the
//! flags of its header.
//!
//! Core. An entry fits every client, because ID, case of the question, flags, size and transport
//! are taken from the query. Owner names point to offset 12 or into the records, and both offsets
//! are the same in each reply because the question has the same length.

mod turns;

use shared::wire::{ErrorCode, HEADER_LEN, Query, Reply, name_end, rcode};

use turns::{Body, Finder, POINTER, Turns};

/// A reply without header, question and OPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The records, then the offsets of their TTLs in the records, two bytes each, then the sets
    /// of records that take turns.
    pub(super) data: Box<[u8]>,
    pub(super) head: Head,
    /// Names in lower-case wire form on whose records the answer depends, if changes of those
    /// records are announced.
    pub(super) names: Vec<Box<[u8]>>,
}

/// The header of an entry, and the layout of its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    body_len: u16,
    counts: [u16; 3],
    pub rcode: u16,
    flags: u8,
    /// Bytes of the sets of records that take turns; 0 if no RRset has several records.
    turns_len: u16,
    /// Where the next reply begins each set, as a fraction of 65,536. Each reply adds
    /// [`TURN_STEP`].
    turn: u16,
}

/// The parts of an entry from which [`Entry::again`] makes it.
pub(super) struct Whole<'a> {
    pub rcode: u16,
    pub flags: u8,
    /// Whether RRsets of several records take turns.
    pub takes_turns: bool,
    pub turn: u16,
    pub counts: [u16; 3],
    pub records: &'a [u8],
}

/// A record in a message.
struct Span {
    start: usize,
    /// The offset of type, class, TTL and length.
    fixed: usize,
    end: usize,
    rtype: u16,
}

impl Entry {
    /// Returns the records of `message`, which must have one question with an uncompressed name, no
    /// OPT, and `rcode` as its code.
    ///
    /// RRsets of several records take turns in replies. Only owner names may point into the data of
    /// such records, and their data must not point at one another; otherwise call
    /// [`Entry::in_fixed_order`].
    ///
    /// Returns `None` if a record extends past the end, or if the records are longer than a message
    /// can be.
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

    /// Returns the entry for a question about `name` that [`Head::whole`] took apart. Returns
    /// `None` if it cannot be one.
    pub(super) fn again(name: &[u8], whole: &Whole<'_>) -> Option<Self> {
        if whole.rcode > RCODE_MAX || whole.flags & FAILURE != 0 {
            return None;
        }
        let mut message = vec![0; HEADER_LEN];
        for (count, at) in whole.counts.iter().zip([6, 8, 10]) {
            message[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        message.extend_from_slice(name);
        message.extend([0; 4]); // type and class
        message.extend_from_slice(whole.records);
        let mut entry = Self::new(&message, whole.rcode)?.starting_at(whole.turn);
        entry.head.flags = whole.flags;
        Some(if whole.takes_turns { entry } else { entry.in_fixed_order() })
    }

    /// Returns an answer without records that reports a failure.
    pub fn failure(rcode: u16) -> Self {
        let head = Head { rcode, flags: NEGATIVE | FAILURE, ..Head::default() };
        Self { data: Box::default(), head, names: Vec::new() }
    }

    /// Returns an answer without records, for one that policy blocks.
    pub fn blocked() -> Self {
        let head = Head { rcode: rcode::REFUSED, flags: NEGATIVE | BLOCKED, ..Head::default() };
        Self { data: Box::default(), head, names: Vec::new() }
    }

    /// Sets the flags of the header, AA and AD, and whether the answer is negative.
    pub fn with_flags(mut self, authoritative: bool, authentic: bool, negative: bool) -> Self {
        let flags = [(authoritative, AUTHORITATIVE), (authentic, AUTHENTIC), (negative, NEGATIVE)];
        for (_, flag) in flags.iter().filter(|(is_set, _)| *is_set) {
            self.head.flags |= flag;
        }
        self
    }

    /// Lowers every TTL above `secs` to `secs` seconds.
    pub fn with_ttl_max(self, secs: u32) -> Self {
        self.lowered(Ages { age: 0, ttl_max: secs })
    }

    /// Applies `ages` to every TTL.
    pub(super) fn lowered(mut self, ages: Ages) -> Self {
        let (body, tail) = self.data.split_at_mut(usize::from(self.head.body_len));
        for offset in tail[..2 * self.head.records()].chunks_exact(2) {
            let at = usize::from(u16::from_le_bytes([offset[0], offset[1]]));
            ages.apply(&mut body[at..at + 4]);
        }
        self
    }

    /// Marks the answer as truncated: there are more records than a message can hold.
    pub fn truncated(mut self) -> Self {
        self.head.flags |= TRUNCATED;
        self
    }

    /// Makes the entry void if the records of one of `names`, or of a name above it, change
    /// ([`super::Cache::invalidate`]). `names` are in lower-case wire form. Such an entry is about
    /// the cluster.
    pub fn following(mut self, names: Vec<Box<[u8]>>) -> Self {
        self.head.flags |= FOLLOWS;
        self.names = names;
        self
    }

    /// Sets where the first reply begins RRsets of several records, as a fraction of 65,536. The
    /// number should differ between answers, so that clients that always send the same ID see other
    /// records after each renewal.
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

    /// Returns whether it is negative: NXDOMAIN, NODATA or a failure.
    pub fn is_negative(&self) -> bool {
        self.head.is_negative()
    }

    /// Returns the response code.
    pub fn rcode(&self) -> u16 {
        self.head.rcode
    }

    /// Returns the bytes of its records.
    pub fn len(&self) -> usize {
        usize::from(self.head.body_len)
    }

    /// Returns whether it has no records.
    pub fn is_empty(&self) -> bool {
        self.head.body_len == 0
    }

    /// Returns the number of records in all sections.
    pub fn records(&self) -> usize {
        self.head.records()
    }

    /// Returns the type and the data of each record.
    pub fn each_record(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let body = &self.data[..self.len()];
        let mut at = 0;
        std::iter::from_fn(move || {
            let span = record(body, at)?;
            at = span.end;
            Some((span.rtype, &body[span.fixed + 10..span.end]))
        })
    }

    /// Writes the reply to `query`, which must ask the question of this entry. Each TTL is lowered
    /// by `age` seconds and then capped at `ttl_max`, which stale answers use (RFC 8767 section 4).
    ///
    /// If the reply does not fit over UDP, whole records are left out, additional ones first, and
    /// TC is set if an answer is missing. The query's ID selects the first record of an RRset.
    pub fn emit(&self, query: &Query<'_>, age: u32, ttl_max: u32, reply: &mut Reply<'_>) {
        let mut head = self.head;
        head.emit(&self.data, query, Ages { age, ttl_max }, reply);
    }
}

/// How the TTLs of a reply are changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    /// Seconds to subtract.
    pub age: u32,
    /// The maximum of the result.
    pub ttl_max: u32,
}

impl Head {
    pub fn is_negative(&self) -> bool {
        self.flags & NEGATIVE != 0
    }

    pub fn is_failure(&self) -> bool {
        self.flags & FAILURE != 0
    }

    /// Returns whether it is voided by changes of names.
    pub fn follows(&self) -> bool {
        self.flags & FOLLOWS != 0
    }

    /// Returns whether it can be void before it expires, because it follows names or is a failure.
    pub fn ends_early(&self) -> bool {
        self.flags & (FOLLOWS | FAILURE) != 0
    }

    pub fn records(&self) -> usize {
        self.counts.iter().map(|&count| usize::from(count)).sum()
    }

    /// Returns the bytes of the records, the offsets of their TTLs and the sets that take turns.
    pub fn data_len(&self) -> usize {
        usize::from(self.body_len) + 2 * self.records() + usize::from(self.turns_len)
    }

    /// Takes an entry with this head and `data` apart.
    pub fn whole<'a>(&self, data: &'a [u8]) -> Whole<'a> {
        let Self { body_len, counts, rcode, flags, turns_len, turn } = *self;
        let records = &data[..usize::from(body_len)];
        Whole { rcode, flags, takes_turns: turns_len > 0, turn, counts, records }
    }

    /// Returns the section of record `index`.
    fn section(&self, index: usize) -> usize {
        let [answers, authorities, _] = self.counts.map(usize::from);
        usize::from(index >= answers) + usize::from(index >= answers + authorities)
    }

    /// Does the work of [`Entry::emit`] for an entry's `data`. The next call begins RRsets at
    /// another record, even if the query has the same ID.
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

    /// Sets TC or an Extended DNS Error in `reply` if the entry needs it.
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

    /// Returns the turn of the reply to `query`, and advances the counter for the next reply.
    ///
    /// With the counter alone, clients that ask in a fixed order (for example twice per connection)
    /// would always get the same records; with the ID alone, the order would depend on the client.
    fn turns<'a>(&mut self, ttls: &'a [u8], sets: &'a [u8], query: &Query<'_>) -> Turns<'a> {
        let turn = self.turn.wrapping_add(query.id().wrapping_mul(ID_STEP));
        self.turn = self.turn.wrapping_add(TURN_STEP);
        Turns { ttls, sets, base: HEADER_LEN + query.question().len(), turn }
    }

    /// Writes as many whole records as fit. A section that the client did not ask for is written
    /// whole or not at all, so that it has no partial RRset (RFC 2181 section 9).
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
    /// Subtracts the age from a TTL, down to 0, and caps it.
    fn apply(self, ttl: &mut [u8]) {
        let bytes: &mut [u8; 4] = ttl.try_into().expect("a TTL is four bytes");
        let left = u32::from_be_bytes(*bytes).saturating_sub(self.age).min(self.ttl_max);
        *bytes = left.to_be_bytes();
    }
}

/// Returns the record at `start` of `body`, or `None` if it is malformed.
fn record(body: &[u8], start: usize) -> Option<Span> {
    let mut fixed = start;
    loop {
        match *body.get(fixed)? {
            0 => {
                fixed += 1;
                break;
            }
            length if length < 64 => fixed += 1 + usize::from(length),
            length if length < POINTER => return None,
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

/// The TTL after type and class.
const TTL: std::ops::Range<usize> = 4..8;
/// What a reply adds to the turn: the golden ratio of 65,536. The first records are spread evenly
/// for any number of records, and even if a client sees only every n-th reply.
const TURN_STEP: u16 = 0x9e37;
/// What the next ID adds to the turn: another irrational fraction, so that IDs that count up do not
/// cancel the counter.
const ID_STEP: u16 = 0xb505;
/// Larger codes need EDNS, which an entry does not have.
const RCODE_MAX: u16 = 15;
const AUTHORITATIVE: u8 = 1;
const AUTHENTIC: u8 = 2;
const NEGATIVE: u8 = 4;
const FAILURE: u8 = 8;
const FOLLOWS: u8 = 16;
const TRUNCATED: u8 = 32;
const BLOCKED: u8 = 64;
