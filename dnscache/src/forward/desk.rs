//! Where the cache, the routes, the flights and those who wait meet: takes queries in, hands
//! answers out.
//!
//! Edge, on the forwarder's thread. Which server is asked when is the flights' business; sockets
//! are the thread's.

use arc_swap::ArcSwap;
use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use shared::clock::Moment;
use shared::serve::{Deferred, Outbox};
use shared::wire::{ErrorCode, HEADER_LEN, MESSAGE_MAX, NameBuffer, Query, Reply, Transport};
use shared::wire::{class, name_end, rcode};
mod landing;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::flights::{Act, Failure, Flights, Question, Servers, Ticket, Via};
use super::hosts::{Hosts, Inquiry};
use super::message::{Form, read_key, write_query};
use crate::cache::{Cache, Lookup};
use crate::changes::Epoch;
use crate::counters::{Count, Counters};
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
        let slot = match self.flights.find(&question) {
            Some(slot) => Ok(slot),
            None if self.answer_at_once(&deferred, &question, now) => return,
            None => self.start(&question, now),
        };
        let client = Some(deferred.peer().ip());
        let seated = match slot {
            Ok(slot) => self.flights.attach(slot, client, Waiter::Client(deferred)),
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

    /// Makes the flight in `slot` fail for want of a socket.
    pub fn give_up(&mut self, slot: u16) {
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
        let mut reply = Reply::new(&query, buffer);
        reply.set_recursion_available(true);
        write(&query, &mut reply);
        reply.finish()
    });
}

/// The addresses in a reply, and how long they may be kept.
fn addresses(reply: &[u8]) -> Option<(Vec<IpAddr>, Duration)> {
    let message = Message::from_vec(reply).ok()?;
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    let addresses = message.answers.iter().filter_map(|record| address(&record.data)).collect();
    let ttl = message.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
    Some((addresses, Duration::from_secs(ttl.into())))
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
    Failure::servfail(ErrorCode::Other, "no socket left to ask an upstream with");
