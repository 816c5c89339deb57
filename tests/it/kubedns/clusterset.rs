//! Multi-Cluster Services through the API server: a resource in two versions, which may not exist
//! yet, and the zone that is served once it does.

use super::{shop, watching};
use crate::fixture::dns::{self, eventually};
use crate::fixture::http;
use tests::api_server::{ApiServer, Fault};
use tests::objects::{endpoint_slice, imported_slice, namespace, service, service_import};

const FLAGS: [&str; 2] = ["--clusterset-domain", "clusterset.local"];
const PAY: &str = "pay.shop.svc.clusterset.local. A";

/// Starts an API server with a ServiceImport of each type in namespace shop.
async fn clusterset() -> ApiServer {
    let api = shop().await;
    api.apply(service_import("shop", "pay").clusterset_ip("10.42.0.1").port("https", 443));
    api.apply(service_import("shop", "db"));
    api.apply(imported_slice("shop", "db", "cluster-a").host("10.3.0.1", "db-0").port("pg", 5432));
    api
}

#[tokio::test]
async fn imports_are_answered_and_follow_their_objects() {
    let api = clusterset().await;
    let kubedns = watching(&api, &FLAGS).await;
    let pay = ["pay.shop.svc.clusterset.local. 30 IN A 10.42.0.1"];
    eventually(kubedns.dns, PAY, "NOERROR", &pay).await;
    let target = "_pg._tcp.db.shop.svc.clusterset.local. 30 IN SRV 0 100 5432 \
        db-0.cluster-a.db.shop.svc.clusterset.local.";
    kubedns.answers("_pg._tcp.db.shop.svc.clusterset.local. SRV", "NOERROR", &[target]).await;
    kubedns.answers("pay.shop.svc.cluster.local. A", "NXDOMAIN", &[]).await;
    assert!(api.requests().iter().any(|request| {
        request.starts_with("/apis/multicluster.x-k8s.io/v1beta1/serviceimports?")
    }));

    api.apply(service_import("shop", "pay").clusterset_ip("10.42.0.2").port("https", 443));
    let pay = ["pay.shop.svc.clusterset.local. 30 IN A 10.42.0.2"];
    eventually(kubedns.dns, PAY, "NOERROR", &pay).await;
    api.delete(service_import("shop", "pay"));
    eventually(kubedns.dns, PAY, "NXDOMAIN", &[]).await;
    let db = "db.shop.svc.clusterset.local. A";
    kubedns.answers(db, "NOERROR", &["db.shop.svc.clusterset.local. 30 IN A 10.3.0.1"]).await;
    api.delete(imported_slice("shop", "db", "cluster-a"));
    eventually(kubedns.dns, db, "NXDOMAIN", &[]).await;
    kubedns.end().await;
}

#[tokio::test]
async fn without_the_flag_nobody_asks_for_imports() {
    let api = clusterset().await;
    let kubedns = watching(&api, &[]).await;
    eventually(kubedns.dns, "pay.shop.svc.cluster.local. A", "NXDOMAIN", &[]).await;
    assert_eq!(dns::ask(kubedns.dns, PAY).await.status, "REFUSED");
    assert!(api.requests().iter().all(|request| !request.contains("serviceimports")));
    kubedns.end().await;
}

#[tokio::test]
async fn a_missing_definition_is_no_error_and_the_zone_opens_when_it_comes() {
    let api = clusterset().await;
    api.fails("serviceimports", Fault::Refuse(404, None));
    let kubedns = watching(&api, &FLAGS).await;
    http::eventually(kubedns.http, "/readyz", 200, "ok").await;
    let version = "dns-version.clusterset.local. 30 IN TXT 1.0.0";
    eventually(kubedns.dns, "dns-version.clusterset.local. TXT", "NOERROR", &[version]).await;
    eventually(kubedns.dns, PAY, "NXDOMAIN", &[]).await;
    let metrics = http::get(kubedns.http, "/metrics").await.1;
    let ok = "kubedns_watch_ok{kind=\"serviceimports\",namespace=\"\"} 1\n";
    assert!(metrics.contains(ok), "{metrics}");
    for version in ["v1beta1", "v1alpha1"] {
        let path = format!("/apis/multicluster.x-k8s.io/{version}/serviceimports?");
        api.hears(0, &[&path]).await;
    }

    // The resource is added, only in the older version.
    api.fails("serviceimports", Fault::Lacks("v1beta1"));
    let pay = ["pay.shop.svc.clusterset.local. 30 IN A 10.42.0.1"];
    eventually(kubedns.dns, PAY, "NOERROR", &pay).await;
    // The resource is removed with all objects.
    api.fails("serviceimports", Fault::Refuse(404, None));
    api.cut("serviceimports");
    eventually(kubedns.dns, PAY, "NXDOMAIN", &[]).await;
    let web = "web.shop.svc.cluster.local. 30 IN A 10.0.0.7";
    eventually(kubedns.dns, super::WEB, "NOERROR", &[web]).await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_refusal_keeps_its_zone_closed_and_the_other_open() {
    let api = clusterset().await;
    api.fails("serviceimports", Fault::Refuse(403, None));
    let kubedns = watching(&api, &FLAGS).await;
    let web = "web.shop.svc.cluster.local. 30 IN A 10.0.0.7";
    eventually(kubedns.dns, super::WEB, "NOERROR", &[web]).await;
    let answer = dns::ask(kubedns.dns, PAY).await;
    assert_eq!(answer.status, "SERVFAIL", "{answer:?}");
    let rule = "resources [serviceimports] in apiGroups [\"multicluster.x-k8s.io\"]";
    http::eventually(kubedns.http, "/readyz?verbose", 503, rule).await;
    api.heals("serviceimports");
    let pay = ["pay.shop.svc.clusterset.local. 30 IN A 10.42.0.1"];
    eventually(kubedns.dns, PAY, "NOERROR", &pay).await;
    http::eventually(kubedns.http, "/readyz", 200, "ok").await;
    kubedns.end().await;
}

#[tokio::test]
async fn one_namespace_is_watched_where_one_is_exposed() {
    let api = clusterset().await;
    api.apply(namespace("other"));
    api.apply(service_import("other", "pay").clusterset_ip("10.42.0.9"));
    let kubedns = watching(&api, &[FLAGS[0], FLAGS[1], "--namespace", "shop"]).await;
    let pay = ["pay.shop.svc.clusterset.local. 30 IN A 10.42.0.1"];
    eventually(kubedns.dns, PAY, "NOERROR", &pay).await;
    eventually(kubedns.dns, "pay.other.svc.clusterset.local. A", "NXDOMAIN", &[]).await;
    let path = "/apis/multicluster.x-k8s.io/v1beta1/namespaces/shop/serviceimports?";
    api.hears(0, &[path]).await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_slice_may_belong_to_a_service_and_to_an_import() {
    let api = clusterset().await;
    api.apply(service("shop", "derived"));
    let both = endpoint_slice("shop", "derived")
        .host("10.3.0.9", "db-9")
        .label("multicluster.kubernetes.io/service-name", "db")
        .label("multicluster.kubernetes.io/source-cluster", "cluster-b");
    api.apply(both);
    let kubedns = watching(&api, &FLAGS).await;
    let derived = "db-9.derived.shop.svc.cluster.local. A";
    let here = "db-9.derived.shop.svc.cluster.local. 30 IN A 10.3.0.9";
    eventually(kubedns.dns, derived, "NOERROR", &[here]).await;
    let imported = "db-9.cluster-b.db.shop.svc.clusterset.local. A";
    let there = "db-9.cluster-b.db.shop.svc.clusterset.local. 30 IN A 10.3.0.9";
    eventually(kubedns.dns, imported, "NOERROR", &[there]).await;
    api.apply(endpoint_slice("shop", "derived").host("10.3.0.9", "db-9"));
    eventually(kubedns.dns, imported, "NXDOMAIN", &[]).await;
    kubedns.answers(derived, "NOERROR", &[here]).await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_snapshot_holds_both_zones_or_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    let flags = [&FLAGS[..], &["--snapshot", file.to_str().unwrap()]].concat();
    let mut api = clusterset().await;
    api.fails("serviceimports", Fault::Refuse(403, None));
    let kubedns = watching(&api, &flags).await;
    let web = "web.shop.svc.cluster.local. 30 IN A 10.0.0.7";
    eventually(kubedns.dns, super::WEB, "NOERROR", &[web]).await;
    kubedns.end().await;
    assert!(!file.exists(), "what was imported is not known");

    api.heals("serviceimports");
    let kubedns = watching(&api, &flags).await;
    http::eventually(kubedns.http, "/readyz", 200, "ok").await;
    kubedns.end().await;
    api.kill().await;
    let kubedns = watching(&api, &flags).await;
    let answer = dns::ask(kubedns.dns, PAY).await; // the first query
    assert_eq!(answer.answers, ["pay.shop.svc.clusterset.local. 30 IN A 10.42.0.1"]);
    assert_eq!(answer.error.unwrap().0, STALE);
    // One zone is up to date before the other.
    api.delete(service_import("shop", "pay"));
    api.fails("serviceimports", Fault::Refuse(500, None));
    api.apply(service("shop", "new").cluster_ip("10.0.0.8"));
    api.listen().await;
    let new = "new.shop.svc.cluster.local. 30 IN A 10.0.0.8";
    eventually(kubedns.dns, "new.shop.svc.cluster.local. A", "NOERROR", &[new]).await;
    assert_eq!(dns::ask(kubedns.dns, super::WEB).await.error, None);
    let answer = dns::ask(kubedns.dns, PAY).await;
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(answer.error.unwrap().0, STALE);
    api.heals("serviceimports");
    eventually(kubedns.dns, PAY, "NXDOMAIN", &[]).await;
    kubedns.end().await;
}

/// Stale Answer (RFC 8914).
const STALE: u16 = 3;
