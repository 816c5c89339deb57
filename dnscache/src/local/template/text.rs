//! The text of a record with places for parts of the question.
//!
//! Core.

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, Record};
use hickory_proto::serialize::txt::Parser;
use regex::bytes::{Captures, Regex};

use crate::normalise::{Row, Rows};

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
    /// The braces of a place are not closed.
    #[error("{0:?} has {{{{ without }}}}")]
    Open(String),
    /// What is between braces is not supported.
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

/// A question as the texts see it.
pub(super) struct Asked<'a, 'h> {
    pub name: &'a str,
    pub zone: &'a str,
    pub qtype: &'a str,
    /// What each group of the pattern matched; `None` if the template has no pattern.
    pub groups: Option<&'a Captures<'h>>,
}

impl std::str::FromStr for Text {
    type Err = TextError;

    /// Reads a text. One without places is a valid record.
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
            read(text).map_err(error)?;
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
    /// Fails if it uses a group that none of `patterns` has.
    pub(super) fn check(&self, patterns: &[&Regex]) -> Result<(), TextError> {
        self.0.iter().try_for_each(|part| {
            let has = |number: usize| patterns.iter().any(|regex| number < regex.captures_len());
            let is_known = match part {
                Part::Match(number) => has(*number),
                Part::Group(name) => match name.parse() {
                    Ok(number) => has(number),
                    Err(_) => {
                        let named = |regex: &&Regex| {
                            regex.capture_names().any(|it| it == Some(name.as_str()))
                        };
                        patterns.iter().any(named)
                    }
                },
                _ => true,
            };
            let name = match part {
                Part::Match(number) => number.to_string(),
                Part::Group(name) => name.clone(),
                _ => String::new(),
            };
            if is_known { Ok(()) } else { Err(TextError::Group(name)) }
        })
    }

    /// Returns the record for `asked` in `section`; `None` if the text is not one.
    pub(super) fn record(&self, asked: &Asked<'_, '_>, section: usize) -> Option<Row> {
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
        let mut row = read(&text).ok()?;
        row.section = section;
        Some(row)
    }
}

/// A group by its number or by its name, as text; empty if it took no part. `None` if the pattern
/// that matched does not have it.
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

/// Reads one record. Without a TTL it has 3600 seconds.
fn read(text: &str) -> Result<Row, String> {
    // No line of its own may follow, and no file be named.
    if text.trim_start().starts_with('$') || text.contains(['\n', '\r', '(', ')']) {
        return Err("it is not one line of a record".to_owned());
    }
    let zone = format!("$TTL 3600\n{}\n", text.trim());
    let (_, sets) =
        Parser::new(zone, None, Some(Name::root())).parse().map_err(|error| error.to_string())?;
    let mut records = sets.values().flat_map(|set| set.records_without_rrsigs());
    let (Some(record), None) = (records.next(), records.next()) else {
        return Err("it is empty".to_owned());
    };
    row(record).ok_or_else(|| "it is too long".to_owned())
}

/// `record` as a row of the answer section.
pub(in crate::local) fn row(record: &Record) -> Option<Row> {
    let mut message = Message::response(0, hickory_proto::op::OpCode::Query);
    message.add_query(hickory_proto::op::Query::default());
    message.add_answer(record.clone());
    Rows::read(&message.to_vec().ok()?).ok()?.records.pop()
}
