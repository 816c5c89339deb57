//! What kubedns exposes beside the counters of every DNS listener.
//!
//! Edge: reads numbers kept elsewhere at the moment of a scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use shared::metrics::{counters, register_config_dir, register_dns};
use shared::serve::boot_time;

use super::View;
use crate::snapshot::unix_ms;
use crate::watch::progress::{COUNTS, Phase};

/// Every metric of kubedns.
pub fn registries(view: &View) -> Arc<[Registry]> {
    let mut registry = shared::metrics::registry("kubedns", env!("CARGO_PKG_VERSION"));
    register_dns(&mut registry, view.counters.clone(), view.overflow.clone());
    register_config_dir(&mut registry, view.config.clone());
    registry.register_collector(Box::new(Records(view.clone())));
    [registry].into()
}

#[derive(Debug)]
struct Records(View);

impl Collector for Records {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(view) = self;
        let (counts, generation, serial) = {
            let records = view.reader.records();
            (records.counts(), records.generation(), records.serial())
        };
        let objects = [
            ("services", counts.services),
            ("endpointslices", counts.endpoint_slices),
            ("endpoints", counts.endpoints),
            ("namespaces", counts.namespaces),
            ("pods", counts.pods),
        ];
        let help = ("objects", "Objects the records are made of");
        gauges(&mut encoder, help, objects.map(|(kind, count)| ([("kind", kind)], count as i64)))?;
        let rejected = view.rejected.load(Ordering::Relaxed) as i64;
        let help = ("rejected_objects", "Objects left out because they break the rules");
        gauge(&mut encoder, help, rejected)?;
        let help = ("ready", "1 once every object has been listed");
        gauge(&mut encoder, help, i64::from(view.ready.is_ready()))?;
        let help = ("soa_serial", "The serial of the zone's SOA record");
        gauge(&mut encoder, help, i64::from(serial))?;
        let help = ("publications", "How often changed records were published");
        counter(&mut encoder, help, generation)?;
        if let Some(objects) = &view.objects {
            let (reads, problems) = {
                let state = objects.borrow();
                (state.reads, state.problems.len())
            };
            let help = ("objects_reads", "How often changed object files were read");
            counter(&mut encoder, help, reads)?;
            let help = ("objects_problems", "Documents of object files that cannot be read");
            gauge(&mut encoder, help, problems as i64)?;
        }
        self.encode_snapshot(&mut encoder)?;
        if view.watches.is_empty() { Ok(()) } else { self.encode_watches(&mut encoder) }
    }
}

impl Records {
    fn encode_snapshot(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = ("stale", "1 while answers come from the snapshot");
        gauge(encoder, help, i64::from(self.0.reader.records().is_stale()))?;
        let Some(state) = &self.0.snapshot else { return Ok(()) };
        let state = state.borrow().clone();
        let help = ("snapshot_age_seconds", "How old the knowledge in the snapshot is");
        let age = state.age(unix_ms());
        gauges(encoder, help, age.map(|age| (NO_LABELS, age.as_secs_f64())))?;
        let help = ("snapshot_bytes", "Length of the snapshot");
        gauge(encoder, help, state.len_bytes as i64)?;
        let results = [("written", state.writes), ("failed", state.failures)];
        let rows = results.map(|(result, count)| ([("result", result)], count));
        counters(encoder, ("snapshot_writes", "Tries to write the snapshot"), rows)?;
        let help = ("snapshot_refused", "1 where the snapshot found at the start was not used");
        gauge(encoder, help, i64::from(state.refused.is_some()))
    }

    fn encode_watches(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let now = boot_time();
        let watches = || {
            self.0.watches.iter().map(|watch| {
                let namespace = watch.scope.namespace.as_deref().unwrap_or_default();
                (watch, [("kind", watch.scope.kind.plural()), ("namespace", namespace)])
            })
        };
        gauges(
            encoder,
            ("watch_age_seconds", "Time since the API server said anything on the watch"),
            watches().map(|(watch, labels)| (labels, watch.age(now).as_secs_f64())),
        )?;
        gauges(
            encoder,
            ("watch_ok", "1 while the watch follows, 0 while it lists or fails"),
            watches().map(|(watch, labels)| (labels, i64::from(watch.phase() == Phase::Following))),
        )?;
        let events = watches().flat_map(|(watch, [kind, namespace])| {
            COUNTS
                .iter()
                .map(move |&(count, word)| ([kind, namespace, ("event", word)], watch.count(count)))
        });
        counters(encoder, ("watch_events", "What befell the watches"), events)
    }
}

/// Writes one gauge without labels.
fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    value: i64,
) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// Writes one counter without labels.
fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    value: u64,
) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

/// Writes one family of gauges.
fn gauges<L: EncodeLabelSet, N>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    rows: impl IntoIterator<Item = (L, N)>,
) -> fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

const NO_LABELS: [(&str, &str); 0] = [];
