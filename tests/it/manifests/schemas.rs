//! The rendered manifests against the schemas of Kubernetes 1.27 to 1.37, strictly: a property that
//! a version does not have is an error.
//!
//! Needs `kubernetes-validate` of PyPI, on the PATH or named by the environment variable
//! `KUBERNETES_VALIDATE`; else the test says that it was skipped.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use super::{changed, kustomizations, objects, overlay, render, tool};

/// The versions, by their second number.
const VERSIONS: std::ops::RangeInclusive<u32> = 27..=37;
/// What needs a later version: the overlay or component, and the first one.
const LATER: [(&str, u32); 3] = [("per-node", 34), ("link-local", 34), ("same-zone", 30)];

/// The program; `None`, and a remark, if there is none.
fn validator() -> Option<OsString> {
    let program = std::env::var_os("KUBERNETES_VALIDATE");
    let program = program.unwrap_or_else(|| "kubernetes-validate".into());
    let mut command = Command::new(&program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    if !command.status().is_ok_and(|status| status.success()) {
        println!("skipped: there is no kubernetes-validate");
        return None;
    }
    Some(program)
}

#[test]
fn each_object_has_the_schema_of_every_version() {
    let (Some(tool), Some(program)) = (tool(), validator()) else { return };
    let copy = changed("", "", "");
    let mut folders = kustomizations(copy.path());
    for component in ["autoscaler", "network-policy", "same-zone", "in-place"] {
        folders.push(overlay(copy.path(), component));
    }
    // One file for each set of versions: the program takes a second to start.
    let mut texts: Vec<(u32, String)> = Vec::new();
    for folder in folders {
        let later = LATER.iter().find(|(name, _)| folder.ends_with(name));
        let first = later.map_or(*VERSIONS.start(), |(_, first)| *first);
        let files = [render(&tool, &folder)];
        let text = match texts.iter_mut().find(|(other, _)| *other == first) {
            Some((_, text)) => text,
            None => {
                texts.push((first, String::new()));
                &mut texts.last_mut().unwrap().1
            }
        };
        // Definitions of the Prometheus Operator have no schema there.
        let own = |kind: &str| !["PodMonitor", "ServiceMonitor", "PrometheusRule"].contains(&kind);
        for object in objects(&files, "").iter().filter(|object| own(object.kind())) {
            *text += &format!("---\n{}\n", object.value);
        }
    }
    let file = copy.path().join("all.yaml");
    let mut checked = 0;
    for (first, text) in &texts {
        std::fs::write(&file, text).unwrap();
        for version in VERSIONS.filter(|version| version >= first) {
            let mut command = Command::new(&program);
            command.args(["--strict", "--kubernetes-version", &format!("1.{version}")]).arg(&file);
            let output = command.output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let wrong: Vec<&str> = said.lines().filter(|line| !line.starts_with("INFO")).collect();
            assert!(output.status.success(), "1.{version}: {wrong:#?}");
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
    // A wrong property is found.
    std::fs::write(&file, texts[0].1.replacen("\"spec\":{", "\"spec\":{\"sppec\":1,", 1)).unwrap();
    let mut command = Command::new(&program);
    let output = command.args(["--strict", "--kubernetes-version", "1.30"]).arg(&file).output();
    assert!(!output.unwrap().status.success());
}
