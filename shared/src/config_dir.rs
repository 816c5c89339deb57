//! The configuration directory: the `kube-dns` ConfigMap mounted as files, read again on change.
//!
//! Edge around the core in `keys`: reads files, watches the directory, publishes the state. A bad
//! entry is refused by itself and logged. Its last good value stays in force if there is one. The
//! programs define the use of the keys.
//!
//! ```text
//! inotify, or every second ─▶ read ─▶ keys ─▶ State { keys, what is refused } ─▶ watch channel
//! ```

mod keys;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ready::Check;
use crate::watcher::Watcher;
use crate::{interface, plain_file};

pub use keys::{KEYS, KeyError, Keys, Refusal, Server, parse};

/// The files of the directory by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The configuration in force, and its problems.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The keys in force; the defaults before the first read.
    pub keys: Arc<Keys>,
    /// The current refusals of the directory, in one line each.
    pub refused: Arc<[Arc<str>]>,
    /// How many different contents were applied completely.
    pub applied: u64,
    /// How many different contents were refused, in part or completely.
    pub refusals: u64,
    /// Whether the directory is polled every second because inotify is not available.
    pub polling: bool,
}

impl State {
    /// Returns the line `config-dir` of `/readyz?verbose`. A refusal is a warning.
    pub fn check(&self) -> Check {
        let polling = self.polling.then_some(POLLING);
        let mut reasons: Vec<&str> = self.refused.iter().map(|reason| &**reason).collect();
        let more = reasons.len().saturating_sub(SHOWN_MAX);
        reasons.truncate(SHOWN_MAX);
        let more = (more > 0).then(|| format!("and {more} more"));
        reasons.extend(more.as_deref().into_iter().chain(polling));
        match &reasons[..] {
            [] => Check::passed(CHECK),
            reasons => Check::warning(CHECK, reasons.join("; ")),
        }
    }
}

/// Reads the directory again whenever it changes.
pub struct Follower {
    directory: Option<PathBuf>,
    demand: Demand,
    seen: Option<Contents>,
    state: watch::Sender<State>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// A program's own check of valid keys: it removes the entries that it refuses, and returns the
/// reasons.
pub type Demand = Box<dyn Fn(&mut Keys) -> Vec<Arc<str>> + Send>;

/// The result of one look at the directory. Equal results are one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Contents {
    files: Files,
    /// Files that cannot be read, and why; the empty name is the directory itself.
    unreadable: BTreeMap<String, Arc<str>>,
}

/// Reads `directory` for the first time. If it is `None`, the state is always the defaults.
///
/// If the directory or a key in it is missing, the defaults apply. The state has the refusals.
pub fn open(directory: Option<&Path>) -> (watch::Receiver<State>, Follower) {
    open_with(directory, Box::new(|_| Vec::new()))
}

/// Does the same, and also refuses the entries that `demand` refuses.
pub fn open_with(directory: Option<&Path>, demand: Demand) -> (watch::Receiver<State>, Follower) {
    let (sender, receiver) = watch::channel(State::default());
    let directory = directory.map(Path::to_owned);
    let mut follower = Follower { directory, demand, seen: None, state: sender };
    if let Some(directory) = &follower.directory {
        let contents = look(directory);
        follower.apply(contents);
    }
    (receiver, follower)
}

impl Follower {
    /// Publishes every change until `stopping`.
    pub async fn run(mut self, stopping: CancellationToken) -> Result<(), Infallible> {
        let Some(directory) = self.directory.clone() else {
            stopping.cancelled().await;
            return Ok(());
        };
        let mut watcher = Watcher::new(&directory);
        loop {
            // Armed before each look, so that a change after the look is noticed.
            let polling = watcher.arm().is_polling();
            self.state.send_if_modified(|state| {
                std::mem::replace(&mut state.polling, polling) != polling
            });
            let path = directory.clone();
            match tokio::task::spawn_blocking(move || look(&path)).await {
                Ok(contents) => self.apply(contents),
                Err(error) => tracing::error!(%error, "reading the configuration panicked"),
            }
            let changed = tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                changed = watcher.changed() => changed,
            };
            if changed {
                tokio::time::sleep(SETTLE).await;
            }
        }
    }

    /// Publishes `contents` if they differ from the last ones.
    fn apply(&mut self, contents: Contents) {
        if self.seen.as_ref() == Some(&contents) {
            return;
        }
        let before = Arc::clone(&self.state.borrow().keys);
        let (keys, refused) = self.read(&contents, &before);
        self.seen = Some(contents);
        self.state.send_modify(|state| {
            for reason in refused.iter().filter(|reason| !state.refused.contains(reason)) {
                tracing::warn!("configuration: {reason}");
            }
            tracing::info!(
                stub_domains = keys.stub_domains.len(),
                upstream_nameservers = keys.upstream_nameservers.len(),
                federations = keys.federations.len(),
                refused = refused.len(),
                "configuration applied"
            );
            match refused.is_empty() {
                true => state.applied += 1,
                false => state.refusals += 1,
            }
            (state.keys, state.refused) = (Arc::new(keys), refused);
        });
    }

    /// Returns the keys in `contents` that follow those `before`, and the refusals.
    fn read(&self, contents: &Contents, before: &Keys) -> (Keys, Arc<[Arc<str>]>) {
        let (mut keys, refused) = Keys::read(&contents.files, before, &interface::index);
        let line = |error: &str, kept| -> Arc<str> {
            let left = if kept { "its last good value stays" } else { "it is left out" };
            format!("{error}; {left}").into()
        };
        let mut lines = Vec::new();
        for (name, error) in &contents.unreadable {
            let names: &[&str] = if name.is_empty() { &KEYS } else { &[name] };
            // Not `any`, because each of them must be kept.
            let kept = names.iter().filter(|name| keys.keep(name, before)).count() > 0;
            lines.push(line(error, kept));
        }
        let refused = refused.iter().map(|it| line(&crate::flags::chain(&it.error), it.kept));
        lines.extend(refused);
        lines.extend((self.demand)(&mut keys));
        (keys, lines.into())
    }
}

/// Looks at the directory once, or again if a file vanishes meanwhile.
fn look(directory: &Path) -> Contents {
    let mut left = LOOKS_MAX;
    loop {
        left -= 1;
        let (contents, vanished) = read(directory);
        if !vanished || left == 0 {
            return contents;
        }
    }
}

/// Returns every plain file of the directory, and whether one has vanished since it was listed. A
/// missing directory has no files.
///
/// The kubelet swaps the link `..data` to change all files at once. If the link is resolved first,
/// all files are of one version.
fn read(directory: &Path) -> (Contents, bool) {
    let directory = directory.join("..data").canonicalize().unwrap_or(directory.to_owned());
    let (mut contents, mut vanished) = (Contents::default(), false);
    let paths = std::fs::read_dir(&directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>());
    let unreadable = |path: &Path, error: &dyn fmt::Display| -> Arc<str> {
        format!("cannot read {}: {error}", path.display()).into()
    };
    let paths = match paths {
        Ok(paths) if paths.len() <= FILES_MAX => paths,
        Ok(_) => {
            let error = format!("more than {FILES_MAX} files");
            contents.unreadable.insert(String::new(), unreadable(&directory, &error));
            return (contents, false);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return (contents, false),
        Err(error) => {
            contents.unreadable.insert(String::new(), unreadable(&directory, &error));
            return (contents, false);
        }
    };
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || path.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            continue;
        }
        match plain_file::read(&path, FILE_LEN_MAX) {
            Ok(bytes) => drop(contents.files.insert(name, bytes)),
            Err(error) => {
                vanished |= error.kind() == ErrorKind::NotFound;
                contents.unreadable.insert(name, unreadable(&path, &error));
            }
        }
    }
    (contents, vanished)
}

/// The name of the check.
const CHECK: &str = "config-dir";
/// A ConfigMap holds at most 1 MiB in all.
const FILE_LEN_MAX: u64 = 1 << 20;
/// Far more files than there are keys.
const FILES_MAX: usize = 64;
/// How many reasons `/readyz?verbose` lists.
const SHOWN_MAX: usize = 10;
/// The reason shown if inotify is missing.
const POLLING: &str = "inotify is not available: changes are looked for every second";
/// How long an editor can take from its first to its last write.
const SETTLE: Duration = Duration::from_millis(50);
/// How often a directory is read if it changes during a look.
const LOOKS_MAX: usize = 3;

#[cfg(test)]
mod tests;
