//! The status line at the bottom of the terminal: queries, hit rate, the objects of kubedns,
//! health.

use std::io::Write;
use std::net::SocketAddr;

use hickory_proto::rr::{DNSClass, RData, RecordType};
use hyper::StatusCode;
use tokio::time::Instant;

use crate::ask;
use crate::ports::Ports;

/// The line, and its last counters.
#[derive(Debug)]
pub struct Line {
    ports: Ports,
    is_terminal: bool,
    last: Option<(u64, Instant)>,
}

impl Line {
    /// Creates a line for the pod at `ports`. It prints only if standard output is a terminal.
    pub fn new(ports: &Ports, is_terminal: bool) -> Self {
        Self { ports: *ports, is_terminal, last: None }
    }

    /// Asks the pod and rewrites the line.
    pub async fn refresh(&mut self) {
        if !self.is_terminal {
            return;
        }
        let (hits, misses, [services, endpoints], health) = tokio::join!(
            counter(self.ports.dns, "hits.bind"),
            counter(self.ports.dns, "misses.bind"),
            objects(self.ports.kubedns_http),
            ask::http(self.ports.healthz, "/healthz"),
        );
        let now = Instant::now();
        let queries = hits.zip(misses).map(|(hits, misses)| hits + misses);
        let rate = queries.zip(self.last).map(|(queries, (before, then))| {
            queries.saturating_sub(before) as f64 / now.duration_since(then).as_secs_f64()
        });
        self.last = queries.map(|queries| (queries, now));
        let hit_rate = hits.zip(queries).filter(|&(_, queries)| queries > 0);
        print!(
            "\r\x1b[K{}  {} per second  hit rate {}  {}  {}  {}",
            counted(queries, ["query", "queries"]),
            shown(rate.map(|rate| rate.round() as u64)),
            hit_rate.map_or("-".to_owned(), |(hits, queries)| {
                format!("{:.1} %", 100.0 * hits as f64 / queries as f64)
            }),
            counted(services, ["service", "services"]),
            counted(endpoints, ["endpoint", "endpoints"]),
            match health {
                Ok((StatusCode::OK, _)) => "healthy",
                Ok(_) => "NOT HEALTHY",
                Err(_) => "healthz does not answer",
            },
        );
        flush();
    }

    /// Clears the line, so that a message can be printed.
    pub fn clear(&self) {
        if self.is_terminal {
            print!("\r\x1b[K");
            flush();
        }
    }
}

fn flush() {
    // If the terminal is closed, the process gets SIGHUP or SIGTERM, so the error can be ignored.
    let _ = std::io::stdout().flush();
}

fn shown(count: Option<u64>) -> String {
    count.map_or("-".to_owned(), |count| count.to_string())
}

/// Returns a count with its noun: `1 service`, `2 services`, `- services`.
fn counted(count: Option<u64>, [one, several]: [&str; 2]) -> String {
    format!("{} {}", shown(count), if count == Some(1) { one } else { several })
}

/// Returns one of dnscache's counters, which it serves as dnsmasq does.
async fn counter(server: SocketAddr, name: &str) -> Option<u64> {
    let answer = ask::dns(server, name, DNSClass::CH, RecordType::TXT).await.ok()?;
    match answer.first()? {
        RData::TXT(text) => text.to_string().trim_matches('"').parse().ok(),
        _ => None,
    }
}

/// Returns how many services and endpoints kubedns has records for.
async fn objects(server: SocketAddr) -> [Option<u64>; 2] {
    let (_, metrics) = ask::http(server, "/metrics").await.unwrap_or_default();
    ["services", "endpoints"].map(|kind| {
        let start = format!("kubedns_objects{{kind=\"{kind}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&start)?.trim().parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_singular() {
        let words = ["service", "services"];
        let shown = [Some(0), Some(1), Some(2), None].map(|count| counted(count, words));
        assert_eq!(shown, ["0 services", "1 service", "2 services", "- services"]);
    }
}
