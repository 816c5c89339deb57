//! How a program ends: on SIGTERM or SIGINT, or because one of its tasks ended; always through a
//! bounded drain.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The error of any task: the tasks of a program have error types of their own.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a program ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A task ended with an error of its own.
    #[error("{task} failed")]
    Failed {
        /// The task's name.
        task: &'static str,
        /// What it said.
        source: Cause,
    },
    /// A task that runs as long as the program came back.
    #[error("{task} ended by itself")]
    Ended {
        /// The task's name.
        task: &'static str,
    },
    /// A task panicked: a bug.
    #[error("a task panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// The tasks of a program: one set, nothing detached, the first that ends ends the program.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<(&'static str, Result<(), Cause>)>,
    stopping: CancellationToken,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the program is told to stop: tasks finish what they have taken on, and
    /// return.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
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

    /// Runs until `stop` resolves or a task ends by itself; then tells the others to stop and waits
    /// for them until
    /// `drain_max` has passed.
    ///
    /// Fails when a task failed, panicked or ended before `stop`.
    pub async fn run(
        mut self,
        stop: impl Future<Output = ()>,
        drain_max: Duration,
    ) -> Result<(), TaskError> {
        let early = tokio::select! {
            () = stop => Ok(()),
            Some(ended) = self.set.join_next() => match ended {
                Ok((task, Ok(()))) => Err(TaskError::Ended { task }),
                Ok((task, Err(source))) => Err(TaskError::Failed { task, source }),
                Err(panic) => Err(TaskError::Panicked(panic)),
            },
        };
        self.stopping.cancel();
        let drain = async { while self.set.join_next().await.is_some() {} };
        if tokio::time::timeout(drain_max, drain).await.is_err() {
            tracing::warn!(tasks = self.set.len(), "drain deadline passed, tasks dropped");
        }
        early
    }
}

/// Resolves at the first SIGTERM or SIGINT.
///
/// Fails, before anything is served, where the handlers cannot be installed.
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
