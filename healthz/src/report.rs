//! The status as text and as JSON.
//!
//! Core: status and time in, text out. `http` has paths and headers, and `page` has HTML.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use shared::clock::Moment;
use shared::ready::Check;

use crate::config::{Probe, Transport};
use crate::status::{FAILURES_MAX, Record, State, overall};

/// Returns one line for all probes, then one per probe.
///
/// ```text
/// unhealthy: kubedns
/// [-]kubedns unhealthy for 14 s: cannot receive: connection refused (9 in a row), last answer ...
/// [+]dnscache healthy for 2 h 3 min: 0.41 ms, 127.0.0.1:53 kubernetes.default... A
/// ```
pub fn text(records: &[Record], now: Moment) -> String {
    let mut text = headline(records, now) + "\n";
    for record in records {
        let mark = if record.health(now).state == State::Healthy { '+' } else { '-' };
        let label = &record.probe.label;
        writeln!(text, "[{mark}]{label} {}", sentence(record, now)).expect("a String takes all");
    }
    text
}

/// Returns `ok`, or the probes that are not healthy.
pub fn headline(records: &[Record], now: Moment) -> String {
    let state = overall(records, now);
    if state == State::Healthy {
        return "ok".to_owned();
    }
    let those = records.iter().filter(|record| record.health(now).state == state);
    let labels = those.map(|record| record.probe.label.as_str()).collect::<Vec<_>>();
    format!("{}: {}", state.name(), labels.join(", "))
}

/// Returns the state of one probe in a sentence: since when, why, how fast.
pub fn sentence(record: &Record, now: Moment) -> String {
    let health = record.health(now);
    let asked = question(&record.probe);
    let lasts = duration(now.since(health.since));
    let row = record.failures;
    match (health.state, &health.reason, record.last_error(now)) {
        (State::Waiting, _, None) => format!("waiting for its first probe: {asked}"),
        (State::Waiting, _, Some((failure, _))) => {
            format!("waiting for its first answer for {lasts}: {failure} ({row} in a row): {asked}")
        }
        (State::Unhealthy, reason, _) => {
            let reason = reason.as_deref().unwrap_or("unknown");
            let answered = record.answered.map_or("it has never answered".to_owned(), |at| {
                format!("last answer {} ago", duration(now.since(at)))
            });
            format!("unhealthy for {lasts}: {reason} ({row} in a row), {answered}: {asked}")
        }
        (State::Healthy, _, Some((failure, _))) if row > 0 => {
            format!("healthy for {lasts}, but {row} of {FAILURES_MAX} failed: {failure}: {asked}")
        }
        (State::Healthy, ..) => {
            let latency = record.last.as_ref().map_or_else(String::new, |(outcome, _)| {
                format!("{}, ", milliseconds(outcome.latency))
            });
            format!("healthy for {lasts}: {latency}{asked}")
        }
    }
}

/// Returns the server and question of a probe: `127.0.0.1:53 kubernetes.default... A`.
pub fn question(probe: &Probe) -> String {
    let tcp = if probe.transport == Transport::Tcp { "tcp:" } else { "" };
    format!("{tcp}{} {} {}", probe.server, probe.question(), probe.rtype)
}

/// The whole status, to be written as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    healthy: bool,
    state: &'static str,
    reason: Option<String>,
    probes: Vec<ProbeReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProbeReport {
    label: String,
    healthy: bool,
    state: &'static str,
    since_seconds: f64,
    reason: Option<String>,
    server: String,
    transport: &'static str,
    name: String,
    r#type: String,
    interval_seconds: u64,
    latency_seconds: Option<f64>,
    failures_in_a_row: u32,
    stuck: bool,
    last_answer_seconds_ago: Option<f64>,
    last_error: Option<String>,
    last_error_seconds_ago: Option<f64>,
}

/// Returns the report on `records`. Latency is that of the last probe. Ages are in seconds, to the
/// millisecond.
pub fn report(records: &[Record], now: Moment) -> Report {
    let state = overall(records, now);
    Report {
        healthy: state == State::Healthy,
        state: state.name(),
        reason: (state != State::Healthy).then(|| headline(records, now)),
        probes: records.iter().map(|record| probe_report(record, now)).collect(),
    }
}

fn probe_report(record: &Record, now: Moment) -> ProbeReport {
    let probe = &record.probe;
    let health = record.health(now);
    let age = |at: Moment| rounded(now.since(at), 1e3);
    let error = record.last_error(now);
    ProbeReport {
        label: probe.label.clone(),
        healthy: health.state == State::Healthy,
        state: health.state.name(),
        since_seconds: age(health.since),
        reason: health.reason,
        server: probe.server.to_string(),
        transport: if probe.transport == Transport::Tcp { "tcp" } else { "udp" },
        name: probe.question(),
        r#type: probe.rtype.to_string(),
        interval_seconds: probe.interval.as_secs(),
        latency_seconds: record.last.as_ref().map(|(outcome, _)| rounded(outcome.latency, 1e6)),
        failures_in_a_row: record.failures,
        stuck: record.is_stuck(now),
        last_answer_seconds_ago: record.answered.map(age),
        last_error: error.map(|(failure, _)| failure.to_string()),
        last_error_seconds_ago: error.map(|(_, at)| age(at)),
    }
}

/// Returns `span` in seconds, rounded to one part in `parts`, so that it has no digits of a binary
/// fraction.
fn rounded(span: Duration, parts: f64) -> f64 {
    (span.as_secs_f64() * parts).round() / parts
}

/// One probe in the format of kube-dns's sidecar.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SidecarReport {
    is_ok: bool,
    latency_seconds: f64,
    err: String,
}

/// Returns the answer of sidecar's `/healthcheck/LABEL` for `record`.
pub fn sidecar_report(record: &Record, now: Moment) -> SidecarReport {
    let health = record.health(now);
    let latency = record.last.as_ref().map_or(Duration::ZERO, |(outcome, _)| outcome.latency);
    SidecarReport {
        is_ok: health.state == State::Healthy,
        latency_seconds: rounded(latency, 1e6),
        err: health.reason.unwrap_or_default(),
    }
}

/// Returns the lines of `/readyz`: each probe must have ended once, with any outcome.
pub fn ready_checks(records: &[Record]) -> Vec<Check> {
    let check = |record: &Record| match record.last {
        Some(_) => Check::passed(record.probe.label.clone()),
        None => Check::failed(record.probe.label.clone(), "waiting for the first probe"),
    };
    records.iter().map(check).collect()
}

/// Returns the lines of `/livez`: each prober must be running.
pub fn live_checks(records: &[Record], now: Moment) -> Vec<Check> {
    let check = |record: &Record| match record.is_overdue(now) {
        false => Check::passed(record.probe.label.clone()),
        true => Check::failed(record.probe.label.clone(), "the prober hangs"),
    };
    records.iter().map(check).collect()
}

/// Returns a time span in its two largest units.
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

/// Returns a latency in milliseconds.
pub fn milliseconds(latency: Duration) -> String {
    format!("{:.2} ms", latency.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::status::{Failure, Outcome, Status};

    const OK: Outcome =
        Outcome { latency: Duration::from_micros(410), result: Ok(()), replied: true };

    fn failed() -> Outcome {
        let error = Some("not loaded".to_owned());
        let result = Err(Failure::Rcode { code: 2, error });
        Outcome { latency: Duration::from_millis(1), result, replied: true }
    }

    fn at(seconds: u64) -> Moment {
        Moment::default() + Duration::from_secs(seconds)
    }

    fn status() -> Status {
        let probes = ["kubedns,127.0.0.1:10053,x.y", "cache,tcp:127.0.0.1,*.x,60,SRV"];
        Status::new(probes.map(|text| text.parse().unwrap()), Duration::from_secs(3), at(0))
    }

    #[test]
    fn the_text_says_which_since_when_why_and_how_fast() {
        let mut status = status();
        let waiting = "waiting: kubedns, cache\n\
            [-]kubedns waiting for its first probe: 127.0.0.1:10053 x.y A\n\
            [-]cache waiting for its first probe: tcp:127.0.0.1:53 *.x SRV\n";
        assert_eq!(text(status.probes(), at(1)), waiting);
        status.record(0, OK, at(1));
        status.record(1, failed(), at(2));
        let starting = "waiting: cache\n\
            [+]kubedns healthy for 1 s: 0.41 ms, 127.0.0.1:10053 x.y A\n\
            [-]cache waiting for its first answer for 2 s: SERVFAIL: not loaded (1 in a row): \
            tcp:127.0.0.1:53 *.x SRV\n";
        assert_eq!(text(status.probes(), at(2)), starting);
        status.record(1, failed(), at(3));
        status.record(1, failed(), at(4));
        let unhealthy = "unhealthy: cache\n\
            [+]kubedns healthy for 14 s: 0.41 ms, 127.0.0.1:10053 x.y A\n\
            [-]cache unhealthy for 13 s: SERVFAIL: not loaded (3 in a row), \
            it has never answered: tcp:127.0.0.1:53 *.x SRV\n";
        assert_eq!(text(status.probes(), at(15)), unhealthy);
        status.record(0, failed(), at(16));
        status.record(1, OK, at(16));
        let healthy = "ok\n\
            [+]kubedns healthy for 15 s, but 1 of 3 failed: SERVFAIL: not loaded: \
            127.0.0.1:10053 x.y A\n\
            [+]cache healthy for 0 s: 0.41 ms, tcp:127.0.0.1:53 *.x SRV\n";
        assert_eq!(text(status.probes(), at(16)), healthy);
        for second in 17..19 {
            status.record(0, failed(), at(second));
        }
        let line = "unhealthy for 3 s: SERVFAIL: not loaded (3 in a row), last answer 18 s ago: \
            127.0.0.1:10053 x.y A";
        assert_eq!(sentence(&status.probes()[0], at(19)), line);
    }

    #[test]
    fn json_is_for_programs_and_for_users_of_sidecar() {
        let mut status = status();
        let sidecar = |status: &Status, second| {
            serde_json::to_value(sidecar_report(&status.probes()[0], at(second))).unwrap()
        };
        let waiting = "waiting for the first probe";
        let expected = json!({"IsOk": false, "LatencySeconds": 0.0, "Err": waiting});
        assert_eq!(sidecar(&status, 0), expected);
        status.record(0, OK, at(1));
        let expected = json!({"IsOk": true, "LatencySeconds": 0.00041, "Err": ""});
        assert_eq!(sidecar(&status, 2), expected);
        status.record(0, failed(), at(2));
        let all = serde_json::to_value(report(status.probes(), at(4))).unwrap();
        assert_eq!(all["healthy"], false);
        assert_eq!(all["state"], "waiting");
        assert_eq!(all["reason"], "waiting: cache");
        let expected = json!({
            "label": "kubedns", "healthy": true, "state": "healthy", "sinceSeconds": 3.0,
            "reason": null, "server": "127.0.0.1:10053", "transport": "udp", "name": "x.y",
            "type": "A", "intervalSeconds": 5, "latencySeconds": 0.001, "failuresInARow": 1,
            "stuck": false, "lastAnswerSecondsAgo": 3.0, "lastError": "SERVFAIL: not loaded",
            "lastErrorSecondsAgo": 2.0
        });
        assert_eq!(all["probes"][0], expected);
        assert_eq!(all["probes"][1]["latencySeconds"], json!(null));
        let odd = Duration::from_nanos(2_620_572_586);
        let all = serde_json::to_value(report(status.probes(), Moment::default() + odd)).unwrap();
        assert_eq!(all["probes"][1]["sinceSeconds"].to_string(), "2.621");
        let slow = Outcome { latency: Duration::from_nanos(1_234_567), ..OK };
        status.record(0, slow, at(9));
        let all = serde_json::to_value(report(status.probes(), at(9))).unwrap();
        assert_eq!(all["probes"][0]["latencySeconds"].to_string(), "0.001235");
    }

    #[test]
    fn ready_after_a_first_outcome_and_alive_while_outcomes_come() {
        let mut status = status();
        let failed_checks = |checks: Vec<Check>| checks.iter().filter(|c| c.has_failed()).count();
        assert_eq!(failed_checks(ready_checks(status.probes())), 2);
        status.record(0, failed(), at(0));
        assert_eq!(failed_checks(ready_checks(status.probes())), 1);
        for (second, hanging) in [(0, 0), (30, 0), (31, 1), (195, 1), (196, 2)] {
            assert_eq!(failed_checks(live_checks(status.probes(), at(second))), hanging);
        }
    }

    #[test]
    fn spans_have_two_units() {
        let rows = [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7_380, "2 h 3 min")];
        for (seconds, text) in rows.into_iter().chain([(439_200, "5 d 2 h")]) {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
