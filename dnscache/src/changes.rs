//! Follows the change streams of all replicas of kubedns, and removes changed names from the cache.
//!
//! ```text
//! --changes ─▶ source ─┬─ address ────────────────────┐
//!                      └─ host ─▶ forward::hosts ─▶ streams ─▶ one follower for each replica
//!                                                     │            │ lines
//!                  forward: which replicas are asked ◀┘            └─▶ cache
//! ```
//!
//! * `source`, `line`: core. `streams`: seam. `follower`, `metrics`: edges.
//! * An entry is dropped if any replica reports its name. A replica that lags reports the change
//!   later, so an entry with its older answer is dropped then.
//! * A replica that is not followed must not be asked while another one is followed. If none is
//!   followed, names of the cluster are stored for at most a few seconds.
//! * A stream continues where it ended. If it cannot, or if it is not restored, every name of the
//!   cluster expires and is asked for again.

mod drops;
mod follower;
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

/// The objects to which changes are applied.
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
                // A panic in a follower ends the program, as in a task of its own.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            () = streams.changed(edition) => {}
        }
    }
}
