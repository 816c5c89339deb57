//! `cargo load upstreams` and `cargo load chaos` as processes, with small settings.
//!
//! The tests use only their output. They must not depend on how they measure.

use std::process::Command;

use serde_json::Value;

/// Returns the output of the tool with `arguments`. Panics if it fails.
pub fn load(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_load")).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bad_days_of_upstreams_are_a_table() {
    let only = ["--only", "herd,recovery", "--outage", "1", "--servers", "dnscache", "--markdown"];
    let table = load(&[&["upstreams"], &only[..]].concat());
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("|  | dnscache "), "{table}");
    assert_eq!(lines.len(), 2 + 4 + 2, "{table}");
    for line in &lines[2..] {
        assert!(!line.contains('–'), "measured: {line}");
    }
    let queries = lines.iter().find(|line| line.contains("identical questions: queries"));
    let queries = queries.and_then(|line| line.split('|').nth(2)?.trim().parse::<u32>().ok());
    assert!(queries.is_some_and(|queries| queries >= 1), "{table}");
}

#[test]
fn no_question_is_lost_while_programs_whose_sockets_are_kept_are_killed() {
    for programs in ["dnscache", "kubedns", "both"] {
        let some = ["--kills", "3", "--stops", "1", "--rate", "500", "--json"];
        let some = [&["chaos", "--programs", programs], &some[..]].concat();
        let figures: Value = serde_json::from_str(&load(&some)).unwrap();
        for group in ["cluster", "outside", "absent"] {
            let count = |fate: &str| figures[group][fate].as_u64().unwrap();
            let fates = ["answered", "failed", "lost"].map(count);
            assert_eq!(fates.iter().sum::<u64>(), count("asked"), "{figures}");
            assert_eq!(count("lost"), 0, "{figures}");
        }
        assert!(figures["cluster"]["asked"].as_u64().unwrap() > 1_000, "{figures}");
    }
}

#[test]
fn no_name_in_the_cache_fails_while_kubedns_is_killed_and_stopped_without_a_keeper() {
    let some = ["--programs", "kubedns", "--ask-dnscache", "--no-keeper"];
    let load_of = ["--kills", "3", "--stops", "2", "--rate", "5000", "--json"];
    let figures = load(&[&["chaos"], &some[..], &load_of].concat());
    let figures: Value = serde_json::from_str(&figures).unwrap();
    assert_eq!((&figures["kills"], &figures["stops"]), (&3.into(), &2.into()));
    assert!(figures["cluster"]["asked"].as_u64().unwrap() > 10_000, "{figures}");
    assert_eq!(figures["cluster"]["failed"], 0, "{figures}");
}
