//! The floor: what a UDP server costs when it does no DNS at all.
//!
//! Edge. Every datagram that holds a question gets the same reply: the echoed question and one
//! record. It uses the same batched system calls as kubedns and dnscache. What a server costs above
//! this is its own cost. It must not have a zone or a cache.

use std::io::{self, Write as _};
use std::net::{SocketAddr, UdpSocket};

use shared::serve::{Batch, Inbox};
use shared::wire::name_end;
use socket2::{Domain, Socket, Type};

/// The flags of `cargo load floor`.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Address to answer at, over UDP; port 0 lets the system choose. It is printed.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Deny every name instead.
    #[arg(long)]
    pub nxdomain: bool,
}

/// Answers until the process is ended, on the calling thread. Prints the address as the first line
/// of standard output, once it can answer.
///
/// Fails if the address is in use, or if the socket fails.
pub fn run(flags: &Flags) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(flags.listen), Type::DGRAM, None)?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.bind(&flags.listen.into())?;
    let socket = UdpSocket::from(socket);
    let mut output = io::stdout().lock();
    writeln!(output, "{}", socket.local_addr()?)?;
    output.flush()?;
    serve(&socket, if flags.nxdomain { &DENIAL } else { &ADDRESS }, drop)
}

/// The parts of a reply other than the ID and the question.
#[derive(Debug)]
pub struct Canned {
    rest_of_header: [u8; 10],
    record: &'static [u8],
}

/// Answers all queries on `socket`. Calls `count` with the number of datagrams of each batch.
///
/// Fails if the socket fails.
pub fn serve(socket: &UdpSocket, canned: &Canned, count: impl Fn(u64)) -> io::Result<()> {
    let (mut inbox, mut replies) = (Inbox::new(true, false), Batch::new());
    loop {
        let received = match inbox.receive(socket, true) {
            Ok(received) => received,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        };
        count(received as u64);
        for datagram in (0..received).map(|at| inbox.datagram(at)) {
            if let Some(len) = answer(datagram.bytes, canned, replies.buffer()) {
                replies.commit(len, datagram.ends.as_ref());
            }
        }
        // If the kernel does not accept a datagram, it is lost, and the client counts it.
        replies.send(socket);
    }
}

/// Returns whether `error` can be ignored. Refused means that the client of an earlier reply has
/// closed its socket.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused)
}

/// Writes the reply to `query` and returns its length. Returns `None` if `query` has no question.
fn answer(query: &[u8], canned: &Canned, reply: &mut [u8]) -> Option<usize> {
    let end = name_end(query, HEADER_LEN)? + 4;
    let question = query.get(..end)?;
    let (head, tail) = reply.split_at_mut(end);
    head.copy_from_slice(question);
    head[2..HEADER_LEN].copy_from_slice(&canned.rest_of_header);
    tail[..canned.record.len()].copy_from_slice(canned.record);
    Some(end + canned.record.len())
}

const HEADER_LEN: usize = 12;
/// QR, AA, RD, RA; one question, one answer (RFC 1035 section 4.1.1): the name of the question, A,
/// IN, 300 s, 10.0.0.1.
pub const ADDRESS: Canned = Canned {
    rest_of_header: [0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0],
    record: &[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 10, 0, 0, 1],
};
/// NXDOMAIN in place of the answer, and SOA of the root with 300 s in authority.
const DENIAL: Canned = Canned {
    rest_of_header: [0x85, 0x83, 0, 1, 0, 0, 0, 1, 0, 0],
    record: b"\0\0\x06\0\x01\0\0\x01\x2c\0\x16\
        \0\0\0\0\0\x01\0\0\x0e\x10\0\0\x03\x84\0\x09\x3a\x80\0\0\x01\x2c",
};
/// As large as the buffer of the servers, so that waiting datagrams are not lost.
const BUFFER_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_echoed_with_one_address_and_anything_else_is_not_answered() {
        let asked = crate::workload::question("web.shop", 1);
        let mut with_edns = asked.to_vec();
        with_edns[..2].copy_from_slice(&[0xab, 0xcd]);
        with_edns[11] = 1;
        with_edns.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
        let mut reply = [0; 512];
        let len = answer(&with_edns, &ADDRESS, &mut reply).unwrap();
        assert_eq!(reply[..4], [0xab, 0xcd, 0x85, 0x80]);
        assert_eq!(reply[4..12], [0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(reply[12..asked.len()], asked[12..]);
        assert_eq!(reply[asked.len()..len], *ADDRESS.record);
        for cut in [0, 11, 12, 15, asked.len() - 1] {
            assert_eq!(answer(&asked[..cut], &ADDRESS, &mut reply), None, "{cut} bytes");
        }
    }

    #[test]
    fn a_denial_is_a_message_that_decodes() {
        let asked = crate::workload::question("web.shop", 1);
        let mut reply = [0; 512];
        let len = answer(&asked, &DENIAL, &mut reply).unwrap();
        let message = hickory_proto::op::Message::from_vec(&reply[..len]).unwrap();
        assert_eq!(u16::from(message.metadata.response_code), 3);
        assert_eq!((message.authorities.len(), message.authorities[0].ttl), (1, 300));
    }

    #[test]
    fn it_answers_over_a_socket() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        std::thread::spawn(move || serve(&server, &ADDRESS, drop)); // ends with the test binary
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        client.connect(address).unwrap();
        client.send(b"no question").unwrap();
        let asked = crate::workload::question("web.shop", 1);
        client.send(&asked).unwrap();
        let mut reply = [0; 512];
        assert_eq!(client.recv(&mut reply).unwrap(), asked.len() + ADDRESS.record.len());
    }
}
