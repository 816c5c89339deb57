//! `cargo load upstreams`: measures what clients of dnscache and of the DNS caches on the PATH see
//! if upstreams fail.
//!
//! Edge. One server runs at a time, alone on its core. Clients and upstreams share the others.
//! Everything is on loopback.
//!
//! ```text
//! for each row, round, server:  upstreams ─▶ server ─▶ asker: what came, when ─▶ table
//! ```

pub mod asker;
mod rows;
mod table;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ::tests::{build, tether};
use tokio::runtime::{Builder, Runtime};

use crate::compare::servers::{self, Kind, Server};
use rows::{Bench, Row};
use table::Table;

/// The flags of `cargo load upstreams`.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// What to measure, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Row::ALL)]
    pub only: Vec<Row>,
    /// Which servers, separated by commas [default: dnscache, and Unbound, dnsmasq and CoreDNS if
    /// they are on the PATH]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub servers: Vec<Kind>,
    /// Rounds; the table shows medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// How long the upstream is silent before it answers again, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=600))]
    pub outage: u64,
    /// The dnscache to run; without it, it is built first, with the profile of this tool.
    #[arg(long, value_name = "FILE")]
    pub dnscache: Option<PathBuf>,
    /// Print a table for a README.
    #[arg(long)]
    pub markdown: bool,
}

/// Why the table cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path of this tool cannot be read.
    #[error("cannot find out where this program lies: {0}")]
    OwnPath(#[source] io::Error),
    /// The runtime of the upstreams cannot be created.
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
    /// dnscache cannot be built.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// A requested server is not installed.
    #[error("--servers: {0} is not on the PATH")]
    Absent(&'static str),
}

/// Measures and prints the table.
pub fn run(flags: &Flags) -> Result<(), Error> {
    let servers = chosen(flags)?;
    let server_core = tether::part_cores().ok();
    // Must come after the cores are divided, because new threads inherit the cores of this one.
    let runtime = runtime()?;
    let outage = Duration::from_secs(flags.outage);
    let bench = Bench { runtime: &runtime, server_core, outage };
    let title = |server: &Server| format!("{} {}", server.kind.name(), server.version);
    let mut table = Table::new(servers.iter().map(title).collect());
    for &row in &flags.only {
        for round in 1..=flags.rounds {
            for (index, server) in servers.iter().enumerate() {
                eprintln!("{row:?} {round} of {}: {}", flags.rounds, server.kind.name());
                match row.measure(server, &bench) {
                    Ok(figures) => figures.into_iter().for_each(|figure| table.add(index, figure)),
                    Err(reason) => eprintln!("not measured: {reason}"),
                }
            }
        }
    }
    print!("{}", if flags.markdown { table.markdown() } else { table.text() });
    Ok(())
}

/// Returns the servers that the flags select. Fails if one of them is not installed.
fn chosen(flags: &Flags) -> Result<Vec<Server>, Error> {
    let dnscache = match &flags.dnscache {
        // The path must be absolute, because servers start in a directory of their own.
        Some(path) => std::path::absolute(path).map_err(Error::OwnPath)?,
        None => runtime()?.block_on(build::programs())?.join("dnscache"),
    };
    let own = std::env::current_exe().map_err(Error::OwnPath)?;
    let present = servers::present(&own, &dnscache);
    let is_here = |kind: &Kind| present.iter().any(|server| server.kind == *kind);
    if let Some(absent) = flags.servers.iter().find(|kind| !is_here(kind)) {
        return Err(Error::Absent(absent.name()));
    }
    let wanted = if flags.servers.is_empty() { &DEFAULT[..] } else { &flags.servers };
    Ok(present.into_iter().filter(|server| wanted.contains(&server.kind)).collect())
}

fn runtime() -> Result<Runtime, Error> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(Error::Runtime)
}

const DEFAULT: [Kind; 4] = [Kind::Dnscache, Kind::Unbound, Kind::Dnsmasq, Kind::Coredns];
