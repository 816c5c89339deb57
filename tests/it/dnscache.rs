//! The whole of dnscache between clients and scripted upstreams, on loopback.

mod aliases;
mod cache_file;
mod doors;
mod inspect;
mod local;
mod replicas;
mod routes;
mod tls;
mod tls_clients;
mod tls_peers;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::fixture::changes::{accept, send};
use crate::fixture::dns::{self, PATIENCE};
use crate::fixture::dnscache::{FAR, NEAR, Running, server, stub, until};
use crate::fixture::http;
use crate::fixture::upstream::{Behaviour, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_is_asked_once_and_then_a_hit() {
    for address in [NEAR, FAR] {
        let upstream = Upstream::start(address).await;
        upstream.answer("a.example. A", &["a.example. 30 A 10.0.0.1"]);
        upstream.answer("zero.example. A", &["zero.example. 0 A 10.0.0.1"]);
        let cache = Running::start(&[server(&upstream)]).await;
        for _ in 0..3 {
            let answer = dns::ask_udp(cache.dns, "a.example. A").await;
            assert_eq!(answer.status, "NOERROR");
            assert_eq!(answer.answers.len(), 1);
            assert!(answer.answers[0].starts_with("a.example. ") && answer.recursion_available);
            assert!(!answer.authoritative);
        }
        assert_eq!(upstream.asked("a.example. A"), 1);
        assert_eq!((cache.figure("hits").await, cache.figure("misses").await), (2, 1));
        for _ in 0..2 {
            assert_eq!(dns::ask_udp(cache.dns, "zero.example. A").await.status, "NOERROR");
        }
        assert_eq!(upstream.asked("zero.example. A"), 2, "TTL 0 is not kept");
        for _ in 0..2 {
            let answer = dns::ask_udp(cache.dns, "absent.example. A").await;
            assert_eq!((answer.status.as_str(), answer.authorities.len()), ("NXDOMAIN", 1));
        }
        assert_eq!(upstream.asked("absent.example. A"), 1);
        cache.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_get_their_own_case_and_upstreams_a_random_one() {
    for (address, random) in [(NEAR, false), (FAR, true)] {
        let upstream = Upstream::start(address).await;
        let name = "abcdefghijklmnopqrstuvwxyz.example.";
        upstream.answer(&format!("{name} A"), &[&format!("{name} 30 A 10.0.0.1")]);
        let cache = Running::start(&[server(&upstream)]).await;
        for asked in
            [name.to_owned(), name.to_uppercase(), "aBcDEFghijklmnopqrstuvwxyz.Example.".into()]
        {
            let answer = dns::ask_udp(cache.dns, &format!("{asked} A")).await;
            let owner = answer.answers[0].split(' ').next().unwrap();
            assert_eq!(owner, asked);
        }
        let seen = upstream.seen(name);
        assert_eq!(seen.len(), 1);
        let sent = &seen[0].message[13..39];
        assert_eq!(sent.iter().any(u8::is_ascii_uppercase), random);
        cache.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_to_the_outside_come_from_ports_of_their_own_and_carry_nothing_of_the_client() {
    let upstream = Upstream::start(FAR).await;
    let cache = Running::start(&[server(&upstream)]).await;
    let mut query = dns::query("n.example. A", Some(4_096));
    // Client subnet (RFC 7871), an unknown option, a cookie (RFC 7873).
    let options = [
        &[0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2][..],
        &[0xff, 0xf0, 0, 1, 7],
        &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8],
    ]
    .concat();
    let end = query.len();
    query[end - 1] = options.len() as u8;
    query.extend(options);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&query, cache.dns).await.unwrap();
    let mut buffer = [0; 1_500];
    let (length, _) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(dns::read(&buffer[..length]).status, "NXDOMAIN");
    // OPT ends the reply. It has the server's size, the client's cookie with the server's, and no
    // other option of the client.
    let opt = &buffer[length - 39..length];
    assert_eq!(opt[..15], [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 28, 0, 10, 0, 24]);
    assert_eq!(opt[15..27], [1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 0, 0]);
    for number in 0..50 {
        dns::ask_udp(cache.dns, &format!("n{number}.example. A")).await;
    }
    let seen = upstream.seen("example.");
    assert_eq!(seen.len(), 51);
    let mut ports: Vec<u16> = seen.iter().map(|seen| seen.peer.port()).collect();
    ports.sort();
    ports.dedup();
    assert!(ports.len() >= 49, "{} ports", ports.len());
    let question = dns::query("n.example. A", Some(1_232));
    assert_eq!(seen[0].message.len(), question.len(), "OPT without options");
    assert_eq!(seen[0].message[question.len() - 8..], question[question.len() - 8..]);
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_replies_are_followed_over_tcp() {
    for address in [NEAR, FAR] {
        let upstream = Upstream::start(address).await;
        let records: Vec<String> =
            (0..90).map(|number| format!("big.example. 30 A 10.0.1.{number}")).collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        upstream.answer("big.example. A", &records);
        let cache = Running::start(&[server(&upstream)]).await;
        let answer = dns::ask_udp(cache.dns, "big.example. A").await;
        assert!(answer.truncated && answer.size <= 1_232, "{answer:?}");
        let answer = dns::ask_tcp(cache.dns, "big.example. A").await;
        assert_eq!(answer.answers.len(), 90);
        let plain = dns::ask_plain(cache.dns, "big.example. A").await;
        assert!(plain.truncated && plain.size <= 512);
        assert_eq!(upstream.asked("big.example. A"), 2, "once each over UDP and TCP");
        upstream.answer("small.example. A", &["small.example. 30 A 10.0.0.1"]);
        upstream.behave(Behaviour::Truncates);
        assert_eq!(dns::ask_udp(cache.dns, "small.example. A").await.answers.len(), 1);
        cache.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_cost_one_query() {
    for address in [NEAR, FAR] {
        let upstream = Upstream::start(address).await;
        upstream.answer("cold.example. A", &["cold.example. 30 A 10.0.0.1"]);
        upstream.delay(Duration::from_millis(50));
        let cache = Running::start(&[server(&upstream)]).await;
        let mut clients = Vec::new();
        for client in 1..=10 {
            let socket = UdpSocket::bind(format!("127.0.1.{client}:0")).await.unwrap();
            socket.connect(cache.dns).await.unwrap();
            for id in 0..100_u16 {
                let mut query = dns::query("cold.example. A", None);
                query[..2].copy_from_slice(&id.to_be_bytes());
                socket.send(&query).await.unwrap();
            }
            clients.push(socket);
        }
        for socket in &clients {
            let mut ids = Vec::new();
            let mut buffer = [0; 512];
            while ids.len() < 100 {
                let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
                assert_eq!(dns::read(&buffer[..length]).answers.len(), 1);
                ids.push(u16::from_be_bytes([buffer[0], buffer[1]]));
            }
            ids.sort();
            assert!(ids.into_iter().eq(0..100), "each query is answered once");
        }
        assert_eq!(upstream.asked("cold.example. A"), 1);
        cache.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_first_upstream_costs_little() {
    for behaviour in [
        Behaviour::Silent,
        Behaviour::Fails(ResponseCode::ServFail),
        Behaviour::Fails(ResponseCode::Refused),
        Behaviour::Breaks,
    ] {
        for address in [NEAR, FAR] {
            let (dead, alive) = (Upstream::start(address).await, Upstream::start(address).await);
            dead.behave(behaviour);
            let cache = Running::start(&[server(&dead), server(&alive)]).await;
            let mut took = Vec::new();
            for number in 0..20 {
                let name = format!("n{number}.example.");
                alive.answer(&format!("{name} A"), &[&format!("{name} 30 A 10.0.0.1")]);
                let start = Instant::now();
                let answer = dns::ask_udp(cache.dns, &format!("{name} A")).await;
                assert_eq!(answer.status, "NOERROR", "{behaviour:?} {address} {number}");
                took.push(start.elapsed());
            }
            // On a busy machine, some of them wait for the processor, but not all.
            took.sort_unstable();
            assert!(took[5] < Duration::from_millis(900), "{behaviour:?} {address}: {took:?}");
            cache.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_are_passed_over() {
    for (address, behaviour) in
        [(NEAR, Behaviour::Lies), (FAR, Behaviour::Lies), (FAR, Behaviour::Forged)]
    {
        let upstream = Upstream::start(address).await;
        upstream.behave(behaviour);
        upstream.answer("true.example. A", &["true.example. 30 A 10.0.0.1"]);
        let cache = Running::start(&[server(&upstream)]).await;
        let answer = dns::ask_udp(cache.dns, "true.example. A").await;
        assert_eq!(answer.answers.len(), 1, "{address} {behaviour:?}: {answer:?}");
        cache.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_upstream_dead_clients_are_told_in_time() {
    let gone = Upstream::start(NEAR).await;
    let closed = server(&gone);
    drop(gone);
    let silent = Upstream::start(FAR).await;
    silent.behave(Behaviour::Silent);
    let rows = [
        ("silent", vec![server(&silent)], &[22, 23][..]),
        ("closed port", vec![closed], &[22]),
        ("none", vec![], &[22]),
    ];
    for (case, servers, codes) in rows {
        let cache = Running::start(&servers).await;
        for tcp in [false, true] {
            let question = format!("n{tcp}.example. A");
            let answer = match tcp {
                true => dns::ask_tcp(cache.dns, &question).await,
                false => exchange(cache.dns, &dns::query(&question, Some(1_232))).await,
            };
            assert_eq!(answer.status, "SERVFAIL", "{case}: {answer:?}");
            let (code, text) = answer.error.unwrap();
            assert!(codes.contains(&code) && !text.is_empty(), "{case}: {code} {text}");
        }
        cache.stop().await;
    }
}

/// Runs `act` with the number of the attempt, until an attempt takes less than `most`. A busy
/// machine may delay some attempts. Panics after ten slow attempts.
async fn in_time(most: Duration, mut act: impl AsyncFnMut(usize)) {
    let mut took = Vec::new();
    while took.len() < 10 {
        let start = Instant::now();
        act(took.len()).await;
        took.push(start.elapsed());
        if took.last().is_some_and(|last| *last < most) {
            return;
        }
    }
    panic!("each of ten attempts took longer than {most:?}: {took:?}");
}

/// Sends one datagram and receives one.
async fn exchange(server: SocketAddr, message: &[u8]) -> dns::Answer {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(message).await.unwrap();
    let mut buffer = [0; 1_500];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    dns::read(&buffer[..length])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_served_while_the_upstream_is_dead() {
    for address in [NEAR, FAR] {
        let upstream = Upstream::start(address).await;
        upstream.answer("short.example. A", &["short.example. 1 A 10.0.0.1"]);
        let cache = Running::start(&[server(&upstream)]).await;
        assert_eq!(dns::ask_udp(cache.dns, "short.example. A").await.status, "NOERROR");
        upstream.behave(Behaviour::Silent);
        until("an expired answer", || async {
            let answer = exchange(cache.dns, &dns::query("short.example. A", Some(1_232))).await;
            assert_eq!(answer.answers.len(), 1, "{answer:?}");
            answer.error.is_some_and(|(code, _)| code == 3)
        })
        .await;
        upstream.behave(Behaviour::Good);
        until("a fresh answer", || async {
            dns::ask_udp(cache.dns, "short.example. A").await.error.is_none()
        })
        .await;
        cache.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_kubedns_is_missed_for_a_moment_only() {
    let kubedns = Upstream::start_without_tcp(NEAR).await;
    let name = "a.shop.svc.cluster.local. A";
    kubedns.answer(name, &["a.shop.svc.cluster.local. 1 A 10.0.0.1"]);
    let cache = Running::start(&[stub("cluster.local", &kubedns)]).await;
    assert_eq!(dns::ask_udp(cache.dns, name).await.status, "NOERROR");
    // The socket stays bound, so that another test cannot use its port.
    kubedns.close_udp();
    until("an expired answer", || async {
        let answer = exchange(cache.dns, &dns::query(name, Some(1_232))).await;
        assert_eq!(answer.answers.len(), 1, "{answer:?}");
        answer.error.is_some_and(|(code, _)| code == 3)
    })
    .await;
    let unknown = dns::query("b.shop.svc.cluster.local. A", Some(1_232));
    assert_eq!(exchange(cache.dns, &unknown).await.error.unwrap().0, 22);
    let asked = kubedns.asked(name);
    kubedns.open_udp();
    until("a fresh answer", || async {
        let answer = dns::ask_udp(cache.dns, name).await;
        answer.error.is_none() && kubedns.asked(name) > asked
    })
    .await;
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_of_another_route_is_completed() {
    let (kubedns, outside) = (Upstream::start(NEAR).await, Upstream::start(FAR).await);
    let alias = "db.shop.svc.cluster.local. 30 CNAME db.example.";
    for rtype in ["A", "AAAA", "CNAME", "MX", "TXT"] {
        kubedns.answer(&format!("db.shop.svc.cluster.local. {rtype}"), &[alias]);
    }
    let loops = ["l0.shop.svc.cluster.local.", "l1.corp.example."];
    kubedns.answer(&format!("{} A", loops[0]), &[&format!("{} 30 CNAME {}", loops[0], loops[1])]);
    outside.answer(&format!("{} A", loops[1]), &[&format!("{} 30 CNAME {}", loops[1], loops[0])]);
    outside.answer(
        "db.example. A",
        &["db.example. 60 CNAME host.example.", "host.example. 60 A 192.0.2.7"],
    );
    let flags = [stub("cluster.local", &kubedns), stub("corp.example", &outside), server(&outside)];
    let cache = Running::start(&flags).await;
    let whole = [alias, "db.example. 60 CNAME host.example.", "host.example. 60 A 192.0.2.7"];
    for round in 0..2 {
        let answer = dns::ask_udp(cache.dns, "db.shop.svc.cluster.local. A").await;
        assert_eq!(answer.status, "NOERROR", "round {round}");
        let owners = |records: &[&str]| {
            let shape = |text: &&str| {
                let words: Vec<&str> = text.split(' ').collect();
                format!("{} {}", words[0], words[words.len() - 1])
            };
            let mut shapes: Vec<String> = records.iter().map(shape).collect();
            shapes.sort();
            shapes
        };
        let got: Vec<&str> = answer.answers.iter().map(String::as_str).collect();
        assert_eq!(owners(&got), owners(&whole), "round {round}");
    }
    assert_eq!(
        (kubedns.asked("db.shop.svc.cluster.local. A"), outside.asked("db.example. A")),
        (1, 1)
    );
    let denied = dns::ask_udp(cache.dns, "db.shop.svc.cluster.local. AAAA").await;
    assert_eq!(
        (denied.status.as_str(), denied.answers.len(), denied.authorities.len()),
        ("NXDOMAIN", 1, 1),
        "the last one's code, and its SOA"
    );
    // of one family only: the target's SOA limits how long NODATA is cached (RFC 2308 section 2.2)
    outside.deny("db.example. MX", ResponseCode::NoError, 20);
    for round in 0..2 {
        let nodata = dns::ask_udp(cache.dns, "db.shop.svc.cluster.local. MX").await;
        assert_eq!((nodata.answers.len(), nodata.authorities.len()), (1, 1), "round {round}");
        assert!(nodata.authorities[0].starts_with("example. "), "{nodata:?}");
    }
    assert_eq!(outside.asked("db.example. MX"), 1, "kept");
    let bare = dns::ask_udp(cache.dns, "db.shop.svc.cluster.local. CNAME").await;
    assert_eq!(bare.answers.len(), 1);
    outside.behave(Behaviour::Fails(ResponseCode::ServFail));
    assert_eq!(dns::ask_udp(cache.dns, "db.shop.svc.cluster.local. TXT").await.status, "SERVFAIL");
    outside.behave(Behaviour::Good);
    let answer = exchange(cache.dns, &dns::query(&format!("{} A", loops[0]), Some(1_232))).await;
    assert_eq!(answer.status, "SERVFAIL", "{answer:?}");
    let asked =
        kubedns.asked(&format!("{} A", loops[0])) + outside.asked(&format!("{} A", loops[1]));
    assert!(asked <= 16, "a circle is seen, not waited for: {asked} queries");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_clients_hurt_nobody() {
    let upstream = Upstream::start(NEAR).await;
    upstream.answer("a.example. A", &["a.example. 30 A 10.0.0.1"]);
    let cache = Running::start(&[server(&upstream)]).await;
    let mut slow = TcpStream::connect(cache.dns).await.unwrap();
    slow.write_all(&[0]).await.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for garbage in [&b""[..], b"x", &[0; 12], &[0xff; 600], &[0; 4_096]] {
        socket.send_to(garbage, cache.dns).await.unwrap();
    }
    let mut many = dns::query("a.example. A", None);
    many[5] = 2;
    socket.send_to(&many, cache.dns).await.unwrap();
    assert_eq!(dns::ask_udp(cache.dns, "a.example. A").await.answers.len(), 1);
    assert_eq!(dns::ask_tcp(cache.dns, "a.example. A").await.answers.len(), 1);
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_names_tell_how_it_fares() {
    let upstream = Upstream::start(NEAR).await;
    upstream.answer("a.example. A", &["a.example. 30 A 10.0.0.1"]);
    let cache = Running::start(&[server(&upstream), "--cache-size=123".into()]).await;
    dns::ask_udp(cache.dns, "a.example. A").await;
    dns::ask_udp(cache.dns, "a.example. A").await;
    for (name, value) in
        [("hits", 1), ("misses", 1), ("insertions", 1), ("evictions", 0), ("cachesize", 123)]
    {
        assert_eq!(cache.figure(name).await, value, "{name}");
    }
    until("the upstream under servers.bind", || async {
        let answer = dns::ask_udp(cache.dns, "servers.bind. CH TXT").await;
        let address = upstream.address;
        answer.answers[0].contains(&format!("{}#{} 2 0", address.ip(), address.port()))
    })
    .await;
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_is_counted_once_whatever_becomes_of_it() {
    let upstream = Upstream::start(NEAR).await;
    upstream.answer("a.example. A", &["a.example. 30 A 10.0.0.1"]);
    let cache = Running::start(&[server(&upstream)]).await;
    dns::ask_udp(cache.dns, "a.example. A").await; // a miss
    for _ in 0..5 {
        dns::ask_udp(cache.dns, "A.example. A").await; // hits
        dns::ask_tcp(cache.dns, "a.example. A").await;
    }
    dns::ask_udp(cache.dns, "absent.example. A").await; // a miss
    dns::ask_udp(cache.dns, "localhost. A").await; // a miss answered here
    dns::ask_udp(cache.dns, "version.bind. CH TXT").await;
    dns::ask_udp(cache.dns, "a.example. AXFR").await; // refused
    let mut not_recursive = dns::query("a.example. A", None);
    not_recursive[2] &= !1;
    exchange(cache.dns, &not_recursive).await; // refused
    let mut two_questions = dns::query("a.example. A", None);
    two_questions[5] = 2;
    exchange(cache.dns, &two_questions).await; // malformed
    let mut update = dns::query("a.example. A", None);
    update[2] = 0x28;
    exchange(cache.dns, &update).await; // malformed
    let mut response = dns::query("a.example. A", None);
    response[2] |= 0x80;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&response, cache.dns).await.unwrap(); // malformed, and not answered
    let received = r#"dnscache_dns_messages_total{transport="udp"} 14"#;
    http::eventually(cache.http, "/metrics", 200, received).await;
    // All queries except the one without an answer. They are counted once a batch is sent.
    let replied = r#"dnscache_dns_reply_duration_seconds_count{transport="udp"} 13"#;
    let metrics = http::eventually(cache.http, "/metrics", 200, replied).await;
    assert!(metrics.contains("dns_reply_duration_seconds_count{transport=\"tcp\"} 5\n"));
    let total = |name: &str| -> u64 {
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let result = |result: &str| total(&format!("dnscache_queries_total{{result=\"{result}\"}}"));
    let counted = ["hit", "miss", "refused", "chaos"].map(result);
    assert_eq!(counted, [10, 3, 2, 1], "{metrics}");
    let malformed = total("dnscache_dns_events_total{event=\"malformed\"}");
    assert_eq!(malformed, 3, "{metrics}");
    let messages = total("dnscache_dns_messages_total");
    assert_eq!(counted.iter().sum::<u64>() + malformed, messages, "{metrics}");
    assert_eq!((cache.figure("hits").await, cache.figure("misses").await), (10, 3));
    cache.stop().await;
}

#[tokio::test]
async fn dashboards_for_coredns_find_the_cache() {
    let upstream = Upstream::start(FAR).await;
    upstream.answer("a.example. A", &["a.example. 300 A 10.0.0.1"]);
    let cache = Running::start(&[server(&upstream), "--metrics-compat=coredns".to_owned()]).await;
    for _ in 0..3 {
        dns::ask_tcp(cache.dns, "a.example. A").await;
    }
    let server = format!("server=\"dns://{}\"", cache.dns);
    let metrics = http::get(cache.http, "/metrics").await.1;
    for line in [
        &format!("coredns_cache_hits_total{{{server},type=\"all\",zones=\".\",view=\"\"}} 2\n"),
        &format!("coredns_cache_misses_total{{{server},zones=\".\",view=\"\"}} 1\n"),
        &format!("coredns_cache_requests_total{{{server},zones=\".\",view=\"\"}} 3\n"),
        &format!("coredns_cache_entries{{{server},type=\"all\",zones=\".\",view=\"\"}} 1\n"),
        &format!(
            "coredns_dns_responses_total{{{server},zone=\".\",view=\"\",rcode=\"NOERROR\",\
             plugin=\"cache\"}} 3\n"
        ),
    ] {
        assert!(metrics.contains(line), "{line:?} is missing in {metrics}");
    }
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_configuration_takes_the_clusters_names_away() {
    let (kubedns, other) = (Upstream::start(NEAR).await, Upstream::start(FAR).await);
    let web = "web.shop.svc.cluster.local. A";
    kubedns.answer(web, &["web.shop.svc.cluster.local. 0 A 10.96.0.7"]);
    other.answer(web, &["web.shop.svc.cluster.local. 0 A 6.6.6.6"]);
    let directory = tempfile::tempdir().unwrap();
    let stubs = format!(r#"{{"cluster.local": ["{}"]}}"#, other.address);
    std::fs::write(directory.path().join("stubDomains"), stubs).unwrap();
    let flags =
        [stub("cluster.local", &kubedns), format!("--config-dir={}", directory.path().display())];
    let cache = Running::start(&flags).await;
    let said = "stubDomains: cluster.local is answered by kubedns, with --server=/cluster.local/";
    http::eventually(cache.http, "/readyz?verbose", 200, said).await;
    let answer = dns::ask_udp(cache.dns, web).await;
    assert_eq!(answer.answers, ["web.shop.svc.cluster.local. 0 IN A 10.96.0.7"]);
    assert_eq!(other.asked(web), 0);
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_change_without_losing_a_query() {
    let directory = tempfile::tempdir().unwrap();
    let upstreams = [Upstream::start(FAR).await, Upstream::start(FAR).await];
    for (upstream, address) in upstreams.iter().zip(["10.0.0.1", "10.0.0.2"]) {
        upstream.answer("who.corp.example. A", &[&format!("who.corp.example. 300 A {address}")]);
        upstream.answer("stays.example. A", &["stays.example. 300 A 10.0.0.9"]);
    }
    let write = |number: usize| {
        let file = directory.path().join("stubDomains");
        let new = directory.path().join(".new");
        let text = format!(r#"{{"corp.example": ["{}"]}}"#, upstreams[number].address);
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, file).unwrap();
    };
    write(0);
    let flags = [server(&upstreams[0]), format!("--config-dir={}", directory.path().display())];
    let cache = Running::start(&flags).await;
    dns::eventually(
        cache.dns,
        "stays.example. A",
        "NOERROR",
        &["stays.example. 300 IN A 10.0.0.9"],
    )
    .await;
    let mut number = 0;
    for round in 0..6 {
        let last = if round % 2 == 0 { "1" } else { "2" };
        until("the address of the server that is asked now", || {
            number += 1;
            let fresh = dns::query(&format!("n{number}.corp.example. A"), Some(1_232));
            let address = cache.dns;
            async move {
                assert_eq!(exchange(address, &fresh).await.status, "NXDOMAIN", "none is lost");
                let answer = dns::ask_udp(address, "who.corp.example. A").await;
                assert_eq!(answer.status, "NOERROR");
                answer.answers[0].ends_with(last)
            }
        })
        .await;
        write((round + 1) % 2);
    }
    dns::ask_udp(cache.dns, "stays.example. A").await;
    let asked: usize = upstreams.iter().map(|upstream| upstream.asked("stays.example. A")).sum();
    assert_eq!(asked, 1, "what the same servers answer for stays");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stub_servers_may_be_names_and_bad_ones_disable_only_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let (outside, corp) = (Upstream::start(FAR).await, Upstream::start("127.0.0.3").await);
    outside.answer("dns.example. A", &["dns.example. 300 A 127.0.0.3"]);
    outside.answer("a.example. A", &["a.example. 300 A 10.0.0.1"]);
    corp.answer("a.corp.example. A", &["a.corp.example. 300 A 10.0.0.2"]);
    let port = corp.address.port();
    let text = format!(
        r#"{{"corp.example": ["dns.example:{port}"], "lost.example": ["ns.lost.example"]}}"#
    );
    std::fs::write(directory.path().join("stubDomains"), text).unwrap();
    let flags = [server(&outside), format!("--config-dir={}", directory.path().display())];
    let cache = Running::start(&flags).await;
    until("the stub server by its name", || async {
        dns::ask_udp(cache.dns, "a.corp.example. A").await.status == "NOERROR"
    })
    .await;
    assert_eq!(dns::ask_udp(cache.dns, "a.example. A").await.status, "NOERROR");
    let lost = dns::ask_udp(cache.dns, "a.lost.example. A").await;
    assert_eq!(lost.status, "SERVFAIL");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_caches_that_ask_each_other_notice() {
    let directory = tempfile::tempdir().unwrap();
    let first = Running::start(&[format!("--config-dir={}", directory.path().display())]).await;
    let second = Running::start(&[format!("--server=127.0.0.1#{}", first.dns.port())]).await;
    let text = format!(r#"["{}"]"#, second.dns);
    std::fs::write(directory.path().join("upstreamNameservers"), text).unwrap();
    let mut number = 0;
    until("the end of the loop", || {
        number += 1;
        let question = format!("n{number}.example. A");
        let address = first.dns;
        async move {
            let answer = exchange(address, &dns::query(&question, Some(1_232))).await;
            assert_eq!(answer.status, "SERVFAIL");
            answer.error.is_some_and(|(_, text)| text == "every upstream sends our queries back")
        }
    })
    .await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_names_are_dropped_and_no_others() {
    let kubedns = Upstream::start(NEAR).await;
    let names =
        ["a.shop.svc.cluster.local.", "_x.a.shop.svc.cluster.local.", "b.shop.svc.cluster.local."];
    let set = |last: u8| {
        for name in names {
            kubedns.answer(&format!("{name} A"), &[&format!("{name} 300 A 10.0.0.{last}")]);
        }
    };
    set(1);
    let stream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("--changes=http://{}/changes", stream.local_addr().unwrap());
    let cache = Running::start(&[stub("cluster.local", &kubedns), url]).await;
    let (mut connection, request) = accept(&stream).await;
    assert!(request.starts_with("GET /changes HTTP/1.1"), "{request}");
    send(&mut connection, "{\"generation\":7}\n").await;
    let address = |name: &'static str| async move {
        let answer = dns::ask_udp(cache.dns, &format!("{name} A")).await;
        answer.answers[0].rsplit('.').next().unwrap().to_owned()
    };
    // The first line empties the cache, because older entries may be of any age.
    until("the first line's effect", || async {
        kubedns.asked("b.shop.svc.cluster.local. A") >= 1 || address(names[2]).await == "1"
    })
    .await;
    for name in names {
        assert_eq!(address(name).await, "1");
    }
    set(2);
    // A line may arrive in pieces, and several lines may arrive at once.
    send(&mut connection, "{\"generation\":8,\"names\":[\"a.shop.svc.clu").await;
    send(&mut connection, "ster.local.\"]}\n{\"generation\":9,\"names\":[\"x.example.\"]}\n").await;
    until("new answers", || async { address(names[0]).await == "2" }).await;
    assert_eq!(address(names[1]).await, "2", "names below go too");
    assert_eq!(address(names[2]).await, "1", "other names stay");
    drop(connection);
    let (mut connection, request) = accept(&stream).await;
    assert!(request.starts_with("GET /changes?since=9 HTTP/1.1"), "{request}");
    send(&mut connection, "{\"generation\":9}\n").await;
    assert_eq!(address(names[2]).await, "1", "nothing was missed, nothing is dropped");
    send(&mut connection, "{\"generation\":12,\"flush\":true}\n").await;
    until("the flush", || async { address(names[2]).await == "2" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_was_taken_on() {
    let upstream = Upstream::start(NEAR).await;
    upstream.answer("slow.example. A", &["slow.example. 30 A 10.0.0.1"]);
    upstream.delay(Duration::from_millis(300));
    // Below the deadline of the drain, because it ends once all queries are answered.
    in_time(Duration::from_secs(3), async |_| {
        let cache = Running::start(&[server(&upstream)]).await;
        let address = cache.dns;
        let query = dns::query("slow.example. A", Some(1_232));
        let before = upstream.asked("slow.example. A");
        let waiting = tokio::spawn(async move { exchange(address, &query).await });
        let asked = || async { upstream.asked("slow.example. A") > before };
        until("the query to be on its way", asked).await;
        cache.stop().await;
        assert_eq!(waiting.await.unwrap().status, "NOERROR");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_kept_for_a_moment() {
    let upstream = Upstream::start(NEAR).await;
    upstream.behave(Behaviour::Fails(ResponseCode::ServFail));
    let cache = Running::start(&[server(&upstream)]).await;
    for _ in 0..10 {
        assert_eq!(dns::ask_udp(cache.dns, "bad.example. A").await.status, "SERVFAIL");
    }
    assert!(upstream.asked("bad.example. A") <= 2, "{}", upstream.asked("bad.example. A"));
    // not from a server that cannot read OPT either: dnscache asks it again without OPT
    for code in [ResponseCode::NotImp, ResponseCode::FormErr] {
        upstream.behave(Behaviour::Fails(code));
        let question = format!("{code:?}.example. A");
        for _ in 0..10 {
            assert_eq!(dns::ask_udp(cache.dns, &question).await.status, "SERVFAIL");
        }
        let asked = upstream.asked(&question);
        assert!((1..=4).contains(&asked), "{code:?}: {asked}");
    }
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubedns_that_is_not_ready_is_asked_again_and_takes_nothing_else_away() {
    let (kubedns, outside) = (Upstream::start(NEAR).await, Upstream::start(FAR).await);
    let cache = Running::start(&[stub("cluster.local", &kubedns), server(&outside)]).await;
    let name = "a.shop.svc.cluster.local. A";
    kubedns.answer(name, &["a.shop.svc.cluster.local. 30 A 10.0.0.1"]);
    outside.answer("com. TXT", &["com. 30 TXT one-label"]);
    kubedns.behave(Behaviour::NotReady);
    for _ in 0..8 {
        let answer = exchange(cache.dns, &dns::query(name, Some(1_232))).await;
        assert_eq!((&*answer.status, answer.error.map(|(code, _)| code)), ("SERVFAIL", Some(14)));
    }
    assert!(kubedns.asked(name) >= 8, "{}", kubedns.asked(name));
    // names of other servers, also of one label, are not affected
    assert_eq!(dns::ask_udp(cache.dns, "com. TXT").await.status, "NOERROR");
    kubedns.behave(Behaviour::Good);
    assert_eq!(dns::ask_udp(cache.dns, name).await.status, "NOERROR", "at once");
    // another server's failure is cached with any reason (RFC 9520)
    outside.behave(Behaviour::NotReady);
    for _ in 0..8 {
        assert_eq!(dns::ask_udp(cache.dns, "bad.example. A").await.status, "SERVFAIL");
    }
    assert!(outside.asked("bad.example. A") <= 2, "{}", outside.asked("bad.example. A"));
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_served_over_http() {
    let upstream = Upstream::start(FAR).await;
    let cache = Running::start(&[server(&upstream)]).await;
    dns::ask_udp(cache.dns, "a.example. A").await;
    for path in ["/livez", "/healthz", "/readyz", "/readiness"] {
        http::eventually(cache.http, path, 200, "ok").await;
    }
    for check in ["[+]dns", "[+]forward"] {
        http::eventually(cache.http, "/livez?verbose", 200, check).await;
    }
    http::eventually(cache.http, "/readyz?verbose", 200, "[+]routes").await;
    let address = upstream.address;
    let up = format!("dnscache_upstream_up{{server=\"{address}\"}} 1");
    http::eventually(cache.http, "/metrics", 200, &up).await;
    let sent = format!("dnscache_upstream_queries_total{{server=\"{address}\"}} 2");
    http::eventually(cache.http, "/metrics", 200, &sent).await;
    http::eventually(cache.http, "/explain?name=a.example", 200, "remaining_seconds").await;
    for (asked, status, said) in [
        ("?name=a.example&type=type65", 200, r#""type":65"#),
        ("?name=a.example&type=28", 200, r#""type":28"#),
        ("", 400, "name: missing"),
        ("?name=a..b", 400, "name: a label has 1 to 63 bytes"),
        ("?name=a.example&type=TYPE65536", 400, "type: expected a record type, such as AAAA"),
    ] {
        http::eventually(cache.http, &format!("/explain{asked}"), status, said).await;
    }
    cache.stop().await;
}
