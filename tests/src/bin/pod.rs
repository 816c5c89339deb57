//! pod.

fn main() {}
