//! What the status page shows beside the probes: the last pages of both programs, an hour of
//! figures, and the heavy hitters.
//!
//! Core. The edge fills it once per second; the page reads it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::figures::{Figures, Pages};
use crate::history::{Counts, History, Trend};

/// All of it.
#[derive(Clone, Debug)]
pub struct View {
    /// The pages of dnscache, or why there are none.
    pub dnscache: Result<Pages, String>,
    /// Likewise of kubedns.
    pub kubedns: Result<Pages, String>,
    /// The last hour of dnscache.
    pub history: History,
    /// Counters of the last minute.
    pub trend: Trend,
    /// Who and what is asked most.
    pub tops: Vec<Top>,
    /// When the configuration of each program last changed, and how often it had then.
    changes: BTreeMap<&'static str, (f64, Option<Duration>)>,
    /// The time of the last reading, counted from the start of healthz.
    now: Duration,
}

impl Default for View {
    fn default() -> Self {
        let unread = || Err("not read yet".to_owned());
        Self {
            dnscache: unread(),
            kubedns: unread(),
            history: History::default(),
            trend: Trend::default(),
            tops: Vec::new(),
            changes: BTreeMap::new(),
            now: Duration::ZERO,
        }
    }
}

/// A list of heavy hitters.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Top {
    /// `name`, `client` or `nxdomain`.
    #[serde(default)]
    pub by: String,
    /// The largest first.
    #[serde(default)]
    pub items: Vec<Item>,
}

/// One of them.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Item {
    /// A name with its final dot, or an address.
    pub key: String,
    /// Queries for each second of the window.
    #[serde(default)]
    pub rate: f64,
    /// What to do about it.
    pub hint: Option<String>,
    /// The name of the client.
    pub pod: Option<String>,
}

impl View {
    /// Takes the pages of dnscache and of kubedns, read `now` after the start of healthz.
    pub fn read(
        &mut self,
        dnscache: Result<Pages, String>,
        kubedns: Result<Pages, String>,
        now: Duration,
    ) {
        let figures = dnscache.as_ref().ok().map(|pages| &pages.figures);
        let elapsed = now.saturating_sub(self.now);
        self.history.record(figures.and_then(Counts::of), elapsed);
        if let Some(figures) = figures {
            self.trend.record(now, counters(figures));
        }
        for (program, pages) in [("dnscache", &dnscache), ("kubedns", &kubedns)] {
            let Ok(pages) = pages else { continue };
            let loads = loads(program, &pages.figures);
            let entry = self.changes.entry(program).or_insert((loads, None));
            // Fewer than before are those of a program that was started again.
            if loads > entry.0 {
                entry.1 = Some(now);
            }
            entry.0 = loads;
        }
        (self.dnscache, self.kubedns, self.now) = (dnscache, kubedns, now);
    }

    /// How long ago the configuration of `program` changed; `None` if it did not while healthz ran.
    pub fn changed(&self, program: &str) -> Option<Duration> {
        let (_, at) = self.changes.get(program)?;
        at.map(|at| self.now.saturating_sub(at))
    }
}

/// How often `program` took a changed configuration or refused it.
fn loads(program: &str, figures: &Figures) -> f64 {
    let of = |name: &str| figures.sum(&format!("{program}_{name}_loads_total"), &[]);
    of("config") + of("corefile")
}

/// The counters whose rates are shown, by the names that [`Trend::rate`] takes.
fn counters(figures: &Figures) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let families = [
        ("dnscache_upstream_queries_total", "server"),
        ("dnscache_upstream_failures_total", "server"),
        ("dnscache_cache_changes_total", "change"),
        ("dnscache_queries_total", "result"),
        ("dnscache_dns_replies_total", "rcode"),
    ];
    for (name, label) in families {
        for (value, count) in figures.by(name, label) {
            *found.entry(key(name, value)).or_insert(0.0) += count;
        }
    }
    found
}

/// The key of the counter `name` with this value of its label.
pub fn key(name: &str, value: &str) -> String {
    format!("{name} {value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_configuration_is_noticed() {
        let pages = |loads: u32| {
            let text = format!("dnscache_config_loads_total{{result=\"applied\"}} {loads}\n");
            Ok(Pages { figures: Figures::read(&text), ..Pages::default() })
        };
        let secs = Duration::from_secs;
        let mut view = View::default();
        let away = || Err("away".to_owned());
        view.read(pages(3), away(), secs(1));
        assert_eq!(view.changed("dnscache"), None);
        view.read(pages(4), away(), secs(2));
        view.read(pages(4), away(), secs(12));
        assert_eq!(view.changed("dnscache"), Some(secs(10)));
        view.read(pages(0), away(), secs(13));
        assert_eq!(view.changed("dnscache"), Some(secs(11)), "a start is not a change");
        assert_eq!(view.changed("kubedns"), None);
    }
}
