//! Parses the texts that define routes: dnsmasq's `--server` and resolv.conf.
//!
//! Core. Text in, values out; opens no files.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use shared::config_dir::Server;
use shared::endpoint::{Endpoint, Transport};
use shared::name::{domain, host_name, parse};
use shared::peer::{AddressError, Interfaces, host_address, server_address};

use crate::changes::{Host, Source, canonical};

/// One `--server`: `[/DOMAIN/.../][tcp://|tls://]ADDR[#PORT][@SOURCE|@NAME]`, or
/// `/DOMAIN/.../HOST[#PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFlag {
    /// The suffixes, in lower-case wire form. An empty suffix applies to names of one label.
    /// Without suffixes, the flag applies to all names that no suffix routes.
    pub domains: Vec<Box<[u8]>>,
    /// The server to ask.
    pub target: Target,
    /// Whether the server is kubedns: it runs in this pod, or dnscache follows its changes
    /// ([`ServerFlag::mark`]).
    pub is_kubedns: bool,
}

/// Where the names of a flag are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This server.
    Server(Server),
    /// `#`: the servers for all other names.
    Default,
    /// Empty: no server is asked, and names that are unknown here do not exist.
    Local,
}

/// Why a text is not a valid `--server`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// It begins with a slash, but has no slash after the domains.
    #[error("expected a / behind the last domain, such as /corp.example/10.0.0.1")]
    Open,
    /// A text between slashes is not a domain.
    #[error(
        "{0:?} is not a domain name, expected labels of 1 to 63 letters, digits, '-' or '_': \
         /corp.example/10.0.0.1"
    )]
    Domain(String),
    /// The text after @ is not an address of the server's family.
    #[error(
        "{0:?} is not allowed after @, expected an address of this machine to send from, in the \
         server's family"
    )]
    Source(String),
    /// The text after @ is not the name of a TLS server.
    #[error("{0:?} is not allowed after @, expected the host name in the server's certificate")]
    TlsName(String),
    /// The port is not a number from 1 to 65535.
    #[error("port {0:?} is not allowed, expected 1 to 65535")]
    Port(String),
    /// The address is not valid. A host name is allowed only after domains.
    #[error(
        "expected [/DOMAIN/.../][tcp://|tls://]ADDR[#PORT][@NAME] or /DOMAIN/.../HOST[#PORT], such \
         as 10.0.0.1, fd00::1#5353, tls://9.9.9.9@dns.quad9.net or /a.example/#"
    )]
    Address,
    /// A DNS server cannot have this address, or its interface is missing.
    #[error(transparent)]
    Server(AddressError),
}

impl FromStr for ServerFlag {
    type Err = FlagError;

    /// Parses a flag whose address has no interface, or one given by its index.
    fn from_str(text: &str) -> Result<Self, FlagError> {
        Self::parse(text, &|_| None)
    }
}

impl ServerFlag {
    /// Parses the value of one `--server`.
    pub fn parse(text: &str, interfaces: Interfaces<'_>) -> Result<Self, FlagError> {
        let Some(rest) = text.strip_prefix('/') else {
            let target = Target::Server(server(text, interfaces)?);
            return Ok(Self { domains: Vec::new(), target, is_kubedns: false });
        };
        let scheme = SCHEMES.iter().find_map(|(scheme, _)| rest.find(&format!("/{scheme}")));
        let (domains, text) = match scheme {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => rest.rsplit_once('/').ok_or(FlagError::Open)?,
        };
        let name = |text: &str| match text {
            "" => Ok(Box::default()),
            text => {
                let name = domain(text).and_then(|name| parse(&name));
                name.ok_or_else(|| FlagError::Domain(text.to_owned()))
            }
        };
        let domains = domains.split('/').map(name).collect::<Result<_, _>>()?;
        let target = match text {
            "" => Target::Local,
            "#" => Target::Default,
            text => match (server(text, interfaces), named(text)) {
                (Err(FlagError::Address), Some(server)) => Target::Server(server),
                (server, _) => Target::Server(server?),
            },
        };
        let is_kubedns = matches!(&target, Target::Server(Server::Address(address))
            if address.ip().is_loopback());
        Ok(Self { domains, target, is_kubedns })
    }

    /// Marks the server as kubedns if changes are followed of the replica at its address or of the
    /// replicas of its host, or if the domain is such a host: only kubedns has the addresses of its
    /// own replicas.
    #[must_use]
    pub fn mark(mut self, sources: &[Source]) -> Self {
        let is_followed = |server: &Server| {
            sources.iter().any(|source| match (server, &source.host) {
                (Server::Address(server), Host::Address(address)) => {
                    canonical(server.ip()) == canonical(*address)
                }
                (Server::Name { host, .. }, Host::Name(name)) => host == name,
                _ => false,
            })
        };
        let is_host = |domain: &[u8]| {
            sources.iter().any(|source| source.host_name().as_deref() == Some(domain))
        };
        if let Target::Server(server) = &self.target {
            let is_ours = is_followed(server) || self.domains.iter().any(|domain| is_host(domain));
            self.is_kubedns |= is_ours && !self.domains.is_empty();
        }
        self
    }
}

/// Parses `HOST[#PORT]`, a server given by its name.
fn named(text: &str) -> Option<Server> {
    let (host, port) = match text.split_once('#') {
        Some((host, port)) => (host, port.parse().ok().filter(|&port| port != 0)?),
        None => (text, PORT),
    };
    Some(Server::Name { host: host_name(host)?, port })
}

/// Parses `[tcp://|tls://]ADDR[#PORT][@SOURCE|@NAME]`.
fn server(text: &str, interfaces: Interfaces<'_>) -> Result<Server, FlagError> {
    let scheme = SCHEMES.iter().find(|(scheme, _)| text.starts_with(scheme));
    let (rest, transport) = match scheme {
        Some((scheme, transport)) => (&text[scheme.len()..], transport.clone()),
        None => (text, Transport::Udp),
    };
    let (host, after) = match rest.split_once('@') {
        Some((host, after)) => (host, Some(after)),
        None => (rest, None),
    };
    let port = if matches!(transport, Transport::Tls(_)) { TLS_PORT } else { PORT };
    let address = address(host, port, interfaces)?;
    let endpoint = Endpoint { transport, ..Endpoint::from(address) };
    match (&endpoint.transport, after) {
        (Transport::Udp, None) => Ok(Server::Address(address)),
        (_, None) => Ok(Server::Endpoint(endpoint)),
        (Transport::Tls(_), Some(name)) => {
            let is_name = domain(name).is_some() && name.parse::<IpAddr>().is_err();
            if !is_name {
                return Err(FlagError::TlsName(name.to_owned()));
            }
            let name = name.to_ascii_lowercase().into();
            Ok(Server::Endpoint(Endpoint { transport: Transport::Tls(Some(name)), ..endpoint }))
        }
        (_, Some(source)) => {
            let parsed = source.parse::<IpAddr>().ok();
            let parsed = parsed.filter(|source| source.is_ipv4() == address.is_ipv4());
            let source = parsed.ok_or_else(|| FlagError::Source(source.to_owned()))?;
            Ok(Server::Endpoint(Endpoint { source: Some(source), ..endpoint }))
        }
    }
}

/// Parses `ADDR[#PORT]` or `ADDR:PORT`. `default` is the port if there is none.
fn address(text: &str, default: u16, interfaces: Interfaces<'_>) -> Result<SocketAddr, FlagError> {
    let address = match text.split_once('#') {
        None => server_address(text, default, interfaces),
        Some((host, number)) => match (host_address(host, default, interfaces), number.parse()) {
            (Err(error), _) => Err(error),
            (Ok(_), Ok(0) | Err(_)) => return Err(FlagError::Port(number.to_owned())),
            (Ok(_), Ok(port)) => host_address(host, port, interfaces),
        },
    };
    address.map_err(|error| match error {
        AddressError::Server => FlagError::Address,
        error => FlagError::Server(error),
    })
}

/// The servers in a resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolv {
    /// The servers, in its order.
    pub servers: Vec<SocketAddr>,
    /// Lines that cannot be used: number, text and reason.
    pub refused: Vec<String>,
}

/// Parses a resolv.conf. Lines with other known keywords are ignored. A line with an unknown
/// keyword is refused, because it probably is a mistyped `nameserver`.
pub fn resolv_conf(text: &str, interfaces: Interfaces<'_>) -> Resolv {
    let mut resolv = Resolv::default();
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next().filter(|word| !word.starts_with(['#', ';'])) else {
            continue;
        };
        let read = match first {
            "nameserver" => host_address(words.next().unwrap_or(""), PORT, interfaces)
                .map(Some)
                .map_err(|error| match error {
                    AddressError::Server => "expected nameserver ADDRESS".to_owned(),
                    error => error.to_string(),
                }),
            _ if KEYWORDS.contains(&first) => Ok(None),
            _ => Err("the keyword is unknown".to_owned()),
        };
        match read {
            Ok(server) => resolv.servers.extend(server),
            Err(reason) => {
                let line = line.trim();
                resolv.refused.push(format!("line {}, {line:?}: {reason}", index + 1));
            }
        }
    }
    resolv
}

/// The keywords of resolv.conf(5) beside `nameserver`, and those of other systems that resolvers on
/// Linux ignore.
const KEYWORDS: [&str; 9] = [
    "domain",
    "search",
    "options",
    "sortlist",
    "lookup",
    "family",
    "timeout",
    "port",
    "search_order",
];
/// The schemes of servers that are not asked over UDP first.
const SCHEMES: [(&str, Transport); 2] =
    [("tcp://", Transport::Tcp), ("tls://", Transport::Tls(None))];
/// The port of DNS over TLS (RFC 7858 section 3.1).
const TLS_PORT: u16 = 853;
/// The port of DNS (RFC 1035 section 4.2).
const PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, domains: &[&str], target: Target) {
        let name = |&text: &&str| match text {
            "" => Box::default(),
            text => parse(text).unwrap(),
        };
        let domains: Vec<Box<[u8]>> = domains.iter().map(name).collect();
        let flag: ServerFlag = text.parse().unwrap();
        assert_eq!((flag.domains, flag.target), (domains, target), "{text}");
    }

    #[test]
    fn what_dnsmasq_takes() {
        let at = |text: &str| Target::Server(Server::Address(text.parse().unwrap()));
        check("10.0.0.1", &[], at("10.0.0.1:53"));
        check("127.0.0.1#10053", &[], at("127.0.0.1:10053"));
        check("fd00::1", &[], at("[fd00::1]:53"));
        check("::1#5353", &[], at("[::1]:5353"));
        check("10.0.0.1:5353", &[], at("10.0.0.1:5353"));
        check("[::1]:5353", &[], at("[::1]:5353"));
        check("fe80::1%3", &[], at("[fe80::1%3]:53"));
        check("fe80::1%3#5353", &[], at("[fe80::1%3]:5353"));
        check("/a.example/fe80::1%3#5353", &["a.example"], at("[fe80::1%3]:5353"));
        check("::1%lo", &[], at("[::1]:53"));
        check("/_msdcs.a.example/10.0.0.1", &["_msdcs.a.example"], at("10.0.0.1:53"));
        let kubedns = at("127.0.0.1:10053");
        check("/cluster.local/127.0.0.1#10053", &["cluster.local"], kubedns.clone());
        check("/CLUSTER.local./127.0.0.1#10053", &["cluster.local"], kubedns);
        check("/a.example/b.example/::1", &["a.example", "b.example"], at("[::1]:53"));
        check("/_tcp.a.example/10.0.0.1", &["_tcp.a.example"], at("10.0.0.1:53"));
        check("/a.example/#", &["a.example"], Target::Default);
        check("/a.example/", &["a.example"], Target::Local);
        check("//10.0.0.1", &[""], at("10.0.0.1:53"));
        check("//", &[""], Target::Local);
        let host = |host: &str, port| Target::Server(Server::Name { host: host.into(), port });
        check("/a.example/NS.b.example", &["a.example"], host("ns.b.example", 53));
        check(
            "/a.example/b.example/c/ns.#5353",
            &["a.example", "b.example", "c"],
            host("ns", 5353),
        );
    }

    #[test]
    fn kubedns_runs_in_the_pod_or_its_changes_are_followed() {
        let sources = ["http://10.0.0.1:8081/changes", "http://dns.svc.cluster.local:1/changes"];
        let sources: Vec<Source> = sources.iter().map(|source| source.parse().unwrap()).collect();
        let rows = [
            ("/cluster.local/127.0.0.1#10053", true, true),
            ("/cluster.local/10.0.0.1#10053", false, true),
            ("/cluster.local/::ffff:10.0.0.1#53", false, true),
            ("/cluster.local/10.0.0.2#10053", false, false),
            ("/cluster.local/10.in-addr.arpa/dns.svc.cluster.local#10053", false, true),
            ("/cluster.local/other.svc.cluster.local#10053", false, false),
            ("/dns.svc.cluster.local/10.96.0.7#10053", false, true),
            ("/cluster.local/", false, false),
            ("/cluster.local/#", false, false),
            ("10.0.0.1", false, false),
        ];
        for (text, alone, marked) in rows {
            let flag: ServerFlag = text.parse().unwrap();
            assert_eq!((flag.is_kubedns, flag.clone().mark(&[]).is_kubedns), (alone, alone));
            assert_eq!(flag.mark(&sources).is_kubedns, marked, "{text}");
        }
    }

    #[test]
    fn servers_are_asked_over_tcp_or_tls_or_from_an_address() {
        let endpoint = |address: &str, transport| Endpoint {
            transport,
            ..Endpoint::from(address.parse::<SocketAddr>().unwrap())
        };
        let tls = |name: &str| Transport::Tls(Some(name.into()));
        let from =
            |endpoint, source: &str| Endpoint { source: Some(source.parse().unwrap()), ..endpoint };
        let quad9 = tls("dns.quad9.net");
        let rows = [
            ("tcp://10.0.0.1", endpoint("10.0.0.1:53", Transport::Tcp)),
            ("tcp://fd00::1#5353", endpoint("[fd00::1]:5353", Transport::Tcp)),
            ("tls://10.0.0.1", endpoint("10.0.0.1:853", Transport::Tls(None))),
            ("tls://9.9.9.9@dns.quad9.net", endpoint("9.9.9.9:853", quad9.clone())),
            ("tls://9.9.9.9#8853@DNS.Quad9.net", endpoint("9.9.9.9:8853", quad9)),
            ("10.0.0.1@10.0.0.2", from(endpoint("10.0.0.1:53", Transport::Udp), "10.0.0.2")),
            ("tcp://::1@::1", from(endpoint("[::1]:53", Transport::Tcp), "::1")),
        ];
        for (text, endpoint) in rows {
            let target = Target::Server(Server::Endpoint(endpoint));
            check(text, &[], target.clone());
            check(&format!("/a.example/b.example/{text}"), &["a.example", "b.example"], target);
        }
    }

    #[test]
    fn what_is_refused_and_how() {
        let long = format!("/{}.example/10.0.0.1", "a".repeat(64));
        let rows = [
            ("", "expected [/DOMAIN/"),
            ("#", "expected [/DOMAIN/"),
            ("dns.example", "expected [/DOMAIN/"),
            ("10.0.0.1#", "port \"\" is not allowed"),
            ("10.0.0.1#0", "port \"0\" is not allowed"),
            ("10.0.0.1#65536", "port \"65536\" is not allowed"),
            ("10.0.0.1@eth0", "\"eth0\" is not allowed after @, expected an address"),
            ("10.0.0.1@fd00::1", "\"fd00::1\" is not allowed after @, expected an address"),
            ("tcp://10.0.0.1@", "\"\" is not allowed after @, expected an address"),
            ("tls://10.0.0.1@", "\"\" is not allowed after @, expected the host name"),
            ("tls://10.0.0.1@10.0.0.1", "expected the host name in the server's certificate"),
            ("tls://10.0.0.1@a..b", "expected the host name in the server's certificate"),
            ("tls://dns.example", "expected [/DOMAIN/"),
            ("https://10.0.0.1", "expected [/DOMAIN/"),
            ("tls://10.0.0.1#0", "port \"0\" is not allowed"),
            ("/a..example/tls://10.0.0.1", "\"a..example\" is not a domain name"),
            ("192.0.2.1#19", "port 19 belongs to"),
            ("192.0.2.1:7", "port 7 belongs to"),
            ("0.0.0.0", "0.0.0.0 is not the address of one host"),
            ("/a.example/255.255.255.255", "255.255.255.255 is not the address of one host"),
            ("224.0.0.251#5353", "224.0.0.251 is not the address of one host"),
            ("fe80::1#53", "fe80::1 is a link-local address and needs its interface"),
            ("fe80::1%eth9", "no network interface \"eth9\""),
            ("10.0.0.1%eth0", "expected [/DOMAIN/"),
            ("/", "expected a / behind"),
            ("/a.example", "expected a / behind"),
            ("/a..example/10.0.0.1", "\"a..example\" is not a domain name"),
            ("/*.example/10.0.0.1", "\"*.example\" is not a domain name"),
            ("/a.example/10.0.0.256", "expected [/DOMAIN/"),
            ("/a.example/ns..b", "expected [/DOMAIN/"),
            ("/a.example/ns#0", "expected [/DOMAIN/"),
            ("/a.example/tcp://ns", "expected [/DOMAIN/"),
            ("/a b/10.0.0.1", "\"a b\" is not a domain name"),
            (long.as_str(), "is not a domain name"),
        ];
        for (text, expected) in rows {
            let error = text.parse::<ServerFlag>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn resolv_conf_names_servers_and_much_else() {
        let text = "# made by hand\n\
            domain a.example\n\
            search a.example b.example\n\
            nameserver 192.0.2.1\n\
            nameserver\t2001:db8::1 # second\n\
            \x20 nameserver 192.0.2.3\n\
            nameserver fe80::1%eth0\n\
            nameserver fe80::2%3\n\
            nameserver ::1%lo\n\
            \n\
            ;nameserver 192.0.2.4\n\
            options ndots:5\n";
        let resolv = resolv_conf(text, &|name| (name == "eth0").then_some(7));
        let servers: Vec<_> = resolv.servers.iter().map(ToString::to_string).collect();
        let expected = [
            "192.0.2.1:53",
            "[2001:db8::1]:53",
            "192.0.2.3:53",
            "[fe80::1%7]:53",
            "[fe80::2%3]:53",
            "[::1]:53",
        ];
        assert_eq!(servers, expected);
        assert_eq!(resolv.refused, [""; 0]);
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named() {
        let rows = [
            ("nameserver dns.example", "expected nameserver ADDRESS"),
            ("nameserver", "expected nameserver ADDRESS"),
            ("nameserver 192.0.2.1:53", "expected nameserver ADDRESS"),
            ("nameserver fe80::1", "fe80::1 is a link-local address"),
            ("nameserver fe80::1%eth9", "no network interface \"eth9\""),
            ("nameserver 0.0.0.0", "0.0.0.0 is not the address of one host"),
            ("nameserver 224.0.0.251", "224.0.0.251 is not"),
            ("nameservers 192.0.2.1", "the keyword is unknown"),
            ("nameserver=192.0.2.1", "the keyword is unknown"),
            ("nameserver fe80::1\u{1b}[31m%eth0", "expected nameserver ADDRESS"),
        ];
        for (line, expected) in rows {
            let text = format!("search a.example\n{line}\nnameserver 192.0.2.9\n");
            let resolv = resolv_conf(&text, &|_| None);
            assert_eq!(resolv.servers, ["192.0.2.9:53".parse().unwrap()], "{line}");
            let [refused] = &resolv.refused[..] else { panic!("{line}: {resolv:?}") };
            assert!(refused.starts_with("line 2, \"") && refused.contains(expected), "{refused}");
            assert!(!refused.contains('\u{1b}'), "{refused:?}");
        }
    }
}
