//! Points in time as every core takes them: read at the edge once per batch, passed in as a value.
//!
//! Core, but for [`boot_time`] and [`unix_ms`]: the only readers of a clock, which only edges call.

use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Returns the current [`Moment`], from CLOCK_BOOTTIME. The kernel is not entered.
pub fn boot_time() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    Moment::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Returns the milliseconds since 1970 by the wall clock, which can jump; 0 before 1970.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds since the machine booted, including time asleep. Jumps of the wall clock have no
/// effect, and the cache of a suspended laptop has the right age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Returns the moment `since_boot` after boot. Tests start from [`Moment::default`] and add.
    pub const fn from_nanos(since_boot: u64) -> Self {
        Self(since_boot)
    }

    /// Returns the nanoseconds since boot.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Returns the whole seconds since boot.
    pub const fn secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(earlier.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward() {
        let earlier = boot_time();
        assert!(boot_time() >= earlier && earlier.nanos() > 0);
    }
}
