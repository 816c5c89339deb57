//! How a program ends: on SIGTERM or SIGINT, or because one of its tasks ended, but always through
//! a bounded drain.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// The error of any task. The tasks of a program have different error types.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a program ended without a signal.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A task returned an error.
    #[error("{task} failed")]
    Failed {
        /// The task's name.
        task: &'static str,
        /// The error.
        source: Cause,
    },
    /// A task that must run as long as the program returned.
    #[error("{task} ended by itself")]
    Ended {
        /// The task's name.
        task: &'static str,
    },
    /// A task panicked, which is a bug.
    #[error("a task panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// The tasks of a program: one set, without detached tasks. If one task ends, the program ends.
///
/// ```text
/// stop ─▶ leaving ── lameduck ──▶ stopping ── drain ──▶ ending ─▶ done
///         not ready, but serving  tasks finish          those of `spawn_last` end
/// ```
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<(&'static str, Result<(), Cause>)>,
    last: JoinSet<(&'static str, Result<(), Cause>)>,
    lameduck: Duration,
    leaving: CancellationToken,
    stopping: CancellationToken,
    ending: CancellationToken,
}

impl Tasks {
    /// Returns an empty set, of a program that stops serving at once after a signal.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty set, of a program that still serves for `lameduck` after a signal. It is
    /// not ready during that time, so that others can remove it from their lists.
    pub fn with_lameduck(lameduck: Duration) -> Self {
        Self { lameduck, ..Self::default() }
    }

    /// Returns a token that is cancelled as soon as the program must stop. It is not ready from
    /// then on.
    pub fn leaving(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// Returns a token that is cancelled when the program stops serving. Tasks must finish their
    /// work and return.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Returns a token that is cancelled when all other tasks have ended, or have had their time.
    /// The tasks of [`Tasks::spawn_last`] must then return.
    pub fn ending(&self) -> CancellationToken {
        self.ending.clone()
    }

    /// Adds a task under the name that logs and errors use.
    pub fn spawn<E>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: Into<Cause>,
    {
        self.set.spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Does the same as [`Tasks::spawn`], for a task that outlives the others: it must end after
    /// [`Tasks::ending`].
    pub fn spawn_last<E>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: Into<Cause>,
    {
        self.last.spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Runs until `stop` resolves or a task ends by itself. Then stops the other tasks, and waits
    /// for them until `drain_max` has passed.
    ///
    /// Fails if a task failed, panicked or ended too early.
    pub async fn run(
        mut self,
        stop: impl Future<Output = ()>,
        drain_max: Duration,
    ) -> Result<(), TaskError> {
        let mut early = self.watch(stop).await;
        self.leaving.cancel();
        if early.is_ok() && !self.lameduck.is_zero() {
            let seconds = self.lameduck.as_secs();
            tracing::info!(seconds, "not ready any more, answering on");
            early = self.watch(tokio::time::sleep(self.lameduck)).await;
        }
        self.stopping.cancel();
        let end = Instant::now() + drain_max;
        let drain = async { while self.set.join_next().await.is_some() {} };
        if timeout_at(end, drain).await.is_err() {
            tracing::warn!(tasks = self.set.len(), "drain deadline passed, tasks dropped");
        }
        self.ending.cancel();
        let last = async { while self.last.join_next().await.is_some() {} };
        if timeout_at(end + LAST_MAX, last).await.is_err() {
            tracing::warn!(
                tasks = self.last.len(),
                "the last tasks took too long, and are dropped"
            );
        }
        early
    }

    /// Waits for `until`.
    ///
    /// Fails if a task ends earlier.
    async fn watch(&mut self, until: impl Future<Output = ()>) -> Result<(), TaskError> {
        let ended = tokio::select! {
            () = until => return Ok(()),
            Some(ended) = self.set.join_next() => ended,
            Some(ended) = self.last.join_next() => ended,
        };
        Err(match ended {
            Ok((task, Ok(()))) => TaskError::Ended { task },
            Ok((task, Err(source))) => TaskError::Failed { task, source },
            Err(panic) => TaskError::Panicked(panic),
        })
    }
}

/// Resolves at the first SIGTERM or SIGINT.
///
/// Fails, before the program serves, if the handlers cannot be installed.
pub fn signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM received, draining"),
            _ = interrupt.recv() => tracing::info!("SIGINT received, draining"),
        }
    })
}

/// How long the last tasks can take. A UDP thread checks four times a second.
const LAST_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Notes what happens, in order.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<&'static str>>>);

    impl Notes {
        /// A task that ends after `token`.
        async fn task(
            self,
            token: CancellationToken,
            what: &'static str,
        ) -> Result<(), Infallible> {
            token.cancelled().await;
            self.0.lock().unwrap().push(what);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_program_ends_in_stages() {
        for lameduck in [Duration::ZERO, Duration::from_millis(10)] {
            let notes = Notes::default();
            let mut tasks = Tasks::with_lameduck(lameduck);
            tasks.spawn_last("last", notes.clone().task(tasks.ending(), "last"));
            tasks.spawn("server", notes.clone().task(tasks.stopping(), "server"));
            let leaving = tokio::spawn(notes.clone().task(tasks.leaving(), "not ready"));
            tasks.run(async {}, Duration::from_secs(30)).await.unwrap();
            leaving.await.unwrap().unwrap();
            let mut noted = notes.0.lock().unwrap().clone();
            if lameduck.is_zero() {
                noted.retain(|what| *what != "not ready"); // at the same time as others
            }
            let expected: &[_] = if lameduck.is_zero() {
                &["server", "last"]
            } else {
                &["not ready", "server", "last"]
            };
            assert_eq!(noted, expected);
        }
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_ends_the_program_in_every_stage() {
        let never = std::future::pending;
        // When the task ends, and whether it is one of the last.
        for (is_leaving, is_last) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut tasks = Tasks::with_lameduck(Duration::from_secs(3_600));
            let told = tasks.leaving();
            let task = async move {
                if is_leaving {
                    told.cancelled().await;
                }
                Ok::<_, Infallible>(())
            };
            if is_last {
                tasks.spawn_last("a task", task)
            } else {
                tasks.spawn("a task", task)
            }
            let stop = async move {
                if !is_leaving {
                    never().await
                }
            };
            let ended = tasks.run(stop, Duration::from_secs(30)).await.unwrap_err();
            assert_eq!(ended.to_string(), "a task ended by itself");
        }
    }
}
