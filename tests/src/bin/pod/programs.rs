//! The three children: started one after the other with their logs in files, asked where they
//! listen, followed, ended within a bound.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use shared::addresses::Addresses;
use tests::tether;

use crate::flags::seen_from_here;

/// Why a program is not running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The logs have nowhere to go.
    #[error("cannot write {}", path.display())]
    Log {
        /// Which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A program cannot be started.
    #[error("cannot start {name}")]
    Start {
        /// Which.
        name: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A program ended before it listened.
    #[error("{0}")]
    Ended(Ended),
    /// A program runs and has not bound its addresses.
    #[error("{name} does not listen after {} s; its log is {log}", LISTEN_MAX.as_secs())]
    Silent {
        /// Which.
        name: &'static str,
        /// Where its log is.
        log: String,
    },
}

/// A program that ended, as people read it.
#[derive(Debug)]
pub struct Ended {
    name: &'static str,
    status: io::Result<ExitStatus>,
    log: PathBuf,
}

/// The running programs. Dropped, they are killed.
#[derive(Debug)]
pub struct Programs {
    built: PathBuf,
    log_directory: PathBuf,
    tasks: JoinSet<Ended>,
    stopping: CancellationToken,
    process_ids: BTreeMap<&'static str, u32>,
    table: String,
}

impl Programs {
    /// No program yet. They come from the directory `built`, and their standard output and error go
    /// to `log_directory`/NAME.log.
    pub fn new(built: PathBuf, log_directory: PathBuf) -> Self {
        Self {
            built,
            log_directory,
            tasks: JoinSet::new(),
            stopping: CancellationToken::new(),
            process_ids: BTreeMap::new(),
            table: String::new(),
        }
    }

    /// Starts the program `name` and waits until it listens. Returns its addresses.
    ///
    /// Fails if this program, or one that was started before, ends meanwhile.
    pub async fn start(
        &mut self,
        name: &'static str,
        mut arguments: Vec<String>,
    ) -> Result<Addresses, Error> {
        let log = self.log_directory.join(format!("{name}.log"));
        let file = self.log_directory.join(format!("{name}.addresses"));
        match fs::remove_file(&file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Log { path: file, source });
            }
            _ => {}
        }
        arguments.push(format!("--addresses-file={}", file.display()));
        let child = start(name, &self.built.join(name), &arguments, &log)?;
        let id = child.id().expect("a child that nobody waited for has an id");
        self.process_ids.insert(name, id);
        self.tasks.spawn(follow(child, name, log.clone(), self.stopping.clone()));

        let deadline = Instant::now() + LISTEN_MAX;
        let addresses = loop {
            if let Some(addresses) = Addresses::read(&file) {
                break addresses;
            }
            tokio::select! {
                ended = self.next_end() => return Err(Error::Ended(ended)),
                () = sleep(LISTEN_PAUSE) => {}
            }
            if Instant::now() > deadline {
                return Err(Error::Silent { name, log: seen_from_here(&log) });
            }
        };
        let dns = addresses.dns.first().map_or(String::new(), |address| format!("DNS {address}"));
        self.table += &format!(
            "{name:<8} pid {id:<7} {dns:<19} http://{:<15} log {}\n",
            addresses.http.to_string(),
            seen_from_here(&log)
        );
        Ok(addresses)
    }

    /// One line per program: process id, addresses, log.
    pub fn table(&self) -> &str {
        self.table.trim_end()
    }

    /// The process id `name` was started with.
    pub fn process_id(&self, name: &str) -> Option<u32> {
        self.process_ids.get(name).copied()
    }

    /// How many have not ended.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// The next program that ends by itself; waits for ever when none is left.
    pub async fn next_end(&mut self) -> Ended {
        match self.tasks.join_next().await {
            Some(ended) => ended.expect("following a child does not panic"),
            None => std::future::pending().await,
        }
    }

    /// Ends all: SIGTERM, and SIGKILL to those that take longer than [`DRAIN_MAX`].
    pub async fn stop(mut self) {
        self.stopping.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.expect("following a child does not panic");
            if !ended.is_clean() {
                eprintln!("{ended}");
            }
        }
    }
}

impl Ended {
    fn is_clean(&self) -> bool {
        self.status.as_ref().is_ok_and(ExitStatus::success)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.status {
            Ok(status) => write!(f, "{} ended ({status})", self.name)?,
            Err(error) => write!(f, "{} ended ({error})", self.name)?,
        }
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        write!(f, "; {} ends with:", seen_from_here(&self.log))?;
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// Makes the directory for logs and, in a directory of its own that log lines do not touch, a
/// resolv.conf without servers, whose path it yields.
pub fn prepare(log_directory: &Path) -> Result<PathBuf, Error> {
    let unwritable = |path: &Path, source| Error::Log { path: path.to_owned(), source };
    let directory = log_directory.join("no-upstream");
    fs::create_dir_all(&directory).map_err(|source| unwritable(&directory, source))?;
    let file = directory.join("resolv.conf");
    fs::write(&file, "# No server: `cargo pod -- --server ADDR` names one.\n")
        .map_err(|source| unwritable(&file, source))?;
    Ok(file)
}

fn start(
    name: &'static str,
    program: &Path,
    arguments: &[String],
    log: &Path,
) -> Result<Child, Error> {
    let unwritable = |source| Error::Log { path: log.to_owned(), source };
    let output = File::create(log).map_err(unwritable)?;
    let errors = output.try_clone().map_err(unwritable)?;
    let refused = |source| Error::Start { name, source };
    let mut command = Command::from(tether::command(program, None));
    command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors);
    command.kill_on_drop(true).spawn().map_err(refused)
}

/// Waits until the child ends, or ends it.
async fn follow(
    mut child: Child,
    name: &'static str,
    log: PathBuf,
    stopping: CancellationToken,
) -> Ended {
    let status = tokio::select! {
        status = child.wait() => status,
        () = stopping.cancelled() => end(&mut child).await,
    };
    Ended { name, status, log }
}

async fn end(child: &mut Child) -> io::Result<ExitStatus> {
    // Not waited for yet, so the id is still the child's.
    if let Some(id) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
        kill_process(id, Signal::TERM)?;
    }
    if let Ok(status) = timeout(DRAIN_MAX, child.wait()).await {
        return status;
    }
    child.start_kill()?;
    child.wait().await
}

/// How long a program may drain. Above the programs' own deadline, below a person's patience.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long a program may take to bind its addresses: kubedns reads all objects before.
const LISTEN_MAX: Duration = Duration::from_secs(60);
const LISTEN_PAUSE: Duration = Duration::from_millis(10);
/// How much of a log is shown.
const TAIL_LINES: usize = 8;
