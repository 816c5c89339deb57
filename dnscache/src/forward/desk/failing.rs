//! What the desk does with a flight that failed: others are asked, or those who wait get an expired
//! answer or the reason.
//!
//! Edge, on the forwarder's thread. Which failure it is, is the flights' business.

use shared::clock::Moment;
use shared::serve::Deferred;
use shared::wire::{ErrorCode, rcode};

use super::{Desk, LOCAL, Shared, Waiter, reply};
use crate::counters::Count;
use crate::forward::flights::Failure;
use crate::route::{After, Beyond, Route};

impl Desk {
    /// Lands the flight in `slot` with its failure: those who wait get an expired answer, or the
    /// failure.
    pub fn fail(&mut self, slot: u16, now: Moment) {
        let failure = match self.go_beyond(slot, now) {
            Ok(()) => return,
            Err(failure) => failure,
        };
        self.keep_failure(slot, failure, now);
        for waiter in self.land(slot) {
            match waiter {
                Waiter::Client(deferred) => self.reply_failure(&deferred, failure, now),
                Waiter::Flight(ticket) => {
                    if let Some(slot) = self.flights.slot(ticket) {
                        self.flights.fail(slot, failure, &mut self.acts);
                    }
                }
                Waiter::Hosts(inquiry) => {
                    self.hosts.learn(&inquiry, None, now);
                }
            }
        }
    }

    /// Has the flight in `slot` ask others if kubedns gave way to them, or answers those who wait
    /// if nobody is asked; else yields why it failed.
    fn go_beyond(&mut self, slot: u16, now: Moment) -> Result<(), Failure> {
        let failure = self.flights.failure(slot);
        let beyond = self.routes.beyond(self.flights.question(slot).name);
        let gives_way = |beyond: &Beyond<'_>| match beyond.after {
            After::Refused => failure.rcode == rcode::REFUSED,
            After::Failure => true,
        };
        match beyond.filter(gives_way).map(|beyond| beyond.route) {
            Some(Route::Group(group)) => self.flights.go_beyond(slot, group, now, &mut self.acts),
            Some(Route::Local(_)) => {
                self.land_locally(slot, now);
                Ok(())
            }
            None => Err(failure),
        }
    }

    /// Lands the flight in `slot` with what is answered here after kubedns refused.
    fn land_locally(&mut self, slot: u16, now: Moment) {
        for waiter in self.land(slot) {
            match waiter {
                Waiter::Client(deferred) => {
                    let routes = &self.routes;
                    reply(&mut self.outbox, &deferred, |query, reply| {
                        match routes.beyond(query.name()).map(|beyond| beyond.route) {
                            Some(Route::Local(local)) => local.answer(query, reply),
                            _ => reply.fail(LOCAL.rcode, LOCAL.reason, LOCAL.text),
                        }
                    });
                }
                Waiter::Flight(ticket) => {
                    if let Some(slot) = self.flights.slot(ticket) {
                        self.flights.fail(slot, LOCAL, &mut self.acts);
                    }
                }
                Waiter::Hosts(inquiry) => {
                    self.hosts.learn(&inquiry, None, now);
                }
            }
        }
    }

    /// Keeps the failure of the flight in `slot`, so that the question is left alone for a while
    /// (RFC 9520 section 3.2). A kubedns that does not know the cluster yet says so at once, and is
    /// asked again each time: what it knows by then must not wait.
    fn keep_failure(&self, slot: u16, failure: Failure, now: Moment) {
        let question = self.flights.question(slot);
        if failure.reason != ErrorCode::NotReady || !self.routes.is_owned(question.name) {
            self.shared.cache.fail(&question, failure.rcode, now);
        }
    }

    /// Tells a client that there is no answer; one that has expired is better than none (RFC 8767).
    pub(super) fn reply_failure(&mut self, deferred: &Deferred, failure: Failure, now: Moment) {
        let Shared { cache, counters, lane, .. } = &self.shared;
        let routes = &self.routes;
        reply(&mut self.outbox, deferred, |query, reply| {
            let ttl = if routes.is_owned(query.name()) { STALE_TTL_OWNED } else { STALE_TTL };
            match cache.get_stale(query, now, ttl, reply) {
                Some(code) if !is_failure(code) => {
                    counters.count(*lane, Count::Stale);
                    let reason = match code {
                        rcode::NXDOMAIN => ErrorCode::StaleNxdomainAnswer,
                        _ => ErrorCode::StaleAnswer,
                    };
                    reply.set_error(reason, failure.text);
                }
                _ => reply.fail(failure.rcode, failure.reason, failure.text),
            }
        });
    }
}

fn is_failure(code: u16) -> bool {
    !matches!(code, rcode::NOERROR | rcode::NXDOMAIN)
}

/// The TTL of expired answers, in seconds (RFC 8767 section 4); short for names that change with
/// the cluster.
const STALE_TTL: u32 = 30;
const STALE_TTL_OWNED: u32 = 5;
