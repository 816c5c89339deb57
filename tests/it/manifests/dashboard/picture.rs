//! Panels as one picture: a line chart each, on the grid that Grafana has.
//!
//! Knows points and names; nothing of where they come from.

use std::fmt::Write;

/// One line of a panel.
pub struct Line {
    /// In the legend.
    pub name: String,
    /// Seconds and values.
    pub points: Vec<(f64, f64)>,
}

/// One panel.
pub struct Panel {
    pub title: String,
    /// As Grafana calls it.
    pub unit: String,
    /// Left, top, width and height on a grid of 24 columns.
    pub place: [f64; 4],
    pub lines: Vec<Line>,
}

/// Panels that lie on each other, by title.
pub fn overlaps(panels: &[Panel]) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (index, one) in panels.iter().enumerate() {
        for other in &panels[index + 1..] {
            let ([x, y, width, height], [left, top, wide, high]) = (one.place, other.place);
            if x < left + wide && left < x + width && y < top + high && top < y + height {
                found.push((&*one.title, &*other.title));
            }
        }
    }
    found
}

/// Draws `panels` as SVG.
pub fn draw(panels: &[Panel]) -> String {
    let bottom = panels.iter().map(|panel| panel.place[1] + panel.place[3]).fold(0.0, f64::max);
    let (width, height) = (24.0 * CELL, bottom * CELL);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#111217\"/>\n"
    );
    for panel in panels {
        let [x, y, width, height] = panel.place.map(|cells| cells * CELL);
        write!(svg, "<g transform=\"translate({x} {y})\">").unwrap();
        chart(panel, [width - 8.0, height - 8.0], &mut svg);
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

fn chart(panel: &Panel, [width, height]: [f64; 2], svg: &mut String) {
    let title = escaped(&panel.title);
    write!(
        svg,
        "<rect width=\"{width}\" height=\"{height}\" fill=\"#181b1f\" stroke=\"#333\"/>\
         <text x=\"8\" y=\"16\" fill=\"#ddd\" font-size=\"13\">{title}</text>"
    )
    .unwrap();
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let end = points().map(|(seconds, _)| *seconds).fold(1.0, f64::max);
    let top = points().map(|(_, value)| *value).fold(0.0, f64::max).max(1e-9);
    let (left, right, upper, lower) = (64.0, width - 190.0, 28.0, height - 14.0);
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let y = lower - (lower - upper) * share;
        let label = value(top * share, &panel.unit);
        write!(
            svg,
            "<line x1=\"{left}\" x2=\"{right}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#333\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"#999\" text-anchor=\"end\">{label}</text>",
            left - 4.0,
            y + 4.0
        )
        .unwrap();
    }
    for (index, line) in panel.lines.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let mut path = String::new();
        for (seconds, value) in &line.points {
            let x = left + (right - left) * seconds / end;
            let y = lower - (lower - upper) * value.max(0.0) / top;
            write!(path, "{x:.1},{y:.1} ").unwrap();
        }
        let y = upper + 14.0 * index as f64;
        let last = line.points.last().map_or(0.0, |(_, value)| *value);
        write!(
            svg,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>\
             <rect x=\"{}\" y=\"{}\" width=\"10\" height=\"3\" fill=\"{color}\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"#ccc\">{} {}</text>",
            right + 10.0,
            y,
            right + 24.0,
            y + 5.0,
            escaped(&line.name),
            value(last, &panel.unit)
        )
        .unwrap();
    }
}

/// `number` as Grafana writes it in `unit`.
fn value(number: f64, unit: &str) -> String {
    match unit {
        "s" if number < 1e-3 => format!("{:.0} µs", number * 1e6),
        "s" if number < 1.0 => format!("{:.2} ms", number * 1e3),
        "s" => format!("{number:.2} s"),
        "bytes" => format!("{:.2} MiB", number / f64::from(1 << 20)),
        "percentunit" => format!("{:.1} %", number * 100.0),
        "reqps" => format!("{number:.1} req/s"),
        "none" | "short" => format!("{number:.2}"),
        other => panic!("the unit {other} is not known here"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

const CELL: f64 = 46.0;
const COLORS: [&str; 8] =
    ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#b877d9", "#37872d", "#fade2a"];
