//! Which part of the cluster has names: namespaces picked by their labels, and a cluster without
//! endpoints.

use kubedns::project::{Kind, ObjectId};

use super::{check, zone};
use crate::fixture::cluster::Cluster;

const OBJECTS: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.0.0.7,
 ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {clusterIP: None}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: hidden},
 spec: {clusterIP: 10.0.0.8, ports: [{name: http, port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
 metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}},
 endpoints: [{addresses: [10.1.0.1], hostname: db-0, targetRef: {kind: Pod, name: db-0}}]}
"#;

#[test]
fn a_namespace_that_is_not_picked_has_no_names() {
    let mut zone = zone();
    zone.selects_namespaces = true;
    let mut cluster = Cluster::of(zone, OBJECTS);
    let own = &["@ A 10.0.0.7"][..];
    let hidden = [
        ("web.hidden.svc.cluster.local. A", "NXDOMAIN", &[][..]),
        ("_http._tcp.web.hidden.svc.cluster.local. SRV", "NXDOMAIN", &[]),
        ("hidden.svc.cluster.local. A", "NXDOMAIN", &[]),
        ("10-1-2-3.hidden.pod.cluster.local. A", "NXDOMAIN", &[]),
        ("8.0.0.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
        ("web.shop.svc.cluster.local. A", "NOERROR", own),
    ];
    let shown = [
        ("web.hidden.svc.cluster.local. A", "NOERROR", &["@ A 10.0.0.8"][..]),
        ("hidden.svc.cluster.local. A", "NODATA", &[]),
        ("10-1-2-3.hidden.pod.cluster.local. A", "NOERROR", &["@ A 10.1.2.3"]),
        ("8.0.0.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR web.hidden.svc.cluster.local."]),
        ("web.shop.svc.cluster.local. A", "NOERROR", own),
    ];
    check(&cluster, &hidden);
    // Its labels fit from now on, and later do not.
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: hidden}}");
    assert!(cluster.writer.publish(2).is_some());
    check(&cluster, &shown);
    cluster.delete(ObjectId::new(Kind::Namespace, "", "hidden"));
    assert!(cluster.writer.publish(3).is_some());
    check(&cluster, &hidden);
    // A Service that changes meanwhile is right once its namespace is picked again.
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: hidden}, spec: \
         {clusterIP: 10.0.0.9}}",
    );
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: hidden}}");
    assert!(cluster.writer.publish(4).is_some());
    check(
        &cluster,
        &[
            ("web.hidden.svc.cluster.local. A", "NOERROR", &["@ A 10.0.0.9"]),
            ("8.0.0.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("9.0.0.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR web.hidden.svc.cluster.local."]),
        ],
    );
    assert_eq!(cluster.reader.records().counts().services, 3);
}

#[test]
fn without_endpoints_headless_services_do_not_exist() {
    let mut zone = zone();
    zone.no_endpoints = true;
    let (mut writer, reader) = kubedns::store::new(zone);
    for kind in [Kind::Service, Kind::Namespace] {
        assert!(!reader.records().is_complete());
        writer.synced(kind);
        writer.publish(1);
    }
    assert!(reader.records().is_complete(), "EndpointSlices are not waited for");
}
