//! An EndpointSlice, packed: addresses as bytes in one block, hostnames in another, ports once.
//!
//! Core. Knows the endpoints of one slice and their states; does not know the Service they belong
//! to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Key, Ports, looks};
use crate::name::dashed;

/// One endpoint that is to be packed into a [`Slice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its hostname as a label in wire form; empty if it has no hostname. An imported endpoint
    /// always has a hostname or its generated label, followed by the labels of its cluster.
    pub host: Box<[u8]>,
    /// Its topology zone as a name in wire form; empty if it is not known.
    pub zone: Box<[u8]>,
    /// Its state, which decides whether it is published.
    pub state: State,
}

/// The result of an endpoint's conditions (KEP-1672), the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It accepts traffic.
    Ready,
    /// It is terminating and still serves.
    Draining,
    /// It does not accept traffic.
    NotReady,
}

/// The endpoints of one EndpointSlice, all of one family, those that are ready first.
///
/// The endpoints that are answered are a prefix: ready ones; ready and draining ones; or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    service: Key,
    name: Arc<str>,
    addresses: Addresses,
    ready: u32,
    draining: u32,
    hosts: Words,
    /// Topology zones as names in wire form, if an endpoint has one.
    zones: Option<Box<Words>>,
    ports: Ports,
    pods: bool,
    /// How many bytes of every endpoint's hostname are labels of its cluster; 0 if the slice
    /// belongs to this cluster.
    cluster_len: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Addresses {
    V4(Box<[[u8; 4]]>),
    V6(Box<[[u8; 16]]>),
}

/// A word for each endpoint, such as its hostname. Equal words are stored once. Both parts are
/// empty if no endpoint has a word.
///
/// Positions are counted in bytes. If 16 bits cannot address all words, which can only happen with
/// hostnames of imported endpoints, positions are counted in larger units, and each word begins at
/// a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Words {
    /// Labels or names in wire form, one after the other.
    bytes: Box<[u8]>,
    /// For each endpoint the position of its word, or [`NO_WORD`].
    at: Box<[u16]>,
}

impl Slice {
    /// Packs `endpoints`, all of one family, of the slice `name` (`NAMESPACE/NAME`), which belongs
    /// to `service`.
    ///
    /// If an address is repeated with one hostname, only its best state is kept. There must be at
    /// most 1,000 different hostnames: the API's limit of endpoints. `pods` is whether every
    /// endpoint is a Pod.
    pub fn pack(
        service: Key,
        name: Arc<str>,
        mut endpoints: Vec<Endpoint>,
        ports: Ports,
        pods: bool,
    ) -> Self {
        for endpoint in &mut endpoints {
            if *endpoint.host == *dashed(endpoint.address).wire() {
                endpoint.host = Box::default(); // it has that name without a hostname
            }
        }
        endpoints.sort_unstable_by(|a, b| {
            (a.address, &a.host, a.state, &a.zone).cmp(&(b.address, &b.host, b.state, &b.zone))
        });
        endpoints.dedup_by(|a, b| (a.address, &a.host) == (b.address, &b.host));
        let cluster_len = |endpoint: &Endpoint| endpoint.host.len() - label_len(&endpoint.host);
        let cluster_len = endpoints.first().map_or(0, cluster_len) as u8; // of 192 bytes
        endpoints.sort_by_key(|endpoint| endpoint.state);
        let up_to = |state| endpoints.partition_point(|endpoint| endpoint.state <= state) as u32;
        let hosts = Words::pack(endpoints.iter().map(|endpoint| &*endpoint.host));
        let zones = Words::pack(endpoints.iter().map(|endpoint| &*endpoint.zone));
        Self {
            service,
            name,
            addresses: Addresses::pack(&endpoints),
            ready: up_to(State::Ready),
            draining: up_to(State::Draining),
            hosts,
            zones: (!zones.at.is_empty()).then(|| Box::new(zones)),
            ports,
            pods,
            cluster_len,
        }
    }

    /// Returns the key of its Service.
    pub fn service(&self) -> &Key {
        &self.service
    }

    /// Replaces the key by an equal one, so that it is stored once.
    pub(super) fn share_key(&mut self, key: &Key) {
        debug_assert_eq!(self.service, *key);
        self.service = key.clone();
    }

    /// Returns `NAMESPACE/NAME` of the object.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the ports of its endpoints.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Returns whether every endpoint is a Pod.
    pub fn is_of_pods(&self) -> bool {
        self.pods
    }

    /// Returns whether it holds IPv6 addresses, else it holds IPv4.
    pub fn is_v6(&self) -> bool {
        matches!(self.addresses, Addresses::V6(_))
    }

    /// Returns how many endpoints it has, in any state.
    pub fn len(&self) -> usize {
        match &self.addresses {
            Addresses::V4(addresses) => addresses.len(),
            Addresses::V6(addresses) => addresses.len(),
        }
    }

    /// Returns whether it has no endpoint.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many endpoints are `state` or better: the length of that prefix.
    pub fn prefix(&self, state: State) -> u32 {
        match state {
            State::Ready => self.ready,
            State::Draining => self.draining,
            State::NotReady => self.len() as u32,
        }
    }

    /// Returns the address of endpoint `index`.
    pub fn address(&self, index: usize) -> IpAddr {
        looks::count();
        match &self.addresses {
            Addresses::V4(addresses) => Ipv4Addr::from(addresses[index]).into(),
            Addresses::V6(addresses) => Ipv6Addr::from(addresses[index]).into(),
        }
    }

    /// Returns the address of endpoint `index` as rdata of A or AAAA.
    pub fn rdata(&self, index: usize) -> &[u8] {
        looks::count();
        match &self.addresses {
            Addresses::V4(addresses) => &addresses[index],
            Addresses::V6(addresses) => &addresses[index],
        }
    }

    /// Returns the hostname of endpoint `index` as a label in wire form, followed by those of its
    /// cluster if it is imported; empty if it has no hostname.
    pub fn host(&self, index: usize) -> &[u8] {
        looks::count();
        let labels = self.hosts.from(index);
        &labels[..label_len(labels) + usize::from(self.cluster_len)]
    }

    /// Returns the labels of the topology zone of endpoint `index` in wire form, without the root;
    /// empty if it is not known.
    pub fn zone(&self, index: usize) -> &[u8] {
        looks::count();
        let names = self.zones.as_ref().map_or(&[][..], |zones| zones.from(index));
        let end = names.iter().position(|&byte| byte == 0); // no label has such a byte
        end.map_or(&[], |end| &names[..end])
    }

    /// Removes the labels of ports that take more than `room` bytes with their protocols.
    pub(super) fn fit_ports(&mut self, room: usize) {
        self.ports.fit(room);
    }

    /// Removes the topology zones, if the zone has no names for them.
    pub(super) fn forget_zones(&mut self) {
        self.zones = None;
    }

    /// Returns whether any endpoint has a hostname.
    pub(super) fn has_hosts(&self) -> bool {
        !self.hosts.at.is_empty()
    }

    /// Returns the labels of the cluster that it was imported from, in wire form.
    pub(super) fn cluster(&self) -> Option<&[u8]> {
        (self.cluster_len > 0).then(|| &self.host(0)[label_len(self.host(0))..])
    }

    /// Returns whether it was imported from a cluster whose labels, in wire form, are `labels` or
    /// end with them: `eu.prod` is below `prod`.
    pub fn is_of_cluster_below(&self, labels: &[u8]) -> bool {
        let mut rest = if self.cluster_len > 0 { self.host(0) } else { &[] };
        while !rest.is_empty() {
            rest = &rest[label_len(rest)..];
            if rest == labels {
                return !labels.is_empty();
            }
        }
        false
    }

    /// Passes the label of endpoint `index` in wire form to `read`, and returns the result. The
    /// label is its hostname, else its generated label, followed by those of its cluster if it is
    /// imported.
    pub fn with_label<T>(&self, index: usize, read: impl FnOnce(&[u8]) -> T) -> T {
        match self.host(index) {
            [] => read(dashed(self.address(index)).wire()),
            host => read(host),
        }
    }

    /// Returns those of the first `prefix` endpoints whose hostname is `label`, in wire form.
    pub fn with_host(&self, label: &[u8], prefix: u32) -> impl Iterator<Item = usize> {
        let prefix = if self.hosts.at.is_empty() { 0 } else { prefix as usize };
        (0..prefix).filter(move |&index| self.host(index) == label)
    }

    /// Returns the first of the first `prefix` endpoints that has `address`.
    pub fn index_of(&self, address: IpAddr, prefix: u32) -> Option<usize> {
        match (&self.addresses, address) {
            (Addresses::V4(all), IpAddr::V4(address)) => {
                position(&all[..prefix as usize], &address.octets())
            }
            (Addresses::V6(all), IpAddr::V6(address)) => {
                position(&all[..prefix as usize], &address.octets())
            }
            _ => None,
        }
    }
}

impl Addresses {
    fn pack(endpoints: &[Endpoint]) -> Self {
        let v6 = |endpoint: &Endpoint| match endpoint.address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let v4 = |endpoint: &Endpoint| match endpoint.address {
            IpAddr::V4(address) => Some(address.octets()),
            IpAddr::V6(_) => None,
        };
        match endpoints.iter().map(v4).collect() {
            Some(addresses) => Self::V4(addresses),
            None => Self::V6(endpoints.iter().map(v6).collect()),
        }
    }
}

impl Words {
    /// Packs the words of all endpoints. An endpoint without a word has an empty one.
    fn pack<'w>(words: impl Iterator<Item = &'w [u8]> + Clone) -> Self {
        let mut distinct: Vec<&[u8]> = words.clone().filter(|word| !word.is_empty()).collect();
        if distinct.is_empty() {
            return Self::default();
        }
        distinct.sort_unstable();
        distinct.dedup();
        let len_in = |unit: usize| -> usize {
            distinct.iter().map(|word| word.len().next_multiple_of(unit)).sum()
        };
        let mut unit = 1;
        while unit_of(len_in(unit)) > unit {
            unit *= 2;
        }
        let mut bytes = Vec::with_capacity(len_in(unit));
        let mut starts = Vec::with_capacity(distinct.len());
        for word in &distinct {
            let place = bytes.len() / unit;
            starts.push(u16::try_from(place).expect("the unit is chosen so that places fit"));
            bytes.extend_from_slice(word);
            bytes.resize(bytes.len().next_multiple_of(unit), 0);
        }
        let start = |word: &[u8]| distinct.binary_search(&word).map_or(NO_WORD, |at| starts[at]);
        let at = words.map(start).collect();
        Self { bytes: bytes.into(), at }
    }

    /// Returns the words starting at that of endpoint `index`; empty if it has no word.
    fn from(&self, index: usize) -> &[u8] {
        match self.at.get(index) {
            None | Some(&NO_WORD) => &[],
            Some(&at) => &self.bytes[usize::from(at) * unit_of(self.bytes.len())..],
        }
    }
}

/// Returns the index of the first of `all` that is `wanted`.
fn position<const N: usize>(all: &[[u8; N]], wanted: &[u8; N]) -> Option<usize> {
    all.iter().position(|octets| {
        looks::count();
        octets == wanted
    })
}

/// Returns the unit in which positions are counted, in bytes, so that 16 bits can address words of
/// `len` bytes: a power of two.
fn unit_of(len: usize) -> usize {
    (len / usize::from(NO_WORD) + 1).next_power_of_two()
}

/// Returns the length of the first of `labels` in wire form, with its length byte; 0 if `labels` is
/// empty.
fn label_len(labels: &[u8]) -> usize {
    labels.first().map_or(0, |&length| 1 + usize::from(length))
}

/// The position of an endpoint that has no word.
const NO_WORD: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str, host: &str, state: State) -> Endpoint {
        let mut wire = Vec::new();
        if !host.is_empty() {
            crate::name::push_label(&mut wire, host, |_| false).unwrap();
        }
        Endpoint {
            address: address.parse().unwrap(),
            host: wire.into(),
            zone: Box::default(),
            state,
        }
    }

    #[test]
    fn packed_in_order_of_state() {
        use State::{Draining, NotReady, Ready};
        let slice = Slice::pack(
            Key::from(*b"\x01a\x01b"),
            "b/a-1".into(),
            vec![
                endpoint("10.0.0.9", "", NotReady),
                endpoint("10.0.0.2", "web-1", Ready),
                endpoint("10.0.0.9", "10-0-0-9", NotReady),
                endpoint("10.0.0.1", "web-0", Ready),
                endpoint("10.0.0.1", "web-0", NotReady),
                endpoint("10.0.0.1", "other", Ready),
                endpoint("10.0.0.5", "web-0", Draining),
            ],
            Ports::default(),
            true,
        );
        let prefixes = [Ready, Draining, NotReady].map(|state| slice.prefix(state));
        assert_eq!(prefixes, [3, 4, 5]);
        assert_eq!(slice.len(), 5);
        assert!(!slice.is_v6() && slice.has_hosts());
        let of_host = |host: &[u8], prefix| slice.with_host(host, prefix).collect::<Vec<_>>();
        assert_eq!(of_host(b"\x05web-0", 3), [1]);
        assert_eq!(of_host(b"\x05web-0", 5), [1, 3]);
        assert_eq!(of_host(b"\x05web-9", 5), [0; 0]);
        let of = |address: &str, prefix| slice.index_of(address.parse().unwrap(), prefix);
        assert_eq!(of("10.0.0.1", 5), Some(0));
        assert_eq!(of("10.0.0.9", 4), None);
        assert_eq!(of("10.0.0.9", 5), Some(4));
        assert_eq!(of("fd00::1", 5), None);
        slice.with_label(4, |label| assert_eq!(label, b"\x0810-0-0-9"));
        slice.with_label(0, |label| assert_eq!(label, b"\x05other"));
    }

    #[test]
    fn the_longest_names_of_imported_endpoints_fit() {
        let label = |text: &str| {
            let mut wire = Vec::new();
            crate::name::push_label(&mut wire, text, |_| false).unwrap();
            wire
        };
        let host = |index: usize| {
            let hostname = format!("{index:0>63}");
            [label(&hostname), label(&"c".repeat(62))].concat()
        };
        let endpoint = |index: usize| Endpoint {
            address: Ipv4Addr::from_bits(index as u32).into(),
            host: host(index).into(),
            zone: Box::default(),
            state: State::Ready,
        };
        let key = Key::from(*b"\x01a\x01b");
        let endpoints = (0..1_000).map(endpoint).collect();
        let slice = Slice::pack(key, "b/a-1".into(), endpoints, Ports::default(), true);
        for index in 0..1_000 {
            assert_eq!(slice.host(index), host(index));
        }
        assert_eq!(slice.with_host(&host(999), 1_000).collect::<Vec<_>>(), [999]);
        assert!(slice.is_of_cluster_below(&label(&"c".repeat(62))));
        assert!(!slice.is_of_cluster_below(&host(0)) && !slice.is_of_cluster_below(&[]));
    }
}
