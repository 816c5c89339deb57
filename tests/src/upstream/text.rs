//! Records as text: `name TTL TYPE data`, as in a zone file.
//!
//! Core. Only tests and tools use it, so it panics if a text is wrong.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, NULL, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Parses the record in `text`. Panics if it is not a record of a supported type.
pub fn record(text: &str) -> Record {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [owner, ttl, rtype, data @ ..] = &words[..] else {
        panic!("{text:?} is not `name TTL TYPE data`")
    };
    let address: Result<IpAddr, _> = data[0].parse();
    let number = |at: usize| data[at].parse().expect("a number of 16 bits");
    let data = match (*rtype, address) {
        ("A", Ok(IpAddr::V4(address))) => RData::A(A(address)),
        ("AAAA", Ok(IpAddr::V6(address))) => RData::AAAA(AAAA(address)),
        ("CNAME", _) => RData::CNAME(CNAME(name(data[0]))),
        ("PTR", _) => RData::PTR(PTR(name(data[0]))),
        ("SOA", _) => {
            let [.., serial, refresh, retry, expire, minimum] = data else {
                panic!("{text:?} lacks numbers")
            };
            let number = |text: &&str| text.parse().expect("a number of 32 bits");
            let secs = |text: &&str| text.parse().expect("a number of 31 bits");
            let [refresh, retry, expire] = [refresh, retry, expire].map(secs);
            let (master, mailbox) = (name(data[0]), name(data[1]));
            let (serial, minimum) = (number(serial), number(minimum));
            RData::SOA(SOA::new(master, mailbox, serial, refresh, retry, expire, minimum))
        }
        ("NS", _) => RData::NS(NS(name(data[0]))),
        ("MX", _) => RData::MX(MX::new(number(0), name(data[1]))),
        ("SRV", _) => RData::SRV(SRV::new(number(0), number(1), number(2), name(data[3]))),
        ("DNAME", _) => {
            let rdata = NULL::with(wire(data[0]));
            RData::Unknown { code: RecordType::DNAME, rdata }
        }
        ("TXT", _) => RData::TXT(TXT::new(data.iter().map(|&word| word.to_owned()).collect())),
        _ => panic!("{text:?} has a type or address that is not known here"),
    };
    Record::from_rdata(name(owner), ttl.parse().expect("a TTL"), data)
}

/// Returns a SOA of `example.`, by which a denial can be cached for `ttl` seconds.
pub fn soa(ttl: u32) -> Record {
    let soa = SOA::new(name("ns.example."), name("mail.example."), 1, 60, 60, 60, ttl);
    Record::from_rdata(name("example."), ttl, RData::SOA(soa))
}

/// Parses the name in `text`. Panics if it is not a valid name.
pub fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap_or_else(|error| panic!("{text:?} is not a name: {error}"))
}

/// Returns `text`, a name, in wire form without compression.
fn wire(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let label = |label: &str| [&[label.len() as u8][..], label.as_bytes()].concat();
    labels.flat_map(label).chain([0]).collect()
}
