//! The HTTP side of kubedns: health, metrics, explanations, and the stream of changed names.
//!
//! Edge. Reads the state of other parts; does not know how records are made or answered.

mod coredns;
mod explain;
mod metrics;
mod places;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use shared::clock::Moment;
use shared::clock::{boot_time, unix_ms};
use shared::config_dir;
use shared::corefile;
use shared::http::{Away, Seat, standard};
use shared::metrics::coredns::Compat;
use shared::ready::{Check, Ready};
use shared::serve::{Counters, Overflow};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::changes::{Changes, Line, Since};
use crate::objects;
use crate::publish;
use crate::snapshot;
use crate::store::Reader;
use crate::watch::progress::{Phase, Progress};

use places::Places;

pub use metrics::registries;

/// The state that the pages show.
#[derive(Clone, Debug)]
pub struct View {
    /// The counters of the DNS threads.
    pub counters: Arc<Counters>,
    /// The counter of packets that the kernel dropped.
    pub overflow: Overflow,
    /// The kinds that have not been listed yet.
    pub ready: Ready,
    /// The records.
    pub reader: Reader,
    /// The state of each watch; empty with objects from files.
    pub watches: Vec<Arc<Progress>>,
    /// The state of the files, if objects are read from files.
    pub objects: Option<watch::Receiver<objects::State>>,
    /// The state of the snapshot, if `--snapshot` is set.
    pub snapshot: Option<watch::Receiver<snapshot::State>>,
    /// The counters of the publisher.
    pub counts: Arc<publish::Counts>,
    /// The server whose metric names are exposed next to ours.
    pub compat: Option<Compat>,
    /// The state of the configuration directory.
    pub config: watch::Receiver<config_dir::State>,
    /// The state of the Corefile.
    pub corefile: watch::Receiver<corefile::State>,
    /// Cancelled once the program must stop.
    pub leaving: CancellationToken,
}

/// Every page of kubedns. Streams end with `stopping`.
pub fn router(
    view: View,
    changes: watch::Receiver<Changes>,
    stopping: CancellationToken,
) -> Router {
    let registries = registries(&view);
    let explain = explain::router(view.reader.clone());
    let (live, ready) = (view.clone(), view);
    let places = Places::default();
    let streams = Streams { changes, ready: ready.ready.clone(), stopping, places };
    standard(move || live.live(boot_time()), move || ready.ready(boot_time()), registries)
        .merge(explain)
        .merge(Router::new().route("/changes", get(follow)).with_state(streams))
}

impl View {
    /// Alive while every serving thread makes progress.
    fn live(&self, now: Moment) -> Vec<Check> {
        vec![if self.counters.is_stalled(now) {
            Check::failed("dns-threads", "a serving thread hangs")
        } else {
            Check::passed("dns-threads")
        }]
    }

    /// Ready once everything has been listed, and from then on: kubedns keeps answering with the
    /// records that it has, and the check shows how old they are.
    fn ready(&self, now: Moment) -> Vec<Check> {
        let mut checks = if self.watches.is_empty() {
            self.ready.checks()
        } else {
            let blockers = self.ready.blockers();
            self.watches.iter().map(|watch| check(watch, &blockers, now)).collect()
        };
        checks.extend(self.objects.as_ref().map(|state| state.borrow().check()));
        let stale = self.reader.records().is_stale();
        checks.extend(self.snapshot.as_ref().map(|state| state.borrow().check(stale, unix_ms())));
        checks.push(self.config.borrow().check());
        checks.extend(self.corefile.borrow().check());
        checks.extend(Check::shutdown(&self.leaving));
        checks
    }
}

fn check(watch: &Progress, blockers: &[&str], now: Moment) -> Check {
    let name = watch.scope.to_string();
    let is_listed = !blockers.contains(&watch.scope.kind.plural());
    match (watch.phase(), is_listed) {
        (Phase::Failing { reason, .. }, false) => Check::failed(name, &*reason),
        (Phase::Failing { reason, .. }, true) => {
            let secs = watch.age(now).as_secs();
            Check::warning(name, format!("{secs} s old: {reason}"))
        }
        (_, false) => Check::failed(name, "not listed yet"),
        (_, true) => Check::passed(name),
    }
}

#[derive(Clone, Debug)]
struct Streams {
    changes: watch::Receiver<Changes>,
    ready: Ready,
    stopping: CancellationToken,
    places: Places,
}

/// `/changes`: lines of JSON without end. The first says at which generation the reader is now:
/// `?since=GENERATION` goes on from there where the log reaches back so far; else, and without it,
/// that line says to forget everything. Then a line per publication, and one every
/// [`HEARTBEAT`] without any. The first line waits until everything has been listed: a kubedns that
/// knows nothing yet has nobody forget what they know.
async fn follow(
    State(streams): State<Streams>,
    RawQuery(query): RawQuery,
    seat: Option<Extension<Seat>>,
) -> Response {
    let since = query
        .as_deref()
        .unwrap_or_default()
        .split('&')
        .find_map(|part| part.strip_prefix("since="));
    let since = match since.map(str::parse::<u64>) {
        None => None,
        Some(Ok(generation)) => Some(generation),
        Some(Err(_)) => {
            let text = "since: expected the generation of a line read before\n";
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    let client = seat.as_ref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |seat| seat.client());
    let Some(place) = streams.places.take(client) else {
        let text = "too many readers of /changes; try again later\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let start = Reading {
        changes: streams.changes,
        ready: streams.ready,
        stopping: streams.stopping,
        at: Place::Start(since),
        _place: place,
        _away: seat.map(|Extension(seat)| seat.leave()), // bounded by its place instead
    };
    let lines = stream::unfold(start, |mut reading| async move {
        let line = reading.next().await?;
        Some((Ok::<_, std::convert::Infallible>(line), reading))
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(lines)).into_response()
}

/// One reader of the stream; what it holds of the log is a position.
struct Reading {
    changes: watch::Receiver<Changes>,
    ready: Ready,
    stopping: CancellationToken,
    at: Place,
    _place: places::Place,
    /// As long as it reads, the connection has no seat among those for short answers.
    _away: Option<Away>,
}

enum Place {
    Start(Option<u64>),
    Generation(u64),
    End,
}

impl Reading {
    /// The next lines; nothing at the end.
    async fn next(&mut self) -> Option<Bytes> {
        match self.at {
            Place::End => None,
            Place::Start(since) => tokio::select! {
                () = self.stopping.cancelled() => None,
                () = self.ready.wait() => Some(self.start(since)),
            },
            Place::Generation(generation) => loop {
                tokio::select! {
                    () = self.stopping.cancelled() => return None,
                    () = tokio::time::sleep(HEARTBEAT) => return Some(Line::of(generation).bytes()),
                    changed = self.changes.changed() => changed.ok()?,
                }
                if let Some(lines) = self.go_on(generation) {
                    return Some(lines);
                }
            },
        }
    }

    fn start(&mut self, since: Option<u64>) -> Bytes {
        let changes = self.changes.borrow();
        let known = since.filter(|&since| changes.since(since) != Since::Unknown);
        let line = match known {
            Some(generation) => Line::of(generation),
            None => Line { flush: true, ..Line::of(changes.generation()) },
        };
        self.at = Place::Generation(line.generation);
        drop(changes);
        self.changes.mark_changed();
        line.bytes()
    }

    fn go_on(&mut self, generation: u64) -> Option<Bytes> {
        let changes = self.changes.borrow_and_update();
        match changes.since(generation) {
            Since::Lines(lines) if lines.is_empty() => None,
            Since::Lines(lines) => {
                self.at = Place::Generation(changes.generation());
                Some(lines.concat().into())
            }
            Since::Unknown => {
                self.at = Place::End;
                let cut = Some("too slow: the log has moved on");
                Some(Line { cut, ..Line::of(generation) }.bytes())
            }
        }
    }
}

/// A reader that hears nothing for twice as long knows that the connection is dead.
const HEARTBEAT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Changed, Published};

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_cut_and_told_so() {
        let (sender, changes) = watch::channel(Changes::new(0));
        let push = |generation| {
            let published = Published { generation, serial: 0, changed: Changed::Everything };
            sender.send_modify(|changes| changes.push(&published));
        };
        let place = Places::default().take(Ipv4Addr::LOCALHOST.into()).unwrap();
        let stopping = CancellationToken::new();
        let at = Place::Start(None);
        let (ready, _) = shared::ready::new([]);
        let mut reading = Reading { changes, ready, stopping, at, _place: place, _away: None };
        let text = |line: Option<Bytes>| line.map(|line| String::from_utf8(line.to_vec()).unwrap());
        let first = "{\"generation\":0,\"flush\":true}\n";
        assert_eq!(text(reading.next().await).unwrap(), first);
        push(1);
        push(2);
        let both = "{\"generation\":1,\"flush\":true}\n{\"generation\":2,\"flush\":true}\n";
        assert_eq!(text(reading.next().await).unwrap(), both);
        (3..10_000).for_each(push);
        let last = text(reading.next().await).unwrap();
        assert!(last.starts_with("{\"generation\":2,\"cut\":\"too slow"), "{last}");
        assert_eq!(reading.next().await, None);
    }

    #[tokio::test]
    async fn a_quiet_stream_ends_with_the_program() {
        let (_sender, changes) = watch::channel(Changes::new(0));
        let place = Places::default().take(Ipv4Addr::LOCALHOST.into()).unwrap();
        let stopping = CancellationToken::new();
        let at = Place::Generation(0);
        let (ready, _) = shared::ready::new([]);
        let stop = stopping.clone();
        let mut reading =
            Reading { changes, ready, stopping: stop, at, _place: place, _away: None };
        stopping.cancel();
        assert_eq!(reading.next().await, None);
    }
}
