//! Whole-program tests.
#![allow(clippy::unwrap_used)] // in a test a panic is the message
mod conformance;
mod dnscache;
mod fixture;
mod flights;
mod healthz;
mod kubedns;
mod model;
mod pod;
mod serve;
