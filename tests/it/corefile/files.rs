//! Corefiles from real use. Each must be accepted by both programs, or rejected by both with a
//! reason for each line.
//!
//! Names and addresses in them are replaced. Directives and arguments are as they were found.

use std::path::{Path, PathBuf};

use shared::corefile::plan::{Plan, Program, Surroundings, plan};
use shared::corefile::{Look, Source};
use shared::flags::Given;

/// Files that cannot be run, by a part of the reason.
const REFUSED: &[(&str, &str)] = &[
    // Placeholders that a script should have replaced. CoreDNS rejects most of them as well.
    ("012 042 053 054 055 056 057 058", "is not a zone"),
    ("012 042 052 053 054 055 056 057 058", "no zone that is not a reverse zone"),
    ("012 014 025 053 054 055 056 057 058", "is neither an address nor the path of a file"),
    // A blank is missing between the zone and the file.
    ("026", "expected a zone and at least one server"),
    ("029", "zones are not delegated by keys"),
    // Two blocks have the same zone and port, which CoreDNS refuses as well.
    ("039", "is served by another block already"),
    ("039", "kubernetes has a line in another block"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("it/corefile/files")
}

/// Returns all files, in the order of their names.
pub fn paths() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn source(path: &Path, program: Program) -> Source {
    Source {
        path: path.to_owned(),
        program,
        arguments: vec![program.name().into()],
        given: Given::new(),
        surroundings: Surroundings::default(),
    }
}

#[test]
fn files_run_in_both_programs_or_are_refused_line_by_line() {
    let (mut run, mut refused) = (Vec::new(), Vec::new());
    for path in paths() {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let look = Look::new(&path);
        let corefile = look.corefile().unwrap_or_else(|error| panic!("{name}: {error}"));
        let plan: Plan = plan(corefile, Surroundings::default());
        for row in &plan.rows {
            let texts = [&row.rules, &row.built_in, &row.refused];
            let is_settled = !row.settings.is_empty() || texts.iter().any(|it| !it.is_empty());
            assert!(is_settled, "{name}: nothing becomes of {row:?}");
        }
        if !plan.refusals().is_empty() {
            refused.push((name, plan.refusals()));
            continue;
        }
        let kubedns = source(&path, Program::Kubedns).load::<kubedns::Config>();
        let dnscache = source(&path, Program::Dnscache).load::<dnscache::Config>();
        let checked = [
            kubedns.map(|(config, _)| config.check().unwrap()),
            dnscache.map(|(config, _)| config.check().unwrap()),
        ];
        assert!(checked.iter().all(Result::is_ok), "{name}: {checked:?}");
        run.push(name);
    }
    let all = run.len() + refused.len();
    println!("{} of {all} Corefiles run ({} %)", run.len(), run.len() * 100 / all);
    for (name, reasons) in &refused {
        println!("{name}:");
        reasons.iter().for_each(|reason| println!("  {}", reason.rsplit_once("files/").unwrap().1));
    }
    let listed = |name: &str, reason: &str| {
        REFUSED.iter().any(|(names, part)| names.contains(name) && reason.contains(part))
    };
    for (name, reasons) in &refused {
        let surprise = reasons.iter().find(|reason| !listed(name, reason));
        assert_eq!(surprise, None, "{name} is refused for another reason");
    }
    for (names, part) in REFUSED {
        for name in names.split(' ') {
            let reasons = refused.iter().find(|(refused, _)| refused == name);
            let has = reasons.is_some_and(|(_, all)| all.iter().any(|it| it.contains(part)));
            assert!(has, "{name} is listed as refused because {part:?}");
        }
    }
}
