//! One line of `/changes`, kubedns's list of the names whose records changed: the format for both
//! ends.
//!
//! Core. Knows neither the stream nor what a change does to a cache.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A line of JSON. A reader ignores fields that it does not have.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The generation of kubedns's records after the changes of this line.
    pub generation: u64,
    /// The names whose records changed, each with every name below it: in master-file form, lower
    /// case, with the last dot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Whether any name can have changed. The reader must remove everything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flush: bool,
    /// Why the stream ends after this line, if the reader was too slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cow<'static, str>>,
}

impl Line {
    /// Returns a line with a generation only, as readers get it if there was no change for a while.
    pub fn of(generation: u64) -> Self {
        Self { generation, ..Self::default() }
    }

    /// Parses one line, with or without its end.
    pub fn parse(line: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }

    /// Returns it as JSON, with the end of the line.
    pub fn bytes(&self) -> Bytes {
        let mut text = serde_json::to_vec(self).expect("numbers and strings become JSON");
        text.push(b'\n');
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_have_the_same_lines() {
        let names = vec!["a.b.".to_owned(), "c.".to_owned()];
        let rows = [
            (Line::of(1), r#"{"generation":1}"#),
            (Line { names, ..Line::of(2) }, r#"{"generation":2,"names":["a.b.","c."]}"#),
            (Line { flush: true, ..Line::of(3) }, r#"{"generation":3,"flush":true}"#),
            (Line { cut: Some("slow".into()), ..Line::of(4) }, r#"{"generation":4,"cut":"slow"}"#),
        ];
        for (line, text) in rows {
            assert_eq!(line.bytes(), format!("{text}\n"));
            assert_eq!(Line::parse(&line.bytes()).unwrap(), line);
        }
        assert_eq!(Line::parse(br#"{"generation":5,"new":{}}"#).unwrap(), Line::of(5));
        assert!(Line::parse(br#"{"names":[]}"#).is_err());
    }
}
