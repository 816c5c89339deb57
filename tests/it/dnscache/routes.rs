//! Keys of the configuration directory that change or are removed: the upstream that is asked after
//! it.

use std::path::Path;

use super::{FAR, NEAR, Running, exchange, server, stub, until};
use crate::fixture::upstream::Upstream;
use crate::fixture::{dns, http};

/// Replaces a key of the directory atomically, or removes it.
fn write(directory: &Path, key: &str, text: Option<&str>) {
    let Some(text) = text else { return std::fs::remove_file(directory.join(key)).unwrap() };
    let new = directory.join(".new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, directory.join(key)).unwrap();
}

/// Asks for new names below `domain` until `upstream` gets the query. If it is `None`, asks until
/// no upstream does.
async fn asked_is(cache: &Running, domain: &str, upstream: Option<&Upstream>) {
    let mut number = 0;
    until("a query at the server that is asked now", || {
        number += 1;
        let name = format!("n{number}.{domain}");
        async move {
            let before = upstream.map_or(0, |upstream| upstream.seen(domain).len());
            let query = dns::query(&format!("{name} A"), Some(1_232));
            let answer = exchange(cache.dns, &query).await;
            match upstream {
                Some(upstream) => {
                    answer.status == "NXDOMAIN" && upstream.seen(domain).len() > before
                }
                None => answer.status == "SERVFAIL",
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_name_servers_change_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (Upstream::start(FAR).await, Upstream::start(FAR).await);
    let flags = [format!("--config-dir={}", directory.path().display())];
    let cache = Running::start(&flags).await;
    asked_is(&cache, "example.", None).await;
    for (upstream, other) in [(&one, &two), (&two, &one), (&one, &two)] {
        let servers = format!(r#"["{}"]"#, upstream.address);
        write(directory.path(), "upstreamNameservers", Some(&servers));
        asked_is(&cache, "example.", Some(upstream)).await;
        let before = other.seen("last.example.").len();
        asked_is(&cache, "last.example.", Some(upstream)).await;
        assert_eq!(other.seen("last.example.").len(), before, "nobody else is asked");
    }
    write(directory.path(), "upstreamNameservers", None);
    asked_is(&cache, "example.", None).await;
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_stub_domain_a_name_is_as_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let (corp, outside) = (Upstream::start(FAR).await, Upstream::start(FAR).await);
    let flags = [server(&outside), format!("--config-dir={}", directory.path().display())];
    let who = "who.corp.example. A";
    corp.answer(who, &["who.corp.example. 300 A 10.0.0.1"]);
    outside.answer(who, &["who.corp.example. 300 A 10.0.0.2"]);
    let stub = format!(r#"{{"corp.example": ["{}"]}}"#, corp.address);
    write(directory.path(), "stubDomains", Some(&stub));
    let cache = Running::start(&flags).await;
    for (text, upstream, last) in
        [(None, &outside, "2"), (Some(&*stub), &corp, "1"), (None, &outside, "2")]
    {
        write(directory.path(), "stubDomains", text);
        asked_is(&cache, "corp.example.", Some(upstream)).await;
        let answer = dns::ask_udp(cache.dns, who).await;
        assert!(
            answer.answers[0].ends_with(last),
            "what was kept went with its server: {answer:?}"
        );
    }
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_entry_at_the_start_disables_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (corp, outside) = (Upstream::start(FAR).await, Upstream::start(FAR).await);
    let stubs = format!(
        r#"{{"good.corp": ["{0}"], "_msdcs.corp": ["{0}"], "b.corp": ["not an address!"]}}"#,
        corp.address
    );
    write(directory.path(), "stubDomains", Some(&stubs));
    let servers = format!(r#"["0.0.0.0", "{}"]"#, outside.address);
    write(directory.path(), "upstreamNameservers", Some(&servers));
    write(directory.path(), "stubDomain", Some("{}"));
    write(directory.path(), "federations", Some("nonsense"));
    let cache = Running::start(&[format!("--config-dir={}", directory.path().display())]).await;
    asked_is(&cache, "good.corp.", Some(&corp)).await;
    asked_is(&cache, "_msdcs.corp.", Some(&corp)).await;
    asked_is(&cache, "example.", Some(&outside)).await;
    let named = [
        "[!]config-dir warning:",
        "unknown key \"stubDomain\"",
        "server \"not an address!\" of \"b.corp\"",
        "\"0.0.0.0\": 0.0.0.0 is not the address of one host",
        "\"nonsense\" is not NAME=DOMAIN",
        "readyz check passed",
    ];
    for part in named {
        http::eventually(cache.http, "/readyz?verbose", 200, part).await;
    }
    http::eventually(cache.http, "/metrics", 200, "dnscache_config_refused_entries 4").await;
    for key in ["stubDomain", "federations"] {
        write(directory.path(), key, None);
    }
    let stubs = format!(r#"{{"good.corp": ["{}"]}}"#, corp.address);
    write(directory.path(), "stubDomains", Some(&stubs));
    let servers = format!(r#"["{}"]"#, outside.address);
    write(directory.path(), "upstreamNameservers", Some(&servers));
    http::eventually(cache.http, "/readyz?verbose", 200, "[+]config-dir ok").await;
    http::eventually(cache.http, "/metrics", 200, "dnscache_config_refused_entries 0").await;
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_upstream_the_cluster_is_served_and_the_page_shows_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("resolv.conf");
    std::fs::write(&file, "nameserver fe80::1\n").unwrap();
    let kubedns = Upstream::start(NEAR).await;
    let flags = [stub("cluster.local", &kubedns), format!("--resolv-file={}", file.display())];
    let cache = Running::start(&flags).await;
    asked_is(&cache, "cluster.local.", Some(&kubedns)).await;
    asked_is(&cache, "example.", None).await;
    for part in ["[!]upstreams warning: there is no upstream", "line 1, \"nameserver fe80::1\""] {
        http::eventually(cache.http, "/readyz?verbose", 200, part).await;
    }
    http::eventually(cache.http, "/metrics", 200, "dnscache_default_upstreams 0").await;
    http::eventually(cache.http, "/metrics", 200, "dnscache_resolv_conf_refused_lines 1").await;
    std::fs::write(&file, "nameserver 127.0.0.9\nnameserver fe80::1%lo\n").unwrap();
    http::eventually(cache.http, "/readyz?verbose", 200, "[+]upstreams ok").await;
    http::eventually(cache.http, "/metrics", 200, "dnscache_default_upstreams 2").await;
    cache.stop().await;
}
