//! Facts from everywhere: files, HTTP pages, the API server, and DNS questions to every server.
//!
//! Edge. Three rounds: what is known without DNS, then all questions at once, then the questions
//! that follow from the answers.

mod account;
mod api;
pub(crate) mod dns;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use shared::clock::boot_time;
use tokio::task::JoinSet;

use super::Options;
use super::cluster::{Cluster, Known, Service};
use super::facts::{Facts, Stub, Subject};
use super::kernel::Kernel;
use super::plan::{self, Ask};
use super::resolv::Resolv;
use super::talk::{Over, Question, Server};
use crate::web::pages;

/// Finds out all that can be found out within a few times `options.timeout`.
pub async fn gather(options: &Options) -> Facts {
    let start = boot_time();
    let before = kernel(options);
    let namespace = options.namespace.clone().or_else(account::namespace);
    let subject = subject(options, namespace.clone());
    let resolv = std::fs::read_to_string(&options.resolv_file)
        .map(|text| Resolv::read(&text))
        .map_err(|error| format!("cannot read {}: {error}", options.resolv_file.display()));
    let (dnscache, kubedns, cluster) = tokio::join!(
        pages(options.dnscache, options.timeout),
        pages(options.kubedns, options.timeout),
        cluster(options, &subject),
    );
    let is_dns_pod = dnscache.is_ok() || kubedns.is_ok();
    let mut facts = Facts {
        subject,
        resolv,
        is_dns_pod,
        servers: Vec::new(),
        replicas: replicas(options, &cluster).map(|all| all.into_iter().map(unasked).collect()),
        kubedns_server: kubedns.clone().map(|_| unasked(options.kubedns_dns)),
        upstreams: Ok(Vec::new()),
        stubs: stubs(options),
        dnscache,
        kubedns,
        cluster,
        before,
        after: Kernel::default(),
        span: Duration::ZERO,
    };
    facts.servers = servers(options, &facts).into_iter().map(unasked).collect();
    facts.upstreams = upstreams(options, &facts).map(|all| all.into_iter().map(unasked).collect());
    ask(&mut facts).await;
    ask_reverse(&mut facts).await;
    tokio::time::sleep(SPAN_MIN.saturating_sub(boot_time().since(start))).await;
    facts.after = kernel(options);
    facts.span = boot_time().since(start);
    facts
}

fn subject(options: &Options, namespace: Option<String>) -> Subject {
    Subject {
        domain: options.domain.clone(),
        service: options.service.clone(),
        outside: options.outside.clone(),
        large: options.large.clone(),
        fresh: format!("healthz-check-{:08x}", rand::random::<u32>()),
        namespace,
        timeout: options.timeout,
        version: env!("CARGO_PKG_VERSION"),
    }
}

fn unasked(address: SocketAddr) -> Server {
    Server { address, talks: Vec::new() }
}

fn kernel(options: &Options) -> Kernel {
    Kernel::read(|path| std::fs::read_to_string(options.root.join(path)).ok())
}

async fn cluster(options: &Options, subject: &Subject) -> Known<Cluster> {
    let origin = account::origin(options)?;
    api::gather(&origin, &options.service, subject.namespace.as_deref(), options.timeout).await
}

/// The servers that clients ask.
fn servers(options: &Options, facts: &Facts) -> Vec<SocketAddr> {
    if !options.servers.is_empty() {
        return options.servers.clone();
    }
    let of_file = facts.resolv.as_ref().map(|resolv| resolv.nameservers.clone());
    match facts.is_dns_pod {
        true => vec![SocketAddr::from(([127, 0, 0, 1], DNS_PORT))],
        false => of_file.unwrap_or_default(),
    }
}

fn replicas(options: &Options, cluster: &Known<Cluster>) -> Known<Vec<SocketAddr>> {
    if !options.replicas.is_empty() {
        return Ok(options.replicas.clone());
    }
    let slices =
        cluster.as_ref().map_err(Clone::clone)?.dns_slices.as_ref().map_err(Clone::clone)?;
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let mut ready: Vec<IpAddr> =
        endpoints.filter(|(_, is_ready)| *is_ready).map(|(address, _)| *address).collect();
    ready.sort_unstable();
    ready.dedup();
    Ok(ready.into_iter().take(REPLICAS_MAX).map(|ip| SocketAddr::new(ip, DNS_PORT)).collect())
}

/// The servers that dnscache asks, without kubedns and without those of single domains.
fn upstreams(options: &Options, facts: &Facts) -> Known<Vec<SocketAddr>> {
    if !options.upstreams.is_empty() {
        return Ok(options.upstreams.clone());
    }
    let figures = &facts.dnscache.as_ref().map_err(Clone::clone)?.figures;
    let is_other = |address: &SocketAddr| {
        *address != options.kubedns_dns
            && !facts.stubs.iter().any(|stub| stub.server.address == *address)
    };
    let asked = figures.by("dnscache_upstream_up", "server");
    let addresses = asked.filter_map(|(server, _)| server.parse().ok()).filter(is_other);
    Ok(addresses.take(UPSTREAMS_MAX).collect())
}

/// The stub domains of the ConfigMap: `{"corp.example": ["10.0.0.1"]}`.
fn stubs(options: &Options) -> Vec<Stub> {
    let Some(directory) = &options.config_dir else { return Vec::new() };
    let text = std::fs::read_to_string(directory.join("stubDomains")).unwrap_or_default();
    let domains: std::collections::BTreeMap<String, Vec<String>> =
        serde_json::from_str(&text).unwrap_or_default();
    let mut stubs = Vec::new();
    for (domain, servers) in domains {
        for text in servers {
            if let Ok(address) = shared::flags::server_address(&text, DNS_PORT) {
                stubs.push(Stub { domain: domain.clone(), server: unasked(address) });
            }
        }
    }
    stubs.truncate(UPSTREAMS_MAX);
    stubs
}

/// Where the answers of a server belong.
#[derive(Clone, Copy, Debug)]
enum Role {
    Server(usize),
    Replica(usize),
    Kubedns,
    Upstream(usize),
    Stub(usize),
}

/// Asks every server everything, all at the same time.
async fn ask(facts: &mut Facts) {
    let subject = facts.subject.clone();
    let services: &[Service] = match &facts.cluster {
        Ok(cluster) => cluster.services.as_deref().unwrap_or_default(),
        Err(_) => &[],
    };
    let names = plan::names(&subject, services);
    let resolv = facts.resolv.as_ref().ok().filter(|_| !facts.is_dns_pod);
    let mut for_server = plan::server(&subject, resolv, &names);
    let aliases = plan::targets(services).into_iter();
    for_server.extend(aliases.map(|question| Ask { question, over: Over::Udp, is_sample: false }));
    let for_replica = plan::replica(&subject, &names);
    let for_upstream = plan::upstream(&subject);

    let mut asked = JoinSet::new();
    let mut start = |role: Role, server: &Server, asks: Vec<Ask>| {
        let (address, timeout) = (server.address, subject.timeout);
        asked.spawn(async move { (role, dns::ask_all(address, asks, timeout).await) });
    };
    for (index, server) in facts.servers.iter().enumerate() {
        start(Role::Server(index), server, for_server.clone());
    }
    for (index, server) in facts.replicas.iter().flatten().enumerate() {
        start(Role::Replica(index), server, for_replica.clone());
    }
    if let Ok(server) = &facts.kubedns_server {
        start(Role::Kubedns, server, for_replica.clone());
    }
    for (index, server) in facts.upstreams.iter().flatten().enumerate() {
        start(Role::Upstream(index), server, for_upstream.clone());
    }
    for (index, stub) in facts.stubs.iter().enumerate() {
        start(Role::Stub(index), &stub.server, plan::stub(&stub.domain));
    }
    for (role, server) in asked.join_all().await {
        keep(facts, role, server);
    }
}

fn keep(facts: &mut Facts, role: Role, server: Server) {
    let in_list = |list: &mut Known<Vec<Server>>, index: usize, server: Server| {
        if let Some(place) = list.as_mut().ok().and_then(|all| all.get_mut(index)) {
            *place = server;
        }
    };
    match role {
        Role::Server(index) => facts.servers[index] = server,
        Role::Replica(index) => in_list(&mut facts.replicas, index, server),
        Role::Kubedns => facts.kubedns_server = Ok(server),
        Role::Upstream(index) => in_list(&mut facts.upstreams, index, server),
        Role::Stub(index) => facts.stubs[index].server = server,
    }
}

/// Asks for the reverse name of the address that every cluster has.
async fn ask_reverse(facts: &mut Facts) {
    let kubernetes = facts.subject.kubernetes();
    let v6 = facts.subject.inside("kubernetes.default.svc", RecordType::AAAA);
    let Some(server) = facts.servers.first_mut() else { return };
    let of = |question: &Question| server.answer(question).ok()?.addresses().first().copied();
    let Some(address) = of(&kubernetes).or_else(|| of(&v6)) else { return };
    let question = Subject::reverse(address);
    let ask = Ask { question, over: Over::Udp, is_sample: false };
    let asked = dns::ask_all(server.address, vec![ask], facts.subject.timeout).await;
    server.talks.extend(asked.talks);
}

/// Counters of the kernel need a moment to grow.
const SPAN_MIN: Duration = Duration::from_millis(1_000);
/// More replicas are not asked: each costs some dozens of queries.
const REPLICAS_MAX: usize = 20;
const UPSTREAMS_MAX: usize = 8;
/// Where DNS is served (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;
