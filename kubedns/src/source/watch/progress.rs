//! The state of each watch: written by the watch, read by health checks and metrics.
//!
//! Knows numbers and the last trouble; does not know who reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use shared::clock::Moment;
use tokio::sync::watch;

use crate::source::update::Scope;

/// The phase of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A full list is in progress.
    Listing,
    /// All objects are listed, and changes are sent as they happen.
    Following,
    /// The server does not have this kind, so it has no objects. The watch retries.
    Absent,
    /// kubedns is not allowed to read this kind, and runs without it. The watch retries.
    Denied,
    /// It fails. The watch retries.
    Failing {
        /// Why, in one line.
        reason: Arc<str>,
        /// When it began to fail.
        since: Moment,
    },
}

impl Phase {
    /// Returns whether all objects that can be read have been read.
    pub fn is_well(&self) -> bool {
        matches!(self, Self::Following | Self::Absent | Self::Denied)
    }
}

/// The counted events of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    /// Objects that were added or changed, or that a list contained.
    Applied,
    /// Objects that were removed.
    Deleted,
    /// Bookmarks.
    Bookmark,
    /// Full lists that were completed.
    List,
    /// Tries that failed.
    Failure,
}

/// Every [`Count`] with the word that metrics use.
pub const COUNTS: [(Count, &str); 5] = [
    (Count::Applied, "applied"),
    (Count::Deleted, "deleted"),
    (Count::Bookmark, "bookmark"),
    (Count::List, "list"),
    (Count::Failure, "failure"),
];

/// The state of one watch.
#[derive(Debug)]
pub struct Progress {
    /// What it covers: a kind of object as the path of its collection, or the keys of etcd.
    pub kind: &'static str,
    /// The namespace of the objects; `None` for all.
    pub namespace: Option<Arc<str>>,
    phase: watch::Sender<Phase>,
    heard: AtomicU64,
    /// In milliseconds; the largest number before the first change.
    lag_ms: AtomicU64,
    counts: [AtomicU64; COUNTS.len()],
}

impl Progress {
    /// Starts without data from the server; `now` counts as the last sign of life.
    pub fn new(kind: &'static str, now: Moment) -> Self {
        let heard = AtomicU64::new(now.nanos());
        let phase = watch::Sender::new(Phase::Listing);
        let lag_ms = AtomicU64::new(u64::MAX);
        let counts = Default::default();
        Self { kind, namespace: None, phase, heard, lag_ms, counts }
    }

    /// Does the same for the objects of `scope`.
    pub fn of_objects(scope: &Scope, now: Moment) -> Self {
        Self { namespace: scope.namespace.clone(), ..Self::new(scope.kind.plural(), now) }
    }

    /// Returns its phase.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Returns how long ago the server last sent data on this watch.
    pub fn age(&self, now: Moment) -> Duration {
        now.since(Moment::from_nanos(self.heard.load(Relaxed)))
    }

    /// Returns how long after it was written the last change arrived, if there was a change.
    pub fn lag(&self) -> Option<Duration> {
        let lag_ms = self.lag_ms.load(Relaxed);
        (lag_ms < u64::MAX).then(|| Duration::from_millis(lag_ms))
    }

    /// Notes that a change arrived this long after it was written.
    pub fn lags(&self, lag: Duration) {
        self.lag_ms.store(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Returns how often the event happened.
    pub fn count(&self, count: Count) -> u64 {
        self.counts[count as usize].load(Relaxed)
    }

    /// Notes that the server sent data.
    pub fn heard(&self, now: Moment) {
        self.heard.store(now.nanos(), Relaxed);
    }

    /// Counts the event.
    pub fn add(&self, count: Count) {
        self.counts[count as usize].fetch_add(1, Relaxed);
    }

    /// Sets a phase in which it works. Returns since when it failed, if it did.
    pub fn works(&self, phase: Phase) -> Option<Moment> {
        match self.phase.send_replace(phase) {
            Phase::Failing { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Notes a failure because of `reason`. Returns whether the reason is new.
    pub fn fails(&self, reason: String, now: Moment) -> bool {
        self.add(Count::Failure);
        self.phase.send_if_modified(|phase| match phase {
            Phase::Failing { reason: known, .. } if **known == *reason => false,
            Phase::Failing { reason: known, .. } => {
                *known = reason.into();
                true
            }
            _ => {
                *phase = Phase::Failing { reason: reason.into(), since: now };
                true
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_news_once() {
        let at = |secs: u64| Moment::from_nanos(secs * 1_000_000_000);
        let progress = Progress::new("services", at(100));
        assert_eq!(progress.age(at(107)), Duration::from_secs(7));
        assert_eq!(progress.lag(), None);
        progress.lags(Duration::from_millis(250));
        assert_eq!(progress.lag(), Some(Duration::from_millis(250)));
        assert!(progress.fails("refused".to_owned(), at(110)));
        assert!(!progress.fails("refused".to_owned(), at(111)));
        assert!(progress.fails("silent".to_owned(), at(112)));
        let failing = Phase::Failing { reason: "silent".into(), since: at(110) };
        assert_eq!(progress.phase(), failing);
        assert_eq!(progress.works(Phase::Following), Some(at(110)));
        assert_eq!(progress.works(Phase::Listing), None);
        assert_eq!(progress.count(Count::Failure), 3);
    }
}
