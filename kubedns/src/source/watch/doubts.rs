//! When a watch does not trust the API server's reply: a refusal of a request that was allowed
//! before, and a version from which it cannot continue.
//!
//! Core. Knows troubles and how often they occurred; does not know how they are handled.

use super::Follower;
use super::progress::Count;
use super::trouble::Trouble;

impl Follower {
    /// Returns whether a 403 is more likely a server that has just started and does not know its
    /// roles yet than a missing right: it allowed this watch before.
    pub(super) fn hesitates(&mut self) -> bool {
        self.hesitations += 1;
        self.progress.count(Count::List) > 0 && self.hesitations <= HESITATIONS_MAX
    }

    /// Returns whether a watch cannot continue from our version, so that a full list must be read
    /// first: the server has forgotten it or is behind it, or has refused it or been silent several
    /// times. Then its data may be older, for example after a backup was restored.
    pub(super) fn is_lost(&mut self, trouble: &Trouble) -> bool {
        if trouble.is_gone() || trouble.is_behind_us() {
            return true;
        }
        self.stuck += u32::from(trouble.may_be_about_the_version());
        let is_lost = self.stuck >= STUCK_MAX;
        if is_lost {
            self.stuck = 0;
        }
        is_lost
    }
}

/// Returns whether version `a` is older than `b`; `false` if they cannot be compared (KEP-5504).
pub(super) fn is_before(a: &str, b: &str) -> bool {
    matches!((a.parse::<u64>(), b.parse::<u64>()), (Ok(a), Ok(b)) if a < b)
}

/// The most refusals in a row of a request that was allowed before that count as temporary.
const HESITATIONS_MAX: u32 = 10;
/// Refusals and silences in a row after which a version is given up.
const STUCK_MAX: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let rows = [
            ("9", "10", true),
            ("10", "9", false),
            ("7", "7", false),
            ("", "7", false),
            ("7", "x", false),
            ("18446744073709551616", "7", false),
        ];
        for (a, b, expected) in rows {
            assert_eq!(is_before(a, b), expected, "{a} {b}");
        }
    }
}
