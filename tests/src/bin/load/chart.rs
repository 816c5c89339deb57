//! The picture below the summary: answers and hit rate over time, and the spread of latencies.
//!
//! Core. The picture is text, so that it can be read in the terminal.
//!
//! ```text
//! answers/s   ▇▇█▇▁▇▇▇▇▇  top 152340
//! hit rate    ▃▇████████  top 100 %
//!
//!     32-63 us  ████████████████████████████████████████  71.20 %
//!    64-127 us  ███████████████                           26.10 %
//! ```

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// The results of about one second.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Answers per second.
    pub rate: f64,
    /// Hits among the queries, 0 to 1, if the server counts them.
    pub hit_rate: Option<f64>,
}

/// Returns the whole picture. It is empty if there was no answer.
pub fn picture(stretches: &[Stretch], latency: &Histogram<u64>) -> String {
    if latency.is_empty() {
        return String::new();
    }
    let rates: Vec<f64> = stretches.iter().map(|stretch| stretch.rate).collect();
    let top = rates.iter().copied().fold(0.0, f64::max);
    let mut text = format!("\nanswers/s   {}  top {top:.0}\n", columns(&rates, top));
    let hits: Vec<f64> = stretches.iter().filter_map(|stretch| stretch.hit_rate).collect();
    if !hits.is_empty() {
        writeln!(text, "hit rate    {}  top 100 %", columns(&hits, 1.0)).expect("text");
    }
    text + "\n" + &bars(latency)
}

/// Draws one column for each value, in eighths of `top`. Neighbours share a column if there are too
/// many.
fn columns(values: &[f64], top: f64) -> String {
    let together = values.len().div_ceil(WIDTH).max(1);
    let column = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let eighths = if top > 0.0 { (8.0 * mean / top).round() as usize } else { 0 };
        EIGHTHS[eighths.min(EIGHTHS.len() - 1)]
    };
    values.chunks(together).map(column).collect()
}

/// Draws a bar for each class of latencies. Each class is twice as wide as the one before.
fn bars(latency: &Histogram<u64>) -> String {
    let classes = (0..u64::BITS - 1).map(|power| (1_u64 << power, (1_u64 << (power + 1)) - 1));
    let counts = classes.map(|(from, to)| (from, to, latency.count_between(from, to)));
    let counts: Vec<(u64, u64, u64)> =
        counts.take_while(|(from, ..)| *from <= latency.max()).collect();
    let most = counts.iter().map(|&(.., count)| count).max().unwrap_or(0).max(1);
    let mut text = String::new();
    for (from, to, count) in counts.into_iter().skip_while(|&(.., count)| count == 0) {
        let bar = "█".repeat((WIDTH as u64 * count).div_ceil(most) as usize);
        let percent = 100.0 * count as f64 / latency.len() as f64;
        let class = format!("{from}-{to} us");
        writeln!(text, "{class:>18}  {bar:<WIDTH$}  {percent:>6.2} %").expect("text");
    }
    text
}

/// The number of columns, and the length of the longest bar.
const WIDTH: usize = 40;
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 10_000_000, 3).unwrap();
        values.iter().for_each(|&value| histogram.record(value).unwrap());
        histogram
    }

    #[test]
    fn the_picture_has_time_hit_rate_and_latency_each_with_its_scale() {
        let stretch = |rate, hit_rate| Stretch { rate, hit_rate };
        let stretches =
            [stretch(50.0, Some(0.0)), stretch(200.0, Some(0.5)), stretch(0.0, Some(1.0))];
        let picture = picture(&stretches, &histogram(&[33, 40, 63, 64, 300]));
        let lines: Vec<&str> = picture.lines().collect();
        assert_eq!(lines[1], "answers/s   ▂█   top 200");
        assert_eq!(lines[2], "hit rate     ▄█  top 100 %");
        let long = "█".repeat(40);
        assert_eq!(lines[4], format!("          32-63 us  {long}   60.00 %"));
        assert!(lines[5].starts_with("         64-127 us  █████████████▌".trim_end_matches('▌')));
        assert_eq!(lines[6].trim(), format!("128-255 us  {:40}    0.00 %", ""));
        assert_eq!(lines.len(), 8);
    }

    #[test]
    fn nothing_is_drawn_of_nothing_and_no_line_is_too_long() {
        assert_eq!(picture(&[], &histogram(&[])), "");
        let many = vec![Stretch { rate: 7.0, hit_rate: None }; 1_000];
        let picture = picture(&many, &histogram(&[1, 9_999_999]));
        assert!(picture.lines().all(|line| line.chars().count() <= 80), "{picture}");
        assert!(!picture.contains("hit rate"), "{picture}");
    }
}
