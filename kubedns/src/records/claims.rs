//! Which names an address points back to: who may claim it, and in which order.
//!
//! Core. Knows Services and endpoints that hold an address; does not know how PTR records are
//! written.

use std::net::IpAddr;

use super::{Holder, Key, Records, Zone};

/// A name that an address points to.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The zone of the Service.
    pub zone: &'a Zone,
    /// The Service.
    pub key: &'a Key,
    /// What stands left of the Service's name.
    pub label: Label<'a>,
}

/// What stands left of a Service's name in the name that an address points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label<'a> {
    /// Nothing: the address is a cluster IP.
    None,
    /// The endpoint's hostname, in wire form.
    Host(&'a [u8]),
    /// The endpoint's generated label.
    Generated,
}

/// Who wins, the least first: cluster IPs before endpoints, endpoints with a Pod behind them before
/// those without, then the namespace whose Service was there first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    class: u8,
    created: u64,
    namespace: &'a [u8],
}

/// What a claim is ordered by among those of the namespace that won.
type Order<'a> = (Label<'a>, u64, &'a [u8]);

/// The first claims in order, those that are missing at the end.
type Batch<'a> = [Option<(Order<'a>, Claim<'a>)>; BATCH_LEN];

impl Records {
    /// The names that `address` points to, in an order that does not turn.
    ///
    /// All are of one namespace, so that nobody can put a name on another's address: a cluster IP
    /// belongs to its Service; else endpoints that have a Pod behind them come first, then the
    /// namespace with the oldest Service. Within it every endpoint of a headless Service has its
    /// record (DNS specification section 2.4.3), hostnames before generated labels; those of other
    /// Services have none. An address that nobody in
    /// the cluster holds has the name that it has in the clusterset: KEP-1645 asks for none, and
    /// forbids none.
    pub fn claims(&self, address: IpAddr) -> impl Iterator<Item = Claim<'_>> {
        let imported = self.clusterset().filter(|_| !self.holds(address));
        imported.map_or(self, |records| records).own_claims(address)
    }

    /// Sorted in batches, so that nothing is allocated however many there are.
    fn own_claims(&self, address: IpAddr) -> impl Iterator<Item = Claim<'_>> {
        let mut batch = self.batch(address, None);
        let mut at = 0;
        std::iter::from_fn(move || {
            if at == BATCH_LEN {
                batch = self.batch(address, batch[at - 1].map(|(order, _)| order));
                at = 0;
            }
            let (_, claim) = batch[at]?;
            at += 1;
            Some(claim)
        })
    }

    /// The first claims behind `after`, or the very first.
    fn batch<'a>(&'a self, address: IpAddr, after: Option<Order<'a>>) -> Batch<'a> {
        let zone = self.zone();
        let mut first = [None; BATCH_LEN];
        let mut insert = |order, claim| {
            if after.is_none_or(|after| order > after) {
                insert(&mut first, (order, claim));
            }
        };
        let ranked =
            || self.holders(address).filter_map(|holder| Some((self.rank(holder)?, holder)));
        let winner = ranked().map(|(rank, _)| rank).min();
        for (rank, holder) in ranked() {
            if !winner.is_some_and(|winner| winner.is_level_with(rank)) {
                continue;
            }
            let created = rank.created;
            match holder {
                Holder::Service(key) => {
                    let claim = Claim { zone, key, label: Label::None };
                    insert((claim.label, created, &**key), claim);
                }
                Holder::Slice(slice) => {
                    let Some(entry) = self.entry(slice.service()) else { continue };
                    for place in entry.places_in(slice, address) {
                        let label = match place.held.slice.host(place.index) {
                            [] => Label::Generated,
                            host => Label::Host(host),
                        };
                        let claim = Claim { zone, key: entry.key(), label };
                        insert((label, created, &**entry.key()), claim);
                    }
                }
            }
        }
        first
    }

    fn rank<'a>(&'a self, holder: &'a Holder) -> Option<Rank<'a>> {
        let (key, class) = match holder {
            Holder::Service(key) => (key, 0),
            Holder::Slice(slice) => (slice.service(), if slice.is_of_pods() { 1 } else { 2 }),
        };
        let created = self.entry(key)?.service()?.created;
        Some(Rank { class, created, namespace: &key[1 + usize::from(key[0])..] })
    }
}

impl Rank<'_> {
    /// Whether both are claims of the same kind from the same namespace.
    fn is_level_with(self, other: Rank<'_>) -> bool {
        (self.class, self.namespace) == (other.class, other.namespace)
    }
}

/// Keeps the first of what is inserted, in order and each once.
fn insert<'a>(first: &mut Batch<'a>, mut claim: (Order<'a>, Claim<'a>)) {
    for place in first {
        match place {
            None => {
                *place = Some(claim);
                return;
            }
            Some(held) if held.0 == claim.0 => return,
            Some(held) if claim.0 < held.0 => std::mem::swap(held, &mut claim),
            Some(_) => {}
        }
    }
}

/// Claims that are sorted at once: more than nearly every address has.
const BATCH_LEN: usize = 16;
