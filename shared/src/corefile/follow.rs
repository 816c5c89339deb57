//! Reads a Corefile again whenever it or one of its imports changes.
//!
//! Edge around the plan. A file that cannot be used is refused as a whole, with the reasons, and
//! the earlier configuration stays in force.
//!
//! ```text
//! inotify, or every second ─▶ Look ─▶ Plan ─▶ the program applies what it can while it runs
//!                                      └▶ State: what is refused, what needs a restart
//! ```

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Merged, Plan};
use super::source::{Loaded, Look};
use crate::ready::Check;
use crate::watcher::Watcher;

/// The state of the Corefile.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Whether there is a Corefile.
    pub is_used: bool,
    /// Why the current file is refused, one line each, with file and line.
    pub refused: Arc<[Arc<str>]>,
    /// The settings that need a restart of the program, one line each.
    pub restarts: Arc<[Arc<str>]>,
    /// How many different contents were applied.
    pub applied: u64,
    /// How many different contents were refused.
    pub refusals: u64,
    /// Whether the file is polled every second because inotify is not available.
    pub polling: bool,
}

impl State {
    /// Returns the line `corefile` of `/readyz?verbose`, if there is a Corefile. A refusal is a
    /// warning.
    pub fn check(&self) -> Option<Check> {
        if !self.is_used {
            return None;
        }
        let kept = (!self.refused.is_empty()).then_some(KEPT);
        let polling = self.polling.then_some(POLLING);
        let reasons = self.refused.iter().map(|it| &**it).take(SHOWN_MAX);
        let restarts = self.restarts.iter().map(|it| &**it).take(SHOWN_MAX);
        let reasons: Vec<&str> = reasons.chain(kept).chain(restarts).chain(polling).collect();
        Some(match &reasons[..] {
            [] => Check::passed(CHECK),
            reasons => Check::warning(CHECK, reasons.join("; ")),
        })
    }
}

/// Applies an accepted plan, with its flags, to a running program. Fails with the reasons why it
/// cannot.
pub type Apply = Box<dyn FnMut(&Plan, &Merged) -> Result<(), Vec<String>> + Send>;

/// Follows the changes of a Corefile.
pub struct Follower {
    loaded: Option<Loaded>,
    apply: Apply,
    state: watch::Sender<State>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("loaded", &self.loaded).finish_non_exhaustive()
    }
}

/// Starts with the configuration in force. Without a Corefile the state never changes.
pub fn open(loaded: Option<Loaded>, apply: Apply) -> (watch::Receiver<State>, Follower) {
    let is_used = loaded.is_some();
    let begin = State { is_used, applied: u64::from(is_used), ..State::default() };
    let (state, receiver) = watch::channel(begin);
    (receiver, Follower { loaded, apply, state })
}

impl Follower {
    /// Applies every change until `stopping`.
    pub async fn run(mut self, stopping: CancellationToken) -> Result<(), Infallible> {
        let Some(loaded) = self.loaded.clone() else {
            stopping.cancelled().await;
            return Ok(());
        };
        loaded.log_conflicts();
        let path = loaded.source.path.clone();
        let mut seen = loaded.look.clone();
        let mut watcher = Watcher::new(&path);
        loop {
            watcher.set_directories(seen.directories());
            // Armed before each look, so that a change after the look is noticed.
            let polling = watcher.arm().is_polling();
            self.state.send_if_modified(|state| {
                std::mem::replace(&mut state.polling, polling) != polling
            });
            let file = path.clone();
            match tokio::task::spawn_blocking(move || Look::new(&file)).await {
                Ok(look) if look != seen => {
                    self.take(&loaded, &look);
                    seen = look;
                    continue; // its imports can be in other directories
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "reading the Corefile panicked"),
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

    /// Applies the plan of `look`, if it can be used.
    fn take(&mut self, loaded: &Loaded, look: &Look) {
        let source = &loaded.source;
        let taken = source.plan(look).and_then(|plan| {
            let merged = plan::merge(&plan, source.program, &source.given);
            (self.apply)(&plan, &merged)?;
            let before = &loaded.merged.arguments;
            Ok(plan::restarts(before, &plan, source.program, &source.given))
        });
        let lines = |lines: &[String]| lines.iter().map(|line| line.as_str().into()).collect();
        self.state.send_modify(|state| match taken {
            Ok(restarts) => {
                tracing::info!(needs_restart = restarts.len(), "corefile applied");
                restarts.iter().for_each(|line| tracing::warn!("corefile: {line}"));
                (state.refused, state.restarts) = (Arc::default(), lines(&restarts));
                state.applied += 1;
            }
            Err(reasons) => {
                reasons.iter().for_each(|line| tracing::warn!("corefile refused: {line}"));
                tracing::warn!("corefile: {KEPT}");
                state.refused = lines(&reasons);
                state.refusals += 1;
            }
        });
    }
}

/// The name of the check.
const CHECK: &str = "corefile";
/// The effect of a refusal.
const KEPT: &str = "the last good configuration stays in force";
/// The reason shown if inotify is missing.
const POLLING: &str = "inotify is not available: changes are looked for every second";
/// How many lines of each kind `/readyz?verbose` lists.
const SHOWN_MAX: usize = 10;
/// How long an editor can take from its first to its last write.
const SETTLE: Duration = Duration::from_millis(50);
