//! Every record of an RRset must be first equally often, for every type, every chain of aliases and
//! all IDs of a client. Tested by tables from an upstream's reply to a client's reply.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query as Question};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, NULL, PTR, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use shared::clock::Moment;
use shared::wire::{HEADER_LEN, NameBuffer, Query, Reply, Transport, name_end};

use crate::cache::{self, Bounds, Cache, Lookup};
use crate::lifetime::Limits;
use crate::normalise::{Asked, reduce, wire};

const LIMITS: Limits = Limits { ttl_min: 0, ttl_max: 86_400, negative_max: 300 };
const OWNER: &str = "a.example.";
/// Replies that are counted.
const DRAWS: u32 = 3_000;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Data number `index` of an RRset of `rtype`.
fn data(rtype: RecordType, index: u16) -> RData {
    let [_, byte] = index.to_be_bytes();
    let host =
        name(&format!("h{}.b.example.", "x".repeat(usize::from(index % 7)) + &index.to_string()));
    match rtype {
        RecordType::A => RData::A(A::new(10, 0, 0, byte)),
        RecordType::AAAA => RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, index)),
        RecordType::SRV => RData::SRV(SRV::new(0, 10, 80, host)),
        RecordType::PTR => RData::PTR(PTR(host)),
        RecordType::NS => RData::NS(NS(host)),
        RecordType::MX => RData::MX(MX::new(10, host)),
        RecordType::TXT => {
            RData::TXT(TXT::new(vec![index.to_string() + &"t".repeat(usize::from(index * 3 % 11))]))
        }
        other => {
            let rdata = NULL::with(vec![byte; 1 + usize::from(index * 5 % 9)]);
            RData::Unknown { code: other, rdata }
        }
    }
}

/// An upstream's reply: `aliases` lead to `count` records of `rtype`, and each host in their data
/// has addresses in the additional section.
fn said(rtype: RecordType, count: u16, aliases: usize) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Response, OpCode::Query);
    message.add_query(Question::query(name(OWNER), rtype));
    let mut owner = name(OWNER);
    for alias in 0..aliases {
        let target = name(&format!("lb{alias}.cdn.net."));
        message.add_answer(Record::from_rdata(owner, 30, RData::CNAME(CNAME(target.clone()))));
        owner = target;
    }
    for index in 0..count {
        let data = data(rtype, index);
        if let RData::SRV(SRV { target, .. }) | RData::NS(NS(target)) = &data {
            for address in 0..=index % 3 {
                let address = RData::A(A::new(10, 1, index as u8, address as u8));
                message.add_additional(Record::from_rdata(target.clone(), 30, address));
            }
        }
        message.add_answer(Record::from_rdata(owner.clone(), 30, data));
    }
    message.to_vec().unwrap()
}

/// A cache that holds the answer of `said`, asked again and again.
struct World {
    cache: Cache,
    question: Vec<u8>,
}

impl World {
    fn new(rtype: RecordType, said: &[u8], owned: bool) -> Self {
        let wire = wire(&name(OWNER));
        let asked = Asked {
            name: &wire,
            qtype: rtype.into(),
            dnssec_ok: false,
            owned,
            is_theirs: &|_, _| true,
        };
        let answer = reduce(said, &asked, &LIMITS).unwrap();
        let bounds = Bounds { entries: 10, bytes: 1 << 20, stale_secs: 0 };
        let cache = Cache::new(bounds);
        let mut question = [&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1], &wire[..]].concat();
        question.extend(u16::from(rtype).to_be_bytes());
        question.extend([0, 1, 0, 0, 41, 2, 200, 0, 0, 0, 0, 0, 0]); // OPT, 712 bytes
        let world = Self { cache, question };
        let mut buffer = NameBuffer::new();
        let query = Query::screen(&world.question, Transport::Tcp, &mut buffer).unwrap();
        world.cache.insert(&cache::Question::of(&query), &answer.entry, 30, now());
        world
    }

    fn ask(&self, id: u16, transport: Transport) -> Vec<u8> {
        let mut message = self.question.clone();
        message[..2].copy_from_slice(&id.to_be_bytes());
        let mut buffer = NameBuffer::new();
        let query = Query::screen(&message, transport, &mut buffer).unwrap();
        let mut out = vec![0; 65_535];
        let mut reply = Reply::new(&query, &mut out);
        assert_eq!(self.cache.get(&query, now(), &mut reply), Lookup::Hit);
        let len = reply.finish();
        out.truncate(len);
        out
    }
}

fn decoded(reply: &[u8]) -> Message {
    Message::from_vec(reply).unwrap()
}

/// Returns the data of the answers after `aliases`, as in the message.
fn answers(reply: &[u8], aliases: usize) -> Vec<&[u8]> {
    let number = |at: usize| usize::from(u16::from_be_bytes([reply[at], reply[at + 1]]));
    let mut at = name_end(reply, HEADER_LEN).unwrap() + 4;
    let record = |_| {
        while reply[at] > 0 && reply[at] < 0xc0 {
            at += 1 + usize::from(reply[at]);
        }
        let data = at + if reply[at] == 0 { 11 } else { 12 };
        at = data + number(data - 2);
        &reply[data..at]
    };
    (0..number(6)).map(record).skip(aliases).collect()
}

fn now() -> Moment {
    Moment::default() + Duration::from_secs(1_000)
}

fn sorted<'m>(records: impl IntoIterator<Item = &'m Record>) -> BTreeSet<String> {
    records.into_iter().map(ToString::to_string).collect()
}

/// The ID of query number `n` of a client.
type Ids = fn(u32) -> u16;

/// How clients choose their IDs.
const PATTERNS: [(&str, Ids); 6] = [
    ("constant", |_| 0),
    ("one up", |n| n as u16),
    ("two up", |n| 2 * n as u16),
    ("one down", |n| !(n as u16)),
    ("bytes swapped", |n| (n as u16).swap_bytes()),
    ("random", |n| {
        // xorshift32 of a spread seed: the same IDs each time.
        let mut random = (n + 1).wrapping_mul(0x85eb_ca6b);
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        (random.wrapping_mul(0xc2b2_ae35) >> 16) as u16
    }),
];

const TYPES: [RecordType; 8] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::NS,
    RecordType::MX,
    RecordType::TXT,
    RecordType::Unknown(65_280),
];

/// Fails if one of `count` records was first more or less often than a share of `1 / count` allows:
/// by a tenth, and for random IDs by four standard deviations more.
#[track_caller]
fn check_shares(firsts: &BTreeMap<Vec<u8>, u32>, count: u16, is_random: bool, what: &str) {
    let fair = firsts.values().sum::<u32>() / u32::from(count);
    let allowed = fair / 10 + if is_random { 4 * fair.isqrt() } else { 0 };
    assert_eq!(firsts.len(), usize::from(count), "{what}: {firsts:?}");
    for (record, &times) in firsts {
        assert!(times.abs_diff(fair) <= allowed, "{what}: {record:?} {times} of {fair}");
    }
}

#[test]
fn each_record_is_first_equally_often() {
    for rtype in TYPES {
        for (count, aliases, owned) in [(2, 0, false), (15, 0, true), (5, 1, false), (4, 2, true)] {
            let said = said(rtype, count, aliases);
            let expected = decoded(&said);
            // One row of each type gets all patterns, because they are independent of its records.
            let patterns = if count == 15 { PATTERNS.len() } else { 1 };
            for (pattern, id) in PATTERNS.into_iter().take(patterns) {
                let what = format!("{rtype} {count} {aliases} {owned} {pattern}");
                let world = World::new(rtype, &said, owned);
                let mut firsts = [BTreeMap::new(), BTreeMap::new()];
                for draw in 0..DRAWS {
                    let reply = world.ask(id(draw), Transport::Tcp);
                    let first = answers(&reply, aliases)[0].to_vec();
                    *firsts[draw as usize % 2].entry(first).or_insert(0) += 1;
                    if draw % 100 == 0 {
                        let reply = decoded(&reply);
                        assert_eq!(sorted(&reply.answers), sorted(&expected.answers), "{what}");
                        let additionals = expected.additionals.iter().filter(|_| owned);
                        assert_eq!(sorted(&reply.additionals), sorted(additionals), "{what}");
                    }
                }
                // A client may use only every other reply.
                for firsts in firsts {
                    check_shares(&firsts, count, pattern == "random", &what);
                }
            }
        }
    }
}

#[test]
fn a_reply_that_is_cut_shows_each_record_equally_often() {
    for rtype in TYPES {
        for aliases in [0, 1] {
            let count = 90;
            let what = format!("{rtype} {aliases}");
            let said = said(rtype, count, aliases);
            let expected = sorted(&decoded(&said).answers);
            let world = World::new(rtype, &said, true);
            let mut shown = BTreeMap::new();
            for draw in 0..DRAWS {
                let reply = world.ask(0, Transport::Udp);
                for record in answers(&reply, aliases) {
                    *shown.entry(record.to_vec()).or_insert(0) += 1;
                }
                if draw % 50 == 0 {
                    let reply = decoded(&reply);
                    assert!(reply.truncation && reply.additionals.is_empty(), "{what}");
                    assert!(expected.is_superset(&sorted(&reply.answers)), "{what}");
                }
            }
            check_shares(&shown, count, false, &what);
        }
    }
}

#[test]
fn an_owner_that_is_written_out_stays_in_front() {
    // The target of the alias has other letter case, so that pointers are impossible.
    let mut message = Message::from_vec(&said(RecordType::TXT, 3, 1)).unwrap();
    for record in &mut message.answers[1..] {
        record.name = name("LB0.CDN.net.");
    }
    let said = message.to_vec().unwrap();
    let world = World::new(RecordType::TXT, &said, false);
    let mut firsts = BTreeMap::new();
    for _ in 0..DRAWS {
        for transport in [Transport::Udp, Transport::Tcp] {
            let reply = world.ask(0, transport);
            assert_eq!(sorted(&decoded(&reply).answers), sorted(&message.answers));
            *firsts.entry(answers(&reply, 1)[0].to_vec()).or_insert(0) += 1;
        }
    }
    check_shares(&firsts, 3, false, "written out");
}

#[test]
fn what_would_be_too_long_if_it_took_turns_is_kept_short() {
    // The first name server is written out, the others point into its name.
    let mut said = vec![0, 7, 0x81, 0x80, 0, 1, 0x03, 0xe8, 0, 0, 0, 0];
    said.extend_from_slice(b"\x01a\x07example\0\0\x02\0\x01");
    let label = [&[60][..], &[b'z'; 60]].concat();
    let zone = [&label[..], &label, b"\0"].concat();
    for index in 0..1_000_u16 {
        said.extend_from_slice(b"\xc0\x0c\0\x02\0\x01\0\0\0\x1e\0");
        let [h, l] = index.to_be_bytes();
        let host = [2, b'a' + h, l];
        let rest = if index == 0 { &zone[..] } else { b"\xc0\x2a" };
        said.push((host.len() + rest.len()) as u8);
        said.extend([&host[..], rest].concat());
    }
    let wire = wire(&name(OWNER));
    let asked = Asked {
        name: &wire,
        qtype: RecordType::NS.into(),
        dnssec_ok: false,
        owned: false,
        is_theirs: &|_, _| true,
    };
    let answer = reduce(&said, &asked, &LIMITS).unwrap();
    assert_eq!(answer.entry.records(), 1_000);
    assert!(answer.entry.len() <= said.len(), "{} {}", answer.entry.len(), said.len());
}
