//! The Service of the DNS and what stands behind it, as the API server has it.
//!
//! Core. Facts in, finding out.

use super::{Judged, listed, right, wrong};
use crate::check::facts::{Facts, known};

pub fn exists(facts: &Facts) -> Judged {
    let (namespace, name) = &facts.subject.service;
    match known(&known(&facts.cluster)?.dns)? {
        Some(service) => right(format!("{} has {}", service.path(), listed(&service.addresses))),
        None => wrong(
            format!("{namespace}/{name} does not exist"),
            format!(
                "There is no Service {namespace}/{name}, so the address that the kubelet writes \
                 into resolv.conf leads nowhere; create it, or name the right one with --service."
            ),
        ),
    }
}

pub fn selector(facts: &Facts) -> Judged {
    let service = facts.dns_service()?;
    let pods = known(&known(&facts.cluster)?.dns_pods)?;
    if service.selector.is_empty() {
        return right("the Service has no selector; its endpoints are written by hand");
    }
    let selector = service.selector_text();
    let count = pods.iter().filter(|pod| service.selects(pod)).count();
    if count > 0 {
        return right(format!("{selector} matches {count} Pods"));
    }
    let key = service.selector.keys().next().map_or("k8s-app", String::as_str);
    let other = pods.iter().find(|pod| pod.name.contains("dns"));
    let other = other.and_then(|pod| pod.labels.get(key));
    let hint = other.map_or_else(
        || format!("there is no such Pod in {}", service.namespace),
        |value| format!("the Deployment's pods have the label {key}={value}"),
    );
    wrong(
        format!("{selector} matches 0 of {} Pods", pods.len()),
        format!("The selector {selector} of the Service matches no pod; {hint}."),
    )
}

pub fn endpoints(facts: &Facts) -> Judged {
    let service = facts.dns_service()?;
    let cluster = known(&facts.cluster)?;
    let slices = known(&cluster.dns_slices)?;
    let all: Vec<_> = slices.iter().flat_map(|slice| &slice.endpoints).collect();
    let ready: Vec<_> = all.iter().filter(|(_, ready)| *ready).map(|(ip, _)| ip).collect();
    if !ready.is_empty() {
        return right(format!("{} of {} ready: {}", ready.len(), all.len(), listed(&ready)));
    }
    let pods = cluster.dns_pods.iter().flatten().filter(|pod| service.selects(pod));
    let not_ready = pods.filter(|pod| !pod.is_ready).count().max(all.len());
    let cause = match not_ready {
        0 => "it has no pods; scale the Deployment up, or correct the selector".to_owned(),
        1 => "its 1 pod fails its readiness probe".to_owned(),
        count => format!("its {count} pods fail their readiness probe"),
    };
    let path = service.path();
    wrong(
        format!("0 of {} ready", all.len()),
        format!(
            "The Service {path} has 0 ready endpoints, so no pod can resolve any name; {cause}."
        ),
    )
}

pub fn ports(facts: &Facts) -> Judged {
    let service = facts.dns_service()?;
    let has = |protocol: &str| service.ports.contains(&(53, protocol.to_owned()));
    let missing: Vec<&str> = ["UDP", "TCP"].into_iter().filter(|it| !has(it)).collect();
    match missing.is_empty() {
        true => right("53 over UDP and TCP"),
        false => wrong(
            format!("no port 53 over {}", missing.join(" and ")),
            format!(
                "The Service {} has no port 53 over {}, so such queries are refused or dropped; \
                 add the port.",
                service.path(),
                missing.join(" and ")
            ),
        ),
    }
}

pub fn policies(facts: &Facts) -> Judged {
    let namespace = facts.subject.namespace.as_ref().ok_or("the own namespace is not known")?;
    let policies = known(&known(&facts.cluster)?.policies)?;
    let blocking: Vec<&str> = policies
        .iter()
        .filter(|policy| policy.is_egress && !policy.allows_dns)
        .map(|policy| policy.name.as_str())
        .collect();
    let allowed = policies.iter().any(|policy| policy.is_egress && policy.allows_dns);
    let server = facts.server()?;
    if blocking.is_empty() || allowed || server.answers_udp() {
        return right(format!("none of {namespace} keeps queries from the server"));
    }
    let others = facts.replicas.iter().flatten().any(|replica| replica.answers_udp());
    let elsewhere = match others {
        true => "while the replicas answer",
        false => "and no query gets an answer",
    };
    wrong(
        format!("{} without port 53 over UDP", listed(&blocking)),
        format!(
            "UDP queries from namespace {namespace} time out {elsewhere}; a NetworkPolicy of \
             {namespace} ({}) blocks egress to port 53. Allow port 53 over UDP and TCP.",
            listed(&blocking)
        ),
    )
}
