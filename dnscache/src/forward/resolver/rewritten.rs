//! Questions that the rules replace: other questions are asked, and their answers are converted
//! into the answer to the first.
//!
//! Edge, on the forwarder's thread. The rules decide which question is asked next and what an
//! answer means. The answers are stored under the client's question.

use std::net::IpAddr;
use std::sync::Arc;

use shared::clock::Moment;
use shared::wire::{ErrorCode, rcode};

use super::answers::Answered;
use super::{Resolver, Waiter, message_of};
use crate::cache::Kept;
use crate::forward::message::{Failure, key, read_key};
use crate::forward::queries::Question;
use crate::local::made::Made;
use crate::local::pending::{Came, Next, Pending};
use crate::local::{Local, Outcome};
use crate::normalise::Rows;
use crate::route::Route;
use crate::sample::Source;

/// A question, in the form of [`read_key`], that is answered by asking others.
pub(in crate::forward) struct Rewritten {
    pub key: Vec<u8>,
    /// The receivers of the answer. There are none if the cache renews an entry.
    pub waiters: Vec<Waiter>,
    /// Where its latest answer came from.
    pub source: crate::sample::Origin,
    pending: Pending,
    local: Arc<Local>,
    /// The cache's version before the rules were consulted.
    seen: u64,
    edition: u64,
    /// Questions asked so far.
    steps: usize,
}

/// The end of a question that was asked for another one.
pub(super) type Part = Result<Box<Made>, Failure>;

impl Rewritten {
    /// Returns the question that is asked next, with the flags of the first question.
    fn question(&self) -> Question<'_> {
        let (name, qtype) = self.pending.question();
        Question { name, qtype, ..read_key(&self.key) }
    }

    /// Returns the client that is charged for the questions.
    pub fn client(&self) -> Option<IpAddr> {
        self.waiters.iter().find_map(Waiter::client)
    }

    /// Takes in the waiters of `other`. Returns `false` if it has another question, or other rules.
    pub fn merge(&mut self, other: &mut Self) -> bool {
        let is_same = self.key == other.key && self.edition == other.edition;
        if is_same {
            self.waiters.append(&mut other.waiters);
        }
        is_same
    }

    /// Returns the answer to its latest question as the rules take it.
    pub(super) fn part(&mut self, answered: &Answered<'_>) -> Part {
        self.seen = self.seen.min(answered.seen);
        self.source = answered.source;
        let message = message_of(&self.question(), &answered.answer.entry);
        let rows = message.and_then(|message| Rows::read(&message).ok()).ok_or(UNREADABLE)?;
        let lifetime_secs = Some(answered.answer.lifetime_secs);
        Ok(Box::new(Made { lifetime_secs, ..Made::new(rows) }))
    }
}

impl Resolver {
    /// Returns what the rules replace `question` by, and the answer if they have it; `None` if no
    /// rule applies.
    pub(super) fn rewrite(
        &self,
        question: &Question<'_>,
    ) -> Option<(Box<Rewritten>, Option<Part>)> {
        if self.local.is_empty() {
            return None;
        }
        let seen = self.shared.cache.version();
        let outcome = match question.checking_disabled {
            true => self.local.resolve_untranslated(question.name, question.qtype),
            false => self.local.resolve(question.name, question.qtype),
        };
        let (pending, part) = match outcome {
            Outcome::Pass => return None,
            Outcome::Ask(pending) => (*pending, None),
            Outcome::Answer(made) => {
                let (name, qtype) = (question.name.into(), question.qtype);
                (Pending::Plain { name, qtype }, Some(Ok(made)))
            }
        };
        let rewritten = Rewritten {
            key: key(question),
            waiters: Vec::new(),
            source: Source::Local.into(),
            pending,
            local: Arc::clone(&self.local),
            seen,
            edition: self.edition,
            steps: 0,
        };
        Some((Box::new(rewritten), part))
    }

    /// Continues `rewritten` with `part`, the end of its latest question: asks the next one, or
    /// answers its waiters.
    pub(super) fn pursue(
        &mut self,
        mut rewritten: Box<Rewritten>,
        mut part: Option<Part>,
        now: Moment,
    ) {
        loop {
            if let Some(part) = part {
                let (came, failure) = match part {
                    Ok(made) => (Came::Answer(made), UNREADABLE),
                    Err(failure) => (Came::Failure(failure.rcode), failure),
                };
                match rewritten.pending.clone().take(came, &rewritten.local) {
                    Next::Done(made) => return self.finish(*rewritten, *made, now),
                    Next::Failed => return self.fail(rewritten.waiters, failure, None, now),
                    Next::Ask(pending) => rewritten.pending = *pending,
                }
            }
            rewritten.steps += 1;
            if rewritten.steps > STEPS_MAX {
                return self.fail(rewritten.waiters, LOOP_OF_RULES, None, now);
            }
            let key = key(&rewritten.question());
            let question = read_key(&key);
            let has_rules = self.local.touches(question.name, question.qtype);
            let slot = match self.find(&question) {
                Some(slot) => slot,
                None => match self.part_at_once(&question, has_rules, now) {
                    Some(made) => {
                        part = Some(Ok(made));
                        continue;
                    }
                    None => match self.start(&question, rewritten.client(), has_rules, now) {
                        Ok(slot) => slot,
                        Err(failure) => {
                            part = Some(Err(failure));
                            continue;
                        }
                    },
                },
            };
            return self.wait(slot, Waiter::Rewritten(rewritten), now);
        }
    }

    /// Returns an available answer to `question`: from a local route, or from the cache unless it
    /// `has_rules`.
    fn part_at_once(
        &self,
        question: &Question<'_>,
        has_rules: bool,
        now: Moment,
    ) -> Option<Box<Made>> {
        let is_local = matches!(self.routes.route(question.name), Route::Local(_));
        if !is_local && has_rules {
            return None;
        }
        let rows = Rows::read(&self.message_at_once(question, now)?).ok()?;
        let lifetime_secs = Some(rows.ttl().unwrap_or(0));
        let has_failed = !matches!(rows.rcode, rcode::NOERROR | rcode::NXDOMAIN);
        let error = has_failed.then(|| (ErrorCode::CachedError, FAILED_BEFORE.into()));
        Some(Box::new(Made { lifetime_secs, error, ..Made::new(rows) }))
    }

    /// Stores the answer `made` of `rewritten` and answers its waiters.
    fn finish(&mut self, rewritten: Rewritten, mut made: Made, now: Moment) {
        let Rewritten { key, waiters, source, seen, edition, .. } = rewritten;
        let question = read_key(&key);
        let also = std::mem::take(&mut made.also);
        let error = made.error.take();
        if error.is_some() {
            made.lifetime_secs = Some(0);
        }
        let limits = self.routes.limits(question.name);
        let answer = made.into_answer(question.name, question.qtype, limits);
        let answer = answer.and_then(|it| Some((message_of(&question, &it.entry)?, it)));
        let Some((message, answer)) = answer else {
            return self.fail(waiters, TOO_LONG, None, now);
        };
        let is_old = || self.edition != edition || self.has_new_routes();
        if !is_old() {
            let kept = Kept { lifetime_secs: answer.lifetime_secs, seen, now };
            self.shared.cache.insert_as_of(&question, &answer.entry, kept);
            for (name, qtype, rows) in also {
                self.keep(&Question { name: &name, qtype, ..question }, rows, kept);
            }
            if is_old() {
                self.shared.cache.remove(&question);
            }
        }
        let answer = Box::new(answer);
        let answered = Answered { answer, error, replies: &[&message], source, seen };
        self.answer(waiters, answered, now);
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
