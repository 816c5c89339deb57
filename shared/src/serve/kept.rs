//! Sockets of an earlier run, taken over in place of new ones.
//!
//! Edge. A socket is taken over only if it is what would be bound. The others are closed, so that
//! the address is free.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use socket2::{Socket, Type};

use super::sockets::{self, Lane};
use crate::keep::Bundle;
use crate::wire::Transport;

/// Removes the UDP sockets of `address` from `kept`. Returns them if there are `threads` and all
/// are valid. The kernel still spreads datagrams over them as it did.
pub(super) fn udp(
    kept: &mut Vec<Bundle<OwnedFd>>,
    address: SocketAddr,
    threads: usize,
) -> Option<Vec<Arc<Lane>>> {
    let sockets = remove(kept, Transport::Udp, address)?;
    if sockets.len() != threads {
        return None;
    }
    let lane = |socket: Socket| {
        check(&socket, address, Type::DGRAM)?;
        sockets::prepare_udp(&socket)?;
        socket.set_reuse_port(true)?;
        sockets::lane(socket, address).map(Arc::new)
    };
    let lanes = sockets.into_iter().map(|socket| lane(socket.into())).collect();
    report(lanes, address, "UDP")
}

/// Removes the TCP listener of `address` from `kept`. Returns it if it is valid.
pub(super) fn tcp(kept: &mut Vec<Bundle<OwnedFd>>, address: SocketAddr) -> Option<TcpListener> {
    let socket = Socket::from(remove(kept, Transport::Tcp, address)?.pop()?);
    let prepared = check(&socket, address, Type::STREAM).and_then(|()| {
        if !socket.is_listener()? {
            return Err(io::Error::other("it does not listen"));
        }
        sockets::prepare_tcp(&socket)
    });
    report(prepared.map(|()| socket.into()), address, "TCP")
}

fn remove(
    kept: &mut Vec<Bundle<OwnedFd>>,
    transport: Transport,
    address: SocketAddr,
) -> Option<Vec<OwnedFd>> {
    let is_it = |bundle: &Bundle<OwnedFd>| {
        (bundle.group.transport, bundle.group.address) == (transport, address)
    };
    let at = kept.iter().position(is_it)?;
    Some(kept.swap_remove(at).sockets)
}

/// Checks that `socket` is of this type and is bound to exactly `address`.
fn check(socket: &Socket, address: SocketAddr, kind: Type) -> io::Result<()> {
    if socket.r#type()? != kind || socket.local_addr()?.as_socket() != Some(address) {
        return Err(io::Error::other("it is another socket"));
    }
    if address.is_ipv6() && !socket.only_v6()? {
        return Err(io::Error::other("it receives IPv4 as well"));
    }
    Ok(())
}

fn report<T>(taken: io::Result<T>, address: SocketAddr, transport: &str) -> Option<T> {
    let failed = |error| tracing::warn!(%address, transport, %error, "a kept socket is not used");
    taken.map_err(failed).ok()
}
