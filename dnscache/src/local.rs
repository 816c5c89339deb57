//! What is answered or asked differently by rules of the operator: hosts files, rewrites.
//!
//! Core, but for `keep`. Looked at on a miss, never on a hit: the finished answer is kept under the
//! client's question, and goes when a name that it was made of changes, or the rules. A set of
//! rules never changes; a changed file makes a new one, which is swapped in whole.
//!
//! ```text
//! miss ─▶ resolve ─┬─ Pass ──────────────────────────────▶ routes
//!                  ├─ Answer ─▶ the client
//!                  └─ Ask: Pending ─ its question ──────▶ routes
//!                            ▲ │                            │
//!                            │ └─ another question          │
//!                            └── take ◀──── the answer ─────┘
//! ```

pub mod flags;
pub mod hosts;
pub mod keep;
pub mod made;
pub mod name;
pub mod pending;

use std::collections::HashMap;

use foldhash::fast::RandomState;

use hosts::Hosts;
use made::Made;
use pending::Pending;

/// The rules of all zones.
#[derive(Clone, Debug, Default)]
pub struct Local {
    blocks: Vec<Block>,
    /// The index of the block for each zone.
    zones: HashMap<Box<[u8]>, usize, RandomState>,
}

/// The rules for the names at and below some zones that no longer zone of another block holds.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// The zones in wire form and lower case.
    pub zones: Vec<Box<[u8]>>,
    /// Hosts files, each asked if the one before passes.
    pub hosts: Vec<Hosts>,
}

/// What the rules make of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// No rule applies: the question is asked as it is.
    Pass,
    /// The answer.
    Answer(Box<Made>),
    /// Another question is asked first.
    Ask(Box<Pending>),
}

impl Local {
    /// The rules of `blocks`. If two have the same zone the first counts.
    pub fn new(blocks: Vec<Block>) -> Self {
        let mut zones = HashMap::default();
        for (index, block) in blocks.iter().enumerate() {
            for zone in &block.zones {
                zones.entry(zone.clone()).or_insert(index);
            }
        }
        Self { blocks, zones }
    }

    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.blocks.iter().all(Block::is_empty)
    }

    /// Returns what becomes of a client's question for `qtype` at `name`, in wire form and lower
    /// case.
    pub fn resolve(&self, name: &[u8], qtype: u16) -> Outcome {
        match self.block(name) {
            Some(block) => block.resolve(name, qtype),
            None => Outcome::Pass,
        }
    }

    /// Returns whether a rule applies to the question for `qtype` at `name`. If so the cache holds
    /// the outcome, and not what upstreams answer.
    pub fn touches(&self, name: &[u8], qtype: u16) -> bool {
        !self.is_empty() && self.resolve(name, qtype) != Outcome::Pass
    }

    /// Returns whether `name`, in wire form and lower case, has records in a file: then it is no
    /// secret that it was asked for.
    pub fn owns(&self, name: &[u8]) -> bool {
        self.block(name).is_some_and(|block| block.hosts.iter().any(|hosts| hosts.knows(name)))
    }

    /// Returns the block with the longest zone that `name` is at or below.
    fn block(&self, name: &[u8]) -> Option<&Block> {
        let mut rest = Some(name);
        while let Some(suffix) = rest {
            if let Some(&index) = self.zones.get(suffix) {
                return self.blocks.get(index);
            }
            rest = name::parent(suffix);
        }
        None
    }
}

impl Block {
    /// Returns whether it has no rules.
    fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    fn resolve(&self, name: &[u8], qtype: u16) -> Outcome {
        match self.hosts.iter().find_map(|hosts| hosts.answer(name, qtype)) {
            Some(made) => Outcome::Answer(Box::new(made)),
            None => Outcome::Pass,
        }
    }
}
