//! The flags of `healthz check`.
//!
//! Plain values and their parsers; what they mean is the business of the other files.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use shared::flags::{seconds, server_address};

use super::talk::Question;
use crate::config::DNS_PORT;

/// Diagnoses the DNS of a pod or a cluster: about 70 checks, one line each, and a sentence about
/// each fault. Exits with 0 if names resolve, with 1 if a check found a fault. Sends DNS queries,
/// HTTP requests and lists to the API server; writes nothing. A check without its right, file or
/// address is not made, and the report gives the reason.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "check")]
pub struct Options {
    /// DNS server that clients ask, IP or IP:PORT (repeatable) [default: 127.0.0.1 in the pod of
    /// the DNS, else those of /etc/resolv.conf]
    #[arg(long = "server", value_name = "ADDRESS", value_parser = server)]
    pub servers: Vec<SocketAddr>,

    /// Server behind the address of the Service (repeatable) [default: the endpoints of the
    /// Service, from the API server]
    #[arg(long = "replica", value_name = "ADDRESS", value_parser = server)]
    pub replicas: Vec<SocketAddr>,

    /// Server that outside names are asked of (repeatable) [default: those in the metrics of
    /// dnscache]
    #[arg(long = "upstream", value_name = "ADDRESS", value_parser = server)]
    pub upstreams: Vec<SocketAddr>,

    /// Cluster domain
    #[arg(long, value_name = "NAME", default_value = "cluster.local", value_parser = domain)]
    pub domain: String,

    /// Name outside the cluster that exists
    #[arg(long, value_name = "NAME", default_value = "example.com", value_parser = domain)]
    pub outside: String,

    /// Name and type whose answer has more than 1,400 bytes
    #[arg(long, value_name = "NAME,TYPE", default_value = ".,DNSKEY", value_parser = question)]
    pub large: Question,

    /// Service of the DNS
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "kube-system/kube-dns",
          value_parser = service)]
    pub service: (String, String),

    /// Namespace whose NetworkPolicies are looked at [default: that of this pod]
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,

    /// HTTP address of dnscache
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9153")]
    pub dnscache: SocketAddr,

    /// HTTP address of kubedns
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    pub kubedns: SocketAddr,

    /// DNS address of kubedns
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10053")]
    pub kubedns_dns: SocketAddr,

    /// The API server.
    #[command(flatten)]
    pub access: Access,

    /// Directory with the key stubDomains of the kube-dns ConfigMap [default: none]
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,

    /// Settings of the resolver of this pod or machine
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_file: PathBuf,

    /// Directory that holds proc and sys: another one to check the node from a pod
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,

    /// Time for each answer in seconds, 1 to 30
    #[arg(long, value_name = "SECONDS", value_parser = seconds(1, 30), default_value = "3")]
    pub timeout: Duration,

    /// Check again until nothing is wrong, for at most so many seconds, 0 to 3600
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0, 3_600), default_value = "0")]
    pub wait: Duration,

    /// Only the checks of this category (repeatable) [default: all]
    #[arg(long = "category", value_name = "NAME", value_parser = CATEGORIES)]
    pub categories: Vec<String>,

    /// Form of the report; short leaves out what is right
    #[arg(long, short, value_name = "FORM", value_enum, default_value = "text")]
    pub output: Form,

    /// Print the name of every check and what it needs, and make none
    #[arg(long)]
    pub list: bool,
}

/// Where the API server is, and who asks it.
#[derive(Clone, Debug, clap::Args)]
pub struct Access {
    /// API server as a URL without credentials, such as http://127.0.0.1:8001 of `kubectl proxy`
    /// [default: the kubeconfig file, or the service account of the pod]
    #[arg(long, value_name = "URL", conflicts_with = "kubeconfig")]
    pub api: Option<String>,

    /// Kubeconfig file; tokens and client certificates are used, plugins are not run
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig file [default: its current one]
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    pub context: Option<String>,
}

/// The form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Every check.
    Text,
    /// Warnings and faults.
    Short,
    /// For programs.
    Json,
}

/// Reads the address of a DNS server.
pub fn server(text: &str) -> Result<SocketAddr, shared::flags::AddressError> {
    server_address(text, DNS_PORT)
}

/// Why a text is not a value.
#[derive(Clone, Debug, thiserror::Error)]
#[error("expected {0}")]
pub struct Expected(&'static str);

fn domain(text: &str) -> Result<String, Expected> {
    shared::name::domain(text).ok_or(Expected("a domain name, such as cluster.local"))
}

fn service(text: &str) -> Result<(String, String), Expected> {
    let expected = Expected("NAMESPACE/NAME, such as kube-system/kube-dns");
    match text.split_once('/') {
        Some((namespace, name))
            if [namespace, name].iter().all(|it| shared::name::domain(it).is_some()) =>
        {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(expected),
    }
}

fn question(text: &str) -> Result<Question, Expected> {
    let expected = Expected("NAME,TYPE, such as .,DNSKEY");
    let read = || {
        let (name, rtype) = text.rsplit_once(',')?;
        let question = Question::new(name, rtype.to_ascii_uppercase().parse().ok()?);
        question.encode(super::talk::Over::Udp, 0).is_some().then_some(question)
    };
    read().ok_or(expected)
}

/// The categories of the table; a test compares them.
const CATEGORIES: [&str; 10] = [
    "client",
    "service",
    "transport",
    "names",
    "outside",
    "upstreams",
    "replicas",
    "programs",
    "system",
    "objects",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::judge::CHECKS;

    #[test]
    fn every_category_of_the_table_can_be_chosen() {
        let mut found: Vec<&str> = CHECKS.iter().map(|check| check.category).collect();
        found.dedup();
        assert_eq!(found, CATEGORIES);
        let mut names: Vec<_> = CHECKS.iter().map(|check| (check.category, check.name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len(), "names are unique within their category");
    }

    #[test]
    fn wrong_values_are_refused_with_what_is_allowed() {
        let rows: [(&[&str], &str); 6] = [
            (&["--server", "localhost"], "expected IP"),
            (&["--service", "kube-dns"], "expected NAMESPACE/NAME"),
            (&["--large", "x"], "expected NAME,TYPE"),
            (&["--category", "all"], "client, service"),
            (&["--timeout", "0"], "expected whole seconds, 1 to 30"),
            (&["--domain", "a b"], "expected a domain name"),
        ];
        for (arguments, part) in rows {
            let arguments = ["check"].iter().chain(arguments);
            let error = shared::flags::parse_from::<Options>(arguments.copied()).unwrap_err();
            assert!(
                matches!(&error, shared::flags::Stop::Wrong(line) if line.contains(part)),
                "{error:?}"
            );
        }
    }
}
