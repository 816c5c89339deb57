//! Whether queries reach the server and answers of every size come back.
//!
//! Core. Facts in, finding out.

use std::time::Duration;

use hickory_proto::rr::RecordType;

use super::{Judged, right, span, warning, wrong};
use crate::check::facts::{Facts, median, replied};
use crate::check::talk::{Over, Server};

pub fn udp(facts: &Facts) -> Judged {
    let question = facts.subject.kubernetes();
    for server in &facts.servers {
        let (got, sent) = replied(server, &question, Over::Udp);
        let shown = server.shown();
        if sent == 0 {
            return Err("the name that every cluster has was not asked".to_owned());
        }
        if got == 0 && server.answers_tcp() {
            return wrong(
                format!("{shown}: 0 of {sent} over UDP, TCP answers"),
                format!(
                    "Port 53 of {shown} answers over TCP but not over UDP, so nearly every query \
                     is lost; a firewall or NetworkPolicy drops UDP port 53."
                ),
            );
        }
        if got == 0 {
            let why = server.tries(&question, Over::Udp).into_iter().next();
            let why = why.and_then(|talk| talk.result.as_ref().err());
            let why = why.map_or_else(String::new, ToString::to_string);
            return wrong(format!("{shown}: 0 of {sent}, {why}"), silence(facts, server));
        }
        if sent - got > sent / LOSS_SHARE {
            return wrong(format!("{shown}: {got} of {sent}"), loss(facts, server, (got, sent)));
        }
    }
    let shown: Vec<String> = facts.servers.iter().map(Server::shown).collect();
    if shown.is_empty() {
        return Err("no DNS server is known".to_owned());
    }
    right(format!("{} answers every query", shown.join(", ")))
}

/// What is wrong if a server sends nothing at all.
fn silence(facts: &Facts, server: &Server) -> String {
    let shown = server.shown();
    let alive = facts.replicas.iter().flatten().find(|replica| replica.answers_udp());
    match alive {
        Some(replica) => format!(
            "{shown} does not answer, but the replica {} does: the way from here to the Service \
             address is broken. Check kube-proxy and the NetworkPolicies on this node.",
            replica.shown()
        ),
        None => format!(
            "{shown} does not answer on port 53, so no name resolves; check that the DNS pods run \
             and are ready, and that no NetworkPolicy blocks port 53."
        ),
    }
}

/// What is wrong if a part of the queries gets no answer.
fn loss(facts: &Facts, server: &Server, (got, sent): (usize, usize)) -> String {
    let shown = server.shown();
    let lost = (sent - got) * 100 / sent.max(1);
    let replicas = facts.replicas.iter().flatten();
    let dead = replicas.filter(|replica| !replica.answers()).count();
    match dead {
        0 => format!(
            "{lost} % of the queries to {shown} get no answer; the path drops datagrams, or one \
             of the servers behind this address is dead."
        ),
        dead => format!(
            "{lost} % of the queries to {shown} get no answer, because {dead} of the servers \
             behind it do not answer; restart those pods."
        ),
    }
}

pub fn tcp(facts: &Facts) -> Judged {
    let question = facts.subject.kubernetes();
    let mut shown = Vec::new();
    for server in &facts.servers {
        let (got, sent) = replied(server, &question, Over::Tcp);
        if sent > 0 && got == 0 && server.answers_udp() {
            return wrong(
                format!("{}: 0 of {sent}", server.shown()),
                "Port 53 answers over UDP but not over TCP; answers larger than the UDP limit \
                 cannot be retrieved. Allow TCP port 53 in firewalls, NetworkPolicies and the \
                 Service.",
            );
        }
        if sent > 0 && got > 0 {
            shown.push(server.shown());
        }
    }
    match shown.is_empty() {
        true => Err("no server answers at all".to_owned()),
        false => right(format!("{} answers", shown.join(", "))),
    }
}

pub fn round_trip(facts: &Facts) -> Judged {
    let server = facts.alive()?;
    let spans = server.round_trips(&facts.subject.kubernetes(), Over::Udp);
    if spans.is_empty() {
        return Err("no answer over UDP to measure".to_owned());
    }
    let (middle, slowest) = (median(&spans), spans.last().copied().unwrap_or_default());
    let seen = format!("median {}, slowest {}", span(middle), span(slowest));
    if middle > SLOW {
        return warning(
            &seen,
            format!(
                "The DNS server needs {} for a name of the cluster, which it has in memory; the \
                 node is overloaded, or the CPU limit of the pod is too low.",
                span(middle)
            ),
        );
    }
    right(seen)
}

pub fn edns(facts: &Facts) -> Judged {
    let server = facts.working()?;
    let tries = server.tries(&facts.subject.kubernetes(), Over::Udp);
    let answers = tries.iter().filter_map(|talk| talk.result.as_ref().ok());
    match answers.clone().any(|answer| answer.has_edns) {
        true => right("answered with OPT"),
        false => warning(
            "the answers have no OPT record",
            "The server, or a device on the way, removes EDNS; answers are cut at 512 bytes and \
             asked again over TCP.",
        ),
    }
}

pub fn plain(facts: &Facts) -> Judged {
    let server = facts.working()?;
    let question = facts.subject.kubernetes();
    let tries = server.tries(&question, Over::Plain);
    let Some(talk) = tries.first() else { return Err("was not asked".to_owned()) };
    match &talk.result {
        Ok(answer) if answer.rcode == 0 && answer.size <= PLAIN_MAX => {
            right(format!("{} bytes", answer.size))
        }
        Ok(answer) => wrong(
            format!("{}, {} bytes", answer.status(), answer.size),
            "A query without EDNS gets an error or more than 512 bytes, and musl sends such \
             queries; the server is broken.",
        ),
        Err(silence) => wrong(
            format!("{silence}"),
            "Queries without EDNS get no answer, and musl sends such queries; a device on the way \
             drops them.",
        ),
    }
}

/// A reply of more than 1,400 bytes over UDP, and the same question over TCP.
pub fn large(facts: &Facts) -> Judged {
    judge_large(facts.outward()?, facts)
}

/// Also for upstreams: whether large datagrams arrive.
pub fn judge_large(server: &Server, facts: &Facts) -> Judged {
    let question = &facts.subject.large;
    let sample = |over| server.tries(question, over).into_iter().next();
    let (Some(small), Some(large)) = (sample(Over::Udp), sample(Over::Large)) else {
        return Err("was not asked".to_owned());
    };
    let shown = server.shown();
    match (&small.result, &large.result) {
        (Ok(_), Err(silence)) => wrong(
            format!("{shown}: {question} with 4,096 bytes allowed: {silence}"),
            "Replies above 1,400 bytes never arrive, smaller ones do; the path MTU is too small \
             or fragments are dropped. Limit the size to 1232.",
        ),
        (_, Ok(answer)) if answer.is_truncated && server.answer(question).is_err() => wrong(
            format!("{shown}: {question} is truncated, and TCP does not answer"),
            "Answers larger than the UDP limit cannot be retrieved, because the retry over TCP \
             fails; allow TCP port 53.",
        ),
        (_, Ok(answer)) if answer.is_truncated => {
            let size = server.answer(question).map_or(0, |whole| whole.size);
            right(format!("{shown}: truncated over UDP, {size} bytes over TCP"))
        }
        (_, Ok(answer)) => right(format!("{shown}: {} bytes over UDP", answer.size)),
        (Err(silence), Err(_)) => Err(format!("{question}: {silence}")),
    }
}

pub fn recursion(facts: &Facts) -> Judged {
    let server = facts.working()?;
    // CoreDNS sets RA only in answers that it has from another server.
    let answer = server.answer(&facts.subject.outside(RecordType::A))?;
    match answer.can_recurse {
        true => right("offered"),
        false => warning(
            "the answers do not have RA set",
            "The server does not offer recursion, so outside names cannot resolve; clients must \
             ask dnscache or CoreDNS, not kubedns or an authoritative server.",
        ),
    }
}

/// A server that is lost to more than one query in so many has a problem.
const LOSS_SHARE: usize = 8;
/// An answer from memory takes far less than this, over any network of a cluster.
const SLOW: Duration = Duration::from_millis(500);
/// RFC 1035 section 2.3.4.
const PLAIN_MAX: usize = 512;
