//! One probe: a DNS query with a deadline, and its outcome.
//!
//! Edge. It sends, waits and reads the clock. `question` decides what a reply means.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use crate::config::{Pace, Probe, Transport};
use crate::question::{Question, Verdict};
use crate::status::{Failure, Outcome};

/// Asks once. Over UDP, the query is sent up to three times. If the reply is truncated, asks again
/// over TCP. If no reply arrives, asks the server about itself: if the program answers that, it is
/// not stuck. Ends at twice the deadline of `pace` at the latest.
pub async fn ask(probe: &Probe, pace: Pace) -> Outcome {
    let start = Instant::now();
    let result = within(pace, start, answer(probe, pace, start)).await;
    let latency = start.elapsed();
    let replied = match &result {
        Err(failure) if !failure.is_reply() => is_alive(probe, pace).await,
        _ => true,
    };
    Outcome { latency, result, replied }
}

/// Sends the probe's question. If the name has no address of the requested family, an address of
/// the other family also counts, because a cluster may have either.
async fn answer(probe: &Probe, pace: Pace, start: Instant) -> Result<(), Failure> {
    let label = rand::random();
    let question = Question::new(probe, probe.rtype, rand::random(), label);
    let failure = match exchange(probe, &question, pace, start).await {
        Err(failure @ Failure::NoRecord { .. }) => failure,
        result => return result,
    };
    let Some(other) = probe.other_family() else { return Err(failure) };
    let question = Question::new(probe, other, rand::random(), label);
    exchange(probe, &question, pace, Instant::now()).await.map_err(|_| failure)
}

/// Returns whether the server sends any reply to a question about itself, over UDP.
async fn is_alive(probe: &Probe, pace: Pace) -> bool {
    let question = Question::about_the_server(probe, rand::random());
    let start = Instant::now();
    let asked = async { udp(probe.server, &question, pace, start).await?.unwrap_or(Ok(())) };
    match within(pace, start, asked).await {
        Ok(()) => true,
        Err(failure) => failure.is_reply(),
    }
}

async fn within(
    pace: Pace,
    start: Instant,
    asked: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let timeout = Failure::Timeout { after: pace.deadline };
    timeout_at(start + pace.deadline, asked).await.unwrap_or(Err(timeout))
}

async fn exchange(
    probe: &Probe,
    question: &Question,
    pace: Pace,
    start: Instant,
) -> Result<(), Failure> {
    if probe.transport == Transport::Udp
        && let Some(result) = udp(probe.server, question, pace, start).await?
    {
        return result;
    }
    tcp(probe.server, question).await?
}

/// Returns the reply over UDP, or `None` if it was truncated.
///
/// If the port is closed, the other system sends an error, so that this returns at once.
async fn udp(
    server: SocketAddr,
    question: &Question,
    pace: Pace,
    start: Instant,
) -> Result<Option<Result<(), Failure>>, Failure> {
    let socket = act("open a socket", UdpSocket::bind(unspecified(server))).await?;
    act("connect", socket.connect(server)).await?;
    // The last wait ends with the probe's deadline.
    let waits = pace.resend.into_iter().chain([pace.deadline]);
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut failure = Failure::Timeout { after: pace.deadline };
    for wait in waits {
        act("send", socket.send(question.message())).await?;
        while let Ok(received) = timeout_at(start + wait, socket.recv(&mut buffer)).await {
            let len = received.map_err(failed("receive"))?;
            match question.judge(&buffer[..len]) {
                // Another host can send a datagram too, so the reply may still arrive.
                Verdict::Reply(Err(Failure::Malformed)) => failure = Failure::Malformed,
                Verdict::Reply(result) => return Ok(Some(result)),
                Verdict::Truncated => return Ok(None),
                Verdict::NotOurs => {}
            }
        }
    }
    Err(failure)
}

/// Returns the address to which a UDP socket is bound before it is connected to `server`.
pub(crate) fn unspecified(server: SocketAddr) -> SocketAddr {
    match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Returns the reply over TCP.
async fn tcp(server: SocketAddr, question: &Question) -> Result<Result<(), Failure>, Failure> {
    let mut stream = act("connect over TCP", TcpStream::connect(server)).await?;
    let len = u16::try_from(question.message().len()).expect("a query is a few hundred bytes");
    let framed = [&len.to_be_bytes(), question.message()].concat();
    act("send over TCP", stream.write_all(&framed)).await?;
    let mut message = Vec::new();
    loop {
        let len = act("receive over TCP", stream.read_u16()).await?;
        message.resize(usize::from(len), 0);
        act("receive over TCP", stream.read_exact(&mut message)).await?;
        match question.judge(&message) {
            Verdict::Reply(result) => return Ok(result),
            // Every message fits into a stream, so TC is not valid there.
            Verdict::Truncated => return Ok(Err(Failure::Malformed)),
            Verdict::NotOurs => {}
        }
    }
}

async fn act<T>(
    act: &'static str,
    doing: impl Future<Output = io::Result<T>>,
) -> Result<T, Failure> {
    doing.await.map_err(failed(act))
}

fn failed(act: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Network { act, kind: error.kind() }
}
