//! The messages by which a program leaves copies of its listening sockets with a keeper, and gets
//! them back after a restart.
//!
//! Core. `passing` and `program` are edges. It must not depend on how sockets are bound.
//!
//! ```text
//! program                                        keeper (healthz)
//!    │ take: its name, the sockets that it wants ───▶ │ closes the others
//!    │ ◀─── given: the sockets, or refused: a reason  │
//!    │ binds what is missing, serves                  │
//!    │ keep: copies of all sockets ─────────────────▶ │ replaces the earlier copies
//!    │ ◀─── kept: how many                            │
//!    │ the connection stays open while it runs        │
//! ```
//!
//! The keeper never reads a kept socket. Queries that arrive while no program runs wait in the
//! kernel's buffers, and the program that starts next answers them.

pub mod passing;
mod program;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::wire::Transport;

pub use program::{Copies, bind};

/// The listening sockets of one address: several for UDP if several threads share the port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The transport.
    pub transport: Transport,
    /// The bound address.
    pub address: SocketAddr,
    /// The number of sockets.
    pub sockets: usize,
}

/// A group together with its sockets, in the order in which they were bound.
#[derive(Debug)]
pub struct Bundle<S> {
    /// The description.
    pub group: Group,
    /// The sockets.
    pub sockets: Vec<S>,
}

/// A message of either side: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Message {
    /// A program asks for its sockets.
    Take {
        /// The name of the program.
        program: String,
        /// The sockets that it would bind.
        wanted: Vec<Group>,
    },
    /// The keeper returns sockets. Their descriptors come with the message, in this order.
    Given {
        /// The sockets.
        groups: Vec<Group>,
    },
    /// The keeper does not serve the program.
    Refused {
        /// The reason, for the log.
        reason: String,
    },
    /// A program sends copies of its sockets. Their descriptors come with the message.
    Keep {
        /// The sockets.
        groups: Vec<Group>,
    },
    /// The keeper has the copies.
    Kept {
        /// The number of sockets.
        sockets: usize,
    },
}

/// Why a line is not a message.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is not JSON, or does not have the expected fields.
    #[error("not a message")]
    Json(#[from] serde_json::Error),
    /// A name or a number is out of range.
    #[error("{0}")]
    Range(&'static str),
    /// The message and the descriptors that came with it do not fit.
    #[error("{announced} sockets are announced and {received} received")]
    Count {
        /// The number according to the message.
        announced: usize,
        /// The number of descriptors.
        received: usize,
    },
}

impl Message {
    /// Returns the message as one line, newline included.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("addresses, numbers and texts are JSON") + "\n"
    }

    /// Parses one line. `received` is the number of descriptors that came with it.
    pub fn parse(line: &[u8], received: usize) -> Result<Self, ParseError> {
        let message: Self = serde_json::from_slice(line)?;
        if let Self::Take { program, wanted } = &message {
            let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
            if !(1..=NAME_LEN_MAX).contains(&program.len()) || !program.bytes().all(is_allowed) {
                return Err(ParseError::Range("the name of the program is not allowed"));
            }
            count(wanted)?;
        }
        let announced = match &message {
            Self::Given { groups } | Self::Keep { groups } => count(groups)?,
            _ => 0,
        };
        match announced == received {
            true => Ok(message),
            false => Err(ParseError::Count { announced, received }),
        }
    }
}

/// Returns the number of sockets in `groups`. Fails if there are too many, or if two groups have
/// the same transport and address.
fn count(groups: &[Group]) -> Result<usize, ParseError> {
    let mut total: usize = 0;
    for (at, group) in groups.iter().enumerate() {
        let is_same =
            |other: &Group| (other.transport, other.address) == (group.transport, group.address);
        if groups[..at].iter().any(is_same) {
            return Err(ParseError::Range("two groups have the same address"));
        }
        if group.sockets == 0 || group.transport == Transport::Tcp && group.sockets > 1 {
            return Err(ParseError::Range("the number of sockets of an address is not allowed"));
        }
        total = total.saturating_add(group.sockets);
    }
    match total <= SOCKETS_MAX {
        true => Ok(total),
        false => Err(ParseError::Range("too many sockets")),
    }
}

/// Returns the sockets by group. `sockets` must be as many as the groups have.
pub fn bundles<S>(groups: Vec<Group>, sockets: Vec<S>) -> Vec<Bundle<S>> {
    let mut sockets = sockets.into_iter();
    let bundle = |group: Group| {
        let sockets = sockets.by_ref().take(group.sockets).collect();
        Bundle { group, sockets }
    };
    groups.into_iter().map(bundle).collect()
}

/// Returns the groups that a program binds for `addresses`, with `threads` UDP sockets each. Port 0
/// is left out, because no kept socket has it.
pub fn wanted(addresses: &[SocketAddr], threads: usize) -> Vec<Group> {
    let of = |&address: &SocketAddr| {
        let tcp = Group { transport: Transport::Tcp, address, sockets: 1 };
        [tcp, Group { transport: Transport::Udp, address, sockets: threads.max(1) }]
    };
    addresses.iter().filter(|address| address.port() != 0).flat_map(of).collect()
}

/// Sockets of one program: eight addresses with seven threads each, for example.
pub const SOCKETS_MAX: usize = 64;
/// Bytes of a line, newline included. 64 groups with long addresses have about 6,000.
pub const LINE_MAX: usize = 8 << 10;
/// Characters of a program's name.
const NAME_LEN_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn group(transport: Transport, address: &str, sockets: usize) -> Group {
        Group { transport, address: address.parse().unwrap(), sockets }
    }

    #[test]
    fn messages_are_lines() {
        let groups = wanted(&["127.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()], 2);
        let program = "dnscache".to_owned();
        let message = Message::Take { program, wanted: groups[2..].to_vec() };
        let line = "{\"take\":{\"program\":\"dnscache\",\"wanted\":[\
                    {\"transport\":\"tcp\",\"address\":\"[::1]:53\",\"sockets\":1},\
                    {\"transport\":\"udp\",\"address\":\"[::1]:53\",\"sockets\":2}]}}\n";
        assert_eq!(message.to_line(), line);
        for (message, descriptors) in [
            (message, 0),
            (Message::Given { groups: Vec::new() }, 0),
            (Message::Keep { groups }, 6),
            (Message::Refused { reason: "line\nbreak".to_owned() }, 0),
            (Message::Kept { sockets: 6 }, 0),
        ] {
            let line = message.to_line();
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(Message::parse(line.as_bytes(), descriptors).unwrap(), message);
            let error = Message::parse(line.as_bytes(), descriptors + 1).unwrap_err();
            assert!(matches!(error, ParseError::Count { .. }), "{error}");
        }
    }

    #[test]
    fn the_longest_message_fits_a_line() {
        let groups = (0..SOCKETS_MAX).map(|number| {
            let host = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]";
            group(Transport::Udp, &format!("{host}:{}", 65_000 + number), 1)
        });
        let message = Message::Keep { groups: groups.collect() };
        let line = message.to_line();
        assert!(line.len() <= LINE_MAX, "{}", line.len());
        assert_eq!(Message::parse(line.as_bytes(), SOCKETS_MAX).unwrap(), message);
    }

    #[test]
    fn nonsense_is_refused() {
        let (udp, tcp) = (Transport::Udp, Transport::Tcp);
        let take = |program: &str, wanted: Vec<Group>| {
            Message::Take { program: program.to_owned(), wanted }.to_line()
        };
        let rows = [
            ("", "not a message"),
            ("GET / HTTP/1.1\r\n", "not a message"),
            ("{\"take\":{}}\n", "not a message"),
            ("{\"kept\":{\"sockets\":1}} 7\n", "not a message"),
            (&take("", Vec::new()), "name"),
            (&take("../dnscache", Vec::new()), "name"),
            (&take(&"a".repeat(33), Vec::new()), "name"),
            (&take("a", vec![group(udp, "[::1]:53", 0)]), "number of sockets"),
            (&take("a", vec![group(tcp, "[::1]:53", 2)]), "number of sockets"),
            (&take("a", vec![group(udp, "[::1]:53", 65)]), "too many"),
            (
                &take("a", vec![group(udp, "[::1]:53", usize::MAX), group(udp, "[::1]:54", 1)]),
                "too",
            ),
            (&take("a", vec![group(udp, "[::1]:53", 1), group(udp, "[::1]:53", 2)]), "two groups"),
        ];
        for (line, expected) in rows {
            let error = Message::parse(line.as_bytes(), 0).unwrap_err().to_string();
            assert!(error.contains(expected), "{line:?}: {error}");
        }
    }

    #[test]
    fn port_zero_is_never_wanted_and_sockets_are_split_by_group() {
        let groups = wanted(&["127.0.0.1:0".parse().unwrap(), "127.0.0.1:7".parse().unwrap()], 3);
        let all = [(Transport::Tcp, 1), (Transport::Udp, 3)];
        let read = groups.iter().map(|group| (group.transport, group.sockets));
        assert_eq!(read.collect::<Vec<_>>(), all);
        let bundles = bundles(groups, vec![0, 1, 2, 3]);
        let sockets: Vec<_> = bundles.iter().map(|bundle| &bundle.sockets[..]).collect();
        assert_eq!(sockets, [&[0][..], &[1, 2, 3]]);
    }
}
