//! An EndpointSlice, reduced to packed addresses, hostnames and ports.
//!
//! Core. Knows `discovery.k8s.io/v1` EndpointSlice (KEP-752); does not know its Service.

use std::net::IpAddr;

use serde::Deserialize;

use super::{LeftOut, Metadata, PortObject, Reason, address, label, null_is_default, service_key};
use crate::name::{dashed, push_label};
use crate::records::{Endpoint, LABELS_LEN_MAX, Ports, Slice, State};

/// The fields of an EndpointSlice that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSliceObject {
    /// Its metadata.
    pub metadata: Metadata,
    /// IPv4, IPv6 or FQDN.
    pub address_type: Option<String>,
    /// Its endpoints.
    #[serde(deserialize_with = "null_is_default")]
    pub endpoints: Vec<EndpointObject>,
    /// The ports of every endpoint.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<PortObject>,
}

/// The fields of one endpoint that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointObject {
    /// Its addresses, of the slice's family.
    #[serde(deserialize_with = "null_is_default")]
    pub addresses: Vec<String>,
    /// Its state.
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: Conditions,
    /// Its hostname.
    pub hostname: Option<String>,
    /// Its topology zone.
    pub zone: Option<String>,
    /// The object that it belongs to.
    #[serde(deserialize_with = "null_is_default")]
    pub target_ref: TargetRef,
}

/// The conditions of an endpoint (KEP-1672); a missing one is nil.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Nil means true.
    pub ready: Option<bool>,
    /// Nil means the value of `ready`.
    pub serving: Option<bool>,
    /// Nil means false.
    pub terminating: Option<bool>,
}

/// The object that an endpoint belongs to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Its kind.
    pub kind: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
}

/// The slices of an EndpointSlice in the zones, at least in one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slices {
    /// In the cluster domain, if it belongs to a Service.
    pub own: Option<Slice>,
    /// In the domain of a clusterset, if it belongs to a ServiceImport.
    pub imported: Option<Box<Slice>>,
}

impl EndpointSliceObject {
    /// Uses the name of its Pod as the hostname of each endpoint without one, if the name is a
    /// label. An endpoint with another name keeps its generated label.
    pub fn name_by_pods(&mut self) {
        let namespace = self.metadata.namespace();
        for endpoint in &mut self.endpoints {
            let is_nameless = endpoint.hostname.as_deref().unwrap_or_default().is_empty();
            if is_nameless && endpoint.is_pod_of(namespace) {
                let is_label = |name: &String| push_label(&mut Vec::new(), name, |_| false).is_ok();
                endpoint.hostname = endpoint.target_ref.name.take().filter(is_label);
            }
        }
    }

    /// Returns the part that the records keep, if it belongs to a Service or a ServiceImport and
    /// contains addresses instead of names.
    ///
    /// If an address cannot be parsed, only that address is left out. Port names that do not fit
    /// are left out too. Otherwise a slice is used in full or not at all, because a part of it
    /// would look like a complete set. It is left out if a hostname or a port is not valid in the
    /// API. In the domain of a clusterset it is also left out if the name of the cluster that it
    /// was imported from is missing.
    pub(super) fn project(&self, left_out: &mut LeftOut) -> Option<Slices> {
        let labels = &self.metadata.labels;
        let own = labels.service_name.as_deref().map(|service| self.slice(service, &[], left_out));
        let own = taken(own, left_out);
        let imported = labels.imported_name.as_deref().map(|service| {
            let cluster = cluster_labels(labels.source_cluster.as_deref())?;
            // Addresses that are left out of both zones must be noted once.
            let mut again = LeftOut::default();
            let noted = if own.is_some() { &mut again } else { &mut *left_out };
            self.slice(service, &cluster, noted)
        });
        let imported = taken(imported, left_out).map(Box::new);
        (own.is_some() || imported.is_some()).then_some(Slices { own, imported })
    }

    /// Returns its endpoints as those of `service`, each with the labels of `cluster`, in wire
    /// form, after its own; empty for this cluster. A cluster's name can have several labels
    /// (KEP-2149).
    fn slice(
        &self,
        service: &str,
        cluster: &[u8],
        left_out: &mut LeftOut,
    ) -> Result<Option<Slice>, Reason> {
        let Some(family @ ("IPv4" | "IPv6")) = self.address_type.as_deref() else {
            return Ok(None);
        };
        let v6 = family == "IPv6";
        let family = if v6 { "IPv6" } else { "IPv4" };
        let key = service_key(self.metadata.namespace(), service)?;
        let name = self.name()?;
        let count = self.endpoints.len();
        if count > ENDPOINTS_MAX {
            return Err(Reason::TooMany { what: "endpoints", count, max: ENDPOINTS_MAX });
        }
        let mut endpoints = Vec::with_capacity(count);
        let mut pods = true;
        for object in &self.endpoints {
            let own = object.host()?;
            let zone = topology_zone(object.zone.as_deref().unwrap_or_default());
            for text in object.addresses.iter().take(ADDRESSES_MAX) {
                let Some(address) = address::parse(text).filter(|ip| ip.is_ipv6() == v6) else {
                    left_out.note(Reason::address("endpoints.addresses", text, family));
                    continue;
                };
                pods &= object.is_pod_of(self.metadata.namespace());
                let state = object.conditions.state();
                let host = if cluster.is_empty() {
                    own.clone()
                } else {
                    imported_host(&own, address, cluster, key.len())?
                };
                endpoints.push(Endpoint { address, host, zone: zone.clone(), state });
            }
        }
        let count = endpoints.len();
        if !cluster.is_empty() && count > ENDPOINTS_MAX {
            return Err(Reason::TooMany { what: "imported addresses", count, max: ENDPOINTS_MAX });
        }
        let ports = Ports::project(&self.ports, left_out)?;
        Ok(Some(Slice::pack(key, name.into(), endpoints, ports, pods)))
    }

    /// Returns `NAMESPACE/NAME`. Fails if an API server would have refused the name.
    fn name(&self) -> Result<String, Reason> {
        let name = &self.metadata.name;
        let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        if name.is_empty() || name.len() > OBJECT_NAME_MAX || !name.bytes().all(is_of_names) {
            return Err(Reason::ObjectName { max: OBJECT_NAME_MAX });
        }
        Ok(format!("{}/{name}", self.metadata.namespace()))
    }
}

/// Returns the slice of one zone. Notes the reason in `left_out` if it must be left out.
fn taken(slice: Option<Result<Option<Slice>, Reason>>, left_out: &mut LeftOut) -> Option<Slice> {
    match slice.transpose() {
        Ok(slice) => slice.flatten(),
        Err(reason) => {
            left_out.note(reason);
            None
        }
    }
}

/// Returns the labels of the cluster that a slice was imported from, in wire form.
fn cluster_labels(cluster: Option<&str>) -> Result<Vec<u8>, Reason> {
    let cluster = cluster.ok_or(Reason::NoCluster)?;
    if cluster.len() > LABEL_VALUE_MAX {
        return Err(Reason::LongLabelValue { label: SOURCE_CLUSTER, max: LABEL_VALUE_MAX });
    }
    let mut wire = Vec::new();
    for part in cluster.split('.') {
        label(&mut wire, SOURCE_CLUSTER_FIELD, part)?;
    }
    Ok(wire)
}

/// Returns the labels left of the Service in the name of an imported endpoint, in wire form: its
/// hostname or else its generated label, and its cluster (KEP-1645, specification 2.4.1). A key of
/// `key_len` bytes must fit after them.
fn imported_host(
    own: &[u8],
    address: IpAddr,
    cluster: &[u8],
    key_len: usize,
) -> Result<Box<[u8]>, Reason> {
    let generated = dashed(address);
    let own = if own.is_empty() { generated.wire() } else { own };
    if own.len() + cluster.len() + key_len > LABELS_LEN_MAX {
        let label = String::from_utf8_lossy(&own[1..]).into_owned();
        return Err(Reason::LongNames { label, max: LABELS_LEN_MAX });
    }
    Ok([own, cluster].concat().into())
}

/// Returns a topology zone as a name in wire form, such as `us-west-2a.` or `corp.example.com.`;
/// empty if `value` is not a valid name.
pub(crate) fn topology_zone(value: &str) -> Box<[u8]> {
    let mut wire = Vec::new();
    let mut labels = value.split('.');
    let is_name = value.len() <= LABEL_VALUE_MAX
        && labels.all(|label| push_label(&mut wire, label, |byte| byte == b'_').is_ok());
    wire.push(0);
    if is_name { wire.into() } else { Box::default() }
}

impl EndpointObject {
    /// Returns its hostname as a label in wire form, empty if it has no hostname.
    fn host(&self) -> Result<Box<[u8]>, Reason> {
        let mut wire = Vec::new();
        if let Some(hostname) = self.hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
            label(&mut wire, "endpoints.hostname", hostname)?;
        }
        Ok(wire.into())
    }

    /// Returns whether it is a Pod of `namespace`.
    fn is_pod_of(&self, namespace: &str) -> bool {
        let target = &self.target_ref;
        target.kind.as_deref() == Some("Pod")
            && target.namespace.as_deref().is_none_or(|name| name.is_empty() || name == namespace)
    }
}

impl Conditions {
    fn state(self) -> State {
        let ready = self.ready.unwrap_or(true);
        if ready {
            State::Ready
        } else if self.serving == Some(true) && self.terminating == Some(true) {
            State::Draining
        } else {
            State::NotReady
        }
    }
}

/// The label with the name of the cluster that a slice was imported from (KEP-1645).
const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";
const SOURCE_CLUSTER_FIELD: &str = "the label multicluster.kubernetes.io/source-cluster";
/// The most characters of an object's name: the API's own limit.
const OBJECT_NAME_MAX: usize = 253;
/// The most endpoints of an EndpointSlice: the API's own limit.
const ENDPOINTS_MAX: usize = 1_000;
/// The most characters of a label's value: the API's own limit.
const LABEL_VALUE_MAX: usize = 63;
/// The most addresses of an endpoint: the API's own limit.
const ADDRESSES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn imported(service: &str, cluster: Option<&str>, endpoints: Value) -> EndpointSliceObject {
        let labels = json!({
            "multicluster.kubernetes.io/service-name": service,
            "multicluster.kubernetes.io/source-cluster": cluster,
        });
        let metadata = json!({"name": "db-a", "namespace": "shop", "labels": labels});
        let object = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints});
        serde_json::from_value(object).unwrap()
    }

    fn project(object: &EndpointSliceObject) -> (Option<Slices>, Option<Reason>) {
        let mut left_out = LeftOut::default();
        let slices = object.project(&mut left_out);
        (slices, left_out.reason())
    }

    #[test]
    fn imported_slices() {
        let check = |object: &EndpointSliceObject, hosts: &[&[u8]], said: &str| {
            let (slices, reason) = project(object);
            let slices = slices.inspect(|slices| assert_eq!(slices.own, None));
            let slice = slices.and_then(|slices| slices.imported);
            let host = |index| slice.as_ref().unwrap().host(index).to_vec();
            let found: Vec<Vec<u8>> =
                (0..slice.as_ref().map_or(0, |slice| slice.len())).map(host).collect();
            assert_eq!(found, hosts);
            assert_eq!(reason.map(|reason| reason.to_string()).unwrap_or_default(), said);
        };
        let two = json!([{"addresses": ["10.3.0.1"], "hostname": "Db-0"},
            {"addresses": ["10.3.0.2"]}]);
        check(
            &imported("db", Some("East"), two.clone()),
            &[b"\x04db-0\x04east", b"\x0810-3-0-2\x04east"],
            "",
        );
        check(&imported("db", Some("east"), json!([])), &[], "");
        let missing = "the label multicluster.kubernetes.io/source-cluster is missing";
        check(&imported("db", None, two.clone()), &[], missing);
        let odd = "the label multicluster.kubernetes.io/source-cluster is no name";
        check(
            &imported("db", Some("a.b"), two.clone()),
            &[b"\x04db-0\x01a\x01b", b"\x0810-3-0-2\x01a\x01b"],
            "",
        );
        check(&imported("db", Some("a..b"), two.clone()), &[], odd);
        check(&imported("db", Some(""), two.clone()), &[], odd);
        // 64 bytes each for hostname, cluster and service, and 5 for the namespace.
        let long = "a".repeat(63);
        let endpoint = json!([{"addresses": ["10.3.0.1"], "hostname": long}]);
        let said =
            format!("{long}, its cluster, its service and its namespace have more than 192 bytes");
        check(&imported(&long, Some(&long), endpoint.clone()), &[], &said);
        let (slices, reason) = project(&imported(&long, Some(&"b".repeat(58)), endpoint));
        assert!(slices.is_some() && reason.is_none(), "192 bytes in all");
        let addresses: Vec<String> = (0..50).map(|last| format!("10.3.0.{last}")).collect();
        let many: Vec<Value> = (0..21).map(|_| json!({"addresses": addresses})).collect();
        let said = "1050 imported addresses: at most 1000 are allowed";
        check(&imported("db", Some("east"), many.into()), &[], said);
    }

    #[test]
    fn topology_zones_are_read_as_names() {
        let check = |value: &str, name: &[u8]| assert_eq!(*topology_zone(value), *name);
        check("US-west-2a", b"\x0aus-west-2a\0");
        check("corp.Example_1.com", b"\x04corp\x09example_1\x03com\0");
        check("", b"");
        check("a..b", b"");
        check("a b", b"");
        check(&"a".repeat(64), b"");
        assert_eq!(topology_zone(&"a".repeat(63)).len(), 65);
    }

    #[test]
    fn what_is_wrong_in_one_zone_costs_the_other_nothing() {
        let mut object = imported("db", None, json!([{"addresses": ["10.3.0.1"]}]));
        object.metadata.labels.service_name = Some("derived".to_owned());
        let (slices, reason) = project(&object);
        let slices = slices.unwrap();
        assert!(slices.own.is_some() && slices.imported.is_none());
        assert_eq!(reason, Some(Reason::NoCluster));
        object.metadata.labels.imported_name = None;
        assert_eq!(project(&object), (Some(slices), None));
    }
}
