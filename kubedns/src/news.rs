//! News about objects, as a watch and a directory of files tell them alike.
//!
//! Knows the order in which things are said; does not know who says them nor what follows.
//!
//! ```text
//! Listing(scope) ── Change, Change, .. ── Listed(scope) ── Change, Change, ..
//!      └── said again before Listed: the list broke off, what it brought stays, nothing is gone
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::project::{self, Change, Input, Kind, Metadata, ObjectId, Rejected, Written};
use crate::watch::decode::Event;

/// What one list and watch covers: a kind of object, in one namespace or in all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The kind.
    pub kind: Kind,
    /// The namespace; all where there is none. For [`Kind::Namespace`] the one object's name.
    pub namespace: Option<Arc<str>>,
}

impl Scope {
    /// Every object of that kind.
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

/// One piece of news.
#[derive(Debug)]
pub enum News {
    /// A full list begins.
    Listing(Scope),
    /// One object changed, or is part of the list that has begun.
    Change {
        /// What the records make of it.
        change: Change,
        /// Why it is left out, where it breaks the rules.
        rejected: Option<Box<Rejected>>,
        /// Its resource version, 0 where that is no number.
        revision: u64,
        /// When what it says began to hold, where it tells.
        written: Option<Written>,
    },
    /// An object cannot even be read.
    Unreadable {
        /// Which.
        object: ObjectId,
        /// Why, in one line.
        reason: String,
    },
    /// Which federations there are now: name to domain.
    Federations(BTreeMap<String, String>),
    /// The list has been said in full: what it did not bring is gone.
    Listed(Scope),
    /// Objects of this kind may not be read: what is known of them stays, and nobody waits for
    /// them.
    Denied(Kind),
}

impl News {
    /// What `event` means for the records; `None` if it is not about an object.
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

    /// That `input` is there as it is now.
    pub fn applied(input: &Input) -> Self {
        let (change, rejected) = project::change(input);
        let rejected = rejected.map(Box::new);
        let revision = revision(input.metadata());
        Self::Change { change, rejected, revision, written: input.written() }
    }

    /// That `input`, as it was last, is gone.
    pub fn deleted(input: &Input) -> Self {
        let revision = revision(input.metadata());
        let change = Change::Deleted(input.id());
        Self::Change { change, rejected: None, revision, written: None }
    }
}

/// Where news go: one at a time and in order; whoever has too many waits.
pub type Sink = mpsc::Sender<News>;

/// Nobody takes news any more: the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Says `news`.
pub async fn say(sink: &Sink, news: News) -> Result<(), Closed> {
    sink.send(news).await.map_err(|_| Closed)
}

/// The resource version as a number: since Kubernetes 1.35 it is one for every resource, before it
/// has been for all that live in etcd (KEP-5504); 0 where it is none.
fn revision(metadata: &Metadata) -> u64 {
    metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}
