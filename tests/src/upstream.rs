//! A scripted upstream server over UDP and TCP on loopback: a table of answers, and every way in
//! which a server can fail.
//!
//! It parses DNS with hickory-proto, and must not depend on its clients. `tests/it` and `cargo
//! load` share it.
//!
//! ```text
//! udp, tcp ─ query ─▶ script ─▶ reply ─ messages, each with its delay ─▶ udp, tcp
//! edge                core      core                                     edge
//! ```
//!
//! ```ignore
//! let upstream = Upstream::start("127.0.0.2").await;
//! upstream.answer("a.example. A", &["a.example. 30 A 10.0.0.1"]);
//! upstream.tries("b.example. A", [Reply::Nothing, Reply::Code(2), Reply::Truth]);
//! upstream.behave(Behaviour::Silent);
//! assert_eq!(upstream.asked("a.example. A"), 1);
//! ```

mod random;
mod reply;
mod script;
mod tcp;
mod text;
mod udp;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use rustix::net::connect_unspec;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::PATIENCE;

pub use random::Random;
pub use reply::{Answer, Broken, EVIL, Forgery, Reply};
pub use script::{Loss, Script, Seen};
pub use tcp::{Manner, Way};

/// How an upstream answers all queries: short names for the most common cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It answers from its table. Names that are not in the table do not exist.
    Good,
    /// It does not reply.
    Silent,
    /// It answers with this response code.
    Fails(ResponseCode),
    /// It answers SERVFAIL with the reason "Not Ready" (RFC 8914).
    NotReady,
    /// Over UDP it sends TC without records.
    Truncates,
    /// It sends other datagrams before each correct one: wrong ID, wrong question, no question,
    /// garbage, empty.
    Lies,
    /// Its replies count a record that they do not contain.
    Breaks,
    /// It sends only datagrams with a wrong ID over UDP, and correct replies over TCP.
    Forged,
}

/// A running upstream. If it is dropped, its port is closed.
pub struct Upstream {
    /// The address that it listens at, over UDP and TCP.
    pub address: SocketAddr,
    state: Arc<State>,
    udp: Arc<UdpSocket>,
    /// Keeps the port if there is no listener.
    _closed: Option<TcpSocket>,
    _tasks: JoinSet<()>,
}

/// The state that the tasks of an upstream share.
#[derive(Debug, Default)]
struct State {
    script: Mutex<Script>,
    manner: Mutex<Manner>,
    /// Queries per connection, in the order of the connections.
    connections: Mutex<Vec<usize>>,
    held: Mutex<Vec<oneshot::Sender<()>>>,
}

impl State {
    fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.script)
    }
}

/// Locks `mutex`, even if another test thread has panicked while it held the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upstream {
    /// Listens on a free port of `address`: `127.0.0.1` is treated as part of the pod, `127.0.0.2`
    /// as outside.
    pub async fn start(address: &str) -> Self {
        Self::start_at(SocketAddr::new(address.parse().expect("an address"), 0)).await
    }

    /// Listens on `address`. Port 0 becomes a port that is free for both transports.
    pub async fn start_at(address: SocketAddr) -> Self {
        let (udp, tcp) = bind(address).await;
        Self::serve(udp, Ok(tcp))
    }

    /// Listens over UDP only: connections to the port are refused.
    pub async fn start_without_tcp(address: &str) -> Self {
        let address = SocketAddr::new(address.parse().expect("an address"), 0);
        for _ in 0..BINDS_MAX {
            // A socket that is bound but does not listen refuses connections, and keeps the port
            // from other programs.
            let tcp = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            let tcp = tcp.expect("a socket");
            tcp.bind(address).expect("the address is free");
            let bound = tcp.local_addr().expect("it is bound");
            if let Ok(udp) = UdpSocket::bind(bound).await {
                return Self::serve(udp, Err(tcp));
            }
        }
        panic!("no port of {address} is free for UDP and TCP");
    }

    fn serve(udp: UdpSocket, tcp: Result<TcpListener, TcpSocket>) -> Self {
        let address = udp.local_addr().expect("it is bound");
        let state = Arc::new(State::default());
        let udp = Arc::new(udp);
        let mut tasks = JoinSet::new();
        tasks.spawn(udp::serve(Arc::clone(&udp), Arc::clone(&state)));
        let closed = match tcp {
            Ok(listener) => {
                tasks.spawn(tcp::serve(listener, Arc::clone(&state)));
                None
            }
            Err(socket) => Some(socket),
        };
        Self { address, state, udp, _closed: closed, _tasks: tasks }
    }

    /// Answers `question` (`name TYPE`) with `records`, each as `name TTL TYPE data`.
    pub fn answer(&self, question: &str, records: &[&str]) {
        self.say(question, Answer::new(records));
    }

    /// Denies `question` with `code` and a SOA, by which the denial can be cached for `ttl`
    /// seconds.
    pub fn deny(&self, question: &str, code: ResponseCode, ttl: u32) {
        self.say(question, Answer::denial(code, ttl));
    }

    /// Answers `question` with `answer`.
    pub fn say(&self, question: &str, answer: Answer) {
        self.state.script().table.insert(question.to_lowercase(), answer);
    }

    /// Answers questions for A that are not in the table with `record`, such as `30 A 10.0.0.1`.
    pub fn otherwise(&self, record: &str) {
        self.state.script().otherwise = Some(record.to_owned());
    }

    /// Denies the names below `zone` that are not in the table.
    pub fn deny_below(&self, zone: &str) {
        self.state.script().denied.push(zone.to_lowercase());
    }

    /// Sends these replies to the tries of `question`, over both transports, in their order. The
    /// last one repeats.
    pub fn tries(&self, question: &str, replies: impl IntoIterator<Item = Reply>) {
        let replies = replies.into_iter().collect();
        self.state.script().tries.insert(question.to_lowercase(), (replies, 0));
    }

    /// Sets the behaviour, over both transports.
    pub fn behave(&self, behaviour: Behaviour) {
        let both = |reply: Reply| (reply.clone(), reply);
        let (udp, tcp) = match behaviour {
            Behaviour::Good => both(Reply::Truth),
            Behaviour::Silent => both(Reply::Nothing),
            Behaviour::Fails(code) => both(Reply::Code(code.into())),
            Behaviour::NotReady => both(Reply::Reason { code: 2, reason: 14, text: "" }),
            Behaviour::Truncates => (Reply::Truncated, Reply::Truth),
            Behaviour::Breaks => both(Reply::Broken(Broken::Missing)),
            Behaviour::Forged => (Reply::Forged(vec![Forgery::Id]), Reply::Truth),
            Behaviour::Lies => {
                let lies = [
                    Forgery::Id,
                    Forgery::Name,
                    Forgery::Query,
                    Forgery::NoQuestion,
                    Forgery::Garbage,
                    Forgery::Empty,
                ];
                (Reply::Each(vec![Reply::Forged(lies.into()), Reply::Truth]), Reply::Truth)
            }
        };
        let mut script = self.state.script();
        (script.udp, script.tcp) = (udp, tcp);
    }

    /// Sends `reply` to every query over UDP that does not have its own script.
    pub fn over_udp(&self, reply: Reply) {
        self.state.script().udp = reply;
    }

    /// Sends `reply` to every query over TCP that does not have its own script.
    pub fn over_tcp(&self, reply: Reply) {
        self.state.script().tcp = reply;
    }

    /// Sets how connections are treated.
    pub fn manner(&self, manner: Manner) {
        *lock(&self.state.manner) = manner;
    }

    /// Sets the delay of each reply.
    pub fn delay(&self, delay: Duration) {
        self.state.script().delay = delay;
    }

    /// Sets the longest additional delay, which is random.
    pub fn jitter(&self, jitter: Duration) {
        self.state.script().jitter = jitter;
    }

    /// Loses datagrams by the random sequence of `seed`.
    pub fn lose(&self, loss: Loss, seed: u64) {
        let mut script = self.state.script();
        (script.loss, script.random) = (loss, Random::new(seed));
    }

    /// Closes the port over UDP, so that clients get ICMP errors. No other program can bind it.
    pub fn close_udp(&self) {
        // A connected socket receives datagrams only from its peer. For all others, the port is
        // closed.
        let nobody = SocketAddr::new(self.address.ip(), 1);
        SockRef::from(&*self.udp).connect(&nobody.into()).expect("an address of loopback");
    }

    /// Opens the port again.
    pub fn open_udp(&self) {
        connect_unspec(&*self.udp).expect("the socket is connected");
    }

    /// Sends all replies that are held back so far. Returns how many were sent.
    pub fn release(&self) -> usize {
        let held = std::mem::take(&mut *lock(&self.state.held));
        // A reply is not sent if its connection has ended.
        held.into_iter().map(|held| held.send(())).filter(Result::is_ok).count()
    }

    /// Returns how many replies are held back.
    pub fn held(&self) -> usize {
        lock(&self.state.held).len()
    }

    /// Returns how often `question` (`name TYPE`) was asked, over both transports.
    pub fn asked(&self, question: &str) -> usize {
        self.state.script().asked.get(&question.to_lowercase()).copied().unwrap_or(0)
    }

    /// Returns every query for a name below `suffix`, in order.
    pub fn seen(&self, suffix: &str) -> Vec<Seen> {
        let is_below = |seen: &&Seen| {
            seen.question().split(' ').next().is_some_and(|name| name.ends_with(suffix))
        };
        self.state.script().seen.iter().filter(is_below).cloned().collect()
    }

    /// Returns how many queries arrived for the names below `suffix`.
    pub fn count(&self, suffix: &str) -> usize {
        let is_below =
            |question: &str| question.split(' ').next().is_some_and(|name| name.ends_with(suffix));
        let script = self.state.script();
        script.asked.iter().filter(|(question, _)| is_below(question)).map(|(_, count)| count).sum()
    }

    /// Removes every query from its record.
    pub fn forget(&self) {
        let mut script = self.state.script();
        script.seen.clear();
        script.asked.clear();
    }

    /// Returns how many queries arrived over each connection, in the order of the connections.
    pub fn connections(&self) -> Vec<usize> {
        lock(&self.state.connections).clone()
    }
}

async fn bind(address: SocketAddr) -> (UdpSocket, TcpListener) {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        // A given port may be used by a client for a moment, or by a server that has just ended.
        if let Ok(tcp) = TcpListener::bind(address).await {
            let bound = tcp.local_addr().expect("it is bound");
            if let Ok(udp) = UdpSocket::bind(bound).await {
                return (udp, tcp);
            }
        }
        tokio::time::sleep(BIND_PAUSE).await;
    }
    panic!("no port of {address} is free for UDP and TCP");
}

const BINDS_MAX: usize = 32;
const BIND_PAUSE: Duration = Duration::from_millis(5);
