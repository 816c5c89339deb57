//! The folders and files of the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::Breach;
use super::source::Source;

/// A text file of the repository.
pub struct File {
    /// The path relative to the root of the workspace, with slashes.
    pub path: String,
    /// The content.
    pub text: String,
}

/// A file of the repository that is not text: its path as in [`File`], and its length in bytes.
pub type Binary = (String, usize);

/// The root of the workspace.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Returns every text file, in the order of paths, except the lock file, which cargo writes.
pub fn files() -> Vec<File> {
    let mut files = Vec::new();
    collect(Path::new(ROOT), "", &mut |path, bytes| {
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File { path, text });
        }
    });
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Returns every file that is not UTF-8.
pub fn binaries() -> Vec<Binary> {
    let mut files = Vec::new();
    collect(Path::new(ROOT), "", &mut |path, bytes| {
        if str::from_utf8(&bytes).is_err() {
            files.push((path, bytes.len()));
        }
    });
    files
}

fn collect(directory: &Path, prefix: &str, each: &mut impl FnMut(String, Vec<u8>)) {
    for entry in fs::read_dir(directory).expect("a directory can be listed") {
        let entry = entry.expect("a directory can be listed");
        let name = entry.file_name().into_string().expect("names are UTF-8");
        let path = format!("{prefix}{name}");
        if [".git", "target", "Cargo.lock"].contains(&name.as_str()) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), &format!("{path}/"), each);
        } else if let Ok(bytes) = fs::read(entry.path()) {
            each(path, bytes); // if a file vanishes meanwhile, it is not of the repository
        }
    }
}

/// Returns the folders at the root that are not in the list.
pub fn folders() -> Vec<Breach> {
    let entries = fs::read_dir(ROOT).expect("the root can be listed");
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && !FOLDERS.contains(&name.as_str()))
        .map(|name| Breach::new(&name, 0, format!("top-level folders are {}", FOLDERS.join(", "))))
        .collect()
}

/// Returns the files whose names do not describe their content.
pub fn names(files: &[File]) -> Vec<Breach> {
    let says_nothing = |file: &&File| {
        let stem = file.path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs"));
        stem.is_some_and(|stem| stem.split('_').any(|word| EMPTY_NAMES.contains(&word)))
    };
    files
        .iter()
        .filter(says_nothing)
        .map(|file| Breach::new(&file.path, 0, "this name says nothing: name the thing"))
        .collect()
}

/// Returns the files that are neither text nor pictures, or that are large. Each stays in the
/// history for ever.
pub fn binary_breaches(files: &[Binary]) -> Vec<Breach> {
    let breach = |(path, bytes): &Binary| {
        let law = if !path.ends_with(".png") {
            "only pictures (.png) are no text".to_owned()
        } else if *bytes > BINARY_BYTES_MAX {
            format!("{bytes} bytes, {BINARY_BYTES_MAX} at most")
        } else {
            return None;
        };
        Some(Breach::new(path, 0, law))
    };
    files.iter().filter_map(breach).collect()
}

/// Returns the Rust files that no `mod` leads to, so that they are not compiled.
pub fn unreachable(files: &[File]) -> Vec<Breach> {
    let mut left: BTreeSet<&str> =
        files.iter().map(|file| file.path.as_str()).filter(|path| path.ends_with(".rs")).collect();
    let mut next: Vec<&str> = left.iter().copied().filter(|path| is_root(path)).collect();
    while let Some(path) = next.pop() {
        left.remove(path);
        let file = files.iter().find(|file| file.path == path).expect("paths come from files");
        for module in modules(file) {
            let directory = match is_root(path) || path.ends_with("/mod.rs") {
                true => path.rsplit_once('/').map_or("", |(directory, _)| directory),
                false => path.trim_end_matches(".rs"),
            };
            let nested = format!("{directory}/{module}/mod.rs");
            let beside = format!("{directory}/{module}.rs");
            next.extend(left.iter().filter(|path| ***path == beside || ***path == nested));
        }
    }
    left.into_iter().map(|path| Breach::new(path, 0, "no `mod` leads to this file")).collect()
}

/// Returns whether cargo compiles the file without a `mod`.
fn is_root(path: &str) -> bool {
    let is_binary = |path: &str| match path.split_once("/src/bin/") {
        Some((_, name)) => !name.contains('/') || name.ends_with("/main.rs"),
        None => false,
    };
    ["/src/lib.rs", "/src/main.rs", "/build.rs"].iter().any(|end| path.ends_with(end))
        || path == "tests/it/main.rs"
        || is_binary(path)
        || is_own_test(path)
        || path.contains("/benches/")
        || path.contains("/fuzz_targets/")
}

/// Returns whether the file is a test binary of a crate: `CRATE/tests/NAME.rs` or
/// `CRATE/tests/NAME/main.rs`.
fn is_own_test(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts[..], [_, "tests", _] | [_, "tests", _, "main.rs"])
}

/// Returns the names after `mod` in `file` whose code is in files of their own.
fn modules(file: &File) -> Vec<String> {
    let source = Source::read(&file.path, &file.text);
    let named = |at: usize| {
        let end = source.tokens.get(at + 2)?;
        (end.text == ";").then(|| source.tokens[at + 1].text.clone())
    };
    source.find(&["mod"]).filter_map(named).collect()
}

/// The folders that the root may contain.
const FOLDERS: [&str; 7] =
    ["kubedns", "dnscache", "healthz", "shared", "manifests", "tests", "target"];
const BINARY_BYTES_MAX: usize = 60_000;
const EMPTY_NAMES: [&str; 9] =
    ["util", "utils", "helper", "helpers", "common", "manager", "misc", "data", "info"];
