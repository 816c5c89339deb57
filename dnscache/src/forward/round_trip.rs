//! How long to wait for a server: the retry timer of RFC 6298.
//!
//! Core. Works on round-trip times, without servers or questions.

use std::time::Duration;

/// The estimate of a server's round-trip time, and the timer that follows from it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    /// The smoothed round-trip time and its deviation (RFC 6298 section 2).
    estimate: Option<(Duration, Duration)>,
    /// How often the timer has doubled because it was too short (RFC 6298 section 5.5).
    doublings: u32,
}

impl RoundTrip {
    /// Returns the smoothed round-trip time; `None` before the first sample.
    pub fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|(smoothed, _)| smoothed)
    }

    /// Returns how long the first try at the server waits before another try is made.
    pub fn patience(&self) -> Duration {
        let base = match self.estimate {
            None => PATIENCE_FIRST,
            Some((smoothed, deviation)) => smoothed + (deviation * 4).max(MARGIN_MIN),
        };
        (base * (1 << self.doublings)).min(PATIENCE_MAX)
    }

    /// Adds the time of a reply to a question that was sent once.
    pub fn sample(&mut self, rtt: Duration) {
        self.doublings = 0;
        self.estimate = Some(match self.estimate {
            None => (rtt, rtt / 2),
            Some((smoothed, deviation)) => {
                ((smoothed * 7 + rtt) / 8, (deviation * 3 + smoothed.abs_diff(rtt)) / 4)
            }
        });
    }

    /// Adds the times of a reply to a question that was sent more than once: since the first send
    /// and since the last. The reply may answer either, so it is not a sample (Karn's algorithm,
    /// RFC 6298 section 3). If it cannot answer the last one, the timer was too short and is
    /// doubled until it covers the whole time.
    pub fn ambiguous(&mut self, since_first: Duration, since_last: Duration) {
        let answers_last = self.estimate.is_some_and(|(smoothed, deviation)| {
            since_last * 2 >= smoothed && since_last <= smoothed + (deviation * 4).max(JITTER_MIN)
        });
        while !answers_last && self.patience() <= since_first.min(PATIENCE_MAX / 2) {
            self.doublings += 1;
        }
    }
}

/// The wait for an unknown server: Unbound's first guess.
pub(super) const PATIENCE_FIRST: Duration = Duration::from_millis(376);
/// The least margin over the smoothed round-trip time. For names outside its cache, a recursive
/// upstream needs longer than its round trips show.
const MARGIN_MIN: Duration = Duration::from_millis(100);
/// The longest wait before another try.
const PATIENCE_MAX: Duration = Duration::from_secs(4);
/// How far a reply can deviate from the smoothed round-trip time and still belong to the last try.
const JITTER_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_timer_follows_the_round_trips_with_a_margin() {
        let mut timer = RoundTrip::default();
        assert_eq!((timer.patience(), timer.smoothed()), (PATIENCE_FIRST, None));
        for _ in 0..50 {
            timer.sample(ms(20));
        }
        assert_eq!((timer.patience(), timer.smoothed()), (ms(120), Some(ms(20))));
        timer.sample(ms(500));
        assert!(timer.patience() > ms(500), "{timer:?}");
    }

    #[test]
    fn a_timer_that_was_too_short_grows_over_the_round_trip() {
        for rtt in [500, 800, 1_200, 1_900].map(ms) {
            let mut timer = RoundTrip::default();
            timer.ambiguous(rtt, rtt - timer.patience());
            assert!(timer.patience() > rtt, "{rtt:?} {timer:?}");
            timer.sample(rtt);
            assert!(timer.patience() > rtt, "{rtt:?} {timer:?}");
        }
    }

    #[test]
    fn losses_do_not_slow_the_timer_down() {
        let mut timer = RoundTrip::default();
        (0..20).for_each(|_| timer.sample(ms(20)));
        let before = timer.patience();
        timer.ambiguous(before + ms(21), ms(21));
        assert_eq!(timer.patience(), before);
    }
}
