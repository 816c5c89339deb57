//! The outside of the programs under test: a DNS client, an API server, builders for objects.
//!
//! Knows DNS, HTTP and the Kubernetes API as any client does; knows nothing of what is inside the
//! programs.

#![allow(dead_code)] // a fixture offers more than any one test takes

pub mod api_server;
pub mod cluster;
pub mod dns;
pub mod http;
pub mod kubedns;
pub mod objects;
pub mod upstream;
