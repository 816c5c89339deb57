//! Connects the cache, the routes, the queries and the waiters: takes in questions, hands out
//! answers.
//!
//! Edge, on the forwarder's thread. The queries decide which server is asked when; the thread owns
//! the sockets.

mod errand;
mod exit;
mod landing;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use shared::clock::Moment;
use shared::endpoint::Endpoint;
use shared::serve::Deferred;
use shared::wire::{ErrorCode, MESSAGE_MAX, NameBuffer, Query, Reply, Transport};
use shared::wire::{class, rcode};

use super::act::{Act, Datagram, Try, Via};
use super::hosts::{Hosts, Inquiry};
use super::message::{Failure, Form, addresses, read_key, write_key, write_query};
use super::outcome::Rules;
use super::queries::{Origin, Queries, Question};
use super::servers::{Health, Servers};
use super::table::Ticket;
use super::waiters::{Budget, Releases};
use super::zones::Zones;
use crate::cache::{Cache, Entry, Lookup};
use crate::changes::Streams;
use crate::counters::Counters;
use crate::local::Local;
use crate::normalise::Answer;
use crate::route::{Route, Routes};
use crate::sample::{Origin as Whence, Samples, Source};
use errand::{Errand, Goal};
use exit::Exit;

/// What the forwarder shares with the rest of the program.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The current routes.
    pub routes: Arc<ArcSwap<Routes>>,
    /// The current rules.
    pub local: Arc<ArcSwap<Local>>,
    /// How long a question waits for its upstreams.
    pub patience: Duration,
    /// The outcome of each query.
    pub counters: Arc<Counters>,
    /// The forwarder's lane of the counters.
    pub lane: usize,
    /// The state of kubedns's replicas: which of them are followed.
    pub streams: Arc<Streams>,
    /// The samples of queries.
    pub samples: Arc<Samples>,
}

/// A waiter for a query.
enum Waiter {
    /// A client.
    Client(Deferred),
    /// A query whose answer this one completes.
    Query(Ticket),
    /// The table of stub servers.
    Hosts(Inquiry),
    /// A question that the rules replaced by this one.
    Errand(Box<Errand>),
}

/// What clients are told, and where it comes from.
struct Told {
    what: What,
    whence: Whence,
}

/// What clients are told.
enum What {
    Answer(Box<Answer>),
    /// The same with an Extended DNS Error.
    Explained(Box<Answer>, ErrorCode, Cow<'static, str>),
    Failure(Failure, Option<Box<Answer>>),
}

/// The desk.
pub(super) struct Desk {
    shared: Shared,
    routes: Arc<Routes>,
    local: Arc<Local>,
    /// Counts the routes and rules that were in force.
    edition: u64,
    /// The edition of the streams with which the groups were made.
    streams_edition: u64,
    queries: Queries<Waiter>,
    hosts: Hosts,
    budget: Budget,
    zones: Zones,
    releases: Releases<Deferred, Told>,
    exit: Exit,
}

impl Desk {
    /// Returns a desk without questions. `draw` returns unpredictable numbers.
    pub fn new(shared: Shared, draw: Box<dyn FnMut() -> u64 + Send>, now: Moment) -> Self {
        let mut desk = Self {
            routes: shared.routes.load_full(),
            local: shared.local.load_full(),
            exit: Exit::new(&shared),
            queries: Queries::new(draw, shared.patience),
            shared,
            edition: 0,
            streams_edition: 0,
            hosts: Hosts::default(),
            budget: Budget::new(),
            zones: Zones::new(),
            releases: Releases::new(),
        };
        desk.take_routes(now);
        desk
    }

    /// Returns the servers.
    pub fn servers(&self) -> &Servers {
        self.queries.servers()
    }

    /// Returns how many queries are under way.
    pub fn in_flight(&self) -> usize {
        self.queries.in_flight()
    }

    /// Returns whether any client waits for an answer.
    pub fn is_waited_for(&self) -> bool {
        self.budget.is_waited_for()
    }

    /// Returns the message of `one`; `None` if its query has ended.
    pub fn message(&mut self, one: Try) -> Option<&[u8]> {
        self.queries.message(one)
    }

    /// Returns how long the query of `one` can still run; `None` if it has ended.
    pub fn time_left(&self, one: Try, now: Moment) -> Option<Duration> {
        let slot = self.queries.slot(one.ticket)?;
        Some(self.queries.deadline(slot).since(now))
    }

    /// Moves the actions for the sockets into `acts`, which must be empty.
    pub fn swap_acts(&mut self, acts: &mut Vec<Act>) {
        self.queries.swap_acts(acts);
    }

    /// Sends the replies that wait in an incomplete batch.
    pub fn flush(&mut self) {
        self.exit.flush();
    }

    /// Returns when [`Desk::tick`] must be called next.
    pub fn next_due(&self, now: Moment) -> Option<Moment> {
        let release = (!self.releases.is_empty()).then(|| now + RELEASE_STEP);
        [self.queries.next_due(), self.hosts.next_due(), release].into_iter().flatten().min()
    }

    /// Runs everything that is due: new routes, tries, hosts, waiters.
    pub fn tick(&mut self, now: Moment) {
        if self.has_new_routes() {
            self.routes = self.shared.routes.load_full();
            self.local = self.shared.local.load_full();
            self.take_routes(now);
        }
        if self.shared.streams.edition() != self.streams_edition {
            self.hosts.hurry(now);
            self.take_groups(now);
        }
        self.queries.tick(now);
        while let Some(inquiry) = self.hosts.ask(now) {
            self.inquire(inquiry, now);
        }
        self.release(now);
    }

    /// Takes in a client's query.
    pub fn take(&mut self, deferred: Deferred, now: Moment) {
        if now.since(deferred.arrived()) > AGE_MAX {
            return; // its client has asked again
        }
        let Some(deferred) = self.by_rules(deferred, now) else { return };
        let mut name = NameBuffer::new();
        let question = Question::of(&deferred.query(&mut name));
        if let Some(server) = self.queries.comes_back(&question, now) {
            self.log_health(server);
            return self.reply_failure(&deferred, LOOP, None, now);
        }
        let slot = match self.find(&question) {
            Some(slot) => Ok(slot),
            None if self.answer_at_once(&deferred, &question, now) => return,
            None => self.start_for(&question, Some(&deferred), now),
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(failure) => return self.reply_failure(&deferred, failure, None, now),
        };
        if self.queries.is_late(slot) && self.reply_stale(&deferred, EXPIRED, now) {
            return;
        }
        if self.budget.hold(deferred.message().len()) {
            self.queries.attach(slot, Waiter::Client(deferred));
        } else if deferred.transport() == Transport::Tcp {
            self.reply_failure(&deferred, CROWDED, None, now);
        } // a client over UDP asks again
    }

    /// Asks the question of `key` again on behalf of the cache. If every place is taken, its entry
    /// just expires.
    pub fn renew(&mut self, key: &[u8], now: Moment) {
        if self.consult(key, Goal::Renewal, now).is_none() {
            return;
        }
        let question = read_key(key);
        if self.find(&question).is_none()
            && let Err(failure) = self.start_for(&question, None, now)
        {
            tracing::debug!(reason = failure.text, "not renewed");
        }
    }

    /// Takes in a datagram. Returns whether it ended its query.
    pub fn datagram(&mut self, via: Via, datagram: Datagram<'_>, now: Moment) -> bool {
        let rules = Rules { routes: &self.routes };
        self.queries.datagram(via, datagram, now, &rules)
    }

    /// Takes in the outcome of an exchange over TCP.
    pub fn stream(&mut self, one: Try, message: Option<&[u8]>, now: Moment) {
        let rules = Rules { routes: &self.routes };
        self.queries.stream(one, message, now, &rules);
    }

    /// Notes that no program listens at the other end of a socket.
    pub fn unreachable(&mut self, via: Via, now: Moment) {
        self.queries.unreachable(via, now);
    }

    /// Notes that the query of `ticket` gets no socket, for which no server is blamed.
    pub fn no_socket(&mut self, ticket: Ticket) {
        if let Some(slot) = self.queries.slot(ticket) {
            self.queries.fail(slot, NO_SOCKET);
        }
    }

    /// Returns the query under way for `question`. If the name has changed since the query was
    /// sent, new clients must not wait for it.
    fn find(&mut self, question: &Question<'_>) -> Option<u16> {
        let slot = self.queries.find(question)?;
        if self.shared.cache.has_changed(question.name, self.queries.origin(slot).seen) {
            self.queries.hide(slot);
            return None;
        }
        Some(slot)
    }

    /// Starts a query along the routes, on behalf of the client of `deferred`, if given.
    fn start_for(
        &mut self,
        question: &Question<'_>,
        deferred: Option<&Deferred>,
        now: Moment,
    ) -> Result<u16, Failure> {
        let Route::Group(group) = self.routes.route(question.name) else { return Err(LOCAL) };
        let client = match deferred {
            Some(deferred) => {
                Some(self.budget.admit(deferred.peer().ip(), self.queries.in_flight())?)
            }
            None => None,
        };
        let is_owned = self.routes.groups()[group].owned;
        let zone = match is_owned {
            true => Ok(None),
            false => self.zones.take(question.name, now).map(Some).ok_or(FLOOD),
        };
        let origin = |zone| Origin {
            started: now,
            seen: self.shared.cache.version(),
            edition: self.edition,
            group,
            client,
            zone,
        };
        let started = zone.map(origin).and_then(|origin| self.queries.start(question, origin));
        if let (Err(_), Some(place)) = (&started, client) {
            self.budget.leave(place);
        }
        started
    }

    /// Answers from the cache or by a route, if that has become possible since the query arrived.
    /// Returns whether it did.
    fn answer_at_once(
        &mut self,
        deferred: &Deferred,
        question: &Question<'_>,
        now: Moment,
    ) -> bool {
        let cache = &self.shared.cache;
        if cache.state(question, now).is_some_and(|state| state.remaining_secs > 0) {
            self.exit.reply(deferred, Source::Hit.into(), |query, reply| {
                if matches!(cache.get(query, now, reply), Lookup::Miss | Lookup::Expired) {
                    reply.fail(rcode::SERVFAIL, ErrorCode::Other, "the entry has just gone");
                }
            });
            return true;
        }
        let Route::Local(local) = self.routes.route(question.name) else { return false };
        let source = Source::Local.into();
        self.exit.reply(deferred, source, |query, reply| local.answer(query, reply));
        true
    }

    /// Returns the answer of the cache or of a local route to `question`, as a whole message.
    fn message_at_once(&self, question: &Question<'_>, now: Moment) -> Option<Vec<u8>> {
        let cache = &self.shared.cache;
        message_by(question, |query, reply| match self.routes.route(question.name) {
            Route::Local(local) => {
                local.answer(query, reply);
                true
            }
            Route::Group(_) => {
                matches!(cache.get(query, now, reply), Lookup::Hit | Lookup::Due)
            }
        })
    }

    /// Returns what a sample shows about an answer that `server` sent, if one did.
    fn whence(&self, server: Option<u16>) -> Whence {
        let address = |server| -> SocketAddr { self.servers().get(server).endpoint.address };
        Whence { source: Source::Miss, upstream: server.map(address) }
    }

    /// Logs that the health of `server` has changed.
    pub fn log_health(&self, server: u16) {
        let server = self.servers().get(server);
        let address = &server.endpoint;
        match server.health() {
            Health::Up => tracing::info!(server = %address, "upstream answers again"),
            Health::Down => tracing::warn!(server = %address, "upstream does not answer"),
            Health::Looping(_) => tracing::error!(
                server = %address,
                "upstream sends our queries back to us: not asked for a few seconds"
            ),
        }
    }

    fn has_new_routes(&self) -> bool {
        !Arc::ptr_eq(&self.routes, &self.shared.routes.load())
            || !Arc::ptr_eq(&self.local, &self.shared.local.load())
    }

    fn take_routes(&mut self, now: Moment) {
        self.edition += 1;
        self.hosts.follow(&self.routes, self.shared.streams.hosts());
        self.take_groups(now);
    }

    /// Updates the servers of each group. Replicas of kubedns must be expected before they can be
    /// asked.
    fn take_groups(&mut self, now: Moment) {
        let streams = &self.shared.streams;
        for host in streams.hosts() {
            streams.expect(host, &self.hosts.addresses(host));
        }
        self.streams_edition = streams.edition();
        let follows = |address| streams.follows(address);
        let groups: Vec<Vec<Endpoint>> = self.hosts.groups(&self.routes, follows);
        self.queries.set_groups(&groups, now);
    }

    /// Asks for the addresses of a stub server's host, along the routes as for a client.
    fn inquire(&mut self, inquiry: Inquiry, now: Moment) {
        let name = inquiry.name.clone();
        let question = Question {
            name: &name,
            qtype: inquiry.qtype,
            qclass: class::IN,
            dnssec_ok: false,
            checking_disabled: false,
        };
        let inquiry = match self.consult(&key(&question), Goal::Hosts(inquiry), now) {
            Some(Goal::Hosts(inquiry)) => inquiry,
            _ => return,
        };
        let slot = match self.find(&question) {
            Some(slot) => Ok(slot),
            None => match self.message_at_once(&question, now) {
                Some(message) => return self.learn(&inquiry, &[&message], now),
                None => self.start_for(&question, None, now),
            },
        };
        match slot {
            Ok(slot) => self.queries.attach(slot, Waiter::Hosts(inquiry)),
            Err(_) => drop(self.hosts.learn(&inquiry, None, now)),
        }
    }

    /// Notes the addresses of a host in `replies`.
    fn learn(&mut self, inquiry: &Inquiry, replies: &[&[u8]], now: Moment) {
        let outcome = replies.last().and_then(|reply| addresses(reply));
        if self.hosts.learn(inquiry, outcome, now) {
            self.take_groups(now);
        }
    }
}

/// Returns `question` as one string of bytes, which [`read_key`] parses.
fn key(question: &Question<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    write_key(question, &mut key);
    key
}

/// Returns the reply to `question` with the records of `entry`, as a whole message.
pub fn message_of(question: &Question<'_>, entry: &Entry) -> Option<Vec<u8>> {
    message_by(question, |query, reply| {
        entry.emit(query, 0, u32::MAX, reply);
        true
    })
}

/// Returns the reply to `question` that `write` makes, as a whole message; `None` if it makes none.
fn message_by(
    question: &Question<'_>,
    write: impl FnOnce(&Query<'_>, &mut Reply<'_>) -> bool,
) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    write_query(question, Form { edns: true, ..Form::default() }, &mut message);
    let mut name = NameBuffer::new();
    let query = Query::screen(&message, Transport::Tcp, &mut name).ok()?;
    let mut buffer = vec![0; MESSAGE_MAX];
    let mut reply = Reply::new(&query, &mut buffer);
    let is_made = write(&query, &mut reply);
    let len = reply.finish();
    buffer.truncate(len);
    is_made.then_some(buffer)
}

/// A query that has waited longer than this in the queue is dropped, because its client has
/// retried.
const AGE_MAX: Duration = Duration::from_millis(1_900);
/// The time between two looks at waiters that are answered gradually.
const RELEASE_STEP: Duration = Duration::from_millis(1);
const EXPIRED: &str = "expired, and no upstream has answered yet";
const LOCAL: Failure = Failure {
    rcode: rcode::NXDOMAIN,
    reason: ErrorCode::Other,
    text: "this name never leaves the pod",
    server: None,
};
const LOOP: Failure = Failure {
    rcode: rcode::REFUSED,
    reason: ErrorCode::Other,
    text: "this query came from here: the upstreams form a loop",
    server: None,
};
const FLOOD: Failure =
    Failure::servfail(ErrorCode::Other, "too many names below one domain are asked for");
const CROWDED: Failure = Failure::servfail(ErrorCode::Other, "too many questions wait");
const NO_SOCKET: Failure =
    Failure::servfail(ErrorCode::Other, "no descriptor left for a socket to an upstream");
