//! libFuzzer's way to [`fuzz::corefile`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::corefile(bytes));
