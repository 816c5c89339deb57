//! `cargo load compare`: measures dnscache next to the floor and every other DNS cache on the PATH,
//! in one run.
//!
//! Edge. One server runs at a time, alone on its core. Load and upstream share the other core.
//! Rounds are interleaved (A B C, A B C), so that other work of the machine affects all servers
//! alike. Compare ratios: absolute figures differ from machine to machine.
//!
//! ```text
//! for each work, round, server:  start ─▶ warm ─▶ ask (CPU before and after) ─▶ end
//!                                                        └─▶ table: text, Markdown, JSON
//! ```

pub mod servers;
mod table;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity};
use tests::{build, tether};

use crate::generator::{self, Plan, Tally};
use crate::workload::Workload;
use servers::{CACHE_ENTRIES, Kind, Server, Setting};
use table::Table;

/// The flags of `cargo load compare`.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// What to measure, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Work::ALL)]
    pub work: Vec<Work>,
    /// Which servers, separated by commas; without it, all that are on the PATH.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub servers: Vec<Kind>,
    /// Rounds; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// How long each measurement asks, in seconds.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Questions per second at which latency is measured.
    #[arg(long, value_name = "QPS", default_value_t = 20_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
    /// The dnscache to run; without it, it is built first, with the profile of this tool.
    #[arg(long, value_name = "FILE")]
    pub dnscache: Option<PathBuf>,
    /// Print a table for a README.
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Print every measurement as JSON.
    #[arg(long)]
    pub json: bool,
}

/// The questions that the servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// 1,000 names that are all in the cache.
    Hit,
    /// 10,000 names that are all in the cache.
    Many,
    /// 200,000 names by Zipf's law, of which the cache holds 10,000.
    Zipf,
    /// Only new names: all are forwarded to an upstream in the pod, at 127.0.0.1, as to kubedns.
    Miss,
    /// As miss, with an upstream outside the pod, at 127.0.0.2: dnscache asks from a new port with
    /// a random ID and random letter case each time, as it does with every upstream of a cluster.
    MissOutside,
    /// As miss, with 100,000 names in a hosts file and 100 rules for rewriting. Only the floor,
    /// dnscache and CoreDNS are measured.
    MissRules,
    /// 1,000 names that do not exist, and are in the cache as such.
    Nxdomain,
    /// As hit, over eight connections.
    Tcp,
}

impl Work {
    const ALL: [Self; 8] = [
        Self::Hit,
        Self::Many,
        Self::Zipf,
        Self::Miss,
        Self::MissOutside,
        Self::MissRules,
        Self::Nxdomain,
        Self::Tcp,
    ];

    /// Returns the name that the table shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Many => "hit, 10,000 names",
            Self::Zipf => "Zipf",
            Self::Miss => "miss, upstream in the pod",
            Self::MissOutside => "miss, upstream outside",
            Self::MissRules => "miss, 100,000 hosts and 100 rules",
            Self::Nxdomain => "NXDOMAIN",
            Self::Tcp => "hit over TCP",
        }
    }

    fn workload(self, round: u32) -> Workload {
        match self {
            Self::Hit | Self::Nxdomain | Self::Tcp => Workload::uniform(NAMES),
            Self::Many => Workload::uniform(MANY_NAMES),
            Self::Zipf => Workload::zipf(ZIPF_NAMES, 1.0, SEED, ZIPF_DRAWS),
            Self::Miss | Self::MissOutside | Self::MissRules => {
                Workload::Fresh(SEED + u64::from(round))
            }
        }
    }

    /// Returns how long the cache is filled before the measurement.
    fn warming(self) -> Duration {
        Duration::from_millis(match self {
            Self::Zipf | Self::Many => 2_000,
            Self::Miss | Self::MissOutside | Self::MissRules => 0,
            Self::Hit | Self::Nxdomain | Self::Tcp => 1_000,
        })
    }

    /// Returns the address of its upstream. dnscache treats 127.0.0.1 as a program of its own pod,
    /// and every other address as one outside.
    fn upstream(self) -> Ipv4Addr {
        match self {
            Self::MissOutside => servers::OUTSIDE,
            _ => Ipv4Addr::LOCALHOST,
        }
    }

    /// Returns the size of the caches in entries. Servers that count bytes ignore it.
    fn cache_entries(self) -> usize {
        // A cache that is split into shards can hold all names only if it has room to spare.
        if self == Self::Many { 2 * MANY_NAMES } else { CACHE_ENTRIES }
    }

    fn plan(self, server: SocketAddr, duration: Duration) -> Plan<'static> {
        let tcp = self == Self::Tcp;
        let misses = matches!(self, Self::Miss | Self::MissOutside | Self::MissRules);
        let window = if misses { MISS_WINDOW } else { WINDOW };
        let sockets = if tcp { CONNECTIONS } else { SOCKETS };
        Plan { server, tcp, duration, sockets, window, rate: None, verify: None }
    }
}

/// One measurement of one server at one work.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Measured {
    /// User and system seconds of the server for a million answers.
    cpu_seconds_per_million: f64,
    /// The highest rate, without a fixed rate of questions.
    answers_per_second: f64,
    /// Questions without an answer, in percent.
    lost_percent: f64,
    /// At the fixed rate; `None` if latency was not measured.
    p50_us: Option<u64>,
    /// At the fixed rate; `None` if latency was not measured.
    p99_us: Option<u64>,
    /// Resident memory at the end.
    rss_mib: f64,
}

/// Why the table cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path of this tool cannot be read.
    #[error("cannot find out where this program lies: {0}")]
    OwnPath(#[source] io::Error),
    /// The runtime for the build cannot be created.
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
    /// dnscache cannot be built.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// The upstream does not start.
    #[error("the upstream: {0}")]
    Upstream(#[source] servers::Error),
    /// A requested server is not installed.
    #[error("--servers: {0} is not on the PATH")]
    Absent(&'static str),
}

/// Measures and prints the table.
pub fn run(flags: &Flags) -> Result<(), Error> {
    let dnscache = match &flags.dnscache {
        // The path must be absolute, because servers start in a directory of their own.
        Some(path) => std::path::absolute(path).map_err(Error::OwnPath)?,
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(Error::Runtime)?.block_on(build::programs())?.join("dnscache")
        }
    };
    let own = std::env::current_exe().map_err(Error::OwnPath)?;
    let present = servers::present(&own, &dnscache);
    let missing = |kind: &&Kind| !present.iter().any(|server| server.kind == **kind);
    if let Some(kind) = flags.servers.iter().find(missing) {
        return Err(Error::Absent(kind.name()));
    }
    let is_wanted = |server: &Server| {
        let all = flags.servers.is_empty();
        all || server.kind == Kind::Floor || flags.servers.contains(&server.kind)
    };
    let servers: Vec<Server> = present.into_iter().filter(is_wanted).collect();
    let cores = cores();
    if cores.is_none() {
        eprintln!(
            "servers and load share the machine: this process has one core, or may not choose"
        );
    }
    for server in servers.iter().filter(|server| server.kind != Kind::Floor) {
        eprintln!("{}", server.settings());
    }
    let mut table = Table::new(&servers, flags.rate, cores.is_some());
    for &work in &flags.work {
        for round in 1..=flags.rounds {
            for (index, server) in servers.iter().enumerate() {
                eprint!("{} {round} of {}: {}", work.name(), flags.rounds, server.kind.name());
                match measure(server, work, (round, flags), cores)? {
                    Ok(measured) => {
                        eprintln!("  {:.2} s", measured.cpu_seconds_per_million);
                        table.add(work, index, measured);
                    }
                    Err(reason) => {
                        eprintln!("  not measured: {reason}");
                        table.fail(work, index, reason.to_string());
                    }
                }
            }
        }
    }
    match (flags.json, flags.markdown) {
        (true, _) => println!("{}", table.json()),
        (_, true) => print!("{}", table.markdown()),
        _ => print!("{}", table.text()),
    }
    Ok(())
}

/// Measures `server` at `work`. The inner error is one of the server, and the run can continue.
fn measure(
    server: &Server,
    work: Work,
    (round, flags): (u32, &Flags),
    cores: Option<(usize, usize)>,
) -> Result<Result<Measured, servers::Error>, Error> {
    let (load_core, server_core) = cores.unzip();
    let nxdomain = work == Work::Nxdomain;
    let upstream = servers::floor(work.upstream(), nxdomain, load_core);
    let upstream = upstream.map_err(Error::Upstream)?;
    let cache_entries = work.cache_entries();
    let upstreams = &[upstream.address];
    let has_rules = work == Work::MissRules;
    let setting = Setting { upstreams, cache_entries, nxdomain, has_rules, server_core };
    let measured = server.start(&setting).and_then(|running| {
        let workload = work.workload(round);
        if !work.warming().is_zero() {
            let plan = Plan {
                tcp: false,
                sockets: 2,
                window: 20,
                ..work.plan(running.address, work.warming())
            };
            ask(&plan, &workload)?;
        }
        let before = running.cpu()?;
        let start = Instant::now();
        let tally =
            ask(&work.plan(running.address, Duration::from_secs(flags.seconds)), &workload)?;
        let took = start.elapsed().as_secs_f64();
        let used = running.cpu()?.saturating_sub(before);
        if tally.answered == 0 {
            return Err(servers::Error::Silent);
        }
        let latency = if work == Work::Hit {
            let rate = Some(f64::from(flags.rate));
            let duration = Duration::from_secs(LATENCY_SECS);
            Some(ask(&Plan { rate, ..work.plan(running.address, duration) }, &workload)?.latency)
        } else {
            None
        };
        Ok(Measured {
            cpu_seconds_per_million: used.as_secs_f64() * 1e6 / tally.answered as f64,
            answers_per_second: tally.answered as f64 / took,
            lost_percent: 100.0 * tally.lost as f64 / tally.sent.max(1) as f64,
            p50_us: latency.as_ref().map(|latency| latency.value_at_quantile(0.5)),
            p99_us: latency.as_ref().map(|latency| latency.value_at_quantile(0.99)),
            rss_mib: running.rss_mib()?,
        })
    });
    Ok(measured)
}

/// Runs `plan` and returns the tally.
fn ask(plan: &Plan<'_>, workload: &Workload) -> Result<Tally, servers::Error> {
    let (sender, stretches) = mpsc::channel();
    generator::run(plan, workload, &AtomicBool::new(false), &sender)
        .map_err(servers::Error::Ask)?;
    drop(sender);
    let mut total = Tally::new();
    stretches.iter().for_each(|stretch| total.add(&stretch));
    Ok(total)
}

/// Returns the core for load and upstream, and the core for the servers. Keeps this thread on the
/// first. Returns `None` if there are not two cores.
fn cores() -> Option<(usize, usize)> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let pair = (cores.next()?, cores.next()?);
    tether::keep_on(&[pair.0]).ok()?;
    Some(pair)
}

const SEED: u64 = 7;
const NAMES: usize = 1_000;
const MANY_NAMES: usize = 10_000;
const ZIPF_NAMES: usize = 200_000;
/// Draws before the sequence repeats.
const ZIPF_DRAWS: usize = 400_000;
const SOCKETS: usize = 4;
const CONNECTIONS: usize = 8;
const WINDOW: usize = 100;
/// Smaller for misses, because with a larger window all servers lose questions.
const MISS_WINDOW: usize = 30;
const LATENCY_SECS: u64 = 2;
