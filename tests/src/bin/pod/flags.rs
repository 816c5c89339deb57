//! The flags of `cargo pod`.

use std::path::{Path, PathBuf};

use clap::Parser;
use shared::flags::{Stop, parse_from};

/// Builds kubedns, dnscache and healthz and runs them on loopback, as the pod would, until Ctrl-C.
///
/// Other flags of the programs can be set through their environment variables, KUBEDNS_TTL=5 for
/// example.
#[derive(Debug, Parser)]
#[command(name = "cargo-pod", override_usage = "cargo pod [OPTIONS]", version)]
pub struct Flags {
    /// File or directory of Kubernetes YAML or JSON in place of an API server; edits are followed.
    #[arg(long, value_name = "PATH", default_value = DEMO, conflicts_with = "kubeconfig")]
    objects: PathBuf,
    /// A real cluster in place of the demo objects.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig file [default: its current one].
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    pub context: Option<String>,
    /// Cluster domain.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub domain: String,
    /// Domain of Multi-Cluster Services [default: clusterset.local with --objects, else off].
    #[arg(long, value_name = "NAME")]
    clusterset_domain: Option<String>,
    /// Member of etcd with SkyDNS records, such as http://127.0.0.1:2379 (repeatable) [default:
    /// none].
    #[arg(long, value_name = "URL")]
    pub etcd: Vec<String>,
    /// Zone in etcd.
    #[arg(long, value_name = "ZONE", default_value = "skydns.local")]
    etcd_zone: String,
    /// Upstream of dnscache for names outside the cluster, [/DOMAIN/.../]ADDR[#PORT] (repeatable)
    /// [default: none, no other machine is asked].
    #[arg(long, value_name = "SERVER")]
    pub server: Vec<String>,
    /// dnscache's DNS port; 0 picks a free one, as for every port below.
    #[arg(long, value_name = "PORT", default_value_t = 1_053)]
    pub dns_port: u16,
    /// dnscache's HTTP port.
    #[arg(long, value_name = "PORT", default_value_t = 9_153)]
    pub dnscache_http_port: u16,
    /// kubedns's DNS port.
    #[arg(long, value_name = "PORT", default_value_t = 10_053)]
    pub kubedns_port: u16,
    /// kubedns's HTTP port.
    #[arg(long, value_name = "PORT", default_value_t = 8_081)]
    pub kubedns_http_port: u16,
    /// healthz's HTTP port.
    #[arg(long, value_name = "PORT", default_value_t = 10_054)]
    pub healthz_port: u16,
    /// Level or filter of the programs' logs.
    #[arg(long, value_name = "LEVEL-OR-FILTER", default_value = "info")]
    pub log: String,
    /// Where the programs' logs go [default: `pod-logs` in cargo's target directory].
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
}

impl Flags {
    /// Returns the path of the objects, or `None` if the pod uses a real cluster.
    pub fn objects(&self) -> Option<&Path> {
        self.kubeconfig.is_none().then_some(&self.objects)
    }

    /// Returns the domain of Multi-Cluster Services. It is on by default for files, which cost
    /// little to read, but not for a real cluster, which may not allow it.
    pub fn clusterset_domain(&self) -> Option<&str> {
        let usual = self.kubeconfig.is_none().then_some("clusterset.local");
        self.clusterset_domain.as_deref().or(usual)
    }

    /// Returns the zone in etcd, if there is an etcd.
    pub fn etcd_zone(&self) -> Option<&str> {
        (!self.etcd.is_empty()).then_some(&*self.etcd_zone)
    }

    /// Returns the directory of logs: the flag's, or else `pod-logs` in cargo's target directory.
    pub fn log_directory(&self, built: &Path) -> PathBuf {
        let target = built.parent().unwrap_or(built);
        self.log_dir.clone().unwrap_or_else(|| target.join("pod-logs"))
    }
}

/// Parses the command line. If a flag is wrong, prints one line and ends the process with code 2.
///
/// `cargo pod --flag` and `cargo pod -- --flag` are the same: cargo passes its second `--` on.
pub fn parse() -> Flags {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == "--") {
        arguments.remove(1);
    }
    match parse_from(arguments) {
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

/// Returns `path` relative to the current directory if it is below it.
pub fn seen_from_here(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

/// The demo objects of this workspace.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/demo");
