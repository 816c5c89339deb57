//! The records at a name: the one walk over its RRsets, in order, with the origin of each record.
//!
//! Core. The only place that decides which records a name has: replies, zone transfers, counts and
//! explanations visit what this file walks over. It does not allocate. The cost of a walk depends
//! on what it visits, not on how many endpoints a Service has.

use std::net::IpAddr;

use shared::wire::rtype;

use super::ports::{Numbers, PortLists};
use super::{Among, Claim, Entry, Federated, Node, Place, PortName, Records, Zone};
use crate::skydns::{self, Row};

/// The input of a walk besides the name and the type.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'w> {
    /// The records of the zone that the name is in.
    pub records: &'w Records,
    /// Selects the first record of a Service: neighbouring turns begin far apart. Turn 0 begins
    /// with the first record.
    pub turn: u32,
    /// The compression pointer to the apex that ends names in the data of SOA and NS; `None` to
    /// write the apex in full.
    pub apex: Option<[u8; 2]>,
    /// TTL of all records, in seconds: MINIMUM of the SOA record as well.
    pub ttl_secs: u32,
}

/// A record that a walk visits. Its owner is the name that is walked; its class is IN.
#[derive(Clone, Copy, Debug)]
pub struct Record<'r> {
    /// Its type.
    pub rtype: u16,
    /// Parts whose concatenation is its data. Names in it are written in full, except for the apex
    /// of the walk.
    pub rdata: &'r [&'r [u8]],
    /// The object that it is derived from.
    pub origin: Origin<'r>,
}

/// The target of SRV records.
#[derive(Clone, Copy, Debug)]
pub enum Target<'r> {
    /// The Service itself, which is the target of all records at a name.
    Service(&'r Entry),
    /// The Service in a zone of external addresses: that of all records at a name.
    External(&'r Entry),
    /// An endpoint of the Service: that of so many records, which are next to each other.
    Endpoint(&'r Entry, Place<'r>, usize),
}

/// The origin of a record.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'r> {
    /// The zone itself.
    Zone,
    /// The configuration.
    Configuration,
    /// The federations and the Nodes.
    Federations,
    /// A pod, and whether it is known to exist.
    Pod(bool),
    /// The Service of this zone.
    Service(&'r Zone, &'r Entry),
    /// An endpoint of the Service. If slices repeat an endpoint, this is one of them.
    Endpoint(&'r Entry, Place<'r>),
    /// A message of etcd.
    Key(&'r Row),
}

impl<'w> Walk<'w> {
    /// Returns a walk over all records of `records`, from the first, with names in full.
    pub fn whole(records: &'w Records) -> Self {
        Self { records, turn: 0, apex: None, ttl_secs: records.ttl_secs() }
    }

    /// Visits the records of type `rtype` at `node` until `visit` returns `false`. Returns whether
    /// it never did.
    #[inline]
    pub fn rrset(
        &self,
        node: &Node<'_>,
        rtype: u16,
        visit: &mut impl FnMut(Record<'_>) -> bool,
    ) -> bool {
        match (*node, rtype) {
            (Node::Service(entry), rtype::A | rtype::AAAA) if entry.is_headless() => {
                self.endpoints(entry, Among::All, rtype, visit)
            }
            (Node::Service(entry), rtype::A | rtype::AAAA) => {
                let origin = Origin::Service(self.records.zone(), entry);
                addresses(entry.cluster_ips(), rtype, origin, visit)
            }
            (Node::Endpoint(entry, named), rtype::A | rtype::AAAA) => {
                named.each(rtype == rtype::AAAA, |place| address(entry, place, rtype, visit))
            }
            (Node::Zonal(entry, zone), rtype::A | rtype::AAAA) => {
                self.endpoints(entry, Among::Zone(zone), rtype, visit)
            }
            (Node::External(entry, PortName::Any), rtype::A | rtype::AAAA) => {
                let own = entry.external().map_or(&[][..], |external| &external.addresses);
                addresses(own, rtype, Origin::Service(self.records.zone(), entry), visit)
            }
            (Node::Key(_), rtype::NS) => true, // only the apex has them
            (Node::Key(place), _) => self.keyed(place, rtype, visit),
            (Node::External(entry, wanted), rtype::SRV) => self.external_srv(entry, wanted, visit),
            (_, rtype::SRV) => self.srv(node, visit),
            (Node::Reverse(address), rtype::PTR) => {
                self.records.claims(address).all(|claim| pointer(&claim, visit))
            }
            (Node::Pod(address, is_known), _) => {
                addresses(&[address], rtype, Origin::Pod(is_known), visit)
            }
            (Node::NameServer, _) => self.name_server(rtype, visit),
            (_, rtype::CNAME) => self.alias(node, visit),
            (Node::Apex | Node::Version, _) => self.of_zone(node, rtype, visit),
            _ => true,
        }
    }

    /// Visits the targets of the SRV records at `node`, in the order of the records, until `visit`
    /// returns `false`. There must be at least one such record. Returns whether it never did.
    pub fn targets(&self, node: &Node<'_>, visit: &mut impl FnMut(Target<'_>) -> bool) -> bool {
        match *node {
            Node::Service(entry) | Node::Port(entry, _) if !entry.is_headless() => {
                visit(Target::Service(entry))
            }
            Node::External(entry, _) => {
                let has_address = entry.external().is_some_and(|it| !it.addresses.is_empty());
                !has_address || visit(Target::External(entry))
            }
            _ => self.each_target(node, &mut |entry, place, numbers| {
                place.is_none_or(|place| visit(Target::Endpoint(entry, place, numbers.len())))
            }),
        }
    }

    /// Visits the addresses of the zone's name server.
    fn name_server(&self, rtype: u16, visit: &mut impl FnMut(Record<'_>) -> bool) -> bool {
        let zone = self.records.zone();
        let service = zone.name_service.as_ref().and_then(|key| self.records.entry(key));
        match service.filter(|entry| !entry.cluster_ips().is_empty()) {
            Some(entry) => {
                addresses(entry.cluster_ips(), rtype, Origin::Service(zone, entry), visit)
            }
            None => addresses(&zone.name_server, rtype, Origin::Configuration, visit),
        }
    }

    /// Visits SOA and NS of the apex, TXT of the version.
    fn of_zone(
        &self,
        node: &Node<'_>,
        rtype: u16,
        visit: &mut impl FnMut(Record<'_>) -> bool,
    ) -> bool {
        let zone = self.records.zone();
        let apex = self.apex.as_ref().map_or(zone.apex().wire(), |pointer| pointer);
        let numbers;
        let rdata: &[&[u8]] = match (*node, rtype) {
            (Node::Apex, rtype::SOA) => {
                numbers = soa_numbers(self.records.serial(), self.ttl_secs);
                &[&zone.ns, apex, &zone.hostmaster, apex, &numbers]
            }
            (Node::Apex, rtype::NS) => {
                let named = |place: &&_| zone.is_keyed() && has_names(place);
                match self.records.apex_place(rtype).filter(named) {
                    Some(place) => return self.keyed(place, rtype, visit),
                    None => &[&zone.ns, apex],
                }
            }
            (Node::Version, rtype::TXT) => &[zone.schema().version()],
            _ => return true,
        };
        visit(Record { rtype, rdata, origin: Origin::Zone })
    }

    /// Visits the CNAME of an ExternalName Service, or of a name of a federation if the locality of
    /// this cluster is known.
    fn alias(&self, node: &Node<'_>, visit: &mut impl FnMut(Record<'_>) -> bool) -> bool {
        let (rtype, zone) = (rtype::CNAME, self.records.zone());
        let (rdata, origin): (&[&[u8]], _) = match *node {
            Node::Alias(entry, target) => (&[target.wire()], Origin::Service(zone, entry)),
            Node::Federated(Federated::Here(entry)) => {
                (&[entry.key(), zone.services()], Origin::Service(zone, entry))
            }
            Node::Federated(Federated::Away(labels, suffix)) => {
                (&[labels, suffix.wire()], Origin::Federations)
            }
            _ => return true,
        };
        visit(Record { rtype, rdata, origin })
    }

    /// Visits the addresses of the endpoints in `among`, each once (DNS specification section
    /// 2.4.1).
    fn endpoints(
        &self,
        entry: &Entry,
        among: Among<'_>,
        rtype: u16,
        visit: &mut impl FnMut(Record<'_>) -> bool,
    ) -> bool {
        let scale = |count| scale(self.turn, count);
        let mut round = entry.addresses(rtype == rtype::AAAA, among, scale);
        round.all(|place| address(entry, place, rtype, visit))
    }

    /// Visits SRV (DNS specification sections 2.3.2 and 2.4.2): a record for each target and port.
    fn srv(&self, node: &Node<'_>, visit: &mut impl FnMut(Record<'_>) -> bool) -> bool {
        let zone = self.records.zone();
        self.each_target(node, &mut |entry, place, numbers| {
            let mut each = |label: &[u8], origin| {
                numbers.each(|number| {
                    let ([w1, w0], [n1, n0]) = (WEIGHT.to_be_bytes(), number.to_be_bytes());
                    let rdata: &[&[u8]] =
                        &[&[0, 0, w1, w0, n1, n0], label, entry.key(), zone.services()];
                    visit(Record { rtype: rtype::SRV, rdata, origin })
                })
            };
            match place {
                None => each(&[], Origin::Service(zone, entry)),
                Some(place) => {
                    place.with_label(|label| each(label, Origin::Endpoint(entry, place)))
                }
            }
        })
    }

    /// Visits the targets at `node` and the ports of each: the Service itself or, if it is
    /// headless, each label of its endpoints once.
    fn each_target<'n>(
        &self,
        node: &Node<'n>,
        visit: &mut impl FnMut(&'n Entry, Option<Place<'n>>, &Numbers<'n>) -> bool,
    ) -> bool {
        let (entry, among, wanted) = match *node {
            Node::Service(entry) => (entry, Among::All, PortName::Any),
            Node::Port(entry, wanted) => (entry, Among::All, wanted),
            Node::Zonal(entry, zone) => (entry, Among::Zone(zone), PortName::Any),
            _ => return true,
        };
        if !entry.is_headless() {
            let Some(service) = entry.service() else { return true };
            let numbers = Numbers::of(PortLists::One(&service.ports), wanted);
            return numbers.is_empty() || visit(entry, None, &numbers);
        }
        let all: u32 = entry.groups(among).map(|group| group.labels()).sum();
        let start = scale(self.turn, all);
        [start..all, 0..start].into_iter().all(|positions| {
            let mut before = 0;
            entry.groups(among).all(|group| {
                let (first, end) = (before, before + group.labels());
                before = end;
                let part = positions.start.max(first)..positions.end.min(end);
                if part.is_empty() {
                    return true;
                }
                let numbers = Numbers::of(group.ports(), wanted);
                let mut round = group.round(part.start - first, part.end - first);
                numbers.is_empty() || round.all(|place| visit(entry, Some(place), &numbers))
            })
        })
    }
}

/// Returns whether name servers of a zone of keys are at `place`.
fn has_names(place: &skydns::Place) -> bool {
    !place.rows().of_type(rtype::NS).is_empty()
}

/// Visits those of `addresses` that are of the family of `rtype`.
fn addresses(
    addresses: &[IpAddr],
    rtype: u16,
    origin: Origin<'_>,
    visit: &mut impl FnMut(Record<'_>) -> bool,
) -> bool {
    addresses.iter().all(|address| match address {
        IpAddr::V4(address) if rtype == rtype::A => {
            visit(Record { rtype, rdata: &[&address.octets()], origin })
        }
        IpAddr::V6(address) if rtype == rtype::AAAA => {
            visit(Record { rtype, rdata: &[&address.octets()], origin })
        }
        _ => true,
    })
}

/// Visits the address of an endpoint, which must be of the family of `rtype`.
#[inline]
fn address(
    entry: &Entry,
    place: Place<'_>,
    rtype: u16,
    visit: &mut impl FnMut(Record<'_>) -> bool,
) -> bool {
    visit(Record { rtype, rdata: &[place.rdata()], origin: Origin::Endpoint(entry, place) })
}

/// Visits PTR (DNS specification sections 2.3.3 and 2.4.3).
fn pointer(claim: &Claim<'_>, visit: &mut impl FnMut(Record<'_>) -> bool) -> bool {
    let Claim { zone, entry, place } = *claim;
    let mut point = |label: &[u8], origin| {
        visit(Record { rtype: rtype::PTR, rdata: &[label, entry.key(), zone.services()], origin })
    };
    match place {
        None => point(&[], Origin::Service(zone, entry)),
        Some(place) => place.with_label(|label| point(label, Origin::Endpoint(entry, place))),
    }
}

/// Maps `turn` to a number below `count`. Neighbouring turns are mapped far apart, and all numbers
/// are equally frequent.
pub(crate) fn scale(turn: u32, count: u32) -> u32 {
    let mixed = turn.wrapping_mul(GOLDEN);
    ((u64::from(mixed) * u64::from(count)) >> 32) as u32
}

/// Returns the end of an SOA record's rdata (RFC 1035 section 3.3.13).
fn soa_numbers(serial: u32, minimum_secs: u32) -> [u8; 20] {
    let mut numbers = [0; 20];
    let values = [serial, REFRESH_SECS, RETRY_SECS, EXPIRE_SECS, minimum_secs];
    for (place, value) in numbers.chunks_exact_mut(4).zip(values) {
        place.copy_from_slice(&value.to_be_bytes());
    }
    numbers
}

/// The types that names here own, in the order in which a query of type ANY tries them.
pub(crate) const TYPES: [u16; 9] = [
    rtype::A,
    rtype::AAAA,
    rtype::SRV,
    rtype::PTR,
    rtype::TXT,
    rtype::MX,
    rtype::SOA,
    rtype::NS,
    rtype::CNAME,
];
/// 2^32 divided by the golden ratio, odd: multiples of it spread evenly.
const GOLDEN: u32 = 0x9e37_79b1;
/// Every SRV record has the same weight: the endpoints of a Service are equals.
pub(super) const WEIGHT: u16 = 100;
/// Numbers of the SOA record that only zone transfers would use.
const REFRESH_SECS: u32 = 7_200;
const RETRY_SECS: u32 = 1_800;
const EXPIRE_SECS: u32 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_first_equally_often() {
        for count in [1, 2, 3, 7, 100] {
            let mut first = vec![0_usize; count as usize];
            for turn in 0..100 * count {
                first[scale(turn, count) as usize] += 1;
            }
            assert!(first.iter().all(|times| (95..=105).contains(times)), "{first:?}");
        }
        assert_eq!(scale(7, 0), 0);
    }
}
