//! The keys of the `kube-dns` ConfigMap: text in, checked values out.
//!
//! Core. Opens no files. The unit of refusal is one entry: a domain, a server, a federation. A bad
//! entry does not affect the others.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use crate::endpoint::Endpoint;
use crate::name::{domain, host_name};
use crate::peer::{AddressError, Interfaces, server_address};

use super::Files;

/// The names of the keys.
pub const KEYS: [&str; 3] = ["stubDomains", "upstreamNameservers", "federations"];

/// The values in a directory. The default is an empty directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Suffix, in lower case without the last dot -> its servers, at least one each.
    pub stub_domains: BTreeMap<String, Vec<Server>>,
    /// The servers for all other names; if empty, those in `resolv.conf`.
    pub upstream_nameservers: Vec<SocketAddr>,
    /// Federation's name -> its domain.
    pub federations: BTreeMap<String, String>,
}

/// A server of a stub domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// Given by address, and asked over UDP first.
    Address(SocketAddr),
    /// Asked over another transport, or from a given source address. Only flags can define such
    /// servers.
    Endpoint(Endpoint),
    /// Given by name, which must be resolved through the cluster's own zone, and again if that
    /// changes.
    Name {
        /// The name, lower case without the last dot.
        host: String,
        /// Its port, 1 to 65535.
        port: u16,
    },
}

/// Why a key or one entry of it is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file that is not a key. A mistyped key must not be ignored silently.
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
        /// The position of the first invalid byte.
        source: std::str::Utf8Error,
    },
    /// A value is not the required JSON.
    #[error("{key} is not {expected}")]
    Json {
        /// The key.
        key: &'static str,
        /// The required type.
        expected: &'static str,
        /// The error of the parser.
        source: serde_json::Error,
    },
    /// A stub domain is not a domain name.
    #[error(
        "stubDomains: {suffix:?} is not a domain name: expected labels of 1 to 63 letters, digits, \
         '-' or '_' with dots between them"
    )]
    Suffix {
        /// As written.
        suffix: String,
    },
    /// A stub domain or federation is given twice.
    #[error("{key}: {name:?} is given twice: the first one holds")]
    Twice {
        /// The key.
        key: &'static str,
        /// The suffix or federation.
        name: String,
    },
    /// A stub domain has a value other than a list of servers.
    #[error("stubDomains: {suffix:?} is {value}, expected an array of servers")]
    NoArray {
        /// The stub domain.
        suffix: String,
        /// As written.
        value: Value,
    },
    /// A stub domain has no server.
    #[error("stubDomains: {suffix:?} has no server")]
    NoServer {
        /// The stub domain.
        suffix: String,
    },
    /// Too many entries.
    #[error("{key}: {count} entries, at most {ENTRIES_MAX} are allowed: the first ones hold")]
    TooMany {
        /// The key.
        key: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A server of a stub domain is neither an address nor a host name.
    #[error("stubDomains: server {server} of {suffix:?} is neither IP, IP:PORT nor host name")]
    StubServer {
        /// The stub domain.
        suffix: String,
        /// As written.
        server: Value,
    },
    /// A server of a stub domain has an address that a DNS server cannot have.
    #[error("stubDomains: server {server} of {suffix:?}")]
    StubAddress {
        /// The stub domain.
        suffix: String,
        /// As written.
        server: Value,
        /// The reason.
        source: AddressError,
    },
    /// An upstream is not an address.
    #[error("upstreamNameservers: {server}")]
    Upstream {
        /// As written.
        server: Value,
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

/// A refusal, and its effect.
#[derive(Debug)]
pub struct Refusal {
    /// The reason.
    pub error: KeyError,
    /// Whether the last good value stays in force. If not, the entry has no value.
    pub kept: bool,
}

impl Keys {
    /// Parses the keys in `files`. A key that is missing or blank has its default.
    ///
    /// A bad entry is refused by itself. If `before` has its last good value, that stays in force;
    /// otherwise the entry is left out.
    pub fn read(files: &Files, before: &Self, interfaces: Interfaces<'_>) -> (Self, Vec<Refusal>) {
        let mut reading =
            Reading { keys: Self::default(), before, interfaces, refused: Vec::new() };
        for (name, bytes) in files {
            match KEYS.into_iter().find(|key| key == name) {
                Some(key) => reading.key(key, bytes),
                None => reading.refuse(KeyError::Unknown { key: name.clone() }, false),
            }
        }
        (reading.keys, reading.refused)
    }

    /// Copies the value of `key` from `before`. Returns whether it has one.
    pub fn keep(&mut self, key: &str, before: &Self) -> bool {
        match key {
            "stubDomains" => self.stub_domains.clone_from(&before.stub_domains),
            "upstreamNameservers" => {
                self.upstream_nameservers.clone_from(&before.upstream_nameservers);
            }
            "federations" => self.federations.clone_from(&before.federations),
            _ => return false,
        }
        match key {
            "stubDomains" => !before.stub_domains.is_empty(),
            "upstreamNameservers" => !before.upstream_nameservers.is_empty(),
            _ => !before.federations.is_empty(),
        }
    }
}

/// Parses the keys in `files`, without interfaces.
///
/// Fails at the first entry that is refused.
pub fn parse(files: &Files) -> Result<Keys, KeyError> {
    let (keys, refused) = Keys::read(files, &Keys::default(), &|_| None);
    refused.into_iter().next().map_or(Ok(keys), |refusal| Err(refusal.error))
}

/// Keys being parsed.
struct Reading<'r> {
    keys: Keys,
    before: &'r Keys,
    interfaces: Interfaces<'r>,
    refused: Vec<Refusal>,
}

impl Reading<'_> {
    fn refuse(&mut self, error: KeyError, kept: bool) {
        self.refused.push(Refusal { error, kept });
    }

    /// Refuses all of `key`.
    fn refuse_key(&mut self, key: &'static str, error: KeyError) {
        let kept = self.keys.keep(key, self.before);
        self.refuse(error, kept);
    }

    fn key(&mut self, key: &'static str, bytes: &[u8]) {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.trim(),
            Err(source) => return self.refuse_key(key, KeyError::NotText { key, source }),
        };
        let json = |expected| move |source| KeyError::Json { key, expected, source };
        let read = match (key, text) {
            (_, "") => Ok(()),
            ("stubDomains", text) => serde_json::from_str(text)
                .map(|Pairs(pairs)| self.stub_domains(key, pairs))
                .map_err(json("a JSON object of arrays of servers")),
            ("upstreamNameservers", text) => serde_json::from_str(text)
                .map(|servers| self.upstreams(key, servers))
                .map_err(json("a JSON array of addresses")),
            (_, text) => {
                self.federations(key, text);
                Ok(())
            }
        };
        if let Err(error) = read {
            self.refuse_key(key, error);
        }
    }

    fn stub_domains(&mut self, key: &'static str, pairs: Vec<(String, Value)>) {
        let servers = |value: &Value| value.as_array().map_or(1, |servers| servers.len().max(1));
        let mut room = self.bound(key, pairs.iter().map(|(_, value)| servers(value)).sum());
        for (written, value) in pairs {
            let Some(suffix) = domain(&written) else {
                self.refuse(KeyError::Suffix { suffix: written }, false);
                continue;
            };
            if self.keys.stub_domains.contains_key(&suffix) {
                self.refuse(KeyError::Twice { key, name: suffix }, false);
                continue;
            }
            let before = self.before.stub_domains.get(&suffix).cloned();
            let kept = before.is_some();
            let servers = match value {
                Value::Array(servers) if servers.is_empty() => {
                    self.refuse(KeyError::NoServer { suffix: suffix.clone() }, kept);
                    Vec::new()
                }
                Value::Array(mut servers) => {
                    servers.truncate(room);
                    room -= servers.len();
                    self.stub_servers(&suffix, servers, kept)
                }
                value => {
                    self.refuse(KeyError::NoArray { suffix: suffix.clone(), value }, kept);
                    Vec::new()
                }
            };
            let servers = if servers.is_empty() { before.unwrap_or_default() } else { servers };
            if !servers.is_empty() {
                self.keys.stub_domains.insert(suffix, servers);
            }
        }
    }

    /// Returns the valid servers of a stub domain. If none is valid, `kept` sets whether those
    /// before stay.
    fn stub_servers(&mut self, suffix: &str, servers: Vec<Value>, kept: bool) -> Vec<Server> {
        let read: Vec<_> =
            servers.into_iter().map(|server| self.stub_server(suffix, server)).collect();
        let kept = kept && read.iter().all(Result::is_err);
        let mut good = Vec::new();
        for server in read {
            match server {
                Ok(server) => good.push(server),
                Err(error) => self.refuse(error, kept),
            }
        }
        good
    }

    fn stub_server(&self, suffix: &str, server: Value) -> Result<Server, KeyError> {
        let suffix = suffix.to_owned();
        let Some(text) = server.as_str() else {
            return Err(KeyError::StubServer { suffix, server });
        };
        match server_address(text, DNS_PORT, self.interfaces) {
            Ok(address) => Ok(Server::Address(address)),
            Err(AddressError::Server) => {
                stub_host(text).ok_or(KeyError::StubServer { suffix, server })
            }
            Err(source) => Err(KeyError::StubAddress { suffix, server, source }),
        }
    }

    fn upstreams(&mut self, key: &'static str, mut servers: Vec<Value>) {
        let room = self.bound(key, servers.len());
        servers.truncate(room);
        let address = |server: Value| {
            let text = server.as_str().ok_or(AddressError::Server);
            let address = text.and_then(|text| server_address(text, DNS_PORT, self.interfaces));
            address.map_err(|source| KeyError::Upstream { server, source })
        };
        let read: Vec<_> = servers.into_iter().map(address).collect();
        let keeps = read.iter().all(Result::is_err) && !read.is_empty();
        let kept = keeps && self.keys.keep(key, self.before);
        for address in read {
            match address {
                Ok(address) => self.keys.upstream_nameservers.push(address),
                Err(error) => self.refuse(error, kept),
            }
        }
    }

    fn federations(&mut self, key: &'static str, text: &str) {
        let room = self.bound(key, text.split(',').count());
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).take(room) {
            let (name, suffix) = entry.split_once('=').unwrap_or((entry, ""));
            let name = domain(name.trim()).filter(|name| !name.contains('.'));
            let suffix = domain(suffix.trim());
            let Some(name) = name else {
                self.refuse(KeyError::Federation { entry: entry.to_owned() }, false);
                continue;
            };
            if self.keys.federations.contains_key(&name) {
                self.refuse(KeyError::Twice { key, name }, false);
                continue;
            }
            let before = self.before.federations.get(&name).cloned();
            if suffix.is_none() {
                self.refuse(KeyError::Federation { entry: entry.to_owned() }, before.is_some());
            }
            if let Some(suffix) = suffix.or(before) {
                self.keys.federations.insert(name, suffix);
            }
        }
    }

    /// Returns how many of `count` entries are read, and refuses the rest.
    fn bound(&mut self, key: &'static str, count: usize) -> usize {
        if count > ENTRIES_MAX {
            self.refuse(KeyError::TooMany { key, count }, false);
        }
        ENTRIES_MAX
    }
}

/// Parses a server of a stub domain given by its name: `HOST` or `HOST:PORT`.
fn stub_host(text: &str) -> Option<Server> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|&port| port != 0)?),
        None => (text, DNS_PORT),
    };
    Some(Server::Name { host: host_name(host)?, port })
}

/// A JSON object as a list, so that a name that is given twice is not lost.
struct Pairs(Vec<(String, Value)>);

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

/// The port of DNS (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;
/// The maximum of servers of all stub domains together, of upstreams, or of federations.
const ENTRIES_MAX: usize = 1_024;

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
            (stub, r#"{"a.b": "1.2.3.4"}"#, "\"a.b\" is \"1.2.3.4\", expected an array"),
            (stub, r#"{"a.b": {}}"#, "\"a.b\" is {}, expected an array"),
            (stub, r#"{"a.b": [53]}"#, "server 53 of \"a.b\""),
            (stub, r#"{"": ["1.2.3.4"]}"#, "\"\" is not a domain name"),
            (stub, r#"{".": ["1.2.3.4"]}"#, "\".\" is not a domain name"),
            (stub, r#"{"a..b": ["1.2.3.4"]}"#, "\"a..b\" is not a domain name"),
            (stub, r#"{"a b": ["1.2.3.4"]}"#, "is not a domain name"),
            (stub, r#"{"*.b": ["1.2.3.4"]}"#, "is not a domain name"),
            (stub, r#"{"a.b:53": ["1.2.3.4"]}"#, "is not a domain name"),
            (stub, &long, "is not a domain name"),
            (stub, r#"{"a.b": []}"#, "\"a.b\" has no server"),
            (stub, r#"{"a.b": ["1.2.3.4"], "A.B.": ["1.2.3.5"]}"#, "\"a.b\" is given twice"),
            (stub, r#"{"a.b": ["1.2.3.4"], "a.b": ["1.2.3.5"]}"#, "\"a.b\" is given twice"),
            (stub, r#"{"a.b": ["1.2.3.4:65536"]}"#, "server \"1.2.3.4:65536\" of \"a.b\""),
            (stub, r#"{"a.b": ["1.2.3.4:0"]}"#, "server \"1.2.3.4:0\" of"),
            (stub, r#"{"a.b": ["1.2.3.4:"]}"#, "server \"1.2.3.4:\" of"),
            (stub, r#"{"a.b": ["1.2.3.4:abc"]}"#, "server \"1.2.3.4:abc\" of"),
            (stub, r#"{"a.b": ["1.2.3.444"]}"#, "server \"1.2.3.444\" of"),
            (stub, r#"{"a.b": ["host name"]}"#, "server \"host name\" of"),
            (
                stub,
                r#"{"a.b": ["224.0.0.251:5353"]}"#,
                "224.0.0.251 is not the address of one host",
            ),
            (stub, r#"{"a.b": ["192.0.2.1:19"]}"#, "port 19 belongs to"),
            (stub, r#"{"a.b": ["fe80::1"]}"#, "fe80::1 is a link-local address and needs"),
            (stub, r#"{"a.b": ["fe80::1%eth9"]}"#, "no network interface \"eth9\""),
            (stub, r#"{"a.b": ["1.2.3.4", ""]}"#, "server \"\" of"),
            (up, r#"{"a": 1}"#, "upstreamNameservers is not a JSON array"),
            (up, r#"["dns.example"]"#, "\"dns.example\": expected IP or IP:PORT"),
            (up, r#"["1.2.3.4:99999"]"#, "\"1.2.3.4:99999\": expected"),
            (up, r#"["1.2.3.4:0"]"#, "\"1.2.3.4:0\": port 0"),
            (up, &many, "1025 entries, at most 1024"),
            (fed, "fed", "\"fed\" is not NAME=DOMAIN"),
            (fed, "a.b=example.com", "\"a.b=example.com\" is not"),
            (fed, "fed=", "\"fed=\" is not"),
            (fed, "fed=exa mple", "is not NAME=DOMAIN"),
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

    #[test]
    fn underscores_are_letters_of_a_domain_as_in_flags() {
        let keys = parse(&files(&[
            ("stubDomains", r#"{"_msdcs.corp.example": ["10.0.0.1", "dc_1.corp.example"]}"#),
            ("federations", "my_fed=fed_1.example"),
        ]));
        let keys = keys.unwrap();
        assert!(keys.stub_domains.contains_key("_msdcs.corp.example"));
        assert_eq!(keys.federations["my_fed"], "fed_1.example");
    }

    #[test]
    fn servers_may_have_an_interface() {
        let files = files(&[
            ("stubDomains", r#"{"a.b": ["fe80::1%eth0", "[fe80::2%3]:5353", "::1%lo"]}"#),
            ("upstreamNameservers", r#"["fe80::3%eth0", "fe80::4%eth9"]"#),
        ]);
        let interfaces = |name: &str| (name == "eth0").then_some(7);
        let (keys, refused) = Keys::read(&files, &Keys::default(), &interfaces);
        let expected = ["[fe80::1%7]:53", "[fe80::2%3]:5353", "[::1]:53"].map(address);
        assert_eq!(keys.stub_domains["a.b"], expected);
        assert_eq!(keys.upstream_nameservers, ["[fe80::3%7]:53".parse().unwrap()]);
        assert_eq!(refused.len(), 1);
    }

    /// The same numbers each time (xorshift64).
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }
    }

    /// Entries of all kinds in random order: good ones must be applied, and each bad one must be
    /// reported.
    #[test]
    fn whatever_stands_beside_them_good_entries_hold() {
        let bad_values = [
            "[]",
            "null",
            "5",
            "\"10.0.0.1\"",
            "{}",
            "[null]",
            "[[]]",
            "[\"\"]",
            "[\"10.0.0.256\"]",
            "[\"a b\"]",
            "[\"0.0.0.0\"]",
            "[\"10.0.0.1:7\"]",
            "[true]",
            "[\"fe80::1%nowhere\"]",
            "[\"\\u0000\"]",
        ];
        let bad_names = ["", ".", "a..b", "*.c", "a b", "http://a.b", "\\u0000", "\\n"];
        let mut random = Random(0x5eed);
        for _ in 0..2_000 {
            let (mut entries, mut good, mut bad) = (Vec::new(), Vec::new(), 0);
            for number in 0..random.below(12) {
                match random.below(3) {
                    0 => {
                        entries.push(format!(r#""g{number}.corp": ["10.0.0.{number}"]"#));
                        good.push(format!("g{number}.corp"));
                    }
                    1 => {
                        let value = bad_values[random.below(bad_values.len())];
                        entries.push(format!(r#""b{number}.corp": {value}"#));
                        bad += 1;
                    }
                    _ => {
                        let name = bad_names[random.below(bad_names.len())];
                        entries.push(format!(r#""{name}": ["10.0.0.1"]"#));
                        bad += 1;
                    }
                }
            }
            let text = format!("{{{}}}", entries.join(", "));
            let upstreams = r#"["192.0.2.1"]"#;
            let files = files(&[("stubDomains", &text), ("upstreamNameservers", upstreams)]);
            let (keys, refused) = Keys::read(&files, &Keys::default(), &|_| None);
            good.sort();
            assert!(keys.stub_domains.keys().eq(good.iter()), "{text}: {keys:?}");
            assert_eq!(refused.len(), bad, "{text}: {refused:?}");
            assert_eq!(keys.upstream_nameservers.len(), 1);
        }
    }

    /// Any bytes in one key must not affect the others. At worst the key keeps its last good value.
    #[test]
    fn broken_text_of_one_key_costs_only_that_key() {
        let stubs = r#"{"a.corp": ["10.0.0.1", "ns.example:8600"], "_b.corp": ["fd00::1"]}"#;
        let upstreams = r#"["8.8.8.8", "[fd00::3]:53"]"#;
        let texts = [stubs, upstreams, "fed=example.com, prod=clusters.example.org"];
        let good = KEYS.into_iter().zip(texts).collect::<Vec<_>>();
        let before = parse(&files(&good)).unwrap();
        let mut random = Random(0xfeed);
        for round in 0..6_000 {
            let mut mutated = files(&good);
            let (key, text) = good[round % KEYS.len()];
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() + 1);
                match random.below(3) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, random.below(256) as u8),
                    _ => bytes = bytes.iter().copied().skip(at).chain([b'}']).collect(),
                }
            }
            mutated.insert(key.to_owned(), bytes.clone());
            let (keys, refused) = Keys::read(&mutated, &before, &|_| None);
            let mut expected = before.clone();
            expected.keep(key, &keys);
            assert_eq!(keys, expected, "{key} {bytes:?}");
            let unreadable =
                |it: &Refusal| matches!(it.error, KeyError::Json { .. } | KeyError::NotText { .. });
            if refused.iter().any(unreadable) {
                assert_eq!(keys, before, "{key} {bytes:?}");
            }
        }
    }
}
