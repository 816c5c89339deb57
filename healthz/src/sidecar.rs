//! The names under which the sidecar of kube-dns exposes its probes and dnsmasq's figures, for
//! dashboards and alerts that were made for it: `--metrics-compat kube-dns`.
//!
//! Edge: asks dnscache for the figures every five seconds, as the sidecar asks dnsmasq. The names
//! of the sidecar's counters do not end in `_total`, as those of OpenMetrics must. They are the
//! same here, with the type gauge.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::{Probe, Transport};
use crate::probe::unspecified;
use crate::status::Outcome;

/// Whose names `/metrics` has beside our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compat {
    /// Those of the sidecar of kube-dns.
    KubeDns,
}

/// What is counted under the sidecar's names; clones count together.
#[derive(Clone, Debug)]
pub struct Sidecar {
    probes: Arc<HashMap<String, OfProbe>>,
    figures: Arc<Figures>,
}

#[derive(Debug)]
struct OfProbe {
    latency: Histogram,
    errors: AtomicU64,
}

/// What dnscache answered last, and how often it did not answer.
#[derive(Debug, Default)]
struct Figures {
    values: [AtomicU64; FIGURES.len()],
    errors: AtomicU64,
}

impl Sidecar {
    /// Returns the registry of metrics about `probes`, and what counts for it.
    pub fn new(probes: &[Probe]) -> (Registry, Self) {
        let mut registry = Registry::with_prefix("kubedns");
        let mut by_label = HashMap::new();
        for probe in probes {
            let name = format!("probe_{}_latency_ms", word(&probe.label));
            let latency = Histogram::new(exponential_buckets(0.25, 2.0, 16));
            registry.register(name, "Latency of the probes in milliseconds", latency.clone());
            let errors = AtomicU64::new(0);
            by_label.insert(probe.label.clone(), OfProbe { latency, errors });
        }
        let sidecar = Self { probes: Arc::new(by_label), figures: Arc::default() };
        registry.register_collector(Box::new(sidecar.clone()));
        (registry, sidecar)
    }

    /// Counts an outcome of the probe with `label`.
    pub fn record(&self, label: &str, outcome: &Outcome) {
        let Some(probe) = self.probes.get(label) else { return };
        match outcome.result.is_ok() {
            true => probe.latency.observe(outcome.latency.as_secs_f64() * 1_000.0),
            false => drop(probe.errors.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Asks the dnscache of `probes` for its figures until `stopping`. Without a probe of one over
    /// UDP they stay 0.
    pub async fn poll(
        self,
        probes: Vec<Probe>,
        stopping: CancellationToken,
    ) -> Result<(), Infallible> {
        let is_cache =
            |probe: &&Probe| word(&probe.label) == DNSMASQ && probe.transport == Transport::Udp;
        let Some(server) = probes.iter().find(is_cache).map(|probe| probe.server) else {
            stopping.cancelled().await;
            return Ok(());
        };
        loop {
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                asked = self.ask(server) => if let Err(error) = asked {
                    self.figures.errors.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%server, %error, "no figures for the names of kube-dns");
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                () = sleep(POLL_PAUSE) => {}
            }
        }
    }

    /// Asks `server` for each figure.
    async fn ask(&self, server: SocketAddr) -> io::Result<()> {
        let socket = UdpSocket::bind(unspecified(server)).await?;
        socket.connect(server).await?;
        let mut buffer = [0; 512];
        for ((number, value), (name, ..)) in (1..).zip(&self.figures.values).zip(FIGURES) {
            socket.send(&query(number, name)).await?;
            let figure = async {
                loop {
                    let len = socket.recv(&mut buffer).await?;
                    if let Some(figure) = figure(&buffer[..len], number) {
                        return io::Result::Ok(figure);
                    }
                }
            };
            value.store(timeout(REPLY_MAX, figure).await??, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Collector for Sidecar {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut write = |name: &str, help: &str, value: &AtomicU64| {
            let gauge = ConstGauge::new(value.load(Ordering::Relaxed) as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        for (value, (_, name, help)) in self.figures.values.iter().zip(FIGURES) {
            write(name, help, value)?;
        }
        write("dnsmasq_errors", "Times that dnscache did not answer", &self.figures.errors)?;
        for (label, probe) in &*self.probes {
            let name = format!("probe_{}_errors", word(label));
            write(&name, "Probes that failed", &probe.errors)?;
        }
        Ok(())
    }
}

/// Returns `label` as a part of the name of a metric. The cache of kube-dns is called dnsmasq.
fn word(label: &str) -> String {
    match label {
        "dnscache" => DNSMASQ.to_owned(),
        label => label.replace('-', "_"),
    }
}

/// Returns a query for the TXT record of `name` in class CH.
fn query(id: u16, name: &str) -> Vec<u8> {
    let name = Name::from_ascii(name).expect("a domain name");
    let mut query = Query::query(name, RecordType::TXT);
    query.set_query_class(DNSClass::CH);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query);
    message.to_vec().expect("a name and no record fit in a message")
}

/// Returns the number in the reply to query `id`; `None` if it is another message.
fn figure(reply: &[u8], id: u16) -> Option<u64> {
    let message = Message::from_vec(reply).ok().filter(|message| message.metadata.id == id)?;
    message.answers.iter().find_map(|record| match &record.data {
        RData::TXT(text) => std::str::from_utf8(text.txt_data.first()?).ok()?.parse().ok(),
        _ => None,
    })
}

const DNSMASQ: &str = "dnsmasq";
/// The names that are asked for, and those of their metrics.
const FIGURES: [(&str, &str, &str); 5] = [
    ("hits.bind.", "dnsmasq_hits", "Queries answered from the cache"),
    ("misses.bind.", "dnsmasq_misses", "Queries not in the cache"),
    ("evictions.bind.", "dnsmasq_evictions", "Entries that gave way before their time"),
    ("insertions.bind.", "dnsmasq_insertions", "Entries stored"),
    ("cachesize.bind.", "dnsmasq_max_size", "Entries that the cache may hold"),
];
/// As the sidecar asks.
const POLL_PAUSE: Duration = Duration::from_secs(5);
const REPLY_MAX: Duration = Duration::from_secs(2);
