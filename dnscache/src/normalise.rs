//! Reduces an upstream's reply to the records that answer the question, in the form that the cache
//! stores.
//!
//! Core. Independent of the source of the reply. Only records on the path from the question's name
//! through aliases to the asked type are kept, so records that an upstream adds cannot be cached
//! under another name (RFC 5452 section 6). Record data is not interpreted, except for names that
//! can be compressed.

mod message;
mod rows;
mod write;

use std::borrow::Cow;
use std::collections::HashMap;

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use shared::name::Text;
use shared::wire::{rcode, rtype};

use crate::cache::Entry;
use crate::lifetime::Limits;
use message::{Message, Record};
pub use rows::{Data, Row, Rows};
use write::{Placed, Written, write};

/// Why a reply is unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It cannot be decoded, or its counts exceed what it can hold.
    #[error("the upstream's reply is malformed")]
    Malformed,
    /// Its aliases form a loop, or there are more than [`LINKS_MAX`].
    #[error("the upstream's aliases do not end")]
    Loop,
    /// It refers to other servers. A forwarder does not follow referrals.
    #[error("the upstream refers to other servers")]
    Referral,
    /// It has answers, but not for the name that was asked.
    #[error("the upstream's reply does not answer the question")]
    Unrelated,
}

/// A reduced reply.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The records for the cache and for clients.
    pub entry: Entry,
    /// How long it can be cached, in seconds; 0 means that it must not be.
    pub lifetime_secs: u32,
    /// The alias at which the answer ends without records of the asked type, in lower-case wire
    /// form. Another server may have to answer for its target.
    pub dangling: Option<Box<[u8]>>,
}

/// A question, and the trust in the server that was asked.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The owner name in wire form, lower case.
    pub name: &'a [u8],
    /// QTYPE.
    pub qtype: u16,
    /// DO.
    pub dnssec_ok: bool,
    /// Whether the first server is authoritative for dnscache, as kubedns is. Its additional
    /// records and AA are then kept.
    pub owned: bool,
    /// Returns whether the server of a reply can also answer for the second name, in lower-case
    /// wire form. The first name is the alias that the reply answers, `None` for the first reply.
    /// Records of names that belong to other routes are dropped.
    pub is_theirs: &'a IsTheirs<'a>,
}

/// See [`Asked::is_theirs`].
pub type IsTheirs<'a> = dyn Fn(Option<&[u8]>, &[u8]) -> bool + 'a;

impl std::fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, qtype, dnssec_ok, owned, .. } = self;
        write!(f, "{} {qtype} {dnssec_ok} {owned}", Text(name))
    }
}

/// Reduces `reply`, which must have been matched to its query, to the records that answer `asked`.
///
/// Fails if it is malformed, loops or is a referral. Clients then get SERVFAIL.
pub fn reduce(reply: &[u8], asked: &Asked<'_>, limits: &Limits) -> Result<Answer, Unusable> {
    reduce_chain(&[reply], asked, limits)
}

/// Reduces several replies to one answer: `replies[n + 1]` answers the alias at which `replies[n]`
/// ends. The response code is the last one's (RFC 6604 section 3).
pub fn reduce_chain<'r>(
    replies: &[&'r [u8]],
    asked: &Asked<'_>,
    limits: &Limits,
) -> Result<Answer, Unusable> {
    let name_bytes_max = if asked.owned { usize::MAX } else { NAME_BYTES_MAX };
    let decode = |reply: &&'r [u8]| Message::decode(reply, name_bytes_max);
    let messages = replies.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
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
    if chain.records.is_empty() && last.rcode == rcode::NOERROR && last.has_answers {
        return Err(Unusable::Unrelated);
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
    let answers = chain.records.iter().map(|record| (0, &**record, u32::MAX));
    let authorities = authorities.map(|record| (1, record, negative_max));
    let mut placed: Vec<Placed<'_, '_>> = answers
        .chain(authorities)
        .chain(additionals.map(|record| (2, record, u32::MAX)))
        .map(|(section, record, ttl_max)| Placed {
            record,
            section,
            ttl: limits.ttl(record.ttl).min(ttl_max),
        })
        .collect();
    level(&mut placed);
    let written = write(&name, asked.qtype, &placed).ok_or(Unusable::Malformed)?;
    let ttl_min = placed.iter().map(|placed| placed.ttl).min().unwrap_or(0);
    let authentic = messages.iter().all(|message| message.authentic);
    let mut entry =
        entry(&written, last)?.with_flags(asked.owned && first.authoritative, authentic, negative);
    if messages.iter().any(|message| message.truncated) {
        entry = entry.truncated();
    }
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

/// Returns the entry of the answer `written` from `last`. The ID of `last` selects where its RRsets
/// begin, because it was random and no upstream waits for it any more.
fn entry(written: &Written, last: &Message<'_>) -> Result<Entry, Unusable> {
    let entry = Entry::new(&written.bytes, last.rcode).ok_or(Unusable::Malformed)?;
    let entry = entry.starting_at(last.id);
    Ok(if written.takes_turns { entry } else { entry.in_fixed_order() })
}

/// Gives all records of an RRset the lowest TTL in it (RFC 2181 section 5.2).
///
/// Signatures of different types are not an RRset, and keep their TTLs.
fn level(placed: &mut [Placed<'_, '_>]) {
    if placed.iter().all(|other| other.ttl == placed[0].ttl) {
        return;
    }
    let mut lowest = HashMap::new();
    let rrset = |placed: &Placed<'_, '_>| (placed.section, placed.record.rtype);
    for placed in placed.iter() {
        let ttl = lowest.entry((&placed.record.owner, rrset(placed))).or_insert(placed.ttl);
        *ttl = placed.ttl.min(*ttl);
    }
    for placed in placed.iter_mut().filter(|placed| placed.record.rtype != RRSIG) {
        placed.ttl = lowest[&(&placed.record.owner, rrset(placed))];
    }
}

/// Returns whether `message` only contains other servers (RFC 2308 section 2.2). From a server that
/// offers recursion, the same records mean NODATA.
fn is_referral(message: &Message<'_>, chain: &Chain<'_>, soa: bool, asked: &Asked<'_>) -> bool {
    chain.records.is_empty()
        && message.rcode == rcode::NOERROR
        && !asked.owned
        && !message.recursive
        && !soa
        && message.authorities().any(|record| record.rtype == rtype::NS)
}

/// The path from the question's name to its answer.
struct Chain<'m> {
    records: Vec<Cow<'m, Record<'m>>>,
    /// The last name on the path.
    end: Name,
    /// Whether that name has records of the asked type.
    ended: bool,
}

impl<'m> Chain<'m> {
    /// Walks through `messages` in order, each from the name at which the one before ends. A
    /// message is not trusted for names about which another server was asked.
    fn walk(messages: &'m [Message<'m>], name: Name, asked: &Asked<'_>) -> Result<Self, Unusable> {
        let mut chain = Self { records: Vec::new(), end: name.clone(), ended: false };
        let mut seen = vec![name];
        for (index, message) in messages.iter().enumerate() {
            let from = (index > 0).then(|| wire(&chain.end));
            while !chain.ended {
                let Some(target) = chain.step(message, asked) else { break };
                if seen.len() > LINKS_MAX || seen.contains(&target) {
                    return Err(Unusable::Loop);
                }
                let is_theirs = (asked.is_theirs)(from.as_deref(), &wire(&target));
                seen.push(target.clone());
                chain.end = target;
                if !is_theirs {
                    break;
                }
            }
        }
        Ok(chain)
    }

    /// Adds the records of `message` for the end of the chain. Returns the target if the end is an
    /// alias.
    fn step(&mut self, message: &'m Message<'m>, asked: &Asked<'_>) -> Option<Name> {
        let here: Vec<&Record<'_>> =
            message.answers().filter(|record| record.owner == self.end).collect();
        let is_wanted =
            |record: &&Record<'_>| record.rtype == asked.qtype || asked.qtype == rtype::ANY;
        if here.iter().any(is_wanted) {
            let signs = |record: &&Record<'_>| asked.dnssec_ok && record.covers(asked.qtype);
            // Ordered by RRset, because signatures may be between the records.
            let wanted = here.iter().filter(|record| is_wanted(record));
            let signatures = here.iter().filter(|it| !is_wanted(it) && signs(it));
            self.records.extend(wanted.chain(signatures).map(|record| Cow::Borrowed(*record)));
            self.ended = true;
            return None;
        }
        let alias = here.iter().find(|record| record.rtype == rtype::CNAME);
        let alias = match alias {
            Some(alias) => Cow::Borrowed(*alias),
            None => Cow::Owned(self.synthesised(message)?),
        };
        // A DNAME above is kept with the alias that was made from it (RFC 6672 section 3.1).
        let above = |record: &&Record<'_>| {
            (record.rtype == rtype::DNAME || asked.dnssec_ok && record.covers(rtype::DNAME))
                && record.owner.zone_of(&self.end)
                && record.owner != self.end
        };
        let known = self.records.len();
        let above: Vec<&Record<'_>> = message.answers().filter(above).collect();
        for record in above {
            if !self.records[..known].iter().any(|known| std::ptr::eq(&**known, record)) {
                self.records.push(Cow::Borrowed(record));
            }
        }
        let signs = |record: &&Record<'_>| asked.dnssec_ok && record.covers(rtype::CNAME);
        let target = alias.target().cloned();
        self.records.push(alias);
        self.records.extend(here.into_iter().filter(signs).map(Cow::Borrowed));
        target
    }

    /// Returns the CNAME at the end of the chain that follows from a DNAME of `message`, if the
    /// sender omitted it (RFC 6672 section 3.1).
    fn synthesised(&self, message: &Message<'m>) -> Option<Record<'m>> {
        let is_above = |record: &&Record<'_>| {
            record.rtype == rtype::DNAME
                && record.owner.zone_of(&self.end)
                && record.owner != self.end
        };
        let above = message.answers().find(is_above)?;
        let kept = self.end.iter().count() - above.owner.iter().count();
        let labels = self.end.iter().take(kept).chain(above.target()?.iter());
        // A name that becomes too long has no alias.
        let target = Name::from_labels(labels).ok()?;
        Some(Record::alias(self.end.clone(), above.ttl, target))
    }

    /// Returns the names that the answer depends on: owners of its records, and targets of aliases.
    fn names(&self, placed: &[Placed<'_, '_>]) -> Vec<Box<[u8]>> {
        let records = placed.iter().map(|placed| placed.record);
        let records = records.filter(|record| record.rtype != rtype::SOA);
        let of_record = |record: &Record<'_>| {
            let target = record.target().filter(|_| record.rtype == rtype::SRV);
            [Some(&record.owner), target].into_iter().flatten().map(wire).collect::<Vec<_>>()
        };
        let mut names: Vec<Box<[u8]>> = records.flat_map(of_record).collect();
        names.push(wire(&self.end));
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Returns `name` in lower-case wire form.
fn wire(name: &Name) -> Box<[u8]> {
    let mut wire = rows::wire(name);
    wire.make_ascii_lowercase(); // a length byte is at most 63, below every letter
    wire
}

/// The maximum of aliases that are followed. BIND and Unbound have the same limit.
pub const LINKS_MAX: usize = 11;
/// Bytes of names, written out, in a reply of a server outside the pod. With pointers, a small
/// message can contain many. Decoding this many takes about two milliseconds.
const NAME_BYTES_MAX: usize = 160 << 10;
/// DNSSEC types that accompany other records (RFC 4034, RFC 5155).
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query as Question, ResponseCode};
    use hickory_proto::rr::rdata::{A, AAAA, CNAME, NULL, SOA};
    use hickory_proto::rr::{RData, Record, RecordType};
    use shared::wire::{NameBuffer, Query, Reply, Transport};

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
            "AAAA" => RData::AAAA(AAAA(words[3].parse().unwrap())),
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

    const ASKED: Asked<'_> = Asked {
        name: b"\x01a\x07example\0",
        qtype: 1,
        dnssec_ok: false,
        owned: false,
        is_theirs: &|_, _| true,
    };

    /// Returns the kept records, the lifetime, and whether it is dangling; or the error.
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
            (0, &["a.example. 2147483648 A 10.0.0.1"], &[], "1 kept 86400 s"),
            (0, &["b.other. 20 A 10.0.0.1", "a.example. 9 CNAME b.other."], &[], "2 kept 9 s"),
            (0, &["a.example. 9 CNAME b.other."], &[], "1 kept 0 s dangling"),
            (0, &["a.example. 9 CNAME b."], &["b. 60 SOA 5"], "2 kept 5 s dangling"),
            (0, &["a.example. 9 CNAME a.example."], &[], "Loop"),
            (0, &["a.example. 9 CNAME b.", "b. 9 CNAME a.example."], &[], "Loop"),
            (0, &["a.example. 9 CNAME b.", "b. 9 AAAA ::1"], &[], "1 kept 0 s dangling"),
            // two aliases, or an alias and data, no name may have (RFC 2181 section 10.1): one
            // way is taken, and what was asked for before what leads on
            (
                0,
                &["a.example. 9 CNAME b.", "a.example. 9 CNAME c.", "b. 9 A 10.0.0.1"],
                &[],
                "2 kept 9 s",
            ),
            (
                0,
                &["b. 9 A 10.0.0.1", "a.example. 9 CNAME c.", "a.example. 9 CNAME b."],
                &[],
                "1 kept 0 s dangling",
            ),
            (
                0,
                &["a.example. 9 CNAME b.", "b. 9 CNAME a.example.", "a.example. 9 A 10.0.0.1"],
                &[],
                "1 kept 9 s",
            ),
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
    fn an_alias_is_an_answer_to_who_asks_for_any() {
        let asked = Asked { qtype: rtype::ANY, ..ASKED };
        let alone = reply(0, &["a.example. 9 CNAME b."], &[]);
        let answer = reduce(&alone, &asked, &LIMITS).unwrap();
        let kept = (answer.entry.records(), answer.lifetime_secs, answer.dangling);
        assert_eq!(kept, (1, 9, None));
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

    /// What a client gets of `answer`, TTLs aside.
    fn shown(answer: &Answer) -> Vec<String> {
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(ASKED.name);
        query.extend([0, 1, 0, 1]);
        let mut buffer = NameBuffer::new();
        let query = Query::screen(&query, Transport::Tcp, &mut buffer).unwrap();
        let mut out = vec![0; 65_535];
        let mut reply = Reply::new(&query, &mut out);
        answer.entry.emit(&query, 0, 0, &mut reply);
        let len = reply.finish();
        let message = Message::from_vec(&out[..len]).unwrap();
        message.all_sections().map(ToString::to_string).collect()
    }

    #[test]
    fn a_server_is_believed_about_nothing_but_what_it_was_asked() {
        let first = reply(0, &["a.example. 9 CNAME b."], &[]);
        let alias = "a.example. 0 IN CNAME b.";
        let rows: [(&[&str], &[&str], &[&str]); 4] = [
            (&["a.example. 9 A 6.6.6.6", "b. 9 A 10.0.0.1"], &[], &[alias, "b. 0 IN A 10.0.0.1"]),
            (&["a.example. 9 A 6.6.6.6"], &[], &[alias]),
            (&["c. 9 A 6.6.6.6"], &["a.example. 9 SOA 9"], &[alias]),
            (
                &["b. 9 CNAME c.", "c. 9 A 10.0.0.1", "d. 9 A 6.6.6.6"],
                &["b. 9 NS evil."],
                &[alias, "b. 0 IN CNAME c.", "c. 0 IN A 10.0.0.1"],
            ),
        ];
        for (answers, authorities, expected) in rows {
            for owned in [false, true] {
                let second = reply(0, answers, authorities);
                let asked = Asked { owned, ..ASKED };
                let answer = reduce_chain(&[&first, &second], &asked, &LIMITS).unwrap();
                assert_eq!(shown(&answer), expected, "{answers:?} {authorities:?}");
            }
        }
    }

    #[test]
    fn a_zone_is_believed_about_itself_only() {
        let rows = [
            ("example. 60 SOA 60", 60),
            (". 60 SOA 60", 60),
            ("a.example. 60 SOA 60", 60),
            ("b.a.example. 60 SOA 60", 0),
            ("other. 60 SOA 60", 0),
        ];
        for (soa, kept) in rows {
            let answer = reduce(&reply(3, &[], &[soa]), &ASKED, &LIMITS).unwrap();
            assert_eq!(answer.lifetime_secs, kept, "{soa}");
            assert_eq!(shown(&answer).len(), usize::from(kept > 0), "{soa}");
        }
    }

    #[test]
    fn flags_are_those_of_every_reply_and_aa_is_for_what_is_owned() {
        let rows = [
            (0x0400, 0x0400, true, (true, false)),
            (0x0400, 0x0400, false, (false, false)),
            (0x0020, 0x0020, true, (false, true)),
            (0x0020, 0x0000, true, (false, false)),
            (0x0420, 0x0020, true, (true, true)),
        ];
        for (first_flags, second_flags, owned, expected) in rows {
            let flagged = |mut reply: Vec<u8>, flags: u16| {
                let [f1, f0] = flags.to_be_bytes();
                reply[2] = reply[2] & !0x04 | f1;
                reply[3] = reply[3] & !0x20 | f0;
                reply
            };
            let first = flagged(reply(0, &["a.example. 9 CNAME b."], &[]), first_flags);
            let second = flagged(reply(0, &["b. 9 A 10.0.0.1"], &[]), second_flags);
            let asked = Asked { owned, ..ASKED };
            let answer = reduce_chain(&[&first, &second], &asked, &LIMITS).unwrap();
            let mut query = vec![0, 7, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 0];
            query.extend_from_slice(ASKED.name);
            query.extend([0, 1, 0, 1]);
            let mut buffer = NameBuffer::new();
            let query = Query::screen(&query, Transport::Udp, &mut buffer).unwrap();
            let mut out = [0; 512];
            let mut reply = Reply::new(&query, &mut out);
            answer.entry.emit(&query, 0, 0, &mut reply);
            let flags = (reply.bytes()[2] & 0x04 != 0, reply.bytes()[3] & 0x20 != 0);
            assert_eq!(flags, expected, "{first_flags:x} {second_flags:x} {owned}");
        }
    }

    /// A reply about [`ASKED`]'s name with one record of `rtype`, its data as given.
    fn raw(rtype: u16, rdata: &[u8]) -> Vec<u8> {
        let mut reply = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        reply.extend_from_slice(ASKED.name);
        reply.extend(rtype.to_be_bytes());
        reply.extend([0, 1, 0xc0, 12]);
        reply.extend(rtype.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 30]);
        reply.extend((rdata.len() as u16).to_be_bytes());
        reply.extend_from_slice(rdata);
        reply
    }

    /// Returns the data of the record of `rtype` in the answer to a reply with `rdata`.
    fn data(rtype: u16, rdata: &[u8]) -> Result<Vec<u8>, Unusable> {
        let asked = Asked { qtype: rtype, ..ASKED };
        let answer = reduce(&raw(rtype, rdata), &asked, &LIMITS)?;
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(ASKED.name);
        query.extend(rtype.to_be_bytes());
        query.extend([0, 1]);
        let mut buffer = NameBuffer::new();
        let query = Query::screen(&query, Transport::Udp, &mut buffer).unwrap();
        let mut out = [0; 512];
        let mut reply = Reply::new(&query, &mut out);
        answer.entry.emit(&query, 0, 0, &mut reply);
        let body = reply.bytes()[12 + query.question().len() + 12..].to_vec();
        Ok(body)
    }

    #[test]
    fn data_is_carried_over_byte_for_byte_and_old_types_are_decompressed() {
        let pointer = b"\x03www\xc0\x0c".as_slice(); // www.a.example
        let spelt = b"\x03www\x01a\x07example\0".as_slice();
        let rows: [(u16, Vec<u8>, Vec<u8>); 12] = [
            (65_280, vec![], vec![]),
            (65_280, pointer.into(), pointer.into()),
            (65_305, b"no name".into(), b"no name".into()),
            (257, b"\xff\xff".into(), b"\xff\xff".into()),
            (16, vec![], vec![]),
            (
                46,
                [b"\0\x01".as_slice(), &[0; 16], pointer].concat(),
                [b"\0\x01".as_slice(), &[0; 16], pointer].concat(),
            ),
            (5, spelt.into(), pointer.into()),
            (15, [b"\0\x0a", spelt].concat(), [b"\0\x0a", pointer].concat()),
            (33, [&[0; 6], pointer].concat(), [&[0; 6], spelt].concat()),
            (39, pointer.into(), spelt.into()),
            (17, [pointer, pointer].concat(), [spelt, spelt].concat()),
            (
                35,
                [b"\0\x01\0\x02\x01u\x02ab\0", pointer].concat(),
                [b"\0\x01\0\x02\x01u\x02ab\0", spelt].concat(),
            ),
        ];
        for (rtype, came, went) in rows {
            assert_eq!(data(rtype, &came), Ok(went), "type {rtype}, {came:?}");
        }
    }

    #[test]
    fn broken_data_is_malformed() {
        let rows: [(u16, &[u8]); 13] = [
            (1, &[10, 0, 0]),
            (1, &[10, 0, 0, 1, 0]),
            (1, &[]),
            (28, &[0; 4]),
            (5, b""),
            (5, b"\x01a\0\0"),
            (5, b"\x01a"),
            (5, b"\xc0\xff"),
            (5, b"\xc0\x29"), // points to itself
            (6, b"\0\0 four"),
            (15, b"\0"),
            (33, &[0; 6]),
            (35, b"\0\x01\0\x02\xff"),
        ];
        for (rtype, rdata) in rows {
            assert_eq!(data(rtype, rdata), Err(Unusable::Malformed), "type {rtype}, {rdata:?}");
        }
    }

    #[test]
    fn additional_records_and_signatures_are_for_those_who_may_have_them() {
        let signature = |covered: u8| [&[0, covered][..], &[0; 16], b"\0sign"].concat();
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Question::query(name("a.example."), RecordType::A));
        message.add_answer(record("a.example. 9 A 10.0.0.1"));
        for covered in [1, 28] {
            let rdata = NULL::with(signature(covered));
            let data = RData::Unknown { code: RecordType::RRSIG, rdata };
            message.add_answer(Record::from_rdata(name("a.example."), 9, data));
        }
        message.add_authority(record("example. 9 NS ns.example."));
        message.add_additional(record("ns.example. 9 A 10.0.0.9"));
        let reply = message.to_vec().unwrap();
        let rows = [(false, false, 1), (true, false, 2), (false, true, 3), (true, true, 4)];
        for (dnssec_ok, owned, records) in rows {
            let asked = Asked { dnssec_ok, owned, ..ASKED };
            let answer = reduce(&reply, &asked, &LIMITS).unwrap();
            assert_eq!(answer.entry.records(), records, "{dnssec_ok} {owned}");
        }
    }

    #[test]
    fn a_part_of_an_answer_says_so_over_tcp_too() {
        let mut part = reply(0, &["a.example. 30 A 10.0.0.1"], &[]);
        for truncated in [false, true] {
            part[2] = part[2] & !0x02 | u8::from(truncated) << 1;
            let answer = reduce(&part, &ASKED, &LIMITS).unwrap();
            assert_eq!(answer.lifetime_secs, 30);
            let (mut buffer, mut out) = (NameBuffer::new(), [0; 512]);
            let query = [&part[..2], b"\x01\0\0\x01\0\0\0\0\0\0", &part[12..27]].concat();
            let query = Query::screen(&query, Transport::Tcp, &mut buffer).unwrap();
            let mut reply = Reply::new(&query, &mut out);
            answer.entry.emit(&query, 0, u32::MAX, &mut reply);
            assert_eq!((reply.is_truncated(), reply.counts()), (truncated, [1, 0, 0]));
        }
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
