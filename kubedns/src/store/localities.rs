//! Which federations there are, and where this cluster is.
//!
//! Core. Counts what Nodes say; does not know what is made of it.

use std::collections::{BTreeMap, HashMap};

use crate::records::{Federation, Locality};

/// The federations, and what every Node says of where it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Localities {
    /// Federation's name -> its domain.
    pub domains: BTreeMap<String, String>,
    /// Whether Nodes have been listed: a part of them says nothing.
    pub listed: bool,
    /// Node -> what it says, and the relist that saw it last.
    nodes: HashMap<Box<str>, (Locality, u32)>,
    /// How many Nodes say so.
    counts: BTreeMap<Locality, usize>,
}

impl Localities {
    /// Notes what `node` says, seen in relist `seen`. Whether that is new.
    pub fn insert(&mut self, node: &str, locality: Locality, seen: u32) -> bool {
        if let Some((old, last)) = self.nodes.get_mut(node)
            && *old == locality
        {
            *last = seen;
            return false;
        }
        self.remove(node);
        *self.counts.entry(locality.clone()).or_default() += 1;
        self.nodes.insert(node.into(), (locality, seen));
        true
    }

    /// Forgets `node`. Whether it was known.
    pub fn remove(&mut self, node: &str) -> bool {
        let Some((locality, _)) = self.nodes.remove(node) else { return false };
        let count = self.counts.get_mut(&locality).expect("every Node is counted");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&locality);
        }
        true
    }

    /// Forgets every Node that no relist from `number` on has seen.
    pub fn remove_older(&mut self, number: u32) {
        let gone = self.nodes.iter().filter(|(_, (_, seen))| *seen < number);
        for node in gone.map(|(node, _)| node.clone()).collect::<Vec<_>>() {
            self.remove(&node);
        }
    }

    /// The federations as the records have them. The cluster is where most of its Nodes are, of
    /// several such places at the first by name: a function of the Nodes there are.
    pub fn federations(&self) -> Vec<Federation> {
        let most = self.counts.iter().rev().max_by_key(|(_, count)| **count);
        let most = most.map(|(locality, _)| locality).filter(|_| self.listed);
        Federation::of(&self.domains, most)
    }
}
