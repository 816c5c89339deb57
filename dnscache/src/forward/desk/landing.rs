//! What the desk does with a query that has ended: it stores the answer and hands it out, completes
//! it, or asks other servers.
//!
//! Edge, on the forwarder's thread.

use std::sync::Arc;
use std::time::Duration;

use shared::clock::Moment;
use shared::serve::Deferred;
use shared::wire::{ErrorCode, Transport, rcode};

use super::errand::Goal;
use super::{Desk, EXPIRED, Shared, Told, Waiter, What, key, message_by};
use crate::cache::{Failed, Kept};
use crate::counters::Count;
use crate::forward::message::Failure;
use crate::forward::outcome::{Rules, reduce};
use crate::forward::queries::Question;
use crate::forward::table::End;
use crate::normalise::Answer;
use crate::route::{After, Beyond, Route};
use crate::sample::Source;

impl Desk {
    /// Lands the query in `slot`, which has ended.
    pub fn land(&mut self, slot: u16, now: Moment) {
        for blame in self.queries.recovered() {
            self.shared.cache.recover(blame, now);
        }
        match self.queries.take_end(slot) {
            Some(End::Answered { answer, message }) => {
                self.land_answer(slot, *answer, &[&message], now);
            }
            Some(End::Failed { failure, cut }) => self.land_failure(slot, failure, cut, now),
            None => {}
        }
    }

    /// Lands the query in `slot` with `answer`, which was made of `replies`. Each reply answers the
    /// alias at which the one before ends.
    fn land_answer(&mut self, slot: u16, mut answer: Answer, replies: &[&[u8]], now: Moment) {
        let name = self.queries.question(slot).name.to_vec();
        let origin = self.queries.origin(slot);
        let kind = (answer.entry.rcode(), answer.entry.is_negative());
        if replies.len() == 1 && self.ask_next(slot, kind, now) {
            return;
        }
        let question = Question { name: &name, ..self.queries.question(slot) };
        if let ([first], Some(target)) = (replies, &answer.dangling)
            && self.leads_elsewhere(target, origin.group)
        {
            let rest = Question { name: target, ..question };
            return self.complete(slot, first, &rest, now);
        }
        if self.routes.route(&name) != Route::Group(origin.group) {
            // kubedns may learn the address later, and then announces the change.
            answer.entry = answer.entry.following(vec![name.clone().into()]);
        }
        if self.routes.is_owned(&name) && !self.is_watched(&name) {
            answer.lifetime_secs = answer.lifetime_secs.min(UNWATCHED_SECS);
            answer.entry = answer.entry.with_ttl_max(UNWATCHED_SECS);
        }
        if let (Some(place), rcode::NOERROR) = (origin.zone, answer.entry.rcode()) {
            self.zones.give_back(place);
        }
        self.store(slot, &question, &answer, now);
        let server = self.queries.answered_by(slot);
        let (mut parents, mut clients, mut errands) = (Vec::new(), Vec::new(), Vec::new());
        for waiter in self.remove(slot) {
            match waiter {
                Waiter::Client(deferred) => clients.push(deferred),
                Waiter::Query(ticket) => parents.push(ticket),
                Waiter::Hosts(inquiry) => self.learn(&inquiry, replies, now),
                Waiter::Errand(errand) => errands.push(errand),
            }
        }
        let whence = self.whence(server);
        for mut errand in errands {
            errand.whence = whence;
            self.come_back(*errand, &question, &answer, (origin, now));
        }
        // The answers go out after the entry is stored: a client that asks again finds it.
        let told = Told { what: What::Answer(Box::new(answer)), whence };
        self.releases.add(clients, told, now.since(origin.started), now);
        self.release(now);
        for ticket in parents {
            if let Some((parent, partial)) = self.queries.take_partial(ticket) {
                self.queries.depends_on(parent, origin.seen);
                let chain: Vec<&[u8]> =
                    std::iter::once(&partial[..]).chain(replies.iter().copied()).collect();
                self.land_chain(parent, &chain, now);
            }
        }
    }

    /// Returns whether the replica that was asked reports every change of `name`, which belongs to
    /// kubedns. Any replica can be asked for the names of the replicas themselves.
    fn is_watched(&self, name: &[u8]) -> bool {
        let streams = &self.shared.streams;
        streams.is_up() && !streams.hosts().iter().any(|host| **host == *name)
    }

    /// Lands the query in `slot` with several replies.
    pub(super) fn land_chain(&mut self, slot: u16, replies: &[&[u8]], now: Moment) {
        let group = self.queries.origin(slot).group;
        let rules = Rules { routes: &self.routes };
        match reduce(replies, &self.queries.question(slot), group, &rules) {
            Ok(answer) => self.land_answer(slot, answer, replies, now),
            Err(error) => {
                tracing::debug!(%error, "a chain of aliases is of no use");
                self.land_failure(slot, BROKEN_CHAIN, None, now);
            }
        }
    }

    /// Returns whether `target`, an alias that servers of `group` sent, must be followed along its
    /// own route. Aliases from outside must not lead into the cluster's zones.
    fn leads_elsewhere(&self, target: &[u8], group: usize) -> bool {
        let is_owned = |group: usize| self.routes.groups().get(group).is_some_and(|it| it.owned);
        match self.routes.route(target) {
            Route::Local(_) => true,
            Route::Group(other) => {
                !self.routes.is_asked_of(target, group) && (is_owned(group) || !is_owned(other))
            }
        }
    }

    /// Stores the answer of the query in `slot`, unless its routes have changed since it was sent.
    fn store(&self, slot: u16, question: &Question<'_>, answer: &Answer, now: Moment) {
        let origin = self.queries.origin(slot);
        let is_old = || self.edition != origin.edition || self.has_new_routes();
        if is_old() || self.local.touches(question.name, question.qtype) {
            return;
        }
        let kept = Kept { lifetime_secs: answer.lifetime_secs, seen: origin.seen, now };
        self.shared.cache.insert_as_of(question, &answer.entry, kept);
        // Routes can be swapped at any time, which removes entries. This one was inserted too late.
        if is_old() {
            self.shared.cache.remove(question);
        }
    }

    /// Completes the answer `first` of the query in `slot` by the answer to `rest`.
    fn complete(&mut self, slot: u16, first: &[u8], rest: &Question<'_>, now: Moment) {
        let ticket = self.queries.ticket(slot);
        let goal = Goal::Query { ticket, first: first.to_vec() };
        if self.consult(&key(rest), goal, now).is_none() {
            return;
        }
        let query = match self.find(rest) {
            Some(query) => Ok(query),
            None => match self.message_at_once(rest, now) {
                Some(message) => return self.land_chain(slot, &[first, &message], now),
                None => self.start_for(rest, None, now),
            },
        };
        let followed = query.and_then(|query| {
            self.queries.follow(slot, first, query)?;
            self.queries.attach(query, Waiter::Query(ticket));
            Ok(())
        });
        if let Err(failure) = followed {
            self.land_failure(slot, failure, None, now);
        }
    }

    /// Lands the query in `slot` with `failure`, unless other servers can be asked.
    pub(super) fn land_failure(
        &mut self,
        slot: u16,
        failure: Failure,
        cut: Option<Box<Answer>>,
        now: Moment,
    ) {
        if self.ask_beyond(slot, failure, now) || self.ask_next(slot, (failure.rcode, false), now) {
            return;
        }
        if cut.is_none() {
            self.keep_failure(slot, failure, now);
        }
        let wait = now.since(self.queries.origin(slot).started);
        let mut clients = Vec::new();
        for waiter in self.remove(slot) {
            match waiter {
                Waiter::Client(deferred) => clients.push(deferred),
                Waiter::Query(ticket) => {
                    if let Some((parent, _)) = self.queries.take_partial(ticket) {
                        self.land_failure(parent, failure, None, now);
                    }
                }
                Waiter::Hosts(inquiry) => drop(self.hosts.learn(&inquiry, None, now)),
                Waiter::Errand(errand) => self.come_back_empty(*errand, failure, now),
            }
        }
        let whence = self.whence(failure.server);
        let told = Told { what: What::Failure(failure, cut), whence };
        self.releases.add(clients, told, wait, now);
        self.release(now);
    }

    /// Has the next servers answer the query in `slot`, if an answer of this kind is passed on: its
    /// code, and whether it has no records. Returns whether they are asked.
    fn ask_next(&mut self, slot: u16, kind: (u16, bool), now: Moment) -> bool {
        let group = self.queries.origin(slot).group;
        let next = self.routes.next(self.queries.question(slot).name, group, kind);
        next.is_some_and(|group| self.queries.ask_next(slot, group, now).is_ok())
    }

    /// Makes other servers answer the query in `slot`, if kubedns gives way to them. Returns
    /// whether it does.
    fn ask_beyond(&mut self, slot: u16, failure: Failure, now: Moment) -> bool {
        let Some(name) = self.gives_way(slot, failure) else { return false };
        let Some(Beyond { route, .. }) = self.routes.beyond(&name) else { return false };
        match route {
            Route::Group(group) => self.queries.ask_next(slot, group, now).is_ok(),
            Route::Local(local) => {
                let question = Question { name: &name, ..self.queries.question(slot) };
                let message = message_by(&question, |query, reply| {
                    local.answer(query, reply);
                    true
                });
                message.is_some_and(|message| {
                    self.land_chain(slot, &[&message], now);
                    true
                })
            }
        }
    }

    /// Returns the name in the query in `slot`, if kubedns gives way to other servers after
    /// `failure`.
    fn gives_way(&self, slot: u16, failure: Failure) -> Option<Vec<u8>> {
        let name = self.queries.question(slot).name;
        let Beyond { after, .. } = self.routes.beyond(name)?;
        let is_first = self.routes.route(name) == Route::Group(self.queries.origin(slot).group);
        let gives_way = after == After::Failure || failure.rcode == rcode::REFUSED;
        (is_first && gives_way).then(|| name.to_vec())
    }

    /// Stores the failure of the query in `slot`, so that the question is not asked again for a
    /// while (RFC 9520 section 3.2). kubedns is asked again each time, because clients must get its
    /// new records at once. Lack of room here is not a failure of the question.
    fn keep_failure(&mut self, slot: u16, failure: Failure, now: Moment) {
        let Some(server) = failure.server else { return };
        let group = self.queries.origin(slot).group;
        let is_owned = self.routes.groups().get(group).is_some_and(|group| group.owned);
        let name = self.queries.question(slot).name.to_vec();
        let question = Question { name: &name, ..self.queries.question(slot) };
        if self.local.touches(&name, question.qtype) {
            return;
        }
        if is_owned {
            return self.shared.cache.postpone(&question, now + STALE_PAUSE);
        }
        let names: &[Box<[u8]>] = &[name.clone().into()];
        let names = if self.routes.is_owned(&name) { names } else { &[] };
        let blame = self.queries.blame(server);
        let failed = Failed { code: failure.rcode, blame, names };
        self.shared.cache.fail(&question, &failed, now);
    }

    /// Gives the waiters of the query in `slot` an expired answer, if there is one. The query
    /// continues.
    pub fn serve_stale(&mut self, slot: u16, now: Moment) {
        if !self.queries.is_under_way(slot) {
            return;
        }
        if self.gives_way(slot, POD_DOWN).is_some() {
            return self.queries.fail(slot, POD_DOWN);
        }
        let name = self.queries.question(slot).name.to_vec();
        let question = Question { name: &name, ..self.queries.question(slot) };
        for waiter in self.queries.take_waiters(slot) {
            match waiter {
                Waiter::Client(deferred) if self.reply_stale(&deferred, EXPIRED, now) => {
                    self.budget.release(deferred.message().len());
                    // The next clients are answered from the cache while the query continues.
                    self.shared.cache.postpone(&question, now + STALE_PAUSE);
                }
                Waiter::Query(ticket) => {
                    self.queries.attach(slot, Waiter::Query(ticket));
                    if let Some(parent) = self.queries.slot(ticket) {
                        self.serve_stale(parent, now);
                    }
                }
                Waiter::Errand(errand) => {
                    let errand = self.serve_stale_to(*errand, now);
                    self.queries.attach(slot, Waiter::Errand(Box::new(errand)));
                }
                other => self.queries.attach(slot, other),
            }
        }
    }

    /// Answers the waiters that are due.
    pub(super) fn release(&mut self, now: Moment) {
        let mut releases = std::mem::replace(&mut self.releases, super::Releases::new());
        releases.run(now, |deferred, told| {
            self.budget.release(deferred.message().len());
            self.reply_told(deferred, told, now);
        });
        self.releases = releases;
    }

    /// Answers a client.
    pub(super) fn reply_told(&mut self, deferred: &Deferred, told: &Told, now: Moment) {
        let Told { what, whence } = told;
        match what {
            What::Answer(answer) => self.exit.reply(deferred, *whence, |query, reply| {
                answer.entry.emit(query, 0, u32::MAX, reply);
            }),
            What::Explained(answer, code, text) => {
                self.exit.reply(deferred, *whence, |query, reply| {
                    answer.entry.emit(query, 0, u32::MAX, reply);
                    reply.set_error(*code, text);
                });
            }
            What::Failure(failure, cut) => {
                self.reply_failure(deferred, *failure, cut.as_deref(), now);
            }
        }
    }

    /// Frees `slot`. Returns its waiters.
    fn remove(&mut self, slot: u16) -> Vec<Waiter> {
        if let Some(place) = self.queries.origin(slot).client {
            self.budget.leave(place);
        }
        self.queries.remove(slot)
    }

    /// Answers a client whose question failed: with an expired answer, with the records of a
    /// truncated one over UDP, or with the failure.
    pub(super) fn reply_failure(
        &mut self,
        deferred: &Deferred,
        failure: Failure,
        cut: Option<&Answer>,
        now: Moment,
    ) {
        if self.reply_stale(deferred, failure.text, now) {
            return;
        }
        let cut = cut.filter(|_| deferred.transport() == Transport::Udp);
        let text = match failure.server.map(|server| &self.servers().get(server).endpoint) {
            Some(endpoint) => format!("{} ({endpoint})", failure.text),
            None => failure.text.to_owned(),
        };
        let whence = self.whence(failure.server);
        self.exit.reply(deferred, whence, |query, reply| match cut {
            Some(answer) => {
                answer.entry.emit(query, 0, u32::MAX, reply);
                reply.set_truncated();
            }
            None => reply.fail(failure.rcode, failure.reason, &text),
        });
    }

    /// Answers a client with an expired answer (RFC 8767), if there is one, and gives `text` as the
    /// reason. Returns whether it did.
    pub(super) fn reply_stale(
        &mut self,
        deferred: &Deferred,
        text: &'static str,
        now: Moment,
    ) -> bool {
        let Shared { cache, counters, lane, .. } = &self.shared;
        let routes = Arc::clone(&self.routes);
        let mut is_found = false;
        let mut name = shared::wire::NameBuffer::new();
        let question = Question::of(&deferred.query(&mut name));
        let is_answer = |code: u16| matches!(code, rcode::NOERROR | rcode::NXDOMAIN);
        if cache.state(&question, now).is_none_or(|state| !is_answer(state.rcode)) {
            return false;
        }
        self.exit.reply(deferred, Source::Stale.into(), |query, reply| {
            let ttl = if routes.is_owned(query.name()) { STALE_TTL_OWNED } else { STALE_TTL };
            match cache.get_stale(query, now, ttl, reply) {
                Some(code) if is_answer(code) => {
                    is_found = true;
                    counters.count(*lane, Count::Stale);
                    let reason = match code {
                        rcode::NXDOMAIN => ErrorCode::StaleNxdomainAnswer,
                        _ => ErrorCode::StaleAnswer,
                    };
                    reply.set_error(reason, text);
                }
                _ => reply.fail(rcode::SERVFAIL, ErrorCode::Other, "the entry has just gone"),
            }
        });
        is_found
    }
}

/// The TTL of expired answers, in seconds (RFC 8767 section 4). It is short for names that change
/// with the cluster.
const STALE_TTL: u32 = 30;
const STALE_TTL_OWNED: u32 = 5;
/// How long an expired answer is served from the cache before the question is asked again.
pub(super) const STALE_PAUSE: Duration = Duration::from_millis(100);
/// For how many seconds the cluster's names are stored while their changes are not reported.
const UNWATCHED_SECS: u32 = 5;
const POD_DOWN: Failure =
    Failure::servfail(ErrorCode::NoReachableAuthority, "the servers in the pod are down");
const BROKEN_CHAIN: Failure =
    Failure::servfail(ErrorCode::Other, "the chain of aliases is of no use");
