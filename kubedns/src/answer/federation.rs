//! Names of federations: a CNAME to the Service here, or to its name outside.
//!
//! Core. Knows where the chain goes on; does not know which of the two is right.

use shared::wire::{ErrorCode, Section, rtype};

use super::{Spot, Writing};
use crate::records::{Federated, Node};

impl Writing<'_, '_> {
    /// CNAME of a federated name, and what it leads to as far as that is ours: whoever asked knows
    /// the way to other zones.
    pub(super) fn federated(&mut self, spot: Spot, federated: Federated<'_>) {
        let services = self.records.zone().services();
        let rdata: [&[u8]; 2] = match federated {
            Federated::Here(entry) => [entry.key(), services],
            Federated::Away(labels, suffix) => [labels, suffix.wire()],
            // Nobody knows yet which name outside it is: no answer is better than a wrong one.
            Federated::Nowhere => return self.give_up(ErrorCode::NotReady, NOWHERE),
        };
        let Some(target_at) = self.push(Section::Answer, spot.at, rtype::CNAME, &rdata) else {
            return self.truncate();
        };
        if matches!(self.query.qtype, rtype::CNAME | rtype::ANY) {
            return;
        }
        if let Federated::Here(entry) = federated {
            let apex = entry.key().len() + SVC_LEN;
            let spot = Spot { at: target_at, apex, is_reverse: false };
            self.end(spot, Node::Service(entry));
        }
    }
}

/// Why a federated name has no answer.
pub(crate) const NOWHERE: &str = "no Node says zone and region: labels topology.kubernetes.io/";
/// The label `svc` with its length.
const SVC_LEN: usize = 4;
