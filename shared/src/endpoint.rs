//! The address of an upstream server, and how it is reached.
//!
//! Core. Values only.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The address of a server, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address on which it listens.
    pub address: SocketAddr,
    /// The source address of queries; `None` lets the system choose.
    pub source: Option<IpAddr>,
    /// How it is asked.
    pub transport: Transport,
}

/// How a server is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Over UDP, and over TCP if a reply does not fit or UDP stays silent (RFC 7766).
    Udp,
    /// Over TCP alone.
    Tcp,
    /// Over TLS (RFC 7858), verified against this name or the server's address.
    Tls(Option<Arc<str>>),
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address, source: None, transport: Transport::Udp }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source, transport } = self;
        match transport {
            Transport::Udp => write!(f, "{address}"),
            Transport::Tcp => write!(f, "tcp://{address}"),
            Transport::Tls(None) => write!(f, "tls://{address}"),
            Transport::Tls(Some(name)) => write!(f, "tls://{address}@{name}"),
        }?;
        source.map_or(Ok(()), |source| write!(f, " from {source}"))
    }
}
