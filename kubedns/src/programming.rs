//! Programming latency: from a change in the cluster until every answer shows it.
//!
//! Plain counters. Knows which changes are measured, and of which kind of Service; reads no clock.
//! The start is read from the object ([`Written`]), the end is the publication. Objects of a list
//! are not measured, because they can have changed long before kubedns could read them.
//!
//! The kinds are those of Kubernetes's own measure of it (SIG Scalability, "DNS programming
//! latency") and of CoreDNS; ExternalName is ours.

use std::time::Duration;

use shared::durations::{Durations, Histogram};

use crate::project::{Change, Object, Written};
use crate::records::{Key, Records, Shape};

/// The kinds of Services for which different changes are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ServiceKind {
    /// Cluster IPs: changes of the Service.
    ClusterIp,
    /// Headless: endpoints that the EndpointSlice controller found by the selector.
    HeadlessWithSelector,
    /// Headless: endpoints that any other client wrote.
    HeadlessWithoutSelector,
    /// ExternalName: changes of the Service.
    ExternalName,
}

/// Each [`ServiceKind`] with the word that metrics use.
pub const SERVICE_KINDS: [(&str, ServiceKind); 4] = [
    ("cluster_ip", ServiceKind::ClusterIp),
    ("headless_with_selector", ServiceKind::HeadlessWithSelector),
    ("headless_without_selector", ServiceKind::HeadlessWithoutSelector),
    ("external_name", ServiceKind::ExternalName),
];

/// How long changes took to be published.
#[derive(Debug, Default)]
pub struct Programming([Durations; SERVICE_KINDS.len()]);

impl Programming {
    /// Returns the counts for Services of that kind.
    pub fn histogram(&self, kind: ServiceKind) -> Histogram {
        self.0[kind as usize].histogram()
    }

    /// Counts `change`, which `records` show since `now_ms`, in milliseconds since 1970. If our
    /// clock is behind the API server's, the latency is 0.
    pub fn count(&self, change: &Waiting, records: &Records, now_ms: u64) {
        if let Some(kind) = change.kind(records) {
            let took = Duration::from_millis(now_ms.saturating_sub(change.since_ms));
            self.0[kind as usize].add(took, 1);
        }
    }
}

/// A change that is not published yet.
#[derive(Debug)]
pub struct Waiting {
    /// The Service it is about.
    pub key: Key,
    /// Whether the endpoints follow from the Service's selector; `None` if the Service itself
    /// changed.
    from_selector: Option<bool>,
    since_ms: u64,
}

impl Waiting {
    /// Returns the change to measure, if the time of `change` is known. Removed objects, imports,
    /// and all but Services and EndpointSlices are not measured.
    pub fn of(change: &Change, written: Option<Written>) -> Option<Self> {
        let Written { at_ms: since_ms, from_selector } = written?;
        let Change::Applied(_, object) = change else { return None };
        let (key, from_selector) = match object {
            Object::Service(service) => (service.key.clone(), None),
            Object::EndpointSlice(slices) => {
                (slices.own.as_ref()?.service().clone(), Some(from_selector))
            }
            Object::Namespace(_)
            | Object::Pod(_)
            | Object::ServiceImport(_)
            | Object::Node(_)
            | Object::ServiceCidr(_) => return None,
        };
        Some(Self { key, from_selector, since_ms })
    }

    /// Returns the kind of its Service, if it exists and its answers depend on such an object.
    fn kind(&self, records: &Records) -> Option<ServiceKind> {
        let service = records.entry(&self.key)?.service()?;
        match (&service.shape, self.from_selector) {
            (Shape::ClusterIp(_), None) => Some(ServiceKind::ClusterIp),
            (Shape::ExternalName(_), None) => Some(ServiceKind::ExternalName),
            (Shape::Headless, Some(true)) => Some(ServiceKind::HeadlessWithSelector),
            (Shape::Headless, Some(false)) => Some(ServiceKind::HeadlessWithoutSelector),
            _ => None,
        }
    }
}
