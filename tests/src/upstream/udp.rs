//! The upstream over UDP.
//!
//! Edge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::reply::Sending;
use super::{Seen, State, lock};

/// Answers all queries on `socket` until the task is aborted.
pub async fn serve(socket: Arc<UdpSocket>, state: Arc<State>) {
    let elsewhere = UdpSocket::bind(SocketAddr::new(local(&socket).ip(), 0)).await;
    let elsewhere = Arc::new(elsewhere.expect("a port is free"));
    let mut later = JoinSet::new();
    let mut buffer = vec![0; 4_096];
    loop {
        // An error means that the client of an earlier reply has closed its socket.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let seen = Seen {
            message: buffer[..length].to_vec(),
            peer,
            tcp: false,
            connection: None,
            at: Instant::now(),
            lost: false,
        };
        let sendings = state.script().react(seen);
        while later.try_join_next().is_some() {}
        for sending in sendings {
            let socket = Arc::clone(if sending.elsewhere { &elsewhere } else { &socket });
            let held = wait_for(&state, &sending);
            if held.is_none() && sending.after.is_zero() {
                send(&socket, &sending.bytes, peer).await;
                continue;
            }
            later.spawn(async move {
                if let Some(held) = held
                    && held.await.is_err()
                {
                    return; // the upstream ends
                }
                sleep(sending.after).await;
                send(&socket, &sending.bytes, peer).await;
            });
        }
    }
}

/// Returns a channel to wait for if the reply is held back.
pub fn wait_for(state: &State, sending: &Sending) -> Option<oneshot::Receiver<()>> {
    sending.held.then(|| {
        let (release, released) = oneshot::channel();
        lock(&state.held).push(release);
        released
    })
}

async fn send(socket: &UdpSocket, bytes: &[u8], peer: SocketAddr) {
    // The client may have closed its socket.
    socket.send_to(bytes, peer).await.unwrap_or_default();
}

fn local(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("it is bound")
}
