//! A dnscache and a kubedns as processes, as in a pod.
//!
//! Edge.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ::tests::tether;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::Error;

/// Both servers. They end when this is dropped.
#[derive(Debug)]
pub struct Pair {
    /// The DNS address of dnscache.
    pub dnscache: SocketAddr,
    /// The DNS and HTTP addresses of kubedns, which stay the same after each restart.
    kubedns: (SocketAddr, SocketAddr),
    program: PathBuf,
    core: Option<usize>,
    objects: TempDir,
    records: Child,
    cache: Child,
}

impl Pair {
    /// Starts the `programs` with this many Services and one upstream, and waits until both answer.
    pub fn start(
        programs: &Path,
        core: Option<usize>,
        (services, upstream): (u32, SocketAddr),
    ) -> Result<Self, Error> {
        let objects = write_objects(services).map_err(Error::Objects)?;
        let port = || free_address().map_err(|source| Error::Start { program: "kubedns", source });
        let kubedns = (port()?, port()?);
        let program = programs.join("kubedns");
        let records = start_kubedns(&program, core, (kubedns, objects.path()))?;
        let (dnscache, http) = (port()?, port()?);
        let cluster = format!("127.0.0.1#{}", kubedns.0.port());
        let cache = tether::command(&programs.join("dnscache"), core)
            .args(["--listen", &dnscache.to_string(), "--http-listen", &http.to_string()])
            .args(["--server", &format!("/cluster.local/{cluster}")])
            .args(["--server", &format!("{}#{}", upstream.ip(), upstream.port())])
            .args(["--changes", &format!("http://{}/changes", kubedns.1)])
            .args(["--resolv-file", "/dev/null", "--log", "error"])
            .stdin(Stdio::null())
            .spawn();
        let cache = cache.map_err(|source| Error::Start { program: "dnscache", source })?;
        let mut pair = Self { dnscache, kubedns, program, core, objects, records, cache };
        pair.wait(kubedns.1, "kubedns")?;
        pair.wait(http, "dnscache")?;
        Ok(pair)
    }

    /// Ends kubedns, by SIGKILL or by SIGTERM, and starts it again at once.
    pub fn restart(&mut self, kill: bool) -> Result<(), Error> {
        let id = Pid::from_child(&self.records);
        let signal = if kill { Signal::KILL } else { Signal::TERM };
        kill_process(id, signal).map_err(|error| Error::End(error.into()))?;
        self.records.wait().map_err(Error::End)?;
        self.records =
            start_kubedns(&self.program, self.core, (self.kubedns, self.objects.path()))?;
        Ok(())
    }

    /// Waits until `program` is ready.
    fn wait(&mut self, http: SocketAddr, program: &'static str) -> Result<(), Error> {
        let start = Instant::now();
        while start.elapsed() < READY_MAX {
            if is_ready(http, "/readyz") {
                return Ok(());
            }
            std::thread::sleep(READY_EVERY);
        }
        Err(Error::Silent(program))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in [&mut self.cache, &mut self.records] {
            // If a child has ended already, it cannot be killed.
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
    }
}

fn start_kubedns(
    program: &Path,
    core: Option<usize>,
    ((dns, http), objects): ((SocketAddr, SocketAddr), &Path),
) -> Result<Child, Error> {
    tether::command(program, core)
        .args(["--listen", &dns.to_string(), "--http-listen", &http.to_string()])
        .args(["--threads", "1", "--log", "error", "--objects"])
        .arg(objects)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|source| Error::Start { program: "kubedns", source })
}

/// Writes `services` Services in the namespace `load` to a new directory.
pub fn write_objects(services: u32) -> io::Result<TempDir> {
    let directory = TempDir::new()?;
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: load}\n".to_owned();
    for number in 0..services {
        let (high, low) = (number / 250, number % 250 + 1);
        write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: load}}\n\
             spec:\n  clusterIP: 10.96.{high}.{low}\n  ports: [{{port: 80}}]\n"
        )
        .expect("a string takes all text");
    }
    fs::write(directory.path().join("objects.yaml"), text)?;
    Ok(directory)
}

/// Returns whether `page` of the program at `http` is 200.
pub fn is_ready(http: SocketAddr, page: &str) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&http, HTTP_MAX)?;
        stream.set_read_timeout(Some(HTTP_MAX))?;
        stream.write_all(format!("GET {page} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok::<_, io::Error>(head.ends_with(b"200"))
    };
    ask().unwrap_or(false)
}

/// Returns a port of 127.0.0.1 that was free for UDP and TCP a moment ago.
pub fn free_address() -> io::Result<SocketAddr> {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let address = tcp.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
}

const READY_MAX: Duration = Duration::from_secs(20);
const READY_EVERY: Duration = Duration::from_millis(5);
const HTTP_MAX: Duration = Duration::from_secs(1);
