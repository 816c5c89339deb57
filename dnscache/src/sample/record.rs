//! One sampled query, and how it is shown.
//!
//! Core. Values only.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use shared::clock::Moment;
use shared::mnemonics::{rcode_name, type_name};
use shared::name;
use shared::wire::NAME_MAX;

/// The source of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The cache.
    Hit,
    /// An upstream, or the wait for one.
    Miss,
    /// An expired entry of the cache.
    Stale,
    /// The rules, routes and refusals of this server.
    Local,
}

impl Source {
    /// Its name in lines and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Local => "local",
        }
    }
}

/// A query and its outcome. The value has a fixed size, so storing it does not allocate.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was answered.
    pub at: Moment,
    /// The client. IPv4 written as IPv6 is IPv4.
    pub client: IpAddr,
    /// Its type.
    pub qtype: u16,
    /// The response code of the reply.
    pub rcode: u16,
    /// Whether the reply has records in its answer section.
    pub has_answer: bool,
    /// The source of the answer.
    pub source: Source,
    /// How long the client waited, from the moment the query was read.
    pub took: Duration,
    /// The server that was asked last, if one was.
    pub upstream: Option<SocketAddr>,
    /// How many queries it represents.
    pub weight: u32,
    name_len: u8,
    name: [u8; NAME_MAX],
}

impl Sample {
    /// A query for `name`, which is in wire form and lower case; the rest is set by the caller.
    pub fn new(name: &[u8], client: IpAddr, source: Source) -> Self {
        let len = name.len().min(NAME_MAX);
        let mut sample = Self {
            at: Moment::default(),
            client: client.to_canonical(),
            qtype: 0,
            rcode: 0,
            has_answer: false,
            source,
            took: Duration::ZERO,
            upstream: None,
            weight: 1,
            name_len: len as u8,
            name: [0; NAME_MAX],
        };
        sample.name[..len].copy_from_slice(&name[..len]);
        sample
    }

    /// Its name in wire form and lower case.
    pub fn name(&self) -> &[u8] {
        &self.name[..usize::from(self.name_len)]
    }

    /// Returns the sample as a line of JSON without its end. `time` is when it was answered, as RFC
    /// 3339 has it.
    pub fn line(&self, time: &str) -> String {
        let line = Line {
            time,
            client: self.client,
            name: name::text(self.name()),
            r#type: type_name(self.qtype),
            rcode: rcode_name(self.rcode),
            source: self.source,
            duration_us: self.took.as_micros() as u64,
            upstream: self.upstream,
            weight: self.weight,
        };
        serde_json::to_string(&line).expect("strings and numbers are JSON")
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    client: IpAddr,
    name: String,
    r#type: Cow<'static, str>,
    rcode: Cow<'static, str>,
    source: Source,
    duration_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<SocketAddr>,
    weight: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::name::parse;

    #[test]
    fn a_sample_is_a_line_of_json() {
        let name = parse("web.shop.svc.cluster.local").unwrap();
        let mut sample = Sample::new(&name, "::ffff:10.0.0.7".parse().unwrap(), Source::Hit);
        sample.qtype = 28;
        sample.took = Duration::from_micros(12);
        let time = "2026-11-28T15:00:00.123Z";
        let line = r#"{"time":"2026-11-28T15:00:00.123Z","client":"10.0.0.7","#.to_owned()
            + r#""name":"web.shop.svc.cluster.local.","type":"AAAA","rcode":"NOERROR","#
            + r#""source":"hit","duration_us":12,"weight":1}"#;
        assert_eq!(sample.line(time), line);
        let mut sample = Sample::new(&[0], "fd00::7".parse().unwrap(), Source::Miss);
        (sample.qtype, sample.rcode, sample.weight) = (65_280, 23, 500);
        sample.upstream = Some("192.0.2.53:53".parse().unwrap());
        let line = sample.line(time);
        for part in [
            r#""client":"fd00::7","name":".","type":"TYPE65280","rcode":"RCODE23""#,
            r#""source":"miss","duration_us":0,"upstream":"192.0.2.53:53","weight":500"#,
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
}
