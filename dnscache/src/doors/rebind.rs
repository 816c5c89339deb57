//! Refuses answers from outside with addresses that are inside: DNS rebinding.
//!
//! Core. A web page of `evil.example` can connect to any address of `evil.example`. If that becomes
//! an address of the cluster, the page can reach internal servers. Works on names and records,
//! without routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shared::prefix::{self, Prefix};
use shared::wire::{HEADER_LEN, name_end, rcode, rtype};

use super::INSIDE;
use crate::cache::Entry;
use crate::normalise::Answer;

/// The filter of answers from outside.
#[derive(Clone, Debug)]
pub struct Rebind {
    inside: Box<[Prefix]>,
    exempt: Box<[Box<[u8]>]>,
}

impl Rebind {
    /// Refuses addresses that are inside for all names except those at and below `exempt`, which
    /// are in lower-case wire form.
    pub fn new(exempt: &[Box<[u8]>]) -> Self {
        let texts = INSIDE.into_iter().chain(UNSPECIFIED);
        let parse = |text: &str| prefix::parse(text).expect("the literals are prefixes");
        Self { inside: texts.map(parse).collect(), exempt: exempt.into() }
    }

    /// Returns `answer` to a question about `name`, in lower-case wire form, made of `replies`.
    /// Each reply answers the alias at which the one before ends.
    ///
    /// If a record leads inside and a name that was asked on the way is outside, the answer is
    /// refused: it has no records, and is cached for as long as it would have been. The owner of
    /// that name chooses where it leads, so it does not matter whose record has the address.
    pub fn filter(
        &self,
        name: &[u8],
        replies: &[&[u8]],
        mut answer: Answer,
        is_outside: IsOutside<'_>,
    ) -> Answer {
        let rest = replies.get(1..).unwrap_or_default();
        let is_inside = |(rtype, rdata)| self.is_inside(rtype, rdata);
        // The cached answer for the target of an alias may already be refused, and then has no
        // records.
        let is_refused = |reply: &&[u8]| reply.get(3).is_some_and(|byte| byte & 0x0f == REFUSED);
        if answer.entry.each_record().any(is_inside) || rest.iter().any(is_refused) {
            let is_judged = |name: &[u8]| is_outside(name) && !self.is_exempt(name);
            // If a server does not repeat the question, the name in it is unknown.
            let is_reply_judged = |reply: &&[u8]| asked(reply).is_none_or(|name| is_judged(&name));
            if is_judged(name) || rest.iter().any(is_reply_judged) {
                answer.entry = Entry::blocked();
                answer.dangling = None;
            }
        }
        answer
    }

    /// Returns whether `name` is one of the exempt domains or below one.
    fn is_exempt(&self, name: &[u8]) -> bool {
        let mut rest = name;
        while let [length, tail @ ..] = rest {
            if self.exempt.iter().any(|domain| **domain == *rest) {
                return true;
            }
            rest = tail.get(usize::from(*length)..).unwrap_or_default();
        }
        false
    }

    /// Returns whether a record of type `rtype` holds an address that is inside. Malformed data of
    /// a type with addresses counts as such.
    fn is_inside(&self, rtype: u16, rdata: &[u8]) -> bool {
        match rtype {
            rtype::A => self.holds_v4(rdata),
            rtype::AAAA => self.holds_v6(rdata),
            SVCB | HTTPS => self.hints_inside(rdata).unwrap_or(true),
            _ => false,
        }
    }

    /// Returns whether a hint of a SVCB or HTTPS record is inside (RFC 9460 section 7.3); `None`
    /// if the record is malformed.
    fn hints_inside(&self, rdata: &[u8]) -> Option<bool> {
        let target = name_end(rdata, 2)?;
        let mut rest = rdata.get(target..)?;
        let mut is_inside = false;
        while !rest.is_empty() {
            let (&[k1, k0, l1, l0], tail) = rest.split_first_chunk::<4>()?;
            let (value, tail) = tail.split_at_checked(u16::from_be_bytes([l1, l0]).into())?;
            is_inside |= match u16::from_be_bytes([k1, k0]) {
                IPV4_HINT => value.chunks(4).any(|address| self.holds_v4(address)),
                IPV6_HINT => value.chunks(16).any(|address| self.holds_v6(address)),
                _ => false,
            };
            rest = tail;
        }
        Some(is_inside)
    }

    fn holds_v4(&self, octets: &[u8]) -> bool {
        let address = <[u8; 4]>::try_from(octets).map(Ipv4Addr::from);
        address.map_or(true, |address| self.holds(address.into()))
    }

    /// Judges an IPv6 address that contains an IPv4 address as that address: mapped (RFC 4291
    /// section 2.5.5.2), or of a translator (RFC 6052 section 2.1).
    fn holds_v6(&self, octets: &[u8]) -> bool {
        let Ok(octets) = <[u8; 16]>::try_from(octets) else { return true };
        match octets {
            [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, v4 @ ..] => self.holds_v4(&v4),
            _ => self.holds(Ipv6Addr::from(octets).to_canonical()),
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        self.inside.iter().any(|prefix| prefix.contains(address))
    }
}

/// Returns whether no route leads to servers of the cluster or of a stub domain for a name.
pub type IsOutside<'a> = &'a dyn Fn(&[u8]) -> bool;

/// Returns the name in the question of `reply`, in wire form and lower case.
fn asked(reply: &[u8]) -> Option<Vec<u8>> {
    let has_question = reply.get(4..6)? == [0, 1];
    let end = has_question.then(|| name_end(reply, HEADER_LEN)).flatten()?;
    Some(reply[HEADER_LEN..end].to_ascii_lowercase())
}

const REFUSED: u8 = rcode::REFUSED as u8;
/// Addresses that hosts treat as their own, and two former ranges of IPv6 for addresses inside (RFC
/// 4291 section 2.5.5.1, RFC 3879).
const UNSPECIFIED: [&str; 3] = ["0.0.0.0/8", "::/96", "fec0::/10"];
const SVCB: u16 = 64;
const HTTPS: u16 = 65;
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use shared::name::parse;

    #[test]
    fn addresses_inside_are_told_from_those_outside() {
        let rebind = Rebind::new(&[]);
        let check = |text: &str, expected: bool| {
            let (rtype, octets) = match text.parse().unwrap() {
                IpAddr::V4(ip) => (rtype::A, ip.octets().to_vec()),
                IpAddr::V6(ip) => (rtype::AAAA, ip.octets().to_vec()),
            };
            assert_eq!(rebind.is_inside(rtype, &octets), expected, "{text}");
            // The same as a hint, next to a parameter that must be ignored.
            let key = if rtype == rtype::A { IPV4_HINT } else { IPV6_HINT };
            let alpn = [0, 1, 0, 3, 2, b'h', b'2'];
            let hint = [&[0, key as u8, 0, octets.len() as u8][..], &octets].concat();
            let rdata = [&b"\0\x01\x01a\0"[..], &alpn, &hint].concat();
            assert_eq!(rebind.is_inside(SVCB, &rdata), expected, "hint {text}");
            assert_eq!(rebind.is_inside(HTTPS, &rdata), expected, "hint {text}");
            assert!(!rebind.is_inside(rtype::TXT, &octets), "{text}");
        };
        let inside_v4 = ["0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0"]
            .into_iter()
            .chain(["100.127.255.255", "127.0.0.0", "127.0.0.1", "127.255.255.255"])
            .chain(["169.254.0.0", "169.254.169.254", "169.254.255.255", "172.16.0.0"])
            .chain(["172.31.255.255", "192.168.0.0", "192.168.255.255", "198.18.0.0"])
            .chain(["198.19.255.255", "240.0.0.0", "255.255.255.255"]);
        let outside_v4 = ["1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"]
            .into_iter()
            .chain(["126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0"])
            .chain(["172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0"])
            .chain(["198.17.255.255", "198.20.0.0", "192.0.2.1", "8.8.8.8", "223.255.255.255"]);
        let rows = inside_v4.map(|text| (text, true)).chain(outside_v4.map(|text| (text, false)));
        for (text, expected) in rows {
            check(text, expected);
            check(&format!("::ffff:{text}"), expected);
            check(&format!("64:ff9b::{text}"), expected);
        }
        for text in ["::", "::1", "::2", "::10.0.0.1", "::8.8.8.8", "fc00::", "fd00::1", "fdff::"] {
            check(text, true);
        }
        for text in ["fe80::", "fe80::1", "febf:ffff::", "fec0::1", "feff::"] {
            check(text, true);
        }
        for text in ["::1:0:0", "::fffe:a00:1", "1::", "64:ff9a::a00:1", "64:ff9b:0:0:1::a00:1"] {
            check(text, false);
        }
        for text in ["64:ff9b:1::a00:1", "2001:db8::a00:1", "2606:4700::1111", "fbff::", "fe7f::"] {
            check(text, false);
        }
    }

    #[test]
    fn every_hint_counts_and_malformed_data_is_inside() {
        let rebind = Rebind::new(&[]);
        let rows: [(u16, &[u8], bool); 18] = [
            (rtype::A, b"\x08\x08\x08\x08", false),
            (rtype::A, b"\x08\x08\x08", true),
            (rtype::A, b"\x08\x08\x08\x08\x08", true),
            (rtype::A, b"", true),
            (rtype::AAAA, b"\x20\x01", true),
            (HTTPS, b"\0\0\x01a\0", false),
            (HTTPS, b"\0\x01\0", false),
            (HTTPS, b"\0\x01\0\0\x04\0\x08\x08\x08\x08\x08\x08\x08\x04\x04", false),
            (HTTPS, b"\0\x01\0\0\x04\0\x08\x08\x08\x08\x08\x0a\0\0\x01", true),
            (HTTPS, b"\0\x01\0\0\x04\0\x08\x0a\0\0\x01\x08\x08\x08\x08", true),
            (HTTPS, b"\0\x01\0\0\x04\0\x04\x0a\0\0\x01\0\x05\0\x01x", true),
            (HTTPS, b"\0\x01\0\0\x03\0\x02\x01\xbb\0\x04\0\x04\x7f\0\0\x01", true),
            (HTTPS, b"\0\0\x01a\0\0\x04\0\x04\x0a\0\0\x01", true),
            (HTTPS, b"\0\x01\0\0\x05\0\x04\x0a\0\0\x01", false),
            (HTTPS, b"\0\x01\0\0\x04\0\x05\x08\x08\x08\x08\x08", true),
            (HTTPS, b"\0\x01\0\0\x04\0\x08\x08\x08\x08\x08", true),
            (HTTPS, b"\0\x01\x05a\0", true),
            (SVCB, b"\0", true),
        ];
        for (rtype, rdata, expected) in rows {
            assert_eq!(rebind.is_inside(rtype, rdata), expected, "{rtype} {rdata:?}");
        }
    }

    #[test]
    fn exempt_domains_hold_whole_labels() {
        let exempt = |text: &str| parse(text).unwrap();
        let rebind = Rebind::new(&[exempt("corp.example"), exempt("dnsbl.test")]);
        for name in ["corp.example", "a.corp.example", "a.b.corp.example", "2.0.0.127.dnsbl.test"] {
            assert!(rebind.is_exempt(&parse(name).unwrap()), "{name}");
        }
        for name in ["acorp.example", "example", "corp.example.net", "test", "corp", "a.example"] {
            assert!(!rebind.is_exempt(&parse(name).unwrap()), "{name}");
        }
        assert!(!rebind.is_exempt(b"\0") && !Rebind::new(&[]).is_exempt(b"\x01a\0"));
    }
}
