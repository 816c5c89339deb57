//! A real etcd: the program that `ETCD` names, or the one in the folder that envtest calls
//! `KUBEBUILDER_ASSETS`.
//!
//! It starts etcd in a folder that is removed with it, and writes keys through its JSON gateway. It
//! is for tests, demos and measurements, so it panics if etcd fails.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use serde_json::{Value, json};

use crate::real_api::{Process, START_MAX, assets, own_address, run};

/// Returns the program, if there is one.
pub fn program() -> Option<PathBuf> {
    let named = std::env::var_os("ETCD").map(PathBuf::from);
    named.or_else(|| Some(assets()?.join("etcd"))).filter(|path| path.exists())
}

/// A running etcd.
pub struct Etcd {
    folder: tempfile::TempDir,
    /// Its URL, which stays the same if it is started again.
    pub url: String,
    client: Client,
    process: Option<Process>,
}

impl Etcd {
    /// Starts it and waits until it answers. Panics if that takes too long.
    pub async fn start(program: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("http://{}:2379", own_address());
        let config = kube::Config::new(url.parse().expect("a URL"));
        let client = Client::try_from(config).expect("a whole configuration");
        let mut etcd = Self { folder, url, client, process: None };
        etcd.run(program).await;
        etcd
    }

    /// Starts it again, with the data that it had.
    pub async fn run(&mut self, program: &Path) {
        let url = self.url.clone();
        self.run_at(program, &url).await;
    }

    /// Starts it again, but it listens for clients at `url`.
    pub async fn run_at(&mut self, program: &Path, url: &str) {
        let at = |name: &str| self.folder.path().join(name).to_str().expect("a name").to_owned();
        let peers = url.replace(":2379", ":0").replace(":2381", ":0");
        let flags = [
            ("data-dir", &*at("data")),
            ("listen-client-urls", url),
            ("advertise-client-urls", url),
            ("listen-peer-urls", &peers),
            ("unsafe-no-fsync", "true"),
        ];
        self.process = Some(Process(run(program, &flags, &at("etcd.log"))));
        let config = kube::Config::new(url.parse().expect("a URL"));
        self.client = Client::try_from(config).expect("a whole configuration");
        let begin = Instant::now();
        let health = || Request::get("/health").body(Vec::new()).expect("a request");
        while self.client.request_text(health()).await.is_err() {
            let log = std::fs::read_to_string(at("etcd.log")).expect("its log");
            assert!(begin.elapsed() < START_MAX, "etcd does not answer: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Keeps a copy of its data. It must not run.
    pub fn back_up(&self) {
        copy(&self.folder.path().join("data"), &self.folder.path().join("backup"));
    }

    /// Replaces its data by the copy. It must not run.
    pub fn restore(&self) {
        std::fs::remove_dir_all(self.folder.path().join("data")).expect("its data");
        copy(&self.folder.path().join("backup"), &self.folder.path().join("data"));
    }

    /// Sets a key. Returns the revision.
    pub async fn put(&self, key: &str, value: &str) -> u64 {
        self.put_leased(key, value, 0).await
    }

    /// Sets a key that ends with the lease.
    pub async fn put_leased(&self, key: &str, value: &str, lease: i64) -> u64 {
        let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
        let request = json!({"key": key, "value": value, "lease": lease.to_string()});
        revision(&self.call("/v3/kv/put", request).await)
    }

    /// Deletes a key.
    pub async fn delete(&self, key: &str) -> u64 {
        revision(&self.call("/v3/kv/deleterange", json!({"key": STANDARD.encode(key)})).await)
    }

    /// Grants a lease for so many seconds. Returns its number.
    pub async fn grant(&self, secs: u32) -> i64 {
        let granted = self.call("/v3/lease/grant", json!({"TTL": secs.to_string()})).await;
        granted["ID"].as_str().and_then(|text| text.parse().ok()).expect("a number")
    }

    /// Forgets everything before `revision`.
    pub async fn compact(&self, revision: u64) {
        let request = json!({"revision": revision.to_string(), "physical": true});
        self.call("/v3/kv/compaction", request).await;
    }

    /// Calls the gateway. Panics if etcd refuses.
    pub async fn call(&self, path: &str, request: Value) -> Value {
        self.try_call(path, request).await.expect("etcd answers")
    }

    async fn try_call(&self, path: &str, request: Value) -> Result<Value, kube::Error> {
        let request = Request::post(path).body(request.to_string().into_bytes());
        let text = self.client.request_text(request.expect("a request")).await?;
        Ok(serde_json::from_str(&text).expect("JSON"))
    }
}

fn revision(reply: &Value) -> u64 {
    let text = reply["header"]["revision"].as_str();
    text.and_then(|text| text.parse().ok()).expect("a revision")
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("room for a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).expect("room for a file");
        }
    }
}
