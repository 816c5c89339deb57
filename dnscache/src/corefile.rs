//! The Corefile of a running dnscache: what of it is applied at once.
//!
//! Edge. What a Corefile means is the business of [`shared::corefile`].

use std::sync::Arc;

use shared::corefile::plugins::{Hosts, Server};
use shared::corefile::{Follower, Merged, Plan, Source, State, Zone, open as follow};
use shared::flags::chain;
use tokio::sync::watch;

use crate::config::Config;
use crate::local::hosts::Options;
use crate::local::keep::{self, BlockPlan, HostsPlan};
use crate::local::name::Zones;
use crate::reload::Live;
use crate::route::{ROOT, wire};

/// How the Corefile fares, and what follows its changes.
#[derive(Debug)]
pub struct Corefile {
    /// How it fares.
    pub state: watch::Receiver<State>,
    /// Follows it.
    pub follower: Follower,
}

/// What changes with the Corefile.
pub type Changing = (watch::Receiver<Live>, watch::Receiver<Arc<keep::Plan>>, Corefile);

/// Begins with what `config` says.
pub fn open(config: &Config) -> Changing {
    let (live, live_seen) = watch::channel(config.live());
    let (plans, plans_seen) = watch::channel(Arc::new(plan(config)));
    let source = config.loaded.as_ref().map(|loaded| loaded.source.clone());
    let mut rules = config.loaded.as_ref().map(|loaded| rules(&loaded.plan.servers));
    let apply = move |plan: &Plan, _: &Merged| {
        let Some(source) = &source else { return Ok(()) };
        let config = read(source, plan)?;
        live.send_replace(config.live());
        // New rules empty the cache: only if there are any.
        let now = Some(self::rules(&plan.servers));
        if now != rules {
            plans.send_replace(Arc::new(plan_with(&config, &plan.servers)));
            rules = now;
        }
        Ok(())
    };
    let (state, follower) = follow(config.loaded.clone(), Box::new(apply));
    (live_seen, plans_seen, Corefile { state, follower })
}

/// The configuration that `plan` makes. Fails with the reasons why it cannot be used.
fn read(source: &Source, plan: &Plan) -> Result<Config, Vec<String>> {
    let (config, _) = source.config::<Config>(plan)?;
    let path = source.path.display();
    config.check().map_err(|error| vec![format!("{path}: {}", chain(&error))])?;
    Ok(config)
}

/// What of the blocks makes rules.
fn rules(servers: &[Server]) -> Vec<(Vec<Zone>, Option<Hosts>)> {
    servers.iter().map(|it| (it.zones().cloned().collect(), it.hosts.clone())).collect()
}

/// The rules of flags and Corefile.
fn plan(config: &Config) -> keep::Plan {
    match &config.loaded {
        Some(loaded) => plan_with(config, &loaded.plan.servers),
        None => config.rules(),
    }
}

/// The rules of flags, and after them those of `servers`. A block without rules is one as well: its
/// names are not those of a block above.
fn plan_with(config: &Config, servers: &[Server]) -> keep::Plan {
    let of_flags = config.rules().blocks;
    let block = |server: &Server| {
        let mut block = of_flags.first().cloned().unwrap_or_default();
        block.rules.zones = server.zones().map(name).collect();
        block.hosts.extend(server.hosts.iter().map(|it| hosts(it, server)));
        block
    };
    let mut blocks: Vec<BlockPlan> = servers.iter().map(block).collect();
    // The first block of a zone counts.
    blocks.extend(of_flags.iter().cloned());
    keep::Plan { blocks }
}

fn hosts(hosts: &Hosts, server: &Server) -> HostsPlan {
    let own: Vec<&Zone> = match &hosts.zones[..] {
        [] => server.zones().collect(),
        zones => zones.iter().collect(),
    };
    let fallthrough = match &hosts.fallthrough[..] {
        [] => None,
        zones => Some(Zones::new(zones.iter().map(name).collect())),
    };
    HostsPlan {
        file: Some(hosts.file.clone().into()),
        lines: hosts.lines.iter().map(|line| format!("{line}\n")).collect(),
        options: Options {
            ttl: hosts.ttl,
            reverse: hosts.reverse,
            zones: Zones::new(own.into_iter().map(name).collect()),
            fallthrough,
        },
        is_fixed: hosts.is_fixed,
    }
}

/// A zone in wire form and lower case.
fn name(zone: &Zone) -> Box<[u8]> {
    wire(zone.as_str()).unwrap_or_else(|| ROOT.into())
}
