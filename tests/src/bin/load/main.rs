//! `cargo load`: load-tests a running pod, or any DNS server, and reports what its users would see.
//!
//! ```text
//! flags ─▶ workload (core: which questions) ─▶ generator (edge: sockets, windows, rate)
//!                                              summary, text or JSON, and chart ◀─┘◀─ hit rate
//!                server's own counters before and after, and what its upstream saw ────────┘
//! compare: dnscache, the floor and other caches, one at a time on a core of its own ─▶ table
//! scale: cluster ─▶ fake API server ─▶ kubedns ─▶ start, memory, cost of answers, changes
//! upstreams: clients ─▶ dnscache and other caches ─▶ servers on their bad days ─▶ table
//! followers: changes ─▶ fake API server ─▶ replicas of kubedns ─▶ thousands of followers
//! etcd: keys ─▶ etcd ─▶ kubedns, and CoreDNS ─▶ start, memory, cost of answers, changes
//! chaos: clients ─▶ dnscache, kubedns or another cache, killed and stopped again and again
//! start: from the start of dnscache and of kubedns to their first answers
//! floor: answers everything with the same reply, for comparison
//! hit-rate: trace ─▶ dnscache's cache, plain LRU, the best possible ─▶ table and pictures
//! ```

mod chaos;
mod chart;
mod compare;
mod counters;
mod etcd;
mod flags;
mod floor;
mod followers;
mod generator;
mod hit_rate;
mod own;
mod proc;
mod scale;
mod start;
mod summary;
mod upstreams;
mod verify;
mod workload;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use chart::Stretch;
use counters::Cache;
use flags::{Command, Run};
use generator::{Plan, Tally};
use own::Own;
use verify::Firsts;
use workload::{Kind, Workload};

fn main() -> ExitCode {
    if let Some(error) = tests::tether::exec_if_asked() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let flags = flags::parse();
    let done = match &flags.command {
        None => run(&flags.run),
        Some(Command::HitRate(flags)) => hit_rate::run(flags)
            .map_err(|source| Error::File { path: flags.pictures.clone(), source }),
        Some(Command::Compare(flags)) => compare::run(flags).map_err(Error::Compare),
        Some(Command::Scale(flags)) => scale::run(flags).map_err(Error::from),
        Some(Command::Upstreams(flags)) => upstreams::run(flags).map_err(Error::from),
        Some(Command::Followers(flags)) => followers::run(flags).map_err(Error::from),
        Some(Command::Etcd(flags)) => etcd::run(flags).map_err(Error::from),
        Some(Command::Chaos(flags)) => chaos::run(flags).map_err(Error::from),
        Some(Command::Start(flags)) => start::run(flags).map_err(Error::from),
        Some(Command::Floor(flags)) => {
            floor::run(flags).map_err(|source| Error::Floor { address: flags.listen, source })
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("--server {0} is not on this machine; --remote allows it")]
    Remote(SocketAddr),
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}", path = path.display())]
    Questions { path: PathBuf, source: workload::FileError },
    #[error("asking {server} failed: {source}")]
    Ask { server: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Scale(#[from] scale::Error),
    #[error(transparent)]
    Upstreams(#[from] upstreams::Error),
    #[error(transparent)]
    Followers(#[from] followers::Error),
    #[error(transparent)]
    Chaos(#[from] chaos::Error),
    #[error(transparent)]
    Start(#[from] start::Error),
    #[error(transparent)]
    Etcd(#[from] etcd::Error),
    #[error("answering at {address} failed: {source}")]
    Floor { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Compare(#[from] compare::Error),
    #[error(transparent)]
    Own(#[from] own::Error),
    #[error(transparent)]
    Disagreement(#[from] counters::Disagreement),
    #[error("{0} answers differ from the first to their question")]
    Different(u64),
    #[error("{server} did not answer a single question of {sent}; is it running?")]
    Silence { server: SocketAddr, sent: u64 },
}

fn run(flags: &Run) -> Result<(), Error> {
    if !flags.remote && !flags.server.ip().is_loopback() {
        return Err(Error::Remote(flags.server));
    }
    let workload = workload(flags)?;
    if let Some(path) = &flags.export {
        return std::fs::write(path, workload.export())
            .map_err(|source| Error::File { path: path.clone(), source });
    }
    let own = flags.own.then(|| Own::start(flags.cache_size as usize)).transpose()?;
    let server = own.as_ref().map_or(flags.server, |own| own.dnscache.address);
    let firsts = workload.period().filter(|_| flags.verify).map(Firsts::new);
    let plan = Plan {
        server,
        tcp: flags.tcp,
        duration: Duration::from_secs(flags.seconds),
        sockets: flags.sockets.into(),
        window: flags.window.into(),
        rate: flags.rate.map(f64::from),
        verify: firsts.as_ref(),
    };
    let seen = |own: &Own| own.seen();
    let before = (counters::read(server), own.as_ref().map(seen));
    let start = Instant::now();
    let (total, stretches) = ask(&plan, &workload, flags.json)?;
    let took = start.elapsed();
    let after = (counters::read(server), own.as_ref().map(seen));
    let hits = before.0.zip(after.0).map(|(before, after)| after - before);
    if total.answered == 0 {
        return Err(Error::Silence { server, sent: total.sent });
    }
    let saw = before.1.zip(after.1).map(|(before, after)| after - before);
    let agreed = saw.map(|saw| {
        // A query that failed before it was forwarded was not a hit either. A stream may end before
        // its answers arrive.
        let (asked, failed) = (total.sent - total.lost, total.rcodes[SERVFAIL]);
        counters::agree(hits.unwrap_or_default(), asked, saw + failed)
    });
    let (agreed, disagreement) = match agreed.transpose() {
        Ok(rate) => (rate, None),
        Err(disagreement) => (None, Some(disagreement)),
    };
    if flags.json {
        println!("{}", summary::json(&total, took, hits, agreed));
    } else {
        print!("{}", summary::text(&total, took, hits, agreed));
        print!("{}", chart::picture(&stretches, &total.latency));
    }
    match (disagreement, total.different) {
        (Some(disagreement), _) => Err(disagreement.into()),
        (None, 0) => Ok(()),
        (None, different) => Err(Error::Different(different)),
    }
}

/// Runs `plan`, and shows its progress unless `quiet` is set. Ctrl-C ends it early. Returns the
/// results in all and for each second.
fn ask(plan: &Plan<'_>, workload: &Workload, quiet: bool) -> Result<(Tally, Vec<Stretch>), Error> {
    let stop = stop_on_interrupt();
    let start = Instant::now();
    let (sender, stretches) = mpsc::channel();
    let total = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let sender = sender; // dropped with the generator, which ends the gathering
            generator::run(plan, workload, &stop, &sender)
        });
        let mut counted = counters::read(plan.server);
        let (mut seconds, mut shown) = (Vec::new(), Duration::ZERO);
        let total = summary::gather(&stretches, start, |stretch, elapsed| {
            if !quiet {
                let now = counters::read(plan.server);
                let meanwhile = counted.zip(now).map(|(before, now)| now - before);
                summary::progress(stretch, elapsed, meanwhile);
                let hit_rate = meanwhile.and_then(Cache::hit_rate);
                let lasted = elapsed.saturating_sub(shown).max(Duration::from_millis(1));
                let rate = stretch.answered as f64 / lasted.as_secs_f64();
                seconds.push(Stretch { rate, hit_rate });
                (counted, shown) = (now, elapsed);
            }
        });
        asking.join().expect("the generator does not panic").map(|()| (total, seconds))
    });
    total.map_err(|source| Error::Ask { server: plan.server, source })
}

fn workload(flags: &Run) -> Result<Workload, Error> {
    let names = flags.names as usize;
    Ok(match flags.workload {
        Kind::Uniform => Workload::uniform(names),
        Kind::Zipf => Workload::zipf(names, flags.alpha, flags.seed, DRAWS),
        Kind::SearchPath => Workload::search_path(&flags.ask, &flags.namespace, &flags.domain),
        Kind::Mixed => {
            let cluster = Workload::search_path(&flags.ask, &flags.namespace, &flags.domain);
            let churn = NonZeroU32::new(flags.churn);
            cluster.mixed(names, flags.alpha, flags.seed, churn, DRAWS)
        }
        Kind::Flood => Workload::Fresh(flags.seed),
        Kind::File => {
            let path = flags.file.clone().expect("clap requires it");
            let text = std::fs::read_to_string(&path)
                .map_err(|source| Error::File { path: path.clone(), source })?;
            Workload::file(&text).map_err(|source| Error::Questions { path, source })?
        }
    })
}

/// Returns a flag that the first Ctrl-C sets: the results so far are still printed. A second Ctrl-C
/// ends the program at once.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if flag.swap(true, Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
    stop
}

const SERVFAIL: usize = 2;
/// Questions drawn for a zipf or mixed workload before it repeats.
const DRAWS: usize = 400_000;
