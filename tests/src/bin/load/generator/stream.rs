//! Asks over TCP: one connection, pipelined. Answers can arrive in any order (RFC 7766).
//!
//! Edge.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::{LOST_AFTER, Outstanding, Pace, Plan, Tally, report, settle};
use crate::workload::Workload;

/// Fills the window of connection `index`, reads the answers, and fills it again.
pub fn run(
    plan: &Plan<'_>,
    workload: &Workload,
    index: u64,
    stop: &AtomicBool,
    progress: &Sender<Tally>,
) -> io::Result<()> {
    let connection = TcpStream::connect(plan.server)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(LOST_AFTER))?;
    let start = Instant::now();
    let pace = Pace::new(plan, start);
    let mut stream = Stream {
        connection,
        open: Outstanding::new(plan.window, start),
        first: index << 32,
        asked: 0,
        output: Vec::new(),
        input: vec![0; INPUT_BYTES],
        kept: 0,
    };
    let mut tally = Tally::new();
    let mut stretch = start + Duration::from_secs(1);
    while start.elapsed() < plan.duration && !stop.load(Relaxed) {
        stream.ask(plan, workload, pace, &mut tally)?;
        stream.hear(plan, workload, pace, &mut tally)?;
        if Instant::now() >= stretch {
            stretch += Duration::from_secs(1);
            report(progress, &mut tally);
        }
    }
    report(progress, &mut tally);
    Ok(())
}

/// A connection with its outstanding questions.
struct Stream {
    connection: TcpStream,
    open: Outstanding,
    /// The number of its first question in the workload.
    first: u64,
    asked: u64,
    output: Vec<u8>,
    /// Answers. The last one may be incomplete, with `kept` bytes of it.
    input: Vec<u8>,
    kept: usize,
}

impl Stream {
    /// Sends questions until the window is full. At a fixed rate, sends only those that are due.
    fn ask(
        &mut self,
        plan: &Plan<'_>,
        workload: &Workload,
        pace: Option<Pace>,
        tally: &mut Tally,
    ) -> io::Result<()> {
        let now = Instant::now();
        let room = plan.window.saturating_sub(self.open.count);
        let room = pace.map_or(room, |pace| room.min(pace.room(self.asked, now)));
        let mut question = [0; 512];
        self.output.clear();
        for _ in 0..room {
            let number = self.first + self.asked;
            let due = pace.map_or(now, |pace| pace.due(self.asked));
            let len = workload.write(number, &mut question);
            question[..2].copy_from_slice(&self.open.ask(due, number).to_be_bytes());
            self.output.extend((len as u16).to_be_bytes());
            self.output.extend_from_slice(&question[..len]);
            self.asked += 1;
        }
        tally.sent += room as u64;
        self.connection.write_all(&self.output)
    }

    /// Reads once. At a fixed rate, waits at most until the next question is due.
    fn hear(
        &mut self,
        plan: &Plan<'_>,
        workload: &Workload,
        pace: Option<Pace>,
        tally: &mut Tally,
    ) -> io::Result<()> {
        if let Some(pace) = pace
            && !pace.wait(self.asked, &[self.connection.as_fd()])?
        {
            tally.lost += self.open.give_up(Instant::now());
            return Ok(());
        }
        let received = match self.connection.read(&mut self.input[self.kept..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tally.lost += self.open.give_up(Instant::now());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.open.heard = Instant::now();
        let end = self.kept + received;
        let mut rest = &self.input[..end];
        while let Some((&[l1, l0], body)) = rest.split_first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes([l1, l0]));
            let Some((reply, tail)) = body.split_at_checked(len) else { break };
            rest = tail;
            settle(reply, (workload, plan.verify), &mut self.open, tally);
        }
        self.kept = rest.len();
        self.input.copy_within(end - self.kept..end, 0);
        Ok(())
    }
}

/// Room for the longest answer, and for many usual ones.
const INPUT_BYTES: usize = 1 << 17;
