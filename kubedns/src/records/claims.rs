//! Which names an address points back to: which endpoints can claim it, and in which order.
//!
//! Core. Knows Services and endpoints that hold an address; does not know how PTR records are
//! written.

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{Entry, Holder, Place, Ranges, Records, Zone};

/// A name that an address points to.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The zone of the Service.
    pub zone: &'a Zone,
    /// The Service.
    pub entry: &'a Entry,
    /// The endpoint, or `None` if the address is a cluster IP.
    pub place: Option<Place<'a>>,
}

/// The label left of a Service's name in the name that an address points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Label<'a> {
    /// No label: the address is a cluster IP.
    None,
    /// The endpoint's hostname, in wire form.
    Host(&'a [u8]),
    /// The endpoint's generated label.
    Generated,
}

impl<'a> Label<'a> {
    /// Returns the label of an endpoint, or of the Service itself.
    fn of(place: Option<Place<'a>>) -> Self {
        match place.map(|place| place.host()) {
            None => Self::None,
            Some([]) => Self::Generated,
            Some(host) => Self::Host(host),
        }
    }
}

/// The order of claims, the winner first: cluster IPs before endpoints, endpoints of Pods before
/// those without a Pod, then the namespace whose Service is older.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    class: u8,
    created: u64,
    namespace: &'a [u8],
}

impl Rank<'_> {
    /// Returns whether both are claims of the same kind from the same namespace.
    fn is_level_with(self, other: Rank<'_>) -> bool {
        (self.class, self.namespace) == (other.class, other.namespace)
    }
}

/// One of several Services that hold an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    /// The Service's number.
    pub number: u32,
    /// Which of the names that the Service gives the address, counted from 0, if the address points
    /// to it; other claims can win.
    pub name: Option<u32>,
}

impl Records {
    /// Returns the names that `address` points to, in an order that does not rotate.
    ///
    /// All are of one namespace, so that no tenant can put a name on the address of another: a
    /// cluster IP belongs to its Service; else endpoints of Pods win over others, then the
    /// namespace with the oldest Service. Within it every endpoint of a headless Service has its
    /// record (DNS specification section 2.4.3), hostnames before generated labels. Endpoints of
    /// other Services have no record. If no Service of the cluster holds the address, it has the
    /// name that it has in the clusterset; KEP-1645 neither requires nor forbids that.
    pub fn claims(&self, address: IpAddr) -> impl Iterator<Item = Claim<'_>> {
        let imported = self.clusterset().filter(|_| !self.holds(address));
        imported.map_or(self, |records| records).own_claims(address)
    }

    /// Returns the claims in this zone. The holders of an address are sorted when one of them
    /// changes.
    fn own_claims<'a>(&'a self, address: IpAddr) -> impl Iterator<Item = Claim<'a>> {
        let claim = |entry: &'a Entry, place| Claim { zone: self.zone(), entry, place };
        let (one, several) = match self.holder_of(address) {
            None | Some(Holder::Free) => (None, &[][..]),
            Some(Holder::Service(key)) => (self.entry(key), &[][..]),
            Some(Holder::Several(claimants)) => (None, &**claimants),
        };
        let owned = self.ranges.hold(address, address);
        let one = one.into_iter().flat_map(move |entry| {
            entry.names_of(address, owned, &self.hasher).map(move |place| claim(entry, place))
        });
        let several = several.iter().map_while(move |claimant| {
            let entry = self.entry_of(claimant.number)?;
            let mut names = entry.names_of(address, owned, &self.hasher);
            Some(claim(entry, names.nth(claimant.name? as usize)?))
        });
        one.chain(several)
    }

    /// Returns which of `numbers`, the Services that hold `address`, give it which names. The names
    /// that it points to are first, in their order.
    pub(super) fn claimants(&self, address: IpAddr, numbers: &[u32]) -> Arc<[Claimant]> {
        let owned = self.ranges.hold(address, address);
        let ranked = |&number: &u32| {
            let entry = self.entry_of(number)?;
            Some((entry.rank(address, owned, &self.hasher)?, entry))
        };
        let winner = numbers.iter().filter_map(ranked).map(|(rank, _)| rank).min();
        let mut names = Vec::new();
        let mut others = Vec::new();
        for number in numbers {
            match ranked(number).zip(winner) {
                Some(((rank, entry), winner)) if winner.is_level_with(rank) => {
                    let places = entry.names_of(address, owned, &self.hasher);
                    names.extend((0..).zip(places).map(|(name, place)| {
                        let claimant = Claimant { number: *number, name: Some(name) };
                        (Label::of(place), rank.created, entry.key(), claimant)
                    }));
                }
                _ => others.push(Claimant { number: *number, name: None }),
            }
        }
        names.sort_unstable_by_key(|&(label, created, key, _)| (label, created, key));
        names.into_iter().map(|(.., claimant)| claimant).chain(others).collect()
    }
}

impl Entry {
    /// Returns the endpoints whose names `address` points to, in order, or `None` for the Service's
    /// own name. `owned` means that the address is the cluster's.
    fn names_of<'a>(
        &'a self,
        address: IpAddr,
        owned: bool,
        hasher: &RandomState,
    ) -> impl Iterator<Item = Option<Place<'a>>> + use<'a> {
        let own = self.cluster_ips().contains(&address).then_some(None);
        let (plain, listed) = match &self.lists {
            _ if !self.is_headless() => (None, None),
            None => (self.plain_pointer(address, owned), None),
            Some(lists) => (None, Some(lists.pointers(self, hasher, address))),
        };
        own.into_iter().chain(plain.into_iter().chain(listed.into_iter().flatten()).map(Some))
    }

    /// Returns the endpoint of a plain headless Service that `address` points to.
    fn plain_pointer(&self, address: IpAddr, owned: bool) -> Option<Place<'_>> {
        self.held(address.is_ipv6()).iter().find_map(|held| {
            let index = held.slice.index_of(address, held.published)?;
            (owned || held.slice.is_of_pods()).then_some(Place { held, index })
        })
    }

    /// Returns the rank of the Service among those that hold `address`, if it holds it.
    fn rank(&self, address: IpAddr, owned: bool, hasher: &RandomState) -> Option<Rank<'_>> {
        let class = if self.cluster_ips().contains(&address) {
            0
        } else {
            let place = match &self.lists {
                None => self.plain_pointer(address, owned),
                Some(lists) => lists.pointers(self, hasher, address).next(),
            };
            if place?.held.slice.is_of_pods() { 1 } else { 2 }
        };
        let namespace = &self.key[1 + usize::from(self.key[0])..];
        Some(Rank { class, created: self.service()?.created, namespace })
    }

    /// Returns every address that the Service would name if `ranges` were the cluster's, whether a
    /// Pod has it, and a name. They are sorted by address, then by the order of the names of each.
    pub(super) fn all_names(&self, ranges: &Ranges) -> Vec<(IpAddr, bool, Label<'_>)> {
        let mut names: Vec<_> =
            self.cluster_ips().iter().map(|&address| (address, false, Label::None)).collect();
        if self.is_headless() {
            let (plain, listed) = match &self.lists {
                None => (Some(self.places()), None),
                Some(lists) => (None, Some(lists.all_pointers(self))),
            };
            let is_named = |place: &Place<'_>| {
                place.held.slice.is_of_pods()
                    || self.lists.is_some()
                    || ranges.hold(place.address(), place.address())
            };
            let places = plain.into_iter().flatten().chain(listed.into_iter().flatten());
            names.extend(places.filter(is_named).map(|place| {
                (place.address(), place.held.slice.is_of_pods(), Label::of(Some(place)))
            }));
        }
        names.sort_by_key(|name| name.0); // stable
        names
    }
}
