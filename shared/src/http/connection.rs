//! One HTTP connection: answers requests, and cuts a client that does not read.
//!
//! Edge.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::response::Response;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::seats::{Busy, Seat, Told};

/// Serves one connection to its end.
pub(super) async fn serve(
    stream: Impatient,
    router: Router,
    seat: Seat,
    stopping: CancellationToken,
) {
    let router = TowerToHyperService::new(router);
    let held = seat.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let busy = seat.begin();
        request.extensions_mut().insert(seat.clone());
        let response = router.call(request);
        async move {
            response.await.map(|response: Response| response.map(|body| Held { body, _busy: busy }))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_LEN_MAX);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = &mut serving => return log(ended),
        () = stopping.cancelled() => {}
        () = overdue(&held) => {}
        told = held.told() => if told == Told::End { return },
    }
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        ended = serving => log(ended),
        () = held.ended() => {}
        () = sleep(GRACE) => tracing::debug!("HTTP connection cut"),
    }
}

/// Resolves when a connection has been open for [`CONNECTION_MAX`] and has no running stream.
async fn overdue(seat: &Seat) {
    loop {
        sleep(CONNECTION_MAX).await;
        if !seat.is_away() {
            return;
        }
    }
}

fn log(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

/// A response's body. The request counts as busy until it is dropped.
struct Held {
    body: axum::body::Body,
    _busy: Busy,
}

impl Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket whose client must read: a write fails if it makes no progress for too long.
pub(super) struct Impatient {
    stream: TcpStream,
    write_max: Duration,
    /// The deadline of a waiting write.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    /// Returns a socket on which a write fails if the client takes no byte for `write_max`.
    pub(super) fn new(stream: TcpStream, write_max: Duration) -> Self {
        Self { stream, write_max, patience: None }
    }

    /// Returns the result of a write that was `tried`: an error if it has waited for too long.
    fn judge<T>(
        &mut self,
        tried: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.patience = None;
            return tried;
        }
        let write_max = self.write_max;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(write_max)));
        patience.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(tried, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.judge(tried, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The largest request head in bytes.
pub(super) const HEAD_LEN_MAX: usize = 16 * 1024;
/// How long a request head can take, and how long a connection can be idle.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// How long a connection can last, without streams.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// How long requests can take to finish at the end.
const GRACE: Duration = Duration::from_secs(2);
