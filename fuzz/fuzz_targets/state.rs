//! libFuzzer on the target `state`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbigarray_fuzz::fuzz("state", bytes));
