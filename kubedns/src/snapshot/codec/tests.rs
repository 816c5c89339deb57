//! If a file is cut at any length, or any byte is changed, it must be refused, never read in part.

use serde_json::{Value, json};
use shared::saved::frame::PIECE_LEN;
use shared::saved::frame::Refused::{Damaged, Other, Version};

use super::super::restore;
use super::*;
use crate::name::Name;
use crate::project::{Input, Kind, change};
use crate::records::{PodMode, Zone};
use crate::skydns::path_of_key;
use crate::store;

const IDENTITY: &str = "domain cluster.local., pods verified";
const HEADER: Header = Header { as_of_ms: 1_700_000_000_000, generation: 7 << 40, serial: 4_711 };

fn zone() -> Zone {
    let mut zone = Zone::new("cluster.local").unwrap();
    zone.pods = PodMode::Verified;
    zone.zonal = true;
    zone.clusterset = Some(Name::parse("clusterset.local").unwrap());
    zone
}

fn input(kind: Kind, object: Value) -> Input {
    match kind {
        Kind::Service => Input::Service(serde_json::from_value(object).unwrap()),
        Kind::EndpointSlice => Input::EndpointSlice(serde_json::from_value(object).unwrap()),
        Kind::Namespace => Input::Namespace(serde_json::from_value(object).unwrap()),
        Kind::Pod => Input::Pod(serde_json::from_value(object).unwrap()),
        Kind::ServiceImport => Input::ServiceImport(serde_json::from_value(object).unwrap()),
        Kind::Node => Input::Node(serde_json::from_value(object).unwrap()),
        Kind::ServiceCidr => Input::ServiceCidr(serde_json::from_value(object).unwrap()),
    }
}

fn slice(name: &str, service: &str, family: &str, endpoints: Value) -> (Kind, Value) {
    let labels = json!({"kubernetes.io/service-name": service});
    let metadata = json!({"name": name, "namespace": "shop", "labels": labels});
    let ports = json!([{"name": "http", "port": 8080}, {"port": 53, "protocol": "UDP"}]);
    let mut object = json!({"metadata": metadata, "addressType": family, "ports": ports});
    object["endpoints"] = endpoints;
    (Kind::EndpointSlice, object)
}

/// Returns the slice as one that was also imported.
fn also_imported((kind, mut object): (Kind, Value), service: &str) -> (Kind, Value) {
    let labels = &mut object["metadata"]["labels"];
    labels["multicluster.kubernetes.io/service-name"] = json!(service);
    labels["multicluster.kubernetes.io/source-cluster"] = json!("cluster-a.eu");
    (kind, object)
}

/// Returns objects with every kind of value that a field can have.
fn objects() -> Vec<(Kind, Value)> {
    let service = |name: &str, spec: Value| {
        let created = "2024-05-06T07:08:09Z";
        let metadata = json!({"name": name, "namespace": "shop", "creationTimestamp": created});
        (Kind::Service, json!({"metadata": metadata, "spec": spec}))
    };
    let ports = json!([{"name": "http", "port": 80}, {"port": 53, "protocol": "UDP"},
        {"name": "s", "port": 9, "protocol": "SCTP"}]);
    let ready = |ready: bool| json!({"ready": ready});
    let draining = json!({"ready": false, "serving": true, "terminating": true});
    vec![
        service("web", json!({"clusterIPs": ["10.0.0.7", "fd00::7"], "ports": ports})),
        service("bank", json!({"type": "ExternalName", "externalName": "api.example.org"})),
        service("db", json!({"clusterIP": "None", "publishNotReadyAddresses": true})),
        slice(
            "db-1",
            "db",
            "IPv4",
            json!([
                {"addresses": ["10.1.0.1"], "hostname": "db-0", "zone": "Corp.example.com",
                    "conditions": ready(true)},
                {"addresses": ["10.1.0.2"], "hostname": "db-1", "conditions": ready(false)},
                {"addresses": ["10.1.0.3"], "zone": "us-west-2a", "conditions": draining},
                {"addresses": ["10.1.0.4"], "hostname": "db-0",
                    "targetRef": {"kind": "Pod", "namespace": "shop"}},
            ]),
        ),
        slice(
            "db-6",
            "db",
            "IPv6",
            json!([{"addresses": ["fd01::1"]}, {"addresses": ["fd01::2"],
            "hostname": "db-0"}]),
        ),
        slice("empty", "web", "IPv4", json!([])),
        also_imported(slice("none", "web", "IPv4", json!([])), "db"),
        slice(
            "orphan",
            "nobody",
            "IPv4",
            json!([{"addresses": ["10.1.0.9"],
            "targetRef": {"kind": "Pod"}}]),
        ),
        also_imported(
            slice(
                "both",
                "nobody",
                "IPv4",
                json!([{"addresses": ["10.1.0.8"]},
                {"addresses": ["10.1.0.7"], "hostname": "db-7"}]),
            ),
            "db",
        ),
        (
            Kind::ServiceImport,
            json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"type": "Headless"}}),
        ),
        (
            Kind::ServiceImport,
            json!({"metadata": {"name": "pay", "namespace": "shop"},
            "spec": {"type": "ClusterSetIP", "ips": ["10.42.0.1"], "ports": [{"port": 443}]}}),
        ),
        (Kind::Namespace, json!({"metadata": {"name": "shop"}})),
        (Kind::Namespace, json!({"metadata": {"name": "quiet"}})),
        (
            Kind::Pod,
            json!({"metadata": {"name": "a", "namespace": "shop"},
            "status": {"podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd01::1"}]}}),
        ),
        (
            Kind::Pod,
            json!({"metadata": {"name": "b", "namespace": "batch"},
            "status": {"podIP": "10.1.0.1"}}),
        ),
    ]
}

/// Returns the records of `objects`.
fn records(objects: Vec<(Kind, Value)>) -> Records {
    let (mut writer, reader) = store::new(zone());
    for (kind, object) in objects {
        let (change, rejected) = change(&input(kind, object));
        assert_eq!(rejected, None);
        writer.apply(change);
    }
    Kind::ALL.into_iter().for_each(|kind| writer.synced(kind));
    writer.publish(0);
    Records::clone(&reader.records())
}

const DAMAGED: Refused = Refused::Frame(Damaged);

fn file(records: &Records) -> Vec<u8> {
    let mut file = Vec::new();
    let len = encode(&HEADER, IDENTITY, records, &mut file).unwrap();
    assert_eq!(len, file.len() as u64);
    file
}

/// Returns the content of a file, sorted. Fails if any of it is refused.
fn read(file: &[u8]) -> Result<(Header, Vec<String>), Refused> {
    let decoded = Decoded::open(file, IDENTITY)?;
    let header = decoded.header;
    let objects: Result<Vec<_>, _> = decoded.collect();
    let mut texts: Vec<String> = objects?.iter().map(|object| format!("{object:?}")).collect();
    texts.sort();
    Ok((header, texts))
}

#[test]
fn what_was_written_is_read() {
    let before = records(objects());
    let file = file(&before);
    let restored = restore(&file, IDENTITY, zone()).unwrap();
    assert_eq!(restored.header, HEADER);
    let after = restored.reader.snapshot();
    assert!(after.is_complete() && after.is_stale() && after.serial() == 4_711);
    let (mut counts, mut expected) = (after.counts(), before.counts());
    (counts.pods, expected.pods) = (0, 0); // the file has only the addresses of Pods
    assert_eq!(counts, expected);
    let imports = [&before, &after].map(|records| &**records.clusterset().unwrap());
    assert!(imports[1].is_stale() && imports[1].counts() == imports[0].counts());
    assert_eq!(imports[0].counts().services, 2);
    for [before, after] in [[&before, &*after], imports] {
        for entry in before.entries() {
            let same = after.entry(entry.key()).unwrap();
            assert_eq!(same.service(), entry.service());
            let slices = |entry: &crate::records::Entry| {
                let mut slices: Vec<_> = entry.slices().cloned().collect();
                slices.sort_by(|a, b| a.name().cmp(b.name()));
                slices
            };
            assert_eq!(slices(same), slices(entry));
        }
    }
    let pods = |records: &Records| {
        let pods = records.pod_addresses().map(|(label, address)| (label.clone(), address));
        let mut pods: Vec<_> = pods.collect();
        pods.sort();
        pods
    };
    assert_eq!(pods(&after), pods(&before));
    assert_eq!(pods(&after).len(), 3);
    assert_eq!(after.ttl_secs(), 30);
}

/// Messages of etcd are marked as stale like objects, until they are listed.
#[test]
fn messages_of_etcd_are_read() {
    let zone = zone().with_keys(&[Name::parse("skydns.local").unwrap()], false, false);
    let values = [
        r#"{"host":"10.0.0.1","port":80,"weight":7,"priority":3,"ttl":5,"targetstrip":2}"#,
        r#"{"host":"fd00::1","port":-1,"mail":true,"group":"g"}"#,
        r#"{"host":"*.example.com","text":"long and \"quoted\" \u00fc"}"#,
        "{}",
    ];
    let messages: Vec<Message> = (0..)
        .zip(values)
        .map(|(number, value): (u32, _)| {
            let path = path_of_key(&format!("local/skydns/{number}")).unwrap();
            Message::read(path, 9, value.as_bytes(), None).unwrap()
        })
        .collect();
    let (mut writer, reader) = store::new(zone.clone());
    Kind::ALL.into_iter().for_each(|kind| writer.synced(kind));
    for message in &messages {
        writer.put_key(message.path(), Some(message.clone()));
    }
    writer.finish_keys();
    writer.publish(9);
    let file = file(&reader.records());
    for end in 0..file.len() {
        assert!(restore(&file[..end], IDENTITY, zone.clone()).is_err(), "{end}");
    }
    let mut restored = restore(&file, IDENTITY, zone).unwrap();
    let read = |reader: &store::Reader| {
        let mut all = Vec::new();
        reader.records().keys().tree.root().each(&mut |message| all.push((**message).clone()));
        (all, reader.records().views()[0].is_stale())
    };
    assert_eq!(read(&restored.reader), (messages.clone(), true));
    assert!(!restored.reader.records().is_known());
    restored.writer.begin_keys();
    restored.writer.put_key(messages[0].path(), Some(messages[0].clone()));
    restored.writer.finish_keys();
    restored.writer.publish(10);
    assert_eq!(read(&restored.reader), (messages[..1].to_vec(), false));
}

#[test]
fn the_truth_replaces_a_snapshot_as_a_difference() {
    let file = file(&records(objects()));
    let mut restored = restore(&file, IDENTITY, zone()).unwrap();
    let relist = |writer: &mut store::Writer, objects: &[(Kind, Value)], kinds: &[Kind]| {
        for &kind in kinds {
            let relist = writer.begin_relist(kind, None);
            for (_, object) in objects.iter().filter(|(of, _)| *of == kind) {
                writer.apply(change(&input(kind, object.clone())).0);
            }
            writer.finish_relist(relist);
            writer.synced(kind);
        }
    };
    let mut now = objects();
    now.retain(|(_, object)| object["metadata"]["name"] != "bank");
    now[0].1["spec"]["clusterIPs"] = json!(["10.0.0.8"]);
    relist(&mut restored.writer, &now, &Kind::ALL[..3]);
    assert!(restored.writer.publish(5_000).is_none(), "one kind is still to come");
    assert!(restored.reader.records().is_stale());
    relist(&mut restored.writer, &now, &Kind::ALL[3..]);
    let published = restored.writer.publish(5_000).unwrap();
    assert_eq!(published.serial, 5_000);
    let crate::store::Changed::Names(names) = published.changed else { panic!("all of it") };
    let mut names: Vec<_> = names.iter().map(|name| shared::name::Text(name).to_string()).collect();
    names.sort();
    let mut expected = [
        "7.0.0.10.in-addr.arpa.",
        "8.0.0.10.in-addr.arpa.",
        "bank.shop.svc.cluster.local.",
        "web.shop.svc.cluster.local.",
    ]
    .map(str::to_owned)
    .to_vec();
    // All ancestors up to one that has another address.
    expected.push(names.iter().find(|name| name.ends_with("ip6.arpa.")).unwrap().clone());
    expected.sort();
    assert_eq!(names, expected);
    assert!(!restored.reader.records().is_stale());
}

#[test]
fn the_ranges_of_the_cluster_outlive_a_process() {
    let cidr = |text: &str| {
        let metadata = json!({"name": "kubernetes"});
        (Kind::ServiceCidr, json!({"metadata": metadata, "spec": {"cidrs": [text]}}))
    };
    let (mut writer, reader) = store::new(zone());
    for (kind, object) in objects().into_iter().chain([cidr("10.96.0.0/15")]) {
        writer.apply(change(&input(kind, object)).0);
    }
    Kind::KNOWN.into_iter().for_each(|kind| writer.synced(kind));
    writer.publish(0);
    let file = file(&reader.records());
    let mut restored = restore(&file, IDENTITY, zone()).unwrap();
    let shown = |reader: &store::Reader| reader.records().ranges().to_string();
    assert_eq!(shown(&restored.reader), "10.96.0.0/15");
    // Until all of their sources have been listed.
    for kind in Kind::ALL {
        restored.writer.synced(kind);
    }
    restored.writer.publish(0);
    assert_eq!(shown(&restored.reader), "10.96.0.0/15");
    let (kind, object) = cidr("10.50.0.0/16");
    restored.writer.apply(change(&input(kind, object)).0);
    restored.writer.synced(Kind::ServiceCidr);
    restored.writer.publish(0);
    assert_eq!(shown(&restored.reader), "10.50.0.0/16, 10.96.0.0/15");
    restored.writer.settle(Kind::Node);
    let published = restored.writer.publish(0).unwrap();
    assert_eq!(shown(&restored.reader), "10.50.0.0/16");
    let crate::store::Changed::Names(names) = published.changed else { panic!("all of it") };
    let names: Vec<_> = names.iter().map(|name| shared::name::Text(name).to_string()).collect();
    assert_eq!(names, ["96.10.in-addr.arpa.", "97.10.in-addr.arpa."]);

    // The flag of a new process wins.
    let mut flag = zone();
    flag.cidrs = [shared::prefix::parse("10.0.0.0/16").unwrap()].into();
    assert_eq!(shown(&restore(&file, IDENTITY, flag).unwrap().reader), "10.0.0.0/16");
}

#[test]
fn nothing_new_is_news_too() {
    let mut restored = restore(&file(&records(objects())), IDENTITY, zone()).unwrap();
    for kind in Kind::ALL {
        restored.writer.synced(kind);
    }
    let published = restored.writer.publish(4_711).unwrap();
    let crate::store::Changed::Names(names) = published.changed else { panic!("all of it") };
    assert_eq!((names.len_bytes(), published.serial), (0, 4_712));
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let file = file(&records(objects()));
    assert_eq!(read(&file).unwrap().1.len(), 18);
    for len in 0..file.len() {
        let refused = read(&file[..len]).unwrap_err();
        assert_eq!(refused, DAMAGED, "{len} of {} bytes", file.len());
        assert!(restore(&file[..len], IDENTITY, zone()).is_err());
    }
    let longer = [&file[..], b"\0"].concat();
    assert_eq!(read(&longer), Err(DAMAGED));
}

#[test]
fn a_file_with_any_byte_changed_is_refused() {
    let file = file(&records(objects()));
    for at in 0..file.len() {
        for bits in [0x01, 0x20, 0x80, 0xff] {
            let mut other = file.clone();
            other[at] ^= bits;
            let refused = read(&other).unwrap_err();
            match at {
                0..16 => assert!(matches!(refused, Refused::Frame(Other { .. }))),
                16..18 => assert!(matches!(refused, Refused::Frame(Version { .. }))),
                _ => assert_eq!(refused, DAMAGED),
            }
        }
    }
}

#[test]
fn a_file_that_lies_about_itself_is_refused_or_is_another_whole_one() {
    let file = file(&records(objects()));
    let (body, _) = file.split_last_chunk::<4>().unwrap();
    let (mut whole, mut refused) = (0, 0);
    for at in 18..body.len() {
        for bits in [0x01, 0x7f, 0x80, 0xff] {
            let mut other = body.to_vec();
            other[at] ^= bits;
            other.extend(crc32fast::hash(&other).to_be_bytes());
            match restore(&other, IDENTITY, zone()) {
                Ok(_) => whole += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(whole > 0 && refused > whole, "{whole} {refused}");
}

#[test]
fn the_snapshot_of_another_kubedns_is_refused() {
    let file = file(&records(objects()));
    let refused = restore(&file, "domain cluster.local., pods disabled", zone()).err().unwrap();
    assert_eq!(
        refused.to_string(),
        "it belongs to a kubedns with domain cluster.local., pods verified, and this one has \
         domain cluster.local., pods disabled"
    );
    let refused = read(b"#!/bin/sh\n").unwrap_err();
    assert_eq!(refused.to_string(), "it is not a kubedns snapshot");
}

#[test]
fn pieces_are_small_whatever_the_size() {
    struct Pieces(Vec<usize>);
    impl Write for Pieces {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            self.0.push(piece.len());
            Ok(piece.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let endpoints = |slice: usize| -> Value {
        let address =
            |n: usize| json!({"addresses": [format!("10.{slice}.{}.{}", n / 250, n % 250)]});
        (0..1_000).map(address).collect()
    };
    let slices =
        (0..40).map(|number| slice(&format!("s{number}"), "db", "IPv4", endpoints(number)));
    let mut pieces = Pieces(Vec::new());
    encode(&HEADER, IDENTITY, &records(slices.collect()), &mut pieces).unwrap();
    assert!(pieces.0.iter().sum::<usize>() > 160_000);
    assert!(pieces.0.iter().all(|&len| len < 2 * PIECE_LEN), "{:?}", pieces.0);
}
