//! The names of each zone, and their records from SOA to SOA.
//!
//! Core. Leaves out names that are only made for a query: pod names of unverified addresses,
//! wildcards and topology zones. Does not know which records a name has.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Apex, Record, Rows};

use crate::name::{IN_ADDR_ARPA, IP6_ARPA, dashed, reverse};
use crate::records::{
    Entry, Node, PodMode, PortName, Protocol, Records, Schema, Shape, TYPES, Walk,
};
use crate::skydns::{Place, path_of_name};

/// A name that owns records: its labels left of the apex, in wire form, and its node.
type Named<'r> = (Arc<[u8]>, Node<'r>);
type Names<'r> = Box<dyn Iterator<Item = Named<'r>> + Send + 'r>;

/// Returns every record of the zone at `apex`, its SOA first and last (RFC 5936 section 2.2).
pub fn records(records: &Records, apex: Apex) -> Rows<'_> {
    let Some(zone) = apex.zone(records) else { return Box::new(std::iter::empty()) };
    let walk = Walk::whole(zone);
    let rows = move |(owner, node): Named<'_>| {
        let mut rows = Vec::new();
        for rtype in TYPES {
            walk.rrset(&node, rtype, &mut |record| {
                let rdata = record.rdata.concat().into();
                let ttl_secs = walk.ttl_of(&record);
                rows.push(Record { owner: Arc::clone(&owner), rtype, ttl_secs, rdata });
                true
            });
        }
        rows
    };
    let soa = rows((Arc::default(), Node::Apex)).into_iter().take(1);
    Box::new(names(records, apex).flat_map(rows).chain(soa))
}

/// Returns every name of the zone at `apex` that owns records, the apex first.
pub(super) fn names(records: &Records, apex: Apex) -> Names<'_> {
    let Some(records) = apex.zone(records) else { return Box::new(std::iter::empty()) };
    let own = |labels: &[u8], node| std::iter::once((labels.into(), node));
    let root = own(&[], Node::Apex);
    match apex {
        _ if records.zone().is_keyed() => keyed(records),
        _ if matches!(records.zone().schema(), Schema::External { .. }) => {
            let own = own(records.zone().ns(), Node::NameServer);
            Box::new(root.chain(own).chain(records.entries().flat_map(|it| outside(records, it))))
        }
        Apex::Cluster | Apex::Clusterset | Apex::View(_) => {
            let own = own(records.zone().ns(), Node::NameServer)
                .chain(own(b"\x0bdns-version", Node::Version));
            let entries = records.entries().filter(|entry| entry.exists(records.zone()));
            let services = entries.flat_map(|entry| of_service(records, entry));
            Box::new(root.chain(own).chain(services).chain(pods(records)))
        }
        Apex::V4 => Box::new(root.chain(pointers(records, false))),
        Apex::V6 => Box::new(root.chain(pointers(records, true))),
    }
}

/// The names of a zone of keys. Names with many messages below them are left out: each of these
/// messages is at a name below as well.
fn keyed(records: &Records) -> Names<'_> {
    let mut names = vec![(Arc::default(), Node::Apex)];
    let apex = records.zone().apex().wire();
    let path = path_of_name(apex);
    if let Some(place) = records.keys().tree.get(&path) {
        below(place, &[], &mut names);
    }
    if !names.iter().any(|(owner, _)| **owner == *records.zone().ns()) {
        names.push((records.zone().ns().into(), Node::NameServer));
    }
    Box::new(names.into_iter())
}

fn below<'r>(place: &'r Place, owner: &[u8], names: &mut Vec<Named<'r>>) {
    for (label, place) in place.children() {
        let owner = [&[label.len() as u8], label, owner].concat();
        if !place.is_many() {
            names.push((owner.clone().into(), Node::Key(place)));
        }
        below(place, &owner, names);
    }
}

/// The name of a Service, of its ports, and of its endpoints.
fn of_service<'r>(records: &Records, entry: &'r Entry) -> Names<'r> {
    let own: Arc<[u8]> = [entry.key(), &b"\x03svc"[..]].concat().into();
    if let Some(Shape::ExternalName(target)) = entry.service().map(|service| &service.shape) {
        return Box::new(std::iter::once((own, Node::Alias(entry, target))));
    }
    let service = std::iter::once((Arc::clone(&own), Node::Service(entry)));
    let room = records.zone().room_for_port(entry.key());
    let below = (Arc::clone(&own), room);
    let ports = ports(labels(entry), below).map(|(owner, port)| (owner, Node::Port(entry, port)));
    Box::new(service.chain(ports).chain(endpoints(entry, own)))
}

/// The labels and protocols of ports that have a name.
type PortLabels<'r> = BTreeSet<(&'r [u8], Protocol)>;

/// Those of all ports of a Service, or of its endpoints if it is headless.
fn labels(entry: &Entry) -> PortLabels<'_> {
    let mut labels = BTreeSet::new();
    entry.port_lists().all(|list| {
        labels.extend(list.iter().map(|port| (port.label, port.protocol)));
        true
    });
    labels
}

/// The names of ports below a name, as far as they fit into `room` bytes.
fn ports<'r>(
    labels: PortLabels<'r>,
    (below, room): (Arc<[u8]>, usize),
) -> impl Iterator<Item = (Arc<[u8]>, PortName<'r>)> + Send + 'r {
    let has_name = move |(label, protocol): &(&[u8], Protocol)| {
        !label.is_empty() && 1 + label.len() + protocol.label().len() <= room
    };
    labels.into_iter().filter(has_name).map(move |(label, protocol)| {
        let owner = [&[label.len() as u8], label, protocol.label(), &below].concat().into();
        (owner, PortName::Named(label, protocol))
    })
}

fn endpoints(entry: &Entry, own: Arc<[u8]>) -> impl Iterator<Item = Named<'_>> + Send {
    entry.all_named().map(move |named| {
        let owner = named.first().with_label(|label| [label, &own].concat().into());
        (owner, Node::Endpoint(entry, named))
    })
}

/// The names of a Service in a zone of external addresses.
fn outside<'r>(records: &Records, entry: &'r Entry) -> Names<'r> {
    let own: Arc<[u8]> = Arc::clone(entry.key());
    let below = (Arc::clone(&own), records.zone().room_for_port(entry.key()));
    if let (Some(external), Some(service)) = (entry.external(), entry.service()) {
        let node = match (external.addresses.first(), external.hosts.first()) {
            (None, Some(host)) => Node::Alias(entry, host),
            _ => Node::External(entry, PortName::Any),
        };
        let labels = service.ports.iter().map(|port| (port.label, port.protocol)).collect();
        let ports = ports(labels, below);
        let ports = ports.map(|(owner, port)| (owner, Node::External(entry, port)));
        return Box::new(std::iter::once((own, node)).chain(ports));
    }
    let is_headless = records.zone().schema() == Schema::External { headless: true };
    if !is_headless || entry.service().is_none() || entry.published() == 0 {
        return Box::new(std::iter::empty());
    }
    let endpoints = endpoints(entry, Arc::clone(&own));
    if !entry.is_headless() {
        return Box::new(endpoints);
    }
    let ports = ports(labels(entry), below).map(|(owner, port)| (owner, Node::Port(entry, port)));
    Box::new(std::iter::once((own, Node::Service(entry))).chain(ports).chain(endpoints))
}

/// Returns the pods that are known to exist.
fn pods(records: &Records) -> impl Iterator<Item = Named<'_>> + Send {
    let is_verified = records.zone().pods == PodMode::Verified;
    let pods = is_verified.then(|| records.pod_addresses()).into_iter().flatten();
    pods.map(|(namespace, address)| {
        let owner = [dashed(address).wire(), namespace, b"\x03pod"].concat().into();
        (owner, Node::Pod(address, true))
    })
}

/// Returns the reverse name of every address of one family that points to a name.
fn pointers(records: &Records, v6: bool) -> impl Iterator<Item = Named<'_>> + Send {
    let suffix = if v6 { IP6_ARPA } else { IN_ADDR_ARPA };
    records.named_addresses(v6).map(move |address| {
        let name = reverse(address);
        let owner = name.wire()[..name.wire().len() - suffix.len()].into();
        (owner, Node::Reverse(address))
    })
}
