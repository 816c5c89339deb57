//! Objects from files in place of an API server: the same updates, read again when a file changes.
//!
//! Edge. Knows files, directories and editors; does not know what the objects mean. After each
//! change all files are read and sent as full lists; an unchanged object costs only a comparison.
//! If a document is broken, its objects stay as they were: changes are then sent one by one, and
//! objects that are missing in that file are not removed.

mod checks;
mod document;
mod read;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use kube::core::SelectorExt;
use shared::plain_file;
use shared::ready::Check;
use shared::watcher::Watcher;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::project::{Change, Input, Kind, Metadata, NamespaceObject, ObjectId};
use crate::source::update::{Closed, Scope, Sink, Update, send};

use document::{Format, Labelled, Problem};
use read::{Found, Stamp};

/// Why the objects cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The file or directory cannot be read.
    #[error("cannot read objects from {path}")]
    Read {
        /// The path.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// The files are larger than any cluster needs.
    #[error("{path} makes more than {FILES_LEN_MAX} bytes of objects")]
    TooLarge {
        /// The file with which the limit is exceeded.
        path: PathBuf,
    },
}

/// The state of the files.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Errors in the files, `file:line: reason`; at most `PROBLEMS_MAX`.
    pub problems: Vec<Arc<str>>,
    /// Objects of broken files that stay as they were.
    pub kept: usize,
    /// Why the current files could not be read, in which case the objects stay as they were.
    pub error: Option<Arc<str>>,
    /// How often they have been read.
    pub reads: u64,
    /// Whether the files are polled every second because inotify is not available.
    pub polling: bool,
}

impl State {
    /// Returns the line `objects` of `/readyz?verbose`.
    pub fn check(&self) -> Check {
        let error = self.error.iter().map(|error| format!("{error}; nothing was changed"));
        let shown = self.problems.iter().take(SHOWN_MAX).map(ToString::to_string);
        let more = self.problems.len().saturating_sub(SHOWN_MAX);
        let more = (more > 0).then(|| format!("and {more} more"));
        let kept = match self.kept {
            0 => None,
            1 => Some("1 object of these files stays as it was until that is repaired".to_owned()),
            kept => Some(format!(
                "{kept} objects of these files stay as they were until that is repaired"
            )),
        };
        let polling = self.polling.then(|| POLLING.to_owned());
        let reasons: Vec<String> =
            error.chain(shown).chain(more).chain(kept).chain(polling).collect();
        match &reasons[..] {
            [] => Check::passed("objects"),
            reasons => Check::warning("objects", reasons.join("; ")),
        }
    }
}

/// Reads the files again whenever they change.
#[derive(Debug)]
pub struct Objects {
    path: PathBuf,
    exposed: Arc<config::Scope>,
    found: Found,
    known: Arc<Known>,
    first: Look,
    state: watch::Sender<State>,
}

/// Returns the scopes of objects from files: one list of each kind.
pub fn scopes(exposed: &config::Scope) -> Vec<Scope> {
    let kinds = Kind::KNOWN.into_iter().filter(|&kind| exposed.needs(kind));
    kinds.map(Scope::all).collect()
}

/// Reads `path`, a file or a directory of `.yaml`, `.yml` and `.json` files, for the first time.
///
/// Fails if it cannot be read. Errors in the content are logged and left out.
pub fn open(
    path: &Path,
    exposed: config::Scope,
) -> Result<(watch::Receiver<State>, Objects), ObjectsError> {
    let found = Found::at(path, FILES_LEN_MAX)?;
    let known = Arc::new(Known::default());
    let first = look(&found, &exposed, &known);
    let (state, receiver) = watch::channel(State::default());
    let path = path.to_owned();
    let objects = Objects { path, exposed: Arc::new(exposed), found, known, first, state };
    Ok((receiver, objects))
}

impl Objects {
    /// Sends all objects, and sends them again after each change, until `stopping`.
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
        // A single file is watched through its directory, because editors put a new file in its
        // place.
        let directory = match self.path.parent() {
            Some(parent) if !self.path.is_dir() && parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) if !self.path.is_dir() => parent,
            _ => &self.path,
        };
        let mut watcher = Watcher::new(directory);
        loop {
            // Armed before each look, so that a later change is not missed.
            let polling = watcher.arm().is_polling();
            self.state.send_if_modified(|state| {
                std::mem::replace(&mut state.polling, polling) != polling
            });
            match self.look().await {
                Ok(Some(look)) => {
                    if let Err(closed) = self.tell(look, &sink).await {
                        return closed;
                    }
                }
                Ok(None) => self.state.send_modify(|state| state.error = None),
                Err(error) => self.fail(&error),
            }
            if watcher.changed().await {
                watcher.settle(SETTLE, SETTLE_MAX).await;
            }
        }
    }

    /// Returns the content of the files, if they have changed.
    async fn look(&mut self) -> Result<Option<Look>, ObjectsError> {
        let (path, before) = (self.path.clone(), self.found.clone());
        let (exposed, known) = (Arc::clone(&self.exposed), Arc::clone(&self.known));
        let work = move || {
            let found = Found::at(&path, FILES_LEN_MAX)?;
            if found == before {
                return Ok(None);
            }
            let look = look(&found, &exposed, &known);
            Ok(Some((found, look)))
        };
        let Some((found, look)) = blocking(work).await? else { return Ok(None) };
        self.found = found;
        Ok(Some(look))
    }

    async fn tell(&mut self, look: Look, sink: &Sink) -> Result<(), Closed> {
        let before: HashSet<_> = self.state.borrow().problems.iter().cloned().collect();
        for problem in look.problems.iter().filter(|&problem| !before.contains(problem)) {
            tracing::warn!("{problem}");
        }
        let scopes = if look.kept == 0 { scopes(&self.exposed) } else { Vec::new() };
        for scope in &scopes {
            send(sink, Update::Listing(scope.clone())).await?;
        }
        for update in look.updates {
            send(sink, update).await?;
        }
        // A list removes missing objects; without a list they must be removed one by one.
        let gone = if look.kept == 0 { Vec::new() } else { self.known.without(&look.known) };
        for object in gone {
            let change = Change::Deleted(object);
            let update = Update::Change { change, rejected: None, revision: 0, written: None };
            send(sink, update).await?;
        }
        for scope in scopes {
            send(sink, Update::Listed(scope)).await?;
        }
        self.known = Arc::new(look.known);
        self.state.send_modify(|state| {
            (state.problems, state.kept, state.error) = (look.problems, look.kept, None);
            state.reads += 1;
        });
        Ok(())
    }

    fn fail(&self, error: &ObjectsError) {
        let error: Arc<str> = shared::flags::chain(error).into();
        self.state.send_if_modified(|state| {
            let is_new = state.error.as_ref() != Some(&error);
            if is_new {
                tracing::warn!("{error}; nothing was changed");
                state.error = Some(error);
            }
            is_new
        });
    }
}

/// The result of one look at the files.
#[derive(Debug, Default)]
struct Look {
    updates: Vec<Update>,
    problems: Vec<Arc<str>>,
    /// The objects that exist now, of which `kept` are as they were.
    known: Known,
    kept: usize,
}

/// The objects that were sent.
#[derive(Debug, Default)]
struct Known {
    files: HashMap<PathBuf, Vec<ObjectId>>,
    /// Namespaces, including those that are only named by objects in them.
    namespaces: BTreeSet<String>,
}

impl Known {
    /// Returns the objects that `after` does not have.
    fn without(&self, after: &Self) -> Vec<ObjectId> {
        let there: HashSet<&ObjectId> = after.files.values().flatten().collect();
        let objects = self.files.values().flatten();
        let objects = objects.filter(|id| id.kind != Kind::Namespace && !there.contains(id));
        let namespaces = self.namespaces.difference(&after.namespaces);
        let namespaces = namespaces.map(|name| ObjectId::new(Kind::Namespace, "", name));
        objects.cloned().chain(namespaces).collect()
    }
}

/// Reads the files of `found`. Objects of `known` stay if their file is broken and no other object
/// replaces them.
fn look(found: &Found, exposed: &config::Scope, known: &Known) -> Look {
    let mut reading = Reading { exposed, known, look: Look::default(), seen: HashSet::new() };
    let mut broken = Vec::new();
    for (path, reason) in &found.odd {
        reading.complain(format!("{}: {reason}: passed over", path.display()));
        broken.push(path);
    }
    for stamp in &found.files {
        let bytes = match plain_file::read(&stamp.path, FILES_LEN_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                reading.complain(format!("{}: {error}: passed over", stamp.path.display()));
                broken.push(&stamp.path);
                continue;
            }
        };
        if reading.file(stamp, &String::from_utf8_lossy(&bytes)) {
            broken.push(&stamp.path);
        }
    }
    reading.finish(broken)
}

/// One look in progress.
struct Reading<'r> {
    exposed: &'r config::Scope,
    known: &'r Known,
    look: Look,
    seen: HashSet<ObjectId>,
}

impl Reading<'_> {
    fn complain(&mut self, problem: String) {
        self.look.problems.push(problem.into());
    }

    /// Reads the objects of `text`, the file `stamp`. Returns whether any of it is broken.
    fn file(&mut self, stamp: &Stamp, text: &str) -> bool {
        let path = &stamp.path;
        let revision = stamp.modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let before = self.known.files.get(path).map_or(&[][..], Vec::as_slice);
        let before: HashSet<&ObjectId> = before.iter().collect();
        let (mut problems, mut broken, mut refused) = (Vec::new(), false, false);
        let mut warnings = Vec::new();
        let take = |labelled: Labelled| {
            let line = labelled.line;
            let mut warn = |id: &ObjectId, reason: &dyn std::fmt::Display| {
                warnings.push(format!("{}:{line}: {id}: {reason}", path.display()));
            };
            let Some((input, update)) = self.object(labelled, revision) else { return };
            let id = input.id();
            for reason in checks::refusals(&input) {
                warn(&id, &format!("an API server refuses this: {reason}"));
            }
            if self.seen.contains(&id) {
                warn(&id, &"was there before: this one holds");
            }
            if let (
                Update::Change { change: Change::Deleted(_), rejected: Some(rejected), .. },
                true,
            ) = (&update, before.contains(&id))
            {
                // An API server would have kept the object that it has.
                warn(&id, &shared::flags::chain(&rejected.reason));
                refused = true;
                return;
            }
            self.look.known.files.entry(path.clone()).or_default().push(id.clone());
            self.seen.insert(id);
            self.look.updates.push(update);
        };
        let complain = |Problem { line, reason }| {
            broken = true;
            problems.push(format!("{}:{line}: {reason}", path.display()));
        };
        document::read(text, read::format(path).unwrap_or(Format::Yaml), take, complain);
        problems.into_iter().chain(warnings).for_each(|problem| self.complain(problem));
        broken || refused
    }

    /// Returns the object and its update, if the flags expose it.
    fn object(&mut self, mut labelled: Labelled, revision: u64) -> Option<(Input, Update)> {
        if !is_exposed(&labelled, self.exposed) {
            return None;
        }
        if self.exposed.pod_names {
            labelled.input.name_by_pods();
        }
        let input = labelled.input;
        match &input {
            Input::Namespace(_) => self.namespace(&input.metadata().name),
            Input::Node(_) | Input::ServiceCidr(_) => {} // in no namespace
            _ => self.namespace(input.metadata().namespace()),
        }
        let update = with_revision(Update::applied(&input), revision);
        Some((input, update))
    }

    fn namespace(&mut self, name: &str) {
        if !self.look.known.namespaces.contains(name) {
            self.look.known.namespaces.insert(name.to_owned());
        }
    }

    /// Returns the whole look. Missing objects of the files `broken` stay as they were.
    fn finish(mut self, broken: Vec<&PathBuf>) -> Look {
        for path in broken {
            for id in self.known.files.get(path).into_iter().flatten() {
                if self.seen.insert(id.clone()) {
                    self.look.kept += 1;
                    self.namespace(if id.namespace.is_empty() { &id.name } else { &id.namespace });
                    self.look.known.files.entry(path.clone()).or_default().push(id.clone());
                }
            }
        }
        self.look.problems.truncate(PROBLEMS_MAX);
        // If an object is in a namespace, the namespace exists.
        let namespaces = self.look.known.namespaces.iter().map(|name| {
            let metadata = Metadata { name: name.clone(), ..Metadata::default() };
            Update::applied(&Input::Namespace(NamespaceObject { metadata }))
        });
        self.look.updates.extend(namespaces.collect::<Vec<_>>());
        self.look
    }
}

/// Returns whether the flags expose the object: by its namespace, by its labels, by its kind.
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
            Input::Namespace(_) => {
                exposed.by_label.as_ref().is_none_or(|selector| selector.matches(&labelled.labels))
            }
            input => exposed.needs(input.kind()),
        }
}

/// Files have no resource version: the time of the last change is used instead, and it grows.
fn with_revision(mut update: Update, file: u64) -> Update {
    if let Update::Change { revision, .. } = &mut update {
        *revision = (*revision).max(file);
    }
    update
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The most bytes of all files together, far more than the largest cluster needs.
const FILES_LEN_MAX: u64 = 1 << 30;
/// The most problems that are kept.
const PROBLEMS_MAX: usize = 100;
/// The most problems that `/readyz?verbose` lists.
const SHOWN_MAX: usize = 10;
/// The warning if inotify is not available.
const POLLING: &str = "inotify is not available: changes are looked for every second";
/// How long an editor can pause between two writes.
const SETTLE: Duration = Duration::from_millis(50);
/// How long it can write without a pause.
const SETTLE_MAX: Duration = Duration::from_millis(500);
