//! When an object last changed, according to its metadata. Latencies are measured from that time.
//!
//! Core. Knows `metadata` of the API and what the EndpointSlice controller adds to it; reads no
//! clock. Most of these times are whole seconds, so that latencies can be up to a second too long.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use super::{Input, Metadata};

/// When an object last changed, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// In milliseconds since 1970.
    pub at_ms: u64,
    /// Whether the EndpointSlice controller wrote it, for a Service's selector.
    pub from_selector: bool,
}

impl Input {
    /// Returns when it last changed, if its metadata has a time.
    ///
    /// An EndpointSlice can have the time of the change of a Pod or Service that led to it (the
    /// annotation `endpoints.kubernetes.io/last-change-trigger-time`). If it is missing, the time
    /// of the last write is used.
    pub fn written(&self) -> Option<Written> {
        let metadata = self.metadata();
        let triggered = metadata.annotations.last_change_trigger_time.as_deref();
        let from_selector = match metadata.labels.managed_by.as_deref() {
            Some(manager) => manager == CONTROLLER,
            None => triggered.is_some(),
        };
        let at_ms = triggered.and_then(parse_ms).or_else(|| metadata.written_ms())?;
        Some(Written { at_ms, from_selector })
    }
}

impl Metadata {
    /// Returns when the object was last written, in milliseconds since 1970, according to its
    /// managed fields. If it has no managed fields, returns when it was created.
    pub fn written_ms(&self) -> Option<u64> {
        let created = || self.creation_timestamp.as_deref().and_then(parse_ms);
        self.managed_fields.newest_ms.or_else(created)
    }
}

/// The part of `metadata.managedFields` that is kept: the time of the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManagedFields {
    newest_ms: Option<u64>,
}

impl ManagedFields {
    /// Adds the time of one of them.
    pub fn note(&mut self, time: Option<jiff::Timestamp>) {
        let ms = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
        self.newest_ms = self.newest_ms.max(ms);
    }
}

impl<'de> Deserialize<'de> for ManagedFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Newest)
    }
}

/// Visits managed fields, and keeps only the newest time.
struct Newest;

impl<'de> Visitor<'de> for Newest {
    type Value = ManagedFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of managed fields")
    }

    fn visit_unit<E>(self) -> Result<ManagedFields, E> {
        Ok(ManagedFields::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ManagedFields, A::Error> {
        let mut newest_ms = None;
        while let Some(field) = list.next_element::<Option<ManagedField<'_>>>()? {
            let time = field.and_then(|ManagedField { time }| time);
            newest_ms = newest_ms.max(time.and_then(|Text(time)| parse_ms(&time)));
        }
        Ok(ManagedFields { newest_ms })
    }
}

#[derive(serde::Deserialize)]
struct ManagedField<'a> {
    /// `null` if the time is zero, as API servers write it.
    #[serde(default, borrow)]
    time: Option<Text<'a>>,
}

/// A text that is copied only if it has escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Parses a time of the API (RFC 3339), in milliseconds since 1970; `None` if it is not valid.
fn parse_ms(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
}

/// The value of `endpointslice.kubernetes.io/managed-by` of the EndpointSlice controller (KEP-752).
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-24T10:00:00Z.
    const TEN_MS: u64 = 1_795_514_400_000;

    #[test]
    fn the_change_behind_a_slice_comes_before_its_write() {
        let check = |metadata: &str, expected: Option<(u64, bool)>| {
            let object = format!(r#"{{"metadata":{metadata}}}"#);
            let input = Input::EndpointSlice(serde_json::from_str(&object).unwrap());
            let written = input.written().map(|written| (written.at_ms, written.from_selector));
            assert_eq!(written, expected, "{metadata}");
        };
        let trigger = r#""annotations":{"endpoints.kubernetes.io/last-change-trigger-time":
            "2026-11-24T10:00:00.25Z"}"#;
        let managed = r#""managedFields":[{"time":"2026-11-24T10:00:02Z","fieldsV1":{"f:a":{}}},
            {"manager":"a","time":"2026-11-24T12:00:03+02:00"},{"time":"2026-11-24T09:59:59Z"}]"#;
        let created = r#""creationTimestamp":"2026-11-24T10:00:01Z""#;
        let label = |manager: &str| {
            format!(r#""labels":{{"endpointslice.kubernetes.io/managed-by":"{manager}"}}"#)
        };
        check(&format!("{{{trigger},{managed}}}"), Some((TEN_MS + 250, true)));
        check(&format!("{{{managed},{created}}}"), Some((TEN_MS + 3_000, false)));
        check(&format!("{{{created}}}"), Some((TEN_MS + 1_000, false)));
        check(&format!("{{{created},{}}}", label(CONTROLLER)), Some((TEN_MS + 1_000, true)));
        check(&format!("{{{trigger},{}}}", label("someone")), Some((TEN_MS + 250, false)));
        check("{}", None);
    }

    #[test]
    fn odd_times_are_none() {
        let check = |metadata: &str, expected: Option<u64>| {
            let metadata = serde_json::from_str::<Metadata>(metadata).unwrap();
            assert_eq!(metadata.written_ms(), expected);
        };
        check(r#"{"managedFields":null,"creationTimestamp":"2026-11-24T10:00:00Z"}"#, Some(TEN_MS));
        check(r#"{"managedFields":[],"creationTimestamp":"yesterday"}"#, None);
        check(r#"{"managedFields":[{"manager":"a"},{"time":"1960-01-01T00:00:00Z"}]}"#, None);
        check(r#"{"managedFields":[{"time":"2026-11-24T10:00:00\u005a"}]}"#, Some(TEN_MS));
        check(
            r#"{"managedFields":[{"time":null},null,{"time":"2026-11-24T10:00:00Z"}]}"#,
            Some(TEN_MS),
        );
        assert!(serde_json::from_str::<Metadata>(r#"{"managedFields":7}"#).is_err());
    }
}
