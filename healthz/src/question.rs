//! One DNS question: its query, and the meaning of a reply to it.
//!
//! Core. It encodes and decodes messages. The random ID and label are arguments. It must not use
//! sockets or clocks.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use shared::wire::{PROBE_OPTION, UDP_SIZE_MAX};

use crate::config::{FRESH_LABEL_LEN, Probe};
use crate::status::Failure;

/// A query that waits for its reply.
#[derive(Clone, Debug)]
pub struct Question {
    id: u16,
    query: Query,
    expected: Option<IpAddr>,
    /// Whether NXDOMAIN is a success.
    may_be_denied: bool,
    message: Vec<u8>,
}

/// The meaning of a datagram, or of a message on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The reply: the probe has succeeded, or has failed for the reason that the server returned.
    Reply(Result<(), Failure>),
    /// The reply did not fit: ask over TCP.
    Truncated,
    /// Not the reply to this question: an old one, or a forged one. The probe should keep waiting.
    NotOurs,
}

impl Question {
    /// Creates the question of `probe` for records of `rtype`. Another host must not be able to
    /// guess the ID nor, if the probe uses a new first label each time, the label.
    pub fn new(probe: &Probe, rtype: RecordType, id: u16, label: u64) -> Self {
        Self {
            expected: probe.expected,
            may_be_denied: probe.fresh && probe.expected.is_none(),
            ..Self::of(Query::query(name(probe, label), rtype), id, is_of_the_pod(probe))
        }
    }

    /// Creates a question about the server of `probe` itself: `version.bind`, class CH, type TXT.
    /// The programs of the pod answer it without asking another server, and every other server at
    /// least refuses it.
    pub fn about_the_server(probe: &Probe, id: u16) -> Self {
        let name = Name::from_ascii("version.bind.").expect("a domain name");
        let mut query = Query::query(name, RecordType::TXT);
        query.set_query_class(DNSClass::CH);
        Self::of(query, id, is_of_the_pod(probe))
    }

    fn of(query: Query, id: u16, of_the_pod: bool) -> Self {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_SIZE_MAX as u16);
        if of_the_pod {
            edns.options_mut().insert(EdnsOption::Unknown(PROBE_OPTION, Vec::new()));
        }
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(query.clone()).set_edns(edns);
        let message = message.to_vec().expect("a checked name and no record fit in a message");
        Self { id, query, expected: None, may_be_denied: false, message }
    }

    /// Returns the query in wire form.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Returns what `reply` means.
    ///
    /// NOERROR is success if the answer section has a record of the name, or of the name that its
    /// aliases lead to, with the type and, if the probe has one, the address. NXDOMAIN is success
    /// for a name that is new each time, because a server that has the zone denied it. Every other
    /// code is a failure with its name, and with the Extended DNS Error (RFC 8914) if there is one.
    pub fn judge(&self, reply: &[u8]) -> Verdict {
        if reply.first_chunk() != Some(&self.id.to_be_bytes()) {
            return Verdict::NotOurs;
        }
        let Ok(message) = Message::from_vec(reply) else {
            return Verdict::Reply(Err(Failure::Malformed));
        };
        // If a server cannot parse the query, its reply may have no question.
        let echoed = match message.queries.as_slice() {
            [query] => *query == self.query,
            [] => message.metadata.response_code != ResponseCode::NoError,
            _ => false,
        };
        if message.metadata.message_type != MessageType::Response || !echoed {
            return Verdict::NotOurs;
        }
        if message.metadata.truncation {
            return Verdict::Truncated;
        }
        Verdict::Reply(match message.metadata.response_code {
            ResponseCode::NoError => self.judge_answer(&message.answers),
            ResponseCode::NXDomain if self.may_be_denied => Ok(()),
            code => Err(Failure::Rcode { code: code.into(), error: extended_error(&message) }),
        })
    }

    fn judge_answer(&self, answers: &[Record]) -> Result<(), Failure> {
        let rtype = self.query.query_type();
        let is_any = rtype == RecordType::ANY;
        let owner = if is_any { self.query.name() } else { self.end_of_aliases(answers) };
        let found = answers
            .iter()
            .filter(|record| record.name == *owner && (is_any || record.record_type() == rtype));
        let found: Vec<&RData> = found.map(|record| &record.data).collect();
        if found.is_empty() {
            return Err(Failure::NoRecord { rtype, others: answers.len() });
        }
        let Some(expected) = self.expected else { return Ok(()) };
        if found.iter().any(|data| data.ip_addr() == Some(expected)) {
            return Ok(());
        }
        let mut instead: Vec<String> = found.iter().map(|data| data.to_string()).collect();
        instead.truncate(ADDRESSES_MAX);
        Err(Failure::Unexpected { expected, instead: instead.join(", ") })
    }

    /// Returns the name at the end of the aliases that begin at the name of the question.
    fn end_of_aliases<'a>(&'a self, answers: &'a [Record]) -> &'a Name {
        let mut owner = self.query.name();
        if self.query.query_type() == RecordType::CNAME {
            return owner;
        }
        // Each step uses another record, unless the aliases form a loop.
        for _ in answers {
            let next = answers.iter().find_map(|record| match &record.data {
                RData::CNAME(target) if record.name == *owner => Some(&target.0),
                _ => None,
            });
            let Some(next) = next else { break };
            owner = next;
        }
        owner
    }
}

/// Returns whether the server is a program of this pod. These programs do not count such queries as
/// clients'. Other servers may not support the option, so they must not get it.
fn is_of_the_pod(probe: &Probe) -> bool {
    probe.server.ip().is_loopback()
}

fn name(probe: &Probe, label: u64) -> Name {
    if !probe.fresh {
        return probe.name.clone();
    }
    let first = format!("healthz-{label:016x}");
    debug_assert_eq!(first.len(), FRESH_LABEL_LEN);
    probe.name.prepend_label(first.as_bytes()).expect("room was left for the label")
}

/// The first Extended DNS Error of a reply: its text, or its code if it has no text.
pub(crate) fn extended_error(message: &Message) -> Option<String> {
    let option = message.edns.as_ref()?.option(EdnsCode::Unknown(EXTENDED_ERROR))?;
    let EdnsOption::Unknown(_, bytes) = option else { return None };
    let (code, text) = bytes.split_first_chunk::<2>()?;
    let text = String::from_utf8_lossy(text);
    let text = text.chars().filter(|c| !c.is_control()).take(ERROR_LEN_MAX).collect::<String>();
    match text.trim() {
        "" => Some(format!("extended error {}", u16::from_be_bytes(*code))),
        text => Some(text.to_owned()),
    }
}

/// The option code of RFC 8914.
const EXTENDED_ERROR: u16 = 15;
/// The characters that are kept of a server's text.
const ERROR_LEN_MAX: usize = 200;
/// The number of wrong addresses that are named.
const ADDRESSES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn question(probe: &str) -> Question {
        let probe: Probe = probe.parse().unwrap();
        Question::new(&probe, probe.rtype, 0x1234, 0xab)
    }

    /// Returns the reply to `question` with `flags` and OPT data.
    fn reply(question: &Question, flags: [u8; 2], option: &[u8]) -> Vec<u8> {
        let opt = 11; // bytes of an OPT record without options, as in a query outside the pod
        let mut reply = question.message[..question.message.len() - opt].to_vec();
        reply[2..4].copy_from_slice(&flags);
        reply.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, option.len() as u8]);
        reply.extend_from_slice(option);
        reply
    }

    /// Returns NOERROR with these records, each as `OWNER TYPE DATA`.
    fn answer(question: &Question, records: &[&str]) -> Vec<u8> {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let mut message = Message::new(question.id, MessageType::Response, OpCode::Query);
        message.add_query(question.query.clone());
        message.answers.extend(records.iter().map(|record| {
            let words: Vec<&str> = record.split(' ').collect();
            let data = match words[1] {
                "A" => RData::A(words[2].parse().unwrap()),
                "AAAA" => RData::AAAA(words[2].parse().unwrap()),
                "CNAME" => RData::CNAME(hickory_proto::rr::rdata::CNAME(name(words[2]))),
                "PTR" => RData::PTR(hickory_proto::rr::rdata::PTR(name(words[2]))),
                other => panic!("{other} is not known here"),
            };
            Record::from_rdata(name(words[0]), 30, data)
        }));
        message.to_vec().unwrap()
    }

    fn rcode(code: u16, error: Option<&str>) -> Verdict {
        Verdict::Reply(Err(Failure::Rcode { code, error: error.map(str::to_owned) }))
    }

    #[test]
    fn codes_are_success_failure_or_a_reason_to_use_tcp() {
        let fixed = question("a,192.0.2.1,web.shop");
        let fresh = question("a,192.0.2.1,*.web.shop");
        let expecting = question("a,192.0.2.1,*.web.shop,5,A,10.0.0.1");
        let said = b"\0\x0f\0\x0b\0\x0enot ready";
        let mute = b"\0\x0f\0\x02\0\x16";
        let rows = [
            (&fixed, [0x83, 0x80], &b""[..], Verdict::Truncated),
            (&fresh, [0x83, 0x83], b"", Verdict::Truncated),
            (&fixed, [0x81, 3], b"", rcode(3, None)),
            (&fresh, [0x81, 3], b"", Verdict::Reply(Ok(()))),
            (&expecting, [0x81, 3], b"", rcode(3, None)),
            (&fresh, [0x81, 2], b"", rcode(2, None)),
            (&fixed, [0x81, 2], said, rcode(2, Some("not ready"))),
            (&fixed, [0x81, 5], mute, rcode(5, Some("extended error 22"))),
            (&fixed, [0x01, 0], b"", Verdict::NotOurs),
        ];
        for (question, flags, option, expected) in rows {
            let judged = question.judge(&reply(question, flags, option));
            assert_eq!(judged, expected, "{flags:x?}");
        }
        for code in (1..16).filter(|&code| code != 3) {
            for question in [&fixed, &fresh] {
                let judged = question.judge(&reply(question, [0x81, code], b""));
                assert_eq!(judged, rcode(code.into(), None));
            }
        }
    }

    #[test]
    fn an_answer_has_a_record_of_the_name_and_type_and_the_address() {
        let no = |rtype, others| Some(Failure::NoRecord { rtype, others });
        let wrong = |instead: &str| {
            let expected = "10.0.0.1".parse().unwrap();
            Some(Failure::Unexpected { expected, instead: instead.to_owned() })
        };
        use RecordType::{A, AAAA, ANY, CNAME, SRV};
        let rows: [(&str, &[&str], Option<Failure>); 22] = [
            ("web.shop", &["web.shop. A 10.0.0.1"], None),
            ("web.shop", &["WEB.Shop. A 10.0.0.1"], None),
            ("web.shop", &[], no(A, 0)),
            ("web.shop", &["web.shop. AAAA fd00::1"], no(A, 1)),
            ("web.shop,5,AAAA", &["web.shop. A 10.0.0.1"], no(AAAA, 1)),
            ("web.shop", &["other.shop. A 10.0.0.1"], no(A, 1)),
            ("web.shop", &["shop. A 10.0.0.1", "a.web.shop. A 10.0.0.1"], no(A, 2)),
            ("web.shop,5,SRV", &["web.shop. A 10.0.0.1"], no(SRV, 1)),
            ("web.shop", &["web.shop. CNAME b.", "b. A 10.0.0.1"], None),
            ("web.shop", &["b. A 10.0.0.1", "web.shop. CNAME B."], None),
            ("web.shop", &["web.shop. CNAME b.", "b. CNAME c.", "c. A 10.0.0.1"], None),
            ("web.shop", &["web.shop. CNAME b."], no(A, 1)),
            ("web.shop", &["web.shop. CNAME b.", "c. A 10.0.0.1"], no(A, 2)),
            ("web.shop", &["web.shop. CNAME b.", "b. CNAME web.shop."], no(A, 2)),
            ("web.shop,5,CNAME", &["web.shop. CNAME b.", "b. A 10.0.0.1"], None),
            ("web.shop,5,CNAME", &["web.shop. A 10.0.0.1"], no(CNAME, 1)),
            ("web.shop,5,ANY", &["web.shop. PTR b."], None),
            ("web.shop,5,ANY", &["b. PTR web.shop."], no(ANY, 1)),
            ("*.shop", &["healthz-00000000000000ab.shop. A 6.6.6.6"], None),
            ("*.shop", &["shop. A 10.0.0.1"], no(A, 1)),
            ("web.shop,5,A,10.0.0.1", &["web.shop. A 6.6.6.6"], wrong("6.6.6.6")),
            ("web.shop,5,A,10.0.0.1", &["web.shop. A 6.6.6.6", "web.shop. A 10.0.0.1"], None),
        ];
        for (probe, records, expected) in rows {
            let question = question(&format!("a,192.0.2.1,{probe}"));
            let judged = question.judge(&answer(&question, records));
            assert_eq!(judged, Verdict::Reply(expected.map_or(Ok(()), Err)), "{probe} {records:?}");
        }
        let aliased = question("a,192.0.2.1,web.shop,5,A,10.0.0.1");
        let records = ["web.shop. CNAME b.", "b. A 10.0.0.2", "b. A 10.0.0.3", "b. A 10.0.0.4"];
        let judged = aliased.judge(&answer(&aliased, &records));
        assert_eq!(judged, Verdict::Reply(Err(wrong("10.0.0.2, 10.0.0.3, 10.0.0.4").unwrap())));
    }

    #[test]
    fn what_is_not_the_reply_is_passed_over_or_named() {
        let asked = question("a,192.0.2.1,web.shop");
        let good = answer(&asked, &["web.shop. A 10.0.0.1"]);
        let mut shouted = good.clone();
        shouted[12..21].make_ascii_uppercase();
        let mut other_id = good.clone();
        other_id[1] ^= 1;
        let other_type = reply(&question("a,192.0.2.1,web.shop,5,AAAA"), [0x81, 0x80], b"");
        let mut bare = vec![0x12, 0x34, 0x81, 1];
        bare.extend([0; 8]);
        let rows = [
            (good.clone(), Verdict::Reply(Ok(()))),
            (shouted, Verdict::Reply(Ok(()))),
            (other_id, Verdict::NotOurs),
            (other_type, Verdict::NotOurs),
            (vec![], Verdict::NotOurs),
            (vec![0x12], Verdict::NotOurs),
            (vec![0x12, 0x34, 0xff], Verdict::Reply(Err(Failure::Malformed))),
            (good[..good.len() - 3].to_vec(), Verdict::Reply(Err(Failure::Malformed))),
            (bare, rcode(1, None)),
        ];
        for (bytes, expected) in rows {
            assert_eq!(asked.judge(&bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn a_fresh_name_is_as_long_as_names_may_be_at_most() {
        let longest = format!("a,::1,*.{}", "abcdefg.".repeat(28));
        assert!(question(&longest).message().len() > 200);
        let name = Name::from_ascii("healthz-00000000000000ab.web.shop.").unwrap();
        assert_eq!(question("a,::1,*.web.shop").query.name, name);
    }

    #[test]
    fn queries_within_the_pod_are_marked_and_others_are_plain() {
        use shared::wire::{NameBuffer, Query, Transport, class};
        for (server, marked) in [("127.0.0.1", true), ("::1", true), ("192.0.2.1", false)] {
            let probe: Probe = format!("a,{server},web.shop").parse().unwrap();
            let itself = Question::about_the_server(&probe, 7);
            for question in [Question::new(&probe, probe.rtype, 7, 0), itself.clone()] {
                let mut buffer = NameBuffer::new();
                let query = Query::screen(question.message(), Transport::Udp, &mut buffer);
                assert_eq!(query.unwrap().edns.unwrap().probe, marked, "{server}");
            }
            let mut buffer = NameBuffer::new();
            let query = Query::screen(itself.message(), Transport::Udp, &mut buffer).unwrap();
            assert_eq!((query.name(), query.qclass), (&b"\x07version\x04bind\0"[..], class::CH));
        }
    }
}
