//! Every kind of record, with one line for each rule: the objects, the question, and the answer.
//!
//! In process: objects as YAML go through projection, store and answer, and a third-party decoder
//! reads the reply. Rules: the DNS specification 1.1.0 (`kubernetes/dns`, `docs/specification.md`),
//! RFC 1034, 2181, 2308, 2782, 6604, 8020, 8482.

mod addresses;
mod clustersets;
mod exposed;
mod federations;
mod names;
mod others;
mod outside;
mod ports;
mod ranges;
mod replies;
mod reverse;
mod search;
mod services;
mod sizes;
mod transcripts;
mod wildcards;
mod zonal;

use kubedns::records::{Schema, Zone};

use super::fixture::cluster::Cluster;

/// One question and its answer: status, then records. `@` is the name as asked. ` 30 IN ` is added
/// before each type.
type Row = (&'static str, &'static str, &'static [&'static str]);

/// Asks each row over UDP and TCP, and compares status and answer section. If `extra` has a row, it
/// also compares the additional section.
fn check(cluster: &Cluster, rows: &[Row]) {
    for &(question, status, records) in rows {
        let name = question.split(' ').next().unwrap();
        let mut expected: Vec<String> = records.iter().map(|text| spell(text, name)).collect();
        expected.sort();
        for answer in [cluster.ask(question), cluster.ask_tcp(question)] {
            assert_eq!(answer.status, status, "{question}: {answer:#?}");
            assert_eq!(answer.answers, expected, "{question}");
            assert!(!answer.recursion_available && !answer.truncated, "{question}");
            cluster.check_explanation(question, status, &expected);
            let ours = !matches!(status, "REFUSED" | "SERVFAIL");
            assert_eq!(answer.authoritative, ours, "{question}: AA");
            let negative = matches!(status, "NODATA" | "NXDOMAIN");
            let soas = answer.authorities.iter().filter(|text| text.contains(" IN SOA ")).count();
            if negative {
                assert_eq!(answer.authorities.len(), 1, "{question}: {answer:#?}");
                let aliases = records.iter().rev();
                let last = aliases.filter_map(|text| text.split_once(" CNAME ")).next();
                let (start, end) = soa(cluster, last.map_or(name, |(_, target)| target));
                let said = &answer.authorities[0];
                assert!(said.starts_with(&start) && said.ends_with(&end), "{question}: {said}");
            } else if records.iter().all(|text| !text.contains(" CNAME ")) {
                assert_eq!(soas, 0, "{question}: {answer:#?}");
            }
        }
    }
}

/// Returns the SOA of a negative answer at `name`, before and after its serial. The zone's two
/// labels are spelled as in the name, and the TTL is MINIMUM (RFC 2308 section 3).
fn soa(cluster: &Cluster, name: &str) -> (String, String) {
    let labels: Vec<&str> = name.rsplitn(4, '.').collect();
    let owner = format!("{}.{}.", labels[2], labels[1]);
    let domain = match labels[1] {
        "arpa" => cluster.reader.records().zone().apex().to_string(),
        _ => owner.clone(),
    };
    let records = cluster.reader.records();
    let outside = records.views().iter().map(|view| view.zone());
    let outside = outside.filter(|zone| matches!(zone.schema(), Schema::External { .. }));
    let is_outside = outside.map(|zone| zone.apex().to_string()).any(|apex| apex == owner);
    let [ns, below] = if is_outside { ["ns1", "dns."] } else { ["ns", ""] };
    let start = format!("{owner} 30 IN SOA {ns}.dns.{domain} hostmaster.{below}{domain} ");
    (start, " 7200 1800 86400 30".to_owned())
}

/// Checks the additional section of each question.
fn check_additional(cluster: &Cluster, rows: &[(&str, &[&str])]) {
    for &(question, records) in rows {
        let mut expected: Vec<String> = records.iter().map(|text| spell(text, "")).collect();
        expected.sort();
        assert_eq!(cluster.ask(question).additionals, expected, "{question}");
        assert_eq!(cluster.ask_tcp(question).additionals, expected, "{question}");
    }
}

/// Returns `@ A 10.0.0.7` in master-file form.
fn spell(text: &str, asked: &str) -> String {
    let (owner, rest) = text.split_once(' ').unwrap();
    let owner = if owner == "@" { asked } else { owner };
    format!("{owner} 30 IN {rest}")
}

fn zone() -> Zone {
    let mut zone = Zone::new("cluster.local").unwrap();
    zone.name_server = ["10.96.0.10", "fd00:96::10"].map(|text| text.parse().unwrap()).into();
    zone
}

/// A realistic cluster with one object for each rule.
const SHOP: &str = include_str!("conformance/shop.yaml");
/// Namespaces that claim each other's addresses.
const CLAIMS: &str = include_str!("conformance/claims.yaml");
