//! Aliases of one server whose target another server answers: the queries, and the size of replies.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{FAR, NEAR, Running, server, stub};
use crate::fixture::dns::{self, PATIENCE};
use crate::fixture::upstream::{Behaviour, Upstream};

const DB: &str = "db.shop.svc.cluster.local. A";

/// Starts a kubedns with the alias shop/db of `target`.
async fn kubedns(target: &str) -> Upstream {
    let kubedns = Upstream::start(NEAR).await;
    kubedns.answer(DB, &[&format!("db.shop.svc.cluster.local. 30 CNAME {target}")]);
    kubedns
}

/// Returns the owners and data of the records of the answer to [`DB`].
async fn answered(cache: &Running) -> Vec<String> {
    let answer = dns::ask_udp(cache.dns, DB).await;
    assert_eq!(answer.status, "NOERROR", "{answer:?}");
    let shape = |text: &String| {
        let words: Vec<&str> = text.split(' ').collect();
        format!("{} {}", words[0], words[words.len() - 1])
    };
    answer.answers.iter().map(shape).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_in_a_stub_domain_is_asked_of_its_servers() {
    let kubedns = kubedns("db.corp.example.").await;
    let (corp, outside) = (Upstream::start(FAR).await, Upstream::start(FAR).await);
    corp.answer("db.corp.example. A", &["db.corp.example. 30 A 10.0.0.1"]);
    outside.answer("db.corp.example. A", &["db.corp.example. 30 A 10.0.0.2"]);
    let flags = [stub("cluster.local", &kubedns), stub("corp.example", &corp), server(&outside)];
    let cache = Running::start(&flags).await;
    for _ in 0..2 {
        let whole = ["db.corp.example. 10.0.0.1", "db.shop.svc.cluster.local. db.corp.example."];
        assert_eq!(answered(&cache).await, whole);
    }
    let asked = [&corp, &outside].map(|upstream| upstream.asked("db.corp.example. A"));
    assert_eq!(asked, [1, 0]);
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_one_label_is_a_name() {
    let (kubedns, outside) = (kubedns("intranet.").await, Upstream::start(FAR).await);
    outside.answer("intranet. A", &["intranet. 30 A 10.0.0.1"]);
    let cache = Running::start(&[stub("cluster.local", &kubedns), server(&outside)]).await;
    let whole = ["db.shop.svc.cluster.local. intranet.", "intranet. 10.0.0.1"];
    assert_eq!(answered(&cache).await, whole);
    assert_eq!((kubedns.asked("intranet. A"), outside.asked("intranet. A")), (0, 1));
    cache.stop().await;
}

/// CoreDNS's `handler_test.go`: the upstream truncates the target of an ExternalName.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_many_records_is_truncated_behind_its_alias() {
    let (kubedns, outside) = (kubedns("big.example.").await, Upstream::start(FAR).await);
    let records: Vec<String> =
        (0..90).map(|number| format!("big.example. 30 A 10.0.1.{number}")).collect();
    outside.answer("big.example. A", &records.iter().map(String::as_str).collect::<Vec<_>>());
    let cache = Running::start(&[stub("cluster.local", &kubedns), server(&outside)]).await;
    for _ in 0..2 {
        for (said, most) in [(None, 512), (Some(1_232), 1_232)] {
            let (reply, size) = exchange(&cache, said).await;
            assert!(reply.metadata.truncation && size <= most, "{said:?}: {size}");
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
            let types: Vec<RecordType> =
                reply.answers.iter().map(|record| record.record_type()).collect();
            let (first, rest) = types.split_first().expect("the alias");
            assert_eq!(*first, RecordType::CNAME);
            assert!(rest.len() > 10 && rest.iter().all(|&rtype| rtype == RecordType::A));
        }
        let whole = dns::ask_tcp(cache.dns, DB).await;
        assert_eq!((whole.answers.len(), whole.truncated), (91, false));
    }
    // an upstream that truncates without a reason
    let small = Upstream::start(FAR).await;
    small.answer("big.example. A", &["big.example. 30 A 10.0.0.1"]);
    small.behave(Behaviour::Truncates);
    let other = Running::start(&[stub("cluster.local", &kubedns), server(&small)]).await;
    let whole = ["big.example. 10.0.0.1", "db.shop.svc.cluster.local. big.example."];
    assert_eq!(answered(&other).await, whole);
    other.stop().await;
    cache.stop().await;
}

/// Asks for [`DB`] over UDP. Returns the reply with its records in order, and its size.
async fn exchange(cache: &Running, said: Option<u16>) -> (Message, usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(cache.dns).await.unwrap();
    socket.send(&dns::query(DB, said)).await.unwrap();
    let mut buffer = [0; 4_096];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    (Message::from_vec(&buffer[..length]).unwrap(), length)
}
