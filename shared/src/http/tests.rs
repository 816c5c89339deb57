//! Tests of the HTTP listener on loopback: its limits, streams, and the drain.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::connection::HEAD_LEN_MAX;
use super::*;

const PING: &str = "GET /ping HTTP/1.1\r\nhost: x\r\n\r\n";

struct World {
    address: SocketAddr,
    stopping: CancellationToken,
    /// A stream has ended.
    ended: Arc<Notify>,
    serving: tokio::task::JoinHandle<Result<(), Infallible>>,
}

async fn world() -> World {
    world_with(WRITE_MAX).await
}

async fn world_with(write_max: Duration) -> World {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address();
    let ended = Arc::new(Notify::new());
    let router = Router::new()
        .route("/ping", get(|| async { "pong" }))
        .route("/stream", {
            let ended = Arc::clone(&ended);
            get(|Extension(seat): Extension<Seat>| async move {
                Body::new(Endless { _away: seat.leave(), ended })
            })
        })
        .route("/slow", get(slow))
        .route("/bug", get(bug))
        .route("/body", post(|body: Bytes| async move { body.len().to_string() }));
    let stopping = CancellationToken::new();
    let serving = tokio::spawn(serve_patiently(listener, router, stopping.clone(), write_max));
    World { address, stopping, ended, serving }
}

async fn bug() -> &'static str {
    // Like a panic, but without a backtrace, which takes seconds on a busy machine.
    std::panic::resume_unwind(Box::new("a bug, on purpose"))
}

/// Does not take a seat from other connections, and sends for as long as the client reads.
struct Endless {
    _away: Away,
    ended: Arc<Notify>,
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.ended.notify_one();
    }
}

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1 << 10])))))
    }
}

/// An answer that is never sent.
async fn slow() -> &'static str {
    std::future::pending().await
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Sends `request` and reads until `end` has arrived, or the connection is closed.
async fn ask(stream: &mut TcpStream, request: &str, end: &str) -> String {
    let mut answer = Vec::new();
    let exchange = async {
        if stream.write_all(request.as_bytes()).await.is_err() {
            return; // closed before we had spoken
        }
        let mut bytes = [0; 1_024];
        while !String::from_utf8_lossy(&answer).ends_with(end) || end.is_empty() {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(len) => answer.extend_from_slice(&bytes[..len]),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await.expect("within the deadline");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn requests_are_answered_and_large_bodies_refused() {
    let world = world().await;
    let mut stream = connect(world.address).await;
    assert!(ask(&mut stream, PING, "pong").await.starts_with("HTTP/1.1 200"));
    for (len, status) in [(8 * 1_024, "200"), (8 * 1_024 + 1, "413")] {
        let body = "x".repeat(len);
        let request = format!(
            "POST /body HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-length: {len}\r\n\r\n{body}"
        );
        let answer = ask(&mut connect(world.address).await, &request, "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    let head = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(HEAD_LEN_MAX));
    let answer = ask(&mut connect(world.address).await, &head, "").await;
    assert!(answer.starts_with("HTTP/1.1 4") || answer.is_empty(), "{answer}");
    let taken = bind(world.address).await.unwrap_err();
    assert_eq!(taken.to_string(), format!("cannot listen for HTTP on {}", world.address));
}

/// Connects to `server` from `client`.
async fn connect_from(client: &str, server: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(client.parse().unwrap(), 0)).unwrap();
    socket.connect(server).await.unwrap()
}

/// Waits until the server has closed `stream`.
async fn closed(stream: &mut TcpStream) {
    ask(stream, "", "").await;
}

#[tokio::test]
async fn one_client_has_its_share_and_loses_its_longest_idle_connection() {
    let world = world().await;
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS_PER_CLIENT_MAX {
        let mut stream = connect(world.address).await;
        ask(&mut stream, PING, "pong").await;
        streams.push(stream);
    }
    ask(&mut streams[0], PING, "pong").await; // the second is now the longest idle
    let mut one_more = connect(world.address).await;
    assert!(ask(&mut one_more, PING, "pong").await.ends_with("pong"));
    closed(&mut streams[1]).await;
    for (at, stream) in streams.iter_mut().enumerate().filter(|(at, _)| *at != 1) {
        assert!(ask(stream, PING, "pong").await.ends_with("pong"), "{at}");
    }
}

#[tokio::test]
async fn idle_connections_of_others_never_keep_a_client_out() {
    let world = world().await;
    let mut others = Vec::new();
    for client in 2..10 {
        for _ in 0..64 {
            others.push(connect_from(&format!("127.0.0.{client}"), world.address).await);
        }
    }
    for _ in 0..8 {
        assert!(ask(&mut connect(world.address).await, PING, "pong").await.ends_with("pong"));
    }
}

#[tokio::test]
async fn requests_without_end_never_keep_a_client_out() {
    let world = world().await;
    let mut others = Vec::new();
    for client in 2..6 {
        for _ in 0..CONNECTIONS_PER_CLIENT_MAX {
            let mut stream = connect_from(&format!("127.0.0.{client}"), world.address).await;
            stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            others.push(stream);
        }
    }
    for _ in 0..8 {
        assert!(ask(&mut connect(world.address).await, PING, "pong").await.ends_with("pong"));
    }
}

#[tokio::test]
async fn only_a_running_stream_leaves_its_seat() {
    let world = world().await;
    let request = |method, path| format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut streams = Vec::new();
    for _ in 0..2 * CONNECTIONS_PER_CLIENT_MAX {
        let mut stream = connect(world.address).await;
        stream.write_all(request("GET", "/stream").as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 8 << 10]).await.unwrap();
        streams.push(stream);
    }
    let mut others = Vec::new();
    for _ in 0..CONNECTIONS_PER_CLIENT_MAX {
        let mut stream = connect(world.address).await;
        let head = ask(&mut stream, &request("HEAD", "/stream"), "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        others.push(stream);
    }
    assert!(ask(&mut connect(world.address).await, PING, "pong").await.ends_with("pong"));
    closed(&mut others[0]).await; // it held a seat, as no stream ran
    for stream in &mut streams {
        stream.read_exact(&mut [0; 8 << 10]).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let world = world_with(Duration::from_millis(20)).await;
    let mut stream = connect(world.address).await;
    stream.write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), world.ended.notified());
    ended.await.expect("within the deadline");
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await); // the end, or a reset
    assert!(rest.len() > 1 << 10);
}

#[tokio::test]
async fn a_client_is_known_by_its_own_address_on_a_socket_of_both_families() {
    let Ok(listener) = bind("[::]:0".parse().unwrap()).await else { return }; // without IPv6
    let port = listener.address().port();
    let who = get(|Extension(seat): Extension<Seat>| async move { seat.client().to_string() });
    let (router, stopping) = (Router::new().route("/who", who), CancellationToken::new());
    let serving = tokio::spawn(serve(listener, router, stopping.clone()));
    for client in ["127.0.0.1", "::1"] {
        let mut stream = connect(SocketAddr::new(client.parse().unwrap(), port)).await;
        let answer = ask(&mut stream, "GET /who HTTP/1.1\r\nhost: x\r\n\r\n", client).await;
        assert!(answer.ends_with(client), "{answer}");
    }
    stopping.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_costs_its_connection_only() {
    let world = world().await;
    for _ in 0..=CONNECTIONS_PER_CLIENT_MAX {
        let bug = "GET /bug HTTP/1.1\r\nhost: x\r\n\r\n";
        assert_eq!(ask(&mut connect(world.address).await, bug, "").await, "");
    }
    assert!(ask(&mut connect(world.address).await, PING, "pong").await.ends_with("pong"));
}

#[tokio::test]
async fn the_end_closes_idle_connections() {
    let world = world().await;
    let mut stream = connect(world.address).await;
    ask(&mut stream, PING, "pong").await;
    world.stopping.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), world.serving).await;
    ended.expect("within the deadline").unwrap().unwrap();
    assert_eq!(ask(&mut stream, "", "").await, "");
}
