//! The report of a scale run: tables as text, and the same figures as JSON.
//!
//! Core.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Cost, Flags, Lists, Measured, Size, Start};

/// Returns the figures as text.
pub fn text(flags: &Flags, measured: &Measured) -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{}", line.trim_end()).expect("a string grows");
    line(conditions(flags, measured));
    line(format!(
        "\n{:>9}{:>11}{:>22}{:>22}{:>12}{:>12}{:>24}",
        "services",
        "endpoints",
        "start s",
        "its CPU s",
        "steady MB",
        "peak MB",
        "relist MB (x steady)"
    ));
    for size in &measured.sizes {
        let relist = match (size.relist_peak, size.relist_growth()) {
            (Some(peak), Some(growth)) => format!("{:.1} ({growth:.2})", megabytes(peak)),
            _ => "–".to_owned(),
        };
        line(format!(
            "{:>9}{:>11}{}{relist:>24}",
            size.cluster.services,
            size.cluster.all_endpoints(),
            Starts::of(&size.starts).text(),
        ));
        if !size.coredns.is_empty() {
            let ratio = size.over_coredns();
            let coredns = Starts::of(&size.coredns).text();
            line(format!("{:>20}{coredns}  kubedns starts in {ratio:.2} x", "CoreDNS"));
        }
    }
    if !measured.costs.is_empty() {
        line(
            "\nCPU seconds of the server per million answers over UDP: median (min to max)".into(),
        );
        let heads = measured.sizes.iter().map(|size| format!("{} services", size.cluster.services));
        let heads: String = heads.map(|head| format!("{head:>22}")).collect();
        line(format!("{:<28}{:>22}{heads}{:>9}{:>9}", "query", "floor", "x floor", "growth"));
    }
    for cost in &measured.costs {
        let columns =
            cost.cpu().iter().map(|cpu| format!("{:>22}", cpu.text())).collect::<String>();
        line(format!(
            "{:<28}{columns}{:>9.2}{:>+8.0}%",
            cost.label,
            cost.over_floor(),
            100.0 * (cost.growth() - 1.0)
        ));
    }
    if let Some(changes) = &measured.propagation {
        let at = |quantile| changes.latency.value_at_quantile(quantile) as f64 / 1e3;
        line(format!(
            "\nFrom API to right answer, ms: p50 {:.2}, p99 {:.2}, max {:.2}; {} changes in \
             {:.1} s ({:.0} per second), {} lost; CPU {:.0} us per change, questions included",
            at(0.5),
            at(0.99),
            changes.latency.max() as f64 / 1e3,
            changes.written,
            changes.took.as_secs_f64(),
            changes.written as f64 / changes.took.as_secs_f64(),
            changes.lost,
            changes.cpu.as_micros() as f64 / changes.written.max(1) as f64,
        ));
    }
    text
}

/// Returns the figures as JSON.
pub fn json(flags: &Flags, measured: &Measured) -> Value {
    let sizes = measured.sizes.iter().map(|size| {
        let mut figures = Starts::of(&size.starts).json();
        figures["services"] = json!(size.cluster.services);
        figures["endpoints"] = json!(size.cluster.all_endpoints());
        figures["relist_peak_megabytes"] = json!(size.relist_peak.map(megabytes));
        figures["relist_growth"] = json!(size.relist_growth());
        if !size.coredns.is_empty() {
            figures["coredns"] = Starts::of(&size.coredns).json();
            figures["over_coredns"] = json!(size.over_coredns());
        }
        figures
    });
    let costs = measured.costs.iter().map(|cost| {
        let cpu = cost.cpu();
        let rates =
            cost.stints.iter().map(|stints| Spread::of(stints.iter().map(|stint| stint.rate)));
        json!({
            "query": cost.label,
            "floor_cpu_seconds": cpu[0].json(),
            "cpu_seconds": cpu[1..].iter().map(Spread::json).collect::<Vec<_>>(),
            "answers_per_second": rates.map(|rate| rate.json()).collect::<Vec<_>>(),
            "lost": cost.stints.iter().flatten().map(|stint| stint.lost).sum::<u64>(),
            "over_floor": cost.over_floor(),
            "growth": cost.growth(),
        })
    });
    let changes = measured.propagation.as_ref().map(|changes| {
        let at = |quantile| changes.latency.value_at_quantile(quantile);
        json!({
            "written": changes.written, "seconds": changes.took.as_secs_f64(),
            "lost": changes.lost, "cpu_seconds": changes.cpu.as_secs_f64(),
            "latency_us": {"p50": at(0.5), "p99": at(0.99), "max": changes.latency.max()},
        })
    });
    json!({
        "conditions": conditions(flags, measured),
        "sizes": sizes.collect::<Vec<_>>(),
        "answers": costs.collect::<Vec<_>>(),
        "propagation": changes,
    })
}

fn conditions(flags: &Flags, measured: &Measured) -> String {
    let cores = match &measured.core {
        Ok(core) => format!("servers on core {core}, API server and load on the others"),
        Err(reason) => format!("no core of their own for the servers ({reason})"),
    };
    let lists = match (&flags.assets, flags.lists) {
        (Some(_), _) => "a real API server",
        (None, Lists::Streamed) => "lists streamed",
        (None, Lists::Paged) => "lists in pages",
    };
    format!(
        "{cores}; {lists}; {} starts, {} rounds of {} s; MB are 10^6 bytes",
        flags.rounds, flags.rounds, flags.seconds
    )
}

/// Several starts of one program.
struct Starts {
    ready: Spread,
    cpu: Spread,
    steady: Spread,
    peak: Spread,
}

impl Starts {
    fn of(starts: &[Start]) -> Self {
        let spread = |value: fn(&Start) -> f64| Spread::of(starts.iter().map(value));
        Self {
            ready: spread(|start| start.ready.as_secs_f64()),
            cpu: spread(|start| start.cpu.as_secs_f64()),
            steady: spread(|start| megabytes(start.steady)),
            peak: spread(|start| megabytes(start.peak)),
        }
    }

    fn text(&self) -> String {
        let Self { ready, cpu, steady, peak } = self;
        let (ready, cpu) = (ready.text(), cpu.text());
        format!("{ready:>22}{cpu:>22}{:>12.1}{:>12.1}", steady.median, peak.median)
    }

    fn json(&self) -> Value {
        json!({
            "start_seconds": self.ready.json(),
            "start_cpu_seconds": self.cpu.json(),
            "steady_megabytes": self.steady.json(),
            "peak_megabytes": self.peak.json(),
        })
    }
}

impl Size {
    /// Returns the start time of kubedns divided by that of CoreDNS: the median of all rounds.
    fn over_coredns(&self) -> f64 {
        let rounds = self.starts.iter().zip(&self.coredns);
        Spread::of(rounds.map(|(own, other)| own.ready.div_duration_f64(other.ready))).median
    }

    /// Returns the peak of a relist divided by the memory of the same process, the last one that
    /// was started, before it.
    fn relist_growth(&self) -> Option<f64> {
        let steady = self.starts.last().map_or(0.0, |start| megabytes(start.steady));
        self.relist_peak.map(|peak| megabytes(peak) / steady)
    }
}

impl Cost {
    /// Returns the CPU seconds per million answers of each server.
    fn cpu(&self) -> Vec<Spread> {
        let of =
            |stints: &Vec<_>| Spread::of(stints.iter().map(|stint: &super::Stint| stint.cpu_secs));
        self.stints.iter().map(of).collect()
    }

    /// Returns the cost of the largest cluster divided by that of the floor: the median of all
    /// rounds.
    fn over_floor(&self) -> f64 {
        self.ratio(0)
    }

    /// Returns the cost of the largest cluster divided by that of the smallest: the median of all
    /// rounds.
    fn growth(&self) -> f64 {
        self.ratio(1)
    }

    /// Returns the cost of the last server divided by that of server `base`. Each round is compared
    /// on its own, because other work of the machine slows both servers.
    fn ratio(&self, base: usize) -> f64 {
        let (Some(last), Some(base)) = (self.stints.last(), self.stints.get(base)) else {
            return f64::NAN;
        };
        Spread::of(last.iter().zip(base).map(|(last, base)| last.cpu_secs / base.cpu_secs)).median
    }
}

/// Several measurements of one thing.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    /// Returns the spread of `values`, or NaN if there are no values.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        let median = (at(last / 2) + at(last.div_ceil(2))) / 2.0;
        Self { min: at(0), median, max: at(last) }
    }

    fn text(&self) -> String {
        format!("{:.2} ({:.2} to {:.2})", self.median, self.min, self.max)
    }

    fn json(&self) -> Value {
        json!({"median": self.median, "min": self.min, "max": self.max})
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::Stint;

    #[test]
    fn the_median_lies_between() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(spread(&[4.0, 2.0]), Spread { min: 2.0, median: 3.0, max: 4.0 });
        assert!(spread(&[]).median.is_nan());
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let stints =
            |cpu: [f64; 3]| cpu.map(|cpu_secs| Stint { cpu_secs, rate: 1.0, lost: 0 }).to_vec();
        let stints =
            vec![stints([1.0, 2.0, 4.0]), stints([2.0, 4.0, 4.0]), stints([2.0, 6.0, 8.0])];
        let cost = Cost { label: "A", stints };
        assert_eq!((cost.over_floor(), cost.growth()), (2.0, 1.5));
    }
}
