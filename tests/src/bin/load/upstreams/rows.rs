//! The rows of the table. Each row is a fault of an upstream, with the figures that clients see.
//!
//! Edge. Every server is started again for each row and round, so that it has no earlier state.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ::tests::upstream::{Behaviour, Loss, Upstream};
use tokio::runtime::Runtime;

use super::asker::{self, Outcome, Question};
use super::table::{Figure, Unit};
use crate::compare::servers::{self, CACHE_ENTRIES, Running, Server, Setting};

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Row {
    /// 30 % of datagrams are lost each way, with one upstream.
    Loss,
    /// The same with two upstreams.
    LossTwo,
    /// The first of two upstreams falls silent.
    Silent,
    /// An upstream that takes 0.5, 1.2, 1.9 and 4 s for each answer.
    Slow,
    /// 10,000 clients ask for one name that is not in the cache.
    Herd,
    /// The upstream is silent for some time, and then answers again.
    Recovery,
    /// Random names of one zone, 5,000 per second, next to a client that does no harm.
    Flood,
}

/// The settings that the rows share.
pub struct Bench<'a> {
    /// The runtime of the upstreams.
    pub runtime: &'a Runtime,
    /// The core of the servers.
    pub server_core: Option<usize>,
    /// How long the upstream is silent.
    pub outage: Duration,
}

impl Row {
    /// All rows.
    pub const ALL: [Self; 7] = [
        Self::Loss,
        Self::LossTwo,
        Self::Silent,
        Self::Slow,
        Self::Herd,
        Self::Recovery,
        Self::Flood,
    ];

    /// Measures `server` and returns the figures of this row.
    pub fn measure(
        self,
        server: &Server,
        bench: &Bench<'_>,
    ) -> Result<Vec<Figure>, servers::Error> {
        match self {
            Self::Loss => loss(&Bed::start(server, bench, 1)?, "loss, one upstream"),
            Self::LossTwo => loss(&Bed::start(server, bench, 2)?, "loss, two upstreams"),
            Self::Silent => silent(&Bed::start(server, bench, 2)?),
            Self::Slow => slow(server, bench),
            Self::Herd => herd(&Bed::start(server, bench, 1)?),
            Self::Recovery => recovery(&Bed::start(server, bench, 1)?, bench.outage),
            Self::Flood => flood(&Bed::start(server, bench, 1)?),
        }
    }
}

/// A server in front of its upstreams.
struct Bed {
    running: Running,
    upstreams: Vec<Upstream>,
    /// Part of the names of this bed, so that they are new.
    number: u64,
}

impl Bed {
    /// Starts `server` with `count` upstreams that answer every name. They are outside the pod,
    /// with a delay of 10 ms.
    fn start(server: &Server, bench: &Bench<'_>, count: u8) -> Result<Self, servers::Error> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let start = |last: u8| {
            let address = IpAddr::from(Ipv4Addr::new(127, 0, 0, last)).to_string();
            bench.runtime.block_on(Upstream::start(&address))
        };
        let upstreams: Vec<Upstream> = (2..2 + count).map(start).collect();
        for upstream in &upstreams {
            upstream.otherwise("300 A 192.0.2.1");
            upstream.delay(ROUND_TRIP);
        }
        let addresses: Vec<SocketAddr> =
            upstreams.iter().map(|upstream| upstream.address).collect();
        let setting = Setting {
            upstreams: &addresses,
            cache_entries: CACHE_ENTRIES,
            nxdomain: false,
            has_rules: false,
            server_core: bench.server_core,
        };
        let running = server.start(&setting)?;
        let bed = Self { running, upstreams, number: NUMBER.fetch_add(1, Relaxed) };
        // The server has measured the round trips, as in normal operation.
        bed.ask(bed.fresh("warm", 0, (50, 100.0)), PATIENCE)?;
        bed.upstreams.iter().for_each(Upstream::forget);
        Ok(bed)
    }

    /// Returns `count` questions of one client for new names below `zone`, with this many per
    /// second.
    fn fresh(
        &self,
        zone: &'static str,
        group: usize,
        (count, rate): (u32, f64),
    ) -> impl Iterator<Item = Question> + use<> {
        let bed = self.number;
        (0..count).map(move |at| Question {
            due: Duration::from_secs_f64(f64::from(at) / rate),
            name: format!("n{at}.{zone}{bed}.example.test"),
            group,
            client: 0,
        })
    }

    fn ask(
        &self,
        questions: impl IntoIterator<Item = Question>,
        patience: Duration,
    ) -> Result<Vec<Outcome>, servers::Error> {
        asker::ask(self.running.address, questions, patience).map_err(servers::Error::Ask)
    }

    /// Returns how many queries the upstreams got for names below `zone` of this bed.
    fn sent(&self, zone: &str) -> usize {
        let suffix = format!("{zone}{}.example.test.", self.number);
        self.upstreams.iter().map(|upstream| upstream.count(&suffix)).sum()
    }
}

fn loss(bed: &Bed, label: &str) -> Result<Vec<Figure>, servers::Error> {
    let losses = Loss { queries: 0.3, replies: 0.3 };
    for (seed, upstream) in (bed.number * 10..).zip(&bed.upstreams) {
        upstream.lose(losses, seed);
    }
    let outcomes = bed.ask(bed.fresh("loss", 0, (LOSS_NAMES, 500.0)), PATIENCE)?;
    let sends = bed.sent("loss") as f64 / f64::from(LOSS_NAMES);
    Ok(vec![
        Figure::new(
            format!("30 % {label}: answered within 2 s"),
            answered(&outcomes, TWO),
            Unit::Percent,
        ),
        Figure::new(
            format!("30 % {label}: answered at all"),
            answered(&outcomes, PATIENCE),
            Unit::Percent,
        ),
        Figure::new(format!("30 % {label}: queries per name"), sends, Unit::Ratio),
    ])
}

fn silent(bed: &Bed) -> Result<Vec<Figure>, servers::Error> {
    bed.upstreams[0].behave(Behaviour::Silent);
    let outcomes = bed.ask(bed.fresh("silent", 0, (1_000, 200.0)), PATIENCE)?;
    let between = |from: u64, to: u64| {
        let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
        let some: Vec<Outcome> =
            outcomes.iter().filter(|one| (from..to).contains(&one.sent)).copied().collect();
        p99(&some)
    };
    let label = "first of two silent";
    Ok(vec![
        Figure::new(format!("{label}: p99 in the first second"), between(0, 1), Unit::Millis),
        Figure::new(format!("{label}: p99 after 3 s"), between(3, 60), Unit::Millis),
        Figure::new(format!("{label}: answered"), answered(&outcomes, PATIENCE), Unit::Percent),
    ])
}

fn slow(server: &Server, bench: &Bench<'_>) -> Result<Vec<Figure>, servers::Error> {
    let mut figures = Vec::new();
    for millis in [500, 1_200, 1_900, 4_000] {
        let bed = Bed::start(server, bench, 1)?;
        bed.upstreams[0].delay(Duration::from_millis(millis));
        let outcomes = bed.ask(bed.fresh("slow", 0, (SLOW_NAMES, 25.0)), PATIENCE)?;
        let label = format!("upstream takes {:.1} s", millis as f64 / 1e3);
        let sends = bed.sent("slow") as f64 / f64::from(SLOW_NAMES);
        figures.extend([
            Figure::new(format!("{label}: answered"), answered(&outcomes, PATIENCE), Unit::Percent),
            Figure::new(format!("{label}: queries per name"), sends, Unit::Ratio),
        ]);
    }
    Ok(figures)
}

fn herd(bed: &Bed) -> Result<Vec<Figure>, servers::Error> {
    bed.upstreams[0].delay(Duration::from_millis(200));
    let name = format!("cold.herd{}.example.test", bed.number);
    let question = |at: u64| Question {
        due: Duration::from_micros(10 * at),
        name: name.clone(),
        group: 0,
        client: (at % 40) as u8,
    };
    let outcomes = bed.ask((0..HERD).map(question), PATIENCE)?;
    let failed = outcomes.iter().filter(|one| one.took.is_some() && one.rcode == SERVFAIL).count();
    let label = "10,000 identical questions";
    Ok(vec![
        Figure::new(format!("{label}: queries"), bed.sent("herd") as f64, Unit::Count),
        Figure::new(format!("{label}: SERVFAIL"), percent(failed, outcomes.len()), Unit::Percent),
        Figure::new(format!("{label}: answered"), answered(&outcomes, PATIENCE), Unit::Percent),
        Figure::new(format!("{label}: pulse gain"), pulse_gain(&outcomes), Unit::Ratio),
    ])
}

fn recovery(bed: &Bed, outage: Duration) -> Result<Vec<Figure>, servers::Error> {
    let (upstream, server) = (&bed.upstreams[0], bed.running.address);
    let (known, new) = (
        format!("asked.down{}.example.test", bed.number),
        format!("new.down{}.example.test", bed.number),
    );
    upstream.behave(Behaviour::Silent);
    let asks = (outage.as_secs_f64() / ASK_EVERY.as_secs_f64()) as u32;
    let question =
        |at: u32| Question { due: ASK_EVERY * at, name: known.clone(), group: 0, client: 1 };
    let start = Instant::now();
    bed.ask((0..asks).map(question), Duration::ZERO)?;
    std::thread::sleep(outage.saturating_sub(start.elapsed()));
    upstream.behave(Behaviour::Good);
    let until = |name: &str| asker::until_answered(server, name, POLL, RECOVERY_MAX);
    let (known, new) = std::thread::scope(|scope| {
        let known = scope.spawn(|| until(&known));
        let new = until(&new);
        (known.join().expect("asking does not panic"), new)
    });
    let seconds = |took: Result<Option<Duration>, std::io::Error>| {
        let took = took.map_err(servers::Error::Ask)?;
        Ok::<_, servers::Error>(took.unwrap_or(RECOVERY_MAX).as_secs_f64())
    };
    let label = format!("back after {} s", outage.as_secs());
    Ok(vec![
        Figure::new(
            format!("{label}: a name that was asked, after"),
            seconds(known)?,
            Unit::Seconds,
        ),
        Figure::new(format!("{label}: a new name, after"), seconds(new)?, Unit::Seconds),
    ])
}

fn flood(bed: &Bed) -> Result<Vec<Figure>, servers::Error> {
    let upstream = &bed.upstreams[0];
    upstream.delay(Duration::from_millis(50));
    let zone = format!("flood{}.example.test", bed.number);
    upstream.deny_below(&format!("{zone}."));
    let good = (GOOD_RATE * FLOOD_SECS, f64::from(GOOD_RATE));
    let alone = bed.ask(bed.fresh("alone", 0, good), PATIENCE)?;
    let random = (0..FLOOD_RATE * FLOOD_SECS).map(|at| Question {
        due: Duration::from_secs_f64(f64::from(at) / f64::from(FLOOD_RATE)),
        name: format!("r{:08x}.{zone}", at.wrapping_mul(0x9e37_79b1)),
        group: 1,
        client: 1 + (at % 40) as u8,
    });
    let mut both: Vec<Question> = bed.fresh("good", 0, good).chain(random).collect();
    both.sort_by_key(|question| question.due);
    let outcomes = bed.ask(both, PATIENCE)?;
    let beside: Vec<Outcome> = outcomes.into_iter().filter(|one| one.group == 0).collect();
    let rate = bed.sent("flood") as f64 / f64::from(FLOOD_SECS);
    let label = "5,000 random names/s of a zone";
    Ok(vec![
        Figure::new(format!("{label}: queries/s for it"), rate, Unit::Count),
        Figure::new(format!("{label}: p99 of a good client without"), p99(&alone), Unit::Millis),
        Figure::new(format!("{label}: p99 of a good client with"), p99(&beside), Unit::Millis),
        Figure::new(
            format!("{label}: good client answered"),
            answered(&beside, PATIENCE),
            Unit::Percent,
        ),
    ])
}

fn percent(part: usize, all: usize) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}

/// Returns the percentage of NOERROR within `max`.
fn answered(outcomes: &[Outcome], max: Duration) -> f64 {
    percent(outcomes.iter().filter(|one| one.is_answered_within(max)).count(), outcomes.len())
}

/// Returns the 99th percentile of the time to NOERROR, in milliseconds. A question without that
/// answer counts as [`PATIENCE`].
fn p99(outcomes: &[Outcome]) -> f64 {
    let time = |one: &Outcome| one.took.filter(|_| one.rcode == 0).unwrap_or(PATIENCE);
    let mut times: Vec<Duration> = outcomes.iter().map(time).collect();
    times.sort_unstable();
    let at = (times.len() * 99).div_ceil(100).saturating_sub(1);
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Returns the replies in the worst 10 ms divided by the replies in a mean 10 ms, from the first
/// question to the last reply.
fn pulse_gain(outcomes: &[Outcome]) -> f64 {
    let start = outcomes.iter().map(|one| one.sent).min().unwrap_or_default();
    let bin = |at: Duration| (at.saturating_sub(start).as_millis() / PULSE_MILLIS) as usize;
    let places: Vec<usize> = outcomes.iter().filter_map(Outcome::replied).map(bin).collect();
    let Some(last) = places.iter().max() else { return 0.0 };
    let mut bins = vec![0_usize; last + 1];
    places.iter().for_each(|place| bins[*place] += 1);
    let worst = bins.iter().max().copied().unwrap_or(0);
    worst as f64 * bins.len() as f64 / places.len() as f64
}

const ROUND_TRIP: Duration = Duration::from_millis(10);
/// Longer than any client waits.
const PATIENCE: Duration = Duration::from_secs(7);
/// Most stub resolvers have retried after this time.
const TWO: Duration = Duration::from_secs(2);
const LOSS_NAMES: u32 = 2_000;
const SLOW_NAMES: u32 = 50;
const HERD: u64 = 10_000;
/// How often a client asks for the same name during an outage.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How often it asks after the outage.
const POLL: Duration = Duration::from_millis(20);
const RECOVERY_MAX: Duration = Duration::from_secs(60);
const FLOOD_RATE: u32 = 5_000;
const FLOOD_SECS: u32 = 4;
const GOOD_RATE: u32 = 100;
const PULSE_MILLIS: u128 = 10;
const SERVFAIL: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(sent: u64, took: Option<u64>, rcode: u8) -> Outcome {
        let millis = Duration::from_millis;
        Outcome { group: 0, sent: millis(sent), took: took.map(millis), rcode, retried: false }
    }

    #[test]
    fn a_pulse_is_measured_against_the_mean() {
        let even: Vec<Outcome> = (0..100).map(|at| outcome(at * 10, Some(0), 0)).collect();
        assert_eq!(pulse_gain(&even), 1.0);
        let burst: Vec<Outcome> = (0..100).map(|at| outcome(at, Some(995 - at), 0)).collect();
        assert_eq!(pulse_gain(&burst), 100.0);
        assert_eq!(pulse_gain(&[]), 0.0);
    }

    #[test]
    fn questions_without_an_answer_count_as_the_longest_wait() {
        let mut outcomes: Vec<Outcome> = (1..=98).map(|at| outcome(0, Some(at), 0)).collect();
        outcomes.extend([outcome(0, None, 0), outcome(0, Some(1), SERVFAIL)]);
        assert_eq!(p99(&outcomes), PATIENCE.as_secs_f64() * 1e3);
        assert_eq!(answered(&outcomes, Duration::from_millis(49)), 49.0);
        assert_eq!(answered(&outcomes, PATIENCE), 98.0);
    }
}
