//! kubedns against a real kube-apiserver and etcd, if `KUBEBUILDER_ASSETS` names a folder with both
//! (the convention of envtest). Otherwise the tests print that they were skipped.
//!
//! The tests use objects and answers. `tests::real_api` starts the two programs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::http::Request;
use serde_json::json;

use crate::fixture::http;
use crate::fixture::kubedns::start;
use tests::objects::{
    endpoint_slice, imported_slice, namespace, service, service_cidr, service_import,
};
use tests::real_api::{self, RealApi, START_MAX};

/// Returns the folder with both programs. Prints that the test is skipped if the folder is not set.
fn assets() -> Option<PathBuf> {
    let assets = real_api::assets();
    if assets.is_none() {
        println!("skipped: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver");
    }
    assets
}

#[tokio::test]
async fn answers_follow_a_real_api_server() {
    let Some(assets) = assets() else { return };
    let cluster = RealApi::start(&assets).await;
    let kubedns = start(&["--kubeconfig", &cluster.kubeconfig("dns")]).await;
    let said = "must grant verbs [list, watch] on resources [services] in apiGroups [";
    http::eventually(kubedns.http, "/readyz", 503, said).await;
    allow_dns(&cluster).await;
    http::wait(kubedns.http, "/readyz", 200, "ok", START_MAX).await;
    let address = cluster_ip(&cluster, "default", "kubernetes").await;
    let answer = format!("kubernetes.default.svc.cluster.local. 30 IN A {address}");
    kubedns.answers("kubernetes.default.svc.cluster.local. A", "NOERROR", &[&answer]).await;

    let db = "db.shop.svc.cluster.local. A";
    kubedns.answers(db, "NXDOMAIN", &[]).await;
    cluster.create(namespace("shop")).await;
    cluster.create(service("shop", "db").port("pg", 5432)).await;
    cluster.create(endpoint_slice("shop", "db").host("10.1.0.1", "db-0").port("pg", 5432)).await;
    let answer = "db.shop.svc.cluster.local. 30 IN A 10.1.0.1";
    kubedns.answers(db, "NOERROR", &[answer]).await;
    let srv = "_pg._tcp.db.shop.svc.cluster.local. 30 IN SRV 0 100 5432 \
        db-0.db.shop.svc.cluster.local.";
    kubedns.answers("_pg._tcp.db.shop.svc.cluster.local. SRV", "NOERROR", &[srv]).await;
    cluster.delete(service("shop", "db")).await;
    kubedns.answers(db, "NXDOMAIN", &[]).await;
    kubedns.end().await;
}

/// A real server creates the ServiceCIDR of its own range.
#[tokio::test]
async fn the_range_of_services_is_that_of_a_real_api_server() {
    let Some(assets) = assets() else { return };
    let cluster = RealApi::start(&assets).await;
    allow_dns(&cluster).await;
    let kubedns = start(&["--kubeconfig", &cluster.kubeconfig("dns")]).await;
    let office = "2.1.50.10.in-addr.arpa. PTR";
    kubedns.answers(office, "REFUSED", &[]).await;
    kubedns.answers("99.99.0.10.in-addr.arpa. PTR", "NXDOMAIN", &[]).await;
    cluster.create(service_cidr("office", &["10.50.0.0/16"])).await;
    kubedns.answers(office, "NXDOMAIN", &[]).await;
    kubedns.end().await;
}

/// The definition of a resource is created after kubedns asked for it. If it is removed, its
/// objects are too.
#[tokio::test]
async fn imports_open_with_a_real_definition() {
    let Some(assets) = assets() else { return };
    let cluster = RealApi::start(&assets).await;
    cluster.create(namespace("shop")).await;
    let slice = imported_slice("shop", "db", "eu.prod").host("10.3.0.1", "db-0");
    cluster.create(slice.port("pg", 5432)).await;
    let kubeconfig = cluster.kubeconfig("admin");
    let flags = ["--kubeconfig", &kubeconfig, "--clusterset-domain", "clusterset.local"];
    let kubedns = start(&flags).await;
    http::wait(kubedns.http, "/readyz", 200, "ok", START_MAX).await;
    let db = "db.shop.svc.clusterset.local. A";
    kubedns.answers(db, "NXDOMAIN", &[]).await;
    cluster.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition()).await;
    let start = Instant::now();
    while cluster.try_create(service_import("shop", "db")).await.is_err() {
        assert!(start.elapsed() < START_MAX, "the definition is never served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answer = "db.shop.svc.clusterset.local. 30 IN A 10.3.0.1";
    kubedns.answers(db, "NOERROR", &[answer]).await;
    let host = "db-0.eu.prod.db.shop.svc.clusterset.local.";
    let answer = format!("{host} 30 IN A 10.3.0.1");
    kubedns.answers(&format!("{host} A"), "NOERROR", &[&answer]).await;
    cluster.delete(service_import("shop", "db")).await;
    kubedns.answers(db, "NXDOMAIN", &[]).await;
    kubedns.end().await;
}

/// kubedns keeps answering if the API server is killed, and applies later changes once it is back.
#[tokio::test]
async fn a_real_api_server_may_be_killed() {
    let Some(assets) = assets() else { return };
    let mut cluster = RealApi::start(&assets).await;
    let web = |last: u8| service("default", "web").cluster_ip(&format!("10.0.0.{last}"));
    cluster.create(web(70).port("http", 80)).await;
    let kubedns = start(&["--kubeconfig", &cluster.kubeconfig("admin")]).await;
    http::wait(kubedns.http, "/readyz", 200, "ok", START_MAX).await;
    let question = "web.default.svc.cluster.local. A";
    let answer = |last: u8| format!("web.default.svc.cluster.local. 30 IN A 10.0.0.{last}");
    kubedns.answers(question, "NOERROR", &[&answer(70)]).await;
    for last in [71, 72] {
        cluster.kill();
        kubedns.answers(question, "NOERROR", &[&answer(last - 1)]).await;
        http::wait(kubedns.http, "/readyz?verbose", 200, "services", START_MAX).await;
        cluster.run_api_server(&assets).await;
        cluster.delete(web(last - 1)).await;
        cluster.create(web(last).port("http", 80)).await;
        kubedns.answers(question, "NOERROR", &[&answer(last)]).await;
    }
    kubedns.end().await;
}

/// Returns the definition of `serviceimports` of `multicluster.x-k8s.io/v1beta1`, reduced to what
/// the tests need.
fn definition() -> serde_json::Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = json!({
        "name": "v1beta1",
        "served": true,
        "storage": true,
        "schema": {"openAPIV3Schema": schema},
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "serviceimports.multicluster.x-k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://example.com/a-test"},
        },
        "spec": {
            "group": "multicluster.x-k8s.io",
            "scope": "Namespaced",
            "names": {"kind": "ServiceImport", "plural": "serviceimports"},
            "versions": [version],
        },
    })
}

/// Allows the user `dns` to read only what kubedns needs.
async fn allow_dns(cluster: &RealApi) {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    let (verbs, slices) = (json!(["list", "watch"]), "discovery.k8s.io");
    let role = json!({
        "metadata": {"name": "dns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": verbs},
            {"apiGroups": [slices], "resources": ["endpointslices"], "verbs": verbs},
            {"apiGroups": ["networking.k8s.io"], "resources": ["servicecidrs"], "verbs": verbs},
        ],
    });
    cluster.post(&format!("{RBAC}/clusterroles"), &role).await;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "metadata": {"name": "dns"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "dns"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "dns"}],
    });
    cluster.post(&format!("{RBAC}/clusterrolebindings"), &binding).await;
}

async fn cluster_ip(cluster: &RealApi, namespace: &str, name: &str) -> String {
    let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
    let request = Request::get(path).body(Vec::new()).unwrap();
    let service: serde_json::Value = cluster.client.request(request).await.unwrap();
    service["spec"]["clusterIP"].as_str().unwrap().to_owned()
}
