//! Updates of objects, in the same form from a watch and from a directory of files.
//!
//! Knows the order of updates; does not know their sender nor their effect.
//!
//! ```text
//! Listing(scope) ── Change, Change, .. ── Listed(scope) ── Change, Change, ..
//!      └── sent again before Listed: the list failed; its objects stay, and no object is removed
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::project::{self, Change, Input, Kind, Metadata, ObjectId, Rejected, Written};
use crate::skydns::Message;
use crate::source::watch::decode::Event;

/// The scope of one list and watch: a kind of object, in one namespace or in all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The kind.
    pub kind: Kind,
    /// The namespace; `None` for all. For [`Kind::Namespace`] the name of the one object.
    pub namespace: Option<Arc<str>>,
}

impl Scope {
    /// Returns the scope of every object of that kind.
    pub fn all(kind: Kind) -> Self {
        Self { kind, namespace: None }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.plural())?;
        self.namespace.as_ref().map_or(Ok(()), |namespace| write!(f, " of {namespace}"))
    }
}

/// One update.
#[derive(Debug)]
pub enum Update {
    /// A full list begins.
    Listing(Scope),
    /// One object changed, or is part of the list that has begun.
    Change {
        /// The change of the records.
        change: Change,
        /// Why it is left out, if it breaks the rules.
        rejected: Option<Box<Rejected>>,
        /// Its resource version, 0 if that is not a number.
        revision: u64,
        /// When the object was changed, if that is known.
        written: Option<Written>,
    },
    /// An object cannot be parsed.
    Unreadable {
        /// Its identity.
        object: ObjectId,
        /// Why, in one line.
        reason: String,
    },
    /// The current federations: name to domain.
    Federations(BTreeMap<String, String>),
    /// A full list of the keys of etcd begins.
    ListingKeys,
    /// A key of etcd was changed or removed, or is part of the list that has begun.
    Key {
        /// Its place.
        path: Box<[u8]>,
        /// Its value; `None` if there is none that can be used.
        message: Option<Box<Message>>,
        /// The revision of etcd.
        revision: u64,
    },
    /// The list of keys is complete: keys that were not in it are removed.
    ListedKeys,
    /// The list is complete: objects that were not in it are removed.
    Listed(Scope),
    /// Objects of this kind cannot be read, because the API server does not allow it. Those that
    /// are known stay, and kubedns does not wait for others.
    Denied(Kind),
}

impl Update {
    /// Returns what `event` means for the records, if it is about an object.
    pub fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Applied(input) => Some(Self::applied(input)),
            Event::Deleted(input) => Some(Self::deleted(input)),
            Event::Unreadable { object, reason, .. } => {
                Some(Self::Unreadable { object: object.clone(), reason: reason.clone() })
            }
            Event::Bookmark { .. } | Event::Refused(_) => None,
        }
    }

    /// Returns the update that `input` was added or changed.
    pub fn applied(input: &Input) -> Self {
        let (change, rejected) = project::change(input);
        let rejected = rejected.map(Box::new);
        let revision = revision(input.metadata());
        Self::Change { change, rejected, revision, written: input.written() }
    }

    /// Returns the update that `input`, in its last state, was removed.
    pub fn deleted(input: &Input) -> Self {
        let revision = revision(input.metadata());
        let change = Change::Deleted(input.id());
        Self::Change { change, rejected: None, revision, written: None }
    }
}

/// The channel for updates: one at a time and in order. If it is full, the sender waits.
pub type Sink = mpsc::Sender<Update>;

/// The receiver of updates is closed: the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Sends `update`.
pub async fn send(sink: &Sink, update: Update) -> Result<(), Closed> {
    sink.send(update).await.map_err(|_| Closed)
}

/// Returns the resource version as a number; 0 if it is not a number. Since Kubernetes 1.35 it is a
/// number for every resource, before for all resources in etcd (KEP-5504).
fn revision(metadata: &Metadata) -> u64 {
    metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}
