//! What an API server refuses in an object although the records accept it. Such a file would not
//! work in a cluster, and an edit of it may have no effect.
//!
//! Core. Knows the validation of the Kubernetes API for the fields that are read. Rules that the
//! records need are in `project`.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::project::{EndpointSliceObject, Input, Metadata, PortObject, ServiceObject};

/// Returns why an API server would refuse `input`, in a few words each; empty if it would not.
pub fn refusals(input: &Input) -> Vec<String> {
    let mut reasons = Vec::new();
    names(input.metadata(), matches!(input, Input::Service(_)), &mut reasons);
    match input {
        Input::Service(service) => cluster_ips(service, &mut reasons),
        Input::EndpointSlice(slice) => endpoints(slice, &mut reasons),
        _ => {}
    }
    reasons
}

/// Checks for RFC 1123 subdomains; a Service must be a label.
fn names(metadata: &Metadata, is_label: bool, reasons: &mut Vec<String>) {
    let name = &metadata.name;
    let is_right = if is_label { label(name) } else { name.split('.').all(label) };
    if !is_right {
        reasons.push(format!("metadata.name {name:?} is not a lower-case DNS name"));
    }
    let namespace = metadata.namespace();
    if !label(namespace) {
        reasons.push(format!("metadata.namespace {namespace:?} is not a lower-case DNS label"));
    }
}

/// Checks that cluster IPs match each other (KEP-563) and the type, and that ports have unique
/// names.
fn cluster_ips(ServiceObject { spec, .. }: &ServiceObject, reasons: &mut Vec<String>) {
    let one = spec.cluster_ip.as_deref().unwrap_or_default();
    let all: Vec<&str> = spec.cluster_ips.iter().map(String::as_str).collect();
    if let Some(&first) = all.first()
        && !one.is_empty()
        && one != first
    {
        reasons.push(format!(
            "spec.clusterIP is {one:?}, but the first of spec.clusterIPs, which holds here, is \
             {first:?}"
        ));
    }
    if spec.r#type.as_deref() == Some("ExternalName") {
        if all.iter().chain([&one]).any(|text| !matches!(*text, "" | "None")) {
            reasons.push("an ExternalName Service has no cluster IPs".to_owned());
        }
    } else {
        families(&all, reasons);
    }
    let is_known = |kind: &str| {
        matches!(kind, "" | "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName")
    };
    if let Some(kind) = spec.r#type.as_deref().filter(|kind| !is_known(kind)) {
        reasons.push(format!("spec.type {kind:?} is not a type of Service"));
    }
    ports(&spec.ports, true, reasons);
}

/// Checks that there is at most one cluster IP of each family, or `None` alone.
fn families(all: &[&str], reasons: &mut Vec<String>) {
    if all.len() > 1 && all.contains(&"None") {
        reasons.push("spec.clusterIPs has None beside others".to_owned());
        return;
    }
    let parsed: Vec<IpAddr> = all.iter().filter_map(|text| text.parse().ok()).collect();
    for family in ["IPv4", "IPv6"] {
        let count = parsed.iter().filter(|ip| ip.is_ipv4() == (family == "IPv4")).count();
        if count > 1 {
            reasons.push(format!("spec.clusterIPs has {count} {family} addresses, 1 at most"));
        }
    }
}

/// Checks that a slice has a family, its endpoints have addresses, and hostnames are labels.
fn endpoints(slice: &EndpointSliceObject, reasons: &mut Vec<String>) {
    let family = slice.address_type.as_deref().unwrap_or_default();
    if !matches!(family, "IPv4" | "IPv6" | "FQDN") {
        reasons.push(format!("addressType is {family:?}, expected IPv4, IPv6 or FQDN"));
    }
    let count = |wrong: &dyn Fn(usize) -> bool| {
        slice.endpoints.iter().filter(|endpoint| wrong(endpoint.addresses.len())).count()
    };
    for (wrong, text) in [
        (count(&|addresses| addresses == 0), "without an address"),
        (count(&|addresses| addresses > ADDRESSES_MAX), "with more than 100 addresses"),
    ] {
        if wrong > 0 {
            reasons.push(format!("{wrong} of {} endpoints {text}", slice.endpoints.len()));
        }
    }
    let hostnames = slice.endpoints.iter().filter_map(|endpoint| endpoint.hostname.as_deref());
    if let Some(hostname) = hostnames.into_iter().find(|name| !name.is_empty() && !label(name)) {
        reasons.push(format!("hostname {hostname:?} is not a lower-case DNS label"));
    }
    ports(&slice.ports, false, reasons);
}

/// Checks that ports differ by name, and those of a Service also by number and protocol.
fn ports(ports: &[PortObject], of_service: bool, reasons: &mut Vec<String>) {
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    for port in ports {
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 && of_service {
            reasons.push("one of several ports has no name".to_owned());
        } else if !names.insert(name) {
            reasons.push(format!("two ports have the name {name:?}"));
        }
        if !name.is_empty() && !label(name) {
            reasons.push(format!("port name {name:?} is not a lower-case DNS label"));
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if of_service && !numbers.insert((port.port, protocol)) {
            let number = port.port.unwrap_or_default();
            reasons.push(format!("two ports are {number}/{protocol}"));
        }
    }
}

/// Returns whether `text` is an RFC 1123 label in lower case.
fn label(text: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=LABEL_LEN_MAX).contains(&text.len())
        && text.bytes().all(|byte| is_alphanumeric(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// RFC 1123 section 2.1.
const LABEL_LEN_MAX: usize = 63;
/// The most addresses of one endpoint (KEP-752).
const ADDRESSES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, object: &str, expected: &[&str]) {
        let input = match kind {
            "Service" => serde_json::from_str(object).map(Input::Service),
            "EndpointSlice" => serde_json::from_str(object).map(Input::EndpointSlice),
            other => panic!("{other}"),
        };
        let reasons = refusals(&input.unwrap());
        assert_eq!(reasons.len(), expected.len(), "{object}: {reasons:?}");
        for (reason, part) in reasons.iter().zip(expected) {
            assert!(reason.contains(part), "{part:?} is missing in {reason:?}");
        }
    }

    #[test]
    fn a_service_that_an_api_server_refuses() {
        let spec = |spec: &str, expected: &[&str]| {
            let object = format!(r#"{{"metadata":{{"name":"web"}},"spec":{spec}}}"#);
            check("Service", &object, expected);
        };
        spec(r#"{"clusterIP":"10.0.0.7"}"#, &[]);
        spec(r#"{"clusterIP":"10.0.0.7","clusterIPs":["10.0.0.7","fd00::7"]}"#, &[]);
        spec(r#"{"clusterIPs":["10.0.0.7"]}"#, &[]);
        spec(r#"{"clusterIP":"None","clusterIPs":["None"]}"#, &[]);
        spec(r#"{"type":"ExternalName","externalName":"a.example"}"#, &[]);
        spec(r#"{"clusterIP":"None","ports":[{"port":80},{"name":"b","port":81}]}"#, &["no name"]);
        spec(
            r#"{"clusterIP":"10.0.0.8","clusterIPs":["10.0.0.7"]}"#,
            &["spec.clusterIP is \"10.0.0.8\", but the first of spec.clusterIPs"],
        );
        spec(r#"{"clusterIP":"None","clusterIPs":["10.0.0.7"]}"#, &["is \"None\", but the first"]);
        spec(r#"{"clusterIPs":["None","10.0.0.7"]}"#, &["None beside others"]);
        spec(r#"{"clusterIPs":["10.0.0.7","10.0.0.8"]}"#, &["2 IPv4 addresses"]);
        spec(r#"{"clusterIPs":["fd00::7","10.0.0.8","fd00::8"]}"#, &["2 IPv6 addresses"]);
        spec(r#"{"type":"ExternalName","clusterIP":"10.0.0.7"}"#, &["has no cluster IPs"]);
        spec(r#"{"type":"Headless","clusterIP":"None"}"#, &["\"Headless\" is not a type"]);
        let ports = r#"[{"name":"a","port":80},{"name":"a","port":80},{"name":"B","port":1}]"#;
        let twice = ["the name \"a\"", "two ports are 80/TCP", "\"B\" is not a lower-case"];
        spec(&format!(r#"{{"clusterIP":"None","ports":{ports}}}"#), &twice);
        spec(
            r#"{"clusterIP":"None","ports":[{"name":"a","port":53},{"name":"b","port":53,
                "protocol":"UDP"}]}"#,
            &[],
        );
        for (metadata, expected) in [
            (r#"{"name":"Web"}"#, &["metadata.name \"Web\""][..]),
            (r#"{"name":"a.b"}"#, &["metadata.name \"a.b\""]),
            (r#"{"name":"-a"}"#, &["metadata.name \"-a\""]),
            (r#"{"name":"a","namespace":"Shop"}"#, &["metadata.namespace \"Shop\""]),
        ] {
            check("Service", &format!(r#"{{"metadata":{metadata}}}"#), expected);
        }
    }

    #[test]
    fn a_slice_that_an_api_server_refuses() {
        let slice = |fields: &str, expected: &[&str]| {
            let object = format!(r#"{{"metadata":{{"name":"web-x.y"}},{fields}}}"#);
            check("EndpointSlice", &object, expected);
        };
        slice(r#""addressType":"IPv4","endpoints":[{"addresses":["10.1.0.1"]}]"#, &[]);
        slice(r#""addressType":"FQDN","endpoints":null"#, &[]);
        slice(r#""endpoints":[{"addresses":["10.1.0.1"]}]"#, &["addressType is \"\""]);
        slice(r#""addressType":"ipv4""#, &["addressType is \"ipv4\""]);
        slice(
            r#""addressType":"IPv4","endpoints":[{},{"addresses":["10.1.0.1"]}]"#,
            &["1 of 2 endpoints without an address"],
        );
        slice(
            r#""addressType":"IPv4","endpoints":[{"addresses":["10.1.0.1"],"hostname":"A"}]"#,
            &["hostname \"A\""],
        );
        slice(
            r#""addressType":"IPv4","ports":[{"name":"a","port":1},{"name":"a","port":2}]"#,
            &["two ports have the name \"a\""],
        );
        slice(r#""addressType":"IPv4","ports":[{"port":1}]"#, &[]);
    }
}
