//! The replies that an upstream can send: the truth, errors, and every kind of wrong reply.
//!
//! Core. A reply is made from the query and what the table has for it.

use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};

use super::random::Random;
use super::text::{name, record, soa};

/// The reply to one query.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The table's answer. Over UDP, it has TC and no records if it is larger than 1,232 bytes.
    Truth,
    /// No reply.
    Nothing,
    /// This response code of 12 bits, and the question. A reply with a code above 15 has OPT.
    Code(u16),
    /// A header with this response code, and no question.
    Bare(u8),
    /// This response code with an Extended DNS Error (RFC 8914).
    Reason {
        /// The response code.
        code: u16,
        /// The info code.
        reason: u16,
        /// The extra text.
        text: &'static str,
    },
    /// TC without records, over UDP and TCP.
    Truncated,
    /// TC with as many records as fit into this many bytes.
    Part(usize),
    /// The truth without TC, with any size.
    Whole,
    /// This answer instead of the table's.
    Says(Box<Answer>),
    /// The question, and these bytes as the records of the answer.
    Raw {
        /// ANCOUNT.
        answers: u16,
        /// The bytes after the question.
        records: Vec<u8>,
    },
    /// A reply that cannot be used.
    Broken(Broken),
    /// Datagrams that are not the reply, with another address in them.
    Forged(Vec<Forgery>),
    /// This many forged replies with wrong IDs.
    Flood(usize),
    /// This many forged replies, each with at least one bit of its ID, question or question count
    /// changed.
    Mutated(usize, u64),
    /// These replies, one after the other.
    Each(Vec<Reply>),
    /// This reply, with a delay.
    After(Duration, Box<Reply>),
    /// This reply, once the test releases it.
    Held(Box<Reply>),
    /// This reply to a query with OPT, and the truth to a query without OPT.
    ToEdns(Box<Reply>),
}

/// Why a reply with the correct ID and question cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The message ends within a record.
    Cut,
    /// It counts a record that it does not contain.
    Missing,
    /// An A record of 3 bytes.
    ShortAddress,
    /// It counts 65,535 records.
    Counts,
    /// The owner of its record is a pointer to itself.
    PointerLoop,
    /// Two aliases that point to each other.
    AliasLoop,
    /// Bytes of 255 instead of its record.
    Junk,
    /// The address of another name.
    OtherOwner,
    /// The address in another class.
    OtherClass,
    /// A referral: name servers, no SOA, and RA is clear.
    Referral,
}

impl Broken {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Cut,
        Self::Missing,
        Self::ShortAddress,
        Self::Counts,
        Self::PointerLoop,
        Self::AliasLoop,
        Self::Junk,
        Self::OtherOwner,
        Self::OtherClass,
        Self::Referral,
    ];
}

/// Why a datagram is not the reply to the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// Another ID.
    Id,
    /// A letter of the question in the other case.
    Case,
    /// Another name in the question.
    Name,
    /// Another type in the question.
    Type,
    /// Another class in the question.
    Class,
    /// QR is clear: it is a query.
    Query,
    /// No question, but an answer.
    NoQuestion,
    /// Two questions.
    TwoQuestions,
    /// Correct, but from another port of the same address.
    Port,
    /// Not a DNS message.
    Garbage,
    /// An empty datagram.
    Empty,
}

impl Forgery {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Id,
        Self::Case,
        Self::Name,
        Self::Type,
        Self::Class,
        Self::Query,
        Self::NoQuestion,
        Self::TwoQuestions,
        Self::Port,
        Self::Garbage,
        Self::Empty,
    ];
}

/// The sections of a reply and its code.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    code: u16,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
    without_recursion: bool,
}

impl Answer {
    /// Returns NOERROR with `records`, each as `name TTL TYPE data`.
    pub fn new(records: &[&str]) -> Self {
        Self { answers: records.iter().map(|text| record(text)).collect(), ..Self::default() }
    }

    /// Returns `code` and a SOA, by which the denial can be cached for `ttl` seconds.
    pub fn denial(code: ResponseCode, ttl: u32) -> Self {
        Self { code: code.into(), authorities: vec![soa(ttl)], ..Self::default() }
    }

    /// Sets the response code.
    pub fn code(self, code: ResponseCode) -> Self {
        Self { code: code.into(), ..self }
    }

    /// Sets the records of the authority section.
    pub fn authorities(self, records: &[&str]) -> Self {
        Self { authorities: records.iter().map(|text| record(text)).collect(), ..self }
    }

    /// Sets the records of the additional section.
    pub fn additionals(self, records: &[&str]) -> Self {
        Self { additionals: records.iter().map(|text| record(text)).collect(), ..self }
    }

    /// Clears RA.
    pub fn without_recursion(self) -> Self {
        Self { without_recursion: true, ..self }
    }
}

/// A message to send.
#[derive(Clone, Debug)]
pub struct Sending {
    /// The message.
    pub bytes: Vec<u8>,
    /// How long to wait before it is sent.
    pub after: Duration,
    /// Whether it waits until the test releases it.
    pub held: bool,
    /// Whether it is sent from another port.
    pub elsewhere: bool,
}

impl From<Vec<u8>> for Sending {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, after: Duration::ZERO, held: false, elsewhere: false }
    }
}

/// A query and the table's answer to it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The query as it arrived.
    pub bytes: &'a [u8],
    /// The query decoded.
    pub query: &'a Message,
    /// The table's answer.
    pub truth: &'a Answer,
    /// Whether it arrived over TCP.
    pub tcp: bool,
}

impl Reply {
    /// Returns the messages to send.
    pub fn sendings(&self, asked: &Asked<'_>) -> Vec<Sending> {
        let one = |bytes: Vec<u8>| vec![Sending::from(bytes)];
        let failure = |code: u16| Answer { code, ..Answer::default() };
        match self {
            Self::Truth => one(asked.bounded()),
            Self::Nothing => Vec::new(),
            Self::Code(code) => one(asked.message(&failure(*code))),
            Self::Bare(code) => one(asked.bare(*code)),
            Self::Reason { code, reason, text } => {
                let option = [&reason.to_be_bytes()[..], text.as_bytes()].concat();
                one(with_opt(asked.message(&failure(*code)), *code, Some(&option)))
            }
            Self::Truncated => one(truncated(asked.message(&failure(0)))),
            Self::Part(size_max) => one(asked.part(*size_max)),
            Self::Whole => one(asked.message(asked.truth)),
            Self::Says(answer) => one(asked.message(answer)),
            Self::Raw { answers, records } => one(asked.with_records(*answers, records)),
            Self::Broken(broken) => one(asked.broken(*broken)),
            Self::Forged(forgeries) => forgeries.iter().map(|&as_| asked.forged(as_)).collect(),
            Self::Flood(count) => {
                (1..=*count).map(|at| with_id(asked.evil(), at as u16).into()).collect()
            }
            Self::Mutated(count, seed) => asked.mutated(*count, *seed),
            Self::Each(replies) => replies.iter().flat_map(|reply| reply.sendings(asked)).collect(),
            Self::After(delay, reply) => {
                let later = |sending: Sending| Sending { after: sending.after + *delay, ..sending };
                reply.sendings(asked).into_iter().map(later).collect()
            }
            Self::Held(reply) => {
                let held = |sending: Sending| Sending { held: true, ..sending };
                reply.sendings(asked).into_iter().map(held).collect()
            }
            Self::ToEdns(reply) => match asked.query.edns {
                Some(_) => reply.sendings(asked),
                None => Self::Truth.sendings(asked),
            },
        }
    }
}

impl Asked<'_> {
    /// Returns the offset of the end of the question.
    fn end(&self) -> usize {
        let question = self.query.queries.first();
        HEADER_LEN + question.map_or(0, |question| wire_len(question.name()) + 4)
    }

    /// Returns a message with the question as it was asked, letter case included, and the sections
    /// of `answer`. If an owner is the name of the question, it is written as a pointer.
    fn message(&self, answer: &Answer) -> Vec<u8> {
        let end = self.end();
        let mut bytes = self.bytes[..end].to_vec();
        let recursion = if answer.without_recursion { 0 } else { 0x80 };
        bytes[2..4].copy_from_slice(&[0x81, recursion | (answer.code & 0x0f) as u8]);
        bytes[6..HEADER_LEN].fill(0);
        let asked = self.query.queries.first().map(|question| question.name());
        let sections = [&answer.answers, &answer.authorities, &answer.additionals];
        for (place, records) in (6..).step_by(2).zip(sections) {
            bytes[place..place + 2].copy_from_slice(&(records.len() as u16).to_be_bytes());
            for record in records {
                let whole = encoded(record);
                match asked == Some(&record.name) {
                    true => {
                        bytes.extend([0xc0, HEADER_LEN as u8]);
                        bytes.extend(&whole[wire_len(&record.name)..]);
                    }
                    false => bytes.extend(whole),
                }
            }
        }
        if answer.code > 0x0f { with_opt(bytes, answer.code, None) } else { bytes }
    }

    fn bounded(&self) -> Vec<u8> {
        let whole = self.message(self.truth);
        if self.tcp || whole.len() <= UDP_MAX {
            return whole;
        }
        truncated(self.message(&Answer { answers: Vec::new(), ..self.truth.clone() }))
    }

    fn part(&self, size_max: usize) -> Vec<u8> {
        let mut part = Answer { answers: Vec::new(), ..self.truth.clone() };
        let mut fitting = self.message(&part);
        for record in &self.truth.answers {
            part.answers.push(record.clone());
            let longer = self.message(&part);
            if longer.len() > size_max {
                break;
            }
            fitting = longer;
        }
        truncated(fitting)
    }

    fn bare(&self, code: u8) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[..2].copy_from_slice(&self.bytes[..2]);
        bytes[2..4].copy_from_slice(&[0x81, 0x80 | code & 0x0f]);
        bytes
    }

    /// Returns the header with `count` as ANCOUNT, the question, and `records`.
    fn with_records(&self, count: u16, records: &[u8]) -> Vec<u8> {
        let mut bytes = self.message(&Answer::default());
        bytes.truncate(self.end());
        bytes[6..12].fill(0);
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        bytes.extend(records);
        bytes
    }

    fn broken(&self, broken: Broken) -> Vec<u8> {
        let owner =
            self.query.queries.first().map_or_else(|| name("."), |query| query.name().clone());
        let end = self.end() as u8;
        match broken {
            Broken::Cut => self.with_records(1, &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0]),
            Broken::Missing => self.with_records(1, &[]),
            Broken::ShortAddress => {
                self.with_records(1, &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 3, 192, 0, 2])
            }
            Broken::Counts => {
                let mut bytes = self.message(self.truth);
                bytes[6..8].copy_from_slice(&[0xff, 0xff]);
                bytes
            }
            Broken::PointerLoop => {
                self.with_records(1, &[0xc0, end, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1])
            }
            Broken::AliasLoop => {
                let links = [
                    format!("{owner} 60 CNAME loop.{owner}"),
                    format!("loop.{owner} 60 CNAME {owner}"),
                ];
                self.message(&Answer::new(&[&links[0], &links[1]]))
            }
            Broken::Junk => self.with_records(1, &[0xff; 40]),
            Broken::OtherOwner => {
                self.message(&Answer::new(&[&format!("other.{owner} 60 A {EVIL}")]))
            }
            Broken::OtherClass => {
                let mut answer = Answer::new(&[&format!("{owner} 60 A {EVIL}")]);
                answer.answers[0].dns_class = DNSClass::CH;
                self.message(&answer)
            }
            Broken::Referral => {
                let servers = ["example. 60 NS ns1.example.", "example. 60 NS ns2.example."];
                self.message(&Answer::default().authorities(&servers).without_recursion())
            }
        }
    }

    /// Returns the answer that an attacker wants the client to accept.
    fn evil(&self) -> Vec<u8> {
        let owner = self.query.queries.first().map(|query| query.name().to_string());
        let owner = owner.unwrap_or_default();
        self.message(&Answer::new(&[&format!("{owner} 3600 A {EVIL}")]))
    }

    fn forged(&self, forgery: Forgery) -> Sending {
        let mut bytes = self.evil();
        let end = self.end();
        match forgery {
            Forgery::Id => bytes[1] ^= 1,
            Forgery::Case => {
                let letter = bytes[HEADER_LEN..end - 4].iter().position(u8::is_ascii_alphabetic);
                bytes[HEADER_LEN + letter.unwrap_or(1)] ^= 0x20;
            }
            Forgery::Name => bytes[HEADER_LEN + 1] ^= 1,
            Forgery::Type => bytes[end - 3] ^= 0x10,
            Forgery::Class => bytes[end - 1] ^= 2,
            Forgery::Query => bytes[2] ^= 0x80,
            Forgery::NoQuestion => {
                bytes.drain(HEADER_LEN..end);
                bytes[5] = 0;
                bytes[HEADER_LEN..HEADER_LEN + 2].copy_from_slice(&[0, 0]);
            }
            Forgery::TwoQuestions => {
                let question = bytes[HEADER_LEN..end].to_vec();
                bytes.splice(end..end, question);
                bytes[5] = 2;
            }
            Forgery::Port => return Sending { elsewhere: true, ..bytes.into() },
            Forgery::Garbage => bytes = b"garbage".to_vec(),
            Forgery::Empty => bytes.clear(),
        }
        bytes.into()
    }

    fn mutated(&self, count: usize, seed: u64) -> Vec<Sending> {
        let mut random = Random::new(seed ^ u64::from(self.query.metadata.id));
        let (evil, end) = (self.evil(), self.end());
        // The bytes of the ID, the question count, and the question.
        let places: Vec<usize> = [0, 1, 4, 5].into_iter().chain(HEADER_LEN..end).collect();
        let mutant = |_| {
            let mut bytes = evil.clone();
            let mut changed = Vec::new();
            for _ in 0..=random.below(3) {
                let bit = (places[random.below(places.len())], 1 << random.below(8));
                // If the same bit changed twice, the reply would be correct.
                if !changed.contains(&bit) {
                    bytes[bit.0] ^= bit.1;
                    changed.push(bit);
                }
            }
            bytes.into()
        };
        (0..count).map(mutant).collect()
    }
}

/// Returns the length of `name` in wire form without compression. hickory-proto does not count the
/// root.
fn wire_len(name: &Name) -> usize {
    name.iter().map(|label| 1 + label.len()).sum::<usize>() + 1
}

/// Returns `record` without compression.
fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    record.emit(&mut encoder).expect("a record can be encoded");
    bytes
}

/// Adds OPT with the high bits of `code`, and with `error` as an Extended DNS Error.
fn with_opt(mut bytes: Vec<u8>, code: u16, error: Option<&[u8]>) -> Vec<u8> {
    bytes[11] += 1;
    bytes.extend([0, 0, 41, 0x04, 0xd0, (code >> 4) as u8, 0, 0, 0]);
    let option = error.map_or_else(Vec::new, |error| {
        let len = (error.len() as u16).to_be_bytes();
        [&[0, EXTENDED_ERROR][..], &len, error].concat()
    });
    bytes.extend((option.len() as u16).to_be_bytes());
    bytes.extend(option);
    bytes
}

fn truncated(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[2] |= 2;
    bytes
}

/// Returns `bytes` with an ID that differs from its own by `distance`, or by 1 if that is 0.
fn with_id(mut bytes: Vec<u8>, distance: u16) -> Vec<u8> {
    let id = u16::from_be_bytes([bytes[0], bytes[1]]).wrapping_add(distance.max(1));
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    bytes
}

/// The address in forged replies. No client must ever get it.
pub const EVIL: &str = "6.6.6.6";
const HEADER_LEN: usize = 12;
/// The bytes that a datagram can hold without fragments.
const UDP_MAX: usize = 1_232;
/// The EDNS option of RFC 8914.
const EXTENDED_ERROR: u8 = 15;

#[cfg(test)]
mod tests {
    use hickory_proto::op::{MessageType, OpCode, Query};
    use hickory_proto::rr::RecordType;

    use super::*;

    /// Returns what is sent to a query for A of `a.example.` with EDNS.
    fn sent(reply: &Reply, truth: &Answer, tcp: bool) -> Vec<Sending> {
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(name("a.example."), RecordType::A));
        query.set_edns(hickory_proto::op::Edns::new());
        let bytes = query.to_vec().unwrap();
        reply.sendings(&Asked { bytes: &bytes, query: &query, truth, tcp })
    }

    fn many(count: usize) -> Answer {
        let record = |n: usize| format!("a.example. 60 A 10.1.{}.{}", n / 250, n % 250);
        let records: Vec<String> = (0..count).map(record).collect();
        Answer::new(&records.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn large_answers_are_whole_over_tcp_and_truncated_over_udp() {
        for count in [100, 2_100, 4_000] {
            let truth = many(count);
            let whole = &sent(&Reply::Truth, &truth, true)[0].bytes;
            assert_eq!(Message::from_vec(whole).unwrap().answers.len(), count);
            let short = Message::from_vec(&sent(&Reply::Truth, &truth, false)[0].bytes).unwrap();
            assert!(short.metadata.truncation && short.answers.is_empty());
            let part = &sent(&Reply::Part(400), &truth, false)[0].bytes;
            let decoded = Message::from_vec(part).unwrap();
            assert!(part.len() <= 400 && decoded.answers.len() > 20 && decoded.metadata.truncation);
        }
    }

    #[test]
    fn codes_have_twelve_bits() {
        for code in 0..=23 {
            let reply = &sent(&Reply::Code(code), &Answer::default(), false)[0].bytes;
            assert_eq!(u16::from(Message::from_vec(reply).unwrap().metadata.response_code), code);
            let bare = &sent(&Reply::Bare(code as u8), &Answer::default(), false)[0].bytes;
            assert_eq!((bare.len(), u16::from(bare[3] & 0x0f)), (12, code & 0x0f));
        }
    }

    #[test]
    fn no_forgery_repeats_id_and_question() {
        let truth = many(1);
        let right = &sent(&Reply::Truth, &truth, false)[0].bytes;
        let forgeries = Reply::Forged(Forgery::ALL.into());
        let all = Reply::Each(vec![forgeries, Reply::Flood(300), Reply::Mutated(3_000, 1)]);
        for sending in sent(&all, &truth, false) {
            let repeats = |at: std::ops::Range<usize>| {
                sending.bytes.get(at.clone()).is_some_and(|bytes| bytes == &right[at])
            };
            // QR, ID, number of questions, question.
            let looks_right =
                repeats(0..2) && sending.bytes[2] & 0x80 != 0 && repeats(4..6) && repeats(12..27);
            assert!(sending.elsewhere || !looks_right, "{:?}", sending.bytes);
        }
    }

    #[test]
    fn replies_are_held_delayed_and_chosen_by_edns() {
        let truth = many(1);
        let late = Duration::from_secs(3);
        let reply = Reply::After(late, Box::new(Reply::Held(Box::new(Reply::Truth))));
        let sending = &sent(&reply, &truth, false)[0];
        assert_eq!((sending.after, sending.held), (late, true));
        let refused = sent(&Reply::ToEdns(Box::new(Reply::Bare(1))), &truth, false);
        assert_eq!(refused[0].bytes.len(), 12);
    }
}
