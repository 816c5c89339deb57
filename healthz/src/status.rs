//! Computes health from the outcomes of probes: healthy or not, since when, and why.
//!
//! Core. Time is an argument. This module does not send probes or write pages.
//!
//! ```text
//!             answer                       3 failures in a row
//! waiting ──────────────▶ healthy ───────────────────────────────▶ unhealthy
//!    └── 3 failures, and the start is over ─▶      ◀── answer ─────────┘
//! any ── no outcome for long (the prober hangs) ─▶ unhealthy
//! ```
//!
//! In addition to its health, a program may be *stuck*: it sends no reply at all. Only then should
//! it be restarted. If it replies with a failure, the cause is elsewhere, in the API server or in
//! an upstream.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use shared::clock::Moment;
use shared::mnemonics::{rcode_known, rcode_name};

use crate::config::{Probe, RecordType, counted};

/// The outcome of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The time from the first query to the reply, or to the end of the probe.
    pub latency: Duration,
    /// An answer, or why the probe failed.
    pub result: Result<(), Failure>,
    /// Whether the server sent any reply to this question or to one about itself.
    pub replied: bool,
}

/// Why a probe failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No reply arrived in time, although the query was sent again.
    #[error("no answer within {:.1} s", .after.as_secs_f64())]
    Timeout {
        /// How long the probe waited.
        after: Duration,
    },
    /// The network, or the system at the other end, returned an error.
    #[error("cannot {act}: {kind}")]
    Network {
        /// The operation that failed.
        act: &'static str,
        /// The kind of error.
        kind: ErrorKind,
    },
    /// The server answered with an error.
    #[error("{}", rcode_text(*.code, .error.as_deref()))]
    Rcode {
        /// The response code.
        code: u16,
        /// The Extended DNS Error of the server (RFC 8914).
        error: Option<String>,
    },
    /// The answer has no record of the name and type.
    #[error("{}", no_record_text(*.rtype, *.others))]
    NoRecord {
        /// The requested type.
        rtype: RecordType,
        /// How many other records the answer has.
        others: usize,
    },
    /// The expected address is not among the answers.
    #[error("{expected} is not in the answer, which has {instead}")]
    Unexpected {
        /// The address of the flag.
        expected: IpAddr,
        /// The addresses that the answer has instead.
        instead: String,
    },
    /// The reply is not a DNS message.
    #[error("the reply cannot be read")]
    Malformed,
}

impl Failure {
    /// Returns its name in metrics, which is one of a dozen.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Network { kind: ErrorKind::ConnectionRefused, .. } => "connection_refused",
            Self::Network { .. } => "network",
            Self::Rcode { code, .. } => rcode_known(*code).unwrap_or("other_rcode"),
            Self::NoRecord { .. } => "no_record",
            Self::Unexpected { .. } => "unexpected_address",
            Self::Malformed => "malformed",
        }
    }

    /// Returns whether the server sent a reply, and so is not stuck.
    pub fn is_reply(&self) -> bool {
        !matches!(self, Self::Timeout { .. } | Self::Network { .. })
    }
}

/// The health of one program, or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not answered yet, but may still be starting.
    Waiting,
    /// It answers.
    Healthy,
    /// It does not answer.
    Unhealthy,
}

impl State {
    /// Returns its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The records of all probes.
#[derive(Clone, Debug)]
pub struct Status {
    probes: Vec<Record>,
}

impl Status {
    /// Creates the status of probes that wait since `now`. A program may take `start_max` until its
    /// first answer.
    pub fn new(probes: impl IntoIterator<Item = Probe>, start_max: Duration, now: Moment) -> Self {
        let record = |probe| Record::new(probe, start_max, now);
        Self { probes: probes.into_iter().map(record).collect() }
    }

    /// Adds an outcome of the probe at `index`. Returns its state if it has changed.
    pub fn record(&mut self, index: usize, outcome: Outcome, now: Moment) -> Option<State> {
        self.probes[index].record(outcome, now)
    }

    /// Returns every probe, in the order of the flags.
    pub fn probes(&self) -> &[Record] {
        &self.probes
    }

    /// Returns the probe with `label`.
    pub fn probe(&self, label: &str) -> Option<&Record> {
        self.probes.iter().find(|record| record.probe.label == label)
    }
}

/// Returns the state of several probes together: unhealthy if one is, healthy if all are.
pub fn overall(records: &[Record], now: Moment) -> State {
    let has = |state| records.iter().any(|record| record.health(now).state == state);
    match () {
        () if has(State::Unhealthy) => State::Unhealthy,
        () if has(State::Waiting) => State::Waiting,
        () => State::Healthy,
    }
}

/// The record of one probe.
#[derive(Clone, Debug)]
pub struct Record {
    /// The server and question.
    pub probe: Probe,
    /// The last outcome, and when.
    pub last: Option<(Outcome, Moment)>,
    /// When it last answered.
    pub answered: Option<Moment>,
    /// How many probes failed since it last answered.
    pub failures: u32,
    /// How many of these in a row got no reply at all.
    silent: u32,
    /// The last failure, and when. Failures before the first answer are removed.
    failed: Option<(Failure, Moment)>,
    /// The last outcomes, oldest first, at most [`HISTORY_MAX`]: the latency of an answer, or
    /// `None` for a failure.
    pub history: VecDeque<Option<Duration>>,
    state: State,
    since: Moment,
    start_max: Duration,
    failing_since: Moment,
}

/// Healthy or not, since when, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The state.
    pub state: State,
    /// When the state began. A program is unhealthy since the first of the failures in a row.
    pub since: Moment,
    /// Why it is not healthy.
    pub reason: Option<String>,
}

impl Record {
    fn new(probe: Probe, start_max: Duration, now: Moment) -> Self {
        Self {
            probe,
            last: None,
            answered: None,
            failures: 0,
            silent: 0,
            failed: None,
            history: VecDeque::with_capacity(HISTORY_MAX),
            state: State::Waiting,
            since: now,
            start_max,
            failing_since: now,
        }
    }

    /// Returns the health at `now`. If no outcome was recorded for three intervals and [`OVERDUE`],
    /// the prober itself hangs, and the last outcome is too old to be used.
    pub fn health(&self, now: Moment) -> Health {
        if self.is_overdue(now) {
            let heard = self.heard();
            let silence = now.since(heard).as_secs();
            let reason = format!("no probe has come to an end for {silence} s");
            return Health { state: State::Unhealthy, since: heard, reason: Some(reason) };
        }
        let reason = match (self.state, &self.failed) {
            (State::Waiting, None) => Some("waiting for the first probe".to_owned()),
            (State::Waiting, Some((failure, _))) => {
                Some(format!("waiting for the first answer: {failure}"))
            }
            (State::Unhealthy, Some((failure, _))) => Some(failure.to_string()),
            _ => None,
        };
        Health { state: self.state, since: self.since, reason }
    }

    /// Returns the last failure and when it was, until [`ERROR_AGE_MAX`] after it. Failures before
    /// the first answer belong to the start, and are removed when it ends.
    pub fn last_error(&self, now: Moment) -> Option<(&Failure, Moment)> {
        let (failure, at) = self.failed.as_ref()?;
        let is_over = self.failures == 0 && now.since(*at) > ERROR_AGE_MAX;
        (!is_over).then_some((failure, *at))
    }

    /// Returns whether the program is stuck: it has sent no reply to the last probes. Failures of
    /// the servers that it asks do not count. If the prober hangs, the program does not count as
    /// stuck.
    pub fn is_stuck(&self, now: Moment) -> bool {
        self.silent >= FAILURES_MAX && self.state != State::Waiting && !self.is_overdue(now)
    }

    /// Returns whether no probe has ended for far longer than one may take.
    pub fn is_overdue(&self, now: Moment) -> bool {
        now.since(self.heard()) > self.probe.interval * 3 + OVERDUE
    }

    /// Returns when the last probe ended, or when the record began.
    fn heard(&self) -> Moment {
        self.last.as_ref().map_or(self.since, |(_, at)| *at)
    }

    fn record(&mut self, outcome: Outcome, now: Moment) -> Option<State> {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        let before = self.state;
        if before == State::Waiting && outcome.result.is_ok() {
            // The start is over, so its failures are removed.
            self.failed = None;
            self.history.clear();
        }
        self.history.push_back(outcome.result.is_ok().then_some(outcome.latency));
        self.silent = if outcome.replied { 0 } else { self.silent.saturating_add(1) };
        match &outcome.result {
            Ok(()) => {
                self.answered = Some(now);
                self.failures = 0;
                self.turn(State::Healthy, now);
            }
            Err(failure) => {
                if self.failures == 0 {
                    self.failing_since = now;
                }
                self.failures = self.failures.saturating_add(1);
                self.failed = Some((failure.clone(), now));
                let starts = before == State::Waiting && now.since(self.since) < self.start_max;
                if self.failures >= FAILURES_MAX && !starts {
                    self.turn(State::Unhealthy, self.failing_since);
                }
            }
        }
        self.last = Some((outcome, now));
        (self.state != before).then_some(self.state)
    }

    fn turn(&mut self, state: State, since: Moment) {
        if self.state != state {
            (self.state, self.since) = (state, since);
        }
    }
}

/// Returns the name of a response code (IANA DNS parameters) as one word.
/// `SERVFAIL`, or `SERVFAIL: what the server said about it`.
pub(crate) fn rcode_text(code: u16, error: Option<&str>) -> String {
    let name = rcode_name(code);
    error.map_or_else(|| name.to_string(), |error| format!("{name}: {error}"))
}

/// Returns what an answer without the requested record has instead.
fn no_record_text(rtype: RecordType, others: usize) -> String {
    match others {
        0 => format!("no {rtype} record: the answer is empty (NODATA)"),
        _ => format!("no {rtype} record of the name, only {} of others", counted(others, "record")),
    }
}

/// The number of failed probes in a row that makes a healthy program unhealthy.
pub const FAILURES_MAX: u32 = 3;
/// How many outcomes are kept for the status page.
pub const HISTORY_MAX: usize = 60;
/// How long a failure is reported if an answer followed it.
pub const ERROR_AGE_MAX: Duration = Duration::from_secs(600);
/// How late the third outcome in a row may be.
const OVERDUE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    /// One probe with an interval of 5 s. A script makes it succeed or fail, and lets time pass.
    struct World {
        status: Status,
        now: Moment,
    }

    impl World {
        fn new() -> Self {
            let now = Moment::default();
            let start_max = Duration::from_secs(5);
            Self { status: Status::new(["a,::1,x".parse().unwrap()], start_max, now), now }
        }

        /// Runs a script: `.` is an answer, `x` no reply, `f` a reply that is a failure, each a
        /// second after the last. `-` is ten seconds without an outcome.
        fn play(&mut self, script: &str) {
            for step in script.chars() {
                self.now = self.now + Duration::from_secs(if step == '-' { 10 } else { 1 });
                let refused = Failure::Network { act: "x", kind: ErrorKind::ConnectionRefused };
                let result = match step {
                    '.' => Ok(()),
                    'x' => Err(refused),
                    'f' => Err(Failure::Rcode { code: 2, error: None }),
                    _ => continue,
                };
                let latency = Duration::from_millis(2);
                let outcome = Outcome { latency, result, replied: step != 'x' };
                self.status.record(0, outcome, self.now);
            }
        }

        fn health(&self) -> Health {
            self.status.probes()[0].health(self.now)
        }
    }

    #[test]
    fn a_script_of_outcomes_gives_a_state_and_its_age() {
        use State::{Healthy, Unhealthy, Waiting};
        let rows = [
            ("", Waiting, 0),
            ("-", Waiting, 10),
            (".", Healthy, 0),
            ("x", Waiting, 1),
            ("xxx", Waiting, 3),
            ("xxxx", Waiting, 4),
            ("xxxxx", Unhealthy, 4),
            ("-xx", Waiting, 12),
            ("-xxx", Unhealthy, 2),
            ("xxxx.xx", Healthy, 2),
            ("xxxxx.", Healthy, 0),
            ("x.", Healthy, 0),
            (".fff", Unhealthy, 2),
            (".fxf", Unhealthy, 2),
            ("....", Healthy, 3),
            ("..x", Healthy, 2),
            (".xx", Healthy, 2),
            (".xx.xx", Healthy, 5),
            (".xxx", Unhealthy, 2),
            (".xxx.", Healthy, 0),
            (".xxx.x", Healthy, 1),
            (".xxxxx", Unhealthy, 4),
            (".--", Healthy, 20),
            (".---", Healthy, 30),
            (".----", Unhealthy, 40),
            (".----.", Healthy, 41),
            ("----", Unhealthy, 40),
        ];
        for (script, state, age) in rows {
            let mut world = World::new();
            world.play(script);
            let health = world.health();
            let got = (health.state, world.now.since(health.since).as_secs());
            assert_eq!(got, (state, age), "{script}");
            assert_eq!(health.reason.is_none(), state == Healthy, "{script}");
        }
    }

    #[test]
    fn reasons_name_what_happened() {
        let mut world = World::new();
        assert_eq!(world.health().reason.unwrap(), "waiting for the first probe");
        world.play("x");
        let reason = "waiting for the first answer: cannot x: connection refused";
        assert_eq!(world.health().reason.unwrap(), reason);
        world.play("xxxx");
        assert_eq!(world.health().reason.unwrap(), "cannot x: connection refused");
        world.play("----");
        assert_eq!(world.health().reason.unwrap(), "no probe has come to an end for 40 s");
        let error = Some("not loaded".to_owned());
        let rows = [
            (Failure::Timeout { after: Duration::from_millis(2_500) }, "no answer within 2.5 s"),
            (Failure::Rcode { code: 2, error }, "SERVFAIL: not loaded"),
            (Failure::Rcode { code: 3, error: None }, "NXDOMAIN"),
            (Failure::Rcode { code: 14, error: None }, "RCODE14"),
            (Failure::Malformed, "the reply cannot be read"),
            (
                Failure::NoRecord { rtype: RecordType::A, others: 0 },
                "no A record: the answer is empty (NODATA)",
            ),
            (
                Failure::NoRecord { rtype: RecordType::AAAA, others: 1 },
                "no AAAA record of the name, only 1 record of others",
            ),
            (
                Failure::NoRecord { rtype: RecordType::SRV, others: 2 },
                "no SRV record of the name, only 2 records of others",
            ),
            (
                Failure::Unexpected {
                    expected: "10.96.0.1".parse().unwrap(),
                    instead: "6.6.6.6".to_owned(),
                },
                "10.96.0.1 is not in the answer, which has 6.6.6.6",
            ),
        ];
        for (failure, text) in rows {
            assert_eq!(failure.to_string(), text);
            assert!(failure.class().bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_'));
        }
    }

    #[test]
    fn all_together_are_as_healthy_as_the_worst() {
        let now = Moment::default();
        let probes = ["a,::1,x", "b,::1,x"].map(|text| text.parse().unwrap());
        let mut status = Status::new(probes, Duration::ZERO, now);
        let state = |status: &Status| overall(status.probes(), now);
        let ok = Outcome { latency: Duration::ZERO, result: Ok(()), replied: true };
        let bad =
            Outcome { latency: Duration::ZERO, result: Err(Failure::Malformed), replied: true };
        assert_eq!(state(&status), State::Waiting);
        assert_eq!(status.record(0, ok.clone(), now), Some(State::Healthy));
        assert_eq!(state(&status), State::Waiting);
        assert_eq!(status.record(1, bad.clone(), now), None);
        assert_eq!(status.record(1, bad.clone(), now), None);
        assert_eq!(status.record(1, bad, now), Some(State::Unhealthy));
        assert_eq!(state(&status), State::Unhealthy);
        assert_eq!(status.record(1, ok.clone(), now), Some(State::Healthy));
        assert_eq!(status.record(1, ok, now), None);
        assert_eq!(state(&status), State::Healthy);
        assert_eq!(overall(&[], now), State::Healthy);
    }

    /// If a program sends any reply, it is not stuck. The cause of a failure is elsewhere.
    #[test]
    fn only_silence_is_a_reason_to_restart() {
        let rows = [
            ("", false),
            (".", false),
            (".xx", false),
            (".xxx", true),
            (".xxxxxxxx", true),
            (".xxx.", false),
            (".xxxf", false),
            (".xxfxx", false),
            ("ffffffff", false),
            (".ffffffff", false),
            (".fffxxx", true),
            ("xxxx", false), // it may be starting
            ("xxxxx", true),
            (".xxx-", true),
            (".xxx----", false), // the prober hangs
        ];
        for (script, stuck) in rows {
            let mut world = World::new();
            world.play(script);
            assert_eq!(world.status.probes()[0].is_stuck(world.now), stuck, "{script}");
        }
    }

    #[test]
    fn an_error_is_reported_until_some_time_after_its_end() {
        let mut world = World::new();
        let error = |world: &World| {
            world.status.probes()[0].last_error(world.now).map(|(failure, _)| failure.to_string())
        };
        world.play("f");
        assert_eq!(error(&world).unwrap(), "SERVFAIL");
        world.play(".");
        assert_eq!(error(&world), None, "the start is over");
        assert_eq!(world.status.probes()[0].history.len(), 1);
        world.play("f.");
        assert_eq!(error(&world).unwrap(), "SERVFAIL");
        world.play(&"-.".repeat(54));
        assert_eq!(error(&world).unwrap(), "SERVFAIL");
        world.play("-.");
        assert_eq!(error(&world), None, "ten minutes later");
        world.play("f");
        world.play(&"-".repeat(100));
        assert_eq!(error(&world).unwrap(), "SERVFAIL", "it has not ended");
    }

    #[test]
    fn history_is_bounded() {
        let mut world = World::new();
        world.play(&".x".repeat(HISTORY_MAX));
        let history = &world.status.probes()[0].history;
        assert_eq!(history.len(), HISTORY_MAX);
        assert_eq!(history.iter().flatten().count(), HISTORY_MAX / 2);
    }
}
