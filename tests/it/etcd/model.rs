//! Random histories of keys, compared with a slow model that reads all keys for each question.
//!
//! A history sets, deletes, breaks, misses and lists keys in any order. After it, every name must
//! answer as in the model, and every answer that changed must have been announced.

use std::collections::{BTreeMap, BTreeSet};

use kubedns::skydns::{Message, path_of_key};
use kubedns::store::{Changed, Published};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::{put, zone};
use crate::fixture::cluster::Cluster;

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// The key gets this value.
    Put(String, Value),
    /// The key gets a value that breaks a rule.
    Break(String),
    Delete(String),
    /// The same, while the watch is down: kubedns sees it in the next list.
    MissPut(String, Value),
    MissDelete(String),
    /// A full list.
    List,
    /// A full list that is cut.
    BrokenList,
    Publish,
}

fn key() -> impl Strategy<Value = String> {
    let label = prop::sample::select(&["a", "b", "dns", "ns", "*"][..]);
    prop::collection::vec(label, 1..4).prop_map(|labels| format!("z/{}", labels.join("/")))
}

fn value() -> impl Strategy<Value = Value> {
    let host = prop::sample::select(&HOSTS[..]);
    let numbers = (0..3_u32, 0..3_u32, 0..3_u32, 0..3_u32);
    let others = (any::<bool>(), prop::sample::select(&["", "t", "u"][..]));
    let group = prop::sample::select(&["", "", "g", "h"][..]);
    (host, numbers, others, group).prop_map(|(host, (a, b, c, d), (mail, text), group)| {
        json!({"host": host, "ttl": a * 30, "priority": b, "weight": c, "targetstrip": d,
            "mail": mail && b == 1, "text": text, "group": group})
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (key(), value()).prop_map(|(key, value)| Step::Put(key, value)),
        1 => key().prop_map(Step::Break),
        4 => key().prop_map(Step::Delete),
        2 => (key(), value()).prop_map(|(key, value)| Step::MissPut(key, value)),
        2 => key().prop_map(Step::MissDelete),
        2 => Just(Step::List),
        1 => Just(Step::BrokenList),
        4 => Just(Step::Publish),
    ]
}

/// The keys of etcd, and what kubedns has received of them.
struct World {
    keys: BTreeMap<String, Value>,
    cluster: Cluster,
    before: BTreeMap<String, Vec<String>>,
    is_missed: bool,
}

impl World {
    fn take(&mut self, step: Step) {
        let writer = &mut self.cluster.writer;
        let path = |key: &str| path_of_key(key).unwrap();
        match step {
            Step::Put(key, value) => {
                put(&mut self.cluster, &key, &value.to_string());
                self.keys.insert(key, value);
            }
            Step::Break(key) => {
                assert!(Message::read(path(&key), 7, br#"{"port":"x"}"#, None).is_err());
                writer.put_key(&path(&key), None);
                self.keys.remove(&key);
            }
            Step::Delete(key) => {
                writer.put_key(&path(&key), None);
                self.keys.remove(&key);
            }
            Step::MissPut(key, value) => {
                self.keys.insert(key, value);
                self.is_missed = true;
            }
            Step::MissDelete(key) => {
                self.keys.remove(&key);
                self.is_missed = true;
            }
            Step::List => {
                self.list(usize::MAX);
                self.cluster.writer.finish_keys();
                self.is_missed = false;
            }
            Step::BrokenList => self.list(2),
            Step::Publish => self.publish(),
        }
    }

    fn list(&mut self, count: usize) {
        self.cluster.writer.begin_keys();
        for (key, value) in self.keys.iter().take(count) {
            put(&mut self.cluster, key, &value.to_string());
        }
    }

    /// Publishes, and checks that each answer that changed was announced.
    fn publish(&mut self) {
        let published = self.cluster.writer.publish(7);
        let after = answers(&self.cluster);
        // Aliases take turns, so an answer with one, or by a loop of them, can change without a
        // change of the records.
        let has_turns = |answer: &[String]| {
            answer[0] == "SERVFAIL" || answer.iter().any(|it| it.contains(" IN CNAME "))
        };
        let changed = after.iter().filter(|(question, answer)| {
            let before = self.before.get(*question).filter(|before| !has_turns(before));
            before.is_some_and(|before| before != *answer && !has_turns(answer))
        });
        for (question, _) in changed {
            let name = question.split(' ').next().unwrap();
            let is_announced = match &published {
                Some(Published { changed: Changed::Everything, .. }) => true,
                Some(Published { changed: Changed::Names(names), .. }) => names.iter().any(|it| {
                    let announced = shared::name::text(it);
                    format!(".{name}").ends_with(&format!(".{announced}"))
                }),
                None => false,
            };
            let (before, now) = (&self.before[question], &after[question]);
            assert!(is_announced, "{question}: {before:?} to {now:?}, {published:?}");
        }
        self.before = after;
    }
}

/// Returns the answers to all questions, in one order.
fn answers(cluster: &Cluster) -> BTreeMap<String, Vec<String>> {
    let questions = questions();
    let answer = |question: String| {
        let answer = cluster.ask(&question);
        let mut all = answer.answers;
        all.insert(0, answer.status);
        (question, all)
    };
    questions.into_iter().map(answer).collect()
}

fn questions() -> Vec<String> {
    let names = ["z.", "a.z.", "b.z.", "b.a.z.", "a.b.a.z.", "dns.z.", "ns.dns.z.", "c.a.z."];
    let types = ["A", "AAAA", "SRV", "TXT", "MX", "PTR", "NS"];
    let pair = |name: &'static str| types.map(move |rtype| format!("{name} {rtype}"));
    names.into_iter().flat_map(pair).collect()
}

/// The slow model: which values a name has, and the records of one type by them.
struct Model<'m>(&'m BTreeMap<String, Value>);

impl Model<'_> {
    /// Returns the key of a name.
    fn key(name: &str) -> String {
        let labels: Vec<&str> = name.trim_end_matches('.').split('.').rev().collect();
        labels.join("/")
    }

    fn below(&self, key: &str) -> Vec<(&String, &Value)> {
        let prefix = format!("{key}/");
        self.0.iter().filter(|(other, _)| other.starts_with(&prefix)).collect()
    }

    fn exists(&self, name: &str) -> bool {
        let key = Self::key(name);
        self.0.contains_key(&key)
            || !self.below(&key).is_empty()
            || ["z.", "dns.z.", "ns.dns.z."].contains(&name)
    }

    /// Returns the values of a name, without those of other groups.
    fn values(&self, key: &str) -> Vec<(&String, &Value)> {
        let mut all = self.below(key);
        if all.is_empty() {
            all.extend(self.0.get_key_value(key));
        }
        let depth = |key: &str| key.matches('/').count();
        let grouped: Vec<_> = all.iter().filter(|(_, value)| value["group"] != "").collect();
        let shortest = grouped.iter().map(|(key, _)| depth(key)).min();
        let first: BTreeSet<_> = grouped
            .iter()
            .filter(|(key, _)| Some(depth(key)) == shortest)
            .map(|(_, value)| value["group"].as_str())
            .collect();
        if first.len() == 1 {
            let group = first.into_iter().next().flatten().unwrap().to_owned();
            all.retain(|(_, value)| value["group"] == "" || value["group"] == *group);
        }
        all
    }

    /// Returns the data of the records of `rtype` at `name`, without aliases, and their TTL.
    fn records(&self, name: &str, rtype: &str) -> (BTreeSet<String>, u64) {
        let own = Self::key(name);
        let special = |below: &str| format!("{own}/dns/{below}");
        let exists = |key: &str| self.0.contains_key(key) || !self.below(key).is_empty();
        let key = match (name, rtype) {
            ("z.", "NS") => special("ns"),
            ("z.", "A" | "AAAA") if exists(&special("apex")) => special("apex"),
            _ => own.clone(),
        };
        let values = match rtype {
            "PTR" => self.0.get_key_value(&key).into_iter().collect(),
            _ => self.values(&key),
        };
        let mut records = BTreeMap::new();
        for (key, value) in &values {
            let host = value["host"].as_str().unwrap();
            let address = host.parse::<std::net::IpAddr>().ok();
            let target = match address {
                Some(_) => target(key, value["targetstrip"].as_u64().unwrap()),
                None => format!("{host}."),
            };
            let text = value["text"].as_str().unwrap();
            let priority = match value["priority"].as_u64().unwrap() {
                0 => 10,
                priority => priority,
            };
            let record = match rtype {
                "A" => address.filter(|it| it.is_ipv4()).map(|it| it.to_string()),
                "AAAA" => address.filter(|it| it.is_ipv6()).map(|it| it.to_string()),
                "TXT" => Some(text.to_owned()).filter(|text| !text.is_empty()),
                "PTR" => Some(target).filter(|_| address.is_none() && !host.is_empty()),
                "NS" => Some(target).filter(|_| name == "z." && address.is_some()),
                "MX" if value["mail"] == true && !host.is_empty() => {
                    Some(format!("{priority} {target}"))
                }
                "SRV" if !host.is_empty() => {
                    let weight = share(&values, value);
                    Some(format!("{priority} {weight} 0 {target}"))
                }
                _ => None,
            };
            let ttl = match value["ttl"].as_u64().unwrap() {
                0 => 300,
                ttl => ttl,
            };
            if let Some(record) = record {
                let least = records.entry(record).or_insert(ttl);
                *least = ttl.min(*least);
            }
        }
        let ttl = records.values().copied().min().unwrap_or_default();
        (records.into_keys().collect(), ttl)
    }

    /// Returns the targets of which one is the alias of `name`.
    fn aliases(&self, name: &str) -> Vec<String> {
        let is_address = |host: &str| host.parse::<std::net::IpAddr>().is_ok();
        let values = self.values(&Self::key(name));
        let hosts: Vec<&str> =
            values.iter().map(|(_, value)| value["host"].as_str().unwrap()).collect();
        if name == "z." || hosts.iter().any(|host| is_address(host)) {
            return Vec::new();
        }
        let names = values
            .iter()
            .zip(hosts)
            .filter(|((_, value), host)| !host.is_empty() && value["mail"] == false);
        names.map(|(_, host)| format!("{host}.")).collect()
    }

    /// Panics if `answer` is not an answer to the question.
    fn check(&self, question: &str, answer: &[String]) {
        let (first, rtype) = question.split_once(' ').unwrap();
        let (mut name, mut expected) = (first.to_owned(), Vec::new());
        for _ in 0..8 {
            let (records, ttl) = self.records(&name, rtype);
            let aliases = self.aliases(&name);
            let chosen =
                aliases.iter().find(|target| answer.iter().any(|it| is_alias(it, &name, target)));
            match chosen {
                Some(target) if records.is_empty() => {
                    expected.push((name.clone(), target.clone()));
                    name = target.clone();
                    if !format!(".{name}").ends_with(".z.") {
                        assert_eq!(answer[0], "NOERROR", "{question}");
                        assert_eq!(answer.len(), 1 + expected.len(), "{question}: {answer:?}");
                        return;
                    }
                }
                _ => {
                    let is_self = aliases.contains(&name);
                    let no_alias = records.is_empty() && !aliases.is_empty() && !is_self;
                    if answer[0] == "SERVFAIL" {
                        assert!(!aliases.is_empty() || records.is_empty(), "{question}");
                        return;
                    }
                    assert!(!no_alias, "{question} has an alias: {aliases:?}, {answer:?}");
                    let own = records.iter().map(|data| format!("{name} {ttl} IN {rtype} {data}"));
                    let mut own: Vec<String> = own.collect();
                    if (&*name, rtype) == ("z.", "NS") && own.is_empty() {
                        own.push("z. 30 IN NS ns.dns.z.".to_owned());
                    }
                    if (&*name, rtype) == ("ns.dns.z.", "A") && !self.has("z/dns/ns") {
                        own.push("ns.dns.z. 30 IN A 192.0.2.53".to_owned());
                    }
                    let status = match (self.exists(&name), own.len() + expected.len()) {
                        (false, _) => "NXDOMAIN",
                        (true, 0) => "NODATA",
                        _ => "NOERROR",
                    };
                    assert_eq!(answer[0], status, "{question}: {answer:?}");
                    let rest = answer[1..].iter().filter(|it| !it.contains(" IN CNAME "));
                    let rest: Vec<&String> = rest.collect();
                    assert_eq!(rest, own.iter().collect::<Vec<_>>(), "{question}");
                    return;
                }
            }
        }
        assert_eq!(answer[0], "SERVFAIL", "{question}: a chain without an end");
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key) || !self.below(key).is_empty()
    }
}

fn is_alias(record: &str, name: &str, target: &str) -> bool {
    let words: Vec<&str> = record.split(' ').collect();
    words.len() == 5 && words[0] == name && words[3] == "CNAME" && words[4] == target
}

/// Returns the name of `key` without its first labels.
fn target(key: &str, strip: u64) -> String {
    let labels: Vec<&str> = key.split('/').rev().collect();
    let strip = if (strip as usize) < labels.len() { strip as usize } else { 0 };
    format!("{}.", labels[strip..].join("."))
}

fn share(values: &[(&String, &Value)], value: &Value) -> u64 {
    let weight = |value: &Value| match value["weight"].as_u64().unwrap() {
        0 => 100,
        weight => weight,
    };
    let priority = |value: &Value| match value["priority"].as_u64().unwrap() {
        0 => 10,
        priority => priority,
    };
    let same = values
        .iter()
        .filter(|(_, other)| other["host"] != "" && priority(other) == priority(value));
    let sum: u64 = same.map(|(_, other)| weight(other)).sum();
    ((100.0 / sum as f64 * weight(value) as f64) as u64).max(1)
}

#[test]
fn random_histories_answer_as_the_model() {
    let mut runner = TestRunner::new(ProptestConfig { cases: HISTORIES, ..Default::default() });
    let histories = prop::collection::vec(step(), 1..24);
    let result = runner.run(&histories, |steps| {
        let mut cluster = Cluster::empty(zone(&["z"], false));
        cluster.writer.begin_keys();
        cluster.writer.finish_keys();
        let keys = BTreeMap::new();
        let mut world = World { keys, cluster, before: BTreeMap::new(), is_missed: false };
        world.publish();
        steps.into_iter().for_each(|step| world.take(step));
        if world.is_missed {
            world.take(Step::List);
        }
        world.publish();
        let model = Model(&world.keys);
        for (question, answer) in &world.before {
            model.check(question, answer);
        }
        Ok(())
    });
    result.unwrap();
}

const HOSTS: [&str; 7] = ["", "10.0.0.1", "10.0.0.2", "::1", "a.z", "b.a.z", "x.example"];
const HISTORIES: u32 = 10_000;
