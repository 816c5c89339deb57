//! The owner names that changed lately: a bounded log from which any reader can catch up.
//!
//! Core. Knows generations and names; does not know readers, sockets or records.

use std::collections::VecDeque;

use bytes::Bytes;
use shared::changes::Line;

use crate::store::{Changed, Published};
use shared::name::Text;

/// The latest changes, one line of JSON for each.
///
/// A generation is a number that grows with every publication, also from one process to the next. A
/// reader that returns with one either gets all later changes or must remove everything.
#[derive(Debug)]
pub struct Changes {
    epoch: u64,
    generation: u64,
    /// The generation before the oldest line.
    from: u64,
    lines: VecDeque<(u64, Bytes)>,
    len_bytes: usize,
}

/// The changes after a generation.
#[derive(Debug, PartialEq, Eq)]
pub enum Since {
    /// The lines, oldest first; empty if there was no change.
    Lines(Vec<Bytes>),
    /// The log does not reach back so far, or that generation is of another process.
    Unknown,
}

impl Changes {
    /// Returns an empty log. `started_ms` is when the process started, in milliseconds since 1970.
    /// It separates the generations of one process from those of the next.
    pub fn new(started_ms: u64) -> Self {
        let epoch = started_ms.saturating_mul(GENERATIONS_PER_MS).min(GENERATION_MAX);
        Self { epoch, generation: epoch, from: epoch, lines: VecDeque::new(), len_bytes: 0 }
    }

    /// Returns an empty log of a process that continues with the records that an earlier one had at
    /// `generation`. A reader that has exactly these records gets the changes since then. A
    /// generation is never used twice, even if the clock was set back.
    pub fn resumed(started_ms: u64, generation: u64) -> Self {
        let log = Self::new(started_ms);
        let generation = generation.min(GENERATION_MAX);
        Self { epoch: log.epoch.max(generation), generation, from: generation, ..log }
    }

    /// Returns the generation of the records of publication number `publication`.
    pub fn generation_of(&self, publication: u64) -> u64 {
        self.epoch + publication
    }

    /// Returns the generation of the current records.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds the changes of `published`, and removes the oldest lines if there is no room.
    pub fn push(&mut self, published: &Published) {
        self.generation = self.generation_of(published.generation);
        let line = match &published.changed {
            Changed::Names(names) if names.len_bytes() <= LINE_NAMES_MAX => {
                let names = names.iter().map(|name| Text(name).to_string()).collect();
                Line { names, ..Line::of(self.generation) }
            }
            _ => Line { flush: true, ..Line::of(self.generation) },
        };
        let line = line.bytes();
        self.len_bytes += line.len();
        self.lines.push_back((self.generation, line));
        while self.len_bytes > LOG_LEN_MAX || self.lines.len() > LOG_LINES_MAX {
            let Some((generation, oldest)) = self.lines.pop_front() else { break };
            self.from = generation;
            self.len_bytes -= oldest.len();
        }
    }

    /// Returns the changes after `generation`.
    pub fn since(&self, generation: u64) -> Since {
        let is_line =
            || self.lines.binary_search_by_key(&generation, |(number, _)| *number).is_ok();
        if generation != self.from && !is_line() {
            return Since::Unknown;
        }
        let newer = self.lines.iter().rev().take_while(|(number, _)| *number > generation);
        let mut lines: Vec<_> = newer.map(|(_, line)| line.clone()).collect();
        lines.reverse();
        Since::Lines(lines)
    }
}

/// A process publishes less often than this, so that its generations stay below those of the next.
const GENERATIONS_PER_MS: u64 = 1 << 10;
/// The largest integer that every JSON reader can represent (RFC 8259 section 6).
const GENERATION_MAX: u64 = 1 << 53;
/// The most names of one publication that are listed, in bytes. If there are more, the reader must
/// remove everything.
const LINE_NAMES_MAX: usize = 64 << 10;
/// The most bytes in the log: some 3,000 changed services.
const LOG_LEN_MAX: usize = 512 << 10;
/// The most lines in the log.
const LOG_LINES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Zone;
    use crate::store;

    /// Returns what a store publishes if Services with these names are added.
    fn published(names: &[&str]) -> Vec<Published> {
        use crate::project::{Input, Kind, ServiceObject};
        use crate::source::update::Update;
        let (mut writer, _reader) = store::new(Zone::new("cluster.local").unwrap());
        Kind::ALL.into_iter().for_each(|kind| writer.synced(kind));
        let mut all = vec![writer.publish(0).unwrap()];
        for name in names {
            let text =
                format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"clusterIP":"None"}}}}"#);
            let object: ServiceObject = serde_json::from_str(&text).unwrap();
            let Update::Change { change, .. } = Update::applied(&Input::Service(object)) else {
                panic!("a change")
            };
            writer.apply(change);
            all.push(writer.publish(0).unwrap());
        }
        all
    }

    fn text(since: &Since) -> String {
        match since {
            Since::Unknown => "unknown".to_owned(),
            Since::Lines(lines) => String::from_utf8(lines.concat()).unwrap(),
        }
    }

    #[test]
    fn a_reader_catches_up_or_is_told_that_it_cannot() {
        let mut changes = Changes::new(1);
        assert_eq!((changes.generation(), changes.since(1_024)), (1_024, Since::Lines(vec![])));
        published(&["a", "b"]).iter().for_each(|published| changes.push(published));
        let first = r#"{"generation":1025,"flush":true}"#;
        let last = r#"{"generation":1027,"names":["b.default.svc.cluster.local."]}"#;
        let all = text(&changes.since(1_024));
        assert!(all.starts_with(first) && all.ends_with(&format!("{last}\n")), "{all}");
        assert_eq!(text(&changes.since(1_026)), format!("{last}\n"));
        assert_eq!(text(&changes.since(1_027)), "");
        assert_eq!(text(&changes.since(1_028)), "unknown");
        assert_eq!(text(&changes.since(1_023)), "unknown");
    }

    #[test]
    fn a_reader_of_the_process_before_gets_the_difference_where_that_is_known() {
        for started_ms in [9, 0] {
            let mut changes = Changes::resumed(started_ms, 1_030);
            assert_eq!((changes.generation(), changes.since(1_030)), (1_030, Since::Lines(vec![])));
            changes.push(&published(&["a", "b"])[2]);
            let next = changes.generation();
            assert!(next > 1_031, "{next}");
            let line =
                format!(r#"{{"generation":{next},"names":["b.default.svc.cluster.local."]}}"#);
            assert_eq!(text(&changes.since(1_030)), format!("{line}\n"));
            for unknown in [1_029, 1_031, next - 1, next + 1] {
                assert_eq!(changes.since(unknown), Since::Unknown, "{unknown}");
            }
        }
    }

    #[test]
    fn the_log_is_bounded() {
        let mut changes = Changes::new(0);
        let mut one = published(&["a"]).remove(1);
        for generation in 1..=10_000 {
            one.generation = generation;
            changes.push(&one);
        }
        assert!(changes.lines.len() <= LOG_LINES_MAX && changes.len_bytes <= LOG_LEN_MAX);
        assert_eq!(changes.since(5_000), Since::Unknown);
        assert!(matches!(changes.since(9_000), Since::Lines(lines) if lines.len() == 1_000));
    }
}
