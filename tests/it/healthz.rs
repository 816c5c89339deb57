//! healthz as a whole: it probes a scripted server on loopback, and the test requests its pages.
//!
//! The tests use its paths and what the paths promise. They must not depend on its internal
//! counters.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use healthz::{Config, Error, Pace, Program};
use hickory_proto::op::ResponseCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fixture::dns::PATIENCE;
use crate::fixture::upstream::{Behaviour, Reply, Upstream};

const NAME: &str = "kubernetes.default.svc.cluster.local.";

struct World {
    http: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), Error>>,
}

/// Parses `arguments`, and sets intervals that are short enough for a test.
fn config(arguments: &[&str], pace: Pace) -> Config {
    let arguments = ["healthz", "--http-listen", "127.0.0.1:0"].iter().chain(arguments);
    let mut config = shared::flags::parse_from::<Config>(arguments.copied()).unwrap();
    config.pace = pace;
    for probe in &mut config.probes {
        probe.interval = Duration::from_millis(20);
    }
    config
}

/// Returns a pace that is fast, but slow enough for a busy machine.
fn fast() -> Pace {
    let millis = Duration::from_millis;
    let resend = [millis(60), millis(120)];
    let start_max = Duration::ZERO;
    Pace { resend, deadline: millis(400), retry: millis(10), start: millis(10), start_max }
}

async fn start(config: Config) -> World {
    let program = Program::bind(config).await.unwrap();
    let http = program.http_address();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(program.run(async move { drop(stopped.await) }));
    World { http, stop, running }
}

/// Starts healthz with one probe `dns` of `server`.
async fn watch(server: SocketAddr) -> World {
    start(config(&["--probe", &format!("dns,{server},{NAME}")], fast())).await
}

impl World {
    /// Returns the status and body of `GET path`.
    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(path, "*/*").await
    }

    async fn ask(&self, path: &str, accept: &str) -> (u16, String) {
        let exchange = async {
            let mut stream = TcpStream::connect(self.http).await.unwrap();
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// Requests `path` until it has `status` and its body contains `part`. Returns the body.
    async fn eventually(&self, path: &str, status: u16, part: &str) -> String {
        let start = Instant::now();
        loop {
            let (got, body) = self.get(path).await;
            if got == status && body.contains(part) {
                return body;
            }
            let late = start.elapsed() > PATIENCE;
            assert!(!late, "{path} should be {status} {part:?}, is {got} {body:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.1).unwrap()
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap().unwrap();
    }
}

async fn server() -> Upstream {
    let server = Upstream::start("127.0.0.1").await;
    server.answer(&format!("{NAME} A"), &[&format!("{NAME} 30 A 10.0.0.1")]);
    server
}

#[tokio::test]
async fn each_way_to_fail_is_named_and_an_answer_heals() {
    let server = server().await;
    let world = watch(server.address).await;
    let body = world.eventually("/healthz", 200, "[+]dns healthy for").await;
    assert!(body.starts_with("ok\n"), "{body}");
    let rows = [
        (Behaviour::Silent, "no answer within 0.4 s"),
        (Behaviour::Forged, "no answer within 0.4 s"),
        (Behaviour::Breaks, "the reply cannot be read"),
        (Behaviour::Fails(ResponseCode::ServFail), "SERVFAIL"),
        (Behaviour::Fails(ResponseCode::Refused), "REFUSED"),
        (Behaviour::Fails(ResponseCode::NXDomain), "NXDOMAIN"),
    ];
    for (behaviour, reason) in rows {
        server.behave(behaviour);
        let body = world.eventually("/healthz", 503, reason).await;
        assert!(body.starts_with("unhealthy: dns\n[-]dns unhealthy for"), "{body}");
        assert!(body.contains("last answer"), "{body}");
        server.behave(Behaviour::Good);
        world.eventually("/healthz", 200, "ok\n").await;
    }
    for behaviour in [Behaviour::Truncates, Behaviour::Lies] {
        server.behave(behaviour);
        let asked = server.asked(&format!("{NAME} A"));
        while server.asked(&format!("{NAME} A")) < asked + 8 {
            world.eventually("/healthz/dns", 200, "ok\n").await;
        }
    }
    world.end().await;
}

/// A probe must check the answer and not only the code.
#[tokio::test]
async fn an_answer_must_have_a_record_of_the_name_and_the_address() {
    let server = server().await;
    let address = server.address;
    let probes = [
        format!("any,{address},{NAME},1,A"),
        format!("fixed,{address},{NAME},1,A,10.0.0.1"),
        format!("tcp,tcp:{address},{NAME},1,A,10.0.0.1"),
        format!("six,{address},{NAME},1,AAAA"),
    ];
    let flags: Vec<&str> = probes.iter().flat_map(|probe| ["--probe", probe]).collect();
    let world = start(config(&flags, fast())).await;
    let all = ["any", "fixed", "tcp", "six"];
    let expect = async |wrong: &[&str], reason: &str| {
        for label in all {
            let path = format!("/healthz/{label}");
            match wrong.contains(&label) {
                true => world.eventually(&path, 503, reason).await,
                false => world.eventually(&path, 200, "ok\n").await,
            };
            assert_eq!(world.get(&format!("/livez/{label}")).await.0, 200, "it replies");
        }
    };
    // AAAA has no record, and A does.
    server.answer(&format!("{NAME} AAAA"), &[]);
    expect(&[], "").await;
    server.answer(&format!("{NAME} A"), &[&format!("{NAME} 30 A 6.6.6.6")]);
    expect(&["fixed", "tcp"], "10.0.0.1 is not in the answer, which has 6.6.6.6").await;
    server.answer(&format!("{NAME} A"), &[]);
    expect(&all, "record: the answer is empty (NODATA)").await;
    server.answer(&format!("{NAME} AAAA"), &[&format!("{NAME} 30 AAAA fd00::1")]);
    expect(&["fixed", "tcp"], "no A record: the answer is empty (NODATA)").await;
    server.answer(&format!("{NAME} A"), &["other.example. 30 A 10.0.0.1"]);
    expect(&["fixed", "tcp"], "no A record of the name, only 1 record of others").await;
    let alias = [&*format!("{NAME} 30 CNAME api.example."), "api.example. 30 A 10.0.0.1"];
    server.answer(&format!("{NAME} A"), &alias);
    expect(&[], "").await;
    world.end().await;
}

/// A program must be restarted only if it answers no question at all. A reply with an error is not
/// a reason.
#[tokio::test]
async fn only_a_program_that_sends_no_reply_at_all_is_to_be_restarted() {
    let server = server().await;
    let world = watch(server.address).await;
    world.eventually("/livez/dns", 200, "ok").await;
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NXDomain] {
        server.behave(Behaviour::Fails(code));
        world.eventually("/healthz/dns", 503, "unhealthy").await;
        assert_eq!(world.get("/livez/dns").await, (200, "ok".to_owned()));
        server.behave(Behaviour::Good);
        world.eventually("/healthz/dns", 200, "ok\n").await;
    }
    // It waits for another server, but answers questions about itself.
    server.tries(&format!("{NAME} A"), [Reply::Nothing]);
    world.eventually("/healthz/dns", 503, "no answer within 0.4 s").await;
    let asked = server.asked("version.bind. TXT");
    while server.asked("version.bind. TXT") < asked + 4 {
        world.eventually("/livez/dns", 200, "ok").await;
    }
    server.behave(Behaviour::Silent);
    let said = "[-]dns is stuck: no reply at all to the last probes\n";
    world.eventually("/livez/dns", 503, said).await;
    assert!(world.get("/metrics").await.1.contains("healthz_probe_live{probe=\"dns\"} 0\n"));
    assert_eq!(world.get("/livez").await.0, 200, "healthz itself is not");
    server.behave(Behaviour::Good);
    world.eventually("/livez/dns", 200, "ok").await;
    world.end().await;
}

/// While a pod starts, its first probes fail. They must not be reported, and must be removed after
/// the start.
#[tokio::test]
async fn a_start_is_no_outage() {
    let server = server().await;
    server.behave(Behaviour::Fails(ResponseCode::ServFail));
    let pace = Pace { start_max: Duration::from_secs(3_600), ..fast() };
    let world = start(config(&["--probe", &format!("dns,{},{NAME}", server.address)], pace)).await;
    let said = "waiting: dns\n[-]dns waiting for its first answer for ";
    world.eventually("/healthz", 503, said).await;
    while server.asked(&format!("{NAME} A")) < 5 {
        let (status, body) = world.get("/healthz").await;
        assert!(status == 503 && body.starts_with("waiting: dns\n"), "{body}");
    }
    server.behave(Behaviour::Good);
    world.eventually("/healthz", 200, "ok\n").await;
    let report = world.json("/healthz?format=json").await;
    assert_eq!(report["probes"][0]["lastError"], Value::Null);
    let since = report["probes"][0]["sinceSeconds"].to_string();
    assert!(since.split('.').next_back().unwrap().len() <= 3, "{since}");
    let page = world.get("/").await.1;
    assert!(!page.contains("Last error") && !page.contains("class=\"bad\""), "{page}");
    world.end().await;
}

#[tokio::test]
async fn a_server_that_dies_is_noticed_and_one_that_comes_back_too() {
    // The test has its own address, so that no other program binds the port while it is free.
    let first = Upstream::start("127.0.0.3").await;
    first.answer(&format!("{NAME} A"), &[&format!("{NAME} 30 A 10.0.0.1")]);
    let address = first.address;
    let world = watch(address).await;
    world.eventually("/healthz", 200, "ok\n").await;
    drop(first);
    world.eventually("/healthz", 503, "connection refused").await;
    let second = Upstream::start_at(address).await;
    second.answer(&format!("{NAME} A"), &[&format!("{NAME} 30 A 10.0.0.1")]);
    world.eventually("/healthz", 200, "ok\n").await;
    let report = world.json("/healthz?format=json").await;
    assert_eq!(report["probes"][0]["lastError"], "cannot receive: connection refused");
    world.end().await;
}

#[tokio::test]
async fn lost_packets_are_not_an_outage() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Two of three queries are lost, over four probes.
    let lossy = tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 512];
        for count in 1..=12 {
            let (len, peer) = socket.recv_from(&mut buffer).unwrap();
            if count % 3 == 0 {
                buffer[2..4].copy_from_slice(&[0x81, 3]); // NXDOMAIN is a success for a new name
                socket.send_to(&buffer[..len], peer).unwrap();
            }
        }
        socket // stays open, so that later queries are not refused
    });
    let pace = Pace { deadline: Duration::from_secs(10), ..fast() };
    let world = start(config(&["--probe", &format!("dns,{address},*.{NAME}")], pace)).await;
    let _socket = lossy.await.unwrap();
    let report = world.json("/healthz?format=json").await;
    assert_eq!(
        (&report["probes"][0]["lastError"], &report["healthy"]),
        (&Value::Null, &json!(true))
    );
    world.end().await;
}

#[tokio::test]
async fn before_the_first_answer_the_pod_is_not_healthy_nor_healthz_ready() {
    let server = server().await;
    server.behave(Behaviour::Silent);
    let pace = Pace { deadline: Duration::from_secs(60), ..fast() };
    let world = start(config(&["--probe", &format!("dns,{},{NAME}", server.address)], pace)).await;
    let (status, body) = world.get("/healthz").await;
    assert!(status == 503 && body.starts_with("waiting: dns\n"), "{body}");
    let waiting =
        json!({"IsOk": false, "LatencySeconds": 0.0, "Err": "waiting for the first probe"});
    assert_eq!(world.json("/healthcheck/dns").await, waiting);
    let (status, body) = world.get("/readyz").await;
    assert!(status == 503 && body.contains("[-]dns failed: waiting"), "{body}");
    assert_eq!(world.get("/livez").await, (200, "ok".to_owned()), "waiting is no hanging");
    assert!(world.get("/").await.1.contains("<title>Waiting"));
    world.end().await; // in the middle of a probe
}

#[tokio::test]
async fn every_path_says_it_in_its_form() {
    let (good, bad) = (server().await, server().await);
    bad.behave(Behaviour::Fails(ResponseCode::ServFail));
    let good = format!("good,tcp:{},{NAME}", good.address);
    let bad = format!("bad,{},{NAME},1,srv", bad.address);
    let world = start(config(&["--probe", &good, "--probe", &bad], fast())).await;
    world.eventually("/readyz", 200, "ok").await;
    world.eventually("/healthz", 503, "unhealthy: bad\n").await;
    world.eventually("/healthz/good", 200, "ok\n").await;

    let (status, body) = world.ask("/healthz", "application/json").await;
    let report = serde_json::from_str::<Value>(&body).unwrap();
    assert_eq!((status, &report["reason"]), (503, &json!("unhealthy: bad")));
    assert_eq!(report["probes"][1]["type"], "SRV");
    assert_eq!(world.ask("/healthz?format=text", "application/json").await.1[..10], *"unhealthy:");
    world.eventually("/healthz/good", 200, "ok\n").await;
    assert_eq!(world.get("/healthz/bad").await.0, 503);
    let sidecar = world.json("/healthcheck/bad").await;
    assert_eq!((&sidecar["IsOk"], &sidecar["Err"]), (&json!(false), &json!("SERVFAIL")));
    assert_eq!(world.get("/livez/bad").await, (200, "ok".to_owned()), "it replies");
    for path in ["/healthz/ugly", "/healthcheck/ugly", "/livez/ugly"] {
        let (status, body) = world.get(path).await;
        assert_eq!((status, body.as_str()), (404, "no probe 'ugly': there are good, bad\n"));
    }
    let (status, body) = world.get("/quit").await;
    assert!(status == 404 && body.contains("/healthz/LABEL"), "{body}");

    let up = "healthz_probe_up{probe=\"good\"} 1\n";
    let metrics = world.eventually("/metrics", 200, up).await;
    for line in [
        "# TYPE healthz_probes_total counter\n",
        "healthz_probes_total{probe=\"good\",outcome=\"ok\"} ",
        "healthz_probes_total{probe=\"bad\",outcome=\"SERVFAIL\"} ",
        "healthz_probe_latency_seconds_bucket{le=\"0.00025\",probe=\"good\"} ",
        "healthz_probe_up{probe=\"bad\"} 0\n",
        "healthz_probe_live{probe=\"bad\"} 1\n",
        "healthz_up 0\n",
        "healthz_build_info{version=",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    let open = world.ask("/metrics", "application/openmetrics-text").await.1;
    assert!(open.ends_with("# EOF\n"), "{open}");
    let page = world.get("/").await.1;
    assert!(page.contains("<title>Unhealthy") && page.contains("No good answer from: bad."));
    world.end().await;
}

#[tokio::test]
async fn a_name_that_is_new_each_time_passes_caches_and_nxdomain_is_right() {
    let server = server().await;
    let probe = format!("path,{},*.{NAME}", server.address);
    let world = start(config(&["--probe", &probe], fast())).await;
    world.eventually("/healthz", 200, "ok\n").await;
    while server.seen(NAME).len() < 3 {
        world.eventually("/healthz", 200, "ok\n").await;
    }
    let names = server.seen(NAME).into_iter().map(|seen| seen.message[12..40].to_vec());
    let mut names = names.collect::<Vec<_>>();
    let count = names.len();
    names.sort();
    names.dedup();
    // A query that is sent again has the same name.
    assert!(names.len() >= count / 3 && names.len() > 1);
    server.behave(Behaviour::Fails(ResponseCode::ServFail));
    world.eventually("/healthz", 503, "SERVFAIL").await;
    world.end().await;
}

#[tokio::test]
async fn a_bad_configuration_directory_is_told_and_stops_nothing() {
    let directory = tempfile::TempDir::new().unwrap();
    std::fs::write(directory.path().join("stubDomain"), "{}").unwrap();
    let server = server().await;
    let probe = format!("dns,{},{NAME}", server.address);
    let path = directory.path().to_str().unwrap();
    let world = start(config(&["--probe", &probe, "--config-dir", path], fast())).await;
    let part = "[!]config-dir warning: unknown key \"stubDomain\"";
    world.eventually("/readyz?verbose", 200, part).await;
    assert!(world.get("/metrics").await.1.contains("healthz_config_ok 0\n"));
    std::fs::remove_file(directory.path().join("stubDomain")).unwrap();
    world.eventually("/readyz?verbose", 200, "[+]config-dir ok").await;
    world.end().await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_served() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut config = config(&["--probe", "a,127.0.0.1,x"], fast());
    config.http_listen = address;
    let error = Program::bind(config.clone()).await.unwrap_err();
    let line = shared::flags::chain(&error);
    assert!(line.contains(&address.to_string()) && line.contains("in use"), "{line}");
    config.probes.push(config.probes[0].clone());
    let error = shared::flags::chain(&Program::bind(config).await.unwrap_err());
    assert!(error.contains("'a'"), "{error}");
}

/// The names of kube-dns's sidecar, as its dashboards have them.
#[tokio::test(flavor = "multi_thread")]
async fn dashboards_for_kube_dns_find_the_names_of_its_sidecar() {
    let upstream = server().await;
    let flag = crate::fixture::dnscache::stub("cluster.local", &upstream);
    let cache = crate::fixture::dnscache::Running::start(&[flag]).await;
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let probes = [
        format!("kubedns,{},{NAME}", dead.local_addr().unwrap()),
        format!("dnscache,{},{NAME}", cache.dns),
        format!("dnscache-tcp,tcp:{},{NAME}", cache.dns),
    ];
    let probes: Vec<&str> = probes.iter().flat_map(|probe| ["--probe", probe]).collect();
    let plain = start(config(&probes, fast())).await;
    plain.eventually("/metrics", 200, "healthz_probe_up{probe=\"dnscache\"} 1").await;
    assert!(!plain.get("/metrics").await.1.contains("kubedns_"));
    plain.end().await;

    let flags = [&probes[..], &["--metrics-compat", "kube-dns"]].concat();
    let world = start(config(&flags, fast())).await;
    world.eventually("/metrics", 200, "kubedns_dnsmasq_max_size 10000").await;
    let page =
        world.eventually("/metrics", 200, "healthz_probe_up{probe=\"dnscache-tcp\"} 1").await;
    let value = |name: &str| -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    };
    // name, least value
    let rows = [
        ("kubedns_dnsmasq_hits", 0.0),
        ("kubedns_dnsmasq_misses", 0.0),
        ("kubedns_dnsmasq_evictions", 0.0),
        ("kubedns_dnsmasq_insertions", 1.0),
        ("kubedns_dnsmasq_max_size", 10_000.0),
        ("kubedns_dnsmasq_errors", 0.0),
        ("kubedns_probe_kubedns_errors", 0.0),
        ("kubedns_probe_dnsmasq_errors", 0.0),
        ("kubedns_probe_dnscache_tcp_errors", 0.0),
        ("kubedns_probe_dnsmasq_latency_ms_count", 1.0),
        ("kubedns_probe_dnsmasq_latency_ms_bucket{le=\"+Inf\"}", 1.0),
        ("kubedns_probe_kubedns_latency_ms_count", 0.0),
    ];
    for (name, least) in rows {
        assert!(value(name) >= least, "{name}: {page}");
    }
    assert!(page.contains("kubedns_probe_dnsmasq_latency_ms_bucket{le=\"0.25\"}"), "{page}");
    let failed = |page: &str| page.contains("\nkubedns_probe_kubedns_errors 0\n");
    let start = Instant::now();
    while failed(&world.get("/metrics").await.1) {
        assert!(start.elapsed() < PATIENCE, "the dead server is not noticed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.end().await;
}
