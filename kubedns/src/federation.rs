//! Federations from configuration: said when they change, and Nodes watched as long as there are
//! any.
//!
//! Edge. Knows the configuration directory and the watch; does not know what a federation is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use shared::config_dir;
use shared::serve::boot_time;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

use crate::news::{News, Scope, Sink, say};
use crate::project::Kind;
use crate::watch::cluster::Cluster;
use crate::watch::progress::Progress;
use crate::watch::{self, Options};

/// The federations that `config` names now.
pub fn domains(config: &Receiver<config_dir::State>) -> BTreeMap<String, String> {
    config.borrow().keys.federations.clone()
}

/// Says every change of the federations, until `stopping`; meanwhile follows the Nodes of
/// `cluster`, where there is one and any federation.
///
/// Readiness does not wait for them: a federated name says itself what it lacks.
pub async fn follow(
    mut config: Receiver<config_dir::State>,
    cluster: Option<(Arc<Cluster>, Options)>,
    sink: Sink,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    let nodes = || -> Option<Watching> {
        let (cluster, options) = cluster.clone()?;
        let progress = Arc::new(Progress::new(Scope::all(Kind::Node), boot_time()));
        let (sink, stopping) = (sink.clone(), stopping.clone());
        Some(Box::pin(watch::follow(cluster, vec![progress], options, sink, stopping)))
    };
    let mut said = BTreeMap::new();
    let mut watching: Option<Watching> = None;
    loop {
        config.mark_unchanged();
        let domains = domains(&config);
        if domains != said {
            watching = match (domains.is_empty(), watching) {
                (true, _) => None,
                (false, None) => nodes(),
                (false, watching) => watching,
            };
            said.clone_from(&domains);
            if say(&sink, News::Federations(domains)).await.is_err() {
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

/// A watch that goes on for ever.
type Watching = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;
