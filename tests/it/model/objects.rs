//! The objects of the model: few names and addresses, so that random objects share them.
//!
//! Objects as plain values, their JSON, and all names that the tests ask for.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use kubedns::name::Name;
use kubedns::project::{Kind, ObjectId};
use proptest::prelude::*;
use serde_json::{Value, json};

/// An object.
#[derive(Clone, Debug)]
pub enum Object {
    Service(Service),
    Slice(Slice),
    Namespace(&'static str),
    Pod(Pod),
    Import(Service),
}

/// A Service, or a ServiceImport, which is never an ExternalName.
#[derive(Clone, Debug)]
pub struct Service {
    pub namespace: &'static str,
    pub name: &'static str,
    pub shape: Shape,
    pub ports: Vec<Port>,
    pub publish: bool,
    pub created: Option<u8>,
    pub spelling: Spelling,
}

/// The spelling of the addresses of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    Plain,
    /// Leading zeros, which are decimal.
    Zeros,
    /// IPv4 as IPv6.
    Mapped,
    /// Plain, followed by a text that is not an address.
    Odd,
}

impl Spelling {
    fn write(self, address: &str) -> String {
        match self {
            Self::Zeros if address.contains('.') => format!("0{}", address.replace('.', ".00")),
            Self::Zeros => address.to_uppercase().replace(":1", ":00001"),
            Self::Mapped if address.contains('.') => format!("::ffff:{address}"),
            _ => address.to_owned(),
        }
    }

    fn write_all(self, addresses: &[&str]) -> Vec<String> {
        let odd = (self == Self::Odd).then(|| UNREADABLE.to_owned());
        addresses.iter().map(|address| self.write(address)).chain(odd).collect()
    }
}

#[derive(Clone, Debug)]
pub enum Shape {
    /// Empty if it does not have an address yet, which only a ServiceImport can be.
    ClusterIp(Vec<&'static str>),
    Headless,
    External(&'static str),
}

/// Name, protocol, number.
pub type Port = (&'static str, &'static str, u16);

#[derive(Clone, Debug)]
pub struct Slice {
    pub namespace: &'static str,
    pub name: &'static str,
    /// The Service that it belongs to, if any.
    pub service: Option<&'static str>,
    /// The ServiceImport that it belongs to, if any, and the cluster that it was imported from.
    pub import: Option<(&'static str, &'static str)>,
    pub v6: bool,
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<Port>,
}

#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The address. Empty if it cannot be parsed.
    pub address: &'static str,
    pub spelling: Spelling,
    pub host: &'static str,
    /// Its topology zone.
    pub zone: &'static str,
    pub ready: Option<bool>,
    pub draining: bool,
    pub pod: bool,
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub namespace: &'static str,
    pub name: &'static str,
    pub addresses: Vec<&'static str>,
    pub ended: bool,
    pub spelling: Spelling,
}

/// The identity of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub kind: Kind,
    pub namespace: &'static str,
    pub name: &'static str,
}

impl Place {
    pub fn id(&self) -> ObjectId {
        ObjectId::new(self.kind, self.namespace, self.name)
    }

    /// Returns an object with only this identity.
    pub fn json(&self) -> Value {
        let metadata = match self.namespace {
            "" => json!({"name": self.name}),
            namespace => json!({"name": self.name, "namespace": namespace}),
        };
        json!({"kind": self.kind.name(), "metadata": metadata})
    }
}

impl Object {
    pub fn place(&self) -> Place {
        let (kind, namespace, name) = match self {
            Self::Service(service) => (Kind::Service, service.namespace, service.name),
            Self::Slice(slice) => (Kind::EndpointSlice, slice.namespace, slice.name),
            Self::Namespace(name) => (Kind::Namespace, "", *name),
            Self::Pod(pod) => (Kind::Pod, pod.namespace, pod.name),
            Self::Import(import) => (Kind::ServiceImport, import.namespace, import.name),
        };
        Place { kind, namespace, name }
    }

    /// Returns whether kubedns ignores a part of it.
    pub fn is_odd(&self) -> bool {
        let is_long = |ports: &[Port]| ports.iter().any(|(name, ..)| *name == LONG_PORT);
        match self {
            Self::Service(Service { shape: Shape::External(_), .. }) => false,
            Self::Service(service) | Self::Import(service) => {
                let is_odd = service.spelling == Spelling::Odd;
                match &service.shape {
                    Shape::ClusterIp(ips) if ips.is_empty() => is_odd, // other fields are not read
                    Shape::ClusterIp(_) => is_odd || is_long(&service.ports),
                    _ => is_long(&service.ports),
                }
            }
            Self::Slice(slice) => {
                let belongs = slice.service.is_some() || slice.import.is_some();
                let mut endpoints = slice.endpoints.iter();
                let is_odd = endpoints.any(|endpoint| endpoint.address.is_empty());
                belongs && (is_odd || is_long(&slice.ports))
            }
            Self::Namespace(_) => false,
            Self::Pod(pod) => !pod.ended && pod.spelling == Spelling::Odd,
        }
    }

    /// Returns the object as the API sends it.
    pub fn json(&self) -> Value {
        match self {
            Self::Service(service) => service.json(),
            Self::Slice(slice) => slice.json(),
            Self::Import(import) => import.import_json(),
            Self::Namespace(name) => json!({"kind": "Namespace", "metadata": {"name": name}}),
            Self::Pod(pod) => {
                let ips = pod.spelling.write_all(&pod.addresses);
                let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
                let phase = if pod.ended { "Failed" } else { "Running" };
                json!({
                    "kind": "Pod",
                    "metadata": {"name": pod.name, "namespace": pod.namespace},
                    "status": {"phase": phase, "podIPs": ips},
                })
            }
        }
    }
}

impl Service {
    fn json(&self) -> Value {
        let mut spec = match &self.shape {
            Shape::ClusterIp(ips) => {
                let ips = self.spelling.write_all(ips);
                json!({"clusterIP": ips[0], "clusterIPs": ips})
            }
            Shape::Headless => json!({"clusterIP": "None"}),
            Shape::External(name) => json!({"type": "ExternalName", "externalName": name}),
        };
        spec["ports"] = ports(&self.ports);
        spec["publishNotReadyAddresses"] = json!(self.publish);
        json!({"kind": "Service", "metadata": self.metadata(), "spec": spec})
    }

    fn import_json(&self) -> Value {
        let mut spec = match &self.shape {
            Shape::ClusterIp(ips) => {
                json!({"type": "ClusterSetIP", "ips": self.spelling.write_all(ips)})
            }
            _ => json!({"type": "Headless"}),
        };
        spec["ports"] = ports(&self.ports);
        json!({"kind": "ServiceImport", "metadata": self.metadata(), "spec": spec})
    }

    fn metadata(&self) -> Value {
        let created = self.created.map(|day| format!("2024-01-{day:02}T00:00:00Z"));
        json!({"name": self.name, "namespace": self.namespace, "creationTimestamp": created})
    }
}

impl Endpoint {
    /// Returns its label, which precedes its Service in its name.
    pub fn label(&self) -> String {
        if self.host.is_empty() { dashed(self.address) } else { self.host.to_owned() }
    }
}

impl Slice {
    fn json(&self) -> Value {
        let endpoint = |endpoint: &Endpoint| {
            let target = endpoint.pod.then(|| json!({"kind": "Pod", "name": "p"}));
            let address = match endpoint.address {
                "" => UNREADABLE.to_owned(),
                address => endpoint.spelling.write(address),
            };
            json!({
                "addresses": [address],
                "hostname": (!endpoint.host.is_empty()).then_some(endpoint.host),
                "conditions": {
                    "ready": endpoint.ready,
                    "serving": endpoint.draining,
                    "terminating": endpoint.draining,
                },
                "zone": endpoint.zone,
                "targetRef": target,
            })
        };
        json!({
            "kind": "EndpointSlice",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": {
                    "kubernetes.io/service-name": self.service,
                    "multicluster.kubernetes.io/service-name": self.import.map(|of| of.0),
                    "multicluster.kubernetes.io/source-cluster": self.import.map(|of| of.1),
                },
            },
            "addressType": if self.v6 { "IPv6" } else { "IPv4" },
            "endpoints": self.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": ports(&self.ports),
        })
    }
}

fn ports(ports: &[Port]) -> Value {
    let port =
        |&(name, protocol, port): &Port| json!({"name": name, "protocol": protocol, "port": port});
    ports.iter().map(port).collect()
}

/// Generates any object.
pub fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        6 => service().prop_map(Object::Service),
        8 => slice().prop_map(Object::Slice),
        2 => one(&NAMESPACES).prop_map(Object::Namespace),
        2 => pod().prop_map(Object::Pod),
        3 => import().prop_map(Object::Import),
    ]
}

/// Generates the identity of any object.
pub fn place() -> impl Strategy<Value = Place> {
    object().prop_map(|object| object.place())
}

fn service() -> impl Strategy<Value = Service> {
    let shape = prop_oneof![
        one(&V4).prop_map(|ip| Shape::ClusterIp(vec![ip])),
        one(&V6).prop_map(|ip| Shape::ClusterIp(vec![ip])),
        (one(&V4), one(&V6)).prop_map(|(v4, v6)| Shape::ClusterIp(vec![v4, v6])),
        Just(Shape::Headless),
        Just(Shape::Headless),
        Just(Shape::Headless),
        one(&TARGETS).prop_map(Shape::External),
    ];
    let created = prop::option::of(1..3_u8);
    (
        one(&NAMESPACES),
        one(&SERVICES),
        shape,
        some(prop::sample::select(&PORTS[..]), 2),
        any::<bool>(),
        (created, spelling()),
    )
        .prop_map(|(namespace, name, shape, ports, publish, (created, spelling))| Service {
            namespace,
            name,
            shape,
            ports,
            publish,
            created,
            spelling,
        })
}

fn spelling() -> impl Strategy<Value = Spelling> {
    prop_oneof![
        4 => Just(Spelling::Plain),
        1 => Just(Spelling::Zeros),
        1 => Just(Spelling::Mapped),
        1 => Just(Spelling::Odd),
    ]
}

fn import() -> impl Strategy<Value = Service> {
    let shape = prop_oneof![
        1 => Just(Shape::ClusterIp(vec![])),
        2 => one(&V4).prop_map(|ip| Shape::ClusterIp(vec![ip])),
        2 => (one(&V4), one(&V6)).prop_map(|(v4, v6)| Shape::ClusterIp(vec![v4, v6])),
        6 => Just(Shape::Headless),
    ];
    (service(), shape).prop_map(|(service, shape)| Service { shape, publish: false, ..service })
}

fn slice() -> impl Strategy<Value = Slice> {
    let endpoints = any::<bool>().prop_flat_map(|v6| (Just(v6), some(endpoint(v6), 4)));
    let service = prop::option::weighted(0.8, one(&SERVICES));
    let import = prop::option::weighted(0.4, (one(&SERVICES), one(&CLUSTERS)));
    let belongs = (service, import);
    (one(&NAMESPACES), one(&SLICES), belongs, endpoints, some(prop::sample::select(&PORTS[..]), 2))
        .prop_map(|(namespace, name, (service, import), (v6, endpoints), ports)| Slice {
            endpoints: in_one_zone(endpoints),
            namespace,
            name,
            service,
            import,
            v6,
            ports,
        })
}

/// Puts equal endpoints of a slice into the same zone.
fn in_one_zone(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    for index in 0..endpoints.len() {
        let (before, after) = endpoints.split_at_mut(index);
        let same = |other: &&Endpoint| {
            (other.address, other.label()) == (after[0].address, after[0].label())
        };
        if let Some(first) = before.iter().find(same) {
            after[0].zone = first.zone;
        }
    }
    endpoints
}

fn endpoint(v6: bool) -> impl Strategy<Value = Endpoint> {
    let addresses: &'static [&'static str] = if v6 { &V6 } else { &V4 };
    let ready = prop_oneof![3 => Just(None), 3 => Just(Some(true)), 2 => Just(Some(false))];
    let flags = (any::<bool>(), prop::bool::weighted(0.7), spelling());
    (one(addresses), one(&HOSTS), one(&ZONES), ready, flags).prop_map(
        |(address, host, zone, ready, (draining, pod, spelling))| Endpoint {
            address: if spelling == Spelling::Odd { "" } else { address },
            spelling,
            host,
            zone,
            ready,
            draining,
            pod,
        },
    )
}

fn pod() -> impl Strategy<Value = Pod> {
    let flags = (0..3_u8, any::<bool>(), spelling());
    (one(&NAMESPACES), one(&["p", "q"]), one(&V4), one(&V6), flags).prop_map(
        |(namespace, name, v4, v6, (which, ended, spelling))| {
            let addresses = [vec![v4], vec![v6], vec![v4, v6]][usize::from(which)].clone();
            Pod { namespace, name, addresses, ended, spelling }
        },
    )
}

fn one(values: &'static [&'static str]) -> impl Strategy<Value = &'static str> + Clone + use<> {
    prop::sample::select(values)
}

fn some<T: std::fmt::Debug>(
    strategy: impl Strategy<Value = T>,
    max: usize,
) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(strategy, 0..=max)
}

/// A question.
#[derive(Debug)]
pub struct Question {
    pub name: String,
    pub wire: Name,
    pub qtype: u16,
}

/// Returns every question of the model.
pub fn questions() -> &'static [Question] {
    static QUESTIONS: LazyLock<Vec<Question>> = LazyLock::new(|| {
        let question = |name: String| {
            let types: &[u16] = if name.ends_with("arpa.") { &[12] } else { &[1, 28, 33] };
            let wire = Name::parse(&name).expect("a name");
            let ask =
                move |&qtype: &u16| Question { name: name.clone(), wire: wire.clone(), qtype };
            types.iter().map(ask).collect::<Vec<_>>()
        };
        names().into_iter().flat_map(question).collect()
    });
    &QUESTIONS
}

fn names() -> BTreeSet<String> {
    let mut names: BTreeSet<String> =
        ["z.", "svc.z.", "pod.z.", "no.z.", "c.svc.z.", "m.", "svc.m.", "pod.m.", "dns.m."]
            .map(str::to_owned)
            .into();
    let addresses = || V4.iter().chain(&V6);
    for namespace in NAMESPACES {
        names.insert(format!("{namespace}.svc.z."));
        names.insert(format!("{namespace}.pod.z."));
        names.extend(addresses().map(|ip| format!("{}.{namespace}.pod.z.", dashed(ip))));
        for service in SERVICES {
            let service = format!("{service}.{namespace}.svc.z.");
            let labels = ["h", "10-0-0-2", "_tcp", "_udp", "_http._tcp", "_dns._udp", "no"];
            let labels =
                labels.map(str::to_owned).into_iter().chain(addresses().map(|ip| dashed(ip)));
            names.extend(labels.map(|label| format!("{label}.{service}")));
            names.extend(ZONAL.map(|labels| format!("{labels}._zone.{service}")));
            names.insert(format!("_zone.{service}"));
            names.insert(service);
        }
        names.insert(format!("{namespace}.svc.m."));
        for service in SERVICES {
            let service = format!("{service}.{namespace}.svc.m.");
            let labels = [
                "e",
                "w",
                "x",
                "w.x",
                "h",
                "h.e",
                "h.w",
                "h.w.x",
                "10-0-0-2.e",
                "fd00--0.w.x",
                "_tcp",
            ];
            names.extend(labels.map(|label| format!("{label}.{service}")));
            names.insert(format!("_http._tcp.{service}"));
            names.insert(service);
        }
    }
    for address in addresses() {
        let name = reverse(address);
        let labels: Vec<&str> = name.split('.').collect();
        // The name, its parent and some ancestors.
        let starts = (0..labels.len() - 2).filter(|&start| start < 4 || start % 6 == 0);
        names.extend(starts.map(|start| labels[start..].join(".")));
    }
    names
}

/// Returns the generated label, computed without kubedns's code.
pub fn dashed(address: &str) -> String {
    match address {
        "fd00::" => "fd00--0".to_owned(),
        "::1" => "0--1".to_owned(),
        _ => address.replace(['.', ':'], "-"),
    }
}

/// Returns the reverse name.
pub fn reverse(address: &str) -> String {
    match address.parse().expect("an address") {
        std::net::IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        std::net::IpAddr::V6(address) => {
            let digits = format!("{:032x}", address.to_bits());
            let nibbles: String = digits.chars().rev().flat_map(|digit| [digit, '.']).collect();
            format!("{nibbles}ip6.arpa.")
        }
    }
}

pub const NAMESPACES: [&str; 2] = ["a", "b"];
const SERVICES: [&str; 2] = ["s", "t"];
/// A cluster's name may have several labels.
const CLUSTERS: [&str; 2] = ["e", "w.x"];
const SLICES: [&str; 3] = ["x", "y", "w"];
const V4: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "8.8.8.8"];
const V6: [&str; 3] = ["fd00::", "::1", "2600::1"];
/// Hostnames. One of them equals the generated label of an address.
const HOSTS: [&str; 4] = ["", "", "h", "10-0-0-2"];
const ZONES: [&str; 3] = ["", "n", "o.p"];
/// The labels before `_zone` in the names of questions.
pub const ZONAL: [&str; 7] = ["pin", "no", "n.no", "n.pin", "p.pin", "n.prefer", "o.p.prefer"];
const TARGETS: [&str; 8] = [
    "n.pin._zone.s.a.svc.z",
    "t.a.svc.m",
    "s.a.svc.z",
    "t.b.svc.z",
    "h.s.a.svc.z",
    "10-0-0-1.a.pod.z",
    "1.0.0.10.in-addr.arpa",
    "example.com",
];
const PORTS: [Port; 5] = [
    ("http", "TCP", 80),
    ("http", "TCP", 81),
    ("dns", "UDP", 80),
    ("", "TCP", 80),
    (LONG_PORT, "UDP", 82),
];
/// A port's name that does not fit into a label after an underscore.
pub const LONG_PORT: &str = "p23456789-123456789-123456789-123456789-123456789-123456789-123";
/// Not an address.
const UNREADABLE: &str = "10.0.0.300";
