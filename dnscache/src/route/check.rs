//! Checks flags that are valid by themselves but contradict each other.
//!
//! Core. Values in, the first contradiction out.

use shared::config_dir::{Keys, Server};

use super::{Route, Routes, ServerFlag, Target};
use crate::changes::Source;
use shared::name::{bare, parse};

/// A flag about names for which kubedns answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid value '/{domain}/...' for '--server': the names below {domain} are answered by \
     kubedns, with --server=/{owner}/...; expected another domain"
)]
pub struct Taken {
    domain: String,
    owner: String,
}

/// A server given by its name, which only servers given by their names could resolve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid value '{host}' for '--server': no server with an address can resolve this name; \
     expected --server=/{host}/ADDR too, such as the address of its Service"
)]
pub struct Circular {
    host: String,
}

/// A change stream of replicas that no flag asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid value '{url}' for '--changes': no --server asks this host, so no answer follows \
     its changes; expected --server=/DOMAIN/HOST#PORT with the same host"
)]
pub struct Unasked {
    url: String,
}

/// Fails if one of `flags` names other servers for names of the cluster for which another flag
/// names kubedns.
pub fn check(flags: &[ServerFlag]) -> Result<(), Taken> {
    let routes = Routes::new(flags, &Keys::default(), &[]);
    for domain in flags.iter().filter(|flag| !flag.is_kubedns).flat_map(|flag| &flag.domains) {
        if let Some(owner) = routes.owner(domain).filter(|owner| owner.suffix != *domain) {
            return Err(Taken { domain: bare(domain), owner: bare(&owner.suffix) });
        }
    }
    Ok(())
}

impl Circular {
    /// Fails if no server of `flags` with an address can resolve the host of another one.
    pub fn check(flags: &[ServerFlag]) -> Result<(), Self> {
        let routes = Routes::new(flags, &Keys::default(), &[]);
        for flag in flags {
            let Target::Server(Server::Name { host, .. }) = &flag.target else { continue };
            let Some(name) = parse(host) else { continue };
            let Route::Group(group) = routes.route(&name) else { continue };
            let servers = &routes.groups()[group].servers;
            // An empty group is the default one, whose servers are in resolv.conf.
            let by_name = |server: &Server| matches!(server, Server::Name { .. });
            if !servers.is_empty() && servers.iter().all(by_name) {
                return Err(Self { host: host.clone() });
            }
        }
        Ok(())
    }
}

impl Unasked {
    /// Fails if `sources` contain a host and none of `flags` asks kubedns. The flags must be
    /// marked. Addresses are exempt, because those of this pod are followed even if a Corefile
    /// serves no cluster.
    pub fn check(flags: &[ServerFlag], sources: &[Source]) -> Result<(), Self> {
        let hosts: Vec<_> = sources.iter().filter_map(Source::host_name).collect();
        // The server that resolves the host is asked only for that.
        let is_asked = |flag: &ServerFlag| {
            flag.is_kubedns && !flag.domains.iter().all(|domain| hosts.contains(domain))
        };
        match sources.iter().find(|source| source.host_name().is_some()) {
            Some(source) if !flags.iter().any(is_asked) => Err(Self { url: source.to_string() }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the error for `flags` and `sources`.
    fn said(flags: &[&str], sources: &[&str]) -> String {
        let sources: Vec<Source> = sources.iter().map(|source| source.parse().unwrap()).collect();
        let flags = flags.iter().map(|flag| flag.parse::<ServerFlag>().unwrap().mark(&sources));
        let flags: Vec<ServerFlag> = flags.collect();
        let all = check(&flags).map_err(|error| error.to_string());
        let all = all.and(Circular::check(&flags).map_err(|error| error.to_string()));
        all.and(Unasked::check(&flags, &sources).map_err(|error| error.to_string()))
            .err()
            .unwrap_or_default()
    }

    #[test]
    fn flags_that_contradict_each_other_are_named() {
        const NAME: &str = "/cluster.local/10.in-addr.arpa/dns.kube-system.svc.cluster.local#10053";
        const HOST: &str = "/dns.kube-system.svc.cluster.local/10.96.0.7#10053";
        const CHANGES: &str = "http://dns.kube-system.svc.cluster.local:8081/changes";
        let rows: [(&[&str], &[&str], &str); 11] = [
            (&[NAME, HOST], &[CHANGES], ""),
            (&[NAME, HOST, "10.0.0.1"], &[CHANGES], ""),
            (&["/cluster.local/10.0.0.1#10053"], &["http://10.0.0.1:8081/changes"], ""),
            (&["/cluster.local/127.0.0.1#10053"], &["http://10.0.0.1:8081/changes"], ""),
            (&["/corp.example/ns.example"], &[], ""),
            (&["10.0.0.1"], &["http://127.0.0.1:8081/changes"], ""),
            (&[NAME], &[CHANGES], "--server=/dns.kube-system.svc.cluster.local/ADDR too"),
            (&["/a.example/ns.a.example"], &[], "'ns.a.example' for '--server'"),
            (&[HOST], &[CHANGES], "no --server asks this host"),
            (&["/cluster.local/10.96.0.7"], &[CHANGES], "=/DOMAIN/HOST#PORT with the same host"),
            (&[NAME, HOST, "/a.svc.cluster.local/10.0.0.1"], &[CHANGES], "=/cluster.local/..."),
        ];
        for (flags, sources, expected) in rows {
            let said = said(flags, sources);
            assert_eq!(said.is_empty(), expected.is_empty(), "{flags:?}: {said}");
            assert!(said.contains(expected) && !said.contains('\n'), "{flags:?}: {said}");
        }
    }
}
