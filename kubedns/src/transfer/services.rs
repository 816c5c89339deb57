//! The records of one Service: at its name, at its ports' names, at its endpoints' names.
//!
//! Core. The same records as `answer` writes, in an order that does not turn; a property test holds
//! the two together.

use std::sync::Arc;

use shared::wire::rtype;

use super::zone::address;
use super::{Record, Rows};
use crate::answer::{WEIGHT, Wanted, numbers, srv_at};
use crate::records::{Among, Entry, Place, Port, PortName, Protocol, Records, Service, Shape};

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
            let first = places(entry)
                .filter(|&place| records.is_first_with_address(entry, Among::All, place));
            let owner = Arc::clone(&owner);
            Box::new(first.map(move |place| address(&owner, place.address())))
        }
    };
    let named = port_names(entry, service).into_iter().map({
        let owner = Arc::clone(&owner);
        move |(label, protocol)| {
            let labels: [&[u8]; 4] = [&[label.len() as u8], label, protocol.label(), &owner[..]];
            (labels.concat().into(), PortName::Named(label, protocol))
        }
    });
    let sets = std::iter::once((Arc::clone(&owner), PortName::Any)).chain(named);
    let sets = sets.flat_map(move |(owner, port)| srv(records, entry, owner, port));
    let endpoints = places(entry).filter_map(move |place| {
        let is_first =
            |label: &[u8]| records.is_first_with_both(entry, place, label).then(|| label.into());
        let label: Box<[u8]> = place.with_label(is_first)?;
        Some(address(&[&label, &owner[..]].concat().into(), place.address()))
    });
    Box::new(own.chain(sets).chain(endpoints))
}

/// Every published endpoint.
pub(super) fn places(entry: &Entry) -> impl Iterator<Item = Place<'_>> + Send {
    entry.around(false, 0).chain(entry.around(true, 0))
}

/// The label and protocol of each port that has a label, once.
pub(super) fn port_names<'r>(entry: &'r Entry, service: &'r Service) -> Vec<(&'r [u8], Protocol)> {
    let mut names = Vec::new();
    let mut add = |port: Port<'r>| {
        let name = (port.label, port.protocol);
        if !port.label.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    };
    if entry.is_headless() {
        let published = entry.slices().filter(|held| held.published > 0);
        published.flat_map(|held| held.slice.ports().iter()).for_each(&mut add);
    } else {
        service.ports.iter().for_each(&mut add);
    }
    names
}

/// SRV of the ports that are `wanted`, at `owner`.
fn srv<'r>(
    records: &'r Records,
    entry: &'r Entry,
    owner: Arc<[u8]>,
    wanted: PortName<'r>,
) -> Rows<'r> {
    let row = move |owner: &Arc<[u8]>, label: &[u8], number: u16| {
        let ([w1, w0], [n1, n0]) = (WEIGHT.to_be_bytes(), number.to_be_bytes());
        let services = records.zone().services();
        let rdata: &[&[u8]] = &[&[0, 0, w1, w0, n1, n0], label, entry.key(), services];
        Record::new(owner, rtype::SRV, rdata)
    };
    if !entry.is_headless() {
        let ports = entry.service().map(|service| service.ports.iter());
        let numbers = ports.into_iter().flat_map(move |ports| numbers(ports, wanted));
        return Box::new(numbers.map(move |number| row(&owner, &[], number)));
    }
    Box::new(places(entry).flat_map(move |place| {
        let mut rows = Vec::new();
        srv_at(records, entry, place, Wanted::of_all(wanted), |label, number, _| {
            rows.push(row(&owner, label, number));
            true
        });
        rows
    }))
}
