//! Lines over axes as SVG: the colours of Okabe and Ito, which colour-blind people tell apart, each
//! with a dash of its own and its name at its end.
//!
//! Core.

use std::fmt::Write as _;

/// One drawing.
#[derive(Debug)]
pub struct Panel {
    /// What is shown.
    pub title: String,
    /// What runs from left to right, with its unit.
    pub x: &'static str,
    /// Whether it does so by doubling.
    pub is_log: bool,
    /// At the same places each; upwards are percent.
    pub lines: [Line; 3],
    /// A stretch that is set off: the flood.
    pub shaded: Option<(f64, f64)>,
    /// How it was made.
    pub caption: String,
}

/// What is compared.
#[derive(Debug)]
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// The panels, one below the other.
pub fn svg(panels: &[Panel]) -> String {
    let height = HEIGHT * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        svg += &format!("<g transform=\"translate(0 {})\">\n", HEIGHT * index as f64);
        panel.draw(&mut svg).expect("a string takes all text");
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

impl Panel {
    fn draw(&self, svg: &mut String) -> std::fmt::Result {
        writeln!(svg, "<text x=\"{LEFT}\" y=\"26\" font-size=\"17\">{}</text>", self.title)?;
        if let Some((from, to)) = self.shaded {
            let (from, to) = (self.across(from), self.across(to));
            writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" \
                 fill=\"#eeeeee\"/>\n<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" \
                 fill=\"#555555\">flood</text>",
                to - from,
                BOTTOM - TOP,
                (from + to) / 2.0,
                TOP + 16.0,
            )?;
        }
        for percent in (0..=100).step_by(20) {
            let y = up(f64::from(percent));
            writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#cccccc\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{percent} %</text>",
                LEFT - 8.0,
                y + 4.0,
            )?;
        }
        let ticks = self.lines[0].points.len().div_ceil(8);
        for (at, _) in self.lines[0].points.iter().skip(ticks - 1).step_by(ticks) {
            let x = self.across(*at);
            writeln!(
                svg,
                "<path d=\"M{x:.1} {BOTTOM}v5\" stroke=\"black\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{at}</text>",
                BOTTOM + 19.0,
            )?;
        }
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text x=\"{LEFT}\" y=\"{}\" font-size=\"11\" fill=\"#555555\">{}</text>",
            (LEFT + RIGHT) / 2.0,
            BOTTOM + 40.0,
            self.x,
            BOTTOM + 62.0,
            self.caption,
        )?;
        let ends = self.lines.each_ref().map(|line| line.points.last().map_or(0.0, |end| end.1));
        let labels = spread(ends.map(up));
        for ((line, (colour, dash)), label) in self.lines.iter().zip(STYLES).zip(labels) {
            let mut path = String::new();
            for (index, (x, y)) in line.points.iter().enumerate() {
                let stroke = if index == 0 { 'M' } else { 'L' };
                write!(path, "{stroke}{:.1} {:.1}", self.across(*x), up(*y))?;
            }
            writeln!(
                svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\" \
                 stroke-dasharray=\"{dash}\"/>\n\
                 <text x=\"{}\" y=\"{:.1}\" fill=\"{colour}\" font-weight=\"bold\">{}</text>",
                RIGHT + 10.0,
                label + 4.0,
                line.name,
            )?;
        }
        Ok(())
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

/// The same heights in the same order, apart enough to be read.
fn spread(heights: [f64; 3]) -> [f64; 3] {
    let mut order = [0, 1, 2];
    order.sort_by(|&a, &b| heights[a].total_cmp(&heights[b]));
    let mut apart = heights;
    for pair in order.windows(2) {
        apart[pair[1]] = apart[pair[1]].max(apart[pair[0]] + LABEL_HEIGHT);
    }
    apart
}

/// Colour and dash of each line.
const STYLES: [(&str, &str); 3] = [("#009E73", "2 4"), ("#0072B2", "none"), ("#D55E00", "9 5")];
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 770.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 360.0;
const LABEL_HEIGHT: f64 = 17.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_order_and_do_not_touch() {
        assert_eq!(spread([10.0, 100.0, 50.0]), [10.0, 100.0, 50.0]);
        assert_eq!(spread([50.0, 50.0, 49.0]), [66.0, 83.0, 49.0]);
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
            caption: "command".to_owned(),
        };
        assert_eq!(panel.across(2.0), (LEFT + RIGHT) / 2.0, "half way, by doubling");
        let svg = svg(&[panel]);
        for part in [">Title<", ">size (entries)<", ">b<", ">command<", ">flood<", "100 %"] {
            assert!(svg.contains(part), "{part} is missing in {svg}");
        }
    }
}
