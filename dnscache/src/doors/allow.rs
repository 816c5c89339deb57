//! The clients that are allowed to query.
//!
//! Core. Called for each query before the cache, so an address that its first octet decides costs
//! one look-up in a table.

use std::array;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shared::prefix::{self, Prefix};

use super::INSIDE;

/// The prefixes of the clients that are allowed.
#[derive(Clone, Debug)]
pub struct Allowed {
    v4: Family,
    v6: Family,
}

/// The prefixes of one family.
#[derive(Clone, Debug)]
struct Family {
    by_first_octet: [First; 256],
    prefixes: Box<[Prefix]>,
}

/// What follows from the first octet of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Allow,
    Refuse,
    /// Some addresses with this octet are allowed.
    Compare,
}

impl Allowed {
    /// Allows the clients in `prefixes`; if there are none, clients whose addresses are not on the
    /// Internet. The pod itself is always allowed, because healthz probes from there.
    pub fn new(prefixes: &[Prefix]) -> Self {
        let mut all = prefixes.to_vec();
        if prefixes.is_empty() {
            let inside = |text: &str| prefix::parse(text).expect("the literals are prefixes");
            all.extend(INSIDE.map(inside));
        }
        all.push(Prefix::of(Ipv4Addr::LOCALHOST.into(), 32));
        all.push(Prefix::of(Ipv6Addr::LOCALHOST.into(), 128));
        let (v4, v6) = all.into_iter().partition(|prefix| prefix.first().is_ipv4());
        Self {
            v4: Family::new(v4, |octet| Prefix::of(Ipv4Addr::new(octet, 0, 0, 0).into(), 8)),
            v6: Family::new(v6, |octet| {
                let first = u16::from(octet) << 8;
                Prefix::of(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0).into(), 8)
            }),
        }
    }

    /// Returns whether `client` is allowed. IPv4 written as IPv6 counts as IPv4.
    #[inline]
    pub fn admits(&self, client: IpAddr) -> bool {
        match client.to_canonical() {
            IpAddr::V4(client) => self.v4.admits(client.octets()[0], client.into()),
            IpAddr::V6(client) => self.v6.admits(client.octets()[0], client.into()),
        }
    }
}

impl Family {
    /// Returns the prefixes of one family. `beginning` returns the prefix of all addresses with a
    /// first octet.
    fn new(prefixes: Vec<Prefix>, beginning: impl Fn(u8) -> Prefix) -> Self {
        let first = |octet: usize| {
            let octet = beginning(octet as u8);
            let (first, last) = (octet.first(), octet.last());
            match () {
                () if prefixes.iter().any(|it| it.contains_range(first, last)) => First::Allow,
                () if prefixes.iter().any(|it| it.overlaps(first, last)) => First::Compare,
                () => First::Refuse,
            }
        };
        Self { by_first_octet: array::from_fn(first), prefixes: prefixes.into() }
    }

    #[inline]
    fn admits(&self, first_octet: u8, client: IpAddr) -> bool {
        match self.by_first_octet[usize::from(first_octet)] {
            First::Allow => true,
            First::Refuse => false,
            First::Compare => self.prefixes.iter().any(|prefix| prefix.contains(client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_answered_if_a_prefix_holds_them() {
        let check = |prefixes: &[&str], inside: &[&str], outside: &[&str]| {
            let parsed: Vec<_> = prefixes.iter().map(|text| prefix::parse(text).unwrap()).collect();
            let allowed = Allowed::new(&parsed);
            for (clients, expected) in [(inside, true), (outside, false)] {
                for client in clients {
                    let ip: IpAddr = client.parse().unwrap();
                    assert_eq!(allowed.admits(ip), expected, "{prefixes:?} {client}");
                    if let IpAddr::V4(ip) = ip {
                        let mapped = ip.to_ipv6_mapped().into();
                        assert_eq!(allowed.admits(mapped), expected, "{prefixes:?} {mapped}");
                    }
                }
            }
        };
        // Without a flag: each range with its neighbours.
        check(&[], &["10.0.0.0", "10.255.255.255"], &["9.255.255.255", "11.0.0.0"]);
        check(&[], &["100.64.0.0", "100.127.255.255"], &["100.63.255.255", "100.128.0.0"]);
        check(&[], &["127.0.0.1", "127.255.255.255"], &["126.255.255.255", "128.0.0.0"]);
        check(&[], &["169.254.0.0", "169.254.255.255"], &["169.253.255.255", "169.255.0.0"]);
        check(&[], &["172.16.0.0", "172.31.255.255"], &["172.15.255.255", "172.32.0.0"]);
        check(&[], &["192.168.0.0", "192.168.255.255"], &["192.167.255.255", "192.169.0.0"]);
        check(&[], &["198.18.0.0", "198.19.255.255"], &["198.17.255.255", "198.20.0.0"]);
        check(&[], &["240.0.0.1", "255.255.255.254"], &["239.255.255.255", "8.8.8.8"]);
        check(&[], &["::1"], &["::", "::2", "::a00:1", "1::", "64:ff9b::a00:1"]);
        check(&[], &["fc00::", "fdff::ffff"], &["fbff::", "fe00::"]);
        check(&[], &["fe80::1", "febf::"], &["fe7f::", "fec0::", "ff02::1", "2001:db8::1"]);
        // A flag replaces them all, but the pod itself is still allowed.
        let pod = ["127.0.0.1", "::1"];
        check(&["192.0.2.0/24"], &["192.0.2.1"], &["192.0.3.1", "10.0.0.1", "127.0.0.2", "fd00::"]);
        check(&["192.0.2.0/24"], &pod, &["::2", "127.0.0.0", "192.0.1.255", "192.168.0.1"]);
        check(&["127.0.0.1/32"], &pod, &["127.0.0.2", "126.0.0.1"]);
        check(&["192.0.2.7"], &["192.0.2.7"], &["192.0.2.6", "192.0.2.8"]);
        check(&["8.0.0.0/6"], &["8.0.0.0", "11.255.255.255"], &["7.255.255.255", "12.0.0.0"]);
        check(&["10.0.0.0/9", "10.128.0.0/9"], &["10.0.0.1", "10.255.0.1"], &["11.0.0.0"]);
        check(&["0.0.0.0/0"], &["0.0.0.1", "8.8.8.8", "255.0.0.1"], &["2001:db8::1", "fd00::1"]);
        check(&["::/0"], &["2001:db8::1", "ffff::", "::2"], &["8.8.8.8", "10.0.0.1"]);
        check(&["0.0.0.0/0", "::/0"], &["8.8.8.8", "2001:db8::1"], &[]);
        check(&["2001:db8::/32"], &["2001:db8:ffff::"], &["2001:db7::", "2001:db9::", "2000::"]);
        check(&["2000::/3"], &["2000::", "3fff::"], &["1fff::", "4000::"]);
        check(&["::ffff:192.0.2.0/120"], &["192.0.2.9"], &["192.0.3.0", "::c000:209"]);
    }

    #[test]
    fn the_table_agrees_with_the_prefixes() {
        let parse = |text: &&str| prefix::parse(text).unwrap();
        let texts = ["10.0.0.0/7", "13.128.0.0/9", "192.0.2.1", "2001:db8::/33", "fd00::/8"];
        let prefixes: Vec<_> = texts.iter().map(parse).collect();
        let allowed = Allowed::new(&prefixes);
        for octet in 0..=u8::MAX {
            for second in [0, 1, 127, 128, 255] {
                let v6 = u16::from_be_bytes([octet, second]);
                for ip in [
                    IpAddr::from([octet, second, 2, 1]),
                    IpAddr::from([v6, 0xdb8, 0, 0, 0, 0, 0, 1]),
                    IpAddr::from([v6, 0xdb8, 0x8000, 0, 0, 0, 0, 1]),
                ] {
                    let expected = prefixes.iter().any(|prefix| prefix.contains(ip));
                    assert_eq!(allowed.admits(ip), expected, "{ip}");
                }
            }
        }
    }
}
