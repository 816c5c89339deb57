//! Makes the routes anew when what they are made of changes: the configuration directory,
//! resolv.conf.
//!
//! Edge. The routes are swapped whole: no query is lost, and what is cached stays, but for names
//! whose servers changed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use shared::config_dir::{self, Server};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::route::{self, Group, Routes, ServerFlag};

/// Where the routes come from.
#[derive(Debug)]
pub struct Sources {
    /// The flags.
    pub flags: Vec<ServerFlag>,
    /// The configuration directory.
    pub directory: watch::Receiver<config_dir::State>,
    /// resolv.conf.
    pub resolv_file: PathBuf,
}

impl Sources {
    /// The routes as the sources are now. A resolv.conf that cannot be read names no server.
    pub fn routes(&self) -> Routes {
        self.routes_with(&read(&self.resolv_file).unwrap_or_default())
    }

    fn routes_with(&self, resolv: &[SocketAddr]) -> Routes {
        Routes::new(&self.flags, &self.directory.borrow().keys, resolv)
    }
}

/// Keeps `routes` as `sources` say until `stopping`; drops from `cache` what other servers answer
/// for now.
pub async fn follow(
    mut sources: Sources,
    routes: Arc<ArcSwap<Routes>>,
    cache: Arc<Cache>,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    let mut resolv = read(&sources.resolv_file).unwrap_or_default();
    loop {
        let new = sources.routes_with(&resolv);
        let before = routes.load_full();
        if new.groups() != before.groups() {
            routes.store(Arc::new(new));
            let changed = changed(before.groups(), routes.load().groups());
            tracing::info!(suffixes = changed.len(), "routes changed");
            cache.remove_below_any(&changed);
        }
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            changed = sources.directory.changed() => if changed.is_err() {
                // The follower of the directory has ended, and with it the program.
                stopping.cancelled().await;
                return Ok(());
            },
            // Looked at, not watched: in a pod it is a mount of one file, whose changes inotify
            // does not tell.
            () = sleep(RESOLV_PAUSE) => {
                // A file that is away for a moment, or empty while it is written, is no reason to
                // know nobody.
                resolv = read(&sources.resolv_file).filter(|new| !new.is_empty()).unwrap_or(resolv);
            }
        }
    }
}

/// The suffixes whose servers are others in `after`.
fn changed(before: &[Group], after: &[Group]) -> Vec<Box<[u8]>> {
    // A reverse zone may have two groups: servers in the pod, and those asked after them.
    let servers = |groups: &[Group], suffix: &[u8]| -> Vec<Vec<Server>> {
        let groups = groups.iter().filter(|group| *group.suffix == *suffix);
        groups.map(|group| group.servers.clone()).collect()
    };
    let mut suffixes: Vec<Box<[u8]>> =
        before.iter().chain(after).map(|group| group.suffix.clone()).collect();
    suffixes.sort();
    suffixes.dedup();
    suffixes.retain(|suffix| servers(before, suffix) != servers(after, suffix));
    suffixes
}

fn read(path: &Path) -> Option<Vec<SocketAddr>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(route::resolv_conf(&text)),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "cannot read resolv.conf");
            None
        }
    }
}

/// Between two looks at resolv.conf.
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
        let suffix = [route::wire("a.b").unwrap()];
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
                .map(|suffix| route::wire(suffix).unwrap_or_else(|| route::ROOT.into()))
                .collect();
            assert_eq!(changed, expected, "{before:?} -> {after:?}");
        }
    }
}
