//! TLS to upstreams (RFC 7858), always verified (RFC 8310 section 5, strict privacy).
//!
//! Edge. Handles certificates and names, not DNS.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The files of TLS to upstreams.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The certificates that servers are verified with; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate that servers are shown, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Verifies servers. Sessions are resumed: a new connection to a known server needs no certificate.
pub(super) struct Tls {
    files: TlsFiles,
    /// Created for the first connection; `None` if there are no certificates.
    connector: OnceLock<Option<TlsConnector>>,
    /// The servers whose certificates are not accepted, so that each is logged once.
    refused: Mutex<HashSet<IpAddr>>,
}

impl Tls {
    pub fn new(files: TlsFiles) -> Self {
        Self { files, connector: OnceLock::new(), refused: Mutex::default() }
    }

    /// Sets up TLS over `stream` with the server at `address`, whose certificate must be valid for
    /// `name`, or for the address if `name` is `None`.
    pub async fn connect(
        &self,
        stream: TcpStream,
        address: IpAddr,
        name: Option<&str>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let connector = self.connector.get_or_init(|| match connector(&self.files) {
            Ok(connector) => Some(connector),
            Err(error) => {
                tracing::error!(%error, "no upstream can be verified over TLS");
                None
            }
        });
        let connector = connector.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let name = match name {
            Some(name) => ServerName::try_from(name.to_owned()).map_err(io::Error::other)?,
            None => ServerName::from(address),
        };
        let connected = connector.connect(name, stream).await;
        self.note(address, connected.as_ref().err());
        connected
    }

    /// Logs a certificate that is not accepted, unless it was already logged for this server.
    fn note(&self, server: IpAddr, error: Option<&io::Error>) {
        let reason = error.and_then(io::Error::get_ref).and_then(|it| it.downcast_ref());
        match (error, reason) {
            (None, _) => drop(self.refused.lock().remove(&server)),
            (_, Some(rustls::Error::InvalidCertificate(error)))
                if self.refused.lock().insert(server) =>
            {
                tracing::warn!(%server, %error, "the certificate of an upstream is refused");
            }
            _ => {}
        }
    }
}

fn connector(files: &TlsFiles) -> Result<TlsConnector, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the versions that rustls does")
        .with_root_certificates(roots(files.ca.as_deref())?);
    let config = match &files.client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let error = |path: &Path| {
                let path = path.to_owned();
                |error| Error::Read(path, error)
            };
            let chain = CertificateDer::pem_file_iter(certificate).map_err(error(certificate))?;
            let chain = chain.collect::<Result<_, _>>().map_err(error(certificate))?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(error(key))?;
            config.with_client_auth_cert(chain, key).map_err(Error::Client)?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read certificates from {0}: {1}")]
    Read(PathBuf, rustls::pki_types::pem::Error),
    #[error("the certificate for upstreams and its key do not fit: {0}")]
    Client(rustls::Error),
    #[error("no certificate is installed on this system; name a file with --tls-ca")]
    None,
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let error = |error| Error::Read(path.to_owned(), error);
            for certificate in CertificateDer::pem_file_iter(path).map_err(error)? {
                roots.add_parsable_certificates([certificate.map_err(error)?]);
            }
        }
        None => {
            // Certificates that cannot be parsed are left out.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() { Err(Error::None) } else { Ok(roots) }
}
