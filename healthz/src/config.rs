//! Every flag of healthz: name, unit, default, limit. Text becomes checked values here only.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::rr::Name;
use shared::flags::{AddressError, listen_address, seconds, server_address};
use shared::log::LogConfig;
use shared::prefix::Prefix;

pub use crate::sidecar::Compat;

pub use hickory_proto::rr::RecordType;

/// The subcommands in `--help`.
const HELP: &str = "\
Subcommands:
  ask NAME   Look a name up as a pod does, step by step; `ask --help` says more
  check      Diagnose the DNS of a pod or a cluster, and exit with 0 or 1; `check --help` says more
  probe URL  Ask an HTTP URL of the pod and exit with 0 if it answers with a status of 200 to 299,
             else with 1; `probe --help` says more";

/// Probes the programs of a DNS pod and serves its health over HTTP.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "healthz", version, after_help = HELP)]
pub struct Config {
    /// Address for HTTP: health, metrics, the status page; :: takes IPv4 too and becomes 0.0.0.0
    /// on a machine without IPv6
    #[arg(long, value_name = "IP:PORT", default_value = "[::]:10054",
          value_parser = listen_address)]
    pub http_listen: SocketAddr,

    /// File for the bound addresses, as JSON, written once all are bound: for scripts that use
    /// port 0 [default: none]
    #[arg(long, value_name = "FILE")]
    pub addresses_file: Option<PathBuf>,

    /// A question to ask again and again (repeatable). SERVER is IP or IP:PORT, an IPv6 address in
    /// brackets before a port; the port is 53 unless given; after "tcp:" it is asked over TCP. The
    /// answer must have a record of NAME and TYPE; for A and AAAA the other family counts as well.
    /// A NAME that begins with "*." is asked with a new first label each time: no cache can answer
    /// it, and NXDOMAIN is right. INTERVAL_SECONDS is 1 to 3600, 5 unless given. TYPE is A unless
    /// given. ADDRESS must be among the answers
    #[arg(long = "probe", value_name = "LABEL,SERVER,NAME[,INTERVAL_SECONDS[,TYPE[,ADDRESS]]]",
          default_values = PROBES)]
    pub probes: Vec<Probe>,

    /// Metrics under the names of another program as well: kube-dns, for those of its sidecar
    /// [default: none]
    #[arg(long, value_name = "PROGRAM", value_enum, hide_possible_values = true)]
    pub metrics_compat: Option<Compat>,

    /// Directory with the keys of the kube-dns ConfigMap; healthz shows whether they are valid
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,

    /// Unix socket for programs of the same user that have the same flag: kubedns and dnscache
    /// leave copies of their DNS sockets there. While one of them restarts, queries wait in these
    /// sockets, and its next start answers them. A socket left by an earlier run is replaced
    /// [default: none]
    #[arg(long, value_name = "PATH")]
    pub keep_sockets: Option<PathBuf>,

    /// How long the sockets of a program that has ended are kept, 1 to 600; after that they are
    /// closed, and clients get an error at once
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds(1, 600))]
    pub keep_sockets_for: Duration,

    /// HTTP address of dnscache, read once per second for the status page
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9153")]
    pub dnscache_http: SocketAddr,

    /// HTTP address of kubedns, read once per second for the status page
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    pub kubedns_http: SocketAddr,

    /// Clients that the status page shows names and clients of queries, an address or a prefix
    /// such as 10.0.0.0/8 (repeatable); clients on this machine always see them [default: none]
    #[arg(long, value_name = "PREFIX", value_parser = shared::prefix::parse)]
    pub inspect_allow: Vec<Prefix>,

    /// The log.
    #[command(flatten)]
    pub log: LogConfig,

    /// How fast a probe gives up; no flag.
    #[arg(skip)]
    pub pace: Pace,
}

impl Config {
    /// What no single flag can know: labels are unique, and there are not too many probes.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut labels = HashSet::new();
        for probe in &self.probes {
            if !labels.insert(&probe.label) {
                return Err(ConfigError::Twice { label: probe.label.clone() });
            }
        }
        match self.probes.len() {
            count if count > PROBES_MAX => Err(ConfigError::TooMany { count }),
            _ => Ok(()),
        }
    }
}

/// Why the flags do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Two probes have one label.
    #[error("label '{label}' is given to two --probe flags: labels are unique")]
    Twice {
        /// Which.
        label: String,
    },
    /// More probes than any pod has.
    #[error("{count} --probe flags: at most {PROBES_MAX} are allowed")]
    TooMany {
        /// How many.
        count: usize,
    },
}

/// How fast a probe gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// When a query over UDP is sent a second and a third time, counted from the first.
    pub resend: [Duration; 2],
    /// When a probe without an answer has failed. Every query to a program of the pod is answered
    /// within 2 s; a little later than that, its reason for failing has arrived too.
    pub deadline: Duration,
    /// The pause after a failed probe, where the interval is not shorter.
    pub retry: Duration,
    /// The same for the first probe of all, doubling up to `retry` until there is an answer: the
    /// pod starts, and its readiness is awaited.
    pub start: Duration,
    /// How long a program may start: before, failed probes are no reason for alarm.
    pub start_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            resend: [Duration::from_millis(400), Duration::from_millis(1_000)],
            deadline: Duration::from_millis(2_500),
            retry: Duration::from_secs(1),
            start: Duration::from_millis(200),
            // An image that is pulled, a large cluster that is listed.
            start_max: Duration::from_secs(30),
        }
    }
}

/// One question asked again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its name in paths, reports and metrics: 1 to 63 of A-Z, a-z, 0-9, `_` and `-`.
    pub label: String,
    /// The server that is asked.
    pub server: SocketAddr,
    /// How it is asked.
    pub transport: Transport,
    /// The name that is asked for; without its first label if that is new each time.
    pub name: Name,
    /// Whether each query gets a first label of its own.
    pub fresh: bool,
    /// From the start of one probe to the start of the next.
    pub interval: Duration,
    /// The type asked for.
    pub rtype: RecordType,
    /// An address that must be among the answers.
    pub expected: Option<IpAddr>,
}

/// How a probe asks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over UDP, then over TCP if the reply is truncated.
    Udp,
    /// Over TCP only.
    Tcp,
}

impl Probe {
    /// The name as a person writes it, `*.` first if its first label is new each time.
    pub fn question(&self) -> String {
        let text = self.name.to_ascii();
        let name = if self.name.is_root() { "." } else { text.trim_end_matches('.') };
        if self.fresh { format!("*.{name}") } else { name.to_owned() }
    }

    /// The type of the other family's addresses, if either counts: for A and AAAA, unless an
    /// address is expected.
    pub fn other_family(&self) -> Option<RecordType> {
        match (self.rtype, self.expected) {
            (RecordType::A, None) => Some(RecordType::AAAA),
            (RecordType::AAAA, None) => Some(RecordType::A),
            _ => None,
        }
    }
}

/// Why a text is not a valid probe.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Too few or too many parts.
    #[error("{}, expected LABEL,SERVER,NAME[,INTERVAL_SECONDS[,TYPE[,ADDRESS]]]",
            counted(*.count, "part"))]
    Parts {
        /// How many there are.
        count: usize,
    },
    /// The label cannot stand in a path or a metric.
    #[error("label '{label}': expected 1 to {LABEL_LEN_MAX} of A-Z, a-z, 0-9, '_' and '-'")]
    Label {
        /// As written.
        label: String,
    },
    /// The server is not an address.
    #[error("server '{server}': {source}")]
    Server {
        /// As written.
        server: String,
        /// What is allowed.
        source: AddressError,
    },
    /// The name is not a domain name.
    #[error("name '{name}': expected a domain name, such as kubernetes.default.svc.cluster.local")]
    Name {
        /// As written.
        name: String,
    },
    /// The interval is not within its bounds.
    #[error("interval '{interval}': expected whole seconds, 1 to {INTERVAL_SECS_MAX}")]
    Interval {
        /// As written.
        interval: String,
    },
    /// The address cannot be among the answers.
    #[error("address '{address}': expected an IPv4 address after A, an IPv6 address after AAAA")]
    Address {
        /// As written.
        address: String,
    },
    /// The type is not one that a probe can ask for.
    #[error("type '{rtype}': expected A, AAAA, ANY, CNAME, MX, NS, PTR, SOA, SRV or TXT")]
    Type {
        /// As written.
        rtype: String,
    },
}

impl FromStr for Probe {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let parts = text.split(',').map(str::trim).collect::<Vec<_>>();
        let (label, server, name, rest) = match &*parts {
            [label, server, name, rest @ ..] if rest.len() <= 3 => (*label, *server, *name, rest),
            _ => return Err(ProbeError::Parts { count: parts.len() }),
        };
        let interval = rest.first().copied().unwrap_or(INTERVAL);
        let rtype = parse_type(rest.get(1).copied().unwrap_or(TYPE))?;
        let expected = rest.get(2).map(|text| parse_address(text, rtype)).transpose()?;
        let (transport, address) = match server.strip_prefix("tcp:") {
            Some(address) => (Transport::Tcp, address),
            None => (Transport::Udp, server),
        };
        let server = server_address(address, DNS_PORT)
            .map_err(|source| ProbeError::Server { server: server.to_owned(), source })?;
        let (fresh, name) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        Ok(Self {
            label: parse_label(label)?,
            server,
            transport,
            name: parse_name(name, fresh)?,
            fresh,
            interval: parse_interval(interval)?,
            rtype,
            expected,
        })
    }
}

fn parse_label(text: &str) -> Result<String, ProbeError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=LABEL_LEN_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(ProbeError::Label { label: text.to_owned() })
    }
}

fn parse_name(text: &str, fresh: bool) -> Result<Name, ProbeError> {
    let wrong = || ProbeError::Name { name: text.to_owned() };
    // A space is legal in a name and always a mistake on a command line.
    if text.is_empty() || text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(wrong());
    }
    let mut name = Name::from_ascii(text).map_err(|_| wrong())?;
    name.set_fqdn(true);
    let room = if fresh { NAME_LEN_MAX - FRESH_LABEL_LEN - 1 } else { NAME_LEN_MAX };
    if name.len() > room { Err(wrong()) } else { Ok(name) }
}

fn parse_interval(text: &str) -> Result<Duration, ProbeError> {
    match text.parse() {
        Ok(seconds @ 1..=INTERVAL_SECS_MAX) => Ok(Duration::from_secs(seconds)),
        _ => Err(ProbeError::Interval { interval: text.to_owned() }),
    }
}

fn parse_type(text: &str) -> Result<RecordType, ProbeError> {
    let rtype = text.to_ascii_uppercase().parse().ok();
    let wrong = || ProbeError::Type { rtype: text.to_owned() };
    rtype.filter(|rtype| TYPES.contains(rtype)).ok_or_else(wrong)
}

fn parse_address(text: &str, rtype: RecordType) -> Result<IpAddr, ProbeError> {
    let fits = |address: &IpAddr| match rtype {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        _ => false,
    };
    let wrong = || ProbeError::Address { address: text.to_owned() };
    text.parse().ok().filter(fits).ok_or_else(wrong)
}

/// `1 part`, `2 parts`: English for `count` things.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// The types a probe may ask for: those a cluster's DNS serves, and sidecar's ANY.
const TYPES: [RecordType; 10] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::ANY,
    RecordType::CNAME,
    RecordType::MX,
    RecordType::NS,
    RecordType::PTR,
    RecordType::SOA,
    RecordType::SRV,
    RecordType::TXT,
];
/// The programs of the same pod over UDP and TCP, and a name that the cache cannot have.
const PROBES: [&str; 5] = [
    "kubedns,127.0.0.1:10053,kubernetes.default.svc.cluster.local,5,A",
    "kubedns-tcp,tcp:127.0.0.1:10053,kubernetes.default.svc.cluster.local,5,A",
    "dnscache,127.0.0.1:53,kubernetes.default.svc.cluster.local,5,A",
    "dnscache-tcp,tcp:127.0.0.1:53,kubernetes.default.svc.cluster.local,5,A",
    "dnscache-miss,127.0.0.1:53,*.default.svc.cluster.local,5,A",
];
/// Seconds from probe to probe, unless given.
const INTERVAL: &str = "5";
/// If the name has no IPv4 address, AAAA is asked as well.
const TYPE: &str = "A";
/// An hour: less often is no watch.
const INTERVAL_SECS_MAX: u64 = 3_600;
/// Each probe costs a task, a page section and a handful of series.
const PROBES_MAX: usize = 64;
/// As long as a DNS label may be.
const LABEL_LEN_MAX: usize = 63;
/// Bytes of a name on the wire (RFC 1035 section 2.3.4).
const NAME_LEN_MAX: usize = 255;
/// Characters of a first label that is new each time: `healthz-` and 16 hexadecimal digits.
pub(crate) const FRESH_LABEL_LEN: usize = 24;
/// Where DNS is served (RFC 1035 section 4.2).
pub(crate) const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use shared::flags::{Stop, parse_from};

    use super::*;

    #[test]
    fn probes_are_read_as_sidecar_writes_them() {
        let rows = [
            ("a,10.0.0.1,x.y", "a 10.0.0.1:53 x.y A 5 s Udp"),
            ("a,10.0.0.1:10053,x.y.,10", "a 10.0.0.1:10053 x.y A 10 s Udp"),
            ("a_B-1,fd00::1,_http._tcp.x,1,srv", "a_B-1 [fd00::1]:53 _http._tcp.x SRV 1 s Udp"),
            ("a,[fd00::1]:5353,x,3600,AAAA", "a [fd00::1]:5353 x AAAA 3600 s Udp"),
            ("a, 127.0.0.1, x, 5, ANY", "a 127.0.0.1:53 x ANY 5 s Udp"),
            ("a,[127.0.0.1]:10053,x,5,SRV", "a 127.0.0.1:10053 x SRV 5 s Udp"),
            ("a,tcp:127.0.0.1,x", "a 127.0.0.1:53 x A 5 s Tcp"),
            ("a,tcp:[::1]:54,*.x.y", "a [::1]:54 *.x.y A 5 s Tcp"),
            ("a,127.0.0.1,.", "a 127.0.0.1:53 . A 5 s Udp"),
            ("a,::1,x,5,A,10.96.0.1", "a [::1]:53 x A 5 s Udp 10.96.0.1"),
            ("a,::1,*.x,5,aaaa,fd00::1", "a [::1]:53 *.x AAAA 5 s Udp fd00::1"),
        ];
        for (text, expected) in rows {
            let probe = text.parse::<Probe>().unwrap();
            let Probe { label, server, transport, rtype, .. } = &probe;
            let (name, seconds) = (probe.question(), probe.interval.as_secs());
            let mut read = format!("{label} {server} {name} {rtype} {seconds} s {transport:?}");
            read.extend(probe.expected.map(|address| format!(" {address}")));
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_probe_is_one_line_that_says_what_is_allowed() {
        let long = format!("a,127.0.0.1,{}x", "abcdefg.".repeat(32));
        let rows = [
            ("", "1 part, expected LABEL,SERVER,NAME"),
            ("a,127.0.0.1", "2 parts"),
            ("a,127.0.0.1,x,5,A,10.0.0.1,7", "7 parts"),
            ("a,127.0.0.1,x,5,A,6", "address '6': expected an IPv4 address after A"),
            ("a,127.0.0.1,x,5,A,::1", "address '::1'"),
            ("a,127.0.0.1,x,5,AAAA,10.0.0.1", "address '10.0.0.1'"),
            ("a,127.0.0.1,x,5,SRV,10.0.0.1", "address '10.0.0.1'"),
            ("a,127.0.0.1,x,5,A,", "address ''"),
            (",127.0.0.1,x", "label ''"),
            ("a b,127.0.0.1,x", "label 'a b': expected 1 to 63"),
            ("a/b,127.0.0.1,x", "label 'a/b'"),
            ("a,localhost,x", "server 'localhost': expected IP"),
            ("a,127.0.0.1:,x", "server '127.0.0.1:'"),
            ("a,127.0.0.1:0,x", "port 0 is not allowed"),
            ("a,127.0.0.1:65536,x", "server '127.0.0.1:65536'"),
            ("a,udp:127.0.0.1,x", "server 'udp:127.0.0.1'"),
            ("a,127.0.0.1,", "name ''"),
            ("a,127.0.0.1,x..y", "name 'x..y': expected a domain name"),
            ("a,127.0.0.1,x y", "name 'x y'"),
            (&long, "name 'abcdefg."),
            ("a,127.0.0.1,x,0", "interval '0': expected whole seconds, 1 to 3600"),
            ("a,127.0.0.1,x,3601", "interval '3601'"),
            ("a,127.0.0.1,x,1.5", "interval '1.5'"),
            ("a,127.0.0.1,x,-1", "interval '-1'"),
            ("a,127.0.0.1,x,5,", "type '': expected A, AAAA"),
            ("a,127.0.0.1,x,5,AXFR", "type 'AXFR'"),
        ];
        for (text, expected) in rows {
            let Err(Stop::Wrong(line)) = parse_from::<Config>(["healthz", "--probe", text]) else {
                panic!("{text} was taken");
            };
            let named = line.contains("--probe") && line.contains(expected);
            assert!(named && !line.contains('\n'), "{text}: {line}");
        }
    }

    #[test]
    fn the_defaults_are_the_pod_and_labels_are_unique() {
        let config = parse_from::<Config>(["healthz"]).unwrap();
        let labels = config.probes.iter().map(|probe| probe.label.as_str()).collect::<Vec<_>>();
        let expected = ["kubedns", "kubedns-tcp", "dnscache", "dnscache-tcp", "dnscache-miss"];
        assert_eq!(labels, expected);
        for program in ["kubedns", "dnscache"] {
            let of = config.probes.iter().filter(|probe| probe.label.starts_with(program));
            let transports: Vec<_> = of.map(|probe| probe.transport).collect();
            assert!(transports.contains(&Transport::Udp) && transports.contains(&Transport::Tcp));
        }
        assert!(config.probes[4].fresh);
        assert_eq!(config.http_listen, "[::]:10054".parse().unwrap());
        assert_eq!(config.check(), Ok(()));
        let twice = ["healthz", "--probe", "a,::1,x", "--probe", "a,::1,y"];
        let error = parse_from::<Config>(twice).unwrap().check().unwrap_err();
        assert_eq!(error.to_string(), "label 'a' is given to two --probe flags: labels are unique");
        let many = (0..=PROBES_MAX).map(|label| format!("--probe={label},::1,x"));
        let many = std::iter::once("healthz".to_owned()).chain(many);
        let error = parse_from::<Config>(many).unwrap().check().unwrap_err();
        assert_eq!(error, ConfigError::TooMany { count: PROBES_MAX + 1 });
    }
}
