//! Readiness by blockers: each start-up task holds a named blocker, and the program is ready when
//! the last one is dropped. Checks are the lines of `/livez` and `/readyz`.
//!
//! Seam: a watch channel carries the names of held blockers. Independent of tasks and HTTP.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::log::escaped;

/// The blockers that keep the program from being ready. Clones share the state.
#[derive(Clone, Debug)]
pub struct Ready {
    names: Arc<[&'static str]>,
    held: watch::Receiver<Vec<&'static str>>,
}

/// Keeps the program from being ready until it is dropped.
#[derive(Debug)]
pub struct Blocker {
    name: &'static str,
    held: Arc<watch::Sender<Vec<&'static str>>>,
}

/// Returns one blocker per name, in the order of the names, and the view of all of them.
pub fn new(names: impl IntoIterator<Item = &'static str>) -> (Ready, Vec<Blocker>) {
    let names = names.into_iter().collect::<Vec<_>>();
    let (sender, receiver) = watch::channel(names.clone());
    let held = Arc::new(sender);
    let blocker = |&name: &&'static str| Blocker { name, held: Arc::clone(&held) };
    let blockers = names.iter().map(blocker).collect();
    (Ready { names: names.into(), held: receiver }, blockers)
}

impl Ready {
    /// Returns whether every blocker has been dropped.
    pub fn is_ready(&self) -> bool {
        self.held.borrow().is_empty()
    }

    /// Returns the names of the held blockers, in their original order.
    pub fn blockers(&self) -> Vec<&'static str> {
        self.held.borrow().clone()
    }

    /// Returns a check for every name, passed or not yet.
    pub fn checks(&self) -> Vec<Check> {
        let held = self.held.borrow();
        let check = |&name: &&'static str| {
            if held.contains(&name) { Check::failed(name, "not yet") } else { Check::passed(name) }
        };
        self.names.iter().map(check).collect()
    }

    /// Resolves when the last blocker is dropped.
    pub async fn wait(&self) {
        // The last blocker empties the list, and then closes the channel.
        drop(self.held.clone().wait_for(Vec::is_empty).await);
    }
}

impl Blocker {
    /// Returns its name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        self.held.send_modify(|held| {
            if let Some(at) = held.iter().position(|name| *name == self.name) {
                held.remove(at);
            }
        });
    }
}

/// One line of `/livez?verbose` or `/readyz?verbose`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The name of the check.
    pub name: Cow<'static, str>,
    /// The result.
    pub finding: Finding,
}

/// The result of a check, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The check passed.
    Passed,
    /// The operator should look at it, but the program can serve: for example, a configuration was
    /// refused.
    Warning(String),
    /// The program is not alive, or not ready.
    Failed(String),
}

impl Check {
    /// Returns that `name` passed.
    pub fn passed(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), finding: Finding::Passed }
    }

    /// Returns a warning for `name` because of `reason`. It does not affect readiness.
    pub fn warning(name: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), finding: Finding::Warning(escaped(&reason.into()).into_owned()) }
    }

    /// Returns that `name` failed because of `reason`.
    pub fn failed(name: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), finding: Finding::Failed(escaped(&reason.into()).into_owned()) }
    }

    /// Returns a failure after the program received the signal to stop, which cancels `leaving`;
    /// `None` before.
    pub fn shutdown(leaving: &CancellationToken) -> Option<Self> {
        leaving.is_cancelled().then(|| Self::failed("shutdown", "the program was told to stop"))
    }

    /// Returns whether it failed.
    pub fn has_failed(&self) -> bool {
        matches!(self.finding, Finding::Failed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_the_last_blocker_is_dropped() {
        let (ready, mut blockers) = new(["services", "slices"]);
        assert!(!ready.is_ready());
        assert_eq!(blockers[1].name(), "slices");
        drop(blockers.pop());
        assert_eq!(ready.blockers(), ["services"]);
        let checks = [Check::failed("services", "not yet"), Check::passed("slices")];
        assert_eq!(ready.checks(), checks);
        let waiting = tokio::spawn({
            let ready = ready.clone();
            async move { ready.wait().await }
        });
        drop(blockers);
        waiting.await.unwrap();
        assert!(ready.is_ready());
        ready.wait().await;
    }

    #[test]
    fn nothing_to_wait_for_is_ready() {
        assert!(new([]).0.is_ready());
    }
}
