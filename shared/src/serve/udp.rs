//! One thread per UDP socket: receive a batch, answer each query, send a batch.
//!
//! Edge. The thread waits only for its socket.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::counters::{Counters, Event};
use super::deferred::{self, Deferred, Tally, UdpWay};
use super::mmsg::{BATCH, Batch, Datagram, Inbox};
use super::sockets::Lane;
use super::{Asked, Handler, Verdict};
use crate::clock::{Moment, boot_time};
use crate::peer::is_peer;
use crate::wire::{self, ErrorCode, NameBuffer, Query, Reply, Transport, UDP_SIZE_PLAIN, rcode};

/// The state that every lane of a listener shares.
pub(super) struct Listener<H> {
    pub(super) handler: Arc<H>,
    pub(super) counters: Arc<Counters>,
    /// Receives queries that need more time; `None` if they are no longer accepted.
    pub(super) later: Option<mpsc::Sender<Deferred>>,
    pub(super) phase: Arc<AtomicU8>,
    /// How long a TCP connection can be idle, for clients that ask: in units of 100 ms (RFC 7828).
    pub(super) keepalive_tenths: u16,
    /// The largest reply over UDP, in bytes.
    pub(super) udp_size_max: u16,
}

/// The phases of the threads, in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// They leave queries in the queues.
    Waiting = 0,
    /// They answer.
    Serving = 1,
    /// Queries that have arrived are answered in full. Later queries are answered if that is
    /// possible at once; the others fail at once, so that the end is not delayed forever.
    Draining = 2,
    /// They leave queries in the queues, and no query is deferred any more.
    Leaving = 3,
    /// They end as soon as their queues are empty.
    Ending = 4,
    /// They end at once, and leave queries in the queues.
    Left = 5,
}

impl Phase {
    /// Returns the phase of the listener with this state.
    pub(super) fn of(state: &AtomicU8) -> Self {
        match state.load(Ordering::Relaxed) {
            0 => Self::Waiting,
            1 => Self::Serving,
            2 => Self::Draining,
            3 => Self::Leaving,
            4 => Self::Ending,
            _ => Self::Left,
        }
    }
}

/// How the next batch is read in a phase other than [`Phase::Serving`].
struct Turn {
    /// The thread ends if the queue is empty.
    is_ending: bool,
    /// Queries are deferred until the queue is empty once.
    is_closing: bool,
}

impl<H> Clone for Listener<H> {
    fn clone(&self) -> Self {
        Self {
            handler: Arc::clone(&self.handler),
            counters: Arc::clone(&self.counters),
            later: self.later.clone(),
            phase: Arc::clone(&self.phase),
            keepalive_tenths: self.keepalive_tenths,
            udp_size_max: self.udp_size_max,
        }
    }
}

/// The action for a message.
pub(super) enum Response {
    /// Send this many bytes of the buffer.
    Send(usize),
    /// The handler needs more time. This many bytes of the buffer are a reply without records,
    /// whose cookies the later reply must have.
    Later(usize),
    /// Do not reply.
    Nothing,
}

impl<H> Listener<H> {
    /// Returns whether queries must stay in the queues.
    pub(super) fn is_waiting(&self) -> bool {
        Phase::of(&self.phase) == Phase::Waiting
    }

    /// Waits while queries must stay in the queue. Returns how the next batch is read, or `None` if
    /// the thread must end. Queries that arrived before the drain are deferred as usual.
    #[cold]
    fn turn(&mut self, lane: usize) -> Option<Turn> {
        loop {
            let phase = Phase::of(&self.phase);
            match phase {
                Phase::Waiting => {}
                Phase::Leaving => self.later = None,
                Phase::Left => return None,
                Phase::Serving => return Some(Turn { is_ending: false, is_closing: false }),
                Phase::Draining | Phase::Ending => {
                    let is_closing = self.later.is_some();
                    return Some(Turn { is_ending: phase == Phase::Ending, is_closing });
                }
            }
            self.counters.turn(lane, boot_time());
            std::thread::sleep(OPEN_EVERY);
        }
    }
}

impl<H: Handler> Listener<H> {
    /// Screens `message`, calls the handler and writes the reply to `buffer`. If the handler
    /// panics, only this query fails.
    pub(super) fn respond(
        &self,
        message: &[u8],
        transport: Transport,
        asked: &Asked,
        name: &mut NameBuffer,
        buffer: &mut [u8],
    ) -> Response {
        let query = match Query::screen(message, transport, name) {
            Ok(mut query) => {
                query.set_udp_size_max(self.udp_size_max);
                query
            }
            Err(refusal) => {
                self.counters.add(asked.lane, Event::Malformed, 1);
                let len = wire::refuse(message, refusal, self.udp_size_max, buffer);
                return len.map_or(Response::Nothing, Response::Send);
            }
        };
        let answer = AssertUnwindSafe(|| {
            let mut reply = Reply::new(&query, buffer);
            deferred::promise(&query, self.keepalive_tenths, &mut reply);
            let verdict = self.handler.answer(&query, asked, &mut reply);
            (verdict, reply.finish())
        });
        let (verdict, len) = catch_unwind(answer).unwrap_or_else(|_| {
            self.counters.add(asked.lane, Event::Panicked, 1);
            (Verdict::Send, failure(&query, buffer, "internal error"))
        });
        match verdict {
            Verdict::Send => {
                self.counters.reply(asked.lane, query.qtype, buffer);
                Response::Send(len)
            }
            Verdict::Later => {
                self.counters.add(asked.lane, Event::Deferred, 1);
                Response::Later(len)
            }
            Verdict::Drop => {
                self.counters.add(asked.lane, Event::Dropped, 1);
                Response::Nothing
            }
        }
    }

    /// Defers a query. If there is no room, writes SERVFAIL to `buffer` and returns its length.
    pub(super) fn put_off(
        &self,
        deferred: Deferred,
        lane: usize,
        buffer: &mut [u8],
    ) -> Option<usize> {
        let (shed, reason) = match &self.later {
            Some(later) => (later.try_send(deferred).err()?.into_inner(), TOO_MANY),
            None => (deferred, SHUTTING_DOWN),
        };
        let mut name = NameBuffer::new();
        let query = shed.query(&mut name);
        let mut reply = shed.reply(&query, buffer);
        reply.fail(rcode::SERVFAIL, ErrorCode::Other, reason);
        let len = reply.finish();
        self.counters.add(lane, Event::Shed, 1);
        self.counters.reply(lane, query.qtype, buffer);
        Some(len)
    }
}

/// Writes SERVFAIL with its reason. Returns the length.
fn failure(query: &Query<'_>, buffer: &mut [u8], text: &'static str) -> usize {
    let mut reply = Reply::new(query, buffer);
    reply.fail(rcode::SERVFAIL, ErrorCode::Other, text);
    reply.finish()
}

/// Serves one socket until the listener must end and the socket's queue is empty, or is left to the
/// next program. The socket is closed with its last owner, `lane`.
pub(super) fn serve<H: Handler>(mut listener: Listener<H>, lane: Arc<Lane>, index: usize) {
    let mut inbox = Inbox::new(true, lane.wildcard);
    let mut replies = Batch::with_room(usize::from(listener.udp_size_max).max(UDP_SIZE_PLAIN));
    let mut name = NameBuffer::new();
    loop {
        let mut turn = Turn { is_ending: false, is_closing: false };
        if listener.phase.load(Ordering::Relaxed) != Phase::Serving as u8 {
            let Some(other) = listener.turn(index) else { return };
            turn = other;
        }
        let Turn { is_ending, is_closing } = turn;
        let received = inbox.receive(&lane.socket, !is_ending && !is_closing);
        let emptied = !matches!(received, Ok(BATCH));
        let now = boot_time();
        listener.counters.turn(index, now);
        match received {
            Ok(received) => {
                listener.counters.add(index, Event::ReceivedUdp, received as u64);
                let reader = Reader { listener: &listener, lane: &lane, index };
                for datagram in (0..received).map(|at| inbox.datagram(at)) {
                    reader.answer(&datagram, now, &mut name, &mut replies);
                }
                let replied = replies.len() as u64;
                let failed = replies.send(&lane.socket);
                // The clock is read once for the whole batch, because its replies are sent
                // together.
                listener.counters.took(index, boot_time().since(now), replied);
                if failed > 0 {
                    listener.counters.add(index, Event::SendFailed, failed as u64);
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock if is_ending => return,
                // WouldBlock: no query arrived for a while. Refused: the client of an earlier reply
                // is gone.
                io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionRefused => {}
                _ => {
                    tracing::warn!(%error, "receiving failed");
                    std::thread::sleep(ERROR_PAUSE);
                }
            },
        }
        if is_closing && emptied {
            listener.later = None;
        }
    }
}

/// The thread that reads one socket.
struct Reader<'l, H> {
    listener: &'l Listener<H>,
    lane: &'l Arc<Lane>,
    /// The number of the lane.
    index: usize,
}

impl<H: Handler> Reader<'_, H> {
    /// Answers one datagram, and adds the reply to the batch.
    fn answer(
        &self,
        datagram: &Datagram<'_>,
        now: Moment,
        name: &mut NameBuffer,
        replies: &mut Batch,
    ) {
        let Self { listener, lane, index } = *self;
        let Some(ends) = &datagram.ends else { return };
        if datagram.truncated || !is_peer(&ends.peer) {
            listener.counters.add(index, Event::Malformed, 1);
            return;
        }
        let asked = Asked { now, peer: ends.peer, lane: index };
        let message = datagram.bytes;
        match listener.respond(message, Transport::Udp, &asked, name, replies.buffer()) {
            Response::Send(len) => replies.commit(len, Some(ends)),
            Response::Later(len) => {
                let cookie = wire::cookie_of(&replies.buffer()[..len]);
                let tally = Tally { counters: Arc::clone(&listener.counters), lane: index };
                let size_max = listener.udp_size_max;
                let way = UdpWay { lane: Arc::clone(lane), ends: *ends, size_max };
                let deferred = Deferred::udp(message, now, way, tally).with_cookie(cookie);
                if let Some(len) = listener.put_off(deferred, index, replies.buffer()) {
                    replies.commit(len, Some(ends));
                }
            }
            Response::Nothing => {}
        }
    }
}

/// The reason for a query for which the forwarder has no room.
const TOO_MANY: &str = "too many queries wait for an answer";
/// The reason for a query that arrived during the drain.
const SHUTTING_DOWN: &str = "shutting down";
/// The time between two checks whether queries can be answered.
pub(super) const OPEN_EVERY: Duration = Duration::from_millis(1);
/// A socket that fails at once every time must not use a whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
