//! The keys of etcd under change: the messages as they will be published, and which of them the
//! list in progress has not seen.
//!
//! Core. Knows paths and lists; does not know etcd.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::{Changed, Published, Writer};
use crate::name::Labels;
use crate::records::Records;
use crate::skydns::{Keys, Message, Place, name_of_path};

/// The next messages, in the making.
#[derive(Debug, Default)]
pub(super) struct KeyDraft {
    pub keys: Keys,
    /// The paths that the list in progress has seen, if there is one.
    seen: Option<HashSet<Box<[u8]>>>,
    /// The paths that changed since the last publication.
    touched: BTreeSet<Box<[u8]>>,
    /// Whether the state of the list changed since then.
    is_news: bool,
}

impl KeyDraft {
    /// Begins a full list. Keys that it does not contain are removed when it is finished.
    pub fn begin(&mut self) {
        self.seen = Some(HashSet::new());
    }

    /// Sets the message at `path`, or removes it.
    pub fn put(&mut self, path: &[u8], message: Option<Message>) {
        if let (Some(seen), Some(_)) = (&mut self.seen, &message) {
            seen.insert(path.into());
        }
        if self.keys.tree.put(path, message.map(Arc::new)) {
            self.touched.insert(path.into());
        }
    }

    /// Finishes the list.
    pub fn finish(&mut self) {
        if let Some(seen) = self.seen.take() {
            let mut gone: Vec<Box<[u8]>> = Vec::new();
            self.keys.tree.root().each(&mut |message| {
                if !seen.contains(message.path()) {
                    gone.push(message.path().into());
                }
            });
            gone.iter().for_each(|path| self.put(path, None));
        }
        self.is_news |= !self.keys.is_complete || self.keys.is_stale;
        (self.keys.is_complete, self.keys.is_stale) = (true, false);
    }

    /// Returns the keys of an earlier process, which this one has not confirmed.
    pub fn restored(&mut self) -> Keys {
        self.take_touched();
        (self.keys.is_complete, self.keys.is_stale) = (true, true);
        self.keys.clone()
    }

    /// Returns whether readers have not seen the current state.
    pub fn is_news(&self) -> bool {
        self.keys.is_complete && (self.is_news || !self.touched.is_empty())
    }

    /// Returns the paths that changed since the last call, which publishes them.
    pub fn take_touched(&mut self) -> BTreeSet<Box<[u8]>> {
        self.is_news = false;
        std::mem::take(&mut self.touched)
    }
}

impl Writer {
    /// Publishes the keys of etcd while the records of the cluster stay as they are shown.
    pub(super) fn publish_keys(&mut self, before: &Records, revision: u64) -> Published {
        self.keys.take_touched();
        self.cluster.draft.advance(revision as u32);
        let generation = self.cluster.draft.records().generation();
        let records = before.clone().with_generation(generation).with_keys(self.keys.keys.clone());
        self.published.store(Arc::new(records));
        Published { generation, serial: before.serial(), changed: Changed::Everything }
    }

    /// Sets the prefix of all keys of etcd, with a slash at both ends.
    pub fn set_key_prefix(&mut self, prefix: &str) {
        self.keys.keys.prefix = prefix.into();
    }

    /// Begins a full list of the keys of etcd.
    pub fn begin_keys(&mut self) {
        self.keys.begin();
    }

    /// Sets the message of the key at `path`, or removes it.
    pub fn put_key(&mut self, path: &[u8], message: Option<Message>) {
        self.keys.put(path, message);
    }

    /// Completes the list: keys that were not in it are removed. After the first one, the next
    /// [`Writer::publish`] begins to answer from them.
    pub fn finish_keys(&mut self) {
        self.keys.finish();
    }
}

/// Appends the names that changed with the keys at `touched`. Each includes the names below it.
///
/// The answers of the names above a key change with it. So each change is announced by the highest
/// name whose answers caches can have. Below `dns.` of
/// a zone there are records of its apex.
pub(super) fn names(before: &Records, touched: &BTreeSet<Box<[u8]>>, names: &mut Vec<u8>) {
    let zones: Vec<&Records> = std::iter::once(before).chain(before.views()).collect();
    let zones = || zones.iter().filter(|records| records.zone().is_keyed());
    let mut all = BTreeSet::new();
    for path in touched {
        let name = name_of_path(path);
        let labels = Labels::of(&name);
        for zone in zones().map(|records| records.zone().apex().wire()) {
            if let Some(count) = labels.above(zone) {
                all.insert(announced(before, &labels, count).to_vec());
            }
        }
    }
    all.iter().for_each(|name| names.extend_from_slice(name));
}

/// Returns the name that announces a change at the name of `labels`, of which `count` are left of
/// the apex.
fn announced<'n>(before: &Records, labels: &Labels<'n>, count: usize) -> &'n [u8] {
    if count > 0 && labels.label(count - 1) == b"dns" {
        return labels.tail(count);
    }
    // A `*` in the key stands for other names below the label to its right.
    let star = (0..count).rev().find(|&index| labels.label(index) == b"*");
    let mut announced = star.map_or(0, |index| index + 1);
    let mut place = Some(before.keys().tree.root());
    for index in (0..labels.count()).rev() {
        place = place.and_then(|place| place.child(labels.label(index)));
        if index <= count && place.is_none_or(Place::is_announced) {
            announced = announced.max(index);
            break;
        }
    }
    labels.tail(announced)
}
