//! Names that are nobody's business outside the pod, and what is answered for them.
//!
//! Core. Knows the lists of the RFCs; does not know which of the names are routed after all.

use shared::wire::{ErrorCode, HEADER_LEN, Owner, Query, Reply, Section, labels, rcode, rtype};

use super::flag::wire;

/// A name answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local<'a> {
    /// The suffix it is answered for, in wire form.
    pub zone: &'a [u8],
    /// What is answered.
    pub kind: Kind,
}

/// What is answered for a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing below it exists.
    Absent,
    /// Likewise, of addresses that networks use for themselves: those next to the cluster too,
    /// which is why their names may leave a pod that knows which are the cluster's.
    Private,
    /// Every name has the loopback addresses (RFC 6761 section 6.3).
    Loopback,
}

impl Local<'_> {
    /// Writes the reply to `query`, whose name is the zone's or below it.
    ///
    /// As from an empty zone of that name (RFC 6303 section 3): its own name exists, none below.
    pub fn answer(&self, query: &Query<'_>, reply: &mut Reply<'_>) {
        reply.set_recursion_available(true);
        reply.set_authoritative(true);
        let loopback: &[u8] = match (self.kind, query.qtype) {
            (Kind::Loopback, rtype::A) => &[127, 0, 0, 1],
            (Kind::Loopback, rtype::AAAA) => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            _ => &[],
        };
        if !loopback.is_empty() {
            let owner = Owner::Question;
            if reply.push(Section::Answer, owner, query.qtype, TTL_SECS, &[loopback]).is_none() {
                reply.set_truncated();
            }
            return;
        }
        if self.kind != Kind::Loopback {
            if query.name().len() > self.zone.len() {
                reply.set_rcode(rcode::NXDOMAIN);
            }
            reply.set_error(ErrorCode::Other, "answered here: this name never leaves the pod");
        }
        let zone_at = HEADER_LEN + query.name().len() - self.zone.len();
        let timers = [1, 3_600, 1_200, 604_800, TTL_SECS].map(u32::to_be_bytes).concat();
        let rdata: [&[u8]; 3] = [self.zone, NOBODY, &timers];
        // An SOA fits the smallest reply unless both names are near their limit: sent without,
        // then, which only means that nobody keeps the answer (RFC 2308 section 5).
        let owner = Owner::At(zone_at as u16);
        reply.push(Section::Authority, owner, rtype::SOA, TTL_SECS, &rdata);
    }
}

/// The zones of the lists in wire form.
pub(super) fn zones() -> impl Iterator<Item = (Box<[u8]>, Kind)> {
    let shared_space = (64..=127).map(|second| format!("{second}.100.in-addr.arpa"));
    let private = (16..=31).map(|second| format!("{second}.172.in-addr.arpa"));
    let private = private.chain(PRIVATE.iter().map(|&zone| zone.to_owned()));
    let listed = ZONES.iter().map(|&zone| zone.to_owned());
    let here = (0..2).map(|last| {
        let zeros = "0.".repeat(31);
        format!("{last}.{zeros}ip6.arpa")
    });
    let absent = listed.chain(here).map(|zone| (zone, Kind::Absent));
    let private = private.chain(shared_space).map(|zone| (zone, Kind::Private));
    absent
        .chain(private)
        .chain([("localhost".to_owned(), Kind::Loopback)])
        .map(|(zone, kind)| (wire(&zone).expect("the lists hold domain names"), kind))
}

/// A name in wire form as text without the last dot; bytes that are no letters, digits, `-` or `_`
/// as `\DDD` (RFC 1035 section 5.1).
pub fn text(name: &[u8]) -> String {
    let mut text = String::new();
    for label in labels(name) {
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label {
            match byte {
                b'-' | b'_' | b'*' => text.push(char::from(byte)),
                byte if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
                byte => text.push_str(&format!("\\{byte:03}")),
            }
        }
    }
    text
}

/// `nobody.invalid.`: whom to write to about an empty zone (RFC 6303 section 3).
const NOBODY: &[u8] = b"\x06nobody\x07invalid\x00";
/// How long clients may keep what is said here, in seconds: routes change with the configuration.
const TTL_SECS: u32 = 300;
/// Suffixes below which nothing outside exists or may be asked, beside ranges of them.
///
/// Not `test`, against RFC 6761 section 6.2: those who use it have a server for it, often the same
/// that they ask for everything else. Not the addresses of documentation, against RFC 6303 sections
/// 4.2 and 4.6: nobody has them, and Kubernetes' e2e tests ask an upstream of theirs about them.
const ZONES: [&str; 12] = [
    // RFC 6761 section 6.4, RFC 7686, RFC 8375.
    "invalid",
    "onion",
    "home.arpa",
    // Ours: where nobody serves it, nobody outside may be asked about it either.
    "cluster.local",
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

/// Reverse zones of private addresses (RFC 6303 sections 4.1 and 4.4), beside 172.16.0.0/12 and
/// 100.64.0.0/10 (RFC 7793), which are ranges of zones.
const PRIVATE: [&str; 3] = ["10.in-addr.arpa", "168.192.in-addr.arpa", "d.f.ip6.arpa"];

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use shared::wire::{NameBuffer, Transport};

    use super::*;

    fn ask(name: &str, qtype: u16, local: Kind, zone: &str) -> Message {
        let owner = wire(name).unwrap();
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(&owner);
        query.extend([qtype.to_be_bytes(), [0, 1]].concat());
        let mut buffer = NameBuffer::new();
        let query = Query::screen(&query, Transport::Udp, &mut buffer).unwrap();
        let mut out = [0; 512];
        let mut reply = Reply::new(&query, &mut out);
        let zone = wire(zone).unwrap();
        Local { zone: &zone, kind: local }.answer(&query, &mut reply);
        let len = reply.finish();
        Message::from_vec(&out[..len]).unwrap()
    }

    #[test]
    fn an_empty_zone_says_so() {
        let rows = [
            ("7.0.0.10.in-addr.arpa", rtype::PTR, "10.in-addr.arpa", rcode::NXDOMAIN),
            ("10.in-addr.arpa", rtype::PTR, "10.in-addr.arpa", rcode::NOERROR),
            ("a.b.onion", rtype::A, "onion", rcode::NXDOMAIN),
        ];
        for (name, qtype, zone, expected) in rows {
            let message = ask(name, qtype, Kind::Absent, zone);
            assert_eq!(u16::from(message.response_code), expected, "{name}");
            assert!(message.answers.is_empty(), "{name}");
            let [soa] = &message.authorities[..] else { panic!("{name}: an SOA") };
            assert_eq!(soa.name.to_ascii(), format!("{zone}."), "{name}");
            assert!(message.authoritative && message.recursion_available, "{name}");
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

    #[test]
    fn names_are_shown_without_control_characters() {
        assert_eq!(text(b"\x01a\x03b\n.\x00"), "a.b\\010\\046");
        assert_eq!(text(&[0]), "");
    }
}
