//! A ServiceImport, reduced to a Service in the domain of a clusterset.
//!
//! Core. Knows `multicluster.x-k8s.io` ServiceImport (KEP-1645), whose fields are the same in
//! `v1alpha1` and `v1beta1`; does not know the slices that were imported with it.

use serde::Deserialize;

use super::{LeftOut, Metadata, PortObject, Reason, address, null_is_default, service_key};
use crate::records::{Ports, Service, Shape};

/// The fields of a ServiceImport that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceImportObject {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its specification.
    #[serde(deserialize_with = "null_is_default")]
    pub spec: ServiceImportSpec,
}

/// The fields of `spec` that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceImportSpec {
    /// ClusterSetIP or Headless.
    pub r#type: Option<String>,
    /// The clusterset IPs, at most one of each family; ignored if it is headless.
    #[serde(deserialize_with = "null_is_default")]
    pub ips: Vec<String>,
    /// Its ports.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<PortObject>,
}

impl ServiceImportObject {
    /// Returns the part that the records keep, if it has an address or is headless.
    ///
    /// An address that cannot be parsed and a port name that does not fit are left out. Fails on
    /// names, addresses, types and ports that an API server would have refused.
    pub(super) fn project(&self, left_out: &mut LeftOut) -> Result<Option<Service>, Reason> {
        let key = service_key(self.metadata.namespace(), &self.metadata.name)?;
        let spec = &self.spec;
        let shape = match spec.r#type.as_deref() {
            Some("Headless") => Shape::Headless,
            None | Some("ClusterSetIP") => {
                let texts = spec.ips.iter().map(String::as_str);
                match address::parse_all("spec.ips", texts, left_out)? {
                    addresses if addresses.is_empty() => return Ok(None),
                    addresses => Shape::ClusterIp(addresses.into_iter().collect()),
                }
            }
            Some(other) => return Err(Reason::ImportType { value: other.to_owned() }),
        };
        let ports = Ports::project(&spec.ports, left_out)?;
        let created = self.metadata.created();
        Ok(Some(Service { key, created, shape, ports, publish_not_ready: false, external: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let check = |spec: &str, expected: Result<Option<Shape>, &str>| {
            let object =
                format!(r#"{{"metadata":{{"name":"web","namespace":"shop"}},"spec":{spec}}}"#);
            let object = serde_json::from_str::<ServiceImportObject>(&object).unwrap();
            let made = object
                .project(&mut LeftOut::default())
                .map(|made| made.map(|service| service.shape));
            assert_eq!(made.map_err(|reason| reason.to_string()), expected.map_err(str::to_owned));
        };
        let addresses = |texts: &[&str]| {
            let addresses = texts.iter().map(|text| text.parse().unwrap()).collect();
            Ok(Some(Shape::ClusterIp(addresses)))
        };
        check(r#"{"type":"ClusterSetIP","ips":["10.42.0.1"]}"#, addresses(&["10.42.0.1"]));
        check(
            r#"{"type":"ClusterSetIP","ips":["10.42.0.1","fd42::1","10.42.0.1"],"ports":null}"#,
            addresses(&["10.42.0.1", "fd42::1"]),
        );
        check(r#"{"ips":["10.42.0.1"]}"#, addresses(&["10.42.0.1"]));
        check(r#"{"type":"ClusterSetIP","ips":null}"#, Ok(None));
        check(r#"{"type":"ClusterSetIP","ips":[""]}"#, Ok(None));
        check("null", Ok(None));
        check(r#"{"type":"Headless","ips":["x"]}"#, Ok(Some(Shape::Headless)));
        check(
            r#"{"type":"ClusterSetIP","ips":["10.42.0.300"]}"#,
            Err("spec.ips has \"10.42.0.300\", which is not an IP address"),
        );
        check(
            r#"{"type":"ClusterIP","ips":["10.42.0.1"]}"#,
            Err("spec.type has \"ClusterIP\", which is neither ClusterSetIP nor Headless"),
        );
        check(r#"{"type":"Headless","ports":[{"port":0}]}"#, Err("0 is no port number"));
    }
}
