//! Which clients are answered, and which answers reach them.

use std::net::SocketAddr;

use tests::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::{FAR, Running, server};
use crate::fixture::dns::{self, Answer};
use crate::fixture::upstream::Upstream;

/// Asks `question` from `client` over UDP, then over TCP.
async fn ask_both(server: SocketAddr, client: &str, question: &str) -> [Answer; 2] {
    let query = dns::query(question, Some(1_232));
    let client = SocketAddr::new(client.parse().unwrap(), 0);
    let mut buffer = vec![0; 4_096];
    let socket = UdpSocket::bind(client).await.unwrap();
    socket.send_to(&query, server).await.unwrap();
    let (length, _) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    let datagram = dns::read(&buffer[..length]);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(client).unwrap();
    let mut stream = timeout(PATIENCE, socket.connect(server)).await.unwrap().unwrap();
    stream.write_u16(query.len() as u16).await.unwrap();
    stream.write_all(&query).await.unwrap();
    let length = timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap();
    buffer.truncate(length.into());
    timeout(PATIENCE, stream.read_exact(&mut buffer)).await.unwrap().unwrap();
    [datagram, dns::read(&buffer)]
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_clients_are_answered() {
    let upstream = Upstream::start(FAR).await;
    let question = "a.example. A";
    upstream.answer(question, &["a.example. 30 A 192.0.2.1"]);
    let rows: [(&[&str], bool); 4] = [
        (&[], true),
        (&["--allow=127.0.0.1/32"], false),
        (&["--allow=127.0.0.1/32", "--allow=127.0.0.2"], true),
        (&["--allow=fd00::/8"], false),
    ];
    for (flags, is_allowed) in rows {
        let flags = flags.iter().map(|&flag| flag.to_owned()).chain([server(&upstream)]);
        let cache = Running::start(&flags.collect::<Vec<_>>()).await;
        // The pod itself is always answered, and what the cache then has is refused to others.
        for answer in ask_both(cache.dns, "127.0.0.1", question).await {
            assert_eq!((answer.status.as_str(), answer.answers.len()), ("NOERROR", 1));
        }
        for answer in ask_both(cache.dns, "127.0.0.2", question).await {
            match is_allowed {
                true => assert_eq!(answer.status, "NOERROR"),
                false => {
                    assert_eq!((answer.status.as_str(), answer.answers.len()), ("REFUSED", 0));
                    assert_eq!(answer.error.map(|(code, _)| code), Some(18));
                }
            }
        }
        let refused = cache.metric("dnscache_queries_total{result=\"refused\"}").await;
        assert_eq!(refused, Some(if is_allowed { 0.0 } else { 2.0 }), "{is_allowed}");
        cache.stop().await;
    }
}
