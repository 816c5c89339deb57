//! Labels `*` and `any`, with `--wildcards`.
//!
//! Rows only. All have TTL 0, because an answer from several names must not be cached.

use super::clustersets::IMPORTS;
use super::{SHOP, zone};
use crate::fixture::cluster::Cluster;

type Row = (&'static str, &'static str, &'static [&'static str]);

/// Asks each row over UDP and TCP. `@` is the name as asked. ` 0 IN ` is added before each type.
fn check(cluster: &Cluster, rows: &[Row]) {
    for &(question, status, records) in rows {
        let name = question.split(' ').next().unwrap();
        let spell = |text: &&str| {
            let (owner, rest) = text.split_once(' ').unwrap();
            format!("{} 0 IN {rest}", if owner == "@" { name } else { owner })
        };
        let mut expected: Vec<String> = records.iter().map(spell).collect();
        expected.sort();
        for answer in [cluster.ask(question), cluster.ask_tcp(question)] {
            assert_eq!(answer.status, status, "{question}: {answer:#?}");
            assert_eq!(answer.answers, expected, "{question}");
            assert!(answer.authoritative && !answer.truncated, "{question}");
            if matches!(status, "NODATA" | "NXDOMAIN") {
                let zone = ["clusterset.local.", "cluster.local."];
                let zone = zone.into_iter().find(|zone| name.to_lowercase().ends_with(zone));
                let zone = zone.unwrap();
                let soa =
                    format!("{zone} 0 IN SOA ns.dns.{zone} hostmaster.{zone} 1 7200 1800 86400 0");
                assert_eq!(answer.authorities, [soa], "{question}");
            }
        }
        cluster.check_explanation(question, status, &expected);
    }
}

fn wild() -> kubedns::records::Zone {
    let mut zone = zone();
    zone.wildcards = true;
    zone
}

#[test]
fn wild_labels_gather_what_was_imported() {
    let mut zone = wild();
    zone.clusterset = Some(kubedns::name::Name::parse("clusterset.local").unwrap());
    check(
        &Cluster::of(zone, &format!("{SHOP}\n---\n{IMPORTS}")),
        &[
            (
                "*.shop.svc.clusterset.local. A",
                "NOERROR",
                &[
                    "@ A 10.3.0.100",
                    "@ A 10.3.0.101",
                    "@ A 10.4.0.100",
                    "@ A 10.42.42.42",
                    "@ A 10.42.42.43",
                ],
            ),
            ("pay.*.svc.clusterset.local. AAAA", "NOERROR", &["@ AAAA fd42::42"]),
            ("*.pay.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.42.42.42"]),
            (
                "_https._tcp.*.shop.svc.clusterset.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 443 pay.shop.svc.clusterset.local."],
            ),
            ("db-0.cluster-b.*.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.4.0.100"]),
            ("cluster-b.*.shop.svc.clusterset.local. A", "NODATA", &[]),
            ("cluster-c.*.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("db-0.*.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("*.default.svc.clusterset.local. A", "NXDOMAIN", &[]),
        ],
    );
}

#[test]
fn wild_labels_gather_what_there_is() {
    check(
        &Cluster::of(wild(), WILDCARDS),
        &[
            // the namespace
            ("web.*.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7", "@ A 10.96.1.7"]),
            ("web.any.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7", "@ A 10.96.1.7"]),
            ("WEB.Any.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7", "@ A 10.96.1.7"]),
            ("web.*.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:96::7"]),
            ("web.*.svc.cluster.local. TXT", "NODATA", &[]),
            ("nope.*.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("none.*.svc.cluster.local. A", "NXDOMAIN", &[]),
            (
                "web.*.svc.cluster.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 80 web.shop.svc.cluster.local.",
                    "@ SRV 0 100 443 web.shop.svc.cluster.local.",
                    "@ SRV 0 100 8080 web.test.svc.cluster.local.",
                    "@ SRV 0 100 9090 web.test.svc.cluster.local.",
                ],
            ),
            // the Service: every address once
            (
                "*.shop.svc.cluster.local. A",
                "NOERROR",
                &["@ A 10.96.0.7", "@ A 10.1.0.1", "@ A 10.1.0.2"],
            ),
            ("*.test.svc.cluster.local. A", "NOERROR", &["@ A 10.96.1.7"]),
            ("*.test.svc.cluster.local. CNAME", "NODATA", &[]),
            ("*.empty.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("*.nope.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("any.any.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:96::7"]),
            (
                "*.*.svc.cluster.local. ANY",
                "NOERROR",
                &["@ A 10.96.0.7", "@ A 10.96.1.7", "@ A 10.1.0.1", "@ A 10.1.0.2"],
            ),
            // `svc`
            ("web.shop.*.cluster.local. A", "NOERROR", &["@ A 10.96.0.7"]),
            (
                "web.shop.any.cluster.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 80 web.shop.svc.cluster.local.",
                    "@ SRV 0 100 443 web.shop.svc.cluster.local.",
                ],
            ),
            ("web.*.*.cluster.local. A", "NOERROR", &["@ A 10.96.0.7", "@ A 10.96.1.7"]),
            ("shop.*.cluster.local. A", "NODATA", &[]),
            ("nope.*.cluster.local. A", "NXDOMAIN", &[]),
            ("*.svc.cluster.local. A", "NODATA", &[]),
            ("*.cluster.local. A", "NODATA", &[]),
            // below a Service: all its records
            ("*.web.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7"]),
            ("*.db.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.1", "@ A 10.1.0.2"]),
            ("*.nope.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("*.mail.test.svc.cluster.local. A", "NOERROR", &["@ CNAME mail.example.com."]),
            // an endpoint's label, an address with dashes
            ("db-0.*.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.1"]),
            ("db-0.db.*.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.1"]),
            ("10-1-0-2.*.*.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.2"]),
            ("db-9.*.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            // ports
            (
                "_http._tcp.*.*.svc.cluster.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 80 web.shop.svc.cluster.local.",
                    "@ SRV 0 100 8080 web.test.svc.cluster.local.",
                ],
            ),
            (
                "*._udp.web.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 443 web.shop.svc.cluster.local."],
            ),
            (
                "_quic.any.web.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 443 web.shop.svc.cluster.local."],
            ),
            (
                "*.*.web.test.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 8080 web.test.svc.cluster.local."],
            ),
            (
                "_mysql._tcp.*.shop.svc.cluster.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 3306 db-0.db.shop.svc.cluster.local.",
                    "@ SRV 0 100 3306 10-1-0-2.db.shop.svc.cluster.local.",
                    "@ SRV 0 100 3306 db-0.db-all.shop.svc.cluster.local.",
                ],
            ),
            ("_tcp.*.shop.svc.cluster.local. SRV", "NODATA", &[]),
            ("_sctp.*.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("_http._tcp.*.shop.svc.cluster.local. A", "NODATA", &[]),
            ("_nope._tcp.*.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            // an alias, if it is the only match
            ("mail.*.svc.cluster.local. A", "NOERROR", &["@ CNAME mail.example.com."]),
            (
                "near.any.svc.cluster.local. A",
                "NOERROR",
                &["@ CNAME web.shop.svc.cluster.local.", "web.shop.svc.cluster.local. A 10.96.0.7"],
            ),
        ],
    );
}

#[test]
fn names_that_are_spelt_so_come_first_and_others_have_no_wildcards() {
    let mut cluster = Cluster::of(wild(), WILDCARDS);
    cluster.apply(
        "{kind: Service, metadata: {name: any, namespace: shop}, spec: {clusterIP: 10.96.0.9}}\n\
         ---\n{kind: Namespace, metadata: {name: any}}",
    );
    cluster.writer.publish(0).unwrap();
    let ask =
        |question: &str, status: &str, answers: &[&str]| {
            let answer = cluster.ask(question);
            assert_eq!((&*answer.status, &answer.answers[..]), (status, &texts(answers)[..]));
            assert!(answer.authorities.iter().all(|soa| soa.starts_with("cluster.local. 30 IN")
                || soa.starts_with("in-addr.arpa. 30 IN")));
        };
    let own = "any.shop.svc.cluster.local. 30 IN A 10.96.0.9";
    ask("any.shop.svc.cluster.local. A", "NOERROR", &[own]);
    ask("x.any.shop.svc.cluster.local. A", "NXDOMAIN", &[]);
    ask("any.svc.cluster.local. A", "NODATA", &[]);
    ask("web.any.svc.cluster.local. A", "NXDOMAIN", &[]);
    ask("10-1-0-1.*.pod.cluster.local. A", "NXDOMAIN", &[]);
    ask("*.shop.pod.cluster.local. A", "NXDOMAIN", &[]);
    ask("*.dns.cluster.local. A", "NXDOMAIN", &[]);
    ask("*.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]);
    ask("nope.shop.svc.cluster.local. A", "NXDOMAIN", &[]);
    // names that can never exist
    ask("_._tcp.*.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]);
    ask("http._tcp.*.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]);
    ask("a.b.*.web.shop.svc.cluster.local. A", "NXDOMAIN", &[]);
    // the flag is off
    let off = Cluster::of(zone(), SHOP).ask("*.shop.svc.cluster.local. A");
    assert_eq!(off.status, "NXDOMAIN");
    assert!(off.authorities[0].contains(" 30 IN SOA "));
}

#[test]
fn what_is_looked_at_is_bounded() {
    let mut cluster = Cluster::of(wild(), WILDCARDS);
    for index in 0..1_100 {
        let metadata = format!("{{name: s{index}, namespace: many}}");
        let spec = format!("{{clusterIP: 10.97.{}.{}}}", index / 256, index % 256);
        cluster.apply(&format!("{{kind: Service, metadata: {metadata}, spec: {spec}}}"));
    }
    cluster.writer.publish(0).unwrap();
    // More names than a query over UDP may visit: TC is set, and TCP has the whole answer.
    let question = "*.test.svc.cluster.local. A";
    let answer = cluster.ask(question);
    assert!(answer.truncated && answer.answers.len() <= 1, "{answer:?}");
    let answer = cluster.ask_tcp(question);
    assert_eq!(answer.answers, ["*.test.svc.cluster.local. 0 IN A 10.96.1.7"]);
    assert!(!answer.truncated);
    // More than a datagram can hold: only whole records.
    let answer = cluster.ask("*.many.svc.cluster.local. A");
    assert!(answer.truncated && answer.answers.len() > 60 && answer.size <= 1_232);
    let answer = cluster.ask_tcp("*.many.svc.cluster.local. A");
    assert_eq!((answer.answers.len(), answer.truncated), (1_100, false));
    // One lookup for each namespace, so that the number of Services does not matter.
    let answer = cluster.ask("web.*.svc.cluster.local. A");
    assert_eq!((answer.answers.len(), answer.truncated), (2, false));
}

#[test]
fn each_service_gets_into_a_datagram_equally_often() {
    let mut cluster = Cluster::of(wild(), WILDCARDS);
    for index in 0..200 {
        let metadata = format!("{{name: s{index}, namespace: many}}");
        let spec = format!("{{clusterIP: 10.97.0.{index}}}");
        cluster.apply(&format!("{{kind: Service, metadata: {metadata}, spec: {spec}}}"));
    }
    cluster.writer.publish(0).unwrap();
    let (mut times, mut all) = (std::collections::BTreeMap::<String, usize>::new(), 0);
    for _ in 0..400 {
        let answer = cluster.ask("*.many.svc.cluster.local. A");
        assert!(answer.truncated);
        all += answer.answers.len();
        answer.answers.into_iter().for_each(|record| *times.entry(record).or_default() += 1);
    }
    assert_eq!(times.len(), 200);
    let fair = all / 200;
    assert!(times.values().all(|&often| often.abs_diff(fair) <= fair / 10), "{fair} {times:?}");
}

fn texts(answers: &[&str]) -> Vec<String> {
    answers.iter().map(|text| (*text).to_owned()).collect()
}

/// Services that wildcards match.
const WILDCARDS: &str = include_str!("wildcards.yaml");
