//! The endpoints that a name below a Service stands for.
//!
//! Core. Looks a label up in one Service; does not know which type was asked for.

use super::lists::Row;
use super::{Entry, Place, Records};
use crate::name::parse_generated;

/// The published endpoints of a Service that have one label, at least one: one for each address.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a> {
    /// This one.
    One(Place<'a>),
    /// Those of IPv4 and those of IPv6.
    Several(Rows<'a>),
}

/// Endpoints of a Service by number.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    entry: &'a Entry,
    families: [&'a [Row]; 2],
}

impl<'a> Named<'a> {
    /// Those of one family.
    #[inline]
    pub fn of(self, v6: bool) -> impl Iterator<Item = Place<'a>> + Clone {
        let (one, several) = match self {
            Self::One(place) => (Some(place).filter(|place| place.is_v6() == v6), None),
            Self::Several(rows) => (None, Some(rows)),
        };
        let several = several.into_iter().flat_map(move |Rows { entry, families }| {
            families[usize::from(v6)].iter().map(|row| entry.place(row.number))
        });
        one.into_iter().chain(several)
    }
}

impl Records {
    /// The published endpoints of `entry` with this label, in wire form: by hostname or by
    /// generated label. `None` if there is none.
    #[inline]
    pub fn named<'a>(&'a self, entry: &'a Entry, label: &[u8]) -> Option<Named<'a>> {
        let Some(lists) = &entry.lists else { return plain(entry, label).map(Named::One) };
        let families = lists.named(entry, &self.hasher, label);
        let is_any = families.iter().any(|rows| !rows.is_empty());
        is_any.then_some(Named::Several(Rows { entry, families }))
    }
}

/// The endpoint of a plain Service with this label.
#[inline]
fn plain<'a>(entry: &'a Entry, label: &[u8]) -> Option<Place<'a>> {
    if let Some(address) = parse_generated(&label[1..]) {
        for held in entry.held(address.is_ipv6()) {
            let mut found = held.slice.with_address(address, held.published);
            if let Some(index) = found.find(|&index| held.slice.host(index).is_empty()) {
                return Some(Place { held, index });
            }
        }
    }
    let mut with_hosts = entry.all_held().filter(|held| held.slice.has_hosts());
    with_hosts.find_map(|held| {
        let index = held.slice.with_host(label, held.published).next()?;
        Some(Place { held, index })
    })
}
