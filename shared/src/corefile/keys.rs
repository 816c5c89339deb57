//! Keys of server blocks and zones in arguments: `[SCHEME://]ZONE[:PORT]`, where a zone can be a
//! prefix of addresses.
//!
//! Core.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::name::domain;
use crate::prefix::Prefix;

/// A domain in lower case without its final dot; the root is `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(String);

/// The transport of queries for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// DNS over UDP and TCP.
    Dns,
    /// DNS over TLS.
    Tls,
    /// DNS over QUIC.
    Quic,
    /// DNS over gRPC.
    Grpc,
    /// DNS over HTTPS.
    Https,
    /// DNS over HTTP/3.
    Https3,
}

/// A key of a server block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The transport of queries.
    pub scheme: Scheme,
    /// The zones. A prefix of addresses becomes several zones.
    pub zones: Vec<Zone>,
    /// The prefix, if the key is one.
    pub prefix: Option<Prefix>,
    /// The port, if it is given.
    pub port: Option<u16>,
}

/// Why a word is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text before the port is neither a domain nor a prefix.
    #[error(
        "{0:?} is not a zone; expected a domain name of letters, digits, '-' and '_', or a prefix \
         of addresses, such as cluster.local, 10.0.0.0/24 or .:53"
    )]
    Zone(String),
    /// The port is not valid.
    #[error("port {0:?} is not allowed; expected 1 to 65535")]
    Port(String),
}

impl Scheme {
    /// Returns the default port.
    pub fn port(self) -> u16 {
        match self {
            Self::Dns => 53,
            Self::Tls | Self::Quic => 853,
            Self::Grpc | Self::Https | Self::Https3 => 443,
        }
    }

    /// Returns the text before the zone.
    pub fn prefix(self) -> &'static str {
        SCHEMES.iter().find(|(_, scheme)| *scheme == self).map_or("", |(prefix, _)| prefix)
    }
}

impl Key {
    /// Parses a key of a block.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let scheme = SCHEMES.iter().find(|(prefix, _)| text.starts_with(prefix));
        let (scheme, rest) = match scheme {
            Some((prefix, scheme)) => (*scheme, &text[prefix.len()..]),
            None => (Scheme::Dns, text),
        };
        let (zone, port) = match rest.rsplit_once(':') {
            Some((zone, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                let number = port.parse().ok().filter(|&port: &u16| port > 0);
                (zone, Some(number.ok_or_else(|| KeyError::Port(port.to_owned()))?))
            }
            _ => (rest, None),
        };
        let error = || KeyError::Zone(text.to_owned());
        let prefix = prefix(zone);
        let zones = match prefix {
            // CoreDNS cannot distinguish these from a zone with a port.
            Some(_) if zone.contains(':') && zone.starts_with([':', '0']) => return Err(error()),
            Some(prefix) => reverse(prefix),
            None => vec![Zone::parse(zone).ok_or_else(error)?],
        };
        Ok(Self { scheme, zones, prefix, port })
    }
}

impl Zone {
    /// Returns the root.
    pub fn root() -> Self {
        Self(".".to_owned())
    }

    /// Parses a domain name; `None` if the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "." {
            return Some(Self::root());
        }
        domain(text).map(Self)
    }

    /// Returns the zone as it is written in flags; the root is `.`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0 == "."
    }

    /// Returns whether it is `other` or a subdomain of it.
    pub fn is_within(&self, other: &Zone) -> bool {
        let above = self.0.strip_suffix(&other.0);
        other.is_root() || above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }

    /// Returns whether names below it are those of addresses.
    pub fn is_reverse(&self) -> bool {
        REVERSE.iter().any(|zone| self.is_within(&Self((*zone).to_owned())))
    }

    /// Returns how many labels it has.
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { self.0.split('.').count() }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses `ADDRESS/BITS`, and clears the bits of the host.
fn prefix(text: &str) -> Option<Prefix> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let bits: u8 = bits.parse().ok().filter(|_| is_number)?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then(|| Prefix::of(address, bits))
}

/// Returns the reverse zones of a prefix: one, or as many as necessary up to the end of the octet
/// (IPv4) or nibble (IPv6) in which the prefix ends.
fn reverse(prefix: Prefix) -> Vec<Zone> {
    let bits = u32::from(prefix.bits());
    match prefix.first() {
        IpAddr::V4(first) => {
            let octets = bits.div_ceil(8);
            let step = 1u64 << (32 - octets * 8);
            let count = 1u64 << (octets * 8 - bits);
            let zone = |at: u64| {
                let address = (u64::from(first.to_bits()) + at * step) as u32;
                let labels = address.to_be_bytes();
                let labels =
                    labels[..octets as usize].iter().rev().map(|octet| format!("{octet}."));
                Zone(labels.collect::<String>() + "in-addr.arpa")
            };
            (0..count).map(zone).collect()
        }
        IpAddr::V6(first) => {
            let nibbles = bits.div_ceil(4);
            let step = 1u128.checked_shl(128 - nibbles * 4).unwrap_or(0);
            let count = 1u128 << (nibbles * 4 - bits);
            let zone = |at: u128| {
                let address =
                    Ipv6Addr::from_bits(first.to_bits().wrapping_add(at * step)).to_bits();
                let nibble = |at: u32| (address >> (124 - at * 4)) & 0xf;
                let labels = (0..nibbles).rev().map(|at| format!("{:x}.", nibble(at)));
                Zone(labels.collect::<String>() + "ip6.arpa")
            };
            (0..count).map(zone).collect()
        }
    }
}

const SCHEMES: [(&str, Scheme); 6] = [
    ("dns://", Scheme::Dns),
    ("tls://", Scheme::Tls),
    ("quic://", Scheme::Quic),
    ("grpc://", Scheme::Grpc),
    ("https://", Scheme::Https),
    ("https3://", Scheme::Https3),
];
const REVERSE: [&str; 2] = ["in-addr.arpa", "ip6.arpa"];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match Key::parse(text) {
            Err(error) => format!("error: {error}"),
            Ok(Key { scheme, zones, port, .. }) => {
                let zones: Vec<&str> = zones.iter().map(Zone::as_str).collect();
                let shown = match &zones[..] {
                    [first, _, .., last] => format!("{first}..{last} ({})", zones.len()),
                    zones => zones.join(" "),
                };
                format!("{}{shown}:{}", scheme.prefix(), port.unwrap_or(scheme.port()))
            }
        }
    }

    #[test]
    fn keys_have_zones_ports_and_schemes() {
        let rows = [
            (".", "dns://.:53"),
            (".:1053", "dns://.:1053"),
            ("Cluster.Local.", "dns://cluster.local:53"),
            ("dns://a.example:54", "dns://a.example:54"),
            ("tls://.", "tls://.:853"),
            ("https://a.example", "https://a.example:443"),
            ("10.0.0.0/24", "dns://0.0.10.in-addr.arpa:53"),
            ("10.0.0.7/24:54", "dns://0.0.10.in-addr.arpa:54"),
            ("10.0.0.0/27", "dns://0.0.0.10.in-addr.arpa..31.0.0.10.in-addr.arpa (32):53"),
            ("10.0.0.0/17", "dns://0.0.10.in-addr.arpa..127.0.10.in-addr.arpa (128):53"),
            ("10.3.0.0/8", "dns://10.in-addr.arpa:53"),
            ("0.0.0.0/0", "dns://in-addr.arpa:53"),
            ("192.0.2.7/32", "dns://7.2.0.192.in-addr.arpa:53"),
            ("2001:db8::/32", "dns://8.b.d.0.1.0.0.2.ip6.arpa:53"),
            ("fd00::/6", "dns://c.f.ip6.arpa..f.f.ip6.arpa (4):53"),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text), expected, "{text}");
        }
        for text in [
            "$domain",
            "*.a",
            "",
            ":53",
            "a..b",
            ".a",
            "./etc/resolv.conf",
            ".{",
            "a:0",
            "a:70000",
            "a:",
        ] {
            assert!(read(text).starts_with("error: "), "{text}: {}", read(text));
        }
        for text in ["::/8", "0db8::/16", "10.0.0.0/33", &format!("{}.a", "x".repeat(64))] {
            assert!(read(text).starts_with("error: "), "{text}: {}", read(text));
        }
    }

    #[test]
    fn a_zone_is_within_itself_and_those_above() {
        let zone = |text| Zone::parse(text).unwrap();
        for (one, other, expected) in [
            ("a.b", "b", true),
            ("a.b", "a.b", true),
            ("a.b", ".", true),
            (".", ".", true),
            (".", "b", false),
            ("xb", "b", false),
            ("b", "a.b", false),
        ] {
            assert_eq!(zone(one).is_within(&zone(other)), expected, "{one} {other}");
        }
        assert!(zone("10.in-addr.arpa").is_reverse() && !zone("arpa").is_reverse());
        assert_eq!((zone(".").depth(), zone("a.b").depth()), (0, 2));
    }
}
