//! The zones as transferred: all records of a snapshot as text.

use std::collections::BTreeSet;

use kubedns::name::Name;
use kubedns::records::Records;
use kubedns::transfer::{Apex, MESSAGE_LEN, Tally, fill, records};
use shared::wire::{NameBuffer, Query, Reply, Transport};

use super::read;

/// Returns every record of the zones, except those of the apexes and the version. `domains` has
/// that of the cluster and, if there is one, that of the clusterset. Panics if a record occurs
/// twice, if a name is not valid, or if a zone does not begin and end with its SOA.
pub fn everything(snapshot: &Records, domains: &[&str]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut zones = vec![("in-addr.arpa", Apex::V4), ("ip6.arpa", Apex::V6)];
    zones.extend(domains.iter().copied().zip([Apex::Cluster, Apex::Clusterset]));
    for (name, apex) in zones {
        let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(Name::parse(name).expect("a name").wire());
        message.extend([0, 252, 0, 1]);
        let mut soas = 0;
        let mut rows = records(snapshot, apex).peekable();
        while rows.peek().is_some() {
            let mut name_buffer = NameBuffer::new();
            let query = Query::screen(&message, Transport::Tcp, &mut name_buffer).expect("a query");
            let mut buffer = vec![0; SMALL_LEN];
            let mut reply = Reply::new(&query, &mut buffer);
            assert!(fill(&mut reply, &mut rows) > 0, "a record fits a message");
            let length = reply.finish();
            let (_, texts) = read_without_soa(&buffer[..length], &mut soas);
            for text in texts {
                let is_own = [" 2 ", " 16 "].iter().any(|rtype| text.contains(rtype));
                assert!(is_own || all.insert(text.clone()), "{text} stands there twice");
            }
        }
        assert_eq!(soas, 2, "{name}");
    }
    all
}

/// Returns how many of `all` have the types A, AAAA, CNAME, PTR and SRV.
pub fn tally(all: &BTreeSet<String>) -> [usize; 5] {
    ["1", "28", "5", "12", "33"].map(|rtype| {
        let of_type = |text: &&String| text.split(' ').nth(1) == Some(rtype);
        all.iter().filter(of_type).count()
    })
}

/// Returns the same numbers, as kubedns counts them without making the records.
pub fn counted(snapshot: &Records) -> [usize; 5] {
    let Tally { a, aaaa, cname, ptr, srv, .. } = Tally::of(snapshot);
    [a, aaaa, cname, ptr, srv]
}

/// Reads a reply as [`read`] does, and counts and removes SOA records. A short zone has both in one
/// message.
fn read_without_soa(reply: &[u8], soas: &mut usize) -> (u16, BTreeSet<String>) {
    let mut at = super::name(reply, 12).1 + 4;
    let mut kept = reply[..at].to_vec();
    let mut count = 0_u16;
    for _ in 0..u16::from_be_bytes([reply[6], reply[7]]) {
        let (owner, fixed) = super::name(reply, at);
        let rtype = u16::from_be_bytes([reply[fixed], reply[fixed + 1]]);
        let end =
            fixed + 10 + usize::from(u16::from_be_bytes([reply[fixed + 8], reply[fixed + 9]]));
        if rtype == SOA {
            *soas += 1;
        } else {
            // Names are written in full, because removed records move the rest.
            kept.extend_from_slice(Name::parse(&owner).expect("a name").wire());
            kept.extend_from_slice(&reply[fixed..end]);
            count += 1;
        }
        at = end;
    }
    assert!(reply.len() <= MESSAGE_LEN);
    kept[6..8].copy_from_slice(&count.to_be_bytes());
    read(&kept)
}

const SOA: u16 = 6;
/// A size so small that the zones of the model need several messages.
const SMALL_LEN: usize = 512;
