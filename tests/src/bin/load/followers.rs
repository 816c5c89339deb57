//! `cargo load followers`: one change in the API reaches thousands of caches that follow several
//! replicas of kubedns.
//!
//! Edge. The replicas run as processes against the fake API server. The followers are connections
//! in this process, each from an address of its own, as the caches of nodes have it.
//!
//! ```text
//! changes ─▶ API server ═ HTTP ═▶ replicas of kubedns ═ /changes ═▶ crowd: thousands of followers
//!    └──────────────── time until the last follower has removed its entry ─────────────┘
//! ```

mod crowd;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ::tests::api_server::ApiServer;
use ::tests::build;
use hdrhistogram::Histogram;
use serde_json::json;
use shared::descriptors;
use tokio::runtime::{Builder, Runtime};

use crate::proc::Memory;
use crate::scale::cluster::{Cluster, cluster_ip, is_headless};
use crate::scale::process::Process;
use crowd::Crowd;

/// The flags of `cargo load followers`.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Followers, each of which follows every replica.
    #[arg(long, default_value_t = 5_000,
        value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub count: u32,
    /// Replicas of kubedns.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub replicas: u16,
    /// Changes per second through the API.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub changes: u32,
    /// Seconds for which there are changes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub seconds: u32,
    /// The kubedns to run [default: built with the profile of this tool].
    #[arg(long, value_name = "FILE")]
    pub kubedns: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Build(#[from] build::Error),
    #[error(transparent)]
    Server(#[from] crate::scale::Error),
    #[error("the runtime of the API server cannot be started: {0}")]
    Runtime(io::Error),
    #[error("follower {number} of {replica} cannot connect: {source}")]
    Connect { number: usize, replica: SocketAddr, source: io::Error },
    #[error("follower {number} of {replica} was not accepted: {head}")]
    Refused { number: usize, replica: SocketAddr, head: String },
    #[error("waiting for the followers failed: {0}")]
    Wait(io::Error),
    #[error(
        "{lost} of {all} removals did not happen within {} s, and {ended} streams have ended",
        crowd::LOST_AFTER.as_secs()
    )]
    Lost { lost: u64, all: u64, ended: u64 },
}

/// What came of the changes.
struct Measured {
    /// How long it took to connect every follower.
    connected: Duration,
    /// Microseconds from a change to each removal.
    each: Histogram<u64>,
    /// Microseconds from a change to the last removal.
    last: Histogram<u64>,
    /// Bytes that the followers read while there were changes.
    bytes: u64,
    replicas: Vec<Replica>,
}

/// What one replica took.
struct Replica {
    /// Resident memory before there was a follower.
    alone: Memory,
    /// The most while there were changes.
    peak: Memory,
    /// Processor time while there were changes.
    cpu: Duration,
}

/// Measures what `flags` ask for; prints it.
pub fn run(flags: &Flags) -> Result<(), Error> {
    descriptors::raise();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(Error::Runtime)?;
    let program = match &flags.kubedns {
        Some(path) => path.clone(),
        None => runtime.block_on(build::programs())?.join("kubedns"),
    };
    let changes = (flags.changes * flags.seconds) as usize;
    // Each change is of another Service, and one in ten is headless.
    let services = changes * 10 / 9 + 20;
    let cluster = Cluster { services, endpoints: services, headless: 1 };
    let api = api(&runtime, cluster);
    let readers = format!("--changes-readers={}", flags.count + 100);
    let mut servers = Vec::new();
    for _ in 0..flags.replicas {
        let kubeconfig = api.kubeconfig(None);
        let (process, http, _) = Process::kubedns(&program, kubeconfig.path(), None, &[&readers])?;
        servers.push((kubeconfig, process, http));
    }
    let alone = servers.iter().map(|(_, process, _)| process.memory());
    let alone = alone.collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    let https: Vec<SocketAddr> = servers.iter().map(|(.., http)| *http).collect();
    let crowd = Crowd::connect(&https, flags.count as usize, changes)?;
    let connected = start.elapsed();
    eprintln!("{} followers are connected after {:.1} s", flags.count, connected.as_secs_f64());
    let cpu = servers.iter().map(|(_, process, _)| process.cpu()).collect::<Result<Vec<_>, _>>()?;

    let written: Vec<OnceLock<Instant>> = (0..changes).map(|_| OnceLock::new()).collect();
    let crowd = std::thread::scope(|scope| {
        let reading = scope.spawn(|| crowd.run(&written));
        write(&api, cluster, flags.changes, &written);
        reading.join().expect("the crowd does not panic")
    })?;
    let mut replicas = Vec::new();
    for ((_, process, _), (alone, before)) in servers.iter().zip(alone.into_iter().zip(cpu)) {
        let cpu = process.cpu()?.saturating_sub(before);
        replicas.push(Replica { alone, peak: process.memory()?, cpu });
    }
    let Crowd { each, last, bytes, .. } = crowd;
    let measured = Measured { connected, each, last, bytes, replicas };
    match flags.json {
        true => println!("{}", measured.json(flags)),
        false => print!("{}", measured.text(flags)),
    }
    Ok(())
}

/// Starts the fake API server with the objects of `cluster`.
fn api(runtime: &Runtime, cluster: Cluster) -> ApiServer {
    let api = runtime.block_on(ApiServer::start());
    for object in cluster.objects() {
        api.apply(object);
    }
    api
}

/// Writes as many changes as `written` has places, `rate` per second, each of another Service.
fn write(api: &ApiServer, cluster: Cluster, rate: u32, written: &[OnceLock<Instant>]) {
    let start = Instant::now();
    let indices = (0..cluster.services).filter(|&index| !is_headless(index));
    for ((number, written), index) in written.iter().enumerate().zip(indices) {
        let due = Duration::from_secs_f64(number as f64 / f64::from(rate));
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let address: Ipv4Addr = cluster_ip(cluster.services + number);
        let object = cluster.service(index, address);
        written.get_or_init(Instant::now);
        api.apply(object);
    }
}

impl Measured {
    /// Bytes that one follower reads from one replica for one change.
    fn bytes_each(&self, flags: &Flags) -> f64 {
        let streams = f64::from(flags.count) * f64::from(flags.replicas);
        self.bytes as f64 / streams / f64::from(flags.changes * flags.seconds)
    }

    fn text(&self, flags: &Flags) -> String {
        let Flags { count, replicas, changes, seconds, .. } = flags;
        let mut text = format!(
            "{count} followers of {replicas} replicas, {changes} changes/s for {seconds} s\n\
             connected    {:.1} s\n",
            self.connected.as_secs_f64()
        );
        for (what, times) in [("each removal", &self.each), ("last removal", &self.last)] {
            let [p50, p99, max] = percentiles(times);
            text += &format!("{what} p50 {p50:.1} ms, p99 {p99:.1} ms, at most {max:.1} ms\n");
        }
        text += &format!(
            "bytes        {:.0} for a change, follower and replica\n",
            self.bytes_each(flags)
        );
        for (number, Replica { alone, peak, cpu }) in (1..).zip(&self.replicas) {
            text += &format!(
                "kubedns {number}    {:.1} MB at the peak, {:.1} MB without followers, {:.2} s of \
                 processor time per second\n",
                megabytes(peak.peak),
                megabytes(alone.resident),
                cpu.as_secs_f64() / f64::from(*seconds),
            );
        }
        text
    }

    fn json(&self, flags: &Flags) -> serde_json::Value {
        let times = |times| {
            let [p50, p99, max] = percentiles(times);
            json!({"p50": p50, "p99": p99, "max": max})
        };
        let replica = |replica: &Replica| {
            json!({
                "peak_megabytes": megabytes(replica.peak.peak),
                "alone_megabytes": megabytes(replica.alone.resident),
                "cpu_seconds": replica.cpu.as_secs_f64(),
            })
        };
        json!({
            "followers": flags.count,
            "changes": flags.changes * flags.seconds,
            "connected_seconds": self.connected.as_secs_f64(),
            "each_removal_ms": times(&self.each),
            "last_removal_ms": times(&self.last),
            "bytes_per_change": self.bytes_each(flags),
            "replicas": self.replicas.iter().map(replica).collect::<Vec<_>>(),
        })
    }
}

/// The median, the 99th percentile and the maximum in milliseconds.
fn percentiles(times: &Histogram<u64>) -> [f64; 3] {
    let micros = [times.value_at_quantile(0.5), times.value_at_quantile(0.99), times.max()];
    micros.map(|micros| micros as f64 / 1_000.0)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
