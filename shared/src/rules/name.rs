//! Names in rules: text in lower case with a final dot; and sets of zones.
//!
//! Core. RFC 1035 section 5.1 defines the escapes. Names in messages are in wire form.

use std::fmt::Write;

use crate::wire::{NAME_MAX, labels, with_ancestors};

/// Returns `name`, in wire form, as text in lower case with a final dot.
pub fn text(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len() + 1);
    for label in labels(name) {
        for &byte in label {
            match byte {
                b'.' | b'\\' => text.extend(['\\', char::from(byte)]),
                0x21..=0x7e => text.push(char::from(byte.to_ascii_lowercase())),
                // Writing to a string cannot fail.
                _ => write!(text, "\\{byte:03}").unwrap_or_default(),
            }
        }
        text.push('.');
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

/// Parses `text` as a name, and returns it in lower-case wire form. A final dot is optional; `.` is
/// the root.
///
/// `None` if a label is empty or longer than 63 bytes, if the name is longer than 255 bytes, or if
/// an escape is malformed.
pub fn parse(text: &str) -> Option<Box<[u8]>> {
    if text == "." {
        return Some([0].into());
    }
    let mut name = vec![0];
    let mut start = 0;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'.' => {
                if !close(&mut name, start) {
                    return None;
                }
                start = name.len();
                name.push(0);
                continue;
            }
            b'\\' => match bytes.next()? {
                digit @ b'0'..=b'9' => {
                    let digits = [digit, bytes.next()?, bytes.next()?];
                    std::str::from_utf8(&digits).ok()?.parse().ok()?
                }
                byte => byte,
            },
            byte => byte,
        };
        name.push(byte.to_ascii_lowercase());
    }
    if !text.ends_with('.') || text.ends_with("\\.") {
        if !close(&mut name, start) {
            return None;
        }
        name.push(0);
    }
    (name.len() <= NAME_MAX).then(|| name.into())
}

/// Sets the length of the label that begins at `start` and ends here. Returns whether it is valid.
fn close(name: &mut [u8], start: usize) -> bool {
    let len = name.len() - start - 1;
    name[start] = len as u8;
    (1..=63).contains(&len)
}

/// Returns `name` without its first label; `None` for the root.
pub fn parent(name: &[u8]) -> Option<&[u8]> {
    with_ancestors(name).nth(1)
}

/// Returns `labels`, in wire form without the root label, followed by `suffix`; `None` if the name
/// is too long.
pub fn joined(labels: &[u8], suffix: &[u8]) -> Option<Box<[u8]>> {
    (labels.len() + suffix.len() <= NAME_MAX).then(|| [labels, suffix].concat().into())
}

/// The zones to which a rule is limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zones(Vec<Box<[u8]>>);

impl Default for Zones {
    fn default() -> Self {
        Self::all()
    }
}

impl Zones {
    /// Returns the zone of every name.
    pub fn all() -> Self {
        Self(vec![[0].into()])
    }

    /// Returns the names at or below one of `zones`, which must be in lower-case wire form.
    pub fn new(zones: Vec<Box<[u8]>>) -> Self {
        Self(zones)
    }

    /// Returns the longest of the zones that `name`, in lower-case wire form, is at or below.
    pub fn longest<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        with_ancestors(name).find(|suffix| self.0.iter().any(|zone| **zone == **suffix))
    }

    /// Returns whether `name`, in lower-case wire form, is at or below one of the zones.
    pub fn hold(&self, name: &[u8]) -> bool {
        self.0.iter().any(|zone| zone.len() == 1) || self.longest(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_wire_form_are_the_same_name() {
        let rows: [(&str, &[u8], &str); 7] = [
            (".", b"\0", "."),
            ("a", b"\x01a\0", "a."),
            ("A.Example.", b"\x01a\x07example\0", "a.example."),
            ("*.example", b"\x01*\x07example\0", "*.example."),
            ("a\\.b.c", b"\x03a.b\x01c\0", "a\\.b.c."),
            ("a\\.", b"\x02a.\0", "a\\.."),
            ("a\\032\\\\.c", b"\x03a \\\x01c\0", "a\\032\\\\.c."),
        ];
        for (given, wire, shown) in rows {
            assert_eq!(parse(given).as_deref(), Some(wire), "{given}");
            assert_eq!(text(wire), shown);
            assert_eq!(parse(shown).as_deref(), Some(wire), "{shown}");
        }
        let (long, longer) = (format!("{}.", "a".repeat(63)), format!("{}.", "a".repeat(64)));
        assert!(parse(&long).is_some() && parse(&long.repeat(3)).is_some());
        for bad in ["", "..", ".a", "a..b", "a\\", "a\\25", "a\\256", &longer, &long.repeat(4)] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn zones_hold_what_is_below_them() {
        let zones = Zones::new(["a.example", "example", "b.c"].map(|it| parse(it).unwrap()).into());
        let rows = [
            ("x.a.example", Some("a.example")),
            ("a.example", Some("a.example")),
            ("ba.example", Some("example")),
            ("c", None),
            (".", None),
        ];
        for (name, zone) in rows {
            let name = parse(name).unwrap();
            assert_eq!(zones.longest(&name).map(text), zone.map(|zone| format!("{zone}.")));
            assert_eq!(zones.hold(&name), zone.is_some());
            assert!(Zones::all().hold(&name));
        }
    }
}
