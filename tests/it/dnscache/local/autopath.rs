//! The search list of pods, which dnscache tries for the client, and the translation for a NAT64.

use super::eventually;
use crate::dnscache::{FAR, NEAR, Running, server, stub};
use crate::fixture::dns;
use crate::fixture::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_question_of_a_walk_gets_the_answer() {
    let directory = tempfile::tempdir().unwrap();
    let resolv = directory.path().join("resolv.conf");
    std::fs::write(&resolv, "search corp.example shop.svc.cluster.example\n").unwrap();
    let (outside, kubedns) = (Upstream::start(FAR).await, Upstream::start(NEAR).await);
    kubedns.answer(
        "web.shop.svc.cluster.example. A",
        &["web.shop.svc.cluster.example. 30 A 10.96.0.7"],
    );
    outside.answer("www.example. A", &["www.example. 300 A 10.1.0.1"]);
    outside.answer("www.example. AAAA", &[]);
    outside.answer("files.lan.corp.example. A", &["files.lan.corp.example. 300 A 10.1.0.2"]);
    let flags = [
        server(&outside),
        stub("cluster.example", &kubedns),
        "--autopath".to_owned(),
        format!("--resolv-file={}", resolv.display()),
    ];
    let cache = Running::start(&flags).await;
    let pod = "app.svc.cluster.example.";
    let first = format!("www.example.{pod}");
    let rows: [(&str, &str, &[&str]); 5] = [
        ("www.example.", "NOERROR", &["300 CNAME www.example.", "www.example. 300 A 10.1.0.1"]),
        (
            "web.shop.",
            "NOERROR",
            &[
                "30 CNAME web.shop.svc.cluster.example.",
                "web.shop.svc.cluster.example. 30 A 10.96.0.7",
            ],
        ),
        (
            "files.lan.",
            "NOERROR",
            &["300 CNAME files.lan.corp.example.", "files.lan.corp.example. 300 A 10.1.0.2"],
        ),
        ("none.example.", "NXDOMAIN", &[]),
        ("web.", "NXDOMAIN", &[]),
    ];
    for _ in 0..2 {
        for (name, status, answers) in rows {
            let question = format!("{name}{pod} A");
            let alias = answers.first().map(|it| format!("{name}{pod} {it}"));
            let answers: Vec<&str> =
                alias.iter().map(String::as_str).chain(answers.iter().skip(1).copied()).collect();
            eventually(&cache, &question, status, &answers).await;
        }
    }
    assert_eq!(kubedns.asked(&format!("{first} A")), 1, "then it is a hit");
    assert_eq!(outside.asked("www.example. A"), 1);
    let empty = dns::ask_udp(cache.dns, &format!("{first} AAAA")).await;
    assert_eq!((empty.status.as_str(), empty.answers.len()), ("NOERROR", 1), "{empty:?}");
    assert_eq!(outside.asked("www.example. A"), 1, "that there is A is in the cache");
    eventually(&cache, "www.example. A", "NOERROR", &["www.example. 300 A 10.1.0.1"]).await;
    // A changed search domain of the node applies.
    outside.answer("none.example.lan.example. A", &["none.example.lan.example. 300 A 10.1.0.3"]);
    std::fs::write(&resolv, "search corp.example lan.example\n").unwrap();
    let found = [
        format!("none.example.{pod} 300 CNAME none.example.lan.example."),
        "none.example.lan.example. 300 A 10.1.0.3".to_owned(),
    ];
    let found = [found[0].as_str(), &found[1]];
    eventually(&cache, &format!("none.example.{pod} A"), "NOERROR", &found).await;
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_without_ipv6_addresses_get_translated_ones() {
    let outside = Upstream::start(FAR).await;
    outside.answer("old.example. A", &["old.example. 300 A 192.0.2.33"]);
    outside.answer("old.example. AAAA", &[]);
    outside.answer("new.example. AAAA", &["new.example. 300 AAAA 2001:db8::1"]);
    let cache = Running::start(&[server(&outside), "--dns64=64:ff9b::/96".to_owned()]).await;
    for _ in 0..2 {
        let translated = "old.example. 300 AAAA 64:ff9b::c000:221";
        eventually(&cache, "old.example. AAAA", "NOERROR", &[translated]).await;
        let own = "new.example. 300 AAAA 2001:db8::1";
        eventually(&cache, "new.example. AAAA", "NOERROR", &[own]).await;
        eventually(&cache, "none.example. AAAA", "NXDOMAIN", &[]).await;
        eventually(&cache, "old.example. A", "NOERROR", &["old.example. 300 A 192.0.2.33"]).await;
    }
    assert_eq!((outside.asked("old.example. AAAA"), outside.asked("old.example. A")), (1, 1));
    cache.stop().await;
}
