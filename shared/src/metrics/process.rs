//! The process itself: CPU time, memory, descriptors, threads, age, under the names that Prometheus
//! uses for every program.
//!
//! Edge: reads `/proc` at the time of a scrape. Without `/proc`, these metrics are missing.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads this process when scraped.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        if let Some(stat) = Stat::parse(&read("/proc/self/stat")) {
            let help = "User and system CPU time in seconds";
            let cpu = MetricType::Counter;
            let family = encoder.encode_descriptor("process_cpu_seconds", help, None, cpu)?;
            ConstCounter::new(stat.cpu_seconds).encode(family)?;
            gauge(&mut encoder, "process_threads", "Threads of the process", stat.threads)?;
            if let Some(boot) = number_after(&read("/proc/stat"), "btime ") {
                let help = "When the process started, in seconds since 1970";
                let start = boot + stat.start_seconds;
                gauge(&mut encoder, "process_start_time_seconds", help, start)?;
            }
        }
        if let Some(kib) = number_after(&read("/proc/self/status"), "VmRSS:") {
            let help = "Resident memory in bytes";
            gauge(&mut encoder, "process_resident_memory_bytes", help, kib * 1_024.0)?;
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            gauge(&mut encoder, "process_open_fds", "Open descriptors", files.count() as f64)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// The used fields of `/proc/self/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    start_seconds: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in brackets, which can contain any character.
        let (_, rest) = text.rsplit_once(')')?;
        let fields = rest.split_whitespace().map(str::parse::<f64>).collect::<Vec<_>>();
        let field = |number: usize| fields.get(number - 3)?.clone().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            threads: field(20)?,
            start_seconds: field(22)? / TICKS_PER_SECOND,
        })
    }
}

/// Returns the number after `key` at the start of a line.
fn number_after(text: &str, key: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `USER_HZ`: the unit of times in `/proc`, 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_whatever_the_program_is_called() {
        let text = "7 (a) b) S 1 1 1 0 -1 4194560 99 0 0 0 250 150 0 0 20 0 3 0 4200 1 2 3";
        let stat = Stat { cpu_seconds: 4.0, threads: 3.0, start_seconds: 42.0 };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(Stat::parse(""), None);
        assert_eq!(number_after("Name: a\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12.0));
        assert_eq!(number_after("Name: a\n", "VmRSS:"), None);
    }
}
