//! `/tail?filter=`: sampled queries as they are answered, one object of JSON per line.
//!
//! Edge. A reader that falls too far behind gets a last line with the reason.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query as Parameters, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use shared::clock::{Moment, boot_time, unix_ms};
use shared::http::{Away, Seat};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::Inspect;
use crate::sample::{Filter, Sample};

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    filter: String,
}

/// Streams the samples that pass the filter.
pub(super) async fn page(
    State(inspect): State<Inspect>,
    seat: Option<Extension<Seat>>,
    Parameters(asked): Parameters<Asked>,
) -> Response {
    let refusal = inspect.refusal(seat.as_deref()).or_else(|| inspect.without_samples());
    if let Some(refusal) = refusal {
        return refusal;
    }
    let filter = match asked.filter.parse::<Filter>() {
        Ok(filter) => filter,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    let Ok(place) = Arc::clone(&inspect.places).try_acquire_owned() else {
        let text = "too many readers of /tail; try again later\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let start = Reading {
        samples: inspect.answers.samples.tail(),
        inspect,
        filter,
        is_over: false,
        _place: place,
        _away: seat.map(|Extension(seat)| seat.leave()), // bounded by its place instead
    };
    let lines = stream::unfold(start, |mut reading| async move {
        let lines = reading.next().await?;
        Some((Ok::<_, Infallible>(lines), reading))
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(lines)).into_response()
}

/// One reader.
struct Reading {
    inspect: Inspect,
    samples: Receiver<Arc<Sample>>,
    filter: Filter,
    is_over: bool,
    _place: OwnedSemaphorePermit,
    /// As long as it reads, the connection has no seat among those for short answers.
    _away: Option<Away>,
}

impl Reading {
    /// Waits for samples that pass the filter. Returns their lines; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let stopping = self.inspect.stopping.clone();
        let mut lines = String::new();
        while lines.is_empty() && !self.is_over {
            let received = stopping.run_until_cancelled(self.samples.recv()).await?;
            let clock = Clock::read();
            match received {
                Ok(sample) => self.add(&sample, &clock, &mut lines),
                Err(RecvError::Lagged(skipped)) => self.end(skipped, &mut lines),
                Err(RecvError::Closed) => return None,
            }
            while lines.len() < LINES_BYTES && !self.is_over {
                match self.samples.try_recv() {
                    Ok(sample) => self.add(&sample, &clock, &mut lines),
                    Err(TryRecvError::Lagged(skipped)) => self.end(skipped, &mut lines),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
        }
        (!lines.is_empty()).then_some(lines)
    }

    fn add(&self, sample: &Sample, clock: &Clock, lines: &mut String) {
        if self.filter.admits(sample) {
            lines.push_str(&sample.line(&clock.time(sample.at)));
            lines.push('\n');
        }
    }

    /// Ends the stream of a reader that was too slow for `skipped` samples.
    fn end(&mut self, skipped: u64, lines: &mut String) {
        self.is_over = true;
        self.inspect.answers.samples.lose_reader();
        let text = format!("This reader is too slow: {skipped} samples were skipped.");
        lines.push_str(&format!("{}\n", serde_json::json!({ "end": text })));
    }
}

/// What the wall clock shows, for moments since boot.
struct Clock {
    unix_ms: u64,
    boot: Moment,
}

impl Clock {
    fn read() -> Self {
        Self { unix_ms: unix_ms(), boot: boot_time() }
    }

    /// Returns the time of `moment` as RFC 3339 has it.
    fn time(&self, moment: Moment) -> String {
        let passed_ms = self.boot.since(moment).as_millis() as u64;
        let time = jiff::Timestamp::from_millisecond(self.unix_ms.saturating_sub(passed_ms) as i64);
        time.map_or_else(|_| String::new(), |time| format!("{time:.3}"))
    }
}

/// Lines that are sent at once, in bytes.
const LINES_BYTES: usize = 4 << 10;
