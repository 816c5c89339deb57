//! Checks rules of dnscache against other lines of their block.
//!
//! Core. CoreDNS asks kubernetes before zone files. A zone that both have belongs to kubedns.

use super::super::keys::Zone;
use super::super::plugins::{Kubernetes, Server, ZoneFile};
use super::Rows;

/// Refuses rules that need missing lines, or that contradict other lines.
pub fn check(servers: &[Server], rows: &mut Rows) {
    for server in servers {
        let kubernetes = server.kubernetes.as_ref();
        if let Some(autopath) = &server.autopath
            && kubernetes.is_none_or(|it| it.domain.is_none())
        {
            let reason = "the search lists of pods begin with the cluster domain; write kubernetes \
                in the same block, or remove the line";
            rows.refuse(autopath.index, reason);
        }
        for file in &server.files {
            kubernetes.into_iter().for_each(|kubernetes| check_file(file, kubernetes, rows));
        }
    }
}

fn check_file(file: &ZoneFile, kubernetes: &Kubernetes, rows: &mut Rows) {
    for zone in &file.zones {
        let shared = kubernetes.zones().find(|its| overlap(its, zone));
        let Some(its) = shared else { continue };
        let mut fallthrough = kubernetes.fallthrough.iter().flat_map(|(_, zones)| zones);
        if fallthrough.any(|through| overlap(through, its) && overlap(through, zone)) {
            let reason = format!(
                "kubernetes is asked before the file, and leaves names of {its} to it, which \
                 dnscache cannot do; write fallthrough with other zones, or the file in a block of \
                 its own"
            );
            rows.refuse(file.index, reason);
        } else {
            rows.build_in(file.index, format!("names of {its} are answered by kubernetes"));
        }
    }
}

/// Returns whether one of the two is within the other.
fn overlap(one: &Zone, other: &Zone) -> bool {
    one.is_within(other) || other.is_within(one)
}
