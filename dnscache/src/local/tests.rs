//! Tests of several rules: the order in which they answer, and the questions that they ask.

use super::hosts::{Builder, Options};
use super::name::{parse, text};
use super::pending::{Came, Next};
use super::*;
use crate::normalise::{Row, Rows};

fn rewritten_by(rules: &[&str]) -> Arc<Rewrites> {
    Arc::new(Rewrites::new(rules.iter().map(|rule| rule.parse().unwrap()).collect()))
}

/// Rules for all zones.
fn rules(rewrites: &[&str], templates: Vec<Template>, hosts: &str) -> Local {
    let mut builder = Builder::default();
    builder.add(hosts);
    let table = Arc::new(builder.build().0);
    Local::new(vec![Block {
        zones: vec![[0].into()],
        rewrites: rewritten_by(rewrites),
        templates: templates.into(),
        hosts: vec![Hosts { options: Options::default(), table }],
        ..Block::default()
    }])
}

fn template(pattern: &str, record: &str) -> Template {
    Template {
        patterns: vec![pattern.parse().unwrap()],
        records: vec![(0, record.parse().unwrap())],
        fallthrough: Some(name::Zones::all()),
        ..Template::default()
    }
}

/// Returns the answer of an upstream that has an address for every name, for 60 seconds.
fn upstream(name: &[u8]) -> Made {
    let records = vec![Row::new(name, 1, 60, &[10, 0, 0, 1])];
    Made { lifetime_secs: Some(60), ..Made::new(Rows { records, ..Rows::default() }) }
}

/// Returns the questions that a question for A at `name` leads to, and the answer.
fn story(rules: &Local, name: &str) -> Vec<String> {
    let mut story = Vec::new();
    let name = parse(name).unwrap();
    let mut outcome = rules.resolve(&name, 1);
    let made = loop {
        let pending = match outcome {
            Outcome::Pass => return vec!["pass".to_owned()],
            Outcome::Answer(made) => break made,
            Outcome::Ask(pending) => pending,
        };
        let (asked, qtype) = pending.question();
        story.push(format!("? {} {qtype}", text(asked)));
        let came = upstream(asked);
        outcome = match pending.take(Came::Answer(Box::new(came)), rules) {
            Next::Done(made) => Outcome::Answer(made),
            Next::Ask(pending) => Outcome::Ask(pending),
            Next::Failed => panic!("it did not fail"),
        };
    };
    story.push(format!("= {}", made.rows.rcode));
    for row in &made.rows.records {
        let target = row.data.names.first().map(|name| text(name)).unwrap_or_default();
        story.push(format!("{} {} {}{target}", text(&row.owner), row.ttl, row.rtype));
    }
    let limits = crate::lifetime::Limits { ttl_min: 0, ttl_max: 3_600, negative_max: 300 };
    let answer = made.into_answer(&name, 1, &limits).unwrap();
    story.push(format!("for {}", answer.lifetime_secs));
    story
}

#[test]
fn rewrites_come_before_templates_and_these_before_hosts() {
    let rules = rules(
        &[
            "name r.x t.x",
            "name rh.x h.x",
            "name ru.x u.x",
            "name suffix .bad ..",
            "rcode a.t NXDOMAIN NOERROR",
        ],
        vec![
            template("^t[.]x[.]", "{{ .Name }} 90 IN A 10.0.0.9"),
            template("^c[.]x[.]", "{{ .Name }} 90 IN CNAME u.x."),
            template("^ch[.]x[.]", "{{ .Name }} 90 IN CNAME H.x."),
            template("^cc[.]x[.]", "{{ .Name }} 30 IN CNAME c.x."),
            template("^loop[.]x[.]", "{{ .Name }} 90 IN CNAME loop.x."),
        ],
        "10.0.0.2 h.x t.x\n",
    );
    let rows: [(&str, &[&str]); 11] = [
        ("u.x", &["pass"]),
        ("t.x", &["= 0", "t.x. 90 1", "for 90"]),
        ("h.x", &["= 0", "h.x. 3600 1", "for 3600"]),
        ("r.x", &["= 0", "r.x. 90 1", "for 90"]),
        ("rh.x", &["= 0", "rh.x. 3600 1", "for 3600"]),
        ("ru.x", &["? u.x. 1", "= 0", "ru.x. 60 1", "for 60"]),
        ("c.x", &["? u.x. 1", "= 0", "c.x. 90 5u.x.", "u.x. 60 1", "for 60"]),
        ("ch.x", &["= 0", "ch.x. 90 5h.x.", "h.x. 3600 1", "for 90"]),
        ("cc.x", &["? u.x. 1", "= 0", "cc.x. 30 5c.x.", "c.x. 90 5u.x.", "u.x. 60 1", "for 30"]),
        ("loop.x", &["= 2", "for 0"]),
        ("a.bad", &["= 2", "for 0"]),
    ];
    for (name, expected) in rows {
        let mut story = story(&rules, name);
        if name == "loop.x" {
            story.retain(|line| !line.contains(" 5"));
        }
        assert_eq!(story, expected, "{name}");
        assert_eq!(rules.touches(&parse(name).unwrap(), 1), expected != ["pass"], "{name}");
    }
}

#[test]
fn the_longest_zone_has_the_rules() {
    let block = |zone: &str, rule: &str| Block {
        zones: vec![parse(zone).unwrap()],
        rewrites: rewritten_by(&[rule]),
        ..Block::default()
    };
    let rules = Local::new(vec![
        block("x", "name suffix .x .y"),
        block("a.x", "name suffix .x .z"),
        block("b.x", "ttl suffix .nothing 5"),
    ]);
    for (name, expected) in
        [("q.x", "? q.y. 1"), ("q.a.x", "? q.a.z. 1"), ("q.b.x", "pass"), ("q.y", "pass")]
    {
        assert_eq!(story(&rules, name)[0], expected, "{name}");
    }
    assert!(!rules.is_empty() && Local::default().is_empty());
}

#[test]
fn failures_stay_failures_unless_a_rule_says_otherwise() {
    let rules = rules(&["continue rcode a.x SERVFAIL NXDOMAIN", "name suffix .x .y"], vec![], "");
    for (name, expected) in [("a.x", Some(3)), ("b.x", None)] {
        let Outcome::Ask(pending) = rules.resolve(&parse(name).unwrap(), 1) else { panic!() };
        let rcode = match pending.take(Came::Failure(2), &rules) {
            Next::Done(made) => Some(made.rows.rcode),
            Next::Ask(_) => panic!("{name} asks on"),
            Next::Failed => None,
        };
        assert_eq!(rcode, expected, "{name}");
    }
}
