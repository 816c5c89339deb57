//! Objects that are answered as they are, but not as their owners expect.
//!
//! Core. Facts in, finding out. None of these is a fault of the DNS.

use std::net::IpAddr;

use hickory_proto::rr::RecordType;
use shared::wire::rcode::NXDOMAIN;

use super::{Judged, listed, right, warning};
use crate::check::cluster::{Cluster, Service};
use crate::check::facts::{Facts, known};
use crate::check::talk::Question;

fn cluster(facts: &Facts) -> Result<(&Cluster, &[Service]), String> {
    let cluster = known(&facts.cluster)?;
    Ok((cluster, known(&cluster.services)?))
}

pub fn endless(facts: &Facts) -> Judged {
    let (cluster, services) = cluster(facts)?;
    let slices = known(&cluster.slices)?;
    let is_endless = |service: &&Service| {
        !service.selector.is_empty()
            && service.external_name.is_none()
            && !service.publishes_all
            && !service.endpoints(slices).any(|(_, ready)| *ready)
    };
    let those: Vec<&Service> = services.iter().filter(is_endless).collect();
    let Some(first) = those.first() else {
        return right(format!("each of {} Services with a selector has one", services.len()));
    };
    let names: Vec<String> = those.iter().map(|service| service.short()).collect();
    let resolves = match first.is_headless {
        true => "does not resolve, because",
        false => "resolves, but",
    };
    warning(
        listed(&names),
        format!(
            "{} {resolves} its Service has no ready endpoint; the name is correct and the \
             pods are not ready. See their readiness probes and the selector {}.",
            names[0],
            first.selector_text()
        ),
    )
}

pub fn headless(facts: &Facts) -> Judged {
    let (cluster, services) = cluster(facts)?;
    let slices = known(&cluster.slices)?;
    let is_empty = |service: &&Service| {
        service.is_headless
            && service.selector.is_empty()
            && !slices.iter().any(|slice| service.owns(slice))
    };
    let those: Vec<String> = services.iter().filter(is_empty).map(Service::short).collect();
    match those.first() {
        None => right("each has a selector or slices"),
        Some(first) => warning(
            listed(&those),
            format!(
                "{first} is headless and has no EndpointSlice, so it has no addresses; it needs a \
                 selector or manual slices."
            ),
        ),
    }
}

pub fn subdomains(facts: &Facts) -> Judged {
    let (cluster, services) = cluster(facts)?;
    let pods = known(&cluster.pods)?;
    let is_served = |namespace: &str, subdomain: &str| {
        services.iter().any(|service| {
            service.is_headless && service.namespace == namespace && service.name == subdomain
        })
    };
    let lost = pods.iter().find_map(|pod| {
        let subdomain = pod.subdomain.as_ref()?;
        (!is_served(&pod.namespace, subdomain)).then_some((pod, subdomain))
    });
    match lost {
        None => right("each has its headless Service"),
        Some((pod, subdomain)) => warning(
            format!("Pod {}/{}", pod.namespace, pod.name),
            format!(
                "Pod {} has subdomain `{subdomain}`, but no headless Service of that name exists \
                 in {}; its hostname cannot resolve. Create the Service, or correct the subdomain.",
                pod.name, pod.namespace
            ),
        ),
    }
}

pub fn namespaces(facts: &Facts) -> Judged {
    let (_, services) = cluster(facts)?;
    let is_domain = |service: &&Service| DOMAINS.contains(&service.namespace.as_str());
    match services.iter().find(is_domain) {
        None => right("none has a Service"),
        Some(service) => {
            let name = service.short();
            warning(
                format!("Namespace {}", service.namespace),
                format!(
                    "Namespace `{}` has a Service `{}`, so pods that look up {name} reach that \
                     Service, because the search list is tried first. Rename the Namespace, or \
                     use names with a final dot.",
                    service.namespace, service.name
                ),
            )
        }
    }
}

/// Services that are aliases.
fn aliases(services: &[Service]) -> impl Iterator<Item = (&Service, &str)> {
    services.iter().filter_map(|service| Some((service, service.external_name.as_deref()?)))
}

pub fn address_names(facts: &Facts) -> Judged {
    let (_, services) = cluster(facts)?;
    let mut those = aliases(services);
    let is_address = |text: &str| text.trim_end_matches('.').parse::<IpAddr>().is_ok();
    match those.find(|(_, target)| is_address(target)) {
        None => right("none"),
        Some((service, target)) => warning(
            service.path(),
            format!(
                "The ExternalName of {} is {target}; an address is not a host name and no client \
                 can resolve it. Use a Service without selector and an EndpointSlice.",
                service.short()
            ),
        ),
    }
}

pub fn targets(facts: &Facts) -> Judged {
    let (_, services) = cluster(facts)?;
    let server = facts.outward()?;
    let mut asked = 0;
    for (service, target) in aliases(services) {
        let Ok(answer) = server.answer(&Question::new(target, RecordType::A)) else { continue };
        asked += 1;
        if answer.rcode == NXDOMAIN {
            return warning(
                format!("{}: {target} does not exist", service.path()),
                format!(
                    "{} is an alias of {target}, and that name does not exist according to the \
                     upstream; correct the externalName.",
                    service.short()
                ),
            );
        }
    }
    right(format!("{asked} targets exist"))
}

/// Domains that pods look up names in, by far the most often.
const DOMAINS: [&str; 16] = [
    "com", "net", "org", "io", "dev", "app", "cloud", "ai", "de", "uk", "eu", "us", "gov", "edu",
    "info", "biz",
];
