//! `cargo load start`: the time from the start of a program to its first answer.
//!
//! Edge. A question is sent again and again, and the first reply with records counts. dnscache
//! starts without a cache file, and with one that is full. kubedns starts from its snapshot while
//! the API server is away.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ::tests::api_server::ApiServer;
use ::tests::upstream::Upstream;
use ::tests::{build, tether};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::compare::servers::free_address;
use crate::scale::cluster::Cluster;
use crate::scale::process::is_ready;
use crate::upstreams::asker::{self, Question};

/// The flags of `cargo load start`.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Times that each program is started.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub rounds: u16,
    /// Services in the snapshot of kubedns; one in ten is headless.
    #[arg(long, default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub services: u32,
    /// Endpoints of these services.
    #[arg(long, default_value_t = 20_000,
        value_parser = clap::value_parser!(u32).range(..=4_000_000))]
    pub endpoints: u32,
    /// Entries in the cache file of dnscache.
    #[arg(long, default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub entries: u32,
    /// Folder with the programs; without it, they are built first, with the profile of this tool.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Why the measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The programs cannot be built.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// A file, a socket or a process fails.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A program started but does not answer, or does not write its file.
    #[error("{0} does not answer")]
    Silent(&'static str),
}

/// How long the starts of one program took, ascending.
#[derive(Debug)]
struct Starts {
    name: &'static str,
    took: Vec<Duration>,
}

/// A program with its flags, and the name for which it has an address.
struct Subject {
    name: &'static str,
    program: PathBuf,
    flags: Vec<String>,
    dns: SocketAddr,
    http: SocketAddr,
    question: String,
}

/// Measures, and prints the figures.
pub fn run(flags: &Flags) -> Result<(), Error> {
    let folder = match &flags.folder {
        Some(folder) => folder.clone(),
        None => runtime()?.block_on(build::programs())?,
    };
    let runtime = runtime()?;
    let directory = TempDir::new()?;
    let (cache, snapshot) = (directory.path().join("cache"), directory.path().join("snapshot"));
    let upstream = runtime.block_on(Upstream::start("127.0.0.2"));
    upstream.otherwise("3600 A 192.0.2.1");
    let plain = Subject::dnscache("dnscache", &folder, &upstream, None)?;
    let full = Subject::dnscache("dnscache, cache file", &folder, &upstream, Some(&cache))?;
    fill(&full, flags.entries)?;
    let kubedns = of_snapshot(&runtime, flags, &folder, &snapshot)?;
    let starts = [plain, full, kubedns];
    let starts = starts.iter().map(|subject| subject.starts(flags.rounds));
    let starts = starts.collect::<Result<Vec<_>, _>>()?;
    match flags.json {
        true => println!("{}", starts.iter().map(Starts::json).collect::<Value>()),
        false => starts.iter().for_each(|starts| println!("{}", starts.text())),
    }
    Ok(())
}

/// Has dnscache write a file with this many entries.
fn fill(subject: &Subject, entries: u32) -> Result<(), Error> {
    let (mut child, _) = subject.start()?;
    let question = |number: u32| Question {
        due: FILL_EVERY * number,
        name: format!("n{number}.example.net"),
        group: 0,
        client: (number % 20) as u8,
    };
    asker::ask_twice(subject.dns, (0..entries).map(question), FILL_RETRY, FILL_RETRY)?;
    stop(&mut child)
}

/// Has kubedns write the snapshot of a cluster. Returns the kubedns that starts from it.
fn of_snapshot(
    runtime: &Runtime,
    flags: &Flags,
    folder: &Path,
    snapshot: &Path,
) -> Result<Subject, Error> {
    let (services, endpoints) = (flags.services as usize, flags.endpoints as usize);
    let api = runtime.block_on(ApiServer::start());
    let cluster = Cluster { services, endpoints, headless: 10 };
    for object in cluster.objects() {
        api.apply(object);
    }
    let kubeconfig = api.kubeconfig(None);
    let more = |flag: String| vec![flag, format!("--snapshot={}", snapshot.display())];
    let (name, question) = ("kubedns, snapshot", cluster.name(services / 2));
    let program = folder.join("kubedns");
    let there = format!("--kubeconfig={}", kubeconfig.path().display());
    let mut subject = Subject::new(name, program, more(there), question)?;
    let mut child = subject.spawn()?;
    let start = Instant::now();
    while !is_ready(subject.http, "/readyz") {
        if start.elapsed() > READY_MAX {
            return Err(Error::Silent(name));
        }
        std::thread::sleep(READY_EVERY);
    }
    stop(&mut child)?;
    let nobody = free_address()?; // of which nothing answers
    subject.flags.retain(|flag| !flag.starts_with("--kubeconfig"));
    subject.flags.push(format!("--api-server=http://{nobody}"));
    Ok(subject)
}

impl Subject {
    fn new(
        name: &'static str,
        program: PathBuf,
        flags: Vec<String>,
        question: String,
    ) -> Result<Self, Error> {
        let (dns, http) = (free_address()?, free_address()?);
        Ok(Self { name, program, flags, dns, http, question })
    }

    fn dnscache(
        name: &'static str,
        folder: &Path,
        upstream: &Upstream,
        file: Option<&Path>,
    ) -> Result<Self, Error> {
        let address = upstream.address;
        let server = format!("--server={}#{}", address.ip(), address.port());
        let file = file.map(|file| format!("--cache-file={}", file.display()));
        let fixed = [server, "--resolv-file=/dev/null".to_owned()];
        let flags = fixed.into_iter().chain(file).collect();
        Self::new(name, folder.join("dnscache"), flags, "n0.example.net".to_owned())
    }

    fn spawn(&self) -> Result<Child, Error> {
        let mut command = tether::command(&self.program, None);
        command.arg(format!("--listen={}", self.dns)).arg(format!("--http-listen={}", self.http));
        command.args(&self.flags).args(["--log", "error"]).stdin(Stdio::null());
        Ok(command.spawn()?)
    }

    /// Starts it. Returns it with the time to its first answer.
    fn start(&self) -> Result<(Child, Duration), Error> {
        let child = self.spawn()?;
        let answered = asker::until_answered(self.dns, &self.question, ASK_EVERY, READY_MAX)?;
        Ok((child, answered.ok_or(Error::Silent(self.name))?))
    }

    fn starts(&self, rounds: u16) -> Result<Starts, Error> {
        let mut took = Vec::new();
        for _ in 0..rounds {
            let (mut child, answered) = self.start()?;
            took.push(answered);
            child.kill()?;
            child.wait()?;
        }
        took.sort_unstable();
        Ok(Starts { name: self.name, took })
    }
}

impl Starts {
    /// Returns the shortest time, the median and the longest, in milliseconds.
    fn millis(&self) -> [f64; 3] {
        let last = self.took.len() - 1; // there is at least one round
        [0, last / 2, last].map(|at| self.took[at].as_secs_f64() * 1e3)
    }

    fn json(&self) -> Value {
        let [shortest, median, longest] = self.millis();
        json!({
            "program": self.name, "shortest_ms": shortest, "median_ms": median,
            "longest_ms": longest,
        })
    }

    fn text(&self) -> String {
        let [shortest, median, longest] = self.millis();
        format!(
            "{:<22} first answer after {median:.1} ms ({shortest:.1} to {longest:.1})",
            self.name
        )
    }
}

/// Ends a program by SIGTERM, so that it writes its file.
fn stop(child: &mut Child) -> Result<(), Error> {
    kill_process(Pid::from_child(child), Signal::TERM).map_err(io::Error::from)?;
    child.wait()?;
    Ok(())
}

fn runtime() -> Result<Runtime, Error> {
    Ok(Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// The precision with which a start is measured.
const ASK_EVERY: Duration = Duration::from_micros(100);
const READY_EVERY: Duration = Duration::from_millis(20);
const READY_MAX: Duration = Duration::from_secs(120);
const FILL_EVERY: Duration = Duration::from_micros(200);
const FILL_RETRY: Duration = Duration::from_secs(1);
