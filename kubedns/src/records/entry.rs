//! A Service and its slices: what one lookup finds.
//!
//! Core. Knows which endpoints are published and in which order they are gone through; knows no
//! names but its own.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Key, Port, Protocol, Schema, Service, Shape, Slice, State, Zone};

/// What stands at a Service's place: the Service, the slices that name it, or one of them only.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(super) key: Key,
    pub(super) service: Option<Service>,
    /// The number under which the Service holds its cluster IPs.
    pub(super) number: Option<u32>,
    /// IPv4 slices by number.
    pub(super) v4: Box<[Held]>,
    /// IPv6 slices by number.
    pub(super) v6: Box<[Held]>,
    pub(super) shared: Shared,
}

/// How much the slices of one Service have in common; almost always nothing, and then nobody needs
/// to look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shared {
    /// For each published address, how many slices beyond the first publish it.
    pub addresses: u32,
    /// Likewise for each hostname; one that reads like a generated label counts once more.
    pub hosts: u32,
}

/// A slice as its Service sees it.
#[derive(Clone, Debug)]
pub struct Held {
    /// The number under which the slice holds addresses and hostnames.
    pub(super) number: u32,
    /// The slice.
    pub slice: Arc<Slice>,
    /// How many of its endpoints are published: the first so many.
    pub published: u32,
    /// Published endpoints of this family up to and including this slice.
    pub(super) end: u32,
}

/// One published endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Place<'r> {
    /// Its slice.
    pub held: &'r Held,
    /// Its index in the slice.
    pub index: usize,
}

impl Place<'_> {
    /// Where it stands among the endpoints of its Service, in an order that does not turn.
    pub(super) fn order(&self) -> (bool, u32, usize) {
        (self.held.slice.is_v6(), self.held.number, self.index)
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.held.slice.address(self.index)
    }

    /// Hands its label in wire form to `read`.
    pub fn with_label<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        self.held.slice.with_label(self.index, read)
    }
}

impl Entry {
    /// Nothing stands at `key`.
    pub(super) fn empty(key: Key) -> Self {
        Self {
            key,
            service: None,
            number: None,
            v4: Box::default(),
            v6: Box::default(),
            shared: Shared::default(),
        }
    }

    /// The Service's place.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The Service, if there is one.
    pub fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    /// Whether the Service is there and headless.
    pub fn is_headless(&self) -> bool {
        self.service.as_ref().is_some_and(|service| service.shape == Shape::Headless)
    }

    /// The Service's own addresses.
    pub fn cluster_ips(&self) -> &[IpAddr] {
        match &self.service {
            Some(Service { shape: Shape::ClusterIp(addresses), .. }) => addresses,
            _ => &[],
        }
    }

    /// Whether the Service's name exists: a headless Service without a published endpoint does not
    /// (DNS specification section 2.4.1).
    pub fn exists(&self, zone: &Zone) -> bool {
        match self.service.as_ref().map(|service| &service.shape) {
            None => false,
            Some(Shape::ExternalName(_)) => true,
            Some(Shape::ClusterIp(_)) => !zone.ignore_empty_service || self.published() > 0,
            Some(Shape::Headless) => self.published() > 0,
        }
    }

    /// The slices of one family.
    pub fn held(&self, v6: bool) -> &[Held] {
        if v6 { &self.v6 } else { &self.v4 }
    }

    /// Every slice, IPv4 first.
    pub fn slices(&self) -> impl Iterator<Item = &Held> {
        self.v4.iter().chain(&self.v6)
    }

    /// The slice with this number.
    pub(super) fn held_by_number(&self, number: u32) -> Option<&Held> {
        let search = |held: &'_ [Held]| held.binary_search_by_key(&number, |held| held.number).ok();
        match search(&self.v4) {
            Some(place) => Some(&self.v4[place]),
            None => search(&self.v6).map(|place| &self.v6[place]),
        }
    }

    /// The published endpoints with `address` in `slice`, which is one of its own.
    pub(super) fn places_in<'a>(
        &'a self,
        slice: &'a Slice,
        address: IpAddr,
    ) -> impl Iterator<Item = Place<'a>> {
        let held = self.held(slice.is_v6()).iter();
        held.filter(move |held| std::ptr::eq(&*held.slice, slice)).flat_map(move |held| {
            let found = held.slice.with_address(address, held.published);
            found.map(move |index| Place { held, index })
        })
    }

    /// How many endpoints of one family are published, shared addresses counted as often as they
    /// stand there.
    pub fn published_of(&self, v6: bool) -> u32 {
        self.held(v6).last().map_or(0, |last| last.end)
    }

    /// How many endpoints are published.
    pub fn published(&self) -> u32 {
        self.published_of(false) + self.published_of(true)
    }

    /// Every published endpoint of one family once around, from endpoint number `start` modulo
    /// their count on.
    pub fn around(&self, v6: bool, start: u32) -> Around<'_> {
        let held = self.held(v6);
        let left = self.published_of(v6);
        if left == 0 {
            return Around { held, slice: 0, index: 0, left: 0 };
        }
        let start = start % left;
        let slice = held.partition_point(|held| held.end <= start);
        let before = held[slice].end - held[slice].published;
        Around { held, slice, index: (start - before) as usize, left }
    }

    /// Whether one of the Service's ports, or of its published endpoints' ports where it is
    /// headless, passes `wanted`.
    pub fn has_port(&self, mut wanted: impl FnMut(Port<'_>) -> bool) -> bool {
        let Some(service) = &self.service else { return false };
        match service.shape {
            Shape::ClusterIp(_) => service.ports.iter().any(wanted),
            Shape::ExternalName(_) => false,
            Shape::Headless => {
                let mut published = self.slices().filter(|held| held.published > 0);
                published.any(|held| held.slice.ports().iter().any(&mut wanted))
            }
        }
    }

    /// Whether a published endpoint is of a cluster whose labels end with these, in wire form.
    pub(crate) fn has_cluster(&self, labels: &[u8]) -> bool {
        let mut published = self.slices().filter(|held| held.published > 0);
        published.any(|held| held.slice.is_of_cluster_below(labels))
    }

    /// Whether a port with a name has this protocol: only then does the name `_PROTOCOL` below the
    /// Service exist.
    pub fn has_protocol(&self, protocol: Protocol) -> bool {
        self.has_port(|port| !port.label.is_empty() && port.protocol == protocol)
    }

    /// Fills in which endpoints of the slices are published, a function of the Service and all
    /// slices.
    pub(super) fn publish(&mut self, zone: &Zone) {
        let state = match &self.service {
            None => None,
            Some(Service { shape: Shape::ExternalName(_), .. }) => None,
            // Nothing may point to the endpoints of one cluster (KEP-1645, specification 2.3.4).
            Some(Service { shape: Shape::ClusterIp(_), .. })
                if zone.schema() == Schema::Clusterset =>
            {
                None
            }
            Some(service) if service.publish_not_ready => Some(State::NotReady),
            Some(_) => {
                let any_ready = self.slices().any(|held| held.slice.prefix(State::Ready) > 0);
                let fall_back = zone.terminating_fallback && !any_ready;
                Some(if fall_back { State::Draining } else { State::Ready })
            }
        };
        for family in [&mut self.v4, &mut self.v6] {
            let mut end = 0;
            for held in family {
                held.published = state.map_or(0, |state| held.slice.prefix(state));
                end += held.published;
                held.end = end;
            }
        }
    }
}

/// Endpoints of one family, once around.
#[derive(Clone, Debug)]
pub struct Around<'r> {
    held: &'r [Held],
    slice: usize,
    index: usize,
    left: u32,
}

impl<'r> Iterator for Around<'r> {
    type Item = Place<'r>;

    fn next(&mut self) -> Option<Place<'r>> {
        self.left = self.left.checked_sub(1)?;
        while self.index >= self.held[self.slice].published as usize {
            self.index = 0;
            self.slice = (self.slice + 1) % self.held.len();
        }
        let place = Place { held: &self.held[self.slice], index: self.index };
        self.index += 1;
        Some(place)
    }
}
