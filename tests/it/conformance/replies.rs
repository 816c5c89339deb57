//! The limits of a reply, and answers that follow the objects.
//!
//! Sizes, turns, the state before the first full list, changed names and the serial.

use kubedns::project::{Kind, ObjectId};
use kubedns::records::PodMode;
use proptest::prelude::*;
use shared::wire::Transport;

use super::{SHOP, check, zone};
use crate::fixture::cluster::Cluster;

#[test]
fn nothing_is_denied_before_everything_is_known() {
    let mut cluster = Cluster::empty(zone());
    cluster.apply(SHOP);
    for kind in [Kind::Service, Kind::EndpointSlice, Kind::Namespace] {
        assert!(!cluster.writer.is_synced());
        assert!(cluster.writer.publish(0).is_none());
        for question in [
            "web.shop.svc.cluster.local. A",
            "nope.shop.svc.cluster.local. A",
            "db.shop.svc.cluster.local. A",
            "7.0.96.10.in-addr.arpa. PTR",
            "99.0.96.10.in-addr.arpa. PTR",
            "cluster.local. SOA",
        ] {
            let answer = cluster.ask(question);
            assert_eq!(answer.status, "SERVFAIL", "{question}");
            assert_eq!(answer.error.map(|(code, _)| code), Some(14), "{question}");
            assert!(!answer.authoritative);
        }
        assert_eq!(cluster.ask("example.com. A").status, "REFUSED");
        cluster.writer.synced(kind);
    }
    assert!(cluster.writer.publish(0).is_some());
    assert_eq!(cluster.ask("web.shop.svc.cluster.local. A").status, "NOERROR");
    assert_eq!(cluster.ask("nope.shop.svc.cluster.local. A").status, "NXDOMAIN");
}

/// Returns the shop with a headless Service `name` of `count` endpoints, in slices of at most 100.
pub fn with_headless(name: &str, count: usize) -> Cluster {
    let mut cluster = Cluster::of(zone(), SHOP);
    cluster.apply(&format!(
        "{{kind: Service, metadata: {{name: {name}, namespace: shop}}, spec: {{clusterIP: None}}}}"
    ));
    let indexes: Vec<usize> = (0..count).collect();
    for (slice, indexes) in indexes.chunks(100).enumerate() {
        let endpoint = |index: &usize| {
            format!("{{addresses: [10.2.{slice}.{}], hostname: {name}-{index}}}", index % 100)
        };
        let endpoints: Vec<String> = indexes.iter().map(endpoint).collect();
        cluster.apply(&format!(
            "kind: EndpointSlice\n\
             metadata:\n  name: {name}-{slice}\n  namespace: shop\n  \
             labels: {{kubernetes.io/service-name: {name}}}\n\
             addressType: IPv4\n\
             ports: [{{name: http, port: 80}}]\n\
             endpoints: [{}]\n",
            endpoints.join(", ")
        ));
    }
    cluster.sync();
    cluster
}

#[test]
fn replies_hold_whole_records_and_every_endpoint_has_its_turn() {
    let cluster = with_headless("big", 1_000);
    let question = "big.shop.svc.cluster.local. A";
    let udp = cluster.ask(question);
    assert!(udp.truncated && udp.size <= 1_232 && udp.size > 1_232 - 16, "{}", udp.size);
    let plain = cluster.ask_plain(question);
    assert!(plain.truncated && plain.size <= 512 && plain.size > 512 - 16, "{}", plain.size);
    let tcp = cluster.ask_tcp(question);
    assert!(!tcp.truncated);
    assert_eq!(tcp.answers.len(), 1_000);

    let mut seen = std::collections::HashMap::new();
    for _ in 0..2_000 {
        for record in cluster.ask(question).answers {
            *seen.entry(record).or_insert(0_usize) += 1;
        }
    }
    let mean = seen.values().sum::<usize>() / 1_000;
    assert_eq!(seen.len(), 1_000, "every endpoint is answered some time");
    assert!(seen.values().all(|&n| n > mean * 8 / 10 && n < mean * 12 / 10), "mean {mean}");

    let srv = "_http._tcp.big.shop.svc.cluster.local. SRV";
    let udp = cluster.ask(srv);
    assert!(udp.truncated && udp.additionals.is_empty() && udp.size <= 1_232);
    assert!(udp.answers.len() > 15);
    let tcp = cluster.ask_tcp(srv);
    assert_eq!(tcp.answers.len(), 1_000);
    assert!(!tcp.truncated, "additional records that do not fit are no truncation");
    assert!(tcp.additionals.len() > 100, "{}", tcp.additionals.len());
    let owner = tcp.additionals.last().unwrap().split(' ').next().unwrap();
    assert!(tcp.answers.iter().any(|record| record.ends_with(owner)));
}

#[test]
fn the_longest_names_fit() {
    let [zone, host, service, namespace] = [('z', 57), ('h', 63), ('s', 63), ('n', 63)]
        .map(|(letter, count)| letter.to_string().repeat(count));
    let cluster = Cluster::of(
        kubedns::records::Zone::new(&zone).unwrap(),
        &format!(
            "{{kind: Service, metadata: {{name: {service}, namespace: {namespace}}}, \
             spec: {{clusterIP: None}}}}\n---\n\
             kind: EndpointSlice\n\
             metadata: {{name: a, namespace: {namespace}, \
             labels: {{kubernetes.io/service-name: {service}}}}}\n\
             addressType: IPv4\n\
             ports: [{{port: 80}}]\n\
             endpoints: [{{addresses: [10.1.0.1], hostname: {host}}}]\n"
        ),
    );
    let target = format!("{host}.{service}.{namespace}.svc.{zone}.");
    let srv = cluster.ask(&format!("{service}.{namespace}.svc.{zone}. SRV"));
    assert!(srv.answers[0].ends_with(&format!(" SRV 0 100 80 {target}")), "{srv:?}");
    assert_eq!(srv.additionals, [format!("{target} 30 IN A 10.1.0.1")]);
    assert_eq!(cluster.ask(&format!("{target} A")).answers, srv.additionals);
}

#[test]
fn additional_records_give_way_before_answers() {
    let cluster = with_headless("few", 18);
    let answer = cluster.ask("_http._tcp.few.shop.svc.cluster.local. SRV");
    assert_eq!(answer.answers.len(), 18);
    assert!(!answer.truncated && answer.additionals.len() < 18, "{answer:#?}");
}

/// RFC 2181 section 9: an additional RRset must be complete or absent.
#[test]
fn additional_rrsets_are_whole_or_left_out() {
    for hosts in 12..=15 {
        let mut endpoints = Vec::new();
        for index in 0..hosts * 3 {
            endpoints.push(format!("{{addresses: [10.2.0.{index}], hostname: h{}}}", index / 3));
        }
        let cluster = Cluster::of(
            zone(),
            &format!(
                "{{kind: Service, metadata: {{name: tri, namespace: shop}}, \
                 spec: {{clusterIP: None}}}}\n---\n\
                 kind: EndpointSlice\n\
                 metadata: {{name: tri, namespace: shop, \
                 labels: {{kubernetes.io/service-name: tri}}}}\n\
                 addressType: IPv4\n\
                 ports: [{{name: http, port: 80}}]\n\
                 endpoints: [{}]\n",
                endpoints.join(", ")
            ),
        );
        let answer = cluster.ask("_http._tcp.tri.shop.svc.cluster.local. SRV");
        assert_eq!((answer.answers.len(), answer.truncated), (hosts, false));
        let mut sets = std::collections::BTreeMap::new();
        for record in &answer.additionals {
            *sets.entry(record.split(' ').next().unwrap()).or_insert(0) += 1;
        }
        assert!(!sets.is_empty() && sets.values().all(|&count| count == 3), "{sets:?}");
    }
    let mut many = zone();
    many.name_server = (0..100).map(|last| [10, 96, 0, last].into()).collect();
    let cluster = Cluster::of(many, SHOP);
    assert_eq!(cluster.ask("cluster.local. NS").additionals, Vec::<String>::new());
    assert_eq!(cluster.ask_tcp("cluster.local. NS").additionals.len(), 100);
}

#[test]
fn records_follow_objects() {
    let mut cluster = Cluster::of(zone(), SHOP);
    let web = || ObjectId::new(Kind::Service, "shop", "web");
    let names = |cluster: &mut Cluster| {
        cluster.writer.publish(0).map(|published| format!("{:?}", published.changed))
    };
    assert_eq!(names(&mut cluster), None, "nothing changed");
    cluster.apply(SHOP);
    assert_eq!(names(&mut cluster), None, "the same objects again");

    cluster.delete(web());
    assert_eq!(
        names(&mut cluster).unwrap(),
        "Names([\"web.shop.svc.cluster.local.\", \"alias.shop.svc.cluster.local.\", \
         \"chain.shop.svc.cluster.local.\", \"7.0.96.10.in-addr.arpa.\"])"
    );
    check(
        &cluster,
        &[
            ("web.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("_http._tcp.web.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("7.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("1.1.1.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            ("10-1-1-1.web.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
        ],
    );
    cluster.delete(ObjectId::new(Kind::EndpointSlice, "shop", "web-1"));
    assert_eq!(names(&mut cluster), None, "a slice without its Service answers nothing");
    cluster.apply(SHOP);
    names(&mut cluster).unwrap();
    check(
        &cluster,
        &[
            ("web.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7"]),
            ("7.0.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR web.shop.svc.cluster.local."]),
        ],
    );
    // from cluster IP to headless: all changed names
    cluster
        .apply("{kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: None}}");
    names(&mut cluster).unwrap();
    check(
        &cluster,
        &[
            ("web.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.1.1"]),
            ("7.0.96.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
        ],
    );
    // a namespace is added and removed
    cluster.apply("{kind: Namespace, metadata: {name: fresh}}");
    assert_eq!(
        names(&mut cluster).unwrap(),
        r#"Names(["fresh.svc.cluster.local.", "fresh.pod.cluster.local."])"#
    );
    check(&cluster, &[("fresh.svc.cluster.local. A", "NODATA", &[])]);
    cluster.delete(ObjectId::new(Kind::Namespace, "", "fresh"));
    names(&mut cluster).unwrap();
    check(&cluster, &[("fresh.svc.cluster.local. A", "NXDOMAIN", &[])]);
}

#[test]
fn a_pod_that_changes_in_nothing_that_counts_is_no_news() {
    let mut zone = zone();
    zone.pods = PodMode::Verified;
    let mut cluster = Cluster::of(zone, SHOP);
    let mut is_news = |metadata: &str, address: &str| {
        cluster.apply(&format!(
            "{{kind: Pod, metadata: {{name: web-0, namespace: shop{metadata}}}, \
             status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}]}}}}"
        ));
        cluster.writer.publish(0).is_some()
    };
    assert!(is_news("", "10.1.9.1"));
    assert!(!is_news("", "10.1.9.1"), "the same Pod again");
    assert!(!is_news(", labels: {app: web}", "10.1.9.1"));
    assert!(!is_news(", resourceVersion: '77'", "10.1.9.1"));
    assert!(is_news("", "10.1.9.2"));
}

#[test]
fn the_serial_grows() {
    let mut cluster = Cluster::of(zone(), SHOP);
    let mut publish = |revision: u64, port: u16| {
        cluster.apply(&format!(
            "{{kind: Service, metadata: {{name: web, namespace: shop}}, \
             spec: {{clusterIP: 10.96.0.7, ports: [{{port: {port}}}]}}}}"
        ));
        let published = cluster.writer.publish(revision).unwrap();
        (published.generation, published.serial)
    };
    assert_eq!(publish(0, 1), (2, 2), "without a revision it counts");
    assert_eq!(publish(1_000, 2), (3, 1_000));
    assert_eq!(publish(1_000, 3), (4, 1_001), "two publications never share one");
    assert_eq!(publish(2_000, 4), (5, 2_000));
    assert_eq!(publish(0xffff_ffff, 5), (6, 2_001), "RFC 1982: that is not after 2,000");
    assert_eq!(publish(0x7fff_0000, 6), (7, 0x7fff_0000));
    assert_eq!(publish(0xf000_0000, 7), (8, 0xf000_0000));
    assert_eq!(publish(0x1_0000_0005, 8), (9, 5), "wraps");
}

#[test]
fn explanations_name_the_object_or_what_is_missing() {
    let cluster = Cluster::of(zone(), SHOP);
    let check = |question: &str, expected: &str| cluster.check_reason(question, expected);
    // records, and the objects that they are made from
    check("web.shop.svc.cluster.local A", "IN A 10.96.0.7\n    from Service shop/web\n");
    check("db-0.db.shop.svc.cluster.local A", "IN A 10.1.0.1\n    from EndpointSlice shop/db-a\n");
    check(
        "db.shop.svc.cluster.local A",
        "IN A 10.1.0.3\n    from EndpointSlice shop/db-a and EndpointSlice shop/db-b\n",
    );
    check("1.0.1.10.in-addr.arpa PTR", "    from EndpointSlice shop/db-a\n");
    check("3.0.1.10.in-addr.arpa PTR", "    from EndpointSlice shop/db-");
    check("7.0.96.10.in-addr.arpa PTR", "    from Service shop/web\n");
    check(
        "alias.shop.svc.cluster.local A",
        "CNAME web.shop.svc.cluster.local.\n    from Service shop/alias\n",
    );
    check("mail.shop.svc.cluster.local A", "mail.example.com. is in another zone");
    // the other types that the name owns
    check("web.shop.svc.cluster.local AAAA", "owns records of other types: A, SRV\n");
    check("_tcp.web.shop.svc.cluster.local A", "owns nothing; names below it do");
    // the objects that are missing
    check("web.nope.svc.cluster.local A", "there is no Namespace nope, and no Service in it");
    check("nope.shop.svc.cluster.local A", "there is no Service nope in namespace shop");
    check("orphan.shop.svc.cluster.local A", "EndpointSlice shop/orphan-a waits for it");
    check("idle.shop.svc.cluster.local A", "is headless and none of its 1 endpoints is ready\n");
    check(
        "leaving.shop.svc.cluster.local A",
        "none of its 2 endpoints is ready, 1 are terminating",
    );
    check("none.shop.svc.cluster.local A", "Service shop/none is headless and has no endpoints");
    check(
        "x.db.shop.svc.cluster.local A",
        "no published endpoint of Service shop/db has the hostname x",
    );
    check(
        "_x._tcp.db.shop.svc.cluster.local SRV",
        "Service shop/db has no port _x with protocol _tcp",
    );
    check("_udp.db.shop.svc.cluster.local SRV", "no named port with protocol _udp");
    check("a.b.c.db.shop.svc.cluster.local A", "has the hostname c");
    check("x.mail.shop.svc.cluster.local A", "Service shop/mail is an ExternalName");
    check("x.shop.pod.cluster.local A", "x is no address with dashes");
    check("10-0-0-1.nope.pod.cluster.local A", "there is no Namespace nope");
    check("x.cluster.local A", "nothing in the zone is called x.cluster.local");
    check("9.9.9.10.in-addr.arpa PTR", "has an address below 9.10.in-addr.arpa");
    check("example.com A", "is neither below cluster.local. nor about an address of the cluster");
    check("circle.shop.svc.cluster.local A", "SERVFAIL");
    check("a.pin._zone.db.shop.svc.cluster.local A", "names of topology zones are off: --zonal");
}

/// Generates a label: a word with a meaning in some place, or any bytes.
fn label() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: [&str; 22] = [
        "svc",
        "pod",
        "dns",
        "ns",
        "shop",
        "db",
        "db-0",
        "web",
        "alias",
        "circle",
        "_tcp",
        "_http",
        "_",
        "*",
        "10-1-0-3",
        "fd00-1--1",
        "--",
        "1",
        "10",
        "f",
        "in-addr",
        "dns-version",
    ];
    prop_oneof![
        6 => prop::sample::select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..=63),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 5_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_question_has_a_reply(
        labels in prop::collection::vec(label(), 0..8),
        zone in prop::sample::select(&["cluster.local", "in-addr.arpa", "ip6.arpa", "arpa"][..]),
        qtype in prop_oneof![prop::sample::select(&[1, 5, 6, 12, 28, 33, 255][..]), any::<u16>()],
    ) {
        thread_local!(static SHOP_ONCE: Cluster = Cluster::of(super::zone(), SHOP));
        let mut name: Vec<u8> = Vec::new();
        for label in labels.iter().map(Vec::as_slice).chain(zone.split('.').map(str::as_bytes)) {
            name.push(label.len() as u8);
            name.extend_from_slice(label);
        }
        name.push(0);
        prop_assume!(name.len() <= 255);
        let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&name);
        message.extend(qtype.to_be_bytes());
        message.extend([0, 1]);
        SHOP_ONCE.with(|cluster| {
            cluster.exchange(&message, Transport::Udp);
            cluster.exchange(&message, Transport::Tcp);
        });
    }
}
