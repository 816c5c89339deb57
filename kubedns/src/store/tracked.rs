//! The Services and slices of one zone: the draft that they form, and which relist saw each last.
//!
//! Core. Knows one zone; does not know which objects belong to it, nor when it is published.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::records::{Draft, Key, Records, Service, Slice};

/// One zone under change.
#[derive(Debug)]
pub(super) struct Tracked {
    /// The zone as it will be published.
    pub draft: Draft,
    /// The relist that saw each Service last, by number.
    services: HashMap<Key, u32, RandomState>,
    /// The same for each slice, by `NAMESPACE/NAME`. The first number is that of its Service in the
    /// draft.
    slices: HashMap<Arc<str>, (u32, u32), RandomState>,
}

impl Tracked {
    /// Starts with `records`, which must be empty.
    pub fn new(records: Records) -> Self {
        let draft = Draft::new(records);
        Self { draft, services: HashMap::default(), slices: HashMap::default() }
    }

    /// Adds or replaces a Service, seen in relist `seen`.
    pub fn put_service(&mut self, service: Service, seen: u32) {
        let key = service.key.clone();
        self.draft.set_service(&key, Some(service));
        let shared = self.draft.records().entry(&key).map_or(key, |entry| entry.key().clone());
        self.services.insert(shared, seen);
    }

    /// Removes a Service.
    pub fn delete_service(&mut self, key: &Key) {
        if self.services.remove(key).is_some() {
            self.draft.set_service(key, None);
        }
    }

    /// Adds or replaces a slice, seen in relist `seen`.
    pub fn put_slice(&mut self, slice: Slice, seen: u32) {
        let name = slice.name().clone();
        let number = self.slices.get(&name).map(|(number, _)| *number);
        let number = self.draft.set_slice(number, slice);
        self.slices.insert(name, (number, seen));
    }

    /// Removes a slice.
    pub fn delete_slice(&mut self, name: &str) {
        if let Some((number, _)) = self.slices.remove(name) {
            self.draft.remove_slice(number, name);
        }
    }

    /// Removes Services that were last seen by a relist before `number`, if their namespace's label
    /// is `in_scope`.
    pub fn remove_older_services(&mut self, number: u32, in_scope: impl Fn(&[u8]) -> bool) {
        let gone = self
            .services
            .iter()
            .filter(|(key, seen)| **seen < number && in_scope(&key[1 + usize::from(key[0])..]));
        for key in gone.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.delete_service(&key);
        }
    }

    /// Removes slices that were last seen by a relist before `number`, if their name is `in_scope`.
    pub fn remove_older_slices(&mut self, number: u32, in_scope: impl Fn(&str) -> bool) {
        let gone = self.slices.iter().filter(|(name, (_, seen))| *seen < number && in_scope(name));
        for name in gone.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.delete_slice(&name);
        }
    }
}
