//! Federations: names of Services that refer to the same Service in any cluster that has it.
//!
//! Core. Knows `SERVICE.NAMESPACE.FEDERATION.svc.` names; does not know the configuration that
//! lists federations, nor Nodes beyond their locality.

use std::collections::BTreeMap;

use shared::wire::NAME_MAX;

use super::{Entry, Node, Records};
use crate::name::{Labels, Name, push_label};

/// The locality of a Node: `ZONE.REGION.` as a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Locality(pub Name);

/// One federation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Federation {
    /// Its label in wire form.
    pub label: Box<[u8]>,
    /// `ZONE.REGION.DOMAIN.`, if a Node has the locality of this cluster.
    suffix: Option<Name>,
}

/// What a federated name refers to.
#[derive(Clone, Copy, Debug)]
pub enum Federated<'a> {
    /// The Service of this cluster: it has endpoints.
    Here(&'a Entry),
    /// The name outside that begins with these labels, in wire form, and ends so.
    Away(&'a [u8], &'a Name),
    /// A name outside, but no Node has the locality of this cluster.
    Nowhere,
}

impl Federation {
    /// Returns the federations in `domains`, for a cluster at `locality`.
    ///
    /// A federation is left out if its names would not fit for any Service.
    pub fn of(domains: &BTreeMap<String, String>, locality: Option<&Locality>) -> Vec<Self> {
        let federation = |(name, domain): (&String, &String)| {
            let mut label = Vec::with_capacity(name.len() + 1);
            push_label(&mut label, name, |_| false).ok()?;
            let suffix = match locality {
                None => None,
                Some(Locality(place)) => Some(Name::parse(&format!("{place}{domain}")).ok()?),
            };
            Some(Self { label: label.into(), suffix })
        };
        domains.iter().filter_map(federation).collect()
    }
}

impl Records {
    /// Returns the node at a name with `count` labels left of the apex, the last of them `svc`, if
    /// it is not the name of a Service.
    ///
    /// Every Service name that the API allows exists below a federation, because another cluster
    /// may have the Service. So do its ancestors.
    pub(super) fn find_federated<'a>(&'a self, labels: &Labels<'a>, count: usize) -> Node<'a> {
        let Some(at) = count.checked_sub(2).filter(|&at| at <= 2) else { return Node::Missing };
        let label = labels.wire(at, at + 1);
        let federation = self.federations.iter().find(|federation| *federation.label == *label);
        let Some(federation) = federation else { return Node::Missing };
        if !(0..at).all(|index| is_label(labels.label(index))) {
            return Node::Missing;
        }
        match at {
            2 => self.federated(labels, federation).map_or(Node::Missing, Node::Federated),
            _ => Node::Empty,
        }
    }

    /// Labels 0 and 1 are a Service's key. Returns what they refer to, if the name outside is short
    /// enough.
    fn federated<'a>(
        &'a self,
        labels: &Labels<'a>,
        federation: &'a Federation,
    ) -> Option<Federated<'a>> {
        let entry = self.entry(labels.wire(0, 2)).filter(|entry| entry.published() > 0);
        if let Some(entry) = entry {
            return Some(Federated::Here(entry));
        }
        let Some(suffix) = &federation.suffix else { return Some(Federated::Nowhere) };
        let first = labels.wire(0, 4);
        let fits = first.len() + suffix.wire().len() <= NAME_MAX;
        fits.then_some(Federated::Away(first, suffix))
    }
}

/// Returns whether a Namespace or a Service can have this label as its name (RFC 1123; a Service
/// can begin with a digit since KEP-5311).
fn is_label(label: &[u8]) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    edge(label.first()) && edge(label.last()) && label.iter().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_the_api() {
        for label in ["web", "a", "1web", "we-b1"] {
            assert!(is_label(label.as_bytes()), "{label}");
        }
        for label in ["-web", "web-", "_tcp", "*", ""] {
            assert!(!is_label(label.as_bytes()), "{label}");
        }
    }
}
