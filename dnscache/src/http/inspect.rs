//! Which clients may see what others ask.
//!
//! Edge: the state that the pages share. Clients on this machine may see everything.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use shared::http::Seat;
use shared::prefix::Prefix;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::pods::Pods;
use crate::handler::Answers;

/// What the pages show, and to which clients.
#[derive(Clone, Debug)]
pub struct Inspect {
    pub(super) answers: Arc<Answers>,
    allowed: Arc<[Prefix]>,
    /// The names of clients.
    pub(super) pods: Arc<Pods>,
    /// Places for readers of `/tail`.
    pub(super) places: Arc<Semaphore>,
    /// Ends the streams.
    pub(super) stopping: CancellationToken,
}

impl Inspect {
    /// Shows `answers` to clients on this machine and in `allowed`. Streams end with `stopping`.
    pub fn new(answers: Arc<Answers>, allowed: &[Prefix], stopping: CancellationToken) -> Self {
        Self {
            answers,
            allowed: allowed.into(),
            pods: Arc::default(),
            places: Arc::new(Semaphore::new(READERS_MAX)),
            stopping,
        }
    }

    /// Returns what is shown.
    pub fn answers(&self) -> Arc<Answers> {
        Arc::clone(&self.answers)
    }

    /// Returns whether the client at `seat` may see what others ask. Without a seat it may not.
    pub(super) fn admits(&self, seat: Option<&Seat>) -> bool {
        seat.is_some_and(|seat| admits(seat.client(), &self.allowed))
    }

    /// Returns the answer to a client that may not see it; `None` if it may.
    pub(super) fn refusal(&self, seat: Option<&Seat>) -> Option<Response> {
        let text = format!("{HIDDEN}\n");
        (!self.admits(seat)).then(|| (StatusCode::FORBIDDEN, text).into_response())
    }

    /// Returns the answer to every client if no query is sampled.
    pub(super) fn without_samples(&self) -> Option<Response> {
        let text = "dnscache samples no queries: it was started with --sample off\n";
        self.answers.samples.is_off().then(|| (StatusCode::NOT_FOUND, text).into_response())
    }
}

fn admits(client: IpAddr, allowed: &[Prefix]) -> bool {
    client.is_loopback() || allowed.iter().any(|prefix| prefix.contains(client))
}

/// Why a client does not see something.
pub(super) const HIDDEN: &str = "What others ask is shown to clients on this machine only, \
    unless dnscache runs with --inspect-allow PREFIX for their addresses.";
/// Readers of `/tail` at the same time.
const READERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use shared::prefix;

    use super::*;

    #[test]
    fn clients_on_this_machine_and_in_the_prefixes_are_admitted() {
        let allowed = ["10.0.0.0/8", "fd00::/16"].map(|text| prefix::parse(text).unwrap());
        let rows = [
            ("127.0.0.1", true, true),
            ("127.9.9.9", true, true),
            ("::1", true, true),
            ("10.0.0.7", false, true),
            ("::ffff:10.0.0.7", false, true),
            ("11.0.0.7", false, false),
            ("fd00::7", false, true),
            ("fd01::7", false, false),
        ];
        for (client, by_default, with_prefixes) in rows {
            let address = client.parse().unwrap();
            assert_eq!(admits(address, &[]), by_default, "{client}");
            assert_eq!(admits(address, &allowed), with_prefixes, "{client}");
        }
    }
}
