//! A Node, reduced to its zone and region, and to the addresses of its Pods.
//!
//! Core. Knows the topology labels of `v1` Node that federations need, and `podCIDRs`.

use serde::Deserialize;
use shared::prefix::Prefix;

use super::{LeftOut, Metadata, Reason, address, null_is_default};
use crate::name::Name;
use crate::records::Locality;

/// The fields of a Node that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeObject {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its specification.
    #[serde(deserialize_with = "null_is_default")]
    pub spec: NodeSpec,
}

/// The fields of `spec` that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// The range from which its Pods get addresses, in the form of API servers before 1.16.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    /// The ranges from which its Pods get addresses, at most one of each family; the first is
    /// `podCIDR`.
    #[serde(rename = "podCIDRs", deserialize_with = "null_is_default")]
    pub pod_cidrs: Vec<String>,
}

/// The part of a Node that the records keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its locality, if its labels contain both zone and region.
    pub locality: Option<Locality>,
    /// The addresses of its Pods; empty if the API server does not assign them.
    pub pod_cidrs: Box<[Prefix]>,
}

impl NodeObject {
    /// Returns the part that the records keep.
    ///
    /// Current labels win over beta labels (well-known labels of Kubernetes). If a label cannot be
    /// part of a name, or a range is not valid, only that label or range is left out.
    pub(super) fn project(&self, left_out: &mut LeftOut) -> NodeFacts {
        let locality = self.locality().unwrap_or_else(|reason| {
            left_out.note(reason);
            None
        });
        let spec = &self.spec;
        let first = spec.pod_cidr.as_deref().filter(|_| spec.pod_cidrs.is_empty());
        let texts = spec.pod_cidrs.iter().map(String::as_str).chain(first);
        NodeFacts { locality, pod_cidrs: address::parse_ranges("spec.podCIDRs", texts, left_out) }
    }

    /// Returns its locality, if the labels contain both zone and region.
    fn locality(&self) -> Result<Option<Locality>, Reason> {
        let labels = &self.metadata.labels;
        let zone = first([&labels.zone, &labels.zone_beta]);
        let region = first([&labels.region, &labels.region_beta]);
        let (Some(zone), Some(region)) = (zone, region) else { return Ok(None) };
        let name = Name::parse(&format!("{zone}.{region}"));
        name.map(|name| Some(Locality(name)))
            .map_err(|source| Reason::Name { field: "ZONE.REGION of the topology labels", source })
    }
}

/// Returns the first text that is not empty.
fn first(texts: [&Option<String>; 2]) -> Option<&str> {
    texts.into_iter().flatten().map(String::as_str).find(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn labels_of_both_generations() {
        let check = |labels: Value, expected: Result<Option<&str>, ()>| {
            let object = json!({"metadata": {"name": "n", "labels": labels}});
            let mut left_out = LeftOut::default();
            let object = serde_json::from_value::<NodeObject>(object).unwrap();
            let made = object.project(&mut left_out);
            let made = made.locality.map(|Locality(name)| name.to_string());
            let made = left_out.reason().map_or(Ok(made), |_| Err(()));
            assert_eq!(made, expected.map(|text| text.map(str::to_owned)));
        };
        const ZONE: &str = "topology.kubernetes.io/zone";
        const REGION: &str = "topology.kubernetes.io/region";
        const BETA_ZONE: &str = "failure-domain.beta.kubernetes.io/zone";
        const BETA_REGION: &str = "failure-domain.beta.kubernetes.io/region";
        check(json!({ZONE: "Z1", REGION: "r1"}), Ok(Some("z1.r1.")));
        check(json!({BETA_ZONE: "z0", BETA_REGION: "r0"}), Ok(Some("z0.r0.")));
        check(
            json!({ZONE: "z1", REGION: "r1", BETA_ZONE: "z0", BETA_REGION: "r0"}),
            Ok(Some("z1.r1.")),
        );
        check(json!({ZONE: "z1", BETA_REGION: "r0"}), Ok(Some("z1.r0.")));
        check(json!({ZONE: "", REGION: "r1", BETA_ZONE: "z0"}), Ok(Some("z0.r1.")));
        check(json!({ZONE: "eu.z1", REGION: "r1"}), Ok(Some("eu.z1.r1.")));
        check(json!({ZONE: "z1"}), Ok(None));
        check(json!({ZONE: "z1", REGION: ""}), Ok(None));
        check(json!(null), Ok(None));
        check(json!({ZONE: "z..1", REGION: "r1"}), Err(()));
    }

    #[test]
    fn ranges_of_pods() {
        let check = |spec: Value, expected: &[&str], is_whole: bool| {
            let object = json!({"metadata": {"name": "n"}, "spec": spec});
            let mut left_out = LeftOut::default();
            let object = serde_json::from_value::<NodeObject>(object).unwrap();
            let made = object.project(&mut left_out).pod_cidrs;
            assert_eq!(made.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
            assert_eq!(left_out.reason().is_none(), is_whole);
        };
        let both = ["10.244.0.0/24", "fd00:10:244::/64"];
        check(json!({"podCIDR": both[0], "podCIDRs": both}), &both, true);
        check(json!({"podCIDR": both[0]}), &both[..1], true);
        check(json!({"podCIDR": both[0], "podCIDRs": null}), &both[..1], true);
        check(json!({"podCIDR": "", "podCIDRs": []}), &[], true);
        check(json!({"providerID": "x"}), &[], true);
        check(json!(null), &[], true);
        check(json!({"podCIDRs": ["10.244.0.0/33", both[1]]}), &both[1..], false);
    }
}
