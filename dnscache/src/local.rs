//! The operator's rules that answer or change questions: rewrites, search lists, templates, hosts
//! files, zone files, NAT64.
//!
//! Core, except for `keep`. The rules are consulted on a miss, never on a hit: the finished answer
//! is stored under the client's question, and is removed if a name that it was made of changes, or
//! the rules. A set of rules is immutable; a changed file makes a new set, which replaces the old
//! one.
//!
//! ```text
//! miss ─▶ resolve: rewrite ─▶ autopath ─▶ template ─▶ hosts ─┬─ Pass ────────────▶ routes
//!                                                            ├─ Answer ─▶ the client
//!                                                            └─ Ask: Pending ────▶ routes
//!                                                                     ▲ │             │
//!                                                  another question ──┘ └─ take ◀─────┘
//! ```

pub mod autopath;
pub mod dns64;
pub mod flags;
pub mod hosts;
pub mod keep;
pub mod made;
pub mod pending;
pub mod rewrite;
pub mod template;
pub mod zone;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use shared::corefile::plugins::{Action, Header};
pub use shared::rules::name;
use shared::wire::{rtype, with_ancestors};

use crate::doors::{self, Acl};
use autopath::Autopath;
use dns64::Dns64;
use hosts::Hosts;
use made::Made;
use pending::Pending;
use rewrite::{Rewrites, Rewritten};
use template::{Answered, Template};
use zone::ZoneFile;

/// The rules of all zones.
#[derive(Clone, Debug, Default)]
pub struct Local {
    blocks: Vec<Block>,
    /// The index of the block for each zone.
    zones: HashMap<Box<[u8]>, usize, RandomState>,
    /// The length of the longest zone in bytes. Longer names need no look-up.
    zone_len_max: usize,
    is_empty: bool,
    has_header: bool,
}

/// The rules for the names at and below some zones, except names in a longer zone of another block.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// The zones in wire form and lower case.
    pub zones: Vec<Box<[u8]>>,
    /// The translation of IPv4 addresses.
    pub dns64: Option<Dns64>,
    /// Rules that replace the client's question.
    pub rewrites: Arc<Rewrites>,
    /// The search lists of pods.
    pub autopath: Vec<Autopath>,
    /// Templates; each is asked if the one before passes.
    pub templates: Arc<[Template]>,
    /// Hosts files; each is asked if the one before passes.
    pub hosts: Vec<Hosts>,
    /// Zone files; each is asked if the one before passes.
    pub zone_files: Vec<ZoneFile>,
    /// Which clients may ask what.
    pub acls: Arc<[Acl]>,
    /// Flags of messages.
    pub header: Header,
}

/// What the rules do with a question.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// No rule applies: the question is asked as it is.
    Pass,
    /// The answer.
    Answer(Box<Made>),
    /// Another question is asked first.
    Ask(Box<Pending>),
}

impl Local {
    /// Returns the rules of `blocks`. If two blocks have the same zone, the first counts.
    pub fn new(blocks: Vec<Block>) -> Self {
        let mut zones = HashMap::default();
        for (index, block) in blocks.iter().enumerate() {
            for zone in &block.zones {
                zones.entry(zone.clone()).or_insert(index);
            }
        }
        let is_empty = blocks.iter().all(Block::is_empty);
        let has_header = blocks.iter().any(|block| block.header != Header::default());
        let zone_len_max = zones.keys().map(|zone| zone.len()).max().unwrap_or(0);
        Self { blocks, zones, zone_len_max, is_empty, has_header }
    }

    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.is_empty || self.blocks.is_empty()
    }

    /// Returns what the rules do with a client's question for `qtype` at `name`, in lower-case wire
    /// form.
    pub fn resolve(&self, name: &[u8], qtype: u16) -> Outcome {
        let outcome = self.resolve_untranslated(name, qtype);
        match self.block(name).and_then(|(_, block)| block.dns64) {
            Some(rule) if qtype == rtype::AAAA => rule.outcome(outcome, name, self),
            _ => outcome,
        }
    }

    /// The same without the translation of addresses, for clients that validate.
    pub fn resolve_untranslated(&self, name: &[u8], qtype: u16) -> Outcome {
        self.resolve_at(name, qtype, 0)
    }

    /// The same for a name to which `depth` aliases led.
    fn resolve_at(&self, name: &[u8], qtype: u16, depth: usize) -> Outcome {
        let Some((index, block)) = self.block(name) else { return Outcome::Pass };
        match block.rewrites.apply(name, qtype) {
            Rewritten::Same => self.walk((index, depth), name, qtype),
            Rewritten::Changed { name, qtype, changes } => {
                let outcome = self.walk((index, depth), &name, qtype);
                outcome.restored(name, qtype, changes)
            }
            Rewritten::Invalid => Outcome::Answer(Box::new(Made::failed(INVALID_NAME))),
        }
    }

    fn walk(&self, place: (usize, usize), name: &[u8], qtype: u16) -> Outcome {
        let autopath = &self.blocks[place.0].autopath;
        match autopath.iter().find_map(|it| it.walk(name, qtype, place)) {
            Some(walk) => walk.start(self),
            None => self.source(place, name, qtype),
        }
    }

    /// Returns what the templates and files of a block, given by its index, answer to a question
    /// that `depth` aliases led to.
    fn source(&self, (index, depth): (usize, usize), name: &[u8], qtype: u16) -> Outcome {
        let block = &self.blocks[index];
        for template in block.templates.iter() {
            let Answered::Made(made) = template.answer(name, qtype) else { continue };
            return self.completed(made, qtype, depth);
        }
        if let Some(made) = block.hosts.iter().find_map(|hosts| hosts.answer(name, qtype)) {
            return Outcome::Answer(Box::new(made));
        }
        match block.zone_files.iter().find_map(|zone| zone.answer(name, qtype)) {
            Some(made) => self.completed(Box::new(made), qtype, depth),
            None => Outcome::Pass,
        }
    }

    /// Returns the answer `made`, completed with the target of its last alias.
    fn completed(&self, made: Box<Made>, qtype: u16, depth: usize) -> Outcome {
        let Some(target) = made.alias(qtype) else { return Outcome::Answer(made) };
        if depth >= ALIASES_MAX {
            return Outcome::Answer(Box::new(Made::failed(ALIAS_LOOP)));
        }
        let target = target.to_ascii_lowercase().into_boxed_slice();
        self.resolve_at(&target, qtype, depth + 1).after(made, target, qtype)
    }

    /// Returns whether a rule applies to the question for `qtype` at `name`. If so, the cache
    /// stores the outcome of the rules instead of the upstreams' answer.
    pub fn touches(&self, name: &[u8], qtype: u16) -> bool {
        !self.is_empty() && !matches!(self.resolve(name, qtype), Outcome::Pass)
    }

    /// Returns whether `name`, in lower-case wire form, has records in a file. A question for such
    /// a name is not secret.
    pub fn owns(&self, name: &[u8]) -> bool {
        let Some((_, block)) = self.block(name).filter(|_| !self.is_empty()) else { return false };
        block.hosts.iter().any(|hosts| hosts.knows(name))
            || block.zone_files.iter().any(|zone| zone.knows(name))
    }

    /// Returns whether there are rules about clients.
    pub fn has_acl(&self) -> bool {
        self.blocks.iter().any(|block| !block.acls.is_empty())
    }

    /// Returns what becomes of the query of `client` for `qtype` at `name`, in wire form and lower
    /// case.
    pub fn admits(&self, name: &[u8], qtype: u16, client: IpAddr) -> Action {
        let lists = self.block(name).map_or(&[][..], |(_, block)| &block.acls);
        doors::action(lists, name, qtype, client)
    }

    /// Returns whether flags of messages are set or cleared.
    pub fn has_header(&self) -> bool {
        self.has_header
    }

    /// Returns the flags of messages about `name`, in wire form and lower case.
    pub fn header(&self, name: &[u8]) -> Header {
        match self.has_header {
            true => self.block(name).map_or(Header::default(), |(_, block)| block.header),
            false => Header::default(),
        }
    }

    /// Returns the block with the longest zone that `name` is at or below.
    fn block(&self, name: &[u8]) -> Option<(usize, &Block)> {
        let mut zones = with_ancestors(name).filter(|zone| zone.len() <= self.zone_len_max);
        let index = *zones.find_map(|zone| self.zones.get(zone))?;
        Some((index, self.blocks.get(index)?))
    }
}

impl Block {
    /// Returns whether it has no rules.
    fn is_empty(&self) -> bool {
        let Self {
            zones: _,
            acls: _,
            header: _,
            dns64,
            rewrites,
            autopath,
            templates,
            hosts,
            zone_files,
        } = self;
        let has_names = !hosts.is_empty() || !templates.is_empty() || !zone_files.is_empty();
        dns64.is_none() && rewrites.rules().is_empty() && autopath.is_empty() && !has_names
    }
}

/// How many aliases of templates and zone files can lead to one another.
const ALIASES_MAX: usize = 8;
const ALIAS_LOOP: &str = "the aliases of templates and zone files do not end";
const INVALID_NAME: &str = "a rewrite rule makes a name that is not valid";

#[cfg(test)]
mod tests;
