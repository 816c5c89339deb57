//! One upstream query: its tries, their outcomes, and the next step.
//!
//! Core. Works on the servers of its group, without the question, its waiters or sockets.
//!
//! ```text
//! next ─▶ Send, Dial ─▶ on_reply ─┬─ Answer
//!   ▲        │                    ├─ TC, a forgery is about ─▶ Dial ─▶ on_reply
//!   │        └─ overdue ──────────┴─ error, malformed, lame: this server failed
//!   └─────────────────────────────────────┘
//! ```
//!
//! A bad reply ends one try, never the question. The question fails if every server has failed, or
//! at its deadline.

use std::time::Duration;

use shared::clock::Moment;
use shared::endpoint::Transport;
use shared::wire::ErrorCode;

use super::message::{Failure, Form};
use super::outcome::Outcome;
use super::servers::{Health, Servers};
use crate::normalise::Answer;

/// The tries of one question at the servers of one group.
#[derive(Debug, Default)]
pub(super) struct Asking {
    pub tries: Vec<Try>,
    /// When all servers became unavailable; `None` if one can be asked.
    parked: Option<Moment>,
    /// The failure for the client if no server answers.
    pub failure: Option<Failure>,
    /// The records of a truncated reply, for UDP clients if no server answers.
    pub cut: Option<Answer>,
}

/// The tries of this question at one server.
#[derive(Debug)]
pub(super) struct Try {
    pub server: u16,
    /// How the query to this server is written. A resend is the same datagram.
    pub form: Form,
    udp: Way,
    tcp: Way,
    /// Datagrams sent to it.
    sends: u32,
    first: Moment,
    last: Moment,
    /// When it is overdue. Another try is then made, and this one continues.
    due: Moment,
    /// When it can be sent again at the earliest.
    again: Moment,
    /// Whether its being overdue was counted.
    is_counted: bool,
    /// Whether the server could be slow rather than down when it was asked.
    is_awaited: bool,
    /// Whether an unexpected datagram arrived, so that TCP was tried.
    is_suspected: bool,
    /// Whether a reply changed the case of the question's letters. A resend then has no random
    /// case.
    lost_case: bool,
}

/// The state of a question at one server over one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Unasked,
    Waiting,
    Over,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Send the query of this try over UDP.
    Send(usize),
    /// Send the query of this try over TCP.
    Dial(usize),
    /// Wait for replies, or for a server to come up, until this time.
    Wait(Moment),
    /// The question is answered by this server.
    Answer(u16, Box<Answer>),
    /// The question has failed.
    Fail(Failure),
}

/// The input of a step beside the query.
pub(super) struct Turn<'a> {
    pub now: Moment,
    pub deadline: Moment,
    /// How long a question waits for its servers.
    pub patience: Duration,
    pub servers: &'a mut Servers,
    /// Returns unpredictable numbers.
    pub draw: &'a mut dyn FnMut() -> u64,
    /// The message ID for servers that share a socket.
    pub pool_id: u16,
    /// Servers that went down.
    pub fallen: &'a mut Vec<u16>,
}

impl Asking {
    /// Returns the tries of a question before any server is asked.
    pub fn new(servers: &[u16]) -> Self {
        let tries = servers.iter().map(|&server| Try::new(server)).collect();
        Self { tries, ..Self::default() }
    }

    /// Returns the next step. The caller must call it at the start, when the time of the last step
    /// is over, and after each event.
    pub fn next(&mut self, turn: &mut Turn<'_>) -> Step {
        self.count_silence(turn);
        let now = turn.now;
        let end = self.park(turn);
        if now >= end {
            return Step::Fail(self.failure.unwrap_or(ALL_DOWN));
        }
        let on_time = self.tries.iter().filter(|one| one.is_open() && now < one.due);
        if let Some(due) = on_time.map(|one| one.due).min() {
            return Step::Wait(due.min(end));
        }
        if let Some((at, is_stream)) = self.choose(turn) {
            return self.ask(at, is_stream, turn);
        }
        let rests = self.tries.iter().filter(|one| one.may_send() && now < one.again);
        let again = rests.map(|one| one.again).min();
        let is_asked = |one: &Try| {
            let health = turn.servers.get(one.server).health();
            one.is_open() || !one.is_over() && health == Health::Down
        };
        if let Some(again) = again {
            Step::Wait(again.min(end))
        } else if !self.tries.iter().any(is_asked) {
            let is_loop =
                |one: &Try| matches!(turn.servers.get(one.server).health(), Health::Looping(_));
            let failure = if self.tries.iter().any(is_loop) { LOOPING } else { NO_UPSTREAM };
            Step::Fail(self.failure.unwrap_or(failure))
        } else if self.is_parked() {
            Step::Wait(end.min(now + PARK_PAUSE))
        } else {
            Step::Wait(end)
        }
    }

    /// Notes whether every server that can still answer is down. Returns when the question fails:
    /// at its deadline, or earlier if none of the servers that were asked can be slow.
    fn park(&mut self, turn: &Turn<'_>) -> Moment {
        let may_answer = self.tries.iter().filter(|one| !one.is_over());
        let mut servers = may_answer.map(|one| turn.servers.get(one.server));
        if servers.any(|server| server.health() == Health::Up) {
            self.parked = None;
            return turn.deadline;
        }
        let since = *self.parked.get_or_insert(turn.now);
        if self.tries.iter().any(|one| one.is_open() && one.is_awaited) {
            return turn.deadline;
        }
        (since + PARK_MAX).min(turn.deadline)
    }

    /// Counts tries that have become overdue as silence of their servers.
    fn count_silence(&mut self, turn: &mut Turn<'_>) {
        for one in self.tries.iter_mut().filter(|one| one.is_open() && turn.now >= one.due) {
            if !std::mem::replace(&mut one.is_counted, true) {
                self.failure.get_or_insert(SILENCE.of(one.server));
                if turn.servers.get_mut(one.server).was_silent(turn.now) {
                    turn.fallen.push(one.server);
                }
            }
        }
    }

    /// Returns the best try to make now, and whether it must be made over TCP. The order is: each
    /// server once over UDP, each a second time, then over TCP, then a third time.
    fn choose(&self, turn: &Turn<'_>) -> Option<(usize, bool)> {
        let sends = self.tries.iter().map(|one| one.sends as usize).sum::<usize>();
        let may_send = sends < SENDS_MAX.max(self.tries.len());
        let ways = self.tries.iter().enumerate().flat_map(|(at, one)| {
            let speaks_udp = turn.servers.get(one.server).speaks_udp(turn.now);
            let udp = (may_send && speaks_udp && one.may_send() && turn.now >= one.again)
                .then_some((one.sends * 2, false));
            let order = if speaks_udp { TCP_ORDER } else { 0 };
            let tcp =
                (one.tcp == Way::Unasked && one.sends * 2 + 1 >= order).then_some((order, true));
            let refused =
                (one.tcp == Way::Unasked && one.udp == Way::Over).then_some((TCP_ORDER, true));
            let server = turn.servers.get(one.server);
            let may_ask = server.is_usable(turn.now)
                || self.is_parked() && server.can_be_slow(turn.now, turn.patience);
            let rank = may_ask.then(|| server.rank(turn.now));
            [udp, tcp, refused]
                .into_iter()
                .flatten()
                .filter_map(move |(order, is_tcp)| rank.map(|rank| ((order, rank, at), is_tcp)))
        });
        ways.min().map(|((.., at), is_tcp)| (at, is_tcp))
    }

    /// Asks the server of try `at`, over TCP if `is_stream`.
    fn ask(&mut self, at: usize, is_stream: bool, turn: &mut Turn<'_>) -> Step {
        let one = &mut self.tries[at];
        let server = turn.servers.get_mut(one.server);
        server.sent(turn.now);
        one.is_awaited |= server.can_be_slow(turn.now, turn.patience);
        one.is_counted = false;
        let patience = server.round_trip.patience();
        let is_pooled = server.is_local() && !is_stream;
        if one.udp == Way::Unasked {
            one.form = form(is_pooled, one, turn);
        }
        if is_stream {
            one.tcp = Way::Waiting;
            // A single try must not take all the time of a question.
            let share = turn.deadline.since(turn.now) / 2;
            one.due = turn.now + (patience * 3).max(STREAM_PATIENCE_MIN).min(share);
            return Step::Dial(at);
        }
        if one.udp == Way::Unasked {
            one.first = turn.now;
        }
        if one.lost_case {
            one.form.upper_case = 0;
        }
        one.udp = Way::Waiting;
        one.last = turn.now;
        one.due = turn.now + patience * (1 << one.sends.min(2));
        one.again = one.due;
        one.sends += 1;
        Step::Send(at)
    }

    /// Takes in the outcome of a genuine reply to try `at` over UDP, or over TCP if `is_stream`.
    pub fn on_reply(
        &mut self,
        at: usize,
        is_stream: bool,
        outcome: Outcome,
        turn: &mut Turn<'_>,
    ) -> Step {
        self.learn(at, is_stream, turn);
        let one = &mut self.tries[at];
        let server = turn.servers.get_mut(one.server);
        match outcome {
            Outcome::Answer(answer) => {
                if one.form.plain {
                    server.answered_plain(turn.now);
                }
                server.keeps_case &= is_stream || !one.lost_case;
                let server = one.server;
                self.blame_others(at, turn);
                return Step::Answer(server, answer);
            }
            Outcome::Truncated(cut) => {
                one.udp = Way::Over;
                self.cut = cut.map(|cut| *cut).or(self.cut.take());
                match one.tcp {
                    Way::Unasked => return self.ask(at, true, turn),
                    Way::Waiting => {}
                    Way::Over => self.failure = Some(STREAM_FAILED.of(one.server)),
                }
            }
            Outcome::NotUnderstood(_) if one.form.edns => {
                one.form.plain = true;
                one.form.edns = false;
                one.sends -= u32::from(!is_stream);
                return self.ask(at, is_stream, turn);
            }
            Outcome::NotUnderstood(failure) | Outcome::Failed(failure) => {
                server.erred();
                one.give_up();
                self.failure = Some(failure.of(one.server));
            }
            Outcome::Useless(failure) => {
                server.erred();
                *(if is_stream { &mut one.tcp } else { &mut one.udp }) = Way::Over;
                if is_stream {
                    one.give_up();
                }
                self.failure = Some(failure.of(one.server));
            }
        }
        self.next(turn)
    }

    /// Updates the state of the server of try `at` after a genuine reply.
    pub fn learn(&mut self, at: usize, is_stream: bool, turn: &mut Turn<'_>) {
        let one = &mut self.tries[at];
        let server = turn.servers.get_mut(one.server);
        if is_stream {
            one.tcp = Way::Over;
            if one.udp == Way::Waiting && one.sends >= 2 && !one.is_suspected {
                server.answered_tcp_alone(turn.now);
            }
            return;
        }
        server.answered_udp();
        match one.sends {
            1 => server.round_trip.sample(turn.now.since(one.last)),
            _ => server.round_trip.ambiguous(turn.now.since(one.first), turn.now.since(one.last)),
        }
    }

    /// Marks the failed servers, so that other questions avoid them for a while: the server of try
    /// `at` answered.
    fn blame_others(&self, at: usize, turn: &mut Turn<'_>) {
        for (other, one) in self.tries.iter().enumerate() {
            if other != at && one.is_over() {
                turn.servers.get_mut(one.server).avoid(turn.now);
            }
        }
    }

    /// Notes that an exchange over TCP failed.
    pub fn on_stream_failed(&mut self, at: usize, turn: &mut Turn<'_>) -> Step {
        let one = &mut self.tries[at];
        one.tcp = Way::Over;
        one.is_counted = true;
        if one.udp != Way::Waiting {
            self.failure = Some(STREAM_FAILED.of(one.server));
        }
        if turn.servers.get_mut(one.server).was_silent(turn.now) {
            turn.fallen.push(one.server);
        }
        self.next(turn)
    }

    /// Notes that try `at` did not reach a listener. Only this send ends, because outside the pod
    /// the error can be forged (SAD DNS). The next send to the same server waits for its time.
    pub fn on_unreachable(&mut self, at: usize, turn: &mut Turn<'_>) -> Step {
        let one = &mut self.tries[at];
        if one.udp == Way::Waiting {
            one.again = one.due.max(one.again);
            one.due = turn.now;
            if one.sends >= TRIES_MAX {
                one.udp = Way::Over;
                self.failure = Some(CLOSED.of(one.server));
            }
        }
        self.next(turn)
    }

    /// Asks `server`, which is up again, once more, unless it can still be at work on the question.
    pub fn on_recovered(&mut self, server: u16, turn: &mut Turn<'_>) -> Step {
        let patience = turn.servers.get(server).round_trip.patience();
        let is_lost = |one: &Try| {
            let is_waited_for = one.server == server && one.udp == Way::Waiting;
            is_waited_for && turn.now.since(one.last) >= patience
        };
        let Some(at) = self.tries.iter().position(is_lost) else { return self.next(turn) };
        self.tries[at].sends = self.tries[at].sends.min(TRIES_MAX - 1);
        self.ask(at, false, turn)
    }

    /// Takes back the tries at `server`, which is in this pod and closed. The question is sent
    /// again when the server listens.
    pub fn on_closed(&mut self, server: u16) {
        for one in self.tries.iter_mut().filter(|one| one.server == server) {
            if one.udp == Way::Waiting {
                one.udp = Way::Unasked;
                one.sends -= 1;
                one.again = Moment::default();
            }
        }
    }

    /// Notes an unexpected datagram on the socket of try `at`, which may be forged. The question is
    /// asked once over TCP, which forgers cannot reach. The real reply can still arrive.
    pub fn on_suspicion(
        &mut self,
        at: usize,
        lost_case: bool,
        turn: &mut Turn<'_>,
    ) -> Option<Step> {
        let one = &mut self.tries[at];
        one.lost_case |= lost_case;
        let is_first = !std::mem::replace(&mut one.is_suspected, true);
        if !is_first || one.tcp != Way::Unasked || one.udp != Way::Waiting {
            return None;
        }
        let due = one.due;
        let step = self.ask(at, true, turn);
        self.tries[at].due = due;
        Some(step)
    }

    /// Returns the first step of a probe. Its one server is asked even if it is down.
    pub fn probe(&mut self, turn: &mut Turn<'_>) -> Step {
        let speaks_udp = turn.servers.get(self.tries[0].server).speaks_udp(turn.now);
        self.ask(0, !speaks_udp, turn)
    }

    /// Returns whether it waits for a server to come up.
    pub fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// Returns whether try `at` has a datagram under way.
    pub fn awaits_datagram(&self, at: usize) -> bool {
        self.tries.get(at).is_some_and(|one| one.udp == Way::Waiting)
    }

    /// Returns whether try `at` has an exchange over TCP under way.
    pub fn awaits_stream(&self, at: usize) -> bool {
        self.tries.get(at).is_some_and(|one| one.tcp == Way::Waiting)
    }
}

impl Try {
    fn new(server: u16) -> Self {
        Self {
            server,
            form: Form::default(),
            udp: Way::Unasked,
            tcp: Way::Unasked,
            sends: 0,
            first: Moment::default(),
            last: Moment::default(),
            due: Moment::default(),
            again: Moment::default(),
            is_counted: false,
            is_awaited: false,
            is_suspected: false,
            lost_case: false,
        }
    }

    /// Returns whether a reply to it can still arrive.
    fn is_open(&self) -> bool {
        self.udp == Way::Waiting || self.tcp == Way::Waiting
    }

    /// Returns whether a datagram of it was ever sent.
    pub fn was_sent(&self) -> bool {
        self.first != Moment::default()
    }

    /// Returns whether it can be sent over UDP once more.
    fn may_send(&self) -> bool {
        self.udp != Way::Over && self.sends < TRIES_MAX
    }

    /// Returns whether the server has failed for this question.
    fn is_over(&self) -> bool {
        self.udp == Way::Over && self.tcp == Way::Over
    }

    fn give_up(&mut self) {
        (self.udp, self.tcp) = (Way::Over, Way::Over);
    }
}

/// Returns how a first query to the server of `one` is written.
fn form(is_pooled: bool, one: &Try, turn: &mut Turn<'_>) -> Form {
    let server = turn.servers.get(one.server);
    let edns = server.reads_edns(turn.now);
    let is_padded = matches!(server.endpoint.transport, Transport::Tls(_));
    let form = Form { id: turn.pool_id, edns, is_padded, ..Form::default() };
    if is_pooled {
        return form;
    }
    let upper_case = if server.keeps_case && !is_padded { (turn.draw)() } else { 0 };
    Form { id: (turn.draw)() as u16, upper_case, ..form }
}

/// Datagrams to one server (RFC 9520 section 3.1).
const TRIES_MAX: u32 = 3;
/// Datagrams in all, if the group has fewer servers than this.
const SENDS_MAX: usize = 6;
/// TCP is tried after the second datagram, which has order 2, and before the third.
const TCP_ORDER: u32 = 3;
/// An exchange over TCP needs at least two round trips, and may have to queue.
const STREAM_PATIENCE_MIN: Duration = Duration::from_millis(800);
/// How long a question waits for a server to come up, if all have been silent for longer than
/// questions wait. Must be longer than the pause between two probes.
const PARK_MAX: Duration = Duration::from_millis(1_200);
/// The time after which a parked question looks again.
const PARK_PAUSE: Duration = Duration::from_millis(250);

const NO_UPSTREAM: Failure =
    Failure::servfail(ErrorCode::NoReachableAuthority, "no upstream for this name");
const ALL_DOWN: Failure =
    Failure::servfail(ErrorCode::NoReachableAuthority, "every upstream is down");
const LOOPING: Failure =
    Failure::servfail(ErrorCode::NoReachableAuthority, "every upstream sends our queries back");
const SILENCE: Failure = Failure::servfail(ErrorCode::NetworkError, "no upstream answered in time");
const CLOSED: Failure = Failure::servfail(ErrorCode::NetworkError, "the upstream's port is closed");
const STREAM_FAILED: Failure =
    Failure::servfail(ErrorCode::NetworkError, "the exchange over TCP failed");
