//! How long a reply may be kept.
//!
//! Core. Works on TTLs and response codes, without a clock or the cache.

use std::time::Duration;

/// Ceilings and floors for the TTLs of upstreams, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TTLs below this are raised; 0 disables that.
    pub ttl_min: u32,
    /// TTLs above this are lowered (RFC 8767 section 4 allows at most seven days).
    pub ttl_max: u32,
    /// Negative answers are kept no longer than this (RFC 2308 section 5).
    pub negative_max: u32,
}

impl Limits {
    /// Returns `ttl` within the limits. 0 stays 0. A TTL with the top bit set is a large number
    /// (RFC 8767 section 4, which updates RFC 2181 section 8).
    pub fn ttl(&self, ttl: u32) -> u32 {
        if ttl == 0 { 0 } else { ttl.max(self.ttl_min).min(self.ttl_max) }
    }

    /// Returns how many seconds a negative answer can be kept if its SOA record has `ttl` and
    /// `minimum`: the lowest of both and the ceiling (RFC 2308 section 5).
    pub fn negative(&self, ttl: u32, minimum: u32) -> u32 {
        self.ttl(ttl).min(self.ttl(minimum)).min(self.negative_max)
    }
}

/// Returns how long the failure number `failures` in a row is stored: one second, doubling to five
/// (RFC 9520 section 3.2 allows one second to five minutes).
pub fn failure(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(5)).min(FAILURE_MAX)
}

/// As long as CoreDNS and Unbound store failures.
const FAILURE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttls_stay_within_limits_and_zero_is_never_raised() {
        let limits = Limits { ttl_min: 5, ttl_max: 86_400, negative_max: 300 };
        let rows =
            [(0, 0), (1, 5), (30, 30), (86_401, 86_400), (0x8000_0000, 86_400), (u32::MAX, 86_400)];
        for (said, used) in rows {
            assert_eq!(limits.ttl(said), used, "{said}");
        }
        let rows = [((60, 30), 30), ((30, 60), 30), ((900, 900), 300), ((0, 60), 0), ((60, 0), 0)];
        for ((ttl, minimum), kept) in rows {
            assert_eq!(limits.negative(ttl, minimum), kept, "{ttl} {minimum}");
        }
    }

    #[test]
    fn failures_are_kept_longer_each_time() {
        let secs: Vec<u64> = (0..8).map(|failures| failure(failures).as_secs()).collect();
        assert_eq!(secs, [1, 1, 2, 4, 5, 5, 5, 5]);
    }
}
