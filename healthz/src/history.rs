//! An hour of what dnscache did, second by second, and rates over the last minute.
//!
//! Core. Counters in, averages out; the time between two readings is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::figures::Figures;

/// One second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    /// Queries.
    pub queries: f32,
    /// Queries that were answered from the cache, stale ones too.
    pub hits: f32,
    /// Answers SERVFAIL and REFUSED.
    pub errors: f32,
    /// Answers NXDOMAIN.
    pub denied: f32,
    /// The median time of an answer, in microseconds; 0 if there was no query.
    pub p50_us: f32,
    /// The time that 99 of 100 answers do not exceed, in microseconds.
    pub p99_us: f32,
}

/// The last hour. A second in which nothing could be read is `None`.
#[derive(Clone, Debug, Default)]
pub struct History {
    seconds: VecDeque<Option<Second>>,
    last: Option<Counts>,
}

/// Counters since the start of dnscache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    queries: f64,
    hits: f64,
    errors: f64,
    denied: f64,
    /// Upper bounds in seconds, ascending, with how many answers took no longer.
    durations: Vec<(f64, f64)>,
}

impl Counts {
    /// The counters among `figures`; `None` if they are not those of dnscache.
    pub fn of(figures: &Figures) -> Option<Self> {
        let results = |result| figures.sum("dnscache_queries_total", &[("result", result)]);
        let replies = |rcode| figures.sum("dnscache_dns_replies_total", &[("rcode", rcode)]);
        figures.value("dnscache_queries_total", &[("result", "hit")])?;
        let mut durations: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for (bound, count) in figures.by("dnscache_dns_reply_duration_seconds_bucket", "le") {
            let Ok(bound) = bound.parse::<f64>() else { continue };
            // Positive numbers are in the order of their bits.
            durations.entry(bound.to_bits()).or_insert((bound, 0.0)).1 += count;
        }
        Some(Self {
            queries: figures.sum("dnscache_queries_total", &[]),
            hits: results("hit") + results("stale"),
            errors: replies("SERVFAIL") + replies("REFUSED"),
            denied: replies("NXDOMAIN"),
            durations: durations.into_values().collect(),
        })
    }

    /// What happened between `before` and these counters, for each second of `elapsed`.
    fn since(&self, before: &Self, elapsed: Duration) -> Second {
        let secs = elapsed.as_secs_f64().max(0.001);
        // A counter that went back is that of a program that was started again.
        let rate = |now: f64, then: f64| (if now < then { now } else { now - then } / secs) as f32;
        let is_same = self.durations.len() == before.durations.len();
        let grown = self.durations.iter().enumerate().map(|(at, &(bound, count))| {
            let then = if is_same { before.durations[at].1 } else { 0.0 };
            (bound, if count < then { count } else { count - then })
        });
        let grown: Vec<(f64, f64)> = grown.collect();
        Second {
            queries: rate(self.queries, before.queries),
            hits: rate(self.hits, before.hits),
            errors: rate(self.errors, before.errors),
            denied: rate(self.denied, before.denied),
            p50_us: percentile(&grown, 0.5),
            p99_us: percentile(&grown, 0.99),
        }
    }
}

/// The bound, in microseconds, below which the share lies: between two bounds in a straight line.
fn percentile(cumulative: &[(f64, f64)], share: f64) -> f32 {
    let all = cumulative.last().map_or(0.0, |(_, count)| *count);
    if all <= 0.0 {
        return 0.0;
    }
    let wanted = all * share;
    let (mut low, mut below) = (0.0, 0.0);
    for &(bound, count) in cumulative {
        if count >= wanted {
            if bound.is_infinite() {
                return (low * 1e6) as f32;
            }
            let part = (wanted - below) / (count - below).max(f64::MIN_POSITIVE);
            return ((low + (bound - low) * part.clamp(0.0, 1.0)) * 1e6) as f32;
        }
        (low, below) = (bound, count);
    }
    0.0
}

impl History {
    /// Adds the second that ended now, and those before it that were missed. `elapsed` is the time
    /// since the last call; `counts` is `None` if nothing could be read.
    pub fn record(&mut self, counts: Option<Counts>, elapsed: Duration) {
        let second = match (&counts, &self.last) {
            (Some(now), Some(before)) => Some(now.since(before, elapsed)),
            _ => None,
        };
        let missed = (elapsed.as_secs_f64().round() as usize).saturating_sub(1).min(SECONDS_MAX);
        // Counters cover the seconds that were missed, too.
        for _ in 0..=missed {
            if self.seconds.len() == SECONDS_MAX {
                self.seconds.pop_front();
            }
            self.seconds.push_back(second);
        }
        self.last = counts;
    }

    /// The newest second that is known.
    pub fn newest(&self) -> Option<Second> {
        self.seconds.back().copied().flatten()
    }

    /// How many seconds the pictures show: the shortest of 5, 15 and 60 minutes that holds all.
    pub fn window_secs(&self) -> usize {
        let fits = |secs: &usize| self.seconds.len() <= *secs;
        [300, 900].into_iter().find(fits).unwrap_or(SECONDS_MAX)
    }

    /// The window in `count` parts of the same length, oldest first. Rates are averages, p50 is
    /// weighted by queries, and p99 is the worst second.
    pub fn parts(&self, count: usize) -> Vec<Option<Second>> {
        let window = self.window_secs();
        let missing = window - self.seconds.len();
        let of = |at: usize| at.checked_sub(missing).and_then(|at| self.seconds[at]);
        let part = |index: usize| {
            let range = index * window / count..(index + 1) * window / count;
            average(range.filter_map(of))
        };
        (0..count).map(part).collect()
    }
}

fn average(seconds: impl Iterator<Item = Second>) -> Option<Second> {
    let (mut sum, mut count, mut weighted) = (Second::default(), 0.0, 0.0);
    for second in seconds {
        count += 1.0;
        sum.queries += second.queries;
        sum.hits += second.hits;
        sum.errors += second.errors;
        sum.denied += second.denied;
        weighted += second.p50_us * second.queries;
        sum.p99_us = sum.p99_us.max(second.p99_us);
    }
    if count == 0.0 {
        return None;
    }
    Some(Second {
        queries: sum.queries / count,
        hits: sum.hits / count,
        errors: sum.errors / count,
        denied: sum.denied / count,
        p50_us: if sum.queries > 0.0 { weighted / sum.queries } else { 0.0 },
        p99_us: sum.p99_us,
    })
}

/// Counters of the last minute, one reading every few seconds.
#[derive(Clone, Debug, Default)]
pub struct Trend(VecDeque<(Duration, BTreeMap<String, f64>)>);

impl Trend {
    /// Adds a reading at `now`, counted from any fixed moment, unless the last one is too new.
    pub fn record(&mut self, now: Duration, counters: BTreeMap<String, f64>) {
        if self.0.back().is_some_and(|(at, _)| now.saturating_sub(*at) < READING_PAUSE) {
            return;
        }
        while self.0.front().is_some_and(|(at, _)| now.saturating_sub(*at) > TREND) {
            self.0.pop_front();
        }
        // Counters that went back are those of a program that was started again.
        let is_restart = self.0.back().is_some_and(|(_, last)| {
            counters.iter().any(|(key, value)| last.get(key).is_some_and(|before| value < before))
        });
        if is_restart {
            self.0.clear();
        }
        self.0.push_back((now, counters));
    }

    /// How fast the counter `key` grew over the last minute, per second; `None` before there are
    /// two readings.
    pub fn rate(&self, key: &str) -> Option<f64> {
        let grown = self.grown(key)?;
        let (first, last) = (self.0.front()?.0, self.0.back()?.0);
        Some(grown / last.saturating_sub(first).as_secs_f64().max(0.001))
    }

    /// By how much the counter `key` grew over the last minute.
    pub fn grown(&self, key: &str) -> Option<f64> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        if self.0.len() < 2 {
            return None;
        }
        let of = |reading: &BTreeMap<String, f64>| reading.get(key).copied().unwrap_or(0.0);
        Some(of(&last.1) - of(&first.1))
    }
}

/// An hour.
const SECONDS_MAX: usize = 3_600;
/// What rates are averaged over.
const TREND: Duration = Duration::from_secs(60);
/// The time between two readings that are kept: at most 32 lie within [`TREND`].
const READING_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn counts(queries: f64, hits: f64, fast: f64, slow: f64) -> Counts {
        let durations = vec![(0.001, fast), (0.002, fast + slow), (f64::INFINITY, fast + slow)];
        Counts { queries, hits, errors: 0.0, denied: 0.0, durations }
    }

    #[test]
    fn an_hour_takes_less_than_a_megabyte_and_no_more_is_kept() {
        const { assert!(SECONDS_MAX * size_of::<Option<Second>>() <= 1 << 20) };
        let mut history = History::default();
        for second in 0..2 * SECONDS_MAX {
            history.record(Some(counts(second as f64 * 10.0, 0.0, 0.0, 0.0)), SECOND);
        }
        assert_eq!(history.seconds.len(), SECONDS_MAX);
        assert_eq!(history.newest().unwrap().queries, 10.0);
        assert!(history.parts(60).iter().all(|part| part.unwrap().queries == 10.0));
    }

    #[test]
    fn rates_follow_from_counters_and_percentiles_from_their_growth() {
        let mut history = History::default();
        history.record(Some(counts(100.0, 50.0, 100.0, 0.0)), SECOND);
        assert_eq!(history.newest(), None, "there is nothing to compare with");
        history.record(Some(counts(300.0, 200.0, 280.0, 20.0)), 2 * SECOND);
        let now = history.newest().unwrap();
        assert_eq!((now.queries, now.hits), (100.0, 75.0));
        // 180 of 200 took up to 1 ms, 20 up to 2 ms.
        assert!((now.p50_us - 555.6).abs() < 1.0 && (now.p99_us - 1_900.0).abs() < 1.0, "{now:?}");
        assert_eq!(history.seconds.len(), 3, "the second between was missed");
        history.record(None, SECOND);
        assert_eq!(history.newest(), None);
        // A program that was started again begins at 0.
        history.record(Some(counts(10.0, 0.0, 0.0, 0.0)), SECOND);
        history.record(Some(counts(4.0, 4.0, 4.0, 0.0)), SECOND);
        assert_eq!(history.newest().unwrap().queries, 4.0);
    }

    #[test]
    fn the_window_grows_with_what_is_known() {
        let mut history = History::default();
        for (seconds, window) in [(300, 300), (1, 900), (599, 900), (1, 3_600)] {
            for _ in 0..seconds {
                history.record(None, SECOND);
            }
            assert_eq!(history.window_secs(), window);
            assert_eq!(history.parts(60).len(), 60);
        }
    }

    #[test]
    fn rates_are_those_of_the_last_minute() {
        let mut trend = Trend::default();
        let reading = |value: f64| BTreeMap::from([("a".to_owned(), value)]);
        assert_eq!(trend.rate("a"), None);
        for turn in 0..30 {
            trend.record(Duration::from_secs(turn * 5), reading(turn as f64 * turn as f64));
        }
        // From 17 squared to 29 squared in 60 s.
        assert_eq!(trend.grown("a"), Some(29.0 * 29.0 - 17.0 * 17.0));
        assert_eq!(trend.rate("a"), Some((29.0 * 29.0 - 17.0 * 17.0) / 60.0));
        assert_eq!(trend.rate("b"), Some(0.0));
        trend.record(Duration::from_secs(150), reading(3.0));
        assert_eq!(trend.grown("a"), None, "started again");
        trend.record(Duration::from_secs(155), reading(13.0));
        assert_eq!(trend.rate("a"), Some(2.0));
        for second in 156..=300 {
            trend.record(Duration::from_secs(second), reading(second as f64));
            assert!(trend.0.len() <= 32, "the reading of each second is not kept");
        }
        assert_eq!((trend.grown("a"), trend.rate("a")), (Some(60.0), Some(1.0)));
    }
}
