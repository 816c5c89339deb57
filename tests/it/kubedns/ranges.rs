//! The addresses of the cluster, by the API server: ServiceCIDRs and Nodes are added and removed,
//! cannot be read, or are resources that the server does not have.
//!
//! The tests use objects, reverse names and pages. The rules are tables of `conformance/ranges.rs`.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::{WEB, shop, watching};
use crate::fixture::dns;
use crate::fixture::http;
use crate::fixture::kubedns::Kubedns;
use tests::api_server::{ApiServer, Fault};
use tests::objects::{node, service_cidr};

const SERVICE: &str = "8.0.0.10.in-addr.arpa. PTR";
const POD: &str = "9.5.244.10.in-addr.arpa. PTR";
const OFFICE: &str = "2.1.50.10.in-addr.arpa. PTR";

/// Starts an API server whose Services are in 10.0.0.0/16 and Pods in 10.244.5.0/24.
async fn ranged() -> ApiServer {
    let api = shop().await;
    api.apply(service_cidr("kubernetes", &["10.0.0.0/16"]));
    api.apply(node("n1", "z1", "r1").pod_cidrs(&["10.244.5.0/24"]));
    api
}

/// Asks until the names of a Service's, a Pod's and another address have these codes.
async fn answers(kubedns: &Kubedns, statuses: [&str; 3]) {
    for (question, status) in [SERVICE, POD, OFFICE].into_iter().zip(statuses) {
        kubedns.answers(question, status, &[]).await;
    }
}

#[tokio::test]
async fn ranges_follow_service_cidrs_and_nodes() {
    let api = ranged().await;
    let kubedns = watching(&api, &[]).await;
    answers(&kubedns, ["NXDOMAIN", "NXDOMAIN", "REFUSED"]).await;
    api.apply(service_cidr("office", &["10.50.0.0/16"]));
    answers(&kubedns, ["NXDOMAIN", "NXDOMAIN", "NXDOMAIN"]).await;
    api.apply(node("n1", "z1", "r1").pod_cidrs(&["10.244.6.0/24"]));
    answers(&kubedns, ["NXDOMAIN", "REFUSED", "NXDOMAIN"]).await;
    api.delete(service_cidr("office", &[]));
    answers(&kubedns, ["NXDOMAIN", "REFUSED", "REFUSED"]).await;
    let said = http::get(kubedns.http, &format!("/explain?name={}&type=PTR", &OFFICE[..22])).await;
    assert!(said.1.contains("10.0.0.0/16, 10.244.6.0/24"), "{}", said.1);
    let metrics = http::get(kubedns.http, "/metrics").await.1;
    assert!(metrics.contains("kubedns_cluster_ranges{source=\"objects\"} 2\n"), "{metrics}");
    kubedns.end().await;
}

#[tokio::test]
async fn a_server_that_lacks_service_cidrs_leaves_the_rest() {
    // Only in the older version, which Kubernetes 1.31 and 1.32 may serve.
    let api = ranged().await;
    api.fails("servicecidrs", Fault::Lacks("v1"));
    let kubedns = watching(&api, &[]).await;
    answers(&kubedns, ["NXDOMAIN", "NXDOMAIN", "REFUSED"]).await;
    let asked = api.requests();
    let asked = |path: &str| asked.iter().any(|request| request.starts_with(path));
    assert!(asked("/apis/networking.k8s.io/v1/servicecidrs?"));
    assert!(asked("/apis/networking.k8s.io/v1beta1/servicecidrs?"));
    kubedns.end().await;

    // In no version.
    let api = ranged().await;
    api.fails("servicecidrs", Fault::Refuse(404, None));
    let kubedns = watching(&api, &[]).await;
    http::eventually(kubedns.http, "/readyz", 200, "").await;
    answers(&kubedns, ["REFUSED", "NXDOMAIN", "REFUSED"]).await;
    // The API server is upgraded later.
    api.heals("servicecidrs");
    answers(&kubedns, ["NXDOMAIN", "NXDOMAIN", "REFUSED"]).await;
    kubedns.end().await;
}

/// Keeps every event of INFO and above as a line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn about(&self, part: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.contains(part)).cloned().collect()
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(event.metadata().level().to_string());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn what_may_not_be_read_is_done_without() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let denied = Fault::Refuse(403, None);
    let api = ranged().await;
    api.fails("nodes", denied);
    let kubedns = watching(&api, &[]).await;
    http::eventually(kubedns.http, "/readyz", 200, "").await;
    answers(&kubedns, ["NXDOMAIN", "REFUSED", "REFUSED"]).await;
    // kubedns asks again, but logs this only once.
    api.hears(api.requests().len(), &["/nodes"]).await;
    let told = lines.about("watch=nodes");
    let [only] = &told[..] else { panic!("{told:#?}") };
    assert!(only.starts_with("INFO") && only.contains("resources [nodes]"), "{only}");
    // A rule that is added applies.
    api.heals("nodes");
    answers(&kubedns, ["NXDOMAIN", "NXDOMAIN", "REFUSED"]).await;
    // If a rule is removed, the ranges stay.
    api.fails("nodes", denied);
    api.cut("nodes");
    api.hears(api.requests().len(), &["/nodes"]).await;
    answers(&kubedns, ["NXDOMAIN", "NXDOMAIN", "REFUSED"]).await;
    kubedns.end().await;

    // With the role of an older version, all private addresses belong to the cluster.
    let api = ranged().await;
    for plural in ["servicecidrs", "nodes"] {
        api.fails(plural, denied);
    }
    let kubedns = watching(&api, &[]).await;
    let body = http::eventually(kubedns.http, "/readyz?verbose", 200, "").await;
    assert!(!body.contains("[-]") && !body.contains("[!]"), "{body}");
    answers(&kubedns, ["NXDOMAIN"; 3]).await;
    kubedns.answers("8.8.8.8.in-addr.arpa. PTR", "REFUSED", &[]).await;
    kubedns.end().await;
    assert!(lines.about("not allowed").iter().all(|line| !line.starts_with("WARN")));
    let told = lines.about("watch=servicecidrs");
    let [only] = &told[..] else { panic!("{told:#?}") };
    let rule = "resources [servicecidrs] in apiGroups [\"networking.k8s.io\"]";
    assert!(only.starts_with("INFO") && only.contains(rule), "{only}");
}

#[tokio::test]
async fn a_flag_asks_for_neither() {
    let api = ranged().await;
    let kubedns = watching(&api, &["--cluster-cidr", "10.50.0.0/16"]).await;
    kubedns.answers(WEB, "NOERROR", &["web.shop.svc.cluster.local. 30 IN A 10.0.0.7"]).await;
    answers(&kubedns, ["REFUSED", "REFUSED", "NXDOMAIN"]).await;
    let asked = api.requests();
    assert!(
        !asked.iter().any(|path| path.contains("cidrs") || path.contains("nodes")),
        "{asked:?}"
    );
    kubedns.end().await;
}

#[tokio::test]
async fn ranges_outlive_a_process_in_the_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    let flags = ["--snapshot", file.to_str().unwrap()];
    let mut api = ranged().await;
    let kubedns = watching(&api, &flags).await;
    answers(&kubedns, ["NXDOMAIN", "NXDOMAIN", "REFUSED"]).await;
    kubedns.end().await;

    api.kill().await;
    let kubedns = watching(&api, &flags).await;
    for (question, status) in [(SERVICE, "NXDOMAIN"), (POD, "NXDOMAIN"), (OFFICE, "REFUSED")] {
        // The first questions.
        assert_eq!(dns::ask(kubedns.dns, question).await.status, status, "{question}");
    }
    // Ranges that have not been listed again still apply.
    api.fails("servicecidrs", Fault::Silence);
    api.listen().await;
    http::eventually(kubedns.http, "/readyz", 200, "").await;
    answers(&kubedns, ["NXDOMAIN", "NXDOMAIN", "REFUSED"]).await;
    kubedns.end().await;
}
