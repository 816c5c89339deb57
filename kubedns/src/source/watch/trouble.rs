//! The ways in which a watch can fail, with texts for the operator of the cluster.
//!
//! Core. Knows refusals of the API server and the rules of RBAC; does not know how the watch
//! continues.

use std::time::Duration;

use super::cluster::hint;
use super::decode::Status;
use super::protobuf::{self, Malformed};
use super::split::TooLong;
use crate::project::Kind;
use crate::source::update::{Closed, Scope};

/// Why a watch does not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("cannot ask the API server")]
    Request(#[source] kube::Error),
    #[error("cannot write the request")]
    Build(#[source] kube::core::request::Error),
    #[error("the API server refuses: {} {}: {}", .0.code, .0.reason, .0.message)]
    Refused(Status),
    #[error("the connection broke")]
    Broken(#[source] kube::Error),
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    #[error("the list came to no end: for {0:?} there was no object and no bookmark that ends it")]
    Unfinished(Duration),
    #[error("the API server ended the watch too soon")]
    Ended,
    #[error("the API server has forgotten what came after our resource version")]
    Behind,
    #[error("the API server's data has gone back to before our resource version")]
    WentBack,
    #[error("the API server refuses what it allowed before: {}", .0.message)]
    Hesitant(Status),
    #[error("the API server has no resource {}: until it has, there are none", .0.plural())]
    Absent(Kind),
    #[error("the API server has no resource {} any more", .0.plural())]
    Lost(Kind),
    #[error("kubedns does without {}: the API server refuses: {}", .0.plural(), .1.message)]
    Denied(Kind, Status),
    #[error("the answer of the API server makes no sense")]
    Nonsense(#[from] serde_json::Error),
    #[error("the answer of the API server makes no sense, so that it is asked for JSON")]
    Malformed(#[from] Malformed),
    #[error("the answer of the API server has no bound")]
    TooLong(#[from] TooLong),
    #[error("nobody listens any more")]
    Closed,
}

impl From<Closed> for Trouble {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl Trouble {
    /// Returns it with its causes, in one line.
    pub fn reason(&self, scope: &Scope) -> String {
        let reason = shared::flags::chain(self);
        match self {
            Self::Refused(Status { code: FORBIDDEN, .. }) | Self::Denied(..) => {
                format!("{}: {reason}", missing_rule(scope))
            }
            _ => {
                let hint = hint(&reason);
                reason + hint
            }
        }
    }

    /// Returns whether the server has forgotten the events after our version.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code == GONE)
    }

    /// Returns whether the server does not know our version yet: its data has gone back.
    pub fn is_behind_us(&self) -> bool {
        match self {
            Self::WentBack => true,
            Self::Refused(status) => {
                status.code == GATEWAY_TIMEOUT
                    && status.message.contains("Too large resource version")
            }
            _ => false,
        }
    }

    /// Returns whether it can be due to the version that was requested. Refusals for other reasons
    /// and broken connections are not.
    pub fn may_be_about_the_version(&self) -> bool {
        match self {
            Self::Silent(_) => true,
            Self::Refused(status) => {
                !matches!(status.code, UNAUTHORIZED | FORBIDDEN | TOO_MANY_REQUESTS)
            }
            _ => false,
        }
    }

    /// Returns whether it ends when the server is back. If so, and another watch works again, this
    /// one can retry at once.
    pub fn is_of_the_server(&self) -> bool {
        match self {
            Self::Request(_) | Self::Broken(_) | Self::Silent(_) | Self::Ended => true,
            Self::Hesitant(_) => true,
            Self::Refused(status) => status.code >= 500,
            _ => false,
        }
    }

    /// Returns how long the server wants us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(status) if status.details.retry_after_seconds > 0 => {
                Some(Duration::from_secs(status.details.retry_after_seconds.into()))
            }
            _ => None,
        }
    }

    /// Returns whether a list in pages can succeed after a streamed one failed. If the stream is
    /// not allowed, pages are not either. A server that is too busy must not get another request.
    pub fn leads_to_pages(&self) -> bool {
        match self {
            Self::Refused(status) => {
                !matches!(status.code, UNAUTHORIZED | FORBIDDEN | TOO_MANY_REQUESTS)
            }
            Self::Silent(_) | Self::Unfinished(_) | Self::Ended | Self::Broken(_) => true,
            Self::Nonsense(_) | Self::Malformed(_) | Self::TooLong(_) => true,
            Self::Request(_) | Self::Build(_) | Self::Behind | Self::WentBack => false,
            Self::Absent(_) | Self::Lost(_) | Self::Denied(..) | Self::Hesitant(_) => false,
            Self::Closed => false,
        }
    }

    /// Returns whether other addresses, certificates or tokens could help.
    pub fn may_be_the_way(&self) -> bool {
        match self {
            Self::Request(_) | Self::Silent(_) => true,
            Self::Refused(status) => status.code == UNAUTHORIZED,
            _ => false,
        }
    }
}

/// Returns the rule that a Role lacks, in the words of a manifest.
fn missing_rule(scope: &Scope) -> String {
    let group = scope.kind.api_versions()[0].rsplit_once('/').map_or("", |(group, _)| group);
    let role = match (&scope.namespace, scope.kind) {
        (Some(namespace), kind) if kind != Kind::Namespace => format!("a Role in {namespace}"),
        _ => "a ClusterRole".to_owned(),
    };
    let resource = scope.kind.plural();
    format!(
        "not allowed: {role} must grant verbs [list, watch] on resources [{resource}] in apiGroups \
         [{group:?}]"
    )
}

/// Returns the Status of a refusal. A proxy can refuse with a body that is not a Status.
pub(super) fn refusal(code: u16, retry_after: Option<u32>, text: &[u8]) -> Status {
    let read = protobuf::refusal(text).or_else(|| serde_json::from_slice(text).ok());
    let mut status = read.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(text);
        let message = text.chars().filter(|c| !c.is_control()).take(MESSAGE_LEN_MAX).collect();
        Status { message, ..Status::default() }
    });
    status.code = code;
    if let Some(seconds) = retry_after {
        status.details.retry_after_seconds = seconds;
    }
    status
}

pub(super) const BAD_REQUEST: u16 = 400;
/// The server does not serve this resource in this version.
pub(super) const NOT_FOUND: u16 = 404;
const UNAUTHORIZED: u16 = 401;
/// No rule of RBAC allows it.
pub(super) const FORBIDDEN: u16 = 403;
/// The server no longer has the events after our resource version.
pub(super) const GONE: u16 = 410;
/// The code with which a server without streamed lists refuses a request for one (KEP-3157).
pub(super) const INVALID: u16 = 422;
const TOO_MANY_REQUESTS: u16 = 429;
/// Also a server that is behind our version ("Too large resource version").
const GATEWAY_TIMEOUT: u16 = 504;
/// If a refusal is not a Status, at most this many characters of it are shown.
const MESSAGE_LEN_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_rule_is_spelled_out() {
        let check = |kind, namespace: Option<&str>, expected: &str| {
            let scope = Scope { kind, namespace: namespace.map(Into::into) };
            assert_eq!(missing_rule(&scope), expected);
        };
        check(
            Kind::EndpointSlice,
            None,
            "not allowed: a ClusterRole must grant verbs [list, watch] on resources \
             [endpointslices] in apiGroups [\"discovery.k8s.io\"]",
        );
        check(
            Kind::Service,
            Some("shop"),
            "not allowed: a Role in shop must grant verbs [list, watch] on resources [services] in \
             apiGroups [\"\"]",
        );
    }

    #[test]
    fn a_stream_that_fails_leads_to_pages() {
        let never = [401, 403, 429];
        for code in [400, 401, 403, 404, 405, 406, 409, 410, 422, 429, 500, 502, 503, 504] {
            let trouble = Trouble::Refused(refusal(code, None, b""));
            assert_eq!(trouble.leads_to_pages(), !never.contains(&code), "{code}");
        }
        let second = Duration::from_secs(1);
        for trouble in [Trouble::Silent(second), Trouble::Unfinished(second), Trouble::Ended] {
            assert!(trouble.leads_to_pages(), "{trouble}");
        }
        for trouble in [Trouble::Behind, Trouble::Closed, Trouble::Absent(Kind::ServiceImport)] {
            assert!(!trouble.leads_to_pages(), "{trouble}");
        }
    }

    #[test]
    fn a_refused_version_is_told_from_other_refusals() {
        let too_large = r#"{"message":"Too large resource version: 1044, current: 1004"}"#;
        let refused = |code, text: &str| Trouble::Refused(refusal(code, None, text.as_bytes()));
        // Code and text; forgotten, behind us, maybe about the version.
        let rows = [
            (401, "", [false; 3]),
            (403, "", [false; 3]),
            (429, "", [false; 3]),
            (410, "", [true, false, true]),
            (504, too_large, [false, true, true]),
            (504, "gateway", [false, false, true]),
            (500, too_large, [false, false, true]),
            (404, "", [false, false, true]),
        ];
        for (code, text, expected) in rows {
            let trouble = refused(code, text);
            let found =
                [trouble.is_gone(), trouble.is_behind_us(), trouble.may_be_about_the_version()];
            assert_eq!(found, expected, "{code} {text}");
        }
        assert!(Trouble::WentBack.is_behind_us() && !Trouble::Ended.is_behind_us());
    }

    #[test]
    fn a_refusal_is_read_in_any_form() {
        let check = |code, retry_after, text: &str, expected: (&str, u32)| {
            let status = refusal(code, retry_after, text.as_bytes());
            assert_eq!(status.code, code);
            assert_eq!((&*status.message, status.details.retry_after_seconds), expected);
        };
        check(429, Some(2), r#"{"message":"busy","code":429}"#, ("busy", 2));
        check(429, None, r#"{"message":"busy","details":{"retryAfterSeconds":7}}"#, ("busy", 7));
        check(502, None, "<html>\nbad gateway", ("<html>bad gateway", 0));
        check(500, None, "", ("", 0));
    }
}
