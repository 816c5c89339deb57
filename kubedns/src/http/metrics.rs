//! The metrics of kubedns besides the counters of every DNS listener.
//!
//! Edge: reads numbers kept elsewhere at the moment of a scrape.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use shared::clock::Moment;
use shared::clock::{boot_time, unix_ms};
use shared::durations::Bounds;
use shared::metrics::coredns::Compat;
use shared::metrics::{counters, histograms, register_config_dir, register_dns};

use super::{View, coredns, skydns};
use crate::programming::SERVICE_KINDS;
use crate::project::Kind;
use crate::source::watch::progress::COUNTS;
use crate::transfer::Tally;

/// Returns every metric of kubedns.
pub fn registries(view: &View) -> Arc<[Registry]> {
    let mut registry = shared::metrics::registry("kubedns", env!("CARGO_PKG_VERSION"));
    register_dns(&mut registry, view.counters.clone(), view.overflow.clone());
    register_config_dir(&mut registry, view.config.clone());
    registry.register_collector(Box::new(shared::corefile::Metrics(view.corefile.clone())));
    registry.register_collector(Box::new(Records { view: view.clone(), tally: Mutex::new(None) }));
    let compat = view.compat.map(|compat| match compat {
        Compat::Coredns => coredns::registry(view),
        Compat::KubeDns => skydns::registry(view.counters.clone()),
    });
    std::iter::once(registry).chain(compat).collect()
}

struct Records {
    view: View,
    /// The last count. It is locked while a new one is made; threads that need it can wait.
    tally: Mutex<Option<Counted>>,
}

/// The records of one publication, counted.
#[derive(Clone, Copy)]
struct Counted {
    /// The generation, and whether it is stale.
    of: (u64, bool),
    /// When counting began.
    begun: Moment,
    tally: Tally,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Records").field(&self.view).finish()
    }
}

impl Collector for Records {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let view = &self.view;
        let (counts, imported, generation, serial, (source, ranges)) = {
            let records = view.reader.records();
            let imported = records.clusterset().map(|zone| zone.counts()).unwrap_or_default();
            let ranges = (records.ranges().source().word(), records.ranges().prefixes().count());
            (records.counts(), imported, records.generation(), records.serial(), ranges)
        };
        let objects = [
            ("services", counts.services),
            ("endpointslices", counts.endpoint_slices),
            ("endpoints", counts.endpoints),
            ("namespaces", counts.namespaces),
            ("pods", counts.pods),
            ("serviceimports", imported.services),
        ];
        let help = ("objects", "Objects the records are made of");
        gauges(&mut encoder, help, objects.map(|(kind, count)| ([("kind", kind)], count as i64)))?;
        self.encode_records(&mut encoder)?;
        let rejected =
            Kind::KNOWN.map(|kind| ([("kind", kind.plural())], view.counts.rejected(kind) as i64));
        let help = (
            "rejected_objects",
            "Objects of which all or a part is left out because it breaks the rules",
        );
        gauges(&mut encoder, help, rejected)?;
        let help = ("programming_duration_seconds", "From a change to the answers that show it");
        let rows = SERVICE_KINDS.map(|(word, kind)| {
            ([("service_kind", word)], view.counts.programming.histogram(kind))
        });
        histograms(&mut encoder, help, &Bounds::PROGRAMMING, rows)?;
        let help = ("cluster_ranges", "Ranges of addresses whose reverse names are the cluster's");
        gauges(&mut encoder, help, [([("source", source)], ranges as i64)])?;
        let help = ("ready", "1 once every object has been listed");
        gauge(&mut encoder, help, i64::from(view.ready.is_ready()))?;
        let help = ("soa_serial", "The serial of the zone's SOA record");
        gauge(&mut encoder, help, i64::from(serial))?;
        let help = ("publications", "How often changed records were published");
        counter(&mut encoder, help, generation)?;
        if let Some(objects) = &view.objects {
            let state = objects.borrow().clone();
            let help = ("objects_reads", "How often changed object files were read");
            counter(&mut encoder, help, state.reads)?;
            let gauges = [
                (
                    "objects_problems",
                    "What is wrong in object files: broken, or refused by an API server",
                    state.problems.len(),
                ),
                ("objects_kept", "Objects of broken files that stay as they were", state.kept),
                (
                    "objects_polling",
                    "1 while object files are polled because inotify is not available",
                    usize::from(state.polling),
                ),
            ];
            for (name, help, value) in gauges {
                gauge(&mut encoder, (name, help), value as i64)?;
            }
        }
        self.encode_snapshot(&mut encoder)?;
        if view.watches.is_empty() { Ok(()) } else { self.encode_watches(&mut encoder) }
    }
}

impl Records {
    fn encode_records(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tally = self.tally();
        let kinds = [
            ("cluster_ip", tally.cluster_ip),
            ("headless", tally.headless),
            ("external_name", tally.external_name),
            ("clusterset_ip", tally.clusterset_ip),
            ("clusterset_headless", tally.clusterset_headless),
        ];
        let help = ("services", "Services by kind");
        gauges(encoder, help, kinds.map(|(kind, count)| ([("kind", kind)], count as i64)))?;
        let types = [
            ("A", tally.a),
            ("AAAA", tally.aaaa),
            ("CNAME", tally.cname),
            ("PTR", tally.ptr),
            ("SRV", tally.srv),
        ];
        let help = ("records", "Records that follow from the objects, by type");
        gauges(encoder, help, types.map(|(rtype, count)| ([("type", rtype)], count as i64)))
    }

    /// Returns the counts of the current records, which are counted once per publication. Scrapes
    /// that wait for the lock share the count of the first one, because its cost grows with the
    /// cluster.
    fn tally(&self) -> Tally {
        let asked = boot_time();
        let mut last = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let records = self.view.reader.snapshot();
        let of = (records.generation(), records.is_stale());
        if let Some(known) = last.filter(|known| known.of == of || known.begun >= asked) {
            return known.tally;
        }
        let begun = boot_time();
        let tally = Tally::of(&records);
        *last = Some(Counted { of, begun, tally });
        tally
    }

    fn encode_snapshot(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = ("stale", "1 while answers come from the snapshot");
        gauge(encoder, help, i64::from(self.view.reader.records().is_stale()))?;
        let help = ("change_readers", "Readers of /changes");
        gauge(encoder, help, self.view.streams.readers() as i64)?;
        let Some(state) = &self.view.snapshot else { return Ok(()) };
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
            self.view.watches.iter().map(|watch| {
                let namespace = watch.namespace.as_deref().unwrap_or_default();
                (watch, [("kind", watch.kind), ("namespace", namespace)])
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
            watches().map(|(watch, labels)| (labels, i64::from(watch.phase().is_well()))),
        )?;
        let events = watches().flat_map(|(watch, [kind, namespace])| {
            COUNTS
                .iter()
                .map(move |&(count, word)| ([kind, namespace, ("event", word)], watch.count(count)))
        });
        let help = ("watch_lag_seconds", "How long after it was written the last change came");
        let lags =
            watches().filter_map(|(watch, labels)| Some((labels, watch.lag()?.as_secs_f64())));
        gauges(encoder, help, lags)?;
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
