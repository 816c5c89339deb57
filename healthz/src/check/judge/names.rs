//! Whether names of the cluster are answered as the Kubernetes DNS specification has it.
//!
//! Core. Facts in, finding out.

use std::net::IpAddr;

use hickory_proto::rr::RecordType;
use shared::wire::rcode::NXDOMAIN;

use super::{Judged, listed, right, warning, wrong};
use crate::check::cluster::{Service, Slice};
use crate::check::facts::{Facts, Subject, known};
use crate::check::talk::{Answer, Question, bare};

pub fn a(facts: &Facts) -> Judged {
    let server = facts.alive()?;
    let question = facts.subject.kubernetes();
    let answer = server.answer(&question)?;
    let domain = &facts.subject.domain;
    match (answer.rcode, answer.addresses().first()) {
        (0, Some(address)) => right(format!("{question} is {address}")),
        // A cluster of IPv6 alone has no A record; the check AAAA judges that.
        (0, None) => right(format!("{question}: no A record")),
        (NXDOMAIN, _) => wrong(
            format!("{question} does not exist"),
            format!(
                "The server does not know the cluster domain {domain}; name the right one with \
                 --domain, or route {domain} to kubedns."
            ),
        ),
        _ => wrong(
            format!("{question}: {}", answer.status()),
            format!(
                "No name of the cluster resolves: {}. See the checks of the programs; if kubedns \
                 has not listed the cluster, it answers SERVFAIL.",
                answer.status()
            ),
        ),
    }
}

pub fn aaaa(facts: &Facts) -> Judged {
    let server = facts.working()?;
    let question = facts.subject.inside("kubernetes.default.svc", RecordType::AAAA);
    let answer = server.answer(&question)?;
    match answer.rcode {
        0 => right(match answer.addresses().first() {
            Some(address) => format!("{question} is {address}"),
            None => "no record, which is right for a Service with IPv4 alone".to_owned(),
        }),
        _ => wrong(
            format!("{question}: {}", answer.status()),
            "AAAA of a Service must be answered with NOERROR, with or without records; glibc and \
             musl fail the whole lookup otherwise.",
        ),
    }
}

pub fn srv(facts: &Facts) -> Judged {
    let server = facts.working()?;
    let question = facts.subject.inside("_https._tcp.kubernetes.default.svc", RecordType::SRV);
    let answer = server.answer(&question)?;
    match answer.data(RecordType::SRV).first() {
        Some(data) => right(format!("{question} is {data}")),
        None => wrong(
            format!("{question}: {}", answer.status()),
            "The named port https of the Service kubernetes has no SRV record; the server does \
             not follow the DNS specification of Kubernetes.",
        ),
    }
}

pub fn soa(facts: &Facts) -> Judged {
    let question = Question::new(&facts.subject.domain, RecordType::SOA);
    let answer = facts.working()?.answer(&question)?;
    match answer.data(RecordType::SOA).first() {
        Some(data) => {
            let serial = data.split(' ').nth(2).unwrap_or("unknown");
            right(format!("serial {serial}"))
        }
        None => warning(
            format!("{question}: {}", answer.status()),
            "The zone has no SOA record at its apex, so negative answers cannot be cached.",
        ),
    }
}

pub fn ns(facts: &Facts) -> Judged {
    let question = Question::new(&facts.subject.domain, RecordType::NS);
    let answer = facts.working()?.answer(&question)?;
    match answer.rcode {
        0 => right(answer.data(RecordType::NS).first().map_or("no record", |data| data).to_owned()),
        _ => warning(
            format!("{question}: {}", answer.status()),
            "The apex of the zone exists, so every type must be answered with NOERROR.",
        ),
    }
}

pub fn schema(facts: &Facts) -> Judged {
    let question = facts.subject.inside("dns-version", RecordType::TXT);
    let answer = facts.working()?.answer(&question)?;
    match answer.data(RecordType::TXT).first() {
        Some(version) => right(format!("{question} is {version}")),
        None => warning(
            format!("{question}: {}", answer.status()),
            "The server does not publish the version of the DNS specification that it follows.",
        ),
    }
}

pub fn missing(facts: &Facts) -> Judged {
    let question = facts.subject.missing_inside();
    let answer = facts.working()?.answer(&question)?;
    match (answer.rcode, answer.has_soa) {
        (NXDOMAIN, true) => right("NXDOMAIN with the SOA of the zone"),
        (NXDOMAIN, false) => warning(
            "NXDOMAIN without a SOA record",
            "Negative answers have no SOA record, so clients and caches ask for the same missing \
             name again and again.",
        ),
        (0, _) => wrong(
            format!("{question}: {}", answer.status()),
            "A name that no object has is answered as if it existed, so the search list ends at \
             the wrong step; remove the wildcard or the rewrite.",
        ),
        _ => wrong(
            format!("{question}: {}", answer.status()),
            "A missing name of the cluster must get NXDOMAIN; after another error musl gives up \
             and glibc fails in the end.",
        ),
    }
}

pub fn missing_type(facts: &Facts) -> Judged {
    let question = facts.subject.inside("kubernetes.default.svc", RecordType::TXT);
    let answer = facts.working()?.answer(&question)?;
    match answer.rcode {
        0 => right("NODATA"),
        NXDOMAIN => wrong(
            format!("{question} does not exist, but A does"),
            "A name with records of another type must get NODATA; after NXDOMAIN for AAAA clients \
             do not use the A record (RFC 8020).",
        ),
        _ => wrong(
            format!("{question}: {}", answer.status()),
            "A type without records must get NODATA.",
        ),
    }
}

pub fn letter_case(facts: &Facts) -> Judged {
    let question = mixed(&facts.subject);
    let answer = facts.working()?.answer(&question)?;
    match answer.rcode {
        0 => right("names in any case are the same name"),
        _ => wrong(
            format!("{question}: {}", answer.status()),
            "The server does not treat upper and lower case alike (RFC 4343), and resolvers that \
             vary the case get no answer.",
        ),
    }
}

/// The name that every cluster has, in letters of both cases.
pub fn mixed(subject: &Subject) -> Question {
    subject.inside("kUBERNETES.Default.sVc", RecordType::A)
}

/// Each step of the search list gets an answer that lets the walk go on or end.
pub fn search_path(facts: &Facts) -> Judged {
    let resolv = known(&facts.resolv)?;
    if facts.is_dns_pod {
        return Err("this is the pod of the DNS, which has no search list".to_owned());
    }
    if resolv.cluster_domains(&facts.subject.domain).is_empty() {
        return Err("the search list has no domain of the cluster".to_owned());
    }
    let server = facts.working()?;
    let mut steps = 0;
    for name in resolv.walk("kubernetes.default") {
        steps += 1;
        let answer = server.answer(&Question::new(&name, RecordType::A));
        match answer {
            Ok(answer) if answer.rcode == 0 && !answer.records.is_empty() => {
                return right(format!(
                    "kubernetes.default resolves at step {steps} as {}",
                    bare(&name)
                ));
            }
            Ok(answer) if matches!(answer.rcode, 0 | NXDOMAIN) => {}
            Ok(answer) => {
                return wrong(
                    format!("{}: {}", bare(&name), answer.status()),
                    format!(
                        "The search list fails at {}, which gets {}: musl gives up there, and \
                         glibc reports a failure in the end.",
                        bare(&name),
                        answer.status()
                    ),
                );
            }
            Err(reason) => return Err(format!("{}: {reason}", bare(&name))),
        }
    }
    wrong(
        format!("kubernetes.default does not resolve in {steps} steps"),
        "The short name kubernetes.default does not resolve with the search list of this pod; \
         correct clusterDomain of the kubelet.",
    )
}

pub fn reverse(facts: &Facts) -> Judged {
    let server = facts.working()?;
    let answer = server.answer(&facts.subject.kubernetes())?;
    let Some(address) = answer.addresses().first().copied() else {
        return Err("the Service kubernetes has no address".to_owned());
    };
    let question = Subject::reverse(address);
    let answer = server.answer(&question)?;
    match answer.data(RecordType::PTR).first() {
        Some(name) => right(format!("{address} is {}", bare(name))),
        None => warning(
            format!("{question}: {}", answer.status()),
            format!(
                "The address {address} of a Service has no reverse name; route the reverse zones \
                 of Service and Pod addresses to kubedns."
            ),
        ),
    }
}

/// What the server answers is what the API server has.
pub fn truth(facts: &Facts) -> Judged {
    let cluster = known(&facts.cluster)?;
    let services = known(&cluster.services)?;
    let server = facts.working()?;
    let mut compared = 0;
    for service in services.iter().filter(|service| !service.addresses.is_empty()) {
        let question = facts.subject.of(service);
        let Ok(answer) = server.answer(&question) else { continue };
        compared += 1;
        let expected = of_type(&service.addresses, question.rtype);
        if answer.addresses() != expected {
            let shown = said(answer);
            let left = answer.records.first().map_or(0, |row| row.ttl);
            return wrong(
                format!("{question} is {shown}, the Service has {}", listed(&expected)),
                format!(
                    "{} returns {shown} for {} with {left} s left, but the API server has {}; the \
                     answer is stale. Restart that pod and see its watches.",
                    server.shown(),
                    service.short(),
                    listed(&expected)
                ),
            );
        }
    }
    let slices = cluster.slices.as_deref().unwrap_or_default();
    for service in services.iter().filter(|service| service.is_headless) {
        let Some(expected) = published(service, slices) else { continue };
        let Ok(answer) = server.answer(&facts.subject.of(service)) else { continue };
        compared += 1;
        let got = answer.addresses();
        if !got.iter().any(|address| expected.contains(address)) {
            return wrong(
                format!("{} is {}", service.short(), said(answer)),
                format!(
                    "{} returns {} for the headless Service {}, but its endpoints are {}; the \
                     answer is stale.",
                    server.shown(),
                    said(answer),
                    service.path(),
                    listed(&expected)
                ),
            );
        }
    }
    match compared {
        0 => Err("no Service to compare".to_owned()),
        count => right(format!("{count} Services have the addresses that the API server has")),
    }
}

/// The addresses of a headless Service that must be in its answer; `None` if there is none.
fn published(service: &Service, slices: &[Slice]) -> Option<Vec<IpAddr>> {
    let is_expected = |(address, is_ready): &&(IpAddr, bool)| *is_ready && address.is_ipv4();
    let those = service.endpoints(slices).filter(is_expected);
    let those: Vec<IpAddr> = those.map(|(address, _)| *address).collect();
    (!those.is_empty()).then_some(those)
}

fn of_type(addresses: &[IpAddr], rtype: RecordType) -> Vec<IpAddr> {
    let fits = |address: &&IpAddr| address.is_ipv4() == (rtype == RecordType::A);
    let mut those: Vec<IpAddr> = addresses.iter().filter(fits).copied().collect();
    those.sort_unstable();
    those
}

/// The addresses of an answer, or its status.
pub fn said(answer: &Answer) -> String {
    match answer.addresses().as_slice() {
        [] => answer.status(),
        addresses => listed(addresses),
    }
}

/// dnscache answers as the kubedns of the same pod does.
pub fn cache(facts: &Facts) -> Judged {
    let server = facts.working()?;
    let kubedns = known(&facts.kubedns_server)?;
    let mut compared = 0;
    for talk in kubedns.talks.iter().filter(|talk| talk.result.is_ok()) {
        let question = &talk.question;
        let is_address = matches!(question.rtype, RecordType::A | RecordType::AAAA);
        let (Ok(truth), Ok(cached)) = (kubedns.answer(question), server.answer(question)) else {
            continue;
        };
        if !is_address || truth.rcode != 0 || truth.addresses().is_empty() {
            continue;
        }
        compared += 1;
        if truth.addresses() != cached.addresses() {
            let left = cached.records.first().map_or(0, |row| row.ttl);
            return wrong(
                format!("{question} is {} in the cache", said(cached)),
                format!(
                    "The cache returns {} for {} with {left} s left, kubedns returns {}; see the \
                     check of the change stream, and restart dnscache to empty the cache.",
                    said(cached),
                    bare(&question.name),
                    said(truth)
                ),
            );
        }
    }
    match compared {
        0 => Err("kubedns does not answer".to_owned()),
        count => right(format!("{count} names have the same addresses in both")),
    }
}
