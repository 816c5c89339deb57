//! Why a name does not exist: the first label, from the right, with which it ceases to exist.
//!
//! Core. Reads the records; every sentence names what is missing.

use shared::name::bare;

use super::rows::{kind, service};
use crate::name::{Labels, Name, parse_dashed};
use crate::records::{Entry, Node, PodMode, Protocol, Records, Schema, Shape, State, ZONE_LABEL};
use crate::skydns::path_of_name;

/// Returns why `name`, which is in one of our zones, does not exist.
pub(super) fn why(records: &Records, name: &Name) -> String {
    let labels = Labels::of(name.wire());
    let missing = (0..labels.count()).rev().find(|&start| {
        let found = records.find(labels.tail(start));
        found.is_some_and(|found| matches!(found.node, Node::Missing))
    });
    let Some(start) = missing else { return format!("{name} does not exist") };
    let Some(found) = records.find(labels.tail(start)) else {
        return format!("{name} does not exist");
    };
    let first = Labels::of(labels.tail(start));
    let count = (0..).take_while(|&index| first.start(index) < found.apex).count();
    if found.is_reverse {
        let first = text_of(&first);
        return format!("no Service and no published endpoint has an address below {first}");
    }
    let records = found.records;
    if records.zone().is_keyed() {
        let path = path_of_name(labels.tail(start));
        return format!("etcd has no key {}, and none below it", records.keys().key(&path));
    }
    if let Schema::External { headless } = records.zone().schema() {
        return outside(records, &first, count, headless);
    }
    match (first.label(count - 1), count) {
        (b"svc", 2) => missing_namespace(records, &first),
        (b"svc", 3) => missing_service(records, &first),
        (b"svc", _) => below_service(records, &first, count - 3),
        (b"pod", _) => missing_pod(records, &first, count),
        _ => format!("nothing in the zone is called {}", text_of(&first)),
    }
}

/// `count` labels are left of a zone of external addresses.
fn outside(records: &Records, labels: &Labels<'_>, count: usize, headless: bool) -> String {
    let Some(at) = count.checked_sub(2) else { return missing_namespace(records, labels) };
    let service_kind = kind(records.zone());
    let (name, namespace) = (bare(labels.wire(at, at + 1)), bare(labels.wire(at + 1, count)));
    let Some(entry) = records.entry(labels.wire(at, count)).filter(|it| it.service().is_some())
    else {
        return format!("there is no {service_kind} {name} in namespace {namespace}");
    };
    let object = service(records.zone(), entry);
    match (at, entry.external()) {
        (0, _) if headless && entry.is_headless() => {
            format!("{object} has no external address and {}", endpoints_text(entry))
        }
        (0, _) => format!("{object} has neither externalIPs nor an address of a load balancer"),
        _ => format!("{object} has no port and no endpoint {}", bare(labels.wire(0, at))),
    }
}

/// Label 0 is the namespace.
fn missing_namespace(records: &Records, labels: &Labels<'_>) -> String {
    let namespace = bare(labels.wire(0, 1));
    match records.zone().schema() {
        Schema::Cluster | Schema::External { .. } | Schema::Skydns { .. } => {
            format!("there is no Namespace {namespace}, and no Service in it")
        }
        Schema::Clusterset => format!("there is no ServiceImport in namespace {namespace}"),
    }
}

/// Label 0 is the Service, label 1 its namespace.
fn missing_service(records: &Records, labels: &Labels<'_>) -> String {
    let (name, namespace) = (bare(labels.wire(0, 1)), bare(labels.wire(1, 2)));
    let service_kind = kind(records.zone());
    let Some(entry) = records.entry(labels.wire(0, 2)) else {
        return format!("there is no {service_kind} {name} in namespace {namespace}");
    };
    let Some(found) = entry.service() else {
        let slices: Vec<&str> = entry.slices().map(|slice| &**slice.name()).collect();
        let slices = slices.join(", ");
        return format!(
            "there is no {service_kind} {name} in namespace {namespace}; \
             EndpointSlice {slices} waits for it"
        );
    };
    let kind = if found.shape == Shape::Headless { "headless" } else { "without endpoints" };
    format!("{} is {kind} and {}", service(records.zone(), entry), endpoints_text(entry))
}

/// Returns why it has no published endpoint.
fn endpoints_text(entry: &Entry) -> String {
    let all: usize = entry.slices().map(|slice| slice.len()).sum();
    let draining: u32 = entry
        .slices()
        .map(|slice| slice.prefix(State::Draining) - slice.prefix(State::Ready))
        .sum();
    match (all, draining) {
        (0, _) => "has no endpoints".to_owned(),
        (_, 0) => format!("none of its {all} endpoints is ready"),
        _ => format!("none of its {all} endpoints is ready, {draining} are terminating"),
    }
}

/// `at` labels are left of the Service.
fn below_service(records: &Records, labels: &Labels<'_>, at: usize) -> String {
    let Some(entry) = records.entry(labels.wire(at, at + 2)) else {
        return missing_service(records, labels);
    };
    let object = service(records.zone(), entry);
    let shape = entry.service().map(|service| &service.shape);
    if matches!(shape, Some(Shape::ExternalName(_))) {
        return format!("{object} is an ExternalName: there are no names below it");
    }
    let label = labels.label(at - 1);
    match (at, Protocol::from_label(label)) {
        (1, Some(_)) => format!("{object} has no named port with protocol {}", shown(label)),
        (_, None) if records.zone().schema() == Schema::Clusterset => {
            below_import(entry, &object, &bare(labels.wire(0, at)))
        }
        (_, None) if label == ZONE_LABEL => below_zone_label(records, entry, &object),
        (1, None) => format!(
            "no published endpoint of {object} has the hostname {0}, \
             nor the address that {0} would be",
            shown(label)
        ),
        (2, _) => {
            let port = shown(labels.label(0));
            format!("{object} has no port {port} with protocol {}", shown(labels.label(1)))
        }
        _ => format!("there are no names below an endpoint or a port of {object}"),
    }
}

/// Returns why a name below `_zone`, or `_zone` itself, does not exist.
fn below_zone_label(records: &Records, entry: &Entry, object: &str) -> String {
    match (records.zone().zonal, entry.is_headless()) {
        (false, _) => "names of topology zones are off: --zonal".to_owned(),
        (true, false) => format!("{object} is not headless: no name leads to a topology zone"),
        (true, true) => "below _zone there are ZONE.pin and ZONE.prefer".to_owned(),
    }
}

/// `left`, the labels left of the ServiceImport, is neither a port nor a protocol.
fn below_import(entry: &Entry, object: &str, left: &str) -> String {
    if matches!(entry.service().map(|service| &service.shape), Some(Shape::ClusterIp(_))) {
        return format!("{object} has clusterset IPs: no name leads to the endpoints of a cluster");
    }
    format!("no published endpoint of {object} is at {left}, of HOSTNAME.CLUSTER")
}

/// `count` labels are left of the apex, the last of them `pod`.
fn missing_pod(records: &Records, labels: &Labels<'_>, count: usize) -> String {
    if records.zone().schema() == Schema::Clusterset {
        return "pods have no names in a clusterset".to_owned();
    }
    if !records.zone().pods.is_enabled() {
        return "pod names are disabled".to_owned();
    }
    let namespace = bare(labels.wire(count - 2, count - 1));
    match count {
        2 => missing_namespace(records, labels),
        3 => match parse_dashed(labels.label(0)) {
            None => format!("{} is no address with dashes", shown(labels.label(0))),
            Some(address) if records.zone().pods == PodMode::Verified => {
                format!("no Pod of namespace {namespace} has the address {address}")
            }
            Some(_) => format!("there is no Namespace {namespace}"),
        },
        _ => "there are no names below a pod".to_owned(),
    }
}

fn shown(label: &[u8]) -> String {
    String::from_utf8_lossy(label).into_owned()
}

fn text_of(labels: &Labels<'_>) -> String {
    bare(labels.tail(0))
}
