//! How long to wait before the next try.
//!
//! Core. Knows failures and how long the watch worked; the time that passed and the random numbers
//! are arguments.

use std::time::Duration;

/// The pauses of one watch. They double from failure to failure, and start again at the smallest
/// after the watch has worked for a while.
#[derive(Debug)]
pub struct Pace {
    next: Duration,
}

impl Pace {
    /// Starts with the smallest pause.
    pub fn new() -> Self {
        Self { next: PAUSE_MIN }
    }

    /// Returns how long to wait after a failure.
    ///
    /// `well` is how long the watch worked before it, `asked` the minimum that the server requests
    /// (Retry-After, RFC 9110 section 10.2.3), `random` a number from 0 to 1 that keeps many
    /// replicas from reconnecting at once. The result is at least half of the pause for any
    /// `random`.
    pub fn pause(&mut self, well: Duration, asked: Option<Duration>, random: f64) -> Duration {
        if well >= WELL_MIN {
            self.next = PAUSE_MIN;
        }
        let pause = self.next.mul_f64(0.5 + random / 2.0);
        self.next = (self.next * 2).min(PAUSE_MAX);
        match asked {
            None => pause,
            Some(asked) => asked.min(ASKED_MAX).mul_f64(1.0 + random / 4.0).max(pause),
        }
    }
}

/// The first pause. An API server that fails over to another is back at once.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause. A restarted API server is found within this time.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The most that a server can request.
const ASKED_MAX: Duration = Duration::from_secs(60);
/// If a watch worked for this long, the next failure is a new one.
const WELL_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_begin_again() {
        let mut pace = Pace::new();
        let mut check = |well: u64, asked: Option<u64>, random: f64, expected: u64| {
            let asked = asked.map(Duration::from_secs);
            let pause = pace.pause(Duration::from_secs(well), asked, random);
            assert_eq!(pause, Duration::from_millis(expected));
        };
        check(0, None, 1.0, 100);
        check(0, None, 0.0, 100);
        check(0, None, 1.0, 400);
        check(1, None, 1.0, 100);
        check(0, Some(3), 0.0, 3_000);
        check(0, Some(4), 1.0, 5_000);
        check(0, Some(9_999), 0.0, 60_000);
        check(0, Some(0), 1.0, 1_600);
        check(0, None, 1.0, 3_200);
        check(0, None, 1.0, 6_400);
        check(0, None, 1.0, 10_000);
        check(0, None, 1.0, 10_000);
    }
}
