//! Which questions each server gets.
//!
//! Core. The judges look for the answers to these questions.

use hickory_proto::rr::RecordType;

use super::cluster::Service;
use super::facts::Subject;
use super::judge::mixed;
use super::resolv::Resolv;
use super::talk::{Over, Question};

/// A question to be asked.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is asked.
    pub question: Question,
    /// How.
    pub over: Over,
    /// One of several, of which each lost one counts; others are sent again after a second.
    pub is_sample: bool,
}

/// A question that is not one of several samples.
pub fn once(question: Question, over: Over) -> Ask {
    Ask { question, over, is_sample: false }
}

fn samples(question: &Question, over: Over, count: usize) -> impl Iterator<Item = Ask> + use<> {
    let ask = Ask { question: question.clone(), over, is_sample: over != Over::Tcp };
    std::iter::repeat_n(ask, count)
}

/// For a server that clients ask; `names` are names of the cluster.
pub fn server(subject: &Subject, resolv: Option<&Resolv>, names: &[Question]) -> Vec<Ask> {
    let kubernetes = subject.kubernetes();
    let mut asks: Vec<Ask> = samples(&kubernetes, Over::Udp, SERVER_SAMPLES).collect();
    asks.extend(samples(&kubernetes, Over::Tcp, TCP_TRIES));
    asks.push(once(kubernetes, Over::Plain));
    let mut over_udp = vec![
        subject.inside("kubernetes.default.svc", RecordType::AAAA),
        subject.inside("kubernetes.default.svc", RecordType::TXT),
        subject.inside("_https._tcp.kubernetes.default.svc", RecordType::SRV),
        Question::new(&subject.domain, RecordType::SOA),
        Question::new(&subject.domain, RecordType::NS),
        subject.inside("dns-version", RecordType::TXT),
        subject.missing_inside(),
        mixed(subject),
        subject.outside(RecordType::A),
        subject.outside(RecordType::AAAA),
        subject.missing_outside(),
    ];
    if let Some(resolv) = resolv {
        let domain =
            |domain: &String| Question::new(&format!("{}.{domain}", subject.fresh), RecordType::A);
        over_udp.extend(resolv.search.iter().map(domain));
        let step = |name: String| Question::new(&name, RecordType::A);
        over_udp.extend(resolv.walk("kubernetes.default").into_iter().map(step));
    }
    over_udp.extend(names.iter().cloned());
    dedup(&mut over_udp);
    asks.extend(over_udp.into_iter().map(|question| once(question, Over::Udp)));
    asks.extend(large(subject));
    asks
}

/// For a replica, and for the kubedns behind a cache.
pub fn replica(subject: &Subject, names: &[Question]) -> Vec<Ask> {
    let kubernetes = subject.kubernetes();
    let mut asks: Vec<Ask> = samples(&kubernetes, Over::Udp, REPLICA_SAMPLES).collect();
    asks.extend(samples(&kubernetes, Over::Tcp, TCP_TRIES));
    asks.push(once(Question::new(&subject.domain, RecordType::SOA), Over::Udp));
    asks.extend(names.iter().map(|name| once(name.clone(), Over::Udp)));
    asks
}

/// For a server that outside names are asked of.
pub fn upstream(subject: &Subject) -> Vec<Ask> {
    let outside = subject.outside(RecordType::A);
    let mut asks: Vec<Ask> = samples(&outside, Over::Udp, UPSTREAM_SAMPLES).collect();
    asks.extend(samples(&outside, Over::Tcp, TCP_TRIES));
    asks.push(once(subject.outside(RecordType::AAAA), Over::Udp));
    asks.push(once(subject.kubernetes(), Over::Udp));
    asks.extend(large(subject));
    asks
}

/// For the server of one domain.
pub fn stub(domain: &str) -> Vec<Ask> {
    let question = Question::new(domain, RecordType::SOA);
    let mut asks: Vec<Ask> = samples(&question, Over::Udp, REPLICA_SAMPLES).collect();
    asks.push(once(question, Over::Tcp));
    asks
}

/// The large answer: with the size that is safe, with a size that needs fragments, and over TCP.
fn large(subject: &Subject) -> impl Iterator<Item = Ask> + use<> {
    let question = subject.large.clone();
    [Over::Udp, Over::Large, Over::Tcp].into_iter().map(move |over| once(question.clone(), over))
}

/// Some names of the cluster to compare, those of Services with addresses first.
pub fn names(subject: &Subject, services: &[Service]) -> Vec<Question> {
    let with_address = services.iter().filter(|service| !service.addresses.is_empty());
    let headless = services.iter().filter(|service| service.is_headless);
    let picked = with_address.take(NAMES_MAX).chain(headless.take(HEADLESS_MAX));
    let mut names: Vec<Question> = picked.map(|service| subject.of(service)).collect();
    let (namespace, name) = &subject.service;
    names.push(subject.inside(&format!("{name}.{namespace}.svc"), RecordType::A));
    dedup(&mut names);
    names
}

/// For a server that clients ask: the targets of aliases.
pub fn targets(services: &[Service]) -> impl Iterator<Item = Ask> {
    let targets = services.iter().filter_map(|service| service.external_name.as_deref());
    let is_name = |target: &&str| target.parse::<std::net::IpAddr>().is_err();
    let ask = |target: &str| once(Question::new(target, RecordType::A), Over::Udp);
    targets.filter(is_name).take(TARGETS_MAX).map(ask)
}

fn dedup(questions: &mut Vec<Question>) {
    let mut kept: Vec<Question> = Vec::with_capacity(questions.len());
    for question in questions.drain(..) {
        if !kept.contains(&question) {
            kept.push(question);
        }
    }
    *questions = kept;
}

/// Enough to see that one of two replicas behind one address is dead.
const SERVER_SAMPLES: usize = 12;
/// Enough to tell a lossy path from one lost datagram.
const UPSTREAM_SAMPLES: usize = 20;
const REPLICA_SAMPLES: usize = 3;
const TCP_TRIES: usize = 2;
/// Names of Services that are compared with the API server and among replicas.
const NAMES_MAX: usize = 20;
const HEADLESS_MAX: usize = 5;
const TARGETS_MAX: usize = 8;
