//! kubedns.

pub mod answer;
pub mod name;
pub mod project;
pub mod records;
pub mod store;
