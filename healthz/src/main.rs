//! The healthz program.

fn main() {}
