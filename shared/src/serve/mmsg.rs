//! Batches of datagrams by one system call each: `recvmmsg`, `sendmmsg`, and the socket options
//! that no crate wraps.
//!
//! Edge. This file and those below it are the only ones of the workspace with `unsafe`: no safe
//! crate offers both calls without allocating. Works on addresses and bytes, not on DNS.
//! Soundness depends on three facts:
//!
//! 1. The memory that the kernel reads and writes belongs to [`Slots`], which says why the pointers
//!    between its parts stay valid.
//! 2. A call borrows its slots exclusively until it returns, so that nothing else reads or writes
//!    them meanwhile.
//! 3. The kernel gets the length of each buffer with its pointer, and lengths that it writes are
//!    bounded by those before they are used.
#![allow(unsafe_code)] // as above

mod ends;
mod joined;
mod options;
mod slots;

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

use crate::wire::UDP_SIZE_MAX;

use ends::{CONTROL_LEN, local, peer, write_local, write_name};
pub use options::{ask_destination, can_join, dropped, spread};
use slots::Slots;

/// Datagrams per system call. Larger batches are not faster, and a reply waits for its whole batch.
pub const BATCH: usize = 16;
/// The largest datagram received whole by [`Inbox::new`]; a longer one is marked truncated.
pub const DATAGRAM_MAX: usize = 2_048;

/// The other end of a datagram, and the local address it was sent to where the socket is bound to a
/// wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Its sender or receiver.
    pub peer: SocketAddr,
    /// The local address at which it arrived and from which the reply must be sent, with the
    /// interface for link-local addresses.
    pub local: Option<(IpAddr, u32)>,
}

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its bytes, as many as the buffer can hold.
    pub bytes: &'a [u8],
    /// Whether bytes after those were cut off.
    pub truncated: bool,
    /// Its addresses; `None` on connected sockets opened without addresses.
    pub ends: Option<Ends>,
}

/// Up to [`BATCH`] datagrams received by one call, in memory that is reused.
pub struct Inbox {
    slots: Slots,
    addresses: bool,
    control: bool,
    used: usize,
}

impl Inbox {
    /// Returns memory for one batch of datagrams of up to [`DATAGRAM_MAX`] bytes. `addresses`
    /// records the sender of each datagram, and `control` its local address.
    pub fn new(addresses: bool, control: bool) -> Self {
        Self::with_room(DATAGRAM_MAX, addresses, control)
    }

    /// Does the same as [`Inbox::new`], for datagrams of up to `room` bytes, at least 1. Longer
    /// ones are marked truncated.
    pub fn with_room(room: usize, addresses: bool, control: bool) -> Self {
        let mut slots = Slots::new(room);
        for index in 0..BATCH {
            if addresses {
                slots.set_name(index, |_| 0);
            }
            if control {
                slots.set_control(index, |_| 0);
            }
        }
        // All slots are armed once; later only those that a call has used.
        let mut inbox = Self { slots, addresses, control, used: BATCH };
        inbox.arm();
        inbox
    }

    /// Receives the available datagrams, and returns how many there were. With `wait`, blocks for
    /// the first one until the socket's read timeout.
    ///
    /// Fails as `recvmmsg` does; `WouldBlock` if no datagram is available.
    pub fn receive(&mut self, socket: &UdpSocket, wait: bool) -> io::Result<usize> {
        self.arm();
        let flags = if wait { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        // SAFETY: there are BATCH headers. What they lead to is valid and has the lengths that
        // `arm` and `Slots` gave; all of it is borrowed exclusively until the call returns.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.slots.headers().as_mut_ptr(),
                BATCH as libc::c_uint,
                flags,
                ptr::null_mut(),
            )
        };
        self.used = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.used)
    }

    /// Returns datagram `index` of the last batch.
    ///
    /// Panics if `index` is not below the last result of [`Inbox::receive`].
    #[inline]
    pub fn datagram(&self, index: usize) -> Datagram<'_> {
        assert!(index < self.used, "datagram {index} of {}", self.used);
        let header = self.slots.header(index);
        let ends = if self.addresses {
            // SAFETY: the kernel wrote the control messages and their length, and writes again only
            // with `self` borrowed exclusively.
            let local = || unsafe { local(header) };
            peer(self.slots.name(index))
                .map(|peer| Ends { peer, local: self.control.then(local).flatten() })
        } else {
            None
        };
        let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let bytes = self.slots.buffer(index, header.msg_len as usize);
        Datagram { bytes, truncated, ends }
    }

    /// Sets the lengths that the last call has overwritten.
    fn arm(&mut self) {
        let name_len = mem::size_of::<libc::sockaddr_storage>() as u32;
        for header in &mut self.slots.headers()[..self.used] {
            let header = &mut header.msg_hdr;
            header.msg_namelen = if self.addresses { name_len } else { 0 };
            header.msg_controllen = if self.control { CONTROL_LEN as _ } else { 0 };
            header.msg_flags = 0;
        }
        self.used = 0;
    }
}

/// Receives one datagram from `socket` into `buffer`, without waiting. Returns how many of its
/// bytes are in `buffer`, and `true` if it was longer and the rest was cut off.
///
/// Fails as `recv` does; `WouldBlock` if there is no datagram.
pub fn receive_one(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
    // SAFETY: the pointer and the length describe `buffer`, which is borrowed exclusively.
    let len = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT | libc::MSG_TRUNC, // the result is the length that was sent
        )
    };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok((len.min(buffer.len()), len > buffer.len()))
}

/// Up to [`BATCH`] datagrams sent by one call, written in place.
pub struct Batch {
    slots: Slots,
    used: usize,
}

impl Batch {
    /// Returns memory for one batch of datagrams of up to [`UDP_SIZE_MAX`] bytes.
    pub fn new() -> Self {
        Self::with_room(UDP_SIZE_MAX)
    }

    /// Returns memory for one batch of datagrams of up to `room` bytes, at least 1.
    pub fn with_room(room: usize) -> Self {
        Self { slots: Slots::new(room), used: 0 }
    }

    /// Returns whether the batch is full until [`Batch::send`].
    pub fn is_full(&self) -> bool {
        self.used == BATCH
    }

    /// Returns how many datagrams wait to be sent.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Returns whether no datagram waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Returns the bytes of the largest datagram.
    pub fn room(&self) -> usize {
        self.slots.room()
    }

    /// Returns the buffer of the next datagram, [`Batch::room`] bytes.
    ///
    /// Panics if the batch is full.
    pub fn buffer(&mut self) -> &mut [u8] {
        self.slots.buffer_mut(self.used)
    }

    /// Adds the first `len` bytes of [`Batch::buffer`] as the next datagram. `ends` must be `None`
    /// on connected sockets.
    #[inline]
    pub fn commit(&mut self, len: usize, ends: Option<&Ends>) {
        let index = self.used;
        assert!(index < BATCH, "the batch is full");
        self.slots.set_len(index, len);
        match ends {
            Some(ends) => self.slots.set_name(index, |name| write_name(name, &ends.peer)),
            None => self.slots.unlink_name(index),
        }
        match ends.and_then(|ends| ends.local) {
            Some((address, interface)) => {
                self.slots.set_control(index, |control| write_local(control, address, interface));
            }
            None => self.slots.unlink_control(index),
        }
        self.used += 1;
    }

    /// Sends the committed datagrams. Returns how many the kernel did not accept.
    ///
    /// A datagram that cannot be sent (its peer is gone, a firewall refuses it) is skipped. If the
    /// send buffer is full, the rest is dropped, as UDP allows.
    pub fn send(&mut self, socket: &UdpSocket) -> usize {
        let used = mem::take(&mut self.used);
        transmit(socket, &mut self.slots.headers()[..used])
    }
}

/// Sends the messages of `headers`. Returns how many the kernel did not accept. Every pointer in
/// them must lead to memory that the caller has borrowed until this returns, with its valid length.
fn transmit(socket: &UdpSocket, headers: &mut [libc::mmsghdr]) -> usize {
    let mut at = 0;
    let mut dropped = 0;
    while at < headers.len() {
        let rest = &mut headers[at..];
        // SAFETY: the pointer and the length describe `rest`; what its entries lead to is valid as
        // the callers, all of them in this module, promise above.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                rest.as_mut_ptr(),
                rest.len() as libc::c_uint,
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            )
        };
        match usize::try_from(sent) {
            Ok(sent) => at += sent,
            Err(_) => match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    dropped += headers.len() - at;
                    break;
                }
                _ => {
                    dropped += 1;
                    at += 1;
                }
            },
        }
    }
    dropped
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// An empty vector.
const EMPTY_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// A header without any buffer.
const fn empty_header() -> libc::mmsghdr {
    // SAFETY: all zeros is a valid value of every field: integers and null pointers.
    unsafe { mem::zeroed() }
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
    fn a_datagram_that_does_not_fit_is_marked_however_it_is_received() {
        const ROOM: usize = 100;
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(server) = UdpSocket::bind(host) else { continue }; // a machine without IPv6
            let client = UdpSocket::bind(host).unwrap();
            client.connect(server.local_addr().unwrap()).unwrap();
            let mut inbox = Inbox::with_room(ROOM, false, false);
            let mut buffer = [0; ROOM];
            for (sent, kept, cut) in
                [(0, 0, false), (99, 99, false), (100, 100, false), (101, 100, true)]
            {
                for _ in 0..2 {
                    client.send(&vec![7; sent]).unwrap();
                }
                // Waits for the first; the second was sent before the call.
                server.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
                let peeked = server.peek(&mut [0; 1]);
                assert!(peeked.is_ok(), "{peeked:?}");
                assert_eq!(receive_one(&server, &mut buffer).unwrap(), (kept, cut), "{sent}");
                assert_eq!(receive(&mut inbox, &server), 1);
                let datagram = inbox.datagram(0);
                assert_eq!((datagram.bytes, datagram.truncated), (&vec![7; kept][..], cut));
            }
            let empty = receive_one(&server, &mut buffer).unwrap_err();
            assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn values_may_be_moved_between_calls() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        ask_destination(&server, false).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = SocketAddr::new("127.0.0.4".parse().unwrap(), server.local_addr().unwrap().port());
        let (mut inbox, mut batch) = (Inbox::new(true, true), Batch::with_room(4_096));
        assert_eq!((batch.room(), batch.buffer().len()), (4_096, 4_096));
        for turn in 0..3 {
            client.send_to(&[turn; 5], to).unwrap();
            assert_eq!(receive(&mut inbox, &server), 1);
            let moved = std::thread::spawn(move || {
                let datagram = inbox.datagram(0);
                let ends = datagram.ends.unwrap();
                let len = datagram.bytes.len();
                batch.buffer()[..len].copy_from_slice(datagram.bytes);
                batch.commit(len, Some(&ends));
                (ends, inbox, batch)
            });
            let ends;
            (ends, inbox, batch) = moved.join().unwrap();
            assert_eq!(ends.local.unwrap().0, to.ip());
            assert_eq!(batch.send(&server), 0);
            let mut buffer = [0; 16];
            client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            let (len, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from), (&[turn; 5][..], to));
        }
    }
}
