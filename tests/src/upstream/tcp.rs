//! The upstream over TCP.
//!
//! Edge.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::reply::Sending;
use super::udp::wait_for;
use super::{Seen, State, lock};

/// How an upstream treats connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// How replies are sent.
    pub way: Way,
    /// Whether the next query is read only after the last one is answered. Otherwise each is
    /// answered once its reply is ready (RFC 7766 section 7).
    pub serial: bool,
    /// The number of replies after which the connection is closed.
    pub exchanges_max: Option<usize>,
}

/// How a reply is sent over TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// It is sent.
    #[default]
    Whole,
    /// The connection is closed once it is accepted.
    Closes,
    /// The connection is reset when a query has arrived.
    Resets,
    /// Half of it is sent, then the connection is closed.
    Halves,
    /// Half of it is sent, and the connection stays open.
    Stalls,
    /// It is sent in pieces of 64 bytes, with this pause after each.
    Trickles(Duration),
}

/// Accepts connections until the task is aborted.
pub async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let number = {
            let mut counts = lock(&state.connections);
            counts.push(0);
            counts.len() - 1
        };
        let manner = *lock(&state.manner);
        if manner.way == Way::Closes {
            continue;
        }
        let connection = Connection { number, peer, manner, state: Arc::clone(&state) };
        connections.spawn(async move {
            // The client may close the connection at any time.
            connection.converse(stream).await.unwrap_or_default();
        });
    }
}

/// One connection.
struct Connection {
    number: usize,
    peer: SocketAddr,
    manner: Manner,
    state: Arc<State>,
}

impl Connection {
    async fn converse(self, stream: TcpStream) -> io::Result<()> {
        if self.manner.way == Way::Resets {
            stream.readable().await?;
            return stream.set_zero_linger(); // the reset is sent when it is dropped
        }
        self.exchange(stream).await
    }

    /// Reads queries and answers them until either side closes the connection.
    async fn exchange<S>(self, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut reader, writer) = tokio::io::split(stream);
        let writer = Arc::new(Mutex::new(writer));
        let mut replies = JoinSet::new();
        let mut exchanges = 0;
        while self.manner.exchanges_max.is_none_or(|max| exchanges < max) {
            let mut message = vec![0; usize::from(reader.read_u16().await?)];
            reader.read_exact(&mut message).await?;
            exchanges += 1;
            lock(&self.state.connections)[self.number] += 1;
            let seen = Seen {
                message,
                peer: self.peer,
                tcp: true,
                connection: Some(self.number),
                at: Instant::now(),
                lost: false,
            };
            let sendings = self.state.script().react(seen);
            for sending in sendings {
                let held = wait_for(&self.state, &sending);
                let (writer, way) = (Arc::clone(&writer), self.manner.way);
                let reply = async move {
                    if let Some(held) = held {
                        held.await.map_err(io::Error::other)?;
                    }
                    sleep(sending.after).await;
                    write(&mut *writer.lock().await, &sending, way).await
                };
                match self.manner.serial {
                    true => reply.await?,
                    false => drop(replies.spawn(reply)),
                }
            }
            while let Some(Ok(ended)) = replies.try_join_next() {
                ended?;
            }
        }
        while let Some(Ok(ended)) = replies.join_next().await {
            ended?;
        }
        Ok(())
    }
}

/// Writes a reply, or the part of it that `way` allows. An error ends the connection.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    sending: &Sending,
    way: Way,
) -> io::Result<()> {
    let len = (sending.bytes.len() as u16).to_be_bytes();
    let message = [&len, &sending.bytes[..]].concat();
    let half = &message[..message.len() / 2];
    match way {
        Way::Whole | Way::Closes | Way::Resets => writer.write_all(&message).await,
        Way::Stalls => writer.write_all(half).await,
        Way::Halves => {
            writer.write_all(half).await?;
            writer.shutdown().await?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        Way::Trickles(pause) => {
            for piece in message.chunks(64) {
                writer.write_all(piece).await?;
                sleep(pause).await;
            }
            Ok(())
        }
    }
}
