//! kubedns against a real kube-apiserver and etcd, where `KUBEBUILDER_ASSETS` names a folder with
//! both (the convention of envtest); else the test says that it was skipped.
//!
//! Knows how to start the two and to write objects; TLS, tokens, RBAC, streamed lists and watches
//! are the real ones.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::http::Request;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use crate::fixture::http;
use crate::fixture::kubedns::start;
use tests::objects::{Object, endpoint_slice, imported_slice, namespace, service, service_import};

/// The folder with both; says that the test is skipped where there is none.
fn assets() -> Option<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    if assets.is_none() {
        println!("skipped: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver");
    }
    assets
}

#[tokio::test]
async fn answers_follow_a_real_api_server() {
    let Some(assets) = assets() else { return };
    let cluster = Cluster::start(&assets).await;
    let kubedns = start(&["--kubeconfig", &cluster.kubeconfig("dns")]).await;
    let said = "must grant verbs [list, watch] on resources [services] in apiGroups [";
    http::eventually(kubedns.http, "/readyz", 503, said).await;
    cluster.allow_dns().await;
    http::wait(kubedns.http, "/readyz", 200, "ok", START_MAX).await;
    let address = cluster.cluster_ip("default", "kubernetes").await;
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

/// The definition of a resource comes after kubedns asked for it, and objects go with it.
#[tokio::test]
async fn imports_open_with_a_real_definition() {
    let Some(assets) = assets() else { return };
    let cluster = Cluster::start(&assets).await;
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

/// What was known is answered while the API server is dead; what changed meanwhile follows.
#[tokio::test]
async fn a_real_api_server_may_be_killed() {
    let Some(assets) = assets() else { return };
    let mut cluster = Cluster::start(&assets).await;
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

/// `serviceimports` of `multicluster.x-k8s.io/v1beta1`, as far as a test needs it.
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

/// etcd and kube-apiserver in a folder that ends with them.
struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    etcd_client: String,
    client: Client,
    api_server: Option<Process>,
    _etcd: Process,
}

/// A child that is killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Cluster {
    /// Starts both and waits until the API server is ready. Panics where it never is.
    async fn start(assets: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("tokens.csv"), "admin,admin,1,\"system:masters\"\ndns,dns,2,\"dns\"\n")
            .unwrap();
        let [client, port] = free_ports();
        let etcd_client = format!("http://127.0.0.1:{client}");
        let etcd = run(
            &assets.join("etcd"),
            &[
                ("data-dir", &at("etcd")),
                ("listen-client-urls", &etcd_client),
                ("advertise-client-urls", &etcd_client),
                ("listen-peer-urls", "http://127.0.0.1:0"),
                ("unsafe-no-fsync", "true"),
            ],
            &at("etcd.log"),
        );
        let etcd = Process(etcd);
        let certificate = folder.path().join("certificates/apiserver.crt");
        let api_server = Some(Process(api_server(assets, folder.path(), port, &etcd_client)));
        let start = Instant::now();
        while !certificate.exists() {
            wait(folder.path(), start, "certificate").await;
        }
        let file = kubeconfig(folder.path(), port, "admin");
        let file = Kubeconfig::read_from(file).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let cluster = Self { folder, port, etcd_client, client, api_server, _etcd: etcd };
        cluster.is_ready().await;
        cluster
    }

    async fn is_ready(&self) {
        let start = Instant::now();
        let is_ready = || Request::get("/readyz").body(Vec::new()).unwrap();
        while self.client.request_text(is_ready()).await.is_err() {
            wait(self.folder.path(), start, "ready API server").await;
        }
    }

    /// Kills the API server; etcd goes on.
    fn kill(&mut self) {
        self.api_server = None;
    }

    /// Starts it again, where it was.
    async fn run_api_server(&mut self, assets: &Path) {
        let api_server = api_server(assets, self.folder.path(), self.port, &self.etcd_client);
        self.api_server = Some(Process(api_server));
        self.is_ready().await;
    }

    /// A kubeconfig for the user of this name.
    fn kubeconfig(&self, user: &str) -> String {
        kubeconfig(self.folder.path(), self.port, user).to_str().unwrap().to_owned()
    }

    /// Lets the user `dns` see what kubedns needs, and nothing else.
    async fn allow_dns(&self) {
        const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
        let (verbs, slices) = (json!(["list", "watch"]), "discovery.k8s.io");
        let role = json!({
            "metadata": {"name": "dns"},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": verbs},
                {"apiGroups": [slices], "resources": ["endpointslices"], "verbs": verbs},
            ],
        });
        self.post(&format!("{RBAC}/clusterroles"), &role).await;
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "metadata": {"name": "dns"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "dns"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "dns"}],
        });
        self.post(&format!("{RBAC}/clusterrolebindings"), &binding).await;
    }

    async fn cluster_ip(&self, namespace: &str, name: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
        let request = Request::get(path).body(Vec::new()).unwrap();
        let service: serde_json::Value = self.client.request(request).await.unwrap();
        service["spec"]["clusterIP"].as_str().unwrap().to_owned()
    }

    async fn create(&self, object: Object) {
        self.try_create(object).await.unwrap();
    }

    async fn try_create(&self, object: Object) -> Result<String, kube::Error> {
        self.client.request_text(post(&object.collection(), &object.0)).await
    }

    async fn delete(&self, object: Object) {
        let name = object.0["metadata"]["name"].as_str().unwrap();
        let path = format!("{}/{name}", object.collection());
        let request = Request::delete(path).body(Vec::new()).unwrap();
        self.client.request_text(request).await.unwrap();
    }

    async fn post(&self, path: &str, object: &serde_json::Value) {
        self.client.request_text(post(path, object)).await.unwrap();
    }
}

fn post(path: &str, object: &serde_json::Value) -> Request<Vec<u8>> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(object.to_string().into_bytes()).unwrap()
}

fn api_server(assets: &Path, folder: &Path, port: u16, etcd_client: &str) -> Child {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    run(
        &assets.join("kube-apiserver"),
        &[
            ("etcd-servers", etcd_client),
            ("cert-dir", &at("certificates")),
            ("advertise-address", "127.0.0.1"),
            ("bind-address", "127.0.0.1"),
            ("secure-port", &port.to_string()),
            ("service-cluster-ip-range", "10.0.0.0/24"),
            ("service-account-issuer", "https://127.0.0.1"),
            // Made by the server itself when it starts, with its certificate.
            ("service-account-key-file", &at("certificates/apiserver.key")),
            ("service-account-signing-key-file", &at("certificates/apiserver.key")),
            ("token-auth-file", &at("tokens.csv")),
            ("authorization-mode", "RBAC"),
            ("disable-admission-plugins", "ServiceAccount"),
        ],
        &at("kube-apiserver.log"),
    )
}

/// Waits a moment. Panics, with the end of the API server's log, where it took too long since
/// `start`.
async fn wait(folder: &Path, start: Instant, what: &str) {
    let log = std::fs::read_to_string(folder.join("kube-apiserver.log")).unwrap();
    let end: Vec<&str> = log.lines().rev().take(20).collect();
    let late = start.elapsed() > START_MAX;
    assert!(!late, "no {what}; the log ends, last line first, with {end:#?}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Writes a kubeconfig with the bearer token of `user`, and trust in the server's own certificate.
fn kubeconfig(folder: &Path, port: u16, user: &str) -> PathBuf {
    let path = folder.join(format!("{user}.kubeconfig"));
    let server = format!("https://127.0.0.1:{port}");
    // Relative to the file, as `certificate-authority` may be.
    let cluster = json!({"server": server, "certificate-authority": "certificates/apiserver.crt"});
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": user}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    std::fs::write(&path, text.to_string()).unwrap();
    path
}

fn run(program: &Path, flags: &[(&str, &str)], log: &str) -> Child {
    let log = std::fs::File::create(log).unwrap();
    let flags = flags.iter().map(|(name, value)| format!("--{name}={value}"));
    let mut command = Command::new(program);
    command.args(flags).stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("cannot start {program:?}: {error}"))
}

/// Ports that are free now; somebody else may take one until it is used.
fn free_ports<const N: usize>() -> [u16; N] {
    let sockets = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

/// An API server on a busy machine takes its time.
const START_MAX: Duration = Duration::from_secs(60);
