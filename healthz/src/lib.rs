//! healthz probes the programs of the pod over DNS, and serves the results over HTTP.
//!
//! ```text
//! timer ─▶ probe ─▶ status ◀─ http ◀── kubelet, scrapers, people
//!          edge     core      edge
//!            └▶ question      └▶ report, page (core: status as text, JSON, HTML)
//! kubedns, dnscache ─▶ keeper: copies of their listening sockets while they restart
//! timer ─▶ scrape ─▶ view, history ◀─ page
//!          edge      core
//! check: gather ─▶ facts ─▶ judge ─▶ report
//! ```
//!
//! * Three failed probes in a row make a healthy program unhealthy, one answer makes it healthy:
//!   one lost packet is not an outage, and a pod that starts is not ill. `status` has the rule.
//! * A probe judges the answer: it needs a record of the name and type. `question` has the rule.
//! * `/livez/LABEL` fails only if a program sends no reply at all, whatever those it asks do.
//! * A probe that hangs is a failed probe; a prober that hangs is reported as such.
//! * `/livez` is healthz's own life, `/healthz` is the pod's: they fail for different reasons.
//! * Kept sockets are never read: `keeper` gives them to the program that starts next.
//! * No lock: the status travels through a watch channel.

pub mod ask;
pub mod check;
mod config;
mod explain;
mod figures;
mod history;
mod http;
mod keeper;
mod metrics;
mod page;
mod probe;
mod question;
mod report;
mod scrape;
mod sidecar;
mod status;
mod view;
mod web;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::addresses::Addresses;
use shared::clock::boot_time;
use shared::config_dir;
use shared::shutdown::{TaskError, Tasks};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use keeper::Keeper;
use sidecar::{Compat, Sidecar};

pub use config::{Config, ConfigError, Pace, Probe, ProbeError, RecordType, Transport};
pub use keeper::OpenError;
use scrape::Programs;
use view::View;

pub use status::{Failure, Outcome, State, Status};

/// Why healthz could not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The flags contradict each other.
    #[error("wrong flags")]
    Config(#[from] ConfigError),
    /// The HTTP address cannot be had.
    #[error("cannot start")]
    Http(#[from] shared::http::BindError),
    /// The Unix socket for kept sockets cannot be had.
    #[error("cannot start")]
    Keeper(#[from] OpenError),
    /// The file for the addresses cannot be written.
    #[error(transparent)]
    Addresses(#[from] shared::addresses::WriteError),
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signal(#[source] std::io::Error),
    /// A task ended.
    #[error("ended early")]
    Task(#[from] TaskError),
}

/// All addresses are bound. No probe was sent yet.
#[derive(Debug)]
pub struct Program {
    config: Config,
    listener: shared::http::Listener,
    directory: (watch::Receiver<config_dir::State>, config_dir::Follower),
    keeper: Option<Keeper>,
}

impl Program {
    /// Binds the HTTP address and reads the configuration directory.
    ///
    /// Fails when a label is used twice and when the address is taken or not ours.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        config.check()?;
        let listener = shared::http::bind(config.http_listen).await?;
        let path = config.keep_sockets.as_deref();
        let keeper = path.map(|path| Keeper::open(path, config.keep_sockets_for)).transpose()?;
        let directory = config_dir::open(config.config_dir.as_deref());
        Ok(Self { config, listener, directory, keeper })
    }

    /// Where HTTP is served; port 0 has become a real one.
    pub fn http_address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Probes and serves until `stop` resolves.
    ///
    /// Fails when a task ends by itself.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { config, listener, directory: (directory, follower), keeper } = self;
        let status = Status::new(config.probes.clone(), config.pace.start_max, boot_time());
        let (sender, status) = watch::channel(status);
        let (mut registry, metrics) = metrics::new(status.clone(), directory.clone());
        if let Some(keeper) = &keeper {
            metrics::register_keeper(&mut registry, keeper.counts());
        }
        let view = watch::Sender::new(View::default());
        let programs = Programs { dnscache: config.dnscache_http, kubedns: config.kubedns_http };
        let shown = http::Shown {
            status: status.clone(),
            view: view.subscribe(),
            inspectors: config.inspect_allow.into(),
            programs,
        };
        let compat = config.metrics_compat.map(|Compat::KubeDns| Sidecar::new(&config.probes));
        let (compat_registry, sidecar) = compat.unzip();
        let registries = std::iter::once(registry).chain(compat_registry).collect();
        let router = http::router(shown, directory, registries);
        tracing::info!(http = %listener.address(), probes = config.probes.len(), "probing");
        let addresses = Addresses { dns: Vec::new(), http: listener.address() };
        addresses.write(config.addresses_file.as_deref())?;

        let mut tasks = Tasks::new();
        if let Some(sidecar) = &sidecar {
            let polling = sidecar.clone().poll(config.probes.clone(), tasks.stopping());
            tasks.spawn("sidecar", polling);
        }
        let recorder = Recorder { status: Arc::new(sender), metrics, sidecar };
        for (index, probe) in config.probes.into_iter().enumerate() {
            let recorder = recorder.clone();
            let stopping = tasks.stopping();
            tasks.spawn("probe", follow(probe, index, config.pace, recorder, stopping));
        }
        tasks.spawn("scrape", scrape::follow(programs, view, tasks.stopping()));
        tasks.spawn("http", shared::http::serve(listener, router, tasks.stopping()));
        if let Some(keeper) = keeper {
            tasks.spawn("keep-sockets", keeper.run(tasks.stopping()));
        }
        tasks.spawn("config-dir", follower.run(tasks.stopping()));
        Ok(tasks.run(stop, DRAIN_MAX).await?)
    }
}

/// Binds and runs in one go.
///
/// Fails as [`Program::bind`] and [`Program::run`] do.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), Error> {
    Program::bind(config).await?.run(stop).await
}

/// Where outcomes go.
#[derive(Clone, Debug)]
struct Recorder {
    status: Arc<watch::Sender<Status>>,
    metrics: metrics::Metrics,
    sidecar: Option<Sidecar>,
}

impl Recorder {
    fn record(&self, probe: &Probe, index: usize, outcome: Outcome) {
        self.metrics.record(&probe.label, &outcome);
        if let Some(sidecar) = &self.sidecar {
            sidecar.record(&probe.label, &outcome);
        }
        let failure = outcome.result.as_ref().err().map(ToString::to_string);
        let mut turned = None;
        self.status.send_modify(|status| turned = status.record(index, outcome, boot_time()));
        let label = probe.label.as_str();
        match (turned, failure) {
            (Some(State::Unhealthy), Some(reason)) => tracing::warn!(label, reason, "unhealthy"),
            (Some(_), _) => tracing::info!(label, server = %probe.server, "healthy"),
            (None, Some(reason)) => tracing::debug!(label, reason, "probe failed"),
            (None, None) => {}
        }
    }
}

/// Probes at the probe's interval, sooner after a failure, until `stopping`.
async fn follow(
    probe: Probe,
    index: usize,
    pace: Pace,
    recorder: Recorder,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    let mut retry = pace.start;
    loop {
        let outcome = tokio::select! {
            outcome = probe::ask(&probe, pace) => outcome,
            () = stopping.cancelled() => return Ok(()),
        };
        let pause = if outcome.result.is_ok() {
            retry = pace.retry;
            probe.interval.saturating_sub(outcome.latency)
        } else {
            let pause = probe.interval.min(retry);
            retry = (retry * 2).min(pace.retry);
            pause
        };
        recorder.record(&probe, index, outcome);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => return Ok(()),
        }
    }
}

/// How long the HTTP requests under way may take at the end.
const DRAIN_MAX: Duration = Duration::from_secs(3);
