//! The HTTP listener on loopback: its limits, streams, and the drain. Knows no program.

use axum::Extension;
use axum::body::Bytes;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PING: &str = "GET /ping HTTP/1.1\r\nhost: x\r\n\r\n";

struct World {
    address: SocketAddr,
    stopping: CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), Infallible>>,
}

async fn world() -> World {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address();
    let router = Router::new()
        .route("/ping", get(|| async { "pong" }))
        .route("/leave", get(|Extension(seat): Extension<Seat>| async move { seat.leave() }))
        .route("/bug", get(bug))
        .route("/body", post(|body: Bytes| async move { body.len().to_string() }));
    let stopping = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, router, stopping.clone()));
    World { address, stopping, serving }
}

async fn bug() -> &'static str {
    // As a panic, but without a backtrace, which takes a busy machine seconds.
    std::panic::resume_unwind(Box::new("a bug, on purpose"))
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Sends `request` and reads until `end` has come, or the connection is closed.
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

#[tokio::test]
async fn one_client_has_its_share_and_streams_do_not_count() {
    let world = world().await;
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS_PER_CLIENT_MAX {
        let mut stream = connect(world.address).await;
        ask(&mut stream, PING, "pong").await;
        streams.push(stream);
    }
    assert_eq!(ask(&mut connect(world.address).await, PING, "pong").await, "", "one too many");
    let leave = "GET /leave HTTP/1.1\r\nhost: x\r\n\r\n";
    ask(&mut streams[0], leave, "\r\n\r\n").await;
    assert!(ask(&mut connect(world.address).await, PING, "pong").await.ends_with("pong"));
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
