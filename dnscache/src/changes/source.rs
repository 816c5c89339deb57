//! The sources of change streams, as given by `--changes`.
//!
//! Core. Text in, values out; does not resolve names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hyper::Uri;
use shared::name;
use shared::name::host_name;

/// One `--changes`: the stream of one replica of kubedns, or of every replica whose address a host
/// name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The host of the URL.
    pub host: Host,
    /// The port of the URL.
    pub port: u16,
    /// The path of the URL.
    pub path: String,
}

/// The host of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// One replica.
    Address(IpAddr),
    /// Every address of this name, in lower case without the last dot.
    Name(String),
}

/// Why a text is not the URL of a change stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected http://HOST:PORT/changes with an address or a host name; the stream has no TLS, \
     because it does not leave the cluster"
)]
pub struct SourceError;

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let url: Uri = text.parse().map_err(|_| SourceError)?;
        let host = url.host().filter(|_| url.scheme_str() == Some("http")).ok_or(SourceError)?;
        let host = match host.trim_matches(['[', ']']).parse() {
            Ok(address) => Host::Address(address),
            // Must never be sent to a server (RFC 6761 section 6.3).
            Err(_) if host.eq_ignore_ascii_case("localhost") => {
                Host::Address(Ipv4Addr::LOCALHOST.into())
            }
            Err(_) => Host::Name(host_name(host).ok_or(SourceError)?),
        };
        let port = match url.port() {
            None => 80,
            Some(port) => Some(port.as_u16()).filter(|&port| port != 0).ok_or(SourceError)?,
        };
        Ok(Self { host, port, path: url.path().to_owned() })
    }
}

impl Source {
    /// Returns the host in lower-case wire form if it is a name.
    pub fn host_name(&self) -> Option<Box<[u8]>> {
        match &self.host {
            Host::Name(name) => name::parse(name),
            Host::Address(_) => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, path } = self;
        match host {
            Host::Address(IpAddr::V6(address)) => write!(f, "http://[{address}]:{port}{path}"),
            Host::Address(address) => write!(f, "http://{address}:{port}{path}"),
            Host::Name(name) => write!(f, "http://{name}:{port}{path}"),
        }
    }
}

/// Returns the address for comparisons of hosts. Both loopback addresses are this pod, and an IPv4
/// address is the same if it is written as an IPv6 address.
pub fn canonical(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv4Addr::LOCALHOST.into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_an_address_or_a_host_name() {
        let rows = [
            ("http://127.0.0.1:8081/changes", Some("http://127.0.0.1:8081/changes")),
            ("http://[fd00::7]:8081/changes", Some("http://[fd00::7]:8081/changes")),
            ("http://LocalHost:8081/changes", Some("http://127.0.0.1:8081/changes")),
            ("http://10.0.0.7/changes", Some("http://10.0.0.7:80/changes")),
            ("http://KubeDNS.kube-system.svc.:81/c", Some("http://kubedns.kube-system.svc:81/c")),
            ("http://10.0.0.256:8081/changes", None),
            ("http://kube..dns:8081/changes", None),
            ("http://kubedns:0/changes", None),
            ("https://kubedns:8081/changes", None),
            ("kubedns:8081", None),
            ("/changes", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let source = text.parse::<Source>().map(|source| source.to_string());
            assert_eq!(source, expected.map(str::to_owned).ok_or(SourceError), "{text}");
        }
    }
}
