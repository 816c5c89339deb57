//! Names of a clusterset: Multi-Cluster Services by KEP-1645's DNS specification 1.0.0.
//!
//! Rows, and tests of both zones together.

use kubedns::project::{Kind, ObjectId};
use kubedns::records::Zone;
use kubedns::store::Changed;

use super::{SHOP, check, check_additional, zone};
use crate::fixture::cluster::Cluster;

fn clusterset() -> Zone {
    let mut zone = zone();
    zone.clusterset = Some(kubedns::name::Name::parse("clusterset.local").unwrap());
    zone
}

fn shop() -> Cluster {
    Cluster::of(clusterset(), &format!("{SHOP}\n---\n{IMPORTS}"))
}

#[test]
fn services_with_clusterset_ips() {
    check(
        &shop(),
        &[
            ("pay.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.42.42.42"]),
            ("PAY.Shop.svc.ClusterSet.local. AAAA", "NOERROR", &["@ AAAA fd42::42"]),
            (
                "_https._tcp.pay.shop.svc.clusterset.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 443 pay.shop.svc.clusterset.local."],
            ),
            (
                "pay.shop.svc.clusterset.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 443 pay.shop.svc.clusterset.local.",
                    "@ SRV 0 100 9000 pay.shop.svc.clusterset.local.",
                ],
            ),
            ("_tcp.pay.shop.svc.clusterset.local. A", "NODATA", &[]),
            ("_udp.pay.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("_dns._tcp.pay.shop.svc.clusterset.local. SRV", "NXDOMAIN", &[]),
            // a single cluster does not have a name (2.3.4)
            ("cluster-a.pay.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("pay-0.cluster-a.pay.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("pay-0.pay.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            // without endpoints, with an address of one family, without any yet
            ("bare.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.42.42.43"]),
            ("bare.shop.svc.clusterset.local. AAAA", "NODATA", &[]),
            ("bare.shop.svc.clusterset.local. SRV", "NODATA", &[]),
            ("pending.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
        ],
    );
    check_additional(
        &shop(),
        &[(
            "_https._tcp.pay.shop.svc.clusterset.local. SRV",
            &[
                "pay.shop.svc.clusterset.local. A 10.42.42.42",
                "pay.shop.svc.clusterset.local. AAAA fd42::42",
            ],
        )],
    );
}

#[test]
fn headless_services_of_several_clusters() {
    check(
        &shop(),
        &[
            (
                "db.shop.svc.clusterset.local. A",
                "NOERROR",
                &["@ A 10.3.0.100", "@ A 10.3.0.101", "@ A 10.4.0.100"],
            ),
            ("db.shop.svc.clusterset.local. AAAA", "NOERROR", &["@ AAAA fd04::100"]),
            ("db-0.cluster-a.db.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.3.0.100"]),
            ("db-0.cluster-b.db.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.4.0.100"]),
            ("db-0.cluster-b.db.shop.svc.clusterset.local. AAAA", "NOERROR", &["@ AAAA fd04::100"]),
            ("db-0.cluster-a.db.shop.svc.clusterset.local. AAAA", "NODATA", &[]),
            // without a hostname: its generated label
            (
                "10-3-0-101.cluster-a.db.shop.svc.clusterset.local. A",
                "NOERROR",
                &["@ A 10.3.0.101"],
            ),
            // with a hostname: no generated label; in another cluster: neither
            ("10-3-0-100.cluster-a.db.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("10-3-0-101.cluster-b.db.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            // not ready
            ("db-9.cluster-a.db.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            // a single cluster does not own records (2.4.4), but there are names below it
            ("cluster-a.db.shop.svc.clusterset.local. A", "NODATA", &[]),
            ("cluster-a.db.shop.svc.clusterset.local. SRV", "NODATA", &[]),
            ("cluster-c.db.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("db-0.db.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("x.db-0.cluster-a.db.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            (
                "_pg._tcp.db.shop.svc.clusterset.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 5432 db-0.cluster-a.db.shop.svc.clusterset.local.",
                    "@ SRV 0 100 5432 10-3-0-101.cluster-a.db.shop.svc.clusterset.local.",
                    "@ SRV 0 100 5433 db-0.cluster-b.db.shop.svc.clusterset.local.",
                ],
            ),
            (
                "db.shop.svc.clusterset.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 5432 db-0.cluster-a.db.shop.svc.clusterset.local.",
                    "@ SRV 0 100 5432 10-3-0-101.cluster-a.db.shop.svc.clusterset.local.",
                    "@ SRV 0 100 5433 db-0.cluster-b.db.shop.svc.clusterset.local.",
                ],
            ),
            ("_pg._tcp.cluster-a.db.shop.svc.clusterset.local. SRV", "NXDOMAIN", &[]),
            // no ready endpoint: NXDOMAIN (2.4.1)
            ("idle.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("db-0.cluster-a.idle.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
        ],
    );
    check_additional(
        &shop(),
        &[(
            "_pg._tcp.db.shop.svc.clusterset.local. SRV",
            &[
                "10-3-0-101.cluster-a.db.shop.svc.clusterset.local. A 10.3.0.101",
                "db-0.cluster-a.db.shop.svc.clusterset.local. A 10.3.0.100",
                "db-0.cluster-b.db.shop.svc.clusterset.local. A 10.4.0.100",
                "db-0.cluster-b.db.shop.svc.clusterset.local. AAAA fd04::100",
            ],
        )],
    );
}

/// A cluster's name is an RFC 1123 subdomain (KEP-2149): it may have several labels.
#[test]
fn a_cluster_may_have_a_name_of_several_labels() {
    let cluster = Cluster::of(
        clusterset(),
        "
kind: ServiceImport
metadata: {name: db, namespace: shop}
spec: {type: Headless, ports: [{name: pg, port: 5432}]}
---
kind: EndpointSlice
metadata:
  name: db-eu
  namespace: shop
  labels:
    multicluster.kubernetes.io/service-name: db
    multicluster.kubernetes.io/source-cluster: EU.prod
addressType: IPv4
ports: [{name: pg, port: 5432}]
endpoints: [{addresses: [10.3.0.1], hostname: db-0}]
",
    );
    check(
        &cluster,
        &[
            ("db.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.3.0.1"]),
            ("db-0.eu.prod.db.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.3.0.1"]),
            ("eu.prod.db.shop.svc.clusterset.local. A", "NODATA", &[]),
            ("prod.db.shop.svc.clusterset.local. A", "NODATA", &[]),
            ("eu.db.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("db-0.prod.db.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("x.db-0.eu.prod.db.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            (
                "_pg._tcp.db.shop.svc.clusterset.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 5432 db-0.eu.prod.db.shop.svc.clusterset.local."],
            ),
            (
                "1.0.3.10.in-addr.arpa. PTR",
                "NOERROR",
                &["@ PTR db-0.eu.prod.db.shop.svc.clusterset.local."],
            ),
        ],
    );
}

#[test]
fn imports_of_one_family_without_ports_and_of_a_name_that_is_taken_here() {
    check(
        &shop(),
        &[
            ("six.far.svc.clusterset.local. AAAA", "NOERROR", &["@ AAAA fd42::43"]),
            ("six.far.svc.clusterset.local. A", "NODATA", &[]),
            // its ports are those of the import: it does not have endpoints yet
            (
                "six.far.svc.clusterset.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 443 six.far.svc.clusterset.local."],
            ),
            (
                "_https._tcp.six.far.svc.clusterset.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 443 six.far.svc.clusterset.local."],
            ),
            // each zone has its own
            ("six.far.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.14"]),
            ("six.far.svc.cluster.local. AAAA", "NODATA", &[]),
            // endpoints without ports, by label and by hostname
            (
                "fd04--101.cluster-b.log.far.svc.clusterset.local. AAAA",
                "NOERROR",
                &["@ AAAA fd04::101"],
            ),
            ("fd04--101.cluster-b.log.far.svc.clusterset.local. A", "NODATA", &[]),
            ("fd04--101.cluster-a.log.far.svc.clusterset.local. AAAA", "NXDOMAIN", &[]),
            ("fd04--101.log.far.svc.clusterset.local. AAAA", "NXDOMAIN", &[]),
            (
                "twin.cluster-b.log.far.svc.clusterset.local. A",
                "NOERROR",
                &["@ A 10.4.0.102", "@ A 10.4.0.103"],
            ),
            (
                "10-4-0-104.cluster-b.log.far.svc.clusterset.local. A",
                "NOERROR",
                &["@ A 10.4.0.104"],
            ),
            ("log.far.svc.clusterset.local. AAAA", "NOERROR", &["@ AAAA fd04::101"]),
            ("log.far.svc.clusterset.local. SRV", "NODATA", &[]),
            ("_tcp.log.far.svc.clusterset.local. SRV", "NXDOMAIN", &[]),
        ],
    );
    let additional: &[&str] = &["six.far.svc.clusterset.local. AAAA fd42::43"];
    check_additional(
        &shop(),
        &[
            ("six.far.svc.clusterset.local. SRV", additional),
            ("_https._tcp.six.far.svc.clusterset.local. SRV", additional),
        ],
    );
}

#[test]
fn the_zone_itself() {
    let mut soa =
        "@ SOA ns.dns.clusterset.local. hostmaster.clusterset.local. 1 7200 1800 86400 30";
    let cluster = shop();
    if cluster.reader.records().serial() != 1 {
        soa = "the first publication";
    }
    check(
        &cluster,
        &[
            ("dns-version.clusterset.local. TXT", "NOERROR", &["@ TXT 1.0.0"]),
            ("dns-version.cluster.local. TXT", "NOERROR", &["@ TXT 1.1.0"]),
            ("clusterset.local. NS", "NOERROR", &["@ NS ns.dns.clusterset.local."]),
            ("ns.dns.clusterset.local. A", "NOERROR", &["@ A 10.96.0.10"]),
            ("clusterset.local. A", "NODATA", &[]),
            ("svc.clusterset.local. A", "NODATA", &[]),
            ("shop.svc.clusterset.local. A", "NODATA", &[]),
            ("svc.clusterset.local. NS", "NODATA", &[]),
            ("shop.svc.clusterset.local. NS", "NODATA", &[]),
            ("nope.shop.svc.ClusterSet.Local. A", "NXDOMAIN", &[]),
            // a namespace of the cluster without imports; no pods, and no Services that are not
            // imported
            ("default.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("pod.clusterset.local. A", "NXDOMAIN", &[]),
            ("10-244-1-10.shop.pod.clusterset.local. A", "NXDOMAIN", &[]),
            ("web.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("nope.clusterset.local. A", "NXDOMAIN", &[]),
            // the cluster domain has only the names of the cluster
            ("pay.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("web.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7"]),
        ],
    );
    let answer = cluster.ask("clusterset.local. SOA");
    assert_eq!(answer.answers, [soa.replace("@ ", "clusterset.local. 30 IN ")]);
    let answer = cluster.ask("nope.svc.clusterset.local. A");
    assert!(answer.authorities[0].starts_with("clusterset.local. 30 IN SOA "), "{answer:?}");
}

#[test]
fn an_address_that_nobody_here_has_points_to_the_clusterset() {
    check(
        &shop(),
        &[
            ("42.42.42.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR pay.shop.svc.clusterset.local."]),
            (
                "100.0.4.10.in-addr.arpa. PTR",
                "NOERROR",
                &["@ PTR db-0.cluster-b.db.shop.svc.clusterset.local."],
            ),
            ("42.42.10.in-addr.arpa. PTR", "NODATA", &[]),
            // the endpoints of a ClusterSetIP do not have names
            ("7.7.7.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            // addresses of the cluster keep their names
            ("7.0.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR web.shop.svc.cluster.local."]),
        ],
    );
    let mut cluster = shop();
    cluster.apply(
        "
kind: Service
metadata: {name: derived, namespace: shop}
spec: {clusterIP: 10.42.42.42}
",
    );
    cluster.sync();
    check(
        &cluster,
        &[("42.42.42.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR derived.shop.svc.cluster.local."])],
    );
}

#[test]
fn an_alias_may_lead_into_the_clusterset_and_changes_with_it() {
    let mut cluster = shop();
    cluster.apply(
        "
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: pay.shop.svc.clusterset.local}
",
    );
    cluster.sync();
    let alias = "alias.shop.svc.cluster.local. A";
    const CNAME: &str = "@ CNAME pay.shop.svc.clusterset.local.";
    const ANSWER: &str = "pay.shop.svc.clusterset.local. A 10.42.42.42";
    check(&cluster, &[(alias, "NOERROR", &[CNAME, ANSWER])]);
    cluster.delete(ObjectId::new(Kind::ServiceImport, "shop", "pay"));
    let Some(Changed::Names(names)) = cluster.sync().map(|published| published.changed) else {
        panic!("names changed");
    };
    let names = format!("{names:?}");
    for name in [
        "\"pay.shop.svc.clusterset.local.\"",
        "\"alias.shop.svc.cluster.local.\"",
        "\"42.42.42.10.in-addr.arpa.\"",
    ] {
        assert!(names.contains(name) || names.contains("\"42.42.10.in-addr.arpa.\""), "{names}");
    }
    check(&cluster, &[(alias, "NXDOMAIN", &[CNAME])]);
}

#[test]
fn a_zone_that_is_not_known_yet_answers_nothing() {
    let mut cluster = Cluster::empty(clusterset());
    cluster.apply(&format!("{SHOP}\n---\n{IMPORTS}"));
    for kind in Kind::KNOWN.into_iter().filter(|&kind| kind != Kind::ServiceImport) {
        cluster.writer.synced(kind);
    }
    assert_eq!(cluster.writer.publish(0).expect("a change").changed, Changed::Everything);
    check(&cluster, &[("web.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7"])]);
    for question in ["pay.shop.svc.clusterset.local. A", "dns-version.clusterset.local. TXT"] {
        let answer = cluster.ask(question);
        assert_eq!((&*answer.status, answer.answers.len()), ("SERVFAIL", 0), "{answer:?}");
    }
    assert_eq!(cluster.sync().expect("a change").changed, Changed::Everything);
    check(&cluster, &[("pay.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.42.42.42"])]);
    assert!(cluster.sync().is_none());
}

/// Imports into namespace shop.
pub const IMPORTS: &str = include_str!("clustersets.yaml");
