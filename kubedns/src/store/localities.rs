//! The federations, and the locality of this cluster.
//!
//! Core. Counts the localities of Nodes; does not know what they are used for.

use std::collections::{BTreeMap, HashMap};

use crate::records::{Federation, Locality};

/// The federations, and the locality of every Node.
#[derive(Clone, Debug, Default)]
pub(super) struct Localities {
    /// Federation's name -> its domain.
    pub domains: BTreeMap<String, String>,
    /// Whether Nodes have been listed in full. An incomplete list is not used.
    pub listed: bool,
    /// Node -> its locality, and the relist that saw it last.
    nodes: HashMap<Box<str>, (Locality, u32)>,
    /// How many Nodes have each locality.
    counts: BTreeMap<Locality, usize>,
}

impl Localities {
    /// Notes the locality of `node`, seen in relist `seen`. Returns whether it is new.
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

    /// Removes `node`. Returns whether it was there.
    pub fn remove(&mut self, node: &str) -> bool {
        let Some((locality, _)) = self.nodes.remove(node) else { return false };
        let count = self.counts.get_mut(&locality).expect("every Node is counted");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&locality);
        }
        true
    }

    /// Removes every Node that was last seen by a relist before `number`.
    pub fn remove_older(&mut self, number: u32) {
        let gone = self.nodes.iter().filter(|(_, (_, seen))| *seen < number);
        for node in gone.map(|(node, _)| node.clone()).collect::<Vec<_>>() {
            self.remove(&node);
        }
    }

    /// Returns the federations for the records. The cluster's locality is that of most of its
    /// Nodes. If several localities are equally frequent, it is the first by name: it depends on
    /// the Nodes only.
    pub fn federations(&self) -> Vec<Federation> {
        let most = self.counts.iter().rev().max_by_key(|(_, count)| **count);
        let most = most.map(|(locality, _)| locality).filter(|_| self.listed);
        Federation::of(&self.domains, most)
    }
}
