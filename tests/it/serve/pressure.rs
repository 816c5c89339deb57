//! Clients that use many resources: large replies that they do not read, long messages, many
//! connections with slow questions. Their memory is bounded, and no query is lost.

use super::*;

const HOSTS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];
/// Unsent replies of one connection. Reading pauses at 64 KiB, and one more reply and a little
/// input can follow.
const HELD_MAX: usize = (128 << 10) + (8 << 10);

/// Waits until `state` is `true`.
async fn until(what: &str, mut state: impl FnMut() -> bool) {
    let wait = async {
        while !state() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect(what);
}

/// Writes the reply to a deferred query: `len` bytes without records.
fn reply_with(outbox: &mut Outbox, deferred: &Deferred, len: usize) {
    outbox.reply(deferred, |buffer| {
        let mut name = NameBuffer::new();
        let written = Reply::new(&deferred.query(&mut name), buffer).finish();
        buffer[written..len.max(written)].fill(0);
        len.max(written)
    });
}

#[tokio::test]
async fn one_connection_holds_little_however_much_it_asks() {
    const QUERIES: u16 = 3_000;
    for host in HOSTS {
        let Some(world) = world_at(host, Limits::default(), 1) else { continue };
        let address = world.address;
        let stream = connect(address);
        let mut writer = stream.try_clone().unwrap();
        let asking = std::thread::spawn(move || {
            let all: Vec<u8> =
                (0..QUERIES).flat_map(|id| framed(&query(id, b"\x03big\0"))).collect();
            writer.write_all(&all).unwrap();
        });
        let counters = Arc::clone(&world.counters);
        until("much waits", || counters.tcp_held_bytes() > 64 << 10).await;
        let held = Arc::clone(&world.counters);
        let reading = tokio::task::spawn_blocking(move || {
            let mut stream = stream;
            (0..QUERIES).all(|id| {
                assert!(held.tcp_held_bytes() <= HELD_MAX, "{} bytes", held.tcp_held_bytes());
                read_framed(&mut stream)[..2] == id.to_be_bytes()
            })
        });
        assert!(reading.await.unwrap(), "each query is answered, in order");
        asking.join().unwrap();
        until("all is given back", || counters.tcp_held_bytes() == 0).await;
    }
}

#[tokio::test]
async fn all_connections_together_hold_no_more_than_the_limit() {
    const MAX: usize = 1 << 20;
    let world = world(Limits { unsent_bytes_max: MAX, ..Limits::default() }, 1);
    let address = world.address;
    let counters = Arc::clone(&world.counters);
    let silent = blocking(move || {
        let all: Vec<u8> = (0..2_000).flat_map(|id| framed(&query(id, b"\x03big\0"))).collect();
        let ask = |_| {
            let mut stream = connect(address);
            stream.write_all(&all).unwrap_or_default(); // it may have been closed already
            stream
        };
        (0..30).map(ask).collect::<Vec<_>>()
    })
    .await;
    until("room is made", || {
        assert!(counters.tcp_held_bytes() <= MAX, "{} bytes", counters.tcp_held_bytes());
        counters.snapshot().event(Event::Evicted) > 0
    })
    .await;
    // Other clients are served meanwhile.
    let answered = blocking(move || {
        let mut stream = connect(address);
        (0..100_u16).all(|id| {
            stream.write_all(&framed(&query(id, b"\x03web\0"))).unwrap();
            read_framed(&mut stream)[..2] == id.to_be_bytes()
        })
    });
    assert!(answered.await);
    drop(silent);
    until("all is given back", || counters.tcp_held_bytes() == 0).await;
}

#[tokio::test]
async fn replies_that_come_later_are_bounded_as_well() {
    const MAX: usize = 1 << 20;
    let mut world = world(Limits { unsent_bytes_max: MAX, ..Limits::default() }, 256);
    let address = world.address;
    let streams = blocking(move || {
        let all: Vec<u8> = (0..64).flat_map(|id| framed(&query(id, b"\x05later\0"))).collect();
        let ask = |_| {
            let mut stream = connect(address);
            stream.write_all(&all).unwrap();
            stream
        };
        (0..2).map(ask).collect::<Vec<_>>()
    })
    .await;
    let mut outbox = Outbox::new();
    for _ in 0..128 {
        let deferred = world.later.recv().await.unwrap();
        reply_with(&mut outbox, &deferred, 65_000);
        assert!(world.counters.tcp_held_bytes() <= MAX, "{}", world.counters.tcp_held_bytes());
    }
    until("those who do not read are cut", || world.counters.tcp_open() == 0).await;
    until("all is given back", || world.counters.tcp_held_bytes() == 0).await;
    drop(streams);
}

#[tokio::test]
async fn a_message_too_long_for_a_query_closes_its_connection() {
    let mut world = world(Limits::default(), 8);
    let address = world.address;
    // The length that is announced, the bytes that are sent, and whether the connection stays open.
    for (announced, sent, stays) in
        [(65_535, 0, false), (4_097, 4_097, false), (4_096, 4_000, true), (4_096, 4_096, true)]
    {
        let client = tokio::task::spawn_blocking(move || {
            let mut stream = connect(address);
            stream.write_all(&framed(&query(1, b"\x05later\0"))).unwrap();
            let mut long = query(2, b"\x03web\0");
            long.resize(sent, 0);
            let announced = u16::try_from(announced).unwrap().to_be_bytes();
            stream.write_all(&[&announced[..], &long].concat()).unwrap();
            stream
        });
        let deferred = world.later.recv().await.unwrap();
        let mut stream = client.await.unwrap();
        if stays {
            let kept = if sent < announced { 2 + sent } else { 0 };
            until("it is read", || world.counters.tcp_held_bytes() >= kept).await;
        }
        reply_with(&mut Outbox::new(), &deferred, 0);
        drop(deferred);
        let ends = blocking(move || {
            let mut first = read_framed(&mut stream);
            if stays && sent == announced && first[1] == 2 {
                first = read_framed(&mut stream); // FORMERR for the other query was first
            } else if stays && sent == announced {
                assert_eq!(read_framed(&mut stream)[3] & 0x0f, 1);
            }
            assert_eq!(first[..2], [0, 1], "what was asked before is answered");
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            (stream.read(&mut [0; 1]).ok(), stream)
        });
        if stays {
            assert_eq!(ends.await.0, None, "{announced} {sent}");
        } else {
            drop(ends.await);
            until("closed", || world.counters.tcp_open() == 0).await;
        }
    }
}

#[tokio::test]
async fn no_reply_is_lost_if_the_client_reads_later_than_they_come() {
    const QUERIES: u16 = 400;
    const LEN: usize = 30_000;
    for host in HOSTS {
        let Some(world) = world_at(host, Limits::default(), 64) else { continue };
        let World { address, counters, mut later, .. } = world;
        let stream = connect(address);
        let mut writer = stream.try_clone().unwrap();
        let asking = std::thread::spawn(move || {
            let all: Vec<u8> =
                (0..QUERIES).flat_map(|id| framed(&query(id, b"\x05later\0"))).collect();
            writer.write_all(&all).unwrap();
        });
        let answered = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let answering = tokio::spawn({
            let answered = Arc::clone(&answered);
            async move {
                let mut outbox = Outbox::new();
                for _ in 0..QUERIES {
                    let deferred = later.recv().await.unwrap();
                    reply_with(&mut outbox, &deferred, LEN);
                    drop(deferred);
                    answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        });
        // All queries that may be in flight are answered. Some replies are in the kernel's buffers.
        until("64 wait", || answered.load(std::sync::atomic::Ordering::Relaxed) >= 64).await;
        until("no more is taken on", || counters.tcp_held_bytes() > 64 << 10).await;
        let reading = tokio::task::spawn_blocking(move || {
            let mut stream = stream;
            let ids = (0..QUERIES).map(|_| {
                let reply = read_framed(&mut stream);
                assert_eq!(reply.len(), LEN);
                u16::from_be_bytes([reply[0], reply[1]])
            });
            ids.collect::<std::collections::BTreeSet<u16>>().len()
        });
        assert_eq!(reading.await.unwrap(), usize::from(QUERIES));
        answering.await.unwrap();
        asking.join().unwrap();
        assert_eq!(counters.snapshot().event(Event::SendFailed), 0);
    }
}

#[tokio::test]
async fn a_connection_with_a_query_in_flight_is_not_idle() {
    let limits = Limits {
        idle_max: Duration::from_millis(20),
        message_max: Duration::from_millis(20),
        ..Limits::default()
    };
    // The bytes that the client sends after its query: either empty, or the beginning of another.
    for rest in [&[][..], &[0]] {
        let mut world = world(limits, 8);
        let address = world.address;
        let client = tokio::task::spawn_blocking(move || {
            let mut stream = connect(address);
            let bytes = [&framed(&query(7, b"\x05later\0"))[..], rest].concat();
            stream.write_all(&bytes).unwrap();
            stream
        });
        let deferred = world.later.recv().await.unwrap();
        let mut stream = client.await.unwrap();
        // Connections that are opened later have the same deadlines.
        let others = blocking(move || {
            let mut idle = connect(address);
            let mut slow = connect(address);
            slow.write_all(&[0]).unwrap();
            (idle.read(&mut [0; 1]).unwrap(), slow.read(&mut [0; 1]).unwrap())
        });
        assert_eq!(others.await, (0, 0), "both are closed");
        reply_with(&mut Outbox::new(), &deferred, 0);
        drop(deferred);
        let end = blocking(move || {
            assert_eq!(read_framed(&mut stream)[1], 7);
            stream.read(&mut [0; 1]).unwrap_or(0)
        });
        assert_eq!(end.await, 0, "and then it is idle, or cut");
    }
}

#[tokio::test]
async fn one_address_may_be_a_whole_node() {
    const CONNECTIONS: u16 = 200;
    let mut world = world(Limits::default(), 256);
    let address = world.address;
    let client = tokio::task::spawn_blocking(move || {
        let ask = |id: u16| {
            let mut stream = connect(address);
            stream.write_all(&framed(&query(id, b"\x05later\0"))).unwrap();
            stream
        };
        let mut streams: Vec<_> = (0..CONNECTIONS).map(ask).collect();
        streams.iter_mut().map(read_framed).filter(|reply| reply.len() > 12).count()
    });
    let mut waiting = Vec::new();
    while waiting.len() < usize::from(CONNECTIONS) {
        waiting.push(world.later.recv().await.unwrap());
    }
    let mut outbox = Outbox::new();
    waiting.iter().for_each(|deferred| reply_with(&mut outbox, deferred, 0));
    assert_eq!(client.await.unwrap(), usize::from(CONNECTIONS));
    assert_eq!(world.counters.snapshot().event(Event::Cut), 0);
}

#[tokio::test]
async fn a_full_client_loses_its_longest_idle_connection_and_never_one_with_a_query() {
    for host in HOSTS {
        let limits = Limits { connections_per_client_max: 3, ..Limits::default() };
        let Some(mut world) = world_at(host, limits, 8) else { continue };
        let address = world.address;
        let used = move || {
            let mut stream = connect(address);
            stream.write_all(&framed(&query(1, b"\x03web\0"))).unwrap();
            read_framed(&mut stream);
            stream
        };
        let mut busy = blocking(move || connect(address)).await;
        busy.write_all(&framed(&query(9, b"\x05later\0"))).unwrap();
        let deferred = world.later.recv().await.unwrap();
        let mut first = blocking(used).await;
        let second = blocking(used).await;
        let third = blocking(used).await;
        let closed = blocking(move || first.read(&mut [0; 1]).unwrap());
        assert_eq!(closed.await, 0, "the longest idle one");
        assert_eq!(world.counters.snapshot().event(Event::Evicted), 1);
        let both = blocking(move || {
            [second, third].map(|mut stream| {
                stream.write_all(&framed(&query(2, b"\x03web\0"))).unwrap();
                (read_framed(&mut stream)[1], stream).0
            })
        });
        assert_eq!(both.await, [2, 2]);
        reply_with(&mut Outbox::new(), &deferred, 0);
        drop(deferred);
        assert_eq!(blocking(move || read_framed(&mut busy)[1]).await, 9);
    }
}

#[tokio::test]
async fn a_client_whose_connections_all_wait_for_answers_gets_no_more() {
    let limits = Limits { connections_per_client_max: 2, ..Limits::default() };
    let mut world = world(limits, 8);
    let address = world.address;
    let mut busy = Vec::new();
    let mut waiting = Vec::new();
    for id in 0..2 {
        let mut stream = blocking(move || connect(address)).await;
        stream.write_all(&framed(&query(id, b"\x05later\0"))).unwrap();
        waiting.push(world.later.recv().await.unwrap());
        busy.push(stream);
    }
    let refused = blocking(move || connect(address).read(&mut [0; 1]).unwrap_or(0));
    assert_eq!(refused.await, 0);
    assert_eq!(world.counters.snapshot().event(Event::Cut), 1);
    let mut outbox = Outbox::new();
    waiting.drain(..).for_each(|deferred| reply_with(&mut outbox, &deferred, 0));
    let ids = blocking(move || busy.iter_mut().map(|s| read_framed(s)[1]).collect::<Vec<_>>());
    assert_eq!(ids.await, [0, 1]);
}
