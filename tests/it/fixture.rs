//! The outside of the programs under test: a DNS client, an upstream. The API server and the
//! builders for objects are in the library of this crate.
//!
//! Knows DNS, HTTP and the Kubernetes API as any client does; knows nothing of what is inside the
//! programs.

#![allow(dead_code)] // a fixture offers more than any one test takes

pub mod changes;
pub mod cluster;
pub mod dns;
pub mod dnscache;
pub mod http;
pub mod kubedns;
pub mod log;
pub mod upstream;
