//! Chooses the servers for a name by its longest routed suffix, and the names about which servers
//! outside the pod must never be asked.
//!
//! Core. A set of routes is immutable: the follower of flags and files builds a new one. Opens no
//! sockets and does not resolve names.
//!
//! ```text
//! --server /DOMAIN/..., stubDomains ──▶ longest suffix ──▶ Servers, or Local
//!                                          │ none
//!                                          ├─ --answer CODE ──▶ Local
//!                                          ├─ special-use ──▶ Local (RFC 6303, 6761, 7686)
//!                                          └─ --server ADDR, upstreamNameservers, else resolv.conf
//!
//! a reverse name that the pod answers ──▶ kubedns ── refused ──▶ the same, but private addresses
//!                                                               are no longer special
//! ```

mod answer;
mod check;
mod flag;
mod next;
mod reverse;
mod special;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use shared::config_dir::{Keys, Server};
use shared::name::{bare, parse};

use crate::doors::Rebind;
use crate::normalise::Answer;

pub use answer::{AnswerError, AnswerFlag, Lifetimes, ZoneTtlError, ZoneTtlFlag};
pub use check::{Circular, Taken, Unasked, check};
pub use flag::{FlagError, Resolv, ServerFlag, Target, resolv_conf};
pub use next::{Kinds, Next, NextError, NextFlag};
pub use reverse::{After, Beyond, is_reverse};
pub use special::{Kind, Local};

/// The route of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// The servers of this group: an index into [`Routes::groups`].
    Group(usize),
    /// dnscache itself, without an upstream query.
    Local(Local<'a>),
}

/// Servers that answer for the same names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The suffix in lower-case wire form; [`ROOT`] for names that no other suffix routes.
    pub suffix: Box<[u8]>,
    /// The servers, each once, in the order given.
    pub servers: Vec<Server>,
    /// Whether the suffix is routed by flags and all its servers are kubedns
    /// ([`ServerFlag::is_kubedns`]). They are authoritative for their answers, and their names are
    /// served to clients that do not want recursion.
    pub owned: bool,
    /// Who is asked after certain answers of the servers.
    pub next: Option<Next>,
}

/// A snapshot of all routes.
#[derive(Clone, Debug)]
pub struct Routes {
    groups: Vec<Group>,
    suffixes: Table<Suffix>,
    /// Reverse zones for which kubedns is asked before all others, by suffix.
    reverse: Table<usize>,
    /// For names of one label.
    unqualified: Option<Suffix>,
    /// The length of the longest suffix in bytes. Longer names need no look-up.
    suffix_len_max: usize,
    /// Filters answers about names without a route of their own.
    rebind: Option<Arc<Rebind>>,
    /// The response code for names that no suffix routes, if no server is asked about them.
    otherwise: Option<u16>,
    lifetimes: Lifetimes,
}

/// A value for each suffix, which is in lower-case wire form.
type Table<T> = HashMap<Box<[u8]>, T, foldhash::fast::RandomState>;

/// The route of a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suffix {
    Group(usize),
    Default,
    /// A flag makes it local.
    Local(Kind),
    /// Local unless a flag is about its names.
    Special(Kind),
    /// No server is asked. Names get this response code.
    Code(u16),
}

/// The routes of the suffixes of a name, the longest of each sort.
#[derive(Default)]
struct Found<'a> {
    /// The group of kubedns that answers for the reverse zone.
    reverse: Option<usize>,
    routed: Option<Route<'a>>,
    special: Option<Local<'a>>,
}

impl Routes {
    /// Returns the routes from `flags`, the configuration directory and the servers of resolv.conf.
    ///
    /// A stub domain of the directory replaces a flag for the same domain, unless the domain is
    /// [`Routes::reserved`]. resolv.conf is used if neither flags nor directory name a server for
    /// all other names.
    pub fn new(flags: &[ServerFlag], keys: &Keys, resolv: &[SocketAddr]) -> Self {
        let mut routes = Self {
            groups: Vec::new(),
            suffixes: special::zones().map(|(zone, kind)| (zone, Suffix::Special(kind))).collect(),
            reverse: Table::default(),
            unqualified: None,
            suffix_len_max: 0,
            rebind: None,
            otherwise: None,
            lifetimes: Lifetimes::default(),
        };
        routes.add_group(ROOT, default_servers(flags, keys, resolv));
        routes.add_flags(flags);
        for (domain, servers) in &keys.stub_domains {
            // The keys were checked when they were read, so each domain is a valid name.
            let Some(name) = parse(domain) else { continue };
            if routes.owner(&name).is_some() {
                continue;
            }
            let group = match routes.suffixes.get(&name) {
                Some(&Suffix::Group(group)) => group,
                _ => routes.add_group(&name, Vec::new()),
            };
            routes.groups[group].servers.clear();
            routes.groups[group].owned = false;
            for server in servers {
                push_once(&mut routes.groups[group].servers, server.clone());
            }
            routes.suffixes.insert(name, Suffix::Group(group));
        }
        routes.measure();
        routes
    }

    /// Updates the length of the longest suffix.
    fn measure(&mut self) {
        let suffixes = self.suffixes.keys().chain(self.reverse.keys());
        self.suffix_len_max = suffixes.map(|suffix| suffix.len()).max().unwrap_or(0);
    }

    /// Adds the filter of answers about names without a route of their own.
    #[must_use]
    pub fn with_rebind(mut self, rebind: Option<Arc<Rebind>>) -> Self {
        self.rebind = rebind;
        self
    }

    /// Returns `answer`, made of `replies` to a question about `name`, unless the filter refuses it
    /// ([`Rebind::filter`]). Only answers of kubedns and of servers of stub domains can contain
    /// addresses inside.
    pub fn filter(&self, name: &[u8], replies: &[&[u8]], answer: Answer) -> Answer {
        let is_outside = |name: &[u8]| self.route(name) == Route::Group(DEFAULT);
        match &self.rebind {
            Some(rebind) => rebind.filter(name, replies, answer, &is_outside),
            None => answer,
        }
    }

    /// Returns the stub domains of `keys` for which kubedns answers: a line of configuration must
    /// not take over the cluster's names.
    ///
    /// Reverse zones are not reserved, because their servers are asked only about addresses that
    /// are not the cluster's.
    pub fn reserved(&self, keys: &Keys) -> Vec<Reserved> {
        let reserved = |domain: &String| {
            let owner = self.owner(&parse(domain)?)?;
            Some(Reserved { domain: domain.clone(), owner: bare(&owner.suffix) })
        };
        keys.stub_domains.keys().filter_map(reserved).collect()
    }

    /// Returns the first route for `name`, in lower-case wire form. [`Routes::beyond`] returns the
    /// second.
    pub fn route<'a>(&self, name: &'a [u8]) -> Route<'a> {
        let found = self.find(name);
        let special = self.special(&found);
        match (found.reverse.map(Route::Group).or(found.routed), special, self.unqualified) {
            (Some(route), ..) => route,
            (None, Some(local), _) => Route::Local(local),
            (None, None, Some(suffix)) if shared::wire::labels(name).count() == 1 => {
                self.resolve(suffix, name)
            }
            _ => self.otherwise(),
        }
    }

    /// Returns whether kubedns owns `name`, in lower-case wire form.
    pub fn is_owned(&self, name: &[u8]) -> bool {
        matches!(self.route(name), Route::Group(group) if self.groups[group].owned)
    }

    /// Returns the route for `name`, in lower-case wire form, if kubedns, which [`Routes::route`]
    /// returned, gives way. `None` if no other server can be asked: only reverse names leave the
    /// cluster.
    ///
    /// Names of private addresses are sent to the upstreams as well, because kubedns can tell the
    /// cluster's addresses from those of a network next to it. Loopback addresses and the like are
    /// answered here (RFC 6303).
    pub fn beyond<'a>(&self, name: &'a [u8]) -> Option<Beyond<'a>> {
        let found = self.find(name);
        found.reverse?;
        let special = self.special(&found).filter(|local| local.kind != Kind::Private);
        let route = found.routed.or(special.map(Route::Local));
        let route = route.unwrap_or_else(|| self.otherwise());
        Some(Beyond { route, after: After::of(name)? })
    }

    /// Returns whether the servers of group `asked` can answer for `name`, in lower-case wire form:
    /// the name has the same route, or the same servers.
    pub fn is_asked_of(&self, name: &[u8], asked: usize) -> bool {
        match self.route(name) {
            Route::Group(group) => {
                let servers = |group: usize| self.groups.get(group).map(|group| &group.servers);
                let beyond = || self.beyond(name).map(|beyond| beyond.route);
                let next = self.groups.get(group).and_then(|group| group.next);
                servers(group) == servers(asked)
                    || next.is_some_and(|next| next.group == asked)
                    || beyond() == Some(Route::Group(asked))
            }
            Route::Local(_) => false,
        }
    }

    /// Returns a text that is the same for routes by which the same servers give the same answers.
    pub fn identity(&self) -> String {
        let Self { groups, unqualified, rebind, otherwise, lifetimes, .. } = self;
        format!("{groups:?} {unqualified:?} {rebind:?} {otherwise:?} {lifetimes:?}")
    }

    /// Returns all groups. The first is the one for names that no suffix routes.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Returns the routes of the suffixes of `name`.
    fn find<'a>(&self, name: &'a [u8]) -> Found<'a> {
        let is_reverse = reverse::is_reverse(name);
        let mut found = Found::default();
        let mut rest = name;
        let mut above: &[u8] = &[];
        while let [length, tail @ ..] = rest
            && *length > 0
        {
            if rest.len() <= self.suffix_len_max {
                if is_reverse && found.reverse.is_none() {
                    found.reverse = self.reverse.get(rest).copied();
                }
                match self.suffixes.get(rest) {
                    None => {}
                    Some(&Suffix::Special(Kind::Multicast))
                        if shared::wire::labels(name).count() > 2 => {}
                    Some(&Suffix::Special(kind)) => {
                        found.special.get_or_insert(Local { zone: rest, kind });
                    }
                    Some(&suffix) if found.routed.is_none() => {
                        found.routed = Some(self.resolve(suffix, rest));
                    }
                    Some(&Suffix::Group(group))
                        if self.reserves(group, above) && !self.is_kubedns(found.routed) =>
                    {
                        found.routed = Some(Route::Group(group));
                    }
                    Some(_) => {}
                }
            }
            (above, rest) = tail.split_at_checked(usize::from(*length)).unwrap_or_default();
        }
        found
    }

    /// Returns the built-in answer to a name that no suffix routes, unless a flag gives all such
    /// names a response code. The list only keeps names from servers outside.
    fn special<'a>(&self, found: &Found<'a>) -> Option<Local<'a>> {
        found.special.filter(|_| self.otherwise.is_none())
    }

    fn is_kubedns(&self, route: Option<Route<'_>>) -> bool {
        matches!(route, Some(Route::Group(group)) if self.groups[group].owned)
    }

    /// Returns the route of `suffix`, found at `zone`.
    fn resolve<'a>(&self, suffix: Suffix, zone: &'a [u8]) -> Route<'a> {
        match suffix {
            Suffix::Group(group) => Route::Group(group),
            Suffix::Default => self.otherwise(),
            Suffix::Local(kind) | Suffix::Special(kind) => Route::Local(Local { zone, kind }),
            Suffix::Code(code) => Route::Local(Local { zone, kind: Kind::Code(code) }),
        }
    }

    /// Returns whether names below the suffix of `group` with `label` left of it are the cluster's,
    /// so that a longer suffix must not take them over.
    fn reserves(&self, group: usize, label: &[u8]) -> bool {
        self.groups[group].owned && CLUSTER_LABELS.contains(&label)
    }

    /// Returns the group of kubedns that answers for the domain `name`, or that reserves it for a
    /// name above. `None` for reverse zones.
    fn owner(&self, name: &[u8]) -> Option<&Group> {
        if reverse::is_reverse(name) {
            return None;
        }
        let (mut rest, mut above) = (name, &[][..]);
        while let [length, tail @ ..] = rest
            && *length > 0
        {
            if let Some(&Suffix::Group(group)) = self.suffixes.get(rest)
                && self.groups[group].owned
                && (rest.len() == name.len() || self.reserves(group, above))
            {
                return Some(&self.groups[group]);
            }
            (above, rest) = tail.split_at_checked(usize::from(*length)).unwrap_or_default();
        }
        None
    }

    /// Adds the domains of `flags`. Reverse zones are added last, because the servers of the
    /// cluster domain determine which servers there are kubedns.
    fn add_flags(&mut self, flags: &[ServerFlag]) {
        let rules =
            || flags.iter().flat_map(|flag| flag.domains.iter().map(move |domain| (domain, flag)));
        for (domain, flag) in rules().filter(|(domain, _)| !reverse::is_reverse(domain)) {
            self.add_flag(domain, flag);
        }
        let owned = self.groups.iter().filter(|group| group.owned);
        let kubedns: Vec<Server> = owned.flat_map(|group| group.servers.clone()).collect();
        for (domain, flag) in rules().filter(|(domain, _)| reverse::is_reverse(domain)) {
            match &flag.target {
                Target::Server(server)
                    if flag.is_kubedns && (kubedns.is_empty() || kubedns.contains(server)) =>
                {
                    let group = match self.reverse.get(domain) {
                        Some(&group) => group,
                        None => self.add_group(domain, Vec::new()),
                    };
                    push_once(&mut self.groups[group].servers, server.clone());
                    self.groups[group].owned = true;
                    self.reverse.insert(domain.clone(), group);
                }
                _ => self.add_flag(domain, flag),
            }
        }
    }

    /// Adds the target of one `--server` for `domain`. Servers of the same domain add up; if
    /// targets contradict each other, the last counts.
    fn add_flag(&mut self, domain: &[u8], flag: &ServerFlag) {
        let is_unqualified = domain.is_empty();
        let before = match is_unqualified {
            true => self.unqualified,
            false => self.suffixes.get(domain).copied(),
        };
        let suffix = match (&flag.target, before) {
            (Target::Default, _) => Suffix::Default,
            (Target::Local, Some(Suffix::Special(kind))) => Suffix::Local(kind),
            (Target::Local, _) => Suffix::Local(Kind::Absent),
            (Target::Server(server), Some(Suffix::Group(group))) => {
                push_once(&mut self.groups[group].servers, server.clone());
                self.groups[group].owned &= flag.is_kubedns;
                Suffix::Group(group)
            }
            (Target::Server(server), _) => {
                let group = self.add_group(domain, vec![server.clone()]);
                self.groups[group].owned = flag.is_kubedns;
                Suffix::Group(group)
            }
        };
        match is_unqualified {
            true => self.unqualified = Some(suffix),
            false => drop(self.suffixes.insert(domain.into(), suffix)),
        }
    }

    fn add_group(&mut self, suffix: &[u8], servers: Vec<Server>) -> usize {
        self.groups.push(Group { suffix: suffix.into(), servers, owned: false, next: None });
        self.groups.len() - 1
    }
}

/// A stub domain for which kubedns answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stubDomains: {domain} is answered by kubedns, with --server=/{owner}/...; it is left out, \
     expected another domain"
)]
pub struct Reserved {
    /// The domain as written in the keys.
    pub domain: String,
    owner: String,
}

impl Default for Routes {
    /// Returns routes without servers.
    fn default() -> Self {
        Self::new(&[], &Keys::default(), &[])
    }
}

/// Returns the servers in flags and keys for all names that no suffix routes. If there are none,
/// those of resolv.conf are asked.
fn named_servers<'a>(
    flags: &'a [ServerFlag],
    keys: &'a Keys,
) -> impl Iterator<Item = Server> + use<'a> {
    let flags = flags.iter().filter(|flag| flag.domains.is_empty());
    let flags = flags.filter_map(|flag| match &flag.target {
        Target::Server(server) => Some(server.clone()),
        Target::Default | Target::Local => None,
    });
    flags.chain(keys.upstream_nameservers.iter().copied().map(Server::Address))
}

/// Returns whether the routes of `flags` and `keys` do not use resolv.conf.
pub fn names_upstreams(flags: &[ServerFlag], keys: &Keys) -> bool {
    named_servers(flags, keys).next().is_some()
}

/// Returns the servers for names that no suffix routes.
fn default_servers(flags: &[ServerFlag], keys: &Keys, resolv: &[SocketAddr]) -> Vec<Server> {
    let mut servers = Vec::new();
    for server in named_servers(flags, keys) {
        push_once(&mut servers, server);
    }
    if servers.is_empty() {
        for &address in resolv {
            push_once(&mut servers, Server::Address(address));
        }
    }
    servers
}

fn push_once(servers: &mut Vec<Server>, server: Server) {
    if !servers.contains(&server) {
        servers.push(server);
    }
}

/// The root in wire form: the suffix of every name.
pub const ROOT: &[u8] = &[0];
/// The group for names that no suffix routes.
const DEFAULT: usize = 0;
/// The labels directly below a cluster domain (DNS specification sections 2 and 3). A longer suffix
/// must not take over names below these.
const CLUSTER_LABELS: [&[u8]; 4] = [b"svc", b"pod", b"dns", b"dns-version"];

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(flags: &[&str], keys: &[(&str, &str)], resolv: &str) -> Routes {
        let files = keys.iter().map(|&(key, text)| (key.to_owned(), text.into())).collect();
        let keys = shared::config_dir::parse(&files).unwrap();
        let flags: Vec<ServerFlag> = flags.iter().map(|flag| flag.parse().unwrap()).collect();
        Routes::new(&flags, &keys, &resolv_conf(resolv, &|_| None).servers)
    }

    /// Returns the servers of `name`, or `local ZONE`.
    fn told(routes: &Routes, name: &str) -> String {
        let name = parse(name).unwrap();
        let show = |server: &Server| match server {
            Server::Address(address) => address.to_string(),
            Server::Endpoint(endpoint) => endpoint.to_string(),
            Server::Name { host, port } => format!("{host}:{port}"),
        };
        match routes.route(&name) {
            Route::Group(group) => {
                let servers: Vec<_> = routes.groups()[group].servers.iter().map(show).collect();
                servers.join(" ")
            }
            Route::Local(local) => format!("local {}", bare(local.zone)),
        }
    }

    #[track_caller]
    fn check(routes: &Routes, rows: &[(&str, &str)]) {
        for &(name, expected) in rows {
            assert_eq!(told(routes, name), expected, "{name}");
        }
    }

    #[test]
    fn the_longest_suffix_of_whole_labels_wins() {
        let routes = routes(
            &[
                "/cluster.local/127.0.0.1#10053",
                "/in-addr.arpa/127.0.0.1#10053",
                "/corp.example/lab.example/10.0.0.1",
                "/corp.example/10.0.0.2#5353",
                "/eu.corp.example/10.0.0.3",
                "/public.corp.example/#",
                "/secret.corp.example/",
                "9.9.9.9",
                "2620:fe::9",
                "9.9.9.9",
            ],
            &[],
            "nameserver 192.0.2.1",
        );
        check(
            &routes,
            &[
                ("web.shop.svc.cluster.local", "127.0.0.1:10053"),
                ("cluster.local", "127.0.0.1:10053"),
                ("a.mycluster.local", "9.9.9.9:53 [2620:fe::9]:53"),
                ("7.0.0.10.in-addr.arpa", "127.0.0.1:10053"),
                ("8.8.8.8.in-addr.arpa", "127.0.0.1:10053"),
                ("a.corp.example", "10.0.0.1:53 10.0.0.2:5353"),
                ("a.lab.example", "10.0.0.1:53"),
                ("a.b.eu.corp.example", "10.0.0.3:53"),
                ("www.public.corp.example", "9.9.9.9:53 [2620:fe::9]:53"),
                ("www.secret.corp.example", "local secret.corp.example"),
                ("example", "9.9.9.9:53 [2620:fe::9]:53"),
                ("xn--bcher-kva.example", "9.9.9.9:53 [2620:fe::9]:53"),
            ],
        );
    }

    #[test]
    fn special_names_stay_in_the_pod_unless_routed() {
        let closed = routes(&["9.9.9.9"], &[], "");
        let rows = [
            ("localhost", "local localhost"),
            ("a.localhost", "local localhost"),
            ("a.invalid", "local invalid"),
            ("a.test", "9.9.9.9:53"),
            ("facebookcorewwwi.onion", "local onion"),
            ("nas.home.arpa", "local home.arpa"),
            ("7.0.0.10.in-addr.arpa", "local 10.in-addr.arpa"),
            ("1.0.16.172.in-addr.arpa", "local 16.172.in-addr.arpa"),
            ("1.0.32.172.in-addr.arpa", "9.9.9.9:53"),
            ("1.1.168.192.in-addr.arpa", "local 168.192.in-addr.arpa"),
            ("1.0.64.100.in-addr.arpa", "local 64.100.in-addr.arpa"),
            ("1.0.127.100.in-addr.arpa", "local 127.100.in-addr.arpa"),
            ("1.0.128.100.in-addr.arpa", "9.9.9.9:53"),
            ("8.8.8.8.in-addr.arpa", "9.9.9.9:53"),
            ("123.2.0.192.in-addr.arpa", "9.9.9.9:53"),
            ("1.0.0.0.d.f.ip6.arpa", "local d.f.ip6.arpa"),
            ("1.8.e.f.ip6.arpa", "local 8.e.f.ip6.arpa"),
            ("1.0.0.2.ip6.arpa", "9.9.9.9:53"),
            ("web.shop.svc.cluster.local", "local cluster.local"),
            ("printer.corp.local", "9.9.9.9:53"),
            ("printer.local", "local local"),
            ("local", "local local"),
            ("x.alt", "local alt"),
            ("_dns.resolver.arpa", "local resolver.arpa"),
            ("default.service.arpa", "local service.arpa"),
            ("6tisch.arpa", "local 6tisch.arpa"),
            ("eap-noob.arpa", "local eap-noob.arpa"),
            ("test.example", "9.9.9.9:53"),
        ];
        check(&closed, &rows);
        let open = routes(
            &["9.9.9.9", "/test/10.0.0.1", "/arpa/#", "/localhost/#", "/cluster.local/10.0.0.2"],
            &[],
            "",
        );
        let rows = [
            ("a.test", "10.0.0.1:53"),
            ("7.0.0.10.in-addr.arpa", "9.9.9.9:53"),
            ("nas.home.arpa", "9.9.9.9:53"),
            ("a.localhost", "9.9.9.9:53"),
            ("web.shop.svc.cluster.local", "10.0.0.2:53"),
            ("a.onion", "local onion"),
        ];
        check(&open, &rows);
    }

    #[test]
    fn a_code_for_all_other_names_is_for_special_names_as_well() {
        let told_by = |flags: &[&str], answer: &str, name: &str| {
            let routes = routes(flags, &[], "").with_answers(&[answer.parse().unwrap()]);
            let wire = parse(name).unwrap();
            let route = match name.ends_with(".arpa") {
                true => routes.beyond(&wire).map_or(routes.route(&wire), |it| it.route),
                false => routes.route(&wire),
            };
            match route {
                Route::Local(local) => format!("{} {:?}", bare(local.zone), local.kind),
                Route::Group(group) => bare(&routes.groups()[group].suffix),
            }
        };
        let flags = ["/a.example/9.9.9.9", "/in-addr.arpa/127.0.0.1#10053"];
        let named = [&flags[..], &["/local/9.9.9.9", "/127.in-addr.arpa/", "/localhost/"]].concat();
        let rows = [
            ("web.shop.svc.cluster.local", " Code(5)", "local"),
            ("cluster.local", " Code(5)", "local"),
            ("a.local", " Code(5)", "local"),
            ("local", " Code(5)", "local"),
            ("localhost", " Code(5)", "localhost Loopback"),
            ("x.onion", " Code(5)", " Code(5)"),
            ("nas.home.arpa", " Code(5)", " Code(5)"),
            ("a.example", "a.example", "a.example"),
            // After kubedns.
            ("1.0.0.127.in-addr.arpa", " Code(5)", "127.in-addr.arpa Empty"),
            ("8.8.8.8.in-addr.arpa", " Code(5)", " Code(5)"),
        ];
        for (name, expected, if_named) in rows {
            assert_eq!(told_by(&flags, "REFUSED", name), expected, "{name}");
            assert_eq!(told_by(&named, "REFUSED", name), if_named, "{name}");
        }
        // A code for one domain.
        assert_eq!(told_by(&flags, "/onion/SERVFAIL", "x.onion"), "onion Code(2)");
        assert_eq!(told_by(&flags, "/local/SERVFAIL", "cluster.local"), "local Code(2)");
        assert_eq!(told_by(&flags, "/onion/SERVFAIL", "x.alt"), "alt Absent");
    }

    #[test]
    fn the_configuration_directory_adds_and_overrides() {
        let stubs = r#"{"corp.example": ["10.0.0.9", "10.0.0.9"],
            "consul.local": ["consul.shop.svc.cluster.local:8600", "10.0.0.7:8600"]}"#;
        let keys = [("stubDomains", stubs), ("upstreamNameservers", r#"["192.0.2.8"]"#)];
        let routes = routes(&["/corp.example/10.0.0.1"], &keys, "nameserver 192.0.2.1");
        check(
            &routes,
            &[
                ("a.corp.example", "10.0.0.9:53"),
                ("a.consul.local", "consul.shop.svc.cluster.local:8600 10.0.0.7:8600"),
                ("a.example", "192.0.2.8:53"),
            ],
        );
    }

    #[test]
    fn no_line_of_configuration_takes_the_clusters_names_away() {
        const CLUSTER: &str = "/cluster.local/in-addr.arpa/127.0.0.1#10053";
        const POD: &str = "127.0.0.1:10053";
        const OTHER: &str = "10.0.0.9:53";
        // Checks the servers of `a.DOMAIN` if a stub domain or a flag names another server for
        // DOMAIN, and whether that is refused.
        let check = |domain: &str, expected: &str, is_refused: bool| {
            let stub = format!(r#"{{"{domain}": ["10.0.0.9"]}}"#);
            let files = [("stubDomains".to_owned(), stub.clone().into())].into();
            let keys = shared::config_dir::parse(&files).unwrap();
            let said = routes(&[CLUSTER], &[], "").reserved(&keys).pop();
            let said = said.map(|reserved| reserved.to_string());
            let reason = format!("{domain} is answered by kubedns, with --server=/cluster.local/");
            assert_eq!(said.is_some(), is_refused, "{domain}");
            assert!(said.is_none_or(|said| said.contains(&reason)), "{domain}");
            let flag = format!("/{domain}/10.0.0.9");
            let flags = [CLUSTER, &flag].map(|flag| flag.parse().unwrap());
            assert_eq!(super::check(&flags).is_err(), is_refused, "{domain}");
            // A caller that does not check for that must not take over names either.
            let stubs = [("stubDomains", &*stub)];
            for routes in [routes(&[CLUSTER], &stubs, ""), routes(&[CLUSTER, &flag], &[], "")] {
                let name = format!("a.{domain}");
                self::check(&routes, &[(&name, expected), ("a.b.svc.cluster.local", POD)]);
            }
        };
        check("corp.example", OTHER, false);
        check("corp.cluster.local", OTHER, false);
        check("svc.corp.cluster.local", OTHER, false);
        check("svc", OTHER, false);
        check("10.in-addr.arpa", POD, false);
        check("in-addr.arpa", POD, false);
        check("svc.cluster.local", POD, true);
        check("shop.svc.cluster.local", POD, true);
        check("pod.cluster.local", POD, true);
        check("ns.dns.cluster.local", POD, true);
        let stub = [("stubDomains", r#"{"cluster.local": ["10.0.0.9"]}"#)];
        self::check(&routes(&[CLUSTER], &stub, ""), &[("a.cluster.local", POD)]);
        let two = routes(&["/cluster.local/127.0.0.1", "/svc.cluster.local/127.0.0.2"], &[], "");
        self::check(&two, &[("a.b.svc.cluster.local", "127.0.0.2:53")]);
    }

    #[test]
    fn resolv_conf_serves_where_nobody_else_is_named() {
        let resolv = "search a.example\nnameserver 192.0.2.1\nnameserver ::1\n";
        let only_stubs = routes(&["/corp.example/10.0.0.1"], &[], resolv);
        check(&only_stubs, &[("a.example", "192.0.2.1:53 [::1]:53")]);
        check(&routes(&["9.9.9.9"], &[], resolv), &[("a.example", "9.9.9.9:53")]);
        check(&routes(&[], &[], ""), &[("a.example", "")]);
    }

    #[test]
    fn names_of_one_label_have_a_route_of_their_own() {
        let routes = routes(&["//10.0.0.1", "9.9.9.9"], &[], "");
        check(&routes, &[("intranet", "10.0.0.1:53"), ("a.intranet", "9.9.9.9:53")]);
        let here = self::routes(&["//", "9.9.9.9"], &[], "");
        check(&here, &[("picard", "local picard"), ("a.picard", "9.9.9.9:53")]);
        assert_eq!(told(&routes, "localhost"), "local localhost");
    }

    #[test]
    fn a_routed_domain_in_the_pod_is_owned() {
        let rows = [
            ("/cluster.local/127.0.0.1#10053", "a.cluster.local", true),
            ("/cluster.local/::1#10053", "a.cluster.local", true),
            ("/cluster.local/10.0.0.10", "a.cluster.local", false),
            ("127.0.0.1#10053", "a.example", false),
        ];
        for (flag, name, expected) in rows {
            let routes = routes(&[flag], &[], "");
            assert_eq!(routes.is_owned(&parse(name).unwrap()), expected, "{flag}");
        }
    }

    /// Returns the servers that are asked after kubedns, or `local ZONE`, and after which reply;
    /// `-` if it has none.
    fn told_beyond(routes: &Routes, name: &str) -> String {
        let name = parse(name).unwrap();
        let Some(Beyond { route, after }) = routes.beyond(&name) else { return "-".to_owned() };
        assert!(routes.is_owned(&name), "the pod comes first");
        let told = match route {
            Route::Group(group) => match &routes.groups()[group].servers[..] {
                [Server::Address(address)] => address.to_string(),
                servers => panic!("{servers:?}"),
            },
            Route::Local(local) => format!("local {}", bare(local.zone)),
        };
        let word = if after == After::Refused { "refused" } else { "failed" };
        format!("{told} {word}")
    }

    #[test]
    fn others_are_asked_about_addresses_after_the_pod() {
        const POD: &str = "/cluster.local/in-addr.arpa/ip6.arpa/127.0.0.1#10053";
        let check = |flags: &[&str], stubs: &str, rows: &[(&str, &str)]| {
            let flags = [&[POD, "9.9.9.9"], flags].concat();
            let routes = routes(&flags, &[("stubDomains", stubs)], "");
            for &(name, expected) in rows {
                assert_eq!(told_beyond(&routes, name), expected, "{name} with {flags:?}");
                if expected != "-" {
                    assert_eq!(told(&routes, name), "127.0.0.1:10053", "{name}");
                }
            }
        };
        let plain = [
            ("8.8.8.8.in-addr.arpa", "9.9.9.9:53 failed"),
            ("1.0.0.2.ip6.arpa", "9.9.9.9:53 failed"),
            ("7.0.50.10.in-addr.arpa", "9.9.9.9:53 refused"),
            ("7.7.168.192.in-addr.arpa", "9.9.9.9:53 refused"),
            ("1.0.64.100.in-addr.arpa", "9.9.9.9:53 refused"),
            ("2.1.d.f.ip6.arpa", "9.9.9.9:53 refused"),
            ("1.0.0.127.in-addr.arpa", "local 127.in-addr.arpa refused"),
            ("1.0.254.169.in-addr.arpa", "local 254.169.in-addr.arpa refused"),
            ("1.8.e.f.ip6.arpa", "local 8.e.f.ip6.arpa refused"),
            ("in-addr.arpa", "9.9.9.9:53 refused"),
            ("web.shop.svc.cluster.local", "-"),
            ("a.example", "-"),
            ("arpa", "-"),
        ];
        check(&[], "{}", &plain);
        let stub = [
            ("7.0.96.10.in-addr.arpa", "192.0.2.1:53 refused"),
            ("10.in-addr.arpa", "192.0.2.1:53 refused"),
            ("1.0.0.11.in-addr.arpa", "9.9.9.9:53 failed"),
            ("7.7.168.192.in-addr.arpa", "9.9.9.9:53 refused"),
        ];
        check(&[], r#"{"10.in-addr.arpa": ["192.0.2.1"]}"#, &stub);
        check(&["/10.in-addr.arpa/192.0.2.1"], "{}", &stub);
        // A server in the pod that is not kubedns is a stub domain like others.
        let other = [("7.0.96.10.in-addr.arpa", "127.0.0.1:5353 refused")];
        check(&["/10.in-addr.arpa/127.0.0.1#5353"], "{}", &other);
        let nested = [
            ("7.0.96.10.in-addr.arpa", "192.0.2.2:53 refused"),
            ("7.0.97.10.in-addr.arpa", "192.0.2.1:53 refused"),
            ("8.8.8.8.in-addr.arpa", "192.0.2.3:53 failed"),
        ];
        let flags = ["/10.in-addr.arpa/192.0.2.1", "/96.10.in-addr.arpa/192.0.2.2"];
        check(&flags, r#"{"in-addr.arpa": ["192.0.2.3"]}"#, &nested);
        let words = [
            ("7.0.96.10.in-addr.arpa", "local 10.in-addr.arpa refused"),
            ("1.0.0.127.in-addr.arpa", "9.9.9.9:53 refused"),
        ];
        check(&["/10.in-addr.arpa/", "/127.in-addr.arpa/#"], "{}", &words);
    }

    #[test]
    fn without_a_route_into_the_pod_nothing_is_beyond_it() {
        let routes = routes(&["/10.in-addr.arpa/192.0.2.1", "9.9.9.9"], &[], "");
        for name in ["7.0.0.10.in-addr.arpa", "8.8.8.8.in-addr.arpa", "1.1.168.192.in-addr.arpa"] {
            assert_eq!(told_beyond(&routes, name), "-", "{name}");
        }
        check(&routes, &[("7.0.0.10.in-addr.arpa", "192.0.2.1:53")]);
    }

    #[test]
    fn the_root_is_everything_else() {
        let routes = routes(&["9.9.9.9"], &[], "");
        assert_eq!(routes.route(&[0]), Route::Group(DEFAULT));
        assert_eq!(routes.route(&[]), Route::Group(DEFAULT));
    }
}
