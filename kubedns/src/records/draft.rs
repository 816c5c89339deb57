//! Records under change: one object is added or removed, and what depends on it is derived again
//! from the current objects.
//!
//! Core. Collects changes of Services and slices until they are settled (`settle.rs`); does not
//! know relists, nor when a snapshot is published.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::find::mapped;
use super::{Entry, Federation, Holder, Key, Known, Pod, Ranges, Records, Service, Slice};
use crate::skydns::Keys;

/// The next snapshot, in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(super) records: Records,
    /// Entries that are open to changes, as they were before, if they existed.
    pub(super) pending: HashMap<Key, Option<Arc<Entry>>, RandomState>,
    /// The ranges that the settled entries were derived with.
    pub(super) settled_by: Arc<Ranges>,
    /// Numbers of holders that are free again.
    free: Vec<u32>,
    /// The next number of a namespace; never used twice.
    next_namespace: u32,
    touched: Touched,
}

/// What changed since the last snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    /// Services whose names, or names below them, changed.
    pub services: BTreeSet<Key>,
    /// Namespaces, by label, that began or ceased to exist.
    pub namespaces: BTreeSet<Arc<[u8]>>,
    /// Namespaces, by label, whose pod names changed.
    pub pods: BTreeSet<Arc<[u8]>>,
    /// Addresses whose PTR records may have changed.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether the federations or the locality of this cluster changed.
    pub federations: bool,
    /// Whether the cluster's ranges changed.
    pub ranges: bool,
}

impl Touched {
    /// Returns whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many things changed.
    pub fn len(&self) -> usize {
        let flags = usize::from(self.federations) + usize::from(self.ranges);
        let names = self.services.len() + self.namespaces.len() + self.pods.len();
        names + self.addresses.len() + flags
    }
}

impl Draft {
    /// Starts a draft with `records`, which must be empty.
    pub fn new(records: Records) -> Self {
        Self {
            pending: HashMap::default(),
            settled_by: Arc::clone(&records.ranges),
            records,
            free: Vec::new(),
            next_namespace: 0,
            touched: Touched::default(),
        }
    }

    /// Returns the records in their current state. They must be settled before they can answer.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Returns what changed since the last call.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Notes a change. Before the records are complete no client has seen any, so no change is
    /// noted.
    pub(super) fn touch(&mut self, note: impl FnOnce(&mut Touched) -> bool) {
        if self.records.complete {
            note(&mut self.touched);
        }
    }

    /// Returns what changed so far.
    pub fn touched(&self) -> &Touched {
        &self.touched
    }

    /// Marks the records as complete: from now on a missing name does not exist.
    pub fn set_complete(&mut self) {
        self.settle();
        self.records.complete = true;
    }

    /// Marks the records as those of an earlier process whose last serial was `serial`.
    pub fn set_stale(&mut self, serial: u32) {
        self.settle();
        self.records.complete = true;
        self.records.stale = true;
        self.records.serial = serial;
    }

    /// Marks the records as fresh, after every kind was listed in full.
    pub fn set_fresh(&mut self) {
        self.records.stale = false;
    }

    /// Counts one more publication. Its SOA serial is `serial`, or one more than the last if
    /// `serial` would not be greater.
    pub fn advance(&mut self, serial: u32) {
        self.records.generation += 1;
        let grown = serial.wrapping_sub(self.records.serial) as i32 > 0; // RFC 1982
        self.records.serial = if grown { serial } else { self.records.serial.wrapping_add(1) };
    }

    /// Replaces the messages of etcd.
    pub fn set_keys(&mut self, keys: Keys) {
        self.records.set_keys(keys);
    }

    /// Replaces the federations.
    pub fn set_federations(&mut self, federations: Vec<Federation>) {
        if *self.records.federations != *federations {
            self.records.federations = federations.into();
            self.touch(|touched| {
                touched.federations = true;
                true
            });
        }
    }

    /// Replaces the cluster's ranges. They decide which endpoints have PTR records.
    pub fn set_ranges(&mut self, ranges: &Arc<Ranges>) {
        if self.records.ranges == *ranges {
            return;
        }
        self.records.ranges = Arc::clone(ranges);
        self.touch(|touched| {
            touched.ranges = true;
            true
        });
        // Endpoints of Pods have PTR records wherever they are.
        let depends = |entry: &&Arc<Entry>| {
            entry.is_headless() && entry.all_held().any(|held| !held.slice.is_of_pods())
        };
        let keys = self.records.services.values().filter(depends).map(|entry| entry.key.clone());
        for key in keys.collect::<Vec<_>>() {
            self.open(&key);
        }
    }

    /// Sets the Service at `key`, or removes it.
    pub fn set_service(&mut self, key: &Key, mut service: Option<Service>) {
        if let Some(service) = &mut service {
            service.ports.fit(self.records.zone.room_for_port(key));
            service.external = service.external.take().filter(|_| self.records.zone.has_external());
        }
        let old = self.records.entry(key).and_then(Entry::kept_service);
        if old == service.as_ref() {
            return;
        }
        let (was, is) = (old.is_some(), service.is_some());
        let entry = self.open(key);
        entry.withheld = None;
        entry.service = service.map(|service| Service { key: entry.key.clone(), ..service });
        if was != is {
            let label: Arc<[u8]> = key[1 + usize::from(key[0])..].into();
            self.with_namespace(&label, |known| step(&mut known.services, is));
            step(&mut self.records.counts.services, is);
        }
    }

    /// Adds or replaces the slice. `number` is that of the Service to which it belonged before.
    /// Returns the number of its Service.
    pub fn set_slice(&mut self, number: Option<u32>, mut slice: Slice) -> u32 {
        if !self.records.zone.zonal {
            slice.forget_zones();
        }
        slice.fit_ports(self.records.zone.room_for_port(slice.service()));
        if let Some(number) = number {
            let entry = self.records.entry_of(number).filter(|old| old.key == *slice.service());
            let old = entry.and_then(|entry| entry.slice(slice.name()));
            match old.map(|old| (old.len(), **old == slice)) {
                Some((_, true)) => return number,
                Some((len, _)) => self.records.counts.endpoints -= len,
                None => {
                    self.remove_slice(number, slice.name());
                    return self.set_slice(None, slice);
                }
            }
        } else {
            self.records.counts.endpoint_slices += 1;
        }
        self.records.counts.endpoints += slice.len();
        let entry = self.open(slice.service());
        entry.put_slice(slice);
        entry.number
    }

    /// Removes the slice `name` of the Service with this number.
    pub fn remove_slice(&mut self, number: u32, name: &str) {
        let Some(entry) = self.records.entry_of(number) else { return };
        let (Some(slice), key) = (entry.slice(name), entry.key.clone()) else { return };
        let len = slice.len();
        self.records.counts.endpoints -= len;
        self.records.counts.endpoint_slices -= 1;
        self.open(&key).remove_slice(name);
    }

    /// Returns the entry at `key`, open to changes until it is settled. Creates it if it is
    /// missing.
    fn open(&mut self, key: &Key) -> &mut Entry {
        if !self.pending.contains_key(key) {
            let old = self.records.services.get(key).cloned();
            let open = match &old {
                Some(old) => old.unsettled(),
                None => Entry::empty(key.clone(), self.allot(Holder::Service(key.clone()))),
            };
            self.pending.insert(open.key.clone(), old);
            self.records.services.insert(open.key.clone(), Arc::new(open));
        }
        match self.records.services.get_mut(key) {
            Some(open) => Arc::make_mut(open),
            None => unreachable!("what is pending has an entry until it is settled"),
        }
    }

    /// Sets whether the Namespace object `label` exists.
    pub fn set_namespace(&mut self, label: &Arc<[u8]>, declared: bool) {
        if self.records.namespaces.get(label).is_some_and(|known| known.declared) != declared {
            self.with_namespace(label, |known| known.declared = declared);
            step(&mut self.records.counts.namespaces, declared);
            if self.records.zone.selects_namespaces {
                let is_in = |key: &&Key| key[1 + usize::from(key[0])..] == **label;
                let keys: Vec<Key> = self.records.services.keys().filter(is_in).cloned().collect();
                for key in &keys {
                    self.open(key);
                }
            }
        }
    }

    /// Adds the addresses of a Pod.
    pub fn add_pod(&mut self, pod: &Pod) {
        let number = self.with_namespace(&pod.namespace, |known| known.pods += 1);
        for &address in &pod.addresses {
            let count = self.records.pods.entry((mapped(address), number)).or_insert(0);
            *count += 1;
            if *count == 1 {
                self.touch_pod(pod, address);
            }
        }
        self.records.counts.pods += 1;
    }

    /// Removes the addresses of a Pod.
    pub fn remove_pod(&mut self, pod: &Pod) {
        let number = self.with_namespace(&pod.namespace, |known| known.pods -= 1);
        for &address in &pod.addresses {
            let key = (mapped(address), number);
            let count = self.records.pods.remove(&key).expect("only what was added is removed");
            if count > 1 {
                self.records.pods.insert(key, count - 1);
            } else {
                self.touch_pod(pod, address);
            }
        }
        self.records.counts.pods -= 1;
    }

    /// Notes that the namespace of `pod` now has a Pod at `address`, or no longer has one. Outside
    /// the cluster's ranges that decides whether the address is ours, if names of Pods are
    /// verified.
    fn touch_pod(&mut self, pod: &Pod, address: IpAddr) {
        self.touch(|touched| touched.pods.insert(pod.namespace.clone()));
        if !self.records.ranges.hold(address, address) {
            self.touch(|touched| touched.addresses.insert(address));
        }
    }

    /// Changes the state of a namespace. Returns its number.
    fn with_namespace(&mut self, label: &Arc<[u8]>, change: impl FnOnce(&mut Known)) -> u32 {
        let old = self.records.namespaces.get(label).copied();
        let mut known = old.unwrap_or_else(|| {
            self.next_namespace += 1;
            let is_selected = self.records.zone.selects_namespaces;
            Known { number: self.next_namespace, is_selected, ..Known::default() }
        });
        change(&mut known);
        if known.is_used() {
            self.records.namespaces.insert(label.clone(), known);
        } else {
            self.records.namespaces.remove(label);
        }
        if known.exists() != old.is_some_and(Known::exists) {
            self.touch(|touched| touched.namespaces.insert(label.clone()));
        }
        known.number
    }

    /// Stores `holder` and returns its number.
    pub(super) fn allot(&mut self, holder: Holder) -> u32 {
        if let Some(number) = self.free.pop() {
            self.records.holders.set(number as usize, holder);
            return number;
        }
        self.records.holders.push_back(holder);
        u32::try_from(self.records.holders.len() - 1).expect("fewer than 2^32 objects")
    }

    pub(super) fn release(&mut self, number: u32) {
        self.records.holders.set(number as usize, Holder::Free);
        self.free.push(number);
    }
}

/// Adds or subtracts one.
fn step<N: Copy + std::ops::Add<Output = N> + std::ops::Sub<Output = N> + From<bool>>(
    count: &mut N,
    up: bool,
) {
    let one = N::from(true);
    *count = if up { *count + one } else { *count - one };
}
