//! The only DNS listener, used by kubedns and dnscache alike.
//!
//! Edge. Reads datagrams and streams, screens them, calls one synchronous [`Handler`], writes
//! replies. Holds no rule of DNS beyond [`crate::wire`]'s.
//!
//! ```text
//! UDP  one thread per socket, sockets shared by SO_REUSEPORT:
//!      recvmmsg (<= 16) ─▶ screen ─▶ handler ─▶ sendmmsg
//! TCP  tokio: length-prefixed, pipelined,  └─ Later ─▶ bounded channel of Deferred
//!      answered as answers come
//! ```

mod counters;
mod deferred;
mod mmsg;
mod sockets;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::wire::{Query, Reply};

pub use counters::{Counters, Event, Place, RCODES, Snapshot, TYPES};
pub use deferred::{Deferred, Outbox};
pub use mmsg::{
    BATCH, Batch, DATAGRAM_MAX, Datagram, Ends, Inbox, boot_time, can_join, receive_one,
};
pub(crate) use sockets::is_missing_ipv6;
pub use sockets::{BindError, Sockets, bind};
pub use tcp::Limits;

/// What is known about a query beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// When its batch was read.
    pub now: Moment,
    /// Who asked.
    pub peer: SocketAddr,
    /// Which serving lane reads it: an index below [`Sockets::lanes`], for counters without
    /// contention.
    pub lane: usize,
}

/// What a handler says about a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The reply is written: send it.
    Send,
    /// It needs something slow: put the query on the channel of [`Deferred`]; the written reply is
    /// thrown away.
    Later,
    /// Nothing is sent.
    Drop,
}

/// Answers queries at once, or says that it cannot. Called by every serving thread at the same
/// time.
pub trait Handler: Send + Sync + 'static {
    /// Writes the reply to `query`, which has its question and flags already, or asks for more
    /// time. Never waits.
    fn answer(&self, query: &Query<'_>, asked: &Asked, reply: &mut Reply<'_>) -> Verdict;
}

/// Why a listener ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A serving thread could not be started.
    #[error("cannot start a serving thread")]
    Thread(#[source] std::io::Error),
    /// A TCP socket could not be handed to the runtime.
    #[error("cannot serve TCP")]
    Tcp(#[source] std::io::Error),
    /// A serving thread ended by itself: a bug.
    #[error("a serving thread ended by itself")]
    Ended,
}

/// A listener at work.
#[derive(Debug)]
pub struct Serving {
    /// What it counts, and whether its threads come round.
    pub counters: Arc<Counters>,
    threads: JoinSet<Result<(), Error>>,
    connections: JoinSet<()>,
    stopping: CancellationToken,
    stopped: Arc<AtomicBool>,
    lanes: Vec<Arc<sockets::Lane>>,
}

/// Datagrams the kernel dropped before we saw them, over all sockets of a listener.
#[derive(Clone, Debug)]
pub struct Overflow(Vec<Arc<sockets::Lane>>);

impl Overflow {
    /// How many so far; sockets the kernel does not tell about count as none.
    pub fn dropped(&self) -> u64 {
        self.0.iter().map(|lane| mmsg::dropped(&lane.socket).unwrap_or(0)).sum()
    }
}

/// Starts serving `sockets`: a thread per UDP socket, TCP on the current tokio runtime.
///
/// Queries that `handler` calls [`Verdict::Later`] go to `later`; where that is full or closed the
/// client gets SERVFAIL. Fails when the system has no thread or descriptor left.
pub fn dns<H: Handler>(
    sockets: Sockets,
    limits: Limits,
    stopping: CancellationToken,
    handler: Arc<H>,
    later: mpsc::Sender<Deferred>,
) -> Result<Serving, Error> {
    let counters = Arc::new(Counters::new(sockets.places()));
    let stopped = Arc::new(AtomicBool::new(false));
    let first_tcp = sockets.lanes.len();
    for lane in 0..sockets.lanes() {
        counters.turn(lane, boot_time());
    }
    let listener = udp::Listener {
        handler,
        counters: Arc::clone(&counters),
        later,
        stopping: Arc::clone(&stopped),
        keepalive_tenths: limits.keepalive_tenths(),
    };
    let mut threads = JoinSet::new();
    for (index, lane) in sockets.lanes.iter().enumerate() {
        let (listener, lane) = (listener.clone(), Arc::clone(lane));
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name(format!("dns-{index}"))
            .spawn(move || {
                let _end = end; // dropped when the thread ends, however it ends
                udp::serve(&listener, &lane, index);
            })
            .map_err(Error::Thread)?;
        let stopped = Arc::clone(&stopped);
        threads.spawn(async move {
            // Nothing is ever sent: the channel closes when the thread ends.
            if ended.await.is_err() && stopped.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err(Error::Ended)
            }
        });
    }
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(limits.connections_max));
    for (lane, socket) in (first_tcp..).zip(sockets.listeners) {
        let socket = tokio::net::TcpListener::from_std(socket).map_err(Error::Tcp)?;
        connections.spawn(tcp::serve(
            socket,
            listener.clone(),
            (limits, Arc::clone(&places)),
            lane,
            stopping.clone(),
        ));
    }
    Ok(Serving { counters, threads, connections, stopping, stopped, lanes: sockets.lanes })
}

impl Serving {
    /// The kernel's drop counters of these sockets.
    pub fn overflow(&self) -> Overflow {
        Overflow(self.lanes.clone())
    }

    /// Serves until told to stop; then answers what has been received, lets connections finish, and
    /// ends.
    ///
    /// Fails when a serving thread ended by itself.
    pub async fn finished(mut self) -> Result<(), Error> {
        tokio::select! {
            () = self.stopping.cancelled() => {}
            Some(ended) = self.threads.join_next() => return ended.unwrap_or(Err(Error::Ended)),
        }
        self.stopped.store(true, Ordering::Relaxed);
        let connections = async { while self.connections.join_next().await.is_some() {} };
        tcp::within(DRAIN_TCP_MAX, connections).await;
        while let Some(ended) = self.threads.join_next().await {
            ended.unwrap_or(Err(Error::Ended))?;
        }
        Ok(())
    }
}

/// How long connections may take to finish at the end.
const DRAIN_TCP_MAX: Duration = Duration::from_secs(3);
