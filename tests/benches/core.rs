//! Micro-benchmarks of the core, one for each step of a query: `cargo bench -p tests`.
//!
//! There are no sockets, and the only clock is the benchmark's. `tests/README.md` explains how to
//! read them, and how to add one.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use dnscache::cache::{Bounds, Cache, Entry, Question};
use dnscache::lifetime::Limits;
use dnscache::normalise::{Asked, reduce};
use kubedns::answer::answer;
use kubedns::name::Name;
use kubedns::project::{Input, Kind, change};
use kubedns::records::{Records, Zone};
use kubedns::store::new;
use serde_json::{Value, from_value, json};
use shared::clock::Moment;
use shared::wire::{NameBuffer, Query, Reply, Transport, UDP_SIZE_MAX, rtype};

fn main() {
    divan::main();
}

/// Returns a query for `name` with OPT.
fn query(name: &str, qtype: u16) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(Name::parse(name).expect("a name").wire());
    message.extend([(qtype >> 8) as u8, qtype as u8, 0, 1]);
    message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    message
}

/// Returns a reply with `count` addresses, without OPT.
fn reply(name: &str, count: u8) -> Vec<u8> {
    let mut message = query(name, rtype::A);
    message.truncate(message.len() - 11);
    (message[2], message[3], message[7], message[11]) = (0x81, 0x80, count, 0);
    for last in 0..count {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 10, 0, 0, last]);
    }
    message
}

/// Screens a datagram.
#[divan::bench]
fn screen(bencher: Bencher<'_, '_>) {
    let message = query("web.shop.svc.cluster.local", rtype::A);
    let mut name = NameBuffer::new();
    bencher.bench_local(|| {
        let query = Query::screen(black_box(&message), Transport::Udp, &mut name);
        query.map(|query| query.name().len()).ok()
    });
}

/// Screens a query, finds it among 10,000 entries, and writes the reply with lower TTLs: all of a
/// hit except the sockets. By number of addresses. 100 of them do not fit into a datagram.
#[divan::bench(args = [1, 10, 100])]
fn cache_hit(bencher: Bencher<'_, '_>, addresses: u8) {
    let cache = Cache::new(Bounds { entries: 10_000, bytes: 64 << 20, stale_secs: 0 });
    let stored = Moment::default() + Duration::from_secs(1_000);
    let messages: Vec<Vec<u8>> =
        (0..9_000).map(|n| query(&format!("h{n}.example.test"), rtype::A)).collect();
    let mut name = NameBuffer::new();
    for (number, message) in messages.iter().enumerate() {
        let query = Query::screen(message, Transport::Udp, &mut name).expect("a query");
        let entry = Entry::new(&reply(&format!("h{number}.example.test"), addresses), 0);
        cache.insert(&Question::of(&query), &entry.expect("a reply"), 300, stored);
    }
    let (mut buffer, mut turn) = ([0; UDP_SIZE_MAX], 0);
    bencher.bench_local(|| {
        turn = (turn + 4_999) % messages.len();
        let query = Query::screen(&messages[turn], Transport::Udp, &mut name).expect("a query");
        let mut reply = Reply::new(&query, &mut buffer);
        black_box(cache.get(&query, stored, &mut reply));
        reply.finish()
    });
}

/// Reduces an upstream's reply to an entry.
#[divan::bench(args = [1, 10])]
fn reduce_reply(bencher: Bencher<'_, '_>, addresses: u8) {
    let said = reply("web.example.test", addresses);
    let name = Name::parse("web.example.test").expect("a name");
    bench_reduce(bencher, &said, &name, rtype::A);
}

fn bench_reduce(bencher: Bencher<'_, '_>, said: &[u8], name: &Name, qtype: u16) {
    let asked =
        Asked { name: name.wire(), qtype, dnssec_ok: false, owned: false, is_theirs: &|_, _| true };
    let limits = Limits { ttl_min: 0, ttl_max: 86_400, negative_max: 300 };
    bencher.bench_local(|| reduce(black_box(said), &asked, &limits).map(|reply| reply.entry.len()));
}

/// Reduces the most expensive replies of 64 KiB: 4,000 records whose owner is a pointer to a name
/// of 110 labels, either next to the question or as the answer to it. Both must take less than 2
/// ms.
#[divan::bench(args = ["beside", "asked"])]
fn reduce_crafted(bencher: Bencher<'_, '_>, place: &str) {
    let long = ["a"; 110].join(".");
    let question = if place == "asked" { &long } else { "web.example.test" };
    let mut said = query(question, rtype::TXT);
    said.truncate(said.len() - 11);
    let owner = said.len();
    let data = [0, 16, 0, 1, 0, 0, 1, 44, 0, 2, 1, b'x'];
    said.extend_from_slice(Name::parse(&long).expect("a name").wire());
    said.extend(data);
    for _ in 1..4_000 {
        said.extend((0xc000 | owner as u16).to_be_bytes());
        said.extend(data);
    }
    (said[2], said[3], said[11]) = (0x81, 0x80, 0);
    said[6..8].copy_from_slice(&4_000_u16.to_be_bytes());
    let name = Name::parse(question).expect("a name");
    bench_reduce(bencher, &said, &name, rtype::TXT);
}

fn service(index: usize, spec: Value) -> Input {
    let metadata = json!({"name": format!("s{index}"), "namespace": "shop"});
    Input::Service(from_value(json!({"metadata": metadata, "spec": spec})).expect("a Service"))
}

fn slice(service: &str, endpoints: usize) -> Input {
    let address = |n: usize| format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255);
    let endpoints: Vec<Value> =
        (0..endpoints).map(|n| json!({"addresses": [address(n)], "zone": ZONES[n % 3]})).collect();
    let labels = json!({"kubernetes.io/service-name": service});
    let object = json!({
        "metadata": {"name": format!("{service}-1"), "namespace": "shop", "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 80}],
    });
    Input::EndpointSlice(from_value(object).expect("an EndpointSlice"))
}

/// Projects an object to a change of records.
#[divan::bench(args = [1, 100, 1_000])]
fn project_slice(bencher: Bencher<'_, '_>, endpoints: usize) {
    let input = slice("s0", endpoints);
    bencher.bench_local(|| change(black_box(&input)));
}

/// Returns the records of `services` Services with a cluster IP each, and of `s0`, which is
/// headless, with 1,000 endpoints in three topology zones.
fn cluster(services: usize) -> Arc<Records> {
    let mut zone = Zone::new("cluster.local").expect("a domain");
    zone.zonal = true;
    let (mut writer, reader) = new(zone);
    let spec = |n: usize| {
        let ports = json!([{"name": "http", "port": 80}]);
        match n {
            0 => json!({"clusterIP": "None", "ports": ports}),
            n => json!({"clusterIP": format!("10.96.{}.{}", n >> 8, n & 255), "ports": ports}),
        }
    };
    let services = (0..services).map(|n| service(n, spec(n)));
    for input in services.chain([slice("s0", 1_000)]) {
        writer.apply(change(&input).0);
    }
    Kind::ALL.into_iter().for_each(|kind| writer.synced(kind));
    writer.publish(0).expect("something has changed");
    reader.snapshot()
}

const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];

const QUESTIONS: [(&str, u16); 8] = [
    ("s7.shop.svc.cluster.local", rtype::A),
    ("s7.shop.svc.cluster.local", rtype::AAAA),
    ("_http._tcp.s7.shop.svc.cluster.local", rtype::SRV),
    ("www.example.com.shop.svc.cluster.local", rtype::A),
    ("s0.shop.svc.cluster.local", rtype::A),
    ("zone-b.pin._zone.s0.shop.svc.cluster.local", rtype::A),
    ("s0.shop.svc.cluster.local", rtype::SRV),
    ("zone-b.pin._zone.s0.shop.svc.cluster.local", rtype::SRV),
];

/// Answers a query as kubedns: cluster IP, NODATA, SRV, NXDOMAIN of a search path, 1,000 endpoints,
/// and those of one topology zone. The last two again as SRV. By number of Services.
#[divan::bench(args = [0, 1, 2, 3, 4, 5, 6, 7], consts = [100, 10_000])]
fn kubedns_answer<const SERVICES: usize>(bencher: Bencher<'_, '_>, question: usize) {
    let records = cluster(SERVICES);
    let message = query(QUESTIONS[question].0, QUESTIONS[question].1);
    let (mut name, mut buffer, mut turn) = (NameBuffer::new(), [0; UDP_SIZE_MAX], 0);
    bencher.bench_local(|| {
        turn += 1;
        let query = Query::screen(&message, Transport::Udp, &mut name).expect("a query");
        let mut reply = Reply::new(&query, &mut buffer);
        answer(&query, &records, turn, &mut reply);
        reply.finish()
    });
}
