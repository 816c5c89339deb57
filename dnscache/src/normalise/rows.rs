//! The records of a reply as owned values, which can be changed and written again.
//!
//! Core. For answers that are made or changed by rules.

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use shared::wire::{rcode, rtype};

use super::message::{self, Message, Record};
use super::write::{Placed, write};
use super::{NSEC, NSEC3, RRSIG, Unusable};
use crate::cache::Entry;

/// A reply: the flags of its header, and its records in the order of their sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The response code.
    pub rcode: u16,
    /// AA.
    pub authoritative: bool,
    /// AD.
    pub authentic: bool,
    /// TC.
    pub truncated: bool,
    /// The records.
    pub records: Vec<Row>,
}

/// A record of class IN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// 0 for the answer, 1 for the authority and 2 for the additional section.
    pub section: usize,
    /// The owner name in wire form.
    pub owner: Box<[u8]>,
    /// TYPE.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// RDATA.
    pub data: Data,
}

/// Record data, with its names separated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    head: Box<[u8]>,
    /// The names in wire form. Types newer than RFC 3597 have no names here.
    pub names: Vec<Box<[u8]>>,
    tail: Box<[u8]>,
    compressible: bool,
}

impl Rows {
    /// Parses `message`, a reply with one question.
    ///
    /// Fails if it is malformed.
    pub fn read(message: &[u8]) -> Result<Self, Unusable> {
        let message = Message::decode(message, super::NAME_BYTES_MAX)?;
        let section = |section: usize| move |record: &Record<'_>| Row::of(section, record);
        Ok(Self {
            rcode: message.rcode,
            authoritative: message.authoritative,
            authentic: message.authentic,
            truncated: message.truncated,
            records: message
                .answers()
                .map(section(0))
                .chain(message.authorities().map(section(1)))
                .chain(message.additionals().map(section(2)))
                .collect(),
        })
    }

    /// Returns the records as the answer to the question for `qtype` at `name`, in wire form and
    /// lower case.
    ///
    /// `None` if they do not fit a message.
    pub fn entry(&self, name: &[u8], qtype: u16) -> Option<Entry> {
        let question = parsed(name)?;
        let records: Vec<Record<'_>> =
            self.records.iter().map(Row::record).collect::<Option<_>>()?;
        let placed: Vec<Placed<'_, '_>> = records
            .iter()
            .zip(&self.records)
            .map(|(record, row)| Placed { record, section: row.section, ttl: row.ttl })
            .collect();
        let written = write(&question, qtype, &placed)?;
        let entry = Entry::new(&written.bytes, self.rcode)?;
        let entry = if written.takes_turns { entry } else { entry.in_fixed_order() };
        let entry = entry.with_flags(self.authoritative, self.authentic, self.is_negative());
        Some(if self.truncated { entry.truncated() } else { entry })
    }

    /// Returns whether the reply is an error or has no answer.
    pub fn is_negative(&self) -> bool {
        self.rcode != rcode::NOERROR || self.answers().next().is_none()
    }

    /// Returns the records of the answer section.
    pub fn answers(&self) -> impl Iterator<Item = &Row> {
        self.records.iter().filter(|row| row.section == 0)
    }

    /// Returns the lowest TTL; `None` for a reply without records. The SOA of a denial counts with
    /// at most its MINIMUM.
    pub fn ttl(&self) -> Option<u32> {
        let minimum = |row: &Row| match (row.rtype, row.section, row.data.tail.last_chunk()) {
            (rtype::SOA, 1, Some(minimum)) => row.ttl.min(u32::from_be_bytes(*minimum)),
            _ => row.ttl,
        };
        self.records.iter().map(minimum).min()
    }

    /// Removes the data that is not valid after names have changed: signatures, their denials, and
    /// AD.
    pub fn strip_dnssec(&mut self) {
        self.authentic = false;
        self.records.retain(|row| !matches!(row.rtype, RRSIG | NSEC | NSEC3));
    }
}

impl Data {
    /// Returns the bytes after the names, or all bytes if the data has no names.
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }
}

impl Row {
    /// Returns a record of the answer section. Its `data` must not have names that can be
    /// compressed.
    pub fn new(owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) -> Self {
        let data = Data { tail: data.into(), ..Data::default() };
        Self { section: 0, owner: owner.into(), rtype, ttl, data }
    }

    /// Returns a record of the answer section whose data is the name `target`: CNAME, PTR, NS.
    pub fn pointing(owner: &[u8], rtype: u16, ttl: u32, target: &[u8]) -> Self {
        let data = Data { names: vec![target.into()], compressible: true, ..Data::default() };
        Self { section: 0, owner: owner.into(), rtype, ttl, data }
    }

    fn of(section: usize, record: &Record<'_>) -> Self {
        let data = &record.data;
        Self {
            section,
            owner: wire(&record.owner),
            rtype: record.rtype,
            ttl: record.ttl,
            data: Data {
                head: data.head.into(),
                names: data.names.iter().map(wire).collect(),
                tail: data.tail.into(),
                compressible: data.compressible,
            },
        }
    }

    fn record(&self) -> Option<Record<'_>> {
        let Data { head, names, tail, compressible } = &self.data;
        let data = message::Data {
            head,
            names: names.iter().map(|name| parsed(name)).collect::<Option<_>>()?,
            tail,
            compressible: *compressible,
        };
        Some(Record { owner: parsed(&self.owner)?, rtype: self.rtype, ttl: self.ttl, data })
    }
}

/// Returns `name` in wire form, in its own case.
pub(super) fn wire(name: &Name) -> Box<[u8]> {
    let mut wire = Vec::with_capacity(name.len());
    for label in name.iter() {
        wire.push(label.len() as u8); // a label has at most 63 bytes
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire.into()
}

fn parsed(name: &[u8]) -> Option<Name> {
    Name::read(&mut BinDecoder::new(name)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::name::parse;

    #[test]
    fn rows_are_written_and_read_back() {
        let name = |text: &str| parse(text).unwrap();
        let (alias, target) = (name("a.example"), name("b.example"));
        let mut soa = Row::pointing(&name("example"), rtype::SOA, 60, &name("ns.example"));
        soa.section = 1;
        soa.data.names.push(name("host.example"));
        soa.data.tail = [[0, 0, 0, 1], [0; 4], [0; 4], [0; 4], [0, 0, 0, 9]].concat().into();
        let rows = Rows {
            rcode: 0,
            authoritative: true,
            records: vec![
                Row::pointing(&alias, rtype::CNAME, 30, &target),
                Row::new(&target, rtype::A, 20, &[10, 0, 0, 1]),
                Row::new(&target, rtype::A, 20, &[10, 0, 0, 2]),
                soa,
            ],
            ..Rows::default()
        };
        assert_eq!(rows.ttl(), Some(9));
        let entry = rows.entry(&alias, rtype::A).unwrap();
        assert_eq!((entry.records(), entry.is_negative()), (4, false));
        let question = crate::cache::Question {
            name: &alias,
            qtype: rtype::A,
            qclass: 1,
            dnssec_ok: false,
            checking_disabled: false,
        };
        let message = crate::forward::message_of(&question, &entry).unwrap();
        let mut read = Rows::read(&message).unwrap();
        read.records[1..3].sort_by(|a, b| a.data.tail.cmp(&b.data.tail));
        assert_eq!(read, rows);
    }
}
