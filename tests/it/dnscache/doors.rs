//! The clients that are answered, and the answers that are filtered.

use std::net::SocketAddr;

use tests::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::{FAR, NEAR, Running, server, stub, until};
use crate::fixture::dns::{self, Answer};
use crate::fixture::upstream::Upstream;

/// Asks `question` from `client` over UDP, then over TCP.
async fn ask_both(server: SocketAddr, client: &str, question: &str) -> [Answer; 2] {
    let query = dns::query(question, Some(1_232));
    exchange_both(server, client, &query).await.map(|reply| dns::read(&reply))
}

/// Sends `query` from `client` over UDP, then over TCP. Returns the replies.
async fn exchange_both(server: SocketAddr, client: &str, query: &[u8]) -> [Vec<u8>; 2] {
    let client = SocketAddr::new(client.parse().unwrap(), 0);
    let mut datagram = vec![0; 4_096];
    let socket = UdpSocket::bind(client).await.unwrap();
    socket.send_to(query, server).await.unwrap();
    let (length, _) = timeout(PATIENCE, socket.recv_from(&mut datagram)).await.unwrap().unwrap();
    datagram.truncate(length);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(client).unwrap();
    let mut stream = timeout(PATIENCE, socket.connect(server)).await.unwrap().unwrap();
    stream.write_u16(query.len() as u16).await.unwrap();
    stream.write_all(query).await.unwrap();
    let length = timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap();
    let mut reply = vec![0; length.into()];
    timeout(PATIENCE, stream.read_exact(&mut reply)).await.unwrap().unwrap();
    [datagram, reply]
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
        // The pod itself is always answered. Other clients are refused even if the answer is
        // cached.
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

/// Returns [`dns::query`] with this COOKIE option.
fn with_cookie(question: &str, cookie: &[u8]) -> Vec<u8> {
    let mut query = dns::query(question, Some(1_232));
    let end = query.len();
    query[end - 1] = cookie.len() as u8 + 4;
    query.extend([0, 10, 0, cookie.len() as u8]);
    query.extend(cookie);
    query
}

/// Returns the data of the COOKIE option in `reply`, in which these bytes occur only once.
fn cookies(reply: &[u8]) -> Option<[u8; 24]> {
    let at = reply.windows(4).position(|option| option == [0, 10, 0, 24])? + 4;
    reply.get(at..at + 24)?.try_into().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_its_cookie_back_with_ours() {
    let upstream = Upstream::start(FAR).await;
    let names = ["a.example. A", "absent.example. A", "b.onion. A", "version.bind. CH TXT"];
    upstream.answer(names[0], &["a.example. 30 A 192.0.2.1"]);
    let cache = Running::start(&[server(&upstream)]).await;
    let mut seen = Vec::new();
    for question in names {
        // The first reply to a name waits for the upstream. The second is from the cache. A correct
        // or wrong server cookie of the client does not change the reply.
        for cookie in [&b"12345678"[..], b"12345678", b"12345678OLDCOOKIEOLDCOOK"] {
            let [datagram, stream] =
                exchange_both(cache.dns, "127.0.0.1", &with_cookie(question, cookie)).await;
            for reply in [datagram, stream] {
                let cookies = cookies(&reply).unwrap();
                assert_eq!(cookies[..12], *b"12345678\x01\0\0\0", "{question}");
                assert_ne!(dns::read(&reply).status, "SERVFAIL", "{question}");
                seen.push((u32::from_be_bytes(cookies[12..16].try_into().unwrap()), cookies));
            }
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(seen.iter().all(|(secs, _)| secs.abs_diff(now.as_secs() as u32) < 600), "{seen:?}");
    // A query without a cookie gets a reply without one. A cookie of another length is malformed.
    for reply in exchange_both(cache.dns, "127.0.0.1", &dns::query(names[0], Some(1_232))).await {
        assert_eq!(cookies(&reply), None);
        assert_eq!(dns::read(&reply).status, "NOERROR");
    }
    for cookie in [&b""[..], b"1234567", b"123456789"] {
        let query = with_cookie(names[0], cookie);
        for reply in exchange_both(cache.dns, "127.0.0.1", &query).await {
            assert_eq!(dns::read(&reply).status, "FORMERR", "{cookie:?}");
        }
    }
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_replies_to_a_network_are_cut_unless_the_client_has_a_cookie() {
    let upstream = Upstream::start(FAR).await;
    let (large, small) = ("large.example. TXT", "small.example. A");
    let records = ["a", "b", "c"].map(|text| format!("large.example. 30 TXT {}", text.repeat(250)));
    upstream.answer(large, &records.each_ref().map(String::as_str));
    upstream.answer(small, &["small.example. 30 A 192.0.2.1"]);
    let cache = Running::start(&[server(&upstream), "--reply-rate=1".to_owned()]).await;
    // Replies from the cache are limited, not the first one, which waits for the upstream.
    for question in [large, small] {
        assert_eq!(dns::ask_tcp(cache.dns, question).await.status, "NOERROR");
    }
    // Of the replies within one second, all but the first are cut.
    until("a reply is cut", || async {
        let [datagram, stream] = ask_both(cache.dns, "127.0.0.2", large).await;
        assert_eq!((stream.status.as_str(), stream.answers.len()), ("NOERROR", 3), "over TCP");
        let small = ask_both(cache.dns, "127.0.0.3", small).await;
        assert!(small.iter().all(|answer| answer.answers.len() == 1), "small ones are never cut");
        assert_eq!(datagram.truncated, datagram.answers.is_empty());
        datagram.truncated
    })
    .await;
    assert!(cache.metric("dnscache_queries_total{result=\"limited\"}").await > Some(0.0));

    let first = exchange_both(cache.dns, "127.0.0.1", &with_cookie(small, b"12345678")).await;
    let cookie = cookies(&first[0]).unwrap();
    for _ in 0..20 {
        for reply in exchange_both(cache.dns, "127.0.0.1", &with_cookie(large, &cookie)).await {
            assert_eq!(dns::read(&reply).answers.len(), 3, "a client that gets the replies");
        }
    }
    cache.stop().await;
}
