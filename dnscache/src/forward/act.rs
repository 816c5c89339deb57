//! The values that core and sockets exchange: actions out, datagrams in.
//!
//! Core. Values only.

use super::table::Ticket;

/// An action for the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Send [`Queries::message`](super::queries::Queries::message) of this try over UDP: from the
    /// server's pool if it is local, or from the try's own socket, which is opened on a random port
    /// the first time.
    Send(TryId),
    /// Send the same message over TCP or TLS, and report to
    /// [`Queries::stream`](super::queries::Queries::stream).
    Dial(TryId),
    /// Close the own socket of this try, if it has one.
    Close(TryId),
    /// The query in this slot has ended: [`Queries::take_end`](super::queries::Queries::take_end).
    End {
        /// The slot.
        slot: u16,
    },
    /// No server can answer this query now, or it takes long. Clients should get an expired answer,
    /// if there is one. The query continues.
    Stale {
        /// The slot.
        slot: u16,
    },
    /// The server has gone down or has come up again.
    Health {
        /// Index of the server.
        server: u16,
    },
}

/// Names one try of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryId {
    /// The query.
    pub ticket: Ticket,
    /// Which of its tries.
    pub at: u8,
    /// Index of the server.
    pub server: u16,
}

/// The socket on which something was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The socket of this local server.
    Pool(u16),
    /// The socket of try `at` of the query in `slot`.
    Own {
        /// The slot.
        slot: u16,
        /// Which of its tries.
        at: u8,
    },
}

/// A received UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The datagram was longer than the buffer, so some bytes are missing.
    pub is_cut: bool,
}
