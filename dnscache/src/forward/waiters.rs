//! The waiters for answers: how much each client can ask, and how fast many waiters of one question
//! are answered.
//!
//! Core. Independent of questions and servers.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use shared::clock::Moment;
use shared::wire::ErrorCode;

use super::message::Failure;
use super::table::QUERIES_MAX;

/// What clients have under way, and its limits.
#[derive(Debug)]
pub(super) struct Budget {
    /// Queries under way by the client that asked first. Clients share a place if their hashes
    /// collide.
    clients: Box<[u16]>,
    hasher: RandomState,
    /// Bytes of the questions that wait.
    bytes: usize,
}

impl Budget {
    pub fn new() -> Self {
        let clients = vec![0; CLIENT_PLACES].into();
        Self { clients, hasher: RandomState::new(), bytes: 0 }
    }

    /// Takes a place for one more query of `client`. A client can have at most a quarter of the
    /// room that `under_way` queries leave, so that one client alone can ask much, and many clients
    /// leave room for others.
    ///
    /// Fails if the client has too many under way. The place is given back with [`Budget::leave`].
    pub fn admit(&mut self, client: IpAddr, under_way: usize) -> Result<u16, Failure> {
        let hash = match client {
            IpAddr::V4(address) => self.hasher.hash_one(address),
            // One IPv6 client has a /64.
            IpAddr::V6(address) => self.hasher.hash_one(&address.segments()[..4]),
        };
        let place = hash as usize % CLIENT_PLACES;
        let max = CLIENT_MIN.max(((QUERIES_MAX - under_way) / 4) as u16);
        if self.clients[place] >= max {
            return Err(GREEDY);
        }
        self.clients[place] += 1;
        Ok(place as u16)
    }

    /// Gives a place back.
    pub fn leave(&mut self, place: u16) {
        self.clients[usize::from(place)] -= 1;
    }

    /// Returns whether any question waits.
    pub fn is_waited_for(&self) -> bool {
        self.bytes > 0
    }

    /// Takes room for a waiting question of `len` bytes. Returns `false` if the room is used up.
    pub fn hold(&mut self, len: usize) -> bool {
        let fits = self.bytes + len + WAITER_BYTES <= BYTES_MAX;
        self.bytes += if fits { len + WAITER_BYTES } else { 0 };
        fits
    }

    /// Gives back the room of a question of `len` bytes.
    pub fn release(&mut self, len: usize) {
        self.bytes -= len + WAITER_BYTES;
    }
}

/// Waiters of answered questions. Many waiters of one question are answered over a tenth of the
/// time that they waited: an attacker must not be able to collect answers and have them sent at
/// once (DNSBomb).
#[derive(Debug)]
pub(super) struct Releases<W, A>(VecDeque<Release<W, A>>);

#[derive(Debug)]
struct Release<W, A> {
    answer: A,
    waiters: VecDeque<W>,
    count: usize,
    started: Moment,
    duration: Duration,
}

impl<W, A> Releases<W, A> {
    pub fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Adds the `waiters` of a question that was under way for `wait` and has `answer`. If they are
    /// at most [`AT_ONCE`], the caller should answer them itself.
    pub fn add(&mut self, waiters: Vec<W>, answer: A, wait: Duration, now: Moment) {
        let count = waiters.len();
        let duration = if count > AT_ONCE { wait / GAIN_MAX } else { Duration::ZERO };
        let waiters = waiters.into();
        self.0.push_back(Release { answer, waiters, count, started: now, duration });
    }

    /// Calls `reply` for each waiter that is due.
    pub fn run(&mut self, now: Moment, mut reply: impl FnMut(&W, &A)) {
        for release in &mut self.0 {
            for waiter in release.waiters.drain(..release.due(now)) {
                reply(&waiter, &release.answer);
            }
        }
        self.0.retain(|release| !release.waiters.is_empty());
    }

    /// Returns whether no waiter is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<W, A> Release<W, A> {
    /// Returns how many more waiters are due at `now`.
    fn due(&self, now: Moment) -> usize {
        let elapsed = now.since(self.started);
        if elapsed >= self.duration {
            return self.waiters.len();
        }
        let share = elapsed.as_nanos() * self.count as u128 / self.duration.as_nanos();
        let due = AT_ONCE + share as usize;
        due.saturating_sub(self.count - self.waiters.len()).min(self.waiters.len())
    }
}

/// Queries that one client can always have under way.
const CLIENT_MIN: u16 = 256;
/// Places among which client addresses are spread.
const CLIENT_PLACES: usize = 8_192;
/// Bytes of all questions that wait.
const BYTES_MAX: usize = 32 << 20;
/// Bytes that a waiter takes beside its question.
const WAITER_BYTES: usize = 160;
/// Waiters of one question that are answered at once.
pub(super) const AT_ONCE: usize = 64;
/// The waiters of a question are answered at most this many times faster than they arrived.
const GAIN_MAX: u32 = 10;
const GREEDY: Failure =
    Failure::servfail(ErrorCode::Other, "too many questions of this client are under way");

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many questions each of `clients` waits, which ask in turn until all are refused.
    fn shares(clients: u8) -> Vec<usize> {
        let mut budget = Budget::new();
        let mut shares = vec![0; usize::from(clients)];
        let mut under_way = 0;
        loop {
            let before = under_way;
            for client in 0..clients {
                let address = IpAddr::from([10, 0, 0, client]);
                if under_way < QUERIES_MAX && budget.admit(address, under_way).is_ok() {
                    shares[usize::from(client)] += 1;
                    under_way += 1;
                }
            }
            if under_way == before {
                return shares;
            }
        }
    }

    #[test]
    fn a_client_alone_may_ask_much_and_many_leave_room() {
        for (clients, each) in [(1, QUERIES_MAX / 5), (4, QUERIES_MAX / 8), (12, 256)] {
            let shares = shares(clients);
            let near = |&share: &usize| share.abs_diff(each) <= 1;
            assert!(shares.iter().all(near), "{clients} clients: {shares:?}");
        }
    }

    #[test]
    fn many_waiters_leave_over_a_tenth_of_their_wait_and_few_at_once() {
        let start = Moment::from_nanos(1_000_000_000);
        for (count, wait_ms) in [(10_000, 200), (10_000, 4_800), (65, 10), (64, 4_800), (1, 1)] {
            let mut releases = Releases::new();
            let wait = Duration::from_millis(wait_ms);
            releases.add((0..count).collect(), (), wait, start);
            let mut told = Vec::new();
            let mut most = 0;
            let mut passed = Duration::ZERO;
            while !releases.is_empty() {
                let before = told.len();
                releases.run(start + passed, |&waiter, &()| told.push(waiter));
                most = most.max(told.len() - before);
                passed += Duration::from_millis(1);
            }
            assert_eq!(told, (0..count).collect::<Vec<_>>(), "in order");
            let even = count * 10 / wait_ms.max(1) as usize;
            assert!(most <= AT_ONCE + even + 1, "{count} {wait_ms}: {most}");
        }
    }

    #[test]
    fn room_is_given_back() {
        let mut budget = Budget::new();
        let held = (0..).take_while(|_| budget.hold(100)).count();
        assert!((BYTES_MAX / 300..BYTES_MAX / 100).contains(&held), "{held}");
        budget.release(100);
        assert!(budget.hold(100) && !budget.hold(100));
    }
}
