//! Several replicas of kubedns behind one dnscache: all are followed, by address or by the name of
//! their host, and none leaves a stale entry behind.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tests::objects::{endpoint_slice, service};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::*;
use crate::fixture::changes::{accept, send};
use crate::fixture::upstream::Upstream;

/// A kubedns with objects of its own, at an address of its own.
struct Replica {
    dns: SocketAddr,
    http: SocketAddr,
    objects: TempDir,
    stop: Option<oneshot::Sender<()>>,
}

/// The longest TTL: no entry expires by itself while a test runs.
const TTL: &str = "--ttl=3600";
const WEB: &str = "web.shop.svc.cluster.local. A";
/// The host of the replicas.
const HOST: &str = "kubedns.kube-system.svc.cluster.local";

impl Replica {
    /// Starts one whose web has `web` as its address; `host` adds the headless Service of the
    /// replicas with these endpoints. Port 0 lets the system choose; returns `None` if a port is
    /// taken.
    async fn start(at: (&str, [u16; 2]), web: &str, host: &[&str]) -> Option<Self> {
        let (address, [dns, http]) = at;
        let objects = tempfile::tempdir().unwrap();
        write(objects.path(), web, host);
        let flags = [
            "kubedns".to_owned(),
            format!("--listen={address}:{dns}"),
            format!("--http-listen={address}:{http}"),
            format!("--objects={}", objects.path().display()),
            "--threads=1".to_owned(),
            TTL.to_owned(),
        ];
        let config = shared::flags::parse_from::<kubedns::Config>(flags).unwrap();
        let program = kubedns::Program::bind(config).await.ok()?;
        let (dns, http) = (program.dns_addresses()[0], program.http_address());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(program.run(async move { drop(stopped.await) }));
        Some(Self { dns, http, objects, stop: Some(stop) })
    }

    fn changes(&self) -> String {
        format!("--changes=http://{}/changes", self.http)
    }

    fn server(&self) -> String {
        format!("--server=/cluster.local/{}#{}", self.dns.ip(), self.dns.port())
    }

    fn set(&self, web: &str, host: &[&str]) {
        write(self.objects.path(), web, host);
    }
}

fn write(directory: &Path, web: &str, host: &[&str]) {
    let mut text = service("shop", "web").cluster_ip(web).yaml();
    let mut slice = endpoint_slice("kube-system", "kubedns");
    for address in host {
        slice = slice.ready(address);
    }
    text += &service("kube-system", "kubedns").yaml();
    text += &slice.yaml();
    std::fs::write(directory.join("new"), text).unwrap();
    std::fs::rename(directory.join("new"), directory.join("all.yaml")).unwrap();
}

/// The address that `cache` answers for web, or the status.
async fn web(cache: &Running) -> String {
    let answer = dns::ask_udp(cache.dns, WEB).await;
    let record = answer.answers.first();
    record.map_or(answer.status.clone(), |it| it.rsplit(' ').next().unwrap().to_owned())
}

async fn up(cache: &Running) -> (Option<f64>, Option<f64>) {
    (
        cache.metric("dnscache_change_streams").await,
        cache.metric("dnscache_change_streams_up").await,
    )
}

async fn follows(cache: &Running, count: u8) {
    let expected = (Some(count.into()), Some(count.into()));
    until("all replicas are followed", || async { up(cache).await == expected }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_replica_that_lags_does_not_stay() {
    let [fast, slow] = ["127.0.0.2", "127.0.0.3"];
    let fast = Replica::start((fast, [0, 0]), "10.0.0.1", &[]).await.unwrap();
    let slow = Replica::start((slow, [0, 0]), "10.0.0.1", &[]).await.unwrap();
    // Both are followed, and the slow one is asked.
    let cache = Running::start(&[slow.server(), slow.changes(), fast.changes()]).await;
    follows(&cache, 2).await;
    let lines = format!("dnscache_change_stream_lines_total{{replica=\"{}\"}}", fast.http);
    for round in 2..5_u8 {
        let (old, new) = (format!("10.0.0.{}", round - 1), format!("10.0.0.{round}"));
        assert_eq!(web(&cache).await, old);
        let before = cache.metric(&lines).await;
        fast.set(&new, &[]);
        until("the fast one reports", || async { cache.metric(&lines).await > before }).await;
        assert_eq!(web(&cache).await, old, "fetched from the slow one, after that report");
        sleep(Duration::from_millis(500)).await;
        assert_eq!(web(&cache).await, old, "and stored");
        slow.set(&new, &[]);
        until("the new answer", || async { web(&cache).await == new }).await;
    }
}

/// Replicas at one port, as the pods of a Deployment have it.
async fn pair(host: &[&str]) -> [Replica; 2] {
    for _ in 0..20 {
        let first = Replica::start(("127.0.0.2", [0, 0]), "10.0.0.1", host).await.unwrap();
        let ports = [first.dns.port(), first.http.port()];
        if let Some(second) = Replica::start(("127.0.0.3", ports), "10.0.0.1", host).await {
            return [first, second];
        }
    }
    panic!("no port is free at both addresses");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replicas_of_a_host_are_found_followed_and_asked() {
    let [first, second] = pair(&["127.0.0.2", "127.0.0.3"]).await;
    let (dns, http) = (first.dns.port(), first.http.port());
    // The Service of the replicas, which leads to any of them.
    let resolves = format!("--server=/{HOST}/127.0.0.2#{dns}");
    let flags = [
        format!("--server=/cluster.local/{HOST}#{dns}"),
        resolves,
        format!("--changes=http://{HOST}:{http}/changes"),
    ];
    let cache = Running::start(&flags).await;
    follows(&cache, 2).await;
    for replica in [&first, &second] {
        let up = format!("dnscache_change_stream_up{{replica=\"{}\"}}", replica.http);
        assert_eq!(cache.metric(&up).await, Some(1.0));
    }
    http::eventually(cache.http, "/readyz?verbose", 200, "[+]changes").await;
    assert_eq!(web(&cache).await, "10.0.0.1");
    let ttl = |answer: dns::Answer| -> u32 {
        answer.answers[0].split(' ').nth(1).unwrap().parse().unwrap()
    };
    assert!(ttl(dns::ask_udp(cache.dns, WEB).await) > 3_000, "every change is reported");
    let of_host = dns::ask_udp(cache.dns, &format!("{HOST}. A")).await;
    assert!(ttl(of_host) <= 5, "any replica may have answered");

    // The second one goes: it is no endpoint any more, and its stream ends.
    let both = [&first, &second];
    both.iter().for_each(|replica| replica.set("10.0.0.1", &["127.0.0.2"]));
    first_knows(&first).await;
    let Replica { stop, http: gone, .. } = second;
    drop(stop);
    follows(&cache, 1).await;
    until("nothing asks the one that has gone", || async {
        let server = format!("dnscache_upstream_up{{server=\"127.0.0.3:{dns}\"}}");
        cache.metric(&server).await.is_none()
    })
    .await;
    let losses = format!("dnscache_change_stream_losses_total{{replica=\"{gone}\"}}");
    assert_ne!(cache.metric(&losses).await, Some(0.0));
    first.set("10.0.0.2", &["127.0.0.2"]);
    until("the change", || async { web(&cache).await == "10.0.0.2" }).await;
}

/// Waits until the first replica has one endpoint of the host.
async fn first_knows(first: &Replica) {
    until("the endpoint is gone", || async {
        dns::ask_udp(first.dns, &format!("{HOST}. A")).await.answers.len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_stream_is_down_names_are_stored_for_five_seconds() {
    let kubedns = Upstream::start(FAR).await;
    kubedns.answer(WEB, &["web.shop.svc.cluster.local. 300 A 10.0.0.1"]);
    let [one, two] = [TcpListener::bind("127.0.0.2:0"), TcpListener::bind("127.0.0.3:0")];
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    let url = |it: &TcpListener| format!("--changes=http://{}/changes", it.local_addr().unwrap());
    let cache = Running::start(&[stub("cluster.local", &kubedns), url(&one), url(&two)]).await;
    let (mut first, _) = accept(&one).await;
    send(&mut first, "{\"generation\":7,\"flush\":true}\n").await;
    until("one is followed", || async { up(&cache).await == (Some(2.0), Some(1.0)) }).await;
    let down = format!("{} is not followed", two.local_addr().unwrap());
    let said = "1 of 2 change streams are up; names are stored for 5 s at most: ";
    let said = format!("{said}{down}");
    http::eventually(cache.http, "/readyz?verbose", 200, &said).await;
    let ttl = async || {
        let answer = dns::ask_udp(cache.dns, WEB).await;
        answer.answers[0].split(' ').nth(1).unwrap().parse::<u32>().unwrap()
    };
    assert!(ttl().await <= 5);
    let (mut second, _) = accept(&two).await;
    // Its first line removes what was stored before.
    send(&mut second, "{\"generation\":3,\"flush\":true}\n").await;
    follows(&cache, 2).await;
    assert!(ttl().await > 5);
    // Either replica removes an entry.
    for (stream, last) in [(&mut first, 2), (&mut second, 3)] {
        kubedns.answer(WEB, &[&format!("web.shop.svc.cluster.local. 300 A 10.0.0.{last}")]);
        send(stream, "{\"generation\":8,\"names\":[\"shop.svc.cluster.local.\"]}\n").await;
        let new = format!("10.0.0.{last}");
        until("the new answer", || async { web(&cache).await == new }).await;
    }
    drop(second);
    until("one is lost", || async { up(&cache).await == (Some(2.0), Some(1.0)) }).await;
    kubedns.answer("db.shop.svc.cluster.local. A", &["db.shop.svc.cluster.local. 300 A 10.0.0.9"]);
    let answer = dns::ask_udp(cache.dns, "db.shop.svc.cluster.local. A").await;
    assert!(answer.answers[0].starts_with("db.shop.svc.cluster.local. 5 "), "{answer:?}");
    let losses = format!("{{replica=\"{}\"}}", two.local_addr().unwrap());
    let losses = format!("dnscache_change_stream_losses_total{losses}");
    assert_eq!(cache.metric(&losses).await, Some(1.0));
    let (mut second, request) = accept(&two).await;
    assert!(request.starts_with("GET /changes?since=8 HTTP/1.1"), "{request}");
    send(&mut second, "{\"generation\":8}\n").await;
    follows(&cache, 2).await;
}
