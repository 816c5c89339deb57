//! The JSON of etcd's gateway: requests, and the fields of replies that are used.
//!
//! Core. Bytes are in base64, and numbers of 64 bits are strings. A field that has its zero value
//! is missing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// The state of etcd when it replied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Header {
    #[serde(deserialize_with = "number")]
    pub cluster_id: u64,
    #[serde(deserialize_with = "number")]
    pub revision: u64,
    #[serde(deserialize_with = "number")]
    pub raft_term: u64,
}

impl Header {
    /// Returns whether its data is of another cluster than that of `last`, or older: etcd was
    /// restored from a backup.
    pub fn is_before(&self, last: &Self) -> bool {
        self.cluster_id != last.cluster_id
            || self.revision < last.revision
            || self.raft_term < last.raft_term
    }
}

/// A key with its value.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub key: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    pub value: Vec<u8>,
    #[serde(rename = "mod_revision", deserialize_with = "number")]
    pub revision: u64,
    #[serde(deserialize_with = "number")]
    pub lease: i64,
}

/// A page of a range.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Page {
    pub header: Header,
    pub kvs: Vec<KeyValue>,
    pub more: bool,
}

/// One message of a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Watched {
    pub header: Header,
    pub created: bool,
    pub canceled: bool,
    cancel_reason: String,
    #[serde(deserialize_with = "number")]
    compact_revision: u64,
    pub events: Vec<Event>,
}

impl Watched {
    /// Returns why the watch was cancelled.
    pub fn reason(self) -> String {
        match self.compact_revision {
            0 if self.cancel_reason.is_empty() => "no reason given".to_owned(),
            0 => self.cancel_reason,
            revision => format!("everything before revision {revision} is compacted"),
        }
    }
}

/// One change.
#[derive(Debug, Deserialize)]
#[serde(from = "Typed")]
pub enum Event {
    Put(KeyValue),
    Deleted(KeyValue),
}

#[derive(Deserialize)]
struct Typed {
    #[serde(default)]
    r#type: String,
    kv: KeyValue,
}

impl From<Typed> for Event {
    fn from(typed: Typed) -> Self {
        if typed.r#type == "DELETE" { Self::Deleted(typed.kv) } else { Self::Put(typed.kv) }
    }
}

/// One line of a stream.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Streamed<T> {
    Result(T),
    Error(Refusal),
}

/// Why etcd does not do what it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// The code of gRPC.
    #[serde(alias = "grpc_code")]
    pub code: u32,
    pub message: String,
}

/// The reply to a user and a password.
#[derive(Debug, Deserialize)]
pub struct Authenticated {
    pub token: String,
}

/// The state of a lease.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Lease {
    #[serde(rename = "grantedTTL", deserialize_with = "number")]
    pub granted_secs: i64,
}

/// Returns a range from `from` to the end of `prefix`, as of `revision`; 0 is the current one.
pub fn range(from: &[u8], prefix: &[u8], limit: usize, revision: u64) -> Value {
    json!({
        "key": STANDARD.encode(from),
        "range_end": STANDARD.encode(end_of(prefix)),
        "limit": limit.to_string(),
        "revision": revision.to_string(),
    })
}

/// Returns a watch of all keys with `prefix`, from `revision`.
pub fn watch(prefix: &[u8], revision: u64) -> Value {
    json!({"create_request": {
        "key": STANDARD.encode(prefix),
        "range_end": STANDARD.encode(end_of(prefix)),
        "start_revision": revision.to_string(),
        "progress_notify": true,
    }})
}

/// Returns the first key after all keys with `prefix`, which ends with a slash.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// A number, or a string with a number.
fn number<'d, D: Deserializer<'d>, N: std::str::FromStr>(deserializer: D) -> Result<N, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        other => other.to_string(),
    };
    text.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is not a number")))
}

fn bytes<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(&text).map_err(serde::de::Error::custom)
}
