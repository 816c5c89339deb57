//! The figures of a program: its `/metrics` and its `/readyz?verbose`, as text and as values.
//!
//! Core. Knows both formats; does not know what a figure means.

use std::collections::BTreeMap;

/// The pages of one program.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Every sample of `/metrics`.
    pub figures: Figures,
    /// Every line of `/readyz?verbose`.
    pub checks: Vec<Line>,
    /// `/readyz` has status 200.
    pub is_ready: bool,
    /// `/livez` has status 200.
    pub is_live: bool,
}

impl Pages {
    /// The line of `/readyz?verbose` with this name.
    pub fn check(&self, name: &str) -> Option<&Line> {
        self.checks.iter().find(|line| line.name == name)
    }
}

/// A line of `/readyz?verbose`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `+` passed, `!` warning, `-` failed.
    pub mark: char,
    /// The name of the check.
    pub name: String,
    /// The reason, empty if it has passed.
    pub reason: String,
}

/// Reads the lines of `/readyz?verbose`.
pub fn lines(page: &str) -> Vec<Line> {
    page.lines().filter_map(line).collect()
}

fn line(text: &str) -> Option<Line> {
    let (mark, rest) = text.strip_prefix('[')?.split_once(']')?;
    let (name, finding) = rest.split_once(' ').unwrap_or((rest, ""));
    let reason = finding.split_once(": ").map_or("", |(_, reason)| reason);
    Some(Line { mark: mark.chars().next()?, name: name.to_owned(), reason: reason.to_owned() })
}

/// The samples of a page of metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(Vec<Sample>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Figures {
    /// Reads Prometheus text. Lines that are not samples are passed over.
    pub fn read(page: &str) -> Self {
        Self(page.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The value of the sample `name` whose labels include `labels`.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.find(name, labels).next().map(|sample| sample.value)
    }

    /// The sum of the samples `name` whose labels include `labels`; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).map(|sample| sample.value).fold(0.0, |sum, value| sum + value)
    }

    /// Each value of `label` of the samples `name`, with the sample's value.
    pub fn by<'a>(&'a self, name: &'a str, label: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let pair =
            move |sample: &'a Sample| Some((sample.labels.get(label)?.as_str(), sample.value));
        self.find(name, &[]).filter_map(pair)
    }

    fn find<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        let fits = move |sample: &&Sample| {
            let has = |(key, value): &(&str, &str)| {
                sample.labels.get(*key).is_some_and(|found| found == value)
            };
            sample.name == name && labels.iter().all(has)
        };
        self.0.iter().filter(fits)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = match line.rfind('}') {
        Some(end) => line.split_at(end + 1),
        None => line.split_once(' ')?,
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, read_labels(labels.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    Some(Sample { name: name.trim().to_owned(), labels, value })
}

fn read_labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        let (mut value, mut is_escaped, mut end) = (String::new(), false, None);
        for (at, char) in rest.char_indices() {
            match char {
                _ if is_escaped => {
                    value.push(if char == 'n' { '\n' } else { char });
                    is_escaped = false;
                }
                '\\' => is_escaped = true,
                '"' => {
                    end = Some(at + 1);
                    break;
                }
                char => value.push(char),
            }
        }
        labels.insert(key.trim_start_matches([',', ' ']).to_owned(), value);
        text = &rest[end?..];
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let page = "# HELP a b\na_total{server=\"127.0.0.1:53\",x=\"q\\\"}\"} 4\na_total{x=\"y\"} \
        1\nup 0.5 1700000000\nbroken\nup{x=\"y} 1\n";
        let figures = Figures::read(page);
        let check = |name: &str, labels: &[(&str, &str)], expected: Option<f64>| {
            assert_eq!(figures.value(name, labels), expected, "{name} {labels:?}");
        };
        check("a_total", &[], Some(4.0));
        check("a_total", &[("x", "y")], Some(1.0));
        check("a_total", &[("x", "q\"}")], Some(4.0));
        check("a_total", &[("x", "n")], None);
        check("up", &[], Some(0.5));
        check("down", &[], None);
        assert_eq!(figures.sum("a_total", &[]), 5.0);
        let servers: Vec<_> = figures.by("a_total", "server").collect();
        assert_eq!(servers, [("127.0.0.1:53", 4.0)]);
    }

    #[test]
    fn lines_of_readiness_are_read_with_their_reasons() {
        let page =
            "[+]services ok\n[!]corefile warning: a:9: b\n[-]x failed: not yet\nreadyz check\n";
        let found: Vec<_> = lines(page)
            .into_iter()
            .map(|l| format!("{} {} {}", l.mark, l.name, l.reason))
            .collect();
        assert_eq!(found, ["+ services ", "! corefile a:9: b", "- x not yet"]);
    }
}
