//! `cargo load`: load-tests a running pod, or any DNS server, and says what its users would feel.
//!
//! ```text
//! flags ─▶ workload (core: which questions) ─▶ generator (edge: sockets, windows, rate)
//!                                                       └─▶ summary, text or JSON ◀─ hit rate
//!                                      server's own counters before and after ───────────┘
//! ```

mod counters;
mod generator;
mod summary;
mod workload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use clap::Parser;

use generator::{Plan, Tally};
use workload::{Kind, Workload};

/// Load-tests a DNS server: answers per second, latency, hit rate.
#[derive(Debug, Parser)]
#[command(name = "cargo load", version)]
struct Flags {
    /// Server to ask; beyond loopback only with --remote.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1053")]
    server: SocketAddr,
    /// Allow a server that is not on this machine.
    #[arg(long)]
    remote: bool,
    /// What to ask.
    #[arg(long, value_enum, default_value = "search-path")]
    workload: Kind,
    /// uniform, zipf: how many names there are.
    #[arg(long, default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    names: u32,
    /// zipf: how much more often the popular names are asked, 0 (not) to 3.
    #[arg(long, default_value_t = 1.0)]
    alpha: f64,
    /// zipf, flood: the same seed asks the same questions.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// search-path: names a pod looks up (repeatable).
    #[arg(long, value_name = "NAME", default_values_t = DEMO_NAMES.map(str::to_owned))]
    ask: Vec<String>,
    /// search-path: the pod's namespace.
    #[arg(long, default_value = "shop")]
    namespace: String,
    /// search-path: the cluster domain.
    #[arg(long, default_value = "cluster.local")]
    domain: String,
    /// file: questions in dnsperf's format.
    #[arg(long, value_name = "FILE", required_if_eq("workload", "file"))]
    file: Option<PathBuf>,
    /// Write the workload in dnsperf's format and do nothing else.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// How long to ask, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Questions per second; without it, as fast as the answers come.
    #[arg(long, value_name = "QPS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Sockets, or connections with --tcp.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    sockets: u16,
    /// Outstanding questions per socket.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    window: u16,
    /// Ask over TCP.
    #[arg(long)]
    tcp: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("--server {0} is not on this machine; --remote allows it")]
    Remote(SocketAddr),
    #[error("--alpha {0} is out of range; allowed: 0 to 3")]
    Alpha(f64),
    #[error("--ask {0:?} is no name; a label has 1 to 63 bytes")]
    Name(String),
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}", path = path.display())]
    Questions { path: PathBuf, source: workload::FileError },
    #[error("asking {server} failed: {source}")]
    Ask { server: SocketAddr, source: std::io::Error },
    #[error("{server} did not answer a single question of {sent}; is it running?")]
    Silence { server: SocketAddr, sent: u64 },
}

fn run(flags: &Flags) -> Result<(), Error> {
    if !flags.remote && !flags.server.ip().is_loopback() {
        return Err(Error::Remote(flags.server));
    }
    let workload = workload(flags)?;
    if let Some(path) = &flags.export {
        return std::fs::write(path, workload.export())
            .map_err(|source| Error::File { path: path.clone(), source });
    }
    let plan = Plan {
        server: flags.server,
        tcp: flags.tcp,
        duration: Duration::from_secs(flags.seconds),
        sockets: flags.sockets.into(),
        window: flags.window.into(),
        rate: flags.rate.map(f64::from),
    };
    let stop = stop_on_interrupt();
    let before = counters::read(flags.server);
    let start = Instant::now();
    let (sender, stretches) = mpsc::channel();
    let total = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let sender = sender; // ends with the generator, and with it the loop below
            generator::run(&plan, &workload, &stop, &sender)
        });
        let mut total = Tally::new();
        for stretch in stretches {
            total.add(&stretch);
            if !flags.json {
                summary::progress(&stretch, start.elapsed());
            }
        }
        asking.join().expect("the generator does not panic").map(|()| total)
    });
    let total = total.map_err(|source| Error::Ask { server: flags.server, source })?;
    let took = start.elapsed();
    let hits = before.zip(counters::read(flags.server)).map(|(before, after)| after - before);
    if total.answered == 0 {
        return Err(Error::Silence { server: flags.server, sent: total.sent });
    }
    if flags.json {
        println!("{}", summary::json(&total, took, hits));
    } else {
        print!("{}", summary::text(&total, took, hits));
    }
    Ok(())
}

fn workload(flags: &Flags) -> Result<Workload, Error> {
    if !(0.0..=3.0).contains(&flags.alpha) {
        return Err(Error::Alpha(flags.alpha));
    }
    let names = flags.names as usize;
    Ok(match flags.workload {
        Kind::Uniform => Workload::uniform(names),
        Kind::Zipf => Workload::zipf(names, flags.alpha, flags.seed, DRAWS),
        Kind::SearchPath => {
            let bad = flags.ask.iter().find(|name| !workload::is_name(name));
            if let Some(name) = bad {
                return Err(Error::Name(name.clone()));
            }
            Workload::search_path(&flags.ask, &flags.namespace, &flags.domain)
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

/// Set at the first Ctrl-C: what was measured so far is still printed. A second one ends the
/// program at once.
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

/// Questions drawn for a Zipf workload before it repeats.
const DRAWS: usize = 400_000;
/// What the demo's pods look up.
const DEMO_NAMES: [&str; 4] = ["kubernetes.default", "web.shop", "catalog.shop", "www.example.com"];
