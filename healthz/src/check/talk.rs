//! A question that a check asks, and what became of it.
//!
//! Core. Knows messages; ids come in as arguments, sockets and time are elsewhere.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

use crate::config::DNS_PORT;
use crate::question::extended_error;
use crate::status::rcode_text;

/// A name and a type, asked in class IN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name with its final dot, as it is sent.
    pub name: String,
    /// The type.
    pub rtype: RecordType,
}

impl Question {
    /// A question. A final dot is added to `name`.
    pub fn new(name: &str, rtype: RecordType) -> Self {
        Self { name: format!("{}.", name.trim_end_matches('.')), rtype }
    }

    /// The query in wire form; `None` if the name is not valid.
    pub fn encode(&self, over: Over, id: u16) -> Option<Vec<u8>> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query()?);
        if over != Over::Plain {
            let mut edns = Edns::new();
            edns.set_max_payload(if over == Over::Large { LARGE_MAX } else { UDP_MAX });
            edns.set_dnssec_ok(over == Over::Large);
            message.set_edns(edns);
        }
        message.to_vec().ok()
    }

    fn query(&self) -> Option<Query> {
        Some(Query::query(Name::from_ascii(&self.name).ok()?, self.rtype))
    }

    /// Reads a reply to this question; `None` if `bytes` are not a reply to it.
    pub fn read(&self, bytes: &[u8], id: u16) -> Option<Result<Answer, Silence>> {
        if bytes.first_chunk() != Some(&id.to_be_bytes()) {
            return None;
        }
        let Ok(message) = Message::from_vec(bytes) else { return Some(Err(Silence::Malformed)) };
        let is_echo =
            message.queries.first().is_none_or(|query| Some(query) == self.query().as_ref());
        if message.metadata.message_type != MessageType::Response || !is_echo {
            return None;
        }
        Some(Ok(Answer::of(&message, bytes.len())))
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", bare(&self.name), self.rtype)
    }
}

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// UDP with EDNS and 1,232 bytes.
    Udp,
    /// UDP without EDNS.
    Plain,
    /// UDP with EDNS, 4,096 bytes and DNSSEC records.
    Large,
    /// TCP.
    Tcp,
}

/// One question asked once, and the result.
#[derive(Clone, Debug)]
pub struct Talk {
    /// What was asked.
    pub question: Question,
    /// How.
    pub over: Over,
    /// From the sending of the query to the reply, or to the moment of giving up.
    pub took: Duration,
    /// The reply, or why there is none.
    pub result: Result<Answer, Silence>,
}

/// A reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub rcode: u16,
    /// The reply has TC set.
    pub is_truncated: bool,
    /// The reply has RA set.
    pub can_recurse: bool,
    /// The reply has an OPT record.
    pub has_edns: bool,
    /// The authority section has a SOA record.
    pub has_soa: bool,
    /// The Extended DNS Error.
    pub error: Option<String>,
    /// Bytes of the message.
    pub size: usize,
    /// The answer section.
    pub records: Vec<Row>,
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The type.
    pub rtype: RecordType,
    /// Seconds.
    pub ttl: u32,
    /// The data in presentation form.
    pub data: String,
}

impl Answer {
    fn of(message: &Message, size: usize) -> Self {
        let row = |record: &hickory_proto::rr::Record| Row {
            rtype: record.record_type(),
            ttl: record.ttl,
            data: record.data.to_string(),
        };
        let is_soa = |record: &hickory_proto::rr::Record| record.record_type() == RecordType::SOA;
        Self {
            rcode: message.metadata.response_code.into(),
            is_truncated: message.metadata.truncation,
            can_recurse: message.metadata.recursion_available,
            has_edns: message.edns.is_some(),
            has_soa: message.authorities.iter().any(is_soa),
            error: extended_error(message),
            size,
            records: message.answers.iter().map(row).collect(),
        }
    }

    /// The data of the records of `rtype`, sorted.
    pub fn data(&self, rtype: RecordType) -> Vec<&str> {
        let of_type = self.records.iter().filter(|row| row.rtype == rtype);
        let mut data: Vec<&str> = of_type.map(|row| row.data.as_str()).collect();
        data.sort_unstable();
        data.dedup();
        data
    }

    /// The addresses among the records, sorted.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let is_address = |row: &&Row| matches!(row.rtype, RecordType::A | RecordType::AAAA);
        let rows = self.records.iter().filter(is_address);
        let mut addresses: Vec<IpAddr> = rows.filter_map(|row| row.data.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// `NOERROR`, `SERVFAIL: reason` and so on.
    pub fn status(&self) -> String {
        match (self.rcode, self.records.is_empty()) {
            (0, true) => "no record of that type (NODATA)".to_owned(),
            _ => rcode_text(self.rcode, self.error.as_deref()),
        }
    }
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// No reply arrived in time.
    Timeout(Duration),
    /// The port is closed.
    Closed,
    /// The reply cannot be read.
    Malformed,
    /// The system refused to send, connect or receive.
    Network(String),
    /// The name cannot be sent in a query.
    BadName,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(after) => write!(f, "no answer within {} s", after.as_secs_f64()),
            Self::Closed => f.write_str("the port is closed"),
            Self::Malformed => f.write_str("the reply cannot be read"),
            Self::Network(error) => f.write_str(error),
            Self::BadName => f.write_str("the name is not valid"),
        }
    }
}

/// A DNS server and what was asked of it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Every question, in order.
    pub talks: Vec<Talk>,
}

impl Server {
    /// Every try of `question` by `over`.
    pub fn tries(&self, question: &Question, over: Over) -> Vec<&Talk> {
        let is_it = |talk: &&Talk| talk.question == *question && talk.over == over;
        self.talks.iter().filter(is_it).collect()
    }

    /// Whether any question got a reply.
    pub fn answers(&self) -> bool {
        self.talks.iter().any(|talk| talk.result.is_ok())
    }

    /// Whether any question got a reply by one of the ways over UDP.
    pub fn answers_udp(&self) -> bool {
        self.talks.iter().any(|talk| talk.over != Over::Tcp && talk.result.is_ok())
    }

    /// Whether any question got a reply over TCP.
    pub fn answers_tcp(&self) -> bool {
        self.talks.iter().any(|talk| talk.over == Over::Tcp && talk.result.is_ok())
    }

    /// The whole answer to `question`, over UDP or, if that is truncated or does not arrive, over
    /// TCP. Fails with the reason if there is none.
    pub fn answer(&self, question: &Question) -> Result<&Answer, String> {
        let tries = self.talks.iter().filter(|talk| talk.question == *question);
        let mut reason = "was not asked".to_owned();
        for talk in tries {
            match &talk.result {
                Ok(answer) if !answer.is_truncated => return Ok(answer),
                Ok(_) => reason = "the answer is truncated, and TCP does not answer".to_owned(),
                Err(silence) => reason = silence.to_string(),
            }
        }
        Err(reason)
    }

    /// The round-trip times of the replies to `question` by `over`, sorted.
    pub fn round_trips(&self, question: &Question, over: Over) -> Vec<Duration> {
        let replied = self.tries(question, over).into_iter().filter(|talk| talk.result.is_ok());
        let mut spans: Vec<Duration> = replied.map(|talk| talk.took).collect();
        spans.sort_unstable();
        spans
    }

    /// The address without the port if that is 53.
    pub fn shown(&self) -> String {
        match self.address.port() {
            DNS_PORT => self.address.ip().to_string(),
            _ => self.address.to_string(),
        }
    }
}

/// A name without its final dot.
pub fn bare(name: &str) -> &str {
    match name.trim_end_matches('.') {
        "" => ".",
        name => name,
    }
}

/// The largest reply that crosses every path unfragmented (RFC 9715).
const UDP_MAX: u16 = 1_232;
/// What resolvers asked for before, and some still do.
const LARGE_MAX: u16 = 4_096;
