//! `cargo load etcd`: kubedns, and CoreDNS's plugin `etcd` if it is there, with the same keys in a
//! real etcd: start, memory, the cost of answers, and the time from a change to the right answer.
//!
//! Edge. It starts programs and asks them; it holds no rule of DNS.

use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ::tests::etcd::{self, Etcd};
use ::tests::tether;
use hdrhistogram::Histogram;

use crate::generator::{self, Plan, Tally};
use crate::proc;
use crate::workload::{Message, Workload, question};

/// Measures answers from etcd.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Keys in etcd, each at a name of its own, as ExternalDNS writes them.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    keys: u32,
    /// Seconds of asking.
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Changes whose way to the answer is measured.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    changes: u32,
    /// CoreDNS to measure as well [default: none].
    #[arg(long, value_name = "FILE")]
    coredns: Option<PathBuf>,
}

/// Why it cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no etcd: ETCD names the program, or KUBEBUILDER_ASSETS its folder")]
    NoEtcd,
    #[error(transparent)]
    Build(#[from] ::tests::build::Error),
    #[error("cannot start a program: {0}")]
    Start(io::Error),
    #[error("cannot ask: {0}")]
    Ask(io::Error),
    #[error("{0} did not answer after {SERVED_MAX:?}")]
    Silent(&'static str),
}

/// Measures, and prints a table.
pub fn run(flags: &Flags) -> Result<(), Error> {
    let program = etcd::program().ok_or(Error::NoEtcd)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Error::Start)?;
    let kubedns = runtime.block_on(::tests::build::programs())?.join("kubedns");
    let core = tether::part_cores().map_err(Error::Start)?;
    let etcd = runtime.block_on(async {
        let etcd = Etcd::start(&program).await;
        for number in 0..flags.keys {
            etcd.put(&key(number), &value(number)).await;
        }
        etcd
    });
    println!(
        "{:>8}  {:>8}  {:>9}  {:>14}  {:>12}  {:>12}",
        "", "start", "memory", "CPU/million", "change p50", "change p99"
    );
    let world = World { flags, etcd: &etcd, runtime: &runtime };
    let folder = tempfile::tempdir().map_err(Error::Start)?;
    let dns = free_address()?;
    let mut command = tether::command(&kubedns, Some(core));
    command.args(["--etcd", &etcd.url, "--etcd-zone", "skydns.local", "--threads", "1"]);
    command.args(["--listen", &dns.to_string(), "--http-listen", "127.0.0.1:0"]);
    measure("kubedns", command, dns, &world)?;
    if let Some(coredns) = &flags.coredns {
        let dns = free_address()?;
        let corefile = folder.path().join("Corefile");
        let text = format!(
            "skydns.local:{} {{\n bind 127.0.0.1\n etcd {{\n endpoint {}\n }}\n}}\n",
            dns.port(),
            etcd.url
        );
        fs::write(&corefile, text).map_err(Error::Start)?;
        let mut command = tether::command(coredns, Some(core));
        command.arg("-conf").arg(&corefile);
        measure("CoreDNS", command, dns, &world)?;
    }
    Ok(())
}

/// What every server is measured with.
struct World<'w> {
    flags: &'w Flags,
    etcd: &'w Etcd,
    runtime: &'w tokio::runtime::Runtime,
}

/// A child that is killed when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill()); // it may have ended already
        drop(self.0.wait());
    }
}

/// Starts `command`, which answers at `dns`, and prints the row of its measurements.
fn measure(
    label: &'static str,
    mut command: Command,
    dns: SocketAddr,
    world: &World<'_>,
) -> Result<(), Error> {
    let World { flags, etcd, runtime } = *world;
    let begin = Instant::now();
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let server = Server(command.spawn().map_err(Error::Start)?);
    let asker = Asker::new(dns)?;
    let last = flags.keys - 1;
    while !asker.shows(last, address(last))? {
        if begin.elapsed() > SERVED_MAX {
            return Err(Error::Silent(label));
        }
    }
    let start = begin.elapsed();
    let id = server.0.id();
    let step = (flags.keys / NAMES).max(1);
    let questions =
        Workload::Repeat((0..NAMES).map(|number| ask(number * step % flags.keys)).collect());
    let plan = Plan {
        server: dns,
        tcp: false,
        duration: Duration::from_secs(flags.seconds.into()),
        sockets: 4,
        window: 100,
        rate: None,
        verify: None,
    };
    let (sender, stretches) = mpsc::channel();
    let before = proc::cpu(id).map_err(Error::Ask)?;
    generator::run(&plan, &questions, &AtomicBool::new(false), &sender).map_err(Error::Ask)?;
    drop(sender);
    let used = proc::cpu(id).map_err(Error::Ask)?.saturating_sub(before);
    let mut total = Tally::new();
    stretches.iter().for_each(|stretch| total.add(&stretch));
    let cpu = used.as_secs_f64() * 1e6 / (total.answered.max(1) as f64);
    let memory = proc::memory(id).map_err(Error::Ask)?;
    let mut late = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
    for change in 0..flags.changes {
        let number = change % flags.keys;
        let new = address(flags.keys + change);
        let begin = Instant::now();
        runtime.block_on(etcd.put(&key(number), &format!(r#"{{"host":"{new}"}}"#)));
        while !asker.shows(number, new)? {}
        late.saturating_record(begin.elapsed().as_micros() as u64);
    }
    let ms = |share: f64| late.value_at_quantile(share) as f64 / 1e3;
    println!(
        "{label:>8}  {:>6.2} s  {:>6} MB  {cpu:>12.2} s  {:>9.2} ms  {:>9.2} ms",
        start.as_secs_f64(),
        memory.peak >> 20,
        ms(0.5),
        ms(0.99),
    );
    Ok(())
}

/// Asks one question at a time.
struct Asker(UdpSocket);

impl Asker {
    fn new(server: SocketAddr) -> Result<Self, Error> {
        let socket = UdpSocket::bind("127.0.0.1:0").map_err(Error::Ask)?;
        socket.connect(server).map_err(Error::Ask)?;
        socket.set_read_timeout(Some(Duration::from_millis(200))).map_err(Error::Ask)?;
        Ok(Self(socket))
    }

    /// Returns whether name `number` has `address`. A server that does not answer does not have it.
    fn shows(&self, number: u32, address: std::net::Ipv4Addr) -> Result<bool, Error> {
        let mut reply = [0; 1_500];
        // Before the server listens, the port is closed.
        if self.0.send(&ask(number)).is_err() {
            return Ok(false);
        }
        let Ok(len) = self.0.recv(&mut reply) else { return Ok(false) };
        Ok(reply[..len].windows(4).any(|window| window == address.octets()))
    }
}

fn ask(number: u32) -> Message {
    question(&format!("host-{number}.skydns.local"), A)
}

fn key(number: u32) -> String {
    format!("/skydns/local/skydns/host-{number}/{:08x}", number.wrapping_mul(2_654_435_761))
}

fn value(number: u32) -> String {
    format!(r#"{{"host":"{}","targetstrip":1,"ttl":300}}"#, address(number))
}

/// Returns the address of a name, or of a change.
fn address(number: u32) -> std::net::Ipv4Addr {
    (u32::from_be_bytes([10, 0, 0, 1]) + number).into()
}

fn free_address() -> Result<SocketAddr, Error> {
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(Error::Start)?;
    socket.local_addr().map_err(Error::Start)
}

/// Different names that are asked for.
const NAMES: u32 = 1_000;
/// The longest time from the start to the first answer.
const SERVED_MAX: Duration = Duration::from_secs(120);
const A: u16 = 1;
