//! The upstream servers: how fast each answers, which are down, and which one is asked next.
//!
//! Core. The state changes only after exchanges that were proven genuine or that timed out; a
//! forged packet must not change it. Every state in which a server is not asked ends by itself.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use shared::clock::Moment;
use shared::endpoint::{Endpoint, Transport};

use super::round_trip::{PATIENCE_FIRST, RoundTrip};
use crate::cache::Blame;

/// One upstream server.
#[derive(Clone, Debug)]
pub struct Server {
    /// The endpoint on which it listens.
    pub endpoint: Endpoint,
    /// Queries sent to it, every try and probe counted.
    pub sent: u64,
    /// Tries that it left unanswered or refused.
    pub failed: u64,
    /// Whether it fails to read OPT. An answer without OPT, after an error with it, is a vote; two
    /// are proof (RFC 6891 section 6.2.2).
    no_edns: Lesson,
    /// Whether it speaks TCP alone. An answer over TCP to a query that it left unanswered over UDP
    /// is a vote.
    tcp_alone: Lesson,
    /// Whether it echoes the case of the question.
    pub(super) keeps_case: bool,
    pub(super) round_trip: RoundTrip,
    /// The share of tries that got no reply lately: 0 to 1.
    loss: f32,
    /// Tries without a reply since the last reply, and when the first of them was sent.
    silent: u32,
    silent_since: Moment,
    health: Health,
    /// When it was last sent a query.
    asked: Moment,
    /// When it was last sent a probe.
    pub(super) probed: Moment,
    /// When it last replied.
    heard: Moment,
    /// How long to wait between probes while it is down.
    probe_pause: Duration,
    /// The time until which other servers are preferred. Set if it failed and another server
    /// answered.
    avoided_until: Moment,
    /// Errors since its last good answer.
    errors: u8,
    /// Whether the cache can hold failures of this server, which end when it answers again.
    pub(super) is_blamed: bool,
    /// The random number in the name of the sounding query that is under way.
    pub(super) sounding: Option<u64>,
    /// When the last route that names it was removed.
    retired: Option<Moment>,
}

/// A property of a server that it has shown several times. It holds for a while, and is then tested
/// again.
#[derive(Clone, Copy, Debug, Default)]
struct Lesson {
    votes: u8,
    until: Moment,
}

impl Lesson {
    /// Returns whether it holds.
    fn holds(&self, now: Moment) -> bool {
        now < self.until
    }

    /// Notes a vote. After `needed` of them the lesson holds for `time`.
    fn vote(&mut self, needed: u8, time: Duration, now: Moment) {
        self.votes += 1;
        if self.votes >= needed {
            *self = Self { votes: 0, until: now + time };
        }
    }
}

/// Whether a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is asked.
    Up,
    /// It is silent or closed. It gets only probes, and questions that no other server can answer.
    Down,
    /// It sends dnscache's queries back. It must not be asked until the given time, when it is
    /// sounded again.
    Looping(Moment),
}

impl Server {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            sent: 0,
            failed: 0,
            no_edns: Lesson::default(),
            tcp_alone: Lesson::default(),
            keeps_case: true,
            round_trip: RoundTrip::default(),
            loss: 0.0,
            silent: 0,
            silent_since: Moment::default(),
            health: Health::Up,
            asked: Moment::default(),
            probed: Moment::default(),
            heard: Moment::default(),
            probe_pause: PROBE_PAUSE,
            avoided_until: Moment::default(),
            errors: 0,
            is_blamed: false,
            sounding: None,
            retired: None,
        }
    }

    /// Returns whether it is asked and, if not, why.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Returns the smoothed round-trip time; `None` before its first answer.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    /// Returns whether it runs in this pod, so that the only path to it is the pod's loopback
    /// interface. A process that can forge packets there can also read them, so one socket is kept
    /// for all queries.
    pub fn is_local(&self) -> bool {
        let hosts = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        hosts.contains(&self.endpoint.address.ip())
    }

    /// Returns the cost of asking it, in expected nanoseconds: lower is better.
    fn cost(&self) -> u64 {
        let rtt = self.round_trip().unwrap_or(PATIENCE_FIRST);
        rtt.as_nanos() as u64 + (self.loss * PATIENCE_FIRST.as_nanos() as f32) as u64
    }

    /// Returns whether a question can be sent to it now.
    pub(super) fn is_usable(&self, now: Moment) -> bool {
        match self.health {
            Health::Up => true,
            // A question also serves as a probe, but not every question must.
            Health::Down => !self.is_local() && now.since(self.asked) >= QUESTION_PAUSE,
            Health::Looping(_) => false,
        }
    }

    /// Returns whether a reply can still be expected from it: it is up, or it has been silent for a
    /// shorter time than a question waits. Its first late reply can then be under way.
    pub(super) fn can_be_slow(&self, now: Moment, patience: Duration) -> bool {
        let is_closed = self.probe_pause < PROBE_PAUSE;
        match self.health {
            Health::Up => true,
            Health::Down => !is_closed && now.since(self.silent_since) < patience,
            Health::Looping(_) => false,
        }
    }

    /// Returns the rank among servers that were asked as often: lower is better.
    pub(super) fn rank(&self, now: Moment) -> (bool, bool, u64) {
        (self.health != Health::Up, now < self.avoided_until, self.cost())
    }

    /// Returns whether it is asked over UDP; if not, it is asked over TCP.
    pub(super) fn speaks_udp(&self, now: Moment) -> bool {
        self.endpoint.transport == Transport::Udp && !self.tcp_alone.holds(now)
    }

    /// Returns whether queries to it carry OPT.
    pub(super) fn reads_edns(&self, now: Moment) -> bool {
        !self.no_edns.holds(now)
    }

    /// Notes a try.
    pub(super) fn sent(&mut self, now: Moment) {
        self.sent += 1;
        self.asked = now;
        if self.silent == 0 {
            self.silent_since = now;
            self.silent = 1;
        }
    }

    /// Returns whether it has left so many tries in a row without a reply that the cache can hold
    /// failures because of its silence.
    pub(super) fn is_silent(&self) -> bool {
        self.silent > SILENT_SERIES
    }

    /// Notes a genuine reply over UDP or TCP. Returns whether the server was down until now.
    pub(super) fn replied(&mut self, now: Moment) -> bool {
        self.silent = 0;
        self.loss *= 1.0 - LOSS_GAIN;
        self.heard = now;
        self.probe_pause = PROBE_PAUSE;
        let was_down = self.health == Health::Down;
        if was_down {
            self.health = Health::Up;
            self.loss = 0.0;
        }
        was_down
    }

    /// Notes that its reply was a good answer. Returns whether it has just recovered from a series
    /// of errors.
    pub(super) fn answered(&mut self) -> bool {
        std::mem::take(&mut self.errors) >= ERRORS_SERIES
    }

    /// Notes a reply that was an error or unusable.
    pub(super) fn erred(&mut self) {
        self.failed += 1;
        self.errors = self.errors.saturating_add(1);
    }

    /// Notes that it failed to answer a question that another server answered.
    pub(super) fn avoid(&mut self, now: Moment) {
        self.avoided_until = now + AVOID_TIME;
    }

    /// Notes a try that got no reply in time. Returns whether the server is down from now on,
    /// because many tries in a row got no reply for at least a second.
    pub(super) fn was_silent(&mut self, now: Moment) -> bool {
        self.failed += 1;
        self.probe_pause = PROBE_PAUSE;
        if self.silent == 0 {
            self.silent_since = now;
        }
        self.silent += 1;
        self.loss += (1.0 - self.loss) * LOSS_GAIN;
        let is_down = self.health == Health::Up
            && self.silent > SILENT_TRIES
            && now.since(self.silent_since) >= SILENT_MIN;
        if is_down {
            self.health = Health::Down;
        }
        is_down
    }

    /// Notes that no program listens at its port in this pod. Returns whether the server is down
    /// from now on. It must be probed again within milliseconds.
    pub(super) fn is_closed(&mut self, now: Moment) -> bool {
        self.failed += 1;
        let is_down = self.health == Health::Up;
        if is_down {
            self.health = Health::Down;
            self.probe_pause = CLOSED_PAUSE_MIN;
        } else {
            self.probe_pause = (self.probe_pause * 2).min(CLOSED_PAUSE_MAX);
        }
        self.probed = now;
        is_down
    }

    /// Notes that it answered a query without OPT that it had not understood with OPT.
    pub(super) fn answered_plain(&mut self, now: Moment) {
        self.no_edns.vote(2, PLAIN_TIME, now);
    }

    /// Notes a reply over UDP.
    pub(super) fn answered_udp(&mut self) {
        self.tcp_alone.votes = 0;
    }

    /// Notes that it answered over TCP a query that it had not answered over UDP.
    pub(super) fn answered_tcp_alone(&mut self, now: Moment) {
        self.tcp_alone.vote(TCP_VOTES, TCP_TIME, now);
    }

    /// Ends the sounding. A server that did not send the query back is asked again.
    pub(super) fn end_sounding(&mut self, now: Moment) {
        if self.sounding.take().is_some()
            && matches!(self.health, Health::Looping(until) if until <= now)
        {
            self.health = Health::Up;
        }
    }

    /// Notes that it sends dnscache's queries back.
    pub(super) fn loops(&mut self, now: Moment) {
        self.health = Health::Looping(now + LOOP_PAUSE);
    }

    /// Returns when it should be probed next.
    fn probe_due(&self) -> Option<Moment> {
        if self.retired.is_some() {
            return None;
        }
        match self.health {
            Health::Up => None,
            Health::Down => Some(self.probed + self.probe_pause),
            Health::Looping(until) => Some(until.max(self.probed + LOOP_PAUSE)),
        }
    }

    /// Returns whether it has not replied for a while, so that its round-trip time should be
    /// measured again.
    fn is_forgotten(&self, now: Moment) -> bool {
        self.health == Health::Up && now.since(self.heard.max(self.probed)) >= MEASURE_PAUSE
    }
}

/// All servers in the routes, by index.
#[derive(Debug, Default)]
pub struct Servers {
    all: Vec<Server>,
    hasher: RandomState,
}

impl Servers {
    /// Returns server `index`.
    pub fn get(&self, index: u16) -> &Server {
        &self.all[usize::from(index)]
    }

    pub(super) fn get_mut(&mut self, index: u16) -> &mut Server {
        &mut self.all[usize::from(index)]
    }

    /// Returns every server in the routes, with its index.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Server)> {
        (0..).zip(&self.all).filter(|(_, server)| server.retired.is_none())
    }

    /// Returns the place at which the cache notes failures of server `index`.
    pub fn blame(&self, index: u16) -> Blame {
        Blame::new(self.hasher.hash_one(&self.get(index).endpoint))
    }

    /// Starts a new set of routes. A server for which [`Servers::index`] is not called from now on
    /// is out of use.
    pub(super) fn retire_all(&mut self, now: Moment) {
        for server in &mut self.all {
            server.retired.get_or_insert(now);
        }
    }

    /// Returns the index of the server at `endpoint`, and whether it was not in use before. Its
    /// state is kept, except that a server that looped gets another chance.
    ///
    /// If a server has been out of use for longer than any query lasts, its index can be given to a
    /// new server.
    pub(super) fn index(&mut self, endpoint: &Endpoint, now: Moment) -> (u16, bool) {
        if let Some(at) = self.all.iter().position(|server| server.endpoint == *endpoint) {
            let server = &mut self.all[at];
            let is_back = server.retired.take().is_some_and(|since| since != now);
            let looped = matches!(server.health, Health::Looping(_));
            if looped {
                server.health = Health::Up;
            }
            return (at as u16, is_back || looped);
        }
        let is_old =
            |server: &Server| server.retired.is_some_and(|since| now.since(since) > RETIREMENT_MIN);
        let old = self.all.iter().position(is_old);
        let at = old.unwrap_or(self.all.len());
        let server = Server::new(endpoint.clone());
        match old {
            Some(at) => self.all[at] = server,
            None => self.all.push(server),
        }
        (at as u16, true)
    }

    /// Returns one of `indices` whose round-trip time should be measured again.
    pub(super) fn forgotten(
        &self,
        mut indices: impl Iterator<Item = u16>,
        now: Moment,
    ) -> Option<u16> {
        indices.find(|&index| self.get(index).is_forgotten(now))
    }

    /// Returns when the next server should be probed.
    pub(super) fn probe_due(&self) -> Option<Moment> {
        self.all.iter().filter_map(Server::probe_due).min()
    }

    /// Returns a server that should be probed at `now`.
    pub(super) fn probe_next(&self, now: Moment) -> Option<u16> {
        let due = |server: &Server| server.probe_due().is_some_and(|due| due <= now);
        self.all.iter().position(due).map(|at| at as u16)
    }
}

/// The weight of one try in the share of lost ones.
const LOSS_GAIN: f32 = 0.125;
/// A question that fails because of silence leaves at least this many tries without a reply.
const SILENT_SERIES: u32 = 3;
/// A server is down if more tries than this got no reply in a row ...
const SILENT_TRIES: u32 = 6;
/// ... over at least this time: a burst of queries that are lost within a fraction of a second must
/// not make it count as down.
const SILENT_MIN: Duration = Duration::from_secs(1);
/// The time between two probes of a server that is down.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// The time between two questions to a server that is down, if no other server is up.
const QUESTION_PAUSE: Duration = Duration::from_millis(250);
/// The shortest and the longest time until a closed port in this pod is probed: the program there
/// is about to start again.
const CLOSED_PAUSE_MIN: Duration = Duration::from_millis(5);
const CLOSED_PAUSE_MAX: Duration = Duration::from_millis(80);
/// The time after which a server that is up but not asked is measured, while its group is in use.
const MEASURE_PAUSE: Duration = Duration::from_secs(10);
/// How long other servers are preferred to one that failed although they answered.
const AVOID_TIME: Duration = Duration::from_secs(10);
/// Errors in a row after which a good answer means that the server has recovered.
const ERRORS_SERIES: u8 = 3;
/// How long a server that cannot read OPT is asked without it.
const PLAIN_TIME: Duration = Duration::from_secs(900);
/// Answers over TCP alone, in a row, that show that a server does not speak UDP ...
const TCP_VOTES: u8 = 3;
/// ... and how long it is asked over TCP alone after that.
const TCP_TIME: Duration = Duration::from_secs(300);
/// The time between two soundings of a server that sends dnscache's queries back.
const LOOP_PAUSE: Duration = Duration::from_secs(4);
/// Must be longer than any query lasts, so that no query holds the index of another server.
const RETIREMENT_MIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    /// A question is sent to a server that is down, and waits for it, for as long as the first
    /// late reply can be under way.
    #[test]
    fn a_server_that_has_just_fallen_silent_can_be_slow() {
        let patience = Duration::from_millis(4_800);
        let start = Moment::from_nanos(1_000_000_000_000);
        let after = |millis| start + Duration::from_millis(millis);
        let silent = |server: &mut Server| {
            server.sent(start);
            (0..=SILENT_TRIES).any(|_| server.was_silent(after(1_000)))
        };
        let closed = |server: &mut Server| server.is_closed(start);
        let looping = |server: &mut Server| {
            server.loops(start);
            true
        };
        let returned = |server: &mut Server| silent(server) && server.replied(after(1_500));
        type Event<'a> = &'a dyn Fn(&mut Server) -> bool;
        let rows: [(&str, Event<'_>, u64, bool); 7] = [
            ("up", &|_| true, 60_000, true),
            ("silent since a moment", &silent, 1_000, true),
            ("silent for nearly as long as questions wait", &silent, 4_799, true),
            ("silent for longer", &silent, 4_800, false),
            ("closed", &closed, 1, false),
            ("looping", &looping, 1, false),
            ("heard again", &returned, 60_000, true),
        ];
        for (what, event, millis, expected) in rows {
            let address: std::net::SocketAddr = "192.0.2.1:53".parse().unwrap();
            let mut server = Server::new(address.into());
            assert!(event(&mut server), "{what}");
            assert_eq!(server.can_be_slow(after(millis), patience), expected, "{what}");
        }
    }
}
