//! The endpoints that a name below a Service refers to.
//!
//! Core. Looks a label up in one Service; does not know the type of the query.

use super::lists::Row;
use super::{Entry, Place, Records};
use crate::name::parse_generated;

/// The published endpoints of a Service that have one label: at least one, one for each address.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a> {
    /// One endpoint.
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
    /// Returns the endpoints of `entry` in `families`.
    pub(super) fn several(entry: &'a Entry, families: [&'a [Row]; 2]) -> Self {
        Self::Several(Rows { entry, families })
    }

    /// Returns the first of them.
    pub(crate) fn first(self) -> Place<'a> {
        match self {
            Self::One(place) => place,
            Self::Several(Rows { entry, families: [v4, v6] }) => {
                let row = v4.first().unwrap_or_else(|| &v6[0]);
                entry.place(row.number)
            }
        }
    }

    /// Visits those of one family until `visit` returns `false`. Returns whether it never did.
    #[inline]
    pub fn each(self, v6: bool, mut visit: impl FnMut(Place<'a>) -> bool) -> bool {
        match self {
            Self::One(place) => place.is_v6() != v6 || visit(place),
            Self::Several(Rows { entry, families }) => {
                families[usize::from(v6)].iter().all(|row| visit(entry.place(row.number)))
            }
        }
    }
}

impl Records {
    /// Returns the published endpoints of `entry`, if any, whose hostname or generated label is
    /// this label, in wire form.
    #[inline]
    pub fn named<'a>(&'a self, entry: &'a Entry, label: &[u8]) -> Option<Named<'a>> {
        let Some(lists) = &entry.lists else { return plain(entry, label).map(Named::One) };
        let families = lists.named(entry, &self.hasher, label);
        let is_any = families.iter().any(|rows| !rows.is_empty());
        is_any.then(|| Named::several(entry, families))
    }
}

/// Returns the endpoint of a plain Service with this label.
#[inline]
fn plain<'a>(entry: &'a Entry, label: &[u8]) -> Option<Place<'a>> {
    if let Some(address) = parse_generated(&label[1..]) {
        for held in entry.held(address.is_ipv6()) {
            // A plain Service has each address only once.
            let index = held.slice.index_of(address, held.published);
            if let Some(index) = index.filter(|&index| held.slice.host(index).is_empty()) {
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
