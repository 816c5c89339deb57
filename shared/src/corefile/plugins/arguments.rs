//! Parses arguments of directives: zones, numbers, durations, addresses.
//!
//! Core. Each error contains the text that was found and the allowed ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::keys::{Key, Zone};
use super::super::lexer::Token;
use super::super::parser::Line;
use crate::prefix::Prefix;

/// Fails if the line has an argument.
pub fn none(line: &Line) -> Result<(), String> {
    match &line.arguments[..] {
        [] => Ok(()),
        [first, ..] => Err(format!("{:?} is too much; expected no argument", first.text)),
    }
}

/// Returns the only argument. `what` describes the expected argument.
pub fn one<'l>(line: &'l Line, what: &str) -> Result<&'l str, String> {
    match &line.arguments[..] {
        [only] => Ok(&only.text),
        [] => Err(format!("no argument; expected {what}")),
        [_, second, ..] => Err(format!("{:?} is too much; expected {what}", second.text)),
    }
}

/// Returns the only argument; `None` if the line has no argument.
pub fn optional<'l>(line: &'l Line, what: &str) -> Result<Option<&'l str>, String> {
    if line.arguments.is_empty() { Ok(None) } else { one(line, what).map(Some) }
}

/// Parses a whole number.
pub fn number(text: &str, allowed: RangeInclusive<u32>) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    let (min, max) = (allowed.start(), allowed.end());
    number.ok_or_else(|| match *max {
        u32::MAX => format!("{text:?} is not allowed; expected a number from {min}"),
        max => format!("{text:?} is not allowed; expected a number from {min} to {max}"),
    })
}

/// Parses a duration in Go's format: numbers with units, such as `1h30m`, or `0`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("{text:?} is not a duration; expected numbers with units, such as 5s");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(error());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let end = rest.find(|c| !is_number(c)).ok_or_else(error)?;
        let number: f64 = rest[..end].parse().map_err(|_| error())?;
        let unit = UNITS.iter().find(|(unit, _)| {
            let after = rest[end..].strip_prefix(unit);
            after.is_some_and(|after| after.is_empty() || after.starts_with(is_number))
        });
        let (unit, factor) = unit.ok_or_else(error)?;
        seconds += number * factor;
        rest = &rest[end + unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| error())
}

/// Parses zones. A prefix of addresses becomes its reverse zones, and ports are ignored.
pub fn zones<'t>(tokens: impl IntoIterator<Item = &'t Token>) -> Result<Vec<Zone>, String> {
    let mut zones = Vec::new();
    for token in tokens {
        zones.extend(Key::parse(&token.text).map_err(|error| error.to_string())?.zones);
    }
    Ok(zones)
}

/// Parses `ADDRESS:PORT`. Without an address it means every address; `localhost` is 127.0.0.1.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    let error = || format!("{text:?} is not allowed; expected IP:PORT or :PORT, such as :8080");
    let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
    let port = port.parse().map_err(|_| error())?;
    let address = match host {
        "" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(host) => IpAddr::V6(host.parse().map_err(|_| error())?),
            None => IpAddr::V4(host.parse().map_err(|_| error())?),
        },
    };
    Ok(SocketAddr::new(address, port))
}

/// Parses an address or a prefix of addresses, whose host bits are ignored.
pub fn prefix(text: &str) -> Result<Prefix, String> {
    let error =
        || format!("{text:?} is not allowed; expected an address or a prefix, such as ::/0");
    let (address, bits) = text.split_once('/').unwrap_or((text, "128"));
    let address: IpAddr = address.parse().map_err(|_| error())?;
    let bits = bits.parse().ok().filter(|&bits: &u8| bits <= 128).ok_or_else(error)?;
    if address.is_ipv4() && bits > 32 && text.contains('/') {
        return Err(error());
    }
    Ok(Prefix::of(address, bits))
}

/// Units of durations in seconds. The text after a unit distinguishes those that begin alike.
const UNITS: [(&str, f64); 8] = [
    ("h", 3_600.0),
    ("ms", 1e-3),
    ("m", 60.0),
    ("s", 1.0),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ns", 1e-9),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let rows = [
            ("5s", Some(5_000)),
            ("1h30m", Some(5_400_000)),
            ("100ms", Some(100)),
            ("1.5s", Some(1_500)),
            ("1m", Some(60_000)),
            ("1m1ms", Some(60_001)),
            ("0", Some(0)),
            ("5", None),
            ("", None),
            ("s", None),
            ("-5s", None),
            ("5 s", None),
            ("5d", None),
            ("1e400s", None),
            ("999999999999999999999h", None),
        ];
        for (text, expected) in rows {
            let millis = duration(text).ok().map(|duration| duration.as_millis());
            assert_eq!(millis, expected, "{text}");
        }
    }

    #[test]
    fn addresses_and_prefixes() {
        for (text, expected) in [
            (":8080", "[::]:8080"),
            ("127.0.0.1:9153", "127.0.0.1:9153"),
            ("localhost:9153", "127.0.0.1:9153"),
            ("[::1]:53", "[::1]:53"),
        ] {
            assert_eq!(listen(text).unwrap().to_string(), expected);
        }
        for text in ["8080", "", ":", "host:53", "::1:53", ":70000"] {
            assert!(listen(text).is_err(), "{text}");
        }
        for (text, expected) in
            [("10.1.2.3/8", "10.0.0.0/8"), ("::1", "::1/128"), ("10.0.0.7", "10.0.0.7/32")]
        {
            assert_eq!(prefix(text).unwrap().to_string(), expected);
        }
        for text in ["*", "10.0.0.0/33", "a/8", "::/129"] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }
}
