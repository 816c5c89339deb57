//! What the API server has about DNS: objects reduced to what checks need.
//!
//! Core. Reads items of lists as JSON; does not know how they arrive.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

/// A value, or why it is not known.
pub type Known<T> = Result<T, String>;

/// The objects that were listed. Each list fails for itself if a right is missing.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// How many seconds the API server's clock is ahead of ours.
    pub clock_ahead_secs: Option<i64>,
    /// The Service of the DNS; `None` if it does not exist.
    pub dns: Known<Option<Service>>,
    /// Its EndpointSlices.
    pub dns_slices: Known<Vec<Slice>>,
    /// The Pods of its namespace.
    pub dns_pods: Known<Vec<Pod>>,
    /// Every Service.
    pub services: Known<Vec<Service>>,
    /// Every EndpointSlice.
    pub slices: Known<Vec<Slice>>,
    /// Every Pod.
    pub pods: Known<Vec<Pod>>,
    /// The NetworkPolicies of the namespace that this program runs in.
    pub policies: Known<Vec<Policy>>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses; none if it is headless or an alias.
    pub addresses: Vec<IpAddr>,
    /// It has no address of its own.
    pub is_headless: bool,
    /// The target of an ExternalName.
    pub external_name: Option<String>,
    /// The labels of its Pods; empty if its endpoints are not managed.
    pub selector: BTreeMap<String, String>,
    /// Number and protocol of each port.
    pub ports: Vec<(u64, String)>,
    /// Endpoints that are not ready are published too.
    pub publishes_all: bool,
}

impl Service {
    /// `NAMESPACE/NAME`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// `NAME.NAMESPACE`, as programs write it.
    pub fn short(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// Whether `slice` is one of its EndpointSlices.
    pub fn owns(&self, slice: &Slice) -> bool {
        slice.namespace == self.namespace && slice.service == self.name
    }

    /// The endpoints in those of `slices` that are its own.
    pub fn endpoints<'a>(&self, slices: &'a [Slice]) -> impl Iterator<Item = &'a (IpAddr, bool)> {
        slices.iter().filter(move |slice| self.owns(slice)).flat_map(|slice| &slice.endpoints)
    }

    /// Whether its selector matches `pod`.
    pub fn selects(&self, pod: &Pod) -> bool {
        self.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    }

    /// The selector as `kubectl` takes it.
    pub fn selector_text(&self) -> String {
        let pairs = self.selector.iter().map(|(key, value)| format!("{key}={value}"));
        pairs.collect::<Vec<_>>().join(",")
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Its namespace.
    pub namespace: String,
    /// The name of its Service.
    pub service: String,
    /// Each address, and whether it is ready.
    pub endpoints: Vec<(IpAddr, bool)>,
}

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its `spec.subdomain`.
    pub subdomain: Option<String>,
    /// The condition Ready is true.
    pub is_ready: bool,
}

/// A NetworkPolicy that restricts what Pods may send to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// It restricts egress.
    pub is_egress: bool,
    /// One of its rules allows port 53 over UDP, to whatever destination.
    pub allows_dns: bool,
}

/// The items of a list, each read with `read`; those that are not of that kind are passed over.
pub fn items<T>(list: &Value, read: fn(&Value) -> Option<T>) -> Vec<T> {
    list["items"].as_array().into_iter().flatten().filter_map(read).collect()
}

/// Reads a Service.
pub fn service(object: &Value) -> Option<Service> {
    let (namespace, name) = path(object)?;
    let spec = &object["spec"];
    let cluster_ip = spec["clusterIP"].as_str().unwrap_or_default();
    let mut addresses: Vec<IpAddr> = texts(&spec["clusterIPs"]).filter_map(parsed).collect();
    if addresses.is_empty() {
        addresses.extend(parsed(cluster_ip));
    }
    let port = |port: &Value| {
        Some((port["port"].as_u64()?, port["protocol"].as_str().unwrap_or("TCP").to_owned()))
    };
    let is_alias = spec["type"] == "ExternalName";
    let external_name = spec["externalName"].as_str().filter(|_| is_alias).map(str::to_owned);
    Some(Service {
        namespace,
        name,
        addresses,
        is_headless: cluster_ip == "None",
        external_name,
        selector: map(&spec["selector"]),
        ports: spec["ports"].as_array().into_iter().flatten().filter_map(port).collect(),
        publishes_all: spec["publishNotReadyAddresses"] == true,
    })
}

/// Reads an EndpointSlice.
pub fn slice(object: &Value) -> Option<Slice> {
    let (namespace, _) = path(object)?;
    let service = object["metadata"]["labels"]["kubernetes.io/service-name"].as_str()?.to_owned();
    let endpoint = |endpoint: &Value| {
        // An endpoint without the condition is ready (discovery.k8s.io/v1).
        let is_ready = endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
        let addresses = texts(&endpoint["addresses"]).filter_map(parsed);
        addresses.map(|address| (address, is_ready)).collect::<Vec<_>>()
    };
    let endpoints = object["endpoints"].as_array().into_iter().flatten().flat_map(endpoint);
    Some(Slice { namespace, service, endpoints: endpoints.collect() })
}

/// Reads a Pod.
pub fn pod(object: &Value) -> Option<Pod> {
    let (namespace, name) = path(object)?;
    let conditions = object["status"]["conditions"].as_array();
    let is_true = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
    Some(Pod {
        namespace,
        name,
        labels: map(&object["metadata"]["labels"]),
        subdomain: object["spec"]["subdomain"].as_str().map(str::to_owned),
        is_ready: conditions.into_iter().flatten().any(is_true),
    })
}

/// Reads a NetworkPolicy.
pub fn policy(object: &Value) -> Option<Policy> {
    let spec = &object["spec"];
    let is_dns = |port: &Value| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        // A rule without a number is about every port; one with a name may be about DNS.
        protocol == "UDP"
            && (port["port"].is_null() || port["port"] == 53 || port["port"].is_string())
    };
    let allows = |rule: &Value| match rule["ports"].as_array() {
        None => true,
        Some(ports) => ports.iter().any(is_dns),
    };
    let rules = spec["egress"].as_array();
    Some(Policy {
        name: object["metadata"]["name"].as_str()?.to_owned(),
        is_egress: texts(&spec["policyTypes"]).any(|it| it == "Egress") || rules.is_some(),
        allows_dns: rules.into_iter().flatten().any(allows),
    })
}

/// Seconds since 1970 of an HTTP date, such as `Sat, 28 Nov 2026 14:30:00 GMT` (RFC 9110 section
/// 5.6.7).
pub fn http_date(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = words[..] else { return None };
    let number = |text: &str| text.parse::<i64>().ok();
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let (day, year) = (number(day)?, number(year)?);
    // Days since 1970-01-01 of a date of the Gregorian calendar, in years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + number(hour)? * 3_600 + number(minute)? * 60 + number(second)?)
}

fn path(object: &Value) -> Option<(String, String)> {
    let metadata = &object["metadata"];
    Some((metadata["namespace"].as_str()?.to_owned(), metadata["name"].as_str()?.to_owned()))
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn parsed(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn map(value: &Value) -> BTreeMap<String, String> {
    let pair = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    value.as_object().into_iter().flatten().filter_map(pair).collect()
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dates_of_http_are_seconds() {
        let rows = [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2000 12:00:01 GMT", Some(951_825_601)),
            ("Sat, 28 Nov 2026 14:30:00 GMT", Some(1_795_876_200)),
            ("Sat, 28 Foo 2026 14:30:00 GMT", None),
            ("yesterday", None),
        ];
        for (text, expected) in rows {
            assert_eq!(http_date(text), expected, "{text}");
        }
    }

    #[test]
    fn policies_allow_dns_if_one_rule_does() {
        let rows = [
            (json!({"policyTypes": ["Egress"]}), true, false),
            (json!({"policyTypes": ["Egress"], "egress": [{}]}), true, true),
            (json!({"policyTypes": ["Ingress"]}), false, false),
            (json!({"egress": [{"ports": [{"protocol": "TCP", "port": 443}]}]}), true, false),
            (json!({"egress": [{"ports": [{"protocol": "UDP", "port": 53}]}]}), true, true),
            (json!({"egress": [{"ports": [{"protocol": "UDP"}]}]}), true, true),
        ];
        for (spec, is_egress, allows_dns) in rows {
            let read = policy(&json!({"metadata": {"name": "a"}, "spec": spec})).unwrap();
            assert_eq!((read.is_egress, read.allows_dns), (is_egress, allows_dns), "{spec}");
        }
    }

    #[test]
    fn objects_are_reduced_to_what_checks_need() {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"clusterIP": "10.0.0.7", "selector": {"app": "web"},
                     "ports": [{"port": 53, "protocol": "UDP"}, {"port": 80}]},
        });
        let read = service(&object).unwrap();
        assert_eq!((read.path().as_str(), read.short().as_str()), ("shop/web", "web.shop"));
        assert_eq!(read.ports, [(53, "UDP".to_owned()), (80, "TCP".to_owned())]);
        assert_eq!(read.addresses, ["10.0.0.7".parse::<IpAddr>().unwrap()]);
        let labels = json!({"kubernetes.io/service-name": "web"});
        let object = json!({
            "metadata": {"namespace": "shop", "name": "web-1", "labels": labels},
            "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": false}},
                          {"addresses": ["10.1.0.2"]}],
        });
        let ready: Vec<bool> = slice(&object).unwrap().endpoints.iter().map(|it| it.1).collect();
        assert_eq!(ready, [false, true]);
        assert_eq!(items(&json!({"items": [object, {}]}), slice).len(), 1);
    }
}
