//! libFuzzer on the target `words`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbigarray_fuzz::fuzz("words", bytes));
