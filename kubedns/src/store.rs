//! The seam between the parts that read objects and the parts that answer: one [`Writer`], many
//! [`Reader`]s.
//!
//! Knows objects by identity, relists and publication; holds no rule of records. Readers never wait
//! for the writer. A publication is seen whole, and lists the owner names that changed.
//!
//! ```text
//! Change ──▶ Writer::apply ──▶ draft ── publish ──▶ snapshot ◀── Reader::records ── answer
//!            relist: begin, apply.., finish          └──▶ Published: changed names ──▶ /changes
//! ```

mod changed;
mod keys;
mod localities;
mod networks;
mod tracked;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use foldhash::fast::RandomState;

use crate::name::push_label;
use crate::project::{Change, Kind, NodeFacts, Object, ObjectId, Slices};
use crate::records::{Entry, Key, Pod, PodMode, Records, Touched, Zone};

use changed::Aliases;
pub use changed::{Changed, Names};
use keys::KeyDraft;
use localities::Localities;
use networks::Networks;
use tracked::Tracked;

/// Returns an empty, incomplete store for `zone`: every answer is SERVFAIL until every kind that it
/// needs is synced. The zone of a clusterset needs one more kind, and begins to answer separately.
pub fn new(zone: Zone) -> (Writer, Reader) {
    let mut awaited = HashSet::from([Kind::Service, Kind::EndpointSlice, Kind::Namespace]);
    if zone.is_keyed() {
        awaited.clear(); // there is no cluster
    }
    if zone.no_endpoints {
        awaited.remove(&Kind::EndpointSlice);
    }
    if zone.pods == PodMode::Verified {
        awaited.insert(Kind::Pod);
    }
    if zone.clusterset.is_some() {
        awaited.insert(Kind::ServiceImport);
    }
    let networks = Networks::new(&zone.cidrs);
    let records = Records::empty(zone);
    let published = Arc::new(ArcSwap::from_pointee(records.clone()));
    let mut writer = Writer {
        published: published.clone(),
        clusterset: records.clusterset().map(|records| Tracked::new((**records).clone())),
        cluster: Tracked::new(records),
        awaited,
        relists: 0,
        namespaces: HashMap::default(),
        pods: HashMap::default(),
        aliases: Aliases::default(),
        localities: Localities::default(),
        networks,
        keys: KeyDraft::default(),
    };
    writer.set_ranges();
    (writer, Reader { published })
}

/// Reads the records; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    published: Arc<ArcSwap<Records>>,
}

impl Reader {
    /// Returns the last published records without waiting. Hold them for one query or one batch.
    pub fn records(&self) -> Guard<Arc<Records>> {
        self.published.load()
    }

    /// Returns the last published records, to be kept for longer.
    pub fn snapshot(&self) -> Arc<Records> {
        self.published.load_full()
    }
}

/// Applies changes of objects and publishes the records. There must be only one writer.
#[derive(Debug)]
pub struct Writer {
    published: Arc<ArcSwap<Records>>,
    /// The cluster domain.
    cluster: Tracked,
    /// The domain of Multi-Cluster Services, if they are on.
    clusterset: Option<Tracked>,
    /// Kinds whose first full list has not been finished.
    awaited: HashSet<Kind>,
    /// How many relists have begun.
    relists: u32,
    /// For each object the number of the relist that saw it last, and what is needed to remove it.
    namespaces: HashMap<Arc<[u8]>, u32, RandomState>,
    pods: HashMap<Box<str>, (Pod, u32), RandomState>,
    aliases: Aliases,
    localities: Localities,
    networks: Networks,
    keys: KeyDraft,
}

/// A full list in progress. If it is dropped unfinished, no object is removed.
#[derive(Debug)]
#[must_use = "objects that are gone vanish only when the relist is finished"]
pub struct Relist {
    kind: Kind,
    /// As a label in wire form; `None` for all namespaces.
    namespace: Option<Vec<u8>>,
    /// As the API spells it.
    namespace_text: Option<String>,
    number: u32,
}

/// What a publication changed.
#[derive(Clone, Debug)]
pub struct Published {
    /// Counts publications, from 1.
    pub generation: u64,
    /// The serial of the SOA record from now on.
    pub serial: u32,
    /// Which names changed.
    pub changed: Changed,
}

impl Writer {
    /// Applies one change. Readers do not see it before the next [`Writer::publish`]. If the object
    /// is unchanged, this costs only a comparison.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Applied(id, object) => self.put(&id, object),
            Change::Deleted(id) => self.delete(&id),
        }
    }

    /// Begins a full list of `kind`, in one namespace or in all. Then [`Writer::apply`] each of its
    /// objects and call [`Writer::finish_relist`]. Watch events can be applied in between, and
    /// several lists can be open at once.
    pub fn begin_relist(&mut self, kind: Kind, namespace: Option<&str>) -> Relist {
        self.relists += 1;
        let wire = namespace.map(|text| {
            let mut wire = Vec::new();
            match push_label(&mut wire, text, |_| false) {
                Ok(()) => wire,
                Err(_) => Vec::new(), // matches no namespace: nothing can be in one without a name
            }
        });
        let namespace_text = namespace.map(|text| format!("{text}/"));
        Relist { kind, namespace: wire, namespace_text, number: self.relists }
    }

    /// Completes the list: objects in its scope that were not in it are removed.
    pub fn finish_relist(&mut self, relist: Relist) {
        let Relist { kind, namespace, namespace_text, number } = relist;
        let in_namespace = |label: &[u8]| namespace.as_deref().is_none_or(|name| name == label);
        let in_scope = |name: &str| {
            namespace_text.as_deref().is_none_or(|namespace| name.starts_with(namespace))
        };
        match kind {
            Kind::Service => self.cluster.remove_older_services(number, in_namespace),
            Kind::ServiceImport => {
                if let Some(clusterset) = &mut self.clusterset {
                    clusterset.remove_older_services(number, in_namespace);
                }
            }
            Kind::EndpointSlice => {
                for tracked in [Some(&mut self.cluster), self.clusterset.as_mut()] {
                    tracked.into_iter().for_each(|t| t.remove_older_slices(number, in_scope));
                }
            }
            Kind::Namespace => {
                let gone = self
                    .namespaces
                    .iter()
                    .filter(|(label, seen)| **seen < number && in_namespace(label));
                for label in gone.map(|(label, _)| label.clone()).collect::<Vec<_>>() {
                    self.namespaces.remove(&label);
                    self.cluster.draft.set_namespace(&label, false);
                }
            }
            Kind::Pod => {
                let gone =
                    self.pods.iter().filter(|(name, (_, seen))| *seen < number && in_scope(name));
                for name in gone.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                    self.delete_pod(&name);
                }
            }
            Kind::Node => {
                self.localities.remove_older(number);
                self.federate();
                self.networks.remove_older(kind, number);
            }
            Kind::ServiceCidr => self.networks.remove_older(kind, number),
        }
    }

    /// Publishes the objects that were applied so far as the state of an earlier process whose
    /// serial was `serial`. They are marked as stale and stay until every kind is synced. Then the
    /// current state replaces them in one publication.
    pub fn restored(&mut self, serial: u32) {
        self.set_ranges();
        self.cluster.draft.set_stale(serial);
        self.cluster.draft.set_keys(self.keys.restored());
        let clusterset = self.clusterset.as_mut().map(|tracked| {
            tracked.draft.set_stale(serial);
            Arc::new(tracked.draft.records().clone())
        });
        let records = self.cluster.draft.records().clone().with_clusterset(clusterset);
        let records = Arc::new(records);
        self.aliases.follow(&records, records.entries().map(Entry::key));
        self.published.store(records);
    }

    /// Notes that every list of `kind` has been finished once. If no awaited kind is left, the next
    /// [`Writer::publish`] begins to answer.
    pub fn synced(&mut self, kind: Kind) {
        if kind == Kind::Node && !self.localities.listed {
            self.localities.listed = true;
            self.federate();
        }
        self.networks.settle(kind);
        self.awaited.remove(&kind);
        if self.is_synced() {
            self.cluster.draft.set_complete();
        }
        if let Some(clusterset) = self.clusterset.as_mut().filter(|_| self.awaited.is_empty()) {
            clusterset.draft.set_complete();
        }
    }

    /// Stops waiting for objects of `kind`, because the API server does not allow kubedns to list
    /// them.
    pub fn settle(&mut self, kind: Kind) {
        self.networks.settle(kind);
    }

    /// Updates the ranges of both zones.
    fn set_ranges(&mut self) {
        if let Some(ranges) = self.networks.take_changed().map(Arc::new) {
            for tracked in [Some(&mut self.cluster), self.clusterset.as_mut()] {
                tracked.into_iter().for_each(|tracked| tracked.draft.set_ranges(&ranges));
            }
        }
    }

    /// Returns whether every kind that the cluster domain needs is synced, or all keys of etcd if
    /// there is no cluster.
    pub fn is_synced(&self) -> bool {
        let is_alone = self.cluster.draft.records().zone().is_keyed();
        self.awaited.iter().all(|&kind| kind == Kind::ServiceImport)
            && (!is_alone || self.keys.keys.is_complete && !self.keys.keys.is_stale)
    }

    /// Makes everything applied so far visible at once. Returns what changed, if a name changed and
    /// every kind is synced.
    ///
    /// `revision` is the highest resource version seen, or 0. Its low 32 bits become the SOA
    /// serial, so that the serials of replicas agree and do not go back after a restart. The zone
    /// of a clusterset stays as it was published until the kinds that it needs are synced as well.
    pub fn publish(&mut self, revision: u64) -> Option<Published> {
        self.prepare();
        let before = self.published.load_full();
        let first = !before.is_complete();
        let (is_synced, is_all_synced) = (self.is_synced(), self.awaited.is_empty());
        let clusterset = self.clusterset.as_mut().filter(|_| is_all_synced);
        let shown = before.clusterset().filter(|_| clusterset.is_some());
        let has_keys = self.keys.is_news();
        if has_keys {
            self.cluster.draft.set_keys(self.keys.keys.clone());
        }
        let opens =
            shown.is_some_and(|zone| !zone.is_complete()) || has_keys && !before.keys().is_complete;
        let was_stale = before.is_stale() || shown.is_some_and(|zone| zone.is_stale());
        let is_touched = |tracked: &Tracked| !tracked.draft.touched().is_empty();
        let is_news = first || opens || was_stale || has_keys || is_touched(&self.cluster);
        let is_news = is_news || clusterset.as_deref().is_some_and(is_touched);
        if !is_synced {
            return has_keys.then(|| self.publish_keys(&before, revision));
        }
        if !is_news {
            self.let_go(&before);
            return None;
        }
        let (records, touched) = advance(&mut self.cluster, revision);
        let keys = self.keys.take_touched();
        let imported = clusterset.map(|tracked| advance(tracked, revision));
        let (clusterset, imported) = match imported {
            Some((records, touched)) => (Some(Arc::new(records)), touched),
            None => (before.clusterset().cloned(), Touched::default()),
        };
        let records = Arc::new(records.with_clusterset(clusterset));
        self.published.store(records.clone());
        let changed = if first || opens {
            self.aliases.follow(&records, records.entries().map(Entry::key));
            Changed::Everything
        } else {
            changed::names([&before, &records], (&touched, &imported, &keys), &mut self.aliases)
        };
        let (generation, serial) = (records.generation(), records.serial());
        Some(Published { generation, serial, changed })
    }

    /// Updates the records of readers without a publication if only objects changed that no answer
    /// depends on. Otherwise readers would keep removed objects in memory until the next
    /// publication.
    fn let_go(&self, before: &Records) {
        let own = self.cluster.draft.records();
        let complete = self.clusterset.as_ref().filter(|_| self.awaited.is_empty());
        let imported = complete.map(|tracked| tracked.draft.records());
        let shown = before.clusterset().filter(|_| imported.is_some());
        if own.counts() != before.counts()
            || imported.map(Records::counts) != shown.map(|zone| zone.counts())
        {
            let imported = imported.map(|records| Arc::new(records.clone()));
            let clusterset = imported.or_else(|| before.clusterset().cloned());
            self.published.store(Arc::new(own.clone().with_clusterset(clusterset)));
        }
    }

    /// Derives the records from what was applied so far. Readers do not see them before the next
    /// [`Writer::publish`].
    pub fn prepare(&mut self) {
        self.set_ranges();
        let zones = [Some(&mut self.cluster), self.clusterset.as_mut()];
        zones.into_iter().flatten().for_each(|tracked| tracked.draft.settle());
    }

    /// Returns whether the next publication changes names of the Service at `key`. The changes must
    /// be prepared.
    pub fn touches(&self, key: &Key) -> bool {
        self.cluster.draft.touched().services.contains(key)
    }

    /// Returns the records that will be published next.
    pub fn draft(&self) -> &Records {
        self.cluster.draft.records()
    }

    /// Applies one object of a snapshot, which contains an EndpointSlice of two zones once for each
    /// zone.
    pub fn restore(&mut self, id: &ObjectId, object: Object) {
        match object {
            Object::EndpointSlice(slices) => self.put_slices(slices),
            Object::ServiceCidr(ranges) => self.networks.restore(&ranges),
            object => self.put(id, object),
        }
    }

    fn put(&mut self, id: &ObjectId, object: Object) {
        let seen = self.relists;
        match object {
            Object::Service(service) => self.cluster.put_service(service, seen),
            Object::ServiceImport(service) => {
                if let Some(clusterset) = &mut self.clusterset {
                    clusterset.put_service(service, seen);
                }
            }
            Object::EndpointSlice(slices) => {
                let name = || format!("{}/{}", id.namespace, id.name);
                if slices.own.is_none() {
                    self.cluster.delete_slice(&name());
                }
                if let (None, Some(clusterset)) = (&slices.imported, &mut self.clusterset) {
                    clusterset.delete_slice(&name());
                }
                self.put_slices(slices);
            }
            Object::Namespace(namespace) => {
                self.cluster.draft.set_namespace(&namespace.label, true);
                self.namespaces.insert(namespace.label, seen);
            }
            Object::Node(NodeFacts { locality, pod_cidrs }) => {
                let is_news = match locality {
                    Some(locality) => self.localities.insert(&id.name, locality, seen),
                    None => self.localities.remove(&id.name),
                };
                if is_news {
                    self.federate();
                }
                self.networks.insert(id.kind, &id.name, pod_cidrs, seen);
            }
            Object::ServiceCidr(cidrs) => {
                self.networks.insert(id.kind, &id.name, cidrs, seen);
            }
            Object::Pod(pod) => {
                let name = format!("{}/{}", id.namespace, id.name).into_boxed_str();
                match self.pods.get_mut(&name) {
                    Some((old, last)) if *old == pod => *last = seen,
                    _ => {
                        // First, so that its namespace does not cease to exist in between.
                        self.cluster.draft.add_pod(&pod);
                        self.delete_pod(&name);
                        self.pods.insert(name, (pod, seen));
                    }
                }
            }
        }
    }

    fn delete(&mut self, id: &ObjectId) {
        match id.kind {
            Kind::Service | Kind::ServiceImport => {
                let mut key = Vec::new();
                let labels = [&id.name, &id.namespace];
                let read =
                    labels.into_iter().try_for_each(|text| push_label(&mut key, text, |_| false));
                let tracked = match id.kind {
                    Kind::Service => Some(&mut self.cluster),
                    _ => self.clusterset.as_mut(),
                };
                if let (Ok(()), Some(tracked)) = (read, tracked) {
                    tracked.delete_service(&key.into());
                }
            }
            Kind::EndpointSlice => {
                let name = format!("{}/{}", id.namespace, id.name);
                for tracked in [Some(&mut self.cluster), self.clusterset.as_mut()] {
                    tracked.into_iter().for_each(|tracked| tracked.delete_slice(&name));
                }
            }
            Kind::Namespace => {
                let mut label = Vec::new();
                if push_label(&mut label, &id.name, |_| false).is_ok()
                    && let Some((label, _)) = self.namespaces.remove_entry(&label[..])
                {
                    self.cluster.draft.set_namespace(&label, false);
                }
            }
            Kind::Pod => self.delete_pod(&format!("{}/{}", id.namespace, id.name)),
            Kind::Node => {
                if self.localities.remove(&id.name) {
                    self.federate();
                }
                self.networks.remove(id.kind, &id.name);
            }
            Kind::ServiceCidr => self.networks.remove(id.kind, &id.name),
        }
    }

    /// Replaces the federations: name to domain. Both must be valid.
    pub fn set_federations(&mut self, domains: BTreeMap<String, String>) {
        self.localities.domains = domains;
        self.federate();
    }

    /// Updates the federations, also in published records of an earlier process.
    fn federate(&mut self) {
        self.cluster.draft.set_federations(self.localities.federations());
        let published = self.published.load();
        if published.is_stale() && !self.is_synced() {
            let federations = self.cluster.draft.records().federations().into();
            let records = (**published).clone().with_federations(federations);
            self.published.store(Arc::new(records));
        }
    }

    fn put_slices(&mut self, slices: Slices) {
        if let Some(slice) = slices.own {
            self.cluster.put_slice(slice, self.relists);
        }
        if let (Some(slice), Some(clusterset)) = (slices.imported, &mut self.clusterset) {
            clusterset.put_slice(*slice, self.relists);
        }
    }

    fn delete_pod(&mut self, name: &str) {
        if let Some((pod, _)) = self.pods.remove(name) {
            self.cluster.draft.remove_pod(&pod);
        }
    }
}

/// Returns the next state of a zone whose kinds are all synced, and what changed with it.
fn advance(tracked: &mut Tracked, revision: u64) -> (Records, Touched) {
    tracked.draft.set_fresh();
    tracked.draft.advance(revision as u32);
    (tracked.draft.records().clone(), tracked.draft.take_touched())
}
