//! dnscache answers DNS on port 53 from a bounded cache and asks kubedns, a stub domain or an
//! upstream on a miss.
//!
//! ```text
//!              ┌─ hit ──▶ reply                       (no decoding, no allocation, no task)
//! clients ─▶ serve ─▶ handler ─▶ cache                          ┌─▶ kubedns
//!  (edge)    (edge)   (core)     (core) │ miss                  ├─▶ stub domains
//!                 ▲                     └─ Deferred ─▶ forward ─┴─▶ upstreams
//!                 └────────── reply ◀── normalise ◀───  (edge; rules: route, queries)
//!                                       (core)
//! kubedns ─ changed names ─▶ changes ─▶ cache    flags, ConfigMap, resolv.conf ─▶ reload ─▶ routes
//!                            (edge)                                               (edge)
//! ```
//!
//! * A hit is answered on the thread that read it. A miss costs one upstream query for any number
//!   of clients.
//!   clients ask.
//! * Every well-formed query is answered: with a fresh answer, after 1.8 seconds with an expired
//!   one (RFC 8767) if there is one, or with SERVFAIL and the reason.
//!   8767) if there is one, or with SERVFAIL and the reason.
//! * Records of an upstream are never cached under a name that was not asked (`normalise`).
//!   (`normalise`).
//! * If the name or the route of an answer changed while it was under way, the answer is passed on
//!   but not cached (`forward::resolver`).
//!   (`forward::resolver`).
//! * The only locks are those of the shards, held for a copy. Routes are replaced as a whole.

pub mod cache;
mod cache_file;
mod changes;
pub mod chaos;
pub mod config;
mod corefile;
pub mod counters;
pub mod doors;
pub mod extended_error;
pub mod forward;
pub mod handler;
mod http;
pub mod lifetime;
pub mod local;
pub mod normalise;
mod reload;
pub mod route;
pub mod sample;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use shared::addresses::Addresses;
use shared::clock::{boot_time, unix_ms};
use shared::metrics::coredns::Compat;
use shared::ready::Check;
use shared::serve;
use shared::shutdown::{TaskError, Tasks};
use shared::{config_dir, descriptors, keep};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use cache::Cache;
use cache_file::CacheFile;
use counters::Counters;
use forward::Renewer;
use handler::Answers;
use http::Inspect;
use local::keep::Keeper;
use reload::{Live, Sources};
use route::{Reserved, Routes};
use sample::Samples;

pub use config::Config;
pub use corefile::surroundings;
pub use reload::Live as LiveFlags;

/// Why dnscache could not start, or ended without a signal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Binding a DNS address failed.
    #[error("cannot start")]
    Dns(#[from] serve::BindError),
    /// Binding an HTTP address failed.
    #[error("cannot start")]
    Http(#[from] shared::http::BindError),
    /// The file for the addresses cannot be written.
    #[error(transparent)]
    Addresses(#[from] shared::addresses::WriteError),
    /// The certificate for clients cannot be used.
    #[error("cannot serve DNS over TLS")]
    Certificate(#[from] serve::CertificateError),
    /// The listener does not start.
    #[error("cannot serve DNS")]
    Serve(#[from] serve::Error),
    /// The forwarder does not start.
    #[error("cannot forward")]
    Forward(#[from] forward::Error),
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signal(#[source] std::io::Error),
    /// A task ended.
    #[error("ended early")]
    Task(#[from] TaskError),
}

/// A program that is bound but does not serve yet.
#[derive(Debug)]
pub struct Program {
    config: Config,
    sockets: serve::Sockets,
    copies: keep::Copies,
    listener: shared::http::Listener,
    pages: Pages,
    follower: config_dir::Follower,
    corefile: corefile::Corefile,
    sources: Sources,
    rules: Keeper,
}

/// Further addresses, each for one page.
#[derive(Debug)]
struct Pages {
    health: Vec<shared::http::Listener>,
    ready: Vec<shared::http::Listener>,
}

impl Program {
    /// Binds the DNS and HTTP addresses and reads the configuration directory.
    ///
    /// Fails if an address is in use or not on this machine.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        // The quota of the cgroup limits this, not the machine's cores.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let keeper = config.listener.keep_sockets.as_deref();
        let certificate = config.certificate()?;
        let (mut sockets, copies) =
            keep::bind(keeper, "dnscache", &config.listen, threads.min(LANES_MAX)).await?;
        if let Some(certificate) = certificate {
            sockets.bind_tls(&config.tls_listen, certificate)?;
        }
        let listener = shared::http::bind(config.http_listen).await?;
        let pages = Pages {
            health: listeners(&config.health_listen).await?,
            ready: listeners(&config.ready_listen).await?,
        };
        let (live, rules, corefile) = corefile::open(&config);
        let rules = Keeper::new(rules);
        let (directory, follower) = open_directory(&config, live.clone());
        let sources = Sources::new(live, directory).with_rebind(config.rebind());
        Ok(Self { config, sockets, copies, listener, pages, follower, corefile, sources, rules })
    }

    /// Returns the addresses for DNS over TLS, with the real port if it was 0.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        self.sockets.tls_addresses()
    }

    /// Returns the addresses for DNS over UDP and TCP, with the real port if it was 0.
    pub fn dns_addresses(&self) -> &[SocketAddr] {
        self.sockets.local_addresses()
    }

    /// Returns the address for HTTP, with the real port if it was 0.
    pub fn http_address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Returns the further addresses for `/health`, with the real port if it was 0.
    pub fn health_addresses(&self) -> Vec<SocketAddr> {
        self.pages.health.iter().map(shared::http::Listener::address).collect()
    }

    /// Returns the further addresses for `/ready`, with the real port if it was 0.
    pub fn ready_addresses(&self) -> Vec<SocketAddr> {
        self.pages.ready.iter().map(shared::http::Listener::address).collect()
    }

    /// Serves until `stop` resolves, then answers the accepted queries.
    ///
    /// Fails if a task ends by itself.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { config, sockets, copies, listener, pages, follower, corefile, .. } = self;
        let (mut sources, rules) = (self.sources, self.rules);
        let shared = share(&config, sources.routes(), &rules, sockets.lanes());
        let (cache, routes) = (Arc::clone(&shared.cache), Arc::clone(&shared.routes));
        let (streams, samples) = (Arc::clone(&shared.streams), Arc::clone(&shared.samples));
        let mut tasks = Tasks::with_lameduck(config.listener.lameduck);
        let saved = CacheFile::new(config.cache_file.clone(), &shared);

        let (later, queries) = mpsc::channel(QUERIES_MAX);
        let (renewer, renewals) = Renewer::new();
        let channels = (queries, renewals);
        let (limits, sockets_max) = limits(&config);
        let edge = edge(&config, &sockets, sockets_max);
        let forwarder = forward::start(shared.clone(), channels, edge)?;
        let answers = Arc::new(Answers {
            cache: shared.cache,
            routes: shared.routes,
            local: shared.local,
            marks: Arc::clone(&rules.marks),
            allowed: doors::Allowed::new(&config.allow),
            cookies: cookies(),
            counters: shared.counters,
            servers: Arc::clone(&forwarder.status.servers),
            renewer,
            samples: Arc::clone(&samples),
            reply_rate: config.reply_rate.map(doors::ReplyRate::new),
        });
        let addresses =
            Addresses { dns: sockets.local_addresses().to_vec(), http: listener.address() };
        let serving = serve::dns(sockets, limits, tasks.stopping(), Arc::clone(&answers), later)?;
        let (forward, leaving) = (Arc::clone(&forwarder.status), tasks.leaving());
        let compat = config.metrics_compat;
        let (state, file) = (Arc::clone(&rules.state), corefile.state.clone());
        let streams_of = Arc::clone(&streams);
        let inspect = Inspect::new(answers, &config.inspect_allow, tasks.stopping());
        let view = View { forward, streams: streams_of, leaving, compat, rules: state, file };
        let routers = http_routers(inspect, &serving, &sources, view);
        tracing::info!(dns = ?addresses.dns, http = %addresses.http, "serving");
        addresses.write(config.addresses_file.as_deref())?;

        let stopping = || tasks.stopping();
        let target = changes::Target { cache: Arc::clone(&cache), streams };
        let keep = rules.run(Arc::clone(&cache), stopping());
        let follow = reload::follow(sources, routes, cache, stopping());
        let directory = follower.run(stopping());
        tasks.spawn("changes", changes::follow(target, tasks.stopping()));
        let others = tasks.ending().cancelled_owned();
        tasks.spawn_last("dns", serving.left_after(copies.are_kept(), others));
        tasks.spawn("forward", forwarder.finished(tasks.stopping(), copies.are_kept()));
        tasks.spawn_last("keep-sockets", copies.run(tasks.stopping(), tasks.ending()));
        pages.serve(listener, routers, &mut tasks);
        tasks.spawn("corefile", corefile.follower.run(tasks.stopping()));
        tasks.spawn("config-dir", directory);
        tasks.spawn("routes", follow);
        tasks.spawn("rules", keep);
        tasks.spawn("samples", samples.collect(config.logged(), tasks.stopping()));
        tasks.spawn("cache-file", saved.clone().load(tasks.stopping()));
        Ok(tasks.run(saved.save_after(stop), DRAIN_MAX).await?)
    }
}

/// Returns the state that the forwarder shares with the rest: an empty cache, the first `routes`
/// and rules.
fn share(config: &Config, routes: Routes, rules: &Keeper, lanes: usize) -> forward::Shared {
    forward::Shared {
        cache: Arc::new(Cache::with_policy(config.bounds(), config.policy())),
        routes: Arc::new(ArcSwap::from_pointee(routes)),
        local: Arc::clone(&rules.local),
        patience: config.upstream_timeout,
        stale_after: config.stale_after(),
        counters: Arc::new(Counters::new(lanes + 1)),
        lane: lanes,
        streams: Arc::new(changes::Streams::new(config.changes.clone())),
        samples: samples(config, lanes + 1),
    }
}

/// Samples of `lanes` threads.
fn samples(config: &Config, lanes: usize) -> Arc<Samples> {
    Arc::new(Samples::new(config.sample, lanes, rand::random(), boot_time()))
}

/// Cookies under a secret of this process.
fn cookies() -> doors::Cookies {
    let booted_secs = (unix_ms() / 1_000).saturating_sub(boot_time().secs());
    doors::Cookies::new(rand::random(), booted_secs)
}

/// Returns what clients may take, and how many sockets to upstreams there can be: as many as the
/// limit of descriptors allows.
fn limits(config: &Config) -> (serve::Limits, usize) {
    let mut limits = config.listener.limits();
    let wanted = [limits.connections_max, forward::SOCKETS_MAX];
    let [connections_max, sockets_max] = descriptors::share(wanted, DESCRIPTORS_RESERVED);
    limits.connections_max = connections_max;
    (limits, sockets_max)
}

/// What the sockets to upstreams are made with.
fn edge(config: &Config, sockets: &serve::Sockets, sockets_max: usize) -> forward::Edge {
    let reserved_ports = sockets.local_addresses().iter().map(SocketAddr::port).collect();
    let client = config.tls_client_cert.clone().zip(config.tls_client_key.clone());
    let tls = forward::TlsFiles { ca: config.tls_ca.clone(), client };
    forward::Edge { reserved_ports, sockets_max, tls }
}

impl Pages {
    /// Serves all pages on `listener`, and each page on its addresses.
    fn serve(self, listener: shared::http::Listener, routers: Routers, tasks: &mut Tasks) {
        let all = (vec![listener], routers.all);
        for (listeners, router) in [all, (self.health, routers.health), (self.ready, routers.ready)]
        {
            for listener in listeners {
                let serving = shared::http::serve(listener, router.clone(), tasks.stopping());
                tasks.spawn("http", serving);
            }
        }
    }
}

/// Binds each of `addresses`.
async fn listeners(
    addresses: &[SocketAddr],
) -> Result<Vec<shared::http::Listener>, shared::http::BindError> {
    let mut listeners = Vec::new();
    for &address in addresses {
        listeners.push(shared::http::bind(address).await?);
    }
    Ok(listeners)
}

/// Opens the configuration directory, without stub domains for which kubedns answers.
fn open_directory(
    config: &Config,
    live: watch::Receiver<Live>,
) -> (watch::Receiver<config_dir::State>, config_dir::Follower) {
    let demand = move |keys: &mut config_dir::Keys| {
        let routes = Routes::new(&live.borrow().servers, &config_dir::Keys::default(), &[]);
        let reserved = routes.reserved(keys);
        for Reserved { domain, .. } in &reserved {
            keys.stub_domains.remove(domain);
        }
        reserved.iter().map(|reserved| reserved.to_string().into()).collect()
    };
    config_dir::open_with(config.config_dir.as_deref(), Box::new(demand))
}

/// The state that the pages show beside the answers and their sources.
struct View {
    forward: Arc<forward::Status>,
    streams: Arc<changes::Streams>,
    /// Cancelled after the signal to stop.
    leaving: CancellationToken,
    compat: Option<Compat>,
    rules: Arc<ArcSwap<local::keep::State>>,
    /// The state of the Corefile.
    file: watch::Receiver<shared::corefile::State>,
}

/// The pages by address.
struct Routers {
    /// All pages.
    all: axum::Router,
    /// The pages that show whether the program lives.
    health: axum::Router,
    /// The pages that show whether it is ready.
    ready: axum::Router,
}

/// Returns the pages.
fn http_routers(
    inspect: Inspect,
    serving: &serve::Serving,
    sources: &Sources,
    view: View,
) -> Routers {
    let View { forward, streams, leaving, compat, rules, file } = view;
    let counters = Arc::clone(&serving.counters);
    let answers = inspect.answers();
    let directory = sources.directory.clone();
    let mut registry = shared::metrics::registry("dnscache", env!("CARGO_PKG_VERSION"));
    shared::metrics::register_dns(&mut registry, Arc::clone(&counters), serving.overflow());
    shared::metrics::register_config_dir(&mut registry, directory.clone());
    registry.register_collector(Box::new(forward::Metrics(Arc::clone(&forward))));
    registry.register_collector(Box::new(http::Metrics(Arc::clone(&answers))));
    registry.register_collector(Box::new(changes::Metrics(Arc::clone(&streams))));
    let upstreams = Arc::clone(&sources.upstreams);
    registry.register_collector(Box::new(reload::Metrics(Arc::clone(&upstreams))));
    registry.register_collector(Box::new(local::keep::Metrics(Arc::clone(&rules))));
    registry.register_collector(Box::new(shared::corefile::Metrics(file.clone())));
    // Routes are loaded and sockets are bound before the program serves.
    let ready = move || {
        let (upstreams, directory) = (upstreams.load().check(), directory.borrow().check());
        let (dns, routes) = (Check::passed("dns"), Check::passed("routes"));
        let checks = [dns, routes, upstreams, streams.check(), directory];
        let checks = checks.into_iter().chain(rules.load().checks());
        let file = file.borrow().check();
        checks.chain(file).chain(Check::shutdown(&leaving)).collect()
    };
    // No flag asks for other names here.
    let compat = compat.filter(|compat| *compat == Compat::Coredns);
    let compat = compat.map(|_| http::coredns(&answers, &counters));
    let registries = std::iter::once(registry).chain(compat).collect();
    let live = http::live(counters, forward);
    Routers {
        health: shared::http::health(live.clone()),
        ready: shared::http::ready(ready.clone()),
        all: http::router(inspect, live, ready, registries),
    }
}

/// Binds and runs a program.
///
/// Fails as [`Program::bind`] and [`Program::run`] do.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), Error> {
    Program::bind(config).await?.run(stop).await
}

/// Descriptors beside those of clients over TCP and of sockets to upstreams: 320 exchanges with
/// upstreams over TCP, 64 connections for each of at most two pages, and files.
const DESCRIPTORS_RESERVED: usize = 512;
/// UDP threads: beyond so many one socket's lock and the cache's memory are the limit.
const LANES_MAX: usize = 8;
/// Queries that can wait between the lanes and the forwarder. More get SERVFAIL.
const QUERIES_MAX: usize = 4_096;
/// How long accepted queries can take at the end.
const DRAIN_MAX: Duration = Duration::from_secs(5);
