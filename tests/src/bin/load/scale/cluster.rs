//! The cluster of a scale run: its objects, and the questions that clients can ask about them.
//!
//! Core. Objects look as controllers write them, including all fields that kubedns does not use.
//! The same sizes give the same objects. It must not depend on the servers and clients of the
//! objects.

use std::net::Ipv4Addr;

use ::tests::objects::Object;
use serde_json::{Value, json};

use crate::workload::{Message, Workload, question};

/// The size of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Services, without the large one. Each tenth is headless.
    pub services: usize,
    /// Their endpoints, spread evenly.
    pub endpoints: usize,
    /// Endpoints of the large headless service.
    pub headless: usize,
}

impl Cluster {
    /// Returns every object.
    pub fn objects(self) -> impl Iterator<Item = Object> {
        let namespaces = (0..self.namespaces()).map(namespace);
        let services = (0..self.services).map(move |index| self.service(index, cluster_ip(index)));
        let slices = (0..self.services).flat_map(move |index| self.slices(index, None));
        namespaces.chain(services).chain(slices).chain(self.large())
    }

    /// Returns the number of all endpoints.
    pub fn all_endpoints(self) -> usize {
        self.services * self.endpoints_each() + self.headless
    }

    /// Returns Service `index`, with this cluster IP if it is not headless.
    pub fn service(self, index: usize, address: Ipv4Addr) -> Object {
        let address = if is_headless(index) { "None".to_owned() } else { address.to_string() };
        service(&self.namespace_of(index), &format!("svc-{index}"), &address)
    }

    /// Returns the slices of Service `index`. If `first` is set, it is the address of the first
    /// endpoint.
    pub fn slices(self, index: usize, first: Option<Ipv4Addr>) -> Vec<Object> {
        let namespace = self.namespace_of(index);
        let start = index * self.endpoints_each();
        let mut addresses: Vec<_> =
            (start..start + self.endpoints_each()).map(endpoint_address).collect();
        if let (Some(place), Some(first)) = (addresses.first_mut(), first) {
            *place = first;
        }
        slices(&namespace, &format!("svc-{index}"), &addresses, false)
    }

    /// Returns the large headless service and its slices, whose endpoints have hostnames.
    fn large(self) -> impl Iterator<Item = Object> {
        let start = self.services * self.endpoints_each();
        let addresses: Vec<_> = (start..start + self.headless).map(endpoint_address).collect();
        let slices = slices("ns-0", LARGE, &addresses, true);
        std::iter::once(service("ns-0", LARGE, "None")).chain(slices)
    }

    fn endpoints_each(self) -> usize {
        self.endpoints / self.services
    }

    fn namespaces(self) -> usize {
        self.services.div_ceil(SERVICES_PER_NAMESPACE)
    }

    fn namespace_of(self, index: usize) -> String {
        format!("ns-{}", index % self.namespaces())
    }

    /// Returns the name of Service `index`.
    pub fn name(self, index: usize) -> String {
        format!("svc-{index}.{}.svc.cluster.local", self.namespace_of(index))
    }

    /// Returns every kind of query with its questions.
    pub fn queries(self) -> [Query; 8] {
        let repeat = Workload::Repeat;
        let with_address = || (0..self.services).filter(|&index| !is_headless(index));
        let each = |write: &dyn Fn(usize) -> Message| repeat(with_address().map(write).collect());
        let headless = || (0..self.services).filter(|&index| is_headless(index));
        let port = |name: String| question(&format!("_http._tcp.{name}"), SRV);
        let endpoint = |index: usize| {
            let number = index * self.endpoints_each();
            let label = endpoint_address(number).to_string().replace('.', "-");
            question(&format!("{label}.{}", self.name(index)), A)
        };
        let host = |index| question(&format!("{LARGE}-{index}.{LARGE}.ns-0.svc.cluster.local"), A);
        let searched = |index: usize| {
            let namespace = self.namespace_of(index);
            let asker = self.namespace_of(index + 1);
            question(&format!("svc-{index}.{namespace}.{asker}.svc.cluster.local"), A)
        };
        let large = question(&format!("{LARGE}.ns-0.svc.cluster.local"), A);
        let query = |label, rcode, questions| Query { label, rcode, questions };
        [
            query("A, cluster IP", NOERROR, each(&|index| question(&self.name(index), A))),
            query("AAAA, NODATA", NOERROR, each(&|index| question(&self.name(index), AAAA))),
            query("A, NXDOMAIN of a search path", NXDOMAIN, each(&searched)),
            query("SRV of a port", NOERROR, each(&|index| port(self.name(index)))),
            query(
                "SRV, headless service",
                NOERROR,
                repeat(headless().map(|index| with_edns(&port(self.name(index)))).collect()),
            ),
            query("A, name of an endpoint", NOERROR, repeat(headless().map(endpoint).collect())),
            query(
                "A, hostname of an endpoint",
                NOERROR,
                repeat((0..self.headless).map(host).collect()),
            ),
            query(
                "A, large headless service",
                NOERROR,
                repeat([with_edns(&large)].into_iter().collect()),
            ),
        ]
    }
}

/// One kind of query.
#[derive(Debug)]
pub struct Query {
    /// Its name.
    pub label: &'static str,
    /// The expected response code.
    pub rcode: usize,
    /// The questions.
    pub questions: Workload,
}

/// Returns whether Service `index` is headless.
pub fn is_headless(index: usize) -> bool {
    index % 10 == 9
}

/// Returns cluster IP number `number`.
pub fn cluster_ip(number: usize) -> Ipv4Addr {
    address(10 << 24, number)
}

/// Returns the address of endpoint number `number`.
pub fn endpoint_address(number: usize) -> Ipv4Addr {
    address(10 << 24 | 1 << 23, number)
}

fn address(first: u32, number: usize) -> Ipv4Addr {
    // The range is half a /8, which is more than the pods of any cluster.
    (first + 1 + u32::try_from(number % ((1 << 23) - 2)).expect("below 2^23")).into()
}

/// Returns `message` with the OPT record of a client that accepts 1,232 bytes, as dnscache sends
/// it.
fn with_edns(message: &[u8]) -> Message {
    let mut message = message.to_vec();
    message[11] = 1;
    message.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    message.into()
}

fn namespace(index: usize) -> Object {
    let name = format!("ns-{index}");
    let fields = r#"{"f:metadata":{"f:labels":{".":{},"f:kubernetes.io/metadata.name":{}}}}"#;
    Object(json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name, "uid": uid(index), "creationTimestamp": CREATED,
            "labels": {"kubernetes.io/metadata.name": name},
            "managedFields": managed_fields("kubectl-create", "v1", fields),
        },
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    }))
}

fn service(namespace: &str, name: &str, address: &str) -> Object {
    let labels = json!({"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/version": "1.4.2", "helm.sh/chart": "web-3.2.1"});
    let port = |name: &str, port: u16| {
        let target = json!(name);
        json!({"name": name, "protocol": "TCP", "port": port, "targetPort": target})
    };
    Object(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid(name.len()),
            "creationTimestamp": CREATED, "labels": labels,
            "annotations": {"meta.helm.sh/release-name": name,
                "meta.helm.sh/release-namespace": namespace},
            "managedFields": managed_fields("helm", "v1", SERVICE_FIELDS),
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ports": [port("http", 80), port("metrics", 9_090)],
            "selector": {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": name},
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        },
        "status": {"loadBalancer": {}},
    }))
}

/// Returns the slices of a service, split as the controller does.
fn slices(namespace: &str, service: &str, all: &[Ipv4Addr], named: bool) -> Vec<Object> {
    let chunks = all.chunks(SLICE_LEN).enumerate();
    let slice = |(number, addresses): (usize, &[Ipv4Addr])| {
        let start = number * SLICE_LEN;
        let endpoints: Vec<Value> = (addresses.iter().enumerate())
            .map(|(at, address)| endpoint(namespace, service, start + at, (address, named)))
            .collect();
        let trigger = "endpoints.kubernetes.io/last-change-trigger-time";
        let owner = json!([{"apiVersion": "v1", "kind": "Service", "name": service,
            "uid": uid(number), "controller": true, "blockOwnerDeletion": true}]);
        Object(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{number:05}"), "generateName": format!("{service}-"),
                "namespace": namespace, "uid": uid(number), "generation": 7,
                "creationTimestamp": CREATED, "annotations": {trigger: CREATED},
                "labels": {"kubernetes.io/service-name": service,
                    "endpointslice.kubernetes.io/managed-by":
                        "endpointslice-controller.k8s.io"},
                "ownerReferences": owner,
                "managedFields":
                    managed_fields("kube-controller-manager", "discovery.k8s.io/v1", SLICE_FIELDS),
            },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "protocol": "TCP", "port": 8_080},
                {"name": "metrics", "protocol": "TCP", "port": 9_090}],
        }))
    };
    chunks.map(slice).collect()
}

fn endpoint(
    namespace: &str,
    service: &str,
    number: usize,
    (address, named): (&Ipv4Addr, bool),
) -> Value {
    let pod = format!("{service}-{number}");
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "nodeName": format!("node-{:04}", number % 5_000), "zone": "europe-west1-b",
        "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod, "uid": uid(number)},
    });
    if named {
        endpoint["hostname"] = json!(pod);
    }
    endpoint
}

fn managed_fields(manager: &str, api_version: &str, fields: &str) -> Value {
    let fields: Value = serde_json::from_str(fields).expect("the constants are JSON");
    json!([{"manager": manager, "operation": "Update", "apiVersion": api_version,
        "time": CREATED, "fieldsType": "FieldsV1", "fieldsV1": fields}])
}

fn uid(number: usize) -> String {
    format!("{number:08x}-3c1f-4f6e-9a52-{number:012x}")
}

/// The large headless service.
const LARGE: &str = "large";
/// Endpoints of a slice: the default of the EndpointSlice controller (`--max-endpoints-per-slice`).
const SLICE_LEN: usize = 100;
const SERVICES_PER_NAMESPACE: usize = 20;
const CREATED: &str = "2026-11-01T08:30:00Z";
/// Managed fields as in real objects, in which they are most of a small object.
const SERVICE_FIELDS: &str = r#"{"f:metadata":{"f:annotations":{".":{},
    "f:meta.helm.sh/release-name":{},"f:meta.helm.sh/release-namespace":{}},"f:labels":{".":{},
    "f:app.kubernetes.io/managed-by":{},"f:app.kubernetes.io/name":{},
    "f:app.kubernetes.io/version":{},"f:helm.sh/chart":{}}},"f:spec":{"f:internalTrafficPolicy":{},
    "f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{},
    "f:protocol":{},"f:targetPort":{}}},"f:selector":{},"f:sessionAffinity":{},"f:type":{}}}"#;
const SLICE_FIELDS: &str = r#"{"f:addressType":{},"f:endpoints":{},"f:metadata":{"f:annotations":
    {".":{},"f:endpoints.kubernetes.io/last-change-trigger-time":{}},"f:generateName":{},
    "f:labels":{".":{},"f:endpointslice.kubernetes.io/managed-by":{},
    "f:kubernetes.io/service-name":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"u\"}":{}}},
    "f:ports":{}}"#;
const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const NOERROR: usize = 0;
const NXDOMAIN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_as_many_objects_as_was_asked_for() {
        let cluster = Cluster { services: 100, endpoints: 1_300, headless: 1_000 };
        let objects: Vec<Object> = cluster.objects().collect();
        let of =
            |kind: &'static str| objects.iter().filter(move |object| object.0["kind"] == *kind);
        assert_eq!(of("Service").count(), 101);
        assert_eq!(of("Namespace").count(), 5);
        assert_eq!(of("EndpointSlice").count(), 100 + 10);
        let endpoints = of("EndpointSlice")
            .flat_map(|slice| slice.0["endpoints"].as_array().unwrap())
            .map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned());
        let mut endpoints: Vec<String> = endpoints.collect();
        assert_eq!(endpoints.len(), cluster.all_endpoints());
        endpoints.sort();
        endpoints.dedup();
        assert_eq!(endpoints.len(), 2_300, "each its own address");
        let headless = of("Service").filter(|object| object.0["spec"]["clusterIP"] == "None");
        assert_eq!(headless.count(), 11);
    }

    #[test]
    fn a_changed_slice_differs_in_one_address() {
        let cluster = Cluster { services: 10, endpoints: 130, headless: 0 };
        let new: Ipv4Addr = "11.0.0.1".parse().unwrap();
        let (old, changed) = (cluster.slices(3, None), cluster.slices(3, Some(new)));
        assert_eq!(changed[0].0["endpoints"][0]["addresses"][0], "11.0.0.1");
        assert_eq!(changed[0].0["endpoints"][1], old[0].0["endpoints"][1]);
        assert_eq!(changed[0].key(), old[0].key());
    }
}
