//! A ServiceCIDR, reduced to the addresses from which Services get theirs.
//!
//! Core. Knows `networking.k8s.io` ServiceCIDR (KEP-1880), whose fields are the same in `v1` and
//! `v1beta1`; does not know the Services.

use serde::Deserialize;
use shared::prefix::Prefix;

use super::{LeftOut, Metadata, address, null_is_default};

/// The fields of a ServiceCIDR that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidrObject {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its specification.
    #[serde(deserialize_with = "null_is_default")]
    pub spec: ServiceCidrSpec,
}

/// The fields of `spec` that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidrSpec {
    /// The ranges, at most one of each family.
    #[serde(deserialize_with = "null_is_default")]
    pub cidrs: Vec<String>,
}

impl ServiceCidrObject {
    /// Returns the part that the records keep: its ranges.
    pub(super) fn project(&self, left_out: &mut LeftOut) -> Box<[Prefix]> {
        let texts = self.spec.cidrs.iter().map(String::as_str);
        address::parse_ranges("spec.cidrs", texts, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_both_families() {
        let check = |spec: &str, expected: &[&str], is_whole: bool| {
            let object = format!(r#"{{"metadata":{{"name":"kubernetes"}},"spec":{spec}}}"#);
            let object = serde_json::from_str::<ServiceCidrObject>(&object).unwrap();
            let mut left_out = LeftOut::default();
            let made = object.project(&mut left_out);
            assert_eq!(made.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
            assert_eq!(left_out.reason().is_none(), is_whole);
        };
        check(r#"{"cidrs":["10.96.0.0/12"]}"#, &["10.96.0.0/12"], true);
        let both = ["10.96.0.0/12", "fd00:10:96::/108"];
        check(r#"{"cidrs":["10.96.0.0/12","fd00:10:96::/108"]}"#, &both, true);
        check(r#"{"cidrs":["10.96.0.0/33","fd00:10:96::/108"]}"#, &both[1..], false);
        for spec in [r#"{"cidrs":null}"#, r#"{"cidrs":[]}"#, "null", "{}"] {
            check(spec, &[], true);
        }
    }
}
