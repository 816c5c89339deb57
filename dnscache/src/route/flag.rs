//! The texts that routes are written in: dnsmasq's `--server` and resolv.conf.
//!
//! Core. Text in, values out; knows no file.

use std::net::SocketAddr;
use std::str::FromStr;

use shared::name::domain;
use shared::peer::{AddressError, Interfaces, host_address, server_address};
use shared::wire::NAME_MAX;

/// One `--server`: `[/DOMAIN/.../]ADDR[#PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFlag {
    /// The suffixes it is about, in wire form and lower case; an empty one is about names of one
    /// label. None: it is about everything that no suffix routes.
    pub domains: Vec<Box<[u8]>>,
    /// Who is asked.
    pub target: Target,
}

/// What a rule's names lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// This server.
    Address(SocketAddr),
    /// `#`: whoever is asked about everything else.
    Default,
    /// Nothing: nobody is asked, what is not known here does not exist.
    Local,
}

/// Why a text is no `--server`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// There is a slash in front and none behind the domains.
    #[error("expected a / behind the last domain, such as /corp.example/10.0.0.1")]
    Open,
    /// What is between slashes is not a domain.
    #[error(
        "{0:?} is not a domain name, expected labels of 1 to 63 letters, digits, '-' or '_': \
         /corp.example/10.0.0.1"
    )]
    Domain(String),
    /// A source address or interface, which dnsmasq would take.
    #[error("@ is not supported, expected [/DOMAIN/.../]ADDR[#PORT]")]
    Source,
    /// The port is no number from 1 to 65535.
    #[error("port {0:?} is not allowed, expected 1 to 65535")]
    Port(String),
    /// The address is none; host names belong into `stubDomains`.
    #[error("expected [/DOMAIN/.../]ADDR[#PORT], such as 10.0.0.1, fd00::1#5353 or /a.example/#")]
    Address,
    /// The address is one that no DNS server can have, or its interface is missing.
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
            let target = Target::Address(address(text, interfaces)?);
            return Ok(Self { domains: Vec::new(), target });
        };
        let (domains, server) = rest.rsplit_once('/').ok_or(FlagError::Open)?;
        let name = |text: &str| match text {
            "" => Ok(Box::default()),
            text => {
                let name = domain(text).and_then(|name| wire(&name));
                name.ok_or_else(|| FlagError::Domain(text.to_owned()))
            }
        };
        let domains = domains.split('/').map(name).collect::<Result<_, _>>()?;
        let target = match server {
            "" => Target::Local,
            "#" => Target::Default,
            server => Target::Address(address(server, interfaces)?),
        };
        Ok(Self { domains, target })
    }
}

/// `ADDR[#PORT]`; `ADDR:PORT` is understood too.
fn address(text: &str, interfaces: Interfaces<'_>) -> Result<SocketAddr, FlagError> {
    if text.contains('@') {
        return Err(FlagError::Source);
    }
    let address = match text.split_once('#') {
        None => server_address(text, PORT, interfaces),
        Some((host, number)) => match (host_address(host, PORT, interfaces), number.parse()) {
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

/// A domain of printable ASCII labels as a name in wire form and lower case; the root is none.
pub fn wire(text: &str) -> Option<Box<[u8]>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut name = Vec::with_capacity(text.len() + 2);
    for label in text.split('.') {
        let is_printable = label.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*');
        if label.is_empty() || label.len() > 63 || !is_printable {
            return None;
        }
        name.push(label.len() as u8);
        name.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    name.push(0);
    (name.len() <= NAME_MAX).then(|| name.into())
}

/// What a resolv.conf says about servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolv {
    /// The servers, in its order.
    pub servers: Vec<SocketAddr>,
    /// Lines that cannot be used: their number, themselves and why.
    pub refused: Vec<String>,
}

/// Reads a resolv.conf. Lines about other things than servers are passed over; a line that is about
/// nothing known is refused, because it is most likely a mistyped `nameserver`.
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
/// Linux pass over.
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
/// The port of DNS (RFC 1035 section 4.2).
const PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, domains: &[&str], target: Target) {
        let name = |&text: &&str| match text {
            "" => Box::default(),
            text => wire(text).unwrap(),
        };
        let expected = ServerFlag { domains: domains.iter().map(name).collect(), target };
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }

    #[test]
    fn what_dnsmasq_takes() {
        let at = |text: &str| Target::Address(text.parse().unwrap());
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
        check("/cluster.local/127.0.0.1#10053", &["cluster.local"], kubedns);
        check("/CLUSTER.local./127.0.0.1#10053", &["cluster.local"], kubedns);
        check("/a.example/b.example/::1", &["a.example", "b.example"], at("[::1]:53"));
        check("/_tcp.a.example/10.0.0.1", &["_tcp.a.example"], at("10.0.0.1:53"));
        check("/a.example/#", &["a.example"], Target::Default);
        check("/a.example/", &["a.example"], Target::Local);
        check("//10.0.0.1", &[""], at("10.0.0.1:53"));
        check("//", &[""], Target::Local);
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
            ("10.0.0.1@eth0", "@ is not supported"),
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
