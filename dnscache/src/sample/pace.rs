//! Which queries are sampled: how many are passed over before the next one.
//!
//! Core. `now` is passed in. The gaps between samples vary by half their mean in both directions,
//! so that clients that repeat a pattern of queries are not sampled at the same point each time.

use std::str::FromStr;
use std::time::Duration;

use shared::clock::Moment;

/// How many of the queries are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// No query.
    Off,
    /// This share of them, above 0 and at most 1.
    Share(f64),
    /// All of them if there are few, at most 1,000 per second and thread if there are many.
    Adaptive,
}

/// Why a text is not a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected adaptive, off, or a share of the queries above 0 and at most 1, such as 0.01")]
pub struct RateError;

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        match text {
            "off" => Ok(Self::Off),
            "adaptive" => Ok(Self::Adaptive),
            text => share(text).map(Self::Share).map_err(|_| RateError),
        }
    }
}

/// Why a text is not a share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a share of the queries above 0 and at most 1, such as 0.01")]
pub struct ShareError;

/// Parses a share of the queries.
pub fn share(text: &str) -> Result<f64, ShareError> {
    let share = text.parse::<f64>().map_err(|_| ShareError)?;
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err(ShareError) }
}

/// The pace of one thread.
#[derive(Clone, Debug)]
pub struct Pace {
    rate: Rate,
    /// The mean of the gaps, at least 1.
    mean: f64,
    /// How many queries the next sample represents, itself included.
    gap: u32,
    /// When the current turn began.
    began: Moment,
    /// When the last sample was taken.
    last: Moment,
    /// Samples taken in this turn, and the queries that they represent.
    taken: u32,
    seen: u64,
    random: u64,
}

/// A sample, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// How many queries the sample represents.
    pub weight: u32,
    /// How many queries are passed over before the next one.
    pub skip: u64,
}

impl Pace {
    /// A pace whose first sample is the first query. The gaps follow from `seed`.
    pub fn new(rate: Rate, seed: u64) -> Self {
        let mean = match rate {
            Rate::Share(share) => 1.0 / share,
            Rate::Off | Rate::Adaptive => 1.0,
        };
        let start = Moment::default();
        Self { rate, mean, gap: 1, began: start, last: start, taken: 0, seen: 0, random: seed }
    }

    /// Returns how many queries are passed over before the first sample.
    pub fn first_skip(&self) -> u64 {
        if self.rate == Rate::Off { OFF } else { 0 }
    }

    /// Takes the sample that is due.
    pub fn take(&mut self, now: Moment) -> Next {
        let weight = self.gap;
        self.seen += u64::from(weight);
        self.taken += 1;
        self.last = now;
        if self.rate == Rate::Adaptive {
            self.adapt(now);
        }
        self.gap = self.draw();
        Next { weight, skip: u64::from(self.gap - 1) }
    }

    /// Lowers the gap if the queries have become rare: the next one is a sample then. `left` are
    /// the queries that would still be passed over. Returns how many are now; `None` if that is to
    /// stay.
    pub fn relax(&mut self, left: u64, now: Moment) -> Option<u64> {
        let is_late = left > 0 && now.since(self.last) >= TURN;
        if self.rate != Rate::Adaptive || !is_late {
            return None;
        }
        let passed = u64::from(self.gap - 1).checked_sub(left)?;
        self.gap = passed as u32 + 1;
        Some(0)
    }

    /// Sets the mean from the queries of a turn that is over. In a turn with more samples than it
    /// should have, the mean doubles with each few of them.
    fn adapt(&mut self, now: Moment) {
        let elapsed = now.since(self.began);
        if elapsed >= TURN {
            let per_pause = self.seen as f64 * PAUSE.as_secs_f64() / elapsed.as_secs_f64();
            self.mean = per_pause.clamp(1.0, MEAN_MAX);
            self.began = now;
            self.taken = 0;
            self.seen = 0;
        } else if self.taken >= TAKEN_MAX && (self.taken - TAKEN_MAX).is_multiple_of(STEP) {
            self.mean = (self.mean * 2.0).min(MEAN_MAX);
        }
    }

    /// Returns a gap, evenly distributed around the mean.
    fn draw(&mut self) -> u32 {
        let spread = (self.mean / 2.0).min(self.mean - 1.0);
        let low = self.mean - spread;
        // The fraction is the probability that it is rounded up.
        let gap = low + 2.0 * spread * self.fraction() + self.fraction();
        (gap as u32).max(1)
    }

    /// Returns a number from 0 to below 1 (SplitMix64).
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// More queries than any thread ever answers.
const OFF: u64 = u64::MAX;
/// How often the mean follows the queries.
pub const TURN: Duration = Duration::from_millis(100);
/// The time between two samples that the mean aims at. The rest up to 1,000 per second is for
/// turns in which the queries have just become many.
const PAUSE: Duration = Duration::from_micros(1_250);
/// Samples of one turn before the mean doubles.
const TAKEN_MAX: u32 = 80;
/// Further samples of one turn before it doubles again.
const STEP: u32 = 8;
/// A thread that samples one query in a million samples enough.
const MEAN_MAX: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanos(1_000_000_000_000);

    /// Sends queries at the rates of `script`, each for so many milliseconds. Returns the time and
    /// weight of each sample, by the index of its query, and the number of queries.
    fn run(rate: Rate, script: &[(f64, u64)]) -> (Vec<(u64, Moment, u32)>, u64) {
        let mut pace = Pace::new(rate, 7);
        let (mut left, mut samples, mut count) = (pace.first_skip(), Vec::new(), 0);
        let (mut now, mut begun) = (START, START);
        let mut relaxed = START;
        for &(per_second, milliseconds) in script {
            let end = begun + Duration::from_millis(milliseconds);
            let step = Duration::from_secs_f64(1.0 / per_second);
            now = now.max(begun);
            while now < end {
                if left == 0 {
                    let next = pace.take(now);
                    samples.push((count, now, next.weight));
                    left = next.skip;
                } else {
                    left -= 1;
                }
                count += 1;
                now = now + step;
                while relaxed + TURN < now {
                    relaxed = relaxed + TURN;
                    left = pace.relax(left, relaxed).unwrap_or(left);
                }
            }
            begun = end;
        }
        (samples, count)
    }

    #[test]
    fn few_queries_are_all_sampled_and_many_a_thousand_times_a_second() {
        let rows: &[(&str, &[(f64, u64)])] = &[
            ("few", &[(10.0, 5_000)]),
            ("at the limit", &[(700.0, 3_000)]),
            ("many", &[(500_000.0, 3_000)]),
            ("suddenly many", &[(10.0, 2_000), (1_000_000.0, 2_000)]),
            ("in waves", &[(1_000_000.0, 350), (5.0, 650), (1_000_000.0, 350), (5.0, 650)]),
        ];
        for (what, script) in rows {
            let (samples, count) = run(Rate::Adaptive, script);
            let times: Vec<Moment> = samples.iter().map(|&(_, at, _)| at).collect();
            for (index, &at) in times.iter().enumerate() {
                let second = at + Duration::from_secs(1);
                let within = times[index..].iter().filter(|&&other| other < second).count();
                assert!(within <= 1_000, "{what}: {within} samples in a second");
            }
            let weights: u64 = samples.iter().map(|&(.., weight)| u64::from(weight)).sum();
            assert!(weights <= count, "{what}: {weights} of {count}");
            assert!(weights * 100 >= count * 99, "{what}: {weights} of {count}");
            if script.iter().all(|&(per_second, _)| per_second < 750.0) {
                assert_eq!(samples.len() as u64, count, "{what}");
            }
        }
    }

    #[test]
    fn after_a_flood_the_next_queries_are_sampled_at_once() {
        let (samples, _) = run(Rate::Adaptive, &[(1_000_000.0, 1_000), (10.0, 2_000)]);
        let rare: Vec<u32> = samples
            .iter()
            .filter(|(_, at, _)| *at > START + Duration::from_millis(1_400))
            .map(|&(.., weight)| weight)
            .collect();
        assert!(rare.len() >= 14, "{rare:?}");
        assert!(rare[2..].iter().all(|&weight| weight == 1), "{rare:?}");
    }

    #[test]
    fn a_share_is_kept_and_off_takes_none() {
        for share in [1.0, 0.7, 0.5, 0.01] {
            let (samples, count) = run(Rate::Share(share), &[(100_000.0, 5_000)]);
            let expected = count as f64 * share;
            let got = samples.len() as f64;
            assert!((got - expected).abs() <= expected * 0.03, "{share}: {got} of {count}");
        }
        assert!(run(Rate::Off, &[(100_000.0, 1_000)]).0.is_empty());
    }

    #[test]
    fn patterns_of_queries_are_sampled_evenly() {
        for period in [2, 3, 16, 100] {
            let (samples, count) = run(Rate::Adaptive, &[(200_000.0, 20_000)]);
            let mut weights = vec![0_u64; period];
            samples.iter().for_each(|&(index, _, weight)| {
                weights[index as usize % period] += u64::from(weight);
            });
            let even = count as f64 / period as f64;
            // 16,000 samples in all; five standard deviations.
            let allowed = 5.0 * even / (samples.len() as f64 / period as f64).sqrt();
            for weight in weights {
                assert!((weight as f64 - even).abs() < allowed, "{period}: {weight} is not {even}");
            }
        }
    }

    #[test]
    fn rates_are_parsed() {
        let rows = [
            ("off", Some(Rate::Off)),
            ("adaptive", Some(Rate::Adaptive)),
            ("1", Some(Rate::Share(1.0))),
            ("0.01", Some(Rate::Share(0.01))),
            ("0", None),
            ("-1", None),
            ("1.5", None),
            ("NaN", None),
            ("10%", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse::<Rate>().ok(), expected, "{text}");
        }
    }
}
