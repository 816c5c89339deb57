//! The counters of the listeners, per lane and merged on read, and the sign of life of each lane.
//!
//! Edge. Each lane writes to cache lines of its own, so no thread waits for another.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Moment;
use crate::durations::{Durations, Histogram};
use crate::mnemonics::{rcode_name, type_name};
use crate::wire::{Transport, rtype};

/// The record types that are counted one by one; all others are counted together.
const TYPES: [u16; 18] = [
    rtype::A,
    rtype::AAAA,
    rtype::SRV,
    rtype::PTR,
    rtype::CNAME,
    rtype::TXT,
    rtype::SOA,
    rtype::NS,
    15, // MX
    65, // HTTPS
    rtype::ANY,
    rtype::AXFR,
    rtype::IXFR,
    43, // DS
    46, // RRSIG
    47, // NSEC
    48, // DNSKEY
    50, // NSEC3
];
/// The response codes that are counted one by one, from NOERROR to REFUSED; all others are counted
/// together.
const RCODES: u16 = 6;
const TYPE_CLASSES: usize = TYPES.len() + 1;
const RCODE_CLASSES: usize = RCODES as usize + 1;

/// Returns the label of each class of record types, in the order of [`Snapshot::replies`].
pub fn type_labels() -> Vec<Cow<'static, str>> {
    TYPES.into_iter().map(type_name).chain([OTHER]).collect()
}

/// Returns the label of each class of response codes, in the order of [`Snapshot::replies`].
pub fn rcode_labels() -> Vec<Cow<'static, str>> {
    (0..RCODES).map(rcode_name).chain([OTHER]).collect()
}

/// The label of all types, or codes, that are not counted one by one.
const OTHER: Cow<'static, str> = Cow::Borrowed("other");

/// The events counted for each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Event {
    /// A message arrived over UDP.
    ReceivedUdp,
    /// A message arrived over TCP.
    ReceivedTcp,
    /// The screen refused it: FORMERR, NOTIMP, BADVERS, or no reply.
    Malformed,
    /// It was deferred: answered later, or shed.
    Deferred,
    /// It was deferred, but the queue was full: SERVFAIL.
    Shed,
    /// The handler did not answer it.
    Dropped,
    /// A reply was sent with TC.
    Truncated,
    /// The kernel did not accept a reply.
    SendFailed,
    /// The handler panicked, which is a bug. The query got SERVFAIL.
    Panicked,
    /// A TCP connection was accepted.
    Connected,
    /// A TCP connection was refused or cut: a limit or a deadline.
    Cut,
    /// A TCP connection was closed to make room: an idle one for another connection, or one that
    /// does not read for the memory it holds.
    Evicted,
}

/// The number of kinds of [`Event`].
pub const EVENTS: usize = Event::Evicted as usize + 1;

/// The address and transport of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address, as bound.
    pub address: SocketAddr,
    /// UDP or TCP.
    pub transport: Transport,
}

#[derive(Debug)]
#[repr(align(128))]
struct LaneCounters {
    place: Place,
    events: [AtomicU64; EVENTS],
    replies: [[AtomicU64; RCODE_CLASSES]; TYPE_CLASSES],
    took: Durations,
    turn: AtomicU64,
}

impl LaneCounters {
    fn new(place: Place) -> Self {
        Self {
            place,
            events: [const { AtomicU64::new(0) }; EVENTS],
            replies: [const { [const { AtomicU64::new(0) }; RCODE_CLASSES] }; TYPE_CLASSES],
            took: Durations::new(),
            turn: AtomicU64::new(0),
        }
    }

    /// Adds the counts of this lane to `sum`.
    fn add_to(&self, sum: &mut Snapshot) {
        for (total, count) in sum.events.iter_mut().zip(&self.events) {
            *total += count.load(Relaxed);
        }
        let counts = self.replies.iter().flatten();
        for (total, count) in sum.replies.iter_mut().flatten().zip(counts) {
            *total += count.load(Relaxed);
        }
        sum.took.add(&self.took.histogram());
    }
}

/// The counters of one listener.
#[derive(Debug)]
pub struct Counters {
    lanes: Box<[LaneCounters]>,
    /// Bytes that TCP connections hold for their clients; kept by their budget.
    pub(super) tcp_held: AtomicUsize,
    tcp_open: AtomicUsize,
}

/// A snapshot of the counts of some or all lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    events: [u64; EVENTS],
    /// Replies by class of record type and of response code.
    pub replies: [[u64; RCODE_CLASSES]; TYPE_CLASSES],
    /// How long replies took, from the moment their queries were read.
    pub took: Histogram,
}

impl Default for Snapshot {
    fn default() -> Self {
        let replies = [[0; RCODE_CLASSES]; TYPE_CLASSES];
        Self { events: [0; EVENTS], replies, took: Histogram::default() }
    }
}

impl Snapshot {
    /// Returns how often `event` happened.
    pub fn event(&self, event: Event) -> u64 {
        self.events[event as usize]
    }

    /// Returns the messages received over both transports.
    pub fn received(&self) -> u64 {
        self.event(Event::ReceivedUdp) + self.event(Event::ReceivedTcp)
    }
}

impl Counters {
    /// Returns counters at zero for a lane at each of `places`.
    pub fn new(places: impl IntoIterator<Item = Place>) -> Self {
        Self {
            lanes: places.into_iter().map(LaneCounters::new).collect(),
            tcp_held: AtomicUsize::new(0),
            tcp_open: AtomicUsize::new(0),
        }
    }

    /// Returns the bytes that TCP connections hold for their clients: unanswered input and
    /// unwritten replies.
    pub fn tcp_held_bytes(&self) -> usize {
        self.tcp_held.load(Relaxed)
    }

    /// Returns the number of open TCP connections.
    pub fn tcp_open(&self) -> usize {
        self.tcp_open.load(Relaxed)
    }

    /// Sets the number of open TCP connections.
    pub(super) fn set_tcp_open(&self, connections: usize) {
        self.tcp_open.store(connections, Relaxed);
    }

    /// Returns the sum of all lanes.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_of(|_| true)
    }

    /// Returns the sum of the lanes at places that are `wanted`.
    pub fn snapshot_of(&self, wanted: impl Fn(Place) -> bool) -> Snapshot {
        let mut sum = Snapshot::default();
        let lanes = self.lanes.iter().filter(|lane| wanted(lane.place));
        lanes.for_each(|lane| lane.add_to(&mut sum));
        sum
    }

    /// Returns the places of all lanes, each once.
    pub fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for lane in &self.lanes {
            if !places.contains(&lane.place) {
                places.push(lane.place);
            }
        }
        places
    }

    /// Returns whether a lane has not run a turn for longer than `STALLED_AFTER`, which means that
    /// its thread hangs.
    pub fn is_stalled(&self, now: Moment) -> bool {
        let turn = |lane: &LaneCounters| Moment::from_nanos(lane.turn.load(Relaxed));
        self.lanes.iter().any(|lane| now.since(turn(lane)) > STALLED_AFTER)
    }

    /// Returns when each of the first `lanes` lanes last ran a turn.
    pub(super) fn turns(&self, lanes: usize) -> impl Iterator<Item = Moment> {
        let lanes = self.lanes[..lanes].iter();
        lanes.map(|lane| Moment::from_nanos(lane.turn.load(Relaxed)))
    }

    /// Counts `event` `times` for `lane`.
    pub fn add(&self, lane: usize, event: Event, times: u64) {
        self.lanes[lane].events[event as usize].fetch_add(times, Relaxed);
    }

    /// Counts the reply in `message`, to a question of type `qtype`.
    pub(crate) fn reply(&self, lane: usize, qtype: u16, message: &[u8]) {
        let counters = &self.lanes[lane];
        let code = usize::from(message[3] & 0x0f).min(RCODE_CLASSES - 1);
        counters.replies[type_index(qtype)][code].fetch_add(1, Relaxed);
        if message[2] & 0x02 != 0 {
            counters.events[Event::Truncated as usize].fetch_add(1, Relaxed);
        }
    }

    /// Counts `replies` that took `took` each.
    pub(super) fn took(&self, lane: usize, took: Duration, replies: u64) {
        self.lanes[lane].took.add(took, replies);
    }

    /// Notes that `lane` ran a turn at `now`.
    pub(super) fn turn(&self, lane: usize, now: Moment) {
        self.lanes[lane].turn.store(now.nanos(), Relaxed);
    }
}

fn type_index(qtype: u16) -> usize {
    match qtype {
        rtype::A => 0,
        rtype::AAAA => 1,
        other => TYPES.iter().position(|&known| known == other).unwrap_or(TYPES.len()),
    }
}

/// A serving thread runs a turn at least four times a second. If it does not for this long, it
/// hangs.
const STALLED_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rcode;

    /// Lane 0 on UDP, lane 1 on TCP.
    fn counters() -> Counters {
        let address = "127.0.0.1:53".parse().unwrap();
        let transports = [Transport::Udp, Transport::Tcp];
        Counters::new(transports.map(|transport| Place { address, transport }))
    }

    #[test]
    fn lanes_add_up_by_type_and_code() {
        let counters = counters();
        let mut message = [0; 12];
        counters.reply(0, rtype::A, &message);
        counters.reply(1, rtype::A, &message);
        message[3] = rcode::NXDOMAIN as u8;
        message[2] = 0x02;
        counters.reply(1, 9_999, &message);
        message[3] = 11;
        counters.reply(1, rtype::SRV, &message);
        let sum = counters.snapshot();
        assert_eq!(sum.replies[0][0], 2);
        assert_eq!(sum.replies[TYPE_CLASSES - 1][3], 1);
        assert_eq!(sum.replies[2][RCODE_CLASSES - 1], 1);
        assert_eq!(sum.event(Event::Truncated), 2);
        let tcp = counters.snapshot_of(|place| place.transport == Transport::Tcp);
        assert_eq!((tcp.replies[0][0], counters.places().len()), (1, 2));
    }

    #[test]
    fn durations_are_counted_where_they_passed() {
        let counters = counters();
        counters.took(0, Duration::from_micros(3), 16);
        counters.took(1, Duration::from_millis(2), 1);
        counters.took(1, Duration::from_millis(2), 0);
        assert_eq!(counters.snapshot().took.count(), 17);
        let udp = counters.snapshot_of(|place| place.transport == Transport::Udp);
        assert_eq!(udp.took.count(), 16);
    }

    #[test]
    fn a_lane_that_does_not_come_round_is_stalled() {
        let counters = counters();
        let start = Moment::from_nanos(1_000_000_000_000);
        counters.turn(0, start);
        counters.turn(1, start);
        assert!(!counters.is_stalled(start + STALLED_AFTER));
        counters.turn(1, start + STALLED_AFTER);
        assert!(counters.is_stalled(start + STALLED_AFTER + Duration::from_millis(1)));
    }
}
