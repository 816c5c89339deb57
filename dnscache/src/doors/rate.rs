//! The limit of large replies over UDP to one network (response rate limiting).
//!
//! Core. A query whose source address is forged makes dnscache send its reply to a victim. If the
//! reply is much larger than the query, that is an attack worth making. A reply that is cut instead
//! is not, and an honest client asks again over TCP.

use std::fmt;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use foldhash::quality::RandomState;
use shared::clock::Moment;

/// How many large replies each network was sent in the current second.
pub struct ReplyRate {
    per_second: u32,
    /// By a hash of the network: the second in the upper half, the count in the lower.
    networks: Box<[AtomicU64]>,
    seed: RandomState,
}

impl fmt::Debug for ReplyRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyRate").field("per_second", &self.per_second).finish_non_exhaustive()
    }
}

impl ReplyRate {
    /// Allows `per_second` large replies to each network.
    pub fn new(per_second: u32) -> Self {
        let networks = (0..NETWORKS).map(|_| AtomicU64::new(0)).collect();
        Self { per_second, networks, seed: RandomState::default() }
    }

    /// Returns whether one more large reply can be sent to `client` at `now`, and counts it.
    /// Networks whose hashes collide share a limit.
    pub fn admits(&self, client: IpAddr, now: Moment) -> bool {
        let place = self.seed.hash_one(network(client)) as usize % NETWORKS;
        let second = now.secs() << 32;
        // Threads that count at the same moment can lose a count, which a limit can bear.
        let before = self.networks[place].load(Relaxed);
        let count = if before >> 32 << 32 == second { before as u32 } else { 0 };
        if count >= self.per_second {
            return false;
        }
        self.networks[place].store(second | u64::from(count + 1), Relaxed);
        true
    }
}

/// Returns the network of `client`: the first 24 bits of an IPv4 address, the first 56 of an IPv6
/// address, as in BIND and Knot DNS.
fn network(client: IpAddr) -> (bool, u64) {
    match client.to_canonical() {
        IpAddr::V4(client) => (true, u64::from(client.to_bits() >> 8)),
        IpAddr::V6(client) => (false, (client.to_bits() >> 72) as u64),
    }
}

/// Networks that are told apart; 64 KiB.
const NETWORKS: usize = 8_192;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_network_gets_its_rate_in_each_second() {
        let rate = ReplyRate::new(3);
        let start = Moment::default() + Duration::from_secs(7);
        let sent = |client: &str, now| rate.admits(client.parse().unwrap(), now);
        let one = ["192.0.2.1", "192.0.2.200", "::ffff:192.0.2.7", "192.0.2.1", "192.0.2.9"];
        assert_eq!(one.map(|client| sent(client, start)), [true, true, true, false, false]);
        let later = start + Duration::from_secs(1);
        assert!(sent("192.0.2.1", later), "the next second begins anew");
    }

    #[test]
    fn networks_have_limits_of_their_own() {
        let check = |client: &str, network_of: &str, is_same: bool| {
            let of = |text: &str| network(text.parse().unwrap());
            assert_eq!(of(client) == of(network_of), is_same, "{client} {network_of}");
        };
        check("192.0.2.1", "192.0.2.255", true);
        check("192.0.2.1", "192.0.3.1", false);
        check("2001:db8:0:aa00::1", "2001:db8:0:aaff:1::", true);
        check("2001:db8:0:aa00::1", "2001:db8:0:ab00::1", false);
        check("::1", "0.0.0.1", false);
    }
}
