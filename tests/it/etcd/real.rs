//! kubedns with a real etcd, if `ETCD` or `KUBEBUILDER_ASSETS` names one. Otherwise the tests print
//! that they were skipped.

use std::path::PathBuf;

use serde_json::json;
use tests::etcd::{self, Etcd};

use crate::fixture::http;
use crate::fixture::kubedns::{Kubedns, start};

/// Returns etcd and its program. Prints that the test is skipped if there is none.
async fn etcd() -> Option<(Etcd, PathBuf)> {
    let Some(program) = etcd::program() else {
        println!("skipped: neither ETCD nor KUBEBUILDER_ASSETS names an etcd");
        return None;
    };
    Some((Etcd::start(&program).await, program))
}

/// Starts kubedns with the zone `skydns.local` and further flags.
async fn kubedns(etcd: &Etcd, flags: &[&str]) -> Kubedns {
    start(&[&["--etcd", &*etcd.url, "--etcd-zone", "skydns.local"], flags].concat()).await
}

const WWW: &str = "/skydns/local/skydns/www/1a2b3c4d";
const ASKED: &str = "www.skydns.local. A";

fn www(ttl_secs: u32, address: &str) -> String {
    format!("www.skydns.local. {ttl_secs} IN A {address}")
}

#[tokio::test]
async fn answers_follow_the_keys() {
    let Some((etcd, _)) = etcd().await else { return };
    etcd.put("/skydns/local/skydns/broken", "{").await;
    etcd.put("/skydnslocal/skydns/other", r#"{"host":"10.9.9.9"}"#).await;
    for number in 0..2_500 {
        let key = format!("/skydns/local/skydns/many/{number}");
        etcd.put(&key, &format!(r#"{{"text":"{number}"}}"#)).await; // three pages
    }
    let kubedns = kubedns(&etcd, &[]).await;
    kubedns.answers(ASKED, "NXDOMAIN", &[]).await;
    kubedns
        .answers(
            "2499.many.skydns.local. TXT",
            "NOERROR",
            &["2499.many.skydns.local. 300 IN TXT 2499"],
        )
        .await;
    let mut changes = http::lines(kubedns.http, "/changes").await;
    changes.next().await.unwrap();
    etcd.put(WWW, r#"{"host":"10.0.0.7","ttl":60}"#).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(60, "10.0.0.7")]).await;
    assert!(changes.next().await.unwrap().contains(r#""names":["www.skydns.local."]"#));
    etcd.put(WWW, r#"{"host":"10.0.0.8","ttl":60}"#).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(60, "10.0.0.8")]).await;
    etcd.put(WWW, r#"{"host":8}"#).await;
    kubedns.answers(ASKED, "NXDOMAIN", &[]).await;
    let lease = etcd.grant(2).await;
    etcd.put_leased(WWW, r#"{"host":"10.0.0.9"}"#, lease).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(30, "10.0.0.9")]).await;
    kubedns.answers(ASKED, "NXDOMAIN", &[]).await; // after the lease
    etcd.put(WWW, r#"{"host":"10.0.0.10"}"#).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(300, "10.0.0.10")]).await;
    etcd.delete(WWW).await;
    kubedns.answers(ASKED, "NXDOMAIN", &[]).await;
    let metrics = http::get(kubedns.http, "/metrics").await.1;
    assert!(metrics.contains(r#"watch_events_total{kind="etcd",namespace="",event="list"} 1"#));
    kubedns.end().await;
}

#[tokio::test]
async fn an_etcd_that_was_killed_is_followed_again() {
    let Some((mut etcd, program)) = etcd().await else { return };
    etcd.put(WWW, r#"{"host":"10.0.0.7"}"#).await;
    let kubedns = kubedns(&etcd, &[]).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(300, "10.0.0.7")]).await;
    etcd.kill();
    http::eventually(kubedns.http, "/readyz?verbose", 200, "[!]etcd").await;
    kubedns.answers(ASKED, "NOERROR", &[&www(300, "10.0.0.7")]).await;
    etcd.run(&program).await;
    etcd.put(WWW, r#"{"host":"10.0.0.8"}"#).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(300, "10.0.0.8")]).await;
    http::eventually(kubedns.http, "/readyz?verbose", 200, "[+]etcd").await;
    kubedns.end().await;
}

/// While kubedns cannot reach etcd, another client changes the keys and compacts the history.
#[tokio::test]
async fn a_compaction_leads_to_a_difference() {
    let Some((mut etcd, program)) = etcd().await else { return };
    let gone = "/skydns/local/skydns/gone";
    etcd.put(gone, r#"{"host":"10.0.0.1"}"#).await;
    etcd.put(WWW, r#"{"host":"10.0.0.7"}"#).await;
    let kubedns = kubedns(&etcd, &[]).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(300, "10.0.0.7")]).await;
    etcd.kill();
    let elsewhere = etcd.url.replace(":2379", ":2381");
    etcd.run_at(&program, &elsewhere).await;
    etcd.delete(gone).await;
    let last = etcd.put(WWW, r#"{"host":"10.0.0.8"}"#).await;
    etcd.compact(last).await;
    etcd.kill();
    etcd.run(&program).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(300, "10.0.0.8")]).await;
    kubedns.answers("gone.skydns.local. A", "NXDOMAIN", &[]).await;
    let lists = r#"watch_events_total{kind="etcd",namespace="",event="list"} 2"#;
    http::eventually(kubedns.http, "/metrics", 200, lists).await;
    kubedns.end().await;
}

/// The watch would wait for a revision that comes much later, or never.
#[tokio::test]
async fn a_restored_backup_is_read_again() {
    let Some((mut etcd, program)) = etcd().await else { return };
    etcd.put(WWW, r#"{"host":"10.0.0.7"}"#).await;
    etcd.kill();
    etcd.back_up();
    etcd.run(&program).await;
    let newer = "/skydns/local/skydns/newer";
    etcd.put(newer, r#"{"host":"10.0.0.1"}"#).await;
    etcd.put(WWW, r#"{"host":"10.0.0.8"}"#).await;
    let kubedns = kubedns(&etcd, &[]).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(300, "10.0.0.8")]).await;
    etcd.kill();
    etcd.restore();
    etcd.run(&program).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(300, "10.0.0.7")]).await;
    kubedns.answers("newer.skydns.local. A", "NXDOMAIN", &[]).await;
    etcd.put(newer, r#"{"host":"10.0.0.2"}"#).await;
    let answer = "newer.skydns.local. 300 IN A 10.0.0.2";
    kubedns.answers("newer.skydns.local. A", "NOERROR", &[answer]).await;
    kubedns.end().await;
}

/// Tokens are in the memory of etcd, so they end with it.
#[tokio::test]
async fn a_token_is_renewed() {
    let Some((mut etcd, program)) = etcd().await else { return };
    etcd.put(WWW, r#"{"host":"10.0.0.7"}"#).await;
    etcd.call("/v3/auth/user/add", json!({"name": "root", "password": "secret"})).await;
    etcd.call("/v3/auth/role/add", json!({"name": "root"})).await;
    etcd.call("/v3/auth/user/grant", json!({"user": "root", "role": "root"})).await;
    etcd.call("/v3/auth/enable", json!({})).await;
    let stranger = kubedns(&etcd, &[]).await;
    http::eventually(stranger.http, "/readyz?verbose", 503, "etcd refuses: etcdserver: user").await;
    let user = ["--etcd-user", "root", "--etcd-password", "secret"];
    let kubedns = kubedns(&etcd, &user).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(300, "10.0.0.7")]).await;
    stranger.answers(ASKED, "SERVFAIL", &[]).await;
    stranger.end().await;
    etcd.kill();
    http::eventually(kubedns.http, "/readyz?verbose", 200, "[!]etcd").await;
    etcd.run(&program).await;
    http::eventually(kubedns.http, "/readyz?verbose", 200, "[+]etcd").await;
    kubedns.end().await;
}

/// The second member answers if the first one does not exist.
#[tokio::test]
async fn the_next_member_is_asked() {
    let Some((etcd, _)) = etcd().await else { return };
    etcd.put(WWW, r#"{"host":"10.0.0.7"}"#).await;
    let flags =
        ["--etcd", "http://127.0.0.1:1", "--etcd", &etcd.url, "--etcd-zone", "skydns.local"];
    let kubedns = start(&flags).await;
    kubedns.answers(ASKED, "NOERROR", &[&www(300, "10.0.0.7")]).await;
    kubedns.end().await;
}
