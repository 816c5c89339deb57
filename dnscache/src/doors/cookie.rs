//! The cookies of this server (RFC 7873, RFC 9018).
//!
//! Core. A client that sends a cookie gets it back, so that it can discard replies of attackers who
//! cannot see its queries. No decision depends on the server cookie of a client, so it is created
//! for each reply and never verified.

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
        // The timestamp is a serial number of 32 bits, and wraps as such (RFC 9018 section 4.3).
        let secs = self.booted_secs.wrapping_add(now.secs()) as u32;
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
}
