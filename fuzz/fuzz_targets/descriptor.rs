//! libFuzzer on the target `descriptor`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbigarray_fuzz::fuzz("descriptor", bytes));
