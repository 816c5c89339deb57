//! All records as one immutable snapshot: which records a name has, and whether a name exists.
//!
//! Core. Knows Services, their slices and the addresses they hold; does not know how they got here
//! nor how a reply is written. A snapshot costs a pointer, a change costs a path: the maps are
//! persistent trees.
//!
//! ```text
//! name ── strip the zone, read labels from the right ──▶ [.., service, namespace, "svc"]
//!                                                       one lookup ──▶ Entry: Service + slices
//! label ──▶ Entry ──▶ endpoints: all of a small Service, lists made at publication of others
//! address ──▶ holder: a Service, or several in the order in which they win ──▶ PTR
//! ```

mod claims;
mod draft;
mod entry;
mod federation;
mod find;
mod keys;
mod lists;
pub(crate) mod looks;
mod named;
mod ports;
mod ranges;
mod round;
mod rrsets;
mod schema;
mod settle;
mod slice;
mod views;
mod zonal;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdMap, Vector};
use shared::prefix::Prefix;
use smallvec::SmallVec;

use crate::name::Name;
use crate::skydns::Keys;

pub use claims::Claim;
pub(crate) use claims::{Claimant, Label};
pub use entry::{Entry, Held, Place};
pub use federation::{Federated, Locality};
pub use find::{Found, Node, PortName};
pub use named::Named;
pub use ports::{Port, Ports, Protocol};
pub use ranges::{Ranges, ReverseZone, Source};
pub use round::{Group, Round};
pub use rrsets::{Origin, Record, Target, Walk};
pub use schema::Schema;
pub use slice::{Endpoint, Slice, State};
pub use views::{External, ExternalZones};
pub use zonal::Among;

pub(crate) use draft::{Draft, Touched};
pub(crate) use federation::Federation;
pub(crate) use keys::TooMany;
pub(crate) use rrsets::{TYPES, scale};
pub(crate) use zonal::ZONE_LABEL;

/// A Service's place in the zone: its label and its namespace's label in wire form, side by side as
/// in a query's name.
pub type Key = Arc<[u8]>;

/// The zone and what is the same for all its records.
#[derive(Clone, Debug)]
pub struct Zone {
    apex: Name,
    schema: Schema,
    /// `svc.` and the apex, in wire form: the end of every Service's name.
    services: Box<[u8]>,
    /// The domain of Multi-Cluster Services (KEP-1645), if they are on: another zone.
    pub clusterset: Option<Name>,
    /// TTL of every record, in seconds; with 0 clients must not cache.
    pub ttl_secs: u32,
    /// How pod names are answered.
    pub pods: PodMode,
    /// The addresses of the zone's name server, `ns.dns.` below the apex.
    pub name_server: Box<[IpAddr]>,
    /// The Service whose cluster IPs are the addresses of the name server instead, if it has any.
    pub name_service: Option<Key>,
    /// The addresses that are the cluster's, if a flag sets them. If empty, they follow from the
    /// objects of the cluster: [`Records::ranges`].
    pub cidrs: Box<[Prefix]>,
    /// Whether replies set RA.
    pub recursion_available: bool,
    /// Whether a headless Service without ready endpoints answers with endpoints that are
    /// terminating but still serving.
    pub terminating_fallback: bool,
    /// Whether a Service with cluster IPs but no ready endpoint does not exist, so that clients
    /// search on.
    pub ignore_empty_service: bool,
    /// Whether the labels `*` and `any` match any label, if no name has them literally.
    pub wildcards: bool,
    /// Whether headless Services have names of topology zones below them.
    pub zonal: bool,
    /// Whether no EndpointSlice is ever known.
    pub no_endpoints: bool,
    /// Whether namespaces exist only if their objects are there, because a selector picks them.
    pub selects_namespaces: bool,
    /// The name server's name, relative to the apex, in wire form.
    ns: Box<[u8]>,
    /// The mailbox of the SOA record, relative to the apex, in wire form.
    hostmaster: Box<[u8]>,
    /// Further zones with the same objects.
    views: Arc<[Arc<Zone>]>,
}

impl Zone {
    /// Returns the zone `domain` with a TTL of 30 s, insecure pod names, no name server addresses,
    /// RA 0 and no option.
    ///
    /// Fails if `domain` is not a valid name, or so long that not every endpoint's name would fit
    /// below it.
    pub fn new(domain: &str) -> Result<Self, ZoneError> {
        let apex = Name::parse(domain).map_err(|source| ZoneError::Name { source })?;
        if apex.wire().len() > APEX_LEN_MAX {
            return Err(ZoneError::Long { max: APEX_LEN_MAX - 2 });
        }
        let services = [b"\x03svc", apex.wire()].concat().into();
        Ok(Self {
            apex,
            schema: Schema::Cluster,
            services,
            clusterset: None,
            ttl_secs: 30,
            pods: PodMode::Insecure,
            name_server: Box::default(),
            name_service: None,
            cidrs: Box::default(),
            recursion_available: false,
            terminating_fallback: false,
            ignore_empty_service: false,
            wildcards: false,
            zonal: false,
            no_endpoints: false,
            selects_namespaces: false,
            ns: (*b"\x02ns\x03dns").into(),
            hostmaster: (*b"\x0ahostmaster").into(),
            views: Arc::default(),
        })
    }

    /// The apex.
    pub fn apex(&self) -> &Name {
        &self.apex
    }

    /// Returns the zone of Multi-Cluster Services next to this one. It has no pods, no topology
    /// zones, and no rule that Services without endpoints do not exist: only other clusters may
    /// have the endpoints of a ClusterSetIP.
    fn of_clusterset(&self) -> Option<Self> {
        let apex = self.clusterset.clone()?;
        Some(Self {
            services: [b"\x03svc", apex.wire()].concat().into(),
            apex,
            schema: Schema::Clusterset,
            clusterset: None,
            views: Arc::default(),
            pods: PodMode::Disabled,
            ignore_empty_service: false,
            zonal: false,
            ..self.clone()
        })
    }

    /// Returns the specification that the zone's names follow.
    pub fn schema(&self) -> Schema {
        self.schema
    }

    /// How many bytes the labels of a port and its protocol may take below the Service at `key`, so
    /// that their name fits (RFC 1035 section 2.3.4).
    pub(crate) fn room_for_port(&self, key: &[u8]) -> usize {
        shared::wire::NAME_MAX.saturating_sub(key.len() + self.services.len())
    }

    /// The name server's name, relative to the apex, in wire form.
    pub(crate) fn ns(&self) -> &[u8] {
        &self.ns
    }

    /// What follows the labels of a [`Key`] in a name, in wire form: `svc.` and the apex, or the
    /// apex alone in a zone of external addresses.
    pub fn services(&self) -> &[u8] {
        &self.services
    }
}

/// Why a text cannot be the cluster domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// It is not a valid name.
    #[error("the cluster domain is no name")]
    Name {
        /// Why.
        source: crate::name::NameError,
    },
    /// Names of endpoints would be longer than 255 bytes.
    #[error("the cluster domain is longer than {max} characters: names below it would not fit")]
    Long {
        /// The most characters that it can have.
        max: usize,
    },
}

/// How `A-B-C-D.NAMESPACE.pod.` names are answered: kube-dns's and CoreDNS's, which the DNS
/// specification leaves open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodMode {
    /// They do not exist.
    Disabled,
    /// Any address in any namespace that exists has a name.
    #[default]
    Insecure,
    /// Only addresses of Pods in that namespace have names.
    Verified,
}

impl PodMode {
    /// Returns whether names of pods exist at all.
    pub fn is_enabled(self) -> bool {
        self != Self::Disabled
    }
}

/// The part of a Service that the records keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its place in the zone.
    pub key: Key,
    /// When it was created; grows with time. Decides between namespaces that claim one address.
    pub created: u64,
    /// How its name is answered.
    pub shape: Shape,
    /// Its ports; empty for an ExternalName.
    pub ports: Ports,
    /// Whether endpoints are published before they are ready.
    pub publish_not_ready: bool,
    /// How it is reached from outside. `None` if it is not, or if no zone has external addresses.
    pub external: Option<Box<External>>,
}

/// The three shapes of a Service (DNS specification sections 2.3 to 2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// It has its own addresses, at most one of each family.
    ClusterIp(SmallVec<[IpAddr; 2]>),
    /// It has the addresses of its endpoints.
    Headless,
    /// It is an alias.
    ExternalName(Name),
}

/// The part of a Namespace that the records keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its label in wire form.
    pub label: Arc<[u8]>,
}

/// The part of a Pod that the records keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace's label in wire form.
    pub namespace: Arc<[u8]>,
    /// Its addresses, at least one.
    pub addresses: Box<[IpAddr]>,
}

/// A persistent hash map, seeded.
type Map<K, V> = GenericHashMap<K, V, RandomState, DefaultSharedPtr>;

/// All records at one moment.
///
/// They depend on the current objects alone, not on the order of events, on gaps or on relists.
#[derive(Clone)]
pub struct Records {
    zone: Arc<Zone>,
    complete: bool,
    stale: bool,
    generation: u64,
    serial: u32,
    services: Map<Key, Arc<Entry>>,
    namespaces: Map<Arc<[u8]>, Known>,
    /// The holders of addresses, by number.
    holders: Vector<Holder>,
    /// The number of the holder of each address that has PTR records.
    v4: OrdMap<u32, u32>,
    v6: OrdMap<[u8; 16], u32>,
    /// How many Pods of a namespace have an address; IPv4 is mapped.
    pods: OrdMap<([u8; 16], u32), u32>,
    hasher: RandomState,
    counts: Counts,
    federations: Arc<[Federation]>,
    ranges: Arc<Ranges>,
    /// The zone of Multi-Cluster Services at the same moment, if it is on.
    clusterset: Option<Arc<Records>>,
    /// The messages of etcd.
    keys: Keys,
    /// The same moment in further zones.
    views: Arc<[Records]>,
}

impl Records {
    /// Returns a snapshot without records that is not complete: every answer is SERVFAIL.
    pub fn empty(zone: Zone) -> Self {
        let clusterset = zone.of_clusterset().map(|zone| Arc::new(Self::empty(zone)));
        Self {
            clusterset,
            zone: Arc::new(zone),
            complete: false,
            stale: false,
            generation: 0,
            serial: 0,
            services: Map::with_hasher(RandomState::default()),
            namespaces: Map::with_hasher(RandomState::default()),
            holders: Vector::new(),
            v4: OrdMap::new(),
            v6: OrdMap::new(),
            pods: OrdMap::new(),
            hasher: RandomState::default(),
            counts: Counts::default(),
            federations: Arc::default(),
            ranges: Arc::default(),
            keys: Keys::default(),
            views: Arc::default(),
        }
        .viewed()
    }

    /// The zone.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Returns whether every kind of object has been listed. Only then does a missing name not
    /// exist.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Returns whether these are the records of an earlier process that this one has not confirmed
    /// yet (RFC 8767).
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Returns whether this process has listed every kind of object, for all zones.
    pub fn is_known(&self) -> bool {
        let clusterset = self.clusterset.as_ref().is_none_or(|records| records.is_known());
        let keyed = self.views.iter().filter(|view| view.zone.is_keyed());
        let keys = keyed.into_iter().all(|view| view.complete && !view.stale);
        self.complete && !self.stale && clusterset && keys
    }

    /// Returns the TTL of every record and of negative answers, in seconds.
    pub fn ttl_secs(&self) -> u32 {
        if self.stale { self.zone.ttl_secs.min(STALE_TTL_SECS) } else { self.zone.ttl_secs }
    }

    /// Returns the federations. Most clusters have no federation.
    pub(crate) fn federations(&self) -> &[Federation] {
        &self.federations
    }

    /// Returns the same records with other federations.
    pub(crate) fn with_federations(mut self, federations: Arc<[Federation]>) -> Self {
        self.federations = federations;
        self.viewed()
    }

    /// Returns the ranges that are the cluster's. A reverse name in them exists only if it is known
    /// here.
    pub fn ranges(&self) -> &Arc<Ranges> {
        &self.ranges
    }

    /// Returns the records of the zone of Multi-Cluster Services, if it is on.
    pub fn clusterset(&self) -> Option<&Arc<Self>> {
        self.clusterset.as_ref()
    }

    /// Returns the same records with other records of Multi-Cluster Services.
    pub(crate) fn with_clusterset(mut self, clusterset: Option<Arc<Self>>) -> Self {
        self.clusterset = clusterset;
        self.viewed()
    }

    /// Returns how many times records have been published, including this snapshot.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The serial of the SOA record.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Returns how many objects the records are made of.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("zone", self.zone.apex())
            .field("complete", &self.complete)
            .field("stale", &self.stale)
            .field("generation", &self.generation)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// How many objects the records are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services.
    pub services: usize,
    /// Endpoints in all EndpointSlices, in any state, one per address.
    pub endpoints: usize,
    /// EndpointSlices that belong to a Service.
    pub endpoint_slices: usize,
    /// Namespaces.
    pub namespaces: usize,
    /// Pods with addresses; 0 if pod names are not verified.
    pub pods: usize,
}

/// The holder of an address that has a name.
#[derive(Clone, Debug)]
pub(crate) enum Holder {
    /// The number is free.
    Free,
    /// The Service with this key.
    Service(Key),
    /// Several Services. The ones whose names the address points to are first.
    Several(Arc<[Claimant]>),
}

/// The state of a namespace.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Represents the namespace in other maps.
    number: u32,
    /// Whether its Namespace object exists.
    declared: bool,
    /// Services in it.
    services: u32,
    /// Addresses of Pods in it.
    pods: u32,
    /// A selector picks namespaces: what lives in it does not make it exist.
    is_selected: bool,
}

impl Known {
    /// Returns whether the namespace exists: its object exists, or it contains Services or Pods. If
    /// kubedns is not allowed to list Namespaces, it can still find those that it needs.
    fn exists(self) -> bool {
        self.declared || !self.is_selected && self.is_used()
    }

    /// Whether something is known of it.
    fn is_used(self) -> bool {
        self.declared || self.services > 0 || self.pods > 0
    }
}

/// The longest time that clients can keep stale records (RFC 8767 section 5).
const STALE_TTL_SECS: u32 = 30;
/// A hostname, a Service and a namespace of 63 bytes each and `svc` must fit before the apex.
const APEX_LEN_MAX: usize = shared::wire::NAME_MAX - (LABELS_LEN_MAX + 4);
/// The most bytes that the labels left of `svc` can have, in wire form: three of the longest. The
/// four labels of an imported endpoint are checked against it when they are read.
pub(crate) const LABELS_LEN_MAX: usize = 3 * 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_below_a_zone_fits() {
        let check = |domain: &str, fits: bool| {
            assert_eq!(Zone::new(domain).is_ok(), fits, "{domain}");
        };
        check("cluster.local", true);
        check(&"a".repeat(57), true);
        check(&"a".repeat(58), false);
        check(&format!("{}.example", "a".repeat(49)), true);
        check("", false);
        check("clu ster.local", false);
    }
}
