//! Why a question is answered as it is: the object of each record, or the first ancestor of the
//! name that does not exist.
//!
//! Core. Reads the same records as `answer`. It can allocate freely, because it serves people and
//! not DNS clients. Knows no HTTP.

mod federation;
mod missing;
mod rows;

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use shared::mnemonics::type_name;
use shared::name::bare;
use shared::wire::{Transport, rtype};

use crate::answer::{Pattern, Search};
use crate::name::Name;
use crate::records::{Node, Records, TYPES};
use crate::skydns::{Host, MANY};

use rows::{ROWS_MAX, Rows};

/// An answer with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The name in the question, in lower case.
    pub name: String,
    /// The type.
    pub r#type: String,
    /// `NOERROR`, `NODATA`, `NXDOMAIN`, `REFUSED` or `SERVFAIL`.
    pub status: &'static str,
    /// Why, in one sentence.
    pub reason: String,
    /// The answer section, in master-file form.
    pub records: Vec<Explained>,
    /// How many more records exist that are not shown because the list is full.
    pub omitted: usize,
    /// The generation of the records.
    pub generation: u64,
    /// TTL of the records.
    #[serde(skip)]
    ttl_secs: u32,
}

/// One record and the object it is derived from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The record, in master-file form.
    pub record: String,
    /// The object it is derived from: kind, namespace and name.
    pub object: String,
}

/// Explains how `records` answer a question of `qtype` about `name`.
pub fn explain(records: &Records, name: &Name, qtype: u16) -> Explanation {
    let mut explanation = Explanation {
        name: name.to_string(),
        r#type: type_name(qtype).into_owned(),
        status: "NOERROR",
        reason: String::new(),
        records: Vec::new(),
        omitted: 0,
        generation: records.generation(),
        ttl_secs: records.find(name.wire()).map_or(records, |found| found.records).ttl_secs(),
    };
    if records.find(name.wire()).is_none() {
        explanation.status = "REFUSED";
        explanation.reason = match shared::reverse::parse(name.wire()) {
            Some(_) => format!(
                "{name} is not about addresses of the cluster, which are {}: dnscache asks others",
                records.ranges()
            ),
            None => format!(
                "{name} is neither below {} nor about an address of the cluster: dnscache asks \
                 others",
                records.zone().apex()
            ),
        };
    } else if matches!(qtype, rtype::AXFR | rtype::IXFR) {
        explanation.status = "REFUSED";
        explanation.reason =
            "a zone is transferred over TCP, to the addresses of --transfer".to_owned();
    } else {
        follow(records, name, qtype, &mut explanation);
    }
    explanation
}

/// Follows the chain of aliases to its end.
fn follow(records: &Records, name: &Name, qtype: u16, explanation: &mut Explanation) {
    let mut name = name;
    for _ in 0..crate::answer::CHAIN_MAX {
        let Some(found) = records.find(name.wire()) else {
            explanation.reason = format!("{name} is in another zone: dnscache asks for it");
            return;
        };
        if !found.records.is_complete() {
            explanation.status = "SERVFAIL";
            explanation.reason = "the cluster has not been listed completely yet".to_owned();
            explanation.records.clear();
            return;
        }
        let node = found.node_for(qtype);
        if let Some(row) = node.key_alias(qtype, 0).filter(|row| !row.is_at(name.wire())) {
            explanation.extend(name, rows::at(found.records, node, rtype::CNAME));
            let Host::Name(target) = &row.message.host else { return };
            name = target;
            continue;
        }
        if let Ok(Some(place)) = found.records.wild_place(name.wire(), &found, MANY) {
            explanation.ttl_secs = 0;
            return end(found.records, name, Node::Key(&place), qtype, explanation);
        }
        let pattern = Pattern::of(name.wire(), &found);
        let pattern = pattern.filter(|_| explanation.records.is_empty());
        let alias = pattern.and_then(|pattern| pattern.alias(Transport::Tcp));
        if let Some(pattern) = pattern {
            explanation.ttl_secs = 0;
            if alias.is_none() {
                return wild(found.records, name, &pattern, qtype, explanation);
            }
        }
        let Node::Alias(entry, target) = alias.unwrap_or(found.node) else {
            return end(found.records, name, node, qtype, explanation);
        };
        let alias = Node::Alias(entry, target);
        explanation.extend(name, rows::at(found.records, alias, rtype::CNAME));
        if matches!(qtype, rtype::CNAME | rtype::ANY) {
            let object = rows::service(found.records.zone(), entry);
            explanation.reason = format!("{object} is an alias");
            return;
        }
        name = target;
    }
    explanation.status = "SERVFAIL";
    explanation.reason = "a chain of ExternalName Services has no end".to_owned();
    explanation.records.clear();
}

/// Explains the name at the end of the chain.
fn end(records: &Records, name: &Name, node: Node<'_>, qtype: u16, explanation: &mut Explanation) {
    if let Node::Federated(federated) = node {
        return federation::explain(records, name, federated, qtype, explanation);
    }
    let at = |qtype| rows::at(records, node, qtype);
    let rows = match qtype {
        rtype::ANY => TYPES.into_iter().map(at).find(|rows| !rows.rows.is_empty()),
        qtype => Some(at(qtype)),
    };
    let rows = rows.unwrap_or_default();
    if !rows.rows.is_empty() {
        explanation.reason = match node {
            Node::Pod(_, verified) if !verified => "pod names are not verified".to_owned(),
            _ => format!("{name} owns records of that type"),
        };
        explanation.extend(name, rows);
        return;
    }
    let is_alias = !explanation.records.is_empty();
    if matches!(node, Node::Missing) {
        explanation.status = "NXDOMAIN";
        explanation.reason = missing::why(records, name);
        return;
    }
    explanation.status = if is_alias { "NOERROR" } else { "NODATA" };
    let owned = TYPES.into_iter().filter(|&qtype| !at(qtype).rows.is_empty());
    let types: Vec<_> = owned.map(type_name).collect();
    explanation.reason = match (&types[..], node) {
        ([], Node::Zonal(entry, zone)) => {
            let object = rows::service(records.zone(), entry);
            format!("no published endpoint of {object} is in the topology zone {}", bare(zone))
        }
        ([], _) => format!("{name} owns nothing; names below it do, or may"),
        _ => format!("{name} owns records of other types: {}", types.join(", ")),
    };
}

/// Explains a name with wild labels.
fn wild(
    records: &Records,
    name: &Name,
    pattern: &Pattern<'_>,
    qtype: u16,
    explanation: &mut Explanation,
) {
    let mut nodes = Vec::new();
    let search = pattern.visit(Transport::Tcp, |node| {
        nodes.push(node);
        true
    });
    if search == Search::Cut {
        explanation.status = "SERVFAIL";
        explanation.reason = "there are more Services than a wildcard may look at".to_owned();
        return;
    }
    let at = |qtype| {
        let (mut seen, mut all) = (BTreeSet::new(), Rows::default());
        for &node in &nodes {
            let Rows { rows, more, .. } = rows::at(records, node, qtype);
            all.rows.extend(rows.into_iter().filter(|(rdata, _)| seen.insert(rdata.clone())));
            all.more += more + all.rows.len().saturating_sub(ROWS_MAX);
            all.rows.truncate(ROWS_MAX);
        }
        all
    };
    let rows = Pattern::types(qtype).map(at).find(|rows| !rows.rows.is_empty());
    explanation.extend(name, rows.unwrap_or_default());
    explanation.reason = format!("{} names match the wildcard", nodes.len());
    explanation.status = match (nodes.len(), explanation.records.len()) {
        (0, _) => "NXDOMAIN",
        (_, 0) => "NODATA",
        _ => "NOERROR",
    };
}

impl Explanation {
    fn extend(&mut self, name: &Name, Rows { rows, more, ttl_secs }: Rows) {
        let ttl_secs = ttl_secs.filter(|_| self.ttl_secs > 0).unwrap_or(self.ttl_secs);
        self.records.extend(rows.into_iter().map(|(rdata, object)| Explained {
            record: format!("{name} {ttl_secs} IN {rdata}"),
            object,
        }));
        self.omitted += more;
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}: {}", self.name, self.r#type, self.status)?;
        writeln!(f, "{}", self.reason)?;
        for Explained { record, object } in &self.records {
            writeln!(f, "  {record}\n    from {object}")?;
        }
        match self.omitted {
            0 => Ok(()),
            omitted => writeln!(f, "  {omitted} more records are not shown"),
        }
    }
}
