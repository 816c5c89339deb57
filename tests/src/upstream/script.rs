//! Decides which reply a query gets: from the table, from the sequence of its name, or the reply
//! for all queries.
//!
//! Core. Times are passed in with the queries.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};

use super::random::Random;
use super::reply::{Answer, Asked, Reply, Sending};

/// One query as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The message.
    pub message: Vec<u8>,
    /// The client.
    pub peer: SocketAddr,
    /// Whether it arrived over TCP.
    pub tcp: bool,
    /// The connection that it arrived over, counted from 0.
    pub connection: Option<usize>,
    /// When it arrived.
    pub at: Instant,
    /// Whether it counts as lost, so that it got no reply.
    pub lost: bool,
}

impl Seen {
    /// Returns the message ID.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.message[0], self.message[1]])
    }

    /// Returns the question as `name TYPE`, in lower case. It is empty if the query has no
    /// question.
    pub fn question(&self) -> String {
        Message::from_vec(&self.message).map_or_else(|_| String::new(), |query| question(&query))
    }

    /// Returns whether the query has OPT.
    pub fn has_edns(&self) -> bool {
        Message::from_vec(&self.message).is_ok_and(|query| query.edns.is_some())
    }
}

/// The share of datagrams that are lost, 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss {
    /// The share of queries.
    pub queries: f64,
    /// The share of replies.
    pub replies: f64,
}

/// The rules for replies, and all queries so far.
#[derive(Clone, Debug)]
pub struct Script {
    /// Answers by question, `name TYPE` in lower case.
    pub table: HashMap<String, Answer>,
    /// The record, without its owner, of names that are not in the table.
    pub otherwise: Option<String>,
    /// Zones, in lower case, whose names do not exist if they are not in the table.
    pub denied: Vec<String>,
    /// Replies by question, in the order of the tries, and how many were sent. The last one
    /// repeats.
    pub tries: HashMap<String, (Vec<Reply>, usize)>,
    /// The reply to every other query over UDP.
    pub udp: Reply,
    /// The reply to every other query over TCP.
    pub tcp: Reply,
    /// The delay of every reply.
    pub delay: Duration,
    /// The longest additional delay, which is random.
    pub jitter: Duration,
    /// The loss over UDP.
    pub loss: Loss,
    /// Decides which datagrams are lost, and the additional delay of a reply.
    pub random: Random,
    /// Every query, in order.
    pub seen: Vec<Seen>,
    /// How often each question was asked.
    pub asked: HashMap<String, usize>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            table: HashMap::new(),
            otherwise: None,
            denied: Vec::new(),
            tries: HashMap::new(),
            udp: Reply::Truth,
            tcp: Reply::Truth,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Loss::default(),
            random: Random::new(7),
            seen: Vec::new(),
            asked: HashMap::new(),
        }
    }
}

impl Script {
    /// Records the query and returns the messages to send.
    pub fn react(&mut self, mut seen: Seen) -> Vec<Sending> {
        let Ok(query) = Message::from_vec(&seen.message) else {
            self.seen.push(seen);
            return Vec::new();
        };
        let question = question(&query);
        *self.asked.entry(question.clone()).or_default() += 1;
        seen.lost = !seen.tcp && self.random.fraction() < self.loss.queries;
        let (lost, tcp) = (seen.lost, seen.tcp);
        let bytes = seen.message.clone();
        self.seen.push(seen);
        if lost {
            return Vec::new();
        }
        let truth = self.truth(&query, &question);
        let reply = self.reply(&question, tcp);
        let asked = Asked { bytes: &bytes, query: &query, truth: &truth, tcp };
        let mut sendings = reply.sendings(&asked);
        self.hinder(&mut sendings, tcp);
        sendings
    }

    fn truth(&self, query: &Message, question: &str) -> Answer {
        if let Some(answer) = self.table.get(question) {
            return answer.clone();
        }
        let owner = query.queries.first().map(|query| query.name());
        let name = question.split(' ').next().unwrap_or_default();
        let is_denied = self.denied.iter().any(|zone| name.ends_with(zone));
        match (self.otherwise.as_ref().filter(|_| !is_denied), owner) {
            (Some(data), Some(owner)) if question.ends_with(" a") => {
                Answer::new(&[&format!("{owner} {data}")])
            }
            _ => Answer::denial(ResponseCode::NXDomain, 30),
        }
    }

    fn reply(&mut self, question: &str, tcp: bool) -> Reply {
        if let Some((replies, used)) = self.tries.get_mut(question) {
            let reply = replies.get(*used).or(replies.last()).cloned();
            *used += 1;
            return reply.unwrap_or(Reply::Truth);
        }
        if tcp { self.tcp.clone() } else { self.udp.clone() }
    }

    /// Delays the replies, and drops those that are lost.
    fn hinder(&mut self, sendings: &mut Vec<Sending>, tcp: bool) {
        for sending in &mut *sendings {
            sending.after += self.delay + self.jitter.mul_f64(self.random.fraction());
        }
        if !tcp {
            sendings.retain(|_| self.random.fraction() >= self.loss.replies);
        }
    }
}

/// Returns `name TYPE` in lower case. It is empty if `query` has no question.
fn question(query: &Message) -> String {
    query.queries.first().map_or_else(String::new, |query| {
        format!("{} {}", query.name(), query.query_type()).to_lowercase()
    })
}
