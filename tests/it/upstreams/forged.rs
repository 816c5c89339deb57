//! Datagrams that are not the reply. dnscache must ignore them.

use std::time::Duration;

use super::*;
use crate::fixture::dns;

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_reply_is_accepted() {
    let upstream = sound(FAR).await;
    let forged = Reply::Each(vec![
        Reply::Forged(Forgery::ALL.into()),
        Reply::Mutated(60, 5),
        Reply::Flood(60),
        Reply::Truth,
    ]);
    upstream.over_udp(forged);
    let cache = Running::before(&[&upstream]).await;
    for question in names("letters", "of-a-long-name.example.", 200) {
        let answer = cache.ask(&question).await;
        assert_eq!(address(&answer), "192.0.2.1", "{answer:?}");
    }
    cache.stop().await;
}

/// Each forgery alone, without a correct reply over UDP. TCP has the correct reply.
#[tokio::test(flavor = "multi_thread")]
async fn forged_replies_end_no_wait() {
    each(Forgery::ALL, |forgery| async move {
        let upstream = sound(FAR).await;
        upstream.over_udp(Reply::Forged(vec![forgery]));
        let cache = Running::before(&[&upstream]).await;
        for question in names("n", "example.", 3) {
            let answer = cache.ask(&question).await;
            assert_eq!(address(&answer), "192.0.2.1", "{forgery:?}: {answer:?}");
        }
        // With the correct reply 300 ms later.
        upstream.over_udp(Reply::Each(vec![
            Reply::Forged(vec![forgery]),
            Reply::After(Duration::from_millis(300), Reply::Truth.into()),
        ]));
        for question in names("m", "example.", 3) {
            let answer = cache.ask(&question).await;
            assert_eq!(address(&answer), "192.0.2.1", "{forgery:?}: {answer:?}");
        }
        cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_forged_replies_cost_no_answer_and_no_health() {
    let upstream = sound(FAR).await;
    let flood = [Reply::Flood(500), Reply::Mutated(500, 3), Reply::Truth];
    upstream.over_udp(Reply::Each(flood.into()));
    let cache = Running::before(&[&upstream]).await;
    for question in names("n", "long-enough.example.", 20) {
        let answer = cache.ask(&question).await;
        assert_eq!(address(&answer), "192.0.2.1", "{answer:?}");
    }
    assert!(cache.is_up(&upstream).await);
    upstream.over_udp(Reply::Truth);
    all_answered(&[cache.ask("after.example. A").await], "after the flood");
    let after = upstream.seen("after.example.");
    assert!(!after[0].tcp && after[0].has_edns(), "as before the flood: {after:?}");
    cache.stop().await;
}

/// A forged FORMERR can cost at most one try without EDNS. Later questions must still use EDNS.
#[tokio::test(flavor = "multi_thread")]
async fn forged_errors_of_another_id_change_nothing() {
    let upstream = sound(FAR).await;
    let late = Reply::After(Duration::from_millis(20), Reply::Truth.into());
    upstream.over_udp(Reply::Each(vec![Reply::Flood(20), late]));
    let cache = Running::before(&[&upstream]).await;
    for question in names("n", "example.", 50) {
        all_answered(&[cache.ask(&question).await], &question);
    }
    assert!(upstream.seen("example.").iter().all(|seen| seen.has_edns()));
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_ports_and_letters_are_random() {
    let upstream = sound(FAR).await;
    let cache = Running::before(&[&upstream]).await;
    let asked = names("n", "of-many-letters.example.", 2_000);
    for some in asked.chunks(200) {
        all_answered(&dns::crowd(cache.dns, some).await, "all");
    }
    let seen = upstream.seen("example.");
    let distinct = |of: fn(&crate::fixture::upstream::Seen) -> u64| {
        let mut values: Vec<u64> = seen.iter().map(of).collect();
        values.sort_unstable();
        values.dedup();
        values.len()
    };
    // Of 2,000 random numbers below 60,000 about 1,967 differ.
    assert!(distinct(|seen| seen.peer.port().into()) > 1_900);
    assert!(distinct(|seen| seen.id().into()) > 1_900);
    let is_upper = |seen: &&crate::fixture::upstream::Seen| seen.message[13].is_ascii_uppercase();
    let upper = seen.iter().filter(is_upper).count();
    assert!((600..1_400).contains(&upper), "{upper} of {}", seen.len());
    let low = seen.iter().filter(|seen| seen.peer.port() < 1_024).count();
    assert_eq!(low, 0, "ports of system services are left out");
    cache.stop().await;
}
