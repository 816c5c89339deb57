//! Replies to clients: at once, or gradually if many wait for one answer. A part of them is
//! sampled.
//!
//! Edge, on the forwarder's thread.

use std::sync::Arc;

use shared::clock::Moment;
use shared::serve::Deferred;
use shared::wire::{ErrorCode, NameBuffer, Query, Reply, Transport, rcode};

use super::{Content, ENTRY_GONE, Resolver};
use crate::counters::Count;
use crate::forward::message::Failure;
use crate::forward::queries::Question;
use crate::forward::waiters::{AT_ONCE, Releases};
use crate::handler::set_flags;
use crate::normalise::Answer;
use crate::sample::{self, Seen, Source};

impl Resolver {
    /// Answers `clients`: at once if they are few.
    pub(super) fn reply_all(&mut self, clients: Vec<Deferred>, content: Content, now: Moment) {
        if clients.len() <= AT_ONCE {
            return clients.iter().for_each(|deferred| self.reply(deferred, &content, now));
        }
        let wait = now.since(clients[0].arrived());
        self.releases.add(clients, content, wait, now);
        self.release(now);
    }

    /// Answers the waiters that are due.
    pub(super) fn release(&mut self, now: Moment) {
        let mut releases = std::mem::replace(&mut self.releases, Releases::new());
        releases.run(now, |deferred, content| self.reply(deferred, content, now));
        self.releases = releases;
    }

    /// Answers a client whose question the budget holds.
    fn reply(&mut self, deferred: &Deferred, content: &Content, now: Moment) {
        self.budget.release(deferred.message().len());
        match content {
            Content::Answer { answer, .. }
                if answer.entry.is_negative() && self.keeps_positive(deferred, now) => {}
            Content::Answer { answer, error, source } => {
                self.send(deferred, *source, |query, reply| {
                    answer.entry.emit(query, 0, u32::MAX, reply);
                    if let Some((code, text)) = error {
                        reply.set_error(*code, text);
                    }
                });
            }
            Content::Failure { failure, cut } => {
                self.reply_failure(deferred, *failure, cut.as_deref(), now);
            }
        }
    }

    /// Answers a client with an expired answer in place of a denial, if the policy is to prefer
    /// answers with records. Returns whether it did.
    fn keeps_positive(&mut self, deferred: &Deferred, now: Moment) -> bool {
        let cache = &self.shared.cache;
        if !cache.policy().prefers_positive {
            return false;
        }
        let mut name = NameBuffer::new();
        let question = Question::of(&deferred.query(&mut name));
        cache.state(&question, now).is_some_and(|state| !state.is_negative)
            && self.reply_stale(deferred, DENIED, now)
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
        let text = match failure.server.map(|server| &self.queries.servers().get(server).endpoint) {
            Some(endpoint) => format!("{} ({endpoint})", failure.text),
            None => failure.text.to_owned(),
        };
        let source = self.source(failure.server);
        self.send(deferred, source, |query, reply| match cut {
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
        let cache = Arc::clone(&self.shared.cache);
        let mut name = NameBuffer::new();
        let question = Question::of(&deferred.query(&mut name));
        let is_answer = |code: u16| matches!(code, rcode::NOERROR | rcode::NXDOMAIN);
        if cache.state(&question, now).is_none_or(|state| !is_answer(state.rcode)) {
            return false;
        }
        let mut is_found = false;
        self.send(deferred, Source::Stale.into(), |query, reply| {
            match cache.get_stale(query, now, reply) {
                Some(code) if is_answer(code) => {
                    is_found = true;
                    let reason = match code {
                        rcode::NXDOMAIN => ErrorCode::StaleNxdomainAnswer,
                        _ => ErrorCode::StaleAnswer,
                    };
                    reply.set_error(reason, text);
                }
                _ => reply.fail(rcode::SERVFAIL, ErrorCode::Other, ENTRY_GONE),
            }
        });
        if is_found {
            self.shared.counters.count(self.shared.lane, Count::Stale);
        }
        is_found
    }

    /// Sends the reply to `deferred` that `write` makes; it comes from `source`.
    pub(super) fn send(
        &mut self,
        deferred: &Deferred,
        source: sample::Origin,
        write: impl FnOnce(&Query<'_>, &mut Reply<'_>),
    ) {
        let Self { outbox, shared, local, .. } = self;
        outbox.reply(deferred, |buffer| {
            let mut name = NameBuffer::new();
            let query = deferred.query(&mut name);
            let mut reply = deferred.reply(&query, buffer);
            reply.set_recursion_available(true);
            write(&query, &mut reply);
            if local.has_header() {
                set_flags(local.header(query.name()), &mut reply);
            }
            if shared.samples.is_due(shared.lane) {
                let (client, arrived) = (deferred.peer().ip(), deferred.arrived());
                let (query, rcode, has_answer) = (&query, reply.rcode(), reply.has_answer());
                let seen = Seen { query, client, arrived, rcode, has_answer, origin: source };
                shared.samples.take(shared.lane, &seen);
            }
            reply.finish()
        });
    }
}

const DENIED: &str = "expired, and denied by the upstream";
