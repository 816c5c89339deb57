//! The cache in a file: written at the end, and read after the next start while queries are
//! answered.
//!
//! Edge. `cache::saved` is the core: what an entry is in the file, and which are used.
//!
//! ```text
//! SIGTERM ─▶ cache ─▶ FILE           start ─▶ FILE ─▶ cache: answers from outside,
//!                                                     names of the cluster as expired answers
//!                  kubedns reports the same generation ──▶ names of the cluster as they were
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use shared::clock::{Moment, boot_time, unix_ms};
use shared::flags::chain;
use shared::saved::bytes::{Cursor, put_text};
use shared::saved::frame::{self, Frame, Sink};
use shared::saved::{self, ReadError, WriteError};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cache::{Again, Cache, Question, Saved};
use crate::changes::Streams;
use crate::forward::Shared;
use crate::local::Local;
use crate::route::{ROOT, Route, Routes};

/// The file, and what its content depends on.
#[derive(Clone, Debug)]
pub struct CacheFile {
    /// `None` if there is no file.
    path: Option<PathBuf>,
    cache: Arc<Cache>,
    routes: Arc<ArcSwap<Routes>>,
    local: Arc<ArcSwap<Local>>,
    streams: Arc<Streams>,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Frame(#[from] frame::Refused),
    #[error("it belongs to a dnscache with other servers or limits of TTLs")]
    Foreign,
    #[error("it is older than {} h", AGE_MAX.as_secs() / 3_600)]
    Old,
    #[error("it was written after the current time")]
    Future,
    #[error("what stands {0} bytes before its end makes no sense")]
    Nonsense(usize),
}

/// The beginning of the content.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// The checksum of [`Routes::identity`].
    identity: u32,
    written: Times,
    /// The address of each replica of kubedns, and the generation of its records. `None` if the
    /// change of a name can have been missed.
    generations: Option<Vec<(String, u64)>>,
}

/// A point in time by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    unix_ms: u64,
    boot: Moment,
}

impl Times {
    fn now() -> Self {
        Self { unix_ms: unix_ms(), boot: boot_time() }
    }

    /// Returns how long after `earlier` this is: by the clock that shows more, because the machine
    /// may have started again, and the wall clock may have been set. Returns `None` if it cannot be
    /// after it.
    fn since(self, earlier: Self) -> Option<Duration> {
        let wall = self.unix_ms.checked_sub(earlier.unix_ms).map(Duration::from_millis);
        let boot = (self.boot >= earlier.boot).then(|| self.boot.since(earlier.boot));
        let is_step = earlier.unix_ms.saturating_sub(self.unix_ms) <= STEP_MS_MAX;
        wall.max(boot).filter(|_| wall.is_some() || is_step)
    }
}

impl Header {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.identity.to_be_bytes());
        out.extend(self.written.unix_ms.to_be_bytes());
        out.extend(self.written.boot.nanos().to_be_bytes());
        let Some(generations) = &self.generations else {
            return out.extend(u16::MAX.to_be_bytes());
        };
        out.extend((generations.len() as u16).to_be_bytes());
        for (address, generation) in generations {
            put_text(out, address);
            out.extend(generation.to_be_bytes());
        }
    }

    fn take(cursor: &mut Cursor<'_>) -> Option<Self> {
        let identity = cursor.take_u32()?;
        let unix_ms = cursor.take_u64()?;
        let written = Times { unix_ms, boot: Moment::from_nanos(cursor.take_u64()?) };
        let count = cursor.take_u16()?;
        let mut generation = |_| Some((cursor.take_text()?.to_owned(), cursor.take_u64()?));
        let generations = match count {
            u16::MAX => None,
            count => Some((0..count).map(&mut generation).collect::<Option<_>>()?),
        };
        Some(Self { identity, written, generations })
    }
}

impl CacheFile {
    /// Returns the file at `path`, if given, for the cache of `shared`.
    pub fn new(path: Option<PathBuf>, shared: &Shared) -> Self {
        Self {
            path,
            cache: Arc::clone(&shared.cache),
            routes: Arc::clone(&shared.routes),
            local: Arc::clone(&shared.local),
            streams: Arc::clone(&shared.streams),
        }
    }

    /// Reads the file, and runs until `stopping`. A file that cannot be used is named in the log.
    pub async fn load(self, stopping: CancellationToken) -> Result<(), Infallible> {
        if let Some(path) = &self.path {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.restore(path) => {}
            }
        }
        stopping.cancelled().await;
        Ok(())
    }

    /// Stores the entries of the file again: first as if any name of the cluster may have changed,
    /// then these names as they were, if kubedns reports that they have not.
    async fn restore(&self, file: &Path) {
        let path = file.display();
        let failed = |error: &Error| {
            tracing::warn!(%path, reason = chain(error), "the cache file is not used");
        };
        let (this, file) = (self.clone(), file.to_owned());
        let read = blocking(move || {
            let read = this.read(&file)?;
            // Without change streams, the TTLs decide.
            let expects_none = read.header.generations.as_deref() == Some(&[]);
            let confirmed = expects_none.then(|| this.confirmed(&read.header)).flatten();
            let count = this.insert(&read, confirmed)?;
            Ok((read, count))
        });
        let read = match read.await {
            Ok((read, entries)) => {
                let age_secs = read.age().unwrap_or_default().as_secs();
                tracing::info!(%path, entries, age_secs, "cache file read");
                read
            }
            Err(Error::Read(ReadError::Missing)) => {
                return tracing::info!(%path, "no cache file yet");
            }
            Err(error) => return failed(&error),
        };
        if read.header.generations.as_ref().is_none_or(Vec::is_empty) {
            return;
        }
        let Ok(Some(seen)) = timeout(CONFIRM_MAX, self.compared(&read.header)).await else {
            return tracing::info!("names of the cluster have changed since the cache was written");
        };
        let this = self.clone();
        match blocking(move || this.insert(&read, Some(seen))).await {
            Ok(entries) => tracing::info!(entries, "no name of the cluster has changed"),
            Err(error) => failed(&error),
        }
    }

    /// Reads the file up to its entries.
    fn read(&self, path: &Path) -> Result<Read, Error> {
        saved::remove_leftovers(path);
        let file = saved::read(path, self.cache.bounds().bytes as u64)?;
        let content = FRAME.open(&file)?;
        let mut cursor = Cursor::new(content);
        let header = Header::take(&mut cursor).ok_or(Error::Nonsense(content.len()))?;
        let entries = cursor.take(cursor.left()).unwrap_or_default().to_vec();
        if header.identity != self.identity() {
            return Err(Error::Foreign);
        }
        let read = Read { header, entries };
        match read.age() {
            None => Err(Error::Future),
            Some(age) if age > AGE_MAX => Err(Error::Old),
            Some(_) => Ok(read),
        }
    }

    /// Stores the entries again, those of the cluster as they were if they are `confirmed`. Returns
    /// how many were read. Names that rules or routes answer now are left out.
    fn insert(&self, read: &Read, confirmed: Option<u64>) -> Result<usize, Error> {
        let (routes, local) = (self.routes.load_full(), self.local.load_full());
        let again =
            Again { elapsed: read.age().ok_or(Error::Future)?, confirmed, now: boot_time() };
        let mut cursor = Cursor::new(&read.entries);
        let mut count = 0;
        while cursor.left() > 0 {
            let left = cursor.left();
            let saved = Saved::take(&mut cursor).ok_or(Error::Nonsense(left))?;
            let Question { name, qtype, .. } = saved.question;
            if matches!(routes.route(name), Route::Group(_)) && !local.touches(name, qtype) {
                self.cache.restore(saved, again);
                count += 1;
            }
        }
        let are_same =
            Arc::ptr_eq(&routes, &self.routes.load()) && Arc::ptr_eq(&local, &self.local.load());
        if !are_same {
            self.cache.remove_below(ROOT); // entries may have been stored too late
        }
        Ok(count)
    }

    /// Returns [`Cache::version`] if the cache of the file had all changes that kubedns has
    /// reported until now.
    fn confirmed(&self, header: &Header) -> Option<u64> {
        let seen = self.cache.version();
        (self.generations()? == *header.generations.as_ref()?).then_some(seen)
    }

    /// Does the same as soon as every replica of kubedns is followed.
    async fn compared(&self, header: &Header) -> Option<u64> {
        loop {
            let edition = self.streams.edition();
            if self.generations().is_some() {
                return self.confirmed(header);
            }
            self.streams.changed(edition).await;
        }
    }

    fn generations(&self) -> Option<Vec<(String, u64)>> {
        let text = |(address, generation): (SocketAddr, u64)| (address.to_string(), generation);
        Some(self.streams.generations()?.into_iter().map(text).collect())
    }

    fn identity(&self) -> u32 {
        crc32fast::hash(self.routes.load().identity().as_bytes())
    }

    /// Writes the file after `stop`. If that takes longer than [`SAVE_MAX`], the program does not
    /// wait for it.
    pub async fn save_after(self, stop: impl Future<Output = ()>) {
        stop.await;
        let Some(file) = self.path.clone() else { return };
        let path = file.display();
        let written = {
            let file = file.clone();
            timeout(SAVE_MAX, blocking(move || self.write(&file)))
        };
        match written.await {
            Ok(Ok(bytes)) => tracing::info!(%path, bytes, "cache file written"),
            Ok(Err(error)) => {
                tracing::warn!(%path, reason = chain(&error), "the cache file is not written");
            }
            Err(_) => tracing::warn!(%path, "writing the cache file takes too long"),
        }
    }

    fn write(&self, path: &Path) -> Result<u64, WriteError> {
        // Before the entries: a change that is applied meanwhile is missing in them or here.
        let generations = self.generations();
        let written = Times::now();
        let header = Header { identity: self.identity(), written, generations };
        saved::write(path, |file| {
            let mut sink = Sink::new(&FRAME, file);
            header.put(&mut sink.piece);
            for entries in self.cache.save(written.boot) {
                sink.piece.extend(entries);
                sink.pass()?;
            }
            sink.finish()
        })
    }
}

/// The content of a file that can be used.
#[derive(Debug)]
struct Read {
    header: Header,
    entries: Vec<u8>,
}

impl Read {
    /// Returns how long ago it was written.
    fn age(&self) -> Option<Duration> {
        Times::now().since(self.header.written)
    }
}

/// Runs `work` on a thread for slow operations.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

const FRAME: Frame = Frame { magic: "dnscache cache", version: 1 };
/// Answers of a day ago are of no use to most clients, whatever their TTLs are.
const AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How far the wall clock can be set back without making the age of a file unknown.
const STEP_MS_MAX: u64 = 60_000;
/// How long kubedns has to report its generation.
const CONFIRM_MAX: Duration = Duration::from_secs(5);
/// How long the end waits for the file. Queries are answered meanwhile.
const SAVE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_file_is_that_of_the_clock_that_shows_more() {
        let times = |unix_secs: u64, boot_secs: u64| Times {
            unix_ms: unix_secs * 1_000,
            boot: Moment::default() + Duration::from_secs(boot_secs),
        };
        let written = times(10_000, 500);
        let rows = [
            (times(10_007, 507), Some(7)),
            (times(10_000, 500), Some(0)),
            (times(10_007, 540), Some(40)), // the wall clock was set back a little
            (times(9_990, 540), Some(40)),
            (times(10_090, 3), Some(90)), // the machine has started again
            (times(13_600, 507), Some(3_600)), // the wall clock was set forward
            (times(9_900, 540), None),
            (times(9_990, 3), None),
        ];
        for (now, age) in rows {
            assert_eq!(now.since(written).map(|age| age.as_secs()), age, "{now:?}");
        }
    }

    #[test]
    fn a_header_is_read_as_written() {
        let one = vec![("127.0.0.1:8081".to_owned(), 7), ("[fd00::7]:8081".to_owned(), 1 << 52)];
        for generations in [None, Some(Vec::new()), Some(one)] {
            let header = Header { identity: 7, written: Times::now(), generations };
            let mut bytes = Vec::new();
            header.put(&mut bytes);
            assert_eq!(Header::take(&mut Cursor::new(&bytes)).as_ref(), Some(&header));
            for len in 0..bytes.len() {
                assert_eq!(Header::take(&mut Cursor::new(&bytes[..len])), None, "{len}");
            }
        }
    }
}
