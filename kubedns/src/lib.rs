//! Answers DNS for a Kubernetes cluster domain from the objects of the API server, or of a
//! directory of files.
//!
//! ```text
//! API server ─ watch ─┐                                         ┌─▶ serve ◀─ answer ◀─ clients
//!                     ├─ Update ─▶ publish ─▶ store ═ snapshot ═╡
//! files ────── files ─┘  bounded   Writer     │                 └─▶ http: health, metrics
//!      source            channel              └ changed names ─▶ changes ─▶ /changes ─▶ dnscache
//! file ◀── snapshot ◀─ what is shown, now and then; at a start what was shown last ─▶ store
//! ```
//!
//! * `project`, `records`, `answer`, `transfer`, `changes`: core. Objects in, records out; a query
//!   in, a reply out.
//! * `store`: seam. One writer, and readers that never wait. A publication is seen whole or not at
//!   all.
//! * `source`, `snapshot`, `http`: edges. They handle connections, files and clients, and
//!   contain no rule of DNS.
//!
//! Guarantees, whatever happens outside:
//!
//! * Until everything was listed once, every answer is SERVFAIL: a name that is not yet known must
//!   not get NXDOMAIN, and a set of endpoints must not be half complete.
//! * The records of a snapshot are answered in full and marked as stale until everything was
//!   listed.
//! * A later full list is applied as a difference. Objects are removed only after it is complete.
//! * If the API server fails or misbehaves, kubedns keeps answering from the objects that it has.

pub mod answer;
pub mod changes;
pub mod config;
mod corefile;
pub mod explain;
pub mod http;
pub mod name;
pub mod programming;
pub mod project;
pub mod publish;
pub mod records;
pub mod serve;
pub mod skydns;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod transfer;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::addresses::{Addresses, WriteError};
use shared::clock::boot_time;
use shared::ready::Ready;
use shared::serve::{BindError, Opener, Serving, Sockets};
use shared::shutdown::{TaskError, Tasks};
use shared::{config_dir, descriptors, keep};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::project::Kind;
use crate::publish::{KEYS, Publisher, UPDATES_MAX};
use crate::source::files::{self, Objects, ObjectsError};
use crate::source::update::{Scope, Sink};
use crate::source::watch::cluster::{Address, Cluster, ClusterError, Source};
use crate::source::watch::progress::Progress;
use crate::source::{etcd, federation, watch};

pub use config::Config;

/// Serves until `stop` resolves, then drains. Returns early with an error if any task ends by
/// itself.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), Error> {
    Program::bind(config).await?.run(stop).await
}

/// Why the program cannot start, or why it ended before `stop` resolved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime cannot be started.
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// An address for DNS is taken or not ours.
    #[error(transparent)]
    Dns(#[from] BindError),
    /// The address for HTTP is taken or not ours.
    #[error(transparent)]
    Http(#[from] shared::http::BindError),
    /// The file for the addresses cannot be written.
    #[error(transparent)]
    Addresses(#[from] WriteError),
    /// No API server can be found in the configuration.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// etcd cannot be asked.
    #[error(transparent)]
    Etcd(#[from] etcd::EtcdError),
    /// The password of etcd cannot be read.
    #[error(transparent)]
    Password(#[from] config::PasswordError),
    /// The objects cannot be read.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// The DNS listener cannot be started.
    #[error(transparent)]
    Serve(#[from] shared::serve::Error),
    /// A task ended.
    #[error(transparent)]
    Task(#[from] TaskError),
}

/// The program with all sockets bound and all files read, before it serves.
pub struct Program {
    config: Config,
    sockets: Sockets,
    copies: keep::Copies,
    listener: shared::http::Listener,
    objects: Origin,
    etcd: Option<etcd::Etcd>,
}

/// The origin of objects.
enum Origin {
    Cluster(Arc<Cluster>),
    Files(tokio::sync::watch::Receiver<files::State>, Box<Objects>),
    /// There is no cluster: all records are in etcd.
    Nowhere,
}

impl Origin {
    /// Returns the scopes to list for `exposed`.
    fn scopes(&self, exposed: &config::Scope) -> Vec<Scope> {
        match self {
            Self::Cluster(_) => watch::scopes(exposed),
            Self::Files(..) => files::scopes(exposed),
            Self::Nowhere => Vec::new(),
        }
    }
}

impl Program {
    /// Binds the sockets, and reads the files that locate the objects. Does not connect to the API
    /// server.
    ///
    /// Fails if an address is taken or a file cannot be read. An API server that cannot be reached
    /// is not a failure: it may come back.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let keeper = config.listener.keep_sockets.as_deref();
        let (sockets, copies) =
            keep::bind(keeper, "kubedns", &config.listen, config.threads()).await?;
        let listener = shared::http::bind(config.http_listen).await?;
        let objects = if let Some(path) = &config.objects {
            let (state, objects) = files::open(path, config.scope())?;
            Origin::Files(state, Box::new(objects))
        } else if !config.has_cluster() {
            Origin::Nowhere
        } else {
            let source = match (&config.kubeconfig, &config.api_server) {
                (None, None) => Source::InCluster,
                (Some(path), _) => {
                    Source::File { path: path.clone(), context: config.context.clone() }
                }
                (None, Some(url)) => Source::Address(Address {
                    url: url.clone(),
                    certificate: config.api_server_cert.clone(),
                    key: config.api_server_key.clone(),
                    authority: config.api_server_ca.clone(),
                }),
            };
            Origin::Cluster(Arc::new(Cluster::open(source).await?))
        };
        let etcd = match config.etcd.options()? {
            Some(options) => Some(etcd::Etcd::open(options).await?),
            None => None,
        };
        Ok(Self { config, sockets, copies, listener, objects, etcd })
    }

    /// Returns the addresses of DNS, in the order of the flags, with real port numbers for port 0.
    pub fn dns_addresses(&self) -> &[SocketAddr] {
        self.sockets.local_addresses()
    }

    /// Returns the address of HTTP, with a real port number for port 0.
    pub fn http_address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `stop` resolves, then drains. Returns early with an error if any task ends by
    /// itself.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { config, sockets, copies, listener, objects, etcd } = self;
        let mut tasks = Tasks::with_lameduck(config.listener.lameduck);
        let stopping = tasks.stopping();
        let snapshot::Start { mut writer, reader, changes, keeper } =
            snapshot::start(config.snapshot.as_deref(), config.identity(), config.zone());
        let sockets = hold(sockets, &copies, &reader);
        let (dns, http) = (sockets.local_addresses().to_vec(), listener.address());
        let handler = Arc::new(serve::Answers::new(reader.clone(), &config.transfer[..]));
        let (later, transfers) = serve::transfers::new(reader.clone());
        let serving =
            shared::serve::dns(sockets, limits(&config), stopping.clone(), handler, later)?;

        let scopes = objects.scopes(&config.scope());
        let (ready, blockers) =
            shared::ready::new(awaited(&scopes).chain(etcd.as_ref().map(|_| KEYS)));
        let (changes, changes_seen) = tokio::sync::watch::channel(changes);
        let (config_state, config_follower) = config_dir::open(config.config_dir.as_deref());
        writer.set_federations(federation::domains(&config_state));
        writer.set_key_prefix(&config.etcd.etcd_prefix);
        let publisher = Publisher::new(writer, changes, blockers, &scopes);
        let (sink, updates) = mpsc::channel(UPDATES_MAX);
        let (streams, pacer) = http::changes::new(&changes_seen, &ready, config.changes_readers);
        let mut view = http::View {
            counters: Arc::clone(&serving.counters),
            overflow: serving.overflow(),
            ready,
            reader,
            watches: Vec::new(),
            objects: None,
            snapshot: keeper.as_ref().map(snapshot::Keeper::state),
            counts: publisher.counts(),
            compat: config.metrics_compat,
            config: config_state.clone(),
            corefile: corefile::start(&config, &mut tasks),
            leaving: tasks.leaving(),
            streams,
        };
        let nodes = follow_objects(&mut tasks, objects, &config, &mut view, &sink);
        if let Some(etcd) = etcd {
            view.watches.push(follow_keys(&mut tasks, etcd, &sink));
        }
        tasks.spawn("federations", federation::follow(config_state, nodes, sink, stopping.clone()));
        if let Some(keeper) = keeper {
            let (reader, watches) = (view.reader.clone(), view.watches.clone());
            tasks.spawn("snapshot", keeper.run(reader, changes_seen, watches, stopping.clone()));
        }
        spawn_dns(&mut tasks, serving, copies, view.ready.clone());
        tasks.spawn("publish", publisher.run(updates, stopping.clone()));
        tasks.spawn("transfers", transfers.run(stopping.clone()));
        tasks.spawn("config-dir", config_follower.run(stopping.clone()));
        tasks.spawn("http", http::serve(listener, http::router(view), pacer, stopping));
        announce(&config, Addresses { dns, http })?;
        Ok(tasks.run(stop, config.drain).await?)
    }
}

/// Leaves queries in sockets of an earlier run until there are records: they would be answered with
/// SERVFAIL.
fn hold(mut sockets: Sockets, copies: &keep::Copies, reader: &store::Reader) -> Sockets {
    if copies.are_taken_back() && !reader.records().is_complete() {
        sockets.hold();
    }
    sockets
}

/// Opens the listener when everything was listed, or soon after the start.
async fn open(opener: Opener, ready: Ready, stopping: CancellationToken) -> Result<(), Infallible> {
    tokio::select! {
        () = ready.wait() => {}
        () = tokio::time::sleep(HELD_MAX) => {}
        () = stopping.cancelled() => {}
    }
    opener.open();
    stopping.cancelled().await;
    Ok(())
}

/// Adds the tasks of the DNS listener. Two of them outlive the others.
fn spawn_dns(tasks: &mut Tasks, serving: Serving, copies: keep::Copies, ready: Ready) {
    tasks.spawn("opening", open(serving.opener(), ready, tasks.stopping()));
    let ending = tasks.ending();
    tasks.spawn_last("dns", serving.finished_after(async move { ending.cancelled().await }));
    tasks.spawn_last("keep-sockets", copies.run(tasks.stopping(), tasks.ending()));
}

/// Starts to follow the objects. Returns how Nodes are watched, if there is an API server.
fn follow_objects(
    tasks: &mut Tasks,
    objects: Origin,
    config: &Config,
    view: &mut http::View,
    sink: &Sink,
) -> Option<federation::Nodes> {
    match objects {
        Origin::Cluster(cluster) => {
            let watches = progresses(watch::scopes(&config.scope()));
            view.watches = watches.iter().map(|(_, progress)| Arc::clone(progress)).collect();
            Some(watch_cluster(tasks, cluster, config, watches, sink))
        }
        Origin::Files(state, objects) => {
            view.objects = Some(state);
            tasks.spawn("objects", objects.follow(sink.clone(), tasks.stopping()));
            None
        }
        Origin::Nowhere => None,
    }
}

/// Starts to follow the keys of etcd. Returns the state of the watch.
fn follow_keys(tasks: &mut Tasks, etcd: etcd::Etcd, sink: &Sink) -> Arc<Progress> {
    let progress = Arc::new(Progress::new(KEYS, boot_time()));
    let follow = etcd::follow(etcd, Arc::clone(&progress), sink.clone(), tasks.stopping());
    tasks.spawn("etcd", follow);
    progress
}

/// Starts to follow `watches`, and the ServiceCIDRs if they give the cluster's ranges. Readiness
/// does not wait for the latter. Returns how Nodes are watched.
fn watch_cluster(
    tasks: &mut Tasks,
    cluster: Arc<Cluster>,
    config: &Config,
    mut watches: Vec<(Scope, Arc<Progress>)>,
    sink: &Sink,
) -> federation::Nodes {
    let (options, ranges) = (options(config), config.scope().ranges);
    let of_services = Some(Scope::all(Kind::ServiceCidr)).filter(|_| ranges);
    watches.extend(progresses(of_services.into_iter().collect()));
    let nodes =
        federation::Nodes { cluster: Arc::clone(&cluster), options: options.clone(), ranges };
    let follow = watch::follow(cluster, watches, options, sink.clone(), tasks.stopping());
    tasks.spawn("watch", follow);
    nodes
}

/// What clients may take: as many connections as the limit of descriptors allows.
fn limits(config: &Config) -> shared::serve::Limits {
    let mut limits = config.listener.limits();
    let wanted = [limits.connections_max];
    let reserved = DESCRIPTORS_RESERVED + config.changes_readers as usize;
    [limits.connections_max] = descriptors::share(wanted, reserved);
    limits
}

/// Logs where the program listens, and writes it to the file that the flags name.
fn announce(config: &Config, addresses: Addresses) -> Result<(), WriteError> {
    let Addresses { dns, http } = &addresses;
    tracing::info!(?dns, %http, domain = %config.zone().apex(), "serving");
    addresses.write(config.addresses_file.as_deref())
}

/// Returns the kinds that readiness waits for: those that decide which names exist, if they are
/// listed.
fn awaited(scopes: &[Scope]) -> impl Iterator<Item = &'static str> {
    let kinds = Kind::ALL.into_iter().filter(|&kind| scopes.iter().any(|s| s.kind == kind));
    kinds.map(Kind::plural)
}

fn options(config: &Config) -> watch::Options {
    watch::Options {
        namespaces: config.namespace_selector.as_ref().map(ToString::to_string),
        services: config.service_selector.as_ref().map(ToString::to_string),
        pod_names: config.endpoint_pod_names,
        silence_max: config.watch_silence,
        optional: false,
    }
}

fn progresses(scopes: Vec<Scope>) -> Vec<(Scope, Arc<Progress>)> {
    let now = boot_time();
    let progress = |scope: Scope| {
        let progress = Arc::new(Progress::of_objects(&scope, now));
        (scope, progress)
    };
    scopes.into_iter().map(progress).collect()
}

/// How long queries can wait in kept sockets for the first list. Every query is answered within
/// 2 s.
const HELD_MAX: Duration = Duration::from_millis(1_500);
/// Descriptors beside those of clients over TCP and readers of changes: watches, pages and files.
const DESCRIPTORS_RESERVED: usize = 512;
