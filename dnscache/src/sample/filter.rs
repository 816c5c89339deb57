//! Which samples a reader wants to see.
//!
//! Core.

use std::str::FromStr;

use shared::mnemonics::rcode_number;
use shared::prefix::{self, Prefix};
use shared::wire::{rcode, with_ancestors};

use super::record::{Sample, Source};
use shared::name::parse;

/// Terms that a sample must meet, each of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(Vec<Term>);

#[derive(Clone, Debug, PartialEq)]
enum Term {
    /// The name is this one or below it; in wire form and lower case.
    Below(Box<[u8]>),
    /// The client's address begins so.
    Client(Prefix),
    Rcode(u16),
    Class(Class),
    /// The cache had no fresh answer.
    Missed,
}

/// The classes of the plugin `log` of CoreDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// There is an answer.
    Success,
    /// NXDOMAIN, or NOERROR without an answer.
    Denial,
    /// Another response code.
    Error,
}

/// Why a text is not a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "filter: {term:?} is not a term; expected name:DOMAIN, client:PREFIX, rcode:CODE, \
     class:success, class:denial, class:error or missed, separated by commas"
)]
pub struct FilterError {
    term: String,
}

impl FromStr for Filter {
    type Err = FilterError;

    /// Parses terms separated by commas; an empty text is a filter that every sample passes.
    fn from_str(text: &str) -> Result<Self, FilterError> {
        let terms = text.split(',').map(str::trim).filter(|term| !term.is_empty());
        let terms =
            terms.map(|text| term(text).ok_or_else(|| FilterError { term: text.to_owned() }));
        terms.collect::<Result<_, _>>().map(Self)
    }
}

impl Filter {
    /// Returns whether `sample` meets every term.
    pub fn admits(&self, sample: &Sample) -> bool {
        self.0.iter().all(|term| match term {
            Term::Below(domain) => with_ancestors(sample.name()).any(|name| *name == **domain),
            Term::Client(prefix) => prefix.contains(sample.client),
            Term::Rcode(rcode) => sample.rcode == *rcode,
            Term::Class(class) => class_of(sample) == *class,
            Term::Missed => matches!(sample.source, Source::Miss | Source::Stale),
        })
    }
}

fn term(text: &str) -> Option<Term> {
    if text == "missed" {
        return Some(Term::Missed);
    }
    let (what, value) = text.split_once([':', '='])?;
    match what {
        "name" => parse(value).map(Term::Below),
        "client" => prefix::parse(value).ok().map(Term::Client),
        "rcode" => rcode_number(value).map(Term::Rcode),
        "class" => class(value).map(Term::Class),
        _ => None,
    }
}

fn class(text: &str) -> Option<Class> {
    match text {
        "success" => Some(Class::Success),
        "denial" => Some(Class::Denial),
        "error" => Some(Class::Error),
        _ => None,
    }
}

fn class_of(sample: &Sample) -> Class {
    match sample.rcode {
        rcode::NOERROR if sample.has_answer => Class::Success,
        rcode::NOERROR | rcode::NXDOMAIN => Class::Denial,
        _ => Class::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_passes_if_it_meets_every_term() {
        let name = parse("api.shop.example").unwrap();
        let mut sample = Sample::new(&name, [10, 0, 0, 7].into(), Source::Miss);
        sample.rcode = 3;
        let rows = [
            ("", true),
            ("name:shop.example", true),
            ("name:API.shop.example.", true),
            ("name:op.example", false),
            ("name:.", true),
            ("client:10.0.0.0/8", true),
            ("client:10.0.0.7", true),
            ("client:fd00::/8", false),
            ("rcode:NXDOMAIN", true),
            ("rcode=nxdomain", true),
            ("rcode:3", true),
            ("rcode:servfail", false),
            ("class:denial", true),
            ("class:error", false),
            ("missed", true),
            ("name:shop.example, client:10.0.0.0/8,rcode:3,missed", true),
            ("name:shop.example,client:11.0.0.0/8", false),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse::<Filter>().unwrap().admits(&sample), expected, "{text}");
        }
        let sources = [(Source::Hit, false), (Source::Stale, true), (Source::Local, false)];
        for (source, expected) in sources {
            let sample = Sample::new(&name, [10, 0, 0, 7].into(), source);
            assert_eq!("missed".parse::<Filter>().unwrap().admits(&sample), expected);
        }
    }

    #[test]
    fn every_sample_has_one_class() {
        let mut sample = Sample::new(&[0], [10, 0, 0, 7].into(), Source::Hit);
        let rows = [(0, true, "success"), (0, false, "denial"), (3, false, "denial")];
        let rows = rows.into_iter().chain([(3, true, "denial"), (2, false, "error")]);
        for (rcode, has_answer, expected) in rows {
            (sample.rcode, sample.has_answer) = (rcode, has_answer);
            for class in ["success", "denial", "error"] {
                let admits = format!("class:{class}").parse::<Filter>().unwrap().admits(&sample);
                assert_eq!(admits, class == expected, "{rcode} {has_answer} {class}");
            }
        }
    }

    #[test]
    fn a_wrong_term_is_named() {
        for wrong in
            ["name:a..b", "client:10.0.0.7/8", "rcode:some", "hit", "type:A", "name", "class:all"]
        {
            let error = format!("missed,{wrong}").parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
            assert!(error.contains("name:DOMAIN"), "{error}");
        }
    }
}
