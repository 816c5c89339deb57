//! Sends one DNS question or one HTTP request with a time limit, as dig and curl would.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Why there is no answer. Callers do not distinguish failures, because each means "try later".
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Returns the data of the answer section's records of that type, in the answer's order.
///
/// Fails if no reply arrives within [`PATIENCE`] after each of three tries.
pub async fn dns(
    server: SocketAddr,
    name: &str,
    class: DNSClass,
    rtype: RecordType,
) -> Result<Vec<RData>, Failure> {
    let mut name = Name::from_ascii(name)?;
    name.set_fqdn(true);
    let mut query = Query::query(name, rtype);
    query.set_query_class(class);
    let mut message = Message::new(ID, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query);

    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(server).await?;
    let message = message.to_vec()?;
    let mut reply = [0; shared::wire::UDP_SIZE_PLAIN];
    let mut tries = 1;
    let length = loop {
        socket.send(&message).await?;
        match timeout(PATIENCE, socket.recv(&mut reply)).await {
            Err(_) if tries < TRIES => tries += 1,
            received => break received??,
        }
    };
    let answers = Message::from_vec(&reply[..length])?.answers;
    Ok(answers
        .into_iter()
        .filter(|record| record.record_type() == rtype)
        .map(|record| record.data)
        .collect())
}

/// Returns the status and text of `http://server/path`.
///
/// Fails if the answer does not arrive within [`PATIENCE`], or is longer than [`BODY_MAX`].
pub async fn http(server: SocketAddr, path: &str) -> Result<(StatusCode, String), Failure> {
    timeout(PATIENCE, exchange(server, path)).await?
}

async fn exchange(server: SocketAddr, path: &str) -> Result<(StatusCode, String), Failure> {
    let stream = TcpStream::connect(server).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header("host", server.to_string())
        .header("connection", "close")
        .body(Empty::<Bytes>::new())?;
    let response = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::select! {
        response = response => response,
        Err(error) = connection => Err(error.into()),
        else => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// On loopback, an answer that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a datagram is sent, because the machine may be busy.
const TRIES: usize = 3;
/// The page of metrics is the longest answer.
const BODY_MAX: usize = 4 << 20;
/// The socket is connected and asks once, so any ID can be used.
const ID: u16 = 1;
