//! A query and the records become a reply.
//!
//! Core. Knows which records answer which type at each kind of name, chains, negative answers and
//! truncation; does not know sockets, objects, nor how names are found. Allocates nothing, decodes
//! nothing; what it costs follows the reply and not the size of a Service, but for wildcards. Never
//! fails: what goes wrong is a response code.

mod federation;
mod services;
#[cfg(test)]
mod tests;
mod wildcard;

use std::net::IpAddr;

use shared::wire::{ErrorCode, HEADER_LEN, Owner, Query, Reply, Section, class, rcode, rtype};

use crate::name::dashed;
use crate::records::{Among, Label, Node, PortName, Records};

pub(crate) use federation::NOWHERE;
pub(crate) use services::WEIGHT;
pub(crate) use wildcard::{Pattern, Search};

/// Writes the reply to `query` into `reply`, which has its question and flags already.
///
/// `turn` is a number that differs from query to query: it says where the endpoints of a headless
/// Service begin, so that each of them comes first, and gets into a reply that cannot hold all,
/// equally often.
pub fn answer(query: &Query<'_>, records: &Records, turn: u32, reply: &mut Reply<'_>) {
    reply.set_recursion_available(records.zone().recursion_available);
    if query.qclass != class::IN {
        return reply.fail(rcode::REFUSED, ErrorCode::NotSupported, "only class IN is served");
    }
    if matches!(query.qtype, rtype::AXFR | rtype::IXFR) {
        return reply.fail(rcode::REFUSED, ErrorCode::Prohibited, TRANSFER_OFF);
    }
    let Some(found) = records.find(query.name()) else {
        let text = "neither in the cluster domain nor about an address of the cluster";
        return reply.fail(rcode::REFUSED, ErrorCode::NotAuthoritative, text);
    };
    if !found.records.is_complete() {
        return reply.fail(rcode::SERVFAIL, ErrorCode::NotReady, INCOMPLETE);
    }
    reply.set_authoritative(true);
    let mut spot = Spot { at: HEADER_LEN, apex: found.apex, is_reverse: found.is_reverse };
    let mut node = found.node;
    let ttl_secs = records.ttl_secs();
    let mut writing = Writing { query, records: found.records, turn, reply, ttl_secs };
    writing.note_stale();
    if let Some(pattern) = Pattern::of(query.name(), &found) {
        writing.ttl_secs = 0;
        match pattern.alias(query.transport) {
            Some(alias) => node = alias,
            None => return writing.wild(spot, &pattern),
        }
    }
    for _ in 0..CHAIN_MAX {
        let Node::Alias(_, target) = node else { return writing.end(spot, node) };
        let cname = &[target.wire()];
        let Some(target_at) = writing.push(Section::Answer, spot.at, rtype::CNAME, cname) else {
            return writing.truncate();
        };
        if matches!(query.qtype, rtype::CNAME | rtype::ANY) {
            return;
        }
        let Some(found) = records.find(target.wire()) else {
            return; // whoever asked knows the way to other zones: dnscache follows
        };
        if !found.records.is_complete() {
            return writing.give_up(ErrorCode::NotReady, INCOMPLETE);
        }
        writing.records = found.records;
        writing.note_stale();
        spot = Spot { at: target_at, apex: found.apex, is_reverse: found.is_reverse };
        node = found.node;
    }
    writing.give_up(ErrorCode::Other, "a chain of ExternalName Services has no end");
}

/// Where in the message the name stands that is being answered.
#[derive(Clone, Copy)]
struct Spot {
    /// The offset of the name.
    at: usize,
    /// The offset of its zone's apex within it.
    apex: usize,
    /// Whether that is a reverse zone.
    is_reverse: bool,
}

/// One reply being written.
struct Writing<'w, 'b> {
    query: &'w Query<'w>,
    /// Of the zone that is answered from: a chain may lead to another.
    records: &'w Records,
    turn: u32,
    reply: &'w mut Reply<'b>,
    ttl_secs: u32,
}

impl Writing<'_, '_> {
    /// Says so where the answer comes from records of an earlier process.
    fn note_stale(&mut self) {
        if self.records.is_stale() {
            self.reply.set_error(ErrorCode::StaleAnswer, STALE);
        }
    }

    /// SERVFAIL in place of whatever has been written.
    fn give_up(&mut self, code: ErrorCode, text: &'static str) {
        self.reply.clear_records(self.query);
        self.reply.set_authoritative(false);
        self.reply.fail(rcode::SERVFAIL, code, text);
    }

    /// Answers at the end of the chain: records, or SOA with NXDOMAIN or NODATA (RFC 2308, RFC
    /// 6604).
    fn end(&mut self, spot: Spot, node: Node<'_>) {
        if let Node::Federated(federated) = node {
            return self.federated(spot, federated);
        }
        let answered = match self.query.qtype {
            // One RRset is enough for whoever asks for any (RFC 8482).
            rtype::ANY => ANY_ORDER.iter().any(|&qtype| self.records_of(spot, node, qtype)),
            qtype => self.records_of(spot, node, qtype),
        };
        if !answered {
            self.negative(spot, !matches!(node, Node::Missing));
        }
    }

    /// SOA behind whatever there is, with NXDOMAIN where the name does not exist.
    fn negative(&mut self, spot: Spot, exists: bool) {
        if !exists {
            self.reply.set_rcode(rcode::NXDOMAIN);
            if self.records.is_stale() {
                self.reply.set_error(ErrorCode::StaleNxdomainAnswer, STALE);
            }
        }
        if self.push_soa(Section::Authority, spot).is_none() {
            self.truncate();
        }
    }

    /// Writes the records of `qtype` at `node`; whether there are any.
    fn records_of(&mut self, spot: Spot, node: Node<'_>, qtype: u16) -> bool {
        match (node, qtype) {
            (Node::Service(entry), rtype::A) => self.service_addresses(spot, entry, false),
            (Node::Service(entry), rtype::AAAA) => self.service_addresses(spot, entry, true),
            (Node::Service(entry), rtype::SRV) => self.srv(spot, entry, PortName::Any),
            (Node::Zonal(entry, zone), rtype::A | rtype::AAAA) => {
                self.places(spot, entry, Among::Zone(zone), qtype == rtype::AAAA)
            }
            (Node::Zonal(entry, zone), rtype::SRV) => {
                self.srv_of_endpoints(spot, entry, Among::Zone(zone), PortName::Any)
            }
            (Node::Port(entry, port), rtype::SRV) => self.srv(spot, entry, port),
            (Node::Endpoint(_, named), rtype::A) => self.endpoint(spot, named, false),
            (Node::Endpoint(_, named), rtype::AAAA) => self.endpoint(spot, named, true),
            (Node::Pod(address, _), _) => self.addresses(spot, &[address], qtype),
            (Node::NameServer, _) => self.addresses(spot, &self.records.zone().name_server, qtype),
            (Node::Reverse(address), rtype::PTR) => self.pointers(spot, address),
            (Node::Apex, rtype::SOA) => {
                if self.push_soa(Section::Answer, spot).is_none() {
                    self.truncate();
                }
                true
            }
            (Node::Apex, rtype::NS) => self.name_server(spot),
            (Node::Version, rtype::TXT) => {
                let version = self.records.zone().schema().version();
                if self.push(Section::Answer, spot.at, rtype::TXT, &[version]).is_none() {
                    self.truncate();
                }
                true
            }
            _ => false,
        }
    }

    /// Those of `addresses` that are of the family of `qtype`.
    fn addresses(&mut self, spot: Spot, addresses: &[IpAddr], qtype: u16) -> bool {
        let mut any = false;
        for address in addresses.iter().filter(|&&address| address_type(address) == qtype) {
            any = true;
            if self.push_address(Section::Answer, spot.at, *address).is_none() {
                self.truncate();
                break;
            }
        }
        any
    }

    /// NS of the apex, the name server's addresses behind it.
    fn name_server(&mut self, spot: Spot) -> bool {
        let zone = self.records.zone();
        let pointer = pointer(spot.at + spot.apex);
        let rdata: &[&[u8]] =
            if spot.is_reverse { &[NS, zone.apex().wire()] } else { &[NS, &pointer] };
        let Some(target_at) = self.push(Section::Answer, spot.at, rtype::NS, rdata) else {
            self.truncate();
            return true;
        };
        for v6 in [false, true] {
            let mark = self.reply.mark();
            let mut family = zone.name_server.iter().filter(|address| address.is_ipv6() == v6);
            let mut push = |&address| self.push_address(Section::Additional, target_at, address);
            if family.any(|address| push(address).is_none()) {
                self.reply.rewind(mark);
                break;
            }
        }
        true
    }

    /// PTR of an address (DNS specification sections 2.3.3 and 2.4.3).
    fn pointers(&mut self, spot: Spot, address: IpAddr) -> bool {
        let (records, generated) = (self.records, dashed(address));
        for claim in records.claims(address) {
            let label = match claim.label {
                Label::None => &[],
                Label::Host(host) => host,
                Label::Generated => generated.wire(),
            };
            let rdata = &[label, claim.key, claim.zone.services()];
            if self.push(Section::Answer, spot.at, rtype::PTR, rdata).is_none() {
                self.truncate();
                break;
            }
        }
        true
    }

    /// SOA of the zone, its TTL that of all records: how long a negative answer may be kept (RFC
    /// 2308 section 5).
    fn push_soa(&mut self, section: Section, spot: Spot) -> Option<usize> {
        let zone = self.records.zone();
        let apex_at = spot.at + spot.apex;
        let pointer = pointer(apex_at);
        let apex = if spot.is_reverse { zone.apex().wire() } else { &pointer };
        let numbers = soa_numbers(self.records.serial(), self.ttl_secs);
        self.push(section, apex_at, rtype::SOA, &[NS, apex, HOSTMASTER, apex, &numbers])
    }

    /// A or AAAA of `address` at the name that stands at `owner_at`.
    fn push_address(
        &mut self,
        section: Section,
        owner_at: usize,
        address: IpAddr,
    ) -> Option<usize> {
        match address {
            IpAddr::V4(address) => self.push(section, owner_at, rtype::A, &[&address.octets()]),
            IpAddr::V6(address) => self.push(section, owner_at, rtype::AAAA, &[&address.octets()]),
        }
    }

    /// A record at the name that stands at `owner_at`, which a pointer can reach.
    fn push(
        &mut self,
        section: Section,
        owner_at: usize,
        rtype: u16,
        rdata: &[&[u8]],
    ) -> Option<usize> {
        debug_assert!(owner_at <= POINTER_MAX);
        let owner = Owner::At(owner_at as u16);
        self.reply.push(section, owner, rtype, self.ttl_secs, rdata)
    }

    /// There are more answers than fit: over UDP more are to be had over TCP, and there nobody
    /// shall take a part of an RRset for the whole (RFC 2181 sections 5 and 9).
    fn truncate(&mut self) {
        self.reply.set_truncated();
    }
}

/// The type of record that holds `address`.
fn address_type(address: IpAddr) -> u16 {
    if address.is_ipv4() { rtype::A } else { rtype::AAAA }
}

/// The end of an SOA record's rdata (RFC 1035 section 3.3.13); `minimum` in seconds.
pub(crate) fn soa_numbers(serial: u32, minimum: u32) -> [u8; 20] {
    let mut numbers = [0; 20];
    let values = [serial, REFRESH_SECS, RETRY_SECS, EXPIRE_SECS, minimum];
    for (place, value) in numbers.chunks_exact_mut(4).zip(values) {
        place.copy_from_slice(&value.to_be_bytes());
    }
    numbers
}

/// A compression pointer to `at` (RFC 1035 section 4.1.4).
fn pointer(at: usize) -> [u8; 2] {
    debug_assert!(at <= POINTER_MAX);
    (0xc000 | at as u16).to_be_bytes()
}

/// Why a zone is not transferred.
const TRANSFER_OFF: &str = "zone transfer is off, or not for this client";
/// In which order types are tried for a query of type ANY.
const ANY_ORDER: [u16; 7] =
    [rtype::A, rtype::AAAA, rtype::SRV, rtype::PTR, rtype::TXT, rtype::SOA, rtype::NS];
/// More CNAMEs than this in a row are a loop or a mistake.
pub(crate) const CHAIN_MAX: usize = 8;
/// The farthest offset that a compression pointer reaches.
const POINTER_MAX: usize = 0x3fff;
/// Why nothing is said yet.
const INCOMPLETE: &str = "the cluster has not been listed completely yet";
/// Why an answer may be out of date.
const STALE: &str = "from the snapshot: the API server has not been heard since the start";
/// The name server's name, relative to the apex of the cluster domain.
pub(crate) const NS: &[u8] = b"\x02ns\x03dns";
/// The mailbox of the SOA record, relative to the apex of the cluster domain.
pub(crate) const HOSTMASTER: &[u8] = b"\x0ahostmaster";
/// Numbers of the SOA record that only zone transfers would use.
const REFRESH_SECS: u32 = 7_200;
const RETRY_SECS: u32 = 1_800;
const EXPIRE_SECS: u32 = 86_400;
