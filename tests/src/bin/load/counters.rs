//! The server's own count of hits and misses: `hits.bind` and `misses.bind`, class CHAOS, as
//! dnsmasq answers them.
//!
//! Edge.

use std::net::{SocketAddr, UdpSocket};
use std::ops::Sub;
use std::time::Duration;

/// What the server counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Answers from the cache.
    pub hits: u64,
    /// Questions that had to be asked elsewhere.
    pub misses: u64,
}

impl Sub for Cache {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            hits: self.hits.saturating_sub(earlier.hits),
            misses: self.misses.saturating_sub(earlier.misses),
        }
    }
}

impl Cache {
    /// Hits among all, 0 to 1; nothing where nothing was asked.
    pub fn hit_rate(self) -> Option<f64> {
        let all = self.hits + self.misses;
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}

/// Asks `server`; nothing where it does not count, or does not tell.
pub fn read(server: SocketAddr) -> Option<Cache> {
    Some(Cache { hits: ask(server, "hits.bind")?, misses: ask(server, "misses.bind")? })
}

fn ask(server: SocketAddr, name: &str) -> Option<u64> {
    let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).ok()?;
    socket.connect(server).ok()?;
    socket.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    let mut question = crate::workload::question(name, TXT).to_vec();
    *question.last_mut()? = CHAOS;
    socket.send(&question).ok()?;
    let mut reply = [0; 512];
    let len = socket.recv(&mut reply).ok()?;
    number(&reply[..len], question.len())
}

/// The number in the only TXT string of the first answer, which is the message's last record but
/// for OPT.
fn number(reply: &[u8], question_end: usize) -> Option<u64> {
    let answer = reply.get(question_end..)?;
    let owner = if answer.first()? & 0xc0 == 0xc0 { 2 } else { shared::wire::name_end(answer, 0)? };
    let rdata = answer.get(owner + 10..)?;
    let (&len, text) = rdata.split_first()?;
    std::str::from_utf8(text.get(..usize::from(len))?).ok()?.parse().ok()
}

const TXT: u16 = 16;
const CHAOS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_from_a_reply() {
        let question = crate::workload::question("hits.bind", TXT);
        let mut reply = question.to_vec();
        reply.extend(b"\xc0\x0c\0\x10\0\x03\0\0\0\0\0\x05\x041234");
        assert_eq!(number(&reply, question.len()), Some(1_234));
        assert_eq!(number(&reply[..reply.len() - 1], question.len()), None);
        assert_eq!(number(&question, question.len()), None);
    }

    #[test]
    fn a_hit_rate_needs_questions() {
        assert_eq!(Cache { hits: 0, misses: 0 }.hit_rate(), None);
        assert_eq!(Cache { hits: 3, misses: 1 }.hit_rate(), Some(0.75));
    }
}
