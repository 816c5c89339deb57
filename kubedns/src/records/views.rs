//! Further zones with the same objects: other cluster domains, and zones of addresses outside the
//! cluster.
//!
//! Core. A view shares all maps with the cluster domain and has a zone of its own, so it costs some
//! pointers for each publication. Reverse names point to the cluster domain alone.
//!
//! The zones of external addresses are those of CoreDNS's plugin `k8s_external`: `SERVICE.NS.ZONE`
//! has the externalIPs of the Service and what its load balancer is reached by. What is at a name
//! follows RFC 1034 if the plugin does not: a name has addresses or is an alias, and not both.

use std::net::IpAddr;
use std::sync::Arc;

use shared::wire::rtype;

use super::ports::{Numbers, PortLists};
use super::rrsets::WEIGHT;
use super::{
    Entry, Node, Origin, PodMode, PortName, Protocol, Record, Records, Schema, Service, Walk, Zone,
};
use crate::name::{Labels, Name};

/// How a Service is reached from outside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// `spec.externalIPs`, then the addresses of `status.loadBalancer.ingress`, each once.
    pub addresses: Box<[IpAddr]>,
    /// The hostnames of `status.loadBalancer.ingress` entries without an address.
    pub hosts: Box<[Name]>,
}

/// Zones of external addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalZones {
    /// The zones.
    pub domains: Vec<Name>,
    /// The label of the names that the zone needs for itself, in wire form.
    pub label: Box<[u8]>,
    /// TTL of every record, in seconds.
    pub ttl_secs: u32,
    /// Whether headless Services without external addresses have those of their endpoints.
    pub headless: bool,
}

impl Zone {
    /// The same zone beside further cluster domains, and beside zones of external addresses.
    #[must_use]
    pub fn with_views(mut self, domains: &[Name], external: &ExternalZones) -> Self {
        let further = domains.iter().map(|apex| Self {
            services: [b"\x03svc", apex.wire()].concat().into(),
            apex: apex.clone(),
            clusterset: None,
            views: Arc::default(),
            ..self.clone()
        });
        let outside = external.domains.iter().map(|apex| Self {
            services: apex.wire().into(),
            apex: apex.clone(),
            schema: Schema::External { headless: external.headless },
            clusterset: None,
            name_service: None, // its cluster IPs are not reached from outside
            views: Arc::default(),
            ttl_secs: external.ttl_secs,
            pods: PodMode::Disabled,
            wildcards: false,
            zonal: false,
            ns: [b"\x03ns1", &*external.label].concat().into(),
            hostmaster: [b"\x0ahostmaster", &*external.label].concat().into(),
            ..self.clone()
        });
        self.views = further.chain(outside).map(Arc::new).collect();
        self
    }

    /// Whether a view has the external addresses of Services.
    pub(super) fn has_external(&self) -> bool {
        self.views.iter().any(|view| matches!(view.schema, Schema::External { .. }))
    }
}

impl Entry {
    /// How the Service is reached from outside, if it is.
    pub(crate) fn external(&self) -> Option<&External> {
        self.service.as_ref()?.external.as_deref()
    }

    /// Whether it has no way of its own from outside, and one through its endpoints.
    fn is_headless_outside(&self) -> bool {
        self.external().is_none() && self.is_headless() && self.published() > 0
    }
}

impl Records {
    /// The same moment in the zone of each view.
    pub fn views(&self) -> &[Self] {
        &self.views
    }

    /// The same records with views of them.
    pub(super) fn viewed(mut self) -> Self {
        self.views = Arc::default(); // those of before would be kept by the new ones
        let zones = Arc::clone(&self.zone);
        let view = |zone: &Arc<Zone>| Self {
            zone: Arc::clone(zone),
            clusterset: None,
            federations: match zone.schema {
                Schema::Cluster | Schema::Clusterset => Arc::clone(&self.federations),
                Schema::External { .. } | Schema::Skydns { .. } => Arc::default(),
            },
            complete: if zone.is_keyed() { self.keys.is_complete } else { self.complete },
            stale: if zone.is_keyed() { self.keys.is_stale } else { self.stale },
            ..self.clone()
        };
        self.views = zones.views.iter().map(view).collect();
        self
    }

    /// What is at a name of a zone of external addresses: `count` labels are left of the apex.
    pub(super) fn find_external<'a>(&'a self, labels: &Labels<'a>, count: usize) -> Node<'a> {
        let Some(last) = count.checked_sub(1) else { return Node::Apex };
        if labels.wire(last, count) == &self.zone.ns[4..] {
            return match count {
                1 => Node::Empty,
                2 if labels.label(0) == b"ns1" => Node::NameServer,
                _ => Node::Missing,
            };
        }
        let Some(at) = count.checked_sub(2) else {
            let exists = self.has_namespace(labels.wire(0, 1));
            return if exists { Node::Empty } else { Node::Missing };
        };
        let entry = self.entry(labels.wire(at, count)).filter(|it| it.service().is_some());
        entry.map_or(Node::Missing, |entry| self.find_outside(entry, labels, at))
    }

    /// What is `at` labels below a Service in a zone of external addresses.
    fn find_outside<'a>(&'a self, entry: &'a Entry, labels: &Labels<'a>, at: usize) -> Node<'a> {
        let protocol = at.checked_sub(1).and_then(|at| Protocol::from_label(labels.label(at)));
        let has_protocol = |protocol| entry.has_protocol(protocol);
        let is_headless = self.zone.schema == Schema::External { headless: true };
        match (entry.external(), at, protocol) {
            (Some(External { addresses, .. }), 0, _) if !addresses.is_empty() => {
                Node::External(entry, PortName::Any)
            }
            (Some(External { hosts, .. }), 0, _) => {
                hosts.first().map_or(Node::Missing, |host| Node::Alias(entry, host))
            }
            (Some(_), 1, Some(protocol)) if has_service_protocol(entry, protocol) => Node::Empty,
            (Some(_), 2, Some(protocol)) => {
                let wanted = PortName::Named(labels.label(0), protocol);
                match has_service_port(entry, wanted) {
                    true => Node::External(entry, wanted),
                    false => Node::Missing,
                }
            }
            (None, 0, _) if is_headless && entry.is_headless_outside() => Node::Service(entry),
            // Its endpoints have names.
            (None, 0, _) if is_headless && entry.published() > 0 => Node::Empty,
            (None, 1, None) if is_headless => self.find_endpoint(entry, labels.wire(0, 1)),
            (None, 1, Some(protocol))
                if is_headless && entry.is_headless_outside() && has_protocol(protocol) =>
            {
                Node::Empty
            }
            (None, 2, Some(protocol)) if is_headless && entry.is_headless_outside() => {
                super::find::find_port(entry, labels.label(0), protocol)
            }
            _ => Node::Missing,
        }
    }
}

/// Whether a port of the Service itself passes `wanted`.
fn has_service_port(entry: &Entry, wanted: PortName<'_>) -> bool {
    entry.service().is_some_and(|service| service.ports.iter().any(|port| wanted.matches(port)))
}

fn has_service_protocol(entry: &Entry, protocol: Protocol) -> bool {
    has_service_port(entry, PortName::Wild(None, Some(protocol)))
}

impl Walk<'_> {
    /// Visits the SRV records of the ports of `entry` that are `wanted`: one for each port, and for
    /// each host if there are no addresses.
    pub(super) fn external_srv(
        &self,
        entry: &Entry,
        wanted: PortName<'_>,
        visit: &mut impl FnMut(Record<'_>) -> bool,
    ) -> bool {
        let (Some(Service { ports, .. }), Some(external)) = (entry.service(), entry.external())
        else {
            return true;
        };
        let zone = self.records.zone();
        let (origin, numbers) =
            (Origin::Service(zone, entry), Numbers::of(PortLists::One(ports), wanted));
        let mut each = |target: [&[u8]; 2]| {
            numbers.each(|number| {
                let ([w1, w0], [n1, n0]) = (WEIGHT.to_be_bytes(), number.to_be_bytes());
                let rdata: &[&[u8]] = &[&[0, 0, w1, w0, n1, n0], target[0], target[1]];
                visit(Record { rtype: rtype::SRV, rdata, origin })
            })
        };
        match external.addresses[..] {
            [] => external.hosts.iter().all(|host| each([host.wire(), &[]])),
            _ => each([entry.key(), zone.services()]),
        }
    }
}
