//! `--verify`: checks that answers to the same question are equal.
//!
//! Core, except for the atomics that connections share. It parses the layout of records, but cannot
//! judge which answer is correct. It compares all answers with the first answer to their question,
//! and ignores TTLs, order and the letter case of the question.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use shared::wire::name_end;

/// The first answer to each question of a workload.
#[derive(Debug)]
pub struct Firsts(Box<[AtomicU64]>);

impl Firsts {
    /// Creates an empty table for `questions` questions.
    pub fn new(questions: usize) -> Self {
        Self((0..questions).map(|_| AtomicU64::new(UNHEARD)).collect())
    }

    /// Returns whether `reply` to question number `number` differs from the first one. A truncated
    /// reply, or SERVFAIL, never differs.
    pub fn differs(&self, number: u64, reply: &[u8]) -> bool {
        let Some(said) = digest(reply) else { return true };
        if reply[2] & TC != 0 || reply[3] & 0x0f == SERVFAIL {
            return false;
        }
        let first = &self.0[(number % self.0.len() as u64) as usize];
        match first.compare_exchange(UNHEARD, said, Relaxed, Relaxed) {
            Ok(_) => false,
            Err(first) => first != said,
        }
    }
}

/// Returns a digest of the response code and the records of the answer section, in any order, or
/// `None` if the reply is not a valid message.
fn digest(reply: &[u8]) -> Option<u64> {
    let answers = u16::from_be_bytes(*reply.get(6..)?.first_chunk()?);
    let mut at = name_end(reply, HEADER_LEN)? + 4;
    let mut sum = u64::from(reply[3] & 0x0f);
    for _ in 0..answers {
        let owner_end = match reply.get(at)? {
            0xc0.. => at + 2,
            _ => name_end(reply, at)?,
        };
        let fixed = reply.get(owner_end..owner_end + 10)?;
        let end = owner_end + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let parts = [&reply[at..owner_end], &fixed[..4], reply.get(owner_end + 10..end)?];
        sum = sum.wrapping_add(fnv(parts.into_iter().flatten()));
        at = end;
    }
    Some(sum.max(UNHEARD + 1))
}

/// Returns the FNV-1a hash of `bytes`.
fn fnv<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

const HEADER_LEN: usize = 12;
const TC: u8 = 0x02;
const SERVFAIL: u8 = 2;
/// Marks a question without an answer yet. No digest has this value.
const UNHEARD: u64 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a reply with an A record for each of `addresses`, which are given by their last
    /// byte.
    fn reply(code: u8, ttl: u8, addresses: &[u8]) -> Vec<u8> {
        let mut reply = crate::workload::question("web.shop", 1).to_vec();
        (reply[2], reply[3], reply[7]) = (0x81, 0x80 | code, addresses.len() as u8);
        for last in addresses {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4, 10, 0, 0, *last]);
        }
        reply
    }

    #[test]
    fn order_and_ttl_may_change_and_nothing_else() {
        let rows = [
            (reply(0, 30, &[1, 2, 3]), false),
            (reply(0, 9, &[3, 1, 2]), false),
            (reply(0, 30, &[1, 2]), true),
            (reply(0, 30, &[1, 2, 4]), true),
            (reply(3, 30, &[1, 2, 3]), true),
            (reply(2, 30, &[]), false),
            (reply(0, 30, &[]), true),
            (reply(0, 30, &[1, 2, 3])[..40].to_vec(), true),
        ];
        let firsts = Firsts::new(2);
        assert!(!firsts.differs(1, &reply(0, 30, &[1, 2, 3])));
        for (reply, differs) in rows {
            assert_eq!(firsts.differs(3, &reply), differs, "{reply:?}");
        }
        let mut cut = reply(0, 30, &[1]);
        cut[2] |= TC;
        assert!(!firsts.differs(1, &cut), "cut short");
        assert!(!firsts.differs(0, &reply(3, 30, &[])), "another question");
    }
}
