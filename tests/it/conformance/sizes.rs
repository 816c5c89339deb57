//! The size of a reply, by the size that the client sends, and the limits of sizes.

use std::collections::HashMap;

use hickory_proto::op::Message;
use shared::wire::{NameBuffer, Query, Refusal, Transport, UDP_SIZE_MAX, rcode, refuse};

use super::replies::with_headless;
use super::{SHOP, zone};
use crate::fixture::cluster::Cluster;
use crate::fixture::dns;

#[test]
fn a_datagram_has_512_to_1232_bytes_whatever_the_client_says() {
    let cluster = with_headless("big", 1_000);
    let question = "big.shop.svc.cluster.local. A";
    for (said, most) in [
        (0, 512),
        (100, 512),
        (512, 512),
        (900, 900),
        (1_232, 1_232),
        (4_096, 1_232),
        (65_535, 1_232),
    ] {
        let answer = cluster.exchange(&dns::query(question, Some(said)), Transport::Udp);
        let size = answer.size;
        assert!(answer.truncated && size <= most && size > most - 16, "{said}: {size}");
    }
}

/// RFC 6891 section 6.1.3: the code has two parts, and the upper part is in OPT.
#[test]
fn another_version_of_edns_is_refused_by_an_extended_code() {
    let mut message = dns::query("web.shop.svc.cluster.local. A", Some(1_232));
    let version = message.len() - 5;
    message[version] = 1;
    let mut name = NameBuffer::new();
    let refusal = Query::screen(&message, Transport::Udp, &mut name).expect_err("version 1");
    assert_eq!(refusal, Refusal::Rcode(rcode::BADVERS));
    let mut buffer = [0; 512];
    let length = refuse(&message, refusal, UDP_SIZE_MAX as u16, &mut buffer).expect("a reply");
    let opt = message.len() - 11;
    assert_eq!(buffer[3] & 0x0f, 0, "the lower four bits of 16");
    assert_eq!(buffer[4..12], [0, 1, 0, 0, 0, 0, 0, 1], "the question and OPT, nothing else");
    assert_eq!(buffer[12..opt], message[12..opt], "the question as it was asked");
    assert_eq!(buffer[opt..length], [0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0], "version 0");
    let reply = Message::from_vec(&buffer[..length]).expect("a DNS message");
    assert_eq!(u16::from(reply.metadata.response_code), rcode::BADVERS);
}

/// RFC 2181 sections 5 and 9: a client must not treat a part of an RRset as the whole.
#[test]
fn what_no_message_can_hold_says_so_over_tcp() {
    let cluster = with_headless("huge", 5_000);
    for question in ["huge.shop.svc.cluster.local. A", "huge.shop.svc.cluster.local. SRV"] {
        let tcp = cluster.ask_tcp(question);
        assert!(tcp.truncated && tcp.answers.len() > 1_000 && tcp.size > 65_000, "{question}");
        assert_eq!(tcp.additionals, Vec::<String>::new());
    }
    let most = with_headless("most", 4_000);
    let tcp = most.ask_tcp("most.shop.svc.cluster.local. A");
    assert_eq!((tcp.truncated, tcp.answers.len()), (false, 4_000));
}

#[test]
fn a_thousand_endpoints_fit_over_tcp_with_equal_weights() {
    for count in [101, 1_000, 1_001] {
        let cluster = with_headless("big", count);
        let addresses = cluster.ask_tcp("big.shop.svc.cluster.local. A");
        assert_eq!((addresses.answers.len(), addresses.truncated), (count, false));
        let services = cluster.ask_tcp("_http._tcp.big.shop.svc.cluster.local. SRV");
        assert_eq!((services.answers.len(), services.truncated), (count, false));
        let is_even = |record: &String| record.contains(" 30 IN SRV 0 100 80 big-");
        assert!(services.answers.iter().all(is_even), "{count}");
    }
}

#[test]
fn every_target_has_its_turn() {
    let mut objects = "
{kind: Service, metadata: {name: both, namespace: shop}, spec: {clusterIP: None}}
"
    .to_owned();
    for (family, prefix) in [("IPv4", "10.2.0."), ("IPv6", "fd00:2::")] {
        let endpoint = |index: u8| format!("{{addresses: [\"{prefix}{index}\"]}}");
        let endpoints: Vec<String> = (1..=60).map(endpoint).collect();
        objects += &format!(
            "---
kind: EndpointSlice
metadata: {{name: both-{family}, namespace: shop, labels: {{kubernetes.io/service-name: both}}}}
addressType: {family}
ports: [{{name: http, port: 80}}]
endpoints: [{}]
",
            endpoints.join(", ")
        );
    }
    let cluster = Cluster::of(zone(), &objects);
    for question in
        ["_http._tcp.both.shop.svc.cluster.local. SRV", "both.shop.svc.cluster.local. SRV"]
    {
        let mut seen = HashMap::new();
        for _ in 0..2_000 {
            let answer = cluster.ask(question);
            assert!(answer.truncated && answer.size <= 1_232);
            for record in answer.answers {
                *seen.entry(record).or_insert(0_usize) += 1;
            }
        }
        let mean = seen.values().sum::<usize>() / 120;
        assert_eq!(seen.len(), 120, "{question}: every endpoint is answered some time");
        let is_fair = |&times: &usize| times > mean * 8 / 10 && times < mean * 12 / 10;
        assert!(seen.values().all(is_fair), "{question}: mean {mean}, {seen:#?}");
    }
}

/// `kubernetes/kubernetes`, `test/e2e/network/dns_scale_records.go`.
#[test]
fn ten_thousand_services_have_their_own_addresses() {
    let mut cluster = Cluster::of(zone(), SHOP);
    let services = || {
        (0..10_000)
            .map(|index| (index, format!("10.{}.{}.{}", 100 + index % 2, index / 200, index % 200)))
    };
    for (index, address) in services() {
        cluster.apply(&format!(
            "{{kind: Service, metadata: {{name: svc-{index}, namespace: scale-{}}}, \
             spec: {{clusterIP: {address}}}}}",
            index % 2
        ));
    }
    cluster.sync().expect("a change");
    for (index, address) in services().step_by(19) {
        let name = format!("svc-{index}.scale-{}.svc.cluster.local.", index % 2);
        let answer = cluster.ask(&format!("{name} A"));
        assert_eq!(answer.answers, [format!("{name} 30 IN A {address}")]);
        let elsewhere = format!("svc-{index}.scale-{}.svc.cluster.local. A", 1 - index % 2);
        assert_eq!(cluster.ask(&elsewhere).status, "NXDOMAIN");
    }
}
