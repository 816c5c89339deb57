//! CoreDNS next to both programs, with the same Corefiles, API server and upstream.
//!
//! The test runs if the environment variable `COREDNS` names the program and `KUBEBUILDER_ASSETS` a
//! folder with etcd and kube-apiserver. For each file of `files/` that both can run, it asks the
//! same questions. Response codes, records and TTLs must be the same, except for differences that
//! are listed with a reason.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use shared::corefile::plan::{Surroundings, plan};
use shared::corefile::{Corefile, Look};
use tempfile::TempDir;
use tests::objects::{endpoint_slice, namespace, service};
use tests::real_api::{self, RealApi};
use tokio::net::{TcpListener, UdpSocket};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Pod, files, write};
use crate::fixture::dns::{self, Answer, PATIENCE};

/// A response code, and the answer section.
type Compared = (String, Vec<String>);

/// Returns why the answer to `question` may differ; `None` if it must be the same.
fn reason(question: &str, theirs: &Compared, ours: &Compared) -> Option<&'static str> {
    let (name, rtype) = question.split_once(' ')?;
    match (theirs.0.as_str(), ours.0.as_str()) {
        _ if bare(theirs) == bare(ours) => {
            Some("TTLs below 5 s are not raised, each record has its own, and SRV weights are 100")
        }
        ("NXDOMAIN", "NODATA") => Some("a name above or with other records exists (RFC 8020)"),
        ("NXDOMAIN", "REFUSED") if name.ends_with(".z1.example.") => {
            Some("known fault: a rewritten name takes its own route, not that of its block")
        }
        ("NOERROR", "NODATA") => Some(
            "names of endpoints and pods have no SRV, names of ports no addresses (specification)",
        ),
        _ if name.starts_with("ext.") => {
            Some("an alias is the answer for every type, with the code of its target (RFC 6604)")
        }
        ("NOERROR" | "SERVFAIL", "NXDOMAIN" | "SERVFAIL") if rtype == "PTR" => {
            Some("kubedns has no reverse names of endpoints without a Pod in the cluster's ranges")
        }
        _ => None,
    }
}

/// Returns `answer` without TTLs and the weights of SRV records.
fn bare((code, records): &Compared) -> Compared {
    let bare = |record: &String| {
        let words: Vec<&str> = record.split(' ').collect();
        let is_dropped =
            |at: usize| at == 1 || at == 5 && words.get(3).is_some_and(|&rtype| rtype == "SRV");
        let kept = words.iter().enumerate().filter(|&(at, _)| !is_dropped(at));
        kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
    };
    (code.clone(), records.iter().map(bare).collect())
}

/// A CoreDNS process that ends with the test.
pub struct Coredns {
    pub address: SocketAddr,
    _child: Child,
}

impl Coredns {
    /// Starts it with the Corefile `text`, in which `PORT` is its port. Returns `None` if it
    /// rejects the file.
    pub async fn start(program: &OsStr, directory: &Path, text: &str) -> Option<Self> {
        let path = directory.join("coredns.Corefile");
        for _ in 0..STARTS_MAX {
            let address = free_address().await;
            write(&path, &text.replace("PORT", &address.port().to_string()));
            let log = std::fs::File::create(directory.join("coredns.log")).unwrap();
            let mut command = Command::new(program);
            command.arg("-conf").arg(&path).kill_on_drop(true).stdin(Stdio::null());
            command.stdout(log.try_clone().unwrap()).stderr(log);
            let mut child = command.spawn().unwrap();
            let begin = Instant::now();
            while begin.elapsed() < PATIENCE {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                // A datagram to a port that is not open yet is lost.
                let answer = timeout(STEP, dns::ask_once(address, "warm.example. A")).await;
                if answer.is_ok_and(|answer| answer.status != "TIMEOUT") {
                    return Some(Self { address, _child: child });
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let said = std::fs::read_to_string(directory.join("coredns.log")).unwrap();
            if !said.contains("address already in use") {
                println!("  CoreDNS refuses it: {}", said.lines().last().unwrap_or_default());
                return None;
            }
        }
        None
    }
}

/// Returns an address on loopback that is free for UDP and TCP.
async fn free_address() -> SocketAddr {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        if TcpListener::bind(address).await.is_ok() {
            return address;
        }
    }
}

/// Returns the file with ports, servers, files and the API server of the test. Lines that CoreDNS
/// no longer accepts are removed or rewritten.
async fn adapted(text: &str) -> String {
    let mut lines = String::new();
    // Every block has the same address for a page.
    let mut pages: BTreeMap<String, SocketAddr> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let brace = if words.last() == Some(&"{") { " {" } else { "" };
        let new = match &words[..] {
            ["loop" | "reload", ..] | ["upstream", ..] | ["kubeconfig", ..] => continue,
            ["tls_servername", ..] | ["health_check", ..] | ["import", ..] => continue,
            [name @ ("health" | "ready" | "prometheus"), ..] => {
                if !pages.contains_key(*name) {
                    pages.insert((*name).to_owned(), free_address().await);
                }
                format!("{name} {}{brace}", pages[*name])
            }
            ["forward" | "proxy", from, ..] => format!("forward {from} UPSTREAM{brace}"),
            ["hosts", file, ..] if file.starts_with('/') => format!("hosts HOSTS{brace}"),
            ["kubernetes", ..] => {
                let option = "kubeconfig KUBECONFIG";
                let close = if brace.is_empty() { "\n}" } else { "" };
                format!("{} {{\n{option}{close}", line.trim_end_matches(['{', ' ']))
            }
            [keys @ .., "{"] if !line.starts_with(char::is_whitespace) => {
                let host =
                    |key: &&str| key.rsplit_once(':').map_or(*key, |(host, _)| host).to_owned();
                let keys: Vec<String> = keys.iter().map(|key| host(key) + ":PORT").collect();
                format!("{} {{", keys.join(" "))
            }
            _ => line.to_owned(),
        };
        writeln!(lines, "{new}").unwrap();
    }
    lines
}

/// Returns the cluster domain of the file, or `cluster.local` if it does not set one.
fn domain(corefile: &Corefile) -> String {
    let directives = corefile.blocks.iter().flat_map(|block| &block.directives);
    let mut kubernetes = directives.filter(|it| it.line.name.text == "kubernetes");
    let zone = kubernetes.next().and_then(|it| it.line.arguments.first());
    zone.map_or("cluster.local".to_owned(), |zone| zone.text.trim_end_matches('.').to_owned())
}

/// Returns 200 questions about services, endpoints, pods, addresses, names outside and stub
/// domains.
fn questions(domain: &str) -> Vec<String> {
    let services = [
        "web.shop.svc",
        "db.shop.svc",
        "db-0.db.shop.svc",
        "10-244-0-6.db.shop.svc",
        "_http._tcp.web.shop.svc",
        "_sql._tcp.db.shop.svc",
        "_sql._udp.db.shop.svc",
        "ext.shop.svc",
        "no.shop.svc",
        "web.none.svc",
        "shop.svc",
        "none.svc",
        "svc",
        "kubernetes.default.svc",
        "_https._tcp.kubernetes.default.svc",
        "10-1-2-3.shop.pod",
        "10-244-0-5.shop.pod",
        "10-1-2-3.none.pod",
        "shop.pod",
        "pod",
        "none",
        "a.b.c.web.shop.svc",
    ];
    let mut names: Vec<String> = services.iter().map(|name| format!("{name}.{domain}.")).collect();
    names.push(format!("dns-version.{domain}."));
    let outside = [
        "www.example.org.",
        "alias.example.org.",
        "no.example.org.",
        "host.z1.example.",
        "n1.z1.example.",
        "n2.z2.example.",
        "a.consul.",
        "web.shop.",
        "cluster-local.example.",
    ];
    names.extend(outside.map(str::to_owned));
    let types = ["A", "AAAA", "SRV", "TXT", "CNAME", "MX"];
    let mut questions: Vec<String> = types
        .iter()
        .flat_map(|rtype| names.iter().map(move |name| format!("{name} {rtype}")))
        .collect();
    for address in ["7.96.0.10", "1.0.0.10", "5.0.244.10", "6.0.244.10", "80.2.0.192", "81.2.0.192"]
    {
        questions.push(format!("{address}.in-addr.arpa. PTR"));
    }
    questions.truncate(QUESTIONS);
    questions
}

/// Returns the parts to compare: the code and the records with their TTLs. Each server has its own
/// serials of SOA records, so they are left out.
fn compared(answer: &Answer) -> Compared {
    let records = answer.answers.iter().map(|record| match record.split_once(" IN SOA ") {
        Some((begin, _)) => format!("{begin} IN SOA"),
        None => record.clone(),
    });
    (answer.status.clone(), records.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn coredns_gives_the_same_answers() {
    let (Some(program), Some(assets)) = (std::env::var_os("COREDNS"), real_api::assets()) else {
        println!("skipped: COREDNS names no CoreDNS, or KUBEBUILDER_ASSETS no API server");
        return;
    };
    let api = RealApi::start(&assets).await;
    fill(&api).await;
    let kubeconfig = api.kubeconfig("admin");
    let (mut equal, mut explained_files, mut all, mut asked) = (0, 0, 0, 0);
    let mut differences: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    for path in files::paths() {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let look = Look::new(&path);
        let corefile = look.corefile().unwrap();
        if !plan(corefile, Surroundings::default()).refusals().is_empty() {
            continue;
        }
        println!("{name}");
        let text = adapted(&std::fs::read_to_string(&path).unwrap()).await;
        let directory = TempDir::new().unwrap();
        let own = text.replace(":PORT", ":53");
        let pod = Pod::start_on(Some(&kubeconfig), directory, &own, &[]).await;
        let text = pod.filled(&text);
        let Some(coredns) = Coredns::start(&program, pod.directory.path(), &text).await else {
            pod.end().await;
            continue;
        };
        prepare(&pod, &coredns, &domain(corefile)).await;
        all += 1;
        let (mut is_equal, mut is_explained) = (true, true);
        for question in questions(&domain(corefile)) {
            let (theirs, ours) =
                tokio::join!(dns::ask(coredns.address, &question), dns::ask(pod.dns, &question));
            asked += 1;
            let (theirs, ours) = (compared(&theirs), compared(&ours));
            if theirs == ours {
                continue;
            }
            is_equal = false;
            if let Some(reason) = reason(&question, &theirs, &ours) {
                *explained.entry(reason).or_default() += 1;
            } else {
                is_explained = false;
                let line = format!("{question}: CoreDNS {theirs:?}, ours {ours:?}");
                differences.entry(line).or_default().push(name.clone());
            }
        }
        equal += usize::from(is_equal);
        explained_files += usize::from(is_explained);
        pod.end().await;
    }
    println!("{equal} of {all} files with the same answers to {asked} questions");
    println!("{explained_files} of {all} files with the same answers apart from the kinds below");
    for (reason, answers) in &explained {
        println!("{answers} answers differ: {reason}");
    }
    for (line, files) in &differences {
        println!("{line} in {}", files.join(" "));
    }
    assert!(differences.is_empty(), "{} differences without a reason", differences.len());
}

/// Makes Services of several kinds, as [`super::api_server`] has them.
async fn fill(api: &RealApi) {
    api.create(namespace("shop")).await;
    api.create(
        service("shop", "web").cluster_ip("10.0.96.7").external_ip("192.0.2.7").port("http", 80),
    )
    .await;
    api.create(service("shop", "db").port("sql", 5_432)).await;
    api.create(service("shop", "ext").external_name("www.example.org")).await;
    let slice = endpoint_slice("shop", "db").port("sql", 5_432);
    api.create(slice.host("10.244.0.5", "db-0").ready("10.244.0.6")).await;
}

/// Sets the answers of the upstream, and waits until both serve the cluster.
async fn prepare(pod: &Pod, coredns: &Coredns, domain: &str) {
    let upstream = &pod.upstream;
    for name in ["www.example.org.", "host.z1.example.", "a.consul."] {
        upstream.answer(&format!("{name} A"), &[&format!("{name} 300 A 192.0.2.80")]);
    }
    upstream.answer("www.example.org. AAAA", &["www.example.org. 3 AAAA 2001:db8::80"]);
    let alias =
        ["alias.example.org. 20 CNAME www.example.org.", "www.example.org. 300 A 192.0.2.80"];
    upstream.answer("alias.example.org. A", &alias);
    let reverse = "80.2.0.192.in-addr.arpa.";
    upstream.answer(&format!("{reverse} PTR"), &[&format!("{reverse} 300 PTR www.example.org.")]);
    let begin = Instant::now();
    let question = format!("warm.default.svc.{domain}. TXT");
    for server in [coredns.address, pod.dns] {
        // A server that does not know the cluster yet fails.
        while ["SERVFAIL", "TIMEOUT"].contains(&&*dns::ask(server, &question).await.status) {
            assert!(begin.elapsed() < PATIENCE, "{server} never knows the cluster");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The number of questions for each file.
const QUESTIONS: usize = 200;
/// How often to try another port if a program uses the first.
const STARTS_MAX: usize = 5;
/// How long the first question to a program waits.
const STEP: Duration = Duration::from_secs(1);
