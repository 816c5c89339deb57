//! All records of a zone, one by one (AXFR, RFC 5936).
//!
//! Core. Knows which zones exist and how records fill messages; does not know which clients can get
//! them nor how messages are sent. A zone is never held in memory: its records are made name by
//! name from a snapshot, as fast as the client reads.
//!
//! ```text
//! query ── begin ──▶ Apex ── records ──▶ SOA, NS, .., SOA ── fill ──▶ message, message, ..
//!            └─────▶ NOTAUTH, SERVFAIL, FORMERR
//! ```

mod tally;
mod zone;

use std::iter::Peekable;
use std::sync::Arc;

use shared::wire::{
    ErrorCode, HEADER_LEN, NAME_MAX, Owner, Query, Reply, Section, Transport, rcode, rtype,
};

use crate::name::{IN_ADDR_ARPA, IP6_ARPA};
use crate::records::Records;

pub use tally::Tally;
pub use zone::records;

/// A zone that can be transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apex {
    /// The cluster domain.
    Cluster,
    /// The domain of Multi-Cluster Services.
    Clusterset,
    /// `in-addr.arpa`.
    V4,
    /// `ip6.arpa`.
    V6,
    /// A further zone: an index into [`Records::views`].
    View(usize),
}

impl Apex {
    /// Returns the zone whose apex is `name`, in wire form and lower case.
    pub fn of(records: &Records, name: &[u8]) -> Option<Self> {
        match name {
            IN_ADDR_ARPA => Some(Self::V4),
            IP6_ARPA => Some(Self::V6),
            name if name == records.zone().apex().wire() => Some(Self::Cluster),
            name => {
                let has_apex = |records: &Records| name == records.zone().apex().wire();
                match records.clusterset() {
                    Some(clusterset) if has_apex(clusterset) => Some(Self::Clusterset),
                    _ => records.views().iter().position(has_apex).map(Self::View),
                }
            }
        }
    }

    /// Returns the records that contain those of this zone, if the zone is on.
    fn zone(self, records: &Records) -> Option<&Records> {
        match self {
            Self::Clusterset => records.clusterset().map(|zone| &**zone),
            Self::Cluster | Self::V4 | Self::V6 => Some(records),
            Self::View(index) => records.views().get(index),
        }
    }

    /// All zones of `records`.
    fn all(records: &Records) -> impl Iterator<Item = Self> + use<> {
        let views = (0..records.views().len()).map(Self::View);
        [Self::Cluster, Self::Clusterset, Self::V4, Self::V6].into_iter().chain(views)
    }
}

/// One record that is to be written into a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The labels of its owner name left of the apex, in wire form.
    owner: Arc<[u8]>,
    rtype: u16,
    /// In seconds.
    ttl_secs: u32,
    rdata: Box<[u8]>,
}

/// Records of a zone, in the order in which they are sent.
pub type Rows<'r> = Box<dyn Iterator<Item = Record> + Send + 'r>;

/// Returns the zone of a query of type AXFR or IXFR, from a client that is allowed to get it. If
/// there is no transfer, writes the whole reply into `reply` and returns `None`.
///
/// If the name is not the apex of a zone of ours, the reply is NOTAUTH (RFC 5936 section 2.2.1).
/// Over UDP there is no AXFR (section 4.2), and IXFR gets only the SOA, so that the client retries
/// over TCP (RFC 1995 section 2). A client over TCP that already has this zone also gets only the
/// SOA. Else both types get the whole zone (RFC 1995 section 4), because no earlier one is kept for
/// a difference.
pub fn begin(query: &Query<'_>, zones: &Records, reply: &mut Reply<'_>) -> Option<Apex> {
    let Some(apex) = Apex::of(zones, query.name()) else {
        reply.fail(rcode::NOTAUTH, ErrorCode::NotAuthoritative, "no zone of ours begins here");
        return None;
    };
    let Some(zone) = apex.zone(zones).filter(|zone| zone.is_complete()) else {
        let text = "the cluster has not been listed completely yet";
        reply.fail(rcode::SERVFAIL, ErrorCode::NotReady, text);
        return None;
    };
    // Not newer than the client's, by RFC 1982: the difference is empty.
    let is_known =
        query.serial.is_some_and(|serial| zone.serial().wrapping_sub(serial) as i32 <= 0);
    if query.qtype == rtype::IXFR && (query.transport == Transport::Udp || is_known) {
        reply.set_authoritative(true);
        fill(reply, &mut records(zones, apex).take(1).peekable());
        return None;
    }
    if query.transport == Transport::Udp {
        reply.fail(rcode::FORMERR, ErrorCode::NotSupported, "zones are transferred over TCP");
        return None;
    }
    Some(apex)
}

/// Fills `reply`, whose question is the apex, with as many of `rows` as fit. Returns how many.
///
/// A name that repeats in consecutive rows is written once, and ends with a pointer to the
/// question.
pub fn fill(reply: &mut Reply<'_>, rows: &mut Peekable<impl Iterator<Item = Record>>) -> usize {
    let mut last: Option<(Arc<[u8]>, u16)> = None;
    let mut count = 0;
    while let Some(row) = rows.peek() {
        let at = reply.len();
        let mut name = [0; NAME_MAX + 1];
        let written = match &last {
            Some((name, at)) if *name == row.owner => Some(*at),
            _ => None,
        };
        let owner = match written {
            Some(at) => Owner::At(at),
            None if row.owner.is_empty() => Owner::Question,
            None => {
                let len = row.owner.len();
                name[..len].copy_from_slice(&row.owner);
                name[len..len + 2].copy_from_slice(&[0xc0, HEADER_LEN as u8]);
                Owner::Name(&name[..len + 2])
            }
        };
        if reply.push(Section::Answer, owner, row.rtype, row.ttl_secs, &[&row.rdata]).is_none() {
            break;
        }
        let is_new = written.is_none() && !row.owner.is_empty();
        if is_new && at <= POINTER_MAX {
            last = Some((Arc::clone(&row.owner), at as u16));
        }
        rows.next();
        count += 1;
    }
    count
}

/// The largest message of a transfer, in bytes. Pointers can reach all of it (RFC 1035 section
/// 4.1.4), and the data that waits for a slow client is small.
pub const MESSAGE_LEN: usize = 16 << 10;
/// The highest offset that a compression pointer can hold.
const POINTER_MAX: usize = 0x3fff;
