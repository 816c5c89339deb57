//! The three programs as processes, as in a pod.
//!
//! Edge.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ::tests::tether;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::restarts::pair::{free_address, is_ready, write_objects};

/// A program that can be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Program {
    /// The cache on port 53.
    Dnscache,
    /// The records of the cluster.
    Kubedns,
}

impl Program {
    /// Returns the name of its binary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dnscache => "dnscache",
            Self::Kubedns => "kubedns",
        }
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

    /// Ends a program, by SIGKILL or by SIGTERM, and starts it again at once.
    pub fn restart(&mut self, program: Program, kill: bool) -> Result<(), Error> {
        let child = match program {
            Program::Dnscache => self.cache.as_mut(),
            Program::Kubedns => self.records.as_mut(),
        };
        let name = program.name();
        let end = |source| Error::End { program: name, source };
        if let Some(child) = child {
            let signal = if kill { Signal::KILL } else { Signal::TERM };
            // Ended already: it is started again below.
            kill_process(Pid::from_child(child), signal).unwrap_or_default();
            child.wait().map_err(end)?;
        }
        match program {
            Program::Dnscache => self.cache = Some(self.start_dnscache()?),
            Program::Kubedns => self.records = Some(self.start_kubedns()?),
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

const READY_MAX: Duration = Duration::from_secs(20);
const READY_EVERY: Duration = Duration::from_millis(5);
