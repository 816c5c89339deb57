//! Zone transfers in progress: a few at a time, each as fast as its client reads.
//!
//! Edge. Holds a snapshot of the records until a transfer ends; knows no record.

use std::convert::Infallible;
use std::time::Duration;

use shared::serve::{Deferred, Outbox};
use shared::wire::{ErrorCode, NameBuffer, Reply, rcode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::store::Reader;
use crate::transfer::{Apex, MESSAGE_LEN, fill, records};

/// The task that transfers zones.
#[derive(Debug)]
pub struct Transfers {
    reader: Reader,
    queries: mpsc::Receiver<Deferred>,
}

/// Creates the task for `reader`, and the channel for its queries.
pub fn new(reader: Reader) -> (mpsc::Sender<Deferred>, Transfers) {
    let (later, queries) = mpsc::channel(WAITING_MAX);
    (later, Transfers { reader, queries })
}

impl Transfers {
    /// Transfers zones until `stopping`. Transfers in progress can continue until their connections
    /// end.
    pub async fn run(mut self, stopping: CancellationToken) -> Result<(), Infallible> {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                Some(ended) = running.join_next() => note(ended),
                Some(query) = self.queries.recv() => {
                    if running.len() < RUNNING_MAX {
                        running.spawn(transfer(query, self.reader.clone()));
                    } else {
                        turn_away(&query);
                    }
                }
            }
        }
        while let Some(ended) = running.join_next().await {
            note(ended);
        }
        Ok(())
    }
}

/// Logs the panic of one transfer. The others continue.
fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a zone transfer panicked");
    }
}

fn turn_away(query: &Deferred) {
    Outbox::new().reply(query, |buffer| {
        let mut name = NameBuffer::new();
        let mut reply = Reply::new(&query.query(&mut name), buffer);
        reply.fail(rcode::SERVFAIL, ErrorCode::Other, "too many zone transfers at once");
        reply.finish()
    });
}

/// Runs one transfer from its first message to its last, or to its deadline.
async fn transfer(mut query: Deferred, reader: Reader) {
    let peer = query.peer();
    match timeout(TRANSFER_MAX, send(&mut query, &reader)).await {
        Ok(Some((messages, records))) => {
            tracing::info!(%peer, messages, records, "zone transferred");
        }
        Ok(None) => {
            tracing::info!(%peer, "zone transfer broken off: the client went, or took nothing");
        }
        Err(_) => tracing::info!(%peer, "zone transfer cut: it took too long"),
    }
}

/// Sends each message as soon as there is room for it. Returns how many messages and records were
/// sent, if the client did not close the connection.
async fn send(query: &mut Deferred, reader: &Reader) -> Option<(usize, usize)> {
    let snapshot = reader.snapshot();
    let apex = Apex::of(&snapshot, query.query(&mut NameBuffer::new()).name())?;
    let mut rows = records(&snapshot, apex).peekable();
    let (mut messages, mut count) = (0, 0);
    while rows.peek().is_some() {
        let mut buffer = vec![0; MESSAGE_LEN];
        let len = {
            let mut name = NameBuffer::new();
            let mut reply = Reply::new(&query.query(&mut name), &mut buffer);
            reply.set_authoritative(true);
            count += fill(&mut reply, &mut rows);
            reply.finish()
        };
        buffer.truncate(len);
        messages += 1;
        if !query.stream(buffer.into()).await {
            return None;
        }
    }
    Some((messages, count))
}

/// The most transfers in progress. Further queries are refused.
const RUNNING_MAX: usize = 4;
/// The most queries that can wait for this task.
const WAITING_MAX: usize = 16;
/// The longest time of a transfer, so that a slow client cannot keep a snapshot in memory for ever.
const TRANSFER_MAX: Duration = Duration::from_secs(120);
