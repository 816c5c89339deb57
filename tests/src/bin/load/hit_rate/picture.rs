//! Lines over axes as SVG. The colours are those of Okabe and Ito, which colour-blind people can
//! distinguish. Each line has its own dash and mark, and its name and last value at its end.
//!
//! Core.

use std::fmt::{self, Write as _};

/// One drawing.
#[derive(Debug)]
pub struct Panel {
    /// The title.
    pub title: String,
    /// The name of the horizontal axis, with its unit.
    pub x: &'static str,
    /// Whether the horizontal axis is logarithmic.
    pub is_log: bool,
    /// The lines, with points at the same places. The vertical axis is in percent.
    pub lines: [Line; 3],
    /// A stretch with another background: the flood.
    pub shaded: Option<(f64, f64)>,
    /// What was measured, and how to measure it again.
    pub captions: [String; 2],
}

/// One line of a drawing.
#[derive(Debug)]
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// Its points from left to right.
    pub points: Vec<(f64, f64)>,
}

impl Panel {
    /// Returns the drawing as SVG.
    pub fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"Roboto, Helvetica, Arial, sans-serif\" font-size=\"13\" \
             fill=\"{INK}\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let parts = [Self::title, Self::shade, Self::grid, Self::ticks, Self::curves];
        for part in parts {
            part(self, &mut svg).expect("a string takes all text");
        }
        svg + "</svg>\n"
    }

    fn title(&self, svg: &mut String) -> fmt::Result {
        writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"30\" font-size=\"18\" font-weight=\"bold\">{}</text>",
            self.title
        )?;
        for (caption, y) in self.captions.iter().zip([BOTTOM + 70.0, BOTTOM + 89.0]) {
            writeln!(
                svg,
                "<text x=\"{LEFT}\" y=\"{y}\" font-size=\"12\" \
                 letter-spacing=\"0.3\">{caption}</text>"
            )?;
        }
        Ok(())
    }

    fn shade(&self, svg: &mut String) -> fmt::Result {
        let Some((from, to)) = self.shaded else { return Ok(()) };
        let (from, to) = (self.across(from), self.across(to));
        writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" \
             fill=\"#ececec\"/>\n\
             <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">flood</text>",
            to - from,
            BOTTOM - TOP,
            (from + to) / 2.0,
            BOTTOM - 10.0,
        )
    }

    fn grid(&self, svg: &mut String) -> fmt::Result {
        for percent in (0..=100).step_by(20) {
            let y = up(f64::from(percent));
            let stroke = if percent == 0 { INK } else { "#d4d4d4" };
            writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"{stroke}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{percent}</text>",
                LEFT - 8.0,
                y + 4.5,
            )?;
        }
        let middle = (TOP + BOTTOM) / 2.0;
        writeln!(
            svg,
            "<text transform=\"translate(22 {middle}) rotate(-90)\" \
             text-anchor=\"middle\">hit rate (%)</text>"
        )
    }

    fn ticks(&self, svg: &mut String) -> fmt::Result {
        for at in self.places() {
            let x = self.across(at);
            writeln!(
                svg,
                "<path d=\"M{x:.1} {BOTTOM}v5\" stroke=\"{INK}\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                BOTTOM + 20.0,
                grouped(at as usize),
            )?;
        }
        let (middle, y) = ((LEFT + RIGHT) / 2.0, BOTTOM + 42.0);
        writeln!(svg, "<text x=\"{middle}\" y=\"{y}\" text-anchor=\"middle\">{}</text>", self.x)
    }

    fn curves(&self, svg: &mut String) -> fmt::Result {
        let ends = self.lines.each_ref().map(|line| line.points.last().map_or(0.0, |end| end.1));
        let labels = spread(ends.map(up));
        for (((line, style), label), end) in self.lines.iter().zip(STYLES).zip(labels).zip(ends) {
            let Style { colour, dash, mark } = style;
            let (mut path, mut marks) = (String::new(), String::new());
            for (index, (x, y)) in line.points.iter().enumerate() {
                let (x, y) = (self.across(*x), up(*y));
                let stroke = if index == 0 { 'M' } else { 'L' };
                write!(path, "{stroke}{x:.1} {y:.1}")?;
                if index % line.points.len().div_ceil(MARKS_MAX) == 0 {
                    write!(marks, "M{x:.1} {y:.1}{mark}")?;
                }
            }
            writeln!(
                svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\" \
                 stroke-linejoin=\"round\" stroke-dasharray=\"{dash}\"/>\n\
                 <path d=\"{marks}\" fill=\"{colour}\" stroke=\"white\"/>\n\
                 <path d=\"M{} {label:.1}{mark}\" fill=\"{colour}\"/>\n\
                 <text x=\"{}\" y=\"{:.1}\" fill=\"{colour}\" \
                 font-weight=\"bold\">{} {end:.1} %</text>",
                RIGHT + 14.0,
                RIGHT + 24.0,
                label + 4.5,
                line.name,
            )?;
        }
        Ok(())
    }

    /// Returns the places of the labels: at each size, or in fifths.
    fn places(&self) -> Vec<f64> {
        let points = &self.lines[0].points;
        if self.is_log {
            return points.iter().map(|point| point.0).collect();
        }
        let last = points[points.len() - 1].0;
        (0..=5).map(|fifth| last * f64::from(fifth) / 5.0).collect()
    }

    fn across(&self, x: f64) -> f64 {
        let scale = |x: f64| if self.is_log { x.log2() } else { x };
        let points = &self.lines[0].points;
        let (first, last) = (points[0].0, points[points.len() - 1].0);
        let first = if self.is_log { scale(first) } else { 0.0 };
        LEFT + (RIGHT - LEFT) * (scale(x) - first) / (scale(last) - first)
    }
}

fn up(percent: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * percent / 100.0
}

/// Returns the heights in the same order, but far enough apart that the text can be read.
fn spread(heights: [f64; 3]) -> [f64; 3] {
    let mut order = [0, 1, 2];
    order.sort_by(|&a, &b| heights[a].total_cmp(&heights[b]));
    let mut apart = heights;
    for pair in order.windows(2) {
        apart[pair[1]] = apart[pair[1]].max(apart[pair[0]] + LABEL_HEIGHT);
    }
    apart
}

/// Returns `number` with a comma before each three digits.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The style that distinguishes a line from the others.
struct Style {
    colour: &'static str,
    dash: &'static str,
    /// The path of the mark, drawn from its middle.
    mark: &'static str,
}

/// A triangle, a circle, a square.
const STYLES: [Style; 3] = [
    Style { colour: "#007756", dash: "2 4", mark: "m0 -6.5l6 10.5h-12z" },
    Style { colour: "#0072B2", dash: "none", mark: "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z" },
    Style { colour: "#C04F00", dash: "9 5", mark: "m-4.5 -4.5h9v9h-9z" },
];
const INK: &str = "#222222";
/// More marks would hide their line.
const MARKS_MAX: usize = 10;
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 760.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 376.0;
const LABEL_HEIGHT: f64 = 18.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_order_and_do_not_touch() {
        assert_eq!(spread([10.0, 100.0, 50.0]), [10.0, 100.0, 50.0]);
        assert_eq!(spread([50.0, 50.0, 49.0]), [67.0, 85.0, 49.0]);
    }

    #[test]
    fn digits_are_grouped_by_three() {
        let rows = [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")];
        for (number, text) in rows {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_picture_names_its_lines_its_units_and_how_it_was_made() {
        let line = |name| Line { name, points: vec![(1.0, 0.0), (2.0, 50.0), (4.0, 100.0)] };
        let panel = Panel {
            title: "Title".to_owned(),
            x: "size (entries)",
            is_log: true,
            lines: ["a", "b", "c"].map(line),
            shaded: Some((1.0, 2.0)),
            captions: ["asked".to_owned(), "command".to_owned()],
        };
        assert_eq!(panel.across(2.0), (LEFT + RIGHT) / 2.0, "half way, by doubling");
        assert_eq!(panel.places(), [1.0, 2.0, 4.0]);
        let svg = panel.svg();
        let parts = [
            ">Title<",
            ">size (entries)<",
            ">hit rate (%)<",
            ">b 100.0 %<",
            ">asked<",
            ">command<",
        ];
        for part in parts.into_iter().chain([">flood<", ">100<", ">4<"]) {
            assert!(svg.contains(part), "{part} is missing in {svg}");
        }
        assert_eq!(Panel { is_log: false, ..panel }.places()[1], 0.8, "in fifths");
    }
}
