//! Replies that are late, lost or missing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::ResponseCode;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_is_heard() {
    each([500, 1_200, 1_900, 2_500, 4_000], |millis| async move {
        let upstream = sound(FAR).await;
        upstream.delay(Duration::from_millis(millis));
        let cache = Running::before(&[&upstream]).await;
        for name in ["first", "second"] {
            let answer = cache.ask(&format!("{name}.example. A")).await;
            assert_eq!(address(&answer), "192.0.2.1", "{millis} ms: {answer:?}");
        }
        assert!(cache.is_up(&upstream).await, "{millis} ms: it answers every query");
        cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn once_its_round_trip_is_known_a_slow_upstream_gets_a_query_once() {
    let upstream = sound(FAR).await;
    upstream.delay(Duration::from_millis(500));
    let cache = Running::before(&[&upstream]).await;
    all_answered(&[cache.ask("first.example. A").await], "the first");
    let answers = cache.ask_all(&names("n", "later.example.", 40)).await;
    all_answered(&answers, "the others");
    let sent = upstream.count("later.example.");
    assert!(sent <= 50, "{sent} datagrams for 40 questions");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_to_the_same_server_is_the_same_question_from_the_same_port() {
    let upstream = sound(FAR).await;
    let slow = Reply::After(Duration::from_millis(900), Reply::Truth.into());
    upstream.over_udp(slow);
    upstream.over_tcp(Reply::Nothing);
    let cache = Running::before(&[&upstream]).await;
    for question in names("n", "example.", 3) {
        all_answered(&[cache.ask(&question).await], &question);
        let name = question.split(' ').next().unwrap();
        let udp: Vec<_> = upstream.seen(name).into_iter().filter(|seen| !seen.tcp).collect();
        let is_same = |seen: &crate::fixture::upstream::Seen| {
            (seen.peer, &seen.message) == (udp[0].peer, &udp[0].message)
        };
        assert!(udp.iter().all(is_same), "{udp:?}");
    }
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_reply_is_kept_though_its_client_had_a_stale_one() {
    let upstream = Upstream::start(FAR).await;
    upstream.answer("a.example. A", &["a.example. 1 A 192.0.2.1"]);
    let cache = Running::before(&[&upstream]).await;
    assert_eq!(address(&cache.ask("a.example. A").await), "192.0.2.1");
    upstream.answer("a.example. A", &["a.example. 300 A 192.0.2.2"]);
    upstream.delay(Duration::from_millis(2_600));
    let stale = AtomicBool::new(false);
    until("the late reply", || async {
        let answer = cache.ask("a.example. A").await;
        assert_eq!(answer.status, "NOERROR", "{answer:?}");
        if reason(&answer) == 3 {
            stale.store(true, Ordering::Relaxed);
        }
        address(&answer) == "192.0.2.2"
    })
    .await;
    assert!(stale.into_inner(), "meanwhile the stale answer");
    assert_eq!(questions(&upstream, "a.example."), 2);
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_datagrams_cost_no_answer() {
    let loss = Loss { queries: 0.3, replies: 0.3 };
    each([1, 2], |count| async move {
        let upstreams = [sound(FAR).await, sound(FARTHER).await];
        let upstreams = &upstreams[..count];
        for (seed, upstream) in (11..).zip(upstreams) {
            upstream.lose(loss, seed);
            upstream.delay(Duration::from_millis(10));
        }
        let flags: Vec<String> = upstreams.iter().map(server).collect();
        let cache = Running::start(&flags).await;
        for round in 0..4 {
            let answers = cache.ask_all(&names("n", &format!("r{round}.example."), 50)).await;
            all_answered(&answers, &format!("{count} upstreams"));
        }
        cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_closed_for_a_moment_costs_no_answer() {
    let upstream = sound(FAR).await;
    upstream.close_udp();
    upstream.manner(Manner { way: Way::Closes, ..Manner::default() });
    let cache = Running::before(&[&upstream]).await;
    let sent = format!("dnscache_upstream_queries_total{{server=\"{}\"}}", upstream.address);
    let server = cache.dns;
    let before = cache.metric(&sent).await.unwrap_or(0.0);
    let ask = crate::fixture::dns::ask_once(server, "a.example. A");
    let waiting = tokio::spawn(ask);
    until("the first try", || async {
        cache.metric(&sent).await.is_some_and(|sent| sent > before)
    })
    .await;
    upstream.open_udp();
    upstream.manner(Manner::default());
    all_answered(&[waiting.await.unwrap()], "a later try");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_no_reason_to_do_without_edns() {
    let upstream = sound(FAR).await;
    upstream.over_udp(Reply::ToEdns(Reply::Nothing.into()));
    let cache = Running::before(&[&upstream]).await;
    for question in names("n", "example.", 3) {
        cache.ask(&question).await;
    }
    assert!(upstream.seen("example.").iter().all(|seen| seen.has_edns()));
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_server_cannot_parse_edns_is_remembered() {
    let upstream = sound(FAR).await;
    upstream.over_udp(Reply::ToEdns(Reply::Code(ResponseCode::FormErr.into()).into()));
    let cache = Running::before(&[&upstream]).await;
    for question in names("n", "example.", 5) {
        all_answered(&[cache.ask(&question).await], &question);
    }
    let last = upstream.seen("n4.example.");
    assert_eq!(last.iter().map(|seen| seen.has_edns()).collect::<Vec<_>>(), [false]);
    cache.stop().await;
}
