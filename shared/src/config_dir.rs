//! The configuration directory: the `kube-dns` ConfigMap mounted as files, read again on change.
//!
//! Edge around the core in `keys`: reads files, watches the directory, publishes. The last
//! good configuration stays whatever happens. What the keys are for is the programs' business.
//!
//! ```text
//! inotify, or every 10 s ─▶ read ─▶ parse ─┬─▶ State { keys, no error }    ─▶ watch channel
//!                                          └─▶ State { last good, error }
//! ```

mod keys;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::ready::Check;

pub use keys::{KEYS, KeyError, Keys, Server, parse};

/// The files of the directory by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Why the directory cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or a file in it cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than a ConfigMap can be.
    #[error("{path} is larger than {FILE_LEN_MAX} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// There are more files than any ConfigMap of ours has.
    #[error("more than {FILES_MAX} files in {path}")]
    TooMany {
        /// Where.
        path: PathBuf,
    },
    /// A key is unknown or its value is wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What the programs run with.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The last good configuration; the defaults before there was one.
    pub keys: Arc<Keys>,
    /// Why the directory as it stands now is not applied, in one line.
    pub error: Option<Arc<str>>,
    /// How many different good contents were seen.
    pub applied: u64,
    /// How many different bad contents were seen.
    pub refused: u64,
}

impl State {
    /// The line `config-dir` of `/readyz?verbose`: a refused configuration is a warning.
    pub fn check(&self) -> Check {
        match &self.error {
            None => Check::passed(CHECK),
            Some(error) => Check::warning(CHECK, format!("{error}; the last good one stays")),
        }
    }
}

/// Reads the directory again whenever it changes.
pub struct Follower {
    directory: Option<PathBuf>,
    check: Demand,
    seen: Option<Contents>,
    state: watch::Sender<State>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// What a program demands of keys that are right by themselves: it fails with why they are refused.
pub type Demand = Box<dyn Fn(&Keys) -> Result<(), Arc<str>> + Send>;

/// What one look at the directory gave; equal looks are one event.
type Contents = Result<Files, Arc<str>>;

/// Reads `directory` for the first time; without one, the state is the defaults for ever.
///
/// A directory that is missing, or a key that is missing in it, means the defaults. A bad one is
/// in the state's error.
pub fn open(directory: Option<&Path>) -> (watch::Receiver<State>, Follower) {
    open_with(directory, Box::new(|_| Ok(())))
}

/// Likewise; what `check` refuses is bad.
pub fn open_with(directory: Option<&Path>, check: Demand) -> (watch::Receiver<State>, Follower) {
    let (sender, receiver) = watch::channel(State::default());
    let directory = directory.map(Path::to_owned);
    let mut follower = Follower { directory, check, seen: None, state: sender };
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
        let changed = Arc::new(Notify::new());
        loop {
            // Armed before each look: what changes after the look rings. A directory that was
            // replaced as a whole is found again by the slow poll.
            let watcher = arm(&directory, Arc::clone(&changed));
            let path = directory.clone();
            match tokio::task::spawn_blocking(move || look(&path)).await {
                Ok(contents) => self.apply(contents),
                Err(error) => tracing::error!(%error, "reading the configuration panicked"),
            }
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                () = tokio::time::sleep(POLL) => {}
                () = changed.notified() => tokio::time::sleep(SETTLE).await,
            }
            drop(watcher);
        }
    }

    /// Publishes `contents` if they are not the last seen.
    fn apply(&mut self, contents: Contents) {
        if self.seen.as_ref() == Some(&contents) {
            return;
        }
        let parsed = match &contents {
            Ok(files) => parse(files).map_err(|error| Arc::from(crate::flags::chain(&error))),
            Err(error) => Err(Arc::clone(error)),
        };
        let parsed = parsed.and_then(|keys| (self.check)(&keys).map(|()| keys));
        self.seen = Some(contents);
        self.state.send_modify(|state| match parsed {
            Ok(keys) => {
                tracing::info!(
                    stub_domains = keys.stub_domains.len(),
                    upstream_nameservers = keys.upstream_nameservers.len(),
                    federations = keys.federations.len(),
                    "configuration applied"
                );
                state.keys = Arc::new(keys);
                state.error = None;
                state.applied += 1;
            }
            Err(error) => {
                tracing::warn!(%error, "configuration refused, the last good one stays");
                state.error = Some(error);
                state.refused += 1;
            }
        });
    }
}

/// Rings `changed` when anything in `directory` is written, until dropped; nothing where the system
/// cannot: the poll remains.
fn arm(directory: &Path, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let ring = move |event: notify::Result<notify::Event>| {
        // Our own reading of the files is an event as well.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            changed.notify_one();
        }
    };
    let armed = notify::recommended_watcher(ring).and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive).map(|()| watcher)
    });
    armed.inspect_err(|error| tracing::debug!(%error, "cannot watch the configuration")).ok()
}

/// One look at the directory; a file that vanishes meanwhile means another look.
fn look(directory: &Path) -> Contents {
    let mut left = LOOKS_MAX;
    loop {
        left -= 1;
        match read(directory) {
            Ok(files) => return Ok(files),
            Err(Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound && left > 0 => {
            }
            Err(error) => return Err(Arc::from(crate::flags::chain(&error))),
        }
    }
}

/// Every plain file of the directory; none where there is no directory.
///
/// The kubelet swaps the link `..data` to change all files at once: resolving it first gives the
/// files of one version.
fn read(directory: &Path) -> Result<Files, Error> {
    let directory = directory.join("..data").canonicalize().unwrap_or(directory.to_owned());
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Files::new()),
        Err(error) => return Err(failed(&directory)(error)),
    };
    let mut files = Files::new();
    for entry in entries {
        let entry = entry.map_err(failed(&directory))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') || !path.metadata().map_err(failed(&path))?.is_file() {
            continue;
        }
        if files.len() == FILES_MAX {
            return Err(Error::TooMany { path: directory });
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&path).map_err(failed(&path))?;
        file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(failed(&path))?;
        if bytes.len() as u64 > FILE_LEN_MAX {
            return Err(Error::TooLarge { path });
        }
        files.insert(name, bytes);
    }
    Ok(files)
}

/// The name of its check.
const CHECK: &str = "config-dir";
/// A ConfigMap holds at most 1 MiB in all.
const FILE_LEN_MAX: u64 = 1 << 20;
/// Far more than there are keys.
const FILES_MAX: usize = 64;
/// How often the directory is read without an event.
const POLL: Duration = Duration::from_secs(10);
/// How long an editor may take from its first to its last write.
const SETTLE: Duration = Duration::from_millis(50);
/// How often a directory may change under one look.
const LOOKS_MAX: usize = 3;

#[cfg(test)]
mod tests;
