//! Who serves HTTP: the thread of the program, or one of its own if thousands may read `/changes`.
//!
//! Edge.

use std::io;

use axum::Router;
use shared::http::Listener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::changes::{Pacer, pace};

/// Why HTTP is not served any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No thread.
    #[error("cannot start the thread for HTTP")]
    Thread(#[source] io::Error),
    /// No runtime for the thread, or the socket cannot be used there.
    #[error("cannot serve HTTP on a thread of its own")]
    Runtime(#[source] io::Error),
    /// The thread ended by itself: a bug.
    #[error("the thread for HTTP ended by itself")]
    Ended,
}

/// Serves `router` on `listener`, and readers of changes with `pacer`, until `stopping`.
///
/// To write a chunk to thousands of readers takes as long as a few hundred changes of the cluster.
/// So readers get a thread of their own if there may be many of them. With few readers one thread
/// needs less memory.
pub async fn serve(
    listener: Listener,
    router: Router,
    pacer: Pacer,
    stopping: CancellationToken,
) -> Result<(), Error> {
    if pacer.readers_max() <= READERS_BESIDE_MAX {
        both(listener, router, pacer, stopping).await;
        return Ok(());
    }
    let (end, ended) = oneshot::channel::<io::Result<()>>();
    std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || {
            let done = apart(listener, router, pacer, stopping);
            // The program waits for it, or has ended already.
            drop(end.send(done));
        })
        .map_err(Error::Thread)?;
    ended.await.map_err(|_| Error::Ended)?.map_err(Error::Runtime)
}

fn apart(
    listener: Listener,
    router: Router,
    pacer: Pacer,
    stopping: CancellationToken,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        both(listener.here()?, router, pacer, stopping).await;
        Ok(())
    })
}

async fn both(listener: Listener, router: Router, pacer: Pacer, stopping: CancellationToken) {
    let serving = shared::http::serve(listener, router, stopping.clone());
    // Neither fails.
    let (Ok(()), Ok(())) = tokio::join!(serving, pace(pacer, stopping));
}

/// So many readers cost the other work of a thread less than a millisecond for each chunk.
const READERS_BESIDE_MAX: usize = 200;
