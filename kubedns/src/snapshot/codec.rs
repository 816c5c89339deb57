//! Encodes all records as a file, and decodes it: the result is exactly what was written, or an
//! error.
//!
//! Core. Knows the frame; does not know files or clocks. The file is written in pieces, so that
//! there is never a second copy of all records in memory.
//!
//! ```text
//! "kubedns snapshot" version:u16 │ identity:u16+text as_of_ms:u64 generation:u64 serial:u32
//! object object object .. 0      │ CRC-32 of everything before
//! ```

use std::io::{self, Write};

use super::bytes::Cursor;
use super::objects::{put_namespace, put_pod, put_range, put_service, put_slice, take_object};
use crate::project::{Object, ObjectId};
use crate::records::{Records, Source};

/// The metadata of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// When the objects were last confirmed, in milliseconds since 1970.
    pub as_of_ms: u64,
    /// The generation of these records on the change stream.
    pub generation: u64,
    /// The serial of the SOA record.
    pub serial: u32,
}

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not a snapshot.
    #[error("it is no snapshot of kubedns")]
    Other,
    /// It has another format.
    #[error("it has format {found}, and this kubedns reads format {VERSION}")]
    Version {
        /// Its format.
        found: u16,
    },
    /// A part is missing, or a byte has changed.
    #[error("it is truncated or damaged: the checksum does not fit")]
    Damaged,
    /// It belongs to a kubedns with other flags.
    #[error("it belongs to a kubedns with {theirs}, and this one has {ours}")]
    Foreign {
        /// The flags of the kubedns that wrote it.
        theirs: String,
        /// Our flags.
        ours: String,
    },
    /// An object cannot be decoded: a bug of the kubedns that wrote it.
    #[error("what stands {left} bytes before its end makes no sense")]
    Nonsense {
        /// Bytes between the object and the checksum.
        left: usize,
    },
}

/// Writes `records` of the kubedns `identity` to `out`, and returns how many bytes that are.
///
/// Fails if `out` fails.
pub fn encode(
    header: &Header,
    identity: &str,
    records: &Records,
    out: impl Write,
) -> io::Result<u64> {
    let mut sink = Sink::new(out);
    let identity = &identity.as_bytes()[..identity.len().min(u16::MAX.into())];
    sink.piece.extend_from_slice(MAGIC);
    sink.piece.extend(VERSION.to_be_bytes());
    sink.piece.extend((identity.len() as u16).to_be_bytes());
    sink.piece.extend_from_slice(identity);
    sink.piece.extend(header.as_of_ms.to_be_bytes());
    sink.piece.extend(header.generation.to_be_bytes());
    sink.piece.extend(header.serial.to_be_bytes());
    for label in records.declared_namespaces() {
        put_namespace(&mut sink.piece, label);
        sink.pass(PIECE_LEN)?;
    }
    for records in std::iter::once(records).chain(records.clusterset().map(|zone| &**zone)) {
        let schema = records.zone().schema();
        for entry in records.entries() {
            if let Some(service) = entry.kept_service() {
                put_service(&mut sink.piece, schema, service);
            }
            for slice in entry.slices() {
                put_slice(&mut sink.piece, schema, slice);
                sink.pass(PIECE_LEN)?;
            }
            sink.pass(PIECE_LEN)?;
        }
    }
    for (label, address) in records.pod_addresses() {
        put_pod(&mut sink.piece, label, address);
        sink.pass(PIECE_LEN)?;
    }
    // Ranges of flags or defaults are left out, because the next process has its own.
    let ranges = Some(records.ranges()).filter(|ranges| ranges.source() == Source::Objects);
    for range in ranges.iter().flat_map(|ranges| ranges.prefixes()) {
        put_range(&mut sink.piece, range);
        sink.pass(PIECE_LEN)?;
    }
    sink.piece.push(END);
    sink.finish()
}

/// The content of a file whose checksum is valid. Its objects are decoded one by one.
#[derive(Clone, Debug)]
pub struct Decoded<'a> {
    /// Its header.
    pub header: Header,
    cursor: Cursor<'a>,
    ended: bool,
}

impl<'a> Decoded<'a> {
    /// Reads the frame of `file` for the kubedns `identity`.
    ///
    /// Fails if it is not a complete snapshot of such a kubedns.
    pub fn open(file: &'a [u8], identity: &str) -> Result<Self, Refused> {
        let mut cursor = Cursor::new(file);
        match cursor.take(MAGIC.len()) {
            Some(magic) if magic == MAGIC => {}
            None if MAGIC.starts_with(file) => return Err(Refused::Damaged),
            _ => return Err(Refused::Other),
        }
        let found = cursor.take_u16().ok_or(Refused::Damaged)?;
        if found != VERSION {
            return Err(Refused::Version { found });
        }
        let (body, checksum) = file.split_last_chunk::<4>().ok_or(Refused::Damaged)?;
        if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
            return Err(Refused::Damaged);
        }
        let read = |cursor: &mut Cursor<'a>| {
            let len = cursor.take_u16()?;
            let theirs = std::str::from_utf8(cursor.take(len.into())?).ok()?;
            let as_of_ms = cursor.take_u64()?;
            let generation = cursor.take_u64()?;
            Some((theirs, Header { as_of_ms, generation, serial: cursor.take_u32()? }))
        };
        let mut cursor = Cursor::new(&body[MAGIC.len() + 2..]);
        let (theirs, header) = read(&mut cursor).ok_or(Refused::Damaged)?;
        if theirs != identity {
            let (theirs, ours) = (theirs.to_owned(), identity.to_owned());
            return Err(Refused::Foreign { theirs, ours });
        }
        Ok(Self { header, cursor, ended: false })
    }

    fn object(&mut self) -> Option<Option<(ObjectId, Object)>> {
        match self.cursor.take_u8()? {
            END => (self.cursor.len() == 0).then_some(None),
            tag => take_object(tag, &mut self.cursor).map(Some),
        }
    }
}

/// Returns the objects. Ends after the first one that cannot be decoded.
impl Iterator for Decoded<'_> {
    type Item = Result<(ObjectId, Object), Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let left = self.cursor.len();
        let object = self.object();
        self.ended = !matches!(object, Some(Some(_)));
        object.ok_or(Refused::Nonsense { left }).transpose()
    }
}

/// Collects pieces, and computes the length and the checksum of the output.
struct Sink<W> {
    out: W,
    piece: Vec<u8>,
    checksum: crc32fast::Hasher,
    len: u64,
}

impl<W: Write> Sink<W> {
    fn new(out: W) -> Self {
        Self { out, piece: Vec::new(), checksum: crc32fast::Hasher::new(), len: 0 }
    }

    /// Writes the piece if it has at least `len_min` bytes.
    fn pass(&mut self, len_min: usize) -> io::Result<()> {
        if self.piece.len() < len_min {
            return Ok(());
        }
        self.checksum.update(&self.piece);
        self.out.write_all(&self.piece)?;
        self.len += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        self.pass(0)?;
        let checksum = self.checksum.clone().finalize();
        self.piece.extend(checksum.to_be_bytes());
        self.pass(0)?;
        self.out.flush()?;
        Ok(self.len)
    }
}

const MAGIC: &[u8] = b"kubedns snapshot";
/// Grows with every change of the format, new fields included.
const VERSION: u16 = 6;
/// Behind the last object.
const END: u8 = 0;
/// A piece is written at this length, in bytes.
const PIECE_LEN: usize = 32 << 10;

#[cfg(test)]
mod tests;
