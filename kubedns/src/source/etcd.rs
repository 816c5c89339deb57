//! Turns the keys under a prefix of etcd into updates: one range read in pages, then one watch from
//! its revision.
//!
//! Edge. Knows etcd's requests and how they can fail; does not know what the values mean. Speaks
//! JSON over HTTP (etcd's gateway), with the HTTP client that the API server is asked with.
//!
//! ```text
//! start ─▶ range, in pages of one revision ─▶ watch ─▶ ended or broken ─▶ watch from there on
//!            ▲ applied as a difference           └─▶ compacted, or the data went back
//!            └───────────────────────────────────────────────────┘
//! ```

mod client;
mod json;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use shared::clock::{Moment, boot_time};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::skydns::{Message, path_of_key};
use crate::source::update::{Closed, Sink, Update, send};
use crate::source::watch::pace::Pace;
use crate::source::watch::progress::{Count, Phase, Progress};

pub use client::{Etcd, EtcdError, Options};
use client::{Reply, Trouble};
use json::{Event, Header, KeyValue};

/// Follows the keys of `etcd` until `stopping`.
pub async fn follow(
    etcd: Etcd,
    progress: Arc<Progress>,
    sink: Sink,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    let leases = HashMap::new();
    let broken = HashMap::new();
    let follower = Follower { etcd, progress, sink, place: None, well_since: None, leases, broken };
    tokio::select! {
        () = stopping.cancelled() => {}
        Closed = follower.run() => stopping.cancelled().await,
    }
    Ok(())
}

/// One range and watch.
struct Follower {
    etcd: Etcd,
    progress: Arc<Progress>,
    sink: Sink,
    /// All events up to this header have been sent. Without it, a full list must come first.
    place: Option<Header>,
    /// Since when the watch works, if it does.
    well_since: Option<Moment>,
    /// The TTL of each lease in seconds, as it was granted.
    leases: HashMap<i64, u32>,
    /// Why keys are not used, so that each reason is logged once.
    broken: HashMap<String, String>,
}

impl Follower {
    /// Lists and watches for ever. Returns only if the receiver of updates is closed.
    async fn run(mut self) -> Closed {
        let mut pace = Pace::new();
        loop {
            let trouble = match self.turn().await {
                Err(Trouble::Closed) => return Closed,
                Err(trouble) => trouble,
                Ok(()) => continue,
            };
            let now = boot_time();
            let well = self.well_since.take().map_or(Duration::ZERO, |since| now.since(since));
            if trouble.is_lost() {
                self.place = None;
            }
            let reason = shared::flags::chain(&trouble);
            let pause = pace.pause(well, None, rand::random()).min(PAUSE_MAX);
            let (endpoint, pause_ms) = (self.etcd.endpoint(), pause.as_millis() as u64);
            match self.progress.fails(reason.clone(), now) {
                true => tracing::warn!(endpoint, pause_ms, reason, "etcd fails"),
                false => tracing::debug!(endpoint, pause_ms, reason, "etcd fails"),
            }
            tokio::time::sleep(pause).await;
            self.etcd.turn_from(&trouble).await;
        }
    }

    /// Reads a full list if there is no place to continue from, then watches.
    async fn turn(&mut self) -> Result<(), Trouble> {
        let place = match self.place {
            Some(place) => place,
            None => self.list().await?,
        };
        self.watch(place).await
    }

    /// Sends all keys, in pages of one revision, so that the list is as of one moment.
    async fn list(&mut self) -> Result<Header, Trouble> {
        self.broken.clear();
        send(&self.sink, Update::ListingKeys).await?;
        let (mut from, mut place) = (None, None);
        loop {
            let page = self.etcd.range(from.as_deref(), place).await?;
            self.progress.heard(boot_time());
            let header = *place.get_or_insert(page.header);
            from = page.kvs.last().map(|last| [&*last.key, &[0]].concat());
            for kv in page.kvs {
                self.tell(kv).await?;
            }
            if !page.more || from.is_none() {
                send(&self.sink, Update::ListedKeys).await?;
                self.progress.add(Count::List);
                self.place = Some(header);
                return Ok(header);
            }
        }
    }

    /// Follows the changes after `place`.
    async fn watch(&mut self, place: Header) -> Result<(), Trouble> {
        let mut stream = self.etcd.watch(place.revision + 1).await?;
        let mut last_line = boot_time();
        loop {
            let Ok(line) = timeout(PROBE_EVERY, stream.next()).await else {
                self.probe(boot_time().since(last_line)).await?;
                continue;
            };
            let line = line?;
            last_line = boot_time();
            self.progress.heard(last_line);
            let watched = match line {
                Reply::Ended => return Err(Trouble::Ended),
                Reply::Line(watched) => watched,
            };
            let last = *self.place.get_or_insert(place);
            if watched.header.is_before(&last) {
                return Err(Trouble::WentBack);
            }
            if watched.canceled {
                return Err(Trouble::Canceled(watched.reason()));
            }
            if watched.created {
                self.works();
            }
            let count = watched.events.len();
            for event in watched.events {
                match event {
                    Event::Put(kv) => self.tell(kv).await?,
                    Event::Deleted(kv) => self.forget(kv).await?,
                }
            }
            // A header without events can be ahead of events that are still to come.
            if count > 0 {
                self.place = Some(watched.header);
            }
        }
    }

    /// Asks for a sign of life, because a watch without changes is silent. `silence` is how long it
    /// has been so.
    async fn probe(&mut self, silence: Duration) -> Result<(), Trouble> {
        if silence > SILENCE_MAX {
            return Err(Trouble::Silent(SILENCE_MAX));
        }
        let header = self.etcd.header().await?;
        self.progress.heard(boot_time());
        match self.place {
            Some(last) if header.is_before(&last) => Err(Trouble::WentBack),
            _ => Ok(()),
        }
    }

    fn works(&mut self) {
        let now = boot_time();
        self.well_since.get_or_insert(now);
        let endpoint = self.etcd.endpoint();
        if let Some(since) = self.progress.works(Phase::Following) {
            tracing::info!(endpoint, secs = now.since(since).as_secs(), "etcd works again");
        }
    }

    /// Sends the value of one key. If it breaks a rule, the key counts as removed.
    async fn tell(&mut self, kv: KeyValue) -> Result<(), Trouble> {
        self.progress.add(Count::Applied);
        let lease_secs = match kv.lease {
            0 => None,
            lease => Some(self.lease(lease).await?),
        };
        let Some(key) = self.etcd.key(&kv.key) else { return Ok(()) };
        let path = match path_of_key(&key) {
            Ok(path) => path,
            Err(broken) => {
                self.complain(key, shared::flags::chain(&broken));
                return Ok(());
            }
        };
        let message = match Message::read(path.clone(), kv.revision, &kv.value, lease_secs) {
            Ok(message) => {
                self.broken.remove(&key);
                Some(Box::new(message))
            }
            Err(broken) => {
                self.complain(key, shared::flags::chain(&broken));
                None
            }
        };
        send(&self.sink, Update::Key { path, message, revision: kv.revision }).await?;
        Ok(())
    }

    async fn forget(&mut self, kv: KeyValue) -> Result<(), Trouble> {
        self.progress.add(Count::Deleted);
        let Some(key) = self.etcd.key(&kv.key) else { return Ok(()) };
        self.broken.remove(&key);
        let Ok(path) = path_of_key(&key) else { return Ok(()) };
        send(&self.sink, Update::Key { path, message: None, revision: kv.revision }).await?;
        Ok(())
    }

    /// Returns the TTL of a lease in seconds, within its bounds. A lease keeps it for its life.
    async fn lease(&mut self, lease: i64) -> Result<u32, Trouble> {
        if let Some(&secs) = self.leases.get(&lease) {
            return Ok(secs);
        }
        let secs = self.etcd.lease_secs(lease).await?;
        if self.leases.len() >= LEASES_MAX {
            self.leases.clear();
        }
        self.leases.insert(lease, secs);
        Ok(secs)
    }

    /// Logs once for each reason that a key is not used.
    fn complain(&mut self, key: String, reason: String) {
        if self.broken.get(&key) == Some(&reason) {
            return;
        }
        tracing::warn!(key = self.etcd.whole_key(&key), reason, "key of etcd left out");
        if self.broken.len() < BROKEN_MAX {
            self.broken.insert(key, reason);
        }
    }
}

/// The longest pause before another try: a try costs little.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// After this long without a change etcd is asked for a sign of life.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// etcd reports its progress every ten minutes. After this silence the watch is replaced.
const SILENCE_MAX: Duration = Duration::from_secs(900);
/// The most leases whose TTL is kept.
const LEASES_MAX: usize = 1 << 20;
/// The most keys that are kept by name after they were left out.
const BROKEN_MAX: usize = 1_000;
