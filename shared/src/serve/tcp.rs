//! DNS over TCP (RFC 7766): pipelined, answered as answers come, within limits.
//!
//! Edge. One task per connection; while it idles it holds no buffer.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::counters::Event;
use super::deferred::Deferred;
use super::mmsg::boot_time;
use super::udp::{Listener, Response};
use super::{Asked, Handler};
use crate::wire::{MESSAGE_MAX, NameBuffer, Transport};

/// What TCP clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all, over all addresses of the listener.
    pub connections_max: usize,
    /// Connections of one client address.
    pub connections_per_client_max: usize,
    /// Queries of one connection that wait for their answers; reading pauses beyond.
    pub in_flight_max: usize,
    /// A connection with nothing to do is closed after this.
    pub idle_max: Duration,
    /// A message that has begun to arrive, or a reply that has begun to leave, is done after this.
    pub message_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_client_max: 128,
            in_flight_max: 64,
            idle_max: Duration::from_secs(10),
            message_max: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// `idle_max` in units of 100 ms (RFC 7828 section 3.1).
    pub(super) fn keepalive_tenths(&self) -> u16 {
        u16::try_from(self.idle_max.as_millis() / 100).unwrap_or(u16::MAX)
    }
}

/// Accepts connections of one address, each in one of `places`, until `stopping`, then lets those
/// open finish what they asked.
pub(super) async fn serve<H: Handler>(
    socket: TcpListener,
    listener: Listener<H>,
    (limits, places): (Limits, Arc<Semaphore>),
    lane: usize,
    stopping: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut clients = HashMap::<IpAddr, usize>::new();
    let mut turn = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            _ = turn.tick() => listener.counters.turn(lane, boot_time()),
            Some(ended) = connections.join_next() => forget(&mut clients, ended),
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    let open = clients.get(&peer.ip()).copied().unwrap_or(0);
                    let place = Arc::clone(&places).try_acquire_owned().ok();
                    let Some(place) = place.filter(|_| open < limits.connections_per_client_max)
                    else {
                        listener.counters.add(lane, Event::Cut, 1);
                        continue;
                    };
                    clients.insert(peer.ip(), open + 1);
                    listener.counters.add(lane, Event::Connected, 1);
                    let limits = shrunk(limits, places.available_permits());
                    let mut listener = listener.clone();
                    listener.keepalive_tenths = limits.keepalive_tenths();
                    let connection = Connection::new(stream, peer, listener, limits, lane);
                    connections.spawn(connection.run(stopping.clone(), place));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Takes a connection that ended out of its client's count.
fn forget(clients: &mut HashMap<IpAddr, usize>, ended: Result<IpAddr, tokio::task::JoinError>) {
    // A connection that panicked keeps its place until the client has no other; it is a bug, and
    // logged as one.
    match ended {
        Ok(address) => {
            if let Some(open) = clients.get_mut(&address) {
                *open -= 1;
                if *open == 0 {
                    clients.remove(&address);
                }
            }
        }
        Err(error) => tracing::error!(%error, "a connection's task panicked"),
    }
}

/// Where less than a fifth of the connections is `free`, new ones may idle for a fraction of the
/// time only.
fn shrunk(limits: Limits, free: usize) -> Limits {
    if free * 5 < limits.connections_max {
        Limits { idle_max: IDLE_MIN.min(limits.idle_max), ..limits }
    } else {
        limits
    }
}

/// A reply on its way from the task that answered to the connection.
pub(super) type Message = Box<[u8]>;

/// Why a connection ended.
enum End {
    /// The client closed it, or there was nothing left to do.
    Closed,
    /// We cut it: a deadline, a limit or an error of the socket.
    Cut,
}

struct Connection<H> {
    stream: TcpStream,
    peer: SocketAddr,
    listener: Listener<H>,
    limits: Limits,
    lane: usize,
    /// The beginning of a message whose end has not arrived.
    partial: Vec<u8>,
    /// Replies that the client has not taken yet, with their lengths.
    unsent: Vec<u8>,
    in_flight: Arc<Semaphore>,
    replies: (mpsc::Sender<Message>, mpsc::Receiver<Message>),
    /// The client will send no more.
    half_closed: bool,
}

impl<H: Handler> Connection<H> {
    fn new(
        stream: TcpStream,
        peer: SocketAddr,
        listener: Listener<H>,
        limits: Limits,
        lane: usize,
    ) -> Self {
        Self {
            stream,
            peer,
            listener,
            limits,
            lane,
            partial: Vec::new(),
            unsent: Vec::new(),
            in_flight: Arc::new(Semaphore::new(limits.in_flight_max)),
            replies: mpsc::channel(limits.in_flight_max),
            half_closed: false,
        }
    }

    /// Serves the connection to its end; yields the client's address.
    async fn run(mut self, stopping: CancellationToken, _place: OwnedSemaphorePermit) -> IpAddr {
        // Replies are whole when they are written: waiting to fill a segment only delays them.
        if let Err(error) = self.stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        if let End::Cut = self.serve(stopping).await {
            self.listener.counters.add(self.lane, Event::Cut, 1);
        }
        self.peer.ip()
    }

    async fn serve(&mut self, stopping: CancellationToken) -> End {
        let mut deadline = Instant::now() + self.limits.idle_max;
        loop {
            self.answer_waiting();
            let waiting = self.limits.in_flight_max - self.in_flight.available_permits();
            let done = self.half_closed || stopping.is_cancelled();
            if done && waiting == 0 && self.replies.1.is_empty() && self.unsent.is_empty() {
                return End::Closed;
            }
            let can_read = !done
                && self.in_flight.available_permits() > 0
                && self.unsent.len() < UNSENT_PAUSE_BYTES;
            let had_partial = !self.partial.is_empty();
            let moved = tokio::select! {
                ready = self.stream.readable(), if can_read => {
                    match ready.and_then(|()| self.read()) {
                        Ok(moved) => moved,
                        Err(_) => return End::Cut,
                    }
                }
                Some(reply) = self.replies.1.recv(), if self.unsent.len() < UNSENT_PAUSE_BYTES => {
                    self.queue(&reply);
                    true
                }
                ready = self.stream.writable(), if !self.unsent.is_empty() => {
                    if ready.is_err() { return End::Cut }
                    true
                }
                () = stopping.cancelled(), if !done => false,
                () = sleep_until(deadline) => {
                    return if waiting == 0 && !had_partial && self.unsent.is_empty() {
                        End::Closed
                    } else { End::Cut };
                }
            };
            let written = match self.write() {
                Ok(written) => written,
                Err(_) => return End::Cut,
            };
            if self.unsent.len() > UNSENT_MAX_BYTES {
                return End::Cut;
            }
            // A message trickling in does not win more time with each byte.
            let trickles = had_partial && !self.partial.is_empty();
            if written || (moved && !trickles) {
                let busy = !self.partial.is_empty() || !self.unsent.is_empty();
                let allowed = if busy { self.limits.message_max } else { self.limits.idle_max };
                deadline = Instant::now() + allowed;
            }
        }
    }

    /// Reads what is there and answers each whole message; yields whether anything came.
    fn read(&mut self) -> io::Result<bool> {
        SCRATCH.with_borrow_mut(|scratch| {
            let (input, output) = scratch.buffers();
            let kept = self.partial.len();
            input[..kept].copy_from_slice(&self.partial);
            match self.stream.try_read(&mut input[kept..]) {
                Ok(0) => self.half_closed = true,
                Ok(received) => self.answer_all(&input[..kept + received], output),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            Ok(true)
        })
    }

    /// Answers messages that were read while too many were in flight.
    fn answer_waiting(&mut self) {
        if !self.partial.is_empty() && self.in_flight.available_permits() > 0 {
            SCRATCH.with_borrow_mut(|scratch| {
                let waiting = std::mem::take(&mut self.partial);
                self.answer_all(&waiting, scratch.buffers().1);
            });
        }
    }

    /// Answers each whole message of `input` for which there is room in flight, and keeps the rest.
    fn answer_all(&mut self, mut input: &[u8], output: &mut [u8]) {
        while let Some((&[l1, l0], body)) = input.split_first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes([l1, l0]));
            let Some((message, rest)) = body.split_at_checked(len) else { break };
            if !self.answer(message, output) {
                break;
            }
            input = rest;
        }
        self.partial = input.to_vec(); // empty most of the time, and then without an allocation
    }

    /// Answers one message; whether there was room for it among those in flight.
    fn answer(&mut self, message: &[u8], output: &mut [u8]) -> bool {
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else { return false };
        let now = boot_time();
        let asked = Asked { now, peer: self.peer, lane: self.lane };
        self.listener.counters.add(self.lane, Event::ReceivedTcp, 1);
        let mut name = NameBuffer::new();
        match self.listener.respond(message, Transport::Tcp, &asked, &mut name, output) {
            Response::Send(len) => {
                self.listener.counters.took(self.lane, boot_time().since(now), 1);
                self.queue(&output[..len]);
            }
            Response::Later => {
                let way = (self.replies.0.clone(), self.listener.keepalive_tenths, permit);
                let counters = (Arc::clone(&self.listener.counters), self.lane);
                let deferred = Deferred::tcp(message, now, self.peer, way, counters);
                if let Some(len) = self.listener.put_off(deferred, self.lane, output) {
                    self.queue(&output[..len]);
                }
            }
            Response::Nothing => {}
        }
        true
    }

    fn queue(&mut self, reply: &[u8]) {
        let len = u16::try_from(reply.len()).expect("a reply fits its length field");
        self.unsent.extend_from_slice(&len.to_be_bytes());
        self.unsent.extend_from_slice(reply);
    }

    /// Writes what the client takes; yields whether it took anything.
    fn write(&mut self) -> io::Result<bool> {
        if self.unsent.is_empty() {
            return Ok(false);
        }
        match self.stream.try_write(&self.unsent) {
            Ok(written) if written == self.unsent.len() => {
                self.unsent = Vec::new();
                Ok(true)
            }
            Ok(written) => {
                self.unsent.drain(..written);
                Ok(written > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Buffers that a connection uses between two awaits only, so one pair per thread serves them all.
struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Scratch {
    fn buffers(&mut self) -> (&mut [u8], &mut [u8]) {
        self.input.resize(2 * (2 + MESSAGE_MAX), 0);
        self.output.resize(MESSAGE_MAX, 0);
        (&mut self.input, &mut self.output)
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { input: Vec::new(), output: Vec::new() }) };
}

/// Waits for `finished`, at most `limit`.
pub(super) async fn within(limit: Duration, finished: impl Future<Output = ()>) {
    if timeout(limit, finished).await.is_err() {
        tracing::info!("open connections cut at the end of the drain");
    }
}

/// Accepting fails when descriptors run out; UDP goes on meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What an idle connection keeps when connections run short.
const IDLE_MIN: Duration = Duration::from_millis(200);
/// Reading and taking replies pause while this much waits to be written to a client.
const UNSENT_PAUSE_BYTES: usize = 64 << 10;
/// A client that lets this much pile up is cut.
const UNSENT_MAX_BYTES: usize = 8 << 20;
