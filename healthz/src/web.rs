//! One GET over HTTP/1.1, in plain text or over TLS.
//!
//! Edge. hyper speaks HTTP, rustls speaks TLS; both are bounded in time and in bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use shared::clock::boot_time;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::figures::{Figures, Pages, lines};

/// Where a server is, and how it is asked.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Host and port as they are in the URL.
    pub authority: String,
    /// What the paths begin with; empty or without a final slash.
    pub prefix: String,
    /// Settings and the name in the certificate; `None` for plain text.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The token of the service account or the user.
    pub bearer: Option<String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The header `Date`.
    pub date: Option<String>,
    /// The body.
    pub body: String,
}

impl Origin {
    /// A server in plain text.
    pub fn plain(address: SocketAddr) -> Self {
        Self { authority: address.to_string(), prefix: String::new(), tls: None, bearer: None }
    }

    /// The page at `path`. Fails with one line if there is no answer within `patience`.
    pub async fn get(&self, path: &str, patience: Duration) -> Result<Page, String> {
        match timeout(patience, self.exchange(path)).await {
            Ok(result) => result.map_err(|error| format!("{}: {error}", self.authority)),
            Err(_) => {
                Err(format!("{}: no answer within {} s", self.authority, patience.as_secs_f64()))
            }
        }
    }

    /// Likewise, with a second try: a server that is short of seats closes connections.
    async fn get_again(&self, path: &str, patience: Duration) -> Result<Page, String> {
        let start = boot_time();
        match self.get(path, patience).await {
            Err(_) if boot_time().since(start) < patience / 2 => self.get(path, patience).await,
            result => result,
        }
    }

    async fn exchange(&self, path: &str) -> Result<Page, String> {
        let stream = TcpStream::connect(&self.authority).await;
        let stream = stream.map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            _ => format!("cannot connect: {error}"),
        })?;
        match &self.tls {
            None => self.ask(stream, path).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), stream).await;
                self.ask(stream.map_err(|error| format!("TLS: {error}"))?, path).await
            }
        }
    }

    async fn ask<S>(&self, stream: S, path: &str) -> Result<Page, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let driving = tokio::spawn(connection);
        let mut request = Request::get(format!("{}{path}", self.prefix))
            .header("host", &self.authority)
            .header("user-agent", "healthz-check")
            .header("accept", "application/json, text/plain");
        if let Some(token) = &self.bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(text)?;
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status().as_u16();
        let date = response.headers().get("date").and_then(|value| value.to_str().ok());
        let date = date.map(str::to_owned);
        let body = Limited::new(response.into_body(), BODY_LEN_MAX).collect().await;
        driving.abort();
        let body = body.map_err(|error| format!("cannot read the answer: {error}"))?.to_bytes();
        Ok(Page { status, date, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// The pages of the program whose HTTP address this is. Fails if `/readyz` does not answer.
pub async fn pages(address: SocketAddr, patience: Duration) -> Result<Pages, String> {
    let origin = Origin::plain(address);
    // One after the other, as a polite client does: a program has few seats for each address.
    let ready = origin.get_again("/readyz?verbose", patience).await?;
    let live = origin.get_again("/livez", patience).await;
    let metrics = origin.get_again("/metrics", patience).await;
    Ok(Pages {
        figures: metrics.map(|page| Figures::read(&page.body)).unwrap_or_default(),
        checks: lines(&ready.body),
        is_ready: ready.status == 200,
        is_live: live.is_ok_and(|page| page.status == 200),
    })
}

fn text(error: impl std::error::Error) -> String {
    shared::flags::chain(&error)
}

/// 500 objects of a list, with room for large ones.
const BODY_LEN_MAX: usize = 32 << 20;
