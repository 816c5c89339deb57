//! Pictures of the last hour as SVG: lines and areas that need no script.
//!
//! Core. Values in, markup out. A part that is not known is a gap.

use std::fmt::Write;

use super::html::{micros, per_second, percent};
use crate::history::{History, Second};

/// Every chart.
pub fn charts(history: &History) -> String {
    let parts = history.parts(PARTS);
    let minutes = history.window_secs() / 60;
    let last = history.newest().unwrap_or_default();
    let queries = Chart {
        title: "Queries",
        now: per_second(last.queries.into()),
        keys: ["all", "from the cache"],
        series: [of(&parts, |it| Some(it.queries.into())), of(&parts, |it| Some(it.hits.into()))],
        is_area: true,
        scale: Scale::Largest,
        show: per_second,
    };
    let latency = Chart {
        title: "Time of an answer",
        now: format!("p99 {}", micros(last.p99_us.into())),
        keys: ["p99", "p50"],
        series: [of(&parts, |it| time(it.p99_us)), of(&parts, |it| time(it.p50_us))],
        is_area: false,
        scale: Scale::Powers,
        show: micros,
    };
    let hits = Chart {
        title: "Hit rate",
        now: percent(last.hits.into(), last.queries.into()),
        keys: ["answered from the cache", ""],
        series: [of(&parts, |it| share(it.hits, it.queries)), Vec::new()],
        is_area: true,
        scale: Scale::Percent,
        show: |value| format!("{value:.0} %"),
    };
    let failures = Chart {
        title: "NXDOMAIN",
        now: percent(last.denied.into(), last.queries.into()),
        keys: ["NXDOMAIN", "SERVFAIL and REFUSED"],
        series: [of(&parts, |it| Some(it.denied.into())), of(&parts, |it| Some(it.errors.into()))],
        is_area: false,
        scale: Scale::Largest,
        show: per_second,
    };
    let all = [queries, latency, hits, failures].map(|chart| chart.html(minutes));
    format!("<div class=\"charts\">\n{}</div>\n", all.concat())
}

/// A time; there is none in a second without a query.
fn time(value: f32) -> Option<f64> {
    (value > 0.0).then(|| f64::from(value))
}

/// A share in percent.
fn share(part: f32, all: f32) -> Option<f64> {
    (all > 0.0).then(|| f64::from(100.0 * part / all))
}

/// How values become heights.
#[derive(Clone, Copy)]
enum Scale {
    /// From zero to a round number above the largest value.
    Largest,
    /// From zero to 100.
    Percent,
    /// From 10 to a power of ten above the largest value, each of which takes the same height.
    Powers,
}

impl Scale {
    /// The value at the upper edge.
    fn top(self, largest: f64) -> f64 {
        match self {
            Self::Largest => above(largest),
            Self::Percent => 100.0,
            Self::Powers => 10_f64.powf(largest.max(100.0).log10().ceil()),
        }
    }

    /// The share of the height that `value` takes.
    fn share(self, value: f64, top: f64) -> f64 {
        let share = match self {
            Self::Largest | Self::Percent => value / top,
            Self::Powers => (value / 10.0).max(1.0).log10() / (top / 10.0).log10(),
        };
        share.clamp(0.0, 1.0)
    }
}

fn of(parts: &[Option<Second>], value: fn(&Second) -> Option<f64>) -> Vec<Option<f64>> {
    parts.iter().map(|part| part.as_ref().and_then(value)).collect()
}

struct Chart {
    title: &'static str,
    now: String,
    keys: [&'static str; 2],
    series: [Vec<Option<f64>>; 2],
    is_area: bool,
    scale: Scale,
    show: fn(f64) -> String,
}

impl Chart {
    fn html(&self, minutes: usize) -> String {
        let values = self.series.iter().flatten().flatten();
        let largest = values.clone().copied().fold(0.0, f64::max);
        let top = self.scale.top(largest);
        let is_known = values.clone().next().is_some();
        let shown = if is_known { (self.show)(top) } else { "–".to_owned() };
        let note = if matches!(self.scale, Scale::Powers) { ", log scale" } else { "" };
        let mut keys = String::new();
        let classes = ["a", "b"];
        for (class, key) in classes.iter().zip(self.keys).filter(|(_, key)| !key.is_empty()) {
            write!(keys, "<i class=\"{class}\"></i>{key}").expect("a String takes all text");
        }
        let mut drawn = String::new();
        for (class, series) in classes.iter().zip(&self.series) {
            for run in runs(series) {
                drawn += &self.draw(&run, top, class);
            }
        }
        let Self { title, now, .. } = self;
        let most = (self.show)(largest);
        format!(
            "<figure class=\"card\">\n<figcaption><span>{title} <strong>{now}</strong></span>\
             <span class=\"key\">{keys}</span></figcaption>\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"{title} in the last {minutes} minutes: now {now}, at most {most}\">\
             <path class=\"grid\" d=\"M0 1H{WIDTH}M0 {}H{WIDTH}\" \
             vector-effect=\"non-scaling-stroke\"/>{drawn}</svg>\n<p \
             class=\"scale\"><span>{minutes} min ago</span> <span>top {shown}{note}</span> \
             <span>now</span></p>\n</figure>\n",
            HEIGHT / 2
        )
    }

    fn draw(&self, run: &[(usize, f64)], top: f64, class: &str) -> String {
        let x = |at: usize| at as f64 * WIDTH as f64 / (PARTS - 1) as f64;
        let y = |value| HEIGHT as f64 - self.scale.share(value, top) * (HEIGHT - 1) as f64;
        let mut points = String::new();
        for (at, value) in run {
            write!(points, "{:.1} {:.1} ", x(*at), y(*value)).expect("a String takes all text");
        }
        let (first, last) = (x(run[0].0), x(run[run.len() - 1].0));
        let mut drawn = String::new();
        if self.is_area {
            drawn += &format!(
                "<path class=\"area {class}\" d=\"M{first:.1} {HEIGHT}L{points}L{last:.1} \
                 {HEIGHT}Z\"/>"
            );
        }
        // A single part is a line of its own width.
        let end = match run.len() {
            1 => format!("{:.1} {:.1}", first + 3.0, y(run[0].1)),
            _ => String::new(),
        };
        drawn
            + &format!(
                "<path class=\"line {class}\" d=\"M{points}{end}\" \
                 vector-effect=\"non-scaling-stroke\"/>"
            )
    }
}

/// The parts of a series without gaps, with their places.
fn runs(series: &[Option<f64>]) -> Vec<Vec<(usize, f64)>> {
    let mut runs = vec![Vec::new()];
    for (at, value) in series.iter().enumerate() {
        match value {
            Some(value) => runs.last_mut().expect("there is always one").push((at, *value)),
            None => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// The next round number that is not below `value`: 1, 2 or 5 and zeros.
fn above(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let unit = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * unit)
        .into_iter()
        .find(|it| *it >= value)
        .unwrap_or(value)
}

/// Points of a line.
const PARTS: usize = 150;
const WIDTH: usize = 600;
const HEIGHT: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_edge_is_a_round_number() {
        let rows =
            [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (3.0, 5.0), (7.0, 10.0), (1_234.0, 2_000.0)];
        for (value, edge) in rows {
            assert!((above(value) - edge).abs() < 1e-6, "{value}: {}", above(value));
        }
    }

    #[test]
    fn a_gap_ends_a_line() {
        let series = [None, Some(1.0), Some(2.0), None, Some(3.0)];
        assert_eq!(runs(&series), [vec![(1, 1.0), (2, 2.0)], vec![(4, 3.0)]]);
    }

    #[test]
    fn scales_begin_and_end_at_the_edges() {
        let rows = [
            (Scale::Largest, 1_234.0, 2_000.0, [(0.0, 0.0), (1_000.0, 0.5), (9_000.0, 1.0)]),
            (Scale::Percent, 7.0, 100.0, [(0.0, 0.0), (50.0, 0.5), (100.0, 1.0)]),
            (Scale::Powers, 90_000.0, 100_000.0, [(1.0, 0.0), (1_000.0, 0.5), (100_000.0, 1.0)]),
        ];
        for (scale, largest, top, heights) in rows {
            assert!((scale.top(largest) - top).abs() < 1e-6, "{largest}");
            for (value, share) in heights {
                assert!((scale.share(value, top) - share).abs() < 1e-6, "{value}");
            }
        }
    }

    #[test]
    fn charts_without_figures_are_empty_and_whole() {
        let html = charts(&History::default());
        assert_eq!(html.matches("<figure").count(), 4);
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
    }
}
