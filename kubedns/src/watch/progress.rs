//! How each watch fares: written by the watch, read by health checks and metrics.
//!
//! Knows numbers and the last trouble; does not know why anybody looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use shared::clock::Moment;
use tokio::sync::watch;

use crate::news::Scope;

/// What a watch is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A full list is under way.
    Listing,
    /// Everything that changes is said as it changes.
    Following,
    /// The server does not know this kind, so there are none; it is asked again.
    Absent,
    /// kubedns may not read this kind, and does without; it is asked again.
    Denied,
    /// It does not work; it is tried again.
    Failing {
        /// Why, in one line.
        reason: Arc<str>,
        /// When that began.
        since: Moment,
    },
}

impl Phase {
    /// Whether all there is to know is known.
    pub fn is_well(&self) -> bool {
        matches!(self, Self::Following | Self::Absent | Self::Denied)
    }
}

/// The counted events of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    /// Objects that were said to be there, in lists too.
    Applied,
    /// Objects that were said to be gone.
    Deleted,
    /// Bookmarks.
    Bookmark,
    /// Full lists that came to their end.
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

/// How one watch fares.
#[derive(Debug)]
pub struct Progress {
    /// What it covers.
    pub scope: Scope,
    phase: watch::Sender<Phase>,
    heard: AtomicU64,
    /// In milliseconds; the largest number where nothing is known.
    lag_ms: AtomicU64,
    counts: [AtomicU64; COUNTS.len()],
}

impl Progress {
    /// Nothing has been heard yet; `now` counts as the last sign of life.
    pub fn new(scope: Scope, now: Moment) -> Self {
        let heard = AtomicU64::new(now.nanos());
        let phase = watch::Sender::new(Phase::Listing);
        let lag_ms = AtomicU64::new(u64::MAX);
        Self { scope, phase, heard, lag_ms, counts: Default::default() }
    }

    /// What it is at.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// How long ago the server said anything on this watch.
    pub fn age(&self, now: Moment) -> Duration {
        now.since(Moment::from_nanos(self.heard.load(Relaxed)))
    }

    /// How long after it was written the last change came; nothing before the first.
    pub fn lag(&self) -> Option<Duration> {
        let lag_ms = self.lag_ms.load(Relaxed);
        (lag_ms < u64::MAX).then(|| Duration::from_millis(lag_ms))
    }

    /// A change came, this long after it was written.
    pub fn lags(&self, lag: Duration) {
        self.lag_ms.store(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How often that happened.
    pub fn count(&self, count: Count) -> u64 {
        self.counts[count as usize].load(Relaxed)
    }

    /// The server said something.
    pub fn heard(&self, now: Moment) {
        self.heard.store(now.nanos(), Relaxed);
    }

    /// That happened.
    pub fn add(&self, count: Count) {
        self.counts[count as usize].fetch_add(1, Relaxed);
    }

    /// It works; yields since when it did not, where it did not.
    pub fn works(&self, phase: Phase) -> Option<Moment> {
        match self.phase.send_replace(phase) {
            Phase::Failing { since, .. } => Some(since),
            _ => None,
        }
    }

    /// It failed because of `reason`; whether that is news.
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
    use crate::project::Kind;

    #[test]
    fn trouble_is_news_once() {
        let at = |secs: u64| Moment::from_nanos(secs * 1_000_000_000);
        let progress = Progress::new(Scope::all(Kind::Service), at(100));
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
