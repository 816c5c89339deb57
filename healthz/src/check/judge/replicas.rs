//! The servers behind the address of the Service, each by itself and against each other.
//!
//! Core. Facts in, finding out.

use hickory_proto::rr::RecordType;

use super::{Judged, listed, names::said, right, warning, wrong};
use crate::check::facts::Facts;
use crate::check::talk::{Question, Server, bare};

pub fn udp(facts: &Facts) -> Judged {
    let replicas = facts.replicas()?;
    let (alive, dead): (Vec<&Server>, Vec<&Server>) =
        replicas.iter().partition(|server| server.answers());
    let Some(first) = dead.first() else {
        if let Some(deaf) = alive.iter().find(|server| !server.answers_udp()) {
            return wrong(
                format!("{}: no answer over UDP", deaf.shown()),
                format!("The DNS pod {} answers over TCP but not over UDP.", deaf.shown()),
            );
        }
        return right(format!("{} of {} answer", alive.len(), replicas.len()));
    };
    let seen = format!("{} of {} do not answer", dead.len(), replicas.len());
    if alive.is_empty() {
        let shown: Vec<String> = dead.iter().map(|server| server.shown()).collect();
        return wrong(
            seen,
            format!(
                "None of the DNS pods ({}) answers on port 53; see their logs and the network of \
                 their nodes.",
                listed(&shown)
            ),
        );
    }
    let share = match (dead.len(), replicas.len()) {
        (dead, all) if dead * 2 == all => "half".to_owned(),
        (dead, all) => format!("{} %", dead * 100 / all),
    };
    wrong(
        seen,
        format!(
            "{} of {} DNS pods ({}) does not answer on port 53, so about {share} of all queries \
             wait for a retry; delete that pod.",
            dead.len(),
            replicas.len(),
            first.shown()
        ),
    )
}

pub fn tcp(facts: &Facts) -> Judged {
    let replicas = facts.replicas()?;
    let deaf = |server: &&Server| server.answers_udp() && !server.answers_tcp();
    match replicas.iter().find(deaf) {
        Some(server) => wrong(
            format!("{}: no answer over TCP", server.shown()),
            format!(
                "The DNS pod {} answers over UDP but not over TCP; answers larger than the UDP \
                 limit fail whenever it is chosen.",
                server.shown()
            ),
        ),
        None => right("every replica that answers over UDP does so over TCP"),
    }
}

pub fn agree(facts: &Facts) -> Judged {
    let replicas = facts.replicas()?;
    let alive: Vec<&Server> = replicas.iter().filter(|server| server.answers_udp()).collect();
    let [first, others @ ..] = alive.as_slice() else {
        return Err("no replica answers".to_owned());
    };
    if others.is_empty() {
        return right("there is one replica");
    }
    let mut compared = 0;
    for talk in &first.talks {
        let question = &talk.question;
        let Ok(mine) = first.answer(question) else { continue };
        if !is_compared(facts, question) {
            continue;
        }
        compared += 1;
        for other in others {
            let Ok(its) = other.answer(question) else { continue };
            if (mine.rcode, mine.addresses()) == (its.rcode, its.addresses()) {
                continue;
            }
            return wrong(
                format!("{question}: {} and {}", said(mine), said(its)),
                differ(facts, (first, other), question),
            );
        }
    }
    right(format!("{} replicas agree about {compared} names", alive.len()))
}

/// Addresses of names in the cluster; those of random names and of names outside may differ.
fn is_compared(facts: &Facts, question: &Question) -> bool {
    let is_address = matches!(question.rtype, RecordType::A | RecordType::AAAA);
    is_address && bare(&question.name).to_lowercase().ends_with(&facts.subject.domain)
}

/// The name of a Service as programs write it. Every other name is returned whole.
fn short<'a>(facts: &Facts, question: &'a Question) -> &'a str {
    let name = bare(&question.name);
    name.strip_suffix(&format!(".svc.{}", facts.subject.domain)).unwrap_or(name)
}

fn differ(facts: &Facts, (first, other): (&Server, &Server), question: &Question) -> String {
    let name = short(facts, question);
    let zone = Question::new(&facts.subject.domain, RecordType::SOA);
    let serial = |server: &Server| {
        let data = server.answer(&zone).ok()?.data(RecordType::SOA).first()?.to_string();
        data.split(' ').nth(2)?.parse::<u32>().ok()
    };
    let (mine, its) = (serial(first), serial(other));
    let serials = match (mine, its) {
        (Some(mine), Some(its)) => format!(" (serial {mine} and {its})"),
        _ => String::new(),
    };
    // The serial of kubedns and of CoreDNS is a time in seconds.
    let lag = match (mine, its) {
        (Some(mine), Some(its)) if mine < its => {
            format!("the first one lags {} s behind", its - mine)
        }
        (Some(mine), Some(its)) if mine > its => {
            format!("the second one lags {} s behind", mine - its)
        }
        _ => "see the watches of both".to_owned(),
    };
    format!(
        "Pods {} and {} return different addresses for {name}{serials}; {lag}. Restart the one \
         that is behind.",
        first.shown(),
        other.shown()
    )
}

/// A cache between the clients and the replicas must not have another truth.
pub fn fronted(facts: &Facts) -> Judged {
    let server = facts.working()?;
    let replicas = facts.replicas()?;
    let alive: Vec<&Server> = replicas.iter().filter(|server| server.answers_udp()).collect();
    if replicas.iter().any(|replica| replica.address == server.address) {
        return right("the server is a replica itself");
    }
    let mut compared = 0;
    for talk in server.talks.iter().filter(|talk| is_compared(facts, &talk.question)) {
        let question = &talk.question;
        let Ok(mine) = server.answer(question) else { continue };
        let truths: Vec<_> =
            alive.iter().filter_map(|replica| replica.answer(question).ok()).collect();
        if truths.is_empty() {
            continue;
        }
        compared += 1;
        if truths.iter().any(|truth| truth.addresses() == mine.addresses()) {
            continue;
        }
        let left = mine.records.first().map_or(0, |row| row.ttl);
        return warning(
            format!("{question}: {} here, {} there", said(mine), said(truths[0])),
            format!(
                "The node-local cache {} returns {} for {} with {left} s left, the server returns \
                 {}. Lower its TTL, or use a cache that follows the changes of kubedns.",
                server.shown(),
                said(mine),
                short(facts, question),
                said(truths[0])
            ),
        );
    }
    match compared {
        0 => Err("no name to compare".to_owned()),
        count => right(format!("{count} names have the same addresses as at the replicas")),
    }
}
