//! A question that is asked on behalf of another one, and the effect of its answer on that one.
//!
//! Core.

use std::sync::Arc;

use super::autopath::Walk;
use super::dns64::Translation;
use super::made::Made;
use super::rewrite::{self, Change};
use super::{Local, Outcome};
use crate::normalise::Rows;

/// A question to ask, and the use of its answer.
#[derive(Clone, Debug)]
pub enum Pending {
    /// The answer to this question is the answer.
    Plain {
        /// The name in lower-case wire form.
        name: Box<[u8]>,
        /// QTYPE.
        qtype: u16,
    },
    /// The answer must be changed.
    Restored {
        /// The question to ask.
        inner: Box<Pending>,
        /// The changes, in the order of their rules.
        changes: Arc<[Change]>,
    },
    /// The answer must be appended to one that ends in an alias.
    Completed {
        /// The answer with the alias.
        first: Box<Made>,
        /// The question about its target.
        inner: Box<Pending>,
    },
    /// The answer must be translated to IPv6 addresses.
    Translated {
        /// The question to ask.
        inner: Box<Pending>,
        /// The state of the translation.
        state: Box<Translation>,
    },
    /// The answer decides the next name of a search list.
    Walk(Box<Walk>),
}

/// How a question ended.
#[derive(Clone, Debug)]
pub enum Came {
    /// With an answer.
    Answer(Box<Made>),
    /// Without one. Clients get this response code.
    Failure(u16),
}

/// The next step.
#[derive(Clone, Debug)]
pub enum Next {
    /// The answer to the first question.
    Done(Box<Made>),
    /// Another question is asked first.
    Ask(Box<Pending>),
    /// It fails like the last question.
    Failed,
}

impl Pending {
    /// Returns the name, in lower-case wire form, and the type to ask for.
    pub fn question(&self) -> (&[u8], u16) {
        match self {
            Self::Plain { name, qtype } => (name, *qtype),
            Self::Restored { inner, .. }
            | Self::Completed { inner, .. }
            | Self::Translated { inner, .. } => inner.question(),
            Self::Walk(walk) => walk.question(),
        }
    }

    /// Continues with the end of its question. Further questions follow `rules`.
    pub fn take(self, came: Came, rules: &Local) -> Next {
        match self {
            Self::Plain { name, .. } => match came {
                Came::Answer(mut made) => {
                    made.names.push(name);
                    Next::Done(made)
                }
                Came::Failure(_) => Next::Failed,
            },
            Self::Restored { inner, changes } => {
                let failed = match came {
                    Came::Failure(rcode) => rcode,
                    Came::Answer(_) => 0,
                };
                match inner.take(came, rules) {
                    Next::Done(made) => Next::Done(Box::new(rewrite::restore(&changes, *made))),
                    Next::Ask(inner) => Next::Ask(Box::new(Self::Restored { inner, changes })),
                    Next::Failed => match rewrite::restored_rcode(&changes, failed) {
                        rcode if rcode == failed => Next::Failed,
                        rcode => Next::Done(Box::new(Made {
                            lifetime_secs: Some(0),
                            ..Made::new(Rows { rcode, ..Rows::default() })
                        })),
                    },
                }
            }
            Self::Completed { first, inner } => match inner.take(came, rules) {
                Next::Done(made) => Next::Done(Box::new(first.followed_by(*made))),
                Next::Ask(inner) => Next::Ask(Box::new(Self::Completed { first, inner })),
                Next::Failed => Next::Failed,
            },
            Self::Translated { inner, state } => state.advance(*inner, came, rules),
            Self::Walk(walk) => walk.take(came, rules),
        }
    }
}

impl Outcome {
    /// Returns the outcome with `changes` made to the answer of the question for `qtype` at `name`,
    /// which replaced another question.
    pub(super) fn restored(self, name: Box<[u8]>, qtype: u16, changes: Vec<Change>) -> Self {
        let changes: Arc<[Change]> = changes.into();
        match self {
            Self::Answer(mut made) => {
                made.names.push(name);
                Self::Answer(Box::new(rewrite::restore(&changes, *made)))
            }
            other => {
                let inner = other.pending(name, qtype);
                Self::Ask(Box::new(Pending::Restored { inner, changes }))
            }
        }
    }

    /// Returns the outcome for the target `name` of the alias that `first` ends in, with `first`
    /// before the answer.
    pub(super) fn after(self, first: Box<Made>, name: Box<[u8]>, qtype: u16) -> Self {
        match self {
            Self::Answer(mut made) => {
                made.names.push(name);
                Self::Answer(Box::new(first.followed_by(*made)))
            }
            other => {
                let inner = other.pending(name, qtype);
                Self::Ask(Box::new(Pending::Completed { first, inner }))
            }
        }
    }

    /// Returns the question for an outcome that is not an answer yet.
    pub(super) fn pending(self, name: Box<[u8]>, qtype: u16) -> Box<Pending> {
        match self {
            Self::Ask(pending) => pending,
            _ => Box::new(Pending::Plain { name, qtype }),
        }
    }
}
