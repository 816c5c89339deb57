//! Objects with texts and lists of every size, valid or not, as files may contain them. An invalid
//! object may only affect itself, and all messages, names and snapshots must be valid.

use kubedns::explain::explain;
use kubedns::name::Name;
use kubedns::project::change;
use kubedns::records::{Counts, PodMode, Records, Zone};
use kubedns::snapshot::codec::{Header, encode};
use kubedns::snapshot::restore;
use kubedns::transfer::{Apex, MESSAGE_LEN, Tally, fill, records};
use proptest::prelude::*;
use serde_json::{Value, json};
use shared::wire::{NameBuffer, Query, Reply, Transport};

use crate::fixture::cluster::{Cluster, input};
use crate::fixture::dns;

/// Lengths around every bound that a text has.
const LENGTHS: [usize; 14] = [0, 1, 15, 57, 58, 61, 62, 63, 64, 65, 127, 253, 254, 300];
/// Lengths around every bound that a list has.
const COUNTS: [usize; 8] = [0, 1, 2, 16, 17, 100, 257, 1_000];

/// Generates a text of some length: one label, several, or characters that names cannot have.
fn text() -> impl Strategy<Value = String> {
    let length = prop::sample::select(&LENGTHS[..]);
    (length, 0..8_u8, any::<u8>()).prop_map(|(length, kind, letter)| {
        let letter = char::from(b'a' + letter % 3);
        let repeated = |text: &str| text.chars().cycle().take(length).collect::<String>();
        match kind {
            0 => repeated(&format!("{letter}.")),
            1 => repeated(&format!("{}.", String::from(letter).repeat(31))),
            2 => repeated("ä"),
            3 => repeated("_a"),
            _ => repeated(&String::from(letter)),
        }
    })
}

/// Generates a name. It is mostly one of two, so that objects share names.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just("s".to_owned()), 3 => Just("s".repeat(63)), 2 => text()]
}

fn namespace() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just("n".to_owned()), 3 => Just("n".repeat(63)), 1 => text()]
}

fn count() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..4_usize, 1 => prop::sample::select(&COUNTS[..])]
}

fn addresses(v6: bool) -> impl Strategy<Value = Vec<String>> {
    (count(), 0..6_u8).prop_map(move |(count, kind)| {
        let write = |index: usize| match (v6, kind) {
            (_, 0) => "1".repeat(index),
            (false, 1) => format!("::ffff:10.0.{}.{}", index >> 8, index & 255),
            (false, _) => format!("10.0.{}.{:0>3}", index >> 8, index & 255),
            (true, _) => format!("fd00::{index:0>20x}"),
        };
        (0..count).map(write).collect()
    })
}

fn ports() -> impl Strategy<Value = Value> {
    let port = |name: &str, protocol: u8, number: u32| {
        let protocol = ["TCP", "UDP", "SCTP", "", "tcp"][usize::from(protocol)];
        json!({"name": name, "protocol": protocol, "port": number})
    };
    let all_protocols = prop_oneof![9 => 0..4_u8, 1 => Just(4)];
    (text(), all_protocols, count(), 0..3_u32).prop_map(move |(name, protocol, count, first)| {
        (0..count as u32).map(|index| port(&name, protocol, first + index)).collect()
    })
}

fn service(kind: &'static str) -> impl Strategy<Value = Value> {
    let shape = (0..4_u8, text());
    let all = prop_oneof![addresses(false), addresses(true)];
    (name(), namespace(), shape, all, ports()).prop_map(
        move |(name, namespace, (shape, external), ips, ports)| {
            let spec = match (shape, kind) {
                (0, "Service") => json!({"type": "ExternalName", "externalName": external}),
                (1, "Service") => json!({"clusterIP": "None", "ports": ports}),
                (0 | 1, _) => json!({"type": "Headless", "ports": ports}),
                _ => json!({"clusterIPs": ips, "ips": ips, "ports": ports}),
            };
            let metadata = json!({"name": name, "namespace": namespace});
            json!({"kind": kind, "metadata": metadata, "spec": spec})
        },
    )
}

fn slice() -> impl Strategy<Value = Value> {
    let labels = (prop::option::of(name()), prop::option::of((name(), text())));
    let endpoints = any::<bool>().prop_flat_map(|v6| (Just(v6), addresses(v6), text(), 0..3_u8));
    let own = prop_oneof![Just("x".to_owned()), text()];
    (own, namespace(), labels, endpoints, ports()).prop_map(
        |(name, namespace, (service, import), (v6, all, word, hosts), ports)| {
            let host = |index: usize| match hosts {
                0 => Value::Null,
                1 => json!(word),
                // As long as the word, but each one different.
                _ => json!(format!("{index:0>width$}", width = word.len())),
            };
            let endpoint = |(index, address): (usize, &String)| {
                json!({"addresses": [address], "hostname": host(index), "zone": host(index),
                    "conditions": {"ready": index % 7 != 0}, "targetRef": {"kind": "Pod"}})
            };
            let endpoints: Vec<Value> = all.iter().enumerate().map(endpoint).collect();
            json!({
                "kind": "EndpointSlice",
                "metadata": {"name": name, "namespace": namespace, "labels": {
                    "kubernetes.io/service-name": service,
                    "multicluster.kubernetes.io/service-name": import.as_ref().map(|of| &of.0),
                    "multicluster.kubernetes.io/source-cluster": import.as_ref().map(|of| &of.1),
                }},
                "addressType": if v6 { "IPv6" } else { "IPv4" },
                "endpoints": endpoints,
                "ports": ports,
            })
        },
    )
}

fn object() -> impl Strategy<Value = Value> {
    let pod = (namespace(), text(), addresses(false)).prop_map(|(namespace, name, ips)| {
        let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let metadata = json!({"name": name, "namespace": namespace});
        json!({"kind": "Pod", "metadata": metadata, "status": {"podIPs": ips}})
    });
    prop_oneof![
        4 => service("Service"),
        3 => service("ServiceImport"),
        6 => slice(),
        1 => text().prop_map(|name| json!({"kind": "Namespace", "metadata": {"name": name}})),
        1 => pod,
    ]
}

fn zone(domain: &str) -> Zone {
    let mut zone = Zone::new(domain).unwrap();
    zone.pods = PodMode::Verified;
    zone.zonal = true;
    zone.wildcards = true;
    zone.clusterset = Name::parse(&"c".repeat(57)).ok();
    zone
}

/// Returns every owner name of the zones. Panics if a message or a name is not valid.
fn owners(snapshot: &Records) -> Vec<String> {
    let mut owners = Vec::new();
    let clusterset = snapshot.clusterset().expect("it has one");
    for (apex, of) in [
        (Apex::Cluster, snapshot.zone().apex().to_string()),
        (Apex::Clusterset, clusterset.zone().apex().to_string()),
        (Apex::V4, "in-addr.arpa.".to_owned()),
        (Apex::V6, "ip6.arpa.".to_owned()),
    ] {
        let message = dns::query(&format!("{of} AXFR"), None);
        let mut rows = records(snapshot, apex).take(ROWS_MAX).peekable();
        while rows.peek().is_some() {
            let mut name = NameBuffer::new();
            let query = Query::screen(&message, Transport::Tcp, &mut name).expect("a query");
            let mut buffer = vec![0; MESSAGE_LEN];
            let mut reply = Reply::new(&query, &mut buffer);
            assert!(fill(&mut reply, &mut rows) > 0, "a record fits a message");
            let length = reply.finish();
            let answers = dns::read(&buffer[..length]).answers;
            owners.extend(answers.iter().map(|text| text.split(' ').next().unwrap().to_owned()));
        }
    }
    owners.sort();
    owners.dedup();
    owners
}

/// Asks for all names that `objects` make, and writes them to a snapshot and back.
fn live(domain: &str, objects: &[Value]) {
    let zone = zone(domain);
    let mut cluster = Cluster::empty(zone.clone());
    for object in objects {
        let (change, _) = change(&input(object.clone()));
        cluster.writer.apply(change);
    }
    cluster.apply(
        "{kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.7}}",
    );
    cluster.sync();
    let web = format!("web.shop.svc.{domain}. A");
    assert_eq!(cluster.ask(&web).answers.len(), 1);
    let snapshot = cluster.reader.snapshot();
    Tally::of(&snapshot);
    let owners = owners(&snapshot);
    let step = owners.len().div_ceil(NAMES_MAX).max(1);
    for owner in owners.iter().step_by(step) {
        for rtype in ["A", "AAAA", "SRV", "PTR", "ANY"] {
            let question = format!("{owner} {rtype}");
            for answer in [cluster.ask(&question), cluster.ask_tcp(&question)] {
                assert!(!matches!(&*answer.status, "NXDOMAIN" | "REFUSED"), "{question}");
            }
        }
        let name = Name::parse(owner).unwrap();
        assert_ne!(explain(&snapshot, &name, 255).status, "NXDOMAIN", "{owner}");
    }
    for wild in [format!("*.*.svc.{domain}. SRV"), format!("*._tcp.*.*.svc.{domain}. SRV")] {
        cluster.ask_tcp(&wild);
    }
    let mut file = Vec::new();
    let header = Header { as_of_ms: 1, generation: 1, serial: 1 };
    encode(&header, "me", &snapshot, &mut file).unwrap();
    let Ok(restored) = restore(&file, "me", zone) else { panic!("a snapshot of {objects:?}") };
    let again = restored.reader.snapshot();
    let counts = |records: &Records| Counts { pods: 0, ..records.counts() }; // kept by address
    assert_eq!(counts(&again), counts(&snapshot));
    assert_eq!(self::owners(&again).len(), owners.len());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None, // a failure becomes a row of a table
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_size_of_an_object_harms_more_than_the_object(
        long in any::<bool>(),
        objects in prop::collection::vec(object(), 1..7),
    ) {
        let domain = if long { "z".repeat(57) } else { "z".to_owned() };
        live(&domain, &objects);
    }
}

/// The longest of all values at once: 1,000 hostnames of a cluster, whose name fits or is too long.
#[test]
fn a_thousand_long_hostnames_of_a_cluster() {
    for cluster in ["c".repeat(62), format!("{}.{}", "c".repeat(31), "d".repeat(31)), {
        [&*"c".repeat(60), &*"d".repeat(60)].join(".")
    }] {
        let endpoint = |index: usize| {
            let address = format!("10.0.{}.{}", index >> 8, index & 255);
            json!({"addresses": [address], "hostname": format!("{index:0>63}")})
        };
        let slice = json!({
            "kind": "EndpointSlice",
            "metadata": {"name": "x", "namespace": "n", "labels": {
                "multicluster.kubernetes.io/service-name": "s",
                "multicluster.kubernetes.io/source-cluster": cluster,
            }},
            "addressType": "IPv4",
            "endpoints": (0..1_000).map(endpoint).collect::<Vec<_>>(),
        });
        let import = json!({"kind": "ServiceImport", "metadata": {"name": "s", "namespace": "n"},
            "spec": {"type": "Headless"}});
        let (_, rejected) = change(&input(slice.clone()));
        let reason = rejected.map(|rejected| rejected.reason.to_string());
        let too_long = "the label multicluster.kubernetes.io/source-cluster has more than 63 \
                        characters";
        assert_eq!(reason.as_deref(), (cluster.len() > 63).then_some(too_long));
        live("z", &[import, slice]);
    }
}

/// A reason must fit into one log line.
#[test]
fn texts_in_reasons_are_short() {
    let mut object = json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "n"}});
    object["status"] = json!({"podIP": "1".repeat(100_000)});
    let (_, rejected) = change(&input(object));
    assert!(rejected.unwrap().reason.to_string().len() < 200);
}

/// Records of a zone that are read. A list of 1,000 ports with 1,000 endpoints makes a million
/// records.
const ROWS_MAX: usize = 3_000;
/// Names that are asked for.
const NAMES_MAX: usize = 60;
