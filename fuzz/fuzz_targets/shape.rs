//! libFuzzer on the target `shape`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbigarray_fuzz::fuzz("shape", bytes));
