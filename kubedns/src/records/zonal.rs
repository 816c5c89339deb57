//! Names of topology zones below a headless Service: `ZONE.pin._zone` for its endpoints in that
//! zone, `ZONE.prefer._zone` for those or, if the zone has no endpoint, for all. The grammar is
//! CoreDNS's.
//!
//! Core. Knows which endpoints of a Service are in a topology zone; does not know how they are
//! answered. A topology zone is where an endpoint runs; all other zones here are those of DNS.

use super::{Entry, Node, Place, Records};
use crate::name::Labels;

/// A selection of a Service's published endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among<'a> {
    /// All.
    All,
    /// Those in the topology zone with these labels, in wire form.
    Zone(&'a [u8]),
}

impl Among<'_> {
    /// Returns whether `place` is selected.
    pub fn has(self, place: Place<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Zone(zone) => place.held.slice.zone(place.index) == zone,
        }
    }
}

impl Records {
    /// Returns the node if label `at - 1` is `_zone` and the next is the Service `entry`. Such a
    /// name exists for any zone: a zone that has lost its endpoints must not look like a mistake.
    pub(super) fn find_zonal<'a>(
        &self,
        entry: &'a Entry,
        labels: &Labels<'a>,
        at: usize,
    ) -> Node<'a> {
        if !self.zone.zonal || !entry.is_headless() {
            return Node::Missing;
        }
        let Some(directive) = at.checked_sub(2) else { return Node::Empty };
        let prefers = match labels.label(directive) {
            b"pin" => false,
            b"prefer" => true,
            _ => return Node::Missing,
        };
        let zone = labels.wire(0, directive);
        let has_any = entry.lists.as_ref().is_some_and(|all| all.view(Among::Zone(zone)).is_some());
        match directive {
            0 => Node::Empty,
            _ if prefers && !has_any => Node::Service(entry),
            _ => Node::Zonal(entry, zone),
        }
    }
}

/// The label above the names of topology zones. No endpoint, port or protocol can have it.
pub(crate) const ZONE_LABEL: &[u8] = b"_zone";
