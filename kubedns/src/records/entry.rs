//! A Service and its slices: what one lookup finds.
//!
//! Core. Knows which endpoints are published; does not know which of them repeat each other
//! (`lists.rs`), nor the order in which they are visited (`round.rs`).

use std::net::IpAddr;
use std::sync::Arc;

use super::lists::Lists;
use super::ports::PortLists;
use super::{Key, Named, Port, Protocol, Schema, Service, Shape, Slice, State, Zone};

/// A Service's place: the Service, the slices that name it, or one of them only.
///
/// Only a settled entry can answer. A change moves all slices back to those that are not published,
/// until the entry is settled again.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(super) key: Key,
    pub(super) service: Option<Service>,
    /// The Service, if its namespace is not picked: no answer is made of it.
    pub(super) withheld: Option<Box<Service>>,
    /// The number under which it holds addresses.
    pub(super) number: u32,
    /// IPv4 slices with at least one published endpoint, by name.
    pub(super) v4: Family,
    /// IPv6 slices with at least one published endpoint, by name.
    pub(super) v6: Family,
    /// Slices without published endpoints, by name.
    pub(super) idle: Box<[Arc<Slice>]>,
    /// `None` if the Service is plain: see [`Lists`].
    pub(super) lists: Option<Box<Lists>>,
}

/// Slices of one family. Nearly every Service has at most one, which needs no allocation.
#[derive(Clone, Debug, Default)]
pub(super) enum Family {
    #[default]
    None,
    One(Held),
    Many(Box<[Held]>),
}

impl Family {
    fn of(mut held: Vec<Held>) -> Self {
        match held.len() {
            0 => Self::None,
            1 => held.pop().map_or(Self::None, Self::One),
            _ => Self::Many(held.into()),
        }
    }

    /// The slices.
    #[inline]
    pub fn held(&self) -> &[Held] {
        match self {
            Self::None => &[],
            Self::One(held) => std::slice::from_ref(held),
            Self::Many(held) => held,
        }
    }
}

/// A slice, with the part of it that its Service publishes.
#[derive(Clone, Debug)]
pub struct Held {
    /// The slice.
    pub slice: Arc<Slice>,
    /// How many of its endpoints are published: the first so many, at least one.
    pub(super) published: u32,
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

impl<'r> Place<'r> {
    /// Returns what distinguishes it from every other endpoint of every slice.
    pub fn id(&self) -> (*const Held, usize) {
        (self.held, self.index)
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.held.slice.address(self.index)
    }

    /// Returns its address as rdata of A or AAAA.
    pub fn rdata(&self) -> &'r [u8] {
        self.held.slice.rdata(self.index)
    }

    /// Returns whether its address is IPv6, else it is IPv4.
    pub fn is_v6(&self) -> bool {
        self.held.slice.is_v6()
    }

    /// Returns its hostname in wire form, empty if it has no hostname.
    pub fn host(&self) -> &'r [u8] {
        self.held.slice.host(self.index)
    }

    /// Returns whether its label is that of `other`.
    pub fn has_label_of(&self, other: Place<'_>) -> bool {
        match (self.host(), other.host()) {
            ([], []) => self.address() == other.address(), // no two share a generated label
            _ => self.with_label(|label| other.with_label(|other| label == other)),
        }
    }

    /// Passes its label in wire form to `read`, and returns the result.
    pub fn with_label<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        self.held.slice.with_label(self.index, read)
    }
}

impl Entry {
    /// Returns an entry without Service and slices for `key`, which holds addresses under `number`.
    pub(super) fn empty(key: Key, number: u32) -> Self {
        Self {
            key,
            service: None,
            withheld: None,
            number,
            v4: Family::None,
            v6: Family::None,
            idle: Box::default(),
            lists: None,
        }
    }

    /// Returns whether the entry has neither a Service nor a slice.
    pub(super) fn is_empty(&self) -> bool {
        self.kept_service().is_none() && self.slices().next().is_none()
    }

    /// The Service's place.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the Service, if there is one.
    pub fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    /// The Service, withheld or not.
    pub(crate) fn kept_service(&self) -> Option<&Service> {
        self.service.as_ref().or(self.withheld.as_deref())
    }

    /// Withholds the Service if `is_withheld`. For unsettled entries.
    pub(super) fn withhold(&mut self, is_withheld: bool) {
        if is_withheld {
            self.withheld = self.service.take().map(Box::new);
        }
    }

    /// Returns whether there is a Service and it is headless.
    pub fn is_headless(&self) -> bool {
        self.service.as_ref().is_some_and(|service| service.shape == Shape::Headless)
    }

    /// Returns the Service's own addresses.
    pub fn cluster_ips(&self) -> &[IpAddr] {
        match &self.service {
            Some(Service { shape: Shape::ClusterIp(addresses), .. }) => addresses,
            _ => &[],
        }
    }

    /// Returns whether the Service's name exists: a headless Service without a published endpoint
    /// does not (DNS specification section 2.4.1).
    pub fn exists(&self, zone: &Zone) -> bool {
        match self.service.as_ref().map(|service| &service.shape) {
            None => false,
            Some(Shape::ExternalName(_)) => true,
            Some(Shape::ClusterIp(_)) => !zone.ignore_empty_service || self.published() > 0,
            Some(Shape::Headless) => self.published() > 0,
        }
    }

    /// Returns the published slices of one family.
    #[inline]
    pub(super) fn held(&self, v6: bool) -> &[Held] {
        if v6 { self.v6.held() } else { self.v4.held() }
    }

    /// Returns the published slices, IPv4 first.
    pub(super) fn all_held(&self) -> impl Iterator<Item = &Held> + Clone {
        self.v4.held().iter().chain(self.v6.held())
    }

    /// Returns every slice. Those without published endpoints are last.
    pub fn slices(&self) -> impl Iterator<Item = &Arc<Slice>> {
        self.all_held().map(|held| &held.slice).chain(&self.idle)
    }

    /// Returns the slice called `name`.
    pub(super) fn slice(&self, name: &str) -> Option<&Arc<Slice>> {
        let held =
            |held: &'_ [Held]| held.binary_search_by(|other| (**other.slice.name()).cmp(name));
        let (v4, v6) = (self.v4.held(), self.v6.held());
        let idle = || self.idle.binary_search_by(|other| (**other.name()).cmp(name));
        match (held(v4), held(v6)) {
            (Ok(at), _) => Some(&v4[at].slice),
            (_, Ok(at)) => Some(&v6[at].slice),
            _ => idle().ok().map(|at| &self.idle[at]),
        }
    }

    /// Returns how many endpoints of one family are published. Repeated endpoints count each time.
    #[inline]
    pub fn published_of(&self, v6: bool) -> u32 {
        self.held(v6).last().map_or(0, |last| last.end)
    }

    /// Returns how many endpoints are published.
    #[inline]
    pub fn published(&self) -> u32 {
        self.published_of(false) + self.published_of(true)
    }

    /// Returns whether one of the ports passes `wanted`.
    pub fn has_port(&self, wanted: impl Fn(Port<'_>) -> bool) -> bool {
        !self.port_lists().all(|ports| !ports.iter().any(&wanted))
    }

    /// Returns the ports of the Service, or those of its published slices if it is headless.
    #[inline]
    pub(crate) fn port_lists(&self) -> PortLists<'_> {
        match (&self.service, &self.lists) {
            (Some(service), _) if service.shape != Shape::Headless => {
                PortLists::One(&service.ports)
            }
            (_, Some(lists)) => PortLists::Several(self, lists.port_lists()),
            (_, None) => match self.all_held().next() {
                Some(held) => PortLists::One(held.slice.ports()),
                None => PortLists::Several(self, &[]),
            },
        }
    }

    /// Returns whether a label of its endpoints has several addresses.
    pub(crate) fn shares_labels(&self) -> bool {
        self.lists.as_ref().is_some_and(|lists| lists.shares_labels())
    }

    /// Returns the published endpoints of each label.
    pub(crate) fn all_named(&self) -> impl Iterator<Item = Named<'_>> {
        let (plain, listed) = match &self.lists {
            None => (Some(self.places().map(Named::One)), None),
            Some(lists) => (None, Some(lists.all_named(self))),
        };
        let listed = listed.into_iter().flatten();
        plain.into_iter().flatten().chain(listed.map(|rows| Named::several(self, rows)))
    }

    /// Returns the published slice number `at`, IPv4 first.
    pub(super) fn held_at(&self, at: u32) -> &Held {
        let (at, v4) = (at as usize, self.v4.held());
        v4.get(at).unwrap_or_else(|| &self.v6.held()[at - v4.len()])
    }

    /// Returns whether a published endpoint is of a cluster whose labels, in wire form, end with
    /// these.
    pub(crate) fn has_cluster(&self, labels: &[u8]) -> bool {
        match &self.lists {
            None => self.all_held().any(|held| held.slice.is_of_cluster_below(labels)),
            Some(lists) => {
                let mut clusters = lists.clusters().iter().map(|&at| self.held_at(at));
                clusters.any(|held| held.slice.is_of_cluster_below(labels))
            }
        }
    }

    /// Returns whether a port with a name has this protocol. Only then does the name `_PROTOCOL`
    /// below the Service exist.
    pub fn has_protocol(&self, protocol: Protocol) -> bool {
        self.has_port(|port| !port.label.is_empty() && port.protocol == protocol)
    }

    /// Returns the same Service and slices, open to changes.
    pub(super) fn unsettled(&self) -> Self {
        let mut slices: Vec<_> = self.slices().cloned().collect();
        slices.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        let service = self.kept_service().cloned();
        Self { service, idle: slices.into(), ..Self::empty(self.key.clone(), self.number) }
    }

    /// Adds `slice`, in place of one with the same name. The entry must be unsettled.
    pub(super) fn put_slice(&mut self, mut slice: Slice) {
        slice.share_key(&self.key);
        let mut slices = std::mem::take(&mut self.idle).into_vec();
        match slices.binary_search_by(|other| other.name().cmp(slice.name())) {
            Ok(at) => slices[at] = Arc::new(slice),
            Err(at) => slices.insert(at, Arc::new(slice)),
        }
        self.idle = slices.into();
    }

    /// Removes the slice called `name`. The entry must be unsettled.
    pub(super) fn remove_slice(&mut self, name: &str) {
        let slices = std::mem::take(&mut self.idle).into_vec();
        self.idle = slices.into_iter().filter(|slice| **slice.name() != *name).collect();
    }

    /// Splits the slices into published and idle ones. The result depends on the Service and all
    /// slices.
    pub(super) fn publish(&mut self, zone: &Zone) {
        let state = match &self.service {
            None => None,
            Some(Service { shape: Shape::ExternalName(_), .. }) => None,
            // A name must not point to the endpoints of one cluster (KEP-1645, specification
            // 2.3.4).
            Some(Service { shape: Shape::ClusterIp(_), .. })
                if zone.schema() == Schema::Clusterset =>
            {
                None
            }
            Some(service) if service.publish_not_ready => Some(State::NotReady),
            Some(_) => {
                let any_ready = self.idle.iter().any(|slice| slice.prefix(State::Ready) > 0);
                let fall_back = zone.terminating_fallback && !any_ready;
                Some(if fall_back { State::Draining } else { State::Ready })
            }
        };
        let (mut v4, mut v6, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        for slice in std::mem::take(&mut self.idle) {
            let published = state.map_or(0, |state| slice.prefix(state));
            let family = if slice.is_v6() { &mut v6 } else { &mut v4 };
            if published == 0 {
                idle.push(slice);
            } else {
                let end = family.last().map_or(0, |last: &Held| last.end) + published;
                family.push(Held { slice, published, end });
            }
        }
        (self.v4, self.v6, self.idle) = (Family::of(v4), Family::of(v6), idle.into());
    }

    /// Returns whether `other` has the same answers, except for reverse names. Both must be
    /// settled.
    pub(super) fn answers_as(&self, other: &Self) -> bool {
        let own = |entry: &Self| {
            let service = entry.service.as_ref()?;
            Some((service.shape.clone(), service.ports.clone(), service.external.clone()))
        };
        let same = |v6: bool| {
            let (mine, theirs) = (self.held(v6), other.held(v6));
            mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(a, b)| a.answers_as(b))
        };
        own(self) == own(other) && same(false) && same(true)
    }
}

impl Held {
    /// Returns whether the published endpoints of `other` are the same.
    fn answers_as(&self, other: &Self) -> bool {
        if self.published != other.published {
            return false;
        }
        if Arc::ptr_eq(&self.slice, &other.slice) {
            return true;
        }
        let seen = |held: &Self| {
            let slice = Arc::clone(&held.slice);
            let see = |index| {
                (slice.address(index), slice.host(index).to_vec(), slice.zone(index).to_vec())
            };
            let mut seen: Vec<_> = (0..held.published as usize).map(see).collect();
            seen.sort_unstable();
            seen
        };
        self.slice.ports() == other.slice.ports() && seen(self) == seen(other)
    }
}
