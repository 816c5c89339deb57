//! The flags of the rules.

use std::path::PathBuf;

use clap::Args;

use super::Block;
use super::keep::{BlockPlan, HostsPlan, Plan};

/// The flags of the rules.
#[derive(Clone, Debug, Default, Args)]
pub struct LocalFlags {
    /// Hosts file whose names are answered before anything is asked (repeatable), with a TTL of
    /// 3600 seconds; names that it does not have are asked as ever; watched [default: none]
    #[arg(long = "hosts", value_name = "FILE")]
    pub hosts: Vec<PathBuf>,
}

impl LocalFlags {
    /// The rules that the flags make, for names of all zones.
    pub fn plan(&self) -> Plan {
        let rules = Block { zones: vec![[0].into()], ..Block::default() };
        let hosts = self.hosts.iter().map(|file| HostsPlan::file(file.clone())).collect();
        Plan { blocks: vec![BlockPlan { rules, hosts }] }
    }
}
