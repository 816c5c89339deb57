//! Sends random replies of all types through the cache. The output must equal the input.
//!
//! Both sides use hickory's decoder. The comparison ignores TTLs, letter case and order.

use std::time::Duration;

use dnscache::cache::{Bounds, Cache, Lookup, Question};
use dnscache::lifetime::Limits;
use dnscache::normalise::{Asked, reduce};
use hickory_proto::op::{Message, MessageType, OpCode, Query as Asking};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, NULL, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use shared::clock::Moment;
use shared::wire::{MESSAGE_MAX, NameBuffer, Query, Reply, Transport};

/// Replies in a normal run.
const REPLIES: u64 = 100_000;

/// xorshift64, which generates the same replies each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }

    fn bytes(&mut self, len_max: u64) -> Vec<u8> {
        (0..=self.below(len_max)).map(|_| self.below(256) as u8).collect()
    }

    /// Returns a name that shares suffixes with others, with letters in any case.
    fn name(&mut self) -> Name {
        const LABELS: [&[u8]; 10] =
            [b"a", b"B", b"web", b"Shop", b"x-y", b"_tcp", b"example", b"EXAMPLE", b"com", b"\0."];
        const ENDS: [&[&[u8]]; 4] =
            [&[b"example", b"com"], &[b"Example", b"COM"], &[b"other"], &[]];
        let mut labels: Vec<&[u8]> =
            (0..self.below(5)).map(|_| LABELS[self.below(10) as usize]).collect();
        labels.extend(ENDS[self.below(4) as usize]);
        Name::from_labels(labels).unwrap()
    }

    fn data(&mut self, kind: u64) -> RData {
        match kind {
            0 => RData::A(A((self.below(1 << 32) as u32).into())),
            1 => RData::AAAA(AAAA(u128::from(self.below(1 << 47)).into())),
            2 => RData::NS(NS(self.name())),
            3 => RData::PTR(PTR(self.name())),
            4 => RData::MX(MX::new(self.below(9) as u16, self.name())),
            5 => RData::SRV(SRV::new(1, 2, self.below(65_536) as u16, self.name())),
            6 => {
                let texts = (0..=self.below(3)).map(|_| self.bytes(255)).collect::<Vec<_>>();
                RData::TXT(TXT::from_bytes(texts.iter().map(Vec::as_slice).collect()))
            }
            7 => RData::SOA(SOA::new(self.name(), self.name(), 1, 2, 3, 4, 300)),
            _ => {
                // DNSSEC, obsolete and private types, which all programs treat as opaque.
                let code = [46, 47, 48, 43, 99, 45, 61_000, 65_280][self.below(8) as usize];
                let rdata = NULL::with(self.bytes(300));
                RData::Unknown { code: RecordType::from(code), rdata }
            }
        }
    }

    /// Returns a reply to a question of some type, with aliases before the records of its answer.
    fn reply(&mut self) -> (Message, Name, RecordType) {
        let first = self.name();
        let kind = self.below(10);
        let rtype = self.data(kind).record_type();
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Asking::query(first.clone(), rtype));
        let mut seen = vec![first.clone()];
        let mut owner = first.clone();
        for _ in 0..self.below(4) {
            let target = self.name();
            if seen.contains(&target) {
                break;
            }
            let alias = RData::CNAME(CNAME(target.clone()));
            message.answers.push(Record::from_rdata(owner, self.ttl(), alias));
            seen.push(target.clone());
            owner = target;
        }
        for _ in 0..=self.below(12) {
            let data = self.data(kind);
            if data.record_type() == rtype {
                message.answers.push(Record::from_rdata(owner.clone(), self.ttl(), data));
            }
        }
        if !message.answers.iter().any(|record| record.record_type() == rtype) {
            // Opaque types are drawn at random, so that no record may have the question's type. The
            // reply must then be without aliases too.
            message.answers.clear();
        }
        (message, first, rtype)
    }

    fn ttl(&mut self) -> u32 {
        300 + self.below(300) as u32
    }
}

/// Returns sorted records as text without TTLs. Letters of names are in lower case.
fn texts(message: &Message) -> Vec<String> {
    let mut texts: Vec<String> = message
        .answers
        .iter()
        .map(|record| {
            let mut record = record.clone();
            record.ttl = 0;
            record.name = record.name.to_lowercase();
            match &record.data {
                RData::TXT(_) | RData::Unknown { .. } => format!("{record:?}"),
                _ => format!("{record:?}").to_lowercase(),
            }
        })
        .collect();
    texts.sort();
    texts
}

#[test]
fn replies_of_all_types_come_out_as_they_went_in() {
    let cache = Cache::new(Bounds { entries: 1_000, bytes: 8 << 20, stale_secs: 0 });
    let limits = Limits { ttl_min: 0, ttl_max: 86_400, negative_max: 300 };
    let stored = Moment::default() + Duration::from_secs(1_000);
    let mut random = Random(0x5eed_cafe);
    let mut answered = 0;
    for number in 0..REPLIES {
        let (message, name, rtype) = random.reply();
        let bytes = message.to_vec().unwrap();
        let mut asking = Message::new(number as u16, MessageType::Query, OpCode::Query);
        asking.add_query(Asking::query(name, rtype));
        let asking = asking.to_vec().unwrap();
        let mut buffer = NameBuffer::new();
        let query = Query::screen(&asking, Transport::Tcp, &mut buffer).unwrap();
        let question = Question::of(&query);
        let asked = Asked {
            name: question.name,
            qtype: question.qtype,
            dnssec_ok: false,
            owned: false,
            is_theirs: &|_, _| true,
        };
        let answer = reduce(&bytes, &asked, &limits).unwrap();
        if message.answers.is_empty() {
            assert_eq!(answer.lifetime_secs, 0, "{message}");
            continue;
        }
        answered += 1;
        cache.insert(&question, &answer.entry, answer.lifetime_secs, stored);
        let later = stored + Duration::from_secs(random.below(300));
        let mut out = vec![0; MESSAGE_MAX];
        let mut reply = Reply::new(&query, &mut out);
        let found = cache.get(&query, later, &mut reply);
        assert!(matches!(found, Lookup::Hit | Lookup::Due), "{message}");
        let len = reply.finish();
        let came = Message::from_vec(&out[..len]).unwrap();
        assert_eq!(texts(&came), texts(&message), "reply {number}");
        assert_eq!(came.queries, Message::from_vec(&asking).unwrap().queries);
        let age = later.since(stored).as_secs() as u32;
        let (low, high) = (300 - age.min(300), 600 - age);
        assert!(came.answers.iter().all(|record| (low..high).contains(&record.ttl)), "{came}");
    }
    assert!(answered > REPLIES / 2, "{answered} of {REPLIES} replies had answers");
}
