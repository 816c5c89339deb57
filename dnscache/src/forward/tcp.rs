//! Exchanges over TCP and TLS: connections that many questions share (RFC 7766 section 6.2.1).
//!
//! Edge. Each server has a link, which keeps its connections and the exchanges that wait for a
//! place on one. Runs on the program's tokio runtime. Of a DNS message only its length prefix and
//! its ID are read.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::endpoint::{Endpoint, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::act::Try;
use super::tls::{Tls, TlsFiles};

/// The outcome of an exchange: a whole message, or `None` if it failed.
pub(super) type Exchanged = (Try, Option<Vec<u8>>);

/// The links to all servers.
pub(super) struct Streams {
    runtime: Handle,
    links: HashMap<Endpoint, mpsc::Sender<Exchange>>,
    tasks: JoinSet<()>,
    shared: Shared,
}

/// What all connections use.
#[derive(Clone)]
struct Shared {
    tls: Arc<Tls>,
    outcomes: mpsc::Sender<Exchanged>,
}

/// One question under way.
struct Exchange {
    one: Try,
    /// The query behind its length.
    message: Vec<u8>,
    deadline: Instant,
    /// Connections that ended before they returned any answer.
    failures: u8,
    /// Its place on a connection, once it has one.
    place: Option<OwnedSemaphorePermit>,
}

impl Streams {
    /// Returns an instance without links, and the channel of its outcomes.
    pub fn new(runtime: Handle, files: TlsFiles) -> (Self, mpsc::Receiver<Exchanged>) {
        let (outcomes, receiver) = mpsc::channel(OUTCOMES_MAX);
        let shared = Shared { tls: Arc::new(Tls::new(files)), outcomes };
        (Self { runtime, links: HashMap::new(), tasks: JoinSet::new(), shared }, receiver)
    }

    /// Starts an exchange of `query` with `endpoint` that ends within `time`. Returns `false` if
    /// too many wait for this server.
    pub fn dial(&mut self, one: Try, endpoint: &Endpoint, query: &[u8], time: Duration) -> bool {
        while self.tasks.try_join_next().is_some() {}
        let mut message = Vec::with_capacity(query.len() + 2);
        message.extend_from_slice(&(query.len() as u16).to_be_bytes());
        message.extend_from_slice(query);
        let deadline = Instant::now() + time;
        let exchange = Exchange { one, message, deadline, failures: 0, place: None };
        let Some(link) = self.links.get(endpoint) else { return self.open(endpoint, exchange) };
        match link.try_send(exchange) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => false,
            Err(mpsc::error::TrySendError::Closed(exchange)) => self.open(endpoint, exchange),
        }
    }

    /// Opens a link to `endpoint` that begins with `exchange`.
    fn open(&mut self, endpoint: &Endpoint, exchange: Exchange) -> bool {
        self.links.retain(|_, link| !link.is_closed());
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let sent = sender.try_send(exchange).is_ok();
        let link = Link {
            endpoint: endpoint.clone(),
            shared: self.shared.clone(),
            queue: VecDeque::new(),
            lanes: Vec::new(),
            window: PIPELINED_MAX,
            freed: Arc::new(Notify::new()),
            tasks: JoinSet::new(),
        };
        self.tasks.spawn_on(link.run(receiver), &self.runtime);
        self.links.insert(endpoint.clone(), sender);
        sent
    }
}

/// The connections to one server.
struct Link {
    endpoint: Endpoint,
    shared: Shared,
    /// Exchanges that wait for a place on a connection.
    queue: VecDeque<Exchange>,
    lanes: Vec<Lane>,
    /// The maximum of exchanges under way on one connection. It is 1 after the server has closed a
    /// connection with several on it, because then answers can be lost to a reset.
    window: usize,
    /// Notified when an exchange has ended.
    freed: Arc<Notify>,
    tasks: JoinSet<Vec<Exchange>>,
}

/// A handle of one connection.
struct Lane {
    exchanges: mpsc::Sender<Exchange>,
    /// One permit per exchange that can be added to it.
    places: Arc<Semaphore>,
}

impl Link {
    /// Takes exchanges until all have ended and no other arrives for a while.
    async fn run(mut self, mut receiver: mpsc::Receiver<Exchange>) {
        loop {
            self.send_queued();
            let freed = Arc::clone(&self.freed);
            let due = self.queue.front().map(|exchange| exchange.deadline);
            let due = due.unwrap_or_else(|| Instant::now() + IDLE_MAX);
            let is_idle = self.tasks.is_empty() && self.queue.is_empty();
            tokio::select! {
                exchange = receiver.recv(), if self.queue.len() < WAITING_MAX => match exchange {
                    Some(exchange) => self.queue.push_back(exchange),
                    None => return, // the forwarder has ended
                },
                Some(ended) = self.tasks.join_next() => self.take_back(ended.unwrap_or_default()),
                () = freed.notified() => {}
                () = tokio::time::sleep_until(due) => {
                    if is_idle {
                        receiver.close();
                        // Exchanges that arrived in between must not be lost.
                        while let Some(exchange) = receiver.recv().await {
                            finish(&self.shared, exchange, None).await;
                        }
                        return;
                    }
                    self.expire().await;
                }
            }
        }
    }

    /// Takes back the exchanges that a connection left unanswered when it ended. A server can close
    /// a connection at any time (RFC 7766 section 6.2.4).
    fn take_back(&mut self, left: Vec<Exchange>) {
        self.lanes.retain(|lane| !lane.exchanges.is_closed());
        if left.len() > 1 {
            self.window = 1;
        }
        for mut exchange in left {
            exchange.place = None;
            self.queue.push_front(exchange);
        }
    }

    /// Ends the queued exchanges whose time is over.
    async fn expire(&mut self) {
        let now = Instant::now();
        let (over, left) = self.queue.drain(..).partition(|exchange| exchange.deadline <= now);
        self.queue = left;
        let over: VecDeque<Exchange> = over;
        for exchange in over {
            finish(&self.shared, exchange, None).await;
        }
    }

    /// Sends as many queued exchanges as there are places for.
    fn send_queued(&mut self) {
        while let Some(mut exchange) = self.queue.pop_front() {
            let Some(at) = self.lane() else {
                self.queue.push_front(exchange);
                return;
            };
            let lane = &self.lanes[at];
            exchange.place = Arc::clone(&lane.places).try_acquire_owned().ok();
            // A connection that has just ended is removed, and the next one is tried.
            if let Err(error) = lane.exchanges.try_send(exchange) {
                let mut exchange = error.into_inner();
                exchange.place = None;
                self.queue.push_front(exchange);
                self.lanes.remove(at);
            }
        }
    }

    /// Returns the connection with the most room; a new one if that room is less than half; `None`
    /// if all connections are full.
    fn lane(&mut self) -> Option<usize> {
        let room = |lane: &Lane| {
            let used = PIPELINED_MAX - lane.places.available_permits();
            self.window.saturating_sub(used)
        };
        let best = (0..self.lanes.len()).max_by_key(|&at| room(&self.lanes[at]));
        let best = best.filter(|&at| room(&self.lanes[at]) > 0);
        let is_busy = best.is_none_or(|at| room(&self.lanes[at]) < self.window.div_ceil(2));
        if is_busy && self.lanes.len() < CONNECTIONS_MAX {
            self.open();
            return Some(self.lanes.len() - 1);
        }
        best
    }

    fn open(&mut self) {
        let (exchanges, receiver) = mpsc::channel(PIPELINED_MAX);
        let connection = Connection {
            endpoint: self.endpoint.clone(),
            shared: self.shared.clone(),
            freed: Arc::clone(&self.freed),
            under_way: HashMap::new(),
            next_id: 0,
        };
        self.tasks.spawn(connection.run(receiver));
        self.lanes.push(Lane { exchanges, places: Arc::new(Semaphore::new(PIPELINED_MAX)) });
    }
}

/// A stream of bytes to a server.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One connection and the exchanges on it.
struct Connection {
    endpoint: Endpoint,
    shared: Shared,
    freed: Arc<Notify>,
    /// Keyed by the ID on this connection, with the original ID of the query.
    under_way: HashMap<u16, (Exchange, [u8; 2])>,
    next_id: u16,
}

impl Connection {
    /// Connects and exchanges until the connection ends or is idle for a while. Returns exchanges
    /// that can be sent again on another connection.
    async fn run(mut self, mut receiver: mpsc::Receiver<Exchange>) -> Vec<Exchange> {
        let connected = timeout(CONNECT_MAX, connect(&self.endpoint, &self.shared.tls)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        // The failures that an ended connection adds to its exchanges: 0 if it answered anything. A
        // connection that was reset may also have answered, because the reset overtakes the answer.
        let (ended, cost) = match connected {
            Ok(stream) => match self.exchange(stream, &mut receiver).await {
                Ok(()) => (None, 0),
                Err((error, was_good)) => (Some(error), u8::from(!was_good)),
            },
            Err(error) => (Some(error), FAILURES_MAX),
        };
        receiver.close();
        if let Some(error) = ended {
            tracing::debug!(server = %self.endpoint, %error, "connection to an upstream ended");
        }
        let mut left: Vec<Exchange> = self.under_way.drain().map(|(_, (left, _))| left).collect();
        while let Some(exchange) = receiver.recv().await {
            left.push(exchange);
        }
        let mut again = Vec::new();
        for mut exchange in left {
            exchange.failures += cost;
            if exchange.failures < FAILURES_MAX {
                again.push(exchange);
            } else {
                finish(&self.shared, exchange, None).await;
            }
        }
        again
    }

    /// Exchanges messages over `stream`. Returns `Ok` if the connection became idle. Fails with the
    /// error that ended it and whether it had answered before.
    async fn exchange(
        &mut self,
        mut stream: Box<dyn Stream>,
        receiver: &mut mpsc::Receiver<Exchange>,
    ) -> Result<(), (io::Error, bool)> {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        let mut was_good = false;
        let mut timeouts = 0;
        loop {
            let deadlines = self.under_way.values().map(|(exchange, _)| exchange.deadline);
            let due = deadlines.min().unwrap_or_else(|| Instant::now() + IDLE_MAX);
            tokio::select! {
                Some(exchange) = receiver.recv() => {
                    self.write(&mut stream, exchange).await.map_err(|error| (error, was_good))?;
                }
                read = stream.read_buf(&mut buffer) => {
                    match read {
                        Ok(0) if self.under_way.is_empty() => return Ok(()),
                        Ok(0) => return Err((io::ErrorKind::UnexpectedEof.into(), was_good)),
                        Ok(_) => {}
                        Err(error) => return Err((error, was_good)),
                    }
                    while let Some(message) = split_message(&mut buffer) {
                        timeouts = 0;
                        was_good = true;
                        self.answer(message).await;
                    }
                }
                () = tokio::time::sleep_until(due) => {
                    if self.under_way.is_empty() {
                        return Ok(());
                    }
                    timeouts += self.give_up().await;
                    if timeouts >= TIMEOUTS_MAX {
                        return Err((io::ErrorKind::TimedOut.into(), false));
                    }
                }
            }
        }
    }

    /// Sends the query of `exchange` under an ID that is unique on this connection.
    async fn write(&mut self, stream: &mut Box<dyn Stream>, exchange: Exchange) -> io::Result<()> {
        while self.under_way.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let theirs = [exchange.message[2], exchange.message[3]];
        let mut message = exchange.message.clone();
        message[2..4].copy_from_slice(&id.to_be_bytes());
        self.under_way.insert(id, (exchange, theirs));
        let written = async {
            stream.write_all(&message).await?;
            stream.flush().await
        };
        timeout(WRITE_MAX, written).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes `message` to the exchange that it answers; drops other messages.
    async fn answer(&mut self, mut message: Vec<u8>) {
        let Some(id) = message.first_chunk().map(|id| u16::from_be_bytes(*id)) else { return };
        if let Some((exchange, theirs)) = self.under_way.remove(&id) {
            message[..2].copy_from_slice(&theirs);
            finish(&self.shared, exchange, Some(message)).await;
            self.freed.notify_one();
        }
    }

    /// Ends the exchanges whose time is over. Returns how many there were.
    async fn give_up(&mut self) -> usize {
        let now = Instant::now();
        let is_over = |(exchange, _): &(Exchange, _)| exchange.deadline <= now;
        let ids = self.under_way.iter().filter(|(_, entry)| is_over(entry)).map(|(&id, _)| id);
        let over: Vec<u16> = ids.collect();
        for id in &over {
            if let Some((exchange, _)) = self.under_way.remove(id) {
                finish(&self.shared, exchange, None).await;
                self.freed.notify_one();
            }
        }
        over.len()
    }
}

async fn connect(endpoint: &Endpoint, tls: &Tls) -> io::Result<Box<dyn Stream>> {
    let socket = match endpoint.address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = endpoint.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(endpoint.address).await?;
    stream.set_nodelay(true)?;
    match &endpoint.transport {
        Transport::Udp | Transport::Tcp => Ok(Box::new(stream)),
        Transport::Tls(name) => {
            Ok(Box::new(tls.connect(stream, endpoint.address.ip(), name.as_deref()).await?))
        }
    }
}

/// Removes the first whole message from `buffer` and returns it; `None` if it is incomplete.
fn split_message(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = usize::from(u16::from_be_bytes(*buffer.first_chunk()?));
    let message = buffer.get(2..2 + len)?.to_vec();
    buffer.drain(..2 + len);
    Some(message)
}

/// Reports the outcome of `exchange` and gives its place back.
async fn finish(shared: &Shared, exchange: Exchange, reply: Option<Vec<u8>>) {
    // An error means that the forwarder has ended, and with it all waiters.
    shared.outcomes.send((exchange.one, reply)).await.unwrap_or_default();
}

/// Connections to one server.
const CONNECTIONS_MAX: usize = 8;
/// Exchanges under way on one connection.
const PIPELINED_MAX: usize = 32;
/// Connections without an answer after which an exchange has failed.
const FAILURES_MAX: u8 = 3;
/// Exchanges that can wait for a place on a link.
const WAITING_MAX: usize = 1_024;
/// Outcomes that can wait for the forwarder; each can be 64 KiB.
const OUTCOMES_MAX: usize = 64;
/// How long it can take to set up a connection, including its TLS handshake.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// A server that takes no bytes for this long has closed its window for good.
const WRITE_MAX: Duration = Duration::from_secs(1);
/// A connection without exchanges is closed after this time.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Exchanges in a row that time out on a connection before it is given up.
const TIMEOUTS_MAX: usize = 4;
/// The initial size of a connection's read buffer; it grows with the messages.
const BUFFER_BYTES: usize = 4 << 10;
