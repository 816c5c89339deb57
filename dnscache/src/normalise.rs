//! An upstream's reply reduced to what answers the question, in the one form that the cache keeps.
//!
//! Core. Does not know where the reply came from. Only records on the way from the question's name
//! through aliases to the asked type get in, so nothing an upstream adds can be cached under
//! another name (RFC 5452 section 6). What a record's data says is nobody's business here, but for
//! the names in it that were compressed.

mod message;

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use shared::wire::{rcode, rtype};

use crate::cache::Entry;
use crate::lifetime::Limits;
use message::{Message, Placed, Record, write};

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
    /// The first server is authoritative for us: kubedns. Its additional records and AA are kept.
    pub owned: bool,
}

/// Reduces `reply`, which was matched to its query already, to what answers `asked`.
///
/// Fails where it is malformed, loops or is a referral: clients get SERVFAIL then.
pub fn reduce(reply: &[u8], asked: &Asked<'_>, limits: &Limits) -> Result<Answer, Unusable> {
    reduce_chain(&[reply], asked, limits)
}

/// Reduces several replies to one answer: `replies[n + 1]` answers the alias at which `replies[n]`
/// ends. The response code is the last one's (RFC 6604 section 3).
pub fn reduce_chain(
    replies: &[&[u8]],
    asked: &Asked<'_>,
    limits: &Limits,
) -> Result<Answer, Unusable> {
    let messages =
        replies.iter().map(|reply| Message::decode(reply)).collect::<Result<Vec<_>, _>>()?;
    let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
        return Err(Unusable::Malformed);
    };
    let name = Name::read(&mut BinDecoder::new(asked.name)).map_err(|_| Unusable::Malformed)?;
    let chain = Chain::walk(&messages, name.clone(), asked)?;
    let negative = !chain.ended;
    let soa = last
        .authorities()
        .find(|record| record.rtype == rtype::SOA && negative && record.owner.zone_of(&chain.end));
    if is_referral(last, &chain, soa.is_some(), asked) {
        return Err(Unusable::Referral);
    }
    let negative_max = match soa {
        _ if !negative => u32::MAX,
        Some(soa) => soa.minimum().map_or(0, |minimum| limits.negative(soa.ttl, minimum)),
        None => 0,
    };
    let alone = messages.len() == 1 && asked.owned;
    let authorities = last.authorities().filter(|record| match record.rtype {
        rtype::SOA if negative => soa.is_some_and(|soa| std::ptr::eq(soa, *record)),
        RRSIG | NSEC | NSEC3 => asked.dnssec_ok,
        _ => alone,
    });
    let additionals = last.additionals().filter(|_| alone);
    let answers = chain.records.iter().map(|&record| (0, record, u32::MAX));
    let authorities = authorities.map(|record| (1, record, negative_max));
    let placed: Vec<Placed<'_, '_>> = answers
        .chain(authorities)
        .chain(additionals.map(|record| (2, record, u32::MAX)))
        .map(|(section, record, ttl_max)| Placed {
            record,
            section,
            ttl: limits.ttl(record.ttl).min(ttl_max),
        })
        .collect();
    let bytes = write(&name, asked.qtype, &placed).map_err(|_| Unusable::Malformed)?;
    let ttl_min = placed.iter().map(|placed| placed.ttl).min().unwrap_or(0);
    let authentic = messages.iter().all(|message| message.authentic);
    let mut entry = Entry::new(&bytes, last.rcode).ok_or(Unusable::Malformed)?.with_flags(
        asked.owned && first.authoritative,
        authentic,
        negative,
    );
    if asked.owned || messages.len() > 1 {
        entry = entry.following(chain.names(&placed));
    }
    let may_be_kept = match last.rcode {
        rcode::NOERROR => true,
        rcode::NXDOMAIN => negative,
        _ => false,
    };
    let lifetime_secs = if may_be_kept { ttl_min.min(negative_max) } else { 0 };
    let dangling = (negative && !chain.records.is_empty()).then(|| wire(&chain.end));
    Ok(Answer { entry, lifetime_secs, dangling })
}

/// Whether `message` only says who else may know (RFC 2308 section 2.2).
fn is_referral(message: &Message<'_>, chain: &Chain<'_>, soa: bool, asked: &Asked<'_>) -> bool {
    chain.records.is_empty()
        && message.rcode == rcode::NOERROR
        && !asked.owned
        && !soa
        && message.authorities().any(|record| record.rtype == rtype::NS)
}

/// The way from the question's name to its answer.
struct Chain<'m> {
    records: Vec<&'m Record<'m>>,
    /// The last name on it.
    end: Name,
    /// Whether records of the asked type stand there.
    ended: bool,
}

impl<'m> Chain<'m> {
    /// Walks `messages` one after the other, each from where the one before ends: none is believed
    /// about names that another one was asked about.
    fn walk(messages: &'m [Message<'m>], name: Name, asked: &Asked<'_>) -> Result<Self, Unusable> {
        let mut chain = Self { records: Vec::new(), end: name.clone(), ended: false };
        let mut seen = vec![name];
        for message in messages {
            while !chain.ended {
                let Some(target) = chain.step(message, asked) else { break };
                if seen.len() > LINKS_MAX || seen.contains(&target) {
                    return Err(Unusable::Loop);
                }
                seen.push(target.clone());
                chain.end = target;
            }
        }
        Ok(chain)
    }

    /// Takes what `message` says about the end of the chain; the target, where that is an alias.
    fn step(&mut self, message: &'m Message<'m>, asked: &Asked<'_>) -> Option<Name> {
        let here: Vec<&Record<'_>> =
            message.answers().filter(|record| record.owner == self.end).collect();
        let is_wanted =
            |record: &&Record<'_>| record.rtype == asked.qtype || asked.qtype == rtype::ANY;
        if here.iter().any(is_wanted) {
            let signs = |record: &&Record<'_>| asked.dnssec_ok && record.covers(asked.qtype);
            self.records.extend(here.iter().filter(|record| is_wanted(record) || signs(record)));
            self.ended = true;
            return None;
        }
        let alias = here.iter().find(|record| record.rtype == rtype::CNAME)?;
        // A DNAME above goes with the alias that was made from it (RFC 6672 section 3.1).
        let above = |record: &&Record<'_>| {
            (record.rtype == rtype::DNAME || asked.dnssec_ok && record.covers(rtype::DNAME))
                && record.owner.zone_of(&self.end)
                && record.owner != self.end
        };
        let known = self.records.len();
        let above: Vec<&Record<'_>> = message.answers().filter(above).collect();
        for record in above {
            if !self.records[..known].iter().any(|known| std::ptr::eq(*known, record)) {
                self.records.push(record);
            }
        }
        let signs = |record: &&&Record<'_>| asked.dnssec_ok && record.covers(rtype::CNAME);
        self.records.push(alias);
        self.records.extend(here.iter().filter(signs));
        alias.target().cloned()
    }

    /// The names that the answer depends on: all that own records in it, all that lead on.
    fn names(&self, placed: &[Placed<'_, '_>]) -> Vec<Box<[u8]>> {
        let records = placed.iter().map(|placed| placed.record);
        let records = records.filter(|record| record.rtype != rtype::SOA);
        let of_record = |record: &Record<'_>| {
            let target = record.target().filter(|_| record.rtype == rtype::SRV);
            [Some(&record.owner), target].into_iter().flatten().map(wire).collect::<Vec<_>>()
        };
        let mut names: Vec<Box<[u8]>> = records.flat_map(of_record).map(Into::into).collect();
        names.push(wire(&self.end).into());
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// `name` in wire form and lower case.
fn wire(name: &Name) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len());
    for label in name.iter() {
        wire.push(label.len() as u8); // a label has 63 bytes at most
        wire.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    wire.push(0);
    wire
}

/// Aliases followed at most: BIND and Unbound stop at as many.
pub const LINKS_MAX: usize = 11;
/// DNSSEC types that travel with others (RFC 4034, RFC 5155).
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query as Question, ResponseCode};
    use hickory_proto::rr::rdata::{A, CNAME, SOA};
    use hickory_proto::rr::{RData, Record, RecordType};

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
