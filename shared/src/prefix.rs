//! Prefixes of addresses as text: `10.0.0.0/8`, `fd00::/8`, or one address.
//!
//! Core. Parses prefixes (RFC 4632, RFC 4291), compares addresses with them, and lists those that
//! are not global. Independent of their use.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that share their leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    first: IpAddr,
    /// The number of shared leading bits.
    bits: u8,
}

/// Why a text is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// It is neither an address nor an address with a valid number of bits.
    #[error("expected an address or a prefix, such as 10.0.0.7, 10.0.0.0/8, fd00::7 or fd00::/8")]
    Text,
    /// Bits after the prefix are set.
    #[error("the address has bits set behind the prefix, expected {expected}")]
    Bits {
        /// The prefix that was probably meant.
        expected: Prefix,
    },
}

/// Parses `ADDRESS` or `ADDRESS/BITS`. IPv4 written as IPv6 (`::ffff:10.0.0.7`) is IPv4.
///
/// Fails if it has another form, or if the address has bits set after the prefix.
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

/// Returns whether all addresses from `first` to `last`, of one family, are global: addresses of
/// the Internet, which a network next to the cluster cannot use for itself (RFC 6890).
///
/// Addresses of documentation count as global, because Kubernetes' own tests use them for
/// upstreams.
pub fn is_global(first: IpAddr, last: IpAddr) -> bool {
    !NOT_GLOBAL.iter().any(|prefix| prefix.overlaps(first, last))
}

impl Prefix {
    /// Returns an IPv4 prefix. The bits of `first` after `bits` must be 0.
    const fn v4(first: [u8; 4], bits: u8) -> Self {
        let [a, b, c, d] = first;
        Self { first: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    /// Returns the prefix of `address` with `bits` bits, or with those of its family if that is
    /// less.
    pub fn of(address: IpAddr, bits: u8) -> Self {
        let bits = bits.min(if address.is_ipv4() { 32 } else { 128 });
        let prefix = Self { first: address, bits };
        Self { first: prefix.masked(address), bits }
    }

    /// Returns an IPv6 prefix of at most 16 bits. The bits of `first` after `bits` must be 0.
    const fn v6(first: u16, bits: u8) -> Self {
        Self { first: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), bits }
    }

    /// Returns the number of leading bits that its addresses share.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Returns its first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Returns its last address.
    pub fn last(&self) -> IpAddr {
        let bits = u32::from(self.bits);
        match self.first {
            IpAddr::V4(first) => {
                let rest = u32::MAX.checked_shr(bits).unwrap_or(0);
                Ipv4Addr::from_bits(first.to_bits() | rest).into()
            }
            IpAddr::V6(first) => {
                let rest = u128::MAX.checked_shr(bits).unwrap_or(0);
                Ipv6Addr::from_bits(first.to_bits() | rest).into()
            }
        }
    }

    /// Returns whether it overlaps the addresses from `first` to `last`, of one family.
    pub fn overlaps(&self, first: IpAddr, last: IpAddr) -> bool {
        self.first.is_ipv4() == first.is_ipv4() && self.first <= last && first <= self.last()
    }

    /// Returns whether it contains `address`. IPv4 written as IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.begins(address.to_canonical())
    }

    /// Returns whether it contains all addresses from `first` to `last`, of one family, as written.
    pub fn contains_range(&self, first: IpAddr, last: IpAddr) -> bool {
        self.begins(first) && self.begins(last)
    }

    /// Returns whether `address` is of its family and has its leading bits.
    fn begins(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.masked(address) == self.first
    }

    /// Returns `address` with the bits after the prefix cleared.
    fn masked(&self, address: IpAddr) -> IpAddr {
        let bits = u32::from(self.bits);
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// Every address that is not global (RFC 6890).
pub const NOT_GLOBAL: [Prefix; 14] = [
    Prefix::v4([0, 0, 0, 0], 8),
    Prefix::v4([10, 0, 0, 0], 8),
    Prefix::v4([100, 64, 0, 0], 10),
    Prefix::v4([127, 0, 0, 0], 8),
    Prefix::v4([169, 254, 0, 0], 16),
    Prefix::v4([172, 16, 0, 0], 12),
    Prefix::v4([192, 0, 0, 0], 24),
    Prefix::v4([192, 168, 0, 0], 16),
    Prefix::v4([198, 18, 0, 0], 15),
    Prefix::v4([224, 0, 0, 0], 4),
    Prefix::v4([240, 0, 0, 0], 4),
    Prefix::v6(0, 3),
    Prefix::v6(0x4000, 2),
    Prefix::v6(0x8000, 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_global_is_nowhere_else_as_well() {
        let check = |text: &str, expected: bool| {
            let prefix = parse(text).unwrap();
            assert_eq!(is_global(prefix.first(), prefix.last()), expected, "{text}");
        };
        for text in ["8.8.8.8", "9.0.0.0/8", "11.0.0.0/8", "172.32.0.0/12", "100.128.0.0/9"] {
            check(text, true);
        }
        for text in ["10.0.0.0/8", "10.1.2.3", "0.0.0.0/0", "8.0.0.0/6", "172.0.0.0/8"] {
            check(text, false);
        }
        for text in ["127.0.0.1", "169.254.1.1", "255.255.255.255", "100.0.0.0/9"] {
            check(text, false);
        }
        for text in ["2001:db8::/32", "2000::/3", "3fff:ffff::", "192.0.2.0/24"] {
            check(text, true);
        }
        for text in ["::/0", "fd00::1", "fe80::/10", "::1", "1fff::", "4000::", "::/2"] {
            check(text, false);
        }
    }

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        let check = |text: &str, last: &str| {
            assert_eq!(parse(text).unwrap().last(), last.parse::<IpAddr>().unwrap(), "{text}");
        };
        check("10.0.0.0/8", "10.255.255.255");
        check("10.96.0.0/12", "10.111.255.255");
        check("10.0.0.7", "10.0.0.7");
        check("0.0.0.0/0", "255.255.255.255");
        check("fd00::/63", "fd00::1:ffff:ffff:ffff:ffff");
        check("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        check("::7/128", "::7");
    }

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
