//! Questions that the rules replace: another question is asked, and its answer is converted into
//! the answer to the first.
//!
//! Edge, on the forwarder's thread. The rules decide which question is asked next and what an
//! answer means. The answers are stored under the client's question.

use std::sync::Arc;

use shared::clock::Moment;
use shared::serve::Deferred;
use shared::wire::{ErrorCode, NameBuffer, rcode};

use super::{CROWDED, Desk, EXPIRED, Told, Waiter, What, Whence, key, message_of, read_key};
use crate::cache::Kept;
use crate::forward::hosts::Inquiry;
use crate::forward::message::Failure;
use crate::forward::queries::Question;
use crate::forward::table::{Origin, Ticket};
use crate::local::made::Made;
use crate::local::pending::{Came, Next, Pending};
use crate::local::{Local, Outcome};
use crate::normalise::{Answer, Rows};
use crate::route::Route;
use crate::sample::Source;

/// A question, in the form of [`read_key`], that is answered by asking others.
pub(super) struct Errand {
    key: Vec<u8>,
    pending: Pending,
    goals: Vec<Goal>,
    local: Arc<Local>,
    /// The cache's version before the rules were consulted.
    seen: u64,
    edition: u64,
    started: Moment,
    /// Questions asked so far.
    steps: usize,
    /// Whether its clients wait, and the budget holds their questions.
    is_held: bool,
    /// Where its latest answer came from.
    pub(super) whence: Whence,
}

/// The receiver of an answer.
pub(super) enum Goal {
    /// A client.
    Client(Deferred),
    /// A query whose answer `first` ends in an alias, which the question completes.
    Query { ticket: Ticket, first: Vec<u8> },
    /// The table of stub servers.
    Hosts(Inquiry),
    /// The cache.
    Renewal,
}

impl Errand {
    /// Returns the question that is asked next, with the flags of the first question.
    fn question(&self) -> Question<'_> {
        let (name, qtype) = self.pending.question();
        Question { name, qtype, ..read_key(&self.key) }
    }

    /// Returns the client that is charged for the questions.
    fn client(&self) -> Option<&Deferred> {
        self.goals.iter().find_map(|goal| match goal {
            Goal::Client(deferred) => Some(deferred),
            _ => None,
        })
    }
}

impl Desk {
    /// Answers a client by the rules. Returns its query if no rule applies.
    pub(super) fn by_rules(&mut self, deferred: Deferred, now: Moment) -> Option<Deferred> {
        if self.local.is_empty() {
            return Some(deferred);
        }
        let mut name = NameBuffer::new();
        let key = key(&Question::of(&deferred.query(&mut name)));
        let cache = &self.shared.cache;
        if cache.state(&read_key(&key), now).is_some_and(|state| state.remaining_secs > 0) {
            return Some(deferred); // answered meanwhile
        }
        match self.consult(&key, Goal::Client(deferred), now)? {
            Goal::Client(deferred) => Some(deferred),
            _ => None,
        }
    }

    /// Answers the question of `key` by the rules, or asks other questions for it. Returns `goal`
    /// if no rule applies.
    pub(super) fn consult(&mut self, key: &[u8], goal: Goal, now: Moment) -> Option<Goal> {
        if self.local.is_empty() {
            return Some(goal);
        }
        let seen = self.shared.cache.version();
        let local = Arc::clone(&self.local);
        let Question { name, qtype, checking_disabled, .. } = read_key(key);
        let outcome = match checking_disabled {
            true => local.resolve_untranslated(name, qtype),
            false => local.resolve(name, qtype),
        };
        let (pending, made) = match outcome {
            Outcome::Pass => return Some(goal),
            Outcome::Answer(made) => (Pending::Plain { name: name.into(), qtype }, Some(made)),
            Outcome::Ask(pending) => (*pending, None),
        };
        let errand = Errand {
            key: key.to_vec(),
            pending,
            goals: vec![goal],
            local,
            seen,
            edition: self.edition,
            started: now,
            steps: 0,
            is_held: false,
            whence: Source::Local.into(),
        };
        match made {
            Some(made) => self.finish(errand, *made, now),
            None => self.pursue(errand, now),
        }
        None
    }

    /// Asks the next question of `errand`.
    fn pursue(&mut self, mut errand: Errand, now: Moment) {
        loop {
            errand.steps += 1;
            if errand.steps > STEPS_MAX {
                return self.give_up(errand, LOOP_OF_RULES, now);
            }
            let name = errand.pending.question().0.to_vec();
            let question = Question { name: &name, ..errand.question() };
            let slot = match self.find(&question) {
                Some(slot) => Ok(slot),
                None => match self.rows_at_once(&question, now) {
                    Some(made) => match self.step(errand, Came::Answer(made), UNREADABLE, now) {
                        Some(next) => {
                            errand = next;
                            continue;
                        }
                        None => return,
                    },
                    None => self.start_for(&question, errand.client(), now),
                },
            };
            match slot {
                Ok(slot) => return self.wait_for(slot, errand, now),
                Err(failure) => {
                    let came = Came::Failure(failure.rcode);
                    let Some(next) = self.step(errand, came, failure, now) else { return };
                    errand = next;
                }
            }
        }
    }

    /// Returns an available answer to `question`: from a local route, or from the cache unless a
    /// rule applies to the question itself.
    fn rows_at_once(&self, question: &Question<'_>, now: Moment) -> Option<Box<Made>> {
        let is_local = matches!(self.routes.route(question.name), Route::Local(_));
        if !is_local && self.local.touches(question.name, question.qtype) {
            return None;
        }
        let message = self.message_at_once(question, now)?;
        let rows = Rows::read(&message).ok()?;
        let lifetime_secs = Some(rows.ttl().unwrap_or(0));
        let has_failed = !matches!(rows.rcode, rcode::NOERROR | rcode::NXDOMAIN);
        let error = has_failed.then(|| (ErrorCode::CachedError, FAILED_BEFORE.into()));
        Some(Box::new(Made { lifetime_secs, error, ..Made::new(rows) }))
    }

    /// Makes `errand` wait for the query in `slot`, together with others of the same question.
    fn wait_for(&mut self, slot: u16, mut errand: Errand, now: Moment) {
        let is_held = std::mem::replace(&mut errand.is_held, true);
        if self.queries.is_late(slot) && !is_held {
            errand.goals.retain(|goal| match goal {
                Goal::Client(deferred) => !self.reply_stale(deferred, EXPIRED, now),
                _ => true,
            });
        }
        let mut goals = Vec::new();
        for goal in std::mem::take(&mut errand.goals) {
            match goal {
                Goal::Client(deferred)
                    if !is_held && !self.budget.hold(deferred.message().len()) =>
                {
                    self.reply_failure(&deferred, CROWDED, None, now);
                }
                Goal::Query { ticket, first } => {
                    let parent = self.queries.slot(ticket);
                    match parent.map(|parent| self.queries.follow(parent, &first, slot)) {
                        Some(Ok(())) => goals.push(Goal::Query { ticket, first }),
                        Some(Err(failure)) => self.fail_query(ticket, failure, now),
                        None => {}
                    }
                }
                goal => goals.push(goal),
            }
        }
        let waiters = self.queries.waiters_mut(slot);
        let same = waiters.iter_mut().find_map(|waiter| match waiter {
            Waiter::Errand(other) if other.key == errand.key && other.edition == errand.edition => {
                Some(other)
            }
            _ => None,
        });
        match same {
            Some(other) => other.goals.append(&mut goals),
            None => {
                errand.goals = goals;
                waiters.push(Waiter::Errand(Box::new(errand)));
            }
        }
    }

    /// Continues `errand` with the `answer` to `question`.
    pub(super) fn come_back(
        &mut self,
        mut errand: Errand,
        question: &Question<'_>,
        answer: &Answer,
        (origin, now): (Origin, Moment),
    ) {
        errand.seen = errand.seen.min(origin.seen);
        let rows = message_of(question, &answer.entry).and_then(|it| Rows::read(&it).ok());
        let came = match rows {
            Some(rows) => {
                let lifetime_secs = Some(answer.lifetime_secs);
                Came::Answer(Box::new(Made { lifetime_secs, ..Made::new(rows) }))
            }
            None => Came::Failure(UNREADABLE.rcode),
        };
        if let Some(errand) = self.step(errand, came, UNREADABLE, now) {
            self.pursue(errand, now);
        }
    }

    /// Continues `errand`, whose question ended with `failure`.
    pub(super) fn come_back_empty(&mut self, errand: Errand, failure: Failure, now: Moment) {
        let came = Came::Failure(failure.rcode);
        if let Some(errand) = self.step(errand, came, failure, now) {
            self.pursue(errand, now);
        }
    }

    /// Passes what came to `errand`. Returns the errand if another question follows; otherwise its
    /// goals get the answer, or `failure`.
    fn step(
        &mut self,
        mut errand: Errand,
        came: Came,
        failure: Failure,
        now: Moment,
    ) -> Option<Errand> {
        match errand.pending.clone().take(came, &errand.local) {
            Next::Done(made) => {
                self.finish(errand, *made, now);
                None
            }
            Next::Ask(pending) => {
                errand.pending = *pending;
                Some(errand)
            }
            Next::Failed => {
                self.give_up(errand, failure, now);
                None
            }
        }
    }

    /// Stores the answer `made` of `errand` and sends it to the goals.
    fn finish(&mut self, errand: Errand, mut made: Made, now: Moment) {
        let question = read_key(&errand.key);
        let also = std::mem::take(&mut made.also);
        let error = made.error.take();
        made.lifetime_secs = if error.is_some() { Some(0) } else { made.lifetime_secs };
        let limits = self.routes.limits(question.name);
        let Some(answer) = made.into_answer(question.name, question.qtype, limits) else {
            return self.give_up(errand, TOO_LONG, now);
        };
        let is_old = || self.edition != errand.edition || self.has_new_routes();
        if !is_old() {
            let kept = Kept { lifetime_secs: answer.lifetime_secs, seen: errand.seen, now };
            self.shared.cache.insert_as_of(&question, &answer.entry, kept);
            for (name, qtype, rows) in also {
                self.keep(&Question { name: &name, qtype, ..question }, rows, kept);
            }
            if is_old() {
                self.shared.cache.remove(&question);
            }
        }
        let message = message_of(&question, &answer.entry);
        let mut clients = Vec::new();
        for goal in errand.goals {
            match (goal, &message) {
                (Goal::Client(deferred), _) => clients.push(deferred),
                (Goal::Query { ticket, first }, Some(message)) => {
                    if let Some(parent) = self.queries.slot(ticket) {
                        self.queries.depends_on(parent, errand.seen);
                        drop(self.queries.take_partial(ticket)); // `first` is the same
                        self.land_chain(parent, &[&first, message], now);
                    }
                }
                (Goal::Query { ticket, .. }, None) => self.fail_query(ticket, TOO_LONG, now),
                (Goal::Hosts(inquiry), Some(message)) => self.learn(&inquiry, &[message], now),
                (Goal::Hosts(inquiry), None) => drop(self.hosts.learn(&inquiry, None, now)),
                (Goal::Renewal, _) => {}
            }
        }
        let what = match error {
            Some((code, text)) => What::Explained(Box::new(answer), code, text),
            None => What::Answer(Box::new(answer)),
        };
        let told = Told { what, whence: errand.whence };
        self.tell(clients, told, (errand.started, errand.is_held), now);
    }

    /// Stores `rows`, which must be within the limits, as the answer to `question`.
    fn keep(&self, question: &Question<'_>, rows: Rows, kept: Kept) {
        let lifetime_secs = Some(rows.ttl().unwrap_or(0));
        let made = Made { lifetime_secs, ..Made::new(rows) };
        let limits = self.routes.limits(question.name);
        if let Some(answer) = made.into_answer(question.name, question.qtype, limits) {
            let kept = Kept { lifetime_secs: answer.lifetime_secs, ..kept };
            self.shared.cache.insert_as_of(question, &answer.entry, kept);
        }
    }

    /// Fails `errand` with `failure`.
    fn give_up(&mut self, errand: Errand, failure: Failure, now: Moment) {
        let mut clients = Vec::new();
        for goal in errand.goals {
            match goal {
                Goal::Client(deferred) => clients.push(deferred),
                Goal::Query { ticket, .. } => self.fail_query(ticket, failure, now),
                Goal::Hosts(inquiry) => drop(self.hosts.learn(&inquiry, None, now)),
                Goal::Renewal => {}
            }
        }
        let what = What::Failure(failure, None);
        let told = Told { what, whence: self.whence(failure.server) };
        self.tell(clients, told, (errand.started, errand.is_held), now);
    }

    /// Fails the query of `ticket`, which waits for the end of an alias.
    fn fail_query(&mut self, ticket: Ticket, failure: Failure, now: Moment) {
        if let Some(parent) = self.queries.slot(ticket) {
            drop(self.queries.take_partial(ticket)); // the answer is not completed
            self.land_failure(parent, failure, None, now);
        }
    }

    /// Answers `clients`, which have waited since `started`, or at once if they did not wait.
    fn tell(
        &mut self,
        clients: Vec<Deferred>,
        told: Told,
        (started, is_held): (Moment, bool),
        now: Moment,
    ) {
        if is_held {
            self.releases.add(clients, told, now.since(started), now);
            return self.release(now);
        }
        for deferred in &clients {
            self.reply_told(deferred, &told, now);
        }
    }

    /// Gives the clients of `errand` an expired answer, if there is one. The errand continues.
    pub(super) fn serve_stale_to(&mut self, mut errand: Errand, now: Moment) -> Errand {
        let goals = std::mem::take(&mut errand.goals);
        for goal in goals {
            match goal {
                Goal::Client(deferred) if self.reply_stale(&deferred, EXPIRED, now) => {
                    self.budget.release(deferred.message().len());
                    let until = now + super::landing::STALE_PAUSE;
                    self.shared.cache.postpone(&read_key(&errand.key), until);
                }
                Goal::Query { ticket, first } => {
                    if let Some(parent) = self.queries.slot(ticket) {
                        self.serve_stale(parent, now);
                    }
                    errand.goals.push(Goal::Query { ticket, first });
                }
                goal => errand.goals.push(goal),
            }
        }
        errand
    }
}

/// How many questions one client's question can lead to.
const STEPS_MAX: usize = 96;
const FAILED_BEFORE: &str = "failed a moment ago, asked again shortly";
const LOOP_OF_RULES: Failure =
    Failure::servfail(ErrorCode::Other, "the rules lead to too many questions");
const UNREADABLE: Failure =
    Failure::servfail(ErrorCode::Other, "the answer to the rewritten question is of no use");
const TOO_LONG: Failure =
    Failure::servfail(ErrorCode::Other, "the answer of the rules is longer than any message");
