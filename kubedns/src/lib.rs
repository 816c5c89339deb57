//! kubedns.
