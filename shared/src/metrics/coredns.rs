//! Exposes the counters of a DNS listener under the names that CoreDNS uses, for dashboards that
//! were made for it.
//!
//! Edge: reads counters at the time of a scrape. Follows CoreDNS's `prometheus` plugin
//! (`plugin/metrics/README.md` there). Metrics that would cost time at each query are left out:
//! sizes, and queries with the DO bit.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{counters, histograms};
use crate::durations::{Bounds, Histogram};
use crate::serve::{Counters, Event, Place, Snapshot, rcode_labels, type_labels};
use crate::wire::Transport;

/// The additional names in `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compat {
    /// The names of CoreDNS.
    Coredns,
    /// Those of the programs of kube-dns.
    KubeDns,
}

/// Returns a registry of metrics that begin with `coredns_`: the build, and the values of
/// `counters`. `plugin` is the name of CoreDNS's plugin for this work.
pub fn registry(version: &'static str, counters: Arc<Counters>, plugin: &'static str) -> Registry {
    let mut registry = Registry::with_prefix("coredns");
    let build = Family::<[(&str, &str); 3], Gauge>::default();
    build.get_or_create(&[("version", version), ("revision", ""), ("goversion", "")]).set(1);
    registry.register("build_info", "The version that runs, ours; always 1", build);
    registry.register_collector(Box::new(Dns { counters, plugin }));
    registry
}

/// Returns CoreDNS's name for the server of a listener: its port, after the address unless that is
/// a wildcard.
pub fn server(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("dns://:{}", address.port())
    } else {
        format!("dns://{address}")
    }
}

#[derive(Debug)]
struct Dns {
    counters: Arc<Counters>,
    plugin: &'static str,
}

impl Collector for Dns {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let places = self.counters.places();
        let counts = places.into_iter().map(|place| {
            let counts = self.counters.snapshot_of(|other| other == place);
            (server(place.address), place, counts)
        });
        let counts: Vec<(String, Place, Snapshot)> = counts.collect();
        self.encode_requests(&mut encoder, &counts)?;
        self.encode_responses(&mut encoder, &counts)?;
        let mut took = BTreeMap::<&str, Histogram>::new();
        for (server, _, counts) in &counts {
            took.entry(server).or_default().add(&counts.took);
        }
        let help = ("dns_request_duration_seconds", "How long each request took");
        let rows = took.into_iter().map(|(server, took)| (of_server(server), took));
        histograms(&mut encoder, help, &Bounds::COREDNS_REQUEST, rows)?;
        let panics = counts.iter().map(|(_, _, counts)| counts.event(Event::Panicked)).sum();
        let (name, help) = ("panics", "Panics while answering");
        let counter = ConstCounter::<u64>::new(panics);
        counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
    }
}

impl Dns {
    /// Counts answered queries by type. CoreDNS does not count messages that are not DNS queries
    /// either.
    fn encode_requests(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        counts: &[(String, Place, Snapshot)],
    ) -> fmt::Result {
        let (types, mut requests) = (type_labels(), BTreeMap::new());
        for (server, place, counts) in counts {
            let proto = if place.transport == Transport::Udp { "udp" } else { "tcp" };
            let family = if place.address.is_ipv4() { "1" } else { "2" };
            for (qtype, codes) in types.iter().zip(&counts.replies) {
                let key = (&**server, proto, family, &**qtype);
                *requests.entry(key).or_insert(0) += codes.iter().sum::<u64>();
            }
        }
        requests.retain(|_, count| *count > 0);
        let rows = requests.into_iter().map(|((server, proto, family, qtype), count)| {
            let [server, zone, view] = of_server(server);
            ([server, zone, view, ("proto", proto), ("family", family), ("type", qtype)], count)
        });
        counters(encoder, ("dns_requests", "DNS requests"), rows)
    }

    fn encode_responses(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        counts: &[(String, Place, Snapshot)],
    ) -> fmt::Result {
        let (rcodes, mut responses) = (rcode_labels(), BTreeMap::new());
        for (server, _, counts) in counts {
            for codes in &counts.replies {
                for (rcode, count) in rcodes.iter().zip(codes) {
                    *responses.entry((&**server, &**rcode)).or_insert(0) += count;
                }
            }
        }
        responses.retain(|_, count| *count > 0);
        let rows = responses.into_iter().map(|((server, rcode), count)| {
            let [server, zone, view] = of_server(server);
            ([server, zone, view, ("rcode", rcode), ("plugin", self.plugin)], count)
        });
        counters(encoder, ("dns_responses", "DNS responses by response code"), rows)
    }
}

/// Returns the labels of one server. The zone is `.`, that of the only server block of the Corefile
/// that every cluster has. There are no views.
fn of_server(server: &str) -> [(&str, &str); 3] {
    [("server", server), ("zone", "."), ("view", "")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Format, text};

    #[test]
    fn a_server_is_named_as_its_block() {
        let check = |address: &str, expected: &str| {
            assert_eq!(server(address.parse().unwrap()), expected);
        };
        check("0.0.0.0:53", "dns://:53");
        check("[::]:10053", "dns://:10053");
        check("127.0.0.53:53", "dns://127.0.0.53:53");
        check("[fd00::7]:53", "dns://[fd00::7]:53");
    }

    #[test]
    fn both_families_of_one_port_are_one_server() {
        let places = ["0.0.0.0:53", "[::]:53"]
            .map(|address| Place { address: address.parse().unwrap(), transport: Transport::Udp });
        let counters = Arc::new(Counters::new(places));
        counters.reply(0, crate::wire::rtype::A, &[0; 12]);
        counters.reply(1, crate::wire::rtype::A, &[0; 12]);
        counters.add(1, Event::Panicked, 1);
        let text = text(&[registry("1.2.3", counters, "kubernetes")], Format::Prometheus).unwrap();
        let server = "server=\"dns://:53\",zone=\".\",view=\"\"";
        let requests = |family| {
            format!(
                "coredns_dns_requests_total{{{server},proto=\"udp\",family=\"{family}\",\
                 type=\"A\"}} 1\n"
            )
        };
        let responses = "rcode=\"NOERROR\",plugin=\"kubernetes\"} 2\n";
        for line in [
            "coredns_build_info{version=\"1.2.3\",revision=\"\",goversion=\"\"} 1\n",
            &requests(1),
            &requests(2),
            &format!("coredns_dns_responses_total{{{server},{responses}"),
            &format!("coredns_dns_request_duration_seconds_count{{{server}}} 0\n"),
            "coredns_panics_total 1\n",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
        assert!(!text.contains("AAAA"), "{text}");
    }
}
