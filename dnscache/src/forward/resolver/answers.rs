//! What happens to a query that has ended: its answer is stored and handed out, or completed, or
//! other servers are asked.
//!
//! Edge, on the forwarder's thread.

use std::borrow::Cow;
use std::time::Duration;

use shared::clock::Moment;
use shared::wire::{ErrorCode, rcode};

use super::{Content, Resolver, Waiter, message_by};
use crate::cache::{Failed, Kept};
use crate::forward::message::{Failure, key, read_key};
use crate::forward::outcome::reduce;
use crate::forward::queries::Question;
use crate::forward::table::{End, Ticket};
use crate::normalise::Answer;
use crate::route::{After, Beyond, Route};
use crate::sample;

/// An answer, and what its waiters must know about it.
pub(super) struct Answered<'a> {
    pub answer: Box<Answer>,
    /// The Extended DNS Error that clients get with it.
    pub error: Option<(ErrorCode, Cow<'static, str>)>,
    /// The messages that it was made of. Each answers the alias at which the one before ends.
    pub replies: &'a [&'a [u8]],
    /// Where it comes from.
    pub source: sample::Origin,
    /// The cache's version when the question was first asked.
    pub seen: u64,
}

impl Resolver {
    /// Handles the end of the query in `slot`.
    pub fn end(&mut self, slot: u16, now: Moment) {
        for blame in self.queries.recovered() {
            self.shared.cache.recover(blame, now);
        }
        match self.queries.take_end(slot) {
            Some(End::Answered { answer, message }) => {
                self.end_answered(slot, answer, &[&message], now);
                self.queries.reuse(message);
            }
            Some(End::Failed { failure, cut }) => self.end_failed(slot, failure, cut, now),
            None => {}
        }
    }

    /// Ends the query in `slot` with `answer`, which was made of `replies`. Each reply answers the
    /// alias at which the one before ends.
    fn end_answered(&mut self, slot: u16, mut answer: Box<Answer>, replies: &[&[u8]], now: Moment) {
        let kind = (answer.entry.rcode(), answer.entry.is_negative());
        if replies.len() == 1 && self.ask_next(slot, kind, now) {
            return;
        }
        let query = self.queries.get(slot);
        let (origin, question) = (query.origin, query.question());
        if let ([first], Some(target)) = (replies, &answer.dangling)
            && self.leads_elsewhere(target, origin.group)
        {
            let rest = key(&Question { name: target, ..question });
            self.queries.complete(slot, first);
            let waiter = Waiter::Query(self.queries.ticket(slot));
            return self.ask(&read_key(&rest), waiter, now);
        }
        let name = question.name;
        if self.routes.route(name) != Route::Group(origin.group) {
            // kubedns may learn the address later, and then announces the change.
            answer.entry = answer.entry.following(vec![name.into()]);
        }
        if self.routes.is_owned(name) && !self.is_watched(name) {
            answer.lifetime_secs = answer.lifetime_secs.min(UNWATCHED_SECS);
            answer.entry = answer.entry.with_ttl_max(UNWATCHED_SECS);
        }
        if let (Some(place), rcode::NOERROR) = (origin.zone, answer.entry.rcode()) {
            self.zones.give_back(place);
        }
        self.store(slot, &answer, now);
        let source = self.source(query.answered_by);
        let answered = Answered { answer, error: None, replies, source, seen: origin.seen };
        let waiters = self.remove(slot);
        self.answer(waiters, answered, now);
    }

    /// Returns whether the replica that was asked reports every change of `name`, which belongs to
    /// kubedns. Any replica can be asked for the names of the replicas themselves.
    fn is_watched(&self, name: &[u8]) -> bool {
        let streams = &self.shared.streams;
        streams.is_up() && !streams.hosts().iter().any(|host| **host == *name)
    }

    /// Returns whether `target`, an alias that servers of `group` sent, must be followed along its
    /// own route. Aliases from outside must not lead into the cluster's zones.
    fn leads_elsewhere(&self, target: &[u8], group: usize) -> bool {
        match self.routes.route(target) {
            Route::Local(_) => true,
            Route::Group(other) => {
                let may_lead = self.is_group_owned(group) || !self.is_group_owned(other);
                !self.routes.is_asked_of(target, group) && may_lead
            }
        }
    }

    /// Returns whether kubedns is asked in `group`.
    pub(super) fn is_group_owned(&self, group: usize) -> bool {
        self.routes.groups().get(group).is_some_and(|group| group.owned)
    }

    /// Stores the answer of the query in `slot`, unless its routes have changed since it was sent.
    fn store(&self, slot: u16, answer: &Answer, now: Moment) {
        let query = self.queries.get(slot);
        let (origin, question) = (&query.origin, &query.question());
        let is_old = || self.edition != origin.edition || self.has_new_routes();
        if origin.has_rules || is_old() {
            return;
        }
        let kept = Kept { lifetime_secs: answer.lifetime_secs, seen: origin.seen, now };
        self.shared.cache.insert_as_of(question, &answer.entry, kept);
        // Routes can be swapped at any time, which removes entries. This one was inserted too late.
        if is_old() {
            self.shared.cache.remove(question);
        }
    }

    /// Hands out an answer to its `waiters`. Clients come last, because an entry must be stored
    /// before a client can ask again.
    pub(super) fn answer(&mut self, waiters: Vec<Waiter>, answered: Answered<'_>, now: Moment) {
        let mut clients = Vec::new();
        for waiter in waiters {
            match waiter {
                Waiter::Client(deferred) => clients.push(deferred),
                Waiter::Query(ticket) => {
                    self.complete(ticket, answered.replies, answered.seen, now);
                }
                Waiter::Hosts(inquiry) => self.learn(&inquiry, answered.replies, now),
                Waiter::Rewritten(mut rewritten) => {
                    let part = rewritten.part(&answered);
                    self.pursue(rewritten, Some(part), now);
                }
            }
        }
        let Answered { answer, error, source, .. } = answered;
        self.reply_all(clients, Content::Answer { answer, error, source }, now);
    }

    /// Fails the `waiters` of a question. Clients over UDP get the records of a truncated reply in
    /// `cut`, if there are any.
    pub(super) fn fail(
        &mut self,
        waiters: Vec<Waiter>,
        failure: Failure,
        cut: Option<Box<Answer>>,
        now: Moment,
    ) {
        let mut clients = Vec::new();
        for waiter in waiters {
            match waiter {
                Waiter::Client(deferred) => clients.push(deferred),
                Waiter::Query(ticket) => {
                    if let Some((slot, _)) = self.queries.take_partial(ticket) {
                        self.end_failed(slot, failure, None, now);
                    }
                }
                Waiter::Hosts(inquiry) => drop(self.hosts.learn(&inquiry, None, now)),
                Waiter::Rewritten(rewritten) => self.pursue(rewritten, Some(Err(failure)), now),
            }
        }
        self.reply_all(clients, Content::Failure { failure, cut }, now);
    }

    /// Completes the answer of the query of `ticket`, which ends in an alias, with `rest`, which
    /// was asked for at version `seen` of the cache.
    pub(super) fn complete(&mut self, ticket: Ticket, rest: &[&[u8]], seen: u64, now: Moment) {
        let Some((slot, first)) = self.queries.take_partial(ticket) else { return };
        let origin = &mut self.queries.get_mut(slot).origin;
        origin.seen = origin.seen.min(seen);
        let replies: Vec<&[u8]> = std::iter::once(&first[..]).chain(rest.iter().copied()).collect();
        self.end_with(slot, &replies, now);
    }

    /// Ends the query in `slot` with the answer that `replies` make.
    fn end_with(&mut self, slot: u16, replies: &[&[u8]], now: Moment) {
        let query = self.queries.get(slot);
        match reduce(replies, &query.question(), query.origin.group, &self.routes) {
            Ok(answer) => self.end_answered(slot, Box::new(answer), replies, now),
            Err(error) => {
                tracing::debug!(%error, "a chain of aliases is of no use");
                self.end_failed(slot, BROKEN_CHAIN, None, now);
            }
        }
    }

    /// Ends the query in `slot` with `failure`, unless other servers can be asked.
    fn end_failed(&mut self, slot: u16, failure: Failure, cut: Option<Box<Answer>>, now: Moment) {
        if self.ask_beyond(slot, failure, now) || self.ask_next(slot, (failure.rcode, false), now) {
            return;
        }
        if cut.is_none() {
            self.keep_failure(slot, failure, now);
        }
        let waiters = self.remove(slot);
        self.fail(waiters, failure, cut, now);
    }

    /// Has the next servers answer the query in `slot`, if an answer of this kind is passed on: its
    /// code, and whether it has no records. Returns whether they are asked.
    fn ask_next(&mut self, slot: u16, kind: (u16, bool), now: Moment) -> bool {
        let query = self.queries.get(slot);
        let next = self.routes.next(query.question().name, query.origin.group, kind);
        next.is_some_and(|group| self.queries.ask_next(slot, group, now).is_ok())
    }

    /// Makes other servers answer the query in `slot`, if kubedns gives way to them. Returns
    /// whether it does.
    fn ask_beyond(&mut self, slot: u16, failure: Failure, now: Moment) -> bool {
        let message = match self.way_beyond(slot, failure) {
            None => return false,
            Some(Route::Group(group)) => return self.queries.ask_next(slot, group, now).is_ok(),
            Some(Route::Local(local)) => {
                message_by(&self.queries.get(slot).question(), |query, reply| {
                    local.answer(query, reply);
                    true
                })
            }
        };
        let Some(message) = message else { return false };
        self.end_with(slot, &[&message], now);
        true
    }

    /// Returns where the query in `slot` is asked after `failure`, if kubedns gives way to others.
    fn way_beyond(&self, slot: u16, failure: Failure) -> Option<Route<'_>> {
        let query = self.queries.get(slot);
        let name = query.question().name;
        let Beyond { after, route } = self.routes.beyond(name)?;
        let is_first = self.routes.route(name) == Route::Group(query.origin.group);
        let gives_way = after == After::Failure || failure.rcode == rcode::REFUSED;
        (is_first && gives_way).then_some(route)
    }

    /// Stores the failure of the query in `slot`, so that the question is not asked again for a
    /// while (RFC 9520 section 3.2). kubedns is asked again each time, because clients must get its
    /// new records at once. Lack of room here is not a failure of the question.
    fn keep_failure(&mut self, slot: u16, failure: Failure, now: Moment) {
        let Some(server) = failure.server else { return };
        let blame = self.queries.blame(server);
        let query = self.queries.get(slot);
        let (origin, question) = (&query.origin, query.question());
        if origin.has_rules || self.edition != origin.edition || self.has_new_routes() {
            return;
        }
        if self.is_group_owned(query.origin.group) {
            return self.shared.cache.postpone(&question, now + STALE_PAUSE);
        }
        let names: &[Box<[u8]>] = &[question.name.into()];
        let names = if self.routes.is_owned(question.name) { names } else { &[] };
        let failed = Failed { code: failure.rcode, blame, names };
        self.shared.cache.fail(&question, &failed, now);
    }

    /// Gives the waiters of the query in `slot` an expired answer, if there is one. The query
    /// continues.
    pub fn serve_stale(&mut self, slot: u16, now: Moment) {
        let query = self.queries.get(slot);
        if !query.is_under_way() {
            return;
        }
        if self.way_beyond(slot, POD_DOWN).is_some() {
            return self.queries.fail(slot, POD_DOWN);
        }
        let key = key(&query.question());
        let waiters = std::mem::take(&mut self.queries.get_mut(slot).waiters);
        let waiters = self.offer_stale(&key, waiters, now);
        self.queries.get_mut(slot).waiters = waiters;
    }

    /// Gives the `waiters` for the question of `key` an expired answer, if there is one. Returns
    /// those that wait on.
    fn offer_stale(&mut self, key: &[u8], waiters: Vec<Waiter>, now: Moment) -> Vec<Waiter> {
        let mut left = Vec::new();
        for mut waiter in waiters {
            match &mut waiter {
                Waiter::Client(deferred) => {
                    if self.reply_stale(deferred, EXPIRED, now) {
                        self.budget.release(deferred.message().len());
                        // The next clients are answered from the cache while the query continues.
                        self.shared.cache.postpone(&read_key(key), now + STALE_PAUSE);
                        continue;
                    }
                }
                Waiter::Query(ticket) => {
                    if let Some(slot) = self.queries.slot(*ticket) {
                        self.serve_stale(slot, now);
                    }
                }
                Waiter::Rewritten(rewritten) => {
                    let waiters = std::mem::take(&mut rewritten.waiters);
                    rewritten.waiters = self.offer_stale(&rewritten.key, waiters, now);
                }
                Waiter::Hosts(_) => {}
            }
            left.push(waiter);
        }
        left
    }

    /// Makes `waiter` wait for the query in `slot`.
    pub(super) fn wait(&mut self, slot: u16, waiter: Waiter, now: Moment) {
        let Some(mut waiter) = self.admit(slot, waiter, now) else { return };
        let waiters = &mut self.queries.get_mut(slot).waiters;
        if let Waiter::Rewritten(new) = &mut waiter {
            let merges = |other: &mut Waiter| match other {
                Waiter::Rewritten(other) => other.merge(new),
                _ => false,
            };
            if waiters.iter_mut().any(merges) {
                return;
            }
        }
        waiters.push(waiter);
    }

    /// Returns `waiter` if it can wait for the query in `slot`. If the query is late, clients get
    /// an expired answer instead. A query that would wait for itself fails.
    fn admit(&mut self, slot: u16, mut waiter: Waiter, now: Moment) -> Option<Waiter> {
        match &mut waiter {
            Waiter::Client(deferred) => {
                if self.queries.get(slot).is_late && self.reply_stale(deferred, EXPIRED, now) {
                    self.budget.release(deferred.message().len());
                    return None;
                }
            }
            Waiter::Query(ticket) => {
                let parent = self.queries.slot(*ticket)?;
                if let Err(failure) = self.queries.follow(parent, slot) {
                    self.fail(vec![waiter], failure, None, now);
                    return None;
                }
            }
            Waiter::Rewritten(rewritten) => {
                let waiters = std::mem::take(&mut rewritten.waiters).into_iter();
                rewritten.waiters =
                    waiters.filter_map(|waiter| self.admit(slot, waiter, now)).collect();
            }
            Waiter::Hosts(_) => {}
        }
        Some(waiter)
    }

    /// Frees `slot`. Returns its waiters.
    fn remove(&mut self, slot: u16) -> Vec<Waiter> {
        if let Some(place) = self.queries.get(slot).origin.client {
            self.budget.leave(place);
        }
        self.queries.remove(slot)
    }
}

/// How long an expired answer is served from the cache before the question is asked again.
const STALE_PAUSE: Duration = Duration::from_millis(100);
/// For how many seconds the cluster's names are stored while their changes are not reported.
const UNWATCHED_SECS: u32 = 5;
const EXPIRED: &str = "expired, and no upstream has answered yet";
const POD_DOWN: Failure =
    Failure::servfail(ErrorCode::NoReachableAuthority, "the servers in the pod are down");
const BROKEN_CHAIN: Failure =
    Failure::servfail(ErrorCode::Other, "the chain of aliases is of no use");
