//! What a Corefile means: the flags of kubedns and of dnscache, or why it cannot be run.
//!
//! Core. The plan is the same for both programs, and so is what it refuses.
//!
//! ```text
//! Corefile ─ plugins, line by line ─▶ Servers ─ routes, whole ─▶ Plan { rows }
//!                    └───────────── rows: mapped, built in or refused ─────┘
//! ```

mod merge;
mod report;
mod routes;
mod rows;
mod rules;
mod whole;

use std::net::SocketAddr;

use super::lexer::Place;
use super::parser::Corefile;
use super::plugins::{self, Server};

pub use merge::{Given, Merged, merge, restarts};
pub use report::{json, table};
pub(super) use rows::Rows;

/// A program that a Corefile configures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Answers for the cluster.
    Kubedns,
    /// Answers clients, from its cache and from others.
    Dnscache,
}

impl Program {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubedns => "kubedns",
            Self::Dnscache => "dnscache",
        }
    }
}

/// A flag that a line of the file stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Whose flag it is.
    pub program: Program,
    /// Its name without the hyphens in front.
    pub flag: &'static str,
    /// Its value; `None` for a switch.
    pub value: Option<String>,
}

impl Setting {
    /// As it is written on a command line.
    pub fn argument(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={value}", self.flag),
            None => format!("--{}", self.flag),
        }
    }
}

/// A line of the file and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it is.
    pub place: Place,
    /// Its words.
    pub text: String,
    /// Whether it is an option of the directive above.
    pub is_option: bool,
    /// The flags it stands for.
    pub settings: Vec<Setting>,
    /// The rules of dnscache that it is, for people.
    pub rules: Vec<String>,
    /// What is always so here, or what makes no difference to answers.
    pub built_in: Vec<String>,
    /// Why it cannot be run, and what to do.
    pub refused: Vec<String>,
}

/// What a Corefile means.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every line, in the order of reading.
    pub rows: Vec<Row>,
    /// The blocks, with the rules of dnscache for which there is no flag.
    pub servers: Vec<Server>,
}

/// What the plan needs to be told.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Where kubedns answers.
    pub kubedns: SocketAddr,
    /// Where kubedns serves HTTP, with the names that change.
    pub changes: SocketAddr,
    /// Judges the rules of dnscache. Only dnscache reads them.
    pub judge: Option<Judge>,
}

/// Returns what is wrong with the rules of a block: the index of the line, and the reason.
pub type Judge = fn(&Server) -> Vec<(usize, String)>;

impl Default for Surroundings {
    fn default() -> Self {
        let here = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { kubedns: here(10_053), changes: here(8_081), judge: None }
    }
}

/// Returns what `corefile` means.
pub fn plan(corefile: &Corefile, surroundings: Surroundings) -> Plan {
    let mut rows = Rows::default();
    let servers: Vec<Server> =
        corefile.blocks.iter().map(|block| plugins::read(block, &mut rows)).collect();
    whole::check_listeners(&servers, &mut rows);
    whole::map_servers(&servers, surroundings, &mut rows);
    routes::map(&servers, surroundings, &mut rows);
    rules::check(&servers, &mut rows);
    for (index, reason) in
        surroundings.judge.iter().flat_map(|judge| servers.iter().flat_map(judge))
    {
        rows.refuse(index, reason);
    }
    Plan { rows: rows.finish(), servers }
}

impl Plan {
    /// The flags of `program`, with the lines that they come from.
    pub fn settings(&self, program: Program) -> impl Iterator<Item = (&Row, &Setting)> {
        let settings = |row| Row::settings(row).map(move |setting| (row, setting));
        let all = self.rows.iter().flat_map(settings);
        all.filter(move |(_, setting)| setting.program == program)
    }

    /// What cannot be run: one line for each reason, with file and line.
    pub fn refusals(&self) -> Vec<String> {
        let line =
            |row: &Row, reason: &String| format!("{}: {}: {reason}", row.place.in_file(), row.text);
        let rows = self.rows.iter();
        rows.flat_map(|row| row.refused.iter().map(move |reason| line(row, reason))).collect()
    }
}

/// Whether a change of the flag is applied to a running program.
pub fn is_live(program: Program, flag: &str) -> bool {
    program == Program::Dnscache && LIVE.contains(&flag)
}

impl Row {
    fn settings(&self) -> std::slice::Iter<'_, Setting> {
        self.settings.iter()
    }
}

/// Flags of dnscache that it applies while it runs.
const LIVE: [&str; 11] = [
    "server",
    "answer",
    "resolv-file",
    "max-ttl",
    "negative-ttl",
    "zone-ttl",
    "hosts",
    "rewrite",
    "filter-aaaa",
    "autopath",
    "dns64",
];
