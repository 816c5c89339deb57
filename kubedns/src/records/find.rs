//! The node at a name: the one rule by which names exist.
//!
//! Core. Reads labels from the right and looks up once; does not know the type of the query nor how
//! it is answered. A name exists if it owns a record or is an ancestor of one that does.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use shared::reverse::{self, Reverse};

use super::{
    Entry, Federated, Holder, Named, PodMode, Port, Protocol, Records, Schema, Shape, ZONE_LABEL,
};
use crate::name::{IN_ADDR_ARPA, IP6_ARPA, Labels, Name, parse_dashed};
use crate::skydns::Place;

/// What was found at a name inside one of our zones.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The offset in the name at which the zone's apex begins.
    pub apex: usize,
    /// The records of that zone.
    pub records: &'a Records,
    /// Whether the zone is a reverse zone, else the cluster domain or that of a clusterset.
    pub is_reverse: bool,
    /// The node at the name.
    pub node: Node<'a>,
}

/// What exists at a name.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// No record here or below: NXDOMAIN.
    Missing,
    /// No record here, but at least one below: an empty non-terminal.
    Empty,
    /// The apex: SOA and NS.
    Apex,
    /// The zone's name server: A and AAAA.
    NameServer,
    /// The version of the DNS specification: TXT.
    Version,
    /// An ExternalName Service: CNAME to this name.
    Alias(&'a Entry, &'a Name),
    /// A Service: A, AAAA and SRV.
    Service(&'a Entry),
    /// A named port of a Service: SRV.
    Port(&'a Entry, PortName<'a>),
    /// Endpoints of a Service by the labels left of its name: A and AAAA.
    Endpoint(&'a Entry, Named<'a>),
    /// Endpoints of a Service by the labels of their topology zone, in wire form: A, AAAA and SRV.
    Zonal(&'a Entry, &'a [u8]),
    /// A pod, and whether it is verified to exist: A or AAAA.
    Pod(IpAddr, bool),
    /// The name of an address that a Service holds: PTR.
    Reverse(IpAddr),
    /// A Service in a federation of clusters: CNAME.
    Federated(Federated<'a>),
    /// A Service in a zone of external addresses, or a port of it: A, AAAA and SRV.
    External(&'a Entry, PortName<'a>),
    /// A name of etcd: what its messages are.
    Key(&'a Place),
}

/// Which ports an SRV name refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortName<'a> {
    /// Those with this label and protocol.
    Named(&'a [u8], Protocol),
    /// All: the bare name of a Service.
    Any,
    /// Those that have a label and match this label and this protocol; `None` matches any.
    Wild(Option<&'a [u8]>, Option<Protocol>),
}

impl PortName<'_> {
    /// Returns whether `port` is one of them.
    pub fn matches(self, port: Port<'_>) -> bool {
        match self {
            Self::Named(label, protocol) => port.label == label && port.protocol == protocol,
            Self::Any => true,
            Self::Wild(label, protocol) => {
                !port.label.is_empty()
                    && label.is_none_or(|label| label == port.label)
                    && protocol.is_none_or(|protocol| protocol == port.protocol)
            }
        }
    }
}

impl Records {
    /// Returns what exists at `name`, which must be in wire form and lower case, if it is in one of
    /// our zones.
    ///
    /// The zones are the cluster domain, that of Multi-Cluster Services, and the parts of
    /// `in-addr.arpa` and `ip6.arpa` that are the cluster's. An address outside has a name here
    /// only while a Service holds it; else other servers answer for it, once the records are
    /// complete.
    pub fn find<'a>(&'a self, name: &'a [u8]) -> Option<Found<'a>> {
        let labels = Labels::of(name);
        if let Some(count) = labels.above(self.zone.apex().wire()) {
            return Some(self.find_in_view(&labels, count));
        }
        if let Some(clusterset) = self.clusterset()
            && let Some(count) = labels.above(clusterset.zone.apex().wire())
        {
            return Some(clusterset.find_forward(&labels, count));
        }
        for view in self.views() {
            if let Some(count) = labels.above(view.zone.apex().wire()) {
                return Some(self.or_cluster(view.find_in_view(&labels, count), name));
            }
        }
        if self.zone.is_keyed() {
            return None; // there is no cluster
        }
        let (count, read) = if let Some(count) = labels.above(IN_ADDR_ARPA) {
            (count, reverse::in_addr(left_of(&labels, count)))
        } else {
            let count = labels.above(IP6_ARPA)?;
            (count, reverse::ip6(left_of(&labels, count)))
        };
        let node = if count == 0 { Node::Apex } else { self.find_reverse(read)? };
        Some(Found { apex: labels.start(count), records: self, is_reverse: true, node })
    }

    #[inline]
    fn find_in_view<'a>(&'a self, labels: &Labels<'a>, count: usize) -> Found<'a> {
        let node = match self.zone.schema() {
            Schema::Cluster | Schema::Clusterset => return self.find_forward(labels, count),
            Schema::External { .. } => self.find_external(labels, count),
            Schema::Skydns { .. } => self.find_key(labels, count),
        };
        Found { apex: labels.start(count), records: self, is_reverse: false, node }
    }

    /// What stands at a name in the zone itself: `count` labels stand left of the apex.
    #[inline]
    fn find_forward<'a>(&'a self, labels: &Labels<'a>, count: usize) -> Found<'a> {
        let mut node = self.find_in_zone(labels, count);
        if !self.federations.is_empty() && matches!(node, Node::Missing) {
            node = match labels.label(count - 1) {
                b"svc" => self.find_federated(labels, count),
                _ => node,
            };
        }
        Found { apex: labels.start(count), records: self, is_reverse: false, node }
    }

    /// Returns the node at a name with `count` labels left of the apex.
    fn find_in_zone<'a>(&'a self, labels: &Labels<'a>, count: usize) -> Node<'a> {
        let Some(last) = count.checked_sub(1) else { return Node::Apex };
        match (labels.label(last), count) {
            (b"svc" | b"dns", 1) => Node::Empty,
            (b"pod", 1) if self.zone.schema() == Schema::Cluster => Node::Empty,
            (b"svc", 2) => self.find_namespace(labels),
            (b"svc", _) => self.find_service(labels, count - 3),
            (b"pod", 2) if self.zone.pods.is_enabled() => self.find_namespace(labels),
            (b"pod", 3) => self.find_pod(labels),
            (b"dns", 2) if labels.label(0) == b"ns" => Node::NameServer,
            (b"dns-version", 1) => Node::Version,
            _ => Node::Missing,
        }
    }

    /// Returns the node of the namespace at label 0.
    fn find_namespace<'a>(&'a self, labels: &Labels<'a>) -> Node<'a> {
        if self.has_namespace(labels.wire(0, 1)) { Node::Empty } else { Node::Missing }
    }

    /// Returns whether the namespace with this label, in wire form, exists.
    pub(crate) fn has_namespace(&self, label: &[u8]) -> bool {
        self.namespaces.get(label).is_some_and(|known| known.exists())
    }

    /// Returns the label of each namespace that exists, in wire form, in no order.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &[u8]> {
        let exists = self.namespaces.iter().filter(|(_, known)| known.exists());
        exists.map(|(label, _)| &**label)
    }

    /// Returns the node of the Service at label `at`, whose namespace is the next label, or below
    /// it.
    fn find_service<'a>(&'a self, labels: &Labels<'a>, at: usize) -> Node<'a> {
        let Some(entry) = self.entry(labels.wire(at, at + 2)) else { return Node::Missing };
        if !entry.exists(&self.zone) {
            return Node::Missing;
        }
        if let Some(Shape::ExternalName(target)) = entry.service().map(|service| &service.shape) {
            return if at == 0 { Node::Alias(entry, target) } else { Node::Missing };
        }
        match at {
            0 => Node::Service(entry),
            _ if labels.label(at - 1) == ZONE_LABEL => self.find_zonal(entry, labels, at),
            _ => self.find_below_service(entry, labels, at),
        }
    }

    /// The first `at` labels are a protocol, a port and a protocol, or an endpoint. In a clusterset
    /// they can also be an endpoint and its cluster, or a cluster.
    fn find_below_service<'a>(
        &'a self,
        entry: &'a Entry,
        labels: &Labels<'a>,
        at: usize,
    ) -> Node<'a> {
        let first = labels.wire(0, at);
        match (Protocol::from_label(labels.label(at - 1)), at, self.zone.schema()) {
            (Some(protocol), 1, _) if entry.has_protocol(protocol) => Node::Empty,
            (Some(protocol), 2, _) => find_port(entry, labels.label(0), protocol),
            (None, 1, Schema::Cluster) => self.find_endpoint(entry, first),
            (None, _, Schema::Clusterset) => match self.find_endpoint(entry, first) {
                Node::Missing if entry.has_cluster(first) => Node::Empty,
                node => node,
            },
            _ => Node::Missing,
        }
    }

    pub(super) fn find_endpoint<'a>(&'a self, entry: &'a Entry, label: &'a [u8]) -> Node<'a> {
        let named = self.named(entry, label);
        named.map_or(Node::Missing, |named| Node::Endpoint(entry, named))
    }

    /// Label 0 is a dashed address, label 1 a namespace.
    fn find_pod<'a>(&'a self, labels: &Labels<'a>) -> Node<'a> {
        let known = self.namespaces.get(labels.wire(1, 2)).filter(|known| known.exists());
        let (Some(known), Some(address)) = (known, parse_dashed(labels.label(0))) else {
            return Node::Missing;
        };
        match self.zone.pods {
            PodMode::Insecure => Node::Pod(address, false),
            // IPv4 written as IPv6 is not a Pod's address, though the map keys have that form.
            PodMode::Verified
                if address.to_canonical() == address
                    && self.pods.contains_key(&(mapped(address), known.number)) =>
            {
                Node::Pod(address, true)
            }
            PodMode::Disabled | PodMode::Verified => Node::Missing,
        }
    }

    /// Returns the node of a reverse name, if the name is ours.
    pub(super) fn find_reverse<'a>(&'a self, read: Reverse) -> Option<Node<'a>> {
        let (first, last, is_below) = match read {
            Reverse::Address(address) if self.points_somewhere(address) => {
                return Some(Node::Reverse(address));
            }
            Reverse::Range(first, last) if self.holds_any(first, last) => return Some(Node::Empty),
            Reverse::Address(address) => (address, address, false),
            Reverse::Range(first, last) => (first, last, false),
            Reverse::Nothing(first, last) => (first, last, first == last),
        };
        let is_ours = self.ranges.hold(first, last)
            || is_below && self.points_somewhere(first)
            || first == last && self.has_pod(first);
        (is_ours || !self.complete).then_some(Node::Missing)
    }

    /// Returns whether a name below this one, the ancestor of the reverse names from `first` to
    /// `last`, owns a PTR record. This is the only lookup that allocates: a cursor of some 100
    /// bytes.
    pub(crate) fn holds_any(&self, first: IpAddr, last: IpAddr) -> bool {
        let here = match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                self.v4.range(first.to_bits()..=last.to_bits()).next().is_some()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                self.v6.range(first.octets()..=last.octets()).next().is_some()
            }
            _ => false,
        };
        here || self.clusterset().is_some_and(|records| records.holds_any(first, last))
    }

    /// Returns whether a Service of either zone holds `address` in a way that gives it a name.
    fn points_somewhere(&self, address: IpAddr) -> bool {
        self.holds(address) || self.clusterset().is_some_and(|records| records.holds(address))
    }

    /// Returns the same for names of this zone only.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.number_of(address).is_some()
    }

    /// Returns the number of the holder of `address`.
    pub(super) fn number_of(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => self.v4.get(&address.to_bits()).copied(),
            IpAddr::V6(address) => self.v6.get(&address.octets()).copied(),
        }
    }

    /// Returns the holder of `address` that gives it a name.
    pub(super) fn holder_of(&self, address: IpAddr) -> Option<&Holder> {
        self.holders.get(self.number_of(address)? as usize)
    }

    /// Returns the Service with this number.
    pub(super) fn entry_of(&self, number: u32) -> Option<&Entry> {
        match self.holders.get(number as usize)? {
            Holder::Service(key) => self.entry(key),
            Holder::Free | Holder::Several(_) => None,
        }
    }

    /// Returns whether names of Pods are verified and a Pod has `address`.
    fn has_pod(&self, address: IpAddr) -> bool {
        let (first, last) = ((mapped(address), 0), (mapped(address), u32::MAX));
        self.zone.pods == PodMode::Verified
            && address.to_canonical() == address
            && self.pods.range(first..=last).next().is_some()
    }

    /// Returns the entry at a Service's key.
    pub fn entry(&self, key: &[u8]) -> Option<&Entry> {
        self.services.get(key).map(|entry| &**entry)
    }

    /// Returns the entry at each Service's key, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.services.values().map(|entry| &**entry)
    }

    /// Returns the label of each Namespace whose object exists, in no order.
    pub fn declared_namespaces(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.namespaces.iter().filter(|(_, known)| known.declared).map(|(label, _)| label)
    }

    /// Returns each address that Pods have, with their namespace's label, sorted by address.
    pub fn pod_addresses(&self) -> impl Iterator<Item = (&Arc<[u8]>, IpAddr)> {
        let mut labels = HashMap::new();
        if !self.pods.is_empty() {
            labels.extend(self.namespaces.iter().map(|(label, known)| (known.number, label)));
        }
        self.pods.keys().filter_map(move |(address, number)| {
            Some((*labels.get(number)?, Ipv6Addr::from(*address).to_canonical()))
        })
    }

    /// Returns each address of one family that has a name, once.
    pub(crate) fn named_addresses(&self, v6: bool) -> impl Iterator<Item = IpAddr> + Send + '_ {
        let imported = self.clusterset().into_iter().flat_map(move |other| other.held(v6));
        self.held(v6).chain(imported.filter(|&address| !self.holds(address)))
    }

    /// Returns the same for names of this zone only, sorted.
    fn held(&self, v6: bool) -> Box<dyn Iterator<Item = IpAddr> + Send + '_> {
        if v6 {
            Box::new(self.v6.keys().map(|&octets| Ipv6Addr::from(octets).into()))
        } else {
            Box::new(self.v4.keys().map(|&bits| Ipv4Addr::from_bits(bits).into()))
        }
    }
}

/// `label` may be that of a port.
pub(super) fn find_port<'a>(entry: &'a Entry, label: &'a [u8], protocol: Protocol) -> Node<'a> {
    let port = PortName::Named(label, protocol);
    if entry.has_port(|other| port.matches(other)) {
        Node::Port(entry, port)
    } else {
        Node::Missing
    }
}

/// Returns the first `count` labels, from right to left.
fn left_of<'a>(labels: &Labels<'a>, count: usize) -> impl Iterator<Item = &'a [u8]> {
    (0..count).rev().map(|index| labels.label(index))
}

/// Returns the address as 16 bytes, with IPv4 mapped (RFC 4291 section 2.5.5.2).
pub(super) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
