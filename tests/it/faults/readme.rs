//! `healthz/README.md` against the program: every flag, every check.
//!
//! Knows command lines and text; nothing of what a flag does.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Command, CommandFactory};

fn flags(command: &Command) -> BTreeSet<String> {
    let long = command.get_arguments().filter_map(|argument| argument.get_long());
    long.map(|flag| format!("--{flag}")).collect()
}

/// The words of `text` that are flags.
fn mentioned(text: &str) -> BTreeSet<String> {
    let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '-'));
    let flags = words.filter(|word| word.starts_with("--") && word.len() > 3);
    flags.map(|flag| flag.trim_end_matches('-').to_owned()).collect()
}

/// The text below the heading `## TITLE`.
fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let start = page.split_once(&format!("\n## {title}\n"));
    let (_, rest) = start.unwrap_or_else(|| panic!("there is no section {title}"));
    rest.split("\n## ").next().unwrap()
}

#[test]
fn the_page_has_every_flag_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("healthz/README.md")).unwrap();
    let rows = [
        ("Probes and pages", flags(&healthz::Config::command())),
        ("healthz check", flags(&healthz::check::Options::command())),
        ("healthz ask", flags(&healthz::ask::Options::command())),
    ];
    for (title, known) in rows {
        let listed: String =
            section(&page, title).lines().filter(|it| it.starts_with("| `--")).collect();
        let listed = mentioned(&listed.replace('|', " "));
        let missing: Vec<_> = known.difference(&listed).collect();
        assert!(missing.is_empty(), "{title} lacks {missing:?}");
    }
    let list = healthz::check::list();
    let checks = section(&page, "Every check");
    for line in list.lines() {
        assert!(checks.contains(line), "the list of checks lacks {line:?}");
    }
    let written = checks.lines().filter(|line| line.contains(": ") && !line.contains('.')).count();
    assert!(written <= list.lines().count(), "the page has a check that does not exist");
}
