//! SkyDNS records: the messages under a prefix of etcd, and the records that a name has by them.
//!
//! Core. Knows the format that SkyDNS defined, and that CoreDNS's plugin `etcd` and ExternalDNS
//! use; does not know etcd, zones, nor how a reply is written.
//!
//! ```text
//! key /skydns/local/skydns/b/a ──▶ path local, skydns, b, a ──┐
//! value {"host":"10.0.0.7",..} ──▶ Message ──▶ Tree::put ─────┴▶ Tree: a node for each label
//! name a.b.skydns.local ──▶ path ──▶ Tree::get ──▶ Place ──▶ rows: all messages below it
//! ```
//!
//! A path is the labels of a name from the right to the left, each with its length before it. So
//! the paths below a name begin with the path of the name.

mod message;
mod rows;
mod tree;

pub use message::{Broken, Host, Message, path_of_key};
pub use rows::{Row, Rows};
pub use tree::{MANY, Place, Tree};

use std::sync::Arc;

/// All messages at one moment. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// The messages.
    pub tree: Tree,
    /// The prefix of all keys, with a slash at both ends.
    pub prefix: Arc<str>,
    /// Whether all keys have been listed. Only then does a missing name not exist.
    pub is_complete: bool,
    /// Whether these are the keys of an earlier process that this one has not confirmed yet.
    pub is_stale: bool,
}

impl Keys {
    /// Returns the key of `path`.
    pub fn key(&self, path: &[u8]) -> String {
        let labels = shared::wire::labels(path).map(String::from_utf8_lossy);
        format!("{}{}", self.prefix, labels.collect::<Vec<_>>().join("/"))
    }
}

/// Returns the path of `name`, a name in wire form.
pub fn path_of_name(name: &[u8]) -> Vec<u8> {
    reversed(name)
}

/// Returns the name of `path` in wire form, with its root label.
pub fn name_of_path(path: &[u8]) -> Vec<u8> {
    let mut name = reversed(path);
    name.push(0);
    name
}

/// Returns the labels in the opposite order, without the root label.
fn reversed(labels: &[u8]) -> Vec<u8> {
    let mut all: Vec<&[u8]> = shared::wire::labels(labels).collect();
    all.reverse();
    let mut wire = Vec::with_capacity(labels.len());
    for label in all {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label);
    }
    wire
}
