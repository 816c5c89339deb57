//! A question that is asked on behalf of another one, and what its answer means for that one.
//!
//! Core.

use super::Local;
use super::made::Made;

/// A question to ask, and what becomes of the answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Pending {
    /// The answer to this question is the answer.
    Plain {
        /// In wire form and lower case.
        name: Box<[u8]>,
        /// QTYPE.
        qtype: u16,
    },
}

/// How a question ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Came {
    /// With an answer.
    Answer(Box<Made>),
    /// Without one; the response code that clients get.
    Failure(u16),
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The answer to the first question.
    Done(Box<Made>),
    /// Another question is asked first.
    Ask(Box<Pending>),
    /// It fails as the last question did.
    Failed,
}

impl Pending {
    /// Returns the name, in wire form and lower case, and the type to ask for.
    pub fn question(&self) -> (&[u8], u16) {
        match self {
            Self::Plain { name, qtype } => (name, *qtype),
        }
    }

    /// Takes the end of the question that it asks. Further questions follow `_rules`.
    pub fn take(self, came: Came, _rules: &Local) -> Next {
        match (self, came) {
            (Self::Plain { name, .. }, Came::Answer(mut made)) => {
                made.names.push(name);
                Next::Done(made)
            }
            (Self::Plain { .. }, Came::Failure(_)) => Next::Failed,
        }
    }
}
