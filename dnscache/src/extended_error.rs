//! Selects the reasons of an upstream's failure that clients get: Extended DNS Errors (RFC 8914).
//!
//! Core. Parses the options of an OPT record, independent of the server that sent it.

use shared::wire::ErrorCode;

/// Why an upstream failed, as far as its reason is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason<'m> {
    /// The code for clients.
    pub code: ErrorCode,
    /// The upstream's own text; `None` if it has none, or if it must not be trusted.
    pub text: Option<&'m str>,
}

/// Returns the first reason in `options`, the data of an OPT record, that should be passed on to
/// clients, or `None`.
///
/// From servers `in_pod`, every code in [`KNOWN`] is passed on with its text. From other servers,
/// only the codes of [`PASSED_ON`] are, without text: RFC 8914 section 6 warns that the option is
/// not protected.
pub fn reason(options: &[u8], in_pod: bool) -> Option<Reason<'_>> {
    let codes: &[ErrorCode] = if in_pod { &KNOWN } else { &PASSED_ON };
    self::options(options).filter(|(option, _)| *option == EXTENDED_ERROR).find_map(|(_, value)| {
        let (code, text) = value.split_first_chunk()?;
        let code = u16::from_be_bytes(*code);
        let code = codes.iter().copied().find(|&known| known as u16 == code)?;
        Some(Reason { code, text: text_of(text).filter(|_| in_pod) })
    })
}

/// Returns the options of an OPT record by number, up to the first malformed one (RFC 6891 section
/// 6.1.2).
fn options(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (&[c1, c0, l1, l0], tail) = rest.split_first_chunk()?;
        let (value, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes([l1, l0])))?;
        rest = tail;
        Some((u16::from_be_bytes([c1, c0]), value))
    })
}

/// Returns EXTRA-TEXT, if there is any that can be shown.
fn text_of(bytes: &[u8]) -> Option<&str> {
    // Some senders append a zero (RFC 8914 section 2).
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    (!text.is_empty() && !text.contains(char::is_control)).then_some(text)
}

/// Codes of servers outside the pod that help the client: problems of the name (6 to 9), policies
/// that block the answer (15 to 18), and the state of the upstream (3, 14, 22, 23).
pub const PASSED_ON: [ErrorCode; 12] = [
    ErrorCode::StaleAnswer,
    ErrorCode::DnssecBogus,
    ErrorCode::SignatureExpired,
    ErrorCode::SignatureNotYetValid,
    ErrorCode::DnskeyMissing,
    ErrorCode::NotReady,
    ErrorCode::Blocked,
    ErrorCode::Censored,
    ErrorCode::Filtered,
    ErrorCode::Prohibited,
    ErrorCode::NoReachableAuthority,
    ErrorCode::NetworkError,
];

/// All codes that have a name here.
pub const KNOWN: [ErrorCode; 17] = [
    ErrorCode::Other,
    ErrorCode::StaleAnswer,
    ErrorCode::DnssecBogus,
    ErrorCode::SignatureExpired,
    ErrorCode::SignatureNotYetValid,
    ErrorCode::DnskeyMissing,
    ErrorCode::CachedError,
    ErrorCode::NotReady,
    ErrorCode::Blocked,
    ErrorCode::Censored,
    ErrorCode::Filtered,
    ErrorCode::Prohibited,
    ErrorCode::StaleNxdomainAnswer,
    ErrorCode::NotAuthoritative,
    ErrorCode::NotSupported,
    ErrorCode::NoReachableAuthority,
    ErrorCode::NetworkError,
];

/// The option's number (RFC 8914 section 2).
const EXTENDED_ERROR: u16 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn option(number: u16, value: &[u8]) -> Vec<u8> {
        let len = value.len() as u16;
        [&number.to_be_bytes()[..], &len.to_be_bytes(), value].concat()
    }

    fn error(code: u16, text: &str) -> Vec<u8> {
        option(15, &[&code.to_be_bytes()[..], text.as_bytes()].concat())
    }

    #[test]
    fn each_code_is_passed_on_or_not() {
        for code in 0..=40 {
            let outside = matches!(code, 3 | 6..=9 | 14..=18 | 22 | 23);
            let in_pod = matches!(code, 0 | 3 | 6..=9 | 13..=23);
            let options = error(code, "because");
            let passed = |in_pod| reason(&options, in_pod).map(|it| (it.code as u16, it.text));
            assert_eq!(passed(false), outside.then_some((code, None)), "{code}");
            assert_eq!(passed(true), in_pod.then_some((code, Some("because"))), "{code}");
        }
    }

    #[test]
    fn the_first_reason_that_helps_counts_and_broken_options_end_the_search() {
        let cookie = option(10, &[7; 8]);
        let (other, bogus, blocked) = (error(0, "x"), error(6, "y"), error(15, "z"));
        let cut = &bogus[..bogus.len() - 1];
        let rows = [
            (vec![], None),
            (cookie.clone(), None),
            ([&cookie[..], &bogus].concat(), Some(ErrorCode::DnssecBogus)),
            ([&other[..], &blocked, &bogus].concat(), Some(ErrorCode::Blocked)),
            (option(15, &[0]), None),
            ([&option(15, &[])[..], &bogus].concat(), Some(ErrorCode::DnssecBogus)),
            (cut.to_vec(), None),
            ([&cookie[..3], &bogus].concat(), None),
        ];
        for (options, expected) in rows {
            assert_eq!(reason(&options, false).map(|it| it.code), expected, "{options:?}");
        }
    }

    #[test]
    fn only_text_that_can_be_shown_is_passed_on() {
        let rows: [(&[u8], Option<&str>); 6] = [
            (b"not listed yet", Some("not listed yet")),
            (b"with a zero\0", Some("with a zero")),
            (b"", None),
            (b"\0", None),
            (b"two\nlines", None),
            (b"\xff", None),
        ];
        for (text, expected) in rows {
            let options = option(15, &[&[0, 14], text].concat());
            assert_eq!(reason(&options, true).unwrap().text, expected, "{text:?}");
        }
    }
}
