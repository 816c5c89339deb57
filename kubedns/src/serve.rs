//! The handler of the DNS listener: the records as published last, and a turn for each query.
//!
//! Seam. Knows the listener and the store; holds no rule of DNS.

use std::cell::Cell;

use shared::serve::{Asked, Handler, Verdict};
use shared::wire::{Query, Reply};

use crate::answer::answer;
use crate::store::Reader;

/// Answers from what the store shows.
#[derive(Debug)]
pub struct Answers {
    reader: Reader,
}

impl Answers {
    /// Answers from `reader`.
    pub fn new(reader: Reader) -> Self {
        Self { reader }
    }
}

impl Handler for Answers {
    fn answer(&self, query: &Query<'_>, _: &Asked, reply: &mut Reply<'_>) -> Verdict {
        answer(query, &self.reader.records(), next_turn(), reply);
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
