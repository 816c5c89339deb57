//! The UDP sockets to upstreams, and the wait for any of them.
//!
//! Edge. Servers in the pod: one connected socket each, batches of datagrams. All others: for every
//! try a new connected socket on a random port, closed with the try (RFC 5452 section 9.2). Knows
//! no DNS.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use shared::serve::{BATCH, Batch, DATAGRAM_MAX, Inbox};
use socket2::{Domain, Protocol, Socket, Type};

use super::flights::Via;

/// What a socket gave.
pub(super) enum Received<'a> {
    /// A datagram from the server.
    Datagram(&'a [u8]),
    /// The word that nothing listens there.
    Unreachable,
}

/// Every socket, and what is ready.
pub(super) struct Sockets {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    /// By server.
    pools: Vec<Option<Pool>>,
    /// By slot.
    own: Vec<Option<UdpSocket>>,
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
    /// No sockets yet. `draw` yields unpredictable numbers: source ports come from it.
    ///
    /// Fails when the system has no descriptor left.
    pub fn new(draw: Box<dyn FnMut() -> u64 + Send>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            waker,
            pools: Vec::new(),
            own: Vec::new(),
            inbox: Inbox::new(false, false),
            buffer: Box::new([0; DATAGRAM_MAX]),
            ready: Vec::new(),
            draw,
        })
    }

    /// Ends [`Sockets::wait`] from another thread.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Waits until a socket has something, the waker is used or `time` has passed.
    pub fn wait(&mut self, time: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(time)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            match event.token() {
                WAKE => {}
                Token(at) if at < POOLS => self.ready.push(Via::Own(at as u16)),
                Token(at) => self.ready.push(Via::Pool((at - POOLS) as u16)),
            }
        }
        Ok(())
    }

    /// Whether [`Sockets::receive`] left something behind.
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Reads what the sockets have: `take` gets each datagram, and each word that nothing listens,
    /// and says whether it wants more of the same. What is left of a long queue is for the next
    /// time: readiness is told once.
    pub fn receive(&mut self, mut take: impl FnMut(Via, Received<'_>) -> bool) {
        let mut ready = std::mem::take(&mut self.ready);
        ready.retain(|&via| {
            (0..READS_PER_TURN).all(|_| self.read(via, |received| take(via, received)))
        });
        // Nothing was added meanwhile: only waiting adds.
        self.ready = ready;
    }

    /// Reads one batch; yields whether there may be more.
    fn read(&mut self, via: Via, mut take: impl FnMut(Received<'_>) -> bool) -> bool {
        match via {
            Via::Pool(server) => {
                let Some(Some(pool)) = self.pools.get(usize::from(server)) else { return false };
                match self.inbox.receive(&pool.socket, false) {
                    Ok(received) => {
                        for datagram in (0..received).map(|at| self.inbox.datagram(at)) {
                            if !datagram.truncated {
                                take(Received::Datagram(datagram.bytes));
                            }
                        }
                        received == BATCH
                    }
                    Err(error) => refused(&error, take),
                }
            }
            Via::Own(slot) => {
                let Some(Some(socket)) = self.own.get(usize::from(slot)) else { return false };
                match socket.recv(&mut self.buffer[..]) {
                    Ok(len) => take(Received::Datagram(&self.buffer[..len])),
                    Err(error) => refused(&error, take),
                }
            }
        }
    }

    /// Sends `message` to the server of this index, from the socket kept for it; it leaves at
    /// [`Sockets::flush`], or with the batch.
    ///
    /// Fails when the socket cannot be opened.
    pub fn send_pooled(
        &mut self,
        server: u16,
        address: SocketAddr,
        message: &[u8],
    ) -> io::Result<()> {
        let at = usize::from(server);
        if at >= self.pools.len() {
            self.pools.resize_with(at + 1, || None);
        }
        if self.pools[at].as_ref().is_none_or(|pool| pool.address != address) {
            let socket = open(address, None)?;
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

    /// Sends `message` to `address` from a new socket that belongs to `slot` and replaces its last.
    ///
    /// Fails when there is no descriptor or no route.
    pub fn send_own(&mut self, slot: u16, address: SocketAddr, message: &[u8]) -> io::Result<()> {
        self.close(slot);
        let at = usize::from(slot);
        if at >= self.own.len() {
            self.own.resize_with(at + 1, || None);
        }
        let socket = self.open_random(address)?;
        self.poll.registry().register(
            &mut SourceFd(&socket.as_raw_fd()),
            Token(at),
            Interest::READABLE,
        )?;
        socket.send(message)?;
        self.own[at] = Some(socket);
        Ok(())
    }

    /// Closes the socket of `slot`; epoll forgets it with its descriptor.
    pub fn close(&mut self, slot: u16) {
        if let Some(socket) = self.own.get_mut(usize::from(slot)) {
            *socket = None;
        }
    }

    /// Sends what waits in batches. What the kernel does not take is lost, as datagrams may be.
    pub fn flush(&mut self) {
        for pool in self.pools.iter_mut().flatten().filter(|pool| !pool.batch.is_empty()) {
            pool.batch.send(&pool.socket);
        }
    }

    /// A socket on a random port of all that need no privilege: nearly 16 bits a forger has to
    /// guess.
    fn open_random(&mut self, address: SocketAddr) -> io::Result<UdpSocket> {
        for _ in 0..PORT_TRIES {
            let port = PORT_MIN + ((self.draw)() % u64::from(u16::MAX - PORT_MIN + 1)) as u16;
            match open(address, Some(port)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                other => return other,
            }
        }
        open(address, None)
    }
}

/// A socket connected to `address`, from `port` or from one that the system chooses.
fn open(address: SocketAddr, port: Option<u16>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Some(port) = port {
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        };
        socket.bind(&any.into())?;
    }
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// Tells `take` when `error` is the word that nothing listens; yields whether there may be more to
/// read.
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
/// Tokens from here on are servers, those below slots.
const POOLS: usize = 1 << 16;
/// Batches read from one socket before others have their turn.
const READS_PER_TURN: usize = 16;
/// Events taken by one wait.
const EVENTS: usize = 256;
/// Ports below need a privilege.
const PORT_MIN: u16 = 1_024;
/// How often another random port is tried where one is taken.
const PORT_TRIES: usize = 8;
/// Holds some 5,000 replies.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
