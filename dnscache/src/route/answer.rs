//! Names about which no server is asked, and limits of lifetimes below a domain: `--answer` and
//! `--zone-ttl`.
//!
//! Core.

use std::str::FromStr;

use shared::name::domain;
use shared::wire::{rcode, with_ancestors};

use super::{DEFAULT, Kind, Local, ROOT, Route, Routes, Suffix};
use crate::lifetime::Limits;
use shared::name::parse;

/// One `--answer`: `[/DOMAIN/.../]SERVFAIL|REFUSED`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerFlag {
    /// The suffixes, in lower-case wire form. If empty, the flag applies to all names that no
    /// suffix routes.
    pub domains: Vec<Box<[u8]>>,
    /// The response code.
    pub rcode: u16,
}

/// Why a text is not an `--answer`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected [/DOMAIN/.../]SERVFAIL or [/DOMAIN/.../]REFUSED, such as /corp.example/REFUSED")]
pub struct AnswerError;

impl FromStr for AnswerFlag {
    type Err = AnswerError;

    fn from_str(text: &str) -> Result<Self, AnswerError> {
        let (domains, text) = split(text).ok_or(AnswerError)?;
        let rcode = match text.to_ascii_uppercase().as_str() {
            "SERVFAIL" => rcode::SERVFAIL,
            "REFUSED" => rcode::REFUSED,
            _ => return Err(AnswerError),
        };
        Ok(Self { domains, rcode })
    }
}

/// One `--zone-ttl`: `/DOMAIN/.../MAX,NEGATIVE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneTtlFlag {
    /// The suffixes, in lower-case wire form.
    pub domains: Vec<Box<[u8]>>,
    /// TTLs above this many seconds are lowered.
    pub ttl_max: u32,
    /// Denials are cached for at most this many seconds.
    pub negative_max: u32,
}

/// Why a text is not a `--zone-ttl`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected /DOMAIN/.../MAX,NEGATIVE in seconds, MAX from 1 to {TTL_MAX} and NEGATIVE from 0 to \
     {NEGATIVE_MAX}, such as /corp.example/60,30"
)]
pub struct ZoneTtlError;

impl FromStr for ZoneTtlFlag {
    type Err = ZoneTtlError;

    fn from_str(text: &str) -> Result<Self, ZoneTtlError> {
        let (domains, text) = split(text).filter(|it| !it.0.is_empty()).ok_or(ZoneTtlError)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| ZoneTtlError);
        let (max, negative) = text.split_once(',').ok_or(ZoneTtlError)?;
        let (ttl_max, negative_max) = (number(max)?, number(negative)?);
        let is_allowed = (1..=TTL_MAX).contains(&ttl_max) && negative_max <= NEGATIVE_MAX;
        is_allowed.then_some(Self { domains, ttl_max, negative_max }).ok_or(ZoneTtlError)
    }
}

/// Splits `/DOMAIN/.../REST` into its domains and the rest; `None` if a domain is not valid.
fn split(text: &str) -> Option<(Vec<Box<[u8]>>, &str)> {
    let Some(rest) = text.strip_prefix('/') else { return Some((Vec::new(), text)) };
    let (domains, rest) = rest.rsplit_once('/')?;
    let name = |text: &str| parse(&domain(text)?);
    Some((domains.split('/').map(name).collect::<Option<_>>()?, rest))
}

impl Routes {
    /// Adds names about which no server is asked, unless servers are configured for the same
    /// domain.
    #[must_use]
    pub fn with_answers(mut self, answers: &[AnswerFlag]) -> Self {
        for AnswerFlag { domains, rcode } in answers {
            for domain in domains {
                let before = self.suffixes.get(domain);
                if matches!(before, None | Some(Suffix::Special(_))) {
                    self.suffixes.insert(domain.clone(), Suffix::Code(*rcode));
                }
            }
            if domains.is_empty() {
                self.otherwise = Some(*rcode);
            }
        }
        self.measure();
        self
    }

    /// Adds the limits of lifetimes.
    #[must_use]
    pub fn with_lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// Returns the limits of lifetimes of `name`, in lower-case wire form.
    pub fn limits(&self, name: &[u8]) -> &Limits {
        self.lifetimes.of(name)
    }

    /// Returns the suffixes about which no server is asked in only one of the two, and those whose
    /// lifetimes have other limits.
    pub fn changed(&self, after: &Self) -> Vec<Box<[u8]>> {
        let code = |routes: &Self, suffix: &[u8]| match routes.suffixes.get(suffix) {
            Some(&Suffix::Code(code)) => Some(code),
            _ => None,
        };
        let suffixes = self.suffixes.keys().chain(after.suffixes.keys());
        let suffixes = suffixes.filter(|suffix| code(self, suffix) != code(after, suffix));
        let mut changed: Vec<Box<[u8]>> = suffixes.cloned().collect();
        changed.extend((self.otherwise != after.otherwise).then(|| ROOT.into()));
        changed.extend(self.lifetimes.changed(&after.lifetimes));
        changed
    }

    /// Returns the route of names that no suffix routes.
    pub(super) fn otherwise<'a>(&self) -> Route<'a> {
        let local = |code| Route::Local(Local { zone: ROOT, kind: Kind::Code(code) });
        self.otherwise.map_or(Route::Group(DEFAULT), local)
    }
}

impl PartialEq for Routes {
    /// Returns whether the same servers are asked about the same names, and answers have the same
    /// limits.
    fn eq(&self, other: &Self) -> bool {
        self.groups == other.groups
            && self.suffixes == other.suffixes
            && self.otherwise == other.otherwise
            && self.lifetimes == other.lifetimes
    }
}

/// The limits of lifetimes, by domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// The limits of names outside all zones below.
    whole: Limits,
    /// By suffix in wire form, the longest first.
    zones: Vec<(Box<[u8]>, Limits)>,
}

impl Default for Lifetimes {
    /// Returns the defaults of the flags: a day for answers, five minutes for denials.
    fn default() -> Self {
        Self::new(Limits { ttl_min: 0, ttl_max: 86_400, negative_max: 300 }, &[])
    }
}

impl Lifetimes {
    /// Returns the limits `whole`, except for the domains of `flags`. If a domain has several
    /// flags, the last counts.
    pub fn new(whole: Limits, flags: &[ZoneTtlFlag]) -> Self {
        let mut zones: Vec<(Box<[u8]>, Limits)> = Vec::new();
        for flag in flags {
            let &ZoneTtlFlag { ttl_max, negative_max, .. } = flag;
            let limits = Limits { ttl_max, negative_max, ..whole };
            for domain in &flag.domains {
                zones.retain(|(zone, _)| zone != domain);
                zones.push((domain.clone(), limits));
            }
        }
        zones.sort_by_key(|(zone, _)| std::cmp::Reverse(zone.len()));
        Self { whole, zones }
    }

    /// Returns the limits of `name`, in lower-case wire form.
    pub fn of(&self, name: &[u8]) -> &Limits {
        let zone = self.zones.iter().find(|(zone, _)| is_within(name, zone));
        zone.map_or(&self.whole, |(_, limits)| limits)
    }

    /// Returns the domains whose limits differ in `after`; the root if those of all names do.
    pub fn changed(&self, after: &Self) -> Vec<Box<[u8]>> {
        if self.whole != after.whole {
            return vec![ROOT.into()];
        }
        let zones = self.zones.iter().chain(&after.zones);
        let is_other = |zone: &[u8]| self.of(zone) != after.of(zone);
        zones.map(|(zone, _)| zone.clone()).filter(|zone| is_other(zone)).collect()
    }
}

/// Returns whether `name` is `zone` or below it, both in lower-case wire form.
fn is_within(name: &[u8], zone: &[u8]) -> bool {
    with_ancestors(name).any(|it| it == zone)
}

/// The maximum of `--max-ttl`.
const TTL_MAX: u32 = 604_800;
/// The maximum of `--negative-ttl`.
const NEGATIVE_MAX: u32 = 10_800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_domains_and_values() {
        let answer = |text: &str| text.parse::<AnswerFlag>().map(|it| (it.domains.len(), it.rcode));
        assert_eq!(answer("REFUSED"), Ok((0, rcode::REFUSED)));
        assert_eq!(answer("/a.b/c.d/servfail"), Ok((2, rcode::SERVFAIL)));
        for text in ["", "NXDOMAIN", "/a.b", "/a..b/REFUSED", "//REFUSED", "/a.b/"] {
            assert_eq!(answer(text), Err(AnswerError), "{text}");
        }
        let ttl = |text: &str| text.parse::<ZoneTtlFlag>().map(|it| (it.ttl_max, it.negative_max));
        assert_eq!(ttl("/a.b/60,30"), Ok((60, 30)));
        for text in ["60,30", "/a.b/60", "/a.b/0,5", "/a.b/60,10801", "/a.b/604801,5", "/a/x,5"] {
            assert_eq!(ttl(text), Err(ZoneTtlError), "{text}");
        }
    }

    #[test]
    fn the_longest_domain_has_the_limits() {
        let whole = Limits { ttl_min: 1, ttl_max: 30, negative_max: 30 };
        let flags = |texts: &[&str]| -> Vec<ZoneTtlFlag> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let limits = Lifetimes::new(whole, &flags(&["/b/9,9", "/a.b/60,5", "/b/90,10"]));
        let of = |name: &str| limits.of(&parse(name).unwrap()).ttl_max;
        assert_eq!([of("x.a.b"), of("a.b"), of("aa.b"), of("b"), of("c")], [60, 60, 90, 90, 30]);
        assert_eq!(limits.of(&parse("b").unwrap()).ttl_min, 1);
        let other = Lifetimes::new(whole, &flags(&["/b/90,10", "/c/60,5"]));
        let mut changed = limits.changed(&other);
        changed.sort();
        assert_eq!(changed, [parse("a.b").unwrap(), parse("c").unwrap()]);
        let more = Lifetimes::new(Limits { ttl_max: 31, ..whole }, &[]);
        assert_eq!(limits.changed(&more), [ROOT.into()]);
        assert_eq!(limits.changed(&limits.clone()), []);
    }
}
