//! The metrics of the Corefile.
//!
//! Edge. Without a Corefile there are no such metrics.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

use super::follow::State;
use crate::metrics::counters;

/// The metrics of a Corefile.
#[derive(Debug)]
pub struct Metrics(pub watch::Receiver<State>);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let state = self.0.borrow().clone();
        if !state.is_used {
            return Ok(());
        }
        let gauges = [
            (
                "corefile_ok",
                "1 while the Corefile is in force, 0 while it is refused and an earlier one is",
                i64::from(state.refused.is_empty()),
            ),
            (
                "corefile_refused_lines",
                "Reasons why the Corefile is refused as it is now",
                state.refused.len() as i64,
            ),
            (
                "corefile_restart_needed",
                "Settings of the Corefile that are applied by a restart",
                state.restarts.len() as i64,
            ),
        ];
        for (name, help, value) in gauges {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(descriptor)?;
        }
        let loads = [("applied", state.applied), ("refused", state.refusals)];
        counters(
            &mut encoder,
            ("corefile_loads", "Changed contents of the Corefile, by what became of them"),
            loads.map(|(result, count)| ([("result", result)], count)),
        )
    }
}
