//! The flags of `cargo load`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use shared::flags::{Stop, parse_from};

use crate::workload::{self, Kind};
use crate::{chaos, compare, etcd, floor, followers, hit_rate, scale, start, upstreams};

/// Load-tests a DNS server: answers per second, latency, hit rate.
#[derive(Debug, Parser)]
#[command(
    name = "cargo-load",
    bin_name = "cargo load",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Flags {
    /// What to do in place of a load test.
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: Run,
}

/// The commands of `cargo load` other than the load test: one variant and one module each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Draws hit rate against cache size and over time: dnscache's, plain LRU, the best possible.
    HitRate(hit_rate::Flags),
    /// Measures dnscache next to the floor and the DNS caches on the PATH, in one run.
    Compare(compare::Flags),
    /// Runs kubedns on clusters of thousands of services: memory, start, cost of answers, changes.
    Scale(scale::Flags),
    /// Measures what clients see if upstreams lose, delay, fail or fall silent, next to other
    /// caches.
    Upstreams(upstreams::Flags),
    /// Has thousands of caches follow replicas of kubedns, and measures how soon a change reaches
    /// the last one.
    Followers(followers::Flags),
    /// Measures kubedns with the keys of a real etcd, next to CoreDNS.
    Etcd(etcd::Flags),
    /// Kills and stops programs of a pod whose sockets healthz keeps, or other caches, and accounts
    /// for every question.
    Chaos(chaos::Flags),
    /// Measures the time from the start of dnscache and of kubedns to their first answers.
    Start(start::Flags),
    /// Answers every question with the same reply: what the cheapest possible server costs.
    #[command(hide = true)]
    Floor(floor::Flags),
}

/// The load test itself.
#[derive(Debug, Args)]
pub struct Run {
    /// Server to ask; beyond loopback only with --remote.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1053")]
    pub server: SocketAddr,
    /// Start a dnscache and an upstream on loopback, and ask that dnscache: what the upstream sees
    /// is a second source for the hit rate, and must agree with the first.
    #[arg(long, conflicts_with_all = ["server", "remote", "export"])]
    pub own: bool,
    /// own: how many entries its cache has.
    #[arg(long, value_name = "ENTRIES", default_value_t = 10_000, requires = "own")]
    pub cache_size: u32,
    /// Compare every answer with the first to the same question, except for TTL and order.
    #[arg(long)]
    pub verify: bool,
    /// Allow a server that is not on this machine.
    #[arg(long)]
    pub remote: bool,
    /// What to ask.
    #[arg(long, value_enum, default_value = "search-path")]
    pub workload: Kind,
    /// uniform, zipf, mixed: how many names there are.
    #[arg(long, default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub names: u32,
    /// zipf, mixed: how much more often the popular names are asked, 0 (not) to 3.
    #[arg(long, default_value_t = 1.0, value_parser = alpha)]
    pub alpha: f64,
    /// zipf, mixed, flood: the same seed asks the same questions.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// mixed: draws after which an outside name is replaced by a new one, 0 for never.
    #[arg(long, default_value_t = 100_000)]
    pub churn: u32,
    /// search-path, mixed: names a pod looks up (repeatable).
    #[arg(long, value_name = "NAME", value_parser = name,
        default_values_t = DEMO_NAMES.map(str::to_owned))]
    pub ask: Vec<String>,
    /// search-path, mixed: the pod's namespace.
    #[arg(long, default_value = "shop")]
    pub namespace: String,
    /// search-path, mixed: the cluster domain.
    #[arg(long, default_value = "cluster.local")]
    pub domain: String,
    /// Questions in dnsperf's format, for --workload file.
    #[arg(long, value_name = "FILE", required_if_eq("workload", "file"))]
    pub file: Option<PathBuf>,
    /// Write the workload in dnsperf's format and do nothing else.
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// How long to ask, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// Questions per second; without it, as fast as the answers come.
    #[arg(long, value_name = "QPS", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Sockets, or connections with --tcp.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub sockets: u16,
    /// Outstanding questions per socket.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub window: u16,
    /// Ask over TCP.
    #[arg(long)]
    pub tcp: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Parses the command line. If a flag is wrong, prints one line and ends the process with code 2.
///
/// `cargo load --flag` and `cargo load -- --flag` are the same: cargo passes its second `--` on.
pub fn parse() -> Flags {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == "--") {
        arguments.remove(1);
    }
    match read(arguments) {
        Ok(flags) => flags,
        Err(Stop::Shown(text)) => {
            print!("{text}");
            std::process::exit(0)
        }
        Err(Stop::Wrong(line)) => {
            eprintln!("{line}");
            std::process::exit(2)
        }
    }
}

/// Parses the flags. Fails if one of them would be ignored.
fn read(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Flags, Stop> {
    let flags: Flags = parse_from(arguments)?;
    if flags.run.file.is_some() && flags.run.workload != Kind::File {
        let line = "error: --file is only read with --workload file";
        return Err(Stop::Wrong(line.to_owned()));
    }
    Ok(flags)
}

/// Parses an exponent of Zipf's law.
pub fn alpha(text: &str) -> Result<f64, &'static str> {
    match text.parse() {
        Ok(alpha) if (0.0..=3.0).contains(&alpha) => Ok(alpha),
        _ => Err("expected a number, 0 to 3"),
    }
}

fn name(text: &str) -> Result<String, &'static str> {
    match workload::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("expected a name: labels of 1 to 63 bytes, at most 253 in all"),
    }
}

/// The names that the demo's pods look up.
const DEMO_NAMES: [&str; 4] = ["kubernetes.default", "web.shop", "catalog.shop", "www.example.com"];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Flags, Stop> {
        super::read(["cargo-load"].iter().chain(arguments).copied())
    }

    #[test]
    fn without_a_command_it_is_a_load_test() {
        let flags = read(&["--rate", "10"]).unwrap();
        assert!(flags.command.is_none());
        assert_eq!((flags.run.rate, flags.run.ask.len()), (Some(10), DEMO_NAMES.len()));
    }

    #[test]
    fn a_command_has_its_own_flags() {
        let flags = read(&["hit-rate", "--names", "50"]).unwrap();
        assert!(matches!(flags.command, Some(Command::HitRate(flags)) if flags.names == 50));
    }

    #[test]
    fn a_mistake_names_the_flag_and_what_is_allowed() {
        let rows: [(&[&str], &str); 7] = [
            (&["--alpha", "4"], "0 to 3"),
            (&["--ask", "a..b"], "1 to 63"),
            (&["--rate", "0"], "--rate"),
            (&["--workload", "file"], "--file"),
            (&["--file", "x"], "--file is only read with --workload file"),
            (&["--file", "x", "--workload", "zipf"], "--workload file"),
            (&["hit-rate", "--alpha", "x"], "0 to 3"),
        ];
        for (arguments, part) in rows {
            let Err(Stop::Wrong(line)) = read(arguments) else { panic!("{arguments:?} was taken") };
            assert!(line.contains(part), "{line}");
        }
    }
}
