//! Which of a Service's endpoints are repeated, and how to find each of them. The lists are made
//! once, when a Service is published, so that no query walks all endpoints or all slices.
//!
//! Core. Knows the published endpoints of one Service by number; does not know queries.
//!
//! ```text
//! names     hash of label    ─▶ number     each label with each address once
//! pointers  hash of address  ─▶ number     each address with each name that it points to
//! views     numbers                        each address once; each label once, by ports
//! ```

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::fast::RandomState;

use super::{Among, Entry, Place};

/// The lists of a Service that is not plain.
///
/// A plain Service is small. Its addresses and labels are all distinct, its slices have the same
/// ports, and it has no topology zones. All queries for it can look at all endpoints.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    names: Box<[Row]>,
    pointers: Box<[Row]>,
    /// Whether a label has several addresses.
    shares_labels: bool,
    /// A slice for each list of ports, by number.
    port_lists: Box<[u32]>,
    /// A slice for each cluster that endpoints were imported from, by number.
    clusters: Box<[u32]>,
    all: View,
    /// By the labels of their topology zones.
    zones: Box<[(Box<[u8]>, View)]>,
}

/// An endpoint by a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    hash: u32,
    /// Its number among the published endpoints.
    pub number: u32,
}

/// The endpoints that a name refers to, by number and in order.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// One endpoint for each address of a family, IPv4 first; `None` means all.
    addresses: [Option<Box<[u32]>>; 2],
    groups: Box<[Labels]>,
}

/// Endpoints in slices that have the same lists of ports.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    /// A slice for each list of ports, by number.
    ports: Box<[u32]>,
    /// One endpoint for each label; `None` means all.
    labels: Option<Box<[u32]>>,
}

impl View {
    /// Returns the endpoints of one family, one for each address; `None` means all.
    pub fn addresses(&self, v6: bool) -> Option<&[u32]> {
        self.addresses[usize::from(v6)].as_deref()
    }

    /// Returns the endpoints, one for each label.
    pub fn groups(&self) -> &[Labels] {
        &self.groups
    }
}

impl Labels {
    /// Returns a slice for each list of ports that its endpoints have, by number.
    pub fn ports(&self) -> &[u32] {
        &self.ports
    }

    /// Returns the endpoints, one for each label; `None` means all.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }
}

impl Lists {
    /// Returns the endpoints in `among`, if an endpoint is in that topology zone.
    pub fn view(&self, among: Among<'_>) -> Option<&View> {
        match among {
            Among::All => Some(&self.all),
            Among::Zone(zone) => {
                let at = self.zones.binary_search_by(|(other, _)| (**other).cmp(zone)).ok()?;
                Some(&self.zones[at].1)
            }
        }
    }

    /// Returns whether a label has several addresses.
    pub fn shares_labels(&self) -> bool {
        self.shares_labels
    }

    /// Returns a slice for each list of ports, by number.
    pub fn port_lists(&self) -> &[u32] {
        &self.port_lists
    }

    /// Returns a slice for each cluster, by number.
    pub fn clusters(&self) -> &[u32] {
        &self.clusters
    }

    /// Returns the endpoints with the label `label`, in wire form, one for each address: those of
    /// IPv4 and those of IPv6.
    pub fn named<'e>(
        &'e self,
        entry: &'e Entry,
        hasher: &RandomState,
        label: &[u8],
    ) -> [&'e [Row]; 2] {
        let rows = with_hash(&self.names, label_hash(hasher, label));
        let order = |row: &Row| entry.place(row.number).with_label(|other| other.cmp(label));
        let rows = match rows {
            // The usual case.
            [row] => {
                if order(row).is_eq() {
                    rows
                } else {
                    &[]
                }
            }
            _ => equal(rows, order),
        };
        families(entry, rows)
    }

    /// Returns the same for every label, in no order.
    pub fn all_named<'e>(&'e self, entry: &'e Entry) -> impl Iterator<Item = [&'e [Row]; 2]> {
        let is_same = |a: &Row, b: &Row| is_same_label(entry, *a, *b);
        self.names.chunk_by(is_same).map(|rows| families(entry, rows))
    }

    /// Returns the endpoints whose names `address` points to, in order.
    pub fn pointers<'e>(
        &'e self,
        entry: &'e Entry,
        hasher: &RandomState,
        address: IpAddr,
    ) -> impl Iterator<Item = Place<'e>> + Clone + use<'e> {
        let rows = with_hash(&self.pointers, hasher.hash_one(address) as u32);
        let order = |row: &Row| entry.place(row.number).address().cmp(&address);
        equal(rows, order).iter().map(|row| entry.place(row.number))
    }

    /// Returns the results of [`Lists::pointers`] for every address.
    pub fn all_pointers<'e>(&'e self, entry: &'e Entry) -> impl Iterator<Item = Place<'e>> {
        self.pointers.iter().map(|row| entry.place(row.number))
    }
}

/// Returns those of `rows` that have this hash.
fn with_hash(rows: &[Row], hash: u32) -> &[Row] {
    equal(rows, |row| row.hash.cmp(&hash))
}

/// Returns those of `rows` for which `order` is `Equal`. The rows must be sorted by it.
fn equal(rows: &[Row], order: impl Fn(&Row) -> Ordering) -> &[Row] {
    let first = rows.partition_point(|row| order(row).is_lt());
    let rows = &rows[first..];
    // Nearly always one row is equal, and no search for the last one is needed.
    let is_one = rows.get(1).is_none_or(|row| order(row).is_gt());
    let end = match rows.first() {
        Some(row) if is_one => usize::from(order(row).is_eq()),
        _ => rows.partition_point(|row| order(row).is_eq()),
    };
    &rows[..end]
}

/// Returns the endpoints of one label, split into those of IPv4 and those of IPv6.
fn families<'e>(entry: &Entry, rows: &'e [Row]) -> [&'e [Row]; 2] {
    let (v4, v6) = rows.split_at(rows.partition_point(|row| !entry.place(row.number).is_v6()));
    [v4, v6]
}

fn is_same_label(entry: &Entry, a: Row, b: Row) -> bool {
    a.hash == b.hash && entry.place(a.number).has_label_of(entry.place(b.number))
}

fn label_hash(hasher: &RandomState, label: &[u8]) -> u32 {
    hasher.hash_one(label) as u32
}

/// Makes the lists of one Service.
pub(super) struct Builder<'e> {
    entry: &'e Entry,
    hasher: &'e RandomState,
    /// The number of the slice of each endpoint.
    slices: Vec<u32>,
    /// For each slice the number of the first one that has the same ports.
    ports: Vec<u32>,
}

impl<'e> Builder<'e> {
    /// Returns a builder for `entry`, whose slices are already split into published and idle ones.
    pub fn new(entry: &'e Entry, hasher: &'e RandomState) -> Self {
        let mut slices = Vec::with_capacity(entry.published() as usize);
        let mut ports = Vec::new();
        let mut first = HashMap::new();
        for (at, held) in (0..).zip(entry.all_held()) {
            slices.extend((0..held.published).map(|_| at));
            ports.push(*first.entry(held.slice.ports()).or_insert(at));
        }
        Self { entry, hasher, slices, ports }
    }

    /// Returns the lists, or `None` if the Service is plain. `zonal` enables names of topology
    /// zones. `named` returns whether an endpoint's address can have a PTR record.
    pub fn build(&self, zonal: bool, named: impl Fn(Place<'_>) -> bool) -> Option<Lists> {
        let entry = self.entry;
        let count = entry.published();
        let zones = if zonal && entry.is_headless() { self.by_zone() } else { Vec::new() };
        if count <= PLAIN_MAX && zones.is_empty() && self.is_distinct_at_sight() {
            return None;
        }
        let (by_address, by_label) = self.sorted((0..).zip(entry.places()));
        let all = self.view(&by_address, &by_label);
        let mut names = by_label;
        names.dedup_by(|next, row| {
            self.is_same_label(*next, *row) && self.address(*next) == self.address(*row)
        });
        let shares_labels = names.windows(2).any(|two| self.is_same_label(two[0], two[1]));
        let zones: Box<[_]> = zones
            .into_iter()
            .map(|(zone, numbers)| {
                let places = numbers.into_iter().map(|number| (number, entry.place(number)));
                let (by_address, by_label) = self.sorted(places);
                (zone.into(), self.view(&by_address, &by_label))
            })
            .collect();
        let is_plain = count <= PLAIN_MAX
            && zones.is_empty()
            && !shares_labels
            && names.len() == count as usize
            && all.addresses.iter().all(Option::is_none)
            && all.groups.iter().all(|group| group.ports.len() == 1 && group.labels.is_none());
        if is_plain {
            return None;
        }
        let pointers = if entry.is_headless() { self.pointers(&by_address, named) } else { vec![] };
        let mut port_lists = self.ports.clone();
        port_lists.sort_unstable();
        port_lists.dedup();
        Some(Lists {
            names: names.into(),
            pointers: pointers.into(),
            shares_labels,
            port_lists: port_lists.into(),
            clusters: self.clusters().into(),
            all,
            zones,
        })
    }

    /// Returns whether all addresses and labels must be distinct: at most one slice of each family,
    /// with equal ports and without hostnames. Nearly all Services are like that.
    fn is_distinct_at_sight(&self) -> bool {
        let families = [false, true].map(|v6| self.entry.held(v6).len());
        families.iter().all(|&count| count <= 1)
            && self.ports.iter().all(|&first| first == 0)
            && self.entry.all_held().all(|held| !held.slice.has_hosts())
    }

    /// Returns the endpoints sorted by address, and sorted by label.
    fn sorted(
        &self,
        places: impl Iterator<Item = (u32, Place<'e>)> + Clone,
    ) -> (Vec<Addressed>, Vec<Row>) {
        let addressed = |(number, place): (u32, Place<'_>)| (place.address(), number);
        let mut by_address: Vec<Addressed> = places.clone().map(addressed).collect();
        by_address.sort_unstable();
        let hash = |label: &[u8]| label_hash(self.hasher, label);
        let row = |(number, place): (u32, Place<'_>)| Row { hash: place.with_label(hash), number };
        let mut by_label: Vec<Row> = places.map(row).collect();
        by_label.sort_unstable_by(|a, b| self.order_by_label(*a, *b));
        (by_address, by_label)
    }

    fn address(&self, row: Row) -> IpAddr {
        self.entry.place(row.number).address()
    }

    /// Orders by hash, label, family, address and number.
    fn order_by_label(&self, a: Row, b: Row) -> Ordering {
        let (mine, other) = (self.entry.place(a.number), self.entry.place(b.number));
        let labels = || mine.with_label(|mine| other.with_label(|other| mine.cmp(other)));
        let addresses = || mine.address().cmp(&other.address()); // IPv4 first
        a.hash.cmp(&b.hash).then_with(labels).then_with(addresses).then(a.number.cmp(&b.number))
    }

    fn is_same_label(&self, a: Row, b: Row) -> bool {
        is_same_label(self.entry, a, b)
    }

    /// Returns the endpoints of each topology zone.
    fn by_zone(&self) -> Vec<(&'e [u8], Vec<u32>)> {
        let zone = |place: Place<'e>| place.held.slice.zone(place.index);
        let all = (0..).zip(self.entry.places()).map(|(number, place)| (zone(place), number));
        let mut numbers: Vec<(&[u8], u32)> = all.filter(|(zone, _)| !zone.is_empty()).collect();
        numbers.sort_unstable();
        let runs = numbers.chunk_by(|a, b| a.0 == b.0);
        runs.map(|run| (run[0].0, run.iter().map(|pair| pair.1).collect())).collect()
    }

    /// Returns the view of endpoints that are sorted by address and by label.
    fn view(&self, by_address: &[Addressed], by_label: &[Row]) -> View {
        let entry = self.entry;
        let mut families = [Vec::new(), Vec::new()];
        for run in by_address.chunk_by(|a, b| a.0 == b.0) {
            families[usize::from(run[0].0.is_ipv6())].push(run[0].1);
        }
        let addresses = [false, true].map(|v6| {
            let mut first = std::mem::take(&mut families[usize::from(v6)]);
            first.sort_unstable();
            (first.len() < entry.published_of(v6) as usize).then(|| first.into())
        });
        let mut groups = HashMap::<Vec<u32>, Vec<u32>>::new();
        for run in by_label.chunk_by(|&a, &b| self.is_same_label(a, b)) {
            let slice_of = |row: &Row| self.ports[self.slices[row.number as usize] as usize];
            let mut ports: Vec<u32> = run.iter().map(slice_of).collect();
            ports.sort_unstable();
            ports.dedup();
            let first = run.iter().map(|row| row.number).min();
            groups.entry(ports).or_default().extend(first);
        }
        let labels = |(ports, mut labels): (Vec<u32>, Vec<u32>)| {
            labels.sort_unstable();
            let all = labels.len() == entry.published() as usize;
            Labels { ports: ports.into(), labels: (!all).then(|| labels.into()) }
        };
        let mut groups: Vec<Labels> = groups.into_iter().map(labels).collect();
        groups.sort_unstable_by(|a, b| a.ports.cmp(&b.ports));
        View { addresses, groups: groups.into() }
    }

    /// Returns the endpoints that are `named`, sorted by the hashes of their addresses. Those of
    /// one address are in the order of its PTR records. Those of Pods win over the others.
    fn pointers(&self, by_address: &[Addressed], named: impl Fn(Place<'_>) -> bool) -> Vec<Row> {
        let mut rows = Vec::new();
        for run in by_address.chunk_by(|a, b| a.0 == b.0) {
            let claim = |&(_, number): &Addressed| {
                let place = self.entry.place(number);
                let (host, is_of_pods) = (place.host(), place.held.slice.is_of_pods());
                named(place).then_some((!is_of_pods, host.is_empty(), host, number))
            };
            let mut claims: Vec<_> = run.iter().filter_map(claim).collect();
            claims.sort_unstable();
            claims.dedup_by_key(|claim| (claim.0, claim.2));
            let hash = self.hasher.hash_one(run[0].0) as u32;
            let best = claims.first().map(|claim| claim.0);
            let best = claims.into_iter().take_while(|claim| Some(claim.0) == best);
            rows.extend(best.map(|(.., number)| Row { hash, number }));
        }
        // Stable: those of one address keep their order.
        rows.sort_by(|a, b| {
            a.hash.cmp(&b.hash).then_with(|| self.address(*a).cmp(&self.address(*b)))
        });
        rows
    }

    /// Returns a slice for each cluster that endpoints were imported from.
    fn clusters(&self) -> Vec<u32> {
        let mut clusters: Vec<(&[u8], u32)> = (0..)
            .zip(self.entry.all_held())
            .filter_map(|(at, held)| Some((held.slice.cluster()?, at)))
            .collect();
        clusters.sort_unstable();
        clusters.dedup_by_key(|(cluster, _)| *cluster);
        clusters.into_iter().map(|(_, at)| at).collect()
    }
}

/// The address of an endpoint, and its number.
type Addressed = (IpAddr, u32);

/// The most endpoints that a plain Service can have. To look at so many costs less than the lists.
const PLAIN_MAX: u32 = 64;
