//! Whole-program tests.
#![allow(clippy::unwrap_used)] // in a test a panic is the message
#![allow(clippy::type_complexity)] // a row of a table is a tuple
mod cache;
mod cargo_load;
mod cargo_pod;
mod chart;
mod conformance;
mod corefile;
mod descriptors;
mod dnscache;
mod environment;
mod etcd;
mod faults;
mod fixture;
mod followers;
mod fuzz;
mod healthz;
mod image;
mod keep;
mod kubedns;
mod load;
mod manifests;
mod model;
mod pod;
mod queries;
mod scale;
mod serve;
mod tidy;
mod upstreams;
