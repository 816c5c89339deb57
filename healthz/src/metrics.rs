//! The metrics: probes by outcome, their latency, and which programs are up.
//!
//! Edge: an outcome is counted when it is recorded. The gauges are computed at each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use shared::clock::boot_time;
use shared::config_dir;
use tokio::sync::watch;

use crate::keeper::Counts;
use crate::status::{Outcome, State, Status, overall};

type Labels<const N: usize> = [(&'static str, String); N];

/// The counters of outcomes. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    outcomes: Family<Labels<2>, Counter>,
    latency: Family<Labels<1>, Histogram, fn() -> Histogram>,
}

/// Returns the registry of healthz, and its counters.
pub fn new(
    status: watch::Receiver<Status>,
    directory: watch::Receiver<config_dir::State>,
) -> (Registry, Metrics) {
    let outcomes = Family::default();
    let latency = Family::new_with_constructor(histogram as fn() -> Histogram);
    let mut registry = shared::metrics::registry("healthz", env!("CARGO_PKG_VERSION"));
    registry.register("probes", "Probes by outcome: ok, or why one failed", outcomes.clone());
    let help = "From the first query to the reply, in seconds; failed probes are not in it";
    registry.register("probe_latency_seconds", help, latency.clone());
    registry.register_collector(Box::new(Up { status }));
    shared::metrics::register_config_dir(&mut registry, directory);
    (registry, Metrics { outcomes, latency })
}

/// Adds the gauge of kept sockets to `registry`.
pub fn register_keeper(registry: &mut Registry, counts: watch::Receiver<Counts>) {
    registry.register_collector(Box::new(Kept(counts)));
}

impl Metrics {
    /// Counts an outcome of the probe with `label`.
    pub fn record(&self, label: &str, outcome: &Outcome) {
        let class = outcome.result.as_ref().map_or_else(|failure| failure.class(), |()| "ok");
        let labels = [("probe", label.to_owned()), ("outcome", class.to_owned())];
        self.outcomes.get_or_create(&labels).inc();
        if outcome.result.is_ok() {
            let labels = [("probe", label.to_owned())];
            self.latency.get_or_create(&labels).observe(outcome.latency.as_secs_f64());
        }
    }
}

#[derive(Debug)]
struct Up {
    status: watch::Receiver<Status>,
}

impl Collector for Up {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (status, now) = (self.status.borrow(), boot_time());
        let value = |state| ConstGauge::new(i64::from(state == State::Healthy));
        let help = "1 while the program behind the probe is healthy";
        let mut family = encoder.encode_descriptor("probe_up", help, None, MetricType::Gauge)?;
        for record in status.probes() {
            let labels = [("probe", record.probe.label.as_str())];
            value(record.health(now).state).encode(family.encode_family(&labels)?)?;
        }
        let help = "0 while the program behind the probe sends no reply at all: /livez/LABEL";
        let mut family = encoder.encode_descriptor("probe_live", help, None, MetricType::Gauge)?;
        for record in status.probes() {
            let labels = [("probe", record.probe.label.as_str())];
            let live = ConstGauge::new(i64::from(!record.is_stuck(now)));
            live.encode(family.encode_family(&labels)?)?;
        }
        let help = "1 while every probe is healthy: what /healthz says";
        let gauge = encoder.encode_descriptor("up", help, None, MetricType::Gauge)?;
        value(overall(status.probes(), now)).encode(gauge)
    }
}

#[derive(Debug)]
struct Kept(watch::Receiver<Counts>);

impl Collector for Kept {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Sockets kept for the next start of a program";
        let mut family =
            encoder.encode_descriptor("kept_sockets", help, None, MetricType::Gauge)?;
        for (program, &count) in self.0.borrow().iter() {
            let labels = [("program", program.as_str())];
            ConstGauge::new(count as i64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Returns a histogram from a quarter of a millisecond, which is a cache hit, to beyond any
/// deadline.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 15))
}
