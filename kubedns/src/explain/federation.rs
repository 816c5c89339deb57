//! What a name of a federation stands for, and why.
//!
//! Core. Says what `answer` writes.

use shared::wire::rtype;

use super::{Explanation, end, rows};
use crate::answer::NOWHERE;
use crate::name::{Name, Text};
use crate::records::{Federated, Node, Records};

/// Explains the federated name `name`.
pub(super) fn explain(
    records: &Records,
    name: &Name,
    federated: Federated<'_>,
    qtype: u16,
    explanation: &mut Explanation,
) {
    match federated {
        Federated::Here(entry) => {
            let services = Text(records.zone().services());
            let target = format!("{}{services}", Text(entry.key()));
            let object = rows::service(records, entry);
            explanation.reason = format!("{object} of this cluster has endpoints");
            explanation.push(name, (format!("CNAME {target}"), object));
            let is_asked = matches!(qtype, rtype::CNAME | rtype::ANY);
            if let (false, Ok(target)) = (is_asked, Name::parse(&target)) {
                end(records, &target, Node::Service(entry), qtype, explanation);
            }
        }
        Federated::Away(labels, suffix) => {
            let target = format!("CNAME {}{suffix}", Text(labels));
            explanation.push(name, (target, "the key federations, and Nodes".to_owned()));
            explanation.reason = "this cluster has no endpoints for it: another may".to_owned();
        }
        Federated::Nowhere => {
            explanation.status = "SERVFAIL";
            explanation.reason = NOWHERE.to_owned();
            explanation.records.clear();
        }
    }
}
