//! Names that do not belong to Services: reverse names, the apex, pods, and the effect of options.
//!
//! Rows only. The parent module checks a row.

use kubedns::records::{PodMode, Zone};
use kubedns::store::Changed;

use super::{CLAIMS, Row, SHOP, check, check_additional, zone};
use crate::fixture::cluster::Cluster;

#[test]
fn the_name_server_has_the_addresses_of_its_service() {
    let service = |address: &str| {
        format!(
            "
kind: Service
metadata: {{name: kube-dns, namespace: kube-system}}
spec: {{clusterIP: {address}}}
"
        )
    };
    let mut zone = zone();
    zone.name_service = Some((*b"\x08kube-dns\x0bkube-system").into());
    let mut cluster = Cluster::of(zone, SHOP);
    let configured: &[Row] = &[
        ("ns.dns.cluster.local. A", "NOERROR", &["@ A 10.96.0.10"]),
        ("ns.dns.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:96::10"]),
    ];
    check(&cluster, configured);
    let own: &[Row] = &[
        ("ns.dns.cluster.local. A", "NOERROR", &["@ A 10.0.0.10"]),
        ("ns.dns.cluster.local. AAAA", "NODATA", &[]),
    ];
    // A headless Service has no address of its own.
    for (address, rows) in [("10.0.0.10", own), ("None", configured)] {
        cluster.apply(&service(address));
        let Some(Changed::Names(names)) = cluster.sync().map(|published| published.changed) else {
            panic!("names changed");
        };
        let names = format!("{names:?}");
        assert!(names.contains("\"ns.dns.cluster.local.\""), "{names}");
        check(&cluster, rows);
    }
    let additional: &[&str] = &["ns.dns.cluster.local. A 10.0.0.10"];
    cluster.apply(&service("10.0.0.10"));
    cluster.sync();
    check_additional(&cluster, &[("cluster.local. NS", additional)]);
}

#[test]
fn reverse_names() {
    let cluster = Cluster::of(zone(), SHOP);
    check(
        &cluster,
        &[
            ("7.0.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR web.shop.svc.cluster.local."]),
            ("8.0.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR dual.shop.svc.cluster.local."]),
            (
                "8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa. PTR",
                "NOERROR",
                &["@ PTR dual.shop.svc.cluster.local."],
            ),
            // endpoints: hostname or generated label
            ("1.0.1.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR db-0.db.shop.svc.cluster.local."]),
            (
                "3.0.1.10.in-addr.arpa. PTR",
                "NOERROR",
                &["@ PTR 10-1-0-3.db.shop.svc.cluster.local."],
            ),
            (
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa. PTR",
                "NOERROR",
                &["@ PTR fd00-1--1.db6.shop.svc.cluster.local."],
            ),
            // endpoints of a Service with a cluster IP do not have reverse names
            ("1.1.1.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            // not ready, not existing
            ("4.0.1.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("99.0.1.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("1.0.0.127.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            // other types at a name that owns PTR
            (
                "8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa. A",
                "NODATA",
                &[],
            ),
            ("7.0.96.10.in-addr.arpa. A", "NODATA", &[]),
            ("7.0.96.10.in-addr.arpa. CNAME", "NODATA", &[]),
            ("7.0.96.10.in-addr.arpa. ANY", "NOERROR", &["@ PTR web.shop.svc.cluster.local."]),
            // ancestors of names that exist
            ("0.96.10.in-addr.arpa. PTR", "NODATA", &[]),
            ("96.10.in-addr.arpa. PTR", "NODATA", &[]),
            ("10.in-addr.arpa. SOA", "NODATA", &[]),
            ("in-addr.arpa. PTR", "NODATA", &[]),
            ("97.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("0.0.d.f.ip6.arpa. PTR", "NODATA", &[]),
            ("1.0.d.f.ip6.arpa. PTR", "NXDOMAIN", &[]),
            // shapes that are not an address
            ("1.7.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("007.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("300.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("web.shop.svc.cluster.local. PTR", "NODATA", &[]),
            ("7.0.96.10.IN-ADDR.arpa. PTR", "NOERROR", &["@ PTR web.shop.svc.cluster.local."]),
        ],
    );
    let missing = cluster.ask("99.0.1.10.in-addr.arpa. PTR");
    let soa = "in-addr.arpa. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. \
               1 7200 1800 86400 30";
    assert_eq!(missing.authorities, [soa]);
    let missing = cluster.ask("f.ip6.arpa. PTR");
    assert_eq!(missing.status, "NODATA");
    assert!(missing.authorities[0].starts_with("ip6.arpa. 30 IN SOA "), "{missing:?}");
}

#[test]
fn nobody_names_the_addresses_of_others() {
    let cluster = Cluster::of(zone(), CLAIMS);
    check(
        &cluster,
        &[
            // a cluster IP belongs only to its Service
            ("7.0.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR web.shop.svc.cluster.local."]),
            // an endpoint with a Pod wins, then the older Service's namespace; all its names answer
            (
                "1.0.1.10.in-addr.arpa. PTR",
                "NOERROR",
                &[
                    "@ PTR pet-0.pets.shop.svc.cluster.local.",
                    "@ PTR 10-1-0-1.other.shop.svc.cluster.local.",
                ],
            ),
            // alone, a slice without Pods can only name private addresses
            (
                "2.0.1.10.in-addr.arpa. PTR",
                "NOERROR",
                &["@ PTR 10-1-0-2.evil.away.svc.cluster.local."],
            ),
            ("8.8.8.8.in-addr.arpa. PTR", "REFUSED", &[]),
            ("8.8.8.in-addr.arpa. PTR", "REFUSED", &[]),
            (
                "4.4.8.8.in-addr.arpa. PTR",
                "NOERROR",
                &["@ PTR 8-8-4-4.pets.shop.svc.cluster.local."],
            ),
            // its forward names still answer
            ("google.evil.away.svc.cluster.local. A", "NOERROR", &["@ A 8.8.8.8"]),
            (
                "evil.away.svc.cluster.local. A",
                "NOERROR",
                &["@ A 8.8.8.8", "@ A 10.1.0.1", "@ A 10.1.0.2", "@ A 10.96.0.7"],
            ),
        ],
    );
}

#[test]
fn the_apex_and_what_belongs_to_it() {
    let cluster = Cluster::of(zone(), SHOP);
    check(
        &cluster,
        &[
            (
                "cluster.local. SOA",
                "NOERROR",
                &["@ SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30"],
            ),
            (
                "Cluster.local. SOA",
                "NOERROR",
                &["@ SOA ns.dns.Cluster.local. hostmaster.Cluster.local. 1 7200 1800 86400 30"],
            ),
            ("cluster.local. NS", "NOERROR", &["@ NS ns.dns.cluster.local."]),
            ("CLUSTER.Local. NS", "NOERROR", &["@ NS ns.dns.CLUSTER.Local."]),
            ("cluster.local. A", "NODATA", &[]),
            ("cluster.local. AAAA", "NODATA", &[]),
            ("cluster.local. SRV", "NODATA", &[]),
            ("cluster.local. TXT", "NODATA", &[]),
            ("cluster.local. HINFO", "NODATA", &[]),
            ("ns.dns.cluster.local. A", "NOERROR", &["@ A 10.96.0.10"]),
            ("ns.dns.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:96::10"]),
            ("ns.dns.cluster.local. TXT", "NODATA", &[]),
            ("ns.dns.Cluster.local. A", "NOERROR", &["@ A 10.96.0.10"]),
            ("dns.cluster.local. A", "NODATA", &[]),
            ("x.dns.cluster.local. A", "NXDOMAIN", &[]),
            ("x.ns.dns.cluster.local. A", "NXDOMAIN", &[]),
            ("dns-version.cluster.local. TXT", "NOERROR", &["@ TXT 1.1.0"]),
            ("dns-version.cluster.local. A", "NODATA", &[]),
            ("x.dns-version.cluster.local. TXT", "NXDOMAIN", &[]),
            ("svc.cluster.local. A", "NODATA", &[]),
            ("pod.cluster.local. A", "NODATA", &[]),
            ("shop.svc.cluster.local. A", "NODATA", &[]),
            ("shop.svc.cluster.local. SRV", "NODATA", &[]),
            ("shop.svc.cluster.local. SOA", "NODATA", &[]),
            ("svc.cluster.local. NS", "NODATA", &[]),
            ("shop.svc.cluster.local. NS", "NODATA", &[]),
            ("empty.svc.cluster.local. A", "NODATA", &[]),
            ("nope.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("nope.svc.cluster.local. SOA", "NXDOMAIN", &[]),
            ("nope.svc.cluster.local. NS", "NXDOMAIN", &[]),
            ("nope.cluster.local. A", "NXDOMAIN", &[]),
            ("nope.shop.svc.ClUsTeR.lOcAl. A", "NXDOMAIN", &[]),
            ("nope.ClUsTeR.lOcAl. NS", "NXDOMAIN", &[]),
            ("svc.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("web.shop.pood.cluster.local. A", "NXDOMAIN", &[]),
            ("7.0.96.10.cluster.local. PTR", "NXDOMAIN", &[]),
            // names outside the zones
            ("example.com. A", "REFUSED", &[]),
            ("local. A", "REFUSED", &[]),
            ("xcluster.local. A", "REFUSED", &[]),
            (". NS", "REFUSED", &[]),
            ("cluster.local. AXFR", "REFUSED", &[]),
            ("cluster.local. TYPE251", "REFUSED", &[]),
            ("web.shop.svc.cluster.local. CH A", "REFUSED", &[]),
        ],
    );
    let additional: &[&str] =
        &["ns.dns.cluster.local. A 10.96.0.10", "ns.dns.cluster.local. AAAA fd00:96::10"];
    check_additional(&cluster, &[("cluster.local. NS", additional)]);
    let refused = cluster.ask("example.com. A");
    assert_eq!(refused.error.map(|(code, _)| code), Some(20));
}

/// From CoreDNS's `kubernetes_test.go`: a name server of one family.
#[test]
fn a_name_server_has_the_addresses_it_has() {
    let (v4, v6) = ("10.96.0.10", "fd00:96::10");
    let of = |address: &str| {
        let mut zone = zone();
        zone.name_server = [address.parse().unwrap()].into();
        Cluster::of(zone, SHOP)
    };
    let ns: &[&str] = &["@ NS ns.dns.cluster.local."];
    check(
        &of(v4),
        &[
            ("ns.dns.cluster.local. A", "NOERROR", &["@ A 10.96.0.10"]),
            ("ns.dns.cluster.local. AAAA", "NODATA", &[]),
            ("cluster.local. NS", "NOERROR", ns),
        ],
    );
    check(
        &of(v6),
        &[
            ("ns.dns.cluster.local. A", "NODATA", &[]),
            ("ns.dns.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:96::10"]),
            ("cluster.local. NS", "NOERROR", ns),
        ],
    );
    let additional: &[&str] = &["ns.dns.cluster.local. A 10.96.0.10"];
    check_additional(&of(v4), &[("cluster.local. NS", additional)]);
    let additional: &[&str] = &["ns.dns.cluster.local. AAAA fd00:96::10"];
    check_additional(&of(v6), &[("cluster.local. NS", additional)]);
}

#[test]
fn the_apexes_of_the_reverse_zones() {
    const SOA: &str = "@ SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30";
    let cluster = Cluster::of(zone(), SHOP);
    check(
        &cluster,
        &[
            ("in-addr.arpa. SOA", "NOERROR", &[SOA]),
            ("ip6.arpa. SOA", "NOERROR", &[SOA]),
            ("in-addr.arpa. NS", "NOERROR", &["@ NS ns.dns.cluster.local."]),
            ("ip6.arpa. NS", "NOERROR", &["@ NS ns.dns.cluster.local."]),
            ("In-Addr.arpa. A", "NODATA", &[]),
            // an IPv6 endpoint with a hostname
            (
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.0.d.f.ip6.arpa. PTR",
                "NOERROR",
                &["@ PTR peer-0.peers.shop.svc.cluster.local."],
            ),
        ],
    );
    let glue: &[&str] =
        &["ns.dns.cluster.local. A 10.96.0.10", "ns.dns.cluster.local. AAAA fd00:96::10"];
    check_additional(&cluster, &[("in-addr.arpa. NS", glue), ("ip6.arpa. NS", glue)]);
}

#[test]
fn pod_names() {
    let with_mode = |mode| {
        let mut zone = zone();
        zone.pods = mode;
        Cluster::of(zone, SHOP)
    };
    check(
        &with_mode(PodMode::Insecure),
        &[
            ("10-9-8-7.shop.pod.cluster.local. A", "NOERROR", &["@ A 10.9.8.7"]),
            ("10-9-8-7.shop.pod.cluster.local. AAAA", "NODATA", &[]),
            ("fd00--1.shop.pod.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00::1"]),
            ("0--1.shop.pod.cluster.local. AAAA", "NOERROR", &["@ AAAA ::1"]),
            ("fd00-0-0-0-0-0-0-1.shop.pod.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00::1"]),
            ("fd00--1.shop.pod.cluster.local. A", "NODATA", &[]),
            ("fd00--1.shop.pod.cluster.local. HINFO", "NODATA", &[]),
            ("10-9-8-7.nope.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("10-9-8-700.shop.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("10-9-8.shop.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("web.shop.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("x.10-9-8-7.shop.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("shop.pod.cluster.local. A", "NODATA", &[]),
            ("empty.pod.cluster.local. A", "NODATA", &[]),
            ("nope.pod.cluster.local. A", "NXDOMAIN", &[]),
        ],
    );
    check(
        &with_mode(PodMode::Disabled),
        &[
            ("10-9-8-7.shop.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("10-1-0-1.shop.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("shop.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("pod.cluster.local. A", "NODATA", &[]),
        ],
    );
    check(
        &with_mode(PodMode::Verified),
        &[
            ("10-1-0-1.shop.pod.cluster.local. A", "NOERROR", &["@ A 10.1.0.1"]),
            ("fd00-3--1.shop.pod.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:3::1"]),
            // in any spelling of the address
            ("fd00-3-0-0-0-0-0-1.shop.pod.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:3::1"]),
            ("fd00-3--1.shop.pod.cluster.local. A", "NODATA", &[]),
            ("0--ffff-a01-1.shop.pod.cluster.local. AAAA", "NXDOMAIN", &[]),
            ("10-1-0-1.empty.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("10-1-0-2.shop.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("10-9-8-7.shop.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("10-1-0-1.nope.pod.cluster.local. A", "NXDOMAIN", &[]),
            ("shop.pod.cluster.local. A", "NODATA", &[]),
        ],
    );
}

#[test]
fn options() {
    let mut fallback = zone();
    fallback.terminating_fallback = true;
    check(
        &Cluster::of(fallback, SHOP),
        &[
            ("leaving.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.7.1"]),
            ("bye.leaving.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.7.1"]),
            ("idle.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
        ],
    );
    let mut strict = zone();
    strict.ignore_empty_service = true;
    check(
        &Cluster::of(strict, SHOP),
        &[
            ("dual.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("_http._tcp.dual.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("web.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7"]),
            ("mail.shop.svc.cluster.local. A", "NOERROR", &["@ CNAME mail.example.com."]),
        ],
    );
    let mut short = zone();
    short.ttl_secs = 0;
    let answer = Cluster::of(short, SHOP).ask("web.shop.svc.cluster.local. A");
    assert_eq!(answer.answers, ["web.shop.svc.cluster.local. 0 IN A 10.96.0.7"]);
    let other = Cluster::of(Zone::new("Prod.Example.").unwrap(), SHOP);
    check(
        &other,
        &[
            ("web.shop.svc.prod.example. A", "NOERROR", &["@ A 10.96.0.7"]),
            ("web.shop.svc.cluster.local. A", "REFUSED", &[]),
            ("7.0.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR web.shop.svc.prod.example."]),
            ("ns.dns.prod.example. A", "NODATA", &[]),
        ],
    );
}
