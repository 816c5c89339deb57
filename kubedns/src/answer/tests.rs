//! The cost of an answer depends on the reply. If slices repeat an address or a hostname, or other
//! Services claim it, a query looks at as many endpoints as if each was listed once.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, from_value, json};
use shared::wire::{NameBuffer, Query, Reply, Transport};

use super::answer;
use crate::name::Name;
use crate::project::{Input, Kind, change};
use crate::records::{Records, Zone, looks};
use crate::store::new;

/// How the same endpoints are spread over slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    /// Each once, 100 in a slice.
    Once,
    /// All of them in each of 50 slices.
    Repeated,
}

/// The kinds of endpoints.
#[derive(Clone, Copy, Debug)]
struct Kinds {
    v6: bool,
    hosts: bool,
    /// Each slice has its own port beside the common one.
    ports: bool,
}

const KINDS: [Kinds; 5] = [
    Kinds { v6: false, hosts: false, ports: false },
    Kinds { v6: true, hosts: false, ports: false },
    Kinds { v6: false, hosts: true, ports: false },
    Kinds { v6: true, hosts: true, ports: true },
    Kinds { v6: false, hosts: false, ports: true },
];

fn address(index: usize, v6: bool) -> String {
    if v6 {
        format!("fd00::{:x}", index + 1)
    } else {
        format!("10.1.{}.{}", index >> 8, index & 255)
    }
}

fn service(name: &str, namespace: &str, created: &str) -> Input {
    let metadata = json!({"name": name, "namespace": namespace, "creationTimestamp": created});
    let object = json!({"metadata": metadata, "spec": {"clusterIP": "None"}});
    Input::Service(from_value(object).unwrap())
}

fn slice(number: usize, indexes: std::ops::Range<usize>, kinds: Kinds) -> Input {
    let endpoint = |index: usize| {
        let host = kinds.hosts.then(|| format!("db-{index}"));
        let pod = json!({"kind": "Pod", "name": "p"});
        json!({"addresses": [address(index, kinds.v6)], "hostname": host, "targetRef": pod,
            "zone": if index.is_multiple_of(2) { "a" } else { "b" }})
    };
    let mut ports = vec![json!({"name": "mysql", "port": 3306})];
    if kinds.ports {
        ports.push(json!({"name": format!("p{number}"), "port": 3306}));
    }
    let object = json!({
        "metadata": {"name": format!("db-{number}"), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": if kinds.v6 { "IPv6" } else { "IPv4" },
        "endpoints": indexes.map(endpoint).collect::<Vec<Value>>(),
        "ports": ports,
    });
    Input::EndpointSlice(from_value(object).unwrap())
}

/// Returns a headless Service with 1,000 endpoints. Other, younger Services claim one of its
/// addresses.
fn shop(spread: Spread, kinds: Kinds, others: usize) -> Arc<Records> {
    let mut zone = Zone::new("cluster.local").unwrap();
    zone.zonal = true;
    let (mut writer, reader) = new(zone);
    let mut apply = |input: &Input| writer.apply(change(input).0);
    apply(&service("db", "shop", "2024-01-01T00:00:00Z"));
    match spread {
        Spread::Once => (0..10).for_each(|n| apply(&slice(n, n * 100..n * 100 + 100, kinds))),
        Spread::Repeated => (0..50).for_each(|n| apply(&slice(n, 0..1_000, kinds))),
    }
    for number in 0..others {
        let name = format!("other-{number}");
        apply(&service(&name, "away", "2025-01-01T00:00:00Z"));
        let Input::EndpointSlice(mut object) = slice(number, 7..8, kinds) else { unreachable!() };
        object.metadata.name.clone_from(&name);
        object.metadata.namespace = Some("away".to_owned());
        object.metadata.labels.service_name = Some(name);
        apply(&Input::EndpointSlice(object));
    }
    Kind::ALL.into_iter().for_each(|kind| writer.synced(kind));
    writer.publish(0).unwrap();
    reader.snapshot()
}

/// Returns the answer section as a set, the number of records in the whole reply, and the looks.
fn ask(records: &Records, name: &str, qtype: u16, transport: Transport) -> (Answers, usize, usize) {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(Name::parse(name).unwrap().wire());
    message.extend([(qtype >> 8) as u8, qtype as u8, 0, 1]);
    message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    let mut name_buffer = NameBuffer::new();
    let query = Query::screen(&message, transport, &mut name_buffer).unwrap();
    let mut buffer = vec![0; 65_535];
    let mut reply = Reply::new(&query, &mut buffer);
    looks::take();
    answer(&query, records, 7, &mut reply);
    let looks = looks::take();
    let counts = reply.counts();
    reply.finish();
    let mut at = 12 + query.question().len();
    let mut answers = BTreeSet::new();
    for _ in 0..counts[0] {
        // The owner is a pointer to the question.
        let length = usize::from(u16::from_be_bytes([buffer[at + 10], buffer[at + 11]]));
        assert!(answers.insert(buffer[at..at + 12 + length].to_vec()), "{name}: a record twice");
        at += 12 + length;
    }
    (answers, counts.iter().map(|&count| usize::from(count)).sum(), looks)
}

type Answers = BTreeSet<Vec<u8>>;

fn questions(kinds: Kinds) -> Vec<(String, u16)> {
    let reverse = crate::name::reverse(address(7, kinds.v6).parse().unwrap());
    let reverse = shared::name::Text(reverse.wire()).to_string();
    let label =
        if kinds.hosts { "db-7".to_owned() } else { address(7, kinds.v6).replace(['.', ':'], "-") };
    let mut questions = Vec::new();
    let below = |labels: &str| format!("{labels}db.shop.svc.cluster.local");
    for labels in [
        "",
        &format!("{label}."),
        "a.pin._zone.",
        "a.prefer._zone.",
        "c.pin._zone.",
        "c.prefer._zone.",
        "_mysql._tcp.",
        "_nope._tcp.",
        "_tcp.",
        "_udp.",
        "nope.",
        "10-9-9-9.",
        "db-1000.",
    ] {
        questions.extend([1, 28, 33, 16].map(|qtype| (below(labels), qtype)));
    }
    questions.push((reverse, 12));
    questions
}

#[test]
fn no_query_walks_all_holders_of_a_name_or_an_address() {
    for kinds in KINDS {
        let [once, repeated] =
            [Spread::Once, Spread::Repeated].map(|spread| shop(spread, kinds, 0));
        let mut records_max = 0;
        for (name, qtype) in questions(kinds) {
            for transport in [Transport::Udp, Transport::Tcp] {
                let check = |records: &Records| {
                    let (answers, count, looks) = ask(records, &name, qtype, transport);
                    // A search in a sorted list, some looks for each record, one for each list of
                    // ports.
                    let bound = 60 * (count + 1) + if kinds.ports { 400 } else { 40 };
                    assert!(looks <= bound, "{name} {qtype}: {looks} looks for {count} records");
                    (answers, count)
                };
                let ((mine, count), (other, _)) = (check(&once), check(&repeated));
                assert_eq!(mine.len(), other.len(), "{name} {qtype} {kinds:?}");
                if transport == Transport::Tcp {
                    assert_eq!(mine, other, "{name} {qtype} {kinds:?}");
                }
                records_max = records_max.max(count);
            }
        }
        assert!(records_max >= 1_000, "{records_max} records");
    }
}

#[test]
fn who_else_claims_an_address_costs_its_owner_nothing() {
    let kinds = KINDS[0];
    let reverse = "7.0.1.10.in-addr.arpa";
    let (alone, _, looks_alone) = ask(&shop(Spread::Once, kinds, 0), reverse, 12, Transport::Tcp);
    let (among, _, looks) = ask(&shop(Spread::Once, kinds, 1_000), reverse, 12, Transport::Tcp);
    assert_eq!(alone, among);
    assert_eq!(alone.len(), 1);
    assert!(looks <= looks_alone + 10, "{looks} looks, {looks_alone} alone");
}
