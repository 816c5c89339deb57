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

/// The flag at the start of a row of a table.
fn listed(line: &str) -> Option<String> {
    let cell = line.strip_prefix("| `")?;
    let flag = cell.split([' ', '`']).next().filter(|flag| flag.starts_with("--"));
    flag.map(str::to_owned)
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
        let listed: BTreeSet<String> = section(&page, title).lines().filter_map(listed).collect();
        assert_eq!(listed, known, "{title}");
    }
    let list = format!("$ healthz check --list\n{}```", healthz::check::list());
    assert!(section(&page, "Every check").contains(&list), "the page lacks this list:\n{list}");
}
