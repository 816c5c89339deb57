//! Whole-program tests.
#![allow(clippy::unwrap_used)] // in a test a panic is the message
mod conformance;
mod fixture;
mod flights;
mod serve;
