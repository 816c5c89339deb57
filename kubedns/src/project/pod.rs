//! A Pod, reduced to its namespace and addresses.
//!
//! Core. Knows the parts of `v1` Pod that verified pod names need.

use serde::Deserialize;

use super::{LeftOut, Metadata, Reason, address, label, null_is_default};
use crate::records::Pod;

/// The fields of a Pod that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodObject {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its status.
    #[serde(deserialize_with = "null_is_default")]
    pub status: PodStatus,
}

/// The fields of `status` that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// The phase of the Pod's life cycle.
    pub phase: Option<String>,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// Every address, one of each family (KEP-563).
    #[serde(rename = "podIPs", deserialize_with = "null_is_default")]
    pub pod_ips: Vec<PodIp>,
}

/// One address of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: Option<String>,
}

impl PodObject {
    /// Returns the part that the records keep, if the Pod has an address and has not ended.
    ///
    /// An address that cannot be parsed is left out. Fails on a namespace that is not a label, and
    /// if no address can be parsed.
    pub(super) fn project(&self, left_out: &mut LeftOut) -> Result<Option<Pod>, Reason> {
        let status = &self.status;
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return Ok(None);
        }
        let mut texts: Vec<&str> =
            status.pod_ips.iter().filter_map(|pod_ip| pod_ip.ip.as_deref()).collect();
        if texts.is_empty() {
            texts.extend(status.pod_ip.as_deref());
        }
        let addresses = address::parse_all("status.podIPs", texts, left_out)?;
        if addresses.is_empty() {
            return Ok(None);
        }
        let mut namespace = Vec::new();
        label(&mut namespace, "metadata.namespace", self.metadata.namespace())?;
        Ok(Some(Pod { namespace: namespace.into(), addresses: addresses.into() }))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn addresses_while_it_lives() {
        let check = |status: &str, expected: Option<&[&str]>| {
            let object = format!(r#"{{"metadata":{{"namespace":"shop"}},"status":{status}}}"#);
            let pod = serde_json::from_str::<PodObject>(&object)
                .unwrap()
                .project(&mut LeftOut::default());
            let addresses = pod.unwrap().map(|pod| pod.addresses.to_vec());
            let parse = |text: &&str| text.parse::<IpAddr>().unwrap();
            assert_eq!(addresses, expected.map(|texts| texts.iter().map(parse).collect()));
        };
        check(r#"{"podIP":"10.1.0.1"}"#, Some(&["10.1.0.1"]));
        check(
            r#"{"podIP":"10.1.0.1","podIPs":[{"ip":"10.1.0.1"},{"ip":"fd00::1"}]}"#,
            Some(&["10.1.0.1", "fd00::1"]),
        );
        check(r#"{"phase":"Succeeded","podIP":"10.1.0.1"}"#, None);
        check(r#"{"phase":"Failed","podIP":"10.1.0.1"}"#, None);
        check(r#"{"phase":"Pending","podIPs":null}"#, None);
        check("null", None);
    }
}
