//! Allocations, counted by an allocator, which must be a binary of its own. A hit must not
//! allocate, the cache must allocate as much as it reports, and an idle connection must hold
//! little.
#![allow(clippy::unwrap_used)] // in a test a panic is the message

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use dnscache::cache::{Blame, Bounds, Cache, Entry, Failed, Lookup, Question};
use shared::clock::Moment;
use shared::serve::{self, Asked, Handler, Verdict};
use shared::wire::{NameBuffer, Query, Reply, Transport};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const NAME: &[u8] = b"\x03web\x04shop\x03svc\x07cluster\x05local\x00";

/// Returns a query for addresses of [`NAME`] with type `qtype`.
fn query(qtype: u8) -> Vec<u8> {
    [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], NAME, &[0, qtype, 0, 1]].concat()
}

/// Returns an entry with `count` addresses.
fn entry(count: u8) -> Entry {
    let mut reply = query(1);
    reply[7] = count;
    for last in 0..count {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, last]);
    }
    Entry::new(&reply, 0).unwrap()
}

#[test]
fn a_lookup_allocates_nothing_whatever_it_finds() {
    let start = Moment::default() + Duration::from_secs(1_000);
    let rows = [
        ("a hit", 3, 0, Lookup::Hit),
        ("a hit cut to the client's size", 60, 1, Lookup::Hit),
        ("a hit about to expire", 3, 29, Lookup::Due),
        ("an expired entry", 3, 30, Lookup::Expired),
        ("a miss", 0, 0, Lookup::Miss),
    ];
    for (what, addresses, age, expected) in rows {
        let cache = Cache::new(Bounds { entries: 1_000, bytes: 1 << 20, stale_secs: 60 });
        let question = Question {
            name: NAME,
            qtype: 1,
            qclass: 1,
            dnssec_ok: false,
            checking_disabled: false,
        };
        if addresses > 0 {
            let entry = entry(addresses).following(vec![NAME.into()]);
            cache.insert(&question, &entry, 30, start);
        }
        let message = query(1);
        let now = start + Duration::from_secs(age);
        let mut name = NameBuffer::new();
        let mut buffer = [0; 512];
        let mut ask = || {
            let query = Query::screen(&message, Transport::Udp, &mut name).unwrap();
            let mut reply = Reply::new(&query, &mut buffer);
            let found = cache.get(&query, now, &mut reply);
            (found, reply.finish())
        };
        if expected == Lookup::Due {
            ask();
        }
        let mut found = None;
        let counted = allocation_counter::measure(|| found = Some(ask().0));
        assert_eq!(found, Some(expected), "{what}");
        assert_eq!((counted.count_total, counted.bytes_total), (0, 0), "{what}");
    }
}

#[test]
fn the_cache_counts_its_bytes_as_the_allocator_does() {
    let now = Moment::default() + Duration::from_secs(1_000);
    let bounds = Bounds { entries: 20_000, bytes: 64 << 20, stale_secs: 0 };
    let mut counted_by_cache = 0;
    let counted = allocation_counter::measure(|| {
        let cache = Cache::new(bounds);
        for number in 0..40_000_u32 {
            let name = [&[8], format!("{number:08x}").as_bytes(), &NAME[4..]].concat();
            let reply = [&[0; 12], &*name, &[0, 1, 0, 1]].concat();
            let mut reply = reply;
            reply[7] = 1;
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 1]);
            let question = Question {
                name: &name,
                qtype: 1,
                qclass: 1,
                dnssec_ok: false,
                checking_disabled: false,
            };
            cache.insert(&question, &Entry::new(&reply, 0).unwrap(), 30, now);
        }
        assert!(cache.len() > 19_000, "{}", cache.len());
        counted_by_cache = cache.bytes();
        std::mem::forget(cache);
    });
    let per_entry = counted_by_cache / 20_000;
    assert!(per_entry <= 400, "{per_entry} bytes per entry");
    // An entry is two pieces of memory. The allocator adds 8 to 23 bytes to each of them, which the
    // counter cannot see.
    let (counted, accounted) = (counted.bytes_current as usize, counted_by_cache);
    let added = |each: usize| counted + 2 * 20_000 * each;
    assert!(
        added(8) * 9 <= accounted * 10 && accounted * 10 <= added(23) * 11,
        "allocated {counted} and something, accounted {accounted}"
    );
}

/// Expired answers are kept for a day, so the bounds alone make room. The time is virtual.
#[test]
fn an_hour_of_floods_and_large_replies_takes_no_more_memory_than_configured() {
    let bounds = Bounds { entries: 50_000, bytes: 8 << 20, stale_secs: 86_400 };
    let start = Moment::default() + Duration::from_secs(1_000);
    let (mut worst, mut kept) = (0, 0);
    let counted = allocation_counter::measure(|| {
        let cache = Cache::new(bounds);
        for second in 0..3_600_u32 {
            let now = start + Duration::from_secs(second.into());
            for number in second * 20..second * 20 + 20 {
                let name = [&[8], format!("{number:08x}").as_bytes(), &NAME[4..]].concat();
                let question = Question {
                    name: &name,
                    qtype: 16,
                    qclass: 1,
                    dnssec_ok: false,
                    checking_disabled: false,
                };
                match number % 20 {
                    // A reply of up to 64 KiB in strings of 250 bytes.
                    0 => {
                        let strings = 1 + number / 20 * 37 % 240;
                        let mut reply = [&[0; 12], &*name, &[0, 16, 0, 1]].concat();
                        reply[7] = strings as u8;
                        for _ in 0..strings {
                            reply.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 1, 44, 0, 251, 250]);
                            reply.extend([b'x'; 250]);
                        }
                        let entry = Entry::new(&reply, 0).unwrap();
                        cache.insert(&question, &entry, 1 + number % 300, now);
                    }
                    1..=4 => {
                        let names: [Box<[u8]>; 1] = [name.as_slice().into()];
                        let failed = Failed { code: 2, blame: Blame::NONE, names: &names };
                        cache.fail(&question, &failed, now);
                    }
                    _ => {
                        let entry = entry(3).following(vec![name.as_slice().into()]);
                        cache.insert(&question, &entry, 1 + number % 300, now);
                    }
                }
                worst = worst.max(cache.bytes());
                assert!(cache.len() <= bounds.entries);
            }
            if second % 900 == 0 {
                cache.flush();
            }
        }
        kept = cache.len();
        assert!(cache.changes().evictions > 10_000, "{:?}", cache.changes());
    });
    assert!(kept > 1_000 && worst <= bounds.bytes, "{worst} bytes, {kept} entries");
    let most = counted.bytes_max as usize;
    assert!(most <= bounds.bytes / 10 * 11 + (1 << 20), "{most} bytes at once");
    assert_eq!(counted.bytes_current, 0, "nothing is left");
}

/// Sends an empty reply at once.
struct Mute;

impl Handler for Mute {
    fn answer(&self, _: &Query<'_>, _: &Asked, _: &mut Reply<'_>) -> Verdict {
        Verdict::Send
    }
}

#[test]
fn an_idle_connection_holds_little() {
    const CONNECTIONS: usize = 100;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let sockets = serve::bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap();
    let address = sockets.local_addresses()[0];
    let (stopping, (later, _)) = (CancellationToken::new(), mpsc::channel(1));
    let limits = serve::Limits::default();
    let serving = serve::dns(sockets, limits, stopping.clone(), Arc::new(Mute), later).unwrap();
    // Opens connections and asks one question on each, so that they are idle after use.
    let open = |count: usize| {
        let client = std::thread::spawn(move || {
            let message = query(1);
            let framed = [&[0, message.len() as u8][..], &message].concat();
            (0..count)
                .map(|_| {
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    stream.write_all(&framed).unwrap();
                    stream.read_exact(&mut vec![0; framed.len()]).unwrap();
                    stream
                })
                .collect::<Vec<_>>()
        });
        runtime.block_on(async {
            while !client.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        client.join().unwrap()
    };
    let first = open(1);
    let mut others = Vec::new();
    // The runtime has only this thread, so that allocations of its tasks are counted.
    let counted = allocation_counter::measure(|| others = open(CONNECTIONS));
    let each = counted.bytes_current / CONNECTIONS as i64;
    assert!((1..=4 << 10).contains(&each), "{each} bytes for each idle connection");
    drop((first, others));
    stopping.cancel();
    runtime.block_on(serving.finished()).unwrap();
}
