//! A real kube-apiserver with its etcd, from a folder that has both programs: the one that envtest
//! calls `KUBEBUILDER_ASSETS`.
//!
//! It can start the two and write objects. TLS, tokens, RBAC, streamed lists and watches are the
//! real ones. There are no controllers. It is for tests and measurements, so it panics if one of
//! the two fails.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::http::Request;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use crate::objects::Object;

/// Returns the folder that `KUBEBUILDER_ASSETS` names.
pub fn assets() -> Option<PathBuf> {
    std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from)
}

/// etcd and kube-apiserver in a folder that is removed with them. The user `admin` may do
/// everything, and the user `dns` has no rights. Their tokens are their names.
pub struct RealApi {
    folder: tempfile::TempDir,
    ip: Ipv4Addr,
    etcd_client: String,
    /// A client of the user `admin`.
    pub client: Client,
    api_server: Option<Process>,
    _etcd: Process,
}

/// A child that is killed when it is dropped.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl RealApi {
    /// Starts both and waits until the API server is ready. Panics if that takes too long.
    pub async fn start(assets: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| text(&folder.path().join(name));
        std::fs::write(at("tokens.csv"), "admin,admin,1,\"system:masters\"\ndns,dns,2,\"dns\"\n")
            .expect("room for a file");
        let ip = own_address();
        let etcd_client = format!("http://{ip}:{ETCD_PORT}");
        let etcd = run(
            &assets.join("etcd"),
            &[
                ("data-dir", &at("etcd")),
                ("listen-client-urls", &etcd_client),
                ("advertise-client-urls", &etcd_client),
                ("listen-peer-urls", &format!("http://{ip}:0")),
                ("unsafe-no-fsync", "true"),
            ],
            &at("etcd.log"),
        );
        let etcd = Process(etcd);
        let certificate = folder.path().join("certificates/apiserver.crt");
        let api_server = Some(Process(api_server(assets, folder.path(), ip, &etcd_client)));
        let start = Instant::now();
        while !certificate.exists() {
            wait(folder.path(), start, "certificate").await;
        }
        let file = kubeconfig(folder.path(), ip, "admin");
        let file = Kubeconfig::read_from(file).expect("written just now");
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await;
        let client =
            Client::try_from(config.expect("a whole file")).expect("a whole configuration");
        let cluster = Self { folder, ip, etcd_client, client, api_server, _etcd: etcd };
        cluster.is_ready().await;
        cluster
    }

    async fn is_ready(&self) {
        let start = Instant::now();
        let is_ready = || Request::get("/readyz").body(Vec::new()).expect("a request");
        while self.client.request_text(is_ready()).await.is_err() {
            wait(self.folder.path(), start, "ready API server").await;
        }
    }

    /// Kills the API server. etcd keeps running.
    pub fn kill(&mut self) {
        self.api_server = None;
    }

    /// Starts the API server again at the same address.
    pub async fn run_api_server(&mut self, assets: &Path) {
        let api_server = api_server(assets, self.folder.path(), self.ip, &self.etcd_client);
        self.api_server = Some(Process(api_server));
        self.is_ready().await;
    }

    /// Returns the path of a kubeconfig for the user of this name.
    pub fn kubeconfig(&self, user: &str) -> String {
        text(&kubeconfig(self.folder.path(), self.ip, user))
    }

    /// Creates `object`. Panics if the API server rejects it.
    pub async fn create(&self, object: Object) {
        self.try_create(object).await.expect("it is taken");
    }

    /// Creates `object`. Fails if the API server rejects it.
    pub async fn try_create(&self, object: Object) -> Result<String, kube::Error> {
        self.client.request_text(post(&object.collection(), &object.0)).await
    }

    /// Deletes the object with that name. Panics if it cannot be deleted.
    pub async fn delete(&self, object: Object) {
        let name = object.0["metadata"]["name"].as_str().expect("a name");
        let path = format!("{}/{name}", object.collection());
        let request = Request::delete(path).body(Vec::new()).expect("a request");
        self.client.request_text(request).await.expect("it is deleted");
    }

    /// Creates `object` in the collection at `path`. Panics if the API server rejects it.
    pub async fn post(&self, path: &str, object: &serde_json::Value) {
        self.client.request_text(post(path, object)).await.expect("it is taken");
    }
}

fn post(path: &str, object: &serde_json::Value) -> Request<Vec<u8>> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(object.to_string().into_bytes()).expect("a request")
}

fn api_server(assets: &Path, folder: &Path, ip: Ipv4Addr, etcd_client: &str) -> Child {
    let at = |name: &str| text(&folder.join(name));
    let ip = ip.to_string();
    run(
        &assets.join("kube-apiserver"),
        &[
            ("etcd-servers", etcd_client),
            ("cert-dir", &at("certificates")),
            ("advertise-address", &ip),
            ("bind-address", &ip),
            ("secure-port", &API_PORT.to_string()),
            ("service-cluster-ip-range", "10.0.0.0/16"),
            ("service-account-issuer", "https://127.0.0.1"),
            // The server makes this file when it starts, with its certificate.
            ("service-account-key-file", &at("certificates/apiserver.key")),
            ("service-account-signing-key-file", &at("certificates/apiserver.key")),
            ("token-auth-file", &at("tokens.csv")),
            ("authorization-mode", "RBAC"),
            ("disable-admission-plugins", "ServiceAccount"),
        ],
        &at("kube-apiserver.log"),
    )
}

/// Waits a moment. Panics, with the end of the API server's log, if too much time has passed since
/// `start`.
async fn wait(folder: &Path, start: Instant, what: &str) {
    let log = std::fs::read_to_string(folder.join("kube-apiserver.log")).expect("its log");
    let end: Vec<&str> = log.lines().rev().take(20).collect();
    let late = start.elapsed() > START_MAX;
    assert!(!late, "no {what}; the log ends, last line first, with {end:#?}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Writes a kubeconfig with the bearer token of `user`, which trusts the server's own certificate.
fn kubeconfig(folder: &Path, ip: Ipv4Addr, user: &str) -> PathBuf {
    let path = folder.join(format!("{user}.kubeconfig"));
    let server = format!("https://{ip}:{API_PORT}");
    // `certificate-authority` may be relative to the file.
    let cluster = json!({"server": server, "certificate-authority": "certificates/apiserver.crt"});
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": user}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    std::fs::write(&path, text.to_string()).expect("room for a file");
    path
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary folders have plain names").to_owned()
}

pub(crate) fn run(program: &Path, flags: &[(&str, &str)], log: &str) -> Child {
    let log = std::fs::File::create(log).expect("room for a file");
    let flags = flags.iter().map(|(name, value)| format!("--{name}={value}"));
    let mut command = Command::new(program);
    command
        .args(flags)
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log)
        .stdin(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("cannot start {program:?}: {error}"))
}

/// Returns an address of loopback for one pair of the two, whose ports must be set before they
/// start. No other program listens at this address, and [`ETCD_PORT`] and [`API_PORT`] are below
/// the range from which the system chooses ports for sockets of all addresses.
pub(crate) fn own_address() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let [.., p1, p0] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 + COUNT.fetch_add(1, Relaxed) % 100, p1, p0.max(1))
}

const ETCD_PORT: u16 = 2_379;
const API_PORT: u16 = 6_443;
/// Long enough for an API server on a busy machine.
pub const START_MAX: Duration = Duration::from_secs(60);
