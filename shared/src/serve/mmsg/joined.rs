//! Datagrams to one peer that pass the kernel together: what the load generator saves.
//!
//! Edge, without `unsafe` of its own. Servers do not use it: their replies go to many peers.

use std::cmp::Reverse;
use std::net::UdpSocket;

use super::{Batch, write_segment};

impl Batch {
    /// As [`Batch::send`], for a connected socket that [`can_join`](super::can_join): those of one
    /// length, and a shorter one behind them, pass the kernel as one (UDP_SEGMENT), and each
    /// arrives by itself. The longest go first.
    pub fn send_joined(&mut self, socket: &UdpSocket) {
        let used = self.used;
        let slots = &mut *self.slots;
        slots.vectors[..used].sort_unstable_by_key(|vector| Reverse(vector.iov_len));
        let (mut runs, mut at) = (0, 0);
        while at < used {
            let len = slots.vectors[at].iov_len;
            let longer = slots.vectors[at + 1..used].iter().take_while(|next| next.iov_len == len);
            let end = (at + 1 + longer.count() + 1).min(used);
            let header = &mut slots.headers[runs].msg_hdr;
            header.msg_iov = &raw mut slots.vectors[at];
            header.msg_iovlen = (end - at) as _;
            if end - at > 1 {
                let control = &mut slots.controls[runs];
                header.msg_controllen = write_segment(control, len as u16) as _;
                header.msg_control = (&raw mut *control).cast();
            }
            (runs, at) = (runs + 1, end);
        }
        self.used = runs;
        self.send(socket);
        let slots = &mut *self.slots;
        for index in 0..used {
            slots.vectors[index].iov_base = slots.buffers[index].as_mut_ptr().cast();
            let header = &mut slots.headers[index].msg_hdr;
            header.msg_iov = &raw mut slots.vectors[index];
            header.msg_iovlen = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BATCH, Inbox, can_join};
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
            // The second time plainly: nothing of the first is left in the batch.
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
