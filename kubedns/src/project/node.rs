//! A Node, reduced to where it is: its zone and region.
//!
//! Core. Knows the topology labels of `v1` Node as far as federations need them.

use serde::Deserialize;

use super::{Metadata, Reason};
use crate::name::Name;
use crate::records::Locality;

/// The fields of a Node that matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeObject {
    /// Its metadata.
    pub metadata: Metadata,
}

impl NodeObject {
    /// What the records keep of it: nothing where it does not say both zone and region.
    ///
    /// The labels of today come before those of beta times (well-known labels of Kubernetes). Fails
    /// where a label's value cannot stand in a name.
    pub fn project(&self) -> Result<Option<Locality>, Reason> {
        let labels = &self.metadata.labels;
        let zone = first([&labels.zone, &labels.zone_beta]);
        let region = first([&labels.region, &labels.region_beta]);
        let (Some(zone), Some(region)) = (zone, region) else { return Ok(None) };
        let name = Name::parse(&format!("{zone}.{region}"));
        name.map(|name| Some(Locality(name)))
            .map_err(|source| Reason::Name { field: "ZONE.REGION of the topology labels", source })
    }
}

/// The first that says anything.
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
            let made = serde_json::from_value::<NodeObject>(object).unwrap().project();
            let made = made.map(|made| made.map(|Locality(name)| name.to_string()));
            assert_eq!(made.map_err(drop), expected.map(|text| text.map(str::to_owned)));
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
}
