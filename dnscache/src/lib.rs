//! dnscache.
