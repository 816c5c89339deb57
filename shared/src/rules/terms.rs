//! Names of types and response codes.
//!
//! Core.

use hickory_proto::rr::RecordType;

/// Returns the number of a type: `AAAA`, `TYPE28` (RFC 3597 section 5), or `ANY`.
pub fn type_number(text: &str) -> Option<u16> {
    let text = text.to_ascii_uppercase();
    match text.strip_prefix("TYPE") {
        Some(number) => number.parse().ok(),
        None => text.parse::<RecordType>().ok().map(u16::from),
    }
}

/// Returns the mnemonic of a type, or `TYPE` and its number.
pub fn type_name(number: u16) -> String {
    match RecordType::from(number) {
        RecordType::Unknown(number) => format!("TYPE{number}"),
        known => known.to_string(),
    }
}

/// Returns the number of a response code: `NXDOMAIN` or `3`, up to 15.
pub fn rcode_number(text: &str) -> Option<u16> {
    let text = text.to_ascii_uppercase();
    let known = RCODES.iter().position(|name| *name == text);
    match known {
        Some(number) if !text.is_empty() => Some(number as u16),
        _ => text.parse().ok().filter(|&number| number <= 15),
    }
}

/// The response codes by number (IANA DNS parameters).
const RCODES: [&str; 11] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET",
    "NXRRSET", "NOTAUTH", "NOTZONE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_have_numbers() {
        for (text, number) in [("a", 1), ("AAAA", 28), ("type65", 65), ("ANY", 255), ("SRV", 33)] {
            assert_eq!(type_number(text), Some(number), "{text}");
        }
        for text in ["", "B", "TYPE", "TYPE65536", "1"] {
            assert_eq!(type_number(text), None, "{text}");
        }
        assert_eq!((type_name(28), type_name(65_280)), ("AAAA".into(), "TYPE65280".into()));
        for (text, number) in [("noerror", 0), ("NXDOMAIN", 3), ("REFUSED", 5), ("15", 15)] {
            assert_eq!(rcode_number(text), Some(number), "{text}");
        }
        for text in ["", "NO", "16", "-1"] {
            assert_eq!(rcode_number(text), None, "{text}");
        }
    }
}
