//! The records of each zone, from SOA to SOA.
//!
//! Core. Leaves out what is made up when it is asked for: pod names of addresses nobody has seen,
//! wildcards and topology zones.

use std::net::IpAddr;
use std::sync::Arc;

use shared::wire::rtype;

use super::{Apex, Record, Rows, services};
use crate::answer::{HOSTMASTER, NS, soa_numbers};
use crate::name::{IN_ADDR_ARPA, IP6_ARPA, dashed, reverse};
use crate::records::{Label, PodMode, Records};

/// Every record of the zone at `apex`, its SOA first and last (RFC 5936 section 2.2).
pub fn records(records: &Records, apex: Apex) -> Rows<'_> {
    let Some(records) = apex.zone(records) else { return Box::new(std::iter::empty()) };
    let zone = records.zone();
    let root: Arc<[u8]> = Arc::default();
    let domain = zone.apex().wire();
    let numbers = soa_numbers(records.serial(), records.ttl_secs());
    let soa = Record::new(&root, rtype::SOA, &[NS, domain, HOSTMASTER, domain, &numbers]);
    let head = [soa.clone(), Record::new(&root, rtype::NS, &[NS, domain])];
    let body: Rows<'_> = match apex {
        Apex::Cluster | Apex::Clusterset => {
            let entries = records.entries().filter(|entry| entry.exists(records.zone()));
            let services = entries.flat_map(|entry| services::rows(records, entry));
            Box::new(own(records).into_iter().chain(services).chain(pods(records)))
        }
        Apex::V4 => pointers(records, false),
        Apex::V6 => pointers(records, true),
    };
    Box::new(head.into_iter().chain(body).chain([soa]))
}

/// The name server's addresses and the version.
fn own(records: &Records) -> Vec<Record> {
    let (name_server, version) = (Arc::from(NS), Arc::from(*b"\x0bdns-version"));
    let mut own: Vec<Record> =
        records.zone().name_server.iter().map(|&ip| address(&name_server, ip)).collect();
    own.push(Record::new(&version, rtype::TXT, &[records.zone().schema().version()]));
    own
}

/// Pods that are known to exist.
fn pods(records: &Records) -> impl Iterator<Item = Record> + Send {
    let verified = records.zone().pods == PodMode::Verified;
    let pods = verified.then(|| records.pod_addresses()).into_iter().flatten();
    pods.map(|(namespace, ip)| {
        let owner = [dashed(ip).wire(), namespace, b"\x03pod"].concat().into();
        address(&owner, ip)
    })
}

/// PTR of every address of one family.
fn pointers(records: &Records, v6: bool) -> Rows<'_> {
    let suffix = if v6 { IP6_ARPA } else { IN_ADDR_ARPA };
    let rows = move |ip: IpAddr| {
        let (name, generated) = (reverse(ip), dashed(ip));
        let owner: Arc<[u8]> = name.wire()[..name.wire().len() - suffix.len()].into();
        let pointer = |claim: crate::records::Claim<'_>| {
            let label = match claim.label {
                Label::None => &[],
                Label::Host(host) => host,
                Label::Generated => generated.wire(),
            };
            Record::new(&owner, rtype::PTR, &[label, claim.key, claim.zone.services()])
        };
        records.claims(ip).map(pointer).collect::<Vec<_>>()
    };
    Box::new(records.named_addresses(v6).flat_map(rows))
}

/// A or AAAA.
pub(super) fn address(owner: &Arc<[u8]>, address: IpAddr) -> Record {
    match address {
        IpAddr::V4(address) => Record::new(owner, rtype::A, &[&address.octets()]),
        IpAddr::V6(address) => Record::new(owner, rtype::AAAA, &[&address.octets()]),
    }
}
