//! How an object breaks the rules, and what of it is left out for that.
//!
//! Core. Knows what API servers refuse; does not know when that is logged.

use super::ObjectId;
use crate::name::NameError;

/// An object that breaks the rules: which, and how. If only a part of it does, the rest is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object} left out")]
pub struct Rejected {
    /// The object.
    pub object: ObjectId,
    /// What is wrong with it.
    #[source]
    pub reason: Reason,
}

/// What of an object is left out although the rest of it is taken.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    first: Option<Reason>,
    more: usize,
}

impl LeftOut {
    /// Adds one part that is left out.
    pub fn note(&mut self, reason: Reason) {
        match self.first {
            None => self.first = Some(reason),
            Some(_) => self.more += 1,
        }
    }

    /// Why, or `None` if all of the object is taken.
    pub fn reason(self) -> Option<Reason> {
        let first = self.first?;
        let more = self.more;
        Some(if more == 0 { first } else { Reason::Several { first: Box::new(first), more } })
    }
}

/// How an object breaks the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A field that must be a DNS label or name is none.
    #[error("{field} is no name")]
    Name {
        /// The field's path.
        field: &'static str,
        /// Why.
        source: NameError,
    },
    /// A field that must be an address is not one.
    #[error("{field} has {value:?}, which is not an {family} address")]
    Address {
        /// The field's path.
        field: &'static str,
        /// The beginning of its value.
        value: String,
        /// IP, IPv4 or IPv6.
        family: &'static str,
    },
    /// A field that must be a range of addresses is not one.
    #[error("{field} has {value:?}, which is not a range of addresses")]
    Range {
        /// The field's path.
        field: &'static str,
        /// The beginning of its value.
        value: String,
    },
    /// A port whose name does not fit a label behind the underscore of SRV.
    #[error("port {name:?} has no SRV name: that is one character longer than a label")]
    PortName {
        /// The port's name.
        name: String,
    },
    /// A label value that API servers refuse.
    #[error("the label {label} has more than {max} characters")]
    LongLabelValue {
        /// The label.
        label: &'static str,
        /// How many characters are allowed.
        max: usize,
    },
    /// The name of an object that API servers refuse.
    #[error("metadata.name is not a DNS subdomain of at most {max} characters")]
    ObjectName {
        /// How many characters are allowed.
        max: usize,
    },
    /// Several parts of an object.
    #[error("{first}, and {more} more of its parts are wrong")]
    Several {
        /// What is wrong with the first.
        first: Box<Reason>,
        /// How many more there are.
        more: usize,
    },
    /// A Service that an API server would have given an address.
    #[error("spec.clusterIP is missing: only an API server assigns one, write an address or None")]
    NoClusterIp,
    /// A protocol that is none of TCP, UDP and SCTP.
    #[error("{value:?} is no protocol: TCP, UDP or SCTP")]
    Protocol {
        /// What it says.
        value: String,
    },
    /// A port that does not fit 1 to 65535.
    #[error("{value} is no port number")]
    Port {
        /// What it says.
        value: i64,
    },
    /// A type of ServiceImport that there is not.
    #[error("spec.type has {value:?}, which is neither ClusterSetIP nor Headless")]
    ImportType {
        /// What it says.
        value: String,
    },
    /// An imported EndpointSlice that does not say which cluster it is from.
    #[error("the label multicluster.kubernetes.io/source-cluster is missing")]
    NoCluster,
    /// Labels that make no name together.
    #[error("{label}, its cluster, its service and its namespace have more than {max} bytes")]
    LongNames {
        /// The endpoint's own label.
        label: String,
        /// How many they may have, each with its length byte.
        max: usize,
    },
    /// More of something than is allowed.
    #[error("{count} {what}: at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
}

impl Reason {
    /// That `field` has `text`, which is not an address of that family.
    pub(super) fn address(field: &'static str, text: &str, family: &'static str) -> Self {
        let value = text.chars().take(SHOWN_MAX).collect();
        Self::Address { field, value, family }
    }

    /// That `field` has `text`, which is not a range of addresses.
    pub(super) fn range(field: &'static str, text: &str) -> Self {
        Self::Range { field, value: text.chars().take(SHOWN_MAX).collect() }
    }
}

/// As much of a value is shown in a log.
const SHOWN_MAX: usize = 64;
