//! The connection to the API server: its address and our credentials, both updated when they
//! change.
//!
//! Edge. Knows kubeconfig files and service accounts through `kube`; does not know the requests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::{HeaderValue, Request, header};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{self, KubeConfigOptions, Kubeconfig};
use shared::clock::Moment;
use tokio::sync::Notify;
use tower::util::MapRequestLayer;
use tower::{BoxError, ServiceExt};

/// The place of the API server's configuration.
#[derive(Clone, Debug)]
pub enum Source {
    /// In the environment and the service account that every pod gets.
    InCluster,
    /// In a kubeconfig file.
    File {
        /// The file.
        path: PathBuf,
        /// The context, if it is not the file's current one.
        context: Option<String>,
    },
    /// At this address.
    Address(Address),
}

/// The address of an API server, and the files that go with it.
#[derive(Clone, Debug)]
pub struct Address {
    /// Its URL.
    pub url: String,
    /// The certificate that it is shown.
    pub certificate: Option<PathBuf>,
    /// The key of the certificate.
    pub key: Option<PathBuf>,
    /// The certificate that it is verified with; `None` for those of the system.
    pub authority: Option<PathBuf>,
}

/// Why the connection cannot be configured.
///
/// The texts of `kube`'s errors repeat their causes, so these have no source.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The file cannot be read, or has no usable content.
    #[error("cannot use kubeconfig {path}: {cause}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: kube::config::KubeconfigError,
    },
    /// The address or a file beside it cannot be used.
    #[error("cannot use {url}: {cause}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong.
        cause: kube::config::KubeconfigError,
    },
    /// The process is not in a pod.
    #[error(
        "no API server: neither --kubeconfig nor --objects is given, and this is no pod: {cause}"
    )]
    InCluster {
        /// What is missing.
        cause: kube::config::InClusterError,
    },
    /// Certificates, keys or an exec plugin cannot be used.
    #[error("cannot authenticate to the API server: {cause}{}", hint(&cause.to_string()))]
    Client {
        /// What is wrong.
        cause: kube::Error,
    },
    /// Building the client panicked: a bug.
    #[error("building the client panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// Returns a hint to append to a message of the TLS library; empty if there is no hint for it.
pub(super) fn hint(message: &str) -> &'static str {
    const HINTS: [(&str, &str); 2] = [
        (
            "invalid private key",
            "; a client certificate of X.509 version 1 leads to this as well: issue one of version \
             3",
        ),
        (
            "UnknownIssuer",
            "; the certificate authority of the kubeconfig did not sign the server's certificate: \
             it must be the authority's certificate, not the server's own",
        ),
    ];
    HINTS.iter().find(|(text, _)| message.contains(text)).map_or("", |(_, hint)| hint)
}

/// The connection to the API server, shared by all watches.
pub struct Cluster {
    source: Source,
    client: ArcSwap<Client>,
    /// When it was last renewed, in nanoseconds since boot; 0 means never.
    renewed: AtomicU64,
    /// Notified when a watch works again.
    alive: Notify,
}

impl Cluster {
    /// Reads `source`, without connecting to the server.
    ///
    /// Fails if the source cannot be read, because then the configuration is wrong.
    pub async fn open(source: Source) -> Result<Self, ClusterError> {
        let client = build(source.clone()).await?;
        let client = ArcSwap::from_pointee(client);
        Ok(Self { source, client, renewed: AtomicU64::new(0), alive: Notify::new() })
    }

    /// Notes that the server answers again: every watch that waits for it tries at once.
    pub fn lives(&self) {
        self.alive.notify_waiters();
    }

    /// Waits until the server answers another watch again.
    pub async fn life(&self) {
        self.alive.notified().await;
    }

    /// Returns the current client.
    pub fn client(&self) -> Arc<Client> {
        self.client.load_full()
    }

    /// Reads the source again, at most once in `RENEWAL_MIN`. Call it after the server refused our
    /// credentials or could not be reached: addresses, certificates and tokens may have changed.
    /// Old connections are dropped.
    pub async fn renew(&self, now: Moment) {
        let renewed = self.renewed.load(Ordering::Relaxed);
        let taken = || {
            let order = (Ordering::Relaxed, Ordering::Relaxed);
            self.renewed.compare_exchange(renewed, now.nanos(), order.0, order.1)
        };
        if now.since(Moment::from_nanos(renewed)) < RENEWAL_MIN || taken().is_err() {
            return;
        }
        match build(self.source.clone()).await {
            Ok(client) => self.client.store(Arc::new(client)),
            Err(error) => {
                let error = shared::flags::chain(&error);
                tracing::warn!(%error, "the way to the API server stays as it was");
            }
        }
    }
}

/// Builds a client on a separate thread, because exec plugins and files can block.
async fn build(source: Source) -> Result<Client, ClusterError> {
    let config = match source {
        Source::InCluster => {
            kube::Config::incluster_env().map_err(|cause| ClusterError::InCluster { cause })?
        }
        Source::File { path, context } => from_file(&path, context)
            .await
            .map_err(|cause| ClusterError::Kubeconfig { path, cause })?,
        Source::Address(address) => {
            let url = address.url.clone();
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(address.kubeconfig(), &options)
                .await
                .map_err(|cause| ClusterError::Address { url, cause })?
        }
    };
    if config.proxy_url.is_some() {
        tracing::warn!("the kubeconfig or the environment names a proxy: it is passed by");
    }
    let built = tokio::task::spawn_blocking(move || connect(config)).await;
    built.map_err(ClusterError::Panicked)?.map_err(|cause| ClusterError::Client { cause })
}

/// Builds a client that returns every refusal: each watch has its own pauses and its own log lines.
fn connect(mut config: kube::Config) -> Result<Client, kube::Error> {
    let token_file = config.auth_info.token_file.take();
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_MAX));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_nodelay(true);
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .http1_max_buf_size(BUFFER_MAX)
        .build::<_, Body>(connector);
    let http = ServiceExt::<Request<Body>>::map_err(http, BoxError::from);
    let builder = ClientBuilder::new(http, config.default_namespace.clone());
    let builder = builder.with_layer(&config.extra_headers_layer()?);
    let base = config.base_uri_layer();
    if let Some(path) = token_file {
        let authorize = MapRequestLayer::new(move |request| authorized(request, path.as_ref()));
        return Ok(builder.with_layer(&authorize).with_layer(&base).build());
    }
    Ok(match config.auth_layer()? {
        Some(auth) => builder.with_layer(&auth).with_layer(&base).build(),
        None => builder.with_layer(&base).build(),
    })
}

/// Adds the token in the file `path` to `request`. It is read for each request, because the kubelet
/// renews it and requests are rare. White space around the token is removed, as kubectl does.
fn authorized(mut request: Request<Body>, path: &Path) -> Request<Body> {
    match bearer(path) {
        Ok(header) => drop(request.headers_mut().insert(header::AUTHORIZATION, header)),
        Err(error) => {
            let error = shared::flags::chain(&error);
            tracing::warn!(file = %path.display(), error, "no token");
        }
    }
    request
}

fn bearer(path: &Path) -> Result<HeaderValue, TokenError> {
    let text = std::fs::read_to_string(path).map_err(TokenError::Read)?;
    let mut header =
        HeaderValue::from_str(&format!("Bearer {}", text.trim())).map_err(TokenError::Text)?;
    header.set_sensitive(true);
    Ok(header)
}

/// Why a file has no token.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("cannot read it")]
    Read(#[source] std::io::Error),
    #[error("expected one line of printable characters")]
    Text(#[source] axum::http::header::InvalidHeaderValue),
}

async fn from_file(
    path: &Path,
    context: Option<String>,
) -> Result<kube::Config, kube::config::KubeconfigError> {
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await
}

impl Address {
    /// The same as a kubeconfig.
    fn kubeconfig(self) -> Kubeconfig {
        let text = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
        let name = || "only".to_owned();
        let cluster = config::Cluster {
            server: Some(self.url),
            certificate_authority: text(self.authority),
            ..config::Cluster::default()
        };
        let user = config::AuthInfo {
            client_certificate: text(self.certificate),
            client_key: text(self.key),
            ..config::AuthInfo::default()
        };
        let context =
            config::Context { cluster: name(), user: Some(name()), ..config::Context::default() };
        Kubeconfig {
            clusters: vec![config::NamedCluster {
                name: name(),
                cluster: Some(cluster),
                other: BTreeMap::default(),
            }],
            auth_infos: vec![config::NamedAuthInfo {
                name: name(),
                auth_info: Some(user),
                other: BTreeMap::default(),
            }],
            contexts: vec![config::NamedContext {
                name: name(),
                context: Some(context),
                other: BTreeMap::default(),
            }],
            current_context: Some(name()),
            ..Kubeconfig::default()
        }
    }
}

/// The longest time to connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The system probes a silent peer this often.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Bytes read at once, per watch. Larger buffers do not make a first list faster.
const BUFFER_MAX: usize = 64 << 10;
/// The shortest time between renewals: three watches fail together, and an exec plugin can be slow.
const RENEWAL_MIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_is_between_white_space() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [("abc", Some("Bearer abc")), (" abc\r\n", Some("Bearer abc"))] {
            std::fs::write(file.path(), text).unwrap();
            let header = bearer(file.path()).ok();
            assert_eq!(header.as_ref().map(|header| header.to_str().unwrap()), expected);
            assert!(header.is_some_and(|header| header.is_sensitive()));
        }
        std::fs::write(file.path(), "a\nb").unwrap();
        assert!(matches!(bearer(file.path()), Err(TokenError::Text(_))));
        assert!(matches!(bearer(Path::new("/nowhere")), Err(TokenError::Read(_))));
    }

    #[test]
    fn messages_of_the_tls_library_are_explained() {
        let rows = [
            ("invalid private key", "X.509 version 1"),
            ("invalid peer certificate: UnknownIssuer", "not the server's own"),
            ("connection refused", ""),
        ];
        for (message, expected) in rows {
            let hint = hint(message);
            assert!(hint.contains(expected) && hint.is_empty() == expected.is_empty(), "{message}");
        }
    }
}
