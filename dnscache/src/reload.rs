//! Rebuilds the routes when their sources change: the Corefile, the configuration directory,
//! resolv.conf.
//!
//! Edge. The routes are replaced as a whole, so no query is lost. Cached answers are kept, except
//! for names whose servers have changed.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use shared::config_dir::{self, Server};
use shared::ready::Check;
use shared::{interface, plain_file};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::doors::Rebind;
use crate::route::{
    self, AnswerFlag, Group, Kinds, Lifetimes, NextFlag, Resolv, Routes, ServerFlag,
};

/// The flags that a running program can take over from a changed Corefile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Servers, by domain.
    pub servers: Vec<ServerFlag>,
    /// Names about which no server is asked.
    pub answers: Vec<AnswerFlag>,
    /// The file with the servers for all other names.
    pub resolv_file: PathBuf,
    /// Servers that are asked after others.
    pub next: Vec<NextFlag>,
    /// The limits of lifetimes.
    pub lifetimes: Lifetimes,
}

/// The sources of the routes.
#[derive(Debug)]
pub struct Sources {
    /// The flags.
    pub live: watch::Receiver<Live>,
    /// The configuration directory.
    pub directory: watch::Receiver<config_dir::State>,
    /// The filter of answers, which only flags set.
    rebind: Option<Arc<Rebind>>,
    /// The last servers in resolv.conf. They are kept while it contains no other.
    servers: Vec<SocketAddr>,
    /// The resolv.conf that contained them.
    resolv_file: Option<PathBuf>,
    /// The state of the upstreams.
    pub upstreams: Arc<ArcSwap<Upstreams>>,
}

/// The servers for names that no suffix routes, and the problems of resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstreams {
    /// How many servers are asked; `None` before the first look, or if no server should be asked.
    count: Option<usize>,
    /// Lines of resolv.conf that cannot be used, or why it cannot be read, with the file's name.
    /// Empty if the servers have another source.
    refused: Vec<String>,
}

impl Upstreams {
    /// Returns the line `upstreams` of `/readyz?verbose`. A problem is only a warning, because the
    /// program can still serve the cluster's names.
    pub fn check(&self) -> Check {
        let nobody = (self.count == Some(0)).then(|| NO_UPSTREAM.to_owned());
        let reasons: Vec<String> = nobody.into_iter().chain(self.refused.clone()).collect();
        match &reasons[..] {
            [] => Check::passed("upstreams"),
            reasons => Check::warning("upstreams", reasons.join("; ")),
        }
    }
}

/// The metrics of the upstreams.
pub struct Metrics(pub Arc<ArcSwap<Upstreams>>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let upstreams = self.0.load();
        let gauges = [
            (
                "default_upstreams",
                "Servers for names that no suffix routes",
                upstreams.count.unwrap_or(0),
            ),
            (
                "resolv_conf_refused_lines",
                "Lines of resolv.conf that cannot be used, or 1 if it cannot be read",
                upstreams.refused.len(),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

impl Sources {
    /// Returns sources with these flags and this directory.
    pub fn new(live: watch::Receiver<Live>, directory: watch::Receiver<config_dir::State>) -> Self {
        Self {
            live,
            directory,
            rebind: None,
            servers: Vec::new(),
            resolv_file: None,
            upstreams: Arc::default(),
        }
    }

    /// Adds the filter of answers to the routes.
    pub fn with_rebind(mut self, rebind: Option<Rebind>) -> Self {
        self.rebind = rebind.map(Arc::new);
        self
    }

    /// Returns the current routes of the sources. Problems of the upstreams are logged once.
    pub fn routes(&mut self) -> Routes {
        let keys = Arc::clone(&self.directory.borrow().keys);
        let live = self.live.borrow().clone();
        let Live { servers: flags, answers, resolv_file, next, lifetimes } = live;
        if self.resolv_file.as_ref() != Some(&resolv_file) {
            self.servers.clear();
            self.resolv_file = Some(resolv_file.clone());
        }
        let read = read(&resolv_file);
        let (resolv, mut refused) = match read {
            Ok(Resolv { servers, refused }) => (servers, refused),
            Err(reason) => (Vec::new(), vec![reason]),
        };
        // A file that is missing for a moment, or empty while it is written, must not remove all
        // servers.
        if !resolv.is_empty() {
            self.servers = resolv;
        } else if refused.is_empty() && !self.servers.is_empty() {
            refused.push("it names no server any more; the last ones stay".to_owned());
        }
        let routes = Routes::new(&flags, &keys, &self.servers);
        let routes = routes.with_rebind(self.rebind.clone());
        let routes = routes.with_answers(&answers).with_next(&next).with_lifetimes(lifetimes);
        let asks = !answers.iter().any(|answer| answer.domains.is_empty());
        let (is_used, file) =
            (asks && !route::names_upstreams(&flags, &keys), resolv_file.display());
        let refused = refused.into_iter().filter(|_| is_used);
        self.note(Upstreams {
            count: asks.then(|| routes.groups()[0].servers.len()),
            refused: refused.map(|reason| format!("{file}: {reason}")).collect(),
        });
        routes
    }

    /// Logs the changes in `upstreams`.
    fn note(&self, upstreams: Upstreams) {
        let before = self.upstreams.load();
        for reason in upstreams.refused.iter().filter(|reason| !before.refused.contains(reason)) {
            tracing::warn!("{reason}");
        }
        match (before.count, upstreams.count) {
            (before, Some(0)) if before != Some(0) => tracing::warn!("{NO_UPSTREAM}"),
            (Some(0), Some(count)) if count > 0 => tracing::info!(count, "there are upstreams now"),
            _ => {}
        }
        if **before != upstreams {
            self.upstreams.store(Arc::new(upstreams));
        }
    }
}

/// Keeps `routes` in step with `sources` until `stopping`. Removes names from `cache` for which
/// other servers answer now.
pub async fn follow(
    mut sources: Sources,
    routes: Arc<ArcSwap<Routes>>,
    cache: Arc<Cache>,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        let new = sources.routes();
        let before = routes.load_full();
        if new != *before {
            let mut suffixes = changed(before.groups(), new.groups());
            suffixes.extend(before.changed(&new));
            routes.store(Arc::new(new));
            tracing::info!(suffixes = suffixes.len(), "routes changed");
            cache.remove_below_any(&suffixes);
        }
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            changed = sources.directory.changed() => if changed.is_err() {
                // The follower of the directory has ended, and with it the program.
                stopping.cancelled().await;
                return Ok(());
            },
            changed = sources.live.changed() => if changed.is_err() {
                // The follower of the Corefile has ended, and with it the program.
                stopping.cancelled().await;
                return Ok(());
            },
            // Polled, because in a pod it is a mount of one file, whose changes inotify does not
            // report. The interfaces of its servers can also be added or removed.
            () = sleep(RESOLV_PAUSE) => {}
        }
    }
}

/// Returns the suffixes whose servers are others in `after`.
fn changed(before: &[Group], after: &[Group]) -> Vec<Box<[u8]>> {
    // A domain can have two groups: its servers, and those that are asked after them.
    let servers = |groups: &[Group], suffix: &[u8]| -> Vec<(Vec<Server>, Option<Kinds>)> {
        let groups = groups.iter().filter(|group| *group.suffix == *suffix);
        let kinds = |group: &Group| group.next.map(|next| next.kinds);
        groups.map(|group| (group.servers.clone(), kinds(group))).collect()
    };
    let mut suffixes: Vec<Box<[u8]>> =
        before.iter().chain(after).map(|group| group.suffix.clone()).collect();
    suffixes.sort();
    suffixes.dedup();
    suffixes.retain(|suffix| servers(before, suffix) != servers(after, suffix));
    suffixes
}

/// Parses the resolv.conf at `path`, or returns why it cannot be read.
fn read(path: &Path) -> Result<Resolv, String> {
    let bytes = plain_file::read(path, RESOLV_LEN_MAX)
        .map_err(|error| format!("cannot be read: {error}"))?;
    Ok(route::resolv_conf(&String::from_utf8_lossy(&bytes), &interface::index))
}

/// The warning that names outside get SERVFAIL.
const NO_UPSTREAM: &str = "there is no upstream: names that no --server=/DOMAIN/ADDR and no stub \
    domain routes are answered with SERVFAIL; give --server=ADDR, upstreamNameservers or a \
    nameserver line in --resolv-file";
/// The maximum of bytes, far more than a resolv.conf has.
const RESOLV_LEN_MAX: u64 = 1 << 20;
/// The time between two looks at resolv.conf.
const RESOLV_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config_dir::Keys;

    #[test]
    fn a_stub_domain_that_takes_the_place_of_a_flag_is_a_change() {
        let flags = ["/a.b/192.0.2.1".parse().unwrap(), "192.0.2.9".parse().unwrap()];
        let routes = |stubs: &str| {
            let files = [("stubDomains".to_owned(), stubs.into())].into();
            Routes::new(&flags, &config_dir::parse(&files).unwrap(), &[])
        };
        let (flag, stub) = (routes("{}"), routes(r#"{"a.b": ["192.0.2.2"]}"#));
        let suffix = [shared::name::parse("a.b").unwrap()];
        assert_eq!(changed(flag.groups(), stub.groups()), suffix);
        assert_eq!(changed(stub.groups(), flag.groups()), suffix);
        let same = routes(r#"{"a.b": ["192.0.2.1"]}"#);
        assert_eq!(changed(flag.groups(), same.groups()), []);
    }

    #[test]
    fn only_what_others_answer_for_now_has_changed() {
        let routes = |flags: &[&str]| {
            let flags: Vec<ServerFlag> = flags.iter().map(|flag| flag.parse().unwrap()).collect();
            Routes::new(&flags, &Keys::default(), &[])
        };
        let rows: [(&[&str], &[&str], &[&str]); 6] = [
            (&["192.0.2.1"], &["192.0.2.1"], &[]),
            (&["192.0.2.1"], &["192.0.2.2"], &[""]),
            (&["/a.b/192.0.2.1", "192.0.2.9"], &["/a.b/192.0.2.2", "192.0.2.9"], &["a.b"]),
            (&["/a.b/192.0.2.1"], &[], &["a.b"]),
            (&[], &["/a.b/192.0.2.1"], &["a.b"]),
            (
                &["/10.in-addr.arpa/127.0.0.1"],
                &["/10.in-addr.arpa/127.0.0.1", "/10.in-addr.arpa/192.0.2.1"],
                &["10.in-addr.arpa"],
            ),
        ];
        for (before, after, expected) in rows {
            let changed = changed(routes(before).groups(), routes(after).groups());
            let expected: Vec<Box<[u8]>> = expected
                .iter()
                .map(|suffix| shared::name::parse(suffix).unwrap_or_else(|| route::ROOT.into()))
                .collect();
            assert_eq!(changed, expected, "{before:?} -> {after:?}");
        }
    }

    /// Returns sources with these flags and a resolv.conf at `path`.
    fn sources(flags: &[&str], path: &Path) -> Sources {
        let flags = flags.iter().map(|flag| flag.parse().unwrap()).collect();
        let (directory, _) = config_dir::open(None);
        let (answers, next, lifetimes) = (Vec::new(), Vec::new(), Lifetimes::default());
        let resolv_file = path.to_owned();
        let live = Live { servers: flags, answers, resolv_file, next, lifetimes };
        Sources::new(watch::channel(live).1, directory)
    }

    #[test]
    fn what_is_wrong_with_upstreams_is_a_warning_and_stops_nothing() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("resolv.conf");
        // resolv.conf, flags, servers for all other names, lines of /readyz?verbose
        let rows: [(Option<&str>, &str, usize, &[&str]); 9] = [
            (Some("nameserver 192.0.2.1"), "", 1, &[]),
            (Some("nameserver ::1%lo"), "", 1, &[]),
            (Some("nameserver fe80::1%lo"), "", 1, &[]),
            (
                Some("nameserver fe80::1%1\nnameserver fe80::2%nowhere"),
                "",
                1,
                &["line 2, ", "nowhere"],
            ),
            (
                Some("nameserver fe80::1"),
                "",
                0,
                &["there is no upstream", "line 1, ", "link-local"],
            ),
            (Some("# nothing\nsearch a.example"), "", 0, &["there is no upstream"]),
            (None, "", 0, &["there is no upstream", "cannot be read: No such file"]),
            (Some("nameserver x"), "192.0.2.1", 1, &[]),
            (None, "/corp.example/192.0.2.1", 0, &["there is no upstream"]),
        ];
        for (text, flags, count, expected) in rows {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => drop(std::fs::remove_file(&path)),
            }
            let flags: Vec<&str> = flags.split_whitespace().collect();
            let mut sources = sources(&flags, &path);
            let routes = sources.routes();
            assert_eq!(routes.groups()[0].servers.len(), count, "{text:?} {flags:?}");
            let check = sources.upstreams.load().check();
            assert!(!check.has_failed(), "{check:?}");
            assert_eq!(check == Check::passed("upstreams"), expected.is_empty(), "{check:?}");
            let said = format!("{check:?}");
            assert!(expected.iter().all(|part| said.contains(part)), "{said}");
        }
    }

    #[test]
    fn the_last_servers_stay_while_resolv_conf_names_none() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let mut sources = sources(&[], &path);
        let count = |sources: &mut Sources| sources.routes().groups()[0].servers.len();
        assert_eq!(count(&mut sources), 1);
        for (text, expected) in [("", "the last ones stay"), ("nameserver x", "line 1, ")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(count(&mut sources), 1, "{text}");
            let said = format!("{:?}", sources.upstreams.load().check());
            assert!(said.contains(expected) && !said.contains("no upstream"), "{said}");
        }
        std::fs::write(&path, "nameserver 192.0.2.2\nnameserver 192.0.2.3\n").unwrap();
        assert_eq!(count(&mut sources), 2);
        assert_eq!(sources.upstreams.load().check(), Check::passed("upstreams"));
    }
}
