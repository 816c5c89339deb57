//! kubedns as a whole: if objects change, answers change, even if the API server or files fail
//! meanwhile.
//!
//! The tests use its flags, its answers and its pages. They must not depend on how it watches or
//! stores records.

mod clusterset;
mod federation;
mod files;
mod pages;
mod ranges;
mod real;
mod snapshot;
mod transfer;
mod trouble;

use crate::fixture::dns::{self, eventually};
use crate::fixture::http;
use crate::fixture::kubedns::{Kubedns, start};
use tests::api_server::ApiServer;
use tests::objects::{endpoint_slice, namespace, pod, service};

const WEB: &str = "web.shop.svc.cluster.local. A";
const DB: &str = "db.shop.svc.cluster.local. A";

/// Starts an API server with the Service shop/web at 10.0.0.7.
async fn shop() -> ApiServer {
    let api = ApiServer::start().await;
    api.apply(namespace("shop"));
    api.apply(service("shop", "web").cluster_ip("10.0.0.7").port("http", 80));
    api
}

/// Starts a kubedns that watches `api`.
async fn watching(api: &ApiServer, flags: &[&str]) -> Kubedns {
    let kubeconfig = api.kubeconfig(None);
    let path = kubeconfig.path().to_str().unwrap().to_owned();
    let mut all = vec!["--kubeconfig", &path];
    all.extend(flags);
    start(&all).await
}

/// Asks for shop/web repeatedly. Until [`Steady::held`], every answer must be 10.0.0.7.
struct Steady {
    stop: tokio::sync::oneshot::Sender<()>,
    asking: tokio::task::JoinHandle<usize>,
}

impl Steady {
    fn start(server: std::net::SocketAddr) -> Self {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let asking = tokio::spawn(async move {
            let mut asked = 0;
            while stopped.try_recv().is_err() {
                let answer = dns::ask(server, WEB).await;
                assert_eq!(
                    answer.answers,
                    ["web.shop.svc.cluster.local. 30 IN A 10.0.0.7"],
                    "{answer:?}"
                );
                asked += 1;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            asked
        });
        Self { stop, asking }
    }

    async fn held(self) {
        let _ = self.stop.send(()); // the receiver is gone if the task has panicked
        assert!(self.asking.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn answers_change_with_the_objects() {
    let api = shop().await;
    let kubedns = watching(&api, &[]).await;
    kubedns.answers(WEB, "NOERROR", &["web.shop.svc.cluster.local. 30 IN A 10.0.0.7"]).await;
    kubedns.answers(DB, "NXDOMAIN", &[]).await;
    assert!(api.requests().iter().all(|request| request.contains("sendInitialEvents=true")));

    api.apply(service("shop", "db").port("pg", 5432));
    api.apply(endpoint_slice("shop", "db").host("10.1.0.1", "db-0").port("pg", 5432));
    kubedns.answers(DB, "NOERROR", &["db.shop.svc.cluster.local. 30 IN A 10.1.0.1"]).await;
    let srv = "_pg._tcp.db.shop.svc.cluster.local. SRV";
    let target = "_pg._tcp.db.shop.svc.cluster.local. 30 IN SRV 0 100 5432 \
        db-0.db.shop.svc.cluster.local.";
    kubedns.answers(srv, "NOERROR", &[target]).await;
    api.apply(endpoint_slice("shop", "db").host("10.1.0.1", "db-0").host("10.1.0.2", "db-1"));
    let both = [
        "db.shop.svc.cluster.local. 30 IN A 10.1.0.1",
        "db.shop.svc.cluster.local. 30 IN A 10.1.0.2",
    ];
    kubedns.answers(DB, "NOERROR", &both).await;
    api.apply(service("shop", "web").cluster_ip("10.0.0.8"));
    kubedns.answers(WEB, "NOERROR", &["web.shop.svc.cluster.local. 30 IN A 10.0.0.8"]).await;
    api.apply(service("shop", "web").external_name("web.example.org"));
    let alias = "web.shop.svc.cluster.local. 30 IN CNAME web.example.org.";
    kubedns.answers(WEB, "NOERROR", &[alias]).await;
    api.delete(service("shop", "db"));
    kubedns.answers(DB, "NXDOMAIN", &[]).await;
    kubedns.answers("shop.svc.cluster.local. A", "NODATA", &[]).await;
    api.delete(service("shop", "web"));
    api.delete(namespace("shop"));
    kubedns.answers("shop.svc.cluster.local. A", "NXDOMAIN", &[]).await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_read_in_pages() {
    let api = shop().await;
    api.does_not_stream();
    for number in 0..1_100 {
        api.apply(service("many", &format!("s{number}")).cluster_ip("10.2.0.1"));
    }
    let kubedns = watching(&api, &[]).await;
    let last = "s1099.many.svc.cluster.local. A";
    let answer = "s1099.many.svc.cluster.local. 30 IN A 10.2.0.1";
    eventually(kubedns.dns, last, "NOERROR", &[answer]).await;
    let pages = api.requests().iter().filter(|request| request.contains("continue=")).count();
    assert_eq!(pages, 2);
    api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
    let answer = "db.shop.svc.cluster.local. 30 IN A 10.0.0.9";
    eventually(kubedns.dns, DB, "NOERROR", &[answer]).await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_restricted_watch_asks_for_nothing_else() {
    let api = shop().await;
    api.apply(namespace("other"));
    api.apply(service("other", "web").cluster_ip("10.0.1.7").label("app", "web"));
    api.apply(endpoint_slice("other", "web").ready("10.1.1.7"));
    api.apply(service("shop", "db").cluster_ip("10.0.0.9").label("app", "db"));
    let flags = ["--namespace", "shop", "--service-selector", "app=db"];
    let kubedns = watching(&api, &flags).await;
    let answer = "db.shop.svc.cluster.local. 30 IN A 10.0.0.9";
    eventually(kubedns.dns, DB, "NOERROR", &[answer]).await;
    let answer = dns::ask(kubedns.dns, WEB).await;
    assert_eq!(answer.status, "NXDOMAIN");
    for question in ["other.svc.cluster.local. A", "web.other.svc.cluster.local. A"] {
        assert_eq!(dns::ask(kubedns.dns, question).await.status, "NXDOMAIN", "{question}");
    }
    for question in ["7.1.0.10.in-addr.arpa. PTR", "7.1.1.10.in-addr.arpa. PTR"] {
        let answer = dns::ask(kubedns.dns, question).await;
        assert_eq!(answer.status, "NXDOMAIN", "{question}");
        assert!(answer.authorities[0].starts_with("in-addr.arpa. 30 IN SOA "), "{answer:?}");
    }
    let mut requests = api.requests();
    // The objects that set the cluster's addresses are not in a namespace.
    requests.retain(|path| !path.contains("/servicecidrs?") && !path.contains("/nodes?"));
    let has = |path: &str, part: &str| {
        requests.iter().any(|request| request.starts_with(path) && request.contains(part))
    };
    assert!(has("/api/v1/namespaces/shop/services?", "labelSelector=app%3Ddb"), "{requests:#?}");
    assert!(has("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?", ""));
    assert!(has("/api/v1/namespaces?", "fieldSelector=metadata.name%3Dshop"));
    assert_eq!(requests.len(), 3, "{requests:#?}");
    kubedns.end().await;
}

#[tokio::test]
async fn pods_are_watched_only_to_be_verified() {
    let api = shop().await;
    api.apply(pod("shop", "web-0", "10.3.0.1"));
    let insecure = watching(&api, &[]).await;
    let real = "10-3-0-1.shop.pod.cluster.local. A";
    let made_up = "10-3-0-2.shop.pod.cluster.local. A";
    let answer = "10-3-0-2.shop.pod.cluster.local. 30 IN A 10.3.0.2";
    eventually(insecure.dns, made_up, "NOERROR", &[answer]).await;
    assert!(api.requests().iter().all(|request| !request.contains("/pods")));
    insecure.end().await;
    let verified = watching(&api, &["--pods", "verified"]).await;
    let answer = "10-3-0-1.shop.pod.cluster.local. 30 IN A 10.3.0.1";
    eventually(verified.dns, real, "NOERROR", &[answer]).await;
    eventually(verified.dns, made_up, "NXDOMAIN", &[]).await;
    api.delete(pod("shop", "web-0", "10.3.0.1"));
    eventually(verified.dns, real, "NXDOMAIN", &[]).await;
    verified.end().await;
}

/// CoreDNS's `endpoints_test.go`: a pod's name is the label, unless it has more than 63 characters.
#[tokio::test]
async fn endpoints_may_be_named_by_their_pods() {
    let slice = |pods: [&str; 2]| {
        let target = |name: &str| serde_json::json!({"kind": "Pod", "name": name});
        let endpoint = |(address, name): (&str, &str)| {
            let mut endpoint = serde_json::json!({"addresses": [address]});
            endpoint["targetRef"] = target(name);
            endpoint
        };
        let mut slice = endpoint_slice("shop", "db").port("pg", 5432).host("10.1.0.3", "db-0");
        let endpoints = slice.0["endpoints"].as_array_mut().unwrap();
        endpoints[0]["targetRef"] = target("db-pod-0");
        endpoints.extend(["10.1.0.1", "10.1.0.2"].into_iter().zip(pods).map(endpoint));
        slice
    };
    let long = "p".repeat(64);
    let api = shop().await;
    api.apply(service("shop", "db"));
    api.apply(slice(["db-6f9c-x2b4k", &long]));
    let kubedns = watching(&api, &["--endpoint-pod-names"]).await;
    let db = "db.shop.svc.cluster.local.";
    let record = |label: &str| format!("{db} 30 IN SRV 0 100 5432 {label}.{db}");
    let srv = "db.shop.svc.cluster.local. SRV";
    let all = ["10-1-0-2", "db-0", "db-6f9c-x2b4k"].map(record);
    let answer = eventually(kubedns.dns, srv, "NOERROR", &all.each_ref().map(String::as_str)).await;
    let address = |(label, address): (&str, &str)| format!("{label}.{db} 30 IN A {address}");
    let addresses = [("10-1-0-2", "10.1.0.2"), ("db-0", "10.1.0.3"), ("db-6f9c-x2b4k", "10.1.0.1")];
    assert_eq!(answer.additionals, addresses.map(address));
    for (question, answer) in [
        ("db-6f9c-x2b4k.db.shop.svc.cluster.local. A", "A 10.1.0.1"),
        ("1.0.1.10.in-addr.arpa. PTR", "PTR db-6f9c-x2b4k.db.shop.svc.cluster.local."),
        ("2.0.1.10.in-addr.arpa. PTR", "PTR 10-1-0-2.db.shop.svc.cluster.local."),
        ("3.0.1.10.in-addr.arpa. PTR", "PTR db-0.db.shop.svc.cluster.local."),
    ] {
        let owner = question.split(' ').next().unwrap();
        let answer = format!("{owner} 30 IN {answer}");
        eventually(kubedns.dns, question, "NOERROR", &[&answer]).await;
    }
    eventually(kubedns.dns, "10-1-0-1.db.shop.svc.cluster.local. A", "NXDOMAIN", &[]).await;
    // another pod at the same address; a name of several labels is not a label
    api.apply(slice(["db-6f9c-zzzzz", "a.b"]));
    let all = ["10-1-0-2", "db-0", "db-6f9c-zzzzz"].map(record);
    eventually(kubedns.dns, srv, "NOERROR", &all.each_ref().map(String::as_str)).await;
    kubedns.end().await;

    // from files, and off
    let directory = tempfile::tempdir().unwrap();
    let yaml = [service("shop", "db"), slice(["db-a", "db-b"])].map(|o| o.yaml());
    std::fs::write(directory.path().join("db.yaml"), yaml.concat()).unwrap();
    let path = directory.path().to_str().unwrap();
    let named = start(&["--objects", path, "--endpoint-pod-names"]).await;
    let all = ["db-0", "db-a", "db-b"].map(record);
    eventually(named.dns, srv, "NOERROR", &all.each_ref().map(String::as_str)).await;
    named.end().await;
    let plain = start(&["--objects", path]).await;
    let all = ["10-1-0-1", "10-1-0-2", "db-0"].map(record);
    eventually(plain.dns, srv, "NOERROR", &all.each_ref().map(String::as_str)).await;
    plain.end().await;
}

#[tokio::test]
async fn an_object_out_of_order_costs_itself_alone() {
    let api = shop().await;
    let mut odd = service("shop", "odd").cluster_ip("10.0.0.300");
    api.apply(odd.clone());
    let kubedns = watching(&api, &[]).await;
    let answer = "web.shop.svc.cluster.local. 30 IN A 10.0.0.7";
    eventually(kubedns.dns, WEB, "NOERROR", &[answer]).await;
    http::eventually(
        kubedns.http,
        "/metrics",
        200,
        "kubedns_rejected_objects{kind=\"services\"} 1\n",
    )
    .await;
    let question = "odd.shop.svc.cluster.local. A";
    eventually(kubedns.dns, question, "NXDOMAIN", &[]).await;
    odd.0["spec"] = serde_json::json!("unreadable");
    api.apply(odd);
    api.apply(service("shop", "odd").cluster_ip("10.0.0.30"));
    let answer = "odd.shop.svc.cluster.local. 30 IN A 10.0.0.30";
    eventually(kubedns.dns, question, "NOERROR", &[answer]).await;
    http::eventually(
        kubedns.http,
        "/metrics",
        200,
        "kubedns_rejected_objects{kind=\"services\"} 0\n",
    )
    .await;
    kubedns.end().await;
}
