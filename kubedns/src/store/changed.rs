//! The owner names that a publication changed: the names that a cache must remove.
//!
//! Core. Compares two snapshots at the names that were touched; keeps track of aliases inside the
//! zone, whose answers change with their targets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::reverse;
use crate::records::{Entry, Key, Node, Records, ReverseZone, Schema, Shape, Touched};
use shared::name::Text;

/// Which names changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The list would be too long, or all names are new: a cache must remove everything.
    Everything,
    /// These, and every name below them.
    Names(Names),
}

/// Names in wire form, one after the other. Each one includes every name below it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Names(Box<[u8]>);

impl Names {
    /// Returns each name, in wire form and lower case, with the root label.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let end = shared::wire::name_end(rest, 0)?;
            let (name, tail) = rest.split_at(end);
            rest = tail;
            Some(name)
        })
    }

    /// Returns how many bytes it has.
    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|name| Text(name).to_string())).finish()
    }
}

/// Returns the names that changed between `before` and `after`. `touched` was touched in the
/// cluster domain, `imported` in that of a clusterset, and `keys` are paths of etcd.
pub(super) fn names(
    [before, after]: [&Records; 2],
    (touched, imported, keys): (&Touched, &Touched, &BTreeSet<Box<[u8]>>),
    aliases: &mut Aliases,
) -> Changed {
    if touched.federations {
        aliases.follow(after, after.entries().map(Entry::key));
        return Changed::Everything;
    }
    if touched.len() + imported.len() + keys.len() > TOUCHED_MAX {
        aliases.follow(after, &touched.services);
        return Changed::Everything;
    }
    let mut services = touched.services.clone();
    let is_other = touched.len() > touched.services.len() || !imported.is_empty();
    let is_other = is_other || !keys.is_empty();
    aliases.add_to(&mut services, is_other); // added and removed aliases are touched themselves
    aliases.follow(after, &touched.services);
    let mut names = Vec::new();
    for records in std::iter::once(after).chain(after.views()).filter(|it| !it.zone().is_keyed()) {
        in_zone(records, &services, touched, &mut names);
    }
    if let Some(clusterset) = after.clusterset() {
        for key in &imported.services {
            names.extend_from_slice(key);
            names.extend_from_slice(clusterset.zone().services());
        }
        for label in &imported.namespaces {
            names.extend_from_slice(label);
            names.extend_from_slice(clusterset.zone().services());
        }
    }
    let highest = |&address| highest_changed(before, after, address);
    let addresses = touched.addresses.union(&imported.addresses);
    let mut zones: BTreeSet<ReverseZone> = addresses.map(highest).collect();
    if touched.ranges {
        zones.extend(before.ranges().changed(after.ranges()));
    }
    for ReverseZone { first, labels } in zones {
        let name = reverse(first);
        let mut rest = name.wire();
        for _ in 0..labels {
            rest = &rest[1 + usize::from(rest[0])..];
        }
        names.extend_from_slice(rest);
    }
    super::keys::names(before, keys, &mut names);
    Changed::Names(Names(names.into()))
}

/// Adds the names of one zone: the cluster domain or a further one.
fn in_zone(records: &Records, services: &BTreeSet<Key>, touched: &Touched, names: &mut Vec<u8>) {
    let zone = records.zone();
    if zone.name_service.as_ref().is_some_and(|key| services.contains(key)) {
        names.extend_from_slice(zone.ns());
        names.extend_from_slice(zone.apex().wire());
    }
    for key in services {
        names.extend_from_slice(key);
        names.extend_from_slice(zone.services());
        for federation in records.federations() {
            names.extend_from_slice(key);
            names.extend_from_slice(&federation.label);
            names.extend_from_slice(zone.services());
        }
    }
    for label in &touched.namespaces {
        names.extend_from_slice(label);
        names.extend_from_slice(zone.services());
    }
    if !zone.pods.is_enabled() {
        return;
    }
    for label in touched.namespaces.union(&touched.pods) {
        names.extend_from_slice(label);
        names.extend_from_slice(b"\x03pod");
        names.extend_from_slice(zone.apex().wire());
    }
}

/// The highest name that changed with the reverse name of `address`: the name itself, or the
/// highest ancestor that came to exist or ceased to.
fn highest_changed(before: &Records, after: &Records, address: IpAddr) -> ReverseZone {
    let (bits, label_bits) = if address.is_ipv4() { (32, 8) } else { (128, 4) };
    let mut highest = ReverseZone { first: address, labels: 0 };
    for labels in 1..bits / label_bits {
        let (first, last) = range(address, labels * label_bits);
        if before.holds_any(first, last) == after.holds_any(first, last) {
            break; // the names above did not change either
        }
        highest = ReverseZone { first, labels };
    }
    highest
}

/// Returns the first and last address that share all but the low `bits` bits with `address`.
fn range(address: IpAddr, bits: usize) -> (IpAddr, IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let mask = (1_u32 << bits) - 1;
            let bits = address.to_bits();
            (Ipv4Addr::from_bits(bits & !mask).into(), Ipv4Addr::from_bits(bits | mask).into())
        }
        IpAddr::V6(address) => {
            let mask = (1_u128 << bits) - 1;
            let bits = address.to_bits();
            (Ipv6Addr::from_bits(bits & !mask).into(), Ipv6Addr::from_bits(bits | mask).into())
        }
    }
}

/// Aliases inside the zone: their answers hold the records of their targets.
#[derive(Clone, Debug, Default)]
pub(super) struct Aliases {
    /// The target of each alias.
    targets: BTreeMap<Key, Target>,
    /// The aliases of a Service or of a name below it.
    of_service: BTreeMap<Box<[u8]>, BTreeSet<Key>>,
    /// The aliases of other names in our zones.
    of_others: BTreeSet<Key>,
}

/// The target of an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// A Service or a name below it.
    Service(Box<[u8]>),
    /// A pod, a reverse name, a namespace, an imported Service, or a name that does not exist.
    Other,
}

impl Aliases {
    /// Updates the aliases for the Services at `keys`.
    pub fn follow<'k>(&mut self, records: &Records, keys: impl IntoIterator<Item = &'k Key>) {
        for key in keys {
            self.forget(key);
            let service = records.entry(key).and_then(|entry| entry.service());
            let Some(Shape::ExternalName(name)) = service.map(|service| &service.shape) else {
                continue;
            };
            let Some(target) = target(records, name.wire()) else { continue };
            match &target {
                Target::Service(of) => {
                    self.of_service.entry(of.clone()).or_default().insert(key.clone());
                }
                Target::Other => {
                    self.of_others.insert(key.clone());
                }
            }
            self.targets.insert(key.clone(), target);
        }
    }

    fn forget(&mut self, key: &Key) {
        match self.targets.remove(key) {
            None => {}
            Some(Target::Other) => {
                self.of_others.remove(key);
            }
            Some(Target::Service(of)) => {
                if let Some(aliases) = self.of_service.get_mut(&of) {
                    aliases.remove(key);
                    if aliases.is_empty() {
                        self.of_service.remove(&of);
                    }
                }
            }
        }
    }

    /// Adds to `services` every alias whose answer depends on one of them. If `is_other`, something
    /// other than a Service was touched too, and the aliases of other names are added as well.
    pub fn add_to(&self, services: &mut BTreeSet<Key>, is_other: bool) {
        if self.targets.is_empty() {
            return;
        }
        let mut open: Vec<Key> = services.iter().cloned().collect();
        if is_other {
            open.extend(self.of_others.iter().cloned());
            services.extend(self.of_others.iter().cloned());
        }
        while let Some(key) = open.pop() {
            for alias in self.of_service.get(&key[..]).into_iter().flatten() {
                if services.insert(alias.clone()) {
                    open.push(alias.clone());
                }
            }
        }
    }
}

/// Returns what `name` refers to, if it is in one of our zones.
fn target(records: &Records, name: &[u8]) -> Option<Target> {
    let found = records.find(name)?;
    let labels = crate::name::Labels::of(name);
    let mut count = 0;
    while labels.start(count) < found.apex {
        count += 1;
    }
    if matches!(found.node, Node::Federated(_)) {
        return Some(Target::Service(labels.wire(0, 2).into()));
    }
    // In the cluster domain and in further ones, or in a zone of external addresses.
    let service = match found.records.zone().schema() {
        Schema::Cluster if count >= 3 && labels.label(count - 1) == b"svc" => count - 1,
        Schema::External { .. } if count >= 2 => count,
        _ => return Some(Target::Other),
    };
    match found.is_reverse {
        true => Some(Target::Other),
        false => Some(Target::Service(labels.wire(service - 2, service).into())),
    }
}

/// If more things than this were touched, a list costs more than removing everything.
const TOUCHED_MAX: usize = 20_000;
