//! Federations: names of Services that stand for the same Service in whichever cluster has it.
//!
//! Core. Knows `SERVICE.NAMESPACE.FEDERATION.svc.` names; does not know where federations are
//! configured, nor Nodes beyond where they are.

use std::collections::BTreeMap;

use shared::wire::NAME_MAX;

use super::{Entry, Node, Records};
use crate::name::{Labels, Name, push_label};

/// Where a Node is: `ZONE.REGION.` as a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Locality(pub Name);

/// One federation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Federation {
    /// Its label in wire form.
    pub label: Box<[u8]>,
    /// `ZONE.REGION.DOMAIN.`; nothing as long as no Node says where this cluster is.
    suffix: Option<Name>,
}

/// What a federated name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Federated<'a> {
    /// The Service of this cluster: it has endpoints.
    Here(&'a Entry),
    /// The name outside that begins with these labels, in wire form, and ends so.
    Away(&'a [u8], &'a Name),
    /// A name outside, but no Node says where this cluster is.
    Nowhere,
}

impl Federation {
    /// Those that `domains` names, for a cluster that is at `locality`.
    ///
    /// One whose names would not fit behind any Service has none.
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
    /// What stands at a name of which `count` labels, the last of them `svc`, are left of the apex,
    /// where no Service stands there.
    ///
    /// Every Service's name exists below a federation, as far as the API allows it: other clusters
    /// may have it. So do its ancestors.
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

    /// Labels 0 and 1 are a Service's key. Nothing where the name outside would be too long.
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

/// Whether a Namespace or a Service can be called so (RFC 1123; a Service that begins with a digit
/// since KEP-5311).
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
