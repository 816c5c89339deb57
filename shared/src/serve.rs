//! The only DNS listener, used by kubedns and dnscache alike.
//!
//! Edge. Reads datagrams and streams, screens them, calls one synchronous [`Handler`], writes
//! replies. Applies no rules of DNS except those of [`crate::wire`].
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
mod kept;
mod mmsg;
mod sockets;
mod tcp;
mod tls;
mod udp;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{Moment, boot_time};
use crate::watchdog;
use crate::wire::{Query, Reply};

pub use counters::{Counters, Event, Place, Snapshot, rcode_labels, type_labels};
pub use deferred::{Deferred, Outbox};
pub use flags::ListenerFlags;
pub use mmsg::{BATCH, Batch, DATAGRAM_MAX, Datagram, Ends, Inbox, can_join, receive_one};
pub use sockets::{BindError, Sockets, bind};
pub(crate) use sockets::{bind_beside, is_missing_ipv6};
pub use tcp::Limits;
pub use tls::{Certificate, CertificateError};

use udp::Phase;

/// The context of a query.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// When its batch was read.
    pub now: Moment,
    /// The address of the client.
    pub peer: SocketAddr,
    /// The serving lane that reads it: an index below [`Sockets::lanes`], for counters without
    /// contention.
    pub lane: usize,
}

/// The result of a handler for a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The reply is written and must be sent.
    Send,
    /// The query needs a slow operation. It must be sent to the channel of [`Deferred`]; the
    /// written reply is discarded.
    Later,
    /// The query must not be answered.
    Drop,
}

/// Answers queries at once, or defers them. All serving threads call it concurrently.
pub trait Handler: Send + Sync + 'static {
    /// Writes the reply to `query`, which already has its question and flags, or defers it. Must
    /// never wait.
    fn answer(&self, query: &Query<'_>, asked: &Asked, reply: &mut Reply<'_>) -> Verdict;
}

/// Why a listener ended too early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A serving thread could not be started.
    #[error("cannot start a serving thread")]
    Thread(#[source] std::io::Error),
    /// A TCP socket could not be handed to the runtime.
    #[error("cannot serve TCP")]
    Tcp(#[source] std::io::Error),
    /// A serving thread ended by itself, which is a bug.
    #[error("a serving thread ended by itself")]
    Ended,
}

/// A running listener.
#[derive(Debug)]
pub struct Serving {
    /// Its counters, and whether its threads run.
    pub counters: Arc<Counters>,
    threads: JoinSet<Result<(), Error>>,
    connections: JoinSet<()>,
    stopping: CancellationToken,
    phase: Arc<AtomicU8>,
    lanes: Vec<Arc<sockets::Lane>>,
}

/// Datagrams that the kernel dropped before they were read, over all sockets of a listener.
#[derive(Clone, Debug)]
pub struct Overflow(Vec<Weak<sockets::Lane>>);

impl Overflow {
    /// Returns how many were dropped so far. Sockets that are closed, or for which the kernel has
    /// no count, count as 0.
    pub fn dropped(&self) -> u64 {
        let open = self.0.iter().filter_map(Weak::upgrade);
        open.map(|lane| mmsg::dropped(&lane.socket).unwrap_or(0)).sum()
    }
}

/// Opens a listener whose sockets were held.
#[derive(Clone, Debug)]
pub struct Opener(Arc<AtomicU8>);

impl Opener {
    /// Starts to answer queries. Has no effect after the first time.
    pub fn open(&self) {
        let (from, to) = (Phase::Waiting as u8, Phase::Serving as u8);
        // Fails if it is open, or if the end has begun.
        let _ = self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Starts serving `sockets`: a thread per UDP socket, TCP on the current tokio runtime.
///
/// Queries for which `handler` returns [`Verdict::Later`] are sent to `later`. If that is full or
/// closed, the client gets SERVFAIL. Fails if the system has no thread or descriptor left.
pub fn dns<H: Handler>(
    sockets: Sockets,
    limits: Limits,
    stopping: CancellationToken,
    handler: Arc<H>,
    later: mpsc::Sender<Deferred>,
) -> Result<Serving, Error> {
    let counters = Arc::new(Counters::new(sockets.places()));
    let phase = if sockets.is_held { Phase::Waiting } else { Phase::Serving };
    let phase = Arc::new(AtomicU8::new(phase as u8));
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
            .name(thread(index))
            .spawn(move || {
                let _end = end; // dropped when the thread ends, however it ends
                udp::serve(listener, lane, index);
            })
            .map_err(Error::Thread)?;
        let phase = Arc::clone(&phase);
        threads.spawn(async move {
            // The channel never carries a value; it closes when the thread ends.
            let is_over = || matches!(Phase::of(&phase), Phase::Ending | Phase::Left);
            if ended.await.is_err() && is_over() { Ok(()) } else { Err(Error::Ended) }
        });
    }
    let plain = sockets.listeners.into_iter().map(|socket| (socket, None));
    let certificate = sockets.certificate;
    let encrypted = sockets.encrypted.into_iter().map(|socket| (socket, certificate.clone()));
    let doors = (first_tcp..).zip(plain.chain(encrypted)).map(|(lane, (socket, certificate))| {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        Ok(tcp::Door { lane, socket, certificate })
    });
    let doors = doors.collect::<Result<Vec<_>, _>>().map_err(Error::Tcp)?;
    let mut connections = JoinSet::new();
    connections.spawn(tcp::serve(doors, listener, limits, stopping.clone()));
    if let Some(certificate) = certificate {
        connections.spawn(certificate.run(stopping.clone()));
    }
    Ok(Serving { counters, threads, connections, stopping, phase, lanes: sockets.lanes })
}

impl Serving {
    /// Returns what opens the listener, if its sockets were held.
    pub fn opener(&self) -> Opener {
        Opener(Arc::clone(&self.phase))
    }

    /// Returns the kernel's drop counters of these sockets.
    pub fn overflow(&self) -> Overflow {
        Overflow(self.lanes.iter().map(Arc::downgrade).collect())
    }

    /// Serves until it must stop. Then answers the received queries, lets connections finish, and
    /// ends.
    ///
    /// Fails if a serving thread ends by itself.
    pub async fn finished(self) -> Result<(), Error> {
        self.finished_after(std::future::ready(())).await
    }

    /// Does the same as [`Serving::finished`], but still answers over UDP until `others` resolves:
    /// queries that need a slow operation fail at once. Then the UDP sockets are read to their ends
    /// and closed, so that a later query gets an error from the kernel. An open socket always has a
    /// reader.
    pub async fn finished_after(self, others: impl Future<Output = ()>) -> Result<(), Error> {
        self.left_after(|| false, others).await
    }

    /// Does the same as [`Serving::finished_after`], but if another process keeps the sockets,
    /// queries that arrive after the stop are not read: the program that starts next answers them,
    /// also those that need a slow operation. If `are_kept` returns `false` when `others` resolves,
    /// these queries are answered as far as that is possible at once.
    pub async fn left_after(
        mut self,
        are_kept: impl Fn() -> bool,
        others: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let turns = || self.counters.turns(self.lanes.len());
        tokio::select! {
            () = self.stopping.cancelled() => {}
            Some(ended) = self.threads.join_next() => return ended.unwrap_or(Err(Error::Ended)),
            never = watchdog::guard(turns, thread) => match never {},
        }
        let enter = |phase: Phase| self.phase.store(phase as u8, Ordering::Relaxed);
        let (phase, drain_max) = match are_kept() {
            true => (Phase::Leaving, LEAVE_MAX),
            false => (Phase::Draining, DRAIN_MAX),
        };
        enter(phase);
        let drained = async {
            while self.connections.join_next().await.is_some() {}
            while is_waited_for(&self.lanes) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tcp::within(drain_max, drained).await;
        others.await;
        self.lanes.clear(); // each thread is the last owner of its socket
        enter(if are_kept() { Phase::Left } else { Phase::Ending });
        while let Some(ended) = self.threads.join_next().await {
            ended.unwrap_or(Err(Error::Ended))?;
        }
        Ok(())
    }
}

/// Returns the name of the thread that serves a lane.
fn thread(lane: usize) -> String {
    format!("dns-{lane}")
}

/// Returns whether a query over UDP waits for its answer. Such a query holds the socket from which
/// the reply must be sent, beside the thread and the listener.
fn is_waited_for(lanes: &[Arc<sockets::Lane>]) -> bool {
    lanes.iter().any(|lane| Arc::strong_count(lane) > 2)
}

/// How long connections and deferred queries can take to finish if another process keeps the
/// sockets. No query is answered meanwhile, and after it a client repeats a query that was in
/// flight.
pub const LEAVE_MAX: Duration = Duration::from_millis(500);
/// How long connections and deferred queries can take to finish at the end.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// The time between two checks for waiting queries at the end.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
