//! The clients that are allowed, and the answers that are passed on.
//!
//! Core. Works on addresses, without routes, sockets or the cache.

mod acl;
mod allow;
mod cookie;
mod rate;
mod rebind;

pub use acl::{Acl, action};
pub use allow::Allowed;
pub use cookie::Cookies;
pub use rate::ReplyRate;
pub use rebind::Rebind;

/// The addresses that are not on the Internet: private (RFC 1918, RFC 4193), shared (RFC 6598),
/// loopback and link-local ones, and two ranges that clusters use for pods because the Internet
/// does not route them (RFC 2544, RFC 1112).
const INSIDE: [&str; 11] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "240.0.0.0/4",
    "::1",
    "fc00::/7",
    "fe80::/10",
];
