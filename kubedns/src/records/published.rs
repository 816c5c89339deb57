//! What of a slice can be seen in answers: two states of it are compared by this.
//!
//! Core. Knows which addresses get a PTR record; does not know the indexes.

use std::net::IpAddr;

use super::{Entry, Held, Ports, Ranges};
use crate::name::parse_generated;

/// What a slice publishes, each list in order.
#[derive(Default)]
pub(super) struct Published<'s> {
    /// Addresses with their hostnames.
    pub endpoints: Vec<(IpAddr, &'s [u8])>,
    /// The topology zone of each of them, empty where none is known.
    pub zones: Vec<&'s [u8]>,
    /// Each address once, and whether it gets a PTR record.
    pub addresses: Vec<(IpAddr, bool)>,
    /// Each hostname's hash once.
    pub hosts: Vec<u32>,
    /// How many hostnames read like a generated label.
    pub odd: u32,
    pub ports: Option<&'s Ports>,
    pub pods: bool,
}

impl<'s> Published<'s> {
    /// What `held`, a slice of `entry`, publishes if `ranges` are the cluster's; `hash` is what the
    /// index of hostnames knows a label by.
    ///
    /// The endpoints of headless Services alone have PTR records (DNS specification section 2.4.3).
    /// Whoever may write an EndpointSlice must not name hosts that are not the cluster's: an
    /// address outside needs a Pod behind it.
    pub fn of(
        held: Option<&'s Held>,
        entry: &Entry,
        ranges: &Ranges,
        hash: impl Fn(&[u8]) -> u32,
    ) -> Self {
        let Some(held) = held.filter(|held| held.published > 0) else {
            return Self::default();
        };
        let is_headless = entry.is_headless();
        let slice = &*held.slice;
        let seen = |index| (slice.address(index), slice.host(index), slice.zone(index));
        let mut seen: Vec<(IpAddr, &[u8], &[u8])> =
            (0..held.published as usize).map(seen).collect();
        seen.sort_unstable();
        let endpoints: Vec<(IpAddr, &[u8])> =
            seen.iter().map(|&(address, host, _)| (address, host)).collect();
        let zones = seen.iter().map(|&(_, _, zone)| zone).collect();
        let named = |address| is_headless && (slice.is_of_pods() || ranges.hold(address, address));
        let mut addresses: Vec<(IpAddr, bool)> =
            endpoints.iter().map(|&(address, _)| (address, named(address))).collect();
        addresses.dedup();
        let mut labels: Vec<&[u8]> = endpoints.iter().map(|pair| pair.1).collect();
        labels.retain(|label| !label.is_empty());
        labels.sort_unstable();
        labels.dedup();
        let odd = labels.iter().filter(|label| parse_generated(&label[1..]).is_some()).count();
        let mut hosts: Vec<u32> = labels.iter().map(|label| hash(label)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let (ports, pods) = (Some(slice.ports()), slice.is_of_pods());
        Self { endpoints, zones, addresses, hosts, odd: odd as u32, ports, pods }
    }

    /// Whether `address` has a PTR record.
    pub fn names(&self, address: IpAddr) -> bool {
        self.addresses.binary_search(&(address, true)).is_ok()
    }

    /// Whether `endpoint` is published.
    pub fn has(&self, endpoint: &(IpAddr, &[u8])) -> bool {
        self.endpoints.binary_search(endpoint).is_ok()
    }
}
