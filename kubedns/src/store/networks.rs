//! Which addresses are the cluster's, according to ServiceCIDRs and Nodes.
//!
//! Core. Knows the sources of ranges and which of them is used; does not know what the ranges are
//! used for.

use std::collections::{HashMap, HashSet};

use shared::prefix::Prefix;

use crate::project::Kind;
use crate::records::{Ranges, Source};

/// The sources of ranges, and the prefixes of each.
#[derive(Debug)]
pub(super) struct Networks {
    /// The ranges of the flag, which override everything else.
    fixed: Option<Ranges>,
    /// The ranges of an earlier process.
    restored: Vec<Prefix>,
    /// Kinds that have been listed in full, or cannot be listed. Part of a list is not enough to
    /// treat other addresses as foreign.
    settled: HashSet<Kind>,
    /// The prefixes of each object, by kind and name.
    objects: HashMap<(Kind, Box<str>), Said>,
    /// Whether something changed since the ranges were last taken.
    changed: bool,
}

/// The prefixes of an object.
#[derive(Debug)]
struct Said {
    prefixes: Box<[Prefix]>,
    /// The relist that saw it last.
    seen: u32,
}

impl Networks {
    /// Starts with the ranges of the flag. An empty `flag` means that it is not set.
    pub fn new(flag: &[Prefix]) -> Self {
        let fixed = (!flag.is_empty()).then(|| Ranges::of(Source::Flag, flag.iter().copied()));
        let (settled, objects) = (HashSet::new(), HashMap::new());
        Self { fixed, restored: Vec::new(), settled, objects, changed: true }
    }

    /// Notes ranges of an earlier process. They are used until every kind is settled.
    pub fn restore(&mut self, prefixes: &[Prefix]) {
        self.restored.extend_from_slice(prefixes);
        self.changed = true;
    }

    /// Notes the prefixes of the object `name`, seen in relist `seen`.
    pub fn insert(&mut self, kind: Kind, name: &str, prefixes: Box<[Prefix]>, seen: u32) {
        match self.objects.get_mut(&(kind, name.into())) {
            Some(known) if known.prefixes == prefixes => known.seen = seen,
            _ => {
                self.objects.insert((kind, name.into()), Said { prefixes, seen });
                self.changed = true;
            }
        }
    }

    /// Removes the object `name`.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        self.changed |= self.objects.remove(&(kind, name.into())).is_some();
    }

    /// Removes every object of `kind` that was last seen by a relist before `number`.
    pub fn remove_older(&mut self, kind: Kind, number: u32) {
        let before = self.objects.len();
        self.objects.retain(|(other, _), said| *other != kind || said.seen >= number);
        self.changed |= self.objects.len() < before;
    }

    /// Notes that objects of `kind` have been listed in full, or cannot be listed.
    pub fn settle(&mut self, kind: Kind) {
        self.changed |= self.settled.insert(kind);
    }

    /// Returns the ranges, if anything changed since the last call.
    pub fn take_changed(&mut self) -> Option<Ranges> {
        std::mem::take(&mut self.changed).then(|| self.ranges())
    }

    /// Returns the ranges that follow from all sources.
    ///
    /// While a kind can still add ranges, those of the earlier process are used, else all addresses
    /// that are not global: a query that has left the pod cannot be taken back.
    fn ranges(&self) -> Ranges {
        if let Some(fixed) = &self.fixed {
            return fixed.clone();
        }
        let prefixes = self.objects.values().flat_map(|said| said.prefixes.iter().copied());
        let known = Ranges::of(Source::Objects, prefixes);
        let is_settled = Kind::RANGES.iter().all(|kind| self.settled.contains(kind));
        if is_settled && !known.is_empty() {
            known
        } else if !is_settled && !self.restored.is_empty() {
            Ranges::of(Source::Objects, self.restored.iter().copied()).with(&known)
        } else {
            Ranges::default().with(&known)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Box<[Prefix]> {
        texts.iter().map(|text| shared::prefix::parse(text).unwrap()).collect()
    }

    #[track_caller]
    fn check(networks: &Networks, expected: &str) {
        assert_eq!(networks.ranges().to_string(), expected);
    }

    #[test]
    fn private_addresses_are_the_clusters_until_everything_is_settled() {
        let private = Ranges::default().to_string();
        let mut networks = Networks::new(&[]);
        check(&networks, &private);
        networks.insert(Kind::ServiceCidr, "kubernetes", prefixes(&["10.96.0.0/12"]), 1);
        networks.settle(Kind::ServiceCidr);
        check(&networks, &private);
        networks.insert(Kind::Node, "a", prefixes(&["10.244.0.0/24", "fd00:244::/64"]), 2);
        check(&networks, &private);
        networks.settle(Kind::Node);
        check(&networks, "10.96.0.0/12, 10.244.0.0/24, fd00:244::/64");
        networks.insert(Kind::Node, "b", prefixes(&["10.244.1.0/24"]), 2);
        check(&networks, "10.96.0.0/12, 10.244.0.0/23, fd00:244::/64");
        networks.remove(Kind::Node, "a");
        check(&networks, "10.96.0.0/12, 10.244.1.0/24");
        networks.remove_older(Kind::Node, 3);
        check(&networks, "10.96.0.0/12");
        networks.remove_older(Kind::ServiceCidr, 3);
        check(&networks, &private);
    }

    #[test]
    fn global_ranges_count_at_once() {
        let mut networks = Networks::new(&[]);
        networks.insert(Kind::Node, "a", prefixes(&["9.9.9.0/24"]), 1);
        let address = "9.9.9.9".parse().unwrap();
        assert!(networks.ranges().hold(address, address));
    }

    #[test]
    fn what_an_earlier_process_knew_counts_meanwhile() {
        let mut networks = Networks::new(&[]);
        networks.restore(&prefixes(&["10.96.0.0/12"]));
        check(&networks, "10.96.0.0/12");
        networks.insert(Kind::ServiceCidr, "second", prefixes(&["10.50.0.0/16"]), 1);
        networks.settle(Kind::ServiceCidr);
        check(&networks, "10.50.0.0/16, 10.96.0.0/12");
        networks.settle(Kind::Node);
        check(&networks, "10.50.0.0/16");
    }

    #[test]
    fn the_flag_overrides() {
        let mut networks = Networks::new(&prefixes(&["10.0.0.0/16"]));
        networks.restore(&prefixes(&["10.96.0.0/16"]));
        networks.insert(Kind::ServiceCidr, "kubernetes", prefixes(&["10.96.0.0/12"]), 1);
        Kind::RANGES.into_iter().for_each(|kind| networks.settle(kind));
        check(&networks, "10.0.0.0/16");
        assert_eq!(networks.ranges().source(), Source::Flag);
    }
}
