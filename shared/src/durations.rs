//! Counts durations in classes whose bounds double. Counting takes a few instructions, and the
//! counts are exact at every bound that is shown.
//!
//! Plain counters, independent of the measured operation and of the clock.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts durations without locks.
#[derive(Debug)]
pub struct Durations {
    counts: [AtomicU64; CLASSES],
    nanos: AtomicU64,
}

impl Durations {
    /// Returns counters at zero.
    pub const fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; CLASSES], nanos: AtomicU64::new(0) }
    }

    /// Counts `times` operations that took `took` each.
    pub fn add(&self, took: Duration, times: u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[class(nanos)].fetch_add(times, Relaxed);
        self.nanos.fetch_add(nanos.saturating_mul(times), Relaxed);
    }

    /// Returns the counts so far.
    pub fn histogram(&self) -> Histogram {
        let mut counts = [0; CLASSES];
        for (count, counted) in counts.iter_mut().zip(&self.counts) {
            *count = counted.load(Relaxed);
        }
        Histogram { counts, nanos: self.nanos.load(Relaxed) }
    }
}

impl Default for Durations {
    fn default() -> Self {
        Self::new()
    }
}

/// A snapshot of [`Durations`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; CLASSES],
    nanos: u64,
}

impl Histogram {
    /// Adds the counts of another histogram.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.nanos = self.nanos.wrapping_add(other.nanos);
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all durations, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// Returns the number of durations up to each bound of `bounds`, in seconds, and above the
    /// bound before it. The last bound is infinity.
    pub fn buckets(&self, bounds: &Bounds) -> Vec<(f64, u64)> {
        let Range { start, end } = bounds.0;
        let sum = |classes: &[u64]| classes.iter().sum();
        let first = (bound_seconds(start), sum(&self.counts[..=start]));
        let between = (start + 1..end).map(|class| (bound_seconds(class), self.counts[class]));
        let last = (f64::INFINITY, sum(&self.counts[end..]));
        std::iter::once(first).chain(between).chain([last]).collect()
    }
}

/// The bounds that are shown: a range of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds(Range<usize>);

impl Bounds {
    /// From a microsecond, 976.5625 ns, to 8 s: the times of answers.
    pub const ANSWER: Self = Self(0..24);
    /// From 250 µs to 8 s: CoreDNS's bounds for requests.
    pub const COREDNS_REQUEST: Self = Self(8..24);
    /// From 1 ms to 9 minutes: CoreDNS's bounds for programming.
    pub const PROGRAMMING: Self = Self(10..CLASSES - 1);
}

/// Returns the class of a duration: that of the lowest bound that it does not exceed.
fn class(nanos: u64) -> usize {
    let units = (nanos.min(NANOS_MAX) * 1_024).div_ceil(1_000_000);
    let doublings = u64::BITS - units.saturating_sub(1).leading_zeros();
    (doublings as usize).min(CLASSES - 1)
}

/// Returns the bound of a class: a millisecond, doubled or halved.
fn bound_seconds(class: usize) -> f64 {
    2_f64.powi(class as i32 - 10) / 1_000.0
}

/// Bounds from 2^-10 ms to 2^19 ms, and one class for longer durations.
const CLASSES: usize = 31;
/// Thirteen days. Longer durations count the same.
const NANOS_MAX: u64 = 1 << 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_up_to_its_bound() {
        let check = |nanos: u64, expected: usize| assert_eq!(class(nanos), expected, "{nanos} ns");
        for (nanos, expected) in [(0, 0), (976, 0), (977, 1), (1_953, 1), (1_954, 2)] {
            check(nanos, expected);
        }
        for doubling in 0..20 {
            let bound = 1_000_000 << doubling;
            check(bound, 10 + doubling);
            check(bound + 1, 11 + doubling);
        }
        check(u64::MAX, CLASSES - 1);
    }

    #[test]
    fn whatever_range_is_shown_holds_all() {
        let durations = Durations::new();
        for (micros, times) in [(1, 7), (250, 1), (251, 2), (1_000, 1), (60_000_000, 1)] {
            durations.add(Duration::from_micros(micros), times);
        }
        durations.add(Duration::MAX, 1);
        let mut histogram = durations.histogram();
        assert_eq!(histogram.count(), 13);
        let check = |histogram: &Histogram, bounds: &Bounds, buckets: usize, first: (f64, u64)| {
            let shown = histogram.buckets(bounds);
            assert_eq!((shown.len(), shown[0]), (buckets, first));
            let last = shown.last().unwrap();
            assert_eq!(last.0, f64::INFINITY);
            assert_eq!(shown.iter().map(|bucket| bucket.1).sum::<u64>(), histogram.count());
        };
        check(&histogram, &Bounds::ANSWER, 25, (1e-3 / 1_024.0, 0));
        check(&histogram, &Bounds::COREDNS_REQUEST, 17, (0.000_25, 8));
        check(&histogram, &Bounds::PROGRAMMING, 21, (0.001, 11));
        assert_eq!(histogram.buckets(&Bounds::COREDNS_REQUEST)[16], (f64::INFINITY, 2));
        histogram.add(&histogram.clone());
        check(&histogram, &Bounds::PROGRAMMING, 21, (0.001, 22));
        let one = Durations::new();
        one.add(Duration::from_millis(1_500), 2);
        assert_eq!(one.histogram().sum_seconds(), 3.0);
    }
}
