//! The limit of open descriptors. Connections and sockets to upstreams need many, and the default
//! limit of a shell or a container runtime is often for programs that use `select`.
//!
//! Edge. The core is `shares`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open descriptors to the hard one, which is the operator's to set.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        let (soft, hard) = (limit.current, limit.maximum);
        tracing::warn!(%error, soft, hard, "cannot raise the limit of descriptors");
    }
}

/// Returns how many descriptors each of `wanted` may take, so that `reserved` are left for the rest
/// of the program: probes, metrics and files work whatever clients do. If the limit is too low for
/// that, the log says so.
pub fn share<const N: usize>(wanted: [usize; N], reserved: usize) -> [usize; N] {
    // No limit is written as no number.
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let shares = shares(limit, wanted, reserved);
    if shares != wanted {
        let needed = wanted.iter().sum::<usize>() + reserved;
        tracing::warn!(limit, needed, "few descriptors: fewer TCP connections at the same time");
    }
    shares
}

/// The shares of `limit`: what is wanted, or equal parts of what `reserved` leaves, at least
/// [`SHARE_MIN`].
fn shares<const N: usize>(limit: usize, wanted: [usize; N], reserved: usize) -> [usize; N] {
    let free = limit.saturating_sub(reserved);
    if wanted.iter().sum::<usize>() <= free {
        return wanted;
    }
    wanted.map(|wanted| wanted.min((free / N).max(SHARE_MIN)))
}

/// A program with fewer is of no use; below, it runs short as it would have without shares.
const SHARE_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn what_is_wanted_is_shared_out_equally_if_it_is_too_much() {
        assert_eq!(shares(1_048_576, [10_000, 8_192], 448), [10_000, 8_192]);
        assert_eq!(shares(18_640, [10_000, 8_192], 448), [10_000, 8_192]);
        assert_eq!(shares(18_639, [10_000, 8_192], 448), [9_095, 8_192]);
        assert_eq!(shares(1_024, [10_000, 8_192], 448), [288, 288]);
        assert_eq!(shares(1_024, [100, 8_192], 448), [100, 288]);
        assert_eq!(shares(256, [10_000], 448), [16]);
    }
}
