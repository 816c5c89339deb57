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
mod flags;
mod mmsg;
mod sockets;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{Moment, boot_time};
use crate::wire::{Query, Reply};

pub use counters::{Counters, Event, Place, RCODES, Snapshot, TYPES};
pub use deferred::{Deferred, Outbox};
pub use flags::ListenerFlags;
pub use mmsg::{BATCH, Batch, DATAGRAM_MAX, Datagram, Ends, Inbox, can_join, receive_one};
pub(crate) use sockets::is_missing_ipv6;
pub use sockets::{BindError, Sockets, bind};
pub use tcp::Limits;

use udp::Phase;

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
    phase: Arc<AtomicU8>,
    lanes: Vec<Arc<sockets::Lane>>,
}

/// Datagrams the kernel dropped before we saw them, over all sockets of a listener.
#[derive(Clone, Debug)]
pub struct Overflow(Vec<Weak<sockets::Lane>>);

impl Overflow {
    /// How many so far; sockets that are closed, or of which the kernel reports nothing, count as
    /// none.
    pub fn dropped(&self) -> u64 {
        let open = self.0.iter().filter_map(Weak::upgrade);
        open.map(|lane| mmsg::dropped(&lane.socket).unwrap_or(0)).sum()
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
    let phase = Arc::new(AtomicU8::new(Phase::Serving as u8));
    let first_tcp = sockets.lanes.len();
    for lane in 0..sockets.lanes() {
        counters.turn(lane, boot_time());
    }
    let listener = udp::Listener {
        handler,
        counters: Arc::clone(&counters),
        later: Some(later),
        phase: Arc::clone(&phase),
        keepalive_tenths: limits.keepalive_tenths(),
        udp_size_max: u16::try_from(limits.udp_size_max).unwrap_or(u16::MAX),
    };
    let mut threads = JoinSet::new();
    for (index, lane) in sockets.lanes.iter().enumerate() {
        let (listener, lane) = (listener.clone(), Arc::clone(lane));
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name(format!("dns-{index}"))
            .spawn(move || {
                let _end = end; // dropped when the thread ends, however it ends
                udp::serve(listener, lane, index);
            })
            .map_err(Error::Thread)?;
        let phase = Arc::clone(&phase);
        threads.spawn(async move {
            // Nothing is ever sent: the channel closes when the thread ends.
            let is_ending = || phase.load(Ordering::Relaxed) == Phase::Ending as u8;
            if ended.await.is_err() && is_ending() { Ok(()) } else { Err(Error::Ended) }
        });
    }
    let doors = (first_tcp..).zip(sockets.listeners).map(|(lane, socket)| {
        tokio::net::TcpListener::from_std(socket).map(|socket| (lane, socket))
    });
    let doors = doors.collect::<Result<Vec<_>, _>>().map_err(Error::Tcp)?;
    let mut connections = JoinSet::new();
    connections.spawn(tcp::serve(doors, listener, limits, stopping.clone()));
    Ok(Serving { counters, threads, connections, stopping, phase, lanes: sockets.lanes })
}

impl Serving {
    /// The kernel's drop counters of these sockets.
    pub fn overflow(&self) -> Overflow {
        Overflow(self.lanes.iter().map(Arc::downgrade).collect())
    }

    /// Serves until told to stop; then answers what has been received, lets connections finish, and
    /// ends.
    ///
    /// Fails when a serving thread ended by itself.
    pub async fn finished(self) -> Result<(), Error> {
        self.finished_after(std::future::ready(())).await
    }

    /// As [`Serving::finished`], but goes on answering over UDP until `others` resolves: what can
    /// be answered at once is, the rest fails at once. Then the UDP sockets are read to their ends
    /// and closed, so that a later query gets an error from the kernel. An open socket always has a
    /// reader.
    pub async fn finished_after(mut self, others: impl Future<Output = ()>) -> Result<(), Error> {
        tokio::select! {
            () = self.stopping.cancelled() => {}
            Some(ended) = self.threads.join_next() => return ended.unwrap_or(Err(Error::Ended)),
        }
        self.phase.store(Phase::Draining as u8, Ordering::Relaxed);
        let drained = async {
            while self.connections.join_next().await.is_some() {}
            while self.is_waited_for() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tcp::within(DRAIN_MAX, drained).await;
        others.await;
        self.lanes.clear(); // each thread is the last owner of its socket
        self.phase.store(Phase::Ending as u8, Ordering::Relaxed);
        while let Some(ended) = self.threads.join_next().await {
            ended.unwrap_or(Err(Error::Ended))?;
        }
        Ok(())
    }

    /// Whether a query over UDP waits for its answer: it holds the socket that the reply leaves
    /// from. The thread and we hold it too.
    fn is_waited_for(&self) -> bool {
        self.lanes.iter().any(|lane| Arc::strong_count(lane) > 2)
    }
}

/// How long connections and queries that were put off may take to finish at the end.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// How often is looked whether queries still wait at the end.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
