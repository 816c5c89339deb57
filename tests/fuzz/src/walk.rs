//! A strict parser of messages by RFC 1035, which checks the output of the programs.
//!
//! It panics if the message is not valid: pointers must point back, records must fit, and the
//! counts must be correct.

use shared::wire::rtype;

/// The records of a message.
pub struct Walked {
    /// In the order of the message.
    pub records: Vec<Record>,
}

/// One record, its owner in lower case without compression.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    section: usize,
    owner: Vec<u8>,
    rtype: u16,
    class: u16,
    /// The TTL as written.
    pub ttl: u32,
    rdata: Vec<u8>,
}

impl Record {
    /// Returns whether it is the OPT record.
    pub fn is_opt(&self) -> bool {
        self.rtype == rtype::OPT
    }

    /// Returns all fields except the TTL.
    pub fn without_ttl(&self) -> impl PartialEq + std::fmt::Debug + '_ {
        (self.section, &self.owner, self.rtype, self.class, &self.rdata)
    }
}

impl Walked {
    /// Returns the records of the answer section.
    pub fn answers(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.section == 0)
    }
}

/// Parses `message` to its last byte.
pub fn message(message: &[u8]) -> Walked {
    let number = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    let mut at = 12;
    for _ in 0..number(4) {
        at = name(message, at).1 + 4;
    }
    let mut records = Vec::new();
    for section in 0..3 {
        for _ in 0..number(6 + 2 * section) {
            let (owner, fixed) = name(message, at);
            at = fixed + 10 + usize::from(number(fixed + 8));
            records.push(Record {
                section,
                owner,
                rtype: number(fixed),
                class: number(fixed + 2),
                ttl: u32::from(number(fixed + 4)) << 16 | u32::from(number(fixed + 6)),
                rdata: message[fixed + 10..at].to_vec(),
            });
        }
    }
    assert_eq!(at, message.len(), "bytes behind the last record");
    Walked { records }
}

/// Returns the name at `start`, and the offset after it.
fn name(message: &[u8], start: usize) -> (Vec<u8>, usize) {
    let (mut name, mut at, mut end) = (Vec::new(), start, None);
    loop {
        let length = usize::from(message[at]);
        match length {
            0 => break,
            1..64 => {
                name.extend(message[at..=at + length].iter().map(u8::to_ascii_lowercase));
                at += 1 + length;
            }
            _ => {
                assert!(length >= 0xc0, "neither a label nor a pointer");
                let target = (length & 0x3f) << 8 | usize::from(message[at + 1]);
                assert!(target < at, "a pointer leads back");
                end = end.or(Some(at + 2));
                at = target;
            }
        }
        assert!(name.len() < 255, "a name of {} bytes", name.len());
    }
    (name, end.unwrap_or(at + 1))
}
