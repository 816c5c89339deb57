//! The questions: a named, seeded sequence that is the same on every machine.
//!
//! Core. It must not use sockets or clocks. A workload is a finite list that the generator repeats,
//! except for `flood`, which never asks for the same name twice.

use shared::mnemonics::{type_name, type_number};
use std::fmt::Write as _;
use std::num::NonZeroU32;

/// One question in wire form. It is complete except for its ID.
pub type Message = Box<[u8]>;

/// Questions in the order in which they are asked, contiguous in memory. The generator reads them
/// as a stream. Boxes would cost it a cache miss each.
#[derive(Debug, Default)]
pub struct Questions {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Questions {
    fn get(&self, index: u64) -> &[u8] {
        let index = (index % self.ends.len() as u64) as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }
}

impl FromIterator<Message> for Questions {
    fn from_iter<T: IntoIterator<Item = Message>>(messages: T) -> Self {
        let mut questions = Self::default();
        for message in messages {
            questions.bytes.extend_from_slice(&message);
            questions.ends.push(questions.bytes.len());
        }
        questions
    }
}

/// The kinds of workload, as `--workload` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Every name equally often: `h1.example.test` to `hN.example.test`.
    Uniform,
    /// Names by Zipf's law (`--alpha`): a few often and most seldom, as in real traffic.
    Zipf,
    /// What a pod with ndots:5 sends for each of `--ask`: every search domain, then the name, A and
    /// AAAA.
    SearchPath,
    /// Half `search-path`, half `zipf` of outside names that are replaced over time (`--churn`).
    Mixed,
    /// Names that are never asked again.
    Flood,
    /// The questions in `--file`, one `name type` a line, as dnsperf reads them.
    File,
}

/// The questions, in their order.
#[derive(Debug)]
pub enum Workload {
    /// Repeats these questions.
    Repeat(Questions),
    /// A new name each time, made from this seed.
    Fresh(u64),
}

/// Why a query file was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct FileError {
    /// Line number from 1.
    pub line: usize,
    /// What is wrong, and what is allowed.
    pub reason: &'static str,
}

impl Workload {
    /// Returns `names` names, each once.
    pub fn uniform(names: usize) -> Self {
        Self::Repeat((1..=names).map(|n| question(&format!("h{n}.example.test"), A)).collect())
    }

    /// Returns `count` draws from `names` names, the k-th with a weight of `1 / k^alpha`.
    pub fn zipf(names: usize, alpha: f64, seed: u64, count: usize) -> Self {
        let draws = ranks(names, alpha, seed).take(count);
        Self::Repeat(draws.map(|rank| question(&format!("h{rank}.example.test"), A)).collect())
    }

    /// Returns `count` draws. Half of them are these questions in turn, and half are outside names
    /// by Zipf's law. Within `churn` draws, each outside name in turn is replaced by a new one that
    /// is as popular, as generated names are.
    pub fn mixed(
        &self,
        names: usize,
        alpha: f64,
        seed: u64,
        churn: Option<NonZeroU32>,
        count: usize,
    ) -> Self {
        let mut buffer = [0; 512];
        let mut random = Random::new(mix(seed));
        let mut walked = 0;
        let mut ranks = ranks(names, alpha, seed);
        let draw = |at: usize| {
            if random.fraction() < 0.5 {
                let len = self.write(walked, &mut buffer);
                walked += 1;
                return Some(buffer[..len].into());
            }
            let rank = ranks.next()?;
            let generation = churn.map_or(0, |churn| {
                let life = u64::from(churn.get());
                (at as u64 + mix(rank as u64) % life) / life
            });
            Some(question(&format!("h{rank}-{generation}.example.test"), A))
        };
        Self::Repeat((0..count).filter_map(draw).collect())
    }

    /// Returns the questions of a pod in `namespace` of `domain` that looks up each of `names` with
    /// ndots:5.
    ///
    /// The resolver stops at the first search domain that answers. The load test cannot know which
    /// one that is. If a name has the form `service.namespace`, it stops at the domain of services.
    /// Every other name is tried with the whole list.
    pub fn search_path(names: &[String], namespace: &str, domain: &str) -> Self {
        let search =
            [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
        let mut questions = Vec::new();
        for name in names {
            let in_cluster = name.split('.').count() == 2;
            let walked = search.iter().map(|suffix| format!("{name}.{suffix}"));
            let walked: Vec<String> = match in_cluster {
                true => walked.take(2).collect(),
                false => walked.chain([name.clone()]).collect(),
            };
            for full in walked {
                questions.extend([question(&full, A), question(&full, AAAA)]);
            }
        }
        Self::Repeat(questions.into_iter().collect())
    }

    /// Parses dnsperf's format: one `name type` per line. Skips empty lines and lines that begin
    /// with `;` or `#`.
    ///
    /// Fails at the first line that is not valid.
    pub fn file(text: &str) -> Result<Self, FileError> {
        let mut questions = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let fail = |reason| FileError { line: index + 1, reason };
            let line = line.trim();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(name), Some(rtype), None) = (words.next(), words.next(), words.next()) else {
                return Err(fail("expected a name and a type"));
            };
            let rtype =
                type_number(rtype).ok_or(fail("expected a record type, such as AAAA or TYPE65"))?;
            if !is_name(name) {
                return Err(fail("a label has 1 to 63 bytes, a name at most 253"));
            }
            questions.push(question(name, rtype));
        }
        if questions.is_empty() {
            return Err(FileError { line: 1, reason: "no question in the file" });
        }
        Ok(Self::Repeat(questions.into_iter().collect()))
    }

    /// Returns whether `reply` is a reply that repeats question number `index` byte for byte (RFC
    /// 1035 section 4.1.1).
    pub fn is_answered_by(&self, index: u64, reply: &[u8]) -> bool {
        let repeats = |asked: &[u8]| {
            let end = asked.len() - usize::from(asked[11]) * OPT_LEN;
            reply.len() >= end && reply[2] & 0x80 != 0 && reply[12..end] == asked[12..end]
        };
        if let Self::Repeat(questions) = self {
            return repeats(questions.get(index));
        }
        let mut asked = [0; 512];
        let len = self.write(index, &mut asked);
        repeats(&asked[..len])
    }

    /// Returns after how many questions they repeat, or `None` if they never do.
    pub fn period(&self) -> Option<usize> {
        match self {
            Self::Repeat(questions) => Some(questions.ends.len()),
            Self::Fresh(_) => None,
        }
    }

    /// Copies question number `index` into `buffer`. Returns its length.
    pub fn write(&self, index: u64, buffer: &mut [u8]) -> usize {
        match self {
            Self::Repeat(questions) => {
                let message = questions.get(index);
                buffer[..message.len()].copy_from_slice(message);
                message.len()
            }
            Self::Fresh(seed) => {
                let name = format!("{:016x}.flood.example.test", mix(seed.wrapping_add(index)));
                let message = question(&name, A);
                buffer[..message.len()].copy_from_slice(&message);
                message.len()
            }
        }
    }

    /// Returns the workload as a dnsperf query file. For `flood`, it has the first 100,000 names.
    pub fn export(&self) -> String {
        let mut text = String::new();
        let mut buffer = [0; 512];
        let count = match self {
            Self::Repeat(questions) => questions.ends.len() as u64,
            Self::Fresh(_) => 100_000,
        };
        for index in 0..count {
            let len = self.write(index, &mut buffer);
            let (name, rtype) = (&buffer[12..len - 4], buffer[len - 3]);
            for label in shared::wire::labels(name) {
                text.push_str(&String::from_utf8_lossy(label));
                text.push('.');
            }
            writeln!(text, " {}", type_name(rtype.into())).expect("a string takes all text");
        }
        text
    }
}

/// Returns a question for `name` with RD set and ID 0.
pub fn question(name: &str, rtype: u16) -> Message {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend(rtype.to_be_bytes());
    message.extend([0, 1]);
    message.into()
}

/// Returns whether `name` can be asked: labels of 1 to 63 bytes, at most 253 in all.
pub fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

/// Returns ranks from 1 to `names` without end, the k-th with a weight of `1 / k^alpha`.
pub fn ranks(names: usize, alpha: f64, seed: u64) -> impl Iterator<Item = usize> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=names)
        .map(|k| {
            sum += (k as f64).powf(-alpha);
            sum
        })
        .collect();
    let mut random = Random::new(seed);
    std::iter::repeat_with(move || {
        let at = random.fraction() * sum;
        sums.partition_point(|&upto| upto < at) + 1
    })
}

/// A small seeded generator. The workload must be the same on every machine, but need not be
/// unpredictable.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// Returns a number from 0 up to 1, without 1.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Returns SplitMix64's output for `number`: a bijection that spreads neighbouring numbers.
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// A question's only other record: EDNS without an option.
const OPT_LEN: usize = 11;
const A: u16 = 1;
const AAAA: u16 = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_is_walked_as_a_resolver_does() {
        let names = ["web.shop".to_owned(), "www.example.com".to_owned()];
        let text = Workload::search_path(&names, "default", "cluster.local").export();
        let expected = "web.shop.default.svc.cluster.local. A\n\
            web.shop.default.svc.cluster.local. AAAA\n\
            web.shop.svc.cluster.local. A\nweb.shop.svc.cluster.local. AAAA\n\
            www.example.com.default.svc.cluster.local. A\n\
            www.example.com.default.svc.cluster.local. AAAA\n\
            www.example.com.svc.cluster.local. A\nwww.example.com.svc.cluster.local. AAAA\n\
            www.example.com.cluster.local. A\nwww.example.com.cluster.local. AAAA\n\
            www.example.com. A\nwww.example.com. AAAA\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_export_reads_back() {
        for workload in [
            Workload::uniform(5),
            Workload::zipf(100, 1.0, 7, 50),
            Workload::file("a.example. SRV\n; c\n\nb. https").unwrap(),
        ] {
            let text = workload.export();
            assert_eq!(Workload::file(&text).unwrap().export(), text);
        }
    }

    #[test]
    fn mixed_asks_for_both_and_names_come_and_go() {
        let cluster = Workload::search_path(&["web.shop".to_owned()], "shop", "cluster.local");
        let lines = |churn| {
            let workload = cluster.mixed(10, 1.0, 7, NonZeroU32::new(churn), 2_000);
            workload.export().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let (still, moving) = (lines(0), lines(500));
        assert_eq!(moving, lines(500), "seeded");
        let inside = still.iter().filter(|line| line.contains("cluster.local")).count();
        assert!((900..1_100).contains(&inside), "expected about 1,000, got {inside}");
        let outside = |lines: &[String]| {
            let names = lines.iter().filter(|line| line.contains("example.test"));
            names.cloned().collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(outside(&still), 10);
        assert!(outside(&moving) >= 40, "each of 10 names was replaced four times");
    }

    #[test]
    fn a_bad_file_is_refused_by_line() {
        let rows = [("a. A\nb.", 2), ("a. NOPE", 1), ("a..b A", 1), ("", 1), ("a. A A", 1)];
        for (text, line) in rows {
            assert_eq!(Workload::file(text).map(|_| ()).unwrap_err().line, line, "{text:?}");
        }
    }

    #[test]
    fn zipf_is_seeded_and_skewed() {
        let text = Workload::zipf(1_000, 1.0, 7, 10_000).export();
        assert_eq!(text, Workload::zipf(1_000, 1.0, 7, 10_000).export());
        assert_ne!(text, Workload::zipf(1_000, 1.0, 8, 10_000).export());
        let first = text.lines().filter(|line| *line == "h1.example.test. A").count();
        assert!((1_100..1_600).contains(&first), "expected about 1,336, got {first}");
    }
}
