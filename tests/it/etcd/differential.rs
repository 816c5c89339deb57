//! CoreDNS's plugin `etcd` next to kubedns, with the same etcd.
//!
//! The test runs if `COREDNS` names CoreDNS and there is an etcd. It writes 500 random keys and
//! asks 2,000 questions. Codes and records must be the same, except for differences that are listed
//! with a reason.

use std::collections::{BTreeMap, BTreeSet};

use tests::etcd::{self, Etcd};

use crate::corefile::differential::Coredns;
use crate::fixture::dns::{self, Answer};
use crate::fixture::kubedns::start;

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % sides
    }

    fn one<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.roll(texts.len() as u64) as usize]
    }
}

/// Returns a random name below the zone, from the right to the left.
fn labels(dice: &mut Dice) -> Vec<String> {
    let names = ["www", "db", "mail", "_tcp", "_http", "a", "b", "c", "dns", "ns", "apex", "x1"];
    let names = names.map(str::to_owned);
    let count = 1 + dice.roll(3);
    (0..count).map(|_| names[dice.roll(names.len() as u64) as usize].clone()).collect()
}

fn value(dice: &mut Dice) -> String {
    let name = labels(dice).into_iter().rev().collect::<Vec<_>>().join(".");
    let (one, two) = (dice.roll(250), dice.roll(250));
    let mut fields = match dice.roll(20) {
        0..9 => vec![format!(r#""host":"10.0.{one}.{two}""#)],
        9..12 => vec![format!(r#""host":"fd00::{one:x}:{two:x}""#)],
        12 => vec![format!(r#""host":"{name}.skydns.local""#)],
        13..18 => vec![r#""host":"www.example.com""#.to_owned()],
        _ => Vec::new(),
    };
    for (name, chance) in [("ttl", 3), ("priority", 8), ("weight", 5), ("port", 2)] {
        if dice.roll(chance) == 0 {
            fields.push(format!(r#""{name}":{}"#, 1 + dice.roll(200)));
        }
    }
    if dice.roll(6) == 0 || fields.is_empty() {
        fields.push(format!(r#""text":"text {one}""#));
    }
    if dice.roll(12) == 0 {
        fields.push(r#""mail":true"#.to_owned());
    }
    if dice.roll(3) == 0 {
        fields.push(format!(r#""targetstrip":{}"#, dice.roll(3)));
    }
    if dice.roll(15) == 0 {
        fields.push(format!(r#""group":"{}""#, dice.one(&["near", "far"])));
    }
    format!("{{{}}}", fields.join(","))
}

/// Returns why the answers may differ; `None` if they must be the same.
fn reason(question: &str, theirs: &Answer, ours: &Answer) -> Option<&'static str> {
    let (name, rtype) = question.split_once(' ')?;
    let bare = |answer: &Answer| {
        let words = answer.answers.iter().map(|record| {
            let words: Vec<&str> = record.split(' ').collect();
            [&words[..1], &words[2..]].concat().join(" ")
        });
        words.collect::<BTreeSet<_>>()
    };
    let (they, we) = (bare(theirs), bare(ours));
    let aliases = |records: &BTreeSet<String>| {
        records.iter().filter(|record| record.contains(" IN CNAME ")).count()
    };
    let is_apex = name == "skydns.local.";
    match (theirs.status.as_str(), ours.status.as_str()) {
        _ if they == we && theirs.status == ours.status => {
            Some("all records of a type at a name have the lowest of their TTLs (RFC 2181)")
        }
        ("SERVFAIL", _) if rtype == "NS" => Some("one name among name servers fails the answer"),
        ("NXDOMAIN", "NOERROR" | "NODATA") if is_apex => Some("the apex exists"),
        _ if is_apex && aliases(&they) > 0 => Some("the apex is no alias (RFC 1034)"),
        ("NXDOMAIN", _) if matches!(rtype, "CNAME" | "PTR") && ours.status != "NXDOMAIN" => {
            Some("a name exists for every type or for none, and its alias can be below it")
        }
        ("NODATA", "NOERROR") if rtype == "TXT" && aliases(&we) == 0 => {
            Some("an address with a text has both")
        }
        _ if rtype == "TXT" && aliases(&we) == 0 && ours.status == "NOERROR" => {
            Some("a text beside a host is an answer, and not an alias")
        }
        ("NODATA", "NXDOMAIN") if name.starts_with("*.") => Some("no name matches the label"),
        (_, "SERVFAIL") => Some("a circle of aliases is neither an answer nor a denial"),
        _ if aliases(&we) > 0 || aliases(&they) > 0 => Some(
            "a name has addresses or one alias (RFC 1034), for all types, with the code of its \
             target (RFC 6604)",
        ),
        _ if matches!(rtype, "SRV" | "MX") && they.len() == we.len() => {
            Some("labels are stripped from the own name only, not from a host")
        }
        _ if matches!(rtype, "SRV" | "MX") => {
            Some("equal records are one, whatever their address, and other ports are others")
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn coredns_gives_the_same_answers() {
    let (Some(program), Some(assets)) = (std::env::var_os("COREDNS"), etcd::program()) else {
        println!("skipped: COREDNS names no CoreDNS, or there is no etcd");
        return;
    };
    let etcd = Etcd::start(&assets).await;
    let mut dice = Dice(1);
    let mut names = BTreeSet::from(["skydns.local.".to_owned()]);
    for number in 0..KEYS {
        let labels = labels(&mut dice);
        let key = format!("/skydns/local/skydns/{}/{:x}", labels.join("/"), number * 7_919);
        etcd.put(&key, &value(&mut dice)).await;
        let reversed: Vec<&str> = labels.iter().rev().map(String::as_str).collect();
        names.insert(format!("{}.skydns.local.", reversed.join(".")));
        names.insert(format!("{:x}.{}.skydns.local.", number * 7_919, reversed.join(".")));
    }
    let directory = tempfile::TempDir::new().unwrap();
    let corefile = format!(
        "skydns.local:PORT {{\n etcd {{\n endpoint {}\n }}\n}}\nexample:PORT {{\n}}\n",
        etcd.url
    );
    let coredns = Coredns::start(&program, directory.path(), &corefile).await.unwrap();
    let kubedns = start(&["--etcd", &etcd.url, "--etcd-zone", "skydns.local"]).await;
    kubedns.answers("no.skydns.local. A", "NXDOMAIN", &[]).await;
    let names: Vec<&String> = names.iter().collect();
    let (mut equal, mut differences) = (0, Vec::new());
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..QUESTIONS {
        let name = names[dice.roll(names.len() as u64) as usize];
        let prefix = dice.one(&["", "", "", "", "", "no.", "*."]);
        let types = ["A", "AAAA", "SRV", "TXT", "CNAME", "MX", "NS", "PTR", "HINFO"];
        let question = format!("{prefix}{name} {}", dice.one(&types));
        let (theirs, ours) =
            tokio::join!(dns::ask(coredns.address, &question), dns::ask(kubedns.dns, &question));
        if (&theirs.status, &theirs.answers) == (&ours.status, &ours.answers) {
            equal += 1;
        } else if let Some(reason) = reason(&question, &theirs, &ours) {
            *explained.entry(reason).or_default() += 1;
        } else {
            let (theirs, ours) = ((theirs.status, theirs.answers), (ours.status, ours.answers));
            differences.push(format!("{question}: CoreDNS {theirs:?}, ours {ours:?}"));
        }
    }
    println!("{equal} of {QUESTIONS} answers are the same");
    for (reason, count) in &explained {
        println!("{count} answers differ: {reason}");
    }
    assert!(differences.is_empty(), "without a reason: {differences:#?}");
    kubedns.end().await;
}

const KEYS: usize = 500;
const QUESTIONS: usize = 2_000;
