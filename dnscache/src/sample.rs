//! Samples of queries: what clients ask, without a cost that the hit path notices.
//!
//! Seam: each thread that answers writes to a lane of its own, and one task empties all lanes. A
//! query that is not sampled costs its thread a decrement.
//!
//! ```text
//! answer ─▶ lane: countdown ─ 0 ─▶ ring ── each 100 ms ──▶ collect ─┬─▶ top (core)   /top
//!                                                                   ├─▶ tail         /tail
//!                                                                   └─▶ log          --log-queries
//! ```

mod filter;
mod keys;
mod pace;
mod record;
mod summary;
mod top;
#[cfg(test)]
mod trace;
mod windows;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use shared::clock::{Moment, boot_time};
use shared::mnemonics::{rcode_name, type_name};
use shared::name::Text;
use shared::wire::Query;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

pub use filter::{Filter, FilterError};
use pace::Pace;
pub use pace::{Rate, RateError, ShareError, share};
pub use record::{Sample, Source};
use top::Top;
pub use top::{By, ByError, Item, Key, List, Walked};
pub use windows::{Window, WindowError};

use crate::handler::is_probe;

/// The samples of all threads.
#[derive(Debug)]
pub struct Samples {
    rate: Rate,
    lanes: Box<[Lane]>,
    top: Mutex<Top>,
    tail: broadcast::Sender<Arc<Sample>>,
    readers_lost: AtomicU64,
}

/// What one thread writes, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Lane {
    /// Queries that are passed over before the next sample.
    left: AtomicU64,
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    pace: Pace,
    samples: Vec<Sample>,
    taken: u64,
    dropped: u64,
}

/// A query that has its reply.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The query.
    pub query: &'a Query<'a>,
    /// Its client.
    pub client: IpAddr,
    /// When it was read.
    pub arrived: Moment,
    /// The response code of the reply.
    pub rcode: u16,
    /// Whether the reply has records in its answer section.
    pub has_answer: bool,
    /// The source of the answer.
    pub origin: Origin,
}

/// Which queries are logged.
#[derive(Clone, Debug)]
pub struct Logged {
    /// The share of them.
    pub share: f64,
    /// A query must pass one of these, if there are any.
    pub filters: Vec<Filter>,
}

/// The source of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The part of this program.
    pub source: Source,
    /// The server that was asked last, if one was.
    pub upstream: Option<SocketAddr>,
}

impl From<Source> for Origin {
    fn from(source: Source) -> Self {
        Self { source, upstream: None }
    }
}

/// How many samples there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples taken.
    pub taken: u64,
    /// Samples lost because their lane was full or was being emptied.
    pub dropped: u64,
    /// Readers of the tail that were too slow.
    pub readers_lost: u64,
}

impl Samples {
    /// Returns samples of `lanes` threads at `rate`. `seed` decides which queries are sampled.
    pub fn new(rate: Rate, lanes: usize, seed: u64, now: Moment) -> Self {
        let lane = |index: usize| {
            let pace = Pace::new(rate, seed.wrapping_add(index as u64));
            let left = AtomicU64::new(pace.first_skip());
            Lane { left, ring: Mutex::new(Ring { pace, samples: ring(), taken: 0, dropped: 0 }) }
        };
        Self {
            rate,
            lanes: (0..lanes).map(lane).collect(),
            top: Mutex::new(Top::new(now)),
            tail: broadcast::Sender::new(TAIL_SAMPLES),
            readers_lost: AtomicU64::new(0),
        }
    }

    /// Returns whether no query is sampled.
    pub fn is_off(&self) -> bool {
        self.rate == Rate::Off
    }

    /// Counts a query of `lane` that has its reply. Returns whether it is to be sampled: then call
    /// [`Samples::take`].
    ///
    /// Threads that share a lane can lose a count, or sample one query more.
    #[inline]
    pub fn is_due(&self, lane: usize) -> bool {
        let left = &self.lanes[lane].left;
        let before = left.load(Relaxed);
        left.store(before.wrapping_sub(1), Relaxed);
        before == 0
    }

    /// Samples a query of `lane`. If healthz of this pod asked it, the next query is sampled in its
    /// place. Never waits.
    #[cold]
    #[inline(never)]
    pub fn take(&self, lane: usize, seen: &Seen<'_>) {
        let lane = &self.lanes[lane];
        if is_probe(seen.query, seen.client) {
            return lane.left.store(0, Relaxed);
        }
        let Some(mut ring) = lane.ring.try_lock() else {
            return lane.left.store(0, Relaxed); // it is being emptied
        };
        let now = boot_time();
        let next = ring.pace.take(now);
        lane.left.store(next.skip, Relaxed);
        if ring.samples.len() == ring.samples.capacity() {
            ring.dropped += 1;
            return;
        }
        let mut sample = Sample::new(seen.query.name(), seen.client, seen.origin.source);
        sample.at = now;
        sample.qtype = seen.query.qtype;
        sample.rcode = seen.rcode;
        sample.has_answer = seen.has_answer;
        sample.took = now.since(seen.arrived);
        sample.upstream = seen.origin.upstream;
        sample.weight = next.weight;
        ring.samples.push(sample);
        ring.taken += 1;
    }

    /// Returns a list of heavy hitters, at most `limit` items. `domains` are the cluster's, in wire
    /// form and lower case.
    pub fn top(&self, list: (By, Window), limit: usize, domains: &[&[u8]]) -> List {
        let now = boot_time();
        let mut top = self.top.lock();
        top.turn(now);
        top.show(list, limit, domains, now)
    }

    /// Returns every sample from now on. A reader that falls too far behind gets an error.
    pub fn tail(&self) -> broadcast::Receiver<Arc<Sample>> {
        self.tail.subscribe()
    }

    /// Counts a reader of the tail that was too slow.
    pub fn lose_reader(&self) {
        self.readers_lost.fetch_add(1, Relaxed);
    }

    /// Returns how many readers of the tail there are.
    pub fn readers(&self) -> usize {
        self.tail.receiver_count()
    }

    /// Returns the bytes that the lists of heavy hitters take.
    pub fn bytes(&self) -> usize {
        self.top.lock().bytes()
    }

    /// Removes and returns every sample.
    #[cfg(test)]
    pub fn drain(&self) -> Vec<Sample> {
        let rings = self.lanes.iter().map(|lane| std::mem::take(&mut lane.ring.lock().samples));
        rings.flatten().collect()
    }

    /// Returns how many samples there were.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for lane in &self.lanes {
            let ring = lane.ring.lock();
            counts.taken += ring.taken;
            counts.dropped += ring.dropped;
        }
        counts.readers_lost = self.readers_lost.load(Relaxed);
        counts
    }

    /// Empties every lane into the lists, the tail and the log, until `stopping`.
    pub async fn collect(
        self: Arc<Self>,
        log: Option<Logged>,
        stopping: CancellationToken,
    ) -> Result<(), Infallible> {
        if self.is_off() {
            stopping.cancelled().await;
            return Ok(());
        }
        let (mut spare, mut samples) = (ring(), Vec::new());
        let mut turn = tokio::time::interval(pace::TURN);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(turn.tick()).await.is_some() {
            for lane in &self.lanes {
                self.empty(lane, &mut spare);
                samples.append(&mut spare);
            }
            samples.sort_unstable_by_key(|sample| sample.at);
            self.pass_on(&samples, log.as_ref());
            samples.clear();
        }
        Ok(())
    }

    /// Takes the samples of `lane` into `spare`, which is empty.
    fn empty(&self, lane: &Lane, spare: &mut Vec<Sample>) {
        let mut ring = lane.ring.lock();
        std::mem::swap(&mut ring.samples, spare);
        let left = lane.left.load(Relaxed);
        // If its thread counts a query at the same time, the lower number is lost, and the thread
        // samples at the old pace once more.
        if let Some(left) = ring.pace.relax(left, boot_time()) {
            lane.left.store(left, Relaxed);
        }
    }

    fn pass_on(&self, samples: &[Sample], log: Option<&Logged>) {
        if !samples.is_empty() {
            let mut top = self.top.lock();
            top.turn(boot_time());
            samples.iter().for_each(|sample| top.add(sample));
        }
        if self.readers() > 0 {
            for sample in samples {
                // It fails if the last reader has just gone.
                self.tail.send(Arc::new(*sample)).unwrap_or_default();
            }
        }
        let Some(Logged { share, filters }) = log else { return };
        let is_wanted = |sample: &&Sample| {
            filters.is_empty() || filters.iter().any(|filter| filter.admits(sample))
        };
        for sample in samples.iter().filter(is_wanted) {
            if rand::random::<f64>() < share * f64::from(sample.weight) {
                write_log(sample);
            }
        }
    }
}

/// Returns an empty ring.
fn ring() -> Vec<Sample> {
    Vec::with_capacity(RING_SAMPLES)
}

/// Writes a sampled query to the log.
fn write_log(sample: &Sample) {
    tracing::info!(
        client = %sample.client,
        name = %Text(sample.name()),
        "type" = %type_name(sample.qtype),
        rcode = %rcode_name(sample.rcode),
        source = sample.source.name(),
        duration_us = sample.took.as_micros() as u64,
        upstream = sample.upstream.map(tracing::field::display),
        "query"
    );
}

/// Samples of one thread that can wait to be collected.
const RING_SAMPLES: usize = 512;
/// Samples that a reader of the tail can be behind; a power of two.
const TAIL_SAMPLES: usize = 2_048;
