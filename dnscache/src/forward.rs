//! Questions that the cache cannot answer, asked of the servers that can.
//!
//! Edge: one thread that waits for queries, sockets, TCP exchanges and deadlines, and turns what
//! comes into calls of the `desk`. The rules are in [`flights`].
//!
//! ```text
//! lanes ── Deferred ──▶ desk ◀──▶ flights (core: one per question, tries, servers)
//!                        │ ▲
//!            clients ◀───┘ └── sockets: local servers one each, in batches; others one per try
//!                              streams: TCP, on the program's runtime
//! ```
//!
//! Bounds: 4,096 flights, a socket each; 65,536 waiting queries; 256 TCP exchanges. No task, lock
//! or allocation of a timer per query.

mod board;
mod desk;
pub mod flights;
mod hosts;
mod message;
mod probes;
mod servers;
mod sockets;
mod streams;
mod table;
mod tries;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};
use rustix::io::Errno;
use shared::clock::Moment;
use shared::serve::{Deferred, boot_time};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use board::{Board, Metrics, Upstream};
use desk::Desk;
pub use desk::Shared;
use flights::{Act, Question, Ticket, Via};
use sockets::{Received, Sockets};
use streams::{Outcome, Streams};

/// Why the forwarder cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No random numbers: queries would be easy to forge.
    #[error("cannot seed the random numbers of query IDs and ports")]
    Random(#[source] rand::rngs::SysError),
    /// No descriptor for waiting.
    #[error("cannot wait for sockets")]
    Wait(#[source] io::Error),
    /// No thread.
    #[error("cannot start the forwarding thread")]
    Thread(#[source] io::Error),
    /// The thread ended by itself: a bug.
    #[error("the forwarding thread ended by itself")]
    Ended,
}

/// A question in one piece: to be asked anew for whoever asks next.
type Renewal = Box<[u8]>;

/// Where questions are put whose entries are about to expire.
#[derive(Clone, Debug)]
pub struct Renewer(mpsc::Sender<Renewal>);

impl Renewer {
    /// One that passes questions on by the receiver.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Renewal>) {
        let (sender, receiver) = mpsc::channel(RENEWALS_MAX);
        (Self(sender), receiver)
    }

    /// Has `question` asked anew soon. Never waits: where too many are put already, nothing is
    /// done, and the entry expires.
    pub fn renew(&self, question: &Question<'_>) {
        let mut key = Vec::new();
        message::write_key(question, &mut key);
        // Closed at the end of the program, full under load: either way it is only not renewed.
        self.0.try_send(key.into()).unwrap_or_default();
    }
}

/// The forwarder at work.
#[derive(Debug)]
pub struct Forwarder {
    /// What people see of it.
    pub board: Arc<Board>,
    stop: Stop,
    ended: oneshot::Receiver<()>,
}

/// Tells the thread to end when it is dropped.
#[derive(Debug)]
struct Stop {
    told: Arc<AtomicBool>,
    waker: Arc<mio::Waker>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.told.store(true, Ordering::Relaxed);
        if let Err(error) = self.waker.wake() {
            tracing::debug!(%error, "the forwarder finds out within a second");
        }
    }
}

/// Starts the forwarding thread on the queries and renewals that come by `channels`; TCP goes over
/// the current tokio runtime.
///
/// Fails when the system has no randomness, descriptor or thread left.
pub fn start(
    shared: Shared,
    channels: (mpsc::Receiver<Deferred>, mpsc::Receiver<Renewal>),
) -> Result<Forwarder, Error> {
    let (queries, renewals) = channels;
    let sockets = Sockets::new(random()?).map_err(Error::Wait)?;
    let told = Arc::new(AtomicBool::new(false));
    let stop = Stop { told: Arc::clone(&told), waker: sockets.waker() };
    let (streams, outcomes) = Streams::new(Handle::current());
    let now = boot_time();
    let board = Arc::new(Board::new(now));
    let worker = Worker {
        desk: Desk::new(shared, random()?, now),
        waker: Waker::from(Arc::new(Alarm(sockets.waker()))),
        sockets,
        streams,
        queries,
        renewals,
        outcomes,
        acts: Vec::new(),
        batch: Vec::new(),
        board: Arc::clone(&board),
        shown: Moment::default(),
        told,
    };
    let (end, ended) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("forward".to_owned())
        .spawn(move || {
            let _end = end; // dropped when the thread ends, however it ends
            worker.run();
        })
        .map_err(Error::Thread)?;
    Ok(Forwarder { board, stop, ended })
}

impl Forwarder {
    /// Forwards until told to stop and everything taken on is answered.
    ///
    /// Fails when the thread ends by itself.
    pub async fn finished(self, stopping: CancellationToken) -> Result<(), Error> {
        let Self { stop, mut ended, .. } = self;
        tokio::select! {
            () = stopping.cancelled() => {}
            _ = &mut ended => return Err(Error::Ended),
        }
        drop(stop);
        // Nothing is ever sent: the channel closes when the thread ends.
        ended.await.unwrap_or_default();
        Ok(())
    }
}

/// Unpredictable numbers, seeded by the operating system.
fn random() -> Result<Box<dyn FnMut() -> u64 + Send>, Error> {
    let mut rng = StdRng::try_from_rng(&mut SysRng).map_err(Error::Random)?;
    Ok(Box::new(move || rng.next_u64()))
}

/// Ends the thread's wait when a channel has something.
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

/// Everything that the thread owns.
struct Worker {
    desk: Desk,
    sockets: Sockets,
    streams: Streams,
    queries: mpsc::Receiver<Deferred>,
    renewals: mpsc::Receiver<Renewal>,
    outcomes: mpsc::Receiver<Outcome>,
    waker: Waker,
    acts: Vec<Act>,
    batch: Vec<Deferred>,
    board: Arc<Board>,
    /// When the board was last renewed in full.
    shown: Moment,
    told: Arc<AtomicBool>,
}

impl Worker {
    /// Turns until told to stop and done.
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
            self.desk.tick(now);
            self.act(now);
            self.sockets.flush();
            self.desk.flush();
            self.show(now);
            if self.told.load(Ordering::Relaxed) {
                let since = *stopped.get_or_insert(now);
                let idle = self.queries.is_empty() && !self.desk.is_waited_for();
                let alone = self.queries.is_closed() || now.since(since) > DRAIN_MAX;
                if idle && alone {
                    return;
                }
            }
            pause = match (more || self.sockets.has_more(), self.desk.next_due()) {
                (true, _) => Duration::ZERO,
                (false, Some(due)) => due.since(now).min(TURN_MAX),
                (false, None) => TURN_MAX,
            };
        }
    }

    /// Reads what the sockets have.
    fn receive(&mut self, now: Moment) {
        let Self { sockets, desk, .. } = self;
        sockets.receive(|via, received| match received {
            // What a socket of its own was opened for has come: it is closed, not read again.
            Received::Datagram(message) => !desk.datagram(via, message, now),
            Received::Unreachable => {
                desk.unreachable(via, now);
                true
            }
        });
        self.act(now);
    }

    /// Takes clients' queries and renewals in; yields whether there may be more queries.
    fn take_queries(&mut self, now: Moment) -> bool {
        let mut context = Context::from_waker(&self.waker);
        let mut batch = std::mem::take(&mut self.batch);
        // Polled until it has nothing: only then does the waker ring.
        let polled = self.queries.poll_recv_many(&mut context, &mut batch, QUERIES_PER_TURN);
        for deferred in batch.drain(..) {
            self.desk.take(deferred, now);
        }
        self.batch = batch;
        while let Poll::Ready(Some(key)) = self.renewals.poll_recv(&mut context) {
            self.desk.renew(&key, now);
        }
        self.act(now);
        matches!(polled, Poll::Ready(count) if count > 0)
    }

    /// Takes the outcomes of exchanges over TCP in.
    fn take_outcomes(&mut self, now: Moment) {
        let mut context = Context::from_waker(&self.waker);
        while let Poll::Ready(Some((ticket, reply))) = self.outcomes.poll_recv(&mut context) {
            self.desk.stream(ticket, reply.as_deref(), now);
        }
        self.act(now);
    }

    /// Does what the flights want done, and what follows from that.
    fn act(&mut self, now: Moment) {
        let mut acts = std::mem::take(&mut self.acts);
        loop {
            self.desk.swap_acts(&mut acts);
            if acts.is_empty() {
                break;
            }
            for act in acts.drain(..) {
                match act {
                    Act::Send { ticket, server } => self.send(ticket, server, now),
                    Act::Dial { ticket, server, deadline } => {
                        let address = self.desk.servers().get(server).address;
                        let time = deadline.since(now);
                        let Some(slot) = self.desk.slot(ticket) else { continue };
                        let query = self.desk.message(slot);
                        if !self.streams.dial(ticket, address, query, time) {
                            self.desk.stream(ticket, None, now);
                        }
                    }
                    Act::Close { slot } => self.sockets.close(slot),
                    Act::Fail { slot } => self.desk.fail(slot, now),
                }
            }
        }
        self.acts = acts;
    }

    fn send(&mut self, ticket: Ticket, server: u16, now: Moment) {
        let Some(slot) = self.desk.slot(ticket) else { return };
        let upstream = self.desk.servers().get(server);
        let (address, local) = (upstream.address, upstream.is_local());
        let message = self.desk.message(slot);
        let (via, sent) = if local {
            (Via::Pool(server), self.sockets.send_pooled(server, address, message))
        } else {
            (Via::Own(slot), self.sockets.send_own(slot, address, message))
        };
        match sent {
            Ok(()) => {}
            Err(error) if is_ours(&error) => self.desk.no_socket(slot),
            Err(error) => {
                tracing::debug!(%address, %error, "cannot send to this upstream");
                self.desk.unreachable(via, now);
            }
        }
    }

    /// Renews what people see.
    fn show(&mut self, now: Moment) {
        self.board.turn(now, self.desk.in_flight());
        if now.since(self.shown) >= TURN_MAX {
            self.shown = now;
            self.board.show(self.desk.servers().iter().map(|(_, server)| server.into()).collect());
        }
    }
}

/// Whether we, and not the upstream, are why a socket cannot be had: no descriptor left.
fn is_ours(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Queries taken in one turn.
const QUERIES_PER_TURN: usize = 256;
/// Renewals that may wait for their turn.
const RENEWALS_MAX: usize = 1_024;
/// The thread comes round at least this often.
const TURN_MAX: Duration = Duration::from_secs(1);
/// A wait that fails at once every time must not take a whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// How long after the stop lanes may still hand queries over.
const DRAIN_MAX: Duration = Duration::from_secs(4);
