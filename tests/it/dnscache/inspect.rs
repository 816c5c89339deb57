//! What clients ask, as `/top`, `/tail` and the log show it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::fixture::dns::{self, PATIENCE};
use crate::fixture::dnscache::{FAR, NEAR, Running, server, stub, until};
use crate::fixture::upstream::Upstream;
use crate::fixture::{http, log};

/// Asks `question` `times` times over UDP from `client`, a few at a time.
async fn flood(server: SocketAddr, client: &str, question: &str, times: usize) {
    let socket = UdpSocket::bind((client, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    let query = dns::query(question, Some(1_232));
    let mut buffer = [0; 1_232];
    for sent in 1..=times {
        socket.send(&query).await.unwrap();
        if sent % 8 == 0 || sent == times {
            // Replies that are still on their way are read with the next ones.
            while let Ok(received) =
                timeout(Duration::from_millis(1), socket.recv(&mut buffer)).await
            {
                received.unwrap();
            }
        }
    }
}

/// The items of a list.
async fn top(cache: &Running, asked: &str) -> Vec<Value> {
    let (status, body) = http::get(cache.http, &format!("/top?format=json&{asked}")).await;
    assert_eq!(status, 200, "{body}");
    let page: Value = serde_json::from_str(&body).unwrap();
    page["items"].as_array().unwrap().clone()
}

/// The address of this machine in its network, if it has one.
async fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").await.ok()?;
    socket.connect("192.0.2.1:53").await.ok()?; // nothing is sent
    socket.local_addr().ok().map(|address| address.ip()).filter(|own| !own.is_loopback())
}

#[tokio::test(flavor = "multi_thread")]
async fn top_names_a_flood_and_its_client() {
    let (kubedns, upstream) = (Upstream::start(NEAR).await, Upstream::start(FAR).await);
    upstream.answer("hot.example. A", &["hot.example. 300 A 192.0.2.1"]);
    let reverse = "5.0.0.127.in-addr.arpa. PTR";
    kubedns.answer(reverse, &["5.0.0.127.in-addr.arpa. 30 PTR web-0.web.shop.svc.cluster.local."]);
    let flags =
        [server(&upstream), stub("cluster.local", &kubedns), stub("127.in-addr.arpa", &kubedns)];
    let cache = Running::start(&flags).await;
    let walk = ["api.example.shop.svc.cluster.local. A", "api.example. A"];
    for question in walk {
        flood(cache.dns, "127.0.0.1", question, 16).await;
    }
    flood(cache.dns, "127.0.0.5", "hot.example. A", 800).await;
    let first = |items: Vec<Value>, key: &str| items.first().is_some_and(|item| item["key"] == key);
    until("the flood to be named", || async {
        first(top(&cache, "by=name").await, "hot.example.")
            && first(top(&cache, "by=client&window=start").await, "127.0.0.5")
    })
    .await;
    let clients = top(&cache, "by=client").await;
    assert_eq!(clients[0]["pod"], "web-0.web.shop.svc.cluster.local.", "{clients:?}");
    assert_eq!((&clients[1]["key"], clients.len()), (&Value::from("127.0.0.1"), 2));
    until("the whole flood to be counted", || async {
        let clients = top(&cache, "by=client").await;
        let (count, error) = (clients[0]["count"].as_u64(), clients[0]["error"].as_u64());
        count.unwrap().abs_diff(800) <= error.unwrap() * 3 + 80
    })
    .await;
    let denied = top(&cache, "by=nxdomain").await;
    let name = walk[0].trim_end_matches(" A");
    let of_walk = denied.iter().find(|item| item["key"] == name).unwrap();
    assert_eq!(of_walk["suffix"], "shop.svc.cluster.local.");
    assert!(of_walk["hint"].as_str().unwrap().contains("--autopath"), "{of_walk}");
    let missed = top(&cache, "by=upstream&limit=1").await;
    assert_eq!(missed.len(), 1, "{missed:?}");
    let text = http::eventually(cache.http, "/top?by=client", 200, "127.0.0.5").await;
    assert!(text.contains("QUERIES") && text.contains("CLIENT"), "{text}");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_get_one_sentence() {
    let upstream = Upstream::start(FAR).await;
    let cache = Running::start(&[server(&upstream)]).await;
    for (path, part) in [
        ("/top?by=pod", "by: expected name, client, nxdomain or upstream"),
        ("/top?window=2m", "window: expected 1m, 10m, 1h or start"),
        ("/top?limit=0", "limit: expected 1 to 100"),
        ("/tail?filter=type:A", "expected name:DOMAIN, client:PREFIX, rcode:CODE, class:success"),
    ] {
        http::eventually(cache.http, path, 400, part).await;
    }
    cache.stop().await;
    let cache = Running::start(&[server(&upstream), "--sample=off".to_owned()]).await;
    dns::ask_udp(cache.dns, "a.example. A").await;
    for path in ["/top", "/tail"] {
        http::eventually(cache.http, path, 404, "--sample off").await;
    }
    assert_eq!(cache.metric("dnscache_samples_total{result=\"kept\"}").await, Some(0.0));
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_shows_the_queries_that_pass_its_filter() {
    let upstream = Upstream::start(FAR).await;
    upstream.answer("web.shop.example. A", &["web.shop.example. 300 A 192.0.2.1"]);
    let cache = Running::start(&[server(&upstream)]).await;
    let mut all = http::lines(cache.http, "/tail").await;
    let mut shop = http::lines(cache.http, "/tail?filter=name:shop.example").await;
    let mut denied = http::lines(cache.http, "/tail?filter=rcode:NXDOMAIN,missed").await;
    let mut other = http::lines(cache.http, "/tail?filter=client:127.0.0.9").await;
    assert_eq!(cache.metric("dnscache_tail_readers").await, Some(4.0));
    dns::ask_udp(cache.dns, "no.example. A").await;
    dns::ask_udp(cache.dns, "web.shop.example. A").await;
    dns::ask_udp(cache.dns, "web.shop.example. A").await;
    flood(cache.dns, "127.0.0.9", "no.example. AAAA", 1).await;
    let read = |line: Option<String>| serde_json::from_str::<Value>(&line.unwrap()).unwrap();
    let (miss, hit) = (read(shop.next().await), read(shop.next().await));
    for line in [&miss, &hit] {
        let shown = ["client", "name", "type", "rcode"].map(|key| line[key].as_str().unwrap());
        assert_eq!(shown, ["127.0.0.1", "web.shop.example.", "A", "NOERROR"]);
        assert_eq!(line["weight"], 1);
        let time: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        assert!(jiff::Timestamp::now().duration_since(time).as_secs() < 60, "{line}");
    }
    assert_eq!((&miss["source"], &hit["source"]), (&"miss".into(), &"hit".into()));
    assert_eq!(miss["upstream"], upstream.address.to_string());
    assert!(hit.get("upstream").is_none() && miss["duration_us"].as_u64() > Some(0), "{miss}");
    for kind in ["A", "AAAA"] {
        let line = read(denied.next().await);
        assert_eq!((&line["name"], &line["type"]), (&"no.example.".into(), &kind.into()));
    }
    assert_eq!(read(other.next().await)["client"], "127.0.0.9");
    for _ in 0..4 {
        assert!(read(all.next().await)["time"].is_string());
    }
    drop((all, shop, denied, other));
    // A stop ends the streams in order.
    let mut last = http::lines(cache.http, "/tail").await;
    let stopped = tokio::spawn(cache.stop());
    assert_eq!(last.next().await, None);
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_slow_is_cut_with_a_reason() {
    let upstream = Upstream::start(FAR).await;
    upstream.answer("hot.example. A", &["hot.example. 300 A 192.0.2.1"]);
    let cache = Running::start(&[server(&upstream), "--sample=1".to_owned()]).await;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&cache.http.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut slow = TcpStream::from_std(socket.into()).unwrap();
    slow.write_all(b"GET /tail HTTP/1.0\r\nhost: x\r\n\r\n").await.unwrap();
    until("the reader", || async { cache.metric("dnscache_tail_readers").await == Some(1.0) })
        .await;
    // What the kernel and HTTP hold of the stream is far less.
    until("enough samples", || async {
        flood(cache.dns, "127.0.0.1", "hot.example. A", 256).await;
        cache.metric("dnscache_samples_total{result=\"kept\"}").await > Some(4_000.0)
    })
    .await;
    let mut text = String::new();
    timeout(PATIENCE, slow.read_to_string(&mut text)).await.unwrap().unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.contains(r#""end":"This reader is too slow: "#), "{last}");
    assert_eq!(cache.metric("dnscache_tail_cut_total").await, Some(1.0));
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_machines_see_what_others_ask_only_if_they_may() {
    let upstream = Upstream::start(FAR).await;
    upstream.answer("a.example. A", &["a.example. 300 A 192.0.2.1"]);
    let own = own_address().await;
    let pages = ["/top", "/top?by=client&format=json", "/tail", "/explain?name=a.example"];
    for allows in [false, true] {
        let mut flags = vec![server(&upstream), "--http-listen=0.0.0.0:0".to_owned()];
        if let Some(own) = own.filter(|_| allows) {
            flags.push("--inspect-allow=192.0.2.0/24".to_owned());
            flags.push(format!("--inspect-allow={own}"));
        }
        let cache = Running::start(&flags).await;
        dns::ask_udp(cache.dns, "a.example. A").await;
        let port = cache.http.port();
        let local = ["127.0.0.1", "127.0.0.2"].map(|ip| (ip.parse::<IpAddr>().unwrap(), true));
        // A machine without a network has no other address to ask from.
        for (ip, is_allowed) in local.into_iter().chain(own.map(|own| (own, allows))) {
            for page in pages {
                let (status, hidden) = first_lines((ip, port).into(), page).await;
                let expected = if is_allowed || page.starts_with("/explain") { 200 } else { 403 };
                assert_eq!((status, hidden), (expected, !is_allowed), "{ip} {page} {allows}");
            }
        }
        cache.stop().await;
    }
}

/// The status of the answer to `GET page`, and whether it names the flag that would show more. Its
/// stream is not read.
async fn first_lines(server: SocketAddr, page: &str) -> (u16, bool) {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(format!("GET {page} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = Vec::new();
    let is_stream = page.starts_with("/tail");
    let complete = |text: &[u8]| is_stream && text.windows(4).any(|end| end == b"\r\n\r\n");
    loop {
        let read = timeout(PATIENCE, stream.read_buf(&mut text)).await.unwrap().unwrap();
        let is_refused = text.starts_with(b"HTTP/1.0 403") || text.starts_with(b"HTTP/1.1 403");
        if read == 0 || complete(&text) && !is_refused {
            break;
        }
    }
    let text = String::from_utf8(text).unwrap();
    (text[9..12].parse().unwrap(), text.contains("--inspect-allow"))
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_logged_with_what_became_of_them() {
    log::keep();
    let upstream = Upstream::start(FAR).await;
    upstream.answer("logged.example. A", &["logged.example. 300 A 192.0.2.1"]);
    let cache = Running::start(&[server(&upstream), "--log-queries=1".to_owned()]).await;
    for _ in 0..2 {
        dns::ask_udp(cache.dns, "logged.example. A").await;
    }
    let lines = || log::lines("logged.example.");
    until("two lines", || async { lines().len() == 2 }).await;
    for (line, source) in lines().iter().zip(["miss", "hit"]) {
        for part in ["query", "client=127.0.0.1", "rcode=NOERROR", "duration_us="] {
            assert!(line.contains(part), "{line}");
        }
        assert!(line.contains(source), "{line}");
    }
    assert!(lines()[0].contains(&upstream.address.to_string()), "{:?}", lines());
    cache.stop().await;
}
