//! The API server of a scale run: the fake one, or a real one if its programs are available.
//!
//! Edge. It creates the objects. It must not depend on the clients that watch them.

use std::path::{Path, PathBuf};

use ::tests::api_server::ApiServer;
use ::tests::objects::Object;
use ::tests::real_api::RealApi;
use futures_util::StreamExt;
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

use super::cluster::Cluster;
use super::{Flags, Lists};

/// A running API server.
pub enum Api {
    /// The fake server and a kubeconfig for it.
    Fake(ApiServer, NamedTempFile),
    /// kube-apiserver with etcd and no controllers.
    Real(Box<RealApi>),
}

impl Api {
    /// Starts the server that `flags` select, and writes `cluster` to it. Panics if a real server
    /// does not start or rejects an object.
    pub fn start(runtime: &Runtime, flags: &Flags, cluster: Cluster) -> Self {
        if let Some(assets) = &flags.assets {
            return runtime.block_on(real(assets, cluster));
        }
        let api = runtime.block_on(ApiServer::start());
        if flags.lists == Lists::Paged {
            api.does_not_stream();
        }
        for object in cluster.objects() {
            api.apply(object);
        }
        let kubeconfig = api.kubeconfig(None);
        Self::Fake(api, kubeconfig)
    }

    /// Returns the path of a kubeconfig for this server.
    pub fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Fake(_, file) => file.path().to_owned(),
            Self::Real(api) => api.kubeconfig("admin").into(),
        }
    }

    /// Returns the fake server, whose history a test can remove, and which applies changes at once.
    /// Returns `None` for a real one.
    pub fn fake(&self) -> Option<&ApiServer> {
        match self {
            Self::Fake(api, _) => Some(api),
            Self::Real(_) => None,
        }
    }
}

async fn real(assets: &Path, cluster: Cluster) -> Api {
    let api = RealApi::start(assets).await;
    let mut objects = cluster.objects().peekable();
    while let Some(namespace) = objects.next_if(|object| object.0["kind"] == "Namespace") {
        api.create(namespace).await;
    }
    let writes = objects.map(|object| api.create(without_address(object)));
    let mut writes = futures_util::stream::iter(writes).buffer_unordered(WRITES);
    while writes.next().await.is_some() {}
    drop(writes);
    Api::Real(Box::new(api))
}

/// Returns `object` as a client writes it. The API server assigns addresses to Services.
fn without_address(mut object: Object) -> Object {
    let spec = &mut object.0["spec"];
    if spec["clusterIP"].as_str().is_some_and(|address| address != "None") {
        spec["clusterIP"] = serde_json::Value::Null;
        spec["clusterIPs"] = serde_json::Value::Null;
    }
    object
}

/// The number of objects that are written at the same time.
const WRITES: usize = 32;
