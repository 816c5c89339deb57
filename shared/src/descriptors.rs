//! The limit of open descriptors: connections and sockets to upstreams are many, and the limit that
//! a shell or a container runtime sets by default is often for programs that use `select`.
//!
//! Edge.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open descriptors to the hard one, which is the operator's to set. Says
/// so in the log where that is less than `wanted`, the most that the program ever uses.
pub fn raise(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    // No limit is written as no number.
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, soft = limit.current, hard, "cannot raise the limit of descriptors");
    } else if hard < wanted {
        tracing::warn!(hard, wanted, "few descriptors: beyond them connections are not accepted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise(0);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
