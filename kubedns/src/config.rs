//! Every flag of kubedns: name, unit, default, limit, source. Text becomes checked values here and
//! nowhere else.
//!
//! Knows the options of the program; does not know how they are implemented.

mod etcd;
mod selector;
mod views;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::core::Selector;
use shared::corefile::{self, Loaded, Surroundings};
use shared::flags::{self, Stop};
use shared::log::LogConfig;
use shared::metrics::coredns::Compat;
use shared::prefix::{self, Prefix};
use shared::serve::ListenerFlags;

use crate::name::Name;
use crate::project::Kind;
use crate::records::{PodMode, Zone, ZoneError};

pub use etcd::{EtcdFlags, PasswordError};
pub use views::ViewFlags;

/// Answers DNS for the cluster domain from what the Kubernetes API server says.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "kubedns", version, after_help = shared::probe::HELP)]
pub struct Config {
    /// Addresses for DNS over UDP and TCP (repeatable); port 0 lets the system choose
    #[arg(long, value_name = "ADDR", value_parser = flags::listen_address,
        default_values = LISTEN)]
    pub listen: Vec<SocketAddr>,
    /// Address for HTTP: health, metrics, changes, explain; :: takes IPv4 too and becomes 0.0.0.0
    /// on a machine without IPv6
    #[arg(long, value_name = "ADDR", value_parser = flags::listen_address,
        default_value = HTTP_LISTEN)]
    pub http_listen: SocketAddr,
    /// File for the bound addresses, as JSON, written once all are bound: for scripts that use
    /// port 0 [default: none]
    #[arg(long, value_name = "FILE")]
    pub addresses_file: Option<PathBuf>,
    /// Metrics under the names of another DNS server as well: coredns or kube-dns [default: none]
    #[arg(long, value_name = "SERVER", value_enum, hide_possible_values = true)]
    pub metrics_compat: Option<Compat>,
    /// Kubeconfig file for the API server [default: the service account of the pod]
    #[arg(long, value_name = "FILE", conflicts_with = "objects")]
    pub kubeconfig: Option<PathBuf>,
    /// Address of the API server, in place of a kubeconfig, such as https://10.0.0.1:6443
    /// [default: the service account of the pod]
    #[arg(long, value_name = "URL", value_parser = api_server,
        conflicts_with_all = ["kubeconfig", "objects"])]
    pub api_server: Option<String>,
    /// File with the PEM certificate that --api-server is shown [default: none]
    #[arg(long, value_name = "FILE", requires_all = ["api_server", "api_server_key"])]
    pub api_server_cert: Option<PathBuf>,
    /// File with the PEM key of --api-server-cert [default: none]
    #[arg(long, value_name = "FILE", requires_all = ["api_server", "api_server_cert"])]
    pub api_server_key: Option<PathBuf>,
    /// File with the PEM certificate that --api-server is verified with [default: those of the
    /// system]
    #[arg(long, value_name = "FILE", requires = "api_server")]
    pub api_server_ca: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current context]
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    pub context: Option<String>,
    /// File or directory of Kubernetes YAML or JSON instead of an API server; watched for changes
    #[arg(long, value_name = "PATH")]
    pub objects: Option<PathBuf>,
    /// Cluster domain
    #[arg(long, value_name = "NAME", value_parser = domain, default_value = "cluster.local")]
    domain: Name,
    /// TTL of records in seconds, 0 to 3600; with 0 clients must not cache them
    #[arg(long, value_name = "SECONDS", value_parser = flags::seconds(0, TTL_MAX),
        default_value = TTL)]
    pub ttl: Duration,
    /// Names of pods: disabled, insecure (any address in a namespace that exists), verified
    #[arg(long, value_name = "MODE", value_enum, default_value = "insecure")]
    pub pods: Pods,
    /// A headless service with no ready endpoint answers those that terminate and still serve
    #[arg(long)]
    pub terminating_fallback: bool,
    /// A service with cluster IPs and no ready endpoint does not exist, so that clients search on
    #[arg(long)]
    pub ignore_empty_service: bool,
    /// Labels * and any in a name match any namespace, service, port or endpoint
    #[arg(long)]
    pub wildcards: bool,
    /// Names of topology zones below headless services: ZONE.pin._zone and ZONE.prefer._zone
    #[arg(long)]
    pub zonal: bool,
    /// Watch no EndpointSlices: names of headless services and of endpoints do not exist
    /// [default: off]
    #[arg(long, conflicts_with_all = ["zonal", "ignore_empty_service", "terminating_fallback"])]
    pub no_endpoints: bool,
    /// Endpoints without hostname have the names of their pods, if these are valid labels
    #[arg(long)]
    pub endpoint_pod_names: bool,
    /// Namespaces to watch and to answer for (repeatable) [default: all]
    #[arg(long, value_name = "NAME", value_parser = namespace)]
    pub namespace: Vec<String>,
    /// Label selector of the namespaces that are answered for; all Services are watched
    /// [default: all]
    #[arg(long, value_name = "EXPR", value_parser = selector::parse, conflicts_with = "namespace")]
    pub namespace_selector: Option<Selector>,
    /// Label selector of the services to watch and to answer for [default: all]
    #[arg(long, value_name = "EXPR", value_parser = selector::parse)]
    pub service_selector: Option<Selector>,
    /// Domain of Multi-Cluster Services (KEP-1645), such as clusterset.local [default: off]
    #[arg(long, value_name = "NAME", value_parser = domain)]
    pub clusterset_domain: Option<Name>,
    /// The further zones.
    #[command(flatten)]
    pub views: ViewFlags,
    /// SkyDNS records in etcd.
    #[command(flatten)]
    pub etcd: EtcdFlags,
    /// Addresses under which clients reach this DNS, for ns.dns below the cluster domain
    /// (repeatable) [default: the cluster IPs of the Service kube-dns in kube-system; if it has
    /// none, the addresses of --listen that are no wildcard]
    #[arg(long, value_name = "IP")]
    pub name_server: Vec<IpAddr>,
    /// Addresses of the cluster: a reverse name there exists only if kubedns knows it, and others
    /// may exist outside (repeatable) [default: those of ServiceCIDRs and of Nodes' podCIDRs, else
    /// all private ones]
    #[arg(long, value_name = "PREFIX", value_parser = prefix::parse)]
    pub cluster_cidr: Vec<Prefix>,
    /// Addresses or prefixes of clients that can transfer the zones over TCP (repeatable)
    /// [default: none]
    #[arg(long, value_name = "ADDR-OR-PREFIX", value_parser = prefix::parse)]
    pub transfer: Vec<Prefix>,
    /// Directory with the keys of the kube-dns ConfigMap; applied without a restart
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Corefile of CoreDNS, which stands for flags; those that are given as well win; watched.
    /// `kubedns corefile check FILE` prints what each line becomes [default: none]
    #[arg(long, value_name = "FILE")]
    pub corefile: Option<PathBuf>,
    /// Threads that answer UDP, 1 to 256 [default: one per core]
    #[arg(long, value_name = "COUNT",
        value_parser = clap::value_parser!(u16).range(1..=THREADS_MAX))]
    pub threads: Option<u16>,
    /// File that keeps the last known state, for a start without the API server [default: none]
    #[arg(long, value_name = "FILE", value_parser = snapshot_file, conflicts_with = "objects")]
    pub snapshot: Option<PathBuf>,
    /// Readers of /changes at the same time, 2 to 100000: one for each cache that follows this
    /// replica. Of these, 8 may have one address, and one is for this machine
    #[arg(long, value_name = "COUNT", default_value_t = CHANGES_READERS,
        value_parser = clap::value_parser!(u32).range(2..=CHANGES_READERS_MAX))]
    pub changes_readers: u32,
    /// A watch that says nothing for this many seconds is replaced, 1 to 3600
    #[arg(long, value_name = "SECONDS", value_parser = flags::seconds(1, 3_600),
        default_value = "75")]
    pub watch_silence: Duration,
    /// Received queries can take this many seconds after SIGTERM, 0 to 300
    #[arg(long, value_name = "SECONDS", value_parser = flags::seconds(0, 300),
        default_value = "5")]
    pub drain: Duration,
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

/// How names of pods are answered, as the flag spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Pods {
    /// They do not exist.
    Disabled,
    /// Any address in any namespace that exists has a name.
    Insecure,
    /// Only addresses of Pods in that namespace have names: every Pod is watched.
    Verified,
}

impl Pods {
    fn word(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Insecure => "insecure",
            Self::Verified => "verified",
        }
    }
}

/// The part of the cluster that is exposed.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The namespaces; if empty, all of them.
    pub namespaces: Vec<String>,
    /// Which namespaces, by their labels; all if there is none.
    pub by_label: Option<Selector>,
    /// Selects Services by label; all of them if it is missing.
    pub services: Option<Selector>,
    /// Whether EndpointSlices are not needed.
    pub no_endpoints: bool,
    /// Whether Pods are needed.
    pub pods: bool,
    /// Whether ServiceImports are needed.
    pub imports: bool,
    /// Whether endpoints without hostname are named by their Pods.
    pub pod_names: bool,
    /// Whether the cluster's ranges are read from its objects, because no flag sets them.
    pub ranges: bool,
}

impl Scope {
    /// Returns whether objects of that kind are needed.
    pub fn needs(&self, kind: Kind) -> bool {
        match kind {
            Kind::Pod => self.pods,
            Kind::ServiceImport => self.imports,
            Kind::ServiceCidr => self.ranges,
            Kind::EndpointSlice => !self.no_endpoints,
            Kind::Service | Kind::Namespace | Kind::Node => true,
        }
    }
}

impl Config {
    /// Reads flags, beginning with the program's name, the environment, and the Corefile that they
    /// name.
    ///
    /// Fails with one line for each mistake.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Stop> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let (config, given) = flags::parse_given::<Self>(&arguments)?;
        let Some(path) = config.corefile else { return Ok(config) };
        let (program, surroundings) = (corefile::Program::Kubedns, Surroundings::default());
        let source = corefile::Source { path, program, arguments, given, surroundings };
        let (config, loaded) = source.load::<Self>().map_err(|lines| corefile::stop(&lines))?;
        Ok(Self { loaded: Some(loaded), ..config })
    }

    /// Returns the zone that these flags describe.
    pub fn zone(&self) -> Zone {
        let text = self.domain.to_string();
        let mut zone = Zone::new(&text).expect("the flag's parser has made a Zone of it");
        zone.clusterset = self.clusterset_domain.clone();
        zone.ttl_secs = self.ttl.as_secs() as u32;
        zone.pods = match self.pods {
            Pods::Disabled => PodMode::Disabled,
            Pods::Insecure => PodMode::Insecure,
            Pods::Verified => PodMode::Verified,
        };
        zone.terminating_fallback = self.terminating_fallback;
        zone.ignore_empty_service = self.ignore_empty_service;
        zone.wildcards = self.wildcards;
        zone.zonal = self.zonal;
        zone.no_endpoints = self.no_endpoints;
        zone.selects_namespaces = self.namespace_selector.is_some();
        zone.cidrs = self.cluster_cidr.clone().into();
        zone.name_server = if self.name_server.is_empty() {
            let addresses = self.listen.iter().map(SocketAddr::ip);
            addresses.filter(|address| !address.is_unspecified()).collect()
        } else {
            self.name_server.iter().copied().collect()
        };
        zone.name_service = self.name_server.is_empty().then(|| NAME_SERVICE.into());
        let zone = zone.with_views(&self.views.extra_domain, &self.views.external());
        let EtcdFlags { etcd_zone, etcd_wildcards, .. } = &self.etcd;
        zone.with_keys(etcd_zone, !self.has_cluster(), *etcd_wildcards)
    }

    /// Returns whether there is a cluster to answer for: flags name its objects, or this is a pod
    /// with a service account, or there is no etcd.
    pub fn has_cluster(&self) -> bool {
        let is_named =
            self.kubeconfig.is_some() || self.api_server.is_some() || self.objects.is_some();
        is_named || self.etcd.etcd.is_empty() || Path::new(SERVICE_ACCOUNT).exists()
    }

    /// Returns the part of the cluster that these flags expose.
    pub fn scope(&self) -> Scope {
        let mut namespaces = self.namespace.clone();
        namespaces.sort();
        namespaces.dedup();
        Scope {
            namespaces,
            by_label: self.namespace_selector.clone(),
            services: self.service_selector.clone(),
            no_endpoints: self.no_endpoints,
            pods: self.pods == Pods::Verified,
            imports: self.clusterset_domain.is_some(),
            pod_names: self.endpoint_pod_names,
            ranges: self.cluster_cidr.is_empty(),
        }
    }

    /// Fails on flags that contradict each other.
    pub fn check(&self) -> Result<(), Nested> {
        let clusterset = self.clusterset_domain.iter().map(|name| ("--clusterset-domain", name));
        let keys = self.etcd.etcd_zone.iter().map(|name| ("--etcd-zone", name));
        let domain = self.has_cluster().then_some(("--domain", &self.domain));
        let mut before: Vec<_> = domain.into_iter().collect();
        for (flag, name) in clusterset.chain(self.views.domains()).chain(keys) {
            for &(other_flag, other) in &before {
                let (one, two) = (format!(".{other}"), format!(".{name}"));
                if one.ends_with(&two) || two.ends_with(&one) {
                    let (name, other) = (name.clone(), other.clone());
                    return Err(Nested { flag, name, other_flag, other });
                }
            }
            before.push((flag, name));
        }
        Ok(())
    }

    /// Returns the flags that must be the same if one kubedns is to use the snapshot of another:
    /// every flag that decides which objects are watched and what is derived from them.
    pub fn identity(&self) -> String {
        let scope = self.scope();
        let mut identity = format!("domain {}, pods {}", self.domain, self.pods.word());
        if !scope.namespaces.is_empty() {
            identity += &format!(", namespaces {}", scope.namespaces.join(" "));
        }
        if let Some(selector) = &scope.by_label {
            identity += &format!(", namespaces {selector}");
        }
        if scope.no_endpoints {
            identity += ", no endpoints";
        }
        if let Some(selector) = &scope.services {
            identity += &format!(", services {selector}");
        }
        if let Some(clusterset) = &self.clusterset_domain {
            identity += &format!(", clusterset {clusterset}");
        }
        if !self.views.external_domain.is_empty() {
            identity += ", external addresses";
        }
        if !self.etcd.etcd.is_empty() {
            let alone = if self.has_cluster() { "" } else { " alone" };
            identity += &format!(", etcd {}{alone}", self.etcd.etcd_prefix);
        }
        if self.endpoint_pod_names {
            identity += ", endpoints named by pods";
        }
        if self.zonal {
            identity += ", zonal";
        }
        identity
    }

    /// Returns how many threads answer UDP.
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }
}

/// One of two zones would hide the other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid value '{name}' for '{flag}': expected a domain neither above nor below {other_flag}, \
     which is {other}"
)]
pub struct Nested {
    flag: &'static str,
    name: Name,
    other_flag: &'static str,
    other: Name,
}

/// Parses a file's path. Its directory can be created later, but it must end with a file name.
fn snapshot_file(text: &str) -> Result<PathBuf, SnapshotFileError> {
    let path = PathBuf::from(text);
    let is_file = path.file_name().is_some() && !text.ends_with('/') && !path.is_dir();
    if is_file { Ok(path) } else { Err(SnapshotFileError) }
}

/// A text is not the path of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the path of a file, such as /var/lib/kubedns/snapshot, not of a directory")]
pub struct SnapshotFileError;

/// The address of an API server.
fn api_server(text: &str) -> Result<String, ApiServerError> {
    let url: axum::http::Uri = text.parse().map_err(|_| ApiServerError)?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    if is_http { Ok(text.to_owned()) } else { Err(ApiServerError) }
}

/// A text is not the address of an API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the URL of an API server, such as https://10.0.0.1:6443")]
pub struct ApiServerError;

/// Parses a cluster domain.
fn domain(text: &str) -> Result<Name, ZoneError> {
    Zone::new(text).map(|zone| zone.apex().clone())
}

/// Parses a namespace's name: one label in lower case (RFC 1123, as the API requires).
fn namespace(text: &str) -> Result<String, NamespaceError> {
    let edges = text.starts_with('-') || text.ends_with('-');
    let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if (1..=63).contains(&text.len()) && !edges && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(NamespaceError)
    }
}

/// A text is not the name of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a namespace: 1 to 63 lower-case letters, digits or '-', no '-' at the ends")]
pub struct NamespaceError;

/// The token with which a pod can ask the API server, unless it is not mounted.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// dnscache queries this port. It is bound on every local address, so that a probe of the kubelet
/// can reach it too.
const LISTEN: [&str; 2] = ["0.0.0.0:10053", "[::]:10053"];
/// The Service in every pod's resolv.conf, as a key in wire form.
const NAME_SERVICE: &[u8] = b"\x08kube-dns\x0bkube-system";
/// The port of kube-dns.
const HTTP_LISTEN: &str = "[::]:8081";
/// The default of kubeadm for CoreDNS. A client can use a changed record for at most this long.
const TTL: &str = "30";
/// The dnscache of the pod, its neighbours, and people.
const CHANGES_READERS: u32 = 64;
/// More nodes than any cluster has.
const CHANGES_READERS_MAX: i64 = 100_000;
/// As CoreDNS: nothing in a cluster stays true for longer.
const TTL_MAX: u32 = 3_600;
/// No machine that runs cluster DNS has more cores for it.
const THREADS_MAX: i64 = 256;

#[cfg(test)]
mod tests {
    use shared::flags::parse_from;

    use super::*;

    fn config(flags: &[&str]) -> Result<Config, Stop> {
        parse_from(["kubedns"].iter().chain(flags))
    }

    #[test]
    fn defaults() {
        let config = config(&[]).unwrap();
        let zone = config.zone();
        assert_eq!(zone.apex().to_string(), "cluster.local.");
        assert_eq!((zone.ttl_secs, zone.pods), (30, PodMode::Insecure));
        assert!(!zone.terminating_fallback && !zone.ignore_empty_service && !zone.wildcards);
        assert!(!zone.zonal);
        assert!(zone.name_server.is_empty(), "a wildcard is no address to reach it");
        assert!(zone.name_service.is_some());
        assert_eq!(config.listen.len(), 2);
        assert!(config.threads() > 0 && config.transfer.is_empty());
        assert_eq!(config.metrics_compat, None);
        assert!(config.scope().namespaces.is_empty() && !config.scope().pods);
        assert!(!config.scope().imports && zone.clusterset.is_none());
    }

    #[test]
    fn one_zone_cannot_hide_the_other() {
        let check = |domain: &str, clusterset: &str, allowed: bool| {
            let flags = ["--domain", domain, "--clusterset-domain", clusterset];
            let config = config(&flags).unwrap();
            assert_eq!(config.check().is_ok(), allowed, "{domain} {clusterset}");
            assert_eq!(config.zone().clusterset.unwrap().to_string(), format!("{clusterset}."));
        };
        check("cluster.local", "clusterset.local", true);
        check("cluster.local", "setcluster.local", true);
        check("cluster.local", "cluster.local", false);
        check("cluster.local", "set.cluster.local", false);
        check("a.cluster.local", "cluster.local", false);
        let flags = ["--domain", "a.b", "--clusterset-domain", "b"];
        let said = config(&flags).unwrap().check().unwrap_err().to_string();
        assert!(said.contains("'b.' for '--clusterset-domain'") && said.contains("a.b."), "{said}");
        assert_eq!(config(&[]).unwrap().check(), Ok(()));
    }

    #[test]
    fn values_become_what_they_mean() {
        let flags = "--listen 10.0.0.10:53 --listen 0.0.0.0:53 --ttl 0 --pods verified \
            --namespace b --namespace a --namespace b --service-selector app=web \
            --domain Example.ORG. --terminating-fallback --ignore-empty-service \
            --wildcards --zonal --cluster-cidr 10.96.0.0/16 --cluster-cidr fd00:96::/32 \
            --name-server 10.0.0.10";
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let config = config(&flags.split_whitespace().collect::<Vec<_>>()).unwrap();
        let (zone, scope) = (config.zone(), config.scope());
        assert_eq!(zone.apex().to_string(), "example.org.");
        assert_eq!((zone.ttl_secs, zone.pods), (0, PodMode::Verified));
        assert!(zone.terminating_fallback && zone.ignore_empty_service && zone.wildcards);
        assert!(zone.zonal);
        let cidrs: Vec<String> = zone.cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, ["10.96.0.0/16", "fd00:96::/32"]);
        assert_eq!(*zone.name_server, [address("10.0.0.10")]);
        assert!(zone.name_service.is_none());
        assert_eq!(scope.namespaces, ["a", "b"]);
        assert_eq!(scope.services.unwrap().to_string(), "app=web");
        assert!(scope.pods);
    }

    #[test]
    fn the_identity_says_what_is_watched() {
        let check = |flags: &str, expected: &str| {
            let config = config(&flags.split_whitespace().collect::<Vec<_>>()).unwrap();
            assert_eq!(config.identity(), expected);
        };
        check("--ttl 5 --threads 2 --snapshot s", "domain cluster.local., pods insecure");
        check(
            "--domain z --pods verified --namespace b --namespace a --service-selector app=web \
             --clusterset-domain clusterset.local --zonal --endpoint-pod-names",
            "domain z., pods verified, namespaces a b, services app=web, clusterset \
             clusterset.local., endpoints named by pods, zonal",
        );
    }

    #[test]
    fn mistakes_are_one_line_that_names_flag_and_value() {
        let check = |flags: &[&str], said: &[&str]| {
            let Err(Stop::Wrong(line)) = config(flags) else { panic!("{flags:?} passed") };
            assert!(!line.contains('\n'), "{line}");
            for part in said {
                assert!(line.contains(part), "{part:?} is missing in {line:?}");
            }
        };
        check(&["--listen", "here"], &["--listen", "here", "IP:PORT"]);
        check(&["--ttl", "3601"], &["--ttl", "3601", "0 to 3600"]);
        check(&["--ttl", "soon"], &["--ttl", "soon", "0 to 3600"]);
        check(&["--pods", "some"], &["--pods", "some", "disabled, insecure, verified"]);
        check(&["--external-apex", "a.b"], &["--external-apex", "a.b", "one label"]);
        check(&["--external-ttl", "3601"], &["--external-ttl", "0 to 3600"]);
        check(&["--extra-domain", "a..b"], &["--extra-domain", "a..b", "no name"]);
        check(&["--domain", "a..b"], &["--domain", "a..b", "no name"]);
        check(&["--clusterset-domain", "a b"], &["--clusterset-domain", "a b", "no name"]);
        check(&["--namespace", "A"], &["--namespace", "A", "lower-case"]);
        check(&["--service-selector", "a in"], &["--service-selector", "a in", "key in (a,b)"]);
        check(&["--context", "prod"], &["--kubeconfig"]);
        check(&["--kubeconfig", "f", "--objects", "d"], &["--kubeconfig", "--objects"]);
        check(&["--watch-silence", "0"], &["--watch-silence", "1 to 3600"]);
        check(&["--snapshot", "/"], &["--snapshot", "expected the path of a file"]);
        check(&["--snapshot", "s", "--objects", "d"], &["--snapshot", "--objects"]);
        check(&["--transfer", "10.0.0.0/33"], &["--transfer", "10.0.0.0/33", "10.0.0.0/8"]);
        check(&["--transfer", "10.0.0.7/8"], &["--transfer", "expected 10.0.0.0/8"]);
        check(&["--cluster-cidr", "10.96"], &["--cluster-cidr", "10.96", "10.0.0.0/8"]);
        check(&["--metrics-compat", "bind"], &["--metrics-compat", "bind", "coredns"]);
        check(&["--api-server", "10.0.0.1"], &["--api-server", "https://10.0.0.1:6443"]);
        check(&["--api-server-ca", "f"], &["--api-server"]);
        let both = ["--api-server", "http://a", "--api-server-cert", "f"];
        check(&both, &["--api-server-key"]);
        check(&["--api-server", "http://a", "--kubeconfig", "f"], &["--kubeconfig"]);
        check(&["--no-endpoints", "--zonal"], &["--zonal", "--no-endpoints"]);
        check(&["--namespace-selector", "a", "--namespace", "b"], &["--namespace"]);
        check(&["--no-such"], &["--no-such"]);
    }
}
