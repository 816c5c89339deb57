//! What `/etc/resolv.conf` means to a program of this machine or pod.
//!
//! Core. Reads as glibc does (resolv.conf(5)); unknown lines are passed over.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::config::DNS_PORT;

/// The settings of a resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolv {
    /// At most three, in the order of the file.
    pub nameservers: Vec<SocketAddr>,
    /// The search list without final dots.
    pub search: Vec<String>,
    /// From so many dots on, a name is tried as it is before the search list.
    pub ndots: usize,
    /// Seconds until a query is sent again.
    pub timeout_secs: u64,
    /// How often every server is tried.
    pub attempts: u64,
}

impl Resolv {
    /// Reads the text of a file.
    pub fn read(text: &str) -> Self {
        let mut resolv = Self {
            nameservers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout_secs: 5,
            attempts: 2,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if resolv.nameservers.len() < NAMESERVERS_MAX => {
                    resolv.nameservers.extend(words.next().and_then(nameserver));
                }
                Some("search" | "domain") => {
                    resolv.search = words.map(domain).filter(|it| !it.is_empty()).collect();
                }
                Some("options") => words.for_each(|word| resolv.option(word)),
                _ => {}
            }
        }
        resolv
    }

    /// Returns what the kubelet writes for a pod with this `spec`. `cluster` is for pods that ask
    /// the DNS of the cluster, and `node` is the file of the node.
    ///
    /// The rules are those of the kubelet (pkg/kubelet/network/dns/dns.go): `dnsConfig` adds
    /// servers and domains that are missing, and its options replace others of the same name.
    pub fn of_pod(spec: &Value, cluster: Self, node: Self) -> Self {
        let is_on_node = spec["hostNetwork"] == true;
        let mut resolv = match spec["dnsPolicy"].as_str().unwrap_or("ClusterFirst") {
            "None" => Self::read(""),
            "Default" => node,
            "ClusterFirst" if is_on_node => node,
            _ => cluster,
        };
        let config = &spec["dnsConfig"];
        for address in texts(&config["nameservers"]).filter_map(nameserver) {
            if !resolv.nameservers.contains(&address) && resolv.nameservers.len() < NAMESERVERS_MAX
            {
                resolv.nameservers.push(address);
            }
        }
        for domain in texts(&config["searches"]).map(domain) {
            if !domain.is_empty() && !resolv.search.contains(&domain) {
                resolv.search.push(domain);
            }
        }
        for option in config["options"].as_array().into_iter().flatten() {
            if let (Some(name), Some(value)) = (option["name"].as_str(), option["value"].as_str()) {
                resolv.option(&format!("{name}:{value}"));
            }
        }
        resolv
    }

    fn option(&mut self, word: &str) {
        let Some((key, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u64>() else { return };
        match key {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout_secs = value.clamp(1, 30),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// The domains of the search list that are below the cluster domain.
    pub fn cluster_domains(&self, domain: &str) -> Vec<&str> {
        let is_below = |one: &&String| {
            one.as_str() == domain
                || one.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        };
        self.search.iter().filter(is_below).map(String::as_str).collect()
    }

    /// The names that are asked for `name`, in order, until one exists: as glibc and musl do.
    pub fn walk(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let mut names: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{domain}.")).collect();
        let itself = format!("{name}.");
        match dots >= self.ndots {
            true => names.insert(0, itself),
            false => names.push(itself),
        }
        names
    }
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn domain(text: &str) -> String {
    text.trim_end_matches('.').to_ascii_lowercase()
}

fn nameserver(text: &str) -> Option<SocketAddr> {
    let address = text.split('%').next()?.parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(address, DNS_PORT))
}

/// glibc and musl use no more (MAXNS).
const NAMESERVERS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_glibc_reads_it() {
        let text = "# pod\nnameserver 10.96.0.10\nnameserver fd00::a\nnameserver x\n\
                    search shop.svc.cluster.local svc.cluster.local. cluster.local corp.example\n\
                    options ndots:5 timeout:2 attempts:9 edns0\n";
        let resolv = Resolv::read(text);
        assert_eq!(resolv.nameservers.len(), 2);
        assert_eq!((resolv.ndots, resolv.timeout_secs, resolv.attempts), (5, 2, 5));
        assert_eq!(resolv.cluster_domains("cluster.local").len(), 3);
        let walk = resolv.walk("web.shop");
        assert_eq!(walk[1], "web.shop.svc.cluster.local.");
        assert_eq!(walk.last().unwrap(), "web.shop.");
        assert_eq!(resolv.walk("a.b.c.d.e.f")[0], "a.b.c.d.e.f.");
        assert_eq!(resolv.walk("web.shop."), ["web.shop."]);
        let empty = Resolv::read("");
        assert_eq!((empty.ndots, empty.timeout_secs, empty.attempts), (1, 5, 2));
        assert_eq!(empty.walk("web"), ["web."]);
    }

    #[test]
    fn a_pod_has_what_the_kubelet_writes_for_it() {
        let check = |spec: &str, expected: &str| {
            let cluster = "nameserver 10.96.0.10\nsearch a.svc b\noptions ndots:5\n";
            let cluster = Resolv::read(cluster);
            let node = Resolv::read("nameserver 192.0.2.1\nsearch corp\n");
            let resolv = Resolv::of_pod(&serde_json::from_str(spec).unwrap(), cluster, node);
            let servers: Vec<_> = resolv.nameservers.iter().map(|it| it.ip().to_string()).collect();
            let (servers, search) = (servers.join(","), resolv.search.join(","));
            let Resolv { ndots, timeout_secs, .. } = resolv;
            assert_eq!(format!("{servers} {search} {ndots} {timeout_secs}"), expected, "{spec}");
        };
        check("{}", "10.96.0.10 a.svc,b 5 5");
        check(r#"{"dnsPolicy":"ClusterFirst"}"#, "10.96.0.10 a.svc,b 5 5");
        check(r#"{"dnsPolicy":"ClusterFirst","hostNetwork":true}"#, "192.0.2.1 corp 1 5");
        let host = r#"{"dnsPolicy":"ClusterFirstWithHostNet","hostNetwork":true}"#;
        check(host, "10.96.0.10 a.svc,b 5 5");
        check(r#"{"dnsPolicy":"Default"}"#, "192.0.2.1 corp 1 5");
        check(r#"{"dnsPolicy":"None"}"#, "  1 5");
        let config = r#""dnsConfig":{"nameservers":["192.0.2.53","192.0.2.53","x"],
            "searches":["Corp.","b"],"options":[{"name":"ndots","value":"2"},{"name":"edns0"},
            {"name":"timeout","value":"3"}]}"#;
        check(&format!("{{{config}}}"), "10.96.0.10,192.0.2.53 a.svc,b,corp 2 3");
        check(&format!(r#"{{"dnsPolicy":"None",{config}}}"#), "192.0.2.53 corp,b 2 3");
    }
}
