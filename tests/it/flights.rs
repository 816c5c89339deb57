//! dnscache's flights against scripted upstreams in virtual time: nothing here sleeps, opens a
//! socket or reads a clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dnscache::forward::flights::{Act, Failure, Flights, Health, Question, Via};
use shared::clock::Moment;
use shared::wire::{ErrorCode, rcode};

/// Outside the pod: own sockets, random ports, random case.
const FAR: [&str; 2] = ["192.0.2.1:53", "192.0.2.2:53"];
/// Inside the pod: one socket kept.
const NEAR: &str = "127.0.0.1:10053";

/// What a scripted server does with one query: datagrams, each after a delay.
type Script = Box<dyn FnMut(&mut Draw, &[u8]) -> Vec<(Duration, Vec<u8>)>>;

/// Pseudo-random numbers from a seed.
#[derive(Clone)]
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn chance(&mut self, share: f64) -> bool {
        (self.next() >> 11) as f64 / ((1_u64 << 53) as f64) < share
    }
}

/// How a waiter's wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered { after: Duration },
    Failed { after: Duration, failure: Failure },
}

/// Flights, servers and a clock.
struct World {
    flights: Flights<u32>,
    now: Moment,
    draw: Draw,
    servers: Vec<(SocketAddr, Script)>,
    /// What is under way, by arrival: datagrams with the socket they go to, outcomes over TCP.
    arrivals: BTreeMap<(Moment, u64), Arrival>,
    count: u64,
    asked: BTreeMap<u32, Moment>,
    ended: BTreeMap<u32, End>,
    /// Queries sent for clients and probes, by server.
    sent: Vec<Vec<Moment>>,
    probes: Vec<Vec<Moment>>,
    dialed: usize,
    /// Whether TCP works.
    tcp: bool,
    /// Replies over TCP have TC set and no answer.
    tcp_truncated: bool,
    /// Which group is asked where the first one refuses.
    beyond: Option<usize>,
    /// Which socket each slot has open, as a serial number.
    sockets: BTreeMap<u16, u64>,
    acts: Vec<Act>,
}

enum Arrival {
    Datagram { via: Via, socket: u64, bytes: Vec<u8> },
    Stream { ticket: dnscache::forward::flights::Ticket, bytes: Option<Vec<u8>> },
}

impl World {
    /// One group of servers at `addresses` that do as `script` says for each.
    fn new(addresses: &[&str], script: impl Fn(usize) -> Script) -> Self {
        Self::with_groups(&[addresses], script)
    }

    /// Groups of servers; `script` gets their numbers over all groups.
    fn with_groups(groups: &[&[&str]], script: impl Fn(usize) -> Script) -> Self {
        let mut seed = Draw(0x9e37_79b9_7f4a_7c15);
        let servers: Vec<(SocketAddr, Script)> = groups
            .concat()
            .iter()
            .enumerate()
            .map(|(index, address)| (address.parse().unwrap(), script(index)))
            .collect();
        let mut world = Self {
            flights: Flights::new(Box::new(move || seed.next())),
            now: Moment::from_nanos(1_000_000_000_000),
            draw: Draw(42),
            arrivals: BTreeMap::new(),
            count: 0,
            asked: BTreeMap::new(),
            ended: BTreeMap::new(),
            sent: servers.iter().map(|_| Vec::new()).collect(),
            probes: servers.iter().map(|_| Vec::new()).collect(),
            dialed: 0,
            tcp: true,
            tcp_truncated: false,
            beyond: None,
            sockets: BTreeMap::new(),
            acts: Vec::new(),
            servers,
        };
        let group = |group: &&[&str]| group.iter().map(|text| text.parse().unwrap()).collect();
        let groups: Vec<Vec<SocketAddr>> = groups.iter().map(group).collect();
        world.flights.set_groups(&groups, world.now, &mut world.acts);
        world.act();
        world.pass(Duration::from_secs(1)); // the sounding of new servers
        world
    }

    /// `client` asks for the A records of `name`; its number is the return value.
    fn ask(&mut self, name: &str, client: u32) -> u32 {
        self.count += 1;
        let waiter = self.count as u32;
        self.asked.insert(waiter, self.now);
        let name = wire(name);
        let question = question(&name);
        let address = IpAddr::V4(Ipv4Addr::from(client));
        let slot = match self.flights.find(&question) {
            Some(slot) => Ok(slot),
            None => self
                .flights
                .admit(address)
                .and_then(|()| self.flights.start(&question, 0, self.now, &mut self.acts)),
        };
        let refused = slot.and_then(|slot| {
            self.flights.attach(slot, Some(address), waiter).map_err(|(_, why)| why)
        });
        if let Err(failure) = refused {
            self.ended.insert(waiter, End::Failed { after: Duration::ZERO, failure });
        }
        self.act();
        waiter
    }

    /// Asks and waits; how it ended.
    fn answer(&mut self, name: &str) -> End {
        let waiter = self.ask(name, 1);
        self.pass(Duration::from_secs(2));
        self.ended[&waiter]
    }

    /// Lets time pass, from event to event.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let arrival = self.arrivals.keys().next().map(|&(at, _)| at);
            let next = [arrival, self.flights.next_due()].into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next <= until) else { break };
            self.now = self.now.max(next);
            if let Some((_, arrival)) = self
                .arrivals
                .first_key_value()
                .is_some_and(|(&(at, _), _)| at <= self.now)
                .then(|| self.arrivals.pop_first())
                .flatten()
            {
                self.arrive(arrival);
            }
            self.flights.tick(self.now, &mut self.acts);
            self.act();
        }
        self.now = until;
    }

    fn arrive(&mut self, arrival: Arrival) {
        let landed = match arrival {
            Arrival::Datagram { via, socket, bytes } => {
                let open = match via {
                    Via::Own(slot) => self.sockets.get(&slot) == Some(&socket),
                    Via::Pool(_) => true,
                };
                open.then(|| self.flights.datagram(via, &bytes, self.now, &mut self.acts)).flatten()
            }
            Arrival::Stream { ticket, bytes } => {
                self.flights.stream(ticket, bytes.as_deref(), self.now, &mut self.acts)
            }
        };
        if let Some(slot) = landed {
            let (now, asked, ended) = (self.now, &self.asked, &mut self.ended);
            self.flights.land(slot, &mut self.acts, |waiter| {
                let after = now.since(asked[&waiter]);
                assert!(ended.insert(waiter, End::Answered { after }).is_none(), "answered twice");
            });
        }
        self.act();
    }

    fn act(&mut self) {
        let mut at = 0;
        while at < self.acts.len() {
            match self.acts[at] {
                Act::Send { ticket, server } => {
                    if let Some(slot) = self.flights.slot(ticket) {
                        self.send(slot, server);
                    }
                }
                Act::Dial { ticket, server, .. } => self.dial(ticket, server),
                Act::Close { slot } => {
                    self.sockets.remove(&slot);
                }
                Act::Fail { slot } => self.fail(slot),
            }
            at += 1;
        }
        self.acts.clear();
    }

    /// What the desk does.
    fn fail(&mut self, slot: u16) {
        let mut failure = self.flights.failure(slot);
        if let Some(group) = self.beyond.filter(|_| failure.rcode == rcode::REFUSED) {
            match self.flights.go_beyond(slot, group, self.now, &mut self.acts) {
                Ok(()) => return,
                Err(why) => failure = why,
            }
        }
        let (now, asked, ended) = (self.now, &self.asked, &mut self.ended);
        self.flights.land(slot, &mut self.acts, |waiter| {
            let end = End::Failed { after: now.since(asked[&waiter]), failure };
            assert!(ended.insert(waiter, end).is_none(), "answered twice");
        });
    }

    fn send(&mut self, slot: u16, server: u16) {
        let message = self.flights.message(slot).to_vec();
        let address = self.flights.servers().get(server).address;
        let local = self.flights.servers().get(server).is_local();
        self.count += 1;
        let via = if local { Via::Pool(server) } else { Via::Own(slot) };
        if !local {
            self.sockets.insert(slot, self.count);
        }
        let socket = self.count;
        let at = self.servers.iter().position(|(known, _)| *known == address).unwrap();
        let own = is_own(&message);
        let log = if own { &mut self.probes } else { &mut self.sent };
        log[at].push(self.now);
        for (delay, bytes) in (self.servers[at].1)(&mut self.draw, &message) {
            self.count += 1;
            let arrival = Arrival::Datagram { via, socket, bytes };
            self.arrivals.insert((self.now + delay, self.count), arrival);
        }
    }

    fn dial(&mut self, ticket: dnscache::forward::flights::Ticket, _server: u16) {
        self.dialed += 1;
        self.count += 1;
        let slot = self.flights.slot(ticket).unwrap();
        let mut bytes = self.tcp.then(|| reply(self.flights.message(slot), 0));
        if let Some(bytes) = bytes.as_mut().filter(|_| self.tcp_truncated) {
            bytes[2] |= 0x02;
        }
        let arrival = Arrival::Stream { ticket, bytes };
        self.arrivals.insert((self.now + Duration::from_millis(2), self.count), arrival);
    }

    fn health(&self, server: u16) -> Health {
        self.flights.servers().get(server).health()
    }
}

fn wire(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

fn question(name: &[u8]) -> Question<'_> {
    Question { name, qtype: 1, qclass: 1, dnssec_ok: false, checking_disabled: false }
}

/// Whether a query is dnscache's own, not a client's.
fn is_own(query: &[u8]) -> bool {
    query[12] == 0 || query.windows(4).any(|bytes| bytes.eq_ignore_ascii_case(b"loop"))
}

fn question_end(query: &[u8]) -> usize {
    shared::wire::name_end(query, 12).unwrap() + 4
}

/// A reply without records: NOERROR and nothing is an answer for a flight.
fn reply(query: &[u8], code: u8) -> Vec<u8> {
    let mut out = query[..question_end(query)].to_vec();
    out[2] |= 0x80;
    out[3] = 0x80 | code;
    out[11] = 0;
    out
}

const RTT: Duration = Duration::from_millis(5);

fn good() -> Script {
    Box::new(|_, query| vec![(RTT, reply(query, 0))])
}

fn dead() -> Script {
    Box::new(|_, _| Vec::new())
}

fn answering(code: u16) -> Script {
    Box::new(move |_, query| vec![(RTT, reply(query, code as u8))])
}

fn lossy(share: f64) -> Script {
    Box::new(
        move |draw, query| {
            if draw.chance(share) { Vec::new() } else { vec![(RTT, reply(query, 0))] }
        },
    )
}

#[test]
fn a_thousand_clients_cost_one_query() {
    for addresses in [&FAR[..1], &[NEAR]] {
        let mut world = World::new(addresses, |_| good());
        let waiters: Vec<u32> = (0..1_000).map(|client| world.ask("a.example", client)).collect();
        world.pass(Duration::from_millis(100));
        assert_eq!(world.sent[0].len(), 1);
        assert!(waiters.iter().all(|waiter| world.ended[waiter] == End::Answered { after: RTT }));
        assert_eq!(world.flights.in_flight(), 0);
        assert!(world.sockets.is_empty(), "own sockets are closed");
    }
}

/// A server in the pod that refuses, and one outside that does as `outside` says.
fn sent_away(outside: fn() -> Script) -> World {
    let script = |at| if at == 0 { answering(rcode::REFUSED) } else { outside() };
    let mut world = World::with_groups(&[&[NEAR], &FAR[..1]], script);
    world.beyond = Some(1);
    world
}

#[test]
fn who_is_sent_away_asks_beyond_once() {
    let mut world = sent_away(good);
    assert_eq!(world.answer("8.8.8.8.in-addr.arpa"), End::Answered { after: RTT * 2 });
    assert_eq!((world.sent[0].len(), world.sent[1].len()), (1, 1));
    let mut world = sent_away(|| answering(rcode::REFUSED));
    let End::Failed { after, failure } = world.answer("8.8.8.8.in-addr.arpa") else { panic!() };
    assert_eq!((after, failure.rcode), (RTT * 2, rcode::REFUSED));
    assert_eq!((world.sent[0].len(), world.sent[1].len()), (1, 1));
    let mut world = sent_away(dead);
    let End::Failed { after, failure } = world.answer("8.8.8.8.in-addr.arpa") else { panic!() };
    assert!(after <= Duration::from_millis(1_800), "{after:?}");
    assert_eq!(failure.rcode, rcode::SERVFAIL);
    assert_eq!(world.flights.in_flight(), 0);
}

#[test]
fn those_beyond_leave_places_for_the_pod() {
    let mut world = sent_away(dead);
    let start = world.now;
    for number in 0..4_000 {
        world.ask(&format!("n{number}.in-addr.arpa"), number / 50);
    }
    world.pass(Duration::from_millis(100));
    assert_eq!(world.now.since(start), Duration::from_millis(100));
    assert_eq!(world.flights.in_flight(), 3_072, "three quarters of all places");
    let failed = world.ended.values().filter(|end| {
        matches!(end, End::Failed { failure, .. }
        if failure.rcode == rcode::SERVFAIL)
    });
    assert_eq!(failed.count(), 4_000 - 3_072);
}

#[test]
fn a_silent_server_costs_its_patience_once() {
    let mut world = World::new(&FAR, |at| if at == 0 { dead() } else { good() });
    world.pass(Duration::from_secs(3));
    for number in 0..200 {
        let End::Answered { after } = world.answer(&format!("n{number}.example")) else {
            panic!("query {number} failed")
        };
        assert!(after <= RTT + Duration::from_millis(400), "query {number}: {after:?}");
        assert!(number < 3 || after <= RTT + Duration::from_millis(20), "{number}: {after:?}");
    }
    let probes = &world.probes[0];
    assert!(probes.windows(2).all(|two| two[1].since(two[0]) >= Duration::from_secs(1)));
}

#[test]
fn nobody_waits_longer_than_two_seconds() {
    let cases: [(&str, &[&str], fn() -> Script, u16, ErrorCode); 5] = [
        ("one silent", &FAR[..1], dead, rcode::SERVFAIL, ErrorCode::NetworkError),
        ("two silent", &FAR, dead, rcode::SERVFAIL, ErrorCode::NetworkError),
        ("SERVFAIL", &FAR, || answering(2), rcode::SERVFAIL, ErrorCode::Other),
        ("REFUSED", &FAR[..1], || answering(5), rcode::REFUSED, ErrorCode::Other),
        ("nothing to ask", &[], dead, rcode::SERVFAIL, ErrorCode::NoReachableAuthority),
    ];
    for (case, addresses, script, code, reason) in cases {
        let mut world = World::new(addresses, |_| script());
        let End::Failed { after, failure } = world.answer("a.example") else { panic!("{case}") };
        assert!(after <= Duration::from_millis(1_810), "{case}: {after:?}");
        assert_eq!((failure.rcode, failure.reason), (code, reason), "{case}");
        assert!(world.sent.iter().all(|sent| sent.len() <= 3), "{case}: {:?}", world.sent);
    }
}

#[test]
fn failures_are_asked_elsewhere_once() {
    for code in [rcode::SERVFAIL, rcode::REFUSED] {
        let mut world = World::new(&FAR, move |at| if at == 0 { answering(code) } else { good() });
        assert_eq!(world.answer("a.example"), End::Answered { after: RTT * 2 });
        assert_eq!((world.sent[0].len(), world.sent[1].len()), (1, 1));
    }
}

#[test]
fn servers_that_are_down_get_one_probe_a_second_and_come_back() {
    let alive = std::rc::Rc::new(std::cell::Cell::new(true));
    for addresses in [&FAR[..], &[NEAR]] {
        alive.set(true);
        let mut world = World::new(addresses, |_| {
            let alive = alive.clone();
            Box::new(move |_, query| match alive.get() {
                true => vec![(RTT, reply(query, 0))],
                false => Vec::new(),
            })
        });
        alive.set(false);
        let start = world.now;
        for number in 0..40 {
            world.ask(&format!("n{number}.example"), number);
            world.pass(Duration::from_millis(250));
        }
        let End::Failed { after, failure } = world.answer("quick.example") else {
            panic!("answered by nobody")
        };
        let known_down = (Duration::ZERO, ErrorCode::NoReachableAuthority);
        assert_eq!((after, failure.reason), known_down);
        let end = world.now;
        world.pass(Duration::from_secs(60));
        for probes in &world.probes {
            let later = probes.iter().filter(|&&at| at > start).count() as u64;
            assert!(later <= world.now.since(start).as_secs() + 1, "{later} probes");
            assert!(later >= world.now.since(end).as_secs(), "{later} probes");
        }
        alive.set(true);
        world.pass(Duration::from_millis(1_100));
        assert_eq!(world.answer("back.example"), End::Answered { after: RTT });
    }
}

#[test]
fn a_closed_local_port_fails_at_once() {
    let mut world = World::new(&[NEAR], |_| dead());
    let waiter = world.ask("a.example", 1);
    world.flights.unreachable(Via::Pool(0), world.now, &mut world.acts);
    world.act();
    let End::Failed { after, failure } = world.ended[&waiter] else { panic!("answered") };
    assert_eq!((after, failure.reason), (Duration::ZERO, ErrorCode::NoReachableAuthority));
    assert_eq!(world.health(0), Health::Down);
    // From outside the same word may be forged: the try ends, the server is not condemned.
    let mut world = World::new(&FAR[..1], |_| good());
    let waiter = world.ask("a.example", 1);
    let slot = *world.sockets.keys().next().unwrap();
    world.flights.unreachable(Via::Own(slot), world.now, &mut world.acts);
    world.act();
    world.pass(RTT);
    assert_eq!(world.ended[&waiter], End::Answered { after: RTT });
    assert_eq!((world.sent[0].len(), world.health(0)), (2, Health::Up));
}

#[test]
fn lies_neither_end_the_wait_nor_hurt_the_server() {
    let lies: [(&str, fn(&mut Vec<u8>)); 10] = [
        ("another ID", |reply| reply[0] ^= 1),
        ("another name", |reply| reply[13] ^= 1),
        ("another type", |reply| *reply.iter_mut().nth_back(2).unwrap() ^= 1),
        ("another class", |reply| *reply.last_mut().unwrap() ^= 2),
        ("another case", |reply| reply[13..20].make_ascii_uppercase()),
        ("no question", |reply| {
            reply.truncate(12);
            reply[5] = 0;
        }),
        ("two questions", |reply| reply[5] = 2),
        ("a query", |reply| reply[2] &= 0x7f),
        ("another opcode", |reply| reply[2] |= 0x08),
        ("nothing", Vec::clear),
    ];
    for (lie, forge) in lies {
        for (addresses, dials) in [(&FAR[..1], 1), (&[NEAR], 0)] {
            let mut world = World::new(addresses, |_| {
                Box::new(move |_, query| {
                    let mut forged = reply(query, 0);
                    if !is_own(query) {
                        forge(&mut forged);
                    }
                    let early = |n: u64| (Duration::from_micros(n), forged.clone());
                    (0..1_000).map(early).chain([(RTT, reply(query, 0))]).collect()
                })
            });
            world.tcp = false;
            let failed = world.flights.servers().get(0).failed;
            let name = "abcdefghijklmnopqrst.example";
            assert_eq!(world.answer(name), End::Answered { after: RTT }, "{lie}");
            assert_eq!(world.dialed, dials, "{lie}");
            let server = world.flights.servers().get(0);
            assert_eq!((server.failed, server.health()), (failed, Health::Up), "{lie}");
        }
    }
}

#[test]
fn a_forger_cannot_interfere_with_tcp() {
    let mut world = World::new(&FAR[..1], |_| {
        Box::new(|_, query| {
            let mut forged = reply(query, 0);
            if !is_own(query) {
                forged[0] ^= 1;
            }
            vec![(RTT, forged)]
        })
    });
    let End::Answered { after } = world.answer("a.example") else { panic!("failed") };
    assert_eq!(after, RTT + Duration::from_millis(2));
}

#[test]
fn servers_that_lose_the_case_are_learnt() {
    for tcp in [true, false] {
        let mut world = World::new(&FAR[..1], |_| {
            Box::new(|_, query| {
                let mut lower = reply(query, 0);
                lower[12..].make_ascii_lowercase();
                vec![(RTT, lower)]
            })
        });
        world.tcp = tcp;
        let name = "abcdefghijklmnopqrst.example";
        assert!(matches!(world.answer(name), End::Answered { .. }), "tcp {tcp}");
        assert!(world.dialed == 1, "tcp {tcp}");
        let again = world.answer(name);
        if tcp {
            // A TCP reply in the script keeps the case: nothing is learnt, and it is asked over TCP
            // again.
            assert!(matches!(again, End::Answered { .. }));
        } else {
            assert_eq!(again, End::Answered { after: RTT }, "learnt");
        }
    }
}

#[test]
fn truncated_replies_are_fetched_over_tcp() {
    for addresses in [&FAR[..1], &[NEAR]] {
        for (tcp, tcp_truncated) in [(true, false), (true, true), (false, false)] {
            let mut world = World::new(addresses, |_| {
                Box::new(|_, query| {
                    let mut short = reply(query, 0);
                    short[2] |= 0x02;
                    vec![(RTT, short)]
                })
            });
            (world.tcp, world.tcp_truncated) = (tcp, tcp_truncated);
            let end = world.answer("a.example");
            // What is truncated even then, without any answer, is none, and so never kept.
            let is_whole = tcp && !tcp_truncated;
            assert_eq!(matches!(end, End::Answered { .. }), is_whole, "{end:?}");
            assert_eq!((world.dialed, world.sent[0].len()), (1, 1));
            let (End::Answered { after } | End::Failed { after, .. }) = end;
            assert_eq!(after, RTT + Duration::from_millis(2));
        }
    }
}

#[test]
fn servers_that_cannot_read_opt_are_asked_without() {
    let mut world = World::new(&FAR[..1], |_| {
        Box::new(|_, query| vec![(RTT, reply(query, if query[11] == 1 { 1 } else { 0 }))])
    });
    for (number, tries) in [2, 2, 1, 1].into_iter().enumerate() {
        let before = world.sent[0].len();
        assert!(matches!(world.answer(&format!("n{number}.example")), End::Answered { .. }));
        assert_eq!(world.sent[0].len() - before, tries, "query {number}");
    }
    world.pass(Duration::from_secs(901));
    let before = world.sent[0].len();
    assert!(matches!(world.answer("late.example"), End::Answered { .. }));
    assert_eq!(world.sent[0].len() - before, 2, "after 15 minutes OPT is tried again");
}

#[test]
fn losses_are_made_up_for() {
    let mut world = World::new(&FAR, |_| lossy(0.3));
    let mut failed = 0;
    for number in 0..5_000 {
        failed +=
            u32::from(matches!(world.answer(&format!("n{number}.example")), End::Failed { .. }));
    }
    let sends = world.sent.iter().map(Vec::len).sum::<usize>();
    assert!(failed <= 5, "{failed} of 5,000 failed");
    assert!(sends <= 11_000, "{sends} sends");
}

#[test]
fn the_faster_server_gets_the_work() {
    let mut world = World::new(&FAR, |at| {
        let rtt = Duration::from_millis([80, 5][at]);
        Box::new(move |_, query| vec![(rtt, reply(query, 0))])
    });
    for number in 0..100 {
        world.answer(&format!("n{number}.example"));
    }
    assert!(world.sent[1].len() >= 99, "{} went to the faster one", world.sent[1].len());
    let probes = world.probes[0].len();
    assert!((10..=30).contains(&probes), "the slower one is measured now and then: {probes}");
}

#[test]
fn places_are_bounded() {
    // Questions: the last quarter of the places is for servers in the pod.
    let mut world = World::new(&FAR[..1], |_| dead());
    let far = world.servers[0].0;
    let groups = [vec![far], vec![NEAR.parse().unwrap()]];
    world.servers.push((NEAR.parse().unwrap(), dead()));
    world.sent.push(Vec::new());
    world.probes.push(Vec::new());
    world.flights.set_groups(&groups, world.now, &mut world.acts);
    world.act();
    world.pass(Duration::from_secs(1));
    for number in 0..3_073 {
        world.ask(&format!("n{number}.example"), number);
    }
    assert_eq!(world.flights.in_flight(), 3_072);
    let full = |world: &World| {
        world.ended.values().filter(|end| matches!(end, End::Failed { .. })).count()
    };
    assert_eq!(full(&world), 1);
    let local = wire("svc.cluster.local");
    assert!(world.flights.start(&question(&local), 1, world.now, &mut world.acts).is_ok());
    // Waiters of one client, and of one question.
    let mut world = World::new(&FAR[..1], |_| dead());
    for number in 0..1_000 {
        world.ask(&format!("n{number}.example"), 7);
    }
    assert_eq!(full(&world), 181);
    assert_eq!(world.flights.in_flight(), 819, "what is refused is not asked");
    for client in 1_000..2_100 {
        world.ask("n0.example", client);
    }
    assert_eq!(full(&world), 181 + 77);
    // All places are given back.
    world.pass(Duration::from_secs(2));
    assert!(world.flights.in_flight() <= 1, "nothing but a probe");
    let waiter = world.ask("again.example", 7);
    if let Some(End::Failed { failure, .. }) = world.ended.get(&waiter) {
        assert_ne!(failure.reason, ErrorCode::Other, "no place is taken");
    }
}

#[test]
fn a_query_that_comes_back_disables_its_server() {
    let mut world = World::new(&FAR, |_| good());
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let spy = seen.clone();
    let address: SocketAddr = "192.0.2.9:53".parse().unwrap();
    world.servers.push((
        address,
        Box::new(move |_, query| {
            spy.borrow_mut().push(query.to_vec());
            vec![(RTT, reply(query, 0))]
        }),
    ));
    world.sent.push(Vec::new());
    world.probes.push(Vec::new());
    let far: Vec<SocketAddr> = FAR.iter().map(|address| address.parse().unwrap()).collect();
    let groups = [vec![address, far[0]]];
    world.flights.set_groups(&groups, world.now, &mut world.acts);
    world.act();
    let sounding = seen.borrow()[0].to_ascii_lowercase();
    let end = question_end(&sounding);
    let qtype = u16::from_be_bytes([sounding[end - 4], sounding[end - 3]]);
    let come_back = Question { qtype, ..question(&sounding[12..end - 4]) };
    let other = wire("0123456789abcdef.dnscache-loop");
    assert_eq!(world.flights.comes_back(&question(&other)), None);
    let index = world.flights.comes_back(&come_back).unwrap();
    assert_eq!(world.flights.servers().get(index).address, address);
    assert_eq!(world.health(index), Health::Looping);
    assert!(matches!(world.answer("a.example"), End::Answered { .. }));
    assert!(world.sent[2].is_empty());
    // New routes give it another chance.
    world.flights.set_groups(&groups, world.now, &mut world.acts);
    world.act();
    assert_eq!(world.health(index), Health::Up);
}

#[test]
fn new_routes_leave_flights_in_the_air_alone() {
    let mut world = World::new(&FAR[..1], |_| good());
    for round in 0..100_u32 {
        let waiter = world.ask(&format!("n{round}.example"), 1);
        let addresses = [vec![SocketAddr::from(([192, 0, 2, 1 + (round % 2) as u8], 53))]];
        if round == 0 {
            world.servers.push((addresses[0][0], good()));
            world.servers.push((SocketAddr::from(([192, 0, 2, 2], 53)), good()));
            world.sent.resize(3, Vec::new());
            world.probes.resize(3, Vec::new());
        }
        world.flights.set_groups(&addresses, world.now, &mut world.acts);
        world.act();
        world.pass(Duration::from_millis(20));
        assert_eq!(world.ended[&waiter], End::Answered { after: RTT }, "round {round}");
    }
    assert!(world.flights.servers().iter().count() == 1);
}

#[test]
fn aliases_do_not_lead_in_circles() {
    let mut world = World::new(&FAR[..1], |_| dead());
    let names: Vec<Vec<u8>> = (0..13).map(|n| wire(&format!("n{n}.example"))).collect();
    let slots: Vec<u16> = names
        .iter()
        .map(|name| world.flights.start(&question(name), 0, world.now, &mut world.acts).unwrap())
        .collect();
    assert!(world.flights.follow(slots[0], b"answer", slots[1]).is_ok());
    assert_eq!(world.flights.partial(slots[0]), b"answer");
    assert!(world.flights.follow(slots[1], b"", slots[0]).is_err(), "a circle of two");
    assert!(world.flights.follow(slots[2], b"", slots[2]).is_err(), "a circle of one");
    for at in 1..11 {
        assert!(world.flights.follow(slots[at], b"", slots[at + 1]).is_ok(), "link {at}");
    }
    assert!(world.flights.follow(slots[11], b"", slots[12]).is_err(), "the twelfth link");
}

#[test]
fn identifiers_use_all_their_bits() {
    let ids = std::rc::Rc::new(std::cell::RefCell::new(vec![0_u32; 256]));
    let spy = ids.clone();
    let mut world = World::new(&FAR[..1], move |_| {
        let spy = spy.clone();
        Box::new(move |_, query| {
            spy.borrow_mut()[usize::from(query[0])] += 1;
            spy.borrow_mut()[usize::from(query[1])] += 1;
            vec![(RTT, reply(query, 0))]
        })
    });
    for number in 0..12_800 {
        world.ask(&format!("n{number}.example"), number);
        world.pass(RTT);
    }
    // 255 degrees of freedom: above 330 is one in a thousand.
    let chi: f64 = ids.borrow().iter().map(|&n| (f64::from(n) - 100.0).powi(2) / 100.0).sum();
    assert!(chi < 330.0, "chi-square {chi}");
}
