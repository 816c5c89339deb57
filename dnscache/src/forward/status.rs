//! The forwarder's state for metrics, `servers.bind` and health checks.
//!
//! Edge without I/O: the thread writes it, and other threads read it without waiting.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use shared::clock::Moment;

use super::servers::{Health, Server};

/// The state of the forwarder. `turn` and `in_flight` are updated in every turn, the rest once a
/// second.
#[derive(Debug)]
pub struct Status {
    upstreams: ArcSwap<Vec<Server>>,
    /// Each upstream as `ADDRESS#PORT SENT FAILED`, as dnsmasq answers `servers.bind`.
    pub servers: Arc<ArcSwap<Vec<String>>>,
    in_flight: AtomicU64,
    turn: AtomicU64,
}

impl Status {
    /// Returns a status without upstreams.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            upstreams: ArcSwap::default(),
            servers: Arc::default(),
            in_flight: AtomicU64::new(0),
            turn: AtomicU64::new(now.nanos()),
        }
    }

    /// Returns the upstream servers in use.
    pub fn upstreams(&self) -> Arc<Vec<Server>> {
        self.upstreams.load_full()
    }

    /// Returns the number of queries under way.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Returns whether the thread has not run a turn for longer than `STALLED_AFTER`, which means
    /// that it hangs.
    pub fn is_stalled(&self, now: Moment) -> bool {
        now.since(self.last_turn()) > STALLED_AFTER
    }

    /// Returns when the thread last ran a turn.
    pub(super) fn last_turn(&self) -> Moment {
        Moment::from_nanos(self.turn.load(Relaxed))
    }

    pub(super) fn turn(&self, now: Moment, in_flight: usize) {
        self.turn.store(now.nanos(), Relaxed);
        self.in_flight.store(in_flight as u64, Relaxed);
    }

    pub(super) fn show(&self, upstreams: Vec<Server>) {
        let text = |server: &Server| {
            let (address, sent, failed) = (server.endpoint.address, server.sent, server.failed);
            format!("{}#{} {sent} {failed}", address.ip(), address.port())
        };
        self.servers.store(Arc::new(upstreams.iter().map(text).collect()));
        self.upstreams.store(Arc::new(upstreams));
    }
}

/// The forwarder's part of `/metrics`.
#[derive(Debug)]
pub struct Metrics(pub Arc<Status>);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let upstreams = self.0.upstreams();
        let labels = |server: &Server| [("server", server.endpoint.address.to_string())];
        shared::metrics::counters(
            &mut encoder,
            ("upstream_queries", "Queries sent to an upstream, every try and probe counted"),
            upstreams.iter().map(|upstream| (labels(upstream), upstream.sent)),
        )?;
        shared::metrics::counters(
            &mut encoder,
            ("upstream_failures", "Tries that an upstream left without a reply"),
            upstreams.iter().map(|upstream| (labels(upstream), upstream.failed)),
        )?;
        let help = "Whether an upstream is asked: 0 while it is silent or sends our queries back";
        let mut up = encoder.encode_descriptor("upstream_up", help, None, MetricType::Gauge)?;
        for upstream in upstreams.iter() {
            let is_up = i64::from(upstream.health() == Health::Up);
            ConstGauge::new(is_up).encode(up.encode_family(&labels(upstream))?)?;
        }
        let help = "The smoothed round-trip time of an upstream";
        let name = "upstream_round_trip_seconds";
        let mut rtt = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for upstream in upstreams.iter() {
            let secs = upstream.round_trip().unwrap_or_default().as_secs_f64();
            ConstGauge::new(secs).encode(rtt.encode_family(&labels(upstream))?)?;
        }
        let help = "Questions on their way to upstreams";
        let flights = encoder.encode_descriptor("flights", help, None, MetricType::Gauge)?;
        ConstGauge::new(self.0.in_flight() as i64).encode(flights)
    }
}

/// The thread runs a turn at least once a second. If it does not for this long, it hangs.
const STALLED_AFTER: Duration = Duration::from_secs(5);
