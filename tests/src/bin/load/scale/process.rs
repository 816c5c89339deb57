//! The servers under test as processes: started on their core, measured from outside, ended.
//!
//! Edge. Knows nothing of what a server answers.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ::tests::tether;
use shared::addresses::Addresses;

use super::Error;
use crate::proc::{self, Memory};

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    /// Where it answers DNS.
    pub dns: SocketAddr,
    child: Child,
}

impl Process {
    /// The floor (`cargo load floor`), answering.
    pub fn floor(core: Option<usize>) -> Result<Self, Error> {
        let mut command = tether::command(Path::new("/proc/self/exe"), core);
        let mut child =
            command.arg("floor").stdout(Stdio::piped()).spawn().map_err(Error::Start)?;
        let output = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map_err(Error::Start)?;
        let Ok(dns) = line.trim().parse() else {
            return Err(Error::Start(io::Error::other("the floor does not say where it listens")));
        };
        Ok(Self { dns, child })
    }

    /// `program`, a kubedns, against the API server of `kubeconfig`; comes back with how long it
    /// took from its start to a `/readyz` of 200, and where it answers HTTP.
    pub fn kubedns(
        program: &Path,
        kubeconfig: &Path,
        core: Option<usize>,
    ) -> Result<(Self, SocketAddr, Duration), Error> {
        let log = kubeconfig.with_extension("log");
        let output = fs::File::create(&log).map_err(Error::Start)?;
        let addresses = kubeconfig.with_extension("addresses");
        let mut command = tether::command(program, core);
        command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
        command.arg("--addresses-file").arg(&addresses);
        command.args(["--threads", "1", "--log-format", "text", "--kubeconfig"]).arg(kubeconfig);
        command.stdin(Stdio::null()).stderr(output.try_clone().map_err(Error::Start)?);
        let start = Instant::now();
        let child = command.stdout(output).spawn().map_err(Error::Start)?;
        let mut process = Self { dns: ([127, 0, 0, 1], 0).into(), child };
        let ready = process.wait_until_ready(&addresses, start);
        let said = fs::read_to_string(&log).unwrap_or_default();
        // Its directory is not ours to clean up but for these files.
        drop(fs::remove_file(&log));
        drop(fs::remove_file(&addresses));
        match ready {
            Some((http, took)) => Ok((process, http, took)),
            None => Err(Error::NotReady { said }),
        }
    }

    /// Where it answers HTTP, and how long it took until it was ready.
    fn wait_until_ready(
        &mut self,
        addresses: &Path,
        start: Instant,
    ) -> Option<(SocketAddr, Duration)> {
        let mut bound = None;
        while start.elapsed() < READY_MAX && self.child.try_wait().is_ok_and(|end| end.is_none()) {
            bound = bound.or_else(|| Addresses::read(addresses));
            let is_ready =
                |http| get(http, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.0 200"));
            if let Some(Addresses { dns, http }) = &bound
                && is_ready(*http)
            {
                self.dns = dns[0];
                return Some((*http, start.elapsed()));
            }
            std::thread::sleep(READY_EVERY);
        }
        None
    }

    /// User and system time it has used so far.
    pub fn cpu(&self) -> Result<Duration, Error> {
        proc::cpu(self.child.id()).map_err(Error::Proc)
    }

    /// What it holds in memory.
    pub fn memory(&self) -> Result<Memory, Error> {
        proc::memory(self.child.id()).map_err(Error::Proc)
    }

    /// From now on the peak is counted anew.
    pub fn forget_peak(&self) -> Result<(), Error> {
        proc::forget_peak(self.child.id()).map_err(Error::Proc)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How many full lists the kubedns behind `http` has taken in.
pub fn lists(http: SocketAddr) -> io::Result<u64> {
    let page = get(http, "/metrics")?;
    let lists = page.lines().filter(|line| line.contains("event=\"list\""));
    Ok(lists.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

/// The whole answer to `GET path`, head and body.
fn get(server: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, HTTP_MAX)?;
    stream.set_read_timeout(Some(HTTP_MAX))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The largest cluster on the slowest machine.
const READY_MAX: Duration = Duration::from_secs(120);
/// How exactly a start is measured.
const READY_EVERY: Duration = Duration::from_millis(2);
const HTTP_MAX: Duration = Duration::from_secs(2);
