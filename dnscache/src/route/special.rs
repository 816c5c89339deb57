//! Special names that are never asked about outside the pod, and their answers.
//!
//! Core. Holds the lists of the RFCs. The routes decide which of the names are asked about after
//! all.

use shared::wire::{
    ErrorCode, HEADER_LEN, Owner, Query, Reply, Section, rcode, rtype, with_ancestors,
};

use shared::name::parse;

/// A name that dnscache answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local<'a> {
    /// The suffix that defines the answer, in wire form.
    pub zone: &'a [u8],
    /// The kind of answer.
    pub kind: Kind,
}

/// The kind of answer for a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Neither it nor any name below it exists.
    Absent,
    /// An empty zone: it exists, but no name below it does (RFC 6303 section 3).
    Empty,
    /// An empty zone of private addresses. Networks next to the cluster use such addresses too, so
    /// these names can leave a pod in which kubedns answers for the cluster's addresses.
    Private,
    /// Names of one more label do not exist, because they belong to multicast DNS (RFC 6762 section
    /// 22.1). Deeper names can belong to a network that uses the domain for its own names.
    Multicast,
    /// Every name has the loopback addresses (RFC 6761 section 6.3).
    Loopback,
    /// No server is asked: every name gets this response code.
    Code(u16),
}

impl Local<'_> {
    /// Writes the reply to `query`, whose name must be the zone or below it.
    ///
    /// An empty zone has its own SOA and NS records (RFC 6303 section 3). A name that does not
    /// exist is denied with the SOA of a zone above it, because a name with an SOA exists.
    pub fn answer(&self, query: &Query<'_>, reply: &mut Reply<'_>) {
        reply.set_recursion_available(true);
        if let Kind::Code(code) = self.kind {
            return reply.fail(code, ErrorCode::Other, "no server is asked about this name");
        }
        reply.set_authoritative(true);
        let is_apex = query.name().len() == self.zone.len();
        let is_absent = matches!(self.kind, Kind::Absent | Kind::Multicast);
        let exists = self.kind == Kind::Loopback || (is_apex && !is_absent);
        if self.kind != Kind::Loopback {
            reply.set_error(ErrorCode::Other, "answered here: this name never leaves the pod");
        }
        if !exists {
            reply.set_rcode(rcode::NXDOMAIN);
        }
        let timers = [1, 3_600, 1_200, 604_800, TTL_SECS].map(u32::to_be_bytes).concat();
        let zone = if is_apex && !exists { parent(self.zone) } else { self.zone };
        let soa: [&[u8]; 3] = [zone, NOBODY, &timers];
        let rdata: &[&[u8]] = match (self.kind, query.qtype) {
            (Kind::Loopback, rtype::A) => &[&[127, 0, 0, 1]],
            (Kind::Loopback, rtype::AAAA) => &[&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]],
            (_, rtype::SOA) if is_apex && exists => &soa,
            (_, rtype::NS) if is_apex && exists => &[zone],
            _ => {
                // An SOA fits the smallest reply unless both names are near their limit. It is then
                // omitted, which only means that the answer is not cached (RFC 2308 section 5).
                let owner = Owner::At((HEADER_LEN + query.name().len() - zone.len()) as u16);
                reply.push(Section::Authority, owner, rtype::SOA, TTL_SECS, &soa);
                return;
            }
        };
        let section = Section::Answer;
        if reply.push(section, Owner::Question, query.qtype, TTL_SECS, rdata).is_none() {
            reply.set_truncated();
        }
    }
}

/// Returns the name above `name`; the root is above itself.
fn parent(name: &[u8]) -> &[u8] {
    with_ancestors(name).nth(1).unwrap_or(name)
}

/// Returns the zones of the lists in wire form.
pub(super) fn zones() -> impl Iterator<Item = (Box<[u8]>, Kind)> {
    let shared_space = (64..=127).map(|second| format!("{second}.100.in-addr.arpa"));
    let private = (16..=31).map(|second| format!("{second}.172.in-addr.arpa"));
    let private = private.chain(PRIVATE.iter().map(|&zone| zone.to_owned()));
    let listed = EMPTY.iter().map(|&zone| zone.to_owned());
    let here = (0..2).map(|last| {
        let zeros = "0.".repeat(31);
        format!("{last}.{zeros}ip6.arpa")
    });
    let absent = ABSENT.iter().map(|&zone| (zone.to_owned(), Kind::Absent));
    let empty = listed.chain(here).map(|zone| (zone, Kind::Empty));
    let private = private.chain(shared_space).map(|zone| (zone, Kind::Private));
    absent
        .chain(empty)
        .chain(private)
        .chain([("localhost".to_owned(), Kind::Loopback), ("local".to_owned(), Kind::Multicast)])
        .map(|(zone, kind)| (parse(&zone).expect("the lists hold domain names"), kind))
}

/// `nobody.invalid.`: the contact of an empty zone (RFC 6303 section 3).
const NOBODY: &[u8] = b"\x06nobody\x07invalid\x00";
/// How long clients can cache these answers, in seconds. Routes change with the configuration.
const TTL_SECS: u32 = 300;
/// Suffixes that do not exist outside, and about which servers there must not be asked.
///
/// `test` is not included, against RFC 6761 section 6.2: its users have a server for it, often the
/// one for all other names. The addresses of documentation are not included, against RFC 6303
/// sections 4.2 and 4.6: they have no owner, and Kubernetes' e2e tests ask an upstream of their own
/// about them.
const ABSENT: [&str; 6] = [
    // RFC 6761 section 6.4, RFC 7686, RFC 9476.
    "invalid",
    "onion",
    "alt",
    // RFC 9031 section 9.3, RFC 9140 section 5.1: names of protocols, never of hosts.
    "6tisch.arpa",
    "eap-noob.arpa",
    // dnscache's own: if it is not routed, servers outside must not be asked about it either.
    "cluster.local",
];

/// Zones that exist outside and are empty, except for ranges of zones.
const EMPTY: [&str; 11] = [
    // RFC 8375, RFC 9462 section 6.4, RFC 9665 section 10.
    "home.arpa",
    "resolver.arpa",
    "service.arpa",
    // RFC 6303 section 4.2: this network, loopback, link-local, broadcast.
    "0.in-addr.arpa",
    "127.in-addr.arpa",
    "254.169.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    // RFC 6303 section 4.5: link-local addresses.
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
    "b.e.f.ip6.arpa",
];

/// Reverse zones of private addresses (RFC 6303 sections 4.1 and 4.4), except 172.16.0.0/12 and
/// 100.64.0.0/10 (RFC 7793), which are ranges of zones.
const PRIVATE: [&str; 3] = ["10.in-addr.arpa", "168.192.in-addr.arpa", "d.f.ip6.arpa"];

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use shared::wire::{NameBuffer, Transport};

    use super::*;

    fn ask(name: &str, qtype: u16, local: Kind, zone: &str) -> Message {
        let owner = parse(name).unwrap();
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(&owner);
        query.extend([qtype.to_be_bytes(), [0, 1]].concat());
        let mut buffer = NameBuffer::new();
        let query = Query::screen(&query, Transport::Udp, &mut buffer).unwrap();
        let mut out = [0; 512];
        let mut reply = Reply::new(&query, &mut out);
        let zone = parse(zone).unwrap();
        Local { zone: &zone, kind: local }.answer(&query, &mut reply);
        let len = reply.finish();
        Message::from_vec(&out[..len]).unwrap()
    }

    /// Asks every type at the name of every zone and below it.
    #[test]
    fn every_local_zone_answers_every_type() {
        const TYPES: [u16; 8] = [
            rtype::A,
            rtype::AAAA,
            rtype::SOA,
            rtype::NS,
            rtype::PTR,
            rtype::TXT,
            rtype::SRV,
            rtype::ANY,
        ];
        // `--server=//` and `--server=/corp.example/`
        let flags = ["picard", "corp.example"].map(|zone| (parse(zone).unwrap(), Kind::Absent));
        let mut seen = 0;
        for (zone, kind) in zones().chain(flags) {
            let zone = shared::name::bare(&zone);
            for qtype in TYPES {
                let is_absent = matches!(kind, Kind::Absent | Kind::Multicast);
                let own = matches!(qtype, rtype::SOA | rtype::NS) && !is_absent;
                let here = kind == Kind::Loopback && matches!(qtype, rtype::A | rtype::AAAA);
                let below = format!("a.{zone}");
                let rows =
                    [(&zone, !is_absent, own || here), (&below, kind == Kind::Loopback, here)];
                for (name, exists, answers) in rows {
                    let what = format!("{name} {qtype} {kind:?}");
                    let message = ask(name, qtype, kind, &zone);
                    let expected = if exists { rcode::NOERROR } else { rcode::NXDOMAIN };
                    assert_eq!(u16::from(message.response_code), expected, "{what}");
                    assert_eq!(message.answers.len(), usize::from(answers), "{what}");
                    assert_eq!(message.authorities.len(), usize::from(!answers), "{what}");
                    assert!(message.authoritative && message.recursion_available, "{what}");
                    for soa in &message.authorities {
                        let owner = soa.name.to_ascii();
                        let name = format!("{name}.");
                        assert!(owner == "." || name.ends_with(&owner), "{what}: {owner}");
                        assert!(exists || owner != name, "{what}: it does not exist");
                    }
                    seen += 1;
                }
            }
        }
        assert!(seen > 1_000, "{seen}");
    }

    #[test]
    fn an_empty_zone_has_records_of_its_own() {
        let zone = "10.in-addr.arpa";
        let rows =
            [(rtype::NS, "NS 10.in-addr.arpa."), (rtype::SOA, "SOA 10.in-addr.arpa. nobody")];
        for (qtype, expected) in rows {
            let message = ask(zone, qtype, Kind::Private, zone);
            let answer = message.answers[0].to_string();
            assert!(answer.starts_with(&format!("{zone}. 300 IN {expected}")), "{answer}");
        }
    }

    #[test]
    fn localhost_is_here() {
        let a = ask("a.localhost", rtype::A, Kind::Loopback, "localhost");
        assert_eq!(a.answers[0].to_string(), "a.localhost. 300 IN A 127.0.0.1");
        let aaaa = ask("localhost", rtype::AAAA, Kind::Loopback, "localhost");
        assert_eq!(aaaa.answers[0].to_string(), "localhost. 300 IN AAAA ::1");
        let nodata = ask("a.localhost", rtype::TXT, Kind::Loopback, "localhost");
        assert_eq!(u16::from(nodata.response_code), rcode::NOERROR);
        assert_eq!((nodata.answers.len(), nodata.authorities.len()), (0, 1));
    }
}
