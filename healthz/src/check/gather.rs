//! Facts from everywhere: files, HTTP pages, the API server, and DNS questions to every server.
//!
//! Edge. Three rounds: what is known without DNS, then all questions at once, then the questions
//! that follow from the answers.

mod account;
mod api;
pub(crate) mod dns;

use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use serde_json::Value;
use shared::clock::boot_time;
use tokio::task::JoinSet;

use super::cluster::{Cluster, Known, Service};
use super::facts::{Facts, Stub, Subject, known};
use super::kernel::Kernel;
use super::plan::{self, Ask, once};
use super::resolv::Resolv;
use super::talk::{Over, Question, Server};
use super::{Access, Options, server};
use crate::config::DNS_PORT;
use crate::web::pages;

/// Finds out all that can be found out within a few times `options.timeout`.
pub async fn gather(options: &Options) -> Facts {
    let start = boot_time();
    let before = kernel(options);
    let subject = subject(options);
    let resolv = read(&options.resolv_file).map(|text| Resolv::read(&text));
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

/// The text of a file. Fails with one line.
pub(crate) fn read(file: &Path) -> Known<String> {
    std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))
}

fn subject(options: &Options) -> Subject {
    Subject {
        domain: options.domain.clone(),
        service: options.service.clone(),
        outside: options.outside.clone(),
        large: options.large.clone(),
        fresh: format!("healthz-check-{:08x}", rand::random::<u32>()),
        namespace: options.namespace.clone().or_else(account::namespace),
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

/// Returns the `spec` of a Pod. Fails with one line.
pub(crate) async fn pod_spec(
    access: &Access,
    (namespace, name): (&str, &str),
    patience: Duration,
) -> Known<Value> {
    api::pod_spec(&account::origin(access)?, (namespace, name), patience).await
}

async fn cluster(options: &Options, subject: &Subject) -> Known<Cluster> {
    let origin = account::origin(&options.access)?;
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
    let slices = known(&known(cluster)?.dns_slices)?;
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
    let figures = &known(&facts.dnscache)?.figures;
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
            if let Ok(address) = server(&text) {
                stubs.push(Stub { domain: domain.clone(), server: unasked(address) });
            }
        }
    }
    stubs.truncate(UPSTREAMS_MAX);
    stubs
}

/// Asks every server everything, all at the same time.
async fn ask(facts: &mut Facts) {
    let subject = &facts.subject;
    let services: &[Service] = match &facts.cluster {
        Ok(cluster) => cluster.services.as_deref().unwrap_or_default(),
        Err(_) => &[],
    };
    let names = plan::names(subject, services);
    let resolv = facts.resolv.as_ref().ok().filter(|_| !facts.is_dns_pod);
    let mut for_server = plan::server(subject, resolv, &names);
    for_server.extend(plan::targets(services));
    let for_replica = plan::replica(subject, &names);
    let for_upstream = plan::upstream(subject);

    let mut planned: Vec<(&mut Server, Vec<Ask>)> = Vec::new();
    planned.extend(facts.servers.iter_mut().map(|it| (it, for_server.clone())));
    planned.extend(facts.replicas.iter_mut().flatten().map(|it| (it, for_replica.clone())));
    planned.extend(facts.kubedns_server.iter_mut().map(|it| (it, for_replica.clone())));
    planned.extend(facts.upstreams.iter_mut().flatten().map(|it| (it, for_upstream.clone())));
    planned.extend(facts.stubs.iter_mut().map(|it| (&mut it.server, plan::stub(&it.domain))));
    let mut asked = JoinSet::new();
    for (index, (server, asks)) in planned.iter_mut().enumerate() {
        let (address, asks, timeout) = (server.address, take(asks), subject.timeout);
        asked.spawn(async move { (index, dns::ask_all(address, asks, timeout).await) });
    }
    for (index, server) in asked.join_all().await {
        *planned[index].0 = server;
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
    let asked =
        dns::ask_all(server.address, vec![once(question, Over::Udp)], facts.subject.timeout).await;
    server.talks.extend(asked.talks);
}

/// Counters of the kernel need a moment to grow.
const SPAN_MIN: Duration = Duration::from_millis(1_000);
/// More replicas are not asked: each costs some dozens of queries.
const REPLICAS_MAX: usize = 20;
const UPSTREAMS_MAX: usize = 8;
