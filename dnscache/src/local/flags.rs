//! The flags of the rules.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::Block;
use super::dns64::{Dns64, PrefixError};
use super::keep::{AutopathPlan, BlockPlan, HostsPlan, Plan, ZoneFileError, ZonePlan};
use super::name::Zones;
use super::rewrite::{Rewrite, Rewrites, RuleError};
use super::template::Template;

/// The flags of the rules.
#[derive(Clone, Debug, Default, Args)]
pub struct LocalFlags {
    /// Hosts file whose names are answered before anything is asked (repeatable), with a TTL of
    /// 3600 seconds; names that it does not have are asked as ever; watched [default: none]
    #[arg(long = "hosts", value_name = "FILE")]
    pub hosts: Vec<PathBuf>,
    /// Zone whose names are answered from a master file (repeatable), in the form of RFC 1035;
    /// watched [default: none]
    #[arg(long = "zone-file", value_name = "ZONE=FILE", value_parser = zone_file)]
    pub zone_files: Vec<ZonePlan>,
    /// Rule that asks another question in place of the client's (repeatable, in order), as in
    /// Corefiles: [continue|stop] name|type|ttl|rcode ..., such as "name suffix .corp.example
    /// .svc.cluster.local answer auto" [default: none]
    #[arg(long = "rewrite", value_name = "RULE", value_parser = rewrite)]
    pub rewrites: Vec<Rewrite>,
    /// Answer that no name outside the cluster has IPv6 addresses (NODATA), for networks without
    /// IPv6 [default: off]
    #[arg(long)]
    pub filter_aaaa: bool,
    /// Walk the search list of pods here: the first question for an outside name is answered with
    /// an alias to it. The search domains behind those of the cluster are those of --resolv-file
    /// [default: off]
    #[arg(long)]
    pub autopath: bool,
    /// Prefix of a NAT64, such as 64:ff9b::/96, of 32, 40, 48, 56, 64 or 96 bits: names without
    /// IPv6 addresses get theirs translated, for every client (RFC 6147) [default: none]
    #[arg(long, value_name = "PREFIX", value_parser = dns64)]
    pub dns64: Option<Dns64>,
}

fn dns64(text: &str) -> Result<Dns64, PrefixError> {
    text.parse()
}

fn zone_file(text: &str) -> Result<ZonePlan, ZoneFileError> {
    text.parse()
}

fn rewrite(text: &str) -> Result<Rewrite, RuleError> {
    text.parse()
}

impl LocalFlags {
    /// Returns the rules of the flags, for names of all zones. `domains` are those of the cluster,
    /// in lower-case wire form; `resolv_file` has the search domains of the node.
    pub fn plan(&self, domains: Vec<Box<[u8]>>, resolv_file: &Path) -> Plan {
        let resolv_file = || resolv_file.to_owned();
        let walk = |domain: Box<[u8]>| AutopathPlan {
            domain,
            resolv_file: resolv_file(),
            zones: Zones::all(),
        };
        let autopath = domains.iter().filter(|_| self.autopath).cloned().map(walk).collect();
        let filter = self.filter_aaaa.then(|| Template::without_aaaa(domains));
        let rules = Block {
            zones: vec![[0].into()],
            dns64: self.dns64,
            rewrites: Arc::new(Rewrites::new(self.rewrites.clone())),
            templates: filter.into_iter().collect(),
            ..Block::default()
        };
        let hosts = self.hosts.iter().map(|file| HostsPlan::file(file.clone())).collect();
        Plan {
            blocks: vec![BlockPlan { rules, autopath, hosts, zone_files: self.zone_files.clone() }],
        }
    }
}
