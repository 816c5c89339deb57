//! The syntax of rules about names: rewrites, patterns, texts of records.
//!
//! Core. dnscache applies the rules; every program that reads a Corefile checks them, so that all
//! of them accept or refuse the same files.

pub mod name;
pub mod rewrite;
mod terms;
pub mod text;

pub use terms::{rcode_number, type_name, type_number};
