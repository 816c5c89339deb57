//! A dnscache of the load test's own, and an upstream in this process that sees what it asks:
//! `--own`.
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

/// Both at work; they end when this is dropped, or with the tool.
#[derive(Debug)]
pub struct Own {
    /// dnscache.
    pub dnscache: Running,
    seen: Arc<AtomicU64>,
}

/// Why there is nothing to ask.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing waits for the build.
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
    /// There is no dnscache.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// The upstream has no socket.
    #[error("the upstream: {0}")]
    Upstream(#[source] io::Error),
    /// dnscache tells no version: it is not what it should be.
    #[error("{} is no dnscache", .0.display())]
    Stranger(PathBuf),
    /// dnscache does not come up.
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
        let setting =
            Setting { upstreams: &[upstream], cache_entries, nxdomain: false, server_core: None };
        Ok(Self { dnscache: server.start(&setting)?, seen })
    }

    /// Questions that the upstream has seen so far.
    pub fn seen(&self) -> u64 {
        self.seen.load(Relaxed)
    }
}
