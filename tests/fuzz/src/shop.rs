//! A small cluster with objects of every kind, for the queries.

use std::sync::{Arc, LazyLock};

use kubedns::name::Name;
use kubedns::project::{Input, Kind, change};
use kubedns::records::{Records, Zone};
use kubedns::store::new;
use serde_json::{Value, from_value, json};

/// Services of every shape in one namespace. `db` has more endpoints than a datagram can hold.
pub static RECORDS: LazyLock<Arc<Records>> = LazyLock::new(|| {
    let mut zone = Zone::new("cluster.local").expect("a domain name");
    zone.wildcards = true;
    zone.zonal = true;
    zone.clusterset = Name::parse("clusterset.local").ok();
    let (mut writer, reader) = new(zone);
    let ports =
        json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let labels = json!({"kubernetes.io/service-name": "db"});
    let endpoint = |index: u8| {
        let hostname = index.is_multiple_of(2).then(|| format!("db-{index}"));
        let zone = ["a", "b.c"][usize::from(index % 2)];
        json!({"addresses": [format!("10.1.0.{index}")], "hostname": hostname, "zone": zone})
    };
    let endpoints: Vec<Value> = (0..100).map(endpoint).collect();
    let slice = json!({
        "metadata": {"name": "db-1", "namespace": "shop", "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "mysql", "port": 3306}],
    });
    let mut imported = slice.clone();
    imported["metadata"] = json!({"name": "db-a", "namespace": "shop", "labels": {
        "multicluster.kubernetes.io/service-name": "db",
        "multicluster.kubernetes.io/source-cluster": "cluster-a",
    }});
    let external = |target: &str| json!({"type": "ExternalName", "externalName": target});
    let inputs = [
        service("web", json!({"clusterIPs": ["10.96.0.7", "fd00::7"], "ports": ports})),
        service("db", json!({"clusterIP": "None"})),
        service("in", external("web.shop.svc.cluster.local")),
        service("out", external("example.com")),
        service("loop", external("loop.shop.svc.cluster.local")),
        Input::EndpointSlice(object(slice)),
        Input::Namespace(object(json!({"metadata": {"name": "shop"}}))),
        import("pay", json!({"type": "ClusterSetIP", "ips": ["10.42.0.1"], "ports": ports})),
        import("db", json!({"type": "Headless"})),
        Input::EndpointSlice(object(imported)),
    ];
    for input in inputs {
        writer.apply(change(&input).0);
    }
    for kind in Kind::ALL {
        writer.synced(kind);
    }
    writer.publish(0).expect("something has changed");
    reader.snapshot()
});

fn service(name: &str, spec: Value) -> Input {
    Input::Service(object(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})))
}

fn import(name: &str, spec: Value) -> Input {
    let metadata = json!({"name": name, "namespace": "shop"});
    Input::ServiceImport(object(json!({"metadata": metadata, "spec": spec})))
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    from_value(value).expect("the object has the shape of its kind")
}
