//! dnscache.
pub mod forward;
