//! An answer must not allocate. An allocator counts, which must be a binary of its own.
#![allow(clippy::unwrap_used)] // in a test a panic is the message

use kubedns::answer::answer;
use kubedns::name::Name;
use kubedns::project::{Input, Kind, change};
use kubedns::records::Zone;
use kubedns::skydns::{Message, path_of_key};
use kubedns::store::{Reader, new};
use serde_json::{Value, from_value, json};
use shared::wire::{NameBuffer, Query, Reply, Transport};

/// Returns Services of each shape. One of them has 200 endpoints in two slices that share some.
fn shop() -> Reader {
    let service = |name: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": "shop"});
        Input::Service(from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    };
    let slice = |name: &str, first: u8, count: u8| {
        let endpoint = |index| {
            let host = (index % 2 == 0).then(|| format!("db-{index}"));
            let zone = ["a", "b"][usize::from(index % 2)];
            json!({"addresses": [format!("10.1.0.{index}")], "hostname": host, "zone": zone})
        };
        let labels = json!({"kubernetes.io/service-name": "db"});
        let object = json!({
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "addressType": "IPv4",
            "endpoints": (first..first + count).map(endpoint).collect::<Vec<_>>(),
            "ports": [{"name": "mysql", "port": 3306}],
        });
        Input::EndpointSlice(from_value(object).unwrap())
    };
    let imported = json!({
        "metadata": {"name": "db-c", "namespace": "shop", "labels": {
            "multicluster.kubernetes.io/service-name": "db",
            "multicluster.kubernetes.io/source-cluster": "east",
        }},
        "addressType": "IPv4",
        "endpoints": (0..20).map(|index| json!({"addresses": [format!("10.3.0.{index}")]}))
            .collect::<Vec<_>>(),
        "ports": [{"name": "mysql", "port": 3306}],
    });
    let import = json!({"metadata": {"name": "db", "namespace": "shop"}, "spec":
        {"type": "Headless"}});
    let ports = json!([{"name": "http", "port": 80}]);
    let mut zone = Zone::new("cluster.local").unwrap();
    zone.zonal = true;
    zone.clusterset = Name::parse("clusterset.local").ok();
    let zone = zone.with_keys(&[Name::parse("skydns.local").unwrap()], false, false);
    let (mut writer, reader) = new(zone);
    for (key, value) in [
        ("local/skydns/www/1", r#"{"host":"10.4.0.1","targetstrip":1,"port":80}"#),
        ("local/skydns/www/2", r#"{"host":"10.4.0.2","targetstrip":1,"text":"two"}"#),
        ("local/skydns/alias/1", r#"{"host":"www.skydns.local"}"#),
    ] {
        let path = path_of_key(key).unwrap();
        let message = Message::read(path.clone(), 7, value.as_bytes(), None).unwrap();
        writer.put_key(&path, Some(message));
    }
    writer.finish_keys();
    for input in [
        service("web", json!({"clusterIPs": ["10.96.0.7", "fd00::7"], "ports": ports})),
        service(
            "alias",
            json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"}),
        ),
        service("db", json!({"clusterIP": "None"})),
        slice("db-a", 0, 100),
        slice("db-b", 90, 110),
        Input::ServiceImport(from_value(import).unwrap()),
        Input::EndpointSlice(from_value(imported).unwrap()),
    ] {
        writer.apply(change(&input).0);
    }
    for kind in Kind::ALL {
        writer.synced(kind);
    }
    writer.publish(0).unwrap();
    reader
}

#[test]
fn an_answer_allocates_nothing_whatever_it_is() {
    let reader = shop();
    let check = |name: &str, qtype: u16, transport: Transport, rcode: u8, answers: u16| {
        let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(Name::parse(name).unwrap().wire());
        message.extend([(qtype >> 8) as u8, qtype as u8, 0, 1]);
        let mut name_buffer = NameBuffer::new();
        let mut buffer = vec![0; 65_535];
        let mut counts = [0; 2];
        let mut ask = || {
            let query = Query::screen(&message, transport, &mut name_buffer).unwrap();
            let mut reply = Reply::new(&query, &mut buffer);
            answer(&query, &reader.records(), 7, &mut reply);
            counts = [u16::from(reply.rcode() as u8), reply.counts()[0]];
            reply.finish()
        };
        ask(); // the first read of a thread registers it as a reader
        let counted = allocation_counter::measure(|| {
            ask();
        });
        assert_eq!(counts, [u16::from(rcode), answers], "{name} {qtype}");
        assert_eq!((counted.count_total, counted.bytes_total), (0, 0), "{name} {qtype}");
    };
    use Transport::{Tcp, Udp};
    check("web.shop.svc.cluster.local", 1, Udp, 0, 1);
    check("web.shop.svc.cluster.local", 28, Udp, 0, 1);
    check("web.shop.svc.cluster.local", 255, Udp, 0, 1);
    check("web.shop.svc.cluster.local", 16, Udp, 0, 0);
    check("_http._tcp.web.shop.svc.cluster.local", 33, Udp, 0, 1);
    check("alias.shop.svc.cluster.local", 1, Udp, 0, 2);
    check("www.example.com.shop.svc.cluster.local", 1, Udp, 3, 0);
    check("db.shop.svc.cluster.local", 1, Udp, 0, 29);
    check("db.shop.svc.cluster.local", 1, Tcp, 0, 200);
    check("db.shop.svc.cluster.local", 33, Tcp, 0, 200);
    check("db-2.db.shop.svc.cluster.local", 1, Udp, 0, 1);
    check("a.pin._zone.db.shop.svc.cluster.local", 1, Tcp, 0, 100);
    check("a.pin._zone.db.shop.svc.cluster.local", 33, Tcp, 0, 100);
    check("c.pin._zone.db.shop.svc.cluster.local", 1, Udp, 0, 0);
    check("c.prefer._zone.db.shop.svc.cluster.local", 1, Tcp, 0, 200);
    check("10-1-0-95.db.shop.svc.cluster.local", 1, Udp, 0, 1);
    check("95.0.1.10.in-addr.arpa", 12, Udp, 0, 1);
    check("7.0.96.10.in-addr.arpa", 12, Udp, 0, 1);
    check("201.0.1.10.in-addr.arpa", 12, Udp, 3, 0);
    check("10-9-8-7.shop.pod.cluster.local", 1, Udp, 0, 1);
    check("cluster.local", 6, Udp, 0, 1);
    check("db.shop.svc.clusterset.local", 1, Udp, 0, 20);
    check("_mysql._tcp.db.shop.svc.clusterset.local", 33, Tcp, 0, 20);
    check("10-3-0-7.east.db.shop.svc.clusterset.local", 1, Udp, 0, 1);
    check("east.db.shop.svc.clusterset.local", 1, Udp, 0, 0);
    check("10-3-0-7.west.db.shop.svc.clusterset.local", 1, Udp, 3, 0);
    check("7.0.3.10.in-addr.arpa", 12, Udp, 0, 1);
    check("www.skydns.local", 1, Udp, 0, 2);
    check("www.skydns.local", 16, Udp, 0, 1);
    check("www.skydns.local", 33, Udp, 0, 2);
    check("www.skydns.local", 28, Udp, 0, 0);
    check("alias.skydns.local", 1, Udp, 0, 3);
    check("no.skydns.local", 1, Udp, 3, 0);
    check("skydns.local", 6, Udp, 0, 1);
    check("example.com", 1, Udp, 5, 0);
}
