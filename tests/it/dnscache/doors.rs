//! Which clients are answered, and which answers reach them.

use std::net::SocketAddr;

use tests::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::{FAR, NEAR, Running, server, stub};
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

#[tokio::test(flavor = "multi_thread")]
async fn names_from_outside_have_no_addresses_inside() {
    let (near, outside, corp) =
        (Upstream::start(NEAR).await, Upstream::start(FAR).await, Upstream::start(FAR).await);
    let inside = "10.0.0.1";
    outside.answer("evil.example. A", &["evil.example. 300 A 10.0.0.1"]);
    outside.answer("good.example. A", &["good.example. 300 A 192.0.2.1"]);
    outside.answer("v6.example. AAAA", &["v6.example. 300 AAAA ::ffff:127.0.0.1"]);
    outside.answer(
        "two.example. A",
        &["two.example. 300 A 192.0.2.1", "two.example. 300 A 169.254.169.254"],
    );
    outside.answer(
        "alias.example. A",
        &["alias.example. 300 CNAME end.example.", "end.example. 300 A 10.0.0.1"],
    );
    outside.answer("into.example. A", &["into.example. 300 CNAME www.corp.test."]);
    outside.answer("fine.example. A", &["fine.example. 300 A 10.0.0.1"]);
    outside.answer("a.fine.example. A", &["a.fine.example. 300 A 10.0.0.1"]);
    corp.answer("www.corp.test. A", &["www.corp.test. 300 A 10.0.0.1"]);
    corp.answer("out.corp.test. A", &["out.corp.test. 300 CNAME evil.example."]);
    corp.answer("over.corp.test. A", &["over.corp.test. 300 CNAME fine.example."]);
    near.answer("web.shop.svc.cluster.local. A", &["web.shop.svc.cluster.local. 30 A 10.0.0.1"]);
    corp.answer("new.corp.test. A", &["new.corp.test. 300 CNAME only.example."]);
    outside.answer("only.example. A", &["only.example. 300 A 10.0.0.1"]);
    let rows = [
        ("new.corp.test. A", false),
        ("evil.example. A", false),
        ("EVIL.example. A", false),
        ("good.example. A", true),
        ("v6.example. AAAA", false),
        ("two.example. A", false),
        ("alias.example. A", false),
        ("into.example. A", false),
        ("fine.example. A", true),
        ("a.fine.example. A", true),
        ("www.corp.test. A", true),
        ("out.corp.test. A", false),
        ("over.corp.test. A", true),
        ("web.shop.svc.cluster.local. A", true),
    ];
    let directory = tempfile::tempdir().unwrap();
    let stubs = format!(r#"{{"corp.test": ["{}"]}}"#, corp.address);
    std::fs::write(directory.path().join("stubDomains"), stubs).unwrap();
    let configuration = format!("--config-dir={}", directory.path().display());
    let servers = [server(&outside), stub("cluster.local", &near), configuration];
    let filter = ["--rebind-protect".to_owned(), "--rebind-ok=fine.example".to_owned()];
    for flags in [servers.to_vec(), [&servers[..], &filter[..]].concat()] {
        let is_filtered = flags.len() > servers.len();
        let cache = Running::start(&flags).await;
        for (question, is_let_through) in rows {
            // The second answer is from the cache.
            for _ in 0..2 {
                let answer = dns::ask(cache.dns, question).await;
                match is_let_through || !is_filtered {
                    true => {
                        assert_eq!(answer.status, "NOERROR", "{question}");
                        assert_eq!(answer.error, None, "{question}");
                    }
                    false => {
                        assert_eq!(answer.status, "REFUSED", "{question} {answer:?}");
                        assert_eq!(answer.answers, [""; 0], "{question}");
                        assert_eq!(answer.error.map(|(code, _)| code), Some(15), "{question}");
                    }
                }
            }
        }
        let answer = dns::ask(cache.dns, "www.corp.test. A").await;
        assert!(answer.answers[0].ends_with(inside), "{answer:?}");
        assert_eq!(outside.asked("v6.example. AAAA"), 1 + usize::from(is_filtered), "it is kept");
        cache.stop().await;
    }
}
