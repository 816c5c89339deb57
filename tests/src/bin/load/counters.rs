//! The server's own count of hits and misses: `hits.bind` and `misses.bind`, class CHAOS, as
//! dnsmasq answers them.
//!
//! Edge.

use std::net::{SocketAddr, UdpSocket};
use std::ops::Sub;
use std::time::Duration;

/// The counters of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    /// Answers from the cache.
    pub hits: u64,
    /// Questions that the server had to forward.
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
    /// Returns the part of hits, 0 to 1, or `None` if there were no questions.
    pub fn hit_rate(self) -> Option<f64> {
        let all = self.hits + self.misses;
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}

/// The server's counters differ from those of its upstream.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "the server counts a hit rate of {server:.3} %, its upstream saw one of {upstream:.3} %: more \
     than {POINTS_MAX} points apart"
)]
pub struct Disagreement {
    server: f64,
    upstream: f64,
}

/// Returns the hit rate, 0 to 1, computed from how many of the `asked` questions the upstream has
/// `seen`. It does not depend on the server's counters. Fails if the counters differ from it.
pub fn agree(cache: Cache, asked: u64, seen: u64) -> Result<f64, Disagreement> {
    let upstream = 1.0 - seen as f64 / asked.max(1) as f64;
    let server = cache.hit_rate().unwrap_or(0.0);
    if (server - upstream).abs() * 100.0 <= POINTS_MAX {
        return Ok(upstream);
    }
    Err(Disagreement { server: 100.0 * server, upstream: 100.0 * upstream })
}

/// Reads the counters of `server`. Returns `None` if it does not count, or does not answer.
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

/// Returns the number in the only TXT string of the first answer. It must be the message's last
/// record, except for OPT.
fn number(reply: &[u8], question_end: usize) -> Option<u64> {
    let answer = reply.get(question_end..)?;
    let owner = if answer.first()? & 0xc0 == 0xc0 { 2 } else { shared::wire::name_end(answer, 0)? };
    let rdata = answer.get(owner + 10..)?;
    let (&len, text) = rdata.split_first()?;
    std::str::from_utf8(text.get(..usize::from(len))?).ok()?.parse().ok()
}

/// The highest allowed difference of two hit rates, in percentage points.
const POINTS_MAX: f64 = 0.1;
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
    fn a_counter_that_is_wrong_by_more_than_a_tenth_of_a_point_is_found_out() {
        let (asked, seen) = (1_000_000, 250_000);
        let right = Cache { hits: 750_000, misses: 250_000 };
        assert_eq!(agree(right, asked, seen), Ok(0.75));
        let close = Cache { hits: 750_900, misses: 249_100 };
        assert_eq!(agree(close, asked, seen), Ok(0.75));
        for wrong in [
            Cache { hits: 752_000, misses: 248_000 },
            Cache { hits: 748_000, misses: 252_000 },
            Cache { hits: 750_000, misses: 0 },
            Cache { hits: 0, misses: 0 },
        ] {
            let said = agree(wrong, asked, seen).unwrap_err().to_string();
            assert!(said.contains("its upstream saw one of 75.000 %"), "{said}");
        }
    }

    #[test]
    fn a_hit_rate_needs_questions() {
        assert_eq!(Cache { hits: 0, misses: 0 }.hit_rate(), None);
        assert_eq!(Cache { hits: 3, misses: 1 }.hit_rate(), Some(0.75));
    }
}
