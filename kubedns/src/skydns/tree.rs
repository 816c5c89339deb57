//! All messages by their paths, in a tree that shares everything that did not change.
//!
//! Core. A change copies the nodes from its own to the root; readers of an earlier tree are not
//! affected. The records of a node are made when they are first needed, and then kept with it.

use std::sync::{Arc, OnceLock};

use imbl::OrdMap;

use super::{Message, Rows};

/// The messages below a root.
#[derive(Clone, Debug, Default)]
pub struct Tree(Arc<Place>);

/// A name with messages at it or below it.
#[derive(Debug, Default)]
pub struct Place {
    own: Option<Arc<Message>>,
    below: Below,
    /// How many messages are at it and below it.
    count: usize,
    rows: OnceLock<Box<Rows>>,
}

/// The places one label below, sorted by their labels. Most places have at most one.
#[derive(Clone, Debug)]
enum Below {
    Few(Vec<(Box<[u8]>, Arc<Place>)>),
    Many(OrdMap<Box<[u8]>, Arc<Place>>),
}

impl Default for Below {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

/// A clone is about to change, so it has no records yet.
impl Clone for Place {
    fn clone(&self) -> Self {
        let (own, below) = (self.own.clone(), self.below.clone());
        Self { own, below, count: self.count, rows: OnceLock::new() }
    }
}

impl Tree {
    /// Returns the place at `path`, if there is a message at it or below it.
    pub fn get(&self, path: &[u8]) -> Option<&Place> {
        shared::wire::labels(path).try_fold(self.root(), |place, label| place.child(label))
    }

    /// Returns the place of the empty path.
    pub fn root(&self) -> &Place {
        &self.0
    }

    /// Sets the message at `path`, or removes it. Returns whether that is a change.
    pub fn put(&mut self, path: &[u8], message: Option<Arc<Message>>) -> bool {
        let old = self.get(path).and_then(|place| place.own.as_deref());
        if old == message.as_deref() {
            return false;
        }
        let step = message.is_some() as isize - old.is_some() as isize;
        put(&mut self.0, &mut shared::wire::labels(path), step, message);
        true
    }
}

/// Sets the message of the place that `labels` lead to. The number of messages grows by `step`.
fn put<'l>(
    place: &mut Arc<Place>,
    labels: &mut impl Iterator<Item = &'l [u8]>,
    step: isize,
    message: Option<Arc<Message>>,
) {
    let place = Arc::make_mut(place);
    place.rows = OnceLock::new();
    place.count = place.count.wrapping_add_signed(step);
    let Some(label) = labels.next() else {
        place.own = message;
        return;
    };
    place.below.with(label, |child| put(child, labels, step, message));
}

impl Below {
    /// Changes the place at `label`, which is added if it is missing and removed if it is empty
    /// afterwards.
    fn with(&mut self, label: &[u8], change: impl FnOnce(&mut Arc<Place>)) {
        if let Self::Few(few) = self
            && few.len() == FEW_MAX
        {
            *self = Self::Many(few.drain(..).collect());
        }
        match self {
            Self::Few(few) => {
                let at = few.binary_search_by(|(other, _)| (**other).cmp(label));
                let at = at.unwrap_or_else(|at| {
                    few.insert(at, (label.into(), Arc::default()));
                    at
                });
                change(&mut few[at].1);
                if few[at].1.count == 0 {
                    few.remove(at);
                }
            }
            Self::Many(many) => {
                let child = many.entry(label.into()).or_default();
                change(child);
                if child.count == 0 {
                    many.remove(label);
                }
            }
        }
    }
}

impl Place {
    /// Returns a place above `places`, for an answer from all of them.
    pub fn above(places: Vec<Arc<Self>>) -> Self {
        let count = places.iter().map(|place| place.count).sum();
        let few = places.into_iter().map(|place| (Box::default(), place)).collect();
        Self { own: None, below: Below::Few(few), count, rows: OnceLock::new() }
    }

    /// Returns the place at `label` below it.
    pub fn child(&self, label: &[u8]) -> Option<&Self> {
        self.shared_child(label).map(|place| &**place)
    }

    /// Returns the same place, to be kept.
    pub fn shared_child(&self, label: &[u8]) -> Option<&Arc<Self>> {
        match &self.below {
            Below::Few(few) => {
                let at = few.binary_search_by(|(other, _)| (**other).cmp(label)).ok()?;
                Some(&few[at].1)
            }
            Below::Many(many) => many.get(label),
        }
    }

    /// Returns each label below it with its place, sorted.
    pub fn children(&self) -> impl Iterator<Item = (&[u8], &Arc<Self>)> {
        let (few, many) = match &self.below {
            Below::Few(few) => (Some(few), None),
            Below::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().map(|(label, place)| (&**label, place));
        few.chain(many.into_iter().flatten().map(|(label, place)| (&**label, place)))
    }

    /// Returns the message whose key is exactly this name.
    pub fn own(&self) -> Option<&Arc<Message>> {
        self.own.as_ref()
    }

    /// Returns how many messages are at it and below it.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns whether so many messages are at it and below it that a datagram is not answered from
    /// them.
    pub fn is_many(&self) -> bool {
        self.count > MANY
    }

    /// Returns whether a change of any message below it is announced as a change of its name. If
    /// not, caches must not keep its records.
    pub fn is_announced(&self) -> bool {
        self.count <= ANNOUNCED_MAX
    }

    /// Visits every message at it and below it, sorted by their paths.
    pub fn each<'p>(&'p self, visit: &mut dyn FnMut(&'p Arc<Message>)) {
        self.own.iter().for_each(&mut *visit);
        self.children().for_each(|(_, place)| place.each(visit));
    }

    /// Returns the records of its name.
    pub fn rows(&self) -> &Rows {
        self.rows.get_or_init(|| Box::new(Rows::of(self)))
    }
}

/// With more places than this, a map is smaller to change than a list.
const FEW_MAX: usize = 32;
/// More messages than this below one name are many: a datagram is not answered from them.
pub const MANY: usize = 1_024;
/// A name with more messages than this is not removed from caches at each change: that would cost
/// them all names below it.
const ANNOUNCED_MAX: usize = 64;
