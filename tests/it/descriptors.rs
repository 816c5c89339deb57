//! Few descriptors: clients that take all they can leave the rest of the program alone.

use std::net::SocketAddr;
use std::path::Path;

use shared::addresses::Addresses;
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::Command;
use tokio::time::timeout;

use crate::fixture::dns::{self, PATIENCE};
use crate::fixture::dnscache::{FAR, server, until};
use crate::fixture::http;
use crate::fixture::upstream::{Behaviour, Upstream};

/// What `ulimit -n` is set to: 512 are reserved, so that clients and upstreams get 44 each.
const LIMIT: usize = 600;
/// More than one share.
const MANY: usize = 100;

#[tokio::test]
async fn neither_connections_nor_misses_take_the_last_descriptor() {
    let pod = Path::new(env!("CARGO_BIN_EXE_pod"));
    let program = tests::build::programs_beside(pod).await.unwrap().join("dnscache");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("addresses.json");
    let upstream = Upstream::start(FAR).await;
    upstream.otherwise("300 A 192.0.2.1");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {LIMIT}; exec \"$0\" \"$@\"")]).arg(program);
    command.args(["--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--log=error"]);
    command.arg("--resolv-file=/nonexistent").arg(server(&upstream));
    command.arg(format!("--addresses-file={}", file.display())).kill_on_drop(true);
    let mut running = command.spawn().unwrap();
    until("it listens", || async { Addresses::read(&file).is_some() }).await;
    let Addresses { dns, http } = Addresses::read(&file).unwrap();

    let mut connections = Vec::new();
    for _ in 0..MANY {
        connections.push(TcpStream::connect(dns[0]).await.unwrap());
    }
    assert_eq!(dns::ask_udp(dns[0], "known.example. A").await.status, "NOERROR", "a miss");
    serves(dns[0], http).await;

    upstream.behave(Behaviour::Silent);
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for index in 0..MANY {
        let query = dns::query(&format!("{index}.example. A"), None);
        client.send_to(&query, dns[0]).await.unwrap();
    }
    // Those beyond the share fail at once, long before the silence is over.
    timeout(PATIENCE, client.recv(&mut [0; 512])).await.unwrap().unwrap();
    serves(dns[0], http).await;
    running.kill().await.unwrap();
}

/// Checks that a hit is answered over both transports, and a probe.
async fn serves(dns: SocketAddr, http: SocketAddr) {
    assert_eq!(dns::ask_udp(dns, "known.example. A").await.status, "NOERROR");
    // While many connections are about to leave, a new one can be cut.
    let is_answered = || async { dns::ask_tcp(dns, "known.example. A").await.status == "NOERROR" };
    until("it answers over TCP", is_answered).await;
    assert_eq!(http::get(http, "/livez").await.0, 200);
}
