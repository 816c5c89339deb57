//! `--own`: the load test starts its own dnscache, and an upstream in this process that counts the
//! queries of that dnscache.
//!
//! Edge.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tests::build;

use crate::compare::servers::{self, Kind, Running, Setting};
use crate::floor;

/// Both servers. They end when this is dropped, or when the tool ends.
#[derive(Debug)]
pub struct Own {
    /// dnscache.
    pub dnscache: Running,
    seen: Arc<AtomicU64>,
}

/// Why the servers cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime for the build cannot be created.
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
    /// dnscache cannot be built.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// The socket of the upstream cannot be opened.
    #[error("the upstream: {0}")]
    Upstream(#[source] io::Error),
    /// The program does not print a version, so it is not dnscache.
    #[error("{} is no dnscache", .0.display())]
    Stranger(PathBuf),
    /// dnscache does not start.
    #[error("dnscache: {0}")]
    Dnscache(#[from] servers::Error),
}

impl Own {
    /// Builds dnscache and starts it with `cache_entries` in front of an upstream that answers
    /// everything.
    pub fn start(cache_entries: usize) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let program = runtime.map_err(Error::Runtime)?.block_on(build::programs())?;
        let program = program.join("dnscache");
        let server = servers::found(Kind::Dnscache, &program).ok_or(Error::Stranger(program))?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::Upstream)?;
        let upstream = socket.local_addr().map_err(Error::Upstream)?;
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        std::thread::spawn(move || {
            let counting = |queries| {
                count.fetch_add(queries, Relaxed);
            };
            if let Err(error) = floor::serve(&socket, &floor::ADDRESS, counting) {
                eprintln!("the upstream broke: {error}");
            }
        });
        let setting = Setting {
            upstreams: &[upstream],
            cache_entries,
            nxdomain: false,
            has_rules: false,
            server_core: None,
        };
        Ok(Self { dnscache: server.start(&setting)?, seen })
    }

    /// Returns how many questions the upstream has seen so far.
    pub fn seen(&self) -> u64 {
        self.seen.load(Relaxed)
    }
}
