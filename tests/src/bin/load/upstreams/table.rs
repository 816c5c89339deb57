//! Figures as a table: a line for each figure, a column for each server, and medians of the rounds.
//!
//! Core.

use std::fmt::Write as _;

/// One measured value.
#[derive(Clone, Debug)]
pub struct Figure {
    label: String,
    value: f64,
    unit: Unit,
}

/// The unit and format of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Percent.
    Percent,
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
    /// A number.
    Count,
    /// A number per item.
    Ratio,
}

impl Figure {
    /// Creates a figure with its name.
    pub fn new(label: String, value: f64, unit: Unit) -> Self {
        Self { label, value, unit }
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Percent => format!("{value:.2} %"),
            Self::Millis => format!("{value:.0} ms"),
            Self::Seconds => format!("{value:.2} s"),
            Self::Count => format!("{value:.0}"),
            Self::Ratio => format!("{value:.2}"),
        }
    }
}

/// A line: its name, its unit, and the rounds of each server.
#[derive(Debug)]
struct Line {
    label: String,
    unit: Unit,
    rounds: Vec<Vec<f64>>,
}

/// All measurements.
#[derive(Debug)]
pub struct Table {
    servers: Vec<String>,
    lines: Vec<Line>,
}

impl Table {
    /// Creates an empty table of `servers`.
    pub fn new(servers: Vec<String>) -> Self {
        Self { servers, lines: Vec::new() }
    }

    /// Adds a figure of `server`, counted from 0.
    pub fn add(&mut self, server: usize, figure: Figure) {
        let Figure { label, value, unit } = figure;
        let known = self.lines.iter().position(|line| line.label == label);
        let at = known.unwrap_or_else(|| {
            let rounds = vec![Vec::new(); self.servers.len()];
            self.lines.push(Line { label, unit, rounds });
            self.lines.len() - 1
        });
        self.lines[at].rounds[server].push(value);
    }

    /// Returns the table as text.
    pub fn text(&self) -> String {
        let rows = self.rows();
        let width = |column: usize| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..=self.servers.len()).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            for (cell, width) in row.iter().zip(&widths) {
                write!(text, "{cell:<width$}  ").expect("a string takes all text");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    /// Returns the table for a README.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (at, row) in self.rows().iter().enumerate() {
            writeln!(text, "| {} |", row.join(" | ")).expect("a string takes all text");
            if at == 0 {
                text += &format!("|{}\n", "---|".repeat(row.len()));
            }
        }
        text
    }

    /// Returns the header, then a row for each line.
    fn rows(&self) -> Vec<Vec<String>> {
        let header = [String::new()].into_iter().chain(self.servers.iter().cloned());
        let row = |line: &Line| {
            let cell = |rounds: &Vec<f64>| median(rounds).map(|value| line.unit.show(value));
            let cells = line.rounds.iter().map(|rounds| cell(rounds).unwrap_or("–".to_owned()));
            [line.label.clone()].into_iter().chain(cells).collect()
        };
        [header.collect()].into_iter().chain(self.lines.iter().map(row)).collect()
    }
}

fn median(rounds: &[f64]) -> Option<f64> {
    let mut values = rounds.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len().checked_sub(1)? / 2;
    Some((values[middle] + values[values.len() / 2]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_order_and_what_was_not_measured_is_a_dash() {
        let mut table = Table::new(vec!["dnscache".to_owned(), "dnsmasq".to_owned()]);
        for value in [99.0, 97.0, 98.0] {
            table.add(0, Figure::new("loss".to_owned(), value, Unit::Percent));
        }
        table.add(1, Figure::new("wait".to_owned(), 12.4, Unit::Millis));
        table.add(1, Figure::new("wait".to_owned(), 12.8, Unit::Millis));
        let expected = "|  | dnscache | dnsmasq |\n|---|---|---|\n\
            | loss | 98.00 % | – |\n| wait | – | 13 ms |\n";
        assert_eq!(table.markdown(), expected);
        assert!(table.text().starts_with("      dnscache  dnsmasq\nloss  98.00 %   –\n"));
    }
}
