//! Asks the upstream servers the questions that the cache cannot answer.
//!
//! Edge: one thread that waits for questions, sockets, TCP exchanges and deadlines, and turns the
//! events into calls of the `resolver`. The rules are in [`queries`].
//!
//! ```text
//! lanes ── Deferred ──▶ resolver ◀─▶ queries (core) ─▶ query: tries, the next step
//!                        │ ▲          │            ─▶ servers: health, round trips, choice
//!            clients ◀───┘ │          └────────────▶ outcome: what a reply means
//!        waiters, zones    │
//!          (core)          └── udp: servers in the pod one socket each; others one per question
//!                              tcp, tls: connections that are used again, on the program's runtime
//! ```
//!
//! Bounds: 4,096 queries; 32 MiB of waiting questions; for each server 8 connections with up to 32
//! exchanges each. A query needs no task, lock or timer allocation.

pub mod act;
mod events;
mod hosts;
mod message;
mod outcome;
mod probes;
pub mod queries;
mod query;
mod resolver;
mod round_trip;
mod servers;
mod status;
mod table;
mod tcp;
mod tls;
mod udp;
mod waiters;
mod zones;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};
use rustix::io::Errno;
use shared::clock::{Moment, boot_time};
use shared::serve::{Deferred, LEAVE_MAX};
use shared::watchdog::guard;
use shared::wire::ErrorCode;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use act::{Act, TryId, Via};
use queries::{Failure, Question};
use resolver::Resolver;
pub use resolver::{Shared, message_of};
pub use status::{Metrics, Status};
use tcp::{Exchanged, Streams};
pub use tls::TlsFiles;
use udp::{Received, Sockets};

/// Why the forwarder cannot start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No random numbers are available, so queries would be easy to forge.
    #[error("cannot seed the random numbers of query IDs and ports")]
    Random(#[source] rand::rngs::SysError),
    /// No descriptor is left for the wait.
    #[error("cannot wait for sockets")]
    Wait(#[source] io::Error),
    /// No thread can be started.
    #[error("cannot start the forwarding thread")]
    Thread(#[source] io::Error),
    /// The thread ended by itself, which is a bug.
    #[error("the forwarding thread ended by itself")]
    Ended,
}

/// A question in one piece, to be asked again before its entry expires.
type Renewal = Box<[u8]>;

/// A queue for questions whose entries are about to expire.
#[derive(Clone, Debug)]
pub struct Renewer(mpsc::Sender<Renewal>);

impl Renewer {
    /// Returns a renewer, and the receiver of its questions.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Renewal>) {
        let (sender, receiver) = mpsc::channel(RENEWALS_MAX);
        (Self(sender), receiver)
    }

    /// Requests that `question` be asked again soon. Never waits: if too many questions are queued,
    /// this one is dropped, and its entry expires.
    pub fn renew(&self, question: &Question<'_>) {
        // Closed if the program ends, full under load. In both cases the entry is just not renewed.
        self.0.try_send(message::key(question).into()).unwrap_or_default();
    }
}

/// The settings of the sockets.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    /// Ports of this program's listeners. Queries are never sent from them.
    pub reserved_ports: Vec<u16>,
    /// Sockets over UDP to servers outside the pod at the same time; a query that needs one more
    /// gets SERVFAIL.
    pub sockets_max: usize,
    /// The files of TLS to upstreams.
    pub tls: TlsFiles,
}

/// A running forwarder.
#[derive(Debug)]
pub struct Forwarder {
    /// Its state for metrics and health checks.
    pub status: Arc<Status>,
    stop: Stop,
    ended: oneshot::Receiver<()>,
}

/// Ends the thread when it is dropped.
#[derive(Debug)]
struct Stop {
    is_stopping: Arc<AtomicBool>,
    waker: Arc<mio::Waker>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        if let Err(error) = self.waker.wake() {
            tracing::debug!(%error, "the forwarder finds out within a second");
        }
    }
}

/// Starts the forwarding thread, which takes queries and renewals from `channels`. TCP runs on the
/// current tokio runtime.
///
/// Fails if the system has no randomness, descriptor or thread left.
pub fn start(
    shared: Shared,
    channels: (mpsc::Receiver<Deferred>, mpsc::Receiver<Renewal>),
    edge: Edge,
) -> Result<Forwarder, Error> {
    let (queries, renewals) = channels;
    let sockets = Sockets::new(random()?, &edge).map_err(Error::Wait)?;
    let is_stopping = Arc::new(AtomicBool::new(false));
    let stop = Stop { is_stopping: Arc::clone(&is_stopping), waker: sockets.waker() };
    let (streams, outcomes) = Streams::new(Handle::current(), edge.tls);
    let now = boot_time();
    let status = Arc::new(Status::new(now));
    let worker = Worker {
        resolver: Resolver::new(shared, random()?, now),
        waker: Waker::from(Arc::new(Alarm(sockets.waker()))),
        sockets,
        streams,
        queries,
        renewals,
        outcomes,
        acts: Vec::new(),
        batch: Vec::new(),
        status: Arc::clone(&status),
        shown: Moment::default(),
        is_stopping,
    };
    let (end, ended) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name(THREAD.to_owned())
        .spawn(move || {
            let _end = end; // dropped when the thread ends, however it ends
            worker.run();
        })
        .map_err(Error::Thread)?;
    Ok(Forwarder { status, stop, ended })
}

impl Forwarder {
    /// Runs until `stopping` is cancelled and every accepted query is answered. If another process
    /// keeps the sockets of clients, it does not wait for answers longer than [`LEAVE_MAX`].
    ///
    /// Fails if the thread ends by itself.
    pub async fn finished(
        self,
        stopping: CancellationToken,
        are_kept: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let Self { status, stop, mut ended } = self;
        tokio::select! {
            () = stopping.cancelled() => {}
            _ = &mut ended => return Err(Error::Ended),
            never = guard(|| [status.last_turn()], |_| THREAD.to_owned()) => match never {},
        }
        drop(stop);
        let left = async {
            match are_kept() {
                true => tokio::time::sleep(LEAVE_MAX).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = left => {}
            // The channel never carries a value; it closes when the thread ends.
            _ = ended => {}
        }
        Ok(())
    }
}

/// Returns a generator of unpredictable numbers, seeded by the operating system.
fn random() -> Result<Box<dyn FnMut() -> u64 + Send>, Error> {
    let mut rng = StdRng::try_from_rng(&mut SysRng).map_err(Error::Random)?;
    Ok(Box::new(move || rng.next_u64()))
}

/// Ends the thread's wait when a channel has an item.
struct Alarm(Arc<mio::Waker>);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Err(error) = self.0.wake() {
            tracing::error!(%error, "cannot wake the forwarder");
        }
    }
}

/// The state that the thread owns.
struct Worker {
    resolver: Resolver,
    sockets: Sockets,
    streams: Streams,
    queries: mpsc::Receiver<Deferred>,
    renewals: mpsc::Receiver<Renewal>,
    outcomes: mpsc::Receiver<Exchanged>,
    waker: Waker,
    acts: Vec<Act>,
    batch: Vec<Deferred>,
    status: Arc<Status>,
    /// When the status was last updated in full.
    shown: Moment,
    is_stopping: Arc<AtomicBool>,
}

impl Worker {
    /// Runs until the stop flag is set and all work is done.
    fn run(mut self) {
        let mut stopped = None;
        let mut pause = Duration::ZERO;
        loop {
            if let Err(error) = self.sockets.wait(pause) {
                tracing::error!(%error, "waiting for upstreams failed");
                std::thread::sleep(ERROR_PAUSE);
            }
            let now = boot_time();
            self.receive(now);
            let more = self.take_queries(now);
            self.take_outcomes(now);
            self.resolver.tick(now);
            self.act(now);
            self.sockets.flush();
            self.resolver.flush();
            self.show(now);
            if self.is_stopping.load(Ordering::Relaxed) {
                let since = *stopped.get_or_insert(now);
                let idle = self.queries.is_empty() && !self.resolver.is_waited_for();
                let alone = self.queries.is_closed() || now.since(since) > DRAIN_MAX;
                if idle && alone {
                    return;
                }
            }
            pause = match (more || self.sockets.has_more(), self.resolver.next_due(now)) {
                (true, _) => Duration::ZERO,
                (false, Some(due)) => due.since(now).min(TURN_MAX),
                (false, None) => TURN_MAX,
            };
        }
    }

    /// Reads the datagrams that the sockets have received.
    fn receive(&mut self, now: Moment) {
        let Self { sockets, resolver, .. } = self;
        sockets.receive(|via, received| match received {
            // If the question is answered, its socket is closed and must not be read again.
            Received::Datagram(datagram) => !resolver.datagram(via, datagram, now),
            Received::Unreachable => {
                resolver.queries.unreachable(via, now);
                true
            }
        });
        self.act(now);
    }

    /// Takes in clients' queries and renewals. Returns whether there can be more queries.
    fn take_queries(&mut self, now: Moment) -> bool {
        let mut context = Context::from_waker(&self.waker);
        let mut batch = std::mem::take(&mut self.batch);
        // Polled until it is empty, because only then does it register the waker.
        let polled = self.queries.poll_recv_many(&mut context, &mut batch, QUERIES_PER_TURN);
        for deferred in batch.drain(..) {
            self.resolver.take(deferred, now);
        }
        self.batch = batch;
        while let Poll::Ready(Some(key)) = self.renewals.poll_recv(&mut context) {
            self.resolver.renew(&key, now);
        }
        self.act(now);
        matches!(polled, Poll::Ready(count) if count > 0)
    }

    /// Takes in the outcomes of exchanges over TCP.
    fn take_outcomes(&mut self, now: Moment) {
        let mut context = Context::from_waker(&self.waker);
        while let Poll::Ready(Some((one, reply))) = self.outcomes.poll_recv(&mut context) {
            self.resolver.stream(one, reply.as_deref(), now);
        }
        self.act(now);
    }

    /// Runs the actions of the queries, and those that follow from them.
    fn act(&mut self, now: Moment) {
        let mut acts = std::mem::take(&mut self.acts);
        loop {
            self.resolver.queries.swap_acts(&mut acts);
            if acts.is_empty() {
                break;
            }
            for act in acts.drain(..) {
                match act {
                    Act::Send(one) => self.send(one, now),
                    Act::Dial(one) => self.dial(one, now),
                    Act::Close(one) => self.sockets.close(one),
                    Act::End { slot } => self.resolver.end(slot, now),
                    Act::Stale { slot } => self.resolver.serve_stale(slot, now),
                    Act::Health { server } => self.resolver.log_health(server),
                }
            }
        }
        self.acts = acts;
    }

    fn send(&mut self, one: TryId, now: Moment) {
        let queries = &mut self.resolver.queries;
        let Some((server, message)) = queries.message(one) else { return };
        let endpoint = &server.endpoint;
        let (via, sent) = if server.is_local() {
            (Via::Pool(one.server), self.sockets.send_pooled(one.server, endpoint, message))
        } else {
            let via = Via::Own { slot: one.ticket.slot, at: one.at };
            (via, self.sockets.send_own(one, endpoint, message))
        };
        match sent {
            Ok(()) => {}
            Err(error) if is_ours(&error) => queries.fail(one.ticket.slot, NO_SOCKET),
            Err(error) => {
                tracing::debug!(%endpoint, %error, "cannot send to this upstream");
                queries.unreachable(via, now);
            }
        }
    }

    fn dial(&mut self, one: TryId, now: Moment) {
        let queries = &mut self.resolver.queries;
        let time = queries.deadline(one.ticket.slot).since(now);
        let Some((server, message)) = queries.message(one) else { return };
        if !self.streams.dial(one, &server.endpoint, message, time) {
            self.resolver.stream(one, None, now);
        }
    }

    /// Updates the status.
    fn show(&mut self, now: Moment) {
        self.status.turn(now, self.resolver.queries.in_flight());
        if now.since(self.shown) >= TURN_MAX {
            self.shown = now;
            let servers = self.resolver.queries.servers().iter();
            self.status.show(servers.map(|(_, server)| server.clone()).collect());
        }
    }
}

/// Returns whether a socket cannot be opened because this process has no descriptor left.
fn is_ours(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Sockets over UDP to servers outside the pod, if the limit of descriptors allows as many: two for
/// each query that can be under way.
pub const SOCKETS_MAX: usize = 2 * table::QUERIES_MAX;
/// The name of the thread.
const THREAD: &str = "forward";
/// Queries taken in one turn.
const QUERIES_PER_TURN: usize = 256;
/// Renewals that can wait in the queue.
const RENEWALS_MAX: usize = 1_024;
/// The thread runs a turn at least this often.
const TURN_MAX: Duration = Duration::from_secs(1);
/// A wait that fails at once every time must not use a whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// For this no server is blamed.
const NO_SOCKET: Failure =
    Failure::servfail(ErrorCode::Other, "no descriptor left for a socket to an upstream");
/// How long after the stop the lanes can still hand over queries.
const DRAIN_MAX: Duration = Duration::from_millis(4_800);
