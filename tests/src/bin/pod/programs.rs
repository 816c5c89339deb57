//! The three child processes: started one after the other with their logs in files. Their addresses
//! are read, they are followed, and they are ended within a bound.

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
    /// The log files cannot be written.
    #[error("cannot write {}", path.display())]
    Log {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A program cannot be started.
    #[error("cannot start {name}")]
    Start {
        /// Its name.
        name: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A program ended before it could listen.
    #[error("{0}")]
    Ended(Ended),
    /// A program runs but has not bound its addresses.
    #[error("{name} does not listen after {} s; its log is {log}", LISTEN_MAX.as_secs())]
    Silent {
        /// Its name.
        name: &'static str,
        /// The path of its log.
        log: String,
    },
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    name: &'static str,
    status: io::Result<ExitStatus>,
    log: PathBuf,
}

/// The running programs. They are killed when this is dropped.
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
    /// Creates an empty set of programs. They are started from the directory `built`, and their
    /// standard output and error are written to `log_directory`/NAME.log.
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

    /// Returns one line per program: process id, addresses, log.
    pub fn table(&self) -> &str {
        self.table.trim_end()
    }

    /// Returns the process id of `name`.
    pub fn process_id(&self, name: &str) -> Option<u32> {
        self.process_ids.get(name).copied()
    }

    /// Returns how many programs have not ended.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Returns the next program that ends by itself. Waits for ever if all have ended.
    pub async fn next_end(&mut self) -> Ended {
        match self.tasks.join_next().await {
            Some(ended) => ended.expect("following a child does not panic"),
            None => std::future::pending().await,
        }
    }

    /// Ends all programs with SIGTERM, and with SIGKILL if they take longer than [`DRAIN_MAX`].
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

/// Creates the directory of logs and, in a subdirectory that logs do not use, a resolv.conf without
/// servers. Returns the path of that file.
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

/// Waits until the child ends, or ends it at `stopping`.
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
    // The child was not waited for yet, so the id is still its own.
    if let Some(id) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
        kill_process(id, Signal::TERM)?;
    }
    if let Ok(status) = timeout(DRAIN_MAX, child.wait()).await {
        return status;
    }
    child.start_kill()?;
    child.wait().await
}

/// How long a program may drain. It must be above the programs' own deadline.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long a program may take to bind its addresses. kubedns must read all objects before.
const LISTEN_MAX: Duration = Duration::from_secs(60);
const LISTEN_PAUSE: Duration = Duration::from_millis(10);
/// How many lines of a log are shown.
const TAIL_LINES: usize = 8;
