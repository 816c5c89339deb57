//! Asks as fast as the answers come, or at a fixed rate, and measures each answer.
//!
//! Edge. UDP: several connected sockets, each with a window of outstanding questions, batched
//! system calls, one thread. TCP: one connection and one thread each, pipelined. A fixed rate
//! measures from the moment a question was due, so a server that stalls cannot hide it by slowing
//! the generator down (coordinated omission).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use shared::serve::{Batch, Inbox};

use crate::verify::Firsts;
use crate::workload::Workload;

/// How to ask.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Whom.
    pub server: SocketAddr,
    /// Over TCP instead of UDP.
    pub tcp: bool,
    /// How long.
    pub duration: Duration,
    /// Sockets or connections.
    pub sockets: usize,
    /// Outstanding questions per socket.
    pub window: usize,
    /// Questions per second in all; nothing means as fast as the answers come.
    pub rate: Option<f64>,
    /// What answers are held against.
    pub verify: Option<&'a Firsts>,
}

/// What came of it, for a stretch of time or for all of it.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Questions sent.
    pub sent: u64,
    /// Answers that matched a question by ID and question bytes.
    pub answered: u64,
    /// Questions given up after [`LOST_AFTER`].
    pub lost: u64,
    /// Messages that matched no outstanding question.
    pub strange: u64,
    /// Answers that say something else than the first to their question, with `--verify`.
    pub different: u64,
    /// Answers by response code.
    pub rcodes: [u64; 16],
    /// Time to answer, in microseconds.
    pub latency: Histogram<u64>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 10_000_000, 3).expect("valid bounds");
        Self { sent: 0, answered: 0, lost: 0, strange: 0, different: 0, rcodes: [0; 16], latency }
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.lost += other.lost;
        self.strange += other.strange;
        self.different += other.different;
        for (sum, count) in self.rcodes.iter_mut().zip(other.rcodes) {
            *sum += count;
        }
        self.latency.add(&other.latency).expect("the same bounds");
    }

    fn answer(&mut self, rcode: u8, took: Duration) {
        self.answered += 1;
        self.rcodes[usize::from(rcode & 0x0f)] += 1;
        self.latency.saturating_record(took.as_micros().max(1) as u64);
    }
}

/// Runs `plan` until its time is over or `stop` is set; sends a tally of each stretch of a second.
///
/// Fails when a socket cannot be opened or connected.
pub fn run(
    plan: &Plan<'_>,
    workload: &Workload,
    stop: &AtomicBool,
    progress: &Sender<Tally>,
) -> io::Result<()> {
    if !plan.tcp {
        return Udp::new(plan)?.run(plan, workload, stop, progress);
    }
    let share = plan.rate.map(|rate| rate / plan.sockets as f64);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.sockets)
            .map(|index| {
                let plan = Plan { rate: share, ..*plan };
                let progress = progress.clone();
                scope.spawn(move || stream(&plan, workload, index as u64, stop, &progress))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic in a stream"))
    })
}

/// Outstanding questions of one socket: when each was due, and its number in the workload. IDs come
/// round in their low bits, which are the place of the slot: few slots stay in the processor's
/// cache. A slot that is still taken when its turn comes is passed over.
struct Outstanding {
    slots: Vec<Option<(Instant, u64, u16)>>,
    count: usize,
    next: u16,
    heard: Instant,
}

impl Outstanding {
    /// Room for `window` questions.
    fn new(window: usize, now: Instant) -> Self {
        let slots = (2 * window).next_power_of_two().min(1 << 16);
        Self { slots: vec![None; slots], count: 0, next: 0, heard: now }
    }

    /// The ID of a new question. There is a free slot: there are more than any window has.
    fn ask(&mut self, due: Instant, number: u64) -> u16 {
        loop {
            self.next = self.next.wrapping_add(1);
            let slot = usize::from(self.next) & (self.slots.len() - 1);
            if self.slots[slot].is_none() {
                self.slots[slot] = Some((due, number, self.next));
                self.count += 1;
                return self.next;
            }
        }
    }

    fn take(&mut self, id: u16) -> Option<(Instant, u64)> {
        let slot = usize::from(id) & (self.slots.len() - 1);
        let (due, number, _) = self.slots[slot].take_if(|(_, _, asked)| *asked == id)?;
        self.count -= 1;
        Some((due, number))
    }

    /// Gives up everything when nothing was heard for [`LOST_AFTER`]; yields how many that were.
    fn give_up(&mut self, now: Instant) -> u64 {
        if self.count == 0 || now.duration_since(self.heard) < LOST_AFTER {
            return 0;
        }
        self.slots.fill(None);
        self.heard = now;
        std::mem::take(&mut self.count) as u64
    }
}

struct Udp {
    sockets: Vec<(UdpSocket, Outstanding)>,
    inbox: Inbox,
    batch: Batch,
    /// Questions asked so far, over all sockets.
    number: u64,
}

impl Udp {
    fn new(plan: &Plan<'_>) -> io::Result<Self> {
        let local: SocketAddr =
            if plan.server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let open = |_| {
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(local),
                socket2::Type::DGRAM,
                None,
            )?;
            socket.set_recv_buffer_size(BUFFER_BYTES)?;
            socket.bind(&local.into())?;
            socket.connect(&plan.server.into())?;
            socket.set_nonblocking(true)?;
            Ok((UdpSocket::from(socket), Outstanding::new(plan.window, Instant::now())))
        };
        let sockets = (0..plan.sockets).map(open).collect::<io::Result<_>>()?;
        Ok(Self { sockets, inbox: Inbox::new(false, false), batch: Batch::new(), number: 0 })
    }

    fn run(
        mut self,
        plan: &Plan<'_>,
        workload: &Workload,
        stop: &AtomicBool,
        progress: &Sender<Tally>,
    ) -> io::Result<()> {
        let start = Instant::now();
        let mut tally = Tally::new();
        let mut stretch = start + Duration::from_secs(1);
        loop {
            let now = Instant::now();
            let over = now.duration_since(start) >= plan.duration || stop.load(Relaxed);
            let outstanding: usize = self.sockets.iter().map(|(_, open)| open.count).sum();
            let given_up = now.duration_since(start) >= plan.duration + LOST_AFTER;
            if over && (outstanding == 0 || given_up || stop.load(Relaxed)) {
                tally.lost += outstanding as u64;
                break;
            }
            let mut moved = false;
            for index in 0..self.sockets.len() {
                moved |= self.receive(index, (workload, plan.verify), &mut tally);
                if !over {
                    moved |= self.send(index, plan, workload, start, &mut tally);
                }
            }
            if now >= stretch {
                stretch += Duration::from_secs(1);
                report(progress, &mut tally);
            }
            if !moved {
                std::thread::sleep(if plan.rate.is_some() { RATE_PAUSE } else { WINDOW_PAUSE });
            }
        }
        report(progress, &mut tally);
        Ok(())
    }

    fn receive(&mut self, index: usize, expected: Expected<'_>, tally: &mut Tally) -> bool {
        let (socket, open) = &mut self.sockets[index];
        let mut moved = false;
        while let Ok(received) = self.inbox.receive(socket, false) {
            open.heard = Instant::now();
            moved = true;
            for reply in (0..received).map(|at| self.inbox.datagram(at).bytes) {
                settle(reply, expected, open, tally);
            }
            if received < shared::serve::BATCH {
                break;
            }
        }
        tally.lost += open.give_up(Instant::now());
        moved
    }

    fn send(
        &mut self,
        index: usize,
        plan: &Plan<'_>,
        workload: &Workload,
        start: Instant,
        tally: &mut Tally,
    ) -> bool {
        let now = Instant::now();
        let (socket, open) = &mut self.sockets[index];
        let mut room = plan.window.saturating_sub(open.count).min(shared::serve::BATCH);
        if let Some(rate) = plan.rate {
            let due = (rate * now.duration_since(start).as_secs_f64()) as u64;
            room = room.min(due.saturating_sub(self.number) as usize);
        } else if room < shared::serve::BATCH / 2 && open.count > plan.window / 2 {
            return false; // wait until a batch is worth its system call
        }
        for _ in 0..room {
            let due = match plan.rate {
                Some(rate) => start + Duration::from_secs_f64(self.number as f64 / rate),
                None => now,
            };
            let buffer = self.batch.buffer();
            let len = workload.write(self.number, buffer);
            let id = open.ask(due, self.number);
            buffer[..2].copy_from_slice(&id.to_be_bytes());
            self.batch.commit(len, None);
            self.number += 1;
        }
        if room > 0 {
            // What the kernel does not take is never answered, and so counted as lost.
            self.batch.send(socket);
            tally.sent += room as u64;
        }
        room > 0
    }
}

/// One TCP connection: fills the window, reads what comes, fills it again.
fn stream(
    plan: &Plan<'_>,
    workload: &Workload,
    index: u64,
    stop: &AtomicBool,
    progress: &Sender<Tally>,
) -> io::Result<()> {
    let mut connection = TcpStream::connect(plan.server)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(LOST_AFTER))?;
    let start = Instant::now();
    let (mut tally, mut open) = (Tally::new(), Outstanding::new(plan.window, start));
    let mut number = index << 32;
    let mut stretch = start + Duration::from_secs(1);
    let (mut input, mut kept) = (vec![0; 1 << 17], 0);
    let mut asked = [0; 512];
    while start.elapsed() < plan.duration && !stop.load(Relaxed) {
        let now = Instant::now();
        let mut output = Vec::new();
        let mut room = plan.window.saturating_sub(open.count);
        if let Some(rate) = plan.rate {
            let due = (rate * now.duration_since(start).as_secs_f64()) as u64;
            room = room.min(due.saturating_sub(tally.sent) as usize);
        }
        for _ in 0..room {
            let len = workload.write(number, &mut asked);
            asked[..2].copy_from_slice(&open.ask(now, number).to_be_bytes());
            output.extend((len as u16).to_be_bytes());
            output.extend_from_slice(&asked[..len]);
            number += 1;
        }
        tally.sent += room as u64;
        connection.write_all(&output)?;
        if open.count == 0 {
            std::thread::sleep(RATE_PAUSE);
            continue;
        }
        let received = match connection.read(&mut input[kept..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tally.lost += open.give_up(Instant::now());
                continue;
            }
            Err(error) => return Err(error),
        };
        open.heard = Instant::now();
        let mut rest = &input[..kept + received];
        while let Some((&[l1, l0], body)) = rest.split_first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes([l1, l0]));
            let Some((reply, tail)) = body.split_at_checked(len) else { break };
            rest = tail;
            settle(reply, (workload, plan.verify), &mut open, &mut tally);
        }
        let left = rest.len();
        let at = kept + received - left;
        input.copy_within(at..at + left, 0);
        kept = left;
        if open.heard >= stretch {
            stretch += Duration::from_secs(1);
            report(progress, &mut tally);
        }
    }
    report(progress, &mut tally);
    Ok(())
}

/// What answers are held against: the questions, and the first answers to them.
type Expected<'a> = (&'a Workload, Option<&'a Firsts>);

/// Counts a reply that has just been heard: an answer, if its question is outstanding.
fn settle(
    reply: &[u8],
    (workload, firsts): Expected<'_>,
    open: &mut Outstanding,
    tally: &mut Tally,
) {
    let id = reply.first_chunk::<2>().map(|id| u16::from_be_bytes(*id));
    let Some((due, number)) = id.and_then(|id| open.take(id)) else {
        tally.strange += 1;
        return;
    };
    if workload.is_answered_by(number, reply) {
        tally.answer(reply[3], open.heard.duration_since(due));
        tally.different += u64::from(firsts.is_some_and(|firsts| firsts.differs(number, reply)));
    } else {
        tally.strange += 1;
    }
}

/// Hands a stretch over; nobody listening means that the summary is already being written.
fn report(progress: &Sender<Tally>, tally: &mut Tally) {
    let stretch = std::mem::replace(tally, Tally::new());
    if progress.send(stretch).is_err() {
        // The receiver ends only with the program.
    }
}

/// A question without an answer for this long, on a socket that hears nothing else, is lost.
pub const LOST_AFTER: Duration = Duration::from_millis(500);
/// Receive buffer of each socket: a generator that drops answers measures itself.
const BUFFER_BYTES: usize = 4 << 20;
/// How long a fixed rate naps when nothing is due: short against every latency worth measuring.
const RATE_PAUSE: Duration = Duration::from_micros(50);
/// How long a full window naps when nothing has come.
const WINDOW_PAUSE: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_settles_its_question_once_and_no_other() {
        let now = Instant::now();
        let mut open = Outstanding::new(4, now);
        let kept = open.ask(now, 0);
        for number in 1..100_000 {
            let id = open.ask(now, number);
            assert_ne!(id, kept);
            assert_eq!(open.take(id.wrapping_add(8)), None, "the same slot, another ID");
            assert_eq!(open.take(id), Some((now, number)));
            assert_eq!(open.take(id), None);
        }
        assert_eq!(open.count, 1);
        assert_eq!(open.give_up(now), 0);
        assert_eq!(open.give_up(now + LOST_AFTER), 1);
        assert_eq!(open.take(kept), None);
    }
}
