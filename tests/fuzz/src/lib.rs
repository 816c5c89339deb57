//! The properties that must hold for any bytes. There is one function for each parser of untrusted
//! input. A function panics if the property does not hold.
//!
//! `.ci/fuzz SECONDS` runs them guided by coverage. `cargo test` runs them briefly with a generator
//! of its own (`tests/it/fuzz.rs`). Both begin with `seeds/`. If a run finds a failure, its input
//! is added there as a line.
//!
//! ```text
//! screen   a datagram           ─▶ a query or a refusal
//! cache    an upstream's reply  ─▶ reduced, kept, aged, truncated
//! answer   a query              ─▶ kubedns's reply
//! corefile a configuration      ─▶ its blocks, and what becomes of each line
//! ```

mod corefile;
mod shop;
mod walk;

use std::time::Duration;

use dnscache::cache::{Bounds, Cache, Entry, Lookup, Question};
use dnscache::lifetime::Limits;
use dnscache::normalise::{Asked, reduce};
use hickory_proto::op::Message;
use shared::clock::Moment;
use shared::wire::{
    HEADER_LEN, MESSAGE_MAX, NameBuffer, Query, Refusal, Reply, Transport, UDP_SIZE_MAX,
    UDP_SIZE_PLAIN, labels, name_end, refuse,
};

pub use corefile::corefile;

/// Checks that both decoders read a query alike, and that everything else gets a reply that can be
/// decoded, or no reply.
pub fn screen(bytes: &[u8]) {
    let mut name = NameBuffer::new();
    match Query::screen(bytes, Transport::Udp, &mut name) {
        Err(refusal) => {
            let mut out = [0; UDP_SIZE_PLAIN];
            let len = refuse(bytes, refusal, UDP_SIZE_MAX as u16, &mut out);
            assert_eq!(len.is_none(), refusal == Refusal::Silence);
            if let Some(len) = len {
                let walked = walk::message(&out[..len]);
                assert_eq!(out[..2], bytes[..2], "the ID is echoed");
                assert!(out[2] & 0x80 != 0 && walked.records.iter().all(|record| record.is_opt()));
            }
        }
        Ok(query) => {
            assert!(query.name().eq_ignore_ascii_case(query.name_as_asked()));
            assert!(!query.name().iter().any(u8::is_ascii_uppercase));
            let count = labels(query.name()).count();
            let len: usize = labels(query.name()).map(|label| label.len() + 1).sum();
            assert_eq!(len + 1, query.name().len());
            assert!(labels(query.name()).all(|label| label.len() <= 63));
            if let Ok(other) = Message::from_vec(bytes) {
                assert_eq!(other.queries.len(), 1);
                assert_eq!(other.queries[0].name().iter().count(), count);
                assert_eq!(u16::from(other.queries[0].query_type()), query.qtype);
                assert_eq!(other.metadata.id, query.id());
            }
        }
    }
}

/// Checks that a reply of an upstream (after four bytes: age, flags, size) is rejected, or is
/// returned as it was: whole records, with TTLs lowered by the age, within the client's size.
pub fn cache(bytes: &[u8]) {
    let Some((&[age1, age0, flags, size], said)) = bytes.split_first_chunk::<4>() else { return };
    let Some(end) = name_end(said, HEADER_LEN).filter(|end| end + 4 <= said.len()) else { return };
    let (dnssec_ok, owned) = (flags & 1 != 0, flags & 2 != 0);
    let mut asking = vec![flags, age0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    asking.extend_from_slice(&said[HEADER_LEN..end + 4]);
    asking.extend([0, 0, 41, size, 0, 0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
    let (mut of_udp, mut of_tcp) = (NameBuffer::new(), NameBuffer::new());
    let expected = "an uncompressed question with OPT";
    let udp = Query::screen(&asking, Transport::Udp, &mut of_udp).expect(expected);
    let tcp = Query::screen(&asking, Transport::Tcp, &mut of_tcp).expect(expected);
    let question = Question::of(&udp);
    let (name, qtype) = (question.name, question.qtype);
    let asked = Asked { name, qtype, dnssec_ok, owned, is_theirs: &|_, _| true };
    let limits = Limits { ttl_min: 0, ttl_max: 86_400, negative_max: 300 };
    let Ok(answer) = reduce(said, &asked, &limits) else { return };

    let age = u32::from(u16::from_be_bytes([age1, age0]));
    let whole = emit(&answer.entry, &tcp, 0);
    let fresh = walk::message(&whole);
    let aged = emit(&answer.entry, &tcp, age);
    let old = walk::message(&aged);
    assert_eq!(fresh.records.len(), old.records.len());
    for (then, now) in fresh.records.iter().zip(&old.records) {
        assert_eq!(now.without_ttl(), then.without_ttl());
        assert_eq!(now.ttl, if now.is_opt() { then.ttl } else { then.ttl.saturating_sub(age) });
        assert!(then.is_opt() || then.ttl <= limits.ttl_max);
    }
    let datagram = emit(&answer.entry, &udp, 0);
    assert!(datagram.len() <= udp.reply_len_max());
    let part = walk::message(&datagram);
    let is_cut = datagram[2] & 0x02 != 0;
    assert!(is_cut || part.answers().count() == fresh.answers().count());
    assert!(part.records.iter().all(|record| fresh.records.contains(record)), "whole records");

    // A cache must return the same as the entry until the end of its lifetime, and not longer.
    let cache = Cache::new(Bounds { entries: 100, bytes: 1 << 20, stale_secs: 0 });
    let stored = Moment::default() + Duration::from_secs(100_000);
    let lifetime = answer.lifetime_secs;
    assert!(fresh.answers().all(|record| lifetime <= record.ttl));
    cache.insert(&question, &answer.entry, lifetime, stored);
    let mut out = vec![0; MESSAGE_MAX];
    let mut reply = Reply::new(&tcp, &mut out);
    match cache.get(&tcp, stored + Duration::from_secs(age.into()), &mut reply) {
        Lookup::Hit | Lookup::Due => {
            let len = reply.finish();
            assert!(age < lifetime, "{age} s old, kept for {lifetime} s");
            assert_eq!(out[..len], aged[..]);
        }
        _ => assert!(age >= lifetime || whole.len() > 1_000 || fresh.records.len() > 20),
    }
}

/// Checks that kubedns answers every query with a reply that both decoders read, within the
/// client's size. Over TCP, TC must not be set, because all answers of the shop fit.
pub fn answer(bytes: &[u8]) {
    let mut name = NameBuffer::new();
    for transport in [Transport::Udp, Transport::Tcp] {
        let Ok(query) = Query::screen(bytes, transport, &mut name) else { return };
        let mut out = vec![0; MESSAGE_MAX];
        let mut reply = Reply::new(&query, &mut out);
        kubedns::answer::answer(&query, &shop::RECORDS, u32::from(query.id()), &mut reply);
        let len = reply.finish();
        assert!(len <= query.reply_len_max());
        assert!(transport == Transport::Udp || out[2] & 0x02 == 0, "TC over TCP");
        let walked = walk::message(&out[..len]);
        let other = Message::from_vec(&out[..len]).expect("hickory reads what kubedns writes");
        assert_eq!(other.answers.len(), walked.answers().count());
        assert_eq!(other.metadata.id, query.id());
    }
}

/// Returns the reply to `query` from `entry`.
fn emit(entry: &Entry, query: &Query<'_>, age: u32) -> Vec<u8> {
    let mut out = vec![0; MESSAGE_MAX];
    let mut reply = Reply::new(query, &mut out);
    entry.emit(query, age, u32::MAX, &mut reply);
    let len = reply.finish();
    out.truncate(len);
    out
}
