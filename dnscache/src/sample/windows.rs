//! The heavy hitters of the last minute, the last ten, the last hour, and since the start.
//!
//! Core. A window has two summaries: one for the current span of its length and one for the span
//! before. Of the latter, that share counts which still lies in the window.

use std::str::FromStr;
use std::time::Duration;

use shared::clock::Moment;

use super::keys::Keys;
use super::summary::{Added, Cell, Summary};

/// A stretch of time that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last minute.
    Minute,
    /// The last ten minutes.
    TenMinutes,
    /// The last hour.
    Hour,
    /// All the time since the program started.
    Start,
}

/// Why a text is not a window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1m, 10m, 1h or start")]
pub struct WindowError;

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let all = [Self::Minute, Self::TenMinutes, Self::Hour, Self::Start];
        all.into_iter().find(|window| window.name() == text).ok_or(WindowError)
    }
}

impl Window {
    /// Its name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::TenMinutes => "10m",
            Self::Hour => "1h",
            Self::Start => "start",
        }
    }
}

/// Every window of one list.
#[derive(Debug)]
pub struct Windows {
    began: Moment,
    start: Summary,
    spans: [Span; 3],
}

#[derive(Debug)]
struct Span {
    length: Duration,
    began: Moment,
    current: Summary,
    before: Summary,
}

/// What a window shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// How much time it covers.
    pub covered: Duration,
    /// Queries in it.
    pub total: u64,
    /// The samples that represent them.
    pub samples: u64,
    /// Each key, the highest count first.
    pub cells: Vec<Cell>,
}

impl Windows {
    /// Empty windows. Those since the start have `places` places each, the others half as many.
    pub fn new(places: usize, now: Moment) -> Self {
        let span = |seconds| Span {
            length: Duration::from_secs(seconds),
            began: now,
            current: Summary::new(places / 2),
            before: Summary::new(places / 2),
        };
        let spans = [span(60), span(600), span(3_600)];
        Self { began: now, start: Summary::new(places), spans }
    }

    /// Adds a sample of `bytes`, which represents `weight` queries.
    pub fn add(&mut self, bytes: &[u8], weight: u32, keys: &mut Keys) {
        let key = keys.key(bytes);
        add(&mut self.start, (key, bytes), weight, keys);
        for span in &mut self.spans {
            add(&mut span.current, (key, bytes), weight, keys);
        }
    }

    /// Begins new spans if the current ones are over.
    pub fn turn(&mut self, now: Moment, keys: &mut Keys) {
        for span in &mut self.spans {
            span.turn(now, keys);
        }
    }

    /// Returns what `window` shows, at most `limit` keys.
    pub fn show(&self, window: Window, limit: usize, now: Moment) -> Shown {
        let since_start = now.since(self.began);
        let (mut shown, span) = match window {
            Window::Start => (of_one(&self.start), None),
            Window::Minute => self.spans[0].show(now),
            Window::TenMinutes => self.spans[1].show(now),
            Window::Hour => self.spans[2].show(now),
        };
        shown.covered = span.map_or(since_start, |length| since_start.min(length));
        shown.cells.sort_unstable_by_key(|cell| (std::cmp::Reverse(cell.count), cell.key));
        shown.cells.truncate(limit);
        shown
    }

    /// Returns the bytes that they take.
    pub fn bytes(&self) -> usize {
        let spans = self.spans.iter().map(|span| span.current.bytes() + span.before.bytes());
        self.start.bytes() + spans.sum::<usize>()
    }
}

impl Span {
    fn turn(&mut self, now: Moment, keys: &mut Keys) {
        let elapsed = now.since(self.began);
        if elapsed < self.length {
            return;
        }
        let is_next = elapsed < 2 * self.length;
        let places = self.before.places();
        let empty = || Summary::new(places);
        let over = std::mem::replace(&mut self.current, empty());
        let (before, lost) = if is_next { (over, empty()) } else { (empty(), over) };
        let gone = std::mem::replace(&mut self.before, before);
        self.began = if is_next { self.began + self.length } else { now };
        for cell in gone.cells().iter().chain(lost.cells()) {
            keys.release(cell.key);
        }
    }

    fn show(&self, now: Moment) -> (Shown, Option<Duration>) {
        let share = 1.0 - now.since(self.began).as_secs_f64() / self.length.as_secs_f64();
        let share = share.clamp(0.0, 1.0);
        let part = |count: u64| (count as f64 * share).round() as u64;
        let mut shown = of_one(&self.current);
        shown.total += part(self.before.total);
        shown.samples += part(self.before.samples);
        for cell in &mut shown.cells {
            let before = self.before.get(cell.key);
            cell.count += part(before.count);
            cell.error += part(before.error);
        }
        let missing = self.before.cells().iter().filter(|cell| !self.current.has(cell.key));
        let floor = |key| self.current.get(key).error;
        shown.cells.extend(missing.map(|cell| Cell {
            key: cell.key,
            count: part(cell.count),
            error: part(cell.error) + floor(cell.key),
        }));
        shown.cells.retain(|cell| cell.count > 0);
        (shown, Some(self.length))
    }
}

fn of_one(summary: &Summary) -> Shown {
    Shown {
        covered: Duration::ZERO,
        total: summary.total,
        samples: summary.samples,
        cells: summary.cells().to_vec(),
    }
}

/// Adds a sample to one summary. If the names of all keys take too much room, the keys with the
/// lowest counts lose their places.
fn add(summary: &mut Summary, (key, bytes): (u64, &[u8]), weight: u32, keys: &mut Keys) {
    for _ in 0..POPS_MAX {
        if summary.has(key) || keys.has_room(key, bytes) {
            break;
        }
        let Some(popped) = summary.pop() else { break };
        keys.release(popped);
    }
    if !summary.has(key) && !keys.has_room(key, bytes) {
        return summary.add_unnamed(weight);
    }
    match summary.add(key, weight) {
        Added::Known => {}
        Added::New => keys.hold(key, bytes),
        Added::Replaced(other) => {
            keys.hold(key, bytes);
            keys.release(other);
        }
    }
}

/// Keys that lose their places for one that is new.
const POPS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanos(1_000_000_000_000);

    fn at(seconds: u64) -> Moment {
        START + Duration::from_secs(seconds)
    }

    /// What `window` shows of `name`, `second` seconds after the start.
    fn count(windows: &Windows, keys: &Keys, window: Window, name: &[u8], second: u64) -> u64 {
        let shown = windows.show(window, 100, at(second));
        let key = keys.key(name);
        shown.cells.iter().find(|cell| cell.key == key).map_or(0, |cell| cell.count)
    }

    #[test]
    fn a_window_forgets_and_the_start_does_not() {
        let mut keys = Keys::new(1 << 20);
        let mut windows = Windows::new(64, START);
        // 10 queries per second in the first minute, then none.
        for second in 0..60 {
            windows.turn(at(second), &mut keys);
            windows.add(b"\x01a\0", 10, &mut keys);
        }
        let rows = [
            (59, Window::Minute, 600),
            (60, Window::Minute, 600),
            (90, Window::Minute, 300),
            (119, Window::Minute, 10),
            (120, Window::Minute, 0),
            (120, Window::TenMinutes, 600),
            (660, Window::TenMinutes, 540),
            (1_200, Window::TenMinutes, 0),
            (1_200, Window::Hour, 600),
            (9_000, Window::Hour, 0),
            (9_000, Window::Start, 600),
        ];
        for (second, window, expected) in rows {
            windows.turn(at(second), &mut keys);
            let got = count(&windows, &keys, window, b"\x01a\0", second);
            assert_eq!(got, expected, "{window:?} after {second} s");
        }
        assert_eq!(windows.show(Window::Minute, 9, at(9_000)).covered, Duration::from_secs(60));
        assert_eq!(windows.show(Window::Hour, 9, at(70)).covered, Duration::from_secs(70));
    }

    #[test]
    fn names_are_kept_as_long_as_a_window_shows_them() {
        let mut keys = Keys::new(1 << 20);
        let mut windows = Windows::new(4, START);
        for second in 0..20_000_u64 {
            windows.turn(at(second), &mut keys);
            windows.add(&second.to_be_bytes(), 1, &mut keys);
            windows.add(b"\x01a\0", 3, &mut keys);
            if second % 500 == 0 {
                for window in [Window::Minute, Window::TenMinutes, Window::Hour, Window::Start] {
                    let shown = windows.show(window, 100, at(second));
                    assert!(shown.cells.iter().all(|cell| keys.get(cell.key).is_some()));
                    assert_eq!(shown.cells[0].key, keys.key(b"\x01a\0"), "{window:?} {second}");
                }
            }
        }
        // 4 places since the start, 2 in each of six summaries.
        assert!(keys.bytes() <= 16 * 200, "{}", keys.bytes());
    }

    #[test]
    fn windows_have_names() {
        for window in [Window::Minute, Window::TenMinutes, Window::Hour, Window::Start] {
            assert_eq!(window.name().parse(), Ok(window));
        }
        assert_eq!("2m".parse::<Window>(), Err(WindowError));
    }
}
