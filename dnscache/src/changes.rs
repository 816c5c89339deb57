//! Follows the changed names that every replica of kubedns reports, and removes them from the
//! cache.
//!
//! ```text
//! --changes ─▶ source ─┬─ address ────────────────────┐
//!                      └─ host ─▶ forward::hosts ─▶ streams ─▶ one follower for each replica
//!                                                     │            │ lines
//!                  forward: which replicas are asked ◀┘            └─▶ cache
//! ```
//!
//! * `source`, `line`: core. `streams`: seam. `follower`, `metrics`: edges.
//! * An entry is dropped when any replica reports it. A replica that lags reports the change later,
//!   so an entry with its older answer is dropped then.
//! * A replica that is not followed is not asked while another one is. If none is followed, names
//!   of the cluster are stored for a few seconds at most.
//! * A stream goes on from where it ended. If it cannot, or if it does not come back, every name of
//!   the cluster expires and is asked for again.

mod follower;
mod line;
mod metrics;
mod source;
mod streams;

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use follower::Follower;

pub use metrics::Metrics;
pub use source::{Host, Source, canonical};
pub use streams::Streams;

/// What changes are applied to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The replicas.
    pub streams: Arc<Streams>,
}

/// Follows every replica until `stopping`.
pub async fn follow(target: Target, stopping: CancellationToken) -> Result<(), Infallible> {
    let streams = &target.streams;
    let (mut running, mut followers) = (HashSet::new(), JoinSet::new());
    loop {
        let edition = streams.edition();
        for replica in streams.replicas() {
            if running.insert(replica.key) {
                let follower = Follower::new(target.clone(), replica.key, replica.figures);
                followers.spawn(follower.run(stopping.clone()));
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            Some(ended) = followers.join_next() => match ended {
                Ok(key) => {
                    running.remove(&key);
                    streams.forget(key);
                }
                // A bug in a follower ends the program, as it would in a task of its own.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            () = streams.changed(edition) => {}
        }
    }
}
