//! Turns updates into records: the one task that owns the store's writer.
//!
//! Seam. Applies a burst of updates and publishes once; opens the store after everything was
//! listed. Does not know which task sends the updates, nor what records are made of.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::clock::unix_ms;
use shared::ready::Blocker;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::changes::Changes;
use crate::programming::{Programming, Waiting};
use crate::project::{Change, Kind, ObjectId};
use crate::source::update::{Scope, Update};
use crate::store::{Published, Relist, Writer};

/// The counters of the publisher.
#[derive(Debug, Default)]
pub struct Counts {
    /// How long changes took to be published.
    pub programming: Programming,
    rejected: [AtomicUsize; Kind::KNOWN.len()],
}

impl Counts {
    /// Returns how many objects of that kind are left out because they break the rules.
    pub fn rejected(&self, kind: Kind) -> usize {
        self.rejected[kind as usize].load(Ordering::Relaxed)
    }
}

/// The task that applies updates to the store's writer.
#[derive(Debug)]
pub struct Publisher {
    writer: Writer,
    changes: watch::Sender<Changes>,
    /// One per kind, dropped after all of its objects have been published.
    blockers: Vec<Blocker>,
    /// Scopes that have not been listed in full yet.
    awaited: HashSet<Scope>,
    /// Whether the keys of etcd have not been listed yet.
    awaits_keys: bool,
    relists: HashMap<Scope, Relist>,
    /// The highest resource version seen.
    revision: u64,
    rejected: HashMap<ObjectId, String>,
    /// Changes of this burst that are measured.
    waiting: Vec<Waiting>,
    counts: Arc<Counts>,
}

impl Publisher {
    /// Publishes through `writer` and adds the changes to `changes`. Drops the blocker of a kind
    /// (by the name of its collection) after all of `scopes` of that kind have been listed.
    pub fn new(
        writer: Writer,
        changes: watch::Sender<Changes>,
        blockers: Vec<Blocker>,
        scopes: &[Scope],
    ) -> Self {
        Self {
            writer,
            changes,
            blockers,
            awaited: scopes.iter().cloned().collect(),
            awaits_keys: true,
            relists: HashMap::new(),
            revision: 0,
            rejected: HashMap::new(),
            waiting: Vec::new(),
            counts: Arc::default(),
        }
    }

    /// Returns the counters.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Applies updates until `stopping`, or until every sender is dropped.
    pub async fn run(
        mut self,
        mut updates: mpsc::Receiver<Update>,
        stopping: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut burst = Vec::with_capacity(BURST_MAX);
        loop {
            let taken = tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                taken = updates.recv_many(&mut burst, BURST_MAX) => taken,
            };
            if taken == 0 {
                stopping.cancelled().await;
                return Ok(());
            }
            burst.drain(..).for_each(|update| self.take(update));
            self.publish(); // the changes are in `changes`
        }
    }

    /// Adds one change. Readers see it after the next [`Publisher::publish`].
    pub fn take(&mut self, update: Update) {
        match update {
            Update::Listing(scope) => {
                let relist = self.writer.begin_relist(scope.kind, scope.namespace.as_deref());
                self.relists.insert(scope, relist);
            }
            Update::Change { change, rejected, revision, written } => {
                self.revision = self.revision.max(revision);
                let (Change::Applied(object, _) | Change::Deleted(object)) = &change;
                match rejected {
                    Some(rejected) => {
                        let reason = shared::flags::chain(&rejected.reason);
                        let is_whole = matches!(change, Change::Deleted(_));
                        self.reject(rejected.object, reason, is_whole);
                    }
                    None => self.accept(object),
                }
                let waiting = Waiting::of(&change, written).filter(|_| !self.is_listing(object));
                self.writer.apply(change);
                self.waiting.extend(waiting);
            }
            Update::Unreadable { object, reason } => {
                self.writer.apply(Change::Deleted(object.clone()));
                self.reject(object, reason, true);
            }
            Update::Federations(domains) => self.writer.set_federations(domains),
            Update::ListingKeys => self.writer.begin_keys(),
            Update::Key { path, message, revision } => {
                self.revision = self.revision.max(revision);
                self.writer.put_key(&path, message.map(|message| *message));
            }
            Update::ListedKeys => {
                self.writer.finish_keys();
                self.awaits_keys = false;
            }
            Update::Denied(kind) => self.writer.settle(kind),
            Update::Listed(scope) => {
                if let Some(relist) = self.relists.remove(&scope) {
                    self.writer.finish_relist(relist);
                }
                self.awaited.remove(&scope);
                if self.awaited.iter().all(|other| other.kind != scope.kind) {
                    self.writer.synced(scope.kind);
                }
            }
        }
    }

    /// Publishes everything that was applied. Returns what changed, if a name changed and
    /// everything was listed.
    pub fn publish(&mut self) -> Option<Published> {
        let ranges = Arc::clone(self.writer.draft().ranges());
        self.writer.prepare();
        self.waiting.retain(|waiting| self.writer.touches(&waiting.key));
        let published = self.writer.publish(self.revision);
        if let Some(published) = &published {
            self.changes.send_modify(|changes| changes.push(published));
            let now_ms = unix_ms();
            for change in &self.waiting {
                self.counts.programming.count(change, self.writer.draft(), now_ms);
            }
        }
        let now = self.writer.draft().ranges();
        if !Arc::ptr_eq(&ranges, now) {
            let source = now.source().word();
            match ranges.source() == now.source() {
                false => tracing::info!(source, ranges = %now, "cluster ranges"),
                true => tracing::debug!(source, ranges = %now, "cluster ranges"), // a new Node
            }
        }
        self.waiting.clear();
        let awaited = |kind: Kind| self.awaited.iter().any(|scope| scope.kind == kind);
        let kinds = Kind::ALL.into_iter().filter(|&kind| awaited(kind)).map(Kind::plural);
        let awaited = kinds.chain(self.awaits_keys.then_some(KEYS)).collect::<Vec<_>>();
        if !self.blockers.is_empty() {
            self.blockers.retain(|blocker| awaited.contains(&blocker.name()));
            if self.blockers.is_empty() {
                let counts = self.writer.draft().counts();
                tracing::info!(
                    services = counts.services,
                    endpoints = counts.endpoints,
                    namespaces = counts.namespaces,
                    keys = self.writer.draft().keys().tree.root().count(),
                    "every object has been listed"
                );
            }
        }
        published
    }

    /// Returns whether a list that can contain `object` is in progress; then its change can be old.
    fn is_listing(&self, object: &ObjectId) -> bool {
        self.relists.keys().any(|scope| {
            let of_namespace = scope.namespace.as_deref();
            scope.kind == object.kind && of_namespace.is_none_or(|name| name == object.namespace)
        })
    }

    /// Notes and logs, once for each reason, that `object` or a part of it is left out.
    fn reject(&mut self, object: ObjectId, reason: String, is_whole: bool) {
        if self.rejected.get(&object) == Some(&reason) {
            return;
        }
        if is_whole {
            tracing::warn!(%object, reason, "object left out");
        } else {
            tracing::warn!(%object, reason, "a part of an object left out");
        }
        if self.rejected.len() == REJECTED_MAX && !self.rejected.contains_key(&object) {
            return;
        }
        let kind = object.kind;
        if self.rejected.insert(object, reason).is_none() {
            self.counts.rejected[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn accept(&mut self, object: &ObjectId) {
        if !self.rejected.is_empty() && self.rejected.remove(object).is_some() {
            self.counts.rejected[object.kind as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The name of the blocker that is dropped after all keys of etcd have been published.
pub const KEYS: &str = "etcd";
/// The most updates that can wait for the publisher. If the channel is full, senders wait too.
pub const UPDATES_MAX: usize = 512;
/// The most updates that are published together.
const BURST_MAX: usize = 256;
/// The most objects that are kept by name after they were left out, a bound against a flood of
/// them.
const REJECTED_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programming::{SERVICE_KINDS, ServiceKind};
    use crate::project::{Input, ServiceObject, Written};
    use crate::records::Zone;
    use crate::store::{self, Reader};

    struct World {
        publisher: Publisher,
        reader: Reader,
        ready: shared::ready::Ready,
        scopes: Vec<Scope>,
    }

    fn world() -> World {
        let kinds = [Kind::Service, Kind::EndpointSlice, Kind::Namespace];
        let scopes: Vec<_> = kinds.into_iter().map(Scope::all).collect();
        let (writer, reader) = store::new(Zone::new("cluster.local").unwrap());
        let (ready, blockers) = shared::ready::new(kinds.map(Kind::plural));
        let changes = watch::Sender::new(Changes::new(0));
        let publisher = Publisher::new(writer, changes, blockers, &scopes);
        World { publisher, reader, ready, scopes }
    }

    fn service(name: &str, cluster_ip: &str) -> Update {
        let metadata = format!(r#"{{"name":"{name}","namespace":"shop"}}"#);
        let spec = format!(r#"{{"clusterIP":"{cluster_ip}"}}"#);
        let text = format!(r#"{{"metadata":{metadata},"spec":{spec}}}"#);
        Update::applied(&Input::Service(serde_json::from_str::<ServiceObject>(&text).unwrap()))
    }

    impl World {
        fn take(&mut self, updates: impl IntoIterator<Item = Update>) {
            updates.into_iter().for_each(|update| self.publisher.take(update));
            self.publisher.publish();
        }

        fn has(&self, key: &[u8]) -> bool {
            self.reader.records().entry(key).is_some_and(|entry| entry.service().is_some())
        }
    }

    #[test]
    fn nothing_is_shown_before_everything_was_listed() {
        let mut world = world();
        let scopes = world.scopes.clone();
        world.take([Update::Listing(scopes[0].clone()), service("web", "10.0.0.7")]);
        assert!(!world.has(b"\x03web\x04shop"));
        world.take(scopes[..2].iter().cloned().map(Update::Listed));
        assert!(!world.has(b"\x03web\x04shop") && !world.reader.records().is_complete());
        assert_eq!(world.ready.blockers(), ["namespaces"]);
        world.take([Update::Listed(scopes[2].clone())]);
        assert!(world.has(b"\x03web\x04shop") && world.ready.is_ready());
    }

    #[test]
    fn a_list_that_breaks_off_takes_nothing_away() {
        let mut world = world();
        let scopes = world.scopes.clone();
        let all = || scopes[0].clone();
        world.take([Update::Listing(all()), service("a", "10.0.0.1"), service("b", "10.0.0.2")]);
        world.take(scopes.iter().cloned().map(Update::Listed));
        world.take([Update::Listing(all()), service("b", "10.0.0.2")]);
        assert!(world.has(b"\x01a\x04shop"));
        world.take([Update::Listing(all()), service("a", "10.0.0.1"), Update::Listed(all())]);
        assert!(world.has(b"\x01a\x04shop") && !world.has(b"\x01b\x04shop"));
    }

    #[test]
    fn rejected_objects_are_counted_until_they_are_mended() {
        let mut world = world();
        let scopes = world.scopes.clone();
        world.take(scopes.into_iter().map(Update::Listed));
        let counts = world.publisher.counts();
        world.take([service("web", "10.0.0.300"), service("web", "10.0.0.300")]);
        assert_eq!(counts.rejected(Kind::Service), 1);
        assert_eq!(counts.rejected(Kind::EndpointSlice), 0);
        world.take([service("web", "10.0.0.3")]);
        assert_eq!(counts.rejected(Kind::Service), 0);
        assert!(world.has(b"\x03web\x04shop"));
    }

    /// Counts warnings.
    #[derive(Clone, Default)]
    struct Warnings(Arc<AtomicUsize>);

    impl tracing::Subscriber for Warnings {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_part_that_is_left_out_is_logged_once() {
        let warnings = Warnings::default();
        let mut world = world();
        let scopes = world.scopes.clone();
        let odd = || slice("db", r#"10.1.0.1","10.1.0.300"#);
        tracing::subscriber::with_default(warnings.clone(), || {
            world.take(scopes.into_iter().map(Update::Listed));
            world.take([service("db", "None"), odd(), odd()]);
            world.take([odd()]);
        });
        assert_eq!(warnings.0.load(Ordering::Relaxed), 1);
        let counts = world.publisher.counts();
        assert_eq!(counts.rejected(Kind::EndpointSlice), 1);
        let records = world.reader.records();
        assert_eq!(records.entry(b"\x02db\x04shop").map(|entry| entry.published()), Some(1));
        world.take([slice("db", "10.1.0.1")]);
        assert_eq!(counts.rejected(Kind::EndpointSlice), 0);
    }

    fn at(mut update: Update, since_ms: u64, from_selector: bool) -> Update {
        if let Update::Change { written, .. } = &mut update {
            *written = Some(Written { at_ms: since_ms, from_selector });
        }
        update
    }

    fn slice(service: &str, address: &str) -> Update {
        let label = format!(r#""labels":{{"kubernetes.io/service-name":"{service}"}}"#);
        let metadata = format!(r#"{{"name":"{service}-1","namespace":"shop",{label}}}"#);
        let endpoints = format!(r#"[{{"addresses":["{address}"]}}]"#);
        let text =
            format!(r#"{{"metadata":{metadata},"addressType":"IPv4","endpoints":{endpoints}}}"#);
        Update::applied(&Input::EndpointSlice(serde_json::from_str(&text).unwrap()))
    }

    #[test]
    fn changes_are_measured_by_the_kind_of_their_service() {
        let mut world = world();
        let scopes = world.scopes.clone();
        let first = at(service("old", "10.0.0.1"), 1, false);
        world.take([Update::Listing(scopes[0].clone()), first]);
        world.take(scopes.iter().cloned().map(Update::Listed));
        let counts = world.publisher.counts();
        let counted = || SERVICE_KINDS.map(|(_, kind)| counts.programming.histogram(kind).count());
        assert_eq!(counted(), [0; 4], "what is listed may be old");
        let now = unix_ms();
        world.take([at(service("web", "10.0.0.2"), now - 1_000, false)]);
        assert_eq!(counted(), [1, 0, 0, 0]);
        let sum = counts.programming.histogram(ServiceKind::ClusterIp).sum_seconds();
        assert!((1.0..60.0).contains(&sum), "{sum}");
        world.take([at(service("web", "10.0.0.2"), now, false)]);
        assert_eq!(counted(), [1, 0, 0, 0], "nothing of it changed");
        world.take([at(service("db", "None"), now, false)]);
        assert_eq!(counted(), [1, 0, 0, 0], "no answer changed");
        world.take([at(slice("db", "10.1.0.1"), now, true)]);
        world.take([at(slice("db", "10.1.0.2"), now + 3_600_000, false)]);
        assert_eq!(counted(), [1, 1, 1, 0]);
        world
            .take([at(slice("web", "10.1.0.3"), now, true), at(slice("x", "10.1.0.4"), now, true)]);
        assert_eq!(counted(), [1, 1, 1, 0], "no Service's addresses, and no Service");
        let refused = slice("db", r#"10.1.0.6"],"hostname":"a.b","nodes":[""#);
        world.take([at(refused, now, true), slice("db", "10.1.0.5")]);
        assert_eq!(counted(), [1, 1, 1, 0], "what is rejected or has no time is not measured");
        let again = [Update::Listing(scopes[0].clone()), at(service("web", "10.0.0.9"), 1, false)];
        world.take(again);
        assert_eq!(counted(), [1, 1, 1, 0], "listed again");
        world.take([Update::Listed(scopes[0].clone()), at(alias(), now, false)]);
        assert_eq!(counted(), [1, 1, 1, 1]);
    }

    fn alias() -> Update {
        let text = r#"{"metadata":{"name":"alias","namespace":"shop"},
            "spec":{"type":"ExternalName","externalName":"example.com"}}"#;
        Update::applied(&Input::Service(serde_json::from_str(text).unwrap()))
    }
}
