//! The DNS listener alone: both transports, deferral, limits, bad clients, the drain.

mod drain;
mod limits;
mod pages;
mod pressure;
mod sizes;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use shared::serve::{Asked, Deferred, Event, Handler, Limits, Outbox, Serving, Verdict, bind, dns};
use shared::wire::{NameBuffer, Owner, Query, Reply, Section, rtype};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Answers every name with 10.0.0.1, except: `later.` is deferred to the channel, `silent.` gets no
/// reply, `bug.` panics, and `big.` gets as many records as fit.
struct Script;

impl Handler for Script {
    fn answer(&self, query: &Query<'_>, _: &Asked, reply: &mut Reply<'_>) -> Verdict {
        match query.name() {
            b"\x05later\0" => return Verdict::Later,
            b"\x06silent\0" => return Verdict::Drop,
            // Like a panic, but without a backtrace, which can take seconds on a busy machine.
            b"\x03bug\0" => std::panic::resume_unwind(Box::new("a bug, on purpose")),
            b"\x03big\0" => {
                let text = [&[200][..], &[b'x'; 200]].concat();
                let place = (Section::Answer, Owner::Question);
                while reply.push(place.0, place.1, rtype::TXT, 30, &[&text]).is_some() {}
                return Verdict::Send;
            }
            _ => {}
        }
        write_address(reply);
        Verdict::Send
    }
}

fn write_address(reply: &mut Reply<'_>) {
    reply.push(Section::Answer, Owner::Question, rtype::A, 30, &[&[10, 0, 0, 1]]);
}

struct World {
    address: SocketAddr,
    counters: Arc<shared::serve::Counters>,
    later: mpsc::Receiver<Deferred>,
    stopping: CancellationToken,
    serving: JoinHandle<Result<(), shared::serve::Error>>,
}

fn world(limits: Limits, channel: usize) -> World {
    world_at("127.0.0.1:0", limits, channel).unwrap()
}

/// Starts a listener at `address`. Returns `None` if the machine does not have this address.
fn world_at(address: &str, limits: Limits, channel: usize) -> Option<World> {
    let sockets = bind(&[address.parse().unwrap()], 2).ok()?;
    let address = sockets.local_addresses()[0];
    let stopping = CancellationToken::new();
    let (sender, later) = mpsc::channel(channel);
    let serving: Serving =
        dns(sockets, limits, stopping.clone(), Arc::new(Script), sender).unwrap();
    let counters = Arc::clone(&serving.counters);
    Some(World { address, counters, later, stopping, serving: tokio::spawn(serving.finished()) })
}

fn query(id: u16, name: &[u8]) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(name);
    message.extend([0, 1, 0, 1]);
    message
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

fn ask_udp(address: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(message, address).unwrap();
    // This question is always answered. If `message` must not be answered, the only reply is that
    // to this question.
    socket.send_to(&query(0xffff, b"\x05after\0"), address).unwrap();
    let mut replies = Vec::new();
    let mut buffer = [0; 2_048];
    while replies.len() < 2 {
        socket
            .set_read_timeout(Some(Duration::from_millis(if replies.is_empty() {
                5_000
            } else {
                300
            })))
            .unwrap();
        match socket.recv(&mut buffer) {
            Ok(len) => replies.push(buffer[..len].to_vec()),
            Err(_) => break,
        }
    }
    replies.into_iter().find(|reply| reply[..2] != [0xff, 0xff])
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn datagrams_are_answered_refused_or_ignored() {
    let world = world(Limits::default(), 1);
    let address = world.address;
    let rcode = |message: Vec<u8>| {
        blocking(move || ask_udp(address, &message).map(|reply| reply[3] & 0x0f))
    };
    assert_eq!(rcode(query(1, b"\x03web\0")).await, Some(0));
    assert_eq!(rcode(query(2, b"\x03bug\0")).await, Some(2), "a panic costs one SERVFAIL");
    assert_eq!(rcode(query(3, b"\x06silent\0")).await, None);
    assert_eq!(rcode(vec![]).await, None, "a datagram without a byte");
    assert_eq!(rcode(vec![0x55; 40]).await, Some(4), "an opcode nobody knows");
    assert_eq!(rcode(query(4, b"\xc0\x0c")).await, Some(1));
    assert_eq!(world.counters.snapshot().event(Event::Panicked), 1);
    world.stopping.cancel();
    world.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_deferred_query_is_answered_from_the_socket_it_came_to() {
    let mut world = world(Limits::default(), 8);
    let address = world.address;
    let client = tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send(&query(7, b"\x05LATER\0")).unwrap();
        let mut buffer = [0; 512];
        let len = socket.recv(&mut buffer).unwrap();
        buffer[..len].to_vec()
    });
    let deferred = world.later.recv().await.unwrap();
    let mut outbox = Outbox::new();
    outbox.reply(&deferred, |buffer| {
        let mut name = NameBuffer::new();
        let mut reply = Reply::new(&deferred.query(&mut name), buffer);
        write_address(&mut reply);
        reply.finish()
    });
    outbox.flush();
    let reply = client.await.unwrap();
    assert_eq!(reply[..2], [0, 7]);
    assert_eq!(reply[12..19], *b"\x05LATER\0");
    assert_eq!(world.counters.snapshot().replies[0][0], 1);
}

#[tokio::test]
async fn a_full_channel_is_a_reason_to_fail_at_once() {
    let world = world(Limits::default(), 1);
    let address = world.address;
    let codes = blocking(move || {
        let mut stream = connect(address);
        let two = [framed(&query(1, b"\x05later\0")), framed(&query(2, b"\x05later\0"))].concat();
        stream.write_all(&two).unwrap();
        read_framed(&mut stream)
    });
    let shed = codes.await;
    assert_eq!((shed[1], shed[3] & 0x0f), (2, 2));
    assert_eq!(world.counters.snapshot().event(Event::Shed), 1);
}

#[tokio::test]
async fn a_stream_is_pipelined_and_answered_out_of_order() {
    let mut world = world(Limits { in_flight_max: 2, ..Limits::default() }, 8);
    let address = world.address;
    let client = tokio::task::spawn_blocking(move || {
        let mut stream = connect(address);
        let mut bytes = framed(&query(1, b"\x05later\0"));
        bytes.extend((2..100).flat_map(|id| framed(&query(id, b"\x03web\0"))));
        for piece in bytes.chunks(7) {
            stream.write_all(piece).unwrap();
        }
        (1..100).map(|_| read_framed(&mut stream)[1]).collect::<Vec<_>>()
    });
    let deferred = world.later.recv().await.unwrap();
    // The first query gets its answer only after all others.
    let all = async {
        while world.counters.snapshot().replies[0][0] < 98 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.unwrap();
    let mut outbox = Outbox::new();
    outbox.reply(&deferred, |buffer| {
        let mut name = NameBuffer::new();
        Reply::new(&deferred.query(&mut name), buffer).finish()
    });
    drop(deferred);
    let ids = client.await.unwrap();
    assert_eq!(ids[..98], *(2..100).collect::<Vec<u8>>());
    assert_eq!(ids[98], 1);
}

#[tokio::test]
async fn reading_pauses_while_too_many_are_in_flight_and_goes_on_after() {
    let mut world = world(Limits { in_flight_max: 2, ..Limits::default() }, 8);
    let address = world.address;
    let client = tokio::task::spawn_blocking(move || {
        let mut stream = connect(address);
        let all = (1..=6).flat_map(|id| framed(&query(id, b"\x05later\0"))).collect::<Vec<_>>();
        stream.write_all(&all).unwrap();
        (1..=6).map(|_| read_framed(&mut stream)[1]).collect::<Vec<_>>()
    });
    let mut outbox = Outbox::new();
    for _ in 0..6 {
        let deferred = world.later.recv().await.unwrap();
        assert!(world.later.len() < 2, "no more than two in flight");
        outbox.reply(&deferred, |buffer| {
            let mut name = NameBuffer::new();
            Reply::new(&deferred.query(&mut name), buffer).finish()
        });
    }
    assert_eq!(client.await.unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_client_that_sends_one_byte_and_waits_is_cut() {
    let limits = Limits { message_max: Duration::from_millis(50), ..Limits::default() };
    let world = world(limits, 1);
    let address = world.address;
    let read = blocking(move || {
        let mut stream = connect(address);
        stream.write_all(&[0]).unwrap();
        stream.read(&mut [0; 1]).unwrap()
    });
    assert_eq!(read.await, 0, "closed");
    let counted = async {
        while world.counters.snapshot().event(Event::Cut) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), counted).await.unwrap();
}

#[tokio::test]
async fn the_drain_answers_what_was_received() {
    let mut world = world(Limits::default(), 8);
    let address = world.address;
    let client = tokio::task::spawn_blocking(move || {
        let mut stream = connect(address);
        stream.write_all(&framed(&query(9, b"\x05later\0"))).unwrap();
        let reply = read_framed(&mut stream);
        let closed = stream.read(&mut [0; 1]).unwrap() == 0;
        (reply[1], closed)
    });
    let deferred = world.later.recv().await.unwrap();
    world.stopping.cancel();
    let mut outbox = Outbox::new();
    outbox.reply(&deferred, |buffer| {
        let mut name = NameBuffer::new();
        Reply::new(&deferred.query(&mut name), buffer).finish()
    });
    drop(deferred);
    assert_eq!(client.await.unwrap(), (9, true));
    world.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn replies_leave_from_the_address_they_were_asked_at() {
    for (wildcard, asked) in
        [("0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.9.9.9"][..]), ("[::]:0", &["::1"])]
    {
        let Some(mut world) = world_at(wildcard, Limits::default(), 8) else { continue };
        let port = world.address.port();
        for host in asked {
            let address = SocketAddr::new(host.parse().unwrap(), port);
            let client = tokio::task::spawn_blocking(move || {
                // Connected, so that the kernel drops datagrams from any other address.
                let socket = UdpSocket::bind(SocketAddr::new(address.ip(), 0)).unwrap();
                socket.connect(address).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                for (id, name) in [(1, b"\x03now\0".as_slice()), (2, b"\x05later\0")] {
                    socket.send(&query(id, name)).unwrap();
                }
                let mut buffer = [0; 512];
                let mut id = || socket.recv(&mut buffer).map(|_| buffer[1]).unwrap();
                let mut ids = [id(), id()];
                ids.sort_unstable();
                ids
            });
            let deferred = world.later.recv().await.unwrap();
            let mut outbox = Outbox::new();
            outbox.reply(&deferred, |buffer| {
                let mut name = NameBuffer::new();
                Reply::new(&deferred.query(&mut name), buffer).finish()
            });
            outbox.flush();
            assert_eq!(client.await.unwrap(), [1, 2], "{address}");
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let limits = Limits { message_max: Duration::from_millis(100), ..Limits::default() };
    let world = world(limits, 1);
    let address = world.address;
    // Far more than the kernel buffers on both sides. The stream stays open and is never read.
    let stream = blocking(move || {
        let mut stream = connect(address);
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        for id in 0..2_000 {
            if stream.write_all(&framed(&query(id, b"\x03big\0"))).is_err() {
                break; // the server has stopped reading, or has closed the connection
            }
        }
        stream
    })
    .await;
    let cut = async {
        while world.counters.snapshot().event(Event::Cut) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), cut).await.unwrap();
    drop(stream);
}
