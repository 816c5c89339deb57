//! Records under change: one object comes or goes, and what depends on it is derived again from the
//! current objects.
//!
//! Core. Keeps the indexes true to the entries; does not know relists, nor when a snapshot is
//! published.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::entry::Shared;
use super::find::mapped;
use super::published::Published;
use super::{Entry, Federation, Held, Holder, Key, Known, Pod, Ranges, Records, Service, Slice};

/// The next snapshot, in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    records: Records,
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
    /// Namespaces, by label, that came to exist or ceased to.
    pub namespaces: BTreeSet<Arc<[u8]>>,
    /// Namespaces, by label, whose pod names changed.
    pub pods: BTreeSet<Arc<[u8]>>,
    /// Addresses whose PTR records may have changed.
    pub addresses: BTreeSet<IpAddr>,
    /// The federations, or where this cluster is.
    pub federations: bool,
    /// Which addresses are the cluster's.
    pub ranges: bool,
}

impl Touched {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many things changed.
    pub fn len(&self) -> usize {
        let flags = usize::from(self.federations) + usize::from(self.ranges);
        let names = self.services.len() + self.namespaces.len() + self.pods.len();
        names + self.addresses.len() + flags
    }
}

impl Draft {
    /// Begins with `records`, which are empty.
    pub fn new(records: Records) -> Self {
        Self { records, free: Vec::new(), next_namespace: 0, touched: Touched::default() }
    }

    /// The records as they stand.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// What changed since it was last taken.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Notes a change. Before the records are complete nobody has seen any, and there is nothing
    /// to note.
    fn touch(&mut self, note: impl FnOnce(&mut Touched) -> bool) {
        if self.records.complete {
            note(&mut self.touched);
        }
    }

    /// What changed so far.
    pub fn touched(&self) -> &Touched {
        &self.touched
    }

    /// From now on a missing name does not exist.
    pub fn set_complete(&mut self) {
        self.records.complete = true;
    }

    /// These are the records of an earlier process, whose last serial was `serial`.
    pub fn set_stale(&mut self, serial: u32) {
        self.records.complete = true;
        self.records.stale = true;
        self.records.serial = serial;
    }

    /// What there is has been listed in full: nothing is stale any more.
    pub fn set_fresh(&mut self) {
        self.records.stale = false;
    }

    /// Counts one more publication, whose SOA serial is `serial` or, where that would not grow, one
    /// more than the last.
    pub fn advance(&mut self, serial: u32) {
        self.records.generation += 1;
        let grown = serial.wrapping_sub(self.records.serial) as i32 > 0; // RFC 1982
        self.records.serial = if grown { serial } else { self.records.serial.wrapping_add(1) };
    }

    /// Takes over which federations there are.
    pub fn set_federations(&mut self, federations: Vec<Federation>) {
        if *self.records.federations != *federations {
            self.records.federations = federations.into();
            self.touch(|touched| {
                touched.federations = true;
                true
            });
        }
    }

    /// Takes over which addresses are the cluster's, and with them which endpoints have PTR
    /// records.
    pub fn set_ranges(&mut self, ranges: &Arc<Ranges>) {
        if self.records.ranges == *ranges {
            return;
        }
        let old = std::mem::replace(&mut self.records.ranges, Arc::clone(ranges));
        self.touch(|touched| {
            touched.ranges = true;
            true
        });
        // The endpoints of Pods have their records wherever they are.
        let depends = |held: &Held| held.published > 0 && !held.slice.is_of_pods();
        let entries = self.records.services.values().filter(|entry| entry.slices().any(depends));
        for entry in entries.cloned().collect::<Vec<_>>() {
            for held in entry.slices().filter(|&held| depends(held)) {
                let published = |ranges| Published::of(Some(held), &entry, ranges, |_| 0).addresses;
                let (before, after) = (published(&old), published(ranges));
                for (address, named) in missing(&before, &after) {
                    self.let_go(address, held.number, named);
                    self.hold(address, held.number, !named);
                    self.touch(|touched| touched.addresses.insert(address));
                }
            }
        }
    }

    /// The Service at `key` is now `service`.
    pub fn set_service(&mut self, key: &Key, mut service: Option<Service>) {
        if let Some(service) = &mut service {
            service.ports.fit(self.records.zone.room_for_port(key));
        }
        let old = self.records.services.get(key).cloned();
        if old.as_ref().and_then(|entry| entry.service.as_ref()) == service.as_ref() {
            return;
        }
        let old = old.unwrap_or_else(|| Arc::new(Entry::empty(key.clone())));
        let mut new = (*old).clone();
        new.service = service.map(|service| Service { key: new.key.clone(), ..service });
        self.replace(&old, new);
    }

    /// The slice `number` is now `slice`; the first time round it gets a number, which is yielded.
    pub fn set_slice(&mut self, number: Option<u32>, mut slice: Slice) -> u32 {
        if !self.records.zone.zonal {
            slice.forget_zones();
        }
        slice.fit_ports(self.records.zone.room_for_port(slice.service()));
        if let Some(number) = number {
            let old = self.slice(number);
            if **old == slice {
                return number;
            }
            if old.service() != slice.service() || old.is_v6() != slice.is_v6() {
                self.remove_slice(number);
                return self.set_slice(None, slice);
            }
            self.records.counts.endpoints -= old.len();
            self.records.counts.endpoint_slices -= 1;
        }
        self.records.counts.endpoints += slice.len();
        self.records.counts.endpoint_slices += 1;
        let old = self.records.services.get(slice.service()).cloned();
        let old = old.unwrap_or_else(|| Arc::new(Entry::empty(slice.service().clone())));
        slice.share_key(&old.key);
        let slice = Arc::new(slice);
        let number = match number {
            Some(number) => {
                self.records.holders.set(number as usize, Some(Holder::Slice(slice.clone())));
                number
            }
            None => self.allot(Holder::Slice(slice.clone())),
        };
        let mut new = (*old).clone();
        let family = if slice.is_v6() { &mut new.v6 } else { &mut new.v4 };
        let mut slices = std::mem::take(family).into_vec();
        let held = Held { number, slice, published: 0, end: 0 };
        match slices.binary_search_by_key(&number, |held| held.number) {
            Ok(place) => slices[place] = held,
            Err(place) => slices.insert(place, held),
        }
        *family = slices.into();
        self.replace(&old, new);
        number
    }

    /// The slice `number` is gone.
    pub fn remove_slice(&mut self, number: u32) {
        let slice = self.slice(number).clone();
        self.records.counts.endpoints -= slice.len();
        self.records.counts.endpoint_slices -= 1;
        let old = self.records.services.get(slice.service()).cloned();
        let old = old.expect("a slice stands in the entry of its Service");
        let mut new = (*old).clone();
        let family = if slice.is_v6() { &mut new.v6 } else { &mut new.v4 };
        *family = family.iter().filter(|held| held.number != number).cloned().collect();
        self.replace(&old, new);
        self.release(number);
    }

    /// The Namespace object `label` is there, or gone.
    pub fn set_namespace(&mut self, label: &Arc<[u8]>, declared: bool) {
        if self.records.namespaces.get(label).is_some_and(|known| known.declared) != declared {
            self.with_namespace(label, |known| known.declared = declared);
            step(&mut self.records.counts.namespaces, declared);
        }
    }

    /// A Pod's addresses came.
    pub fn add_pod(&mut self, pod: &Pod) {
        let number = self.with_namespace(&pod.namespace, |known| known.pods += 1);
        let mut is_news = false;
        for &address in &pod.addresses {
            let count = self.records.pods.entry((mapped(address), number)).or_insert(0);
            is_news |= *count == 0;
            *count += 1;
        }
        self.records.counts.pods += 1;
        if is_news {
            self.touch(|touched| touched.pods.insert(pod.namespace.clone()));
        }
    }

    /// A Pod's addresses went.
    pub fn remove_pod(&mut self, pod: &Pod) {
        let number = self.with_namespace(&pod.namespace, |known| known.pods -= 1);
        let mut is_news = false;
        for &address in &pod.addresses {
            let key = (mapped(address), number);
            let count = self.records.pods.remove(&key).expect("only what was added is removed");
            is_news |= count == 1;
            if count > 1 {
                self.records.pods.insert(key, count - 1);
            }
        }
        self.records.counts.pods -= 1;
        if is_news {
            self.touch(|touched| touched.pods.insert(pod.namespace.clone()));
        }
    }

    /// Changes what is known about a namespace; yields its number.
    fn with_namespace(&mut self, label: &Arc<[u8]>, change: impl FnOnce(&mut Known)) -> u32 {
        let old = self.records.namespaces.get(label).copied();
        let mut known = old.unwrap_or_else(|| {
            self.next_namespace += 1;
            Known { number: self.next_namespace, ..Known::default() }
        });
        change(&mut known);
        if known.exists() {
            self.records.namespaces.insert(label.clone(), known);
        } else {
            self.records.namespaces.remove(label);
        }
        if known.exists() != old.is_some() {
            self.touch(|touched| touched.namespaces.insert(label.clone()));
        }
        known.number
    }

    /// The slice to which `number` was given.
    fn slice(&self, number: u32) -> &Arc<Slice> {
        match self.holder(number) {
            Some(Holder::Slice(slice)) => slice,
            _ => unreachable!("the number was given to a slice and not released"),
        }
    }

    fn holder(&self, number: u32) -> Option<&Holder> {
        self.records.holders.get(number as usize)?.as_ref()
    }

    /// Gives `holder` a number.
    fn allot(&mut self, holder: Holder) -> u32 {
        if let Some(number) = self.free.pop() {
            self.records.holders.set(number as usize, Some(holder));
            return number;
        }
        self.records.holders.push_back(Some(holder));
        u32::try_from(self.records.holders.len() - 1).expect("fewer than 2^32 objects")
    }

    fn release(&mut self, number: u32) {
        self.records.holders.set(number as usize, None);
        self.free.push(number);
    }

    /// Puts `new` where `old` stood: the indexes follow, and what changed is noted.
    fn replace(&mut self, old: &Entry, mut new: Entry) {
        new.publish(&self.records.zone);
        let claim = |entry: &Entry| {
            (entry.service.as_ref().map(|service| service.created), entry.is_headless())
        };
        let aged = claim(old) != claim(&new);
        let mut changed = self.replace_service(old, &mut new, aged);
        let mut shared = new.shared;
        for v6 in [false, true] {
            let mut before = old.held(v6).iter().peekable();
            for next in new.held(v6) {
                while let Some(gone) = before.next_if(|held| held.number < next.number) {
                    changed |= self.reindex([old, &new], [Some(gone), None], aged, &mut shared);
                }
                let same = before.next_if(|held| held.number == next.number);
                changed |= self.reindex([old, &new], [same, Some(next)], aged, &mut shared);
            }
            for gone in before {
                changed |= self.reindex([old, &new], [Some(gone), None], aged, &mut shared);
            }
        }
        new.shared = shared;
        let key = new.key.clone();
        if changed {
            self.touch(|touched| touched.services.insert(key.clone()));
        }
        if new.service.is_none() && new.slices().next().is_none() {
            self.records.services.remove(&key);
        } else {
            self.records.services.insert(key, Arc::new(new));
        }
    }

    /// The Service's own part of [`Self::replace`]: cluster IPs and the namespace's count. Says
    /// whether answers change.
    fn replace_service(&mut self, old: &Entry, new: &mut Entry, aged: bool) -> bool {
        let (before, after) = (old.cluster_ips(), new.cluster_ips().to_vec());
        if before != after || aged {
            if let Some(number) = new.number.take() {
                for &address in before {
                    self.let_go(address, number, true);
                    self.touch(|touched| touched.addresses.insert(address));
                }
                self.release(number);
            }
            if !after.is_empty() {
                let number = self.allot(Holder::Service(new.key.clone()));
                new.number = Some(number);
                for &address in &after {
                    self.hold(address, number, true);
                    self.touch(|touched| touched.addresses.insert(address));
                }
            }
        }
        let (was, is) = (old.service.is_some(), new.service.is_some());
        if was != is {
            let label: Arc<[u8]> = new.key[1 + usize::from(new.key[0])..].into();
            self.with_namespace(&label, |known| step(&mut known.services, is));
            step(&mut self.records.counts.services, is);
        }
        let answers = |entry: &Entry| {
            entry.service.as_ref().map(|service| (service.shape.clone(), service.ports.clone()))
        };
        answers(old) != answers(new)
    }

    /// Brings the indexes from what `old` publishes to what `new` does, two states of one slice of
    /// `entries`, which are two states as well; `shared` counts along. Says whether answers change.
    fn reindex(
        &mut self,
        entries: [&Entry; 2],
        [old, new]: [Option<&Held>; 2],
        aged: bool,
        shared: &mut Shared,
    ) -> bool {
        if let (Some(old), Some(new)) = (old, new)
            && Arc::ptr_eq(&old.slice, &new.slice)
            && old.published == new.published
            && !aged
        {
            return false;
        }
        let Some(number) = new.or(old).map(|held| held.number) else { return false };
        let key = &entries[1].key;
        let hash = |label: &[u8]| self.records.host_hash(key, label);
        let ranges = &self.records.ranges;
        let before = Published::of(old, entries[0], ranges, hash);
        let after = Published::of(new, entries[1], ranges, hash);
        let aged = aged || before.pods != after.pods;
        for [mine, other] in [[&before, &after], [&after, &before]] {
            let own = mine.endpoints.iter().filter(|&pair| aged || !other.has(pair));
            for (address, _) in own.filter(|(address, _)| mine.names(*address)) {
                self.touch(|touched| touched.addresses.insert(*address));
            }
        }
        for (address, named) in missing(&before.addresses, &after.addresses) {
            self.let_go(address, number, named);
            shared.addresses -= u32::from(self.is_shared(key, self.records.numbers(address)));
        }
        for (address, named) in missing(&after.addresses, &before.addresses) {
            shared.addresses += u32::from(self.is_shared(key, self.records.numbers(address)));
            self.hold(address, number, named);
        }
        for host in missing(&before.hosts, &after.hosts) {
            self.records.hosts.remove(host, number);
            shared.hosts -= u32::from(self.is_shared(key, self.records.hosts.of(host)));
        }
        for host in missing(&after.hosts, &before.hosts) {
            shared.hosts += u32::from(self.is_shared(key, self.records.hosts.of(host)));
            self.records.hosts.insert(host, number);
        }
        shared.hosts = shared.hosts + after.odd - before.odd;
        (before.endpoints, before.zones, before.ports)
            != (after.endpoints, after.zones, after.ports)
    }

    /// Whether one of `numbers` is a slice of `key`.
    fn is_shared(&self, key: &Key, mut numbers: impl Iterator<Item = u32>) -> bool {
        numbers.any(|number| match self.holder(number) {
            Some(Holder::Slice(slice)) => slice.service() == key,
            _ => false,
        })
    }

    fn hold(&mut self, address: IpAddr, number: u32, named: bool) {
        match address {
            _ if !named => self.records.nameless.insert(mapped(address), number),
            IpAddr::V4(address) => self.records.v4.insert(address.to_bits(), number),
            IpAddr::V6(address) => self.records.v6.insert(address.octets(), number),
        }
    }

    fn let_go(&mut self, address: IpAddr, number: u32, named: bool) {
        match address {
            _ if !named => self.records.nameless.remove(mapped(address), number),
            IpAddr::V4(address) => self.records.v4.remove(address.to_bits(), number),
            IpAddr::V6(address) => self.records.v6.remove(address.octets(), number),
        }
    }
}

/// What stands in the ordered list `from` but not in the ordered list `other`.
fn missing<T: Copy + Ord>(from: &[T], other: &[T]) -> Vec<T> {
    from.iter().filter(|value| other.binary_search(value).is_err()).copied().collect()
}

/// One more or one less.
fn step<N: Copy + std::ops::Add<Output = N> + std::ops::Sub<Output = N> + From<bool>>(
    count: &mut N,
    up: bool,
) {
    let one = N::from(true);
    *count = if up { *count + one } else { *count - one };
}
