//! Checks every flag before the build: uses the programs' own parsers, and opens the files that the
//! flags name.
//!
//! Edge. It opens files. It must not contact an API server or a DNS server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Parser;
use kubedns::source::watch::cluster::{Cluster, ClusterError, Source};
use shared::flags::{Stop, chain, parse_from};

use crate::flags::Flags;
use crate::plan;

/// A flag with a value that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program rejects the value. The text is the program's own, and names the flag.
    #[error("{0}")]
    Refused(String),
    /// The objects cannot be read.
    #[error("error: invalid value '{}' for '--objects <PATH>'", path.display())]
    Objects {
        /// The path as given.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The kubeconfig cannot be used.
    #[error("error: invalid value '{}' for '--kubeconfig <FILE>'", path.display())]
    Kubeconfig {
        /// The path as given.
        path: PathBuf,
        /// The reason.
        source: ClusterError,
    },
}

/// Parses the flags as the three programs do, and opens the files that they name.
pub async fn flags(flags: &Flags) -> Result<(), Error> {
    // Each program chooses its ports when it starts, so any address can be used here.
    let somewhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
    let kubedns: kubedns::Config = read("kubedns", plan::kubedns(flags))?;
    kubedns.check().map_err(together)?;
    let arguments = plan::dnscache(flags, somewhere, somewhere, Path::new("/dev/null"));
    let dnscache: dnscache::Config = read("dnscache", arguments)?;
    dnscache.check().map_err(together)?;
    let arguments = plan::healthz(flags, somewhere, somewhere, &[]);
    let healthz: healthz::Config = read("healthz", arguments)?;
    healthz.check().map_err(together)?;

    if let Some(path) = flags.objects() {
        let opened = if path.is_dir() {
            std::fs::read_dir(path).map(drop)
        } else {
            std::fs::File::open(path).map(drop)
        };
        opened.map_err(|source| Error::Objects { path: path.to_owned(), source })?;
    }
    if let Some(path) = &flags.kubeconfig {
        let source = Source::File { path: path.clone(), context: flags.context.clone() };
        let opened = Cluster::open(source).await.map(drop);
        opened.map_err(|source| Error::Kubeconfig { path: path.clone(), source })?;
    }
    Ok(())
}

fn read<C: Parser>(program: &str, arguments: Vec<String>) -> Result<C, Error> {
    parse_from(std::iter::once(program.to_owned()).chain(arguments)).map_err(|stop| match stop {
        Stop::Shown(text) | Stop::Wrong(text) => Error::Refused(text),
    })
}

/// Returns the program's own error about flags that contradict each other.
fn together(error: impl std::error::Error) -> Error {
    Error::Refused(format!("error: {}", chain(&error)))
}
