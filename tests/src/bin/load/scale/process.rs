//! The servers under test as processes: starts them on their core, measures them from outside, ends
//! them.
//!
//! Edge. It must not depend on the answers of a server.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ::tests::tether;
use shared::addresses::Addresses;

use super::Error;
use crate::compare::servers::free_address;
use crate::proc::{self, Memory};

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    /// The address that it answers DNS at.
    pub dns: SocketAddr,
    child: Child,
}

impl Process {
    /// Starts the floor (`cargo load floor`), which answers at once.
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

    /// Starts `program`, a kubedns, with `flags` against the API server of `kubeconfig`. Returns
    /// where it answers HTTP as well, and how long it took from its start to a `/readyz` of 200.
    pub fn kubedns(
        program: &Path,
        kubeconfig: &Path,
        core: Option<usize>,
        flags: &[&str],
    ) -> Result<(Self, SocketAddr, Duration), Error> {
        let addresses = kubeconfig.with_extension("addresses");
        let mut command = tether::command(program, core);
        command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
        command.arg("--addresses-file").arg(&addresses);
        command.args(["--threads", "1", "--log-format", "text", "--kubeconfig"]).arg(kubeconfig);
        command.args(flags);
        let ready = Self::ready(command, program, kubeconfig, |process| {
            let Addresses { dns, http } = Addresses::read(&addresses)?;
            process.dns = dns[0];
            is_ready(http, "/readyz").then_some(http)
        });
        // The directory belongs to the user, so only these files are removed.
        drop(fs::remove_file(&addresses));
        ready
    }

    /// Starts `program`, a CoreDNS, in the same way, until `/ready` is 200. Its runtime gets one
    /// processor for each core that it may use, as in a container.
    pub fn coredns(
        program: &Path,
        kubeconfig: &Path,
        core: Option<usize>,
    ) -> Result<(Self, Duration), Error> {
        let port = || free_address().map(|address| address.port()).map_err(Error::Start);
        let [dns, http] = [port()?, port()?];
        let corefile = kubeconfig.with_extension("Corefile");
        let text = format!(
            ".:{dns} {{\n bind 127.0.0.1\n ready 127.0.0.1:{http}\n \
             kubernetes cluster.local in-addr.arpa ip6.arpa {{\n \
             kubeconfig {}\n pods insecure\n }}\n}}\n",
            kubeconfig.display()
        );
        fs::write(&corefile, text).map_err(Error::Start)?;
        let mut command = tether::command(program, core);
        command.arg("-conf").arg(&corefile);
        let http = ([127, 0, 0, 1], http).into();
        let ready = Self::ready(command, program, kubeconfig, |process| {
            process.dns = ([127, 0, 0, 1], dns).into();
            is_ready(http, "/ready").then_some(())
        });
        drop(fs::remove_file(&corefile));
        ready.map(|(process, (), took)| (process, took))
    }

    /// Starts `command`, which runs `program`, and waits until `is_ready` returns a value. Returns
    /// that value, and the time.
    fn ready<T>(
        mut command: Command,
        program: &Path,
        kubeconfig: &Path,
        mut is_ready: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<(Self, T, Duration), Error> {
        let log = kubeconfig.with_extension("log");
        let output = fs::File::create(&log).map_err(Error::Start)?;
        command.stdin(Stdio::null()).stderr(output.try_clone().map_err(Error::Start)?);
        let start = Instant::now();
        let child = command.stdout(output).spawn().map_err(Error::Start)?;
        let mut process = Self { dns: ([127, 0, 0, 1], 0).into(), child };
        let mut found = None;
        while found.is_none()
            && start.elapsed() < READY_MAX
            && process.child.try_wait().is_ok_and(|end| end.is_none())
        {
            std::thread::sleep(READY_EVERY);
            found = is_ready(&mut process);
        }
        let took = start.elapsed();
        let text = fs::read_to_string(&log).unwrap_or_default();
        drop(fs::remove_file(&log));
        let program = program.to_owned();
        let found = found.ok_or(Error::NotReady { program, log: text })?;
        Ok((process, found, took))
    }

    /// Returns the user and system time that it has used so far.
    pub fn cpu(&self) -> Result<Duration, Error> {
        proc::cpu(self.child.id()).map_err(Error::Proc)
    }

    /// Returns its memory.
    pub fn memory(&self) -> Result<Memory, Error> {
        proc::memory(self.child.id()).map_err(Error::Proc)
    }

    /// Resets the peak of its memory.
    pub fn forget_peak(&self) -> Result<(), Error> {
        proc::forget_peak(self.child.id()).map_err(Error::Proc)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // If it has ended already, the errors can be ignored.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns whether the page `path` of the program at `http` is 200.
pub fn is_ready(http: SocketAddr, path: &str) -> bool {
    get(http, path).is_ok_and(|answer| {
        answer.split(' ').nth(1) == Some("200") // HTTP/1.0 or HTTP/1.1
    })
}

/// Returns how many full lists the kubedns at `http` has read.
pub fn lists(http: SocketAddr) -> io::Result<u64> {
    let page = get(http, "/metrics")?;
    let lists = page.lines().filter(|line| line.contains("event=\"list\""));
    Ok(lists.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

/// Returns the whole answer to `GET path`, head and body.
fn get(server: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, HTTP_MAX)?;
    stream.set_read_timeout(Some(HTTP_MAX))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Enough for the largest cluster on the slowest machine.
const READY_MAX: Duration = Duration::from_secs(120);
/// The precision with which a start is measured.
const READY_EVERY: Duration = Duration::from_millis(2);
const HTTP_MAX: Duration = Duration::from_secs(2);
