//! Asks as fast as answers arrive, or at a fixed rate, and measures each answer.
//!
//! Edge. UDP: several connected sockets, each with a window of outstanding questions, batched
//! system calls, one thread. TCP: one connection and one thread each, pipelined. A fixed rate
//! measures from the moment at which a question was due, so that a server that stalls cannot hide
//! it by slowing the generator down (coordinated omission).
//!
//! ```text
//! udp, stream   questions out, answers in            Outstanding   which questions wait for one
//! Pace          which are due, at a fixed rate       Tally         what came of it
//! ```

mod stream;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::set_current_timer_slack;

use shared::wire::{HEADER_LEN, name_end};

use crate::verify::Firsts;
use crate::workload::Workload;

/// How a generator asks.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The server to ask.
    pub server: SocketAddr,
    /// Whether to ask over TCP instead of UDP.
    pub tcp: bool,
    /// How long to ask.
    pub duration: Duration,
    /// The number of sockets or connections.
    pub sockets: usize,
    /// Outstanding questions per socket.
    pub window: usize,
    /// Questions per second on all sockets. If it is `None`, asks as fast as answers arrive.
    pub rate: Option<f64>,
    /// The answers that later ones must equal.
    pub verify: Option<&'a Firsts>,
}

/// The results of a stretch of time, or of the whole run.
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
    /// Answers that differ from the first to their question, with `--verify`.
    pub different: u64,
    /// Answers by response code.
    pub rcodes: [u64; 16],
    /// The first question that got each code, in wire form, for codes that are failures.
    pub failed: [Option<Box<[u8]>>; 16],
    /// Time to answer, in microseconds.
    pub latency: Histogram<u64>,
}

impl Tally {
    /// Creates an empty tally.
    pub fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 10_000_000, 3).expect("valid bounds");
        Self {
            sent: 0,
            answered: 0,
            lost: 0,
            strange: 0,
            different: 0,
            rcodes: [0; 16],
            failed: [const { None }; 16],
            latency,
        }
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
        for (first, later) in self.failed.iter_mut().zip(&other.failed) {
            if first.is_none() {
                first.clone_from(later);
            }
        }
        self.latency.add(&other.latency).expect("the same bounds");
    }

    /// Counts `reply`, which echoes its question.
    fn answer(&mut self, reply: &[u8], took: Duration) {
        self.answered += 1;
        let rcode = usize::from(reply[3] & 0x0f);
        self.rcodes[rcode] += 1;
        if is_failure(rcode) && self.failed[rcode].is_none() {
            let end = name_end(reply, HEADER_LEN).map(|end| end + 4);
            self.failed[rcode] = end.and_then(|end| reply.get(HEADER_LEN..end)).map(Box::from);
        }
        self.latency.saturating_record(took.as_micros().max(1) as u64);
    }
}

/// Returns whether a response code means that the server did not answer the question: every code
/// except NOERROR and NXDOMAIN.
pub fn is_failure(rcode: usize) -> bool {
    !matches!(rcode, 0 | 3)
}

/// Runs `plan` until its time is over or `stop` is set. Sends a tally for each second.
///
/// Fails if a socket cannot be opened or connected.
pub fn run(
    plan: &Plan<'_>,
    workload: &Workload,
    stop: &AtomicBool,
    progress: &Sender<Tally>,
) -> io::Result<()> {
    if !plan.tcp {
        return udp::run(plan, workload, stop, progress);
    }
    let share = plan.rate.map(|rate| rate / plan.sockets as f64);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.sockets)
            .map(|index| {
                let plan = Plan { rate: share, ..*plan };
                let progress = progress.clone();
                scope.spawn(move || stream::run(&plan, workload, index as u64, stop, &progress))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic in a stream"))
    })
}

/// The outstanding questions of one socket: when each was due, and its number in the workload. The
/// low bits of an ID are the index of its slot. Few slots are used in turn, so that they stay in
/// the processor's cache. A slot that is still in use when its turn comes is skipped.
struct Outstanding {
    slots: Vec<Option<(Instant, u64, u16)>>,
    count: usize,
    next: u16,
    heard: Instant,
}

impl Outstanding {
    /// Creates room for `window` questions.
    fn new(window: usize, now: Instant) -> Self {
        let slots = (2 * window).next_power_of_two().min(1 << 16);
        Self { slots: vec![None; slots], count: 0, next: 0, heard: now }
    }

    /// Returns the ID of a new question. A slot is always free, because there are more slots than
    /// any window has.
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

    /// Gives up all questions if no reply arrived for [`LOST_AFTER`]. Returns how many were given
    /// up.
    fn give_up(&mut self, now: Instant) -> u64 {
        if self.count == 0 || now.duration_since(self.heard) < LOST_AFTER {
            return 0;
        }
        self.slots.fill(None);
        self.heard = now;
        std::mem::take(&mut self.count) as u64
    }
}

/// Computes which questions are due at a fixed rate.
#[derive(Clone, Copy, Debug)]
struct Pace {
    start: Instant,
    /// Questions per second.
    rate: f64,
}

impl Pace {
    /// Returns the pace of `plan` from `start` on, or `None` if it has no fixed rate. Sets the
    /// timer of this thread to wake as precisely as the system can.
    fn new(plan: &Plan<'_>, start: Instant) -> Option<Self> {
        let rate = plan.rate?;
        // If this fails, a question is sent some 50 us late, and its latency includes that.
        set_current_timer_slack(NonZeroU64::new(1)).unwrap_or_default();
        Some(Self { start, rate })
    }

    /// Returns when question `number`, from zero, is due.
    fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// Returns how many questions are due at `now` if `asked` have been sent.
    fn room(&self, asked: u64, now: Instant) -> usize {
        let due = self.rate * now.saturating_duration_since(self.start).as_secs_f64();
        (due as u64).saturating_sub(asked) as usize
    }

    /// Waits until one of `sockets` can be read, or the question after `asked` others is due.
    /// Returns whether a socket can be read.
    fn wait(&self, asked: u64, sockets: &[BorrowedFd<'_>]) -> io::Result<bool> {
        // Waits a moment longer, because a time that is rounded down would be too early.
        let due = self.due(asked + 1).saturating_duration_since(Instant::now()) + WAKE_AFTER;
        let timeout = Timespec { tv_sec: 0, tv_nsec: due.min(LOST_AFTER).subsec_nanos().into() };
        let mut sockets: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::from_borrowed_fd(*socket, PollFlags::IN)).collect();
        match poll(&mut sockets, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The questions, and the first answers to them, which later answers must equal.
type Expected<'a> = (&'a Workload, Option<&'a Firsts>);

/// Counts a reply that has just arrived. It is an answer if its question is outstanding.
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
        tally.answer(reply, open.heard.duration_since(due));
        tally.different += u64::from(firsts.is_some_and(|firsts| firsts.differs(number, reply)));
    } else {
        tally.strange += 1;
    }
}

/// Sends the tally of a stretch. If the receiver is gone, the summary is already being written.
fn report(progress: &Sender<Tally>, tally: &mut Tally) {
    let stretch = std::mem::replace(tally, Tally::new());
    if progress.send(stretch).is_err() {
        // The receiver is dropped only when the program ends.
    }
}

/// A question is lost if its socket receives no reply at all for this long.
pub const LOST_AFTER: Duration = Duration::from_millis(500);
/// Short compared with every latency worth measuring.
const WAKE_AFTER: Duration = Duration::from_micros(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_due_one_by_one_and_none_is_forgotten() {
        let start = Instant::now();
        let pace = Pace { start, rate: 1_000.0 };
        assert_eq!(pace.due(5), start + Duration::from_millis(5));
        let at = |millis: u64| start + Duration::from_micros(1_000 * millis + 500);
        let rows: [(u64, u64, usize); 5] =
            [(0, 0, 0), (0, 5, 5), (3, 5, 2), (7, 5, 0), (5_000, 5_001, 1)];
        for (asked, millis, room) in rows {
            assert_eq!(pace.room(asked, at(millis)), room, "{asked} asked after {millis} ms");
        }
    }

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
