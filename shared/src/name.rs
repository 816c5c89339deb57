//! Domain names in flags and files.
//!
//! Core. One rule for all of them; `wire` handles names in messages.

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
}
