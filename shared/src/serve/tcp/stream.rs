//! The bytes of a connection, as they are or inside TLS.
//!
//! Edge. Never waits except for readiness, and holds at most one record of TLS that the client has
//! not taken.

use std::io::{self, Read, Write};

use rustls::ServerConnection;
use tokio::net::TcpStream;

use crate::serve::tls::Certificate;

/// A connection of a client.
#[derive(Debug)]
pub(super) struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// More decrypted bytes may wait in `tls`.
    has_more: bool,
}

impl Stream {
    /// Returns a connection that has been accepted, with TLS if there is a certificate.
    pub(super) fn new(tcp: TcpStream, certificate: Option<&Certificate>) -> io::Result<Self> {
        let tls = certificate.map(Certificate::accept).transpose()?.map(Box::new);
        // Replies are written as a whole, so a wait to fill a segment would only delay them.
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        Ok(Self { tcp, tls, has_more: false })
    }

    /// Waits until there may be input.
    pub(super) async fn readable(&self) -> io::Result<()> {
        if self.has_more { Ok(()) } else { self.tcp.readable().await }
    }

    /// Waits until bytes can be written.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    /// Returns whether bytes that [`Stream::try_write`] accepted wait for the client.
    pub(super) fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Returns how many bytes it holds for the client, at most.
    pub(super) fn held(&self) -> usize {
        if self.has_unsent() { RECORD_BYTES } else { 0 }
    }

    /// Reads the available input. Returns the number of bytes, 0 at the end of the input.
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.try_read(buffer) };
        if !std::mem::take(&mut self.has_more) {
            if tls.read_tls(&mut Socket(&self.tcp))? == 0 {
                return Ok(0);
            }
            let processed = tls.process_new_packets();
            flush(tls, &self.tcp)?; // handshakes and alerts
            processed.map_err(io::Error::other)?;
        }
        match tls.reader().read(buffer) {
            Ok(received) => {
                self.has_more = received == buffer.len();
                Ok(received)
            }
            other => other,
        }
    }

    /// Writes what the socket accepts of `bytes`, and of those that wait. Returns how many bytes of
    /// `bytes` it took.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return taken(self.tcp.try_write(bytes)) };
        flush(tls, &self.tcp)?;
        if tls.wants_write() || bytes.is_empty() {
            return Ok(0);
        }
        let written = tls.writer().write(&bytes[..bytes.len().min(RECORD_BYTES)])?;
        flush(tls, &self.tcp)?;
        Ok(written)
    }

    /// Sends the end of TLS to the client, if the socket accepts it now.
    pub(super) fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // The connection ends anyway.
            flush(tls, &self.tcp).unwrap_or_default();
        }
    }
}

fn flush(tls: &mut ServerConnection, tcp: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        if taken(tls.write_tls(&mut Socket(tcp)))? == 0 {
            break;
        }
    }
    Ok(())
}

/// Returns 0 if the socket accepts nothing now.
fn taken(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// The socket as TLS uses it.
struct Socket<'s>(&'s TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The longest content of a record (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 << 10;
