//! The objects in a snapshot: the parts of them that the records keep, written field by field.
//!
//! Core. Knows the fields of Services, slices, Namespaces and Pods; does not know the frame around
//! them. Objects are checked as strictly as those of the API server: `None` is returned if the
//! bytes cannot be decoded.
//!
//! ```text
//! service    1, imported 5: key created:u64 flags:u8 shape ports  slice  2, imported 6: key name
//!            count:u8 address.. count:u8 text..
//! namespace  3 label                                              ready:u32 draining:u32 all:u32
//! pod        4 label address                                      hosts zones addresses.. ports
//! range      7 address bits:u8
//! message    8 path revision:u64 ttl:u32 host priority:u16 weight:u32 port strip:u8 mail:u8 text
//!              group; path, text and group begin with length:u32
//! key        label label      label, name  length:u8 text         ports  count:u16 (name u8 u16)..
//!                             hosts  each:u8 count:u16 label..    zones  count:u16 name..
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use shared::prefix::Prefix;
use shared::saved::bytes::{Cursor, put_text};
use smallvec::SmallVec;

use crate::name::{Name, push_label, push_port_label};
use crate::project::{Kind, Object, ObjectId, Slices, topology_zone};
use crate::records::{
    Endpoint, External, Key, LABELS_LEN_MAX, Namespace, Pod, Ports, Protocol, Schema, Service,
    Shape, Slice, State,
};
use crate::skydns::{Host, Message};
use shared::name::Text;

/// Appends a Service of a zone of that schema.
pub(super) fn put_service(out: &mut Vec<u8>, schema: Schema, service: &Service) {
    // Spelled out, so that a new field is not forgotten here.
    let Service { key, created, shape, ports, publish_not_ready, external } = service;
    out.push(if schema == Schema::Cluster { SERVICE } else { SERVICE_IMPORT });
    put_key(out, key);
    out.extend(created.to_be_bytes());
    out.push(u8::from(*publish_not_ready));
    match shape {
        Shape::ClusterIp(addresses) => {
            out.extend([CLUSTER_IP, addresses.len() as u8]); // one of each family
            addresses.iter().for_each(|&address| put_address(out, address));
        }
        Shape::Headless => out.push(HEADLESS),
        Shape::ExternalName(name) => {
            out.push(EXTERNAL_NAME);
            put_text(out, &name.to_string());
        }
    }
    put_ports(out, ports);
    let none = External::default();
    let External { addresses, hosts } = external.as_deref().unwrap_or(&none);
    out.push(addresses.len() as u8);
    addresses.iter().for_each(|&address| put_address(out, address));
    out.push(hosts.len() as u8);
    hosts.iter().for_each(|host| put_text(out, &host.to_string()));
}

/// Appends the slice of an EndpointSlice in a zone of that schema.
pub(super) fn put_slice(out: &mut Vec<u8>, schema: Schema, slice: &Slice) {
    out.push(if schema == Schema::Cluster { SLICE } else { IMPORTED_SLICE });
    put_key(out, slice.service());
    put_text(out, slice.name().rsplit('/').next().unwrap_or_default());
    out.extend([u8::from(slice.is_v6()), u8::from(slice.is_of_pods())]);
    for state in [State::Ready, State::Draining, State::NotReady] {
        out.extend(slice.prefix(state).to_be_bytes());
    }
    let hosts = distinct((0..slice.len()).map(|index| slice.host(index)));
    // All have the same number of labels: one, and those of the cluster if it is imported.
    out.push(hosts.first().map_or(1, |host| shared::wire::labels(host).count() as u8));
    out.extend((hosts.len() as u16).to_be_bytes());
    hosts.iter().for_each(|host| out.extend_from_slice(host)); // labels begin with their lengths
    let zones = distinct((0..slice.len()).map(|index| slice.zone(index)));
    out.extend((zones.len() as u16).to_be_bytes());
    for zone in &zones {
        let text = Text(zone).to_string();
        put_text(out, text.trim_end_matches('.'));
    }
    for index in 0..slice.len() {
        out.extend_from_slice(slice.rdata(index));
        put_place(out, &hosts, slice.host(index));
        put_place(out, &zones, slice.zone(index));
    }
    put_ports(out, slice.ports());
}

/// Returns each of `words` once, sorted, without empty ones.
fn distinct<'s>(words: impl Iterator<Item = &'s [u8]>) -> Vec<&'s [u8]> {
    let mut words: Vec<&[u8]> = words.filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// Appends the index of `word` in `words`, counted from 1, or 0. If there are no words, it is
/// omitted.
fn put_place(out: &mut Vec<u8>, words: &[&[u8]], word: &[u8]) {
    if !words.is_empty() {
        let place = words.binary_search(&word).map_or(0, |place| place + 1);
        out.extend((place as u16).to_be_bytes());
    }
}

/// Appends the Namespace `label`, in wire form.
pub(super) fn put_namespace(out: &mut Vec<u8>, label: &[u8]) {
    out.push(NAMESPACE);
    out.extend_from_slice(label);
}

/// Appends that a Pod of the namespace `label` has `address`.
pub(super) fn put_pod(out: &mut Vec<u8>, label: &[u8], address: IpAddr) {
    out.push(POD);
    out.extend_from_slice(label);
    put_address(out, address);
}

/// Appends that the addresses of `range` are the cluster's.
pub(super) fn put_range(out: &mut Vec<u8>, range: Prefix) {
    out.push(RANGE);
    put_address(out, range.first());
    out.push(range.bits());
}

/// Appends a message of etcd.
pub(super) fn put_message(out: &mut Vec<u8>, message: &Message) {
    out.push(MESSAGE);
    put_long(out, message.path());
    out.extend(message.revision.to_be_bytes());
    out.extend(message.ttl_secs.to_be_bytes());
    match &message.host {
        Host::None => out.push(NO_HOST),
        Host::Address(address) => {
            out.push(ADDRESS);
            put_address(out, *address);
        }
        Host::Name(name) => {
            out.push(NAME);
            put_text(out, &name.to_string());
        }
    }
    out.extend(message.priority.to_be_bytes());
    out.extend(message.weight.to_be_bytes());
    out.push(u8::from(message.port.is_some()));
    out.extend(message.port.unwrap_or_default().to_be_bytes());
    out.extend([message.strip, u8::from(message.mail)]);
    put_long(out, message.text.as_bytes());
    put_long(out, message.group.as_bytes());
}

/// Reads a message of etcd, whose tag has already been read.
pub(super) fn take_message(cursor: &mut Cursor<'_>) -> Option<Message> {
    let path = take_long(cursor)?;
    let mut labels = shared::wire::labels(path);
    if labels.clone().map(|label| label.len() + 1).sum::<usize>() != path.len() {
        return None;
    }
    labels.next()?;
    let mut message = Message::at(path.into());
    message.revision = cursor.take_u64()?;
    message.ttl_secs = cursor.take_u32()?;
    message.host = match cursor.take_u8()? {
        NO_HOST => Host::None,
        ADDRESS => Host::Address(take_address(cursor)?),
        NAME => Host::Name(Name::parse_asked(cursor.take_text()?).ok()?),
        _ => return None,
    };
    message.priority = cursor.take_u16()?;
    message.weight = cursor.take_u32()?;
    let has_port = cursor.take_bool()?;
    message.port = Some(cursor.take_u16()?).filter(|_| has_port);
    message.strip = cursor.take_u8()?;
    message.mail = cursor.take_bool()?;
    message.text = std::str::from_utf8(take_long(cursor)?).ok()?.into();
    message.group = std::str::from_utf8(take_long(cursor)?).ok()?.into();
    Some(message)
}

/// Appends the length of `bytes` in four bytes, then the bytes.
fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take_long<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let len = cursor.take_u32()?;
    cursor.take(len as usize)
}

/// Reads the next object, whose `tag` has already been read. Returns `None` if the bytes cannot be
/// decoded.
///
/// A Pod gets a name that is not valid for a Pod, because only its address is in the file. A range
/// becomes a ServiceCIDR, whichever object it was read from.
pub(super) fn take_object(tag: u8, cursor: &mut Cursor<'_>) -> Option<(ObjectId, Object)> {
    Some(match tag {
        SERVICE => {
            let (key, [name, namespace]) = take_key(cursor)?;
            let id = ObjectId::new(Kind::Service, namespace, name);
            (id, Object::Service(take_service(key, cursor)?))
        }
        SERVICE_IMPORT => {
            let (key, [name, namespace]) = take_key(cursor)?;
            let id = ObjectId::new(Kind::ServiceImport, namespace, name);
            (id, Object::ServiceImport(take_service(key, cursor)?))
        }
        SLICE | IMPORTED_SLICE => {
            let (key, [_, namespace]) = take_key(cursor)?;
            let name = cursor.take_text()?;
            let id = ObjectId::new(Kind::EndpointSlice, namespace, name);
            let name = format!("{namespace}/{name}").into();
            let slice = Some(take_slice(key, name, tag == IMPORTED_SLICE, cursor)?);
            let slices = match tag {
                SLICE => Slices { own: slice, imported: None },
                _ => Slices { own: None, imported: slice.map(Box::new) },
            };
            (id, Object::EndpointSlice(slices))
        }
        NAMESPACE => {
            let (label, text) = take_label(cursor)?;
            let namespace = Namespace { label: label.into() };
            (ObjectId::new(Kind::Namespace, "", text), Object::Namespace(namespace))
        }
        POD => {
            let (label, text) = take_label(cursor)?;
            let address = take_address(cursor)?;
            let pod = Pod { namespace: label.into(), addresses: [address].into() };
            (ObjectId::new(Kind::Pod, text, &format!("={address}")), Object::Pod(pod))
        }
        RANGE => {
            let first = take_address(cursor)?;
            let range = Prefix::of(first, cursor.take_u8()?);
            let name = range.to_string();
            (ObjectId::new(Kind::ServiceCidr, "", &name), Object::ServiceCidr([range].into()))
        }
        _ => return None,
    })
}

fn take_service(key: Key, cursor: &mut Cursor<'_>) -> Option<Service> {
    let created = u64::from_be_bytes(cursor.take_array()?);
    let publish_not_ready = cursor.take_bool()?;
    let shape = match cursor.take_u8()? {
        CLUSTER_IP => {
            let count = cursor.take_u8()?;
            let addresses: Option<SmallVec<[IpAddr; 2]>> =
                (0..count).map(|_| take_address(cursor)).collect();
            Shape::ClusterIp(addresses.filter(|addresses| !addresses.is_empty())?)
        }
        HEADLESS => Shape::Headless,
        EXTERNAL_NAME => Shape::ExternalName(Name::parse(cursor.take_text()?).ok()?),
        _ => return None,
    };
    let ports = take_ports(cursor)?;
    let count = cursor.take_u8()?;
    let addresses: Option<_> = (0..count).map(|_| take_address(cursor)).collect();
    let count = cursor.take_u8()?;
    let hosts: Option<_> = (0..count).map(|_| Name::parse(cursor.take_text()?).ok()).collect();
    let external = External { addresses: addresses?, hosts: hosts? };
    let external = Some(Box::new(external)).filter(|it| **it != External::default());
    Some(Service { key, created, shape, ports, publish_not_ready, external })
}

fn take_slice(key: Key, name: Arc<str>, imported: bool, cursor: &mut Cursor<'_>) -> Option<Slice> {
    let v6 = cursor.take_bool()?;
    let pods = cursor.take_bool()?;
    let ready = cursor.take_u32()?;
    let draining = cursor.take_u32()?;
    let count = cursor.take_u32()?;
    if !(ready <= draining && draining <= count && count <= ENDPOINTS_MAX) {
        return None;
    }
    let (labels, hosts_count) = (cursor.take_u8()?, cursor.take_u16()?);
    let fits = if imported { labels > 1 || hosts_count == 0 } else { labels == 1 };
    if hosts_count > HOSTS_MAX || !fits {
        return None;
    }
    let mut take_host = || {
        let host: Option<Vec<Vec<u8>>> =
            (0..labels).map(|_| take_label(cursor).map(|(label, _)| label)).collect();
        let host = host?.concat();
        (host.len() + key.len() <= LABELS_LEN_MAX).then_some(host.into())
    };
    let hosts: Option<Vec<Box<[u8]>>> = (0..hosts_count).map(|_| take_host()).collect();
    let hosts = hosts?;
    let zones = take_zones(cursor)?;
    let mut endpoints = Vec::new(); // grows with the input, not with the count in it
    for index in 0..count {
        let address = if v6 {
            Ipv6Addr::from(cursor.take_array::<16>()?).into()
        } else {
            Ipv4Addr::from(cursor.take_array::<4>()?).into()
        };
        let host = take_place(cursor, &hosts)?;
        let zone = take_place(cursor, &zones)?;
        let state = match index {
            index if index < ready => State::Ready,
            index if index < draining => State::Draining,
            _ => State::NotReady,
        };
        endpoints.push(Endpoint { address, host, zone, state });
    }
    Some(Slice::pack(key, name, endpoints, take_ports(cursor)?, pods))
}

/// Reads the topology zones of a slice, as labels in wire form.
fn take_zones(cursor: &mut Cursor<'_>) -> Option<Vec<Box<[u8]>>> {
    let count = cursor.take_u16().filter(|&count| count <= ZONES_MAX)?;
    let mut take = || Some(topology_zone(cursor.take_text()?)).filter(|zone| !zone.is_empty());
    (0..count).map(|_| take()).collect()
}

/// Reads the index that [`put_place`] wrote, and returns the word.
fn take_place(cursor: &mut Cursor<'_>, words: &[Box<[u8]>]) -> Option<Box<[u8]>> {
    let place = if words.is_empty() { 0 } else { cursor.take_u16()? };
    match usize::from(place).checked_sub(1) {
        None => Some(Box::default()),
        Some(place) => words.get(place).cloned(),
    }
}

fn put_key(out: &mut Vec<u8>, key: &Key) {
    out.extend_from_slice(key); // two labels, each with its length
}

/// Reads a key. Also returns its two labels as text.
fn take_key<'a>(cursor: &mut Cursor<'a>) -> Option<(Key, [&'a str; 2])> {
    let (mut key, name) = take_label(cursor)?;
    let (wire, namespace) = take_label(cursor)?;
    key.extend(wire);
    Some((key.into(), [name, namespace]))
}

/// Reads a label. Returns it in wire form, and as text.
fn take_label<'a>(cursor: &mut Cursor<'a>) -> Option<(Vec<u8>, &'a str)> {
    let text = cursor.take_text()?;
    let mut wire = Vec::with_capacity(text.len() + 1);
    push_label(&mut wire, text, |_| false).ok()?;
    Some((wire, text))
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.push(0);
            out.extend(address.octets());
        }
        IpAddr::V6(address) => {
            out.push(1);
            out.extend(address.octets());
        }
    }
}

fn take_address(cursor: &mut Cursor<'_>) -> Option<IpAddr> {
    Some(match cursor.take_bool()? {
        false => Ipv4Addr::from(cursor.take_array::<4>()?).into(),
        true => Ipv6Addr::from(cursor.take_array::<16>()?).into(),
    })
}

fn put_ports(out: &mut Vec<u8>, ports: &Ports) {
    out.extend((ports.iter().count() as u16).to_be_bytes());
    for port in ports.iter() {
        let name = port.label.strip_prefix(b"_").unwrap_or_default();
        out.push(name.len() as u8);
        out.extend_from_slice(name);
        out.push(port.protocol as u8);
        out.extend(port.number.to_be_bytes());
    }
}

fn take_ports(cursor: &mut Cursor<'_>) -> Option<Ports> {
    let mut ports = Vec::new();
    for _ in 0..cursor.take_u16()? {
        let text = cursor.take_text()?;
        let mut label = Vec::new();
        if !text.is_empty() {
            push_port_label(&mut label, text).ok()?;
        }
        let protocol = match cursor.take_u8()? {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            2 => Protocol::Sctp,
            _ => return None,
        };
        ports.push((label, protocol, cursor.take_u16()?));
    }
    Some(Ports::pack(&ports))
}

const SERVICE: u8 = 1;
const SLICE: u8 = 2;
const NAMESPACE: u8 = 3;
const POD: u8 = 4;
const SERVICE_IMPORT: u8 = 5;
const IMPORTED_SLICE: u8 = 6;
const RANGE: u8 = 7;
pub(super) const MESSAGE: u8 = 8;
const NO_HOST: u8 = 0;
const ADDRESS: u8 = 1;
const NAME: u8 = 2;
const CLUSTER_IP: u8 = 0;
const HEADLESS: u8 = 1;
const EXTERNAL_NAME: u8 = 2;
/// The API's limits: 1,000 endpoints in a slice, each with 100 addresses.
const ENDPOINTS_MAX: u32 = 100_000;
/// The API's limit of endpoints, each with a hostname and a topology zone.
const HOSTS_MAX: u16 = 1_000;
const ZONES_MAX: u16 = 1_000;
