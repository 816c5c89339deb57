//! Follows kubedns's stream of changed names and drops exactly those from the cache.
//!
//! Edge, with the meaning of the lines below as a core of its own. While the stream is down, names
//! of the cluster are stored for a few seconds at most. When it is back it goes on from where it
//! ended, or every name of the cluster expires and is asked for again.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::Deserialize;
use shared::ready::Check;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::route;

/// Whether the changes of the cluster's names are heard of.
#[derive(Debug, Default)]
pub struct Stream {
    streams: usize,
    up: AtomicUsize,
}

impl Stream {
    /// Returns the state of `streams` change streams, none of which is up yet.
    pub fn new(streams: usize) -> Self {
        Self { streams, up: AtomicUsize::new(0) }
    }

    /// Returns whether every change stream is up. Without any stream the TTLs alone decide how long
    /// names are stored, and the answer is `true`.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire) == self.streams
    }

    /// Returns the check of `/readyz`: a stream that is down is a warning, because names are still
    /// answered.
    pub fn check(&self) -> Check {
        match self.count() {
            (streams, up) if up < streams => Check::warning(
                "changes",
                format!(
                    "{up} of {streams} change streams are up; names are stored for 5 s at most"
                ),
            ),
            _ => Check::passed("changes"),
        }
    }

    /// Returns how many streams there are, and how many of them are up.
    pub fn count(&self) -> (usize, usize) {
        (self.streams, self.up.load(Ordering::Acquire))
    }
}

/// The part of `/metrics` about change streams.
#[derive(Debug)]
pub struct Metrics(pub Arc<Stream>);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (streams, up) = self.0.count();
        for (name, help, value) in [
            ("change_streams", "Change streams of kubedns that are configured", streams),
            ("change_streams_up", "Change streams of kubedns that are up", up),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value as i64).encode(gauge)?;
        }
        Ok(())
    }
}

/// A stream that is up as long as this lives.
struct Up(Arc<Stream>);

impl Up {
    fn new(stream: &Arc<Stream>) -> Self {
        stream.up.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(stream))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.up.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What changes are applied to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The cache.
    pub cache: Arc<Cache>,
    /// Told whether the stream is up.
    pub stream: Arc<Stream>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot connect to kubedns")]
    Connect(#[source] io::Error),
    #[error("kubedns does not answer within {CONNECT_MAX:?}")]
    Silent,
    #[error("kubedns speaks no HTTP")]
    Http(#[from] hyper::Error),
    #[error("the address of the stream is no request")]
    Request(#[from] hyper::http::Error),
    #[error("kubedns answers {0}")]
    Status(StatusCode),
    #[error("a line is no JSON of ours")]
    Line(#[from] serde_json::Error),
    #[error("a line is longer than {LINE_MAX} bytes")]
    LongLine,
    #[error("kubedns sent nothing for {SILENCE_MAX:?}")]
    Stalled,
    #[error("kubedns ended the stream")]
    Ended,
}

/// Follows the stream at `url` until `stopping`.
pub async fn follow(
    url: Uri,
    target: Target,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    let mut follower = Follower { target, generation: None, up: None };
    let mut pause = PAUSE_MIN;
    let mut lost = Some(Instant::now());
    loop {
        let ended = tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            ended = follower.connection(&url) => ended,
        };
        let Err(error) = ended;
        let cause = shared::flags::chain(&error);
        if follower.up.take().is_some() {
            pause = PAUSE_MIN;
            lost = Some(Instant::now());
            tracing::warn!(
                %url, cause, "change stream lost: cluster names are stored for 5 s at most"
            );
        } else {
            tracing::debug!(%url, cause, "no change stream");
        }
        if lost.is_some_and(|lost| lost.elapsed() >= UNWATCHED_MAX) {
            // What was stored before may have changed unheard by now.
            lost = None;
            follower.target.cache.flush();
        }
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

/// One stream, over all its connections.
struct Follower {
    target: Target,
    /// The generation that the cache is at; `None` before the first line.
    generation: Option<u64>,
    /// Held while lines come.
    up: Option<Up>,
}

impl Follower {
    /// One connection, from the request to its end.
    async fn connection(&mut self, url: &Uri) -> Result<Infallible, Error> {
        let host = url.host().unwrap_or("127.0.0.1").trim_matches(['[', ']']);
        let port = url.port_u16().unwrap_or(80);
        let connect = timeout(CONNECT_MAX, TcpStream::connect((host, port)));
        let stream = connect.await.map_err(|_| Error::Silent)?.map_err(Error::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let path = match self.generation {
            Some(generation) => format!("{}?since={generation}", url.path()),
            None => url.path().to_owned(),
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
        let mut first = true;
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
            self.apply(&lines, &mut first)?;
        }
    }

    /// Drops what whole `lines` say.
    fn apply(&mut self, lines: &[u8], first: &mut bool) -> Result<(), Error> {
        let mut drops = Drops::default();
        let mut generation = self.generation;
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Line = serde_json::from_slice(line)?;
            if std::mem::take(first) {
                // What changed before the first connection nobody told.
                drops.everything |= generation.is_none_or(|known| known > line.generation);
                tracing::info!(generation = line.generation, "following kubedns's changes");
            }
            generation = Some(line.generation);
            drops.add(&line);
        }
        self.target.drop_entries(&drops);
        self.generation = generation;
        self.up.get_or_insert_with(|| Up::new(&self.target.stream));
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
}

/// One line of the stream.
#[derive(Debug, Deserialize)]
struct Line {
    /// What kubedns's records are at, everything in this line included.
    generation: u64,
    /// The names whose records changed, each together with every name below it.
    #[serde(default)]
    names: Vec<String>,
    /// Anything may have changed.
    #[serde(default)]
    flush: bool,
}

/// What some lines together drop.
#[derive(Debug, Default, PartialEq, Eq)]
struct Drops {
    names: Vec<Box<[u8]>>,
    everything: bool,
}

impl Drops {
    fn add(&mut self, line: &Line) {
        self.everything |= line.flush;
        for name in &line.names {
            match route::wire(name) {
                Some(name) => self.names.push(name),
                // A name that we cannot write: better too much than too little.
                None => self.everything = true,
            }
        }
        self.everything |= self.names.len() > NAMES_MAX;
    }
}

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// kubedns sends a line every ten seconds at least.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long names that were stored before the stream was lost are served without it.
const UNWATCHED_MAX: Duration = Duration::from_secs(5);
/// The time between two connections.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The longest line: kubedns lists 64 KiB of names at most.
const LINE_MAX: usize = 1 << 20;
/// More names at once are dropped as if everything had changed.
const NAMES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up() {
        let rows: [(&str, &[&str], bool); 5] = [
            (r#"{"generation":1}"#, &[], false),
            (r#"{"generation":1,"names":["a.b.","C."]}"#, &["a.b", "c"], false),
            (r#"{"generation":1,"names":["a..b."]}"#, &[], true),
            (r#"{"generation":1,"flush":true}"#, &[], true),
            (r#"{"generation":1,"cut":"too slow","new":{}}"#, &[], false),
        ];
        for (line, names, everything) in rows {
            let mut drops = Drops::default();
            drops.add(&serde_json::from_str(line).unwrap());
            let names = names.iter().map(|name| route::wire(name).unwrap()).collect();
            assert_eq!(drops, Drops { names, everything }, "{line}");
        }
    }
}
