//! The last known state in a file. It is written while kubedns works, and read at a start without
//! an API server.
//!
//! Edge. Knows the file, when it is written and with which result; its content is defined by
//! `codec` and `objects`. A file is used in full or not at all.
//!
//! ```text
//! start ── file ──▶ restore ──▶ store: answers at once, marked as stale ── lists ──▶ difference
//! store ── publication, at most every 30 s, and at the end ──▶ .NAME.part ─ fsync ─ rename ─▶ NAME
//! ```

pub mod codec;
mod objects;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shared::clock::{boot_time, unix_ms};
use shared::ready::Check;
use shared::saved;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::changes::Changes;
use crate::records::Zone;
use crate::source::watch::progress::Progress;
use crate::store::{self, Reader, Writer};

use codec::{Decoded, Header, Item, Refused, encode};

/// The parts that the program starts with.
pub struct Start {
    /// The store, with the objects of the snapshot if it could be used.
    pub writer: Writer,
    /// Reads the store.
    pub reader: Reader,
    /// The log of changes of the store.
    pub changes: Changes,
    /// Writes the file, if there is a path.
    pub keeper: Option<Keeper>,
}

/// Reads the snapshot at `path`, if any, that a kubedns with `identity` wrote.
///
/// If a file cannot be used, the reason is logged, and the program starts with an empty store.
pub fn start(path: Option<&Path>, identity: String, zone: Zone) -> Start {
    let (mut writer, mut reader) = store::new(zone.clone());
    let mut changes = Changes::new(unix_ms());
    let Some(path) = path else { return Start { writer, reader, changes, keeper: None } };
    saved::remove_leftovers(path);
    let mut state = State::default();
    match saved::read(path, LEN_MAX).map_err(ReadError::from).and_then(|file| {
        let len_bytes = file.len() as u64;
        restore(&file, &identity, zone).map(|restored| (restored, len_bytes)).map_err(Into::into)
    }) {
        Ok((restored, len_bytes)) => {
            let header = restored.header;
            (writer, reader) = (restored.writer, restored.reader);
            changes = Changes::resumed(unix_ms(), header.generation);
            state = State { as_of_ms: Some(header.as_of_ms), len_bytes, ..state };
            let services = reader.records().counts().services;
            let age_secs = state.age(unix_ms()).unwrap_or_default().as_secs();
            tracing::info!(path = %path.display(), age_secs, services, "snapshot read");
        }
        Err(ReadError::File(saved::ReadError::Missing)) => {
            tracing::info!(path = %path.display(), "no snapshot yet");
        }
        Err(error) => {
            let reason = shared::flags::chain(&error);
            tracing::warn!(path = %path.display(), reason, "snapshot not used");
            state.refused = Some(reason.into());
        }
    }
    let (path, state) = (path.into(), watch::Sender::new(state));
    Start {
        writer,
        reader,
        changes,
        keeper: Some(Keeper { path, identity: identity.into(), state }),
    }
}

/// A store with the objects of a snapshot.
pub struct Restored {
    /// The header of the snapshot.
    pub header: Header,
    /// The store.
    pub writer: Writer,
    /// Reads the store.
    pub reader: Reader,
}

/// Creates a store from `file`, the snapshot of a kubedns with `identity`.
///
/// Fails if it is not a complete snapshot of such a kubedns.
pub fn restore(file: &[u8], identity: &str, zone: Zone) -> Result<Restored, Refused> {
    let decoded = Decoded::open(file, identity)?;
    let header = decoded.header;
    let (mut writer, reader) = store::new(zone);
    for item in decoded {
        match item? {
            Item::Object(id, object) => writer.restore(&id, *object),
            Item::Message(message) => {
                let path = Box::from(message.path());
                writer.put_key(&path, Some(*message));
            }
        }
    }
    writer.restored(header.serial);
    Ok(Restored { header, writer, reader })
}

/// The state of the file.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// When the content of the file was last confirmed, in milliseconds since 1970, if there is a
    /// valid file.
    pub as_of_ms: Option<u64>,
    /// The length of the file.
    pub len_bytes: u64,
    /// Why the file found at the start is not used.
    pub refused: Option<Arc<str>>,
    /// Why the last write failed.
    pub error: Option<Arc<str>>,
    /// How often it was written.
    pub writes: u64,
    /// How often it could not be written.
    pub failures: u64,
}

impl State {
    /// Returns how long ago the content of the file was last confirmed, if there is a valid file.
    pub fn age(&self, now_ms: u64) -> Option<Duration> {
        self.as_of_ms.map(|as_of_ms| Duration::from_millis(now_ms.saturating_sub(as_of_ms)))
    }

    /// Returns the line `snapshot` of `/readyz?verbose`. `in_use` means that answers are from the
    /// file.
    pub fn check(&self, in_use: bool, now_ms: u64) -> Check {
        let age_secs = self.age(now_ms).unwrap_or_default().as_secs();
        match (&self.error, &self.refused) {
            _ if in_use => Check::warning("snapshot", format!("answers are {age_secs} s old")),
            (Some(error), _) => Check::warning("snapshot", &**error),
            (None, Some(refused)) if self.writes == 0 => {
                Check::warning("snapshot", format!("not used: {refused}"))
            }
            _ => Check::passed("snapshot"),
        }
    }
}

/// Writes the file.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    identity: Arc<str>,
    state: watch::Sender<State>,
}

impl Keeper {
    /// Returns the state of the file.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Writes the file after `changes` has a new publication, at most every half a minute. Also
    /// rewrites it from time to time without a change, to confirm it, and once more when
    /// `stopping`.
    ///
    /// `watches` have the time at which the records were last confirmed.
    pub async fn run(
        self,
        reader: Reader,
        mut changes: watch::Receiver<Changes>,
        watches: Vec<Arc<Progress>>,
        stopping: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut written = None;
        let mut rest = REWRITE_EVERY;
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tokio::time::sleep(rest) => {}
                changed = changes.changed() => if changed.is_err() {
                    stopping.cancelled().await;
                    break;
                }
            }
            changes.mark_unchanged();
            rest = match self.write(&reader, &changes, &watches).await {
                Written::Nothing => REWRITE_EVERY,
                Written::Generation(generation) => {
                    written = Some(generation);
                    REWRITE_EVERY
                }
                Written::Failed => WRITE_EVERY,
            };
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tokio::time::sleep(WRITE_EVERY) => {}
            }
        }
        if written != Some(reader.records().generation()) {
            self.write(&reader, &changes, &watches).await;
        }
        Ok(())
    }

    /// Writes the records of `reader`, unless they were read from the file itself.
    async fn write(
        &self,
        reader: &Reader,
        changes: &watch::Receiver<Changes>,
        watches: &[Arc<Progress>],
    ) -> Written {
        let records = reader.snapshot();
        if !records.is_known() {
            return Written::Nothing;
        }
        let now = boot_time();
        let age = watches.iter().map(|watch| watch.age(now)).max().unwrap_or_default();
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let header = Header {
            as_of_ms: unix_ms().saturating_sub(age_ms),
            generation: changes.borrow().generation_of(records.generation()),
            serial: records.serial(),
        };
        let (path, identity) = (self.path.clone(), Arc::clone(&self.identity));
        let generation = records.generation();
        let work = move || saved::write(&path, |file| encode(&header, &identity, &records, file));
        let done = match tokio::task::spawn_blocking(work).await {
            Ok(done) => done.map_err(WriteError::File),
            Err(panic) => Err(WriteError::Panicked(panic)),
        };
        match done {
            Ok(len_bytes) => {
                self.state.send_modify(|state| {
                    *state = State {
                        as_of_ms: Some(header.as_of_ms),
                        len_bytes,
                        error: None,
                        writes: state.writes + 1,
                        ..state.clone()
                    };
                });
                Written::Generation(generation)
            }
            Err(error) => {
                let error: Arc<str> = shared::flags::chain(&error).into();
                self.state.send_modify(|state| {
                    if state.error.as_ref() != Some(&error) {
                        tracing::warn!("{error}");
                    }
                    state.failures += 1;
                    state.error = Some(error);
                });
                Written::Failed
            }
        }
    }
}

/// The result of an attempt to write.
enum Written {
    /// There are no records to write yet.
    Nothing,
    /// The file has the records of this publication.
    Generation(u64),
    /// The write failed.
    Failed,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    File(#[from] saved::ReadError),
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    File(#[from] saved::WriteError),
    #[error("writing the snapshot panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// The shortest time between two writes, if there are many changes.
const WRITE_EVERY: Duration = Duration::from_secs(30);
/// The longest time between two writes without changes, because the time in the file shows its age.
const REWRITE_EVERY: Duration = Duration::from_secs(600);
/// A hundred times the length for the largest cluster.
const LEN_MAX: u64 = 1 << 30;
