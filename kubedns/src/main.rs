//! The kubedns program.

fn main() {}
