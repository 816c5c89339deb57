//! The records at a name as text, each with the objects it is derived from.
//!
//! Core. Does not know which records a name has.

use std::net::{Ipv4Addr, Ipv6Addr};

use shared::mnemonics::type_name;
use shared::name::{Text, bare};
use shared::wire::{name_end, rtype};

use crate::project::Kind;
use crate::records::{
    Among, Entry, Node, Origin, Place, PortName, Record, Records, Schema, Walk, Zone,
};
use crate::skydns::Message;

/// Type and data of a record, and its object.
pub(super) type Row = (String, String);

/// Rows, and how many are left out, so that the output does not grow with the cluster.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// At most [`ROWS_MAX`].
    pub(super) rows: Vec<Row>,
    /// How many more records exist.
    pub(super) more: usize,
    /// TTL of the records in seconds, if it is not that of the zone.
    pub(super) ttl_secs: Option<u32>,
}

/// Returns the records of `qtype` at `node`.
pub(super) fn at(records: &Records, node: Node<'_>, qtype: u16) -> Rows {
    let mut rows = Rows::default();
    let walk = Walk::whole(records);
    walk.rrset(&node, qtype, &mut |record| {
        rows.ttl_secs = Some(walk.ttl_of(&record));
        if rows.rows.len() < ROWS_MAX {
            let rdata = record.rdata.concat();
            rows.rows.push((record_text(qtype, &rdata), object(records, node, &record)));
        } else {
            rows.more += 1;
        }
        true
    });
    rows
}

/// Returns a record in master-file form, without owner and TTL. `rdata` must be valid for its type.
fn record_text(rtype: u16, rdata: &[u8]) -> String {
    let rtype_text = type_name(rtype);
    let number = |at: usize| u16::from_be_bytes([rdata[at], rdata[at + 1]]);
    match rtype {
        rtype::SRV => {
            let [priority, weight, port] = [0, 2, 4].map(number);
            format!("{rtype_text} {priority} {weight} {port} {}", Text(&rdata[6..]))
        }
        rtype::MX => format!("{rtype_text} {} {}", number(0), Text(&rdata[2..])),
        rtype::TXT => {
            let parts = shared::wire::labels(rdata).map(String::from_utf8_lossy);
            format!("{rtype_text} {}", parts.collect::<Vec<_>>().join(" "))
        }
        rtype::SOA => {
            let names = [0, name_end(rdata, 0).unwrap_or_default()];
            let (names, rest) = (names.map(|at| Text(&rdata[at..])), &rdata[rdata.len() - 20..]);
            let numbers = rest.chunks_exact(4).map(|bytes| {
                let high_first = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
                format!(" {}", bytes.iter().fold(0, high_first))
            });
            format!("{rtype_text} {} {}{}", names[0], names[1], numbers.collect::<String>())
        }
        _ => match (<[u8; 4]>::try_from(rdata), <[u8; 16]>::try_from(rdata)) {
            (Ok(address), _) if rtype == rtype::A => {
                format!("{rtype_text} {}", Ipv4Addr::from(address))
            }
            (_, Ok(address)) if rtype == rtype::AAAA => {
                format!("{rtype_text} {}", Ipv6Addr::from(address))
            }
            _ => format!("{rtype_text} {}", Text(rdata)),
        },
    }
}

/// Returns the object that `record` at `node` is derived from, or several if slices repeat an
/// endpoint.
fn object(records: &Records, node: Node<'_>, record: &Record<'_>) -> String {
    match record.origin {
        Origin::Zone => "the zone itself".to_owned(),
        Origin::Configuration => "the configuration".to_owned(),
        Origin::Federations => "the key federations, and Nodes".to_owned(),
        Origin::Pod(true) => "a Pod with that address".to_owned(),
        Origin::Pod(false) => "the name itself".to_owned(),
        Origin::Service(zone, entry) => service(zone, entry),
        Origin::Key(row) => key(records, &row.message),
        Origin::Endpoint(entry, place) => {
            let mut slices: Vec<String> = Vec::new();
            for other in entry.places().filter(|&other| gives(node, record, (place, other))) {
                let slice = format!("EndpointSlice {}", other.held.slice.name());
                if !slices.contains(&slice) {
                    slices.push(slice);
                }
            }
            slices.join(" and ")
        }
    }
}

/// Returns the key of etcd and the revision that wrote it.
pub(super) fn key(records: &Records, message: &Message) -> String {
    format!("etcd key {} of revision {}", records.keys().key(message.path()), message.revision)
}

/// Returns whether endpoint `other` has the same `record` as endpoint `place`.
fn gives(node: Node<'_>, record: &Record<'_>, (place, other): (Place<'_>, Place<'_>)) -> bool {
    if let (rtype::SRV, &[_, _, _, _, n1, n0]) = (record.rtype, record.rdata[0]) {
        let wanted = if let Node::Port(_, wanted) = node { wanted } else { PortName::Any };
        let is_same = |port| wanted.matches(port) && port.number == u16::from_be_bytes([n1, n0]);
        return other.has_label_of(place) && other.held.slice.ports().iter().any(is_same);
    }
    let is_of_endpoint = matches!(node, Node::Endpoint(..) | Node::Reverse(_));
    other.address() == place.address()
        && (!is_of_endpoint || other.has_label_of(place))
        && if let Node::Zonal(_, zone) = node { Among::Zone(zone).has(other) } else { true }
}

/// Returns `Service shop/web`, or `ServiceImport shop/web` in a clusterset.
pub(super) fn service(zone: &Zone, entry: &Entry) -> String {
    let (service, namespace) = entry.key().split_at(1 + usize::from(entry.key()[0]));
    format!("{} {}/{}", kind(zone), bare(namespace), bare(service))
}

/// Returns the kind of a Service of the zone in the API.
pub(super) fn kind(zone: &Zone) -> Kind {
    match zone.schema() {
        Schema::Cluster | Schema::External { .. } | Schema::Skydns { .. } => Kind::Service,
        Schema::Clusterset => Kind::ServiceImport,
    }
}

/// The most records on a page.
pub(super) const ROWS_MAX: usize = 200;
