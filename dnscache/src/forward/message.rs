//! Queries to upstreams are written, and their replies are checked as strictly as RFC 5452
//! requires.
//!
//! Core. Works on the layout of messages, without servers, time or clients.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use shared::wire::{ErrorCode, HEADER_LEN, UDP_SIZE_MAX, rcode, rtype};

use crate::cache::Question;

/// Writes `question` as one string of bytes. Two strings are equal if and only if the questions
/// are.
pub(super) fn write_key(question: &Question<'_>, key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(question.name);
    key.extend_from_slice(&question.qtype.to_be_bytes());
    key.extend_from_slice(&question.qclass.to_be_bytes());
    key.push(u8::from(question.dnssec_ok) | u8::from(question.checking_disabled) << 1);
}

/// Returns the string of [`write_key`].
pub(super) fn key(question: &Question<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    write_key(question, &mut key);
    key
}

/// Parses a string that [`write_key`] wrote.
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

/// How a query is written for one server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Form {
    /// The message ID.
    pub id: u16,
    /// Whether it has an OPT record.
    pub edns: bool,
    /// Which letters of the name are upper case: one bit per letter, repeated from the start
    /// (draft-vixie-dnsext-dns0x20).
    pub upper_case: u64,
    /// It has no OPT because the server did not understand the same query with it.
    pub plain: bool,
    /// RD is not set.
    pub without_recursion: bool,
    /// Padded so that an observer of the encrypted stream learns less from its length.
    pub is_padded: bool,
}

/// Writes the query for `question`. AD is set, CD is copied from the client's query, and no
/// other part of that query is passed on.
pub(super) fn write_query(question: &Question<'_>, form: Form, out: &mut Vec<u8>) {
    let [id1, id0] = form.id.to_be_bytes();
    let flags = AD | u8::from(question.checking_disabled) << 4;
    out.clear();
    let rd = u8::from(!form.without_recursion);
    out.extend_from_slice(&[id1, id0, rd, flags, 0, 1, 0, 0, 0, 0, 0, u8::from(form.edns)]);
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
        if form.is_padded {
            pad(out);
        }
    }
}

/// Appends a padding option to the OPT record that ends `query`, up to the next multiple of
/// [`PADDING_BLOCK`] (RFC 7830, RFC 8467 section 4.1).
fn pad(query: &mut Vec<u8>) {
    const PADDING: u16 = 12;
    let zeros = (query.len() + 4).next_multiple_of(PADDING_BLOCK) - query.len() - 4;
    let rdata_len = query.len() - 2;
    query[rdata_len..].copy_from_slice(&(zeros as u16 + 4).to_be_bytes());
    query.extend_from_slice(&PADDING.to_be_bytes());
    query.extend_from_slice(&(zeros as u16).to_be_bytes());
    query.resize(query.len() + zeros, 0);
}

/// How a message from an upstream relates to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Not a reply to this query. The real reply may still arrive.
    Stray,
    /// A reply to this query, but the case of the question's letters differs.
    OtherCase,
    /// The reply to this query.
    Reply,
    /// The same, an error without the question (RFC 8906 section 3.1).
    Bare,
}

/// The reason of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The response code that the client gets.
    pub rcode: u16,
    /// The Extended DNS Error for the client.
    pub reason: ErrorCode,
    /// The text of the Extended DNS Error.
    pub text: &'static str,
    /// The index of the server that failed, if one did.
    pub server: Option<u16>,
}

impl Failure {
    /// Returns SERVFAIL for `reason`.
    pub const fn servfail(reason: ErrorCode, text: &'static str) -> Self {
        Self { rcode: rcode::SERVFAIL, reason, text, server: None }
    }

    /// Returns the same as the failure of `server`.
    pub const fn of(self, server: u16) -> Self {
        Self { server: Some(server), ..self }
    }
}

/// Matches `message` with `query`, whose question ends at `question_end`. QR, opcode 0, the ID and
/// all bytes of the question must agree, including its case (RFC 5452 section 9.1). Only an error
/// may omit the question.
pub(super) fn match_reply(message: &[u8], query: &[u8], question_end: usize) -> Match {
    let is_reply =
        message.len() >= HEADER_LEN && message[..2] == query[..2] && message[2] & 0xf8 == 0x80;
    if !is_reply {
        return Match::Stray;
    }
    if message[4..6] == [0, 0] {
        let code = u16::from(message[3] & 0x0f);
        let is_error = !matches!(code, rcode::NOERROR | rcode::NXDOMAIN);
        return if is_error { Match::Bare } else { Match::Stray };
    }
    if message.len() < question_end || message[4..6] != [0, 1] {
        return Match::Stray;
    }
    let (theirs, ours) = (&message[HEADER_LEN..question_end], &query[HEADER_LEN..question_end]);
    let fixed = ours.len() - 4;
    if theirs == ours {
        Match::Reply
    } else if theirs[..fixed].eq_ignore_ascii_case(&ours[..fixed])
        && theirs[fixed..] == ours[fixed..]
    {
        Match::OtherCase
    } else {
        Match::Stray
    }
}

/// Returns the response code of `message` with the upper bits from OPT (RFC 6891 section 6.1.3),
/// and the options of OPT; empty if it has no OPT record in front of the first malformed one.
pub(super) fn response_code(message: &[u8], question_end: usize) -> (u16, &[u8]) {
    let (upper, options) = opt(message, question_end).unwrap_or_default();
    (u16::from(upper) << 4 | u16::from(message[3] & 0x0f), options)
}

/// Returns whether TC is set.
pub(super) fn is_truncated(message: &[u8]) -> bool {
    message[2] & 0x02 != 0
}

/// Returns the upper bits of the response code, and the options.
fn opt(message: &[u8], question_end: usize) -> Option<(u8, &[u8])> {
    let mut at = question_end;
    loop {
        let fixed = skip_name(message, at)?;
        let &[t1, t0, _, _, upper, _, _, _, l1, l0] = message.get(fixed..)?.first_chunk()?;
        at = fixed + 10 + usize::from(u16::from_be_bytes([l1, l0]));
        let rdata = message.get(fixed + 10..at)?;
        if u16::from_be_bytes([t1, t0]) == rtype::OPT {
            return Some((upper, rdata));
        }
    }
}

/// Returns the offset after the name at `start`, which may end in a pointer.
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

/// Returns the addresses in a reply, and how long they can be kept.
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

/// AD in a query requests the AD flag of the reply (RFC 6840 section 5.7).
const AD: u8 = 0x20;
/// Queries over TLS are padded to a multiple of this many bytes (RFC 8467 section 4.1).
const PADDING_BLOCK: usize = 128;

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
