//! Everything that was found out, before anything is judged.
//!
//! Core. Plain values; each has the reason if it is not known.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::rr::RecordType;

use super::cluster::{Cluster, Known, Service};
use super::kernel::Kernel;
use super::resolv::Resolv;
use super::talk::{Over, Question, Server};
use crate::figures::Pages;

/// What the judges look at.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What was to be checked.
    pub subject: Subject,
    /// `/etc/resolv.conf`.
    pub resolv: Known<Resolv>,
    /// A program of the DNS answers on this machine, so that this is its pod.
    pub is_dns_pod: bool,
    /// The servers that clients ask.
    pub servers: Vec<Server>,
    /// The servers behind the address of the Service.
    pub replicas: Known<Vec<Server>>,
    /// The kubedns of this pod.
    pub kubedns_server: Known<Server>,
    /// The servers that outside names are asked of.
    pub upstreams: Known<Vec<Server>>,
    /// The servers of single domains.
    pub stubs: Vec<Stub>,
    /// The pages of dnscache.
    pub dnscache: Known<Pages>,
    /// The pages of kubedns.
    pub kubedns: Known<Pages>,
    /// Objects of the API server.
    pub cluster: Known<Cluster>,
    /// The kernel's figures at the start.
    pub before: Kernel,
    /// The same at the end.
    pub after: Kernel,
    /// The time between both.
    pub span: Duration,
}

/// A domain that is forwarded to a server of its own.
#[derive(Clone, Debug)]
pub struct Stub {
    /// The domain.
    pub domain: String,
    /// Its server.
    pub server: Server,
}

/// What is checked, and with which names.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The cluster domain, without dots at its ends.
    pub domain: String,
    /// Namespace and name of the Service of the DNS.
    pub service: (String, String),
    /// A name outside the cluster that exists.
    pub outside: String,
    /// A name that has a large answer.
    pub large: Question,
    /// A label that no name has.
    pub fresh: String,
    /// The namespace that this program runs in.
    pub namespace: Option<String>,
    /// How long a question may wait for its answer.
    pub timeout: Duration,
    /// The version of this program.
    pub version: &'static str,
}

impl Subject {
    /// A name in the cluster domain as a question.
    pub fn inside(&self, prefix: &str, rtype: RecordType) -> Question {
        Question::new(&format!("{prefix}.{}", self.domain), rtype)
    }

    /// The name that every cluster has.
    pub fn kubernetes(&self) -> Question {
        self.inside("kubernetes.default.svc", RecordType::A)
    }

    /// The name outside the cluster.
    pub fn outside(&self, rtype: RecordType) -> Question {
        Question::new(&self.outside, rtype)
    }

    /// A name outside the cluster that does not exist.
    pub fn missing_outside(&self) -> Question {
        Question::new(&format!("{}.com", self.fresh), RecordType::A)
    }

    /// A name of the cluster that does not exist.
    pub fn missing_inside(&self) -> Question {
        self.inside(&format!("{}.default.svc", self.fresh), RecordType::A)
    }

    /// The reverse name of an address.
    pub fn reverse(address: IpAddr) -> Question {
        let name = hickory_proto::rr::Name::from(address);
        Question::new(&name.to_ascii(), RecordType::PTR)
    }

    /// The name of a Service as a question.
    pub fn of(&self, service: &Service) -> Question {
        let rtype = match service.addresses.iter().any(IpAddr::is_ipv4) {
            true => RecordType::A,
            false if service.addresses.is_empty() => RecordType::A,
            false => RecordType::AAAA,
        };
        self.inside(&format!("{}.svc", service.short()), rtype)
    }
}

impl Facts {
    /// The first server that clients ask.
    pub fn server(&self) -> Known<&Server> {
        self.servers.first().ok_or_else(|| "no DNS server is known".to_owned())
    }

    /// The first server, if it answers at all.
    pub fn alive(&self) -> Known<&Server> {
        let server = self.server()?;
        if server.answers() {
            return Ok(server);
        }
        Err(format!("{} does not answer", server.shown()))
    }

    /// The first server, if the name that every cluster has resolves there.
    pub fn working(&self) -> Known<&Server> {
        let server = self.alive()?;
        match server.answer(&self.subject.kubernetes()) {
            Ok(answer) if answer.rcode == 0 => Ok(server),
            Ok(answer) => Err(format!("{} answers {}", server.shown(), answer.status())),
            Err(reason) => Err(format!("{}: {reason}", server.shown())),
        }
    }

    /// The first server, if outside names resolve there.
    pub fn outward(&self) -> Known<&Server> {
        let server = self.alive()?;
        let question = self.subject.outside(RecordType::A);
        match server.answer(&question) {
            Ok(answer) if answer.rcode == 0 => Ok(server),
            Ok(answer) => Err(format!("{question} gets {}", answer.status())),
            Err(reason) => Err(format!("{question}: {reason}")),
        }
    }

    /// The Service of the DNS.
    pub fn dns_service(&self) -> Known<&Service> {
        let (namespace, name) = &self.subject.service;
        let service = known(&known(&self.cluster)?.dns)?;
        service.as_ref().ok_or_else(|| format!("there is no Service {namespace}/{name}"))
    }

    /// The replicas.
    pub fn replicas(&self) -> Known<&[Server]> {
        match known(&self.replicas)?.as_slice() {
            [] => Err("no replica is known".to_owned()),
            replicas => Ok(replicas),
        }
    }

    /// The upstreams.
    pub fn upstreams(&self) -> Known<&[Server]> {
        match known(&self.upstreams)?.as_slice() {
            [] => Err("no upstream is known".to_owned()),
            upstreams => Ok(upstreams),
        }
    }

    /// The upstreams that answer over UDP.
    pub fn live_upstreams(&self) -> Known<Vec<&Server>> {
        let alive: Vec<&Server> =
            self.upstreams()?.iter().filter(|server| server.answers_udp()).collect();
        if alive.is_empty() { Err("no upstream answers".to_owned()) } else { Ok(alive) }
    }
}

/// The value, or a copy of the reason.
pub fn known<T>(value: &Known<T>) -> Known<&T> {
    value.as_ref().map_err(Clone::clone)
}

/// How many tries of `question` got a reply, and how many there were.
pub fn replied(server: &Server, question: &Question, over: Over) -> (usize, usize) {
    let tries = server.tries(question, over);
    (tries.iter().filter(|talk| talk.result.is_ok()).count(), tries.len())
}

/// The value in the middle; zero if there is none.
pub fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
