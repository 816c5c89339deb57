//! The files of a Corefile: one look at all of them, and their meaning.
//!
//! Edge. Reads files and the environment, independent of the language.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::parser::{Corefile, Error, Outside, Text, parse};
use super::plan::{self, Given, Merged, Plan, Program, Surroundings};
use crate::flags::{Stop, parse_from};
use crate::plain_file;

/// One look at a Corefile and its imports.
#[derive(Clone, Debug)]
pub struct Look {
    /// The result of each name that was read. Equal looks are one event.
    found: BTreeMap<String, Result<Vec<Text>, String>>,
    /// The parsed files.
    parsed: Result<Corefile, Error>,
}

impl PartialEq for Look {
    fn eq(&self, other: &Self) -> bool {
        self.found == other.found
    }
}

impl Look {
    /// Looks at the Corefile at `path`.
    ///
    /// The kubelet changes all files of a ConfigMap at once. If a look read different versions, it
    /// is repeated.
    pub fn new(path: &Path) -> Self {
        let mut look = Self::once(path);
        for _ in 1..LOOKS_MAX {
            let again = Self::once(path);
            if again == look {
                break;
            }
            look = again;
        }
        look
    }

    fn once(path: &Path) -> Self {
        let mut found = BTreeMap::new();
        let mut bytes_left = BYTES_MAX;
        let mut read = |path: &str| {
            let texts = texts(path, &mut bytes_left);
            found.insert(path.to_owned(), texts.clone());
            texts
        };
        let variable =
            |name: &str| std::env::var_os(name).map(|it| it.to_string_lossy().into_owned());
        let outside = Outside { read: &mut read, variable: &variable };
        let parsed = parse(&path.to_string_lossy(), outside);
        Self { found, parsed }
    }

    /// Returns the Corefile, or why the file is not one.
    pub fn corefile(&self) -> Result<&Corefile, &Error> {
        self.parsed.as_ref()
    }

    /// Returns the directories whose changes can change the look.
    pub fn directories(&self) -> Vec<PathBuf> {
        let directory = |path: &String| {
            let fixed = path.find(['*', '?']).map_or(path.as_str(), |end| &path[..end]);
            let directory = fixed.rsplit_once('/').map_or(".", |(directory, _)| directory);
            PathBuf::from(if directory.is_empty() { "/" } else { directory })
        };
        let mut directories: Vec<PathBuf> = self.found.keys().map(directory).collect();
        directories.sort();
        directories.dedup();
        directories.truncate(DIRECTORIES_MAX);
        directories
    }
}

/// The program of a Corefile, and the flags beside it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The program that runs.
    pub program: Program,
    /// Its command line, with the program's name.
    pub arguments: Vec<OsString>,
    /// The flags that the command line and the environment set.
    pub given: Given,
    /// The input of the plan beside the file.
    pub surroundings: Surroundings,
}

/// A Corefile in force.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its source.
    pub source: Source,
    /// The look that was parsed.
    pub look: Look,
    /// Its plan.
    pub plan: Plan,
    /// Its flags.
    pub merged: Merged,
}

impl Source {
    /// Parses the file and its flags, which given flags override.
    ///
    /// Fails with one line for each reason.
    pub fn load<C: Parser>(self) -> Result<(C, Loaded), Vec<String>> {
        let look = Look::new(&self.path);
        let plan = self.plan(&look)?;
        let (config, merged) = self.config(&plan)?;
        Ok((config, Loaded { source: self, look, plan, merged }))
    }

    /// Returns the plan of `look`. Fails with one line for each reason.
    pub fn plan(&self, look: &Look) -> Result<Plan, Vec<String>> {
        let corefile = look.corefile().map_err(|error| vec![error.to_string()])?;
        let plan = plan::plan(corefile, self.surroundings);
        let refusals = plan.refusals();
        if refusals.is_empty() { Ok(plan) } else { Err(refusals) }
    }

    /// Returns the configuration from `plan` and the given flags.
    pub fn config<C: Parser>(&self, plan: &Plan) -> Result<(C, Merged), Vec<String>> {
        let merged = plan::merge(plan, self.program, &self.given);
        let mut arguments = self.arguments.clone();
        let at = arguments.len().min(1);
        arguments.splice(at..at, merged.arguments.iter().map(OsString::from));
        match parse_from(arguments) {
            Ok(config) => Ok((config, merged)),
            Err(Stop::Wrong(line) | Stop::Shown(line)) => {
                let line = line.trim_start_matches("error: ");
                Err(vec![format!("{}: {line}", self.path.display())])
            }
        }
    }
}

impl Loaded {
    /// Logs the flags of the file that give way to given flags.
    pub fn log_conflicts(&self) {
        for conflict in &self.merged.conflicts {
            tracing::warn!("corefile: {conflict}");
        }
    }
}

/// Returns the errors at a start as one text for the terminal.
pub fn stop(reasons: &[String]) -> Stop {
    let lines: Vec<String> = reasons.iter().map(|reason| format!("error: {reason}")).collect();
    Stop::Wrong(lines.join("\n"))
}

/// Returns the file at `path`, or all files that match it.
fn texts(path: &str, bytes_left: &mut u64) -> Result<Vec<Text>, String> {
    let is_pattern = path.contains(['*', '?']);
    let paths = if is_pattern { matching(path)? } else { vec![path.to_owned()] };
    let mut texts = Vec::new();
    for path in paths {
        let bytes = plain_file::read(Path::new(&path), FILE_LEN_MAX.min(*bytes_left));
        let bytes = bytes.map_err(|error| match is_pattern {
            true => format!("{path}: {error}"),
            false => error.to_string(),
        })?;
        *bytes_left -= bytes.len() as u64;
        texts.push(Text { path, text: String::from_utf8_lossy(&bytes).into_owned() });
    }
    Ok(texts)
}

/// Returns the paths that match `pattern`, in lexical order. A `*` also matches a dot at the
/// beginning.
fn matching(pattern: &str) -> Result<Vec<String>, String> {
    let mut paths = vec![if pattern.starts_with('/') { "/".to_owned() } else { String::new() }];
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    for (at, part) in parts.iter().enumerate() {
        let end = if at + 1 == parts.len() { "" } else { "/" };
        if !part.contains(['*', '?']) {
            paths.iter_mut().for_each(|path| *path += &format!("{part}{end}"));
            continue;
        }
        let mut found = Vec::new();
        for path in &paths {
            let directory = if path.is_empty() { "." } else { path };
            // A missing directory has no files.
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let names = names.filter(|name| fits(part.as_bytes(), name.as_bytes()));
            found.extend(names.map(|name| format!("{path}{name}{end}")).take(FILES_MAX + 1));
        }
        if found.len() > FILES_MAX {
            return Err(format!("more than {FILES_MAX} files match; expected fewer"));
        }
        paths = found;
    }
    let has_wildcard_above = parts
        .split_last()
        .is_some_and(|(_, above)| above.iter().any(|part| part.contains(['*', '?'])));
    paths.retain(|path| !has_wildcard_above || Path::new(path).exists());
    paths.sort();
    Ok(paths)
}

/// Returns whether `name` matches `pattern`, in which `*` matches any text and `?` a byte.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], name) => (0..=name.len()).any(|at| fits(rest, &name[at..])),
        ([b'?', rest @ ..], [_, name @ ..]) => fits(rest, name),
        ([first, rest @ ..], [byte, name @ ..]) if first == byte => fits(rest, name),
        _ => false,
    }
}

/// A ConfigMap holds at most 1 MiB in all.
const FILE_LEN_MAX: u64 = 1 << 20;
/// The maximum of bytes of a Corefile with all its imports.
const BYTES_MAX: u64 = 16 << 20;
/// The maximum of files that one import can match.
const FILES_MAX: usize = 1_000;
/// The maximum of directories that are watched. Files elsewhere are read from time to time.
const DIRECTORIES_MAX: usize = 64;
/// How often the files are read if they change during a look.
const LOOKS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_coredns() {
        let directory = tempfile::TempDir::new().unwrap();
        let root = directory.path().to_str().unwrap();
        for name in ["b.override", "a.override", "a.server", ".hidden"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        for folder in ["one", "two"] {
            std::fs::create_dir(directory.path().join(folder)).unwrap();
        }
        std::fs::write(directory.path().join("two/x"), "x").unwrap();
        let read = |pattern: &str| {
            let texts = texts(&format!("{root}/{pattern}"), &mut BYTES_MAX.clone())?;
            Ok(texts.into_iter().map(|text| text.text).collect::<Vec<_>>())
        };
        let ok = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(read("*.override"), ok(&["a.override", "b.override"]));
        assert_eq!(read("?.server"), ok(&["a.server"]));
        assert_eq!(read("*hidden"), ok(&[".hidden"]));
        assert_eq!(read("*.none"), ok(&[]));
        assert_eq!(read("*/x"), ok(&["x"]));
        assert_eq!(read("absent/*"), ok(&[]));
        assert!(read("*").is_err_and(|error: String| error.contains("not a plain file")));
        assert!(read("absent").is_err());
    }

    #[test]
    fn large_files_and_changes_are_one_event() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("Corefile");
        std::fs::write(&path, "import *.conf\n. {\n whoami\n}\n").unwrap();
        let first = Look::new(&path);
        assert!(first.corefile().is_ok() && first == Look::new(&path));
        assert_eq!(first.directories(), [directory.path()]);
        std::fs::write(directory.path().join("a.conf"), "a.b {\n}\n").unwrap();
        let second = Look::new(&path);
        assert!(first != second);
        std::fs::write(&path, "{ ".repeat(5 << 20)).unwrap();
        let error = Look::new(&path).corefile().unwrap_err().to_string();
        assert!(error.contains("larger than 1048576 bytes"), "{error}");
    }
}
