//! The state of a watch, in its progress and in the log. A lasting state is logged once.
//!
//! Edge. Knows phases and troubles; does not know how they are handled.

use std::time::Duration;

use shared::clock::Moment;
use shared::clock::boot_time;

use super::Follower;
use super::progress::Phase;
use super::trouble::Trouble;

impl Follower {
    pub(super) fn works(&mut self, phase: Phase) {
        let now = boot_time();
        if phase == Phase::Following {
            self.hesitations = 0;
            self.well_since.get_or_insert(now);
        } else if !matches!(self.progress.phase(), Phase::Listing | Phase::Following) {
            return; // a list that begins is only another try
        }
        if let Some(since) = self.progress.works(phase) {
            let secs = now.since(since).as_secs();
            tracing::info!(watch = %self.scope, secs, "works again");
            self.cluster.lives();
        }
    }

    pub(super) fn report(&self, trouble: &Trouble, pause: Duration, now: Moment) {
        let scope = &self.scope;
        let reason = trouble.reason(scope);
        match trouble {
            Trouble::Behind => {
                return tracing::info!(watch = %scope, "too far behind, listing again");
            }
            Trouble::Absent(_) => {
                if self.progress.phase() != Phase::Absent {
                    tracing::info!(watch = %scope, "{reason}");
                }
                self.progress.works(Phase::Absent);
                return;
            }
            Trouble::Denied(..) => {
                if self.progress.phase() != Phase::Denied {
                    tracing::info!(watch = %scope, "{reason}");
                }
                self.progress.works(Phase::Denied);
                return;
            }
            _ => {}
        }
        let pause_ms = pause.as_millis() as u64;
        if self.progress.fails(reason.clone(), now) {
            tracing::warn!(watch = %scope, pause_ms, "{reason}");
        } else {
            tracing::debug!(watch = %scope, pause_ms, "{reason}");
        }
    }
}
