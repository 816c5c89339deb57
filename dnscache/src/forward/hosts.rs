//! Stub servers that are configured by name: the addresses they have, and when to look again.
//!
//! Core. Which question to ask is said here; asking it, and the clock, are somebody else's. A name
//! that does not resolve disables nothing but itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shared::clock::Moment;
use shared::config_dir::Server;
use shared::endpoint::Endpoint;
use shared::wire::rtype;

use crate::route::{self, Routes};

/// A question about a host, told from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inquiry {
    /// The host's name in wire form and lower case.
    pub name: Box<[u8]>,
    /// A or AAAA.
    pub qtype: u16,
}

/// The hosts that the routes name.
#[derive(Debug, Default)]
pub(super) struct Hosts(Vec<Host>);

/// One family of addresses of one host.
#[derive(Debug)]
struct Host {
    inquiry: Inquiry,
    addresses: Vec<IpAddr>,
    due: Moment,
    asked: bool,
}

impl Hosts {
    /// Keeps what is known of hosts that `routes` still name, and takes in new ones.
    pub fn follow(&mut self, routes: &Routes) {
        let servers = routes.groups().iter().flat_map(|group| &group.servers);
        let names: Vec<Box<[u8]>> = servers.filter_map(host_name).collect();
        self.0.retain(|host| names.contains(&host.inquiry.name));
        for name in names {
            for qtype in [rtype::A, rtype::AAAA] {
                let inquiry = Inquiry { name: name.clone(), qtype };
                if !self.0.iter().any(|host| host.inquiry == inquiry) {
                    let due = Moment::default();
                    self.0.push(Host { inquiry, addresses: Vec::new(), due, asked: false });
                }
            }
        }
    }

    /// Returns the endpoints of each group of `routes`, in order, hosts replaced by all of theirs.
    pub fn groups(&self, routes: &Routes) -> Vec<Vec<Endpoint>> {
        let addresses = |server: &Server| match server {
            Server::Address(address) => vec![Endpoint::from(*address)],
            Server::Endpoint(endpoint) => vec![endpoint.clone()],
            Server::Name { port, .. } => {
                let name = host_name(server);
                let hosts = self.0.iter().filter(|host| Some(&host.inquiry.name) == name.as_ref());
                let addresses = hosts.flat_map(|host| &host.addresses);
                let addresses = addresses.map(|&address| SocketAddr::new(address, *port));
                addresses.map(Endpoint::from).collect()
            }
        };
        let group = |group: &route::Group| group.servers.iter().flat_map(addresses).collect();
        routes.groups().iter().map(group).collect()
    }

    /// A question that is due, now counted as asked.
    pub fn ask(&mut self, now: Moment) -> Option<Inquiry> {
        let host = self.0.iter_mut().find(|host| !host.asked && host.due <= now)?;
        host.asked = true;
        Some(host.inquiry.clone())
    }

    /// When the next question is due.
    pub fn next_due(&self) -> Option<Moment> {
        self.0.iter().filter(|host| !host.asked).map(|host| host.due).min()
    }

    /// Notes the outcome of an inquiry: addresses that may be kept for `ttl`, or nothing. Yields
    /// whether the host's addresses are others now; what is known is kept until something else is.
    pub fn learn(
        &mut self,
        inquiry: &Inquiry,
        outcome: Option<(Vec<IpAddr>, Duration)>,
        now: Moment,
    ) -> bool {
        let Some(host) = self.0.iter_mut().find(|host| host.inquiry == *inquiry) else {
            return false;
        };
        host.asked = false;
        let Some((mut addresses, ttl)) = outcome else {
            host.due = now + FAILURE_PAUSE;
            return false;
        };
        host.due = now + ttl.clamp(TTL_MIN, TTL_MAX);
        addresses.truncate(ADDRESSES_MAX);
        addresses.sort();
        let changed = host.addresses != addresses;
        host.addresses = addresses;
        changed
    }
}

fn host_name(server: &Server) -> Option<Box<[u8]>> {
    match server {
        Server::Address(_) | Server::Endpoint(_) => None,
        Server::Name { host, .. } => route::wire(host),
    }
}

/// Addresses of one family kept per host.
const ADDRESSES_MAX: usize = 8;
/// A host is not looked up more often, and not less often either.
const TTL_MIN: Duration = Duration::from_secs(5);
const TTL_MAX: Duration = Duration::from_secs(300);
/// After a failure it is looked up again soon: the server may just be starting.
const FAILURE_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config_dir::Keys;

    #[test]
    fn hosts_become_all_their_addresses_and_keep_them_over_failures() {
        let mut keys = Keys::default();
        let host = Server::Name { host: "dns.corp.example".into(), port: 5_353 };
        let fixed = Server::Address("192.0.2.1:53".parse().unwrap());
        keys.stub_domains.insert("corp.example".into(), vec![host, fixed]);
        let routes = Routes::new(&[], &keys, &[]);
        let mut hosts = Hosts::default();
        hosts.follow(&routes);
        let addresses = |hosts: &Hosts| -> Vec<SocketAddr> {
            hosts.groups(&routes)[1].iter().map(|endpoint| endpoint.address).collect()
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
        hosts.follow(&Routes::new(&[], &Keys::default(), &[]));
        assert_eq!(hosts.next_due(), None);
    }
}
