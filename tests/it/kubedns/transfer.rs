//! Zone transfers: complete, only for allowed clients, and at the client's pace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::watching;
use crate::fixture::dns::{self, PATIENCE, eventually};
use crate::fixture::kubedns::Kubedns;
use tests::api_server::ApiServer;
use tests::objects::{endpoint_slice, imported_slice, namespace, pod, service, service_import};

/// Starts an API server with a headless Service shop/db of 5,000 endpoints with `ports` ports, and
/// a few other Services.
async fn large(ports: u16) -> ApiServer {
    let api = ApiServer::start().await;
    api.apply(namespace("shop"));
    api.apply(service("shop", "web").cluster_ip("10.0.0.7").port("http", 80).port("admin", 81));
    api.apply(service("shop", "mail").external_name("mail.example.com"));
    api.apply(service("shop", "idle"));
    api.apply(endpoint_slice("shop", "web").ready("10.1.0.1").port("http", 8080));
    api.apply(service("shop", "db"));
    for slice in 0..50 {
        let mut object = endpoint_slice("shop", "db").named(&format!("db-{slice}"));
        for port in 0..ports {
            object = object.port(&format!("p{port}"), 3_306 + port);
        }
        for index in 0..100 {
            let address = format!("10.2.{slice}.{index}");
            object = match index % 2 {
                0 => object.ready(&address),
                _ => object.host(&address, &format!("db-{slice}-{index}")),
            };
        }
        api.apply(object);
    }
    api
}

/// Starts a kubedns and waits until it is in sync with `api`.
async fn loaded(api: &ApiServer, flags: &[&str]) -> Kubedns {
    let kubedns = watching(api, flags).await;
    let answer = "web.shop.svc.cluster.local. 30 IN A 10.0.0.7";
    eventually(kubedns.dns, super::WEB, "NOERROR", &[answer]).await;
    kubedns
}

/// Sends a query over TCP. The caller must read the reply.
async fn begin(server: SocketAddr, question: &str) -> TcpStream {
    send(server, &dns::query(question, Some(1_232))).await
}

async fn send(server: SocketAddr, message: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8_192).unwrap(); // so that a slow reader blocks the server soon
    let mut stream = socket.connect(server).await.unwrap();
    stream.write_u16(message.len() as u16).await.unwrap();
    stream.write_all(message).await.unwrap();
    stream
}

async fn next(stream: &mut TcpStream) -> Message {
    let read = async {
        let mut message = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut message).await.unwrap();
        message
    };
    let message = timeout(PATIENCE, read).await.expect("a message in time");
    Message::from_vec(&message).expect("a DNS message")
}

/// Reads to the second SOA, or to a message with an error. Returns the response code, the records
/// between as text, and the number of messages.
async fn rest(mut stream: TcpStream) -> (String, Vec<String>, usize) {
    let mut records = Vec::new();
    let mut messages = 0;
    loop {
        let message = next(&mut stream).await;
        messages += 1;
        let code = format!("{:?}", message.metadata.response_code).to_uppercase();
        if code != "NOERROR" {
            return (code, Vec::new(), messages);
        }
        assert!(message.metadata.authoritative && !message.metadata.truncation);
        records.extend(message.answers);
        let is_soa = |index: usize| records[index].record_type() == RecordType::SOA;
        assert!(is_soa(0), "SOA first");
        if records.len() > 1 && is_soa(records.len() - 1) {
            assert_eq!(records.last(), records.first());
            let between = &records[1..records.len() - 1];
            return (code, between.iter().map(ToString::to_string).collect(), messages);
        }
    }
}

/// Returns an IXFR query for the cluster domain from a client that has the zone with this serial.
fn ixfr(serial: u32) -> Vec<u8> {
    let mut message = dns::query("cluster.local. TYPE251", None);
    message[9] = 1; // NSCOUNT
    message.extend(b"\xc0\x0c\0\x06\0\x01\0\0\0\0\0\x18\xc0\x0c\xc0\x0c");
    message.extend(serial.to_be_bytes());
    message.extend([0; 16]);
    message
}

async fn transfer(server: SocketAddr, question: &str) -> (String, Vec<String>, usize) {
    rest(begin(server, question).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_holds_what_single_queries_answer() {
    let api = large(1).await;
    let flags = ["--transfer", "127.0.0.0/8", "--name-server", "10.96.0.10"];
    let kubedns = loaded(&api, &flags).await;
    let (code, records, messages) = transfer(kubedns.dns, "cluster.local. AXFR").await;
    assert_eq!(code, "NOERROR");
    assert!(messages > 20, "many records per message, and more than one: {messages}");
    let mut sets = BTreeMap::<(String, String), BTreeSet<String>>::new();
    for record in &records {
        let words: Vec<&str> = record.split_whitespace().collect();
        let set = sets.entry((words[0].to_owned(), words[3].to_owned())).or_default();
        assert!(set.insert(record.clone()), "{record} stands there twice");
    }
    // NS, name server, version; CNAME; A, SRV, 2 named ports, 1 endpoint; A, SRV, 1 port, 5,000.
    assert_eq!(sets.len(), 3 + 1 + 5 + 3 + 5_000);
    for (index, ((name, rtype), set)) in sets.iter().enumerate() {
        let is_endpoint = name.ends_with(".db.shop.svc.cluster.local.") && rtype == "A";
        if is_endpoint && index % 50 > 0 {
            assert_eq!(set.len(), 1, "{name}");
            continue;
        }
        let answer = dns::ask(kubedns.dns, &format!("{name} {rtype}")).await;
        let answered: BTreeSet<String> = answer.answers.iter().cloned().collect();
        if set.len() < 5_000 {
            assert_eq!(answered, *set, "{name} {rtype}");
        } else {
            // They do not fit into one message, so a client can get all of them only by a transfer.
            assert!(answered.len() > 700 && answered.is_subset(set), "{name} {rtype}");
        }
    }
    // Reverse zones: one record for each cluster IP and endpoint of a headless service.
    let (_, pointers, _) = transfer(kubedns.dns, "in-addr.arpa. AXFR").await;
    assert_eq!(pointers.len(), 1 + 5_000 + 1, "NS and PTR");
    for pointer in pointers.iter().step_by(500).chain(pointers.last()) {
        let words: Vec<&str> = pointer.split_whitespace().collect();
        let answer = dns::ask(kubedns.dns, &format!("{} {}", words[0], words[3])).await;
        assert_eq!(answer.answers, [pointer.as_str()]);
    }
    let (code, pointers, _) = transfer(kubedns.dns, "ip6.arpa. AXFR").await;
    assert_eq!((&*code, pointers.len()), ("NOERROR", 1));
    kubedns.end().await;
}

/// CoreDNS's `xfr_test.go`: one NS with any number of addresses; both zones; names of
/// `--endpoint-pod-names`.
#[tokio::test]
async fn a_transfer_holds_what_flags_add() {
    let api = super::shop().await;
    let mut sig = service("shop", "sig").cluster_ip("10.0.0.9").port("diameter", 3_868);
    sig.0["spec"]["ports"][0]["protocol"] = "SCTP".into();
    api.apply(sig);
    api.apply(service("shop", "db"));
    let long = "p".repeat(64);
    let mut slice = endpoint_slice("shop", "db").ready("10.1.0.1").ready("10.1.0.2");
    for (index, name) in [&long, "db-6f9c-x2b4k"].into_iter().enumerate() {
        slice.0["endpoints"][index]["targetRef"] =
            serde_json::json!({"kind": "Pod", "name": name, "namespace": "shop"});
        api.apply(pod("shop", name, &format!("10.1.0.{}", index + 1)));
    }
    api.apply(slice);
    api.apply(service_import("shop", "pay").clusterset_ip("10.42.0.1").port("https", 443));
    api.apply(service_import("shop", "db"));
    api.apply(imported_slice("shop", "db", "cluster-a").host("10.3.0.1", "db-0").port("pg", 5_432));
    let flags = "--transfer=127.0.0.0/8 --name-server=10.96.0.10 --name-server=fd00:96::10 \
         --clusterset-domain=clusterset.local --endpoint-pod-names --pods=verified";
    let kubedns = loaded(&api, &flags.split_whitespace().collect::<Vec<_>>()).await;
    let expected: [(&str, &[&str]); 2] = [
        (
            "cluster.local.",
            &[
                "10-1-0-1.db.shop.svc.@ 30 IN A 10.1.0.1",
                "10-1-0-1.shop.pod.@ 30 IN A 10.1.0.1",
                "10-1-0-2.shop.pod.@ 30 IN A 10.1.0.2",
                "@ 30 IN NS ns.dns.@",
                "_diameter._sctp.sig.shop.svc.@ 30 IN SRV 0 100 3868 sig.shop.svc.@",
                "_http._tcp.web.shop.svc.@ 30 IN SRV 0 100 80 web.shop.svc.@",
                "db-6f9c-x2b4k.db.shop.svc.@ 30 IN A 10.1.0.2",
                "db.shop.svc.@ 30 IN A 10.1.0.1",
                "db.shop.svc.@ 30 IN A 10.1.0.2",
                "dns-version.@ 30 IN TXT 1.1.0",
                "ns.dns.@ 30 IN A 10.96.0.10",
                "ns.dns.@ 30 IN AAAA fd00:96::10",
                "sig.shop.svc.@ 30 IN A 10.0.0.9",
                "sig.shop.svc.@ 30 IN SRV 0 100 3868 sig.shop.svc.@",
                "web.shop.svc.@ 30 IN A 10.0.0.7",
                "web.shop.svc.@ 30 IN SRV 0 100 80 web.shop.svc.@",
            ],
        ),
        (
            "clusterset.local.",
            &[
                "@ 30 IN NS ns.dns.@",
                "_https._tcp.pay.shop.svc.@ 30 IN SRV 0 100 443 pay.shop.svc.@",
                "_pg._tcp.db.shop.svc.@ 30 IN SRV 0 100 5432 db-0.cluster-a.db.shop.svc.@",
                "db-0.cluster-a.db.shop.svc.@ 30 IN A 10.3.0.1",
                "db.shop.svc.@ 30 IN A 10.3.0.1",
                "db.shop.svc.@ 30 IN SRV 0 100 5432 db-0.cluster-a.db.shop.svc.@",
                "dns-version.@ 30 IN TXT 1.0.0",
                "ns.dns.@ 30 IN A 10.96.0.10",
                "ns.dns.@ 30 IN AAAA fd00:96::10",
                "pay.shop.svc.@ 30 IN A 10.42.0.1",
                "pay.shop.svc.@ 30 IN SRV 0 100 443 pay.shop.svc.@",
            ],
        ),
    ];
    for (zone, expected) in expected {
        let (code, mut records, _) = transfer(kubedns.dns, &format!("{zone} AXFR")).await;
        records.sort();
        let mut expected: Vec<String> =
            expected.iter().map(|text| text.replace('@', zone)).collect();
        expected.sort();
        assert_eq!((&*code, records), ("NOERROR", expected), "{zone}");
    }
    kubedns.end().await;
}

#[tokio::test]
async fn only_those_who_may_have_a_zone_and_only_ours() {
    let api = super::shop().await;
    let zone = "cluster.local. AXFR";
    for flags in [&[][..], &["--transfer", "10.0.0.0/8", "--transfer", "::1"]] {
        let kubedns = loaded(&api, flags).await;
        for question in [zone, "cluster.local. TYPE251", "shop.svc.cluster.local. AXFR"] {
            assert_eq!(transfer(kubedns.dns, question).await.0, "REFUSED", "{question}");
            assert_eq!(dns::ask_udp(kubedns.dns, question).await.status, "REFUSED", "{question}");
        }
        kubedns.end().await;
    }
    let flags = ["--transfer", "10.0.0.0/8", "--transfer", "127.0.0.1"];
    let kubedns = loaded(&api, &flags).await;
    let whole = transfer(kubedns.dns, zone).await;
    assert!(whole.1.contains(&"web.shop.svc.cluster.local. 30 IN A 10.0.0.7".to_owned()));
    assert_eq!(transfer(kubedns.dns, "CLUSTER.local. AXFR").await.1.len(), whole.1.len());
    assert_eq!(transfer(kubedns.dns, "cluster.local. TYPE251").await.1, whole.1);
    for name in ["shop.svc.cluster.local.", "nope.cluster.local.", "example.com.", "."] {
        let (code, ..) = transfer(kubedns.dns, &format!("{name} AXFR")).await;
        assert_eq!(code, "NOTAUTH", "{name}");
    }
    assert_eq!(dns::ask_tcp(kubedns.dns, "cluster.local. CH AXFR").await.status, "REFUSED");
    assert_eq!(dns::ask_udp(kubedns.dns, zone).await.status, "FORMERR");
    let soa = dns::ask_udp(kubedns.dns, "cluster.local. TYPE251").await;
    assert!(soa.authoritative && soa.answers.len() == 1 && soa.answers[0].contains(" IN SOA "));
    // A client sends the serial of its zone. If it is older, it gets the whole zone. If it is
    // current, it gets only the SOA.
    let rdata = soa.answers[0].split_whitespace().collect::<Vec<_>>();
    let serial: u32 = rdata[6].parse().unwrap();
    let mut stream = send(kubedns.dns, &ixfr(serial)).await;
    let reply = next(&mut stream).await;
    assert_eq!((reply.answers.len(), reply.metadata.authoritative), (1, true));
    let stream = send(kubedns.dns, &ixfr(serial.wrapping_sub(1))).await;
    assert_eq!(rest(stream).await.1, whole.1);
    // A transfer fails until all objects are listed.
    kubedns.end().await;
    api.fails("endpointslices", tests::api_server::Fault::Refuse(500, None));
    let kubedns = watching(&api, &flags).await;
    assert_eq!(transfer(kubedns.dns, zone).await.0, "SERVFAIL");
    kubedns.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_wait_for_themselves_alone() {
    let api = large(8).await;
    let kubedns = loaded(&api, &["--transfer", "127.0.0.1"]).await;
    let zone = "cluster.local. AXFR";
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = begin(kubedns.dns, zone).await;
        assert!(next(&mut stream).await.answers.len() > 100);
        slow.push(stream);
    }
    // Four transfers are running: the fifth fails, and all other queries are answered.
    assert_eq!(transfer(kubedns.dns, zone).await.0, "SERVFAIL");
    let answer = "web.shop.svc.cluster.local. 30 IN A 10.0.0.7";
    assert_eq!(dns::ask_udp(kubedns.dns, super::WEB).await.answers, [answer]);
    assert_eq!(dns::ask_tcp(kubedns.dns, super::WEB).await.answers, [answer]);
    // A transfer has the state of its start. A change is in the next transfer.
    api.apply(service("shop", "web").cluster_ip("10.0.0.8"));
    let answer = "web.shop.svc.cluster.local. 30 IN A 10.0.0.8";
    eventually(kubedns.dns, super::WEB, "NOERROR", &[answer]).await;
    // One client disconnects, which frees its place.
    drop(slow.pop());
    let again = async {
        loop {
            let (code, records, _) = transfer(kubedns.dns, zone).await;
            if code == "NOERROR" {
                return records;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let records = timeout(PATIENCE, again).await.expect("a free place");
    assert!(records.contains(&answer.to_owned()));
    assert_eq!(records.iter().filter(|record| record.contains(" SRV ")).count(), 2 * 40_000);
    kubedns.end().await;
}
