//! A path between a client and a DNS server that loses what it is told to lose.
//!
//! Knows datagrams and streams; knows nothing of DNS.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// What arrives at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Datagrams.
    pub udp: bool,
    /// Connections.
    pub tcp: bool,
    /// Replies up to so many bytes.
    pub reply_len_max: usize,
    /// One query of so many is lost; 0 if none is.
    pub lost_every: usize,
}

impl Path {
    /// Everything arrives.
    pub const OPEN: Self = Self { udp: true, tcp: true, reply_len_max: usize::MAX, lost_every: 0 };
}

/// A running proxy. If it is dropped, its port is closed.
pub struct Proxy {
    /// Where clients ask.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Leads to `server`, from a port of `ip`.
    pub async fn start(ip: &str, server: SocketAddr, path: Path) -> Self {
        let (socket, listener) = bind(ip).await;
        let address = socket.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(Arc::new(socket), server, path));
        // A connection that is never accepted waits, as one does whose packets are dropped.
        tasks.spawn(async move {
            while let Ok((mut client, _)) = accept(&listener, path.tcp).await {
                tokio::spawn(async move {
                    let Ok(mut stream) = TcpStream::connect(server).await else { return };
                    // Either end may leave at any time.
                    drop(copy_bidirectional(&mut client, &mut stream).await);
                });
            }
        });
        Self { address, _tasks: tasks }
    }
}

/// The next connection; never one if `is_open` is false.
async fn accept(listener: &TcpListener, is_open: bool) -> std::io::Result<(TcpStream, SocketAddr)> {
    match is_open {
        true => listener.accept().await,
        false => std::future::pending().await,
    }
}

async fn bind(ip: &str) -> (UdpSocket, TcpListener) {
    loop {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
            return (socket, listener);
        }
    }
}

async fn datagrams(socket: Arc<UdpSocket>, server: SocketAddr, path: Path) {
    let mut buffer = vec![0; 65_535];
    let mut count = 0;
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        count += 1;
        let is_lost = path.lost_every > 0 && count % path.lost_every == 0;
        if !path.udp || is_lost {
            continue;
        }
        let (query, socket) = (buffer[..length].to_vec(), Arc::clone(&socket));
        tokio::spawn(async move {
            let own = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
            own.connect(server).await.unwrap();
            own.send(&query).await.unwrap_or_default();
            let mut reply = vec![0; 65_535];
            if let Ok(length) = own.recv(&mut reply).await
                && length <= path.reply_len_max
            {
                socket.send_to(&reply[..length], client).await.unwrap_or_default();
            }
        });
    }
}
