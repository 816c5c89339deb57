//! Computes what every name must answer from the objects in the slow way: first all records, and
//! then one rule for which names exist.
//!
//! It must not share code with kubedns, except for the zone's options.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use kubedns::records::{PodMode, Zone};

use super::Answers;
use super::objects::{
    Endpoint, LONG_PORT, Object, Port, Question, Service, Shape, Slice, ZONAL, dashed, questions,
    reverse,
};

/// Owner name, type, data.
type AllRecords = BTreeMap<String, BTreeMap<u16, BTreeSet<String>>>;

/// Returns the answers to every question of the model.
pub fn answers(objects: &[Object], zone: &Zone) -> Answers {
    let all = all_records(objects, zone);
    let mut ancestors = BTreeSet::new();
    for mut name in all.keys().map(String::as_str) {
        while let Some((_, parent)) = name.split_once('.').filter(|(_, parent)| !parent.is_empty())
        {
            ancestors.insert(parent);
            name = parent;
        }
    }
    let mut zones = vec!["z.", "arpa."];
    zones.extend(zone.clusterset.as_ref().map(|_| "m."));
    let pods: BTreeSet<String> = objects
        .iter()
        .filter_map(|object| match object {
            Object::Pod(pod) if zone.pods == PodMode::Verified && !pod.ended => Some(pod),
            _ => None,
        })
        .flat_map(|pod| pod.addresses.iter().map(|address| reverse(address)))
        .collect();
    let is_ours = |name: &str| {
        let is_in = |zone: &&str| {
            name.strip_suffix(*zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let is_known = || all.contains_key(name) || ancestors.contains(name) || pods.contains(name);
        let is_own_range = || OWN_RANGES.iter().any(|range| name.ends_with(range));
        zones.iter().any(is_in) && (!name.ends_with("arpa.") || is_own_range() || is_known())
    };
    let resolve = |question: &Question| match is_ours(&question.name) {
        true => resolve(&all, &ancestors, question, is_ours),
        false => (REFUSED, BTreeSet::new()),
    };
    questions().iter().map(resolve).collect()
}

/// Returns every record, except for pod names made from addresses, and topology zones.
pub fn everything(objects: &[Object], zone: &Zone) -> BTreeSet<String> {
    let made_up = |name: &str| {
        zone.pods == PodMode::Insecure && name.ends_with(".pod.z.") || name.contains("._zone.")
    };
    let mut records = BTreeSet::new();
    for (name, sets) in all_records(objects, zone).iter().filter(|(name, _)| !made_up(name)) {
        for (rtype, set) in sets {
            records.extend(set.iter().map(|data| format!("{name} {rtype} {data}")));
        }
    }
    records
}

fn resolve(
    all: &AllRecords,
    ancestors: &BTreeSet<&str>,
    question: &Question,
    is_ours: impl Fn(&str) -> bool,
) -> (u16, BTreeSet<String>) {
    let (mut name, qtype) = (question.name.clone(), question.qtype);
    let mut records = BTreeSet::new();
    for _ in 0..8 {
        let Some(sets) = all.get(&name) else {
            let exists = ancestors.contains(name.as_str());
            return (if exists { NOERROR } else { NXDOMAIN }, records);
        };
        let Some(target) = sets.get(&CNAME).and_then(|set| set.first()) else {
            for data in sets.get(&qtype).into_iter().flatten() {
                records.insert(format!("{name} {qtype} {data}"));
            }
            return (NOERROR, records);
        };
        records.insert(format!("{name} {CNAME} {target}"));
        if !is_ours(target) {
            return (NOERROR, records);
        }
        name = target.clone();
    }
    (SERVFAIL, BTreeSet::new())
}

fn all_records(objects: &[Object], zone: &Zone) -> AllRecords {
    let mut all = AllRecords::new();
    // Names that exist, but do not own records of these types.
    for name in ["z.", "svc.z.", "pod.z.", "in-addr.arpa.", "ip6.arpa."] {
        all.entry(name.to_owned()).or_default();
    }
    for namespace in existing_namespaces(objects, zone) {
        all.entry(format!("{namespace}.svc.z.")).or_default();
        if zone.pods != PodMode::Disabled {
            all.entry(format!("{namespace}.pod.z.")).or_default();
        }
        if zone.pods == PodMode::Insecure {
            questions().iter().for_each(|question| add_pod(&mut all, &question.name, namespace));
        }
    }
    for object in objects {
        match object {
            Object::Service(service) => add_service(&mut all, objects, service, zone),
            Object::Import(import) if zone.clusterset.is_some() => {
                add_import(&mut all, objects, import, zone);
            }
            Object::Pod(pod) if zone.pods == PodMode::Verified && !pod.ended => {
                for address in &pod.addresses {
                    let name = format!("{}.{}.pod.z.", dashed(address), pod.namespace);
                    add_address(&mut all, &name, address);
                }
            }
            _ => {}
        }
    }
    if zone.clusterset.is_some() {
        for name in ["m.", "svc.m.", "dns.m."] {
            all.entry(name.to_owned()).or_default();
        }
    }
    add_pointers(&mut all, objects, zone);
    all
}

/// Returns the existing namespaces. A namespace exists if its object or an object in it exists.
fn existing_namespaces<'o>(objects: &'o [Object], _: &Zone) -> BTreeSet<&'o str> {
    let namespace = |object: &Object| match object {
        Object::Namespace(name) => Some(*name),
        Object::Service(service) => Some(service.namespace),
        Object::Pod(pod) if !pod.ended => Some(pod.namespace),
        _ => None,
    };
    objects.iter().filter_map(namespace).collect()
}

/// Adds a pod name of the mode `insecure`, in which the name contains the address.
fn add_pod(all: &mut AllRecords, name: &str, namespace: &str) {
    let Some(label) = name.strip_suffix(&format!(".{namespace}.pod.z.")) else { return };
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    let Some(address) = v4.or_else(|| label.replace('-', ":").parse().ok()) else { return };
    add_address(all, name, &address.to_string());
}

fn add_address(all: &mut AllRecords, name: &str, address: &str) {
    let rtype = if address.contains(':') { AAAA } else { A };
    add(all, name, rtype, address.to_owned());
}

fn add(all: &mut AllRecords, name: &str, rtype: u16, data: String) {
    all.entry(name.to_owned()).or_default().entry(rtype).or_default().insert(data);
}

/// Returns the published endpoints of `service`, each with its label and ports.
fn published<'o>(
    objects: &'o [Object],
    service: &Service,
    zone: &Zone,
) -> Vec<(&'o Endpoint, String, &'o Slice)> {
    let slices = objects.iter().filter_map(|object| match object {
        Object::Slice(slice) => Some(slice),
        _ => None,
    });
    let of_service = |slice: &&Slice| {
        slice.namespace == service.namespace && slice.service == Some(service.name)
    };
    count(slices.filter(of_service), service.publish, zone)
}

/// Returns the published endpoints of an import, each with its labels and ports. They are empty if
/// it has addresses of its own.
fn imported<'o>(
    objects: &'o [Object],
    import: &Service,
    zone: &Zone,
) -> Vec<(&'o Endpoint, String, &'o Slice)> {
    if !matches!(import.shape, Shape::Headless) {
        return Vec::new();
    }
    let slices = objects.iter().filter_map(|object| match object {
        Object::Slice(slice) => Some(slice),
        _ => None,
    });
    let of_import = |slice: &&Slice| {
        slice.namespace == import.namespace
            && slice.import.is_some_and(|(name, _)| name == import.name)
    };
    let mut all = count(slices.filter(of_import), false, zone);
    for (_, label, slice) in &mut all {
        let (_, cluster) = slice.import.expect("filtered");
        *label += &format!(".{cluster}");
    }
    all
}

/// Returns the endpoints of `slices` that are published, each with its label and ports.
fn count<'o>(
    slices: impl Iterator<Item = &'o Slice>,
    publish: bool,
    zone: &Zone,
) -> Vec<(&'o Endpoint, String, &'o Slice)> {
    let all: Vec<(&Endpoint, &Slice)> =
        slices.flat_map(|slice| readable(slice).map(move |endpoint| (endpoint, slice))).collect();
    let is_ready = |endpoint: &Endpoint| endpoint.ready != Some(false);
    let fall_back = zone.terminating_fallback && !all.iter().any(|(e, _)| is_ready(e));
    let counts =
        |endpoint: &Endpoint| publish || is_ready(endpoint) || fall_back && endpoint.draining;
    all.into_iter()
        .filter(|(endpoint, _)| counts(endpoint))
        .map(|(endpoint, slice)| (endpoint, endpoint.label(), slice))
        .collect()
}

/// Returns the endpoints of `slice` whose address can be parsed.
fn readable(slice: &Slice) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().filter(|endpoint| !endpoint.address.is_empty())
}

fn add_service(all: &mut AllRecords, objects: &[Object], service: &Service, zone: &Zone) {
    let name = format!("{}.{}.svc.z.", service.name, service.namespace);
    let endpoints = published(objects, service, zone);
    match &service.shape {
        Shape::External(target) => return add(all, &name, CNAME, format!("{target}.")),
        Shape::ClusterIp(ips) => {
            if zone.ignore_empty_service && endpoints.is_empty() {
                return;
            }
            ips.iter().for_each(|ip| add_address(all, &name, ip));
            add_srv(all, &name, &service.ports, &name);
        }
        Shape::Headless => {
            for (endpoint, label, slice) in &endpoints {
                add_address(all, &name, endpoint.address);
                add_srv(all, &name, &slice.ports, &format!("{label}.{name}"));
            }
            if zone.zonal && !endpoints.is_empty() {
                add_zonal(all, &name, &endpoints);
            }
        }
    }
    for (endpoint, label, _) in &endpoints {
        add_address(all, &format!("{label}.{name}"), endpoint.address);
    }
}

/// Adds the names of topology zones below the headless Service `name` that the questions ask for.
fn add_zonal(all: &mut AllRecords, name: &str, endpoints: &[(&Endpoint, String, &Slice)]) {
    for labels in ZONAL {
        let (topology_zone, prefers) = match labels.rsplit_once('.') {
            Some((topology_zone, "pin")) => (topology_zone, false),
            Some((topology_zone, "prefer")) => (topology_zone, true),
            _ => continue,
        };
        let is_in = |endpoint: &Endpoint| endpoint.zone == topology_zone;
        let all_of_them = prefers && !endpoints.iter().any(|(endpoint, ..)| is_in(endpoint));
        let owner = format!("{labels}._zone.{name}");
        all.entry(owner.clone()).or_default();
        for (endpoint, label, slice) in endpoints {
            if all_of_them || is_in(endpoint) {
                add_address(all, &owner, endpoint.address);
                for (_, _, number) in &slice.ports {
                    add(all, &owner, SRV, format!("{number} {label}.{name}"));
                }
            }
        }
    }
}

/// Adds an imported Service. Names of endpoints contain their cluster. If there are clusterset IPs,
/// endpoints do not have names.
fn add_import(all: &mut AllRecords, objects: &[Object], import: &Service, zone: &Zone) {
    let name = format!("{}.{}.svc.m.", import.name, import.namespace);
    if let Shape::ClusterIp(ips) = &import.shape {
        if ips.is_empty() {
            return;
        }
        ips.iter().for_each(|ip| add_address(all, &name, ip));
        add_srv(all, &name, &import.ports, &name);
    }
    all.entry(format!("{}.svc.m.", import.namespace)).or_default();
    for (endpoint, labels, slice) in imported(objects, import, zone) {
        add_address(all, &name, endpoint.address);
        add_srv(all, &name, &slice.ports, &format!("{labels}.{name}"));
        add_address(all, &format!("{labels}.{name}"), endpoint.address);
    }
}

fn add_srv(all: &mut AllRecords, name: &str, ports: &[Port], target: &str) {
    for (port, protocol, number) in ports {
        let data = format!("{number} {target}");
        add(all, name, SRV, data.clone());
        if !port.is_empty() && *port != LONG_PORT {
            let protocol = protocol.to_lowercase();
            add(all, &format!("_{port}._{protocol}.{name}"), SRV, data);
        }
    }
}

/// Adds, for each address, the claims of the namespace that wins it. Claims of imports apply only
/// if there are no others.
fn add_pointers(all: &mut AllRecords, objects: &[Object], zone: &Zone) {
    let (mut own, mut others) = (Claims::new(), Claims::new());
    for object in objects {
        match object {
            Object::Service(service) => {
                let name = format!("{}.{}.svc.z.", service.name, service.namespace);
                add_claims(&mut own, service, &name, published(objects, service, zone));
            }
            Object::Import(import) if zone.clusterset.is_some() => {
                let name = format!("{}.{}.svc.m.", import.name, import.namespace);
                add_claims(&mut others, import, &name, imported(objects, import, zone));
            }
            _ => {}
        }
    }
    others.retain(|address, _| !own.contains_key(address));
    for (address, claims) in own.into_iter().chain(others) {
        let (class, _, namespace) = claims.iter().map(|(rank, _)| *rank).min().expect("a claim");
        for (rank, target) in claims {
            if (rank.0, rank.2) == (class, namespace) {
                add(all, &reverse(address), PTR, target);
            }
        }
    }
}

/// Address: (class, created, namespace) and target.
type Claims<'o> = BTreeMap<&'o str, Vec<((u8, u8, &'o str), String)>>;

/// Adds the claims of the Service `name`.
fn add_claims<'o>(
    claims: &mut Claims<'o>,
    service: &'o Service,
    name: &str,
    endpoints: Vec<(&'o Endpoint, String, &'o Slice)>,
) {
    let created = service.created.unwrap_or(u8::MAX);
    match &service.shape {
        Shape::External(_) => return,
        Shape::Headless => {}
        Shape::ClusterIp(ips) => {
            for ip in ips {
                let rank = (0, created, service.namespace);
                claims.entry(ip).or_default().push((rank, name.to_owned()));
            }
            return;
        }
    }
    for (endpoint, label, slice) in endpoints {
        let of_pods = readable(slice).all(|endpoint| endpoint.pod);
        if !of_pods && matches!(endpoint.address, "8.8.8.8" | "2600::1") {
            continue;
        }
        let rank = (if of_pods { 1 } else { 2 }, created, service.namespace);
        claims.entry(endpoint.address).or_default().push((rank, format!("{label}.{name}")));
    }
}

/// Ancestors of the reverse names that belong to the cluster even if their addresses have no owner.
const OWN_RANGES: [&str; 4] = ["10.in-addr.arpa.", "d.f.ip6.arpa.", "0.ip6.arpa.", "f.ip6.arpa."];
const A: u16 = 1;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const NOERROR: u16 = 0;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const REFUSED: u16 = 5;
