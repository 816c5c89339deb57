//! A query that its listener could not answer at once, and the way its answer goes back.
//!
//! Edge. Replies to UDP clients leave in batches from the socket that was asked; replies to TCP
//! clients go to their connection's task.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::counters::{Counters, Event};
use super::mmsg::{Batch, Ends, boot_time};
use super::sockets::Lane;
use crate::clock::Moment;
use crate::wire::{MESSAGE_MAX, NameBuffer, Query, Reply, Transport};

/// A screened query waiting for its answer.
#[derive(Debug)]
pub struct Deferred {
    message: Box<[u8]>,
    arrived: Moment,
    peer: SocketAddr,
    way: Way,
    counters: Arc<Counters>,
    lane: usize,
    /// Whether a message of several has left.
    begun: bool,
}

#[derive(Debug)]
enum Way {
    Udp {
        lane: Arc<Lane>,
        ends: Ends,
    },
    Tcp {
        replies: mpsc::Sender<Box<[u8]>>,
        keepalive_tenths: u16,
        _in_flight: OwnedSemaphorePermit,
    },
}

impl Deferred {
    pub(super) fn udp(
        message: &[u8],
        arrived: Moment,
        ends: Ends,
        lane: Arc<Lane>,
        counters: (Arc<Counters>, usize),
    ) -> Self {
        let way = Way::Udp { lane, ends };
        let (counters, lane) = counters;
        let begun = false;
        Self { message: message.into(), arrived, peer: ends.peer, way, counters, lane, begun }
    }

    pub(super) fn tcp(
        message: &[u8],
        arrived: Moment,
        peer: SocketAddr,
        way: (mpsc::Sender<Box<[u8]>>, u16, OwnedSemaphorePermit),
        counters: (Arc<Counters>, usize),
    ) -> Self {
        let (replies, keepalive_tenths, _in_flight) = way;
        let way = Way::Tcp { replies, keepalive_tenths, _in_flight };
        let (counters, lane) = counters;
        Self { message: message.into(), arrived, peer, way, counters, lane, begun: false }
    }

    /// The query as it came.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// The query, read again; its name goes to `name`.
    pub fn query<'a>(&'a self, name: &'a mut NameBuffer) -> Query<'a> {
        Query::screen(&self.message, self.transport(), name).expect("screened when it arrived")
    }

    /// A reply to `query`, which is this one's, as [`Reply::new`] begins it; a TCP client that asks
    /// is told how long its connection may idle.
    pub fn reply<'b>(&self, query: &Query<'_>, buffer: &'b mut [u8]) -> Reply<'b> {
        let mut reply = Reply::new(query, buffer);
        if let Way::Tcp { keepalive_tenths, .. } = self.way {
            promise(query, keepalive_tenths, &mut reply);
        }
        reply
    }

    /// How it came.
    pub fn transport(&self) -> Transport {
        match self.way {
            Way::Udp { .. } => Transport::Udp,
            Way::Tcp { .. } => Transport::Tcp,
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
        let Way::Tcp { replies, .. } = &self.way else { return false };
        if !std::mem::replace(&mut self.begun, true) {
            self.count(&message);
        }
        replies.send(message).await.is_ok()
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
    /// yields its length.
    ///
    /// The buffer holds 1,232 bytes for a UDP client and 65,535 for a TCP client. A client that has
    /// gone is passed over.
    pub fn reply(&mut self, deferred: &Deferred, write: impl FnOnce(&mut [u8]) -> usize) {
        match &deferred.way {
            Way::Udp { lane, ends } => {
                let same = matches!(&self.from, Some((from, ..)) if Arc::ptr_eq(from, lane));
                if !same || self.batch.is_full() {
                    self.flush();
                    self.from =
                        Some((Arc::clone(lane), Arc::clone(&deferred.counters), deferred.lane));
                }
                let buffer = self.batch.buffer();
                let len = write(buffer);
                deferred.count(buffer);
                self.batch.commit(len, Some(ends));
            }
            Way::Tcp { replies, .. } => {
                self.stream.resize(MESSAGE_MAX, 0);
                let len = write(&mut self.stream);
                deferred.count(&self.stream);
                // The channel has a place for each query in flight; an error means that the client
                // has gone.
                if replies.try_send(self.stream[..len].into()).is_err() {
                    deferred.counters.add(deferred.lane, Event::SendFailed, 1);
                }
            }
        }
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        if let Some((lane, counters, index)) = &self.from
            && !self.batch.is_empty()
        {
            let failed = self.batch.send(&lane.socket);
            if failed > 0 {
                counters.add(*index, Event::SendFailed, failed as u64);
            }
        }
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
