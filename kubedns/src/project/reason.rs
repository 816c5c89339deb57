//! How an object breaks the rules, and which part of it is left out because of that.
//!
//! Core. Knows what API servers refuse; does not know when that is logged.

use super::ObjectId;
use crate::name::NameError;

/// An object that breaks the rules, and how. If only a part of it does, the rest is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object} left out")]
pub struct Rejected {
    /// The object.
    pub object: ObjectId,
    /// How it breaks the rules.
    #[source]
    pub reason: Reason,
}

/// The parts of an object that are left out although the rest of it is used.
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

    /// Returns why parts are left out, if there are any.
    pub fn reason(self) -> Option<Reason> {
        let first = self.first?;
        let more = self.more;
        Some(if more == 0 { first } else { Reason::Several { first: Box::new(first), more } })
    }
}

/// How an object breaks the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A field that must be a DNS label or name is not one.
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
    /// A port whose name, with the underscore of SRV, does not fit a label.
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
        /// The most characters that are allowed.
        max: usize,
    },
    /// The name of an object that API servers refuse.
    #[error("metadata.name is not a DNS subdomain of at most {max} characters")]
    ObjectName {
        /// The most characters that are allowed.
        max: usize,
    },
    /// Several parts of an object.
    #[error("{first}, and {more} more of its parts are wrong")]
    Several {
        /// The reason of the first.
        first: Box<Reason>,
        /// How many more there are.
        more: usize,
    },
    /// A Service that an API server would have given an address.
    #[error("spec.clusterIP is missing: only an API server assigns one, write an address or None")]
    NoClusterIp,
    /// A protocol other than TCP, UDP and SCTP.
    #[error("{value:?} is no protocol: TCP, UDP or SCTP")]
    Protocol {
        /// The value.
        value: String,
    },
    /// A port outside 1 to 65535.
    #[error("{value} is no port number")]
    Port {
        /// The value.
        value: i64,
    },
    /// An unknown type of ServiceImport.
    #[error("spec.type has {value:?}, which is neither ClusterSetIP nor Headless")]
    ImportType {
        /// The value.
        value: String,
    },
    /// An imported EndpointSlice without the cluster that it is from.
    #[error("the label multicluster.kubernetes.io/source-cluster is missing")]
    NoCluster,
    /// Labels that are too long for one name.
    #[error("{label}, its cluster, its service and its namespace have more than {max} bytes")]
    LongNames {
        /// The endpoint's own label.
        label: String,
        /// The most bytes that they can have, each with its length byte.
        max: usize,
    },
    /// More items than are allowed.
    #[error("{count} {what}: at most {max} are allowed")]
    TooMany {
        /// The kind of items.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
}

impl Reason {
    /// Returns the reason that `field` has `text`, which is not an address of that family.
    pub(super) fn address(field: &'static str, text: &str, family: &'static str) -> Self {
        let value = text.chars().take(SHOWN_MAX).collect();
        Self::Address { field, value, family }
    }

    /// Returns the reason that `field` has `text`, which is not a range of addresses.
    pub(super) fn range(field: &'static str, text: &str) -> Self {
        Self::Range { field, value: text.chars().take(SHOWN_MAX).collect() }
    }
}

/// The most characters of a value that are shown in a log.
const SHOWN_MAX: usize = 64;
