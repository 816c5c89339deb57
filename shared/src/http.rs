//! The HTTP side of every program: a bounded listener, and the routes that all three answer alike.
//!
//! Edge. Serves whatever router it is given; knows no DNS and no state of a program.
//!
//! ```text
//! accept (a seat is free, the client has not too many) ─▶ HTTP/1.1 ─▶ router
//!         stop, or too long on one connection ─▶ finish the request ─▶ close
//! ```

mod listener;
mod probes;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

pub use probes::{checks, metrics, standard};

/// Why a program cannot listen for HTTP.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for HTTP on {address}")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A bound socket; nobody is answered yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Binds `address`, on the current tokio runtime. `[::]` takes IPv4 as well, and becomes `0.0.0.0`
/// on a machine without IPv6.
///
/// Fails where the address is taken, not ours, or not allowed.
pub async fn bind(address: SocketAddr) -> Result<Listener, BindError> {
    let error = |source| BindError { address, source };
    let socket = listener::listen(address).map_err(error)?;
    let address = socket.local_addr().map_err(error)?;
    Ok(Listener { socket, address })
}

impl Listener {
    /// The bound address; port 0 has become a real one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The place of a connection among those allowed at the same time; in the extensions of every
/// request. A handler that streams without end [leaves](Self::leave) it, and bounds such streams by
/// itself: neither the limit on connections nor their greatest age holds for them then.
#[derive(Clone, Debug)]
pub struct Seat(Arc<SeatState>);

#[derive(Debug)]
struct SeatState {
    taken: AtomicBool,
    seats: Arc<Semaphore>,
}

impl Seat {
    /// Makes room for another connection; this one goes on.
    pub fn leave(&self) {
        self.0.leave();
    }

    fn is_taken(&self) -> bool {
        self.0.taken.load(Ordering::Relaxed)
    }
}

impl SeatState {
    fn leave(&self) {
        if self.taken.swap(false, Ordering::Relaxed) {
            self.seats.add_permits(1);
        }
    }
}

impl Drop for SeatState {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Serves `router` until `stopping`; then lets requests finish within two seconds and ends.
pub async fn serve(
    listener: Listener,
    router: Router,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    let router = router.layer(DefaultBodyLimit::max(BODY_LEN_MAX));
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut seated = HashMap::<Id, (IpAddr, Seat)>::new();
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(ended) = connections.join_next_with_id() => drop(seated.remove(&id(ended))),
            (stream, peer, seat) = accept(&listener.socket, &seats) => {
                let of_client = |(ip, seat): &&(IpAddr, Seat)| *ip == peer.ip() && seat.is_taken();
                if seated.values().filter(of_client).count() == CONNECTIONS_PER_CLIENT_MAX {
                    tracing::debug!(%peer, "too many HTTP connections from one client");
                    continue;
                }
                let serving = connection(stream, router.clone(), seat.clone(), stopping.clone());
                seated.insert(connections.spawn(serving).id(), (peer.ip(), seat));
            }
        }
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// The next connection, once there is a seat for it.
async fn accept(socket: &TcpListener, seats: &Arc<Semaphore>) -> (TcpStream, SocketAddr, Seat) {
    let permit = seats.acquire().await.expect("the semaphore is never closed");
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                permit.forget(); // the seat gives it back
                // A client over IPv4 is the same client on a socket for both families.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let state = SeatState { taken: AtomicBool::new(true), seats: Arc::clone(seats) };
                return (stream, peer, Seat(Arc::new(state)));
            }
            Err(error) => {
                // Out of descriptors, or the client has gone: neither ends the listener.
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end.
async fn connection(stream: TcpStream, router: Router, seat: Seat, stopping: CancellationToken) {
    let router = TowerToHyperService::new(router);
    let held = seat.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(seat.clone());
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_LEN_MAX);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = &mut serving => return log(ended),
        () = stopping.cancelled() => {}
        () = overdue(&held) => {}
    }
    serving.as_mut().graceful_shutdown();
    match tokio::time::timeout(GRACE, serving).await {
        Ok(ended) => log(ended),
        Err(_) => tracing::debug!("HTTP connection cut"),
    }
}

/// Resolves when a connection has been open for [`CONNECTION_MAX`]; never for a stream.
async fn overdue(seat: &Seat) {
    tokio::time::sleep(CONNECTION_MAX).await;
    if !seat.is_taken() {
        std::future::pending::<()>().await;
    }
}

/// Which connection has ended; a panic in a handler costs that connection.
fn id(ended: Result<(Id, ()), JoinError>) -> Id {
    ended.map_or_else(
        |error| {
            tracing::error!(%error, "an HTTP handler panicked");
            error.id()
        },
        |(id, ())| id,
    )
}

fn log(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

/// Connections at the same time, streams not counted: the kubelet, a few scrapers, people.
const CONNECTIONS_MAX: usize = 64;
/// Of these for one client address, so that one cannot keep the kubelet out.
const CONNECTIONS_PER_CLIENT_MAX: usize = 16;
/// The largest request body in bytes.
const BODY_LEN_MAX: usize = 8 * 1024;
/// The largest request head in bytes.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// How long a request head may take, and a connection be idle.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// How long a connection may last: longer is a client that does not read.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// How long requests may take to finish at the end.
const GRACE: Duration = Duration::from_secs(2);
/// Time to breathe after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
