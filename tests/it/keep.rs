//! Listening sockets that healthz keeps while a program restarts: what waits in them, and what can
//! go wrong on the way.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use shared::addresses::Addresses;
use shared::keep::{self, Copies, Group, Message, passing};
use shared::serve::{self, Asked, BindError, Event, Handler, Limits, Serving, Sockets, Verdict};
use shared::wire::{Owner, Query, Reply, Section, Transport, rtype};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fixture::dns::{self, PATIENCE};
use crate::fixture::dnscache::{FAR, server, until};
use crate::fixture::http;
use crate::fixture::upstream::Upstream;

/// healthz with a keeper, in this process.
struct Keeper {
    http: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), healthz::Error>>,
}

impl Keeper {
    async fn start(path: &Path, flags: &[&str]) -> Self {
        let program = healthz::Program::bind(keeper_flags(path, flags)).await.unwrap();
        let http = program.http_address();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(program.run(async { drop(stopped.await) }));
        Self { http, stop, task }
    }

    async fn stop(self) {
        drop(self.stop);
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }

    /// Waits until the metrics show `count` kept sockets of dnscache.
    async fn has(&self, count: usize) {
        let line = format!("healthz_kept_sockets{{program=\"dnscache\"}} {count}");
        let has = || async { http::get(self.http, "/metrics").await.1.contains(&line) };
        until(&line, has).await;
    }
}

fn keeper_flags(path: &Path, flags: &[&str]) -> healthz::Config {
    let path = format!("--keep-sockets={}", path.display());
    let fixed = ["healthz", "--http-listen=127.0.0.1:0", "--probe=none,127.0.0.1:1,x,3600", &path];
    healthz::Config::parse_from(fixed.iter().chain(flags))
}

/// Returns an address that is free for UDP and TCP alike.
fn free() -> SocketAddr {
    let free = std::iter::repeat_with(|| {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        UdpSocket::bind(address).ok().map(|_| address)
    });
    free.flatten().next().expect("an endless iterator")
}

/// A directory, and the path of a Unix socket in it.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keep");
    (directory, path)
}

/// Answers every name with 10.0.0.1.
struct Everything;

impl Handler for Everything {
    fn answer(&self, _: &Query<'_>, _: &Asked, reply: &mut Reply<'_>) -> Verdict {
        reply.push(Section::Answer, Owner::Question, rtype::A, 30, &[&[10, 0, 0, 1]]);
        Verdict::Send
    }
}

/// A program that has bound its sockets and left copies with the keeper, but does not serve.
struct Start {
    address: SocketAddr,
    sockets: Sockets,
    copies: JoinHandle<()>,
}

impl Start {
    async fn at(path: &Path, address: SocketAddr, threads: usize) -> Result<Self, BindError> {
        let (sockets, copies) = keep::bind(Some(path), "dnscache", &[address], threads).await?;
        let address = sockets.local_addresses()[0];
        Ok(Self { address, sockets, copies: tokio::spawn(left(copies)) })
    }

    /// Ends it as SIGKILL does: everything is closed.
    async fn die(self) {
        self.copies.abort();
        assert!(self.copies.await.unwrap_err().is_cancelled());
    }

    fn serve(self) -> Serving {
        let (later, _) = mpsc::channel(1);
        let stopping = CancellationToken::new();
        serve::dns(self.sockets, Limits::default(), stopping, Arc::new(Everything), later).unwrap()
    }
}

async fn left(copies: Copies) {
    let never = CancellationToken::new();
    copies.run(never.clone(), never).await.unwrap();
}

fn query(id: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend(b"\x01\0\0\x01\0\0\0\0\0\0\x04wait\0\0\x01\0\x01");
    message
}

/// Returns a client that is connected to `address`.
fn client(address: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind((address.ip(), 0)).unwrap();
    client.connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Sends queries that no program reads yet.
fn send(clients: &[UdpSocket]) {
    for (id, client) in clients.iter().enumerate() {
        client.send(&query(id as u16)).unwrap();
    }
}

/// Waits for the reply to each query.
fn receive(clients: &[UdpSocket]) {
    for (id, client) in clients.iter().enumerate() {
        let mut reply = [0; 512];
        let length = client.recv(&mut reply).unwrap();
        assert_eq!((&reply[..2], reply[3] & 0x0f), (&(id as u16).to_be_bytes()[..], 0));
        assert_eq!(&reply[length - 4..length], [10, 0, 0, 1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_connections_wait_for_the_next_start() {
    // Replies from a wildcard have the address that was asked.
    for (address, host) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        ("0.0.0.0:0", "127.0.0.3"),
        ("[::]:0", "::1"),
    ] {
        if UdpSocket::bind(address).is_err() {
            continue; // a machine without IPv6
        }
        let (_directory, path) = place();
        let keeper = Keeper::start(&path, &[]).await;
        let first = Start::at(&path, address.parse().unwrap(), 2).await.unwrap();
        keeper.has(3).await;
        let address = first.address;
        let asked = SocketAddr::new(host.parse().unwrap(), address.port());
        first.die().await;

        let clients: Vec<UdpSocket> = (0..50).map(|_| client(asked)).collect();
        send(&clients);
        let mut stream = TcpStream::connect(asked).unwrap();
        let message = query(7);
        stream.write_all(&[&(message.len() as u16).to_be_bytes()[..], &message].concat()).unwrap();

        let second = Start::at(&path, address, 2).await.unwrap();
        assert_eq!(second.address, address);
        keeper.has(3).await;
        let _serving = second.serve();
        receive(&clients);
        let mut reply = [0; 4];
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply[2..], [0, 7]);
        keeper.stop().await;
        // Without the keeper, the program serves on.
        send(&clients);
        receive(&clients);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_flags_do_not_want_is_closed_and_bound_anew() {
    let (_directory, path) = place();
    let keeper = Keeper::start(&path, &[]).await;
    let first = Start::at(&path, "127.0.0.1:0".parse().unwrap(), 2).await.unwrap();
    let address = first.address;
    keeper.has(3).await;
    first.die().await;
    // Another number of threads: TCP is taken over, UDP is bound.
    let second = Start::at(&path, address, 1).await.unwrap();
    keeper.has(2).await;
    assert_eq!(second.sockets.lanes(), 2);
    second.die().await;
    // Another address, with a port that the system chooses: the earlier sockets are closed.
    let other = Start::at(&path, "127.0.0.2:0".parse().unwrap(), 1).await.unwrap();
    UdpSocket::bind(address).unwrap();
    keeper.has(2).await;
    let (clients, address) = ([client(other.address)], other.address);
    send(&clients);
    other.die().await;
    let again = Start::at(&path, address, 1).await.unwrap();
    let _serving = again.serve();
    receive(&clients);
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_program_is_not_robbed() {
    let (_directory, path) = place();
    let keeper = Keeper::start(&path, &[]).await;
    let first = Start::at(&path, "127.0.0.1:0".parse().unwrap(), 2).await.unwrap();
    let address = first.address;
    keeper.has(3).await;
    for _ in 0..3 {
        let Err(error) = Start::at(&path, address, 2).await else { panic!("the port was shared") };
        assert_eq!(error.to_string(), format!("cannot listen on {address} (TCP)"));
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }
    // A second one with a port of its own serves without a keeper.
    let other = Start::at(&path, "127.0.0.1:0".parse().unwrap(), 1).await.unwrap();
    keeper.has(3).await;
    let clients = [client(other.address)];
    send(&clients);
    let _other = other.serve();
    receive(&clients);
    let clients = [client(address)];
    send(&clients);
    first.die().await;
    let _first = Start::at(&path, address, 2).await.unwrap().serve();
    receive(&clients);
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_keeper_the_program_serves_and_finds_it_later() {
    let (_directory, path) = place();
    let start = Start::at(&path, "127.0.0.1:0".parse().unwrap(), 2).await.unwrap();
    let address = start.address;
    let keeper = Keeper::start(&path, &[]).await;
    keeper.has(3).await;
    keeper.stop().await;
    // The copies of the first keeper are closed; the next one gets them again.
    let keeper = Keeper::start(&path, &[]).await;
    keeper.has(3).await;
    start.die().await;
    let clients = [client(address)];
    send(&clients);
    let _serving = Start::at(&path, address, 2).await.unwrap().serve();
    receive(&clients);
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_never_answers_does_not_prevent_the_start() {
    let (_directory, path) = place();
    let listener = UnixListener::bind(&path).unwrap();
    let silent = tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            streams.push(stream);
        }
    });
    let start = Start::at(&path, "127.0.0.1:0".parse().unwrap(), 1).await.unwrap();
    let clients = [client(start.address)];
    send(&clients);
    let _serving = start.serve();
    receive(&clients);
    silent.abort();
}

/// A keeper that does not answer in time, and then does: the addresses are taken meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_keeper_that_holds_the_sockets_is_asked_again() {
    let (_directory, path) = place();
    let listener = UnixListener::bind(&path).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let sockets = serve::bind(&[address], 1).unwrap();
    let address = sockets.local_addresses()[0];
    // The kept sockets, as the next program would bind them.
    let (taken, asked) = oneshot::channel::<()>();
    let slow = tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        let (second, _) = listener.accept().await.unwrap();
        drop((first, sockets)); // the second time it has closed them
        let (take, _) = passing::receive(&second).await.unwrap();
        assert!(matches!(take, Message::Take { wanted, .. } if wanted.len() == 2));
        passing::send(&second, &Message::Given { groups: Vec::new() }, &[]).await.unwrap();
        taken.send(()).unwrap();
        passing::closed(&second).await;
    });
    let start = Start::at(&path, address, 1).await.unwrap();
    asked.await.unwrap();
    let clients = [client(start.address)];
    send(&clients);
    let _serving = start.serve();
    receive(&clients);
    slow.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_socket_drops_what_does_not_fit_and_the_next_start_answers_the_rest() {
    const SENT: u64 = 20_000; // more than 4 MiB hold
    let (_directory, path) = place();
    let keeper = Keeper::start(&path, &[]).await;
    let first = Start::at(&path, "127.0.0.1:0".parse().unwrap(), 1).await.unwrap();
    let address = first.address;
    keeper.has(2).await;
    first.die().await;
    let flood = client(address);
    for id in 0..SENT {
        flood.send(&query(id as u16)).unwrap();
    }
    let serving = Start::at(&path, address, 1).await.unwrap().serve();
    let overflow = serving.overflow();
    // One thread reads the socket in order: all earlier queries were read before this one.
    let last = client(address);
    last.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let is_answered = || {
        last.send(&query(0)).unwrap(); // it may be dropped, too
        last.recv(&mut [0; 512]).is_ok()
    };
    assert!((0..100).any(|_| is_answered()));
    let received = serving.counters.snapshot().event(Event::ReceivedUdp);
    let dropped = overflow.dropped();
    assert!(dropped > 0 && received > 100, "{dropped} {received}");
    assert!(received + dropped >= SENT, "{dropped} {received}");
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_closed_if_no_program_comes_back() {
    let (_directory, path) = place();
    let keeper = Keeper::start(&path, &["--keep-sockets-for=1"]).await;
    let start = Start::at(&path, "127.0.0.1:0".parse().unwrap(), 2).await.unwrap();
    let address = start.address;
    keeper.has(3).await;
    start.die().await;
    let client = client(address);
    let is_refused = || async {
        let sent = client.send(&query(1));
        sent.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    until("clients get an error", is_refused).await;
    assert!(Start::at(&path, address, 2).await.is_ok());
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_no_harm() {
    let (_directory, path) = place();
    let keeper = Keeper::start(&path, &[]).await;
    let start = Start::at(&path, "127.0.0.1:0".parse().unwrap(), 2).await.unwrap();
    let address = start.address;
    keeper.has(3).await;
    let long = vec![b'x'; 100_000];
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\n", b"{\"kept\":{\"sockets\":1}}\n", &long]
    {
        let mut stranger = StdUnixStream::connect(&path).unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        // The keeper may close the connection before all is sent.
        let _ = stranger.write_all(nonsense);
        let mut rest = Vec::new();
        // It resets the connection if bytes are left that it did not read.
        let _ = stranger.read_to_end(&mut rest);
        assert_eq!(rest, b"", "{nonsense:?}");
    }
    // More connections than the keeper has room for, which send half a message.
    let idle: Vec<StdUnixStream> =
        (0..20).map(|_| StdUnixStream::connect(&path).unwrap()).collect();
    for mut stranger in &idle {
        stranger.write_all(b"{\"take\":").unwrap();
    }
    start.die().await;
    let clients = [client(address)];
    send(&clients);
    drop(idle);
    let start = Start::at(&path, address, 2).await.unwrap();
    let _serving = start.serve();
    receive(&clients);
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_are_not_what_they_are_called_are_not_used() {
    let (_directory, path) = place();
    let keeper = Keeper::start(&path, &[]).await;
    let address = free();
    let group = |transport| Group { transport, address, sockets: 1 };
    let groups = vec![group(Transport::Tcp), group(Transport::Udp)];
    let stranger = UnixStream::connect(&path).await.unwrap();
    let program = "dnscache".to_owned();
    let take = Message::Take { program, wanted: Vec::new() };
    passing::send(&stranger, &take, &[]).await.unwrap();
    let (given, _) = passing::receive(&stranger).await.unwrap();
    assert_eq!(given, Message::Given { groups: Vec::new() });
    // A file, and a socket of another address.
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let other = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    passing::send(&stranger, &Message::Keep { groups }, &[file, other]).await.unwrap();
    let (kept, _) = passing::receive(&stranger).await.unwrap();
    assert_eq!(kept, Message::Kept { sockets: 2 });
    drop(stranger);
    let start = Start::at(&path, address, 1).await.unwrap();
    let clients = [client(address)];
    send(&clients);
    let _serving = start.serve();
    receive(&clients);
    keeper.stop().await;
}

#[tokio::test]
async fn a_path_that_cannot_be_used_is_named() {
    let (directory, path) = place();
    let fails = async |path: &Path| {
        let error = healthz::Program::bind(keeper_flags(path, &[])).await.unwrap_err();
        shared::flags::chain(&error)
    };
    let missing = directory.path().join("missing/keep");
    let error = fails(&missing).await;
    assert!(error.contains(missing.to_str().unwrap()), "{error}");
    std::fs::write(&path, "precious").unwrap();
    let error = fails(&path).await;
    assert!(error.contains("not a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        // The second time over the socket that the first left.
        let keeper = Keeper::start(&path, &[]).await;
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        keeper.stop().await;
    }
}

/// A program of the pod as a process, which a test kills and starts again.
struct Process {
    program: PathBuf,
    flags: Vec<String>,
    file: PathBuf,
    child: Child,
}

impl Process {
    async fn start(program: &Path, flags: &[&str], directory: &Path) -> Self {
        let file = directory.join("addresses.json");
        let flags = flags.iter().map(|&flag| flag.to_owned());
        let fixed = ["--http-listen=127.0.0.1:0", "--log=warn"].map(str::to_owned);
        let addresses = format!("--addresses-file={}", file.display());
        let flags: Vec<String> = flags.chain(fixed).chain([addresses]).collect();
        let child = spawn(program, &flags);
        let process = Self { program: program.to_owned(), flags, file, child };
        until("it listens", || async { Addresses::read(&process.file).is_some() }).await;
        process
    }

    fn addresses(&self) -> Addresses {
        Addresses::read(&self.file).unwrap()
    }

    /// Kills it with SIGKILL.
    async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends it SIGTERM.
    fn stop(&self) {
        let id = self.child.id().and_then(|id| Pid::from_raw(id as i32)).unwrap();
        kill_process(id, Signal::TERM).unwrap();
    }

    /// Waits until it has ended by itself, without an error.
    async fn ended(&mut self) {
        assert!(timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().success());
    }

    /// Starts it again, at the addresses that it had.
    fn again(&mut self) {
        let Addresses { dns, http } = self.addresses();
        for flag in &mut self.flags {
            if flag.starts_with("--listen") {
                *flag = format!("--listen={}", dns[0]);
            }
            if flag.starts_with("--http-listen") {
                *flag = format!("--http-listen={http}");
            }
        }
        self.child = spawn(&self.program, &self.flags);
    }
}

fn spawn(program: &Path, flags: &[String]) -> Child {
    Command::new(program).args(flags).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_during_a_restart_after_sigkill_are_answered() {
    let programs = tests::build::programs_beside(Path::new(env!("CARGO_BIN_EXE_pod")));
    let programs = programs.await.unwrap();
    let (_directory, path) = place();
    let keeper = Keeper::start(&path, &[]).await;
    let upstream = Upstream::start(FAR).await;
    upstream.otherwise("300 A 192.0.2.1");
    let keep = format!("--keep-sockets={}", path.display());
    let demo = concat!("--objects=", env!("CARGO_MANIFEST_DIR"), "/../manifests/demo");
    let upstream_flag = server(&upstream);
    let cache = ["--listen=127.0.0.1:0", &keep, "--resolv-file=/nonexistent", &upstream_flag];
    let records = ["--listen=127.0.0.1:0", &keep, demo];
    for (program, flags, name) in [
        ("dnscache", &cache[..], "name.example. A"),
        ("kubedns", &records[..], "kubernetes.default.svc.cluster.local. A"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut running = Process::start(&programs.join(program), flags, directory.path()).await;
        let address = running.addresses().dns[0];
        let kept = format!("healthz_kept_sockets{{program=\"{program}\"}}");
        let is_kept = || async { http::get(keeper.http, "/metrics").await.1.contains(&kept) };
        until(&kept, is_kept).await;
        let answers = || async { dns::ask(address, name).await.status == "NOERROR" };
        until("it answers", answers).await;
        for _ in 0..3 {
            running.kill().await;
            let clients: Vec<UdpSocket> = (0..50).map(|_| client(address)).collect();
            let message = dns::query(name, None);
            for client in &clients {
                client.send(&message).unwrap();
            }
            running.again();
            for client in &clients {
                let mut reply = [0; 512];
                client.recv(&mut reply).unwrap();
                let rcode = reply[3] & 0x0f;
                assert_eq!((&reply[..2], rcode), (&message[..2], 0), "{program}");
            }
            until("it answers", answers).await;
            until(&kept, is_kept).await;
        }
        running.kill().await;
    }
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_is_lost_or_fails_because_of_sigterm() {
    let programs = tests::build::programs_beside(Path::new(env!("CARGO_BIN_EXE_pod")));
    let program = programs.await.unwrap().join("dnscache");
    let (_directory, path) = place();
    let keeper = Keeper::start(&path, &[]).await;
    let upstream = Upstream::start(FAR).await;
    upstream.otherwise("300 A 192.0.2.1");
    upstream.delay(Duration::from_millis(100));
    let keep = format!("--keep-sockets={}", path.display());
    let flags = ["--listen=127.0.0.1:0", &keep, "--resolv-file=/nonexistent", &server(&upstream)];
    let directory = tempfile::tempdir().unwrap();
    let mut running = Process::start(&program, &flags, directory.path()).await;
    let address = running.addresses().dns[0];
    let kept = "healthz_kept_sockets{program=\"dnscache\"}";
    let is_kept = || async { http::get(keeper.http, "/metrics").await.1.contains(kept) };
    let answers = || async { dns::ask(address, "warm.example. A").await.status == "NOERROR" };
    for round in 0..3 {
        until(kept, is_kept).await;
        until("it answers", answers).await;
        // Each is for a name that is not in the cache.
        let message = |at| dns::query(&format!("n{round}-{at}.example. A"), None);
        let clients: Vec<_> = (0..120).map(|at| (client(address), message(at))).collect();
        let send = |range: std::ops::Range<usize>| {
            for (client, message) in &clients[range] {
                client.send(message).unwrap();
            }
        };
        send(0..40);
        running.stop();
        send(40..80);
        running.ended().await;
        send(80..120);
        running.again();
        for (at, (client, message)) in clients.iter().enumerate() {
            let mut reply = [0; 512];
            client.recv(&mut reply).unwrap();
            assert_eq!((&reply[..2], reply[3] & 0x0f), (&message[..2], 0), "{round} {at}");
        }
    }
    running.kill().await;
    keeper.stop().await;
}
