//! Addresses and SRV records of Services and their endpoints.
//!
//! Core. Goes round the endpoints from where the query's turn says, and stops where the reply is
//! full.

use shared::wire::{NAME_MAX, Owner, Section, rtype};

use super::{POINTER_MAX, Spot, Writing};
use crate::records::{Entry, Place, PortName, Records, Shape};

impl Writing<'_, '_> {
    /// A or AAAA of a Service: its cluster IPs, or its endpoints where it is headless. Whether
    /// there are any.
    pub(super) fn service_addresses(&mut self, spot: Spot, entry: &Entry, v6: bool) -> bool {
        if !is_headless(entry) {
            let qtype = if v6 { rtype::AAAA } else { rtype::A };
            return self.addresses(spot, entry.cluster_ips(), qtype);
        }
        let records = self.records;
        let count = entry.published_of(v6);
        for place in entry.around(v6, scale(self.turn, count)) {
            if !records.is_first_with_address(entry, place) {
                continue;
            }
            if !self.push_place(Section::Answer, Owner::At(spot.at as u16), place) {
                self.truncate();
                break;
            }
        }
        count > 0
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
        if is_headless(entry) {
            return self.srv_of_endpoints(spot, entry, wanted);
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
        if is_headless(entry) {
            let (records, turn) = (self.records, self.turn);
            let mut fits = true;
            each_srv(records, entry, wanted, turn, |_, label, number, _| {
                fits = self.push_srv(spot, number, label, entry).is_some();
                fits
            });
            return fits;
        }
        let Some(service) = entry.service() else { return true };
        numbers(service.ports.iter(), wanted)
            .all(|number| self.push_srv(spot, number, &[], entry).is_some())
    }

    /// SRV of a headless Service: one for each endpoint's name and port.
    fn srv_of_endpoints(&mut self, spot: Spot, entry: &Entry, wanted: PortName<'_>) -> bool {
        let (records, turn) = (self.records, self.turn);
        let begin = self.reply.len();
        let (mut any, mut full) = (false, false);
        each_srv(records, entry, wanted, turn, |_, label, number, _| {
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
        each_srv(records, entry, wanted, turn, |place, label, _, is_new| {
            let target_at = record_at + fixed;
            record_at = target_at + label.len() + end_len;
            !is_new || self.push_target(target_at, entry, place, label)
        });
        any
    }

    /// The addresses of an endpoint's name, which stands at `target_at` already. Whether all
    /// fitted.
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
        records
            .named(entry, label)
            .filter(|&place| records.is_first_with_both(entry, place, label))
            .all(|place| self.push_place(Section::Additional, owner, place))
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

/// Visits each SRV record of a headless Service: the endpoint, its label in wire form, the port,
/// and whether this is the first record with that label. Stops when `visit` says so.
fn each_srv(
    records: &Records,
    entry: &Entry,
    wanted: PortName<'_>,
    turn: u32,
    mut visit: impl FnMut(Place<'_>, &[u8], u16, bool) -> bool,
) {
    let count_v4 = entry.published_of(false);
    let start = scale(turn, entry.published());
    let v6_first = start >= count_v4;
    let in_family = if v6_first { start - count_v4 } else { start };
    let round = entry.around(v6_first, in_family).chain(entry.around(!v6_first, in_family));
    for place in round {
        let go_on = srv_at(records, entry, place, wanted, |label, number, is_new| {
            visit(place, label, number, is_new)
        });
        if !go_on {
            return;
        }
    }
}

/// Visits each SRV record whose target is the name of `place`, and which no endpoint before it has:
/// label, port, and whether this is the first record with that label. Whether `visit` said so each
/// time.
pub(crate) fn srv_at(
    records: &Records,
    entry: &Entry,
    place: Place<'_>,
    wanted: PortName<'_>,
    mut visit: impl FnMut(&[u8], u16, bool) -> bool,
) -> bool {
    place.with_label(|label| {
        let is_first = |number: Option<u16>| {
            records.is_first_with_label(entry, place, label, |port| {
                wanted.matches(port) && number.is_none_or(|number| port.number == number)
            })
        };
        let mut is_new = is_first(None);
        for number in numbers(place.held.slice.ports().iter(), wanted) {
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

pub(crate) fn is_headless(entry: &Entry) -> bool {
    entry.service().is_some_and(|service| service.shape == Shape::Headless)
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
