//! The cookies of this server (RFC 7873, RFC 9018).
//!
//! Core. A client that sends a cookie gets it back, so that it can discard replies of attackers who
//! cannot see its queries. The server cookie is created for each reply. It is only verified if
//! replies are limited (`--reply-rate`): it proves that the client gets the replies.

use std::hash::Hasher;
use std::net::IpAddr;

use shared::clock::Moment;
use shared::wire::{CLIENT_COOKIE_LEN, Cookie};
use siphasher::sip::SipHasher24;

/// Makes the cookies of replies.
#[derive(Clone)]
pub struct Cookies {
    secret: [u8; 16],
    /// When the machine booted, in seconds since 1970.
    booted_secs: u64,
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookies")
    }
}

impl Cookies {
    /// Returns cookies under `secret`, for a machine that booted `booted_secs` seconds after 1970
    /// began.
    pub fn new(secret: [u8; 16], booted_secs: u64) -> Self {
        Self { secret, booted_secs }
    }

    /// Returns the cookies of a reply to `client`, which sent `cookie` (RFC 9018 section 4).
    pub fn reply(&self, cookie: [u8; CLIENT_COOKIE_LEN], client: IpAddr, now: Moment) -> Cookie {
        self.of_time(cookie, client, self.unix_secs(now))
    }

    /// Returns whether this server made `cookie` for `client` in the last hour, or is at most five
    /// minutes ahead of the clock (RFC 9018 section 4.3).
    pub fn is_valid(&self, cookie: &Cookie, client: IpAddr, now: Moment) -> bool {
        let Some((own, _)) = cookie.split_first_chunk() else { return false };
        let secs = u32::from_be_bytes([cookie[12], cookie[13], cookie[14], cookie[15]]);
        let age = self.unix_secs(now).wrapping_sub(secs) as i32;
        (AHEAD_SECS_MAX..=AGE_SECS_MAX).contains(&age)
            && *cookie == self.of_time(*own, client, secs)
    }

    /// Returns the time of `now`. It is a serial number of 32 bits, and wraps as such.
    fn unix_secs(&self, now: Moment) -> u32 {
        self.booted_secs.wrapping_add(now.secs()) as u32
    }

    fn of_time(&self, cookie: [u8; CLIENT_COOKIE_LEN], client: IpAddr, secs: u32) -> Cookie {
        let mut whole: Cookie = [0; 24];
        whole[..8].copy_from_slice(&cookie);
        whole[8] = VERSION;
        whole[12..16].copy_from_slice(&secs.to_be_bytes());
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(&whole[..16]);
        match client.to_canonical() {
            IpAddr::V4(client) => hasher.write(&client.octets()),
            IpAddr::V6(client) => hasher.write(&client.octets()),
        }
        whole[16..].copy_from_slice(&hasher.finish().to_le_bytes());
        whole
    }
}

/// How old a valid cookie is at most, in seconds.
const AGE_SECS_MAX: i32 = 3_600;
/// How old it is at least: a cookie from a clock that was ahead.
const AHEAD_SECS_MAX: i32 = -300;
/// The only version (RFC 9018 section 8.2).
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cookies_are_those_of_the_examples() {
        let check = |secret: u128, (cookie, client): (u64, &str), secs: u64, server: u128| {
            let expected = [&cookie.to_be_bytes()[..], &server.to_be_bytes()].concat();
            // The machine can have booted at any time.
            for up in [0, 1, 1_000_000] {
                let cookies = Cookies::new(secret.to_be_bytes(), secs - up);
                let now = Moment::default() + Duration::from_secs(up);
                let whole = cookies.reply(cookie.to_be_bytes(), client.parse().unwrap(), now);
                assert_eq!(whole[..], expected, "{client} {up}");
            }
        };
        // RFC 9018 appendix A, each part.
        let (secret, rolled) =
            (0xe5e973e5a6b2a43f48e7dc849e37bfcf, 0x445536bcd2513298075a5d379663c962);
        let one = (0x2464c4abcf10c957, "198.51.100.100");
        let mapped = (0x2464c4abcf10c957, "::ffff:198.51.100.100");
        let other = (0xfc93fc62807ddb86, "203.0.113.203");
        let v6 = (0x22681ab97d52c298, "2001:db8:220:1:59de:d0f4:8769:82b8");
        check(secret, one, 1_559_731_985, 0x010000005cf79f111f8130c3eee29480);
        check(secret, mapped, 1_559_731_985, 0x010000005cf79f111f8130c3eee29480);
        check(secret, one, 1_559_734_385, 0x010000005cf7a871d4a564a1442aca77);
        check(secret, other, 1_559_734_700, 0x010000005cf7a9acf73a7810aca2381e);
        check(rolled, v6, 1_559_741_961, 0x010000005cf7c609a6bb79d16625507a);
    }

    #[test]
    fn a_cookie_is_valid_for_its_client_and_an_hour() {
        let cookies = Cookies::new([7; 16], 1_000_000);
        let at = |secs: u64| Moment::default() + Duration::from_secs(secs);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let cookie = cookies.reply([1; 8], client, at(10_000));
        let valid = |cookie: &Cookie, client, secs| cookies.is_valid(cookie, client, at(secs));
        let rows = [(9_699, false), (9_700, true), (10_000, true), (13_600, true), (13_601, false)];
        for (secs, expected) in rows {
            assert_eq!(valid(&cookie, client, secs), expected, "{secs}");
        }
        assert!(valid(&cookie, "::ffff:192.0.2.1".parse().unwrap(), 10_000));
        assert!(!valid(&cookie, "192.0.2.2".parse().unwrap(), 10_000), "another client");
        for at in 0..cookie.len() {
            let mut forged = cookie;
            forged[at] ^= 1;
            assert!(!valid(&forged, client, 10_000), "byte {at}");
        }
    }
}
