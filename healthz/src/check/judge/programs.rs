//! What kubedns and dnscache report about themselves over HTTP.
//!
//! Core. Facts in, finding out.

use super::{Judged, listed, right, warning, wrong};
use crate::check::facts::{Facts, known};
use crate::figures::{Line, Pages};

pub fn dnscache(facts: &Facts) -> Judged {
    match (&facts.dnscache, &facts.kubedns) {
        (Err(reason), Ok(_)) => wrong(
            format!("no page: {reason}"),
            "dnscache does not answer over HTTP although kubedns of the same pod does; the \
             container is restarting or hangs, so see its log.",
        ),
        (pages, _) => program("dnscache", known(pages)?),
    }
}

pub fn kubedns(facts: &Facts) -> Judged {
    match (&facts.kubedns, &facts.dnscache) {
        (Err(reason), Ok(_)) => wrong(
            format!("no page: {reason}"),
            "kubedns does not answer although dnscache of the same pod does; names of the cluster \
             come from the cache only, so see the log of kubedns.",
        ),
        (pages, _) => program("kubedns", known(pages)?),
    }
}

fn program(name: &str, pages: &Pages) -> Judged {
    let failed = pages.checks.iter().find(|line| line.mark == '-');
    match (pages.is_live, pages.is_ready, failed) {
        (false, ..) => wrong(
            "/livez fails",
            format!("A serving thread of {name} hangs; restart the container and keep its log."),
        ),
        // Missing rights have a check of their own.
        (_, false, Some(line)) if is_refusal(line) => {
            Err(format!("{name} is not ready: see the check of its rights"))
        }
        (_, false, Some(Line { name: check, reason, .. })) => wrong(
            format!("not ready: {check}"),
            format!(
                "{name} is not ready because of {check} ({reason}); it answers SERVFAIL until then."
            ),
        ),
        (_, false, None) => wrong("/readyz fails", format!("{name} is not ready; see its log.")),
        (true, true, _) => right("alive and ready"),
    }
}

fn is_refusal(line: &Line) -> bool {
    line.reason.contains("not allowed: ")
}

/// How long ago the API server sent something on each watch.
pub fn watches(facts: &Facts) -> Judged {
    let pages = known(&facts.kubedns)?;
    let ages: Vec<(&str, f64)> = pages.figures.by("kubedns_watch_age_seconds", "kind").collect();
    if pages.figures.value("kubedns_stale", &[]) == Some(1.0) {
        let age = pages.figures.value("kubedns_snapshot_age_seconds", &[]).unwrap_or_default();
        return wrong(
            "answers come from the snapshot",
            format!(
                "kubedns has received nothing from the API server since its start; its answers \
                 have the age of the snapshot ({age:.0} s) and new services are missing."
            ),
        );
    }
    if ages.is_empty() {
        return match pages.figures.value("kubedns_objects_problems", &[]) {
            Some(problems) if problems > 0.0 => warning(
                format!("{problems} problems in object files"),
                "Some object files are broken, so their objects keep the last good state; the log \
                 of kubedns has the file and the line.",
            ),
            Some(_) => right("objects come from files"),
            None => Err("kubedns has no watches".to_owned()),
        };
    }
    let is_well = |kind: &str| {
        pages.figures.value("kubedns_watch_ok", &[("kind", kind)]).is_some_and(|ok| ok > 0.0)
    };
    let refused = |kind: &str| pages.check(kind).is_some_and(is_refusal);
    let failing = ages.iter().filter(|(kind, _)| !is_well(kind) && !refused(kind));
    let oldest = failing.map(|(_, age)| *age).fold(f64::NEG_INFINITY, f64::max);
    if oldest > AWAY_SECS {
        return wrong(
            format!("a watch fails, last sign of life {oldest:.0} s ago"),
            format!(
                "kubedns has received nothing from the API server for {oldest:.0} s; its answers \
                 have that age and new services are missing. Check the API server and the way to \
                 it."
            ),
        );
    }
    let silent = ages.iter().find(|(kind, age)| is_well(kind) && *age > SILENT_SECS);
    if let Some((kind, age)) = silent {
        return wrong(
            format!("{kind}: nothing for {age:.0} s"),
            format!(
                "The watch on {kind} has delivered no event and no bookmark for {age:.0} s; the \
                 connection is dead. Restart kubedns, and look for a proxy or firewall that drops \
                 idle connections."
            ),
        );
    }
    let newest = ages.iter().map(|(_, age)| *age).fold(0.0, f64::max);
    right(format!("{} watches, the oldest sign of life {newest:.0} s ago", ages.len()))
}

/// What kubedns may list and watch.
pub fn rights(facts: &Facts) -> Judged {
    let pages = known(&facts.kubedns)?;
    let Some(line) = pages.checks.iter().find(|line| is_refusal(line)) else {
        return right("kubedns may list all that it needs");
    };
    let group = match line.name.as_str() {
        "endpointslices" => ".discovery.k8s.io",
        "serviceimports" => ".multicluster.x-k8s.io",
        _ => "",
    };
    let lost = match line.name.as_str() {
        "endpointslices" => "headless services cannot be answered",
        "services" => "no service can be answered",
        "namespaces" => "no name of the cluster can be answered",
        "pods" => "names of pods cannot be answered",
        _ => "these names cannot be answered",
    };
    wrong(
        format!("{}: {}", line.name, line.reason),
        format!(
            "kubedns may not list {}{group}; {lost} until the ClusterRole allows it.",
            line.name
        ),
    )
}

/// Returns whether dnscache follows changes.
pub fn changes(facts: &Facts) -> Judged {
    let figures = &known(&facts.dnscache)?.figures;
    let of = |name: &str| figures.value(name, &[]);
    match (of("dnscache_change_streams"), of("dnscache_change_streams_up")) {
        (Some(all), Some(up)) if up < all => warning(
            format!("{up} of {all} up"),
            "The change stream of kubedns is down, so dnscache keeps names of the cluster for 5 s \
             at most and asks kubedns more often; check kubedns and --changes.",
        ),
        (Some(0.0), _) => warning(
            "dnscache follows no change stream",
            "dnscache does not follow the changes of kubedns (--changes), so a changed name is \
             stale until its TTL ends.",
        ),
        (Some(all), _) => right(format!("{all} up")),
        (None, _) => Err("dnscache does not report its change streams".to_owned()),
    }
}

/// The programs whose pages were read; fails if there is none.
fn read(facts: &Facts) -> Result<Vec<(&'static str, &Pages)>, String> {
    let both = [("dnscache", &facts.dnscache), ("kubedns", &facts.kubedns)];
    let read = both.into_iter().filter_map(|(name, pages)| Some((name, pages.as_ref().ok()?)));
    let read: Vec<_> = read.collect();
    if read.is_empty() {
        known(&facts.dnscache)?;
    }
    Ok(read)
}

/// A configuration that was refused while the last good one stays.
pub fn configuration(facts: &Facts) -> Judged {
    let programs = read(facts)?;
    let is_config = |line: &&Line| line.mark != '+' && CONFIGURATION.contains(&line.name.as_str());
    for (program, pages) in &programs {
        if let Some(line) = pages.checks.iter().find(is_config) {
            return warning(
                format!("{program}: {}: {}", line.name, line.reason),
                format!(
                    "The configuration ({}) of {program} changed and is invalid: {}; the \
                     configuration from before is still active. Correct the line.",
                    line.name, line.reason
                ),
            );
        }
    }
    let names: Vec<&str> = programs.iter().map(|(program, _)| *program).collect();
    right(format!("{} use what the files contain", names.join(" and ")))
}

/// One pod, one version.
pub fn versions(facts: &Facts) -> Judged {
    let own = facts.subject.version;
    let version = |(name, pages): (&'static str, &Pages)| {
        let metric = format!("{name}_build_info");
        let version = pages.figures.by(&metric, "version").next()?.0.to_owned();
        Some((name, version))
    };
    let found: Vec<(&str, String)> = read(facts)?.into_iter().filter_map(version).collect();
    if found.is_empty() {
        return Err(facts.dnscache.clone().err().unwrap_or_default());
    }
    let other = found.iter().find(|(_, version)| version != own);
    match other {
        None => right(format!("{own} everywhere")),
        Some((name, version)) => warning(
            format!("{name} {version}, healthz {own}"),
            format!(
                "{name} has version {version} and healthz has {own}; use images of one version \
                 in the pod."
            ),
        ),
    }
}

/// Descriptors and memory that are nearly used up, queries that were turned away.
pub fn limits(facts: &Facts) -> Judged {
    let mut seen = Vec::new();
    for (program, Pages { figures, .. }) in read(facts)? {
        let open = figures.value("process_open_fds", &[]).unwrap_or_default();
        if let Some(max) = figures.value("process_max_fds", &[])
            && open > max * NEARLY
        {
            return warning(
                format!("{program}: {open} of {max} descriptors"),
                format!("{program} has nearly used up its file descriptors; raise the limit."),
            );
        }
        let shed = format!("{program}_dns_events_total");
        let shed = figures.sum(&shed, &[("event", "shed")]);
        if shed > 0.0 {
            return warning(
                format!("{program} turned {shed} queries away"),
                format!(
                    "{program} has more queries waiting than it may hold, and refused {shed} of \
                     them; its upstreams are too slow, or one client floods it (see /top)."
                ),
            );
        }
        seen.push(format!("{program} {open} descriptors"));
    }
    right(listed(&seen))
}

/// Datagrams that the kernel dropped at the sockets of the programs.
pub fn queue(facts: &Facts) -> Judged {
    for (program, pages) in read(facts)? {
        let name = format!("{program}_dns_overflow_total");
        let dropped = pages.figures.sum(&name, &[]);
        if dropped > 0.0 {
            return warning(
                format!("{program}: {dropped} datagrams dropped"),
                format!(
                    "The kernel dropped {dropped} datagrams on port 53 since the start of \
                     {program} because the receive buffer was full; add threads, replicas or \
                     buffer space."
                ),
            );
        }
    }
    right("no datagram was dropped")
}

/// The lines of `/readyz?verbose` that are about files of the operator.
const CONFIGURATION: [&str; 5] = ["config-dir", "corefile", "hosts", "zone-files", "resolv-conf"];
/// A watch that fails for longer leaves answers old.
const AWAY_SECS: f64 = 20.0;
/// The API server sends a bookmark every minute.
const SILENT_SECS: f64 = 300.0;
/// The share of a limit from which on it is nearly reached.
const NEARLY: f64 = 0.9;
