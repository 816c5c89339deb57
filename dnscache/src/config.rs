//! All flags of dnscache. Texts are parsed into checked values only here.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use shared::config_dir::Keys;
use shared::corefile::{self, Loaded, Surroundings};
use shared::flags::{Stop, bytes, listen_address, parse_given, seconds};
use shared::log::LogConfig;
use shared::metrics::coredns::Compat;
use shared::name;
use shared::prefix::{self, Prefix};
use shared::serve::{Certificate, CertificateError, ListenerFlags};

use crate::cache::{Bounds, Policy};
use crate::changes::Source;
use crate::doors::Rebind;
use crate::lifetime::Limits;
use crate::local::flags::LocalFlags;
use crate::local::keep::Plan;
use crate::reload::Live;
use crate::route::{
    self, AnswerFlag, FlagError, Lifetimes, NextError, NextFlag, Routes, ServerFlag, ZoneTtlFlag,
};
use crate::sample::{Filter, Logged, Rate, share};

/// Answers DNS on port 53 from a bounded cache; asks kubedns, a stub domain or an upstream on a
/// miss.
#[derive(Clone, Debug, Parser)]
#[command(name = "dnscache", version, after_help = shared::probe::HELP)]
pub struct Config {
    /// Addresses for DNS over UDP and TCP (repeatable); port 0 lets the system choose
    #[arg(long, value_name = "ADDR", value_parser = listen_address, default_values = LISTEN)]
    pub listen: Vec<SocketAddr>,
    /// Address for HTTP: health, metrics, explain; :: takes IPv4 too and becomes 0.0.0.0 on a
    /// machine without IPv6
    #[arg(long, value_name = "ADDR", value_parser = listen_address, default_value = HTTP_LISTEN)]
    pub http_listen: SocketAddr,
    /// File for the bound addresses, as JSON, written once all are bound: for scripts that use
    /// port 0 [default: none]
    #[arg(long, value_name = "FILE")]
    pub addresses_file: Option<PathBuf>,
    /// Metrics under the names of another DNS server as well: coredns [default: none]
    #[arg(long, value_name = "SERVER", value_parser = compat)]
    pub metrics_compat: Option<Compat>,
    /// Upstream, or the servers of the named domains (repeatable): ADDR, ADDR@SOURCE, tcp://ADDR,
    /// or tls://ADDR@NAME, which is verified for NAME, or for ADDR without it; for domains also a
    /// host name, which is resolved along the other routes [default: those of --resolv-file]
    #[arg(long = "server", value_name = "[/DOMAIN/.../]ADDR[#PORT]", value_parser = server)]
    pub servers: Vec<ServerFlag>,
    /// Upstreams where no plain --server is given; watched
    #[arg(long, value_name = "FILE", default_value = RESOLV_FILE)]
    pub resolv_file: PathBuf,
    /// Response code for the names of these domains, or for all others without a server
    /// (repeatable): SERVFAIL or REFUSED [default: none]
    #[arg(long = "answer", value_name = "[/DOMAIN/.../]CODE")]
    pub answers: Vec<AnswerFlag>,
    /// Server that is asked after those of the named domains gave an answer of these kinds
    /// (repeatable): NXDOMAIN, NODATA, SERVFAIL or another response code. The server # stands for
    /// those of all other names, as in /cluster.local/NXDOMAIN=# [default: none]
    #[arg(long, value_name = "[/DOMAIN/.../]KIND[,KIND...]=ADDR", value_parser = next)]
    pub next: Vec<NextFlag>,
    /// Directory with the keys of the kube-dns ConfigMap; watched [default: none]
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Corefile of CoreDNS, which stands for flags; those that are given as well win; watched.
    /// `dnscache corefile check FILE` prints what each line becomes [default: none]
    #[arg(long, value_name = "FILE")]
    pub corefile: Option<PathBuf>,
    /// Where kubedns answers, for the zones of kubernetes in --corefile
    #[arg(long, value_name = "ADDR", value_parser = listen_address, default_value = KUBEDNS)]
    pub kubedns: SocketAddr,
    /// Further addresses for HTTP with /health and /livez alone (repeatable) [default: none]
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub health_listen: Vec<SocketAddr>,
    /// Further addresses for HTTP with /ready and /readyz alone (repeatable) [default: none]
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub ready_listen: Vec<SocketAddr>,
    /// Entries in the cache, 0 to 100000000; 0 turns caching off
    #[arg(long, value_name = "ENTRIES", value_parser = entries, default_value_t = CACHE_SIZE)]
    pub cache_size: usize,
    /// Bytes in the cache, 1MiB to 64GiB; suffixes KiB, MiB, GiB
    #[arg(long, value_name = "BYTES", value_parser = bytes(BYTES_MIN, BYTES_MAX),
        default_value = CACHE_BYTES)]
    pub cache_bytes: usize,
    /// File for the cache, written at the end and read after the next start if it is at most a day
    /// old. TTLs go on meanwhile. Names of the cluster are used only if kubedns has not reported a
    /// change since then [default: none]
    #[arg(long, value_name = "FILE")]
    pub cache_file: Option<PathBuf>,
    /// TTLs below this are raised, in seconds, 0 to 3600; 0 raises none
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0, MIN_TTL_MAX),
        default_value = MIN_TTL)]
    pub min_ttl: Duration,
    /// TTLs above this are lowered, in seconds, 1 to 604800
    #[arg(long, value_name = "SECONDS", value_parser = seconds(1, MAX_TTL_MAX),
        default_value = MAX_TTL)]
    pub max_ttl: Duration,
    /// Denials are kept no longer than this, in seconds, 0 to 10800
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0, NEGATIVE_TTL_MAX),
        default_value = NEGATIVE_TTL)]
    pub negative_ttl: Duration,
    /// The same two limits for the names of these domains (repeatable), in seconds
    /// [default: those of --max-ttl and --negative-ttl]
    #[arg(long = "zone-ttl", value_name = "/DOMAIN/.../MAX,NEGATIVE")]
    pub zone_ttls: Vec<ZoneTtlFlag>,
    /// Expired answers are served this long while upstreams fail, in seconds, 0 to 604800; 0 = off
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0, SERVE_STALE_MAX),
        default_value = SERVE_STALE)]
    pub serve_stale: Duration,
    /// How long a question waits for its upstreams before an expired answer is served, in seconds,
    /// 0 to 30, with decimals. 0 serves it at once and renews it afterwards; names of the cluster
    /// still wait for kubedns, 1.8 seconds
    #[arg(long, value_name = "SECONDS", value_parser = stale_after,
        default_value = STALE_AFTER)]
    pub stale_after: Duration,
    /// TTL of expired answers, in seconds, 0 to 3600; at most 5 for names of the cluster
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0, STALE_TTL_MAX),
        default_value = STALE_TTL)]
    pub stale_ttl: Duration,
    /// Serve an expired answer with records although its renewal is a denial, for as long as the
    /// denial is valid [default: off]
    #[arg(long)]
    pub stale_over_denials: bool,
    /// Serve cached answers with the TTLs that they were stored with, and not with what is left of
    /// them [default: off]
    #[arg(long)]
    pub keep_ttl: bool,
    /// How long a question waits for its upstreams before the client gets SERVFAIL, in seconds, 1
    /// to 30, with decimals
    #[arg(long, value_name = "SECONDS", value_parser = upstream_timeout,
        default_value = UPSTREAM_TIMEOUT)]
    pub upstream_timeout: Duration,
    /// Address for DNS over TLS (repeatable), with the limits of TCP [default: none]
    #[arg(long, value_name = "ADDR", value_parser = listen_address, requires = "tls_cert")]
    pub tls_listen: Vec<SocketAddr>,
    /// File with the PEM certificate for clients of --tls-listen, and those of its authorities;
    /// watched [default: none]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// File with the PEM key of --tls-cert; watched [default: none]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// File with the PEM certificates that upstreams are verified with over TLS
    /// [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// File with the PEM certificate that upstreams are shown over TLS [default: none]
    #[arg(long, value_name = "FILE", requires = "tls_client_key")]
    pub tls_client_cert: Option<PathBuf>,
    /// File with the PEM key of --tls-client-cert [default: none]
    #[arg(long, value_name = "FILE", requires = "tls_client_cert")]
    pub tls_client_key: Option<PathBuf>,
    /// kubedns's change stream, such as http://127.0.0.1:8081/changes (repeatable). Of a host name
    /// every address is followed, up to 8 of each family, and the name is resolved again every 10
    /// seconds and when a stream is lost [default: none]
    #[arg(long, value_name = "URL")]
    pub changes: Vec<Source>,
    /// Prefix of the clients that are answered (repeatable); others get REFUSED. 127.0.0.1 and ::1
    /// are always answered; 0.0.0.0/0 and ::/0 answer everyone
    /// [default: private, shared, loopback and link-local addresses]
    #[arg(long, value_name = "PREFIX", value_parser = prefix::parse)]
    pub allow: Vec<Prefix>,
    /// Refuse answers of upstreams that hold private, loopback, link-local or unspecified
    /// addresses; names of kubedns and of domains with servers of their own are exempt
    /// [default: off]
    #[arg(long)]
    pub rebind_protect: bool,
    /// Domain whose names may have such addresses in spite of --rebind-protect (repeatable)
    /// [default: none]
    #[arg(long, value_name = "DOMAIN", value_parser = domain, requires = "rebind_protect")]
    pub rebind_ok: Vec<Box<[u8]>>,
    /// Replies of more than 512 bytes over UDP that clients of one network (/24 or /56) get from
    /// the cache in a second, 1 to 1000000. Further ones are cut, so that the client asks again
    /// over TCP; a client that returns a valid DNS cookie is exempt [default: no limit]
    #[arg(long, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub reply_rate: Option<u32>,
    /// Queries that are sampled for /top and /tail: adaptive (all if they are few, at most 1,000
    /// per second and thread), off, or a share of them, above 0 and at most 1
    #[arg(long, value_name = "RATE", default_value = SAMPLE)]
    pub sample: Rate,
    /// Share of the queries that is logged, above 0 and at most 1; of the sampled queries only, so
    /// at most 1,000 per second and thread by default [default: none]
    #[arg(long, value_name = "RATE", value_parser = share)]
    pub log_queries: Option<f64>,
    /// Which queries --log-queries logs (repeatable; each is enough): name:DOMAIN, client:PREFIX,
    /// rcode:CODE, class:success, class:denial, class:error and missed, of which commas require
    /// all, as in name:corp.example,class:error [default: all]
    #[arg(long = "log-filter", value_name = "TERM[,TERM...]", requires = "log_queries")]
    pub log_filters: Vec<Filter>,
    /// Prefix of the clients that may see what others ask, over HTTP: /top, /tail, and the cache in
    /// /explain (repeatable). Clients on this machine always may [default: none]
    #[arg(long, value_name = "PREFIX", value_parser = prefix::parse)]
    pub inspect_allow: Vec<Prefix>,
    /// The rules by which names are answered here or asked differently.
    #[command(flatten)]
    pub local: LocalFlags,
    /// The limits of DNS clients, and the end.
    #[command(flatten)]
    pub listener: ListenerFlags,
    /// The log.
    #[command(flatten)]
    pub log: LogConfig,
    /// The Corefile in force, if there is one.
    #[arg(skip)]
    pub loaded: Option<Loaded>,
}

/// Why flags contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum Conflict {
    /// A flag takes over a domain of kubedns.
    #[error(transparent)]
    Taken(#[from] route::Taken),
    /// The host of a server cannot be resolved.
    #[error(transparent)]
    Circular(#[from] route::Circular),
    /// Changes of a server are followed, but it is not asked.
    #[error(transparent)]
    Unasked(#[from] route::Unasked),
    /// The cluster domain is unknown.
    #[error(
        "invalid value for '--autopath': kubedns answers for no domain; expected \
         --server=/DOMAIN/ADDR with the cluster domain, such as \
         --server=/cluster.local/127.0.0.1#10053"
    )]
    NoClusterDomain,
    /// Clients cannot be shown the certificate.
    #[error("invalid value for '--tls-cert': {0}")]
    Certificate(#[from] CertificateError),
    /// Queries that are not sampled cannot be logged.
    #[error(
        "invalid value for '--log-queries': only sampled queries are logged; expected --sample \
         adaptive or a share, not off"
    )]
    NoSamples,
}

impl Config {
    /// Parses flags, beginning with the program's name, the environment, and the Corefile that they
    /// name.
    ///
    /// Fails with one line for each mistake.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Stop> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let (config, given) = parse_given::<Self>(&arguments)?;
        let Some(path) = config.corefile else { return Ok(config) };
        let surroundings = Surroundings { kubedns: config.kubedns, ..crate::surroundings() };
        let program = corefile::Program::Dnscache;
        let source = corefile::Source { path, program, arguments, given, surroundings };
        let (config, loaded) = source.load::<Self>().map_err(|lines| corefile::stop(&lines))?;
        Ok(Self { loaded: Some(loaded), ..config })
    }

    /// Returns the settings that a running program can take over from a changed Corefile.
    pub fn live(&self) -> Live {
        Live {
            servers: self.servers(),
            answers: self.answers.clone(),
            resolv_file: self.resolv_file.clone(),
            next: self.next.clone(),
            lifetimes: Lifetimes::new(self.limits(), &self.zone_ttls),
        }
    }

    /// Fails if flags contradict each other.
    pub fn check(&self) -> Result<(), Conflict> {
        let servers = self.servers();
        route::check(&servers)?;
        route::Circular::check(&servers)?;
        route::Unasked::check(&servers, &self.changes)?;
        if self.log_queries.is_some() && self.sample == Rate::Off {
            return Err(Conflict::NoSamples);
        }
        self.certificate()?;
        match self.local.autopath && self.cluster_domains().is_empty() {
            true => Err(Conflict::NoClusterDomain),
            false => Ok(()),
        }
    }

    /// Returns the servers. Those that are kubedns are marked.
    fn servers(&self) -> Vec<ServerFlag> {
        self.servers.iter().map(|server| server.clone().mark(&self.changes)).collect()
    }

    /// Returns the domains for which kubedns answers, in lower-case wire form.
    fn cluster_domains(&self) -> Vec<Box<[u8]>> {
        let routes = Routes::new(&self.servers(), &Keys::default(), &[]);
        let owned = routes.groups().iter().filter(|group| group.owned);
        let domains = owned.map(|group| group.suffix.clone());
        // The hosts of kubedns's replicas have a route of their own.
        let hosts = self.changes.iter().filter_map(Source::host_name).collect::<Vec<_>>();
        domains.filter(|name| !route::is_reverse(name) && !hosts.contains(name)).collect()
    }

    /// Returns the certificate for clients, if there is one.
    ///
    /// Fails if it cannot be used.
    pub fn certificate(&self) -> Result<Option<Certificate>, CertificateError> {
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        files.map(|(cert, key)| Certificate::read(cert, key)).transpose()
    }

    /// Returns which queries are logged, if any are.
    pub fn logged(&self) -> Option<Logged> {
        let filters = self.log_filters.clone();
        self.log_queries.map(|share| Logged { share, filters })
    }

    /// Returns the filter of answers, if it is on.
    pub fn rebind(&self) -> Option<Rebind> {
        self.rebind_protect.then(|| Rebind::new(&self.rebind_ok))
    }

    /// Returns the rules of the flags.
    pub fn rules(&self) -> Plan {
        self.local.plan(self.cluster_domains(), &self.resolv_file)
    }

    /// Returns the bounds of the cache.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            entries: self.cache_size,
            bytes: self.cache_bytes,
            stale_secs: self.serve_stale.as_secs() as u32,
        }
    }

    /// Returns how the cache serves entries.
    pub fn policy(&self) -> Policy {
        Policy {
            keeps_ttl: self.keep_ttl,
            stale_ttl: self.stale_ttl.as_secs() as u32,
            stale_first: self.stale_after.is_zero(),
            prefers_positive: self.stale_over_denials,
        }
    }

    /// Returns how long a client with an expired answer waits for the upstreams. If the cache
    /// serves such answers first, only names of the cluster wait.
    pub fn stale_after(&self) -> Duration {
        if self.stale_after.is_zero() { STALE_AFTER_OWNED } else { self.stale_after }
    }

    /// Returns the limits of TTLs.
    pub fn limits(&self) -> Limits {
        Limits {
            ttl_min: self.min_ttl.as_secs() as u32,
            ttl_max: self.max_ttl.as_secs() as u32,
            negative_max: self.negative_ttl.as_secs() as u32,
        }
    }
}

/// Parses a `--server` with the interfaces of this machine, such as `fe80::1%eth0`.
fn server(text: &str) -> Result<ServerFlag, FlagError> {
    ServerFlag::parse(text, &shared::interface::index)
}

/// A `--next` with the interfaces of this machine.
fn next(text: &str) -> Result<NextFlag, NextError> {
    NextFlag::parse(text, &shared::interface::index)
}

/// Why a text is not a number of entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 0 to {ENTRIES_MAX} entries")]
pub struct EntriesError;

/// Why a text is not a server whose names metrics can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected coredns; healthz has the names of kube-dns")]
pub struct CompatError;

fn compat(text: &str) -> Result<Compat, CompatError> {
    if text == "coredns" { Ok(Compat::Coredns) } else { Err(CompatError) }
}

fn entries(text: &str) -> Result<usize, EntriesError> {
    text.parse().ok().filter(|&entries| entries <= ENTRIES_MAX).ok_or(EntriesError)
}

/// Why a text is not the name of a domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a domain, such as corp.example")]
pub struct DomainError;

fn domain(text: &str) -> Result<Box<[u8]>, DomainError> {
    name::domain(text).and_then(|name| name::parse(&name)).ok_or(DomainError)
}

/// Why a text is not a time to wait for upstreams.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("expected {0} to {UPSTREAM_TIMEOUT_MAX} seconds, such as 1.8")]
pub struct WaitError(f64);

fn upstream_timeout(text: &str) -> Result<Duration, WaitError> {
    wait(text, 1.0)
}

fn stale_after(text: &str) -> Result<Duration, WaitError> {
    wait(text, 0.0)
}

fn wait(text: &str, min: f64) -> Result<Duration, WaitError> {
    let seconds: f64 = text.parse().map_err(|_| WaitError(min))?;
    let is_allowed = (min..=UPSTREAM_TIMEOUT_MAX).contains(&seconds);
    is_allowed.then(|| Duration::from_secs_f64(seconds)).ok_or(WaitError(min))
}

/// DNS on every address. A machine without IPv6 skips the second.
const LISTEN: [&str; 2] = ["0.0.0.0:53", "[::]:53"];
/// The port at which CoreDNS and node-local caches serve metrics and health.
const HTTP_LISTEN: &str = "[::]:9153";
/// kubedns's default port, in the same pod.
const KUBEDNS: &str = "127.0.0.1:10053";
/// The upstreams of the node, or of the tool that made the pod's file.
const RESOLV_FILE: &str = "/etc/resolv.conf";
/// CoreDNS's number of positive answers.
const CACHE_SIZE: usize = 10_000;
/// More would not fit any machine that runs a pod.
const ENTRIES_MAX: usize = 100_000_000;
/// Room for every one of 10,000 entries to be large, on average 6 KiB.
const CACHE_BYTES: &str = "64MiB";
/// Room for a few hundred answers.
const BYTES_MIN: usize = 1 << 20;
/// More would not fit any machine that runs a pod.
const BYTES_MAX: usize = 64 << 30;
/// The owners of names set the TTLs, so none is raised.
const MIN_TTL: &str = "0";
/// An hour. With a higher minimum, answers would be served that are long outdated.
const MIN_TTL_MAX: u32 = 3_600;
/// A day, as in Unbound and Knot Resolver.
const MAX_TTL: &str = "86400";
/// Seven days, the ceiling of RFC 8767 section 4.
const MAX_TTL_MAX: u32 = 604_800;
/// Five minutes, because a missing name can be created at any time.
const NEGATIVE_TTL: &str = "300";
/// Three hours, the ceiling of RFC 2308 section 5.
const NEGATIVE_TTL_MAX: u32 = 10_800;
/// A day: RFC 8767 section 5 suggests one to three.
const SERVE_STALE: &str = "86400";
/// The client response timer of RFC 8767 section 5.
const STALE_AFTER: &str = "1.8";
/// The same, for names of the cluster if the flag is 0.
const STALE_AFTER_OWNED: Duration = Duration::from_millis(1_800);
/// RFC 8767 section 4.
const STALE_TTL: &str = "30";
const STALE_TTL_MAX: u32 = 3_600;
/// Every query of a small cluster, and enough of a large one.
const SAMPLE: &str = "adaptive";
/// A little less than glibc waits (5 seconds): the reason still reaches the client.
const UPSTREAM_TIMEOUT: &str = "4.8";
/// Clients do not wait longer.
const UPSTREAM_TIMEOUT_MAX: f64 = 30.0;
/// Seven days, as the ceiling of TTLs.
const SERVE_STALE_MAX: u32 = 604_800;

#[cfg(test)]
mod tests {
    use super::*;
    use shared::flags::parse_from;

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = parse_from::<Config>(["dnscache"]).unwrap();
        assert_eq!(config.listen.len(), 2);
        let bounds = Bounds { entries: 10_000, bytes: 64 << 20, stale_secs: 86_400 };
        assert_eq!(config.bounds(), bounds);
        let limits = Limits { ttl_min: 0, ttl_max: 86_400, negative_max: 300 };
        assert_eq!(config.limits(), limits);
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_allowed() {
        let rows = [
            ("--cache-bytes=1TiB", "1MiB to 64GiB"),
            ("--cache-bytes=12", "1MiB to 64GiB"),
            ("--cache-bytes=99999999999999999999GiB", "1MiB to 64GiB"),
            ("--cache-size=-1", "0 to 100000000"),
            ("--server=nonsense", "ADDR"),
            ("--server=/a..b/1.2.3.4", "label"),
            ("--server=1.2.3.4#99999", "port"),
            ("--server=192.0.2.1#19", "port 19 belongs to a service that is not DNS"),
            ("--server=0.0.0.0", "is not the address of one host"),
            ("--server=255.255.255.255", "is not the address of one host"),
            ("--server=224.0.0.251#5353", "is not the address of one host"),
            ("--server=fe80::1", "needs its interface, such as fe80::1%eth0"),
            ("--server=fe80::1%no-such", "no network interface \"no-such\""),
            ("--changes=https://a/changes", "http://"),
            ("--max-ttl=0", "1 to 604800"),
            ("--upstream-timeout=0.5", "1 to 30 seconds"),
            ("--stale-after=-1", "0 to 30 seconds"),
            ("--stale-after=30.1", "0 to 30 seconds"),
            ("--stale-ttl=3601", "0 to 3600"),
            ("--upstream-timeout=inf", "1 to 30 seconds"),
            ("--upstream-timeout=4.8s", "1 to 30 seconds"),
            ("--metrics-compat=bind", "coredns"),
            ("--metrics-compat=kube-dns", "healthz has the names of kube-dns"),
            ("--allow=10.0.0.0/33", "10.0.0.0/8"),
            ("--allow=10.0.0.7/8", "expected 10.0.0.0/8"),
            ("--rebind-ok=corp.example", "--rebind-protect"),
            ("--rebind-ok=corp..example", "such as corp.example"),
            ("--rebind-ok=*.corp.example", "such as corp.example"),
            ("--allow=here", "an address or a prefix"),
            ("--sample=often", "adaptive, off, or a share"),
            ("--sample=2", "above 0 and at most 1"),
            ("--log-queries=0", "above 0 and at most 1"),
            ("--log-filter=class:error", "--log-queries"),
            ("--log-filter=class:all", "class:success, class:denial, class:error or missed"),
            ("--inspect-allow=10.0.0.7/8", "expected 10.0.0.0/8"),
            ("--zone-file=corp.example", "expected ZONE=FILE"),
            ("--zone-file=a..b=/etc/hosts", "expected ZONE=FILE"),
            ("--zone-file=a=/nonexistent", "/nonexistent cannot be read: No such file"),
            ("--zone-file=a=/etc/passwd", "zone file /etc/passwd: line 1: "),
            ("--dns64=64:ff9b::/95", "of 32, 40, 48, 56, 64 or 96 bits"),
            ("--rewrite=nam a b", "\"nam\" is not continue, stop, name"),
            ("--rewrite=name regex (a b", "\"(a\" is not a regular expression"),
            ("--rewrite=name regex (a) {2}", "has 1 groups"),
            ("--answer=NXDOMAIN", "[/DOMAIN/.../]REFUSED"),
            ("--zone-ttl=60,30", "/DOMAIN/.../MAX,NEGATIVE"),
            ("--health-listen=8080", "IP:PORT"),
            ("--ready-listen=ready", "IP:PORT"),
            ("--kubedns=10053", "IP:PORT"),
        ];
        for (flag, allowed) in rows {
            let Err(Stop::Wrong(line)) = parse_from::<Config>(["dnscache", flag]) else {
                panic!("{flag} was taken");
            };
            assert!(line.contains(allowed) && !line.contains('\n'), "{flag}: {line}");
        }
    }

    #[test]
    fn search_lists_need_the_domain_of_the_cluster() {
        let check = |flags: &[&str]| {
            let flags = ["dnscache", "--autopath"].iter().chain(flags);
            parse_from::<Config>(flags.copied()).unwrap_or_else(|_| panic!("valid")).check()
        };
        let error = check(&["--server=192.0.2.1"]).expect_err("no cluster domain").to_string();
        assert!(error.contains("--server=/DOMAIN/ADDR") && !error.contains('\n'), "{error}");
        check(&["--server=/cluster.local/127.0.0.1#10053"]).unwrap();
    }
}
