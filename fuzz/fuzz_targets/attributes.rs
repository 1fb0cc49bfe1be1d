//! libFuzzer on the target `attributes`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbigarray_fuzz::fuzz("attributes", bytes));
