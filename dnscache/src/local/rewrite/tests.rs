//! Tests which question each rule makes, and how its answer is changed.

use super::*;
use crate::local::name::{parse, text};

fn rules(lines: &[&str]) -> Rewrites {
    let rule = |line: &&str| line.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
    Rewrites::new(lines.iter().map(rule).collect())
}

/// The question that rules make: `NAME TYPE`, `same` or `invalid`.
fn asked(rules: &Rewrites, name: &str, qtype: u16) -> String {
    match rules.apply(&parse(name).unwrap(), qtype) {
        Rewritten::Same => "same".to_owned(),
        Rewritten::Invalid => "invalid".to_owned(),
        Rewritten::Changed { name, qtype, .. } => format!("{} {qtype}", text(&name)),
    }
}

#[test]
fn rules_make_other_questions() {
    let long = format!("{0}.{0}.{0}.{1}.example", "a".repeat(63), "a".repeat(50));
    let rows: [(&[&str], &str, &str); 30] = [
        (&["name a.example b.test"], "a.example", "b.test. 1"),
        (&["name exact A.Example. b.test."], "a.example", "b.test. 1"),
        (&["name a.example b.test"], "x.a.example", "same"),
        (&["name prefix api srv"], "api.example", "srv.example. 1"),
        (&["name prefix api srv"], "apis.example", "same"),
        (
            &["name suffix .corp.example .svc.cluster.local"],
            "a.b.corp.example",
            "a.b.svc.cluster.local. 1",
        ),
        (&["name suffix example.org example.com"], "myexample.org", "myexample.com. 1"),
        (&["name suffix example.org. example.com."], "example.net", "same"),
        (&["name substring api srv"], "a.api.api.example", "a.srv.srv.example. 1"),
        (&["name substring api srv"], "apis.example", "same"),
        (
            &["name regex (.*)-(us-west-1)\\.example\\.org {1}.service.{2}.consul"],
            "ftp-us-west-1.example.org",
            "ftp.service.us-west-1.consul. 1",
        ),
        (&["name regex ^a\\.(?P<rest>.*)\\.$ b.{1}.test"], "a.x.y", "b.x.y.test. 1"),
        (&["name regex (a)|(b) {1}x{2}.test"], "b", "xb.test. 1"),
        (&["name regex (.*) {0}test"], "a.b", "a.b.test. 1"),
        (&["name regex (.*) {1}test{9"], "a.b", "a.b.test{9. 1"),
        (&["name regex (.*) {1}.test"], "a.b", "invalid"),
        (&["name suffix example abcdef.example"], &long, "invalid"),
        (&["stop name a.example b.test", "name b.test c.test"], "a.example", "b.test. 1"),
        (&["continue name a.example b.test", "name b.test c.test"], "a.example", "c.test. 1"),
        (&["name x.example y.test", "name a.example b.test"], "a.example", "b.test. 1"),
        (&["continue name a b", "continue name b a"], "a", "a. 1"),
        (&["continue name a b", "continue name b a", "name a c"], "b", "c. 1"),
        (&["type A AAAA"], "a.example", "a.example. 28"),
        (&["type AAAA A"], "a.example", "same"),
        (&["CONTINUE type A TYPE65", "NAME EXACT a b"], "a", "b. 65"),
        (&["ttl a.example 30"], "a.example", "a.example. 1"),
        (&["ttl suffix .example 30-300"], "b.test", "same"),
        (&["rcode regex .*\\.example\\. SERVFAIL 3"], "a.example", "a.example. 1"),
        (&["name exact a \"b.test\""], "a", "b.test. 1"),
        (&[], "a", "same"),
    ];
    for (lines, name, expected) in rows {
        assert_eq!(asked(&rules(lines), name, 1), expected, "{lines:?} {name}");
    }
}

/// Rules of all kinds in a random order: the look-up of endings finds a rule if one applies.
#[test]
fn names_without_a_rule_are_found_out_at_once() {
    let texts = ["a.", "b.a.", "ab.", "ba.", "b.", "c.b.a.", "aa.", "a.a.", "."];
    let mut state = 7_u32;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % below
    };
    for _ in 0..2_000 {
        let lines: Vec<String> = (0..draw(6))
            .map(|_| {
                let kind = ["exact", "suffix", "prefix", "substring", "regex"][draw(5)];
                let text = texts[draw(texts.len() - 1)];
                ["continue ttl KIND NAME 5", "name KIND NAME x."][draw(2)]
                    .replace("KIND", kind)
                    .replace("NAME", text)
            })
            .collect();
        let rules = rules(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        for name in texts {
            let holds = |rule: &Rewrite| match &rule.act {
                Act::Name { matches: Matches::Exact(text), .. }
                | Act::Answer { matches: Matches::Exact(text), .. } => name.ends_with(&**text),
                Act::Name { matches, .. } | Act::Answer { matches, .. } => matches.hold(name),
                Act::Type { .. } => false,
            };
            let expected = rules.rules().iter().any(holds);
            assert_eq!(rules.may_apply(name, 1), expected, "{lines:?} {name}");
        }
    }
}

/// The answer `OWNER TTL TARGET`, a CNAME, and an A record of the target, after the changes.
fn answer(lines: &[&str], name: &str, (owner, ttl, target): (&str, u32, &str)) -> String {
    let Rewritten::Changed { changes, .. } = rules(lines).apply(&parse(name).unwrap(), 1) else {
        panic!("{lines:?} should apply to {name}");
    };
    let [owner, target] = [owner, target].map(|name| parse(name).unwrap());
    let records = vec![
        Row::pointing(&owner, rtype::CNAME, ttl, &target),
        Row::new(&target, rtype::A, ttl, &[10, 0, 0, 1]),
    ];
    let made = restore(&changes, Made::new(Rows { records, ..Rows::default() }));
    let [alias, address] = &made.rows.records[..] else { panic!("{made:?}") };
    let alias_target = text(&alias.data.names[0]);
    format!("{} {} {alias_target} {}", text(&alias.owner), alias.ttl, text(&address.owner))
}

#[test]
fn answers_are_turned_back() {
    type Case =
        (&'static [&'static str], &'static str, (&'static str, u32, &'static str), &'static str);
    let rows: [Case; 15] = [
        (&["name a.x b.y"], "a.x", ("b.y", 9, "c.b.y"), "a.x. 9 c.a.x. c.a.x."),
        (&["name a.x b.y"], "a.x", ("b.y", 9, "cb.y"), "a.x. 9 cb.y. cb.y."),
        (&["name suffix .x .y"], "a.x", ("a.y", 9, "c.y"), "a.y. 9 c.y. c.y."),
        (&["name suffix .x .y answer auto"], "a.x", ("a.y", 9, "c.y"), "a.x. 9 c.x. c.x."),
        (&["name prefix a b answer auto"], "a.x", ("b.x", 9, "c.x"), "a.x. 9 c.x. c.x."),
        (
            &["name regex a\\.(.*)\\. b.{1} answer auto"],
            "a.x",
            ("b.x", 9, "c.b.x"),
            "a.x. 9 c.a.x. c.a.x.",
        ),
        (&["name regex a\\.(.*)\\. b.{1}"], "a.x", ("b.x", 9, "c.b.x"), "b.x. 9 c.b.x. c.b.x."),
        (
            &["name regex a\\.x b.y answer name b\\.y a.x answer value c\\.(.) d.{1}"],
            "a.x",
            ("b.y", 9, "c.z"),
            "a.x. 9 d.z. c.z.",
        ),
        (
            &["name exact a.x b.y answer value (.*)\\.z\\. {1}.q"],
            "a.x",
            ("b.y", 9, "c.z"),
            "a.x. 9 c.q. c.z.",
        ),
        (&["continue name a b", "name b c"], "a", ("c", 9, "d.c"), "a. 9 d.a. d.a."),
        (&["ttl a 30"], "a", ("a", 9, "b"), "a. 30 b. b."),
        (&["ttl a 30-"], "a", ("a", 9, "b"), "a. 30 b. b."),
        (&["ttl a -5"], "a", ("a", 9, "b"), "a. 5 b. b."),
        (&["ttl exact a 5-20"], "a", ("a", 9, "b"), "a. 9 b. b."),
        (&["name regex a {0}.. answer name (.*) {1}"], "a", ("a", 9, "b"), "invalid"),
    ];
    for (lines, name, given, expected) in rows {
        if expected == "invalid" {
            assert!(matches!(rules(lines).apply(&parse(name).unwrap(), 1), Rewritten::Invalid));
        } else {
            assert_eq!(answer(lines, name, given), expected, "{lines:?} {given:?}");
        }
    }
    let both = rules(&["continue rcode a SERVFAIL NXDOMAIN", "rcode a NXDOMAIN NOERROR"]);
    let Rewritten::Changed { changes, .. } = both.apply(b"\x01a\0", 1) else {
        panic!("both apply");
    };
    let rcode = |rcode| {
        let rows = Rows { rcode, ..Rows::default() };
        (restore(&changes, Made::new(rows)).rows.rcode, restored_rcode(&changes, rcode))
    };
    assert_eq!((rcode(2), rcode(3), rcode(5)), ((3, 3), (0, 0), (5, 5)), "the last rule first");
}

#[test]
fn wrong_rules_are_refused_with_what_is_allowed() {
    let large = format!("name regex {} b", "a".repeat(10_001));
    let huge = "name regex (((a{1000}){1000}){1000}) b";
    let rows = [
        ("", "expected continue, stop, name"),
        ("stop", "expected continue, stop, name"),
        ("nam a b", "\"nam\" is not continue, stop, name"),
        ("name a", "the rule ends early"),
        ("name exac a b", "\"exac\" is not exact, prefix"),
        ("name a..b c", "\"a..b\" is not a valid name"),
        ("name exact a b c", "\"c\" is not the word answer"),
        ("name exact a b answer", "expected auto, name or value"),
        ("name exact a b answer all", "\"all\" is not auto, name or value"),
        ("name suffix a b answer auto answer name a b", "beside answer auto"),
        ("name regex ( b", "\"(\" is not a regular expression"),
        ("name regex a{1001}{1001} b", "is not a regular expression"),
        ("name regex (a) {2}", "uses group 2, and \"(a)\" has 1 groups"),
        ("name regex a b answer value (a {1}", "is not a regular expression"),
        ("type A", "the rule ends early"),
        ("type A B", "\"B\" is not a type"),
        ("type A AAAA x", "\"x\" is too much"),
        ("ttl a", "the rule ends early"),
        ("ttl a x", "\"x\" is not a TTL"),
        ("ttl a -", "\"-\" is not a TTL"),
        ("ttl a 9-3", "\"9-3\" is not a TTL"),
        ("ttl a 2147483648", "is not a TTL"),
        ("rcode a NOERROR", "the rule ends early"),
        ("rcode a NOERROR 16", "\"16\" is not a response code"),
        ("class CH IN", "only class IN"),
        ("edns0 local set 0xffee 0x61", "are not supported"),
        ("answer name a b", "begins with name"),
        ("name a \"b", "quotation mark"),
        (&large, "it has 10001 bytes"),
        (huge, "size limit"),
    ];
    for (line, expected) in rows {
        let error = line.parse::<Rewrite>().expect_err(line).to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{line}: {error}");
    }
}

#[test]
fn a_hard_expression_takes_linear_time() {
    let rules = rules(&["name regex (a*)*(a*)*(a*)*b$ c"]);
    let name = format!("{0}.{0}.{0}", "a".repeat(63));
    assert_eq!(asked(&rules, &name, 1), "same");
}
