//! What a genuine reply means for the question: an answer, or a failed try of that server.
//!
//! Core. A pure function of the reply, the question, the routes and the limits. Each reply that a
//! server can send has exactly one [`Outcome`].

use shared::wire::{ErrorCode, HEADER_LEN, name_end, rcode};

use super::message::{Failure, Match, is_truncated, response_code};
use crate::cache::Question;
use crate::extended_error;
use crate::normalise::{self, Answer, Asked, Unusable};
use crate::route::{Route, Routes};

/// What a reply means.
#[derive(Debug)]
pub(super) enum Outcome {
    /// An answer, positive or negative.
    Answer(Box<Answer>),
    /// TC is set: the client must retry over TCP. Holds the records of the reply, if there are any.
    Truncated(Option<Box<Answer>>),
    /// The server may not be able to read OPT.
    NotUnderstood(Failure),
    /// The server cannot or does not want to answer, over any transport.
    Failed(Failure),
    /// The reply is malformed or does not answer the question. Over TCP it may be correct.
    Useless(Failure),
}

/// A reply that was matched to its query.
#[derive(Clone, Copy)]
pub(super) struct Genuine<'a> {
    /// The message. The letters of its question are in the case in which dnscache sent them.
    pub message: &'a [u8],
    /// [`Match::Reply`] or [`Match::Bare`].
    pub matched: Match,
    /// Whether it arrived over TCP.
    pub is_stream: bool,
}

/// Judges `reply` to `question` by a server of group `group`. `routes` decide for which names the
/// servers of a group can answer, and how long answers can be kept.
pub(super) fn judge(
    reply: Genuine<'_>,
    question: &Question<'_>,
    group: usize,
    routes: &Routes,
) -> Outcome {
    let message = reply.message;
    let question_end = match reply.matched {
        Match::Bare => HEADER_LEN,
        _ => name_end(message, HEADER_LEN).map_or(message.len(), |end| end + 4),
    };
    let reduced = || reduce(&[message], question, group, routes);
    if is_truncated(message) && reply.matched == Match::Reply {
        let has_records = message[6..8] != [0, 0];
        match reply.is_stream {
            false => {
                let records = has_records.then(reduced).and_then(Result::ok);
                return Outcome::Truncated(records.map(Box::new));
            }
            true if !has_records => return Outcome::Useless(EMPTY),
            true => {}
        }
    }
    let (code, options) = response_code(message, question_end);
    match code {
        rcode::NOERROR | rcode::NXDOMAIN => match reduced() {
            Ok(answer) => Outcome::Answer(Box::new(answer)),
            Err(Unusable::Referral) => Outcome::Failed(LAME),
            Err(Unusable::Unrelated) => Outcome::Failed(UNRELATED),
            Err(Unusable::Loop) => Outcome::Failed(LOOP),
            Err(Unusable::Malformed) => Outcome::Useless(MALFORMED),
        },
        rcode::FORMERR | rcode::NOTIMP | 16.. => Outcome::NotUnderstood(NOT_UNDERSTOOD),
        code => {
            let in_pod = routes.groups().get(group).is_some_and(|group| group.owned);
            let reason = extended_error::reason(options, in_pod);
            Outcome::Failed(failure(code, reason.map_or(ErrorCode::Other, |reason| reason.code)))
        }
    }
}

/// Reduces `replies` to the answer to `question`. Each reply answers the alias at which the one
/// before ends. The first one was sent by a server of group `group`.
///
/// Fails if a reply is malformed, if the aliases form a loop, or if a server does not answer.
pub(super) fn reduce(
    replies: &[&[u8]],
    question: &Question<'_>,
    group: usize,
    routes: &Routes,
) -> Result<Answer, Unusable> {
    let asked = Asked {
        name: question.name,
        qtype: question.qtype,
        dnssec_ok: question.dnssec_ok,
        owned: routes.groups().get(group).is_some_and(|group| group.owned),
        is_theirs: &|from, name| match from.map(|from| routes.route(from)) {
            None => routes.is_asked_of(name, group),
            Some(Route::Group(group)) => routes.is_asked_of(name, group),
            Some(Route::Local(_)) => true,
        },
    };
    let limits = routes.limits(question.name);
    let answer = normalise::reduce_chain(replies, &asked, limits)?;
    Ok(routes.filter(question.name, replies, answer))
}

/// Returns the failure for a reply with an error code.
fn failure(code: u16, reason: ErrorCode) -> Failure {
    let (rcode, text) = match code {
        rcode::SERVFAIL => (code, "upstream answered SERVFAIL"),
        rcode::REFUSED => (code, "upstream answered REFUSED"),
        _ => (code, "upstream answered with an error"),
    };
    Failure { rcode, reason, text, server: None }
}

const EMPTY: Failure =
    Failure::servfail(ErrorCode::Other, "the upstream's reply over TCP is truncated and empty");
const LAME: Failure = Failure::servfail(ErrorCode::NotAuthoritative, "upstream does not recurse");
const UNRELATED: Failure =
    Failure::servfail(ErrorCode::Other, "the upstream's reply does not answer the question");
const LOOP: Failure = Failure::servfail(ErrorCode::Other, "the upstream's aliases do not end");
const MALFORMED: Failure = Failure::servfail(ErrorCode::Other, "the upstream's reply is malformed");
const NOT_UNDERSTOOD: Failure =
    Failure::servfail(ErrorCode::Other, "upstream cannot read the query");
