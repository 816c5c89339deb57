//! Objects from files in place of an API server: the same news, read again when a file changes.
//!
//! Edge. Knows files, directories and editors; does not know what the objects mean. Everything is
//! read at each change and told as full lists: what stayed the same costs a comparison.

mod document;

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::core::SelectorExt;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use shared::ready::Check;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::news::{Closed, News, Scope, Sink, say};
use crate::project::{Input, Kind, Metadata, NamespaceObject};

use document::{Format, Labelled, Problem};

/// Why the objects cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// A file or directory cannot be read.
    #[error("cannot read objects from {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is more than fits into any memory meant for this.
    #[error("{path} makes more than {FILES_LEN_MAX} bytes of objects")]
    TooLarge {
        /// The file that is too much.
        path: PathBuf,
    },
}

/// How the files fare.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What is wrong in the files, `file:line: reason`; the first `PROBLEMS_MAX`.
    pub problems: Vec<Arc<str>>,
    /// Why the files as they stand now could not be read; the objects stay as they were.
    pub error: Option<Arc<str>>,
    /// How often they have been read.
    pub reads: u64,
}

impl State {
    /// The line `objects` of `/readyz?verbose`.
    pub fn check(&self) -> Check {
        match (&self.error, &self.problems[..]) {
            (Some(error), _) => Check::warning("objects", format!("{error}; nothing was changed")),
            (None, []) => Check::passed("objects"),
            (None, [only]) => Check::warning("objects", only.to_string()),
            (None, [first, rest @ ..]) => {
                Check::warning("objects", format!("{first}, and {} more", rest.len()))
            }
        }
    }
}

/// Reads the files again whenever they change.
#[derive(Debug)]
pub struct Objects {
    path: PathBuf,
    exposed: Arc<config::Scope>,
    stamps: Vec<Stamp>,
    first: Look,
    state: watch::Sender<State>,
}

/// The scopes in which objects from files are told: a list of each kind.
pub fn scopes(exposed: &config::Scope) -> Vec<Scope> {
    let kinds = Kind::KNOWN.into_iter().filter(|&kind| exposed.needs(kind));
    kinds.map(Scope::all).collect()
}

/// Reads `path`, a file or a directory of `.yaml`, `.yml` and `.json` files, for the first time.
///
/// Fails where it cannot be read; what is wrong in a file is logged and left out.
pub fn open(
    path: &Path,
    exposed: config::Scope,
) -> Result<(watch::Receiver<State>, Objects), ObjectsError> {
    let stamps = stamps(path)?;
    let first = look(&stamps, &exposed)?;
    let (state, receiver) = watch::channel(State::default());
    let path = path.to_owned();
    let objects = Objects { path, exposed: Arc::new(exposed), stamps, first, state };
    Ok((receiver, objects))
}

impl Objects {
    /// Tells what there is, and everything again at each change, until `stopping`.
    pub async fn follow(self, sink: Sink, stopping: CancellationToken) -> Result<(), Infallible> {
        tokio::select! {
            () = stopping.cancelled() => {}
            Closed = self.run(sink) => stopping.cancelled().await,
        }
        Ok(())
    }

    async fn run(mut self, sink: Sink) -> Closed {
        let first = std::mem::take(&mut self.first);
        if let Err(closed) = self.tell(first, &sink).await {
            return closed;
        }
        let changed = Arc::new(Notify::new());
        loop {
            // Armed before each look: what changes after the look rings. A directory that was
            // replaced as a whole is found again by the slow poll.
            let watcher = arm(&self.path, Arc::clone(&changed));
            match self.look().await {
                Ok(Some(look)) => {
                    if let Err(closed) = self.tell(look, &sink).await {
                        return closed;
                    }
                }
                Ok(None) => self.state.send_modify(|state| state.error = None),
                Err(error) => self.fail(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = changed.notified() => settle(&changed).await,
            }
            drop(watcher);
        }
    }

    /// What the files say, if they have changed.
    async fn look(&mut self) -> Result<Option<Look>, ObjectsError> {
        let (path, known) = (self.path.clone(), self.stamps.clone());
        let exposed = Arc::clone(&self.exposed);
        let work = move || {
            let stamps = stamps(&path)?;
            if stamps == known {
                return Ok(None);
            }
            look(&stamps, &exposed).map(|look| Some((stamps, look)))
        };
        let Some((stamps, look)) = blocking(work).await? else { return Ok(None) };
        self.stamps = stamps;
        Ok(Some(look))
    }

    async fn tell(&self, look: Look, sink: &Sink) -> Result<(), Closed> {
        let known: HashSet<_> = self.state.borrow().problems.iter().cloned().collect();
        for problem in look.problems.iter().filter(|&problem| !known.contains(problem)) {
            tracing::warn!("{problem}");
        }
        let scopes = scopes(&self.exposed);
        for scope in &scopes {
            say(sink, News::Listing(scope.clone())).await?;
        }
        for news in look.news {
            say(sink, news).await?;
        }
        for scope in scopes {
            say(sink, News::Listed(scope)).await?;
        }
        self.state.send_modify(|state| {
            *state = State { problems: look.problems, error: None, reads: state.reads + 1 };
        });
        Ok(())
    }

    fn fail(&self, error: &ObjectsError) {
        let error: Arc<str> = shared::flags::chain(error).into();
        self.state.send_if_modified(|state| {
            let is_news = state.error.as_ref() != Some(&error);
            if is_news {
                tracing::warn!("{error}; nothing was changed");
                state.error = Some(error);
            }
            is_news
        });
    }
}

/// What one look at the files gave.
#[derive(Debug, Default)]
struct Look {
    news: Vec<News>,
    problems: Vec<Arc<str>>,
}

/// One file as it stands; equal stamps mean equal contents.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    len: u64,
    modified: SystemTime,
}

/// The files at `path`, in the order of their names.
fn stamps(path: &Path) -> Result<Vec<Stamp>, ObjectsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ObjectsError::Read { path, source }
    };
    let mut paths = Vec::new();
    if path.metadata().map_err(failed(path))?.is_dir() {
        for entry in path.read_dir().map_err(failed(path))? {
            let file = entry.map_err(failed(path))?.path();
            let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
            if format(&file).is_some() && !hidden {
                paths.push(file);
            }
        }
        paths.sort();
    } else {
        paths.push(path.to_owned());
    }
    let mut stamps = Vec::with_capacity(paths.len());
    let mut len = 0;
    for path in paths {
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            // Gone since it was listed: an editor's own business.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&path)(error)),
        };
        len += metadata.len();
        if len > FILES_LEN_MAX {
            return Err(ObjectsError::TooLarge { path });
        }
        let modified = metadata.modified().map_err(failed(&path))?;
        stamps.push(Stamp { path, len: metadata.len(), modified });
    }
    Ok(stamps)
}

/// How the file is written, by its name.
fn format(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        _ => None,
    }
}

/// Reads the files that `stamps` names.
fn look(stamps: &[Stamp], exposed: &config::Scope) -> Result<Look, ObjectsError> {
    let mut look = Look::default();
    let mut namespaces = BTreeSet::new();
    let mut seen = HashSet::new();
    for Stamp { path, modified, .. } in stamps {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ObjectsError::Read { path: path.clone(), source }),
        };
        let revision = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (mut problems, mut twice) = (Vec::new(), Vec::new());
        let take = |mut labelled: Labelled| {
            if !is_exposed(&labelled, exposed) {
                return;
            }
            if exposed.pod_names {
                labelled.input.name_by_pods();
            }
            let input = &labelled.input;
            match input {
                Input::Namespace(_) => namespaces.insert(input.metadata().name.clone()),
                Input::Node(_) | Input::ServiceCidr(_) => false, // lives in no namespace
                _ => namespaces.insert(input.metadata().namespace().to_owned()),
            };
            let id = input.id();
            if let Some(id) = seen.replace(id) {
                twice.push(format!("{}: {id} was there before: this one holds", path.display()));
            }
            look.news.push(with_revision(News::applied(input), revision));
        };
        let complain = |Problem { line, reason }| {
            problems.push(format!("{}:{line}: {reason}", path.display()));
        };
        document::read(&text, format(path).unwrap_or(Format::Yaml), take, complain);
        look.problems.extend(problems.into_iter().chain(twice).map(Arc::from));
    }
    look.problems.truncate(PROBLEMS_MAX);
    // What lives in a namespace says that it is there.
    look.news.extend(namespaces.into_iter().map(|name| {
        let metadata = Metadata { name, ..Metadata::default() };
        News::applied(&Input::Namespace(NamespaceObject { metadata }))
    }));
    Ok(look)
}

/// Whether the flags expose the object: by its namespace, by its labels, by its kind.
fn is_exposed(labelled: &Labelled, exposed: &config::Scope) -> bool {
    let metadata = labelled.input.metadata();
    let namespace = match &labelled.input {
        Input::Namespace(_) => &metadata.name,
        _ => metadata.namespace(),
    };
    let in_scope = exposed.namespaces.is_empty()
        || exposed.namespaces.iter().any(|name| name == namespace)
        || matches!(labelled.input, Input::Node(_) | Input::ServiceCidr(_));
    in_scope
        && match &labelled.input {
            Input::Service(_) => {
                exposed.services.as_ref().is_none_or(|selector| selector.matches(&labelled.labels))
            }
            input => exposed.needs(input.kind()),
        }
}

/// Files have no resource version: when they were written serves as well, and grows.
fn with_revision(mut news: News, file: u64) -> News {
    if let News::Change { revision, .. } = &mut news {
        *revision = (*revision).max(file);
    }
    news
}

/// Rings `changed` when anything at `path` is written, until dropped; nothing where the system
/// cannot: the poll remains. A single file is watched through its directory, because editors put a
/// new file in its place.
fn arm(path: &Path, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let ring = move |event: notify::Result<notify::Event>| {
        // Our own reading of the files is an event as well.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            changed.notify_one();
        }
    };
    let directory = match path.parent() {
        Some(parent) if !path.is_dir() && parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) if !path.is_dir() => parent,
        _ => path,
    };
    let armed = notify::recommended_watcher(ring).and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive).map(|()| watcher)
    });
    armed.inspect_err(|error| tracing::debug!(%error, "cannot watch the objects")).ok()
}

/// Waits until nothing has rung for [`SETTLE`], at most [`SETTLE_MAX`].
async fn settle(changed: &Notify) {
    let quiet = async { while tokio::time::timeout(SETTLE, changed.notified()).await.is_ok() {} };
    // Whoever never stops writing is read in between.
    drop(tokio::time::timeout(SETTLE_MAX, quiet).await);
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// All files together, in bytes; far more than the largest cluster writes.
const FILES_LEN_MAX: u64 = 1 << 30;
/// Problems that are remembered.
const PROBLEMS_MAX: usize = 100;
/// How often the files are looked at without an event.
const POLL: Duration = Duration::from_secs(10);
/// How long an editor may take from one write to the next.
const SETTLE: Duration = Duration::from_millis(50);
/// How long one may write without a pause.
const SETTLE_MAX: Duration = Duration::from_millis(500);
