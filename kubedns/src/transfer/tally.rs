//! How many records of each type there are: the records of a transfer, counted without being
//! written.
//!
//! Core. Does not know which records a name has.

use shared::wire::rtype;

use super::{Apex, zone};
use crate::records::{Node, Record, Records, Shape, TYPES, Walk};

/// How many Services of each kind there are, and how many records of each type are derived from the
/// objects: all except those of the zones themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Services with cluster IPs.
    pub cluster_ip: usize,
    /// Headless Services.
    pub headless: usize,
    /// ExternalName Services.
    pub external_name: usize,
    /// ServiceImports with clusterset IPs.
    pub clusterset_ip: usize,
    /// Headless ServiceImports.
    pub clusterset_headless: usize,
    /// A.
    pub a: usize,
    /// AAAA.
    pub aaaa: usize,
    /// CNAME, without those of federated names.
    pub cname: usize,
    /// PTR.
    pub ptr: usize,
    /// SRV.
    pub srv: usize,
}

impl Tally {
    /// Counts the records in `records`. The cost grows with the cluster: tens of milliseconds for
    /// the largest.
    pub fn of(records: &Records) -> Self {
        let mut tally = Self::default();
        [tally.cluster_ip, tally.headless, tally.external_name] = shapes(records);
        if let Some(clusterset) = records.clusterset() {
            [tally.clusterset_ip, tally.clusterset_headless, _] = shapes(clusterset);
        }
        for apex in Apex::all(records) {
            let zone = apex.zone(records).filter(|zone| !zone.zone().is_keyed());
            let Some(zone) = zone else { continue };
            let walk = Walk::whole(zone);
            let is_own = |node: &Node<'_>| matches!(node, Node::NameServer);
            for (_, node) in zone::names(records, apex).filter(|(_, node)| !is_own(node)) {
                for rtype in TYPES {
                    walk.rrset(&node, rtype, &mut |record| tally.add(&record));
                }
            }
        }
        tally
    }

    /// Counts `record`.
    fn add(&mut self, record: &Record<'_>) -> bool {
        let count = match record.rtype {
            rtype::A => &mut self.a,
            rtype::AAAA => &mut self.aaaa,
            rtype::CNAME => &mut self.cname,
            rtype::PTR => &mut self.ptr,
            rtype::SRV => &mut self.srv,
            _ => return true,
        };
        *count += 1;
        true
    }
}

/// Returns how many Services have cluster IPs, are headless, and are aliases.
fn shapes(records: &Records) -> [usize; 3] {
    let mut counts = [0; 3];
    for service in records.entries().filter_map(|entry| entry.service()) {
        let shape = match service.shape {
            Shape::ClusterIp(_) => 0,
            Shape::Headless => 1,
            Shape::ExternalName(_) => 2,
        };
        counts[shape] += 1;
    }
    counts
}
