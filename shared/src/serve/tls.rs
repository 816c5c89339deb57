//! The certificate that clients of DNS over TLS are shown (RFC 7858).
//!
//! Edge. The files are watched. A new connection uses the latest certificate that is valid.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tokio_util::sync::CancellationToken;

use crate::watcher::Watcher;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read as PEM.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, pem::Error),
    /// The certificate and the key cannot be used together.
    #[error("the certificate {0} and the key {1} cannot be used: {2}")]
    Pair(PathBuf, PathBuf, rustls::Error),
}

/// A certificate and its key, from files.
#[derive(Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    /// Held while the pointer is copied.
    current: Mutex<Arc<ServerConfig>>,
}

impl Certificate {
    /// Reads the chain in the file `certificate` and the key in the file `key`, both in PEM.
    ///
    /// Fails if they cannot be read, or do not belong together.
    pub fn read(certificate: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let current = Mutex::new(Arc::new(config(&certificate, &key)?));
        Ok(Self { certificate, key, current })
    }

    /// Reads the files again whenever they change, until `stopping`. If they cannot be used, the
    /// earlier certificate stays in use.
    pub(super) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        tokio::select! {
            () = stopping.cancelled() => {}
            never = self.follow() => match never {},
        }
    }

    async fn follow(&self) -> Infallible {
        let files = [&self.certificate, &self.key];
        let directory = |file: &PathBuf| match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut watcher = Watcher::new(&directory(&self.certificate));
        watcher.set_directories(files.map(directory).to_vec());
        let mut known = None;
        loop {
            // Armed before each look, so that a change after the look is noticed.
            watcher.arm();
            let content = Some(files.map(|file| std::fs::read(file).ok()));
            if content != known {
                match config(&self.certificate, &self.key) {
                    Ok(config) => *self.current.lock() = Arc::new(config),
                    Err(error) => {
                        tracing::warn!(%error, "the earlier certificate stays in use");
                    }
                }
                known = content;
            }
            watcher.changed().await;
        }
    }

    /// Returns the server's side of a new connection.
    pub(super) fn accept(&self) -> io::Result<ServerConnection> {
        let config = Arc::clone(&self.current.lock());
        ServerConnection::new(config).map_err(io::Error::other)
    }
}

fn config(certificate: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
    let unread = |path: &Path| {
        let path = path.to_owned();
        |error| CertificateError::Read(path, error)
    };
    let chain = CertificateDer::pem_file_iter(certificate).map_err(unread(certificate))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(unread(certificate))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(unread(key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the versions that rustls does")
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| CertificateError::Pair(certificate.to_owned(), key.to_owned(), error))?;
    // RFC 7858 section 3.2 with the registered name. Clients need not offer it.
    config.alpn_protocols = vec![b"dot".to_vec()];
    Ok(config)
}
