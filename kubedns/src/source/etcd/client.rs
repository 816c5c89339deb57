//! The connection to etcd: one of its endpoints at a time, and the token of a user.
//!
//! Edge. Knows addresses, files and tokens; does not know the order of requests.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::clock::boot_time;
use tokio::time::timeout;

use super::json::{self, Authenticated, Header, Lease, Page, Refusal, Streamed, Watched};
use crate::source::update::Closed;
use crate::source::watch::cluster::{Address, Cluster, ClusterError, Source};
use crate::source::watch::split::{Lines, TooLong};

/// Where etcd is, and how kubedns is allowed to read it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The addresses of its members, such as `http://127.0.0.1:2379`; at least one.
    pub endpoints: Vec<String>,
    /// The prefix of all keys, with a slash at both ends.
    pub prefix: String,
    /// The certificate that etcd is shown.
    pub certificate: Option<PathBuf>,
    /// The key of the certificate.
    pub key: Option<PathBuf>,
    /// The certificate that etcd is verified with; `None` for those of the system.
    pub authority: Option<PathBuf>,
    /// The user and the password, if etcd has users.
    pub user: Option<(String, String)>,
    /// The bounds of the TTL of a lease, in seconds.
    pub lease_secs: (u32, u32),
}

/// Why etcd cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot use etcd")]
pub struct EtcdError(#[from] ClusterError);

/// A client of etcd.
pub struct Etcd {
    options: Options,
    /// One for each endpoint.
    members: Vec<Cluster>,
    /// The index of the member that is asked.
    at: usize,
    /// The token of the user, after etcd gave one.
    token: Option<HeaderValue>,
}

/// Why the keys cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("cannot ask etcd")]
    Request(#[source] kube::Error),
    #[error("cannot write the request")]
    Build(#[source] axum::http::Error),
    #[error("etcd refuses: {}", .0.message)]
    Refused(Refusal),
    #[error("etcd's token is not printable")]
    Token,
    #[error("the connection broke")]
    Broken(#[source] kube::Error),
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    #[error("etcd ended the watch")]
    Ended,
    #[error("etcd cancelled the watch: {0}")]
    Canceled(String),
    #[error("the data of etcd has gone back to before our revision")]
    WentBack,
    #[error("the answer of etcd cannot be parsed")]
    Nonsense(#[from] serde_json::Error),
    #[error("the answer of etcd has no bound")]
    TooLong(#[from] TooLong),
    #[error("the publisher has stopped")]
    Closed,
}

impl From<Closed> for Trouble {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl Trouble {
    /// Returns whether changes can have been missed, so that all keys must be read again.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::WentBack | Self::Canceled(_) | Self::Nonsense(_) | Self::TooLong(_))
            || matches!(self, Self::Refused(Refusal { code: OUT_OF_RANGE, .. }))
    }

    /// Returns whether the token of the user is not valid any more.
    fn is_of_token(&self) -> bool {
        matches!(self, Self::Refused(Refusal { code: UNAUTHENTICATED, .. }))
            || matches!(self, Self::Refused(refusal) if refusal.message.contains("auth token"))
    }
}

impl Etcd {
    /// Reads the files of `options`, without connecting to etcd.
    ///
    /// Fails if one of them cannot be read.
    pub async fn open(options: Options) -> Result<Self, EtcdError> {
        let mut members = Vec::new();
        for url in &options.endpoints {
            let address = Address {
                url: url.clone(),
                certificate: options.certificate.clone(),
                key: options.key.clone(),
                authority: options.authority.clone(),
            };
            members.push(Cluster::open(Source::Address(address)).await?);
        }
        Ok(Self { options, members, at: 0, token: None })
    }

    /// Returns the address of the member that is asked.
    pub fn endpoint(&self) -> &str {
        &self.options.endpoints[self.at]
    }

    /// Returns the part of `key` after the prefix, if it has the prefix and is text.
    pub fn key(&self, key: &[u8]) -> Option<String> {
        let rest = key.strip_prefix(self.options.prefix.as_bytes())?;
        Some(String::from_utf8_lossy(rest).into_owned())
    }

    /// Returns `key` with the prefix.
    pub fn whole_key(&self, key: &str) -> String {
        format!("{}{key}", self.options.prefix)
    }

    /// Prepares the next try after `trouble`: with a new token, or with the next member.
    pub(super) async fn turn_from(&mut self, trouble: &Trouble) {
        if self.token.is_some() && trouble.is_of_token() {
            self.token = None;
            return;
        }
        self.members[self.at].renew(boot_time()).await;
        if !trouble.is_lost() {
            self.at = (self.at + 1) % self.members.len();
        }
    }

    /// Returns a page of keys, the first from `from`, or of all keys. Pages after the first must be
    /// of the same revision: that of `first`.
    pub(super) async fn range(
        &mut self,
        from: Option<&[u8]>,
        first: Option<Header>,
    ) -> Result<Page, Trouble> {
        let prefix = self.options.prefix.as_bytes();
        let revision = first.map_or(0, |header| header.revision);
        let request = json::range(from.unwrap_or(prefix), prefix, PAGE_LEN, revision);
        self.call("/v3/kv/range", &request).await
    }

    /// Returns the current state of etcd. Fails if the member has no leader.
    pub(super) async fn header(&mut self) -> Result<Header, Trouble> {
        let prefix = self.options.prefix.as_bytes();
        let request = json::range(prefix, prefix, 1, 0);
        Ok(self.call::<Page>("/v3/kv/range", &request).await?.header)
    }

    /// Returns the TTL that a lease was granted, within its bounds, in seconds.
    pub(super) async fn lease_secs(&mut self, lease: i64) -> Result<u32, Trouble> {
        let request = json!({"ID": lease.to_string()});
        let lease: Lease = self.call("/v3/lease/timetolive", &request).await?;
        let (min, max) = self.options.lease_secs;
        Ok(u32::try_from(lease.granted_secs.max(0)).unwrap_or(u32::MAX).clamp(min, max.max(min)))
    }

    /// Starts a watch of all keys from `revision`.
    pub(super) async fn watch(&mut self, revision: u64) -> Result<Stream, Trouble> {
        let request = json::watch(self.options.prefix.as_bytes(), revision);
        let response = self.ask("/v3/watch", &request).await?;
        Ok(Stream { body: response.into_body(), lines: Lines::default() })
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        path: &str,
        request: &Value,
    ) -> Result<T, Trouble> {
        let response = self.ask(path, request).await?;
        let body = timeout(CALL_MAX, collect(response.into_body())).await;
        Ok(serde_json::from_slice(&body.unwrap_or(Err(Trouble::Silent(CALL_MAX)))?)?)
    }

    /// Sends `request`, with the token of the user. Fails if etcd refuses it.
    async fn ask(&mut self, path: &str, request: &Value) -> Result<Response<Body>, Trouble> {
        if let (Some((name, password)), None) = (&self.options.user, &self.token) {
            let request = json!({"name": name, "password": password});
            let response = self.send("/v3/auth/authenticate", &request).await?;
            let Authenticated { token } =
                serde_json::from_slice(&collect(response.into_body()).await?)?;
            let mut token = HeaderValue::from_str(&token).map_err(|_| Trouble::Token)?;
            token.set_sensitive(true);
            self.token = Some(token);
        }
        self.send(path, request).await
    }

    async fn send(&self, path: &str, request: &Value) -> Result<Response<Body>, Trouble> {
        let mut http = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            // A member that loses its leader cancels the watch.
            .header("grpc-metadata-hasleader", "true");
        if let Some(token) = &self.token {
            http = http.header(header::AUTHORIZATION, token);
        }
        let http =
            http.body(Body::from(request.to_string().into_bytes())).map_err(Trouble::Build)?;
        let client = self.members[self.at].client();
        let response = match timeout(CALL_MAX, client.send(http)).await {
            Ok(response) => response.map_err(Trouble::Request)?,
            Err(_) => return Err(Trouble::Silent(CALL_MAX)),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = collect(response.into_body()).await?;
        let unknown = || Refusal { code: 0, message: format!("status {status}") };
        Err(Trouble::Refused(serde_json::from_slice(&text).unwrap_or_else(|_| unknown())))
    }
}

/// Reads a whole body. Fails if it is too long.
async fn collect(mut body: Body) -> Result<Vec<u8>, Trouble> {
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Trouble::Broken)?;
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |bytes| bytes));
        if text.len() > PAGE_BYTES_MAX {
            return Err(TooLong.into());
        }
    }
    Ok(text)
}

/// A watch.
pub(super) struct Stream {
    body: Body,
    lines: Lines,
}

/// What a watch sends next.
pub(super) enum Reply {
    Line(Watched),
    Ended,
}

impl Stream {
    /// Returns the next message.
    pub async fn next(&mut self) -> Result<Reply, Trouble> {
        loop {
            if let Some(line) = self.lines.take()? {
                return match serde_json::from_slice(line)? {
                    Streamed::Result(watched) => Ok(Reply::Line(watched)),
                    Streamed::Error(refusal) => Err(Trouble::Refused(refusal)),
                };
            }
            let Some(frame) = self.body.frame().await else { return Ok(Reply::Ended) };
            let frame = frame.map_err(Trouble::Broken)?;
            if let Some(bytes) = frame.data_ref() {
                self.lines.push(bytes);
            }
        }
    }
}

/// Keys per page.
const PAGE_LEN: usize = 1_000;
/// The most bytes of one page: a value has at most 1.5 MB by default.
const PAGE_BYTES_MAX: usize = 1 << 30;
/// The longest time for one answer.
const CALL_MAX: Duration = Duration::from_secs(10);
/// The code of gRPC for a revision that was compacted, or is still to come.
const OUT_OF_RANGE: u32 = 11;
/// The code of gRPC for a token that is not valid.
const UNAUTHENTICATED: u32 = 16;
