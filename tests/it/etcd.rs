//! SkyDNS records: keys of etcd, questions, and answers.
//!
//! The rules are tables in process. The watch is tested with a real etcd, and the answers with
//! CoreDNS, if there is one.

mod differential;
mod model;
mod real;
mod rules;

use kubedns::name::Name;
use kubedns::records::Zone;
use kubedns::skydns::{Message, path_of_key};

use crate::fixture::cluster::Cluster;

/// Returns zones of keys alone, with a name server at 192.0.2.53.
fn zone(names: &[&str], wildcards: bool) -> Zone {
    let mut zone = Zone::new("cluster.local").unwrap();
    zone.name_server = ["192.0.2.53".parse().unwrap()].into();
    let names: Vec<Name> = names.iter().map(|name| Name::parse(name).unwrap()).collect();
    zone.with_keys(&names, true, wildcards)
}

/// Returns a store with `keys`, each without its prefix, and their values.
fn cluster<'k>(zone: Zone, keys: impl IntoIterator<Item = (&'k str, &'k str)>) -> Cluster {
    let mut cluster = Cluster::empty(zone);
    cluster.writer.set_key_prefix("/skydns/");
    cluster.writer.begin_keys();
    for (key, value) in keys {
        put(&mut cluster, key, value);
    }
    cluster.writer.finish_keys();
    cluster.writer.publish(7);
    cluster
}

/// Sets a key. Panics if it breaks a rule.
fn put(cluster: &mut Cluster, key: &str, value: &str) {
    let path = path_of_key(key).unwrap();
    let message = Message::read(path.clone(), 7, value.as_bytes(), None).unwrap();
    cluster.writer.put_key(&path, Some(message));
}
