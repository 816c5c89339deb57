//! `cargo load scale`: kubedns at the size of large clusters. Measures the time to start, the
//! memory, the cost of an answer, and the delay until a change is visible. CoreDNS can be measured
//! next to it.
//!
//! Edge. The real program runs as a process against the fake API server over HTTP, or a real one.
//!
//! ```text
//! cluster (core) ─▶ API server ═ HTTP ══════▶ kubedns, one process per size, on one core
//!                         │                      ▲ answers: rounds of every kind, beside the floor
//!                         └──── propagation ─────┘              all on the other cores
//! ```

mod answers;
mod api;
pub mod cluster;
pub mod process;
mod propagation;
mod report;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::tests::{build, tether};
use tokio::runtime::{Builder, Runtime};

use answers::{Stint, stint};
use api::Api;
use cluster::Cluster;
use process::Process;
use propagation::Propagation;

use crate::proc::Memory;

/// The flags of `cargo load scale`.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Services of each cluster, ascending, with commas between; one in ten is headless.
    #[arg(long, value_name = "COUNT,..", value_delimiter = ',', default_value = "100,1000,10000",
        value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub services: Vec<u32>,
    /// Endpoints of the largest cluster's services; the others have as many per service.
    #[arg(long, default_value_t = 130_000,
        value_parser = clap::value_parser!(u32).range(..=4_000_000))]
    pub endpoints: u32,
    /// Endpoints of one more service, which is headless, in every cluster.
    #[arg(long, default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub headless: u32,
    /// How the API server sends its lists.
    #[arg(long, value_enum, default_value = "streamed")]
    pub lists: Lists,
    /// Folder with etcd and kube-apiserver, to watch a real API server instead of a fake one:
    /// starts, memory and answers [default: the fake one, and relists and changes too]
    #[arg(long, value_name = "DIR", conflicts_with = "lists")]
    pub assets: Option<PathBuf>,
    /// Times that kubedns is started, and that each kind of query is asked.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Seconds for which each kind of query is asked in a round, 0 for not at all.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub seconds: f64,
    /// Changes per second through the API, to the largest cluster.
    #[arg(long, default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub changes: u32,
    /// Seconds for which there are changes, 0 for none.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub change_seconds: f64,
    /// The kubedns to run [default: built with the profile of this tool].
    #[arg(long, value_name = "FILE")]
    pub kubedns: Option<PathBuf>,
    /// A CoreDNS to start on the same clusters, in turns with kubedns: starts and memory
    /// [default: none].
    #[arg(long, env = "COREDNS", value_name = "FILE")]
    pub coredns: Option<PathBuf>,
    /// Leave every process on all cores. By default the servers have a core of their own, and the
    /// API server and the load have the others.
    #[arg(long)]
    pub all_cores: bool,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<f64, &'static str> {
    match text.parse() {
        Ok(seconds) if (0.0..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, 0 to 3600"),
    }
}

/// How the API server sends lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Lists {
    /// As a watch that begins with the existing objects (WatchList, KEP-3157).
    Streamed,
    /// In pages, as older servers do.
    Paged,
}

/// Why the measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Build(#[from] build::Error),
    #[error("the runtime of the API server cannot be started: {0}")]
    Runtime(io::Error),
    #[error("a server cannot be started: {0}")]
    Start(io::Error),
    #[error("{} does not become ready; its log is:\n{log}", program.display())]
    NotReady { program: PathBuf, log: String },
    #[error("/proc does not say what the server uses: {0}")]
    Proc(io::Error),
    #[error("asking failed: {0}")]
    Ask(io::Error),
    #[error("{label}: {wrong} of {answered} answers have the wrong response code")]
    Wrong { label: &'static str, answered: u64, wrong: u64 },
    #[error("kubedns does not list again within {} s of a 410", RELIST_MAX.as_secs())]
    NoRelist,
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Measured {
    /// The core of the servers, or why they do not have one of their own.
    pub core: Result<usize, String>,
    /// One per cluster, ascending.
    pub sizes: Vec<Size>,
    /// By kind, by server (the floor, then the sizes), by round.
    pub costs: Vec<Cost>,
    /// The propagation of changes in the largest cluster.
    pub propagation: Option<Propagation>,
}

/// The measurements of one size.
#[derive(Debug)]
pub struct Size {
    /// Its cluster.
    pub cluster: Cluster,
    /// Each start of kubedns.
    pub starts: Vec<Start>,
    /// Each start of CoreDNS, if there is one.
    pub coredns: Vec<Start>,
    /// The highest memory during a full relist, in bytes; `None` if the API server cannot expire
    /// its history.
    pub relist_peak: Option<u64>,
}

/// One start of a server.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The time from its start to a `/readyz` of 200 (`/ready` for CoreDNS).
    pub ready: Duration,
    /// User and system time until then.
    pub cpu: Duration,
    /// Resident bytes once it is idle.
    pub steady: u64,
    /// The highest memory so far, in bytes.
    pub peak: u64,
}

/// The cost of answers to one kind of query.
#[derive(Debug)]
pub struct Cost {
    /// The kind of query.
    pub label: &'static str,
    /// By server, by round.
    pub stints: Vec<Vec<Stint>>,
}

/// A running kubedns with its cluster.
struct Loaded {
    cluster: Cluster,
    api: Api,
    process: Process,
    http: SocketAddr,
}

/// Runs the measurements that `flags` select, and prints them.
pub fn run(flags: &Flags) -> Result<(), Error> {
    let program = match &flags.kubedns {
        Some(path) => path.clone(),
        None => runtime()?.block_on(build::programs())?.join("kubedns"),
    };
    let core = match flags.all_cores {
        true => Err("--all-cores".to_owned()),
        false => tether::part_cores().map_err(|reason| reason.to_string()),
    };
    let runtime = runtime()?; // new threads inherit the cores of this one
    let mut measured = Measured { core, sizes: Vec::new(), costs: Vec::new(), propagation: None };
    let mut loaded = Vec::new();
    for cluster in clusters(flags) {
        eprintln!("{} services, {} endpoints", cluster.services, cluster.all_endpoints());
        let (server, size) = load(&runtime, flags, (&program, cluster), core_of(&measured))?;
        loaded.push(server);
        measured.sizes.push(size);
    }
    if flags.seconds > 0.0 {
        let floor = Process::floor(core_of(&measured))?;
        measured.costs = costs(flags, &floor, &loaded)?;
    }
    if let Some(Loaded { cluster, api, process, .. }) = loaded.last()
        && let Some(api) = api.fake()
        && flags.change_seconds > 0.0
    {
        eprintln!("{} changes per second for {} s", flags.changes, flags.change_seconds);
        let duration = Duration::from_secs_f64(flags.change_seconds);
        let propagation = propagation::measure((api, process), *cluster, flags.changes, duration)?;
        measured.propagation = Some(propagation);
    }
    if flags.json {
        println!("{}", report::json(flags, &measured));
    } else {
        print!("{}", report::text(flags, &measured));
    }
    Ok(())
}

fn runtime() -> Result<Runtime, Error> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(Error::Runtime)
}

fn core_of(measured: &Measured) -> Option<usize> {
    measured.core.as_ref().ok().copied()
}

fn clusters(flags: &Flags) -> impl Iterator<Item = Cluster> {
    let mut services: Vec<usize> = flags.services.iter().map(|&count| count as usize).collect();
    services.sort_unstable();
    let largest = services.last().copied().unwrap_or(1);
    let each = (flags.endpoints as usize).div_ceil(largest);
    let headless = flags.headless as usize;
    services.into_iter().map(move |services| Cluster {
        services,
        endpoints: services * each,
        headless,
    })
}

/// Writes `cluster` to an API server and starts kubedns on it several times. The last one keeps
/// running.
fn load(
    runtime: &Runtime,
    flags: &Flags,
    (program, cluster): (&Path, Cluster),
    core: Option<usize>,
) -> Result<(Loaded, Size), Error> {
    let api = Api::start(runtime, flags, cluster);
    let kubeconfig = api.kubeconfig();
    let (mut starts, mut coredns) = (Vec::new(), Vec::new());
    loop {
        if let Some(program) = &flags.coredns {
            let (process, ready) = Process::coredns(program, &kubeconfig, core)?;
            coredns.push(start(&process, "CoreDNS", ready)?);
        }
        let (process, http, ready) = Process::kubedns(program, &kubeconfig, core, &[])?;
        starts.push(start(&process, "kubedns", ready)?);
        if starts.len() == usize::from(flags.rounds) {
            let loaded = Loaded { cluster, api, process, http };
            let relist_peak = relist(&loaded)?;
            return Ok((loaded, Size { cluster, starts, coredns, relist_peak }));
        }
    }
}

/// Returns the cost of the start of `process`, which has just become ready.
fn start(process: &Process, name: &str, ready: Duration) -> Result<Start, Error> {
    let cpu = process.cpu()?;
    std::thread::sleep(REST);
    let Memory { resident, peak } = process.memory()?;
    eprintln!("  {name} ready after {:.3} s", ready.as_secs_f64());
    Ok(Start { ready, cpu, steady: resident, peak })
}

/// Ends every watch with 410, so that all objects are listed again. Returns the highest memory
/// meanwhile.
fn relist(loaded: &Loaded) -> Result<Option<u64>, Error> {
    let Loaded { api, process, http, .. } = loaded;
    let Some(api) = api.fake() else { return Ok(None) };
    let lists = || process::lists(*http).map_err(Error::Ask);
    let before = lists()?;
    process.forget_peak()?;
    let start = Instant::now();
    api.forget();
    while lists()? < before * 2 {
        if start.elapsed() > RELIST_MAX {
            return Err(Error::NoRelist);
        }
        std::thread::sleep(REST / 10);
    }
    std::thread::sleep(REST);
    Ok(Some(process.memory()?.peak))
}

/// Measures in rounds. Each round runs every kind of query against every server, so that other work
/// of the machine affects all of them alike.
fn costs(flags: &Flags, floor: &Process, loaded: &[Loaded]) -> Result<Vec<Cost>, Error> {
    let queries: Vec<_> = loaded.iter().map(|loaded| loaded.cluster.queries()).collect();
    let Some(largest) = queries.last() else { return Ok(Vec::new()) };
    let duration = Duration::from_secs_f64(flags.seconds);
    let cost = |query: &cluster::Query| Cost {
        label: query.label,
        stints: vec![Vec::new(); 1 + loaded.len()],
    };
    let mut costs: Vec<Cost> = largest.iter().map(cost).collect();
    for round in 1..=flags.rounds {
        eprintln!("answers, round {round} of {}", flags.rounds);
        for (kind, cost) in costs.iter_mut().enumerate() {
            cost.stints[0].push(stint(floor, &largest[kind], None, duration)?);
            for (place, Loaded { process, .. }) in loaded.iter().enumerate() {
                let query = &queries[place][kind];
                cost.stints[1 + place].push(stint(process, query, Some(query.rcode), duration)?);
            }
        }
    }
    Ok(costs)
}

/// The time after which a ready kubedns has freed the memory that it no longer needs.
const REST: Duration = Duration::from_millis(1_000);
const RELIST_MAX: Duration = Duration::from_secs(60);

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
    fn smaller_clusters_have_as_many_endpoints_per_service() {
        let flags = Alone::parse_from(["scale", "--services", "10000,100"]).flags;
        let clusters: Vec<_> = clusters(&flags).collect();
        assert_eq!(clusters.len(), 2);
        assert_eq!((clusters[0].services, clusters[0].all_endpoints()), (100, 2_300));
        assert_eq!((clusters[1].services, clusters[1].all_endpoints()), (10_000, 131_000));
    }

    #[test]
    fn a_mistake_is_refused() {
        for flags in [["--seconds", "-1"], ["--seconds", "x"], ["--services", "9"]] {
            assert!(Alone::try_parse_from(["scale"].iter().chain(&flags)).is_err(), "{flags:?}");
        }
    }
}
