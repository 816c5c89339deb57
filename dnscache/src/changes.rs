//! Follows kubedns's stream of changed names and drops exactly those from the cache.
//!
//! Edge, with the lines' meaning below as a core of its own. While the stream is away, cluster
//! names are kept as long as their TTLs say; when it is back it goes on where it ended, or
//! everything of the cluster is dropped.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::route::{self, Routes};

/// Counts the changes of the cluster's names, so that an answer that was on its way meanwhile is
/// not kept.
#[derive(Debug, Default)]
pub struct Epoch(AtomicU64);

impl Epoch {
    /// The epoch now: to be compared with the same later.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Begins another; before anything is dropped.
    fn advance(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// What is dropped from, and by which zones.
#[derive(Clone, Debug)]
pub struct Target {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The routes: those owned are dropped as a whole when it is unknown what changed.
    pub routes: Arc<ArcSwap<Routes>>,
    /// Told of every change.
    pub epoch: Arc<Epoch>,
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
    #[error("kubedns ended the stream")]
    Ended,
}

/// Follows the stream at `url` until `stopping`.
pub async fn follow(
    url: Uri,
    target: Target,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    let mut follower = Follower { target, generation: None };
    let mut pause = PAUSE_MIN;
    loop {
        let before = follower.generation;
        let ended = tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            ended = follower.connection(&url) => ended,
        };
        let Err(error) = ended;
        let cause = shared::flags::chain(&error);
        if follower.generation != before {
            pause = PAUSE_MIN;
            tracing::info!(%url, cause, "change stream lost");
        } else {
            tracing::debug!(%url, cause, "no change stream");
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
    /// What the cache has been told of; nothing before the first line.
    generation: Option<u64>,
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
            let frame = body.frame().await.ok_or(Error::Ended)??;
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
        Ok(())
    }
}

impl Target {
    fn drop_entries(&self, drops: &Drops) {
        if drops.everything {
            self.epoch.advance();
            for group in self.routes.load().groups().iter().filter(|group| group.owned) {
                self.cache.remove_below(&group.suffix);
            }
        } else if !drops.names.is_empty() {
            self.epoch.advance();
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
/// Between two connections.
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
