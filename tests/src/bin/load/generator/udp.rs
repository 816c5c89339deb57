//! Asks over UDP: several sockets, one thread, batched system calls.
//!
//! Edge.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use shared::serve::{Batch, Inbox, can_join};

use super::{Expected, LOST_AFTER, Outstanding, Pace, Plan, Tally, report, settle};
use crate::workload::Workload;

/// Runs `plan`, and waits for the last answers.
pub fn run(
    plan: &Plan<'_>,
    workload: &Workload,
    stop: &AtomicBool,
    progress: &Sender<Tally>,
) -> io::Result<()> {
    Udp::new(plan)?.run(plan, workload, stop, progress)
}

/// The sockets, and the buffers that they share.
struct Udp {
    sockets: Vec<(UdpSocket, Outstanding)>,
    inbox: Inbox,
    batch: Batch,
    /// Whether the questions of one batch pass the kernel together. The server still receives them
    /// one by one.
    joined: bool,
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
        let sockets = (0..plan.sockets).map(open).collect::<io::Result<Vec<_>>>()?;
        let joined =
            plan.server.ip().is_loopback() && sockets.iter().all(|(socket, _)| can_join(socket));
        let (inbox, batch) = (Inbox::new(false, false), Batch::new());
        Ok(Self { sockets, inbox, batch, joined, number: 0 })
    }

    fn run(
        mut self,
        plan: &Plan<'_>,
        workload: &Workload,
        stop: &AtomicBool,
        progress: &Sender<Tally>,
    ) -> io::Result<()> {
        let start = Instant::now();
        let pace = Pace::new(plan, start);
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
                    moved |= self.send(index, plan, workload, pace, &mut tally);
                }
            }
            if now >= stretch {
                stretch += Duration::from_secs(1);
                report(progress, &mut tally);
            }
            match pace {
                _ if moved => {}
                Some(pace) => {
                    let sockets: Vec<_> = self.sockets.iter().map(|(at, _)| at.as_fd()).collect();
                    pace.wait(self.number, &sockets)?;
                }
                None => std::thread::sleep(WINDOW_PAUSE),
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
        pace: Option<Pace>,
        tally: &mut Tally,
    ) -> bool {
        let now = Instant::now();
        let (socket, open) = &mut self.sockets[index];
        let mut room = plan.window.saturating_sub(open.count).min(shared::serve::BATCH);
        if let Some(pace) = pace {
            room = room.min(pace.room(self.number, now));
        } else if room < shared::serve::BATCH / 2 && open.count > plan.window / 2 {
            return false; // wait until a batch is worth its system call
        }
        for _ in 0..room {
            let due = pace.map_or(now, |pace| pace.due(self.number));
            let buffer = self.batch.buffer();
            let len = workload.write(self.number, buffer);
            let id = open.ask(due, self.number);
            buffer[..2].copy_from_slice(&id.to_be_bytes());
            self.batch.commit(len, None);
            self.number += 1;
        }
        if room > 0 {
            // If the kernel does not accept a question, it gets no answer and is counted as lost.
            if self.joined {
                self.batch.send_joined(socket);
            } else {
                self.batch.send(socket);
            }
            tally.sent += room as u64;
        }
        room > 0
    }
}

/// Receive buffer of each socket. If it is too small, the generator drops answers and counts them
/// as lost.
const BUFFER_BYTES: usize = 4 << 20;
/// How long a full window waits if no answer has arrived.
const WINDOW_PAUSE: Duration = Duration::from_micros(100);
