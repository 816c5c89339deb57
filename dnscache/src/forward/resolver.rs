//! Connects the cache, the routes, the queries and the waiters: takes in questions, hands out
//! answers.
//!
//! Edge, on the forwarder's thread. The queries decide which server is asked when; the thread owns
//! the sockets.

mod answers;
mod replies;
mod rewritten;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use shared::clock::Moment;
use shared::endpoint::Endpoint;
use shared::serve::{Deferred, Outbox};
use shared::wire::{ErrorCode, MESSAGE_MAX, NameBuffer, Query, Reply, Transport};
use shared::wire::{class, rcode};

use super::act::{Datagram, TryId, Via};
use super::hosts::{Hosts, Inquiry};
use super::message::{Failure, Form, addresses, read_key, write_key, write_query};
use super::queries::{Origin, Queries, Question};
use super::servers::Health;
use super::table::Ticket;
use super::waiters::{Budget, Releases};
use super::zones::Zones;
use crate::cache::{Cache, Entry, Lookup};
use crate::changes::Streams;
use crate::counters::Counters;
use crate::local::Local;
use crate::normalise::Answer;
use crate::route::{Route, Routes};
use crate::sample::{self, Samples, Source};
use rewritten::Rewritten;

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
    /// How long a client that can get an expired answer waits for them.
    pub stale_after: Duration,
    /// The outcome of each query.
    pub counters: Arc<Counters>,
    /// The forwarder's lane of the counters.
    pub lane: usize,
    /// The state of kubedns's replicas: which of them are followed.
    pub streams: Arc<Streams>,
    /// The samples of queries.
    pub samples: Arc<Samples>,
}

/// The receiver of an answer.
pub(super) enum Waiter {
    /// A client. The budget holds its question.
    Client(Deferred),
    /// A query whose answer this one completes.
    Query(Ticket),
    /// The table of stub servers.
    Hosts(Inquiry),
    /// A question that the rules replaced by this one.
    Rewritten(Box<Rewritten>),
}

/// The content of a reply.
enum Content {
    /// An answer, with an Extended DNS Error if there is one.
    Answer {
        answer: Box<Answer>,
        error: Option<(ErrorCode, Cow<'static, str>)>,
        source: sample::Origin,
    },
    /// An expired answer, the records of a truncated one over UDP, or the failure.
    Failure { failure: Failure, cut: Option<Box<Answer>> },
}

/// Asks upstreams for the clients, and for the cache.
pub(super) struct Resolver {
    shared: Shared,
    routes: Arc<Routes>,
    local: Arc<Local>,
    /// Counts the routes and rules that were in force.
    edition: u64,
    /// The edition of the streams with which the groups were made.
    streams_edition: u64,
    pub queries: Queries<Waiter>,
    hosts: Hosts,
    budget: Budget,
    zones: Zones,
    releases: Releases<Deferred, Content>,
    outbox: Outbox,
    /// The question of the latest client.
    key: Vec<u8>,
}

impl Waiter {
    /// Returns the client that is charged for the query.
    fn client(&self) -> Option<IpAddr> {
        match self {
            Self::Client(deferred) => Some(deferred.peer().ip()),
            Self::Rewritten(rewritten) => rewritten.client(),
            Self::Query(_) | Self::Hosts(_) => None,
        }
    }
}

impl Resolver {
    /// Returns a resolver without questions. `draw` returns unpredictable numbers.
    pub fn new(shared: Shared, draw: Box<dyn FnMut() -> u64 + Send>, now: Moment) -> Self {
        let mut resolver = Self {
            routes: shared.routes.load_full(),
            local: shared.local.load_full(),
            queries: Queries::new(draw, shared.patience, shared.stale_after),
            shared,
            edition: 0,
            streams_edition: 0,
            hosts: Hosts::default(),
            budget: Budget::new(),
            zones: Zones::new(),
            releases: Releases::new(),
            outbox: Outbox::new(),
            key: Vec::new(),
        };
        resolver.take_routes(now);
        resolver
    }

    /// Returns whether any client waits for an answer.
    pub fn is_waited_for(&self) -> bool {
        self.budget.is_waited_for()
    }

    /// Sends the replies that wait in an incomplete batch.
    pub fn flush(&mut self) {
        self.outbox.flush();
    }

    /// Returns when [`Resolver::tick`] must be called next.
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
        if !self.budget.hold(deferred.message().len()) {
            if deferred.transport() == Transport::Tcp {
                self.reply_failure(&deferred, CROWDED, None, now);
            } // a client over UDP asks again
            return;
        }
        let mut key = std::mem::take(&mut self.key);
        write_key(&Question::of(&deferred.query(&mut NameBuffer::new())), &mut key);
        let question = read_key(&key);
        let waiter = Waiter::Client(deferred);
        if self.queries.comes_back(&question, now) {
            self.fail(vec![waiter], LOOP, None, now);
        } else {
            self.ask(&question, waiter, now);
        }
        self.key = key;
    }

    /// Gives `waiter` the answer to `question`: by the rules, of a query that is under way, of the
    /// cache, of a local route, or of a new query.
    fn ask(&mut self, question: &Question<'_>, waiter: Waiter, now: Moment) {
        let rewritten = self.rewrite(question);
        let has_rules = rewritten.is_some();
        if let Some((mut rewritten, part)) = rewritten
            && !self.is_fresh(question, now)
        {
            rewritten.waiters.push(waiter);
            return self.pursue(rewritten, part, now);
        }
        if let Some(slot) = self.find(question) {
            return self.wait(slot, waiter, now);
        }
        let Some(waiter) = self.answer_at_once(question, waiter, now) else { return };
        match self.start(question, waiter.client(), has_rules, now) {
            Ok(slot) => self.wait(slot, waiter, now),
            Err(failure) => self.fail(vec![waiter], failure, None, now),
        }
    }

    /// Asks the question of `key` again on behalf of the cache. If every place is taken, its entry
    /// just expires.
    pub fn renew(&mut self, key: &[u8], now: Moment) {
        let question = read_key(key);
        if let Some((rewritten, part)) = self.rewrite(&question) {
            return self.pursue(rewritten, part, now);
        }
        if self.find(&question).is_none()
            && let Err(failure) = self.start(&question, None, false, now)
        {
            tracing::debug!(reason = failure.text, "not renewed");
        }
    }

    /// Takes in a datagram. Returns whether it ended its query.
    pub fn datagram(&mut self, via: Via, datagram: Datagram<'_>, now: Moment) -> bool {
        self.queries.datagram(via, datagram, now, &self.routes)
    }

    /// Takes in the outcome of an exchange over TCP.
    pub fn stream(&mut self, one: TryId, message: Option<&[u8]>, now: Moment) {
        self.queries.stream(one, message, now, &self.routes);
    }

    /// Returns the query under way for `question`. If the name has changed since the query was
    /// sent, new clients must not wait for it.
    fn find(&mut self, question: &Question<'_>) -> Option<u16> {
        let slot = self.queries.find(question)?;
        if self.shared.cache.has_changed(question.name, self.queries.get(slot).origin.seen) {
            self.queries.hide(slot);
            return None;
        }
        Some(slot)
    }

    /// Starts a query along the routes, on behalf of `client`, if given. If the question
    /// `has_rules`, the reply is not the answer that its clients get.
    fn start(
        &mut self,
        question: &Question<'_>,
        client: Option<IpAddr>,
        has_rules: bool,
        now: Moment,
    ) -> Result<u16, Failure> {
        let Route::Group(group) = self.routes.route(question.name) else { return Err(LOCAL) };
        let under_way = self.queries.in_flight();
        let client = client.map(|client| self.budget.admit(client, under_way)).transpose()?;
        let zone = match self.is_group_owned(group) {
            true => Ok(None),
            false => self.zones.take(question.name, now).map(Some).ok_or(FLOOD),
        };
        let seen = self.shared.cache.version();
        let origin = |zone| Origin {
            started: now,
            seen,
            edition: self.edition,
            group,
            client,
            zone,
            has_rules,
            without_recursion: self.local.header(question.name).query_recursion == Some(false),
        };
        let started = zone.map(origin).and_then(|origin| self.queries.start(question, origin));
        if let (Err(_), Some(place)) = (&started, client) {
            self.budget.leave(place);
        }
        started
    }

    /// Returns whether the cache has an answer to `question` that has not expired.
    fn is_fresh(&self, question: &Question<'_>, now: Moment) -> bool {
        let state = self.shared.cache.state(question, now);
        state.is_some_and(|state| state.remaining_secs > 0)
    }

    /// Answers `waiter` from the cache or by a local route. Returns `waiter` if neither has the
    /// answer.
    fn answer_at_once(
        &mut self,
        question: &Question<'_>,
        waiter: Waiter,
        now: Moment,
    ) -> Option<Waiter> {
        let Waiter::Client(deferred) = waiter else {
            let Some(message) = self.message_at_once(question, now) else { return Some(waiter) };
            match waiter {
                Waiter::Query(ticket) => {
                    let seen = self.shared.cache.version();
                    self.complete(ticket, &[&message], seen, now);
                }
                Waiter::Hosts(inquiry) => self.learn(&inquiry, &[&message], now),
                Waiter::Client(_) | Waiter::Rewritten(_) => {}
            }
            return None;
        };
        if self.is_fresh(question, now) {
            let cache = Arc::clone(&self.shared.cache);
            self.send(&deferred, Source::Hit.into(), |query, reply| {
                if matches!(cache.get(query, now, reply), Lookup::Miss | Lookup::Expired) {
                    reply.fail(rcode::SERVFAIL, ErrorCode::Other, ENTRY_GONE);
                }
            });
        } else if let Route::Local(local) = self.routes.route(question.name) {
            self.send(&deferred, Source::Local.into(), |query, reply| local.answer(query, reply));
        } else {
            return Some(Waiter::Client(deferred));
        }
        self.budget.release(deferred.message().len());
        None
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
    fn source(&self, server: Option<u16>) -> sample::Origin {
        let upstream = server.map(|server| self.queries.servers().get(server).endpoint.address);
        sample::Origin { source: Source::Miss, upstream }
    }

    /// Logs that the health of `server` has changed.
    pub fn log_health(&self, server: u16) {
        let server = self.queries.servers().get(server);
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
        self.ask(&question, Waiter::Hosts(inquiry), now);
    }

    /// Notes the addresses of a host in `replies`.
    fn learn(&mut self, inquiry: &Inquiry, replies: &[&[u8]], now: Moment) {
        let outcome = replies.last().and_then(|reply| addresses(reply));
        if self.hosts.learn(inquiry, outcome, now) {
            self.take_groups(now);
        }
    }
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
const ENTRY_GONE: &str = "the entry has just gone";
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
