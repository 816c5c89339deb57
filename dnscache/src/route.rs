//! Which servers are asked about a name, by the longest routed suffix of it, and which names nobody
//! outside the pod is ever asked about.
//!
//! Core. A set of routes never changes: whoever watches flags and files builds a new one. Knows no
//! socket and does not resolve anything itself.
//!
//! ```text
//! --server /DOMAIN/..., stubDomains ──▶ longest suffix ──▶ Servers, or Local
//!                                          │ none             │ refuse a reverse name
//!                                          ├─ special-use ──▶ Local (RFC 6303, 6761, 7686)
//!                                          │                  ▼
//!                                          └─ --server ADDR, upstreamNameservers, else resolv.conf
//! ```

mod flag;
mod special;

use std::collections::HashMap;
use std::net::SocketAddr;

use shared::config_dir::{Keys, Server};

pub use flag::{FlagError, ServerFlag, Target, resolv_conf, wire};
pub use special::{Kind, Local, text};

/// Who answers for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// The servers of this group: an index into [`Routes::groups`].
    Group(usize),
    /// Ourselves, at once, without asking anybody.
    Local(Local<'a>),
}

/// Servers that answer for the same names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The suffix in wire form, lower case; [`ROOT`] for what no other suffix routes.
    pub suffix: Box<[u8]>,
    /// The servers, each once, in the order given.
    pub servers: Vec<Server>,
    /// The suffix is routed, and all its servers run in this pod: kubedns. It is authoritative for
    /// what it answers, and its names are served to clients that do not want recursion.
    pub owned: bool,
}

/// A snapshot of all routes.
#[derive(Clone, Debug)]
pub struct Routes {
    groups: Vec<Group>,
    suffixes: HashMap<Box<[u8]>, Suffix, foldhash::fast::RandomState>,
    /// For names of one label.
    unqualified: Option<Suffix>,
    /// The longest suffix in bytes: longer ones need no look-up.
    suffix_len_max: usize,
}

/// What a suffix leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suffix {
    Group(usize),
    Default,
    Local,
    /// Local unless a shorter suffix is routed.
    Special(Kind),
}

impl Routes {
    /// The routes that `flags`, the configuration directory and the servers of resolv.conf make.
    ///
    /// A stub domain of the directory takes the place of a flag for the same domain, as far as
    /// [`Routes::admit`] lets it; resolv.conf counts where neither flags nor directory name a
    /// server for everything else.
    pub fn new(flags: &[ServerFlag], keys: &Keys, resolv: &[SocketAddr]) -> Self {
        let mut routes = Self {
            groups: Vec::new(),
            suffixes: special::zones().map(|(zone, kind)| (zone, Suffix::Special(kind))).collect(),
            unqualified: None,
            suffix_len_max: 0,
        };
        routes.add_group(ROOT, default_servers(flags, keys, resolv));
        for flag in flags {
            for domain in &flag.domains {
                routes.add_flag(domain, flag.target);
            }
        }
        for (domain, servers) in &keys.stub_domains {
            // The keys were checked when they were read: what is no name here was none there.
            let Some(name) = wire(domain) else { continue };
            let group = match routes.suffixes.get(&name) {
                Some(&Suffix::Group(group)) => group,
                _ => routes.add_group(&name, Vec::new()),
            };
            routes.groups[group].servers.clear();
            for server in servers {
                push_once(&mut routes.groups[group].servers, server.clone());
            }
            routes.suffixes.insert(name, Suffix::Group(group));
        }
        for group in &mut routes.groups {
            let in_pod = |server: &Server| match server {
                Server::Address(address) => address.ip().is_loopback(),
                Server::Name { .. } => false,
            };
            group.owned = *group.suffix != *ROOT && group.servers.iter().all(in_pod);
        }
        routes.suffix_len_max = routes.suffixes.keys().map(|key| key.len()).max().unwrap_or(0);
        routes
    }

    /// Fails where a stub domain of `keys` is one that servers in this pod answer for: a line of
    /// configuration must not take the cluster's names away.
    pub fn admit(&self, keys: &Keys) -> Result<(), Reserved> {
        let is_reserved = |domain: &&String| {
            let name = wire(domain).unwrap_or_default();
            let group = self.groups.iter().find(|group| *group.suffix == *name);
            group.is_some_and(|group| group.owned)
        };
        match keys.stub_domains.keys().find(is_reserved) {
            Some(domain) => Err(Reserved { domain: domain.clone() }),
            None => Ok(()),
        }
    }

    /// Who answers for `name`, in wire form and lower case.
    pub fn route<'a>(&self, name: &'a [u8]) -> Route<'a> {
        let mut special = None;
        let mut rest = name;
        while let [length, tail @ ..] = rest
            && *length > 0
        {
            if rest.len() <= self.suffix_len_max
                && let Some(&suffix) = self.suffixes.get(rest)
            {
                match suffix {
                    Suffix::Special(kind) => {
                        special = special.or(Some(Local { zone: rest, kind }));
                    }
                    routed => return route(routed, rest),
                }
            }
            rest = tail.get(usize::from(*length)..).unwrap_or_default();
        }
        match (special, self.unqualified) {
            (Some(local), _) => Route::Local(local),
            (None, Some(suffix)) if shared::wire::labels(name).count() == 1 => route(suffix, name),
            _ => Route::Group(DEFAULT),
        }
    }

    /// Whether kubedns owns `name`, in wire form and lower case.
    pub fn is_owned(&self, name: &[u8]) -> bool {
        matches!(self.route(name), Route::Group(group) if self.groups[group].owned)
    }

    /// The group that is asked where the servers in the pod refuse `name`, in wire form and lower
    /// case: the reverse name of an address that is not the cluster's. Nothing for other names,
    /// which stay in the pod.
    pub fn beyond(&self, name: &[u8]) -> Option<usize> {
        let is_reverse = REVERSE.iter().any(|zone| name.ends_with(zone));
        (is_reverse && self.is_owned(name)).then_some(DEFAULT)
    }

    /// All groups; the first is the one for what no suffix routes.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Adds what one `--server` says about `domain`. Servers of the same domain add up; of what
    /// contradicts itself the last counts.
    fn add_flag(&mut self, domain: &[u8], target: Target) {
        let is_unqualified = domain.is_empty();
        let before = match is_unqualified {
            true => self.unqualified,
            false => self.suffixes.get(domain).copied(),
        };
        let suffix = match (target, before) {
            (Target::Default, _) => Suffix::Default,
            (Target::Local, _) => Suffix::Local,
            (Target::Address(address), Some(Suffix::Group(group))) => {
                push_once(&mut self.groups[group].servers, Server::Address(address));
                Suffix::Group(group)
            }
            (Target::Address(address), _) => {
                Suffix::Group(self.add_group(domain, vec![Server::Address(address)]))
            }
        };
        match is_unqualified {
            true => self.unqualified = Some(suffix),
            false => drop(self.suffixes.insert(domain.into(), suffix)),
        }
    }

    fn add_group(&mut self, suffix: &[u8], servers: Vec<Server>) -> usize {
        self.groups.push(Group { suffix: suffix.into(), servers, owned: false });
        self.groups.len() - 1
    }
}

/// A stub domain that servers in this pod answer for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stubDomains: {domain} is answered in this pod, by --server=/{domain}/...; expected other \
     domains, below it or elsewhere"
)]
pub struct Reserved {
    domain: String,
}

impl Default for Routes {
    /// No server for anything.
    fn default() -> Self {
        Self::new(&[], &Keys::default(), &[])
    }
}

fn route(suffix: Suffix, zone: &[u8]) -> Route<'_> {
    match suffix {
        Suffix::Group(group) => Route::Group(group),
        Suffix::Default => Route::Group(DEFAULT),
        Suffix::Local => Route::Local(Local { zone, kind: Kind::Absent }),
        Suffix::Special(kind) => Route::Local(Local { zone, kind }),
    }
}

/// Who is asked about everything that no suffix routes.
fn default_servers(flags: &[ServerFlag], keys: &Keys, resolv: &[SocketAddr]) -> Vec<Server> {
    let flags = flags.iter().filter(|flag| flag.domains.is_empty());
    let flags = flags.filter_map(|flag| match flag.target {
        Target::Address(address) => Some(address),
        Target::Default | Target::Local => None,
    });
    let mut servers = Vec::new();
    for address in flags.chain(keys.upstream_nameservers.iter().copied()) {
        push_once(&mut servers, Server::Address(address));
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
/// The group for what no suffix routes.
const DEFAULT: usize = 0;
/// `in-addr.arpa.` and `ip6.arpa.` in wire form.
const REVERSE: [&[u8]; 2] = [b"\x07in-addr\x04arpa\0", b"\x03ip6\x04arpa\0"];

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(flags: &[&str], keys: &[(&str, &str)], resolv: &str) -> Routes {
        let files = keys.iter().map(|&(key, text)| (key.to_owned(), text.into())).collect();
        let keys = shared::config_dir::parse(&files).unwrap();
        let flags: Vec<ServerFlag> = flags.iter().map(|flag| flag.parse().unwrap()).collect();
        Routes::new(&flags, &keys, &resolv_conf(resolv))
    }

    /// The servers of `name`, or `local ZONE`.
    fn told(routes: &Routes, name: &str) -> String {
        let name = wire(name).unwrap();
        let show = |server: &Server| match server {
            Server::Address(address) => address.to_string(),
            Server::Name { host, port } => format!("{host}:{port}"),
        };
        match routes.route(&name) {
            Route::Group(group) => {
                let servers: Vec<_> = routes.groups()[group].servers.iter().map(show).collect();
                servers.join(" ")
            }
            Route::Local(local) => format!("local {}", text(local.zone)),
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
                ("mycluster.local", "9.9.9.9:53 [2620:fe::9]:53"),
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
    fn no_stub_domain_takes_the_clusters_names_away() {
        let flags = ["/cluster.local/in-addr.arpa/127.0.0.1#10053", "/corp.example/10.0.0.1"];
        let flags = routes(&flags, &[], "");
        let admit = |domain: &str| {
            let text = format!(r#"{{"{domain}": ["10.0.0.9"]}}"#);
            let files = [("stubDomains".to_owned(), text.into())].into();
            flags.admit(&shared::config_dir::parse(&files).unwrap())
        };
        for domain in ["corp.example", "corp.cluster.local", "10.in-addr.arpa", "local"] {
            assert_eq!(admit(domain), Ok(()), "{domain}");
        }
        for domain in ["cluster.local", "in-addr.arpa"] {
            let said = admit(domain).unwrap_err().to_string();
            let expected = format!("{domain} is answered in this pod, by --server=/{domain}/");
            assert!(said.contains(&expected), "{said}");
        }
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
            assert_eq!(routes.is_owned(&wire(name).unwrap()), expected, "{flag}");
        }
    }

    #[test]
    fn addresses_of_others_are_asked_beyond_the_pod() {
        let here = "127.0.0.1#10053";
        let zones = ["cluster.local", "in-addr.arpa", "ip6.arpa"];
        let flags = zones.map(|zone| format!("/{zone}/{here}"));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let routes = routes(&[&flags[..], &["/10.in-addr.arpa/192.0.2.1"]].concat(), &[], "");
        let rows = [
            ("8.8.8.8.in-addr.arpa", Some(DEFAULT)),
            ("1.0.0.2.ip6.arpa", Some(DEFAULT)),
            ("web.shop.svc.cluster.local", None),
            ("7.0.0.10.in-addr.arpa", None),
            ("a.example", None),
        ];
        for (name, expected) in rows {
            assert_eq!(routes.beyond(&wire(name).unwrap()), expected, "{name}");
        }
    }

    #[test]
    fn the_root_is_everything_else() {
        let routes = routes(&["9.9.9.9"], &[], "");
        assert_eq!(routes.route(&[0]), Route::Group(DEFAULT));
        assert_eq!(routes.route(&[]), Route::Group(DEFAULT));
    }
}
