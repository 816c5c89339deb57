//! The dnscache program.

fn main() {}
