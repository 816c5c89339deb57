//! The records at a name, each with the object it comes from.
//!
//! Core. The same rules as `answer`, spelt for people; a table test holds the two together.

use std::collections::BTreeMap;
use std::net::IpAddr;

use shared::wire::rtype;

use super::text;
use crate::name::{Text, dashed};
use crate::project::Kind;
use crate::records::{Among, Claim, Entry, Label, Node, Place, PortName, Records, Schema};

/// Type and data of a record, and its object.
pub(super) type Row = (String, String);

/// Rows, and how much there is beside them: what is made does not grow with the cluster.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// At most [`ROWS_MAX`].
    pub(super) rows: Vec<Row>,
    /// Endpoints and ports that were not looked at.
    pub(super) more: usize,
}

/// The records of `qtype` at `node`.
pub(super) fn at(records: &Records, node: Node<'_>, qtype: u16) -> Rows {
    let v6 = qtype == rtype::AAAA;
    let among = |entry, among| unique(all(entry, v6, among), address_row);
    match (node, qtype) {
        (Node::Service(entry), rtype::A | rtype::AAAA) if entry.is_headless() => {
            among(entry, Among::All)
        }
        (Node::Endpoint(entry, named), rtype::A | rtype::AAAA) => {
            unique(same(entry, named.of(v6)), address_row)
        }
        (Node::Zonal(entry, zone), rtype::A | rtype::AAAA) => among(entry, Among::Zone(zone)),
        (Node::Service(entry), rtype::SRV) => srv(records, entry, Among::All, PortName::Any),
        (Node::Zonal(entry, zone), rtype::SRV) => {
            srv(records, entry, Among::Zone(zone), PortName::Any)
        }
        (Node::Port(entry, port), rtype::SRV) => srv(records, entry, Among::All, port),
        (node, qtype) => Rows { rows: few(records, node, qtype), more: 0 },
    }
}

/// The records of `qtype` at a `node` that never has many.
fn few(records: &Records, node: Node<'_>, qtype: u16) -> Vec<Row> {
    let zone = records.zone();
    match (node, qtype) {
        (Node::Service(entry), rtype::A | rtype::AAAA) => {
            let own =
                entry.cluster_ips().iter().map(|&ip| (address_text(ip), service(records, entry)));
            own.filter(|row| is_type(&row.0, qtype)).collect()
        }
        (Node::Pod(address, verified), rtype::A | rtype::AAAA) => {
            let object = if verified { "a Pod with that address" } else { "the name itself" };
            let row = (address_text(address), object.to_owned());
            [row].into_iter().filter(|row| is_type(&row.0, qtype)).collect()
        }
        (Node::NameServer, rtype::A | rtype::AAAA) => {
            let rows = zone.name_server.iter().map(|&ip| (address_text(ip), CONFIG.to_owned()));
            rows.filter(|row| is_type(&row.0, qtype)).collect()
        }
        (Node::Reverse(address), rtype::PTR) => pointers(records, address),
        (Node::Version, rtype::TXT) => {
            let version = String::from_utf8_lossy(&zone.schema().version()[1..]);
            vec![(format!("TXT {version}"), ZONE.to_owned())]
        }
        (Node::Apex, rtype::NS) => {
            vec![(format!("NS ns.dns.{}", zone.apex()), ZONE.to_owned())]
        }
        (Node::Apex, rtype::SOA) => vec![(soa(records), ZONE.to_owned())],
        _ => Vec::new(),
    }
}

/// `Service shop/web`, or `ServiceImport shop/web` in a clusterset.
pub(super) fn service(records: &Records, entry: &Entry) -> String {
    let kind = kind(records);
    let (service, namespace) = entry.key().split_at(1 + usize::from(entry.key()[0]));
    format!("{kind} {}/{}", text(namespace), text(service))
}

/// What a Service of the zone is called in the API.
pub(super) fn kind(records: &Records) -> Kind {
    match records.zone().schema() {
        Schema::Cluster => Kind::Service,
        Schema::Clusterset => Kind::ServiceImport,
    }
}

fn srv(records: &Records, entry: &Entry, among: Among<'_>, wanted: PortName<'_>) -> Rows {
    let owner = format!("{}{}", Text(entry.key()), Text(records.zone().services()));
    if !entry.is_headless() {
        let ports = entry.service().into_iter().flat_map(|service| service.ports.iter());
        return unique(ports.filter(|&port| wanted.matches(port)), |port| {
            (format!("SRV 0 100 {} {owner}", port.number), service(records, entry))
        });
    }
    let places = [false, true].into_iter().flat_map(|v6| all(entry, v6, among));
    let ports = places.flat_map(|place| {
        let ports = place.held.slice.ports().iter().filter(move |&port| wanted.matches(port));
        ports.map(move |port| (place, port.number))
    });
    unique(ports, |(place, number)| {
        let label = place.with_label(|label| Text(label).to_string());
        (format!("SRV 0 100 {number} {label}{owner}"), slice(place))
    })
}

fn pointers(records: &Records, address: IpAddr) -> Vec<Row> {
    let row = |claim: &Claim<'_>, label: &[u8], object: String| {
        let services = Text(claim.zone.services());
        (format!("PTR {}{}{services}", Text(label), Text(claim.key)), object)
    };
    let claims = records.claims(address).filter_map(|claim| {
        let is_own = std::ptr::eq(claim.zone, records.zone());
        let records = if is_own { records } else { records.clusterset()? };
        let entry = records.entry(claim.key)?;
        let generated = dashed(address);
        Some(match claim.label {
            Label::None => row(&claim, &[], service(records, entry)),
            Label::Host(host) => {
                row(&claim, host, slice(at_address(records, entry, host, address)?))
            }
            Label::Generated => {
                let label = generated.wire();
                row(&claim, label, slice(at_address(records, entry, label, address)?))
            }
        })
    });
    claims.take(ROWS_MAX).collect()
}

fn soa(records: &Records) -> String {
    let zone = records.zone();
    let (apex, serial, ttl) = (zone.apex(), records.serial(), zone.ttl_secs);
    format!("SOA ns.dns.{apex} hostmaster.{apex} {serial} 7200 1800 86400 {ttl}")
}

/// The endpoint of `entry` with this label and this address.
fn at_address<'r>(
    records: &'r Records,
    entry: &'r Entry,
    label: &[u8],
    address: IpAddr,
) -> Option<Place<'r>> {
    let mut named = records.named(entry, label)?.of(address.is_ipv6());
    named.find(|place| place.address() == address)
}

/// Every published endpoint of one family that is meant, as often as it stands in slices.
fn all<'r>(entry: &'r Entry, v6: bool, among: Among<'r>) -> impl Iterator<Item = Place<'r>> {
    entry.places().filter(move |&place| place.is_v6() == v6 && among.has(place))
}

/// Every published endpoint that has an address and a label of `places`.
fn same<'r>(
    entry: &'r Entry,
    places: impl Iterator<Item = Place<'r>> + Clone,
) -> impl Iterator<Item = Place<'r>> {
    let is_same = |one: Place<'_>, other: Place<'_>| {
        one.address() == other.address()
            && one.with_label(|one| other.with_label(|other| one == other))
    };
    entry.places().filter(move |&place| places.clone().any(|other| is_same(place, other)))
}

fn address_row(place: Place<'_>) -> Row {
    (address_text(place.address()), slice(place))
}

fn address_text(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("A {address}"),
        IpAddr::V6(address) => format!("AAAA {address}"),
    }
}

fn is_type(row: &str, qtype: u16) -> bool {
    row.starts_with("AAAA ") == (qtype == rtype::AAAA)
}

fn slice(place: Place<'_>) -> String {
    format!("EndpointSlice {}", place.held.slice.name())
}

/// Each record of `items` once, as `row` writes it; the objects of a record that is in several of
/// them together. Rows beyond [`ROWS_MAX`], or after [`LOOKED_MAX`] items, are only counted.
fn unique<T>(items: impl Iterator<Item = T>, row: impl Fn(T) -> Row) -> Rows {
    let mut objects = BTreeMap::<String, Vec<String>>::new();
    let (mut looked, mut more) = (0, 0);
    for item in items {
        if objects.len() == ROWS_MAX || looked == LOOKED_MAX {
            more += 1;
            continue;
        }
        looked += 1;
        let (record, object) = row(item);
        let of_record = objects.entry(record).or_default();
        if !of_record.contains(&object) {
            of_record.push(object);
        }
    }
    let rows = objects.into_iter().map(|(record, objects)| (record, objects.join(" and ")));
    Rows { rows: rows.collect(), more }
}

/// More records than this nobody reads.
pub(super) const ROWS_MAX: usize = 200;
/// Endpoints and ports that are written as text: those of several slices may repeat a record.
const LOOKED_MAX: usize = 1_000;

const ZONE: &str = "the zone itself";
const CONFIG: &str = "the configuration";
