//! What a judge returns, and the table of all checks.
//!
//! Core. A check is a row: its category, its name, what it needs, and the function that judges.

mod client;
mod names;
mod objects;
mod outside;
mod programs;
mod replicas;
mod service;
mod system;
mod transport;
mod upstreams;

pub use names::mixed;

use super::facts::Facts;

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All is well.
    Right(String),
    /// Names resolve, but an operator should know.
    Warning {
        /// What was seen.
        seen: String,
        /// What is wrong, and what to do.
        advice: String,
    },
    /// Names do not resolve, or resolve wrongly.
    Wrong {
        /// What was seen.
        seen: String,
        /// What is wrong, and what to do.
        advice: String,
    },
}

/// A finding, or why the check could not be made.
pub type Judged = Result<Finding, String>;

/// A row of the table.
#[derive(Debug)]
pub struct Check {
    /// The heading that it stands under, and the value of `--category`.
    pub category: &'static str,
    /// What is checked.
    pub name: &'static str,
    /// What the check needs besides DNS.
    pub needs: &'static str,
    /// Facts in, finding out.
    pub judge: fn(&Facts) -> Judged,
}

/// Every check, in the order of the report.
pub const CHECKS: &[Check] = &[
    row("client", "resolv.conf", FILE, client::resolv_conf),
    row("client", "nameserver", API, client::nameserver),
    row("client", "search list", FILE, client::search_list),
    row("client", "options", FILE, client::options),
    row("client", "search domains outside the cluster", FILE, client::hijack),
    row("client", "IPv6", "/proc/net/ipv6_route", client::ipv6),
    row("service", "Service", API, service::exists),
    row("service", "selector", API, service::selector),
    row("service", "ready endpoints", API, service::endpoints),
    row("service", "ports", API, service::ports),
    row("service", "network policies", API, service::policies),
    row("transport", "UDP", "", transport::udp),
    row("transport", "TCP", "", transport::tcp),
    row("transport", "round trip", "", transport::round_trip),
    row("transport", "EDNS", "", transport::edns),
    row("transport", "queries without EDNS", "", transport::plain),
    row("transport", "large answers", "", transport::large),
    row("transport", "recursion", "", transport::recursion),
    row("names", "A", "", names::a),
    row("names", "AAAA", "", names::aaaa),
    row("names", "SRV", "", names::srv),
    row("names", "SOA of the zone", "", names::soa),
    row("names", "NS of the zone", "", names::ns),
    row("names", "version of the schema", "", names::schema),
    row("names", "missing names", "", names::missing),
    row("names", "missing types", "", names::missing_type),
    row("names", "letter case", "", names::letter_case),
    row("names", "search path", FILE, names::search_path),
    row("names", "reverse names", "", names::reverse),
    row("names", "truth of Services", API, names::truth),
    row("names", "cache against kubedns", PAGES, names::cache),
    row("outside", "A", "", outside::a),
    row("outside", "AAAA", "", outside::aaaa),
    row("outside", "missing names", "", outside::missing),
    row("outside", "cost of the search list", PAGES, outside::cost),
    row("upstreams", "UDP", UPSTREAMS, upstreams::udp),
    row("upstreams", "TCP", UPSTREAMS, upstreams::tcp),
    row("upstreams", "loss", UPSTREAMS, upstreams::loss),
    row("upstreams", "round trip", UPSTREAMS, upstreams::round_trip),
    row("upstreams", "both families", UPSTREAMS, upstreams::families),
    row("upstreams", "large answers", UPSTREAMS, upstreams::large),
    row("upstreams", "loop", UPSTREAMS, upstreams::looping),
    row("upstreams", "stub domains", "--config-dir", upstreams::stubs),
    row("replicas", "UDP", REPLICAS, replicas::udp),
    row("replicas", "TCP", REPLICAS, replicas::tcp),
    row("replicas", "same answers", REPLICAS, replicas::agree),
    row("replicas", "answers of the Service address", REPLICAS, replicas::fronted),
    row("programs", "dnscache", PAGES, programs::dnscache),
    row("programs", "kubedns", PAGES, programs::kubedns),
    row("programs", "watches", PAGES, programs::watches),
    row("programs", "rights", PAGES, programs::rights),
    row("programs", "change stream", PAGES, programs::changes),
    row("programs", "configuration", PAGES, programs::configuration),
    row("programs", "versions", PAGES, programs::versions),
    row("programs", "limits", PAGES, programs::limits),
    row("programs", "receive queue", PAGES, programs::queue),
    row("system", "receive buffers", "/proc/net/snmp", system::buffers),
    row("system", "TCP listeners", "/proc/net/netstat", system::listeners),
    row("system", "tracked connections", "nf_conntrack", system::tracked),
    row("system", "insertion of tracked connections", "nf_conntrack", system::insertions),
    row("system", "CPU time", "cpu.stat", system::throttled),
    row("system", "clock", API, system::clock),
    row("objects", "Services without ready endpoints", API, objects::endless),
    row("objects", "headless Services", API, objects::headless),
    row("objects", "subdomains of Pods", API, objects::subdomains),
    row("objects", "Namespaces named as top-level domains", API, objects::namespaces),
    row("objects", "addresses as ExternalName", API, objects::address_names),
    row("objects", "targets of ExternalName", API, objects::targets),
];

const fn row(
    category: &'static str,
    name: &'static str,
    needs: &'static str,
    judge: fn(&Facts) -> Judged,
) -> Check {
    Check { category, name, needs, judge }
}

const FILE: &str = "resolv.conf";
const API: &str = "the API server";
const PAGES: &str = "the HTTP pages of the programs";
const UPSTREAMS: &str = "the addresses of the upstreams";
const REPLICAS: &str = "the addresses of the replicas";

fn right(seen: impl Into<String>) -> Judged {
    Ok(Finding::Right(seen.into()))
}

fn warning(seen: impl Into<String>, advice: impl Into<String>) -> Judged {
    Ok(Finding::Warning { seen: seen.into(), advice: advice.into() })
}

fn wrong(seen: impl Into<String>, advice: impl Into<String>) -> Judged {
    Ok(Finding::Wrong { seen: seen.into(), advice: advice.into() })
}

/// The first few of `all`, with the number of the others.
fn listed<T: ToString>(all: &[T]) -> String {
    let shown: Vec<String> = all.iter().take(SHOWN_MAX).map(T::to_string).collect();
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// `412 us`, `12 ms`, `1.8 s`.
fn span(span: std::time::Duration) -> String {
    match span.as_micros() {
        micros @ 0..1_000 => format!("{micros} us"),
        micros @ 1_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{:.1} s", span.as_secs_f64()),
    }
}

/// More of a kind are counted, not named.
const SHOWN_MAX: usize = 4;
