//! The names of each zone, and their records from SOA to SOA.
//!
//! Core. Leaves out names that are only made for a query: pod names of unverified addresses,
//! wildcards and topology zones. Does not know which records a name has.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Apex, Record, Rows};
use crate::name::{IN_ADDR_ARPA, IP6_ARPA, dashed, reverse};
use crate::records::{Entry, NS, Node, PodMode, PortName, Records, Shape, TYPES, Walk};

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
                rows.push(Record { owner: Arc::clone(&owner), rtype, rdata });
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
        Apex::Cluster | Apex::Clusterset => {
            let own = own(NS, Node::NameServer).chain(own(b"\x0bdns-version", Node::Version));
            let entries = records.entries().filter(|entry| entry.exists(records.zone()));
            Box::new(root.chain(own).chain(entries.flat_map(of_service)).chain(pods(records)))
        }
        Apex::V4 => Box::new(root.chain(pointers(records, false))),
        Apex::V6 => Box::new(root.chain(pointers(records, true))),
    }
}

/// The name of a Service, of its ports, and of its endpoints.
fn of_service(entry: &Entry) -> Names<'_> {
    let own: Arc<[u8]> = [entry.key(), &b"\x03svc"[..]].concat().into();
    if let Some(Shape::ExternalName(target)) = entry.service().map(|service| &service.shape) {
        return Box::new(std::iter::once((own, Node::Alias(entry, target))));
    }
    let mut ports = BTreeSet::new();
    entry.port_lists().all(|list| {
        let labelled = list.iter().filter(|port| !port.label.is_empty());
        ports.extend(labelled.map(|port| (port.label, port.protocol)));
        true
    });
    let service = std::iter::once((Arc::clone(&own), Node::Service(entry)));
    let below = Arc::clone(&own);
    let ports = ports.into_iter().map(move |(label, protocol)| {
        let owner = [&[label.len() as u8], label, protocol.label(), &below].concat().into();
        (owner, Node::Port(entry, PortName::Named(label, protocol)))
    });
    let endpoints = entry.all_named().map(move |named| {
        let owner = named.first().with_label(|label| [label, &own].concat().into());
        (owner, Node::Endpoint(entry, named))
    });
    Box::new(service.chain(ports).chain(endpoints))
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
