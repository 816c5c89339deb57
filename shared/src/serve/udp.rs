//! One thread per UDP socket: receive a batch, answer each query, send a batch.
//!
//! Edge. The thread never waits for anything but its socket.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::counters::{Counters, Event};
use super::deferred::{self, Deferred};
use super::mmsg::{Batch, Datagram, Inbox, boot_time};
use super::sockets::Lane;
use super::{Asked, Handler, Verdict};
use crate::clock::Moment;
use crate::wire::{self, ErrorCode, NameBuffer, Query, Reply, Transport, rcode};

/// What every lane of a listener shares.
pub(super) struct Listener<H> {
    pub(super) handler: Arc<H>,
    pub(super) counters: Arc<Counters>,
    pub(super) later: mpsc::Sender<Deferred>,
    pub(super) stopping: Arc<AtomicBool>,
    /// How long a TCP connection may idle, for clients that ask: in units of 100 ms (RFC 7828).
    pub(super) keepalive_tenths: u16,
}

impl<H> Clone for Listener<H> {
    fn clone(&self) -> Self {
        Self {
            handler: Arc::clone(&self.handler),
            counters: Arc::clone(&self.counters),
            later: self.later.clone(),
            stopping: Arc::clone(&self.stopping),
            keepalive_tenths: self.keepalive_tenths,
        }
    }
}

/// What is to be done with a message.
pub(super) enum Response {
    /// Send the first so many bytes of the buffer.
    Send(usize),
    /// The handler wants more time.
    Later,
    /// Nothing.
    Nothing,
}

impl<H: Handler> Listener<H> {
    /// Screens `message`, calls the handler and leaves the reply in `buffer`. A panic of the
    /// handler costs this query.
    pub(super) fn respond(
        &self,
        message: &[u8],
        transport: Transport,
        asked: &Asked,
        name: &mut NameBuffer,
        buffer: &mut [u8],
    ) -> Response {
        let query = match Query::screen(message, transport, name) {
            Ok(query) => query,
            Err(refusal) => {
                self.counters.add(asked.lane, Event::Malformed, 1);
                let len = wire::refuse(message, refusal, buffer);
                return len.map_or(Response::Nothing, Response::Send);
            }
        };
        let answer = AssertUnwindSafe(|| {
            let mut reply = Reply::new(&query, buffer);
            deferred::promise(&query, self.keepalive_tenths, &mut reply);
            (self.handler.answer(&query, asked, &mut reply), reply.finish())
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
                Response::Later
            }
            Verdict::Drop => {
                self.counters.add(asked.lane, Event::Dropped, 1);
                Response::Nothing
            }
        }
    }

    /// Puts a query off; where there is no room, leaves SERVFAIL in `buffer` and yields its length.
    pub(super) fn put_off(
        &self,
        deferred: Deferred,
        lane: usize,
        buffer: &mut [u8],
    ) -> Option<usize> {
        let shed = self.later.try_send(deferred).err()?.into_inner();
        let mut name = NameBuffer::new();
        let query = shed.query(&mut name);
        let len = failure(&query, buffer, "too many queries wait for an answer");
        self.counters.add(lane, Event::Shed, 1);
        self.counters.reply(lane, query.qtype, buffer);
        Some(len)
    }
}

/// SERVFAIL with its reason.
fn failure(query: &Query<'_>, buffer: &mut [u8], text: &'static str) -> usize {
    let mut reply = Reply::new(query, buffer);
    reply.fail(rcode::SERVFAIL, ErrorCode::Other, text);
    reply.finish()
}

/// Serves one socket until the listener is told to stop and the socket's queue is empty.
pub(super) fn serve<H: Handler>(listener: &Listener<H>, lane: &Arc<Lane>, index: usize) {
    let mut inbox = Inbox::new(true, lane.wildcard);
    let mut replies = Batch::new();
    let mut name = NameBuffer::new();
    loop {
        let stopping = listener.stopping.load(Ordering::Relaxed);
        let received = inbox.receive(&lane.socket, !stopping);
        let now = boot_time();
        listener.counters.turn(index, now);
        match received {
            Ok(received) => {
                listener.counters.add(index, Event::ReceivedUdp, received as u64);
                for datagram in (0..received).map(|at| inbox.datagram(at)) {
                    answer(listener, lane, index, now, (&datagram, &mut name, &mut replies));
                }
                let replied = replies.len() as u64;
                let failed = replies.send(&lane.socket);
                // One look at the clock for the whole batch: its replies leave together.
                listener.counters.took(index, boot_time().since(now), replied);
                if failed > 0 {
                    listener.counters.add(index, Event::SendFailed, failed as u64);
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock if stopping => return,
                // WouldBlock: nobody asked for a while. Refused: an earlier reply found its client
                // gone.
                io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionRefused => {}
                _ => {
                    tracing::warn!(%error, "receiving failed");
                    std::thread::sleep(ERROR_PAUSE);
                }
            },
        }
    }
}

/// Answers one datagram into the batch.
fn answer<H: Handler>(
    listener: &Listener<H>,
    lane: &Arc<Lane>,
    index: usize,
    now: Moment,
    (datagram, name, replies): (&Datagram<'_>, &mut NameBuffer, &mut Batch),
) {
    let Some(ends) = datagram.ends else { return };
    if datagram.truncated || is_reflector(ends.peer.port()) {
        listener.counters.add(index, Event::Malformed, 1);
        return;
    }
    let asked = Asked { now, peer: ends.peer, lane: index };
    let message = datagram.bytes;
    match listener.respond(message, Transport::Udp, &asked, name, replies.buffer()) {
        Response::Send(len) => replies.commit(len, Some(&ends)),
        Response::Later => {
            let counters = (Arc::clone(&listener.counters), index);
            let deferred = Deferred::udp(message, now, ends, Arc::clone(lane), counters);
            if let Some(len) = listener.put_off(deferred, index, replies.buffer()) {
                replies.commit(len, Some(&ends));
            }
        }
        Response::Nothing => {}
    }
}

/// Ports that answer whatever they receive: echo, discard, daytime, quotd, chargen, time. A query
/// from there is forged to make two servers talk to each other.
fn is_reflector(port: u16) -> bool {
    matches!(port, 0 | 7 | 9 | 13 | 17 | 19 | 37)
}

/// A socket that fails at once every time must not take a whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
