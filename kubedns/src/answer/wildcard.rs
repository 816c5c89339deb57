//! Names in which `*` or `any` matches any label, as in SkyDNS: all Services that match are
//! answered together. In a clusterset, the label of a cluster is not a wildcard.
//!
//! Core. Used only if no name has that label literally and the zone has wildcards. Knows which
//! labels can be wild and what matches; looks at a bounded number of Services. Records of such an
//! answer have TTL 0, because a list of changed names cannot contain such names.

use std::collections::BTreeSet;

use shared::wire::{ErrorCode, Section, Transport, rtype};

use super::Writing;
use crate::name::Labels;
use crate::records::{
    Entry, Found, Node, PortName, Protocol, Records, Schema, Shape, TYPES, scale,
};

/// A name below the cluster domain, or that of a clusterset, with at least one wild label.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern<'a> {
    records: &'a Records,
    /// The namespace's label in wire form, if it is not wild.
    namespace: Option<&'a [u8]>,
    /// The Service's label in wire form, if it is not wild.
    service: Option<&'a [u8]>,
    depth: Depth<'a>,
}

/// How many levels below the zone a name is.
#[derive(Clone, Copy, Debug)]
enum Depth<'a> {
    /// `svc`.
    Services,
    /// A namespace.
    Namespace,
    /// A Service, or a wild label left of it: all records of the Service.
    Service,
    /// A protocol.
    Protocol(Protocol),
    /// The labels left of the Service in the name of an endpoint or a cluster, in wire form.
    Endpoint(&'a [u8]),
    /// A port.
    Port(PortName<'a>),
}

/// How a search for matches ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// Every candidate was looked at.
    Complete,
    /// The visitor returned `false`.
    Enough,
    /// There were more candidates than the limit.
    Cut,
}

impl<'a> Pattern<'a> {
    /// Returns the pattern of `name`, at which `found` was the result, if the name does not exist,
    /// wildcards are on, and at least one label of it is wild.
    ///
    /// The label `any` is not wild if a namespace, or a Service of the namespace, has that name.
    pub fn of(name: &'a [u8], found: &Found<'a>) -> Option<Self> {
        let records = found.records;
        let is_missing = matches!(found.node, Node::Missing);
        if !is_missing || !records.zone().wildcards || found.is_reverse {
            return None;
        }
        let labels = Labels::of(name);
        let count = (0..).take_while(|&index| labels.start(index) < found.apex).count();
        let zone = count.checked_sub(1)?; // the index of `svc`
        if !is_wild(labels.label(zone)) && labels.label(zone) != b"svc" {
            return None;
        }
        let mut wild = is_wild(labels.label(zone));
        let mut pattern = Self { records, namespace: None, service: None, depth: Depth::Services };
        if let Some(at) = zone.checked_sub(1) {
            let label = labels.wire(at, zone);
            let any = is_wild(&label[1..]) && !records.has_namespace(label);
            wild |= any;
            pattern.namespace = (!any).then_some(label);
            pattern.depth = Depth::Namespace;
        }
        if let Some(at) = zone.checked_sub(2) {
            let label = labels.wire(at, at + 1);
            let is_name = pattern.namespace.is_some()
                && records.entry(labels.wire(at, zone)).is_some_and(|e| e.exists(records.zone()));
            let any = is_wild(&label[1..]) && !is_name;
            wild |= any;
            pattern.service = (!any).then_some(label);
            pattern.depth = Depth::Service;
        }
        if let Some(below) = zone.checked_sub(3) {
            wild |= (0..=below).any(|index| is_wild(labels.label(index)));
            let schema = records.zone().schema();
            pattern.depth = Depth::below_service(schema, &labels, below)?;
        }
        wild.then_some(pattern)
    }

    /// Returns the alias that matches this name, if it is the only match. An alias cannot share its
    /// name with other records (RFC 1034 section 3.6.2), so it is left out if more Services match.
    pub fn alias(&self, transport: Transport) -> Option<Node<'a>> {
        let mut only = None;
        let search = self.visit(transport, |node| {
            let is_first = only.is_none();
            only = Some(node).filter(|node| is_first && matches!(node, Node::Alias(..)));
            only.is_some()
        });
        only.filter(|_| search == Search::Complete)
    }

    /// Returns the types of records that answer a query of type `qtype`, in order. CNAME is left
    /// out because only aliases own such records, and they are left out too.
    pub fn types(qtype: u16) -> impl Iterator<Item = u16> {
        let is_asked = move |rtype: &u16| matches!(qtype, rtype::ANY) || qtype == *rtype;
        TYPES.into_iter().filter(|&rtype| rtype != rtype::CNAME).filter(is_asked)
    }

    /// Visits the node of each name that matches, in no order, until `visit` returns `false`.
    pub fn visit(&self, transport: Transport, mut visit: impl FnMut(Node<'a>) -> bool) -> Search {
        let nodes: Box<dyn Iterator<Item = Option<Node<'a>>>> = match self.depth {
            Depth::Services => Box::new(std::iter::once(Some(Node::Empty))),
            Depth::Namespace => {
                let exists = self.namespace.is_none_or(|label| self.records.has_namespace(label));
                Box::new(exists.then_some(Some(Node::Empty)).into_iter())
            }
            _ => Box::new(self.candidates().map(|entry| self.node(entry?))),
        };
        let max = match transport {
            Transport::Udp => LOOKS_UDP_MAX,
            Transport::Tcp => LOOKS_TCP_MAX,
        };
        for (looks, node) in nodes.enumerate() {
            if looks == max {
                return Search::Cut;
            }
            if node.is_some_and(|node| !visit(node)) {
                return Search::Enough;
            }
        }
        Search::Complete
    }

    /// Returns the entry, if any, at each place that can match. Each place costs one look.
    fn candidates(&self) -> Box<dyn Iterator<Item = Option<&'a Entry>> + 'a> {
        let records = self.records;
        let at =
            move |service: &[u8], namespace: &[u8]| records.entry(&[service, namespace].concat());
        match (self.service, self.namespace) {
            (Some(service), Some(namespace)) => Box::new(std::iter::once(at(service, namespace))),
            (Some(service), None) => {
                Box::new(records.namespaces().map(move |namespace| at(service, namespace)))
            }
            (None, Some(namespace)) if !records.has_namespace(namespace) => {
                Box::new(std::iter::empty())
            }
            (None, namespace) => Box::new(records.entries().map(move |entry| {
                let label = &entry.key()[1 + usize::from(entry.key()[0])..];
                namespace.is_none_or(|namespace| namespace == label).then_some(entry)
            })),
        }
    }

    /// Returns the node of `entry` that matches.
    fn node(&self, entry: &'a Entry) -> Option<Node<'a>> {
        if !entry.exists(self.records.zone()) {
            return None;
        }
        if let Shape::ExternalName(target) = &entry.service()?.shape {
            let is_its_name = matches!(self.depth, Depth::Service);
            return is_its_name.then_some(Node::Alias(entry, target));
        }
        match self.depth {
            Depth::Services | Depth::Namespace => None,
            Depth::Service => Some(Node::Service(entry)),
            Depth::Protocol(protocol) => entry.has_protocol(protocol).then_some(Node::Empty),
            Depth::Endpoint(labels) => match self.records.named(entry, labels) {
                Some(named) => Some(Node::Endpoint(entry, named)),
                None => entry.has_cluster(labels).then_some(Node::Empty),
            },
            Depth::Port(port) => {
                entry.has_port(|other| port.matches(other)).then_some(Node::Port(entry, port))
            }
        }
    }
}

impl<'a> Depth<'a> {
    /// Returns the depth of labels up to number `last`, left of a Service, if names can match them.
    fn below_service(schema: Schema, labels: &Labels<'a>, last: usize) -> Option<Self> {
        let protocol = Protocol::from_label(labels.label(last));
        let any = is_wild(labels.label(last));
        match last {
            0 if any => Some(Self::Service),
            0 => Some(match protocol {
                Some(protocol) => Self::Protocol(protocol),
                None => Self::Endpoint(labels.wire(0, 1)),
            }),
            1 if any || protocol.is_some() => {
                let label = match labels.label(0) {
                    label if is_wild(label) => None,
                    [b'_', _, ..] => Some(labels.label(0)),
                    _ => return None,
                };
                Some(Self::Port(PortName::Wild(label, protocol)))
            }
            _ if schema == Schema::Clusterset => Some(Self::Endpoint(labels.wire(0, last + 1))),
            _ => None,
        }
    }
}

impl<'w> Writing<'w, '_> {
    /// Answers with the records of everything that matches `pattern`, in an order that rotates from
    /// query to query.
    pub(super) fn wild(&mut self, pattern: &Pattern<'w>) {
        let transport = self.query.transport;
        let mut nodes = Vec::new();
        let search = pattern.visit(transport, |node| {
            nodes.push(node);
            true
        });
        let is_cut = search == Search::Cut;
        if is_cut && transport == Transport::Tcp {
            return self.give_up(ErrorCode::Other, "more Services than a wildcard may look at");
        }
        let start = scale(self.walk.turn, nodes.len() as u32);
        nodes.rotate_left(start as usize);
        for qtype in Pattern::types(self.query.qtype) {
            let mut seen = BTreeSet::new();
            let fits = nodes.iter().all(|&node| self.wild_records(node, qtype, &mut seen));
            if is_cut || !fits {
                return self.reply.set_truncated();
            }
            if !self.reply.is_empty() {
                return;
            }
        }
        self.negative(!nodes.is_empty());
    }

    /// Writes the records of `qtype` at `node` whose data is not yet in `seen`. Returns whether all
    /// records fit.
    fn wild_records(&mut self, node: Node<'w>, qtype: u16, seen: &mut BTreeSet<Vec<u8>>) -> bool {
        let (owner, walk) = (self.owner(), self.walk);
        walk.rrset(&node, qtype, &mut |record| {
            !seen.insert(record.rdata.concat())
                || self
                    .reply
                    .push(Section::Answer, owner, qtype, walk.ttl_secs, record.rdata)
                    .is_some()
        })
    }
}

fn is_wild(label: &[u8]) -> bool {
    matches!(label, b"*" | b"any")
}

/// The most Services or namespaces to look at for one datagram. If there are more, the client
/// retries over TCP, with an address that cannot be forged.
const LOOKS_UDP_MAX: usize = 1_024;
/// The same over TCP, where it costs some milliseconds.
const LOOKS_TCP_MAX: usize = 100_000;
