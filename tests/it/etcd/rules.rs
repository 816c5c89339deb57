//! Every rule of the format: the keys, the question, and the answer.

use kubedns::name::Name;
use kubedns::records::Zone;

use super::{cluster, put, zone};
use crate::fixture::cluster::Cluster;
use crate::fixture::dns::Answer;

/// A question, its status, and its records without ` IN `.
type Row<'r> = (&'r str, &'r str, &'r [&'r str]);

fn check(cluster: &Cluster, rows: &[Row<'_>]) {
    for &(question, status, records) in rows {
        let mut expected: Vec<String> = records.iter().map(|text| spell(text)).collect();
        expected.sort();
        for answer in [cluster.ask(question), cluster.ask_tcp(question)] {
            assert_eq!(answer.status, status, "{question}: {answer:#?}");
            assert_eq!(answer.answers, expected, "{question}");
            let soas = answer.authorities.iter().filter(|text| text.contains(" IN SOA "));
            let is_negative = matches!(status, "NODATA" | "NXDOMAIN");
            assert!(soas.count() == usize::from(is_negative) || !records.is_empty(), "{question}");
        }
        cluster.check_explanation(question, status, &expected);
    }
}

/// Returns `NAME TTL TYPE DATA` in master-file form.
fn spell(text: &str) -> String {
    let words: Vec<&str> = text.splitn(3, ' ').collect();
    format!("{} {} IN {}", words[0], words[1], words[2])
}

#[test]
fn values_below_a_name_are_its_records() {
    let cluster = cluster(
        zone(&["skydns.local"], false),
        [
            ("local/skydns/www/1", r#"{"host":"10.0.0.1","targetstrip":1,"port":80,"ttl":60}"#),
            ("local/skydns/www/2", r#"{"host":"10.0.0.2","targetstrip":1,"port":80,"ttl":40}"#),
            ("local/skydns/www/3", r#"{"host":"fd00::3","targetstrip":1,"port":80,"ttl":50}"#),
            ("local/skydns/www/4", r#"{"host":"10.0.0.1","targetstrip":1,"port":80}"#),
            ("local/skydns/one", r#"{"host":"10.0.1.1","ttl":9}"#),
            ("local/skydns/both", r#"{"host":"10.0.2.1"}"#),
            ("local/skydns/both/below/it", r#"{"host":"10.0.2.2"}"#),
            ("other/x", r#"{"host":"10.0.3.1"}"#),
        ],
    );
    check(
        &cluster,
        &[
            (
                "www.skydns.local. A",
                "NOERROR",
                &["www.skydns.local. 40 A 10.0.0.1", "www.skydns.local. 40 A 10.0.0.2"],
            ),
            ("www.skydns.local. AAAA", "NOERROR", &["www.skydns.local. 50 AAAA fd00::3"]),
            ("WWW.skydns.LOCAL. AAAA", "NOERROR", &["WWW.skydns.LOCAL. 50 AAAA fd00::3"]),
            (
                "www.skydns.local. SRV",
                "NOERROR",
                &["www.skydns.local. 40 SRV 10 25 80 www.skydns.local."],
            ),
            ("1.www.skydns.local. A", "NOERROR", &["1.www.skydns.local. 60 A 10.0.0.1"]),
            ("0.1.www.skydns.local. A", "NXDOMAIN", &[]),
            ("www.skydns.local. TXT", "NODATA", &[]),
            ("one.skydns.local. A", "NOERROR", &["one.skydns.local. 9 A 10.0.1.1"]),
            // Its own value does not count beside values below it.
            ("both.skydns.local. A", "NOERROR", &["both.skydns.local. 300 A 10.0.2.2"]),
            ("below.both.skydns.local. A", "NOERROR", &["below.both.skydns.local. 300 A 10.0.2.2"]),
            ("no.skydns.local. A", "NXDOMAIN", &[]),
            ("x.other. A", "REFUSED", &[]),
            ("cluster.local. A", "REFUSED", &[]),
        ],
    );
    let srv = cluster.ask("www.skydns.local. SRV");
    let addresses = ["www.skydns.local. 40 IN A 10.0.0.1", "www.skydns.local. 40 IN A 10.0.0.2"];
    assert_eq!(srv.additionals[..2], addresses);
    assert_eq!(srv.additionals[2], "www.skydns.local. 50 IN AAAA fd00::3");
    cluster.check_reason("one.skydns.local. A", "etcd key /skydns/local/skydns/one of revision 7");
    let missing = "etcd has no key /skydns/local/skydns/no, and none below it";
    cluster.check_reason("a.no.skydns.local. A", missing);
}

#[test]
fn names_and_texts() {
    let cluster = cluster(
        zone(&["skydns.local"], false),
        [
            ("local/skydns/www/1", r#"{"host":"10.0.0.1"}"#),
            ("local/skydns/in/1", r#"{"host":"www.skydns.local","ttl":20}"#),
            ("local/skydns/out/1", r#"{"host":"www.example.com."}"#),
            ("local/skydns/lost/1", r#"{"host":"no.skydns.local"}"#),
            ("local/skydns/far/1", r#"{"host":"in.skydns.local"}"#),
            ("local/skydns/owned/1", r#"{"host":"www.skydns.local","text":"heritage=x"}"#),
            ("local/skydns/mixed/1", r#"{"host":"10.0.0.2","text":"a"}"#),
            ("local/skydns/mixed/2", r#"{"host":"www.skydns.local","text":"a"}"#),
            ("local/skydns/text", r#"{"text":"only"}"#),
            ("local/skydns/mx/1", r#"{"host":"10.0.0.3","mail":true,"targetstrip":1}"#),
            ("local/skydns/mx/2", r#"{"host":"mail.example.com","mail":true,"priority":20}"#),
            ("local/skydns/self/1", r#"{"host":"self.skydns.local"}"#),
            ("local/skydns/circle/1", r#"{"host":"back.skydns.local"}"#),
            ("local/skydns/back/1", r#"{"host":"circle.skydns.local"}"#),
        ],
    );
    let alias = "in.skydns.local. 20 CNAME www.skydns.local.";
    let www = "www.skydns.local. 300 A 10.0.0.1";
    let far = "far.skydns.local. 300 CNAME in.skydns.local.";
    let owned = "owned.skydns.local. 300 CNAME www.skydns.local.";
    let lost = "lost.skydns.local. 300 CNAME no.skydns.local.";
    let out = "out.skydns.local. 300 CNAME www.example.com.";
    check(&cluster, &[("in.skydns.local. A", "NOERROR", &[alias, www])]);
    check(&cluster, &[("in.skydns.local. CNAME", "NOERROR", &[alias])]);
    check(&cluster, &[("in.skydns.local. AAAA", "NOERROR", &[alias])]);
    check(&cluster, &[("far.skydns.local. A", "NOERROR", &[far, alias, www])]);
    check(&cluster, &[("out.skydns.local. A", "NOERROR", &[out])]);
    check(&cluster, &[("lost.skydns.local. A", "NXDOMAIN", &[lost])]);
    check(&cluster, &[("owned.skydns.local. A", "NOERROR", &[owned, www])]);
    check(
        &cluster,
        &[
            ("owned.skydns.local. TXT", "NOERROR", &["owned.skydns.local. 300 TXT heritage=x"]),
            ("mixed.skydns.local. A", "NOERROR", &["mixed.skydns.local. 300 A 10.0.0.2"]),
            ("mixed.skydns.local. CNAME", "NODATA", &[]),
            ("mixed.skydns.local. TXT", "NOERROR", &["mixed.skydns.local. 300 TXT a"]),
            ("text.skydns.local. TXT", "NOERROR", &["text.skydns.local. 300 TXT only"]),
            ("text.skydns.local. A", "NODATA", &[]),
            ("text.skydns.local. SRV", "NODATA", &[]),
            (
                "mx.skydns.local. MX",
                "NOERROR",
                &[
                    "mx.skydns.local. 300 MX 10 mx.skydns.local.",
                    "mx.skydns.local. 300 MX 20 mail.example.com.",
                ],
            ),
            ("self.skydns.local. A", "NODATA", &[]),
            ("circle.skydns.local. A", "SERVFAIL", &[]),
        ],
    );
    assert_eq!(
        cluster.ask("mx.skydns.local. MX").additionals,
        ["mx.skydns.local. 300 IN A 10.0.0.3"]
    );
}

#[test]
fn weights_are_shares_and_groups_hide_others() {
    let rows: [(&[&str], &[&str]); 9] = [
        (&["{}"], &["10 100 0"]),
        (&["{}", "{}"], &["10 50 0"]),
        (&[r#"{"weight":10}"#, r#"{"weight":30}"#], &["10 25 0", "10 75 0"]),
        (&[r#"{"weight":1}"#, r#"{"weight":65535}"#], &["10 1 0", "10 99 0"]),
        (&[r#"{"priority":5}"#, "{}", "{}"], &["10 50 0", "5 100 0"]),
        (&[r#"{"port":-1}"#, "{}"], &["10 50 0"]),
        (&[r#"{"group":"a","port":1}"#, r#"{"group":"b","port":2}"#], &["10 50 1", "10 50 2"]),
        (&[r#"{"group":"a","port":1}"#, r#"{"group":"a","port":2}"#], &["10 50 1", "10 50 2"]),
        (&[r#"{"group":"a","port":1}"#, r#"{"port":2}"#], &["10 50 1", "10 50 2"]),
    ];
    for (values, expected) in rows {
        let values: Vec<(String, String)> = (0..)
            .zip(values)
            .map(|(number, value)| {
                let value = value.replacen('{', r#"{"host":"h.example","#, 1).replace(",}", "}");
                (format!("local/skydns/x/{number}"), value)
            })
            .collect();
        let keys = values.iter().map(|(key, value)| (&**key, &**value));
        let cluster = cluster(zone(&["skydns.local"], false), keys);
        let answer = cluster.ask("x.skydns.local. SRV");
        let spelled = |text: &&str| format!("x.skydns.local. 300 IN SRV {text} h.example.");
        assert_eq!(answer.answers, expected.iter().map(spelled).collect::<Vec<_>>(), "{values:?}");
    }
    let cluster = cluster(
        zone(&["skydns.local"], false),
        [
            ("local/skydns/x/1", r#"{"host":"10.0.0.1","group":"near"}"#),
            ("local/skydns/x/1/a", r#"{"host":"10.0.0.2","group":"far"}"#),
            ("local/skydns/x/2", r#"{"host":"10.0.0.3"}"#),
        ],
    );
    let shown = ["x.skydns.local. 300 A 10.0.0.1", "x.skydns.local. 300 A 10.0.0.3"];
    check(&cluster, &[("x.skydns.local. A", "NOERROR", &shown)]);
    check(&cluster, &[("1.x.skydns.local. A", "NOERROR", &["1.x.skydns.local. 300 A 10.0.0.2"])]);
}

#[test]
fn the_apex_has_its_own_keys() {
    let soa = "ns.dns.skydns.local. hostmaster.skydns.local. 7 7200 1800 86400 30";
    let soa = format!("skydns.local. 30 IN SOA {soa}");
    let mut cluster =
        cluster(zone(&["skydns.local"], false), [("local/skydns/www/1", r#"{"host":"10.0.0.1"}"#)]);
    assert_eq!(cluster.ask("skydns.local. SOA").answers, [soa]);
    check(
        &cluster,
        &[
            ("skydns.local. A", "NOERROR", &["skydns.local. 300 A 10.0.0.1"]),
            ("skydns.local. NS", "NOERROR", &["skydns.local. 30 NS ns.dns.skydns.local."]),
            ("ns.dns.skydns.local. A", "NOERROR", &["ns.dns.skydns.local. 30 A 192.0.2.53"]),
            ("dns.skydns.local. A", "NODATA", &[]),
            ("skydns.local. CNAME", "NODATA", &[]),
        ],
    );
    put(&mut cluster, "local/skydns/dns/apex/1", r#"{"host":"10.0.0.9"}"#);
    put(&mut cluster, "local/skydns/dns/ns/ns1", r#"{"host":"10.0.0.53"}"#);
    put(&mut cluster, "local/skydns/dns/ns/ns2", r#"{"host":"no-address.example"}"#);
    cluster.writer.publish(8);
    check(
        &cluster,
        &[
            ("skydns.local. A", "NOERROR", &["skydns.local. 300 A 10.0.0.9"]),
            ("skydns.local. NS", "NOERROR", &["skydns.local. 300 NS ns1.ns.dns.skydns.local."]),
            ("ns.dns.skydns.local. A", "NOERROR", &["ns.dns.skydns.local. 300 A 10.0.0.53"]),
        ],
    );
    let Answer { additionals, .. } = cluster.ask("skydns.local. NS");
    assert_eq!(additionals, ["ns1.ns.dns.skydns.local. 300 IN A 10.0.0.53"]);
}

#[test]
fn reverse_zones_and_the_layout_of_kube2sky() {
    let cluster = cluster(
        zone(&["cluster.local", "0.0.10.in-addr.arpa"], false),
        [
            ("arpa/in-addr/10/0/0/7", r#"{"host":"web.example.com"}"#),
            ("arpa/in-addr/10/0/0/8/x", r#"{"host":"below.example.com"}"#),
            ("local/cluster/svc/shop/web/3f2a", r#"{"host":"10.0.0.7","port":80}"#),
            ("local/cluster/svc/shop/web/_tcp/_http/3f2a", r#"{"host":"10.0.0.7","port":80}"#),
        ],
    );
    let web = "web.shop.svc.cluster.local.";
    check(
        &cluster,
        &[
            (
                "7.0.0.10.in-addr.arpa. PTR",
                "NOERROR",
                &["7.0.0.10.in-addr.arpa. 300 PTR web.example.com."],
            ),
            ("9.0.0.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("9.0.1.10.in-addr.arpa. PTR", "REFUSED", &[]),
            (
                "web.shop.svc.cluster.local. A",
                "NOERROR",
                &["web.shop.svc.cluster.local. 300 A 10.0.0.7"],
            ),
            (
                "_http._tcp.web.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["_http._tcp.web.shop.svc.cluster.local. 300 SRV 10 100 80 \
                    3f2a._http._tcp.web.shop.svc.cluster.local."],
            ),
            ("shop.svc.cluster.local. AAAA", "NODATA", &[]),
        ],
    );
    assert_eq!(cluster.ask("8.0.0.10.in-addr.arpa. PTR").status, "NOERROR", "an alias: {web}");
}

#[test]
fn labels_that_match_any_label() {
    let keys = [
        ("local/skydns/a/web/1", r#"{"host":"10.0.0.1","ttl":60}"#),
        ("local/skydns/b/web/1", r#"{"host":"10.0.0.2","ttl":70}"#),
        ("local/skydns/b/db/1", r#"{"host":"10.0.0.3"}"#),
        ("local/skydns/any/1", r#"{"host":"10.0.0.4"}"#),
        ("local/skydns/c/*/1", r#"{"host":"10.0.0.5"}"#),
    ];
    let [one, two] = ["web.*.skydns.local. 0 A 10.0.0.1", "web.*.skydns.local. 0 A 10.0.0.2"];
    let rows: [Row<'_>; 5] = [
        ("*.b.skydns.local. AAAA", "NODATA", &[]),
        ("*.no.skydns.local. A", "NXDOMAIN", &[]),
        ("any.skydns.local. A", "NOERROR", &["any.skydns.local. 300 A 10.0.0.4"]),
        ("1.*.c.skydns.local. A", "NOERROR", &["1.*.c.skydns.local. 300 A 10.0.0.5"]),
        ("*.skydns.*. A", "REFUSED", &[]),
    ];
    for wildcards in [false, true] {
        let cluster = cluster(zone(&["skydns.local"], wildcards), keys);
        check(&cluster, &rows);
        check(&cluster, &[("web.*.skydns.local. A", "NOERROR", &[one, two])]);
        let status = if wildcards { "NOERROR" } else { "NXDOMAIN" };
        let found: &[&str] = &["x.c.skydns.local. 300 A 10.0.0.5"];
        let found = if wildcards { found } else { &[] };
        check(&cluster, &[("x.c.skydns.local. A", status, found)]);
        let deep = cluster.ask("x.y.c.skydns.local. A");
        assert_eq!(deep.status, status, "any number of labels (RFC 4592)");
    }
}

/// Names with more messages than a datagram is answered from, and than changes announce.
#[test]
fn names_with_many_messages() {
    let keys: Vec<(String, String)> = (0..1_100)
        .map(|number| {
            let address = format!("10.1.{}.{}", number / 250, number % 250);
            (format!("local/skydns/{}/{number}", number % 11), format!(r#"{{"host":"{address}"}}"#))
        })
        .collect();
    let keys = || keys.iter().map(|(key, value)| (&**key, &**value));
    let cluster = cluster(zone(&["skydns.local"], false), keys());
    assert!(cluster.ask("skydns.local. AAAA").truncated);
    assert!(cluster.ask("*.skydns.local. AAAA").truncated);
    assert_eq!(cluster.ask_tcp("skydns.local. AAAA").status, "NODATA");
    let all = cluster.ask_tcp("skydns.local. A");
    assert_eq!(all.answers.len(), 1_100);
    assert!(all.answers[0].starts_with("skydns.local. 0 IN A "), "{}", all.answers[0]);
    assert_eq!(cluster.ask_tcp("5.skydns.local. A").answers.len(), 100);
    let small = cluster.ask("5.5.skydns.local. A");
    assert_eq!(small.answers, ["5.5.skydns.local. 300 IN A 10.1.0.5"]);
}

#[test]
fn what_can_be_written_of_a_cluster_is_answered_beside_the_keys() {
    let names = ["skydns.local", "10.in-addr.arpa"].map(Name::parse);
    let names: Vec<_> = names.into_iter().map(Result::unwrap).collect();
    let zone = Zone::new("cluster.local").unwrap().with_keys(&names, false, false);
    let mut cluster = Cluster::empty(zone);
    let unknown = |cluster: &Cluster, name: &str| {
        assert_eq!(cluster.ask(&format!("{name} A")).status, "SERVFAIL", "{name}");
    };
    unknown(&cluster, "web.shop.svc.cluster.local.");
    unknown(&cluster, "alias.skydns.local.");
    cluster.writer.begin_keys();
    put(&mut cluster, "local/skydns/alias", r#"{"host":"web.shop.svc.cluster.local"}"#);
    put(&mut cluster, "local/skydns/www", r#"{"host":"10.0.0.1"}"#);
    put(&mut cluster, "arpa/in-addr/10/96/0/8", r#"{"host":"eight.example"}"#);
    cluster.writer.finish_keys();
    assert!(cluster.writer.publish(7).is_some());
    unknown(&cluster, "web.shop.svc.cluster.local.");
    unknown(&cluster, "alias.skydns.local.");
    check(&cluster, &[("www.skydns.local. A", "NOERROR", &["www.skydns.local. 300 A 10.0.0.1"])]);
    cluster.apply(
        "{kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.7}}",
    );
    cluster.sync();
    let alias = "alias.skydns.local. 300 CNAME web.shop.svc.cluster.local.";
    let web = "web.shop.svc.cluster.local. 30 A 10.96.0.7";
    let pointer = "7.0.96.10.in-addr.arpa. 30 PTR web.shop.svc.cluster.local.";
    check(&cluster, &[("alias.skydns.local. A", "NOERROR", &[alias, web])]);
    check(&cluster, &[("7.0.96.10.in-addr.arpa. PTR", "NOERROR", &[pointer])]);
    let eight = "8.0.96.10.in-addr.arpa. 300 PTR eight.example.";
    check(&cluster, &[("8.0.96.10.in-addr.arpa. PTR", "NOERROR", &[eight])]);
}
