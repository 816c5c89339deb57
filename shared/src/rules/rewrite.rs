//! Rewrite rules, parsed from words in the syntax of Corefiles, and the names that they match.
//!
//! Core. The rules are those of CoreDNS's plugin `rewrite`. They work on the text of a name, in
//! lower case with a final dot.

use regex::bytes::{Captures, Regex, RegexBuilder};

use super::name;
use crate::mnemonics::{rcode_number, type_number};

/// A rule.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// Whether later rules are tried after it was applied.
    pub goes_on: bool,
    /// The action.
    pub act: Act,
}

/// The action of a rule.
#[derive(Clone, Debug)]
pub enum Act {
    /// Another name is asked for.
    Name {
        /// The names.
        matches: Matches,
        /// The replacement.
        to: Box<str>,
        /// Whether the names in the answer are changed back.
        auto: bool,
        /// Further changes of the answer.
        answers: Box<[Change]>,
    },
    /// Another type is asked for.
    Type {
        /// The type of the client's question.
        from: u16,
        /// The type to ask for instead.
        to: u16,
    },
    /// The answer is changed.
    Answer {
        /// The names.
        matches: Matches,
        /// The change of the answer.
        change: Change,
    },
}

/// The names that a rule matches, as text in lower case with a final dot.
#[derive(Clone, Debug)]
pub enum Matches {
    /// This name.
    Exact(Box<str>),
    /// Names that begin with this.
    Prefix(Box<str>),
    /// Names that end with this.
    Suffix(Box<str>),
    /// Names that contain this.
    Substring(Box<str>),
    /// Names that match.
    Regex(Regex),
}

/// A change of an answer.
#[derive(Clone, Debug)]
pub enum Change {
    /// The name `from` and names below it become `to` and names below that, as owners and targets.
    Below {
        /// As text.
        from: Box<str>,
        /// As text.
        to: Box<str>,
    },
    /// The end `from` of owners and targets becomes `to`.
    End {
        /// As text.
        from: Box<str>,
        /// As text.
        to: Box<str>,
    },
    /// Owners that match become `to`.
    Owner(Regex, Box<str>),
    /// Targets that match become `to`.
    Target(Regex, Box<str>),
    /// TTLs are kept within these bounds, in seconds.
    Ttl(u32, u32),
    /// The first response code becomes the second.
    Rcode(u16, u16),
}

/// Why a rule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Words are missing.
    #[error("the rule ends early: expected {0}")]
    Short(&'static str),
    /// There are more words than the rule takes.
    #[error("{0:?} is too much: the rule ends before it")]
    Long(String),
    /// A word is not allowed in its place.
    #[error("{word:?} is not {allowed}")]
    Word {
        /// The word.
        word: String,
        /// The allowed words.
        allowed: &'static str,
    },
    /// This kind of rule is not supported.
    #[error("rules for {0} are not supported: {1}")]
    Refused(String, &'static str),
    /// A regular expression does not compile.
    #[error("{pattern:?} is not a regular expression of at most {REGEX_LEN_MAX} bytes: {reason}")]
    Regex {
        /// The expression.
        pattern: String,
        /// The reason, in one line.
        reason: String,
    },
    /// A replacement uses groups that the expression does not have.
    #[error("{to:?} uses group {group}, and {pattern:?} has {groups} groups")]
    Group {
        /// The replacement.
        to: String,
        /// The highest number in it.
        group: usize,
        /// The expression.
        pattern: String,
        /// How many groups it has.
        groups: usize,
    },
    /// A quoted word does not end.
    #[error("a quotation mark is missing at the end")]
    Quote,
}

impl std::str::FromStr for Rewrite {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let words = words(text)?;
        Self::parse(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

impl Matches {
    /// Returns whether the rule matches `name`.
    pub fn hold(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => name == &**text,
            Self::Prefix(text) => name.starts_with(&**text),
            Self::Suffix(text) => name.ends_with(&**text),
            Self::Substring(text) => name.contains(&**text),
            Self::Regex(regex) => regex.is_match(name.as_bytes()),
        }
    }

    /// Returns `name` with the match replaced by `to`; `None` if it does not match.
    pub fn replaced(&self, name: &str, to: &str) -> Option<String> {
        match self {
            Self::Exact(text) => (name == &**text).then(|| to.to_owned()),
            Self::Prefix(text) => name.strip_prefix(&**text).map(|rest| format!("{to}{rest}")),
            Self::Suffix(text) => name.strip_suffix(&**text).map(|rest| format!("{rest}{to}")),
            Self::Substring(text) => name.contains(&**text).then(|| name.replace(&**text, to)),
            Self::Regex(regex) => regex.captures(name.as_bytes()).map(|groups| fill(to, &groups)),
        }
    }

    /// Returns the change of answers about `after` that restores `before`.
    pub fn reversal(&self, before: &str, after: &str, to: &str) -> Change {
        match self {
            Self::Suffix(text) => Change::End { from: to.into(), to: text.clone() },
            _ => Change::Below { from: after.into(), to: before.into() },
        }
    }
}

/// Splits `text` at blanks. A word that begins with `"` extends to the next one, and `\"` in it is
/// a quotation mark.
///
/// Fails if the last quotation mark is missing.
pub fn words(text: &str) -> Result<Vec<String>, RuleError> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
            continue;
        };
        let is_end = |at: &usize| quoted[..*at].bytes().last() != Some(b'\\');
        let end = quoted.match_indices('"').map(|(at, _)| at).find(is_end);
        let end = end.ok_or(RuleError::Quote)?;
        words.push(quoted[..end].replace("\\\"", "\""));
        rest = quoted[end + 1..].trim_start();
    }
    Ok(words)
}

/// The words of a rule that are not parsed yet.
struct Words<'w>(&'w [&'w str]);

impl<'w> Words<'w> {
    fn next(&mut self, expected: &'static str) -> Result<&'w str, RuleError> {
        let (first, rest) = self.0.split_first().ok_or(RuleError::Short(expected))?;
        self.0 = rest;
        Ok(first)
    }

    fn end(&self) -> Result<(), RuleError> {
        match self.0.first() {
            Some(word) => Err(RuleError::Long((*word).to_owned())),
            None => Ok(()),
        }
    }
}

impl Rewrite {
    /// Parses a rule: `[continue|stop] FIELD ...`. A rule in braces is passed as the words between
    /// them.
    ///
    /// Fails if a word cannot be used.
    pub fn parse(words: &[&str]) -> Result<Self, RuleError> {
        let mut words = Words(words);
        let mut field = words.next(FIELDS)?;
        let goes_on = field.eq_ignore_ascii_case("continue");
        if goes_on || field.eq_ignore_ascii_case("stop") {
            field = words.next(FIELDS)?;
        }
        let act = match &*field.to_ascii_lowercase() {
            "name" => name_rule(&mut words)?,
            "type" => {
                let [from, to] = [type_word(&mut words)?, type_word(&mut words)?];
                Act::Type { from, to }
            }
            "ttl" => {
                let matches = matches(&mut words, 1)?;
                let (min, max) = ttl_bounds(words.next("seconds, or MIN-MAX in seconds")?)?;
                Act::Answer { matches, change: Change::Ttl(min, max) }
            }
            "rcode" => {
                let matches = matches(&mut words, 2)?;
                let [from, to] = [rcode_word(&mut words)?, rcode_word(&mut words)?];
                Act::Answer { matches, change: Change::Rcode(from, to) }
            }
            "class" => return Err(refused(field, "only class IN is answered")),
            "edns0" => return Err(refused(field, "queries to upstreams have no options")),
            "cname" => return Err(refused(field, "use a rule for name with answer auto")),
            "answer" => return Err(refused(field, "a rule begins with name")),
            _ => return Err(word(field, FIELDS)),
        };
        words.end()?;
        Ok(Self { goes_on, act })
    }
}

fn refused(field: &str, reason: &'static str) -> RuleError {
    RuleError::Refused(field.to_owned(), reason)
}

fn word(word: &str, allowed: &'static str) -> RuleError {
    RuleError::Word { word: word.to_owned(), allowed }
}

fn type_word(words: &mut Words<'_>) -> Result<u16, RuleError> {
    let text = words.next("a type, such as A")?;
    type_number(text).ok_or_else(|| word(text, "a type, such as A or TYPE65"))
}

fn rcode_word(words: &mut Words<'_>) -> Result<u16, RuleError> {
    let text = words.next("a response code, such as NXDOMAIN")?;
    rcode_number(text).ok_or_else(|| word(text, "a response code, such as NXDOMAIN or 3"))
}

/// Parses `[exact|prefix|suffix|substring|regex] NAME`, which is followed by `behind` words.
fn matches(words: &mut Words<'_>, behind: usize) -> Result<Matches, RuleError> {
    let first = words.next("a name")?;
    // Two words alone are a name and its replacement.
    if words.0.len() <= behind {
        return Ok(Matches::Exact(fqdn(first)?));
    }
    let text = words.next("a name")?;
    Ok(match &*first.to_ascii_lowercase() {
        "exact" => Matches::Exact(fqdn(text)?),
        "prefix" => Matches::Prefix(dotted(text)),
        "suffix" => Matches::Suffix(dotted(text)),
        "substring" => Matches::Substring(dotted(text)),
        "regex" => Matches::Regex(regex(text)?),
        _ => return Err(word(first, KINDS)),
    })
}

fn name_rule(words: &mut Words<'_>) -> Result<Act, RuleError> {
    let matches = match words.0 {
        [_] | [_, _] => matches(words, 1)?,
        _ => matches(words, 0)?,
    };
    let to = words.next("the name to ask for instead")?;
    let to = match &matches {
        Matches::Exact(_) => fqdn(to)?,
        Matches::Regex(regex) => {
            check_groups(regex, to)?;
            dotted(to)
        }
        _ => dotted(to),
    };
    let mut auto = matches!(matches, Matches::Exact(_));
    let mut answers = Vec::new();
    while !words.0.is_empty() {
        let answer = words.next("answer")?;
        if answer != "answer" {
            return Err(word(answer, "the word answer, behind which come auto, name or value"));
        }
        match words.next("auto, name or value")? {
            "auto" => auto = true,
            kind @ ("name" | "value") => {
                let regex = regex(words.next("a regular expression")?)?;
                let to = words.next("what it becomes")?;
                check_groups(&regex, to)?;
                answers.push(match kind {
                    "name" => Change::Owner(regex, dotted(to)),
                    _ => Change::Target(regex, dotted(to)),
                });
            }
            other => return Err(word(other, "auto, name or value")),
        }
    }
    let has_owner = answers.iter().any(|change| matches!(change, Change::Owner(..)));
    if auto && has_owner && !matches!(matches, Matches::Exact(_)) {
        return Err(word("answer name", "allowed beside answer auto"));
    }
    Ok(Act::Name { matches, to, auto, answers: answers.into() })
}

/// Returns a name in lower case with a final dot.
fn fqdn(text: &str) -> Result<Box<str>, RuleError> {
    let name = name::parse(text).ok_or_else(|| word(text, "a valid name"))?;
    Ok(name::text(&name).into())
}

/// Returns a part of a name, in lower case with a final dot.
fn dotted(text: &str) -> Box<str> {
    let dot = if text.ends_with('.') { "" } else { "." };
    format!("{}{dot}", text.to_ascii_lowercase()).into()
}

/// Compiles `pattern`, which then matches in linear time and bounded memory.
///
/// Fails if it is too long or too large.
pub fn regex(pattern: &str) -> Result<Regex, RuleError> {
    let error = |reason: String| RuleError::Regex {
        pattern: pattern.chars().take(PATTERN_SHOWN_MAX).collect(),
        reason,
    };
    if pattern.len() > REGEX_LEN_MAX {
        return Err(error(format!("it has {} bytes", pattern.len())));
    }
    RegexBuilder::new(pattern)
        .unicode(false) // names are ASCII
        .size_limit(REGEX_SIZE_MAX)
        .dfa_size_limit(REGEX_SIZE_MAX)
        .build()
        .map_err(|reason| {
            let reason = reason.to_string();
            let last = reason.lines().last().unwrap_or_default().trim();
            error(last.trim_start_matches("error: ").to_owned())
        })
}

fn check_groups(regex: &Regex, to: &str) -> Result<(), RuleError> {
    let groups = regex.captures_len() - 1;
    let numbers = to.split('{').skip(1).filter_map(|part| part.split_once('}')?.0.parse().ok());
    match numbers.max() {
        Some(group) if group > groups => Err(RuleError::Group {
            to: to.to_owned(),
            group,
            pattern: regex.as_str().to_owned(),
            groups,
        }),
        _ => Ok(()),
    }
}

/// Parses `30`, `30-`, `-30` or `30-300`.
fn ttl_bounds(text: &str) -> Result<(u32, u32), RuleError> {
    let error = || word(text, "a TTL in seconds, MIN-MAX, MIN- or -MAX, up to 2147483647");
    let number = |text: &str, default: u32| match text {
        "" => Some(default),
        text => text.parse().ok().filter(|&ttl| ttl <= TTL_MAX),
    };
    let (min, max) = match text.split_once('-') {
        None => {
            let ttl = text.parse().ok().filter(|&ttl| ttl <= TTL_MAX);
            (ttl, ttl)
        }
        Some(("", "")) => (None, None),
        Some((min, max)) => (number(min, 0), number(max, TTL_MAX)),
    };
    match (min, max) {
        (Some(min), Some(max)) if min <= max => Ok((min, max)),
        _ => Err(error()),
    }
}

/// Returns `template` with `{N}` replaced by group N. A group that did not match is empty.
pub fn fill(template: &str, groups: &Captures<'_>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        let (before, tail) = rest.split_at(start);
        filled.push_str(before);
        let group = tail[1..].split_once('}').and_then(|(number, after)| {
            let group: usize = number.parse().ok()?;
            (group < groups.len()).then(|| (groups.get(group), after))
        });
        match group {
            Some((group, after)) => {
                let group = group.map(|group| group.as_bytes()).unwrap_or_default();
                filled.push_str(&String::from_utf8_lossy(group));
                rest = after;
            }
            None => {
                filled.push('{');
                rest = &tail[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// The longest regular expression in bytes.
const REGEX_LEN_MAX: usize = 10_000;
/// The maximum of bytes of a compiled expression, and of its memory while it matches.
const REGEX_SIZE_MAX: usize = 1 << 20;
/// The maximum of characters of a pattern in an error.
const PATTERN_SHOWN_MAX: usize = 200;
/// The largest TTL (RFC 2181 section 8).
const TTL_MAX: u32 = i32::MAX as u32;
const FIELDS: &str = "continue, stop, name, type, ttl or rcode";
const KINDS: &str = "exact, prefix, suffix, substring or regex";
