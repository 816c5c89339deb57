//! Exchanges over TCP and TLS: connections that many questions share (RFC 7766 section 6.2.1).
//!
//! Edge. Each server has a link: a queue of exchanges, from which its connections take as many as
//! they have places for. Runs on the program's tokio runtime. Of a DNS message only its length
//! prefix and its ID are read.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shared::endpoint::{Endpoint, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::act::TryId;
use super::tls::{Tls, TlsFiles};

/// The outcome of an exchange: a whole message, or `None` if it failed.
pub(super) type Exchanged = (TryId, Option<Vec<u8>>);

/// The links to all servers.
pub(super) struct Streams {
    runtime: Handle,
    links: HashMap<Endpoint, Arc<Link>>,
    /// The connections.
    tasks: JoinSet<()>,
    tls: Arc<Tls>,
    outcomes: mpsc::Sender<Exchanged>,
}

/// What the connections to one server share.
struct Link {
    endpoint: Endpoint,
    tls: Arc<Tls>,
    outcomes: mpsc::Sender<Exchanged>,
    load: Mutex<Load>,
    /// Notified if the queue may not be empty.
    queued: Notify,
    /// Each exchange that has not ended holds a clone.
    exchanges: Arc<()>,
}

/// The work of one link.
struct Load {
    /// Exchanges that wait for a place on a connection.
    queue: VecDeque<Exchange>,
    connections: usize,
    /// The maximum of exchanges under way on one connection. It is 1 after the server has closed a
    /// connection with several on it, because then answers can be lost to a reset.
    window: usize,
}

/// One question under way.
struct Exchange {
    one: TryId,
    /// The query behind its length.
    message: Vec<u8>,
    deadline: Instant,
    /// Connections that ended before they returned any answer.
    failures: u8,
    _counted: Arc<()>,
}

impl Streams {
    /// Returns an instance without links, and the channel of its outcomes.
    pub fn new(runtime: Handle, files: TlsFiles) -> (Self, mpsc::Receiver<Exchanged>) {
        let (outcomes, receiver) = mpsc::channel(OUTCOMES_MAX);
        let (links, tasks, tls) = (HashMap::new(), JoinSet::new(), Arc::new(Tls::new(files)));
        (Self { runtime, links, tasks, tls, outcomes }, receiver)
    }

    /// Starts an exchange of `query` with `endpoint` that ends within `time`. Returns `false` if
    /// too many wait for this server.
    pub fn dial(&mut self, one: TryId, endpoint: &Endpoint, query: &[u8], time: Duration) -> bool {
        while self.tasks.try_join_next().is_some() {}
        if !self.links.contains_key(endpoint) {
            self.links.retain(|_, link| link.load.lock().connections > 0);
            let (tls, outcomes) = (Arc::clone(&self.tls), self.outcomes.clone());
            let link = Link::new(endpoint.clone(), tls, outcomes);
            self.links.insert(endpoint.clone(), Arc::new(link));
        }
        let link = &self.links[endpoint];
        let mut message = Vec::with_capacity(query.len() + 2);
        message.extend_from_slice(&(query.len() as u16).to_be_bytes());
        message.extend_from_slice(query);
        let (deadline, _counted) = (Instant::now() + time, Arc::clone(&link.exchanges));
        let exchange = Exchange { one, message, deadline, failures: 0, _counted };
        let mut load = link.load.lock();
        if load.queue.len() >= WAITING_MAX {
            return false;
        }
        load.queue.push_back(exchange);
        link.queued.notify_one();
        // A further connection is opened if the others are more than half full.
        let count = Arc::strong_count(&link.exchanges) - 1;
        let room = load.connections * load.window.div_ceil(2);
        if count > room && load.connections < CONNECTIONS_MAX {
            load.connections += 1;
            let (link, under_way) = (Arc::clone(link), HashMap::new());
            let connection = Connection { link, under_way, next_id: 0 };
            self.tasks.spawn_on(connection.run(), &self.runtime);
        }
        true
    }
}

impl Link {
    fn new(endpoint: Endpoint, tls: Arc<Tls>, outcomes: mpsc::Sender<Exchanged>) -> Self {
        let (queue, connections, window) = (VecDeque::new(), 0, PIPELINED_MAX);
        let load = Mutex::new(Load { queue, connections, window });
        Self { endpoint, tls, outcomes, load, queued: Notify::new(), exchanges: Arc::new(()) }
    }

    /// Returns whether a connection with `used` exchanges under way has a place for another one.
    fn has_place(&self, used: usize) -> bool {
        used < self.load.lock().window
    }

    /// Takes an exchange from the queue for a connection on which `used` are under way. An exchange
    /// whose time is over is dropped, because its query has ended as well.
    fn take(&self, used: usize) -> Option<Exchange> {
        let mut load = self.load.lock();
        if used >= load.window && !load.queue.is_empty() {
            self.queued.notify_one(); // another connection can have a place
            return None;
        }
        let now = Instant::now();
        std::iter::from_fn(|| load.queue.pop_front()).find(|exchange| exchange.deadline > now)
    }

    /// Puts back exchanges that an ended connection left.
    fn put_back(&self, left: Vec<Exchange>) {
        let mut load = self.load.lock();
        if left.len() > 1 {
            load.window = 1;
        }
        left.into_iter().for_each(|exchange| load.queue.push_front(exchange));
    }

    /// Takes a connection off the link unless exchanges wait. Returns whether it did.
    fn leave(&self) -> bool {
        let mut load = self.load.lock();
        let is_idle = load.queue.is_empty();
        load.connections -= usize::from(is_idle);
        is_idle
    }

    /// Reports the outcome of `exchange`.
    async fn finish(&self, exchange: Exchange, reply: Option<Vec<u8>>) {
        // An error means that the forwarder has ended, and with it all waiters.
        self.outcomes.send((exchange.one, reply)).await.unwrap_or_default();
    }
}

/// A stream of bytes to a server.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One connection and the exchanges on it.
struct Connection {
    link: Arc<Link>,
    /// Keyed by the ID on this connection, with the original ID of the query.
    under_way: HashMap<u16, (Exchange, [u8; 2])>,
    next_id: u16,
}

impl Connection {
    /// Connects and exchanges until no exchange waits. A server can close a connection at any time
    /// (RFC 7766 section 6.2.4), so exchanges that it left are sent again on another one.
    async fn run(mut self) {
        loop {
            let queries = self.take();
            if queries.is_empty() && self.link.leave() {
                return;
            }
            let connected =
                timeout(CONNECT_MAX, connect(&self.link.endpoint, &self.link.tls)).await;
            let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            // The failures that an ended connection adds to its exchanges: 0 if it answered
            // anything. A connection that was reset may also have answered, because the reset
            // overtakes the answer.
            let (ended, cost) = match connected {
                Ok(stream) => match self.exchange(stream, queries).await {
                    Ok(()) => (None, 0),
                    Err((error, was_good)) => (Some(error), u8::from(!was_good)),
                },
                Err(error) => (Some(error), FAILURES_MAX),
            };
            if let Some(error) = ended {
                let server = &self.link.endpoint;
                tracing::debug!(%server, %error, "connection to an upstream ended");
            }
            let mut again = Vec::new();
            for (mut exchange, _) in std::mem::take(&mut self.under_way).into_values() {
                exchange.failures += cost;
                if exchange.failures < FAILURES_MAX {
                    again.push(exchange);
                } else {
                    self.link.finish(exchange, None).await;
                }
            }
            self.link.put_back(again);
        }
    }

    /// Sends `queries`, and exchanges messages over `stream`. Returns `Ok` if the connection became
    /// idle. Fails with the error that ended it and whether it had answered before.
    async fn exchange(
        &mut self,
        mut stream: Box<dyn Stream>,
        mut queries: Vec<u8>,
    ) -> Result<(), (io::Error, bool)> {
        let link = Arc::clone(&self.link);
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        let mut was_good = false;
        let mut timeouts = 0;
        loop {
            if !queries.is_empty() {
                write(&mut stream, &queries).await.map_err(|error| (error, was_good))?;
            }
            let deadlines = self.under_way.values().map(|(exchange, _)| exchange.deadline);
            let due = deadlines.min().unwrap_or_else(|| Instant::now() + IDLE_MAX);
            tokio::select! {
                () = link.queued.notified(), if link.has_place(self.under_way.len()) => {}
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
                    let before = self.under_way.len();
                    if before == 0 {
                        return Ok(());
                    }
                    let now = Instant::now();
                    self.under_way.retain(|_, (exchange, _)| exchange.deadline > now);
                    timeouts += before - self.under_way.len();
                    if timeouts >= TIMEOUTS_MAX {
                        return Err((io::ErrorKind::TimedOut.into(), false));
                    }
                }
            }
            queries = self.take();
        }
    }

    /// Takes as many waiting exchanges as there are places for. Returns their queries, each under
    /// an ID that is unique on this connection.
    fn take(&mut self) -> Vec<u8> {
        let mut queries = Vec::new();
        while let Some(exchange) = self.link.take(self.under_way.len()) {
            while self.under_way.contains_key(&self.next_id) {
                self.next_id = self.next_id.wrapping_add(1);
            }
            let id = self.next_id.to_be_bytes();
            let theirs = [exchange.message[2], exchange.message[3]];
            queries.extend_from_slice(&exchange.message[..2]);
            queries.extend_from_slice(&id);
            queries.extend_from_slice(&exchange.message[4..]);
            self.under_way.insert(self.next_id, (exchange, theirs));
        }
        queries
    }

    /// Passes `message` to the exchange that it answers; drops other messages.
    async fn answer(&mut self, mut message: Vec<u8>) {
        let Some(id) = message.first_chunk().map(|id| u16::from_be_bytes(*id)) else {
            return;
        };
        if let Some((exchange, theirs)) = self.under_way.remove(&id) {
            message[..2].copy_from_slice(&theirs);
            self.link.finish(exchange, Some(message)).await;
        }
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

async fn write(stream: &mut Box<dyn Stream>, messages: &[u8]) -> io::Result<()> {
    let written = async {
        stream.write_all(messages).await?;
        stream.flush().await
    };
    timeout(WRITE_MAX, written).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Connections to one server.
const CONNECTIONS_MAX: usize = 8;
/// Exchanges under way on one connection.
const PIPELINED_MAX: usize = 32;
/// Connections without an answer after which an exchange has failed.
const FAILURES_MAX: u8 = 3;
/// Exchanges with one server that can wait for a place.
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
