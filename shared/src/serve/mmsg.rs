//! Batches of datagrams by one system call each: `recvmmsg`, `sendmmsg`, and the socket options no
//! crate wraps.
//!
//! Edge, and the only file of the workspace with `unsafe`: no safe crate offers both calls without
//! allocating. Knows addresses and bytes; knows nothing of DNS.
//!
//! Soundness rests on two facts: every pointer handed to the kernel points into a boxed array owned
//! by the same value, which never moves and outlives the call; and lengths read back are bounded by
//! the capacities handed in.
#![allow(unsafe_code)] // as above

mod joined;

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use crate::clock::Moment;
use crate::wire::UDP_SIZE_MAX;

/// Datagrams per system call: past 16 the gain is gone, and a reply waits for its whole batch.
pub const BATCH: usize = 16;
/// The largest datagram received whole; a longer one is marked truncated.
pub const DATAGRAM_MAX: usize = 2_048;
/// Room for one IP_PKTINFO or IPV6_PKTINFO control message.
const CONTROL_LEN: usize = 64;

/// The current [`Moment`]: CLOCK_BOOTTIME, read without entering the kernel.
pub fn boot_time() -> Moment {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is valid for a timespec; CLOCK_BOOTTIME exists on every Linux we build
    // for, so it is filled.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_BOOTTIME, time.as_mut_ptr());
        time.assume_init()
    };
    Moment::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The other end of a datagram, and the local address it was sent to where the socket is bound to a
/// wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who sent it, or whom it goes to.
    pub peer: SocketAddr,
    /// Which of our addresses it came to and the reply must leave from, with the interface for
    /// link-local ones.
    pub local: Option<(IpAddr, u32)>,
}

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its bytes, at most [`DATAGRAM_MAX`].
    pub bytes: &'a [u8],
    /// Whether bytes behind those were cut off.
    pub truncated: bool,
    /// Where it came from; nothing on connected sockets opened without addresses.
    pub ends: Option<Ends>,
}

/// Up to [`BATCH`] datagrams received by one call, in memory that is reused.
pub struct Inbox {
    slots: Box<Slots<DATAGRAM_MAX>>,
    addresses: bool,
    control: bool,
    used: usize,
}

impl Inbox {
    /// Memory for one batch. `addresses`: note who sent each datagram; `control`: and which local
    /// address it came to.
    pub fn new(addresses: bool, control: bool) -> Self {
        let mut slots = Slots::boxed();
        for header in &mut slots.headers {
            if !addresses {
                header.msg_hdr.msg_name = std::ptr::null_mut();
            }
            if !control {
                header.msg_hdr.msg_control = std::ptr::null_mut();
            }
        }
        // Every slot is armed once; later only those used are armed again.
        let mut inbox = Self { slots, addresses, control, used: BATCH };
        inbox.arm();
        inbox
    }

    /// Receives what is there: with `wait`, blocks for the first datagram until the socket's read
    /// timeout. Yields how many came.
    ///
    /// Fails as `recvmmsg` does; `WouldBlock` when nothing came.
    pub fn receive(&mut self, socket: &UdpSocket, wait: bool) -> io::Result<usize> {
        self.arm();
        let flags = if wait { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        // SAFETY: `headers` holds BATCH initialised entries whose pointers lead into `self.slots`.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.slots.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                flags,
                std::ptr::null_mut(),
            )
        };
        self.used = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.used)
    }

    /// Datagram `index` of the last batch.
    ///
    /// Panics when `index` is not below what [`Inbox::receive`] yielded.
    pub fn datagram(&self, index: usize) -> Datagram<'_> {
        assert!(index < self.used, "datagram {index} of {}", self.used);
        let header = &self.slots.headers[index];
        let len = (header.msg_len as usize).min(DATAGRAM_MAX);
        let ends = if self.addresses {
            peer(&self.slots.names[index])
                .map(|peer| Ends { peer, local: self.control.then(|| local(header)).flatten() })
        } else {
            None
        };
        Datagram {
            bytes: &self.slots.buffers[index][..len],
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            ends,
        }
    }

    /// Sets the lengths that the last call overwrote.
    fn arm(&mut self) {
        for header in &mut self.slots.headers[..self.used] {
            header.msg_hdr.msg_namelen =
                if self.addresses { mem::size_of::<libc::sockaddr_storage>() as u32 } else { 0 };
            header.msg_hdr.msg_controllen = if self.control { CONTROL_LEN as _ } else { 0 };
            header.msg_hdr.msg_flags = 0;
        }
        self.used = 0;
    }
}

/// Up to [`BATCH`] datagrams sent by one call, written in place.
pub struct Batch {
    slots: Box<Slots<UDP_SIZE_MAX>>,
    used: usize,
}

impl Batch {
    /// Memory for one batch.
    pub fn new() -> Self {
        Self { slots: Slots::boxed(), used: 0 }
    }

    /// Whether another datagram has no room before [`Batch::send`].
    pub fn is_full(&self) -> bool {
        self.used == BATCH
    }

    /// How many datagrams wait to be sent.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The buffer of the next datagram, [`UDP_SIZE_MAX`] bytes.
    ///
    /// Panics when the batch is full.
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.slots.buffers[self.used]
    }

    /// Takes the first `len` bytes of [`Batch::buffer`] as the next datagram; `ends` is nothing on
    /// connected sockets.
    pub fn commit(&mut self, len: usize, ends: Option<&Ends>) {
        let slots = &mut *self.slots;
        let header = &mut slots.headers[self.used].msg_hdr;
        slots.vectors[self.used].iov_len = len.min(UDP_SIZE_MAX);
        match ends {
            Some(ends) => {
                let name = &mut slots.names[self.used];
                header.msg_namelen = write_name(name, &ends.peer);
                header.msg_name = (&raw mut *name).cast();
                let control = &mut slots.controls[self.used];
                header.msg_controllen = match ends.local {
                    Some((address, interface)) => write_local(control, address, interface) as _,
                    None => 0,
                };
                header.msg_control = match ends.local {
                    Some(_) => (&raw mut *control).cast(),
                    None => std::ptr::null_mut(),
                };
            }
            None => {
                header.msg_name = std::ptr::null_mut();
                header.msg_namelen = 0;
                header.msg_control = std::ptr::null_mut();
                header.msg_controllen = 0;
            }
        }
        self.used += 1;
    }

    /// Sends what was committed; yields how many datagrams the kernel did not take.
    ///
    /// A datagram that cannot be sent (its peer is gone, a firewall says no) is passed over; a full
    /// send buffer drops the rest, as UDP may.
    pub fn send(&mut self, socket: &UdpSocket) -> usize {
        let mut at = 0;
        let mut dropped = 0;
        while at < self.used {
            // SAFETY: entries `at..used` were committed; their pointers lead into `self.slots` or
            // are null.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.slots.headers.as_mut_ptr().add(at),
                    (self.used - at) as libc::c_uint,
                    libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) => at += sent,
                Err(_) => match io::Error::last_os_error().kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        dropped += self.used - at;
                        break;
                    }
                    _ => {
                        dropped += 1;
                        at += 1;
                    }
                },
            }
        }
        self.used = 0;
        dropped
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// The arrays that the kernel reads and writes; boxed, so that the pointers between them stay
/// right.
struct Slots<const LEN: usize> {
    headers: [libc::mmsghdr; BATCH],
    vectors: [libc::iovec; BATCH],
    names: [libc::sockaddr_storage; BATCH],
    controls: [Control; BATCH],
    buffers: [[u8; LEN]; BATCH],
}

/// A control buffer, aligned as `cmsghdr` needs it.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

// SAFETY: the raw pointers lead only into the value's own box; it may be moved to and used from
// another thread.
unsafe impl<const LEN: usize> Send for Slots<LEN> {}

impl<const LEN: usize> Slots<LEN> {
    fn boxed() -> Box<Self> {
        // SAFETY: all zeros is a valid value of every field: integers, byte arrays and null
        // pointers.
        let mut slots: Box<Self> = Box::new(unsafe { mem::zeroed() });
        let this = &mut *slots;
        for index in 0..BATCH {
            this.vectors[index] =
                libc::iovec { iov_base: this.buffers[index].as_mut_ptr().cast(), iov_len: LEN };
            let header = &mut this.headers[index].msg_hdr;
            header.msg_iov = &raw mut this.vectors[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut this.names[index]).cast();
            header.msg_control = (&raw mut this.controls[index]).cast();
        }
        slots
    }
}

/// The address in `name`, where its family is one of ours.
fn peer(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
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

/// Writes `address` for the kernel; yields its length there.
fn write_name(name: &mut libc::sockaddr_storage, address: &SocketAddr) -> u32 {
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

/// The local address that a received datagram's control message names.
fn local(header: &libc::mmsghdr) -> Option<(IpAddr, u32)> {
    // SAFETY: the kernel wrote well-formed control messages of `msg_controllen` bytes into our
    // control buffer, and the level and type say what each one's data is; the data is read without
    // assuming alignment.
    unsafe {
        let message = &raw const header.msg_hdr;
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

/// Writes the control message that parts a message into datagrams of `len` bytes; yields the length
/// of the control data.
fn write_segment(control: &mut Control, len: u16) -> usize {
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

/// Writes the control message that makes a datagram leave from `address`; yields the length of the
/// control data.
fn write_local(control: &mut Control, address: IpAddr, interface: u32) -> usize {
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

/// Asks for the destination address of each datagram (IP_PKTINFO, IPV6_RECVPKTINFO).
pub fn ask_destination(socket: &UdpSocket, v6: bool) -> io::Result<()> {
    let (level, option) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    set_option(socket, level, option, &1_i32)
}

/// Spreads the datagrams of one port evenly over its `sockets` SO_REUSEPORT sockets, also when few
/// clients send them all: a classic BPF program draws the socket at random. Without it the kernel
/// hashes the addresses.
pub fn spread(socket: &UdpSocket, sockets: u32) -> io::Result<()> {
    const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, RANDOM),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, sockets),
        step(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Whether the system parts what [`Batch::send_joined`] sends (Linux 4.18 does). Towards a network
/// the device must compute checksums as well; loopback always does.
pub fn can_join(socket: &UdpSocket) -> bool {
    let off: libc::c_int = 0; // for what is sent without asking
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, &off).is_ok()
}

/// Datagrams the kernel dropped because this socket's receive buffer was full, since it was opened.
pub fn dropped(socket: &UdpSocket) -> io::Result<u64> {
    let mut memory = [0_u32; 16];
    let mut len = mem::size_of_val(&memory) as libc::socklen_t;
    // SAFETY: the pointer and length describe `memory`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            memory.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    const SK_MEMINFO_DROPS: usize = 8;
    if result == 0 {
        Ok(u64::from(memory[SK_MEMINFO_DROPS]))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets one socket option whose value the kernel reads as `T`.
fn set_option<T>(socket: &UdpSocket, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const *value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(inbox: &mut Inbox, socket: &UdpSocket) -> usize {
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        inbox.receive(socket, true).unwrap()
    }

    /// A datagram to `server` is answered from the address it was sent to.
    fn check_echo(bind: &str, to: &str) {
        let Ok(server) = UdpSocket::bind(bind) else {
            assert!(bind.contains(':'), "IPv4 must work");
            return; // a machine without IPv6
        };
        ask_destination(&server, bind.starts_with('[')).unwrap();
        let port = server.local_addr().unwrap().port();
        let to: SocketAddr = format!("{to}:{port}").parse().unwrap();
        let client = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
        client.send_to(b"ask", to).unwrap();
        let mut inbox = Inbox::new(true, true);
        assert_eq!(receive(&mut inbox, &server), 1);
        let datagram = inbox.datagram(0);
        assert_eq!((datagram.bytes, datagram.truncated), (&b"ask"[..], false));
        let ends = datagram.ends.unwrap();
        assert_eq!(ends.local.unwrap().0, to.ip());
        let mut batch = Batch::new();
        batch.buffer()[..5].copy_from_slice(b"reply");
        batch.commit(5, Some(&ends));
        assert_eq!(batch.send(&server), 0);
        client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 16];
        let (len, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.ip()), (&b"reply"[..], to.ip()));
    }

    #[test]
    fn replies_leave_from_the_address_asked() {
        check_echo("0.0.0.0:0", "127.0.0.3");
        check_echo("[::]:0", "[::1]");
    }

    #[test]
    fn batches_carry_every_datagram_and_mark_long_ones() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        let mut batch = Batch::new();
        for byte in 0..BATCH as u8 {
            batch.buffer()[0] = byte;
            batch.commit(1, None);
        }
        assert!(batch.is_full());
        assert_eq!(batch.send(&client), 0);
        client.send(&[0; DATAGRAM_MAX + 1]).unwrap();
        let mut inbox = Inbox::new(true, false);
        let mut seen = Vec::new();
        while seen.len() < BATCH + 1 {
            for index in 0..receive(&mut inbox, &server) {
                let datagram = inbox.datagram(index);
                seen.push((datagram.bytes[0], datagram.bytes.len(), datagram.truncated));
            }
        }
        let expected = (0..BATCH as u8).map(|byte| (byte, 1, false));
        assert_eq!(seen[..BATCH], *expected.collect::<Vec<_>>());
        assert_eq!(seen[BATCH], (0, DATAGRAM_MAX, true));
    }

    #[test]
    fn the_clock_goes_forward() {
        let earlier = boot_time();
        assert!(boot_time() >= earlier && earlier.nanos() > 0);
    }
}
