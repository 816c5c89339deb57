//! `cargo load hit-rate`: the hit rate of dnscache's cache by its size, and during a flood of names
//! that are asked only once, next to a plain LRU and the best possible policy on the same
//! questions.
//!
//! Core, except for `run`. It opens no socket: it calls the cache as dnscache's handler does.
//! Entries do not expire meanwhile, so that the hit rate depends only on what is evicted.
//!
//! ```text
//! seed ─▶ trace ─┬─▶ dnscache's cache ─┐
//!                ├─▶ plain LRU ────────┼─▶ hits, question by question ─▶ table and pictures
//!                └─▶ best possible ────┘
//! ```

mod picture;
mod png;
mod policies;

use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use crate::flags::alpha;
use crate::workload;
use picture::{Line, Panel, grouped};

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
    /// Of each hundred questions, how many are for a name that is not asked again, 0 to 90.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=90))]
    pub one_shot: u32,
    /// How many questions of the flood follow each ordinary one, 1 to 100.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub flood: u32,
    /// The same seed asks the same questions.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Directory for the pictures, as SVG and as PNG; it is created if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "target/pictures")]
    pub pictures: PathBuf,
}

/// Prints the tables and writes the pictures. Fails if they cannot be written.
pub fn run(flags: &Flags) -> io::Result<()> {
    std::fs::create_dir_all(&flags.pictures)?;
    let panels = [("hit-rate-by-size", by_size(flags)), ("hit-rate-by-time", by_time(flags))];
    for (name, panel) in &panels {
        println!("{}", table(panel));
        let (path, svg) = (flags.pictures.join(name), panel.svg());
        std::fs::write(path.with_extension("png"), png::from_svg(&svg))?;
        std::fs::write(path.with_extension("svg"), svg)?;
    }
    println!("the pictures are in {}", flags.pictures.display());
    Ok(())
}

/// A policy. Takes the trace and a size in entries, and returns which questions were hits.
type Policy = fn(&[u32], usize) -> Vec<bool>;

/// Returns the hit rate of the whole trace for eight sizes. The cache is empty at the start.
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
        x: "cache size (entries, each step twice the one before)",
        is_log: true,
        lines: lines(line),
        shaded: None,
        captions: captions(flags),
    }
}

/// Returns the hit rate of the ordinary questions in fortieths of the trace, with a cache for a
/// sixteenth of the names. In the middle fifth, each question is followed by others whose names are
/// asked only once.
fn by_time(flags: &Flags) -> Panel {
    let size = flags.names as usize / 16;
    let ordinary = ordinary(flags);
    let flood = ordinary.len() * 2 / 5..ordinary.len() * 3 / 5;
    let first = flags.names + flags.questions;
    let (trace, is_flood) = flooded(&ordinary, flood.clone(), flags.flood, first);
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
        title: format!(
            "Hit rate through a flood: {} unique names with each question, {} entries",
            flags.flood,
            grouped(size)
        ),
        x: "questions asked so far, without those of the flood",
        is_log: false,
        lines: lines(line),
        shaded: Some((flood.start as f64, flood.end as f64)),
        captions: captions(flags),
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
    let mut ranks = workload::ranks(flags.names as usize, flags.alpha, flags.seed);
    let mut name = |at: u32| {
        let rank = ranks.next().expect("there is no last rank") as u32;
        // Names that are asked once are spread evenly.
        let is_one_shot = at % 100 * flags.one_shot % 100 < flags.one_shot;
        if is_one_shot { flags.names + at } else { rank - 1 }
    };
    (0..flags.questions).map(&mut name).collect()
}

/// Returns `ordinary` with `factor` new names, from `first` on, after each question in `flood`, and
/// whether each question belongs to the flood.
fn flooded(
    ordinary: &[u32],
    flood: Range<usize>,
    factor: u32,
    first: u32,
) -> (Vec<u32>, Vec<bool>) {
    let (mut trace, mut is_flood) = (Vec::new(), Vec::new());
    let mut unasked = first..;
    for (at, &name) in ordinary.iter().enumerate() {
        trace.push(name);
        is_flood.push(false);
        if flood.contains(&at) {
            trace.extend(unasked.by_ref().take(factor as usize));
            is_flood.extend((0..factor).map(|_| true));
        }
    }
    (trace, is_flood)
}

fn share(hits: impl ExactSizeIterator<Item = bool>) -> f64 {
    let all = hits.len().max(1);
    100.0 * hits.filter(|&hit| hit).count() as f64 / all as f64
}

/// Returns captions: the questions, and the command that repeats the measurement.
fn captions(flags: &Flags) -> [String; 2] {
    let Flags { names, questions, alpha, one_shot, flood, seed, .. } = flags;
    let (many_names, many_questions) = (grouped(*names as usize), grouped(*questions as usize));
    [
        format!(
            "{many_questions} questions, {one_shot} of 100 for names asked once, the others for \
             {many_names} names by Zipf's law; the cache starts empty, nothing expires"
        ),
        format!(
            "cargo load hit-rate --names {names} --questions {questions} --alpha {alpha} \
             --one-shot {one_shot} --flood {flood} --seed {seed}"
        ),
    ]
}

/// Returns a panel as text.
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

    const SMALL: Flags = Flags {
        names: 512,
        questions: 4_000,
        alpha: 1.0,
        one_shot: 0,
        flood: 1,
        seed: 7,
        pictures: PathBuf::new(),
    };

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
        let (trace, is_flood) = flooded(&[5, 5, 6], 1..3, 2, 10);
        assert_eq!(trace, [5, 5, 10, 11, 6, 12, 13]);
        assert_eq!(is_flood, [false, false, true, true, false, true, true]);
        let panel = by_time(&SMALL);
        assert_eq!(panel.shaded, Some((1_600.0, 2_400.0)));
        assert_eq!(panel.lines[0].points.last().unwrap().0, 4_000.0);
    }

    #[test]
    fn questions_asked_once_have_their_share() {
        let flags = Flags { one_shot: 25, ..SMALL };
        let trace = ordinary(&flags);
        let once = trace.iter().filter(|&&name| name >= flags.names).count();
        assert_eq!((trace.len(), once), (4_000, 1_000));
    }

    /// The requirement on the cache: at least three points better than LRU if every fourth name is
    /// asked once, and at most three points worse during a flood of twenty times the traffic.
    #[test]
    fn neither_names_asked_once_nor_a_flood_push_out_what_is_asked_often() {
        let flags = Flags {
            names: 20_000,
            questions: 40_000,
            alpha: 0.91,
            one_shot: 25,
            flood: 20,
            ..SMALL
        };
        let trace = ordinary(&flags);
        let half = trace.len() / 2; // the cache is warm
        let rate = |policy: Policy| share(policy(&trace, 1_000).into_iter().skip(half));
        let (ours, lru) = (rate(policies::dnscache), rate(policies::lru));
        assert!(ours >= lru + 3.0, "{ours:.2} % beside {lru:.2} %");

        let flood = half..trace.len();
        let (flooded, is_flood) = flooded(&trace, flood, flags.flood, flags.names + 40_000);
        let hits = policies::dnscache(&flooded, 1_000).into_iter().zip(is_flood);
        let hits: Vec<bool> = hits.filter(|(_, flood)| !flood).map(|(hit, _)| hit).collect();
        let through = share(hits.into_iter().skip(half));
        assert!(through >= ours - 3.0, "{through:.2} % of {ours:.2} %");
    }
}
