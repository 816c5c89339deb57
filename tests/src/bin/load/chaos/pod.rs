//! The programs that are killed: those of a pod, or another cache.
//!
//! Edge.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ::tests::tether;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::compare::servers::{self, Running, Server, Setting, free_address};
use crate::scale::process::is_ready;

/// Programs that are restarted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Program {
    /// The cache on port 53.
    Dnscache,
    /// The records of the cluster.
    Kubedns,
    /// Both at the same time.
    Both,
}

impl Program {
    /// Returns the name of its binary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dnscache => "dnscache",
            Self::Kubedns => "kubedns",
            Self::Both => "both",
        }
    }

    fn is_cache(self) -> bool {
        self != Self::Kubedns
    }

    fn is_records(self) -> bool {
        self != Self::Dnscache
    }
}

/// Why the pod fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its files cannot be written.
    #[error("cannot write the objects: {0}")]
    Objects(#[source] io::Error),
    /// A program does not start.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Its name.
        program: &'static str,
        /// What the operating system reported.
        source: io::Error,
    },
    /// A program started but does not answer.
    #[error("{0} does not answer")]
    Silent(&'static str),
    /// Another cache does not start or end.
    #[error("{program}: {source}")]
    Peer {
        /// Its name.
        program: &'static str,
        /// Why.
        source: servers::Error,
    },
    /// A program cannot be ended.
    #[error("cannot end {program}: {source}")]
    End {
        /// Its name.
        program: &'static str,
        /// What the operating system reported.
        source: io::Error,
    },
}

/// What the pod is made of.
#[derive(Debug)]
pub struct Plan {
    /// The folder of the programs.
    pub folder: PathBuf,
    /// The core of all three.
    pub core: Option<usize>,
    /// The number of Services.
    pub services: u32,
    /// The upstream of dnscache.
    pub upstream: SocketAddr,
    /// Whether healthz keeps sockets.
    pub keeps: bool,
}

/// A running pod. Its programs end when this is dropped.
#[derive(Debug)]
pub struct Pod {
    /// The DNS address of dnscache.
    pub dnscache: SocketAddr,
    /// The DNS address of kubedns.
    pub kubedns: SocketAddr,
    plan: Plan,
    /// The HTTP addresses of kubedns, dnscache and healthz.
    http: [SocketAddr; 3],
    objects: TempDir,
    keeper: PathBuf,
    _keeper_directory: TempDir,
    records: Option<Child>,
    cache: Option<Child>,
    health: Option<Child>,
}

impl Pod {
    /// Starts the programs, and waits until they are ready.
    pub fn start(plan: Plan) -> Result<Self, Error> {
        let port = || free_address().map_err(|source| Error::Start { program: "a port", source });
        let directory = TempDir::new().map_err(Error::Objects)?;
        let mut pod = Self {
            dnscache: port()?,
            kubedns: port()?,
            http: [port()?, port()?, port()?],
            objects: write_objects(plan.services).map_err(Error::Objects)?,
            keeper: directory.path().join("keep"),
            _keeper_directory: directory,
            plan,
            records: None,
            cache: None,
            health: None,
        };
        pod.health = Some(pod.start_healthz()?);
        pod.wait(pod.http[2], "/livez", "healthz")?;
        pod.records = Some(pod.start_kubedns()?);
        pod.wait(pod.http[0], "/readyz", "kubedns")?;
        pod.cache = Some(pod.start_dnscache()?);
        pod.wait(pod.http[1], "/readyz", "dnscache")?;
        Ok(pod)
    }

    /// Ends programs by `signal`, and starts them again at once.
    pub fn restart(&mut self, programs: Program, signal: Signal) -> Result<(), Error> {
        let cache = self.cache.as_mut().filter(|_| programs.is_cache());
        let records = self.records.as_mut().filter(|_| programs.is_records());
        let mut ended: Vec<&mut Child> = cache.into_iter().chain(records).collect();
        for child in &ended {
            // Ended already: it is started again below.
            kill_process(Pid::from_child(child), signal).unwrap_or_default();
        }
        let end = |source| Error::End { program: programs.name(), source };
        ended.iter_mut().try_for_each(|child| child.wait().map(drop)).map_err(end)?;
        if programs.is_cache() {
            self.cache = Some(self.start_dnscache()?);
        }
        if programs.is_records() {
            self.records = Some(self.start_kubedns()?);
        }
        Ok(())
    }

    fn start_kubedns(&self) -> Result<Child, Error> {
        let objects = self.objects.path().display();
        self.spawn(
            "kubedns",
            &[
                format!("--listen={}", self.kubedns),
                format!("--http-listen={}", self.http[0]),
                "--threads=1".to_owned(),
                format!("--objects={objects}"),
            ],
        )
    }

    fn start_dnscache(&self) -> Result<Child, Error> {
        let (kubedns, upstream) = (self.kubedns, self.plan.upstream);
        self.spawn(
            "dnscache",
            &[
                format!("--listen={}", self.dnscache),
                format!("--http-listen={}", self.http[1]),
                format!("--server=/cluster.local/{}#{}", kubedns.ip(), kubedns.port()),
                format!("--server={}#{}", upstream.ip(), upstream.port()),
                format!("--changes=http://{}/changes", self.http[0]),
                "--resolv-file=/dev/null".to_owned(),
            ],
        )
    }

    fn start_healthz(&self) -> Result<Child, Error> {
        let question = "s0.load.svc.cluster.local";
        self.spawn(
            "healthz",
            &[
                format!("--http-listen={}", self.http[2]),
                format!("--probe=dnscache,{},{question}", self.dnscache),
                format!("--probe=kubedns,{},{question}", self.kubedns),
            ],
        )
    }

    fn spawn(&self, program: &'static str, flags: &[String]) -> Result<Child, Error> {
        let mut command = tether::command(&self.plan.folder.join(program), self.plan.core);
        command.args(flags).args(["--log", "error"]).stdin(Stdio::null());
        if self.plan.keeps {
            command.arg("--keep-sockets").arg(&self.keeper);
        }
        command.spawn().map_err(|source| Error::Start { program, source })
    }

    /// Waits until `page` of a program is 200.
    fn wait(&self, http: SocketAddr, page: &str, program: &'static str) -> Result<(), Error> {
        let start = Instant::now();
        while start.elapsed() < READY_MAX {
            if is_ready(http, page) {
                return Ok(());
            }
            std::thread::sleep(READY_EVERY);
        }
        Err(Error::Silent(program))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let children = [&mut self.cache, &mut self.records, &mut self.health];
        for child in children.into_iter().flatten() {
            // If a child has ended already, it cannot be killed.
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
    }
}

/// Another cache, which is restarted in the same way.
#[derive(Debug)]
pub struct Peer {
    server: Server,
    core: Option<usize>,
    upstream: SocketAddr,
    running: Option<Running>,
    /// Its address.
    pub address: SocketAddr,
}

impl Peer {
    /// Starts `server` on `core` with this upstream.
    pub fn start(server: Server, core: Option<usize>, upstream: SocketAddr) -> Result<Self, Error> {
        let program = server.kind.name();
        let address = free_address().map_err(|source| Error::Start { program, source })?;
        let mut peer = Self { server, core, upstream, running: None, address };
        peer.start_again()?;
        Ok(peer)
    }

    /// Returns its name and version.
    pub fn title(&self) -> String {
        format!("{} {}", self.server.kind.name(), self.server.version)
    }

    /// Ends it by `signal`, and starts it again at once.
    pub fn restart(&mut self, signal: Signal) -> Result<(), Error> {
        if let Some(running) = self.running.take() {
            let program = self.server.kind.name();
            running.end(signal).map_err(|source| Error::Peer { program, source })?;
        }
        self.start_again()
    }

    fn start_again(&mut self) -> Result<(), Error> {
        let setting = Setting {
            has_rules: false,
            upstreams: &[self.upstream],
            cache_entries: servers::CACHE_ENTRIES,
            nxdomain: false,
            server_core: self.core,
        };
        let program = self.server.kind.name();
        let running = self.server.start_at(Some(self.address), &setting);
        self.running = Some(running.map_err(|source| Error::Peer { program, source })?);
        Ok(())
    }
}

/// Writes `services` Services in the namespace `load` to a new directory.
fn write_objects(services: u32) -> io::Result<TempDir> {
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

const READY_MAX: Duration = Duration::from_secs(20);
const READY_EVERY: Duration = Duration::from_millis(5);
