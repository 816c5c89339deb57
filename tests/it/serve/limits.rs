//! The listener's limits and how it reports them: number and time of connections, and the kernel's
//! queue of datagrams.

use std::sync::Mutex;

use super::*;

/// Returns a query over TCP whose OPT has `options`.
fn with_options(id: u16, name: &[u8], options: &[u8]) -> Vec<u8> {
    let mut message = query(id, name);
    message[11] = 1;
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, options.len() as u8]);
    message.extend_from_slice(options);
    message
}

/// Returns the edns-tcp-keepalive option at the end of `reply`, in units of 100 ms.
fn promised(reply: &[u8]) -> Option<u16> {
    let (_, option) = reply.split_last_chunk::<6>()?;
    match *option {
        [0, 11, 0, 2, t1, t0] => Some(u16::from_be_bytes([t1, t0])),
        _ => None,
    }
}

#[tokio::test]
async fn clients_that_ask_are_told_how_long_a_connection_may_idle() {
    const ASKS: &[u8] = &[0, 11, 0, 0];
    let roomy = Limits { idle_max: Duration::from_secs(7), ..Limits::default() };
    // The only place is also the last one, so the connection may idle for 200 ms.
    let short = Limits { connections_max: 1, ..roomy };
    let rows = [
        (roomy, &b"\x03web\0"[..], ASKS, Some(70)),
        (roomy, b"\x05later\0", ASKS, Some(70)),
        (roomy, b"\x03bug\0", ASKS, None),
        (roomy, b"\x03web\0", &[0, 10, 0, 0], None),
        (short, b"\x03web\0", ASKS, Some(2)),
        (short, b"\x05later\0", ASKS, Some(2)),
    ];
    for (limits, name, options, expected) in rows {
        let mut world = world(limits, 8);
        let (address, message) = (world.address, with_options(1, name, options));
        let client = tokio::task::spawn_blocking(move || {
            let mut stream = connect(address);
            stream.write_all(&framed(&message)).unwrap();
            read_framed(&mut stream)
        });
        if name == b"\x05later\0" {
            let deferred = world.later.recv().await.unwrap();
            Outbox::new().reply(&deferred, |buffer| {
                let mut name = NameBuffer::new();
                deferred.reply(&deferred.query(&mut name), buffer).finish()
            });
        }
        assert_eq!(promised(&client.await.unwrap()), expected, "{name:?} {options:?}");
    }
    let world = world(roomy, 1);
    let address = world.address;
    let message = with_options(1, b"\x03web\0", ASKS);
    let reply = blocking(move || ask_udp(address, &message)).await.unwrap();
    assert_eq!((promised(&reply), reply[11]), (None, 1), "never over UDP");
}

#[tokio::test]
async fn connections_are_limited_over_all_addresses_and_the_idle_make_room() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let sockets = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| address.parse().unwrap());
    let sockets = bind(&sockets, 1).unwrap();
    let addresses = sockets.local_addresses().to_vec();
    let (stopping, (later, _)) = (CancellationToken::new(), mpsc::channel(1));
    let serving = dns(sockets, limits, stopping.clone(), Arc::new(Script), later).unwrap();
    blocking(move || {
        // Reads the rest of a reply, and then the end.
        let read_to_end = |stream: &mut TcpStream| {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            stream.read(&mut [0; 1]).unwrap()
        };
        let is_served = |stream: &mut TcpStream| {
            let sent = stream.write_all(&framed(&query(1, b"\x03web\0")));
            sent.is_ok() && stream.read_exact(&mut [0; 2]).is_ok()
        };
        let mut first = connect(addresses[0]);
        let mut second = connect(addresses[1]);
        assert!(is_served(&mut first) && is_served(&mut second));
        let mut third = connect(addresses[0]);
        assert!(is_served(&mut third), "a third");
        assert_eq!(read_to_end(&mut first), 0, "the longest idle one makes room");
        drop(third);
        assert!(is_served(&mut connect(addresses[1])), "places are given back");
    })
    .await;
    stopping.cancel();
    serving.finished().await.unwrap();
}

/// Returns from a query only when the test is over.
struct Stalls(Mutex<std::sync::mpsc::Receiver<()>>);

impl Handler for Stalls {
    fn answer(&self, _: &Query<'_>, _: &Asked, _: &mut Reply<'_>) -> Verdict {
        assert!(
            self.0.lock().unwrap().recv().is_err(),
            "the other end is dropped, and says nothing"
        );
        Verdict::Drop
    }
}

#[tokio::test]
async fn what_the_kernel_drops_is_counted() {
    let sockets = bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap();
    let address = sockets.local_addresses()[0];
    let (stopping, (later, _)) = (CancellationToken::new(), mpsc::channel(1));
    let (go_on, told) = std::sync::mpsc::channel();
    let handler = Arc::new(Stalls(Mutex::new(told)));
    let serving = dns(sockets, Limits::default(), stopping.clone(), handler, later).unwrap();
    let overflow = serving.overflow();
    assert_eq!(overflow.dropped(), 0);
    let sent = blocking(move || {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let message = query(1, b"\x03web\0");
        let start = std::time::Instant::now();
        for sent in 1_u64.. {
            client.send_to(&message, address).unwrap();
            if overflow.dropped() > 0 {
                return sent;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{sent} datagrams and none dropped");
        }
        unreachable!("numbers do not end")
    })
    .await;
    let dropped = serving.overflow().dropped();
    drop(go_on);
    stopping.cancel();
    let counters = Arc::clone(&serving.counters);
    serving.finished().await.unwrap();
    let received = counters.snapshot().event(Event::ReceivedUdp);
    assert_eq!(received + dropped, sent, "each was received or dropped");
}
