//! One DNS question: the query it becomes, and what a reply to it means.
//!
//! Core. Knows messages; the random id and label come as arguments, sockets and time are elsewhere.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};

use crate::config::{FRESH_LABEL_LEN, Probe};
use crate::status::Failure;

/// A query that waits for its reply.
#[derive(Clone, Debug)]
pub struct Question {
    id: u16,
    query: Query,
    fresh: bool,
    message: Vec<u8>,
}

/// What a datagram or a message on a stream turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The reply: the probe has succeeded, or failed for the reason that the server gives.
    Reply(Result<(), Failure>),
    /// The reply says that it did not fit: ask over TCP.
    Truncated,
    /// Not the reply to this question: an old one, or a lie. Go on waiting.
    NotOurs,
}

impl Question {
    /// The question of `probe`, with an id and a first label (where it wants a new one) nobody can
    /// guess.
    pub fn new(probe: &Probe, id: u16, label: u64) -> Self {
        let query = Query::query(name(probe, label), probe.rtype);
        let mut edns = Edns::new();
        edns.set_max_payload(shared::wire::UDP_SIZE_MAX as u16);
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(query.clone()).set_edns(edns);
        let message = message.to_vec().expect("a checked name and no record fit in a message");
        Self { id, query, fresh: probe.fresh, message }
    }

    /// The query in wire form.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// What `reply` means.
    ///
    /// NOERROR is success, with records or without: NODATA says that the server knows the name, and
    /// on a cluster without IPv4 it is the right answer to A. NXDOMAIN is success for a name that
    /// is new each time: somebody who knows the zone said so. Every other code is a failure that
    /// bears its name, with the Extended DNS Error (RFC 8914) where there is one.
    pub fn judge(&self, reply: &[u8]) -> Verdict {
        if reply.first_chunk() != Some(&self.id.to_be_bytes()) {
            return Verdict::NotOurs;
        }
        let Ok(message) = Message::from_vec(reply) else {
            return Verdict::Reply(Err(Failure::Malformed));
        };
        // Servers that cannot read a query may send no question back.
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
            ResponseCode::NoError => Ok(()),
            ResponseCode::NXDomain if self.fresh => Ok(()),
            code => Err(Failure::Rcode { code: code.into(), error: extended_error(&message) }),
        })
    }
}

fn name(probe: &Probe, label: u64) -> Name {
    if !probe.fresh {
        return probe.name.clone();
    }
    let first = format!("healthz-{label:016x}");
    debug_assert_eq!(first.len(), FRESH_LABEL_LEN);
    probe.name.prepend_label(first.as_bytes()).expect("room was left for the label")
}

/// The first Extended DNS Error of a reply: its text, or its code where it has none.
fn extended_error(message: &Message) -> Option<String> {
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
/// What of a server's own words is kept, in characters.
const ERROR_LEN_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn question(probe: &str) -> Question {
        Question::new(&probe.parse().unwrap(), 0x1234, 0xab)
    }

    /// The reply to `question` with `flags` and OPT data.
    fn reply(question: &Question, flags: [u8; 2], option: &[u8]) -> Vec<u8> {
        let opt = 11; // bytes of an OPT record without options, as the query has it
        let mut reply = question.message[..question.message.len() - opt].to_vec();
        reply[2..4].copy_from_slice(&flags);
        reply.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, option.len() as u8]);
        reply.extend_from_slice(option);
        reply
    }

    fn rcode(code: u16, error: Option<&str>) -> Verdict {
        Verdict::Reply(Err(Failure::Rcode { code, error: error.map(str::to_owned) }))
    }

    #[test]
    fn codes_are_success_failure_or_a_reason_to_use_tcp() {
        let fixed = question("a,::1,web.shop");
        let fresh = question("a,::1,*.web.shop");
        let said = b"\0\x0f\0\x0b\0\x0enot ready";
        let mute = b"\0\x0f\0\x02\0\x16";
        let rows = [
            (&fixed, [0x81, 0x80], &b""[..], Verdict::Reply(Ok(()))),
            (&fixed, [0x83, 0x80], b"", Verdict::Truncated),
            (&fixed, [0x81, 3], b"", rcode(3, None)),
            (&fresh, [0x81, 3], b"", Verdict::Reply(Ok(()))),
            (&fresh, [0x81, 0], b"", Verdict::Reply(Ok(()))),
            (&fresh, [0x81, 2], b"", rcode(2, None)),
            (&fixed, [0x81, 2], said, rcode(2, Some("not ready"))),
            (&fixed, [0x81, 5], mute, rcode(5, Some("extended error 22"))),
            (&fixed, [0x01, 0], b"", Verdict::NotOurs),
        ];
        for (question, flags, option, expected) in rows {
            let judged = question.judge(&reply(question, flags, option));
            assert_eq!(judged, expected, "{flags:x?}");
        }
    }

    #[test]
    fn what_is_not_the_reply_is_passed_over_or_named() {
        let asked = question("a,::1,web.shop");
        let good = reply(&asked, [0x81, 0x80], b"");
        let mut shouted = good.clone();
        shouted[12..].make_ascii_uppercase();
        let mut other_id = good.clone();
        other_id[1] ^= 1;
        let other_type = reply(
            &Question::new(&"a,::1,web.shop,5,AAAA".parse().unwrap(), 0x1234, 0),
            [0x81, 0x80],
            b"",
        );
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
}
