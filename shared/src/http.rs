//! The HTTP side of every program: a bounded listener, and the routes that all three programs have.
//!
//! Edge. Serves the given router; independent of DNS and of the state of a program.
//!
//! ```text
//! accept ─▶ a seat, made free if need be ─▶ HTTP/1.1 ─▶ router
//!         stop, told to leave, or too long on one connection ─▶ finish the request ─▶ close
//! ```

mod connection;
mod listener;
mod probes;
mod seats;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use tokio::net::TcpListener;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clock::boot_time;
use connection::Impatient;
use seats::Seats;

pub use probes::{checks, health, metrics, ready, standard};
pub use seats::{Away, Seat};

/// Why a program cannot listen for HTTP.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for HTTP on {address}")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A bound socket that does not serve yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Binds `address`, on the current tokio runtime. `[::]` accepts IPv4 as well, and becomes
/// `0.0.0.0` on a machine without IPv6.
///
/// Fails if the address is taken, not on this machine, or not allowed.
pub async fn bind(address: SocketAddr) -> Result<Listener, BindError> {
    let error = |source| BindError { address, source };
    let socket = listener::listen(address).map_err(error)?;
    let address = socket.local_addr().map_err(error)?;
    Ok(Listener { socket, address })
}

impl Listener {
    /// Returns the bound address, with the real port if it was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the same listener on the current tokio runtime.
    ///
    /// Fails if the socket cannot be registered there.
    pub fn here(self) -> io::Result<Self> {
        let socket = TcpListener::from_std(self.socket.into_std()?)?;
        Ok(Self { socket, address: self.address })
    }
}

/// Returns whether a page is to be JSON: `format`, the parameter of the query, decides. Without it,
/// JSON is sent if the client's `Accept` names it.
pub fn wants_json(format: Option<&str>, headers: &HeaderMap) -> bool {
    match format {
        Some(format) => format == "json",
        None => headers
            .get_all(ACCEPT)
            .iter()
            .any(|value| value.to_str().is_ok_and(|value| value.contains("application/json"))),
    }
}

/// Serves `router` until `stopping`. Then lets requests finish within two seconds, and ends.
pub async fn serve(
    listener: Listener,
    router: Router,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    serve_patiently(listener, router, stopping, WRITE_MAX).await
}

/// Does the same as [`serve`]. A client is cut if it reads nothing of a waiting response for
/// `write_max`.
async fn serve_patiently(
    listener: Listener,
    router: Router,
    stopping: CancellationToken,
    write_max: Duration,
) -> Result<(), Infallible> {
    let router = router.layer(DefaultBodyLimit::max(BODY_LEN_MAX));
    let mut seats = Seats::new(CONNECTIONS_MAX, CONNECTIONS_PER_CLIENT_MAX);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(ended) = connections.join_next_with_id() => seats.remove(&id(ended)),
            accepted = listener.socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    let client = peer.ip().to_canonical();
                    if !seats.admit(client) {
                        tracing::debug!(%peer, "too many HTTP connections from one client");
                        continue;
                    }
                    let seat = Seat::new(client, boot_time());
                    let stream = Impatient::new(stream, write_max);
                    let (router, stopping) = (router.clone(), stopping.clone());
                    let serving = connection::serve(stream, router, seat.clone(), stopping);
                    seats.insert(connections.spawn(serving).id(), seat);
                }
                Err(error) => {
                    // No descriptor is left, or the client has gone. Neither must end the listener.
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Returns which connection has ended. A panic in a handler ends only that connection.
fn id(ended: Result<(Id, ()), JoinError>) -> Id {
    ended.map_or_else(
        |error| {
            tracing::error!(%error, "an HTTP handler panicked");
            error.id()
        },
        |(id, ())| id,
    )
}

/// Connections at the same time, without streams: the kubelet, a few scrapers, operators.
const CONNECTIONS_MAX: usize = 64;
/// The maximum of these for one client address.
const CONNECTIONS_PER_CLIENT_MAX: usize = 16;
/// The largest request body in bytes.
const BODY_LEN_MAX: usize = 8 * 1024;
/// How long a client can stop reading before it is cut.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
