//! The plugins `kubernetes` and `multicluster`, which configure kubedns.
//!
//! Core.

use super::super::keys::{Key, Zone};
use super::super::lexer::Token;
use super::super::parser::{Directive, Line};
use super::arguments::{duration, none, number, one, zones};
use super::{Fate, Said, Server, settle, unknown_option};
use crate::corefile::plan::{Program, Rows};
use crate::prefix::Prefix;

/// The cluster of a block.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// The index of the line.
    pub index: usize,
    /// The cluster domain; `None` if the line has none.
    pub domain: Option<Zone>,
    /// Further domains with the same records.
    pub further: Vec<Zone>,
    /// Its reverse zones.
    pub reverse: Vec<Zone>,
    /// Zones that are written as prefixes.
    pub prefixes: Vec<Prefix>,
    /// Zones whose missing names are passed to the next plugin, with their line; the root means all
    /// zones.
    pub fallthrough: Vec<(usize, Vec<Zone>)>,
    /// The clusterset's domain, and its line.
    pub clusterset: Option<(usize, Zone)>,
}

impl Kubernetes {
    /// The cluster domain, further ones, and the reverse zones.
    pub fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.domain.iter().chain(&self.further).chain(&self.reverse)
    }
}

/// The external plugin `multicluster`.
#[derive(Clone, Debug)]
pub struct Multicluster {
    /// The index of the line.
    pub index: usize,
    /// The clusterset's domain.
    pub zone: Zone,
    /// The zones whose missing names are passed on, by the line that sets them.
    pub fallthrough: Vec<(usize, Vec<Zone>)>,
}

/// `kubernetes [ZONES...] { ... }`
pub fn read(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let mut keys = Vec::new();
    for token in &line.arguments {
        match Key::parse(&token.text) {
            Ok(key) => keys.push(key),
            Err(error) => rows.refuse(line.index, error.to_string()),
        }
    }
    if line.arguments.is_empty() {
        keys.clone_from(&server.keys);
    }
    let all = || keys.iter().flat_map(|key| key.zones.iter().cloned());
    let forward: Vec<Zone> = all().filter(|zone| !zone.is_reverse()).collect();
    if forward.is_empty() {
        rows.refuse(line.index, "no zone that is not a reverse zone; add the cluster domain");
    }
    let mut kubernetes = Kubernetes {
        index: line.index,
        domain: forward.first().cloned(),
        further: forward.into_iter().skip(1).collect(),
        reverse: all().filter(Zone::is_reverse).collect(),
        prefixes: keys.iter().filter_map(|key| key.prefix).collect(),
        fallthrough: Vec::new(),
        clusterset: None,
    };
    let has = |name: &str| directive.options.iter().any(|option| option.name.text == name);
    if !has("ttl") {
        rows.set(line.index, (Program::Kubedns, "ttl"), TTL_SECS);
    }
    if !has("pods") {
        rows.set(line.index, (Program::Kubedns, "pods"), "disabled");
    }
    let contradict = |option: &Line| match option.name.text.as_str() {
        "tls" if !has("endpoint") => Some("expected endpoint beside it"),
        "endpoint" | "tls" if has("kubeconfig") => {
            Some("kubeconfig names the API server already; remove the line")
        }
        "zonal" if has("noendpoints") => Some("without endpoints there are no such names"),
        "namespace_labels" if has("namespaces") => Some("namespaces are named already"),
        "ignore" if has("noendpoints") => {
            Some("without endpoints no Service would exist; remove one of the lines")
        }
        _ => None,
    };
    for option in &directive.options {
        let said = match contradict(option) {
            Some(reason) => Err(reason.to_owned()),
            None => read_option(option, &mut kubernetes, rows),
        };
        settle(option, said, rows);
    }
    server.kubernetes = Some(kubernetes);
}

fn read_option(option: &Line, kubernetes: &mut Kubernetes, rows: &mut Rows) -> Said {
    let mut set = |flag: &'static str, value: String| {
        rows.set(option.index, (Program::Kubedns, flag), value);
        Ok(Fate::Kept)
    };
    match option.name.text.as_str() {
        "pods" => match one(option, "disabled, insecure or verified")? {
            mode @ ("disabled" | "insecure" | "verified") => set("pods", mode.to_owned()),
            other => Err(format!("{other:?}: expected disabled, insecure or verified")),
        },
        "ttl" => {
            let seconds = number(one(option, "0 to 3600 seconds")?, 0..=3_600)?;
            set("ttl", seconds.to_string())
        }
        "namespaces" => namespaces(option, rows),
        "labels" => {
            if option.arguments.is_empty() {
                return Err("no argument; expected a selector, such as app=web".to_owned());
            }
            set("service-selector", joined(&option.arguments))
        }
        "fallthrough" => {
            let mut zones = zones(&option.arguments)?;
            if zones.is_empty() {
                zones.push(Zone::root());
            }
            kubernetes.fallthrough.push((option.index, zones));
            Ok(Fate::Kept)
        }
        "multicluster" => match &zones(&option.arguments)?[..] {
            [zone] => {
                kubernetes.clusterset = Some((option.index, zone.clone()));
                Ok(Fate::Kept)
            }
            _ => Err("kubedns serves one clusterset; write its zone".to_owned()),
        },
        "ignore" => match one(option, "empty_service")? {
            "empty_service" => switch(option.index, "ignore-empty-service", rows),
            other => Err(format!("{other:?}: expected empty_service")),
        },
        "endpoint_pod_names" => {
            none(option)?;
            switch(option.index, "endpoint-pod-names", rows)
        }
        "zonal" => {
            none(option)?;
            switch(option.index, "zonal", rows)
        }
        "noendpoints" => {
            none(option)?;
            switch(option.index, "no-endpoints", rows)
        }
        "namespace_labels" => {
            if option.arguments.is_empty() {
                return Err("no argument; expected a selector, such as team=shop".to_owned());
            }
            set("namespace-selector", joined(&option.arguments))
        }
        "kubeconfig" | "endpoint" | "tls" => api_server(option, rows),
        _ => without_flag(option),
    }
}

/// `kubeconfig FILE [CONTEXT]`, `endpoint URL` or `tls CERTIFICATE KEY CACERTIFICATE`
fn api_server(option: &Line, rows: &mut Rows) -> Said {
    let mut set = |flag: &'static str, token: &Token| {
        rows.set(option.index, (Program::Kubedns, flag), &token.text);
    };
    match (option.name.text.as_str(), &option.arguments[..]) {
        ("kubeconfig", [file]) => set("kubeconfig", file),
        ("kubeconfig", [file, context]) => {
            set("context", context);
            set("kubeconfig", file);
        }
        ("kubeconfig", _) => return Err("expected a file, and a context if need be".to_owned()),
        ("endpoint", [url, further @ ..]) => {
            set("api-server", url);
            if !further.is_empty() {
                rows.build_in(option.index, "the first URL alone is used, as CoreDNS does");
            }
        }
        ("endpoint", []) => return Err("no argument; expected a URL".to_owned()),
        (_, [certificate, key, authority]) => {
            set("api-server-cert", certificate);
            set("api-server-key", key);
            set("api-server-ca", authority);
        }
        _ => return Err("expected CERTIFICATE KEY CACERTIFICATE".to_owned()),
    }
    Ok(Fate::Kept)
}

/// `namespaces NAME...`
fn namespaces(option: &Line, rows: &mut Rows) -> Said {
    if option.arguments.is_empty() {
        return Err("no argument; expected namespaces".to_owned());
    }
    for token in &option.arguments {
        is_namespace(&token.text)?;
    }
    for token in &option.arguments {
        rows.set(option.index, (Program::Kubedns, "namespace"), &token.text);
    }
    Ok(Fate::Kept)
}

/// Handles options without a flag.
fn without_flag(option: &Line) -> Said {
    match option.name.text.as_str() {
        "startup_timeout" => one(option, "a duration")
            .and_then(duration)
            .map(|_| Fate::BuiltIn("names are answered with SERVFAIL until everything is listed")),
        "resyncperiod" => one(option, "a duration")
            .and_then(duration)
            .map(|_| Fate::BuiltIn("watches are renewed without a period")),
        "upstream" => Ok(Fate::BuiltIn("targets of ExternalNames are looked up by dnscache")),
        "apiserver_qps" | "apiserver_burst" | "apiserver_max_inflight" => one(option, "a number")
            .and_then(|text| number(text, 0..=u32::MAX))
            .map(|_| Fate::BuiltIn("kubedns watches and does not poll")),
        "transfer" => Err("write the plugin transfer beside kubernetes".to_owned()),
        _ => Err(unknown_option(option, OPTIONS)),
    }
}

fn switch(index: usize, flag: &'static str, rows: &mut Rows) -> Said {
    rows.map(index, (Program::Kubedns, flag), None);
    Ok(Fate::Kept)
}

/// `multicluster [ZONES...] { kubeconfig FILE; noendpoints; fallthrough [ZONES...] }`
pub fn multicluster(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    match zones(&line.arguments).as_deref() {
        Ok([zone]) => {
            let (zone, fallthrough) = (zone.clone(), Vec::new());
            server.multicluster = Some(Multicluster { index: line.index, zone, fallthrough });
        }
        Ok(_) => rows.refuse(line.index, "kubedns serves one clusterset; write its zone"),
        Err(reason) => rows.refuse(line.index, reason.clone()),
    }
    for option in &directive.options {
        let said = match option.name.text.as_str() {
            "kubeconfig" => Err("the API server is that of kubernetes; remove the line".to_owned()),
            "noendpoints" => Err("endpoints are always answered; remove the line".to_owned()),
            "fallthrough" => zones(&option.arguments).map(|mut zones| {
                if zones.is_empty() {
                    zones.push(Zone::root());
                }
                let fallthrough = server.multicluster.as_mut().map(|it| &mut it.fallthrough);
                fallthrough.into_iter().for_each(|it| it.push((option.index, zones.clone())));
                Fate::Kept
            }),
            _ => Err(unknown_option(option, "kubeconfig, noendpoints, fallthrough")),
        };
        settle(option, said, rows);
    }
}

/// Checks a namespace's name, as `--namespace` does.
fn is_namespace(text: &str) -> Result<(), String> {
    let edges = text.starts_with('-') || text.ends_with('-');
    let is_allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    match (1..=63).contains(&text.len()) && !edges && text.bytes().all(is_allowed) {
        true => Ok(()),
        false => Err(format!("{text:?} is not the name of a namespace")),
    }
}

fn joined(tokens: &[Token]) -> String {
    tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// CoreDNS's default. kubeadm sets 30.
const TTL_SECS: u32 = 5;
const OPTIONS: &str = "pods, ttl, namespaces, namespace_labels, labels, endpoint, tls, kubeconfig, \
    fallthrough, multicluster, ignore, endpoint_pod_names, noendpoints, zonal, startup_timeout";
