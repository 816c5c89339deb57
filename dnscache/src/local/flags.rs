//! The flags of the rules.

use std::path::PathBuf;

use clap::Args;

use super::Block;
use super::keep::{BlockPlan, HostsPlan, Plan};
use super::rewrite::{Rewrite, RuleError};
use super::template::Template;

/// The flags of the rules.
#[derive(Clone, Debug, Default, Args)]
pub struct LocalFlags {
    /// Hosts file whose names are answered before anything is asked (repeatable), with a TTL of
    /// 3600 seconds; names that it does not have are asked as ever; watched [default: none]
    #[arg(long = "hosts", value_name = "FILE")]
    pub hosts: Vec<PathBuf>,
    /// Rule that asks another question in place of the client's (repeatable, in order), as in
    /// Corefiles: [continue|stop] name|type|ttl|rcode ..., such as "name suffix .corp.example
    /// .svc.cluster.local answer auto" [default: none]
    #[arg(long = "rewrite", value_name = "RULE", value_parser = rewrite)]
    pub rewrites: Vec<Rewrite>,
    /// Answer that no name outside the cluster has IPv6 addresses (NODATA), for networks without
    /// IPv6 [default: off]
    #[arg(long)]
    pub filter_aaaa: bool,
}

fn rewrite(text: &str) -> Result<Rewrite, RuleError> {
    text.parse()
}

impl LocalFlags {
    /// The rules that the flags make, for names of all zones. `domains` are those of the cluster,
    /// in wire form and lower case.
    pub fn plan(&self, domains: Vec<Box<[u8]>>) -> Plan {
        let filter = self.filter_aaaa.then(|| Template::without_aaaa(domains));
        let rules = Block {
            zones: vec![[0].into()],
            rewrites: self.rewrites.clone().into(),
            templates: filter.into_iter().collect(),
            ..Block::default()
        };
        let hosts = self.hosts.iter().map(|file| HostsPlan::file(file.clone())).collect();
        Plan { blocks: vec![BlockPlan { rules, hosts }] }
    }
}
