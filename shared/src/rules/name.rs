//! Names in the rules of a Corefile: their parents, and the zones to which a rule is limited.
//!
//! Core. Names are in lower-case wire form.

use crate::wire::{NAME_MAX, with_ancestors};

pub use crate::name::{parse, text};

/// Returns `name` without its first label; `None` for the root.
pub fn parent(name: &[u8]) -> Option<&[u8]> {
    with_ancestors(name).nth(1)
}

/// Returns `labels`, in wire form without the root label, followed by `suffix`; `None` if the name
/// is too long.
pub fn joined(labels: &[u8], suffix: &[u8]) -> Option<Box<[u8]>> {
    (labels.len() + suffix.len() <= NAME_MAX).then(|| [labels, suffix].concat().into())
}

/// The zones to which a rule is limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zones(Vec<Box<[u8]>>);

impl Default for Zones {
    fn default() -> Self {
        Self::all()
    }
}

impl Zones {
    /// Returns the zone of every name.
    pub fn all() -> Self {
        Self(vec![[0].into()])
    }

    /// Returns the names at or below one of `zones`, which must be in lower-case wire form.
    pub fn new(zones: Vec<Box<[u8]>>) -> Self {
        Self(zones)
    }

    /// Returns the longest of the zones that `name`, in lower-case wire form, is at or below.
    pub fn longest<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        with_ancestors(name).find(|suffix| self.0.iter().any(|zone| **zone == **suffix))
    }

    /// Returns whether `name`, in lower-case wire form, is at or below one of the zones.
    pub fn hold(&self, name: &[u8]) -> bool {
        self.0.iter().any(|zone| zone.len() == 1) || self.longest(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_hold_what_is_below_them() {
        let zones = Zones::new(["a.example", "example", "b.c"].map(|it| parse(it).unwrap()).into());
        let rows = [
            ("x.a.example", Some("a.example")),
            ("a.example", Some("a.example")),
            ("ba.example", Some("example")),
            ("c", None),
            (".", None),
        ];
        for (name, zone) in rows {
            let name = parse(name).unwrap();
            assert_eq!(zones.longest(&name).map(text), zone.map(|zone| format!("{zone}.")));
            assert_eq!(zones.hold(&name), zone.is_some());
            assert!(Zones::all().hold(&name));
        }
    }
}
