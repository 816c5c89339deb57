//! Turns changes of Services and slices into records. Each Service is processed once, no matter how
//! much of it changed.
//!
//! Core. Keeps the index of addresses consistent with the entries; does not know which objects
//! changed.

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::lists::Builder;
use super::{Draft, Entry, Holder, Key, Label, Place, Ranges, Records, Zone};

/// An address that a Service starts or ceases to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Move {
    address: IpAddr,
    /// The Service's number.
    number: u32,
    holds: bool,
}

impl Draft {
    /// Settles what has changed since the last time. Only settled records can be published.
    pub fn settle(&mut self) {
        let mut moves = Vec::new();
        let mut gone = Vec::new();
        let pending = std::mem::take(&mut self.pending);
        let Records { zone, ranges, hasher, .. } = &self.records;
        let (zone, ranges, hasher) = (Arc::clone(zone), Arc::clone(ranges), hasher.clone());
        for (key, old) in &pending {
            let is_withheld = zone.selects_namespaces && !self.is_declared(key);
            let Some(open) = self.records.services.get_mut(key) else { continue };
            let open = {
                let entry = Arc::make_mut(open);
                entry.withhold(is_withheld);
                entry.settle(&zone, &ranges, &hasher);
                open
            };
            let new = Arc::clone(open);
            self.compare(old.as_deref(), &new, &mut moves);
            if new.is_empty() {
                self.records.services.remove(key);
                gone.push(new.number);
            }
        }
        self.settled_by = ranges;
        moves.sort_unstable();
        for moves in moves.chunk_by(|a, b| a.address == b.address) {
            self.hand_over(moves[0].address, moves);
        }
        gone.into_iter().for_each(|number| self.release(number));
    }

    /// Whether the object of the namespace of `key` is there.
    fn is_declared(&self, key: &Key) -> bool {
        let label = &key[1 + usize::from(key[0])..];
        self.records.namespaces.get(label).is_some_and(|known| known.declared)
    }

    /// Notes which of a Service's answers changed, and which addresses changed hands.
    fn compare(&mut self, old: Option<&Entry>, new: &Entry, moves: &mut Vec<Move>) {
        let is_same = match old {
            Some(old) => old.answers_as(new),
            None => new.service.is_none(),
        };
        if !is_same {
            self.touch(|touched| touched.services.insert(new.key.clone()));
        }
        let before = old.map_or_else(Vec::new, |old| old.all_names(&self.settled_by));
        let after = new.all_names(&self.records.ranges);
        let created = |entry: &Entry| entry.service.as_ref().map(|service| service.created);
        let is_aged = old.is_some_and(|old| created(old) != created(new));
        let number = new.number;
        for (address, names) in runs(&before) {
            let others = of_address(&after, address);
            if is_aged || others != names {
                moves.push(Move { address, number, holds: !others.is_empty() });
            }
        }
        for (address, _) in runs(&after) {
            if of_address(&before, address).is_empty() {
                moves.push(Move { address, number, holds: true });
            }
        }
    }

    /// Updates the index for one address.
    fn hand_over(&mut self, address: IpAddr, moves: &[Move]) {
        self.touch(|touched| touched.addresses.insert(address));
        let held = self.records.number_of(address);
        let (mut numbers, several) = match self.records.holder_of(address) {
            Some(Holder::Several(claimants)) => {
                (claimants.iter().map(|claimant| claimant.number).collect(), held)
            }
            _ => (held.into_iter().collect::<Vec<u32>>(), None),
        };
        numbers.retain(|number| moves.iter().all(|other| other.number != *number));
        numbers.extend(moves.iter().filter(|one| one.holds).map(|one| one.number));
        numbers.sort_unstable();
        numbers.dedup();
        let new = match (&numbers[..], several) {
            ([], _) => None,
            (&[number], _) => Some(number),
            (numbers, several) => {
                let holder = Holder::Several(self.records.claimants(address, numbers));
                match several {
                    Some(number) => {
                        self.records.holders.set(number as usize, holder);
                        Some(number)
                    }
                    None => Some(self.allot(holder)),
                }
            }
        };
        if let Some(number) = several.filter(|_| numbers.len() < 2) {
            self.release(number);
        }
        if new == held {
            return;
        }
        match (address, new) {
            (IpAddr::V4(address), Some(number)) => {
                self.records.v4.insert(address.to_bits(), number);
            }
            (IpAddr::V4(address), None) => {
                self.records.v4.remove(&address.to_bits());
            }
            (IpAddr::V6(address), Some(number)) => {
                self.records.v6.insert(address.octets(), number);
            }
            (IpAddr::V6(address), None) => {
                self.records.v6.remove(&address.octets());
            }
        }
    }
}

impl Entry {
    /// Derives everything that answers need from the Service and its slices.
    fn settle(&mut self, zone: &Zone, ranges: &Ranges, hasher: &RandomState) {
        self.publish(zone);
        // A tenant who can write an EndpointSlice must not be able to name hosts outside the
        // cluster: an address outside has a name only if it is the address of a Pod.
        let named = |place: Place<'_>| {
            place.held.slice.is_of_pods() || ranges.hold(place.address(), place.address())
        };
        self.lists = Builder::new(self, hasher).build(zone.zonal, named).map(Box::new);
    }
}

/// A name that an address points to, and whether it is the address of a Pod.
type Pointer<'a> = (IpAddr, bool, Label<'a>);

/// Returns each address with its names.
fn runs<'p, 'a>(pointers: &'p [Pointer<'a>]) -> impl Iterator<Item = (IpAddr, &'p [Pointer<'a>])> {
    pointers.chunk_by(|a, b| a.0 == b.0).map(|run| (run[0].0, run))
}

/// Returns the names of `address`.
fn of_address<'p, 'a>(pointers: &'p [Pointer<'a>], address: IpAddr) -> &'p [Pointer<'a>] {
    let first = pointers.partition_point(|pointer| pointer.0 < address);
    let count = pointers[first..].partition_point(|pointer| pointer.0 == address);
    &pointers[first..first + count]
}
