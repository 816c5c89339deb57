//! Follows the change stream of one replica of kubedns over all its connections.
//!
//! Edge. `line` defines the meaning of the lines.

use shared::changes::Line;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Target;
use super::drops::Drops;
use super::source::{Host, Source};
use super::streams::{Figures, Key, Streams};

/// The stream of one replica.
pub(super) struct Follower {
    target: Target,
    key: Key,
    figures: Arc<Figures>,
    /// The generation of the cache; `None` before the first line.
    generation: Option<u64>,
    /// `Some` while lines arrive.
    up: Option<Up>,
    /// The result of [`Streams::covered`] at the start.
    covered: Option<u64>,
}

/// A guard: the stream is up until this is dropped.
struct Up(Arc<Streams>, Key);

impl Drop for Up {
    fn drop(&mut self) {
        self.0.set_up(self.1, false);
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot connect to kubedns")]
    Connect(#[source] io::Error),
    #[error("kubedns does not answer within {CONNECT_MAX:?}")]
    Silent,
    #[error("the exchange with kubedns is not HTTP")]
    Http(#[from] hyper::Error),
    #[error("the URL of the stream cannot be requested")]
    Request(#[from] hyper::http::Error),
    #[error("kubedns answers {0}")]
    Status(StatusCode),
    #[error("a line is not JSON of a change stream")]
    Line(#[from] serde_json::Error),
    #[error("a line is longer than {LINE_MAX} bytes")]
    LongLine,
    #[error("kubedns sent nothing for {SILENCE_MAX:?}")]
    Stalled,
    #[error("kubedns ended the stream")]
    Ended,
}

impl Follower {
    /// Returns the follower of the replica `key`.
    pub fn new(target: Target, key: Key, figures: Arc<Figures>) -> Self {
        let covered = target.streams.covered(key);
        Self { target, key, figures, generation: None, up: None, covered }
    }

    /// Follows until `stopping`, or until the replica has left and its answers have expired.
    /// Returns its key.
    pub async fn run(mut self, stopping: CancellationToken) -> Key {
        let target = self.target.clone();
        let Target { cache, streams } = &target;
        let key = self.key;
        let mut pause = Duration::ZERO;
        // Since when its changes are not reported, while the cache can hold answers of it.
        let mut unheard = self.covered.is_none().then(Instant::now);
        loop {
            let ended = tokio::select! {
                () = stopping.cancelled() => return key,
                () = streams.left(key) => {
                    cache.flush();
                    return key;
                }
                never = target.expire(key, &mut unheard) => match never {},
                ended = self.connection(pause) => ended,
            };
            let Err(error) = ended;
            let (replica, cause) = (key.address, shared::flags::chain(&error));
            if self.up.take().is_some() {
                self.figures.losses.fetch_add(1, Ordering::Relaxed);
                (pause, unheard) = (PAUSE_MIN, Some(Instant::now()));
                let effect = match streams.is_up() {
                    true => "other replicas are asked",
                    false => "cluster names are stored for 5 s at most",
                };
                tracing::warn!(%replica, cause, "change stream lost: {effect}");
            } else {
                pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                tracing::debug!(%replica, cause, "no change stream");
            }
            if !streams.is_expected(key) {
                tokio::select! {
                    () = stopping.cancelled() => {}
                    () = target.forget_answers(key, &mut unheard) => {}
                }
                return key;
            }
        }
    }

    /// Runs one connection, from the request to its end, after about `pause`. Thousands of caches
    /// that lose the same replica do not come back at the same time.
    async fn connection(&mut self, pause: Duration) -> Result<Infallible, Error> {
        sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        let connect = timeout(CONNECT_MAX, TcpStream::connect(self.key.address));
        let stream = connect.await.map_err(|_| Error::Silent)?.map_err(Error::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let Source { host, path, .. } = self.target.streams.source(self.key.source);
        let path = match self.generation {
            Some(generation) => format!("{path}?since={generation}"),
            None => path.clone(),
        };
        let host = match host {
            Host::Address(_) => self.key.address.to_string(),
            Host::Name(name) => format!("{name}:{}", self.key.address.port()),
        };
        let request =
            Request::get(path).header(hyper::header::HOST, host).body(Empty::<Bytes>::new())?;
        let exchange = async {
            let response = timeout(CONNECT_MAX, sender.send_request(request));
            let response = response.await.map_err(|_| Error::Silent)??;
            if response.status() != StatusCode::OK {
                return Err(Error::Status(response.status()));
            }
            self.read(response.into_body()).await
        };
        tokio::select! {
            ended = exchange => ended,
            ended = connection => Err(ended.err().map_or(Error::Ended, Error::Http)),
        }
    }

    /// Reads lines until the stream ends.
    async fn read(&mut self, mut body: Incoming) -> Result<Infallible, Error> {
        let mut text = Vec::new();
        let mut is_first = true;
        loop {
            let frame = timeout(SILENCE_MAX, body.frame()).await.map_err(|_| Error::Stalled)?;
            let frame = frame.ok_or(Error::Ended)??;
            let Ok(data) = frame.into_data() else { continue };
            text.extend_from_slice(&data);
            let Some(end) = text.iter().rposition(|&byte| byte == b'\n') else {
                if text.len() > LINE_MAX {
                    return Err(Error::LongLine);
                }
                continue;
            };
            let lines = text.drain(..=end).collect::<Vec<u8>>();
            self.apply(&lines, &mut is_first)?;
        }
    }

    /// Removes the names of whole `lines` from the cache.
    fn apply(&mut self, lines: &[u8], is_first: &mut bool) -> Result<(), Error> {
        let mut drops = Drops::default();
        let mut generation = self.generation;
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let line = Line::parse(line)?;
            self.figures.lines.fetch_add(1, Ordering::Relaxed);
            let mut was_never_asked = false;
            if std::mem::take(is_first) {
                let covered = self.target.streams.covered(self.key);
                was_never_asked =
                    generation.is_none() && covered.is_some() && covered == self.covered;
                // Changes before the first connection were not reported.
                drops.everything |= generation.is_none_or(|known| known > line.generation);
                drops.everything &= !was_never_asked;
                let (replica, generation) = (self.key.address, line.generation);
                tracing::info!(%replica, generation, "following kubedns's changes");
            }
            generation = Some(line.generation);
            if !was_never_asked {
                drops.add(&line);
            }
        }
        // Unknown meanwhile, because only a part of the changes is applied.
        self.figures.generation.store(0, Ordering::Release);
        self.target.drop_entries(&drops);
        self.generation = generation;
        self.figures.generation.store(generation.unwrap_or(0), Ordering::Release);
        if self.up.is_none() {
            self.target.streams.set_up(self.key, true);
            self.up = Some(Up(Arc::clone(&self.target.streams), self.key));
        }
        Ok(())
    }
}

impl Target {
    fn drop_entries(&self, drops: &Drops) {
        if drops.everything {
            self.cache.flush();
        } else {
            self.cache.invalidate(&drops.names);
        }
    }

    /// Makes the entries of the cluster expire a few seconds after `unheard`, unless the stream of
    /// `key` is up again by then.
    async fn forget_answers(&self, key: Key, unheard: &mut Option<Instant>) {
        let Some(since) = *unheard else { return };
        sleep_until(since + UNWATCHED_MAX).await;
        *unheard = None;
        if !self.streams.is_replica_up(key) {
            self.cache.flush();
        }
    }

    /// Does the same as `forget_answers`, but never ends.
    async fn expire(&self, key: Key, unheard: &mut Option<Instant>) -> Infallible {
        self.forget_answers(key, unheard).await;
        pending().await
    }
}

/// The longest time to establish a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// After this time without a line the stream is lost. kubedns sends a line at least every ten
/// seconds.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long names that were stored before a stream was lost are served without it.
const UNWATCHED_MAX: Duration = Duration::from_secs(5);
/// The shortest and the longest time between two connections.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The longest line: kubedns lists at most 64 KiB of names.
const LINE_MAX: usize = 1 << 20;
