//! Sends datagrams to one peer through the kernel together, for the load generator.
//!
//! Edge, without `unsafe` of its own. Servers do not use it, because their replies have many peers.

use std::cmp::Reverse;
use std::mem;
use std::net::UdpSocket;

use super::ends::write_segment;
use super::{BATCH, Batch, EMPTY_VECTOR, empty_header, transmit};

impl Batch {
    /// Does the same as [`Batch::send`], for a connected socket that [`can_join`](super::can_join):
    /// datagrams of one length, and a shorter one after them, pass through the kernel as one
    /// (UDP_SEGMENT), and arrive separately. The longest are sent first.
    pub fn send_joined(&mut self, socket: &UdpSocket) {
        let used = mem::take(&mut self.used);
        let mut vectors = [EMPTY_VECTOR; BATCH];
        for (index, vector) in vectors[..used].iter_mut().enumerate() {
            *vector = *self.slots.vector(index);
        }
        vectors[..used].sort_unstable_by_key(|vector| Reverse(vector.iov_len));
        let mut headers = [const { empty_header() }; BATCH];
        let (mut runs, mut rest) = (0, &mut vectors[..used]);
        while let Some(first) = rest.first() {
            let len = first.iov_len;
            let same = rest.iter().take_while(|next| next.iov_len == len).count();
            let (run, behind) = rest.split_at_mut((same + 1).min(rest.len()));
            let header = &mut headers[runs].msg_hdr;
            header.msg_iov = run.as_mut_ptr();
            header.msg_iovlen = run.len() as _;
            if run.len() > 1 {
                self.slots.set_control(runs, |control| write_segment(control, len as u16));
                let slot = &self.slots.header(runs).msg_hdr;
                header.msg_control = slot.msg_control;
                header.msg_controllen = slot.msg_controllen;
            }
            (runs, rest) = (runs + 1, behind);
        }
        transmit(socket, &mut headers[..runs]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Inbox, can_join};
    use super::*;

    #[test]
    fn what_is_sent_joined_arrives_one_by_one() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        if !can_join(&client) {
            return; // an older system
        }
        let mut batch = Batch::new();
        let mut inbox = Inbox::new(false, false);
        let rows: [&[usize]; 5] = [&[7], &[5, 5, 5], &[4, 9, 4, 2, 9, 9, 1], &[1; BATCH], &[3, 8]];
        for lens in rows {
            // The second time without joining: the batch must not keep anything of the first.
            for joined in [true, false] {
                for (byte, &len) in lens.iter().enumerate() {
                    batch.buffer()[..len].fill(byte as u8);
                    batch.commit(len, None);
                }
                if joined {
                    batch.send_joined(&client);
                } else {
                    assert_eq!(batch.send(&client), 0);
                }
                let mut seen = Vec::new();
                while seen.len() < lens.len() {
                    let received = inbox.receive(&server, true).unwrap();
                    seen.extend((0..received).map(|at| inbox.datagram(at).bytes.to_vec()));
                }
                seen.sort();
                let sent = lens.iter().enumerate().map(|(byte, &len)| vec![byte as u8; len]);
                assert_eq!(seen, sent.collect::<Vec<_>>(), "joined: {joined}");
                assert!(batch.is_empty());
            }
        }
    }
}
