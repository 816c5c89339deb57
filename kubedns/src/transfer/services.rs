//! The records of one Service: at its name, at its ports' names, at its endpoints' names.
//!
//! Core. The same records as `answer` writes, in an order that does not turn; a property test holds
//! the two together.

use std::collections::BTreeSet;
use std::sync::Arc;

use shared::wire::rtype;

use super::zone::address;
use super::{Record, Rows};
use crate::answer::WEIGHT;
use crate::records::{Among, Entry, Group, Ports, Records, Shape};

/// The records of `entry`, whose name exists.
pub(super) fn rows<'r>(records: &'r Records, entry: &'r Entry) -> Rows<'r> {
    let owner: Arc<[u8]> = [entry.key(), &b"\x03svc"[..]].concat().into();
    let Some(service) = entry.service() else { return Box::new(std::iter::empty()) };
    let own: Rows<'r> = match &service.shape {
        Shape::ExternalName(target) => {
            let alias = Record::new(&owner, rtype::CNAME, &[target.wire()]);
            return Box::new(std::iter::once(alias));
        }
        Shape::ClusterIp(addresses) => {
            let owner = Arc::clone(&owner);
            Box::new(addresses.iter().map(move |&ip| address(&owner, ip)))
        }
        Shape::Headless => {
            let owner = Arc::clone(&owner);
            let all =
                [false, true].into_iter().flat_map(|v6| entry.addresses(v6, Among::All, |_| 0));
            Box::new(all.map(move |place| address(&owner, place.address())))
        }
    };
    let sets: Rows<'r> = if entry.is_headless() {
        let owner = Arc::clone(&owner);
        let groups = entry.groups(Among::All);
        Box::new(groups.flat_map(move |group| srv_of_group(records, entry, &owner, group)))
    } else {
        let sets = port_sets(std::iter::once(&service.ports)).into_iter();
        let below = Arc::clone(&owner);
        Box::new(sets.map(move |(labels, number)| {
            srv(records, entry, &[&labels, &below[..]].concat().into(), &[], number)
        }))
    };
    let endpoints = entry.distinct().map(move |place| {
        let owner = place.with_label(|label| [label, &owner[..]].concat().into());
        address(&owner, place.address())
    });
    Box::new(own.chain(sets).chain(endpoints))
}

/// What stands left of a Service in the name of an SRV record of its ports, in wire form, and the
/// number of the port: nothing for all of them, then those with a label; each once.
pub(super) fn port_sets<'p>(ports: impl Iterator<Item = &'p Ports>) -> Vec<(Vec<u8>, u16)> {
    let (mut all, mut labelled) = (BTreeSet::new(), BTreeSet::new());
    for port in ports.flat_map(Ports::iter) {
        all.insert(port.number);
        if !port.label.is_empty() {
            labelled.insert((port.label, port.protocol.label(), port.number));
        }
    }
    let labels = |(label, protocol, number): (&[u8], &[u8], u16)| {
        ([&[label.len() as u8], label, protocol].concat(), number)
    };
    let bare = all.into_iter().map(|number| (Vec::new(), number));
    bare.chain(labelled.into_iter().map(labels)).collect()
}

/// SRV of the labels of one group.
fn srv_of_group<'r>(
    records: &'r Records,
    entry: &'r Entry,
    owner: &Arc<[u8]>,
    group: Group<'r>,
) -> impl Iterator<Item = Record> + Send + use<'r> {
    let owner = Arc::clone(owner);
    port_sets(group.ports()).into_iter().flat_map(move |(labels, number)| {
        let owner: Arc<[u8]> = [&labels, &owner[..]].concat().into();
        group
            .round(0, group.labels())
            .map(move |place| place.with_label(|label| srv(records, entry, &owner, label, number)))
    })
}

/// One SRV record at `owner`, whose target is `label` and the Service's name.
fn srv(records: &Records, entry: &Entry, owner: &Arc<[u8]>, label: &[u8], number: u16) -> Record {
    let ([w1, w0], [n1, n0]) = (WEIGHT.to_be_bytes(), number.to_be_bytes());
    let services = records.zone().services();
    let rdata: &[&[u8]] = &[&[0, 0, w1, w0, n1, n0], label, entry.key(), services];
    Record::new(owner, rtype::SRV, rdata)
}
