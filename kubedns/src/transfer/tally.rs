//! How many records of each type there are: what a transfer would hold, counted without making it.
//!
//! Core. Goes through the same Services, endpoints and addresses as the rows beside it; a property
//! test holds the two together.

use std::net::IpAddr;

use super::services::port_sets;
use crate::records::{Among, Entry, Group, PodMode, Records, Service, Shape};

/// How many Services there are of each kind, and how many records of each type follow from the
/// objects: all but those of the zones themselves.
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
    /// CNAME; one made up for a federation is none.
    pub cname: usize,
    /// PTR.
    pub ptr: usize,
    /// SRV.
    pub srv: usize,
}

impl Tally {
    /// Counts what `records` hold. What it costs grows with the cluster: tens of milliseconds for
    /// the largest.
    pub fn of(records: &Records) -> Self {
        let mut tally = Self::default();
        tally.add_services(records);
        if let Some(clusterset) = records.clusterset() {
            let mut imported = Self::default();
            imported.add_services(clusterset);
            tally.clusterset_ip = imported.cluster_ip;
            tally.clusterset_headless = imported.headless;
            tally.a += imported.a;
            tally.aaaa += imported.aaaa;
            tally.srv += imported.srv;
        }
        if records.zone().pods == PodMode::Verified {
            records.pod_addresses().for_each(|(_, address)| tally.add_address(address));
        }
        for v6 in [false, true] {
            let claims = records.named_addresses(v6).map(|address| records.claims(address).count());
            tally.ptr += claims.sum::<usize>();
        }
        tally
    }

    fn add_services(&mut self, records: &Records) {
        for entry in records.entries() {
            if let Some(service) = entry.service() {
                self.add_service(records, entry, service);
            }
        }
    }

    fn add_service(&mut self, records: &Records, entry: &Entry, service: &Service) {
        let exists = entry.exists(records.zone());
        match &service.shape {
            Shape::ExternalName(_) => {
                self.external_name += 1;
                self.cname += 1;
                return;
            }
            Shape::ClusterIp(addresses) => {
                self.cluster_ip += 1;
                if exists {
                    addresses.iter().for_each(|&address| self.add_address(address));
                }
            }
            Shape::Headless => {
                self.headless += 1;
                let all = [false, true].map(|v6| entry.addresses(v6, Among::All, |_| 0));
                all.into_iter().flatten().for_each(|place| self.add_address(place.address()));
            }
        }
        if !exists {
            return;
        }
        let sets = |group: Group<'_>| group.labels() as usize * port_sets(group.ports()).len();
        self.srv += match entry.is_headless() {
            true => entry.groups(Among::All).map(sets).sum(),
            false => port_sets(std::iter::once(&service.ports)).len(),
        };
        entry.distinct().for_each(|place| self.add_address(place.address()));
    }

    fn add_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(_) => self.a += 1,
            IpAddr::V6(_) => self.aaaa += 1,
        }
    }
}
