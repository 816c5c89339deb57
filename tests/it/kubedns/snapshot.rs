//! Starts without an API server: kubedns answers from the last process's snapshot, marks the
//! answers as stale, and applies only the differences once it is in sync. A damaged file is not
//! used at all.

use std::path::Path;

use super::{DB, Steady, WEB, shop, watching};
use crate::fixture::dns::{self, eventually};
use crate::fixture::http;
use crate::fixture::kubedns::{Kubedns, start};
use tests::api_server::{ApiServer, Fault};
use tests::objects::{endpoint_slice, namespace, pod, service};

const ANSWER: &str = "web.shop.svc.cluster.local. 30 IN A 10.0.0.7";
const PEERS: &str = "peers.shop.svc.cluster.local. A";
const BOTH: [&str; 2] = [
    "peers.shop.svc.cluster.local. 30 IN A 10.1.0.1",
    "peers.shop.svc.cluster.local. 30 IN A 10.1.0.2",
];
/// Extended DNS Errors (RFC 8914).
const STALE: u16 = 3;
const NOT_READY: u16 = 14;
const STALE_NXDOMAIN: u16 = 19;

/// Starts [`shop`] with a headless Service of two slices.
async fn shop_with_peers() -> ApiServer {
    let api = shop().await;
    api.apply(service("shop", "peers"));
    for (slice, address) in [("peers-1", "10.1.0.1"), ("peers-2", "10.1.0.2")] {
        api.apply(endpoint_slice("shop", "peers").named(slice).ready(address));
    }
    api
}

fn path(file: &Path) -> &str {
    file.to_str().expect("a temporary path is text")
}

/// Runs kubedns until it is in sync with `api`, and lets it write `file`.
async fn write(api: &ApiServer, file: &Path, flags: &[&str]) {
    let kubedns = watching(api, &[&["--snapshot", path(file)], flags].concat()).await;
    eventually(kubedns.dns, WEB, "NOERROR", &[&*ANSWER.replace(" 30 ", &ttl(flags))]).await;
    kubedns.end().await;
    assert!(file.is_file());
}

fn ttl(flags: &[&str]) -> String {
    let at = flags.iter().position(|&flag| flag == "--ttl");
    format!(" {} ", at.map_or("30", |at| flags[at + 1]))
}

/// Returns the generation that `kubedns` sends.
async fn generation(kubedns: &Kubedns) -> u64 {
    let line = http::lines(kubedns.http, "/changes").await.next().await.expect("a line");
    serde_json::from_str::<serde_json::Value>(&line).expect("JSON")["generation"]
        .as_u64()
        .expect("a number")
}

#[tokio::test]
async fn what_was_known_is_answered_at_once_and_replaced_by_the_truth() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    let mut api = shop_with_peers().await;
    write(&api, &file, &[]).await;
    let kubedns = watching(&api, &["--snapshot", path(&file)]).await;
    let known = generation(&kubedns).await;
    kubedns.end().await;
    api.kill().await;

    let kubedns = watching(&api, &["--snapshot", path(&file)]).await;
    let answer = dns::ask(kubedns.dns, WEB).await; // the first query, without a retry
    assert_eq!(answer.answers, [ANSWER]);
    assert_eq!(answer.error.unwrap().0, STALE);
    let peers = dns::ask_tcp(kubedns.dns, PEERS).await;
    assert_eq!((peers.answers, peers.error.unwrap().0), (BOTH.map(str::to_owned).to_vec(), STALE));
    assert_eq!(dns::ask_plain(kubedns.dns, WEB).await.error, None);
    let missing = dns::ask(kubedns.dns, DB).await;
    assert_eq!((missing.status.as_str(), missing.error.unwrap().0), ("NXDOMAIN", STALE_NXDOMAIN));
    assert!(missing.authorities[0].ends_with(" 30"), "{:?}", missing.authorities);
    let nodata = dns::ask(kubedns.dns, "web.shop.svc.cluster.local. AAAA").await;
    assert_eq!((nodata.status.as_str(), nodata.error.unwrap().0), ("NODATA", STALE));
    let refused = dns::ask(kubedns.dns, "example.org. A").await;
    assert_ne!(refused.error.unwrap().0, STALE);
    let body = http::eventually(kubedns.http, "/readyz?verbose", 503, "[!]snapshot warning").await;
    assert!(body.contains("answers are ") && body.contains(" s old"), "{body}");
    let metrics = http::eventually(kubedns.http, "/metrics", 200, "kubedns_stale 1\n").await;
    assert!(metrics.contains("kubedns_snapshot_age_seconds "), "{metrics}");
    assert_eq!(http::get(kubedns.http, "/livez").await.0, 200);

    // A reader that is up to date with the snapshot gets only the differences.
    let changes = format!("/changes?since={known}");
    let http = kubedns.http;
    let hearing = tokio::spawn(async move {
        let mut lines = http::lines(http, &changes).await;
        (lines.next().await.unwrap(), lines.next().await.unwrap())
    });
    let steady = Steady::start(kubedns.dns);
    api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
    api.delete(endpoint_slice("shop", "peers").named("peers-2"));
    api.fails("endpointslices", Fault::ResetAfter(0));
    api.listen().await;
    http::eventually(kubedns.http, "/readyz?verbose", 503, "[+]services ok").await;
    for _ in 0..10 {
        // The services are listed, but the endpoints are not. Old and new data must not be mixed.
        assert_eq!(dns::ask(kubedns.dns, PEERS).await.answers, BOTH);
        assert_eq!(dns::ask(kubedns.dns, DB).await.status, "NXDOMAIN");
    }
    api.heals("endpointslices");
    let new = "db.shop.svc.cluster.local. 30 IN A 10.0.0.9";
    let fresh = eventually(kubedns.dns, DB, "NOERROR", &[new]).await;
    assert_eq!(fresh.error, None);
    eventually(kubedns.dns, PEERS, "NOERROR", &BOTH[..1]).await;
    http::eventually(kubedns.http, "/readyz?verbose", 200, "[+]snapshot ok").await;
    http::eventually(kubedns.http, "/metrics", 200, "kubedns_stale 0\n").await;
    let (first, second) = hearing.await.unwrap();
    assert_eq!(first, format!("{{\"generation\":{known}}}"));
    let said: serde_json::Value = serde_json::from_str(&second).unwrap();
    let mut names: Vec<_> =
        said["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    names.sort_unstable();
    let expected = [
        "2.0.1.10.in-addr.arpa.",
        "9.0.0.10.in-addr.arpa.",
        "db.shop.svc.cluster.local.",
        "peers.shop.svc.cluster.local.",
    ];
    assert_eq!(names, expected, "{second}");
    steady.held().await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_stale_answer_is_kept_for_no_longer_than_30_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    let mut api = shop().await;
    write(&api, &file, &["--ttl", "300"]).await;
    api.kill().await;
    for (ttl, expected) in [("300", 30), ("5", 5), ("0", 0)] {
        let kubedns = watching(&api, &["--snapshot", path(&file), "--ttl", ttl]).await;
        let answer = format!("web.shop.svc.cluster.local. {expected} IN A 10.0.0.7");
        assert_eq!(dns::ask(kubedns.dns, WEB).await.answers, [answer]);
        kubedns.end().await;
    }
    assert!(file.is_file(), "nothing better was known");
}

#[tokio::test]
async fn pods_are_verified_from_a_snapshot_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    let mut api = shop().await;
    api.apply(pod("shop", "web-0", "10.3.0.1"));
    let flags = ["--pods", "verified", "--snapshot", path(&file)];
    let (real, other) =
        ("10-3-0-1.shop.pod.cluster.local. A", "10-3-0-2.shop.pod.cluster.local. A");
    let answer = "10-3-0-1.shop.pod.cluster.local. 30 IN A 10.3.0.1";
    let kubedns = watching(&api, &flags).await;
    eventually(kubedns.dns, real, "NOERROR", &[answer]).await;
    kubedns.end().await;
    api.kill().await;
    let kubedns = watching(&api, &flags).await;
    assert_eq!(dns::ask(kubedns.dns, real).await.answers, [answer]);
    assert_eq!(dns::ask(kubedns.dns, other).await.status, "NXDOMAIN");
    api.delete(pod("shop", "web-0", "10.3.0.1"));
    api.listen().await;
    eventually(kubedns.dns, real, "NXDOMAIN", &[]).await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_file_that_is_damaged_or_foreign_is_refused_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    let mut api = shop_with_peers().await;
    write(&api, &file, &[]).await;
    api.kill().await;
    let good = std::fs::read(&file).unwrap();
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 0x10;
    let half = good[..good.len() / 2].to_vec();
    let rows: [(Vec<u8>, &[&str], &str); 6] = [
        (half, &[], "truncated or damaged"),
        (damaged, &[], "truncated or damaged"),
        (Vec::new(), &[], "truncated or damaged"),
        (b"apiVersion: v1\n".to_vec(), &[], "not a kubedns snapshot"),
        (good.clone(), &["--domain", "other.example"], "domain cluster.local., pods insecure"),
        (good.clone(), &["--namespace", "shop"], "namespaces shop"),
    ];
    for (bytes, flags, said) in rows {
        std::fs::write(&file, &bytes).unwrap();
        let kubedns = watching(&api, &[&["--snapshot", path(&file)], flags].concat()).await;
        let body = http::eventually(kubedns.http, "/readyz?verbose", 503, said).await;
        assert!(body.contains("[!]snapshot warning: not used: "), "{body}");
        let question = match flags {
            ["--domain", domain] => WEB.replace("cluster.local", domain),
            _ => WEB.to_owned(),
        };
        let answer = dns::ask(kubedns.dns, &question).await;
        assert_eq!((answer.status.as_str(), answer.error.unwrap().0), ("SERVFAIL", NOT_READY));
        http::eventually(kubedns.http, "/metrics", 200, "kubedns_snapshot_refused 1\n").await;
        kubedns.end().await;
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "nobody wrote what nobody knows");
    }
    // A file that cannot be used is replaced once kubedns is in sync.
    std::fs::write(&file, b"old").unwrap();
    api.listen().await;
    let kubedns = watching(&api, &["--snapshot", path(&file)]).await;
    http::eventually(kubedns.http, "/readyz?verbose", 200, "[+]snapshot ok").await;
    kubedns.end().await;
    api.kill().await;
    let kubedns = start_from(&api, &file).await;
    assert_eq!(dns::ask(kubedns.dns, WEB).await.answers, [ANSWER]);
    kubedns.end().await;
}

async fn start_from(api: &ApiServer, file: &Path) -> Kubedns {
    watching(api, &["--snapshot", path(file)]).await
}

#[tokio::test]
async fn a_file_that_cannot_be_written_stops_nothing_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("none").join("snapshot");
    let api = shop().await;
    let kubedns = start_from(&api, &file).await;
    let said = "[!]snapshot warning: cannot create ";
    http::eventually(kubedns.http, "/readyz?verbose", 200, said).await;
    assert_eq!(dns::ask(kubedns.dns, WEB).await.answers, [ANSWER]);
    kubedns.end().await;

    // The next start removes only the partial file of a killed process.
    let file = directory.path().join("snapshot");
    let left = directory.path().join(".snapshot.0123456789abcdef.part");
    let foreign = directory.path().join(".snapshot.mine.part");
    std::fs::write(&left, "half").unwrap();
    std::fs::write(&foreign, "whole").unwrap();
    write(&api, &file, &[]).await;
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [foreign.file_name().unwrap(), file.file_name().unwrap()]);
}

#[tokio::test]
async fn a_clock_that_jumps_changes_no_answer() {
    use kubedns::snapshot::codec::{Header, encode};
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    let mut api = shop().await;
    write(&api, &file, &[]).await;
    api.kill().await;
    let restored = {
        let config = crate::fixture::kubedns::config(&[]);
        let bytes = std::fs::read(&file).unwrap();
        kubedns::snapshot::restore(&bytes, &config.identity(), config.zone()).unwrap()
    };
    // Written in the future, before the clock was set back, and at time 0.
    for (as_of_ms, generation) in [(u64::MAX, (1 << 53) - 9), (0, 0)] {
        let header = Header { as_of_ms, generation, ..restored.header };
        let identity = crate::fixture::kubedns::config(&[]).identity();
        let mut bytes = Vec::new();
        encode(&header, &identity, &restored.reader.snapshot(), &mut bytes).unwrap();
        std::fs::write(&file, bytes).unwrap();
        let kubedns = start_from(&api, &file).await;
        assert_eq!(dns::ask(kubedns.dns, WEB).await.answers, [ANSWER]);
        http::eventually(kubedns.http, "/readyz?verbose", 503, "[!]snapshot warning").await;
        api.listen().await;
        http::eventually(kubedns.http, "/readyz?verbose", 200, "[+]snapshot ok").await;
        assert!(self::generation(&kubedns).await > generation);
        api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
        let new = "db.shop.svc.cluster.local. 30 IN A 10.0.0.9";
        eventually(kubedns.dns, DB, "NOERROR", &[new]).await;
        api.delete(service("shop", "db"));
        eventually(kubedns.dns, DB, "NXDOMAIN", &[]).await;
        api.kill().await;
        kubedns.end().await;
    }
}

#[tokio::test]
async fn a_namespace_that_went_meanwhile_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    let mut api = shop().await;
    api.apply(namespace("gone"));
    api.apply(service("gone", "web").cluster_ip("10.0.1.7"));
    write(&api, &file, &[]).await;
    api.kill().await;
    api.delete(namespace("gone"));
    api.delete(service("gone", "web"));
    let kubedns = start_from(&api, &file).await;
    let question = "web.gone.svc.cluster.local. A";
    let old = "web.gone.svc.cluster.local. 30 IN A 10.0.1.7";
    assert_eq!(dns::ask(kubedns.dns, question).await.answers, [old]);
    let steady = Steady::start(kubedns.dns);
    api.listen().await;
    eventually(kubedns.dns, question, "NXDOMAIN", &[]).await;
    let gone = dns::ask(kubedns.dns, "gone.svc.cluster.local. A").await;
    assert_eq!((gone.status.as_str(), gone.error), ("NXDOMAIN", None));
    steady.held().await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_snapshot_and_files_exclude_each_other() {
    let flags = ["kubedns", "--snapshot", "s", "--objects", "d"];
    assert!(shared::flags::parse_from::<kubedns::Config>(flags).is_err());
    // Without the flag, no file is written.
    let api = shop().await;
    let kubedns = start(&["--kubeconfig", api.kubeconfig(None).path().to_str().unwrap()]).await;
    eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
    let body = http::get(kubedns.http, "/readyz?verbose").await.1;
    assert!(!body.contains("snapshot"), "{body}");
    kubedns.end().await;
}
