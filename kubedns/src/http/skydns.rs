//! The names under which kubedns of kube-dns exposes its listener, `skydns_skydns_dns_*`.
//!
//! Edge: reads numbers kept elsewhere at the moment of a scrape. What cannot be told without paying
//! for it at each query is left out: the sizes of replies. There is no cache of responses here, so
//! that its misses are left out too.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use shared::durations::Bounds;
use shared::metrics::{counters, histograms};
use shared::serve::{Counters, Event, rcode_labels, type_labels};

/// Everything under the names of kube-dns.
pub(super) fn registry(counters: Arc<Counters>) -> Registry {
    let mut registry = Registry::with_prefix("skydns_skydns");
    registry.register_collector(Box::new(SkyDns(counters)));
    registry
}

#[derive(Debug)]
struct SkyDns(Arc<Counters>);

impl Collector for SkyDns {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.0.snapshot();
        let of_type = |is_wanted: &dyn Fn(&str) -> bool| -> u64 {
            let types = type_labels().into_iter().zip(&counts.replies);
            types.filter(|(name, _)| is_wanted(name)).flat_map(|(_, codes)| codes).sum()
        };
        let requests =
            [("auth", of_type(&|name| name != "PTR")), ("reverse", of_type(&|name| name == "PTR"))];
        let rows = requests.map(|(system, count)| ([("system", system)], count));
        counters(&mut encoder, ("dns_request_count", "Requests by what answers them"), rows)?;
        let help = ("dns_request_duration_seconds", "How long each request took");
        let rows = [([("system", "auth")], counts.took.clone())];
        histograms(&mut encoder, help, &Bounds::COREDNS_REQUEST, rows)?;
        let of_code = |code: &str| -> u64 {
            let place = rcode_labels().iter().position(|name| name == code);
            place.map_or(0, |place| counts.replies.iter().map(|codes| codes[place]).sum())
        };
        let errors = [
            ("nxdomain", of_code("NXDOMAIN")),
            ("refused", of_code("REFUSED")),
            ("servfail", of_code("SERVFAIL")),
            ("truncated", counts.event(Event::Truncated)),
        ];
        let rows = errors.map(|(cause, count)| ([("system", "auth"), ("cause", cause)], count));
        counters(&mut encoder, ("dns_error_count", "Replies that are errors"), rows)
    }
}
