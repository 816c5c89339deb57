//! The drain: received queries are answered, an open socket is read, and a closed one gives an
//! error.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn address_of(host: &str) -> Option<(shared::serve::Sockets, SocketAddr)> {
    let sockets = bind(&[host.parse().unwrap()], 2).ok()?;
    let address = sockets.local_addresses()[0];
    Some((sockets, address))
}

/// Returns a connected client, so that the kernel's errors reach it.
fn client(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(address.ip(), 0)).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn ask(socket: &UdpSocket, id: u16, name: &[u8]) -> std::io::Result<(u8, u8)> {
    socket.send(&query(id, name))?;
    let mut buffer = [0; 512];
    socket.recv(&mut buffer)?;
    Ok((buffer[1], buffer[3] & 0x0f))
}

#[tokio::test]
async fn udp_is_answered_until_the_socket_is_closed() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let Some((sockets, address)) = address_of(host) else { continue };
        let (stopping, others) = (CancellationToken::new(), CancellationToken::new());
        let (sender, mut later) = mpsc::channel(8);
        let serving =
            dns(sockets, Limits::default(), stopping.clone(), Arc::new(Script), sender).unwrap();
        let overflow = serving.overflow();
        let end = others.clone();
        let serving = tokio::spawn(serving.finished_after(async move { end.cancelled().await }));
        let socket = client(address);
        // A client over TCP has a query in flight.
        let mut stream = blocking(move || connect(address)).await;
        stream.write_all(&framed(&query(1, b"\x05later\0"))).unwrap();
        let deferred = later.recv().await.unwrap();
        stopping.cancel();
        // The channel closes once no queries can be deferred any more, after connections over TCP
        // have ended.
        let socket = blocking(move || {
            for id in 0..50 {
                assert_eq!(ask(&socket, id, b"\x03web\0").unwrap(), (id as u8, 0));
            }
            socket
        })
        .await;
        Outbox::new().reply(&deferred, |buffer| {
            let mut name = NameBuffer::new();
            Reply::new(&deferred.query(&mut name), buffer).finish()
        });
        drop(deferred);
        assert_eq!(blocking(move || read_framed(&mut stream)[1]).await, 1);
        let closed = async { while later.recv().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(30), closed).await.expect("nothing is put off");
        let socket = blocking(move || {
            // Other tasks have not ended: queries without deferral are answered, and the rest fail
            // at once.
            assert_eq!(ask(&socket, 60, b"\x03web\0").unwrap(), (60, 0));
            assert_eq!(ask(&socket, 61, b"\x05later\0").unwrap(), (61, 2));
            assert_eq!(TcpStream::connect(address).unwrap_err().kind(), REFUSED);
            socket
        })
        .await;
        others.cancel();
        serving.await.unwrap().unwrap();
        let error = blocking(move || ask(&socket, 62, b"\x03web\0").unwrap_err());
        assert_eq!(error.await.kind(), REFUSED, "nobody keeps the socket open");
        assert_eq!(overflow.dropped(), 0);
    }
}

#[tokio::test]
async fn queries_in_kept_sockets_are_left_to_the_next_program_while_there_is_a_keeper() {
    let (sockets, address) = address_of("127.0.0.1:0").unwrap();
    let (stopping, others) = (CancellationToken::new(), CancellationToken::new());
    let (sender, mut later) = mpsc::channel(8);
    let serving =
        dns(sockets, Limits::default(), stopping.clone(), Arc::new(Script), sender).unwrap();
    let counters = Arc::clone(&serving.counters);
    let is_kept = Arc::new(AtomicBool::new(true));
    let (are_kept, end) = (Arc::clone(&is_kept), others.clone());
    let are_kept = move || are_kept.load(Ordering::Relaxed);
    let others_end = async move { end.cancelled().await };
    let serving = tokio::spawn(serving.left_after(are_kept, others_end));
    let socket = client(address);
    socket.send(&query(1, b"\x05later\0")).unwrap();
    let deferred = later.recv().await.unwrap();
    stopping.cancel();
    // The channel closes once every thread has seen it.
    assert!(later.recv().await.is_none());
    for id in 2..12 {
        socket.send(&query(id, b"\x03web\0")).unwrap();
    }
    let mut outbox = Outbox::new();
    outbox.reply(&deferred, |buffer| {
        let mut name = NameBuffer::new();
        Reply::new(&deferred.query(&mut name), buffer).finish()
    });
    outbox.flush();
    drop(deferred);
    assert_eq!(counters.snapshot().event(Event::ReceivedUdp), 1);
    // Without the keeper, no other program would answer them.
    is_kept.store(false, Ordering::Relaxed);
    others.cancel();
    serving.await.unwrap().unwrap();
    let receive = || {
        let mut reply = [0; 512];
        socket.recv(&mut reply).map(|_| (reply[1], reply[3] & 0x0f)).unwrap()
    };
    let mut replies: Vec<_> = (1..12).map(|_| receive()).collect();
    replies.sort_unstable();
    assert_eq!(replies, (1..12).map(|id| (id, 0)).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_end_waits_for_queries_over_udp_that_were_put_off() {
    let (sockets, address) = address_of("127.0.0.1:0").unwrap();
    let stopping = CancellationToken::new();
    let (sender, mut later) = mpsc::channel(8);
    let serving =
        dns(sockets, Limits::default(), stopping.clone(), Arc::new(Script), sender).unwrap();
    let serving = tokio::spawn(serving.finished());
    let socket = client(address);
    socket.send(&query(5, b"\x05later\0")).unwrap();
    let deferred = later.recv().await.unwrap();
    stopping.cancel();
    while later.recv().await.is_some() {} // every thread has seen it
    assert!(!serving.is_finished());
    let mut outbox = Outbox::new();
    outbox.reply(&deferred, |buffer| {
        let mut name = NameBuffer::new();
        Reply::new(&deferred.query(&mut name), buffer).finish()
    });
    outbox.flush();
    drop(deferred);
    serving.await.unwrap().unwrap();
    let mut buffer = [0; 512];
    assert!(blocking(move || socket.recv(&mut buffer).map(|_| buffer[1])).await.unwrap() == 5);
    drop(outbox);
}

#[tokio::test]
async fn what_a_connection_has_sent_before_the_end_is_answered() {
    let world = world(Limits::default(), 8);
    let address = world.address;
    // The clients connect and send before the listener stops. It may not even have accepted them.
    let streams = blocking(move || {
        let ask = |id| {
            let mut stream = connect(address);
            let all: Vec<u8> = (0..300).flat_map(|_| framed(&query(id, b"\x03web\0"))).collect();
            stream.write_all(&all).unwrap();
            stream
        };
        (0..20).map(ask).collect::<Vec<_>>()
    })
    .await;
    world.stopping.cancel();
    let counts = blocking(move || {
        let count = |mut stream: TcpStream| {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes.len() / (2 + query(0, b"\x03web\0").len() + 16)
        };
        streams.into_iter().map(count).collect::<Vec<_>>()
    });
    assert_eq!(counts.await, [300; 20]);
    world.serving.await.unwrap().unwrap();
}

const REFUSED: std::io::ErrorKind = std::io::ErrorKind::ConnectionRefused;
