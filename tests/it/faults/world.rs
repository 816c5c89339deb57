//! A small cluster in which all is well: an API server, kubedns, dnscache, an upstream, the files
//! of a machine, and the flags with which `healthz check` looks at them.
//!
//! Knows the programs' flags; does not know what a check makes of them.

use std::collections::BTreeMap;
use std::fs::{create_dir_all, write};
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::routing::get;
use healthz::check::{Options, Report};
use serde_json::json;
use tempfile::TempDir;
use tests::api_server::ApiServer;
use tests::objects::{Object, endpoint_slice, namespace, pod, service};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::fixture::dnscache::{FAR, Running, server};
use crate::fixture::http;
use crate::fixture::kubedns::{self, Kubedns};
use crate::fixture::upstream::Upstream;

/// A cluster, and how it is looked at.
pub struct World {
    pub api: ApiServer,
    pub kubedns: Kubedns,
    pub dnscache: Running,
    pub upstream: Upstream,
    pub files: TempDir,
    flags: BTreeMap<&'static str, Vec<String>>,
}

impl World {
    /// All is well.
    pub async fn healthy() -> Self {
        let api = cluster().await;
        let upstream = Upstream::start(FAR).await;
        answers(&upstream);
        let kubeconfig = api.kubeconfig(None);
        let path = kubeconfig.path().to_str().unwrap().to_owned();
        let kubedns = kubedns::start(&["--kubeconfig", &path]).await;
        let dnscache = cache(&kubedns, &[&upstream], &[]).await;
        let files = TempDir::new().unwrap();
        let mut world = Self { api, kubedns, dnscache, upstream, files, flags: BTreeMap::new() };
        world.settle().await;
        world
    }

    async fn settle(&mut self) {
        http::eventually(self.dnscache.http, "/readyz", 200, "ok").await;
        http::eventually(self.dnscache.http, "/metrics", 200, "change_streams_up 1").await;
        let dir = self.files.path().to_str().unwrap().to_owned();
        self.file("proc/net/snmp", "Udp: InDatagrams RcvbufErrors\nUdp: 10 7\n");
        self.file("proc/net/netstat", "TcpExt: ListenOverflows\nTcpExt: 0\n");
        self.file("proc/sys/net/netfilter/nf_conntrack_count", "200\n");
        self.file("proc/sys/net/netfilter/nf_conntrack_max", "262144\n");
        self.file("proc/net/stat/nf_conntrack", "insert_failed drop\n00000003 00000000\n");
        let route = format!(
            "{0} 00 {0} 00 fe8000000000000000000000000001 400 0 0 3 eth0\n",
            "0".repeat(32)
        );
        self.file("proc/net/ipv6_route", &route);
        self.file("sys/fs/cgroup/cpu.stat", "nr_periods 100\nnr_throttled 0\n");
        self.resolv(
            "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local \
                     cluster.local\noptions ndots:5\n",
        );
        let kubedns = (self.kubedns.dns.to_string(), self.kubedns.http.to_string());
        let (dns, pages) = (self.dnscache.dns.to_string(), self.dnscache.http.to_string());
        for (flag, value) in [
            ("--server", dns.clone()),
            ("--replica", dns),
            ("--dnscache", pages),
            ("--kubedns", kubedns.1),
            ("--kubedns-dns", kubedns.0),
            ("--api", format!("http://{}", self.api.address)),
            ("--resolv-file", format!("{dir}/etc/resolv.conf")),
            ("--root", dir),
            ("--large", "big.example,TXT".to_owned()),
            ("--namespace", "shop".to_owned()),
        ] {
            self.set(flag, [value]);
        }
    }

    /// Sets a flag of the check; without values it has its default.
    pub fn set<T: ToString>(&mut self, flag: &'static str, values: impl IntoIterator<Item = T>) {
        self.flags.insert(flag, values.into_iter().map(|value| value.to_string()).collect());
    }

    /// Looks at another dnscache.
    pub fn look_at(&mut self, dnscache: Running) {
        self.set("--server", [dnscache.dns]);
        self.set("--dnscache", [dnscache.http]);
        self.dnscache = dnscache;
    }

    /// Writes a file of the machine.
    pub fn file(&self, path: &str, text: &str) -> PathBuf {
        let file = self.files.path().join(path);
        create_dir_all(file.parent().unwrap()).unwrap();
        write(&file, text).unwrap();
        file
    }

    /// Writes the settings of the resolver.
    pub fn resolv(&self, text: &str) {
        self.file("etc/resolv.conf", text);
    }

    /// Looks from a pod of the cluster that is not the DNS's: no program answers on its loopback.
    pub fn leave_the_pod(&mut self) {
        self.set("--dnscache", ["127.0.0.1:1"]);
        self.set("--kubedns", ["127.0.0.1:1"]);
        let upstream = self.upstream.address;
        self.set("--upstream", [upstream]);
    }

    /// The flags as they are.
    pub fn options(&self) -> Options {
        let flags = self.flags.iter().flat_map(|(flag, values)| {
            values.iter().flat_map(move |value| [(*flag).to_owned(), value.clone()])
        });
        shared::flags::parse_from(std::iter::once("check".to_owned()).chain(flags)).unwrap()
    }

    /// Looks.
    pub async fn check(&self) -> Report {
        healthz::check::run(&self.options()).await
    }
}

/// dnscache before `kubedns`, with these upstreams.
pub async fn cache(kubedns: &Kubedns, upstreams: &[&Upstream], flags: &[String]) -> Running {
    let near = format!("{}#{}", kubedns.dns.ip(), kubedns.dns.port());
    let domains = ["cluster.local", "in-addr.arpa", "ip6.arpa"];
    let mut all: Vec<String> =
        domains.iter().map(|domain| format!("--server=/{domain}/{near}")).collect();
    all.push(format!("--changes=http://{}/changes", kubedns.http));
    all.extend(upstreams.iter().map(|upstream| server(upstream)));
    all.extend(flags.iter().cloned());
    Running::start(&all).await
}

/// What an upstream has that is in order.
pub fn answers(upstream: &Upstream) {
    let strings = vec!["x".repeat(200); 8].join(" ");
    for (question, record) in [
        ("example.com. A", "example.com. 30 A 192.0.2.80"),
        ("example.com. AAAA", "example.com. 30 AAAA 2001:db8::80"),
        ("smtp.example.net. A", "smtp.example.net. 30 A 192.0.2.25"),
        ("big.example. TXT", &format!("big.example. 30 TXT {strings}")),
    ] {
        upstream.answer(question, &[record]);
    }
}

/// The objects of a cluster in which all is well.
pub async fn cluster() -> ApiServer {
    let api = ApiServer::start().await;
    for name in ["default", "kube-system", "shop", "payments"] {
        api.apply(namespace(name));
    }
    api.apply(service("default", "kubernetes").cluster_ip("10.96.0.1").port("https", 443));
    api.apply(dns_service("10.96.0.10"));
    api.apply(endpoint_slice("kube-system", "kube-dns").ready("10.244.1.7").ready("10.244.2.9"));
    for (name, address) in [("kube-dns-1", "10.244.1.7"), ("kube-dns-2", "10.244.2.9")] {
        api.apply(dns_pod(name, address, true));
    }
    api.apply(selecting(service("shop", "web").cluster_ip("10.96.12.10").port("http", 80)));
    api.apply(endpoint_slice("shop", "web").port("http", 80).ready("10.244.1.20"));
    api.apply(selecting(service("payments", "ledger").port("sql", 5432)));
    api.apply(endpoint_slice("payments", "ledger").port("sql", 5432).host("10.244.1.70", "l-0"));
    api.apply(service("shop", "mail").external_name("smtp.example.net"));
    api
}

/// The Service of the DNS.
pub fn dns_service(address: &str) -> Object {
    let mut object = service("kube-system", "kube-dns").cluster_ip(address);
    object.0["spec"]["selector"] = json!({"k8s-app": "kube-dns"});
    object.0["spec"]["ports"] = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]);
    object
}

/// A Pod of the DNS.
pub fn dns_pod(name: &str, address: &str, is_ready: bool) -> Object {
    let mut object = pod("kube-system", name, address).label("k8s-app", "kube-dns");
    let status = if is_ready { "True" } else { "False" };
    object.0["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
    object
}

/// With a selector.
pub fn selecting(mut object: Object) -> Object {
    object.0["spec"]["selector"] = json!({"app": "it"});
    object
}

/// The HTTP pages of a program as a script has them.
pub struct Pages {
    pub address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves these texts as `/readyz` and `/metrics`; `/livez` is well.
pub async fn pages(ready: &str, metrics: &str) -> Pages {
    let (ready, metrics) = (ready.to_owned(), metrics.to_owned());
    let router = Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(async move || ready))
        .route("/metrics", get(async move || metrics));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Pages { address, task: task.abort_handle() }
}
