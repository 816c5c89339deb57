//! The sockets of a DNS listener. They are opened first, so that a port in use is the first error
//! that is reported.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::counters::Place;
use super::tls::Certificate;
use super::{kept, mmsg};
use crate::keep::{Bundle, Group};
use crate::wire::Transport;

/// Why the program cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({transport})")]
pub struct BindError {
    /// The address as configured.
    pub address: SocketAddr,
    /// `UDP`, `TCP` or `TLS`.
    pub transport: &'static str,
    /// The error of the system.
    pub source: io::Error,
}

/// One UDP socket, read by one thread.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) socket: UdpSocket,
    /// Whether it is bound to a wildcard, so that replies must have their source address set.
    pub(super) wildcard: bool,
}

/// Bound sockets that do not serve yet.
#[derive(Debug, Default)]
pub struct Sockets {
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    /// For DNS over TLS.
    pub(super) encrypted: Vec<TcpListener>,
    tls_addresses: Vec<SocketAddr>,
    pub(super) certificate: Option<Arc<Certificate>>,
    pub(super) is_held: bool,
}

impl Sockets {
    /// Returns the bound addresses, in the order given. For port 0 they have the port that the
    /// system chose, the same for UDP and TCP.
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Binds `addresses` for DNS over TLS with this certificate as well. They share the limits of
    /// TCP.
    ///
    /// An IPv6 wildcard is skipped as in [`bind`]. The error contains the address.
    pub fn bind_tls(
        &mut self,
        addresses: &[SocketAddr],
        certificate: Certificate,
    ) -> Result<(), BindError> {
        self.certificate = Some(Arc::new(certificate));
        for &address in addresses {
            let bound = tcp(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
            match bound {
                Ok((bound, socket)) => {
                    self.encrypted.push(socket);
                    self.tls_addresses.push(bound);
                }
                Err(error) if is_missing_ipv6(address, &error) && addresses.len() > 1 => {
                    tracing::info!(%address, "no IPv6 on this machine, address passed over");
                }
                Err(source) => return Err(BindError { address, transport: "TLS", source }),
            }
        }
        Ok(())
    }

    /// Returns the bound addresses for DNS over TLS.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// Leaves queries in the sockets until [`super::Opener::open`].
    pub fn hold(&mut self) {
        self.is_held = true;
    }

    /// Returns how many lanes call the handler: one per UDP thread, then one for TCP and for TLS of
    /// each address.
    pub fn lanes(&self) -> usize {
        self.lanes.len() + self.listeners.len() + self.encrypted.len()
    }

    /// Returns descriptors of all sockets, by address. They keep the sockets open.
    pub(crate) fn copies(&self) -> io::Result<Vec<Bundle<OwnedFd>>> {
        let threads = (self.lanes.len() / self.addresses.len().max(1)).max(1);
        let bundle = |transport, address, sockets: Vec<OwnedFd>| {
            let group = Group { transport, address, sockets: sockets.len() };
            Bundle { group, sockets }
        };
        let mut copies = Vec::new();
        let of = self.addresses.iter().zip(self.lanes.chunks(threads)).zip(&self.listeners);
        for ((&address, lanes), listener) in of {
            let udp = lanes.iter().map(|lane| lane.socket.as_fd().try_clone_to_owned());
            copies.push(bundle(Transport::Udp, address, udp.collect::<io::Result<_>>()?));
            let tcp = vec![listener.as_fd().try_clone_to_owned()?];
            copies.push(bundle(Transport::Tcp, address, tcp));
        }
        Ok(copies)
    }

    /// Returns the place of each lane, in their order.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        let threads = self.lanes.len() / self.addresses.len().max(1);
        let udp = self.addresses.iter().flat_map(move |&address| {
            std::iter::repeat_n(Place { address, transport: Transport::Udp }, threads)
        });
        let tcp = self.addresses.iter().chain(&self.tls_addresses);
        udp.chain(tcp.map(|&address| Place { address, transport: Transport::Tcp }))
    }
}

/// Binds every address of `addresses` for UDP, `threads` sockets each, and TCP.
///
/// An IPv6 wildcard on a machine without IPv6 is skipped if another address is bound. The error
/// contains the address.
pub fn bind(addresses: &[SocketAddr], threads: usize) -> Result<Sockets, BindError> {
    bind_beside(addresses, threads, Vec::new())
}

/// Does the same as [`bind`], but takes over those of the sockets `kept` that it would bind
/// otherwise, and closes the others.
pub(crate) fn bind_beside(
    addresses: &[SocketAddr],
    threads: usize,
    mut kept: Vec<Bundle<OwnedFd>>,
) -> Result<Sockets, BindError> {
    let (lanes, listeners, bound) = (Vec::new(), Vec::new(), Vec::new());
    let mut sockets = Sockets { lanes, listeners, addresses: bound, ..Sockets::default() };
    for &address in addresses {
        match bind_one(address, threads.max(1), &mut kept) {
            Ok((lanes, listener, bound)) => {
                sockets.lanes.extend(lanes);
                sockets.listeners.push(listener);
                sockets.addresses.push(bound);
            }
            Err(error) if is_missing_ipv6(address, &error.source) && addresses.len() > 1 => {
                tracing::info!(%address, "no IPv6 on this machine, address passed over");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// Returns whether `address` is the IPv6 wildcard and `error` means that this machine has no IPv6.
pub(crate) fn is_missing_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    address.ip() == std::net::Ipv6Addr::UNSPECIFIED
        && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

type Bound = (Vec<Arc<Lane>>, TcpListener, SocketAddr);

/// Binds TCP and the first socket for UDP without SO_REUSEPORT. So a second instance fails instead
/// of sharing the port, even with an instance that drains and has already closed TCP.
fn bind_one(
    address: SocketAddr,
    threads: usize,
    kept: &mut Vec<Bundle<OwnedFd>>,
) -> Result<Bound, BindError> {
    let tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    let mut last = None;
    for _ in 0..tries {
        let fail = |transport| move |source| BindError { address, transport, source };
        let listener = kept::tcp(kept, address).map_or_else(|| tcp(address), Ok);
        let listener = listener.map_err(fail("TCP"))?;
        let bound = listener.local_addr().map_err(fail("TCP"))?;
        let lanes = kept::udp(kept, address, threads).map_or_else(|| udp_all(bound, threads), Ok);
        match lanes {
            Ok(lanes) => return Ok((lanes, listener, bound)),
            Err(source) => last = Some(fail("UDP")(source)),
        }
    }
    Err(last.expect("at least one try was made"))
}

fn udp_all(address: SocketAddr, threads: usize) -> io::Result<Vec<Arc<Lane>>> {
    let lanes = (0..threads)
        .map(|lane| udp(address, lane > 0).map(Arc::new))
        .collect::<io::Result<Vec<_>>>()?;
    if threads > 1
        && let Err(error) = mmsg::spread(&lanes[0].socket, threads as u32)
    {
        tracing::info!(%error, "datagrams are spread over threads by address hash");
    }
    Ok(lanes)
}

/// Binds one UDP socket. If `shares`, its port can be bound already by sockets of this listener.
/// Other sockets can share the port afterwards.
fn udp(address: SocketAddr, shares: bool) -> io::Result<Lane> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shares)?;
    prepare_udp(&socket)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    lane(socket, address)
}

/// Sets the options that do not depend on how the socket is bound.
pub(super) fn prepare_udp(socket: &Socket) -> io::Result<()> {
    // The kernel grants what rmem_max allows. With a smaller buffer the program can still serve.
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(TURN_MAX))
}

/// Returns the lane of a socket that is bound to `address`.
pub(super) fn lane(socket: Socket, address: SocketAddr) -> io::Result<Lane> {
    let socket = UdpSocket::from(socket);
    let wildcard = address.ip().is_unspecified();
    if wildcard {
        mmsg::ask_destination(&socket, address.is_ipv6())?;
    }
    Ok(Lane { socket, wildcard })
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    prepare_tcp(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets the options that do not depend on how the socket is bound.
pub(super) fn prepare_tcp(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_KERNEL_BYTES) // accepted sockets inherit it
}

/// A port that the system chose for TCP can be in use for UDP. This is how often another is tried.
const PORT_TRIES: usize = 16;
/// How many bytes of replies the kernel buffers if a TCP client does not read; without a bound it
/// buffers megabytes per connection.
const UNSENT_KERNEL_BYTES: u32 = 16 << 10;
/// Connections that the kernel holds before they are accepted; it limits this to `somaxconn`.
const BACKLOG: i32 = 1_024;
/// Enough for about 5,000 queries: 25 ms at 200,000 queries per second.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// How long a thread waits for a datagram before it checks the stop flag and shows that it runs.
const TURN_MAX: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_becomes_one_port_for_both_transports() {
        let sockets = bind(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
        let [address] = sockets.local_addresses() else { panic!("one address") };
        assert_ne!(address.port(), 0);
        assert_eq!(sockets.lanes(), 3);
        let transports = sockets.places().map(|place| (place.address, place.transport));
        let (udp, tcp) = ((*address, Transport::Udp), (*address, Transport::Tcp));
        assert_eq!(transports.collect::<Vec<_>>(), [udp, udp, tcp]);
        assert!(sockets.lanes.iter().all(|lane| lane.socket.local_addr().unwrap() == *address));
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = bind(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
        let address = first.local_addresses()[0];
        let error = bind(&[address], 2).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address} (TCP)"));
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn nobody_shares_the_port_of_one_that_drains() {
        let mut first = bind(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
        let address = first.local_addresses()[0];
        first.listeners.clear();
        let error = bind(&[address], 2).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address} (UDP)"));
        drop(first);
        assert!(bind(&[address], 2).is_ok());
    }

    #[test]
    fn one_client_socket_keeps_all_lanes_busy() {
        let sockets = bind(&["127.0.0.1:0".parse().unwrap()], 4).unwrap();
        // If the system has no such program, the kernel hashes the addresses of datagrams.
        if mmsg::spread(&sockets.lanes[0].socket, 4).is_err() {
            return;
        }
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            client.send_to(b"x", sockets.local_addresses()[0]).unwrap();
        }
        let received = sockets.lanes.iter().map(|lane| {
            lane.socket.set_nonblocking(true).unwrap();
            std::iter::from_fn(|| lane.socket.recv(&mut [0; 1]).ok()).count()
        });
        let received: Vec<usize> = received.collect();
        // A fair draw gives each 50; fewer than 10 once in 10^13 runs.
        assert!(received.iter().all(|&count| count >= 10), "{received:?}");
        assert_eq!(received.iter().sum::<usize>(), 200);
    }
}
