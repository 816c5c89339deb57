//! The mnemonics of record types and response codes, in both directions.
//!
//! Core. The only table of them; IANA's DNS parameters are the source.

use std::borrow::Cow;

use hickory_proto::rr::RecordType;

use crate::wire::{rcode, rtype};

/// Parses a record type, in any case: `AAAA`, `TYPE28` (RFC 3597 section 5), or `ANY`.
pub fn type_number(text: &str) -> Option<u16> {
    let text = text.to_ascii_uppercase();
    match text.strip_prefix("TYPE") {
        Some(number) => number.parse().ok(),
        // hickory-proto does not parse it.
        None if text == "IXFR" => Some(rtype::IXFR),
        None => text.parse::<RecordType>().ok().map(u16::from),
    }
}

/// Returns the mnemonic of a record type, or `TYPE` and its number (RFC 3597 section 5).
pub fn type_name(number: u16) -> Cow<'static, str> {
    match RecordType::from(number) {
        RecordType::Unknown(number) => format!("TYPE{number}").into(),
        known => <&str>::from(known).into(),
    }
}

/// Parses a response code of a header: `NXDOMAIN`, in any case, or `3`; at most 15.
pub fn rcode_number(text: &str) -> Option<u16> {
    let known = RCODES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
    let number = known.map(|&(number, _)| number).or_else(|| text.parse().ok());
    number.filter(|&number| number <= 15)
}

/// Returns the mnemonic of a response code, if it has one here.
pub fn rcode_known(number: u16) -> Option<&'static str> {
    RCODES.iter().find(|(known, _)| *known == number).map(|&(_, name)| name)
}

/// Returns the mnemonic of a response code, or `RCODE` and its number.
pub fn rcode_name(number: u16) -> Cow<'static, str> {
    rcode_known(number).map_or_else(|| format!("RCODE{number}").into(), Into::into)
}

/// The response codes that servers send.
const RCODES: [(u16, &str); 13] = [
    (rcode::NOERROR, "NOERROR"),
    (rcode::FORMERR, "FORMERR"),
    (rcode::SERVFAIL, "SERVFAIL"),
    (rcode::NXDOMAIN, "NXDOMAIN"),
    (rcode::NOTIMP, "NOTIMP"),
    (rcode::REFUSED, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (11, "DSOTYPENI"),
    (rcode::BADVERS, "BADVERS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_codes_have_numbers_and_names() {
        let types = [
            ("a", 1, "A"),
            ("AAAA", 28, "AAAA"),
            ("TYPE1", 1, "A"),
            ("type65", 65, "HTTPS"),
            ("type300", 300, "TYPE300"),
            ("ANY", 255, "ANY"),
            ("axfr", 252, "AXFR"),
            ("IXFR", 251, "IXFR"),
            ("SRV", 33, "SRV"),
        ];
        for (text, number, name) in types {
            assert_eq!(type_number(text), Some(number), "{text}");
            assert_eq!(type_name(number), name);
        }
        for text in ["", "B", "TYPE", "TYPE65536", "1"] {
            assert_eq!(type_number(text), None, "{text}");
        }
        for (text, number) in [("noerror", 0), ("NXDOMAIN", 3), ("REFUSED", 5), ("15", 15)] {
            assert_eq!(rcode_number(text), Some(number), "{text}");
        }
        for text in ["", "NO", "16", "-1", "BADVERS"] {
            assert_eq!(rcode_number(text), None, "{text}");
        }
        let names = [0, 16, 23].map(rcode_name);
        assert_eq!(names, ["NOERROR", "BADVERS", "RCODE23"]);
    }
}
