//! The addresses of a datagram in the kernel's form: socket addresses and control messages.
//!
//! Edge. Reads and writes the given buffers, and makes no system call.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for one IP_PKTINFO or IPV6_PKTINFO control message.
pub(super) const CONTROL_LEN: usize = 64;

/// A control buffer, aligned as `cmsghdr` requires.
#[repr(C, align(8))]
pub(super) struct Control([u8; CONTROL_LEN]);

/// Returns the address in `name`; `None` if it is neither IPv4 nor IPv6.
#[inline]
pub(super) fn peer(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let name = &raw const *name;
    // SAFETY: sockaddr_storage is large enough and aligned for both, and the family says which one
    // the kernel wrote.
    unsafe {
        match libc::c_int::from((*name).ss_family) {
            libc::AF_INET => {
                let v4 = &*name.cast::<libc::sockaddr_in>();
                let address = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(address, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let v6 = &*name.cast::<libc::sockaddr_in6>();
                let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(address, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// Writes `address` for the kernel. Returns its length there.
pub(super) fn write_name(name: &mut libc::sockaddr_storage, address: &SocketAddr) -> u32 {
    let name = &raw mut *name;
    // SAFETY: sockaddr_storage is large enough and aligned for both.
    unsafe {
        match address {
            SocketAddr::V4(v4) => {
                name.cast::<libc::sockaddr_in>().write(libc::sockaddr_in {
                    sin_family: libc::AF_INET as _,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                    sin_zero: [0; 8],
                });
                mem::size_of::<libc::sockaddr_in>() as u32
            }
            SocketAddr::V6(v6) => {
                name.cast::<libc::sockaddr_in6>().write(libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as _,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                });
                mem::size_of::<libc::sockaddr_in6>() as u32
            }
        }
    }
}

/// Returns the local address in the control messages of a received datagram.
///
/// # Safety
///
/// `header` must lead to control messages that the kernel wrote, `msg_controllen` bytes in all,
/// which must not be written meanwhile.
#[inline]
pub(super) unsafe fn local(header: &libc::mmsghdr) -> Option<(IpAddr, u32)> {
    let message = &raw const header.msg_hdr;
    // SAFETY: the kernel writes well-formed messages, and the level and type say what each one's
    // data is. They are only read, and the data without assuming alignment.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(message);
        while !control.is_null() {
            match ((*control).cmsg_level, (*control).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo =
                        libc::CMSG_DATA(control).cast::<libc::in_pktinfo>().read_unaligned();
                    let address = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    return Some((address.into(), 0));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo =
                        libc::CMSG_DATA(control).cast::<libc::in6_pktinfo>().read_unaligned();
                    let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    let link_local = address.is_unicast_link_local();
                    let interface = if link_local { info.ipi6_ifindex as u32 } else { 0 };
                    return Some((address.into(), interface));
                }
                _ => control = libc::CMSG_NXTHDR(message, control),
            }
        }
        None
    }
}

/// Writes the control message that splits a message into datagrams of `len` bytes. Returns the
/// length of the control data.
pub(super) fn write_segment(control: &mut Control, len: u16) -> usize {
    let start = control.0.as_mut_ptr().cast::<libc::cmsghdr>();
    let size = mem::size_of_val(&len) as u32;
    // SAFETY: Control is aligned for cmsghdr and, with 64 bytes, larger than CMSG_SPACE of a u16.
    unsafe {
        (*start).cmsg_len = libc::CMSG_LEN(size) as _;
        (*start).cmsg_level = libc::SOL_UDP;
        (*start).cmsg_type = libc::UDP_SEGMENT;
        libc::CMSG_DATA(start).cast::<u16>().write_unaligned(len);
        libc::CMSG_SPACE(size) as usize
    }
}

/// Writes the control message that sets `address` as the source of a datagram. Returns the length
/// of the control data.
pub(super) fn write_local(control: &mut Control, address: IpAddr, interface: u32) -> usize {
    let start = control.0.as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: Control is aligned for cmsghdr and, with 64 bytes, larger than CMSG_SPACE of either
    // structure.
    unsafe {
        match address {
            IpAddr::V4(v4) => {
                let source = libc::in_addr { s_addr: u32::from(v4).to_be() };
                let info = libc::in_pktinfo {
                    ipi_ifindex: interface as _,
                    ipi_spec_dst: source,
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let len = mem::size_of::<libc::in_pktinfo>() as u32;
                (*start).cmsg_len = libc::CMSG_LEN(len) as _;
                (*start).cmsg_level = libc::IPPROTO_IP;
                (*start).cmsg_type = libc::IP_PKTINFO;
                libc::CMSG_DATA(start).cast::<libc::in_pktinfo>().write_unaligned(info);
                libc::CMSG_SPACE(len) as usize
            }
            IpAddr::V6(v6) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: v6.octets() },
                    ipi6_ifindex: interface as _,
                };
                let len = mem::size_of::<libc::in6_pktinfo>() as u32;
                (*start).cmsg_len = libc::CMSG_LEN(len) as _;
                (*start).cmsg_level = libc::IPPROTO_IPV6;
                (*start).cmsg_type = libc::IPV6_PKTINFO;
                libc::CMSG_DATA(start).cast::<libc::in6_pktinfo>().write_unaligned(info);
                libc::CMSG_SPACE(len) as usize
            }
        }
    }
}
