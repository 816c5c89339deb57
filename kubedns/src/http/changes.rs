//! `/changes`: the stream of changed names, for thousands of readers at once.
//!
//! Edge.
//!
//! ```text
//! publish ─▶ Changes ─▶ pace ─▶ Shown: one chunk ─▶ every reader that was there before
//!                │      waits in between              │ others
//!                └──────── the log ───────────────────┘
//! ```
//!
//! A reader holds a position in the log. Each change is written once and passed on by reference, so
//! a reader costs a wake-up and a system call per chunk. The pauses between chunks grow with the
//! number of readers, so that the thread that serves them is not always busy.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use shared::changes::Line;
use shared::http::{Away, Seat};
use shared::ready::Ready;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::places::{Place, Places};
use crate::changes::{Changes, Since};

/// The lines that readers get next.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The generation of a reader for whom `chunk` is all that is new.
    from: u64,
    /// The generation after it.
    to: u64,
    /// Whole lines.
    chunk: Bytes,
}

/// What every reader reads from.
#[derive(Clone, Debug)]
pub struct Streams {
    changes: watch::Receiver<Changes>,
    shown: watch::Receiver<Shown>,
    ready: Ready,
    places: Places,
}

/// Passes changes on to readers; see [`pace`].
#[derive(Debug)]
pub struct Pacer {
    changes: watch::Receiver<Changes>,
    shown: watch::Sender<Shown>,
    places: Places,
}

/// Returns what readers of `changes` need, at most `readers_max` at a time, and what serves them.
pub fn new(
    changes: &watch::Receiver<Changes>,
    ready: &Ready,
    readers_max: u32,
) -> (Streams, Pacer) {
    let (changes, ready) = (changes.clone(), ready.clone());
    let generation = changes.borrow().generation();
    let (sender, shown) =
        watch::channel(Shown { from: generation, to: generation, chunk: Bytes::new() });
    let places = Places::new(readers_max as usize);
    let streams = Streams { changes: changes.clone(), shown, ready, places: places.clone() };
    (streams, Pacer { changes, shown: sender, places })
}

impl Pacer {
    /// Returns how many readers there may be.
    pub(super) fn readers_max(&self) -> usize {
        self.places.max()
    }
}

impl Streams {
    /// Returns how many readers there are.
    pub fn readers(&self) -> usize {
        self.places.count()
    }
}

/// Shows what has changed, and a line every `HEARTBEAT` without a change, until `stopping`. All
/// streams end then.
///
/// The pause after a chunk is about as long as it takes to write the chunk to every reader. Changes
/// of that time are in the next chunk. With few readers there is no pause.
pub async fn pace(mut pacer: Pacer, stopping: CancellationToken) -> Result<(), Infallible> {
    loop {
        let is_over = tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = sleep(HEARTBEAT) => false,
            changed = pacer.changes.changed() => changed.is_err(),
        };
        if is_over {
            // The publisher has ended, and with it the program.
            stopping.cancelled().await;
            return Ok(());
        }
        pacer.show();
        let readers = u32::try_from(pacer.places.count()).unwrap_or(u32::MAX);
        let pause = READER_PAUSE.saturating_mul(readers);
        if pause >= PAUSE_MIN {
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                () = sleep(pause) => {}
            }
        }
    }
}

impl Pacer {
    fn show(&mut self) {
        let from = self.shown.borrow().to;
        let shown = {
            let changes = self.changes.borrow_and_update();
            let to = changes.generation();
            let chunk = match changes.since(from) {
                Since::Lines(lines) if lines.is_empty() => Line::of(to).bytes(),
                Since::Lines(lines) => lines.concat().into(),
                // The log has moved on past it: each reader finds that out for itself.
                Since::Unknown => Bytes::new(),
            };
            Shown { from, to, chunk }
        };
        self.shown.send_replace(shown);
    }
}

/// `/changes`: lines of JSON without end. The first contains the generation that the reader is at:
/// `?since=GENERATION` goes on from there if the log reaches back so far. Else, and without it,
/// after that line the reader must forget everything. Then a line follows for each publication, and
/// one every `HEARTBEAT` without any. The first line waits until everything has been listed: a
/// kubedns that knows nothing yet has no reader forget what it knows.
pub async fn follow(
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
        shown: streams.shown,
        ready: streams.ready,
        at: Position::Start(since),
        _place: place,
        _away: seat.map(|Extension(seat)| seat.leave()), // bounded by its place instead
    };
    let lines = stream::unfold(start, |mut reading| async move {
        let line = reading.next().await?;
        Some((Ok::<_, Infallible>(line), reading))
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(lines)).into_response()
}

/// One reader of the stream. It holds a position in the log.
struct Reading {
    changes: watch::Receiver<Changes>,
    shown: watch::Receiver<Shown>,
    ready: Ready,
    at: Position,
    _place: Place,
    /// As long as it reads, the connection has no seat among those for short answers.
    _away: Option<Away>,
}

enum Position {
    Start(Option<u64>),
    Generation(u64),
    End,
}

impl Reading {
    /// Returns the next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        match self.at {
            Position::End => None,
            Position::Start(since) => tokio::select! {
                () = self.ready.wait() => Some(self.start(since)),
                () = closed(self.shown.clone()) => None,
            },
            Position::Generation(generation) => loop {
                // The pacer has ended, and with it the program.
                self.shown.changed().await.ok()?;
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
        self.at = Position::Generation(line.generation);
        drop(changes);
        self.shown.mark_changed();
        line.bytes()
    }

    fn go_on(&mut self, generation: u64) -> Option<Bytes> {
        let shown = self.shown.borrow_and_update();
        if shown.from == generation && !shown.chunk.is_empty() {
            self.at = Position::Generation(shown.to);
            return Some(shown.chunk.clone());
        }
        let to = shown.to;
        drop(shown);
        if generation == to {
            return None; // it has just begun there
        }
        let changes = self.changes.borrow();
        match changes.since(generation) {
            Since::Lines(lines) if lines.is_empty() => None,
            Since::Lines(lines) => {
                self.at = Position::Generation(changes.generation());
                Some(lines.concat().into())
            }
            Since::Unknown => {
                self.at = Position::End;
                let cut = Some("too slow: the log has moved on".into());
                Some(Line { cut, ..Line::of(generation) }.bytes())
            }
        }
    }
}

/// Resolves when the pacer has ended.
async fn closed(mut shown: watch::Receiver<Shown>) {
    while shown.changed().await.is_ok() {}
}

/// A reader that receives nothing for twice as long knows that the connection is dead.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The pause between two chunks for each reader: what it takes to write a chunk to one.
const READER_PAUSE: Duration = Duration::from_micros(5);
/// A shorter pause is not worth a timer: up to 200 readers.
const PAUSE_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Changed, Published};

    /// A log, what passes it on, and one reader of it.
    fn reading(at: Position) -> (watch::Sender<Changes>, Pacer, Reading) {
        let (sender, changes) = watch::channel(Changes::new(0));
        let (ready, _) = shared::ready::new([]);
        let (streams, pacer) = new(&changes, &ready, 8);
        let place = streams.places.take(Ipv4Addr::LOCALHOST.into()).unwrap();
        let Streams { changes, shown, ready, .. } = streams;
        (sender, pacer, Reading { changes, shown, ready, at, _place: place, _away: None })
    }

    fn push(sender: &watch::Sender<Changes>, generation: u64) {
        let published = Published { generation, serial: 0, changed: Changed::Everything };
        sender.send_modify(|changes| changes.push(&published));
    }

    fn text(line: Option<Bytes>) -> String {
        String::from_utf8(line.expect("a line").to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_cut_and_told_so() {
        let (sender, mut pacer, mut reading) = reading(Position::Start(None));
        let first = "{\"generation\":0,\"flush\":true}\n";
        assert_eq!(text(reading.next().await), first);
        push(&sender, 1);
        push(&sender, 2);
        pacer.show();
        let both = "{\"generation\":1,\"flush\":true}\n{\"generation\":2,\"flush\":true}\n";
        assert_eq!(text(reading.next().await), both);
        (3..10_000).for_each(|generation| push(&sender, generation));
        pacer.show();
        let last = text(reading.next().await);
        assert!(last.starts_with("{\"generation\":2,\"cut\":\"too slow"), "{last}");
        assert_eq!(reading.next().await, None);
    }

    #[tokio::test]
    async fn every_reader_gets_every_line_once_whenever_it_began() {
        let (sender, mut pacer, mut early) = reading(Position::Start(None));
        text(early.next().await);
        push(&sender, 1);
        // One that begins between a change and its chunk.
        let (changes, shown, ready) =
            (early.changes.clone(), early.shown.clone(), early.ready.clone());
        let place = pacer.places.take(Ipv4Addr::LOCALHOST.into()).unwrap();
        let at = Position::Start(None);
        let mut late = Reading { changes, shown, ready, at, _place: place, _away: None };
        assert_eq!(text(late.next().await), "{\"generation\":1,\"flush\":true}\n");
        pacer.show();
        push(&sender, 2);
        pacer.show();
        let of = |generation: u64| format!("{{\"generation\":{generation},\"flush\":true}}\n");
        assert_eq!(text(early.next().await), of(1) + &of(2));
        assert_eq!(text(late.next().await), of(2));
        push(&sender, 3);
        pacer.show();
        let (one, other) = (early.next().await.unwrap(), late.next().await.unwrap());
        assert_eq!(text(Some(one.clone())), of(3));
        assert_eq!(one.as_ptr(), other.as_ptr(), "the chunk is shared");
        pacer.show();
        for reader in [&mut early, &mut late] {
            assert_eq!(text(reader.next().await), "{\"generation\":3}\n", "a heartbeat");
        }
    }

    #[tokio::test]
    async fn a_quiet_stream_ends_with_the_program() {
        for at in [Position::Start(None), Position::Generation(0)] {
            let (_sender, pacer, mut reading) = reading(at);
            if matches!(reading.at, Position::Start(_)) {
                text(reading.next().await);
            }
            drop(pacer);
            assert_eq!(reading.next().await, None);
        }
    }

    #[tokio::test]
    async fn changes_are_shown_as_they_come() {
        let (sender, pacer, mut reading) = reading(Position::Generation(0));
        let stopping = CancellationToken::new();
        let pacing = tokio::spawn(pace(pacer, stopping.clone()));
        for generation in 1..4 {
            push(&sender, generation);
            let line = format!("{{\"generation\":{generation},\"flush\":true}}\n");
            assert_eq!(text(reading.next().await), line);
        }
        stopping.cancel();
        pacing.await.unwrap().unwrap();
        assert_eq!(reading.next().await, None);
    }
}
