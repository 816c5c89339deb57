//! Exchanges over TCP: one connection, one query, one reply.
//!
//! Edge. Runs on the program's tokio runtime, so many at once and no more, each within its
//! deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::flights::Ticket;

/// The outcome of an exchange: a whole message, or nothing.
pub(super) type Outcome = (Ticket, Option<Vec<u8>>);

/// The exchanges under way.
pub(super) struct Streams {
    runtime: Handle,
    tasks: JoinSet<()>,
    places: Arc<Semaphore>,
    outcomes: mpsc::Sender<Outcome>,
}

impl Streams {
    /// No exchanges yet, and the channel on which their outcomes come.
    pub fn new(runtime: Handle) -> (Self, mpsc::Receiver<Outcome>) {
        // A place in the channel for each exchange: sending an outcome never waits.
        let (outcomes, receiver) = mpsc::channel(STREAMS_MAX);
        let places = Arc::new(Semaphore::new(STREAMS_MAX));
        (Self { runtime, tasks: JoinSet::new(), places, outcomes }, receiver)
    }

    /// Starts an exchange that ends within `time`; false where too many are under way.
    pub fn dial(
        &mut self,
        ticket: Ticket,
        address: SocketAddr,
        query: &[u8],
        time: Duration,
    ) -> bool {
        while self.tasks.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return false };
        let mut message = Vec::with_capacity(query.len() + 2);
        message.extend_from_slice(&(query.len() as u16).to_be_bytes());
        message.extend_from_slice(query);
        let outcomes = self.outcomes.clone();
        let exchange = async move {
            let reply = tokio::time::timeout(time, exchange(address, &message)).await;
            let reply = match reply {
                Ok(Ok(reply)) => Some(reply),
                Ok(Err(error)) => {
                    tracing::debug!(%address, %error, "exchange over TCP failed");
                    None
                }
                Err(_) => None,
            };
            finish(&outcomes, (ticket, reply), place).await;
        };
        self.tasks.spawn_on(exchange, &self.runtime);
        true
    }
}

async fn finish(outcomes: &mpsc::Sender<Outcome>, outcome: Outcome, place: OwnedSemaphorePermit) {
    // An error means that the forwarder has ended, and with it everyone who waits.
    outcomes.send(outcome).await.unwrap_or_default();
    drop(place);
}

async fn exchange(address: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(message).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

/// Exchanges at once; each may hold a reply of 64 KiB.
const STREAMS_MAX: usize = 256;
