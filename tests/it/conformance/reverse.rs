//! The reverse names that belong to the cluster. Below the cluster's addresses, an unknown name
//! does not exist. All other names are refused, because other servers can answer them.
//!
//! Rows only. The parent module checks a row.

use kubedns::name::Name;
use kubedns::records::{PodMode, Zone};
use kubedns::store::Changed;
use shared::name::Text;
use shared::prefix;

use super::{check, zone};
use crate::fixture::cluster::Cluster;
use crate::model::transfer::{counted, everything, tally};

const OBJECTS: &str = r#"
{kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.7}}
---
{kind: Service, metadata: {name: edge, namespace: shop}, spec: {clusterIP: None}}
---
kind: EndpointSlice
metadata: {name: edge-pods, namespace: shop, labels: {kubernetes.io/service-name: edge}}
addressType: IPv4
endpoints:
- {addresses: [8.8.4.4], hostname: pod, targetRef: {kind: Pod, name: pod, namespace: shop}}
---
kind: EndpointSlice
metadata: {name: edge-hosts, namespace: shop, labels: {kubernetes.io/service-name: edge}}
addressType: IPv4
endpoints:
- {addresses: [9.9.9.9], hostname: host}
- {addresses: [192.168.7.7], hostname: near}
---
kind: EndpointSlice
metadata: {name: edge-six, namespace: shop, labels: {kubernetes.io/service-name: edge}}
addressType: IPv6
endpoints: [{addresses: ["2600:1::7"], hostname: six}]
"#;
/// `2600:1::8` without its last digit.
const SIX: &str = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.6.2.ip6.arpa.";

fn with_cidrs(cidrs: &[&str]) -> Zone {
    let mut zone = zone();
    zone.cidrs = cidrs.iter().map(|text| prefix::parse(text).unwrap()).collect();
    zone
}

#[test]
fn addresses_that_are_not_global_are_the_clusters() {
    let cluster = Cluster::of(zone(), OBJECTS);
    check(
        &cluster,
        &[
            ("7.0.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR web.shop.svc.cluster.local."]),
            (
                "7.7.168.192.in-addr.arpa. PTR",
                "NOERROR",
                &["@ PTR near.edge.shop.svc.cluster.local."],
            ),
            // addresses without an owner
            ("8.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("1.0.0.127.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("1.1.64.100.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("31.172.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            (
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR",
                "NXDOMAIN",
                &[],
            ),
            // a name that is not an address is treated as its nearest ancestor that is one
            ("b._dns-sd._udp.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("007.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("x.7.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("1-25.8.8.8.in-addr.arpa. PTR", "REFUSED", &[]),
            ("300.8.8.8.in-addr.arpa. PTR", "REFUSED", &[]),
            ("web.shop.svc.cluster.local.in-addr.arpa. A", "REFUSED", &[]),
            // left to other servers, for all types; Kubernetes' e2e tests use documentation
            // addresses
            ("8.8.8.8.in-addr.arpa. PTR", "REFUSED", &[]),
            ("8.8.8.8.in-addr.arpa. TXT", "REFUSED", &[]),
            ("8.8.in-addr.arpa. NS", "NODATA", &[]), // 8.8.4.4 is below
            ("9.in-addr.arpa. NS", "REFUSED", &[]),
            ("172.in-addr.arpa. SOA", "REFUSED", &[]), // part of it belongs to the cluster
            ("123.2.0.192.in-addr.arpa. PTR", "REFUSED", &[]),
            // a Pod has it, so it and all names below it belong to the cluster
            ("4.4.8.8.in-addr.arpa. PTR", "NOERROR", &["@ PTR pod.edge.shop.svc.cluster.local."]),
            ("4.4.8.8.in-addr.arpa. A", "NODATA", &[]),
            ("x.4.4.8.8.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("5.4.8.8.in-addr.arpa. PTR", "REFUSED", &[]),
            // a slice without a Pod has it: other servers must name this host
            ("9.9.9.9.in-addr.arpa. PTR", "REFUSED", &[]),
            // the apex belongs to kubedns
            ("in-addr.arpa. NS", "NOERROR", &["@ NS ns.dns.cluster.local."]),
        ],
    );
    for last in ["7.", "8."] {
        assert_eq!(cluster.ask(&format!("{last}{SIX} PTR")).status, "REFUSED", "{last}");
    }
    let refused = cluster.ask("8.8.8.8.in-addr.arpa. PTR");
    assert_eq!(refused.error.map(|(code, _)| code), Some(20), "not authoritative");
}

#[test]
fn the_flag_says_which_addresses_are_the_clusters() {
    let cidrs = ["10.96.0.0/12", "9.9.9.0/24", "2600:1::/64"];
    let cluster = Cluster::of(with_cidrs(&cidrs), OBJECTS);
    check(
        &cluster,
        &[
            ("7.0.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR web.shop.svc.cluster.local."]),
            ("8.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("111.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("112.10.in-addr.arpa. PTR", "REFUSED", &[]),
            ("7.0.0.10.in-addr.arpa. PTR", "REFUSED", &[]),
            ("10.in-addr.arpa. PTR", "NODATA", &[]), // 10.96.0.7 is below
            // hosts inside its ranges have the names of their endpoints
            ("9.9.9.9.in-addr.arpa. PTR", "NOERROR", &["@ PTR host.edge.shop.svc.cluster.local."]),
            ("8.9.9.9.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            // other hosts do not
            ("7.7.168.192.in-addr.arpa. PTR", "REFUSED", &[]),
        ],
    );
    assert_eq!(cluster.ask(&format!("7.{SIX} PTR")).answers.len(), 1);
    assert_eq!(cluster.ask(&format!("8.{SIX} PTR")).status, "NXDOMAIN");
}

#[test]
fn nobody_is_sent_away_before_everything_is_known() {
    let mut cluster = Cluster::empty(zone());
    cluster.apply(OBJECTS);
    assert_eq!(cluster.ask("8.8.8.8.in-addr.arpa. PTR").status, "SERVFAIL");
    cluster.sync();
    assert_eq!(cluster.ask("8.8.8.8.in-addr.arpa. PTR").status, "REFUSED");
}

#[test]
fn every_service_names_its_pod() {
    let mut objects = String::new();
    for number in 10..50 {
        objects += &format!(
            "---\n{{kind: Service, metadata: {{name: s{number}, namespace: ns}}, \
             spec: {{clusterIP: None}}}}\n---\n\
             kind: EndpointSlice\n\
             metadata: {{name: s{number}, namespace: ns, \
             labels: {{kubernetes.io/service-name: s{number}}}}}\n\
             addressType: IPv4\n\
             endpoints: [{{addresses: [10.1.0.1], targetRef: {{kind: Pod, name: p}}}}]\n"
        );
    }
    let question = "1.0.1.10.in-addr.arpa. PTR";
    let cluster = Cluster::of(zone(), &objects);
    let all = cluster.ask_tcp(question);
    let expected: Vec<String> = (10..50)
        .map(|number| {
            format!("1.0.1.10.in-addr.arpa. 30 IN PTR 10-1-0-1.s{number}.ns.svc.cluster.local.")
        })
        .collect();
    assert_eq!((all.answers, all.truncated), (expected, false));
    let some = cluster.ask(question);
    assert!(some.truncated && some.answers.len() > 20, "{some:?}");
}

/// One Pod of two headless Services, a Service with a node port, and one that changes its shape.
/// Both families, in a cluster and in a clusterset.
#[test]
fn headless_services_alone_name_their_endpoints() {
    let mut options = with_cidrs(&["10.0.0.0/8", "fd00::/8"]);
    options.name_server = Box::default();
    options.pods = PodMode::Verified;
    options.clusterset = Name::parse("clusterset.local").ok();
    let mut cluster = Cluster::of(options, POD);
    let six = |last: u8| format!("{last}.{}1.0.0.0.0.0.d.f.ip6.arpa. PTR", "0.".repeat(23));
    let four = |last: u8| format!("{last}.0.1.10.in-addr.arpa. PTR");
    let check = |cluster: &Cluster, host: u8, expected: &[&str]| {
        let status = if expected.is_empty() { "NXDOMAIN" } else { "NOERROR" };
        let mut all = Vec::new();
        for question in [four(host), six(host)] {
            let answer = cluster.ask(&question);
            let name = question.split(' ').next().unwrap();
            let records: Vec<String> = (expected.iter())
                .map(|target| match name.contains("in-addr") {
                    true => format!("{name} 30 IN PTR {target}"),
                    false => format!("{name} 30 IN PTR {}", target.replace("10-1-0", "fd00-1-")),
                })
                .collect();
            assert_eq!((&*answer.status, &answer.answers), (status, &records), "{question}");
            cluster.check_explanation(&question, status, &records);
            all.extend(records);
        }
        let snapshot = cluster.reader.snapshot();
        let zones = everything(&snapshot, &["cluster.local", "clusterset.local"]);
        let pointers = |text: &&String| text.contains(" 12 ");
        for record in &all {
            assert!(zones.contains(&record.replace(" 30 IN PTR ", " 12 ")), "{record}");
        }
        assert_eq!(tally(&zones), counted(&snapshot));
        assert_eq!(zones.iter().filter(pointers).count(), counted(&snapshot)[3]);
    };
    let (named, plain) =
        ("pod.named.shop.svc.cluster.local.", "10-1-0-1.plain.shop.svc.cluster.local.");
    check(&cluster, 1, &[plain, named]);
    check(&cluster, 2, &[]);
    // an imported endpoint has its name if it is not in a headless Service of this cluster
    check(&cluster, 3, &["10-1-0-3.east.far.shop.svc.clusterset.local."]);
    let shape = |spec: &str| {
        format!("{{kind: Service, metadata: {{name: turns, namespace: shop}}, spec: {{{spec}}}}}")
    };
    let turns = ["10-1-0-2.turns.shop.svc.cluster.local."];
    for (spec, expected) in [
        ("clusterIP: None", &turns[..]),
        ("clusterIP: 10.96.0.9, type: NodePort", &[]),
        ("clusterIP: None, publishNotReadyAddresses: true", &turns),
        ("type: ExternalName, externalName: example.com", &[]),
        ("clusterIP: None", &turns),
    ] {
        cluster.apply(&shape(spec));
        let changed = cluster.sync().expect("a change").changed;
        let Changed::Names(names) = changed else { panic!("a change of one Service") };
        let names: Vec<String> = names.iter().map(|name| Text(name).to_string()).collect();
        assert!(names.contains(&"2.0.1.10.in-addr.arpa.".to_owned()), "{spec}: {names:?}");
        check(&cluster, 2, expected);
    }
    // its own names and those of the Pod answer with any shape
    let answer = cluster.ask("10-1-0-1.node.shop.svc.cluster.local. A");
    assert_eq!(answer.answers, ["10-1-0-1.node.shop.svc.cluster.local. 30 IN A 10.1.0.1"]);
    let answer = cluster.ask("10-1-0-2.shop.pod.cluster.local. A");
    assert_eq!(answer.answers, ["10-1-0-2.shop.pod.cluster.local. 30 IN A 10.1.0.2"]);
}

const POD: &str = include_str!("reverse.yaml");
