//! The part of PromQL that the dashboard uses, over scrapes of `/metrics`.
//!
//! Knows selectors, `rate`, `sum`, `max` and `count` by labels, `histogram_quantile` and division.
//! Panics on anything else.

use std::collections::BTreeMap;
use std::time::Duration;

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::{AggregateExpr, Expr, LabelModifier, VectorSelector, parse};

use super::picture::Line;

type Labels = BTreeMap<String, String>;

/// What one scrape of every program gave.
pub struct Scrape {
    seconds: f64,
    series: Vec<(String, Labels, f64)>,
}

impl Scrape {
    /// An empty scrape at `time` after the first.
    pub fn at(time: Duration) -> Self {
        Self { seconds: time.as_secs_f64(), series: Vec::new() }
    }

    /// Adds the series of `page` with the labels that Prometheus adds.
    pub fn read(&mut self, page: &str, added: &[(&str, &str)]) {
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').expect("a brace");
            let pairs = labels.split("\",").filter_map(|label| label.split_once("=\""));
            let own = |(key, value): (&str, &str)| {
                (key.to_owned(), value.trim_end_matches('"').to_owned())
            };
            let added = added.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let labels: Labels = pairs.map(own).chain(added).collect();
            self.series.push((name.to_owned(), labels, value.parse().expect("a number")));
        }
    }
}

/// The lines of an expression: a name after `legend`, and points for scrapes where it has a value.
pub fn lines(expr: &str, legend: &str, scrapes: &[Scrape]) -> Vec<Line> {
    let expr = parse(expr).unwrap();
    let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for index in 1..scrapes.len() {
        for (labels, value) in evaluate(&expr, &scrapes[..=index]) {
            if value.is_finite() {
                let mut name = legend.to_owned();
                for (key, value) in &labels {
                    name = name.replace(&format!("{{{{{key}}}}}"), value);
                }
                lines.entry(name).or_default().push((scrapes[index].seconds, value));
            }
        }
    }
    lines.into_iter().map(|(name, points)| Line { name, points }).collect()
}

/// The values of `expr` at the last of `scrapes`.
fn evaluate(expr: &Expr, scrapes: &[Scrape]) -> Vec<(Labels, f64)> {
    match expr {
        Expr::Paren(paren) => evaluate(&paren.expr, scrapes),
        Expr::NumberLiteral(number) => vec![(Labels::new(), number.val)],
        Expr::VectorSelector(selector) => select(selector, &scrapes[scrapes.len() - 1]),
        Expr::Aggregate(aggregate) => aggregated(aggregate, scrapes),
        Expr::Binary(binary) if binary.op.to_string() == "/" => {
            let right = evaluate(&binary.rhs, scrapes);
            let left = evaluate(&binary.lhs, scrapes).into_iter();
            let divided = left.filter_map(|(labels, value)| {
                let (_, by) = right.iter().find(|(other, _)| *other == labels)?;
                Some((labels, value / by))
            });
            divided.collect()
        }
        Expr::Call(call) => match (call.func.name, &call.args.args[..]) {
            ("rate", [range]) => {
                let Expr::MatrixSelector(range) = &**range else { panic!("{range}: no range") };
                rate(&range.vs, scrapes)
            }
            ("histogram_quantile", [quantile, buckets]) => {
                let Expr::NumberLiteral(quantile) = &**quantile else { panic!("no number") };
                quantiles(quantile.val, evaluate(buckets, scrapes))
            }
            (other, _) => panic!("{other} is not known here"),
        },
        other => panic!("{other} is not known here"),
    }
}

fn select(selector: &VectorSelector, scrape: &Scrape) -> Vec<(Labels, f64)> {
    let name = selector.name.as_ref().expect("a name");
    let series = scrape.series.iter().filter(|(other, ..)| other == name);
    let matching = series.filter(|(_, labels, _)| matches(&selector.matchers, labels));
    matching.map(|(_, labels, value)| (labels.clone(), *value)).collect()
}

fn matches(matchers: &Matchers, labels: &Labels) -> bool {
    matchers.matchers.iter().all(|matcher| {
        let value = labels.get(&matcher.name).map_or("", String::as_str);
        match &matcher.op {
            MatchOp::Equal => value == matcher.value,
            MatchOp::Re(regex) => regex.is_match(value),
            other => panic!("{other:?} is not known here"),
        }
    })
}

/// The growth per second since the scrape before, or a few before: lines are smoother then.
fn rate(selector: &VectorSelector, scrapes: &[Scrape]) -> Vec<(Labels, f64)> {
    let (last, first) = (&scrapes[scrapes.len() - 1], &scrapes[scrapes.len().saturating_sub(5)]);
    let before = select(selector, first);
    let grown = select(selector, last).into_iter().map(|(labels, value)| {
        let was = before.iter().find(|(other, _)| *other == labels).map_or(0.0, |(_, was)| *was);
        let per_second = (value - was) / (last.seconds - first.seconds);
        (labels, per_second)
    });
    grown.collect()
}

fn aggregated(aggregate: &AggregateExpr, scrapes: &[Scrape]) -> Vec<(Labels, f64)> {
    let kept: Vec<String> = match &aggregate.modifier {
        None => Vec::new(),
        Some(LabelModifier::Include(labels)) => labels.labels.clone(),
        Some(LabelModifier::Exclude(_)) => panic!("`without` is not known here"),
    };
    let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for (mut labels, value) in evaluate(&aggregate.expr, scrapes) {
        labels.retain(|key, _| kept.contains(key));
        groups.entry(labels).or_default().push(value);
    }
    let op = aggregate.op.to_string();
    let all = |values: Vec<f64>| match &*op {
        "sum" => values.iter().sum(),
        "count" => values.len() as f64,
        "max" => values.into_iter().fold(f64::NEG_INFINITY, f64::max),
        other => panic!("{other} is not known here"),
    };
    groups.into_iter().map(|(labels, values)| (labels, all(values))).collect()
}

/// As Prometheus does it: linear within a bucket; no value without an observation.
fn quantiles(quantile: f64, buckets: Vec<(Labels, f64)>) -> Vec<(Labels, f64)> {
    let mut groups: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (mut labels, count) in buckets {
        let bound = labels.remove("le").expect("a bucket").parse().expect("a bound");
        groups.entry(labels).or_default().push((bound, count));
    }
    let of = |mut buckets: Vec<(f64, f64)>| {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let rank = quantile * buckets[buckets.len() - 1].1;
        let at = buckets.iter().position(|(_, count)| *count >= rank).unwrap_or(0);
        let (lower, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
        let (upper, within) = buckets[at];
        if upper.is_infinite() {
            return lower;
        }
        lower + (upper - lower) * (rank - below) / (within - below)
    };
    groups.into_iter().map(|(labels, buckets)| (labels, of(buckets))).collect()
}
