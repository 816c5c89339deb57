//! Addresses and SRV records of Services and their endpoints.
//!
//! Core. Goes round the endpoints from where the query's turn says, and stops where the reply is
//! full.

use shared::wire::{NAME_MAX, Owner, Section, rtype};

use super::{POINTER_MAX, Spot, Writing};
use crate::records::{Among, Entry, Group, Named, Place, Port, PortName, Ports};

impl Writing<'_, '_> {
    /// A or AAAA of a Service: its cluster IPs, or its endpoints where it is headless. Whether
    /// there are any.
    pub(super) fn service_addresses(&mut self, spot: Spot, entry: &Entry, v6: bool) -> bool {
        if entry.is_headless() {
            return self.places(spot, entry, Among::All, v6);
        }
        let qtype = if v6 { rtype::AAAA } else { rtype::A };
        self.addresses(spot, entry.cluster_ips(), qtype)
    }

    /// The addresses of one family of the endpoints of `entry` that are meant, each once. Whether
    /// there are any.
    pub(super) fn places(&mut self, spot: Spot, entry: &Entry, among: Among<'_>, v6: bool) -> bool {
        let turn = self.turn;
        let round = entry.addresses(v6, among, |count| scale(turn, count));
        self.push_places(spot, round)
    }

    /// A or AAAA of the endpoints that are `named`. Whether there are any.
    pub(super) fn endpoint(&mut self, spot: Spot, named: Named<'_>, v6: bool) -> bool {
        self.push_places(spot, named.of(v6))
    }

    /// The addresses of `places`, which differ. Whether there are any.
    fn push_places<'e>(&mut self, spot: Spot, places: impl Iterator<Item = Place<'e>>) -> bool {
        let mut any = false;
        for place in places {
            any = true;
            if !self.push_place(Section::Answer, Owner::At(spot.at as u16), place) {
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
            return self.srv_of_endpoints(spot, entry, Among::All, wanted);
        }
        let Some(service) = entry.service() else { return false };
        let mut target_at = None;
        let fits = Numbers::of(std::iter::once(&service.ports), wanted).each(|number| {
            let rdata_at = self.push_srv(spot, number, &[], entry);
            target_at = target_at.or(rdata_at.map(|at| at + SRV_FIXED_LEN));
            rdata_at.is_some()
        });
        if !fits {
            self.truncate();
            return true;
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
            return each_srv(entry, Among::All, wanted, self.turn, |_, label, number, _| {
                self.push_srv(spot, number, label, entry).is_some()
            });
        }
        let Some(service) = entry.service() else { return true };
        Numbers::of(std::iter::once(&service.ports), wanted)
            .each(|number| self.push_srv(spot, number, &[], entry).is_some())
    }

    /// The SRV records of a headless Service that are wanted, of the endpoints that are meant: one
    /// for each label and port. Whether there are any.
    pub(super) fn srv_of_endpoints(
        &mut self,
        spot: Spot,
        entry: &Entry,
        among: Among<'_>,
        wanted: PortName<'_>,
    ) -> bool {
        let begin = self.reply.len();
        let mut any = false;
        let fits = each_srv(entry, among, wanted, self.turn, |_, label, number, _| {
            any = true;
            self.push_srv(spot, number, label, entry).is_some()
        });
        if !fits {
            self.truncate();
            return true;
        }
        let fixed = 2 + 10 + SRV_FIXED_LEN; // owner, type to length, priority to port
        let end_len = entry.key().len() + self.records.zone().services().len();
        let mut record_at = begin;
        each_srv(entry, among, wanted, self.turn, |place, label, _, is_new| {
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
        if !entry.shares_labels() {
            return self.push_place(Section::Additional, owner, place);
        }
        let Some(named) = records.named(entry, label) else { return true };
        [false, true].into_iter().all(|v6| {
            let mark = self.reply.mark();
            let fits = named.of(v6).all(|place| self.push_place(Section::Additional, owner, place));
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

/// Visits each SRV record of a headless Service that is wanted, of the endpoints that are meant,
/// from where `turn` says on: the endpoint, its label in wire form, the port, and whether this is
/// the first record with that label. Whether `visit` said to go on each time.
fn each_srv(
    entry: &Entry,
    among: Among<'_>,
    wanted: PortName<'_>,
    turn: u32,
    mut visit: impl FnMut(Place<'_>, &[u8], u16, bool) -> bool,
) -> bool {
    let all: u32 = entry.groups(among).map(|group| group.labels()).sum();
    let start = scale(turn, all);
    [start..all, 0..start].into_iter().all(|positions| {
        let mut before = 0;
        entry.groups(among).all(|group| {
            let (first, end) = (before, before + group.labels());
            before = end;
            let (first, end) = (positions.start.max(first) - first, positions.end.min(end));
            let end = end.saturating_sub(before - group.labels());
            first >= end || srv_of_group(group, first..end, wanted, &mut visit)
        })
    })
}

/// The same for the labels of one group at these positions.
fn srv_of_group(
    group: Group<'_>,
    positions: std::ops::Range<u32>,
    wanted: PortName<'_>,
    visit: &mut impl FnMut(Place<'_>, &[u8], u16, bool) -> bool,
) -> bool {
    let numbers = Numbers::of(group.ports(), wanted);
    if numbers.is_empty() {
        return true;
    }
    group.round(positions.start, positions.end).all(|place| {
        place.with_label(|label| {
            let mut is_new = true;
            numbers.each(|number| visit(place, label, number, std::mem::take(&mut is_new)))
        })
    })
}

/// The numbers of ports, each once.
struct Numbers<'w, P> {
    ports: P,
    wanted: PortName<'w>,
    /// The first of them.
    first: [u16; FIRST_MAX],
    /// How many of them there are, at most one more than `first` has room for.
    count: usize,
}

impl<'p, 'w, P: Iterator<Item = &'p Ports> + Clone> Numbers<'w, P> {
    /// Those of the ports in `ports` that are wanted.
    #[inline]
    pub fn of(ports: P, wanted: PortName<'w>) -> Self {
        let mut numbers = Self { ports, wanted, first: [0; FIRST_MAX], count: 0 };
        for port in numbers.matching() {
            if numbers.first[..numbers.count.min(FIRST_MAX)].contains(&port.number) {
                continue;
            }
            numbers.count += 1;
            match numbers.first.get_mut(numbers.count - 1) {
                Some(place) => *place = port.number,
                None => break,
            }
        }
        numbers
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Visits each until `visit` returns `false`, and returns whether it never did.
    #[inline]
    pub fn each(&self, mut visit: impl FnMut(u16) -> bool) -> bool {
        if self.count <= FIRST_MAX {
            return self.first[..self.count].iter().all(|&number| visit(number));
        }
        self.matching().enumerate().all(|(index, port)| {
            let is_repeated = self.matching().take(index).any(|other| other.number == port.number);
            is_repeated || visit(port.number)
        })
    }

    fn matching(&self) -> impl Iterator<Item = Port<'p>> + use<'p, 'w, P> {
        let wanted = self.wanted;
        self.ports.clone().flat_map(Ports::iter).filter(move |&port| wanted.matches(port))
    }
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
/// Numbers of ports that are kept for one answer: more than nearly every Service has.
const FIRST_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Protocol;

    #[test]
    fn each_comes_first_equally_often() {
        for count in [1, 2, 3, 7, 100] {
            let mut first = vec![0_usize; count as usize];
            for turn in 0..100 * count {
                first[scale(turn, count) as usize] += 1;
            }
            assert!(first.iter().all(|times| (95..=105).contains(times)), "{first:?}");
        }
        assert_eq!(scale(7, 0), 0);
    }

    #[test]
    fn numbers_are_visited_once() {
        let check = |numbers: &[u16]| {
            let port = |&number: &u16| (b"\x02_a".to_vec(), Protocol::Tcp, number);
            let (one, other) = numbers.split_at(numbers.len() / 2);
            let lists =
                [one, other].map(|part| Ports::pack(&part.iter().map(port).collect::<Vec<_>>()));
            let mut expected = numbers.to_vec();
            expected.sort_unstable();
            expected.dedup();
            for (wanted, some) in [
                (PortName::Any, true),
                (PortName::Named(b"_a", Protocol::Tcp), true),
                (PortName::Named(b"_b", Protocol::Tcp), false),
            ] {
                let mut visited = Vec::new();
                let found = Numbers::of(lists.iter(), wanted);
                assert!(found.each(|number| {
                    visited.push(number);
                    true
                }));
                visited.sort_unstable();
                assert_eq!(visited, if some { &expected[..] } else { &[] });
                assert_eq!(found.is_empty(), visited.is_empty());
            }
        };
        check(&[]);
        check(&[80]);
        check(&[80, 80]);
        check(&[80, 81, 80, 82]);
        check(&(1..=8).chain(1..=8).collect::<Vec<_>>());
        check(&(1..=9).chain(1..=9).collect::<Vec<_>>());
        check(&(1..=40).chain(7..=60).collect::<Vec<_>>());
    }
}
