//! The report of `cargo load chaos`.
//!
//! Core. Outcomes in, figures and text out.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Flags, GROUPS, Group};
use crate::upstreams::asker::Outcome;

/// What became of the questions of one group.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fate {
    asked: usize,
    /// Answered as expected.
    answered: usize,
    /// Of these, after the question was sent a second time.
    retried: usize,
    /// Answered with another code.
    failed: usize,
    /// Not answered.
    lost: usize,
    /// How long the answers took: the median, that of 9,999 in 10,000, the longest.
    took: [Duration; 3],
}

fn fate(outcomes: &[Outcome], group: Group) -> Fate {
    let mut fate = Fate::default();
    let mut times = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.group == group as usize) {
        fate.asked += 1;
        match outcome.took {
            Some(took) if outcome.rcode == group.rcode() => {
                fate.answered += 1;
                fate.retried += usize::from(outcome.retried);
                times.push(took);
            }
            Some(_) => fate.failed += 1,
            None => fate.lost += 1,
        }
    }
    times.sort_unstable();
    fate.took = [0.5, 0.9999, 1.0].map(|share| {
        let at = (share * times.len() as f64) as usize;
        times.get(at).or(times.last()).copied().unwrap_or_default()
    });
    fate
}

/// Returns the longest time in which no question was answered.
fn longest_gap(outcomes: &[Outcome]) -> Duration {
    let good = outcomes.iter().filter(|outcome| outcome.rcode == 0);
    let mut replies: Vec<Duration> = good.filter_map(Outcome::replied).collect();
    replies.sort_unstable();
    replies.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX)
}

/// What was measured with one server.
#[derive(Debug)]
pub struct Figures {
    /// What was restarted.
    pub name: String,
    longest_gap: Duration,
    fates: [Fate; GROUPS.len()],
}

impl Figures {
    /// Returns the figures of `outcomes`.
    pub fn new(name: String, outcomes: &[Outcome]) -> Self {
        let fates = GROUPS.map(|group| fate(outcomes, group));
        Self { name, longest_gap: longest_gap(outcomes), fates }
    }

    fn json(&self) -> Value {
        let mut figures = json!({ "name": self.name, "longest_gap_ms": millis(self.longest_gap) });
        for (group, fate) in GROUPS.iter().zip(&self.fates) {
            let Fate { asked, answered, retried, failed, lost, took } = fate;
            figures[group.name()] = json!({
                "asked": asked, "answered": answered, "retried": retried, "failed": failed,
                "lost": lost, "p50_ms": millis(took[0]), "p99_99_ms": millis(took[1]),
                "longest_ms": millis(took[2]),
            });
        }
        figures
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}: longest time without an answer {:.1} ms\n\
             {:<20}{:>9}{:>10}{:>10}{:>9}{:>7}{:>10}{:>12}{:>12}\n",
            self.name,
            millis(self.longest_gap),
            "",
            "asked",
            "answered",
            "retried",
            "failed",
            "lost",
            "p50",
            "p99.99",
            "longest",
        );
        for (group, fate) in GROUPS.iter().zip(&self.fates) {
            let Fate { asked, answered, retried, failed, lost, took } = fate;
            let [p50, p99_99, longest] = took.map(millis);
            text += &format!(
                "{:<20}{asked:>9}{answered:>10}{retried:>10}{failed:>9}{lost:>7}\
                 {p50:>7.2} ms{p99_99:>9.1} ms{longest:>9.1} ms\n",
                group.title(),
            );
        }
        text
    }
}

/// Returns the figures as JSON: those of the pod, and `beside` it those of the other caches.
pub fn json(flags: &Flags, of_pod: &Figures, beside: &[Figures]) -> Value {
    let mut figures = of_pod.json();
    figures["kills"] = flags.kills.into();
    figures["stops"] = flags.stops.into();
    figures["rate"] = flags.rate.into();
    figures["keeper"] = (!flags.no_keeper).into();
    figures["beside"] = beside.iter().map(Figures::json).collect();
    figures
}

/// Returns the figures as tables.
pub fn text(flags: &Flags, of_pod: &Figures, beside: &[Figures]) -> String {
    let mut text = format!(
        "{} kills and {} stops under {} questions/s, {} keeper of sockets\n",
        flags.kills,
        flags.stops,
        flags.rate,
        if flags.no_keeper { "without a" } else { "with a" },
    );
    text += &of_pod.text();
    text.extend(beside.iter().map(Figures::text));
    text
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(sent: u64, took: Option<u64>, rcode: u8, retried: bool) -> Outcome {
        let millis = Duration::from_millis;
        let (sent, took) = (millis(sent), took.map(millis));
        Outcome { group: Group::Cluster as usize, sent, took, rcode, retried }
    }

    #[test]
    fn every_question_has_one_fate() {
        let outcomes = [
            outcome(0, Some(1), 0, false),
            outcome(10, Some(1_002), 0, true),
            outcome(20, None, 0, true),
            outcome(30, Some(3), 2, false),
            outcome(40, Some(2), 0, false),
        ];
        let millis = Duration::from_millis;
        let took = [millis(2), millis(1_002), millis(1_002)];
        let expected = Fate { asked: 5, answered: 3, retried: 1, failed: 1, lost: 1, took };
        assert_eq!(fate(&outcomes, Group::Cluster), expected);
        assert_eq!(fate(&outcomes, Group::Outside), Fate::default());
        assert_eq!(longest_gap(&outcomes), millis(1_012 - 42));
    }
}
