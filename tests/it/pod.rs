//! The three programs together, in this process, with the demo objects, as `cargo pod` and a
//! cluster run them.
//!
//! The tests use only what clients, the kubelet and operators can see. They must not depend on the
//! internals of the programs.

use std::error::Error;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use shared::flags::{Stop, parse_from};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::fixture::dns::{self, PATIENCE};
use crate::fixture::http;
use crate::fixture::upstream::{Behaviour, Upstream};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/demo");

/// A program of the pod.
struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Running {
    /// Runs the future that `run` returns. If it fails, [`Running::end`] panics.
    fn start<E: Error, F: Future<Output = Result<(), E>> + Send + 'static>(
        run: impl FnOnce(oneshot::Receiver<()>) -> F,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let running = run(stopped);
        let ended = tokio::spawn(async move { running.await.expect("it ends in order") });
        Self { stop, ended }
    }

    async fn end(self) {
        self.stop.send(()).expect("it still runs");
        timeout(PATIENCE, self.ended).await.expect("it ends in time").expect("no panic");
    }
}

/// All three programs, with the flags of the manifests, on ports that the system chooses.
struct Pod {
    /// dnscache, DNS and HTTP.
    dns: SocketAddr,
    cache: SocketAddr,
    health: SocketAddr,
    /// kubedns, DNS and HTTP.
    records: SocketAddr,
    changes: SocketAddr,
    kubedns: Running,
    dnscache: Running,
    healthz: Running,
}

impl Pod {
    /// Starts it from the objects at `objects` and waits until it is healthy.
    async fn start(objects: &Path) -> Self {
        Self::start_with(objects, &["--resolv-file=/nonexistent"]).await
    }

    /// Starts it in the same way, with these flags for dnscache.
    async fn start_with(objects: &Path, of_dnscache: &[&str]) -> Self {
        let objects = format!("--objects={}", objects.display());
        Self::start_of(&[&objects], of_dnscache).await
    }

    /// Starts it in the same way, with these flags for kubedns, which set the source of objects.
    async fn start_of(of_kubedns: &[&str], of_dnscache: &[&str]) -> Self {
        let clusterset = "--clusterset-domain=clusterset.local";
        let arguments = [&["--listen=127.0.0.1:0", clusterset], of_kubedns].concat();
        let config = flags("kubedns", &arguments);
        let program = kubedns::Program::bind(config).await.unwrap();
        let (records, changes) = (program.dns_addresses()[0], program.http_address());
        let kubedns = Running::start(|stop| program.run(async { drop(stop.await) }));

        let servers = ["cluster.local/clusterset.local", "in-addr.arpa", "ip6.arpa"]
            .map(|domain| format!("--server=/{domain}/127.0.0.1#{}", records.port()));
        let stream = format!("--changes=http://{changes}/changes");
        let mut arguments: Vec<&str> = servers.iter().map(String::as_str).collect();
        arguments.extend(["--listen=127.0.0.1:0", &stream]);
        arguments.extend(of_dnscache);
        let program = dnscache::Program::bind(flags("dnscache", &arguments)).await.unwrap();
        let (dns, cache) = (program.dns_addresses()[0], program.http_address());
        let dnscache = Running::start(|stop| program.run(async { drop(stop.await) }));

        let mut probes = Vec::new();
        for (label, server) in [("kubedns", records), ("dnscache", dns)] {
            let name = "kubernetes.default.svc.cluster.local";
            probes.push(format!("--probe={label},{server},{name},5,A"));
            probes.push(format!("--probe={label}-tcp,tcp:{server},{name},5,A"));
        }
        probes.push(format!("--probe=dnscache-miss,{dns},*.default.svc.cluster.local,5,A"));
        let probes: Vec<&str> = probes.iter().map(String::as_str).collect();
        let mut config: healthz::Config = flags("healthz", &probes);
        config.pace.start_max = Duration::ZERO;
        config.pace.retry = Duration::from_millis(20);
        config.pace.start = Duration::from_millis(20);
        for probe in &mut config.probes {
            probe.interval = Duration::from_millis(50);
        }
        let program = healthz::Program::bind(config).await.unwrap();
        let health = program.http_address();
        let healthz = Running::start(|stop| program.run(async { drop(stop.await) }));

        http::eventually(health, "/healthz", 200, "ok").await;
        Self { dns, cache, health, records, changes, kubedns, dnscache, healthz }
    }

    /// Waits until dnscache follows kubedns's changes, after which it removes only entries that
    /// change. A name that was denied must then appear at once.
    async fn follows(&self, objects: &Path) {
        let question = "new.shop.svc.cluster.local. A";
        check(self.dns, question, "NXDOMAIN", &[]).await;
        let cart = fs::read_to_string(objects.join("shop-cart.yaml")).unwrap();
        let new = cart.replace("cart", "new").replace("10.96.12.20", "10.96.12.99");
        fs::write(objects.join("shop-new.yaml"), new).unwrap();
        becomes(self.dns, question, &["new.shop.svc.cluster.local. IN A 10.96.12.99"]).await;
    }
}

/// Asks dnscache. The answer section must be this one, with any TTLs.
async fn check(dns: SocketAddr, question: &str, status: &str, answers: &[&str]) {
    let answer = dns::ask(dns, question).await;
    let got: Vec<String> = answer.answers.iter().map(|line| without_ttl(line)).collect();
    let mut expected = answers.to_vec();
    expected.sort_unstable();
    assert_eq!((answer.status.as_str(), got), (status, owned(&expected)), "{question}");
}

/// Asks until the answer section is this one.
async fn becomes(dns: SocketAddr, question: &str, answers: &[&str]) {
    let asked = async {
        loop {
            let answer = dns::ask(dns, question).await;
            let got: Vec<String> = answer.answers.iter().map(|line| without_ttl(line)).collect();
            if got == owned(answers) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{question} never {answers:?}"));
}

/// Returns a copy of the demo objects that a test can edit.
fn demo() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(DEMO).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    directory
}

/// Parses the flags of `program`, with HTTP on a port that the system chooses.
fn flags<C: clap::Parser>(program: &str, arguments: &[&str]) -> C {
    let arguments = [&[program, "--http-listen=127.0.0.1:0"], arguments].concat();
    parse_from(arguments).unwrap_or_else(|stop| match stop {
        Stop::Shown(text) | Stop::Wrong(text) => panic!("{text}"),
    })
}

/// Returns a record in master-file form without its TTL, which decreases in the cache.
fn without_ttl(record: &str) -> String {
    let mut words: Vec<&str> = record.split(' ').collect();
    words.remove(1);
    words.join(" ")
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_answers_every_kind_of_question() {
    let pod = Pod::start(Path::new(DEMO)).await;
    let web = "web.shop.svc.cluster.local.";
    let rows: &[(&str, &str, &[&str])] = &[
        ("web.shop.svc.cluster.local. A", "NOERROR", &["{web} IN A 10.96.12.10"]),
        ("web.shop.svc.cluster.local. AAAA", "NOERROR", &["{web} IN AAAA 2001:db8:96::12:10"]),
        ("web.shop.svc.cluster.local. TXT", "NODATA", &[]),
        (
            "_https._tcp.web.shop.svc.cluster.local. SRV",
            "NOERROR",
            &["_https._tcp.{web} IN SRV 0 100 443 {web}"],
        ),
        ("10.12.96.10.in-addr.arpa. PTR", "NOERROR", &["10.12.96.10.in-addr.arpa. IN PTR {web}"]),
        ("stock.warehouse.svc.cluster.local. A", "NODATA", &[]),
        (
            "recommendations.shop.svc.cluster.local. A",
            "NOERROR",
            &["recommendations.shop.svc.cluster.local. IN A 10.96.12.50"],
        ),
        (
            "search.shop.svc.cluster.local. A",
            "NOERROR",
            &[
                "search.shop.svc.cluster.local. IN A 10.244.1.40",
                "search.shop.svc.cluster.local. IN A 10.244.2.40",
                "search.shop.svc.cluster.local. IN A 10.244.3.40",
            ],
        ),
        (
            "ledger-1.ledger.payments.svc.cluster.local. A",
            "NOERROR",
            &["ledger-1.ledger.payments.svc.cluster.local. IN A 10.244.2.70"],
        ),
        (
            "70.2.244.10.in-addr.arpa. PTR",
            "NOERROR",
            &["70.2.244.10.in-addr.arpa. IN PTR ledger-1.ledger.payments.svc.cluster.local."],
        ),
        (
            "_statsd._udp.telemetry.warehouse.svc.cluster.local. SRV",
            "NOERROR",
            &["_statsd._udp.telemetry.warehouse.svc.cluster.local. IN SRV 0 100 8125 \
                telemetry.warehouse.svc.cluster.local."],
        ),
        (
            "orders-1.orders.warehouse.svc.cluster.local. AAAA",
            "NOERROR",
            &["orders-1.orders.warehouse.svc.cluster.local. IN AAAA 2001:db8:244:2::100"],
        ),
        (
            "mail.shop.svc.cluster.local. CNAME",
            "NOERROR",
            &["mail.shop.svc.cluster.local. IN CNAME smtp.example.com."],
        ),
        (
            "storefront.warehouse.svc.cluster.local. A",
            "NOERROR",
            &["storefront.warehouse.svc.cluster.local. IN CNAME {web}", "{web} IN A 10.96.12.10"],
        ),
        (
            "10-244-1-10.shop.pod.cluster.local. A",
            "NOERROR",
            &["10-244-1-10.shop.pod.cluster.local. IN A 10.244.1.10"],
        ),
        ("dns-version.cluster.local. TXT", "NOERROR", &["dns-version.cluster.local. IN TXT 1.1.0"]),
        ("fraud.payments.svc.cluster.local. A", "NXDOMAIN", &[]),
        ("no-such.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
        ("www.example.com. A", "SERVFAIL", &[]),
    ];
    for _ in ["from kubedns", "from the cache"] {
        for (question, status, answers) in rows {
            let answers: Vec<String> =
                answers.iter().map(|line| line.replace("{web}", web)).collect();
            let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
            check(pod.dns, question, status, &answers).await;
        }
    }
    pod.healthz.end().await;
    pod.dnscache.end().await;
    pod.kubedns.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kubedns_health_says_so_and_known_names_are_answered() {
    let directory = demo();
    let pod = Pod::start(directory.path()).await;
    pod.follows(directory.path()).await;

    let known = ["web.shop.svc.cluster.local. IN A 10.96.12.10"];
    let probed = ["kubernetes.default.svc.cluster.local. IN A 10.96.0.1"];
    check(pod.dns, "kubernetes.default.svc.cluster.local. A", "NOERROR", &probed).await;
    check(pod.dns, "web.shop.svc.cluster.local. A", "NOERROR", &known).await;

    pod.kubedns.end().await;
    http::eventually(pod.health, "/healthz", 503, "unhealthy: kubedns").await;
    http::eventually(pod.health, "/healthz/kubedns", 503, "refused").await;
    http::eventually(pod.health, "/healthz/dnscache", 200, "").await;

    let answer = dns::ask(pod.dns, "web.shop.svc.cluster.local. A").await;
    assert_eq!(answer.answers.iter().map(|line| without_ttl(line)).collect::<Vec<_>>(), known);
    let unknown = dns::ask(pod.dns, "cart.shop.svc.cluster.local. A").await;
    assert_eq!(unknown.status, "SERVFAIL");
    assert!(unknown.error.is_some(), "SERVFAIL says why: {unknown:?}");
    pod.healthz.end().await;
    pod.dnscache.end().await;
}

/// A restart of dnscache would not help if kubedns or an upstream is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dnscache_asks_being_away_is_no_reason_to_restart_it() {
    let upstream = Upstream::start("127.0.0.2").await;
    upstream.behave(Behaviour::Silent);
    let flag = format!("--server={}#{}", upstream.address.ip(), upstream.address.port());
    // There is no cache, so that each probe needs kubedns.
    let pod = Pod::start_with(Path::new(DEMO), &[&flag, "--cache-size=0"]).await;
    for program in ["kubedns", "dnscache"] {
        http::eventually(pod.health, &format!("/livez/{program}"), 200, "ok").await;
    }
    pod.kubedns.end().await;
    for probe in ["dnscache", "dnscache-tcp", "dnscache-miss"] {
        http::eventually(pod.health, &format!("/healthz/{probe}"), 503, "SERVFAIL").await;
        http::eventually(pod.health, &format!("/livez/{probe}"), 200, "ok").await;
    }
    http::eventually(pod.health, "/livez/kubedns", 503, "kubedns is stuck").await;
    for _ in 0..20 {
        assert_eq!(dns::ask(pod.dns, "www.example.com. A").await.status, "SERVFAIL");
        assert_eq!(http::get(pod.health, "/livez/dnscache").await.0, 200);
    }
    // If dnscache itself is down, it must be restarted.
    pod.dnscache.end().await;
    http::eventually(pod.health, "/livez/dnscache", 503, "dnscache is stuck").await;
    pod.healthz.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probes_of_healthz_are_not_counted_as_clients() {
    let pod = Pod::start(Path::new(DEMO)).await;
    let probes = async || {
        let metrics = http::get(pod.cache, "/metrics").await.1;
        let line = metrics.lines().find_map(|line| line.strip_prefix("dnscache_probes_total "));
        let count: u64 = line.unwrap().parse().unwrap();
        (count, metrics)
    };
    let start = Instant::now();
    while probes().await.0 < 20 {
        assert!(start.elapsed() < PATIENCE, "healthz goes on asking");
    }
    let web = ["web.shop.svc.cluster.local. IN A 10.96.12.10"];
    for _ in 0..3 {
        check(pod.dns, "web.shop.svc.cluster.local. A", "NOERROR", &web).await;
    }
    let metrics = probes().await.1;
    for (result, count) in [("hit", 2), ("miss", 1), ("refused", 0), ("chaos", 0), ("stale", 0)] {
        let line = format!("dnscache_queries_total{{result=\"{result}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line} is missing in {metrics}");
    }
    pod.healthz.end().await;
    pod.dnscache.end().await;
    pod.kubedns.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_object_changes_the_answer_through_the_cache() {
    let directory = demo();
    let pod = Pod::start(directory.path()).await;
    let question = "cart.shop.svc.cluster.local. A";
    let record = |address: &str| format!("cart.shop.svc.cluster.local. IN A {address}");
    // First from kubedns, and then from the cache until the TTL ends.
    for _ in 0..2 {
        check(pod.dns, question, "NOERROR", &[&record("10.96.12.20")]).await;
    }

    let file = directory.path().join("shop-cart.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("10.96.12.20", "10.96.12.21")).unwrap();
    becomes(pod.dns, question, &[&record("10.96.12.21")]).await;
    fs::write(&file, "kind: [broken").unwrap();
    fs::remove_file(directory.path().join("shop-web.yaml")).unwrap();
    becomes(pod.dns, "web.shop.svc.cluster.local. A", &[]).await;
    fs::write(&file, text).unwrap();
    becomes(pod.dns, question, &[&record("10.96.12.20")]).await;
    pod.healthz.end().await;
    pod.dnscache.end().await;
    pod.kubedns.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_imported_service_changes_through_the_cache() {
    let directory = demo();
    let pod = Pod::start(directory.path()).await;
    pod.follows(directory.path()).await;
    let question = "_https._tcp.pay.shop.svc.clusterset.local. SRV";
    check(pod.dns, question, "NXDOMAIN", &[]).await;
    let file = directory.path().join("shop-pay-import.yaml");
    let import = tests::objects::service_import("shop", "pay").clusterset_ip("10.42.0.1");
    fs::write(&file, import.clone().port("https", 443).yaml()).unwrap();
    let record = |port: u16| format!("{} {port} pay.shop.svc.clusterset.local.", SRV);
    becomes(pod.dns, question, &[&record(443)]).await;
    check(pod.dns, question, "NOERROR", &[&record(443)]).await; // from the cache
    fs::write(&file, import.port("https", 8443).yaml()).unwrap();
    becomes(pod.dns, question, &[&record(8443)]).await;
    pod.healthz.end().await;
    pod.dnscache.end().await;
    pod.kubedns.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_endpoints_than_a_message_holds_are_a_part_that_says_so() {
    let directory = demo();
    let mut objects = tests::objects::service("shop", "huge").yaml();
    for slice in 0..5 {
        let mut endpoints = tests::objects::endpoint_slice("shop", "huge");
        for number in 0..1_000 {
            endpoints = endpoints.ready(&format!("10.{slice}.{}.{}", number / 250, number % 250));
        }
        objects += &endpoints.named(&format!("huge-{slice}")).yaml();
    }
    fs::write(directory.path().join("shop-huge.yaml"), objects).unwrap();
    let pod = Pod::start(directory.path()).await;
    let question = "huge.shop.svc.cluster.local. A";
    for _ in 0..2 {
        let part = dns::ask_tcp(pod.dns, question).await;
        assert!(part.truncated && part.answers.len() > 4_000, "{}", part.answers.len());
        let few = dns::ask_udp(pod.dns, question).await;
        assert!(few.truncated && few.answers.len() > 50, "{}", few.answers.len());
    }
    pod.healthz.end().await;
    pod.dnscache.end().await;
    pod.kubedns.end().await;
}

/// As required by Kubernetes' e2e tests (`test/e2e/network/dns_configmap.go`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reverse_names_of_others_are_asked_of_the_upstream() {
    let directory = demo();
    let config = tempfile::tempdir().unwrap();
    let upstream = Upstream::start("127.0.0.2").await;
    let write_upstream = |to: &str| fs::write(config.path().join("upstreamNameservers"), to);
    let google = "8.8.8.8.in-addr.arpa. PTR";
    upstream.answer(google, &["8.8.8.8.in-addr.arpa. 300 PTR dns.google."]);
    let flag = format!("--config-dir={}", config.path().display());
    write_upstream(&format!(r#"["{}"]"#, upstream.address)).unwrap();
    let flags = ["--resolv-file=/nonexistent", &flag];
    let pod = Pod::start_with(directory.path(), &flags).await;
    pod.follows(directory.path()).await;

    let theirs = "8.8.8.8.in-addr.arpa. IN PTR dns.google.";
    for _ in 0..2 {
        check(pod.dns, google, "NOERROR", &[theirs]).await;
    }
    let answer = dns::ask(pod.dns, google).await;
    assert!(!answer.authoritative && answer.recursion_available, "{answer:?}");
    assert_eq!(upstream.asked(google), 1, "then it is kept");
    check(pod.dns, "1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR", "NXDOMAIN", &[]).await;
    assert_eq!(upstream.seen("ip6.arpa.").len(), 1);

    // Addresses of the cluster are not sent to the upstream, whether they have a name or not.
    let own = ["10.12.96.10.in-addr.arpa. IN PTR web.shop.svc.cluster.local."];
    check(pod.dns, "10.12.96.10.in-addr.arpa. PTR", "NOERROR", &own).await;
    check(pod.dns, "98.12.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]).await;
    assert!(upstream.seen("10.in-addr.arpa.").is_empty());

    // A Pod with this address is added and removed.
    let ledger = fs::read_to_string(directory.path().join("payments-ledger.yaml")).unwrap();
    let public = ledger.replace("10.244.3.70", "8.8.8.8");
    fs::write(directory.path().join("payments-ledger.yaml"), public).unwrap();
    let ours = "8.8.8.8.in-addr.arpa. IN PTR ledger-2.ledger.payments.svc.cluster.local.";
    becomes(pod.dns, google, &[ours]).await;
    fs::write(directory.path().join("payments-ledger.yaml"), ledger).unwrap();
    becomes(pod.dns, google, &[theirs]).await;

    // Without an upstream, the name cannot be answered.
    fs::remove_file(config.path().join("upstreamNameservers")).unwrap();
    let gone = async {
        while dns::ask(pod.dns, google).await.status != "SERVFAIL" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("nobody is asked any more, and nothing kept");
    pod.healthz.end().await;
    pod.dnscache.end().await;
    pod.kubedns.end().await;
}

/// Two servers outside the pod: an upstream, and one for a reverse zone of a stub domain that
/// contains addresses of the cluster.
struct Outside {
    upstream: Upstream,
    corp: Upstream,
    config: TempDir,
}

impl Outside {
    async fn start() -> Self {
        let (upstream, corp) =
            (Upstream::start("127.0.0.2").await, Upstream::start("127.0.0.3").await);
        let config = tempfile::tempdir().unwrap();
        let write = |key: &str, text: String| fs::write(config.path().join(key), text).unwrap();
        write("upstreamNameservers", format!(r#"["{}"]"#, upstream.address));
        write("stubDomains", format!(r#"{{"10.in-addr.arpa": ["{}"]}}"#, corp.address));
        upstream.answer(GOOGLE, &["8.8.8.8.in-addr.arpa. 300 PTR dns.google."]);
        upstream.answer(NEAR, &["7.7.168.192.in-addr.arpa. 300 PTR nas.example."]);
        corp.answer(FILES, &["2.1.50.10.in-addr.arpa. 300 PTR files.corp.example."]);
        corp.answer(WEB, &["10.12.96.10.in-addr.arpa. 300 PTR taken.corp.example."]);
        Self { upstream, corp, config }
    }

    fn flag(&self) -> String {
        format!("--config-dir={}", self.config.path().display())
    }

    /// Returns how many queries for reverse names below `suffix` reached the servers outside.
    fn seen(&self, suffix: &str) -> usize {
        self.upstream.seen(suffix).len() + self.corp.seen(suffix).len()
    }
}

const GOOGLE: &str = "8.8.8.8.in-addr.arpa. PTR";
const NEAR: &str = "7.7.168.192.in-addr.arpa. PTR";
const FILES: &str = "2.1.50.10.in-addr.arpa. PTR";
const WEB: &str = "10.12.96.10.in-addr.arpa. PTR";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_asked_about_addresses_only_after_kubedns() {
    let directory = demo();
    let outside = Outside::start().await;
    let objects = format!("--objects={}", directory.path().display());
    let cidrs = ["--cluster-cidr=10.96.0.0/12", "--cluster-cidr=10.244.0.0/16"];
    let of_kubedns = [&objects, cidrs[0], cidrs[1]];
    let of_dnscache = ["--resolv-file=/nonexistent", &outside.flag()];
    let pod = Pod::start_of(&of_kubedns, &of_dnscache).await;
    pod.follows(directory.path()).await;
    for _ in ["from a server", "from the cache"] {
        let web = ["10.12.96.10.in-addr.arpa. IN PTR web.shop.svc.cluster.local."];
        check(pod.dns, WEB, "NOERROR", &web).await;
        check(pod.dns, "98.12.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]).await;
        check(pod.dns, "98.1.244.10.in-addr.arpa. PTR", "NXDOMAIN", &[]).await;
        let files = ["2.1.50.10.in-addr.arpa. IN PTR files.corp.example."];
        check(pod.dns, FILES, "NOERROR", &files).await;
        let near = ["7.7.168.192.in-addr.arpa. IN PTR nas.example."];
        check(pod.dns, NEAR, "NOERROR", &near).await;
        check(pod.dns, "1.0.0.127.in-addr.arpa. PTR", "NXDOMAIN", &[]).await;
    }
    assert_eq!(outside.seen("96.10.in-addr.arpa.") + outside.seen("244.10.in-addr.arpa."), 0);
    assert_eq!(outside.seen("127.in-addr.arpa."), 0);
    assert_eq!((outside.corp.asked(FILES), outside.upstream.asked(NEAR)), (1, 1));
    pod.healthz.end().await;
    pod.dnscache.end().await;
    pod.kubedns.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kubedns_only_global_addresses_are_asked_of_the_upstream() {
    let directory = demo();
    let outside = Outside::start().await;
    let of_dnscache = ["--resolv-file=/nonexistent", &outside.flag()];
    let pod = Pod::start_with(directory.path(), &of_dnscache).await;
    pod.kubedns.end().await;
    let google = ["8.8.8.8.in-addr.arpa. IN PTR dns.google."];
    check(pod.dns, GOOGLE, "NOERROR", &google).await;
    for question in [WEB, FILES, NEAR, "1.0.0.0.0.d.f.ip6.arpa. PTR"] {
        let answer = dns::ask(pod.dns, question).await;
        assert_eq!((&*answer.status, answer.error.is_some()), ("SERVFAIL", true), "{question}");
    }
    let private = ["10.in-addr.arpa.", "168.192.in-addr.arpa.", "d.f.ip6.arpa."];
    assert_eq!(private.map(|zone| outside.seen(zone)), [0; 3]);

    // Its next process cannot reach an API server, so it answers SERVFAIL for every name.
    let kubedns = without_cluster(directory.path(), [pod.records, pod.changes]).await;
    let nine = "9.9.9.9.in-addr.arpa. PTR";
    outside.upstream.answer(nine, &["9.9.9.9.in-addr.arpa. 300 PTR dns9.example."]);
    check(pod.dns, nine, "NOERROR", &["9.9.9.9.in-addr.arpa. IN PTR dns9.example."]).await;
    let other = dns::ask(pod.dns, "99.1.50.10.in-addr.arpa. PTR").await;
    assert_eq!(other.status, "SERVFAIL");
    assert_eq!(private.map(|zone| outside.seen(zone)), [0; 3]);
    pod.healthz.end().await;
    pod.dnscache.end().await;
    kubedns.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_networks_next_to_the_cluster_are_asked_outside() {
    let directory = demo();
    let outside = Outside::start().await;
    let write = |file: &str, object: tests::objects::Object| {
        fs::write(directory.path().join(file), object.yaml()).unwrap();
    };
    let service_cidrs = ["10.96.0.0/12", "2001:db8:96::/48"];
    write("a-service-cidr.yaml", tests::objects::service_cidr("kubernetes", &service_cidrs));
    let node = tests::objects::node("a", "z", "r").pod_cidrs(&["10.244.0.0/16"]);
    write("a-node.yaml", node);
    let of_dnscache = ["--resolv-file=/nonexistent", &outside.flag()];
    let pod = Pod::start_with(directory.path(), &of_dnscache).await;
    pod.follows(directory.path()).await;
    let ula = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.1.d.f.ip6.arpa. PTR";
    let ula_record = ula.replace(" PTR", " 300 PTR ula.example.");
    outside.upstream.answer(ula, &[&ula_record]);
    let files = ["2.1.50.10.in-addr.arpa. IN PTR files.corp.example."];
    for _ in ["from a server", "from the cache"] {
        check(pod.dns, FILES, "NOERROR", &files).await;
        check(pod.dns, NEAR, "NOERROR", &["7.7.168.192.in-addr.arpa. IN PTR nas.example."]).await;
        check(pod.dns, ula, "NOERROR", &[&ula.replace(" PTR", " IN PTR ula.example.")]).await;
    }
    assert_eq!((outside.corp.asked(FILES), outside.upstream.asked(ula)), (1, 1));
    for mine in ["98.12.96.10.in-addr.arpa. PTR", "98.9.244.10.in-addr.arpa. PTR"] {
        check(pod.dns, mine, "NXDOMAIN", &[]).await;
    }
    assert_eq!(outside.seen("96.10.in-addr.arpa.") + outside.seen("244.10.in-addr.arpa."), 0);

    // The cluster adds addresses of that network, and removes them again.
    write("a-second.yaml", tests::objects::service_cidr("office", &["10.50.0.0/16"]));
    becomes(pod.dns, FILES, &[]).await;
    check(pod.dns, FILES, "NXDOMAIN", &[]).await;
    check(pod.dns, "50.10.in-addr.arpa. SOA", "NXDOMAIN", &[]).await;
    assert_eq!(outside.corp.asked(FILES), 1);
    fs::remove_file(directory.path().join("a-second.yaml")).unwrap();
    becomes(pod.dns, FILES, &files).await;
    pod.healthz.end().await;
    pod.dnscache.end().await;
    pod.kubedns.end().await;
}

const SRV: &str = "_https._tcp.pay.shop.svc.clusterset.local. IN SRV 0 100";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubedns_that_knows_nothing_yet_takes_no_known_name_away() {
    let directory = demo();
    let pod = Pod::start(directory.path()).await;
    pod.follows(directory.path()).await;
    let question = "web.shop.svc.cluster.local. A";
    let known = ["web.shop.svc.cluster.local. IN A 10.96.12.10"];
    check(pod.dns, question, "NOERROR", &known).await;

    // Its next process cannot reach an API server.
    pod.kubedns.end().await;
    let kubedns = without_cluster(directory.path(), [pod.records, pod.changes]).await;
    http::eventually(pod.health, "/healthz/kubedns", 503, "SERVFAIL").await;

    // Long enough for several tries of dnscache to follow it again.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        check(pod.dns, question, "NOERROR", &known).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pod.healthz.end().await;
    pod.dnscache.end().await;
    kubedns.end().await;
}

/// Starts a kubedns without an API server, and so without records, at the addresses of an earlier
/// one.
async fn without_cluster(directory: &Path, [records, changes]: [SocketAddr; 2]) -> Running {
    let kubeconfig = directory.join("kubeconfig");
    fs::write(&kubeconfig, KUBECONFIG).unwrap();
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--listen={records}"),
        format!("--http-listen={changes}"),
    ];
    let config: kubedns::Config =
        parse_from(["kubedns".to_owned()].iter().chain(&arguments)).unwrap();
    // A client of another test may use one of its ports for a moment.
    let start = Instant::now();
    let program = loop {
        match kubedns::Program::bind(Clone::clone(&config)).await {
            Ok(program) => break program,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    Running::start(|stop| program.run(async { drop(stop.await) }))
}

/// A kubeconfig for an API server that does not exist.
const KUBECONFIG: &str = "{kind: Config, apiVersion: v1, current-context: a,
  contexts: [{name: a, context: {cluster: a, user: a}}],
  clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: a, user: {}}]}\n";
