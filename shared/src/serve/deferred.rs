//! A query that its listener could not answer at once, and the way its answer goes back.
//!
//! Edge. Replies to UDP clients leave in batches from the socket that was asked; replies to TCP
//! clients go to their connection's task.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::counters::{Counters, Event};
use super::mmsg::{Batch, Ends};
use super::sockets::Lane;
use super::tcp::{Charge, Flight, Told};
use crate::clock::{Moment, boot_time};
use crate::wire::{Cookie, MESSAGE_MAX, NameBuffer, Query, Reply, Transport, UDP_SIZE_MAX};

/// A screened query waiting for its answer.
#[derive(Debug)]
pub struct Deferred {
    message: Box<[u8]>,
    arrived: Moment,
    peer: SocketAddr,
    way: Way,
    counters: Arc<Counters>,
    lane: usize,
    cookie: Option<Cookie>,
    /// Whether a message of several has left.
    begun: bool,
}

#[derive(Debug)]
enum Way {
    Udp { lane: Arc<Lane>, ends: Ends, size_max: u16 },
    Tcp(TcpWay),
}

/// The way back to a TCP connection.
#[derive(Debug)]
pub(super) struct TcpWay {
    replies: mpsc::UnboundedSender<Box<Message>>,
    keepalive_tenths: u16,
    flight: Flight,
    /// Room for messages that are streamed; made with the first.
    ahead: Option<Arc<Semaphore>>,
}

/// A reply on its way from the task that answered to the connection, with its share of what the
/// connection may hold. The query is in flight, and the bytes count, until the reply is written.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) bytes: Box<[u8]>,
    pub(super) flight: Flight,
    _charge: Charge,
    _ahead: Option<OwnedSemaphorePermit>,
}

impl TcpWay {
    /// Replies go to `replies`, whose connection may idle for `keepalive_tenths` of a second;
    /// `flight` is the query's.
    pub(super) fn new(
        replies: mpsc::UnboundedSender<Box<Message>>,
        keepalive_tenths: u16,
        flight: Flight,
    ) -> Self {
        Self { replies, keepalive_tenths, flight, ahead: None }
    }

    /// Sends one reply; `false` if the client has gone. If there is no memory for it within the
    /// bounds of all connections, the client's connection is cut.
    fn send(&self, bytes: Box<[u8]>, ahead: Option<OwnedSemaphorePermit>) -> bool {
        let account = self.flight.account();
        let mut charge = Charge::none(account);
        if !charge.set(bytes.len(), boot_time) {
            account.tell(Told::End);
            return false;
        }
        let flight = Flight::new(account);
        let message = Message { bytes, flight, _charge: charge, _ahead: ahead };
        // Boxed, as a channel has room for 32 from the start.
        self.replies.send(Box::new(message)).is_ok()
    }
}

impl Deferred {
    pub(super) fn udp(
        message: &[u8],
        arrived: Moment,
        way: (Arc<Lane>, Ends, u16),
        counters: (Arc<Counters>, usize),
    ) -> Self {
        let (lane, ends, size_max) = way;
        let way = Way::Udp { lane, ends, size_max };
        let (counters, lane) = counters;
        let (peer, message) = (ends.peer, message.into());
        Self { message, arrived, peer, way, counters, lane, cookie: None, begun: false }
    }

    pub(super) fn tcp(
        message: &[u8],
        arrived: Moment,
        peer: SocketAddr,
        way: TcpWay,
        counters: (Arc<Counters>, usize),
    ) -> Self {
        let (counters, lane) = counters;
        let (way, message) = (Way::Tcp(way), message.into());
        Self { message, arrived, peer, way, counters, lane, cookie: None, begun: false }
    }

    /// Has its replies carry `cookie`.
    pub(super) fn with_cookie(mut self, cookie: Option<Cookie>) -> Self {
        self.cookie = cookie;
        self
    }

    /// The query as it came.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// The query, read again; its name goes to `name`.
    pub fn query<'a>(&'a self, name: &'a mut NameBuffer) -> Query<'a> {
        let query = Query::screen(&self.message, self.transport(), name);
        let mut query = query.expect("screened when it arrived");
        if let Way::Udp { size_max, .. } = self.way {
            query.set_udp_size_max(size_max);
        }
        query
    }

    /// A reply to `query`, which is this one's, as [`Reply::new`] begins it; a TCP client that asks
    /// is told how long its connection may idle.
    pub fn reply<'b>(&self, query: &Query<'_>, buffer: &'b mut [u8]) -> Reply<'b> {
        let mut reply = Reply::new(query, buffer);
        if let Some(cookie) = self.cookie {
            reply.set_cookie(cookie);
        }
        if let Way::Tcp(way) = &self.way {
            promise(query, way.keepalive_tenths, &mut reply);
        }
        reply
    }

    /// How it came.
    pub fn transport(&self) -> Transport {
        match self.way {
            Way::Udp { .. } => Transport::Udp,
            Way::Tcp(_) => Transport::Tcp,
        }
    }

    /// Who asked.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When it came.
    pub fn arrived(&self) -> Moment {
        self.arrived
    }

    /// Sends one of the several messages that answer a query over TCP (RFC 5936 section 2.2); waits
    /// while the client has not taken enough of those before. Whether there still is a client; over
    /// UDP there is none for more than one message.
    pub async fn stream(&mut self, message: Box<[u8]>) -> bool {
        let Way::Tcp(way) = &mut self.way else { return false };
        let ahead = way.ahead.get_or_insert_with(|| Arc::new(Semaphore::new(STREAM_AHEAD)));
        let permit = Arc::clone(ahead).acquire_owned().await.expect("the semaphore never closes");
        way.flight.account().budget().loose().await;
        if !std::mem::replace(&mut self.begun, true) {
            self.count(&message);
        }
        let Way::Tcp(way) = &self.way else { return false };
        way.send(message, Some(permit))
    }

    /// Counts `reply`, which answers it now.
    fn count(&self, reply: &[u8]) {
        self.counters.reply(self.lane, qtype(&self.message), reply);
        self.counters.took(self.lane, boot_time().since(self.arrived), 1);
    }
}

/// Replies to deferred queries on their way out: batches of up to 16 to UDP clients.
///
/// What is in it leaves at [`Outbox::flush`], or earlier when a batch is full.
#[derive(Default)]
pub struct Outbox {
    batch: Batch,
    from: Option<(Arc<Lane>, Arc<Counters>, usize)>,
    stream: Vec<u8>,
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts in the reply to `deferred` that `write` leaves in the buffer it is given; `write`
    /// returns its length.
    ///
    /// The buffer holds at least 1,232 bytes for a UDP client, or `--udp-size` if that is more, and
    /// 65,535 for a TCP client. A client that has gone is passed over. The reply to a TCP client
    /// keeps its query in flight until the client has taken it.
    pub fn reply(&mut self, deferred: &Deferred, write: impl FnOnce(&mut [u8]) -> usize) {
        match &deferred.way {
            Way::Udp { lane, ends, size_max } => {
                let same = matches!(&self.from, Some((from, ..)) if Arc::ptr_eq(from, lane));
                if !same || self.batch.is_full() {
                    self.flush();
                    self.from =
                        Some((Arc::clone(lane), Arc::clone(&deferred.counters), deferred.lane));
                }
                let size_max = usize::from(*size_max).max(UDP_SIZE_MAX);
                if self.batch.room() < size_max {
                    self.batch = self.grown(size_max);
                }
                let buffer = self.batch.buffer();
                let len = write(buffer);
                deferred.count(buffer);
                self.batch.commit(len, Some(ends));
            }
            Way::Tcp(way) => {
                self.stream.resize(MESSAGE_MAX, 0);
                let len = write(&mut self.stream);
                deferred.count(&self.stream);
                if !way.send(self.stream[..len].into(), None) {
                    deferred.counters.add(deferred.lane, Event::SendFailed, 1);
                }
            }
        }
    }

    /// Sends what waits. The socket is let go, so that it can close when its listener ends.
    pub fn flush(&mut self) {
        if let Some((lane, counters, index)) = self.from.take()
            && !self.batch.is_empty()
        {
            let failed = self.batch.send(&lane.socket);
            if failed > 0 {
                counters.add(index, Event::SendFailed, failed as u64);
            }
        }
    }

    /// A batch with room for datagrams of `len` bytes; what waits is sent before.
    fn grown(&mut self, len: usize) -> Batch {
        let from = self.from.clone();
        self.flush();
        self.from = from;
        Batch::with_room(len)
    }
}

/// Says in `reply` how long the connection may idle, where `query` came over TCP and asks (RFC 7828
/// section 3.3.2).
pub(super) fn promise(query: &Query<'_>, tenths: u16, reply: &mut Reply<'_>) {
    if query.transport == Transport::Tcp && query.edns.is_some_and(|edns| edns.keepalive) {
        reply.set_keepalive(tenths);
    }
}

/// QTYPE of a screened query, for the counters.
fn qtype(message: &[u8]) -> u16 {
    let end = crate::wire::name_end(message, crate::wire::HEADER_LEN);
    let end = end.expect("screened when it arrived");
    u16::from_be_bytes([message[end], message[end + 1]])
}

/// Messages of a stream that may wait for their client: one is written while the next is made.
const STREAM_AHEAD: usize = 2;
