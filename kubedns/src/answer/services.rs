//! Addresses and SRV records of Services and their endpoints.
//!
//! Core. Goes round the endpoints from where the query's turn says, and stops where the reply is
//! full.

use shared::wire::{NAME_MAX, Owner, Section, rtype};

use super::{POINTER_MAX, Spot, Writing};
use crate::records::{Among, Entry, Place, PortName, Records};

/// Which SRV records of a headless Service are meant.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Of which endpoints.
    pub among: Among<'a>,
    /// Of which ports.
    pub ports: PortName<'a>,
}

impl<'a> Wanted<'a> {
    /// Those of all endpoints.
    pub fn of_all(ports: PortName<'a>) -> Self {
        Self { among: Among::All, ports }
    }
}

impl Writing<'_, '_> {
    /// A or AAAA of a Service: its cluster IPs, or its endpoints where it is headless. Whether
    /// there are any.
    pub(super) fn service_addresses(&mut self, spot: Spot, entry: &Entry, v6: bool) -> bool {
        if !entry.is_headless() {
            let qtype = if v6 { rtype::AAAA } else { rtype::A };
            return self.addresses(spot, entry.cluster_ips(), qtype);
        }
        let start = scale(self.turn, entry.published_of(v6));
        self.places(spot, entry, Among::All, entry.around(v6, start))
    }

    /// A or AAAA of those endpoints of a headless Service that are in a topology zone. Whether
    /// there are any.
    pub(super) fn zonal_addresses(
        &mut self,
        spot: Spot,
        entry: &Entry,
        zone: &[u8],
        v6: bool,
    ) -> bool {
        let among = Among::Zone(zone);
        let round = turned(entry.among(v6, among), self.turn);
        self.places(spot, entry, among, round)
    }

    /// The addresses of the endpoints of `entry` that are meant, once `round`, each address once.
    /// Whether there are any.
    fn places<'e>(
        &mut self,
        spot: Spot,
        entry: &Entry,
        among: Among<'_>,
        round: impl Iterator<Item = Place<'e>>,
    ) -> bool {
        let records = self.records;
        let mut any = false;
        for place in round {
            any = true;
            if !records.is_first_with_address(entry, among, place) {
                continue;
            }
            if !self.push_place(Section::Answer, Owner::At(spot.at as u16), place) {
                self.truncate();
                break;
            }
        }
        any
    }

    /// A or AAAA of the endpoints of `entry` with this label. Whether there are any.
    pub(super) fn endpoint(&mut self, spot: Spot, entry: &Entry, label: &[u8], v6: bool) -> bool {
        let records = self.records;
        let mut any = false;
        for place in records.named(entry, label).filter(|place| place.held.slice.is_v6() == v6) {
            any = true;
            if records.is_first_with_both(entry, place, label)
                && !self.push_place(Section::Answer, Owner::At(spot.at as u16), place)
            {
                self.truncate();
                break;
            }
        }
        any
    }

    /// SRV of a Service's ports, the targets' addresses behind them as far as they fit (RFC 2782;
    /// RFC 2181 section 9: what is missing there is no truncation). Whether there are any.
    pub(super) fn srv(&mut self, spot: Spot, entry: &Entry, wanted: PortName<'_>) -> bool {
        if entry.is_headless() {
            let round = whole_round(entry, self.turn);
            return self.srv_of_endpoints(spot, entry, Wanted::of_all(wanted), round);
        }
        let Some(service) = entry.service() else { return false };
        let mut target_at = None;
        for number in numbers(service.ports.iter(), wanted) {
            let Some(rdata_at) = self.push_srv(spot, number, &[], entry) else {
                self.truncate();
                return true;
            };
            target_at.get_or_insert(rdata_at + SRV_FIXED_LEN);
        }
        let Some(target_at) = target_at else { return false };
        for &address in entry.cluster_ips() {
            if self.push_address(Section::Additional, target_at, address).is_none() {
                break;
            }
        }
        true
    }

    /// SRV as above, without addresses behind them, so that more may follow. Whether all fitted.
    pub(super) fn srv_alone(&mut self, spot: Spot, entry: &Entry, wanted: PortName<'_>) -> bool {
        if entry.is_headless() {
            let (records, round) = (self.records, whole_round(entry, self.turn));
            let mut fits = true;
            each_srv(records, entry, Wanted::of_all(wanted), round, |_, label, number, _| {
                fits = self.push_srv(spot, number, label, entry).is_some();
                fits
            });
            return fits;
        }
        let Some(service) = entry.service() else { return true };
        numbers(service.ports.iter(), wanted)
            .all(|number| self.push_srv(spot, number, &[], entry).is_some())
    }

    /// SRV of those endpoints of a headless Service that are in a topology zone, all their ports.
    /// Whether there are any.
    pub(super) fn zonal_srv(&mut self, spot: Spot, entry: &Entry, zone: &[u8]) -> bool {
        let among = Among::Zone(zone);
        let both = entry.among(false, among).chain(entry.among(true, among));
        let wanted = Wanted { among, ports: PortName::Any };
        self.srv_of_endpoints(spot, entry, wanted, turned(both, self.turn))
    }

    /// The SRV records of a headless Service that are `wanted`, its endpoints once `round`: one for
    /// each name and port.
    fn srv_of_endpoints<'e>(
        &mut self,
        spot: Spot,
        entry: &Entry,
        wanted: Wanted<'_>,
        round: impl Iterator<Item = Place<'e>> + Clone,
    ) -> bool {
        let records = self.records;
        let begin = self.reply.len();
        let (mut any, mut full) = (false, false);
        each_srv(records, entry, wanted, round.clone(), |_, label, number, _| {
            any = true;
            full = self.push_srv(spot, number, label, entry).is_none();
            !full
        });
        if full {
            self.truncate();
            return true;
        }
        let fixed = 2 + 10 + SRV_FIXED_LEN; // owner, type to length, priority to port
        let end_len = entry.key().len() + records.zone().services().len();
        let mut record_at = begin;
        each_srv(records, entry, wanted, round, |place, label, _, is_new| {
            let target_at = record_at + fixed;
            record_at = target_at + label.len() + end_len;
            !is_new || self.push_target(target_at, entry, place, label)
        });
        any
    }

    /// The addresses of an endpoint's name, which stands at `target_at` already: those of a family
    /// all or none (RFC 2181 section 9). Whether all fitted.
    fn push_target(
        &mut self,
        target_at: usize,
        entry: &Entry,
        place: Place<'_>,
        label: &[u8],
    ) -> bool {
        let records = self.records;
        let mut name = [0; NAME_MAX];
        let owner = if target_at <= POINTER_MAX {
            Owner::At(target_at as u16)
        } else {
            let mut len = 0;
            for part in [label, entry.key(), records.zone().services()] {
                name[len..len + part.len()].copy_from_slice(part);
                len += part.len();
            }
            Owner::Name(&name[..len])
        };
        if place.held.slice.host(place.index).is_empty() && !records.may_share_labels(entry) {
            return self.push_place(Section::Additional, owner, place);
        }
        [false, true].into_iter().filter(|&v6| entry.published_of(v6) > 0).all(|v6| {
            let mark = self.reply.mark();
            let fits = records
                .named(entry, label)
                .filter(|&place| place.held.slice.is_v6() == v6)
                .filter(|&place| records.is_first_with_both(entry, place, label))
                .all(|place| self.push_place(Section::Additional, owner, place));
            if !fits {
                self.reply.rewind(mark);
            }
            fits
        })
    }

    /// One SRV record whose target is `label` and the Service's name. The target is written out:
    /// RFC 2782 forbids pointers.
    fn push_srv(&mut self, spot: Spot, number: u16, label: &[u8], entry: &Entry) -> Option<usize> {
        let [w1, w0] = WEIGHT.to_be_bytes();
        let [n1, n0] = number.to_be_bytes();
        let services = self.records.zone().services();
        let rdata: &[&[u8]] = &[&[0, 0, w1, w0, n1, n0], label, entry.key(), services];
        self.push(Section::Answer, spot.at, rtype::SRV, rdata)
    }

    /// A or AAAA of an endpoint. Whether it fitted.
    fn push_place(&mut self, section: Section, owner: Owner<'_>, place: Place<'_>) -> bool {
        let slice = &place.held.slice;
        let rtype = if slice.is_v6() { rtype::AAAA } else { rtype::A };
        let rdata = &[slice.rdata(place.index)];
        self.reply.push(section, owner, rtype, self.ttl_secs, rdata).is_some()
    }
}

/// Every published endpoint of `entry` once around, from where `turn` says on.
fn whole_round(entry: &Entry, turn: u32) -> impl Iterator<Item = Place<'_>> + Clone {
    let count_v4 = entry.published_of(false);
    let start = scale(turn, entry.published());
    let v6_first = start >= count_v4;
    let in_family = if v6_first { start - count_v4 } else { start };
    entry.around(v6_first, in_family).chain(entry.around(!v6_first, in_family))
}

/// All of `places` once around, from where `turn` says on.
fn turned<P>(
    places: impl Iterator<Item = P> + Clone,
    turn: u32,
) -> impl Iterator<Item = P> + Clone {
    let start = scale(turn, places.clone().count() as u32) as usize;
    places.clone().skip(start).chain(places.take(start))
}

/// Visits each SRV record of a headless Service that is `wanted`, its endpoints once `round`: the
/// endpoint, its label in wire form, the port, and whether this is the first record with that
/// label. Stops when `visit` says so.
fn each_srv<'e>(
    records: &Records,
    entry: &Entry,
    wanted: Wanted<'_>,
    round: impl Iterator<Item = Place<'e>>,
    mut visit: impl FnMut(Place<'_>, &[u8], u16, bool) -> bool,
) {
    for place in round {
        let go_on = srv_at(records, entry, place, wanted, |label, number, is_new| {
            visit(place, label, number, is_new)
        });
        if !go_on {
            return;
        }
    }
}

/// Visits each SRV record whose target is the name of `place`, and which no endpoint before it has
/// that is `wanted`: label, port, and whether this is the first record with that label. Whether
/// `visit` said so each time.
pub(crate) fn srv_at(
    records: &Records,
    entry: &Entry,
    place: Place<'_>,
    wanted: Wanted<'_>,
    mut visit: impl FnMut(&[u8], u16, bool) -> bool,
) -> bool {
    place.with_label(|label| {
        let is_first = |number: Option<u16>| {
            records.is_first_with_label(entry, wanted.among, place, label, |port| {
                wanted.ports.matches(port) && number.is_none_or(|number| port.number == number)
            })
        };
        let mut is_new = is_first(None);
        for number in numbers(place.held.slice.ports().iter(), wanted.ports) {
            if !is_first(Some(number)) {
                continue;
            }
            if !visit(label, number, is_new) {
                return false;
            }
            is_new = false;
        }
        true
    })
}

/// The numbers of the ports that are wanted, each once.
pub(crate) fn numbers<'p>(
    ports: impl Iterator<Item = crate::records::Port<'p>> + Clone,
    wanted: PortName<'p>,
) -> impl Iterator<Item = u16> {
    let all = ports.clone().filter(move |&port| wanted.matches(port)).map(|port| port.number);
    let again = all.clone();
    all.enumerate()
        .filter(move |&(index, number)| !again.clone().take(index).any(|other| other == number))
        .map(|(_, number)| number)
}

/// A number below `count` from `turn`: neighbouring turns land far apart, all numbers are equally
/// frequent.
pub(super) fn scale(turn: u32, count: u32) -> u32 {
    let mixed = turn.wrapping_mul(GOLDEN);
    ((u64::from(mixed) * u64::from(count)) >> 32) as u32
}

/// 2^32 divided by the golden ratio, odd: multiples of it spread evenly.
const GOLDEN: u32 = 0x9e37_79b1;
/// Every SRV record has the same weight: the endpoints of a Service are equals.
pub(crate) const WEIGHT: u16 = 100;
/// Priority, weight and port of an SRV record, in bytes.
const SRV_FIXED_LEN: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_first_equally_often() {
        for count in [1, 2, 3, 7, 100] {
            let mut first = vec![0_usize; count];
            for turn in 0..100 * count as u32 {
                let round: Vec<usize> = turned(0..count, turn).collect();
                assert!((0..count).all(|step| round[step] == (round[0] + step) % count));
                first[round[0]] += 1;
            }
            assert!(first.iter().all(|times| (95..=105).contains(times)), "{first:?}");
        }
        assert_eq!(turned(0..0, 7).count(), 0);
    }
}
