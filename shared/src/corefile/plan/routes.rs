//! Maps names to servers: `kubernetes` and the lines `forward` of every block become the suffixes
//! by which dnscache routes.
//!
//! Core. CoreDNS passes a query to the block with the longest zone, and there to the first line
//! that applies to its name. A query never falls through to another block.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::super::keys::Zone;
use super::super::plugins::{Cache, Forward, Kubernetes, Server, To};
use super::{Program, Rows, Surroundings};

/// Maps the routes of all blocks.
pub fn map(servers: &[Server], surroundings: Surroundings, rows: &mut Rows) {
    let zones: BTreeSet<&Zone> = servers.iter().flat_map(Server::zones).collect();
    let mut plan = Routes { zones, rows, files: BTreeMap::new() };
    for server in servers {
        for zone in server.zones() {
            plan.map_zone(server, zone, surroundings);
        }
        plan.map_unreached(server);
    }
    if !plan.zones.iter().any(|zone| zone.is_root())
        && let Some(server) = servers.first()
    {
        plan.rows.set(server.index, (Program::Dnscache, "answer"), "REFUSED");
    }
    lifetimes(servers, rows);
}

struct Routes<'p> {
    /// The zones of all blocks.
    zones: BTreeSet<&'p Zone>,
    rows: &'p mut Rows,
    /// Lines that apply to at least one name, with their file.
    files: BTreeMap<usize, Option<&'p str>>,
}

impl<'p> Routes<'p> {
    /// Maps the lines of `server` for its zone `zone`.
    fn map_zone(&mut self, server: &'p Server, zone: &Zone, surroundings: Surroundings) {
        let mut suffixes: BTreeSet<Zone> = BTreeSet::from([zone.clone()]);
        let forwards = server.forwards.iter();
        let named = forwards.flat_map(|it| std::iter::once(&it.from).chain(&it.except));
        suffixes.extend(named.filter(|it| it.is_within(zone)).cloned());
        suffixes.retain(|suffix| self.is_answered_by(suffix, zone));
        for suffix in &suffixes {
            self.map_suffix(server, suffix, suffix == zone);
        }
        let kubedns = surroundings.kubedns;
        let kubedns = format!("{}#{}", kubedns.ip(), kubedns.port());
        let mut to_kubedns = |index: usize, its: &Zone| {
            let suffix = if zone.is_within(its) { zone } else { its };
            if suffix.is_within(zone) && self.is_answered_by(suffix, zone) {
                let value = format!("/{suffix}/{kubedns}");
                self.rows.set(index, (Program::Dnscache, "server"), value);
            }
        };
        if let Some(kubernetes) = &server.kubernetes {
            kubernetes.zones().for_each(|its| to_kubedns(kubernetes.index, its));
            if let Some((index, its)) = &kubernetes.clusterset {
                to_kubedns(*index, its);
            }
        }
        if let Some(external) = &server.external {
            let zones = external.zones.iter().filter(|its| !its.is_root());
            zones.for_each(|its| to_kubedns(external.index, its));
        }
        if let Some(etcd) = &server.etcd {
            let zones = etcd.zones.iter().filter(|its| !its.is_root());
            zones.for_each(|its| to_kubedns(etcd.index, its));
        }
        if let Some(multicluster) = &server.multicluster {
            to_kubedns(multicluster.index, &multicluster.zone);
        }
        if let Some(index) = server.local {
            let zones = LOCAL.iter().filter_map(|its| Zone::parse(its));
            let its = zones.filter(|its| its.is_within(zone) && self.is_answered_by(its, zone));
            for its in its.collect::<Vec<_>>() {
                self.rows.set(index, (Program::Dnscache, "server"), format!("/{its}/"));
            }
        }
        self.map_fallthrough(server);
    }

    /// Returns whether names at `suffix` belong to the block of `zone`, and not to one with a
    /// longer zone.
    fn is_answered_by(&self, suffix: &Zone, zone: &Zone) -> bool {
        let mut longer = self.zones.iter().filter(|it| it.depth() > zone.depth());
        !longer.any(|longer| suffix.is_within(longer))
    }

    /// Maps the first line that applies to `suffix`. `is_zone` is set if that is the zone of the
    /// block.
    fn map_suffix(&mut self, server: &'p Server, suffix: &Zone, is_zone: bool) {
        let mut about = server.forwards.iter().filter(|forward| is_about(forward, suffix));
        if let Some(forward) = about.next() {
            self.map_forward(forward, suffix);
            self.map_next(forward, (about.next(), about.next().is_some()), suffix);
            return;
        }
        let kubernetes = server.kubernetes.iter().flat_map(Kubernetes::zones);
        let external = server.external.iter().flat_map(|it| &it.zones);
        let etcd = server.etcd.iter().flat_map(|it| &it.zones);
        let is_cluster = kubernetes.chain(external).chain(etcd).any(|its| suffix.is_within(its));
        if is_cluster {
            return;
        }
        let except = server.forwards.iter().find(|it| it.except.contains(suffix));
        let index = except.filter(|_| !is_zone).map_or(server.index, |it| it.index);
        let value = match suffix.is_root() {
            true => "SERVFAIL".to_owned(),
            false => format!("/{suffix}/SERVFAIL"),
        };
        self.rows.set(index, (Program::Dnscache, "answer"), value);
    }

    fn map_forward(&mut self, forward: &'p Forward, suffix: &Zone) {
        self.files.insert(forward.index, None);
        let route = route(suffix);
        let is_split = forward.failover.is_some();
        for to in forward.to.iter().take(if is_split { 1 } else { usize::MAX }) {
            match to {
                To::Server { address, tls } => {
                    let server = endpoint(forward, *address, tls.as_ref());
                    let value = format!("{route}{server}");
                    self.rows.set(forward.index, (Program::Dnscache, "server"), value);
                }
                To::File(_) if forward.to.len() > 1 => self.rows.refuse(
                    forward.index,
                    "a file cannot stand beside other servers; write one or the other",
                ),
                To::File(file) if suffix.is_root() => {
                    self.rows.set(forward.index, (Program::Dnscache, "resolv-file"), file);
                    if forward.is_tcp || forward.source.is_some() {
                        let reason = "the servers of a file are asked over UDP, from any address; \
                            write their addresses here";
                        self.rows.refuse(forward.index, reason);
                    }
                }
                To::File(_) => {
                    let value = format!("{route}#");
                    self.rows.set(forward.index, (Program::Dnscache, "server"), value);
                    self.files.insert(forward.index, Some(""));
                }
            }
        }
    }

    /// Maps what happens after certain answers: the line below is asked, or the other servers of
    /// the same line.
    fn map_next(
        &mut self,
        forward: &'p Forward,
        (below, has_third): (Option<&'p Forward>, bool),
        suffix: &Zone,
    ) {
        match (&forward.next, &forward.failover) {
            (Some((index, _)), Some(_)) => {
                self.rows.refuse(*index, "next and failover cannot be on one line; write one");
            }
            (Some((index, kinds)), None) => match below {
                Some(below) => {
                    self.files.insert(below.index, None);
                    self.set_next((*index, kinds), (below, &below.to), suffix);
                    if below.next.is_some() && has_third {
                        let reason = "two lines are asked one after the other at most; remove next";
                        self.rows.refuse(below.index, reason);
                    }
                }
                None => self.rows.build_in(*index, "no line below is about the same names"),
            },
            (None, Some((index, kinds))) => {
                // A server that does not answer is passed over as well.
                let kinds = format!("{kinds},SERVFAIL");
                self.set_next((*index, &kinds), (forward, &forward.to[1..]), suffix);
            }
            (None, None) => {}
        }
    }

    /// Maps `to` of `forward` as those who are asked after answers of these kinds.
    fn set_next(
        &mut self,
        (index, kinds): (usize, &str),
        (forward, to): (&'p Forward, &'p [To]),
        suffix: &Zone,
    ) {
        for to in to {
            let server = match to {
                To::Server { address, tls } => endpoint(forward, *address, tls.as_ref()),
                To::File(_) => "#".to_owned(),
            };
            let value = format!("{}{kinds}={server}", route(suffix));
            self.rows.set(index, (Program::Dnscache, "next"), value);
        }
    }

    /// Maps names that kubedns denies and the next plugin is asked about: the first line that is
    /// about them.
    fn map_fallthrough(&mut self, server: &'p Server) {
        let kubernetes = server.kubernetes.iter();
        let own = kubernetes.flat_map(|it| {
            it.fallthrough.iter().map(|(index, zones)| (*index, zones, it.zones().collect()))
        });
        let external = server.external.iter().flat_map(|it| {
            let through = it.fallthrough.iter();
            through.map(|(index, zones)| (*index, zones, it.zones.iter().collect()))
        });
        let clusterset = server.multicluster.iter().flat_map(|it| {
            it.fallthrough.iter().map(|(index, zones)| (*index, zones, vec![&it.zone]))
        });
        let etcd = server.etcd.iter().flat_map(|it| {
            let through = it.fallthrough.iter();
            through.map(|(index, zones)| (*index, zones, it.zones.iter().collect()))
        });
        let all: Vec<(usize, &Vec<Zone>, Vec<&Zone>)> =
            own.chain(external).chain(clusterset).chain(etcd).collect();
        for (index, through, zones) in all {
            let mut names: BTreeSet<&Zone> = BTreeSet::new();
            for zone in zones.into_iter().filter(|zone| !zone.is_reverse()) {
                names.extend(through.iter().filter(|it| it.is_within(zone)));
                names.extend(through.iter().any(|it| zone.is_within(it)).then_some(zone));
            }
            for zone in &names {
                match server.forwards.iter().find(|forward| is_about(forward, zone)) {
                    Some(forward) => {
                        self.files.entry(forward.index).or_insert(None);
                        self.set_next((index, "NXDOMAIN"), (forward, &forward.to), zone);
                    }
                    None => {
                        let text = format!("no other plugin answers for names of {zone}");
                        self.rows.build_in(index, text);
                    }
                }
            }
            if names.is_empty() || through.iter().any(Zone::is_reverse) {
                let text = "addresses that are not the cluster's are asked of the upstreams";
                self.rows.build_in(index, text);
            }
        }
    }

    /// Marks lines that apply to no name.
    fn map_unreached(&mut self, server: &Server) {
        for forward in &server.forwards {
            if !self.files.contains_key(&forward.index) {
                let text = "never reached: a line above or another block has all its names";
                self.rows.build_in(forward.index, text);
            }
        }
    }
}

/// Whether `forward` is about names at `suffix`.
fn is_about(forward: &Forward, suffix: &Zone) -> bool {
    let is_excepted = |it: &Zone| suffix.is_within(it) && forward.from != *suffix;
    suffix.is_within(&forward.from) && !forward.except.iter().any(is_excepted)
}

/// The domain in front of a flag's value.
fn route(suffix: &Zone) -> String {
    if suffix.is_root() { String::new() } else { format!("/{suffix}/") }
}

/// Returns a server in the form of `--server`.
fn endpoint(forward: &Forward, address: SocketAddr, tls: Option<&Option<String>>) -> String {
    let (ip, port) = (address.ip(), address.port());
    let scheme = match tls {
        Some(_) => "tls://",
        None if forward.is_tcp => "tcp://",
        None => "",
    };
    let after = match (tls, forward.source) {
        (Some(Some(name)), _) => format!("@{name}"),
        (None, Some(source)) => format!("@{source}"),
        _ => String::new(),
    };
    let default = if tls.is_some() { 853 } else { 53 };
    let port = if port == default { String::new() } else { format!("#{port}") };
    format!("{scheme}{ip}{port}{after}")
}

/// Maps the lifetimes of each zone.
fn lifetimes(servers: &[Server], rows: &mut Rows) {
    let whole = servers.iter().find(|server| server.zones().any(Zone::is_root));
    let whole = whole.and_then(|server| server.cache.as_ref());
    let whole = whole.filter(|it| it.zones.is_empty() || it.zones.iter().any(Zone::is_root));
    if let Some(Cache { success, denial, .. }) = whole {
        rows.set(success.0, (Program::Dnscache, "max-ttl"), success.1);
        rows.set(denial.0, (Program::Dnscache, "negative-ttl"), denial.1.min(NEGATIVE_SECS_MAX));
    }
    let of = |cache: Option<&Cache>| {
        cache.map_or((TTL_SECS, NEGATIVE_SECS), |it| (it.success.1, it.denial.1))
    };
    for server in servers {
        let cache = server.cache.as_ref();
        let (success, denial) = of(cache);
        let named = cache.map_or(&[][..], |cache| &cache.zones[..]);
        let zones: Vec<&Zone> = match named {
            [] => server.zones().collect(),
            named => named.iter().collect(),
        };
        for zone in zones.into_iter().filter(|zone| !zone.is_root()) {
            let index = cache.map_or(server.index, |cache| cache.index);
            if (success, denial) != of(whole) {
                let value = format!("/{zone}/{success},{}", denial.min(NEGATIVE_SECS_MAX));
                rows.set(index, (Program::Dnscache, "zone-ttl"), value);
            }
        }
        if let Some(cache) = cache {
            let text = "the lifetimes of the block of . are the same";
            for &(index, _) in [&cache.success, &cache.denial] {
                if !rows.is_settled(index) {
                    rows.build_in(index, text);
                }
            }
        }
    }
}

/// The zones that the plugin `local` answers.
const LOCAL: [&str; 4] = ["localhost", "0.in-addr.arpa", "127.in-addr.arpa", "255.in-addr.arpa"];
/// The default of the flag, for zones without a cache.
const TTL_SECS: u32 = 86_400;
/// The default of the flag, for zones without a cache.
const NEGATIVE_SECS: u32 = 300;
/// The maximum of `--negative-ttl`.
const NEGATIVE_SECS_MAX: u32 = 10_800;
