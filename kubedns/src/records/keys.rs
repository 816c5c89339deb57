//! Zones whose records are keys of etcd in the SkyDNS format.
//!
//! Core. A view of the same moment with another schema: `skydns` knows the messages and the records
//! that a name has by them; this file knows the apex of the zone, names that do not exist, and
//! labels that match any label.

use std::sync::Arc;

use shared::reverse;
use shared::wire::rtype;

use super::rrsets::scale;
use super::{Found, Node, Origin, PodMode, Record, Records, Schema, Walk, Zone};
use crate::name::{IN_ADDR_ARPA, IP6_ARPA, Labels, Name};
use crate::skydns::{Keys, Place, Row};

impl Zone {
    /// Returns this zone beside the zones `names`, whose records are keys of etcd; or these alone,
    /// without the cluster's, if `is_alone`. With `wildcards` the label `*` in a key stands for all
    /// names that do not exist (RFC 4592).
    #[must_use]
    pub fn with_keys(mut self, names: &[Name], is_alone: bool, wildcards: bool) -> Self {
        let mut zones = names.iter().map(|apex| Self {
            services: apex.wire().into(),
            apex: apex.clone(),
            schema: Schema::Skydns { wildcards },
            clusterset: None,
            views: Arc::default(),
            ttl_secs: NEGATIVE_TTL_SECS,
            pods: PodMode::Disabled,
            wildcards: false,
            zonal: false,
            ..self.clone()
        });
        let first = if is_alone { zones.next() } else { None };
        let zones: Vec<_> = zones.map(Arc::new).collect();
        match first {
            Some(first) => self = Self { views: zones.into(), ..first },
            None => self.views = self.views.iter().cloned().chain(zones).collect(),
        }
        self
    }

    /// Returns whether its records are keys of etcd.
    pub fn is_keyed(&self) -> bool {
        matches!(self.schema, Schema::Skydns { .. })
    }
}

impl Records {
    /// The messages of etcd at this moment.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns the same records with other messages of etcd.
    pub(crate) fn with_keys(mut self, keys: Keys) -> Self {
        self.set_keys(keys);
        self.viewed()
    }

    /// Replaces the messages of etcd.
    pub(super) fn set_keys(&mut self, keys: Keys) {
        if self.zone.is_keyed() {
            (self.complete, self.stale) = (keys.is_complete, keys.is_stale);
        }
        self.keys = keys;
    }

    /// Returns the same records as publication number `generation`.
    pub(crate) fn with_generation(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// Returns what exists at a name of this zone with `count` labels left of the apex.
    pub(super) fn find_key<'a>(&'a self, labels: &Labels<'a>, count: usize) -> Node<'a> {
        if count == 0 {
            return Node::Apex;
        }
        let mut place = self.keys.tree.root();
        for index in (0..labels.count()).rev() {
            match place.child(labels.label(index)) {
                Some(below) => place = below,
                None => return self.without_key(place, labels, count),
            }
        }
        Node::Key(place)
    }

    /// Returns the same for a name that has no key. `encloser` is the nearest name above it that
    /// has.
    fn without_key<'a>(
        &'a self,
        encloser: &'a Place,
        labels: &Labels<'a>,
        count: usize,
    ) -> Node<'a> {
        let wildcards = self.zone.schema == Schema::Skydns { wildcards: true };
        if let Some(star) = encloser.child(b"*").filter(|_| wildcards) {
            return Node::Key(star);
        }
        match (count, labels.label(count - 1)) {
            (1, b"dns") => Node::Empty,
            (2, b"dns") if labels.label(0) == b"ns" => Node::NameServer,
            _ => Node::Missing,
        }
    }

    /// Returns what the cluster has at the reverse name `name` if `found`, in a zone of keys, is
    /// nothing.
    pub(super) fn or_cluster<'a>(&'a self, found: Found<'a>, name: &[u8]) -> Found<'a> {
        let is_nothing = matches!(found.node, Node::Missing) && found.records.zone().is_keyed();
        let is_reverse = || name.ends_with(IN_ADDR_ARPA) || name.ends_with(IP6_ARPA);
        if !is_nothing || self.zone.is_keyed() || !is_reverse() {
            return found;
        }
        match reverse::parse(name).and_then(|read| self.find_reverse(read)) {
            Some(node @ Node::Reverse(_)) => {
                Found { records: self, is_reverse: true, node, ..found }
            }
            Some(Node::Empty) => Found { node: Node::Empty, ..found },
            _ => found,
        }
    }

    /// Returns the place of the apex for queries of type `qtype`: addresses can be at `apex.dns`
    /// and those of name servers are at `ns.dns`, below the zone.
    pub(super) fn apex_place(&self, qtype: u16) -> Option<&Place> {
        let mut place = self.keys.tree.root();
        let labels = Labels::of(self.zone.apex().wire());
        for index in (0..labels.count()).rev() {
            place = place.child(labels.label(index))?;
        }
        let special = |label: &[u8]| place.child(b"dns").and_then(|dns| dns.child(label));
        match qtype {
            rtype::NS => special(b"ns"),
            rtype::A | rtype::AAAA => special(b"apex").or(Some(place)),
            _ => Some(place),
        }
    }

    /// Returns a place above all names that match `name`, in which the labels `*` and `any` match
    /// any label. `None` if no label is wild or no name matches. Fails if more than `places_max`
    /// names had to be looked at.
    pub(crate) fn wild_place(
        &self,
        name: &[u8],
        found: &Found<'_>,
        places_max: usize,
    ) -> Result<Option<Place>, TooMany> {
        let labels = Labels::of(name);
        let is_wild = |label: &[u8]| matches!(label, b"*" | b"any");
        let left = (0..).take_while(|&index| labels.start(index) < found.apex);
        let is_missing = matches!(found.node, Node::Missing) && self.zone.is_keyed();
        if !is_missing || !left.into_iter().any(|index| is_wild(labels.label(index))) {
            return Ok(None);
        }
        let mut places: Option<Vec<Arc<Place>>> = None;
        for index in (0..labels.count()).rev() {
            let label = labels.label(index);
            let all = is_wild(label) && labels.start(index) < found.apex;
            let mut below = Vec::new();
            let own = |place: &Place, below: &mut Vec<_>| match all {
                true => {
                    below.extend(place.children().take(places_max + 1).map(|(_, it)| it.clone()))
                }
                false => below.extend(place.shared_child(label).cloned()),
            };
            match &places {
                None => own(self.keys.tree.root(), &mut below),
                Some(places) => {
                    for place in places {
                        own(place, &mut below);
                        if below.len() > places_max {
                            return Err(TooMany);
                        }
                    }
                }
            }
            places = Some(below);
        }
        let places = places.filter(|places| !places.is_empty());
        Ok(places.map(Place::above))
    }
}

/// More names match than may be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl<'a> Found<'a> {
    /// Returns the node for queries of type `qtype`. At the apex of a zone of keys that is the
    /// place of the keys, except for SOA and NS.
    pub fn node_for(&self, qtype: u16) -> Node<'a> {
        let is_own = matches!(qtype, rtype::SOA | rtype::NS | rtype::ANY | rtype::CNAME);
        match self.node {
            Node::Apex if self.records.zone().is_keyed() && !is_own => {
                self.records.apex_place(qtype).map_or(Node::Apex, Node::Key)
            }
            node => node,
        }
    }
}

impl<'a> Node<'a> {
    /// Returns the alias that a query of type `qtype` follows from here: the CNAME of a name of
    /// etcd that has no record of that type. `turn` chooses one of several.
    pub(crate) fn key_alias(&self, qtype: u16, turn: u32) -> Option<&'a Row> {
        let Node::Key(place) = *self else { return None };
        let rows = place.rows();
        if matches!(qtype, rtype::CNAME | rtype::ANY) || !rows.of_type(qtype).is_empty() {
            return None;
        }
        let aliases = rows.of_type(rtype::CNAME);
        aliases.get(scale(turn, aliases.len() as u32) as usize)
    }
}

impl Walk<'_> {
    /// Visits the records of type `rtype` at `place`. An alias has one target at a time.
    pub(super) fn keyed(
        &self,
        place: &Place,
        rtype: u16,
        visit: &mut impl FnMut(Record<'_>) -> bool,
    ) -> bool {
        let rows = place.rows().of_type(rtype);
        let (after, first) = rows.split_at(scale(self.turn, rows.len() as u32) as usize);
        let count = if rtype == rtype::CNAME { 1 } else { rows.len() };
        first
            .iter()
            .chain(after)
            .take(count)
            .all(|row| visit(Record { rtype, rdata: &[&row.rdata], origin: Origin::Key(row) }))
    }

    /// Returns the TTL of `record` in seconds.
    pub fn ttl_of(&self, record: &Record<'_>) -> u32 {
        match record.origin {
            Origin::Key(_) if self.ttl_secs == 0 => 0,
            Origin::Key(row) if self.records.is_stale() => row.ttl_secs.min(self.ttl_secs),
            Origin::Key(row) => row.ttl_secs,
            _ => self.ttl_secs,
        }
    }
}

/// TTL of negative answers, SOA and NS.
const NEGATIVE_TTL_SECS: u32 = 30;
