//! Tests the answers of zones.

use super::*;
use crate::local::name::{parse, text};

const FILE: &str = "\
$ORIGIN x.
$TTL 1h
@   300 IN SOA ns mail ( 7   ; serial
        60 60 60
        30 ) ; minimum
    IN NS ns
ns  IN A 10.0.0.1
web 60 A 10.0.0.2
    60 A 10.0.0.3
Web 60 A 10.0.0.2
text TXT \"a ; (b\" c
alias CNAME web
out CNAME a.y.
chain CNAME alias
loop CNAME loop
*.wild A 10.0.0.9
there.wild A 10.0.0.8
a.b.deep A 10.0.0.4
sub NS ns.sub
ns.sub A 10.0.0.5
mail MX 10 web.x.
$ORIGIN low.x.
one A 10.0.0.6
";

/// Returns the response code, `aa` if the answer is authoritative, and each record as `SECTION
/// OWNER TYPE TARGET`.
fn answer(zone: &ZoneFile, name: &str, qtype: u16) -> String {
    let Some(made) = zone.answer(&parse(name).unwrap(), qtype) else { return "-".to_owned() };
    let row = |row: &Row| {
        let target = row.data.names.first().map(|name| text(name)).unwrap_or_default();
        format!(
            " {}{} {}{}{target}",
            row.section,
            text(&row.owner),
            row.rtype,
            if target.is_empty() { "" } else { " " }
        )
    };
    let aa = if made.rows.authoritative { " aa" } else { "" };
    format!("{}{aa}{}", made.rows.rcode, made.rows.records.iter().map(row).collect::<String>())
}

fn zone(fallthrough: Option<Zones>) -> ZoneFile {
    let origin = parse("x").unwrap();
    let zone = Some(Arc::new(Zone::parse(FILE, &origin).unwrap()));
    ZoneFile { origin, fallthrough, except: None, zone }
}

#[test]
fn a_zone_answers_as_its_server_would() {
    let rows = [
        ("web.x", 1, "0 aa 0web.x. 1 0web.x. 1"),
        ("WEB.x", 28, "0 aa 1x. 6 ns.x."),
        ("x", 6, "0 aa 0x. 6 ns.x."),
        ("x", 2, "0 aa 0x. 2 ns.x. 2ns.x. 1"),
        ("text.x", 16, "0 aa 0text.x. 16"),
        ("none.x", 1, "3 aa 1x. 6 ns.x."),
        ("deep.x", 1, "0 aa 1x. 6 ns.x."),
        ("c.deep.x", 1, "3 aa 1x. 6 ns.x."),
        ("alias.x", 1, "0 aa 0alias.x. 5 web.x. 0web.x. 1 0web.x. 1"),
        ("alias.x", 5, "0 aa 0alias.x. 5 web.x."),
        ("chain.x", 1, "0 aa 0chain.x. 5 alias.x. 0alias.x. 5 web.x. 0web.x. 1 0web.x. 1"),
        ("alias.x", 28, "0 aa 0alias.x. 5 web.x. 1x. 6 ns.x."),
        ("out.x", 1, "0 aa 0out.x. 5 a.y."),
        ("loop.x", 1, "2"),
        ("any.wild.x", 1, "0 aa 0any.wild.x. 1"),
        ("a.b.wild.x", 1, "0 aa 0a.b.wild.x. 1"),
        ("there.wild.x", 28, "0 aa 1x. 6 ns.x."),
        ("b.there.wild.x", 1, "3 aa 1x. 6 ns.x."),
        ("wild.x", 1, "0 aa 1x. 6 ns.x."),
        ("sub.x", 1, "0 1sub.x. 2 ns.sub.x. 2ns.sub.x. 1"),
        ("a.sub.x", 1, "0 1sub.x. 2 ns.sub.x. 2ns.sub.x. 1"),
        ("mail.x", 15, "0 aa 0mail.x. 15 web.x. 2web.x. 1 2web.x. 1"),
        ("one.low.x", 1, "0 aa 0one.low.x. 1"),
        ("web.y", 1, "-"),
    ];
    for (name, qtype, expected) in rows {
        assert_eq!(answer(&zone(None), name, qtype), expected, "{name} {qtype}");
    }
    let falls = zone(Some(Zones::all()));
    assert_eq!(answer(&falls, "none.x", 1), "-");
    assert_eq!(answer(&falls, "web.x", 28), "0 aa 1x. 6 ns.x.");
    assert_eq!(answer(&ZoneFile { zone: None, ..falls }, "web.x", 1), "2");
}

#[test]
fn broken_files_are_refused_with_their_line() {
    let soa = "@ 300 IN SOA ns mail 7 60 60 60 30\n";
    let rows = [
        ("", "the zone x. needs exactly one SOA"),
        ("web A 10.0.0.1\n", "the zone x. needs exactly one SOA"),
        ("SOA\n", "line 1: "),
        (" A 10.0.0.1\n", "line 1: the first record has no owner"),
        ("@soa\n", "line 1: "),
        ("a A 10.0.0.1\nb A nonsense\n", "line 2: "),
        ("a A 10.0.0.1\n\n; c\nb B 10.0.0.1\n", "line 4: "),
        ("a.y. A 10.0.0.1\n", "line 1: a.y. is not in the zone"),
        ("a CNAME b\na A 10.0.0.1\n", "line 2: a.x. has an alias and other records"),
        ("a TXT \"b\n", "line 1: a quotation mark is missing"),
        ("a TXT b )\n", "line 1: ) without ("),
        ("a A 10.0.0.1\na TXT ( b\nc\n", "line 2: ( without )"),
        ("$INCLUDE /etc/hosts\n", "line 1: $INCLUDE is not supported"),
        ("$ORIGIN\n", "line 1: $ORIGIN needs one argument"),
    ];
    for (file, expected) in rows {
        let error = Zone::parse(file, &parse("x").unwrap()).expect_err(file).to_string();
        assert!(error.starts_with(expected), "{file:?}: {error}");
    }
    let twice = Zone::parse(&soa.repeat(2), &parse("x").unwrap());
    assert_eq!(twice.unwrap().len(), 1, "the same line again is no second SOA");
}
