//! dnscache's upstream queries against scripted servers in virtual time. The tests do not sleep,
//! open a socket or read a clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use dnscache::forward::act::{Act, Datagram, TryId, Via};
use dnscache::forward::queries::{End, Failure, Health, Origin, Queries, Question};
use dnscache::route::Routes;
use shared::clock::Moment;
use shared::endpoint::Endpoint;
use shared::wire::{ErrorCode, rcode};

/// Servers outside the pod: new sockets, random ports, random case.
const FAR: [&str; 2] = ["192.0.2.1:53", "192.0.2.2:53"];
/// A server inside the pod: one socket that is kept.
const NEAR: &str = "127.0.0.1:10053";

/// A function that returns a server's replies to one query: datagrams, each after a delay.
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

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn chance(&mut self, share: f64) -> bool {
        (self.next() >> 11) as f64 / ((1_u64 << 53) as f64) < share
    }
}

/// The result of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Answered { after: Duration },
    Failed { after: Duration, failure: Failure },
}

use Ending::{Answered, Failed};

/// Queries, servers and a clock.
struct World {
    queries: Queries<u32>,
    routes: Routes,
    now: Moment,
    draw: Draw,
    servers: Vec<(SocketAddr, Script)>,
    /// Messages in flight by arrival: datagrams with their target socket, and outcomes over TCP.
    arrivals: BTreeMap<(Moment, u64), Arrival>,
    count: u64,
    asked: BTreeMap<u32, Moment>,
    ended: BTreeMap<u32, Ending>,
    /// When clients would have received an expired answer.
    stale: BTreeMap<u32, Moment>,
    /// Queries sent for clients and probes, by server.
    sent: Vec<Vec<Moment>>,
    probes: Vec<Vec<Moment>>,
    dialed: usize,
    /// Whether TCP works; `None` if it is silent.
    tcp: Option<bool>,
    /// Whether replies over TCP have TC set and no answer.
    tcp_truncated: bool,
    /// The group that is asked if the first one refuses.
    beyond: Option<usize>,
    /// The socket of each try, as a serial number.
    sockets: BTreeMap<(u16, u8), u64>,
    /// The servers whose health has changed.
    health: Vec<u16>,
}

enum Arrival {
    Datagram { via: Via, socket: u64, bytes: Vec<u8> },
    Unreachable { via: Via, socket: u64 },
    Stream { one: TryId, bytes: Option<Vec<u8>> },
}

/// The longest time that a question can take.
const PATIENCE: Duration = Duration::from_millis(4_800);
const STALE_AFTER: Duration = Duration::from_millis(1_800);

impl World {
    /// Creates one group of servers at `addresses`. `script` returns the script of each.
    fn new(addresses: &[&str], script: impl Fn(usize) -> Script) -> Self {
        Self::with_groups(&[addresses], script)
    }

    /// Creates groups of servers. `script` gets their numbers over all groups.
    fn with_groups(groups: &[&[&str]], script: impl Fn(usize) -> Script) -> Self {
        let mut seed = Draw(0x9e37_79b9_7f4a_7c15);
        let servers: Vec<(SocketAddr, Script)> = groups
            .concat()
            .iter()
            .enumerate()
            .map(|(index, address)| (address.parse().unwrap(), script(index)))
            .collect();
        let mut world = Self {
            queries: Queries::new(Box::new(move || seed.next()), PATIENCE, STALE_AFTER),
            routes: Routes::default(),
            now: Moment::from_nanos(1_000_000_000_000),
            draw: Draw(42),
            arrivals: BTreeMap::new(),
            count: 0,
            asked: BTreeMap::new(),
            ended: BTreeMap::new(),
            stale: BTreeMap::new(),
            sent: servers.iter().map(|_| Vec::new()).collect(),
            probes: servers.iter().map(|_| Vec::new()).collect(),
            dialed: 0,
            tcp: Some(true),
            tcp_truncated: false,
            beyond: None,
            sockets: BTreeMap::new(),
            health: Vec::new(),
            servers,
        };
        let group = |group: &&[&str]| group.iter().map(|text| text.parse().unwrap()).collect();
        let groups: Vec<Vec<SocketAddr>> = groups.iter().map(group).collect();
        world.set_groups(&groups);
        world.pass(PATIENCE); // the soundings of new servers
        world
    }

    fn set_groups(&mut self, groups: &[Vec<SocketAddr>]) {
        let endpoints = |group: &Vec<SocketAddr>| group.iter().map(|&at| at.into()).collect();
        let groups: Vec<Vec<Endpoint>> = groups.iter().map(endpoints).collect();
        self.queries.set_groups(&groups, self.now);
        self.act();
    }

    /// Adds a server that runs `script`.
    fn add(&mut self, address: &str, script: Script) -> SocketAddr {
        let address = address.parse().unwrap();
        self.servers.push((address, script));
        self.sent.push(Vec::new());
        self.probes.push(Vec::new());
        address
    }

    fn start(&mut self, question: &Question<'_>, group: usize) -> Result<u16, Failure> {
        self.queries.start(question, Origin { started: self.now, group, ..Origin::default() })
    }

    /// Lets a client ask for the A records of `name`. Returns the number of the client.
    fn ask(&mut self, name: &str) -> u32 {
        self.count += 1;
        let waiter = self.count as u32;
        self.asked.insert(waiter, self.now);
        let name = wire(name);
        let question = question(&name);
        let slot = match self.queries.find(&question) {
            Some(slot) => Ok(slot),
            None => self.start(&question, 0),
        };
        match slot {
            Ok(slot) => self.queries.get_mut(slot).waiters.push(waiter),
            Err(failure) => {
                self.ended.insert(waiter, Failed { after: Duration::ZERO, failure });
            }
        }
        self.act();
        waiter
    }

    fn answer(&mut self, name: &str) -> Ending {
        let waiter = self.ask(name);
        self.pass(PATIENCE);
        self.ended[&waiter]
    }

    fn is_answered(&mut self, name: &str) -> bool {
        matches!(self.answer(name), Answered { .. })
    }

    /// Lets time pass, from event to event.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let arrival = self.arrivals.keys().next().map(|&(at, _)| at);
            let next = [arrival, self.queries.next_due()].into_iter().flatten().min();
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
            self.queries.tick(self.now);
            self.act();
        }
        self.now = until;
    }

    fn arrive(&mut self, arrival: Arrival) {
        let is_open = |sockets: &BTreeMap<(u16, u8), u64>, via, socket| match via {
            Via::Own { slot, at } => sockets.get(&(slot, at)) == Some(&socket),
            Via::Pool(_) => true,
        };
        match arrival {
            Arrival::Datagram { via, socket, bytes } if is_open(&self.sockets, via, socket) => {
                let datagram = Datagram { bytes: &bytes, is_cut: bytes.len() > 2_048 };
                self.queries.datagram(via, datagram, self.now, &self.routes);
            }
            Arrival::Unreachable { via, socket } if is_open(&self.sockets, via, socket) => {
                self.queries.unreachable(via, self.now);
            }
            Arrival::Stream { one, bytes } => {
                self.queries.stream(one, bytes.as_deref(), self.now, &self.routes);
            }
            _ => {}
        }
        self.act();
    }

    fn act(&mut self) {
        let mut acts = Vec::new();
        loop {
            self.queries.swap_acts(&mut acts);
            if acts.is_empty() {
                return;
            }
            for act in acts.drain(..) {
                match act {
                    Act::Send(one) => self.send(one),
                    Act::Dial(one) => self.dial(one),
                    Act::Close(one) => drop(self.sockets.remove(&(one.ticket.slot, one.at))),
                    Act::End { slot } => self.land(slot),
                    Act::Stale { slot } => {
                        for &waiter in &self.queries.get(slot).waiters {
                            self.stale.entry(waiter).or_insert(self.now);
                        }
                    }
                    Act::Health { server } => self.health.push(server),
                }
            }
        }
    }

    /// Handles the end of a query as the forwarder does.
    fn land(&mut self, slot: u16) {
        let failure = match self.queries.take_end(slot).expect("it has ended") {
            End::Answered { .. } => None,
            End::Failed { failure, .. } => Some(failure),
        };
        if let (Some(failure), Some(group)) = (failure, self.beyond)
            && failure.rcode == rcode::REFUSED
            && self.queries.get(slot).origin.group != group
            && self.queries.ask_next(slot, group, self.now).is_ok()
        {
            return;
        }
        for waiter in self.queries.remove(slot) {
            let after = self.now.since(self.asked[&waiter]);
            let end = match failure {
                Some(failure) => Failed { after, failure },
                None => Answered { after },
            };
            assert!(self.ended.insert(waiter, end).is_none(), "answered twice");
        }
    }

    /// Returns the number of the server of `one`, and whether it is local.
    fn server(&self, one: TryId) -> (usize, bool) {
        let server = self.queries.servers().get(one.server);
        let address = server.endpoint.address;
        let at = self.servers.iter().position(|(known, _)| *known == address).unwrap();
        (at, server.is_local())
    }

    fn send(&mut self, one: TryId) {
        let (at, is_local) = self.server(one);
        let Some(message) = self.queries.message(one).map(|(_, message)| message.to_vec()) else {
            return;
        };
        self.count += 1;
        let (slot, count) = (one.ticket.slot, self.count);
        let (via, socket) = match is_local {
            true => (Via::Pool(one.server), 0),
            false => {
                let socket = *self.sockets.entry((slot, one.at)).or_insert(count);
                (Via::Own { slot, at: one.at }, socket)
            }
        };
        let log = if is_own(&message) { &mut self.probes } else { &mut self.sent };
        log[at].push(self.now);
        for (delay, bytes) in (self.servers[at].1)(&mut self.draw, &message) {
            self.count += 1;
            let arrival = match bytes.as_slice() {
                UNREACHABLE => Arrival::Unreachable { via, socket },
                _ => Arrival::Datagram { via, socket, bytes },
            };
            self.arrivals.insert((self.now + delay, self.count), arrival);
        }
    }

    fn dial(&mut self, one: TryId) {
        self.dialed += 1;
        self.count += 1;
        let Some(works) = self.tcp else { return };
        let Some(message) = self.queries.message(one).map(|(_, message)| message.to_vec()) else {
            return;
        };
        let mut bytes = works.then(|| reply(&message, 0));
        if let Some(bytes) = bytes.as_mut().filter(|_| self.tcp_truncated) {
            bytes[2] |= 0x02;
        }
        let arrival = Arrival::Stream { one, bytes };
        self.arrivals.insert((self.now + Duration::from_millis(2), self.count), arrival);
    }

    fn health(&self, server: u16) -> Health {
        self.queries.servers().get(server).health()
    }
}

/// Used in place of a datagram: the error that the port is closed.
const UNREACHABLE: &[u8] = b"unreachable";

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

/// Returns whether a query is dnscache's own and not a client's.
fn is_own(query: &[u8]) -> bool {
    query[12] == 0 || query.windows(4).any(|bytes| bytes.eq_ignore_ascii_case(b"loop"))
}

fn question_end(query: &[u8]) -> usize {
    shared::wire::name_end(query, 12).unwrap() + 4
}

/// Returns a reply without records. A flight treats NOERROR without records as an answer.
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

fn closed() -> Script {
    Box::new(|_, _| vec![(RTT, UNREACHABLE.to_vec())])
}

fn delayed(rtt: Duration) -> Script {
    Box::new(move |_, query| vec![(rtt, reply(query, 0))])
}

fn lossy(share: f64) -> Script {
    Box::new(
        move |draw, query| {
            if draw.chance(share) { Vec::new() } else { vec![(RTT, reply(query, 0))] }
        },
    )
}

#[test]
fn ten_thousand_clients_cost_one_query() {
    for addresses in [&FAR[..1], &[NEAR]] {
        let mut world = World::new(addresses, |_| good());
        let waiters: Vec<u32> = (0..10_000).map(|_| world.ask("a.example")).collect();
        world.pass(Duration::from_millis(100));
        assert_eq!(world.sent[0].len(), 1);
        assert!(waiters.iter().all(|waiter| world.ended[waiter] == Answered { after: RTT }));
        assert_eq!(world.queries.in_flight(), 0);
        assert!(world.sockets.is_empty(), "own sockets are closed");
    }
}

/// Creates a server in the pod that refuses, and one outside that runs `outside`.
fn sent_away(outside: fn() -> Script) -> World {
    let script = |at| if at == 0 { answering(rcode::REFUSED) } else { outside() };
    let mut world = World::with_groups(&[&[NEAR], &FAR[..1]], script);
    world.beyond = Some(1);
    world
}

#[test]
fn a_question_that_is_refused_in_the_pod_is_asked_beyond_it_once() {
    let mut world = sent_away(good);
    assert_eq!(world.answer("8.8.8.8.in-addr.arpa"), Answered { after: RTT * 2 });
    assert_eq!((world.sent[0].len(), world.sent[1].len()), (1, 1));
    let mut world = sent_away(|| answering(rcode::REFUSED));
    let Failed { after, failure } = world.answer("8.8.8.8.in-addr.arpa") else { panic!() };
    assert_eq!((after, failure.rcode), (RTT * 2, rcode::REFUSED));
    assert_eq!((world.sent[0].len(), world.sent[1].len()), (1, 1));
    let mut world = sent_away(dead);
    world.tcp = None;
    let Failed { after, failure } = world.answer("8.8.8.8.in-addr.arpa") else { panic!() };
    assert_eq!((after, failure.rcode), (PATIENCE, rcode::SERVFAIL));
    assert_eq!(world.queries.in_flight(), 0);
}

#[test]
fn questions_beyond_leave_places_for_the_pod() {
    let mut world = sent_away(dead);
    world.tcp = None;
    for number in 0..4_000 {
        world.ask(&format!("n{number}.in-addr.arpa"));
    }
    world.pass(Duration::from_millis(100));
    assert_eq!(world.queries.in_flight(), 3_072, "three quarters of all places");
    assert_eq!(world.ended.len(), 4_000 - 3_072);
}

#[test]
fn a_silent_server_costs_its_patience_once() {
    let mut world = World::new(&FAR, |at| if at == 0 { dead() } else { good() });
    world.pass(Duration::from_secs(3));
    for number in 0..200 {
        let Answered { after } = world.answer(&format!("n{number}.example")) else {
            panic!("query {number} failed")
        };
        assert!(after <= RTT + Duration::from_millis(400), "query {number}: {after:?}");
        assert!(number < 3 || after <= RTT + Duration::from_millis(20), "{number}: {after:?}");
    }
    let probes = &world.probes[0];
    let secs = probes[probes.len() - 1].since(probes[0]).as_secs() as usize;
    assert!(probes.len() <= secs + 3, "{} probes in {secs} s", probes.len());
}

#[test]
fn a_question_fails_when_all_servers_have_or_its_time_is_over() {
    let at_once = Duration::from_millis(10);
    let cases: [(&str, &[&str], fn() -> Script, Duration, u16, ErrorCode); 6] = [
        ("one silent", &FAR[..1], dead, PATIENCE, rcode::SERVFAIL, ErrorCode::NetworkError),
        ("two silent", &FAR, dead, PATIENCE, rcode::SERVFAIL, ErrorCode::NetworkError),
        ("SERVFAIL", &FAR, || answering(2), at_once, rcode::SERVFAIL, ErrorCode::Other),
        ("REFUSED", &FAR[..1], || answering(5), at_once, rcode::REFUSED, ErrorCode::Other),
        ("closed", &FAR, closed, PATIENCE / 2, rcode::SERVFAIL, ErrorCode::NetworkError),
        ("no server", &[], dead, Duration::ZERO, rcode::SERVFAIL, ErrorCode::NoReachableAuthority),
    ];
    for (case, addresses, script, at_most, code, reason) in cases {
        let mut world = World::new(addresses, |_| script());
        world.tcp = if case == "closed" { Some(false) } else { None };
        let Failed { after, failure } = world.answer("a.example") else { panic!("{case}") };
        assert!(after <= at_most, "{case}: {after:?}");
        assert_eq!((failure.rcode, failure.reason), (code, reason), "{case}");
        assert!(world.sent.iter().all(|sent| sent.len() <= 3), "{case}: {:?}", world.sent);
        assert!(world.sockets.is_empty() && world.queries.in_flight() <= addresses.len());
    }
}

/// RFC 8767 section 5: the client must get an expired answer in time while the question continues.
#[test]
fn an_expired_answer_is_due_after_1800_ms_or_when_no_server_can_be_asked() {
    let mut world = World::new(&FAR[..1], |_| delayed(Duration::from_secs(4)));
    world.tcp = None;
    let waiter = world.ask("a.example");
    world.pass(PATIENCE);
    assert_eq!(world.ended[&waiter], Answered { after: Duration::from_secs(4) });
    let asked = world.asked[&waiter];
    assert_eq!(world.stale[&waiter].since(asked), Duration::from_millis(1_800));
    let mut world = World::new(&[NEAR], |_| closed());
    let waiter = world.ask("a.example");
    assert_eq!(world.stale[&waiter], world.asked[&waiter]);
}

/// RFC 1034 section 5.3.3 step 4d, RFC 9520 section 3: every server must be asked before a question
/// fails, with any kind of failure of the others.
#[test]
fn no_reply_of_one_server_hides_another() {
    type Break = fn(&mut Vec<u8>);
    let broken: [(&str, Break); 12] = [
        ("SERVFAIL", |reply| reply[3] |= 2),
        ("REFUSED", |reply| reply[3] |= 5),
        ("YXDOMAIN", |reply| reply[3] |= 6),
        ("NOTIMP without question", |reply| {
            reply.truncate(12);
            reply[3] |= 4;
            reply[5] = 0;
        }),
        ("SERVFAIL without question", |reply| {
            reply.truncate(12);
            reply[3] |= 2;
            reply[5] = 0;
        }),
        ("BADVERS", |reply| {
            reply[11] = 1;
            reply.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
        }),
        ("an address of 3 bytes", |reply| {
            reply[7] = 1;
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 3, 1, 2, 3]);
        }),
        ("65,535 answers", |reply| reply[6..8].fill(0xff)),
        ("a pointer loop", |reply| {
            reply[7] = 1;
            let at = reply.len() as u8;
            reply.extend([0xc0, at, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]);
        }),
        ("an alias of itself", |reply| {
            reply[7] = 1;
            reply.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
        }),
        ("another owner", |reply| {
            reply[7] = 1;
            reply.extend([0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]);
        }),
        ("a referral", |reply| {
            reply[3] &= 0x7f;
            reply[9] = 1;
            reply.extend([0, 0, 2, 0, 1, 0, 0, 0, 9, 0, 1, 0]);
        }),
    ];
    for (name, spoil) in broken {
        for count in [2, 3, 7] {
            let addresses: Vec<String> =
                (1..=count).map(|last| format!("192.0.2.{last}:53")).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            let mut world = World::new(&addresses, |at| {
                let is_good = at == count - 1;
                Box::new(move |_, query| {
                    let mut message = reply(query, 0);
                    if !is_good && !is_own(query) {
                        spoil(&mut message);
                    }
                    vec![(if is_good { RTT * 4 } else { RTT }, message)]
                })
            });
            world.tcp = Some(false);
            for number in 0..20 {
                let end = world.answer(&format!("n{number}.example"));
                assert!(matches!(end, Answered { .. }), "{name}, {count} servers: {end:?}");
            }
            // If a server fails but another one answers, it is asked last for a while.
            let first: usize = world.sent[..count - 1].iter().map(Vec::len).sum();
            assert!(first <= 40 * (count - 1) / 2, "{name}: {first} of 20 went to bad servers");
        }
    }
}

#[test]
fn a_server_that_fails_where_another_answers_is_tried_again_from_time_to_time() {
    let is_bad = std::rc::Rc::new(std::cell::Cell::new(true));
    let mut world = World::new(&FAR, |at| {
        let is_bad = is_bad.clone();
        let rtt = if at == 0 { RTT } else { RTT * 10 };
        Box::new(move |_, query| {
            let code = if at == 0 && is_bad.get() && !is_own(query) { 2 } else { 0 };
            vec![(rtt, reply(query, code))]
        })
    });
    for number in 0..100 {
        let waiter = world.ask(&format!("n{number}.example"));
        world.pass(Duration::from_millis(100));
        assert!(matches!(world.ended[&waiter], Answered { .. }));
    }
    assert!(world.sent[0].len() <= 3, "{}", world.sent[0].len());
    is_bad.set(false);
    world.pass(Duration::from_secs(11));
    assert_eq!(world.answer("back.example"), Answered { after: RTT });
}

/// Returns a script whose server is silent while the cell is `false`.
fn fickle(alive: &std::rc::Rc<std::cell::Cell<bool>>) -> Script {
    let alive = alive.clone();
    Box::new(move |_, query| match alive.get() {
        true => vec![(RTT, reply(query, 0))],
        false => Vec::new(),
    })
}

#[test]
fn servers_that_are_down_get_one_probe_a_second_and_come_back_within_one() {
    let alive = std::rc::Rc::new(std::cell::Cell::new(true));
    for addresses in [&FAR[..], &[NEAR]] {
        alive.set(true);
        let mut world = World::new(addresses, |_| fickle(&alive));
        world.tcp = None;
        alive.set(false);
        let start = world.now;
        for number in 0..80 {
            world.ask(&format!("n{number}.example"));
            world.pass(Duration::from_millis(250));
        }
        assert!((0..addresses.len()).all(|at| world.health(at as u16) == Health::Down));
        let end = world.now;
        world.pass(Duration::from_secs(60));
        for probes in &world.probes {
            let later = probes.iter().filter(|&&at| at > start).count() as u64;
            // The sounding of a server that goes down is one more.
            assert!(later <= world.now.since(start).as_secs() + 2, "{later} probes");
            assert!(later >= world.now.since(end).as_secs() - 1, "{later} probes");
        }
        // A question that arrives while all are down waits until one is up again.
        let waiter = world.ask("waits.example");
        world.pass(Duration::from_millis(100));
        assert!(!world.ended.contains_key(&waiter));
        alive.set(true);
        world.pass(Duration::from_millis(1_000));
        assert!(matches!(world.ended[&waiter], Answered { .. }), "{:?}", world.ended[&waiter]);
        assert_eq!(world.answer("back.example"), Answered { after: RTT });
        assert!(!world.queries.recovered().is_empty() || !world.health.is_empty());
    }
}

#[test]
fn a_question_fails_within_two_seconds_if_all_servers_outside_are_known_to_be_down() {
    let mut world = World::new(&FAR, |_| dead());
    world.tcp = None;
    for number in 0..20 {
        world.ask(&format!("n{number}.example"));
        world.pass(Duration::from_millis(500));
    }
    let Failed { after, .. } = world.answer("late.example") else { panic!("answered") };
    assert!(after < Duration::from_millis(1_300), "{after:?}");
}

/// Returns a script whose server answers after the time in the cell. `None` makes it silent.
fn paced(pace: &std::rc::Rc<std::cell::Cell<Option<Duration>>>) -> Script {
    let pace = pace.clone();
    Box::new(move |_, query| pace.get().map(|delay| (delay, reply(query, 0))).into_iter().collect())
}

/// Asks `count` new names, one every 40 ms. Returns the clients.
fn ask_every_40_ms(world: &mut World, label: &str, count: usize) -> Vec<u32> {
    let ask = |number| {
        let waiter = world.ask(&format!("n{number}.{label}.example"));
        world.pass(Duration::from_millis(40));
        waiter
    };
    (0..count).map(ask).collect()
}

/// The servers count as silent before their first late reply arrives.
#[test]
fn servers_that_become_slow_all_at_once_are_waited_for() {
    for millis in [1_500, 2_500, 4_000, 4_700] {
        for addresses in [&FAR[..1], &FAR, &[NEAR]] {
            let pace = std::rc::Rc::new(std::cell::Cell::new(Some(RTT)));
            let mut world = World::new(addresses, |_| paced(&pace));
            world.tcp = None;
            (0..50).for_each(|number| assert!(world.is_answered(&format!("w{number}.example"))));
            let before: usize = world.sent.iter().map(Vec::len).sum();
            pace.set(Some(Duration::from_millis(millis)));
            let waiters = ask_every_40_ms(&mut world, "slow", 200);
            world.pass(PATIENCE);
            let failed =
                waiters.iter().find(|waiter| !matches!(world.ended[*waiter], Answered { .. }));
            let case = format!("{millis} ms, {} servers", addresses.len());
            assert_eq!(failed.map(|waiter| world.ended[waiter]), None, "{case}");
            let sends = world.sent.iter().map(Vec::len).sum::<usize>() - before;
            assert!(sends <= 6 * 200, "{case}: {sends} datagrams for 200 questions");
        }
    }
}

#[test]
fn servers_that_are_back_answer_every_question_that_waits_within_a_second() {
    for outage in [2, 4, 6, 20] {
        let pace = std::rc::Rc::new(std::cell::Cell::new(Some(RTT)));
        let mut world = World::new(&FAR, |_| paced(&pace));
        world.tcp = None;
        (0..50).for_each(|number| assert!(world.is_answered(&format!("w{number}.example"))));
        pace.set(None);
        let waiters = ask_every_40_ms(&mut world, "down", outage * 25);
        let waiting: Vec<u32> =
            waiters.into_iter().filter(|waiter| !world.ended.contains_key(waiter)).collect();
        assert!(!waiting.is_empty());
        pace.set(Some(RTT));
        world.pass(Duration::from_millis(1_010));
        for waiter in waiting {
            let end = world.ended.get(&waiter);
            // The time of the earliest ones was over within that second.
            let is_over = world.now.since(world.asked[&waiter]) >= PATIENCE;
            let is_good = matches!(end, Some(Answered { .. })) || is_over && end.is_some();
            let since = world.now.since(world.asked[&waiter]);
            assert!(is_good, "{outage} s, asked {since:?} ago: {end:?}");
        }
    }
}

/// Probes wait as long as questions, so a server that is back but slow is found.
#[test]
fn a_server_that_is_slow_after_a_long_silence_is_found_to_be_up() {
    let pace = std::rc::Rc::new(std::cell::Cell::new(None));
    let mut world = World::new(&FAR[..1], |_| paced(&pace));
    world.tcp = None;
    ask_every_40_ms(&mut world, "down", 1_000);
    assert_eq!(world.health(0), Health::Down);
    pace.set(Some(Duration::from_secs(4)));
    world.pass(Duration::from_millis(5_010));
    assert_eq!(world.health(0), Health::Up);
    let waiters = ask_every_40_ms(&mut world, "slow", 200);
    world.pass(PATIENCE);
    assert!(waiters.iter().all(|waiter| matches!(world.ended[waiter], Answered { .. })));
}

/// kubedns that restarts: no query fails or waits a second for a probe.
#[test]
fn a_closed_port_in_the_pod_is_asked_again_within_milliseconds() {
    let alive = std::rc::Rc::new(std::cell::Cell::new(false));
    let mut world = World::new(&[NEAR], |_| {
        let alive = alive.clone();
        Box::new(move |_, query| match alive.get() {
            true => vec![(RTT, reply(query, 0))],
            false => vec![(RTT / 50, UNREACHABLE.to_vec())],
        })
    });
    let waiters: Vec<u32> = (0..50).map(|number| world.ask(&format!("n{number}.a"))).collect();
    let before = world.probes[0].len();
    world.pass(Duration::from_millis(54));
    assert_eq!(world.health(0), Health::Down);
    assert!(waiters.iter().all(|waiter| !world.ended.contains_key(waiter)));
    alive.set(true);
    world.pass(Duration::from_millis(100));
    for waiter in waiters {
        let Answered { after } = world.ended[&waiter] else { panic!("{:?}", world.ended[&waiter]) };
        assert!(after < Duration::from_millis(150), "{after:?}");
    }
    assert!(world.probes[0].len() - before < 20, "{} probes", world.probes[0].len());
    // If it stays down, a question waits for it for a while.
    alive.set(false);
    let Failed { after, .. } = world.answer("gone.a") else { panic!("answered") };
    assert!(after < Duration::from_millis(1_300), "{after:?}");
}

/// Outside the pod, an ICMP error may be forged. It ends the try, but the server is not marked as
/// down.
#[test]
fn an_unreachable_upstream_that_restarts_is_asked_again() {
    let closed_until = World::new(&[], |_| dead()).now + Duration::from_millis(1_300);
    let now = std::rc::Rc::new(std::cell::Cell::new(closed_until));
    let clock = now.clone();
    let mut world = World::new(&FAR[..1], move |_| {
        let clock = clock.clone();
        Box::new(move |_, query| match clock.get() > closed_until {
            true => vec![(RTT, reply(query, 0))],
            false => vec![(RTT / 5, UNREACHABLE.to_vec())],
        })
    });
    world.tcp = Some(false);
    let waiter = world.ask("a.example");
    world.pass(Duration::from_millis(300));
    assert!(!world.ended.contains_key(&waiter));
    now.set(closed_until + Duration::from_nanos(1));
    world.pass(Duration::from_secs(1));
    assert!(matches!(world.ended[&waiter], Answered { .. }));
    assert_eq!(world.health(0), Health::Up);
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
            world.tcp = Some(false);
            let failed = world.queries.servers().get(0).failed;
            let name = "abcdefghijklmnopqrst.example";
            assert_eq!(world.answer(name), Answered { after: RTT }, "{lie}");
            assert_eq!(world.dialed, dials, "{lie}");
            let server = world.queries.servers().get(0);
            assert_eq!(server.health(), Health::Up, "{lie}");
            assert!(server.failed <= failed + 1, "{lie}: the exchange over TCP alone");
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
    let Answered { after } = world.answer("a.example") else { panic!("failed") };
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
        world.tcp = Some(tcp);
        let name = "abcdefghijklmnopqrst.example";
        assert!(matches!(world.answer(name), Answered { .. }), "tcp {tcp}");
        assert!(world.dialed == 1, "tcp {tcp}");
        let again = world.answer(name);
        if tcp {
            // A TCP reply in the script keeps the case, so dnscache does not learn, and asks over
            // TCP again.
            assert!(matches!(again, Answered { .. }));
        } else {
            assert_eq!(again, Answered { after: RTT }, "learnt");
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
            (world.tcp, world.tcp_truncated) = (Some(tcp), tcp_truncated);
            let end = world.answer("a.example");
            // A reply over TCP that is truncated and has no records is not an answer, and must
            // never be stored.
            let is_whole = tcp && !tcp_truncated;
            assert_eq!(matches!(end, Answered { .. }), is_whole, "{end:?}");
            assert_eq!((world.dialed, world.sent[0].len()), (1, 1));
            let (Answered { after } | Failed { after, .. }) = end;
            assert_eq!(after, RTT + Duration::from_millis(2));
        }
    }
}

/// RFC 7766 section 5: a datagram that does not fit counts as truncated.
#[test]
fn a_datagram_that_does_not_fit_is_asked_for_over_tcp() {
    let mut world = World::new(&FAR[..1], |_| {
        Box::new(|_, query| {
            let mut long = reply(query, 0);
            long.resize(if is_own(query) { 100 } else { 2_100 }, 0);
            vec![(RTT, long)]
        })
    });
    assert_eq!(world.answer("a.example"), Answered { after: RTT + Duration::from_millis(2) });
    assert_eq!((world.dialed, world.sent[0].len()), (1, 1));
}

/// A single try must not take all the time of a question.
#[test]
fn a_server_whose_tcp_is_silent_does_not_hide_the_next() {
    let mut world = World::new(&FAR, |at| {
        Box::new(move |_, query| {
            let mut short = reply(query, 0);
            if at == 0 && !is_own(query) {
                short[2] |= 0x02;
            }
            vec![(if at == 0 { RTT } else { RTT * 4 }, short)]
        })
    });
    world.tcp = None;
    let Answered { after } = world.answer("a.example") else { panic!("failed") };
    assert!(after < Duration::from_millis(1_800), "{after:?}");
    assert_eq!(world.sent[1].len(), 1);
}

#[test]
fn a_server_that_speaks_tcp_alone_is_found_and_learnt() {
    let mut world = World::new(&FAR[..1], |_| dead());
    for number in 0..10 {
        let end = world.answer(&format!("n{number}.example"));
        assert!(matches!(end, Answered { .. }), "{number}: {end:?}");
    }
    assert_eq!(world.answer("learnt.example"), Answered { after: Duration::from_millis(2) });
}

#[test]
fn servers_that_cannot_read_opt_are_asked_without() {
    for bare in [false, true] {
        let mut world = World::new(&FAR[..1], |_| {
            Box::new(move |_, query| {
                let mut message = reply(query, if query[11] == 1 { 1 } else { 0 });
                if query[11] == 1 && bare {
                    message.truncate(12);
                    message[5] = 0;
                }
                vec![(RTT, message)]
            })
        });
        for (number, tries) in [2, 2, 1, 1].into_iter().enumerate() {
            let before = world.sent[0].len();
            assert!(matches!(world.answer(&format!("n{number}.example")), Answered { .. }));
            assert_eq!(world.sent[0].len() - before, tries, "query {number}");
        }
        world.pass(Duration::from_secs(901));
        let before = world.sent[0].len();
        assert!(matches!(world.answer("late.example"), Answered { .. }));
        assert_eq!(world.sent[0].len() - before, 2, "after 15 minutes OPT is tried again");
    }
}

#[test]
fn losses_are_made_up_for() {
    for addresses in [&FAR[..], &FAR[..1]] {
        let mut world = World::new(addresses, |_| lossy(0.3));
        let mut late = 0;
        for number in 0..5_000 {
            match world.answer(&format!("n{number}.example")) {
                Answered { after } if after <= Duration::from_secs(2) => {}
                _ => late += 1,
            }
        }
        let sends = world.sent.iter().map(Vec::len).sum::<usize>();
        assert!(late <= 5, "{late} of 5,000 are not answered within two seconds");
        assert!(sends <= 11_000, "{sends} sends");
    }
}

/// RFC 6298: the timer adapts to a server that is slow but does not lose packets.
#[test]
fn a_slow_server_costs_one_packet_from_the_second_question_on() {
    for millis in [150, 500, 800, 1_200, 1_900, 3_000] {
        let rtt = Duration::from_millis(millis);
        let mut world = World::new(&FAR[..1], |_| delayed(rtt));
        world.tcp = None;
        world.pass(Duration::from_secs(5));
        assert_eq!(world.answer("first.example"), Answered { after: rtt }, "{millis} ms");
        for number in 0..20 {
            let before = world.sent[0].len();
            let end = world.answer(&format!("n{number}.example"));
            assert_eq!(end, Answered { after: rtt }, "{millis} ms, question {number}");
            assert_eq!(world.sent[0].len() - before, 1, "{millis} ms, question {number}");
        }
    }
}

/// A resend has the same socket and the same ID, so that it is the same question.
#[test]
fn a_resend_is_the_same_datagram() {
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let spy = seen.clone();
    let mut world = World::new(&FAR[..1], move |_| {
        let spy = spy.clone();
        Box::new(move |_, query| {
            if !is_own(query) {
                spy.borrow_mut().push(query.to_vec());
            }
            Vec::new()
        })
    });
    world.tcp = None;
    world.ask("abcdefghijkl.example");
    world.pass(PATIENCE / 2);
    let seen = seen.borrow();
    assert!(seen.len() >= 2 && seen.iter().all(|query| *query == seen[0]));
}

#[test]
fn the_faster_server_gets_the_work() {
    let mut world = World::new(&FAR, |at| {
        let rtt = Duration::from_millis([80, 5][at]);
        Box::new(move |_, query| vec![(rtt, reply(query, 0))])
    });
    for number in 0..100 {
        world.ask(&format!("n{number}.example"));
        world.pass(Duration::from_secs(2));
    }
    assert!(world.sent[1].len() >= 99, "{} went to the faster one", world.sent[1].len());
    let probes = world.probes[0].len();
    assert!((10..=30).contains(&probes), "the slower one is measured now and then: {probes}");
}

#[test]
fn places_are_bounded_and_given_back() {
    let mut world = World::new(&FAR[..1], |_| dead());
    world.tcp = None;
    let far = world.servers[0].0;
    let near = world.add(NEAR, dead());
    world.set_groups(&[vec![far], vec![near]]);
    world.pass(PATIENCE);
    for number in 0..3_073 {
        world.ask(&format!("n{number}.example"));
    }
    assert_eq!(world.queries.in_flight(), 3_072);
    assert_eq!(world.ended.len(), 1);
    let local = wire("svc.cluster.local");
    assert!(world.start(&question(&local), 1).is_ok(), "the last quarter is for the pod");
    world.act();
    world.pass(PATIENCE * 2);
    assert!(world.queries.in_flight() <= 12, "nothing but probes");
}

#[test]
fn a_query_that_comes_back_disables_its_server_while_it_does() {
    let mut world = World::new(&FAR, |_| good());
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let spy = seen.clone();
    let script: Script = Box::new(move |_, query| {
        spy.borrow_mut().push(query.to_vec());
        vec![(RTT, reply(query, 0))]
    });
    let address = world.add("192.0.2.9:53", script);
    let far: SocketAddr = FAR[0].parse().unwrap();
    world.set_groups(&[vec![address, far]]);
    let other = wire("0123456789abcdef.dnscache-loop");
    assert!(!world.queries.comes_back(&question(&other), world.now));
    let sounding = |world: &mut World| {
        let query = seen.borrow().last().unwrap().to_ascii_lowercase();
        let end = question_end(&query);
        let qtype = u16::from_be_bytes([query[end - 4], query[end - 3]]);
        let come_back = Question { qtype, ..question(&query[12..end - 4]) };
        let comes_back = world.queries.comes_back(&come_back, world.now);
        world.act();
        comes_back
    };
    assert!(sounding(&mut world));
    let index = *world.health.last().unwrap();
    assert_eq!(world.queries.servers().get(index).endpoint.address, address);
    assert!(matches!(world.health(index), Health::Looping(_)));
    assert!(matches!(world.answer("a.example"), Answered { .. }));
    assert!(world.sent[2].is_empty());
    // It is sounded every few seconds, and asked again once the sounding no longer returns to
    // dnscache.
    world.pass(Duration::from_secs(5));
    assert_eq!(world.health(index), Health::Up);
    // The number is removed with its sounding, so that a client cannot use it.
    assert!(!sounding(&mut world));
    assert_eq!(world.health(index), Health::Up);
}

#[test]
fn new_routes_leave_queries_that_are_under_way_alone() {
    let mut world = World::new(&FAR[..1], |_| good());
    for round in 0..100_u32 {
        let waiter = world.ask(&format!("n{round}.example"));
        let address = format!("192.0.2.{}:53", 1 + round % 2);
        if round < 2 {
            world.add(&address, good());
        }
        world.set_groups(&[vec![address.parse().unwrap()]]);
        world.pass(Duration::from_millis(20));
        assert_eq!(world.ended[&waiter], Answered { after: RTT }, "round {round}");
    }
    assert!(world.queries.servers().iter().count() == 1);
}

#[test]
fn aliases_do_not_lead_in_circles() {
    let mut world = World::new(&FAR[..1], |_| dead());
    let names: Vec<Vec<u8>> = (0..13).map(|n| wire(&format!("n{n}.example"))).collect();
    let slots: Vec<u16> =
        names.iter().map(|name| world.start(&question(name), 0).unwrap()).collect();
    slots.iter().for_each(|&slot| world.queries.complete(slot, b"answer"));
    let mut follow = |from: usize, to: usize| world.queries.follow(slots[from], slots[to]);
    assert!(follow(0, 1).is_ok());
    assert!(follow(1, 0).is_err(), "a circle of two");
    assert!(follow(2, 2).is_err(), "a circle of one");
    for at in 1..11 {
        assert!(follow(at, at + 1).is_ok(), "link {at}");
    }
    assert!(follow(11, 12).is_err(), "the twelfth link");
    let ticket = world.queries.ticket(slots[0]);
    assert_eq!(world.queries.take_partial(ticket), Some((slots[0], b"answer".to_vec())));
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
        world.ask(&format!("n{number}.example"));
        world.pass(RTT);
    }
    // 255 degrees of freedom: above 330 is one in a thousand.
    let chi: f64 = ids.borrow().iter().map(|&n| (f64::from(n) - 100.0).powi(2) / 100.0).sum();
    assert!(chi < 330.0, "chi-square {chi}");
}

/// CLOCK_BOOTTIME goes on while a machine sleeps: `now` jumps between two calls.
#[test]
fn a_machine_that_sleeps_ends_every_question_and_asks_its_servers_again_at_once() {
    for hours in [1, 24 * 365 * 10] {
        for addresses in [&FAR[..], &FAR[..1], &[NEAR]] {
            let mut world = World::new(addresses, |_| good());
            world.tcp = None;
            assert!(world.is_answered("before.example"));
            let waiters: Vec<u32> =
                (0..500).map(|number| world.ask(&format!("n{number}.example"))).collect();
            world.arrivals.clear(); // lost with the network
            world.now = world.now + Duration::from_secs(3_600 * hours);
            let probes: usize = world.probes.iter().map(Vec::len).sum();
            world.pass(Duration::from_millis(1));
            assert!(waiters.iter().all(|waiter| matches!(world.ended[waiter], Failed { .. })));
            assert!(world.sockets.len() <= addresses.len(), "{} sockets", world.sockets.len());
            let Answered { after } = world.answer("after.example") else { panic!("{hours} h") };
            assert!(after <= RTT * 3, "{hours} h: {after:?}");
            let probes = world.probes.iter().map(Vec::len).sum::<usize>() - probes;
            assert!(probes <= 8 * addresses.len(), "{probes} probes do not make up for the sleep");
        }
    }
}

/// Returns a random server's replies to one query.
fn random_reply(draw: &mut Draw, query: &[u8]) -> Vec<(Duration, Vec<u8>)> {
    let delay = Duration::from_micros(draw.next() % [5_000, 300_000, 6_000_000][draw.below(3)]);
    let mut message = reply(query, 0);
    match draw.below(16) {
        0 | 1 => return Vec::new(),
        2 => message[3] |= draw.below(16) as u8,
        3 => message[2] |= 0x02,
        4 => message[0] ^= 1,
        5 => message[12..].make_ascii_lowercase(),
        6 => message = UNREACHABLE.to_vec(),
        7 => message.truncate(draw.below(message.len())),
        8 => message[6 + draw.below(6)] = draw.next() as u8,
        9 => message.resize(2_100, 0),
        10 => {
            message.truncate(12);
            message[5] = 0;
            message[3] |= draw.below(16) as u8;
        }
        11 => return vec![(delay, message.clone()), (delay * 2, message)],
        _ => {}
    }
    vec![(delay, message)]
}

/// Random servers, questions and routes: every question ends exactly once, not before its time is
/// over or every server was asked, and within all bounds.
#[test]
fn every_question_of_a_random_world_ends_once() {
    let all = ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53", NEAR, "[::1]:10053"];
    let mut draw = Draw(0x5eed);
    let mut ended = 0;
    for run in 0..2_000 {
        let count = 1 + draw.below(all.len());
        let skip = draw.below(all.len() - count + 1);
        let mut world = World::new(&all[skip..skip + count], |_| Box::new(random_reply));
        world.draw = Draw(draw.next() | 1);
        for _ in 0..50 {
            world.tcp = [Some(true), Some(false), None][draw.below(3)];
            world.tcp_truncated = draw.below(4) == 0;
            world.ask(&format!("n{}.example", draw.below(30)));
            world.pass(Duration::from_micros(draw.next() % 400_000));
        }
        world.pass(PATIENCE);
        assert_eq!(world.ended.len(), world.asked.len(), "run {run}");
        let is_late = |end: &&Ending| {
            let (Answered { after } | Failed { after, .. }) = end;
            *after > PATIENCE
        };
        assert_eq!(world.ended.values().find(is_late), None, "run {run}");
        assert!(world.queries.in_flight() <= 6 * all.len(), "run {run}: nothing but probes");
        assert!(world.sockets.len() <= world.queries.in_flight(), "run {run}");
        ended += world.ended.len();
    }
    assert_eq!(ended, 100_000);
}
