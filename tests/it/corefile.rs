//! kubedns and dnscache configured by one Corefile.
//!
//! The tests use only what operators of CoreDNS can see: the file, answers and pages.

mod changes;
mod command;
pub mod differential;
mod files;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use tempfile::{NamedTempFile, TempDir};
use tests::api_server::ApiServer;
use tests::objects::{endpoint_slice, namespace, service};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::fixture::dns::{self, PATIENCE, eventually};
use crate::fixture::dnscache::FAR;
use crate::fixture::http;
use crate::fixture::upstream::{Answer as Records, Behaviour, Upstream};

/// The Corefile that kubeadm installs.
const KUBEADM: &str = include_str!("corefile/kubeadm.Corefile");

/// A running program.
struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        self.stop.send(()).expect("it still runs");
        timeout(PATIENCE, self.ended).await.expect("it ends in time").expect("no panic");
    }
}

/// Both programs, an API server and an upstream, with one Corefile.
struct Pod {
    directory: TempDir,
    api: ApiServer,
    _kubeconfig: NamedTempFile,
    words: [(&'static str, String); 4],
    upstream: Upstream,
    dns: SocketAddr,
    kubedns: SocketAddr,
    http: SocketAddr,
    kubedns_http: SocketAddr,
    health: Vec<SocketAddr>,
    ready: Vec<SocketAddr>,
    programs: [Running; 2],
}

/// Returns the command line of `program`.
fn arguments(program: &str, flags: &[String]) -> Vec<OsString> {
    std::iter::once(program).chain(flags.iter().map(String::as_str)).map(OsString::from).collect()
}

/// Starts an API server with Services of several kinds in the namespace shop.
async fn api_server() -> ApiServer {
    let api = ApiServer::start().await;
    api.apply(namespace("default"));
    api.apply(namespace("shop"));
    api.apply(service("default", "kubernetes").cluster_ip("10.96.0.1").port("https", 443));
    api.apply(service("shop", "web").cluster_ip("10.96.0.7").port("http", 80));
    api.apply(service("shop", "db").cluster_ip("None").port("sql", 5_432));
    api.apply(service("shop", "ext").external_name("www.example.org"));
    let slice = endpoint_slice("shop", "db").port("sql", 5_432);
    api.apply(slice.host("10.244.0.5", "db-0").ready("10.244.0.6"));
    api
}

impl Pod {
    /// Starts both with this Corefile, in which `UPSTREAM` is the address of the upstream, and with
    /// further flags for dnscache.
    async fn start(corefile: &str, flags: &[String]) -> Self {
        Self::start_in(TempDir::new().unwrap(), corefile, flags).await
    }

    /// Starts both with files next to the Corefile. `DIRECTORY` is their directory.
    async fn start_with(corefile: &str, files: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        for (name, text) in files {
            write(&directory.path().join(name), text);
        }
        Self::start_in(directory, corefile, &[]).await
    }

    async fn start_in(directory: TempDir, corefile: &str, flags: &[String]) -> Self {
        Self::start_on(None, directory, corefile, flags).await
    }

    /// The same with the API server that the file `kubeconfig` names.
    async fn start_on(
        other: Option<&str>,
        directory: TempDir,
        corefile: &str,
        flags: &[String],
    ) -> Self {
        let (api, upstream) = (api_server().await, Upstream::start(FAR).await);
        let path = directory.path().join("Corefile");
        let kubeconfig = api.kubeconfig(None);
        let hosts = directory.path().join("hosts");
        write(&hosts, "192.0.2.90 node-1 node-1.example.org\n2001:db8::90 node-1\n");
        let words = [
            ("UPSTREAM", upstream.address.to_string()),
            ("KUBECONFIG", other.map_or(kubeconfig.path().display().to_string(), str::to_owned)),
            ("HOSTS", hosts.display().to_string()),
            ("DIRECTORY", directory.path().display().to_string()),
        ];
        write(&path, &filled(&words, corefile));
        let file = format!("--corefile={}", path.display());
        let local = ["--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0"].map(str::to_owned);
        let lameduck = ["--lameduck=0".to_owned()];

        let own = [file.clone(), format!("--kubeconfig={}", words[1].1)];
        let all = [&local[..], &lameduck, &own, &["--threads=1".to_owned()]].concat();
        let config = kubedns::Config::read(arguments("kubedns", &all)).unwrap();
        let program = kubedns::Program::bind(config).await.unwrap();
        let (kubedns, kubedns_http) = (program.dns_addresses()[0], program.http_address());
        let records = run(|stop| program.run(stop));

        let own = [
            file,
            format!("--kubedns={kubedns}"),
            format!("--changes=http://{kubedns_http}/changes"),
        ];
        let pages =
            ["--health-listen=127.0.0.1:0", "--ready-listen=127.0.0.1:0"].map(str::to_owned);
        let all = [&local[..], &lameduck, &pages, &own, flags].concat();
        let config = dnscache::Config::read(arguments("dnscache", &all)).unwrap();
        let program = dnscache::Program::bind(config).await.unwrap();
        let (dns, http) = (program.dns_addresses()[0], program.http_address());
        let (health, ready) = (program.health_addresses(), program.ready_addresses());
        let programs = [records, run(|stop| program.run(stop))];
        Self {
            directory,
            api,
            _kubeconfig: kubeconfig,
            words,
            upstream,
            dns,
            kubedns,
            http,
            kubedns_http,
            health,
            ready,
            programs,
        }
    }

    /// Returns `text` with the paths and addresses of this pod filled in.
    fn filled(&self, text: &str) -> String {
        filled(&self.words, text)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("Corefile")
    }

    /// Asks dnscache until it gives this answer.
    async fn answers(&self, question: &str, status: &str, answers: &[&str]) {
        eventually(self.dns, question, status, answers).await;
    }

    async fn end(self) {
        let [kubedns, dnscache] = self.programs;
        dnscache.end().await;
        kubedns.end().await;
    }
}

/// Runs the future that `program` returns until the test stops it.
fn run<E: std::error::Error, F: Future<Output = Result<(), E>> + Send + 'static>(
    program: impl FnOnce(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> F,
) -> Running {
    let (stop, stopped) = oneshot::channel::<()>();
    let running = program(Box::pin(async { drop(stopped.await) }));
    let ended = tokio::spawn(async move { running.await.expect("it ends in order") });
    Running { stop, ended }
}

/// Returns `text` with each of `words` replaced.
fn filled(words: &[(&str, String)], text: &str) -> String {
    words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
}

/// Replaces a file atomically.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_corefile_of_kubeadm_runs_in_both_programs() {
    let corefile = KUBEADM.replace("/etc/resolv.conf", "UPSTREAM");
    let pod = Pod::start(&corefile, &[]).await;
    pod.upstream.answer("www.example.org. A", &["www.example.org. 300 A 192.0.2.80"]);
    pod.upstream.answer(
        "80.2.0.192.in-addr.arpa. PTR",
        &["80.2.0.192.in-addr.arpa. 300 PTR www.example.org."],
    );
    let rows: [(&str, &str, &[&str]); 10] = [
        (
            "web.shop.svc.cluster.local. A",
            "NOERROR",
            &["web.shop.svc.cluster.local. 30 IN A 10.96.0.7"],
        ),
        (
            "db.shop.svc.cluster.local. A",
            "NOERROR",
            &[
                "db.shop.svc.cluster.local. 30 IN A 10.244.0.5",
                "db.shop.svc.cluster.local. 30 IN A 10.244.0.6",
            ],
        ),
        (
            "db-0.db.shop.svc.cluster.local. A",
            "NOERROR",
            &["db-0.db.shop.svc.cluster.local. 30 IN A 10.244.0.5"],
        ),
        ("web.shop.svc.cluster.local. AAAA", "NODATA", &[]),
        ("no.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
        (
            "10-1-2-3.shop.pod.cluster.local. A",
            "NOERROR",
            &["10-1-2-3.shop.pod.cluster.local. 30 IN A 10.1.2.3"],
        ),
        (
            "7.0.96.10.in-addr.arpa. PTR",
            "NOERROR",
            &["7.0.96.10.in-addr.arpa. 30 IN PTR web.shop.svc.cluster.local."],
        ),
        // An address outside the cluster falls through, and the cache limits TTLs to 30.
        (
            "80.2.0.192.in-addr.arpa. PTR",
            "NOERROR",
            &["80.2.0.192.in-addr.arpa. 30 IN PTR www.example.org."],
        ),
        ("www.example.org. A", "NOERROR", &["www.example.org. 30 IN A 192.0.2.80"]),
        ("no.example.org. A", "NXDOMAIN", &[]),
    ];
    for (question, status, answers) in rows {
        pod.answers(question, status, answers).await;
    }
    assert_eq!(http::get(pod.health[0], "/health").await, (200, "ok".to_owned()));
    assert_eq!(http::get(pod.ready[0], "/ready").await, (200, "ok".to_owned()));
    assert_eq!(http::get(pod.health[0], "/ready").await.0, 404, "each address has its page");
    assert_eq!(http::get(pod.ready[0], "/metrics").await.0, 404, "each address has its page");
    let (_, metrics) = http::get(pod.http, "/metrics").await;
    for name in ["coredns_dns_requests_total", "dnscache_corefile_ok 1"] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    for server in [pod.http, pod.kubedns_http] {
        http::eventually(server, "/readyz?verbose", 200, "[+]corefile ok").await;
    }

    // A cached name of the cluster changes as soon as the Service changes.
    pod.api.apply(service("shop", "web").cluster_ip("10.96.0.8").port("http", 80));
    let now = &["web.shop.svc.cluster.local. 30 IN A 10.96.0.8"];
    pod.answers("web.shop.svc.cluster.local. A", "NOERROR", now).await;
    let answer = dns::ask(pod.kubedns, "www.example.org. A").await;
    assert_eq!(answer.status, "REFUSED", "kubedns serves the cluster alone");
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_chosen_by_the_longest_zone() {
    let corefile = ".:53 {
        forward . UPSTREAM {
            except hole.example left.example
        }
        forward left.example UPSTREAM
        cache 30
    }
    stub.example sub.stub.example:53 {
        forward sub.stub.example UPSTREAM
        cache 5
    }
    ";
    let pod = Pod::start(corefile, &[]).await;
    for name in ["a", "a.left", "a.sub.stub"] {
        let name = format!("{name}.example.");
        pod.upstream.answer(&format!("{name} A"), &[&format!("{name} 300 A 192.0.2.80")]);
    }
    let rows = [
        ("a.example.", "NOERROR", "30"),
        ("a.left.example.", "NOERROR", "30"),
        ("a.sub.stub.example.", "NOERROR", "5"),
        ("hole.example.", "SERVFAIL", ""),
        ("a.stub.example.", "SERVFAIL", ""),
    ];
    for (name, status, ttl) in rows {
        let answer = format!("{name} {ttl} IN A 192.0.2.80");
        let answers: &[&str] = if ttl.is_empty() { &[] } else { &[&answer] };
        pod.answers(&format!("{name} A"), status, answers).await;
    }
    assert_eq!(pod.upstream.seen("hole.example.").len(), 0);
    assert_eq!(pod.upstream.seen("a.stub.example.").len(), 0);
    pod.end().await;

    // If there is no block for all names, other names are refused.
    let pod = Pod::start("stub.example {\n forward . UPSTREAM\n}\n", &[]).await;
    pod.upstream.answer("a.stub.example. A", &["a.stub.example. 300 A 192.0.2.80"]);
    pod.answers("a.stub.example. A", "NOERROR", &["a.stub.example. 300 IN A 192.0.2.80"]).await;
    for name in ["a.example.", "web.shop.svc.cluster.local.", "localhost.", "a.onion."] {
        pod.answers(&format!("{name} A"), "REFUSED", &[]).await;
    }
    // A rule or a zone comes before that.
    let corefile = "localhost {\n local\n}\nlocal {\n hosts HOSTS {\n 192.0.2.93 a.local\n}\n}
        onion {\n template IN A {\n answer \"{{ .Name }} 60 IN A 192.0.2.94\"\n }\n}\n";
    write(&pod.path(), &pod.filled(corefile));
    pod.answers("a.local. A", "NOERROR", &["a.local. 3600 IN A 192.0.2.93"]).await;
    pod.answers("a.onion. A", "NOERROR", &["a.onion. 60 IN A 192.0.2.94"]).await;
    pod.answers("localhost. A", "NOERROR", &["localhost. 300 IN A 127.0.0.1"]).await;
    pod.answers("1.0.0.127.in-addr.arpa. PTR", "REFUSED", &[]).await;
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_asked_before_the_cluster_and_the_upstreams() {
    let corefile = ".:53 {
        kubernetes cluster.local
        hosts HOSTS {
            192.0.2.91 node-2 web.shop.svc.cluster.local
            ttl 20
            fallthrough
        }
        forward . UPSTREAM
    }
    other.example {
        forward . UPSTREAM
        hosts HOSTS other.example {
            192.0.2.92 a.other.example
        }
    }
    ";
    let pod = Pod::start(corefile, &[]).await;
    pod.upstream.answer("www.example.org. A", &["www.example.org. 300 A 192.0.2.80"]);
    pod.upstream.answer("b.other.example. A", &["b.other.example. 300 A 192.0.2.80"]);
    let rows: [(&str, &str, &[&str]); 7] = [
        ("node-1. A", "NOERROR", &["node-1. 20 IN A 192.0.2.90"]),
        ("node-1. AAAA", "NOERROR", &["node-1. 20 IN AAAA 2001:db8::90"]),
        ("node-2. A", "NOERROR", &["node-2. 20 IN A 192.0.2.91"]),
        (
            "web.shop.svc.cluster.local. A",
            "NOERROR",
            &["web.shop.svc.cluster.local. 20 IN A 192.0.2.91"],
        ),
        ("www.example.org. A", "NOERROR", &["www.example.org. 300 IN A 192.0.2.80"]),
        ("a.other.example. A", "NOERROR", &["a.other.example. 3600 IN A 192.0.2.92"]),
        // Without fallthrough, a missing name fails, as in CoreDNS.
        ("b.other.example. A", "SERVFAIL", &[]),
    ];
    for (question, status, answers) in rows {
        pod.answers(question, status, answers).await;
    }
    // A changed table applies, and then a changed line.
    write(&pod.directory.path().join("hosts"), "192.0.2.95 node-1\n");
    pod.answers("node-1. A", "NOERROR", &["node-1. 20 IN A 192.0.2.95"]).await;
    write(&pod.path(), &pod.filled(corefile).replace("ttl 20", "ttl 10"));
    pod.answers("node-1. A", "NOERROR", &["node-1. 10 IN A 192.0.2.95"]).await;
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_rewritten_and_answered_from_templates() {
    let corefile = ".:53 {
        rewrite name exact shop.example.org web.shop.svc.cluster.local
        rewrite stop {
            name regex (.*)\\.old\\.example {1}.new.example
            answer name (.*)\\.new\\.example {1}.old.example
        }
        kubernetes cluster.local
        template IN AAAA z6.example {
            rcode NOERROR
        }
        template IN A pool.example {
            match ^p-(?P<last>[0-9]+)\\.pool\\.example\\.$
            answer \"{{ .Name }} 60 IN A 10.0.0.{{ .Group.last }}\"
            fallthrough
        }
        forward . UPSTREAM
    }
    ";
    let pod = Pod::start(corefile, &[]).await;
    pod.upstream.answer("a.new.example. A", &["a.new.example. 300 A 192.0.2.80"]);
    pod.upstream.answer("www.z6.example. AAAA", &["www.z6.example. 300 AAAA 2001:db8::80"]);
    pod.upstream.answer("q.pool.example. A", &["q.pool.example. 300 A 192.0.2.81"]);
    let rows: [(&str, &str, &[&str]); 5] = [
        ("shop.example.org. A", "NOERROR", &["shop.example.org. 5 IN A 10.96.0.7"]),
        ("a.old.example. A", "NOERROR", &["a.old.example. 300 IN A 192.0.2.80"]),
        ("www.z6.example. AAAA", "NODATA", &[]),
        ("p-7.pool.example. A", "NOERROR", &["p-7.pool.example. 60 IN A 10.0.0.7"]),
        ("q.pool.example. A", "NOERROR", &["q.pool.example. 300 IN A 192.0.2.81"]),
    ];
    for (question, status, answers) in rows {
        pod.answers(question, status, answers).await;
    }
    // If a rule is wrong, the page names it with its line, and the old rules stay.
    write(&pod.path(), &pod.filled(corefile).replace("name exact shop", "name regex (shop"));
    http::eventually(pod.http, "/readyz?verbose", 200, "Corefile:2: rewrite name regex (shop")
        .await;
    pod.answers("shop.example.org. A", "NOERROR", &["shop.example.org. 5 IN A 10.96.0.7"]).await;
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn search_lists_zone_files_and_nat64_are_those_of_the_file() {
    let corefile = ".:53 {
        kubernetes cluster.local in-addr.arpa {
            fallthrough in-addr.arpa
        }
        autopath @kubernetes
        forward . UPSTREAM
    }
    z.example:53 {
        file DIRECTORY/db.z {
            fallthrough below.z.example
        }
        forward . UPSTREAM
        dns64 64:1337::/96
    }
    ";
    const ZONE: &str = "@ 300 IN SOA ns mail 7 60 60 60 30\n@ NS ns\nns 60 A 192.0.2.53\n\
        *.wild 60 A 192.0.2.54\nsub NS ns.sub\nns.sub 60 A 192.0.2.55\n";
    let pod = Pod::start_with(corefile, &[("db.z", ZONE)]).await;
    pod.upstream.answer("www.example.org. A", &["www.example.org. 300 A 192.0.2.80"]);
    pod.upstream.answer("a.below.z.example. A", &["a.below.z.example. 300 A 192.0.2.81"]);
    let walked = [
        "www.example.org. 300 IN A 192.0.2.80",
        "www.example.org.shop.svc.cluster.local. 300 IN CNAME www.example.org.",
    ];
    let rows: [(&str, &str, &[&str]); 7] = [
        ("www.example.org.shop.svc.cluster.local. A", "NOERROR", &walked),
        ("ns.z.example. A", "NOERROR", &["ns.z.example. 60 IN A 192.0.2.53"]),
        ("a.wild.z.example. A", "NOERROR", &["a.wild.z.example. 60 IN A 192.0.2.54"]),
        ("a.wild.z.example. AAAA", "NOERROR", &["a.wild.z.example. 60 IN AAAA 64:1337::c000:236"]),
        ("a.below.z.example. A", "NOERROR", &["a.below.z.example. 300 IN A 192.0.2.81"]),
        ("no.z.example. A", "NXDOMAIN", &[]),
        (
            "web.shop.svc.cluster.local. A",
            "NOERROR",
            &["web.shop.svc.cluster.local. 5 IN A 10.96.0.7"],
        ),
    ];
    for (question, status, answers) in rows {
        pod.answers(question, status, answers).await;
    }
    assert_eq!(pod.upstream.seen("no.z.example.").len(), 0);

    // A changed zone file applies. If it is broken, the last good zone stays.
    let file = pod.directory.path().join("db.z");
    write(&file, &ZONE.replace("192.0.2.54", "192.0.2.56"));
    pod.answers("a.wild.z.example. A", "NOERROR", &["a.wild.z.example. 60 IN A 192.0.2.56"]).await;
    write(&file, "nonsense\n");
    http::eventually(pod.http, "/readyz?verbose", 200, "db.z: line 1: ").await;
    pod.answers("ns.z.example. A", "NOERROR", &["ns.z.example. 60 IN A 192.0.2.53"]).await;
    // If a Corefile names a broken file, it is rejected with its line.
    write(&pod.path(), &pod.filled(corefile).replace("autopath @kubernetes", ""));
    let page = http::eventually(pod.http, "/readyz?verbose", 200, "Corefile:9: file ").await;
    assert!(page.contains("db.z: line 1: "), "{page}");
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_passed_on_after_some_answers() {
    let second = Upstream::start(crate::fixture::dnscache::FARTHER).await;
    let corefile = ".:53 {
        kubernetes cluster.local {
            fallthrough
        }
        forward . UPSTREAM {
            next NXDOMAIN
            next_on_nodata
        }
        forward . SECOND
        cache 30
    }
    ";
    let corefile = corefile.replace("SECOND", &second.address.to_string());
    let pod = Pod::start(&corefile, &[]).await;
    let legacy = "legacy.shop.svc.cluster.local.";
    pod.upstream.answer(&format!("{legacy} A"), &[&format!("{legacy} 300 A 192.0.2.1")]);
    pod.upstream.answer("a.example. A", &["a.example. 300 A 192.0.2.2"]);
    second.answer("a.example. AAAA", &["a.example. 300 AAAA 2001:db8::2"]);
    second.answer("b.example. A", &["b.example. 300 A 192.0.2.3"]);
    let rows: [(&str, &str, &[&str]); 6] = [
        ("a.example. A", "NOERROR", &["a.example. 30 IN A 192.0.2.2"]),
        ("b.example. A", "NOERROR", &["b.example. 30 IN A 192.0.2.3"]),
        ("c.example. A", "NXDOMAIN", &[]),
        (
            "web.shop.svc.cluster.local. A",
            "NOERROR",
            &["web.shop.svc.cluster.local. 5 IN A 10.96.0.7"],
        ),
        // The cluster has the name, so no other server is asked.
        ("web.shop.svc.cluster.local. AAAA", "NODATA", &[]),
        (&format!("{legacy} A"), "NOERROR", &[&format!("{legacy} 30 IN A 192.0.2.1")]),
    ];
    for (question, status, answers) in rows {
        pod.answers(question, status, answers).await;
    }
    assert_eq!(second.seen("a.example.").len(), 0);
    assert_eq!(second.seen("b.example.").len(), 1);
    assert_eq!(pod.upstream.seen("web.shop.svc.cluster.local.").len(), 0);
    let (_, explained) = http::get(pod.http, &format!("/explain?name={legacy}&type=A")).await;
    assert!(explained.contains("\"next\""), "{explained}");
    // The name appears in the cluster, and goes again.
    pod.api.apply(service("shop", "legacy").cluster_ip("10.96.0.9").port("http", 80));
    let now = format!("{legacy} 5 IN A 10.96.0.9");
    pod.answers(&format!("{legacy} A"), "NOERROR", &[&now]).await;
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_domains_and_external_addresses_are_those_of_the_cluster() {
    let corefile = ".:53 {
        kubernetes cluster.local second.example
        k8s_external ext.example {
            ttl 60
            apex ns
            fallthrough
        }
        forward . UPSTREAM
    }
    ";
    let pod = Pod::start(corefile, &[]).await;
    pod.api.apply(
        service("shop", "web").cluster_ip("10.96.0.7").external_ip("192.0.2.7").port("http", 80),
    );
    let lb = serde_json::json!({"hostname": "lb.cloud.example"});
    pod.api.apply(service("shop", "lb").cluster_ip("10.96.0.8").ingress(lb).port("http", 80));
    pod.upstream.answer("lb.cloud.example. A", &["lb.cloud.example. 300 A 192.0.2.80"]);
    pod.upstream.answer("www.ext.example. A", &["www.ext.example. 300 A 192.0.2.81"]);
    let rows: [(&str, &str, &[&str]); 7] = [
        ("web.shop.ext.example. A", "NOERROR", &["web.shop.ext.example. 60 IN A 192.0.2.7"]),
        (
            "_http._tcp.web.shop.ext.example. SRV",
            "NOERROR",
            &["_http._tcp.web.shop.ext.example. 60 IN SRV 0 100 80 web.shop.ext.example."],
        ),
        (
            "lb.shop.ext.example. A",
            "NOERROR",
            &[
                "lb.cloud.example. 300 IN A 192.0.2.80",
                "lb.shop.ext.example. 60 IN CNAME lb.cloud.example.",
            ],
        ),
        ("ext.example. NS", "NOERROR", &["ext.example. 60 IN NS ns1.ns.ext.example."]),
        ("www.ext.example. A", "NOERROR", &["www.ext.example. 300 IN A 192.0.2.81"]),
        ("db.shop.ext.example. A", "NXDOMAIN", &[]),
        (
            "db-0.db.shop.svc.second.example. A",
            "NOERROR",
            &["db-0.db.shop.svc.second.example. 5 IN A 10.244.0.5"],
        ),
    ];
    for (question, status, answers) in rows {
        pod.answers(question, status, answers).await;
    }
    // What is cached is right as soon as the Service changes.
    pod.api.apply(
        service("shop", "web").cluster_ip("10.96.0.17").external_ip("192.0.2.17").port("http", 80),
    );
    for (name, answer) in [
        ("web.shop.ext.example.", "60 IN A 192.0.2.17"),
        ("web.shop.svc.second.example.", "5 IN A 10.96.0.17"),
    ] {
        pod.answers(&format!("{name} A"), "NOERROR", &[&format!("{name} {answer}")]).await;
    }
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_ask_what_the_rules_allow() {
    let corefile = ".:53 {
        acl a.example {
            allow type A net 127.0.0.0/8
            filter type AAAA
            block net 127.0.0.0/8
        }
        forward . UPSTREAM
    }
    b.example {
        forward . UPSTREAM
    }
    ";
    let pod = Pod::start(corefile, &[]).await;
    for name in ["x.a.example.", "x.b.example."] {
        pod.upstream.answer(&format!("{name} A"), &[&format!("{name} 300 A 192.0.2.80")]);
        pod.upstream.answer(&format!("{name} AAAA"), &[&format!("{name} 300 AAAA 2001:db8::80")]);
        pod.upstream.answer(&format!("{name} TXT"), &[&format!("{name} 300 TXT hello")]);
    }
    let rows: [(&str, &str, &[&str]); 5] = [
        ("x.a.example. A", "NOERROR", &["x.a.example. 300 IN A 192.0.2.80"]),
        ("x.a.example. AAAA", "NODATA", &[]),
        ("x.a.example. TXT", "REFUSED", &[]),
        ("x.b.example. AAAA", "NOERROR", &["x.b.example. 300 IN AAAA 2001:db8::80"]),
        ("x.b.example. TXT", "NOERROR", &["x.b.example. 300 IN TXT hello"]),
    ];
    for (question, status, answers) in rows {
        pod.answers(question, status, answers).await;
    }
    assert_eq!(pod.upstream.seen("x.a.example.").len(), 1, "A alone is asked");
    // A changed rule holds for what is cached as well.
    write(&pod.path(), &pod.filled(corefile).replace("allow type A", "block type A"));
    pod.answers("x.a.example. A", "REFUSED", &[]).await;
    write(&pod.path(), &pod.filled(corefile).replace("block net", "allow net"));
    pod.answers("x.a.example. TXT", "NOERROR", &["x.a.example. 300 IN TXT hello"]).await;
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_answers_are_served_as_the_file_requires() {
    let corefile = ".:53 {
        cache {
            serve_stale 1h MODE
            serve_stale_policy prefer_positive
            keepttl
        }
        forward . UPSTREAM
    }
    ";
    let (name, question) = ("a.example.", "a.example. A");
    for (mode, behaviour) in [
        ("immediate", Behaviour::Silent),
        ("verify 50ms", Behaviour::Silent),
        ("verify", Behaviour::Good),
    ] {
        let pod = Pod::start(&corefile.replace("MODE", mode), &[]).await;
        pod.upstream.say(question, Records::new(&[&format!("{name} 1 A 192.0.2.80")]));
        pod.answers(question, "NOERROR", &["a.example. 1 IN A 192.0.2.80"]).await;
        pod.upstream.say(question, Records::denial(ResponseCode::NXDomain, 60));
        pod.upstream.behave(behaviour);
        // Only an expired answer has this TTL.
        pod.answers(question, "NOERROR", &["a.example. 0 IN A 192.0.2.80"]).await;
        pod.end().await;
    }
}

/// Returns AA, RD and RA of the reply to `question`.
async fn flags(server: SocketAddr, question: &str) -> [bool; 3] {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut reply = [0; 1_232];
    loop {
        socket.send_to(&dns::query(question, Some(1_232)), server).await.unwrap();
        if timeout(PATIENCE / 10, socket.recv(&mut reply)).await.is_ok() {
            return [reply[2] & 0x04 != 0, reply[2] & 0x01 != 0, reply[3] & 0x80 != 0];
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_of_messages_are_those_of_the_block() {
    let corefile = ".:53 {
        header {
            response set aa
            response clear ra rd
            query clear rd
        }
        forward . UPSTREAM
    }
    plain.example {
        forward . UPSTREAM
    }
    ";
    let pod = Pod::start(corefile, &[]).await;
    let names = ["a.example.", "a.plain.example."];
    for name in names {
        pod.upstream.answer(&format!("{name} A"), &[&format!("{name} 300 A 192.0.2.80")]);
    }
    let rows = [
        ("a.example. A", [true, false, false]),
        ("a.plain.example. A", [false, true, true]),
        ("no.example. A", [true, false, false]),
    ];
    for round in ["miss", "hit"] {
        for (question, expected) in rows {
            assert_eq!(flags(pod.dns, question).await, expected, "{question}: {round}");
        }
    }
    for (name, rd) in names.into_iter().zip([0, 1]) {
        let seen = pod.upstream.seen(name);
        assert!(!seen.is_empty() && seen.iter().all(|it| it.message[2] & 1 == rd), "{name}");
    }
    write(&pod.path(), &pod.filled(corefile).replace("set aa", "set ra"));
    let begin = Instant::now();
    while flags(pod.dns, "a.example. A").await != [false, false, false] {
        assert!(begin.elapsed() < PATIENCE, "the changed rules do not apply");
    }
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_beside_the_file_win() {
    let outside = Upstream::start(FAR).await;
    outside.answer("www.example.org. A", &["www.example.org. 300 A 192.0.2.81"]);
    let server = format!("--server={}#{}", outside.address.ip(), outside.address.port());
    let pod = Pod::start(KUBEADM, &[server, "--max-ttl=60".to_owned()]).await;
    let answer = ["www.example.org. 60 IN A 192.0.2.81"];
    pod.answers("www.example.org. A", "NOERROR", &answer).await;
    let cluster = ["web.shop.svc.cluster.local. 30 IN A 10.96.0.7"];
    pod.answers("web.shop.svc.cluster.local. A", "NOERROR", &cluster).await;
    pod.end().await;
}
