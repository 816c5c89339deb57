//! The side of the program: gets its sockets back, and leaves copies of them for the next start.
//!
//! Edge. Without a keeper the program binds its addresses and serves, and tries to reach the keeper
//! every second.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Bundle, Group, Message, bundles, passing, wanted};
use crate::serve::{self, BindError, Sockets};

/// Why the keeper did not return sockets, or did not accept them.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot connect to the keeper")]
    Connect(#[source] io::Error),
    #[error(transparent)]
    Passing(#[from] passing::Error),
    #[error("the keeper refuses: {0}")]
    Refused(String),
    #[error("the keeper sent an unexpected message")]
    Unexpected,
    #[error("the keeper did not answer within {} s", EXCHANGE_MAX.as_secs())]
    Slow,
}

/// Copies of the sockets of a program, and the connection to the keeper.
#[derive(Debug)]
pub struct Copies {
    program: &'static str,
    /// `None` if the program has no keeper.
    path: Option<PathBuf>,
    groups: Vec<Group>,
    sockets: Vec<OwnedFd>,
    connection: Option<UnixStream>,
    are_taken_back: bool,
    /// Whether the keeper has copies.
    are_kept: Arc<AtomicBool>,
}

/// Binds `addresses` as [`serve::bind`] does, but takes the sockets that the keeper at `path` has
/// for `program`. Without a keeper, or if it fails, all sockets are bound.
///
/// Fails if an address is taken or not on this machine. A running program of the same name keeps
/// its sockets.
pub async fn bind(
    path: Option<&Path>,
    program: &'static str,
    addresses: &[SocketAddr],
    threads: usize,
) -> Result<(Sockets, Copies), BindError> {
    let none = Copies {
        program,
        path: path.map(Path::to_owned),
        groups: Vec::new(),
        sockets: Vec::new(),
        connection: None,
        are_taken_back: false,
        are_kept: Arc::default(),
    };
    let Some(path) = path else { return Ok((serve::bind(addresses, threads)?, none)) };
    let (sockets, connection, are_taken_back) =
        take_or_bind(path, program, addresses, threads).await?;
    let copies = sockets.copies().unwrap_or_else(|error| {
        tracing::warn!(%error, "the sockets cannot be copied for the keeper");
        Vec::new()
    });
    let groups = copies.iter().map(|bundle| bundle.group.clone()).collect();
    let copies = copies.into_iter().flat_map(|bundle| bundle.sockets).collect();
    Ok((sockets, Copies { groups, sockets: copies, connection, are_taken_back, ..none }))
}

/// Takes the kept sockets and binds the others. Also returns the connection to the keeper, and
/// whether there were kept sockets. If the keeper is slow and may hold the addresses,
/// tries again.
async fn take_or_bind(
    path: &Path,
    program: &'static str,
    addresses: &[SocketAddr],
    threads: usize,
) -> Result<(Sockets, Option<UnixStream>, bool), BindError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let taken = take(path, program, wanted(addresses, threads)).await;
        let is_slow = matches!(taken, Err(Error::Slow));
        let (connection, kept) = match taken {
            Ok((connection, kept)) => {
                let count = kept.iter().map(|bundle| bundle.sockets.len()).sum::<usize>();
                tracing::info!(sockets = count, keeper = %path.display(), "sockets taken back");
                (Some(connection), kept)
            }
            Err(error) => {
                warn(path, &error);
                (None, Vec::new())
            }
        };
        let are_taken_back = !kept.is_empty();
        match serve::bind_beside(addresses, threads, kept) {
            Err(error)
                if is_slow
                    && tries < TRIES_MAX
                    && error.source.kind() == io::ErrorKind::AddrInUse => {}
            bound => return Ok((bound?, connection, are_taken_back)),
        }
    }
}

/// Connects to the keeper and asks for the sockets `wanted`. The keeper closes the others that it
/// has for `program`.
async fn take(
    path: &Path,
    program: &'static str,
    wanted: Vec<Group>,
) -> Result<(UnixStream, Vec<Bundle<OwnedFd>>), Error> {
    let exchange = async {
        let stream = UnixStream::connect(path).await.map_err(Error::Connect)?;
        passing::check_user(&stream)?;
        let message = Message::Take { program: program.to_owned(), wanted };
        passing::send(&stream, &message, &[]).await?;
        match passing::receive(&stream).await? {
            (Message::Given { groups }, sockets) => Ok((stream, bundles(groups, sockets))),
            (Message::Refused { reason }, _) => Err(Error::Refused(reason)),
            _ => Err(Error::Unexpected),
        }
    };
    timeout(EXCHANGE_MAX, exchange).await.unwrap_or(Err(Error::Slow))
}

impl Copies {
    /// Returns whether sockets of an earlier run were taken back. Queries may wait in them.
    pub fn are_taken_back(&self) -> bool {
        self.are_taken_back
    }

    /// Returns a function that returns whether the keeper has copies at the moment.
    pub fn are_kept(&self) -> impl Fn() -> bool + Send + 'static {
        let are_kept = Arc::clone(&self.are_kept);
        move || are_kept.load(Ordering::Relaxed)
    }

    /// Leaves the copies with the keeper, also with one that starts later or again. Drops them at
    /// `stopping`, and the connection at `ending`: until then the keeper knows that this program
    /// runs, and refuses another one of the same name.
    pub async fn run(
        mut self,
        stopping: CancellationToken,
        ending: CancellationToken,
    ) -> Result<(), Infallible> {
        if let Some(path) = self.path.take() {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.follow(&path) => {}
            }
        }
        // The listener closes its sockets one after the other. These must not hold them open.
        self.sockets.clear();
        if let Some(stream) = self.connection.take() {
            tokio::select! {
                () = ending.cancelled() => return Ok(()), // with the connection
                () = passing::closed(&stream) => self.are_kept.store(false, Ordering::Relaxed),
            }
        }
        ending.cancelled().await;
        Ok(())
    }

    /// Connects again each time that the keeper is gone. Returns only if the keeper refuses: then
    /// another program of this name runs, and its sockets must stay where they are after its end.
    async fn follow(&mut self, path: &Path) {
        let mut is_known = self.connection.is_none();
        loop {
            match self.leave(path).await {
                Ok(count) => {
                    tracing::info!(sockets = count, "the keeper has copies of the sockets");
                    self.are_kept.store(true, Ordering::Relaxed);
                    if let Some(stream) = &self.connection {
                        passing::closed(stream).await;
                    }
                    self.are_kept.store(false, Ordering::Relaxed);
                    tracing::warn!(keeper = %path.display(), "the keeper of the sockets is gone");
                    is_known = true;
                }
                Err(error @ Error::Refused(_)) => return warn(path, &error),
                Err(error) if is_known => tracing::debug!(%error, "the keeper has no copies yet"),
                Err(error) => {
                    warn(path, &error);
                    is_known = true;
                }
            }
            self.connection = None;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends the copies, over a new connection if there is none. Returns how many the keeper has.
    async fn leave(&mut self, path: &Path) -> Result<usize, Error> {
        let stream = match &mut self.connection {
            Some(stream) => stream,
            // Those that the keeper has are the same as ours, or of no use.
            missing => missing.insert(take(path, self.program, Vec::new()).await?.0),
        };
        let exchange = async {
            let message = Message::Keep { groups: self.groups.clone() };
            passing::send(stream, &message, &self.sockets).await?;
            match passing::receive(stream).await? {
                (Message::Kept { sockets }, _) => Ok(sockets),
                (Message::Refused { reason }, _) => Err(Error::Refused(reason)),
                _ => Err(Error::Unexpected),
            }
        };
        timeout(EXCHANGE_MAX, exchange).await.unwrap_or(Err(Error::Slow))
    }
}

/// Logs that the keeper at `path` does not help, with the whole chain of causes.
fn warn(path: &Path, error: &Error) {
    let error = crate::flags::chain(error);
    tracing::warn!(error, keeper = %path.display(), "no keeper for the sockets");
}

/// The time for a connection, a request and its reply. A keeper with little CPU needs a part of a
/// second.
const EXCHANGE_MAX: Duration = Duration::from_secs(3);
/// How often a start waits for a keeper that is slow while the addresses are taken.
const TRIES_MAX: usize = 3;
/// The pause before the next connection.
const PAUSE: Duration = Duration::from_secs(1);
