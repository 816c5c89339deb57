//! All servers are down, and are up again later.

use std::time::Duration;

use super::*;
use crate::fixture::log;

/// Closes the ports of `upstream`, as if its process had been killed.
fn kill(upstream: &Upstream) {
    upstream.close_udp();
    upstream.manner(Manner { way: Way::Closes, ..Manner::default() });
}

/// Opens the ports again.
fn restart(upstream: &Upstream) {
    upstream.open_udp();
    upstream.manner(Manner::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_failed_is_answered_as_soon_as_its_server_answers_another() {
    let upstream = sound(FAR).await;
    let cache = Running::before(&[&upstream]).await;
    upstream.behave(Behaviour::Silent);
    let failing = "failing.example. A";
    for _ in 0..8 {
        assert_eq!(cache.ask(failing).await.status, "SERVFAIL");
    }
    upstream.behave(Behaviour::Good);
    let mut number = 0;
    until("an answer to a new name", || {
        number += 1;
        let cache = &cache;
        async move { cache.ask(&format!("n{number}.example. A")).await.status == "NOERROR" }
    })
    .await;
    all_answered(&[cache.ask(failing).await], "the failure is forgotten");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_servers_are_down_known_names_are_answered_and_others_fail_with_a_reason() {
    let [one, two] = [sound(FAR).await, sound(FARTHER).await];
    let cache = Running::before(&[&one, &two]).await;
    for upstream in [&one, &two] {
        upstream.answer("short.example. A", &["short.example. 1 A 192.0.2.1"]);
    }
    all_answered(&[cache.ask("short.example. A").await], "before");
    for upstream in [&one, &two] {
        upstream.behave(Behaviour::Silent);
    }
    until("a stale answer", || async {
        let answer = cache.ask("short.example. A").await;
        assert_eq!(address(&answer), "192.0.2.1", "{answer:?}");
        if reason(&answer) == 3 {
            assert!(ttl(&answer) <= 30, "{answer:?}");
        }
        reason(&answer) == 3
    })
    .await;
    for question in names("n", "example.", 3) {
        let answer = cache.ask(&question).await;
        assert_eq!(answer.status, "SERVFAIL", "{answer:?}");
        assert!([22, 23].contains(&reason(&answer)), "{answer:?}");
    }
    for upstream in [&one, &two] {
        upstream.behave(Behaviour::Good);
    }
    until("a fresh answer", || async { reason(&cache.ask("short.example. A").await) == 0 }).await;
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_kubedns_makes_no_known_name_fail() {
    let mut cluster = Cluster::start(&[]).await;
    let known: Vec<String> = (0..20).map(|n| format!("k{n}.shop.svc.cluster.local.")).collect();
    for name in &known {
        cluster.set(name, "10.96.0.1");
        assert_eq!(cluster.cache.ask(&format!("{name} A")).await.status, "NOERROR");
    }
    for round in 0..3 {
        kill(&cluster.kubedns);
        // A new generation, after which dnscache cannot rely on what it has stored.
        cluster.generation += 100;
        let line = format!("{{\"generation\":{},\"flush\":true}}\n", cluster.generation);
        send(&mut cluster.stream, &line).await;
        for _ in 0..20 {
            for name in &known {
                let answer = cluster.cache.ask(&format!("{name} A")).await;
                assert_eq!(address(&answer), "10.96.0.1", "round {round}: {answer:?}");
            }
        }
        restart(&cluster.kubedns);
        let new = format!("new{round}.shop.svc.cluster.local.");
        cluster.set(&new, "10.96.0.2");
        let answer = cluster.cache.ask(&format!("{new} A")).await;
        assert_eq!(address(&answer), "10.96.0.2", "at once, round {round}: {answer:?}");
        until("fresh answers", || async {
            reason(&cluster.cache.ask(&format!("{} A", known[0])).await) == 0
        })
        .await;
    }
    cluster.cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_asked_while_kubedns_restarts_is_answered_when_it_is_back() {
    let cluster = Cluster::start(&[]).await;
    kill(&cluster.kubedns);
    cluster.set("new.shop.svc.cluster.local.", "10.96.0.2");
    let server = cluster.cache.dns;
    let ask = crate::fixture::dns::ask_once(server, "new.shop.svc.cluster.local. A");
    let misses = cluster.cache.figure("misses").await;
    let waiting = tokio::spawn(ask);
    until("the question", || async { cluster.cache.figure("misses").await > misses }).await;
    restart(&cluster.kubedns);
    let answer = waiting.await.unwrap();
    assert_eq!(address(&answer), "10.96.0.2", "{answer:?}");
    cluster.cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubedns_that_is_not_ready_denies_nothing() {
    let mut cluster = Cluster::start(&[]).await;
    let known = "known.shop.svc.cluster.local.";
    cluster.set(known, "10.96.0.1");
    assert_eq!(cluster.cache.ask(&format!("{known} A")).await.status, "NOERROR");
    cluster.kubedns.behave(Behaviour::NotReady);
    cluster.generation += 100;
    let line = format!("{{\"generation\":{},\"flush\":true}}\n", cluster.generation);
    send(&mut cluster.stream, &line).await;
    until("the flush", || async {
        let answer = cluster.cache.ask(&format!("{known} A")).await;
        assert_eq!(address(&answer), "10.96.0.1", "{answer:?}");
        reason(&answer) != 0
    })
    .await;
    for question in names("n", "shop.svc.cluster.local.", 5) {
        let answer = cluster.cache.ask(&question).await;
        assert_eq!((&*answer.status, reason(&answer)), ("SERVFAIL", 14), "{answer:?}");
    }
    cluster.kubedns.behave(Behaviour::Good);
    for question in names("n", "shop.svc.cluster.local.", 5) {
        assert_eq!(cluster.cache.ask(&question).await.status, "NXDOMAIN", "at once");
    }
    cluster.cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_down_and_returns_is_logged_with_its_address() {
    log::keep();
    let upstream = sound(FAR).await;
    let name = format!("{}", upstream.address);
    let other = format!("{}#{}", upstream.address.ip(), upstream.address.port());
    let lines = || log::lines(&name).len() + log::lines(&other).len();
    let cache = Running::before(&[&upstream]).await;
    all_answered(&[cache.ask("a.example. A").await], "before");
    let before = lines();
    upstream.behave(Behaviour::Silent);
    let mut number = 0;
    until("a line that it is down", || {
        number += 1;
        let (cache, lines) = (&cache, &lines);
        async move {
            cache.ask(&format!("down{number}.example. A")).await;
            lines() > before
        }
    })
    .await;
    let down = lines();
    upstream.behave(Behaviour::Good);
    until("a line that it is back", || {
        number += 1;
        let (cache, lines) = (&cache, &lines);
        async move {
            cache.ask(&format!("back{number}.example. A")).await;
            lines() > down
        }
    })
    .await;
    // A failure must name the server as well.
    upstream.behave(Behaviour::Silent);
    until("a failure with the address", || {
        number += 1;
        let (cache, port) = (&cache, upstream.address.port().to_string());
        async move {
            let answer = cache.ask(&format!("fails{number}.example. A")).await;
            answer.error.is_some_and(|(_, text)| text.contains(&port))
        }
    })
    .await;
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_arrives_after_an_outage_began_is_kept_though_others_fail() {
    let upstream = sound(FAR).await;
    upstream.tries(
        "late.example. A",
        [Reply::After(Duration::from_millis(1_500), Reply::Truth.into())],
    );
    let cache = Running::before(&[&upstream]).await;
    let server = cache.dns;
    let late = tokio::spawn(crate::fixture::dns::ask_once(server, "late.example. A"));
    until("the query", || async { upstream.asked("late.example. A") > 0 }).await;
    upstream.behave(Behaviour::Silent);
    all_answered(&[late.await.unwrap()], "the late answer");
    cache.stop().await;
}
