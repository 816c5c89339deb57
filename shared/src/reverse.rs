//! Reverse names: the addresses of names below `in-addr.arpa` and `ip6.arpa`.
//!
//! Core. Parses addresses that are written as names (RFC 1035 section 3.5, RFC 3596 section 2.5),
//! independent of their owners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::labels;

/// The meaning of a name below `in-addr.arpa` or `ip6.arpa`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reverse {
    /// One address.
    Address(IpAddr),
    /// An ancestor of the names of these addresses, first and last.
    Range(IpAddr, IpAddr),
    /// No address has a name here or below. The addresses, first and last, are those of the nearest
    /// ancestor that has any.
    Nothing(IpAddr, IpAddr),
}

impl Reverse {
    /// Returns the addresses, first and last, of the name or of its nearest ancestor that has any.
    pub fn range(self) -> (IpAddr, IpAddr) {
        match self {
            Self::Address(address) => (address, address),
            Self::Range(first, last) | Self::Nothing(first, last) => (first, last),
        }
    }
}

/// Parses `name`, in lower-case wire form. `None` if it is neither `in-addr.arpa` nor `ip6.arpa`
/// nor below one of them.
pub fn parse(name: &[u8]) -> Option<Reverse> {
    let labels: Vec<&[u8]> = labels(name).collect();
    let (zone, left) =
        labels.split_at_checked(labels.len().checked_sub(2)?).map(|(l, z)| (z, l))?;
    let read = left.iter().rev().copied();
    match zone {
        [b"in-addr", b"arpa"] => Some(in_addr(read)),
        [b"ip6", b"arpa"] => Some(ip6(read)),
        _ => None,
    }
}

/// Parses the labels left of `in-addr.arpa`, from right to left: one octet each.
pub fn in_addr<'l>(mut labels: impl Iterator<Item = &'l [u8]>) -> Reverse {
    let mut first = [0; 4];
    let mut read = 0;
    let all = loop {
        match labels.next() {
            None => break true,
            Some(label) => match octet(label).filter(|_| read < first.len()) {
                Some(octet) => first[read] = octet,
                None => break false,
            },
        }
        read += 1;
    };
    let mut last = first;
    last[read..].fill(0xff);
    reverse_of(Ipv4Addr::from(first).into(), Ipv4Addr::from(last).into(), all)
}

/// Parses the labels left of `ip6.arpa`, from right to left: one nibble each.
pub fn ip6<'l>(mut labels: impl Iterator<Item = &'l [u8]>) -> Reverse {
    let mut first = 0_u128;
    let mut read = 0;
    let all = loop {
        match labels.next() {
            None => break true,
            Some(label) => match nibble(label).filter(|_| read < NIBBLES) {
                Some(nibble) => first |= u128::from(nibble) << (124 - 4 * read),
                None => break false,
            },
        }
        read += 1;
    };
    let last = first | u128::MAX.checked_shr(4 * read).unwrap_or(0);
    reverse_of(Ipv6Addr::from(first).into(), Ipv6Addr::from(last).into(), all)
}

/// Returns the meaning of labels that denote the addresses from `first` to `last`. `all` is set if
/// every label is valid.
fn reverse_of(first: IpAddr, last: IpAddr, all: bool) -> Reverse {
    match all {
        true if first == last => Reverse::Address(first),
        true => Reverse::Range(first, last),
        false => Reverse::Nothing(first, last),
    }
}

/// Parses a number from 0 to 255 without leading zeros.
fn octet(label: &[u8]) -> Option<u8> {
    let canonical = label.len() == 1 || label.first() != Some(&b'0');
    let digits = label.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(label).ok().filter(|_| canonical && digits)?;
    text.parse().ok()
}

/// Parses one hexadecimal digit in lower case.
fn nibble(label: &[u8]) -> Option<u8> {
    match *label {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        [digit @ b'a'..=b'f'] => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Nibbles of an IPv6 address.
const NIBBLES: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns `text` in wire form.
    fn wire(text: &str) -> Vec<u8> {
        let labels = text.split('.').filter(|label| !label.is_empty());
        let mut name: Vec<u8> =
            labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        name.push(0);
        name
    }

    #[test]
    fn names_stand_for_addresses() {
        let check = |text: &str, expected: Option<Reverse>| {
            assert_eq!(parse(&wire(text)), expected, "{text}");
        };
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = |text| Some(Reverse::Address(address(text)));
        let range = |first, last| Some(Reverse::Range(address(first), address(last)));
        let nothing = |first, last| Some(Reverse::Nothing(address(first), address(last)));
        const LAST: &str = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        const LAST_FD: &str = "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        check("7.0.96.10.in-addr.arpa", one("10.96.0.7"));
        check("96.10.in-addr.arpa", range("10.96.0.0", "10.96.255.255"));
        check("in-addr.arpa", range("0.0.0.0", "255.255.255.255"));
        check("1.7.0.96.10.in-addr.arpa", nothing("10.96.0.7", "10.96.0.7"));
        check("07.0.96.10.in-addr.arpa", nothing("10.96.0.0", "10.96.0.255"));
        check("256.0.96.10.in-addr.arpa", nothing("10.96.0.0", "10.96.0.255"));
        check("1.x.96.10.in-addr.arpa", nothing("10.96.0.0", "10.96.255.255"));
        check("8.+8.in-addr.arpa", nothing("0.0.0.0", "255.255.255.255"));
        check("ip6.arpa", range("::", LAST));
        check("d.f.ip6.arpa", range("fd00::", LAST_FD));
        check("10.d.f.ip6.arpa", nothing("fd00::", LAST_FD));
        let long = format!("7.{}1.0.0.2.ip6.arpa", "0.".repeat(27));
        check(&long, one("2001::7"));
        check(&format!("7.{long}"), nothing("2001::7", "2001::7"));
        for other in ["", "arpa", "example", "7.in-addr", "in-addr.arpa.example", "ip6.arpb"] {
            check(other, None);
        }
        let inside = [b"\x09x\x07in-addr\x04arpa".as_slice(), b"\0"].concat();
        assert_eq!(parse(&inside), None, "a dot is not a byte of a label");
    }
}
