//! dnscache.
pub mod cache;
pub mod chaos;
pub mod config;
pub mod counters;
pub mod forward;
pub mod handler;
pub mod http;
pub mod lifetime;
pub mod normalise;
pub mod route;
