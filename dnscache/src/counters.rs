//! Counters of dnscache beside its listener: each query once, by its outcome.
//!
//! Plain counters without I/O: a cache line per lane, added up on read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The outcome of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    /// Answered from the cache.
    Hit,
    /// Not in the cache: sent to an upstream, or answered by a route.
    Miss,
    /// Refused by policy.
    Refused,
    /// A question about the server itself, class CHAOS.
    Chaos,
    /// Answered with an expired entry. Also counted as a hit, or as a miss if an upstream was asked
    /// first.
    Stale,
    /// Answered with a reply without records and TC, because the client's network had its share of
    /// large replies. Counted as a hit, too.
    Limited,
    /// Sent by healthz in this pod, which is not a client. Not counted otherwise.
    Probe,
}

/// The outcomes of clients' queries: each [`Count`] with its name in metrics.
pub const COUNTS: [(&str, Count); 6] = [
    ("hit", Count::Hit),
    ("miss", Count::Miss),
    ("refused", Count::Refused),
    ("chaos", Count::Chaos),
    ("stale", Count::Stale),
    ("limited", Count::Limited),
];

#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane([AtomicU64; Count::Probe as usize + 1]);

/// The counters of every lane.
#[derive(Debug)]
pub struct Counters(Box<[Lane]>);

impl Counters {
    /// Returns counters at zero for `lanes` lanes.
    pub fn new(lanes: usize) -> Self {
        Self((0..lanes).map(|_| Lane::default()).collect())
    }

    /// Counts one query of `lane`.
    pub fn count(&self, lane: usize, count: Count) {
        self.0[lane].0[count as usize].fetch_add(1, Relaxed);
    }

    /// Returns the sum over all lanes.
    pub fn total(&self, count: Count) -> u64 {
        self.0.iter().map(|lane| lane.0[count as usize].load(Relaxed)).sum()
    }
}
