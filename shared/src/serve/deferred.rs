//! A query that its listener could not answer at once, and the path of its answer.
//!
//! Edge. Replies to UDP clients are sent in batches from the socket that received the query;
//! replies to TCP clients are sent to their connection's task.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::counters::{Counters, Event};
use super::mmsg::{Batch, Ends};
use super::sockets::Lane;
use super::tcp::{Charge, Flight, Told};
use crate::clock::{Moment, boot_time};
use crate::wire::{Cookie, MESSAGE_MAX, NameBuffer, Query, Reply, Transport, UDP_SIZE_MAX};

/// A screened query that waits for its answer.
#[derive(Debug)]
pub struct Deferred {
    message: Box<[u8]>,
    arrived: Moment,
    peer: SocketAddr,
    way: Way,
    counters: Arc<Counters>,
    lane: usize,
    cookie: Option<Cookie>,
    /// Whether the first of several messages was sent.
    begun: bool,
}

#[derive(Debug)]
enum Way {
    Udp(UdpWay),
    Tcp(TcpWay),
}

/// The path back to a UDP client.
#[derive(Debug)]
pub(super) struct UdpWay {
    /// The socket on which the query arrived.
    pub(super) lane: Arc<Lane>,
    pub(super) ends: Ends,
    /// The largest reply, in bytes.
    pub(super) size_max: u16,
}

/// Where the reply is counted.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) counters: Arc<Counters>,
    pub(super) lane: usize,
}

/// The path back to a TCP connection.
#[derive(Debug)]
pub(super) struct TcpWay {
    replies: mpsc::UnboundedSender<Box<Message>>,
    keepalive_tenths: u16,
    flight: Flight,
    /// Room for messages that are streamed; created with the first.
    ahead: Option<Arc<Semaphore>>,
}

/// A reply that is sent from the answering task to the connection, with its share of the
/// connection's budget. The query is in flight, and the bytes count, until the reply is written.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) bytes: Box<[u8]>,
    pub(super) flight: Flight,
    _charge: Charge,
    _ahead: Option<OwnedSemaphorePermit>,
}

impl TcpWay {
    /// Returns a path on which replies are sent to `replies`. Its connection can be idle for
    /// `keepalive_tenths` of a second; `flight` is the query's.
    pub(super) fn new(
        replies: mpsc::UnboundedSender<Box<Message>>,
        keepalive_tenths: u16,
        flight: Flight,
    ) -> Self {
        Self { replies, keepalive_tenths, flight, ahead: None }
    }

    /// Sends one reply. Returns `false` if the client has gone. If the memory for all connections
    /// is used up, the client's connection is cut.
    fn send(&self, bytes: Box<[u8]>, ahead: Option<OwnedSemaphorePermit>) -> bool {
        let account = self.flight.account();
        let mut charge = Charge::none(account);
        if !charge.set(bytes.len(), boot_time) {
            account.tell(Told::End);
            return false;
        }
        let flight = Flight::new(account);
        let message = Message { bytes, flight, _charge: charge, _ahead: ahead };
        // Boxed, because a channel has room for 32 values from the start.
        self.replies.send(Box::new(message)).is_ok()
    }
}

impl Deferred {
    pub(super) fn udp(message: &[u8], arrived: Moment, way: UdpWay, tally: Tally) -> Self {
        let Tally { counters, lane } = tally;
        let (peer, message, way) = (way.ends.peer, message.into(), Way::Udp(way));
        Self { message, arrived, peer, way, counters, lane, cookie: None, begun: false }
    }

    pub(super) fn tcp(
        message: &[u8],
        arrived: Moment,
        peer: SocketAddr,
        way: TcpWay,
        tally: Tally,
    ) -> Self {
        let Tally { counters, lane } = tally;
        let (way, message) = (Way::Tcp(way), message.into());
        Self { message, arrived, peer, way, counters, lane, cookie: None, begun: false }
    }

    /// Sets the cookie of its replies.
    pub(super) fn with_cookie(mut self, cookie: Option<Cookie>) -> Self {
        self.cookie = cookie;
        self
    }

    /// Returns the query as received.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Returns the query, parsed again. Its name is written to `name`.
    pub fn query<'a>(&'a self, name: &'a mut NameBuffer) -> Query<'a> {
        let query = Query::screen(&self.message, self.transport(), name);
        let mut query = query.expect("screened when it arrived");
        if let Way::Udp(way) = &self.way {
            query.set_udp_size_max(way.size_max);
        }
        query
    }

    /// Returns a reply to `query`, which must be this one, as [`Reply::new`] does. If a TCP client
    /// asks for it, the reply contains how long its connection can be idle.
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

    /// Returns its transport.
    pub fn transport(&self) -> Transport {
        match self.way {
            Way::Udp(_) => Transport::Udp,
            Way::Tcp(_) => Transport::Tcp,
        }
    }

    /// Returns the address of the client.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns when it arrived.
    pub fn arrived(&self) -> Moment {
        self.arrived
    }

    /// Sends one of several messages that answer a query over TCP (RFC 5936 section 2.2). Waits
    /// until the client has taken enough of the earlier ones. Returns whether the client is still
    /// connected; always `false` over UDP, which allows only one message.
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

    /// Counts `reply`, which answers it.
    fn count(&self, reply: &[u8]) {
        self.counters.reply(self.lane, qtype(&self.message), reply);
        self.counters.took(self.lane, boot_time().since(self.arrived), 1);
    }
}

/// A queue of replies to deferred queries: batches of up to 16 to UDP clients.
///
/// Its replies are sent by [`Outbox::flush`], or earlier if a batch is full.
#[derive(Default)]
pub struct Outbox {
    batch: Batch,
    from: Option<(Arc<Lane>, Arc<Counters>, usize)>,
    stream: Vec<u8>,
}

impl Outbox {
    /// Returns an empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the reply to `deferred` that `write` writes into its buffer. `write` must return the
    /// length.
    ///
    /// The buffer holds at least 1,232 bytes for a UDP client, or `--udp-size` if that is more, and
    /// 65,535 for a TCP client. A client that has gone is skipped. A query of a TCP client stays in
    /// flight until the client has taken the reply.
    pub fn reply(&mut self, deferred: &Deferred, write: impl FnOnce(&mut [u8]) -> usize) {
        match &deferred.way {
            Way::Udp(UdpWay { lane, ends, size_max }) => {
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

    /// Sends the waiting replies, and releases the socket, so that it can be closed when its
    /// listener ends.
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

    /// Returns a batch with room for datagrams of `len` bytes, after it has sent the waiting ones.
    fn grown(&mut self, len: usize) -> Batch {
        let from = self.from.clone();
        self.flush();
        self.from = from;
        Batch::with_room(len)
    }
}

/// Sets in `reply` how long the connection can be idle, if `query` arrived over TCP and asks for it
/// (RFC 7828 section 3.3.2).
pub(super) fn promise(query: &Query<'_>, tenths: u16, reply: &mut Reply<'_>) {
    if query.transport == Transport::Tcp && query.edns.is_some_and(|edns| edns.keepalive) {
        reply.set_keepalive(tenths);
    }
}

/// Returns QTYPE of a screened query, for the counters.
fn qtype(message: &[u8]) -> u16 {
    let end = crate::wire::name_end(message, crate::wire::HEADER_LEN);
    let end = end.expect("screened when it arrived");
    u16::from_be_bytes([message[end], message[end + 1]])
}

/// Messages of a stream that can wait for their client: one is written while the next is made.
const STREAM_AHEAD: usize = 2;
