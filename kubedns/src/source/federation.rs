//! Federations of the configuration: sent when they change. Nodes, which have the locality of the
//! cluster and the addresses of Pods, are watched while either is needed.
//!
//! Edge. Knows the configuration directory and the watch; does not know what a federation is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use shared::clock::boot_time;
use shared::config_dir;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

use crate::project::Kind;
use crate::source::update::{Scope, Sink, Update, send};
use crate::source::watch::cluster::Cluster;
use crate::source::watch::progress::Progress;
use crate::source::watch::{self, Options};

/// Returns the current federations of `config`.
pub fn domains(config: &Receiver<config_dir::State>) -> BTreeMap<String, String> {
    config.borrow().keys.federations.clone()
}

/// How Nodes are watched.
#[derive(Clone)]
pub struct Nodes {
    /// The API server.
    pub cluster: Arc<Cluster>,
    /// The options of the watch.
    pub options: Options,
    /// Whether the ranges of Pods are read from them. For these alone, kubedns can run without
    /// Nodes.
    pub ranges: bool,
}

/// What Nodes are watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Nothing,
    Ranges,
    Federations,
}

/// Sends every change of the federations until `stopping`. Follows `nodes`, if there is a cluster,
/// while they are needed.
///
/// Readiness does not wait for them. Without Nodes a federated name is answered with an error that
/// names what is missing, and without ranges every private address is the cluster's.
pub async fn follow(
    mut config: Receiver<config_dir::State>,
    nodes: Option<Nodes>,
    sink: Sink,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    let mut said = BTreeMap::new();
    let mut watched_for = Use::Nothing;
    let mut watching: Option<Watching> = None;
    loop {
        config.mark_unchanged();
        let domains = domains(&config);
        let wanted_for = match &nodes {
            Some(_) if !domains.is_empty() => Use::Federations,
            Some(nodes) if nodes.ranges => Use::Ranges,
            _ => Use::Nothing,
        };
        if wanted_for != watched_for {
            watching = match (&nodes, wanted_for) {
                (Some(nodes), Use::Ranges | Use::Federations) => {
                    let optional = wanted_for == Use::Ranges;
                    Some(nodes.watch(optional, sink.clone(), stopping.clone()))
                }
                _ => None,
            };
            watched_for = wanted_for;
        }
        if domains != said {
            said.clone_from(&domains);
            if send(&sink, Update::Federations(domains)).await.is_err() {
                break;
            }
        }
        let watch = async {
            match watching.as_mut() {
                Some(watching) => watching.await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = config.changed() => if changed.is_err() { break },
            _ends_when_stopping = watch => break,
            () = stopping.cancelled() => break,
        }
    }
    stopping.cancelled().await;
    Ok(())
}

impl Nodes {
    /// Starts a watch with a full list. `optional` means that kubedns can run without Nodes if it
    /// is not allowed to read them.
    fn watch(&self, optional: bool, sink: Sink, stopping: CancellationToken) -> Watching {
        let scope = Scope::all(Kind::Node);
        let progress = Arc::new(Progress::of_objects(&scope, boot_time()));
        let options = Options { optional, ..self.options.clone() };
        let cluster = Arc::clone(&self.cluster);
        Box::pin(watch::follow(cluster, vec![(scope, progress)], options, sink, stopping))
    }
}

/// A watch that does not end.
type Watching = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;
