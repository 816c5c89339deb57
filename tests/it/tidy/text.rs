//! The laws of every text file, line by line.

use super::Breach;

/// Returns the places where the file at `path` breaks a law.
pub fn breaches(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut breach = |line, law: String| breaches.push(Breach::new(path, line, law));
    // A string of JSON cannot be split, and Markdown has one paragraph per line.
    let is_manifest = path.starts_with("manifests/") && !path.ends_with(".json");
    let is_manifest = is_manifest && !path.ends_with(".md");
    let is_narrow = path.ends_with(".rs") || is_manifest || path == ".ci/run";
    for (line, text) in (1..).zip(text.lines()) {
        let width = text.chars().count();
        if is_narrow && width > LINE_MAX {
            breach(line, format!("{width} characters, {LINE_MAX} at most"));
        }
        if text.ends_with([' ', '\t']) {
            breach(line, "ends with a space".to_owned());
        }
        for word in PATHS.iter().filter(|word| text.contains(**word)) {
            breach(line, format!("{word} is a path of one machine"));
        }
        for word in HOSTS.iter().filter(|word| text.contains(**word)) {
            breach(line, format!("{word} is somebody's registry: name images generically"));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        breach(text.lines().count(), "the last line has no newline".to_owned());
    }
    if path == "Cargo.toml" {
        breaches.extend(dependencies_without_reason(path, text));
    }
    breaches
}

/// Checks that each dependency of the workspace has a comment with its purpose. Crates of the
/// workspace need not.
fn dependencies_without_reason(path: &str, text: &str) -> Vec<Breach> {
    (1..)
        .zip(text.lines())
        .skip_while(|(_, line)| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('['))
        .filter(|(_, line)| !line.is_empty() && !line.contains('#') && !line.contains("path ="))
        .map(|(line, text)| {
            let name = text.split(' ').next().unwrap_or_default();
            Breach::new(path, line, format!("`{name}` needs its reason in a comment"))
        })
        .collect()
}

const LINE_MAX: usize = 100;
/// The texts are split, so that this file does not break its own law.
const PATHS: [&str; 4] =
    [concat!("/", "work/"), concat!("/", "root/"), concat!("/", "tmp/"), concat!("anchors", "/")];
const HOSTS: [&str; 5] = [
    concat!("gcr", ".io"),
    concat!("ghcr", ".io"),
    concat!("quay", ".io"),
    concat!("docker", ".io"),
    concat!("registry", ".k8s.io"),
];
