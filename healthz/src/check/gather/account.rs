//! Who asks the API server, and where it is: a URL, a kubeconfig file, or the service account of
//! the pod.
//!
//! Edge. Reads files and the environment. Plugins of kubeconfig files are other programs, and are
//! not run: `kubectl proxy` and `--api` work with each of them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use super::read;
use crate::check::Access;
use crate::web::Origin;

/// Returns the API server of `access`. Fails with one line if none is given and this is not a pod
/// with a service account.
pub fn origin(access: &Access) -> Result<Origin, String> {
    if let Some(url) = &access.api {
        return from_url(url, None, None);
    }
    match &access.kubeconfig {
        Some(file) => from_kubeconfig(file, access.context.as_deref()),
        None => from_pod(),
    }
}

/// The namespace of the pod that this program runs in.
pub fn namespace() -> Option<String> {
    let text = std::fs::read_to_string(format!("{ACCOUNT}/namespace")).ok()?;
    Some(text.trim().to_owned())
}

fn from_pod() -> Result<Origin, String> {
    let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (host, port) = of("KUBERNETES_SERVICE_HOST")
        .zip(of("KUBERNETES_SERVICE_PORT"))
        .ok_or("no API server is given (--kubeconfig, --api), and this is not a pod")?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let token = read(Path::new(&format!("{ACCOUNT}/token")))?;
    let roots = read(Path::new(&format!("{ACCOUNT}/ca.crt")))?;
    let config = client(roots.as_bytes(), None)?;
    from_url(&format!("https://{host}:{port}"), Some(config), Some(token.trim().to_owned()))
}

fn from_url(
    url: &str,
    config: Option<ClientConfig>,
    bearer: Option<String>,
) -> Result<Origin, String> {
    let wrong = || format!("API server '{url}': expected http://HOST:PORT or https://HOST:PORT");
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(wrong()),
    };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => authority,
    };
    let has_port = host.len() < authority.len();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.is_empty() {
        return Err(wrong());
    }
    let tls = match (scheme, config) {
        ("http", _) => None,
        (_, Some(config)) => {
            let name = match bare.parse::<IpAddr>() {
                Ok(address) => ServerName::from(address),
                Err(_) => ServerName::try_from(bare.to_owned()).map_err(|_| wrong())?,
            };
            Some((Arc::new(config), name))
        }
        (_, None) => return Err("--api takes http://; for https:// use --kubeconfig".to_owned()),
    };
    let authority = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
    let prefix = path.trim_end_matches('/');
    let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    Ok(Origin { authority, prefix, tls, bearer })
}

/// A client that trusts `roots`, in PEM, and shows the certificate if there is one.
fn client(
    roots: &[u8],
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, String> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots) {
        let root = root.map_err(|error| format!("certificate authority: {error}"))?;
        store.add(root).map_err(|error| format!("certificate authority: {error}"))?;
    }
    if store.is_empty() {
        return Err("the certificate authority of the API server is empty".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the versions that rustls does")
        .with_root_certificates(store);
    match own {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("certificate: {error}")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    clusters: Vec<Named<ClusterEntry>>,
    contexts: Vec<Named<Context>>,
    #[serde(default)]
    users: Vec<Named<User>>,
}

#[derive(Debug, Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "context", alias = "user")]
    value: T,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    #[serde(rename = "auth-provider")]
    auth_provider: Option<serde::de::IgnoredAny>,
}

fn from_kubeconfig(file: &Path, context: Option<&str>) -> Result<Origin, String> {
    let shown = file.display();
    let config: Kubeconfig =
        serde_saphyr::from_str(&read(file)?).map_err(|error| format!("{shown}: {error}"))?;
    let name = context.unwrap_or(&config.current_context);
    let missing = |kind: &str, name: &str| format!("{shown}: there is no {kind} '{name}'");
    let context = find(&config.contexts, name).ok_or_else(|| missing("context", name))?;
    let cluster = find(&config.clusters, &context.cluster)
        .ok_or_else(|| missing("cluster", &context.cluster))?;
    let nobody = User::default();
    let user = find(&config.users, &context.user).unwrap_or(&nobody);
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err(format!(
            "{shown}: the user '{}' needs a plugin, which is not run; start `kubectl proxy` and \
             use --api=http://127.0.0.1:8001",
            context.user
        ));
    }
    let place = file.parent().unwrap_or(Path::new("."));
    let token = match (&user.token, &user.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => Some(read(&place.join(path))?.trim().to_owned()),
        (None, None) => None,
    };
    if cluster.server.starts_with("http://") {
        return from_url(&cluster.server, None, token);
    }
    let of = |inline: &Option<String>, path: &Option<PathBuf>| material(inline, path, place);
    let roots = of(&cluster.certificate_authority_data, &cluster.certificate_authority)?;
    let roots =
        roots.ok_or_else(|| format!("{shown}: the cluster has no certificate authority"))?;
    let chain = of(&user.client_certificate_data, &user.client_certificate)?;
    let key = of(&user.client_key_data, &user.client_key)?;
    let own = match chain.zip(key) {
        None => None,
        Some((chain, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
            let key = PrivateKeyDer::from_pem_slice(&key);
            let wrong = |error| format!("{shown}: client certificate: {error}");
            Some((chain.map_err(wrong)?, key.map_err(wrong)?))
        }
    };
    from_url(&cluster.server, Some(client(&roots, own)?), token)
}

fn find<'a, T>(all: &'a [Named<T>], name: &str) -> Option<&'a T> {
    all.iter().find(|named| named.name == name).map(|named| &named.value)
}

/// PEM text that is in the file itself as base64, or in another file.
fn material(
    inline: &Option<String>,
    path: &Option<PathBuf>,
    place: &Path,
) -> Result<Option<Vec<u8>>, String> {
    match (inline, path) {
        (Some(text), _) => {
            let bytes = BASE64_STANDARD.decode(text.trim());
            bytes.map(Some).map_err(|error| format!("kubeconfig: {error}"))
        }
        (None, Some(path)) => read(&place.join(path)).map(|text| Some(text.into_bytes())),
        (None, None) => Ok(None),
    }
}

/// Where the kubelet puts the token, the authority and the namespace of a pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_hosts_with_ports_and_a_prefix() {
        let rows = [
            ("http://127.0.0.1:8001", Ok(("127.0.0.1:8001", ""))),
            ("http://127.0.0.1", Ok(("127.0.0.1:80", ""))),
            ("http://[::1]:8001/a/b/", Ok(("[::1]:8001", "/a/b"))),
            ("http://[::1]/", Ok(("[::1]:80", ""))),
            ("https://127.0.0.1", Err("use --kubeconfig")),
            ("ftp://127.0.0.1", Err("expected http://")),
            ("127.0.0.1:8001", Err("expected http://")),
            ("http://:80", Err("expected http://")),
        ];
        for (url, expected) in rows {
            let found = from_url(url, None, None);
            match expected {
                Ok((authority, prefix)) => {
                    let found = found.unwrap();
                    assert_eq!(
                        (found.authority.as_str(), found.prefix.as_str()),
                        (authority, prefix)
                    );
                }
                Err(part) => assert!(found.unwrap_err().contains(part), "{url}"),
            }
        }
    }

    #[test]
    fn kubeconfig_files_are_read() {
        let place = std::env::temp_dir().join(format!("healthz-kubeconfig-{}", std::process::id()));
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
                    clusters:\n- name: c\n  cluster: {server: \"http://127.0.0.1:7\"}\n\
                    contexts:\n- name: a\n  context: {cluster: c, user: u}\n\
                    - name: b\n  context: {cluster: c, user: p}\n\
                    users:\n- name: u\n  user: {token: secret}\n\
                    - name: p\n  user: {exec: {command: aws, args: [x]}}\n";
        std::fs::write(&place, text).unwrap();
        let origin = from_kubeconfig(&place, None).unwrap();
        assert_eq!(
            (origin.authority.as_str(), origin.bearer.as_deref()),
            ("127.0.0.1:7", Some("secret"))
        );
        assert!(from_kubeconfig(&place, Some("b")).unwrap_err().contains("needs a plugin"));
        assert!(from_kubeconfig(&place, Some("z")).unwrap_err().contains("no context 'z'"));
        std::fs::remove_file(&place).unwrap();
        assert!(from_kubeconfig(&place, None).unwrap_err().contains("cannot read"));
    }
}
