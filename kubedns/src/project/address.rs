//! Addresses in the spellings of the API.
//!
//! Core. Knows the texts that API servers accept; does not know which field holds them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shared::prefix::Prefix;

use super::{LeftOut, Reason};

/// Parses an address as Kubernetes does. Returns `None` if an API server refuses it.
///
/// API servers up to 1.35 accept, and keep, spellings that most parsers refuse (KEP-4858): leading
/// zeros, which do not make a number octal, and IPv4 written as IPv6 (`::ffff:10.1.0.7`), which is
/// the IPv4 address.
pub(super) fn parse(text: &str) -> Option<IpAddr> {
    match text.bytes().find(|byte| matches!(byte, b'.' | b':'))? {
        b'.' => v4(text).map(IpAddr::V4),
        _ => v6(text).map(|address| IpAddr::V6(address).to_canonical()),
    }
}

/// Reads the addresses in `field`, each once and in their order.
///
/// A text that is not an address is noted in `left_out`. Fails if no text is one, or if there are
/// more than [`ADDRESSES_MAX`].
pub(super) fn parse_all<'t>(
    field: &'static str,
    texts: impl IntoIterator<Item = &'t str>,
    left_out: &mut LeftOut,
) -> Result<Vec<IpAddr>, Reason> {
    let mut addresses = Vec::new();
    let mut unreadable = None;
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        match parse(text) {
            Some(address) if addresses.contains(&address) => {}
            Some(_) if addresses.len() == ADDRESSES_MAX => {
                let what = "addresses";
                return Err(Reason::TooMany { what, count: ADDRESSES_MAX + 1, max: ADDRESSES_MAX });
            }
            Some(address) => addresses.push(address),
            None => unreadable = unreadable.or(Some(Reason::address(field, text, "IP"))),
        }
    }
    match unreadable {
        Some(reason) if addresses.is_empty() => return Err(reason),
        Some(reason) => left_out.note(reason),
        None => {}
    }
    Ok(addresses)
}

/// Reads the ranges of addresses in `field`, such as `10.96.0.0/12`. Bits after the prefix are
/// ignored.
///
/// A text that is not a range is noted in `left_out`, and so are all beyond [`ADDRESSES_MAX`].
pub(super) fn parse_ranges<'t>(
    field: &'static str,
    texts: impl IntoIterator<Item = &'t str>,
    left_out: &mut LeftOut,
) -> Box<[Prefix]> {
    let mut ranges = Vec::new();
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        match parse_range(text) {
            Some(_) if ranges.len() == ADDRESSES_MAX => {
                let (what, count, max) = ("ranges", ADDRESSES_MAX + 1, ADDRESSES_MAX);
                left_out.note(Reason::TooMany { what, count, max });
                break;
            }
            Some(range) => ranges.push(range),
            None => left_out.note(Reason::range(field, text)),
        }
    }
    ranges.into()
}

/// Parses an address and the length of the prefix.
fn parse_range(text: &str) -> Option<Prefix> {
    let (text, bits) = text.split_once('/')?;
    let address = parse(text)?;
    if bits.is_empty() || !bits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let bits: u8 = bits.parse().ok()?;
    let is_mapped = address.is_ipv4() && text.contains(':');
    let bits = if is_mapped { bits.checked_sub(96)? } else { bits };
    let max = if address.is_ipv4() { 32 } else { 128 };
    (bits <= max).then(|| Prefix::of(address, bits))
}

/// Parses four decimal numbers. Leading zeros are ignored.
fn v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        let digits = part.trim_start_matches('0');
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| octets.into())
}

/// Parses eight groups (RFC 4291 section 2.2), where `::` replaces at least one.
fn v6(text: &str) -> Option<Ipv6Addr> {
    let mut groups = [0; 8];
    let Some((head, tail)) = text.split_once("::") else {
        return (read_groups(text, true, &mut groups)? == 8).then(|| groups.into());
    };
    let first = read_groups(head, false, &mut groups)?;
    let mut rest = [0; 8];
    let last = read_groups(tail, true, &mut rest)?;
    if first + last > 7 {
        return None;
    }
    groups[8 - last..].copy_from_slice(&rest[..last]);
    Some(groups.into())
}

/// Reads the groups in `text` into `groups`. If `ends_in_v4`, the last two can be an IPv4 address.
/// Returns how many there are.
fn read_groups(text: &str, ends_in_v4: bool, groups: &mut [u16; 8]) -> Option<usize> {
    let mut count = 0;
    let mut parts = text.split(':').peekable();
    while let Some(part) = parts.next().filter(|_| !text.is_empty()) {
        if ends_in_v4 && parts.peek().is_none() && part.contains('.') {
            let [a, b, c, d] = v4(part)?.octets();
            let pair = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
            groups.get_mut(count..count + 2)?.copy_from_slice(&pair);
            return Some(count + 2);
        }
        let digits = part.trim_start_matches('0');
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let group = if digits.is_empty() { 0 } else { u16::from_str_radix(digits, 16).ok()? };
        *groups.get_mut(count)? = group;
        count += 1;
    }
    Some(count)
}

/// The most addresses that an object can have of its own. The API allows one of each family, but
/// implementations of ServiceImport are not bound to that.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// What `netutils.ParseIPSloppy` of `k8s.io/utils` returns for each text.
    #[test]
    fn texts_are_read_as_api_servers_read_them() {
        let check = |text: &str, expected: &str| {
            let read = parse(text).map(|address| address.to_string());
            assert_eq!(read.unwrap_or_default(), expected, "{text:?}");
        };
        check("10.1.0.7", "10.1.0.7");
        check("010.001.000.007", "10.1.0.7");
        check("0000000000010.1.0.7", "10.1.0.7");
        check("00.0.0.0", "0.0.0.0");
        check("255.255.255.255", "255.255.255.255");
        check("::ffff:10.1.0.7", "10.1.0.7");
        check("::FFFF:a01:7", "10.1.0.7");
        check("::ffff:010.1.0.7", "10.1.0.7");
        check("0:0:0:0:0:ffff:10.1.0.7", "10.1.0.7");
        check("::10.1.0.7", "::a01:7");
        check("64:ff9b::10.1.0.7", "64:ff9b::a01:7");
        check("::", "::");
        check("::1", "::1");
        check("fd00::", "fd00::");
        check("FD00::00001", "fd00::1");
        check("fd00:0:0:0:0:0:0:1", "fd00::1");
        check("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0");
        check("1:2:3:4:5:6:10.1.0.7", "1:2:3:4:5:6:a01:7");
        check("fd00::0000000000000000001", "fd00::1");
        for refused in [
            "",
            "10",
            "10.1.0",
            "10.1.0.",
            ".10.1.0.7",
            "10..0.7",
            "10.1.0.7.8",
            "10.1.0.256",
            "10.1.0.300",
            "10.1.0.99999999999999999999",
            "10.1.0.-7",
            "10.1.0.+7",
            "10.1.0.0x7",
            "10.1.0.7 ",
            " 10.1.0.7",
            "10.1.0.7/32",
            "10.1.0.7:80",
            "１0.1.0.7",
            "localhost",
            "fe80::1%eth0",
            "[::1]",
            ":",
            ":::",
            "1:::2",
            ":1::2",
            "1::2:",
            "1::2::3",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7:8::",
            "::1:2:3:4:5:6:7:8",
            "1:2:3:4::5:6:7:8",
            "12345::",
            "g::1",
            "::ffff:10.1.0.256",
            "::10.1.0.7:1",
            "10.1.0.7::",
            "1:2:3:4:5:6:7:10.1.0.7",
            "1:2:3:4:5:10.1.0.7",
        ] {
            check(refused, "");
        }
    }

    #[test]
    fn what_std_reads_is_read_alike() {
        for seed in 0..10_000_u32 {
            let bits = u128::from(seed.wrapping_mul(0x9e37_79b1)) << (seed % 97);
            let v6 = Ipv6Addr::from_bits(bits);
            assert_eq!(parse(&v6.to_string()), Some(IpAddr::V6(v6).to_canonical()));
            let v4 = Ipv4Addr::from_bits(seed.wrapping_mul(0x9e37_79b1));
            assert_eq!(parse(&v4.to_string()), Some(v4.into()));
        }
    }

    #[test]
    fn ranges_are_read_as_api_servers_read_them() {
        let check = |texts: &[&str], expected: &[&str], noted: &str| {
            let mut left_out = LeftOut::default();
            let read = parse_ranges("field", texts.iter().copied(), &mut left_out);
            assert_eq!(read.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
            let reason = left_out.reason().map(|reason| reason.to_string());
            assert_eq!(reason.unwrap_or_default(), noted);
        };
        let both = ["10.96.0.0/12", "fd00:96::/108"];
        check(&both, &both, "");
        check(&["010.096.0.7/12", "::ffff:10.1.0.0/112"], &["10.96.0.0/12", "10.1.0.0/16"], "");
        check(&["0.0.0.0/0", "::/0", ""], &["0.0.0.0/0", "::/0"], "");
        for odd in ["x", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8"] {
            let reason = format!("field has {odd:?}, which is not a range of addresses");
            check(&[odd, "10.0.0.0/8"], &["10.0.0.0/8"], &reason);
        }
        let reason = "field has \"::ffff:10.0.0.0/8\", which is not a range of addresses";
        check(&["::ffff:10.0.0.0/8"], &[], reason);
        check(&["10.0.0.0/8"; 17], &["10.0.0.0/8"; 16], "17 ranges: at most 16 are allowed");
    }

    #[test]
    fn an_unreadable_address_costs_itself() {
        let check = |texts: &[&str], expected: Result<&[&str], &str>, noted: &str| {
            let mut left_out = LeftOut::default();
            let read = parse_all("field", texts.iter().copied(), &mut left_out);
            let read = read.map(|all| all.iter().map(IpAddr::to_string).collect::<Vec<_>>());
            let expected = expected.map(|all| all.iter().map(|&text| text.to_owned()).collect());
            assert_eq!(read.map_err(|reason| reason.to_string()), expected.map_err(str::to_owned));
            let reason = left_out.reason().map(|reason| reason.to_string());
            assert_eq!(reason.unwrap_or_default(), noted);
        };
        let odd = "field has \"x\", which is not an IP address";
        check(&[], Ok(&[]), "");
        check(&["", ""], Ok(&[]), "");
        check(&["10.0.0.7", "010.0.0.7", "::ffff:10.0.0.7"], Ok(&["10.0.0.7"]), "");
        check(&["x", "10.0.0.7", "fd00::7"], Ok(&["10.0.0.7", "fd00::7"]), odd);
        check(&["x", ""], Err(odd), "");
        let many: Vec<String> = (0..17).map(|last| format!("10.0.0.{last}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&many, Err("17 addresses: at most 16 are allowed"), "");
        assert!(parse_all("field", many[..16].iter().copied(), &mut LeftOut::default()).is_ok());
    }
}
