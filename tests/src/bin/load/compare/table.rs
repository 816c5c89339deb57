//! Measurements as a table: medians, their range, and ratios to the floor.
//!
//! Core, except for the description of the machine.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use super::servers::{Kind, Server};
use super::{Measured, Work};

/// Every measurement, by work and server.
#[derive(Debug)]
pub struct Table {
    servers: Vec<(Kind, String)>,
    rate: u32,
    pinned: bool,
    cells: Vec<Cell>,
}

/// The rounds of one server at one work.
#[derive(Debug)]
struct Cell {
    work: Work,
    server: usize,
    rounds: Vec<Measured>,
    /// Why the rounds failed; `None` if they did not.
    failure: Option<String>,
}

/// A line of the table: its name, the figure, its decimals, and whether the ratio to the floor is
/// shown.
type Line = (&'static str, fn(&Measured) -> Option<f64>, usize, bool);

const LINES: [Line; 6] = [
    (COSTS, |of| Some(of.cpu_seconds_per_million), 2, true),
    ("answers/s", |of| Some(of.answers_per_second), 0, false),
    ("p50 us at the fixed rate", |of| of.p50_us.map(|us| us as f64), 0, false),
    ("p99 us at the fixed rate", |of| of.p99_us.map(|us| us as f64), 0, false),
    ("lost %", |of| Some(of.lost_percent).filter(|percent| *percent >= 0.005), 2, false),
    ("memory MiB", |of| Some(of.rss_mib), 1, false),
];

const COSTS: &str = "CPU s per million";

impl Table {
    /// Creates a table of `servers` without measurements.
    pub fn new(servers: &[Server], rate: u32, pinned: bool) -> Self {
        let servers = servers.iter().map(|server| (server.kind, server.version.clone())).collect();
        Self { servers, rate, pinned, cells: Vec::new() }
    }

    /// Adds a round.
    pub fn add(&mut self, work: Work, server: usize, measured: Measured) {
        self.cell(work, server).rounds.push(measured);
    }

    /// Sets the reason why a round failed.
    pub fn fail(&mut self, work: Work, server: usize, reason: String) {
        self.cell(work, server).failure = Some(reason);
    }

    fn cell(&mut self, work: Work, server: usize) -> &mut Cell {
        let known = self.cells.iter().position(|cell| (cell.work, cell.server) == (work, server));
        let at = known.unwrap_or_else(|| {
            self.cells.push(Cell { work, server, rounds: Vec::new(), failure: None });
            self.cells.len() - 1
        });
        &mut self.cells[at]
    }

    /// Returns the table as text.
    pub fn text(&self) -> String {
        let rows = self.rows(|[low, middle, high], decimals, ratio| {
            let ratio = ratio.map_or_else(String::new, |ratio| format!(" {ratio:.2}x"));
            format!("{middle:.decimals$}{ratio} [{low:.decimals$} {high:.decimals$}]")
        });
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &rows {
            for (cell, width) in row.iter().zip(&widths) {
                write!(text, "{cell:<width$}  ").expect("a string takes all text");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text + "\nmedian, ratio to the floor, [lowest highest]\n" + &self.notes()
    }

    /// Returns the table for a README: costs, latency, and memory if the cache is full.
    pub fn markdown(&self) -> String {
        let full = format!("{}: memory MiB", Work::Zipf.name());
        let mut rows = self.rows(|[_, middle, _], decimals, ratio| {
            let ratio = ratio.map_or_else(String::new, |ratio| format!(" ({ratio:.2} ×)"));
            format!("{middle:.decimals$}{ratio}")
        });
        rows.retain(|row| {
            let label = &row[0];
            let costs = label.is_empty() || label.ends_with(COSTS);
            costs || label.ends_with("at the fixed rate") || *label == full
        });
        let mut text = String::new();
        for (index, row) in rows.iter().enumerate() {
            writeln!(text, "| {} |", row.join(" | ")).expect("a string takes all text");
            if index == 0 {
                text += &format!("|{}\n", "---|".repeat(row.len()));
            }
        }
        text + "\n" + &self.notes()
    }

    /// Returns every round as JSON.
    pub fn json(&self) -> Value {
        let cell = |cell: &Cell| {
            let (kind, version) = &self.servers[cell.server];
            json!({
                "work": cell.work.name(), "server": kind.name(), "version": version,
                "rounds": cell.rounds, "failure": cell.failure,
            })
        };
        let measured: Vec<Value> = self.cells.iter().map(cell).collect();
        json!({
            "machine": machine(), "own_core": self.pinned, "fixed_rate": self.rate,
            "measured": measured,
        })
    }

    /// Returns the header, then a row for each work and line that at least one server has. `show`
    /// formats lowest, median and highest with the decimals, and the ratio to the floor.
    fn rows(&self, show: impl Fn([f64; 3], usize, Option<f64>) -> String) -> Vec<Vec<String>> {
        let title = |(kind, version): &(Kind, String)| format!("{} {version}", kind.name());
        let titles = self.servers.iter().map(|server| title(server).trim_end().to_owned());
        let mut rows = vec![[String::new()].into_iter().chain(titles).collect()];
        let mut works: Vec<Work> = self.cells.iter().map(|cell| cell.work).collect();
        works.dedup();
        for work in works {
            for (name, figure, decimals, has_ratio) in LINES {
                let cells: Vec<Option<[f64; 3]>> =
                    (0..self.servers.len()).map(|at| self.spread(work, at, figure)).collect();
                if cells.iter().all(Option::is_none) {
                    continue;
                }
                let floor = cells[0].filter(|_| has_ratio).map(|[_, middle, _]| middle);
                let cell = |(at, spread): (usize, &Option<[f64; 3]>)| match spread {
                    None => "–".to_owned(),
                    Some(spread) => {
                        let ratio = floor.filter(|_| at > 0).map(|floor| spread[1] / floor);
                        show(*spread, decimals, ratio)
                    }
                };
                let label = format!("{}: {name}", work.name());
                let cells = cells.iter().enumerate().map(cell);
                rows.push([label].into_iter().chain(cells).collect());
            }
        }
        rows
    }

    /// Returns the lowest, median and highest value of a figure.
    fn spread(
        &self,
        work: Work,
        server: usize,
        figure: fn(&Measured) -> Option<f64>,
    ) -> Option<[f64; 3]> {
        let cell = self.cells.iter().find(|cell| (cell.work, cell.server) == (work, server))?;
        let mut values: Vec<f64> = cell.rounds.iter().filter_map(figure).collect();
        values.sort_by(f64::total_cmp);
        let middle =
            (values.get(values.len().checked_sub(1)? / 2)? + values[values.len() / 2]) / 2.0;
        Some([values[0], middle, values[values.len() - 1]])
    }

    /// Returns notes: the machine, how it was shared, and what was not measured.
    fn notes(&self) -> String {
        let place = if self.pinned {
            "server alone on one core, load and upstream on another"
        } else {
            "servers and load shared the machine's cores"
        };
        let mut notes = format!("{}; {place}; fixed rate {} questions/s.\n", machine(), self.rate);
        for cell in &self.cells {
            if let Some(reason) = &cell.failure {
                let server = self.servers[cell.server].0.name();
                writeln!(notes, "Not measured: {server}, {}: {reason}.", cell.work.name())
                    .expect("a string takes all text");
            }
        }
        notes
    }
}

/// Returns the processor, the kernel and the day.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let day = jiff::Timestamp::now().strftime("%Y-%m-%d");
    format!("{day}, {model}, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(cpu_seconds_per_million: f64, p99_us: Option<u64>) -> Measured {
        Measured {
            cpu_seconds_per_million,
            answers_per_second: 1e6 / cpu_seconds_per_million,
            lost_percent: 0.0,
            p50_us: p99_us,
            p99_us,
            rss_mib: 6.0,
        }
    }

    #[test]
    fn medians_and_ratios_are_shown_and_what_failed_is_said() {
        let servers = vec![(Kind::Floor, String::new()), (Kind::Dnsmasq, "2.90".to_owned())];
        let mut table = Table { servers, rate: 20_000, pinned: true, cells: Vec::new() };
        for cpu in [2.0, 9.0, 4.0] {
            table.add(Work::Hit, 0, measured(cpu, Some(70)));
            table.add(Work::Hit, 1, measured(2.5 * cpu, None));
        }
        table.add(Work::Tcp, 1, measured(8.0, None));
        table.fail(Work::Tcp, 0, "it has no TCP".to_owned());
        let markdown = table.markdown();
        let expected = [
            "|  | floor | dnsmasq 2.90 |\n|---|---|---|\n",
            "| hit: CPU s per million | 4.00 | 10.00 (2.50 ×) |\n",
            "| hit: p50 us at the fixed rate | 70 | – |\n",
            "| hit: p99 us at the fixed rate | 70 | – |\n",
            "| hit over TCP: CPU s per million | – | 8.00 |\n",
            "Not measured: floor, hit over TCP: it has no TCP.\n",
        ];
        for part in expected {
            assert!(markdown.contains(part), "{part} in\n{markdown}");
        }
        assert!(table.text().contains("10.00 2.50x [5.00 22.50]"), "{}", table.text());
        assert_eq!(table.json()["measured"][0]["rounds"].as_array().unwrap().len(), 3);
    }
}
