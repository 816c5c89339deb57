//! Further zones with the same objects: a second cluster domain, and zones of addresses outside the
//! cluster, with `--extra-domain` and `--external-domain`. CoreDNS's `external_test.go` in rows,
//! and what follows from the one rule of existence.

use kubedns::name::Name;
use kubedns::records::{ExternalZones, Zone};
use kubedns::store::Changed;
use kubedns::transfer::{Apex, Tally, records};

use super::{check, check_additional, zone};
use crate::fixture::cluster::Cluster;

/// The cluster domain, the domain second.example, and external addresses in k8s.example.
fn outside(headless: bool) -> Zone {
    let name = |text| Name::parse(text).unwrap();
    let mut zone = zone();
    zone.name_server = ["10.96.0.10".parse().unwrap()].into();
    let external = ExternalZones {
        domains: vec![name("k8s.example")],
        label: (*b"\x03dns").into(),
        ttl_secs: 30,
        headless,
    };
    zone.with_views(&[name("second.example")], &external)
}

const OBJECTS: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: empty}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.0.0.7,
 externalIPs: [192.0.2.4], ports: [{name: http, port: 80}, {name: https, port: 443}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: six, namespace: shop}, spec: {clusterIP: 10.0.0.8,
 ports: [{port: 80}]}, status: {loadBalancer: {ingress: [{ip: "2001:db8::5"}]}}}
---
{apiVersion: v1, kind: Service, metadata: {name: lb, namespace: shop}, spec: {clusterIP: 10.0.0.9,
 ports: [{name: http, port: 80}]},
 status: {loadBalancer: {ingress: [{hostname: lb.cloud.example}]}}}
---
{apiVersion: v1, kind: Service, metadata: {name: both, namespace: shop}, spec: {clusterIP: None,
 externalIPs: [192.0.2.9], ports: [{name: http, port: 80}]},
 status: {loadBalancer: {ingress: [{hostname: lb.cloud.example}]}}}
---
{apiVersion: v1, kind: Service, metadata: {name: inside, namespace: shop},
 spec: {clusterIP: 10.0.0.10, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop},
 spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
 metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}},
 ports: [{name: sql, port: 5432, protocol: TCP}],
 endpoints: [{addresses: [10.1.0.1], hostname: db-0, targetRef: {kind: Pod, name: db-0}}]}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
 metadata: {name: inside-1, namespace: shop, labels: {kubernetes.io/service-name: inside}},
 ports: [{name: http, port: 80, protocol: TCP}],
 endpoints: [{addresses: [10.1.0.2], hostname: in-0, targetRef: {kind: Pod, name: in-0}}]}
"#;

#[test]
fn services_have_their_addresses_outside() {
    check(
        &Cluster::of(outside(false), OBJECTS),
        &[
            ("web.shop.k8s.example. A", "NOERROR", &["@ A 192.0.2.4"]),
            ("WEB.Shop.K8S.example. A", "NOERROR", &["@ A 192.0.2.4"]),
            ("web.shop.k8s.example. AAAA", "NODATA", &[]),
            ("web.shop.k8s.example. PTR", "NODATA", &[]),
            (
                "web.shop.k8s.example. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 web.shop.k8s.example.", "@ SRV 0 100 443 web.shop.k8s.example."],
            ),
            (
                "_http._tcp.web.shop.k8s.example. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 web.shop.k8s.example."],
            ),
            ("_http._tcp.web.shop.k8s.example. A", "NODATA", &[]),
            ("_tcp.web.shop.k8s.example. A", "NODATA", &[]),
            ("_udp.web.shop.k8s.example. A", "NXDOMAIN", &[]),
            ("_dns._tcp.web.shop.k8s.example. SRV", "NXDOMAIN", &[]),
            ("a._http._tcp.web.shop.k8s.example. SRV", "NXDOMAIN", &[]),
            ("six.shop.k8s.example. AAAA", "NOERROR", &["@ AAAA 2001:db8::5"]),
            ("six.shop.k8s.example. A", "NODATA", &[]),
            // A load balancer with a name is an alias, of every type.
            ("lb.shop.k8s.example. A", "NOERROR", &["@ CNAME lb.cloud.example."]),
            ("lb.shop.k8s.example. SRV", "NOERROR", &["@ CNAME lb.cloud.example."]),
            (
                "_http._tcp.lb.shop.k8s.example. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 lb.cloud.example."],
            ),
            // A name has addresses or is an alias, and not both.
            ("both.shop.k8s.example. A", "NOERROR", &["@ A 192.0.2.9"]),
            ("both.shop.k8s.example. CNAME", "NODATA", &[]),
            ("inside.shop.k8s.example. A", "NXDOMAIN", &[]),
            ("in-0.inside.shop.k8s.example. A", "NXDOMAIN", &[]),
            ("db.shop.k8s.example. A", "NXDOMAIN", &[]),
            ("none.shop.k8s.example. A", "NXDOMAIN", &[]),
            ("shop.k8s.example. A", "NODATA", &[]),
            ("empty.k8s.example. A", "NODATA", &[]),
            ("none.k8s.example. A", "NXDOMAIN", &[]),
            ("web.none.k8s.example. A", "NXDOMAIN", &[]),
            // The zone's own names.
            ("k8s.example. NS", "NOERROR", &["@ NS ns1.dns.k8s.example."]),
            ("k8s.example. A", "NODATA", &[]),
            ("ns1.dns.k8s.example. A", "NOERROR", &["@ A 10.96.0.10"]),
            ("dns.k8s.example. A", "NODATA", &[]),
            ("ns.dns.k8s.example. A", "NXDOMAIN", &[]),
            ("a.ns1.dns.k8s.example. A", "NXDOMAIN", &[]),
            ("web.shop.svc.k8s.example. A", "NXDOMAIN", &[]),
            ("example. A", "REFUSED", &[]),
            // The cluster domain is as ever.
            ("web.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.0.0.7"]),
        ],
    );
    check_additional(
        &Cluster::of(outside(false), OBJECTS),
        &[
            ("_http._tcp.web.shop.k8s.example. SRV", &["web.shop.k8s.example. A 192.0.2.4"]),
            ("_http._tcp.lb.shop.k8s.example. SRV", &[]),
            ("six.shop.k8s.example. SRV", &["six.shop.k8s.example. AAAA 2001:db8::5"]),
            ("k8s.example. NS", &["ns1.dns.k8s.example. A 10.96.0.10"]),
        ],
    );
}

#[test]
fn headless_services_have_those_of_their_endpoints_if_asked_for() {
    let cluster = Cluster::of(outside(true), OBJECTS);
    check(
        &cluster,
        &[
            ("db.shop.k8s.example. A", "NOERROR", &["@ A 10.1.0.1"]),
            ("db-0.db.shop.k8s.example. A", "NOERROR", &["@ A 10.1.0.1"]),
            ("db-1.db.shop.k8s.example. A", "NXDOMAIN", &[]),
            (
                "_sql._tcp.db.shop.k8s.example. SRV",
                "NOERROR",
                &["@ SRV 0 100 5432 db-0.db.shop.k8s.example."],
            ),
            ("_tcp.db.shop.k8s.example. A", "NODATA", &[]),
            // Endpoints of Services without an address outside have names too.
            ("in-0.inside.shop.k8s.example. A", "NOERROR", &["@ A 10.1.0.2"]),
            ("inside.shop.k8s.example. A", "NODATA", &[]),
            ("both.shop.k8s.example. A", "NOERROR", &["@ A 192.0.2.9"]),
            ("lb.shop.k8s.example. A", "NOERROR", &["@ CNAME lb.cloud.example."]),
        ],
    );
    check_additional(
        &cluster,
        &[("_sql._tcp.db.shop.k8s.example. SRV", &["db-0.db.shop.k8s.example. A 10.1.0.1"])],
    );
}

#[test]
fn a_second_domain_has_the_same_records() {
    check(
        &Cluster::of(outside(false), OBJECTS),
        &[
            ("web.shop.svc.second.example. A", "NOERROR", &["@ A 10.0.0.7"]),
            (
                "_http._tcp.web.shop.svc.second.example. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 web.shop.svc.second.example."],
            ),
            ("db-0.db.shop.svc.second.example. A", "NOERROR", &["@ A 10.1.0.1"]),
            ("10-1-2-3.shop.pod.second.example. A", "NOERROR", &["@ A 10.1.2.3"]),
            ("none.shop.svc.second.example. A", "NXDOMAIN", &[]),
            ("second.example. NS", "NOERROR", &["@ NS ns.dns.second.example."]),
            ("dns-version.second.example. TXT", "NOERROR", &["@ TXT 1.1.0"]),
            // Reverse names point to the first domain.
            ("7.0.0.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR web.shop.svc.cluster.local."]),
        ],
    );
}

#[test]
fn changes_reach_every_zone() {
    let mut cluster = Cluster::of(outside(true), OBJECTS);
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: \
         {clusterIP: 10.0.0.7, externalIPs: [192.0.2.5]}}",
    );
    let Some(Changed::Names(names)) = cluster.writer.publish(2).map(|it| it.changed) else {
        panic!("the names of one Service change");
    };
    let names = format!("{names:?}");
    for name in
        ["web.shop.svc.cluster.local.", "web.shop.svc.second.example.", "web.shop.k8s.example."]
    {
        assert!(names.contains(&format!("{name:?}")), "{name}: {names}");
    }
    check(&cluster, &[("web.shop.k8s.example. A", "NOERROR", &["@ A 192.0.2.5"])]);
}

#[test]
fn what_is_transferred_is_what_is_answered() {
    let cluster = Cluster::of(outside(false), OBJECTS);
    let snapshot = cluster.reader.snapshot();
    let name = |text| Name::parse(text).unwrap();
    assert_eq!(Apex::of(&snapshot, name("second.example").wire()), Some(Apex::View(0)));
    assert_eq!(Apex::of(&snapshot, name("k8s.example").wire()), Some(Apex::View(1)));
    // SOA, NS, ns1, SOA; web: A and four SRV; six: AAAA, SRV; lb: CNAME, SRV; both: A and two SRV.
    assert_eq!(records(&snapshot, Apex::View(1)).count(), 4 + 5 + 2 + 2 + 3);
    let all = |apex| records(&snapshot, apex).count();
    assert_eq!(all(Apex::View(0)), all(Apex::Cluster));
    assert_eq!(Tally::of(&snapshot).aaaa, 1);
}
