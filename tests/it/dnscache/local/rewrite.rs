//! Rewrites, and the filter of AAAA.

use super::eventually;
use crate::dnscache::{FAR, NEAR, Running, server, stub};
use crate::fixture::upstream::Upstream;
use crate::fixture::{changes, dns};

#[tokio::test(flavor = "multi_thread")]
async fn clients_get_the_answer_of_another_question_under_their_own_name() {
    let (outside, kubedns) = (Upstream::start(FAR).await, Upstream::start(NEAR).await);
    let web = "web.shop.svc.cluster.local.";
    kubedns.answer(&format!("{web} A"), &[&format!("{web} 30 A 10.96.0.7")]);
    outside.answer("b.example. A", &["b.example. 300 A 10.1.0.1"]);
    outside.answer(
        "old.example. A",
        &["old.example. 300 CNAME b.example.", "b.example. 300 A 10.1.0.1"],
    );
    outside.answer("a.example. AAAA", &["a.example. 300 AAAA fd00::1"]);
    let flags = [
        server(&outside),
        stub("cluster.local", &kubedns),
        "--rewrite=continue ttl slow.example 5".to_owned(),
        "--rewrite=name suffix .corp.example .svc.cluster.local answer auto".to_owned(),
        "--rewrite=name regex (.*)\\.nodes\\.vcluster\\.com web.shop.svc.cluster.local".to_owned(),
        "--rewrite=name slow.example b.example".to_owned(),
        "--rewrite=name new.example old.example".to_owned(),
        "--rewrite=stop type A AAAA".to_owned(),
    ];
    let cache = Running::start(&flags).await;
    let rows: [(&str, &str, &[&str]); 8] = [
        ("web.shop.corp.example. A", "NOERROR", &["web.shop.corp.example. 30 A 10.96.0.7"]),
        ("Web.Shop.Corp.Example. A", "NOERROR", &["Web.Shop.Corp.Example. 30 A 10.96.0.7"]),
        ("none.shop.corp.example. A", "NXDOMAIN", &[]),
        ("x.nodes.vcluster.com. A", "NOERROR", &["web.shop.svc.cluster.local. 30 A 10.96.0.7"]),
        ("slow.example. A", "NOERROR", &["slow.example. 5 A 10.1.0.1"]),
        (
            "new.example. A",
            "NOERROR",
            &["b.example. 300 A 10.1.0.1", "new.example. 300 CNAME b.example."],
        ),
        ("a.example. A", "NOERROR", &["a.example. 300 AAAA fd00::1"]),
        ("b.example. TXT", "NXDOMAIN", &[]),
    ];
    for _ in 0..2 {
        for (question, status, answers) in rows {
            eventually(&cache, question, status, answers).await;
        }
    }
    assert_eq!(kubedns.asked(&format!("{web} A")), 2, "by each of two names once, then by none");
    assert_eq!(outside.asked("a.example. AAAA"), 1);
    assert_eq!((outside.seen("corp.example.").len(), outside.seen("vcluster.com.").len()), (0, 0));
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_cluster_reaches_names_that_lead_to_it() {
    let kubedns = Upstream::start(NEAR).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let web = "web.shop.svc.cluster.local.";
    kubedns.answer(&format!("{web} A"), &[&format!("{web} 3000 A 10.96.0.7")]);
    let flags = [
        stub("cluster.local", &kubedns),
        format!("--changes=http://127.0.0.1:{port}/changes"),
        "--rewrite=name web.corp.example web.shop.svc.cluster.local".to_owned(),
    ];
    let cache = Running::start(&flags).await;
    let (mut stream, _) = changes::accept(&listener).await;
    changes::send(&mut stream, "{\"generation\":1}\n").await;
    eventually(&cache, "web.corp.example. A", "NOERROR", &["web.corp.example. 3000 A 10.96.0.7"])
        .await;
    kubedns.answer(&format!("{web} A"), &[&format!("{web} 3000 A 10.96.0.8")]);
    changes::send(&mut stream, "{\"generation\":2,\"names\":[\"web.shop.svc.cluster.local.\"]}\n")
        .await;
    eventually(&cache, "web.corp.example. A", "NOERROR", &["web.corp.example. 3000 A 10.96.0.8"])
        .await;
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_of_a_rewritten_name_share_one_question_and_its_failure() {
    let outside = Upstream::start(FAR).await;
    outside.otherwise("300 A 10.0.0.1");
    let flags =
        [server(&outside), "--rewrite=name suffix .corp.example .example answer auto".to_owned()];
    let cache = Running::start(&flags).await;
    let questions = vec!["a.corp.example. A".to_owned(); 200];
    for answer in cache.ask_all(&questions).await {
        assert_eq!((answer.status.as_str(), answer.answers.len()), ("NOERROR", 1), "{answer:?}");
        assert!(answer.answers[0].starts_with("a.corp.example. "), "{answer:?}");
    }
    assert_eq!(outside.asked("a.example. A"), 1);
    outside.deny("b.example. A", hickory_proto::op::ResponseCode::Refused, 0);
    let failed = dns::ask_udp(cache.dns, "b.corp.example. A").await;
    assert_eq!((failed.status.as_str(), failed.answers.len()), ("REFUSED", 0), "{failed:?}");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_outside_have_no_ipv6_addresses_if_they_are_filtered() {
    let (outside, kubedns) = (Upstream::start(FAR).await, Upstream::start(NEAR).await);
    let web = "web.shop.svc.cluster.local.";
    kubedns.answer(&format!("{web} AAAA"), &[&format!("{web} 30 AAAA fd00::7")]);
    outside.answer("a.example. AAAA", &["a.example. 30 AAAA fd00::1"]);
    outside.answer("a.example. A", &["a.example. 30 A 10.0.0.1"]);
    let flags = [server(&outside), stub("cluster.local", &kubedns), "--filter-aaaa".to_owned()];
    let cache = Running::start(&flags).await;
    for _ in 0..2 {
        eventually(&cache, "a.example. AAAA", "NODATA", &[]).await;
        eventually(&cache, "a.example. A", "NOERROR", &["a.example. 30 A 10.0.0.1"]).await;
        let web_has = format!("{web} 30 AAAA fd00::7");
        eventually(&cache, &format!("{web} AAAA"), "NOERROR", &[&web_has]).await;
    }
    assert_eq!(outside.asked("a.example. AAAA"), 0);
    assert_eq!(cache.figure("hits").await, 3);
    cache.stop().await;
}
