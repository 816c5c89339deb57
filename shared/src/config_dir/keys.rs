//! The keys of the `kube-dns` ConfigMap: text in, checked values out.
//!
//! Core. Reads no file; one bad value refuses the whole: no half of a change is ever applied.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::flags::{AddressError, server_address};

use super::Files;

/// The keys there are.
pub const KEYS: [&str; 3] = ["stubDomains", "upstreamNameservers", "federations"];

/// What a directory says; the default is an empty directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Suffix, lower case without the last dot -> who is asked for it, at least one each.
    pub stub_domains: BTreeMap<String, Vec<Server>>,
    /// Who is asked for everything else; empty: whom `resolv.conf` names.
    pub upstream_nameservers: Vec<SocketAddr>,
    /// Federation's name -> its domain.
    pub federations: BTreeMap<String, String>,
}

/// A server of a stub domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// Known by address.
    Address(SocketAddr),
    /// Known by name: to be resolved through the cluster's own zone, and again when that changes.
    Name {
        /// The name, lower case without the last dot.
        host: String,
        /// Its port, 1 to 65535.
        port: u16,
    },
}

/// Why a directory is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file that is no key of ours: a mistyped key must not pass in silence.
    #[error("unknown key {key:?}: expected stubDomains, upstreamNameservers or federations")]
    Unknown {
        /// The file's name.
        key: String,
    },
    /// A value is not UTF-8.
    #[error("{key} is not UTF-8")]
    NotText {
        /// The key.
        key: &'static str,
        /// Where it stops being UTF-8.
        source: std::str::Utf8Error,
    },
    /// A value is not the JSON it should be.
    #[error("{key} is not {expected}")]
    Json {
        /// The key.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What the reader met.
        source: serde_json::Error,
    },
    /// A stub domain is no domain name.
    #[error("stubDomains: {suffix:?} is no domain name (RFC 1123: a-z, 0-9, '-', '.')")]
    Suffix {
        /// As written.
        suffix: String,
    },
    /// A stub domain or federation stands there twice.
    #[error("{key}: {name:?} is given twice")]
    Twice {
        /// The key.
        key: &'static str,
        /// The suffix or federation.
        name: String,
    },
    /// A stub domain has no server.
    #[error("stubDomains: {suffix:?} has no server")]
    NoServer {
        /// The stub domain.
        suffix: String,
    },
    /// Too many entries.
    #[error("{key}: {count} entries, at most {ENTRIES_MAX} are allowed")]
    TooMany {
        /// The key.
        key: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A server of a stub domain is neither an address nor a host name.
    #[error("stubDomains: server {server:?} of {suffix:?} is neither IP, IP:PORT nor host name")]
    StubServer {
        /// The stub domain.
        suffix: String,
        /// As written.
        server: String,
    },
    /// An upstream is no address.
    #[error("upstreamNameservers: {server:?}")]
    Upstream {
        /// As written.
        server: String,
        /// What is allowed.
        source: AddressError,
    },
    /// A federation is not `name=domain`.
    #[error("federations: {entry:?} is not NAME=DOMAIN, a DNS label and a domain name")]
    Federation {
        /// As written.
        entry: String,
    },
}

/// The keys that `files` hold. A key that is missing or blank has its default.
///
/// Fails at the first key that is unknown or wrong.
pub fn parse(files: &Files) -> Result<Keys, KeyError> {
    let mut keys = Keys::default();
    for (name, bytes) in files {
        let key = KEYS.into_iter().find(|key| key == name);
        let key = key.ok_or_else(|| KeyError::Unknown { key: name.clone() })?;
        let text =
            std::str::from_utf8(bytes).map_err(|source| KeyError::NotText { key, source })?;
        match (key, text.trim()) {
            (_, "") => {}
            ("stubDomains", text) => keys.stub_domains = stub_domains(key, text)?,
            ("upstreamNameservers", text) => keys.upstream_nameservers = upstreams(key, text)?,
            (_, text) => keys.federations = federations(key, text)?,
        }
    }
    Ok(keys)
}

fn stub_domains(key: &'static str, text: &str) -> Result<BTreeMap<String, Vec<Server>>, KeyError> {
    const EXPECTED: &str = "a JSON object of arrays of servers";
    let json = |source| KeyError::Json { key, expected: EXPECTED, source };
    let Pairs(pairs) = serde_json::from_str(text).map_err(json)?;
    bounded(key, pairs.iter().map(|(_, servers)| servers.len().max(1)).sum())?;
    let mut domains = BTreeMap::new();
    for (written, servers) in pairs {
        let suffix = domain(&written).ok_or(KeyError::Suffix { suffix: written })?;
        if servers.is_empty() {
            return Err(KeyError::NoServer { suffix });
        }
        let parsed = servers.into_iter().map(|server| {
            let wrong = |server| KeyError::StubServer { suffix: suffix.clone(), server };
            stub_server(&server).ok_or_else(|| wrong(server))
        });
        let parsed = parsed.collect::<Result<_, _>>()?;
        insert_once(key, &mut domains, suffix, parsed)?;
    }
    Ok(domains)
}

fn stub_server(text: &str) -> Option<Server> {
    if let Ok(address) = server_address(text, DNS_PORT) {
        return Some(Server::Address(address));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|&port| port != 0)?),
        None => (text, DNS_PORT),
    };
    // Digits and dots alone are a mistyped address, never a host (RFC 1123 section 2.1).
    let named = host.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'.');
    Some(Server::Name { host: domain(host).filter(|_| named)?, port })
}

fn upstreams(key: &'static str, text: &str) -> Result<Vec<SocketAddr>, KeyError> {
    const EXPECTED: &str = "a JSON array of addresses";
    let json = |source| KeyError::Json { key, expected: EXPECTED, source };
    let servers = serde_json::from_str::<Vec<String>>(text).map_err(json)?;
    bounded(key, servers.len())?;
    let address = |server: String| {
        server_address(&server, DNS_PORT).map_err(|source| KeyError::Upstream { server, source })
    };
    servers.into_iter().map(address).collect()
}

fn federations(key: &'static str, text: &str) -> Result<BTreeMap<String, String>, KeyError> {
    bounded(key, text.split(',').count())?;
    let mut federations = BTreeMap::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let pair = entry.split_once('=').and_then(|(name, suffix)| {
            let name = domain(name.trim()).filter(|name| !name.contains('.'))?;
            Some((name, domain(suffix.trim())?))
        });
        let (name, suffix) =
            pair.ok_or_else(|| KeyError::Federation { entry: entry.to_owned() })?;
        insert_once(key, &mut federations, name, suffix)?;
    }
    Ok(federations)
}

/// A domain name of RFC 1123 labels, lower case without the last dot; the root is none.
fn domain(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=LABEL_LEN_MAX).contains(&bytes.len())
            && bytes.iter().all(|&byte| letter(byte) || byte == b'-')
            && letter(bytes[0])
            && letter(bytes[bytes.len() - 1])
    };
    (name.len() <= DOMAIN_LEN_MAX && name.split('.').all(is_label)).then_some(name)
}

fn bounded(key: &'static str, count: usize) -> Result<(), KeyError> {
    if count > ENTRIES_MAX { Err(KeyError::TooMany { key, count }) } else { Ok(()) }
}

fn insert_once<V>(
    key: &'static str,
    map: &mut BTreeMap<String, V>,
    name: String,
    value: V,
) -> Result<(), KeyError> {
    if map.contains_key(&name) {
        return Err(KeyError::Twice { key, name });
    }
    map.insert(name, value);
    Ok(())
}

/// A JSON object of arrays as a list: a name that stands there twice is not lost.
struct Pairs(Vec<(String, Vec<String>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

/// Where DNS is served (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;
/// Servers of all stub domains together, upstreams, or federations.
const ENTRIES_MAX: usize = 1_024;
/// RFC 1035 section 2.3.4.
const LABEL_LEN_MAX: usize = 63;
/// As text without the last dot: 255 bytes on the wire.
const DOMAIN_LEN_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn files(rows: &[(&str, &str)]) -> Files {
        rows.iter().map(|(key, text)| (key.to_string(), text.as_bytes().to_vec())).collect()
    }

    fn address(text: &str) -> Server {
        Server::Address(text.parse().unwrap())
    }

    #[test]
    fn every_key_is_read() {
        let keys = parse(&files(&[
            (
                "stubDomains",
                r#"{"Acme.local.": ["1.2.3.4", "1.2.3.4:5300", "[fd00::1]:53", "fd00::2"],
                    "consul.local": ["consul.infra.svc.cluster.local", "ns.example.:8600"]}"#,
            ),
            ("upstreamNameservers", r#"["8.8.8.8", "8.8.4.4:5353", "fd00::3", "9.9.9.9"]"#),
            ("federations", " fed=example.com, prod=clusters.example.org\n"),
        ]))
        .unwrap();
        let acme = ["1.2.3.4:53", "1.2.3.4:5300", "[fd00::1]:53", "[fd00::2]:53"].map(address);
        assert_eq!(keys.stub_domains["acme.local"], acme);
        let host = |host: &str, port| Server::Name { host: host.into(), port };
        let consul = [host("consul.infra.svc.cluster.local", 53), host("ns.example", 8600)];
        assert_eq!(keys.stub_domains["consul.local"], consul);
        assert_eq!(keys.upstream_nameservers.len(), 4);
        assert_eq!(keys.upstream_nameservers[1], "8.8.4.4:5353".parse().unwrap());
        assert_eq!(keys.federations["fed"], "example.com");
        assert_eq!(keys.federations["prod"], "clusters.example.org");
    }

    #[test]
    fn nothing_and_blank_mean_the_defaults() {
        assert_eq!(parse(&Files::new()).unwrap(), Keys::default());
        let blank = KEYS.map(|key| (key, " \n"));
        assert_eq!(parse(&files(&blank)).unwrap(), Keys::default());
        let empty = [("stubDomains", "{}"), ("upstreamNameservers", "[]"), ("federations", ",")];
        assert_eq!(parse(&files(&empty)).unwrap(), Keys::default());
    }

    #[test]
    fn a_federation_may_have_a_domain_of_one_label() {
        let keys = parse(&files(&[("federations", "a=b")])).unwrap();
        assert_eq!(keys.federations, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (stub, up, fed) = (KEYS[0], KEYS[1], KEYS[2]);
        let long = format!(r#"{{"{}": ["1.2.3.4"]}}"#, "a".repeat(64));
        let many = format!("[{}\"1.1.1.1\"]", "\"1.1.1.1\",".repeat(ENTRIES_MAX));
        let rows = [
            ("stubDomain", "{}", "unknown key \"stubDomain\": expected stubDomains"),
            (stub, "nonsense", "stubDomains is not a JSON object"),
            (stub, r#"["1.2.3.4"]"#, "stubDomains is not a JSON object"),
            (stub, r#"{"a.b": "1.2.3.4"}"#, "stubDomains is not a JSON object"),
            (stub, r#"{"": ["1.2.3.4"]}"#, "\"\" is no domain name"),
            (stub, r#"{".": ["1.2.3.4"]}"#, "\".\" is no domain name"),
            (stub, r#"{"a..b": ["1.2.3.4"]}"#, "\"a..b\" is no domain name"),
            (stub, r#"{"-a.b": ["1.2.3.4"]}"#, "is no domain name"),
            (stub, r#"{"*.b": ["1.2.3.4"]}"#, "is no domain name"),
            (stub, &long, "is no domain name"),
            (stub, r#"{"a.b": []}"#, "\"a.b\" has no server"),
            (stub, r#"{"a.b": ["1.2.3.4"], "A.B.": ["1.2.3.5"]}"#, "\"a.b\" is given twice"),
            (stub, r#"{"a.b": ["1.2.3.4"], "a.b": ["1.2.3.5"]}"#, "\"a.b\" is given twice"),
            (stub, r#"{"a.b": ["1.2.3.4:65536"]}"#, "server \"1.2.3.4:65536\" of \"a.b\""),
            (stub, r#"{"a.b": ["1.2.3.4:0"]}"#, "server \"1.2.3.4:0\" of"),
            (stub, r#"{"a.b": ["1.2.3.4:"]}"#, "server \"1.2.3.4:\" of"),
            (stub, r#"{"a.b": ["1.2.3.4:abc"]}"#, "server \"1.2.3.4:abc\" of"),
            (stub, r#"{"a.b": ["1.2.3.444"]}"#, "server \"1.2.3.444\" of"),
            (stub, r#"{"a.b": ["host_name"]}"#, "server \"host_name\" of"),
            (stub, r#"{"a.b": ["1.2.3.4", ""]}"#, "server \"\" of"),
            (up, r#"{"a": 1}"#, "upstreamNameservers is not a JSON array"),
            (up, r#"["dns.example"]"#, "\"dns.example\": expected IP or IP:PORT"),
            (up, r#"["1.2.3.4:99999"]"#, "\"1.2.3.4:99999\": expected"),
            (up, r#"["1.2.3.4:0"]"#, "\"1.2.3.4:0\": port 0"),
            (up, &many, "1025 entries, at most 1024"),
            (fed, "fed", "\"fed\" is not NAME=DOMAIN"),
            (fed, "a.b=example.com", "\"a.b=example.com\" is not"),
            (fed, "fed=", "\"fed=\" is not"),
            (fed, "fed=exa_mple", "is not NAME=DOMAIN"),
            (fed, "a=b,ccdd", "\"ccdd\" is not NAME=DOMAIN"),
            (fed, "=b", "\"=b\" is not NAME=DOMAIN"),
            (fed, ".=b", "\".=b\" is not NAME=DOMAIN"),
            (fed, "a=b.c,a=d.e", "federations: \"a\" is given twice"),
        ];
        for (key, text, expected) in rows {
            let error = crate::flags::chain(&parse(&files(&[(key, text)])).unwrap_err());
            assert!(error.contains(expected), "{key} {text}: {error}");
        }
        let not_text = Files::from([(fed.to_owned(), vec![0xff])]);
        assert!(matches!(parse(&not_text), Err(KeyError::NotText { .. })));
    }
}
