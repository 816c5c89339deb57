//! What the resolver of this pod or machine is set to.
//!
//! Core. Facts in, finding out.

use hickory_proto::rr::RecordType;

use super::{Judged, listed, right, warning, wrong};
use crate::check::facts::{Facts, known};
use crate::check::resolv::Resolv;
use crate::check::talk::Question;

/// The file of a pod that asks the cluster's DNS; the pod of the DNS itself asks the upstreams.
fn client(facts: &Facts) -> Result<&Resolv, String> {
    match known(&facts.resolv)? {
        _ if facts.is_dns_pod => {
            Err("this is the pod of the DNS, and its resolv.conf names the upstreams".to_owned())
        }
        resolv if is_of_cluster(facts, resolv) => Ok(resolv),
        _ => Err("the resolv.conf of this machine names another DNS".to_owned()),
    }
}

/// Whether the file leads to the DNS that is checked, or was meant to.
fn is_of_cluster(facts: &Facts, resolv: &Resolv) -> bool {
    let of_service = facts.dns_service().map(|service| service.addresses.as_slice());
    let of_service = of_service.unwrap_or_default();
    let leads = |address| {
        of_service.contains(&address)
            || facts.servers.iter().any(|server| server.address.ip() == address)
    };
    !resolv.cluster_domains(&facts.subject.domain).is_empty()
        || resolv.nameservers.iter().any(|server| leads(server.ip()))
}

pub fn resolv_conf(facts: &Facts) -> Judged {
    let resolv = known(&facts.resolv)?;
    let servers: Vec<_> = resolv.nameservers.iter().map(|server| server.ip()).collect();
    match servers.is_empty() {
        true => wrong(
            "/etc/resolv.conf has no line nameserver",
            "/etc/resolv.conf of this pod names no DNS server, so no name can resolve; check \
             clusterDNS of the kubelet and the dnsPolicy of the pod.",
        ),
        false => right(format!("nameserver {}", listed(&servers))),
    }
}

pub fn nameserver(facts: &Facts) -> Judged {
    let resolv = client(facts)?;
    let service = facts.dns_service()?;
    let Some(used) = resolv.nameservers.first() else {
        return Err("resolv.conf names no server".to_owned());
    };
    let address = listed(&service.addresses);
    if service.addresses.contains(&used.ip()) {
        return right(format!("{} is the address of Service {}", used.ip(), service.path()));
    }
    let is_local = used.ip().to_string().starts_with("169.254.") || used.ip().is_loopback();
    if is_local && facts.working().is_ok() {
        return right(format!("{} is a cache on this node", used.ip()));
    }
    wrong(
        format!("nameserver {}, Service {} has {address}", used.ip(), service.path()),
        format!(
            "Pods use {}, but the Service {} has {address}; correct clusterDNS in the kubelet \
             configuration.",
            used.ip(),
            service.name
        ),
    )
}

pub fn search_list(facts: &Facts) -> Judged {
    let resolv = client(facts)?;
    let domain = &facts.subject.domain;
    let of_cluster = resolv.cluster_domains(domain);
    let is_complete = of_cluster.iter().any(|it| *it == format!("svc.{domain}"));
    match (resolv.search.is_empty(), is_complete) {
        (true, _) => warning(
            "no line search",
            "/etc/resolv.conf of this pod has no search list, so short names such as `web` cannot \
             resolve; its dnsPolicy is Default. Set dnsPolicy ClusterFirst, or \
             ClusterFirstWithHostNet with hostNetwork.",
        ),
        (false, false) => warning(
            format!("search {}", resolv.search.join(" ")),
            format!(
                "The search list of this pod has no svc.{domain}, so short names of Services \
                 cannot resolve; check clusterDomain of the kubelet and --domain of this check."
            ),
        ),
        (false, true) => right(format!("search {}", resolv.search.join(" "))),
    }
}

pub fn options(facts: &Facts) -> Judged {
    let resolv = client(facts)?;
    let shown = format!(
        "ndots {}, timeout {} s, {} attempts",
        resolv.ndots, resolv.timeout_secs, resolv.attempts
    );
    if resolv.ndots > NDOTS_MAX {
        return warning(
            &shown,
            format!(
                "ndots is {}, so nearly every outside name is tried with {} search domains first; \
                 set ndots to 5 or less in the dnsConfig of the pod.",
                resolv.ndots,
                resolv.search.len()
            ),
        );
    }
    right(shown)
}

/// A domain of the search list that has an address for every name takes outside names over.
pub fn hijack(facts: &Facts) -> Judged {
    let resolv = client(facts)?;
    let server = facts.alive()?;
    let of_cluster = resolv.cluster_domains(&facts.subject.domain);
    let others = resolv.search.iter().filter(|domain| !of_cluster.contains(&domain.as_str()));
    let others: Vec<&String> = others.collect();
    for domain in &others {
        let question = Question::new(&format!("{}.{domain}", facts.subject.fresh), RecordType::A);
        let Ok(answer) = server.answer(&question) else { continue };
        if let Some(address) = answer.addresses().first() {
            return wrong(
                format!("a random name below {domain} resolves to {address}"),
                format!(
                    "The search domain {domain} answers every name with {address}, so outside \
                     names without a final dot go to the wrong host; remove it from the search \
                     list, or the wildcard from the domain."
                ),
            );
        }
    }
    right(match others.len() {
        0 => "none".to_owned(),
        _ => format!("{}: random names below do not resolve", listed(&others)),
    })
}

pub fn ipv6(facts: &Facts) -> Judged {
    let has_route = facts.after.has_ipv6_route.ok_or("the routes cannot be read")?;
    let server = facts.outward()?;
    let answer = server.answer(&facts.subject.outside(RecordType::AAAA))?;
    match (has_route, answer.data(RecordType::AAAA).first()) {
        (true, _) => right("there is a default route for IPv6"),
        (false, None) => right("no default route for IPv6, and no AAAA records"),
        // Resolvers of today (RFC 6724) sort addresses without a route last: names resolve.
        (false, Some(address)) => warning(
            format!("{} has AAAA {address}, there is no default route", facts.subject.outside),
            "AAAA records are returned for outside names, but this pod has no IPv6 route; clients \
             wait before they use IPv4. Start dnscache with --filter-aaaa.",
        ),
    }
}

/// The kubelet's own value.
const NDOTS_MAX: usize = 5;
