//! An upstream's reply reduced to what answers the question, in the one form that the cache keeps.
//!
//! Core. Decodes and encodes with hickory-proto; does not know where the reply came from nor for
//! how long it stays. Only records on the way from the question's name through aliases to the asked
//! type get in, so nothing an upstream adds can be cached under another name (RFC 5452 section 6).

use hickory_proto::op::{Message, MessageType, OpCode, Query as Question};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use shared::wire::{HEADER_LEN, rcode};

use crate::cache::Entry;
use crate::lifetime::Limits;

/// Why a reply is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It cannot be decoded, or promises more records than it can hold.
    #[error("the upstream's reply is malformed")]
    Malformed,
    /// Its aliases form a loop, or are more than [`LINKS_MAX`].
    #[error("the upstream's aliases do not end")]
    Loop,
    /// It refers to other servers: a forwarder does not follow.
    #[error("the upstream refers to other servers")]
    Referral,
}

/// A reply, reduced.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the cache keeps and clients get.
    pub entry: Entry,
    /// How long it may be kept, in seconds; 0 means not at all.
    pub lifetime_secs: u32,
    /// The alias at which the answer ends without records of the asked type, in wire form and lower
    /// case: its target may be somebody else's to answer.
    pub dangling: Option<Vec<u8>>,
}

/// What is asked, and of whom: as much as decides what may be believed.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The owner name in wire form, lower case.
    pub name: &'a [u8],
    /// QTYPE.
    pub qtype: u16,
    /// DO.
    pub dnssec_ok: bool,
    /// The server is authoritative for us: kubedns. Its additional records and AA are kept.
    pub owned: bool,
}

/// Reduces `reply`, which was matched to its query already, to what answers `asked`.
///
/// Fails where it is malformed, loops or is a referral: clients get SERVFAIL then.
pub fn reduce(reply: &[u8], asked: &Asked<'_>, limits: &Limits) -> Result<Answer, Unusable> {
    let message = decode(reply)?;
    join(&[message], asked, limits)
}

/// Reduces several replies to one answer: `replies[n + 1]` answers the alias at which `replies[n]`
/// ends. The response code is the last one's (RFC 6604 section 3).
pub fn reduce_chain(
    replies: &[&[u8]],
    asked: &Asked<'_>,
    limits: &Limits,
) -> Result<Answer, Unusable> {
    let messages = replies.iter().map(|reply| decode(reply)).collect::<Result<Vec<_>, _>>()?;
    join(&messages, asked, limits)
}

fn decode(reply: &[u8]) -> Result<Message, Unusable> {
    // The decoder trusts the counts; eleven bytes are the least a record takes.
    let counts = reply.get(6..HEADER_LEN).ok_or(Unusable::Malformed)?;
    let records: usize =
        counts.chunks_exact(2).map(|c| usize::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    if records * 11 > reply.len() {
        return Err(Unusable::Malformed);
    }
    Message::from_vec(reply).map_err(|_| Unusable::Malformed)
}

fn join(messages: &[Message], asked: &Asked<'_>, limits: &Limits) -> Result<Answer, Unusable> {
    let last = messages.last().ok_or(Unusable::Malformed)?;
    let chain = chain(messages, asked)?;
    let code = u16::from(last.metadata.response_code);
    let negative = !chain.ended;
    let soa = last.authorities.iter().find(|record| matches!(record.data, RData::SOA(_)));
    if negative && code == rcode::NOERROR && soa.is_none() && !asked.owned {
        let refers = |record: &&Record| record.record_type() == RecordType::NS;
        if chain.records.is_empty() && last.authorities.iter().any(|record| refers(&record)) {
            return Err(Unusable::Referral);
        }
    }
    let mut lifetime = chain.records.iter().map(|record| limits.ttl(record.ttl)).min();
    let mut authorities: Vec<Record> = last
        .authorities
        .iter()
        .filter(|record| belongs_to_authority(record, asked, negative))
        .cloned()
        .collect();
    if negative {
        let kept = match soa.map(|soa| (&soa.data, soa.ttl)) {
            Some((RData::SOA(data), ttl)) => limits.negative(ttl, data.minimum),
            _ => 0,
        };
        lifetime = Some(lifetime.unwrap_or(kept).min(kept));
        for record in &mut authorities {
            record.ttl = record.ttl.min(kept);
        }
    }
    let additionals = if asked.owned { last.additionals.clone() } else { Vec::new() };
    let question = Question::query(name_of(asked.name)?, RecordType::from(asked.qtype));
    let mut reduced = Message::new(0, MessageType::Response, OpCode::Query);
    reduced.add_query(question);
    let dangling = (negative && !chain.records.is_empty()).then(|| wire(&chain.end)).flatten();
    reduced.answers = chain.records;
    reduced.authorities = authorities;
    reduced.additionals = additionals;
    for record in
        reduced.answers.iter_mut().chain(&mut reduced.authorities).chain(&mut reduced.additionals)
    {
        record.ttl = limits.ttl(record.ttl);
    }
    let bytes = reduced.to_vec().map_err(|_| Unusable::Malformed)?;
    let all_authentic = messages.iter().all(|message| message.metadata.authentic_data);
    let entry = Entry::new(&bytes, code).ok_or(Unusable::Malformed)?.with_flags(
        asked.owned && last.metadata.authoritative,
        all_authentic,
        negative,
    );
    let lifetime_secs = match code {
        rcode::NOERROR | rcode::NXDOMAIN => lifetime.unwrap_or(0),
        _ => 0,
    };
    Ok(Answer { entry, lifetime_secs, dangling })
}

/// The way from the question's name to its answer.
struct Chain {
    records: Vec<Record>,
    /// The last name on it.
    end: Name,
    /// Whether records of the asked type stand there.
    ended: bool,
}

fn chain(messages: &[Message], asked: &Asked<'_>) -> Result<Chain, Unusable> {
    let wanted = RecordType::from(asked.qtype);
    let answers = || messages.iter().flat_map(|message| &message.answers);
    let mut chain = Chain { records: Vec::new(), end: name_of(asked.name)?, ended: false };
    for _ in 0..=LINKS_MAX {
        let at_end: Vec<&Record> = answers()
            .filter(|record| record.dns_class == DNSClass::IN && record.name == chain.end)
            .collect();
        let is_wanted = |record: &&&Record| {
            let rtype = record.record_type();
            rtype == wanted
                || wanted == RecordType::ANY
                || (asked.dnssec_ok && rtype == RecordType::RRSIG)
        };
        let found: Vec<&&Record> = at_end.iter().filter(is_wanted).collect();
        if found.iter().any(|record| record.record_type() != RecordType::RRSIG) {
            chain.records.extend(found.into_iter().map(|record| (*record).clone()));
            chain.ended = true;
            return Ok(chain);
        }
        for record in answers().filter(|record| {
            record.record_type() == RecordType::DNAME
                && record.name.zone_of(&chain.end)
                && record.name != chain.end
        }) {
            if !chain.records.contains(record) {
                chain.records.push(record.clone());
            }
        }
        let alias = at_end.iter().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((*record, target.0.clone())),
            _ => None,
        });
        let Some((record, target)) = alias else { return Ok(chain) };
        chain.records.push(record.clone());
        chain.end = target.to_lowercase();
        if chain.records.iter().any(|record| record.name == chain.end) {
            return Err(Unusable::Loop);
        }
    }
    Err(Unusable::Loop)
}

/// SOA of a negative answer, proofs for who asked for them, and whatever kubedns says.
fn belongs_to_authority(record: &Record, asked: &Asked<'_>, negative: bool) -> bool {
    let rtype = record.record_type();
    let proof = matches!(rtype, RecordType::RRSIG | RecordType::NSEC | RecordType::NSEC3);
    asked.owned || (negative && rtype == RecordType::SOA) || (asked.dnssec_ok && proof)
}

fn name_of(wire: &[u8]) -> Result<Name, Unusable> {
    Name::from_labels(shared::wire::labels(wire)).map_err(|_| Unusable::Malformed)
}

fn wire(name: &Name) -> Option<Vec<u8>> {
    let mut wire = Vec::new();
    for label in name.iter() {
        wire.push(u8::try_from(label.len()).ok()?);
        wire.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    wire.push(0);
    Some(wire)
}

/// Aliases followed at most: BIND and Unbound stop at as many.
pub const LINKS_MAX: usize = 11;

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::rdata::{A, CNAME, SOA};

    use super::*;

    const LIMITS: Limits = Limits { ttl_min: 0, ttl_max: 86_400, negative_max: 300 };

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// `owner ttl type rdata`.
    fn record(text: &str) -> Record {
        let words: Vec<&str> = text.split(' ').collect();
        let data = match words[2] {
            "A" => RData::A(A(words[3].parse().unwrap())),
            "CNAME" => RData::CNAME(CNAME(name(words[3]))),
            "NS" => RData::NS(hickory_proto::rr::rdata::NS(name(words[3]))),
            "SOA" => {
                let minimum = words[3].parse().unwrap();
                RData::SOA(SOA::new(name("ns."), name("h."), 1, 2, 3, 4, minimum))
            }
            other => panic!("{other}"),
        };
        Record::from_rdata(name(words[0]), words[1].parse().unwrap(), data)
    }

    fn reply(code: u16, answers: &[&str], authorities: &[&str]) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.metadata.response_code = ResponseCode::from(0, code as u8);
        message.add_query(Question::query(name("a.example."), RecordType::A));
        message.answers = answers.iter().map(|text| record(text)).collect();
        message.authorities = authorities.iter().map(|text| record(text)).collect();
        message.to_vec().unwrap()
    }

    const ASKED: Asked<'_> =
        Asked { name: b"\x01a\x07example\0", qtype: 1, dnssec_ok: false, owned: false };

    /// Records kept, lifetime, dangling or not; or why nothing.
    fn check(code: u16, answers: &[&str], authorities: &[&str]) -> String {
        match reduce(&reply(code, answers, authorities), &ASKED, &LIMITS) {
            Ok(answer) => format!(
                "{} kept {} s{}",
                answer.entry.records(),
                answer.lifetime_secs,
                if answer.dangling.is_some() { " dangling" } else { "" }
            ),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn only_the_way_to_the_answer_is_kept() {
        let rows: &[(u16, &[&str], &[&str], &str)] = &[
            (0, &["a.example. 30 A 10.0.0.1"], &[], "1 kept 30 s"),
            (0, &["A.Example. 30 A 10.0.0.1", "a.example. 9 A 10.0.0.2"], &[], "2 kept 9 s"),
            (0, &["a.example. 30 A 10.0.0.1", "b.example. 1 A 10.0.0.9"], &[], "1 kept 30 s"),
            (0, &["a.example. 30 A 10.0.0.1"], &["example. 5 NS ns."], "1 kept 30 s"),
            (0, &["a.example. 0 A 10.0.0.1"], &[], "1 kept 0 s"),
            (0, &["a.example. 2147483648 A 10.0.0.1"], &[], "1 kept 0 s"),
            (0, &["b.other. 20 A 10.0.0.1", "a.example. 9 CNAME b.other."], &[], "2 kept 9 s"),
            (0, &["a.example. 9 CNAME b.other."], &[], "1 kept 0 s dangling"),
            (0, &["a.example. 9 CNAME b."], &["b. 60 SOA 5"], "2 kept 5 s dangling"),
            (0, &["a.example. 9 CNAME a.example."], &[], "Loop"),
            (0, &["a.example. 9 CNAME b.", "b. 9 CNAME a.example."], &[], "Loop"),
            (3, &[], &["example. 900 SOA 60"], "1 kept 60 s"),
            (3, &[], &["example. 30 SOA 60"], "1 kept 30 s"),
            (0, &[], &["example. 9000 SOA 9000"], "1 kept 300 s"),
            (3, &[], &[], "0 kept 0 s"),
            (0, &[], &[], "0 kept 0 s"),
            (0, &[], &["example. 30 NS ns.example."], "Referral"),
            (2, &[], &[], "0 kept 0 s"),
        ];
        for (code, answers, authorities, expected) in rows {
            assert_eq!(
                check(*code, answers, authorities),
                *expected,
                "{answers:?} {authorities:?}"
            );
        }
        let chain: Vec<String> = (0..12).map(|n| format!("{n}. 9 CNAME {}.", n + 1)).collect();
        let first = ["a.example. 9 CNAME 0.".to_owned()];
        let all: Vec<&str> = first.iter().chain(&chain).map(String::as_str).collect();
        assert_eq!(check(0, &all, &[]), "Loop");
    }

    #[test]
    fn replies_are_joined_and_the_last_one_decides_the_code() {
        let first = reply(0, &["a.example. 9 CNAME b."], &[]);
        let second = reply(3, &[], &[". 60 SOA 60"]);
        let answer = reduce_chain(&[&first, &second], &ASKED, &LIMITS).unwrap();
        assert_eq!((answer.entry.rcode(), answer.entry.records()), (3, 2));
        let second = reply(0, &["b. 60 A 10.0.0.1"], &[]);
        let answer = reduce_chain(&[&first, &second], &ASKED, &LIMITS).unwrap();
        assert_eq!((answer.entry.rcode(), answer.lifetime_secs, answer.dangling), (0, 9, None));
    }

    #[test]
    fn counts_that_promise_too_much_are_malformed() {
        let mut bomb = reply(0, &["a.example. 30 A 10.0.0.1"], &[]);
        for cut in 0..bomb.len() {
            assert!(reduce(&bomb[..cut], &ASKED, &LIMITS).is_err(), "cut at {cut}");
        }
        bomb[6..8].fill(0xff);
        assert_eq!(reduce(&bomb, &ASKED, &LIMITS).map(|_| ()), Err(Unusable::Malformed));
    }
}
