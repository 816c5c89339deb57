//! The rows of a plan while it is created.
//!
//! Core.

use std::collections::BTreeMap;

use super::super::lexer::{Place, Token, printable};
use super::super::parser::{Block, Line};
use super::{Program, Row, Setting};

/// Rows by [`Line::index`].
#[derive(Debug, Default)]
pub struct Rows {
    rows: BTreeMap<usize, Row>,
}

impl Rows {
    /// Adds the keys of a block.
    pub fn add_block(&mut self, block: &Block) {
        if let Some(first) = block.keys.first() {
            self.add(block.index, first.place.clone(), words(&block.keys), false);
        }
    }

    /// Adds a directive, or an option of one.
    pub fn add_line(&mut self, line: &Line, is_option: bool) {
        let text = words(std::iter::once(&line.name).chain(&line.arguments));
        self.add(line.index, line.name.place.clone(), text, is_option);
    }

    fn add(&mut self, index: usize, place: Place, text: String, is_option: bool) {
        let (settings, rules, built_in, refused) = Default::default();
        let row = Row { place, text, is_option, settings, rules, built_in, refused };
        self.rows.insert(index, row);
    }

    /// Adds the flag `--flag=value`, or `--flag`, to the line.
    pub fn map(&mut self, index: usize, to: (Program, &'static str), value: Option<String>) {
        let setting = Setting { program: to.0, flag: to.1, value };
        if let Some(row) = self.rows.get_mut(&index)
            && !row.settings.contains(&setting)
        {
            row.settings.push(setting);
        }
    }

    /// Adds the flag `--flag=value` of `program` to the line.
    pub fn set(&mut self, index: usize, to: (Program, &'static str), value: impl ToString) {
        self.map(index, to, Some(value.to_string()));
    }

    /// Marks the line as a rule of dnscache, with a text for the report.
    pub fn rule(&mut self, index: usize, text: impl Into<String>) {
        if let Some(row) = self.rows.get_mut(&index) {
            row.rules.push(text.into());
        }
    }

    /// Adds a reason why the line needs no flag.
    pub fn build_in(&mut self, index: usize, text: impl Into<String>) {
        if let Some(row) = self.rows.get_mut(&index) {
            row.built_in.push(text.into());
        }
    }

    /// Adds a reason why the line cannot be run.
    pub fn refuse(&mut self, index: usize, reason: impl Into<String>) {
        let reason = printable(&reason.into()).into_owned();
        if let Some(row) = self.rows.get_mut(&index)
            && !row.refused.contains(&reason)
        {
            row.refused.push(reason);
        }
    }

    /// Returns whether the line has a meaning already.
    pub fn is_settled(&self, index: usize) -> bool {
        let is_settled = |row: &Row| {
            let has_none = [&row.rules, &row.built_in, &row.refused].iter().all(|it| it.is_empty());
            !(row.settings.is_empty() && has_none)
        };
        self.rows.get(&index).is_some_and(is_settled)
    }

    /// Returns all rows, in the order of reading.
    pub fn finish(mut self) -> Vec<Row> {
        let unsettled = self.rows.keys().copied().filter(|&index| !self.is_settled(index));
        for index in unsettled.collect::<Vec<_>>() {
            self.build_in(index, "has no effect of its own");
        }
        self.rows.into_values().collect()
    }
}

/// Returns words in one line, quoted if they have blanks.
fn words<'t>(tokens: impl IntoIterator<Item = &'t Token>) -> String {
    let word = |token: &Token| {
        let text = printable(&token.text).into_owned();
        let is_plain = !text.is_empty() && !text.contains(char::is_whitespace);
        if is_plain { text } else { format!("\"{}\"", text.replace('"', "\\\"")) }
    };
    let text = tokens.into_iter().map(word).collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(TEXT_LEN_MAX) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// The maximum of characters of a line that are shown.
const TEXT_LEN_MAX: usize = 200;
