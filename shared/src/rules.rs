//! The syntax of rules about names: rewrites, patterns, texts of records.
//!
//! Core. dnscache applies the rules. Every program that reads a Corefile checks them, so that all
//! programs accept and refuse the same files.

pub mod name;
pub mod rewrite;
pub mod text;
