//! Addresses from hosts files: hosts(5), as Kubernetes distributions and the plugin `hosts` of
//! CoreDNS use them.
//!
//! Core. A table is immutable; a changed file makes a new one. 100,000 lines take about 7 MB.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use foldhash::fast::FixedState;
use shared::reverse::{self, Reverse};
use shared::wire::{rcode, rtype};

use super::made::Made;
use super::name::{self, Zones};
use crate::normalise::{Row, Rows};

/// How a table is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The TTL of its records in seconds.
    pub ttl: u32,
    /// Whether addresses have PTR records.
    pub reverse: bool,
    /// The zones for which it answers.
    pub zones: Zones,
    /// The zones in which names outside the table are passed to the next rule. Other names get
    /// SERVFAIL.
    pub fallthrough: Option<Zones>,
}

impl Default for Options {
    fn default() -> Self {
        Self { ttl: TTL, reverse: true, zones: Zones::all(), fallthrough: Some(Zones::all()) }
    }
}

/// A table and how it is used.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// How the table is used.
    pub options: Options,
    /// The table.
    pub table: Arc<Table>,
}

/// Names and their addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The names in wire form and lower case, one after the other.
    names: Box<[u8]>,
    /// Sorted by name.
    hosts: Box<[Host]>,
    /// The indexes of hosts plus 1 by the hashes of their names, 0 in free places. A place that is
    /// taken makes the next one count. Half of the places are free.
    places: Box<[u32]>,
    has_wildcards: bool,
    v4: Box<[Ipv4Addr]>,
    v6: Box<[Ipv6Addr]>,
    /// Sorted by address; the index of a host.
    reverse_v4: Box<[(Ipv4Addr, u32)]>,
    reverse_v6: Box<[(Ipv6Addr, u32)]>,
}

/// The offsets of a name and of its addresses, which end at those of the next host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Host {
    name: u32,
    v4: u32,
    v6: u32,
}

/// A line that cannot be used, or a name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Counted from 1.
    pub line: usize,
    /// The reason.
    pub reason: String,
}

/// A table that is being read.
#[derive(Debug, Default)]
pub struct Builder {
    names: Vec<u8>,
    /// Name, address, in the order of the lines.
    pairs: Vec<(Name, IpAddr)>,
    refused: Vec<Refused>,
    refusals: usize,
}

/// The position of a name in [`Builder::names`].
type Name = (u32, u8);

impl Builder {
    /// Adds the lines of a hosts file.
    pub fn add(&mut self, text: &str) {
        for (index, line) in text.lines().enumerate() {
            self.line(index + 1, line);
        }
    }

    fn line(&mut self, number: usize, line: &str) {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next() else { return };
        // An address with the interface, as in `fe80::1%eth0`, is the same address to a client.
        let plain = address.split_once('%').map_or(address, |(address, _)| address);
        let Ok(parsed) = plain.parse::<IpAddr>() else {
            return self.refuse(number, format!("{address:?} is not an IP address"));
        };
        let parsed = parsed.to_canonical();
        let mut words = words.peekable();
        if words.peek().is_none() {
            return self.refuse(number, format!("{address} has no name"));
        }
        for word in words {
            match parse(word) {
                Some(name) if self.names.len() < NAMES_LEN_MAX => {
                    let at = self.names.len() as u32;
                    self.names.extend_from_slice(&name);
                    self.pairs.push(((at, name.len() as u8), parsed));
                }
                Some(_) => self.refuse(number, "the names before fill 64 MiB".to_owned()),
                None => self.refuse(number, format!("{word:?} is not a valid name")),
            }
        }
    }

    fn refuse(&mut self, line: usize, reason: String) {
        self.refusals += 1;
        if self.refused.len() < REFUSED_MAX {
            let reason = reason.chars().take(REASON_LEN_MAX).collect();
            self.refused.push(Refused { line, reason });
        }
    }

    /// Returns the table, the first lines that were refused, and how many were.
    pub fn build(self) -> (Table, Vec<Refused>, usize) {
        let Self { names, mut pairs, refused, refusals } = self;
        let name = |at: Name| &names[at.0 as usize..][..usize::from(at.1)];
        // Stable: addresses stay in the order of the lines.
        pairs.sort_by(|(a, _), (b, _)| name(*a).cmp(name(*b)));
        let (mut text, mut hosts) = (Vec::new(), Vec::new());
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let (mut reverse_v4, mut reverse_v6) = (Vec::new(), Vec::new());
        for group in pairs.chunk_by(|(a, _), (b, _)| name(*a) == name(*b)) {
            let index = hosts.len() as u32;
            let host = Host { name: text.len() as u32, v4: v4.len() as u32, v6: v6.len() as u32 };
            text.extend_from_slice(name(group[0].0));
            for (_, address) in group {
                match *address {
                    IpAddr::V4(it) if !v4[host.v4 as usize..].contains(&it) => {
                        v4.push(it);
                        reverse_v4.push((it, index));
                    }
                    IpAddr::V6(it) if !v6[host.v6 as usize..].contains(&it) => {
                        v6.push(it);
                        reverse_v6.push((it, index));
                    }
                    _ => {} // twice in the file
                }
            }
            hosts.push(host);
        }
        reverse_v4.sort_unstable();
        reverse_v6.sort_unstable();
        let mut table = Table {
            names: text.into(),
            hosts: hosts.into(),
            places: Box::default(),
            has_wildcards: false,
            v4: v4.into(),
            v6: v6.into(),
            reverse_v4: reverse_v4.into(),
            reverse_v6: reverse_v6.into(),
        };
        table.places = table.place_all();
        table.has_wildcards = (0..table.len()).any(|it| table.name(it).starts_with(WILDCARD));
        (table, refused, refusals)
    }
}

impl Table {
    /// Returns how many names it has.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Returns whether it has no names.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    fn name(&self, index: usize) -> &[u8] {
        let end = self.hosts.get(index + 1).map_or(self.names.len(), |next| next.name as usize);
        &self.names[self.hosts[index].name as usize..end]
    }

    fn v4(&self, index: usize) -> &[Ipv4Addr] {
        let end = self.hosts.get(index + 1).map_or(self.v4.len(), |next| next.v4 as usize);
        &self.v4[self.hosts[index].v4 as usize..end]
    }

    fn v6(&self, index: usize) -> &[Ipv6Addr] {
        let end = self.hosts.get(index + 1).map_or(self.v6.len(), |next| next.v6 as usize);
        &self.v6[self.hosts[index].v6 as usize..end]
    }

    fn place_all(&self) -> Box<[u32]> {
        let mut places = vec![0; (2 * self.len()).next_power_of_two()];
        for index in 0..self.len() {
            let mut at = hash(self.name(index)) & (places.len() - 1);
            while places[at] != 0 {
                at = (at + 1) & (places.len() - 1);
            }
            places[at] = index as u32 + 1;
        }
        places.into()
    }

    fn index(&self, name: &[u8]) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        let mut at = hash(name) & mask;
        loop {
            let index = (self.places[at] as usize).checked_sub(1)?;
            if self.name(index) == name {
                return Some(index);
            }
            at = (at + 1) & mask;
        }
    }

    /// Returns the host `name`, or the wildcard that matches it.
    fn find(&self, name: &[u8]) -> Option<usize> {
        self.index(name).or_else(|| {
            let parent = name::parent(name).filter(|_| self.has_wildcards)?;
            let wildcard = name::joined(WILDCARD, parent)?;
            self.index(&wildcard)
        })
    }

    /// Returns the names of `address`, without wildcards.
    fn names_of(&self, address: IpAddr) -> Vec<&[u8]> {
        let indexes: Vec<u32> = match address {
            IpAddr::V4(it) => equal(&self.reverse_v4, it),
            IpAddr::V6(it) => equal(&self.reverse_v6, it),
        };
        let names = indexes.into_iter().map(|index| self.name(index as usize));
        names.filter(|name| !name.starts_with(WILDCARD)).collect()
    }

    /// Returns the names, in wire form, whose answers differ between this table and `after`,
    /// including names of reverse zones. A wildcard counts as all names below it.
    pub fn changed(&self, after: &Self) -> Vec<Box<[u8]>> {
        let mut changed = Vec::new();
        let mut note = |name: &[u8]| {
            let name = name.strip_prefix(WILDCARD).filter(|rest| rest.len() > 1).unwrap_or(name);
            changed.push(name.into());
        };
        let (mut one, mut two) = (0, 0);
        loop {
            let names = [(self, one), (after, two)]
                .map(|(table, at)| (at < table.hosts.len()).then(|| table.name(at)));
            let order = match names {
                [None, None] => break,
                [Some(_), None] => std::cmp::Ordering::Less,
                [None, Some(_)] => std::cmp::Ordering::Greater,
                [Some(one), Some(two)] => one.cmp(two),
            };
            if order.is_ne() || (self.v4(one), self.v6(one)) != (after.v4(two), after.v6(two)) {
                names[usize::from(order.is_gt())].into_iter().for_each(&mut note);
            }
            one += usize::from(order.is_le());
            two += usize::from(order.is_ge());
        }
        let addresses = |table: &Self| {
            let v4 = table.v4.iter().map(|&it| IpAddr::V4(it));
            v4.chain(table.v6.iter().map(|&it| IpAddr::V6(it))).collect::<Vec<_>>()
        };
        let mut all = [addresses(self), addresses(after)].concat();
        all.sort_unstable();
        all.dedup();
        all.retain(|&address| self.names_of(address) != after.names_of(address));
        changed.extend(all.into_iter().map(reverse_name));
        changed
    }
}

impl Hosts {
    /// Returns the answer to a question for `qtype` at `name`, in lower-case wire form; `None` if
    /// the next rule should answer.
    pub fn answer(&self, name: &[u8], qtype: u16) -> Option<Made> {
        let Self { options, table } = self;
        if !options.zones.hold(name) {
            return None;
        }
        if qtype == rtype::PTR {
            return self.pointers(name);
        }
        let Some(index) = table.find(name) else {
            let goes_on = options.fallthrough.as_ref().is_some_and(|zones| zones.hold(name));
            return (!goes_on).then(|| Made::failed(NOT_A_HOST));
        };
        let records = match qtype {
            rtype::A => {
                let row = |it: &Ipv4Addr| Row::new(name, rtype::A, options.ttl, &it.octets());
                table.v4(index).iter().map(row).collect()
            }
            rtype::AAAA => {
                let row = |it: &Ipv6Addr| Row::new(name, rtype::AAAA, options.ttl, &it.octets());
                table.v6(index).iter().map(row).collect()
            }
            _ => Vec::new(),
        };
        Some(made(records))
    }

    fn pointers(&self, name: &[u8]) -> Option<Made> {
        let Reverse::Address(address) = reverse::parse(name).filter(|_| self.options.reverse)?
        else {
            return None;
        };
        let names = self.table.names_of(address);
        let row = |target: &[u8]| Row::pointing(name, rtype::PTR, self.options.ttl, target);
        (!names.is_empty()).then(|| made(names.into_iter().map(row).collect()))
    }

    /// Returns whether `name`, in wire form and lower case, is in the table.
    pub fn knows(&self, name: &[u8]) -> bool {
        self.options.zones.hold(name)
            && (self.table.find(name).is_some() || self.pointers(name).is_some())
    }
}

fn made(records: Vec<Row>) -> Made {
    let rcode = rcode::NOERROR;
    Made::new(Rows { rcode, authoritative: true, records, ..Rows::default() })
}

/// The operator chooses the names of a table, so the seed need not be secret.
fn hash(name: &[u8]) -> usize {
    FixedState::default().hash_one(name) as usize
}

/// Returns the indexes for `address` in `pairs`, which must be sorted.
fn equal<A: Ord + Copy>(pairs: &[(A, u32)], address: A) -> Vec<u32> {
    let start = pairs.partition_point(|(it, _)| *it < address);
    let found = pairs[start..].iter().take_while(|(it, _)| *it == address);
    found.map(|(_, index)| *index).collect()
}

/// Parses a name of a hosts file: printable ASCII, `*` only as its first label.
fn parse(word: &str) -> Option<Box<[u8]>> {
    let rest = word.strip_prefix("*.").unwrap_or(word);
    let is_printable = rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*');
    (is_printable && rest != ".").then(|| name::parse(word)).flatten()
}

/// Returns the name in `in-addr.arpa` or `ip6.arpa` for `address`.
fn reverse_name(address: IpAddr) -> Box<[u8]> {
    let text = hickory_proto::rr::Name::from(address).to_string();
    name::parse(&text).expect("digits and short labels are a valid name")
}

/// The default TTL, in seconds.
pub const TTL: u32 = 3_600;
/// The first label of a wildcard.
const WILDCARD: &[u8] = b"\x01*";
/// The maximum of bytes of all names of a table.
const NAMES_LEN_MAX: usize = 64 << 20;
/// How many refused lines are described.
const REFUSED_MAX: usize = 10;
/// The maximum of characters of a description.
const REASON_LEN_MAX: usize = 200;
const NOT_A_HOST: &str = "this name is not in the hosts table, and fallthrough is not set";

#[cfg(test)]
mod tests;
