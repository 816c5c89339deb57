//! Whole-program tests.
mod serve;
