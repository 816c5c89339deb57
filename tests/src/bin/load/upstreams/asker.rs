//! Clients that ask at given times, and record what reply each question got, and when.
//!
//! Edge. UDP, one thread, and a socket for each client address. A question is repeated once, or not
//! at all.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::SockRef;

use crate::workload;

/// A question to send.
#[derive(Clone, Debug)]
pub struct Question {
    /// When to send it, counted from the start.
    pub due: Duration,
    /// The name. The type is A.
    pub name: String,
    /// The group that it belongs to.
    pub group: usize,
    /// The client: a number below 250, from which its address is made.
    pub client: u8,
}

/// The result of a question.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The group that it belongs to.
    pub group: usize,
    /// When it was sent, counted from the start.
    pub sent: Duration,
    /// How long the reply took; `None` if there was none.
    pub took: Option<Duration>,
    /// The response code of the reply.
    pub rcode: u8,
    /// Whether it was sent a second time.
    pub retried: bool,
}

impl Outcome {
    /// Returns whether it was answered with NOERROR within `max`.
    pub fn is_answered_within(&self, max: Duration) -> bool {
        self.rcode == 0 && self.took.is_some_and(|took| took <= max)
    }

    /// Returns when the reply arrived, counted from the start.
    pub fn replied(&self) -> Option<Duration> {
        self.took.map(|took| self.sent + took)
    }
}

/// Sends the `questions` to `server`, and waits up to `patience` after the last one. They must be
/// in the order of their times.
pub fn ask(
    server: SocketAddr,
    questions: impl IntoIterator<Item = Question>,
    patience: Duration,
) -> io::Result<Vec<Outcome>> {
    ask_twice(server, questions, Duration::MAX, patience)
}

/// Does the same as [`ask`], but sends a question a second time if it has no reply after `retry`.
pub fn ask_twice(
    server: SocketAddr,
    questions: impl IntoIterator<Item = Question>,
    retry: Duration,
    patience: Duration,
) -> io::Result<Vec<Outcome>> {
    let mut sent = VecDeque::new();
    let mut questions = questions.into_iter().peekable();
    let mut clients = Clients { server, sockets: Vec::new(), places: HashMap::new() };
    let mut outcomes: Vec<Outcome> = Vec::new();
    let (mut open, mut last) = (0, Duration::ZERO);
    let start = Instant::now();
    loop {
        while let Some(question) = questions.next_if(|next| next.due <= start.elapsed()) {
            let place = clients.place(question.client)?;
            let client = &mut clients.sockets[place];
            let message = client.send(&question, outcomes.len())?;
            last = start.elapsed();
            let Question { group, .. } = question;
            if retry < Duration::MAX {
                sent.push_back(Sent { at: last, place, outcome: outcomes.len(), message });
            }
            outcomes.push(Outcome { group, sent: last, took: None, rcode: 0, retried: false });
            open += 1;
        }
        while sent.front().is_some_and(|old| old.at + retry <= start.elapsed())
            && let Some(old) = sent.pop_front()
        {
            let outcome = &mut outcomes[old.outcome];
            if outcome.took.is_none() {
                outcome.retried = true;
                clients.sockets[old.place].transmit(&old.message)?;
            }
        }
        let now = start.elapsed();
        let next = match questions.peek() {
            Some(question) => question.due.saturating_sub(now),
            None if open == 0 || now > last + patience => return Ok(outcomes),
            None => WAKE_EVERY,
        };
        for place in clients.wait(next.min(WAKE_EVERY))? {
            open -= clients.sockets[place].receive(start, &mut outcomes);
        }
    }
}

/// Asks for `name` every `pause` until the answer is NOERROR. Returns how long that took, or `None`
/// after `max`.
pub fn until_answered(
    server: SocketAddr,
    name: &str,
    pause: Duration,
    max: Duration,
) -> io::Result<Option<Duration>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(pause))?;
    let mut message = workload::question(name, A);
    let (start, mut buffer, mut id) = (Instant::now(), [0; 1_500], 0_u16);
    while start.elapsed() < max {
        id += 1;
        message[..2].copy_from_slice(&id.to_be_bytes());
        // The send fails until the server listens.
        socket.send(&message).map(drop).unwrap_or_default();
        let next = Instant::now() + pause;
        while Instant::now() < next {
            let Ok(length) = socket.recv(&mut buffer) else { break };
            if length > 3 && buffer[3] & 0x0f == 0 {
                return Ok(Some(start.elapsed()));
            }
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(None)
}

/// A question that was sent once, and its message.
struct Sent {
    at: Duration,
    place: usize,
    outcome: usize,
    message: Box<[u8]>,
}

/// All sockets, and the index of each client's socket.
struct Clients {
    server: SocketAddr,
    sockets: Vec<Client>,
    places: HashMap<u8, usize>,
}

impl Clients {
    /// Returns the index of the socket of `client`.
    fn place(&mut self, client: u8) -> io::Result<usize> {
        if let Some(&place) = self.places.get(&client) {
            return Ok(place);
        }
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 1, client + 1), 0))?;
        socket.set_nonblocking(true)?;
        SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES)?;
        socket.connect(self.server)?;
        self.sockets.push(Client { socket, open: HashMap::new(), id: 0 });
        self.places.insert(client, self.sockets.len() - 1);
        Ok(self.sockets.len() - 1)
    }

    /// Waits at most `max` until a socket can be read. Returns the indexes of the sockets that can
    /// be read.
    fn wait(&self, max: Duration) -> io::Result<Vec<usize>> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: max.subsec_nanos().into() };
        let mut sockets: Vec<PollFd<'_>> =
            self.sockets.iter().map(|client| PollFd::new(&client.socket, PollFlags::IN)).collect();
        match poll(&mut sockets, Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |(_, socket): &(usize, &PollFd<'_>)| !socket.revents().is_empty();
        Ok(sockets.iter().enumerate().filter(is_ready).map(|(place, _)| place).collect())
    }
}

/// One socket and its questions without a reply, by their IDs.
struct Client {
    socket: UdpSocket,
    open: HashMap<u16, usize>,
    id: u16,
}

impl Client {
    /// Sends `question` with a new ID. Returns the message.
    fn send(&mut self, question: &Question, outcome: usize) -> io::Result<Box<[u8]>> {
        self.id = self.id.wrapping_add(1);
        let mut message = workload::question(&question.name, A);
        message[..2].copy_from_slice(&self.id.to_be_bytes());
        self.open.insert(self.id, outcome);
        self.transmit(&message)?;
        Ok(message)
    }

    fn transmit(&self, message: &[u8]) -> io::Result<()> {
        match self.socket.send(message) {
            Ok(_) => Ok(()),
            // The server does not listen, or the buffer is full. The question is lost.
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Records every reply that has arrived. Returns how many there were.
    fn receive(&mut self, start: Instant, outcomes: &mut [Outcome]) -> usize {
        let (mut buffer, mut replies) = ([0; 1_500], 0);
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let id = u16::from_be_bytes([buffer[0], buffer[1]]);
            let Some(at) = self.open.remove(&id).filter(|_| length > 3) else { continue };
            let outcome = &mut outcomes[at];
            outcome.took = Some(start.elapsed().saturating_sub(outcome.sent));
            outcome.rcode = buffer[3] & 0x0f;
            replies += 1;
        }
        replies
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock)
}

const A: u16 = 1;
/// As large as the buffer of the servers, so that waiting datagrams are not lost.
const BUFFER_BYTES: usize = 4 << 20;
/// The longest sleep of the loop.
const WAKE_EVERY: Duration = Duration::from_millis(5);
