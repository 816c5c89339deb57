//! Whether names outside the cluster resolve, and at what cost.
//!
//! Core. Facts in, finding out.

use hickory_proto::rr::RecordType;
use shared::wire::rcode::{NXDOMAIN, SERVFAIL};

use super::{Judged, right, warning, wrong};
use crate::check::facts::{Facts, known};

pub fn a(facts: &Facts) -> Judged {
    let server = facts.alive()?;
    let question = facts.subject.outside(RecordType::A);
    let answer = match server.answer(&question) {
        Ok(answer) => answer,
        Err(reason) => {
            return wrong(format!("{question}: {reason}"), no_answer(facts, &reason));
        }
    };
    match (answer.rcode, answer.addresses().first()) {
        (0, Some(address)) => right(format!("{question} is {address}")),
        (0 | NXDOMAIN, _) => warning(
            format!("{question}: {}", answer.status()),
            format!(
                "The outside name {} has no address according to the server; name one that exists \
                 with --outside.",
                facts.subject.outside
            ),
        ),
        _ => wrong(format!("{question}: {}", answer.status()), no_answer(facts, &answer.status())),
    }
}

/// What is wrong if outside names get no answer.
fn no_answer(facts: &Facts, reason: &str) -> String {
    match facts.upstreams() {
        Ok(all) if all.iter().all(|server| !server.answers()) => {
            "No upstream answers; outside names resolve only from stale cache entries, cluster \
             names are not affected. Check the upstreams and the way from this pod to them."
                .to_owned()
        }
        Ok(_) => format!(
            "The upstreams answer, but outside names get no answer through this server ({reason}); \
             see the checks of the upstreams."
        ),
        Err(_) => format!("Outside names do not resolve ({reason}); check the upstreams."),
    }
}

pub fn aaaa(facts: &Facts) -> Judged {
    let server = facts.outward()?;
    let question = facts.subject.outside(RecordType::AAAA);
    let answer = match server.answer(&question) {
        Ok(answer) => answer,
        Err(reason) => {
            return wrong(
                format!("{question}: {reason}"),
                format!(
                    "A is answered for {} but AAAA is not: clients ask for both and wait for \
                     both. A firewall or an upstream drops AAAA queries; use --filter-aaaa if the \
                     cluster has no IPv6.",
                    facts.subject.outside
                ),
            );
        }
    };
    match answer.rcode {
        0 => right(match answer.data(RecordType::AAAA).first() {
            Some(address) => format!("{question} is {address}"),
            None => format!("{question}: no record"),
        }),
        SERVFAIL => wrong(
            format!("{question}: {}", answer.status()),
            format!(
                "The upstream answers A for {} and SERVFAIL for AAAA; glibc then fails the whole \
                 lookup. Use another upstream, or --filter-aaaa.",
                facts.subject.outside
            ),
        ),
        _ => warning(
            format!("{question}: {}", answer.status()),
            format!(
                "A is answered for {} and AAAA gets an error, so some clients fail the lookup.",
                facts.subject.outside
            ),
        ),
    }
}

/// A name that does not exist must not have an address.
pub fn missing(facts: &Facts) -> Judged {
    let server = facts.outward()?;
    let question = facts.subject.missing_outside();
    let answer = server.answer(&question)?;
    match (answer.rcode, answer.addresses().first()) {
        (NXDOMAIN, _) => right("NXDOMAIN"),
        (0, Some(address)) => wrong(
            format!("{question} is {address}"),
            format!(
                "The upstream answers names that do not exist with {address} in place of \
                 NXDOMAIN, so the search list of pods ends at the wrong host; use an upstream that \
                 does not rewrite answers."
            ),
        ),
        _ => warning(
            format!("{question}: {}", answer.status()),
            "A name that does not exist gets no NXDOMAIN, so each mistyped name costs the whole \
             timeout of the client.",
        ),
    }
}

/// How much of the traffic is the search list.
pub fn cost(facts: &Facts) -> Judged {
    let figures = &known(&facts.dnscache)?.figures;
    let denied = figures.sum("dnscache_dns_replies_total", &[("rcode", "NXDOMAIN")]);
    let all = figures.sum("dnscache_dns_replies_total", &[]);
    if all < QUERIES_MIN {
        return right(format!("only {all} answers so far"));
    }
    let share = denied * 100.0 / all;
    let seen = format!("{share:.0} % of {all} answers are NXDOMAIN");
    if share < NXDOMAIN_SHARE_MAX {
        return right(seen);
    }
    let ndots = facts.resolv.as_ref().map_or(5, |resolv| resolv.ndots.max(5));
    let queries = 2 * (search_domains(facts) + 1);
    warning(
        seen,
        format!(
            "Each lookup of {} costs {queries} queries, because ndots is {ndots}; {share:.0} % of \
             all answers are NXDOMAIN. Write names with a final dot, set ndots to 2, or start \
             dnscache with --autopath.",
            facts.subject.outside
        ),
    )
}

/// How many domains the search list of a pod has.
fn search_domains(facts: &Facts) -> usize {
    let listed = facts.resolv.as_ref().map_or(0, |resolv| {
        match resolv.cluster_domains(&facts.subject.domain).is_empty() {
            true => 0,
            false => resolv.search.len(),
        }
    });
    listed.max(3)
}

/// Fewer answers prove nothing about the traffic.
const QUERIES_MIN: f64 = 1_000.0;
/// More than this share of denials, in percent, is the work of search lists.
const NXDOMAIN_SHARE_MAX: f64 = 60.0;
