//! Keeps copies of the listening sockets of kubedns and dnscache while these restart.
//!
//! Edge. One task owns everything. Each connection is a task that exchanges one message and
//! returns; `shelf` has the rules. No kept socket is ever read.
//!
//! ```text
//! accept ─▶ same user? ─▶ asked ─▶ offered ─▶ held ─▶ its sockets stay for a while
//!                         take     given/keep  kept
//! ```

mod shelf;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shared::clock::boot_time;
use shared::keep::passing::{self, check_user, closed, is_closed, receive, send};
use shared::keep::{Bundle, Group, Message, bundles};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use shelf::Shelf;

/// Why the keeper cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the Unix socket {}", path.display())]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// How many sockets are kept for each program.
pub type Counts = BTreeMap<String, usize>;

/// A keeper that listens and does not serve yet.
#[derive(Debug)]
pub struct Keeper {
    listener: UnixListener,
    keep_for: Duration,
    counts: watch::Sender<Counts>,
}

impl Keeper {
    /// Listens at `path`, for processes of the same user. A socket file that an earlier run left is
    /// replaced. Copies are kept for `keep_for` after their program has ended.
    ///
    /// Fails if the file cannot be created, or if another kind of file has this path.
    pub fn open(path: &Path, keep_for: Duration) -> Result<Self, OpenError> {
        let error = |source| OpenError { path: path.to_owned(), source };
        let listener = listen(path).map_err(error)?;
        Ok(Self { listener, keep_for, counts: watch::Sender::default() })
    }

    /// Returns how many sockets are kept, as they change.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    /// Serves until `stopping`. Then closes all copies.
    pub async fn run(self, stopping: CancellationToken) -> Result<(), Infallible> {
        let mut desk = Desk {
            shelf: Shelf::new(self.keep_for),
            streams: HashMap::new(),
            tasks: JoinSet::new(),
            last: 0,
        };
        loop {
            let next_end = desk.shelf.next_end().map(|end| end.since(boot_time()));
            let expiry = tokio::time::sleep(next_end.unwrap_or(Duration::MAX));
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                accepted = self.listener.accept(), if desk.streams.len() < CONNECTIONS_MAX => {
                    match accepted {
                        Ok((stream, _)) => desk.admit(stream),
                        Err(error) => {
                            tracing::warn!(%error, "accepting a connection of a program failed");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
                Some(ended) = desk.tasks.join_next() => match ended {
                    Ok((connection, step)) => desk.advance(connection, step),
                    // A bug. The connection has no task any more, and its program connects again.
                    Err(error) => tracing::error!(%error, "a connection's task panicked"),
                },
                () = expiry => desk.expire(),
            }
            self.counts.send_if_modified(|counts| {
                let now: Counts = desk.shelf.counts().collect();
                let is_new = *counts != now;
                *counts = now;
                is_new
            });
        }
    }
}

/// Listens at `path`. The socket is created beside it and renamed, so that nothing connects before
/// its permissions are set.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("there is a file that is not a socket"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    if let Err(error) = std::fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

/// The result of an exchange with a program.
enum Step {
    /// It asks for its sockets.
    Asked { program: String, wanted: Vec<Group> },
    /// It sent copies of its sockets.
    Offered(Vec<Bundle<OwnedFd>>),
    /// The connection has ended: by the program, or because of an error.
    Ended(Option<passing::Error>),
}

/// The state of the keeper.
struct Desk {
    shelf: Shelf<OwnedFd>,
    streams: HashMap<u64, Arc<UnixStream>>,
    tasks: JoinSet<(u64, Step)>,
    /// The number of the latest connection.
    last: u64,
}

impl Desk {
    fn admit(&mut self, stream: UnixStream) {
        if let Err(error) = check_user(&stream) {
            tracing::warn!(%error, "a connection to the keeper of sockets is refused");
            return;
        }
        self.last += 1;
        let (connection, stream) = (self.last, Arc::new(stream));
        self.streams.insert(connection, Arc::clone(&stream));
        self.tasks.spawn(async move { (connection, asked(&stream).await) });
    }

    fn advance(&mut self, connection: u64, step: Step) {
        // Streams are removed only at their end, after which there is no further step.
        let Some(stream) = self.streams.get(&connection).map(Arc::clone) else { return };
        match step {
            Step::Asked { program, wanted } => {
                let (reply, sockets) = self.take(&program, &wanted, connection);
                let next = async move { (connection, offered(&stream, reply, sockets).await) };
                self.tasks.spawn(next);
            }
            Step::Offered(bundles) => {
                let sockets = bundles.iter().map(|bundle| bundle.sockets.len()).sum();
                match self.shelf.keep(connection, bundles) {
                    Some(program) => tracing::info!(program, sockets, "keeping copies of sockets"),
                    None => return self.end(connection, None),
                }
                self.tasks.spawn(async move { (connection, held(&stream, sockets).await) });
            }
            Step::Ended(error) => self.end(connection, error),
        }
    }

    /// Returns the reply to a program that asks, and the sockets that go with it.
    fn take(
        &mut self,
        program: &str,
        wanted: &[Group],
        connection: u64,
    ) -> (Message, Vec<OwnedFd>) {
        let holder = self.shelf.holder(program).map(|holder| (holder, self.streams.get(&holder)));
        // A program that was killed and started again can ask before the end of its old connection
        // is noticed.
        if let Some((holder, stream)) = holder
            && stream.is_none_or(|stream| is_closed(stream))
        {
            self.shelf.leave(holder, boot_time());
        }
        let copies = self.shelf.take(program, wanted, connection).map_err(|e| e.to_string());
        let copies = copies.and_then(|bundles| {
            let sockets = bundles.iter().flat_map(|bundle| &bundle.sockets);
            let sockets = sockets.map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>();
            let groups = bundles.iter().map(|bundle| bundle.group.clone()).collect();
            sockets.map(|sockets| (groups, sockets)).map_err(|error| error.to_string())
        });
        match copies {
            Ok((groups, sockets)) => {
                if !sockets.is_empty() {
                    tracing::info!(program, sockets = sockets.len(), "giving sockets back");
                }
                (Message::Given { groups }, sockets)
            }
            Err(reason) => {
                tracing::warn!(program, reason, "a program gets no sockets");
                (Message::Refused { reason }, Vec::new())
            }
        }
    }

    fn end(&mut self, connection: u64, error: Option<passing::Error>) {
        self.streams.remove(&connection);
        if let Some(program) = self.shelf.leave(connection, boot_time()) {
            tracing::info!(program, "a program has ended, its sockets are kept for its next start");
        }
        if let Some(error) = error {
            tracing::warn!(%error, "a connection to the keeper of sockets has failed");
        }
    }

    fn expire(&mut self) {
        for program in self.shelf.expire(boot_time()) {
            tracing::warn!(program, "the program did not come back, its sockets are closed");
        }
    }
}

/// Waits for the first message.
async fn asked(stream: &UnixStream) -> Step {
    match timeout(EXCHANGE_MAX, receive(stream)).await {
        Ok(Ok((Message::Take { program, wanted }, _))) => Step::Asked { program, wanted },
        Ok(Err(error)) => Step::Ended(Some(error)),
        Ok(Ok(_)) | Err(_) => Step::Ended(None),
    }
}

/// Sends the reply, and waits until the program has bound its other sockets and sends copies.
async fn offered(stream: &UnixStream, reply: Message, sockets: Vec<OwnedFd>) -> Step {
    match timeout(EXCHANGE_MAX, send(stream, &reply, &sockets)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Step::Ended(Some(error)),
        Err(_) => return Step::Ended(None),
    }
    drop(sockets);
    match timeout(START_MAX, receive(stream)).await {
        Ok(Ok((Message::Keep { groups }, sockets))) => Step::Offered(bundles(groups, sockets)),
        // A program that was refused, or that does not start, ends here.
        Ok(Err(passing::Error::Closed)) | Err(_) => Step::Ended(None),
        Ok(Err(error)) => Step::Ended(Some(error)),
        Ok(Ok(_)) => Step::Ended(None),
    }
}

/// Confirms the copies, and waits for the end of the program.
async fn held(stream: &UnixStream, sockets: usize) -> Step {
    match timeout(EXCHANGE_MAX, send(stream, &Message::Kept { sockets }, &[])).await {
        Ok(Ok(())) => closed(stream).await,
        Ok(Err(error)) => return Step::Ended(Some(error)),
        Err(_) => {}
    }
    Step::Ended(None)
}

/// Connections at the same time. Each program has one, and one more while it restarts.
const CONNECTIONS_MAX: usize = 16;
/// The time for a message to arrive or to be sent.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);
/// The time from the reply to the copies, in which the program reads its configuration.
const START_MAX: Duration = Duration::from_secs(60);
/// The pause after a failed accept, for example if no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
