//! Parses the records of a reply.
//!
//! Core. Names are read by hickory-proto. Record data is copied byte for byte (RFC 3597), except
//! for names in data of types that are old enough to be compressed. Drops only OPT and signatures
//! of the message itself, and does not decide which records can be trusted.

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};
use shared::wire::{HEADER_LEN, class, name_end, rtype};

use super::Unusable;

/// A parsed reply.
#[derive(Debug)]
pub(super) struct Message<'m> {
    /// The ID.
    pub id: u16,
    /// The response code, its upper bits from OPT.
    pub rcode: u16,
    /// AA.
    pub authoritative: bool,
    /// AD.
    pub authentic: bool,
    /// TC: the answer does not fit a message.
    pub truncated: bool,
    /// RA.
    pub recursive: bool,
    /// Whether its count of answers is not zero.
    pub has_answers: bool,
    records: Vec<Record<'m>>,
    counts: [usize; 2],
}

/// A record of class IN.
#[derive(Clone, Debug)]
pub(super) struct Record<'m> {
    pub owner: Name,
    pub rtype: u16,
    /// The TTL as sent.
    pub ttl: u32,
    pub data: Data<'m>,
}

/// Record data, split into its names and the bytes around them.
#[derive(Clone, Debug)]
pub(super) struct Data<'m> {
    pub head: &'m [u8],
    pub names: Vec<Name>,
    pub tail: &'m [u8],
    /// Whether the names can be compressed when written.
    pub compressible: bool,
}

impl<'m> Message<'m> {
    /// Parses `reply`.
    ///
    /// Fails if a record or a name in it is cut off, loops or is too long, if an address has the
    /// wrong length, if the counts exceed what can be there, or if its names take more than
    /// `name_bytes_max` bytes when they are written out.
    pub fn decode(reply: &'m [u8], name_bytes_max: usize) -> Result<Self, Unusable> {
        let question_end = name_end(reply, HEADER_LEN).ok_or(Unusable::Malformed)? + 4;
        let count = |at: usize| usize::from(u16::from_be_bytes([reply[at], reply[at + 1]]));
        let [questions, answers, authorities, additionals] = [4, 6, 8, 10].map(count);
        let total = answers + authorities + additionals;
        // A record takes at least eleven bytes.
        if questions != 1 || question_end + total * 11 > reply.len() {
            return Err(Unusable::Malformed);
        }
        let mut message = Self {
            id: u16::from_be_bytes([reply[0], reply[1]]),
            rcode: u16::from(reply[3] & 0x0f),
            authoritative: reply[2] & 0x04 != 0,
            authentic: reply[3] & 0x20 != 0,
            truncated: reply[2] & 0x02 != 0,
            recursive: reply[3] & 0x80 != 0,
            has_answers: answers > 0,
            records: Vec::with_capacity(total),
            counts: [0; 2],
        };
        let mut decoder = BinDecoder::new(reply).clone(question_end as u16);
        let mut name_bytes = 0;
        for index in 0..total {
            let section =
                usize::from(index >= answers) + usize::from(index >= answers + authorities);
            let read = message.read(&mut decoder, section);
            name_bytes += read.map_err(|_| Unusable::Malformed)?;
            if name_bytes > name_bytes_max {
                return Err(Unusable::Malformed);
            }
        }
        Ok(message)
    }

    /// Reads one record. Returns the bytes of its names, written out, which bound the cost of
    /// parsing.
    fn read(&mut self, decoder: &mut BinDecoder<'m>, section: usize) -> Result<usize, DecodeError> {
        let owner = Name::read(decoder)?;
        let mut name_bytes = owner.len();
        let rtype = decoder.read_u16()?.unverified();
        let rclass = decoder.read_u16()?.unverified();
        let ttl = decoder.read_u32()?.unverified();
        let len = usize::from(decoder.read_u16()?.unverified());
        let start = decoder.index();
        let rdata = decoder.read_slice(len)?.unverified();
        match rtype {
            rtype::OPT => self.rcode |= (ttl >> 24 << 4) as u16,
            TSIG => {}
            // A record of another class was not asked for.
            _ if rclass != class::IN => {}
            _ => {
                let data = Data::read(rtype, rdata, &mut decoder.clone(start as u16))?;
                name_bytes += data.names.iter().map(Name::len).sum::<usize>();
                self.records.push(Record { owner, rtype, ttl, data });
                self.counts[section.min(1)] += usize::from(section < 2);
            }
        }
        Ok(name_bytes)
    }

    pub fn answers(&self) -> impl Iterator<Item = &Record<'m>> {
        self.records[..self.counts[0]].iter()
    }

    pub fn authorities(&self) -> impl Iterator<Item = &Record<'m>> {
        self.records[self.counts[0]..self.counts[0] + self.counts[1]].iter()
    }

    pub fn additionals(&self) -> impl Iterator<Item = &Record<'m>> {
        self.records[self.counts[0] + self.counts[1]..].iter()
    }
}

impl Record<'_> {
    /// Returns a CNAME record.
    pub fn alias(owner: Name, ttl: u32, target: Name) -> Self {
        let data = Data { head: &[], names: vec![target], tail: &[], compressible: true };
        Self { owner, rtype: rtype::CNAME, ttl, data }
    }

    /// Returns whether it is the signature of records of `rtype`.
    pub fn covers(&self, rtype: u16) -> bool {
        self.rtype == super::RRSIG && self.data.tail.get(..2) == Some(&rtype.to_be_bytes())
    }

    /// Returns the first name in its data.
    pub fn target(&self) -> Option<&Name> {
        self.data.names.first()
    }

    /// Returns MINIMUM of an SOA.
    pub fn minimum(&self) -> Option<u32> {
        self.data.tail.last_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

impl<'m> Data<'m> {
    /// Parses `rdata`; `decoder` must be at its first byte.
    fn read(
        rtype: u16,
        rdata: &'m [u8],
        decoder: &mut BinDecoder<'m>,
    ) -> Result<Self, DecodeError> {
        let whole = Self { head: &[], names: Vec::new(), tail: rdata, compressible: false };
        if let (rtype::A, 4) | (rtype::AAAA, 16) = (rtype, rdata.len()) {
            return Ok(whole);
        }
        if matches!(rtype, rtype::A | rtype::AAAA) {
            return Err(DecodeError::InsufficientBytes);
        }
        let Some(layout) = Layout::of(rtype, rdata) else { return Ok(whole) };
        let end = decoder.index() + rdata.len();
        let head = decoder.read_slice(layout.head_len)?.unverified();
        let mut names = Vec::with_capacity(layout.names);
        for _ in 0..layout.names {
            names.push(Name::read(decoder)?);
        }
        // The decoder can read past the data, but a name must not.
        let left = end.checked_sub(decoder.index()).ok_or(DecodeError::InsufficientBytes)?;
        if layout.tail_len.is_some_and(|len| len != left) {
            return Err(DecodeError::InsufficientBytes);
        }
        let tail = &rdata[rdata.len() - left..];
        Ok(Self { head, names, tail, compressible: layout.compressible })
    }
}

/// The positions of names in record data.
struct Layout {
    head_len: usize,
    names: usize,
    /// Bytes after the names; `None` if the number varies.
    tail_len: Option<usize>,
    /// Whether they can be compressed when written, which holds only for types of RFC 1035 (RFC
    /// 3597 section 4).
    compressible: bool,
}

impl Layout {
    /// Returns the layout of types in whose data senders have compressed names (RFC 3597 section
    /// 4). All other data is opaque.
    fn of(rtype: u16, rdata: &[u8]) -> Option<Self> {
        let layout = |head_len, names, tail_len, compressible| {
            Some(Self { head_len, names, tail_len, compressible })
        };
        match rtype {
            // NS, MD, MF, CNAME, MB, MG, MR, PTR; SOA; MINFO; MX.
            2..=5 | 7..=9 | 12 => layout(0, 1, Some(0), true),
            6 => layout(0, 2, Some(20), true),
            14 => layout(0, 2, Some(0), true),
            15 => layout(2, 1, Some(0), true),
            // RP; AFSDB, RT, KX; SIG; PX; NXT; SRV; DNAME.
            17 => layout(0, 2, Some(0), false),
            18 | 21 | 36 => layout(2, 1, Some(0), false),
            24 => layout(18, 1, None, false),
            26 => layout(2, 2, Some(0), false),
            30 => layout(0, 1, None, false),
            33 => layout(6, 1, Some(0), false),
            39 => layout(0, 1, Some(0), false),
            // NAPTR: two numbers, three texts, a name.
            35 => {
                let text = |at: usize| at + 1 + usize::from(rdata.get(at).copied().unwrap_or(0));
                layout(text(text(text(4))), 1, Some(0), false)
            }
            _ => None,
        }
    }
}

/// The signature of a message, which only its receiver can use (RFC 8945).
const TSIG: u16 = 250;
