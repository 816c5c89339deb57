//! `cargo load chaos`: kills and stops programs of a pod under load, and accounts for every
//! question.
//!
//! Edge. A question without a reply is sent once more after a second, as resolvers do. The
//! programs restart at once, as the first restart of a container does.
//!
//! ```text
//! asker ─▶ dnscache ─▶ kubedns      SIGKILL or SIGTERM, started again at once
//!              └─────▶ upstream in this process
//!          healthz keeps the sockets of both
//! ```

mod pod;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::tests::upstream::Upstream;
use ::tests::{build, tether};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::upstreams::asker::{self, Outcome, Question};
use pod::Pod;
pub use pod::Program;

/// The flags of `cargo load chaos`.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Times that a program is killed.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub kills: u32,
    /// Times that a program is stopped with SIGTERM.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub stops: u32,
    /// Which programs, in turn, separated by commas. Questions go to dnscache, or to kubedns if it
    /// is the only one.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "dnscache")]
    pub programs: Vec<Program>,
    /// Milliseconds from one restart to the next.
    #[arg(long, value_name = "MS", default_value_t = 400,
        value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub every: u64,
    /// Questions per second.
    #[arg(long, value_name = "QPS", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub rate: u32,
    /// Names of the cluster.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub names: u32,
    /// Let no program keep the sockets, for comparison.
    #[arg(long)]
    pub no_keeper: bool,
    /// Folder with the three programs; without it, they are built first, with the profile of this
    /// tool.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
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
    /// The pod fails.
    #[error(transparent)]
    Pod(#[from] pod::Error),
    /// A socket failed.
    #[error("asking failed: {0}")]
    Ask(#[source] io::Error),
}

/// The groups of questions: names of the cluster, and new names outside.
const GROUPS: [&str; 2] = ["cluster", "outside"];
const CLUSTER: usize = 0;
const OUTSIDE: usize = 1;

/// Measures, and prints the figures.
pub fn run(flags: &Flags) -> Result<(), Error> {
    let folder = match &flags.folder {
        Some(directory) => directory.clone(),
        None => runtime()?.block_on(build::programs())?,
    };
    // Must come before the runtime starts, because new threads inherit the cores of this one.
    let core = tether::part_cores().ok();
    let runtime = runtime()?;
    let upstream = runtime.block_on(Upstream::start("127.0.0.2"));
    upstream.otherwise("300 A 192.0.2.1");
    upstream.delay(UPSTREAM_DELAY);
    let plan = pod::Plan {
        folder,
        core,
        services: flags.names,
        upstream: upstream.address,
        keeps: !flags.no_keeper,
    };
    let mut pod = Pod::start(plan)?;
    let asks_dnscache = flags.programs.contains(&Program::Dnscache);
    let server = if asks_dnscache { pod.dnscache } else { pod.kubedns };
    for number in 0..flags.names {
        let name = name(number);
        let answered = asker::until_answered(server, &name, WARM_EVERY, WARM_MAX);
        answered.map_err(Error::Ask)?.ok_or(pod::Error::Silent("the pod"))?;
    }
    let every = Duration::from_millis(flags.every);
    let events = flags.kills + flags.stops;
    let questions = questions(flags, every * events + AFTER, asks_dnscache);
    let outcomes = std::thread::scope(|scope| {
        let asking = scope.spawn(move || asker::ask_twice(server, questions, RETRY, PATIENCE));
        let start = Instant::now();
        let restarts = (0..events).try_for_each(|number| {
            let due = every * number + every / 2;
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            let program = flags.programs[number as usize % flags.programs.len()];
            pod.restart(program, number < flags.kills).map_err(Error::Pod)
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

fn name(number: u32) -> String {
    format!("s{number}.load.svc.cluster.local")
}

/// Returns the questions. Of 100 for dnscache, 5 are for new names outside.
fn questions(
    flags: &Flags,
    lasts: Duration,
    asks_dnscache: bool,
) -> impl Iterator<Item = Question> + Send + use<> {
    let (rate, names) = (f64::from(flags.rate), flags.names);
    let count = (lasts.as_secs_f64() * rate) as u32;
    (0..count).map(move |at| {
        let (group, name) = match asks_dnscache && at % 20 == 7 {
            true => (OUTSIDE, format!("n{at}.example.net")),
            false => (CLUSTER, name(at % names)),
        };
        let due = Duration::from_secs_f64(f64::from(at) / rate);
        Question { due, name, group, client: (at % 20) as u8 }
    })
}

/// What became of the questions of one group.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fate {
    asked: usize,
    /// Answered with NOERROR.
    answered: usize,
    /// Of these, after the question was sent a second time.
    retried: usize,
    /// Answered with another code.
    failed: usize,
    /// Not answered.
    lost: usize,
    /// How long the answers took: the median, that of 9,999 in 10,000, the longest.
    took: [Duration; 3],
}

fn fate(outcomes: &[Outcome], group: usize) -> Fate {
    let mut fate = Fate::default();
    let mut times = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.group == group) {
        fate.asked += 1;
        match outcome.took {
            Some(took) if outcome.rcode == 0 => {
                fate.answered += 1;
                fate.retried += usize::from(outcome.retried);
                times.push(took);
            }
            Some(_) => fate.failed += 1,
            None => fate.lost += 1,
        }
    }
    times.sort_unstable();
    fate.took = [0.5, 0.9999, 1.0].map(|share| {
        let at = (share * times.len() as f64) as usize;
        times.get(at).or(times.last()).copied().unwrap_or_default()
    });
    fate
}

/// Returns the longest time in which no question was answered.
fn longest_gap(outcomes: &[Outcome]) -> Duration {
    let good = outcomes.iter().filter(|outcome| outcome.rcode == 0);
    let mut replies: Vec<Duration> = good.filter_map(Outcome::replied).collect();
    replies.sort_unstable();
    replies.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn json(flags: &Flags, outcomes: &[Outcome]) -> Value {
    let mut figures = json!({
        "kills": flags.kills, "stops": flags.stops, "rate": flags.rate, "keeper": !flags.no_keeper,
        "longest_gap_ms": millis(longest_gap(outcomes)),
    });
    for (group, name) in GROUPS.iter().enumerate() {
        let Fate { asked, answered, retried, failed, lost, took } = fate(outcomes, group);
        figures[name] = json!({
            "asked": asked, "answered": answered, "retried": retried, "failed": failed,
            "lost": lost, "p50_ms": millis(took[0]), "p99_99_ms": millis(took[1]),
            "longest_ms": millis(took[2]),
        });
    }
    figures
}

fn text(flags: &Flags, outcomes: &[Outcome]) -> String {
    let programs: Vec<_> = flags.programs.iter().map(|program| program.name()).collect();
    let mut text = format!(
        "{} kills and {} stops of {} under {} questions/s, {} keeper of sockets\n\
         longest time without an answer: {:.1} ms\n\
         {:<20}{:>9}{:>10}{:>10}{:>9}{:>7}{:>10}{:>12}{:>12}\n",
        flags.kills,
        flags.stops,
        programs.join(" and "),
        flags.rate,
        if flags.no_keeper { "without a" } else { "with a" },
        millis(longest_gap(outcomes)),
        "",
        "asked",
        "answered",
        "retried",
        "failed",
        "lost",
        "p50",
        "p99.99",
        "longest",
    );
    for (group, title) in ["names of the cluster", "new names outside"].iter().enumerate() {
        let Fate { asked, answered, retried, failed, lost, took } = fate(outcomes, group);
        let [p50, p99_99, longest] = took.map(millis);
        text += &format!(
            "{title:<20}{asked:>9}{answered:>10}{retried:>10}{failed:>9}{lost:>7}\
             {p50:>7.2} ms{p99_99:>9.1} ms{longest:>9.1} ms\n",
        );
    }
    text
}

fn runtime() -> Result<Runtime, Error> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(Error::Runtime)
}

/// How long the load continues after the last restart.
const AFTER: Duration = Duration::from_secs(1);
/// When a question without a reply is sent a second time.
const RETRY: Duration = Duration::from_secs(1);
/// How long replies are waited for after the last question.
const PATIENCE: Duration = Duration::from_secs(4);
const UPSTREAM_DELAY: Duration = Duration::from_millis(5);
const WARM_EVERY: Duration = Duration::from_millis(20);
const WARM_MAX: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(sent: u64, took: Option<u64>, rcode: u8, retried: bool) -> Outcome {
        let millis = Duration::from_millis;
        let (sent, took) = (millis(sent), took.map(millis));
        Outcome { group: CLUSTER, sent, took, rcode, retried }
    }

    #[test]
    fn every_question_has_one_fate() {
        let outcomes = [
            outcome(0, Some(1), 0, false),
            outcome(10, Some(1_002), 0, true),
            outcome(20, None, 0, true),
            outcome(30, Some(3), 2, false),
            outcome(40, Some(2), 0, false),
        ];
        let millis = Duration::from_millis;
        let took = [millis(2), millis(1_002), millis(1_002)];
        let expected = Fate { asked: 5, answered: 3, retried: 1, failed: 1, lost: 1, took };
        assert_eq!(fate(&outcomes, CLUSTER), expected);
        assert_eq!(fate(&outcomes, OUTSIDE), Fate::default());
        assert_eq!(longest_gap(&outcomes), millis(1_012 - 42));
    }
}
