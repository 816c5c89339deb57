//! The part of `/metrics` about change streams.
//!
//! Edge: reads the state at the time of a scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use shared::metrics::counters;

use super::streams::{Replica, Streams};

/// The metrics of the change streams.
#[derive(Debug)]
pub struct Metrics(pub Arc<Streams>);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (all, up) = self.0.count();
        for (name, help, value) in [
            ("change_streams", "Replicas of kubedns whose changes should be followed", all),
            ("change_streams_up", "Replicas of kubedns whose changes are followed", up),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value as i64).encode(gauge)?;
        }
        let replicas = self.0.replicas();
        let label = |replica: &Replica| [("replica", replica.key.address.to_string())];
        let help = "1 while the changes of this replica of kubedns are followed";
        let mut family =
            encoder.encode_descriptor("change_stream_up", help, None, MetricType::Gauge)?;
        for replica in &replicas {
            let gauge = ConstGauge::new(i64::from(replica.is_up));
            gauge.encode(family.encode_family(&label(replica))?)?;
        }
        let lines = |it: &Replica| (label(it), it.figures.lines.load(Ordering::Relaxed));
        let help = "Lines read from the change stream of this replica of kubedns";
        counters(&mut encoder, ("change_stream_lines", help), replicas.iter().map(lines))?;
        let losses = |it: &Replica| (label(it), it.figures.losses.load(Ordering::Relaxed));
        let help = "Times that the change stream of this replica of kubedns was lost";
        counters(&mut encoder, ("change_stream_losses", help), replicas.iter().map(losses))
    }
}
