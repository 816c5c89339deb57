//! The handler of the DNS listener: the records as published last, and a turn for each query; zone
//! transfers go to a task of their own.
//!
//! Seam. Knows the listener and the store; holds no rule of DNS.

pub mod transfers;

use std::cell::Cell;

use shared::prefix::Prefix;
use shared::serve::{Asked, Handler, Verdict};
use shared::wire::{Query, Reply, class, rtype};

use crate::answer::answer;
use crate::store::Reader;
use crate::transfer;

/// Answers from what the store shows.
#[derive(Debug)]
pub struct Answers {
    reader: Reader,
    /// Who may transfer zones.
    transfer: Box<[Prefix]>,
}

impl Answers {
    /// Answers from `reader`; clients in one of `transfer` may transfer zones.
    pub fn new(reader: Reader, transfer: impl Into<Box<[Prefix]>>) -> Self {
        Self { reader, transfer: transfer.into() }
    }

    /// Whether `query` wants a zone that this client may have.
    fn is_transfer(&self, query: &Query<'_>, asked: &Asked) -> bool {
        matches!(query.qtype, rtype::AXFR | rtype::IXFR)
            && query.qclass == class::IN
            && self.transfer.iter().any(|prefix| prefix.contains(asked.peer.ip()))
    }
}

impl Handler for Answers {
    fn answer(&self, query: &Query<'_>, asked: &Asked, reply: &mut Reply<'_>) -> Verdict {
        let records = self.reader.records();
        if self.is_transfer(query, asked) {
            let begun = transfer::begin(query, &records, reply);
            return if begun.is_some() { Verdict::Later } else { Verdict::Send };
        }
        answer(query, &records, next_turn(), reply);
        Verdict::Send
    }
}

/// A number that differs from query to query, per thread: no thread waits for another.
fn next_turn() -> u32 {
    thread_local! {
        static TURN: Cell<u32> = const { Cell::new(0) };
    }
    TURN.with(|turn| turn.replace(turn.get().wrapping_add(1)))
}
