//! Limits the connections at the same time, and chooses which of them makes room for a new one.
//!
//! Core, called by the one task that accepts. Connections and handlers use only their [`Seat`].
//! Independent of sockets.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokio::sync::Notify;

use crate::clock::{Moment, boot_time};

/// The place of a connection among those allowed at the same time. It is in the extensions of every
/// request.
#[derive(Clone, Debug)]
pub struct Seat(Arc<State>);

#[derive(Debug)]
struct State {
    client: IpAddr,
    /// Requests being answered.
    requests: AtomicUsize,
    /// Streams that have left the seat.
    away: AtomicUsize,
    /// Nanoseconds since boot when it became idle, or busy.
    since: AtomicU64,
    told: AtomicU8,
    wake: Notify,
}

/// A request to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Told {
    /// Finish the request, if there is one, and close.
    Leave = 1,
    /// Close at once.
    End = 2,
}

impl Seat {
    /// Returns a seat for `client`, idle since `now`.
    pub(super) fn new(client: IpAddr, now: Moment) -> Self {
        Self(Arc::new(State {
            client,
            requests: AtomicUsize::new(0),
            away: AtomicUsize::new(0),
            since: AtomicU64::new(now.nanos()),
            told: AtomicU8::new(0),
            wake: Notify::new(),
        }))
    }

    /// Returns the client's address. An IPv4 client has an IPv4 address even if the socket is of
    /// IPv6.
    pub fn client(&self) -> IpAddr {
        self.0.client
    }

    /// Leaves the seat to others until the returned guard is dropped. For a response without end,
    /// whose stream must hold the guard. The limits on connections and on their age do not apply to
    /// it, so the handler must bound such streams itself.
    pub fn leave(&self) -> Away {
        self.0.away.fetch_add(1, Relaxed);
        Away(self.clone())
    }

    /// Returns whether a stream runs that has left the seat.
    pub(super) fn is_away(&self) -> bool {
        self.0.away.load(Relaxed) > 0
    }

    /// Marks a request as being answered until the returned guard is dropped.
    pub(super) fn begin(&self) -> Busy {
        if self.0.requests.fetch_add(1, Relaxed) == 0 {
            self.0.since.store(boot_time().nanos(), Relaxed);
        }
        Busy(self.clone())
    }

    fn is_idle(&self) -> bool {
        self.0.requests.load(Relaxed) == 0
    }

    fn since(&self) -> u64 {
        self.0.since.load(Relaxed)
    }

    fn tell(&self, told: Told) {
        self.0.told.fetch_max(told as u8, Relaxed);
        self.0.wake.notify_one();
    }

    /// Returns the last request to the connection; `None` while it can stay.
    fn told_already(&self) -> Option<Told> {
        match self.0.told.load(Relaxed) {
            0 => None,
            1 => Some(Told::Leave),
            _ => Some(Told::End),
        }
    }

    /// Resolves with the request to the connection.
    pub(super) async fn told(&self) -> Told {
        loop {
            if let Some(told) = self.told_already() {
                return told;
            }
            self.0.wake.notified().await;
        }
    }

    /// Resolves when the connection must close at once.
    pub(super) async fn ended(&self) {
        while self.told_already() != Some(Told::End) {
            self.0.wake.notified().await;
        }
    }
}

/// A guard: a stream is away from its seat until this is dropped.
#[derive(Debug)]
pub struct Away(Seat);

impl Drop for Away {
    fn drop(&mut self) {
        self.0.0.away.fetch_sub(1, Relaxed);
    }
}

/// A guard: a request is being answered until this is dropped.
#[derive(Debug)]
pub(super) struct Busy(Seat);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.0.requests.fetch_sub(1, Relaxed) == 1 {
            self.0.0.since.store(boot_time().nanos(), Relaxed);
        }
    }
}

/// Every connection's seat, by the connection.
#[derive(Debug)]
pub(super) struct Seats<K> {
    max: usize,
    per_client_max: usize,
    taken: HashMap<K, Seat>,
}

impl<K: Eq + Hash> Seats<K> {
    /// Returns `max` seats, of which one address can have `per_client_max`.
    pub(super) fn new(max: usize, per_client_max: usize) -> Self {
        Self { max, per_client_max, taken: HashMap::new() }
    }

    /// Returns whether there is a seat for another connection of `client`, after it makes room if
    /// necessary.
    ///
    /// A client with too many connections loses the one that has been idle for longest. If no seat
    /// is left, the longest idle of all must leave. If every connection is busy, a client without a
    /// seat, or on this machine, gets the seat of the longest request of the client with the most
    /// connections, so that the kubelet can always connect.
    pub(super) fn admit(&self, client: IpAddr) -> bool {
        let mut seated: Vec<&Seat> = self.taken.values().filter(|seat| is_seated(seat)).collect();
        let count =
            |seated: &[&Seat], client| seated.iter().filter(|seat| seat.client() == client).count();
        let own = count(&seated, client);
        if own >= self.per_client_max {
            let of_client = |seat: &&Seat| seat.client() == client;
            let Some(seat) = longest_idle(seated.iter().copied().filter(of_client)) else {
                return false;
            };
            self.dismiss(seat);
            return true; // one seat for another
        }
        if seated.len() < self.max {
            return true;
        }
        if let Some(seat) = longest_idle(seated.iter().copied()) {
            self.dismiss(seat);
            return true;
        }
        if own > 0 && !client.is_loopback() {
            return false;
        }
        let counts: Vec<usize> = seated.iter().map(|seat| count(&seated, seat.client())).collect();
        let most = counts.iter().copied().max().unwrap_or_default();
        let mut counts = counts.into_iter();
        seated.retain(|_| counts.next() == Some(most));
        let longest = seated.into_iter().min_by_key(|seat| seat.since());
        longest.inspect(|seat| seat.tell(Told::End)).is_some()
    }

    /// Asks an idle connection to leave. It ends at once unless a request has just arrived. If too
    /// many are still leaving, it is ended at once.
    fn dismiss(&self, seat: &Seat) {
        let leaving = self.taken.values().filter(|seat| seat.told_already().is_some()).count();
        seat.tell(if leaving < self.max { Told::Leave } else { Told::End });
    }

    /// Adds the seat of the connection `key`.
    pub(super) fn insert(&mut self, key: K, seat: Seat) {
        self.taken.insert(key, seat);
    }

    /// Removes a connection that has ended in any way.
    pub(super) fn remove(&mut self, key: &K) {
        self.taken.remove(key);
    }
}

/// Returns whether a seat counts: its connection stays, and none of its streams is away.
fn is_seated(seat: &Seat) -> bool {
    !seat.is_away() && seat.told_already().is_none()
}

fn longest_idle<'a>(seats: impl Iterator<Item = &'a Seat>) -> Option<&'a Seat> {
    seats.filter(|seat| seat.is_idle()).min_by_key(|seat| seat.since())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KUBELET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn client(last: u8) -> IpAddr {
        [10, 0, 1, last].into()
    }

    /// The client of a seat, whether it is busy, and since which second.
    type Taken = (u8, bool, u64);

    /// Whether another client is admitted, and the request to which seat.
    type Expected = (bool, Option<(usize, Told)>);

    /// Returns 4 seats, 2 for one client, taken as in `rows`.
    fn seats(rows: &[Taken]) -> (Seats<usize>, Vec<Busy>) {
        let mut seats = Seats::new(4, 2);
        let mut busy = Vec::new();
        for (key, &(last, is_busy, since)) in rows.iter().enumerate() {
            let seat = Seat::new(client(last), Moment::default());
            busy.extend(is_busy.then(|| seat.begin()));
            let since = Moment::default() + Duration::from_secs(since);
            seat.0.since.store(since.nanos(), Relaxed);
            seats.insert(key, seat);
        }
        (seats, busy)
    }

    #[test]
    fn a_new_connection_gets_a_seat_and_the_right_one_makes_room() {
        let (one, loopback) = (client(1), IpAddr::from([127, 0, 0, 1]));
        let (leave, end) = (Told::Leave, Told::End);
        let idle = [(1, false, 5), (2, false, 3), (3, false, 4), (4, false, 6)];
        let some_busy = [(1, true, 1), (2, true, 2), (3, false, 9), (4, true, 3)];
        let all_busy = [(1, true, 4), (2, true, 1), (3, true, 3), (3, true, 2)];
        let two_clients = [(1, true, 1), (1, true, 2), (2, true, 3), (2, true, 4)];
        let rows: &[(&str, &[Taken], IpAddr, Expected)] = &[
            ("nobody is there", &[], one, (true, None)),
            ("there is room", &idle[..3], one, (true, None)),
            (
                "too many of one client",
                &[(1, false, 5), (1, false, 4)],
                one,
                (true, Some((1, leave))),
            ),
            ("of these one is busy", &[(1, true, 1), (1, false, 4)], one, (true, Some((1, leave)))),
            ("too many, all busy", &[(1, true, 1), (1, true, 2)], one, (false, None)),
            ("too many of another", &[(1, false, 5), (1, false, 4)], client(2), (true, None)),
            ("the longest idle goes", &idle, KUBELET, (true, Some((1, leave)))),
            ("also for one that has a seat", &idle, client(4), (true, Some((1, leave)))),
            ("never a busy one", &some_busy, KUBELET, (true, Some((2, leave)))),
            ("all are busy", &all_busy, KUBELET, (true, Some((3, end)))),
            ("and it is on this machine", &all_busy, loopback, (true, Some((3, end)))),
            ("and it has a seat", &all_busy, client(2), (false, None)),
            ("of those with most the longest", &two_clients, KUBELET, (true, Some((0, end)))),
        ];
        for (what, taken, client, (is_admitted, told)) in rows {
            let (seats, _busy) = seats(taken);
            assert_eq!(seats.admit(*client), *is_admitted, "{what}");
            for (key, seat) in &seats.taken {
                let expected = told.filter(|(which, _)| which == key).map(|(_, told)| told);
                assert_eq!(seat.told_already(), expected, "{what}: {key}");
            }
        }
    }

    #[test]
    fn a_seat_is_left_as_long_as_its_stream_lives() {
        let (mut seats, _busy) = seats(&[(1, true, 1), (1, true, 2)]);
        assert!(!seats.admit(client(1)));
        let away = seats.taken[&0].leave();
        let other = seats.taken[&0].leave();
        assert!(seats.admit(client(1)));
        drop(away);
        assert!(seats.admit(client(1)), "the other stream lives");
        drop(other);
        assert!(!seats.admit(client(1)));
        seats.remove(&0);
        assert!(seats.admit(client(1)));
    }

    #[tokio::test]
    async fn what_a_connection_is_told_is_not_taken_back() {
        let seat = Seat::new(KUBELET, Moment::default());
        seat.tell(Told::End);
        seat.tell(Told::Leave);
        assert_eq!(seat.told().await, Told::End);
        seat.ended().await;
    }
}
