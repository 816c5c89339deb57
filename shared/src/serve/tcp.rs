//! DNS over TCP (RFC 7766) and TLS (RFC 7858): pipelined, answered out of order, within limits.
//!
//! Edge. One task accepts on all addresses and tracks all connections. Each connection is a task of
//! its own.

mod budget;
mod connection;
mod places;
mod stream;
mod unsent;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Interval, timeout};
use tokio_util::sync::CancellationToken;

use super::Handler;
use super::counters::Event;
use super::tls::Certificate;
use super::udp::{Listener, OPEN_EVERY};
use crate::clock::boot_time;
use crate::wire::UDP_SIZE_MAX;

pub(super) use budget::{Account, Charge, Flight, Told};

use budget::Budget;
use connection::{Accepted, Connection};
use places::Places;
use stream::Stream;

/// The limits for clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// TCP connections in all, over all addresses of the listener.
    pub connections_max: usize,
    /// TCP connections of one client address.
    pub connections_per_client_max: usize,
    /// Queries of one connection that can wait for their answers. If there are more, reading
    /// pauses.
    pub in_flight_max: usize,
    /// Bytes that all connections together can hold for their clients: unanswered input and
    /// unwritten replies.
    pub unsent_bytes_max: usize,
    /// An idle connection is closed after this.
    pub idle_max: Duration,
    /// A message that has begun to arrive, or a reply that has begun to be sent, must be complete
    /// after this.
    pub message_max: Duration,
    /// The largest reply over UDP, in bytes, for clients that accept this size.
    pub udp_size_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_client_max: 1_000,
            in_flight_max: 64,
            unsent_bytes_max: 32 << 20,
            idle_max: Duration::from_secs(10),
            message_max: Duration::from_secs(5),
            udp_size_max: UDP_SIZE_MAX,
        }
    }
}

impl Limits {
    /// Returns `idle_max` in units of 100 ms (RFC 7828 section 3.1).
    pub(super) fn keepalive_tenths(&self) -> u16 {
        u16::try_from(self.idle_max.as_millis() / 100).unwrap_or(u16::MAX)
    }
}

/// A socket on which connections are accepted.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) lane: usize,
    pub(super) socket: TcpListener,
    /// The certificate for clients, if the socket is for TLS.
    pub(super) certificate: Option<Arc<Certificate>>,
}

/// Accepts connections until `stopping`. Then lets open connections finish their queries.
pub(super) async fn serve<H: Handler>(
    doors: Vec<Door>,
    listener: Listener<H>,
    limits: Limits,
    stopping: CancellationToken,
) {
    let lanes: Vec<usize> = doors.iter().map(|door| door.lane).collect();
    let mut turn = tokio::time::interval(TURN);
    let budget = Budget::new(limits.unsent_bytes_max, Arc::clone(&listener.counters));
    let places = Places::new(limits.connections_max, limits.connections_per_client_max);
    let tasks = JoinSet::new();
    let mut hall = Hall { listener, limits, budget, places, tasks, stopping };
    let stopped = hall.stopping.clone();
    while hall.listener.is_waiting() && !stopped.is_cancelled() {
        lanes.iter().for_each(|&lane| hall.listener.counters.turn(lane, boot_time()));
        tokio::time::sleep(OPEN_EVERY).await;
    }
    loop {
        tokio::select! {
            () = stopped.cancelled() => break,
            (door, accepted) = std::future::poll_fn(|context| accept(&doors, context)) => {
                if hall.take(door, accepted).is_err() {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            () = hall.work(&lanes, &mut turn) => {}
        }
    }
    hall.take_last(doors);
    while !hall.tasks.is_empty() {
        hall.work(&lanes, &mut turn).await;
    }
}

/// Accepts the next connection on any of `doors`.
fn accept<'d>(
    doors: &'d [Door],
    context: &mut Context<'_>,
) -> Poll<(&'d Door, io::Result<(TcpStream, SocketAddr)>)> {
    for door in doors {
        if let Poll::Ready(accepted) = door.socket.poll_accept(context) {
            return Poll::Ready((door, accepted));
        }
    }
    Poll::Pending
}

/// The state of the accepting task.
struct Hall<H> {
    listener: Listener<H>,
    limits: Limits,
    budget: Arc<Budget>,
    places: Places,
    tasks: JoinSet<()>,
    stopping: CancellationToken,
}

impl<H: Handler> Hall<H> {
    /// Does one task beside accepting: shows that the lanes run, removes an ended connection, or
    /// makes room.
    async fn work(&mut self, lanes: &[usize], turn: &mut Interval) {
        tokio::select! {
            _ = turn.tick() => {
                lanes.iter().for_each(|&lane| self.listener.counters.turn(lane, boot_time()));
            }
            Some(ended) = self.tasks.join_next_with_id() => {
                self.places.remove(id(ended));
                self.listener.counters.set_tcp_open(self.places.len());
            }
            () = self.budget.wanted() => {
                let ended = self.places.make_room(&self.budget);
                self.listener.counters.add(lanes[0], Event::Evicted, ended as u64);
            }
        }
    }

    /// Serves the connections that the kernel has already accepted, because their clients may have
    /// sent queries. Then closes `doors`.
    fn take_last(&mut self, doors: Vec<Door>) {
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready((door, Ok(accepted))) = accept(&doors, &mut context) {
            self.take(door, Ok(accepted)).unwrap_or_default(); // fails only if accepting did
        }
    }

    /// Serves a connection that was accepted, if there is a place for it.
    ///
    /// Fails if accepting failed.
    fn take(
        &mut self,
        door: &Door,
        accepted: io::Result<(TcpStream, SocketAddr)>,
    ) -> Result<(), ()> {
        let (socket, peer) = accepted.map_err(|error| {
            tracing::warn!(%error, "accepting a connection failed");
        })?;
        let lane = door.lane;
        let counters = &self.listener.counters;
        let (is_admitted, evicted) = self.places.admit(peer.ip());
        counters.add(lane, Event::Evicted, evicted as u64);
        let stream = Stream::new(socket, door.certificate.as_deref());
        let (true, Ok(stream)) = (is_admitted, stream) else {
            counters.add(lane, Event::Cut, 1);
            return Ok(());
        };
        counters.add(lane, Event::Connected, 1);
        let limits = shrunk(self.limits, self.places.free());
        let mut listener = self.listener.clone();
        listener.keepalive_tenths = limits.keepalive_tenths();
        let account = Account::new(Arc::clone(&self.budget), boot_time());
        let accepted = Accepted { stream, peer, lane };
        let connection = Connection::new(accepted, listener, limits, &account);
        let id = self.tasks.spawn(connection.run(self.stopping.clone())).id();
        self.places.insert(id, peer.ip(), account);
        self.listener.counters.set_tcp_open(self.places.len());
        Ok(())
    }
}

/// Returns which connection has ended. A panic is a bug; it ends that connection and is logged.
fn id(ended: Result<(Id, ()), JoinError>) -> Id {
    ended.map_or_else(
        |error| {
            tracing::error!(%error, "a connection's task panicked");
            error.id()
        },
        |(id, ())| id,
    )
}

/// Returns the limits for a new connection. If less than a fifth of the connections is `free`, it
/// can be idle only for a short time.
fn shrunk(limits: Limits, free: usize) -> Limits {
    if free.saturating_sub(1) * 5 < limits.connections_max {
        Limits { idle_max: IDLE_MIN.min(limits.idle_max), ..limits }
    } else {
        limits
    }
}

/// Waits for `finished`, at most `limit`.
pub(super) async fn within(limit: Duration, finished: impl Future<Output = ()>) {
    if timeout(limit, finished).await.is_err() {
        tracing::info!("what was left at the end of the drain was cut");
    }
}

/// The time between two signs of life of the lanes.
const TURN: Duration = Duration::from_secs(1);
/// The pause after a failed accept, for example if no descriptor is left. UDP is still served.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection can be idle if connections run short.
const IDLE_MIN: Duration = Duration::from_millis(200);
/// The longest query. A query with every option that the screen accepts has less than half of this.
/// A client that announces more is cut (RFC 7766 section 10).
const QUERY_MAX: usize = 4_096;
/// If this many bytes wait to be written to a client, its messages are not read, and replies are
/// not queued.
const UNSENT_PAUSE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::serve::counters::Counters;

    #[tokio::test]
    async fn a_connection_gives_its_place_back_however_it_ends() {
        let budget = Budget::new(1, Arc::new(Counters::new([])));
        let mut places = Places::new(1, 1);
        let client = Ipv4Addr::LOCALHOST.into();
        for panics in [false, true] {
            let mut tasks = JoinSet::new();
            let task = async move {
                if panics {
                    // Like a panic, but without a backtrace, which takes seconds on a busy machine.
                    std::panic::resume_unwind(Box::new("a bug, on purpose"));
                }
            };
            let account = Account::new(Arc::clone(&budget), boot_time());
            account.set_idle(None);
            places.insert(tasks.spawn(task).id(), client, account);
            assert_eq!(places.admit(client), (false, 0));
            let ended = tasks.join_next_with_id().await.expect("one task");
            assert_eq!(ended.is_err(), panics);
            places.remove(id(ended));
            assert_eq!((places.len(), places.admit(client)), (0, (true, 0)));
        }
    }
}
