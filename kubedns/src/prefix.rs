//! Prefixes of addresses as text: `10.0.0.0/8`, `fd00::/8`, or one address.
//!
//! Core. Knows how prefixes are written (RFC 4632, RFC 4291) and what is in them; does not know
//! what for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// The addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    first: IpAddr,
    /// How many leading bits all share.
    bits: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// It is neither an address nor an address and a number of bits that it has.
    #[error("expected an address or a prefix, such as 10.0.0.7, 10.0.0.0/8, fd00::7 or fd00::/8")]
    Text,
    /// Bits behind the prefix are set.
    #[error("the address has bits set behind the prefix, expected {expected}")]
    Bits {
        /// What was meant, or so it seems.
        expected: Prefix,
    },
}

/// Reads `ADDRESS` or `ADDRESS/BITS`. IPv4 written as IPv6 (`::ffff:10.0.0.7`) is IPv4.
///
/// Fails on anything else, and where the address has bits set behind the prefix.
pub fn parse(text: &str) -> Result<Prefix, PrefixError> {
    let (address, bits) = match text.split_once('/') {
        None => (text, None),
        Some((address, bits)) => (address, Some(bits)),
    };
    let address: IpAddr = address.parse().map_err(|_| PrefixError::Text)?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => width,
        Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
            bits.parse().ok().filter(|&bits| bits <= width).ok_or(PrefixError::Text)?
        }
        Some(_) => return Err(PrefixError::Text),
    };
    let prefix = match (address.to_canonical(), bits) {
        (first @ IpAddr::V4(_), 96..) if width == 128 => Prefix { first, bits: bits - 96 },
        (IpAddr::V4(_), _) if width == 128 => Prefix { first: address, bits },
        (first, _) => Prefix { first, bits },
    };
    let expected = Prefix { first: prefix.masked(prefix.first), ..prefix };
    if expected == prefix { Ok(prefix) } else { Err(PrefixError::Bits { expected }) }
}

impl Prefix {
    /// Whether `address` is in it, IPv4 written as IPv6 taken as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.begins(address.to_canonical())
    }

    /// Whether all addresses from `first` to `last`, of one family, are in it, each taken as it is.
    pub fn contains_range(&self, first: IpAddr, last: IpAddr) -> bool {
        self.begins(first) && self.begins(last)
    }

    /// Whether `address` is of its family and begins like it.
    fn begins(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.masked(address) == self.first
    }

    /// `address` with the bits behind the prefix cleared.
    fn masked(&self, address: IpAddr) -> IpAddr {
        let bits = u32::from(self.bits);
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                std::net::Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_and_hold_what_begins_alike() {
        let check = |text: &str, inside: &[&str], outside: &[&str]| {
            let prefix = parse(text).unwrap();
            let holds = |address: &&str| prefix.contains(address.parse().unwrap());
            assert!(inside.iter().all(holds), "{text}");
            assert!(!outside.iter().any(holds), "{text}");
        };
        check("10.0.0.7", &["10.0.0.7", "::ffff:10.0.0.7"], &["10.0.0.8", "::a00:7"]);
        check("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"], &["11.0.0.0", "9.255.255.255"]);
        check("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::", "fd00::1"]);
        check("10.0.0.7/32", &["10.0.0.7"], &["10.0.0.6"]);
        check("fd00::/8", &["fd00::1", "fdff::"], &["fe00::", "10.0.0.7"]);
        check("::/0", &["::1", "ffff::"], &["10.0.0.7", "::ffff:10.0.0.7"]);
        check("::1", &["::1"], &["::2", "0.0.0.1"]);
        check("::ffff:10.0.0.0/104", &["10.0.0.7"], &["11.0.0.7"]);
    }

    #[test]
    fn a_range_is_in_it_where_both_ends_are() {
        let check = |text: &str, first: &str, last: &str, expected: bool| {
            let (first, last) = (first.parse().unwrap(), last.parse().unwrap());
            assert_eq!(parse(text).unwrap().contains_range(first, last), expected, "{text}");
        };
        check("10.0.0.0/8", "10.1.0.0", "10.1.255.255", true);
        check("10.0.0.0/8", "0.0.0.0", "255.255.255.255", false);
        check("::/3", "::", "::ffff:ffff:ffff", true);
        check("::/3", "::", "2000::", false);
        check("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:10.0.0.1", false);
    }

    #[test]
    fn other_texts_are_refused() {
        let wrong =
            ["", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "here", "10.0.0.0/+8"];
        for text in wrong.into_iter().chain(["10.0.0.0/8/8", "10.0.0.0/255.0.0.0", "[::1]", " ::1"])
        {
            assert_eq!(parse(text), Err(PrefixError::Text), "{text}");
        }
        let said = parse("10.0.0.7/8").unwrap_err().to_string();
        assert!(said.ends_with("expected 10.0.0.0/8"), "{said}");
        assert!(parse("fd00::1/8").is_err() && parse("::ffff:0.0.0.0/90").is_err());
    }
}
