//! The metrics that all programs have: the registry with their build, the counters of the DNS
//! listener, the state of the configuration directory, the process itself, and the two text
//! formats.
//!
//! Edge: reads counters at the time of a scrape. Contains no metric of a single program.

pub mod coredns;
mod process;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::config_dir;
use crate::durations::{Bounds, Histogram};
use crate::serve::{Counters, Event, Overflow, rcode_labels, type_labels};
use crate::wire::Transport;

/// Returns a registry whose metrics begin with `program_`, with `program_build_info{version}` in
/// it.
pub fn registry(program: &str, version: &'static str) -> Registry {
    let mut registry = Registry::with_prefix(program);
    let build = Family::<[(&str, &str); 1], Gauge>::default();
    build.get_or_create(&[("version", version)]).set(1);
    registry.register("build_info", "The version that runs; always 1", build);
    registry
}

/// Adds the counters of a DNS listener: `dns_messages`, `dns_replies` and their durations,
/// `dns_events` and the kernel's drops.
pub fn register_dns(registry: &mut Registry, counters: Arc<Counters>, overflow: Overflow) {
    registry.register_collector(Box::new(Dns { counters, overflow }));
}

/// Adds the state of the configuration directory.
pub fn register_config_dir(registry: &mut Registry, state: watch::Receiver<config_dir::State>) {
    registry.register_collector(Box::new(ConfigDir { state }));
}

/// The text formats of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Prometheus,
}

impl Format {
    /// Returns the value of its `Content-Type` header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Returns all metrics in `registries` as text, with those of the process first.
///
/// Fails if a collector does.
pub fn text(registries: &[Registry], format: Format) -> Result<String, fmt::Error> {
    let mut process = Registry::default();
    process.register_collector(Box::new(process::Process));
    let mut text = String::new();
    for registry in std::iter::once(&process).chain(registries) {
        encode_registry(&mut text, registry)?;
    }
    encode_eof(&mut text)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => prometheus(&text),
    })
}

/// Converts OpenMetrics to Prometheus text, in which the family of a counter has the name of its
/// samples, and units and the end are not marked.
fn prometheus(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        let kind = lines.peek().filter(|next| next.starts_with("# TYPE ")).unwrap_or(&line);
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(word @ ("HELP" | "TYPE")), Some(name), rest)
                if kind.ends_with(" counter") =>
            {
                text.extend(["# ", word, " ", name, "_total ", rest.unwrap_or_default()]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[derive(Debug)]
struct Dns {
    counters: Arc<Counters>,
    overflow: Overflow,
}

impl Collector for Dns {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.counters.snapshot();
        let transports = [("udp", Event::ReceivedUdp), ("tcp", Event::ReceivedTcp)];
        counters(
            &mut encoder,
            ("dns_messages", "DNS messages received"),
            transports.map(|(name, event)| ([("transport", name)], counts.event(event))),
        )?;
        let (types, rcodes) = (type_labels(), rcode_labels());
        let replies = types.iter().zip(&counts.replies).flat_map(|(qtype, codes)| {
            let counted = rcodes.iter().zip(codes);
            counted.map(move |(rcode, count)| ([("type", &**qtype), ("rcode", &**rcode)], *count))
        });
        let seen = replies.filter(|(_, count)| *count > 0);
        counters(&mut encoder, ("dns_replies", "DNS replies sent"), seen)?;
        let help = ("dns_reply_duration_seconds", "From the reading of a query to its reply");
        let transports = [("udp", Transport::Udp), ("tcp", Transport::Tcp)];
        let rows = transports.map(|(name, transport)| {
            let lanes = self.counters.snapshot_of(|place| place.transport == transport);
            ([("transport", name)], lanes.took)
        });
        histograms(&mut encoder, help, &Bounds::ANSWER, rows)?;
        counters(
            &mut encoder,
            ("dns_events", "What befell DNS messages and connections beside a plain reply"),
            EVENTS.map(|(name, event)| ([("event", name)], counts.event(event))),
        )?;
        counters(
            &mut encoder,
            ("dns_overflow", "Datagrams the kernel dropped because the socket's queue was full"),
            [([("transport", "udp")], self.overflow.dropped())],
        )?;
        let gauges = [
            ("dns_tcp_connections", "Open TCP connections", self.counters.tcp_open()),
            (
                "dns_tcp_unsent_bytes",
                "Bytes held for TCP clients: unread input and unsent replies",
                self.counters.tcp_held_bytes(),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct ConfigDir {
    state: watch::Receiver<config_dir::State>,
}

impl Collector for ConfigDir {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let state = self.state.borrow().clone();
        let results = [("applied", state.applied), ("refused", state.refusals)];
        let good =
            "1 while the configuration directory is applied whole, 0 while any of it is refused";
        let gauges = [
            ("config_ok", good, i64::from(state.refused.is_empty())),
            (
                "config_refused_entries",
                "Entries of the configuration directory that are refused as it is now",
                state.refused.len() as i64,
            ),
            (
                "config_polling",
                "1 while the configuration directory is polled because inotify is not available",
                i64::from(state.polling),
            ),
        ];
        for (name, help, value) in gauges {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(descriptor)?;
        }
        counters(
            &mut encoder,
            (
                "config_loads",
                "Changed contents of the configuration directory, by what became of it",
            ),
            results.map(|(result, count)| ([("result", result)], count)),
        )
    }
}

/// Writes one family of counters.
pub fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    rows: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in rows {
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}

/// Writes one family of histograms, cut at `bounds`.
pub fn histograms<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    bounds: &Bounds,
    rows: impl IntoIterator<Item = (L, Histogram)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, histogram) in rows {
        let (sum, count) = (histogram.sum_seconds(), histogram.count());
        let buckets = histogram.buckets(bounds);
        let mut row = family.encode_family(&labels)?;
        row.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

/// The names of the events in metrics.
const EVENTS: [(&str, Event); 10] = [
    ("malformed", Event::Malformed),
    ("deferred", Event::Deferred),
    ("shed", Event::Shed),
    ("dropped", Event::Dropped),
    ("truncated", Event::Truncated),
    ("send_failed", Event::SendFailed),
    ("panicked", Event::Panicked),
    ("connected", Event::Connected),
    ("cut", Event::Cut),
    ("evicted", Event::Evicted),
];

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::serve::{Asked, Handler, Limits, Verdict};
    use crate::wire::{Query, Reply};

    #[test]
    fn both_formats_name_a_counter_as_their_readers_expect() {
        let mut registry = registry("prog", "1.2.3");
        registry.register("depth", "How deep", <Gauge>::default());
        let drops = <Counter>::default();
        drops.inc_by(7);
        registry.register("drops", "How many", drops);
        let registry = [registry];
        let openmetrics = text(&registry, Format::OpenMetrics).unwrap();
        let (process, openmetrics) = openmetrics.split_once("# HELP prog_build").unwrap();
        assert!(process.contains("\nprocess_cpu_seconds_total "), "{process}");
        assert!(process.contains("\nprocess_resident_memory_bytes "), "{process}");
        assert_eq!(
            openmetrics,
            "_info The version that runs; always 1.\n\
             # TYPE prog_build_info gauge\nprog_build_info{version=\"1.2.3\"} 1\n\
             # HELP prog_depth How deep.\n# TYPE prog_depth gauge\nprog_depth 0\n\
             # HELP prog_drops How many.\n# TYPE prog_drops counter\nprog_drops_total 7\n# EOF\n"
        );
        let prometheus = text(&registry, Format::Prometheus).unwrap();
        let (_, prometheus) = prometheus.split_once("# HELP prog_build").unwrap();
        let expected = openmetrics
            .replace("prog_drops How", "prog_drops_total How")
            .replace("prog_drops counter", "prog_drops_total counter")
            .replace("# EOF\n", "");
        assert_eq!(prometheus, expected);
    }

    struct Mute;

    impl Handler for Mute {
        fn answer(&self, _: &Query<'_>, _: &Asked, _: &mut Reply<'_>) -> Verdict {
            Verdict::Drop
        }
    }

    #[tokio::test]
    async fn a_listener_and_a_directory_are_exposed() {
        let mut registry = registry("prog", "1");
        let sockets = crate::serve::bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap();
        let (stopping, (later, _)) = (CancellationToken::new(), tokio::sync::mpsc::channel(1));
        let handler = Arc::new(Mute);
        let serving =
            crate::serve::dns(sockets, Limits::default(), stopping.clone(), handler, later)
                .unwrap();
        serving.counters.add(0, Event::ReceivedTcp, 3);
        register_dns(&mut registry, Arc::clone(&serving.counters), serving.overflow());
        let (_sender, state) = watch::channel(config_dir::State::default());
        register_config_dir(&mut registry, state);
        let text = text(&[registry], Format::Prometheus).unwrap();
        for line in [
            "# TYPE prog_dns_messages_total counter\n",
            "prog_dns_messages_total{transport=\"tcp\"} 3\n",
            "# TYPE prog_dns_reply_duration_seconds histogram\n",
            "prog_dns_reply_duration_seconds_bucket{le=\"0.00025\",transport=\"udp\"} 0\n",
            "prog_dns_reply_duration_seconds_count{transport=\"tcp\"} 0\n",
            "prog_dns_events_total{event=\"shed\"} 0\n",
            "prog_dns_overflow_total{transport=\"udp\"} 0\n",
            "prog_dns_tcp_connections 0\n",
            "prog_dns_tcp_unsent_bytes 0\n",
            "prog_config_ok 1\n",
            "prog_config_loads_total{result=\"refused\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
        stopping.cancel();
        serving.finished().await.unwrap();
    }
}
