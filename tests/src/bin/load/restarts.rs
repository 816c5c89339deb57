//! `cargo load restarts`: runs a dnscache and a kubedns under load, and kills and stops kubedns
//! again and again.
//!
//! Edge. Clients ask for cluster names that are in the cache, for new names outside and for new
//! names of the cluster. No client should notice the restarts.
//!
//! ```text
//! asker ─▶ dnscache ─▶ kubedns: SIGKILL or SIGTERM, started again at once
//!                 └──▶ upstream in this process
//! ```

pub mod pair;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::tests::upstream::Upstream;
use ::tests::{build, tether};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::upstreams::asker::{self, Outcome, Question};
use pair::Pair;

/// The flags of `cargo load restarts`.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Times that kubedns is killed.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub kills: u32,
    /// Times that kubedns is stopped with SIGTERM.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub stops: u32,
    /// Milliseconds from one restart to the next.
    #[arg(long, value_name = "MS", default_value_t = 600,
        value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub every: u64,
    /// Questions per second.
    #[arg(long, value_name = "QPS", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub rate: u32,
    /// Cluster names that are in the cache.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub names: u32,
    /// Folder with dnscache and kubedns; without it, they are built first, with the profile of this
    /// tool.
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Why the measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime of the upstream cannot be created.
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
    /// The programs cannot be built.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// The objects cannot be written.
    #[error("cannot write the objects: {0}")]
    Objects(#[source] io::Error),
    /// A program does not start.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Its name.
        program: &'static str,
        /// What the operating system reported.
        source: io::Error,
    },
    /// A program started but does not answer.
    #[error("{0} does not answer")]
    Silent(&'static str),
    /// kubedns cannot be ended.
    #[error("cannot end kubedns: {0}")]
    End(#[source] io::Error),
    /// A socket failed.
    #[error("asking dnscache failed: {0}")]
    Ask(#[source] io::Error),
}

/// The groups of questions.
const GROUPS: [&str; 3] = ["cached", "outside", "cluster"];
const CACHED: usize = 0;
const OUTSIDE: usize = 1;
const CLUSTER: usize = 2;

/// Measures, and prints the figures.
pub fn run(flags: &Flags) -> Result<(), Error> {
    let programs = match &flags.programs {
        Some(directory) => directory.clone(),
        None => runtime()?.block_on(build::programs())?,
    };
    // Must come before the runtime starts, because new threads inherit the cores of this one.
    let core = tether::part_cores().ok();
    let runtime = runtime()?;
    let upstream = runtime.block_on(Upstream::start("127.0.0.2"));
    upstream.otherwise("300 A 192.0.2.1");
    upstream.delay(Duration::from_millis(5));
    let mut pair = Pair::start(&programs, core, (flags.names, upstream.address))?;
    warm(&pair, flags.names)?;
    let every = Duration::from_millis(flags.every);
    let lasts = every * (flags.kills + flags.stops) + AFTER;
    let server = pair.dnscache;
    let questions = questions(flags, lasts);
    let outcomes = std::thread::scope(|scope| {
        let asking = scope.spawn(move || asker::ask(server, questions, PATIENCE));
        let start = Instant::now();
        let restarts = (0..flags.kills + flags.stops).try_for_each(|number| {
            let due = every * number + every / 2;
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            pair.restart(number < flags.kills)
        });
        let outcomes = asking.join().expect("asking does not panic").map_err(Error::Ask);
        restarts.and(outcomes)
    })?;
    match flags.json {
        true => println!("{}", json(flags, &outcomes)),
        false => print!("{}", text(flags, &outcomes)),
    }
    Ok(())
}

/// Asks for every name until it is answered, so that it is in the cache.
fn warm(pair: &Pair, names: u32) -> Result<(), Error> {
    for number in 0..names {
        let name = cached(number);
        let answered = asker::until_answered(pair.dnscache, &name, WARM_EVERY, WARM_MAX);
        answered.map_err(Error::Ask)?.ok_or(Error::Silent("dnscache"))?;
    }
    Ok(())
}

fn cached(number: u32) -> String {
    format!("s{number}.load.svc.cluster.local")
}

/// Returns the questions: 94 of 100 for names that are in the cache, 5 for new names outside, and 1
/// for a new name of the cluster that does not exist.
fn questions(flags: &Flags, lasts: Duration) -> impl Iterator<Item = Question> + Send + use<> {
    let (rate, names) = (f64::from(flags.rate), flags.names);
    let count = (lasts.as_secs_f64() * rate) as u32;
    (0..count).map(move |at| {
        let (group, name) = match at % 100 {
            20 | 40 | 60 | 80 | 95 => (OUTSIDE, format!("n{at}.example.net")),
            50 => (CLUSTER, format!("n{at}.load.svc.cluster.local")),
            _ => (CACHED, cached(at % names)),
        };
        let due = Duration::from_secs_f64(f64::from(at) / rate);
        Question { due, name, group, client: (at % 20) as u8 }
    })
}

/// The results of the questions of one group.
#[derive(Debug, Default)]
struct Fate {
    asked: usize,
    unanswered: usize,
    rcodes: [usize; 16],
}

fn fate(outcomes: &[Outcome], group: usize) -> Fate {
    let mut fate = Fate::default();
    for outcome in outcomes.iter().filter(|outcome| outcome.group == group) {
        fate.asked += 1;
        match outcome.took {
            Some(_) => fate.rcodes[usize::from(outcome.rcode & 0x0f)] += 1,
            None => fate.unanswered += 1,
        }
    }
    fate
}

/// Returns the longest time in which no cached cluster name was answered.
fn longest_gap(outcomes: &[Outcome]) -> Duration {
    let good = |outcome: &&Outcome| outcome.group == CACHED && outcome.rcode == 0;
    let mut replies: Vec<Duration> =
        outcomes.iter().filter(good).filter_map(Outcome::replied).collect();
    replies.sort_unstable();
    replies.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX)
}

fn json(flags: &Flags, outcomes: &[Outcome]) -> Value {
    let mut figures = json!({
        "kills": flags.kills, "stops": flags.stops, "rate": flags.rate,
        "longest_gap_ms": longest_gap(outcomes).as_secs_f64() * 1e3,
    });
    for (group, name) in GROUPS.iter().enumerate() {
        let fate = fate(outcomes, group);
        figures[name] = json!({
            "asked": fate.asked, "unanswered": fate.unanswered, "noerror": fate.rcodes[0],
            "servfail": fate.rcodes[SERVFAIL], "nxdomain": fate.rcodes[NXDOMAIN],
        });
    }
    figures
}

fn text(flags: &Flags, outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{} kills and {} stops of kubedns under {} questions/s\n\
         longest time without an answer to a cached cluster name: {:.0} ms\n\
         {:<24}{:>9}{:>9}{:>9}{:>9}{:>12}\n",
        flags.kills,
        flags.stops,
        flags.rate,
        longest_gap(outcomes).as_secs_f64() * 1e3,
        "",
        "asked",
        "NOERROR",
        "NXDOMAIN",
        "SERVFAIL",
        "no reply",
    );
    let titles = ["cached cluster names", "new names outside", "new cluster names"];
    for (group, title) in titles.iter().enumerate() {
        let Fate { asked, unanswered, rcodes } = fate(outcomes, group);
        text += &format!(
            "{title:<24}{asked:>9}{:>9}{:>9}{:>9}{unanswered:>12}\n",
            rcodes[0], rcodes[NXDOMAIN], rcodes[SERVFAIL],
        );
    }
    text
}

fn runtime() -> Result<Runtime, Error> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(Error::Runtime)
}

/// How long the load continues after the last restart.
const AFTER: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(6);
const WARM_EVERY: Duration = Duration::from_millis(20);
const WARM_MAX: Duration = Duration::from_secs(20);
const SERVFAIL: usize = 2;
const NXDOMAIN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(group: usize, sent: u64, took: Option<u64>, rcode: u8) -> Outcome {
        let millis = Duration::from_millis;
        Outcome { group, sent: millis(sent), took: took.map(millis), rcode, retried: false }
    }

    #[test]
    fn a_gap_lies_between_two_answers_to_cached_names() {
        let outcomes = [
            outcome(CACHED, 0, Some(1), 0),
            outcome(CACHED, 10, Some(1), 2),
            outcome(OUTSIDE, 20, Some(1), 0),
            outcome(CACHED, 30, None, 0),
            outcome(CACHED, 40, Some(61), 0),
            outcome(CACHED, 102, Some(1), 0),
        ];
        assert_eq!(longest_gap(&outcomes), Duration::from_millis(100));
        let cached = fate(&outcomes, CACHED);
        assert_eq!((cached.asked, cached.unanswered), (5, 1));
        assert_eq!((cached.rcodes[0], cached.rcodes[SERVFAIL]), (3, 1));
    }

    #[test]
    fn of_a_hundred_questions_five_leave_the_pod_and_one_is_new() {
        let flags = Flags {
            kills: 0,
            stops: 0,
            every: 600,
            rate: 1_000,
            names: 7,
            programs: None,
            json: false,
        };
        let questions: Vec<Question> = questions(&flags, Duration::from_secs(1)).collect();
        let of = |group: usize| questions.iter().filter(|one| one.group == group).count();
        assert_eq!([of(CACHED), of(OUTSIDE), of(CLUSTER)], [940, 50, 10]);
    }
}
