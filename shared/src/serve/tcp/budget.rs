//! The bytes and queries that TCP connections hold for their clients: bounded over all of them, and
//! used by the task that makes room.
//!
//! Seam: numbers that connections, the answering tasks and the accepting task share. No lock.
//!
//! ```text
//! connection ── Account ── Charge (bytes of a buffer), Flight (a query until its reply is written)
//!                  │
//!               Budget: all accounts together; tight ─▶ reading pauses, the listener makes room
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokio::sync::Notify;

use super::super::counters::Counters;
use crate::clock::Moment;

/// The bytes that all connections of a listener hold for their clients: unanswered input and
/// unwritten replies.
#[derive(Debug)]
pub(in super::super) struct Budget {
    max: usize,
    /// Holds the sum, which metrics also use.
    counters: Arc<Counters>,
    /// Notified if the budget is tight, so that the listener makes room.
    wanted: Notify,
    /// Notified if the budget is no longer tight.
    freed: Notify,
}

impl Budget {
    /// Returns a budget of `max` bytes. The sum is kept in `counters`.
    pub(in super::super) fn new(max: usize, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { max, counters, wanted: Notify::new(), freed: Notify::new() })
    }

    /// Returns the bytes held now.
    pub(super) fn used(&self) -> usize {
        self.counters.tcp_held.load(Relaxed)
    }

    /// Returns whether messages must no longer be taken from clients. The last quarter is for
    /// replies to queries that were taken before.
    pub(super) fn is_tight(&self) -> bool {
        self.used() > self.tight()
    }

    fn tight(&self) -> usize {
        self.max - self.max / 4
    }

    /// Returns how many bytes must be released until half of the budget is free; 0 if it is not
    /// tight.
    pub(super) fn excess(&self) -> usize {
        if self.is_tight() { self.used() - self.max / 2 } else { 0 }
    }

    /// Resolves when the budget is not tight.
    pub(in super::super) async fn loose(&self) {
        loop {
            // Created before the check, so that no change after it is missed.
            let freed = self.freed.notified();
            if !self.is_tight() {
                return;
            }
            freed.await;
        }
    }

    /// Resolves when the budget has become tight.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    fn take(&self, bytes: usize) -> bool {
        let add = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.max);
        let Ok(before) = self.counters.tcp_held.fetch_update(Relaxed, Relaxed, add) else {
            self.wanted.notify_one();
            return false;
        };
        if before + bytes > self.tight() {
            self.wanted.notify_one();
        }
        true
    }

    fn give_back(&self, bytes: usize) {
        let before = self.counters.tcp_held.fetch_sub(bytes, Relaxed);
        if before > self.tight() && before - bytes <= self.tight() {
            self.freed.notify_waiters();
        }
    }
}

/// A request to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(in super::super) enum Told {
    /// Continue.
    Stay = 0,
    /// Answer what has arrived, then close.
    Leave = 1,
    /// Close at once.
    End = 2,
}

/// The bytes and queries that one connection holds, and since when. Its task, the tasks that answer
/// its queries, and the listener share it.
#[derive(Debug)]
pub(in super::super) struct Account {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
    /// Nanoseconds since boot, when `bytes` was 0 last; valid while it is not.
    holding_since: AtomicU64,
    /// Nanoseconds since boot, when the connection became idle; 0 while it is busy.
    idle_since: AtomicU64,
    flights: AtomicUsize,
    told: AtomicU8,
    wake: Notify,
}

impl Account {
    /// Returns an account that is idle since `now`.
    pub(in super::super) fn new(budget: Arc<Budget>, now: Moment) -> Arc<Self> {
        Arc::new(Self {
            budget,
            bytes: AtomicUsize::new(0),
            holding_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(now.nanos()),
            flights: AtomicUsize::new(0),
            told: AtomicU8::new(Told::Stay as u8),
            wake: Notify::new(),
        })
    }

    /// Returns the budget that it belongs to.
    pub(in super::super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Returns the bytes held now.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Returns since when it has held bytes without a break.
    pub(super) fn holding_since(&self) -> Moment {
        Moment::from_nanos(self.holding_since.load(Relaxed))
    }

    /// Returns since when it has been idle; `None` while it has queries or bytes.
    pub(super) fn idle_since(&self) -> Option<Moment> {
        let since = self.idle_since.load(Relaxed);
        (since != 0).then_some(Moment::from_nanos(since))
    }

    /// Marks the connection as idle since `since`, or as busy.
    pub(super) fn set_idle(&self, since: Option<Moment>) {
        self.idle_since.store(since.map_or(0, Moment::nanos), Relaxed);
    }

    /// Returns the queries in flight: taken from the client, reply not written yet.
    pub(super) fn flights(&self) -> usize {
        self.flights.load(Relaxed)
    }

    /// Sends a request to the connection. An earlier request is never revoked.
    pub(in super::super) fn tell(&self, told: Told) {
        self.told.fetch_max(told as u8, Relaxed);
        self.wake.notify_one();
    }

    /// Returns the current request to the connection.
    pub(super) fn told(&self) -> Told {
        match self.told.load(Relaxed) {
            0 => Told::Stay,
            1 => Told::Leave,
            _ => Told::End,
        }
    }

    /// Resolves when the connection gets a request, or a flight has ended.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }
}

/// Bytes that are held; given back when it is dropped.
#[derive(Debug)]
pub(in super::super) struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Charge {
    /// Returns a charge of no bytes.
    pub(in super::super) fn none(account: &Arc<Account>) -> Self {
        Self { account: Arc::clone(account), bytes: 0 }
    }

    /// Sets the charge to `bytes`. Returns `false` and leaves it unchanged if the budget does not
    /// allow that. `now` is called if the account held no bytes before.
    pub(in super::super) fn set(&mut self, bytes: usize, now: impl FnOnce() -> Moment) -> bool {
        let account = &*self.account;
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            if !account.budget.take(more) {
                return false;
            }
            if account.bytes.fetch_add(more, Relaxed) == 0 {
                account.holding_since.store(now().nanos(), Relaxed);
            }
        } else if bytes < self.bytes {
            account.bytes.fetch_sub(self.bytes - bytes, Relaxed);
            account.budget.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let given = self.set(0, Moment::default);
        debug_assert!(given, "giving back is always allowed");
    }
}

/// A query in flight: from when it was taken from the client until its reply is written.
#[derive(Debug)]
pub(in super::super) struct Flight(Arc<Account>);

impl Flight {
    /// Adds a query to `account`.
    pub(in super::super) fn new(account: &Arc<Account>) -> Self {
        account.flights.fetch_add(1, Relaxed);
        Self(Arc::clone(account))
    }

    /// Returns the connection's account.
    pub(in super::super) fn account(&self) -> &Arc<Account> {
        &self.0
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.flights.fetch_sub(1, Relaxed);
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn budget(max: usize) -> Arc<Budget> {
        Budget::new(max, Arc::new(Counters::new([])))
    }

    fn at(secs: u64) -> Moment {
        Moment::default() + Duration::from_secs(secs)
    }

    #[test]
    fn a_sum_never_exceeds_its_bound_and_comes_back_to_zero() {
        let budget = budget(100);
        let accounts = [1, 2].map(|secs| Account::new(Arc::clone(&budget), at(secs)));
        let [mut a, mut b] = [0, 1].map(|of: usize| Charge::none(&accounts[of]));
        let mut check = |bytes: (usize, usize), taken: (bool, bool), used, tight, excess| {
            let got = (a.set(bytes.0, || at(10)), b.set(bytes.1, || at(20)));
            assert_eq!(got, taken, "{bytes:?}");
            assert_eq!((budget.used(), budget.is_tight(), budget.excess()), (used, tight, excess));
            let held: usize = accounts.iter().map(|account| account.bytes()).sum();
            assert_eq!(held, used, "{bytes:?}");
        };
        check((40, 35), (true, true), 75, false, 0);
        check((40, 36), (true, true), 76, true, 26);
        check((40, 61), (true, false), 76, true, 26);
        check((0, 100), (true, true), 100, true, 50);
        check((1, 100), (false, true), 100, true, 50);
        check((0, 0), (true, true), 0, false, 0);
        check((7, 0), (true, true), 7, false, 0);
        assert_eq!(accounts[0].holding_since(), at(10));
        drop((a, b));
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn those_who_wait_for_room_are_woken_by_the_last_byte_too_many() {
        let budget = budget(100);
        let account = Account::new(Arc::clone(&budget), at(1));
        let mut charge = Charge::none(&account);
        budget.loose().await;
        assert!(charge.set(80, || at(1)));
        budget.wanted().await;
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.loose().await }
        });
        tokio::task::yield_now().await;
        assert!(charge.set(76, || at(1)) && !waiting.is_finished());
        assert!(charge.set(75, || at(1)));
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn flights_are_counted_and_their_end_wakes_the_connection() {
        let account = Account::new(budget(1), at(1));
        let flights = [Flight::new(&account), Flight::new(&account)];
        assert_eq!(account.flights(), 2);
        drop(flights);
        account.changed().await;
        assert_eq!(account.flights(), 0);
        account.tell(Told::End);
        account.tell(Told::Leave);
        account.changed().await;
        assert_eq!(account.told(), Told::End, "never taken back");
    }
}
