//! Turns a watch in JSON or in protobuf into events.
//!
//! Core. Knows the media types of the two formats; does not know connections.

use super::decode::{self, Event};
use super::protobuf;
use super::split::{Frames, Lines};
use super::trouble::Trouble;
use crate::project::Kind;

/// The bytes of a watch that have arrived and have not been read.
#[derive(Debug)]
pub(super) enum Stream {
    Json(Lines),
    Protobuf(Frames),
}

impl Stream {
    /// Returns the stream of a response with this `Content-Type`.
    pub fn of(content_type: &str) -> Self {
        if content_type.trim_start().starts_with(PROTOBUF) {
            Self::Protobuf(Frames::default())
        } else {
            Self::Json(Lines::default())
        }
    }

    /// Adds the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Json(lines) => lines.push(bytes),
            Self::Protobuf(frames) => frames.push(bytes),
        }
    }

    /// Returns the next event about objects of `kind`, if it has arrived.
    ///
    /// Fails if the bytes are not a watch: then all bytes after them cannot be trusted.
    pub fn take(&mut self, kind: Kind) -> Result<Option<Event>, Trouble> {
        Ok(match self {
            Self::Json(lines) => lines.take()?.map(|line| decode::event(kind, line)).transpose()?,
            Self::Protobuf(frames) => {
                frames.take()?.map(|frame| protobuf::event(kind, frame)).transpose()?
            }
        })
    }
}

/// Returns the `Accept` of a watch of `kind`. Kinds of custom resources have no protobuf.
pub(super) fn accepted(kind: Kind, in_json: bool) -> &'static str {
    if in_json || kind == Kind::ServiceImport { JSON } else { EITHER }
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON: &str = "application/json";
const EITHER: &str = "application/vnd.kubernetes.protobuf,application/json;q=0.9";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_decides() {
        let is_protobuf = |text: &str| matches!(Stream::of(text), Stream::Protobuf(_));
        assert!(is_protobuf("application/vnd.kubernetes.protobuf;stream=watch"));
        for other in ["application/json", "application/json;stream=watch", "text/plain", ""] {
            assert!(!is_protobuf(other), "{other}");
        }
        for kind in Kind::KNOWN {
            assert_eq!(accepted(kind, false) == JSON, kind == Kind::ServiceImport);
            assert_eq!(accepted(kind, true), JSON);
        }
    }
}
