//! The upstream servers: how fast each answers, how often not at all, which are down, and which one
//! is asked next.
//!
//! Core. Learns only from exchanges that were proven genuine or ran out of time; a forged packet
//! changes nothing here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use shared::clock::Moment;

/// One upstream server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Queries sent to it, every try counted.
    pub sent: u64,
    /// Tries that it left unanswered or refused.
    pub failed: u64,
    /// It reads OPT; not again before this moment where it has shown twice that it does not.
    plain_until: Option<Moment>,
    plain_votes: u8,
    /// It echoes the case of the question.
    pub(super) keeps_case: bool,
    rtt: Option<RoundTrip>,
    /// Share of the tries that got no reply, of late: 0 to 1.
    loss: f32,
    /// Tries without a reply since the last reply, and when the first of them was sent.
    silent: u32,
    silent_since: Moment,
    health: Health,
    /// When it was last sent a probe, and when it last answered.
    probed: Option<Moment>,
    heard: Option<Moment>,
    /// The random number in the name of the last query sent to see whether it comes back.
    sounding: Option<u64>,
    /// Since when no route names it.
    retired: Option<Moment>,
}

/// Whether a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Up,
    /// It is silent or refuses: only probes go there.
    Down,
    /// It sends our queries back to us: nothing goes there until the routes change.
    Looping,
}

/// Jacobson's estimate of the round-trip time (RFC 6298 section 2).
#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    smoothed: Duration,
    deviation: Duration,
}

impl Server {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            sent: 0,
            failed: 0,
            plain_until: None,
            plain_votes: 0,
            keeps_case: true,
            rtt: None,
            loss: 0.0,
            silent: 0,
            silent_since: Moment::default(),
            health: Health::Up,
            probed: None,
            heard: None,
            sounding: None,
            retired: None,
        }
    }

    /// Whether it is asked, and if not, why.
    pub fn health(&self) -> Health {
        self.health
    }

    /// The smoothed round-trip time, once it has answered.
    pub fn round_trip(&self) -> Option<Duration> {
        self.rtt.map(|rtt| rtt.smoothed)
    }

    /// Whether it runs in this pod: the only path to it is our own loopback interface, where nobody
    /// forges packets without being able to read ours, and where one socket may be kept for all
    /// queries.
    pub fn is_local(&self) -> bool {
        match self.address.ip() {
            IpAddr::V4(address) => address == Ipv4Addr::LOCALHOST,
            IpAddr::V6(address) => address == Ipv6Addr::LOCALHOST,
        }
    }

    /// How long a try waits before another is made: 376 ms for an unknown server, as Unbound does;
    /// later what its round trips suggest.
    pub(super) fn patience(&self) -> Duration {
        match self.rtt {
            None => PATIENCE_FIRST,
            Some(rtt) => (rtt.smoothed + rtt.deviation * 4).clamp(PATIENCE_MIN, PATIENCE_FIRST),
        }
    }

    /// What asking it costs, in expected nanoseconds: lower is better.
    fn cost(&self) -> u64 {
        let rtt = self.rtt.map_or(PATIENCE_FIRST, |rtt| rtt.smoothed);
        rtt.as_nanos() as u64 + (self.loss * PATIENCE_FIRST.as_nanos() as f32) as u64
    }

    /// Notes a try.
    pub(super) fn sent(&mut self, now: Moment) {
        self.sent += 1;
        if self.silent == 0 {
            self.silent_since = now;
            self.silent = 1;
        }
    }

    /// Notes the random number in the name of a query sent to see whether it comes back.
    pub(super) fn sounded_with(&mut self, number: u64) {
        self.sounding = Some(number);
    }

    /// That number.
    pub(super) fn sounded(&self) -> Option<u64> {
        self.sounding
    }

    /// Notes a genuine reply; `rtt` where it is known which try it answers.
    pub(super) fn replied(&mut self, rtt: Option<Duration>, now: Moment) {
        self.silent = 0;
        self.loss *= 1.0 - LOSS_GAIN;
        self.heard = Some(now);
        if self.health == Health::Down {
            self.health = Health::Up;
            self.loss = 0.0;
        }
        if let Some(sample) = rtt {
            self.rtt = Some(match self.rtt {
                None => RoundTrip { smoothed: sample, deviation: sample / 2 },
                Some(RoundTrip { smoothed, deviation }) => RoundTrip {
                    deviation: (deviation * 3 + smoothed.abs_diff(sample)) / 4,
                    smoothed: (smoothed * 7 + sample) / 8,
                },
            });
        }
    }

    /// Notes a try that got no reply in time. Many in a row for a second and more: the server is
    /// down.
    pub(super) fn was_silent(&mut self, now: Moment) {
        self.failed += 1;
        if self.silent == 0 {
            self.silent_since = now;
        }
        self.silent += 1;
        self.loss += (1.0 - self.loss) * LOSS_GAIN;
        let long = now.since(self.silent_since) >= SILENT_MAX;
        if self.health == Health::Up && self.silent > SILENT_TRIES && long {
            self.health = Health::Down;
        }
    }

    /// Notes that nothing listens there, as our own kernel says.
    pub(super) fn is_closed(&mut self, now: Moment) {
        self.failed += 1;
        self.probed = Some(now);
        if self.health == Health::Up {
            self.health = Health::Down;
        }
    }

    /// Notes that it sends our queries back to us.
    pub(super) fn is_looping(&mut self) {
        self.health = Health::Looping;
    }

    /// Whether queries to it carry OPT.
    pub(super) fn reads_edns(&self, now: Moment) -> bool {
        self.plain_until.is_none_or(|until| now >= until)
    }

    /// Notes that it answered without OPT what it had not understood with it. Twice is proof (RFC
    /// 6891 section 6.2.2).
    pub(super) fn answered_plain(&mut self, now: Moment) {
        self.plain_votes += 1;
        if self.plain_votes >= 2 {
            self.plain_votes = 0;
            self.plain_until = Some(now + PLAIN_TIME);
        }
    }

    /// When it is next worth a probe: one a second while it is down.
    fn probe_due(&self) -> Option<Moment> {
        (self.health == Health::Down && self.retired.is_none())
            .then(|| self.probed.map_or(Moment::default(), |last| last + PROBE_PAUSE))
    }

    /// Notes a probe.
    pub(super) fn probed(&mut self, now: Moment) {
        self.probed = Some(now);
    }

    /// Whether nothing was heard of it for a while, so that its round-trip time is worth measuring
    /// again.
    fn is_forgotten(&self, now: Moment) -> bool {
        let latest = self.heard.max(self.probed);
        self.health == Health::Up && latest.is_none_or(|last| now.since(last) >= MEASURE_PAUSE)
    }
}

/// All servers that any route names, by index.
#[derive(Debug, Default)]
pub struct Servers(Vec<Server>);

impl Servers {
    /// Server `index`.
    pub fn get(&self, index: u16) -> &Server {
        &self.0[usize::from(index)]
    }

    pub(super) fn get_mut(&mut self, index: u16) -> &mut Server {
        &mut self.0[usize::from(index)]
    }

    /// Every server with its index, those out of use left out.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Server)> {
        (0..).zip(&self.0).filter(|(_, server)| server.retired.is_none())
    }

    /// Starts a new set of routes: a server that is not asked for with [`Servers::index`] hereafter
    /// is out of use. One that looped gets another chance.
    pub(super) fn retire_all(&mut self, now: Moment) {
        for server in &mut self.0 {
            server.retired.get_or_insert(now);
        }
    }

    /// The index of the server at `address`, and whether it was not in use before. What was learnt
    /// about it stays.
    ///
    /// The place of a server that has been out of use for longer than any flight lasts is given to
    /// the next.
    pub(super) fn index(&mut self, address: SocketAddr, now: Moment) -> (u16, bool) {
        if let Some(at) = self.0.iter().position(|server| server.address == address) {
            let server = &mut self.0[at];
            let back = server.retired.take().is_some_and(|since| since != now);
            if server.health == Health::Looping {
                server.health = Health::Up;
                return (at as u16, true);
            }
            return (at as u16, back);
        }
        let old = self.0.iter().position(|server| {
            server.retired.is_some_and(|since| now.since(since) > RETIREMENT_MIN)
        });
        let at = old.unwrap_or(self.0.len());
        match old {
            Some(at) => self.0[at] = Server::new(address),
            None => self.0.push(Server::new(address)),
        }
        (at as u16, true)
    }

    /// The best of `candidates` that is up, as far as `tries` (how often each was tried, `None` for
    /// no more) allows: the least tried first, then the cheapest, then the first.
    pub(super) fn choose(
        &self,
        candidates: &[u16],
        tries: impl Fn(usize) -> Option<u8>,
    ) -> Option<usize> {
        let usable = candidates.iter().enumerate().filter_map(|(at, &index)| {
            let server = self.get(index);
            let tried = tries(at)?;
            (server.health == Health::Up).then(|| (tried, server.cost(), at))
        });
        usable.min().map(|(_, _, at)| at)
    }

    /// Whether none of `candidates` is up.
    pub(super) fn all_down(&self, candidates: &[u16]) -> bool {
        candidates.iter().all(|&index| self.get(index).health != Health::Up)
    }

    /// One of `candidates` whose round-trip time is worth measuring again.
    pub(super) fn forgotten(&self, candidates: &[u16], now: Moment) -> Option<u16> {
        candidates.iter().copied().find(|&index| self.get(index).is_forgotten(now))
    }

    /// When the next server that is down is worth a probe.
    pub(super) fn probe_due(&self) -> Option<Moment> {
        self.0.iter().filter_map(Server::probe_due).min()
    }

    /// A server that is down and worth a probe at `now`.
    pub(super) fn probe_next(&self, now: Moment) -> Option<u16> {
        let due = |server: &Server| server.probe_due().is_some_and(|due| due <= now);
        self.0.iter().position(due).map(|at| at as u16)
    }
}

/// A try at an unknown server waits this long (Unbound's first guess), and no try waits longer
/// before another is made.
const PATIENCE_FIRST: Duration = Duration::from_millis(376);
/// A try waits at least this long: a recursive upstream is slower on names it does not know than
/// its round trips tell.
const PATIENCE_MIN: Duration = Duration::from_millis(100);
/// How much one try weighs in the share of lost ones.
const LOSS_GAIN: f32 = 0.125;
/// A server is down when more tries than this got no reply in a row ...
const SILENT_TRIES: u32 = 6;
/// ... over at least this time: a burst of queries must not condemn it for one lost second's
/// fraction.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// Between two probes of a server that is down.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// Servers that are up and not asked are measured this often while their group is in use.
const MEASURE_PAUSE: Duration = Duration::from_secs(10);
/// How long a server that cannot read OPT is asked without.
const PLAIN_TIME: Duration = Duration::from_secs(900);
/// Longer than any flight, so that no flight holds the index of another server.
const RETIREMENT_MIN: Duration = Duration::from_secs(10);
