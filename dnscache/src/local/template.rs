//! Answers made of text: records of fixed text or with parts of the question, response codes alone,
//! and the filter of AAAA.
//!
//! Core. The rules are those of CoreDNS's plugin `template` without expressions. A template is
//! checked when it is read; later only parts that depend on the question can fail.

use std::borrow::Cow;

use hickory_proto::op::{Message, OpCode};
use hickory_proto::rr::Record;
use shared::mnemonics::type_name;
use shared::rules::name;
use shared::rules::text::{Asked, record};
use shared::wire::{ErrorCode, rcode, rtype};

use super::made::Made;
use super::name::Zones;
use crate::normalise::{Row, Rows};

pub use shared::rules::text::{Pattern, Text, TextError};

/// A template and the questions that it answers.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// The type that it answers; `None` for every type.
    pub qtype: Option<u16>,
    /// The zones for which it answers.
    pub zones: Zones,
    /// Zones in them that it does not answer for.
    pub except: Option<Zones>,
    /// Patterns, one of which a name must match; if there are none, every name matches.
    pub patterns: Vec<Pattern>,
    /// The records: the section, 0 to 2, and the text of each.
    pub records: Vec<(usize, Text)>,
    /// The response code.
    pub rcode: u16,
    /// The Extended DNS Error of the answer.
    pub error: Option<(ErrorCode, Cow<'static, str>)>,
    /// The zones in which names that match no pattern are passed to the next rule. Other names get
    /// SERVFAIL.
    pub fallthrough: Option<Zones>,
}

/// What a template does with a question.
#[derive(Clone, Debug)]
pub enum Answered {
    /// The next rule should answer.
    Pass,
    /// The answer. If its last record is an alias, its target must be asked for.
    Made(Box<Made>),
}

impl Template {
    /// Returns a template that answers every question for AAAA with NODATA, except for names in
    /// `except`.
    pub fn without_aaaa(except: Vec<Box<[u8]>>) -> Self {
        let except = Some(Zones::new(except));
        Self { qtype: Some(rtype::AAAA), except, ..Self::default() }
    }

    /// Fails if a text uses a group that no pattern has.
    pub fn check(&self) -> Result<(), TextError> {
        self.records.iter().try_for_each(|(_, text)| text.check(&self.patterns))
    }

    /// Answers the question for `qtype` at `name`, in lower-case wire form.
    pub fn answer(&self, name: &[u8], qtype: u16) -> Answered {
        if self.qtype.is_some_and(|own| own != qtype) {
            return Answered::Pass;
        }
        let Some(zone) = self.zones.longest(name) else { return Answered::Pass };
        if self.except.as_ref().is_some_and(|zones| zones.longest(name).is_some()) {
            return Answered::Pass;
        }
        let text = name::text(name);
        let groups = match self.patterns.iter().find_map(|it| it.captures(&text)) {
            None if self.patterns.is_empty() => None,
            Some(groups) => Some(groups),
            None if self.fallthrough.as_ref().is_some_and(|zones| zones.hold(name)) => {
                return Answered::Pass;
            }
            None => return made(Made::failed(NO_MATCH)),
        };
        if self.rcode == rcode::SERVFAIL {
            let error = self.error.clone().or(Some((ErrorCode::Other, SERVFAIL.into())));
            return made(Made { error, ..Made::failed(SERVFAIL) });
        }
        let asked = Asked {
            name: &text,
            zone: &name::text(zone),
            qtype: &type_name(qtype),
            groups: groups.as_ref(),
        };
        let records = self.records.iter().map(|(section, text)| {
            let row = row(&record(&text.filled(&asked)?).ok()?)?;
            Some(Row { section: *section, ..row })
        });
        let records: Option<Vec<Row>> = records.collect();
        let Some(mut records) = records else { return made(Made::failed(NO_RECORD)) };
        records.sort_by_key(|row| row.section);
        let rows = Rows { rcode: self.rcode, authoritative: true, records, ..Rows::default() };
        made(Made { error: self.error.clone(), ..Made::new(rows) })
    }
}

fn made(made: Made) -> Answered {
    Answered::Made(Box::new(made))
}

/// Returns `record` as a row of the answer section.
pub(super) fn row(record: &Record) -> Option<Row> {
    let mut message = Message::response(0, OpCode::Query);
    message.add_query(hickory_proto::op::Query::default());
    message.add_answer(record.clone());
    Rows::read(&message.to_vec().ok()?).ok()?.records.pop()
}

const NO_MATCH: &str = "this name matches no pattern of the template, and fallthrough is not set";
const SERVFAIL: &str = "a template answers SERVFAIL";
const NO_RECORD: &str = "the text of a template is not a record for this name";

#[cfg(test)]
mod tests;
