//! What goes to an upstream and what may come back: our queries written, their replies read as
//! strictly as RFC 5452 asks.
//!
//! Core. Knows the layout of messages; does not know servers, time or who asked.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use shared::wire::{ErrorCode, HEADER_LEN, UDP_SIZE_MAX, rcode, rtype};

use crate::cache::Question;

/// Writes `question` as one string of bytes, equal exactly where the questions are.
pub(super) fn write_key(question: &Question<'_>, key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(question.name);
    key.extend_from_slice(&question.qtype.to_be_bytes());
    key.extend_from_slice(&question.qclass.to_be_bytes());
    key.push(u8::from(question.dnssec_ok) | u8::from(question.checking_disabled) << 1);
}

/// Reads what [`write_key`] wrote.
pub(super) fn read_key(key: &[u8]) -> Question<'_> {
    let (name, tail) = key.split_at(key.len() - 5);
    Question {
        name,
        qtype: u16::from_be_bytes([tail[0], tail[1]]),
        qclass: u16::from_be_bytes([tail[2], tail[3]]),
        dnssec_ok: tail[4] & 1 != 0,
        checking_disabled: tail[4] & 2 != 0,
    }
}

/// How a query to an upstream differs from try to try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// The message ID.
    pub id: u16,
    /// With OPT; without it for servers that cannot read it.
    pub edns: bool,
    /// Which letters of the name are upper case, one bit each, used in turn
    /// (draft-vixie-dnsext-dns0x20).
    pub upper_case: u64,
}

/// Writes the query for `question`: RD and AD set, CD as asked, nothing of the client's but the
/// question.
pub(super) fn write_query(question: &Question<'_>, form: Form, out: &mut Vec<u8>) {
    let [id1, id0] = form.id.to_be_bytes();
    let flags = AD | u8::from(question.checking_disabled) << 4;
    out.clear();
    out.extend_from_slice(&[id1, id0, 0x01, flags, 0, 1, 0, 0, 0, 0, 0, u8::from(form.edns)]);
    out.extend_from_slice(question.name);
    if form.upper_case != 0 {
        let mut bits = form.upper_case;
        for letter in out[HEADER_LEN..].iter_mut().filter(|byte| byte.is_ascii_lowercase()) {
            *letter ^= (bits as u8 & 1) << 5;
            bits = bits.rotate_right(1);
        }
    }
    out.extend_from_slice(&question.qtype.to_be_bytes());
    out.extend_from_slice(&question.qclass.to_be_bytes());
    if form.edns {
        let [size1, size0] = (UDP_SIZE_MAX as u16).to_be_bytes();
        let dnssec_ok = u8::from(question.dnssec_ok) << 7;
        out.extend_from_slice(&[0, 0, rtype::OPT as u8, size1, size0, 0, 0, dnssec_ok, 0, 0, 0]);
    }
}

/// What a message from an upstream is to the query it may belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// No reply to this query: another ID or question, or no reply at all. The true one may still
    /// come.
    Stray,
    /// A reply to this query, had the server kept the case of its letters.
    OtherCase,
    /// TC: there is more, to be had over TCP.
    Truncated,
    /// FORMERR or NOTIMP: perhaps the server cannot read OPT.
    NotUnderstood,
    /// An answer, positive or negative, to be kept and passed on.
    Answer,
    /// The server could not or would not answer.
    Failed(Failure),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The response code the client gets.
    pub rcode: u16,
    /// The Extended DNS Error beside it.
    pub reason: ErrorCode,
    /// The same for people.
    pub text: &'static str,
}

impl Failure {
    /// SERVFAIL for `reason`.
    pub const fn servfail(reason: ErrorCode, text: &'static str) -> Self {
        Self { rcode: rcode::SERVFAIL, reason, text }
    }
}

/// Reads `message` as the reply to `query`, whose question ends at `question_end`.
///
/// QR, opcode 0, the ID and the very bytes of the question must agree, its case included (RFC 5452
/// section 9.1).
pub(super) fn read_reply(message: &[u8], query: &[u8], question_end: usize) -> Reading {
    match read(message, query, question_end) {
        Reading::Stray => Reading::Stray,
        Reading::OtherCase => Reading::OtherCase,
        _ if is_truncated(message) => Reading::Truncated,
        reading => reading,
    }
}

/// Likewise, whether or not TC is set.
fn read(message: &[u8], query: &[u8], question_end: usize) -> Reading {
    if message.len() < question_end
        || message[..2] != query[..2]
        || message[2] & 0xf8 != 0x80
        || message[4..6] != [0, 1]
    {
        return Reading::Stray;
    }
    let (theirs, ours) = (&message[HEADER_LEN..question_end], &query[HEADER_LEN..question_end]);
    if theirs != ours {
        let fixed = ours.len() - 4;
        let same = theirs[..fixed].eq_ignore_ascii_case(&ours[..fixed])
            && theirs[fixed..] == ours[fixed..];
        return if same { Reading::OtherCase } else { Reading::Stray };
    }
    match u16::from(message[3] & 0x0f) {
        rcode::NOERROR if is_referral(message, question_end) => Reading::Failed(REFERRAL),
        rcode::NOERROR | rcode::NXDOMAIN => Reading::Answer,
        rcode::FORMERR | rcode::NOTIMP => Reading::NotUnderstood,
        code => Reading::Failed(failure(message, code, question_end)),
    }
}

/// The same for a whole message of a TCP stream. A server that does not keep case even here has
/// shown that it never does, so case is no longer compared. A part of an RRset that no message can
/// hold is an answer; TC and no answer at all is none.
pub(super) fn read_stream(message: &[u8], query: &[u8], question_end: usize) -> (Reading, bool) {
    let mut reading = read(message, query, question_end);
    let keeps_case = reading != Reading::OtherCase;
    if !keeps_case {
        let mut folded = query.to_vec();
        folded[HEADER_LEN..question_end].copy_from_slice(&message[HEADER_LEN..question_end]);
        reading = read(message, &folded, question_end);
    }
    if reading == Reading::Answer && is_truncated(message) && message[6..8] == [0, 0] {
        reading = Reading::Truncated;
    }
    (reading, keeps_case)
}

/// Whether TC is set.
fn is_truncated(message: &[u8]) -> bool {
    message[2] & 0x02 != 0
}

/// Whether a reply that says NOERROR only points elsewhere: no answer, name servers and no SOA (RFC
/// 2308 section 2.2). A forwarder follows no referrals.
fn is_referral(message: &[u8], question_end: usize) -> bool {
    let answers = u16::from_be_bytes([message[6], message[7]]);
    let authorities = u16::from_be_bytes([message[8], message[9]]);
    if answers > 0 || authorities == 0 {
        return false;
    }
    let records = records(message, question_end).take(usize::from(authorities));
    let mut servers = false;
    for record in records {
        servers |= record.rtype == rtype::NS;
        if record.rtype == rtype::SOA {
            return false;
        }
    }
    servers
}

/// The failure that a reply tells, with its own reason where it names one we know (RFC 8914).
fn failure(message: &[u8], code: u16, question_end: usize) -> Failure {
    let text = match code {
        rcode::SERVFAIL => "upstream answered SERVFAIL",
        rcode::REFUSED => "upstream answered REFUSED",
        _ => "upstream answered with an error",
    };
    let reason = extended_error(message, question_end).unwrap_or(ErrorCode::Other);
    Failure { rcode: code, reason, text }
}

/// The first Extended DNS Error of `message`, as far as it is one we pass on.
fn extended_error(message: &[u8], question_end: usize) -> Option<ErrorCode> {
    const EXTENDED_ERROR: u16 = 15;
    let mut options =
        records(message, question_end).find(|record| record.rtype == rtype::OPT)?.rdata;
    while let Some((&[c1, c0, l1, l0], rest)) = options.split_first_chunk::<4>() {
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l1, l0])))?;
        if u16::from_be_bytes([c1, c0]) == EXTENDED_ERROR {
            let code = u16::from_be_bytes([*value.first()?, *value.get(1)?]);
            return PASSED_ON.into_iter().find(|&known| known as u16 == code);
        }
        options = rest;
    }
    None
}

/// One record of a reply, its name and rdata as they stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// TYPE.
    pub rtype: u16,
    /// RDATA, its names possibly compressed.
    pub rdata: &'a [u8],
}

/// The records behind the question, in order, up to the first that is broken.
pub(super) fn records(message: &[u8], question_end: usize) -> impl Iterator<Item = Record<'_>> {
    let mut at = question_end;
    std::iter::from_fn(move || {
        let fixed = skip_name(message, at)?;
        let header = message.get(fixed..fixed + 10)?;
        let rdata_at = fixed + 10;
        let end = rdata_at + usize::from(u16::from_be_bytes([header[8], header[9]]));
        let rdata = message.get(rdata_at..end)?;
        at = end;
        Some(Record { rtype: u16::from_be_bytes([header[0], header[1]]), rdata })
    })
}

/// The offset behind the name at `start`, which may end in a pointer.
fn skip_name(message: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The addresses in a reply, and how long they may be kept.
pub(super) fn addresses(reply: &[u8]) -> Option<(Vec<IpAddr>, Duration)> {
    let message = Message::from_vec(reply).ok()?;
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    let addresses = message.answers.iter().filter_map(|record| address(&record.data)).collect();
    let ttl = message.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
    Some((addresses, Duration::from_secs(ttl.into())))
}

/// AD in a query: we want to know whether the upstream validated (RFC 6840 section 5.7).
const AD: u8 = 0x20;
/// Reasons of an upstream that say something to our client as they stand.
const PASSED_ON: [ErrorCode; 5] = [
    ErrorCode::StaleAnswer,
    ErrorCode::NotReady,
    ErrorCode::Prohibited,
    ErrorCode::NoReachableAuthority,
    ErrorCode::NetworkError,
];
const REFERRAL: Failure =
    Failure::servfail(ErrorCode::NotAuthoritative, "upstream does not recurse");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_whole_question_and_reads_back_as_it() {
        let mut keys = std::collections::BTreeSet::new();
        for (dnssec_ok, checking_disabled) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            for (qtype, qclass) in [(1, 1), (28, 1), (0x0100, 1), (1, 3)] {
                let name = b"\x01a\x07example\0";
                let question = Question { name, qtype, qclass, dnssec_ok, checking_disabled };
                let mut key = vec![7];
                write_key(&question, &mut key);
                assert_eq!(read_key(&key), question);
                assert!(keys.insert(key), "{question:?} has the key of another");
            }
        }
    }
}
