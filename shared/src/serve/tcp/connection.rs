//! One connection: messages in, replies out, within its limits.
//!
//! Edge. While it is idle it holds no buffer. While too many bytes wait for the client it does not
//! read, and the rest of the input stays in the kernel.
//!
//! ```text
//! socket ─▶ partial ─▶ answer ─▶ out ─▶ socket
//!                        │        └──▶ unsent, if the client does not take all
//!                        └─ later ─▶ channel ─┘ replies wait there while `unsent` is full
//! ```

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::budget::{Account, Charge, Flight, Told};
use super::stream::Stream;
use super::unsent::Unsent;
use super::{Limits, QUERY_MAX, UNSENT_PAUSE_BYTES};
use crate::clock::boot_time;
use crate::serve::counters::Event;
use crate::serve::deferred::{Deferred, Message, Tally, TcpWay};
use crate::serve::udp::{Listener, Response};
use crate::serve::{Asked, Handler};
use crate::wire::{MESSAGE_MAX, NameBuffer, Transport, cookie_of};

/// Why a connection ended.
pub(super) enum End {
    /// The client closed it, or all work is done.
    Closed,
    /// The server cut it: a deadline, a limit or an error of the socket.
    Cut,
}

pub(super) struct Connection<H> {
    stream: Stream,
    peer: SocketAddr,
    listener: Listener<H>,
    limits: Limits,
    lane: usize,
    account: Arc<Account>,
    /// The bytes of `partial` and `unsent`.
    charge: Charge,
    /// Input that is not answered yet: the beginning of a message, or whole messages for which
    /// there was no room.
    partial: Vec<u8>,
    unsent: Unsent,
    replies: (mpsc::UnboundedSender<Box<Message>>, mpsc::UnboundedReceiver<Box<Message>>),
    /// A reply taken from the channel and not queued yet.
    arrived: Option<Box<Message>>,
    /// If set, received messages are still answered, and then reading stops.
    leaving: bool,
    /// If set, reading has stopped.
    half_closed: bool,
    /// The client broke a rule. The connection is cut when its queries have been answered.
    bad: bool,
    since: Since,
}

/// When the deadlines of a connection started.
struct Since {
    /// The connection became idle.
    idle: Instant,
    /// An incomplete message began to arrive.
    message: Instant,
    /// The client last took bytes of a reply.
    reply: Instant,
}

/// The events of one turn.
#[derive(Default)]
struct Turn {
    /// A message was taken from the input.
    answered: bool,
    /// The client took bytes.
    wrote: bool,
}

/// A connection as it was accepted.
pub(super) struct Accepted {
    pub(super) stream: Stream,
    pub(super) peer: SocketAddr,
    /// The number of the lane that accepted it.
    pub(super) lane: usize,
}

impl<H: Handler> Connection<H> {
    pub(super) fn new(
        accepted: Accepted,
        listener: Listener<H>,
        limits: Limits,
        account: &Arc<Account>,
    ) -> Self {
        let Accepted { stream, peer, lane } = accepted;
        let now = Instant::now();
        Self {
            stream,
            peer,
            listener,
            limits,
            lane,
            account: Arc::clone(account),
            charge: Charge::none(account),
            partial: Vec::new(),
            unsent: Unsent::default(),
            replies: mpsc::unbounded_channel(), // bounded by flights
            arrived: None,
            leaving: false,
            half_closed: false,
            bad: false,
            since: Since { idle: now, message: now, reply: now },
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        if let End::Cut = self.serve(&stopping).await {
            self.listener.counters.add(self.lane, Event::Cut, 1);
        }
        self.stream.close();
    }

    async fn serve(&mut self, stopping: &CancellationToken) -> End {
        let mut readable = false;
        loop {
            match self.turn(readable) {
                Ok(()) => {}
                Err(_) => return End::Cut,
            }
            if let Some(end) = self.end() {
                return end;
            }
            readable = false;
            let has_work = self.may_take(0) && whole(&self.partial);
            if has_work || self.leaving && self.may_read() {
                // Lets other tasks run, and lets the runtime check the sockets.
                tokio::task::yield_now().await;
                readable = !has_work;
                continue;
            }
            let room = self.unsent.len() < UNSENT_PAUSE_BYTES && self.arrived.is_none();
            let deadline = self.deadline();
            tokio::select! {
                ready = self.stream.readable(), if self.may_read() => {
                    if ready.is_err() { return End::Cut }
                    readable = true;
                }
                ready = self.stream.writable(), if self.has_unsent() => {
                    if ready.is_err() { return End::Cut }
                }
                reply = self.replies.1.recv(), if room => self.arrived = reply,
                () = self.account.changed() => {}
                () = self.account.budget().loose(), if self.account.budget().is_tight() => {}
                () = stopping.cancelled(), if !self.leaving => self.leaving = true,
                () = until(deadline) => match self.expire() {
                    Some(end) => return end,
                    None => continue,
                },
            }
            self.leaving |= self.account.told() == Told::Leave;
        }
    }

    /// Does the work that needs no waiting: writes, queues replies, answers messages.
    fn turn(&mut self, readable: bool) -> io::Result<()> {
        let mut turn = Turn::default();
        if self.account.told() == Told::End {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.flush(&mut turn)?;
        SCRATCH.with_borrow_mut(|scratch| {
            let (input, mut out) = scratch.buffers();
            self.take_replies(&mut out);
            if self.may_take(out.len) {
                if whole(&self.partial) {
                    let waiting = std::mem::take(&mut self.partial);
                    self.answer_all(&waiting, &mut out, &mut turn);
                } else if readable {
                    self.read(input, &mut out, &mut turn)?;
                }
            }
            self.emit(&out, &mut turn)
        })?;
        self.settle(&turn)
    }

    /// Updates the account, and restarts deadlines.
    fn settle(&mut self, turn: &Turn) -> io::Result<()> {
        let held = self.partial.capacity() + self.unsent.capacity() + self.stream.held();
        if !self.charge.set(held, boot_time) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let now = Instant::now();
        let is_idle = self.is_idle();
        let was_idle = self.account.idle_since().is_some();
        if !is_idle || turn.answered || turn.wrote {
            self.since.idle = now;
        }
        if is_idle != was_idle || turn.answered || turn.wrote {
            self.account.set_idle(is_idle.then(boot_time));
        }
        // A message that arrives slowly must not get more time with each byte. A message that waits
        // because reading pauses does get more.
        if turn.answered || self.partial.is_empty() || !self.may_read() {
            self.since.message = now;
        }
        if turn.wrote || !self.has_unsent() {
            self.since.reply = now;
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.account.flights() == 0 && !self.has_unsent() && self.partial.is_empty()
    }

    /// Returns whether replies, or records of TLS, wait for the client.
    fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || self.stream.has_unsent()
    }

    /// Returns whether there is room for a message's reply if `more` bytes are about to be written.
    fn may_take(&self, more: usize) -> bool {
        self.account.flights() < self.limits.in_flight_max
            && self.unsent.len() + more < UNSENT_PAUSE_BYTES
            && !self.account.budget().is_tight()
    }

    fn may_read(&self) -> bool {
        !self.half_closed && self.may_take(0) && !whole(&self.partial)
    }

    /// Returns how it ends, if reading has stopped and all received messages have been answered.
    fn end(&self) -> Option<End> {
        let is_done = self.half_closed
            && self.account.flights() == 0
            && !self.has_unsent()
            && !whole(&self.partial);
        is_done.then_some(if self.bad { End::Cut } else { End::Closed })
    }

    /// Returns its next deadline; `None` while queries are in flight, which have deadlines of their
    /// own.
    fn deadline(&self) -> Option<Instant> {
        let message = (self.may_read() && !self.partial.is_empty()).then_some(self.since.message);
        let reply = self.has_unsent().then_some(self.since.reply);
        match [message, reply].into_iter().flatten().min() {
            Some(began) => Some(began + self.limits.message_max),
            None if self.is_idle() => Some(self.since.idle + self.limits.idle_max),
            None => None,
        }
    }

    /// Returns how it ends at that deadline; `None` if queries in flight must be answered first.
    fn expire(&mut self) -> Option<End> {
        if self.is_idle() {
            return Some(End::Closed);
        }
        if self.has_unsent() || self.account.flights() == 0 {
            return Some(End::Cut);
        }
        self.refuse_more();
        None
    }

    /// Stops reading, so that only queries in flight are answered.
    fn refuse_more(&mut self) {
        self.partial = Vec::new();
        (self.half_closed, self.bad) = (true, true);
    }

    /// Queues arrived replies, as long as there is room.
    fn take_replies(&mut self, out: &mut Out<'_>) {
        while self.unsent.len() + out.len < UNSENT_PAUSE_BYTES {
            let reply = self.arrived.take().or_else(|| self.replies.1.try_recv().ok());
            let Some(Message { bytes, flight, .. }) = reply.map(|reply| *reply) else { break };
            out.room()[..bytes.len()].copy_from_slice(&bytes);
            self.unsent.queue(out.commit(bytes.len()), Some(flight));
        }
    }

    /// Reads available input, at most a few messages, and answers the whole ones.
    fn read(&mut self, input: &mut [u8], out: &mut Out<'_>, turn: &mut Turn) -> io::Result<()> {
        let kept = self.partial.len();
        input[..kept].copy_from_slice(&self.partial);
        match self.stream.try_read(&mut input[kept..]) {
            Ok(0) => self.half_closed = true,
            Ok(received) => self.answer_all(&input[..kept + received], out, turn),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.half_closed |= self.leaving;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Answers each whole message of `input` for which there is room, and keeps the rest.
    fn answer_all(&mut self, mut input: &[u8], out: &mut Out<'_>, turn: &mut Turn) {
        while let Some((&[l1, l0], body)) = input.split_first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes([l1, l0]));
            if len > QUERY_MAX {
                tracing::debug!(peer = %self.peer, len, "too long for a query, connection closed");
                self.listener.counters.add(self.lane, Event::Malformed, 1);
                return self.refuse_more();
            }
            let Some((message, rest)) = body.split_at_checked(len) else { break };
            if !self.may_take(out.len) {
                break;
            }
            self.answer(message, out);
            turn.answered = true;
            input = rest;
        }
        self.partial = input.to_vec(); // empty most of the time, and then without an allocation
    }

    /// Answers one message, or defers it.
    fn answer(&mut self, message: &[u8], out: &mut Out<'_>) {
        let now = boot_time();
        let asked = Asked { now, peer: self.peer, lane: self.lane };
        self.listener.counters.add(self.lane, Event::ReceivedTcp, 1);
        let mut name = NameBuffer::new();
        match self.listener.respond(message, Transport::Tcp, &asked, &mut name, out.room()) {
            Response::Send(len) => {
                self.listener.counters.took(self.lane, boot_time().since(now), 1);
                self.unsent.queue(out.commit(len), None);
            }
            Response::Later(len) => {
                let cookie = cookie_of(&out.room()[..len]);
                let flight = Flight::new(&self.account);
                let tenths = self.listener.keepalive_tenths;
                let way = TcpWay::new(self.replies.0.clone(), tenths, flight);
                let tally =
                    Tally { counters: Arc::clone(&self.listener.counters), lane: self.lane };
                let deferred = Deferred::tcp(message, now, self.peer, way, tally);
                let deferred = deferred.with_cookie(cookie);
                if let Some(len) = self.listener.put_off(deferred, self.lane, out.room()) {
                    self.unsent.queue(out.commit(len), None);
                }
            }
            Response::Nothing => {}
        }
    }

    /// Writes the rest of earlier replies.
    fn flush(&mut self, turn: &mut Turn) -> io::Result<()> {
        if self.has_unsent() {
            let written = self.stream.try_write(self.unsent.bytes())?;
            turn.wrote |= written > 0;
            self.unsent.take(written);
        }
        Ok(())
    }

    /// Writes this turn's replies after the earlier ones, and keeps the bytes that the client does
    /// not take.
    fn emit(&mut self, out: &Out<'_>, turn: &mut Turn) -> io::Result<()> {
        let mut bytes = out.bytes();
        if self.unsent.is_empty() && !bytes.is_empty() {
            let written = self.stream.try_write(bytes)?;
            turn.wrote |= written > 0;
            self.unsent.pass(written);
            bytes = &bytes[written..];
        }
        if !bytes.is_empty() {
            self.unsent.keep(bytes);
        }
        Ok(())
    }
}

/// Returns whether `input` begins with a whole message.
fn whole(input: &[u8]) -> bool {
    input
        .split_first_chunk::<2>()
        .is_some_and(|(&[l1, l0], body)| body.len() >= usize::from(u16::from_be_bytes([l1, l0])))
}

/// Resolves at `deadline`, or never.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The replies of one turn, in the memory that all connections of a thread use in turn.
struct Out<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl Out<'_> {
    /// Returns the buffer of the next reply, [`MESSAGE_MAX`] bytes. It has room as long as less
    /// than [`UNSENT_PAUSE_BYTES`] were committed.
    fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.len + 2..][..MESSAGE_MAX]
    }

    /// Adds the first `len` bytes of the room as a reply. Returns its length on the wire.
    fn commit(&mut self, len: usize) -> usize {
        let prefix = u16::try_from(len).expect("a reply fits its length field");
        self.buffer[self.len..self.len + 2].copy_from_slice(&prefix.to_be_bytes());
        self.len += 2 + len;
        2 + len
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// Buffers that a connection uses only between two awaits, so one pair per thread is enough.
struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Scratch {
    fn buffers(&mut self) -> (&mut [u8], Out<'_>) {
        self.input.resize(INPUT_BYTES, 0);
        self.output.resize(UNSENT_PAUSE_BYTES + 2 + MESSAGE_MAX, 0);
        (&mut self.input, Out { buffer: &mut self.output, len: 0 })
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { input: Vec::new(), output: Vec::new() }) };
}

/// How many bytes are read at once: the beginning of a message and as much again. Input that cannot
/// be answered yet is kept, so this must be small.
const INPUT_BYTES: usize = 2 * (2 + QUERY_MAX);
