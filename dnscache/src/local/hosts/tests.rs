//! Tests the answers of hosts files.

use super::*;
use crate::local::name::{parse as wire, text};

fn table(lines: &str) -> Table {
    let mut builder = Builder::default();
    builder.add(lines);
    builder.build().0
}

/// Returns the answer of `hosts` as its response code and its records; `-` if the next rule should
/// answer.
fn answer(hosts: &Hosts, question: &str) -> Vec<String> {
    let (name, qtype) = question.split_once(' ').unwrap();
    let qtype = match qtype {
        "A" => 1,
        "PTR" => 12,
        "AAAA" => 28,
        _ => 16,
    };
    let Some(made) = hosts.answer(&wire(name).unwrap(), qtype) else { return vec!["-".into()] };
    assert!(made.rows.answers().all(|row| row.ttl == hosts.options.ttl));
    let record = |row: &Row| match (&row.data.names[..], made.rows.authoritative) {
        ([target], true) => text(target),
        ([], true) => {
            let message = made.clone().rows.entry(&row.owner, row.rtype).unwrap();
            let data = message.each_record().map(|(_, data)| data.to_vec());
            data.map(|data| match <[u8; 4]>::try_from(&*data) {
                Ok(octets) => Ipv4Addr::from(octets).to_string(),
                Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(data).unwrap()).to_string(),
            })
            .collect::<Vec<_>>()
            .join(" ")
        }
        _ => panic!("{made:?}"),
    };
    let code = made.rows.rcode.to_string();
    std::iter::once(code).chain(made.rows.answers().map(record).take(2)).collect()
}

const LINES: &str = "\
# comment
127.0.0.1\tlocalhost  localhost.localdomain # loopback
10.0.0.1 a.example A.Example. other
10.0.0.2 a.example
10.0.0.1 a.example
::ffff:10.0.0.9 mapped
fe80::1%eth0 a.example
  fd00::7   six.example
10.0.0.1\r
10.0.0.1 good..bad ok.example
nonsense x.example
10.0.0.256 x.example
1.2.3.4 *.wild.example
";

#[test]
fn lines_answer_addresses_and_pointers() {
    let hosts = Hosts { options: Options::default(), table: Arc::new(table(LINES)) };
    let rows: [(&str, &[&str]); 19] = [
        ("localhost A", &["0", "127.0.0.1"]),
        ("localhost.localdomain A", &["0", "127.0.0.1"]),
        ("a.example A", &["0", "10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2"]),
        ("a.example AAAA", &["0", "fe80::1"]),
        ("other A", &["0", "10.0.0.1"]),
        ("mapped A", &["0", "10.0.0.9"]),
        ("mapped AAAA", &["0"]),
        ("six.example A", &["0"]),
        ("six.example TXT", &["0"]),
        ("six.example AAAA", &["0", "fd00::7"]),
        ("ok.example A", &["0", "10.0.0.1"]),
        ("x.example A", &["-"]),
        ("x.example TXT", &["-"]),
        ("b.wild.example A", &["0", "1.2.3.4"]),
        ("c.b.wild.example A", &["-"]),
        ("wild.example A", &["-"]),
        ("2.0.0.10.in-addr.arpa PTR", &["0", "a.example."]),
        ("4.3.2.1.in-addr.arpa PTR", &["-"]),
        ("0.10.in-addr.arpa PTR", &["-"]),
    ];
    for (question, expected) in rows {
        let mut answer = answer(&hosts, question);
        if let [_, first, ..] = &mut answer[..] {
            // RRsets take turns.
            let mut words: Vec<&str> = first.split(' ').collect();
            words.sort_unstable();
            *first = words.join(" ");
        }
        let expected: Vec<&str> = expected.iter().take(answer.len()).copied().collect();
        assert_eq!(answer, expected, "{question}");
    }
    let names = answer(&hosts, "1.0.0.10.in-addr.arpa PTR");
    assert_eq!(names, ["0", "a.example.", "ok.example."], "sorted by name, the first two of three");
}

#[test]
fn options_limit_what_is_answered() {
    let lines = Arc::new(table("10.0.0.1 a.example b.test\n"));
    let zones = |zone: &str| Zones::new(vec![wire(zone).unwrap()]);
    let plain = Options::default();
    let rows = [
        (plain.clone(), ["0", "0", "-", "0"]),
        (Options { reverse: false, ..plain.clone() }, ["0", "0", "-", "-"]),
        (Options { zones: zones("example"), ..plain.clone() }, ["0", "-", "-", "-"]),
        (Options { fallthrough: None, ttl: 7, ..plain.clone() }, ["0", "0", "2", "0"]),
        (Options { fallthrough: Some(zones("test")), ..plain.clone() }, ["0", "0", "2", "0"]),
        (Options { fallthrough: Some(zones("example")), ..plain }, ["0", "0", "-", "0"]),
    ];
    for (options, expected) in rows {
        let hosts = Hosts { options, table: Arc::clone(&lines) };
        let questions = ["a.example A", "b.test A", "c.example A", "1.0.0.10.in-addr.arpa PTR"];
        let codes = questions.map(|question| answer(&hosts, question)[0].clone());
        assert_eq!(codes, expected, "{:?}", hosts.options);
    }
}

#[test]
fn a_broken_line_costs_itself_and_is_named() {
    let mut builder = Builder::default();
    builder.add(LINES);
    let (_, refused, refusals) = builder.build();
    let lines: Vec<usize> = refused.iter().map(|refused| refused.line).collect();
    assert_eq!((lines, refusals), (vec![9, 10, 11, 12], 4));
    let reasons =
        ["has no name", "\"good..bad\" is not", "\"nonsense\" is not an IP", "10.0.0.256"];
    for (refused, expected) in refused.iter().zip(reasons) {
        assert!(refused.reason.contains(expected), "{refused:?}");
    }
    let mut builder = Builder::default();
    builder.add(&"x\n".repeat(1_000));
    let (table, refused, refusals) = builder.build();
    assert_eq!((table.len(), refused.len(), refusals), (0, REFUSED_MAX, 1_000));
}

#[test]
fn a_hundred_thousand_lines_are_compact_and_all_found() {
    let line = |n: u32| format!("{} host-{n}.example\n", Ipv4Addr::from(0x0a00_0000 + n));
    let table = table(&(0..100_000).map(line).collect::<String>());
    assert_eq!(table.len(), 100_000);
    for n in (0..100_000).step_by(997) {
        let name = wire(&format!("host-{n}.example")).unwrap();
        let address = Ipv4Addr::from(0x0a00_0000 + n);
        assert_eq!(table.v4(table.find(&name).unwrap()), [address]);
        assert_eq!(table.names_of(address.into()), [&*name]);
    }
    let bytes = table.names.len()
        + size_of_val(&*table.hosts)
        + size_of_val(&*table.v4)
        + size_of_val(&*table.reverse_v4);
    assert!(bytes < 6_000_000, "{bytes}");
}

#[test]
fn what_changed_is_what_answers_otherwise() {
    let before = table("10.0.0.1 a b\n10.0.0.2 c\nfd00::1 d\n1.1.1.1 *.w\n");
    let rows: [(&str, &[&str]); 6] = [
        ("10.0.0.1 a b\n10.0.0.2 c\nfd00::1 d\n1.1.1.1 *.w\n", &[]),
        ("10.0.0.2 c\n10.0.0.1 b a # moved\nfd00::1 d\n1.1.1.1 *.w\n", &[]),
        (
            "10.0.0.1 a b\n10.0.0.3 c\nfd00::1 d\n1.1.1.1 *.w\n",
            &["c.", "2.0.0.10.in-addr.arpa.", "3.0.0.10.in-addr.arpa."],
        ),
        (
            "10.0.0.1 a b new\n10.0.0.2 c\nfd00::1 d\n1.1.1.1 *.w\n",
            &["new.", "1.0.0.10.in-addr.arpa."],
        ),
        ("10.0.0.1 a b\n10.0.0.2 c\nfd00::1 d\n1.1.1.2 *.w\n", &["w."]),
        (
            "",
            &[
                "w.",
                "a.",
                "b.",
                "c.",
                "d.",
                "1.0.0.10.in-addr.arpa.",
                "2.0.0.10.in-addr.arpa.",
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
            ],
        ),
    ];
    for (after, expected) in rows {
        let after = table(after);
        for (one, two) in [(&before, &after), (&after, &before)] {
            let mut changed: Vec<String> = one.changed(two).iter().map(|name| text(name)).collect();
            let mut expected = expected.to_vec();
            changed.sort_unstable();
            expected.sort_unstable();
            assert_eq!(changed, expected);
        }
    }
}
