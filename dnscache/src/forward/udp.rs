//! The UDP sockets to upstreams, and the wait for any of them.
//!
//! Edge. A server in the pod has one connected socket, used in batches. For any other server each
//! question has a connected socket of its own on a random port (RFC 5452 section 9.2), which is
//! closed with the question. Does not parse DNS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::io::Errno;
use shared::endpoint::Endpoint;
use shared::serve::{BATCH, Batch, DATAGRAM_MAX, Inbox, receive_one};
use socket2::{Domain, Protocol, Socket, Type};

use super::Edge;
use super::act::{Datagram, TryId, Via};
use super::queries::SERVERS_MAX;

/// A received event of a socket.
pub(super) enum Received<'a> {
    /// A datagram from the server.
    Datagram(Datagram<'a>),
    /// An error of the kernel: no program listens at the other end.
    Unreachable,
}

/// All sockets, and which of them are ready.
pub(super) struct Sockets {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    /// By server.
    pools: Vec<Option<Pool>>,
    /// By slot and try.
    own: Vec<Option<UdpSocket>>,
    /// How many of them there are, and may be.
    open: usize,
    open_max: usize,
    /// Ports of this program's listeners, which are never a source port.
    reserved: Vec<u16>,
    inbox: Inbox,
    buffer: Box<[u8; DATAGRAM_MAX]>,
    ready: Vec<Via>,
    draw: Box<dyn FnMut() -> u64 + Send>,
}

/// The socket kept for one server.
struct Pool {
    address: SocketAddr,
    socket: UdpSocket,
    batch: Batch,
}

impl Sockets {
    /// No sockets yet. `draw` returns unpredictable numbers: source ports come from it, all but
    /// those that `edge` reserves.
    ///
    /// Fails if the system has no descriptor left.
    pub fn new(draw: Box<dyn FnMut() -> u64 + Send>, edge: &Edge) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            waker,
            pools: Vec::new(),
            own: Vec::new(),
            open: 0,
            open_max: edge.sockets_max,
            reserved: edge.reserved_ports.clone(),
            inbox: Inbox::new(false, false),
            buffer: Box::new([0; DATAGRAM_MAX]),
            ready: Vec::new(),
            draw,
        })
    }

    /// Returns a handle that ends [`Sockets::wait`] from another thread.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Waits until a socket is readable, the waker is used or `time` has passed.
    pub fn wait(&mut self, time: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(time)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            match event.token() {
                WAKE => {}
                Token(key) if key < POOLS => {
                    let (slot, at) = ((key / SERVERS_MAX) as u16, (key % SERVERS_MAX) as u8);
                    self.ready.push(Via::Own { slot, at });
                }
                Token(at) => self.ready.push(Via::Pool((at - POOLS) as u16)),
            }
        }
        Ok(())
    }

    /// Returns whether [`Sockets::receive`] left unread data.
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Reads from the ready sockets. `take` gets each datagram and each error, and returns whether
    /// it wants to read on. Readiness is reported only once, so a long queue is read further in the
    /// next call.
    pub fn receive(&mut self, mut take: impl FnMut(Via, Received<'_>) -> bool) {
        let mut ready = std::mem::take(&mut self.ready);
        ready.retain(|&via| {
            (0..READS_PER_TURN).all(|_| self.read(via, |received| take(via, received)))
        });
        // `self.ready` was empty meanwhile, because only `wait` adds to it.
        self.ready = ready;
    }

    /// Reads one batch. Returns whether there may be more.
    fn read(&mut self, via: Via, mut take: impl FnMut(Received<'_>) -> bool) -> bool {
        match via {
            Via::Pool(server) => {
                let Some(Some(pool)) = self.pools.get(usize::from(server)) else { return false };
                match self.inbox.receive(&pool.socket, false) {
                    Ok(received) => {
                        for datagram in (0..received).map(|at| self.inbox.datagram(at)) {
                            let (bytes, is_cut) = (datagram.bytes, datagram.truncated);
                            take(Received::Datagram(Datagram { bytes, is_cut }));
                        }
                        received == BATCH
                    }
                    Err(error) => refused(&error, take),
                }
            }
            Via::Own { slot, at } => {
                let Some(Some(socket)) = self.own.get(key(slot, at)) else { return false };
                match receive_one(socket, &mut self.buffer[..]) {
                    Ok((len, is_cut)) => {
                        let bytes = &self.buffer[..len];
                        take(Received::Datagram(Datagram { bytes, is_cut }))
                    }
                    Err(error) => refused(&error, take),
                }
            }
        }
    }

    /// Sends `message` to the server of this index, from the socket kept for it. It is sent by
    /// [`Sockets::flush`], or with the batch.
    ///
    /// Fails if the socket cannot be opened.
    pub fn send_pooled(
        &mut self,
        server: u16,
        endpoint: &Endpoint,
        message: &[u8],
    ) -> io::Result<()> {
        let address = endpoint.address;
        let at = usize::from(server);
        if at >= self.pools.len() {
            self.pools.resize_with(at + 1, || None);
        }
        if self.pools[at].as_ref().is_none_or(|pool| pool.address != address) {
            let socket = open(endpoint, None)?;
            socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
            let token = Token(POOLS + at);
            self.poll.registry().register(
                &mut SourceFd(&socket.as_raw_fd()),
                token,
                Interest::READABLE,
            )?;
            self.pools[at] = Some(Pool { address, socket, batch: Batch::new() });
        }
        let Some(pool) = &mut self.pools[at] else { return Ok(()) };
        if pool.batch.is_full() {
            pool.batch.send(&pool.socket);
        }
        pool.batch.buffer()[..message.len()].copy_from_slice(message);
        pool.batch.commit(message.len(), None);
        Ok(())
    }

    /// Sends `message` to `endpoint` from the socket of `one`, which is opened first if necessary.
    ///
    /// Fails if the server cannot be reached, and with EMFILE if too many sockets are open.
    pub fn send_own(&mut self, one: TryId, endpoint: &Endpoint, message: &[u8]) -> io::Result<()> {
        let key = key(one.ticket.slot, one.at);
        if key >= self.own.len() {
            self.own.resize_with(key + 1, || None);
        }
        if let Some(socket) = &self.own[key] {
            return socket.send(message).map(drop);
        }
        if self.open >= self.open_max {
            return Err(Errno::MFILE.into());
        }
        let socket = self.open_random(endpoint)?;
        let source = socket.as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&source), Token(key), Interest::READABLE)?;
        socket.send(message)?;
        self.own[key] = Some(socket);
        self.open += 1;
        Ok(())
    }

    /// Closes the socket of `one`. epoll forgets it with its descriptor.
    pub fn close(&mut self, one: TryId) {
        let own = self.own.get_mut(key(one.ticket.slot, one.at));
        if own.and_then(Option::take).is_some() {
            self.open -= 1;
        }
    }

    /// Sends the waiting batches. Datagrams that the kernel does not accept are lost.
    pub fn flush(&mut self) {
        for pool in self.pools.iter_mut().flatten().filter(|pool| !pool.batch.is_empty()) {
            pool.batch.send(&pool.socket);
        }
    }

    /// Opens a socket on a random unprivileged port: a forger must guess nearly 16 bits.
    fn open_random(&mut self, endpoint: &Endpoint) -> io::Result<UdpSocket> {
        for _ in 0..PORT_TRIES {
            let port = PORT_MIN + ((self.draw)() % u64::from(u16::MAX - PORT_MIN + 1)) as u16;
            if self.reserved.contains(&port) {
                continue;
            }
            match open(endpoint, Some(port)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                other => return other,
            }
        }
        open(endpoint, None)
    }
}

/// Returns the index of the socket of try `at` of the query in `slot`.
fn key(slot: u16, at: u8) -> usize {
    usize::from(slot) * SERVERS_MAX + usize::from(at)
}

/// Opens a socket connected to `endpoint`, from `port` or, if `None`, from a port that the system
/// chooses.
fn open(endpoint: &Endpoint, port: Option<u16>) -> io::Result<UdpSocket> {
    let address = endpoint.address;
    let socket =
        Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if port.is_some() || endpoint.source.is_some() {
        let any = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let source = endpoint.source.unwrap_or(any);
        socket.bind(&SocketAddr::new(source, port.unwrap_or(0)).into())?;
    }
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// Reports `error` to `take` if it means that no program listens. Returns whether there may be more
/// to read.
fn refused(error: &io::Error, mut take: impl FnMut(Received<'_>) -> bool) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable};
    match error.kind() {
        ConnectionRefused | HostUnreachable | NetworkUnreachable => {
            take(Received::Unreachable);
            true
        }
        kind => kind == Interrupted,
    }
}

/// The token of the waker.
const WAKE: Token = Token(usize::MAX);
/// Tokens from here on are servers; lower tokens are tries.
const POOLS: usize = 1 << 16;
/// Batches read from one socket before other sockets are read.
const READS_PER_TURN: usize = 16;
/// Events taken by one wait.
const EVENTS: usize = 256;
/// Lower ports need a privilege.
const PORT_MIN: u16 = 1_024;
/// How often another random port is tried if one is taken.
const PORT_TRIES: usize = 8;
/// Enough for about 5,000 replies.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
