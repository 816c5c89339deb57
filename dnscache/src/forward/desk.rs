//! Where the cache, the routes, the flights and those who wait meet: takes queries in, hands
//! answers out.
//!
//! Edge, on the forwarder's thread. Which server is asked when is the flights' business; sockets
//! are the thread's.

mod failing;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use shared::clock::Moment;
use shared::serve::{Deferred, Outbox};
use shared::wire::{ErrorCode, HEADER_LEN, MESSAGE_MAX, NameBuffer, Query, Reply, Transport};
use shared::wire::{class, name_end, rcode};

use super::flights::{Act, Failure, Flights, Question, Servers, Ticket, Via};
use super::hosts::{Hosts, Inquiry};
use super::message::{Form, addresses, read_key, write_query};
use crate::cache::{Cache, Lookup};
use crate::changes::Epoch;
use crate::counters::Counters;
use crate::lifetime::Limits;
use crate::normalise::{self, Asked};
use crate::route::{ROOT, Route, Routes};

/// What the forwarder shares with the rest of the program.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The routes of the moment.
    pub routes: Arc<ArcSwap<Routes>>,
    /// The limits of TTLs.
    pub limits: Limits,
    /// What became of each query.
    pub counters: Arc<Counters>,
    /// The lane of the counters that is the forwarder's.
    pub lane: usize,
    /// Whether cluster names changed while a question about them was on its way.
    pub epoch: Arc<Epoch>,
}

/// Who waits for a flight.
enum Waiter {
    /// A client.
    Client(Deferred),
    /// A flight whose answer this one completes.
    Flight(Ticket),
    /// The table of stub servers.
    Hosts(Inquiry),
}

/// The desk.
pub(super) struct Desk {
    shared: Shared,
    routes: Arc<Routes>,
    flights: Flights<Waiter>,
    hosts: Hosts,
    acts: Vec<Act>,
    /// When each slot's question was last sent, by the epoch and by the routes.
    sent_at: Vec<(u64, u64)>,
    /// Counts the routes.
    edition: u64,
    outbox: Outbox,
    /// A reply while it is read.
    reply: Vec<u8>,
}

impl Desk {
    /// A desk with nothing on it; `draw` yields unpredictable numbers.
    pub fn new(shared: Shared, draw: Box<dyn FnMut() -> u64 + Send>, now: Moment) -> Self {
        let mut desk = Self {
            routes: shared.routes.load_full(),
            shared,
            flights: Flights::new(draw),
            hosts: Hosts::default(),
            acts: Vec::new(),
            sent_at: Vec::new(),
            edition: 0,
            outbox: Outbox::new(),
            reply: Vec::new(),
        };
        desk.take_routes(now);
        desk
    }

    /// The servers.
    pub fn servers(&self) -> &Servers {
        self.flights.servers()
    }

    /// Flights in the air.
    pub fn in_flight(&self) -> usize {
        self.flights.in_flight()
    }

    /// Whether anybody waits for an answer.
    pub fn is_waited_for(&self) -> bool {
        self.flights.is_waited_for()
    }

    /// The slot of `ticket`'s flight, while it is in the air.
    pub fn slot(&self, ticket: Ticket) -> Option<u16> {
        self.flights.slot(ticket)
    }

    /// The query to be sent for the flight in `slot`.
    pub fn message(&mut self, slot: u16) -> &[u8] {
        let at = usize::from(slot);
        if at >= self.sent_at.len() {
            self.sent_at.resize(at + 1, (0, 0));
        }
        self.sent_at[at] = (self.shared.epoch.now(), self.edition);
        self.flights.message(slot)
    }

    /// What is to be done; `acts` is empty and used for what comes next.
    pub fn swap_acts(&mut self, acts: &mut Vec<Act>) {
        std::mem::swap(&mut self.acts, acts);
    }

    /// Sends the replies that wait for their batch to fill.
    pub fn flush(&mut self) {
        self.outbox.flush();
    }

    /// When [`Desk::tick`] is next of use.
    pub fn next_due(&self) -> Option<Moment> {
        [self.flights.next_due(), self.hosts.next_due()].into_iter().flatten().min()
    }

    /// Does what is due: new routes, tries, hosts.
    pub fn tick(&mut self, now: Moment) {
        if self.has_new_routes() {
            self.routes = self.shared.routes.load_full();
            self.take_routes(now);
        }
        self.flights.tick(now, &mut self.acts);
        while let Some(inquiry) = self.hosts.ask(now) {
            self.inquire(inquiry, now);
        }
    }

    /// Takes a client's query in.
    pub fn take(&mut self, deferred: Deferred, now: Moment) {
        if now.since(deferred.arrived()) > AGE_MAX {
            return; // its client has given up or asked again; late answers add up (DNSBomb)
        }
        let mut name = NameBuffer::new();
        let question = Question::of(&deferred.query(&mut name));
        let client = deferred.peer().ip();
        let slot = match self.flights.find(&question) {
            Some(slot) => Ok(slot),
            None if self.answer_at_once(&deferred, &question, now) => return,
            None => self.flights.admit(client).and_then(|()| self.start(&question, now)),
        };
        let seated = match slot {
            Ok(slot) => self.flights.attach(slot, Some(client), Waiter::Client(deferred)),
            Err(failure) => Err((Waiter::Client(deferred), failure)),
        };
        if let Err((Waiter::Client(deferred), failure)) = seated {
            self.reply_failure(&deferred, failure, now);
        }
    }

    /// Asks the question that `key` stands for anew, for nobody in particular. With every place
    /// taken its entry just expires.
    pub fn renew(&mut self, key: &[u8], now: Moment) {
        let question = read_key(key);
        if self.flights.find(&question).is_none()
            && let Err(failure) = self.start(&question, now)
        {
            tracing::debug!(reason = failure.text, "not renewed");
        }
    }

    /// Takes a datagram in; yields whether it answered a flight.
    pub fn datagram(&mut self, via: Via, message: &[u8], now: Moment) -> bool {
        let landed = self.flights.datagram(via, message, now, &mut self.acts);
        if let Some(slot) = landed {
            self.land_reply(slot, message, now);
        }
        landed.is_some()
    }

    /// Takes the outcome of an exchange over TCP in.
    pub fn stream(&mut self, ticket: Ticket, message: Option<&[u8]>, now: Moment) {
        if let Some(slot) = self.flights.stream(ticket, message, now, &mut self.acts) {
            self.land_reply(slot, message.unwrap_or_default(), now);
        }
    }

    /// Notes that nothing listens at the other end of a socket.
    pub fn unreachable(&mut self, via: Via, now: Moment) {
        self.flights.unreachable(via, now, &mut self.acts);
    }

    /// Notes that there is no socket left for the flight in `slot`, which is no server's fault.
    pub fn no_socket(&mut self, slot: u16) {
        self.flights.fail(slot, NO_SOCKET, &mut self.acts);
    }

    /// Starts a flight along the routes.
    fn start(&mut self, question: &Question<'_>, now: Moment) -> Result<u16, Failure> {
        if let Some(server) = self.flights.comes_back(question) {
            let address = self.servers().get(server).address;
            tracing::error!(%address, "upstream sends our queries back to us: not asked again");
            return Err(LOOP);
        }
        match self.routes.route(question.name) {
            Route::Group(group) => self.flights.start(question, group, now, &mut self.acts),
            Route::Local(_) => Err(LOCAL),
        }
    }

    /// Answers from the cache or by a route what either can answer now, though it could not when
    /// the query came. Yields whether that was so.
    fn answer_at_once(
        &mut self,
        deferred: &Deferred,
        question: &Question<'_>,
        now: Moment,
    ) -> bool {
        let cache = &self.shared.cache;
        if cache.state(question, now).is_some_and(|state| state.remaining_secs > 0) {
            reply(&mut self.outbox, deferred, |query, reply| {
                if matches!(cache.get(query, now, reply), Lookup::Miss | Lookup::Expired) {
                    reply.fail(rcode::SERVFAIL, ErrorCode::Other, "the entry has just gone");
                }
            });
            return true;
        }
        let Route::Local(local) = self.routes.route(question.name) else { return false };
        reply(&mut self.outbox, deferred, |query, reply| local.answer(query, reply));
        true
    }

    /// Lands the flight in `slot` with the genuine reply `message`.
    fn land_reply(&mut self, slot: u16, message: &[u8], now: Moment) {
        let mut copy = std::mem::take(&mut self.reply);
        copy.clear();
        copy.extend_from_slice(message);
        // The letters' case was ours, to be hard to guess; the owner names that point to it are not
        // to show it.
        if let Some(end) = name_end(&copy, HEADER_LEN) {
            copy[HEADER_LEN..end].make_ascii_lowercase();
        }
        self.land_replies(slot, &[&copy], now);
        self.reply = copy;
    }

    /// Lands the flight in `slot` with replies of which each answers the alias at which the one
    /// before ends.
    fn land_replies(&mut self, slot: u16, replies: &[&[u8]], now: Moment) {
        let asked = self.flights.question(slot);
        let name = asked.name.to_vec();
        let question = Question { name: &name, ..asked };
        let is_ours = self.routes.is_owned(&name);
        let is_beyond = self.flights.is_beyond(slot);
        let route = match self.routes.beyond(&name) {
            Some(beyond) if is_beyond => beyond.route,
            _ => self.routes.route(&name),
        };
        let group = match route {
            Route::Group(index) => Some(&self.routes.groups()[index]),
            Route::Local { .. } => None,
        };
        let of_suffix = group.is_some_and(|group| *group.suffix != *ROOT);
        let owned = is_ours && !is_beyond;
        let asked =
            Asked { name: &name, qtype: question.qtype, dnssec_ok: question.dnssec_ok, owned };
        let mut answer = match normalise::reduce_chain(replies, &asked, &self.shared.limits) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "reply of no use");
                return self.flights.fail(slot, UNUSABLE, &mut self.acts);
            }
        };
        if is_beyond {
            // kubedns may come to have the address, and will say so.
            answer.entry = answer.entry.following(vec![name.clone().into()]);
        }
        if let ([first], Some(target), true) = (replies, &answer.dangling, of_suffix) {
            let rest = Question { name: target, ..question };
            let elsewhere = matches!(self.routes.route(target), Route::Group(_))
                && self.routes.route(target) != self.routes.route(&name);
            if elsewhere {
                return self.complete(slot, first, &rest, now);
            }
        }
        let (epoch, edition) = self.sent_at[usize::from(slot)];
        // What was on its way while it changed may tell how things were: it is not kept. Looked at
        // again behind the insertion, because others change and drop at any time.
        let changed = || {
            let renamed = is_ours && self.shared.epoch.now() != epoch;
            renamed || self.edition != edition || self.has_new_routes()
        };
        if !changed() {
            self.shared.cache.insert(&question, &answer.entry, answer.lifetime_secs, now);
            if changed() {
                self.shared.cache.remove(&question);
            }
        }
        // The answer goes out behind that: whoever has it and asks again finds it kept.
        let mut followers = Vec::new();
        for waiter in self.land(slot) {
            match waiter {
                Waiter::Client(deferred) => reply(&mut self.outbox, &deferred, |query, reply| {
                    answer.entry.emit(query, 0, u32::MAX, reply);
                }),
                Waiter::Flight(ticket) => followers.push(ticket),
                Waiter::Hosts(inquiry) => self.learn(&inquiry, replies, now),
            }
        }
        for ticket in followers {
            if let Some(slot) = self.flights.slot(ticket) {
                let partial = self.flights.partial(slot).to_vec();
                let chain: Vec<&[u8]> =
                    std::iter::once(&partial[..]).chain(replies.iter().copied()).collect();
                self.land_replies(slot, &chain, now);
            }
        }
    }

    /// Has the answer `first` of the flight in `slot` completed by that to `rest`.
    fn complete(&mut self, slot: u16, first: &[u8], rest: &Question<'_>, now: Moment) {
        let flight = match self.flights.find(rest) {
            Some(flight) => Ok(flight),
            None => match self.cached_message(rest, now) {
                Some(message) => return self.land_replies(slot, &[first, &message], now),
                None => self.start(rest, now),
            },
        };
        let ticket = self.flights.ticket(slot);
        let followed = flight.and_then(|flight| {
            self.flights.follow(slot, first, flight)?;
            let attached = self.flights.attach(flight, None, Waiter::Flight(ticket));
            attached.map_err(|(_, failure)| failure)
        });
        if let Err(failure) = followed {
            self.flights.fail(slot, failure, &mut self.acts);
        }
    }

    /// The cache's answer to `question` as a whole message.
    fn cached_message(&self, question: &Question<'_>, now: Moment) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        write_query(question, Form { id: 0, edns: true, upper_case: 0 }, &mut message);
        let mut name = NameBuffer::new();
        let query = Query::screen(&message, Transport::Tcp, &mut name).ok()?;
        let mut buffer = vec![0; MESSAGE_MAX];
        let mut reply = Reply::new(&query, &mut buffer);
        let found = self.shared.cache.get(&query, now, &mut reply);
        let len = reply.finish();
        buffer.truncate(len);
        matches!(found, Lookup::Hit | Lookup::Due).then_some(buffer)
    }

    /// Ends the flight in `slot`; those who waited for it.
    fn land(&mut self, slot: u16) -> Vec<Waiter> {
        let mut waiters = Vec::new();
        self.flights.land(slot, &mut self.acts, |waiter| waiters.push(waiter));
        waiters
    }

    fn has_new_routes(&self) -> bool {
        !Arc::ptr_eq(&self.routes, &self.shared.routes.load())
    }

    fn take_routes(&mut self, now: Moment) {
        self.edition += 1;
        self.hosts.follow(&self.routes);
        self.take_groups(now);
    }

    fn take_groups(&mut self, now: Moment) {
        let groups = self.hosts.groups(&self.routes);
        self.flights.set_groups(&groups, now, &mut self.acts);
    }

    /// Asks for the addresses of a stub server's host, along the routes as anybody.
    fn inquire(&mut self, inquiry: Inquiry, now: Moment) {
        let name = inquiry.name.clone();
        let question = Question {
            name: &name,
            qtype: inquiry.qtype,
            qclass: class::IN,
            dnssec_ok: false,
            checking_disabled: false,
        };
        let flight = match self.flights.find(&question) {
            Some(flight) => Ok(flight),
            None => match self.cached_message(&question, now) {
                Some(message) => return self.learn(&inquiry, &[&message], now),
                None => self.start(&question, now),
            },
        };
        let attached = flight.map(|flight| {
            self.flights.attach(flight, None, Waiter::Hosts(inquiry.clone())).is_ok()
        });
        if attached != Ok(true) {
            self.hosts.learn(&inquiry, None, now);
        }
    }

    /// Notes the addresses that `replies` give a host.
    fn learn(&mut self, inquiry: &Inquiry, replies: &[&[u8]], now: Moment) {
        let outcome = replies.last().and_then(|reply| addresses(reply));
        if self.hosts.learn(inquiry, outcome, now) {
            self.take_groups(now);
        }
    }
}

/// Puts the reply to `deferred` that `write` makes into `outbox`.
fn reply(outbox: &mut Outbox, deferred: &Deferred, write: impl FnOnce(&Query<'_>, &mut Reply<'_>)) {
    outbox.reply(deferred, |buffer| {
        let mut name = NameBuffer::new();
        let query = deferred.query(&mut name);
        let mut reply = deferred.reply(&query, buffer);
        reply.set_recursion_available(true);
        write(&query, &mut reply);
        reply.finish()
    });
}

/// A query that has waited longer for its turn is not answered: its client does not listen any
/// more.
const AGE_MAX: Duration = Duration::from_millis(1_900);
const LOCAL: Failure = Failure {
    rcode: rcode::NXDOMAIN,
    reason: ErrorCode::Other,
    text: "an alias leads to a name that never leaves the pod",
};
const LOOP: Failure = Failure {
    rcode: rcode::REFUSED,
    reason: ErrorCode::Other,
    text: "this query came from here: the upstreams form a loop",
};
const NO_SOCKET: Failure =
    Failure::servfail(ErrorCode::Other, "no descriptor left for a socket to an upstream");
const UNUSABLE: Failure = Failure::servfail(ErrorCode::Other, "the upstream's reply is of no use");
