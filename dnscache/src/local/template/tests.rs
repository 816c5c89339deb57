//! Tests the answers of templates.

use super::*;
use crate::local::name::{parse, text as shown};

fn template(patterns: &[&str], records: &[&str]) -> Template {
    let template = Template {
        patterns: patterns.iter().map(|pattern| pattern.parse().unwrap()).collect(),
        records: records.iter().map(|text| (0, text.parse().unwrap())).collect(),
        ..Template::default()
    };
    template.check().unwrap();
    template
}

/// Returns `-` if the next rule should answer; otherwise the response code and each record as
/// `OWNER TTL TYPE SECTION TARGET`.
fn answer(template: &Template, name: &str, qtype: u16) -> Vec<String> {
    let Answered::Made(made) = template.answer(&parse(name).unwrap(), qtype) else {
        return vec!["-".to_owned()];
    };
    let row = |row: &Row| {
        let target = row.data.names.first().map(|name| shown(name)).unwrap_or_default();
        format!("{} {} {} {} {target}", shown(&row.owner), row.ttl, row.rtype, row.section)
    };
    let code = made.rows.rcode.to_string();
    std::iter::once(code).chain(made.rows.records.iter().map(row)).collect()
}

#[test]
fn texts_become_records() {
    let rows: [(&[&str], &str, &str, &str); 14] = [
        (&[], "{{ .Name }} 60 IN A 10.0.0.1", "a.x", "a.x. 60 1 0 "),
        (&[], "{{.Name}} A 10.0.0.1", "a.x", "a.x. 3600 1 0 "),
        (&[], "x.y. IN 7 CNAME {{ .Name }}", "a.x", "x.y. 7 5 0 a.x."),
        (&[], "{{ .Name }} 60 {{ .Class }} {{ .Type }} 10.0.0.1", "a.x", "a.x. 60 1 0 "),
        (&[], "{{ .Name }} 60 IN CNAME b.{{ .Zone }}", "a.x", "a.x. 60 5 0 b.."),
        (&[], "{{ index .Match 0 }} 60 IN A 10.0.0.1", "a.x", "a.x. 60 1 0 "),
        (
            &["^(?P<a>[a-z]+)-(?P<b>\\d+)[.]"],
            "{{ .Name }} 60 IN A 10.0.0.{{ .Group.b }}",
            "q-7.x",
            "q-7.x. 60 1 0 ",
        ),
        (
            &["^(.*)[.]x[.]$"],
            "{{ .Name }} 60 IN CNAME {{ index .Match 1 }}.y.",
            "a.b.x",
            "a.b.x. 60 5 0 a.b.y.",
        ),
        (
            &["^(.*)[.]x[.]$"],
            "{{ .Name }} 60 IN CNAME {{ index .Group \"1\" }}.y.",
            "a.b.x",
            "a.b.x. 60 5 0 a.b.y.",
        ),
        (
            &["nothing", "^(?P<n>.*)[.]x[.]$"],
            "{{ .Name }} CNAME {{ .Group.n }}.y",
            "a.x",
            "a.x. 3600 5 0 a.y.",
        ),
        (&[], "{{ .Name }} 60 IN MX 10 mail.{{ .Name }}", "a.x", "a.x. 60 15 0 mail.a.x."),
        (&[], "{{ .Name }} 60 IN TXT \"a b\" c", "a.x", "a.x. 60 16 0 "),
        (&[], "{{ .Name }} 60 IN AAAA fd00::1", "a.x", "a.x. 60 28 0 "),
        (&[], "{{ .Name }} 60 IN SRV 1 2 3 t.{{ .Name }}", "a.x", "a.x. 60 33 0 t.a.x."),
    ];
    for (patterns, text, name, expected) in rows {
        if expected.ends_with("..") {
            // The root as the zone: `b..` is not a name.
            assert_eq!(answer(&template(patterns, &[text]), name, 1), ["2"], "{text}");
        } else {
            assert_eq!(answer(&template(patterns, &[text]), name, 1), ["0", expected], "{text}");
        }
    }
    let mut zoned = template(&[], &["{{ .Name }} 60 IN CNAME b.{{ .Zone }}"]);
    zoned.zones = Zones::new(vec![parse("z.x").unwrap()]);
    assert_eq!(answer(&zoned, "a.z.x", 1), ["0", "a.z.x. 60 5 0 b.z.x."]);
    assert_eq!(answer(&zoned, "a.x", 1), ["-"]);
    let not_always =
        template(&["^(.*)[.]x[.]$"], &["{{ .Name }} 60 IN A 10.0.0.{{ index .Match 1 }}"]);
    assert_eq!(answer(&not_always, "7.x", 1), ["0", "7.x. 60 1 0 "]);
    assert_eq!(answer(&not_always, "777.x", 1), ["2"], "not an address");
}

#[test]
fn what_matches_is_answered_and_the_rest_passes_or_fails() {
    let plain = Template::default();
    let pattern = |pattern: &str| vec![pattern.parse().unwrap()];
    let zones = |zone: &str| Zones::new(vec![parse(zone).unwrap()]);
    let aaaa = Template::without_aaaa(vec![parse("cluster.local").unwrap()]);
    let rows = [
        (plain.clone(), ["0", "0", "0"]),
        (Template { rcode: 3, ..plain.clone() }, ["3", "3", "3"]),
        (Template { rcode: 2, ..plain.clone() }, ["2", "2", "2"]),
        (Template { qtype: Some(28), ..plain.clone() }, ["-", "0", "0"]),
        (Template { zones: zones("x"), ..plain.clone() }, ["0", "0", "-"]),
        (Template { patterns: pattern("^a"), ..plain.clone() }, ["0", "0", "2"]),
        (
            Template { patterns: pattern("^a"), fallthrough: Some(Zones::all()), ..plain.clone() },
            ["0", "0", "-"],
        ),
        (
            Template { patterns: pattern("^b"), fallthrough: Some(zones("x")), ..plain },
            ["-", "-", "2"],
        ),
        (aaaa, ["-", "0", "-"]),
    ];
    for (template, expected) in rows {
        let questions = [("a.x", 1), ("a.x", 28), ("c.cluster.local", 28)];
        let codes = questions.map(|(name, qtype)| answer(&template, name, qtype)[0].clone());
        assert_eq!(codes, expected, "{template:?}");
    }
}

#[test]
fn wrong_texts_are_refused() {
    let rows = [
        ("{{ .Name", "without }}"),
        ("{{ .Remote }} A 10.0.0.1", "{{ .Remote }} is not supported"),
        ("{{ .Name | len }} A 10.0.0.1", "pipelines are refused"),
        ("{{ if .Name }}x{{ end }}", "{{ if .Name }} is not supported"),
        ("{{ range .Match }}", "is not supported"),
        ("{{ $x }}", "is not supported"),
        ("{{- .Name }} A 10.0.0.1", "is not supported"),
        ("{{ .Group.1 }} A 10.0.0.1", "is not supported"),
        ("{{ index .Match x }}", "is not supported"),
        ("{{ index .Group x }}", "is not supported"),
        ("", "it is empty"),
        ("a.x A", "is not a record"),
        ("a.x 60 IN A nonsense", "is not a record"),
        ("$INCLUDE /etc/passwd", "not one line"),
        ("a A 10.0.0.1\nb A 10.0.0.2", "not one line"),
    ];
    for (text, expected) in rows {
        let error = text.parse::<Text>().expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let groups = [
        (vec![], "{{ index .Match 1 }} A 10.0.0.1", "the group 1"),
        (vec!["(a)"], "{{ index .Match 2 }} A 10.0.0.1", "the group 2"),
        (vec!["(?P<a>a)"], "{{ .Group.b }} A 10.0.0.1", "the group b"),
    ];
    for (patterns, text, expected) in groups {
        let template = Template {
            patterns: patterns.iter().map(|pattern: &&str| pattern.parse().unwrap()).collect(),
            records: vec![(0, text.parse().unwrap())],
            ..Template::default()
        };
        let error = template.check().expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
