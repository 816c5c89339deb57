//! The texts that routes are written in: dnsmasq's `--server` and resolv.conf.
//!
//! Core. Text in, values out; knows no file.

use std::net::SocketAddr;
use std::str::FromStr;

use shared::flags::{AddressError, server_address};
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
    /// What stands between slashes is no domain.
    #[error("{0:?} is no domain name, expected labels of 1 to 63 bytes: /corp.example/10.0.0.1")]
    Domain(String),
    /// A source address or interface, which dnsmasq would take.
    #[error("@ is not supported, expected [/DOMAIN/.../]ADDR[#PORT]")]
    Source,
    /// The port is no number from 1 to 65535.
    #[error("port {0:?} is not allowed, expected 1 to 65535")]
    Port(String),
    /// The address is none; host names belong into `stubDomains`.
    #[error("expected [/DOMAIN/.../]ADDR[#PORT], such as 10.0.0.1, fd00::1#5353 or /a.example/#")]
    Address(#[source] AddressError),
}

impl FromStr for ServerFlag {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Ok(Self { domains: Vec::new(), target: Target::Address(address(text)?) });
        };
        let (domains, server) = rest.rsplit_once('/').ok_or(FlagError::Open)?;
        let domain = |text: &str| match text {
            "" => Ok(Box::default()),
            text => wire(text).ok_or_else(|| FlagError::Domain(text.to_owned())),
        };
        let domains = domains.split('/').map(domain).collect::<Result<_, _>>()?;
        let target = match server {
            "" => Target::Local,
            "#" => Target::Default,
            server => Target::Address(address(server)?),
        };
        Ok(Self { domains, target })
    }
}

/// `ADDR[#PORT]`; `ADDR:PORT` is understood too.
fn address(text: &str) -> Result<SocketAddr, FlagError> {
    if text.contains('@') {
        return Err(FlagError::Source);
    }
    let Some((address, port)) = text.split_once('#') else {
        return server_address(text, PORT).map_err(FlagError::Address);
    };
    let ip = address.parse().map_err(|_| FlagError::Address(AddressError::Server))?;
    match port.parse() {
        Ok(0) | Err(_) => Err(FlagError::Port(port.to_owned())),
        Ok(port) => Ok(SocketAddr::new(ip, port)),
    }
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

/// The servers that a resolv.conf names, in its order. Lines that are no `nameserver` with an
/// address are passed over, as every resolver does.
pub fn resolv_conf(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let ip = words.next().filter(|&word| word == "nameserver").and(words.next())?;
        Some(SocketAddr::new(ip.parse().ok()?, PORT))
    };
    text.lines().filter_map(server).collect()
}

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
            ("/", "expected a / behind"),
            ("/a.example", "expected a / behind"),
            ("/a..example/10.0.0.1", "\"a..example\" is no domain name"),
            ("/*.example/10.0.0.1", "\"*.example\" is no domain name"),
            ("/a b/10.0.0.1", "\"a b\" is no domain name"),
            (long.as_str(), "is no domain name"),
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
            nameserver dns.example\n\
            nameserver\n\
            ;nameserver 192.0.2.4\n\
            options ndots:5\n";
        let servers: Vec<_> = resolv_conf(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]);
    }
}
