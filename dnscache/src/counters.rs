//! What dnscache counts beside its listener: each query once, by what became of it.
//!
//! Edge of nothing: plain counters, a cache line per lane, added up on read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    /// Answered from the cache.
    Hit,
    /// Not in the cache: asked elsewhere, or answered by a route.
    Miss,
    /// Against policy: refused.
    Refused,
    /// A question about the server itself, class CHAOS.
    Chaos,
    /// Answered with an expired entry; counted as a hit too, or as a miss where an upstream was
    /// asked first.
    Stale,
    /// Asked by healthz of this pod, which is no client: counted as nothing else.
    Probe,
}

/// What becomes of the queries of clients: each [`Count`] with its name in metrics.
pub const COUNTS: [(&str, Count); 5] = [
    ("hit", Count::Hit),
    ("miss", Count::Miss),
    ("refused", Count::Refused),
    ("chaos", Count::Chaos),
    ("stale", Count::Stale),
];

#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane([AtomicU64; Count::Probe as usize + 1]);

/// The counters of every lane.
#[derive(Debug)]
pub struct Counters(Box<[Lane]>);

impl Counters {
    /// Zeros for `lanes` lanes.
    pub fn new(lanes: usize) -> Self {
        Self((0..lanes).map(|_| Lane::default()).collect())
    }

    /// Counts one query of `lane`.
    pub fn count(&self, lane: usize, count: Count) {
        self.0[lane].0[count as usize].fetch_add(1, Relaxed);
    }

    /// How often, over all lanes.
    pub fn total(&self, count: Count) -> u64 {
        self.0.iter().map(|lane| lane.0[count as usize].load(Relaxed)).sum()
    }
}
