//! Reads the records of a master file in order, with their lines.
//!
//! Core. hickory-proto parses the records. Lines, directives and owners are parsed here, so that an
//! error has its line.

use hickory_proto::rr::Name;
use hickory_proto::serialize::txt::Parser;

use super::super::name;
use super::super::template::row;
use crate::normalise::Row;

/// Why a master file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// A line is not a record of the zone.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// The zone does not have exactly one SOA.
    #[error("the zone {0} needs exactly one SOA record at its name")]
    Soa(String),
}

/// Calls `each` with every record of `text` and its line. Relative names are below `origin`.
///
/// Fails at the first line that is not a record, or that `each` refuses.
pub(super) fn read(
    text: &str,
    origin: &[u8],
    mut each: impl FnMut(usize, Row) -> Result<(), (usize, String)>,
) -> Result<(), ZoneError> {
    let error = |(line, reason)| ZoneError::Line { line, reason };
    let (mut origin, mut ttl) = (name::text(origin), "3600".to_owned());
    let mut owner = None;
    for (line, entry) in entries(text).map_err(error)? {
        let mut words = entry.split_whitespace();
        let Some(first) = words.next() else { continue };
        let argument = || {
            let reason = format!("{first} needs one argument");
            entry.split_whitespace().nth(1).ok_or_else(|| error((line, reason)))
        };
        match &*first.to_ascii_uppercase() {
            "$ORIGIN" => {
                origin = absolute(argument()?, &origin);
                continue;
            }
            "$TTL" => {
                ttl = argument()?.to_owned();
                continue;
            }
            word if word.starts_with('$') => {
                return Err(error((line, format!("{first} is not supported"))));
            }
            _ => {}
        }
        let rest = match entry.starts_with(char::is_whitespace) {
            true => entry.as_str(),
            false => {
                owner = Some(absolute(first, &origin));
                entry.split_once(char::is_whitespace).map_or("", |(_, rest)| rest)
            }
        };
        let Some(owner) = &owner else {
            return Err(error((line, "the first record has no owner".to_owned())));
        };
        let zone = format!("$TTL {ttl}\n{owner} {rest}\n");
        let record = record(&zone, &origin).map_err(|reason| error((line, reason)))?;
        each(line, record).map_err(error)?;
    }
    Ok(())
}

fn record(zone: &str, origin: &str) -> Result<Row, String> {
    let origin = Name::from_ascii(origin).map_err(|error| error.to_string())?;
    let parsed = Parser::new(zone, None, Some(origin)).parse();
    let (_, sets) = parsed.map_err(|error| error.to_string())?;
    let record = sets.values().flat_map(|set| set.records_without_rrsigs()).next();
    record.and_then(row).ok_or_else(|| "it is not a record".to_owned())
}

/// Returns `name` as an absolute name with a final dot.
fn absolute(name: &str, origin: &str) -> String {
    match name {
        "@" => origin.to_owned(),
        name if name.ends_with('.') && !name.ends_with("\\.") => name.to_owned(),
        name if origin == "." => format!("{name}."),
        name => format!("{name}.{origin}"),
    }
}

/// Returns the entries of `text` in one line each, without comments, with the numbers of their
/// first lines. Fails with the line at which parentheses or quotation marks are not closed.
fn entries(text: &str) -> Result<Vec<(usize, String)>, (usize, String)> {
    let mut entries = Vec::new();
    let (mut entry, mut start) = (String::new(), 1);
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    for (index, line) in text.lines().enumerate() {
        if depth == 0 {
            start = index + 1;
        }
        for letter in line.chars() {
            match letter {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                _ if is_quoted => {}
                ';' => break,
                '(' | ')' => {
                    depth = match letter {
                        '(' => depth + 1,
                        _ => depth.checked_sub(1).ok_or((index + 1, ") without (".to_owned()))?,
                    };
                    entry.push(' ');
                    continue;
                }
                _ => {}
            }
            entry.push(letter);
        }
        if is_quoted {
            return Err((index + 1, "a quotation mark is missing".to_owned()));
        }
        is_escaped = false;
        if depth == 0 {
            entries.push((start, std::mem::take(&mut entry)));
        } else {
            entry.push(' ');
        }
    }
    if depth > 0 { Err((start, "( without )".to_owned())) } else { Ok(entries) }
}
