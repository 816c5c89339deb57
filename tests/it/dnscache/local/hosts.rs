//! Hosts files.

use std::path::Path;

use super::eventually;
use crate::dnscache::{FAR, NEAR, Running, exchange, server, stub};
use crate::fixture::upstream::Upstream;
use crate::fixture::{dns, http};

/// Replaces `path` atomically.
pub fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_hosts_file_are_answered_and_others_asked() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("hosts"), directory.path().join("NodeHosts"));
    write(&one, "10.0.0.1 a.corp.example a\n10.0.0.2 a.corp.example\nfd00::1 six.example\n");
    write(&two, "10.0.0.9 a.corp.example node-1\n192.168.5.5 Node-2.local\n");
    let (outside, kubedns) = (Upstream::start(FAR).await, Upstream::start(NEAR).await);
    outside.answer("b.example. A", &["b.example. 30 A 10.1.0.1"]);
    let alias = "out.shop.svc.cluster.local. 30 CNAME a.corp.example.";
    kubedns.answer("out.shop.svc.cluster.local. A", &[alias]);
    let flags = [
        server(&outside),
        stub("cluster.local", &kubedns),
        format!("--hosts={}", one.display()),
        format!("--hosts={}", two.display()),
    ];
    let cache = Running::start(&flags).await;
    let corp: &[&str] = &["a.corp.example. 3600 A 10.0.0.1", "a.corp.example. 3600 A 10.0.0.2"];
    let rows: [(&str, &str, &[&str]); 11] = [
        ("a.corp.example. A", "NOERROR", corp),
        (
            "A.Corp.Example. A",
            "NOERROR",
            &["A.Corp.Example. 3600 A 10.0.0.1", "A.Corp.Example. 3600 A 10.0.0.2"],
        ),
        ("a.corp.example. AAAA", "NODATA", &[]),
        ("a.corp.example. TXT", "NODATA", &[]),
        ("six.example. AAAA", "NOERROR", &["six.example. 3600 AAAA fd00::1"]),
        ("node-1. A", "NOERROR", &["node-1. 3600 A 10.0.0.9"]),
        ("node-2.local. A", "NOERROR", &["node-2.local. 3600 A 192.168.5.5"]),
        (
            "5.5.168.192.in-addr.arpa. PTR",
            "NOERROR",
            &["5.5.168.192.in-addr.arpa. 3600 PTR node-2.local."],
        ),
        ("b.example. A", "NOERROR", &["b.example. 30 A 10.1.0.1"]),
        ("c.example. A", "NXDOMAIN", &[]),
        (
            "out.shop.svc.cluster.local. A",
            "NOERROR",
            &["a.corp.example. 3600 A 10.0.0.1", "a.corp.example. 3600 A 10.0.0.2", alias],
        ),
    ];
    for _ in 0..2 {
        for (question, status, answers) in rows {
            let answer = eventually(&cache, question, status, answers).await;
            assert!(answer.recursion_available, "{question}");
        }
    }
    assert!(cache.figure("hits").await >= 10, "the second round comes from the cache");
    for name in ["corp.example.", "six.example.", "node-1.", "node-2.local.", "168.192"] {
        assert_eq!(outside.seen(name).len(), 0, "{name}");
    }
    assert_eq!(outside.asked("b.example. A"), 1);
    let mut query = dns::query("a.corp.example. A", Some(1_232));
    query[2] = 0; // without RD
    assert_eq!(exchange(cache.dns, &query).await.answers.len(), 2, "it is no secret");
    http::eventually(cache.http, "/metrics", 200, "dnscache_hosts_names 6").await;
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_hosts_file_changes_answers_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hosts");
    let upstream = Upstream::start(FAR).await;
    for (question, answer) in [
        ("a.example. A", "a.example. 3000 A 10.1.0.1"),
        ("b.example. A", "b.example. 3000 A 10.1.0.2"),
        ("1.0.0.10.in-addr.arpa. PTR", "1.0.0.10.in-addr.arpa. 3000 PTR up.example."),
    ] {
        upstream.answer(question, &[answer]);
    }
    let stub = format!("--server=/10.in-addr.arpa/{}#{}", FAR, upstream.address.port());
    let flags = [server(&upstream), stub, format!("--hosts={}", file.display())];
    let cache = Running::start(&flags).await;
    let check = async |a: &str, b: &str, pointer: &str| {
        let a = format!("a.example. {a}");
        eventually(&cache, "a.example. A", "NOERROR", &[&a]).await;
        let b = format!("b.example. {b}");
        eventually(&cache, "b.example. A", "NOERROR", &[&b]).await;
        let pointer = format!("1.0.0.10.in-addr.arpa. {pointer}");
        let question = "1.0.0.10.in-addr.arpa. PTR";
        eventually(&cache, question, "NOERROR", &[&pointer]).await;
    };
    let (a, b, pointer) = ("3000 A 10.1.0.1", "3000 A 10.1.0.2", "3000 PTR up.example.");
    check(a, b, pointer).await;
    http::eventually(cache.http, "/readyz?verbose", 200, "it has no names until").await;
    write(&file, "10.0.0.1 a.example\n");
    check("3600 A 10.0.0.1", b, "3600 PTR a.example.").await;
    http::eventually(cache.http, "/readyz?verbose", 200, "[+]hosts ok").await;
    write(&file, "10.0.0.2 a.example\n10.0.0.1 b.example\nnonsense here\n");
    check("3600 A 10.0.0.2", "3600 A 10.0.0.1", "3600 PTR b.example.").await;
    let broken = "line 3: \"nonsense\" is not an IP address";
    http::eventually(cache.http, "/readyz?verbose", 200, broken).await;
    http::eventually(cache.http, "/metrics", 200, "dnscache_hosts_refused_lines 1").await;
    std::fs::remove_file(&file).unwrap();
    http::eventually(cache.http, "/readyz?verbose", 200, "its last lines stay").await;
    check("3600 A 10.0.0.2", "3600 A 10.0.0.1", "3600 PTR b.example.").await;
    write(&file, "");
    check(a, b, pointer).await;
    assert_eq!(upstream.asked("b.example. A"), 2, "once before the file and once after");
    cache.stop().await;
}
