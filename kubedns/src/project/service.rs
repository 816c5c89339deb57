//! A Service, reduced to its cluster IPs, its ports or its external name.
//!
//! Core. Knows `v1` Service and section 2 of the DNS specification; does not know its endpoints.

use serde::Deserialize;

use super::{LeftOut, Metadata, PortObject, Reason, address, null_is_default, service_key};
use crate::name::Name;
use crate::records::{External, Ports, Service, Shape};

/// The fields of a Service that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceObject {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its specification.
    #[serde(deserialize_with = "null_is_default")]
    pub spec: ServiceSpec,
    /// Its status.
    #[serde(deserialize_with = "null_is_default")]
    pub status: ServiceStatus,
}

/// The fields of `status` that matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// The load balancer.
    #[serde(deserialize_with = "null_is_default")]
    pub load_balancer: LoadBalancer,
}

/// The fields of `status.loadBalancer` that matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancer {
    /// Where it is reached.
    #[serde(deserialize_with = "null_is_default")]
    pub ingress: Vec<Ingress>,
}

/// Where a load balancer is reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// Its address.
    pub ip: Option<String>,
    /// Its name, if it has no address.
    pub hostname: Option<String>,
}

/// The fields of `spec` that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// ClusterIP, NodePort, LoadBalancer or ExternalName.
    pub r#type: Option<String>,
    /// The first cluster IP, or `None`.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// Every cluster IP (KEP-563).
    #[serde(rename = "clusterIPs", deserialize_with = "null_is_default")]
    pub cluster_ips: Vec<String>,
    /// Addresses outside the cluster that lead to it.
    #[serde(rename = "externalIPs", deserialize_with = "null_is_default")]
    pub external_ips: Vec<String>,
    /// What an ExternalName Service stands for.
    pub external_name: Option<String>,
    /// Its ports.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<PortObject>,
    /// Whether endpoints are published before they are ready.
    pub publish_not_ready_addresses: Option<bool>,
}

impl ServiceObject {
    /// Returns the part that the records keep.
    ///
    /// An address that cannot be parsed and a port name that does not fit are left out. Fails on
    /// names, addresses and ports that an API server would have refused, and if no cluster IP is
    /// left.
    pub(super) fn project(&self, left_out: &mut LeftOut) -> Result<Service, Reason> {
        let key = service_key(self.metadata.namespace(), &self.metadata.name)?;
        let shape = self.shape(left_out)?;
        let spec = &self.spec;
        let ports = match shape {
            Shape::ExternalName(_) => Ports::default(),
            _ => Ports::project(&spec.ports, left_out)?,
        };
        let tolerated = self.metadata.annotations.tolerate_unready_endpoints.as_deref();
        let publish_not_ready =
            spec.publish_not_ready_addresses == Some(true) || tolerated == Some("true");
        let (created, external) = (self.metadata.created(), self.external(left_out));
        Ok(Service { key, created, shape, ports, publish_not_ready, external })
    }

    /// How it is reached from outside. An entry of the load balancer with an address has no host,
    /// as in CoreDNS. What cannot be read is left out: no zone of the cluster needs it.
    fn external(&self, left_out: &mut LeftOut) -> Option<Box<External>> {
        const FIELD: &str = "status.loadBalancer.ingress";
        let (mut addresses, mut hosts) = (Vec::new(), Vec::new());
        let own = self.spec.external_ips.iter().map(|ip| (ip.as_str(), ""));
        let ingress = self.status.load_balancer.ingress.iter();
        let ingress = ingress.map(|entry| {
            (entry.ip.as_deref().unwrap_or_default(), entry.hostname.as_deref().unwrap_or_default())
        });
        for (ip, host) in own.chain(ingress).take(EXTERNAL_MAX) {
            match (ip, host, address::parse(ip)) {
                ("", "", _) => {}
                ("", host, _) => match Name::parse(host) {
                    Ok(name) => hosts.push(name),
                    Err(source) => left_out.note(Reason::Name { field: FIELD, source }),
                },
                (_, _, Some(address)) if addresses.contains(&address) => {}
                (_, _, Some(address)) => addresses.push(address),
                (ip, _, None) => left_out.note(Reason::address(FIELD, ip, "IP")),
            }
        }
        let external = External { addresses: addresses.into(), hosts: hosts.into() };
        Some(Box::new(external)).filter(|it| **it != External::default())
    }

    fn shape(&self, left_out: &mut LeftOut) -> Result<Shape, Reason> {
        const FIELD: &str = "spec.externalName";
        let spec = &self.spec;
        if spec.r#type.as_deref() == Some("ExternalName") {
            // A text like 10.0.0.7 is a name too, according to the API's documentation of this
            // field.
            let name = Name::parse(spec.external_name.as_deref().unwrap_or_default());
            return match name {
                Ok(name) => Ok(Shape::ExternalName(name)),
                Err(source) => Err(Reason::Name { field: FIELD, source }),
            };
        }
        let mut texts: Vec<&str> = spec.cluster_ips.iter().map(String::as_str).collect();
        if texts.is_empty() {
            texts.extend(spec.cluster_ip.as_deref());
        }
        texts.retain(|text| !text.is_empty());
        match texts[..] {
            [] => Err(Reason::NoClusterIp),
            ["None"] => Ok(Shape::Headless),
            _ => {
                let addresses = address::parse_all("spec.clusterIPs", texts, left_out)?;
                Ok(Shape::ClusterIp(addresses.into_iter().collect()))
            }
        }
    }
}

/// More ways from outside than any Service has.
const EXTERNAL_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn project(spec: &str) -> Result<Service, Reason> {
        let object = format!(r#"{{"metadata":{{"name":"web","namespace":"shop"}},"spec":{spec}}}"#);
        serde_json::from_str::<ServiceObject>(&object).unwrap().project(&mut LeftOut::default())
    }

    #[test]
    fn shapes() {
        let check = |spec: &str, expected: Result<Shape, &str>| {
            let made = project(spec).map(|service| service.shape);
            assert_eq!(made.map_err(|reason| reason.to_string()), expected.map_err(str::to_owned));
        };
        let addresses = |texts: &[&str]| {
            Ok(Shape::ClusterIp(texts.iter().map(|text| text.parse().unwrap()).collect()))
        };
        check(r#"{"clusterIP":"10.0.0.7"}"#, addresses(&["10.0.0.7"]));
        check(
            r#"{"clusterIP":"10.0.0.7","clusterIPs":["10.0.0.7","fd00::7"]}"#,
            addresses(&["10.0.0.7", "fd00::7"]),
        );
        check(r#"{"clusterIP":"None","clusterIPs":["None"]}"#, Ok(Shape::Headless));
        check(
            r#"{"type":"ExternalName","externalName":"Example.COM."}"#,
            Ok(Shape::ExternalName(Name::parse("example.com").unwrap())),
        );
        check(
            r#"{"type":"ExternalName","externalName":"10.0.0.7"}"#,
            Ok(Shape::ExternalName(Name::parse("10.0.0.7").unwrap())),
        );
        let missing = Reason::NoClusterIp.to_string();
        check(r#"{"clusterIP":""}"#, Err(&missing));
        check("null", Err(&missing));
        check(
            r#"{"clusterIP":"10.0.0.300"}"#,
            Err("spec.clusterIPs has \"10.0.0.300\", which is not an IP address"),
        );
        check(r#"{"type":"ExternalName"}"#, Err("spec.externalName is no name"));
        check(r#"{"clusterIP":"10.0.0.7","ports":[{"port":0}]}"#, Err("0 is no port number"));
        check(
            r#"{"clusterIP":"10.0.0.7","ports":[{"port":80,"protocol":"HTTP"}]}"#,
            Err("\"HTTP\" is no protocol: TCP, UDP or SCTP"),
        );
    }

    #[test]
    fn ways_from_outside() {
        let check = |object: &str, expected: &str| {
            let object: ServiceObject = serde_json::from_str(object).unwrap();
            let mut left_out = LeftOut::default();
            let service = object.project(&mut left_out).unwrap();
            let External { addresses, hosts } = *service.external.unwrap_or_default();
            let addresses = addresses.iter().map(ToString::to_string);
            let hosts = hosts.iter().map(ToString::to_string);
            let reason = left_out.reason().map(|_| "left out".to_owned());
            let texts: Vec<String> = addresses.chain(hosts).chain(reason).collect();
            assert_eq!(texts.join(" "), expected);
        };
        let object = |spec: &str, ingress: &str| {
            format!(
                r#"{{"metadata":{{"name":"web","namespace":"shop"}},
                "spec":{{"clusterIP":"10.0.0.7"{spec}}},
                "status":{{"loadBalancer":{{"ingress":{ingress}}}}}}}"#
            )
        };
        check(&object("", "null"), "");
        check(&object("", "[]"), "");
        check(&object(r#","externalIPs":["192.0.2.1","192.0.2.1"]"#, "[]"), "192.0.2.1");
        check(
            &object(r#","externalIPs":["192.0.2.1"]"#, r#"[{"ip":"2001:db8::1"},{"ip":""}]"#),
            "192.0.2.1 2001:db8::1",
        );
        check(&object("", r#"[{"hostname":"LB.example."}]"#), "lb.example.");
        check(&object("", r#"[{"ip":"192.0.2.1","hostname":"lb.example"}]"#), "192.0.2.1");
        check(&object("", r#"[{"ip":"x"},{"hostname":"a..b"}]"#), "left out");
        let bare = r#"{"metadata":{"name":"web"},"spec":{"clusterIP":"None"},"status":null}"#;
        check(bare, "");
    }

    #[test]
    fn names_are_labels() {
        let check = |metadata: &str, key: Option<&[u8]>| {
            let object = format!(r#"{{"metadata":{metadata},"spec":{{"clusterIP":"None"}}}}"#);
            let service = serde_json::from_str::<ServiceObject>(&object)
                .unwrap()
                .project(&mut LeftOut::default())
                .ok();
            assert_eq!(service.map(|service| service.key.to_vec()), key.map(<[u8]>::to_vec));
        };
        check(r#"{"name":"web","namespace":"shop"}"#, Some(b"\x03web\x04shop"));
        check(r#"{"name":"Web"}"#, Some(b"\x03web\x07default"));
        check(r#"{"name":"1web","labels":null}"#, Some(b"\x041web\x07default"));
        check(r#"{"name":"a.b"}"#, None);
        check(r#"{"name":""}"#, None);
        check(r#"{"name":"_http"}"#, None);
    }
}
