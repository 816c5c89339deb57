//! Stub servers that are configured by name: their addresses, and when to look them up again.
//!
//! Core. It returns which question to ask; the resolver asks it and passes the time. A name that
//! does not resolve disables only itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shared::clock::Moment;
use shared::config_dir::Server;
use shared::endpoint::Endpoint;
use shared::name::parse;
use shared::wire::rtype;

use crate::route::{self, Route, Routes};

/// A question about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inquiry {
    /// The host's name in lower-case wire form.
    pub name: Box<[u8]>,
    /// A or AAAA.
    pub qtype: u16,
}

/// The hosts in the routes.
#[derive(Debug, Default)]
pub(super) struct Hosts(Vec<Host>);

/// One family of addresses of one host.
#[derive(Debug)]
struct Host {
    inquiry: Inquiry,
    addresses: Vec<IpAddr>,
    due: Moment,
    asked: bool,
    /// Whether its addresses are replicas of kubedns, whose changes are followed.
    is_followed: bool,
}

impl Hosts {
    /// Keeps the addresses of hosts that `routes` still contain, and adds new hosts. The hosts in
    /// `followed` are always kept.
    pub fn follow(&mut self, routes: &Routes, followed: &[Box<[u8]>]) {
        let servers = routes.groups().iter().flat_map(|group| &group.servers);
        let mut names = followed.to_vec();
        names.extend(servers.filter_map(host_name));
        self.0.retain(|host| names.contains(&host.inquiry.name));
        for name in names {
            for qtype in [rtype::A, rtype::AAAA] {
                let inquiry = Inquiry { name: name.clone(), qtype };
                if !self.0.iter().any(|host| host.inquiry == inquiry) {
                    let (due, addresses) = (Moment::default(), Vec::new());
                    let is_followed = followed.contains(&name);
                    self.0.push(Host { inquiry, addresses, due, asked: false, is_followed });
                }
            }
        }
    }

    /// Returns the endpoints of each group of `routes`, in order. Each host is replaced by all its
    /// addresses.
    ///
    /// Of the replicas of kubedns, only those are returned for which `follows` returns `true`; if
    /// it does so for no replica, all are returned. If the hosts of a group of kubedns have no
    /// address yet, the group has the servers that resolve them.
    pub fn groups(&self, routes: &Routes, follows: impl Fn(IpAddr) -> bool) -> Vec<Vec<Endpoint>> {
        let group = |group: &route::Group| {
            let mut endpoints = self.endpoints(group);
            if !group.owned {
                return endpoints;
            }
            if endpoints.is_empty() {
                let hosts = group.servers.iter().filter_map(host_name);
                let resolving = hosts.filter_map(|host| match routes.route(&host) {
                    Route::Group(group) => Some(self.endpoints(&routes.groups()[group])),
                    Route::Local(_) => None,
                });
                endpoints = resolving.flatten().collect();
            }
            let is_followed = |endpoint: &Endpoint| follows(endpoint.address.ip());
            if endpoints.iter().any(is_followed) {
                endpoints.retain(is_followed);
            }
            endpoints
        };
        routes.groups().iter().map(group).collect()
    }

    /// Returns the endpoints of the servers of `group`.
    fn endpoints(&self, group: &route::Group) -> Vec<Endpoint> {
        let endpoints = |server: &Server| match server {
            Server::Address(address) => vec![Endpoint::from(*address)],
            Server::Endpoint(endpoint) => vec![endpoint.clone()],
            Server::Name { port, .. } => {
                let addresses = host_name(server).map(|name| self.addresses(&name));
                let addresses = addresses.into_iter().flatten();
                let addresses = addresses.map(|address| SocketAddr::new(address, *port));
                addresses.map(Endpoint::from).collect()
            }
        };
        group.servers.iter().flat_map(endpoints).collect()
    }

    /// Returns the addresses of the host `name`, in lower-case wire form, of both families.
    pub fn addresses(&self, name: &[u8]) -> Vec<IpAddr> {
        let hosts = self.0.iter().filter(|host| *host.inquiry.name == *name);
        hosts.flat_map(|host| &host.addresses).copied().collect()
    }

    /// Makes the look-ups of kubedns's replicas due now.
    pub fn hurry(&mut self, now: Moment) {
        for host in self.0.iter_mut().filter(|host| host.is_followed) {
            host.due = host.due.min(now);
        }
    }

    /// Returns a question that is due, and marks it as asked.
    pub fn ask(&mut self, now: Moment) -> Option<Inquiry> {
        let host = self.0.iter_mut().find(|host| !host.asked && host.due <= now)?;
        host.asked = true;
        Some(host.inquiry.clone())
    }

    /// Returns when the next question is due.
    pub fn next_due(&self) -> Option<Moment> {
        self.0.iter().filter(|host| !host.asked).map(|host| host.due).min()
    }

    /// Notes the outcome of an inquiry: addresses that can be kept for `ttl`, or `None` if it
    /// failed. After a failure the old addresses are kept. Returns whether the addresses have
    /// changed.
    pub fn learn(
        &mut self,
        inquiry: &Inquiry,
        outcome: Option<(Vec<IpAddr>, Duration)>,
        now: Moment,
    ) -> bool {
        let is_other = |host: &Host| host.inquiry.name == inquiry.name && host.inquiry != *inquiry;
        let has_other = self.0.iter().any(|host| is_other(host) && !host.addresses.is_empty());
        let Some(host) = self.0.iter_mut().find(|host| host.inquiry == *inquiry) else {
            return false;
        };
        host.asked = false;
        // kubedns's last replicas are kept, because they may be the ones that answered.
        let is_last = |outcome: &(Vec<IpAddr>, Duration)| {
            host.is_followed && outcome.0.is_empty() && !host.addresses.is_empty() && !has_other
        };
        let Some((mut addresses, ttl)) = outcome.filter(|outcome| !is_last(outcome)) else {
            host.due = now + FAILURE_PAUSE;
            return false;
        };
        let ttl_max = if host.is_followed { FOLLOWED_TTL_MAX } else { TTL_MAX };
        host.due = now + ttl.clamp(TTL_MIN, ttl_max);
        // Sorted first, so that the same addresses are kept for any order in the reply.
        addresses.sort();
        addresses.truncate(ADDRESSES_MAX);
        let changed = host.addresses != addresses;
        host.addresses = addresses;
        changed
    }
}

fn host_name(server: &Server) -> Option<Box<[u8]>> {
    match server {
        Server::Address(_) | Server::Endpoint(_) => None,
        Server::Name { host, .. } => parse(host),
    }
}

/// Addresses of one family that are kept per host.
const ADDRESSES_MAX: usize = 8;
/// The shortest and the longest time between two look-ups of a host.
const TTL_MIN: Duration = Duration::from_secs(5);
const TTL_MAX: Duration = Duration::from_secs(300);
/// The longest time between two look-ups of kubedns's replicas.
const FOLLOWED_TTL_MAX: Duration = Duration::from_secs(10);
/// After a failure a host is looked up again soon, because the server may just be starting.
const FAILURE_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::ServerFlag;
    use shared::config_dir::Keys;

    #[test]
    fn hosts_become_all_their_addresses_and_keep_them_over_failures() {
        let mut keys = Keys::default();
        let host = Server::Name { host: "dns.corp.example".into(), port: 5_353 };
        let fixed = Server::Address("192.0.2.1:53".parse().unwrap());
        keys.stub_domains.insert("corp.example".into(), vec![host, fixed]);
        let routes = Routes::new(&[], &keys, &[]);
        let mut hosts = Hosts::default();
        hosts.follow(&routes, &[]);
        let addresses = |hosts: &Hosts| -> Vec<SocketAddr> {
            hosts.groups(&routes, |_| false)[1].iter().map(|endpoint| endpoint.address).collect()
        };
        assert_eq!(addresses(&hosts), ["192.0.2.1:53".parse().unwrap()]);
        let now = Moment::from_nanos(1);
        let (v4, v6) = (hosts.ask(now).unwrap(), hosts.ask(now).unwrap());
        assert_eq!((v4.qtype, v6.qtype), (rtype::A, rtype::AAAA));
        assert_eq!((hosts.ask(now), hosts.next_due()), (None, None));
        let found = vec!["192.0.2.8".parse().unwrap(), "192.0.2.7".parse().unwrap()];
        let outcome = Some((found, Duration::from_secs(30)));
        assert!(hosts.learn(&v4, outcome.clone(), now));
        assert!(!hosts.learn(&v6, None, now));
        let expected = ["192.0.2.7:5353", "192.0.2.8:5353", "192.0.2.1:53"];
        assert_eq!(addresses(&hosts), expected.map(|text| text.parse().unwrap()));
        assert_eq!(hosts.next_due(), Some(now + FAILURE_PAUSE));
        assert!(!hosts.learn(&v4, None, now), "a failure forgets nothing");
        assert!(!hosts.learn(&v4, outcome, now), "the same again is no change");
        hosts.follow(&Routes::new(&[], &Keys::default(), &[]), &[]);
        assert_eq!(hosts.next_due(), None);
    }

    #[test]
    fn of_the_replicas_of_kubedns_those_are_asked_that_are_followed() {
        let source = "http://dns.svc.cluster.local:8081/changes".parse().unwrap();
        let flags = ["/cluster.local/dns.svc.cluster.local#53", "/dns.svc.cluster.local/10.96.0.7"];
        let flags = flags.map(|flag| flag.parse::<ServerFlag>().unwrap());
        let flags = flags.map(|flag| flag.mark(std::slice::from_ref(&source)));
        let routes = Routes::new(&flags, &Keys::default(), &[]);
        let followed = [parse("dns.svc.cluster.local").unwrap()];
        let mut hosts = Hosts::default();
        hosts.follow(&routes, &followed);
        let asked = |hosts: &Hosts, followed: &[&str]| -> Vec<String> {
            let follows = |address: IpAddr| followed.contains(&&*address.to_string());
            let groups = hosts.groups(&routes, follows);
            assert_eq!(groups[2], ["10.96.0.7:53".parse::<SocketAddr>().unwrap().into()]);
            groups[1].iter().map(|endpoint| endpoint.address.ip().to_string()).collect()
        };
        assert_eq!(asked(&hosts, &[]), ["10.96.0.7"], "whoever resolves the host is kubedns, too");
        let now = Moment::from_nanos(1);
        let inquiry = hosts.ask(now).unwrap();
        let all: Vec<IpAddr> = (0..12).rev().map(|last| IpAddr::from([10, 0, 0, last])).collect();
        assert!(hosts.learn(&inquiry, Some((all.clone(), Duration::from_secs(300))), now));
        let first: Vec<String> = (0..8).map(|last| format!("10.0.0.{last}")).collect();
        assert_eq!(asked(&hosts, &[]), first, "without a followed replica all are asked");
        assert_eq!(asked(&hosts, &["10.0.0.3", "10.0.0.9"]), ["10.0.0.3"]);
        let later = all.into_iter().rev().collect();
        assert!(!hosts.learn(&inquiry, Some((later, Duration::from_secs(300))), now));
        hosts.ask(now).unwrap();
        assert_eq!(hosts.next_due(), Some(now + FOLLOWED_TTL_MAX), "whatever the TTL is");
        hosts.hurry(now);
        assert_eq!(hosts.next_due(), Some(now));
        assert!(!hosts.learn(&inquiry, Some((Vec::new(), Duration::ZERO)), now));
        assert_eq!(asked(&hosts, &[]), first, "the last replicas stay");
    }
}
