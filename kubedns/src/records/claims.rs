//! Which names an address points back to: who may claim it, and in which order.
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

/// What stands left of a Service's name in the name that an address points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Label<'a> {
    /// Nothing: the address is a cluster IP.
    None,
    /// The endpoint's hostname, in wire form.
    Host(&'a [u8]),
    /// The endpoint's generated label.
    Generated,
}

impl<'a> Label<'a> {
    /// That of an endpoint, or of the Service itself.
    fn of(place: Option<Place<'a>>) -> Self {
        match place.map(|place| place.host()) {
            None => Self::None,
            Some([]) => Self::Generated,
            Some(host) => Self::Host(host),
        }
    }
}

/// Who wins, the least first: cluster IPs before endpoints, endpoints with a Pod behind them before
/// those without, then the namespace whose Service was there first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    class: u8,
    created: u64,
    namespace: &'a [u8],
}

impl Rank<'_> {
    /// Whether both are claims of the same kind from the same namespace.
    fn is_level_with(self, other: Rank<'_>) -> bool {
        (self.class, self.namespace) == (other.class, other.namespace)
    }
}

/// One of several Services that hold an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    /// The Service's number.
    pub number: u32,
    /// Which of the names that the Service gives the address, counted from 0; `None` if the address
    /// points to none of them, because others come first.
    pub name: Option<u32>,
}

impl Records {
    /// The names that `address` points to, in an order that does not turn.
    ///
    /// All are of one namespace, so that nobody can put a name on another's address: a cluster IP
    /// belongs to its Service; else endpoints that have a Pod behind them come first, then the
    /// namespace with the oldest Service. Within it every endpoint of a headless Service has its
    /// record (DNS specification section 2.4.3), hostnames before generated labels; those of other
    /// Services have none. An address that nobody in the cluster holds has the name that it has in
    /// the clusterset: KEP-1645 asks for none, and forbids none.
    pub fn claims(&self, address: IpAddr) -> impl Iterator<Item = Claim<'_>> {
        let imported = self.clusterset().filter(|_| !self.holds(address));
        imported.map_or(self, |records| records).own_claims(address)
    }

    /// Those who hold an address were put in order when it changed hands.
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

    /// Who of `numbers`, the Services that hold `address`, gives it which names: those that it
    /// points to first, in their order.
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
    /// The endpoints by whose names `address` is known, in order, or `None` for the Service's own
    /// name; `owned` means that the address is the cluster's.
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

    /// The endpoint of a plain headless Service that `address` points to.
    fn plain_pointer(&self, address: IpAddr, owned: bool) -> Option<Place<'_>> {
        self.held(address.is_ipv6()).iter().find_map(|held| {
            let index = held.slice.index_of(address, held.published)?;
            (owned || held.slice.is_of_pods()).then_some(Place { held, index })
        })
    }

    /// Where the Service stands among those that hold `address`; `None` if it does not.
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

    /// Every address that the Service gives names if `ranges` are the cluster's, whether a Pod is
    /// behind it, and a name: in the order of the addresses, and of the names that each has.
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
