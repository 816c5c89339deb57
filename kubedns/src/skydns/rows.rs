//! The records of a name: all messages below it, or its own if there are none.
//!
//! Core. The one place that turns messages into records. Every record set has one TTL, the lowest
//! of its messages (RFC 2181 section 5.2), and holds each record once.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use shared::wire::rtype;

use super::{Host, Message, Place};

/// A record and its message.
#[derive(Debug)]
pub struct Row {
    /// Its type.
    pub rtype: u16,
    /// Its TTL in seconds.
    pub ttl_secs: u32,
    /// Its data. Names are in lower case and not compressed.
    pub rdata: Box<[u8]>,
    /// The message that it follows from.
    pub message: Arc<Message>,
}

impl Row {
    /// Returns whether the record, a CNAME, points to `name` itself. A message below `name` can
    /// point to it.
    pub fn is_at(&self, name: &[u8]) -> bool {
        *self.rdata == *name
    }
}

/// The records of a name, sorted by type, then by the paths of their messages.
#[derive(Debug, Default)]
pub struct Rows(Box<[Row]>);

impl Rows {
    /// Returns the records of `place`.
    pub fn of(place: &Place) -> Self {
        let mut all = Vec::with_capacity(place.count());
        place.children().for_each(|(_, below)| below.each(&mut |message| all.push(message)));
        if all.is_empty() {
            all.extend(place.own());
        }
        grouped(&mut all);
        let mut rows = Making::default();
        if let Some(message) = place.own() {
            rows.pointer(message);
        }
        let weights = Weights::of(&all);
        for message in all {
            rows.add(message, &weights);
        }
        rows.finish()
    }

    /// Returns the records of type `rtype`.
    pub fn of_type(&self, rtype: u16) -> &[Row] {
        let first = self.0.partition_point(|row| row.rtype < rtype);
        let rest = &self.0[first..];
        &rest[..rest.partition_point(|row| row.rtype == rtype)]
    }
}

/// Removes the messages of other groups. The shortest path with a group decides, unless two paths
/// of that length disagree.
fn grouped(messages: &mut Vec<&Arc<Message>>) {
    let length = |message: &Message| shared::wire::labels(message.path()).count();
    let with_group = || messages.iter().filter(|message| !message.group.is_empty());
    let Some(shortest) = with_group().map(|message| length(message)).min() else { return };
    let mut groups = with_group().filter(|message| length(message) == shortest);
    let Some(group) = groups.next().map(|message| message.group.clone()) else { return };
    if groups.all(|message| message.group == group) {
        messages.retain(|message| message.group.is_empty() || message.group == group);
    }
}

/// The sum of the weights of each priority.
struct Weights(BTreeMap<u16, u32>);

impl Weights {
    fn of(messages: &[&Arc<Message>]) -> Self {
        let mut sums = BTreeMap::new();
        for message in messages.iter().filter(|message| message.host != Host::None) {
            *sums.entry(message.priority).or_insert(0) += weight(message);
        }
        Self(sums)
    }

    /// Returns the weight of the SRV record of `message`: its share of 100, and at least 1.
    fn share(&self, message: &Message) -> u16 {
        let sum = self.0.get(&message.priority).copied().unwrap_or_default().max(1);
        let share = 100.0 / f64::from(sum) * f64::from(weight(message));
        (share as u16).max(1)
    }
}

/// Returns the weight, which is 100 if there is none.
fn weight(message: &Message) -> u32 {
    if message.weight == 0 { 100 } else { message.weight }
}

/// Records in the order of their messages.
#[derive(Default)]
struct Making {
    rows: Vec<Row>,
    seen: HashSet<(u16, Box<[u8]>)>,
}

impl Making {
    /// Adds the records of `message`, except for PTR.
    fn add(&mut self, message: &Arc<Message>, weights: &Weights) {
        match &message.host {
            Host::Address(IpAddr::V4(address)) => {
                self.push(rtype::A, message, &address.octets());
            }
            Host::Address(IpAddr::V6(address)) => {
                self.push(rtype::AAAA, message, &address.octets());
            }
            // A mail exchange gives its name to MX, which cannot be at an alias.
            Host::Name(name) if !message.mail => self.push(rtype::CNAME, message, name.wire()),
            Host::Name(_) | Host::None => {}
        }
        if !message.text.is_empty() {
            let text = message.text.as_bytes().chunks(TEXT_LEN_MAX);
            let rdata: Vec<u8> =
                text.flat_map(|part| [&[part.len() as u8], part].concat()).collect();
            self.push(rtype::TXT, message, &rdata);
        }
        let Some(target) = message.target() else { return };
        let priority = message.priority.to_be_bytes();
        if let Some(port) = message.port {
            let numbers = [priority, weights.share(message).to_be_bytes(), port.to_be_bytes()];
            self.push(rtype::SRV, message, &[&numbers.concat(), &target[..]].concat());
        }
        if message.mail {
            self.push(rtype::MX, message, &[&priority, &target[..]].concat());
        }
        if let Host::Address(_) = message.host {
            self.push(rtype::NS, message, &target);
        }
    }

    /// Adds the PTR record of `message`, whose key must be exactly the name.
    fn pointer(&mut self, message: &Arc<Message>) {
        if let Host::Name(name) = &message.host {
            self.push(rtype::PTR, message, name.wire());
        }
    }

    fn push(&mut self, rtype: u16, message: &Arc<Message>, rdata: &[u8]) {
        let ttl_secs = message.ttl_secs;
        if self.seen.insert((rtype, rdata.into())) {
            let message = Arc::clone(message);
            self.rows.push(Row { rtype, ttl_secs, rdata: rdata.into(), message });
        } else if let Some(set) = self.rows.iter_mut().find(|row| row.rtype == rtype) {
            set.ttl_secs = set.ttl_secs.min(ttl_secs); // one for the whole set in the end
        }
    }

    fn finish(self) -> Rows {
        let mut rows = self.rows;
        let is_address = |row: &Row| matches!(row.rtype, rtype::A | rtype::AAAA);
        if rows.iter().any(is_address) {
            rows.retain(|row| row.rtype != rtype::CNAME); // a name has addresses or is an alias
        }
        rows.sort_by_key(|row| row.rtype);
        for set in rows.chunk_by_mut(|a, b| a.rtype == b.rtype) {
            let ttl_secs = set.iter().map(|row| row.ttl_secs).min().unwrap_or_default();
            set.iter_mut().for_each(|row| row.ttl_secs = ttl_secs);
        }
        Rows(rows.into())
    }
}

/// The longest string of a TXT record (RFC 1035 section 3.3).
const TEXT_LEN_MAX: usize = 255;
