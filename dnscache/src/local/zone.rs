//! Zones from master files (RFC 1035 section 5), answered as an authoritative server does: aliases,
//! wildcards (RFC 4592), delegations, denials with the SOA.
//!
//! Core. A zone is immutable; a changed file makes a new one.

mod lines;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use shared::wire::{rcode, rtype};

use super::made::Made;
use super::name::{self, Zones};
use crate::normalise::{Row, Rows};

pub use lines::ZoneError;

/// A zone file and how it is used.
#[derive(Clone, Debug)]
pub struct ZoneFile {
    /// The name of the zone in lower-case wire form.
    pub origin: Box<[u8]>,
    /// The zones in which unknown names are passed to the next rule.
    pub fallthrough: Option<Zones>,
    /// Subzones for which other rules answer.
    pub except: Option<Zones>,
    /// The zone; `None` until its file can be read.
    pub zone: Option<Arc<Zone>>,
}

/// The records of a zone.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Zone {
    origin: Box<[u8]>,
    /// Every name that exists, in lower-case wire form. Empty non-terminals have no records.
    names: HashMap<Box<[u8]>, Vec<Row>, RandomState>,
}

/// The result of a look-up in a zone.
enum Place<'z> {
    At(&'z [Row]),
    Delegated(&'z [Row]),
    Absent,
}

impl Zone {
    /// Parses the master file `text` of the zone `origin`, in lower-case wire form.
    ///
    /// Fails at the first line that is not a record of the zone, or if the SOA is missing.
    pub fn parse(text: &str, origin: &[u8]) -> Result<Self, ZoneError> {
        let mut zone = Self { origin: origin.into(), names: HashMap::default() };
        lines::read(text, origin, |line, row| zone.add(row).map_err(|reason| (line, reason)))?;
        let apex = zone.names.get(origin).map(Vec::as_slice).unwrap_or_default();
        match apex.iter().filter(|row| row.rtype == rtype::SOA).count() {
            1 => Ok(zone),
            _ => Err(ZoneError::Soa(name::text(origin))),
        }
    }

    fn add(&mut self, mut row: Row) -> Result<(), String> {
        row.owner.make_ascii_lowercase(); // a length byte is at most 63, below every letter
        let zones = Zones::new(vec![self.origin.clone()]);
        if !zones.hold(&row.owner) {
            return Err(format!("{} is not in the zone", name::text(&row.owner)));
        }
        let mut above = name::parent(&row.owner);
        while let Some(name) = above.filter(|name| name.len() >= self.origin.len()) {
            self.names.entry(name.into()).or_default();
            above = name::parent(name);
        }
        let rows = self.names.entry(row.owner.clone()).or_default();
        let is_alias = |row: &Row| row.rtype == rtype::CNAME;
        if rows.contains(&row) {
            return Ok(());
        }
        if rows.iter().any(is_alias) || is_alias(&row) && !rows.is_empty() {
            return Err(format!("{} has an alias and other records", name::text(&row.owner)));
        }
        rows.push(row);
        Ok(())
    }

    /// Returns how many names it has.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns whether it has no names.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn soa(&self) -> Option<Row> {
        let apex = self.names.get(&self.origin)?;
        let soa = apex.iter().find(|row| row.rtype == rtype::SOA)?;
        Some(Row { section: 1, ..soa.clone() })
    }

    /// Finds `name`, which must be in the zone.
    fn place(&self, name: &[u8]) -> Place<'_> {
        let mut names = vec![name];
        while let Some(parent) = names.last().and_then(|it| name::parent(it))
            && parent.len() >= self.origin.len()
        {
            names.push(parent);
        }
        let mut encloser = &self.origin[..];
        for &above in names.iter().rev() {
            let Some(rows) = self.names.get(above) else { break };
            let has_ns = rows.iter().any(|row| row.rtype == rtype::NS);
            if has_ns && above.len() > self.origin.len() {
                return Place::Delegated(rows);
            }
            encloser = above;
        }
        if encloser.len() == name.len() {
            return self.names.get(name).map_or(Place::Absent, |rows| Place::At(rows));
        }
        let wildcard = name::joined(b"\x01*", encloser);
        let wildcard = wildcard.and_then(|wildcard| self.names.get(&wildcard));
        wildcard.map_or(Place::Absent, |rows| Place::At(rows))
    }

    /// Returns the answer to a question for `qtype` at `name`, which must be in the zone. Its last
    /// record is an alias if the target is in another zone.
    fn answer(&self, name: &[u8], qtype: u16) -> Rows {
        let mut rows = Rows { authoritative: true, ..Rows::default() };
        let mut at: Box<[u8]> = name.into();
        for _ in 0..ALIASES_MAX {
            let found = match self.place(&at) {
                Place::Delegated(found) => {
                    rows.authoritative = !rows.records.is_empty();
                    let servers = found.iter().filter(|row| row.rtype == rtype::NS);
                    rows.records.extend(servers.map(|row| Row { section: 1, ..row.clone() }));
                    self.add_addresses(&mut rows);
                    return rows;
                }
                Place::Absent => {
                    rows.rcode = rcode::NXDOMAIN;
                    rows.records.extend(self.soa());
                    return rows;
                }
                Place::At(found) => found,
            };
            let wanted = found.iter().filter(|row| row.rtype == qtype);
            let before = rows.records.len();
            rows.records.extend(wanted.map(|row| Row { owner: at.clone(), ..row.clone() }));
            if rows.records.len() > before {
                self.add_addresses(&mut rows);
                return rows;
            }
            let alias = found.iter().find(|row| row.rtype == rtype::CNAME);
            let Some((alias, target)) = alias.and_then(|it| Some((it, it.data.names.first()?)))
            else {
                rows.records.extend(self.soa());
                return rows;
            };
            rows.records.push(Row { owner: at, ..alias.clone() });
            at = target.to_ascii_lowercase().into();
            if !Zones::new(vec![self.origin.clone()]).hold(&at) {
                return rows;
            }
        }
        Rows { rcode: rcode::SERVFAIL, ..Rows::default() }
    }

    /// Adds the addresses that the zone has for targets in `rows`.
    fn add_addresses(&self, rows: &mut Rows) {
        const MX: u16 = 15;
        let targets: Vec<Box<[u8]>> = rows
            .records
            .iter()
            .filter(|row| matches!(row.rtype, rtype::NS | rtype::SRV | MX))
            .filter_map(|row| row.data.names.first())
            .map(|target| target.to_ascii_lowercase().into())
            .collect();
        for (index, target) in targets.iter().enumerate() {
            if targets[..index].contains(target) {
                continue;
            }
            let found = self.names.get(target).map(Vec::as_slice).unwrap_or_default();
            let addresses = found.iter().filter(|it| matches!(it.rtype, rtype::A | rtype::AAAA));
            rows.records.extend(addresses.map(|row| Row { section: 2, ..row.clone() }));
        }
    }
}

impl ZoneFile {
    /// Returns the answer to a question for `qtype` at `name`, in lower-case wire form; `None` if
    /// the next rule should answer.
    pub fn answer(&self, name: &[u8], qtype: u16) -> Option<Made> {
        if !self.holds(name) {
            return None;
        }
        let Some(zone) = &self.zone else { return Some(Made::failed(NOT_LOADED)) };
        let rows = zone.answer(name, qtype);
        let goes_on = self.fallthrough.as_ref().is_some_and(|zones| zones.hold(name));
        let is_absent = rows.rcode == rcode::NXDOMAIN && rows.answers().next().is_none();
        (!(goes_on && is_absent)).then(|| Made::new(rows))
    }

    /// Returns whether `name`, in lower-case wire form, is in the zone.
    pub fn knows(&self, name: &[u8]) -> bool {
        self.zone.is_some() && self.holds(name)
    }

    fn holds(&self, name: &[u8]) -> bool {
        let is_others = self.except.as_ref().is_some_and(|zones| zones.hold(name));
        Zones::new(vec![self.origin.clone()]).hold(name) && !is_others
    }
}

/// How many aliases can lead to one another.
const ALIASES_MAX: usize = 8;
const NOT_LOADED: &str = "the zone file cannot be read";

#[cfg(test)]
mod tests;
