//! The floor: what a UDP server costs when it does no DNS at all.
//!
//! Edge. Every datagram that holds a question gets the same reply, the question echoed and one A
//! record, by the same batched system calls as our servers. What a server costs above this is its
//! own. Knows no zone and no cache.

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
}

/// Answers until the process is ended, on the thread it is called on. The first line of standard
/// output is the address, once questions are taken.
///
/// Fails when the address is taken, or the socket breaks.
pub fn run(flags: &Flags) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(flags.listen), Type::DGRAM, None)?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.bind(&flags.listen.into())?;
    let socket = UdpSocket::from(socket);
    let mut output = io::stdout().lock();
    writeln!(output, "{}", socket.local_addr()?)?;
    output.flush()?;
    serve(&socket)
}

fn serve(socket: &UdpSocket) -> io::Result<()> {
    let (mut inbox, mut replies) = (Inbox::new(true, false), Batch::new());
    loop {
        let received = match inbox.receive(socket, true) {
            Ok(received) => received,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        };
        for datagram in (0..received).map(|at| inbox.datagram(at)) {
            if let Some(len) = answer(datagram.bytes, replies.buffer()) {
                replies.commit(len, datagram.ends.as_ref());
            }
        }
        // What the kernel does not take is a lost datagram: the one who asked counts it.
        replies.send(socket);
    }
}

/// Refused: an earlier reply found its client gone.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused)
}

/// Writes the reply to `query`; nothing where there is no question in it.
fn answer(query: &[u8], reply: &mut [u8]) -> Option<usize> {
    let end = name_end(query, HEADER_LEN)? + 4;
    let question = query.get(..end)?;
    let (head, tail) = reply.split_at_mut(end);
    head.copy_from_slice(question);
    head[2..HEADER_LEN].copy_from_slice(&REST_OF_HEADER);
    tail[..RECORD.len()].copy_from_slice(&RECORD);
    Some(end + RECORD.len())
}

const HEADER_LEN: usize = 12;
/// QR, AA, RD, RA; one question, one answer (RFC 1035 section 4.1.1).
const REST_OF_HEADER: [u8; 10] = [0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
/// The name asked for, A, IN, 30 s: 10.0.0.1.
const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 1];
/// As large as the servers' own: what waits is not lost.
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
        let len = answer(&with_edns, &mut reply).unwrap();
        assert_eq!(reply[..4], [0xab, 0xcd, 0x85, 0x80]);
        assert_eq!(reply[4..12], [0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(reply[12..asked.len()], asked[12..]);
        assert_eq!(reply[asked.len()..len], RECORD);
        for cut in [0, 11, 12, 15, asked.len() - 1] {
            assert_eq!(answer(&asked[..cut], &mut reply), None, "{cut} bytes");
        }
    }

    #[test]
    fn it_answers_over_a_socket() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        std::thread::spawn(move || serve(&server)); // ends with the test binary
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        client.connect(address).unwrap();
        client.send(b"no question").unwrap();
        let asked = crate::workload::question("web.shop", 1);
        client.send(&asked).unwrap();
        let mut reply = [0; 512];
        assert_eq!(client.recv(&mut reply).unwrap(), asked.len() + RECORD.len());
    }
}
