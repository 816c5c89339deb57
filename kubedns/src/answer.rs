//! Turns a query and the records into a reply.
//!
//! Core. Knows chains, negative answers, truncation and which records are added to others; does not
//! know sockets, objects, how names are found, nor which records a name has. It neither allocates
//! nor decodes. Its cost depends on the reply and not on the size of a Service, except for
//! wildcards. It never fails: errors are response codes.

#[cfg(test)]
mod tests;
mod wildcard;

use std::net::IpAddr;
use std::ops::Range;

use shared::wire::{
    ErrorCode, HEADER_LEN, NAME_MAX, Owner, Query, Reply, Section, Transport, class, rcode, rtype,
};

use crate::records::{
    self, Entry, Federated, Found, Named, Node, PortName, Records, Schema, TYPES, Target, TooMany,
    Walk,
};
use crate::skydns::{MANY, Place};

pub(crate) use wildcard::{Pattern, Search};

/// Writes the reply to `query` into `reply`, which must already have its question and flags.
///
/// `turn` must differ from query to query. It selects the first endpoint of a headless Service, so
/// that each endpoint is equally often the first one, and equally often in a reply that cannot hold
/// all of them.
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
    let keyed = match wild_key(query, &found) {
        Ok(keyed) => keyed,
        Err(TooMany) if query.transport == Transport::Udp => return reply.set_truncated(),
        Err(TooMany) => {
            reply.set_authoritative(false);
            return reply.fail(rcode::SERVFAIL, ErrorCode::Other, MANY_KEYS);
        }
    };
    let walk = Walk { records, turn, apex: None, ttl_secs: u32::MAX };
    let mut writing =
        Writing { query, walk, all: records, at: HEADER_LEN, apex_at: HEADER_LEN, reply };
    writing.go_to(HEADER_LEN, &found);
    let mut node = found.node_for(query.qtype);
    if let Some(place) = &keyed {
        writing.walk.ttl_secs = 0;
        node = Node::Key(place);
    } else if let Some(pattern) = Pattern::of(query.name(), &found) {
        writing.walk.ttl_secs = 0;
        match pattern.alias(query.transport) {
            Some(alias) => node = alias,
            None => return writing.wild(&pattern),
        }
    }
    let mut name = query.name();
    for _ in 0..CHAIN_MAX {
        let target = match node {
            Node::Alias(_, target) => target.wire(),
            Node::Key(place) if place.is_many() && !writing.is_worth(place) => return,
            // The apex has SOA and NS, so it is no alias (RFC 1034 section 3.6.2).
            Node::Key(_) if writing.at == writing.apex_at => return writing.end(node),
            _ => match node.key_alias(query.qtype, turn) {
                Some(row) if !row.is_at(name) => &row.rdata,
                _ => return writing.end(node),
            },
        };
        let Some(target_at) = writing.alias(node) else { return };
        let is_outside = matches!(writing.walk.records.zone().schema(), Schema::External { .. });
        let Some(found) = records.find(target).filter(|_| !is_outside) else {
            return; // the client knows the way to other zones: dnscache follows
        };
        if !found.records.is_complete() {
            return writing.give_up(ErrorCode::NotReady, INCOMPLETE);
        }
        writing.go_to(target_at, &found);
        (name, node) = (target, found.node_for(query.qtype));
    }
    writing.give_up(ErrorCode::Other, "a chain of aliases has no end");
}

/// Returns the place of the names of etcd that `query` matches with a wild label.
fn wild_key(query: &Query<'_>, found: &Found<'_>) -> Result<Option<Place>, TooMany> {
    let places_max = match query.transport {
        Transport::Udp => MANY,
        Transport::Tcp => KEYS_MAX,
    };
    found.records.wild_place(query.name(), found, places_max)
}

/// One reply being written.
struct Writing<'w, 'b> {
    query: &'w Query<'w>,
    /// The walk over the zone that is answered from. A chain can lead to another zone.
    walk: Walk<'w>,
    /// All zones.
    all: &'w Records,
    /// The offset in the message of the name that is answered: that of the question, or the end of
    /// a chain so far.
    at: usize,
    /// The offset in the message of its apex.
    apex_at: usize,
    reply: &'w mut Reply<'b>,
}

impl<'w> Writing<'w, '_> {
    /// Continues with the name at `at` in the message, which was `found`. Adds an Extended DNS
    /// Error if the answer is from records of an earlier process.
    fn go_to(&mut self, at: usize, found: &Found<'w>) {
        (self.at, self.apex_at) = (at, at + found.apex);
        self.walk.records = found.records;
        self.walk.ttl_secs = self.walk.ttl_secs.min(found.records.ttl_secs());
        self.walk.apex = (!found.is_reverse).then(|| pointer(self.apex_at));
        if let Node::Key(place) = found.node_for(self.query.qtype)
            && !place.is_announced()
        {
            self.walk.ttl_secs = 0;
        }
        if found.records.is_stale() {
            self.reply.set_error(ErrorCode::StaleAnswer, STALE);
        }
    }

    /// Replaces everything that has been written by SERVFAIL.
    fn give_up(&mut self, code: ErrorCode, text: &'static str) {
        self.reply.clear_records(self.query);
        self.reply.set_authoritative(false);
        self.reply.fail(rcode::SERVFAIL, code, text);
    }

    /// Returns whether the many messages of `place` are looked at. Over UDP the client retries over
    /// TCP, with an address that cannot be forged.
    fn is_worth(&mut self, place: &Place) -> bool {
        match self.query.transport {
            Transport::Udp => self.reply.set_truncated(),
            Transport::Tcp if place.count() > KEYS_MAX => {
                self.give_up(ErrorCode::Other, MANY_KEYS);
            }
            Transport::Tcp => return true,
        }
        false
    }

    /// Writes the CNAME record of `node`. Returns the offset of its target, if the reply does not
    /// end with the record.
    fn alias(&mut self, node: Node<'_>) -> Option<usize> {
        let target_at = self.reply.len() + RECORD_HEAD_LEN;
        let fits = self.write(Section::Answer, self.owner(), &node, rtype::CNAME);
        if !fits {
            self.reply.set_truncated();
        }
        let is_asked = matches!(self.query.qtype, rtype::CNAME | rtype::ANY);
        (fits && !is_asked).then_some(target_at)
    }

    /// Writes the CNAME record of a federated name, and the records of its target if that is in
    /// this zone. The client can ask other zones itself.
    fn federated(&mut self, federated: Federated<'w>) {
        if let Federated::Nowhere = federated {
            // No answer is better than the name of a wrong cluster.
            return self.give_up(ErrorCode::NotReady, NOWHERE);
        }
        if let Some(target_at) = self.alias(Node::Federated(federated))
            && let Federated::Here(entry) = federated
        {
            let (apex, node) = (entry.key().len() + SVC_LEN, Node::Service(entry));
            self.go_to(
                target_at,
                &Found { apex, records: self.walk.records, is_reverse: false, node },
            );
            self.end(node);
        }
    }

    /// Answers at the end of the chain: records, or SOA with NXDOMAIN or NODATA (RFC 2308, RFC
    /// 6604).
    fn end(&mut self, node: Node<'w>) {
        let answered = match (node, self.query.qtype) {
            (Node::Missing | Node::Empty, _) => false,
            (Node::Federated(federated), _) => return self.federated(federated),
            // One RRset is enough for a query of type ANY (RFC 8482).
            (_, rtype::ANY) => TYPES.iter().any(|&qtype| self.records_of(&node, qtype)),
            (_, qtype) => self.records_of(&node, qtype),
        };
        if !answered {
            self.negative(!matches!(node, Node::Missing));
        }
    }

    /// Writes SOA after the other records, with NXDOMAIN if the name does not exist. Its TTL is
    /// that of all records: the time that a negative answer can be cached (RFC 2308 section 5).
    fn negative(&mut self, exists: bool) {
        if !exists {
            self.reply.set_rcode(rcode::NXDOMAIN);
            if self.walk.records.is_stale() {
                self.reply.set_error(ErrorCode::StaleNxdomainAnswer, STALE);
            }
        }
        let owner = Owner::At(self.apex_at as u16);
        if !self.write(Section::Authority, owner, &Node::Apex, rtype::SOA) {
            self.reply.set_truncated();
        }
    }

    /// Writes the records of `qtype` at `node`, and the addresses that the client needs next.
    /// Returns whether there are any records.
    ///
    /// If not all fit, TC is set: a UDP client then retries over TCP, and a TCP client does not
    /// take a part of an RRset for the whole (RFC 2181 sections 5 and 9).
    fn records_of(&mut self, node: &Node<'_>, qtype: u16) -> bool {
        let begin = self.reply.len();
        if !self.write(Section::Answer, self.owner(), node, qtype) {
            self.reply.set_truncated();
            return true;
        }
        if self.reply.len() == begin {
            return false;
        }
        match qtype {
            rtype::SRV => self.targets(node, begin),
            rtype::MX => self.names(begin, MX_TARGET_AT),
            rtype::NS if self.walk.records.zone().is_keyed() => self.names(begin, RECORD_HEAD_LEN),
            rtype::NS => {
                let owner = Owner::At((begin + RECORD_HEAD_LEN) as u16);
                let types = [rtype::A, rtype::AAAA];
                types.into_iter().all(|rtype| self.family(owner, &Node::NameServer, rtype));
            }
            _ => {}
        }
        true
    }

    /// Writes the addresses of the targets of the SRV records at `node`. The first SRV record is at
    /// `record_at`. Addresses that do not fit are left out without setting TC (RFC 2782; RFC 2181
    /// section 9).
    fn targets(&mut self, node: &Node<'_>, mut record_at: usize) {
        if let Node::Key(_) = node {
            return self.names(record_at, SRV_TARGET_AT);
        }
        let walk = self.walk;
        walk.targets(node, &mut |target| {
            let record_end = self.record_end(record_at);
            let name = record_at + SRV_TARGET_AT..record_end;
            match target {
                Target::Service(entry) => {
                    let (owner, node) = (Owner::At(name.start as u16), Node::Service(entry));
                    // The Service prefers the family of its first address (KEP-563).
                    let mut addresses = entry.cluster_ips().iter();
                    addresses.all(|&address| self.family(owner, &node, address_type(address)))
                }
                Target::External(entry) => {
                    let owner = Owner::At(name.start as u16);
                    let node = Node::External(entry, PortName::Any);
                    [rtype::A, rtype::AAAA].iter().all(|&rtype| self.family(owner, &node, rtype))
                }
                Target::Endpoint(entry, place, count) => {
                    record_at += count * (record_end - record_at);
                    self.endpoint(name, entry, place)
                }
            }
        });
    }

    /// Writes the addresses of names in any of our zones: those to which the records from
    /// `record_at` to the end of the reply point. The names begin `name_at` bytes into the records.
    fn names(&mut self, mut record_at: usize, name_at: usize) {
        let (end, records) = (self.reply.len(), self.all);
        let mut last = 0..0;
        while record_at < end {
            let name = record_at + name_at..self.record_end(record_at);
            record_at = name.end;
            let bytes = self.reply.bytes();
            if name.end > POINTER_MAX || bytes[name.clone()] == bytes[last.clone()] {
                continue;
            }
            last = name.clone();
            let owner = Owner::At(name.start as u16);
            let target = self.name_at(name.clone());
            let Some(found) = records.find(&target[..name.len()]) else { continue };
            let node = found.node_for(rtype::A);
            let is_many = matches!(node, Node::Key(place) if place.is_many());
            if is_many || !found.records.is_complete() {
                continue;
            }
            let ttl_secs = self.walk.ttl_secs.min(found.records.ttl_secs());
            let walk = Walk { records: found.records, ttl_secs, ..self.walk };
            if ![rtype::A, rtype::AAAA].iter().all(|&it| self.family_in(walk, owner, &node, it)) {
                return;
            }
        }
    }

    /// Writes the addresses at the name of an endpoint, which is already in the message. Returns
    /// whether all addresses fit.
    fn endpoint(&mut self, at: Range<usize>, entry: &Entry, place: records::Place<'_>) -> bool {
        let name;
        let owner = if at.start <= POINTER_MAX {
            Owner::At(at.start as u16)
        } else {
            name = self.name_at(at.clone());
            Owner::Name(&name[..at.len()])
        };
        if !entry.shares_labels() {
            let rtype = if place.is_v6() { rtype::AAAA } else { rtype::A };
            return self.family(owner, &Node::Endpoint(entry, Named::One(place)), rtype);
        }
        let records = self.walk.records;
        let named = place.with_label(|label| records.named(entry, label));
        let Some(node) = named.map(|named| Node::Endpoint(entry, named)) else { return true };
        [rtype::A, rtype::AAAA].into_iter().all(|rtype| self.family(owner, &node, rtype))
    }

    /// Writes the addresses of one family at `node` after the answers, if all of them fit (RFC 2181
    /// section 9). Returns whether all addresses fit.
    fn family(&mut self, owner: Owner<'_>, node: &Node<'_>, rtype: u16) -> bool {
        self.family_in(self.walk, owner, node, rtype)
    }

    /// Does the same with a walk over another zone.
    fn family_in(&mut self, walk: Walk<'_>, owner: Owner<'_>, node: &Node<'_>, rtype: u16) -> bool {
        let mark = self.reply.mark();
        let fits = walk.rrset(node, rtype, &mut |record| {
            let ttl_secs = walk.ttl_of(&record);
            self.reply.push(Section::Additional, owner, rtype, ttl_secs, record.rdata).is_some()
        });
        if !fits {
            self.reply.rewind(mark);
        }
        fits
    }

    /// Writes the records of type `rtype` at `node`, whose name is `owner`, until one does not fit.
    /// Returns whether all records fit.
    fn write(&mut self, section: Section, owner: Owner<'_>, node: &Node<'_>, rtype: u16) -> bool {
        let walk = self.walk;
        walk.rrset(node, rtype, &mut |record| {
            let ttl_secs = walk.ttl_of(&record);
            self.reply.push(section, owner, record.rtype, ttl_secs, record.rdata).is_some()
        })
    }

    /// Returns the name that is answered.
    fn owner(&self) -> Owner<'static> {
        debug_assert!(self.at <= POINTER_MAX);
        Owner::At(self.at as u16)
    }

    /// Returns the name at `at` in the message, which is not compressed.
    fn name_at(&self, at: Range<usize>) -> [u8; NAME_MAX] {
        let mut name = [0; NAME_MAX];
        name[..at.len()].copy_from_slice(&self.reply.bytes()[at]);
        name
    }

    /// Returns the end of the record that begins at `at`. Its owner must be a pointer.
    fn record_end(&self, at: usize) -> usize {
        let bytes = self.reply.bytes();
        at + RECORD_HEAD_LEN + usize::from(u16::from_be_bytes([bytes[at + 10], bytes[at + 11]]))
    }
}

/// Returns the type of record that holds `address`.
fn address_type(address: IpAddr) -> u16 {
    if address.is_ipv4() { rtype::A } else { rtype::AAAA }
}

/// Returns a compression pointer to `at` (RFC 1035 section 4.1.4).
fn pointer(at: usize) -> [u8; 2] {
    debug_assert!(at <= POINTER_MAX);
    (0xc000 | at as u16).to_be_bytes()
}

/// The Extended DNS Error text if a zone is not transferred.
const TRANSFER_OFF: &str = "zone transfer is off, or not for this client";
/// More CNAMEs than this in a row are a loop or a mistake.
pub(crate) const CHAIN_MAX: usize = 8;
/// The highest offset that a compression pointer can hold.
const POINTER_MAX: usize = 0x3fff;
/// The Extended DNS Error text before the records are complete.
const INCOMPLETE: &str = "the cluster has not been listed completely yet";
/// The Extended DNS Error text if an answer can be out of date.
const STALE: &str = "from the snapshot: the API server has not been heard since the start";
/// The Extended DNS Error text if a federated name has no answer.
pub(crate) const NOWHERE: &str = "no Node says zone and region: labels topology.kubernetes.io/";
/// The label `svc` with its length.
const SVC_LEN: usize = 4;
/// Bytes before the data of a record whose owner is a pointer.
const RECORD_HEAD_LEN: usize = 12;
/// Bytes of an SRV record before its target: priority, weight and port are the last.
const SRV_TARGET_AT: usize = RECORD_HEAD_LEN + 6;
/// Bytes of an MX record before its target: the preference is the last.
const MX_TARGET_AT: usize = RECORD_HEAD_LEN + 2;
/// The most names of etcd that one answer looks at.
const KEYS_MAX: usize = 100_000;
const MANY_KEYS: &str = "more keys of etcd than one answer may look at";
