//! Notices changes of directories: by inotify if the system has it, otherwise by a look every
//! second.
//!
//! Edge. Independent of the use of the files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode};
use tokio::sync::Notify;

/// Watches directories. All pods of a user on a node share its inotify instances, so an instance is
/// kept once it exists, because a later one could be refused.
pub struct Watcher {
    directories: Vec<PathBuf>,
    make: Make,
    inner: Option<Box<dyn notify::Watcher + Send>>,
    changed: Arc<Notify>,
    /// The result of the last [`Watcher::arm`].
    state: State,
}

/// Creates the system's watcher, which notifies of each change.
type Make = Box<dyn Fn(Arc<Notify>) -> notify::Result<Box<dyn notify::Watcher + Send>> + Send>;

/// How changes are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// By inotify, at once.
    #[default]
    Watching,
    /// The directory does not exist: by a look from time to time.
    Absent,
    /// inotify is refused: by a look every second.
    Polling,
}

impl State {
    /// Returns whether changes are noticed with a delay because inotify is refused.
    pub fn is_polling(self) -> bool {
        self == Self::Polling
    }

    /// Returns how long to wait for an event before the next look.
    fn pause(self) -> Duration {
        match self {
            Self::Watching | Self::Absent => POLL,
            Self::Polling => POLL_WITHOUT_INOTIFY,
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("directories", &self.directories)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Watcher {
    /// Returns a watcher of `directory`, which must be [armed](Self::arm) before each look.
    pub fn new(directory: &Path) -> Self {
        Self::with(directory, Box::new(system_watcher))
    }

    fn with(directory: &Path, make: Make) -> Self {
        let (directories, changed) = (vec![directory.to_owned()], Arc::new(Notify::new()));
        Self { directories, make, inner: None, changed, state: State::Watching }
    }

    /// Watches these directories from the next [`Watcher::arm`] on. Earlier directories can still
    /// cause events.
    pub fn set_directories(&mut self, directories: Vec<PathBuf>) {
        self.directories = directories;
    }

    /// Reports changes from now on, if the system allows it. Returns how changes are noticed.
    ///
    /// A directory that was replaced as a whole is found again. The first refusal and its end are
    /// logged.
    pub fn arm(&mut self) -> State {
        let watched = match self.inner.take().map_or_else(|| self.make(), Ok) {
            Ok(mut inner) => {
                let watch =
                    |directory: &PathBuf| inner.watch(directory, RecursiveMode::NonRecursive);
                // All directories are watched. A refusal counts more than a missing directory.
                let failed = self.directories.iter().map(watch).filter_map(Result::err);
                let failed = failed.reduce(|one, other| if is_absent(&one) { other } else { one });
                self.inner = Some(inner);
                failed.map_or(Ok(()), Err)
            }
            Err(error) => Err(error),
        };
        let directory = self.directories.first().map(|it| it.display().to_string());
        let directory = directory.unwrap_or_default();
        let state = match &watched {
            Ok(()) => State::Watching,
            Err(error) if is_absent(error) => State::Absent,
            Err(_) => State::Polling,
        };
        match (&watched, self.state.is_polling()) {
            (Err(error), false) if state.is_polling() => {
                tracing::warn!(
                    %directory, %error,
                    "inotify is not available, changes are looked for every second: raise \
                     fs.inotify.max_user_instances on this node"
                );
            }
            (Ok(()), true) => tracing::info!(%directory, "inotify is available again"),
            _ => {}
        }
        self.state = state;
        state
    }

    /// Waits for a change, or until it is time for another look. Returns whether there was a
    /// change.
    pub async fn changed(&mut self) -> bool {
        tokio::time::timeout(self.state.pause(), self.changed.notified()).await.is_ok()
    }

    /// Waits until there was no change for `quiet`, but at most for `most`.
    pub async fn settle(&mut self, quiet: Duration, most: Duration) {
        let settled =
            async { while tokio::time::timeout(quiet, self.changed.notified()).await.is_ok() {} };
        // Files that are written without a pause are read in between.
        drop(tokio::time::timeout(most, settled).await);
    }

    fn make(&self) -> notify::Result<Box<dyn notify::Watcher + Send>> {
        (self.make)(Arc::clone(&self.changed))
    }
}

fn system_watcher(changed: Arc<Notify>) -> notify::Result<Box<dyn notify::Watcher + Send>> {
    let ring = move |event: notify::Result<Event>| {
        // Reads by this program are events as well.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            changed.notify_one();
        }
    };
    let watcher = <RecommendedWatcher as notify::Watcher>::new(ring, notify::Config::default())?;
    Ok(Box::new(watcher))
}

/// Returns whether the directory does not exist.
fn is_absent(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// The time between two looks without an event, for changes that inotify does not report, such as
/// those on the server of a network file system.
const POLL: Duration = Duration::from_secs(10);
/// The same while inotify is not available.
const POLL_WITHOUT_INOTIFY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_change_rings_also_after_the_directory_was_replaced() {
        let parent = TempDir::new().unwrap();
        let directory = parent.path().join("watched");
        std::fs::create_dir(&directory).unwrap();
        let mut watcher = Watcher::new(&directory);
        for file in ["first", "second"] {
            assert_eq!(watcher.arm(), State::Watching);
            std::fs::write(directory.join(file), "").unwrap();
            assert!(watcher.changed().await, "{file}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(watcher.changed().await, "removed");
        watcher.settle(Duration::from_millis(10), Duration::from_secs(10)).await;
        assert_eq!(watcher.arm(), State::Absent);
        std::fs::create_dir(&directory).unwrap();
        assert_eq!(watcher.arm(), State::Watching);
        std::fs::write(directory.join("third"), "").unwrap();
        assert!(watcher.changed().await);
    }

    #[test]
    fn a_refusal_means_polling_until_it_works_and_the_instance_is_kept() {
        let directory = TempDir::new().unwrap();
        let (refuses, made) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let make = {
            let (refuses, made) = (Arc::clone(&refuses), Arc::clone(&made));
            Box::new(move |changed| {
                if refuses.load(Ordering::Relaxed) {
                    return Err(notify::Error::new(ErrorKind::MaxFilesWatch));
                }
                made.fetch_add(1, Ordering::Relaxed);
                system_watcher(changed)
            })
        };
        let mut watcher = Watcher::with(directory.path(), make);
        for _ in 0..3 {
            assert_eq!(watcher.arm(), State::Polling);
            assert_eq!(watcher.state.pause(), Duration::from_secs(1));
        }
        refuses.store(false, Ordering::Relaxed);
        assert_eq!(watcher.arm(), State::Watching);
        assert_eq!(watcher.state.pause(), Duration::from_secs(10));
        refuses.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(watcher.arm(), State::Watching, "the instance is there already");
        }
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }
}
