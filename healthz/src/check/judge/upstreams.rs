//! The servers that outside names are asked of, each by itself.
//!
//! Core. Facts in, finding out.

use std::time::Duration;

use hickory_proto::rr::RecordType;
use shared::wire::rcode::SERVFAIL;

use super::{Judged, listed, right, span, transport, warning, wrong};
use crate::check::facts::{Facts, median, replied};
use crate::check::talk::{Over, Server};

pub fn udp(facts: &Facts) -> Judged {
    let upstreams = facts.upstreams()?;
    let question = facts.subject.outside(RecordType::A);
    let (alive, dead): (Vec<&Server>, Vec<&Server>) =
        upstreams.iter().partition(|server| server.answers_udp());
    let Some(first) = dead.first() else {
        let shown: Vec<String> = alive.iter().map(|server| server.shown()).collect();
        return right(format!("{} answers", listed(&shown)));
    };
    let (_, sent) = replied(first, &question, Over::Udp);
    let seen = format!("{}: 0 of {sent}", first.shown());
    match alive.first() {
        Some(other) => warning(
            seen,
            format!(
                "Upstream {} did not answer {sent} of {sent} queries; the other upstream answers \
                 in {}, so outside names are slow but resolve. Remove the dead one, or repair it.",
                first.shown(),
                span(median(&other.round_trips(&question, Over::Udp)))
            ),
        ),
        None if upstreams.iter().any(|server| server.answers_tcp()) => wrong(
            seen,
            format!(
                "Upstream {} answers over TCP but not over UDP; a firewall drops UDP port 53 \
                 between this pod and it.",
                first.shown()
            ),
        ),
        None => wrong(
            seen,
            "No upstream answers; outside names resolve only from stale cache entries, cluster \
             names are not affected. Check the upstreams and the way from this pod to them.",
        ),
    }
}

pub fn tcp(facts: &Facts) -> Judged {
    let alive = facts.live_upstreams()?;
    match alive.iter().find(|server| !server.answers_tcp()) {
        None => right("answers"),
        Some(server) => warning(
            format!("{}: no answer over TCP", server.shown()),
            format!(
                "Upstream {} answers over UDP but not over TCP; outside names with large answers \
                 cannot be retrieved. Allow TCP port 53 to it.",
                server.shown()
            ),
        ),
    }
}

pub fn loss(facts: &Facts) -> Judged {
    let question = facts.subject.outside(RecordType::A);
    let mut seen = Vec::new();
    for server in facts.live_upstreams()? {
        let (got, sent) = replied(server, &question, Over::Udp);
        let (over_tcp, tries) = replied(server, &question, Over::Tcp);
        if sent.saturating_sub(got) >= LOST_MIN {
            let lost = (sent - got) * 100 / sent;
            let tcp = match over_tcp == tries && tries > 0 {
                true => "TCP queries all succeed",
                false => "TCP queries fail too",
            };
            return warning(
                format!("{}: {got} of {sent}", server.shown()),
                format!(
                    "{lost} % of UDP queries to {} get no reply, {tcp}; the path drops datagrams. \
                     Check the links and rate limits on the way, or ask it over TCP \
                     (--server tcp://ADDRESS).",
                    server.shown()
                ),
            );
        }
        seen.push(format!("{} {got} of {sent}", server.shown()));
    }
    right(listed(&seen))
}

pub fn round_trip(facts: &Facts) -> Judged {
    let question = facts.subject.outside(RecordType::A);
    let mut seen = Vec::new();
    for server in facts.live_upstreams()? {
        let middle = median(&server.round_trips(&question, Over::Udp));
        if middle > SLOW {
            return warning(
                format!("{}: median {}", server.shown(), span(middle)),
                format!(
                    "Upstream {} needs {} in the median; a lookup with three search steps exceeds \
                     the client timeout of 5 s. Use an upstream that is nearer.",
                    server.shown(),
                    span(middle)
                ),
            );
        }
        seen.push(format!("{} {}", server.shown(), span(middle)));
    }
    right(listed(&seen))
}

pub fn families(facts: &Facts) -> Judged {
    let (v4, v6) = (facts.subject.outside(RecordType::A), facts.subject.outside(RecordType::AAAA));
    for server in facts.live_upstreams()? {
        let Ok(first) = server.answer(&v4) else { continue };
        if first.rcode != 0 {
            continue;
        }
        match server.answer(&v6) {
            Ok(answer) if answer.rcode == SERVFAIL => {
                return wrong(
                    format!("{}: {v6} gets SERVFAIL", server.shown()),
                    format!(
                        "The upstream answers A for {} and SERVFAIL for AAAA; glibc then fails the \
                         whole lookup. Use another upstream, or --filter-aaaa.",
                        facts.subject.outside
                    ),
                );
            }
            Err(reason) => {
                return wrong(
                    format!("{}: {v6}: {reason}", server.shown()),
                    format!(
                        "Upstream {} answers A for {} but leaves AAAA without an answer, so \
                         clients wait for their timeout; use another upstream, or --filter-aaaa.",
                        server.shown(),
                        facts.subject.outside
                    ),
                );
            }
            _ => {}
        }
    }
    right("A and AAAA are answered")
}

pub fn large(facts: &Facts) -> Judged {
    let mut seen = Vec::new();
    for server in facts.live_upstreams()? {
        match transport::judge_large(server, facts) {
            Ok(super::Finding::Right(text)) => seen.push(text),
            Ok(wrong) => return Ok(wrong),
            Err(_) => {}
        }
    }
    match seen.is_empty() {
        true => Err(format!("no answer to {}", facts.subject.large)),
        false => right(listed(&seen)),
    }
}

/// An upstream that has the cluster's names gets them from this server.
pub fn looping(facts: &Facts) -> Judged {
    let server = facts.alive()?;
    let outside = server.answer(&facts.subject.outside(RecordType::A));
    if let Ok(answer) = outside
        && answer.error.as_deref().is_some_and(|error| error.contains("loop"))
    {
        return wrong(
            format!("{}: {}", server.shown(), answer.status()),
            looped(facts.upstreams()?),
        );
    }
    let resolves = outside.is_ok_and(|answer| answer.rcode == 0);
    let question = facts.subject.kubernetes();
    let has_cluster = |server: &&Server| {
        server.answer(&question).is_ok_and(|answer| !answer.addresses().is_empty())
    };
    let Some(upstream) = facts.upstreams()?.iter().find(has_cluster) else {
        return right("no upstream sends queries back");
    };
    let seen = format!("upstream {} has names of the cluster", upstream.shown());
    if resolves {
        return warning(
            seen,
            format!(
                "Upstream {} sends queries for the cluster domain back to this server; outside \
                 names resolve all the same.",
                upstream.shown()
            ),
        );
    }
    wrong(seen, looped(std::slice::from_ref(upstream)))
}

fn looped(upstreams: &[Server]) -> String {
    let shown: Vec<String> = upstreams.iter().map(Server::shown).collect();
    format!(
        "Upstream {} sends queries back to this server; use the file \
         /run/systemd/resolve/resolv.conf instead of /etc/resolv.conf of the node.",
        listed(&shown)
    )
}

pub fn stubs(facts: &Facts) -> Judged {
    if facts.stubs.is_empty() {
        return Err("no stub domain is known".to_owned());
    }
    let dead = |stub: &&crate::check::facts::Stub| !stub.server.answers();
    if let Some(stub) = facts.stubs.iter().find(dead) {
        return wrong(
            format!("{}: no answer for {}", stub.server.shown(), stub.domain),
            format!(
                "{} is forwarded to {}, which does not answer; other names are not affected. \
                 Repair that server, or remove the stub domain.",
                stub.domain,
                stub.server.shown()
            ),
        );
    }
    let shown: Vec<&str> = facts.stubs.iter().map(|stub| stub.domain.as_str()).collect();
    right(format!("{} answered", listed(&shown)))
}

/// So many lost queries of twenty are not an accident.
const LOST_MIN: usize = 3;
/// Three steps of a search list with two families must fit into 5 s.
const SLOW: Duration = Duration::from_millis(800);
