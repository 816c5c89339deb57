//! The entries that are stored, for how long, and what replaces them.

use hickory_proto::op::ResponseCode;

use super::*;

const WEB: &str = "web.shop.svc.cluster.local.";
const WEB_A: &str = "web.shop.svc.cluster.local. A";

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_before_a_change_is_not_kept() {
    // Once with a second try before the old answer arrives, once without.
    each([1, 2], |tries| async move {
        let mut cluster = Cluster::start(&[]).await;
        cluster.set(WEB, "10.96.0.1");
        let silent = [Reply::Held(Reply::Truth.into()), Reply::Nothing, Reply::Truth];
        let quick = [Reply::Held(Reply::Truth.into()), Reply::Truth, Reply::Truth];
        cluster.kubedns.tries(WEB_A, if tries == 2 { silent } else { quick });
        let server = cluster.cache.dns;
        let waiting =
            tokio::spawn(async move { crate::fixture::dns::ask_once(server, WEB_A).await });
        until("the first try", || async { cluster.kubedns.asked(WEB_A) >= 1 }).await;
        cluster.set(WEB, "10.96.0.2");
        cluster.change(&[WEB]).await;
        until("the tries", || async { cluster.kubedns.asked(WEB_A) >= tries }).await;
        cluster.kubedns.release();
        assert_eq!(waiting.await.unwrap().status, "NOERROR");
        let after = cluster.cache.ask(WEB_A).await;
        assert_eq!(address(&after), "10.96.0.2", "{tries} tries");
        cluster.cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_after_a_change_does_not_get_an_answer_from_before_it() {
    let mut cluster = Cluster::start(&[]).await;
    cluster.set(WEB, "10.96.0.1");
    cluster.kubedns.tries(WEB_A, [Reply::Held(Reply::Truth.into()), Reply::Truth]);
    let server = cluster.cache.dns;
    let ask = || tokio::spawn(async move { crate::fixture::dns::ask_once(server, WEB_A).await });
    let before = ask();
    until("the first try", || async { cluster.kubedns.asked(WEB_A) >= 1 }).await;
    cluster.set(WEB, "10.96.0.2");
    cluster.change(&[WEB]).await;
    let misses = cluster.cache.figure("misses").await;
    let after = ask();
    until("the second question", || async { cluster.cache.figure("misses").await > misses }).await;
    cluster.kubedns.release();
    assert_eq!(before.await.unwrap().status, "NOERROR");
    assert_eq!(address(&after.await.unwrap()), "10.96.0.2");
    cluster.cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_answer_has_replaced_never_returns() {
    let (host, host_a) = ("host.example.net.", "host.example.net. A");
    let gone = Records::default().code(ResponseCode::NXDomain);
    let short = Records::denial(ResponseCode::NXDomain, 1);
    let a = |ttl: u32| Records::new(&[&format!("{host} {ttl} A 192.0.2.1")]);
    let rows = [
        ("a denial, then an address that is not kept", short, "NXDOMAIN", a(0), "NOERROR"),
        ("an address, then a denial that is not kept", a(1), "NOERROR", gone, "NXDOMAIN"),
    ];
    each(rows, |(what, first, first_status, second, second_status)| async move {
        let upstream = Upstream::start(FAR).await;
        let cache = Running::before(&[&upstream]).await;
        upstream.say(host_a, first);
        assert_eq!(cache.ask(host_a).await.status, first_status, "{what}");
        upstream.say(host_a, second);
        until(what, || async { cache.ask(host_a).await.status == second_status }).await;
        upstream.behave(Behaviour::Fails(ResponseCode::ServFail));
        for _ in 0..3 {
            let answer = cache.ask(host_a).await;
            assert_eq!(answer.status, "SERVFAIL", "{what}: {answer:?}");
        }
        cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_failed_is_not_repeated_by_each_query() {
    let upstream = Upstream::start(FAR).await;
    upstream.answer("a.example. A", &["a.example. 10 A 192.0.2.1"]);
    let cache = Running::before(&[&upstream]).await;
    assert_eq!(cache.ask("a.example. A").await.status, "NOERROR");
    upstream.behave(Behaviour::Fails(ResponseCode::ServFail));
    until("a renewal", || async {
        assert_eq!(cache.ask("a.example. A").await.status, "NOERROR");
        upstream.asked("a.example. A") > 1
    })
    .await;
    let answers = cache.ask_all(&vec!["a.example. A".to_owned(); 1_000]).await;
    all_answered(&answers, "from the cache");
    let asked = upstream.asked("a.example. A");
    assert!(asked <= 12, "1 answer, and the tries of a few renewals: {asked}");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_kept() {
    each([101, 2_100, 4_000], |count| async move {
        for at in [NEAR, FAR] {
            let upstream = Upstream::start(at).await;
            let record = |n: usize| format!("big.example. 300 A 10.{}.{}.1", n / 250, n % 250);
            let records: Vec<String> = (0..count).map(record).collect();
            let records: Vec<&str> = records.iter().map(String::as_str).collect();
            upstream.answer("big.example. A", &records);
            let cache = Running::before(&[&upstream]).await;
            for _ in 0..5 {
                let answer = crate::fixture::dns::ask_tcp(cache.dns, "big.example. A").await;
                assert_eq!(answer.answers.len(), count, "{at}");
            }
            let asked = upstream.asked("big.example. A");
            assert!(asked <= 2, "once each over UDP and TCP: {asked} for {count} at {at}");
            cache.stop().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_change_stream_cluster_names_are_kept_for_seconds_and_that_is_shown() {
    let cluster = Cluster::start(&[]).await;
    cluster.set(WEB, "10.96.0.1");
    assert!(ttl(&cluster.cache.ask(WEB_A).await) > 5, "while the stream runs");
    let Cluster { kubedns, cache, stream, listener, .. } = cluster;
    let shown = |up: bool| {
        let http = cache.http;
        async move {
            let (_, page) = crate::fixture::http::get(http, "/readyz?verbose").await;
            page.lines().any(|line| line.contains("changes") && line.contains("[+]") == up)
        }
    };
    drop((stream, listener));
    let mut number = 0;
    until("a short TTL", || {
        number += 1;
        let name = format!("n{number}.shop.svc.cluster.local.");
        kubedns.answer(&format!("{name} A"), &[&format!("{name} 300 A 10.96.0.1")]);
        let cache = &cache;
        async move { ttl(&cache.ask(&format!("{name} A")).await) <= 5 }
    })
    .await;
    // Entries that were stored before must expire as well.
    until("a short TTL of what was stored before", || async { ttl(&cache.ask(WEB_A).await) <= 5 })
        .await;
    until("a line of /readyz?verbose", || shown(false)).await;
    let (_, metrics) = crate::fixture::http::get(cache.http, "/metrics").await;
    let metric = metrics
        .lines()
        .find(|line| !line.starts_with('#') && line.contains("changes") && line.ends_with(" 0"));
    assert!(metric.is_some(), "{metrics}");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_stream_that_falls_silent_is_opened_anew() {
    let cluster = Cluster::start(&[]).await;
    let again = tokio::time::timeout(SILENCE_MAX, cluster.listener.accept()).await;
    assert!(again.is_ok(), "kubedns sends a line every 10 s");
    cluster.cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_cluster_names_end_with_a_change() {
    let target = Upstream::start(FAR).await;
    target.behave(Behaviour::Fails(ResponseCode::ServFail));
    let mut cluster = Cluster::start(&[server(&target)]).await;
    let alias = format!("{WEB} 30 CNAME db.example.");
    cluster.kubedns.answer(WEB_A, &[&alias]);
    // If failures are cached for longer each time, each failure makes the next one last longer.
    until("three failures", || async {
        assert_eq!(cluster.cache.ask(WEB_A).await.status, "SERVFAIL");
        target.asked("db.example. A") >= 3
    })
    .await;
    cluster.set(WEB, "10.96.0.1");
    cluster.change(&[WEB]).await;
    assert_eq!(address(&cluster.cache.ask(WEB_A).await), "10.96.0.1");
    // A loop of aliases that is then resolved.
    let circle = "one.shop.svc.cluster.local.";
    let question = format!("{circle} A");
    let there = format!("{circle} 30 CNAME two.example.");
    cluster.kubedns.answer(&question, &[&there]);
    target.behave(Behaviour::Good);
    target.answer("two.example. A", &[&format!("two.example. 30 CNAME {circle}")]);
    assert_eq!(cluster.cache.ask(&question).await.status, "SERVFAIL");
    cluster.set(circle, "10.96.0.2");
    cluster.change(&[circle]).await;
    assert_eq!(address(&cluster.cache.ask(&question).await), "10.96.0.2");
    cluster.cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_short_ttls_are_renewed_before_they_expire() {
    let upstream = Upstream::start(FAR).await;
    upstream.answer("a.example. A", &["a.example. 5 A 192.0.2.1"]);
    let held = Reply::Held(Reply::Truth.into());
    upstream.tries("a.example. A", [Reply::Truth, held]);
    let cache = Running::before(&[&upstream]).await;
    assert_eq!(cache.ask("a.example. A").await.status, "NOERROR");
    until("a renewal", || async {
        let answer = cache.ask("a.example. A").await;
        assert_eq!((&*answer.status, reason(&answer)), ("NOERROR", 0), "from the cache, not stale");
        upstream.asked("a.example. A") > 1
    })
    .await;
    upstream.release();
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_with_the_top_bit_set_is_a_large_one() {
    let upstream = Upstream::start(FAR).await;
    for (name, ttl) in [("a", 2_147_483_648_u32), ("b", u32::MAX), ("c", 2_147_483_647)] {
        let question = format!("{name}.example. A");
        upstream.answer(&question, &[&format!("{name}.example. {ttl} A 192.0.2.1")]);
    }
    let cache = Running::before(&[&upstream]).await;
    for name in ["a", "b", "c"] {
        let question = format!("{name}.example. A");
        for _ in 0..2 {
            let ttl = ttl(&cache.ask(&question).await);
            assert!((86_000..=86_400).contains(&ttl), "{name}: {ttl}");
        }
        assert_eq!(upstream.asked(&question), 1, "{name}");
    }
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_holds_for_its_name_and_its_servers_only() {
    let (corp, outside) = (sound(FARTHER).await, Upstream::start(FAR).await);
    let flags = [server(&outside), stub("corp.example", &corp)];
    let cache = Running::start(&flags).await;
    for denied in ["example. A", "x.example. A", "orp.example. A"] {
        assert_eq!(cache.ask(denied).await.status, "NXDOMAIN");
    }
    all_answered(&[cache.ask("a.corp.example. A").await], "the stub's name");
    corp.deny("gone.corp.example. A", ResponseCode::NXDomain, 60);
    assert_eq!(cache.ask("gone.corp.example. A").await.status, "NXDOMAIN");
    outside.answer("gone.corp.example.net. A", &["gone.corp.example.net. 60 A 192.0.2.1"]);
    all_answered(&[cache.ask("gone.corp.example.net. A").await], "a name that looks alike");
    all_answered(&[cache.ask("below.gone2.corp.example. A").await], "a name beside it");
    cache.stop().await;
}

/// A little longer than the stream may be silent.
const SILENCE_MAX: std::time::Duration = std::time::Duration::from_secs(40);
