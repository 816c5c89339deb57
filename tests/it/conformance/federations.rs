//! Names of federations: `SERVICE.NAMESPACE.FEDERATION.svc.` is the local Service if it has
//! endpoints, and otherwise the name outside.
//!
//! Rows, and changes of configuration and Nodes.

use std::collections::BTreeMap;

use kubedns::project::{Kind, ObjectId};
use kubedns::store::Changed;

use super::{SHOP, check, zone};
use crate::fixture::cluster::Cluster;

const NODE: &str = "
kind: Node
metadata:
  name: n1
  labels: {topology.kubernetes.io/zone: z1, topology.kubernetes.io/region: r1}
";
const HERE: &str = "web.shop.fed.svc.cluster.local. A";
const AWAY: &str = "away.shop.fed.svc.cluster.local. A";

fn federated(objects: &str, domains: &[(&str, &str)]) -> Cluster {
    let mut cluster = Cluster::of(zone(), objects);
    federate(&mut cluster, domains);
    cluster
}

fn federate(cluster: &mut Cluster, domains: &[(&str, &str)]) {
    let owned = |&(name, domain): &(&str, &str)| (name.to_owned(), domain.to_owned());
    cluster.writer.set_federations(domains.iter().map(owned).collect::<BTreeMap<_, _>>());
    cluster.sync();
}

#[test]
fn a_federated_name_is_here_or_away() {
    check(
        &federated(&format!("{SHOP}\n---{NODE}"), &[("fed", "fed.example")]),
        &[
            // it has endpoints here
            (
                HERE,
                "NOERROR",
                &["@ CNAME web.shop.svc.cluster.local.", "web.shop.svc.cluster.local. A 10.96.0.7"],
            ),
            (
                "WEB.Shop.FED.svc.cluster.local. TXT",
                "NOERROR",
                &["@ CNAME web.shop.svc.cluster.local."],
            ),
            (
                "web.shop.fed.svc.cluster.local. CNAME",
                "NOERROR",
                &["@ CNAME web.shop.svc.cluster.local."],
            ),
            // it does not have endpoints, or does not exist: any type
            (AWAY, "NOERROR", &["@ CNAME away.shop.fed.svc.z1.r1.fed.example."]),
            (
                "web.nowhere.fed.svc.cluster.local. SRV",
                "NOERROR",
                &["@ CNAME web.nowhere.fed.svc.z1.r1.fed.example."],
            ),
            // ancestors exist, other names do not
            ("fed.svc.cluster.local. A", "NODATA", &[]),
            ("shop.fed.svc.cluster.local. A", "NODATA", &[]),
            (
                "1st.shop.fed.svc.cluster.local. A",
                "NOERROR",
                &["@ CNAME 1st.shop.fed.svc.z1.r1.fed.example."],
            ),
            ("_st.shop.fed.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("_tcp.fed.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("_http._tcp.web.shop.fed.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("web.shop.other.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("web.shop.fed.pod.cluster.local. A", "NXDOMAIN", &[]),
            // names outside a federation do not change
            ("web.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7"]),
        ],
    );
}

#[test]
fn a_cluster_that_does_not_know_where_it_is_says_so() {
    let mut cluster = federated(SHOP, &[("fed", "fed.example")]);
    check(&cluster, &[("fed.svc.cluster.local. A", "NODATA", &[])]);
    assert_eq!(cluster.ask(HERE).status, "NOERROR", "what is here needs no Node");
    let answer = cluster.ask(AWAY);
    assert_eq!((&*answer.status, answer.answers.len()), ("SERVFAIL", 0), "{answer:?}");
    assert!(answer.error.expect("a reason").1.contains("topology.kubernetes.io"));

    cluster.apply(NODE);
    let published = cluster.sync().expect("a change");
    assert_eq!(published.changed, Changed::Everything);
    check(&cluster, &[(AWAY, "NOERROR", &["@ CNAME away.shop.fed.svc.z1.r1.fed.example."])]);
    // If two of three Nodes are in another zone, that zone wins.
    for name in ["n2", "n3"] {
        cluster.apply(&NODE.replace("n1", name).replace("z1", "z2"));
        cluster.sync();
    }
    check(&cluster, &[(AWAY, "NOERROR", &["@ CNAME away.shop.fed.svc.z2.r1.fed.example."])]);
    federate(&mut cluster, &[("east", "east.example")]);
    check(
        &cluster,
        &[
            (AWAY, "NXDOMAIN", &[]),
            (
                "away.shop.east.svc.cluster.local. A",
                "NOERROR",
                &["@ CNAME away.shop.east.svc.z2.r1.east.example."],
            ),
        ],
    );
    federate(&mut cluster, &[]);
    check(&cluster, &[("away.shop.east.svc.cluster.local. A", "NXDOMAIN", &[])]);
}

#[test]
fn a_service_that_changes_changes_its_federated_names() {
    let mut cluster = federated(SHOP, &[("fed", "fed.example")]);
    cluster.apply(
        "
kind: Service
metadata: {name: fresh, namespace: shop}
spec: {clusterIP: 10.96.77.1}
",
    );
    let Some(Changed::Names(names)) = cluster.sync().map(|published| published.changed) else {
        panic!("names changed");
    };
    let names = format!("{names:?}");
    assert!(names.contains("fresh.shop.fed.svc.cluster.local."), "{names}");
}

#[test]
fn a_headless_service_is_here_while_it_has_endpoints() {
    let mut cluster = federated(&format!("{SHOP}\n---{NODE}"), &[("fed", "fed.example")]);
    check(
        &cluster,
        &[(
            "db.shop.fed.svc.cluster.local. A",
            "NOERROR",
            &[
                "@ CNAME db.shop.svc.cluster.local.",
                "db.shop.svc.cluster.local. A 10.1.0.1",
                "db.shop.svc.cluster.local. A 10.1.0.2",
                "db.shop.svc.cluster.local. A 10.1.0.3",
                "db.shop.svc.cluster.local. A 10.1.0.5",
            ],
        )],
    );
    for slice in ["db-a", "db-b"] {
        cluster.delete(ObjectId::new(Kind::EndpointSlice, "shop", slice));
    }
    cluster.sync().expect("a change");
    check(
        &cluster,
        &[(
            "db.shop.fed.svc.cluster.local. A",
            "NOERROR",
            &["@ CNAME db.shop.fed.svc.z1.r1.fed.example."],
        )],
    );
}

/// kube-dns's `dns_test.go`: both families in either order, and more than one federation.
#[test]
fn two_federations_have_both_families() {
    let slice = "
kind: EndpointSlice
metadata: {name: pair-a, namespace: shop, labels: {kubernetes.io/service-name: pair}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.9]}]
---
";
    for ips in [r#"[10.96.0.15, "fd00:96::15"]"#, r#"["fd00:96::15", 10.96.0.15]"#] {
        let service = format!(
            "{{kind: Service, metadata: {{name: pair, namespace: shop}}, \
             spec: {{clusterIPs: {ips}}}}}"
        );
        let domains = [("east", "east.example"), ("west", "west.example")];
        let cluster = federated(&format!("{slice}{service}\n---{NODE}"), &domains);
        check(
            &cluster,
            &[
                (
                    "pair.shop.east.svc.cluster.local. A",
                    "NOERROR",
                    &[
                        "@ CNAME pair.shop.svc.cluster.local.",
                        "pair.shop.svc.cluster.local. A 10.96.0.15",
                    ],
                ),
                (
                    "pair.shop.west.svc.cluster.local. AAAA",
                    "NOERROR",
                    &[
                        "@ CNAME pair.shop.svc.cluster.local.",
                        "pair.shop.svc.cluster.local. AAAA fd00:96::15",
                    ],
                ),
                (
                    "away.shop.east.svc.cluster.local. AAAA",
                    "NOERROR",
                    &["@ CNAME away.shop.east.svc.z1.r1.east.example."],
                ),
                (
                    "away.shop.west.svc.cluster.local. A",
                    "NOERROR",
                    &["@ CNAME away.shop.west.svc.z1.r1.west.example."],
                ),
            ],
        );
    }
}
