//! The metrics of CoreDNS's plugin `kubernetes` next to those of the listener, under its names.
//!
//! Edge: reads numbers kept elsewhere at the moment of a scrape.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use shared::durations::Bounds;
use shared::metrics::{coredns, histograms};

use super::View;
use crate::programming::{SERVICE_KINDS, ServiceKind};
use crate::publish::Counts;

/// Returns every metric under CoreDNS's names.
pub(super) fn registry(view: &View) -> Registry {
    let version = env!("CARGO_PKG_VERSION");
    let mut registry = coredns::registry(version, Arc::clone(&view.counters), "kubernetes");
    registry.register_collector(Box::new(Kubernetes(Arc::clone(&view.counts))));
    registry
}

#[derive(Debug)]
struct Kubernetes(Arc<Counts>);

impl Collector for Kubernetes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let name = "kubernetes_dns_programming_duration_seconds";
        let help = (name, "From a change in the cluster to the answers that show it");
        let theirs = SERVICE_KINDS.iter().filter(|(_, kind)| *kind != ServiceKind::ExternalName);
        let rows = theirs
            .map(|&(word, kind)| ([("service_kind", word)], self.0.programming.histogram(kind)));
        histograms(&mut encoder, help, &Bounds::PROGRAMMING, rows)
    }
}
