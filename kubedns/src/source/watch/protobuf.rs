//! Parses one protobuf message of the API server into one event, as in `decode`.
//!
//! Core. Knows the encoding (protobuf.dev, "Encoding") and the envelope of Kubernetes around an
//! object; does not know connections, nor what the objects mean. An object costs the API server
//! half as much in protobuf as in JSON, and kubedns can skip unused fields by their lengths.
//!
//! ```text
//! WatchEvent ─ type
//!            └ object ─ raw ─ "k8s\0", Unknown ─ raw ─ the object
//! ```

mod objects;

use super::decode::{Event, INITIAL_EVENTS_END, Status, unreadable};
use crate::project::{Kind, Metadata};

use objects::input;

/// The bytes are not a message of an API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message of the API: {0}")]
pub struct Malformed(&'static str);

/// Reads one frame of a watch of `kind`.
///
/// Fails if the frame is not an event at all. If a field of an object has another type than in the
/// API, the result is [`Event::Unreadable`], so that only this object is lost.
pub fn event(kind: Kind, frame: &[u8]) -> Result<Event, Malformed> {
    let (mut word, mut object) = (&b""[..], &b""[..]);
    for field in Fields(frame) {
        match field? {
            (1, Value::Bytes(bytes)) => word = bytes,
            (2, Value::Bytes(extension)) => object = sole(extension, 1)?,
            _ => {}
        }
    }
    let object = unwrapped(object)?;
    match (word, input(kind, object)) {
        (b"BOOKMARK", _) => bookmark(object),
        (b"ERROR", _) => Ok(Event::Refused(status(object)?)),
        (b"ADDED" | b"MODIFIED", Ok(input)) => Ok(Event::Applied(input)),
        (b"DELETED", Ok(input)) => Ok(Event::Deleted(input)),
        (b"ADDED" | b"MODIFIED" | b"DELETED", Err(malformed)) => {
            let metadata = identity(object);
            let name = Some(metadata.name.as_str());
            let namespace = metadata.namespace.as_deref();
            Ok(unreadable(kind, (namespace, name), metadata.resource_version, &malformed))
        }
        _ => Err(Malformed("the event has no known type")),
    }
}

/// Reads the body of a refusal; `None` if it is not protobuf.
pub fn refusal(body: &[u8]) -> Option<Status> {
    status(unwrapped(body).ok()?).ok()
}

/// Returns what is in the envelope of an object: `Unknown.raw` of `k8s.io/apimachinery`.
fn unwrapped(bytes: &[u8]) -> Result<&[u8], Malformed> {
    sole(bytes.strip_prefix(MAGIC).ok_or(Malformed("an object has no magic number"))?, 2)
}

/// Returns the bytes of field `number`, the last if there are several; empty if the field is
/// missing.
fn sole(message: &[u8], number: u32) -> Result<&[u8], Malformed> {
    let mut found = &message[..0];
    for field in Fields(message) {
        match field? {
            (field, Value::Bytes(bytes)) if field == number => found = bytes,
            _ => {}
        }
    }
    Ok(found)
}

/// Reads a bookmark. One without a version is an error: the watch cannot continue from there.
fn bookmark(object: &[u8]) -> Result<Event, Malformed> {
    let metadata = sole(object, 1)?;
    let mut version = None;
    let mut ends_initial = false;
    for field in Fields(metadata) {
        match field? {
            (6, value) => version = value.some_text()?,
            (12, value) => ends_initial |= value.entry()? == (INITIAL_EVENTS_END, "true"),
            _ => {}
        }
    }
    let version = version.ok_or(Malformed("a bookmark has no resourceVersion"))?;
    Ok(Event::Bookmark { version, ends_initial })
}

/// Reads a `v1` Status.
fn status(object: &[u8]) -> Result<Status, Malformed> {
    let mut status = Status::default();
    for field in Fields(object) {
        match field? {
            (3, value) => status.message = value.text()?.to_owned(),
            (4, value) => status.reason = value.text()?.to_owned(),
            (5, Value::Bytes(details)) => {
                for field in Fields(details) {
                    if let (5, value) = field? {
                        let seconds = u32::try_from(value.number()?).unwrap_or_default();
                        status.details.retry_after_seconds = seconds;
                    }
                }
            }
            (6, value) => status.code = u16::try_from(value.number()?).unwrap_or_default(),
            _ => {}
        }
    }
    Ok(status)
}

/// Reads those of name, namespace and version of `object` that can be read, separately from all
/// other fields.
fn identity(object: &[u8]) -> Metadata {
    let mut read = Metadata::default();
    for (number, value) in Fields(object).flatten() {
        let (1, Value::Bytes(metadata)) = (number, value) else { continue };
        for (number, value) in Fields(metadata).flatten() {
            match (number, value.some_text()) {
                (1, Ok(Some(name))) => read.name = name,
                (3, Ok(namespace)) => read.namespace = namespace,
                (6, Ok(version)) => read.resource_version = version,
                _ => {}
            }
        }
    }
    read
}

/// A message that is read field by field.
trait Message: Default {
    /// Reads one field.
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed>;

    /// Reads the fields of `bytes` into the message.
    fn merge(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        Fields(bytes)
            .try_for_each(|field| field.and_then(|(number, value)| self.take(number, value)))
    }

    /// Reads a message from `bytes`.
    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut message = Self::default();
        message.merge(bytes)?;
        Ok(message)
    }
}

/// The value of a field. Values of fixed length are skipped, because no field that is used has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Value<'a> {
    fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("a field has no length")),
        }
    }

    fn text(self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    /// Returns a text that JSON omits if it is empty.
    fn some_text(self) -> Result<Option<String>, Malformed> {
        let text = self.text()?;
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    /// Returns a number. Negative numbers are encoded like those of 64 bits.
    fn number(self) -> Result<i64, Malformed> {
        match self {
            Self::Number(number) => Ok(number.cast_signed()),
            _ => Err(Malformed("a field is not a number")),
        }
    }

    fn truth(self) -> Result<bool, Malformed> {
        self.number().map(|number| number != 0)
    }

    /// Returns key and value of one entry of a map.
    fn entry(self) -> Result<(&'a str, &'a str), Malformed> {
        let (mut key, mut text) = ("", "");
        for field in Fields(self.bytes()?) {
            match field? {
                (1, value) => key = value.text()?,
                (2, value) => text = value.text()?,
                _ => {}
            }
        }
        Ok((key, text))
    }
}

/// The fields of a message, with their numbers. Ends after the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let number =
            u32::try_from(key >> 3).map_err(|_| Malformed("a field number is too large"))?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.skip(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.skip(usize::try_from(len).unwrap_or(usize::MAX))?)
            }
            5 => self.skip(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed("a field has no known type")),
        };
        Ok((number, value))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for (at, &byte) in self.0.iter().take(VARINT_LEN_MAX).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(number);
            }
        }
        Err(Malformed("a number has no end"))
    }

    fn skip(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (value, rest) = self.0.split_at_checked(len).ok_or(Malformed("a field is cut off"))?;
        self.0 = rest;
        Ok(value)
    }
}

/// The magic number of every object.
const MAGIC: &[u8] = b"k8s\0";
/// 64 bits, 7 in each byte.
const VARINT_LEN_MAX: usize = 10;

#[cfg(test)]
mod tests;
