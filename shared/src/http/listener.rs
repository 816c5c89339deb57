//! The socket of the HTTP listener, on every kind of node: IPv4 only, IPv6 only, dual stack.
//!
//! Edge. Binds, but does not accept.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::serve::is_missing_ipv6;

/// Binds and listens on `address`. The wildcard `[::]` accepts connections over IPv4 too, for any
/// value of the sysctl `net.ipv6.bindv6only`. On a machine without IPv6 it becomes `0.0.0.0`.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match listen_on(address) {
        Err(error) if is_missing_ipv6(address, &error) => {
            let fallback = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            tracing::info!(%address, %fallback, "no IPv6 on this machine, HTTP listens on IPv4");
            listen_on(fallback)
        }
        bound => bound,
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit both. A line of a stream must not wait until the client has
    // acknowledged the one before, which it delays by up to 40 ms.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_KERNEL_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// How many bytes of a response the kernel buffers if the client does not read; without a bound it
/// buffers megabytes per connection.
const UNSENT_KERNEL_BYTES: u32 = 16 << 10;
/// Connections that the kernel holds before they are accepted; it limits this to `somaxconn`.
const BACKLOG: i32 = 1_024;

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn the_ipv6_wildcard_takes_both_families() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut families = vec!["127.0.0.1"];
        // A machine without IPv6 has the fallback.
        families.extend(address.is_ipv6().then_some("::1"));
        for family in families {
            let client = SocketAddr::new(family.parse().unwrap(), address.port());
            TcpStream::connect(client).await.unwrap();
            let (accepted, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip().to_canonical(), client.ip());
            assert!(accepted.nodelay().unwrap());
        }
    }

    #[tokio::test]
    async fn one_family_stays_one_family() {
        for text in ["0.0.0.0:0", "127.0.0.1:0"] {
            let address = listen(text.parse().unwrap()).unwrap().local_addr().unwrap();
            assert!(address.is_ipv4() && text.starts_with(&address.ip().to_string()), "{address}");
        }
    }

    #[test]
    fn only_a_missing_family_leads_to_the_other() {
        let rows = [
            ("[::]:53", libc::EAFNOSUPPORT, true),
            ("[::]:53", libc::EADDRNOTAVAIL, true),
            ("[::]:53", libc::EADDRINUSE, false),
            ("[::]:53", libc::EACCES, false),
            ("[::1]:53", libc::EADDRNOTAVAIL, false),
            ("0.0.0.0:53", libc::EAFNOSUPPORT, false),
        ];
        for (address, code, expected) in rows {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(is_missing_ipv6(address.parse().unwrap(), &error), expected, "{address}");
        }
    }
}
