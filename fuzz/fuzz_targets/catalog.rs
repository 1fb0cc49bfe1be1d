//! libFuzzer on the target `catalog`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbigarray_fuzz::fuzz("catalog", bytes));
