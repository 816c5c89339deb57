//! The meaning of a Corefile: the flags of kubedns and of dnscache, or the reasons why it cannot be
//! run.
//!
//! Core. The plan and its refusals are the same for both programs.
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
    /// Answers clients, from its cache and from upstreams.
    Dnscache,
}

impl Program {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubedns => "kubedns",
            Self::Dnscache => "dnscache",
        }
    }
}

/// A flag that follows from a line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The program of the flag.
    pub program: Program,
    /// Its name without the hyphens in front.
    pub flag: &'static str,
    /// Its value; `None` for a switch.
    pub value: Option<String>,
}

impl Setting {
    /// Returns the flag as on a command line.
    pub fn argument(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={value}", self.flag),
            None => format!("--{}", self.flag),
        }
    }
}

/// A line of the file and its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place.
    pub place: Place,
    /// Its words.
    pub text: String,
    /// Whether it is an option of the directive above.
    pub is_option: bool,
    /// Its flags.
    pub settings: Vec<Setting>,
    /// Its rules of dnscache, as text.
    pub rules: Vec<String>,
    /// Reasons why it needs no flag: the behavior is built in, or does not affect answers.
    pub built_in: Vec<String>,
    /// Reasons why it cannot be run, and what to do.
    pub refused: Vec<String>,
}

/// The meaning of a Corefile.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every line, in the order of reading.
    pub rows: Vec<Row>,
    /// The blocks, with the rules of dnscache for which there is no flag.
    pub servers: Vec<Server>,
}

/// The input of a plan beside the Corefile.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// The address at which kubedns answers.
    pub kubedns: SocketAddr,
    /// The address at which kubedns serves HTTP, with the change stream.
    pub changes: SocketAddr,
    /// Checks the rules of dnscache. Only dnscache sets this.
    pub judge: Option<Judge>,
}

/// Returns the errors in the rules of a block: the index of the line, and the reason.
pub type Judge = fn(&Server) -> Vec<(usize, String)>;

impl Default for Surroundings {
    fn default() -> Self {
        let here = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { kubedns: here(10_053), changes: here(8_081), judge: None }
    }
}

/// Returns the meaning of `corefile`.
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
    /// Returns the flags of `program`, each with its line.
    pub fn settings(&self, program: Program) -> impl Iterator<Item = (&Row, &Setting)> {
        let settings = |row| Row::settings(row).map(move |setting| (row, setting));
        let all = self.rows.iter().flat_map(settings);
        all.filter(move |(_, setting)| setting.program == program)
    }

    /// Returns the lines that cannot be run: one text for each reason, with file and line.
    pub fn refusals(&self) -> Vec<String> {
        let line =
            |row: &Row, reason: &String| format!("{}: {}: {reason}", row.place.in_file(), row.text);
        let rows = self.rows.iter();
        rows.flat_map(|row| row.refused.iter().map(move |reason| line(row, reason))).collect()
    }
}

/// Returns whether a change of the flag is applied to a running program.
pub fn is_live(program: Program, flag: &str) -> bool {
    program == Program::Dnscache && LIVE.contains(&flag)
}

impl Row {
    fn settings(&self) -> std::slice::Iter<'_, Setting> {
        self.settings.iter()
    }
}

/// Flags of dnscache that it applies while it runs.
const LIVE: [&str; 12] = [
    "server",
    "next",
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
