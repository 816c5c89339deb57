//! Questions sent to one server, all at once, and their answers.
//!
//! Edge. Opens sockets and reads the clock; what an answer means is the business of the judges.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::clock::{Moment, boot_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::check::plan::Ask;
use crate::check::talk::{Answer, Over, Question, Server, Silence, Talk};
use crate::probe::unspecified;

/// Asks `server` everything in `asks`; each question waits at most `timeout`.
pub async fn ask_all(server: SocketAddr, asks: Vec<Ask>, timeout: Duration) -> Server {
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut tasks = JoinSet::new();
    for (index, ask) in asks.into_iter().enumerate() {
        let places = Arc::clone(&places);
        tasks.spawn(async move {
            let place = places.acquire().await.expect("the semaphore never closes");
            let talk = ask_one(server, ask, timeout).await;
            drop(place);
            (index, talk)
        });
    }
    let mut talks = tasks.join_all().await;
    talks.sort_by_key(|(index, _)| *index);
    Server { address: server, talks: talks.into_iter().map(|(_, talk)| talk).collect() }
}

/// Asks once. A truncated answer is asked for again over TCP by the plan, not here.
async fn ask_one(server: SocketAddr, ask: Ask, timeout: Duration) -> Talk {
    let Ask { question, over, is_sample } = ask;
    let start = boot_time();
    let id = rand::random();
    let result = match question.encode(over, id) {
        None => Err(Silence::BadName),
        Some(message) => {
            let query = Query { question: &question, id, message, end: start + timeout };
            match over {
                Over::Tcp => tcp(server, &query).await,
                _ => udp(server, &query, if is_sample { timeout } else { RESEND }).await,
            }
        }
    };
    let result = result.map_err(|silence| match silence {
        Silence::Timeout(_) => Silence::Timeout(timeout),
        other => other,
    });
    Talk { question, over, took: boot_time().since(start), result }
}

/// A query on its way.
struct Query<'a> {
    question: &'a Question,
    id: u16,
    message: Vec<u8>,
    /// When it is given up.
    end: Moment,
}

impl Query<'_> {
    /// The time that is left.
    fn left(&self) -> Duration {
        self.end.since(boot_time())
    }
}

/// Sends again after each `resend` without an answer.
async fn udp(server: SocketAddr, query: &Query<'_>, resend: Duration) -> Result<Answer, Silence> {
    let socket = UdpSocket::bind(unspecified(server))
        .await
        .map_err(|error| network("open a socket", error))?;
    socket.connect(server).await.map_err(|error| network("connect", error))?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut malformed = None;
    while !query.left().is_zero() {
        socket.send(&query.message).await.map_err(|error| network("send", error))?;
        let again = boot_time() + resend.min(query.left());
        while let Ok(received) = timeout(again.since(boot_time()), socket.recv(&mut buffer)).await {
            let length = received.map_err(|error| network("receive", error))?;
            match query.question.read(&buffer[..length], query.id) {
                // Another host can send a datagram too: the reply may be still to come.
                Some(Err(silence)) => malformed = Some(silence),
                Some(Ok(answer)) => return Ok(answer),
                None => {}
            }
        }
    }
    Err(malformed.unwrap_or(Silence::Timeout(Duration::ZERO)))
}

async fn tcp(server: SocketAddr, query: &Query<'_>) -> Result<Answer, Silence> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(query.message.len()).map_err(|_| ErrorKind::InvalidInput)?;
        stream.write_all(&[&length.to_be_bytes(), &query.message[..]].concat()).await?;
        loop {
            let mut message = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut message).await?;
            if let Some(result) = query.question.read(&message, query.id) {
                return Ok(result);
            }
        }
    };
    match timeout(query.left(), exchange).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(network("ask over TCP", error)),
        Err(_) => Err(Silence::Timeout(Duration::ZERO)),
    }
}

fn network(act: &str, error: std::io::Error) -> Silence {
    match error.kind() {
        ErrorKind::ConnectionRefused => Silence::Closed,
        _ => Silence::Network(format!("cannot {act}: {error}")),
    }
}

/// Questions on their way to one server at the same time: more would be a burst.
const IN_FLIGHT_MAX: usize = 16;
/// When a question without an answer is sent again: one lost datagram is not a fault.
const RESEND: Duration = Duration::from_secs(1);
