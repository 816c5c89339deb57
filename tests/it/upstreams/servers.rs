//! The server that is asked if another one fails.

use std::time::Duration;

use hickory_proto::op::ResponseCode;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_server_is_asked_before_a_question_fails() {
    let codes = [ResponseCode::Refused, ResponseCode::ServFail, ResponseCode::NotImp];
    each(codes, |code| async move {
        for zone in ["example.", "corp.example."] {
            let [one, two] = [Upstream::start(FAR).await, Upstream::start(FARTHER).await];
            let good = sound(FAR).await;
            good.delay(Duration::from_millis(20));
            for bad in [&one, &two] {
                bad.behave(Behaviour::Fails(code));
            }
            let flags = [&one, &two, &good].map(|upstream| match zone {
                "example." => server(upstream),
                _ => stub("corp.example", upstream),
            });
            let cache = Running::start(&flags).await;
            for question in names("n", zone, 20) {
                all_answered(&[cache.ask(&question).await], &format!("{code}: {question}"));
            }
            cache.stop().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_is_asked_seldom_while_another_answers() {
    each([ResponseCode::Refused, ResponseCode::ServFail], |code| async move {
        let (bad, good) = (Upstream::start(FAR).await, sound(FARTHER).await);
        bad.behave(Behaviour::Fails(code));
        good.delay(Duration::from_millis(5));
        let cache = Running::before(&[&bad, &good]).await;
        for question in names("n", "example.", 100) {
            all_answered(&[cache.ask(&question).await], &question);
        }
        let asked = bad.count("example.");
        assert!(asked <= 30, "{code}: {asked} of 100");
        // It works again, and is the only one that does, so it must be asked again.
        bad.behave(Behaviour::Good);
        bad.otherwise("300 A 192.0.2.1");
        good.behave(Behaviour::Fails(code));
        for question in names("m", "example.", 10) {
            all_answered(&[cache.ask(&question).await], &question);
        }
        cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_first_server_hides_no_answer() {
    let (silent, good) = (Upstream::start(FAR).await, sound(FARTHER).await);
    silent.behave(Behaviour::Silent);
    let cache = Running::before(&[&silent, &good]).await;
    for question in names("n", "example.", 60) {
        all_answered(&[cache.ask(&question).await], &question);
    }
    let asked = silent.count("example.");
    assert!(asked <= 30, "the silent one is asked seldom: {asked} of 60");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_never_replaces_an_answer_that_has_expired() {
    let failures = [
        Reply::Code(2),
        Reply::Code(5),
        Reply::Code(4),
        Reply::Code(16),
        Reply::Bare(2),
        Reply::Broken(Broken::Junk),
        Reply::Broken(Broken::Cut),
        Reply::Broken(Broken::AliasLoop),
        Reply::Broken(Broken::OtherOwner),
        Reply::Broken(Broken::Referral),
    ];
    each(failures, |failure| async move {
        let upstream = Upstream::start(FAR).await;
        upstream.answer("a.example. A", &["a.example. 1 A 192.0.2.1"]);
        let cache = Running::before(&[&upstream]).await;
        assert_eq!(cache.ask("a.example. A").await.status, "NOERROR");
        upstream.over_udp(failure.clone());
        upstream.over_tcp(failure.clone());
        until("a stale answer", || async {
            let answer = cache.ask("a.example. A").await;
            assert_eq!(address(&answer), "192.0.2.1", "{failure:?}: {answer:?}");
            reason(&answer) == 3
        })
        .await;
        upstream.behave(Behaviour::Good);
        until("a fresh answer", || async {
            let answer = cache.ask("a.example. A").await;
            assert_eq!(address(&answer), "192.0.2.1", "{failure:?}: {answer:?}");
            reason(&answer) == 0
        })
        .await;
        cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_asked_a_bounded_number_of_times_for_a_question() {
    let rows = [
        ("silent", Reply::Nothing),
        ("referral", Reply::Broken(Broken::Referral)),
        ("SERVFAIL", Reply::Code(2)),
        ("junk", Reply::Broken(Broken::Junk)),
    ];
    each(rows, |(what, reply)| async move {
        let [one, two] = [Upstream::start(FAR).await, Upstream::start(FARTHER).await];
        for upstream in [&one, &two] {
            upstream.over_udp(reply.clone());
            upstream.over_tcp(reply.clone());
        }
        let cache = Running::before(&[&one, &two]).await;
        let answer = cache.ask("a.example. A").await;
        assert_eq!(answer.status, "SERVFAIL", "{what}: {answer:?}");
        assert_ne!(answer.error, None, "{what}");
        for upstream in [&one, &two] {
            let seen = upstream.seen("a.example.");
            let tcp = seen.iter().filter(|seen| seen.tcp).count();
            assert!(seen.len() - tcp <= 3 && tcp <= 3, "{what}: {tcp} over TCP of {}", seen.len());
            assert_ne!(seen.len(), 0, "{what}: each is asked");
        }
        cache.stop().await;
    })
    .await;
}
