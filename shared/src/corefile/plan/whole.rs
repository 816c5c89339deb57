//! Maps lines that concern several blocks: addresses, the cluster, lifetimes.
//!
//! Core.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::keys::{Scheme, Zone};
use super::super::plugins::{External, Kubernetes, Server, Stale};
use super::{Program, Rows, Surroundings};

/// Refuses keys that cannot be served, or that two blocks have.
pub fn check_listeners(servers: &[Server], rows: &mut Rows) {
    let mut taken: BTreeMap<(&Zone, u16, Option<IpAddr>), usize> = BTreeMap::new();
    let mut ports_of: BTreeMap<&Zone, BTreeSet<u16>> = BTreeMap::new();
    for server in servers {
        for key in &server.keys {
            match key.scheme {
                Scheme::Dns => {}
                Scheme::Tls if server.listening.tls.is_some() => {}
                Scheme::Tls => {
                    rows.refuse(server.index, "tls:// needs a certificate; write tls CERT KEY");
                }
                other => {
                    let reason = format!("there is no listener for {}", other.prefix());
                    rows.refuse(server.index, reason + "; expected dns://, tls:// or no scheme");
                    continue;
                }
            }
            let port = key.port.unwrap_or(key.scheme.port());
            let binds = server.listening.bind.iter().map(|&(_, address)| Some(address));
            let mut binds: BTreeSet<Option<IpAddr>> = binds.collect();
            if binds.is_empty() {
                binds.insert(None);
            }
            for zone in &key.zones {
                for &bind in &binds {
                    let other = *taken.entry((zone, port, bind)).or_insert(server.index);
                    if other != server.index {
                        let reason = format!("{zone}:{port} is served by another block already");
                        rows.refuse(server.index, reason + "; remove one of the two keys");
                    }
                }
                let ports = ports_of.entry(zone).or_default();
                ports.insert(port);
                let elsewhere = servers.iter().any(|other| {
                    other.index < server.index && other.zones().any(|its| its == zone)
                });
                if ports.len() > 1 && elsewhere {
                    let reason = format!(
                        "{zone} has another block on another port; dnscache answers alike on all \
                         its ports, so write one block with both keys"
                    );
                    rows.refuse(server.index, reason);
                }
            }
        }
    }
}

/// Maps the settings of the whole program.
pub fn map_servers(servers: &[Server], surroundings: Surroundings, rows: &mut Rows) {
    for server in servers {
        let index = server.listening.bind.first().map_or(server.index, |&(index, _)| index);
        for (scheme, flag) in [(Scheme::Dns, "listen"), (Scheme::Tls, "tls-listen")] {
            for address in addresses(server, scheme) {
                rows.set(index, (Program::Dnscache, flag), address);
            }
        }
    }
    map_certificate(servers, rows);
    map_logs(servers, rows);
    map_metrics(servers, rows);
    map_cluster(servers, surroundings, rows);
    map_cache(servers, rows);
    map_stale(servers, rows);
    map_tls(servers, rows);
}

/// One log has the queries of all blocks.
fn map_logs(servers: &[Server], rows: &mut Rows) {
    let logs = servers.iter().flat_map(|server| server.logs.iter().map(move |it| (server, it)));
    for (server, log) in logs {
        rows.set(log.index, (Program::Dnscache, "log-queries"), 1);
        let zones: Vec<&Zone> = match &log.zones[..] {
            [] => server.zones().collect(),
            named => named.iter().collect(),
        };
        for zone in zones {
            let filter = |class: &str| format!("name:{zone}{class}");
            if log.classes.is_empty() {
                rows.set(log.index, (Program::Dnscache, "log-filter"), filter(""));
            }
            for class in &log.classes {
                let filter = filter(&format!(",class:{class}"));
                rows.set(log.index, (Program::Dnscache, "log-filter"), filter);
            }
        }
    }
}

/// All clients over TLS are shown one certificate.
fn map_certificate(servers: &[Server], rows: &mut Rows) {
    let mut first: Option<&[String; 2]> = None;
    for server in servers {
        let Some((index, files)) = &server.listening.tls else { continue };
        if addresses(server, Scheme::Tls).is_empty() {
            rows.build_in(*index, "no key of the block begins with tls://");
        } else if *first.get_or_insert(files) == files {
            rows.set(*index, (Program::Dnscache, "tls-cert"), &files[0]);
            rows.set(*index, (Program::Dnscache, "tls-key"), &files[1]);
        } else {
            let reason = format!("clients are shown {} already; write the same files", files[0]);
            rows.refuse(*index, reason);
        }
    }
    if first.is_some() && servers.iter().all(|it| addresses(it, Scheme::Dns).is_empty()) {
        let text = "dnscache answers over UDP and TCP as well, on its default addresses";
        servers.iter().for_each(|server| rows.build_in(server.index, text));
    }
}

/// Returns the addresses on which a block listens for queries of this kind.
fn addresses(server: &Server, scheme: Scheme) -> Vec<SocketAddr> {
    let every = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let bind: Vec<IpAddr> = match &server.listening.bind[..] {
        [] => every.to_vec(),
        bind => bind.iter().map(|&(_, address)| address).collect(),
    };
    let mut addresses = Vec::new();
    for key in server.keys.iter().filter(|key| key.scheme == scheme) {
        let port = key.port.unwrap_or(key.scheme.port());
        for &ip in &bind {
            let address = SocketAddr::new(ip, port);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    addresses
}

/// dnscache has one address for metrics.
fn map_metrics(servers: &[Server], rows: &mut Rows) {
    let mut first = None;
    for &(index, address) in servers.iter().flat_map(|server| &server.listening.metrics) {
        let first = *first.get_or_insert(address);
        if first != address {
            let reason = format!("metrics are served on {first} already; write one address");
            rows.refuse(index, reason);
            continue;
        }
        rows.set(index, (Program::Dnscache, "http-listen"), address);
        for program in [Program::Kubedns, Program::Dnscache] {
            rows.set(index, (program, "metrics-compat"), "coredns");
        }
    }
}

fn map_cluster(servers: &[Server], surroundings: Surroundings, rows: &mut Rows) {
    let mut clusterset: Option<&Zone> = None;
    for (at, server) in servers.iter().enumerate() {
        if let Some(kubernetes) = &server.kubernetes {
            if let Some(before) = servers[..at].iter().find_map(|it| it.kubernetes.as_ref()) {
                let reason = match (&before.domain, &kubernetes.domain) {
                    (Some(one), Some(other)) if one != other => {
                        format!("kubedns serves one cluster domain, and that is {one}")
                    }
                    _ => "kubernetes has a line in another block; write both keys there".to_owned(),
                };
                rows.refuse(kubernetes.index, reason);
                continue;
            }
            map_kubernetes(kubernetes, surroundings, rows);
        }
        let ours = server.kubernetes.as_ref().and_then(|it| it.clusterset.as_ref());
        let ours = ours.map(|(index, zone)| (*index, zone));
        let external = server.multicluster.as_ref().map(|it| (it.index, &it.zone));
        for (index, zone) in ours.into_iter().chain(external) {
            match clusterset {
                Some(before) if before != zone => {
                    let reason = format!("kubedns serves one clusterset, and that is {before}");
                    rows.refuse(index, reason);
                }
                _ => rows.set(index, (Program::Kubedns, "clusterset-domain"), zone),
            }
            clusterset = Some(zone);
        }
    }
    map_external(servers, rows);
    check_etcd(servers, rows);
    check_nested(servers, rows);
}

/// Maps the zones of external addresses.
fn map_external(servers: &[Server], rows: &mut Rows) {
    let mut first: Option<&External> = None;
    for external in servers.iter().filter_map(|server| server.external.as_ref()) {
        if first.is_some() {
            let reason = "k8s_external has a line in another block; write all zones there";
            rows.refuse(external.index, reason);
            continue;
        }
        first = Some(external);
        if !servers.iter().any(|server| server.kubernetes.is_some()) {
            rows.refuse(external.index, "k8s_external needs kubernetes; write it in the block");
        }
        for zone in &external.zones {
            if zone.is_root() || zone.is_reverse() {
                let reason = "external addresses have names in forward zones; write a domain, \
                    such as k8s_external example.org";
                rows.refuse(external.index, reason);
            } else {
                rows.set(external.index, (Program::Kubedns, "external-domain"), zone);
            }
        }
    }
}

/// Refuses zones in etcd in several blocks: kubedns reads one etcd.
fn check_etcd(servers: &[Server], rows: &mut Rows) {
    for etcd in servers.iter().filter_map(|server| server.etcd.as_ref()).skip(1) {
        rows.refuse(etcd.index, "etcd has a line in another block; write all zones there");
    }
}

/// Refuses zones of kubedns of which one is within the other.
fn check_nested(servers: &[Server], rows: &mut Rows) {
    let mut zones: Vec<(usize, &Zone)> = Vec::new();
    for server in servers {
        if let Some(kubernetes) = &server.kubernetes {
            let own = kubernetes.domain.iter().chain(&kubernetes.further);
            zones.extend(own.map(|zone| (kubernetes.index, zone)));
            zones.extend(kubernetes.clusterset.iter().map(|(index, zone)| (*index, zone)));
        }
        zones.extend(server.multicluster.iter().map(|it| (it.index, &it.zone)));
        let external = server.external.iter();
        zones.extend(external.flat_map(|it| it.zones.iter().map(|zone| (it.index, zone))));
    }
    let etcd = servers.iter().flat_map(|server| &server.etcd);
    zones.extend(etcd.flat_map(|it| it.zones.iter().map(|zone| (it.index, zone))));
    zones.retain(|(_, zone)| !zone.is_root());
    for (at, (index, zone)) in zones.iter().enumerate() {
        let mut others = zones.iter().enumerate().filter(|(other, _)| *other != at);
        let nested = others.find(|(_, (_, other))| other != zone && zone.is_within(other));
        if let Some((_, (other_index, other))) = nested {
            let reason = format!("one of {other} and {zone} is within the other");
            rows.refuse(*index, reason.clone());
            rows.refuse(*other_index, reason);
        }
    }
}

fn map_kubernetes(kubernetes: &Kubernetes, surroundings: Surroundings, rows: &mut Rows) {
    let index = kubernetes.index;
    if let Some(domain) = &kubernetes.domain {
        if domain.is_root() {
            rows.refuse(index, "the cluster domain cannot be the root; write cluster.local");
            return;
        }
        rows.set(index, (Program::Kubedns, "domain"), domain);
    }
    for domain in &kubernetes.further {
        if domain.is_root() {
            rows.refuse(index, "a cluster domain cannot be the root; remove it");
        }
        rows.set(index, (Program::Kubedns, "extra-domain"), domain);
    }
    for prefix in &kubernetes.prefixes {
        rows.set(index, (Program::Kubedns, "cluster-cidr"), prefix);
    }
    let fallthrough = kubernetes.fallthrough.iter().flat_map(|(_, zones)| zones);
    let falls_through = |zone: &Zone| fallthrough.clone().any(|it| zone.is_within(it));
    // If no other server can answer, every address is the cluster's.
    for (zone, all) in [("in-addr.arpa", "0.0.0.0/0"), ("ip6.arpa", "::/0")] {
        let zone = Zone::parse(zone).unwrap_or_else(Zone::root);
        if kubernetes.reverse.contains(&zone) && !falls_through(&zone) {
            rows.set(index, (Program::Kubedns, "cluster-cidr"), all);
        }
    }
    let changes = format!("http://{}/changes", surroundings.changes);
    rows.set(index, (Program::Dnscache, "changes"), changes);
}

/// dnscache has one cache. Its size is the sum of all sizes.
fn map_cache(servers: &[Server], rows: &mut Rows) {
    let caches = || servers.iter().filter_map(|server| server.cache.as_ref());
    let sizes = || caches().flat_map(|cache| [cache.answers, cache.denials]);
    let all: u64 = sizes().map(|size| u64::from(size.map_or(ENTRIES, |(_, size)| size))).sum();
    for (index, _) in sizes().flatten() {
        rows.set(index, (Program::Dnscache, "cache-size"), all.min(ENTRIES_MAX));
    }
    for server in servers {
        let Some(cache) = &server.cache else { continue };
        let cluster = server.kubernetes.as_ref();
        for disabled in &cache.disabled {
            let is_cluster = |zone: &Zone| {
                let external = server.external.iter().flat_map(|it| &it.zones);
                let etcd = server.etcd.iter().flat_map(|it| &it.zones);
                let own =
                    cluster.into_iter().flat_map(Kubernetes::zones).chain(external).chain(etcd);
                own.into_iter().any(|its| zone.is_within(its))
            };
            match disabled.zones.iter().find(|zone| !is_cluster(zone)) {
                None => rows.build_in(
                    disabled.index,
                    "kubedns reports what changes, and dnscache drops it at once",
                ),
                Some(zone) if disabled.denials && zone.is_root() => {
                    rows.set(disabled.index, (Program::Dnscache, "negative-ttl"), 0);
                }
                Some(zone) => {
                    let reason = format!("names of {zone} are cached for their TTL; remove it");
                    rows.refuse(disabled.index, reason);
                }
            }
        }
    }
}

/// Answers of all zones are served alike.
fn map_stale(servers: &[Server], rows: &mut Rows) {
    let caches = || servers.iter().filter_map(|server| server.cache.as_ref());
    let stale = || caches().filter_map(|cache| cache.stale);
    for (index, Stale { kept, after, ttl }) in stale() {
        if stale().any(|(other, it)| other < index && it != (Stale { kept, after, ttl })) {
            rows.refuse(index, "all zones serve expired answers alike; write the same line again");
            continue;
        }
        rows.set(index, (Program::Dnscache, "serve-stale"), kept.as_secs());
        if let Some(after) = after {
            rows.set(index, (Program::Dnscache, "stale-after"), after.as_secs_f64());
        }
        rows.set(index, (Program::Dnscache, "stale-ttl"), ttl.as_secs());
    }
    let over_denials: Vec<_> = caches().map(|cache| cache.stale_over_denials).collect();
    let keep_ttl: Vec<_> = caches().map(|cache| cache.keep_ttl).collect();
    for (lines, flag) in [(over_denials, "stale-over-denials"), (keep_ttl, "keep-ttl")] {
        for &index in lines.iter().flatten() {
            match lines.iter().all(Option::is_some) {
                true => rows.map(index, (Program::Dnscache, flag), None),
                false => rows.refuse(index, "write it in each block that has a cache, or in none"),
            }
        }
    }
}

/// One file verifies all servers, and one certificate is shown to them.
fn map_tls(servers: &[Server], rows: &mut Rows) {
    let forwards = || servers.iter().flat_map(|server| &server.forwards);
    let mut first: Option<&String> = None;
    for (index, file) in forwards().filter_map(|forward| forward.tls_ca.as_ref()) {
        let first = *first.get_or_insert(file);
        if first == file {
            rows.set(*index, (Program::Dnscache, "tls-ca"), file);
        } else {
            let reason = format!("{first} verifies all servers already; put both into one file");
            rows.refuse(*index, reason);
        }
    }
    let mut first: Option<&[String; 2]> = None;
    for (index, files) in forwards().filter_map(|forward| forward.tls_client.as_ref()) {
        let first = *first.get_or_insert(files);
        if first == files {
            rows.set(*index, (Program::Dnscache, "tls-client-cert"), &files[0]);
            rows.set(*index, (Program::Dnscache, "tls-client-key"), &files[1]);
        } else {
            let reason = format!("{} is shown to all servers already; remove one", first[0]);
            rows.refuse(*index, reason);
        }
    }
}

/// CoreDNS's default, for answers and for denials each.
const ENTRIES: u32 = 9_984;
/// The maximum of `--cache-size`.
const ENTRIES_MAX: u64 = 100_000_000;
