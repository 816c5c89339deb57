//! The HTTP side of kubedns: health, metrics, explanations, and the stream of changed names.
//!
//! Edge. Reads the state of other parts; does not know how records are made or answered.

pub mod changes;
mod coredns;
mod explain;
mod metrics;
mod places;
mod serve;
mod skydns;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use shared::clock::Moment;
use shared::clock::{boot_time, unix_ms};
use shared::config_dir;
use shared::corefile;
use shared::http::standard;
use shared::metrics::coredns::Compat;
use shared::ready::{Check, Ready};
use shared::serve::{Counters, Overflow};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::publish;
use crate::snapshot;
use crate::source::files;
use crate::source::watch::progress::{Phase, Progress};
use crate::store::Reader;

pub use metrics::registries;
pub use serve::{Error, serve};

/// The state that the pages show.
#[derive(Clone, Debug)]
pub struct View {
    /// The counters of the DNS threads.
    pub counters: Arc<Counters>,
    /// The counter of packets that the kernel dropped.
    pub overflow: Overflow,
    /// The kinds that have not been listed yet.
    pub ready: Ready,
    /// The records.
    pub reader: Reader,
    /// The state of each watch; empty with objects from files.
    pub watches: Vec<Arc<Progress>>,
    /// The state of the files, if objects are read from files.
    pub objects: Option<watch::Receiver<files::State>>,
    /// The state of the snapshot, if `--snapshot` is set.
    pub snapshot: Option<watch::Receiver<snapshot::State>>,
    /// The counters of the publisher.
    pub counts: Arc<publish::Counts>,
    /// The server whose metric names are exposed next to ours.
    pub compat: Option<Compat>,
    /// The state of the configuration directory.
    pub config: watch::Receiver<config_dir::State>,
    /// The state of the Corefile.
    pub corefile: watch::Receiver<corefile::State>,
    /// Cancelled once the program must stop.
    pub leaving: CancellationToken,
    /// What readers of `/changes` read from.
    pub streams: changes::Streams,
}

/// Every page of kubedns.
pub fn router(view: View) -> Router {
    let registries = registries(&view);
    let explain = explain::router(view.reader.clone());
    let streams = view.streams.clone();
    let (live, ready) = (view.clone(), view);
    standard(move || live.live(boot_time()), move || ready.ready(boot_time()), registries)
        .merge(explain)
        .merge(Router::new().route("/changes", get(changes::follow)).with_state(streams))
}

impl View {
    /// Alive while every serving thread makes progress.
    fn live(&self, now: Moment) -> Vec<Check> {
        vec![if self.counters.is_stalled(now) {
            Check::failed("dns-threads", "a serving thread hangs")
        } else {
            Check::passed("dns-threads")
        }]
    }

    /// Ready once everything has been listed, and from then on: kubedns keeps answering with the
    /// records that it has, and the check shows how old they are.
    fn ready(&self, now: Moment) -> Vec<Check> {
        let is_watched = |name: &str| self.watches.iter().any(|watch| watch.kind == name);
        let mut checks = self.ready.checks();
        checks.retain(|check| !is_watched(&check.name));
        let blockers = self.ready.blockers();
        checks.extend(self.watches.iter().map(|watch| check(watch, &blockers, now)));
        checks.extend(self.objects.as_ref().map(|state| state.borrow().check()));
        let stale = self.reader.records().is_stale();
        checks.extend(self.snapshot.as_ref().map(|state| state.borrow().check(stale, unix_ms())));
        checks.push(self.config.borrow().check());
        checks.extend(self.corefile.borrow().check());
        checks.extend(Check::shutdown(&self.leaving));
        checks
    }
}

fn check(watch: &Progress, blockers: &[&str], now: Moment) -> Check {
    let name = match &watch.namespace {
        Some(namespace) => format!("{} of {namespace}", watch.kind),
        None => watch.kind.to_owned(),
    };
    let is_listed = !blockers.contains(&watch.kind);
    match (watch.phase(), is_listed) {
        (Phase::Failing { reason, .. }, false) => Check::failed(name, &*reason),
        (Phase::Failing { reason, .. }, true) => {
            let secs = watch.age(now).as_secs();
            Check::warning(name, format!("{secs} s old: {reason}"))
        }
        (_, false) => Check::failed(name, "not listed yet"),
        (_, true) => Check::passed(name),
    }
}
