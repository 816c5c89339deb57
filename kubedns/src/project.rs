//! Turns objects into the values that the records are made of: one file per kind, only the fields
//! that can change an answer.
//!
//! Core. Knows the shape of the Kubernetes API; does not know how objects are read nor the queries
//! about them.
//!
//! ```text
//! JSON or YAML ── serde (edge) ──▶ Input ── change ──▶ Change ── Writer::apply (store)
//!                                              └────▶ Rejected: logged once, left out
//! ```

mod address;
mod endpoint_slice;
mod namespace;
mod node;
mod pod;
mod ports;
mod reason;
mod service;
mod service_cidr;
mod service_import;
mod written;

use std::fmt;

use serde::{Deserialize, Deserializer};
use shared::prefix::Prefix;

use crate::name::push_label;
use crate::records::{Key, Namespace, Pod, Service};

pub(crate) use endpoint_slice::topology_zone;
pub use endpoint_slice::{Conditions, EndpointObject, EndpointSliceObject, Slices, TargetRef};
pub use namespace::NamespaceObject;
pub use node::{NodeFacts, NodeObject, NodeSpec};
pub use pod::{PodIp, PodObject, PodStatus};
use reason::LeftOut;
pub use reason::{Reason, Rejected};
pub use service::{Ingress, LoadBalancer, ServiceObject, ServiceSpec, ServiceStatus};
pub use service_cidr::{ServiceCidrObject, ServiceCidrSpec};
pub use service_import::ServiceImportObject;
pub use written::{ManagedFields, Written};

/// The kinds of objects that records are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Namespace.
    Namespace,
    /// `v1` Pod; needed only to verify pod names.
    Pod,
    /// `multicluster.x-k8s.io` ServiceImport, `v1beta1` or `v1alpha1`; needed only for the domain
    /// of a clusterset.
    ServiceImport,
    /// `v1` Node; needed only for federations and for the addresses of Pods.
    Node,
    /// `networking.k8s.io` ServiceCIDR, `v1` or `v1beta1`; needed only for the addresses of
    /// Services.
    ServiceCidr,
}

impl Kind {
    /// Returns whether its objects are in namespaces.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node | Self::ServiceCidr)
    }

    /// The kinds that decide which names exist. Until they have been listed, every answer is
    /// SERVFAIL.
    pub const ALL: [Self; 5] =
        [Self::Service, Self::EndpointSlice, Self::Namespace, Self::Pod, Self::ServiceImport];
    /// Every kind.
    pub const KNOWN: [Self; 7] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Namespace,
        Self::Pod,
        Self::ServiceImport,
        Self::Node,
        Self::ServiceCidr,
    ];

    /// The kinds that contain the cluster's ranges. kubedns can run without those that it is not
    /// allowed to read.
    pub const RANGES: [Self; 2] = [Self::ServiceCidr, Self::Node];

    /// Returns the value of `kind:`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::ServiceImport => "ServiceImport",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }

    /// Returns the possible values of `apiVersion:`, the preferred one first. All fields that are
    /// read are the same in each.
    pub const fn api_versions(self) -> &'static [&'static str] {
        match self {
            Self::Service | Self::Namespace | Self::Pod | Self::Node => &["v1"],
            Self::EndpointSlice => &["discovery.k8s.io/v1"],
            Self::ServiceImport => {
                &["multicluster.x-k8s.io/v1beta1", "multicluster.x-k8s.io/v1alpha1"]
            }
            Self::ServiceCidr => &["networking.k8s.io/v1", "networking.k8s.io/v1beta1"],
        }
    }

    /// Returns the kind in the path of its collection.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::Namespace => "namespaces",
            Self::Pod => "pods",
            Self::ServiceImport => "serviceimports",
            Self::Node => "nodes",
            Self::ServiceCidr => "servicecidrs",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An object of the API, reduced to the fields that are used.
#[derive(Clone, Debug)]
pub enum Input {
    /// A Service.
    Service(ServiceObject),
    /// An EndpointSlice.
    EndpointSlice(EndpointSliceObject),
    /// A Namespace.
    Namespace(NamespaceObject),
    /// A Pod.
    Pod(PodObject),
    /// A ServiceImport.
    ServiceImport(ServiceImportObject),
    /// A Node.
    Node(NodeObject),
    /// A ServiceCIDR.
    ServiceCidr(ServiceCidrObject),
}

impl Input {
    /// Names the endpoints of an EndpointSlice by their Pods, if they have no hostname.
    pub fn name_by_pods(&mut self) {
        if let Self::EndpointSlice(slice) = self {
            slice.name_by_pods();
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Namespace(_) => Kind::Namespace,
            Self::Pod(_) => Kind::Pod,
            Self::ServiceImport(_) => Kind::ServiceImport,
            Self::Node(_) => Kind::Node,
            Self::ServiceCidr(_) => Kind::ServiceCidr,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Namespace(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::ServiceImport(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
            Self::ServiceCidr(object) => &object.metadata,
        }
    }

    /// Returns its identity.
    pub fn id(&self) -> ObjectId {
        let metadata = self.metadata();
        let namespace = if self.kind().is_namespaced() { metadata.namespace() } else { "" };
        ObjectId::new(self.kind(), namespace, &metadata.name)
    }
}

/// The identity of an object: kind, namespace (empty if the kind has no namespace) and name, as in
/// the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectId {
    /// Returns the identity of the object of that kind and name.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{separator}{}", self.kind, self.namespace, self.name)
    }
}

/// The part of one object that the records keep.
#[derive(Clone, Debug)]
pub enum Object {
    /// Of a Service.
    Service(Service),
    /// Of an EndpointSlice.
    EndpointSlice(Slices),
    /// Of a Namespace.
    Namespace(Namespace),
    /// Of a Pod.
    Pod(Pod),
    /// Of a ServiceImport: a Service of another zone.
    ServiceImport(Service),
    /// Of a Node.
    Node(NodeFacts),
    /// Of a ServiceCIDR: its ranges.
    ServiceCidr(Box<[Prefix]>),
}

/// A change of one object, as the store applies it.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object was added or changed; the value is the part that the records keep.
    Applied(ObjectId, Object),
    /// The object was removed, or has no records.
    Deleted(ObjectId),
}

/// Returns what `input` changes in the records.
///
/// An object that breaks the rules counts as removed, so that the records depend only on the
/// current objects. The second value is the reason, once per change. Valid objects without records
/// (an EndpointSlice of no Service, a Pod that has ended) also count as removed, but without a
/// reason.
pub fn change(input: &Input) -> (Change, Option<Rejected>) {
    let mut left_out = LeftOut::default();
    let projected = match input {
        Input::Service(object) => {
            object.project(&mut left_out).map(|made| Some(Object::Service(made)))
        }
        Input::EndpointSlice(object) => {
            Ok(object.project(&mut left_out).map(Object::EndpointSlice))
        }
        Input::ServiceImport(object) => {
            object.project(&mut left_out).map(|made| made.map(Object::ServiceImport))
        }
        Input::Namespace(object) => object.project().map(|made| Some(Object::Namespace(made))),
        Input::Pod(object) => object.project(&mut left_out).map(|made| made.map(Object::Pod)),
        Input::Node(object) => Ok(Some(Object::Node(object.project(&mut left_out)))),
        Input::ServiceCidr(object) => Ok(Some(Object::ServiceCidr(object.project(&mut left_out)))),
    };
    let (change, reason) = match projected {
        Ok(Some(object)) => (Change::Applied(input.id(), object), left_out.reason()),
        Ok(None) => (Change::Deleted(input.id()), left_out.reason()),
        Err(reason) => (Change::Deleted(input.id()), Some(reason)),
    };
    (change, reason.map(|reason| Rejected { object: input.id(), reason }))
}

/// The fields of the metadata that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The object's name.
    pub name: String,
    /// Its namespace as written.
    pub namespace: Option<String>,
    /// Its version, opaque except for the store's serial.
    pub resource_version: Option<String>,
    /// When it was created, RFC 3339.
    pub creation_timestamp: Option<String>,
    /// The labels that are used.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: Labels,
    /// The annotations that are used.
    #[serde(deserialize_with = "null_is_default")]
    pub annotations: Annotations,
    /// The writers of its fields, reduced to the time of the last write.
    pub managed_fields: ManagedFields,
}

impl Metadata {
    /// Returns the namespace of the object: `default` if the field is missing or empty.
    pub fn namespace(&self) -> &str {
        match self.namespace.as_deref() {
            None | Some("") => "default",
            Some(namespace) => namespace,
        }
    }

    /// Returns when it was created, as a number that grows with time (the digits of RFC 3339); the
    /// largest number if that is not known.
    fn created(&self) -> u64 {
        let digits = |text: &str| {
            let digits = text.bytes().filter(u8::is_ascii_digit).take(14);
            digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
        };
        self.creation_timestamp.as_deref().map_or(u64::MAX, digits)
    }
}

/// The labels that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Labels {
    /// The Service that an EndpointSlice belongs to (KEP-752).
    #[serde(rename = "kubernetes.io/service-name")]
    pub service_name: Option<String>,
    /// The ServiceImport that an EndpointSlice belongs to (KEP-1645).
    #[serde(rename = "multicluster.kubernetes.io/service-name")]
    pub imported_name: Option<String>,
    /// The cluster that an EndpointSlice was imported from (KEP-1645).
    #[serde(rename = "multicluster.kubernetes.io/source-cluster")]
    pub source_cluster: Option<String>,
    /// The controller that manages an EndpointSlice.
    #[serde(rename = "endpointslice.kubernetes.io/managed-by")]
    pub managed_by: Option<String>,
    /// The zone of a Node.
    #[serde(rename = "topology.kubernetes.io/zone")]
    pub zone: Option<String>,
    /// The region of a Node.
    #[serde(rename = "topology.kubernetes.io/region")]
    pub region: Option<String>,
    /// The zone of a Node, as it was called before Kubernetes 1.17.
    #[serde(rename = "failure-domain.beta.kubernetes.io/zone")]
    pub zone_beta: Option<String>,
    /// The region of a Node, as it was called before Kubernetes 1.17.
    #[serde(rename = "failure-domain.beta.kubernetes.io/region")]
    pub region_beta: Option<String>,
}

/// The annotations that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Annotations {
    /// When the change that led to this EndpointSlice happened, RFC 3339: the start of the
    /// programming latency.
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub last_change_trigger_time: Option<String>,
    /// The predecessor of `publishNotReadyAddresses` (DNS specification section 2.1).
    #[serde(rename = "service.alpha.kubernetes.io/tolerate-unready-endpoints")]
    pub tolerate_unready_endpoints: Option<String>,
}

/// A port of a Service or an EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PortObject {
    /// Its name; missing or empty for an unnamed port.
    pub name: Option<String>,
    /// Its protocol; TCP if it is missing.
    pub protocol: Option<String>,
    /// Its number; it can be missing in an EndpointSlice.
    pub port: Option<i64>,
}

/// Returns the key of the Service `name` in `namespace`.
fn service_key(namespace: &str, name: &str) -> Result<Key, Reason> {
    let mut wire = Vec::with_capacity(name.len() + namespace.len() + 2);
    label(&mut wire, "the name of the Service", name)?;
    label(&mut wire, "metadata.namespace", namespace)?;
    Ok(wire.into())
}

/// Appends `text`, the value of `field`, as a label.
fn label(wire: &mut Vec<u8>, field: &'static str, text: &str) -> Result<(), Reason> {
    push_label(wire, text, |_| false).map_err(|source| Reason::Name { field, source })
}

/// Parses null, which the API writes for an empty list or map, as the empty value.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
