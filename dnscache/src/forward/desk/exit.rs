//! Where the forwarder's replies leave, and are sampled.
//!
//! Edge, on the forwarder's thread.

use std::sync::Arc;

use shared::serve::{Deferred, Outbox};
use shared::wire::{NameBuffer, Query, Reply};

use super::{Shared, Whence};
use crate::sample::{Samples, Seen};

/// Where replies leave.
pub(super) struct Exit {
    outbox: Outbox,
    samples: Arc<Samples>,
    lane: usize,
}

impl Exit {
    /// An exit whose samples go to the forwarder's lane.
    pub(super) fn new(shared: &Shared) -> Self {
        let (samples, lane) = (Arc::clone(&shared.samples), shared.lane);
        Self { outbox: Outbox::new(), samples, lane }
    }

    /// Sends the replies that wait for their batch to fill.
    pub(super) fn flush(&mut self) {
        self.outbox.flush();
    }

    /// Sends the reply to `deferred` that `write` makes; it comes from `origin`.
    pub(super) fn reply(
        &mut self,
        deferred: &Deferred,
        origin: Whence,
        write: impl FnOnce(&Query<'_>, &mut Reply<'_>),
    ) {
        let Self { outbox, samples, lane } = self;
        outbox.reply(deferred, |buffer| {
            let mut name = NameBuffer::new();
            let query = deferred.query(&mut name);
            let mut reply = deferred.reply(&query, buffer);
            reply.set_recursion_available(true);
            write(&query, &mut reply);
            if samples.is_due(*lane) {
                let (client, arrived) = (deferred.peer().ip(), deferred.arrived());
                let (query, rcode) = (&query, reply.rcode());
                samples.take(*lane, &Seen { query, client, arrived, rcode, origin });
            }
            reply.finish()
        });
    }
}
