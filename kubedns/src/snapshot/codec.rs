//! Encodes all records as a file, and decodes it: the result is exactly what was written, or an
//! error.
//!
//! Core. Knows the content of the file; does not know files or clocks.
//!
//! ```text
//! identity:u16+text as_of_ms:u64 generation:u64 serial:u32 object object object .. 0
//! ```

use std::io::{self, Write};

use shared::saved::bytes::Cursor;
use shared::saved::frame::{self, Frame, Sink};

use super::objects::{
    MESSAGE, put_message, put_namespace, put_pod, put_range, put_service, put_slice, take_message,
    take_object,
};
use crate::project::{Object, ObjectId};
use crate::records::{Records, Source};
use crate::skydns::Message;

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
    /// It is not a complete snapshot of this format.
    #[error(transparent)]
    Frame(#[from] frame::Refused),
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
    let mut sink = Sink::new(&FRAME, out);
    let identity = &identity.as_bytes()[..identity.len().min(u16::MAX.into())];
    sink.piece.extend((identity.len() as u16).to_be_bytes());
    sink.piece.extend_from_slice(identity);
    sink.piece.extend(header.as_of_ms.to_be_bytes());
    sink.piece.extend(header.generation.to_be_bytes());
    sink.piece.extend(header.serial.to_be_bytes());
    for label in records.declared_namespaces() {
        put_namespace(&mut sink.piece, label);
        sink.pass()?;
    }
    for records in std::iter::once(records).chain(records.clusterset().map(|zone| &**zone)) {
        let schema = records.zone().schema();
        for entry in records.entries() {
            if let Some(service) = entry.kept_service() {
                put_service(&mut sink.piece, schema, service);
            }
            for slice in entry.slices() {
                put_slice(&mut sink.piece, schema, slice);
                sink.pass()?;
            }
            sink.pass()?;
        }
    }
    for (label, address) in records.pod_addresses() {
        put_pod(&mut sink.piece, label, address);
        sink.pass()?;
    }
    // Ranges of flags or defaults are left out, because the next process has its own.
    let ranges = Some(records.ranges()).filter(|ranges| ranges.source() == Source::Objects);
    for range in ranges.iter().flat_map(|ranges| ranges.prefixes()) {
        put_range(&mut sink.piece, range);
        sink.pass()?;
    }
    let mut passed = Ok(());
    records.keys().tree.root().each(&mut |message| {
        put_message(&mut sink.piece, message);
        if passed.is_ok() {
            passed = sink.pass();
        }
    });
    passed?;
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
        let content = FRAME.open(file)?;
        let read = |cursor: &mut Cursor<'a>| {
            let len = cursor.take_u16()?;
            let theirs = std::str::from_utf8(cursor.take(len.into())?).ok()?;
            let as_of_ms = cursor.take_u64()?;
            let generation = cursor.take_u64()?;
            Some((theirs, Header { as_of_ms, generation, serial: cursor.take_u32()? }))
        };
        let mut cursor = Cursor::new(content);
        let (theirs, header) = read(&mut cursor).ok_or(frame::Refused::Damaged)?;
        if theirs != identity {
            let (theirs, ours) = (theirs.to_owned(), identity.to_owned());
            return Err(Refused::Foreign { theirs, ours });
        }
        Ok(Self { header, cursor, ended: false })
    }

    fn object(&mut self) -> Option<Option<Item>> {
        match self.cursor.take_u8()? {
            END => (self.cursor.left() == 0).then_some(None),
            MESSAGE => take_message(&mut self.cursor).map(|it| Some(Item::Message(Box::new(it)))),
            tag => {
                let object = take_object(tag, &mut self.cursor);
                object.map(|(id, object)| Some(Item::Object(id, Box::new(object))))
            }
        }
    }
}

/// An item of a file.
#[derive(Debug)]
pub enum Item {
    /// An object of the API.
    Object(ObjectId, Box<Object>),
    /// A message of etcd.
    Message(Box<Message>),
}

/// Returns the items. Ends after the first one that cannot be decoded.
impl Iterator for Decoded<'_> {
    type Item = Result<Item, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let left = self.cursor.left();
        let object = self.object();
        self.ended = !matches!(object, Some(Some(_)));
        object.ok_or(Refused::Nonsense { left }).transpose()
    }
}

const FRAME: Frame = Frame { magic: "kubedns snapshot", version: 7 };
/// Behind the last object.
const END: u8 = 0;
#[cfg(test)]
mod tests;
