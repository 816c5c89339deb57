//! Socket options that no crate wraps.
//!
//! Edge. Works on sockets, not on DNS.

use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Requests the destination address of each datagram (IP_PKTINFO, IPV6_RECVPKTINFO).
pub fn ask_destination(socket: &UdpSocket, v6: bool) -> io::Result<()> {
    let (level, option) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    set_option(socket, level, option, &1_i32)
}

/// Spreads the datagrams of one port evenly over its `sockets` SO_REUSEPORT sockets, even if few
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

/// Returns whether the system can split datagrams from `Batch::send_joined` (Linux 4.18 can). To a
/// network, the device must also compute checksums; loopback always does.
pub fn can_join(socket: &UdpSocket) -> bool {
    let off: libc::c_int = 0; // the default for other datagrams
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, &off).is_ok()
}

/// Returns how many datagrams the kernel has dropped because this socket's receive buffer was full.
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
