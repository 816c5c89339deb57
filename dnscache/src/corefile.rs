//! The Corefile of a running dnscache: applies the changes that need no restart.
//!
//! Edge. [`shared::corefile`] defines the meaning of a Corefile.

use std::path::PathBuf;
use std::sync::Arc;

use shared::corefile::plugins::{self, Hosts, Kubernetes, Server, ZoneFile};
use shared::corefile::{Follower, Merged, Plan, Source, State, Surroundings, Zone, open as follow};
use shared::flags::chain;
use tokio::sync::watch;

use crate::config::Config;
use crate::doors::Acl;
use crate::local::dns64::Dns64;
use crate::local::hosts::Options;
use crate::local::keep::{self, AutopathPlan, BlockPlan, HostsPlan, ZoneFileError, ZonePlan};
use crate::local::name::Zones;
use crate::local::rewrite::Rewrites;
use crate::local::template::Template;
use crate::reload::Live;
use crate::route::ROOT;
use shared::name::parse;

/// The state of the Corefile, and the task that follows its changes.
#[derive(Debug)]
pub struct Corefile {
    /// The state.
    pub state: watch::Receiver<State>,
    /// The task.
    pub follower: Follower,
}

/// The parts that change with the Corefile.
pub type Changing = (watch::Receiver<Live>, watch::Receiver<Arc<keep::Plan>>, Corefile);

/// Starts with the settings of `config`.
pub fn open(config: &Config) -> Changing {
    let (live, live_seen) = watch::channel(config.live());
    let (plans, plans_seen) = watch::channel(Arc::new(plan(config)));
    let source = config.loaded.as_ref().map(|loaded| loaded.source.clone());
    let mut before = format!("{:?}", plans.borrow());
    let apply = move |plan: &Plan, _: &Merged| {
        let Some(source) = &source else { return Ok(()) };
        let config = read(source, plan)?;
        live.send_replace(config.live());
        let rules = plan_with(&config, &plan.servers);
        // New rules empty the cache, so they are sent only if they differ.
        let now = format!("{rules:?}");
        if now != before {
            plans.send_replace(Arc::new(rules));
            before = now;
        }
        Ok(())
    };
    let (state, follower) = follow(config.loaded.clone(), Box::new(apply));
    (live_seen, plans_seen, Corefile { state, follower })
}

/// Returns the configuration from `plan`. Fails with the reasons why it cannot be used.
fn read(source: &Source, plan: &Plan) -> Result<Config, Vec<String>> {
    let (config, _) = source.config::<Config>(plan)?;
    let path = source.path.display();
    config.check().map_err(|error| vec![format!("{path}: {}", chain(&error))])?;
    Ok(config)
}

/// Returns dnscache's input for a plan.
pub fn surroundings() -> Surroundings {
    Surroundings { judge: Some(judge), ..Surroundings::default() }
}

/// Returns the errors of the zone files of a block. A file that cannot be read is not an error of
/// the Corefile, because it may be added later.
fn judge(server: &Server) -> Vec<(usize, String)> {
    let files = server.files.iter().flat_map(|it| {
        let plans = zone_files(it, server).into_iter();
        plans.filter_map(|plan| match plan.read() {
            Err(error @ ZoneFileError::Zone(..)) => Some((it.index, chain(&error))),
            _ => None,
        })
    });
    files.collect()
}

fn template(rule: &plugins::Template, server: &Server) -> Template {
    Template {
        qtype: rule.qtype,
        zones: own_zones(&rule.zones, server),
        except: None,
        patterns: rule.patterns.clone(),
        records: rule.records.clone(),
        rcode: rule.rcode,
        error: rule.error.clone().map(|(code, text)| (code, text.into())),
        fallthrough: fallthrough(&rule.fallthrough),
    }
}

/// Returns the rules of flags and Corefile.
fn plan(config: &Config) -> keep::Plan {
    match &config.loaded {
        Some(loaded) => plan_with(config, &loaded.plan.servers),
        None => config.rules(),
    }
}

/// Returns the rules of flags, followed by those of `servers`. A block without rules is included,
/// so that its names do not belong to a block above.
fn plan_with(config: &Config, servers: &[Server]) -> keep::Plan {
    let of_flags = config.rules().blocks;
    let block = |server: &Server| {
        let mut block = of_flags.first().cloned().unwrap_or_default();
        block.rules.zones = server.zones().map(name).collect();
        let rewrites = [block.rules.rewrites.rules(), &server.rewrites].concat();
        block.rules.rewrites = Arc::new(Rewrites::new(rewrites));
        let own = server.templates.iter().map(|it| template(it, server));
        block.rules.templates = block.rules.templates.iter().cloned().chain(own).collect();
        block.hosts.extend(server.hosts.iter().map(|it| hosts(it, server)));
        block.autopath.extend(autopath(server, config));
        block.zone_files.extend(server.files.iter().flat_map(|it| zone_files(it, server)));
        let acls = server
            .acls
            .iter()
            .map(|it| Acl::new(own_zones(&it.zones, server), it.policies.clone()));
        block.rules.acls = acls.collect();
        block.rules.header = server.header.unwrap_or_default();
        block.rules.dns64 = server.dns64.as_ref().and_then(dns64).or(block.rules.dns64);
        block
    };
    let mut blocks: Vec<BlockPlan> = servers.iter().map(block).collect();
    // The first block of a zone counts.
    blocks.extend(of_flags.iter().cloned());
    keep::Plan { blocks }
}

/// Returns the zones of a rule: `zones`, or those of the block if there are none.
fn own_zones(zones: &[Zone], server: &Server) -> Zones {
    match zones {
        [] => Zones::new(server.zones().map(name).collect()),
        zones => Zones::new(zones.iter().map(name).collect()),
    }
}

/// Returns the zones in which the next rule is asked.
fn fallthrough(zones: &[Zone]) -> Option<Zones> {
    (!zones.is_empty()).then(|| Zones::new(zones.iter().map(name).collect()))
}

fn hosts(hosts: &Hosts, server: &Server) -> HostsPlan {
    HostsPlan {
        file: Some(hosts.file.clone().into()),
        lines: hosts.lines.iter().map(|line| format!("{line}\n")).collect(),
        options: Options {
            ttl: hosts.ttl,
            reverse: hosts.reverse,
            zones: own_zones(&hosts.zones, server),
            fallthrough: fallthrough(&hosts.fallthrough),
        },
        is_fixed: hosts.is_fixed,
    }
}

/// Returns the search lists of the pods of the cluster of `server`.
fn autopath(server: &Server, config: &Config) -> Option<AutopathPlan> {
    let autopath = server.autopath.as_ref()?;
    let domain = name(server.kubernetes.as_ref()?.domain.as_ref()?);
    let resolv_file =
        autopath.file.as_ref().map_or_else(|| config.resolv_file.clone(), PathBuf::from);
    Some(AutopathPlan { domain, resolv_file, zones: own_zones(&autopath.zones, server) })
}

fn dns64(rule: &plugins::Dns64) -> Option<Dns64> {
    let mut parsed: Dns64 = rule.prefix.parse().ok()?;
    parsed.translate_all = rule.translate_all;
    Some(parsed)
}

/// Returns a plan for each zone of a line `file`. Names for which kubernetes answers are not taken
/// from the file.
fn zone_files(rule: &ZoneFile, server: &Server) -> Vec<ZonePlan> {
    let kubernetes = server.kubernetes.iter().flat_map(Kubernetes::zones);
    let except = Zones::new(kubernetes.map(name).collect());
    let plan = |zone| ZonePlan {
        file: rule.file.clone().into(),
        origin: name(zone),
        fallthrough: fallthrough(&rule.fallthrough),
        except: Some(except.clone()),
        is_fixed: rule.is_fixed,
    };
    rule.zones.iter().map(plan).collect()
}

/// Returns a zone in lower-case wire form.
fn name(zone: &Zone) -> Box<[u8]> {
    parse(zone.as_str()).unwrap_or_else(|| ROOT.into())
}
