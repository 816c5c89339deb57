//! Upstreams over TCP: truncated replies, ports that are blocked, connections that are reused.

use std::time::Duration;

use super::*;
use crate::fixture::dns;

/// Sets `count` A records of `name`.
fn many(upstream: &Upstream, name: &str, count: usize) {
    let records: Vec<String> =
        (0..count).map(|n| format!("{name} 300 A 10.1.{}.{}", n / 250, n % 250)).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    upstream.answer(&format!("{name} A"), &records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datagram_that_is_too_large_is_a_truncated_reply() {
    for at in [NEAR, FAR] {
        for count in [80, 130, 2_000] {
            let upstream = Upstream::start(at).await;
            upstream.over_udp(Reply::Whole);
            many(&upstream, "big.example.", count);
            let cache = Running::before(&[&upstream]).await;
            let part = cache.ask("big.example. A").await;
            assert_eq!(part.status, "NOERROR", "{count} at {at}: {part:?}");
            assert!(part.truncated && part.size <= 1_232, "{count} at {at}");
            let whole = dns::ask_tcp(cache.dns, "big.example. A").await;
            assert_eq!(whole.answers.len(), count, "at {at}");
            cache.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_tcp_fails_clients_get_the_truncated_reply() {
    let manner = |way| Manner { way, ..Manner::default() };
    let rows = [
        ("refused", None),
        ("closed", Some(manner(Way::Closes))),
        ("reset", Some(manner(Way::Resets))),
        ("half a message, closed", Some(manner(Way::Halves))),
        ("half a message, silent", Some(manner(Way::Stalls))),
        ("silent", Some(manner(Way::Whole))),
    ];
    each(rows, |(what, manner)| async move {
        let upstream = match manner {
            Some(_) => Upstream::start(FAR).await,
            None => Upstream::start_without_tcp(FAR).await,
        };
        if let Some(manner) = manner {
            upstream.manner(manner);
        }
        if what == "silent" {
            upstream.over_tcp(Reply::Nothing);
        }
        many(&upstream, "big.example.", 40);
        upstream.over_udp(Reply::Part(400));
        let cache = Running::before(&[&upstream]).await;
        for _ in 0..2 {
            let answer = cache.ask("big.example. A").await;
            assert_eq!(answer.status, "NOERROR", "{what}: {answer:?}");
            assert!(answer.truncated && answer.answers.len() >= 10, "{what}: {answer:?}");
        }
        cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_tcp_port_is_silent_hides_no_other() {
    let (silent, good) = (Upstream::start(FAR).await, sound(FARTHER).await);
    silent.over_udp(Reply::Truncated);
    silent.over_tcp(Reply::Nothing);
    good.delay(Duration::from_millis(20));
    let cache = Running::before(&[&silent, &good]).await;
    for question in names("n", "example.", 6) {
        all_answered(&[cache.ask(&question).await], &question);
    }
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_over_udp_leads_to_tcp_and_is_remembered() {
    each([true, false], |silent| async move {
        let upstream = sound(FAR).await;
        if silent {
            upstream.over_udp(Reply::Nothing);
        } else {
            upstream.close_udp();
        }
        let cache = Running::before(&[&upstream]).await;
        for question in names("n", "example.", 10) {
            all_answered(&[cache.ask(&question).await], &format!("silent: {silent}"));
        }
        let last = upstream.seen("n9.example.");
        assert!(last[0].tcp, "silent: {silent}: the last one goes over TCP at once");
        cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_connections_take_no_place_from_cluster_names() {
    let (hanging, kubedns) = (Upstream::start(FAR).await, Upstream::start(NEAR).await);
    hanging.over_udp(Reply::Truncated);
    hanging.over_tcp(Reply::Nothing);
    let services: Vec<String> =
        (0..7).map(|number| format!("big{number}.shop.svc.cluster.local.")).collect();
    for service in &services {
        many(&kubedns, service, 200);
    }
    let cache = Running::start(&[server(&hanging), stub("cluster.local", &kubedns)]).await;
    let server = cache.dns;
    let flood = names("n", "example.", 600);
    let flood = tokio::spawn(async move { dns::crowd(server, &flood).await });
    until("questions that hang", || async {
        hanging.seen("example.").iter().filter(|seen| seen.tcp).count() >= 20
    })
    .await;
    for service in &services {
        let answer = dns::ask_tcp(cache.dns, &format!("{service} A")).await;
        assert_eq!(answer.answers.len(), 200, "{answer:?}");
    }
    flood.abort();
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_over_tcp_wait_for_a_place_and_share_connections() {
    let upstream = sound(FAR).await;
    upstream.over_udp(Reply::Truncated);
    upstream.over_tcp(Reply::After(Duration::from_millis(400), Reply::Truth.into()));
    let cache = Running::before(&[&upstream]).await;
    let answers = cache.ask_all(&names("n", "example.", 600)).await;
    all_answered(&answers, "all at once");
    let connections = upstream.connections().len();
    assert!(connections <= 300, "{connections} connections for 600 questions");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end_after_some_exchanges_cost_no_answer() {
    let serial = Manner { serial: true, ..Manner::default() };
    let manners = [
        Manner { exchanges_max: Some(1), ..Manner::default() },
        Manner { exchanges_max: Some(3), ..Manner::default() },
        Manner { exchanges_max: Some(3), ..serial },
        serial,
        Manner { way: Way::Trickles(Duration::from_millis(1)), ..serial },
    ];
    each(manners, |manner| async move {
        let upstream = sound(FAR).await;
        upstream.over_udp(Reply::Truncated);
        upstream.manner(manner);
        let cache = Running::before(&[&upstream]).await;
        for round in 0..3 {
            let answers = cache.ask_all(&names("n", &format!("r{round}.example."), 20)).await;
            all_answered(&answers, &format!("{manner:?}"));
        }
        cache.stop().await;
    })
    .await;
}
