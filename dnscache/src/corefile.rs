//! The Corefile of a running dnscache: what of it is applied at once.
//!
//! Edge. What a Corefile means is the business of [`shared::corefile`].

use std::sync::Arc;

use shared::corefile::plugins::{self, Hosts, Rewrite as Words, Server};
use shared::corefile::{Follower, Merged, Plan, Source, State, Surroundings, Zone, open as follow};
use shared::flags::chain;
use shared::wire::ErrorCode;
use tokio::sync::watch;

use crate::config::Config;
use crate::local::hosts::Options;
use crate::local::keep::{self, BlockPlan, HostsPlan};
use crate::local::name::Zones;
use crate::local::rewrite::{Rewrite, RuleError};
use crate::local::template::{Template, Text};
use crate::local::{rcode_number, type_number};
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
    let mut before = format!("{:?}", plans.borrow());
    let apply = move |plan: &Plan, _: &Merged| {
        let Some(source) = &source else { return Ok(()) };
        let config = read(source, plan)?;
        live.send_replace(config.live());
        let rules = plan_with(&config, &plan.servers);
        // New rules empty the cache: only if they are others.
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

/// The configuration that `plan` makes. Fails with the reasons why it cannot be used.
fn read(source: &Source, plan: &Plan) -> Result<Config, Vec<String>> {
    let (config, _) = source.config::<Config>(plan)?;
    let path = source.path.display();
    config.check().map_err(|error| vec![format!("{path}: {}", chain(&error))])?;
    Ok(config)
}

/// What a plan needs to be told by dnscache.
pub fn surroundings() -> Surroundings {
    Surroundings { judge: Some(judge), ..Surroundings::default() }
}

/// What is wrong with the rules of a block.
fn judge(server: &Server) -> Vec<(usize, String)> {
    let rewrites = server.rewrites.iter();
    let rewrites = rewrites.filter_map(|it| Some((it.index, chain(&rewrite(it).err()?))));
    let templates = server.templates.iter();
    let templates = templates.filter_map(|it| Some((it.index, template(it, server).err()?)));
    rewrites.chain(templates).collect()
}

fn rewrite(rule: &Words) -> Result<Rewrite, RuleError> {
    Rewrite::parse(&rule.words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Makes a template. Fails with the reason.
fn template(rule: &plugins::Template, server: &Server) -> Result<Template, String> {
    let word = |what: &str, text: &str| format!("{text:?} is not {what}");
    let qtype = rule.qtype.as_ref();
    let qtype = qtype.map(|text| type_number(text).ok_or_else(|| word("a type", text)));
    let rcode = rule.rcode.as_deref().unwrap_or("NOERROR");
    let rcode = rcode_number(rcode).ok_or_else(|| word("a response code", rcode))?;
    let patterns = rule.matches.iter().map(|text| text.parse().map_err(|it: RuleError| chain(&it)));
    let records = rule.records.iter().map(|(section, text)| match text.parse::<Text>() {
        Ok(text) => Ok((*section, text)),
        Err(error) => Err(chain(&error)),
    });
    let error = match &rule.error {
        None => None,
        Some((code, text)) => {
            let known = ERROR_CODES.iter().find(|it| **it as u16 == *code);
            let known = known.ok_or_else(|| word("an Extended DNS Error", &code.to_string()))?;
            Some((*known, text.clone().into()))
        }
    };
    let template = Template {
        qtype: qtype.transpose()?,
        zones: own_zones(&rule.zones, server),
        except: None,
        patterns: patterns.collect::<Result<_, _>>()?,
        records: records.collect::<Result<_, _>>()?,
        rcode,
        error,
        fallthrough: fallthrough(&rule.fallthrough),
    };
    template.check().map_err(|error| chain(&error))?;
    Ok(template)
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
        // Those that are wrong were refused before.
        let own = server.rewrites.iter().filter_map(|it| rewrite(it).ok());
        block.rules.rewrites = block.rules.rewrites.iter().cloned().chain(own).collect();
        let own = server.templates.iter().filter_map(|it| template(it, server).ok());
        block.rules.templates = block.rules.templates.iter().cloned().chain(own).collect();
        block.hosts.extend(server.hosts.iter().map(|it| hosts(it, server)));
        block
    };
    let mut blocks: Vec<BlockPlan> = servers.iter().map(block).collect();
    // The first block of a zone counts.
    blocks.extend(of_flags.iter().cloned());
    keep::Plan { blocks }
}

/// The zones of a rule: `zones`, or else those of the block.
fn own_zones(zones: &[Zone], server: &Server) -> Zones {
    match zones {
        [] => Zones::new(server.zones().map(name).collect()),
        zones => Zones::new(zones.iter().map(name).collect()),
    }
}

/// Where the next rule is asked.
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

/// A zone in wire form and lower case.
fn name(zone: &Zone) -> Box<[u8]> {
    wire(zone.as_str()).unwrap_or_else(|| ROOT.into())
}

/// What a template can say beside its answer (RFC 8914 section 4).
const ERROR_CODES: [ErrorCode; 8] = [
    ErrorCode::Other,
    ErrorCode::Blocked,
    ErrorCode::Censored,
    ErrorCode::Filtered,
    ErrorCode::Prohibited,
    ErrorCode::NotAuthoritative,
    ErrorCode::NotSupported,
    ErrorCode::NetworkError,
];
