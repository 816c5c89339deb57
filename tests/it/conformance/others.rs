//! Cases from the tests of kube-dns, CoreDNS and Kubernetes that are not in another table.

use kubedns::project::{Kind, ObjectId};

use super::{check, zone};
use crate::fixture::cluster::Cluster;

/// `kubernetes/kubernetes`, `test/e2e/network/dns.go`: an ExternalName gets another target, then
/// becomes a Service with a cluster IP.
#[test]
fn a_service_changes_its_shape() {
    let mut cluster = Cluster::of(zone(), "{kind: Namespace, metadata: {name: e2e}}");
    let mut becomes = |spec: &str, status: &'static str, records: &'static [&'static str]| {
        cluster.apply(&format!(
            "{{kind: Service, metadata: {{name: dns-test, namespace: e2e}}, spec: {spec}}}"
        ));
        cluster.sync().expect("a change");
        check(&cluster, &[("dns-test.e2e.svc.cluster.local. A", status, records)]);
        check(&cluster, &[("x.dns-test.e2e.svc.cluster.local. A", "NXDOMAIN", &[])]);
    };
    let foo = "{type: ExternalName, externalName: foo.example.com}";
    becomes(foo, "NOERROR", &["@ CNAME foo.example.com."]);
    let bar = "{type: ExternalName, externalName: bar.example.com}";
    becomes(bar, "NOERROR", &["@ CNAME bar.example.com."]);
    // the API server does not remove the name
    let ip = "{type: ClusterIP, clusterIP: 10.96.3.1, externalName: bar.example.com}";
    becomes(ip, "NOERROR", &["@ A 10.96.3.1"]);
    becomes("{type: ClusterIP, clusterIP: None}", "NXDOMAIN", &[]);
}

/// The same file: a name that begins with a digit (`RelaxedServiceNameValidation`); kube-dns's
/// `dns_test.go`: both families in either order, a port that gets another name.
#[test]
fn names_families_and_ports() {
    let mut cluster = Cluster::of(
        zone(),
        r#"
kind: Service
metadata: {name: 1st, namespace: e2e}
spec:
  clusterIP: "fd00:96::5"
  clusterIPs: ["fd00:96::5", 10.96.3.5]
  ports: [{name: http1, port: 80}]
"#,
    );
    check(
        &cluster,
        &[
            ("1st.e2e.svc.cluster.local. A", "NOERROR", &["@ A 10.96.3.5"]),
            ("1st.e2e.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:96::5"]),
            (
                "_http1._tcp.1st.e2e.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 1st.e2e.svc.cluster.local."],
            ),
            ("5.3.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR 1st.e2e.svc.cluster.local."]),
        ],
    );
    cluster.apply(
        "
kind: Service
metadata: {name: 1st, namespace: e2e}
spec: {clusterIP: 10.96.3.6, ports: [{name: http2, port: 80}]}
",
    );
    cluster.sync().expect("a change");
    check(
        &cluster,
        &[
            ("_http1._tcp.1st.e2e.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            (
                "_http2._tcp.1st.e2e.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 1st.e2e.svc.cluster.local."],
            ),
            ("1st.e2e.svc.cluster.local. A", "NOERROR", &["@ A 10.96.3.6"]),
            ("1st.e2e.svc.cluster.local. AAAA", "NODATA", &[]),
            ("5.3.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("6.3.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR 1st.e2e.svc.cluster.local."]),
        ],
    );
}

/// CoreDNS's `reverse_test.go` and kube-dns's table of reverse names: forward names in a reverse
/// zone, too many nibbles, digits in either case.
#[test]
fn reverse_names_of_odd_shapes() {
    let cluster = Cluster::of(
        zone(),
        r#"{kind: Service, metadata: {name: six, namespace: e2e}, spec: {clusterIP: "fd00::a"}}"#,
    );
    let below = format!("{}d.f.ip6.arpa. PTR", "0.".repeat(29));
    let ask = |first: &str| cluster.ask(&format!("{first}{below}"));
    assert_eq!((ask("a.").answers.len(), ask("A.").answers.len()), (1, 1));
    let rows = [("", "NODATA"), ("b.", "NXDOMAIN"), ("g.", "NXDOMAIN"), ("0.a.", "NXDOMAIN")];
    for (first, status) in rows {
        assert_eq!(ask(first).status, status, "{first}");
    }
    check(
        &cluster,
        &[
            ("six.e2e.svc.cluster.local.in-addr.arpa. A", "REFUSED", &[]),
            ("six.e2e.svc.ip6.arpa. AAAA", "REFUSED", &[]),
            ("six.e2e.svc.cluster.local. PTR", "NODATA", &[]),
        ],
    );
}

/// kube-dns's `dns_test.go`: an address in a form that is not the shortest (RFC 5952).
#[test]
fn an_address_is_the_same_however_it_is_written() {
    check(
        &Cluster::of(
            zone(),
            r#"
kind: Service
metadata: {name: long, namespace: e2e}
spec: {clusterIP: "2001:db8:0:0:aaaa::1", clusterIPs: ["2001:db8:0:0:aaaa::1"]}
"#,
        ),
        &[
            ("long.e2e.svc.cluster.local. A", "NODATA", &[]),
            ("long.e2e.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA 2001:db8::aaaa:0:0:1"]),
            (
                "1.0.0.0.0.0.0.0.0.0.0.0.a.a.a.a.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR",
                "NOERROR",
                &["@ PTR long.e2e.svc.cluster.local."],
            ),
        ],
    );
}

/// kube-dns's `dns_test.go`: endpoints of a headless Service are added and removed, with their
/// slice or without it; a hostname moves to another address.
#[test]
fn names_go_with_their_endpoints() {
    let slice = |endpoints: &str| {
        format!(
            "
kind: EndpointSlice
metadata: {{name: cats-1, namespace: e2e, labels: {{kubernetes.io/service-name: cats}}}}
addressType: IPv4
ports: [{{name: http, port: 80}}]
endpoints: {endpoints}
"
        )
    };
    let one = slice("[{addresses: [10.0.0.1], hostname: foo}]");
    let mut cluster = Cluster::of(
        zone(),
        "{kind: Service, metadata: {name: cats, namespace: e2e}, spec: {clusterIP: None}}",
    );
    let there: &[super::Row] = &[
        ("cats.e2e.svc.cluster.local. A", "NOERROR", &["@ A 10.0.0.1"]),
        ("foo.cats.e2e.svc.cluster.local. A", "NOERROR", &["@ A 10.0.0.1"]),
        (
            "_http._tcp.cats.e2e.svc.cluster.local. SRV",
            "NOERROR",
            &["@ SRV 0 100 80 foo.cats.e2e.svc.cluster.local."],
        ),
        ("1.0.0.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR foo.cats.e2e.svc.cluster.local."]),
    ];
    let gone = there.iter().map(|&(question, ..)| (question, "NXDOMAIN", &[][..]));
    let gone: Vec<super::Row> = gone.collect();
    check(&cluster, &gone);
    let mut becomes = |yaml: Option<&str>, rows: &[super::Row]| {
        match yaml {
            Some(yaml) => cluster.apply(yaml),
            None => cluster.delete(ObjectId::new(Kind::EndpointSlice, "e2e", "cats-1")),
        }
        cluster.sync().expect("a change");
        check(&cluster, rows);
    };
    becomes(Some(&one), there);
    becomes(Some(&slice("[]")), &gone);
    becomes(Some(&one), there);
    becomes(None, &gone);
    becomes(Some(&one), there);
    let elsewhere = slice("[{addresses: [10.0.0.2], hostname: foo}]");
    let moved: &[super::Row] = &[
        ("foo.cats.e2e.svc.cluster.local. A", "NOERROR", &["@ A 10.0.0.2"]),
        ("2.0.0.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR foo.cats.e2e.svc.cluster.local."]),
        ("1.0.0.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
    ];
    becomes(Some(&elsewhere), moved);
}

/// kube-dns's `dns_test.go`: an alias is removed; two Services of a namespace share a cluster IP.
#[test]
fn aliases_go_and_addresses_are_shared() {
    let mut cluster = Cluster::of(
        zone(),
        "
kind: Service
metadata: {name: alias, namespace: e2e}
spec: {type: ExternalName, externalName: foo.example.com}
---
{kind: Service, metadata: {name: one, namespace: e2e}, spec: {clusterIP: 10.96.3.9}}
---
{kind: Service, metadata: {name: two, namespace: e2e}, spec: {clusterIP: 10.96.3.9}}
",
    );
    let alias = "alias.e2e.svc.cluster.local. A";
    check(&cluster, &[(alias, "NOERROR", &["@ CNAME foo.example.com."])]);
    cluster.delete(ObjectId::new(Kind::Service, "e2e", "alias"));
    cluster.sync().expect("a change");
    check(
        &cluster,
        &[
            (alias, "NXDOMAIN", &[]),
            ("alias.e2e.svc.cluster.local. CNAME", "NXDOMAIN", &[]),
            (
                "9.3.96.10.in-addr.arpa. PTR",
                "NOERROR",
                &["@ PTR one.e2e.svc.cluster.local.", "@ PTR two.e2e.svc.cluster.local."],
            ),
        ],
    );
}
