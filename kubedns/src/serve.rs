//! The handler of the DNS listener: the last published records, and a turn for each query. Zone
//! transfers are handled by a separate task.
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

/// Answers with the records of the store.
#[derive(Debug)]
pub struct Answers {
    reader: Reader,
    /// The addresses that can transfer zones.
    transfer: Box<[Prefix]>,
}

impl Answers {
    /// Creates a handler for `reader`. Clients in one of `transfer` can transfer zones.
    pub fn new(reader: Reader, transfer: impl Into<Box<[Prefix]>>) -> Self {
        Self { reader, transfer: transfer.into() }
    }

    /// Returns whether `query` asks for a transfer and this client is allowed to get it.
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

/// Returns a number that differs from query to query, per thread, so that threads need not wait.
fn next_turn() -> u32 {
    thread_local! {
        static TURN: Cell<u32> = const { Cell::new(0) };
    }
    TURN.with(|turn| turn.replace(turn.get().wrapping_add(1)))
}
