//! libFuzzer on the target `dtype`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbigarray_fuzz::fuzz("dtype", bytes));
