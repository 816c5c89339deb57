//! Names of the cluster: their parsing under Kubernetes' rules, the labels of a name, addresses
//! written as labels and as reverse names.
//!
//! Core. Knows RFC 1035's names and the two ways in which an address becomes one; knows no object
//! and no record.

use std::fmt;
use std::net::IpAddr;

use shared::name::Text;
use shared::wire::NAME_MAX;

/// A name in wire form, lower case, with its root label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Parses `text`: labels of letters, digits, `-` and `_`, separated by dots. The last dot can
    /// be missing.
    ///
    /// Fails on an empty or overlong label, another character, and a name of more than 255 bytes
    /// (RFC 1035 section 2.3.4). The root alone is not a valid name here.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::parse_with(text, |byte| byte == b'_')
    }

    /// Parses `text` as [`Name::parse`] does, but labels can also be `*`.
    pub fn parse_asked(text: &str) -> Result<Self, NameError> {
        Self::parse_with(text, |byte| matches!(byte, b'_' | b'*'))
    }

    fn parse_with(text: &str, also: impl Fn(u8) -> bool) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.strip_suffix('.').unwrap_or(text).split('.') {
            push_label(&mut wire, label, &also)?;
        }
        wire.push(0);
        if wire.len() > NAME_MAX {
            return Err(NameError::Long { length: wire.len() });
        }
        Ok(Self(wire.into()))
    }

    /// Returns the bytes, with the root label.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Text(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Text(&self.0))
    }
}

/// Why a text is not a name, or not a label of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A label without a character.
    #[error("a label is empty")]
    Empty,
    /// A label longer than RFC 1035 allows.
    #[error("label {label:?} is longer than 63 characters")]
    LongLabel {
        /// The label.
        label: String,
    },
    /// A character that a name in Kubernetes cannot have.
    #[error("label {label:?} has other characters than letters, digits and '-'")]
    Character {
        /// The label.
        label: String,
    },
    /// A name longer than allowed.
    #[error("the name takes {length} bytes on the wire, too many")]
    Long {
        /// Its length in wire form, in bytes.
        length: usize,
    },
}

/// Appends `label` to `wire`, its length first, in lower case.
///
/// Fails on an empty or overlong label, and on a byte that is not a letter, digit or `-` and does
/// not pass `also`.
pub fn push_label(
    wire: &mut Vec<u8>,
    label: &str,
    also: impl Fn(u8) -> bool,
) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::Empty);
    }
    if label.len() > LABEL_MAX {
        return Err(NameError::LongLabel { label: label.to_owned() });
    }
    if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || also(byte)) {
        return Err(NameError::Character { label: label.to_owned() });
    }
    wire.push(label.len() as u8);
    wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    Ok(())
}

/// Appends the label that a port called `name` has in SRV names to `wire`: an underscore and the
/// name (RFC 2782). Returns `false`, and does not append, if the two do not fit a label: the API
/// allows names of 63 characters, and so does RFC 1035 (section 2.3.4) for both together.
///
/// Fails if `name` is not a label.
pub fn push_port_label(wire: &mut Vec<u8>, name: &str) -> Result<bool, NameError> {
    let start = wire.len();
    push_label(wire, name, |_| false)?;
    if name.len() == LABEL_MAX {
        wire.truncate(start);
        return Ok(false);
    }
    wire[start] += 1;
    wire.insert(start + 1, b'_');
    Ok(true)
}

/// The offset of each label of a name, so that it can be read from the right.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    name: &'a [u8],
    starts: [u8; LABELS_MAX],
    count: usize,
}

impl<'a> Labels<'a> {
    /// Finds the labels of `name`, a screened name in wire form with its root label.
    pub fn of(name: &'a [u8]) -> Self {
        let mut starts = [0; LABELS_MAX];
        let mut count = 0;
        let mut at = 0;
        while let Some(&length) = name.get(at)
            && length > 0
            && count < LABELS_MAX
        {
            starts[count] = at as u8;
            count += 1;
            at += 1 + usize::from(length);
        }
        Self { name, starts, count }
    }

    /// Returns how many labels the name has, without the root.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the offset at which label `index`, counted from the left, begins; that of the root
    /// if there is no such label.
    pub fn start(&self, index: usize) -> usize {
        if index < self.count { usize::from(self.starts[index]) } else { self.name.len() - 1 }
    }

    /// Returns label `index`, counted from the left, without its length byte.
    pub fn label(&self, index: usize) -> &'a [u8] {
        &self.name[self.start(index) + 1..self.start(index + 1)]
    }

    /// Returns labels `from` up to but not including `to`, in wire form.
    pub fn wire(&self, from: usize, to: usize) -> &'a [u8] {
        &self.name[self.start(from)..self.start(to)]
    }

    /// Returns how many labels are left of `apex`, if the name is `apex` or below it.
    pub fn above(&self, apex: &[u8]) -> Option<usize> {
        let length = self.tail(0).len();
        let at = length.checked_sub(apex.len())?;
        if self.tail(0)[at..] != *apex {
            return None;
        }
        let mut count = self.count();
        while count > 0 && self.start(count - 1) >= at {
            count -= 1;
        }
        (self.start(count) == at).then_some(count)
    }

    /// Returns the name that begins with label `index`, with its root label.
    pub fn tail(&self, index: usize) -> &'a [u8] {
        &self.name[self.start(index)..]
    }
}

/// A label or a name made from an address, in wire form, on the stack.
#[derive(Clone, Copy, Debug)]
pub struct Made<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Made<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    fn push(&mut self, more: &[u8]) {
        self.bytes[self.len..self.len + more.len()].copy_from_slice(more);
        self.len += more.len();
    }

    /// Appends the number in decimal, without leading zeros.
    fn push_decimal(&mut self, number: u8) {
        let [digits @ .., len] = &DECIMALS[usize::from(number)];
        self.push(&digits[..usize::from(*len)]);
    }

    /// Returns it in wire form.
    pub fn wire(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Returns the label of an endpoint without a hostname, and of a pod: the address with dashes,
/// after its length byte.
///
/// IPv4 `10.0.0.7` is `10-0-0-7`. IPv6 is RFC 5952's text with colons as dashes, and with a `0` if
/// it would begin or end with a dash: `fd00::1` is `fd00--1`, `::1` is `0--1`, `fd00::` is
/// `fd00--0`. Two addresses never share a label.
pub fn dashed(address: IpAddr) -> Made<LABEL_LEN> {
    let mut label = Made::new();
    label.len = 1;
    match address {
        IpAddr::V4(address) => push_dashed_v4(&mut label, address.octets()),
        IpAddr::V6(address) => push_dashed_v6(&mut label, address.segments()),
    }
    label.bytes[0] = (label.len - 1) as u8;
    label
}

/// Appends the octets in decimal, without leading zeros.
#[inline]
fn push_dashed_v4(label: &mut Made<LABEL_LEN>, octets: [u8; 4]) {
    for octet in octets {
        let decimal = DECIMALS[usize::from(octet)];
        label.bytes[label.len..label.len + 4].copy_from_slice(&decimal);
        label.len += usize::from(decimal[3]);
        label.bytes[label.len] = b'-'; // after the last number it is not counted
        label.len += 1;
    }
    label.len -= 1;
}

/// Appends RFC 5952's text: the first of the longest runs of two or more zero groups is left out.
fn push_dashed_v6(label: &mut Made<LABEL_LEN>, groups: [u16; 8]) {
    let (mut gap, mut gap_len) = (8, 1);
    let mut index = 0;
    while index < 8 {
        let run = groups[index..].iter().take_while(|&&group| group == 0).count();
        if run > gap_len {
            (gap, gap_len) = (index, run);
        }
        index += run.max(1);
    }
    let mut index = 0;
    while index < 8 {
        if index == gap {
            label.push(if gap == 0 { b"0--" } else { b"-" });
            index += gap_len;
            if index == 8 {
                label.push(b"0");
            }
            continue;
        }
        let digits = 4 - (groups[index].leading_zeros() as usize / 4).min(3);
        for shift in (0..digits).rev() {
            label.push(&[HEX[usize::from(groups[index] >> (4 * shift) & 0xf)]]);
        }
        index += 1;
        if index < 8 {
            label.push(b"-");
        }
    }
}

/// Parses `label`, without its length byte and in lower case, as an address with dashes in any
/// unambiguous textual form. Pod names are read with it.
pub fn parse_dashed(label: &[u8]) -> Option<IpAddr> {
    if !label.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')) {
        return None;
    }
    let mut text = [0; IPV6_TEXT_MAX];
    let text = text.get_mut(..label.len())?;
    text.copy_from_slice(label);
    let dashes = label.iter().filter(|&&byte| byte == b'-').count();
    let v4 = dashes == 3 && label.iter().all(|byte| !byte.is_ascii_alphabetic());
    let separator = if v4 && !label.windows(2).any(|pair| pair == b"--") { b'.' } else { b':' };
    for byte in text.iter_mut().filter(|byte| **byte == b'-') {
        *byte = separator;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Returns the address if this is exactly its generated label. Names of endpoints are read with it.
pub fn parse_generated(label: &[u8]) -> Option<IpAddr> {
    if let Some(octets) = parse_generated_v4(label) {
        return Some(IpAddr::from(octets));
    }
    parse_dashed(label).filter(|&address| dashed(address).wire()[1..] == *label)
}

/// Does the same for IPv4: four numbers without leading zeros.
fn parse_generated_v4(label: &[u8]) -> Option<[u8; 4]> {
    let (mut octets, mut at) = ([0_u8; 4], 0);
    let mut digits = 0;
    for &byte in label {
        match byte {
            b'0'..=b'9' if digits == 0 || octets[at] > 0 => {
                octets[at] = octets[at].checked_mul(10)?.checked_add(byte - b'0')?;
                digits += 1;
            }
            b'-' if digits > 0 && at < 3 => (at, digits) = (at + 1, 0),
            _ => return None,
        }
    }
    (digits > 0 && at == 3).then_some(octets)
}

/// Returns the reverse name of `address` in wire form (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub fn reverse(address: IpAddr) -> Made<REVERSE_LEN> {
    let mut name = Made::new();
    match address {
        IpAddr::V4(address) => {
            for octet in address.octets().into_iter().rev() {
                let at = name.len;
                name.push(&[0]);
                name.push_decimal(octet);
                name.bytes[at] = (name.len - at - 1) as u8;
            }
            name.push(IN_ADDR_ARPA);
        }
        IpAddr::V6(address) => {
            for octet in address.octets().into_iter().rev() {
                name.push(&[1, HEX[usize::from(octet & 0xf)], 1, HEX[usize::from(octet >> 4)]]);
            }
            name.push(IP6_ARPA);
        }
    }
    name
}

/// `in-addr.arpa.` in wire form.
pub const IN_ADDR_ARPA: &[u8] = b"\x07in-addr\x04arpa\0";
/// `ip6.arpa.` in wire form.
pub const IP6_ARPA: &[u8] = b"\x03ip6\x04arpa\0";
/// The longest label (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;
/// The most labels that a name of 255 bytes can have, without the root.
const LABELS_MAX: usize = 127;
/// The longest text of an IPv6 address without dots.
const IPV6_TEXT_MAX: usize = 39;
/// The longest generated label with its length byte.
const LABEL_LEN: usize = 1 + IPV6_TEXT_MAX;
/// The longest reverse name: 32 nibbles and `ip6.arpa.`.
const REVERSE_LEN: usize = 32 * 2 + 10;
const HEX: &[u8; 16] = b"0123456789abcdef";
/// The digits of each number, starting at the first byte, and how many there are.
static DECIMALS: [[u8; 4]; 256] = {
    let mut decimals = [[0; 4]; 256];
    let mut number = 0;
    while number < 256 {
        let hundreds = b'0' + (number / 100) as u8;
        let (tens, ones) = (b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8);
        decimals[number] = match number {
            0..10 => [ones, 0, 0, 1],
            10..100 => [tens, ones, 0, 2],
            _ => [hundreds, tens, ones, 3],
        };
        number += 1;
    }
    decimals
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown() {
        let check = |text: &str, shown: Result<&str, NameError>| {
            assert_eq!(Name::parse(text).map(|name| name.to_string()), shown.map(str::to_owned));
        };
        check("cluster.local", Ok("cluster.local."));
        check("Cluster.LOCAL.", Ok("cluster.local."));
        check("_x.a-b", Ok("_x.a-b."));
        check("", Err(NameError::Empty));
        check(".", Err(NameError::Empty));
        check("a..b", Err(NameError::Empty));
        check("a b", Err(NameError::Character { label: "a b".to_owned() }));
        let long = "a".repeat(64);
        check(&long, Err(NameError::LongLabel { label: long.clone() }));
        check(&"a.".repeat(128), Err(NameError::Long { length: 257 }));
    }

    #[test]
    fn generated_labels_resolve_both_ways() {
        let check = |address: &str, label: &str| {
            let address: IpAddr = address.parse().unwrap();
            let made = dashed(address);
            assert_eq!(std::str::from_utf8(&made.wire()[1..]).unwrap(), label, "{address}");
            assert_eq!(usize::from(made.wire()[0]), label.len());
            assert_eq!(parse_generated(label.as_bytes()), Some(address), "{label}");
        };
        check("10.0.0.7", "10-0-0-7");
        check("255.255.255.255", "255-255-255-255");
        check("fd00::1", "fd00--1");
        check("::1", "0--1");
        check("::", "0--0");
        check("fd00::", "fd00--0");
        check("1:0:0:2:0:0:0:3", "1-0-0-2--3");
        check("1:0:2:3:4:5:6:7", "1-0-2-3-4-5-6-7");
        check("::ffff:10.0.0.7", "0--ffff-a00-7");
        check("2001:db8:1234:5678:9abc:def0:1234:5678", "2001-db8-1234-5678-9abc-def0-1234-5678");
    }

    #[test]
    fn pod_labels_are_read_in_any_form() {
        let check = |label: &str, address: Option<&str>, generated: bool| {
            let address = address.map(|text| text.parse().unwrap());
            assert_eq!(parse_dashed(label.as_bytes()), address, "{label}");
            assert_eq!(parse_generated(label.as_bytes()).is_some(), generated, "{label}");
        };
        check("10-0-0-7", Some("10.0.0.7"), true);
        check("--1", Some("::1"), false);
        check("fd00-0-0-0-0-0-0-1", Some("fd00::1"), false);
        check("fd00--0001", Some("fd00::1"), false);
        check("1--2-3", Some("1::2:3"), true);
        check("010-0-0-7", None, false);
        check("10-0-0-256", None, false);
        check("10-0-0", None, false);
        check("10-0-0-7-9", None, false);
        check("10.0.0.7", None, false);
        check("--ffff-1.2.3.4", None, false);
        check("a--b--c", None, false);
        check("web", None, false);
        check("", None, false);
        check(&"1-".repeat(30), None, false);
    }

    #[test]
    fn reverse_names_are_read_as_written() {
        let six = format!("1.{}d.f.ip6.arpa.", "0.".repeat(29));
        for (address, text) in [("10.96.0.7", "7.0.96.10.in-addr.arpa."), ("fd00::1", &*six)] {
            let address = address.parse().unwrap();
            let name = reverse(address);
            assert_eq!(Text(name.wire()).to_string(), text);
            let read = shared::reverse::parse(name.wire());
            assert_eq!(read, Some(shared::reverse::Reverse::Address(address)));
        }
    }
}
