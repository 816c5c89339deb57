//! The outside of the programs under test: a DNS client and an upstream. The API server and the
//! builders for objects are in the library of this crate.
//!
//! It uses DNS, HTTP and the Kubernetes API as any client does. It must not depend on the internals
//! of the programs.

#![allow(dead_code)] // a fixture has more than one test needs

pub mod changes;
pub mod cluster;
pub mod dns;
pub mod dnscache;
pub mod http;
pub mod kubedns;
pub mod log;
pub mod upstream;
