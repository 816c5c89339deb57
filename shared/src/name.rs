//! Domain names: their text in flags, files and messages for people, and their wire form.
//!
//! Core. The only reader and writer of names as text (RFC 1035 section 5.1); `wire` handles names
//! in messages.

use std::fmt::{self, Write};

use crate::wire::{NAME_MAX, labels};

/// Shows a name in wire form, or its first labels, as in master files: labels in lower case, each
/// with its dot. A byte that has a meaning there follows a backslash, one that is not printable is
/// written as `\DDD`.
#[derive(Clone, Copy)]
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == [0] {
            return f.write_str(".");
        }
        for label in labels(self.0) {
            // Most labels need no look at single characters.
            let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
            let plain = std::str::from_utf8(label).ok().filter(|_| label.iter().all(is_plain));
            if let Some(plain) = plain {
                f.write_str(plain)?;
            }
            for &byte in label.iter().filter(|_| plain.is_none()) {
                match byte {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(byte))?;
                    }
                    0x21..=0x7e => write!(f, "{}", char::from(byte.to_ascii_lowercase()))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

/// Returns [`Text`] as a string.
pub fn text(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len() + 1);
    write!(text, "{}", Text(name)).expect("a String takes all text");
    text
}

/// Returns [`Text`] as a string without the last dot.
pub fn bare(name: &[u8]) -> String {
    let mut text = text(name);
    text.pop();
    text
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

/// Returns `text` as the name of a domain in lower case without its last dot. `None` if a label is
/// empty, longer than 63 bytes or has characters other than letters, digits, `-` and `_`, if the
/// name is longer than 253 characters, or if it is the root.
///
/// RFC 2181 section 11 allows any bytes. Names with an underscore are common (`_msdcs` of Active
/// Directory, `_tcp`); other characters probably are a mistake, such as an address or a URL.
pub fn domain(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label =
        |label: &str| (1..=LABEL_LEN_MAX).contains(&label.len()) && label.bytes().all(is_allowed);
    (name.len() <= DOMAIN_LEN_MAX && name.split('.').all(is_label)).then_some(name)
}

/// Returns `text` as [`domain`] does if it can be the name of a host. A name of digits and dots
/// alone is a mistyped address (RFC 1123 section 2.1).
pub fn host_name(text: &str) -> Option<String> {
    let is_name = text.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'.');
    domain(text).filter(|_| is_name)
}

/// The maximum of a label (RFC 1035 section 2.3.4).
const LABEL_LEN_MAX: usize = 63;
/// The maximum as text without the last dot: 255 bytes on the wire.
const DOMAIN_LEN_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_has_labels_of_letters_digits_hyphens_and_underscores() {
        let long = "a".repeat(63);
        let longest = format!("{long}.{long}.{long}.{}", "a".repeat(61));
        let rows = [
            ("Corp.Example.", Some("corp.example")),
            ("_msdcs.corp.example", Some("_msdcs.corp.example")),
            ("a_b.example", Some("a_b.example")),
            ("-a.example", Some("-a.example")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("10.in-addr.arpa", Some("10.in-addr.arpa")),
            (&longest, Some(&longest)),
            ("", None),
            (".", None),
            ("a..b", None),
            (".a", None),
            ("a b", None),
            ("*.b", None),
            ("a/b", None),
            ("b.corp:53", None),
            ("bücher.example", None),
        ];
        for (text, expected) in rows {
            assert_eq!(domain(text).as_deref(), expected, "{text}");
        }
        assert_eq!(domain(&format!("{long}a.example")), None);
        assert_eq!(domain(&format!("{longest}a")), None);
    }

    #[test]
    fn text_and_wire_form_are_the_same_name() {
        let rows: [(&str, &[u8], &str); 8] = [
            (".", b"\0", "."),
            ("a", b"\x01a\0", "a."),
            ("A.Example.", b"\x01a\x07example\0", "a.example."),
            ("*.example", b"\x01*\x07example\0", "*.example."),
            ("a\\.b.c", b"\x03a.b\x01c\0", "a\\.b.c."),
            ("a\\.", b"\x02a.\0", "a\\.."),
            ("a\\007b.c", b"\x03a\x07b\x01c\0", "a\\007b.c."),
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
}
