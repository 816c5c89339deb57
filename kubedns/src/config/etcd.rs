//! The flags of etcd, named as etcdctl names its own.
//!
//! Text becomes checked values here.

use std::path::{Path, PathBuf};

use shared::flags;

use crate::name::Name;
use crate::source::etcd::Options;

/// The flags of SkyDNS records in etcd.
#[derive(Clone, Debug, clap::Args)]
pub struct EtcdFlags {
    /// Address of a member of etcd v3 with SkyDNS records, such as http://127.0.0.1:2379
    /// (repeatable). Without --kubeconfig, --api-server, --objects and a service account, kubedns
    /// answers from etcd alone [default: none]
    #[arg(long, value_name = "URL", value_parser = url, requires = "etcd_zone")]
    pub etcd: Vec<String>,
    /// Zone whose records are in etcd (repeatable), such as skydns.local [default: none]
    #[arg(long, value_name = "ZONE", value_parser = zone, requires = "etcd")]
    pub etcd_zone: Vec<Name>,
    /// Prefix of the keys in etcd
    #[arg(long, value_name = "PATH", value_parser = prefix, default_value = "/skydns")]
    pub etcd_prefix: String,
    /// File with the PEM certificate that etcd is verified with [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "etcd")]
    pub etcd_cacert: Option<PathBuf>,
    /// File with the PEM certificate that etcd is shown [default: none]
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "etcd_key"])]
    pub etcd_cert: Option<PathBuf>,
    /// File with the PEM key of --etcd-cert [default: none]
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "etcd_cert"])]
    pub etcd_key: Option<PathBuf>,
    /// User of etcd [default: none]
    #[arg(long, value_name = "NAME", requires_all = ["etcd", "etcd_secret"])]
    pub etcd_user: Option<String>,
    /// Password of --etcd-user; other users of the machine can see flags, but not the environment
    /// [default: none]
    #[arg(long, value_name = "PASSWORD", requires_all = ["etcd", "etcd_user"],
        group = "etcd_secret", hide_env_values = true)]
    pub etcd_password: Option<String>,
    /// File with the password of --etcd-user; white space around it is removed [default: none]
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "etcd_user"],
        group = "etcd_secret")]
    pub etcd_password_file: Option<PathBuf>,
    /// The label * in a key of etcd stands for all names that do not exist (RFC 4592)
    #[arg(long, requires = "etcd")]
    pub etcd_wildcards: bool,
    /// Lower bound in seconds of the TTL that a lease of etcd gives its records, 0 to 86400
    #[arg(long, value_name = "SECONDS", value_parser = flags::seconds(0, 86_400),
        default_value = "30")]
    pub etcd_min_lease_ttl: std::time::Duration,
    /// Upper bound in seconds of the TTL that a lease of etcd gives its records, 0 to 86400
    #[arg(long, value_name = "SECONDS", value_parser = flags::seconds(0, 86_400),
        default_value = "86400")]
    pub etcd_max_lease_ttl: std::time::Duration,
}

impl EtcdFlags {
    /// Returns where etcd is, if it is used.
    ///
    /// Fails if the password cannot be read.
    pub fn options(&self) -> Result<Option<Options>, PasswordError> {
        if self.etcd.is_empty() {
            return Ok(None);
        }
        let password = match &self.etcd_password_file {
            Some(path) => Some(password(path)?),
            None => self.etcd_password.clone(),
        };
        let secs = |bound: std::time::Duration| bound.as_secs() as u32;
        Ok(Some(Options {
            endpoints: self.etcd.clone(),
            prefix: self.etcd_prefix.clone(),
            certificate: self.etcd_cert.clone(),
            key: self.etcd_key.clone(),
            authority: self.etcd_cacert.clone(),
            user: self.etcd_user.clone().zip(password),
            lease_secs: (secs(self.etcd_min_lease_ttl), secs(self.etcd_max_lease_ttl)),
        }))
    }
}

/// A password that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the password of etcd from {path}")]
pub struct PasswordError {
    path: PathBuf,
    source: std::io::Error,
}

fn password(path: &Path) -> Result<String, PasswordError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| PasswordError { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

/// The address of a member.
fn url(text: &str) -> Result<String, UrlError> {
    let url: axum::http::Uri = text.parse().map_err(|_| UrlError)?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    if is_http { Ok(text.trim_end_matches('/').to_owned()) } else { Err(UrlError) }
}

/// A text is not the address of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the URL of a member of etcd, such as http://127.0.0.1:2379")]
pub struct UrlError;

/// A zone in etcd. Its name server must fit below it.
fn zone(text: &str) -> Result<Name, ZoneNameError> {
    let name = Name::parse(text).map_err(|_| ZoneNameError)?;
    if name.wire().len() <= ZONE_LEN_MAX { Ok(name) } else { Err(ZoneNameError) }
}

/// A text is not the name of a zone in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a domain of at most 200 characters, such as skydns.local")]
pub struct ZoneNameError;

/// A prefix, with a slash at both ends.
fn prefix(text: &str) -> Result<String, PrefixError> {
    let inner = text.trim_matches('/');
    let is_path = !inner.is_empty() && inner.split('/').all(|part| !part.is_empty());
    if is_path { Ok(format!("/{inner}/")) } else { Err(PrefixError) }
}

/// A text is not a prefix of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a path such as /skydns")]
pub struct PrefixError;

/// `hostmaster.` and the names of users must fit.
const ZONE_LEN_MAX: usize = 202;
