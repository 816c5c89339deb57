//! What a name of a federation refers to, and why.
//!
//! Core. Describes what `answer` writes.

use shared::wire::rtype;

use super::{Explanation, end, rows};
use crate::answer::NOWHERE;
use crate::name::Name;
use crate::records::{Federated, Node, Records};
use shared::name::Text;

/// Explains the federated name `name`.
pub(super) fn explain(
    records: &Records,
    name: &Name,
    federated: Federated<'_>,
    qtype: u16,
    explanation: &mut Explanation,
) {
    if let Federated::Nowhere = federated {
        explanation.status = "SERVFAIL";
        explanation.reason = NOWHERE.to_owned();
        explanation.records.clear();
        return;
    }
    explanation.extend(name, rows::at(records, Node::Federated(federated), rtype::CNAME));
    let Federated::Here(entry) = federated else {
        explanation.reason = "this cluster has no endpoints for it: another may".to_owned();
        return;
    };
    let object = rows::service(records.zone(), entry);
    explanation.reason = format!("{object} of this cluster has endpoints");
    let target = format!("{}{}", Text(entry.key()), Text(records.zone().services()));
    let is_asked = matches!(qtype, rtype::CNAME | rtype::ANY);
    if let (false, Ok(target)) = (is_asked, Name::parse(&target)) {
        end(records, &target, Node::Service(entry), qtype, explanation);
    }
}
