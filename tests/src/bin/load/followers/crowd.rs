//! Thousands of followers of every replica: connected one after the other, read by one thread.
//!
//! Edge. Knows HTTP/1.1 as far as a stream of lines needs it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use super::Error;
use crate::scale::cluster::is_headless;

/// All followers, and what they have seen.
pub struct Crowd {
    streams: Vec<Stream>,
    poll: Poll,
    changes: usize,
    /// For each follower and each change whether the entry is removed.
    removed: Vec<bool>,
    /// For each change how many followers have not removed their entry.
    left: Vec<u32>,
    /// What the same bytes meant before: every follower of a replica reads the same.
    known: HashMap<Box<[u8]>, Arc<[usize]>>,
    /// Microseconds from a change to each removal.
    pub each: Histogram<u64>,
    /// Microseconds from a change to the last removal.
    pub last: Histogram<u64>,
    /// Bytes read.
    pub bytes: u64,
    /// Streams that have ended.
    ended: u64,
}

/// One stream of one follower.
struct Stream {
    socket: TcpStream,
    follower: usize,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
}

impl Crowd {
    /// Connects `count` followers to every one of `replicas`, and waits for the first line of each
    /// stream. There will be `changes` changes.
    pub fn connect(replicas: &[SocketAddr], count: usize, changes: usize) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::Wait)?;
        let mut streams: Vec<Stream> = Vec::new();
        for follower in 0..count {
            for &replica in replicas {
                let socket = connect(replica, follower)?;
                let mut socket = TcpStream::from_std(socket);
                let token = Token(streams.len());
                poll.registry()
                    .register(&mut socket, token, Interest::READABLE)
                    .map_err(Error::Wait)?;
                streams.push(Stream { socket, follower, rest: Vec::new() });
            }
        }
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        Ok(Self {
            streams,
            poll,
            changes,
            removed: vec![false; count * changes],
            left: vec![count as u32; changes],
            known: HashMap::new(),
            each: histogram(),
            last: histogram(),
            bytes: 0,
            ended: 0,
        })
    }

    /// Reads until every follower has removed the entry of each change, which is made at the time
    /// in `written`.
    ///
    /// Fails if that does not happen in time.
    pub fn run(mut self, written: &[OnceLock<Instant>]) -> Result<Self, Error> {
        let mut events = Events::with_capacity(1_024);
        let mut buffer = vec![0; 64 << 10];
        let mut open = self.changes;
        while open > 0 {
            match self.poll.poll(&mut events, Some(WAIT)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(Error::Wait(error));
                }
                _ => {}
            }
            for event in &events {
                open -= self.read(event.token().0, &mut buffer, written);
            }
            let is_late = |at: &Instant| at.elapsed() > LOST_AFTER;
            if written.last().and_then(OnceLock::get).is_some_and(is_late) {
                let lost = self.left.iter().copied().map(u64::from).sum();
                let (all, ended) = (self.removed.len() as u64, self.ended);
                return Err(Error::Lost { lost, all, ended });
            }
        }
        Ok(self)
    }

    /// Reads what a stream has. Returns how many changes are complete by that.
    fn read(&mut self, index: usize, buffer: &mut [u8], written: &[OnceLock<Instant>]) -> usize {
        let mut complete = 0;
        loop {
            let stream = &mut self.streams[index];
            let Ok(len) = stream.socket.read(buffer) else { return complete };
            if len == 0 {
                self.ended += 1;
                return complete;
            }
            self.bytes += len as u64;
            let (follower, now) = (stream.follower, Instant::now());
            let numbers = match stream.rest.is_empty() && buffer[..len].ends_with(b"\n") {
                true => self.meaning(&buffer[..len]),
                false => {
                    stream.rest.extend_from_slice(&buffer[..len]);
                    let end = stream.rest.iter().rposition(|&byte| byte == b'\n');
                    let Some(end) = end else { continue };
                    let lines: Vec<u8> = stream.rest.drain(..=end).collect();
                    self.meaning(&lines)
                }
            };
            for &number in numbers.iter().filter(|&&number| number < self.changes) {
                let Some(at) = written[number].get() else { continue };
                let removed = &mut self.removed[follower * self.changes + number];
                if !std::mem::replace(removed, true) {
                    let micros = now.saturating_duration_since(*at).as_micros() as u64;
                    self.each.saturating_record(micros);
                    self.left[number] -= 1;
                    if self.left[number] == 0 {
                        self.last.saturating_record(micros);
                        complete += 1;
                    }
                }
            }
            if len < buffer.len() {
                return complete; // all that there was: epoll(7)
            }
        }
    }

    /// Returns the numbers of the changes that `lines` report.
    fn meaning(&mut self, lines: &[u8]) -> Arc<[usize]> {
        if let Some(known) = self.known.get(lines) {
            return Arc::clone(known);
        }
        let text = String::from_utf8_lossy(lines);
        let numbers: Arc<[usize]> = text.split("svc-").skip(1).filter_map(number).collect();
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(lines.into(), Arc::clone(&numbers));
        numbers
    }
}

/// Returns the number of the change to the Service with the number at the start of `text`. Headless
/// Services do not change.
fn number(text: &str) -> Option<usize> {
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let service: usize = text[..end].parse().ok()?;
    (!is_headless(service)).then(|| service - service / 10)
}

/// Connects `follower` to `replica` from an address of its own, asks for the changes and reads the
/// first line.
fn connect(replica: SocketAddr, follower: usize) -> Result<std::net::TcpStream, Error> {
    let failed = |source| Error::Connect { number: follower, replica, source };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(failed)?;
    let [.., high, low] = (follower as u32).to_be_bytes();
    let own = SocketAddr::new(Ipv4Addr::new(127, 1, high, low).into(), 0);
    socket.bind(&own.into()).map_err(failed)?;
    socket.connect_timeout(&replica.into(), CONNECT_MAX).map_err(failed)?;
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(CONNECT_MAX)).map_err(failed)?;
    stream.write_all(b"GET /changes HTTP/1.1\r\nhost: kubedns\r\n\r\n").map_err(failed)?;
    let mut head = Vec::new();
    while !head.ends_with(b"}\n\r\n") {
        let mut piece = [0; 1_024];
        let len = stream.read(&mut piece).map_err(failed)?;
        head.extend_from_slice(&piece[..len]);
        if len == 0 {
            let head = String::from_utf8_lossy(&head).into_owned();
            return Err(Error::Refused { number: follower, replica, head });
        }
    }
    stream.set_nonblocking(true).map_err(failed)?;
    Ok(stream)
}

/// A removal that does not happen for this long after the last change is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(10);
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the time.
const WAIT: Duration = Duration::from_millis(100);
/// Different chunks whose meaning is kept.
const KNOWN_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_change_are_counted_without_the_headless_ones() {
        let rows = [("0.ns-0.svc", Some(0)), ("8.", Some(8)), ("9.", None), ("10.", Some(9))];
        for (text, expected) in rows.into_iter().chain([("x", None), ("7", None), ("", None)]) {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
