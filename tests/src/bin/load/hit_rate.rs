//! `cargo load hit-rate`: how often dnscache's cache answers, against its size and through a flood
//! of names nobody asks again; beside it a plain LRU and the best possible on the same questions.
//!
//! Core, but for `run`. No socket: the cache is the program's own, called as its handler does.
//! Nothing expires meanwhile: what is measured is what gives way for what.
//!
//! ```text
//! seed ─▶ trace ─┬─▶ dnscache's cache ─┐
//!                ├─▶ plain LRU ────────┼─▶ hits, question by question ─▶ table and picture
//!                └─▶ best possible ────┘
//! ```

mod picture;
mod policies;

use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use crate::flags::alpha;
use crate::workload;
use picture::{Line, Panel};

/// The flags of `cargo load hit-rate`.
#[derive(Clone, Debug, clap::Args)]
pub struct Flags {
    /// How many names there are.
    #[arg(long, default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(16..=10_000_000))]
    pub names: u32,
    /// How many questions are asked.
    #[arg(long, default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u32).range(100..=100_000_000))]
    pub questions: u32,
    /// How much more often the popular names are asked (Zipf's law), 0 (not) to 3.
    #[arg(long, default_value_t = 1.0, value_parser = alpha)]
    pub alpha: f64,
    /// The same seed asks the same questions.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Where the picture goes.
    #[arg(long, value_name = "FILE", default_value = "hit-rate.svg")]
    pub svg: PathBuf,
}

/// Prints the table and writes the picture; fails where that cannot be written.
pub fn run(flags: &Flags) -> io::Result<()> {
    let (by_size, by_time) = (by_size(flags), by_time(flags));
    print!("{}\n{}", table(&by_size), table(&by_time));
    std::fs::write(&flags.svg, picture::svg(&[by_size, by_time]))?;
    println!("\nthe picture is in {}", flags.svg.display());
    Ok(())
}

/// Which questions of a trace were hits, by policy; each takes the trace and a size in entries.
type Policy = fn(&[u32], usize) -> Vec<bool>;

/// Hit rate of the whole trace, empty cache at its start, for eight sizes.
fn by_size(flags: &Flags) -> Panel {
    let trace = ordinary(flags);
    let sizes: Vec<usize> = (0..8).rev().map(|halves| flags.names as usize >> halves).collect();
    let sizes: Vec<usize> = sizes.into_iter().filter(|&size| size > 0).collect();
    let line = |policy: Policy| {
        let rate = |&size: &usize| (size as f64, share(policy(&trace, size).into_iter()));
        sizes.iter().map(rate).collect()
    };
    Panel {
        title: "Hit rate against cache size".to_owned(),
        x: "cache size (entries, logarithmic)",
        is_log: true,
        lines: lines(line),
        shaded: None,
        caption: command(flags),
    }
}

/// Hit rate of the ordinary questions in fortieths of the trace, with a cache of a sixteenth of the
/// names; in its middle fifth each comes with one that nobody asks again.
fn by_time(flags: &Flags) -> Panel {
    let size = flags.names as usize / 16;
    let ordinary = ordinary(flags);
    let flood = ordinary.len() * 2 / 5..ordinary.len() * 3 / 5;
    let (trace, is_flood) = flooded(&ordinary, flood.clone(), flags.names);
    let step = ordinary.len().div_ceil(STEPS);
    let line = |policy: Policy| {
        let hits = policy(&trace, size).into_iter().zip(&is_flood);
        let hits: Vec<bool> = hits.filter(|(_, flood)| !**flood).map(|(hit, _)| hit).collect();
        let rate = |(at, hits): (usize, &[bool])| {
            ((at * step + hits.len()) as f64, share(hits.iter().copied()))
        };
        hits.chunks(step).enumerate().map(rate).collect()
    };
    Panel {
        title: format!("Hit rate over time, {size} entries, flood of unique names in the middle"),
        x: "ordinary questions asked so far",
        is_log: false,
        lines: lines(line),
        shaded: Some((flood.start as f64, flood.end as f64)),
        caption: command(flags),
    }
}

fn lines(line: impl Fn(Policy) -> Vec<(f64, f64)>) -> [Line; 3] {
    [
        Line { name: "best possible", points: line(policies::best) },
        Line { name: "dnscache", points: line(policies::dnscache) },
        Line { name: "plain LRU", points: line(policies::lru) },
    ]
}

fn ordinary(flags: &Flags) -> Vec<u32> {
    let ranks = workload::ranks(flags.names as usize, flags.alpha, flags.seed);
    ranks.take(flags.questions as usize).map(|rank| rank as u32 - 1).collect()
}

/// `ordinary` with a name of its own, from `first` on, behind each question in `flood`; and which
/// those are.
fn flooded(ordinary: &[u32], flood: Range<usize>, first: u32) -> (Vec<u32>, Vec<bool>) {
    let (mut trace, mut is_flood) = (Vec::new(), Vec::new());
    for (at, &name) in ordinary.iter().enumerate() {
        trace.push(name);
        is_flood.push(false);
        if flood.contains(&at) {
            trace.push(first + (at - flood.start) as u32);
            is_flood.push(true);
        }
    }
    (trace, is_flood)
}

fn share(hits: impl ExactSizeIterator<Item = bool>) -> f64 {
    let all = hits.len().max(1);
    100.0 * hits.filter(|&hit| hit).count() as f64 / all as f64
}

fn command(flags: &Flags) -> String {
    format!(
        "cargo load hit-rate --names {} --questions {} --alpha {} --seed {}; \
         cold start, nothing expires",
        flags.names, flags.questions, flags.alpha, flags.seed
    )
}

/// A panel as text.
fn table(panel: &Panel) -> String {
    let mut text = format!("{} (%)\n{:>12}", panel.title, "");
    for line in &panel.lines {
        write!(text, "{:>15}", line.name).expect("a string takes all text");
    }
    for at in 0..panel.lines[0].points.len() {
        write!(text, "\n{:>12}", panel.lines[0].points[at].0).expect("a string takes all text");
        for line in &panel.lines {
            write!(text, "{:>15.2}", line.points[at].1).expect("a string takes all text");
        }
    }
    text + "\n"
}

/// Stretches of time in which hits are counted.
const STEPS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Flags =
        Flags { names: 512, questions: 4_000, alpha: 1.0, seed: 7, svg: PathBuf::new() };

    #[test]
    fn nothing_beats_the_best_and_a_larger_cache_is_no_worse() {
        let panel = by_size(&SMALL);
        let [best, ours, lru] = &panel.lines;
        assert_eq!(best.points.len(), 8);
        for at in 0..8 {
            let limit = best.points[at].1;
            assert!(ours.points[at].1 <= limit && lru.points[at].1 <= limit, "{}", table(&panel));
        }
        for line in [best, lru] {
            assert!(line.points.is_sorted_by(|a, b| a.1 <= b.1), "{}", table(&panel));
        }
        let all_fit = best.points[7].1;
        assert_eq!(lru.points[7].1, all_fit, "only first questions miss");
    }

    #[test]
    fn a_flood_is_put_between_ordinary_questions_and_left_out_of_the_rate() {
        let (trace, is_flood) = flooded(&[5, 5, 6], 1..3, 10);
        assert_eq!(trace, [5, 5, 10, 6, 11]);
        assert_eq!(is_flood, [false, false, true, false, true]);
        let panel = by_time(&SMALL);
        assert_eq!(panel.shaded, Some((1_600.0, 2_400.0)));
        assert_eq!(panel.lines[0].points.last().unwrap().0, 4_000.0);
    }
}
