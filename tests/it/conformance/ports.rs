//! Ports: their protocols, and the ports of several slices.
//!
//! Rows only. The parent module checks a row.

use kubedns::name::Name;
use kubedns::project::{Kind, ObjectId};
use kubedns::records::Zone;

use super::{check, zone};
use crate::fixture::cluster::Cluster;
use crate::model::transfer::{counted, everything, tally};

#[test]
fn sctp_is_a_protocol() {
    check(
        &Cluster::of(zone(), OBJECTS),
        &[
            (
                "_diameter._sctp.sig.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 3868 sig.shop.svc.cluster.local."],
            ),
            (
                "sig.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 3868 sig.shop.svc.cluster.local."],
            ),
            ("_diameter._sctp.sig.shop.svc.cluster.local. A", "NODATA", &[]),
            ("_sctp.sig.shop.svc.cluster.local. A", "NODATA", &[]),
            ("_diameter._tcp.sig.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("_tcp.sig.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
        ],
    );
}

/// kube-dns's `dns_test.go`: two ports of two endpoints, and one port of two others (DNS
/// specification section 2.4.2), until one of the slices is removed.
#[test]
fn each_slice_has_ports_of_its_own() {
    const HTTP: [&str; 4] = [
        "@ SRV 0 100 80 10-1-0-1.cats.shop.svc.cluster.local.",
        "@ SRV 0 100 80 10-1-0-2.cats.shop.svc.cluster.local.",
        "@ SRV 0 100 81 10-1-0-1.cats.shop.svc.cluster.local.",
        "@ SRV 0 100 81 10-1-0-2.cats.shop.svc.cluster.local.",
    ];
    const HTTPS: [&str; 2] = [
        "@ SRV 0 100 443 10-1-0-3.cats.shop.svc.cluster.local.",
        "@ SRV 0 100 443 tom.cats.shop.svc.cluster.local.",
    ];
    const ALL: [&str; 6] = [HTTP[0], HTTP[1], HTTP[2], HTTP[3], HTTPS[0], HTTPS[1]];
    let mut cluster = Cluster::of(zone(), OBJECTS);
    check(
        &cluster,
        &[
            ("_http1._tcp.cats.shop.svc.cluster.local. SRV", "NOERROR", &[HTTP[0], HTTP[1]]),
            ("_http2._tcp.cats.shop.svc.cluster.local. SRV", "NOERROR", &[HTTP[2], HTTP[3]]),
            ("_https._tcp.cats.shop.svc.cluster.local. SRV", "NOERROR", &HTTPS),
            ("cats.shop.svc.cluster.local. SRV", "NOERROR", &ALL),
            ("_http3._tcp.cats.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
        ],
    );
    cluster.delete(ObjectId::new(Kind::EndpointSlice, "shop", "cats-b"));
    cluster.sync().expect("a change");
    check(
        &cluster,
        &[
            ("_http1._tcp.cats.shop.svc.cluster.local. SRV", "NOERROR", &[HTTP[0], HTTP[1]]),
            ("_https._tcp.cats.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("cats.shop.svc.cluster.local. SRV", "NOERROR", &HTTP),
            ("tom.cats.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
        ],
    );
}

/// `_` and 63 characters are not a valid label (RFC 1035 section 2.3.4).
#[test]
fn a_port_whose_name_does_not_fit_has_no_srv_name() {
    let (long, fits) = ("p".repeat(63), "q".repeat(62));
    let object = |text: &str| text.replace("LONG", &long).replace("FITS", &fits);
    let mut options = Zone::new("cluster.local").unwrap();
    options.wildcards = true;
    options.clusterset = Name::parse("clusterset.local").ok();
    let mut cluster = Cluster::empty(options);
    let reasons = cluster.apply_odd(&object(LONG_NAMES));
    let said = format!("port {long:?} has no SRV name: that is one character longer than a label");
    let objects = [
        "Service shop/ip",
        "EndpointSlice shop/hl-a",
        "ServiceImport shop/ip",
        "EndpointSlice shop/far-a",
    ];
    assert_eq!(reasons, objects.map(|object| format!("{object}: {said}")));
    cluster.sync();
    let records = |question: &str| {
        let question = object(question);
        let (udp, tcp) = (cluster.ask(&question), cluster.ask_tcp(&question));
        assert_eq!((&udp.status, &udp.answers), (&tcp.status, &tcp.answers), "{question}");
        let data = |text: &String| text.split_once(" SRV 0 100 ").unwrap().1.to_owned();
        if !question.contains('*') {
            cluster.check_explanation(&question, &udp.status, &udp.answers);
        }
        (udp.status, udp.answers.iter().map(data).collect::<Vec<_>>())
    };
    let check = |question: &str, status: &str, expected: &[&str]| {
        let expected: Vec<String> = expected.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(records(question), (status.to_owned(), expected), "{question}");
    };
    for (name, labels) in [
        ("ip.shop.svc.cluster.local.", &[""][..]),
        ("hl.shop.svc.cluster.local.", &["10-1-0-1.", "a."]),
        ("ip.shop.svc.clusterset.local.", &[""]),
        ("far.shop.svc.clusterset.local.", &["10-3-0-1.east."]),
    ] {
        let targets: Vec<String> = labels.iter().map(|label| format!("{label}{name}")).collect();
        let of = |ports: &[u16]| -> Vec<String> {
            let all = ports.iter().flat_map(|port| targets.iter().map(move |it| (port, it)));
            all.map(|(port, target)| format!("{port} {target}")).collect()
        };
        let check = |question: String, status: &str, expected: Vec<String>| {
            let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            expected.sort_unstable();
            check(&question, status, &expected);
        };
        check(format!("{name} SRV"), "NOERROR", of(&[80, 81, 82]));
        check(format!("_FITS._tcp.{name} SRV"), "NOERROR", of(&[81]));
        check(format!("_FITS._udp.{name} SRV"), "NXDOMAIN", vec![]);
        check(format!("*._tcp.{name} SRV"), "NOERROR", of(&[81]));
        check(format!("*._udp.{name} SRV"), "NXDOMAIN", vec![]);
        // only the long name has that protocol
        check(format!("_udp.{name} SRV"), "NXDOMAIN", vec![]);
        check(format!("_tcp.{name} SRV"), "NODATA", vec![]);
    }
    let records = cluster.reader.snapshot();
    let all = everything(&records, &["cluster.local", "clusterset.local"]);
    assert_eq!(tally(&all), counted(&records));
    let named = all.iter().filter(|text| text.starts_with('_')).count();
    assert_eq!(named, 1 + 2 + 1 + 1, "{all:#?}");
}

/// A name of more than 255 bytes does not exist, even if its labels are short enough.
#[test]
fn a_port_whose_whole_name_does_not_fit_has_none() {
    let (service, namespace) = ("s".repeat(63), "n".repeat(63));
    let objects = format!(
        "{{kind: Service, metadata: {{name: {service}, namespace: {namespace}}}, spec: \
         {{clusterIP: 10.96.0.7, ports: [{{name: {}, port: 80}}, {{name: {}, port: 81}}]}}}}",
        "a".repeat(62),
        "b".repeat(58),
    );
    let check = |domain_len: usize, named: usize| {
        let domain = "z".repeat(domain_len);
        let cluster = Cluster::of(Zone::new(&domain).unwrap(), &objects);
        let records = cluster.reader.snapshot();
        let all = everything(&records, &[&domain]);
        assert_eq!(all.iter().filter(|text| text.starts_with('_')).count(), named, "{domain_len}");
        assert_eq!(tally(&all), counted(&records));
        let bare = cluster.ask(&format!("{service}.{namespace}.svc.{domain}. SRV"));
        assert_eq!(bare.answers.len(), 2);
        let below = cluster.ask(&format!("_tcp.{service}.{namespace}.svc.{domain}. SRV"));
        assert_eq!(below.status, if named > 0 { "NODATA" } else { "NXDOMAIN" });
    };
    check(7, 2);
    check(52, 2);
    check(53, 1);
    check(56, 1);
    check(57, 0);
}

/// Ports with a name of 63 characters and of 62.
const LONG_NAMES: &str = "
{kind: Service, metadata: {name: ip, namespace: shop}, spec: {clusterIP: 10.96.0.40, ports: [
  {name: LONG, port: 80, protocol: UDP}, {name: FITS, port: 81}, {port: 82}]}}
---
{kind: Service, metadata: {name: hl, namespace: shop}, spec: {clusterIP: None}}
---
kind: EndpointSlice
metadata: {name: hl-a, namespace: shop, labels: {kubernetes.io/service-name: hl}}
addressType: IPv4
ports: [{name: LONG, port: 80, protocol: UDP}, {name: FITS, port: 81}, {port: 82}]
endpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0.2], hostname: a}]
---
{kind: ServiceImport, metadata: {name: ip, namespace: shop}, spec: {type: ClusterSetIP,
  ips: [10.42.0.1], ports: [{name: LONG, port: 80, protocol: UDP}, {name: FITS, port: 81},
  {port: 82}]}}
---
{kind: ServiceImport, metadata: {name: far, namespace: shop}, spec: {type: Headless}}
---
kind: EndpointSlice
metadata: {name: far-a, namespace: shop, labels: {
  multicluster.kubernetes.io/service-name: far, multicluster.kubernetes.io/source-cluster: east}}
addressType: IPv4
ports: [{name: LONG, port: 80, protocol: UDP}, {name: FITS, port: 81}, {port: 82}]
endpoints: [{addresses: [10.3.0.1]}]
";
/// Services and slices with ports.
const OBJECTS: &str = include_str!("ports.yaml");
