//! `cargo load chaos`: kills and stops programs of a pod under load, or other caches, and accounts
//! for every question.
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
mod report;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::tests::upstream::Upstream;
use ::tests::{build, tether};
use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};

use crate::compare::servers::Kind;
use crate::upstreams::asker::{self, Question};
pub use pod::Program;
use pod::{Peer, Pod};
use report::Figures;

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
    /// Ask dnscache even if kubedns is the only one.
    #[arg(long)]
    pub ask_dnscache: bool,
    /// Caches on the PATH that are restarted in the same way afterwards, separated by commas
    /// [default: none].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CACHE")]
    pub beside: Vec<Kind>,
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
    /// Another cache is not installed.
    #[error("{0} is not on the PATH")]
    Missing(&'static str),
    /// A socket failed.
    #[error("asking failed: {0}")]
    Ask(#[source] io::Error),
}

/// A group of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// Names of Services.
    Cluster,
    /// New names outside.
    Outside,
    /// New names of the cluster that do not exist.
    Absent,
}

const GROUPS: [Group; 3] = [Group::Cluster, Group::Outside, Group::Absent];

impl Group {
    /// Returns the name in JSON.
    fn name(self) -> &'static str {
        ["cluster", "outside", "absent"][self as usize]
    }

    fn title(self) -> &'static str {
        ["names of the cluster", "new names outside", "names without it"][self as usize]
    }

    /// Returns the response code of a good answer.
    fn rcode(self) -> u8 {
        if self == Self::Absent { NXDOMAIN } else { 0 }
    }
}

/// Measures, and prints the figures.
pub fn run(flags: &Flags) -> Result<(), Error> {
    let folder = match &flags.folder {
        Some(directory) => directory.clone(),
        None => runtime()?.block_on(build::programs())?,
    };
    let found = |&kind: &Kind| kind.installed().ok_or(Error::Missing(kind.name()));
    let beside = flags.beside.iter().map(found).collect::<Result<Vec<_>, _>>()?;
    // Must come before the runtime starts, because new threads inherit the cores of this one.
    let core = tether::part_cores().ok();
    let runtime = runtime()?;
    let upstream = runtime.block_on(Upstream::start("127.0.0.2"));
    upstream.otherwise("300 A 192.0.2.1");
    upstream.deny_below(&format!("{ABSENT}."));
    upstream.delay(UPSTREAM_DELAY);
    let plan = pod::Plan {
        folder,
        core,
        services: flags.names,
        upstream: upstream.address,
        keeps: !flags.no_keeper,
    };
    let of_pod = measure_pod(flags, plan)?;
    let of_peer = |server| measure_peer(flags, Peer::start(server, core, upstream.address)?);
    let beside = beside.into_iter().map(of_peer).collect::<Result<Vec<_>, Error>>()?;
    match flags.json {
        true => println!("{}", report::json(flags, &of_pod, &beside)),
        false => print!("{}", report::text(flags, &of_pod, &beside)),
    }
    Ok(())
}

fn measure_pod(flags: &Flags, plan: pod::Plan) -> Result<Figures, Error> {
    let mut pod = Pod::start(plan)?;
    let programs = &flags.programs;
    let asks_dnscache = flags.ask_dnscache || programs.iter().any(|it| *it != Program::Kubedns);
    let server = if asks_dnscache { pod.dnscache } else { pod.kubedns };
    let names: Vec<_> = programs.iter().map(|program| program.name()).collect();
    let restart = |number: u32, signal| {
        pod.restart(programs[number as usize % programs.len()], signal).map_err(Error::Pod)
    };
    measure(flags, (&names.join(" and "), server, asks_dnscache), restart)
}

fn measure_peer(flags: &Flags, mut peer: Peer) -> Result<Figures, Error> {
    let title = peer.title();
    let asked = (&*title, peer.address, true);
    measure(flags, asked, |_, signal| peer.restart(signal).map_err(Error::Pod))
}

/// Asks the server `name` at an address, which asks an upstream or does not, while `restart` is
/// called with the number of the restart.
fn measure(
    flags: &Flags,
    (name, server, asks_upstream): (&str, SocketAddr, bool),
    mut restart: impl FnMut(u32, Signal) -> Result<(), Error>,
) -> Result<Figures, Error> {
    for number in 0..flags.names {
        let answered = asker::until_answered(server, &service(number), WARM_EVERY, WARM_MAX);
        answered.map_err(Error::Ask)?.ok_or(pod::Error::Silent("the server"))?;
    }
    let every = Duration::from_millis(flags.every);
    let events = flags.kills + flags.stops;
    let questions = questions(flags, every * events + AFTER, asks_upstream);
    let outcomes = std::thread::scope(|scope| {
        let asking = scope.spawn(move || asker::ask_twice(server, questions, RETRY, PATIENCE));
        let start = Instant::now();
        let restarts = (0..events).try_for_each(|number| {
            let due = every * number + every / 2;
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            restart(number, if number < flags.kills { Signal::KILL } else { Signal::TERM })
        });
        let outcomes = asking.join().expect("asking does not panic").map_err(Error::Ask);
        restarts.and(outcomes)
    })?;
    Ok(Figures::new(name.to_owned(), &outcomes))
}

fn service(number: u32) -> String {
    format!("s{number}.load.svc.cluster.local")
}

/// Returns the questions. Of 100, 5 are for new names outside if `asks_upstream`, and 1 for a new
/// name that does not exist.
fn questions(
    flags: &Flags,
    lasts: Duration,
    asks_upstream: bool,
) -> impl Iterator<Item = Question> + Send + use<> {
    let (rate, names) = (f64::from(flags.rate), flags.names);
    let count = (lasts.as_secs_f64() * rate) as u32;
    (0..count).map(move |at| {
        let (group, name) = match at % 100 {
            7 | 27 | 47 | 67 | 87 if asks_upstream => {
                (Group::Outside, format!("n{at}.example.net"))
            }
            50 => (Group::Absent, format!("n{at}.{ABSENT}")),
            _ => (Group::Cluster, service(at % names)),
        };
        let due = Duration::from_secs_f64(f64::from(at) / rate);
        Question { due, name, group: group as usize, client: (at % 20) as u8 }
    })
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
/// A namespace that does not exist.
const ABSENT: &str = "absent.svc.cluster.local";
const NXDOMAIN: u8 = 3;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn of_a_hundred_questions_five_leave_the_pod_and_one_is_for_nothing() {
        let flags = Alone::parse_from(["chaos", "--rate", "1000", "--names", "7"]).flags;
        for (asks_upstream, expected) in [(true, [940, 50, 10]), (false, [990, 0, 10])] {
            let questions = questions(&flags, Duration::from_secs(1), asks_upstream);
            let mut counts = [0; 3];
            questions.for_each(|question| counts[question.group] += 1);
            assert_eq!(counts, expected);
        }
    }
}
