//! The text of a record with placeholders for parts of the question, and patterns of names.
//!
//! Core.

use hickory_proto::rr::{Name, Record};
use hickory_proto::serialize::txt::Parser;
use regex::bytes::{Captures, Regex};

use super::rewrite::{RuleError, regex};

/// A regular expression for names: lower case, with a final dot.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl std::str::FromStr for Pattern {
    type Err = RuleError;

    fn from_str(pattern: &str) -> Result<Self, RuleError> {
        regex(pattern).map(Self)
    }
}

impl Pattern {
    /// Returns the groups of the first match in `name`.
    pub fn captures<'h>(&self, name: &'h str) -> Option<Captures<'h>> {
        self.0.captures(name.as_bytes())
    }

    /// Returns whether it has a group of this number, or of this name.
    fn has(&self, group: &str) -> bool {
        match group.parse::<usize>() {
            Ok(number) => number < self.0.captures_len(),
            Err(_) => self.0.capture_names().any(|name| name == Some(group)),
        }
    }
}

/// The text of one record in the form of master files, such as `{{ .Name }} 60 IN A 10.0.0.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Plain(String),
    Name,
    Class,
    Type,
    Zone,
    Match(usize),
    Group(String),
}

/// Why a text cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The braces of a placeholder are not closed.
    #[error("{0:?} has {{{{ without }}}}")]
    Open(String),
    /// The text between braces is not supported.
    #[error(
        "{{{{ {0} }}}} is not supported: a text can use .Name, .Class, .Type, .Zone, .Group.NAME, \
         index .Group \"NAME\" and index .Match N; expressions and pipelines are refused"
    )]
    Place(String),
    /// No pattern has this group.
    #[error("no pattern of the template has the group {0}")]
    Group(String),
    /// It is not one record.
    #[error("{text:?} is not a record: {reason}")]
    Record {
        /// The text.
        text: String,
        /// The reason.
        reason: String,
    },
}

/// The parts of a question that a text can use.
#[derive(Debug)]
pub struct Asked<'a, 'h> {
    /// Its name.
    pub name: &'a str,
    /// The zone of the template.
    pub zone: &'a str,
    /// Its type.
    pub qtype: &'a str,
    /// The match of each group of the pattern; `None` if the template has no pattern.
    pub groups: Option<&'a Captures<'h>>,
}

impl std::str::FromStr for Text {
    type Err = TextError;

    /// Parses a text. A text without placeholders must be a valid record.
    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, tail)) = rest.split_once("{{") {
            let (place, after) =
                tail.split_once("}}").ok_or_else(|| TextError::Open(text.to_owned()))?;
            if !before.is_empty() {
                parts.push(Part::Plain(before.to_owned()));
            }
            parts.push(place_of(place.trim())?);
            rest = after;
        }
        parts.push(Part::Plain(rest.to_owned()));
        if let [Part::Plain(text)] = &parts[..] {
            let error = |reason| TextError::Record { text: text.clone(), reason };
            record(text).map_err(error)?;
        }
        Ok(Self(parts.into()))
    }
}

fn place_of(place: &str) -> Result<Part, TextError> {
    let refused = || TextError::Place(place.to_owned());
    let words: Vec<&str> = place.split_whitespace().collect();
    let quoted = |word: &str| {
        let name = word.strip_prefix('"')?.strip_suffix('"')?;
        Some(name.to_owned())
    };
    match &words[..] {
        [".Name"] => Ok(Part::Name),
        [".Class"] => Ok(Part::Class),
        [".Type"] => Ok(Part::Type),
        [".Zone"] => Ok(Part::Zone),
        ["index", ".Match", number] => number.parse().map(Part::Match).map_err(|_| refused()),
        ["index", ".Group", name] => quoted(name).map(Part::Group).ok_or_else(refused),
        [word] => match word.strip_prefix(".Group.") {
            Some(name) if is_identifier(name) => Ok(Part::Group(name.to_owned())),
            _ => Err(refused()),
        },
        _ => Err(refused()),
    }
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Text {
    /// Fails if it uses a group that none of `patterns` has. A template without a pattern has the
    /// group 0.
    pub fn check(&self, patterns: &[Pattern]) -> Result<(), TextError> {
        self.0.iter().try_for_each(|part| {
            let group = match part {
                Part::Match(number) => &number.to_string(),
                Part::Group(name) => name,
                _ => return Ok(()),
            };
            let is_whole = patterns.is_empty() && group == "0";
            match is_whole || patterns.iter().any(|pattern| pattern.has(group)) {
                true => Ok(()),
                false => Err(TextError::Group(group.clone())),
            }
        })
    }

    /// Returns the text for `asked`; `None` if the pattern that matched lacks a group of it.
    pub fn filled(&self, asked: &Asked<'_, '_>) -> Option<String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Plain(plain) => text.push_str(plain),
                Part::Name => text.push_str(asked.name),
                Part::Class => text.push_str("IN"),
                Part::Type => text.push_str(asked.qtype),
                Part::Zone => text.push_str(asked.zone),
                Part::Match(number) => text.push_str(&group(asked, Some(*number), "")?),
                Part::Group(name) => text.push_str(&group(asked, name.parse().ok(), name)?),
            }
        }
        Some(text)
    }
}

/// Returns a group by its number or by its name, as text; empty if it did not match. `None` if the
/// pattern that matched does not have it.
fn group(asked: &Asked<'_, '_>, number: Option<usize>, name: &str) -> Option<String> {
    let Some(groups) = asked.groups else {
        return (number == Some(0)).then(|| asked.name.to_owned());
    };
    let group = match number {
        Some(number) if number >= groups.len() => return None,
        Some(number) => groups.get(number),
        None => groups.name(name),
    };
    let bytes = group.map(|group| group.as_bytes()).unwrap_or_default();
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// Parses one record. Without a TTL it has 3600 seconds.
///
/// Fails with the reason if `text` is not exactly one record.
pub fn record(text: &str) -> Result<Record, String> {
    // The text must not contain further lines, or a file to include.
    if text.trim_start().starts_with('$') || text.contains(['\n', '\r', '(', ')']) {
        return Err("it is not one line of a record".to_owned());
    }
    let zone = format!("$TTL 3600\n{}\n", text.trim());
    let (_, sets) =
        Parser::new(zone, None, Some(Name::root())).parse().map_err(|error| error.to_string())?;
    let mut records = sets.values().flat_map(|set| set.records_without_rrsigs());
    match (records.next(), records.next()) {
        (Some(record), None) => Ok(record.clone()),
        _ => Err("it is empty".to_owned()),
    }
}
