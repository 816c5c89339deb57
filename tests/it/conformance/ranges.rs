//! The addresses that belong to the cluster if no flag sets them: those of ServiceCIDRs and Nodes,
//! which are added and removed. Tests the effect on reverse names.
//!
//! Uses kubedns's core, and the routes of dnscache, because both must agree.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dnscache::route::{After, Route, Routes};
use kubedns::name::reverse;
use kubedns::project::{Kind, ObjectId};
use kubedns::records::{PodMode, Ranges, ReverseZone, Source, Zone};
use kubedns::store::{Changed, Published};
use proptest::prelude::*;
use shared::name::Text;
use shared::name::parse;
use shared::prefix::Prefix;
use shared::reverse::Reverse;

use super::{check, zone};
use crate::fixture::cluster::Cluster;

const SERVICES: &str = "
{kind: ServiceCIDR, metadata: {name: kubernetes},
 spec: {cidrs: [10.96.0.0/12, 'fd00:10:96::/108']}}";
const NODES: &str = "
{kind: Node, metadata: {name: a}, spec: {podCIDR: 10.244.2.0/23, podCIDRs: [10.244.2.0/23]}}
---
{kind: Node, metadata: {name: b}, spec: {podCIDRs: [10.244.5.0/24, 'fd00:10:244:5::/64']}}
---
{kind: Node, metadata: {name: c}}";
const OBJECTS: &str = "
{kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.7}}
---
{kind: Service, metadata: {name: edge, namespace: shop}, spec: {clusterIP: None}}
---
kind: EndpointSlice
metadata: {name: edge-pods, namespace: shop, labels: {kubernetes.io/service-name: edge}}
addressType: IPv4
endpoints:
- {addresses: [10.9.0.1], hostname: pod, targetRef: {kind: Pod, name: pod, namespace: shop}}
---
kind: EndpointSlice
metadata: {name: edge-hosts, namespace: shop, labels: {kubernetes.io/service-name: edge}}
addressType: IPv4
endpoints: [{addresses: [192.168.7.7], hostname: near}, {addresses: [10.244.2.9]}]";
/// The reverse name of `fd12::1`.
const NEAR: &str = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.1.d.f.ip6.arpa. PTR";
const SERVICE: &str = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.";

fn cluster(parts: &[&str]) -> Cluster {
    Cluster::of(zone(), &parts.join("\n---\n"))
}

/// Returns the names that `published` lists, in order.
fn names(published: Option<Published>) -> Vec<String> {
    let Changed::Names(names) = published.expect("a change").changed else { panic!("everything") };
    names.iter().map(|name| Text(name).to_string()).collect()
}

#[test]
fn service_ranges_and_pod_ranges_are_the_clusters() {
    let cluster = cluster(&[OBJECTS, SERVICES, NODES]);
    check(
        &cluster,
        &[
            ("7.0.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR web.shop.svc.cluster.local."]),
            ("8.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("255.255.111.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("0.0.112.10.in-addr.arpa. PTR", "REFUSED", &[]),
            ("255.255.95.10.in-addr.arpa. PTR", "REFUSED", &[]),
            ("97.10.in-addr.arpa. SOA", "NXDOMAIN", &[]),
            ("10.in-addr.arpa. SOA", "NODATA", &[]), // 10.96.0.7 is below
            ("1.3.244.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("1.4.244.10.in-addr.arpa. PTR", "REFUSED", &[]),
            ("1.5.244.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("x.5.244.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("x.6.244.10.in-addr.arpa. PTR", "REFUSED", &[]),
            // networks next to the cluster
            ("2.1.50.10.in-addr.arpa. PTR", "REFUSED", &[]),
            ("50.10.in-addr.arpa. NS", "REFUSED", &[]),
            ("8.7.168.192.in-addr.arpa. PTR", "REFUSED", &[]),
            (NEAR, "REFUSED", &[]),
            ("1.0.0.127.in-addr.arpa. PTR", "REFUSED", &[]),
            ("8.8.8.8.in-addr.arpa. PTR", "REFUSED", &[]),
            // a Pod has a name at any address, another endpoint only at an address of the cluster
            ("1.0.9.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR pod.edge.shop.svc.cluster.local."]),
            ("7.7.168.192.in-addr.arpa. PTR", "REFUSED", &[]),
            (
                "9.2.244.10.in-addr.arpa. PTR",
                "NOERROR",
                &["@ PTR 10-244-2-9.edge.shop.svc.cluster.local."],
            ),
        ],
    );
    assert_eq!(cluster.ask(&format!("{SERVICE} PTR")).status, "NXDOMAIN");
    let refused = cluster.ask("2.1.50.10.in-addr.arpa. PTR");
    assert_eq!(refused.error.map(|(code, _)| code), Some(20), "not authoritative");
    cluster.check_reason("2.1.50.10.in-addr.arpa. PTR", "10.96.0.0/12, 10.244.2.0/23");
}

#[test]
fn each_source_does_without_the_other() {
    let check = |parts: &[&str], rows: &[(&str, &str)]| {
        let cluster = cluster(&[&[OBJECTS], parts].concat());
        for (name, status) in rows {
            assert_eq!(cluster.ask(&format!("{name}.in-addr.arpa. PTR")).status, *status, "{name}");
        }
    };
    check(&[SERVICES], &[("8.0.96.10", "NXDOMAIN"), ("1.5.244.10", "REFUSED")]);
    check(&[NODES], &[("8.0.96.10", "REFUSED"), ("1.5.244.10", "NXDOMAIN")]);
    let private =
        [("8.0.96.10", "NXDOMAIN"), ("1.5.244.10", "NXDOMAIN"), ("2.1.50.10", "NXDOMAIN")];
    check(&[], &private);
    check(&["{kind: Node, metadata: {name: c}}"], &private);
    check(&["{kind: ServiceCIDR, metadata: {name: odd}, spec: {cidrs: []}}"], &private);
}

#[test]
fn private_addresses_stay_the_clusters_until_both_sources_were_heard() {
    let mut cluster = Cluster::empty(zone());
    cluster.apply(&[OBJECTS, SERVICES].join("\n---\n"));
    for kind in [Kind::Service, Kind::EndpointSlice, Kind::Namespace, Kind::ServiceCidr] {
        cluster.writer.synced(kind);
    }
    cluster.writer.publish(0);
    let status = |cluster: &Cluster| cluster.ask("2.1.50.10.in-addr.arpa. PTR").status;
    assert_eq!(status(&cluster), "NXDOMAIN", "Nodes may yet say that it is the cluster's");
    cluster.writer.settle(Kind::Node);
    let changed = names(cluster.writer.publish(0));
    assert_eq!(status(&cluster), "REFUSED");
    let covers = |name: &&str| changed.iter().any(|zone| format!(".{name}").ends_with(zone));
    for name in ["50.10.in-addr.arpa.", "168.192.in-addr.arpa.", "127.in-addr.arpa."] {
        assert!(covers(&name), "{name} is not in {changed:?}");
    }
    assert!(!covers(&"8.in-addr.arpa.") && !covers(&"2.ip6.arpa."), "{changed:?}");
}

#[test]
fn ranges_come_and_go() {
    let mut cluster = cluster(&[OBJECTS, SERVICES, NODES]);
    let office = "{kind: ServiceCIDR, metadata: {name: office}, spec: {cidrs: [RANGE]}}";
    let apply = |cluster: &mut Cluster, cidr: &str| {
        cluster.apply(&office.replace("RANGE", cidr));
        names(cluster.writer.publish(0))
    };
    assert_eq!(apply(&mut cluster, "10.50.0.0/16"), ["50.10.in-addr.arpa."]);
    assert_eq!(cluster.ask("2.1.50.10.in-addr.arpa. PTR").status, "NXDOMAIN");
    // Endpoints get names, and lose them again.
    let changed = apply(&mut cluster, "192.168.0.0/16");
    assert!(changed.contains(&"168.192.in-addr.arpa.".to_owned()), "{changed:?}");
    let near = cluster.ask("7.7.168.192.in-addr.arpa. PTR").answers;
    assert_eq!(near, ["7.7.168.192.in-addr.arpa. 30 IN PTR near.edge.shop.svc.cluster.local."]);
    assert_eq!(cluster.ask("192.in-addr.arpa. SOA").status, "NODATA");
    cluster.delete(ObjectId::new(Kind::ServiceCidr, "", "office"));
    let changed = names(cluster.writer.publish(0));
    assert!(
        changed.contains(&"192.in-addr.arpa.".to_owned()),
        "no longer above a name: {changed:?}"
    );
    assert_eq!(cluster.ask("7.7.168.192.in-addr.arpa. PTR").status, "REFUSED");
    assert_eq!(cluster.ask("192.in-addr.arpa. SOA").status, "REFUSED");
    // An object without a change is not announced.
    cluster.apply(SERVICES);
    assert!(cluster.writer.publish(0).is_none());
    cluster.apply(&office.replace("RANGE", "10.97.0.0/16"));
    assert!(cluster.writer.publish(0).is_none(), "it is the cluster's already");
    // A relist that no longer has a Node.
    let relist = cluster.writer.begin_relist(Kind::Node, None);
    cluster.apply("{kind: Node, metadata: {name: a}, spec: {podCIDR: 10.244.2.0/23}}");
    cluster.writer.finish_relist(relist);
    assert_eq!(
        names(cluster.writer.publish(0)),
        ["5.244.10.in-addr.arpa.", "5.0.0.0.4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa."]
    );
}

#[test]
fn the_address_of_a_verified_pod_is_the_clusters() {
    let mut verified = zone();
    verified.pods = PodMode::Verified;
    let mut cluster = Cluster::of(verified, &[OBJECTS, SERVICES].join("\n---\n"));
    let pod = "{kind: Pod, metadata: {name: a, namespace: shop},
        status: {podIPs: [{ip: 10.9.0.5}, {ip: 'fd12::1'}]}}";
    let status = |cluster: &Cluster, question: &str| cluster.ask(question).status;
    let questions = ["5.0.9.10.in-addr.arpa. PTR", NEAR];
    assert_eq!(questions.map(|question| status(&cluster, question)), ["REFUSED"; 2]);
    cluster.apply(pod);
    let changed = names(cluster.writer.publish(0));
    for question in questions {
        assert_eq!(status(&cluster, question), "NXDOMAIN", "{question}");
        let name = question.split(' ').next().unwrap().to_owned();
        assert!(changed.contains(&name), "{name} is not in {changed:?}");
    }
    assert_eq!(status(&cluster, "x.5.0.9.10.in-addr.arpa. PTR"), "NXDOMAIN");
    assert_eq!(status(&cluster, "6.0.9.10.in-addr.arpa. PTR"), "REFUSED");
    cluster.delete(ObjectId::new(Kind::Pod, "shop", "a"));
    assert!(names(cluster.writer.publish(0)).contains(&"5.0.9.10.in-addr.arpa.".to_owned()));
    assert_eq!(questions.map(|question| status(&cluster, question)), ["REFUSED"; 2]);
}

#[test]
fn a_flag_overrides_what_the_cluster_says() {
    let mut flagged: Zone = zone();
    flagged.cidrs = [shared::prefix::parse("10.50.0.0/16").unwrap()].into();
    let cluster = Cluster::of(flagged, &[OBJECTS, SERVICES, NODES].join("\n---\n"));
    let status = |name: &str| cluster.ask(&format!("{name}.in-addr.arpa. PTR")).status;
    assert_eq!(status("2.1.50.10"), "NXDOMAIN");
    assert_eq!(status("8.0.96.10"), "REFUSED");
    assert_eq!(status("7.0.96.10"), "NOERROR");
}

/// Generates prefixes that differ in few bits, so that they overlap, touch and nest, and a global
/// one.
fn prefixes() -> impl Strategy<Value = Vec<Prefix>> {
    let v4 = (0..16_u32, 24..=32_u8)
        .prop_map(|(low, bits)| Prefix::of(Ipv4Addr::from_bits(V4 | low << 4).into(), bits));
    let v6 = (0..16_u128, 116..=128_u8)
        .prop_map(|(low, bits)| Prefix::of(Ipv6Addr::from_bits(V6 | low << 6).into(), bits));
    let global = (8..=32_u8).prop_map(|bits| Prefix::of(Ipv4Addr::new(9, 9, 9, 9).into(), bits));
    proptest::collection::vec(prop_oneof![4 => v4, 4 => v6, 1 => global], 0..6)
}

const V4: u32 = 0x0a60_0000;
const V6: u128 = 0xfd00 << 112;

/// Returns the name of each address of a small set of addresses, and of its ancestors, with the
/// first and last address of the name.
fn world() -> Vec<(String, IpAddr, IpAddr)> {
    let v4 = (0..0x200).map(|low| Ipv4Addr::from_bits(V4 | low).into());
    let v6 = (0..0x400).map(|low| Ipv6Addr::from_bits(V6 | low).into());
    let others = ["9.9.9.9", "8.8.8.8", "192.168.7.7", "2600::1"].map(|text| text.parse().unwrap());
    let mut names = Vec::new();
    for address in v4.chain(v6).chain(others) {
        let name = reverse(address);
        let mut rest = name.wire();
        while let Some(read) = shared::reverse::parse(rest) {
            let (first, last) = read.range();
            assert!(!matches!(read, Reverse::Nothing(..)));
            names.push((Text(rest).to_string(), first, last));
            rest = &rest[1 + usize::from(rest[0])..];
        }
    }
    names.sort();
    names.dedup();
    names
}

fn text(ReverseZone { first, labels }: &ReverseZone) -> String {
    let text = Text(reverse(*first).wire()).to_string();
    text.splitn(labels + 1, '.').last().unwrap().to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// If a name changes its owner, it is at or below a listed name. All listed names change their
    /// owner.
    #[test]
    fn what_is_announced_is_what_changes(before in prefixes(), after in prefixes()) {
        let is_in = |prefixes: &[Prefix], address| {
            prefixes.iter().any(|prefix| prefix.contains_range(address, address))
        };
        let [one, other] =
            [&before, &after].map(|all| Ranges::of(Source::Objects, all.iter().copied()));
        let listed: Vec<String> = one.changed(&other).iter().map(text).collect();
        let is_listed = |name: &str| {
            listed.iter().any(|zone| name == zone || name.ends_with(&format!(".{zone}")))
        };
        for (name, first, last) in world() {
            let changed = one.hold(first, last) != other.hold(first, last);
            prop_assert!(!changed || is_listed(&name), "{} is not in {:?}", name, listed);
            if first == last {
                prop_assert_eq!(one.hold(first, last), is_in(&before, first));
            }
        }
        for zone in &listed {
            let (first, last) = shared::reverse::parse(&parse(zone).unwrap()).unwrap().range();
            prop_assert!(one.hold(first, last) != other.hold(first, last), "{}", zone);
        }
        prop_assert_eq!(&Ranges::of(Source::Objects, one.prefixes()), &one);
        prop_assert!(one.with(&other).changed(&other.with(&one)).is_empty());
    }

    /// kubedns either answers a reverse name or refuses it, by the addresses of the name. dnscache
    /// asks kubedns first, and decides only by its answer.
    #[test]
    fn a_name_is_the_clusters_or_beyond_it(cidrs in prefixes()) {
        let texts: Vec<String> = cidrs.iter().map(|cidr| format!("'{cidr}'")).collect();
        let object = format!(
            "{{kind: ServiceCIDR, metadata: {{name: x}}, spec: {{cidrs: [{}]}}}}",
            texts.join(", ")
        );
        let cluster = cluster(&[&object]);
        let flags = ["/cluster.local/in-addr.arpa/ip6.arpa/127.0.0.1#10053", "192.0.2.1"];
        let flags = flags.map(|flag| flag.parse().unwrap());
        let keys = shared::config_dir::parse(
            &[("stubDomains".to_owned(), r#"{"10.in-addr.arpa": ["192.0.2.2"]}"#.into())].into(),
        );
        let routes = Routes::new(&flags, &keys.unwrap(), &[]);
        let ranges = match &cidrs[..] {
            [] => Ranges::default(),
            all => Ranges::of(Source::Objects, all.iter().copied()),
        };
        for (name, first, last) in world() {
            let is_apex = ["in-addr.arpa.", "ip6.arpa."].contains(&&*name);
            let is_ours = is_apex || ranges.hold(first, last);
            let answer = cluster.ask(&format!("{name} PTR"));
            prop_assert_eq!(answer.status == "REFUSED", !is_ours, "{} {:?}", name, cidrs);
            prop_assert_eq!(answer.authoritative, is_ours);
            let error = answer.error.map(|(code, _)| code);
            prop_assert_eq!(error, (!is_ours).then_some(20), "{}", name);

            let wired = parse(&name).unwrap();
            prop_assert!(matches!(routes.route(&wired), Route::Group(_)));
            prop_assert!(routes.is_owned(&wired));
            let beyond = routes.beyond(&wired).expect("a reverse name");
            let by_default = Ranges::default().hold(first, last);
            prop_assert!(beyond.after == After::Refused || !by_default, "{}", name);
        }
    }
}
