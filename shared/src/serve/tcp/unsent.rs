//! Replies that a client has not taken yet, in the order in which they are sent.
//!
//! Core. Holds bytes and counts them, independent of sockets.

use std::collections::VecDeque;

use super::budget::Flight;

/// The replies of one connection that are not written yet, with their lengths before them.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    bytes: Vec<u8>,
    /// The number of `bytes` that are written.
    at: usize,
    /// The total of queued bytes, and how many of them were written.
    queued: u64,
    written: u64,
    /// Queries whose replies end at this total of queued bytes. Each ends when that is written.
    flights: VecDeque<(u64, Flight)>,
}

impl Unsent {
    /// Returns how many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Returns whether no byte waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes of memory.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Returns the waiting bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Notes that `len` more bytes must be written. `flight` ends with the last of them.
    pub(super) fn queue(&mut self, len: usize, flight: Option<Flight>) {
        self.queued += len as u64;
        self.flights.extend(flight.map(|flight| (self.queued, flight)));
    }

    /// Keeps `rest`, which was queued and could not be written.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.reserve_exact(rest.len());
        self.bytes.extend_from_slice(rest);
    }

    /// Notes that the first `len` of the waiting bytes were written.
    pub(super) fn take(&mut self, len: usize) {
        self.at += len;
        if self.is_empty() {
            (self.bytes, self.at) = (Vec::new(), 0);
        }
        self.pass(len);
    }

    /// Notes that `len` bytes were written without waiting here.
    pub(super) fn pass(&mut self, len: usize) {
        self.written += len as u64;
        while self.flights.front().is_some_and(|(end, _)| *end <= self.written) {
            self.flights.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::budget::{Account, Budget};
    use super::*;
    use crate::clock::Moment;
    use crate::serve::counters::Counters;

    #[test]
    fn a_query_is_in_flight_until_the_last_byte_of_its_reply_is_written() {
        let budget = Budget::new(1, Arc::new(Counters::new([])));
        let account = Account::new(budget, Moment::default());
        let mut unsent = Unsent::default();
        unsent.queue(10, Some(Flight::new(&account)));
        unsent.queue(5, None);
        unsent.queue(5, Some(Flight::new(&account)));
        unsent.pass(9); // the socket took these at once
        unsent.keep(b"abcdefghijk");
        assert_eq!((unsent.len(), account.flights()), (11, 2));
        unsent.take(1);
        assert_eq!((unsent.bytes(), account.flights()), (&b"bcdefghijk"[..], 1));
        unsent.take(9);
        unsent.queue(3, Some(Flight::new(&account)));
        unsent.keep(b"xyz");
        assert_eq!((unsent.bytes(), account.flights()), (&b"kxyz"[..], 2));
        unsent.take(1);
        assert_eq!((unsent.len(), account.flights()), (3, 1));
        unsent.take(3);
        assert_eq!((unsent.len(), unsent.capacity(), account.flights()), (0, 0, 0));
    }
}
