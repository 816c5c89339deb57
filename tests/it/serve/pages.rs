//! HTTP clients that use many resources, at each of the three programs. The kubelet must be
//! answered with any load, and dnscache must get changes.

use healthz::Program;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::fixture::dnscache::Running;
use crate::fixture::{http, kubedns};

const OBJECTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/demo");

/// Connects to `server` from `client`.
async fn connect_from(client: &str, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(client.parse().unwrap(), 0)).unwrap();
    socket.connect(server).await.unwrap()
}

/// Returns the status line and head of the answer to `METHOD PATH`, on a connection that stays
/// open.
async fn head(stream: &mut TcpStream, request: &str) -> String {
    let request = format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut head = Vec::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break, // closed instead
            }
        }
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn idle_connections_of_eight_clients_do_not_keep_the_kubelet_out() {
    let kubedns = kubedns::start(&["--objects", OBJECTS]).await;
    let dnscache = Running::start(&[]).await;
    let config = ["healthz", "--http-listen", "127.0.0.1:0"];
    let healthz = Program::bind(shared::flags::parse_from(config).unwrap()).await.unwrap();
    let address = healthz.http_address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(healthz.run(async move { drop(stopped.await) }));
    let mut others = Vec::new();
    for server in [kubedns.http, dnscache.http, address] {
        for client in 2..10 {
            for _ in 0..64 {
                others.push(connect_from(&format!("127.0.0.{client}"), server).await);
            }
        }
        for path in ["/livez", "/metrics"] {
            assert_eq!(http::get(server, path).await.0, 200, "{server} {path}");
        }
    }
    drop(others);
    kubedns.end().await;
    dnscache.stop().await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_client_has_a_share_of_the_places_of_changes() {
    let kubedns = kubedns::start(&["--objects", OBJECTS]).await;
    let mut streams = Vec::new();
    let mut refused = 0;
    for _ in 0..64 {
        let mut stream = connect_from("127.0.0.2", kubedns.http).await;
        let head = head(&mut stream, "GET /changes").await;
        if head.starts_with("HTTP/1.1 200") {
            streams.push(stream);
        } else {
            assert!(head.starts_with("HTTP/1.1 503"), "{head}");
            refused += 1;
        }
    }
    assert_eq!((streams.len(), refused), (8, 56));
    let mut lines = http::lines(kubedns.http, "/changes").await;
    assert!(lines.next().await.is_some(), "another client reads");
    // A place is free again when its stream ends.
    streams.pop();
    let again = async {
        loop {
            let mut stream = connect_from("127.0.0.2", kubedns.http).await;
            if head(&mut stream, "GET /changes").await.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("the place is free");
    kubedns.end().await;
}

#[tokio::test]
async fn requests_without_a_stream_stay_in_their_seats() {
    let kubedns = kubedns::start(&["--objects", OBJECTS]).await;
    for request in ["HEAD /changes", "GET /changes?since=x", "HEAD /metrics"] {
        let mut streams = Vec::new();
        for _ in 0..40 {
            let mut stream = connect_from("127.0.0.2", kubedns.http).await;
            head(&mut stream, request).await;
            streams.push(stream);
        }
        // Sixteen may stay. The ones that were idle longest are closed for the others.
        for stream in &mut streams[..24] {
            let mut rest = Vec::new();
            let closed =
                tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest));
            drop(closed.await.expect("closed"));
        }
        assert_eq!(http::get(kubedns.http, "/livez").await.0, 200, "{request}");
    }
    kubedns.end().await;
}

/// Two minutes, which is longer than the test. `shared::shutdown` tests what follows.
const LAMEDUCK: &str = "--lameduck=120";

/// Stops the program with DNS at `server` and HTTP at `http` by calling `stop`. It must report that
/// it is not ready, and must still answer.
async fn leaves(server: SocketAddr, http: SocketAddr, stop: impl FnOnce()) {
    let question = "hits.bind. TXT";
    http::eventually(http, "/readyz", 200, "").await;
    let mut stream = TcpStream::connect(http).await.unwrap();
    stop();
    let text = http::eventually(http, "/readyz?verbose", 503, "[-]shutdown failed").await;
    assert!(text.contains("told to stop"), "{text}");
    for path in ["/livez", "/metrics"] {
        assert_eq!(http::get(http, path).await.0, 200, "{path}");
    }
    let livez = head(&mut stream, "GET /livez").await;
    assert!(livez.starts_with("HTTP/1.1 200"), "{livez}");
    let answer = crate::fixture::dns::ask(server, question).await;
    assert!(!answer.status.is_empty(), "{answer:?}");
    crate::fixture::dns::ask_tcp(server, question).await;
}

#[tokio::test]
async fn a_program_that_leaves_is_not_ready_and_answers_on() {
    let program = ::kubedns::Program::bind(kubedns::config(&["--objects", OBJECTS, LAMEDUCK]));
    let program = program.await.unwrap();
    let (dns, http) = (program.dns_addresses()[0], program.http_address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(program.run(async move { drop(stopped.await) }));
    leaves(dns, http, || stop.send(()).unwrap()).await;
    running.abort();

    let flags = ["dnscache", "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", LAMEDUCK];
    let config = shared::flags::parse_from::<dnscache::Config>(flags).unwrap();
    let program = dnscache::Program::bind(config).await.unwrap();
    let (dns, http) = (program.dns_addresses()[0], program.http_address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(program.run(async move { drop(stopped.await) }));
    leaves(dns, http, || stop.send(()).unwrap()).await;
    running.abort();
}
